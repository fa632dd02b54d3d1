package pluginpolicy

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/broker/policy/pluginpolicy/proto"
)

const maxJobs = 1000 // in one message

// order is a scheduling policy whose keys a plug-in makes. While it does not, keys,
// groups and weights are those of the built-in policy.
type order struct {
	h          *Host
	parameters map[string]float64
}

var (
	_ policy.Batched = (*order)(nil)
	_ policy.Revised = (*order)(nil)
)

// Revision changes whenever the keys are made by another: see policy.Revised. It is
// read after the keys were made, too, since a call that fails changes it.
func (o *order) Revision() uint64 {
	o.h.mu.Lock()
	defer o.h.mu.Unlock()
	return o.h.revision
}

// maker gives the session that makes the keys; nil is the built-in policy.
func (o *order) maker() *session {
	o.h.mu.Lock()
	defer o.h.mu.Unlock()
	if !o.h.trusted {
		return nil
	}
	return o.h.current
}

func (o *order) Group(j *policy.Job) string {
	if o.maker() == nil {
		return o.h.order.Group(j)
	}
	return ""
}

func (o *order) Weight(group string, now time.Time, u policy.Usage) float64 {
	if o.maker() == nil {
		return o.h.order.Weight(group, now, u)
	}
	return 0
}

func (o *order) Key(j *policy.Job) policy.Key { return o.Keys([]*policy.Job{j})[0] }

// Keys asks for many at once. Those of one call are all of the plug-in or all of the
// built-in policy.
func (o *order) Keys(jobs []*policy.Job) []policy.Key {
	out := make([]policy.Key, 0, len(jobs))
	s := o.maker()
	for s != nil && len(out) < len(jobs) {
		some := jobs[len(out):min(len(out)+maxJobs, len(jobs))]
		keys, err := o.ask(s, some)
		s.count(err)
		if err != nil {
			o.h.distrust(s)
			o.h.decided(err.Error())
			s = nil
			break
		}
		out = append(out, keys...)
	}
	if s != nil {
		o.h.decided("")
		return out
	}
	out = out[:0]
	for _, j := range jobs {
		out = append(out, o.h.order.Key(j))
	}
	return out
}

func (o *order) ask(s *session, jobs []*policy.Job) ([]policy.Key, error) {
	timeout := o.h.settings.Timeout
	if len(jobs) > 1 {
		timeout *= 10
	}
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	q := &proto.KeysRequest{Parameters: o.parameters}
	for _, j := range jobs {
		q.Jobs = append(q.Jobs, writeJob(j))
	}
	r, err := s.api.Keys(ctx, q)
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("it did not give the keys of %d jobs within %v", len(jobs), timeout)
	case err != nil:
		return nil, fmt.Errorf("it gave no keys: %s", clip(status.Convert(err).Message(), 500))
	case len(r.Keys) != len(jobs):
		return nil, fmt.Errorf("it gave %d keys for %d jobs", len(r.Keys), len(jobs))
	}
	out := make([]policy.Key, len(jobs))
	for i, k := range r.Keys {
		if !finite(k.GetFirst()) || !finite(k.GetSecond()) {
			return nil, fmt.Errorf("it gave a key that is no finite number")
		}
		// Jobs whose place was lost go first under every policy.
		out[i] = policy.Key{-float64(jobs[i].Class), k.GetFirst(), k.GetSecond()}
	}
	return out, nil
}

// writeJob puts a job on the wire.
func writeJob(j *policy.Job) *proto.Job {
	p := &proto.Job{
		Id: clip(j.ID, maxText), Owner: clip(j.Owner, maxText), Vo: clip(j.VO, maxText), Submitted: timestamppb.New(j.Submitted),
		Priority: small(j.Priority), Cpus: small(j.CPUs), Class: small(j.Class),
	}
	if !j.Deadline.IsZero() {
		p.Deadline = timestamppb.New(j.Deadline)
	}
	if j.Length > 0 {
		p.Length = durationpb.New(j.Length)
	}
	if j.Request != nil {
		p.Memory, p.Gpus = j.Request.Need.Memory, small(j.Request.Need.GPUs)
	}
	return p
}

func small(n int) int32 { return int32(min(max(n, -1<<31), 1<<31-1)) }
