package broker

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// site is what the broker knows of a place and what it has to do there. Broker.mu
// guards what has no atomic.
type site struct {
	b       *Broker
	index   int
	name    string
	adapter adapters.Adapter
	props   adapters.Properties

	capacity atomic.Pointer[adapters.Capacity] // nil until first known
	inFlight int                               // jobs that it has or is being given
	failures int                               // in a row
	closed   time.Time                         // no new jobs until then
	down     error                             // why

	submit []ticket          // jobs to be handed over
	find   map[string]string // tag by job: was it placed?
	steer  map[string]Action // DoCancel, DoSuspend or DoResume by job
	drop   []adapters.Handle // to be forgotten

	wakeSubmit, wakeFind, wakeSteer, wakeAudit chan struct{}
}

// ticket names a placement.
type ticket struct{ id, tag string }

// forgetting is a placement that the site need not remember.
type forgetting struct {
	site   string
	handle adapters.Handle
}

func newSite(b *Broker, i int, s Site) *site {
	c := func() chan struct{} { return make(chan struct{}, 1) }
	return &site{
		b: b, index: i, name: s.Name, adapter: s.Adapter, props: s.Adapter.Properties(),
		wakeSubmit: c(), wakeFind: c(), wakeSteer: c(), wakeAudit: c(),
	}
}

func (s *site) reset() {
	s.inFlight, s.failures, s.closed, s.down = 0, 0, time.Time{}, nil
	s.submit, s.drop = nil, nil
	s.find, s.steer = map[string]string{}, map[string]Action{}
}

// run starts the loops of the site.
func (s *site) run(ctx context.Context, g *errgroup.Group) {
	g.Go(func() error { return s.loop(ctx, s.wakeSubmit, s.submitSome) })
	g.Go(func() error { return s.loop(ctx, s.wakeFind, s.findSome) })
	g.Go(func() error { return s.loop(ctx, s.wakeSteer, s.steerSome) })
	g.Go(func() error { return s.auditLoop(ctx) })
	if w, ok := s.adapter.(adapters.Watcher); ok && s.props.Push {
		g.Go(func() error { return s.watchLoop(ctx, w) })
	}
}

// loop does a chore whenever it is woken, until nothing is left of it; while the
// site does not answer, it waits longer each time.
func (s *site) loop(ctx context.Context, wake <-chan struct{}, chore func(context.Context) (more bool, err error)) error {
	for failures := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-wake:
		}
		for more := true; more; {
			var err error
			more, err = chore(ctx)
			if ctx.Err() != nil {
				return nil //nolint:nilerr // what fails while stopping is no failure
			}
			if err == nil {
				failures = 0
				continue
			}
			failures++
			if !sleep(ctx, s.b.cfg.Retry.backoff(failures, s.b.cfg.Jitter())) {
				return nil
			}
		}
	}
}

// todo files actions on a job; the caller holds the lock.
func (s *site) todo(j *job, do Action) {
	id := j.rec.ID
	if do&DoSubmit != 0 {
		s.submit = append(s.submit, ticket{id, j.rec.Status.Placement.Tag})
		nudge(s.wakeSubmit)
	}
	if do&DoFind != 0 {
		s.find[id] = j.rec.Status.Placement.Tag
		nudge(s.wakeFind)
	}
	for _, one := range []Action{DoResume, DoSuspend, DoCancel} {
		if do&one != 0 {
			s.steer[id] = one
			nudge(s.wakeSteer)
		}
	}
}

// toForget files a handle to be forgotten; the caller holds the lock.
func (s *site) toForget(h adapters.Handle) {
	s.drop = append(s.drop, h)
	nudge(s.wakeSteer)
}

// callTime bounds one call of an adapter: one that hangs must not take the
// site's loop with it for ever.
const callTime = 5 * time.Minute

func (s *site) batch(n int) int {
	if s.props.MaxBatch > 0 {
		return min(n, s.props.MaxBatch)
	}
	return min(n, 256)
}

