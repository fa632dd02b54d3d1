package resourcemodel

import (
	"math"
	"math/bits"
	"time"
)

// Rows are in blocks, and blocks in groups of groups.
const (
	blockBits = 6
	blockRows = 1 << blockBits
	fanBits   = 4
	fan       = 1 << fanBits
)

// except is a reason for which a clause about a number does not hold for a row.
type except uint8

const (
	never     except = iota
	merged           // the environment was made of several: sums over unlike nodes rule nothing out
	unslotted        // the share has no limit of slots
	momentary        // the share's time limit is less than a second, and none to clauses
	excepts
)

// holds reports whether it is so of a place.
func (e except) holds(p *at) bool {
	switch e {
	case merged:
		return p.nodes.Best != nil
	case unslotted:
		return p.Share.Slots <= 0
	case momentary:
		return p.Share.MaxWallTime > 0 && p.Share.MaxWallTime < time.Second
	case never, excepts:
	}
	return false
}

// column has one number of all rows: coarsely by row, and exactly between which bounds
// it lies by block and group.
type column struct {
	attribute *Attribute
	argument  string
	except    except
	taken     bool // jobs take of it
	asked     int  // how often queries did, since the rows were arranged

	codes []code
	zones []zones // of blocks, of groups of blocks, ...
}

// zones are the bounds of what is known in each part, and whether something is unknown or
// excepted there. Where nothing is known the least is above the most.
type zones struct {
	least, most []float64
	unknown     []bool
}

func (z *zones) grow(n int) {
	for len(z.least) < n {
		z.least, z.most, z.unknown = append(z.least, math.Inf(1)), append(z.most, math.Inf(-1)), append(z.unknown, false)
	}
}

func (c *column) kind() Kind { return c.attribute.Kind }

// value gives the number of a place; false is not known.
func (c *column) value(p *at) (float64, bool) {
	v, ok := c.attribute.number(p, c.argument)
	return v, ok && !math.IsNaN(v)
}

// put sets the number of a row. Bounds are made wide enough at once, and exact by flush:
// not before all rows that a change moves have their numbers.
func (c *column) put(g *grid, row uint32, p *at) {
	v, ok := c.value(p)
	k := codeUnknown
	if ok {
		k = codeOf(v)
	}
	old := c.codes[row]
	c.codes[row] = k
	b := row >> blockBits
	z := &c.zones[0]
	least, most, unknown := z.least[b], z.most[b], z.unknown[b]
	var narrower bool
	if ok {
		z.least[b], z.most[b] = min(least, v), max(most, v)
		narrower = old == codeUnknown && unknown
	} else {
		z.unknown[b] = true
	}
	if c.except != never && g.excepted[c.except][b] != 0 {
		z.unknown[b] = true
	}
	if old != codeUnknown {
		narrower = !ok || v < most && old >= codeOf(most) || v > least && old <= codeOf(least)
	}
	if narrower || z.least[b] != least || z.most[b] != most || z.unknown[b] != unknown {
		g.moved = append(g.moved, moved{c, b, narrower})
	}
}

// drop takes a row out, which its block does not use any more.
func (c *column) drop(g *grid, row uint32) {
	c.codes[row] = codeUnknown
	g.moved = append(g.moved, moved{c, row >> blockBits, true})
}

// settle works out the bounds of a block, which are now no wider than they say.
func (c *column) settle(x *Index, b uint32) {
	used := x.grid.used[b]
	codes := (*[blockRows]code)(c.codes[b<<blockBits:])
	lo, hi, unknown := codeMost+1, codeUnknown, false
	for m := used; m != 0; m &= m - 1 {
		k := codes[bits.TrailingZeros64(m)]
		if k == codeUnknown {
			unknown = true
			continue
		}
		lo, hi = min(lo, k), max(hi, k)
	}
	if c.except != never && used&x.grid.excepted[c.except][b] != 0 {
		unknown = true
	}
	z := &c.zones[0]
	z.unknown[b] = unknown
	if hi == codeUnknown {
		z.least[b], z.most[b] = math.Inf(1), math.Inf(-1)
		return
	}
	// Only rows with the outermost codes can be outermost, and when one is found that is
	// as far out as before, none is farther.
	was, now := z.least[b], math.Inf(1)
	var p at
	for m := used; m != 0 && now > was; m &= m - 1 {
		if i := bits.TrailingZeros64(m); codes[i] == lo {
			x.load(x.grid.ids[b<<blockBits|uint32(i)], &p)
			v, _ := c.value(&p)
			now = min(now, v)
		}
	}
	z.least[b] = now
	was, now = z.most[b], math.Inf(-1)
	for m := used; m != 0 && now < was; m &= m - 1 {
		if i := bits.TrailingZeros64(m); codes[i] == hi {
			x.load(x.grid.ids[b<<blockBits|uint32(i)], &p)
			v, _ := c.value(&p)
			now = max(now, v)
		}
	}
	z.most[b] = now
}

