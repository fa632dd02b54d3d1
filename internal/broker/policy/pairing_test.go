package policy

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/resourcemodel"
)

// anyEdges draws a small round; uneven says that jobs have different numbers free at a
// place.
func anyEdges(t *rapid.T, uneven bool) (edges [][]edge, places int) {
	places = rapid.IntRange(1, 4).Draw(t, "places")
	free := make([]int, places)
	for p := range free {
		free[p] = rapid.IntRange(1, 3).Draw(t, "free")
	}
	for range rapid.IntRange(1, 6).Draw(t, "jobs") {
		var list []edge
		for p := range places {
			if rapid.IntRange(0, 3).Draw(t, "fits") == 0 {
				continue
			}
			e := edge{place: p, free: free[p], cost: float64(rapid.IntRange(0, 12).Draw(t, "cost")), cand: len(list)}
			if uneven {
				e.free = rapid.IntRange(1, 4).Draw(t, "own free")
			}
			list = append(list, e)
		}
		slices.SortStableFunc(list, func(a, b edge) int { return int(a.cost - b.cost) })
		edges = append(edges, list)
	}
	return edges, places
}

// brute goes through all plans.
func brute(edges [][]edge, places int) plan {
	best := make(plan, len(edges))
	for i := range best {
		best[i] = -1
	}
	now := slices.Clone(best)
	var try func(i int)
	try = func(i int) {
		if i == len(edges) {
			if p, _ := broken(edges, now, places); p < 0 && cheaper(edges, now, best) {
				best = slices.Clone(now)
			}
			return
		}
		for k := -1; k < len(edges[i]); k++ {
			now[i] = k
			try(i + 1)
		}
	}
	try(0)
	return best
}

// placed counts the jobs that have a place.
func placed(p plan) (n int) {
	for _, k := range p {
		if k >= 0 {
			n++
		}
	}
	return n
}

func checkPlan(t interface {
	Helper()
	Fatalf(string, ...any)
}, edges [][]edge, p plan, places int,
) {
	t.Helper()
	if len(p) != len(edges) {
		t.Fatalf("%d of %d jobs", len(p), len(edges))
	}
	if at, free := broken(edges, p, places); at >= 0 {
		t.Fatalf("place %d has more than %d jobs: %v", at, free, p)
	}
}

func TestAssignmentIsExact(t *testing.T) {
	for _, uneven := range []bool{false, true} {
		t.Run(fmt.Sprint("uneven=", uneven), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				edges, places := anyEdges(t, uneven)
				got, exact := assign(edges, places)
				checkPlan(t, edges, got, places)
				if !exact {
					t.Fatalf("given up")
				}
				want := brute(edges, places)
				if cheaper(edges, want, got) || cheaper(edges, got, want) {
					t.Fatalf("%v costs %v, want %v of %v", got, got.cost(edges), want, want.cost(edges))
				}
				if !uneven { // then it places as many as can be
					most := 0
					now := make(plan, len(edges))
					var try func(i int)
					try = func(i int) {
						if i == len(edges) {
							if p, _ := broken(edges, now, places); p < 0 {
								most = max(most, placed(now))
							}
							return
						}
						for k := -1; k < len(edges[i]); k++ {
							now[i] = k
							try(i + 1)
						}
					}
					if len(edges) <= 4 {
						try(0)
						if placed(got) != most {
							t.Fatalf("%d are placed, and %d can be", placed(got), most)
						}
					}
				}
			})
		})
	}
}

// TestAssignmentBeatsGreedy shows what it is for: the first job has a choice, the
// second has none.
func TestAssignmentBeatsGreedy(t *testing.T) {
	edges := [][]edge{{{place: 0, free: 1, cost: 1}, {place: 1, free: 1, cost: 2}}, {{place: 0, free: 1, cost: 1}}}
	if g := greedy(edges, newRoom(2)); fmt.Sprint(g) != "[0 -1]" {
		t.Errorf("greedy: %v", g)
	}
	if a, _ := assign(edges, 2); fmt.Sprint(a) != "[1 0]" {
		t.Errorf("assignment: %v", a)
	}
}

// TestAssignmentGivesUp: when a round is beyond what can be proved, what comes out is
// good and no worse than greedy.
func TestAssignmentGivesUp(t *testing.T) {
	rng := newRand(3)
	gaveUp := 0
	for range 10 {
		const places = 12
		edges := make([][]edge, 60)
		for i := range edges {
			for p := range places {
				edges[i] = append(edges[i], edge{place: p, free: 1 + rng.IntN(9), cost: rng.Float64(), cand: p})
			}
			slices.SortFunc(edges[i], func(a, b edge) int { return int(math.Copysign(1, a.cost-b.cost)) })
		}
		got, exact := assign(edges, places)
		checkPlan(t, edges, got, places)
		if !exact {
			gaveUp++
		}
		if g := greedy(edges, newRoom(places)); cheaper(edges, g, got) {
			t.Errorf("greedy is better: %v of %v, %v of %v", placed(g), g.cost(edges), placed(got), got.cost(edges))
		}
	}
	if gaveUp == 0 {
		t.Error("no round was beyond the bound; make them larger")
	}
}

