package simtest_test

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/portolan-project/portolan/peers/simtest"
)

// TestFederations runs seeded federations: two to seven gateways, any topology, sessions,
// handovers, ledgers and what is shown of sites together, under partitions, restarts,
// doubles and reordering. Every job ends once, none goes in a loop, ledgers agree, what is
// shown converges. A seed that fails is printed; by the environment:
//
//	PORTOLAN_SIM_SEED=n    repeats a seed, and prints what happened
//	PORTOLAN_SIM_SEEDS=n   how many seeds
//	PORTOLAN_SIM_FIRST=n   the first of them
func TestFederations(t *testing.T) {
	if s := os.Getenv("PORTOLAN_SIM_SEED"); s != "" {
		w := simtest.New(number(t, s), simtest.Options{Sessions: true, Trace: true})
		wrong := w.Run()
		t.Log("\n" + strings.Join(w.Trace(), "\n"))
		if len(wrong) > 0 {
			t.Fatal(strings.Join(wrong, "\n"))
		}
		return
	}
	first, seeds := uint64(1), uint64(200)
	if testing.Short() {
		seeds = 60
	}
	if s := os.Getenv("PORTOLAN_SIM_SEEDS"); s != "" {
		seeds = number(t, s)
	}
	if s := os.Getenv("PORTOLAN_SIM_FIRST"); s != "" {
		first = number(t, s)
	}
	all, bad := run(first, seeds, simtest.Faults{}, 3)
	for _, b := range bad {
		t.Error(b)
	}
	t.Logf("%d federations: %d jobs, %d handed over, at most %d hops; %d crashes, %d cuts, %d placed elsewhere at the deadline, %d run again after an end that came too late, %d cancelled, %d charges, %d never claimed",
		seeds, all.Jobs, all.Hops, all.Deepest, all.Crashes, all.Cuts, all.Late, all.Reruns, all.Cancelled, all.Charges, all.Unclaimed)
	t.Logf("%d sides of sessions, %d lost, %d resumed, %d closed; %d requests, %d messages through the XML, %d about jobs, of which %d found no room; %d changes of sites, %d pulls, %d messages of resources, %d repairs; %d statements told",
		all.Opened, all.Lost, all.Resumed, all.Closed, all.Requests, all.Weighed, all.Messages, all.Unsent, all.Changes, all.Pulls, all.Resources, all.Compares, all.Statements)
	if seeds >= 200 {
		for what, n := range map[string]int{
			"hand-overs": all.Hops, "crashes": all.Crashes, "cuts": all.Cuts, "deadlines": all.Late, "recalls": all.Recalls, "refusals": all.Refused, "cancels": all.Cancelled, "charges": all.Charges,
			"hops": all.Deepest / simtest.MaxHops, "lost sessions": all.Lost, "resumed sessions": all.Resumed, "closed sessions": all.Closed, "full sessions": all.Unsent,
			"pushes": all.Resources - all.Pulls, "repairs": all.Compares, "statements": all.Statements, "messages through the XML": all.Weighed,
		} {
			if n <= 0 {
				t.Errorf("the worlds are too dull: no %s", what)
			}
		}
	}
}

// run runs seeds on all processors, until most of them failed.
func run(first, seeds uint64, f simtest.Faults, most int) (all simtest.Counters, bad []string) {
	var (
		next atomic.Uint64
		mu   sync.Mutex
		wg   sync.WaitGroup
	)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				n := next.Add(1) - 1
				mu.Lock()
				enough := len(bad) >= most
				mu.Unlock()
				if n >= seeds || enough {
					return
				}
				w := simtest.New(first+n, simtest.Options{Sessions: true, Faults: f})
				wrong := w.Run()
				mu.Lock()
				all.Add(w.Counters())
				if len(wrong) > 0 {
					bad = append(bad, fmt.Sprintf("SEED=%d: %s", first+n, strings.Join(wrong, "\n")))
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return all, bad
}

func number(t *testing.T, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestBreachesAreFound breaks one rule at a time: each must be found.
func TestBreachesAreFound(t *testing.T) {
	for _, c := range []struct {
		name   string
		faults simtest.Faults
		found  string // what the breach says
	}{
		{"a giver does not wait for the deadline", simtest.Faults{GiverIgnoresDeadline: true}, "before the recall deadline"},
		{"a taker goes on past its deadline", simtest.Faults{TakerIgnoresDeadline: true}, "past the recall deadline"},
		{"the path is not checked", simtest.Faults{PathNotChecked: true}, "in a loop"},
		{"a late end is heeded though the job has another place", simtest.Faults{LateEndHeeded: true}, ""},
		{"changes are not pushed", simtest.Faults{ChangesNotPushed: true}, "do not come to rest"},
		{"what was shown is forgotten, and digests are not compared", simtest.Faults{ResourcesForgotten: true}, "do not come to rest"},
		{"what is owed is not told", simtest.Faults{LedgerNotTold: true}, "the books of"},
		{"a session that ended is not opened again", simtest.Faults{SessionsNotOpened: true}, "do not come to rest"},
	} {
		t.Run(c.name, func(t *testing.T) {
			const most = 1000
			for seed := uint64(1); seed <= most; seed++ {
				for _, wrong := range simtest.New(seed, simtest.Options{Sessions: true, Faults: c.faults}).Run() {
					if strings.Contains(wrong, c.found) {
						t.Logf("found with seed %d: %s", seed, wrong)
						return
					}
				}
			}
			t.Errorf("%d seeds did not show it", most)
		})
	}
}

// TestSeedsRepeat: the same seed gives the same world, else no failure could be looked into.
func TestSeedsRepeat(t *testing.T) {
	for seed := uint64(1); seed <= 5; seed++ {
		a, b := simtest.New(seed, simtest.Options{Sessions: true, Trace: true}), simtest.New(seed, simtest.Options{Sessions: true, Trace: true})
		a.Run()
		b.Run()
		if strings.Join(a.Trace(), "\n") != strings.Join(b.Trace(), "\n") {
			t.Fatalf("seed %d is not the same again", seed)
		}
	}
}
