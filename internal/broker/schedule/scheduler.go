package schedule

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/resourcemodel"
)

// Options are what a Scheduler begins with.
type Options struct {
	Places    Places
	Catalogue *Catalogue
	Policies  *Policies
	// Derived tells what is known of places beside the model; nil knows nothing, but how
	// far data are is always known of the model.
	Derived Derived
	// Seed is where the chance of pairing policies begins.
	Seed uint64
	// Window is how many jobs a pairing policy is given at once. Default 256.
	Window int
}

// EnsureDefaults fills in what is not set.
func (o *Options) EnsureDefaults() {
	if o.Policies == nil {
		o.Policies = &Policies{}
	}
	if o.Derived == nil {
		o.Derived = func(now time.Time) resourcemodel.Derived { return resourcemodel.Derived{Now: now} }
	}
	if o.Window <= 0 {
		o.Window = 256
	}
}

// Scheduler has the jobs that wait and decides which of them gets which place. It is
// told of everything that changes, and is a function of what it was told, in its
// order: a second one that is told the same decides the same. It is not safe for use
// by several goroutines at once.
type Scheduler struct {
	places   Places
	cat      *Catalogue
	derived  Derived
	policies *Policies
	books    [2]*book // in force; shadow, nil without any
	usage    usage
	window   int
	seed     uint64

	jobs    map[string]*waiting
	later   heap[*waiting]
	classes map[classKey]*class
	byID    map[int]*class
	nextID  int
	barred  map[*class]bool // those that have barred jobs
	nBarred int
	lastBar time.Time
	retry   time.Time // when the barred are looked at again; zero: there are none

	sites  map[resourcemodel.Key]*site
	dirty  []*site // something changed there for the better since the last look
	given  map[string]*given
	bought map[string]int // CPUs that jobs have of what was bought of peers, by BoughtRoom
	bounds Limits
	limits map[string]*limit

	epoch  uint64 // of everything that views depend on beside what is taken
	log    []change
	views  []*view            // those that are kept, the oldest first
	offers []Offer            // scratch, as what follows
	flat   []policy.Candidate // for choices that want them together
	best   []marked
	kept   []held
	looks  uint64 // passages of refresh
	picky  int    // classes that have hard criteria

	tentative int // of jobs: those that have a place in a trial

	holds   map[string][]Hold // by agreement
	keeping []*site           // that have holds, in the order of their keys

	far      *far // nil without peers
	recorder *Recorder
	tried    func(map[string]resourcemodel.Place) // told of each passage through the shadow, by a replay
}

// Retry is how long jobs wait that a selection policy gives no place though there is
// room, before they are looked at again where nothing else changes: a policy may look
// at the time.
const Retry = time.Minute

// New makes a Scheduler without jobs. fail.Invalid is a policy that can't be.
func New(o Options) (*Scheduler, error) {
	o.EnsureDefaults()
	s := &Scheduler{
		places: o.Places, cat: o.Catalogue, window: o.Window, seed: o.Seed,
		jobs: map[string]*waiting{}, classes: map[classKey]*class{}, byID: map[int]*class{}, barred: map[*class]bool{},
		sites: map[resourcemodel.Key]*site{}, given: map[string]*given{}, bought: map[string]int{}, limits: map[string]*limit{}, holds: map[string][]Hold{},
		usage: usage{under: map[string]*int64{}},
	}
	s.derived = func(now time.Time) resourcemodel.Derived {
		d := o.Derived(now)
		if d.Now = now; d.Distance == nil { // policies ask; the model knows
			d.Distance = func(p resourcemodel.Place, r *resourcemodel.Request) (float64, bool) {
				site := s.places.Snapshot().Site(p.Key)
				if site == nil {
					return 0, false
				}
				return resourcemodel.DataDistance(site, r)
			}
		}
		return d
	}
	s.later.less = func(a, b *waiting) bool {
		return cmp.Or(a.from().Compare(b.from()), cmp.Compare(a.ID, b.ID)) < 0
	}
	s.later.moved = func(w *waiting, at int) { w.later = int32(at) }
	if err := s.setPolicies(o.Policies); err != nil {
		return nil, err
	}
	return s, nil
}

