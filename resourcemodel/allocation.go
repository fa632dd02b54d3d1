package resourcemodel

import (
	"math"
	"math/bits"
)

// part is an element of a document that shapes the allocation.
type part uint8

// The parts, in the order in which they are named where several stand against a place.
const (
	partTotal part = iota
	partEach
	partHosts
	partMemoryEach
	partMemoryTotal
	partVirtualEach
	partVirtualTotal
	partDiskEach
	partDiskTotal
	partTimeEach
	partTimeTotal
	partProcesses
	partExclusive
	partGPU
	numParts
)

var partNames = [numParts]string{
	"TotalCPUCount", "IndividualCPUCount", "TotalResourceCount",
	"IndividualPhysicalMemory", "TotalPhysicalMemory", "IndividualVirtualMemory", "TotalVirtualMemory", "IndividualDiskSpace", "TotalDiskSpace",
	"IndividualCPUTime", "TotalCPUTime", "NumberOfProcesses", "ExclusiveExecution", "GPU",
}

func (p part) String() string { return partNames[p] }

// parts is a set of them.
type parts uint16

func (s parts) has(p part) bool { return s&(1<<p) != 0 }
func (s parts) first() part     { return part(bits.TrailingZeros16(uint16(s))) }

// ask is what a request wants of the allocation. A range that is not asked for is not
// in given.
type ask struct {
	given parts
	want  [partProcesses]runs // of those that are ranges of whole numbers

	leastCPUs  int64 // what the processes need; 1 without any
	leastHosts int64
	gpus       int64 // of each host
}

// without is the ask with some parts forgotten.
func (a *ask) without(s parts) ask {
	b := *a
	b.given &^= s
	if s.has(partProcesses) {
		b.leastCPUs, b.leastHosts = 1, 1
	}
	if s.has(partGPU) {
		b.gpus = 0
	}
	return b
}

// room is what a place has for one job. What is not known is unlimited.
type room struct {
	hosts  int64    // that the job may have
	each   int64    // CPUs of a host
	total  int64    // CPUs that one job may have
	amount [3]int64 // bytes of a host: physical and virtual memory, disk
	sum    [3]int64 // of all hosts together
	wall   int64    // seconds that a job may run
	whole  int64    // hosts that nobody uses
	gpus   int64    // of all hosts together
}

// boundless is a place as large as any.
func boundless() room {
	return room{
		hosts: maxCount, each: maxCount, total: maxCount, wall: unlimited, whole: unlimited, gpus: unlimited,
		amount: [3]int64{unlimited, unlimited, unlimited}, sum: [3]int64{unlimited, unlimited, unlimited},
	}
}

// contradiction gives parts that can't be had together in the space, where all of them
// can't, and leaves out those without which they can't either.
func (a *ask) contradiction(space *room) parts {
	together := a.given
	for q := range numParts {
		if less := together &^ (1 << q); less != together {
			fewer := a.without(a.given &^ less)
			if _, ok := fewer.solve(space); !ok {
				together = less
			}
		}
	}
	return together
}

// maxCount bounds counts, as jsdl.Request does.
const maxCount = math.MaxInt32

// maxSearch bounds how many numbers of hosts are tried for one place, and maxSteps the
// steps that this takes: only a document with very broken ranges needs more than a few.
const (
	maxSearch = 1 << 14
	maxSteps  = 1 << 18
)

// breaks counts the parts of the ranges.
func (a *ask) breaks() int {
	n := 1
	for _, s := range a.want {
		n += len(s)
	}
	return n
}

// Allocation is what a job would be given at a place.
type Allocation struct {
	Hosts       int
	CPUs        int // in all
	CPUsPerHost int // of each; 0 where they are spread as the site likes
	Memory      int64
}

// solve looks for an allocation of the fewest hosts, and with them of the fewest CPUs.
func (a *ask) solve(r *room) (Allocation, bool) {
	lo, hi, least, ok := a.bounds(r)
	if !ok {
		return Allocation{}, false
	}
	most := min(r.total, maxCount)
	budget := min(maxSearch, max(16, maxSteps/a.breaks()))
	try := func(k int64) (Allocation, bool) {
		n, t, ok := a.cpus(k, r.each, least, most)
		if !ok {
			return Allocation{}, false
		}
		out := Allocation{Hosts: int(k), CPUs: int(t), CPUsPerHost: int(n)}
		for i := range r.amount {
			s, ok := a.bytes(i, k, r)
			if !ok {
				return Allocation{}, false
			}
			if i == 0 {
				out.Memory = s
			}
		}
		return out, true
	}
	hosts := runs{{lo, hi}}
	if a.given.has(partHosts) {
		hosts = a.want[partHosts]
	}
	for _, v := range hosts {
		for k := max(v.lo, lo); k <= min(v.hi, hi) && budget > 0; k++ {
			if out, ok := try(k); ok {
				return out, true
			}
			budget--
		}
	}
	return Allocation{}, false
}

