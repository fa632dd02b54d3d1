package resourcemodel

import "math"

// SoftScore grades candidates by the request's soft criteria, each from 0 to 1, in their
// order: the satisfactions of the criteria, weighted by their priorities and divided by
// the sum of these. Without soft criteria all are 1.
//
// A criterion is satisfied wholly where it is met, else by as much as the number there is
// near to what was asked; a word or a boolean is met or not. min and max are normalised over the candidates:
// 1 for the best of them, 0 for the worst, and 1 for all where they are alike. What is not
// known satisfies nothing.
func (r *Request) SoftScore(cands []Where, d Derived) []float64 {
	out := make([]float64, len(cands))
	if len(r.soft) == 0 {
		for i := range out {
			out[i] = 1
		}
		return out
	}
	places := make([]at, len(cands))
	for i, w := range cands {
		places[i].set(w, r, &d)
	}
	weights := 0.0
	for i := range r.soft {
		weights += r.soft[i].weight()
	}
	values := make([]float64, len(cands))
	for i := range r.soft {
		c := &r.soft[i]
		share := c.weight() / weights
		if c.Operator != "min" && c.Operator != "max" {
			for j := range places {
				out[j] += share * c.satisfied(&places[j])
			}
			continue
		}
		for j := range places {
			values[j] = c.value(&places[j])
		}
		scale := Scale(values)
		for j, x := range values {
			out[j] += share * scale.Grade(x, c.Operator == "max")
		}
	}
	for i, x := range out {
		out[i] = min(x, 1) // the shares may add up to a little more
	}
	return out
}

// defaultPriority is a soft criterion's without one.
const defaultPriority = 100

func (c *criterion) weight() float64 {
	if c.Priority <= 0 {
		return defaultPriority
	}
	return float64(c.Priority)
}

// value gives the number that min and max compare; NaN is not known.
func (c *criterion) value(p *at) float64 {
	if x, ok := c.attribute.number(p, c.argument); ok {
		return x
	}
	return math.NaN()
}

// Range is what numbers lie between.
type Range struct {
	lo, hi float64 // of those that are finite
	any    bool
}

// Scale gives the range of the numbers; NaN is none of them.
func Scale(values []float64) Range {
	s := Range{lo: math.Inf(1), hi: math.Inf(-1)}
	for _, x := range values {
		if !math.IsNaN(x) && !math.IsInf(x, 0) {
			s.lo, s.hi, s.any = min(s.lo, x), max(s.hi, x), true
		}
	}
	return s
}

// Grade puts a number of the range between 0 and 1, more being better or less. No limit
// at all, an infinite number, is as good or as bad as it gets; NaN is 0.
func (s Range) Grade(x float64, more bool) float64 {
	switch {
	case math.IsNaN(x):
		return 0
	case math.IsInf(x, 0):
		if (x > 0) == more || !s.any {
			return 1
		}
		return 0
	case s.hi == s.lo:
		return 1
	}
	g := (x - s.lo) / (s.hi - s.lo)
	if !more {
		g = 1 - g
	}
	return min(max(g, 0), 1)
}