// Len gives how many jobs wait.
func (s *Scheduler) Len() int { return len(s.jobs) }

// Has reports whether a job waits.
func (s *Scheduler) Has(id string) bool { return s.jobs[id] != nil }

// Policies gives what is in force.
func (s *Scheduler) Policies() *Policies { return s.policies }

// Snapshot gives the model that decisions are made with.
func (s *Scheduler) Snapshot() *resourcemodel.Snapshot { return s.places.Snapshot() }

// Add puts a job in. One that waits already is put in anew.
func (s *Scheduler) Add(e Entry) {
	if len(e.Avoid) > 0 {
		e.Avoid = slices.SortedFunc(slices.Values(e.Avoid), resourcemodel.Key.Compare)
	}
	w := &waiting{Entry: e, later: -1}
	if s.recorder != nil {
		s.recorder.add(&w.Entry)
	}
	s.remove(e.ID)
	s.jobs[e.ID] = w
	if !e.from().IsZero() {
		s.later.push(w) // the next round knows the time
		return
	}
	s.file(w)
}

// file puts a job into the books.
func (s *Scheduler) file(w *waiting) {
	limits := s.limitsOf(w.Owner, w.VO)
	key := s.key(&w.Entry, limits)
	c := s.classes[key]
	if c == nil {
		s.nextID++
		c = classOf(&w.Entry)
		c.id, c.key, c.limits, c.any = s.nextID, key, limits, true
		s.classes[key], s.byID[c.id] = c, c
		if len(c.request.Hard) > 0 {
			s.picky++
		}
		for _, b := range s.books {
			if b != nil {
				b.wake(c)
			}
		}
	}
	c.n++
	w.class = c
	for _, b := range s.books {
		if b != nil {
			b.add(w)
		}
	}
}

// unfile takes a job out of the books.
func (s *Scheduler) unfile(w *waiting) {
	c := w.class
	if c == nil {
		return
	}
	for _, b := range s.books {
		if b != nil {
			b.remove(w)
		}
	}
	if w.barred {
		s.unbar(w)
	}
	w.class = nil
	if c.n--; c.n > 0 {
		return
	}
	for _, b := range s.books {
		if b != nil {
			b.sleep(c)
		}
	}
	if c.filed {
		s.places.Forget(c.id)
	}
	for _, l := range c.limits {
		delete(l.classes, c)
	}
	s.dropView(c)
	if len(c.request.Hard) > 0 {
		s.picky--
	}
	if s.far != nil {
		delete(s.far.views, c)
	}
	delete(s.classes, c.key)
	delete(s.byID, c.id)
}

// Remove takes a job out and reports whether it was in.
func (s *Scheduler) Remove(id string) bool {
	if s.recorder != nil && s.jobs[id] != nil {
		s.recorder.write(&event{Remove: id})
	}
	return s.remove(id)
}

func (s *Scheduler) remove(id string) bool {
	w := s.jobs[id]
	if w == nil {
		return false
	}
	if w.later >= 0 {
		s.later.take(int(w.later))
	}
	s.unfile(w)
	delete(s.jobs, id)
	return true
}

// SetPolicies puts policies in force, at once for all jobs that wait. Where it fails
// (fail.Invalid, fail.Unsupported), those before stay in force.
func (s *Scheduler) SetPolicies(p *Policies) error {
	if err := s.setPolicies(p); err != nil {
		return err
	}
	if s.recorder != nil {
		s.recorder.write(&event{Policies: p})
	}
	return nil
}

