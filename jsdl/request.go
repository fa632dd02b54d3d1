package jsdl

import (
	"math"
	"math/big"

	"github.com/portolan-project/portolan/internal/fail"
)

// Request is what a job asks of a manager that wants one number for each thing
// where JSDL has ranges. Each is the least that satisfies the document, so that
// whatever fits the job fits the request.
type Request struct {
	CPUs        int  // in all; at least 1
	Hosts       int  // on just so many; 0: as the site likes
	CPUsPerHost int  // at least on each of them, and exactly where CPUs is Hosts times it; 0: as the site likes
	Exclusive   bool // nobody else on the hosts meanwhile

	Memory        Amount // physical
	VirtualMemory Amount
	Disk          Amount

	// WallTime is the time limit in seconds; 0 is none. It comes from WallTimeLimit
	// (0 is taken for 1, as no manager counts less), else from TotalCPUTime divided by
	// CPUs and from IndividualCPUTime: the upper end of the range, or the lower where
	// there is no upper.
	WallTime int64

	Processes        int // to be started; 1 without SPMDApplication
	ProcessesPerHost int // at most; 0: as the site likes
	Threads          int // of each process; at least 1
}

// Amount is a quantity in bytes; 0 is no wish. Where the number of hosts is known, PerHost
// suffices for Total too.
type Amount struct {
	PerHost int64
	Total   int64
}

// maxCount bounds every count of a Request, so that none overflows an int.
const maxCount = math.MaxInt32

// maxSearch bounds the search for counts that go together.
const maxSearch = 1 << 18

// Request works out what to ask a manager for (GFD.56 §5.2; standards' S2, S3, R7).
// What no number satisfies is fail.Unsupported and names the element.
func (j *JobDefinition) Request() (Request, error) {
	r := j.Description.Resources
	if r == nil {
		r = new(Resources)
	}
	p := j.Program()
	q := Request{Processes: 1, Threads: 1, Exclusive: r.ExclusiveExecution != nil && *r.ExclusiveExecution}
	if err := q.counts(r, p.SPMD); err != nil {
		return Request{}, err
	}
	for _, a := range []struct {
		name              string
		individual, total *RangeValue
		into              *Amount
	}{
		{"PhysicalMemory", r.IndividualPhysicalMemory, r.TotalPhysicalMemory, &q.Memory},
		{"VirtualMemory", r.IndividualVirtualMemory, r.TotalVirtualMemory, &q.VirtualMemory},
		{"DiskSpace", r.IndividualDiskSpace, r.TotalDiskSpace, &q.Disk},
	} {
		if err := a.into.fill(a.name, a.individual, a.total, int64(q.Hosts)); err != nil {
			return Request{}, err
		}
	}
	var err error
	if q.WallTime, err = wallTime(p.Limits.WallTime, r, int64(q.CPUs)); err != nil {
		return Request{}, err
	}
	return q, nil
}

func unsatisfiable(element, format string, args ...any) error {
	return fail.Errorf("jsdl.Request", fail.Unsupported, element, element+": "+format, args...)
}

// counts settles hosts, CPUs and processes.
func (q *Request) counts(r *Resources, spmd *SPMD) error {
	least := func(element string, v *RangeValue, from int64) (int64, error) {
		if v == nil {
			return 0, nil
		}
		n, ok := v.LowestInteger(from)
		if !ok || n > maxCount {
			return 0, unsatisfiable(element, "no whole number from %d to %d is in its range", from, maxCount)
		}
		return n, nil
	}
	// What the processes need at least.
	cpus, hosts := int64(1), int64(1)
	if spmd != nil {
		q.Threads = max(1, spmd.Threads)
		q.ProcessesPerHost = spmd.ProcessesPerHost
		cpus = int64(max(1, spmd.Processes)) * int64(q.Threads)
		if spmd.Processes > 0 && spmd.ProcessesPerHost > 0 {
			hosts = ceil(int64(spmd.Processes), int64(spmd.ProcessesPerHost))
		}
	}
	h, err := least("TotalResourceCount", r.TotalResourceCount, hosts)
	if err != nil {
		return err
	}
	if h == 0 && hosts > 1 {
		h = hosts
	}
	each, err := least("IndividualCPUCount", r.IndividualCPUCount, 1)
	if err != nil {
		return err
	}
	total, err := q.total(r, cpus, spmd)
	if err != nil {
		return err
	}
	if err := q.settle(r, h, each, total, cpus); err != nil {
		return err
	}
	switch {
	case spmd == nil:
	case spmd.Processes > 0:
		q.Processes = spmd.Processes
	default: // as many as CPUs; or the site's choice, for which that is as good as any
		q.Processes = max(1, q.CPUs/q.Threads)
		if spmd.ProcessesActual {
			q.Processes = q.CPUs
		}
		if q.ProcessesPerHost > 0 && q.Hosts == 0 {
			q.Hosts = int(ceil(int64(q.Processes), int64(q.ProcessesPerHost)))
			q.CPUsPerHost = max(q.CPUsPerHost, q.CPUs/q.Hosts)
		}
	}
	return nil
}

