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

	codes []uint64 // lanes, by row
	zones []zones  // of blocks, of groups of blocks, ...
}

// zones are the bounds of what is known in each part, and whether something is unknown or
// excepted there. Where nothing is known the least is above the most.
type zones struct {
	bounds []interval
	// The same coarsely, for the parts of one group in one cache line: lanes of the least,
	// whose tops tell of the unknown, then lanes of the most.
	coarse []uint64
}

type interval struct{ least, most float64 }

var nowhere = interval{math.Inf(1), math.Inf(-1)}

// groupWords has the coarse bounds of a group's parts.
const groupWords = 2 * fan / laneCount

func (z *zones) grow(n int) {
	for len(z.bounds) < n {
		if len(z.bounds)%fan == 0 {
			z.coarse = append(z.coarse, make([]uint64, groupWords)...)
		}
		z.bounds = append(z.bounds, interval{})
		z.set(uint32(len(z.bounds)-1), nowhere, false)
	}
}

// group gives the lanes of the least and of the most of the parts of a group.
func (z *zones) group(g uint32) (least, most []uint64) {
	words := z.coarse[g*groupWords : (g+1)*groupWords]
	return words[:groupWords/2], words[groupWords/2:]
}

func (z *zones) unknown(part uint32) bool {
	least, _ := z.group(part / fan)
	return laneOf(least, part%fan)&0x8000 != 0
}

// set gives a part its bounds, and reports whether they are new.
func (z *zones) set(part uint32, b interval, unknown bool) bool {
	if z.bounds[part] == b && z.unknown(part) == unknown {
		return false
	}
	z.bounds[part] = b
	lo, hi := codeMost, codeUnknown
	if b.least <= b.most {
		lo, hi = codeOf(b.least), codeOf(b.most)
	}
	if unknown {
		lo |= 0x8000
	}
	least, most := z.group(part / fan)
	setLane(least, part%fan, lo)
	setLane(most, part%fan, hi)
	return true
}

func (c *column) kind() Kind { return c.attribute.Kind }

// value gives the number of a place; false is not known.
func (c *column) value(p *at) (float64, bool) {
	v, ok := c.attribute.number(p, c.argument)
	return v, ok && !math.IsNaN(v)
}

// grow makes room for all rows.
func (c *column) grow(g *grid) {
	c.codes = append(c.codes, make([]uint64, len(g.ids)/laneCount-len(c.codes))...)
	for len(c.zones) < g.levels() {
		c.zones = append(c.zones, zones{})
	}
	for level := range c.zones {
		c.zones[level].grow(len(g.orders[level]))
	}
}

// fill sets the number of a row that had none, and the bounds of its block.
func (c *column) fill(row uint32, p *at) {
	z, b := &c.zones[0], row>>blockBits
	v, ok := c.value(p)
	if !ok {
		z.set(b, z.bounds[b], true)
		return
	}
	setLane(c.codes, row, codeOf(v))
	now := z.bounds[b]
	z.set(b, interval{min(now.least, v), max(now.most, v)}, z.unknown(b) || c.except.holds(p))
}

// put sets the number of a row. Bounds are made wide enough at once, and exact by flush:
// not before all rows that a change moves have their numbers.
func (c *column) put(g *grid, row uint32, p *at) {
	v, ok := c.value(p)
	k := codeUnknown
	if ok {
		k = codeOf(v)
	}
	old := laneOf(c.codes, row)
	setLane(c.codes, row, k)
	z, b := &c.zones[0], row>>blockBits
	was, now, unknown := z.bounds[b], z.bounds[b], z.unknown(b)
	narrower := old == codeUnknown && unknown && ok
	if old != codeUnknown {
		narrower = !ok || v < was.most && old >= codeOf(was.most) || v > was.least && old <= codeOf(was.least)
	}
	if ok {
		now = interval{min(was.least, v), max(was.most, v)}
	}
	wider := z.set(b, now, unknown || !ok || c.except != never && g.excepted[c.except][b] != 0)
	if narrower || wider {
		g.moved = append(g.moved, moved{c, b, narrower})
	}
}

// drop takes a row out, which its block does not use any more.
func (c *column) drop(g *grid, row uint32) {
	setLane(c.codes, row, codeUnknown)
	g.moved = append(g.moved, moved{c, row >> blockBits, true})
}

// settle works out the bounds of a block, which are now no wider than they say.
func (c *column) settle(x *Index, b uint32) {
	used := x.grid.used[b]
	codes := c.codes[b*blockRows/laneCount:][:blockRows/laneCount]
	lo, hi, unknown := codeMost+1, codeUnknown, false
	for m := used; m != 0; m &= m - 1 {
		k := laneOf(codes, uint32(bits.TrailingZeros64(m)))
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
	if hi == codeUnknown {
		z.set(b, nowhere, unknown)
		return
	}
	// Only rows with the outermost codes can be outermost, and when one is found that is
	// as far out as before, none is farther.
	was, now := z.bounds[b], nowhere
	p := &x.grid.eyes
	for m := used; m != 0 && (now.least > was.least || now.most < was.most); m &= m - 1 {
		i := uint32(bits.TrailingZeros64(m))
		if k := laneOf(codes, i); k == lo || k == hi {
			x.load(x.grid.ids[b<<blockBits|i], p)
			v, _ := c.value(p)
			now = interval{min(now.least, v), max(now.most, v)}
		}
	}
	z.set(b, now, unknown)
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
	below := &c.zones[level-1]
	now := nowhere
	for _, b := range below.bounds[part<<fanBits : min((part+1)<<fanBits, uint32(len(below.bounds)))] {
		now = interval{min(now.least, b.least), max(now.most, b.most)}
	}
	tops := uint64(0)
	least, _ := below.group(part)
	for _, w := range least {
		tops |= w & laneTops
	}
	return c.zones[level].set(part, now, tops != 0)
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
