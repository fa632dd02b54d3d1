package jsdl

import (
	"fmt"
	"math"
	"math/big"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/internal/fail"
)

func exactly(v float64) *RangeValue { return &RangeValue{Exact: []Exact{{Value: v}}} }
func atLeast(v float64) *RangeValue { return &RangeValue{Lower: &Bound{Value: v}} }
func upTo(v float64) *RangeValue    { return &RangeValue{Upper: &Bound{Value: v}} }
func from(lo, hi float64) *RangeValue {
	return &RangeValue{Ranges: []Range{{Lower: Bound{Value: lo}, Upper: Bound{Value: hi}}}}
}

func ask(r Resources) *JobDefinition {
	return &JobDefinition{Description: JobDescription{Resources: &r}}
}

func processes(n int64) *SPMDApplication {
	return &SPMDApplication{NumberOfProcesses: &ProcessCount{Value: big.NewInt(n)}, Variation: VariationMPI}
}

func parallel(s *SPMDApplication, r Resources) *JobDefinition {
	j := ask(r)
	j.Description.Application = &Application{SPMD: s}
	return j
}

func limited(wall int64, r Resources) *JobDefinition {
	j := ask(r)
	j.Description.Application = &Application{POSIX: &POSIXApplication{Limits: Limits{WallTime: big.NewInt(wall)}}}
	return j
}

