package policy

import (
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// assignment places the jobs of a round at the least cost. Jobs come in the order of
// the scheduling policy: each that can have a place together with those before it that
// have one gets one, and among all ways to do so the cheapest is taken. Where every
// job has the same number free at a place, as jobs that ask for the same have, these are
// as many jobs as can be placed at all.
//
// It is exact for each chunk of jobs: shortest augmenting paths (the Hungarian method
// with capacities), and branch and bound where jobs have different numbers free at a
// place. The latter is given up after maxBranches solutions, and the best so far taken;
// that is never worse than giving each job in turn its cheapest place.
type assignment struct {
	judge
	chunk int
}

func (a *assignment) Match(jobs []*Job, cands [][]Candidate, _ time.Time, _ *rand.Rand) []Pair {
	return a.newRound(jobs, cands).inChunks(a.chunk, func(edges [][]edge, places int) plan {
		out, _ := assign(edges, places)
		return out
	})
}

const maxBranches = 200

// limits hold what jobs a place may have in a branch: at most so many, and only those
// that would have at least so many free there.
type limits struct{ most, least []int }

// assign gives the best plan, and whether it is proved to be.
func assign(edges [][]edge, places int) (best plan, exact bool) {
	l := limits{make([]int, places), make([]int, places)}
	for _, list := range edges {
		for _, e := range list {
			l.most[e.place] = max(l.most[e.place], e.free)
		}
	}
	best = greedy(edges, newRoom(places))
	type branch struct {
		limits
		bound plan
	}
	open := []branch{{l, solve(edges, l)}}
	for solved := 1; len(open) > 0; {
		b := open[len(open)-1]
		open = open[:len(open)-1]
		if !cheaper(edges, b.bound, best) {
			continue // not even without the limits that it breaks
		}
		place, free := broken(edges, b.bound, places)
		if place < 0 {
			best = b.bound
			continue
		}
		if p := repair(edges, b.bound, places); cheaper(edges, p, best) {
			best = p
		}
		if solved >= maxBranches {
			return best, false
		}
		// Either no more jobs are there than the one with the fewest free allows, or that
		// one and its like are not among them.
		few := limits{slices.Clone(b.most), b.least}
		few.most[place] = free
		other := limits{b.most, slices.Clone(b.least)}
		other.least[place] = free + 1
		x, y := branch{few, solve(edges, few)}, branch{other, solve(edges, other)}
		solved += 2
		if cheaper(edges, x.bound, y.bound) {
			x, y = y, x
		}
		open = append(open, x, y) // the better is looked at first
	}
	return best, true
}

// cheaper reports whether a is better than b: it places the first job that only one of
// them places, or costs less.
func cheaper(edges [][]edge, a, b plan) bool {
	for i := range a {
		if (a[i] < 0) != (b[i] < 0) {
			return a[i] >= 0
		}
	}
	return a.cost(edges) < b.cost(edges)-1e-9
}

// broken gives a place that has more jobs than one of them allows, and how many that
// one allows; -1 if there is none.
func broken(edges [][]edge, p plan, places int) (place, free int) {
	r := newRoom(places)
	for i, k := range p {
		if k >= 0 {
			r.put(&edges[i][k])
		}
	}
	for at, n := range r.taken {
		if n > r.most[at] {
			return at, r.most[at]
		}
	}
	return -1, 0
}

// repair makes a plan good: jobs in turn keep their place if it has room, and get the
// cheapest that has if not.
func repair(edges [][]edge, p plan, places int) plan {
	r := newRoom(places)
	out := make(plan, len(p))
	for i, k := range p {
		if k < 0 || !r.fits(&edges[i][k]) {
			k = slices.IndexFunc(edges[i], func(e edge) bool { return r.fits(&e) })
		}
		if out[i] = k; k >= 0 {
			r.put(&edges[i][k])
		}
	}
	return out
}

// flow is a solution of the assignment with capacities: what successive shortest paths
// have at a moment. Reduced costs (cost − u − v) are never negative, and zero for the
// pairs that are chosen; v is zero where there is room.
type flow struct {
	edges  [][]edge
	limits limits
	chosen plan
	at     [][]int // jobs of each place
	u, v   []float64

	dist []float64
	from []hop // how each place is reached
	done []bool
}

// hop is the edge over which a job would come to a place.
type hop struct{ job, edge int }

// solve gives the cheapest plan that places each job which can be placed with those
// before it, where a place has at most limits.most jobs.
func solve(edges [][]edge, l limits) plan {
	places := len(l.most)
	f := &flow{
		edges: edges, limits: l, chosen: make(plan, len(edges)), at: make([][]int, places),
		u: make([]float64, len(edges)), v: make([]float64, places),
		dist: make([]float64, places), from: make([]hop, places), done: make([]bool, places),
	}
	for i := range edges {
		f.chosen[i] = -1
	}
	for i := range edges {
		f.insert(i)
	}
	return f.chosen
}

// insert looks for the cheapest way to place one more job, by moving others.
func (f *flow) insert(i int) {
	for p := range f.dist {
		f.dist[p], f.done[p] = math.Inf(1), false
	}
	f.reach(i, 0)
	end := -1
	for end < 0 {
		next := -1
		for p, d := range f.dist {
			if !f.done[p] && !math.IsInf(d, 1) && (next < 0 || d < f.dist[next]) {
				next = p
			}
		}
		if next < 0 {
			return // all places that could be had are full, of jobs that can go nowhere else
		}
		f.done[next] = true
		if len(f.at[next]) < f.limits.most[next] {
			end = next
			break
		}
		for _, j := range f.at[next] {
			f.reach(j, f.dist[next])
		}
	}
	d := f.dist[end]
	for p, done := range f.done {
		if done {
			f.v[p] += f.dist[p] - d
			for _, j := range f.at[p] {
				f.u[j] += d - f.dist[p]
			}
		}
	}
	f.u[i] += d
	for p := end; ; {
		h := f.from[p]
		old := f.chosen[h.job]
		f.chosen[h.job] = h.edge
		f.at[p] = append(f.at[p], h.job)
		if old < 0 {
			return
		}
		p = f.edges[h.job][old].place
		at := slices.Index(f.at[p], h.job)
		f.at[p] = slices.Delete(f.at[p], at, at+1)
	}
}

// reach notes the places that a job could be moved to, from one at the distance d.
func (f *flow) reach(j int, d float64) {
	for k := range f.edges[j] {
		e := &f.edges[j][k]
		if f.done[e.place] || e.free < f.limits.least[e.place] || f.limits.most[e.place] == 0 {
			continue
		}
		if n := d + max(e.cost-f.u[j]-f.v[e.place], 0); n < f.dist[e.place] {
			f.dist[e.place], f.from[e.place] = n, hop{j, k}
		}
	}
}
