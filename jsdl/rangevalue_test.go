package jsdl

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

func at(v float64, exclusive bool) *Bound { return &Bound{Value: v, Exclusive: exclusive} }

func TestPickingOneNumber(t *testing.T) {
	inf := math.Inf(1)
	for _, c := range []struct {
		name            string
		r               RangeValue
		low, high       int64
		lowOK, highOK   bool
		single          float64
		singleOK, empty bool
	}{
		{"nothing said", RangeValue{}, 1, math.MaxInt64, true, true, 0, false, false},
		{"at most 10", RangeValue{Upper: at(10, false)}, 1, 10, true, true, 0, false, false},
		{"below 10", RangeValue{Upper: at(10, true)}, 1, 9, true, true, 0, false, false},
		{"at least 4", RangeValue{Lower: at(4, false)}, 4, math.MaxInt64, true, true, 0, false, false},
		{"above 4", RangeValue{Lower: at(4, true)}, 5, math.MaxInt64, true, true, 0, false, false},
		{"2.5 to 7.5", RangeValue{Lower: at(2.5, false), Upper: at(7.5, false)}, 3, 7, true, true, 0, false, false},
		{"exactly 4.0", RangeValue{Exact: []Exact{{Value: 4}}}, 4, 4, true, true, 4, true, false},
		{"exactly 1.5", RangeValue{Exact: []Exact{{Value: 1.5}}}, 0, 0, false, false, 1.5, true, false},
		{"1.5 give or take a half", RangeValue{Exact: []Exact{{Value: 1.5, Epsilon: 0.5}}}, 1, 2, true, true, 0, false, false},
		{"8 or 4", RangeValue{Exact: []Exact{{Value: 8}, {Value: 4}}}, 4, 8, true, true, 0, false, false},
		{"4 or 4", RangeValue{Exact: []Exact{{Value: 4}, {Value: 4}}}, 4, 4, true, true, 4, true, false},
		{"none", RangeValue{Lower: at(5, false), Upper: at(4, false)}, 0, 0, false, false, 0, false, true},
		{"none, or 3", RangeValue{Lower: at(5, false), Upper: at(4, false), Exact: []Exact{{Value: 3}}}, 3, 3, true, true, 3, true, false},
		{"between 2 and 3, both out", RangeValue{Ranges: []Range{{Lower: *at(2, true), Upper: *at(3, true)}}}, 0, 0, false, false, 0, false, false},
		{"a point, one end out", RangeValue{Ranges: []Range{{Lower: *at(2, true), Upper: *at(2, false)}}}, 0, 0, false, false, 0, false, true},
		{"zero", RangeValue{Exact: []Exact{{Value: 0}}}, 0, 0, false, true, 0, true, false},
		{"negative", RangeValue{Upper: at(-1, false)}, 0, 0, false, false, 0, false, false},
		{"infinite bounds", RangeValue{Lower: at(-inf, false), Upper: at(inf, true)}, 1, math.MaxInt64, true, true, 0, false, false},
		{"exactly infinite", RangeValue{Exact: []Exact{{Value: inf}}}, 0, math.MaxInt64, false, true, inf, true, false},
		{"any width", RangeValue{Exact: []Exact{{Value: inf, Epsilon: inf}}}, 1, math.MaxInt64, true, true, 0, false, false},
		{"nothing beyond int64", RangeValue{Lower: at(1e30, false), Upper: at(1e30, true)}, 0, 0, false, false, 0, false, true},
		{"beyond int64", RangeValue{Lower: at(1e30, false)}, 0, math.MaxInt64, false, true, 0, false, false},
		{"below 2^63", RangeValue{Upper: at(1<<63, true)}, 1, math.MaxInt64, true, true, 0, false, false},
	} {
		low, ok := c.r.LowestInteger(1)
		if low != c.low || ok != c.lowOK {
			t.Errorf("%s: lowest %d, %v; want %d, %v", c.name, low, ok, c.low, c.lowOK)
		}
		high, ok := c.r.HighestInteger()
		if high != c.high || ok != c.highOK {
			t.Errorf("%s: highest %d, %v; want %d, %v", c.name, high, ok, c.high, c.highOK)
		}
		single, ok := c.r.Single()
		if single != c.single || ok != c.singleOK {
			t.Errorf("%s: single %v, %v; want %v, %v", c.name, single, ok, c.single, c.singleOK)
		}
		if got := c.r.IsEmpty(); got != c.empty {
			t.Errorf("%s: empty %v", c.name, got)
		}
	}
	if new(RangeValue).Contains(math.NaN()) {
		t.Error("NaN satisfies something")
	}
}

// The picks against trying every number.
func TestPicksAgainstEnumeration(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.Custom(func(t *rapid.T) float64 { return float64(rapid.IntRange(-12, 40).Draw(t, "quarters")) / 4 })
		bound := rapid.Custom(func(t *rapid.T) *Bound {
			return &Bound{Value: value.Draw(t, "v"), Exclusive: rapid.Bool().Draw(t, "x")}
		})
		var r RangeValue
		if rapid.Bool().Draw(t, "upper") {
			r.Upper = bound.Draw(t, "u")
		}
		if rapid.Bool().Draw(t, "lower") {
			r.Lower = bound.Draw(t, "l")
		}
		for range rapid.IntRange(0, 2).Draw(t, "exacts") {
			r.Exact = append(r.Exact, Exact{Value: value.Draw(t, "e"), Epsilon: float64(rapid.IntRange(0, 8).Draw(t, "w")) / 4})
		}
		for range rapid.IntRange(0, 2).Draw(t, "ranges") {
			r.Ranges = append(r.Ranges, Range{Lower: *bound.Draw(t, "a"), Upper: *bound.Draw(t, "b")})
		}
		least := int64(rapid.IntRange(0, 3).Draw(t, "least"))
		low, lowOK := int64(0), false
		for n := least; n < 64; n++ {
			if r.Contains(float64(n)) {
				low, lowOK = n, true
				break
			}
		}
		if got, ok := r.LowestInteger(least); got != low || ok != lowOK {
			t.Fatalf("lowest from %d of %+v: got %d, %v; want %d, %v", least, r, got, ok, low, lowOK)
		}
		high, highOK := int64(0), false
		for n := int64(63); n >= 0; n-- {
			if r.Contains(float64(n)) {
				high, highOK = n, true
				break
			}
		}
		if high == 63 {
			high = math.MaxInt64
		}
		if got, ok := r.HighestInteger(); got != high || ok != highOK {
			t.Fatalf("highest of %+v: got %d, %v; want %d, %v", r, got, ok, high, highOK)
		}
		if r.IsEmpty() && (lowOK || highOK) {
			t.Fatalf("%+v is empty but holds a number", r)
		}
	})
}
