package broker

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/broker/estimate"
	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/resourcemodel"
)

// The functions of this file keep the scheduler's picture of our own sites: what they
// have, as they were measured last; what became of our own jobs since then, which we
// know before the manager is asked again; and how each site is dealt with. Their
// caller holds the lock.

// key gives the site's name in the model. The domain of our own is "".
func (s *site) key() resourcemodel.Key { return resourcemodel.Key{Site: s.name} }

// spot is a share on an environment of a site.
type spot struct{ share, environment string }

// taken is what jobs of ours have of a spot.
type taken struct {
	jobs, cpus, nodes, gpus int
	memory                  int64
}

func (t taken) plus(n *resourcemodel.Need, sign int) taken {
	t.jobs += sign * max(1, n.Slots)
	t.cpus += sign * n.CPUs
	t.gpus += sign * n.GPUs
	t.memory += int64(sign) * n.Memory
	if n.Exclusive {
		t.nodes += sign * max(1, n.Hosts)
	}
	return t
}

// runs counts a job that runs at a spot, or does not any more.
func (s *site) runs(at spot, n *resourcemodel.Need, sign int) {
	if s.running[at] = s.running[at].plus(n, sign); s.running[at] == (taken{}) {
		delete(s.running, at)
	}
	s.stale = true
}

// newScheduler makes one without jobs and sites.
func (b *Broker) newScheduler() {
	cat := b.cfg.Catalogue
	b.revision = 0
	opts := schedule.Options{
		Places: schedule.NewPlaces(resourcemodel.Empty()), Catalogue: cat, Policies: &b.policies.Policies,
		Derived: b.derived, Seed: b.cfg.Seed,
	}
	sched, err := schedule.New(opts)
	if err != nil {
		// A policy of a newer version, or a plug-in that is gone: jobs must run all the same.
		b.cfg.Log.Error("the policies in force can't be used here; those of a fresh gateway decide", "cause", err)
		opts.Policies = &schedule.Policies{Revision: b.policies.Policies.Revision}
		sched, err = schedule.New(opts)
	}
	if err != nil {
		panic(err) // the defaults of our own catalogue
	}
	sched.SetLimits(b.cfg.Bounds)
	if b.sched != nil {
		sched.SetHolds(b.sched.Holds())
	}
	b.sched = sched
	b.far.told, b.far.domains, b.far.stale, b.far.pending, b.far.back = nil, nil, true, nil, nil
}

// derived tells the scheduler what is known of places beside the model.
func (b *Broker) derived(now time.Time) resourcemodel.Derived {
	return resourcemodel.Derived{
		Now: now,
		Wait: func(p resourcemodel.Place, n *resourcemodel.Need) (time.Duration, bool) {
			w, ok := b.book.Wait(estimate.Share{Key: p.Key, Share: p.Share}, b.stands(p, n), now)
			return w.Median, ok
		},
		SuccessRate: func(p resourcemodel.Place) (float64, bool) { return b.book.SuccessRate(p, now) },
		Performance: func(p resourcemodel.Place) (float64, bool) { return b.book.Performance(p, now) },
	}
}

// stands gives how the share of a place stands for a job.
func (b *Broker) stands(p resourcemodel.Place, n *resourcemodel.Need) estimate.State {
	st := estimate.State{CPUs: n.CPUs}
	s := b.sites[p.Site]
	if s == nil || p.Domain != "" || s.dynamic == nil {
		return st
	}
	state, ours := s.dynamic.Shares[p.Share], 0
	for at, t := range s.coming {
		if at.share == p.Share {
			ours += t
		}
	}
	st.Forecast = state.Forecast
	st.Free = state.FreeSlots > ours && state.Waiting == 0
	return st
}

// leave takes a job away from where the scheduler counts it.
func (b *Broker) leave(j *job) {
	if !j.given {
		return
	}
	// It may have ended before it was seen to run. What another of its runs won did not wait here.
	if st := &j.rec.Status; st.Final && !st.Started.IsZero() && (st.Placement == nil || jobOfTag(st.Placement.Tag) == j.rec.ID) {
		b.began(j, st.Started.Sub(j.since))
	}
	if s := j.at; s != nil {
		at := spot{j.where.Share, j.where.Environment}
		if j.running {
			s.runs(at, &j.need.Request.Need, -1)
		} else if s.coming[at]--; s.coming[at] == 0 {
			delete(s.coming, at)
		}
	}
	j.given, j.running, j.need = false, false, nil
	b.sched.Left(j.rec.ID)
}

