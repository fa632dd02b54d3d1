package broker

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// MaxTrace bounds how long one trace may be written.
const MaxTrace = 24 * time.Hour

// mostSpooled bounds what waits in memory for the reader of a trace, in bytes. It has
// room for the whole state of a busy gateway, with which a trace begins.
const mostSpooled = 256 << 20

// traceFresh is how long a reader waits for what was recorded.
const traceFresh = time.Second

// Trace writes what the scheduler of this replica is told and decides, from now on and
// for so long, in the form that schedule.Replay reads. It ends earlier with ctx. One is
// written at a time: fail.Conflict. A reader that is too slow is fail.Exhausted. It
// needs Manage, as everybody's documents are in it.
func (b *Broker) Trace(ctx context.Context, w io.Writer, d time.Duration) error {
	const op = "broker.Trace"
	if _, err := b.caller(ctx, op, Manage); err != nil {
		return err
	}
	if d <= 0 || d > MaxTrace {
		return fail.Errorf(op, fail.Invalid, "", "a trace is written for %s at most, not for %s", MaxTrace, d)
	}
	s := &spool{more: make(chan struct{}, 1)}
	b.mu.Lock()
	if !b.serving {
		b.mu.Unlock()
		return errStarting
	}
	rec, err := b.sched.Record(s, source)
	b.mu.Unlock()
	if err != nil {
		return err
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	fresh := time.NewTicker(traceFresh)
	defer fresh.Stop()
	for more := true; more && err == nil; {
		select {
		case <-s.more:
			err = s.drain(w)
		case <-fresh.C:
			b.mu.Lock()
			rec.Flush()
			b.mu.Unlock()
		case <-timer.C:
			more = false
		case <-ctx.Done():
			more = false
		}
	}
	b.mu.Lock()
	ended := rec.Close()
	b.mu.Unlock()
	switch {
	case err != nil:
		return fail.Errorf(op, fail.Unavailable, "", "the trace could not be written to its end").Because(err)
	case ended != nil:
		return ended
	}
	if err := s.drain(w); err != nil {
		return fail.Errorf(op, fail.Unavailable, "", "the trace could not be written to its end").Because(err)
	}
	return nil
}

// source gives what a job's request is compiled of. Of one that was placed before this
// process began only the CPUs are remembered.
func source(j *policy.Job) (schedule.Source, error) {
	def := j.Request.Definition()
	if def == nil {
		cpus := &jsdl.RangeValue{Exact: []jsdl.Exact{{Value: float64(max(1, j.Request.Need.CPUs))}}}
		def = &jsdl.JobDefinition{Description: jsdl.JobDescription{Resources: &jsdl.Resources{TotalCPUCount: cpus}}}
	}
	return schedule.Source{Document: def.Marshal(), Subject: j.Request.Subject}, nil
}

// spool takes what is written while the broker is locked, and never waits.
type spool struct {
	mu     sync.Mutex
	parts  [][]byte
	size   int
	failed error
	more   chan struct{}
}

// Write keeps p until drain.
func (s *spool) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.size+len(p) > mostSpooled && s.failed == nil {
		s.failed = fail.Errorf("broker.Trace", fail.Exhausted, "", "the trace comes faster than it is read: %d bytes wait", s.size)
		s.parts, s.size = nil, 0
	}
	nudge(s.more)
	if s.failed != nil {
		return 0, s.failed
	}
	s.parts, s.size = append(s.parts, append([]byte(nil), p...)), s.size+len(p)
	return len(p), nil
}

// drain writes on what was kept.
func (s *spool) drain(w io.Writer) error {
	s.mu.Lock()
	parts, err := s.parts, s.failed
	s.parts, s.size = nil, 0
	s.mu.Unlock()
	for _, p := range parts {
		if err != nil {
			break
		}
		_, err = w.Write(p)
	}
	// Whoever reads sees at once that it has begun, and where it stands.
	if f, ok := w.(interface{ Flush() }); ok && err == nil {
		f.Flush()
	}
	return err
}
