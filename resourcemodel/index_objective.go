package resourcemodel

import (
	"math"
	"slices"

	"github.com/portolan-project/portolan/internal/fail"
)

// Term is a number of a place that counts for it, or against it where the weight is
// negative.
type Term struct {
	// Attribute is a number of the table of attributes, or Room: how many jobs of the
	// request could start at once.
	Attribute string
	Weight    float64
	// Unknown counts where the number is not known. No limit counts as MaxNumber.
	Unknown float64
}

// Room is the attribute of a Term that the table does not have.
const Room = "Room"

// Objective orders the places that can start a request. First come the request's soft
// criteria (see Request.SoftScore), in so many steps, or as exactly as there are numbers
// where Steps is 0; then the sum of Terms, the more the better; then that of Then; then
// the order of the places. The zero value is soft criteria alone.
type Objective struct {
	Steps int
	terms [2][]term
}

type term struct {
	Term
	attribute *Attribute
	argument  string
}

// NewObjective compiles an Objective. An attribute that does not exist or is no number is
// fail.Invalid.
func NewObjective(steps int, sum, then []Term) (*Objective, error) {
	o := &Objective{Steps: steps}
	for i, list := range [][]Term{sum, then} {
		for _, t := range list {
			one := term{Term: t}
			if t.Attribute == Room {
				one.attribute = &roomAttribute
			} else if one.attribute, one.argument = attributeOf(t.Attribute); one.attribute == nil || one.attribute.number == nil {
				return nil, fail.Errorf("resourcemodel.NewObjective", fail.Invalid, t.Attribute, "places can't be ordered by %s, which is no number; docs/criteria.md lists those that are", clipped(t.Attribute))
			}
			if math.IsNaN(t.Weight) || math.IsInf(t.Weight, 0) || math.IsNaN(t.Unknown) || math.Abs(t.Unknown) > MaxNumber {
				return nil, fail.Errorf("resourcemodel.NewObjective", fail.Invalid, t.Attribute, "%s has a weight or a value for what is not known that is no usable number", clipped(t.Attribute))
			}
			o.terms[i] = append(o.terms[i], one)
		}
	}
	return o, nil
}

var roomAttribute = Attribute{Name: Room, Type: Integer, Kind: DerivedAttribute, number: func(p *at, _ string) (float64, bool) {
	return float64(p.jobs()), true
}}

// Mark is what a place is worth: each number counts only where those before it are
// alike.
type Mark struct {
	Soft float64 // in steps, if the Objective has steps; 1 without soft criteria
	Sum  float64
	Then float64
}

func (m *Mark) compare(o *Mark) int {
	switch {
	case m.Soft != o.Soft:
		return sign(m.Soft, o.Soft)
	case m.Sum != o.Sum:
		return sign(m.Sum, o.Sum)
	case m.Then != o.Then:
		return sign(m.Then, o.Then)
	}
	return 0
}

func sign(a, b float64) int {
	if a < b {
		return -1
	}
	return 1
}

// marker works out the marks of places, and bounds of the marks of many.
type marker struct {
	steps int
	soft  []softPart
	terms [2][]termPart
	extra *extreme // instead of all these

	columns []*column // those that bounds are of
}

// softPart is a soft criterion's.
type softPart struct {
	criterion *criterion
	share     float64 // of all weights
	graded    bool    // min or max
	scale     Range
	column    int // in columns; -1: none
}

type termPart struct {
	term
	column int
}

// extreme looks for the most or the least of a number among those that are finite.
type extreme struct {
	attribute *Attribute
	argument  string
	more      bool
	column    int
}

// bounds are what is known of a number in a part of the rows.
type bounds struct {
	interval      // least > most: nothing is known
	unknown  bool // it may be that it is not known
}

var anything = bounds{interval{math.Inf(-1), math.Inf(1)}, true}

// at gives the column's place in columns.
func (m *marker) at(x *Index, a *Attribute, argument string) int {
	c := x.grid.column(a, argument)
	if c == nil {
		return -1
	}
	i := slices.Index(m.columns, c)
	if i < 0 {
		i = len(m.columns)
		m.columns = append(m.columns, c)
	}
	return i
}

// reset prepares for a request. The scales of min and max are not known yet.
func (m *marker) reset(x *Index, r *Request, o *Objective) {
	*m = marker{soft: m.soft[:0], columns: m.columns[:0], terms: [2][]termPart{m.terms[0][:0], m.terms[1][:0]}}
	weights := 0.0
	for i := range r.soft {
		weights += r.soft[i].weight()
	}
	for i := range r.soft {
		c := &r.soft[i]
		part := softPart{criterion: c, share: c.weight() / weights, graded: c.Operator == "min" || c.Operator == "max", column: -1}
		if c.attribute.number != nil {
			part.column = m.at(x, c.attribute, c.argument)
		}
		m.soft = append(m.soft, part)
	}
	if o == nil {
		return
	}
	m.steps = o.Steps
	for i, list := range o.terms {
		for _, t := range list {
			m.terms[i] = append(m.terms[i], termPart{t, m.at(x, t.attribute, t.argument)})
		}
	}
}

