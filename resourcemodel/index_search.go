package resourcemodel

import (
	"math"
	"math/bits"
	"slices"
)

// Winner is a place with its mark.
type Winner struct {
	Place PlaceID
	Mark
}

// searcher has what one search after the other uses.
type searcher struct {
	marker marker
	heap   []node
	known  []bounds
	zone   []bounds
	looked Looked
	finder finder
}

// Looked counts what the last query looked at.
type Looked struct {
	Groups, Blocks int // whose bounds were compared
	Opened         int // blocks whose rows were gone through
	Rows           int // whose exact numbers were
	Places         int // that were judged
}

// Looked tells what the last query looked at.
func (x *Index) Looked() Looked { return x.search.looked }

// node is a block or a group that may have better places than were found.
type node struct {
	Mark
	order uint64
	todo  todo
	level int32
	part  uint32
}

// before reports whether a node comes first.
func (n *node) before(o *node) bool {
	if c := n.compare(&o.Mark); c != 0 {
		return c > 0
	}
	return n.order < o.order
}

// finder is one search.
type finder struct {
	x       *Index
	asked   *asked
	request *Request
	derived Derived
	skip    func(PlaceID) bool
	best    []found // the best first
	most    int
	p       at
}

type found struct {
	Mark
	place PlaceID
	order uint64
}

// beats reports whether something of this mark and order comes before the last that is
// kept.
func (f *finder) beats(m *Mark, order uint64) bool {
	if len(f.best) < f.most {
		return true
	}
	last := &f.best[len(f.best)-1]
	if c := m.compare(&last.Mark); c != 0 {
		return c > 0
	}
	return order < last.order
}

// Best gives the place that can start the request now and is the best by the
// objective, which may be nil; false if no place can. It is the one that a look at every
// place would find. Where skip is not nil, places of which it is true take no part.
func (x *Index) Best(r *Request, o *Objective, d Derived, skip func(PlaceID) bool) (Winner, bool) {
	var one [1]Winner
	best := x.Top(one[:0], r, o, d, 1, skip)
	if len(best) == 0 {
		return Winner{}, false
	}
	return best[0], true
}

// Top appends the best places, the best first, at most so many: see Best.
func (x *Index) Top(into []Winner, r *Request, o *Objective, d Derived, most int, skip func(PlaceID) bool) []Winner {
	f, ok := x.find(r, o, d, skip)
	if !ok || most <= 0 {
		return into
	}
	m := &x.search.marker
	m.reset(x, r, o)
	for i := range m.soft {
		if s := &m.soft[i]; s.graded {
			s.scale = x.scale(f, s.criterion)
		}
	}
	m.extra = nil
	f.most = most
	f.run()
	for _, b := range f.best {
		into = append(into, Winner{b.place, b.Mark})
	}
	return into
}

// find prepares searches for a request; false is that it can start nowhere.
func (x *Index) find(r *Request, o *Objective, d Derived, skip func(PlaceID) bool) (*finder, bool) {
	x.search.looked = Looked{}
	if x.grid.rows() == 0 {
		return nil, false
	}
	x.wish(r, o)
	a := x.of(r)
	a.ready(x)
	f := &x.search.finder
	f.x, f.asked, f.request, f.derived, f.skip, f.best = x, a, r, d, skip, f.best[:0]
	f.p.request, f.p.derived = r, &f.derived
	if r.notYet(d.Now) || !met(a.once, &f.p) {
		return nil, false
	}
	for i := range a.plan.conds {
		a.plan.conds[i].column.asked++
	}
	return f, true
}

// scale gives the range of a criterion's number over the places that can start.
func (x *Index) scale(f *finder, c *criterion) Range {
	out := Scale(nil)
	m := &x.search.marker
	for _, more := range []bool{false, true} {
		m.extra = &extreme{attribute: c.attribute, argument: c.argument, more: more, column: -1}
		if column := x.grid.column(c.attribute, c.argument); column != nil {
			m.extra.column = slices.Index(m.columns, column)
		}
		f.most, f.best = 1, f.best[:0]
		f.run()
		if len(f.best) == 0 {
			return Scale(nil)
		}
		out.any = true
		if more {
			out.hi = f.best[0].Sum
		} else {
			out.lo = -f.best[0].Sum
		}
	}
	f.best = f.best[:0]
	return out
}

