package policy

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/resourcemodel"
)

func mustChoice(t testing.TB, text string) Choice {
	t.Helper()
	s, err := ParseSetting(text)
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewChoice(s)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func place(site string) resourcemodel.Place {
	return resourcemodel.Place{Key: resourcemodel.Key{Site: site}, Share: "s", Environment: "e"}
}

// known makes a Derived of tables by site; what is not in one is not known.
func known(wait map[string]time.Duration, success, distance, performance map[string]float64) resourcemodel.Derived {
	of := func(m map[string]float64, p resourcemodel.Place) (float64, bool) { x, ok := m[p.Site]; return x, ok }
	return resourcemodel.Derived{
		Now: epoch,
		Wait: func(p resourcemodel.Place, _ *resourcemodel.Need) (time.Duration, bool) {
			x, ok := wait[p.Site]
			return x, ok
		},
		SuccessRate: func(p resourcemodel.Place) (float64, bool) { return of(success, p) },
		Distance:    func(p resourcemodel.Place, _ *resourcemodel.Request) (float64, bool) { return of(distance, p) },
		Performance: func(p resourcemodel.Place) (float64, bool) { return of(performance, p) },
	}
}

func sites(cands []Candidate, ranked []Ranked) string {
	var out []string
	for _, r := range ranked {
		out = append(out, cands[r.Candidate].Place.Site)
	}
	return strings.Join(out, " ")
}

func TestChoices(t *testing.T) {
	d := known(
		map[string]time.Duration{"a": time.Hour, "c": 2 * time.Minute},
		map[string]float64{"a": 1, "b": 0.2, "c": 0.9},
		map[string]float64{"b": 3, "c": 10, "d": 3},
		map[string]float64{"a": 4, "b": 1, "c": 0.5},
	)
	gib := int64(1 << 30)
	cands := []Candidate{
		{Place: place("a"), Order: 0, Free: 0, Load: 1.5, Share: &resourcemodel.Share{Price: 3}},
		{Place: place("b"), Order: 1, Free: 4, Load: 0.5, Share: &resourcemodel.Share{Price: 3}, Nodes: resourcemodel.EnvironmentState{Nodes: 4, FreeCPUs: 8, FreeMemory: 200 * gib}},
		{Place: place("c"), Order: 2, Free: 9, Load: 0.9, Share: &resourcemodel.Share{Price: 5}, Nodes: resourcemodel.EnvironmentState{Nodes: 4, FreeCPUs: 18, FreeMemory: 20 * gib}},
		{Place: place("d"), Order: 3, Free: 0, Load: 1.2, Share: &resourcemodel.Share{Price: 1}, State: resourcemodel.ShareState{Forecast: time.Minute}},
		{Place: place("e"), Order: 4, Free: 4, Load: 0.1, Share: &resourcemodel.Share{Price: 4}, Nodes: resourcemodel.EnvironmentState{Nodes: 4, FreeCPUs: 8, FreeMemory: 20 * gib, FreeGPUs: 1}},
	}
	for i := range cands {
		cands[i].Soft, cands[i].Derived = 1, d
	}
	j := &Job{ID: "1", Length: 2 * time.Hour, CPUs: 2, Request: &resourcemodel.Request{Need: resourcemodel.Need{CPUs: 2, Memory: 4 * gib}}}
	for _, c := range []struct{ policy, want string }{
		{"least-loaded", "c b e d a"},
		{"first-fit", "b c e a d"},
		// Left are, as CPUs, GiB and GPUs: b 6 196 0, c 16 16 0, e 6 16 1.
		{"best-fit", "c e b d a"},
		{"best-fit{memory=0}", "b c e d a"},
		{"best-fit{memory=0,gpu=0}", "b e c d a"},
		{"earliest-start", "b e d c a"}, // 0 0 1m 2m 1h; b and e are alike: the configuration decides
		{"earliest-start{finish=on}", "a b e d c"},
		{"data-affinity", "b d c e a"}, // 3 3 10, and not known
		{"data-affinity{unknown=5}", "b d e a c"},
		{"cheapest", "d b a e c"},
		{"cheapest{speed=on}", "a d b e c"}, // 0.75 1 3 4 10
		{"best-broker{room=0,wait=0,speed=0}", "a c d e b"},
		{"best-broker{room=0,wait=0,success=0}", "a b d e c"},
		{"best-broker{wait=0,speed=0,success=0}", "c b e a d"},
		{"best-broker{room=0,speed=0,success=0}", "b e d c a"},
	} {
		if got := sites(cands, Rank(j, cands, mustChoice(t, c.policy), epoch)); got != c.want {
			t.Errorf("%s: %s, want %s", c.policy, got, c.want)
		}
	}
	// Soft criteria go before, in steps.
	cands[3].Soft, cands[0].Soft, cands[1].Soft = 0.9, 0.91, 0.3
	if got, want := sites(cands, Rank(j, cands, mustChoice(t, "least-loaded"), epoch)), "c e d a b"; got != want {
		t.Errorf("with soft criteria: %s, want %s", got, want)
	}
}

// TestBestBrokerDoubts: of two that tell the same, the one that tells it finer is better.
func TestBestBrokerDoubts(t *testing.T) {
	of := func(name string, d resourcemodel.Detail) Candidate {
		return Candidate{Place: place(name), Free: 5, Soft: 1, Site: &resourcemodel.Site{Static: &resourcemodel.Static{Stamp: resourcemodel.Stamp{Detail: d}}}}
	}
	cands := []Candidate{of("simple", resourcemodel.Simple), of("full", resourcemodel.Full), of("categories", resourcemodel.Categorized)}
	if got, want := sites(cands, Rank(&Job{}, cands, mustChoice(t, "best-broker"), epoch)), "full categories simple"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

type scores []float64

func (s scores) Score(*Job, []Candidate, time.Time) []float64 { return s }

func TestRankLeavesOut(t *testing.T) {
	cands := []Candidate{{Place: place("a"), Soft: 1}, {Place: place("b"), Soft: math.NaN()}, {Place: place("c"), Soft: 0}}
	if got := sites(cands, Rank(&Job{}, cands, scores{math.NaN(), 1, 2}, epoch)); got != "c b" {
		t.Errorf("%s", got)
	}
	if _, ok := Best(&Job{}, cands, scores{math.NaN(), math.NaN(), math.NaN()}, epoch); ok {
		t.Error("there is a best of none")
	}
	if got := sites(cands, Rank(&Job{}, cands, scores{1}, epoch)); got != "a" {
		t.Errorf("a policy that tells too few scores: %s", got)
	}
	for _, c := range []struct {
		soft float64
		want int
	}{{0, 0}, {1, 20}, {2, 20}, {-1, 0}, {0.3, 6}, {0.1 + 0.2, 6}, {0.2999, 5}, {math.Inf(1), 20}} {
		if got := SoftStep(c.soft); got != c.want {
			t.Errorf("step of %v is %d, want %d", c.soft, got, c.want)
		}
	}
}

// anyCandidates draws places that are all different.
func anyCandidates(t *rapid.T, n int) []Candidate {
	var d resourcemodel.Derived
	wait, success, distance, performance := map[string]time.Duration{}, map[string]float64{}, map[string]float64{}, map[string]float64{}
	if rapid.Bool().Draw(t, "known") {
		d = known(wait, success, distance, performance)
	}
	out := make([]Candidate, n)
	for i := range out {
		name := fmt.Sprint("s", i)
		wait[name] = time.Duration(rapid.IntRange(0, 9).Draw(t, "wait")) * time.Minute
		success[name], distance[name] = rapid.Float64Range(0, 1).Draw(t, "success"), float64(rapid.IntRange(0, 3).Draw(t, "distance"))
		performance[name] = rapid.Float64Range(0, 3).Draw(t, "performance")
		out[i] = Candidate{
			Place: place(name), Order: rapid.IntRange(0, 3).Draw(t, "order"), Free: rapid.IntRange(0, 3).Draw(t, "free"),
			Load: rapid.Float64Range(0, 5).Draw(t, "load"), Soft: rapid.Float64Range(0, 1).Draw(t, "soft"), Derived: d,
			Nodes: resourcemodel.EnvironmentState{Nodes: rapid.IntRange(0, 1).Draw(t, "nodes"), FreeCPUs: rapid.IntRange(0, 64).Draw(t, "CPUs"), FreeMemory: rapid.Int64Range(0, 1<<40).Draw(t, "memory")},
		}
		if rapid.Bool().Draw(t, "share") {
			out[i].Share = &resourcemodel.Share{Price: float64(rapid.IntRange(0, 4).Draw(t, "price"))}
		}
	}
	return out
}

// TestScoreProperties: a score is a number and belongs to the candidate, wherever it
// stands and whoever stands beside it; a ranking is the same for any order.
func TestScoreProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := rapid.SampledFrom(slices.DeleteFunc(Catalogue(), func(d Description) bool { return d.Kind != Selection })).Draw(t, "policy")
		c, err := NewChoice(Setting{Name: d.Name})
		if err != nil {
			t.Fatal(err)
		}
		cands := anyCandidates(t, rapid.IntRange(1, 8).Draw(t, "n"))
		j := anyJob(t, 1)
		if rapid.Bool().Draw(t, "request") {
			j.Request = &resourcemodel.Request{Need: resourcemodel.Need{CPUs: j.CPUs, Memory: 1 << 33}}
		}
		all := c.Score(j, cands, epoch)
		for i := range cands {
			alone := c.Score(j, cands[i:i+1], epoch)
			if math.IsNaN(all[i]) || math.IsInf(all[i], 0) || alone[0] != all[i] {
				t.Fatalf("%s gives %v, and %v alone", d.Name, all[i], alone[0])
			}
		}
		want := Rank(j, cands, c, epoch)
		order := rapid.Permutation(indices(len(cands))).Draw(t, "permutation")
		other := make([]Candidate, len(cands))
		for to, from := range order {
			other[to] = cands[from]
		}
		got := Rank(j, other, c, epoch)
		if sites(cands, want) != sites(other, got) {
			t.Fatalf("%s: %s, and %s in another order", d.Name, sites(cands, want), sites(other, got))
		}
		if b, ok := Best(j, other, c, epoch); !ok || b != got[0] {
			t.Fatalf("the best is %+v, and the first %+v", b, got[0])
		}
		for i := 1; i < len(want); i++ {
			a, b := want[i-1], want[i]
			if a.Step < b.Step || a.Step == b.Step && a.Score < b.Score {
				t.Fatalf("%+v before %+v", a, b)
			}
		}
	})
}