// submitSome hands over the next jobs.
func (s *site) submitSome(ctx context.Context) (bool, error) {
	b := s.b
	b.mu.Lock()
	var jobs []adapters.Job
	var ids []string
	var ins []input
	most := s.batch(len(s.submit))
	for len(s.submit) > 0 && len(jobs) < most {
		t := s.submit[0]
		s.submit = s.submit[1:]
		j := b.jobs[t.id]
		if j == nil || !s.has(j) || j.rec.Status.Placement.Tag != t.tag || j.rec.Status.Placement.Handle != nil {
			continue
		}
		if Phase(j.rec.Status.Phase) != Placing || j.def == nil {
			// Its end was asked for before the site heard of it: nobody else hands it over.
			ins = append(ins, input{id: t.id, tag: t.tag, facts: one(fact{event: Absent, reason: "it had not been given to the site " + s.name})})
			continue
		}
		jobs = append(jobs, adapters.Job{
			Tag:        adapters.Tag(t.tag),
			Definition: forSite(j.def, s.name, b.siteIndex),
			Owner:      j.rec.Owner,
		})
		ids = append(ids, t.id)
	}
	b.mu.Unlock()
	if len(jobs) == 0 {
		b.post(ins...)
		return false, nil
	}
	began := time.Now()
	cctx, cancel := context.WithTimeout(ctx, callTime)
	results := s.adapter.Submit(cctx, jobs)
	cancel()
	if b.cfg.Hooks.Placed != nil {
		b.cfg.Hooks.Placed(s.name, len(jobs), time.Since(began))
	}
	var trouble error
	for i := range jobs {
		r := adapters.Placed{Err: fail.Errorf("broker.submit", fail.Uncertain, string(jobs[i].Tag), "the site %s gave no answer", s.name)}
		if i < len(results) {
			r = results[i]
		}
		if r.Err != nil && ctx.Err() != nil {
			continue // we are ending: the next start looks for the tag
		}
		if fail.Is(r.Err, fail.Unavailable) || fail.Is(r.Err, fail.Exhausted) {
			trouble = r.Err
		}
		ins = append(ins, input{id: ids[i], tag: string(jobs[i].Tag), facts: func(j *job, st store.Status) []fact {
			return s.outcome(j, &st, r)
		}})
	}
	s.health(trouble)
	b.post(ins...)
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(s.submit) > 0, nil
}

// has reports whether the site has the job, or may.
func (s *site) has(j *job) bool {
	st := &j.rec.Status
	return st.Placement != nil && st.Placement.Site == s.name && Phase(st.Phase).atSite()
}

// health notes whether the site takes jobs; while it does not, it is tried more
// and more seldom.
func (s *site) health(err error) {
	b := s.b
	b.mu.Lock()
	changed := (s.down == nil) != (err == nil)
	s.down = err
	if err != nil {
		s.failures++
		s.closed = time.Now().Add(b.cfg.Retry.backoff(s.failures, b.cfg.Jitter()))
	} else {
		s.failures, s.closed = 0, time.Time{}
	}
	b.mu.Unlock()
	nudge(b.wakeDispatch)
	if changed {
		if err != nil {
			b.cfg.Log.Warn("a site takes no jobs", "site", s.name, "cause", err)
		} else {
			b.cfg.Log.Info("a site takes jobs again", "site", s.name)
		}
		if b.cfg.Hooks.Site != nil {
			b.cfg.Hooks.Site(s.name, err == nil)
		}
	}
}