// occupy counts a job at a site with the scheduler, and notes when it begins to run.
func (b *Broker) occupy(j *job, s *site, phase Phase) {
	st := &j.rec.Status
	if !j.given {
		if j.chosen == nil || j.reserved != s { // it was placed before we started, or by another
			p := st.Placement
			if p == nil {
				return
			}
			j.where = resourcemodel.Place{Key: s.key(), Share: p.Share, Environment: p.Environment}
			j.need = &policy.Job{
				ID: j.rec.ID, Owner: j.rec.Owner, VO: st.VO, Submitted: j.rec.Submitted, Class: st.Class, CPUs: max(1, p.CPUs), Length: p.Length,
				Request: &resourcemodel.Request{
					Subject: resourcemodel.Subject{User: j.rec.Owner, VO: st.VO},
					Need:    resourcemodel.Need{Slots: 1, CPUs: max(1, p.CPUs)},
				},
			}
			j.since = time.Time{}
			j.need.Room = roomOf(st)
			b.sched.Given(j.need, j.where, false)
		} else {
			j.where, j.since = j.chosen.Place, time.Now()
			j.need = jobOf(j.rec.ID, j.rec.Owner, j.rec.Submitted, st.Class, j.kind)
			j.stood = b.stands(j.where, &j.need.Request.Need)
			j.need.Room = roomOf(st)
		}
		j.given, j.running = true, false
		s.coming[spot{j.where.Share, j.where.Environment}]++
	}
	at := spot{j.where.Share, j.where.Environment}
	switch runs := phase == Running || phase == Suspended && !j.held; {
	case runs && !j.running:
		j.running = true
		if s.coming[at]--; s.coming[at] == 0 {
			delete(s.coming, at)
		}
		s.runs(at, &j.need.Request.Need, 1)
		b.sched.Began(j.rec.ID, st.Started)
		b.sched.Settled(j.rec.ID)
		b.began(j, time.Since(j.since))
		nudge(b.wakeDispatch)
	case j.running && (phase == AtSite || phase == SiteHeld): // the site put it back
		j.running = false
		s.runs(at, &j.need.Request.Need, -1)
		s.coming[at]++
		b.sched.Given(j.need, j.where, false)
	}
}

// began notes how long a job waited at the place that it was given.
func (b *Broker) began(j *job, waited time.Duration) {
	if !j.since.IsZero() {
		b.learned = true
		b.book.Started(estimate.Share{Key: j.where.Key, Share: j.where.Share}, j.stood, waited, time.Now())
		j.since = time.Time{}
	}
}

// measured takes in what a site was found to have.
func (s *site) measured(r *adapters.Resources, c *conn, now time.Time) {
	source := sourceOf(c.props.Type, c.Health())
	alike := s.told != nil && s.source == source // versions of one adapter can be compared
	if !alike || s.static == nil || s.told.Static != r.Static {
		s.static, s.unfit = restatic(s.static, staticOf(s.model, c.props.Type, r), source, now), ""
		if err := s.static.Check(); err != nil {
			s.unfit, s.static = "what it has can't be matched: "+fail.Sentence(err), nil
		}
		s.stale = true
	}
	waited := map[string]int{}
	for at, n := range s.coming {
		waited[at.share] += n
	}
	if !alike || s.told.Dynamic != r.Dynamic || !maps.Equal(s.base, s.running) || !maps.Equal(s.waited, waited) {
		s.base, s.waited, s.stale = maps.Clone(s.running), waited, true
	}
	s.told, s.source, s.news = r, source, true
	nudge(s.b.wakeFeed)
}

// state gives how the site stands now: as it was measured, and with what became of our
// own jobs since.
func (s *site) state(now time.Time) *resourcemodel.Dynamic {
	d := dynamicOf(s.told, standing{Problem: clean(cmp.Or(s.unfit, s.outageLocked()))})
	for i := range s.told.Shares {
		share := &s.told.Shares[i]
		st := d.Shares[share.ID]
		st.Waiting = max(0, st.Waiting-s.waited[share.ID]) // they are counted as on their way
		d.Shares[share.ID] = st
	}
	spots := map[spot]bool{}
	for at := range s.base {
		spots[at] = true
	}
	for at := range s.running {
		spots[at] = true
	}
	for at := range spots {
		since(d, s.told, at, s.base[at], s.running[at])
	}
	return redynamic(s.dynamic, d, s.source, now)
}

// since brings the numbers of a spot from what our jobs had when it was measured to what
// they have now. What a manager does not tell, which is 0, stays so.
func since(d *resourcemodel.Dynamic, told *adapters.Resources, at spot, then, now taken) {
	if then == now {
		return
	}
	if st, ok := d.Shares[at.share]; ok {
		most := st.FreeSlots + max(0, then.jobs-now.jobs)
		if i := slices.IndexFunc(told.Shares, func(s adapters.Share) bool { return s.ID == at.share }); i >= 0 && told.Shares[i].Slots > 0 {
			most = told.Shares[i].Slots
		}
		st.FreeSlots = min(most, max(0, st.FreeSlots+then.jobs-now.jobs))
		st.Running = max(0, st.Running+now.jobs-then.jobs)
		d.Shares[at.share] = st
	}
	st, ok := d.Environments[at.environment]
	i := slices.IndexFunc(told.Environments, func(e adapters.Environment) bool { return e.ID == at.environment })
	if !ok || i < 0 {
		return
	}
	e := &told.Environments[i]
	st.FreeCPUs = min(max(st.FreeCPUs, e.CPUs*st.Available), max(0, st.FreeCPUs+then.cpus-now.cpus))
	if st.FreeMemory > 0 {
		st.FreeMemory = min(max(st.FreeMemory, e.Memory*int64(st.Available)), max(1, st.FreeMemory+then.memory-now.memory))
	}
	if st.FreeGPUs > 0 {
		st.FreeGPUs = max(1, st.FreeGPUs+then.gpus-now.gpus)
	}
	st.FreeNodes = min(st.Available, max(0, st.FreeNodes+then.nodes-now.nodes))
	if e.CPUs > 0 {
		st.FreeNodes = min(st.FreeNodes, st.FreeCPUs/e.CPUs)
	}
	d.Environments[at.environment] = st
}

