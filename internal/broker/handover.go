package broker

import (
	"context"
	"slices"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/resourcemodel"
)

const (
	// mostAtOnce bounds a batch for an adapter that has no bound of its own, and
	// mostAlike for one to which a batch of alike jobs is about one request.
	mostAtOnce = 256
	mostAlike  = 1024
	// lingerTime is how long the hand-over to a site where a batch costs no more
	// than a job waits for jobs that are on their way.
	lingerTime = 20 * time.Millisecond
)

// linger waits for jobs that are about to arrive, so that alike ones reach the
// site together. A job that comes alone does not wait.
func (s *site) linger(ctx context.Context, c *conn) {
	if !c.props.Bulk {
		return
	}
	most := c.batch(mostAlike, mostAlike)
	t := time.NewTimer(lingerTime)
	defer t.Stop()
	for s.moreComes(most) {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			return
		case <-s.wakeSubmit:
		}
	}
}

// moreComes reports whether jobs that may be for the site are being taken in
// while there is room for them in a batch.
func (s *site) moreComes(most int) bool {
	b := s.b
	b.mu.Lock()
	defer b.mu.Unlock()
	n := len(s.submit)
	return n > 0 && n < most && (len(b.creating) > 0 || len(b.inbox) > 0 || b.busy || b.unread.Len() > 0)
}

// submitSome hands over the next jobs; ctx ends when no more are to be.
func (s *site) submitSome(ctx, calls context.Context, c *conn) (bool, error) {
	b := s.b
	s.linger(ctx, c)
	most := mostAtOnce
	if c.props.Bulk {
		most = mostAlike
	}
	r, now := b.roster.Load(), time.Now()
	b.mu.Lock()
	var jobs []adapters.Job
	var ids []string
	var ins []input
	most = c.batch(len(s.submit), most)
	for len(s.submit) > 0 && len(jobs) < most && ctx.Err() == nil {
		t := s.submit[0]
		s.submit = s.submit[1:]
		j := b.jobs[t.id]
		if j == nil || !s.has(j) || j.rec.Status.Placement.Tag != t.tag || j.rec.Status.Placement.Handle != nil {
			continue
		}
		if Phase(j.rec.Status.Phase) != Placing || j.kind == nil || s.draining || b.fences[s.name] != nil {
			// Its end was asked for before the site heard of it, or the site is to be
			// given no more: nobody else hands it over.
			ins = append(ins, input{id: t.id, tag: t.tag, facts: one(fact{event: Absent, reason: "it had not been given to the site " + s.name})})
			continue
		}
		if late := j.leased; !late.IsZero() && !late.After(now) {
			ins = append(ins, input{id: t.id, tag: t.tag, facts: one(fact{event: Absent, reason: "its lease was over before it could be given to the site " + s.name})})
			continue
		}
		jobs = append(jobs, adapters.Job{
			Tag:        adapters.Tag(t.tag),
			Definition: s.inShare(j.kind.forSite(s.name, r, now), j.rec.Status.Placement.Share),
			Owner:      j.rec.Owner,
			Account:    s.accountFor(j),
			NotAfter:   j.leased,

			Reservation: s.reservationOf(j),
			Agreement:   s.boughtFor(j),
		})
		ids = append(ids, t.id)
		j.handed = time.Now()
	}
	more := len(s.submit) > 0
	s.submitting = len(jobs) > 0
	b.mu.Unlock()
	if len(jobs) == 0 {
		b.post(ins...)
		return more && ctx.Err() == nil, nil
	}
	began := time.Now()
	cctx, cancel := context.WithTimeout(calls, callTime)
	results := c.Submit(cctx, jobs)
	cancel()
	took := time.Since(began)
	if b.cfg.Hooks.Placed != nil {
		b.cfg.Hooks.Placed(s.name, len(jobs), took)
	}
	put, answered := 0, false
	var trouble error
	for i := range jobs {
		r := adapters.Placed{Err: fail.Errorf("broker.submit", fail.Uncertain, string(jobs[i].Tag), "the site %s gave no answer", s.name)}
		if i < len(results) {
			r = results[i]
		}
		if r.Err != nil && calls.Err() != nil {
			continue // we are ending: the next start looks for the tag
		}
		if adapters.ClassOf(r.Err) == adapters.Transient {
			trouble = r.Err
			put++
		}
		answered = answered || answers(r.Err)
		ins = append(ins, input{id: ids[i], tag: string(jobs[i].Tag), facts: func(j *job, st store.Status) []fact {
			return s.outcome(j, &st, r)
		}})
	}
	if answered {
		s.touch()
	}
	b.mu.Lock()
	s.credit.answered(len(jobs), put, took)
	s.submitting = false
	b.mu.Unlock()
	nudge(s.wakePurge)
	s.health(trouble)
	s.look(c)
	b.post(ins...)
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(s.submit) > 0, nil
}

// inShare gives the definition with the share that was chosen, where the document names
// none and the site would take another by itself. The caller holds the lock.
func (s *site) inShare(def *jsdl.JobDefinition, share string) *jsdl.JobDefinition {
	if s.static == nil || share == "" || len(s.static.Shares) < 2 {
		return def
	}
	i := slices.IndexFunc(s.static.Shares, func(h resourcemodel.Share) bool { return h.ID == share })
	if i < 0 || s.static.Shares[i].Default {
		return def
	}
	d, res, p := *def, new(jsdl.Resources), new(jsdl.Placement)
	if r := def.Description.Resources; r != nil {
		*res = *r
		if r.Placement != nil {
			if r.Placement.Share != nil {
				return def
			}
			*p = *r.Placement
		}
	}
	p.Share = &share
	res.Placement = p
	d.Description.Resources = res
	return &d
}

// accountFor gives the account of a job: that to which a peer's user was mapped, or that of
// its owner. The caller holds the lock.
func (s *site) accountFor(j *job) string {
	if f := j.rec.Status.Foreign; f != nil && f.Account != "" {
		return f.Account
	}
	if p := j.rec.Status.Promise; p != nil && p.Account != "" {
		return p.Account
	}
	return s.accountOf(j.rec.Owner)
}

// accountOf gives the local account that a principal's jobs run as; "" is the
// one that the site is configured with. The caller holds the lock.
func (s *site) accountOf(owner string) string {
	if a, ok := s.accounts[owner]; ok {
		return a
	}
	return s.account
}