func TestGeneticIsNeverWorse(t *testing.T) {
	better := 0
	rapid.Check(t, func(t *rapid.T) {
		edges, places := anyEdges(t, rapid.Bool().Draw(t, "uneven"))
		g := &genetic{balance: float64(rapid.IntRange(0, 3).Draw(t, "balance")), population: 8, generations: 10, mutation: 0.1, crossover: 0.9, chunk: 100}
		seed := rapid.Uint64().Draw(t, "seed")
		got := g.search(edges, places, newRand(seed))
		checkPlan(t, edges, got, places)
		if again := g.search(edges, places, newRand(seed)); !slices.Equal(got, again) {
			t.Fatalf("%v, and %v by the same chance", got, again)
		}
		capacity := make([]int, places)
		for _, list := range edges {
			for _, e := range list {
				capacity[e.place] = max(capacity[e.place], e.free)
			}
		}
		start := g.weigh(edges, greedy(edges, newRoom(places)), capacity)
		end := g.weigh(edges, got, capacity)
		if start.less(end) {
			t.Fatalf("%+v is worse than %+v, where it began", end, start)
		}
		if end.less(start) {
			better++
		}
		// The worth of the best that there is bounds it from the other side.
		if len(edges) <= 4 {
			bestWorth := end
			now := make(plan, len(edges))
			var try func(i int)
			try = func(i int) {
				if i == len(edges) {
					if p, _ := broken(edges, now, places); p < 0 {
						if w := g.weigh(edges, now, capacity); w.less(bestWorth) {
							bestWorth = w
						}
					}
					return
				}
				for k := -1; k < len(edges[i]); k++ {
					now[i] = k
					try(i + 1)
				}
			}
			try(0)
			if bestWorth.waiting < end.waiting-1 {
				t.Fatalf("%d wait, and %d need to", end.waiting, bestWorth.waiting)
			}
		}
	})
	if better == 0 {
		t.Error("it was never better than greedy")
	}
}

// TestGeneticFinds: with its defaults it comes close to the proved best of a round that
// greedy does badly.
func TestGeneticFinds(t *testing.T) {
	rng := newRand(11)
	const n = 12
	edges := make([][]edge, n)
	for i := range edges {
		for p := range n {
			edges[i] = append(edges[i], edge{place: p, free: 1, cost: float64(rng.IntN(100)), cand: p})
		}
		slices.SortStableFunc(edges[i], func(a, b edge) int { return int(a.cost - b.cost) })
	}
	m, err := NewMatchmaker(Setting{Name: "genetic"})
	if err != nil {
		t.Fatal(err)
	}
	g := *m.(*genetic)
	g.balance = 0
	start, best := greedy(edges, newRoom(n)), plan(nil)
	best, _ = assign(edges, n)
	found := g.search(edges, n, newRand(5))
	if s, f, b := start.cost(edges), found.cost(edges), best.cost(edges); !(f < s) || f-b > (s-b)/2 {
		t.Errorf("greedy costs %v, genetic %v, the best %v", s, f, b)
	}
}

// TestMatch: pairs are of candidates that have room, at most one for each job, no place
// has more than its jobs allow, in any number of chunks; and no candidate's position
// matters.
func TestMatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		setting := rapid.SampledFrom([]Setting{
			{Name: "assignment"},
			{"assignment", map[string]float64{"chunk": 2}},
			{"genetic", map[string]float64{"population": 6, "generations": 5}},
			{"genetic", map[string]float64{"population": 6, "generations": 5, "chunk": 3}},
		}).Draw(t, "policy")
		m, err := NewMatchmaker(setting)
		if err != nil {
			t.Fatal(err)
		}
		all := anyCandidates(t, 4)
		var jobs []*Job
		var cands, other [][]Candidate
		var from [][]int
		for i := range rapid.IntRange(0, 7).Draw(t, "jobs") {
			jobs = append(jobs, anyJob(t, i))
			var own []Candidate
			for _, c := range all {
				if rapid.Bool().Draw(t, "candidate") {
					if rapid.Bool().Draw(t, "less") {
						c.Free = min(c.Free, 1)
					}
					own = append(own, c)
				}
			}
			cands = append(cands, own)
			order := indices(len(own))
			if len(own) > 1 {
				order = rapid.Permutation(order).Draw(t, "permutation")
			}
			moved := make([]Candidate, len(own))
			for to, at := range order {
				moved[to] = own[at]
			}
			other, from = append(other, moved), append(from, order)
		}
		pairs := m.Match(jobs, cands, epoch, newRand(1))
		taken, most, seen := map[resourcemodel.Place]int{}, map[resourcemodel.Place]int{}, map[int]bool{}
		for _, p := range pairs {
			if seen[p.Job] {
				t.Fatalf("job %d has two places", p.Job)
			}
			seen[p.Job] = true
			c := cands[p.Job][p.Candidate]
			if taken[c.Place]++; taken[c.Place] == 1 || c.Free < most[c.Place] {
				most[c.Place] = c.Free
			}
		}
		for p, n := range taken {
			if n > most[p] {
				t.Fatalf("%s: %v has %d jobs, and one of them has %d free there", setting, p, n, most[p])
			}
		}
		for i := range jobs {
			for _, c := range cands[i] {
				if !seen[i] && c.Free > taken[c.Place] && (taken[c.Place] == 0 || most[c.Place] > taken[c.Place]) {
					t.Fatalf("%s: job %d waits though %v has room", setting, i, c.Place)
				}
			}
		}
		again := m.Match(jobs, other, epoch, newRand(1))
		if len(again) != len(pairs) {
			t.Fatalf("%v, and %v of other orders", pairs, again)
		}
		for i, p := range again {
			if p.Job != pairs[i].Job || from[p.Job][p.Candidate] != pairs[i].Candidate {
				t.Fatalf("%s: %v, and %v of other orders", setting, pairs, again)
			}
		}
	})
}