func (s *Scheduler) setPolicies(p *Policies) error {
	sets := [2]*settings{}
	var err error
	if sets[0], err = newSettings(effective(p, false), s.cat); err != nil {
		return err
	}
	if len(p.Shadow) > 0 {
		if sets[1], err = newSettings(effective(p, true), s.cat); err != nil {
			return err
		}
	}
	for _, kinds := range []map[Scope]map[policy.Kind]policy.Setting{p.InForce, p.Shadow} {
		for scope := range kinds {
			if !scope.Valid() {
				return fail.Errorf("schedule.SetPolicies", fail.Invalid, string(scope), "there is no scope %q: gateway, vo:NAME and queue:NAME are scopes", scope)
			}
		}
	}
	s.policies = p
	s.refile(func() {
		for i := range s.books {
			s.books[i] = nil
			if sets[i] != nil {
				s.books[i] = newBook(i, sets[i])
			}
		}
	})
	return nil
}

// refile takes all jobs out of the books, lets change them, and puts the jobs back.
func (s *Scheduler) refile(change func()) {
	in := make([]*waiting, 0, len(s.jobs))
	for _, id := range slices.Sorted(maps.Keys(s.jobs)) {
		if w := s.jobs[id]; w.class != nil {
			s.unfile(w)
			in = append(in, w)
		}
	}
	change()
	for _, b := range s.books {
		if b != nil {
			b.keysAhead(in)
		}
	}
	for _, w := range in {
		s.file(w)
	}
	for _, b := range s.books {
		if b != nil {
			b.made = nil
		}
	}
}

// revise makes the keys anew whose order says that it has others now: a policy in a
// program of its own gave way, or came back.
func (s *Scheduler) revise() {
	for _, b := range s.books {
		if b != nil && b.set.revised() {
			s.refile(func() {})
			return
		}
	}
}

// SetUsage tells what owners and VOs used, of jobs that came to their end: the
// Scheduler itself reckons with those that are under way. Nil is that nobody did.
func (s *Scheduler) SetUsage(l *policy.Ledger) {
	s.usage.base = l
	s.usage.version++
	if s.recorder != nil {
		s.recorder.usage(l)
	}
}

// Charge charges a group with what it used, in CPU-seconds, as Ledger.Add does, to the
// ledger of SetUsage. To one that is changed behind the Scheduler's back a replay
// could not do the same.
func (s *Scheduler) Charge(group string, cpuSeconds float64, at time.Time) {
	if s.usage.base == nil {
		return
	}
	s.usage.base.Add(group, cpuSeconds, at)
	s.usage.version++
	if s.recorder != nil {
		s.recorder.write(&event{Charge: &chargeEvent{group, cpuSeconds, at}})
	}
}

// Reset puts a whole model in place of the one before. What was given stays given.
func (s *Scheduler) Reset(m *resourcemodel.Snapshot) {
	if s.recorder != nil {
		s.recorder.model(m, false)
	}
	s.places.Reset(m)
	for _, id := range slices.Sorted(maps.Keys(s.given)) {
		if g := s.given[id]; g.unsettled && g.far == nil {
			s.places.Take(g.place, &g.job.Request.Need)
		}
	}
	s.changed()
}

// Apply follows a delta of the model.
func (s *Scheduler) Apply(d resourcemodel.Delta) error {
	users := s.places.NamesUsers()
	if err := s.places.Apply(d); err != nil {
		return err
	}
	if s.recorder != nil {
		s.recorder.write(&event{Delta: &d})
	}
	if s.places.NamesUsers() != users {
		s.changed()
		return nil
	}
	for i := range d.Changes {
		s.touch(d.Changes[i].Key, modeled)
		if d.Changes[i].Static != nil || d.Changes[i].Gone {
			s.epoch++ // the places are others
		}
	}
	return nil
}

// changed begins anew with everything: requests may be of other classes now.
func (s *Scheduler) changed() {
	s.epoch++
	s.refile(func() {})
}

