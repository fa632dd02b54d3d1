package broker

import (
	"context"
	"fmt"

	"github.com/portolan-project/portolan/internal/broker/limits"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// Towards the limits of its owner and VO a job counts from before it is created until it
// is final. Towards those of a site it counts from before the placement is written until
// it is not there any more, and a replica of a job does as well. Both counts are by the
// gateway that did it.

// useOf is what a job counts as towards the limits of its owner and VO.
func useOf(rec *store.Job) limits.Use {
	return limits.Use{User: rec.Owner, VO: rec.Status.VO, CPUs: rec.Status.CPUs}
}

// ours reports whether what a replica did counts as ours: a store that is ours alone has
// nobody else's.
func (b *Broker) ours(replica string) bool {
	return b.cfg.Alone || replica == "" || replica == b.cfg.Replica
}

// recount tells the limiter which jobs this replica took in, and which it placed.
func (b *Broker) recount(ctx context.Context, sh *shared) error {
	var uses []limits.Use
	b.mu.Lock()
	for _, j := range b.jobs {
		if !j.replica() && b.ours(j.rec.Status.Gateway) {
			j.counted = true
			uses = append(uses, useOf(&j.rec))
		}
		if u := b.placedUse(&j.rec.Status); u != nil {
			j.limited = u
			uses = append(uses, *u)
		}
	}
	b.mu.Unlock()
	if err := sh.limits.Recount(ctx, sh.sess, uses); err != nil || !b.cfg.Alone {
		return err
	}
	// Nobody else lives here: what others counted under another name is counted by now.
	for _, dead := range sh.limits.Others() {
		if err := sh.limits.Adopt(ctx, sh.sess, dead, nil); err != nil {
			return err
		}
	}
	return nil
}

// placedUse is what a job counts as towards the limits of the site that has it, if we
// placed it there; else nil.
func (b *Broker) placedUse(st *store.Status) *limits.Use {
	p := st.Placement
	if p == nil || !Phase(st.Phase).atSite() || !b.ours(p.Gateway) {
		return nil
	}
	return &limits.Use{Site: p.Site, CPUs: p.CPUs}
}

// leaveLimit takes a job out of the count of a site where it is not any more, nor is
// about to be. The caller holds the lock.
func (b *Broker) leaveLimit(j *job) {
	u := j.limited
	if u == nil || j.reserved != nil && j.reserved.name == u.Site {
		return
	}
	if at := b.placedUse(&j.rec.Status); at == nil || at.Site != u.Site {
		b.unlimit(j)
	}
}

// unlimit takes a job out of the count of a site. The caller holds the lock.
func (b *Broker) unlimit(j *job) {
	if sh := b.shared.Load(); j.limited != nil && sh != nil {
		sh.limits.Release(*j.limited)
	}
	j.limited = nil
}

// reserveSites counts the placements of plans towards the limits of their sites, before
// they are written, and gives the plans that may not be: where there is no room, the
// choice is void, and the job waits again; what else fails is of the store, and tried
// again as it is.
func (b *Broker) reserveSites(ctx context.Context, sess store.Session, plans []*plan) (barred map[*plan]bool, trouble error) {
	sh := b.shared.Load()
	if sh == nil {
		return nil, nil
	}
	var uses []limits.Use
	var of []*plan
	b.mu.Lock()
	for _, p := range plans {
		if p.j.decided(p) == nil || p.j.limited != nil || !Phase(p.after.Phase).atSite() {
			continue
		}
		pl := p.after.Placement
		uses, of = append(uses, limits.Use{Site: pl.Site, CPUs: pl.CPUs}), append(of, p)
	}
	b.mu.Unlock()
	if len(uses) == 0 {
		return nil, nil
	}
	errs := sh.limits.Reserve(ctx, sess, uses...)
	b.mu.Lock()
	defer b.mu.Unlock()
	barred = map[*plan]bool{}
	for i, p := range of {
		switch err := errs[i]; {
		case err == nil:
			p.j.limited = &uses[i]
			continue
		case fail.Is(err, fail.NotAccepting):
			// The scheduler did not know yet what another replica counts there.
			b.cfg.Log.Debug("a limit keeps a job from the site that was chosen", "job", p.j.rec.ID, "cause", err)
			p.j.reserved, p.j.chosen = nil, nil
			b.settle(p.j)
		default:
			trouble = err
		}
		barred[p] = true
	}
	return barred, trouble
}

// limit gives the limit of a site by a scope, as the scheduler takes it: how many the site
// may have by what is known here, of which has are under way already, and the words of it.
func (sh *shared) limit(scope limits.Scope, name string, has int) (most int, words string, ok bool) {
	l, ok := sh.limits.Of(limits.Subject{Scope: scope, Name: name})
	if !ok {
		return 0, "", false
	}
	// What is under way here and not counted yet is among what has tells, and what
	// others count and we have not heard of is among what is used.
	left := max(0, l.Max-max(l.Used, has))
	return has + left, clean(l.String()), true
}

// limitTo bounds what a site is given by its limits. The caller holds the lock.
func (b *Broker) limitTo(s *site, to *schedule.Site) {
	sh := b.shared.Load()
	if sh == nil {
		return
	}
	jobs, cpus := b.sched.At(s.key())
	if most, words, ok := sh.limit(limits.Site, s.name, jobs); ok && (to.Most == 0 || most <= to.Most) {
		if to.Most, to.Limit = most, words; most == 0 {
			to.Closed, to.Problem = true, "its limit allows no further job ("+words+")"
		}
	}
	if most, words, ok := sh.limit(limits.SiteCPUs, s.name, cpus); ok {
		if to.MostCPUs, to.LimitCPUs = most, words; most == 0 {
			to.Closed, to.Problem = true, "its limit allows no further CPU ("+words+")"
		}
	}
}

// reserveShared counts a job that is about to be created towards the limits of its owner
// and VO, over all replicas.
func (b *Broker) reserveShared(ctx context.Context, u limits.Use) (release func(), err error) {
	sh := b.shared.Load()
	if sh == nil {
		return nil, errStarting
	}
	if err := sh.limits.Reserve(ctx, sh.sess, u)[0]; err != nil {
		return nil, err
	}
	return func() { sh.limits.Release(u) }, nil
}

// VOUse is what a VO may have at once and has, over all replicas as known here.
type VOUse struct {
	Jobs, CPUs int
	// MostJobs and MostCPUs are the limits in force; -1 is none.
	MostJobs, MostCPUs int
}

// VOUse tells it of a VO.
func (b *Broker) VOUse(vo string) VOUse {
	sh := b.shared.Load()
	if sh == nil {
		return VOUse{MostJobs: -1, MostCPUs: -1}
	}
	most := func(scope limits.Scope) (most, used int) {
		s := limits.Subject{Scope: scope, Name: vo}
		if l, ok := sh.limits.Of(s); ok {
			return l.Max, l.Used
		}
		return -1, sh.limits.Used(s)
	}
	var u VOUse
	u.MostJobs, u.Jobs = most(limits.VO)
	u.MostCPUs, u.CPUs = most(limits.VOCPUs)
	return u
}

// Limiting is how a Broker's limits are seen and set: how many live jobs, or CPUs of
// these, a user or a VO may have, and how many may be at a site, over all replicas.
type Limiting interface {
	// Limits tells the limits in force with what counts towards them, and who changed
	// what; whoever may Submit may see them.
	Limits(context.Context) (*LimitView, error)
	// SetLimit puts a limit in force, or takes it away where most is nil. It is durable
	// when it returns, ends nothing that is, and holds for what comes next, jobs that wait
	// too. It needs Manage.
	SetLimit(ctx context.Context, s limits.Subject, most *int) error
}

var _ Limiting = (*Broker)(nil)

// LimitView is which limits are in force.
type LimitView struct {
	Limits  []limits.Status // in the order of subjects
	Changes []limits.Change // the newest first, at most limits.MaxChanges
}

// Limits tells the limits in force.
func (b *Broker) Limits(ctx context.Context) (*LimitView, error) {
	if _, err := b.caller(ctx, "broker.Limits", Submit); err != nil {
		return nil, err
	}
	sh := b.shared.Load()
	if sh == nil {
		return nil, errStarting
	}
	changes, err := sh.limits.Changes(ctx)
	if err != nil {
		return nil, err
	}
	return &LimitView{sh.limits.Limits(), changes}, nil
}

// SetLimit puts a limit in force, or takes it away.
func (b *Broker) SetLimit(ctx context.Context, s limits.Subject, most *int) error {
	who, err := b.caller(ctx, "broker.SetLimit", Manage)
	if err != nil {
		return err
	}
	sh := b.shared.Load()
	if sh == nil {
		return errStarting
	}
	after := "none"
	if most == nil {
		err = sh.limits.Unset(ctx, who.Name, s)
	} else {
		after = fmt.Sprint(*most)
		err = sh.limits.Set(ctx, who.Name, s, *most)
	}
	if err == nil {
		b.cfg.Log.Info("a limit was changed", "who", who.Name, "of", s.String(), "after", after)
	}
	return err
}
