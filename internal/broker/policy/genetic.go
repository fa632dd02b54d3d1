package policy

import (
	"math/rand/v2"
	"slices"
	"time"
)

// genetic searches for a good plan as evolution would: plans are the individuals, a
// gene is the place of one job, and what costs little has offspring. Beside the sum of
// costs it weighs how evenly places are filled, which assignment can't. The greedy plan
// is in the first generation and the best of each lives on, so that the result is never
// worse. Chance comes from the caller's source alone.
type genetic struct {
	judge
	balance             float64
	population          int
	generations         int
	mutation, crossover float64
	chunk               int
}

func (g *genetic) Match(jobs []*Job, cands [][]Candidate, _ time.Time, rng *rand.Rand) []Pair {
	return g.newRound(jobs, cands).inChunks(g.chunk, func(edges [][]edge, places int) plan {
		return g.search(edges, places, rng)
	})
}

// individual is a plan with its worth, which is the better the smaller it is.
type individual struct {
	plan  plan
	worth worth
}

// worth compares plans: how many jobs wait, then the cost.
type worth struct {
	waiting int
	cost    float64
}

func (w worth) less(o worth) bool {
	return w.waiting < o.waiting || w.waiting == o.waiting && w.cost < o.cost
}

// weigh gives the worth of a plan.
func (g *genetic) weigh(edges [][]edge, p plan, capacity []int) worth {
	w := worth{cost: p.cost(edges)}
	taken := make([]int, len(capacity))
	for i, k := range p {
		if k >= 0 {
			taken[edges[i][k].place]++
		} else {
			w.waiting++
		}
	}
	for at, n := range taken {
		if n > 0 {
			part := float64(n) / float64(capacity[at])
			w.cost += g.balance * part * part
		}
	}
	return w
}

func (g *genetic) search(edges [][]edge, places int, rng *rand.Rand) plan {
	capacity := make([]int, places)
	for _, list := range edges {
		for _, e := range list {
			capacity[e.place] = max(capacity[e.place], e.free)
		}
	}
	born := func(p plan) individual { return individual{p, g.weigh(edges, p, capacity)} }
	all := make([]individual, 0, g.population)
	all = append(all, born(greedy(edges, newRoom(places))))
	for len(all) < g.population {
		p := slices.Clone(all[0].plan)
		for i := range p {
			// Half of the first generation is near the greedy plan, half anywhere.
			if len(edges[i]) > 0 && (len(all)%2 == 0 || rng.Float64() < 0.1) {
				p[i] = rng.IntN(len(edges[i]))
			}
		}
		all = append(all, born(repair(edges, p, places)))
	}
	best := func() individual {
		return slices.MinFunc(all, func(a, b individual) int {
			switch {
			case a.worth.less(b.worth):
				return -1
			case b.worth.less(a.worth):
				return 1
			}
			return 0
		})
	}
	// The better of two is a parent.
	parent := func() plan {
		a, b := all[rng.IntN(len(all))], all[rng.IntN(len(all))]
		if b.worth.less(a.worth) {
			return b.plan
		}
		return a.plan
	}
	for range g.generations {
		next := make([]individual, 0, g.population)
		next = append(next, best())
		for len(next) < g.population {
			child := slices.Clone(parent())
			if rng.Float64() < g.crossover {
				for i, k := range parent() {
					if rng.Uint64()&1 == 0 {
						child[i] = k
					}
				}
			}
			for i := range child {
				if len(edges[i]) > 0 && rng.Float64() < g.mutation {
					child[i] = rng.IntN(len(edges[i]))
				}
			}
			next = append(next, born(repair(edges, child, places)))
		}
		all = next
	}
	return best().plan
}
