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
		had, before := len(e.jobs), e.past["a"]
		e.past["a"] = limits.PastJobs
		e.mu.Unlock()
		e.Deliver("a", []wire.Message{control("a", "j2"), w.route("a", "j3", "sleep 1m")}, nil)
		time.Sleep(10 * time.Second)
		e.mu.Lock()
		if len(e.jobs) != had {
			t.Errorf("%d jobs, and there were %d", len(e.jobs), had)
		}
		e.past["a"] = before
		e.mu.Unlock()
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