// total gives the least TotalCPUCount that has a CPU for each thread, else for each process,
// else, on hosts of its own, for any; 0 without one.
func (q *Request) total(r *Resources, cpus int64, spmd *SPMD) (int64, error) {
	if r.TotalCPUCount == nil {
		return 0, nil
	}
	for _, from := range []int64{cpus, cpus / int64(q.Threads), 1} {
		if n, ok := r.TotalCPUCount.LowestInteger(from); ok && n <= maxCount && (from > 1 || q.Exclusive || spmd == nil || spmd.Processes <= 1) {
			return n, nil
		}
	}
	if spmd != nil && spmd.Processes > 1 {
		return 0, unsatisfiable("TotalCPUCount", "no whole number in its range is enough for the %d processes of NumberOfProcesses", spmd.Processes)
	}
	return 0, unsatisfiable("TotalCPUCount", "no whole number from 1 to %d is in its range", maxCount)
}

// settle makes the counts agree: TotalCPUCount is TotalResourceCount times
// IndividualCPUCount, and 0 is what is not asked for. cpus is how many are needed
// at least when nobody says.
func (q *Request) settle(r *Resources, hosts, each, total, cpus int64) error {
	set := func(cpus, hosts, each int64) error {
		if cpus > maxCount {
			return unsatisfiable("TotalCPUCount", "%d CPUs are more than any site has", cpus)
		}
		q.CPUs, q.Hosts, q.CPUsPerHost = int(cpus), int(hosts), int(each)
		return nil
	}
	switch {
	case each == 0 && total == 0:
		if hosts == 0 {
			return set(cpus, 0, 0)
		}
		cpus = max(cpus, hosts)
		return set(cpus, hosts, cpus/hosts)
	case each == 0 && hosts == 0:
		return set(total, 0, 0)
	case each == 0: // the CPUs spread as the site likes, with one at least on each host
		n, ok := r.TotalCPUCount.LowestInteger(max(total, hosts))
		if !ok || n > maxCount {
			return unsatisfiable("TotalCPUCount", "no whole number in its range gives each of the %d hosts of TotalResourceCount a CPU", hosts)
		}
		return set(n, hosts, n/hosts)
	case total == 0 && hosts == 0 && cpus <= each:
		return set(each, 1, each)
	case hosts == 0:
		if total == 0 {
			total = cpus
		}
		if total < each { // and TotalCPUCount is there
			n, ok := r.TotalCPUCount.LowestInteger(each)
			if !ok || n > maxCount {
				return unsatisfiable("TotalCPUCount", "no whole number in its range is enough for one host of IndividualCPUCount")
			}
			total = n
		}
		// Where a host may have any of these numbers, the site may spread them as it likes.
		if r.IndividualCPUCount.unbroken(total) {
			return set(total, 0, each)
		}
	}
	return q.search(r, max(1, hosts), max(total, cpus), set)
}

// unbroken reports whether every number from the least of the range up to n is in it.
func (r *RangeValue) unbroken(n int64) bool {
	least, ok := r.LowestInteger(1)
	if !ok {
		return false
	}
	for v := range r.intervals() {
		if low, ok := v.lowest(1); ok && low == least && v.admitsBelow(n) {
			return true
		}
	}
	return false
}

