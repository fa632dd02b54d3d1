package broker

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/internal/store"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestTableGolden walks every pair of phase and event; the golden file is what
// people read of the table.
func TestTableGolden(t *testing.T) {
	var s strings.Builder
	fmt.Fprintf(&s, "%-11s %-10s %-10s %-11s %s\n", "phase", "BES", "event", "then", "do")
	for _, p := range append([]Phase{""}, Phases()...) {
		for _, e := range Events() {
			tr, ok := transitions[p][e]
			if !ok {
				continue
			}
			name := string(p)
			if p == "" {
				name = "(none)"
			}
			line := fmt.Sprintf("%-11s %-10s %-10s %-11s %s", name, p.State(), e, tr.to, names(tr.do))
			s.WriteString(strings.TrimRight(line, " ") + "\n")
		}
	}
	const golden = "testdata/states.golden"
	if *update {
		if err := os.MkdirAll("testdata", 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(s.String()), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if s.String() != string(want) {
		t.Errorf("the table is not as in %s; look at the change and run the test with -update\n%s", golden, s.String())
	}
}

func names(a Action) string {
	var out []string
	for i, n := range []string{"submit", "find", "cancel", "suspend", "resume", "forget"} {
		if a&(1<<i) != 0 {
			out = append(out, n)
		}
	}
	return strings.Join(out, ",")
}

func TestTableIsLegalInBES(t *testing.T) {
	for from, row := range transitions {
		if from == "" {
			continue
		}
		if from.Final() {
			t.Errorf("%s is final and has transitions", from)
		}
		for e, tr := range row {
			if !from.State().CanBecome(tr.to.State()) {
				t.Errorf("%s --%s--> %s: BES has no way from %s to %s", from, e, tr.to, from.State(), tr.to.State())
			}
		}
	}
	for p, is := range shown {
		if !is.state.Valid() || is.sub != "" && !is.state.HasSubState(is.sub) {
			t.Errorf("%s is shown as %v, which BES does not have", p, is)
		}
		if !p.Final() && transitions[p] == nil {
			t.Errorf("nothing can follow %s", p)
		}
	}
}

// TestEveryPhaseReachesAnEnd proves that no phase is a trap.
func TestEveryPhaseReachesAnEnd(t *testing.T) {
	for p := range shown {
		seen, todo, ends := map[Phase]bool{p: true}, []Phase{p}, false
		for len(todo) > 0 {
			q := todo[0]
			todo = todo[1:]
			ends = ends || q.Final()
			for _, tr := range transitions[q] {
				if !seen[tr.to] {
					seen[tr.to] = true
					todo = append(todo, tr.to)
				}
			}
		}
		if !ends {
			t.Errorf("%s never ends", p)
		}
	}
}

func TestStepRefusesWhatTheTableDoesNotName(t *testing.T) {
	for p := range shown {
		for _, e := range Events() {
			_, named := transitions[p][e]
			before := store.Status{Phase: string(p), Final: p.Final()}
			after, line, _, err := step(before, fact{event: e})
			if named != (err == nil) {
				t.Errorf("%s, %s: named %v, error %v", p, e, named, err)
			}
			if err != nil && (line != nil || after.Phase != before.Phase) {
				t.Errorf("%s, %s: refused and changed", p, e)
			}
		}
	}
}

// TestStepProperties drives a job with random events.
func TestStepProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		st := store.Status{}
		if rapid.Bool().Draw(t, "promised") {
			st.Promise = &store.Promise{Agreement: "a", Site: "here", FinishBy: time.Unix(100, 0)}
		}
		promise := st.Promise
		at := time.Unix(0, 0)
		events := append([]Event{Accepted}, rapid.SliceOf(rapid.SampledFrom(Events())).Draw(t, "events")...)
		for _, e := range events {
			at = at.Add(time.Second)
			f := fact{event: e, at: at, started: at, reason: "because"}
			if e == Chosen {
				f.place.Site, f.tag = "here", "tag"
			}
			if e == Placed {
				f.handle = []byte("h")
			}
			was := st
			next, line, do, err := step(st, f)
			if err != nil {
				continue
			}
			if was.Final {
				t.Fatalf("%s changed by %s", was.Phase, e)
			}
			if next.Final != Phase(next.Phase).Final() {
				t.Fatalf("%s: Final is %v", next.Phase, next.Final)
			}
			if line == nil && next.Phase != was.Phase {
				t.Fatalf("%s --%s--> %s is not told", was.Phase, e, next.Phase)
			}
			if line != nil && (line.Phase != next.Phase || line.Reason == "" || line.Event != string(e)) {
				t.Fatalf("line %+v of %s", line, next.Phase)
			}
			if Phase(next.Phase).atSite() && next.Placement == nil {
				t.Fatalf("%s without a placement after %s", next.Phase, e)
			}
			if Phase(next.Phase).waits() && (next.Placement != nil || next.Suspend) {
				t.Fatalf("%s with %+v after %s", next.Phase, next, e)
			}
			if do&DoSubmit != 0 && (next.Placement.Handle != nil || next.Attempt != was.Attempt+1) {
				t.Fatalf("submit twice: %+v", next)
			}
			if up := next.Class != was.Class; up && e == Pressed {
				if next.Class != promisedClass || !next.Promise.Pressed || was.Promise.Pressed {
					t.Fatalf("%s: from class %d to %d", e, was.Class, next.Class)
				}
			} else if up && (next.Class != lostClass || next.Attempt == 0) || next.Class < was.Class {
				t.Fatalf("%s: from class %d to %d", e, was.Class, next.Class)
			}
			if p, was := next.Promise, promise; (p == nil) != (was == nil) || p != nil && (p.Site != was.Site || !p.FinishBy.Equal(was.FinishBy)) || was != nil && (was.Pressed || was.Loose || was.Noted) {
				t.Fatalf("%s: the promise is %+v, and was %+v", e, p, was)
			}
			if next.Final && next.Ended.IsZero() {
				t.Fatalf("%s at no time", next.Phase)
			}
			st = next
		}
	})
}