func TestRequest(t *testing.T) {
	threaded := processes(4)
	threaded.ThreadsPerProcess = &ProcessCount{Value: big.NewInt(2)}
	spread := processes(5)
	spread.ProcessesPerHost = big.NewInt(2)
	actual := &SPMDApplication{NumberOfProcesses: &ProcessCount{Actual: true}, ProcessesPerHost: big.NewInt(4), Variation: VariationMPI}
	huge := new(big.Int).Lsh(big.NewInt(1), 80)
	for _, c := range []struct {
		name string
		give *JobDefinition
		want Request // Processes and Threads of 0 are 1
		says string  // in the refusal
	}{
		{"nothing", new(JobDefinition), Request{CPUs: 1}, ""},
		{"total", ask(Resources{TotalCPUCount: exactly(8)}), Request{CPUs: 8}, ""},
		{"at least", ask(Resources{TotalCPUCount: atLeast(2.5)}), Request{CPUs: 3}, ""},
		{"at most", ask(Resources{TotalCPUCount: upTo(8)}), Request{CPUs: 1}, ""},
		{"hosts", ask(Resources{TotalResourceCount: exactly(3)}), Request{CPUs: 3, Hosts: 3, CPUsPerHost: 1}, ""},
		{"each", ask(Resources{IndividualCPUCount: exactly(4)}), Request{CPUs: 4, Hosts: 1, CPUsPerHost: 4}, ""},
		{"hosts and each", ask(Resources{TotalResourceCount: exactly(2), IndividualCPUCount: exactly(4)}), Request{CPUs: 8, Hosts: 2, CPUsPerHost: 4}, ""},
		{"total and each", ask(Resources{TotalCPUCount: exactly(8), IndividualCPUCount: exactly(4)}), Request{CPUs: 8, Hosts: 2, CPUsPerHost: 4}, ""},
		{"total and at least each", ask(Resources{TotalCPUCount: exactly(8), IndividualCPUCount: atLeast(2)}), Request{CPUs: 8, CPUsPerHost: 2}, ""},
		{"total and at most each", ask(Resources{TotalCPUCount: exactly(8), IndividualCPUCount: upTo(4)}), Request{CPUs: 8, Hosts: 2, CPUsPerHost: 4}, ""},
		{"total and hosts, uneven", ask(Resources{TotalCPUCount: exactly(5), TotalResourceCount: exactly(2)}), Request{CPUs: 5, Hosts: 2, CPUsPerHost: 2}, ""},
		{"all three", ask(Resources{TotalCPUCount: atLeast(7), TotalResourceCount: from(2, 3), IndividualCPUCount: from(2, 4)}), Request{CPUs: 8, Hosts: 2, CPUsPerHost: 4}, ""},
		{"exclusive", ask(Resources{ExclusiveExecution: new(true)}), Request{CPUs: 1, Exclusive: true}, ""},
		{"no multiple", ask(Resources{TotalCPUCount: exactly(8), IndividualCPUCount: exactly(3)}), Request{}, "TotalCPUCount"},
		{"fewer than hosts", ask(Resources{TotalCPUCount: exactly(1), TotalResourceCount: exactly(2)}), Request{}, "TotalCPUCount"},
		{"no product", ask(Resources{TotalCPUCount: exactly(7), TotalResourceCount: exactly(2), IndividualCPUCount: atLeast(1)}), Request{}, "TotalCPUCount"},
		{"no whole number", ask(Resources{TotalCPUCount: from(1.2, 1.8)}), Request{}, "TotalCPUCount"},
		{"none at all", ask(Resources{IndividualCPUCount: upTo(0)}), Request{}, "IndividualCPUCount"},
		{"too many", ask(Resources{TotalResourceCount: exactly(1e12)}), Request{}, "TotalResourceCount"},
		{"too many by product", ask(Resources{TotalResourceCount: exactly(1e9), IndividualCPUCount: exactly(1e9)}), Request{}, "CPU"},

		{"processes", parallel(processes(4), Resources{}), Request{CPUs: 4, Processes: 4}, ""},
		{"threads", parallel(threaded, Resources{}), Request{CPUs: 8, Processes: 4, Threads: 2}, ""},
		{"threads share", parallel(threaded, Resources{TotalCPUCount: exactly(4)}), Request{CPUs: 4, Processes: 4, Threads: 2}, ""},
		{"processes with more CPUs", parallel(processes(4), Resources{TotalCPUCount: exactly(16)}), Request{CPUs: 16, Processes: 4}, ""},
		{"processes with too few", parallel(processes(4), Resources{TotalCPUCount: exactly(2)}), Request{}, "TotalCPUCount"},
		{"crowded", parallel(processes(4), Resources{TotalCPUCount: exactly(2), ExclusiveExecution: new(true)}), Request{CPUs: 2, Processes: 4, Exclusive: true}, ""},
		{"processes per host", parallel(spread, Resources{}), Request{CPUs: 5, Hosts: 3, CPUsPerHost: 1, Processes: 5, ProcessesPerHost: 2}, ""},
		{"processes on hosts of so many", parallel(processes(8), Resources{IndividualCPUCount: exactly(4)}), Request{CPUs: 8, Hosts: 2, CPUsPerHost: 4, Processes: 8}, ""},
		{"one process for each CPU", parallel(actual, Resources{TotalCPUCount: exactly(8)}), Request{CPUs: 8, Hosts: 2, CPUsPerHost: 4, Processes: 8, ProcessesPerHost: 4}, ""},

		{"memory", ask(Resources{IndividualPhysicalMemory: atLeast(1e9)}), Request{CPUs: 1, Memory: Amount{PerHost: 1e9}}, ""},
		{"memory in all", ask(Resources{TotalPhysicalMemory: atLeast(1e9)}), Request{CPUs: 1, Memory: Amount{Total: 1e9}}, ""},
		{
			"memory of hosts", ask(Resources{TotalPhysicalMemory: atLeast(1e9), TotalResourceCount: exactly(3)}),
			Request{CPUs: 3, Hosts: 3, CPUsPerHost: 1, Memory: Amount{PerHost: 333333334, Total: 1e9}},
			"",
		},
		{"memory at most", ask(Resources{IndividualPhysicalMemory: upTo(1e9)}), Request{CPUs: 1}, ""},
		{"memory that contradicts", ask(Resources{TotalPhysicalMemory: upTo(1e9), IndividualPhysicalMemory: atLeast(1e9), TotalResourceCount: exactly(2)}), Request{}, "TotalPhysicalMemory"},
		{
			"disk and virtual memory", ask(Resources{IndividualDiskSpace: atLeast(5), TotalVirtualMemory: exactly(7)}),
			Request{CPUs: 1, Disk: Amount{PerHost: 5}, VirtualMemory: Amount{Total: 7}},
			"",
		},
		{"no bytes", ask(Resources{TotalDiskSpace: upTo(-1)}), Request{}, "TotalDiskSpace"},
		{"too many bytes", ask(Resources{IndividualPhysicalMemory: atLeast(1e30)}), Request{}, "IndividualPhysicalMemory"},

		{"wall time", limited(90, Resources{TotalCPUTime: exactly(10)}), Request{CPUs: 1, WallTime: 90}, ""},
		{"no time", limited(0, Resources{}), Request{CPUs: 1, WallTime: 1}, ""},
		{"CPU time", ask(Resources{TotalCPUTime: upTo(10), TotalCPUCount: exactly(4)}), Request{CPUs: 4, WallTime: 3}, ""},
		{"CPU time at least", ask(Resources{IndividualCPUTime: atLeast(59.5)}), Request{CPUs: 1, WallTime: 60}, ""},
		{"CPU times", ask(Resources{IndividualCPUTime: exactly(50), TotalCPUTime: exactly(40)}), Request{CPUs: 1, WallTime: 40}, ""},
		{"no CPU time", ask(Resources{TotalCPUTime: from(5.1, 5.9)}), Request{}, "TotalCPUTime"},
		{"no limit", ask(Resources{TotalCPUTime: upTo(math.Inf(1))}), Request{CPUs: 1}, ""},
		{"endless", &JobDefinition{Description: JobDescription{Application: &Application{POSIX: &POSIXApplication{Limits: Limits{WallTime: huge}}}}}, Request{CPUs: 1}, ""},
	} {
		c.want.Processes, c.want.Threads = max(c.want.Processes, 1), max(c.want.Threads, 1)
		got, err := c.give.Request()
		switch {
		case c.says != "":
			if !fail.Is(err, fail.Unsupported) || !strings.Contains(fail.Sentence(err), c.says) {
				t.Errorf("%s: got %+v, %v; want a refusal that names %s", c.name, got, err, c.says)
			}
		case err != nil || got != c.want:
			t.Errorf("%s: got %+v, %v\nwant %+v", c.name, got, err, c.want)
		}
	}
}

