package policy

import (
	"cmp"
	"math"
	"slices"

	"github.com/portolan-project/portolan/resourcemodel"
)

// judge says what it costs to place a job somewhere, for policies that compare the
// places of many jobs: a weighted sum of what is bad, each on a scale from 0 to 1
// over all pairs of the round. What nobody knows is in the middle.
type judge struct{ soft, load, wait, price, data, speed, failure float64 }

func judgeOf(v values) judge {
	return judge{v["soft"], v["load"], v["wait"], v["price"], v["data"], v["speed"], v["failure"]}
}

// faults are what is bad about a pair, each zero or more, NaN for what nobody knows.
func (g *judge) faults(j *Job, n *resourcemodel.Need, c *Candidate) [6]float64 {
	unknown := math.NaN()
	load := c.Load
	if c.Free > 0 {
		load = 1 / float64(1+c.Free)
	}
	wait, price, distance, failure := unknown, c.price(), unknown, unknown
	if w, ok := c.wait(n); ok {
		wait = w.Seconds()
	}
	if d, ok := c.distance(j); ok {
		distance = d
	}
	if r, ok := c.successRate(); ok {
		failure = 1 - r
	}
	// Price is of the job as a whole: a long one is dearer at a dear place.
	price *= float64(max(n.CPUs, 1)) * max(j.Length.Seconds(), 1)
	return [6]float64{load, wait, price, distance, 1 / c.performance(), failure}
}

// edge is a place that a job can have.
type edge struct {
	place int // index in the round
	free  int // jobs that the place takes in all, if it takes this one
	cost  float64
	cand  int // index in the job's candidates
}

// round is what a pairing policy has to decide, in numbers.
type round struct {
	edges  [][]edge // of each job, the cheapest first
	places int
}

// newRound weighs all pairs. Places without room are left out. Nothing in it depends
// on the order of a job's candidates.
func (g *judge) newRound(jobs []*Job, cands [][]Candidate) *round {
	type pair struct {
		faults [6]float64
		cand   int
	}
	pairs := make([][]pair, len(jobs))
	var most [6]float64
	for i, j := range jobs {
		n := j.Need()
		for k := range cands[i] {
			c := &cands[i][k]
			if c.Free <= 0 {
				continue
			}
			p := pair{g.faults(j, n, c), k}
			for f, x := range p.faults {
				if x > most[f] && !math.IsInf(x, 0) {
					most[f] = x
				}
			}
			pairs[i] = append(pairs[i], p)
		}
	}
	weights := [6]float64{g.load, g.wait, g.price, g.data, g.speed, g.failure}
	r := &round{edges: make([][]edge, len(jobs))}
	index := map[resourcemodel.Place]int{}
	for i := range jobs {
		list := make([]edge, 0, len(pairs[i]))
		for _, p := range pairs[i] {
			c := &cands[i][p.cand]
			cost := g.soft * float64(SoftSteps-SoftStep(c.Soft))
			for f, x := range p.faults {
				switch {
				case most[f] == 0:
				case math.IsNaN(x):
					cost += weights[f] / 2
				default:
					cost += weights[f] * min(x/most[f], 1)
				}
			}
			list = append(list, edge{free: c.Free, cost: cost, cand: p.cand})
		}
		slices.SortStableFunc(list, func(a, b edge) int {
			x, y := &cands[i][a.cand], &cands[i][b.cand]
			return cmp.Or(cmp.Compare(a.cost, b.cost), cmp.Compare(x.Preference, y.Preference), cmp.Compare(x.Order, y.Order), x.Place.Compare(y.Place))
		})
		seen := map[resourcemodel.Place]bool{}
		for _, e := range list {
			p := cands[i][e.cand].Place
			if seen[p] {
				continue // told twice; the cheaper holds
			}
			seen[p] = true
			at, ok := index[p]
			if !ok {
				at = len(index)
				index[p] = at
			}
			e.place = at
			r.edges[i] = append(r.edges[i], e)
		}
	}
	r.places = len(index)
	return r
}

// room is what places have left while jobs are put there. A place takes as many as
// each of its jobs has it free for: a job that only one of would fit is alone there.
type room struct {
	taken []int
	most  []int // that the jobs there allow
}

func newRoom(places int) *room {
	r := &room{make([]int, places), make([]int, places)}
	for p := range r.most {
		r.most[p] = math.MaxInt
	}
	return r
}

func (r *room) fits(e *edge) bool { return r.taken[e.place] < min(r.most[e.place], e.free) }

func (r *room) put(e *edge) {
	r.taken[e.place]++
	r.most[e.place] = min(r.most[e.place], e.free)
}

// plan gives the edge of each job, by index; -1 is none.
type plan []int

// greedy gives each job in turn the cheapest place that has room.
func greedy(edges [][]edge, left *room) plan {
	out := make(plan, len(edges))
	for i, list := range edges {
		out[i] = -1
		for k := range list {
			if left.fits(&list[k]) {
				left.put(&list[k])
				out[i] = k
				break
			}
		}
	}
	return out
}

// cost is the sum over the jobs that have a place.
func (p plan) cost(edges [][]edge) (sum float64) {
	for i, k := range p {
		if k >= 0 {
			sum += edges[i][k].cost
		}
	}
	return sum
}

// inChunks decides the jobs of a round so many at a time, each in what the earlier
// ones left.
func (r *round) inChunks(size int, decide func(edges [][]edge, places int) plan) []Pair {
	var out []Pair
	left := newRoom(r.places)
	for from := 0; from < len(r.edges); from += size {
		chunk := make([][]edge, 0, size)
		for _, list := range r.edges[from:min(from+size, len(r.edges))] {
			var now []edge
			for _, e := range list {
				if left.fits(&e) {
					e.free = min(left.most[e.place], e.free) - left.taken[e.place]
					now = append(now, e)
				}
			}
			chunk = append(chunk, now)
		}
		for i, k := range decide(chunk, r.places) {
			if k < 0 {
				continue
			}
			e := chunk[i][k]
			out = append(out, Pair{from + i, e.cand})
			e.free += left.taken[e.place]
			left.put(&e)
		}
	}
	return out
}
