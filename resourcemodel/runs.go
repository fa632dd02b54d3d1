package resourcemodel

import (
	"cmp"
	"math"
	"slices"
	"sort"

	"github.com/portolan-project/portolan/jsdl"
)

// unlimited is a bound that nothing reaches.
const unlimited = math.MaxInt64

// A run is the whole numbers from lo to hi, both included.
type run struct{ lo, hi int64 }

// runs are the whole numbers of a range, in order and apart from each other.
type runs []run

// runsOf gives the whole numbers of a range from least on. Each part of a RangeValue
// is one run, and those that touch are joined.
func runsOf(r *jsdl.RangeValue, least int64) runs {
	var out runs
	add := func(part *jsdl.RangeValue) {
		lo, ok := part.LowestInteger(least)
		hi, also := part.HighestInteger()
		if ok && also && lo <= hi {
			out = append(out, run{lo, hi})
		}
	}
	if r.Lower != nil || r.Upper != nil || len(r.Exact) == 0 && len(r.Ranges) == 0 {
		add(&jsdl.RangeValue{Lower: r.Lower, Upper: r.Upper})
	}
	for i := range r.Exact {
		add(&jsdl.RangeValue{Exact: r.Exact[i : i+1]})
	}
	for i := range r.Ranges {
		add(&jsdl.RangeValue{Ranges: r.Ranges[i : i+1]})
	}
	slices.SortFunc(out, func(a, b run) int { return cmp.Compare(a.lo, b.lo) })
	joined := out[:0]
	for _, v := range out {
		if n := len(joined); n > 0 && (joined[n-1].hi == unlimited || v.lo <= joined[n-1].hi+1) {
			joined[n-1].hi = max(joined[n-1].hi, v.hi)
			continue
		}
		joined = append(joined, v)
	}
	return joined
}

// from gives the first number of the set that is n or more.
func (s runs) from(n int64) (int64, bool) {
	i := sort.Search(len(s), func(i int) bool { return s[i].hi >= n })
	if i == len(s) {
		return 0, false
	}
	return max(n, s[i].lo), true
}

// nearest gives the number of the set from lo to hi that is nearest to the target,
// and how far that is: 0 where they meet.
func (s runs) nearest(lo, hi int64, target runs) (n int64, far float64, ok bool) {
	far = math.Inf(1)
	for _, v := range s {
		a, b := max(v.lo, lo), min(v.hi, hi)
		if a > b {
			continue
		}
		for _, t := range target {
			m := min(max(t.lo, a), b)
			d := distance(m, t)
			if !ok || d < far {
				n, far, ok = m, d, true
			}
		}
	}
	return n, far, ok
}

// distance is how far a number is from a run, relative to the run's nearer end.
func distance(n int64, t run) float64 {
	switch {
	case n < t.lo:
		return (float64(t.lo) - float64(n)) / max(float64(t.lo), 1)
	case n > t.hi:
		return (float64(n) - float64(t.hi)) / max(float64(t.hi), 1)
	}
	return 0
}

// ceil divides, rounding up; neither is negative, and by is not 0.
func ceil(n, by int64) int64 {
	q := n / by
	if n%by > 0 {
		q++
	}
	return q
}

// times multiplies what is not negative; what is too large is unlimited.
func times(a, b int64) int64 {
	if a == 0 || b == 0 {
		return 0
	}
	if a > unlimited/b {
		return unlimited
	}
	return a * b
}
