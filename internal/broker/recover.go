package broker

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// recover reads everything that is not final and files what is to be done about
// it: placements without an answer are looked for, those with a handle are asked
// about by the first audit, and what users asked for is asked for again. It gives
// the highest revision read.
func (b *Broker) recover(ctx context.Context, sess store.Session) (int64, error) {
	if err := b.readSettings(ctx); err != nil {
		return 0, fmt.Errorf("reading the settings: %w", err)
	}
	policies, err := b.readPolicies(ctx)
	if err != nil {
		return 0, fmt.Errorf("reading the policies: %w", err)
	}
	others, own, err := b.readUsage(ctx, halfLives(&policies.Policies))
	if err != nil {
		return 0, fmt.Errorf("reading what was used: %w", err)
	}
	if err := b.readLearned(ctx); err != nil {
		return 0, fmt.Errorf("reading what was learned of the sites: %w", err)
	}
	sh, err := b.openShared(ctx, sess)
	if err != nil {
		return 0, fmt.Errorf("reading the resource model and the limits: %w", err)
	}
	fences, err := b.readFences(ctx)
	if err != nil {
		return 0, fmt.Errorf("reading the fences: %w", err)
	}
	recs, err := b.cfg.Store.Live(ctx)
	if err != nil {
		return 0, fmt.Errorf("reading the jobs: %w", err)
	}
	b.measureAll(ctx)
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	b.mu.Lock()
	b.fences = fences
	b.mu.Unlock()
	revision, err := b.takeIn(recs, policies, others, own)
	if err != nil {
		return 0, err
	}
	if err := b.recount(ctx, sh); err != nil {
		return 0, fmt.Errorf("counting the jobs: %w", err)
	}
	b.shared.Store(sh)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.serving = true
	select {
	case <-b.ready:
	default:
		close(b.ready)
	}
	for w := range b.watches {
		w.fresh = true
		nudge(w.wake)
	}
	b.refollow()
	nudge(b.wakeDispatch)
	nudge(b.wakeFeed)
	nudge(b.wakeReap) // of a site whose last job ended with the term before
	return revision, nil
}

// takeIn puts what the store remembers into the empty memory.
func (b *Broker) takeIn(recs []store.Job, policies *policyRecord, others, own *policy.Ledger) (revision int64, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.policies, b.others, b.own = policies, others, own
	b.reset()
	if err := b.setUsage(); err != nil {
		return 0, err
	}
	for _, rec := range recs {
		revision = max(revision, rec.Revision)
		if j := b.adopt(rec); j != nil {
			b.resume(j)
		}
	}
	for name, s := range b.sites {
		if !s.configured {
			b.cfg.Log.Error("jobs are at a site that is not configured any more; they wait for it to come back", "site", name, "jobs", s.inFlight)
		}
	}
	return revision, nil
}

// measureTime bounds how long a start waits for sites to tell what they have;
// one that is slower is given jobs once it has told.
const measureTime = 5 * time.Second

// measureAll asks all sites at once.
func (b *Broker) measureAll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, measureTime)
	defer cancel()
	var all sync.WaitGroup
	for _, s := range b.roster.Load().sites {
		if c := s.conn.Load(); c != nil {
			all.Go(func() { s.measure(ctx, c) })
		}
	}
	all.Wait()
}

// letGo lets the site of a final job drop what it keeps of it.
func (b *Broker) letGo(ctx context.Context, st *store.Status) error {
	b.mu.Lock()
	s := b.siteOf(st)
	b.mu.Unlock()
	if s == nil || st.Placement.Handle == nil {
		return nil
	}
	c, done, err := s.borrow()
	if err != nil {
		return err
	}
	defer done()
	return c.Forget(ctx, st.Placement.Handle)
}

// resume files what a job's status calls for after a start; the caller holds the
// lock.
func (b *Broker) resume(j *job) {
	st := &j.rec.Status
	if !Phase(st.Phase).atSite() || st.Placement == nil {
		return
	}
	s := b.place(st.Placement.Site)
	if st.Placement.Handle == nil {
		s.todo(j, DoFind)
		return
	}
	s.todo(j, steer(*st))
	s.toExtend(j)
	nudge(s.wakeAudit)
}