// mark works out the mark of a place; false is that it does not take part.
func (m *marker) mark(p *at) (Mark, bool) {
	out := Mark{Soft: 1}
	if e := m.extra; e != nil {
		v, ok := e.attribute.number(p, e.argument)
		if !ok || math.IsNaN(v) || math.IsInf(v, 0) {
			return out, false
		}
		if !e.more {
			v = -v
		}
		out.Sum = v
		return out, true
	}
	if len(m.soft) > 0 {
		sum := 0.0
		for i := range m.soft {
			s := &m.soft[i]
			if s.graded {
				sum += float64(s.share * s.scale.Grade(s.criterion.value(p), s.criterion.Operator == "max"))
			} else {
				sum += float64(s.share * s.criterion.satisfied(p))
			}
		}
		out.Soft = m.step(sum)
	}
	out.Sum, out.Then = m.sum(0, p), m.sum(1, p)
	return out, true
}

// step is what policies compare, see internal/broker/policy.
func (m *marker) step(sum float64) float64 {
	sum = min(sum, 1)
	if m.steps > 0 {
		return math.Floor(max(sum, 0)*float64(m.steps) + 1e-9)
	}
	return sum
}

func (m *marker) sum(i int, p *at) float64 {
	sum := 0.0
	for j := range m.terms[i] {
		t := &m.terms[i][j]
		v, ok := t.attribute.number(p, t.argument)
		if !ok || math.IsNaN(v) {
			v = t.Unknown
		}
		sum += float64(t.Weight * min(max(v, -MaxNumber), MaxNumber))
	}
	return sum
}

// bound gives a mark that no place has more of whose numbers lie within bounds, which
// are in the order of columns. Sums are made in the order of mark, and rounding never
// turns more into less, so that a bound holds to the last bit.
func (m *marker) bound(known []bounds) Mark {
	out := Mark{Soft: 1}
	if e := m.extra; e != nil {
		b := &anything
		if e.column >= 0 {
			b = &known[e.column]
		}
		if out.Sum = b.most; !e.more {
			out.Sum = -b.least
		}
		return out
	}
	if len(m.soft) > 0 {
		sum := 0.0
		for i := range m.soft {
			s := &m.soft[i]
			if s.column < 0 {
				sum += s.share
				continue
			}
			sum += float64(s.share * s.bound(&known[s.column]))
		}
		out.Soft = m.step(sum)
	}
	out.Sum, out.Then = m.boundSum(0, known), m.boundSum(1, known)
	return out
}

func (m *marker) boundSum(i int, known []bounds) float64 {
	sum := 0.0
	for j := range m.terms[i] {
		t := &m.terms[i][j]
		b := &anything
		if t.column >= 0 {
			b = &known[t.column]
		} else if t.attribute == &roomAttribute {
			b = &roomBounds
		}
		v := b.most
		if t.Weight < 0 {
			v = b.least
		}
		v = min(max(v, -MaxNumber), MaxNumber)
		if v *= t.Weight; b.unknown {
			v = max(v, t.Weight*min(max(t.Unknown, -MaxNumber), MaxNumber))
		}
		sum += float64(v)
	}
	return sum
}

var roomBounds = bounds{interval{1, math.MaxInt32}, false}

// bound gives how well the criterion may be satisfied within bounds.
func (s *softPart) bound(b *bounds) float64 {
	if b.least > b.most {
		return 0
	}
	c := s.criterion
	if s.graded {
		if c.Operator == "max" {
			return s.scale.Grade(b.most, true)
		}
		return s.scale.Grade(b.least, false)
	}
	one := b.least == b.most
	switch c.Operator {
	case "ne":
		if one && b.least == c.numbers[0] {
			return 0
		}
		return 1
	case "lt":
		if b.least < c.numbers[0] {
			return 1
		}
	case "le":
		if b.least <= c.numbers[0] {
			return 1
		}
	case "gt":
		if b.most > c.numbers[0] {
			return 1
		}
	case "ge":
		if b.most >= c.numbers[0] {
			return 1
		}
	}
	best := 0.0
	for _, v := range c.numbers {
		x := min(max(v, b.least), b.most)
		switch {
		case x == v && (c.Operator == "eq" || c.Operator == "in"):
			return 1
		case math.IsInf(x, 0):
			continue
		case x != v:
			best = max(best, 1-math.Abs(x-v)/max(math.Abs(x), math.Abs(v)))
		default:
			best = max(best, 1)
		}
	}
	if !one {
		best += 1e-15 // the nearest number is the best, but for rounding
	}
	return min(best, nearMiss)
}
