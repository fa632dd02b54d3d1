package peering

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/peers/handover"
)

// TestFreeBeforePutReturns: that there is room again is told once, and it may be told before
// Put has said that there was none.
func TestFreeBeforePutReturns(t *testing.T) {
	pair(t, func(t *testing.T, w *world) {
		a := w.gates["a"]
		l := w.links[[2]string{"a", "b"}]
		first := true
		l.busy = func() bool {
			if !first {
				return false
			}
			first = false
			a.engine().Free("b")
			return true
		}
		began := time.Now()
		p := a.give("b", "j1-1", "sleep 1s")
		if p.Err != nil {
			t.Fatal(p.Err)
		}
		a.until(p.Handle, adapters.Running)
		if d := time.Since(began); d > time.Second {
			t.Errorf("it was sent after %s", d)
		}
		a.until(p.Handle, adapters.Exited)
	}, "a", "b")
}

// TestReturnedForGood: a peer of which no site can run a job bars itself, and one that is
// full or from which the job was recalled does not.
func TestReturnedForGood(t *testing.T) {
	pair(t, func(t *testing.T, w *world) {
		a, b := w.gates["a"], w.gates["b"]
		p := a.give("b", "j1-1", "unfit")
		if p.Err != nil {
			t.Fatal(p.Err)
		}
		if e := a.until(p.Handle, adapters.Stopped); !e.NotRun || !strings.Contains(e.Reason, "no site can run it") {
			t.Errorf("unfit: it tells %+v", e)
		}
		// A broker that is in trouble for long gives it back, and says so meanwhile.
		b.jobs.mu.Lock()
		b.jobs.trouble = func(string) error { return fail.Errorf("test", fail.NotAccepting, "", "there is no room") }
		b.jobs.mu.Unlock()
		p = a.give("b", "j2-1", "sleep 1s")
		if p.Err != nil {
			t.Fatal(p.Err)
		}
		time.Sleep(20 * time.Second)
		if e := a.look(p.Handle); e.Phase != adapters.Queued || !strings.Contains(e.Reason, "the domain b says: the gateway of b can't take it in now: there is no room") {
			t.Errorf("trouble: it tells %+v", e)
		}
		if e := a.until(p.Handle, adapters.Lost); !e.NotRun || !strings.Contains(e.Reason, "there is no room") {
			t.Errorf("trouble: it ended so: %+v", e)
		}
		b.jobs.mu.Lock()
		b.jobs.trouble = nil
		b.jobs.mu.Unlock()
		p = a.give("b", "j3-1", "queue")
		a.until(p.Handle, adapters.Queued)
		if err := a.Site("b").(adapters.Recaller).Recall(t.Context(), []adapters.Handle{p.Handle}, "")[0]; err != nil {
			t.Fatal(err)
		}
		if e := a.until(p.Handle, adapters.Lost); !e.NotRun {
			t.Errorf("recalled: it ended so: %+v", e)
		}
	}, "a", "b")
}

// TestReasonIsTold: what a job waits for at a peer is seen at its origin, through a domain
// between them too.
func TestReasonIsTold(t *testing.T) {
	pair(t, func(t *testing.T, w *world) {
		a, b := w.gates["a"], w.gates["b"]
		b.jobs.mu.Lock()
		b.jobs.waitsFor = "the nodes are all in use"
		b.jobs.mu.Unlock()
		p := a.give("b", "j1-1", "queue")
		told := func(want string) {
			t.Helper()
			time.Sleep(2 * time.Minute)
			if e := a.look(p.Handle); e.Phase != adapters.Queued || e.Reason != want {
				t.Errorf("it tells %+v", e)
			}
		}
		told("the domain b says: the nodes are all in use")
		b.jobs.mu.Lock()
		b.jobs.waitsFor = "the nodes are\n" + strings.Repeat("in use ", 1000)
		b.jobs.mu.Unlock()
		told("the domain b says: " + handover.Short(b.jobs.waitsFor))
	}, "a", "b")
}

