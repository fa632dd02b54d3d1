package simtest

import (
	"maps"
	"slices"
	"strings"

	"github.com/portolan-project/portolan/peers/handover"
)

// What must hold.

// runs: at no moment two places, and never a lower token after a higher one.
func (w *World) runs(g *gateway, r *run) {
	t := w.truth[r.key]
	w.say("%s runs %s %s", g.g.Domain, r.key.ID, r.token)
	if len(t.running) > 0 {
		w.breach("%s runs at %s under %s while it runs elsewhere", r.key, g.g.Domain, r.token)
	}
	if r.token.Compare(t.highest) < 0 {
		w.breach("%s runs at %s under %s after %s", r.key, g.g.Domain, r.token, t.highest)
	}
	if t.highest != r.token && len(t.complete) > 0 {
		w.counters.Reruns++
		for _, done := range slices.Sorted(maps.Keys(t.complete)) {
			if !slices.ContainsFunc(t.late, func(late handover.Token) bool { return within(done, late) }) {
				w.breach("%s runs again at %s under %s, though it ran to its end under %s, which nobody took for dead at a deadline", r.key, g.g.Domain, r.token, done)
			}
		}
	}
	t.highest = r.token
	t.running[g.g.Domain+string(r.token)] = true
	w.inTime(g, r)
}

func (w *World) rests(g *gateway, r *run) {
	w.say("%s rests %s %s", g.g.Domain, r.key.ID, r.token)
	delete(w.truth[r.key].running, g.g.Domain+string(r.token))
	w.inTime(g, r)
}

// inTime: nothing runs under a token past the deadline that was promised for it.
func (w *World) inTime(g *gateway, r *run) {
	t := w.truth[r.key]
	for _, token := range slices.Sorted(maps.Keys(t.promised)) {
		if by := t.promised[token]; within(r.token, token) && w.now.After(by) {
			w.breach("%s runs at %s under %s, %s past the recall deadline of %s", r.key, g.g.Domain, r.token, w.now.Sub(by), token)
		}
	}
}

// within reports whether t was made by who held of.
func within(t, of handover.Token) bool {
	return t == of || strings.HasPrefix(string(t), string(of)+".")
}

// check holds each committed record against the one before.
func (w *World) check(g *gateway, k handover.Key, before, after *handover.Job) {
	t := w.truth[k]
	var from handover.Phase
	if before != nil && (after.Taken == nil || before.Taken.Token == after.Taken.Token) {
		from = before.Phase
	}
	if from != after.Phase {
		w.counters.moved(Move{From: from, To: after.Phase})
	}
	origin := after.Taken == nil
	if origin && after.Phase == handover.Over && (before == nil || before.Phase != handover.Over) {
		t.ended++
		r := *after.Result
		t.result = &r
		w.say("%s ends %s: %+v", g.g.Domain, k.ID, r)
		if t.ended > 1 {
			w.breach("%s ended %d times", k, t.ended)
		}
		if used := w.used(k); after.Used > used {
			w.breach("%s used %s by what its origin was told, and %s in truth", k, after.Used, used)
		}
		if len(t.running) > 0 {
			w.breach("%s ended while it runs: %v", k, t.running)
		}
		if r.Outcome == handover.Cancelled {
			w.counters.Cancelled++
			if t.wants != handover.Cancel {
				w.breach("%s was cancelled, and nobody wanted that", k)
			}
		} else if !t.complete[r.Token] {
			w.breach("%s ended under %q, which did not run to its end", k, r.Token)
		}
	}
	if origin && before != nil && before.Phase == handover.Over && after.Phase != handover.Over {
		w.breach("%s went on after its end", k)
	}
	if after.Phase == handover.Given && (before == nil || before.Phase != handover.Given || before.Gave.Token != after.Gave.Token) {
		var base handover.Token
		if after.Taken != nil {
			base = after.Taken.Token
		}
		way := append(slices.Clone(t.path[base]), g.g.Domain)
		t.path[after.Gave.Token] = way
		w.counters.Hops++
		w.counters.Deepest = max(w.counters.Deepest, len(way))
		if slices.Contains(way, after.Gave.To) {
			w.breach("%s goes in a loop: %v, then %s", k, way, after.Gave.To)
		}
		if len(way) > maxHops {
			w.breach("%s makes more hops than its origin allows: %v, then %s", k, way, after.Gave.To)
		}
	}
	if before != nil && before.Phase == handover.Given && after.Gave != nil && after.Gave.Over && !before.Gave.Over && !after.Gave.Done && strings.Contains(after.Reason, "not heard of") {
		w.counters.Late++
		t.late = append(t.late, before.Gave.Token)
		if by := t.promised[before.Gave.Token]; !w.now.After(by) {
			w.breach("%s is taken from %s %s before the recall deadline", k, before.Gave.To, by.Sub(w.now))
		}
	}
}

// used is what all placements of a job took.
func (w *World) used(k handover.Key) handover.CPUTime {
	var sum handover.CPUTime
	for _, g := range w.gates {
		for _, r := range g.site {
			if r.key == k {
				sum += handover.CPU(1, r.used)
			}
		}
	}
	return sum
}
