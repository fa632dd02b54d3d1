package resourcemodel

import "slices"

// arrange gives all places rows anew. Those that are alike in what requests ask for come
// together: all rows are parted in two at the middle of the number in which they differ
// most, again and again until a part is a block. So the groups of blocks are parts too.
func (x *Index) arrange() {
	g := &x.grid
	var ids []PlaceID
	for id := range x.All() {
		ids = append(ids, id)
	}
	g.grant()
	columns, words := g.columns, g.words
	*g = grid{columns: columns, words: words, named: g.named, wishes: g.wishes, stride: g.stride, still: g.still, round: g.round + 1}
	n := len(ids)
	if n == 0 {
		for _, c := range words {
			c.codes, c.zones = nil, nil
		}
		return
	}
	parting := parter{codes: make([][]uint16, len(columns)+len(words)), rows: make([]uint32, n), spare: make([]uint32, n)}
	for i := range parting.codes {
		parting.codes[i] = make([]uint16, n)
	}
	var p at
	for i, id := range ids {
		x.load(id, &p)
		for j, c := range columns {
			if v, ok := c.value(&p); ok {
				parting.codes[j][i] = codeOf(v)
			}
		}
		for j, c := range words {
			parting.codes[len(columns)+j][i] = c.code(g, &p)
		}
		parting.rows[i] = uint32(i)
	}
	parting.weigh(columns, len(words))
	parting.part(0, n)

	rows := make([]PlaceID, n)
	for row, i := range parting.rows {
		rows[row] = ids[i]
	}
	x.classes.renumber(x.places.list, rows)
	x.fill(rows, &parting)
}

// fill puts places into rows in the order that they have.
func (x *Index) fill(rows []PlaceID, parting *parter) {
	g := &x.grid
	n := len(rows)
	for _, c := range g.columns {
		c.asked /= 2
	}
	for _, c := range g.words {
		c.codes, c.zones = make([]uint16, 0, (n+blockRows-1)&^(blockRows-1)), nil
	}
	g.ids = make([]PlaceID, 0, (n+blockRows-1)&^(blockRows-1))
	g.grow((n + blockRows - 1) >> blockBits)
	g.free = g.free[:len(g.ids)-n] // the last rows, the first of them on top
	g.holes = len(g.ids) - n
	var p at
	for i, id := range rows {
		row := uint32(i)
		b := row >> blockBits
		g.ids[row] = id
		x.places.list[id].row = row
		g.masks[b].used |= 1 << (row % blockRows)
		x.load(id, &p)
		g.marks(row, &p)
		g.orders[0][b] = min(g.orders[0][b], x.order(id))
		for _, c := range g.columns {
			c.fill(g, row, &p)
		}
		for j, c := range g.words {
			k := parting.codes[len(g.columns)+j][parting.rows[i]]
			c.codes[row] = k
			c.zones[0][b] |= wordBit(k)
		}
	}
	for b := range g.masks {
		g.accepts[0][b] = g.masks[b].startup != 0
	}
	g.sumFrom(1)
}

// parter parts rows.
type parter struct {
	codes  [][]uint16 // by column and row, in the order of places
	weight []float64  // of the columns: how often they were asked for
	scale  [][]uint16 // a sorted sample of each number; nil: a word
	rows   []uint32   // in the order that is made
	spare  []uint32
}

const (
	sampleRows = 32   // of a part
	sampleAll  = 1024 // of everything
)

// weigh says what counts how much: what requests asked for lately, or else what they
// ask for as a rule.
func (p *parter) weigh(columns []*column, words int) {
	most := 0
	for _, c := range columns {
		most = max(most, c.asked)
	}
	p.weight, p.scale = make([]float64, len(p.codes)), make([][]uint16, len(p.codes))
	n := len(p.rows)
	for i, c := range columns {
		switch {
		case most > 0:
			p.weight[i] = 0.02 + float64(c.asked)/float64(most)
		case c.kind() == StaticAttribute:
			p.weight[i] = 1
		default:
			p.weight[i] = 0.3
		}
		sample := make([]uint16, 0, sampleAll)
		for j := range min(n, sampleAll) {
			sample = append(sample, p.codes[i][j*n/min(n, sampleAll)])
		}
		slices.Sort(sample)
		p.scale[i] = sample
	}
	for i := range words {
		p.weight[len(columns)+i] = 1.5
	}
}

// part parts the rows from lo to hi.
func (p *parter) part(lo, hi int) {
	n := hi - lo
	if n <= blockRows {
		return
	}
	// The left part is made of whole groups of blocks.
	blocks := (n + blockRows - 1) / blockRows
	left := 1
	for left*2 < blocks {
		left *= 2
	}
	at := lo + left*blockRows
	if c := p.choose(lo, hi); c >= 0 {
		p.split(p.codes[c], lo, at, hi)
	}
	p.part(lo, at)
	p.part(at, hi)
}

// choose gives the column in which the rows differ most; -1 if they differ in none.
func (p *parter) choose(lo, hi int) int {
	best, most := -1, 0.0
	var sample [sampleRows]uint16
	for c, codes := range p.codes {
		for i := range sample {
			sample[i] = codes[p.rows[lo+i*(hi-lo)/sampleRows]]
		}
		slices.Sort(sample[:])
		var differ float64
		if scale := p.scale[c]; scale != nil {
			a, b := sample[sampleRows/10], sample[sampleRows-1-sampleRows/10]
			if a == b {
				a, b = sample[0], sample[sampleRows-1]
			}
			if a == b {
				continue
			}
			i, _ := slices.BinarySearch(scale, a)
			j, _ := slices.BinarySearch(scale, b)
			differ = float64(j-i+1) / float64(len(scale))
		} else {
			run, longest := 0, 0
			for i := range sample {
				if run++; i > 0 && sample[i] != sample[i-1] {
					run = 1
				}
				longest = max(longest, run)
			}
			if longest == sampleRows {
				continue
			}
			differ = 1 - float64(longest)/sampleRows
		}
		if differ *= p.weight[c]; differ > most {
			best, most = c, differ
		}
	}
	return best
}

// split puts the least before at, and leaves rows of one number in their order.
func (p *parter) split(codes []uint16, lo, at, hi int) {
	rows := p.rows[lo:hi]
	middle := p.nth(codes, rows, at-lo)
	same := at - lo // how many of the middle number go left
	for _, r := range rows {
		if codes[r] < middle {
			same--
		}
	}
	l, r := 0, 0
	spare := p.spare[:len(rows)]
	for _, row := range rows {
		k := codes[row]
		left := k < middle
		if k == middle && same > 0 {
			same--
			left = true
		}
		if left {
			rows[l] = row
			l++
		} else {
			spare[r] = row
			r++
		}
	}
	copy(rows[l:], spare[:r])
}

// nth gives the number that stands at a place when all are sorted.
func (p *parter) nth(codes []uint16, rows []uint32, n int) uint16 {
	var high, low [256]int32 // by the high byte first, then by the low one
	for _, r := range rows {
		high[codes[r]>>8]++
	}
	left := int32(n)
	h := 0
	for left >= high[h] {
		left -= high[h]
		h++
	}
	for _, r := range rows {
		if k := codes[r]; int(k>>8) == h {
			low[k&0xff]++
		}
	}
	l := 0
	for left >= low[l] {
		left -= low[l]
		l++
	}
	return uint16(h<<8 | l)
}