// Against trying every number: what is asked for is in the ranges, nothing less
// would be, and only what nothing satisfies is refused.
func TestRequestAgainstEnumeration(t *testing.T) {
	const most = 14
	small := func(t *rapid.T, name string) *RangeValue {
		n := func() float64 { return rapid.SampledFrom([]float64{0.5, 1, 2, 2.5, 3, 4, 5, 6, 8, 9}).Draw(t, name) }
		switch rapid.IntRange(0, 5).Draw(t, name) {
		case 0:
			return exactly(n())
		case 1:
			return from(n(), n())
		case 2:
			return &RangeValue{Exact: []Exact{{Value: n()}, {Value: n()}}}
		case 3:
			return &RangeValue{Lower: &Bound{Value: n(), Exclusive: rapid.Bool().Draw(t, name)}, Upper: &Bound{Value: most}}
		case 4:
			return upTo(n())
		}
		return nil
	}
	in := func(r *RangeValue, n int) bool { return r == nil || r.Contains(float64(n)) }
	rapid.Check(t, func(t *rapid.T) {
		r := Resources{TotalCPUCount: small(t, "total"), TotalResourceCount: small(t, "hosts"), IndividualCPUCount: small(t, "each")}
		best := 0
		for hosts := most * most; hosts >= 1; hosts-- {
			if !in(r.TotalResourceCount, hosts) {
				continue
			}
			if r.IndividualCPUCount == nil { // any spread that gives each host a CPU
				for cpus := most * most; cpus >= hosts; cpus-- {
					if in(r.TotalCPUCount, cpus) && (best == 0 || cpus < best) {
						best = cpus
					}
				}
				continue
			}
			for each := most; each >= 1; each-- {
				if cpus := hosts * each; in(r.IndividualCPUCount, each) && in(r.TotalCPUCount, cpus) && (best == 0 || cpus < best) {
					best = cpus
				}
			}
		}
		got, err := ask(r).Request()
		if (err == nil) != (best > 0) || got.CPUs != best {
			t.Fatalf("got %+v, %v; the least is %d", got, err, best)
		}
		if err != nil {
			return
		}
		if got.Hosts > 0 && !in(r.TotalResourceCount, got.Hosts) || got.Hosts*got.CPUsPerHost > got.CPUs {
			t.Fatalf("%+v is not what was asked for", got)
		}
		if r.IndividualCPUCount != nil && (!in(r.IndividualCPUCount, got.CPUsPerHost) || got.Hosts > 0 && got.Hosts*got.CPUsPerHost != got.CPUs) {
			t.Fatalf("%+v is not what was asked for", got)
		}
	})
}

// No definition makes the arithmetic overflow, fail otherwise or take long.
func TestRequestIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q, err := definition().Draw(t, "definition").Request()
		if err != nil {
			if !fail.Is(err, fail.Unsupported) {
				t.Fatal(err)
			}
			return
		}
		if q.CPUs < 1 || q.Hosts < 0 || q.CPUsPerHost < 0 || q.WallTime < 0 || q.Processes < 1 || q.Threads < 1 || q.ProcessesPerHost < 0 ||
			min(q.Memory.PerHost, q.Memory.Total, q.VirtualMemory.PerHost, q.VirtualMemory.Total, q.Disk.PerHost, q.Disk.Total) < 0 {
			t.Fatalf("%+v", q)
		}
	})
	many := func(step int) *RangeValue {
		r := new(RangeValue)
		for i := range 20000 {
			r.Exact = append(r.Exact, Exact{Value: float64(2*i*step + 1)})
		}
		return r
	}
	begin := time.Now()
	_, err := ask(Resources{TotalCPUCount: many(7), TotalResourceCount: &RangeValue{Lower: &Bound{Value: 2}}, IndividualCPUCount: exactly(1 << 20)}).Request()
	t.Log(fmt.Sprint(time.Since(begin)), err)
}
