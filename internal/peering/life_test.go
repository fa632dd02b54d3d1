package peering

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/wire"
)

// pair runs f in a world of domains that are connected in a row.
func pair(t *testing.T, f func(t *testing.T, w *world), domains ...string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, domains...)
		for _, d := range domains {
			w.gates[d].start()
		}
		for i := range domains[1:] {
			w.connect(domains[i], domains[i+1])
		}
		defer w.close()
		f(t, w)
	})
}

func TestForwardRunEnd(t *testing.T) {
	pair(t, func(t *testing.T, w *world) {
		a, b := w.gates["a"], w.gates["b"]
		p := a.give("b", "j1-1", "sleep 5m;exit 3")
		if p.Err != nil {
			t.Fatal(p.Err)
		}
		key := handover.Key{Origin: "a", ID: "j1"}
		e := a.until(p.Handle, adapters.Running)
		if e.Attributes["path"] != "b@2000-01-01T00:00:00Z" || e.Attributes["peer.site"] != "local" || e.Started.IsZero() {
			t.Errorf("it tells %v", e)
		}
		if again := a.give("b", "j1-1", "sleep 5m;exit 3"); again.Err != nil || string(again.Handle) != string(p.Handle) {
			t.Errorf("submitted again it is %v", again)
		}
		if found, err := a.Site("b").Find(t.Context(), []adapters.Tag{"j1-1", "j2-1"}); err != nil || len(found) != 1 || string(found["j1-1"]) != string(p.Handle) {
			t.Errorf("found %v, %v", found, err)
		}
		e = a.until(p.Handle, adapters.Exited)
		if *e.ExitStatus != 3 || e.Usage.CPU < 5*time.Minute {
			t.Errorf("it ended so: %+v", e)
		}
		if n := b.jobs.runs(key); n != 1 {
			t.Errorf("it ran %d times", n)
		}
		time.Sleep(time.Minute)
		b.book.mu.Lock()
		if len(b.book.earned) != 1 || b.book.earned[0].Used < 5*handover.CPUHour/60 {
			t.Errorf("the ledgers do not tell of it: %v", b.book.earned)
		}
		b.book.mu.Unlock()
		if !a.book.Owes("b", key, "1") {
			t.Error("nothing is owed")
		}
		// Its record goes with the broker's; here there is none.
		time.Sleep(2 * time.Hour)
		if e := a.look(p.Handle); e.Phase != adapters.Lost {
			t.Errorf("it is kept: %+v", e)
		}
		time.Sleep(3 * time.Hour)
		left := records(t, b.store, jobPrefix) + records(t, b.store, freightPrefix) + records(t, a.store, "peers/jobs") + records(t, a.store, freightPrefix)
		if left != 0 || records(t, b.store, keptPrefix) != 1 {
			t.Errorf("%d records are left, and %d of output", left, records(t, b.store, keptPrefix))
		}
		// Its output can be read still.
		b.jobs.mu.Lock()
		for _, j := range b.jobs.jobs {
			b.jobs.outputs[j.st.Activity+" stdout"] = strings.Repeat("0123456789", 100_000)
		}
		b.jobs.mu.Unlock()
		if got := a.read(t, p.Handle, 7); len(got) != 1_000_000-7 || got[:3] != "789" {
			t.Errorf("%d bytes of output, %q", len(got), got[:3])
		}
		time.Sleep(8 * 24 * time.Hour)
		if n := records(t, b.store, keptPrefix); n != 0 {
			t.Errorf("%d records of output are left", n)
		}
		if _, err := a.Site("b").Output(t.Context(), p.Handle, adapters.Stdout, 0); !fail.Is(err, fail.NotFound) {
			t.Errorf("its output: %v", err)
		}
	}, "a", "b")
}

func (g *gate) read(t *testing.T, h adapters.Handle, offset int64) string {
	t.Helper()
	r, err := g.Site("b").Output(t.Context(), h, adapters.Stdout, offset)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(got)
}

