package resourcemodel

import (
	"cmp"
	"iter"
	"slices"
)

// PlaceID names a place of an Index in little: a share of a site on one of its
// environments. It holds until the static part of its site changes.
type PlaceID uint32

// Index follows a Snapshot by deltas and answers what a Request asks of all places at
// once: which could ever run it, which one that can start it now is best, whom a change
// could help. It gives what looking at every place would give, and looks at few.
//
// It has a row for each place, in blocks of 64 rows that are alike in what they offer;
// of each block, and of each group of blocks, it knows between which bounds every number
// lies. Rows are columns of 16 bits, exact numbers are kept once for each share and
// environment, and static answers once for each class of places that are alike.
//
// What jobs were given is taken from the places (Take) until they end (Give), over what
// the model says: more may be taken than is free.
//
// An Index has one user at a time, queries included.
type Index struct {
	snap *Snapshot

	sites  []indexedSite
	keys   map[Key]uint32 // of sites
	spare  []uint32       // free entries of sites
	ranked []uint32       // sites in the order of their keys
	users  int            // sites whose policies name users

	places placeTable
	shares liveTable[shareLive]
	envs   liveTable[envLive]

	classes classTable
	grid    grid
	asked   askedTable
	waiting waitingTable
	lost    map[Key]*ledger // taken from shares and environments that are not there now

	search  searcher
	glance  glance
	changed []aspects // scratch
	rows    []uint32
}

// indexedSite is a site with where its parts are in the tables.
type indexedSite struct {
	site   *Site  // the model's; nil: the entry is free
	order  uint64 // grows with the key
	places span
	shares span
	envs   span
	users  bool
	taken  *siteTaken // nil: nothing
}

// span is a part of a table.
type span struct{ first, count uint32 }

// placeTable has the places by their PlaceID.
type placeTable struct {
	list  []place
	spans spans
}

type place struct {
	site, class, row uint32 // class is of the static answers
	share, env       uint16 // numbers in the site
}

// NewIndex makes an Index of a snapshot.
func NewIndex(s *Snapshot) *Index {
	x := new(Index)
	x.Reset(s)
	return x
}

// Snapshot gives the model as it is now.
func (x *Index) Snapshot() *Snapshot { return x.snap }

// Reset begins anew with a snapshot. What was taken is forgotten; the requests that are
// registered stay.
func (x *Index) Reset(s *Snapshot) {
	waiting := x.waiting
	*x = Index{snap: s, keys: make(map[Key]uint32, s.Len()), lost: map[Key]*ledger{}, waiting: waiting}
	x.grid.init()
	x.classes.init()
	x.asked.init()
	for site := range s.Sites() {
		x.enter(site, uint64(len(x.ranked)+1)<<orderGap)
		x.ranked = append(x.ranked, x.keys[site.Key])
	}
	x.arrange()
}

// Apply follows a delta and gives the places that it changed. Errors are those of
// Snapshot.Apply, and nothing is changed then. What was taken stays taken.
func (x *Index) Apply(d Delta) (touched []PlaceID, err error) {
	next, err := x.snap.Apply(d)
	if err != nil {
		return nil, err
	}
	x.snap = next
	for i := range d.Changes {
		k := d.Changes[i].Key
		if site := next.Site(k); site != nil {
			touched = x.put(touched, site)
		} else {
			x.remove(k)
		}
	}
	x.tidy()
	return touched, nil
}

// put makes a site what it is now, and appends the places that changed.
func (x *Index) put(touched []PlaceID, site *Site) []PlaceID {
	i, known := x.keys[site.Key]
	if !known {
		x.enter(site, x.rank(site.Key))
		i = x.keys[site.Key]
		x.insert(i)
		return x.appendPlaces(touched, i)
	}
	s := &x.sites[i]
	was := s.site
	switch {
	case was == site:
		return touched
	case was.Static != site.Static && !was.Static.Same(site.Static):
		order := s.order
		x.leave(i)
		x.enterAt(i, site, order)
		x.insert(i)
		return x.appendPlaces(touched, i)
	}
	s.site = site
	if was.Dynamic == site.Dynamic {
		return touched
	}
	return x.refresh(touched, i, was.Dynamic)
}

