package resourcemodel

import (
	"math"
	"math/bits"
	"slices"
)

// The search for the smallest change of what shapes the allocation.

// change gives parts new values.
type change struct {
	parts  parts
	value  [numParts]int64 // of those changed: of ranges a number in them, of processes their number, of GPUs that of each host
	amount float64         // how far the values are from what was asked, summed up
}

// processes is what the parts of SPMD ask for.
type processes struct {
	count, threads, perHost int64
}

// needs gives the CPUs and hosts that they need at least, as jsdl.Request has it: a CPU
// for each thread where TotalCPUCount allows as many, else for each process, else, on
// hosts of its own, any.
func (p processes) needs(total runs, asked bool) (cpus, hosts int64) {
	cpus, hosts = times(max(1, p.count), p.threads), 1
	if p.perHost > 0 && p.count > 0 {
		hosts = ceil(p.count, p.perHost)
	}
	if asked {
		if _, ok := total.from(cpus); !ok {
			if cpus /= p.threads; cpus > 1 {
				if _, ok := total.from(cpus); !ok {
					cpus = 1
				}
			}
		}
	}
	return cpus, hosts
}

// maxBreaks bounds the ranges of which changes are looked for, and maxSets how many sets
// of parts are tried.
const (
	maxBreaks = 256
	maxSets   = 1024
)

// nearest finds the changes of the fewest parts after which an allocation exists, the
// least relative change first; at most a few.
func (a *ask) nearest(space *room, spmd processes) []change {
	if a.breaks() > maxBreaks {
		return nil
	}
	must := parts(0) // what can't be met even alone is changed in any case
	for q := range numParts {
		alone := a.without(a.given &^ (1 << q))
		if q == partProcesses && a.given.has(partTotal) {
			alone.leastCPUs = spmd.crowded(a.given.has(partExclusive))
		}
		if a.given.has(q) && !alone.solvable(space) {
			must |= 1 << q
		}
	}
	var out []change
	rest, left := a.given&^must, maxSets
	for size := 0; size <= bits.OnesCount16(uint16(rest)) && len(out) == 0; size++ {
		for more := range subsets(rest, size) {
			if left--; left < 0 {
				break
			}
			set := must | more
			if free := a.changing(set, spmd); set == 0 || !free.solvable(space) {
				continue
			}
			if c, ok := a.values(set, space, spmd); ok {
				out = append(out, c)
			}
		}
	}
	slices.SortStableFunc(out, func(x, y change) int {
		switch {
		case x.amount < y.amount:
			return -1
		case x.amount > y.amount:
			return 1
		}
		return 0
	})
	return out[:min(len(out), 8)]
}

// changing is the ask without the parts that are to get other values. A TotalCPUCount of
// another value may allow fewer CPUs than the threads would like.
func (a *ask) changing(set parts, spmd processes) ask {
	b := a.without(set)
	if set.has(partTotal) && b.given.has(partProcesses) {
		b.leastCPUs = min(b.leastCPUs, spmd.crowded(b.given.has(partExclusive)))
	}
	return b
}

// crowded gives the fewest CPUs that any TotalCPUCount may allow the processes.
func (p processes) crowded(exclusive bool) int64 {
	if exclusive {
		return 1
	}
	return max(1, p.count)
}

func (a *ask) solvable(space *room) bool {
	_, ok := a.solve(space)
	return ok
}

// subsets gives those of a size.
func subsets(s parts, size int) func(func(parts) bool) {
	return func(yield func(parts) bool) {
		for sub := s; ; sub = (sub - 1) & s {
			if bits.OnesCount16(uint16(sub)) == size && !yield(sub) || sub == 0 {
				return
			}
		}
	}
}

// values gives the parts of a set the values nearest to what was asked; each part as near
// as the ones before it leave it, in the order in which the sum is least.
func (a *ask) values(set parts, space *room, spmd processes) (change, bool) {
	var list []part
	for q := range numParts {
		if set.has(q) {
			list = append(list, q)
		}
	}
	best := change{amount: math.Inf(1)}
	found := false
	for order := range orders(list) {
		c := change{parts: set}
		b := a.changing(set, spmd)
		ok := true
		for _, q := range order {
			v, far, possible := a.value(&b, q, space, spmd)
			if ok = possible; !ok {
				break
			}
			c.value[q] = v
			c.amount += far
		}
		if ok && c.amount < best.amount {
			best, found = c, true
		}
	}
	return best, found
}