func records(t *testing.T, s Store, prefix string) int {
	t.Helper()
	rs, _, err := s.ListRecords(t.Context(), prefix, store.RecordOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return len(rs)
}

func TestRefusals(t *testing.T) {
	pair(t, func(t *testing.T, w *world) {
		a, b := w.gates["a"], w.gates["b"]
		for kind, want := range map[fail.Kind]fail.Kind{
			fail.Denied: fail.Denied, fail.Unsupported: fail.Unsupported, fail.NotAccepting: fail.Unavailable, fail.Exhausted: fail.Exhausted, fail.Internal: fail.Unavailable,
		} {
			b.refuse = func(string, *wire.Route) error {
				return fail.Errorf("test", kind, "", "there is no room for it")
			}
			p := a.give("b", "j"+strings.ReplaceAll(kind.String(), " ", "")+"-1", "sleep 5m")
			if !fail.Is(p.Err, want) || !strings.Contains(fail.Sentence(p.Err), "there is no room for it") {
				t.Errorf("refused as %v it is %v", kind, p.Err)
			}
		}
		// The same job may be given again, under a higher token.
		b.refuse = nil
		p := a.give("b", "jdenied-2", "sleep 1s")
		if p.Err != nil {
			t.Fatal(p.Err)
		}
		a.until(p.Handle, adapters.Exited)
		// What the broker there can't run comes back.
		p = a.give("b", "unfit-1", "unfit")
		if p.Err != nil {
			t.Fatal(p.Err)
		}
		if e := a.until(p.Handle, adapters.Stopped); !e.NotRun || !strings.Contains(e.Reason, "no site can run it") {
			t.Errorf("it is %+v", e)
		}
		// A document that is not that of its digest.
		v := b.admit("a", &wire.Route{About: wire.About{Origin: "a", ID: "x", Token: "1"}, Document: "<a/>", Digest: digestOf("<b/>", "", time.Time{})}, 0)
		if !fail.Is(v.err, fail.Invalid) {
			t.Errorf("a wrong digest: %v", v.err)
		}
		if p := a.give("c", "j9-1", "sleep 1s"); !fail.Is(p.Err, fail.Unavailable) {
			t.Errorf("no session: %v", p.Err)
		}
	}, "a", "b")
}

func TestCancel(t *testing.T) {
	for _, script := range []string{"queue", "hang", "sleep 1s"} {
		pair(t, func(t *testing.T, w *world) {
			a := w.gates["a"]
			p := a.give("b", "j1-1", script)
			if p.Err != nil {
				t.Fatal(p.Err)
			}
			time.Sleep(200 * time.Millisecond)
			if errs := a.Site("b").Cancel(t.Context(), []adapters.Handle{p.Handle}); errs[0] != nil {
				t.Fatal(errs[0])
			}
			e := a.until(p.Handle, adapters.Cancelled)
			if e.NotRun != (script == "queue") {
				t.Errorf("%s: %+v", script, e)
			}
			if err := a.Site("b").Forget(t.Context(), p.Handle); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Hour)
			if a.look(p.Handle).Phase != adapters.Lost || records(t, a.store, jobPrefix) != 0 {
				t.Error("it is kept")
			}
		}, "a", "b")
	}
}

// TestCancelBeforeItCame: the route is lost, and the peer hears of the cancel first.
func TestCancelBeforeItCame(t *testing.T) {
	pair(t, func(t *testing.T, w *world) {
		a, b := w.gates["a"], w.gates["b"]
		b.refuse = func(string, *wire.Route) error { time.Sleep(20 * time.Second); return nil }
		p := a.give("b", "j1-1", "hang")
		if p.Err != nil {
			t.Fatal(p.Err)
		}
		if errs := a.Site("b").Cancel(t.Context(), []adapters.Handle{p.Handle}); errs[0] != nil {
			t.Fatal(errs[0])
		}
		a.until(p.Handle, adapters.Cancelled)
		time.Sleep(time.Hour)
		if n := b.jobs.runs(handover.Key{Origin: "a", ID: "j1"}); n > 1 {
			t.Errorf("it ran %d times", n)
		}
		b.jobs.mu.Lock()
		defer b.jobs.mu.Unlock()
		for _, j := range b.jobs.jobs {
			if j.st.Status == handover.IsRunning {
				t.Error("it runs")
			}
		}
	}, "a", "b")
}