// TestJudge: each weight makes assignment look at what it names, and soft criteria
// go before all of them.
func TestJudge(t *testing.T) {
	d := known(map[string]time.Duration{"a": time.Hour, "b": 0, "c": 0, "d": 0, "e": 0, "f": 0}, map[string]float64{"a": 1, "b": 1, "c": 1, "d": 1, "e": 0.5, "f": 1},
		map[string]float64{"a": 1, "b": 1, "c": 9, "d": 1, "e": 1, "f": 1}, map[string]float64{"a": 2, "b": 2, "c": 2, "d": 1, "e": 2, "f": 2})
	// Each of a to e is worse than f in one thing.
	var all []Candidate
	for i, name := range []string{"a", "b", "c", "d", "e", "f"} {
		c := Candidate{Place: place(name), Order: i, Free: 4, Soft: 1, Derived: d, Share: &resourcemodel.Share{Price: 1}}
		if name == "b" {
			c.Share = &resourcemodel.Share{Price: 2}
		}
		all = append(all, c)
	}
	j := &Job{CPUs: 1, Length: time.Hour, Request: &resourcemodel.Request{}}
	choose := func(cands []Candidate, on string) string {
		v := map[string]float64{"load": 0, "wait": 0, "price": 0, "data": 0, "speed": 0, "failure": 0}
		v[on] = 1
		m, err := NewMatchmaker(Setting{"assignment", v})
		if err != nil {
			t.Fatal(err)
		}
		p := m.Match([]*Job{j}, [][]Candidate{cands}, epoch, nil)
		if len(p) != 1 {
			t.Fatalf("%v", p)
		}
		return cands[p[0].Candidate].Place.Site
	}
	for i, on := range []string{"wait", "price", "data", "speed", "failure"} {
		pair := []Candidate{all[i], all[5]}
		for _, by := range []string{"wait", "price", "data", "speed", "failure"} {
			want := pair[0].Place.Site
			if by == on {
				want = "f"
			}
			if got := choose(pair, by); got != want {
				t.Errorf("of %s and f by %s: %s, want %s", pair[0].Place.Site, by, got, want)
			}
		}
		pair[0].Soft, pair[1].Soft = 1, 0.5
		if got := choose(pair, on); got == "f" {
			t.Errorf("%s goes before soft criteria", on)
		}
	}
	full := []Candidate{all[0], all[5]}
	full[0].Free = 1
	if got := choose(full, "load"); got != "f" {
		t.Errorf("by load: %s", got)
	}
}

func BenchmarkMatch(b *testing.B) {
	for _, name := range []string{"assignment", "genetic"} {
		for _, n := range []int{16, 256} {
			b.Run(fmt.Sprint(name, "/", n), func(b *testing.B) {
				m, err := NewMatchmaker(Setting{Name: name})
				if err != nil {
					b.Fatal(err)
				}
				rng := newRand(1)
				jobs, cands := make([]*Job, n), make([][]Candidate, n)
				for i := range jobs {
					jobs[i] = &Job{ID: fmt.Sprint(i), CPUs: 1, Length: time.Duration(rng.IntN(1e6)) * time.Millisecond}
					for p := range 64 {
						cands[i] = append(cands[i], Candidate{Place: place(fmt.Sprint("s", p)), Order: p, Free: 1 + p%8, Soft: rng.Float64(), Share: &resourcemodel.Share{Price: float64(p % 7)}})
					}
				}
				b.ReportAllocs()
				for b.Loop() {
					m.Match(jobs, cands, epoch, rng)
				}
			})
		}
	}
}
