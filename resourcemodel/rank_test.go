package resourcemodel

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/portolan-project/portolan/jsdl"
)

func soft(name, kind, operator, value string, priority int) jsdl.Criterion {
	return jsdl.Criterion{Name: name, Type: kind, Operator: operator, Value: value, Priority: priority}
}

// Three places that differ in speed, price and what is free.
func three() []Where {
	var out []Where
	for i, speed := range []float64{1e9, 2e9, 3e9} {
		s := hpc()
		s.Static.Environments[0].CPUSpeed = speed
		s.Static.Shares[0].Price = float64(i)
		n := s.Dynamic.Environments["thin"]
		n.FreeCPUs = 8 * (3 - i)
		s.Dynamic.Environments["thin"] = n
		out = append(out, s.where("long"))
	}
	return out
}

func TestSoftScore(t *testing.T) {
	for _, c := range []struct {
		name string
		list []jsdl.Criterion
		want []float64
	}{
		{"none", nil, []float64{1, 1, 1}},
		{"max", []jsdl.Criterion{soft("CPUSpeed", "decimal", "max", "", 100)}, []float64{0, 0.5, 1}},
		{"min", []jsdl.Criterion{soft("Price", "decimal", "min", "", 100)}, []float64{1, 0.5, 0}},
		{"alike", []jsdl.Criterion{soft("Memory", "integer", "max", "", 100)}, []float64{1, 1, 1}},
		{"without limit", []jsdl.Criterion{soft("MaxNodes", "integer", "max", "", 100)}, []float64{1, 1, 1}},
		{"unknown", []jsdl.Criterion{soft("Bandwidth", "decimal", "max", "", 100)}, []float64{0, 0, 0}},
		{"weights", []jsdl.Criterion{soft("CPUSpeed", "decimal", "max", "", 300), soft("Price", "decimal", "min", "", 100)}, []float64{0.25, 0.5, 0.75}},
		{"without a priority it is 100", []jsdl.Criterion{soft("CPUSpeed", "decimal", "max", "", 0), soft("Price", "decimal", "min", "", 100)}, []float64{0.5, 0.5, 0.5}},
		{"graded", []jsdl.Criterion{soft("FreeCPUs", "integer", "ge", "16", 100)}, []float64{1, 1, 0.5}},
		{"by the job", []jsdl.Criterion{soft("JobPrice", "decimal", "min", "", 100)}, []float64{1, 0.5, 0}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := CompileWith(document(t, ""), Subject{}, &jsdl.Criteria{List: c.list})
			if err != nil {
				t.Fatal(err)
			}
			got := r.SoftScore(three(), Derived{Now: noon})
			for i := range got {
				if math.Abs(got[i]-c.want[i]) > 1e-9 {
					t.Fatalf("%v, want %v", got, c.want)
				}
			}
		})
	}
}

// Scores lie between 0 and 1 and do not depend on the order of the candidates or on the
// scale of the priorities.
func TestSoftScoreProperties(t *testing.T) {
	for i := range 2000 {
		c := chance{rand.New(rand.NewPCG(uint64(i), 11))}
		var list, scaled []jsdl.Criterion
		for range 1 + c.IntN(5) {
			one := pick(c,
				soft("CPUSpeed", "decimal", pick(c, "max", "min"), "", 1+c.IntN(100)), soft("FreeCPUs", "integer", pick(c, "ge", "le", "eq", "ne"), "5", 1+c.IntN(100)),
				soft("OperatingSystem", "string", "eq", "LINUX", 1+c.IntN(100)), soft("MaxNodes", "integer", pick(c, "max", "min"), "", 1+c.IntN(100)),
				soft("EstimatedWait", "duration", pick(c, "min", "lt"), "PT5S", 1+c.IntN(100)), soft("Open", "boolean", "eq", "true", 1+c.IntN(100)))
			if one.Operator == "min" || one.Operator == "max" {
				one.Value = ""
			}
			list = append(list, one)
			one.Priority *= 7
			scaled = append(scaled, one)
		}
		def := document(t, "")
		r, err := CompileWith(def, Subject{}, &jsdl.Criteria{List: list})
		if err != nil {
			t.Fatal(err)
		}
		r7, err := CompileWith(def, Subject{}, &jsdl.Criteria{List: scaled})
		if err != nil {
			t.Fatal(err)
		}
		var places []Where
		for n := range 1 + c.IntN(6) {
			w := c.place()
			w.Share.ID = string(rune('s' + n))
			places = append(places, w)
		}
		d := Derived{Now: noon, Wait: func(p Place, _ *Need) (time.Duration, bool) {
			return time.Duration(p.Share[0]) * time.Second, p.Share != "t"
		}}
		a, b := r.SoftScore(places, d), r7.SoftScore(places, d)
		slices.Reverse(places)
		back := r.SoftScore(places, d)
		slices.Reverse(back)
		for j := range a {
			if math.IsNaN(a[j]) || a[j] < 0 || a[j] > 1 || math.Abs(a[j]-b[j]) > 1e-9 || math.Abs(a[j]-back[j]) > 1e-9 {
				t.Fatalf("seed %d: %v, scaled %v, in the other order %v: %+v", i, a, b, back, list)
			}
		}
	}
}