// Touched says that something beside the model changed for the better at a site: an
// estimate, a success rate, a distance.
func (s *Scheduler) Touched(k resourcemodel.Key) {
	if s.recorder != nil {
		s.recorder.write(&event{Touched: &k})
	}
	s.touch(k, modeled)
}

// touch lets the next look see whom a site could help now.
func (s *Scheduler) touch(k resourcemodel.Key, kind changeKind) {
	v := s.site(k)
	s.note(v, kind)
	if !v.dirty {
		v.dirty = true
		s.dirty = append(s.dirty, v)
	}
}

// site gives what is known of a site; one that nobody told of is open, without bounds
// and without jobs ahead.
func (s *Scheduler) site(k resourcemodel.Key) *site {
	v := s.sites[k]
	if v == nil {
		v = &site{key: k}
		s.sites[k] = v
	}
	return v
}

// SetSite tells how the gateway deals with a site.
func (s *Scheduler) SetSite(k resourcemodel.Key, to Site) {
	v := s.site(k)
	if v.Site == to {
		return
	}
	if s.recorder != nil {
		s.recorder.write(&event{Site: &siteEvent{k, to}})
	}
	v.Site = to
	s.touch(k, modeled)
	s.farOpened(k)
}

// SetLimits bounds the jobs of owners and VOs, those under way counted.
func (s *Scheduler) SetLimits(l Limits) {
	if s.recorder != nil {
		s.recorder.write(&event{Limits: &l})
	}
	s.refile(func() {
		s.bounds = l
		s.limits = map[string]*limit{}
		for _, id := range slices.Sorted(maps.Keys(s.given)) {
			g := s.given[id]
			g.limits = s.limitsOf(g.job.Owner, g.job.VO)
			for _, l := range g.limits {
				l.used++
			}
		}
	})
}

// limitsOf gives the limits that hold for the jobs of an owner in a VO.
func (s *Scheduler) limitsOf(owner, vo string) []*limit {
	var out []*limit
	add := func(kind string, own map[string]int, name string, each int) {
		most, has := own[name]
		if !has {
			most = each
		}
		if most <= 0 {
			return
		}
		group := kind + name
		l := s.limits[group]
		if l == nil {
			l = &limit{group: group, most: most, classes: map[*class]bool{}}
			s.limits[group] = l
		}
		out = append(out, l)
	}
	add("user:", s.bounds.Owner, owner, s.bounds.EachOwner)
	if vo != "" {
		add("vo:", s.bounds.VO, vo, s.bounds.EachVO)
	}
	return out
}

// Given says that a job has a place which no Round of this Scheduler gave it: the
// gateway was started anew. Settled is whether the model shows already that it runs.
func (s *Scheduler) Given(j *policy.Job, p resourcemodel.Place, settled bool) {
	if s.recorder != nil {
		s.recorder.given(j, p, nil, false, settled)
	}
	s.left(j.ID)
	s.give(j, p, false, settled)
}

func (s *Scheduler) give(j *policy.Job, p resourcemodel.Place, ahead, settled bool) *given {
	return s.giveTo(j, p, nil, ahead, settled)
}

// giveTo is give for a place that a peer showed.
func (s *Scheduler) giveTo(j *policy.Job, p resourcemodel.Place, far *resourcemodel.Place, ahead, settled bool) *given {
	g := &given{far: far, job: j, place: p, ahead: ahead, unsettled: !settled, charge: charge(j), limits: s.limitsOf(j.Owner, j.VO)}
	s.given[j.ID] = g
	v := s.site(p.Key)
	if v.keep != nil {
		v.keep.under[j.ID] = g
	}
	if ahead {
		v.ahead++
	}
	v.jobs++
	v.cpus += max(1, j.Request.Need.CPUs)
	s.uses(g, 1)
	for _, l := range g.limits {
		l.used++
	}
	s.usage.add(j, g.charge)
	switch {
	case far != nil:
		if s.far != nil && g.unsettled {
			g.holds = true
			s.far.take(g)
		}
	case g.unsettled:
		s.places.Take(p, &j.Request.Need)
	}
	s.note(v, taken)
	if s.picky > 0 && !v.dirty { // less of something may be what a criterion asks for
		v.dirty = true
		s.dirty = append(s.dirty, v)
	}
	return g
}

