package handover_test

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/handover"
)

func TestAForwardedJobRunsAndItsUseIsOwedOnce(t *testing.T) {
	l := newLab(t)
	l.gives("a", "b")
	l.is("a", handover.Given)
	l.is("b", handover.Waiting)
	l.gives("b", "c")
	l.does("c", handover.PlaceHere{})
	l.shows("c", handover.Evidence{Shows: handover.HasStarted})
	if got := strings.Join(l.jobs["a"].Where("a"), " "); got != "a b c" || l.jobs["a"].Status() != handover.IsRunning {
		t.Errorf("the origin sees it %s at %q", l.jobs["a"].Status(), got)
	}
	if got := l.jobs["c"].Token(); got != "1.1.1" {
		t.Errorf("token %s", got)
	}
	// Far beyond the first deadline, as each is heard of.
	l.pass(3 * time.Hour)
	l.is("c", handover.Here)
	l.shows("c", handover.Evidence{Shows: handover.HasEnded, Result: success, Used: handover.CPUHour})
	l.is("a", handover.Over)
	if r := l.jobs["a"].Result; r.Outcome != handover.Finished || r.Token != "1.1.1" {
		t.Errorf("%+v", r)
	}
	want := []handover.Charge{
		{Provider: "c", Consumer: "b", Key: key, Token: "1.1", Outcome: handover.Finished, Used: handover.CPUHour},
		{Provider: "b", Consumer: "a", Key: key, Token: "1", Outcome: handover.Finished, Used: handover.CPUHour},
	}
	if !reflect.DeepEqual(l.owes, want) || len(l.earns) != 2 {
		t.Errorf("owed %+v\nearned %+v", l.owes, l.earns)
	}
	if l.has("a", "Done") != 1 {
		t.Error("the user was not told once")
	}
	// What nobody needs any more is forgotten.
	l.pass(2 * time.Hour)
	if l.jobs["b"] != nil || l.jobs["c"] != nil {
		t.Error("records of settled copies stay")
	}
}

// TestAPeerThatIsLost: the job is placed elsewhere at the recall deadline, to the second,
// and not before; when the peer returns it starts nothing, and its copy is fenced.
func TestAPeerThatIsLost(t *testing.T) {
	for _, running := range []bool{false, true} {
		l := newLab(t)
		l.gives("a", "b")
		if running {
			l.does("b", handover.PlaceHere{})
		}
		l.pass(time.Minute)
		l.cut["b"] = true
		by := l.jobs["b"].Taken.RecallBy
		at, ok := l.jobs["a"].ElsewhereAt()
		if want := by.Add(terms.Skew); !ok || !at.Equal(want) {
			t.Fatalf("elsewhere at %s, not %s", at, want)
		}
		l.pass(at.Sub(l.now))
		l.does("a", handover.Tick{})
		l.is("a", handover.Given)
		if err := l.try("a", handover.PlaceHere{}); !fail.Is(err, fail.Conflict) {
			t.Fatalf("a second place before the deadline: %v", err)
		}
		l.now = at.Add(1)
		l.does("a", handover.Tick{})
		l.is("a", handover.Waiting)
		l.gives("a", "c")
		l.does("c", handover.PlaceHere{})

		l.cut["b"] = false
		l.restart("b")
		if n := l.has("b", "Start"); n != 0 {
			t.Errorf("the peer that came back starts it")
		}
		if err := l.try("b", handover.PlaceHere{}); err == nil {
			t.Error("the peer that came back places it")
		}
		if running {
			if l.has("b", "Stop") == 0 {
				t.Error("the peer that came back does not stop it")
			}
			l.shows("b", handover.Evidence{Shows: handover.HasEnded, Result: success, Used: handover.CPUHour})
		}
		if j := l.jobs["b"]; j != nil && j.Phase != handover.Released {
			t.Errorf("the copy of the peer that came back is %s", j.Phase)
		}
		l.is("a", handover.Given)
		if l.jobs["a"].Result != nil || len(l.owes) != 0 || len(l.earns) != 0 {
			t.Error("the end of a fenced copy was heeded")
		}
	}
}

