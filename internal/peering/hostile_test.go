package peering

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/limits"
	"github.com/portolan-project/portolan/peers/wire"
)

// route gives one as a peer might make it up.
func (w *world) route(origin, id, script string) *wire.Route {
	doc := string(definition(script).Marshal())
	return &wire.Route{
		About: wire.About{Origin: origin, ID: id, Token: "1"}, RecallBy: time.Now().Add(w.terms.Lease).UTC(), Path: []string{origin},
		Document: doc, Digest: digestOf(doc, "", time.Time{}),
	}
}

// TestNamesOfAnyLength: what a peer calls a job makes no record that the store refuses, which
// would end the engine.
func TestNamesOfAnyLength(t *testing.T) {
	pair(t, func(t *testing.T, w *world) {
		a, b := w.gates["a"], w.gates["b"]
		var keys []handover.Key
		for _, c := range []string{"!", "%", "~", "a"} {
			id := strings.Repeat(c, wire.MaxID)
			keys = append(keys, handover.Key{Origin: "a", ID: id})
			b.engine().Deliver("a", []wire.Message{w.route("a", id, "sleep 1m;exit 3")}, nil)
			about := wire.About{Origin: strings.Repeat(c, wire.MaxDomain), ID: id, Token: "1"}
			b.engine().Deliver("a", []wire.Message{&wire.Control{About: about, Number: 1, Want: wire.Cancel, RecallBy: time.Now().Add(time.Minute).UTC()}}, nil)
		}
		time.Sleep(30 * time.Second)
		for _, k := range keys {
			if b.jobs.runs(k) != 1 {
				t.Errorf("%s... is not taken", k.ID[:1])
			}
		}
		if n := records(t, b.store, jobPrefix); n != 2*len(keys) {
			t.Errorf("there are %d records", n)
		}
		// And they are read again.
		b.stop()
		b.start()
		w.open("a", "b")
		p := a.give("b", "j1-1", "sleep 1m")
		a.until(p.Handle, adapters.Exited)
		for _, k := range keys {
			if b.jobs.runs(k) != 1 {
				t.Errorf("%s... ran %d times", k.ID[:1], b.jobs.runs(k))
			}
		}
	}, "a", "b")
}

// TestForgedControls: a peer makes no records at the keys of our own jobs, and no more than so
// many at others.
func TestForgedControls(t *testing.T) {
	pair(t, func(t *testing.T, w *world) {
		a, b := w.gates["a"], w.gates["b"]
		control := func(origin, id string) *wire.Control {
			return &wire.Control{About: wire.About{Origin: origin, ID: id, Token: "7"}, Number: 1, Want: wire.Cancel, RecallBy: time.Now().Add(time.Minute).UTC()}
		}
		a.engine().Deliver("b", []wire.Message{control("a", "j1")}, nil)
		time.Sleep(10 * time.Second)
		if n := records(t, a.store, jobPrefix); n != 0 {
			t.Errorf("there are %d records", n)
		}
		p := a.give("b", "j1-1", "sleep 1m")
		a.until(p.Handle, adapters.Exited)
		e := b.engine()
		e.mu.Lock()
		had, before, bytes := len(e.jobs), e.past["a"], e.pastBytes["a"]
		e.past["a"] = limits.PastJobs
		e.mu.Unlock()
		e.Deliver("a", []wire.Message{control("a", "j2"), w.route("a", "j3", "sleep 1m")}, nil)
		time.Sleep(10 * time.Second)
		e.mu.Lock()
		if len(e.jobs) != had {
			t.Errorf("%d jobs, and there were %d", len(e.jobs), had)
		}
		e.past["a"] = before
		// By their bytes likewise.
		e.pastBytes["a"] = limits.RecordBytes
		e.mu.Unlock()
		e.Deliver("a", []wire.Message{control("a", "j4"), w.route("a", "j5", "sleep 1m")}, nil)
		time.Sleep(10 * time.Second)
		e.mu.Lock()
		if len(e.jobs) != had {
			t.Errorf("%d jobs, and there were %d", len(e.jobs), had)
		}
		e.pastBytes["a"] = bytes
		e.mu.Unlock()
		e.Deliver("a", []wire.Message{w.route("a", "j3", "sleep 1m")}, nil)
		time.Sleep(5 * time.Second)
		if b.jobs.runs(handover.Key{Origin: "a", ID: "j3"}) != 1 {
			t.Error("a route that comes again is not taken when there is room")
		}
	}, "a", "b")
}

// cutStore is one that can't be written for a while.
type cutStore struct {
	Store
	cut atomic.Bool
}

func (c *cutStore) PutRecords(ctx context.Context, s store.Session, changes ...store.RecordChange) (int64, error) {
	if c.cut.Load() {
		return 0, fail.Errorf("test.PutRecords", fail.Unavailable, "", "the store is out of reach")
	}
	return c.Store.PutRecords(ctx, s, changes...)
}

