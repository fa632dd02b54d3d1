package session

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/wire"
)

// TestProperty: two sides over a link that loses, doubles, reorders and is cut for any
// time, at moments of its own: each item is delivered in order exactly once (node.act
// sees to that), and after the last cut both sides agree on everything; then the session
// drains and both close.
func TestProperty(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		w := newWorld(t, rapid.Uint64().Draw(r, "seed"), rapid.Bool().Draw(r, "outbound-only"))
		w.codec = rapid.Bool().Draw(r, "xml")
		w.a.slow, w.b.slow = 3*time.Second, 300*time.Millisecond
		for range rapid.IntRange(1, 25).Draw(r, "happenings") {
			switch rapid.IntRange(0, 5).Draw(r, "what") {
			case 0, 1:
				w.a.send(rapid.IntRange(1, 30).Draw(r, "a"))
			case 2:
				w.b.send(rapid.IntRange(1, 30).Draw(r, "b"))
			case 3:
				w.loss = rapid.Float64Range(0, 0.6).Draw(r, "loss")
				w.double = rapid.Float64Range(0, 0.4).Draw(r, "double")
				w.delay = time.Duration(rapid.IntRange(1, 8000).Draw(r, "delay")) * time.Millisecond
			case 4:
				w.cut = !w.cut
			}
			w.run(time.Duration(rapid.OneOf(rapid.IntRange(0, 3000), rapid.IntRange(0, 300_000)).Draw(r, "wait")) * time.Millisecond)
		}
		w.loss, w.double, w.cut, w.delay = 0, 0, false, 50*time.Millisecond
		w.run(5 * time.Minute)
		if !w.settled() {
			r.Fatalf("five minutes after the last cut:\n%s", w)
		}
		w.a.send(5)
		w.b.send(5)
		stopper := w.a
		if rapid.Bool().Draw(r, "b stops") {
			stopper = w.b
		}
		stopper.step(Stop{Reason: wire.Shutdown, Drain: true, By: w.now.Add(time.Hour)})
		w.run(2 * time.Minute)
		for _, n := range []*node{w.a, w.b} {
			if phase, reason, _ := n.s.Phase(); phase != Closed || !strings.HasPrefix(reason, "drained") || len(n.got) != n.peer.put {
				r.Fatalf("drained:\n%s", w)
			}
			if n.broken != nil {
				r.Fatal(n.broken)
			}
		}
		w.run(time.Hour)
		if len(w.agenda) != 0 {
			r.Fatalf("something still goes on an hour after the end:\n%s", w)
		}
	})
}

// TestIdle: a session in which nothing happens costs one exchange a beat, without items.
func TestIdle(t *testing.T) {
	for _, out := range []bool{false, true} {
		w := newWorld(t, 1, out)
		w.run(time.Minute)
		w.a.messages, w.b.messages = map[string]int{}, map[string]int{}
		w.a.bytes, w.b.bytes = 0, 0
		steps := w.steps
		const beats = 360
		w.run(beats * 10 * time.Second)
		want := map[string]int{"Heartbeat": beats}
		if out {
			want = map[string]int{"Exchange": beats}
		}
		total := 0
		for name, n := range w.a.messages {
			total += n
			if want[name] == 0 || n > beats+1 || n < beats-2 {
				t.Errorf("outbound-only %v: %v", out, w.a.messages)
			}
		}
		if total == 0 || len(w.b.messages) != 0 || w.a.itemsSent+w.b.itemsSent != 0 {
			t.Errorf("outbound-only %v: %v, %v", out, w.a.messages, w.b.messages)
		}
		t.Logf("outbound-only %v: %v in an hour, about %d bytes each, %d steps", out, w.a.messages, w.a.bytes/total, w.steps-steps)
	}
}

