package policy

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func mustOrder(t testing.TB, text string) Order {
	t.Helper()
	s, err := ParseSetting(text)
	if err != nil {
		t.Fatal(err)
	}
	o, err := NewOrder(s)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// sorted gives the IDs in the order of a policy, as a queue does: heaps of heaps.
func sorted(o Order, jobs []*Job, now time.Time, u Usage) string {
	jobs = slices.Clone(jobs)
	slices.SortFunc(jobs, func(a, b *Job) int {
		ga, gb := o.Group(a), o.Group(b)
		if ga != gb {
			if wa, wb := o.Weight(ga, now, u), o.Weight(gb, now, u); wa != wb {
				if wa < wb {
					return -1
				}
				return 1
			}
			return strings.Compare(ga, gb)
		}
		if c := o.Key(a).Compare(o.Key(b)); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	var ids []string
	for _, j := range jobs {
		ids = append(ids, j.ID)
	}
	return strings.Join(ids, " ")
}

func TestOrders(t *testing.T) {
	at := func(m int) time.Time { return epoch.Add(time.Duration(m) * time.Minute) }
	jobs := []*Job{
		{ID: "a", Owner: "ann", VO: "bio", Submitted: at(0), Length: time.Hour},
		{ID: "b", Owner: "bob", VO: "bio", Submitted: at(1), Deadline: at(300), Length: 10 * time.Minute},
		{ID: "c", Owner: "ann", VO: "bio", Submitted: at(2), Deadline: at(310), Length: 200 * time.Minute, Priority: 5},
		{ID: "d", Owner: "cem", VO: "hep", Submitted: at(3), Priority: 1},
		{ID: "e", Owner: "cem", VO: "hep", Submitted: at(4), Class: 1, Priority: -9},
		{ID: "f", Owner: "bob", VO: "hep", Submitted: at(5), Deadline: at(305)},
		{ID: "g", Owner: "ann", VO: "bio", Submitted: at(70), Priority: 1},
	}
	l, err := NewLedger()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []struct {
		group string
		used  float64
	}{{"vo:bio", 1000}, {"user:ann", 100}, {"user:bob", 900}, {"vo:hep", 1500}, {"user:cem", 1500}} {
		l.Add(a.group, a.used, epoch)
	}
	for _, c := range []struct{ policy, want string }{
		{"fifo", "e a b c d f g"},
		{"edf", "e b f c a d g"},
		{"edf{patience=4h}", "e a d b f c g"}, // a at 240, d at 243, g at 310 and after c by age
		{"realtime", "e c f b a d g"},
		{"realtime{length=0}", "e c b f a d g"},
		{"priority{age=0}", "e c g a b f d"},   // ann's, bob's in both VOs, cem's
		{"priority{age=30m}", "e c a g b f d"}, // c −148, a 0, g 40
		{"priority{age=12h}", "e c g a b f d"},
		{"fairshare", "e c a g b f d"},              // ann in bio, bob in bio, bob in hep, cem in hep
		{"fairshare{users=off}", "e c a b g d f"},   // bio by priority and age, then hep
		{"fairshare{age=0s}", "e c g a b f d"},      // ann's by priority alone
		{"fairshare{halfLife=1m}", "e c a g b f d"}, // all decays alike
	} {
		if got := sorted(mustOrder(t, c.policy), jobs, at(100), l); got != c.want {
			t.Errorf("%s: %s, want %s", c.policy, got, c.want)
		}
	}
	// To say a higher priority gains nothing on another user.
	greedy := slices.Clone(jobs)
	most := *jobs[3]
	most.Priority, greedy[3] = 1000, &most
	for _, p := range []string{"priority{age=0}", "priority", "fairshare"} {
		if before, after := sorted(mustOrder(t, p), jobs, at(100), l), sorted(mustOrder(t, p), greedy, at(100), l); before != after {
			t.Errorf("%s: %s, and %s where cem says that the job is of priority 1000", p, before, after)
		}
	}
	l.SetShares(map[string]float64{"vo:hep": 2, "user:cem": 0})
	if got, want := sorted(mustOrder(t, "fairshare"), jobs, at(100), l), "e f d c a g b"; got != want {
		t.Errorf("with shares: %s, want %s", got, want)
	}
}

// anyJob draws a job; every time is within a year of the epoch, to the nanosecond.
func anyJob(t *rapid.T, i int) *Job {
	when := func(label string) time.Time {
		return epoch.Add(time.Duration(rapid.Int64Range(-int64(365*24*time.Hour), int64(365*24*time.Hour)).Draw(t, label)))
	}
	j := &Job{
		ID: fmt.Sprintf("%06d", i), Owner: rapid.SampledFrom([]string{"ann", "bob", "/DC=org/CN=x"}).Draw(t, "owner"), VO: rapid.SampledFrom([]string{"", "bio", "/hep/x"}).Draw(t, "vo"),
		Submitted: when("submitted"), Class: rapid.IntRange(0, 3).Draw(t, "class"), Priority: rapid.IntRange(-1000, 1000).Draw(t, "priority"),
		Length: time.Duration(rapid.Int64Range(0, int64(time.Hour)*1000).Draw(t, "length")), CPUs: rapid.IntRange(1, 64).Draw(t, "CPUs"),
	}
	if rapid.Bool().Draw(t, "due") {
		j.Deadline = when("deadline")
	}
	return j
}

// uses is a Usage that never changes.
type uses map[string]float64

func (u uses) Used(g string, _ time.Time, _ time.Duration) float64 { return u[g] }
func (u uses) Share(string) float64                                { return 1 }

// TestOrderProperties: keys and weights are numbers, so that the order is total; they
// are those of before whenever asked again; a higher class goes first; and a job that is
// older and no worse in any other way is never behind.
func TestOrderProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, k := anySetting(t)
		if k != Scheduling {
			s = Setting{Name: rapid.SampledFrom([]string{"fifo", "priority", "edf", "realtime", "fairshare"}).Draw(t, "order")}
		}
		o, err := NewOrder(s)
		if err != nil {
			t.Fatal(err)
		}
		u := uses{"vo:bio": 1e6, "user:ann": rapid.Float64Range(0, 1e300).Draw(t, "used")}
		var jobs []*Job
		for i := range 8 {
			jobs = append(jobs, anyJob(t, i))
		}
		for _, j := range jobs {
			key, w := o.Key(j), o.Weight(o.Group(j), epoch, u)
			for _, x := range append(key[:], w) {
				if math.IsNaN(x) || math.IsInf(x, 0) {
					t.Fatalf("%s: %v %v for %+v", s, key, w, j)
				}
			}
			if key != o.Key(j) || w != o.Weight(o.Group(j), epoch, u) {
				t.Fatalf("%s: another key for the same job", s)
			}
			older := *j
			older.Submitted = j.Submitted.Add(-time.Duration(rapid.Int64Range(1e3, 1e15).Draw(t, "older")))
			if o.Key(&older).Compare(key) > 0 {
				t.Fatalf("%s: a job that is older and else alike is behind", s)
			}
			lost := *j
			lost.Class++
			switch g := o.Group(&lost); {
			case g != o.Group(j):
				if o.Weight(g, epoch, u) >= w {
					t.Fatalf("%s: the higher class does not go first", s)
				}
			case o.Key(&lost).Compare(key) >= 0:
				t.Fatalf("%s: the higher class does not go first", s)
			}
		}
		want := sorted(o, jobs, epoch, u)
		slices.Reverse(jobs)
		if got := sorted(o, jobs, epoch, u); got != want {
			t.Fatalf("%s: %s and %s", s, got, want)
		}
	})
}

