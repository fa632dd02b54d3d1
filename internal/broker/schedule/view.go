package schedule

import (
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/resourcemodel"
)

// view is what a class sees of the places. It follows what changes site by site, since
// most of the time little does.
type view struct {
	class *class
	epoch uint64
	now   time.Time
	seen  int                 // changes in the log that it reckons with
	cands []held              // those with room, by their Order
	spare []*policy.Candidate // that were some, to be used again
	full  []full              // those that could run the jobs and have no room for them, by their Order
	ruled []Ruled             // those that could not
	more  int                 // further ones that could not
	told  bool                // ruled was asked for, and is right
	out   []Ruled             // both, bounded; nil when they changed
}

// held is a candidate that a view has. It stays where it is while others come and go:
// candidates are large.
type held struct {
	*policy.Candidate
	order int
	site  *site
}

// full is a place without room. Most are never told of, so that the words are made
// when they are.
type full struct {
	order int
	site  *site
	said  *Ruled
}

// change is one line of the log that views follow.
type change struct {
	site *site
	kind changeKind
}

// changeKind says what a change may do to a view; the later may do what the earlier do.
type changeKind uint8

const (
	taken   changeKind = iota // there is less room than before
	gained                    // there may be more
	modeled                   // the model is another, or what is known beside it
)

// maxViews bounds the views that are kept, and maxLog the changes that they follow.
const (
	maxViews = 2048
	maxLog   = 1 << 16
)

// note says that something changed at a site.
func (s *Scheduler) note(v *site, kind changeKind) {
	if kind != taken {
		v.gained = len(s.log)
	}
	if kind == modeled {
		v.modeled = len(s.log)
	}
	v.noted = len(s.log)
	if v.keep != nil {
		clear(v.keep.kept)
	}
	s.log = append(s.log, change{v, kind})
}

// shorten begins the log anew when it is long.
func (s *Scheduler) shorten() {
	if len(s.log) < maxLog {
		return
	}
	for _, v := range s.views {
		v.class.view = nil
	}
	for _, v := range s.sites {
		v.noted, v.gained, v.modeled = -1, -1, -1
	}
	s.views, s.log = s.views[:0], s.log[:0]
}

// timeless reports whether what places say to a request changes only when they do.
func timeless(r *resourcemodel.Request) bool {
	return len(r.Hard) == 0 && len(r.Soft) == 0 && r.Deadline.IsZero()
}

// look gives what a class sees now.
func (s *Scheduler) look(c *class, now time.Time) *view {
	v := c.view
	if v == nil || v.epoch != s.epoch || !v.now.Equal(now) && !timeless(c.request) {
		return s.build(c, now)
	}
	if !v.now.Equal(now) {
		v.now = now
		d := s.derived(now)
		for i := range v.cands {
			v.cands[i].Derived = d
		}
	}
	if v.seen < len(s.log) {
		s.follow(v)
	}
	return v
}

// build looks at all places.
func (s *Scheduler) build(c *class, now time.Time) *view {
	v := c.view
	if v == nil {
		v = &view{class: c}
		c.view = v
		if len(s.views) == maxViews {
			s.dropView(s.views[0].class)
		}
		s.views = append(s.views, v)
	}
	for i := range v.cands {
		v.spare = append(v.spare, v.cands[i].Candidate)
	}
	clear(v.full)
	*v = view{class: c, epoch: s.epoch, now: now, seen: len(s.log), cands: v.cands[:0], spare: v.spare, full: v.full[:0]}
	s.sift(v)
	return v
}

// sift fills an empty view: candidates that have no room are full.
func (s *Scheduler) sift(v *view) {
	r, d := v.class.request, s.derived(v.now)
	s.offers = s.places.Candidates(s.offers[:0], r, d)
	var at *site
	for _, o := range s.offers {
		if k := s.places.Place(o.Order).Key; at == nil || at.key != k {
			at = s.site(k)
			at.order = o.Order
		}
		if s.room(v.class, at, o.Order, o.Free, v.now) == 0 {
			v.full = append(v.full, full{order: o.Order, site: at})
			continue
		}
		v.cands = append(v.cands, s.hold(v, o, at, d))
	}
	soften(r, v.cands, d)
}