// TestATakerStopsBeforeItsDeadline: by its own clock, with time to stop and for both clocks'
// errors; the site is told to end it by itself, should the gateway be dead.
func TestATakerStopsBeforeItsDeadline(t *testing.T) {
	l := newLab(t)
	l.gives("a", "b")
	l.does("b", handover.PlaceHere{})
	s := l.did["b"][len(l.did["b"])-1].(handover.Start)
	by := l.jobs["b"].Taken.RecallBy
	if want := by.Add(-terms.Skew); !s.NotAfter.Equal(want) || s.Token != "1.1" {
		t.Errorf("start %+v; want it ended by %s", s, want)
	}
	l.cut["a"] = true
	lapse := by.Add(-terms.Skew - terms.StopWithin)
	l.now = lapse.Add(-1)
	l.does("b", handover.Tick{})
	l.is("b", handover.Here)
	l.now = lapse
	l.does("b", handover.Tick{})
	l.is("b", handover.Stopping)
	// A renewal that comes now is too late.
	l.hears("b", "a", handover.Granted{Key: key, Token: "1", RecallBy: l.now.Add(terms.Lease)})
	if got := l.jobs["b"].Taken.RecallBy; !got.Equal(by) || l.has("b", "Extend") != 0 {
		t.Errorf("a copy that is given up was renewed, to %s", got)
	}
	l.shows("b", handover.Evidence{Shows: handover.NotRun, Used: handover.CPUSecond})
	l.is("b", handover.Released)
	// Heard of before the giver's own deadline, it comes back at once, and its work is owed.
	l.cut["a"] = false
	l.pass(20 * time.Second)
	l.is("a", handover.Waiting)
	if len(l.owes) != 1 || l.owes[0].Used != handover.CPUSecond || l.owes[0].Outcome != "" || len(l.earns) != 1 {
		t.Errorf("owed %+v, earned %+v", l.owes, l.earns)
	}
}

func TestRoutesAreAnsweredTheSameAgain(t *testing.T) {
	t.Run("accepted", func(t *testing.T) {
		l := newLab(t)
		l.gives("a", "b")
		r, first := last[handover.Route](l, "a"), last[handover.Answer](l, "b")
		l.full["b"] = fail.Errorf("test", fail.NotAccepting, "", "it is full")
		l.hears("b", "a", r)
		if got := last[handover.Answer](l, "b"); got != first || !got.Accepted {
			t.Errorf("%+v, then %+v", first, got)
		}
		l.does("b", handover.Return{Reason: "no room"})
		l.is("a", handover.Waiting)
		l.hears("b", "a", r)
		if got := last[handover.Answer](l, "b"); got != first {
			t.Errorf("%+v, then %+v", first, got)
		}
		l.is("b", handover.Released)
	})
	t.Run("refused", func(t *testing.T) {
		l := newLab(t)
		l.full["b"] = fail.Errorf("test", fail.NotAccepting, "", "it is full")
		l.gives("a", "b")
		l.is("a", handover.Waiting)
		r, first := last[handover.Route](l, "a"), last[handover.Answer](l, "b")
		if first.Accepted || first.Kind != fail.NotAccepting || first.Reason != "it is full" {
			t.Errorf("%+v", first)
		}
		delete(l.full, "b")
		l.restart("b")
		l.hears("b", "a", r)
		if got := last[handover.Answer](l, "b"); got != first {
			t.Errorf("%+v, then %+v", first, got)
		}
		l.is("b", handover.Released)
		l.gives("a", "b") // the next token is another matter
		l.is("b", handover.Waiting)
		l.hears("b", "a", r)
		if got := last[handover.Answer](l, "b"); got.Accepted || got.Kind != fail.Conflict {
			t.Errorf("an old token: %+v", got)
		}
	})
	t.Run("another route under the same token", func(t *testing.T) {
		l := newLab(t)
		l.gives("a", "b")
		r := last[handover.Route](l, "a")
		r.Digest = "sha256:2"
		l.hears("b", "a", r)
		if got := last[handover.Answer](l, "b"); got.Accepted || got.Kind != fail.Conflict {
			t.Errorf("%+v", got)
		}
		l.is("b", handover.Waiting)
	})
}