// bounds gives the numbers of hosts between which an allocation can lie, and the least
// number of CPUs. False is that there is none.
func (a *ask) bounds(r *room) (lo, hi, least int64, ok bool) {
	if a.given.has(partTimeEach) {
		if t, ok := a.want[partTimeEach].from(0); !ok || t > r.wall {
			return 0, 0, 0, false
		}
	}
	least = a.leastCPUs
	if a.given.has(partTimeTotal) {
		t, ok := a.want[partTimeTotal].from(0)
		if !ok || t > 0 && r.wall == 0 {
			return 0, 0, 0, false
		}
		if t > 0 {
			least = max(least, ceil(t, r.wall))
		}
	}
	lo, hi = max(1, a.leastHosts), min(r.hosts, r.total, maxCount)
	if a.given.has(partExclusive) {
		hi = min(hi, r.whole)
	}
	if a.gpus > 0 {
		hi = min(hi, r.gpus/a.gpus)
	}
	first := least
	if a.given.has(partTotal) {
		t := a.want[partTotal]
		if first, ok = t.from(least); !ok {
			return 0, 0, 0, false
		}
		hi = min(hi, t[len(t)-1].hi)
	}
	if r.each < 1 {
		return 0, 0, 0, false
	}
	lo = max(lo, ceil(first, r.each))
	if a.given.has(partEach) {
		n, ok := a.want[partEach].from(1)
		if !ok || n > r.each {
			return 0, 0, 0, false
		}
		most := min(r.total, maxCount)
		if t := a.want[partTotal]; a.given.has(partTotal) {
			most = min(most, t[len(t)-1].hi)
		}
		hi = min(hi, most/n)
	}
	for i := range r.amount {
		each, total := partMemoryEach+part(2*i), partMemoryTotal+part(2*i)
		if a.given.has(total) {
			s, ok := a.want[total].from(0)
			if !ok || s > 0 && r.amount[i] == 0 {
				return 0, 0, 0, false
			}
			if s > 0 {
				lo = max(lo, ceil(s, r.amount[i]))
			}
		}
		if a.given.has(each) {
			m, ok := a.want[each].from(0)
			if !ok || m > r.amount[i] {
				return 0, 0, 0, false
			}
			most := r.sum[i]
			if t := a.want[total]; a.given.has(total) {
				most = min(most, t[len(t)-1].hi)
			}
			if m > 0 {
				hi = min(hi, most/m)
			}
		}
	}
	return lo, hi, least, lo <= hi
}

// cpus gives the fewest CPUs that k hosts can have, each at most so many, and all
// together from least to most. Where IndividualCPUCount is asked for, all hosts have
// the same number n; else n is 0, and they are spread with one at least on each.
func (a *ask) cpus(k, each, least, most int64) (n, total int64, ok bool) {
	if !a.given.has(partEach) {
		total = max(k, least)
		if a.given.has(partTotal) {
			if total, ok = a.want[partTotal].from(total); !ok {
				return 0, 0, false
			}
		}
		return 0, total, total <= min(times(k, each), most)
	}
	// Both sets are in order, so that one walk along them meets every pair that may do.
	of, totals := a.want[partEach], runs{{1, most}}
	if a.given.has(partTotal) {
		totals = a.want[partTotal]
	}
	for i, j := 0, 0; i < len(of) && j < len(totals); {
		e, t := of[i], totals[j]
		lo, hi := max(e.lo, 1, ceil(max(least, t.lo), k)), min(e.hi, each, min(most, t.hi)/k)
		if lo <= hi {
			return lo, k * lo, true
		}
		if times(e.hi, k) < t.hi {
			i++
		} else {
			j++
		}
	}
	return 0, 0, false
}

// bytes gives the least amount of a kind that k hosts can have together. The hosts'
// own amounts lie in one unbroken part of the Individual range, and may differ.
func (a *ask) bytes(kind int, k int64, r *room) (int64, bool) {
	each, total := partMemoryEach+part(2*kind), partMemoryTotal+part(2*kind)
	most := min(times(k, r.amount[kind]), r.sum[kind])
	switch {
	case !a.given.has(each) && !a.given.has(total):
		return 0, true
	case !a.given.has(each):
		s, ok := a.want[total].from(0)
		return s, ok && s <= most
	}
	for _, v := range a.want[each] {
		lo, hi := times(k, v.lo), min(times(k, min(v.hi, r.amount[kind])), most)
		if v.lo > r.amount[kind] || lo > hi {
			continue
		}
		if !a.given.has(total) {
			return lo, true
		}
		if s, ok := a.want[total].from(lo); ok && s <= hi {
			return s, true
		}
	}
	return 0, false
}