// hold keeps a candidate.
func (s *Scheduler) hold(v *view, o Offer, at *site, d resourcemodel.Derived) held {
	var c *policy.Candidate
	if n := len(v.spare); n > 0 {
		c, v.spare = v.spare[n-1], v.spare[:n-1]
	} else {
		c = new(policy.Candidate)
	}
	s.places.Tell(c, o.Order, v.class.request, d)
	c.Free, c.Soft, c.Preference = o.Free, 1, at.Preference
	return held{c, o.Order, at}
}

// fill notes that a place has no room. What is told of those is in the order of the model,
// so that it does not depend on when the class was looked at before.
func (v *view) fill(order int, at *site) {
	i, _ := slices.BinarySearchFunc(v.full, order, func(f full, order int) int { return f.order - order })
	v.full = slices.Insert(v.full, i, full{order: order, site: at})
	if i < MaxRuled { // else it is beyond what is told
		v.out = nil
	}
}

// unfill forgets the places of a site that had no room.
func (v *view) unfill(site *site) {
	first, _ := slices.BinarySearchFunc(v.full, site.order, func(f full, order int) int { return f.order - order })
	for first > 0 && v.full[first-1].site == site {
		first--
	}
	end := first
	for end < len(v.full) && v.full[end].site == site {
		end++
	}
	if first == end {
		return
	}
	if first < MaxRuled {
		v.out = nil
	}
	v.full = slices.Delete(v.full, first, end)
}

// follow looks again at the sites where something changed.
func (s *Scheduler) follow(v *view) {
	from := v.seen
	v.seen = len(s.log)
	if v.seen-from > 32*len(s.sites)+4096 {
		s.build(v.class, v.now)
		return
	}
	d := s.derived(v.now)
	moody := !timeless(v.class.request)
	if moody {
		v.told, v.out = false, nil
	}
	for i := from; i < len(s.log); i++ {
		e := s.log[i]
		if e.kind == modeled {
			v.told, v.out = false, nil
		}
		switch {
		case e.site.noted != i: // it changes once more
		case moody || e.site.gained >= from:
			s.again(v, e.site, from, d)
		default:
			s.less(v, e.site, d)
		}
	}
	soften(v.class.request, v.cands, d)
}

// segment finds the candidates of a site, which are next to each other.
func (v *view) segment(site *site) (first, end int) {
	first, _ = slices.BinarySearchFunc(v.cands, site.order, func(h held, order int) int { return h.order - order })
	for first > 0 && v.cands[first-1].site == site {
		first--
	}
	end = first
	for end < len(v.cands) && v.cands[end].site == site {
		end++
	}
	return first, end
}

// less looks at the candidates of a site of which something was taken.
func (s *Scheduler) less(v *view, site *site, d resourcemodel.Derived) {
	first, end := v.segment(site)
	kept := first
	for i := first; i < end; i++ {
		h := v.cands[i]
		h.Free = s.places.Free(h.order, v.class.request, d)
		if s.room(v.class, site, h.order, h.Free, v.now) == 0 {
			v.fill(h.order, site)
			v.spare = append(v.spare, h.Candidate)
			continue
		}
		s.places.Tell(h.Candidate, h.order, v.class.request, d)
		v.cands[kept] = h
		kept++
	}
	if kept < end {
		v.cands = slices.Delete(v.cands, kept, end)
	}
}

// again looks at one site.
func (s *Scheduler) again(v *view, site *site, from int, d resourcemodel.Derived) {
	if site.Ahead == 0 && site.Most == 0 && site.MostCPUs == 0 && !s.places.Frees(site.key, v.class.request, d) {
		if first, end := v.segment(site); first == end && timeless(v.class.request) && site.modeled < from {
			return // it is among the full already
		}
	}
	s.offers = s.places.At(s.offers[:0], site.key, v.class.request, d)
	if len(s.offers) > 0 {
		site.order = s.offers[0].Order
	}
	v.unfill(site)
	first, end := v.segment(site)
	for i := first; i < end; i++ {
		v.spare = append(v.spare, v.cands[i].Candidate)
	}
	s.kept = s.kept[:0]
	for _, o := range s.offers {
		if s.room(v.class, site, o.Order, o.Free, v.now) == 0 {
			v.fill(o.Order, site)
			continue
		}
		s.kept = append(s.kept, s.hold(v, o, site, d))
	}
	if len(s.kept) == end-first {
		copy(v.cands[first:], s.kept)
		return
	}
	v.cands = slices.Replace(v.cands, first, end, s.kept...)
}