// rise brings the groups up to date that a part is in.
func (c *column) rise(part uint32) {
	for level := 1; level < len(c.zones); level++ {
		part >>= fanBits
		if !c.sum(level, part) {
			return
		}
	}
}

// sum works out the bounds of a group, and reports whether they changed.
func (c *column) sum(level int, part uint32) bool {
	below, z := &c.zones[level-1], &c.zones[level]
	from, to := part<<fanBits, min((part+1)<<fanBits, uint32(len(below.least)))
	least, most, unknown := math.Inf(1), math.Inf(-1), false
	for _, v := range below.least[from:to] {
		least = min(least, v)
	}
	for _, v := range below.most[from:to] {
		most = max(most, v)
	}
	for _, u := range below.unknown[from:to] {
		unknown = unknown || u
	}
	if z.least[part] == least && z.most[part] == most && z.unknown[part] == unknown {
		return false
	}
	z.least[part], z.most[part], z.unknown[part] = least, most, unknown
	return true
}

// wordColumn has one word of all rows by its number, and which words there are by block
// and group, as bits that several words may share.
type wordColumn struct {
	attribute string
	of        func(p *at) string
	numbers   map[string]uint16
	codes     []uint16
	zones     [][]uint64
}

const (
	wordNone = 0      // not known
	wordAny  = 0xffff // there are too many to number them
)

// number gives that of a word. A new word makes plans be made anew: it may be one that
// they want.
func (c *wordColumn) number(g *grid, word string) uint16 {
	if word == "" {
		return wordNone
	}
	n, ok := c.numbers[word]
	if !ok {
		if len(c.numbers) >= wordAny-1 {
			return wordAny
		}
		n = uint16(len(c.numbers) + 1)
		c.numbers[word] = n
		g.round++
	}
	return n
}

// wordBit gives the bit of a word's number.
func wordBit(n uint16) uint64 {
	switch n {
	case wordNone:
		return 1
	case wordAny:
		return 1 << 63
	}
	return 1 << (1 + n%62)
}

// grow makes room for all rows.
func (c *wordColumn) grow(g *grid) {
	c.codes = append(c.codes, make([]uint16, len(g.ids)-len(c.codes))...)
	for len(c.zones) < g.levels() {
		c.zones = append(c.zones, nil)
	}
	for level := range c.zones {
		c.zones[level] = append(c.zones[level], make([]uint64, len(g.orders[level])-len(c.zones[level]))...)
	}
}

func (c *wordColumn) put(g *grid, row uint32, p *at) {
	c.codes[row] = c.number(g, c.of(p))
	c.settle(g, row>>blockBits)
}

// settle works out the bits of a block and of the groups that it is in.
func (c *wordColumn) settle(g *grid, b uint32) {
	var all uint64
	for m := g.used[b]; m != 0; m &= m - 1 {
		all |= wordBit(c.codes[b<<blockBits|uint32(bits.TrailingZeros64(m))])
	}
	c.zones[0][b] = all
	for level := 1; level < len(c.zones); level++ {
		b >>= fanBits
		c.sum(level, b)
	}
}

func (c *wordColumn) sum(level int, part uint32) {
	below := c.zones[level-1]
	var all uint64
	for _, m := range below[part<<fanBits : min((part+1)<<fanBits, uint32(len(below)))] {
		all |= m
	}
	c.zones[level][part] = all
}
