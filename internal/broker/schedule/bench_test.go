package schedule

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/resourcemodel"
)

// loaded makes a Scheduler with sites of so many CPUs in all and so many jobs that wait,
// of 15 classes, 40 owners and 3 VOs.
func loaded(b testing.TB, places Places, sites, cpus, jobs int, order string) (*world, []*policy.Job) {
	rng := rand.New(rand.NewPCG(uint64(jobs), 3))
	w := newWorld(b, Options{Places: places})
	w.s.derived = func(now time.Time) resourcemodel.Derived { return resourcemodel.Derived{Now: now} }
	var all []*resourcemodel.Site
	for i := range sites {
		all = append(all, siteOf(fmt.Sprintf("site%04d", i), (cpus+32*sites-1)/(32*sites), 32))
	}
	w.put(all...)
	if err := w.set(Gateway, policy.Scheduling, order, false); err != nil {
		b.Fatal(err)
	}
	out := make([]*policy.Job, jobs)
	for i := range out {
		vo := []string{"bio", "phys", "chem"}[rng.IntN(3)]
		out[i] = &policy.Job{
			ID: fmt.Sprintf("j%08d", i), Owner: fmt.Sprintf("user%02d", rng.IntN(40)), VO: vo, Submitted: noon.Add(time.Duration(i) * time.Millisecond),
			Priority: rng.IntN(10), CPUs: 1 << rng.IntN(5), Length: time.Hour,
		}
		out[i].Request = w.request("", vo, out[i].CPUs, nil)
	}
	return w, out
}

// spent is the processor time of the process so far: what "on one core" is about, however
// many others there are on the machine.
func spent(b testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// queueTimes tells how much processor time it takes to let jobs wait, to place the first
// of them, and to place all; and how many bytes a waiting job takes, without the job itself.
func queueTimes(b testing.TB, n int, order string) (add, first, last time.Duration, bytes float64) {
	w, jobs := loaded(b, nil, 100, n*14, n, order)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	begin := spent(b)
	for _, j := range jobs {
		w.s.Add(Entry{Job: j, Attempt: 1})
	}
	add = spent(b) - begin
	runtime.GC()
	runtime.ReadMemStats(&after)
	bytes = (float64(after.HeapAlloc) - float64(before.HeapAlloc)) / float64(n)
	begin = spent(b)
	placed := len(w.round(1))
	first = spent(b) - begin
	for placed < n {
		ds := w.round(256)
		if len(ds) == 0 {
			b.Fatalf("only %d of %d were placed", placed, n)
		}
		placed += len(ds)
		w.now = w.now.Add(time.Millisecond)
	}
	return add, first, spent(b) - begin, bytes
}

// turnover keeps 100,000 slots full: jobs end, and others that wait get their places.
func turnover(b testing.TB, places Places, sites int, order string, most int) (perSecond float64) {
	const slots, ending = 100_000, 256
	w, jobs := loaded(b, places, sites, slots, 40_000, order)
	for _, j := range jobs {
		w.s.Add(Entry{Job: j, Attempt: 1})
	}
	rng := rand.New(rand.NewPCG(7, 7))
	running := w.round(0)
	next := len(jobs)
	placed := 0
	runtime.GC()
	begin := spent(b)
	for placed < most {
		for range ending {
			i := rng.IntN(len(running))
			w.s.Left(running[i].Job)
			running[i] = running[len(running)-1]
			running = running[:len(running)-1]
		}
		w.now = w.now.Add(10 * time.Millisecond)
		ds := w.round(0)
		running = append(running, ds...)
		placed += len(ds)
		for range ds { // as many come
			j := *jobs[rng.IntN(len(jobs))]
			j.ID = fmt.Sprintf("j%08d", next)
			j.Submitted = w.now
			next++
			w.s.Add(Entry{Job: &j, Attempt: 1})
		}
	}
	took := spent(b) - begin
	if err := w.s.Audit(w.now); err != nil {
		b.Fatal(err)
	}
	return float64(placed) / took.Seconds()
}

// BenchmarkScheduleRatios prints how the time to place a queue grows with it, and how
// many jobs a second get a place while all are taken.
func BenchmarkScheduleRatios(b *testing.B) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // the figures are of one core
	for b.Loop() {
		var ns []float64
		sizes := []int{1000, 10_000, 100_000, 1_000_000}
		for _, n := range sizes {
			runs := max(1, 100_000/n)
			runs = min(runs, 20)
			var add, first, last time.Duration
			var bytes float64
			for range runs {
				a, f, l, size := queueTimes(b, n, "fairshare")
				add, first, last, bytes = add+a, first+f, last+l, size
			}
			add, first, last = add/time.Duration(runs), first/time.Duration(runs), last/time.Duration(runs)
			ns = append(ns, float64(last)/float64(n))
			b.Logf("%9d jobs of %.0f bytes each, processor time: %6.0f ns each to let them wait; the first has its place after %s, the last after %s, %6.0f ns a job", n, bytes, float64(add)/float64(n), first.Round(time.Microsecond), last.Round(time.Millisecond), float64(last)/float64(n))
		}
		// time ~ jobs^exponent, from the smallest to the largest queue
		exponent := 1 + math.Log(ns[len(ns)-1]/ns[0])/math.Log(float64(sizes[len(sizes)-1])/float64(sizes[0]))
		b.Logf("the time to place all grows with jobs^%.3f from %d to %d", exponent, sizes[0], sizes[len(sizes)-1])
		perSecond := turnover(b, nil, 200, "fairshare", 20_000)
		b.Logf("%.0f assignments for each second of processor time while 100,000 slots are full (15,000 are wanted)", perSecond)
		b.ReportMetric(exponent, "growth-exponent")
		b.ReportMetric(ns[2], "ns/job-of-100k")
		b.ReportMetric(ns[3], "ns/job-of-1M")
		b.ReportMetric(perSecond, "assignments/s")
	}
}

// BenchmarkTurnover tells the same for each order and number of sites, of Places that look
// at every place and of those with an index.
func BenchmarkTurnover(b *testing.B) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, order := range []string{"fairshare", "fifo", "edf"} {
		for _, sites := range []int{4, 40, 200, 400} {
			for name, places := range map[string]func(*resourcemodel.Snapshot) Places{
				"survey":  func(m *resourcemodel.Snapshot) Places { return NewSurvey(m) },
				"indexed": func(m *resourcemodel.Snapshot) Places { return NewIndexed(m) },
			} {
				b.Run(fmt.Sprintf("%s/%d/%s", order, sites, name), func(b *testing.B) {
					for b.Loop() {
						b.ReportMetric(turnover(b, places(resourcemodel.Empty()), sites, order, 20_000), "assignments/s")
					}
				})
			}
		}
	}
}
