package broker

import (
	"context"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// findSome asks the site about tags whose answer was lost.
func (s *site) findSome(ctx context.Context, c *conn) (bool, error) {
	b := s.b
	b.mu.Lock()
	var ids []string
	var tags []adapters.Tag
	most := c.batch(len(s.find), mostAlike)
	for id, tag := range s.find {
		if len(ids) == most {
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
	found, err := c.Find(cctx, tags)
	if answers(err) {
		s.touch()
	}
	s.look(c)
	if err != nil {
		b.cfg.Log.Warn("a site can't say what it has; it is asked again", "site", s.name, "tags", len(tags), "cause", err)
		return true, err
	}
	ins := make([]input, len(ids))
	b.mu.Lock()
	for i, id := range ids {
		delete(s.find, id)
		ins[i] = input{id: id, tag: string(tags[i]), facts: func(_ *job, st store.Status) []fact {
			return []fact{{event: Absent, reason: "the site " + s.name + " never received it" + again(&st)}}
		}}
		if h, ok := found[tags[i]]; ok {
			ins[i].facts = one(fact{event: Placed, handle: h, reason: "found again at the site " + s.name})
		}
	}
	more := len(s.find) > 0
	b.mu.Unlock()
	b.post(ins...)
	nudge(s.wakeAudit)
	return more, nil
}

// deed is what is asked of the site for one job.
type deed struct {
	do     Action
	held   bool // the site keeps it from starting, or has not started it
	id     string
	tag    string
	handle adapters.Handle
}

// deeds takes what is to be asked of the site next; it also says whether there
// is more.
func (s *site) deeds(c *conn) (out []deed, more bool) {
	b := s.b
	b.mu.Lock()
	defer b.mu.Unlock()
	most := c.batch(len(s.steer), mostAlike)
	for id, do := range s.steer {
		j := b.jobs[id]
		if j == nil || !s.has(j) || !stillWanted(&j.rec.Status, do) {
			delete(s.steer, id)
			continue
		}
		if h := j.rec.Status.Placement.Handle; h != nil { // else it is asked once the handle is known
			if len(out) == most {
				return out, true
			}
			out = append(out, deed{do, j.waitsThere(), id, j.rec.Status.Placement.Tag, h})
		}
		delete(s.steer, id)
	}
	return out, false
}

// waitsThere reports whether the site has not started the job, as far as is
// known, or keeps it from starting again.
func (j *job) waitsThere() bool {
	switch Phase(j.rec.Status.Phase) {
	case Placing, AtSite, SiteHeld:
		return true
	case Resuming, Suspended:
		return j.held
	case Queued, Held, Running, Requeued, Withheld, Outlasted, Cancelling, Finished, Failed, Cancelled:
	}
	return false
}

// steerSome ends, stops and lets go on what users asked for.
func (s *site) steerSome(ctx context.Context, c *conn) (bool, error) {
	b := s.b
	b.mu.Lock()
	drop := s.drop
	s.drop = nil
	b.mu.Unlock()
	todo, more := s.deeds(c)

	cctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	for _, h := range drop {
		if err := c.Forget(cctx, h); err != nil {
			b.cfg.Log.Debug("a site keeps what it need not", "site", s.name, "cause", err)
		}
	}
	var trouble error
	var ins []input
	for d, err := range s.ask(cctx, c, todo) {
		class := adapters.ClassOf(err)
		switch {
		case err == nil && d.do == DoResume:
			b.mu.Lock()
			if j := b.jobs[d.id]; j != nil {
				j.released = time.Now()
			}
			b.mu.Unlock()
		case err == nil || fail.Is(err, fail.NotFound):
			// NotFound: it ended meanwhile, and the audit below hears of it.
		case d.do == DoRecall:
			b.cfg.Log.Debug("a job is not given back", "job", d.id, "site", s.name, "cause", err) // it stays where it is
		case d.do == DoSuspend && class == adapters.Permanent:
			ins = append(ins, input{id: d.id, tag: d.tag, facts: s.unable(err, c.suspend != nil)})
		case fail.Is(err, fail.Conflict), d.do == DoResume && class == adapters.Permanent:
			// It ended meanwhile, or goes on already.
		default:
			trouble = err
			b.mu.Lock()
			if _, newer := s.steer[d.id]; !newer {
				s.steer[d.id] = d.do
			}
			b.mu.Unlock()
		}
	}
	b.post(ins...)
	if len(todo) > 0 && c.watcher == nil || trouble != nil || len(ins) > 0 {
		nudge(s.wakeAudit)
	}
	if trouble != nil {
		s.look(c)
		b.cfg.Log.Warn("a site did not do what was asked; it is asked again", "site", s.name, "cause", trouble)
	}
	return more || trouble != nil, trouble
}

// unable tells a job that it could not be kept from running, if that is still
// wanted and it has not ended. One that waits at a site which can suspend what
// runs will be suspended when it starts.
func (s *site) unable(err error, later bool) func(*job, store.Status) []fact {
	return func(_ *job, st store.Status) []fact {
		if p := Phase(st.Phase); !st.Suspend || p != Running && (p != AtSite || later) {
			return nil
		}
		return []fact{{event: Unable, at: time.Now(), reason: "the site " + s.name + " could not keep it from running: " + fail.Sentence(err)}}
	}
}

// ask puts deeds to the adapter, those of a kind in one call, and yields each
// one's error. What waits at the site is held and released, what runs is suspended
// and resumed; as a job may have started meanwhile, the other is tried where the
// first does not fit.
func (s *site) ask(ctx context.Context, c *conn, todo []deed) func(yield func(deed, error) bool) {
	return func(yield func(deed, error) bool) {
		type kind struct {
			do   Action
			held bool
		}
		groups := map[kind][]deed{}
		for _, d := range todo {
			k := kind{d.do, d.held && d.do != DoCancel}
			groups[k] = append(groups[k], d)
		}
		for k, ds := range groups {
			first, second := c.way(k.do, k.held), c.way(k.do, !k.held)
			if first == nil {
				first, second = second, nil
			}
			errs := call(ctx, first, ds)
			var again []deed
			for i, d := range ds {
				if second != nil && fail.Is(errs[i], fail.Conflict) {
					again = append(again, d)
				} else if !yield(d, errs[i]) {
					return
				}
			}
			errs = call(ctx, second, again)
			for i, d := range again {
				if !yield(d, errs[i]) {
					return
				}
			}
		}
	}
}

// way gives how the adapter does an action, nil if it can't.
func (c *conn) way(do Action, held bool) func(context.Context, []adapters.Handle) []error {
	switch {
	case do == DoCancel && !held:
		return c.Cancel
	case do == DoRecall && held && c.recaller != nil:
		return func(ctx context.Context, hs []adapters.Handle) []error {
			return c.recaller.Recall(ctx, hs, "the own sites of the domain that gave it have recovered")
		}
	case do == DoSuspend && held && c.holder != nil:
		return c.holder.Hold
	case do == DoSuspend && !held && c.suspend != nil:
		return c.suspend.Suspend
	case do == DoResume && held && c.holder != nil:
		return c.holder.Release
	case do == DoResume && !held && c.suspend != nil:
		return c.suspend.Resume
	}
	return nil
}

// call gives one answer for each deed, whatever the adapter gives.
func call(ctx context.Context, f func(context.Context, []adapters.Handle) []error, ds []deed) []error {
	errs := make([]error, len(ds))
	if len(ds) == 0 {
		return errs
	}
	handles := make([]adapters.Handle, len(ds))
	for i, d := range ds {
		handles[i] = d.handle
		errs[i] = fail.Errorf("broker.steer", fail.Unsupported, d.id, "the site can't do this")
	}
	if f != nil {
		got := f(ctx, handles)
		for i := range errs {
			errs[i] = fail.Errorf("broker.steer", fail.Uncertain, ds[i].id, "the site gave no answer")
			if i < len(got) {
				errs[i] = got[i]
			}
		}
	}
	return errs
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
	case DoRecall:
		return Phase(st.Phase) == AtSite && !st.Suspend
	case DoSubmit, DoFind, DoForget:
	}
	return false
}
