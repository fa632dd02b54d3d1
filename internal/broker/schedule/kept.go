package schedule

import (
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/resourcemodel"
)

// keep is what a site has of promised room. Sites without holds have none, so that nothing is
// looked at there that was not before.
type keep struct {
	holds []*Hold           // in the order of their beginnings
	under map[string]*given // that the site has
	kept  map[string]*Kept  // by share, at a moment; emptied by every change at the site
	at    time.Time
	turns time.Time // when the next window begins or is over; zero: none does
}

// SetHolds tells which room is promised to whom, in place of all that was told before. Jobs of others
// that have it already keep it.
func (s *Scheduler) SetHolds(holds []Hold) {
	by := map[string][]Hold{}
	for _, h := range holds {
		by[h.Agreement] = append(by[h.Agreement], h)
	}
	if maps.EqualFunc(by, s.holds, slices.Equal) {
		return
	}
	if s.recorder != nil {
		s.recorder.write(&event{Holds: &holdsEvent{holds}})
	}
	fresh := false
	for _, id := range slices.Sorted(maps.Keys(s.holds)) {
		if by[id] == nil {
			s.replaceHolds(id, nil)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(by)) {
		fresh = s.replaceHolds(id, by[id]) || fresh
	}
	s.settleHolds(fresh)
}

// ChangeHolds is SetHolds for what one agreement promises, of which all holds say that they are; what
// others do stays.
func (s *Scheduler) ChangeHolds(agreement string, holds []Hold) {
	if slices.Equal(holds, s.holds[agreement]) {
		return
	}
	holds = slices.Clone(holds)
	if s.recorder != nil {
		s.recorder.write(&event{Held: &heldEvent{agreement, holds}})
	}
	s.settleHolds(s.replaceHolds(agreement, holds))
}

// replaceHolds puts what an agreement promises in place of what it did; fresh says that there is a site
// of which nothing was promised before.
func (s *Scheduler) replaceHolds(agreement string, holds []Hold) (fresh bool) {
	if slices.Equal(holds, s.holds[agreement]) {
		return false
	}
	old := s.holds[agreement]
	if s.holds[agreement] = holds; len(holds) == 0 {
		delete(s.holds, agreement)
	}
	for i := range holds {
		h := &holds[i]
		v := s.site(h.Key)
		if v.keep == nil {
			v.keep, fresh = &keep{under: map[string]*given{}, kept: map[string]*Kept{}}, true
			at, _ := slices.BinarySearchFunc(s.keeping, v, func(a, b *site) int { return a.key.Compare(b.key) })
			s.keeping = slices.Insert(s.keeping, at, v)
		}
		at, _ := slices.BinarySearchFunc(v.keep.holds, h, (*Hold).before)
		v.keep.holds = slices.Insert(v.keep.holds, at, h)
		v.keep.turns = time.Time{}
		s.touch(h.Key, modeled)
	}
	for i := range old {
		h := &old[i]
		v := s.site(h.Key)
		at, _ := slices.BinarySearchFunc(v.keep.holds, h, (*Hold).before)
		for v.keep.holds[at] != h { // another may have its name and its time
			at++
		}
		v.keep.holds = slices.Delete(v.keep.holds, at, at+1)
		v.keep.turns = time.Time{}
		if len(v.keep.holds) == 0 {
			v.keep = nil
			s.keeping = slices.DeleteFunc(s.keeping, func(o *site) bool { return o == v })
		}
		s.touch(h.Key, modeled)
	}
	return fresh
}

// settleHolds counts which jobs have room of the sites that have holds, where some did not before.
func (s *Scheduler) settleHolds(fresh bool) {
	if !fresh {
		return
	}
	for id, g := range s.given {
		if v := s.sites[g.place.Key]; v != nil && v.keep != nil {
			v.keep.under[id] = g
		}
	}
}

// held counts what is promised.
func (s *Scheduler) held() int {
	n := 0
	for _, v := range s.keeping {
		n += len(v.keep.holds)
	}
	return n
}

// HoldsOf gives what one agreement promises, not to be changed.
func (s *Scheduler) HoldsOf(agreement string) []Hold { return s.holds[agreement] }

// Holds gives what is promised.
func (s *Scheduler) Holds() []Hold {
	var all []Hold
	for _, id := range slices.Sorted(maps.Keys(s.holds)) {
		all = append(all, s.holds[id]...)
	}
	return all
}

// Began says when a job that has a place began to run there: until when it has that, by what it
// declared, follows from it.
func (s *Scheduler) Began(id string, at time.Time) {
	g := s.given[id]
	if g == nil || g.began.Equal(at) {
		return
	}
	if s.recorder != nil {
		s.recorder.write(&event{Began: &beganEvent{id, at}})
	}
	g.began = at
	if v := s.site(g.place.Key); v.keep != nil {
		s.note(v, gained)
	}
}

// turn brings what is kept up to a moment: a window that begins or is over changes what the site
// has for others, and every moment brings the next window nearer.
func (s *Scheduler) turn(now time.Time) {
	for _, v := range s.keeping {
		k := v.keep
		if k.at.Equal(now) && !k.turns.IsZero() && k.turns.After(now) {
			continue
		}
		if !k.turns.IsZero() && !k.turns.After(now) {
			s.touch(v.key, modeled)
		} else {
			s.note(v, gained)
		}
		k.turns = time.Time{}
		sooner := func(t time.Time) {
			if t.After(now) && (k.turns.IsZero() || t.Before(k.turns)) {
				k.turns = t
			}
		}
		for _, h := range k.holds {
			if sooner(h.From); h.From.After(now) {
				break // those that begin later end later than this begins
			}
			sooner(h.Until)
		}
	}
}

// unpromised gives how many jobs of a class a place of a site takes without having what is
// promised to others, whether they start at once or queue there.
func (s *Scheduler) unpromised(of *class, v *site, order int, starts bool, now time.Time) int {
	p := s.places.Place(order)
	k := s.keptOf(v, p.Share, now)
	if !k.any() {
		return math.MaxInt
	}
	need, length := s.wants(of, p)
	length = k.within(of.room, length)
	if starts {
		return k.Room(need, length, of.starting(now))
	}
	return k.Queue(need, of.mine)
}

// mine reports whether a hold is for the jobs of the class.
func (c *class) mine(h *Hold) bool { return h.mine(c.room, c.request.Subject.VO) }

// starting is mine for a job that would start now: what the domain which bought its room has bought for later
// does not stand against one that may run until then.
func (c *class) starting(now time.Time) func(*Hold) bool {
	if !strings.HasPrefix(c.room, boughtRoom) {
		return c.mine
	}
	return func(h *Hold) bool {
		_, sold := h.sold(c.room)
		return c.mine(h) || sold && h.From.After(now)
	}
}

// wants gives what a job of a class takes of a share, and for how long: what it declares, else the
// share's limit, else 0.
func (s *Scheduler) wants(of *class, p resourcemodel.Place) (Amount, time.Duration) {
	n := &of.request.Need
	length := n.WallTime
	if length <= 0 {
		length = s.longest(p)
	}
	return Amount{max(n.Slots, 1), max(n.CPUs, 1)}, length
}

// longest gives the longest time that the share of a place lets a job run; 0 is no limit.
func (s *Scheduler) longest(p resourcemodel.Place) time.Duration {
	if site := s.places.Snapshot().Site(p.Key); site != nil {
		if h := site.Static.Share(p.Share); h != nil {
			return h.MaxWallTime
		}
	}
	return 0
}

// keptOf gives what the holds leave of a share.
func (s *Scheduler) keptOf(v *site, share string, now time.Time) *Kept {
	if !v.keep.at.Equal(now) {
		clear(v.keep.kept)
		v.keep.at = now
	}
	k := v.keep.kept[share]
	if k == nil {
		st, holds := s.stands(v.key, share, v.keep.holds, maps.Values(v.keep.under), now)
		k = Keep(st, holds, now)
		v.keep.kept[share] = k
	}
	return k
}

// stands gives how a share of a site stands, and what of the holds there concerns it: shares that
// use the same nodes have their CPUs together.
func (s *Scheduler) stands(key resourcemodel.Key, share string, holds []*Hold, under func(func(*given) bool), now time.Time) (Standing, []*Hold) {
	site := s.places.Snapshot().Site(key)
	if site == nil || site.Static == nil || site.Dynamic == nil {
		return Standing{}, nil
	}
	h := site.Static.Share(share)
	if h == nil {
		return Standing{}, nil
	}
	st := Standing{Has: Amount{Slots: h.Slots}, Free: Amount{Slots: site.Dynamic.Shares[share].FreeSlots}}
	for _, id := range h.Environments {
		e, n := site.Static.Environment(id), site.Dynamic.Environments[id]
		if e != nil {
			st.Has.CPUs += e.CPUs * n.Available
			st.Free.CPUs += n.FreeCPUs
		}
	}
	ours := Amount{}
	for g := range under {
		if g.far != nil {
			continue
		}
		b := Busy{Amount: amountOf(g.job), Until: s.until(g, now), Room: roomOf(g.job), VO: g.job.VO}
		if g.place.Share != share {
			b.Slots = 0
		}
		if !slices.Contains(h.Environments, g.place.Environment) {
			b.CPUs = 0
		}
		if b.Amount == (Amount{}) {
			continue
		}
		if g.unsettled {
			st.Free = st.Free.plus(b.Amount, -1)
		}
		ours = ours.plus(b.Amount, 1)
		st.Busy = append(st.Busy, b)
	}
	// A measurement may be ahead of what we heard of our own jobs, and show more for a moment.
	left := st.Has.plus(ours, -1)
	st.Free = Amount{min(st.Free.Slots, left.Slots), min(st.Free.CPUs, left.CPUs)}
	return st, HoldsOn(site, share, holds)
}

// until gives when a job has left its place, by what it declared; zero is that nobody knows. One
// that queues there begins whenever the manager wants, and one that ran longer than it said
// ends whenever it does.
func (s *Scheduler) until(g *given, now time.Time) time.Time {
	length := g.job.Length
	if length <= 0 {
		length = s.longest(g.place)
	}
	switch {
	case length <= 0 || g.ahead:
		return time.Time{}
	case g.unsettled || g.began.IsZero():
		return now.Add(length)
	}
	if end := g.began.Add(length); end.After(now) {
		return end
	}
	return time.Time{}
}

// promisedAt says in a sentence that a place which has room has it promised to others; "" where that
// is not what stands against a class.
func (s *Scheduler) promisedAt(of *class, v *site, order int, now time.Time) string {
	if v.keep == nil || s.places.Free(order, of.request, s.derived(now)) <= 0 {
		return ""
	}
	return s.promisedTo(of, v, s.places.Place(order).Share, now)
}

// promisedTo is promisedAt of a share that has room.
func (s *Scheduler) promisedTo(of *class, v *site, share string, now time.Time) string {
	if v.keep == nil {
		return ""
	}
	p := resourcemodel.Place{Key: v.key, Share: share}
	need, length := s.wants(of, p)
	k := s.keptOf(v, share, now)
	return k.why(v.key.String()+"/"+share, need, k.within(of.room, length), of.starting(now))
}

// allPromised is about a job that has no room as that is promised to others, at every place which has
// some; false where other things stand against it.
func (s *Scheduler) allPromised(out *Waiting, of *class, cands []policy.Candidate, now time.Time) bool {
	var why []string
	for i := range cands {
		c := &cands[i]
		v := s.site(c.Place.Key)
		if v.keep == nil || c.Free <= 0 || v.closed(now) || v.creditFor(of.request.Need.CPUs) == 0 ||
			slices.Contains(of.avoid, v.key) || of.only.bars(v.key, c.Place.Share) {
			continue
		}
		said := s.promisedTo(of, v, c.Place.Share, now)
		if said == "" || slices.Contains(why, said) {
			continue
		}
		if len(why) < maxBounded {
			why = append(why, said)
		}
		if out.Next == nil {
			out.Next = &c.Place
		}
		if t := v.keep.turns; t.After(now) && (out.Until.IsZero() || t.Before(out.Until)) {
			out.Until = t
		}
	}
	if len(why) == 0 {
		return false
	}
	out.Sentence = "it waits, as room is promised to others: " + strings.Join(why, "; ")
	return true
}

// Look gives what Outlook needs to know of a share: how it stands, what queues there and what is
// promised before a moment (zero: at any time); false where the share is not known. Jobs that wait for a place are not
// among those that queue: what is promised goes before them.
func (s *Scheduler) Look(key resourcemodel.Key, share string, before, now time.Time) (Look, bool) {
	site := s.places.Snapshot().Site(key)
	if site == nil || site.Static.Share(share) == nil || site.Dynamic == nil {
		return Look{}, false
	}
	var holds []*Hold
	all := s.given
	if v := s.sites[key]; v != nil && v.keep != nil {
		holds, all = v.keep.holds, v.keep.under
	}
	if !before.IsZero() {
		n, _ := slices.BinarySearchFunc(holds, before, func(h *Hold, t time.Time) int { return h.From.Compare(t) })
		holds = holds[:n]
	}
	var there []*given
	for _, g := range all {
		if g.place.Key == key {
			there = append(there, g)
		}
	}
	slices.SortFunc(there, func(a, b *given) int { return strings.Compare(a.job.ID, b.job.ID) })
	l := Look{now: now}
	l.st, l.holds = s.stands(key, share, holds, func(yield func(*given) bool) {
		for _, g := range there {
			if g.ahead {
				continue
			}
			if !yield(g) {
				return
			}
		}
	}, now)
	for _, g := range there {
		if g.ahead && g.place.Share == share {
			length := g.job.Length
			if length <= 0 {
				length = s.longest(g.place)
			}
			l.queue = append(l.queue, Planned{Amount: amountOf(g.job), Length: length, Room: roomOf(g.job), VO: g.job.VO})
		}
	}
	return l, true
}

// Look is a share at a moment.
type Look struct {
	st    Standing
	queue []Planned
	holds []*Hold
	now   time.Time
}

// Outlook tells when a job with so many CPUs and of such a length (0 is for ever) could start there
// at the earliest; one of a VO may have the room that the VO bought.
func (l *Look) Outlook(cpus int, length time.Duration, vo string) Outlook {
	return Earliest(l.st, l.queue, l.holds, Amount{1, max(cpus, 1)}, length, func(h *Hold) bool { return h.mine("", vo) }, l.now)
}

// Now says whether a job, as Outlook has it, could start at once; what is promised from its end on makes no
// difference to that. Where jobs queue, only Outlook knows.
func (l *Look) Now(cpus int, length time.Duration, vo string) bool {
	mine := func(h *Hold) bool { return h.mine("", vo) }
	return len(l.queue) == 0 && Keep(l.st, l.holds, l.now).Room(Amount{1, max(cpus, 1)}, length, mine) > 0
}
