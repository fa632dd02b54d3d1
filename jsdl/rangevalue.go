package jsdl

import (
	"iter"
	"math"

	"github.com/beevik/etree"
)

// A quantityKind says what the numbers of a RangeValue count.
type quantityKind uint8

const (
	measure quantityKind = iota // bytes, seconds, hertz: any number
	number                      // CPUs, resources: whole numbers from 1
)

// quantity reads a RangeValue and says when it can never match.
func quantity[T any](at func(*T) **RangeValue, kind quantityKind) func(*decoder, *T, *etree.Element) {
	return func(d *decoder, t *T, e *etree.Element) {
		r, before := new(RangeValue), d.told[Invalid]
		read(d, e, r, &rangeValueType)
		if d.opts.Lenient && dropNegative(r) {
			d.rule(e, Warning, "a negative bound is taken for no bound", "leave the bound out")
			if r.unconstrained() {
				return
			}
		}
		*at(t) = r
		if d.lax > 0 || d.told[Invalid] > before {
			return // a range that was not read rightly says nothing
		}
		switch {
		case r.unconstrained():
			d.rule(e, Warning, "names no number and constrains nothing", "leave it out, or give Exact, Range or a bound")
		case r.IsEmpty():
			d.rule(e, Warning, "no number lies in this range, so that no resource can match", "expected a lower bound that is not above the upper one")
		case kind == number && !r.hasCount():
			d.rule(e, Warning, "no whole number from 1 lies in this range, so that no resource can match", "expected a whole number, 1 or more")
		case kind == measure && r.negative():
			d.rule(e, Warning, "only negative numbers lie in this range, so that no resource can match", "expected a number, 0 or more")
		}
	}
}

func (r *RangeValue) hasCount() bool {
	_, ok := r.LowestInteger(1)
	return ok
}

func (r *RangeValue) negative() bool {
	for v := range r.intervals() {
		if !v.empty() && v.hi >= 0 {
			return false
		}
	}
	return true
}

// interval is a set of neighbouring numbers.
type interval struct {
	lo, hi         float64
	loOpen, hiOpen bool
}

func (v interval) empty() bool {
	return v.lo > v.hi || v.lo == v.hi && (v.loOpen || v.hiOpen)
}

func (v interval) contains(x float64) bool {
	return (x > v.lo || x == v.lo && !v.loOpen) && (x < v.hi || x == v.hi && !v.hiOpen)
}

func (r *RangeValue) unconstrained() bool {
	return r.Upper == nil && r.Lower == nil && len(r.Exact) == 0 && len(r.Ranges) == 0
}

// intervals gives the parts whose union the set is. An infinite bound is no bound.
func (r *RangeValue) intervals() iter.Seq[interval] {
	return func(yield func(interval) bool) {
		if r.unconstrained() {
			yield(between(nil, nil))
			return
		}
		if (r.Upper != nil || r.Lower != nil) && !yield(between(r.Lower, r.Upper)) {
			return
		}
		for _, x := range r.Exact {
			v := interval{lo: x.Value - x.Epsilon, hi: x.Value + x.Epsilon}
			if math.IsInf(x.Epsilon, 1) { // INF − INF is not a number
				v = between(nil, nil)
			}
			if !yield(v) {
				return
			}
		}
		for i := range r.Ranges {
			if !yield(between(&r.Ranges[i].Lower, &r.Ranges[i].Upper)) {
				return
			}
		}
	}
}

func between(lower, upper *Bound) interval {
	v := interval{lo: math.Inf(-1), hi: math.Inf(1)}
	if lower != nil {
		v.lo, v.loOpen = lower.Value, lower.Exclusive
	}
	if upper != nil {
		v.hi, v.hiOpen = upper.Value, upper.Exclusive
	}
	return v
}

// Contains reports whether x satisfies the range. An empty RangeValue constrains
// nothing; NaN satisfies nothing.
func (r *RangeValue) Contains(x float64) bool {
	for v := range r.intervals() {
		if v.contains(x) {
			return true
		}
	}
	return false
}

// IsEmpty reports whether no number satisfies the range.
func (r *RangeValue) IsEmpty() bool {
	for v := range r.intervals() {
		if !v.empty() {
			return false
		}
	}
	return true
}

// Single gives the one number that satisfies the range, if there is just one.
func (r *RangeValue) Single() (float64, bool) {
	var x float64
	found := false
	for v := range r.intervals() {
		switch {
		case v.empty():
		case v.lo != v.hi || found && x != v.lo:
			return 0, false
		default:
			x, found = v.lo, true
		}
	}
	return x, found
}

// LowestInteger gives the smallest whole number from least on that satisfies the
// range: what to ask for where one number is needed. Counts ask from 1, so that
// "at most 10" gives 1 and "at least 4" gives 4. It is false when there is none
// below 2^63.
func (r *RangeValue) LowestInteger(least int64) (int64, bool) {
	var low int64
	found := false
	for v := range r.intervals() {
		n, ok := v.lowest(least)
		if ok && (!found || n < low) {
			low, found = n, true
		}
	}
	return low, found
}

// HighestInteger gives the largest whole number, not negative, that satisfies the
// range: what to set as a limit. It is math.MaxInt64 where the bound is above
// that or missing, and false when there is none.
func (r *RangeValue) HighestInteger() (int64, bool) {
	var high int64
	found := false
	for v := range r.intervals() {
		n, ok := v.highest()
		if ok && (!found || n > high) {
			high, found = n, true
		}
	}
	return high, found
}

const two63 = 1 << 63 // the first number that int64 does not hold

func (v interval) lowest(least int64) (int64, bool) {
	n := least
	if lo := math.Ceil(v.lo); lo >= two63 {
		return 0, false
	} else if lo > -two63 {
		m := int64(lo)
		if v.loOpen && lo == v.lo {
			if m == math.MaxInt64 {
				return 0, false
			}
			m++
		}
		n = max(n, m)
	}
	return n, v.admitsBelow(n)
}

func (v interval) highest() (int64, bool) {
	hi := math.Floor(v.hi)
	if hi >= two63 {
		return math.MaxInt64, !v.empty()
	}
	if hi < 0 {
		return 0, false
	}
	n := int64(hi)
	if v.hiOpen && hi == v.hi {
		n--
	}
	return n, n >= 0 && v.admitsAbove(n)
}

// admitsBelow compares without rounding n: an int64 may lie between two doubles.
func (v interval) admitsBelow(n int64) bool {
	if v.hi >= two63 {
		return true
	}
	if v.hi < -two63 {
		return false
	}
	hi := int64(math.Floor(v.hi))
	return n < hi || n == hi && (!v.hiOpen || float64(hi) != v.hi)
}

func (v interval) admitsAbove(n int64) bool {
	if v.lo < -two63 {
		return true
	}
	if v.lo >= two63 {
		return false
	}
	lo := int64(math.Ceil(v.lo))
	return n > lo || n == lo && (!v.loOpen || float64(lo) != v.lo)
}