// TestPhases walks through a break: the moments at which each side takes the other for
// suspect and lost, to the second, and that a break of any length is mended.
func TestPhases(t *testing.T) {
	for _, out := range []bool{false, true} {
		for _, cut := range []time.Duration{12 * time.Second, 50 * time.Second, 10 * time.Minute, 90 * 24 * time.Hour} {
			w := newWorld(t, 2, out)
			w.run(25 * time.Second)
			w.cut = true
			heard := w.a.s.Heard()
			w.run(time.Millisecond)
			w.a.send(3)
			w.b.send(4)
			want := []string(nil)
			check := func(at time.Duration, p Phase) {
				if cut <= at {
					return
				}
				w.run(heard.Add(at).Sub(w.now))
				if got, _, _ := w.a.s.Phase(); got != p {
					t.Errorf("%s after the last sign of life: %s, want %s", at, got, p)
				}
			}
			check(30*time.Second-time.Millisecond, Alive)
			check(30*time.Second, Suspect)
			check(60*time.Second-time.Millisecond, Suspect)
			check(60*time.Second, Lost)
			if cut > 60*time.Second {
				want = []string{"alive→suspect", "suspect→lost", "lost→alive"}
			} else if cut > 30*time.Second {
				want = []string{"alive→suspect", "suspect→alive"}
			}
			w.run(heard.Add(cut).Sub(w.now))
			w.cut = false
			w.run(80 * time.Second)
			if !w.settled() || !reflect.DeepEqual(w.a.turns, want) {
				t.Errorf("outbound-only %v, after a cut of %s: %v\n%s", out, cut, w.a.turns, w)
			}
		}
	}
}

// TestCredits: a side that does nothing with its items is sent no more than it takes.
func TestCredits(t *testing.T) {
	for _, out := range []bool{false, true} {
		for _, reverse := range []bool{false, true} {
			w := newWorld(t, 3, out)
			from, to, window := w.a, w.b, 8
			if reverse {
				from, to, window = w.b, w.a, 16
			}
			to.idle = true
			from.send(1000)
			full := from.put
			if from.s.Room() != 0 || full != from.s.config.Queue {
				t.Fatalf("%d were taken, room for %d is left", full, from.s.Room())
			}
			from.step(Put{Items: []wire.Message{item("x", 0)}})
			if !fail.Is(from.broken, fail.Exhausted) {
				t.Fatal(from.broken)
			}
			w.run(10 * time.Minute)
			if len(to.got) != window || from.itemsSent != window {
				t.Errorf("%d of %d items were delivered, %d sent; the window is %d", len(to.got), full, from.itemsSent, window)
			}
			if phase, _, _ := from.s.Phase(); phase != Alive {
				t.Errorf("back-pressure made it %s", phase)
			}
			for k := 1; k <= full; k++ {
				to.step(Done{Upto: uint64(k)})
				w.run(300 * time.Millisecond)
			}
			to.step(Done{Upto: uint64(full)})
			w.run(time.Minute)
			if len(to.got) != full || from.frees != 1 || !w.settled() {
				t.Errorf("outbound-only %v, reverse %v: %d of %d, free %d times\n%s", out, reverse, len(to.got), full, from.frees, w)
			}
		}
	}
}

// TestBudget: what is beyond the bytes that a side holds comes later, and not in a loop.
func TestBudget(t *testing.T) {
	for _, out := range []bool{false, true} {
		one := wire.Size(item("b", 1))
		w := newWorld(t, 4, out, func(a, b *Config) { a.Budget = 3 * one })
		w.a.idle = true
		w.b.send(10)
		w.run(time.Hour)
		if len(w.a.got) != 3 {
			t.Errorf("%d items were taken", len(w.a.got))
		}
		if w.b.itemsSent > 8*400 {
			t.Errorf("%d items were sent in an hour for 10", w.b.itemsSent)
		}
		w.a.idle = false
		w.a.step(Done{Upto: 3})
		w.run(time.Minute)
		if !w.settled() {
			t.Errorf("%s", w)
		}
	}
}