// TestStartThatComesLate: the broker's write is on the way when its answer is lost, and the job
// is recalled meanwhile: it is given back only when it is certain that it never starts.
func TestStartThatComesLate(t *testing.T) {
	pair(t, func(t *testing.T, w *world) {
		a, b := w.gates["a"], w.gates["b"]
		var lost atomic.Bool
		b.jobs.mu.Lock()
		b.jobs.trouble = func(string) error {
			if lost.Swap(true) {
				return nil
			}
			return fail.Errorf("test", fail.Uncertain, "", "the answer was lost")
		}
		b.jobs.mu.Unlock()
		p := a.give("b", "j1-1", "sleep 1h")
		key := handover.Key{Origin: "a", ID: "j1"}
		e := b.engine()
		e.mu.Lock()
		x := e.jobs[key]
		g := x.given()
		x.worker.timer.Stop() // it is not tried again before
		e.mu.Unlock()
		if errs := a.Site("b").Cancel(t.Context(), []adapters.Handle{p.Handle}); errs[0] != nil {
			t.Fatal(errs)
		}
		a.until(p.Handle, adapters.Cancelled)
		g.Document = "fake:sleep 1h<"
		if st, err := b.jobs.start(g); err != nil || st.Status != handover.IsReturned { // the write that was on the way
			t.Errorf("it is %+v, %v", st, err)
		}
	}, "a", "b")
}

// TestBrokersRefused: sites of a peer do not run the job for its account.
func TestBrokersRefused(t *testing.T) {
	denied := fail.Errorf("test", fail.Denied, "", "the account guest can't run anything here")
	down := fail.Errorf("test", fail.Unavailable, "", "the daemon does not answer")
	for _, c := range []struct {
		name  string
		err   error
		fault func(tries int64) error
	}{
		{"for good", denied, func(int64) error { return denied }},
		{"for ever, as it says for now", down, func(int64) error { return down }},
	} {
		t.Run(c.name, func(t *testing.T) {
			street(t, []int{4, 4, 4}, func(t *testing.T, _ *world, hs []*house) {
				a, b, other := hs[0], hs[1], hs[2]
				var tries atomic.Int64
				a.world.Inject(func(op string, _ adapters.Tag) fake.Fault {
					if op == "submit" {
						return fake.Fault{Err: c.fault(tries.Add(1))}
					}
					return fake.Fault{}
				})
				// With another place to go to, it goes there, whichever comes first.
				var jobs []soap.EPR
				for range 10 {
					jobs = append(jobs, b.submit(t, "sleep 60", "a", "c"))
				}
				for _, j := range jobs {
					b.await(t, j, bes.Finished, "")
				}
				if n := other.starts(); n != 10 {
					t.Errorf("%d ran at c", n)
				}
				tries.Store(0)
				alone := b.submit(t, "sleep 60", "a")
				if errors.Is(c.err, denied) {
					if s := b.await(t, alone, bes.Failed, ""); !strings.Contains(s.Details.Reason, "the account guest can't run anything here") || tries.Load() != 1 {
						t.Errorf("after %d tries it is told %q", tries.Load(), s.Details.Reason)
					}
					return
				}
				// It is told why it waits, and runs once it can.
				for range 30 {
					time.Sleep(time.Minute)
					if s := b.status(t, alone); !strings.Contains(s.Details.Reason, "daemon does not") {
						t.Logf("%s: %s", time.Now(), s.Details.Reason)
						for _, st := range a.states() {
							t.Logf("   there: %+v", st)
						}
					}
				}
				s := b.status(t, alone)
				if s.State.Final() || !strings.Contains(b.story(t, alone), "the daemon does not answer") {
					t.Errorf("it is %s: %s\n%s", s.State, s.Details.Reason, b.story(t, alone))
				}
				if n := strings.Count(b.story(t, alone), "gave it back"); n < 3 || n > 60 {
					t.Errorf("it was given back %d times\n%s", n, b.story(t, alone))
				}
				a.world.Inject(nil)
				b.await(t, alone, bes.Finished, "")
			})
		})
	}
}