// remove forgets a site. That it is not known is no error.
func (x *Index) remove(k Key) {
	i, known := x.keys[k]
	if !known {
		return
	}
	at, _ := slices.BinarySearchFunc(x.ranked, k, func(i uint32, k Key) int { return x.sites[i].site.Key.Compare(k) })
	x.ranked = slices.Delete(x.ranked, at, at+1)
	x.leave(i)
	delete(x.keys, k)
	x.sites[i] = indexedSite{}
	x.spare = append(x.spare, i)
}

// enter gives a site an entry and fills its tables in. Its rows are not in the grid yet.
func (x *Index) enter(site *Site, order uint64) {
	var i uint32
	if n := len(x.spare); n > 0 {
		i, x.spare = x.spare[n-1], x.spare[:n-1]
	} else {
		i = uint32(len(x.sites))
		x.sites = append(x.sites, indexedSite{})
	}
	x.keys[site.Key] = i
	x.enterAt(i, site, order)
}

// orderGap leaves room between the orders of two sites for others that come later.
const orderGap = 16

// rank gives a new site its place among the others, and its order.
func (x *Index) rank(k Key) uint64 {
	at, _ := slices.BinarySearchFunc(x.ranked, k, func(i uint32, k Key) int { return x.sites[i].site.Key.Compare(k) })
	var next uint32
	if n := len(x.spare); n > 0 {
		next = x.spare[n-1]
	} else {
		next = uint32(len(x.sites))
	}
	lo, hi := uint64(0), uint64(0)
	if at > 0 {
		lo = x.sites[x.ranked[at-1]].order
	}
	if at < len(x.ranked) {
		hi = x.sites[x.ranked[at]].order
	} else {
		hi = lo + 2<<orderGap
	}
	x.ranked = slices.Insert(x.ranked, at, next)
	if hi-lo > 1 {
		return lo + (hi-lo)/2
	}
	order := uint64(0)
	for j, i := range x.ranked {
		if j != at {
			x.sites[i].order = uint64(j+1) << orderGap
		} else {
			order = uint64(j+1) << orderGap
		}
	}
	x.grid.reorder = true
	return order
}

// enterAt fills an entry.
func (x *Index) enterAt(i uint32, site *Site, order uint64) {
	s := &x.sites[i]
	*s = indexedSite{site: site, order: order, users: NamesUsers(site)}
	if s.users {
		x.users++
		x.asked.forgetUsers(x.users == 1)
	}
	static := site.Static
	s.shares = x.shares.take(len(static.Shares))
	s.envs = x.envs.take(len(static.Environments))
	n := 0
	for j := range static.Shares {
		n += len(static.Shares[j].Environments)
	}
	s.places = x.takePlaces(n)
	if l := x.lost[site.Key]; l != nil {
		s.taken = l.at(static)
		if l.empty() {
			delete(x.lost, site.Key)
		}
		s.taken.settle(site)
	}
	x.live(i)

	id, digests := s.places.first, x.classes.of(site)
	for j := range static.Shares {
		for _, name := range static.Shares[j].Environments {
			k := environmentAt(static, name)
			if k < 0 {
				s.places.count--
				continue
			}
			x.places.list[id] = place{site: i, share: uint16(j), env: uint16(k), class: x.classes.enter(digests.place(j, k, x.nodes(s, k)))}
			id++
		}
	}
	if missing := uint32(n) - s.places.count; missing > 0 { // names an environment that is not there
		x.places.spans.give(span{s.places.first + s.places.count, missing})
	}
}

func environmentAt(s *Static, id string) int {
	return slices.IndexFunc(s.Environments, func(e Environment) bool { return e.ID == id })
}

// leave empties an entry. What was taken is kept for when the parts come back.
func (x *Index) leave(i uint32) {
	s := &x.sites[i]
	for id := s.places.first; id < s.places.first+s.places.count; id++ {
		x.grid.remove(x, x.places.list[id].row)
		x.classes.leave(x.places.list[id].class)
	}
	x.places.spans.give(s.places)
	x.shares.spans.give(s.shares)
	x.envs.spans.give(s.envs)
	if s.users {
		x.users--
		x.asked.forgetUsers(x.users == 0)
	}
	if s.taken != nil && !s.taken.empty() {
		x.lost[s.site.Key] = s.taken.names(s.site.Static, x.lost[s.site.Key])
	}
}