func TestSuspendResume(t *testing.T) {
	pair(t, func(t *testing.T, w *world) {
		a := w.gates["a"]
		site := a.Site("b").(*site)
		p := a.give("b", "j1-1", "sleep 5m")
		q := a.give("b", "j2-1", "queue;sleep 5m")
		if p.Err != nil || q.Err != nil {
			t.Fatal(p.Err, q.Err)
		}
		a.until(p.Handle, adapters.Running)
		if errs := site.Hold(t.Context(), []adapters.Handle{p.Handle, q.Handle}); !fail.Is(errs[0], fail.Conflict) || errs[1] != nil {
			t.Fatal(errs)
		}
		a.until(q.Handle, adapters.Held)
		if errs := site.Suspend(t.Context(), []adapters.Handle{p.Handle}); errs[0] != nil {
			t.Fatal(errs)
		}
		a.until(p.Handle, adapters.Suspended)
		time.Sleep(time.Hour) // it is kept by its leases, and does not go on
		if e := a.look(p.Handle); e.Phase != adapters.Suspended {
			t.Fatalf("it is %v", e)
		}
		if errs := site.Resume(t.Context(), []adapters.Handle{p.Handle}); errs[0] != nil {
			t.Fatal(errs)
		}
		if errs := site.Release(t.Context(), []adapters.Handle{q.Handle}); errs[0] != nil {
			t.Fatal(errs)
		}
		a.until(p.Handle, adapters.Running)
		a.until(p.Handle, adapters.Exited)
		a.until(q.Handle, adapters.Queued)
	}, "a", "b")
}

// onward has the broker of a domain place what it is given at a peer.
func (g *gate) onward(to, script string) {
	g.jobs.onward = func(activity string, _ Given) bool {
		g.w.bg.Go(func() { g.follow(to, activity, script) })
		return true
	}
}

// follow places a job at a peer and hears what becomes of it.
func (g *gate) follow(to, activity, script string) {
	var h adapters.Handle
	n := 0
	for last := adapters.Unknown; !last.Final(); {
		select {
		case <-g.w.quit:
			return
		case <-time.After(50 * time.Millisecond):
		}
		e := g.engine()
		if e == nil {
			continue
		}
		if h == nil {
			n++
			tag := fmt.Sprintf("%s-%d", activity, n)
			p := g.give(to, tag, script)
			if permanentErr(p.Err) {
				g.jobs.became(activity, adapters.Evidence{Phase: adapters.Lost})
				return
			}
			if h = p.Handle; h == nil && adapters.ClassOf(p.Err) == adapters.Doubtful {
				h = g.find(to, adapters.Tag(tag))
			}
			continue
		}
		if es, err := e.status([]adapters.Handle{h}); err == nil && es[0].Phase != last {
			last = es[0].Phase
			g.jobs.became(activity, es[0])
		}
	}
}

func permanentErr(err error) bool { return adapters.ClassOf(err) == adapters.Permanent }

func TestTwoHops(t *testing.T) {
	pair(t, func(t *testing.T, w *world) {
		a, b, c := w.gates["a"], w.gates["b"], w.gates["c"]
		b.onward("c", "sleep 20m;exit 7")
		p := a.give("b", "j1-1", "sleep 20m;exit 7")
		if p.Err != nil {
			t.Fatal(p.Err)
		}
		e := a.until(p.Handle, adapters.Running)
		if !strings.HasPrefix(e.Attributes["path"], "b@2000-01-01T00:00:00Z > c") || e.Attributes["peer.site"] != "local" {
			t.Errorf("it tells %v", e.Attributes)
		}
		if e = a.until(p.Handle, adapters.Exited); *e.ExitStatus != 7 {
			t.Errorf("it ended so: %+v", e)
		}
		key := handover.Key{Origin: "a", ID: "j1"}
		if b.jobs.runs(key) != 0 || c.jobs.runs(key) != 1 {
			t.Errorf("it ran %d times at b and %d at c", b.jobs.runs(key), c.jobs.runs(key))
		}
		c.jobs.mu.Lock()
		defer c.jobs.mu.Unlock()
		for _, j := range c.jobs.jobs {
			if g := j.g; g.From != "b" || strings.Join(g.Path, ">") != "a>b" || g.Hops != 1 || g.Trace != broker.TraceID(&store.Job{ID: "j1"}) {
				t.Errorf("it came so: %+v", g)
			}
		}
	}, "a", "b", "c")
}

func TestCancelOverTwoHops(t *testing.T) {
	pair(t, func(t *testing.T, w *world) {
		a, b, c := w.gates["a"], w.gates["b"], w.gates["c"]
		b.onward("c", "hang")
		p := a.give("b", "j1-1", "hang")
		a.until(p.Handle, adapters.Running)
		if errs := a.Site("b").Cancel(t.Context(), []adapters.Handle{p.Handle}); errs[0] != nil {
			t.Fatal(errs[0])
		}
		a.until(p.Handle, adapters.Cancelled)
		c.jobs.mu.Lock()
		defer c.jobs.mu.Unlock()
		for _, j := range c.jobs.jobs {
			if j.st.Status != handover.IsReturned {
				t.Errorf("it is %s at c", j.st.Status)
			}
		}
	}, "a", "b", "c")
}