// TestDeadline: that of a job of our own goes with its route, and on from hop to hop.
func TestDeadline(t *testing.T) {
	pair(t, func(t *testing.T, w *world) {
		a, b, c := w.gates["a"], w.gates["b"], w.gates["c"]
		b.jobs.onward = func(activity string, _ Given) bool {
			w.bg.Go(func() { b.follow("c", activity, "sleep 1m") })
			return true
		}
		at := time.Now().Add(time.Hour).UTC()
		d := definition("sleep 1m")
		d.Description.Resources = &jsdl.Resources{Placement: &jsdl.Placement{Deadline: &at}}
		p := a.Site("b").Submit(t.Context(), []adapters.Job{{Tag: "j1-1", Definition: d, Owner: "ada"}})[0]
		if p.Err != nil {
			t.Fatal(p.Err)
		}
		a.until(p.Handle, adapters.Exited)
		for _, g := range []*gate{b, c} {
			n := 0
			g.jobs.mu.Lock()
			for _, j := range g.jobs.jobs {
				if n++; !j.g.Deadline.Equal(at) {
					t.Errorf("%s has it with the deadline %s", g.domain, j.g.Deadline)
				}
			}
			g.jobs.mu.Unlock()
			if n != 1 {
				t.Errorf("%s has %d jobs", g.domain, n)
			}
		}
	}, "a", "b", "c")
}

// TestForeignNames: nobody can take the name of a copy.
func TestForeignNames(t *testing.T) {
	street(t, []int{1, 1}, func(t *testing.T, _ *world, hs []*house) {
		_, err := hs[1].broker.CreateActivity(as("guest-of-a"), &bes.CreateActivityRequest{Document: document("exit 0"), SubmissionID: "peer:a/j1#1"})
		if !fail.Is(err, fail.Invalid) || !strings.Contains(fail.Sentence(err), "choose another") {
			t.Errorf("it is answered with %v", err)
		}
	})
}

func (h *house) states() (out []string) {
	h.Engine.mu.Lock()
	var ids []string
	for id := range h.Engine.acts {
		ids = append(ids, id)
	}
	h.Engine.mu.Unlock()
	all, _ := h.broker.ForeignStates(context.Background(), ids...)
	for _, s := range all {
		out = append(out, string(s.Phase)+": "+s.Reason)
	}
	for _, r := range h.broker.ForeignReasons(ids...) {
		out = append(out, "why: "+r.Sentence)
	}
	return out
}

// TestOutputBeforeItIsTakenIn: who reads the output of a job that the peer took, and has not handed to its own broker
// yet, reads nothing, and no refusal.
func TestOutputBeforeItIsTakenIn(t *testing.T) {
	pair(t, func(t *testing.T, w *world) {
		a, b := w.gates["a"], w.gates["b"]
		b.jobs.mu.Lock()
		b.jobs.trouble = func(string) error { return fail.Errorf("test", fail.NotAccepting, "", "not now") }
		b.jobs.mu.Unlock()
		p := a.give("b", "j1-1", "sleep 60; exit 0")
		if p.Err != nil {
			t.Fatal(p.Err)
		}
		time.Sleep(time.Second)
		if got := a.read(t, p.Handle, 0); got != "" {
			t.Errorf("%q", got)
		}
		b.jobs.mu.Lock()
		b.jobs.trouble = nil
		b.jobs.mu.Unlock()
		a.until(p.Handle, adapters.Exited)
		b.jobs.mu.Lock()
		for _, j := range b.jobs.jobs {
			b.jobs.outputs[j.st.Activity+" stdout"] = "hello"
		}
		b.jobs.mu.Unlock()
		if got := a.read(t, p.Handle, 0); got != "hello" {
			t.Errorf("%q", got)
		}
	}, "a", "b")
}