// TestTheOriginIsInControl: through every hop.
func TestTheOriginIsInControl(t *testing.T) {
	three := func(t *testing.T) *lab {
		l := newLab(t)
		l.gives("a", "b")
		l.gives("b", "c")
		l.does("c", handover.PlaceHere{})
		l.shows("c", handover.Evidence{Shows: handover.HasStarted})
		return l
	}
	t.Run("suspend and resume", func(t *testing.T) {
		l := three(t)
		l.does("a", handover.Wish{Want: handover.Suspend})
		if h, ok := l.did["c"][len(l.did["c"])-1].(handover.Hold); !ok || !h.Held {
			t.Fatalf("%+v", l.did["c"])
		}
		l.shows("c", handover.Evidence{Shows: handover.HasPaused})
		if l.jobs["a"].Status() != handover.IsSuspended {
			t.Error(l.jobs["a"].Status())
		}
		l.restart("c")
		if h, ok := l.did["c"][1].(handover.Hold); !ok || !h.Held {
			t.Errorf("after a restart: %+v", l.did["c"])
		}
		l.does("a", handover.Wish{Want: handover.Run})
		l.shows("c", handover.Evidence{Shows: handover.HasResumed})
		if l.jobs["a"].Status() != handover.IsRunning {
			t.Error(l.jobs["a"].Status())
		}
	})
	t.Run("cancel", func(t *testing.T) {
		l := three(t)
		l.does("a", handover.Wish{Want: handover.Cancel})
		l.is("c", handover.Stopping)
		if err := l.try("a", handover.Wish{Want: handover.Run}); !fail.Is(err, fail.Conflict) {
			t.Errorf("a cancelled job is wanted again: %v", err)
		}
		l.shows("c", handover.Evidence{Shows: handover.NotRun, Used: handover.CPUSecond})
		l.is("a", handover.Over)
		if l.jobs["a"].Result.Outcome != handover.Cancelled || len(l.owes) != 2 {
			t.Errorf("%+v, %+v", l.jobs["a"].Result, l.owes)
		}
	})
	t.Run("a program that ends before it is cancelled has ended", func(t *testing.T) {
		l := three(t)
		l.does("a", handover.Wish{Want: handover.Cancel})
		l.shows("c", handover.Evidence{Shows: handover.HasEnded, Result: success})
		if l.jobs["a"].Result.Outcome != handover.Finished {
			t.Errorf("%+v", l.jobs["a"].Result)
		}
	})
	t.Run("cancel while the peer is lost", func(t *testing.T) {
		l := three(t)
		l.cut["b"] = true
		l.does("a", handover.Wish{Want: handover.Cancel})
		at, _ := l.jobs["a"].ElsewhereAt()
		l.pass(at.Sub(l.now))
		l.is("a", handover.Given)
		l.pass(time.Second)
		l.is("a", handover.Over)
	})
	t.Run("recall of an idle job leaves one that runs", func(t *testing.T) {
		l := three(t)
		l.does("a", handover.TakeBack{})
		l.is("c", handover.Here)
		l.does("a", handover.TakeBack{Running: true})
		l.is("c", handover.Stopping)
		l.shows("c", handover.Evidence{Shows: handover.NotRun})
		l.is("c", handover.Released)
		l.is("b", handover.Released)
		l.is("a", handover.Waiting)
		l.gives("a", "c")
		if got := l.jobs["c"].Taken.Token; got != "2" {
			t.Errorf("token %s", got)
		}
	})
	t.Run("recall of an idle job", func(t *testing.T) {
		l := newLab(t)
		l.gives("a", "b")
		l.gives("b", "c")
		l.does("c", handover.PlaceHere{})
		l.does("a", handover.TakeBack{})
		l.is("c", handover.Stopping)
		l.shows("c", handover.Evidence{Shows: handover.NotRun})
		l.is("a", handover.Waiting)
	})
	t.Run("query", func(t *testing.T) {
		l := three(t)
		l.cut["a"] = true
		l.shows("c", handover.Evidence{Shows: handover.HasPaused})
		l.cut["a"] = false
		if l.jobs["a"].Status() != handover.IsRunning {
			t.Fatal(l.jobs["a"].Status())
		}
		l.does("a", handover.Ask{})
		if l.jobs["a"].Status() != handover.IsSuspended {
			t.Error(l.jobs["a"].Status())
		}
	})
	t.Run("only the origin", func(t *testing.T) {
		l := three(t)
		if err := l.try("b", handover.Wish{Want: handover.Cancel}); !fail.Is(err, fail.Conflict) {
			t.Errorf("%v", err)
		}
	})
}

