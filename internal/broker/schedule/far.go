package schedule

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/peers/routing"
	"github.com/portolan-project/portolan/resourcemodel"
)

// Peers are the domains that jobs may be given to beside the own sites, and how that is
// decided. It is never changed in place.
type Peers struct {
	Own    string         `json:"own"` // our domain
	Policy routing.Policy `json:"policy"`
	Hops   int            `json:"hops"` // that a job of our own may make
	Peers  []Peer         `json:"peers"`
}

// Peer is a domain with the site that it is to the broker. What of our jobs it has is
// counted here.
type Peer struct {
	routing.Peer
	Site resourcemodel.Key `json:"site"`
	// Bought is room there that is ours, in the order in which it is used.
	Bought []Bought `json:"bought,omitempty"`
}

// Bought is room that was bought of a peer.
type Bought struct {
	Agreement string    `json:"agreement"` // that it was bought by, at the peer
	CPUs      int       `json:"cpus"`
	VO        string    `json:"vo,omitempty"` // whose jobs alone may have it; "" is all
	Until     time.Time `json:"until"`
}

// roomAt gives what was bought of a peer in which a job fits now; nil where there is none. A job that
// says that it runs for longer than the room is ours is none for it.
func (s *Scheduler) roomAt(e *Entry, c *class, p *Peer, now time.Time) *Bought {
	for i := range p.Bought {
		b := &p.Bought[i]
		n := &c.request.Need
		switch {
		case b.VO != "" && b.VO != e.VO, !now.Before(b.Until), n.WallTime > 0 && now.Add(n.WallTime).After(b.Until):
		case max(n.CPUs, 1) > b.CPUs-s.bought[BoughtRoom(p.Site.Site, b.Agreement)]:
		default:
			return b
		}
	}
	return nil
}

// inRoom gives a job as one that runs in what was bought; itself for none.
func inRoom(j *policy.Job, p *Peer, b *Bought) *policy.Job {
	if b == nil {
		return j
	}
	in := *j
	in.Room = BoughtRoom(p.Site.Site, b.Agreement)
	return &in
}

// Way is how a job came here from another domain. Own jobs have none.
type Way struct {
	Path []string `json:"path"` // the domains that it came through, the origin first
	Hops int      `json:"hops"` // that it may still make
}

// far is what is known of other domains. There is none without peers, so that nothing is
// looked at then that was not before.
//
// The own sites' places and those of peers are kept apart: a class sees of its own sites
// what it always saw, and a job comes here only when none of them would start it at once.
type far struct {
	peers    *Peers
	domains  map[string]*Peer
	sites    map[resourcemodel.Key]bool // those that the peers are to the broker
	places   Places                     // of all peers, each site at its best: see resourcemodel.Widest
	model    *resourcemodel.Snapshot
	takes    map[resourcemodel.Place]int // jobs that were given to a place and are not in what it shows
	lagging  map[resourcemodel.Key]map[string]*given
	log      []resourcemodel.Key // sites where something changed
	epoch    uint64              // of the places
	views    map[*class]*farView
	overflow map[classKey]bool // what Route said last, by class
	dirty    bool              // what sleeps may be helped by a peer
	backlog  int               // jobs that waited when it was looked at
	offers   []Offer
}

// farView is what a class sees of the peers.
type farView struct {
	epoch  uint64
	seen   int
	by     map[string][]farOffer // by domain
	slots  int                   // of our own sites, for jobs of the class
	sepoch uint64
}

type farOffer struct {
	Offer
	site resourcemodel.Key
	sure bool
}

const (
	maxFarViews = 1024
	maxFarLog   = 1 << 14
	// leastQueued is how many jobs a peer may have of us that it has no room for now, at
	// least: it orders its own queue, and a slot that falls free is to find work.
	leastQueued = 16
)

