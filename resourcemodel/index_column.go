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

// column is one number of all rows: coarsely by row, and exactly between which bounds it
// lies by block and group. All that columns have of one block or group lies together.
type column struct {
	attribute *Attribute
	argument  string
	except    except
	of        aspects // what it changes with; none: with nothing but the site
	asked     int     // how often queries did, since the rows were arranged
	at        int     // its number in the grid
}

// zones are the bounds of what is known in each part, and whether something is unknown or
// excepted there, by part and column. Where nothing is known the least is above the
// most.
type zones struct {
	stride  int // columns
	bounds  []interval
	unknown []uint64 // by part, a bit for each column
	// The same coarsely, for the parts of one group in one cache line, by group and
	// column: lanes of the least, whose tops tell of the unknown, then lanes of the most.
	coarse []uint64
}

type interval struct{ least, most float64 }

var nowhere = interval{math.Inf(1), math.Inf(-1)}

const (
	// groupWords has the coarse bounds of a group's parts.
	groupWords = 2 * fan / laneCount
	// codeWords has the codes of a block's rows.
	codeWords = blockRows / laneCount
)

func (z *zones) grow(n int) {
	for part := len(z.unknown); part < n; part++ {
		if part%fan == 0 {
			for range z.stride {
				for i := range groupWords {
					w := uint64(0)
					if i < groupWords/2 {
						w = spread(codeMost)
					}
					z.coarse = append(z.coarse, w)
				}
			}
		}
		for range z.stride {
			z.bounds = append(z.bounds, nowhere)
		}
		z.unknown = append(z.unknown, 0)
	}
}

func (z *zones) of(part uint32, c *column) interval { return z.bounds[int(part)*z.stride+c.at] }

func (z *zones) unsure(part uint32, c *column) bool { return z.unknown[part]>>c.at&1 != 0 }

// group gives the lanes of the least and of the most of the parts of a group.
func (z *zones) group(g uint32, c *column) *[groupWords]uint64 {
	return (*[groupWords]uint64)(z.coarse[(int(g)*z.stride+c.at)*groupWords:])
}

// set gives a part its bounds, and reports whether they are new.
func (z *zones) set(part uint32, c *column, now interval, unknown bool) bool {
	b := &z.bounds[int(part)*z.stride+c.at]
	if *b == now && z.unsure(part, c) == unknown {
		return false
	}
	*b = now
	lo, hi := codeMost, codeUnknown
	if now.least <= now.most {
		lo, hi = codeOf(now.least), codeOf(now.most)
	}
	if z.unknown[part] &^= 1 << c.at; unknown {
		z.unknown[part] |= 1 << c.at
		lo |= 0x8000
	}
	lanes := z.group(part/fan, c)
	setLane(lanes[:groupWords/2], part%fan, lo)
	setLane(lanes[groupWords/2:], part%fan, hi)
	return true
}

// codes gives the lanes of a block's rows.
func (g *grid) codesOf(b uint32, c *column) *[codeWords]uint64 {
	return (*[codeWords]uint64)(g.codes[(int(b)*g.stride+c.at)*codeWords:])
}

func (g *grid) code(row uint32, c *column) code {
	return laneOf(g.codesOf(row>>blockBits, c)[:], row%blockRows)
}

func (c *column) kind() Kind { return c.attribute.Kind }

// value gives the number of a place; false is not known.
func (c *column) value(p *at) (float64, bool) {
	v, ok := c.attribute.number(p, c.argument)
	return v, ok && !math.IsNaN(v)
}

// fill sets the number of a row that had none, and the bounds of its block.
func (c *column) fill(g *grid, row uint32, p *at) {
	z, b := &g.zones[0], row>>blockBits
	now, unknown := z.of(b, c), z.unsure(b, c)
	if v, ok := c.value(p); ok {
		setLane(g.codesOf(b, c)[:], row%blockRows, codeOf(v))
		now = interval{min(now.least, v), max(now.most, v)}
		unknown = unknown || c.except.holds(p)
	} else {
		unknown = true
	}
	z.set(b, c, now, unknown)
}

