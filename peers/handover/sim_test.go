package handover_test

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/peers/handover"
)

// Federations in virtual time. A seed that fails is printed; more of them, or one again
// with all that happened, by the environment:
//
//	PORTOLAN_HANDOVER_SEED=n    repeats a seed, and prints what happened
//	PORTOLAN_HANDOVER_SEEDS=n   how many seeds
//	PORTOLAN_HANDOVER_FIRST=n   the first of them
func TestFederationsEndEachJobOnce(t *testing.T) {
	if s := os.Getenv("PORTOLAN_HANDOVER_SEED"); s != "" {
		w := newWorld(number(t, "PORTOLAN_HANDOVER_SEED", s), faults{}, true)
		wrong := w.run()
		t.Log("\n" + strings.Join(w.trace, "\n"))
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
	var all counters
	bad := 0
	for seed := first; seed < first+seeds && bad < 3; seed++ {
		w := newWorld(seed, faults{}, false)
		if wrong := w.run(); len(wrong) > 0 {
			bad++
			t.Errorf("PORTOLAN_HANDOVER_SEED=%d: %s", seed, strings.Join(wrong, "\n"))
		}
		all.add(w.counters)
	}
	t.Logf("%d federations: %d jobs, %d hand-overs, at most %d hops; %d crashes, %d cuts, %d messages, %d steps, %d refusals, %d recalls, %d placed elsewhere at the deadline, %d run again after an end that came too late, %d cancelled, %d charges, %d never claimed",
		seeds, all.jobs, all.hops, all.deepest, all.crashes, all.cuts, all.messages, all.steps, all.refused, all.recalls, all.late, all.reruns, all.cancelled, all.charges, all.unclaimed)
	for _, m := range handover.Moves() {
		if m.From == handover.Stopping && m.To == handover.Waiting {
			continue // what was to end waits for nothing: it is over or released in the same step
		}
		if seeds >= 500 && all.moves[m] == 0 {
			t.Errorf("the worlds are too dull: no job ever went from %q to %q", m.From, m.To)
		}
	}
	if all.unclaimed*20 > all.charges && seeds >= 500 {
		t.Errorf("%d accounts of %d charges have something that is owed and was never claimed", all.unclaimed, all.charges)
	}
	if seeds >= 500 && (all.hops == 0 || all.late == 0 || all.reruns == 0 || all.refused == 0 || all.recalls == 0 || all.cancelled == 0 || all.charges == 0 || all.deepest < maxHops) {
		t.Error("the worlds are too dull: something never happened")
	}
}

func (c *counters) add(o counters) {
	c.jobs += o.jobs
	c.hops += o.hops
	c.crashes += o.crashes
	c.cuts += o.cuts
	c.recalls += o.recalls
	c.late += o.late
	c.refused += o.refused
	c.steps += o.steps
	c.reruns += o.reruns
	c.cancelled += o.cancelled
	c.charges += o.charges
	c.unclaimed += o.unclaimed
	c.messages += o.messages
	for m, n := range o.moves {
		if c.moves == nil {
			c.moves = map[handover.Move]int{}
		}
		c.moves[m] += n
	}
	c.deepest = max(c.deepest, o.deepest)
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
		faults faults
		found  string // what the breach says
	}{
		{"a taker goes on past its deadline", faults{takerIgnoresDeadline: true}, "past the recall deadline"},
		{"a giver does not wait for the deadline", faults{giverIgnoresDeadline: true}, "before the recall deadline"},
		{"tokens are not compared", faults{tokenNotCompared: true}, "runs at"},
		{"the path is not checked", faults{pathNotChecked: true}, "in a loop"},
		{"the record is written after sending", faults{writtenAfterSending: true}, ""},
		{"a refusal is not remembered", faults{refusalForgotten: true}, "runs at"},
		{"a restart forgets what was promised", faults{restartForgets: true}, "before the recall deadline"},
		{"clocks are further off than agreed", faults{skewForgotten: true}, "past the recall deadline"},
		{"an end under an old token is heeded", faults{resultTwice: true}, ""},
		{"a recall of a copy that was not seen is not remembered", faults{recallForgotten: true}, "runs at"},
		{"hops are not counted", faults{hopsNotCounted: true}, "more hops"},
		{"a late end is heeded though the job has another place", faults{lateEndHeeded: true}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			const most = 2000
			for seed := uint64(1); seed <= most; seed++ {
				for _, wrong := range newWorld(seed, c.faults, false).run() {
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
		a, b := newWorld(seed, faults{}, true), newWorld(seed, faults{}, true)
		a.run()
		b.run()
		if x, y := strings.Join(a.trace, "\n"), strings.Join(b.trace, "\n"); x != y {
			t.Fatalf("seed %d is not the same again", seed)
		}
	}
}