// watchStore hears of jobs that others made or changed. What it hears may be
// old: a job that is not in memory may have ended here since, so that the store
// is asked how it stands.
func (b *Broker) watchStore(ctx context.Context, after int64) error {
	var trouble error
	wctx, cancel := context.WithCancel(ctx)
	defer cancel()
	err := b.cfg.Store.Watch(wctx, after, func(recs []store.Job) {
		var unknown []string
		b.mu.Lock()
		for _, rec := range recs {
			if rec.Status.Promise != nil {
				b.followed(rec.ID)
			}
			switch j := b.jobs[rec.ID]; {
			case j == nil && !rec.Status.Final && !b.creating[rec.ID]:
				unknown = append(unknown, rec.ID)
			case j != nil && !j.writing:
				b.adopt(rec)
			}
		}
		b.mu.Unlock()
		if len(unknown) == 0 {
			return
		}
		now, err := b.cfg.Store.Get(wctx, unknown...)
		if err != nil {
			trouble = err
			cancel() // or these would be forgotten until the next start
			return
		}
		b.mu.Lock()
		for _, rec := range now {
			b.adopt(rec)
		}
		b.mu.Unlock()
	})
	if ctx.Err() != nil {
		return nil
	}
	if trouble != nil {
		err = trouble
	}
	return fmt.Errorf("watching the store: %w", err)
}

// settingsInterval is how often settings, the store's health and creations in
// doubt are looked at.
const settingsInterval = 3 * time.Second

// settingAccepting is "no" while no new activities are taken.
const settingAccepting = "broker/accepting"

func (b *Broker) settingsLoop(ctx context.Context) error {
	t := time.NewTicker(settingsInterval)
	defer t.Stop()
	for {
		err := b.cfg.Store.Health(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			b.unhealthy.Store(&err)
		} else {
			b.unhealthy.Store(nil)
		}
		if err := b.readSettings(ctx); err != nil && ctx.Err() == nil {
			b.cfg.Log.Debug("the settings can't be read now", "cause", err)
		}
		b.settleDoubtful(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

func (b *Broker) readSettings(ctx context.Context) error {
	b.settings.Lock()
	defer b.settings.Unlock()
	v, ok, err := b.cfg.Store.Setting(ctx, settingAccepting)
	if err != nil {
		return err
	}
	b.accepting.Store(!ok || string(v) != "no")
	return nil
}

// doubtTime is how long a write whose answer was lost may still arrive.
const doubtTime = 10 * time.Minute

// settleDoubtful takes in jobs whose creation was not confirmed but happened.
func (b *Broker) settleDoubtful(ctx context.Context) {
	b.mu.Lock()
	ids := make([]string, 0, len(b.doubtful))
	for id, since := range b.doubtful {
		if time.Since(since) > doubtTime {
			delete(b.doubtful, id)
			continue
		}
		ids = append(ids, id)
	}
	b.mu.Unlock()
	if len(ids) == 0 {
		return
	}
	recs, err := b.cfg.Store.Get(ctx, ids...)
	if err != nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, rec := range recs {
		delete(b.doubtful, id)
		if b.serving {
			switch j := b.adopt(rec); {
			case j == nil:
			case j.replica():
				b.resume(j) // nobody handed it over
			default:
				j.counted = true // since it was reserved
			}
		}
	}
}

// retentionLoop lets sites forget the output of jobs that ended long ago.
func (b *Broker) retentionLoop(ctx context.Context, sess store.Session) error {
	if b.cfg.Retention < 0 {
		return nil
	}
	t := time.NewTicker(time.Hour)
	defer t.Stop()
	for {
		cutoff := time.Now().Add(-b.cfg.Retention)
		removed, err := b.removeDecisions(ctx, sess, b.cfg.Limits.Decisions, idBefore(cutoff))
		b.kept.Add(-int64(removed))
		if err != nil && ctx.Err() == nil {
			b.cfg.Log.Warn("old records of decisions could not be removed; it is tried again in an hour", "cause", err)
		}
		if err := b.forgetOld(ctx, cutoff); err != nil && ctx.Err() == nil {
			b.cfg.Log.Warn("old output could not be let go; it is tried again in an hour", "cause", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// settingForgotten is the id below which every job's output was let go.
const settingForgotten = "broker/forgotten-below"

// forgetOld lets go of the output of jobs that ended before the cutoff. How far
// it came is a setting, so that old jobs are read once.
func (b *Broker) forgetOld(ctx context.Context, cutoff time.Time) error {
	mark, _, err := b.cfg.Store.Setting(ctx, settingForgotten)
	if err != nil {
		return err
	}
	below := idBefore(cutoff)
	next := below
	for before := below; ; {
		recs, err := b.cfg.Store.List(ctx, store.ListOptions{Before: before, Limit: 500})
		if err != nil {
			return err
		}
		for _, rec := range recs {
			if rec.ID < string(mark) {
				recs = nil
				break
			}
			before = rec.ID
			if !rec.Status.Final || rec.Status.Ended.After(cutoff) {
				next = rec.ID
				continue
			}
			if err := b.letGo(ctx, &rec.Status); err != nil && !fail.Is(err, fail.NotFound) {
				next = rec.ID
			}
		}
		if len(recs) == 0 {
			break
		}
	}
	if next == string(mark) || next < string(mark) {
		return nil
	}
	return b.cfg.Store.SetSetting(ctx, settingForgotten, []byte(next))
}