// clean makes a text fit for the model: one line, of a bounded length.
func clean(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
	if len(text) > resourcemodel.MaxText {
		text = strings.ToValidUTF8(text[:resourcemodel.MaxText-3], "") + "…"
	}
	return text
}

// feedAll brings the scheduler's model up to now.
func (b *Broker) feedAll(now time.Time) {
	r := b.roster.Load()
	var changes []resourcemodel.Change
	gone := func(name string) {
		if b.fed[name] {
			delete(b.fed, name)
			changes = append(changes, resourcemodel.Change{Key: resourcemodel.Key{Site: name}, Gone: true})
		}
	}
	for name := range b.fed {
		if r.at(name) < 0 {
			gone(name)
		}
	}
	for _, s := range r.sites {
		b.deal(s, now)
		if s.domain() != "" { // what it has is told by its domain
			gone(s.name)
			continue
		}
		if s.told == nil || s.static == nil {
			gone(s.name)
			continue
		}
		if !s.stale && b.fed[s.name] {
			continue
		}
		s.stale = false
		c := resourcemodel.Change{Key: s.key()}
		was := s.dynamic
		if s.dynamic = s.state(now); s.dynamic != was || !b.fed[s.name] {
			c.Dynamic = s.dynamic
		}
		if s.shown != s.static || !b.fed[s.name] {
			c.Static, s.shown = s.static, s.static
		}
		if c.Static == nil && c.Dynamic == nil {
			continue
		}
		if err := c.Check(); err != nil {
			if s.unfit == "" {
				b.cfg.Log.Error("what a site has can't be taken into the model; it is given no jobs", "site", s.name, "cause", err)
			}
			s.unfit, s.static, s.shown = "what it has can't be matched: "+fail.Sentence(err), nil, nil
			gone(s.name)
			continue
		}
		b.fed[s.name] = true
		changes = append(changes, c)
	}
	b.feedFar(now)
	if len(changes) == 0 {
		return
	}
	slices.SortFunc(changes, func(x, y resourcemodel.Change) int { return x.Key.Compare(y.Key) })
	b.revision++
	if err := b.sched.Apply(resourcemodel.Delta{Revision: b.revision, At: now.UTC().Round(0), Changes: changes}); err != nil {
		b.cfg.Log.Error("the model could not follow the sites", "cause", err)
	}
}

// deal tells the scheduler how a site is dealt with.
func (b *Broker) deal(s *site, now time.Time) {
	var to schedule.Site
	c, conn := s.capacity.Load(), s.conn.Load()
	if conn == nil || c == nil && conn.props.Domain == "" {
		b.sched.SetSite(s.key(), schedule.Site{Closed: true, Problem: "it has not told what it has"})
		return
	}
	to.Preference = max(0, slices.Index(b.order, s.name))
	peer := conn.props.Domain != ""
	if !peer {
		to.Ahead = b.ahead(c, conn)
	}
	if s.model.Ahead != nil {
		to.Ahead = max(0, *s.model.Ahead)
	}
	bound := func(most int) {
		if most <= 0 {
			to.Closed = true
			return
		}
		if to.Most == 0 || most < to.Most {
			to.Most = most
		}
	}
	if conn.props.MaxJobs > 0 {
		bound(conn.props.MaxJobs)
	}
	if !peer && c.Slots <= 0 {
		to.Closed, to.Problem = true, "it has no slots"
	}
	if s.failures > 0 {
		bound(s.inFlight + 1) // one job tries whether it is back
	}
	if w := s.credit.window(); w < mostCredit {
		// Jobs on their way without an answer are what the window bounds.
		bound(max(1, s.inFlight+max(0, w-s.phases[Placing])))
	}
	b.limitTo(s, &to)
	if why := s.fencedLocked(); why != "" {
		to.Closed, to.Problem = true, clean(why)
		b.sched.SetSite(s.key(), to)
		return
	}
	if wait := max(s.closed.Sub(now), s.quarantine.left(now)); wait > 0 {
		to.Closed, to.Reopen, to.Problem = true, now.Add(wait), clean(cmp.Or(s.barredLocked(), s.troubleLocked()))
	}
	b.sched.SetSite(s.key(), to)
}

// ahead gives how many jobs a site is given beyond its slots.
func (b *Broker) ahead(c *adapters.Capacity, conn *conn) int {
	switch {
	case b.cfg.Limits.Ahead > 0:
		return b.cfg.Limits.Ahead
	case conn.props.Bulk:
		return b.cfg.Limits.AheadBulk
	}
	return max(c.Slots, 16)
}
