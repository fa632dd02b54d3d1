package resourcemodel

import (
	"cmp"
	"maps"
	"math"
	"math/bits"
	"slices"
)

// noPlace is in a row that is a hole.
const noPlace PlaceID = math.MaxUint32

// grid has the rows: see Index.
type grid struct {
	ids     []PlaceID
	masks   []mask     // by block
	accepts [][]bool   // by level: whether any takes jobs
	orders  [][]uint64 // by level: the least order

	columns []*column // the table of attributes, then what requests asked for beside it
	stride  int       // how many
	still   int       // of them, those that change with nothing but the site; the first
	codes   []uint64  // lanes, by block and column
	zones   []zones   // of blocks, of groups of blocks, ...
	words   []*wordColumn
	named   map[string]*column // of the table, but for those that take an argument
	wishes  map[wish]int       // how often they were asked for

	moved []moved
	eyes  at // scratch of see

	free    []uint32 // holes
	holes   int
	loose   int    // rows that came since they were arranged, and holes
	reorder bool   // orders are out of date
	round   uint64 // grows when columns, words or rows are numbered anew
}

// mask has bits for the rows of a block.
type mask struct {
	used     uint64 // no holes
	startup  uint64 // of them, those whose site and share take jobs
	excepted [excepts]uint64
}

const (
	maxExtra  = 16  // columns for attributes that take an argument
	maxWishes = 256 // such attributes that are remembered
)

func (g *grid) init() {
	*g = grid{round: g.round + 1, named: map[string]*column{}, wishes: map[wish]int{}}
	for i := range attributes {
		a := &attributes[i]
		if a.number == nil || a.Argument() || a.Kind == DerivedAttribute {
			continue
		}
		c := &column{attribute: a, of: aspectsOf[a.Name]}
		switch a.Name {
		case "FreeNodes", "FreeMemory", "FreeGPUs":
			c.except = merged
		case "FreeSlots":
			c.except = unslotted
		case "MaxWallTime":
			c.except = momentary
		}
		g.columns = append(g.columns, c)
		g.named[a.Name] = c
	}
	g.number()
	word := func(attribute string, of func(p *at) string) {
		g.words = append(g.words, &wordColumn{attribute: attribute, of: of, numbers: map[string]uint16{}})
	}
	word("OperatingSystem", func(p *at) string { return p.Environment.OperatingSystem })
	word("OperatingSystemVersion", func(p *at) string { return p.Environment.OSVersion })
	word("CPUArchitecture", func(p *at) string { return p.Environment.CPUArchitecture })
	word("Manager", func(p *at) string { return p.static.Type })
	word("Share", func(p *at) string { return p.Share.ID })
	g.word("Share").several = func(p *at) bool { return p.Share.Span != nil } // the name of each that was merged counts
}

func (g *grid) rows() int { return len(g.ids) }

// levels gives how many levels of blocks and groups there are: the last has no more than
// one group's parts.
func (g *grid) levels() int { return len(g.orders) }

// column gives the column of an attribute; nil if there is none.
func (g *grid) column(a *Attribute, argument string) *column {
	if argument == "" {
		return g.named[a.Name]
	}
	for _, c := range g.columns {
		if c.attribute == a && c.argument == argument {
			return c
		}
	}
	return nil
}

// word gives the column of a text; nil if there is none.
func (g *grid) word(attribute string) *wordColumn {
	for _, c := range g.words {
		if c.attribute == attribute {
			return c
		}
	}
	return nil
}

// want notes that a request asks for an attribute with an argument, which gets a column
// when rows are arranged next.
func (g *grid) want(a *Attribute, argument string) {
	if argument == "" || a.number == nil || a.Kind == DerivedAttribute {
		return
	}
	if c := g.column(a, argument); c != nil {
		c.asked++
		return
	}
	w := wish{a, argument}
	if _, ok := g.wishes[w]; ok || len(g.wishes) < maxWishes {
		g.wishes[w]++
	}
}

// wish is an attribute with its argument.
type wish struct {
	attribute *Attribute
	argument  string
}