// SetPeers tells which domains there are beside the own sites; nil, or none, is that there
// are no peers. What peers have is told by ResetFar and ApplyFar.
func (s *Scheduler) SetPeers(p *Peers) {
	if s.recorder != nil {
		if p == nil {
			p = &Peers{}
		}
		s.recorder.write(&event{Peers: p})
	}
	if p == nil || len(p.Peers) == 0 {
		s.far = nil
		return
	}
	if s.far == nil {
		s.far = &far{
			places: NewPlaces(resourcemodel.Empty()), model: resourcemodel.Empty(), takes: map[resourcemodel.Place]int{},
			lagging: map[resourcemodel.Key]map[string]*given{}, views: map[*class]*farView{}, overflow: map[classKey]bool{},
		}
	}
	f := s.far
	f.peers, f.domains, f.dirty = p, make(map[string]*Peer, len(p.Peers)), true
	f.sites = make(map[resourcemodel.Key]bool, len(p.Peers))
	for i := range p.Peers {
		f.domains[p.Peers[i].Domain] = &p.Peers[i]
		f.sites[p.Peers[i].Site] = true
	}
}

// ResetFar puts what peers have in place of what was known before. What was given to them
// stays given. It does nothing without peers.
func (s *Scheduler) ResetFar(m *resourcemodel.Snapshot) {
	if s.far == nil {
		return
	}
	if s.recorder != nil {
		s.recorder.model(m, true)
	}
	f := s.far
	f.model = m
	d := resourcemodel.Diff(resourcemodel.Empty(), m)
	wide, err := resourcemodel.Empty().Apply(resourcemodel.Delta{Revision: max(m.Revision(), 1), At: m.At(), Changes: f.widest(d.Changes)})
	if err != nil { // each was checked before it came into the snapshot
		wide = resourcemodel.Empty()
	}
	f.places.Reset(wide)
	f.takes, f.lagging = map[resourcemodel.Place]int{}, map[resourcemodel.Key]map[string]*given{}
	for _, g := range s.given {
		if g.far == nil {
			continue
		}
		if g.holds = g.unsettled; g.holds {
			f.take(g)
		}
	}
	f.epoch++
	f.dirty = true
}

// ApplyFar follows what peers show.
func (s *Scheduler) ApplyFar(d resourcemodel.Delta) error {
	if s.far == nil {
		return nil
	}
	f := s.far
	next, err := f.model.Apply(d)
	if err != nil {
		return err
	}
	f.model = next
	wide := d
	wide.Changes = f.widest(d.Changes)
	if err := f.places.Apply(wide); err != nil {
		return err
	}
	if s.recorder != nil {
		s.recorder.write(&event{Far: &d})
	}
	for i := range d.Changes {
		c := &d.Changes[i]
		if c.Dynamic != nil || c.Gone {
			// What it shows now has the jobs that began before.
			for _, g := range f.lagging[c.Key] {
				f.give(g)
			}
			delete(f.lagging, c.Key)
		}
		if c.Static != nil || c.Gone {
			f.epoch++
		}
		f.log = append(f.log, c.Key)
	}
	f.dirty = true
	return nil
}

// widest gives the changes with what the sites could do at best; the next look says where
// that is not sure.
func (f *far) widest(changes []resourcemodel.Change) []resourcemodel.Change {
	out := slices.Clone(changes)
	for i := range out {
		if c := &out[i]; c.Static != nil {
			c.Static = resourcemodel.Widest(&resourcemodel.Site{Key: c.Key, Static: c.Static}).Static
		}
	}
	return out
}

// take reckons with a job that was given to a peer.
func (f *far) take(g *given) {
	f.places.Take(*g.far, &g.job.Request.Need)
	f.takes[*g.far]++
	f.log = append(f.log, g.far.Key)
}

// give gives back what a job was reckoned to take.
func (f *far) give(g *given) {
	if !g.holds {
		return
	}
	g.holds = false
	f.places.Give(*g.far, &g.job.Request.Need)
	if f.takes[*g.far]--; f.takes[*g.far] <= 0 {
		delete(f.takes, *g.far)
	}
	f.log = append(f.log, g.far.Key)
	f.dirty = true
}

// began: a job runs at a peer. What it takes there is reckoned with until the peer shows
// how it stands next, as that has the job in it.
func (f *far) began(g *given) {
	if !g.holds {
		return
	}
	if f.lagging[g.far.Key] == nil {
		f.lagging[g.far.Key] = map[string]*given{}
	}
	f.lagging[g.far.Key][g.job.ID] = g
}

// left: a job is not at a peer any more.
func (f *far) left(g *given) {
	delete(f.lagging[g.far.Key], g.job.ID)
	f.give(g)
}

// farOpened lets the next look see that a site which is a peer may get jobs again: no place of
// ours tells of that.
func (s *Scheduler) farOpened(k resourcemodel.Key) {
	if s.far != nil && s.far.sites[k] {
		s.far.dirty = true
	}
}