// put sets the number of a row. Bounds are made wide enough at once, and exact by flush:
// not before all rows that a change moves have their numbers.
func (c *column) put(g *grid, row uint32, v float64, ok bool) {
	k := codeUnknown
	if ok {
		k = codeOf(v)
	}
	b := row >> blockBits
	codes := g.codesOf(b, c)[:]
	old := laneOf(codes, row%blockRows)
	if old != k {
		setLane(codes, row%blockRows, k)
	}
	z := &g.zones[0]
	was, unknown := z.of(b, c), z.unsure(b, c)
	now := was
	narrower := old == codeUnknown && unknown && ok
	if old != codeUnknown {
		narrower = !ok || v < was.most && old >= codeOf(was.most) || v > was.least && old <= codeOf(was.least)
	}
	if ok {
		now = interval{min(was.least, v), max(was.most, v)}
	}
	wider := z.set(b, c, now, unknown || !ok || c.except != never && g.masks[b].excepted[c.except] != 0)
	if narrower || wider {
		g.moved = append(g.moved, moved{c, b, narrower})
	}
}

// drop takes a row out, which its block does not use any more.
func (c *column) drop(g *grid, row uint32) {
	b := row >> blockBits
	setLane(g.codesOf(b, c)[:], row%blockRows, codeUnknown)
	g.moved = append(g.moved, moved{c, b, true})
}

// settle works out the bounds of a block, which are now no wider than they say.
func (c *column) settle(x *Index, b uint32) {
	g := &x.grid
	used, codes := g.masks[b].used, g.codesOf(b, c)[:]
	lo, hi, unknown := codeMost+1, codeUnknown, false
	for m := used; m != 0; m &= m - 1 {
		k := laneOf(codes, uint32(bits.TrailingZeros64(m)))
		if k == codeUnknown {
			unknown = true
			continue
		}
		lo, hi = min(lo, k), max(hi, k)
	}
	if c.except != never && used&g.masks[b].excepted[c.except] != 0 {
		unknown = true
	}
	z := &g.zones[0]
	if hi == codeUnknown {
		z.set(b, c, nowhere, unknown)
		return
	}
	// Only rows with the outermost codes can be outermost, and when one is found that is
	// as far out as before, none is farther.
	was, now := z.of(b, c), nowhere
	p := &g.eyes
	for m := used; m != 0 && (now.least > was.least || now.most < was.most); m &= m - 1 {
		i := uint32(bits.TrailingZeros64(m))
		if k := laneOf(codes, i); k == lo || k == hi {
			x.load(g.ids[b<<blockBits|i], p)
			v, _ := c.value(p)
			now = interval{min(now.least, v), max(now.most, v)}
		}
	}
	z.set(b, c, now, unknown)
}

// rise brings the groups up to date that a part is in.
func (c *column) rise(g *grid, part uint32) {
	for level := 1; level < len(g.zones); level++ {
		part >>= fanBits
		if !c.sum(g, level, part) {
			return
		}
	}
}

// sum works out the bounds of a group, and reports whether they changed.
func (c *column) sum(g *grid, level int, part uint32) bool {
	below := &g.zones[level-1]
	now, unknown := nowhere, false
	for i := part << fanBits; i < min((part+1)<<fanBits, uint32(len(below.unknown))); i++ {
		b := below.of(i, c)
		now = interval{min(now.least, b.least), max(now.most, b.most)}
		unknown = unknown || below.unsure(i, c)
	}
	return g.zones[level].set(part, c, now, unknown)
}

// wordColumn has one word of all rows by its number, and which words there are by block
// and group, as bits that several words may share.
type wordColumn struct {
	attribute string
	of        func(p *at) string
	several   func(p *at) bool // it has further words, so that none rules it out; nil: none has
	numbers   map[string]uint16
	codes     []uint16
	zones     [][]uint64
}

const (
	wordNone = 0      // not known
	wordAny  = 0xffff // it has several, or there are too many to number them
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

// code gives that of a place.
func (c *wordColumn) code(g *grid, p *at) uint16 {
	if c.several != nil && c.several(p) {
		return wordAny
	}
	return c.number(g, c.of(p))
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
	c.codes[row] = c.code(g, p)
	c.settle(g, row>>blockBits)
}

// settle works out the bits of a block and of the groups that it is in.
func (c *wordColumn) settle(g *grid, b uint32) {
	var all uint64
	for m := g.masks[b].used; m != 0; m &= m - 1 {
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
