package policy

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func ago(m int, site string) Copy {
	return Copy{Place: place(site), Started: epoch.Add(-time.Duration(m) * time.Minute)}
}

func idlePlace(site string, free, order int, speed float64) Candidate {
	return Candidate{Place: place(site), Free: free, Order: order, Derived: known(nil, nil, nil, map[string]float64{site: speed})}
}

func TestReplicas(t *testing.T) {
	wide := Replicator{Copies: 3, Waste: 100, Length: time.Hour}
	bag := []BagJob{
		{ID: "1", CPUs: 1, Done: true, Ran: 30 * time.Minute},
		{ID: "2", CPUs: 1, Copies: []Copy{ago(20, "a")}},
		{ID: "3", CPUs: 1, Copies: []Copy{ago(50, "a")}},
		{ID: "4", CPUs: 1, Copies: []Copy{ago(90, "b"), ago(10, "a")}},
	}
	idle := []Candidate{idlePlace("a", 2, 0, 1), idlePlace("b", 1, 1, 3), idlePlace("c", 2, 2, 2)}
	waits := append(slices.Clone(bag), BagJob{ID: "5"})
	with := func(change func(*Replicator)) Replicator {
		r := wide
		change(&r)
		return r
	}
	for _, c := range []struct {
		name string
		bag  []BagJob
		idle []Candidate
		r    Replicator
		want string
	}{
		{"those that wait go first", waits, idle, wide, "[]"},
		{"nothing is idle", bag, nil, wide, "[]"},
		{"nothing runs", bag[:1], idle, wide, "[]"},
		// 3 runs the longest of those with one copy and gets the fastest; then 2; then, as
		// all have two, 4 has no new site but c.
		{"the fewest copies first, then the oldest", bag, idle, wide, "[{2 1} {1 2} {3 2}]"},
		{"as many copies as are set", bag, idle, with(func(r *Replicator) { r.Copies = 2 }), "[{2 1} {1 2}]"},
		{"copies that are late only", bag, idle, with(func(r *Replicator) { r.Late = 1.5 }), "[{2 1} {3 2} {2 2}]"},
		// The bag needs 2 h; the second copy of 4 may waste half of an hour, so that half
		// of an hour is left: one copy at twice the speed, and one at thrice, are 25 minutes.
		{"waste is bounded", bag, idle, with(func(r *Replicator) { r.Waste = 0.5 }), "[{2 1} {1 2}]"},
		{"waste is bounded more", bag, idle, with(func(r *Replicator) { r.Waste = 0.35 }), "[{2 1}]"},
		{"no waste, no copies", bag, idle, with(func(r *Replicator) { r.Waste = 0 }), "[]"},
		{"where there is one already, never", bag[:2], idle[:1], wide, "[]"},
	} {
		if got := fmt.Sprint(Replicas(c.bag, c.idle, epoch, c.r)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	// Another share of the same site is good only where no other site is.
	near := idlePlace("a", 1, 0, 9)
	near.Place.Share = "long"
	if got := fmt.Sprint(Replicas(bag[:2], []Candidate{near, idle[2]}, epoch, wide)); got != "[{1 1} {1 0}]" {
		t.Errorf("sites: %s", got)
	}
}

// TestReplicasProperties: no job has more copies than are set or two at a place, no
// place more than are free, and what may be wasted is bounded.
func TestReplicasProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Replicator{
			Copies: rapid.IntRange(2, 4).Draw(t, "copies"), Waste: rapid.Float64Range(0, 2).Draw(t, "waste"),
			Late: rapid.SampledFrom([]float64{0, 0.5, 1}).Draw(t, "late"), Length: time.Hour,
		}
		var idle []Candidate
		for i := range rapid.IntRange(1, 4).Draw(t, "places") {
			idle = append(idle, idlePlace(fmt.Sprint("s", i), rapid.IntRange(0, 3).Draw(t, "free"), i, 0.5+rapid.Float64Range(0, 3).Draw(t, "speed")))
		}
		var bag []BagJob
		need, waste := 0.0, 0.0
		for i := range rapid.IntRange(1, 6).Draw(t, "jobs") {
			b := BagJob{ID: fmt.Sprint(i), CPUs: rapid.IntRange(1, 4).Draw(t, "CPUs"), Length: time.Duration(rapid.IntRange(1, 100).Draw(t, "length")) * time.Minute, Wasted: float64(rapid.IntRange(0, 1000).Draw(t, "wasted"))}
			one := float64(b.CPUs) * b.Length.Seconds()
			if b.Done = rapid.Bool().Draw(t, "done"); b.Done {
				b.Ran = b.Length
			} else {
				b.Copies = []Copy{ago(rapid.IntRange(0, 100).Draw(t, "since"), fmt.Sprint("s", rapid.IntRange(0, 3).Draw(t, "at")))}
			}
			need += one
			waste += b.Wasted
			bag = append(bag, b)
		}
		before := waste
		got := Replicas(bag, idle, epoch, r)
		if !slices.Equal(got, Replicas(bag, idle, epoch, r)) {
			t.Fatal("another plan of the same")
		}
		used := make([]int, len(idle))
		copies := map[int]int{}
		where := map[string]bool{}
		for _, c := range got {
			b, p := &bag[c.Job], &idle[c.Candidate]
			key := fmt.Sprint(c.Job, p.Place)
			if b.Done || where[key] || b.Copies[0].Place == p.Place {
				t.Fatalf("%+v gets a copy at %v", b, p.Place)
			}
			where[key] = true
			if used[c.Candidate]++; used[c.Candidate] > p.Free {
				t.Fatalf("%v gets too many", p.Place)
			}
			if copies[c.Job]++; copies[c.Job]+1 > r.Copies {
				t.Fatalf("job %d has too many copies", c.Job)
			}
			if r.Late > 0 && epoch.Sub(b.Copies[0].Started).Seconds() < r.Late*b.Length.Seconds() {
				t.Fatalf("job %d is not late", c.Job)
			}
			waste += float64(b.CPUs) * b.Length.Seconds() / p.performance()
		}
		if len(got) > 0 && waste > r.Waste*need*(1+1e-9) {
			t.Fatalf("%v CPU-seconds may be wasted of %v, and %v were", waste, need, before)
		}
	})
}

