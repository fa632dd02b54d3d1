package broker

import (
	"cmp"
	"context"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// health notes whether the site takes jobs; while it does not, it is tried more
// and more seldom.
func (s *site) health(err error) {
	s.change(func() {
		s.down = err
		if err != nil {
			s.failures++
			s.closed = time.Now().Add(s.b.cfg.Retry.backoff(s.failures, s.b.cfg.Jitter()))
		} else {
			s.failures, s.closed = 0, time.Time{}
		}
	})
	nudge(s.b.wakeDispatch)
}

// look notes what the adapter knows of its manager. It costs nothing. Several loops look,
// and one that was slow to note what it saw must not take back what another saw after it:
// the site would seem to come and go.
func (s *site) look(c *conn) {
	s.looking.Lock()
	defer s.looking.Unlock()
	h := c.Health()
	s.change(func() { s.condition.Store(&h) })
	if h.Problem == "" {
		s.met.Store(true)
	}
}

// change does what may make the site come or go, under the lock, and tells of it.
func (s *site) change(f func()) {
	b := s.b
	b.mu.Lock()
	was, before := s.up(), s.outageLocked()
	f()
	is := s.up()
	if before != s.outageLocked() {
		s.stale, s.news = true, true
		nudge(b.wakeFeed)
	}
	if len(b.promised) > 0 && (was != is || before != s.outageLocked()) {
		b.restless = true
		nudge(b.wakeDispatch)
	}
	var back []input
	if was && !is {
		s.quarantine.fell(time.Now(), b.cfg.Flapping)
		if s.quarantine.left(time.Now()) > 0 {
			s.credit.shut()
		}
	}
	if s.outageLocked() != "" {
		back = s.takeBack()
	}
	b.mu.Unlock()
	b.post(back...)
	if is {
		nudge(s.wakePurge)
	}
	if was != is {
		nudge(b.wakeDispatch)
		nudge(s.wakeFence)
		s.turned(was, is)
	}
}

// takeBack gives up the placements that were not handed over yet: the site does not
// answer, and they certainly never ran there. The caller holds the lock.
func (s *site) takeBack() []input {
	ins := make([]input, 0, len(s.submit))
	for _, t := range s.submit {
		ins = append(ins, input{id: t.id, tag: t.tag, facts: func(_ *job, st store.Status) []fact {
			return []fact{{event: Absent, reason: "it had not been given to the site " + s.name + ", which does not answer" + again(&st)}}
		}})
	}
	s.submit = nil
	return ins
}

// touch notes that the site answered.
func (s *site) touch() {
	s.contact.Store(time.Now().UnixNano())
	s.answered.Store(time.Now().UnixNano())
	s.b.mu.Lock()
	lapsed := s.lapsed
	s.b.mu.Unlock()
	if lapsed {
		nudge(s.wakeLease)
	}
}

// answers reports whether the outcome of a call shows that the site answers.
func answers(err error) bool {
	class := adapters.ClassOf(err)
	return class == adapters.None || class == adapters.Permanent
}

// leastLease is the shortest time without an answer after which a site counts as away,
// and how often that is looked at.
const leastLease = 10 * time.Second

// lease gives when the site counts as away if it does not answer before: two of the
// intervals after the last answer at which its manager is asked.
func (s *site) lease() time.Time {
	if c := s.conn.Load(); c != nil {
		if h := c.Health(); h.Interval > 0 && !h.Contact.IsZero() {
			return h.Contact.Add(max(leastLease, 2*h.Interval))
		}
	}
	return time.Unix(0, s.contact.Load()).Add(2 * s.b.cfg.AuditInterval)
}

// renew notes whether the time until which the site is to answer is over, and gives what
// is left of it. What the adapter knows, which may ask by itself and hear first that its
// manager has come or gone, is noted in the same step: a site that answers in the moment in
// which its time is over would else come and go at once.
func (s *site) renew() time.Duration {
	s.looking.Lock()
	defer s.looking.Unlock()
	known := s.condition.Load()
	h := known
	if c := s.conn.Load(); c != nil {
		now := c.Health()
		h = &now
	}
	left := time.Until(s.lease())
	s.b.mu.Lock()
	same := s.lapsed == (left <= 0) && (h == known || known != nil && (known.Problem == "") == (h.Problem == ""))
	s.b.mu.Unlock()
	if !same {
		s.change(func() {
			s.condition.Store(h)
			s.lapsed = left <= 0
		})
	}
	if h != nil && h.Problem == "" {
		s.met.Store(true)
	}
	return left
}

// leaseLoop notices when the site has not answered for two intervals, even if a call
// hangs that was to tell.
func (s *site) leaseLoop(ctx context.Context) {
	s.contact.Store(time.Now().UnixNano())
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		left := s.renew()
		if left <= 0 || left > leastLease/2 {
			left = leastLease / 2
		}
		t.Reset(left)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		case <-s.wakeLease:
		}
	}
}

// up reports whether the site takes jobs, as far as is known; the caller holds
// the lock.
func (s *site) up() bool {
	h := s.condition.Load()
	return s.down == nil && !s.lapsed && (h == nil || h.Problem == "")
}

