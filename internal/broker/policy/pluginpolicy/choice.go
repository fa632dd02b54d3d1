package pluginpolicy

import (
	"context"
	"fmt"
	"math"
	"time"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/broker/policy/pluginpolicy/proto"
	"github.com/portolan-project/portolan/resourcemodel"
)

const maxCandidates = 4096 // in one message

// choice is a selection policy whose scores a plug-in gives. What it does not give,
// the built-in policy does, for all places of the decision.
type choice struct {
	h          *Host
	parameters map[string]float64
}

func (c *choice) Score(j *policy.Job, cands []policy.Candidate, now time.Time) []float64 {
	if len(cands) == 0 {
		return nil
	}
	s := c.h.session()
	why := "it is down"
	switch {
	case s == nil:
	case len(cands) > maxCandidates:
		why = fmt.Sprintf("a job had %d places, and a plug-in is asked about %d at most", len(cands), maxCandidates)
	default:
		out, err := c.ask(s, j, cands, now)
		s.count(err)
		if err == nil {
			c.h.decided("")
			return out
		}
		why = err.Error()
	}
	c.h.decided(why)
	return c.h.choice.Score(j, cands, now)
}

func (c *choice) ask(s *session, j *policy.Job, cands []policy.Candidate, now time.Time) ([]float64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), c.h.settings.Timeout)
	defer cancel()
	q := &proto.ScoreRequest{Parameters: c.parameters, Job: writeJob(j), Now: timestamppb.New(now), Candidates: make([]*proto.Candidate, len(cands))}
	for i := range cands {
		q.Candidates[i] = writeCandidate(j, &cands[i])
	}
	r, err := s.api.Score(ctx, q)
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("it did not score %d places within %v", len(cands), c.h.settings.Timeout)
	case err != nil:
		return nil, fmt.Errorf("it gave no scores: %s", clip(status.Convert(err).Message(), 500))
	case len(r.Scores) != len(cands):
		return nil, fmt.Errorf("it gave %d scores for %d places", len(r.Scores), len(cands))
	}
	for i, x := range r.Scores {
		if math.IsInf(x, 0) { // decisions are stored as JSON, which has no infinity
			r.Scores[i] = math.Copysign(math.MaxFloat64, x)
		}
	}
	return r.Scores, nil
}

// writeCandidate puts a place on the wire, with what is known of it beside the model.
func writeCandidate(j *policy.Job, c *policy.Candidate) *proto.Candidate {
	p := &proto.Candidate{
		Domain: clip(c.Place.Domain, maxText), Site: clip(c.Place.Site, maxText), Share: clip(c.Place.Share, maxText), Environment: clip(c.Place.Environment, maxText),
		Free: small(c.Free), Load: c.Load, Soft: c.Soft, Order: small(c.Order), Running: small(c.State.Running), Waiting: small(c.State.Waiting),
		FreeCpus: small(c.Nodes.FreeCPUs), FreeMemory: c.Nodes.FreeMemory, FreeGpus: small(c.Nodes.FreeGPUs),
	}
	if c.Site != nil && c.Site.Static != nil {
		p.Type = clip(c.Site.Static.Type, maxText)
		for _, l := range c.Site.Static.Labels {
			p.Labels = append(p.Labels, clip(l, maxText))
		}
	}
	if c.Share != nil {
		p.Price = c.Share.Price
	}
	if e := c.Env; e != nil {
		p.Cpus, p.Memory, p.Architecture, p.OperatingSystem = small(e.CPUs), e.Memory, clip(e.CPUArchitecture, maxText), clip(e.OperatingSystem, maxText)
	}
	need := &resourcemodel.Need{Slots: 1, CPUs: j.CPUs}
	if j.Request != nil {
		need = &j.Request.Need
	}
	if f := c.Derived.Wait; f != nil {
		if w, ok := f(c.Place, need); ok {
			p.Wait = durationpb.New(w)
		}
	}
	if f := c.Derived.SuccessRate; f != nil {
		if x, ok := f(c.Place); ok {
			p.SuccessRate = &x
		}
	}
	if f := c.Derived.Distance; f != nil && j.Request != nil {
		if x, ok := f(c.Place, j.Request); ok {
			p.Distance = &x
		}
	}
	if f := c.Derived.Performance; f != nil {
		if x, ok := f(c.Place); ok {
			p.Performance = &x
		}
	}
	return p
}