// TestLostState: a side that lost its state is found out, and nothing is gone on with.
func TestLostState(t *testing.T) {
	for name, c := range map[string]struct {
		change func(w *world)
		wait   time.Duration
	}{
		"started anew, found by the instance": {func(w *world) {
			w.cut = true
			w.run(5 * time.Minute)
			w.cut = false
			w.b.s.agreement.Instance = "ib2"
		}, time.Minute},
		"an old backup, found by the cursors": {func(w *world) {
			old := w.b.s
			w.a.send(5)
			w.b.send(5)
			w.run(time.Minute)
			w.b.s = old
		}, time.Minute},
		"the asking side's old backup": {func(w *world) {
			old := w.a.s
			w.a.send(5)
			w.b.send(5)
			w.run(time.Minute)
			w.a.s = old
		}, 2 * time.Minute},
	} {
		w := newWorld(t, 5, false)
		w.run(30 * time.Second)
		c.change(w)
		w.run(c.wait)
		for _, n := range []*node{w.a, w.b} {
			if phase, reason, _ := n.s.Phase(); phase != Closed || !strings.HasPrefix(reason, "forgotten") {
				t.Errorf("%s: %s is %s: %s", name, n.name, phase, reason)
			}
		}
	}
}

// TestClose: at once; by a drain that does not end; of a session that is lost.
func TestClose(t *testing.T) {
	for _, out := range []bool{false, true} {
		for _, from := range []string{"a", "b"} {
			stopper := func(w *world) *node {
				if from == "a" {
					return w.a
				}
				return w.b
			}
			w := newWorld(t, 6, out)
			w.run(time.Second)
			stopper(w).step(Stop{Reason: wire.Withdrawn, Sentence: "the contract ended"})
			w.run(30 * time.Second)
			for _, n := range []*node{w.a, w.b} {
				if n.s.phase != Closed {
					t.Errorf("at once, by %s: %s", from, w)
				}
				n.step(Put{Items: []wire.Message{item("x", 1)}})
				if !fail.Is(n.broken, fail.NotAccepting) {
					t.Error(n.broken)
				}
			}
			w = newWorld(t, 7, out)
			stopper(w).peer.idle = true
			stopper(w).send(3)
			stopper(w).step(Stop{Reason: wire.Shutdown, Drain: true, By: w.now.Add(time.Minute)})
			w.run(59 * time.Second)
			if stopper(w).s.phase != Alive || stopper(w).s.Room() != 0 || stopper(w).peer.s.Room() != 0 {
				t.Errorf("while it drains: %s", w)
			}
			w.run(31 * time.Second)
			if w.a.s.phase != Closed || w.b.s.phase != Closed {
				t.Errorf("a drain that does not end, by %s: %s", from, w)
			}
		}
	}
	w := newWorld(t, 8, false)
	w.cut = true
	w.run(time.Hour)
	w.a.step(Stop{Reason: wire.Withdrawn})
	w.run(time.Hour)
	if w.a.s.phase != Closed || w.b.s.phase != Lost {
		t.Errorf("%s", w)
	}
	w.cut = false
	w.run(time.Minute)
	if w.b.s.phase != Closed {
		t.Errorf("who resumes a session that was closed: %s", w)
	}
}

// TestPhasesTable walks every pair.
func TestPhasesTable(t *testing.T) {
	every := []Phase{Alive, Suspect, Lost, Closed}
	for _, from := range every {
		for _, to := range every {
			s := &step{State: State{phase: from}, now: start}
			s.turn(to, "why")
			want := slices.Contains(phases[from], to)
			if got := len(s.outputs) == 1 && s.phase == to; got != want {
				t.Errorf("%s to %s: %v", from, to, got)
			}
		}
	}
}