// TestForwardersPromiseNoMore: than they were promised.
func TestForwardersPromiseNoMore(t *testing.T) {
	l := newLab(t)
	l.gives("a", "b")
	l.cut["a"] = true // no renewals reach b
	l.pass(2 * time.Minute)
	l.gives("b", "c")
	by := l.jobs["b"].Taken.RecallBy
	if got := last[handover.Route](l, "b").RecallBy; !got.Equal(by) {
		t.Errorf("c has until %s, and b has until %s", got, by)
	}
	l.does("c", handover.PlaceHere{})
	l.pass(by.Add(-terms.Skew - terms.StopWithin).Sub(l.now))
	for _, m := range l.sent {
		if g, ok := m.Message.(handover.Granted); ok && m.from == "b" && g.RecallBy.After(by) {
			t.Errorf("b granted %s, and has until %s itself", g.RecallBy, by)
		}
	}
	l.is("c", handover.Stopping)
	l.shows("c", handover.Evidence{Shows: handover.NotRun})
	l.is("c", handover.Released)
	l.is("b", handover.Released)
	if err := func() error {
		x := newLab(t)
		x.gives("a", "b")
		x.cut["a"] = true
		x.now = x.jobs["b"].Taken.RecallBy.Add(-terms.Skew - terms.StopWithin - time.Nanosecond)
		_ = x.try("b", handover.Tick{})
		tight := terms
		tight.StopWithin = time.Minute
		return x.try("b", handover.Forward{To: "c", Terms: tight, Hops: 3})
	}(); !fail.Is(err, fail.Conflict) {
		t.Errorf("a job is forwarded that can't be held: %v", err)
	}
}

func TestARestartWaitsForWhatMayHaveBeenPromised(t *testing.T) {
	l := newLab(t)
	l.gives("a", "b")
	old, err := l.jobs["a"].Encode()
	if err != nil {
		t.Fatal(err)
	}
	l.pass(9 * time.Minute)
	by := l.jobs["b"].Taken.RecallBy
	l.cut["b"] = true
	if l.jobs["a"], err = handover.Decode(old); err != nil { // renewals were not written down
		t.Fatal(err)
	}
	l.now = start.Add(terms.Lease + time.Minute)
	l.does("a", handover.Tick{})
	l.is("a", handover.Given)
	at, _ := l.jobs["a"].ElsewhereAt()
	if want := l.now.Add(terms.Lease + 3*terms.Skew); !at.Equal(want) || !at.After(by) {
		t.Errorf("elsewhere at %s, want %s, and after %s", at, want, by)
	}
}

// TestALateEnd: is heeded as long as the job has no other place.
func TestALateEnd(t *testing.T) {
	for _, placed := range []bool{false, true} {
		l := newLab(t)
		l.gives("a", "b")
		l.does("b", handover.PlaceHere{})
		l.cut["b"] = true
		l.shows("b", handover.Evidence{Shows: handover.HasEnded, Result: success, Used: handover.CPUHour})
		at, _ := l.jobs["a"].ElsewhereAt()
		l.now = at.Add(1)
		l.does("a", handover.Tick{})
		l.is("a", handover.Waiting)
		if placed {
			l.does("a", handover.PlaceHere{})
		}
		l.cut["b"] = false
		l.does("b", handover.Tick{})
		if placed {
			l.is("a", handover.Here)
			if len(l.owes) != 0 || len(l.earns) != 0 {
				t.Error("what was not heeded is owed")
			}
		} else {
			l.is("a", handover.Over)
			if len(l.owes) != 1 || len(l.earns) != 1 {
				t.Errorf("%+v, %+v", l.owes, l.earns)
			}
		}
		l.pass(time.Minute)
		if j := l.jobs["b"]; j != nil && j.Phase != handover.Released {
			t.Errorf("the copy at b is %s", j.Phase)
		}
	}
}

func TestNoLoops(t *testing.T) {
	l := newLab(t)
	l.gives("a", "b")
	l.gives("b", "c")
	for _, to := range []string{"a", "b", "c"} {
		if err := l.try("c", handover.Forward{To: to, Terms: terms, Hops: 3}); !fail.Is(err, fail.Conflict) {
			t.Errorf("c gives it to %s: %v", to, err)
		}
	}
	// The other side refuses by itself.
	r := last[handover.Route](l, "b")
	r.Path, r.Token = []string{"a", "b", "c"}, "1.1.1"
	for _, to := range []string{"a", "b"} {
		before := l.jobs[to]
		l.hears(to, "c", r)
		if a := last[handover.Answer](l, to); a.Accepted || a.Kind != fail.Invalid || !strings.Contains(a.Reason, "come through") {
			t.Errorf("%s answers %+v", to, a)
		}
		if l.jobs[to].Phase != before.Phase || l.jobs[to].Taken != nil && l.jobs[to].Taken.Lapsed {
			t.Errorf("%s changed its record", to)
		}
	}
	l.mail = nil
	// And a path that another than the sender ends.
	r.Path = []string{"a", "b", "x"}
	l.hears("d", "c", r)
	if a := last[handover.Answer](l, "d"); a.Accepted || a.Kind != fail.Denied {
		t.Errorf("a false path: %+v", a)
	}
}

