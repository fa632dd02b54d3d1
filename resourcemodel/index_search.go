package resourcemodel

import (
	"math"
	"math/bits"
	"slices"
	"strings"
)

// Winner is a place with its mark.
type Winner struct {
	Place PlaceID
	Mark
}

// searcher has what one search after the other uses.
type searcher struct {
	marker marker
	plan   []cond
	heap   []node
	known  []bounds
	looked Looked
}

// Looked counts what the last query looked at.
type Looked struct {
	Groups, Blocks int // whose bounds were compared
	Rows           int // whose exact numbers were
	Places         int // that were judged
}

// Looked tells what the last query looked at.
func (x *Index) Looked() Looked { return x.search.looked }

// node is a block or a group that may have better places than were found.
type node struct {
	Mark
	order uint64
	level int
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
	derived *Derived
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
	x.columnsFor(r, o)
	a := x.of(r)
	a.ready(x)
	f := &finder{x: x, asked: a, request: r, derived: &d, skip: skip}
	f.p.request, f.p.derived = r, &d
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
	top := g.levels() - 1
	f.open(top, 0, uint32(len(g.orders[top])))
	for len(s.heap) > 0 {
		n := f.pop()
		if !f.beats(&n.Mark, n.order) {
			return
		}
		if n.level == 0 {
			f.block(n.part)
			continue
		}
		from := n.part << fanBits
		f.open(n.level-1, from, min(from+fan, uint32(len(g.orders[n.level-1]))))
	}
}