// run finds the best by looking at groups in the order of what their places can be at
// best, until no group can have a better one.
func (f *finder) run() {
	g, s := &f.x.grid, &f.x.search
	s.heap = s.heap[:0]
	f.open(g.levels()-1, 0, f.asked.plan.everything(g, len(f.asked.plan.conds)))
	for len(s.heap) > 0 {
		n := f.pop()
		if !f.beats(&n.Mark, n.order) {
			return
		}
		if n.level == 0 {
			f.block(n.part, n.todo)
		} else {
			f.open(int(n.level)-1, n.part, n.todo)
		}
	}
}

// open puts those parts of a group on the heap that may have better places.
func (f *finder) open(level int, group uint32, t todo) {
	g, s := &f.x.grid, &f.x.search
	if level == 0 {
		s.looked.Blocks += fan
	} else {
		s.looked.Groups += fan
	}
	may := uint64(0)
	for i, a := range g.accepts[level][group<<fanBits : min((group+1)<<fanBits, uint32(len(g.accepts[level])))] {
		if a {
			may |= 1 << i
		}
	}
	var left [fan]todo
	for may = f.asked.plan.passes(g, may, level, group, t, &left); may != 0; may &= may - 1 {
		j := uint32(bits.TrailingZeros64(may))
		part := group<<fanBits | j
		n := node{order: g.orders[level][part], level: int32(level), part: part, todo: left[j]}
		n.Mark = s.marker.bound(f.bounds(level, part))
		if f.beats(&n.Mark, n.order) {
			f.push(n)
		}
	}
}

// bounds gives those of a part for the marker.
func (f *finder) bounds(level int, part uint32) []bounds {
	s := &f.x.search
	s.known = s.known[:0]
	z := &f.x.grid.zones[level]
	for _, c := range s.marker.columns {
		s.known = append(s.known, bounds{z.of(part, c), z.unsure(part, c)})
	}
	return s.known
}

// A todo has a bit for each condition of a plan that is not met by all of a part.
type todo uint64

// everything has all conditions that are not met by all rows anyhow.
func (p *plan) everything(g *grid, conds int) todo {
	t := todo(1)<<len(p.words) - 1
	top := g.levels() - 1
	for i := range conds {
		c := &p.conds[i]
		_, open := c.parts(&g.zones[top], 0)
		if open != 0 {
			t |= 1 << (len(p.words) + i)
		}
	}
	return t
}

// parts compares a group, and gives those parts that may have rows which meet the
// condition, and of these those that may have others too.
func (c *cond) parts(z *zones, group uint32) (may, open uint64) {
	lanes := z.group(group, c.column)
	for i := range groupWords / 2 {
		least, most := lanes[i], lanes[i+groupWords/2]
		unknown := least & laneTops
		least &^= laneTops
		some := noLess(most, c.from) & noLess(c.to, least)
		all := noLess(least, c.from) & noLess(c.to, most)
		if c.unknown {
			some |= unknown
		} else {
			all &^= unknown
		}
		may |= gather(some) << (i * laneCount)
		open |= gather(some&^all) << (i * laneCount)
	}
	return may, open
}