func TestHopsAreCounted(t *testing.T) {
	l := newLab(t)
	l.does("a", handover.Forward{To: "b", Terms: terms, Hops: 1})
	l.gives("b", "c")
	if r := last[handover.Route](l, "b"); r.Hops != 0 {
		t.Errorf("%d hops are left", r.Hops)
	}
	if err := l.try("c", handover.Forward{To: "d", Terms: terms, Hops: 9}); !fail.Is(err, fail.Conflict) {
		t.Errorf("a hop too many: %v", err)
	}
}

// TestARecallThatOvertakesItsRoute: the route is refused when it comes.
func TestARecallThatOvertakesItsRoute(t *testing.T) {
	l := newLab(t)
	l.cut["b"] = true
	l.gives("a", "b")
	r := last[handover.Route](l, "a")
	l.cut["b"] = false
	l.does("a", handover.TakeBack{})
	if l.jobs["a"].Phase != handover.Waiting {
		// An idle recall repeats the route as well, so that a copy that is there is found.
		l.pass(time.Minute)
	}
	l.is("a", handover.Waiting)
	l.hears("b", "a", r)
	l.is("b", handover.Released)
	if n := l.has("b", "Place"); n > 1 {
		t.Errorf("it was to be placed %d times", n)
	}
	if err := l.try("b", handover.PlaceHere{}); !fail.Is(err, fail.Conflict) {
		t.Errorf("it is placed: %v", err)
	}
	l.does("a", handover.PlaceHere{})
}

// TestTokensFence: a lower one does nothing any more, whoever sends it.
func TestTokensFence(t *testing.T) {
	l := newLab(t)
	l.gives("a", "b")
	old := last[handover.Route](l, "a")
	l.does("b", handover.Return{Reason: "no room"})
	l.gives("a", "b")
	l.does("b", handover.PlaceHere{})
	j := l.jobs["b"]
	for _, m := range []handover.Message{
		old,
		handover.Control{Key: key, Token: old.Token, Seq: 9, Want: handover.Cancel, RecallBy: old.RecallBy},
		handover.Settle{Key: key, Token: old.Token},
		handover.Granted{Key: key, Token: old.Token, RecallBy: start.Add(20 * time.Minute)},
	} {
		l.hears("b", "a", m)
		if got := l.jobs["b"]; got.Phase != handover.Here || got.Want != handover.Run || got.Taken.RecallBy != j.Taken.RecallBy {
			t.Errorf("%T: %+v", m, got)
		}
	}
	for _, m := range []handover.Message{
		handover.Report{Key: key, Token: old.Token, Revision: 99, Status: handover.IsEnded, Result: success},
		handover.Answer{Key: key, Token: old.Token, Reason: "no", Kind: fail.Denied},
	} {
		l.hears("a", "b", m)
		l.is("a", handover.Given)
	}
	// And a stranger does nothing at all.
	for _, m := range []handover.Message{
		handover.Report{Key: key, Token: "2", Revision: 99, Status: handover.IsEnded, Result: success},
		handover.Answer{Key: key, Token: "2", Reason: "no", Kind: fail.Denied},
		handover.Report{Key: key, Token: "2", Revision: 99, Status: handover.IsReturned},
	} {
		l.hears("a", "c", m)
		l.is("a", handover.Given)
	}
	l.mail = nil
	for _, m := range []handover.Message{
		handover.Settle{Key: key, Token: "2"},
		handover.Granted{Key: key, Token: "2", RecallBy: start.Add(20 * time.Minute)},
	} {
		l.hears("b", "c", m)
		l.is("b", handover.Here)
	}
	if err := l.try("b", handover.Received{From: "c", Terms: terms, Message: handover.Control{Key: key, Token: "2", Seq: 9, Want: handover.Cancel, RecallBy: old.RecallBy}}); !fail.Is(err, fail.Denied) {
		t.Errorf("a stranger cancels: %v", err)
	}
}