// open puts those parts of a level on the heap that may have better places.
func (f *finder) open(level int, from, to uint32) {
	g, s := &f.x.grid, &f.x.search
	if level == 0 {
		s.looked.Blocks += int(to - from)
	} else {
		s.looked.Groups += int(to - from)
	}
	may := uint32(1)<<(to-from) - 1
	may &= f.passes(level, from, to)
	for ; may != 0; may &= may - 1 {
		part := from + uint32(bits.TrailingZeros32(may))
		n := node{order: g.orders[level][part], level: level, part: part}
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
	for _, c := range s.marker.columns {
		z := &c.zones[level]
		s.known = append(s.known, bounds{z.least[part], z.most[part], z.unknown[part]})
	}
	return s.known
}

// passes gives which parts may have a place that can start the request.
func (f *finder) passes(level int, from, to uint32) uint32 {
	var may uint32
	for i, a := range f.x.grid.accepts[level][from:to] {
		if a {
			may |= 1 << i
		}
	}
	return f.asked.plan.passes(may, level, from, to, len(f.asked.plan.conds))
}

// passes leaves those parts that meet the first conditions.
func (p *plan) passes(may uint32, level int, from, to uint32, conds int) uint32 {
	for i := range p.conds[:conds] {
		if may == 0 {
			return 0
		}
		c := &p.conds[i]
		z := &c.column.zones[level]
		least, most, unknown := z.least[from:to], z.most[from:to], z.unknown[from:to]
		for j := range least {
			if (most[j] < c.least || least[j] > c.most) && !(c.unknown && unknown[j]) {
				may &^= 1 << j
			}
		}
	}
	for i := range p.words {
		c := &p.words[i]
		for j, m := range c.column.zones[level][from:to] {
			if m&c.bits == 0 {
				may &^= 1 << j
			}
		}
	}
	return may
}

// rows leaves those rows of a block that meet the first conditions as far as codes tell.
func (p *plan) rows(g *grid, m uint64, b uint32, conds int) uint64 {
	for i := range p.conds[:conds] {
		if m == 0 {
			return 0
		}
		m = p.conds[i].rows(g, m, b)
	}
	for i := range p.words {
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

func (c *cond) rows(g *grid, m uint64, b uint32) uint64 {
	codes := (*[blockRows]code)(c.column.codes[b<<blockBits:])
	from, span := c.from, c.to-c.from
	pass := uint64(0)
	if c.unknown {
		for j := range codes {
			k := codes[j]
			bit := uint64(0)
			if k-from <= span || k == codeUnknown {
				bit = 1
			}
			pass |= bit << j
		}
	} else {
		for j := range codes {
			bit := uint64(0)
			if codes[j]-from <= span {
				bit = 1
			}
			pass |= bit << j
		}
	}
	if c.except != never {
		pass |= g.excepted[c.except][b]
	}
	return m & pass
}

// block looks at the rows of a block.
func (f *finder) block(b uint32) {
	x := f.x
	g, s, a := &x.grid, &x.search, f.asked
	m := a.plan.rows(g, g.used[b]&g.startup[b], b, len(a.plan.conds))
	if m == 0 {
		return
	}
	zone := slices.Clone(f.bounds(0, b))
	for ; m != 0; m &= m - 1 {
		row := b<<blockBits | uint32(bits.TrailingZeros64(m))
		s.known = s.known[:0]
		for i, c := range s.marker.columns {
			k := c.codes[row]
			if k == codeUnknown {
				s.known = append(s.known, bounds{math.Inf(1), math.Inf(-1), true})
				continue
			}
			lo, hi := between(k)
			s.known = append(s.known, bounds{max(lo, zone[i].least), min(hi, zone[i].most), false})
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
		if !a.fit(&f.p, x.places.class[id]) || !met(f.request.clauses[f.request.static:], &f.p) {
			continue
		}
		f.keep(found{mark, id, order})
	}
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
	x.columnsFor(r, nil)
	a := x.of(r)
	a.ready(x)
	var p at
	p.request, p.derived = r, &d
	if !met(a.once, &p) {
		return into
	}
	g := &x.grid
	var walk func(level int, from, to uint32)
	walk = func(level int, from, to uint32) {
		may := a.plan.passes(uint32(1)<<(to-from)-1, level, from, to, a.plan.static)
		for ; may != 0; may &= may - 1 {
			part := from + uint32(bits.TrailingZeros32(may))
			if level > 0 {
				walk(level-1, part<<fanBits, min((part+1)<<fanBits, uint32(len(g.orders[level-1]))))
				continue
			}
			x.search.looked.Blocks++
			for m := a.plan.rows(g, g.used[part], part, a.plan.static); m != 0; m &= m - 1 {
				id := g.ids[part<<blockBits|uint32(bits.TrailingZeros64(m))]
				x.search.looked.Rows++
				x.load(id, &p)
				if a.fit(&p, x.places.class[id]) {
					into = append(into, id)
				}
			}
		}
	}
	top := g.levels() - 1
	walk(top, 0, uint32(len(g.orders[top])))
	slices.SortFunc(into[begin:], x.Compare)
	return into
}

// Starts reports whether a place can start the request now.
func (x *Index) Starts(id PlaceID, r *Request, d Derived) bool {
	var p at
	p.request, p.derived = r, &d
	a := x.of(r)
	a.ready(x)
	return x.starts(id, a, r, &p)
}

func (x *Index) starts(id PlaceID, a *asked, r *Request, p *at) bool {
	if !met(a.once, p) {
		return false
	}
	x.load(id, p)
	return a.fit(p, x.places.class[id]) && met(r.clauses[r.static:], p)
}

// Room gives how many jobs with the request's need could start at a place at once.
func (x *Index) Room(id PlaceID, r *Request, d Derived) int {
	var p at
	p.request, p.derived = r, &d
	a := x.of(r)
	a.ready(x)
	if !x.starts(id, a, r, &p) {
		return 0
	}
	return p.jobs()
}

// columnsFor makes columns for attributes with an argument that are asked about.
func (x *Index) columnsFor(r *Request, o *Objective) {
	want := func(a *Attribute, argument string) {
		if argument != "" && strings.HasSuffix(a.Name, ":") {
			x.grid.want(x, a, argument)
		}
	}
	for i := range r.hard {
		want(r.hard[i].attribute, r.hard[i].argument)
	}
	for i := range r.soft {
		want(r.soft[i].attribute, r.soft[i].argument)
	}
	if o != nil {
		for _, list := range o.terms {
			for i := range list {
				want(list[i].attribute, list[i].argument)
			}
		}
	}
}