// passes leaves those parts of a group that may have rows which meet what is to do, and
// gives for each what is left to do.
func (p *plan) passes(g *grid, may uint64, level int, group uint32, t todo, left *[fan]todo) uint64 {
	for i := range left {
		left[i] = 0
	}
	for i := range p.words {
		c := &p.words[i]
		words := c.column.zones[level]
		for m := may; m != 0; m &= m - 1 {
			j := bits.TrailingZeros64(m)
			w := words[group<<fanBits|uint32(j)]
			if w&c.bits == 0 {
				may &^= 1 << j
			}
			left[j] |= 1 << i
		}
	}
	for rest := t >> len(p.words); rest != 0 && may != 0; rest &= rest - 1 {
		i := bits.TrailingZeros64(uint64(rest))
		c := &p.conds[i]
		some, open := c.parts(&g.zones[level], group)
		may &= some
		for ; open != 0; open &= open - 1 {
			left[bits.TrailingZeros64(open)] |= 1 << (len(p.words) + i)
		}
	}
	return may
}

// rows leaves those rows of a block that meet what is to do as far as codes tell.
func (p *plan) rows(g *grid, m uint64, b uint32, t todo) uint64 {
	for rest := t >> len(p.words); rest != 0 && m != 0; rest &= rest - 1 {
		m &= p.conds[bits.TrailingZeros64(uint64(rest))].rows(g, b)
	}
	for i := range p.words {
		if t&(1<<i) == 0 {
			continue
		}
		c := &p.words[i]
		codes := c.column.codes[b<<blockBits:][:blockRows]
		for left := m; left != 0; left &= left - 1 {
			j := bits.TrailingZeros64(left)
			if !slices.Contains(c.numbers, codes[j]) {
				m &^= 1 << j
			}
		}
	}
	return m
}

// rows gives the rows of a block whose numbers may be so.
func (c *cond) rows(g *grid, b uint32) uint64 {
	pass := uint64(0)
	for i, w := range g.codesOf(b, c.column) {
		tops := noLess(w, c.from) & noLess(c.to, w)
		if c.unknown {
			tops |= zeroLanes(w)
		}
		pass |= gather(tops) << (i * laneCount)
	}
	if c.except != never {
		pass |= g.masks[b].excepted[c.except]
	}
	return pass
}

// block looks at the rows of a block.
func (f *finder) block(b uint32, t todo) {
	x := f.x
	g, s, a := &x.grid, &x.search, f.asked
	s.looked.Opened++
	m := a.plan.rows(g, g.masks[b].used&g.masks[b].startup, b, t)
	if c := f.reach(); m != 0 && c.column != nil {
		m &= c.rows(g, b)
	}
	if m == 0 {
		return
	}
	s.zone = append(s.zone[:0], f.bounds(0, b)...)
	zone := s.zone
	for ; m != 0; m &= m - 1 {
		row := b<<blockBits | uint32(bits.TrailingZeros64(m))
		s.known = s.known[:0]
		for i, c := range s.marker.columns {
			k := g.code(row, c)
			if k == codeUnknown {
				s.known = append(s.known, bounds{nowhere, true})
				continue
			}
			lo, hi := between(k)
			s.known = append(s.known, bounds{interval{max(lo, zone[i].least), min(hi, zone[i].most)}, false})
		}
		id := g.ids[row]
		bound := s.marker.bound(s.known)
		if !f.beats(&bound, 0) {
			continue
		}
		order := x.order(id)
		if !f.beats(&bound, order) {
			continue
		}
		s.looked.Rows++
		x.load(id, &f.p)
		mark, ok := s.marker.mark(&f.p)
		if !ok || !f.beats(&mark, order) || f.skip != nil && f.skip(id) {
			continue
		}
		s.looked.Places++
		if !a.fit(&f.p, x.places.list[id].class) || !met(f.request.clauses[f.request.static:], &f.p) {
			continue
		}
		f.keep(found{mark, id, order})
	}
}

// reach gives what the number that decides must be for a place to come before the last that
// is kept, where one number decides; else no column.
func (f *finder) reach() cond {
	m := &f.x.search.marker
	if len(f.best) < f.most || m.extra != nil || len(m.terms[0]) != 1 || m.terms[0][0].column < 0 || m.terms[0][0].Weight == 0 {
		return cond{}
	}
	last := &f.best[len(f.best)-1]
	if len(m.soft) > 0 && last.Soft < m.step(1) {
		return cond{} // the soft criteria decide
	}
	t := &m.terms[0][0]
	v := last.Sum / t.Weight
	slack := 1e-9 * math.Abs(v) // for the rounding
	c := cond{column: m.columns[t.column], unknown: true, from: spread(codeNothing), to: spread(codeMost)}
	if t.Weight > 0 {
		c.from = spread(codeOf(v - slack))
	} else {
		c.to = spread(codeOf(v + slack))
	}
	return c
}