// orders gives the orders of a few parts; of more than three, the one that they have.
func orders(list []part) func(func([]part) bool) {
	return func(yield func([]part) bool) {
		if len(list) > 3 {
			yield(list)
			return
		}
		var walk func(done, left []part) bool
		walk = func(done, left []part) bool {
			if len(left) == 0 {
				return yield(done)
			}
			for i := range left {
				if !walk(append(slices.Clone(done), left[i]), slices.Concat(left[:i], left[i+1:])) {
					return false
				}
			}
			return true
		}
		walk(nil, list)
	}
}

// value finds the value of one part that is nearest to what a asks, with which b, that asks
// nothing of it, can still be met; and has b ask for it.
func (a *ask) value(b *ask, q part, space *room, spmd processes) (v int64, far float64, ok bool) {
	switch q {
	case partExclusive:
		return 0, 1, b.solvable(space)
	case partGPU:
		v, ok = largest(0, a.gpus-1, func(n int64) bool {
			b.gpus = n
			return b.solvable(space)
		})
		if b.gpus = v; v > 0 {
			b.given |= 1 << partGPU
		}
		return v, float64(a.gpus-v) / float64(a.gpus), ok
	case partProcesses:
		most, set := spmd.count, func(n int64) processes { return processes{n, spmd.threads, spmd.perHost} }
		if most <= 1 { // one process, of too many threads
			most, set = spmd.threads, func(n int64) processes { return processes{spmd.count, n, spmd.perHost} }
		}
		v, ok = largest(1, most-1, func(n int64) bool {
			b.leastCPUs, b.leastHosts = set(n).needs(b.want[partTotal], b.given.has(partTotal))
			return b.solvable(space)
		})
		b.leastCPUs, b.leastHosts = set(v).needs(b.want[partTotal], b.given.has(partTotal))
		b.given |= 1 << partProcesses
		return v, float64(most-v) / float64(most), ok
	case partTotal, partEach, partHosts, partMemoryEach, partMemoryTotal, partVirtualEach, partVirtualTotal, partDiskEach, partDiskTotal, partTimeEach, partTimeTotal, numParts:
	}
	v, far, ok = b.ranged(q, a.want[q], space)
	b.want[q], b.given = runs{{v, v}}, b.given|1<<q
	return v, far, ok
}

// largest finds the largest number of which ok is true, where it is true of all below it.
func largest(lo, hi int64, ok func(int64) bool) (int64, bool) {
	if lo > hi || !ok(lo) {
		return 0, false
	}
	for lo < hi {
		if mid := lo + (hi-lo+1)/2; ok(mid) {
			lo = mid
		} else {
			hi = mid - 1
		}
	}
	return lo, true
}

// ranged finds the number nearest to the target for a part that is a range.
func (a *ask) ranged(q part, target runs, space *room) (v int64, far float64, ok bool) {
	far = math.Inf(1)
	if q == partTimeEach {
		if !a.solvable(space) {
			return 0, 0, false
		}
		return runs{{0, space.wall}}.nearest(0, unlimited, target)
	}
	lo, hi, least, possible := a.bounds(space)
	if !possible {
		return 0, 0, false
	}
	most := min(space.total, maxCount)
	for k := range a.someHosts(lo, hi, target) {
		if a.given.has(partHosts) {
			if n, ok := a.want[partHosts].from(k); !ok || n != k {
				continue
			}
		}
		n, d, ok2 := a.at(q, k, least, most, target, space)
		if ok2 && (!ok || d < far) {
			v, far, ok = n, d, true
		}
		if ok && far == 0 {
			break
		}
	}
	return v, far, ok
}

// manyHosts bounds how many numbers of hosts are looked at one by one; of more, those at
// either end are, and those around what was asked.
const manyHosts = 512

func (a *ask) someHosts(lo, hi int64, target runs) func(func(int64) bool) {
	return func(yield func(int64) bool) {
		if hi-lo <= manyHosts {
			for k := lo; k <= hi; k++ {
				if !yield(k) {
					return
				}
			}
			return
		}
		var list []int64
		add := func(around int64) {
			for k := max(lo, around-manyHosts/8); k <= min(hi, around+manyHosts/8); k++ {
				list = append(list, k)
			}
		}
		add(lo)
		add(hi)
		for _, set := range []runs{target, a.want[partHosts]} {
			for _, t := range set[:min(len(set), 4)] {
				add(t.lo)
				add(min(t.hi, hi))
			}
		}
		slices.Sort(list)
		for _, k := range slices.Compact(list) {
			if !yield(k) {
				return
			}
		}
	}
}