// TestALeaseIsNotLongerThanAgreed: whatever a giver promises.
func TestALeaseIsNotLongerThanAgreed(t *testing.T) {
	l := newLab(t)
	l.gives("a", "b")
	if err := l.try("b", handover.Received{From: "a", Message: handover.Granted{Key: key, Token: "1", RecallBy: start.Add(time.Hour)}}); !fail.Is(err, fail.Invalid) {
		t.Errorf("a lease too long: %v", err)
	}
	r := last[handover.Route](l, "a")
	r.Token, r.RecallBy = "2", start.Add(time.Hour)
	x := newLab(t)
	x.hears("b", "a", r)
	if a := last[handover.Answer](x, "b"); a.Accepted {
		t.Errorf("%+v", a)
	}
}

// TestAnotherGiverDoesNotStopACopy: however high a token it gives out; and the route is taken
// once the copy is dead.
func TestAnotherGiverDoesNotStopACopy(t *testing.T) {
	l := newLab(t)
	l.gives("a", "b")
	l.does("b", handover.PlaceHere{})
	r := handover.Route{Key: key, Token: "7.1", RecallBy: l.now.Add(terms.Lease), Path: []string{"a", "c"}, Digest: "sha256:1"}
	for _, m := range []handover.Message{r, handover.Control{Key: key, Token: "7.1", Seq: 1, Want: handover.Cancel, RecallBy: r.RecallBy}} {
		n := len(l.sent)
		l.hears("b", "c", m)
		l.is("b", handover.Here)
		if len(l.sent) != n {
			t.Errorf("%T was answered: %+v", m, l.sent[n:])
		}
	}
	l.cut["a"] = true
	l.now = l.jobs["b"].Taken.RecallBy.Add(-time.Second)
	l.does("b", handover.Tick{})
	l.shows("b", handover.Evidence{Shows: handover.NotRun})
	r.RecallBy = l.now.Add(terms.Lease)
	l.hears("b", "c", r)
	l.is("b", handover.Waiting)
}

// TestNothingIsPlacedAtItsLapse: the deadline has passed before anything else that happens at
// the same moment.
func TestNothingIsPlacedAtItsLapse(t *testing.T) {
	l := newLab(t)
	l.gives("a", "b")
	l.cut["a"] = true
	l.now = l.jobs["b"].Taken.RecallBy.Add(-terms.Skew - terms.StopWithin)
	for _, in := range []handover.Input{
		handover.PlaceHere{},
		handover.Forward{To: "c", Terms: terms, Hops: 3},
		handover.Received{From: "a", Message: handover.Granted{Key: key, Token: "1", RecallBy: l.now.Add(terms.Lease)}, Terms: terms},
	} {
		j := l.jobs["b"]
		_, granted := in.(handover.Received)
		if err := l.try("b", in); err == nil && !granted || l.has("b", "Start") != 0 {
			t.Errorf("%T at the lapse", in)
		}
		l.is("b", handover.Released)
		l.jobs["b"] = j
	}
}

// TestAFencedCopyIsStopped: at once, and not only at its deadline.
func TestAFencedCopyIsStopped(t *testing.T) {
	l := newLab(t)
	l.gives("a", "b")
	l.does("b", handover.PlaceHere{})
	l.hears("b", "a", handover.Settle{Key: key, Token: "1"})
	l.is("b", handover.Stopping)
	if l.has("b", "Stop") != 1 {
		t.Error("its site is not told")
	}
}

// TestASettleThatIsLost: is said the same again, though the job has another place by then, so
// that what is owed is claimed, and what is told twice is counted once.
func TestASettleThatIsLost(t *testing.T) {
	l := newLab(t)
	l.gives("a", "b")
	l.does("b", handover.PlaceHere{})
	l.does("b", handover.Return{Running: true, Reason: "the nodes are wanted"})
	if err := l.try("b", handover.Evidence{Token: "1.1", Shows: handover.NotRun, Used: handover.CPUSecond}); err != nil {
		t.Fatal(err)
	}
	report := l.mail[0].Message
	l.mail = nil
	for range 2 {
		l.hears("a", "b", report)
		if len(l.earns) != 0 || len(l.owes) != 1 || l.jobs["a"].Used != handover.CPUSecond {
			t.Fatalf("owed %+v; used %s", l.owes, l.jobs["a"].Used)
		}
	}
	l.mail = nil // both answers are lost
	l.gives("a", "c")
	l.pass(time.Minute)
	if len(l.earns) != 1 || l.jobs["b"] != nil && !l.jobs["b"].Taken.Settled {
		t.Errorf("earned %+v", l.earns)
	}
}