// search looks for the fewest CPUs, then hosts, of which all three ranges are true.
func (q *Request) search(r *Resources, hosts, from int64, set func(cpus, hosts, each int64) error) error {
	if r.TotalCPUCount != nil { // which may allow fewer than the threads would like
		from, _ = q.total(r, from, nil)
	}
	best := struct{ cpus, hosts, each int64 }{cpus: math.MaxInt64}
	// A range of many parts costs more to ask, and no document may cost much.
	parts := 1
	for _, v := range []*RangeValue{r.TotalCPUCount, r.TotalResourceCount, r.IndividualCPUCount} {
		if v != nil {
			parts += len(v.Exact) + len(v.Ranges)
		}
	}
	for budget := max(100, maxSearch/parts); budget > 0; budget-- {
		// For so many hosts, the two ranges leap over each other until they meet.
		for t := from; budget > 0; budget-- {
			each, ok := r.IndividualCPUCount.LowestInteger(ceil(t, hosts))
			if !ok || each > maxCount || each*hosts >= best.cpus {
				break
			}
			if t = each * hosts; r.TotalCPUCount == nil || r.TotalCPUCount.Contains(float64(t)) {
				best.cpus, best.hosts, best.each = t, hosts, each
				break
			}
			if t, ok = r.TotalCPUCount.LowestInteger(t); !ok || t > maxCount {
				break
			}
		}
		next, ok := hosts+1, true
		if r.TotalResourceCount != nil {
			next, ok = r.TotalResourceCount.LowestInteger(hosts + 1)
		}
		if hosts = next; !ok || hosts >= best.cpus || hosts > maxCount {
			break
		}
	}
	if best.cpus == math.MaxInt64 {
		if r.TotalCPUCount == nil {
			return unsatisfiable("IndividualCPUCount", "no whole number in its range, with one in that of TotalResourceCount, gives the %d CPUs that the processes need", from)
		}
		if r.TotalResourceCount == nil {
			return unsatisfiable("TotalCPUCount", "no whole number in its range is a multiple of one in that of IndividualCPUCount")
		}
		return unsatisfiable("TotalCPUCount", "no whole number in its range is one of TotalResourceCount times one of IndividualCPUCount")
	}
	return set(best.cpus, best.hosts, best.each)
}

// fill settles an amount for so many hosts; 0 is not known.
func (a *Amount) fill(name string, individual, total *RangeValue, hosts int64) error {
	var ok bool
	if individual != nil {
		if a.PerHost, ok = individual.LowestInteger(0); !ok {
			return unsatisfiable("Individual"+name, "no whole number of bytes is in its range")
		}
	}
	if total == nil {
		return nil
	}
	if a.Total, ok = total.LowestInteger(0); !ok {
		return unsatisfiable("Total"+name, "no whole number of bytes is in its range")
	}
	if hosts == 0 {
		return nil
	}
	if per := ceil(a.Total, hosts); per > a.PerHost {
		a.PerHost = per
		if individual != nil {
			if a.PerHost, ok = individual.LowestInteger(per); !ok {
				return unsatisfiable("Individual"+name, "no number in its range gives what Total%s asks for, on %d hosts", name, hosts)
			}
		}
	}
	// Only what both ask for can contradict the total; what was rounded up does not.
	if most, ok := total.HighestInteger(); individual != nil && ok && most < math.MaxInt64 && a.PerHost > ceil(most, hosts) {
		return unsatisfiable("Total"+name, "%d bytes on each of %d hosts, which Individual%s asks for, are more than its range allows", a.PerHost, hosts, name)
	}
	return nil
}

// wallTime gives the time limit in seconds, or 0.
func wallTime(limit *big.Int, r *Resources, cpus int64) (int64, error) {
	if limit != nil {
		if !limit.IsInt64() {
			return 0, nil // no clock runs so long
		}
		return max(1, limit.Int64()), nil
	}
	var wall int64
	for _, t := range []struct {
		name string
		r    *RangeValue
		by   int64
	}{{"TotalCPUTime", r.TotalCPUTime, cpus}, {"IndividualCPUTime", r.IndividualCPUTime, 1}} {
		if t.r == nil || t.r.unconstrained() {
			continue
		}
		n, ok := t.r.HighestInteger()
		if n == math.MaxInt64 {
			if n, ok = t.r.LowestInteger(0); ok && n == 0 {
				continue
			}
		}
		if !ok {
			return 0, unsatisfiable(t.name, "no whole number of seconds is in its range")
		}
		if n = max(1, ceil(n, t.by)); wall == 0 || n < wall {
			wall = n
		}
	}
	return wall, nil
}

// ceil divides, rounding up; neither is negative.
func ceil(n, by int64) int64 {
	q := n / by
	if n%by > 0 {
		q++
	}
	return q
}
