package resourcemodel

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/jsdl"
)

// A criterion of any text is refused or judged, and its soft degree lies between 0 and 1.
func FuzzCriterion(f *testing.F) {
	f.Add("FreeCPUs", "integer", "ge", "4")
	f.Add("Benchmark:hepspec", "decimal", "in", "1 2 3")
	f.Add("MaxWallTime", "duration", "lt", "P1DT2H3M4.5S")
	f.Add("OperatingSystem", "string", "matches", "(LIN|A)[UX]+")
	f.Add("Up", "boolean", "ne", "0")
	site := hpc()
	f.Fuzz(func(t *testing.T, name, kind, operator, value string) {
		one := jsdl.Criterion{Name: name, Type: kind, Operator: operator, Value: value}
		c, err := compileCriterion(one)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "resourcemodel.Compile: invalid Criterion ") {
				t.Fatal(err)
			}
			return
		}
		r, err := CompileWith(&jsdl.JobDefinition{}, Subject{}, &jsdl.Criteria{List: []jsdl.Criterion{one}})
		if err != nil {
			t.Fatal(err)
		}
		w, d := site.where("long"), Derived{}
		if s := r.SoftScore([]Where{w}, d)[0]; math.IsNaN(s) || s < 0 || s > 1 {
			t.Fatalf("%+v is satisfied by %g", one, s)
		}
		var p at
		p.set(w, r, &d)
		if operator != "min" && operator != "max" && (c.satisfied(&p) == 1) != c.met(&p) {
			t.Fatalf("%+v: met %v, degree %g", one, c.met(&p), c.satisfied(&p))
		}
	})
}

// Ranges of any numbers and as broken as can be: the whole numbers of a range are those
// that it contains, and judging ends.
func FuzzRuns(f *testing.F) {
	f.Add(1.0, 4.0, 2.5, 0.5, 3.0, 9.0, int64(3))
	f.Add(-1.0, math.Inf(1), 0.0, 0.0, 1e300, -1e300, int64(1<<60))
	f.Fuzz(func(t *testing.T, lower, upper, value, epsilon, from, to float64, n int64) {
		if slices.ContainsFunc([]float64{lower, upper, value, epsilon, from, to}, math.IsNaN) {
			return // which no document has
		}
		r := &jsdl.RangeValue{
			Lower: &jsdl.Bound{Value: lower, Exclusive: n%2 == 0}, Upper: &jsdl.Bound{Value: upper, Exclusive: n%3 == 0},
			Exact: []jsdl.Exact{{Value: value, Epsilon: math.Abs(epsilon)}}, Ranges: []jsdl.Range{{Lower: jsdl.Bound{Value: from}, Upper: jsdl.Bound{Value: to}}},
		}
		set := runsOf(r, 0)
		for i, v := range set {
			if v.lo > v.hi || v.lo < 0 || i > 0 && v.lo <= set[i-1].hi+1 {
				t.Fatalf("%v are no runs", set)
			}
		}
		if n < 0 || n > 1<<53 || math.IsInf(value, 0) {
			return // no double, or beyond what doubles tell apart
		}
		m, ok := set.from(n)
		if got := ok && m == n; got != r.Contains(float64(n)) {
			t.Fatalf("%s: %d is in it %v, by its runs %v %v", exactly(r), n, r.Contains(float64(n)), set, got)
		}
	})
}

// A document of ranges in thousands of pieces that do not go together is judged all the
// same: without a bound this would take days.
func TestBrokenRanges(t *testing.T) {
	pieces := func(first, step float64) *jsdl.RangeValue {
		r := new(jsdl.RangeValue)
		for i := range 4000 {
			r.Exact = append(r.Exact, jsdl.Exact{Value: first + step*float64(i)})
		}
		return r
	}
	def := document(t, "")
	def.Description.Resources = &jsdl.Resources{
		IndividualCPUCount: pieces(2, 2), TotalCPUCount: pieces(3, 4), IndividualPhysicalMemory: pieces(0, 3), TotalPhysicalMemory: pieces(1, 7),
	}
	r, err := Compile(def, Subject{})
	if err == nil { // hosts times an even number is never odd
		w := hpc().where("long")
		if v := r.Judge(w.Site, w.Share, w.Environment, Derived{}); v.Could {
			t.Errorf("%+v", v)
		}
	}
}