// TestLoopRefused: c would give it back to a, through which it came.
func TestLoopRefused(t *testing.T) {
	pair(t, func(t *testing.T, w *world) {
		w.connect("c", "a")
		a, b, c := w.gates["a"], w.gates["b"], w.gates["c"]
		b.onward("c", "sleep 1m")
		c.onward("a", "sleep 1m")
		p := a.give("b", "j1-1", "sleep 1m")
		a.until(p.Handle, adapters.Exited)
		if n := c.jobs.runs(handover.Key{Origin: "a", ID: "j1"}); n != 1 {
			t.Errorf("it ran %d times at c, which must not give it on", n)
		}
		if len(a.jobs.jobs) != 0 {
			t.Error("it came back")
		}
	}, "a", "b", "c")
}

// TestPartition: the peer is away beyond the recall deadline. Its copy is dead then, to the
// second and not before; when it returns it starts none.
func TestPartition(t *testing.T) {
	for _, script := range []string{"hang", "queue"} {
		pair(t, func(t *testing.T, w *world) {
			a, b := w.gates["a"], w.gates["b"]
			p := a.give("b", "j1-1", script)
			if p.Err != nil {
				t.Fatal(p.Err)
			}
			time.Sleep(21 * time.Minute) // it is renewed
			if e := a.look(p.Handle); e.Phase.Final() {
				t.Fatalf("it is %+v", e)
			}
			w.lose("a", "b")
			a.mu.Lock()
			at, _ := a.jobsOf("j1").job.ElsewhereAt()
			a.mu.Unlock()
			if q := a.give("b", "j1-2", script); !fail.Is(q.Err, fail.Unavailable) {
				t.Errorf("given again meanwhile it is %v", q.Err)
			}
			time.Sleep(time.Until(at) - time.Millisecond)
			if e := a.look(p.Handle); e.Phase.Final() {
				t.Fatalf("it is dead before its deadline: %+v", e)
			}
			// The copy ends before that, by the taker's own doing.
			b.jobs.mu.Lock()
			for _, j := range b.jobs.jobs {
				if j.st.Status != handover.IsEnded && j.st.Status != handover.IsReturned {
					t.Errorf("it is %s at b", j.st.Status)
				}
			}
			b.jobs.mu.Unlock()
			time.Sleep(20 * time.Millisecond)
			if e := a.look(p.Handle); e.Phase != adapters.Lost || e.NotRun || !strings.Contains(e.Reason, "recall deadline") {
				t.Fatalf("it is not dead after its deadline: %+v", e)
			}
			if err := a.Site("b").Forget(t.Context(), p.Handle); err != nil {
				t.Fatal(err)
			}
			before := b.jobs.runs(handover.Key{Origin: "a", ID: "j1"})
			w.open("a", "b")
			time.Sleep(2 * time.Hour)
			if n := b.jobs.runs(handover.Key{Origin: "a", ID: "j1"}); n != before {
				t.Errorf("it was started %d times after its return", n-before)
			}
			// Given there again it has another token, and runs.
			q := a.give("b", "j1-2", "sleep 1s")
			if q.Err != nil {
				t.Fatal(q.Err)
			}
			a.until(q.Handle, adapters.Exited)
		}, "a", "b")
	}
}

// jobsOf gives the entry of an own job.
func (e *Engine) jobsOf(id string) *entry { return e.jobs[handover.Key{Origin: e.o.Domain, ID: id}] }

// TestRestart: both engines are stopped and started again in the middle of jobs.
func TestRestart(t *testing.T) {
	pair(t, func(t *testing.T, w *world) {
		a, b := w.gates["a"], w.gates["b"]
		p := a.give("b", "j1-1", "sleep 30m")
		a.until(p.Handle, adapters.Running)
		for _, g := range []*gate{a, b, a} {
			g.stop()
			time.Sleep(2 * time.Minute)
			g.start()
			w.open("a", "b")
			time.Sleep(5 * time.Minute)
			if e := a.look(p.Handle); e.Phase != adapters.Running {
				t.Fatalf("it is %+v", e)
			}
		}
		a.until(p.Handle, adapters.Exited)
		if n := b.jobs.runs(handover.Key{Origin: "a", ID: "j1"}); n != 1 {
			t.Errorf("it ran %d times", n)
		}
	}, "a", "b")
}