func (x *Index) takePlaces(n int) span {
	at, grown := x.places.spans.take(n)
	if grown {
		x.places.list = slices.Grow(x.places.list, n)[:len(x.places.list)+n]
	}
	return at
}

// insert puts the rows of a site into the grid.
func (x *Index) insert(i uint32) {
	s := &x.sites[i]
	for id := s.places.first; id < s.places.first+s.places.count; id++ {
		x.grid.insert(x, PlaceID(id))
	}
}

func (x *Index) appendPlaces(into []PlaceID, i uint32) []PlaceID {
	s := &x.sites[i]
	for id := s.places.first; id < s.places.first+s.places.count; id++ {
		into = append(into, PlaceID(id))
	}
	return into
}

// tidy arranges the rows anew when many came and went since that was done.
func (x *Index) tidy() {
	if g := &x.grid; g.loose > g.rows()/4+1024 {
		x.arrange()
	} else if g.reorder {
		g.reorder = false
		g.zoneOrders(x)
	}
}

// Arrange puts rows together anew that are alike in what requests asked of them lately.
// It is done by itself when many places came and went; after a change of what is asked
// for, it makes queries faster. It takes some microseconds a place: for a million places, seconds.
func (x *Index) Arrange() { x.arrange() }

// Len gives the number of places.
func (x *Index) Len() int { return x.grid.rows() - x.grid.holes }

// Classes gives the number of classes of places that are alike in everything static but
// their names.
func (x *Index) Classes() int { return len(x.classes.ids) }

// Place names a place.
func (x *Index) Place(id PlaceID) Place {
	p := &x.places.list[id]
	s := x.sites[p.site].site
	return Place{Key: s.Key, Share: s.Static.Shares[p.share].ID, Environment: s.Static.Environments[p.env].ID}
}

// Find gives the place of a name; false if there is none.
func (x *Index) Find(p Place) (PlaceID, bool) {
	i, ok := x.keys[p.Key]
	if !ok {
		return 0, false
	}
	s := &x.sites[i]
	for id := s.places.first; id < s.places.first+s.places.count; id++ {
		if at := &x.places.list[id]; s.site.Static.Shares[at.share].ID == p.Share && s.site.Static.Environments[at.env].ID == p.Environment {
			return PlaceID(id), true
		}
	}
	return 0, false
}

// Of appends the places of a site.
func (x *Index) Of(into []PlaceID, k Key) []PlaceID {
	if i, ok := x.keys[k]; ok {
		into = x.appendPlaces(into, i)
	}
	return into
}

// All gives all places in their order, which is that of Snapshot.Places and the
// tie-break of Best.
func (x *Index) All() iter.Seq[PlaceID] {
	return func(yield func(PlaceID) bool) {
		for _, i := range x.ranked {
			s := &x.sites[i]
			for id := s.places.first; id < s.places.first+s.places.count; id++ {
				if !yield(PlaceID(id)) {
					return
				}
			}
		}
	}
}

// Compare orders two places as All does.
func (x *Index) Compare(a, b PlaceID) int { return cmp.Compare(x.order(a), x.order(b)) }

// placeBits are as many as number the places of a site.
const placeBits = 14 // MaxPlaces

// order gives a number that grows along All.
func (x *Index) order(id PlaceID) uint64 {
	s := &x.sites[x.places.list[id].site]
	return s.order<<placeBits | uint64(uint32(id)-s.places.first)
}

// spans divides a table among sites. A part that is given back is used again for one of
// the same size.
type spans struct {
	end  uint32
	free map[uint32][]uint32
}

func (a *spans) take(n int) (at span, grown bool) {
	c := uint32(n)
	if list := a.free[c]; len(list) > 0 && n > 0 {
		at = span{list[len(list)-1], c}
		a.free[c] = list[:len(list)-1]
		return at, false
	}
	at = span{a.end, c}
	a.end += c
	return at, true
}

func (a *spans) give(s span) {
	if s.count == 0 {
		return
	}
	if a.free == nil {
		a.free = map[uint32][]uint32{}
	}
	a.free[s.count] = append(a.free[s.count], s.first)
}
