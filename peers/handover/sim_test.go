package handover_test

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/simtest"
)

// Federations in virtual time. A seed that fails is printed; more of them, or one again
// with all that happened, by the environment:
//
//	PORTOLAN_HANDOVER_SEED=n    repeats a seed, and prints what happened
//	PORTOLAN_HANDOVER_SEEDS=n   how many seeds
//	PORTOLAN_HANDOVER_FIRST=n   the first of them
func TestFederationsEndEachJobOnce(t *testing.T) {
	if s := os.Getenv("PORTOLAN_HANDOVER_SEED"); s != "" {
		w := simtest.New(number(t, "PORTOLAN_HANDOVER_SEED", s), simtest.Options{Trace: true})
		wrong := w.Run()
		t.Log("\n" + strings.Join(w.Trace(), "\n"))
		if len(wrong) > 0 {
			t.Fatal(strings.Join(wrong, "\n"))
		}
		return
	}
	first, seeds := uint64(1), uint64(500)
	if testing.Short() {
		seeds = 150
	}
	if s := os.Getenv("PORTOLAN_HANDOVER_SEEDS"); s != "" {
		seeds = number(t, "PORTOLAN_HANDOVER_SEEDS", s)
	}
	if s := os.Getenv("PORTOLAN_HANDOVER_FIRST"); s != "" {
		first = number(t, "PORTOLAN_HANDOVER_FIRST", s)
	}
	var all simtest.Counters
	bad := 0
	for seed := first; seed < first+seeds && bad < 3; seed++ {
		w := simtest.New(seed, simtest.Options{})
		if wrong := w.Run(); len(wrong) > 0 {
			bad++
			t.Errorf("PORTOLAN_HANDOVER_SEED=%d: %s", seed, strings.Join(wrong, "\n"))
		}
		all.Add(w.Counters())
	}
	t.Logf("%d federations: %d jobs, %d hand-overs, at most %d hops; %d crashes, %d cuts, %d messages, %d steps, %d refusals, %d recalls, %d placed elsewhere at the deadline, %d run again after an end that came too late, %d cancelled, %d charges, %d never claimed",
		seeds, all.Jobs, all.Hops, all.Deepest, all.Crashes, all.Cuts, all.Messages, all.Steps, all.Refused, all.Recalls, all.Late, all.Reruns, all.Cancelled, all.Charges, all.Unclaimed)
	for _, m := range handover.Moves() {
		if m.From == handover.Stopping && m.To == handover.Waiting {
			continue // what was to end waits for nothing: it is over or released in the same step
		}
		if seeds >= 500 && all.Moves[simtest.Move(m)] == 0 {
			t.Errorf("the worlds are too dull: no job ever went from %q to %q", m.From, m.To)
		}
	}
	if all.Unclaimed*20 > all.Charges && seeds >= 500 {
		t.Errorf("%d accounts of %d charges have something that is owed and was never claimed", all.Unclaimed, all.Charges)
	}
	if seeds >= 500 && (all.Hops == 0 || all.Late == 0 || all.Reruns == 0 || all.Refused == 0 || all.Recalls == 0 || all.Cancelled == 0 || all.Charges == 0 || all.Deepest < simtest.MaxHops) {
		t.Error("the worlds are too dull: something never happened")
	}
}

func number(t *testing.T, name, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// TestBreachesAreFound breaks one rule at a time: the property must find each.
func TestBreachesAreFound(t *testing.T) {
	for _, c := range []struct {
		name   string
		faults simtest.Faults
		found  string // what the breach says
	}{
		{"a taker goes on past its deadline", simtest.Faults{TakerIgnoresDeadline: true}, "past the recall deadline"},
		{"a giver does not wait for the deadline", simtest.Faults{GiverIgnoresDeadline: true}, "before the recall deadline"},
		{"tokens are not compared", simtest.Faults{TokenNotCompared: true}, "runs at"},
		{"the path is not checked", simtest.Faults{PathNotChecked: true}, "in a loop"},
		{"the record is written after sending", simtest.Faults{WrittenAfterSending: true}, ""},
		{"a refusal is not remembered", simtest.Faults{RefusalForgotten: true}, "runs at"},
		{"a restart forgets what was promised", simtest.Faults{RestartForgets: true}, "before the recall deadline"},
		{"clocks are further off than agreed", simtest.Faults{SkewForgotten: true}, "past the recall deadline"},
		{"an end under an old token is heeded", simtest.Faults{ResultTwice: true}, ""},
		{"a recall of a copy that was not seen is not remembered", simtest.Faults{RecallForgotten: true}, "runs at"},
		{"hops are not counted", simtest.Faults{HopsNotCounted: true}, "more hops"},
		{"a late end is heeded though the job has another place", simtest.Faults{LateEndHeeded: true}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			const most = 2000
			for seed := uint64(1); seed <= most; seed++ {
				for _, wrong := range simtest.New(seed, simtest.Options{Faults: c.faults}).Run() {
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
	for seed := uint64(1); seed <= 20; seed++ {
		a, b := simtest.New(seed, simtest.Options{Trace: true}), simtest.New(seed, simtest.Options{Trace: true})
		a.Run()
		b.Run()
		if x, y := strings.Join(a.Trace(), "\n"), strings.Join(b.Trace(), "\n"); x != y {
			t.Fatalf("seed %d is not the same again", seed)
		}
	}
}