// TestReplicationHelps runs a bag on places of which one hangs: with copies it ends,
// and what is wasted keeps the bound.
func TestReplicationHelps(t *testing.T) {
	type copyOf struct {
		job, at int
		ends    time.Time
		started time.Time
	}
	run := func(r *Replicator) (took time.Duration, wasted float64) {
		speeds := []float64{1, 2, 0.01} // the last one all but hangs
		free := []int{2, 2, 1}
		const n, length = 20, 10 * time.Minute
		bag := make([]BagJob, n)
		for i := range bag {
			bag[i] = BagJob{ID: fmt.Sprintf("%02d", i), CPUs: 1, Length: length}
		}
		var running []copyOf
		now, waiting, done := epoch, 0, 0
		start := func(job, at int) {
			free[at]--
			running = append(running, copyOf{job, at, now.Add(time.Duration(float64(length) / speeds[at])), now})
			bag[job].Copies = append(bag[job].Copies, Copy{place(fmt.Sprint("s", at)), now})
		}
		for done < n {
			for at := range free {
				for free[at] > 0 && waiting < n {
					start(waiting, at)
					waiting++
				}
			}
			if r != nil {
				var idle []Candidate
				for at := range free {
					idle = append(idle, idlePlace(fmt.Sprint("s", at), free[at], at, speeds[at]))
				}
				for _, c := range Replicas(bag, idle, now, *r) {
					start(c.Job, c.Candidate)
				}
			}
			next := slices.MinFunc(running, func(a, b copyOf) int { return a.ends.Compare(b.ends) })
			now = next.ends
			b := &bag[next.job]
			var results []Result
			var own []copyOf
			for _, c := range running {
				if c.job == next.job {
					own = append(own, c)
					results = append(results, Result{Ended: !c.ends.After(now), Valid: !c.ends.After(now), At: c.ends})
				}
			}
			winner, end, _ := FirstValid(results)
			for _, k := range end {
				b.Wasted += now.Sub(own[k].started).Seconds()
			}
			b.Done, b.Ran, b.Copies = true, now.Sub(own[winner].started), nil
			wasted += b.Wasted
			running = slices.DeleteFunc(running, func(c copyOf) bool {
				if c.job == next.job {
					free[c.at]++
				}
				return c.job == next.job
			})
			done++
		}
		return now.Sub(epoch), wasted
	}
	alone, _ := run(nil)
	r := &Replicator{Copies: 2, Waste: 0.5, Length: time.Hour}
	with, wasted := run(r)
	if alone < 16*time.Hour || with > 2*time.Hour {
		t.Errorf("alone it took %v, with copies %v", alone, with)
	}
	// The copy that hung was no replica, and ends with the result of its replica.
	if bound := r.Waste * 20 * 600; wasted > bound+(2*time.Hour).Seconds() {
		t.Errorf("%v CPU-seconds were wasted, the bound is %v", wasted, bound)
	}
}

func TestFirstValid(t *testing.T) {
	at := func(m int) time.Time { return epoch.Add(time.Duration(m) * time.Minute) }
	for _, c := range []struct {
		results []Result
		want    string
	}{
		{nil, "-1 [] true"},
		{[]Result{{}, {}}, "-1 [] false"},
		{[]Result{{Ended: true, At: at(1)}, {}}, "-1 [] false"},
		{[]Result{{Ended: true, At: at(1)}, {Ended: true, At: at(2)}}, "-1 [] true"},
		{[]Result{{}, {Ended: true, Valid: true, At: at(2)}, {}}, "1 [0 2] false"},
		{[]Result{{Ended: true, At: at(1)}, {Ended: true, Valid: true, At: at(3)}, {Ended: true, Valid: true, At: at(2)}}, "2 [] false"},
		{[]Result{{Ended: true, Valid: true, At: at(2)}, {Ended: true, Valid: true, At: at(2)}}, "0 [] false"},
	} {
		w, end, over := FirstValid(c.results)
		if got := fmt.Sprint(w, end, over); got != c.want {
			t.Errorf("%+v: %s, want %s", c.results, got, c.want)
		}
	}
}