// Settled says that the model shows a job as one that runs: what it takes is no longer
// among what the model has as free.
func (s *Scheduler) Settled(id string) {
	g := s.given[id]
	if g == nil || !g.unsettled {
		return
	}
	if s.recorder != nil {
		s.recorder.write(&event{Settled: id})
	}
	s.settle(g)
	s.touch(g.place.Key, gained)
}

func (s *Scheduler) settle(g *given) {
	if g.ahead {
		s.site(g.place.Key).ahead--
		g.ahead = false
	}
	g.unsettled = false
	if g.far != nil {
		if s.far != nil {
			s.far.began(g)
		}
		return
	}
	s.places.Give(g.place, &g.job.Request.Need)
	s.note(s.site(g.place.Key), gained)
}

// Left says that a job is not at the place any more that it was given, or will not be:
// it ended, or the place was not to be had.
func (s *Scheduler) Left(id string) {
	if s.given[id] == nil {
		return
	}
	if s.recorder != nil {
		s.recorder.write(&event{Left: id})
	}
	s.left(id)
}

func (s *Scheduler) left(id string) {
	g := s.given[id]
	if g == nil {
		return
	}
	s.takeBack(g)
	for _, l := range g.limits {
		s.relieve(l)
	}
	s.touch(g.place.Key, gained)
}

// takeBack undoes give.
func (s *Scheduler) takeBack(g *given) {
	if g.unsettled {
		s.settle(g)
	}
	if g.far != nil && s.far != nil {
		s.far.left(g)
	}
	delete(s.given, g.job.ID)
	v := s.site(g.place.Key)
	if v.keep != nil {
		delete(v.keep.under, g.job.ID)
	}
	v.jobs--
	v.cpus -= max(1, g.job.Request.Need.CPUs)
	s.uses(g, -1)
	s.note(v, gained)
	for _, l := range g.limits {
		l.used--
	}
	s.usage.add(g.job, -g.charge)
}

// uses counts a job that has what was bought of a peer, or has it no more. One that is in room which the
// peer bought here may name the same, and is not at the peer.
func (s *Scheduler) uses(g *given, sign int) {
	j := g.job
	if rest, ok := strings.CutPrefix(j.Room, boughtRoom); !ok || !strings.HasPrefix(rest, g.place.Key.Site+"/") {
		return
	}
	if s.bought[j.Room] += sign * max(1, j.Request.Need.CPUs); s.bought[j.Room] <= 0 {
		delete(s.bought, j.Room)
	}
	if sign < 0 && s.far != nil {
		s.far.dirty = true
	}
}

// relieve wakes whom a limit stopped.
func (s *Scheduler) relieve(l *limit) {
	if l.used >= l.most {
		return
	}
	for c := range l.classes {
		delete(l.classes, c)
		c.full = false
		s.wake(c, nil)
	}
}

// At gives how many jobs are under way to a site or at it, and their CPUs.
func (s *Scheduler) At(k resourcemodel.Key) (jobs, cpus int) {
	if v := s.sites[k]; v != nil {
		return v.jobs, v.cpus
	}
	return 0, 0
}

// UnderWay gives how many jobs have a place, and how many of them the model does not
// show yet.
func (s *Scheduler) UnderWay() (jobs, unsettled int) {
	for _, g := range s.given {
		if g.unsettled {
			unsettled++
		}
	}
	return len(s.given), unsettled
}

// wake lets a class be looked at again; the site is what changed, nil is anything.
func (s *Scheduler) wake(c *class, k *resourcemodel.Key) {
	s.hint(c, k)
	for _, b := range s.books {
		if b != nil {
			b.wake(c)
		}
	}
}