// grant makes columns for what was most wished for, and drops those that nobody asked for.
func (g *grid) grant() {
	for _, c := range g.columns {
		if c.argument != "" {
			g.wishes[wish{c.attribute, c.argument}] = c.asked
		}
	}
	g.columns = slices.DeleteFunc(g.columns, func(c *column) bool { return c.argument != "" })
	list := slices.SortedFunc(maps.Keys(g.wishes), func(a, b wish) int {
		return cmp.Or(cmp.Compare(g.wishes[b], g.wishes[a]), cmp.Compare(a.attribute.Name, b.attribute.Name), cmp.Compare(a.argument, b.argument))
	})
	for _, w := range list[:min(len(list), maxExtra)] {
		if g.wishes[w] > 0 {
			g.columns = append(g.columns, &column{attribute: w.attribute, argument: w.argument, of: aspectsOf[w.attribute.Name], asked: g.wishes[w]})
		}
	}
	clear(g.wishes)
	g.number()
}

// number numbers the columns: those that change most often come last, together.
func (g *grid) number() {
	slices.SortStableFunc(g.columns, func(a, b *column) int { return cmp.Compare(a.of, b.of) })
	g.stride, g.still = len(g.columns), 0
	for i, c := range g.columns {
		if c.at = i; c.of == 0 {
			g.still = i + 1
		}
	}
}

// grow makes room for so many blocks, all of whose new rows are holes.
func (g *grid) grow(blocks int) {
	for row := blocks<<blockBits - 1; row >= len(g.ids); row-- {
		g.free = append(g.free, uint32(row))
	}
	for len(g.ids) < blocks<<blockBits {
		g.ids = append(g.ids, noPlace)
		g.holes++
	}
	g.masks = append(g.masks, make([]mask, blocks-len(g.masks))...)
	deep := len(g.orders)
	for level, n := 0, blocks; ; level, n = level+1, (n+fan-1)>>fanBits {
		if level == len(g.orders) {
			g.orders, g.accepts = append(g.orders, nil), append(g.accepts, nil)
		}
		for len(g.orders[level]) < n {
			g.orders[level], g.accepts[level] = append(g.orders[level], math.MaxUint64), append(g.accepts[level], false)
		}
		if n <= fan {
			break
		}
	}
	g.codes = append(g.codes, make([]uint64, blocks*g.stride*codeWords-len(g.codes))...)
	for len(g.zones) < g.levels() {
		g.zones = append(g.zones, zones{stride: g.stride})
	}
	for level := range g.zones {
		g.zones[level].grow(len(g.orders[level]))
	}
	for _, c := range g.words {
		c.grow(g)
	}
	if deep > 0 {
		g.sumFrom(deep)
	}
}

// sumFrom works out what groups are from a level on.
func (g *grid) sumFrom(level int) {
	for ; level < g.levels(); level++ {
		for part := range uint32(len(g.orders[level])) {
			from, to := part<<fanBits, min((part+1)<<fanBits, uint32(len(g.orders[level-1])))
			g.orders[level][part] = slices.Min(g.orders[level-1][from:to])
			g.accepts[level][part] = slices.Contains(g.accepts[level-1][from:to], true)
			for _, c := range g.columns {
				c.sum(g, level, part)
			}
			for _, c := range g.words {
				c.sum(level, part)
			}
		}
	}
}

// insert gives a place a row.
func (g *grid) insert(x *Index, id PlaceID) {
	if len(g.free) == 0 {
		g.grow(len(g.masks) + 1)
	}
	row := g.free[len(g.free)-1]
	g.free = g.free[:len(g.free)-1]
	g.holes--
	g.loose++
	g.ids[row] = id
	x.places.list[id].row = row
	b := row >> blockBits
	g.masks[b].used |= 1 << (row % blockRows)
	var p at
	x.load(id, &p)
	g.marks(row, &p)
	g.raise(b)
	g.lowerOrder(b, x.order(id))
	for _, c := range g.columns {
		v, ok := c.value(&p)
		c.put(g, row, v, ok)
	}
	for _, c := range g.words {
		c.put(g, row, &p)
	}
	g.flush(x)
}

// moved is a block whose bounds of a column may not be exact, or not those of its groups.
type moved struct {
	column   *column
	block    uint32
	narrower bool // they may be too wide
}