// TestNoPromiseWithoutTheStore: an engine that can't be sure that it still is the engine moves no
// recall deadline on: another one may have read the records, and takes no more for promised
// than could be by then.
func TestNoPromiseWithoutTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b")
		defer w.close()
		a, b := w.gates["a"], w.gates["b"]
		st := &cutStore{Store: a.store}
		a.store = st
		a.start()
		b.start()
		w.connect("a", "b")
		p := a.give("b", "j1-1", "hang")
		a.until(p.Handle, adapters.Running)
		time.Sleep(30 * time.Minute)
		promised := func() time.Time {
			e := b.engine()
			e.mu.Lock()
			defer e.mu.Unlock()
			return e.jobs[handover.Key{Origin: "a", ID: "j1"}].job.Taken.RecallBy
		}
		if left := time.Until(promised()); left < 5*time.Minute {
			t.Fatalf("its deadline is moved on to %s from now only", left)
		}
		time.Sleep(time.Minute) // its next report comes a while after this
		st.cut.Store(true)
		at := time.Now()
		time.Sleep(5 * time.Minute)
		if last := promised(); last.After(at.Add(w.terms.Lease + 2*w.terms.Skew)) {
			t.Errorf("it was moved on by %s after the store was cut off", last.Sub(at)-w.terms.Lease)
		}
		time.Sleep(10 * time.Minute)
		b.jobs.mu.Lock()
		for _, j := range b.jobs.jobs {
			if j.st.Status != handover.IsReturned {
				t.Errorf("it is %s", j.st.Status)
			}
		}
		b.jobs.mu.Unlock()
		st.cut.Store(false)
		a.until(p.Handle, adapters.Lost)
	})
}

// TestOutputThatNobodyTakes: a peer that asks for output and takes none of what it is told is told no
// more of it than so many bytes, and why. Messages about jobs go on once it takes some.
func TestOutputThatNobodyTakes(t *testing.T) {
	pair(t, func(t *testing.T, w *world) {
		a, b := w.gates["a"], w.gates["b"]
		p := a.give("b", "j1-1", "sleep 1m")
		a.until(p.Handle, adapters.Exited)
		time.Sleep(time.Minute)
		piece := strings.Repeat("0123456789abcdef", pieceSize/16)
		b.jobs.mu.Lock()
		for _, j := range b.jobs.jobs {
			b.jobs.outputs[j.st.Activity+" stdout"] = piece
		}
		b.jobs.mu.Unlock()
		var took atomic.Bool
		back := w.links[[2]string{"b", "a"}]
		back.mu.Lock()
		back.busy = func() bool { return !took.Load() }
		var pieces, refused int // the link's lock guards them
		back.seen = func(m wire.Message) {
			o, ok := m.(*wire.Output)
			switch {
			case ok && len(o.Data) > 0:
				pieces++
			case ok && o.Kind.Kind() == fail.Exhausted && strings.Contains(o.Reason, "acknowledge them"):
				refused++
			case ok:
				t.Errorf("%+v", o)
			}
		}
		back.mu.Unlock()
		about := wire.About{Origin: "a", ID: "j1", Token: "1"}
		fits := limits.OutputBytes / pieceSize
		ask := func(n int) {
			for i := range n {
				b.engine().Deliver("a", []wire.Message{&wire.Read{About: about, Request: uint64(i + 1), Stream: wire.Stdout, Most: pieceSize}}, nil)
				time.Sleep(time.Millisecond)
			}
		}
		ask(fits + 1 + 7) // the first is with the session already
		took.Store(true)
		b.engine().Free("a")
		time.Sleep(time.Second)
		back.mu.Lock()
		if pieces < fits || pieces > fits+1 || refused != fits+8-pieces {
			t.Errorf("%d pieces were sent of %d that fit, and %d requests refused", pieces, fits, refused)
		}
		pieces, refused = 0, 0
		back.mu.Unlock()
		ask(3)
		time.Sleep(time.Second)
		back.mu.Lock()
		defer back.mu.Unlock()
		if pieces != 3 || refused != 0 {
			t.Errorf("%d pieces, %d refused", pieces, refused)
		}
	}, "a", "b")
}

// TestMostJobs: a peer has so many jobs here and no more, whatever the gate allows; those that were
// accepted go on, and other peers' are taken.
func TestMostJobs(t *testing.T) {
	pair(t, func(t *testing.T, w *world) {
		b := w.gates["b"]
		w.connect("b", "c")
		e := b.engine()
		answers := map[string]*wire.Answer{}
		for _, to := range []string{"a", "c"} {
			l := w.links[[2]string{"b", to}]
			l.mu.Lock()
			l.seen = func(m wire.Message) {
				if x, ok := m.(*wire.Answer); ok {
					answers[x.Origin+"/"+x.ID] = x
				}
			}
			l.mu.Unlock()
		}
		become := func(from string, jobs, bytes int) {
			e.mu.Lock()
			defer e.mu.Unlock()
			e.here[from], e.hereBytes[from] = jobs, bytes
		}
		deliver := func(from, id string) *wire.Answer {
			t.Helper()
			r := w.route(from, id, "hang")
			e.Deliver(from, []wire.Message{r}, nil)
			synctest.Wait() // and no longer: the giver that knows nothing of it would have it ended
			x := answers[from+"/"+id]
			if x == nil {
				t.Fatalf("%s of %s has no answer", id, from)
			}
			return x
		}
		become("a", limits.Jobs-1, 0)
		if x := deliver("a", "j1"); !x.Accepted {
			t.Errorf("the last that may be: %+v", x)
		}
		x := deliver("a", "j2")
		if x.Accepted || x.Kind.Kind() != fail.Exhausted || !strings.Contains(x.Reason, "200000 jobs of the domain a are at b") {
			t.Errorf("one more: %+v", x)
		}
		if x := deliver("a", "j1"); !x.Accepted {
			t.Errorf("the same again: %+v", x)
		}
		if x := deliver("c", "j1"); !x.Accepted {
			t.Errorf("another peer's: %+v", x)
		}
		become("a", 2, limits.RecordBytes)
		if x := deliver("a", "j3"); x.Accepted || x.Kind.Kind() != fail.Exhausted {
			t.Errorf("with records of so many bytes: %+v", x)
		}
		become("a", 1, 100)
		if b.jobs.runs(handover.Key{Origin: "a", ID: "j1"}) != 1 {
			t.Error("what was accepted did not run")
		}
	}, "a", "b", "c")
}
