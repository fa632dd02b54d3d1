package peering

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/peers/handover"
)

// ManagerURI is that of a peer site.
const ManagerURI = "http://portolan-project.org/ns/2026/peer"

// Site gives the adapter of a peer as a site of the broker. Any number may be open.
func (e *Engine) Site(domain string) adapters.Adapter { return &site{e, domain} }

// site is a peer that takes our jobs.
type site struct {
	e      *Engine
	domain string
}

var (
	_ adapters.Adapter   = (*site)(nil)
	_ adapters.Watcher   = (*site)(nil)
	_ adapters.Suspender = (*site)(nil)
	_ adapters.Holder    = (*site)(nil)
	_ adapters.Leaser    = (*site)(nil)
)

// Properties implements adapters.Adapter.
func (s *site) Properties() adapters.Properties {
	return adapters.Properties{Type: "peer", ManagerURI: ManagerURI, Version: "1", Suspend: true, Hold: true, Push: true, Bulk: true, Lease: true, Recallable: true, Recall: true, Domain: s.domain}
}

// Check implements adapters.Adapter.
func (s *site) Check(d *jsdl.JobDefinition) error {
	if s.e.o.View == nil {
		return fail.Errorf("peering.Check", fail.Unavailable, s.domain, "it is not known what the domain %s can run", s.domain)
	}
	return s.e.o.View.Check(s.domain, d)
}

// Submit implements adapters.Adapter.
func (s *site) Submit(ctx context.Context, jobs []adapters.Job) []adapters.Placed {
	return s.e.submit(ctx, s.domain, jobs)
}

// Find implements adapters.Adapter.
func (s *site) Find(_ context.Context, tags []adapters.Tag) (map[adapters.Tag]adapters.Handle, error) {
	return s.e.find(s.domain, tags)
}

// Status implements adapters.Adapter.
func (s *site) Status(_ context.Context, handles []adapters.Handle) ([]adapters.Evidence, error) {
	return s.e.status(handles)
}

// Cancel implements adapters.Adapter.
func (s *site) Cancel(ctx context.Context, handles []adapters.Handle) []error {
	return s.e.cancel(ctx, handles)
}

// Suspend implements adapters.Suspender.
func (s *site) Suspend(ctx context.Context, handles []adapters.Handle) []error {
	return s.e.want(ctx, "peering.Suspend", handles, handover.Suspend, func(x *entry) error {
		if st := x.job.Status(); st != handover.IsRunning && st != handover.IsSuspended {
			return fail.Errorf("peering.Suspend", fail.Conflict, x.key.String(), "the job is %s; only a running job can be suspended", st)
		}
		return nil
	})
}

// Resume implements adapters.Suspender.
func (s *site) Resume(ctx context.Context, handles []adapters.Handle) []error {
	return s.e.want(ctx, "peering.Resume", handles, handover.Run, func(*entry) error { return nil })
}

// Hold implements adapters.Holder.
func (s *site) Hold(ctx context.Context, handles []adapters.Handle) []error {
	return s.e.want(ctx, "peering.Hold", handles, handover.Suspend, func(x *entry) error {
		if st := x.job.Status(); st == handover.IsRunning {
			return fail.Errorf("peering.Hold", fail.Conflict, x.key.String(), "the job is %s; only a job that has not started can be held", st)
		}
		return nil
	})
}

// Release implements adapters.Holder.
func (s *site) Release(ctx context.Context, handles []adapters.Handle) []error {
	return s.e.want(ctx, "peering.Release", handles, handover.Run, func(*entry) error { return nil })
}

// Extend implements adapters.Leaser: that no copy outlives the lease of the copy that a peer
// gave is seen to by the recall deadlines.
func (s *site) Extend(_ context.Context, extensions []adapters.Extension) []error {
	return make([]error, len(extensions))
}

// Output implements adapters.Adapter.
func (s *site) Output(ctx context.Context, h adapters.Handle, stream adapters.Stream, offset int64) (io.ReadCloser, error) {
	return s.e.output(ctx, h, stream, offset)
}

// Forget implements adapters.Adapter.
func (s *site) Forget(_ context.Context, h adapters.Handle) error { return s.e.forget(h) }

// Resources implements adapters.Adapter.
func (s *site) Resources(ctx context.Context) (adapters.Resources, error) {
	if s.e.o.View == nil {
		return adapters.Resources{}, fail.Errorf("peering.Resources", fail.Unavailable, s.domain, "it is not known what the domain %s has", s.domain)
	}
	return s.e.o.View.Resources(ctx, s.domain)
}

// Health implements adapters.Adapter.
func (s *site) Health() adapters.Health {
	e := s.e
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.peer(s.domain)
	h := adapters.Health{Path: "session", Version: "1", Since: p.since, Offered: []adapters.Path{"session"}}
	switch {
	case e.over: // that is no trouble of the peer's, and of no more use to anybody
		h.Contact = time.Now()
	case e.term == nil:
		h.Problem = "another replica of this gateway talks to the peers at present, or the gateway is starting"
	case !p.open:
		h.Problem = "there is no session: " + p.why
	default:
		h.Contact = time.Now() // the session watches over that
	}
	return h
}

// Close implements adapters.Adapter; jobs go on.
func (s *site) Close() error { return nil }

// Watch implements adapters.Watcher. Each time that a session begins, it says that it is up.
func (s *site) Watch(ctx context.Context, emit func([]adapters.Evidence)) error {
	s.e.mu.Lock()
	p := s.e.peer(s.domain)
	s.e.mu.Unlock()
	up := p.listen()
	defer p.deafen(up)
	var one sync.Mutex // the two that emit take turns
	each := func(es []adapters.Evidence) {
		one.Lock()
		defer one.Unlock()
		emit(es)
	}
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	all.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-up:
				each(nil)
			}
		}
	})
	return p.feed.Watch(ctx, each)
}