// flush makes all bounds exact.
func (g *grid) flush(x *Index) {
	for i, m := range g.moved {
		if i+1 < len(g.moved) {
			if next := &g.moved[i+1]; next.column == m.column && next.block == m.block {
				next.narrower = next.narrower || m.narrower
				continue
			}
		}
		if m.narrower {
			m.column.settle(x, m.block)
		}
		m.column.rise(g, m.block)
	}
	g.moved = g.moved[:0]
}

// lowerOrder makes the parts that a block is in begin no later than an order.
func (g *grid) lowerOrder(part uint32, order uint64) {
	for level := range g.orders {
		if g.orders[level][part] <= order {
			return
		}
		g.orders[level][part] = order
		part >>= fanBits
	}
}

// zoneOrders works out all orders anew.
func (g *grid) zoneOrders(x *Index) {
	for level := range g.orders {
		for part := range g.orders[level] {
			least := uint64(math.MaxUint64)
			if level == 0 {
				for m := g.masks[part].used; m != 0; m &= m - 1 {
					least = min(least, x.order(g.ids[part<<blockBits|bits.TrailingZeros64(m)]))
				}
			} else {
				below := g.orders[level-1]
				least = slices.Min(below[part<<fanBits : min((part+1)<<fanBits, len(below))])
			}
			g.orders[level][part] = least
		}
	}
}

// remove makes a row a hole.
func (g *grid) remove(x *Index, row uint32) {
	b := row >> blockBits
	bit := uint64(1) << (row % blockRows)
	g.ids[row] = noPlace
	g.masks[b].used &^= bit
	g.masks[b].startup &^= bit
	for i := range g.masks[b].excepted {
		g.masks[b].excepted[i] &^= bit
	}
	g.raise(b)
	g.free = append(g.free, row)
	g.holes++
	g.loose++
	for _, c := range g.columns {
		c.drop(g, row)
	}
	g.flush(x)
	for _, c := range g.words {
		c.codes[row] = wordNone
		c.settle(g, b)
	}
}

// marks sets the bits of a row, and reports which exceptions do not hold any more.
func (g *grid) marks(row uint32, p *at) (ended [excepts]bool) {
	b, bit := row>>blockBits, uint64(1)<<(row%blockRows)
	set := func(m *uint64, is bool) (ended bool) {
		was := *m&bit != 0
		if *m &^= bit; is {
			*m |= bit
		}
		return was && !is
	}
	set(&g.masks[b].startup, p.Site.Dynamic != nil && p.Site.Dynamic.Up && p.state.Open)
	for e := merged; e < excepts; e++ {
		ended[e] = set(&g.masks[b].excepted[e], e.holds(p))
	}
	return ended
}

// raise tells the groups above a block whether any of its rows takes jobs.
func (g *grid) raise(part uint32) {
	any := g.masks[part].startup != 0
	for level := range g.accepts {
		g.accepts[level][part] = any
		if part >>= fanBits; level+1 < len(g.accepts) {
			below := g.accepts[level]
			any = slices.Contains(below[part<<fanBits:min((part+1)<<fanBits, uint32(len(below)))], true)
		}
	}
}

// update follows a change of how the places of some rows stand, and of nothing but these
// aspects.
func (g *grid) update(x *Index, rows []uint32, what aspects) {
	if what&ofTaking != 0 {
		for _, row := range rows {
			b := row >> blockBits
			was := g.masks[b].startup != 0
			ended := g.marks(row, g.see(x, row))
			if was != (g.masks[b].startup != 0) {
				g.raise(b)
			}
			for _, c := range g.columns {
				if ended[c.except] {
					g.moved = append(g.moved, moved{c, b, true})
				}
			}
		}
	}
	for _, c := range g.columns[g.still:] { // by columns, so that flush sees those of one block together
		if c.of&what == 0 {
			continue
		}
		for _, row := range rows {
			v, ok := x.lively(c, g.ids[row])
			c.put(g, row, v, ok)
		}
	}
	g.flush(x)
}

// see puts the place of a row before the eyes.
func (g *grid) see(x *Index, row uint32) *at {
	x.load(g.ids[row], &g.eyes)
	return &g.eyes
}