func indices(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// TestLeastLoadedIsOfBefore: the default decides as the broker did before it had
// policies: more free slots, else the smaller load for each slot.
func TestLeastLoadedIsOfBefore(t *testing.T) {
	better := func(slots, load, otherSlots, otherLoad int) bool {
		if free, other := slots-load, otherSlots-otherLoad; free > 0 || other > 0 {
			return free > other
		}
		return load*otherSlots < otherLoad*slots
	}
	choice := mustChoice(t, "least-loaded")
	of := func(slots, load int) Candidate {
		return Candidate{Free: max(0, slots-load), Load: float64(load) / float64(slots)}
	}
	for a := 1; a < 6; a++ {
		for la := range 9 {
			for b := 1; b < 6; b++ {
				for lb := range 9 {
					s := choice.Score(&Job{}, []Candidate{of(a, la), of(b, lb)}, epoch)
					if got, want := s[0] > s[1], better(a, la, b, lb); got != want {
						t.Fatalf("%d of %d against %d of %d: better is %v, want %v", la, a, lb, b, got, want)
					}
				}
			}
		}
	}
}

func BenchmarkScore(b *testing.B) {
	d := known(map[string]time.Duration{"s1": time.Hour}, map[string]float64{"s1": 0.5}, map[string]float64{"s1": 2}, map[string]float64{"s1": 2})
	cands := make([]Candidate, 100)
	for i := range cands {
		cands[i] = Candidate{Place: place(fmt.Sprint("s", i%3)), Order: i, Free: i % 7, Load: float64(i % 5), Soft: 1, Share: &resourcemodel.Share{Price: 1}, Derived: d}
	}
	j := &Job{CPUs: 2, Length: time.Hour, Request: &resourcemodel.Request{Need: resourcemodel.Need{CPUs: 2}}}
	for _, desc := range Catalogue() {
		if desc.Kind != Selection {
			continue
		}
		b.Run(desc.Name, func(b *testing.B) {
			c := mustChoice(b, desc.Name)
			b.ReportAllocs()
			for b.Loop() {
				c.Score(j, cands, epoch)
			}
		})
	}
}
