package service

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// TestPrepareAtASlowManager: what a manager takes long to reserve is prepared all the same, by who asks again by the
// same Key; what it refuses for good is let go, whoever hears of it.
func TestPrepareAtASlowManager(t *testing.T) {
	w := fake.NewWorld(2)
	alone(t, []site{{name: "here", world: w}}, func(t *testing.T, g *gateway) {
		var mu sync.Mutex
		asked := 0
		faults := func(delay time.Duration, errs ...error) {
			mu.Lock()
			defer mu.Unlock()
			asked = 0
			w.Inject(func(op string, _ adapters.Tag) fake.Fault {
				if op != "reserve" {
					return fake.Fault{}
				}
				mu.Lock()
				defer mu.Unlock()
				f := fake.Fault{Delay: delay}
				if asked < len(errs) {
					f.Err = errs[asked]
				}
				asked++
				return f
			})
		}
		from := time.Now().Add(time.Hour)
		doc := xmldoc.Marshal(g.by("ada", "advance-reservation@here/fake").say("job", job("sleep 60", 0, 2)).say("window", window(from, from.Add(time.Hour))).Encode())
		offer, err := agreement.ParseOffer(doc)
		if err != nil {
			t.Fatal(err)
		}
		prepare := func(ctx context.Context, key string, until time.Time) (string, error) {
			return g.Prepare(ctx, &agreement.CreateRequest{Offer: *offer, Received: doc}, agreement.Preparation{Key: key, Until: until})
		}
		left := func(what string, reserved int) {
			t.Helper()
			synctest.Wait()
			if n := reservations(t, g); n != reserved {
				t.Errorf("%s: there are %d reservations", what, n)
			}
			for _, p := range g.engine.Pools() {
				if free := g.engine.Free(p.ID, from, from.Add(time.Hour)); (free == p.Capacity) != (reserved == 0) {
					t.Errorf("%s: of %s there are %+v free of %+v", what, p.ID, free, p.Capacity)
				}
			}
		}

		// Whoever asks has no patience for it, and asks again and again.
		faults(25 * time.Second)
		until := time.Now().Add(5 * time.Minute)
		var all sync.WaitGroup
		keys := map[string]int{}
		for i := range 4 {
			all.Go(func() {
				time.Sleep(time.Duration(i) * 10 * time.Second)
				ctx, cancel := context.WithTimeout(as1("ada"), 9*time.Second)
				defer cancel()
				began := time.Now()
				id, err := prepare(ctx, "slow", until)
				if took := time.Since(began); took > 9*time.Second {
					t.Errorf("%d: it took %s", i, took)
				}
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					keys[id]++
				case !fail.Is(err, fail.Unavailable) || !strings.Contains(fail.Sentence(err), `ask again by the same Key`):
					t.Errorf("%d: %v", i, err)
				}
			})
		}
		all.Wait()
		synctest.Wait() // who asked the manager ends a little after it said so
		if asked != 1 || len(keys) != 1 || len(g.asking.of) != 0 {
			t.Errorf("the manager was asked %d times for %v", asked, keys)
		}
		left("slow", 1)
		for id := range keys {
			if err := g.Confirm(as1("ada"), id); err != nil {
				t.Errorf("%v\n%s", err, g.story(id))
			}
			if err := g.Terminate(as1("ada"), id, nil); err != nil {
				t.Error(err)
			}
			g.ends(id)
		}
		left("ended", 0)

		// A manager that does not answer may the next time.
		away := fail.Errorf("test", fail.Unavailable, "", "it does not answer")
		faults(0, away)
		until = time.Now().Add(5 * time.Minute)
		if _, err := prepare(as1("ada"), "away", until); !fail.Is(err, fail.Unavailable) {
			t.Errorf("%v", err)
		}
		id, err := prepare(as1("ada"), "away", until)
		if err != nil {
			t.Fatal(err)
		}
		left("away", 1)
		if err := g.Terminate(as1("ada"), id, nil); err != nil {
			t.Error(err)
		}
		g.until("the reservation is gone", func() bool { return reservations(t, g) == 0 })

		// Asked again, it refuses for good: nothing is held.
		faults(0, away, fail.Errorf("test", fail.Exhausted, "", "the nodes burn"))
		until = time.Now().Add(5 * time.Minute)
		if _, err := prepare(as1("ada"), "refused", until); !fail.Is(err, fail.Unavailable) {
			t.Errorf("%v", err)
		}
		_, err = prepare(as1("ada"), "refused", until)
		if r := refusal(t, err, agreement.NoCapacity); !strings.Contains(r.Error(), "the nodes burn") {
			t.Errorf("%v", err)
		}
		left("refused", 0)
		_, err = prepare(as1("ada"), "refused", until)
		refusal(t, err, agreement.WrongState)

		// Nobody hears of it, and nothing stays.
		faults(25*time.Second, fail.Errorf("test", fail.Exhausted, "", "the nodes burn"))
		until = time.Now().Add(5 * time.Minute)
		ctx, cancel := context.WithTimeout(as1("ada"), 9*time.Second)
		if _, err := prepare(ctx, "unheard", until); !fail.Is(err, fail.Unavailable) {
			t.Errorf("%v", err)
		}
		cancel()
		time.Sleep(20 * time.Second)
		left("unheard", 0)

		// One that answers too late has held nothing.
		faults(50 * time.Second)
		_, err = prepare(as1("ada"), "late", time.Now().Add(30*time.Second))
		if r := refusal(t, err, agreement.WrongState); !strings.Contains(r.Error(), "not confirmed in time") {
			t.Errorf("%v", err)
		}
		g.until("the reservation is gone", func() bool { return reservations(t, g) == 0 })
		left("late", 0)
	}, whole)
}
