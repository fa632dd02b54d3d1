package broker

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
)

func TestHoldAtTheSite(t *testing.T) {
	for _, o := range []fake.Options{{}, {NoSuspend: true}, {NoPush: true}} {
		bubble(t, func(t *testing.T) {
			w := fake.NewWorld(1)
			g := here(t, w, o)
			runs, waits, behind := g.submit("sleep 100"), g.submit("exit 0"), g.submit("exit 0")
			g.until(runs, bes.Running, "Executing")
			g.until(waits, bes.Running, "Submitted")
			if err := one1(g.SuspendActivities(as("ada"), []soap.EPR{waits})); err != nil {
				t.Fatal(err)
			}
			if s := g.until(waits, bes.Running, "HeldAtSite"); s.Details.Reason != "held at the site here, as was asked" {
				t.Errorf("reason %q", s.Details.Reason)
			}
			err := one1(g.SuspendActivities(as("ada"), []soap.EPR{runs}))
			if o.NoSuspend != fail.Is(err, fail.Unsupported) {
				t.Errorf("%+v: suspending what runs: %v", o, err)
			}
			if !o.NoSuspend {
				g.until(runs, bes.Running, "Suspended")
				if err := one1(g.ResumeActivities(as("ada"), []soap.EPR{runs})); err != nil {
					t.Fatal(err)
				}
			}
			g.until(runs, bes.Finished, "")
			g.until(behind, bes.Finished, "")
			time.Sleep(time.Hour)
			if s := g.status(waits); s.State != bes.Running || s.SubStates[0].Local != "HeldAtSite" {
				t.Errorf("an hour later: %v", s)
			}
			if err := one1(g.ResumeActivities(as("ada"), []soap.EPR{waits})); err != nil {
				t.Fatal(err)
			}
			g.until(waits, bes.Finished, "")
		})
	}
}

// The manager itself held the job: the reason is told, and resuming releases it.
func TestHeldByTheManager(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := here(t, fake.NewWorld(1), fake.Options{})
		e := g.submit("hold its input is missing; exit 0")
		if s := g.until(e, bes.Running, "HeldAtSite"); s.Details.Reason != "its input is missing" {
			t.Errorf("reason %q", s.Details.Reason)
		}
		if !strings.Contains(g.story(e), "held here#1 its input is missing") {
			t.Errorf("history:\n%s", g.story(e))
		}
		if err := one1(g.ResumeActivities(as("ada"), []soap.EPR{e})); err != nil {
			t.Fatal(err)
		}
		g.until(e, bes.Finished, "")
	})
}

// stubborn holds again what it releases.
type stubborn struct{ adapters.Adapter }

func (s stubborn) Hold(ctx context.Context, hs []adapters.Handle) []error {
	return s.Adapter.(adapters.Holder).Hold(ctx, hs)
}

func (s stubborn) Release(_ context.Context, hs []adapters.Handle) []error {
	return make([]error, len(hs))
}

// A job that the manager holds again after it was released is shown as held.
func TestHeldAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := fake.NewWorld(1)
		g := here(t, w, fake.Options{}, func(c *Config) { c.Sites[0].Adapter = stubborn{w.Open(fake.Options{NoPush: true})} })
		e := g.submit("hold its input is missing; exit 0")
		g.until(e, bes.Running, "HeldAtSite")
		if err := one1(g.ResumeActivities(as("ada"), []soap.EPR{e})); err != nil {
			t.Fatal(err)
		}
		g.until(e, bes.Running, "Suspended")
		if s := g.until(e, bes.Running, "HeldAtSite"); s.Details.Reason != "its input is missing" {
			t.Errorf("reason %q", s.Details.Reason)
		}
	})
}

