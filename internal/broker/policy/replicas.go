package policy

import (
	"cmp"
	"slices"
	"time"

	"github.com/portolan-project/portolan/resourcemodel"
)

// BagJob is a job of a bag: jobs that are alike and independent, of a sweep for
// instance.
type BagJob struct {
	ID     string
	CPUs   int
	Length time.Duration // estimated run time; 0 is not known
	Copies []Copy        // that have a place; none: the job waits
	// Done is that a valid result is there; Ran is how long the copy ran that gave it.
	Done bool
	Ran  time.Duration
	// Wasted are the CPU-seconds of copies that ended without being the first with a
	// valid result.
	Wasted float64
}

// Copy is one of the placements of a BagJob that may give its result.
type Copy struct {
	Place   resourcemodel.Place
	Started time.Time // zero: it has a place and does not run yet
}

// Replicator has the parameters of work queue with replication.
type Replicator struct {
	Copies int           // of a job at once, the first among them
	Waste  float64       // at most such a part of the CPU time that the bag needs by itself
	Late   float64       // only jobs that run so many times their expected length; 0: any
	Length time.Duration // expected where neither the job nor the bag tells; 1h
}

// Replica is one further copy of a job, at an idle place.
type Replica struct {
	Job       int // index in the bag
	Candidate int // index in idle
}

// Replicas plans copies of the last jobs of a bag, on what is idle (da Silva, Cirne and
// Brasileiro, "Trading cycles for information", 2003): once none of its jobs waits,
// those that run get copies until each has Copies of them, those with the fewest first,
// of these the one that has run for the longest. A copy goes to the fastest idle place
// of a site where the job has none, and of other places only where there is no such
// one; never to a place where it has one. An idle place takes Free copies, alike jobs
// being alike to it.
//
// A copy's cost is what it would use in vain: its CPUs × the expected length at the
// place's speed. What copies have wasted, what those under way may waste and what new
// ones may is together never more than Waste × what the bag needs by itself; a copy
// that would break this bound is not planned. The length is expected as the job's own
// estimate says, else as the mean of the bag's jobs that are done, else as r.Length.
func Replicas(bag []BagJob, idle []Candidate, now time.Time, r Replicator) []Replica {
	if len(idle) == 0 || r.Copies < 2 {
		return nil
	}
	expected := expectation(bag, r.Length)
	need, waste := 0.0, 0.0
	var open []int
	copies := make([]int, len(bag))
	for i := range bag {
		b := &bag[i]
		copies[i] = len(b.Copies)
		if len(b.Copies) == 0 && !b.Done {
			return nil // it goes first
		}
		one := float64(max(b.CPUs, 1)) * expected(b).Seconds()
		if b.Done {
			one = float64(max(b.CPUs, 1)) * b.Ran.Seconds()
		}
		need += one
		waste += max(b.Wasted, 0)
		switch {
		case b.Done: // copies that are still there are about to be ended
			waste += one * float64(len(b.Copies))
		default:
			waste += one * float64(len(b.Copies)-1)
			if late(b, expected(b), now, r.Late) {
				open = append(open, i)
			}
		}
	}
	fast := make([]int, len(idle))
	free := make([]int, len(idle))
	for k := range idle {
		fast[k], free[k] = k, idle[k].Free
	}
	slices.SortStableFunc(fast, func(a, b int) int {
		x, y := &idle[a], &idle[b]
		return cmp.Or(cmp.Compare(y.performance(), x.performance()), cmp.Compare(x.Preference, y.Preference), cmp.Compare(x.Order, y.Order), x.Place.Compare(y.Place))
	})
	var out []Replica
	had := func(i int, same func(resourcemodel.Place) bool) bool {
		for _, c := range bag[i].Copies {
			if same(c.Place) {
				return true
			}
		}
		return slices.ContainsFunc(out, func(p Replica) bool { return p.Job == i && same(idle[p.Candidate].Place) })
	}
	for len(open) > 0 {
		// Copies go round, so that no job has two more than another.
		slices.SortStableFunc(open, func(a, b int) int {
			return cmp.Or(cmp.Compare(copies[a], copies[b]), started(&bag[a], now).Compare(started(&bag[b], now)), cmp.Compare(bag[a].ID, bag[b].ID))
		})
		i := open[0]
		if copies[i] >= r.Copies {
			break
		}
		at := -1
		for _, elsewhere := range []bool{true, false} {
			for _, k := range fast {
				p := idle[k].Place
				if free[k] <= 0 || had(i, func(q resourcemodel.Place) bool { return q == p || elsewhere && q.Key == p.Key }) {
					continue
				}
				cost := float64(max(bag[i].CPUs, 1)) * expected(&bag[i]).Seconds() / idle[k].performance()
				if waste+cost <= r.Waste*need*(1+1e-12) {
					at = k
					waste += cost
					break
				}
			}
			if at >= 0 {
				break
			}
		}
		if at < 0 {
			open = open[1:]
			continue
		}
		out = append(out, Replica{i, at})
		free[at]--
		copies[i]++
	}
	return out
}

// expectation gives how long a job of the bag is expected to run.
func expectation(bag []BagJob, otherwise time.Duration) func(*BagJob) time.Duration {
	var sum time.Duration
	n := 0
	for i := range bag {
		if bag[i].Done && bag[i].Ran > 0 {
			sum += bag[i].Ran
			n++
		}
	}
	if n > 0 {
		otherwise = sum / time.Duration(n)
	}
	if otherwise <= 0 {
		otherwise = time.Hour
	}
	return func(b *BagJob) time.Duration {
		if b.Length > 0 {
			return b.Length
		}
		return otherwise
	}
}

// started gives when the first copy of a job began to run; now for one that none does of.
func started(b *BagJob, now time.Time) time.Time {
	first := now
	for _, c := range b.Copies {
		if !c.Started.IsZero() && c.Started.Before(first) {
			first = c.Started
		}
	}
	return first
}

func late(b *BagJob, expected time.Duration, now time.Time, times float64) bool {
	return times == 0 || now.Sub(started(b, now)).Seconds() >= times*expected.Seconds()
}

// Result is how one of the copies of a job stands.
type Result struct {
	Ended bool
	Valid bool      // it gave a result that counts
	At    time.Time // when it ended
}

// FirstValid gives the copy whose result is the job's: of those that ended with a valid
// one the first, by time and then by index; -1 while there is none. end are the copies
// to be ended: all that still run, once there is a winner. over is that none is left
// that could win.
func FirstValid(results []Result) (winner int, end []int, over bool) {
	winner, over = -1, true
	for i, r := range results {
		switch {
		case !r.Ended:
			end = append(end, i)
			over = false
		case r.Valid && (winner < 0 || r.At.Before(results[winner].At)):
			winner = i
		}
	}
	if winner < 0 {
		return -1, nil, over
	}
	return winner, end, false
}