// TestStandby: one replica is the engine; another takes over when it goes.
func TestStandby(t *testing.T) {
	pair(t, func(t *testing.T, w *world) {
		a := w.gates["a"]
		p := a.give("b", "j1-1", "sleep 30m")
		a.until(p.Handle, adapters.Running)
		e, err := New(Options{Domain: "a", Replica: "second", Store: a.store, Link: sender{w, "a"}, Jobs: a.jobs, Gate: a, Book: a.book})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- e.Run(ctx) }()
		time.Sleep(time.Minute)
		if _, err := e.status([]adapters.Handle{p.Handle}); !fail.Is(err, fail.Unavailable) || e.Site("b").Health().Problem == "" {
			t.Fatalf("the second is the engine too: %v", err)
		}
		a.stop()
		time.Sleep(time.Second)
		a.Engine, a.cancel, a.done = e, cancel, done
		w.open("a", "b")
		a.until(p.Handle, adapters.Exited)
	}, "a", "b")
}

// TestBackPressure: a session without room keeps nothing from coming in the end.
func TestBackPressure(t *testing.T) {
	pair(t, func(t *testing.T, w *world) {
		a := w.gates["a"]
		l := w.links[[2]string{"a", "b"}]
		l.busy = func() bool { return len(l.queue) > 2 }
		stop := make(chan struct{})
		go func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(50 * time.Millisecond):
					if e := a.engine(); e != nil {
						e.Free("b")
					}
				}
			}
		}()
		defer close(stop)
		var jobs []adapters.Job
		for i := range 300 {
			jobs = append(jobs, adapters.Job{Tag: adapters.Tag(fmt.Sprintf("j%d-1", i)), Definition: definition("sleep 1m"), Owner: "ada"})
		}
		for _, p := range a.Site("b").Submit(t.Context(), jobs) {
			if p.Err != nil {
				t.Fatal(p.Err)
			}
			a.until(p.Handle, adapters.Exited)
		}
	}, "a", "b")
}

// lateWatch listens to the broker only once a job was started again, and has ended.
type lateWatch struct {
	*brokerTwin
	once            sync.Once
	started, listed chan struct{}
}

func (l *lateWatch) Start(ctx context.Context, gs ...Given) []Started {
	out := l.brokerTwin.Start(ctx, gs...)
	l.once.Do(func() { close(l.started); <-l.listed })
	return out
}

func (l *lateWatch) Watch(ctx context.Context, emit func([]State)) error {
	<-l.started
	l.mu.Lock()
	var all []*twinJob
	for _, j := range l.jobs {
		all = append(all, j)
	}
	l.mu.Unlock()
	for _, j := range all {
		l.finish(j) // it ends before anybody listens
	}
	once := sync.OnceFunc(func() { close(l.listed) })
	return l.brokerTwin.Watch(ctx, func(s []State) {
		emit(s)
		if len(s) == 0 {
			once()
		}
	})
}

// TestEndedBeforeItIsWatched: the end of a peer's job is told though it comes between the answer to its start in a new
// term, which says that it runs, and the moment from which the broker tells of changes.
func TestEndedBeforeItIsWatched(t *testing.T) {
	pair(t, func(t *testing.T, w *world) {
		a, b := w.gates["a"], w.gates["b"]
		p := a.give("b", "j1-1", "hang")
		a.until(p.Handle, adapters.Running)
		b.stop()
		time.Sleep(time.Minute)
		serving := make(chan struct{})
		e, err := New(Options{
			Domain: "b", Store: b.store, Link: sender{w, "b"}, Jobs: &lateWatch{brokerTwin: b.jobs, started: make(chan struct{}), listed: make(chan struct{})}, Gate: b, Book: b.book,
			Serve: func(ctx context.Context, _ store.Session) error { close(serving); <-ctx.Done(); return nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		w.mu.Lock()
		b.Engine, b.cancel, b.done = e, cancel, done
		w.mu.Unlock()
		go func() { done <- e.Run(ctx) }()
		<-serving
		w.open("a", "b")
		time.Sleep(5 * time.Minute)
		if x := a.look(p.Handle); x.Phase != adapters.Exited {
			t.Errorf("five minutes after its end it is %v %s", x.Phase, x.Reason)
		}
	}, "a", "b")
}
