package peers_test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/peers/peertest"
	"github.com/portolan-project/portolan/peers/wire"
)

// TestFaults has seeded networks lose, double, delay, cut and break off messages, and
// gateways die: within a session items come once and in order, whatever happens, none of
// a session that stood through it is lost, and when it is over there is one session that
// both have. SEED=n repeats one.
func TestFaults(t *testing.T) {
	seeds := 40
	first := uint64(1)
	if s := os.Getenv("SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		must(t, err)
		first, seeds = n, 1
	} else if testing.Short() {
		seeds = 10
	}
	for seed := first; seed < first+uint64(seeds); seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { runFaults(t, seed) })
		})
	}
}

func runFaults(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	var mu sync.Mutex // the network asks from many goroutines
	faulty := false
	w := newWorld(t, seed%3 == 0)
	w.net.Faults(func(_, _ string, _ *http.Request) peertest.Fault {
		mu.Lock()
		defer mu.Unlock()
		f := peertest.Fault{Delay: time.Duration(rng.IntN(100)) * time.Millisecond, Back: time.Duration(rng.IntN(100)) * time.Millisecond}
		if !faulty {
			return f
		}
		switch rng.IntN(12) {
		case 0:
			f.LoseRequest = true
		case 1:
			f.LoseAnswer = true
		case 2:
			f.Twice = true
		case 3:
			f.Truncate = true
		case 4:
			f.Refuse = true
		case 5:
			f.Delay = time.Duration(rng.IntN(30)) * time.Second
		case 6:
			f.Back = time.Duration(rng.IntN(30)) * time.Second
		}
		return f
	})
	lot := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return rng.IntN(n)
	}
	pass(20 * time.Second)
	w.alive(t)
	mu.Lock()
	faulty = true
	mu.Unlock()
	kills := seed%2 == 0
	ofB, ofA := pair(seed%3 == 0)
	for range 60 {
		for _, g := range []*peertest.Gateway{w.a, w.b} {
			to := domB
			if g == w.b {
				to = domA
			}
			for range lot(20) {
				if g.Table.Put(to, query(g.Domain, w.put[g.Domain])) == nil {
					w.put[g.Domain]++
				}
			}
		}
		switch lot(15) {
		case 0:
			w.net.Partition(domA, domB, true)
			pass(time.Duration(lot(150)) * time.Second)
			w.net.Partition(domA, domB, false)
		case 1:
			if !kills {
				break
			}
			g, p := w.a, ofB
			if lot(2) == 0 {
				g, p = w.b, ofA
			}
			w.net.Serve(g.Domain, nil)
			g.Kill()
			pass(time.Duration(lot(100)) * time.Second)
			g.Start(t)
			must(t, g.Table.Add(p))
			w.net.Serve(g.Domain, g.Server)
		}
		pass(time.Duration(lot(8000)) * time.Millisecond)
	}
	mu.Lock()
	faulty = false
	mu.Unlock()
	pass(5 * time.Minute)
	w.alive(t)
	t.Logf("%d and %d items; %s", w.put[domA], w.put[domB], w)
	for _, at := range []*peertest.Gateway{w.a, w.b} {
		from := domA
		if at == w.a {
			from = domB
		}
		last, got := -1, 0
		for _, items := range at.Seen.Sessions(from) {
			for i, m := range items {
				n, err := strconv.Atoi(m.(*wire.Query).ID)
				must(t, err)
				if n <= last && last >= 0 || i > 0 && n != last+1 {
					t.Fatalf("at %s item %d came after %d in a session\n%s", at.Domain, n, last, w)
				}
				last, got = n, got+1
			}
		}
		if n := status(t, at, from).Sessions; n != 1 && !kills {
			t.Errorf("%s had %d sessions, though nobody lost what it knew\n%s", at.Domain, n, w)
		}
		if status(t, at, from).Sessions == 1 && len(at.Seen.Sessions(from)) == 1 && got != w.put[from] {
			t.Errorf("%d of %d items came to %s in the one session there was\n%s", got, w.put[from], at.Domain, w)
		}
		if s := status(t, at, from); s.Unacknowledged != 0 || s.Undone != 0 {
			t.Errorf("%s still waits: %+v", at.Domain, s)
		}
	}
}