// TestNoStarvation: under ageing, nobody waits longer for others than what the
// difference in priority is worth, however many of them come.
func TestNoStarvation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		age := rapid.Float64Range(1, 26*day).Draw(t, "age") // times 2,000 steps is what seconds can tell
		o, err := NewOrder(Setting{"priority", map[string]float64{"age": age}})
		if err != nil {
			t.Fatal(err)
		}
		low, high := anyJob(t, 1), anyJob(t, 2)
		low.Class, high.Class = 0, 0
		worth := seconds(float64(high.Priority-low.Priority) * age)
		high.Submitted = low.Submitted.Add(worth).Add(time.Millisecond)
		if o.Key(low).Compare(o.Key(high)) >= 0 {
			t.Fatalf("priority %d of %v goes behind priority %d of %v later", low.Priority, low.Submitted, high.Priority, worth)
		}
		high.Submitted = low.Submitted.Add(worth).Add(-time.Millisecond)
		if o.Key(low).Compare(o.Key(high)) <= 0 {
			t.Fatal("a wait that is not worth it goes first")
		}
	})

	// A server that is never idle: one job of priority 10 a minute, which it can just
	// serve, and one of priority 0.
	serve := func(policy string) (waited int) {
		o := mustOrder(t, policy)
		at := func(m int) time.Time { return epoch.Add(time.Duration(m) * time.Minute) }
		queue := []*Job{{ID: "low", Submitted: at(0)}}
		for m := range 3000 {
			queue = append(queue, &Job{ID: fmt.Sprintf("x%06d", m), Submitted: at(m), Priority: 10})
			best := slices.MinFunc(queue, func(a, b *Job) int { return o.Key(a).Compare(o.Key(b)) })
			if best.ID == "low" {
				return m
			}
			queue = slices.DeleteFunc(queue, func(j *Job) bool { return j == best })
		}
		return -1
	}
	if n := serve("priority{age=1h}"); n < 599 || n > 601 {
		t.Errorf("priority 0 beside 10 with age=1h waited %d minutes, want 600", n)
	}
	if n := serve("priority{age=0}"); n >= 0 {
		t.Errorf("without ageing it waited %d minutes and was served", n)
	}
}