// A site that can't hold suspends what was to wait when it starts; one that can
// only hold says that it came too late.
func TestSuspendComesLate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := fake.NewWorld(1)
		g := here(t, w, fake.Options{NoHold: true})
		runs, waits := g.submit("sleep 100"), g.submit("sleep 100; exit 0")
		g.until(runs, bes.Running, "Executing")
		g.until(waits, bes.Running, "Submitted")
		if err := one1(g.SuspendActivities(as("ada"), []soap.EPR{waits})); err != nil {
			t.Fatal(err)
		}
		g.until(runs, bes.Finished, "")
		g.until(waits, bes.Running, "Suspended")
		if err := one1(g.ResumeActivities(as("ada"), []soap.EPR{waits})); err != nil {
			t.Fatal(err)
		}
		g.until(waits, bes.Finished, "")
	})
	bubble(t, func(t *testing.T) {
		w := fake.NewWorld(1)
		var once sync.Once
		w.Inject(func(op string, _ adapters.Tag) fake.Fault {
			if op == "hold" {
				once.Do(func() { _ = w.Finish(first(w), 0) }) // the one behind starts
			}
			return fake.Fault{}
		})
		g := here(t, w, fake.Options{NoSuspend: true})
		runs, waits := g.submit("hang"), g.submit("sleep 100; exit 0")
		g.until(runs, bes.Running, "Executing")
		g.until(waits, bes.Running, "Submitted")
		if err := one1(g.SuspendActivities(as("ada"), []soap.EPR{waits})); err != nil {
			t.Fatal(err)
		}
		g.until(waits, bes.Finished, "")
		if h := g.story(waits); !strings.Contains(h, "unable here#1 the site here could not keep it from running") {
			t.Errorf("history:\n%s", h)
		}
	})
}

// first gives the tag of the job that runs.
func first(w *fake.World) adapters.Tag {
	for tag, n := range w.Ledger() {
		if n > 0 {
			return tag
		}
	}
	return ""
}

func TestWhatSitesTell(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var writes atomic.Int32
		w := fake.NewWorld(1)
		st := newStore(t)
		g := here(t, w, fake.Options{}, func(c *Config) {
			c.Store = st
			c.Hooks.Committed = func(n int, _ time.Duration) { writes.Add(int32(n)) }
		})
		e := g.submit("hosts node1 node2; attribute Universe vanilla; hang")
		s := g.until(e, bes.Running, "Executing")
		tag := w.Tags()[0]
		synctest.Wait()
		before := writes.Load()
		for i := range 100 { // of 9 s in all
			if err := w.Tell(tag, func(ev *adapters.Evidence) {
				ev.Progress, ev.Usage = float64(i)/200, adapters.Usage{CPU: time.Duration(i) * time.Second, Memory: 4096}
			}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(90 * time.Millisecond)
		}
		synctest.Wait()
		if n := writes.Load() - before; n > 1 {
			t.Errorf("a hundred changes of the progress cost %d writes", n)
		}
		s = g.status(e)
		if d := s.Details; d.Progress != 0.495 || d.Usage.CPU != 99*time.Second || d.Usage.Memory != 4096 || len(d.Hosts) != 2 || d.Attributes["Universe"] != "vanilla" {
			t.Errorf("%+v", d)
		}
		// Whoever waits for news hears of it, now and then.
		time.Sleep(10 * time.Second)
		_ = w.Tell(tag, func(ev *adapters.Evidence) { ev.Progress = 0.75 })
		rs, err := g.GetActivityStatuses(as("ada"), &bes.StatusRequest{Activities: []soap.EPR{e}, Wait: time.Minute, After: s.Details.Revision})
		if err != nil || rs[0].Status.Details.Progress != 0.75 || rs[0].Status.Details.Revision == s.Details.Revision {
			t.Errorf("%v %+v", err, rs[0].Status.Details)
		}
		// What is written stays when the job ends.
		_ = w.Finish(tag, 0)
		s = g.until(e, bes.Finished, "")
		if d := s.Details; d.Usage.Memory != 4096 || len(d.Hosts) != 2 {
			t.Errorf("%+v", d)
		}
	})
}

func TestToldIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := &adapters.Evidence{
			Progress: rapid.Float64().Draw(t, "progress"), Hosts: rapid.SliceOf(rapid.String()).Draw(t, "hosts"),
			Usage:      adapters.Usage{CPU: time.Duration(rapid.Int64().Draw(t, "cpu")), Memory: rapid.Int64().Draw(t, "memory")},
			Attributes: rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "attributes"),
		}
		for range rapid.IntRange(0, 3).Draw(t, "many") {
			for range 100 {
				e.Hosts = append(e.Hosts, "h"+rapid.StringN(0, 300, 400).Draw(t, "host"))
			}
		}
		e.Attributes["long"] = strings.Repeat("x", rapid.SampledFrom([]int{0, 1000, 1025, 1 << 20}).Draw(t, "long"))
		got := told(e)
		if got == nil {
			return
		}
		size := 0
		for k, v := range got.Attributes {
			size += len(k) + len(v)
		}
		// An invalid byte takes three when it is replaced.
		if got.Progress < 0 || got.Progress > 1 || len(got.Hosts) > maxHosts || got.CPU < 0 || got.Memory < 0 || size > 3*maxAttrs || len(got.Attributes) > adapters.MaxAttributes {
			t.Fatalf("%+v", got)
		}
		if again := merge(got, got); again != got {
			t.Fatal("nothing new makes another record")
		}
	})
}

// spying shows the jobs that are handed over.
type spying struct {
	adapters.Adapter
	spy func([]adapters.Job)
}

func (s spying) Submit(ctx context.Context, jobs []adapters.Job) []adapters.Placed {
	s.spy(jobs)
	return s.Adapter.Submit(ctx, jobs)
}

// Jobs that arrive together are handed over together; one that comes alone does
// not wait.
func TestBatches(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := fake.NewWorld(10)
		var sizes []int
		var mu sync.Mutex
		g := here(t, w, fake.Options{Bulk: true}, func(c *Config) {
			c.Hooks.Placed = func(_ string, jobs int, _ time.Duration) {
				mu.Lock()
				defer mu.Unlock()
				sizes = append(sizes, jobs)
			}
		})
		began := time.Now()
		g.until(g.submit("exit 0"), bes.Finished, "")
		if d := time.Since(began); d != 0 {
			t.Errorf("a lone job took %v", d)
		}
		synctest.Wait()
		mu.Lock()
		sizes = nil
		mu.Unlock()
		const n = 5000
		es := make([]soap.EPR, n)
		var all sync.WaitGroup
		for k := range 50 {
			all.Go(func() {
				for i := k; i < n; i += 50 {
					es[i] = g.submit("sleep 1")
				}
			})
		}
		all.Wait()
		synctest.Wait()
		// All are at the site, far beyond its slots, in few calls.
		if s := g.site("here"); s.Live < n-20 {
			t.Errorf("%d of %d are at the site", s.Live, n)
		}
		mu.Lock()
		t.Logf("batches: %v", sizes)
		if len(sizes) > n/20 {
			t.Errorf("%d jobs took %d calls", n, len(sizes))
		}
		mu.Unlock()
		for _, e := range es {
			g.until(e, bes.Finished, "")
		}
	})
}

func TestMaxJobs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := fake.NewWorld(2)
		g := here(t, w, fake.Options{Bulk: true, MaxJobs: 5})
		var es []soap.EPR
		for range 20 {
			es = append(es, g.submit("sleep 10"))
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := len(w.Tags()); n != 5 {
			t.Errorf("%d were placed", n)
		}
		for _, e := range es {
			g.until(e, bes.Finished, "")
		}
	})
}

// The local account of a job is the one that its owner is mapped to.
func TestAccounts(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := fake.NewWorld(2)
		var mu sync.Mutex
		got := map[string]string{}
		spy := func(jobs []adapters.Job) {
			mu.Lock()
			defer mu.Unlock()
			for _, j := range jobs {
				got[j.Owner] = j.Account
			}
		}
		g := here(t, w, fake.Options{}, func(c *Config) {
			c.Sites[0].Adapter = spying{w.Open(fake.Options{NoPush: true}), spy}
			c.Sites[0].Accounts, c.Sites[0].AccountDefault = map[string]string{"ada": "lovelace"}, "guest"
		})
		for _, who := range []string{"ada", "bob"} {
			r, err := g.CreateActivity(as(who), &bes.CreateActivityRequest{Document: document("exit 0")})
			if err != nil {
				t.Fatal(err)
			}
			for {
				rs, err := g.GetActivityStatuses(as(who), &bes.StatusRequest{Activities: []soap.EPR{r.Activity}})
				if err != nil {
					t.Fatal(err)
				}
				if rs[0].Status.State.Final() {
					break
				}
				time.Sleep(time.Second)
			}
		}
		if got["ada"] != "lovelace" || got["bob"] != "guest" {
			t.Errorf("%v", got)
		}
	})
}