// TestNegotiate: what two sides come to, and why they can't.
func TestNegotiate(t *testing.T) {
	a, b := configs(false)
	open := a.Open("s", start)
	answer, theirs, err := b.Accept(open, start)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := a.Accepted(open, answer)
	if err != nil {
		t.Fatal(err)
	}
	if ours.Beat != 10*time.Second || ours.Suspect != 30*time.Second || ours.Lost != time.Minute || !slices.Equal(ours.Features, []string{"output"}) || ours.Version != "1" || !ours.Dials || ours.Polls || ours.Window != 8 || theirs.Window != 16 {
		t.Errorf("%+v", ours)
	}
	if ours.Beat != theirs.Beat || ours.Lost != theirs.Lost || ours.Terms != theirs.Terms || ours.Version != theirs.Version || !slices.Equal(ours.Features, theirs.Features) {
		t.Errorf("they do not agree: %+v, %+v", ours, theirs)
	}
	for name, c := range map[string]struct {
		change func(a, b *Config)
		code   wire.FaultCode
	}{
		"no version":         {func(a, _ *Config) { a.Versions = []string{"9"} }, wire.NoVersion},
		"both are parents":   {func(a, b *Config) { a.Party.Role, b.Party.Role = wire.Parent, wire.Parent }, wire.TermsRefused},
		"the same domain":    {func(a, b *Config) { a.Party.Domain = b.Party.Domain }, wire.TermsRefused},
		"nobody can dial":    {func(a, b *Config) { a.Party.Endpoint, b.Party.Endpoint = "", "" }, wire.TermsRefused},
		"terms do not go on": {func(a, b *Config) { a.Terms.Lease, b.Terms.Skew = time.Minute, 30*time.Second }, wire.TermsRefused},
	} {
		a, b := configs(false)
		c.change(&a, &b)
		_, _, err := b.Accept(a.Open("s", start), start)
		f, ok := errors.AsType[*wire.Fault](err)
		if !ok || f.Code != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*wire.Opened){
		"a version that was not offered": func(o *wire.Opened) { o.Version = "2" },
		"a feature that was not offered": func(o *wire.Opened) { o.Features = []string{"z"} },
		"a shorter beat":                 func(o *wire.Opened) { o.Beat = time.Second },
		"a longer lease":                 func(o *wire.Opened) { o.Terms.Lease *= 2 },
		"another session":                func(o *wire.Opened) { o.Session = "t" },
		"a longer silence than agreed":   func(o *wire.Opened) { o.Lost = 10 * time.Second },
	} {
		o := *answer
		change(&o)
		if _, err := a.Accepted(open, &o); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	v := &wire.Open{Versions: []string{"2", "10", "1"}}
	if got, _, _, _, _ := agreed(v, &wire.Open{Versions: []string{"1", "10", "2"}}); got != "10" {
		t.Errorf("of 1, 2 and 10, %s is the highest", got)
	}
	parent, child := configs(true)
	parent.Party.Role, child.Party.Role = wire.Parent, wire.Child
	if _, _, err := child.Accept(parent.Open("s", start), start); err != nil {
		t.Error(err)
	}
	if !Stands("a", "b") || Stands("b", "a") {
		t.Error("which session stands")
	}
}

// TestSpeed: items go through at once where the link does, in few messages.
func TestSpeed(t *testing.T) {
	w := newWorld(t, 9, false, func(a, b *Config) { a.Window, b.Window, a.Queue = 4096, 4096, 8192 })
	w.delay = 0
	w.a.send(4000)
	w.run(time.Second)
	if len(w.b.got) != 4000 || w.a.messages["Exchange"] > 6 {
		t.Errorf("%d items in %v", len(w.b.got), w.a.messages)
	}
}

// TestPure: a state that was stepped from can be stepped from again, with the same result.
func TestPure(t *testing.T) {
	w := newWorld(t, 10, false)
	s := w.a.s
	put := func(s State, n int) State {
		next, _ := s.Step(Put{Items: []wire.Message{item("a", n)}}, start.Add(time.Second))
		return next
	}
	s = put(s, 0)
	x, y := put(s, 1), put(s, 2)
	if a, b := x.queue.s[1].(*wire.Query).ID, y.queue.s[1].(*wire.Query).ID; a != "1" || b != "2" {
		t.Errorf("one step changed what another was made of: %s, %s", a, b)
	}
	if !reflect.DeepEqual(put(s, 1), x) {
		t.Error("the same step has another result")
	}
}

// TestOrder: what came before is dropped, what comes too early or beyond the credit is
// not taken, in whatever frame it is.
func TestOrder(t *testing.T) {
	w := newWorld(t, 11, false)
	s, number, now := w.b.s, uint64(0), start
	send := func(first uint64, n int) (delivered uint64, got uint64) {
		var items []wire.Message
		for i := range n {
			items = append(items, item("a", int(first)+i))
		}
		now = now.Add(time.Second)
		number++
		f := wire.Frame{Session: "s1", Number: number, Sent: 1000, Limit: 16, First: first, Items: items, Clock: now}
		next, outs := s.Step(Request{ID: number, Message: &wire.Exchange{Frame: f}}, now)
		s = next
		for _, o := range outs {
			switch o := o.(type) {
			case Deliver:
				delivered += uint64(len(o.Items))
				if o.First+delivered-1 != s.got || o.Items[0].(*wire.Query).ID != item("a", int(o.First)).(*wire.Query).ID {
					t.Errorf("items %d to %d, and it has %d", o.First, o.First+delivered-1, s.got)
				}
			case Reply:
				if o.Fault != nil {
					t.Fatal(o.Fault)
				}
			}
		}
		return delivered, s.got
	}
	for _, c := range []struct {
		first          uint64
		n              int
		delivered, got uint64
	}{
		{3, 2, 0, 0}, {1, 2, 2, 2}, {1, 2, 0, 2}, {2, 3, 2, 4}, {6, 1, 0, 4}, {5, 10, 4, 8}, // the window is 8
	} {
		if d, g := send(c.first, c.n); d != c.delivered || g != c.got {
			t.Errorf("%d items from %d: %d delivered, has %d; want %d and %d", c.n, c.first, d, g, c.delivered, c.got)
		}
	}
	s, _ = s.Step(Done{Upto: 8}, now)
	if d, g := send(9, 3); d != 3 || g != 11 {
		t.Errorf("after credit: %d, %d", d, g)
	}
}

// TestAskFails: what comes of each way in which a request of this side can fail.
func TestAskFails(t *testing.T) {
	for _, c := range []struct {
		code   wire.FaultCode // "" is that there was no answer
		phase  Phase
		reason wire.CloseReason
	}{
		{"", Alive, ""},
		{wire.Busy, Alive, ""},
		{wire.InternalProblem, Alive, ""},
		{wire.NotTrusted, Alive, ""},
		{wire.NoVersion, Alive, ""},
		{wire.TermsRefused, Alive, ""},
		{wire.MustResume, Lost, ""},
		{wire.UnknownSession, Closed, wire.Forgotten},
		{wire.CursorMismatch, Closed, wire.Forgotten},
		{wire.SessionClosed, Closed, wire.Withdrawn},
		{wire.SessionExists, Closed, wire.Superseded},
		{wire.BadMessage, Closed, wire.Broken},
	} {
		w := newWorld(t, 12, false)
		s, outs := w.a.s.Step(Put{Items: []wire.Message{item("a", 0)}}, start)
		ask := outs[0].(Ask)
		f := (*wire.Fault)(nil)
		if c.code != "" {
			f = &wire.Fault{Code: c.code, Sentence: "why", Retry: 7 * time.Second}
		}
		s, outs = s.Step(Failed{ID: ask.ID, Fault: f}, start.Add(time.Second))
		if s.phase != c.phase || s.closeReason != c.reason {
			t.Errorf("%q: %s, %s", c.code, s.phase, s.reason)
		}
		if c.phase == Alive {
			pause := time.Second
			if c.code != "" {
				pause = 7 * time.Second
			}
			if at, _ := s.Wake(); len(outs) != 0 || !at.Equal(start.Add(time.Second+pause)) {
				t.Errorf("%q: tried again at %s: %v", c.code, at, outs)
			}
			s, outs = s.Step(Tick{}, start.Add(time.Second+pause))
			if x, ok := outs[0].(Ask); !ok || len(x.Message.(*wire.Exchange).Items) != 1 {
				t.Errorf("%q: %v", c.code, outs)
			}
		}
		if c.phase == Lost {
			if _, ok := outs[len(outs)-1].(Ask).Message.(*wire.Resume); !ok {
				t.Errorf("%q: %v", c.code, outs)
			}
		}
		if c.reason == wire.Forgotten && len(outs) != 1 {
			t.Errorf("%q: nobody is there to be told: %v", c.code, outs)
		}
		if next, outs := s.Step(Failed{ID: ask.ID, Fault: &wire.Fault{Code: wire.UnknownSession}}, s.since); len(outs) > 1 || next.phase != s.phase {
			t.Errorf("%q: a failure that was told before: %v", c.code, outs)
		}
	}
	// Whoever carries messages forgets one: it is given up by itself.
	w := newWorld(t, 13, false)
	s, _ := w.a.s.Step(Put{Items: []wire.Message{item("a", 0)}}, start)
	var outs []Output
	for range 10 {
		at, ok := s.Wake()
		if !ok {
			t.Fatal("it sleeps")
		}
		if s, outs = s.Step(Tick{}, at); len(outs) > 0 {
			break
		}
	}
	if len(outs) == 0 || len(outs[0].(Ask).Message.(*wire.Exchange).Items) != 1 {
		t.Errorf("%v", outs)
	}
}

// TestMisuse: what is not of the session, or no message for it, has no effect.
func TestMisuse(t *testing.T) {
	w := newWorld(t, 14, false)
	other := wire.Frame{Session: "s2", Number: 1, Clock: start}
	for _, c := range []struct {
		in   Input
		code wire.FaultCode
		kind fail.Kind
	}{
		{in: Request{ID: 1, Message: &wire.Exchange{Frame: other}}, code: wire.UnknownSession},
		{in: Request{ID: 1, Message: &wire.Query{}}, code: wire.BadMessage},
		{in: Put{Items: []wire.Message{&wire.Heartbeat{}}}, kind: fail.Invalid},
		{in: Stop{}, kind: fail.Invalid},
	} {
		next, outs := w.b.s.Step(c.in, start)
		if next.phase != Alive || next.sent != 0 || next.heard != 0 {
			t.Errorf("%T had an effect", c.in)
		}
		switch o := outs[0].(type) {
		case Reply:
			if o.Fault == nil || o.Fault.Code != c.code {
				t.Errorf("%+v", o)
			}
		case Rejected:
			if c.code != "" || !fail.Is(o.Err, c.kind) {
				t.Error(o.Err)
			}
		default:
			t.Errorf("%T: %v", c.in, outs)
		}
	}
	bad := Config{Window: 1 << 20}
	if err := bad.EnsureDefaults().Validate(); !fail.Is(err, fail.Invalid) {
		t.Error(err)
	}
}

// TestQueueBytes: what waits for a side that acknowledges nothing is bounded by its bytes too, one item aside,
// and goes on when it does.
func TestQueueBytes(t *testing.T) {
	one := wire.Size(item("a", 1))
	w := newWorld(t, 5, false, func(a, _ *Config) { a.Queue, a.QueueBytes = 100, 3*one })
	w.b.idle = true
	w.a.send(3)
	if w.a.put != 3 || w.a.s.Room() != 0 {
		t.Fatalf("%d of 3 were put, and there is room for %d", w.a.put, w.a.s.Room())
	}
	w.a.step(Put{Items: []wire.Message{item("a", 4)}})
	if !fail.Is(w.a.broken, fail.Exhausted) {
		t.Fatal(w.a.broken)
	}
	w.run(time.Minute)
	w.b.idle = false
	w.b.step(Done{Upto: 3})
	w.run(time.Minute)
	if w.a.frees != 1 || w.a.s.Room() != 100 {
		t.Errorf("it was said %d times that there is room, for %d", w.a.frees, w.a.s.Room())
	}
	// One item is taken whatever it is, and two are not.
	large := &wire.Route{About: wire.About{Origin: "a", ID: "large", Token: "1"}, Document: strings.Repeat("x", 10*one), Path: []string{"a"}, RecallBy: w.now}
	w.a.broken = nil
	w.a.step(Put{Items: []wire.Message{large, large}})
	if !fail.Is(w.a.broken, fail.Exhausted) || w.a.s.Room() != 100 {
		t.Errorf("%v, room for %d", w.a.broken, w.a.s.Room())
	}
	w.a.broken = nil
	w.a.step(Put{Items: []wire.Message{large}})
	if w.a.broken != nil || w.a.s.Room() != 0 {
		t.Errorf("%v, room for %d", w.a.broken, w.a.s.Room())
	}
}