// keep puts a place where it belongs among the best.
func (f *finder) keep(one found) {
	if len(f.best) < f.most {
		f.best = append(f.best, one)
	}
	i := len(f.best) - 1
	for ; i > 0; i-- {
		last := &f.best[i-1]
		if c := one.compare(&last.Mark); c < 0 || c == 0 && one.order > last.order {
			break
		}
		f.best[i] = *last
	}
	f.best[i] = one
}

func (f *finder) push(n node) {
	h := append(f.x.search.heap, n)
	i := len(h) - 1
	for i > 0 {
		up := (i - 1) / 2
		if !n.before(&h[up]) {
			break
		}
		h[i] = h[up]
		i = up
	}
	h[i] = n
	f.x.search.heap = h
}

func (f *finder) pop() node {
	h := f.x.search.heap
	top, n := h[0], h[len(h)-1]
	h = h[:len(h)-1]
	f.x.search.heap = h
	if len(h) == 0 {
		return top
	}
	i := 0
	for {
		down := 2*i + 1
		if down >= len(h) {
			break
		}
		if down+1 < len(h) && h[down+1].before(&h[down]) {
			down++
		}
		if !h[down].before(&n) {
			break
		}
		h[i] = h[down]
		i = down
	}
	h[i] = n
	return top
}

// Candidates appends every place that could ever run the request, in the order of All.
func (x *Index) Candidates(into []PlaceID, r *Request, d Derived) []PlaceID {
	begin := len(into)
	x.search.looked = Looked{}
	if x.grid.rows() == 0 {
		return into
	}
	x.wish(r, nil)
	a := x.of(r)
	a.ready(x)
	var p at
	p.request, p.derived = r, &d
	if !met(a.once, &p) {
		return into
	}
	g := &x.grid
	var walk func(level int, group uint32, t todo)
	walk = func(level int, group uint32, t todo) {
		parts := min(fan, uint32(len(g.orders[level]))-group<<fanBits)
		var left [fan]todo
		for may := a.plan.passes(g, 1<<parts-1, level, group, t, &left); may != 0; may &= may - 1 {
			j := uint32(bits.TrailingZeros64(may))
			part := group<<fanBits | j
			if level > 0 {
				walk(level-1, part, left[j])
				continue
			}
			x.search.looked.Blocks++
			for m := a.plan.rows(g, g.masks[part].used, part, left[j]); m != 0; m &= m - 1 {
				id := g.ids[part<<blockBits|uint32(bits.TrailingZeros64(m))]
				x.search.looked.Rows++
				x.load(id, &p)
				if a.fit(&p, x.places.list[id].class) {
					into = append(into, id)
				}
			}
		}
	}
	walk(g.levels()-1, 0, a.plan.everything(g, a.plan.static))
	slices.SortFunc(into[begin:], x.Compare)
	return into
}

// starts is Starts, of what is known of the request.
func (x *Index) starts(id PlaceID, a *asked, r *Request, p *at) bool {
	if !met(a.once, p) {
		return false
	}
	x.load(id, p)
	return a.fit(p, x.places.list[id].class) && met(r.clauses[r.static:], p)
}

// wish notes which attributes with an argument are asked about.
func (x *Index) wish(r *Request, o *Objective) {
	for _, list := range [][]criterion{r.hard, r.soft} {
		for i := range list {
			x.grid.want(list[i].attribute, list[i].argument)
		}
	}
	if o != nil {
		for _, list := range o.terms {
			for i := range list {
				x.grid.want(list[i].attribute, list[i].argument)
			}
		}
	}
}