// stir wakes the classes that a peer may help: something changed there, or more jobs wait
// than before.
func (s *Scheduler) stir() {
	f := s.far
	if !f.dirty && len(s.jobs) <= f.backlog {
		f.backlog = len(s.jobs)
		return
	}
	f.dirty, f.backlog = false, len(s.jobs)
	if len(f.log) > maxFarLog {
		f.log = f.log[:0]
		f.epoch++
	}
	ids := make([]int, 0, len(s.byID))
	for id, c := range s.byID {
		if !c.awake[0] && !c.full {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		s.wake(s.byID[id], nil)
	}
}

// look gives what a class sees of the peers.
func (f *far) look(c *class, d resourcemodel.Derived) *farView {
	v := f.views[c]
	if v == nil {
		if len(f.views) >= maxFarViews {
			clear(f.views)
		}
		v = &farView{}
		f.views[c] = v
	}
	if v.by == nil || v.epoch != f.epoch || !timeless(c.request) || v.seen > len(f.log) {
		v.by, v.epoch, v.seen = map[string][]farOffer{}, f.epoch, len(f.log)
		f.offers = f.places.Candidates(f.offers[:0], c.request, d)
		for _, o := range f.offers {
			f.put(v, c, o, d)
		}
		return v
	}
	again := f.log[v.seen:]
	v.seen = len(f.log)
	for i, k := range again {
		if slices.Contains(again[i+1:], k) {
			continue
		}
		v.by[k.Domain] = slices.DeleteFunc(v.by[k.Domain], func(o farOffer) bool { return o.site == k })
		f.offers = f.places.At(f.offers[:0], k, c.request, d)
		for _, o := range f.offers {
			f.put(v, c, o, d)
		}
		slices.SortFunc(v.by[k.Domain], func(a, b farOffer) int { return a.Order - b.Order })
	}
	return v
}

func (f *far) put(v *farView, c *class, o Offer, d resourcemodel.Derived) {
	p := f.places.Place(o.Order)
	sure := true
	if site := f.model.Site(p.Key); site != nil && site.Static != nil && site.Static.Detail != resourcemodel.Full {
		sure = false
		if share, env := site.Static.Share(p.Share), site.Static.Environment(p.Environment); share != nil && env != nil {
			sure = c.request.Fits(resourcemodel.Where{Site: site, Share: share, Environment: env}, d)
		}
	}
	v.by[p.Domain] = append(v.by[p.Domain], farOffer{o, p.Key, sure})
}

// survey tells what a domain has for a class, less what was given to it.
func (s *Scheduler) survey(v *farView, c *class, domain string, d resourcemodel.Derived) routing.Survey {
	f := s.far
	var best routing.Survey
	at := -1
	for i := range v.by[domain] {
		o := &v.by[domain][i]
		x := routing.Survey{Fits: true, Sure: o.sure, Now: o.Free > 0, Room: o.Free}
		x.Wait, x.Known = 0, x.Now
		if !x.Now {
			x.Wait, x.Known = s.farWait(o, c, d)
		}
		room := min(best.Room+x.Room, resourcemodel.MaxCount)
		if at < 0 || x.Better(best) {
			best, at = x, i
		}
		best.Room = room
	}
	if at >= 0 {
		var t policy.Candidate
		f.places.Tell(&t, v.by[domain][at].Order, c.request, d)
		best.Spot = resourcemodel.Spot{Site: t.Site, Share: t.Share, Environment: t.Env}
		return best
	}
	return s.unfit(c, domain, d)
}

// unfit says why no place of a domain is a candidate.
func (s *Scheduler) unfit(c *class, domain string, d resourcemodel.Derived) routing.Survey {
	out := routing.Survey{Why: "it shows no resources"}
	for site := range s.far.model.SitesOf(domain) {
		wide := resourcemodel.Widest(site)
		for w := range wide.Places() {
			if clauses := c.request.Judge(w.Site, w.Share, w.Environment, d).Clauses; len(clauses) > 0 {
				out.Why = clauses[max(slices.IndexFunc(clauses, shuts), 0)].Sentence
			}
			return out
		}
	}
	return out
}

// typical is how long a job of the class is reckoned to run.
func (s *Scheduler) typical(c *class) time.Duration {
	t := s.far.peers.Policy.Typical
	if w := c.request.Need.WallTime; w > 0 {
		t = min(t, w) // what people ask for is the most that it may take
	}
	return t
}

// farWait is how long a job would wait at a place of a peer that has no room: as the peer
// forecasts, or by the jobs before it, those that we gave it among them.
func (s *Scheduler) farWait(o *farOffer, c *class, d resourcemodel.Derived) (time.Duration, bool) {
	f := s.far
	var t policy.Candidate
	f.places.Tell(&t, o.Order, c.request, d)
	if t.Share == nil || !t.State.Open {
		return 0, false
	}
	slots := max(t.Share.Slots, t.State.Running, 1)
	ours := max(0, f.takes[t.Place]-f.freeAt(t.Place))
	wait := float64(s.typical(c)) * float64(ours) / float64(slots)
	if t.State.Forecast > 0 {
		wait += float64(t.State.Forecast)
	} else {
		wait += float64(s.typical(c)) * (0.5 + float64(t.State.Waiting)/float64(slots))
	}
	return time.Duration(min(wait, float64(365*24*time.Hour))), true
}

// freeAt is how many slots the peer shows as free.
func (f *far) freeAt(p resourcemodel.Place) int {
	site := f.model.Site(p.Key)
	if site == nil || site.Dynamic == nil {
		return 0
	}
	state, _ := site.Dynamic.Share(p.Share)
	return max(0, state.FreeSlots)
}

// home tells what the own sites have for a class: where none would start it at once, how
// long the jobs that wait would take to get through, as all of them are alike to who waits.
func (s *Scheduler) home(fv *farView, v *view, c *class, d resourcemodel.Derived) routing.Survey {
	full := slices.DeleteFunc(slices.Clone(v.full), func(f full) bool {
		return slices.Contains(c.avoid, f.site.key) || c.only != nil && c.only.Key != f.site.key
	})
	out := routing.Survey{Fits: len(v.cands)+len(full) > 0, Sure: true}
	for _, h := range v.cands {
		if h.Free > 0 {
			out.Now, out.Known = true, true
			return out
		}
	}
	if !out.Fits {
		ruled, _ := s.ruled(v)
		out.Why = "none of the own sites can run it"
		if len(ruled) > 0 {
			out.Why = ruled[0].Sentence
		}
		return out
	}
	var t policy.Candidate
	seen := func(order int, at *site) {
		s.places.Tell(&t, order, c.request, d)
		wait, known := waitOf(&t, c.request, d)
		if !known {
			slots := max(t.Share.Slots, t.State.Running, 1)
			wait, known = time.Duration(float64(s.typical(c))*(0.5+float64(t.State.Waiting+at.ahead)/float64(slots))), true
		}
		if !out.Known || wait < out.Wait {
			out.Wait, out.Known = wait, known
		}
	}
	for _, h := range v.cands {
		seen(h.order, h.site)
	}
	for i := range full {
		if !full[i].site.closed(v.now) { // nobody knows when it opens
			seen(full[i].order, full[i].site)
		}
	}
	if !out.Known {
		return out
	}
	if fv.slots == 0 || fv.sepoch != s.epoch {
		fv.slots, fv.sepoch = s.slotsFor(v, c, d), s.epoch
	}
	out.Wait += time.Duration(min(float64(s.typical(c))*float64(len(s.jobs)-s.tentative-1)/float64(max(fv.slots, 1)), float64(365*24*time.Hour)))
	return out
}

// slotsFor counts the jobs of a class that our own sites run at once.
func (s *Scheduler) slotsFor(v *view, c *class, d resourcemodel.Derived) int {
	type share struct {
		site resourcemodel.Key
		id   string
	}
	seen := map[share]bool{}
	n := 0
	var t policy.Candidate
	add := func(order int) {
		s.places.Tell(&t, order, c.request, d)
		if k := (share{t.Place.Key, t.Place.Share}); !seen[k] {
			seen[k] = true
			slots := t.Share.Slots
			if slots <= 0 {
				slots = t.Nodes.Available * max(t.Env.CPUs, 1)
			}
			n = min(n+max(slots/max(c.request.Need.CPUs, 1), 1), resourcemodel.MaxCount)
		}
	}
	for _, h := range v.cands {
		add(h.order)
	}
	for i := range v.full {
		add(v.full[i].order)
	}
	return n
}

// route orders the domains for a job, our own being "".
func (s *Scheduler) route(e *Entry, c *class, v *view, now time.Time) (routing.Decision, *farView) {
	f := s.far
	d := s.derived(now)
	fv := f.look(c, d)
	sit := routing.Situation{
		Own: f.peers.Own, Request: c.request, Derived: d, Hops: f.peers.Hops, Overflowing: f.overflow[c.key], Refused: map[string]string{},
		Survey: func(domain string) routing.Survey {
			if domain == "" {
				return s.home(fv, v, c, d)
			}
			return s.survey(fv, c, domain, d)
		},
	}
	if e.Way != nil {
		sit.Path, sit.Hops = e.Way.Path, e.Way.Hops
	}
	for i := range f.peers.Peers {
		p := f.peers.Peers[i].Peer
		if b := s.roomAt(e, c, &f.peers.Peers[i], now); b != nil {
			p.Bought = "room is bought of the domain " + p.Domain + " until " + said(b.Until) + ", by its agreement " + b.Agreement
		}
		at := s.site(f.peers.Peers[i].Site)
		p.Given = at.jobs
		if p.Away == "" {
			switch {
			case at.closed(now):
				p.Away = at.sentence()
			case at.creditFor(c.request.Need.CPUs) == 0:
				p.Away = "the site " + at.key.String() + " " + at.spentFor(c.request.Need.CPUs)
			}
		}
		if slices.Contains(e.Avoid, at.key) {
			sit.Refused[p.Domain] = cmp.Or(e.Later[at.key.Site], "the job is not to get the domain "+p.Domain+" again")
		}
		if e.Only != nil && e.Only.Key != at.key {
			sit.Refused[p.Domain] = "the job is to go to " + e.Only.String() + ", by its agreement"
		}
		sit.Peers = append(sit.Peers, p)
	}
	out := routing.Route(sit, f.peers.Policy)
	if out.Overflowing {
		if len(f.overflow) >= maxFarViews {
			clear(f.overflow)
		}
		f.overflow[c.key] = true
	} else {
		delete(f.overflow, c.key)
	}
	return out, fv
}

// mayLeave reports whether a job may go to some peer at all: one of an agreement that names a site of our
// own may not.
func (s *Scheduler) mayLeave(e *Entry) bool { return e.Only == nil || s.far.sites[e.Only.Key] }

// beyond gives a job that the own sites would not start at once to a peer, if it is better
// off there, and reports whether it did. What the class sees of the own sites is v.
func (s *Scheduler) beyond(r *run, w *waiting, v *view) (resourcemodel.Key, bool) {
	if slices.ContainsFunc(v.cands, func(h held) bool { return h.Free > 0 }) {
		return resourcemodel.Key{}, false
	}
	if w.Way != nil && w.Way.Hops <= 0 {
		return resourcemodel.Key{}, false
	}
	d, fv := s.route(&w.Entry, w.class, v, r.now)
	c := s.firstOf(d, fv)
	if c == nil {
		return resourcemodel.Key{}, false
	}
	p := s.far.domains[c.Domain]
	place := c.Spot.Place()
	var room *Bought
	if c.Bought {
		room = s.roomAt(&w.Entry, w.class, p, r.now)
	}
	job := inRoom(w.Job, p, room)
	r.budget--
	if r.trial {
		s.tentatively(r, w, job, resourcemodel.Place{Key: p.Site, Share: place.Share, Environment: place.Environment}, &place, false)
		return p.Site, true
	}
	dec := s.farDecision(r.now, &w.Entry, d, c, p)
	if room != nil {
		dec.Bought = room.Agreement
	}
	dec.Policy = s.books[0].set.names(&w.Entry)
	if b := s.books[1]; b != nil {
		dec.Shadow = &Shadowed{Policy: b.set.names(&w.Entry)}
	}
	if r.decisions == nil {
		r.decisions = make([]Decision, 0, min(r.budget, len(s.jobs), 64))
	}
	r.decisions = append(r.decisions, dec)
	s.giveTo(job, dec.Place, &place, false, false).since = r.now
	s.remove(w.ID)
	return p.Site, true
}

// farState is what a trial changes of far, beside what is given back.
type farState struct {
	dirty    bool
	overflow map[classKey]bool
}

// before gives the state that after is to bring back.
func (f *far) before() farState {
	if f == nil {
		return farState{}
	}
	return farState{f.dirty, maps.Clone(f.overflow)}
}

func (f *far) after(was farState) {
	if f != nil {
		f.dirty, f.overflow = was.dirty, was.overflow
	}
}

// firstOf gives the peer that is to have the job; nil is that it stays.
func (s *Scheduler) firstOf(d routing.Decision, fv *farView) *routing.Choice {
	for i := range d.Choices {
		c := &d.Choices[i]
		if c.Domain == "" {
			return nil
		}
		if c.Now || s.queuedAt(c.Domain) < s.mayQueue(fv, c.Domain) {
			return c
		}
	}
	return nil
}

// queuedAt counts our jobs at a peer that it was given beyond what it had free.
func (s *Scheduler) queuedAt(domain string) int {
	n := 0
	for p, takes := range s.far.takes {
		if p.Domain == domain {
			n += max(0, takes-s.far.freeAt(p))
		}
	}
	return n
}

// mayQueue is how many that may be: as many as it has slots, as far as it shows them.
func (s *Scheduler) mayQueue(fv *farView, domain string) int {
	n := 0
	last := resourcemodel.Key{}
	for i := range fv.by[domain] {
		if o := &fv.by[domain][i]; o.site != last {
			last = o.site
			if site := s.far.model.Site(o.site); site != nil && site.Static != nil {
				for j := range site.Static.Shares {
					n = min(n+site.Static.Shares[j].Slots, resourcemodel.MaxCount)
				}
			}
		}
	}
	return max(n, leastQueued)
}

// farDecision makes the record of a job that goes to a peer.
func (s *Scheduler) farDecision(now time.Time, e *Entry, d routing.Decision, c *routing.Choice, p *Peer) Decision {
	place := c.Spot.Place()
	out := Decision{
		Job: e.ID, Attempt: e.Attempt, At: now, Model: s.places.Snapshot().Revision(), Policies: s.policies.Revision,
		Place:  resourcemodel.Place{Key: p.Site, Share: place.Share, Environment: place.Environment},
		Waited: len(s.jobs), Domain: c.Domain, Far: &place, Why: c.Why,
	}
	for i := range d.Choices {
		x := &d.Choices[i]
		if x.Domain == "" || len(out.Ranked) == MaxRanked {
			continue
		}
		out.Ranked = append(out.Ranked, Ranked{Place: x.Spot.Place(), Soft: 1, Score: finite(x.Score), Free: bit(x.Now)})
	}
	for _, x := range d.Out {
		if len(out.Out) == MaxRuled {
			out.More++
			continue
		}
		domain := cmp.Or(x.Domain, s.far.peers.Own)
		out.Out = append(out.Out, Ruled{Place: resourcemodel.Place{Key: resourcemodel.Key{Domain: domain}}, Element: "Domain", Sentence: "the domain " + domain + ": " + x.Why})
	}
	return out
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// afar says what peers are to a job that waits, to be added to why it does; "" without
// peers.
func (s *Scheduler) afar(e *Entry, c *class, now time.Time) string {
	if s.far == nil || !s.mayLeave(e) {
		return ""
	}
	v := &view{class: c, now: now}
	s.sift(v)
	was := s.far.overflow
	s.far.overflow = map[classKey]bool{}
	d, _ := s.route(e, c, v, now)
	s.far.overflow = was
	delete(s.far.views, c)
	var said []string
	for _, x := range d.Choices {
		if x.Domain != "" && len(said) < maxBounded {
			said = append(said, strings.TrimPrefix(x.Why, "the own sites are too full, and "))
		}
	}
	for _, x := range d.Out {
		if x.Domain != "" && len(said) < maxBounded {
			said = append(said, "the domain "+x.Domain+" is none for it: "+x.Why)
		}
	}
	if len(said) == 0 {
		return ""
	}
	if len(d.Choices) > 0 && d.Choices[0].Domain == "" {
		return "; the own sites come first as long as they are not too full: " + strings.Join(said, "; ")
	}
	return "; " + strings.Join(said, "; ")
}

// Back decides about a job that a peer was given and that has not begun there: whether it
// is to be taken back, why, and how many like it the own sites could start. Left is how long it is still expected to wait there; known
// is whether anything tells.
func (s *Scheduler) Back(id string, left time.Duration, known bool, now time.Time) (why string, room int, back bool) {
	g := s.given[id]
	if s.far == nil || g == nil || g.far == nil || len(s.jobs) > 0 || s.paid(g, now) {
		return "", 0, false
	}
	c := &class{request: g.job.Request}
	v := &view{class: c, now: now}
	s.sift(v)
	d := s.derived(now)
	sit := routing.Situation{
		Own: s.far.peers.Own, Request: g.job.Request, Derived: d,
		Survey: func(string) routing.Survey { return s.home(&farView{}, v, c, d) },
	}
	for _, h := range v.cands {
		room = min(room+s.room(c, h.site, h.order, h.Free, now), resourcemodel.MaxCount)
	}
	why, back = routing.Back(sit, s.far.peers.Policy, left, known)
	return why, room, back
}

// paidPatience is for how long a job is left to begin in room that was bought for it.
const paidPatience = 5 * time.Minute

// paid reports whether a job has room at a peer that was bought for it: it is about to begin there, and
// the room is paid for anyhow. One that has not begun for some minutes does not get what was bought.
func (s *Scheduler) paid(g *given, now time.Time) bool {
	if g.unsettled && g.began.IsZero() && now.Sub(g.since) >= paidPatience {
		return false
	}
	for i := range s.far.peers.Peers {
		p := &s.far.peers.Peers[i]
		if p.Site == g.place.Key {
			return slices.ContainsFunc(p.Bought, func(b Bought) bool {
				return now.Before(b.Until) && BoughtRoom(p.Site.Site, b.Agreement) == g.job.Room
			})
		}
	}
	return false
}

// FarWait gives how long a job that a peer has is expected to wait there.
func (s *Scheduler) FarWait(id string, now time.Time) (time.Duration, bool) {
	g := s.given[id]
	if s.far == nil || g == nil || g.far == nil {
		return 0, false
	}
	d := s.derived(now)
	s.far.offers = s.far.places.At(s.far.offers[:0], g.far.Key, g.job.Request, d)
	for _, o := range s.far.offers {
		if s.far.places.Place(o.Order) == *g.far {
			return s.farWait(&farOffer{Offer: o, site: g.far.Key}, &class{request: g.job.Request}, d)
		}
	}
	return 0, false
}

// tryFar gives the record of the decision for a peer that a job would have now; nil where
// it would stay.
func (s *Scheduler) tryFar(e *Entry, v *view, now time.Time) *Decision {
	d, fv := s.route(e, v.class, v, now)
	defer delete(s.far.views, v.class)
	c := s.firstOf(d, fv)
	if c == nil {
		return nil
	}
	p := s.far.domains[c.Domain]
	out := s.farDecision(now, e, d, c, p)
	if c.Bought {
		if room := s.roomAt(e, v.class, p, now); room != nil {
			out.Bought = room.Agreement
		}
	}
	out.Policy, out.Waited = s.books[0].set.names(e), len(s.jobs)+1
	return &out
}

// farFits reports whether a peer could ever run a job.
func (s *Scheduler) farFits(e *Entry, now time.Time) bool {
	d := s.derived(now)
	for i := range s.far.peers.Peers {
		at := s.far.peers.Peers[i].Site
		if _, later := e.Later[at.Site]; slices.Contains(e.Avoid, at) && !later {
			continue
		}
		if s.Shows(s.far.peers.Peers[i].Domain, e.Request, d) {
			return true
		}
	}
	return false
}

// Shows reports whether a peer shows a place that could ever run a request.
func (s *Scheduler) Shows(domain string, r *resourcemodel.Request, d resourcemodel.Derived) bool {
	if s.far == nil {
		return false
	}
	for site := range s.far.model.SitesOf(domain) {
		for w := range resourcemodel.Widest(site).Places() {
			if r.Fits(w, d) {
				return true
			}
		}
	}
	return false
}

// Verdicts judges the places that peers show, at most so many.
func (s *Scheduler) Verdicts(r *resourcemodel.Request, now time.Time, most int) []resourcemodel.Verdict {
	if s.far == nil {
		return nil
	}
	d := s.derived(now)
	var out []resourcemodel.Verdict
	for w := range s.far.places.All() {
		if len(out) == most {
			break
		}
		out = append(out, r.Judge(w.Site, w.Share, w.Environment, d))
	}
	return out
}