// hint adds to what may help a class.
func (s *Scheduler) hint(c *class, k *resourcemodel.Key) {
	if c.any || k != nil && slices.Contains(c.hints, *k) {
		return
	}
	for _, b := range s.books {
		if b != nil && c.awake[b.index] {
			b.count(c, -1)
			defer b.count(c, 1)
		}
	}
	if k == nil || len(c.hints) == maxHints {
		c.any, c.hints = true, nil
		return
	}
	c.hints = append(c.hints, *k)
}

// refresh brings the books up to the moment: jobs whose time has come are filed, sites
// that open again open, and the classes wake that changes could help.
func (s *Scheduler) refresh(now time.Time) {
	s.shorten()
	for s.later.len() > 0 && !s.later.items[0].from().After(now) {
		s.file(s.later.take(0))
	}
	var open []*site
	for _, v := range s.sites {
		if v.Closed && !v.closed(now) {
			open = append(open, v)
		}
	}
	slices.SortFunc(open, func(a, b *site) int { return a.key.Compare(b.key) }) // views follow in this order
	for _, v := range open {
		v.Closed, v.Reopen, v.Problem = false, time.Time{}, ""
		s.touch(v.key, modeled)
		s.farOpened(v.key)
	}
	s.turn(now)
	if !s.retry.IsZero() && !s.retry.After(now) {
		s.unbarAll()
	}
	if s.far != nil {
		s.stir()
	}
	if len(s.dirty) == 0 {
		return
	}
	s.sooner()
	s.looks++
	d := s.derived(now)
	var asleep []*class
	for _, v := range s.dirty {
		if v.closed(now) || v.credit() == 0 {
			continue
		}
		s.places.Helped(v.key, v.Ahead > v.ahead, d, func(id int) {
			switch c := s.byID[id]; {
			case c == nil || c.full:
			case c.awake[0]:
				s.hint(c, &v.key)
			case c.looked != s.looks:
				c.looked = s.looks
				asleep = append(asleep, c)
			}
		})
	}
	slices.SortFunc(asleep, func(a, b *class) int { return a.id - b.id })
	for _, c := range asleep {
		s.help(c, d, now)
	}
	for _, v := range s.dirty {
		v.dirty = false
	}
	s.dirty = s.dirty[:0]
}

// help wakes a sleeping class if it has room at a site where something changed.
func (s *Scheduler) help(c *class, d resourcemodel.Derived, now time.Time) {
	for _, v := range s.dirty {
		if v.closed(now) || v.creditFor(c.request.Need.CPUs) == 0 || slices.Contains(c.avoid, v.key) || v.Ahead <= v.ahead && !s.places.Frees(v.key, c.request, d) {
			continue
		}
		if !timeless(c.request) || v.Ahead > 0 {
			s.offers = s.places.At(s.offers[:0], v.key, c.request, d)
			if !slices.ContainsFunc(s.offers, func(o Offer) bool { return s.room(c, v, o.Order, o.Free, now) > 0 }) {
				continue
			}
		}
		if s.wake(c, &v.key); c.any {
			return
		}
	}
}

// Next tells when a Round may find something to do, whatever happens until then: a job's
// moment comes, a site opens again. Now is that something changed since the last Round;
// the zero time is never.
func (s *Scheduler) Next(now time.Time) time.Time {
	if len(s.dirty) > 0 || s.far != nil && s.far.dirty && len(s.jobs) > 0 {
		return now
	}
	var next time.Time
	sooner := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	if s.later.len() > 0 {
		sooner(s.later.items[0].from())
	}
	for _, v := range s.sites {
		if v.Closed {
			sooner(v.Reopen)
		}
	}
	sooner(s.retry)
	for _, v := range s.keeping {
		sooner(v.keep.turns)
	}
	if !next.IsZero() && next.Before(now) {
		return now
	}
	return next
}