// findSome asks the site about tags whose answer was lost.
func (s *site) findSome(ctx context.Context) (bool, error) {
	b := s.b
	b.mu.Lock()
	var ids []string
	var tags []adapters.Tag
	for id, tag := range s.find {
		if len(ids) == s.batch(len(s.find)) {
			break
		}
		if j := b.jobs[id]; j == nil || !s.has(j) || j.rec.Status.Placement.Tag != tag || j.rec.Status.Placement.Handle != nil {
			delete(s.find, id)
			continue
		}
		ids, tags = append(ids, id), append(tags, adapters.Tag(tag))
	}
	b.mu.Unlock()
	if len(ids) == 0 {
		return false, nil
	}
	cctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	found, err := s.adapter.Find(cctx, tags)
	if err != nil {
		b.cfg.Log.Warn("a site can't say what it has; it is asked again", "site", s.name, "tags", len(tags), "cause", err)
		return true, err
	}
	ins := make([]input, len(ids))
	b.mu.Lock()
	for i, id := range ids {
		delete(s.find, id)
		f := fact{event: Absent, reason: "the site " + s.name + " never received it, so it is placed again"}
		if h, ok := found[tags[i]]; ok {
			f = fact{event: Placed, handle: h, reason: "found again at the site " + s.name}
		}
		ins[i] = input{id: id, tag: string(tags[i]), facts: one(f)}
	}
	more := len(s.find) > 0
	b.mu.Unlock()
	b.post(ins...)
	nudge(s.wakeAudit)
	return more, nil
}

// steerSome ends, stops and lets go on what users asked for.
func (s *site) steerSome(ctx context.Context) (bool, error) {
	b := s.b
	b.mu.Lock()
	drop := s.drop
	s.drop = nil
	handles := map[Action][]adapters.Handle{}
	ids := map[Action][]string{}
	for id, do := range s.steer {
		j := b.jobs[id]
		if j == nil || !s.has(j) || !stillWanted(&j.rec.Status, do) {
			delete(s.steer, id)
			continue
		}
		if h := j.rec.Status.Placement.Handle; h != nil { // else it is asked once the handle is known
			if len(handles[do]) == s.batch(256) {
				continue
			}
			handles[do] = append(handles[do], h)
			ids[do] = append(ids[do], id)
		}
		delete(s.steer, id)
	}
	more := len(s.steer) > 0
	b.mu.Unlock()

	cctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	for _, h := range drop {
		if err := s.adapter.Forget(cctx, h); err != nil {
			b.cfg.Log.Debug("a site keeps what it need not", "site", s.name, "cause", err)
		}
	}
	var trouble error
	for do, hs := range handles {
		var errs []error
		sus, _ := s.adapter.(adapters.Suspender)
		switch {
		case do == DoCancel:
			errs = s.adapter.Cancel(cctx, hs)
		case sus == nil:
		case do == DoSuspend:
			errs = sus.Suspend(cctx, hs)
		case do == DoResume:
			errs = sus.Resume(cctx, hs)
		}
		for i, err := range errs {
			if err == nil || i >= len(hs) {
				continue
			}
			if fail.Is(err, fail.NotFound) || fail.Is(err, fail.Conflict) {
				continue // it ended meanwhile: the audit below hears of it
			}
			trouble = err
			b.mu.Lock()
			if _, newer := s.steer[ids[do][i]]; !newer {
				s.steer[ids[do][i]] = do
			}
			b.mu.Unlock()
		}
	}
	if len(handles) > 0 && !s.props.Push || trouble != nil {
		nudge(s.wakeAudit)
	}
	if trouble != nil {
		b.cfg.Log.Warn("a site did not do what was asked; it is asked again", "site", s.name, "cause", trouble)
	}
	return more || trouble != nil, trouble
}

// stillWanted reports whether an action that was filed still fits the status.
func stillWanted(st *store.Status, do Action) bool {
	switch do {
	case DoCancel:
		return Phase(st.Phase) == Cancelling
	case DoSuspend:
		return st.Suspend && Phase(st.Phase) != Cancelling
	case DoResume:
		return !st.Suspend && Phase(st.Phase) != Cancelling
	case DoSubmit, DoFind, DoForget:
	}
	return false
}