// turned tells that a site came or went.
func (s *site) turned(was, is bool) {
	if was == is {
		return
	}
	switch {
	case is:
		s.b.cfg.Log.Info("a site takes jobs again", "site", s.name)
	case s.domain() != "" && !s.met.Load(): // it takes a moment until there is a session
		s.b.cfg.Log.Info("a peer is not there yet", "site", s.name, "cause", s.trouble())
	default:
		s.b.cfg.Log.Warn("a site takes no jobs", "site", s.name, "cause", s.trouble())
	}
	if s.b.cfg.Hooks.Site != nil {
		s.b.cfg.Hooks.Site(s.name, is)
	}
}

// trouble says in a sentence why the site takes no jobs; "" if it does.
func (s *site) trouble() string {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	return s.troubleLocked()
}

func (s *site) troubleLocked() string {
	if s.down != nil && s.outageLocked() == "" {
		return fail.Sentence(s.down)
	}
	return s.outageLocked()
}

// outageLocked says why the site does not answer; "" if it does, though it may have put
// off what it was given last, which is tried again. The caller holds the lock.
func (s *site) outageLocked() string {
	switch h := s.condition.Load(); {
	case s.conn.Load() == nil:
		return s.absenceLocked()
	case h != nil && h.Problem != "":
		return h.Problem
	case s.lapsed:
		return "it has not answered since " + cmp.Or(s.lastWord(), time.Unix(0, s.contact.Load())).UTC().Format(time.RFC3339)
	}
	return ""
}

// barredLocked says why the site is given no jobs though it answers; "" if it is. The
// caller holds the lock.
func (s *site) barredLocked() string {
	if why := s.fencedLocked(); why != "" {
		return why
	}
	if left := s.quarantine.left(time.Now()); left > 0 {
		return "it came and went too often lately and is given no jobs before " + s.quarantine.until.UTC().Format(time.RFC3339)
	}
	return ""
}

// auditLoop asks the site about all of its jobs and its capacity, now and then
// and when there is a reason to.
func (s *site) auditLoop(ctx context.Context, c *conn) {
	for {
		s.measure(ctx, c)
		s.audit(ctx, c)
		t := time.NewTimer(s.auditPause(c))
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		case <-s.wakeAudit:
			t.Stop()
		}
	}
}

// downInterval is how often a site whose adapter has a problem is asked, so that
// it is given jobs again soon after the manager is back.
const downInterval = 5 * time.Second

func (s *site) auditPause(c *conn) time.Duration {
	every := s.b.cfg.AuditInterval
	if c.watcher == nil {
		every = s.b.cfg.PollInterval
	}
	if h := s.condition.Load(); h != nil && h.Problem != "" {
		every = min(every, downInterval)
	}
	return every
}

// measure asks for the site's capacity.
func (s *site) measure(ctx context.Context, c *conn) {
	b := s.b
	cctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	r, err := c.Resources(cctx)
	if ctx.Err() != nil {
		return
	}
	if answers(err) {
		s.touch()
	}
	s.look(c)
	if err != nil {
		if s.capacity.Load() == nil {
			s.health(err) // nothing was ever known of it: it is not open
		}
		b.cfg.Log.Debug("a site's capacity is not known", "site", s.name, "cause", err)
		return
	}
	sum := r.Capacity()
	first := s.capacity.Swap(&sum) == nil
	before := s.resources.Swap(&r)
	b.mu.Lock()
	down := s.down != nil && s.failures > 0 && first
	s.measured(&r, c, time.Now())
	if first || before == nil || before.Static != r.Static {
		b.spare.clear()
		if b.refusesSome(s) {
			b.reexamine() // what could not run there might now
		}
	}
	b.mu.Unlock()
	if down {
		s.health(nil)
	}
	nudge(b.wakeDispatch)
}

// refusesSome reports whether the site's adapter refuses some of the jobs that wait;
// the caller holds the lock.
func (b *Broker) refusesSome(s *site) bool {
	for _, k := range b.kinds {
		if _, barred := k.barred[s.name]; barred {
			return true
		}
	}
	return false
}

// audit asks about every job that the site has.
func (s *site) audit(ctx context.Context, c *conn) {
	b := s.b
	var ids []ticket
	var handles []adapters.Handle
	var asOf []int
	b.mu.Lock()
	if s.inFlight > 0 {
		for id, j := range b.jobs {
			if s.has(j) && j.rec.Status.Placement.Handle != nil {
				ids = append(ids, ticket{id, j.rec.Status.Placement.Tag})
				handles = append(handles, j.rec.Status.Placement.Handle)
				asOf = append(asOf, j.rec.Status.Sequence)
			}
		}
	}
	b.mu.Unlock()
	for len(ids) > 0 {
		n := c.batch(len(ids), mostAsked)
		cctx, cancel := context.WithTimeout(ctx, callTime)
		at := time.Now()
		es, err := c.Status(cctx, handles[:n])
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				s.look(c)
				b.cfg.Log.Debug("a site does not say how its jobs stand", "site", s.name, "cause", err)
			}
			return
		}
		s.touch()
		if len(es) == n {
			s.hear(es, ids[:n], asOf[:n], at)
		}
		ids, handles, asOf = ids[n:], handles[n:], asOf[n:]
	}
	s.look(c)
}

// mostAsked is how many jobs are asked about in one call of an adapter that has
// no bound of its own: it turns them into as few requests as it can.
const mostAsked = 16384