// TestFairShareConverges runs a system that is always full, in which each user has
// always work, of jobs of very different sizes; one VO comes late.
func TestFairShareConverges(t *testing.T) {
	type user struct {
		vo, name string
		size     float64 // mean of its jobs, CPU-seconds
	}
	users := []user{{"bio", "ann", 100}, {"bio", "bob", 5000}, {"hep", "cem", 1000}, {"hep", "dan", 1000}, {"hep", "eve", 50}, {"geo", "fay", 2000}}
	shares := map[string]float64{"vo:bio": 1, "vo:hep": 3, "vo:geo": 2, "user:ann": 2, "user:bob": 1}
	const halfLife = 24 * time.Hour
	l, err := NewLedger(halfLife)
	if err != nil {
		t.Fatal(err)
	}
	l.SetShares(shares)
	o := mustOrder(t, "fairshare{halfLife=1d}")
	rng := newRand(7)
	used := map[string]float64{}
	now := epoch
	var measured float64
	for now.Before(epoch.Add(20 * 24 * time.Hour)) {
		best, weight := -1, math.Inf(1)
		for i, u := range users {
			if u.vo == "geo" && now.Before(epoch.Add(5*24*time.Hour)) {
				continue
			}
			if w := o.Weight(o.Group(&Job{Owner: u.name, VO: u.vo}), now, l); w < weight {
				best, weight = i, w
			}
		}
		u := users[best]
		amount := u.size * (0.1 + 1.8*rng.Float64())
		for _, g := range Accounts(&Job{Owner: u.name, VO: u.vo}) {
			l.Add(g, amount, now)
			if now.After(epoch.Add(15 * 24 * time.Hour)) {
				used[g] += amount
			}
		}
		if now.After(epoch.Add(15 * 24 * time.Hour)) {
			measured += amount
		}
		now = now.Add(time.Duration(amount / 16 * float64(time.Second))) // 16 CPUs
	}
	for _, c := range []struct {
		group string
		part  float64
	}{
		{"vo:bio", 1. / 6},
		{"vo:hep", 3. / 6},
		{"vo:geo", 2. / 6},
		{"user:ann", 2. / 18},
		{"user:bob", 1. / 18},
		{"user:cem", 1. / 6},
		{"user:dan", 1. / 6},
		{"user:eve", 1. / 6},
		{"user:fay", 2. / 6},
	} {
		if got := used[c.group] / measured; math.Abs(got-c.part) > 0.01 {
			t.Errorf("%s used %.4f of all, its share is %.4f", c.group, got, c.part)
		}
	}
}

func BenchmarkKey(b *testing.B) {
	j := &Job{ID: "a", Owner: "ann", VO: "bio", Submitted: epoch, Deadline: epoch.Add(time.Hour), Priority: 3, Length: time.Minute}
	for _, name := range []string{"fifo", "priority", "edf", "realtime", "fairshare"} {
		b.Run(name, func(b *testing.B) {
			o := mustOrder(b, name)
			b.ReportAllocs()
			var sum float64
			for b.Loop() {
				sum += o.Key(j)[1]
			}
			_ = sum
		})
	}
}

func BenchmarkWeight(b *testing.B) {
	l, err := NewLedger()
	if err != nil {
		b.Fatal(err)
	}
	o := mustOrder(b, "fairshare")
	var groups []string
	for i := range 1000 {
		j := &Job{Owner: fmt.Sprint("u", i), VO: fmt.Sprint("v", i%20)}
		for _, g := range Accounts(j) {
			l.Add(g, float64(i), epoch)
		}
		groups = append(groups, o.Group(j))
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		o.Weight(groups[i%1000], epoch, l)
		i++
	}
}
