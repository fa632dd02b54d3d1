package broker

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/internal/store"
)

func TestDecide(t *testing.T) {
	a := siteView{Open: true, Slots: 2, Most: 3}
	b := siteView{Open: true, Slots: 4, Most: 5, InFlight: 3, Load: 3}
	closed := siteView{Slots: 9, Most: 9}
	for _, c := range []struct {
		name  string
		sites []siteView
		queue []siteSet
		want  string
	}{
		{"nothing waits", []siteView{a}, nil, "[]"},
		{"least loaded first", []siteView{a, b}, []siteSet{3, 3, 3}, "[{0 0} {1 0} {2 1}]"},
		{"a full site takes none", []siteView{a}, []siteSet{1, 1, 1, 1}, "[{0 0} {1 0} {2 0}]"},
		{"a pinned job does not hold up others", []siteView{closed, a}, []siteSet{1, 3, 2}, "[{1 1} {2 1}]"},
		{"slots that others keep busy are not free", []siteView{{Open: true, Slots: 4, Load: 4, Most: 9}, a}, []siteSet{3, 3, 3}, "[{0 1} {1 1} {2 0}]"},
		{"where none is free, in proportion", []siteView{
			{Open: true, Slots: 2, InFlight: 2, Load: 2, Most: 99}, {Open: true, Slots: 4, InFlight: 4, Load: 4, Most: 99},
		}, []siteSet{3, 3, 3, 3, 3, 3}, "[{0 0} {1 1} {2 1} {3 0} {4 1} {5 1}]"},
		{"no site is left", []siteView{a}, []siteSet{0}, "[]"},
		{"closed", []siteView{closed}, []siteSet{1}, "[]"},
	} {
		if got := fmt.Sprint(decide(c.sites, c.queue)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestDecideProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		sites := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) siteView {
			return siteView{
				Open: rapid.Bool().Draw(t, "open"), Slots: rapid.IntRange(0, 5).Draw(t, "slots"),
				InFlight: rapid.IntRange(0, 8).Draw(t, "in flight"), Most: rapid.IntRange(0, 8).Draw(t, "most"), Load: rapid.IntRange(0, 9).Draw(t, "load"),
			}
		}), 1, 4).Draw(t, "sites")
		queue := rapid.SliceOf(rapid.Custom(func(t *rapid.T) siteSet {
			return siteSet(rapid.IntRange(0, 1<<len(sites)-1).Draw(t, "allowed"))
		})).Draw(t, "queue")
		room := make([]int, len(sites))
		for i, s := range sites {
			room[i] = s.room()
		}
		placed := map[int]bool{}
		last := -1
		for _, c := range decide(sites, queue) {
			if c.job <= last || !queue[c.job].has(c.site) {
				t.Fatalf("%v out of order or not allowed", c)
			}
			last = c.job
			placed[c.job] = true
			if room[c.site]--; room[c.site] < 0 {
				t.Fatalf("site %d was given too many", c.site)
			}
		}
		for j, allowed := range queue {
			for i := range sites {
				if !placed[j] && allowed.has(i) && room[i] > 0 {
					t.Fatalf("job %d waits though site %d has room", j, i)
				}
			}
		}
	})
}

// TestQueueOrder compares the queue with a sorted list.
func TestQueueOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q, now := newQueue(), time.Unix(1000, 0)
		in := map[*job]bool{}
		n := 0
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "do") {
			case 0, 1:
				n++
				j := &job{allowed: siteSet(rapid.IntRange(1, 3).Draw(t, "allowed"))}
				j.rec = store.Job{ID: fmt.Sprintf("%04d-%04d", rapid.IntRange(0, 99).Draw(t, "id"), n)}
				j.rec.Status.NotBefore = now.Add(time.Duration(rapid.IntRange(-5, 5).Draw(t, "later")) * time.Second)
				q.add(j, now)
				in[j] = true
			case 2:
				for j := range in {
					q.remove(j)
					q.remove(j) // twice is harmless
					delete(in, j)
					break
				}
			case 3:
				now = now.Add(2 * time.Second)
				wait := q.due(now)
				for j := range in {
					if d := j.rec.Status.NotBefore.Sub(now); d > 0 && (wait == 0 || wait > d) {
						t.Fatalf("due in %v, but %s in %v", wait, j.rec.ID, d)
					}
				}
			}
			if q.n != len(in) {
				t.Fatalf("%d in the queue, want %d", q.n, len(in))
			}
		}
		q.due(now)
		taken := q.take([]int{1000, 1000})
		for i, j := range taken {
			if i > 0 && taken[i-1].rec.ID > j.rec.ID {
				t.Fatal("not oldest first")
			}
			delete(in, j)
		}
		for j := range in {
			if !j.rec.Status.NotBefore.After(now) {
				t.Fatalf("%s was left though its time has come", j.rec.ID)
			}
		}
	})
}