// at finds the number nearest to the target for a part on k hosts.
func (a *ask) at(q part, k, least, most int64, target runs, space *room) (int64, float64, bool) {
	kind := -1
	if q >= partMemoryEach && q <= partDiskTotal {
		kind = int(q-partMemoryEach) / 2
	}
	for i := range space.amount {
		if i == kind {
			continue
		}
		if _, ok := a.bytes(i, k, space); !ok {
			return 0, 0, false
		}
	}
	if q != partTotal && q != partEach {
		if _, _, ok := a.cpus(k, space.each, least, most); !ok {
			return 0, 0, false
		}
	}
	switch q {
	case partHosts:
		return runs{{k, k}}.nearest(k, k, target)
	case partTotal:
		return a.totalAt(k, least, most, target, space)
	case partEach:
		lo, hi := max(1, ceil(least, k)), min(space.each, most/k)
		if !a.given.has(partTotal) {
			return runs{{lo, hi}}.nearest(lo, hi, target)
		}
		return a.want[partTotal].over(k).nearest(lo, hi, target)
	case partTimeTotal:
		t := a.mostCPUs(k, space.each, most)
		return runs{{0, times(space.wall, t)}}.nearest(0, unlimited, target)
	case partMemoryEach, partVirtualEach, partDiskEach:
		hi := min(space.amount[kind], space.sum[kind]/k)
		if total := partMemoryTotal + part(2*kind); a.given.has(total) {
			return a.want[total].over(k).nearest(0, hi, target)
		}
		return runs{{0, hi}}.nearest(0, hi, target)
	case partMemoryTotal, partVirtualTotal, partDiskTotal:
		hi := min(times(k, space.amount[kind]), space.sum[kind])
		each := partMemoryEach + part(2*kind)
		if !a.given.has(each) {
			return runs{{0, hi}}.nearest(0, hi, target)
		}
		var sums runs
		for _, v := range a.want[each] {
			if v.lo <= space.amount[kind] {
				sums = append(sums, run{times(k, v.lo), times(k, min(v.hi, space.amount[kind]))})
			}
		}
		return sums.nearest(0, hi, target)
	case partTimeEach, partProcesses, partExclusive, partGPU, numParts:
	}
	return 0, 0, false
}

// over gives the numbers of which k times as many are in the set.
func (s runs) over(k int64) runs {
	var out runs
	for _, v := range s {
		if lo, hi := ceil(v.lo, k), v.hi/k; lo <= hi {
			out = append(out, run{lo, hi})
		}
	}
	return out
}

// totalAt is at for TotalCPUCount.
func (a *ask) totalAt(k, least, most int64, target runs, space *room) (v int64, far float64, ok bool) {
	if !a.given.has(partEach) {
		lo, hi := max(k, least), min(times(k, space.each), most)
		return runs{{lo, hi}}.nearest(lo, hi, target)
	}
	far = math.Inf(1)
	for _, e := range a.want[partEach] {
		lo, hi := max(e.lo, 1, ceil(least, k)), min(e.hi, space.each, most/k)
		if lo > hi {
			continue
		}
		for _, t := range target {
			for _, n := range []int64{t.lo / k, ceil(t.lo, k), t.hi / k, ceil(t.hi, k)} {
				n = min(max(n, lo), hi)
				if d := distance(k*n, t); !ok || d < far {
					v, far, ok = k*n, d, true
				}
			}
		}
	}
	return v, far, ok
}

// mostCPUs gives the most that k hosts can have; 0 is none.
func (a *ask) mostCPUs(k, each, most int64) int64 {
	hi := min(times(k, each), most)
	set := runs{{k, hi}}
	if a.given.has(partTotal) {
		set = a.want[partTotal]
	}
	best := int64(0)
	for _, t := range set {
		if !a.given.has(partEach) {
			if m := min(t.hi, hi); m >= max(t.lo, k) {
				best = max(best, m)
			}
			continue
		}
		for _, e := range a.want[partEach] {
			if n := min(e.hi, each, t.hi/k, hi/k); n >= max(e.lo, ceil(t.lo, k)) {
				best = max(best, n*k)
			}
		}
	}
	return best
}