// soften grades candidates by the soft criteria.
func soften(r *resourcemodel.Request, cands []held, d resourcemodel.Derived) {
	if len(r.Soft) == 0 || len(cands) == 0 {
		return
	}
	where := make([]resourcemodel.Where, len(cands))
	for i := range cands {
		where[i] = resourcemodel.Where{Site: cands[i].Site, Share: cands[i].Share, Environment: cands[i].Env}
	}
	for i, x := range r.SoftScore(where, d) {
		cands[i].Soft = x
	}
}

// room gives how many jobs of a class a place of a site takes now that has so many free.
func (s *Scheduler) room(of *class, v *site, order, free int, now time.Time) int {
	if v.closed(now) || len(of.avoid) > 0 && slices.Contains(of.avoid, v.key) || of.only != nil && of.only.bars(v.key, s.places.Place(order).Share) {
		return 0
	}
	n := free
	if n <= 0 {
		n = max(v.Ahead-v.ahead, 0)
	}
	if of.only != nil && of.only.Reserved {
		return min(max(n, 1), v.creditFor(of.request.Need.CPUs))
	}
	if n = min(n, v.creditFor(of.request.Need.CPUs)); n > 0 && v.keep != nil {
		n = min(n, s.unpromised(of, v, order, free > 0, now))
	}
	return n
}

// fullness says why a place has no room.
func (s *Scheduler) fullness(of *class, f *full, now time.Time) *Ruled {
	if f.said != nil {
		return f.said
	}
	v := f.site
	r := Ruled{Place: s.places.Place(f.order)}
	switch {
	case slices.Contains(of.avoid, v.key):
		r.Element, r.Sentence = "Placement", "the job is not to get the site "+v.key.String()+" again"
	case of.only.bars(v.key, r.Place.Share):
		r.Element, r.Sentence = "Promise", "the job is to go to "+of.only.String()+", by its agreement"
	case v.closed(now):
		r.Element, r.Sentence = "Site", v.sentence()
	case v.creditFor(of.request.Need.CPUs) == 0:
		r.Element, r.Sentence = "Site", "the site "+v.key.String()+" "+v.spentFor(of.request.Need.CPUs)
	case s.promisedAt(of, v, f.order, now) != "":
		r.Element, r.Sentence = "Promise", s.promisedAt(of, v, f.order, now)
	default:
		r.Element, r.Sentence = "Room", r.Place.Share+" at "+v.key.String()+" has no room for "+count(max(of.request.Need.CPUs, 1), "CPU")+" now"
	}
	f.said = &r
	return f.said
}

// sentence says that the site is closed.
func (v *site) sentence() string {
	s := "the site " + v.key.String() + " is closed"
	if !v.Reopen.IsZero() {
		s += " until " + v.Reopen.UTC().Format(time.RFC3339)
	}
	if v.Problem != "" {
		s += ": " + v.Problem
	}
	return s
}

// ruled gives why the other places are no candidates, and how many were left out. What
// it gives is not changed afterwards.
func (s *Scheduler) ruled(v *view) ([]Ruled, int) {
	if !v.told {
		v.ruled, v.more = s.places.Ruled(v.class.request, s.derived(v.now), MaxRuled)
		v.told, v.out = true, nil
	}
	if v.out == nil {
		n := min(len(v.full), MaxRuled)
		m := min(len(v.ruled), MaxRuled-n)
		v.out = make([]Ruled, 0, n+m)
		for i := range v.full[:n] {
			v.out = append(v.out, *s.fullness(v.class, &v.full[i], v.now))
		}
		v.out = append(v.out, v.ruled[:m]...)
	}
	return v.out, v.more + len(v.full) + len(v.ruled) - len(v.out)
}

// dropView forgets what a class saw.
func (s *Scheduler) dropView(c *class) {
	if c.view == nil {
		return
	}
	if i := slices.Index(s.views, c.view); i >= 0 {
		s.views = slices.Delete(s.views, i, i+1)
	}
	c.view = nil
}
