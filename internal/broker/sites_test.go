package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
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
	"github.com/portolan-project/portolan/internal/store"
)

// two gives a gateway with the sites here and there.
func two(t *testing.T, a, b *fake.World, o fake.Options, change ...func(*Config)) *gateway {
	t.Helper()
	t.Cleanup(b.Close)
	return here(t, a, o, append([]func(*Config){func(c *Config) {
		c.Sites = append(c.Sites, Site{Name: "there", Adapter: b.Open(o)})
	}}, change...)...)
}

// closing is an adapter that says when it was closed, and must not be used then.
type closing struct {
	adapters.Adapter
	closed *atomic.Bool
}

func (c closing) Close() error { c.closed.Store(true); return c.Adapter.Close() }

func (c closing) Watch(ctx context.Context, emit func([]adapters.Evidence)) error {
	return c.Adapter.(adapters.Watcher).Watch(ctx, emit)
}

func (g *gateway) site(name string) *SiteStatus {
	g.t.Helper()
	all, err := g.Sites(as("ada"))
	if err != nil {
		g.t.Fatal(err)
	}
	for i := range all {
		if all[i].Name == name {
			return &all[i]
		}
	}
	return nil
}

func opens(w *fake.World, o fake.Options) func() (adapters.Adapter, error) {
	return func() (adapters.Adapter, error) { return w.Open(o), nil }
}

func TestSiteIsAdded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := fake.NewWorld(2)
		t.Cleanup(w.Close)
		g := here(t, fake.NewWorld(1), fake.Options{})
		if _, err := g.CreateActivity(as("ada"), &bes.CreateActivityRequest{Document: document("exit 0", "there")}); !fail.Is(err, fail.Unsupported) {
			t.Fatalf("pinned to a site that is not there: %v", err)
		}
		if err := g.SetSite(Change{Name: "there", Open: opens(w, fake.Options{}), Accounts: map[string]string{"ada": "lovelace"}}); err != nil {
			t.Fatal(err)
		}
		if s := g.until(g.submit("exit 0", "there"), bes.Finished, ""); s.Details.Site != "there" {
			t.Errorf("it ran at %s", s.Details.Site)
		}
		s := g.site("there")
		if s == nil || s.State != SiteUp || s.Capacity.Slots != 2 || s.Properties.Type != "fake" || s.Evidence.IsZero() {
			t.Errorf("%+v", s)
		}
		// Sites that can't be opened are told, and have no jobs.
		broken := fail.Errorf("x", fail.Invalid, "", "its key is missing")
		if err := g.SetSite(Change{Name: "bad", Open: func() (adapters.Adapter, error) { return nil, broken }}); !errors.Is(err, broken) {
			t.Errorf("%v", err)
		}
		if s := g.site("bad"); s.State != SiteDown || !strings.Contains(s.Problem, "key is missing") {
			t.Errorf("%+v", s)
		}
		g.until(g.submit("exit 0"), bes.Finished, "")
	})
}

func TestSiteIsDrained(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := fake.NewWorld(4), fake.NewWorld(4)
		g := two(t, a, b, fake.Options{})
		e := g.submit("sleep 3600; out done", "here")
		g.until(e, bes.Running, "Executing")
		if err := g.DrainSite("here"); err != nil {
			t.Fatal(err)
		}
		if err := g.DrainSite("nowhere"); !fail.Is(err, fail.NotFound) {
			t.Errorf("%v", err)
		}
		for range 8 {
			if s := g.until(g.submit("exit 0"), bes.Finished, ""); s.Details.Site != "there" {
				t.Errorf("a site that is being drained was given a job")
			}
		}
		if s := g.site("here"); s.State != SiteDraining || s.Live != 1 || s.Jobs[Running] != 1 {
			t.Errorf("%+v", s)
		}
		g.until(e, bes.Finished, "")
		synctest.Wait()
		if s := g.site("here"); s != nil {
			t.Errorf("it is still there: %+v", s)
		}
		if _, err := g.GetActivityOutput(as("ada"), e, bes.Stdout, 0, 9); !fail.Is(err, fail.Unavailable) || !strings.Contains(fail.Sentence(err), "not configured") {
			t.Errorf("its output: %v", err)
		}
		// It may come back, with what it keeps.
		if err := g.SetSite(Change{Name: "here", Open: opens(a, fake.Options{})}); err != nil {
			t.Fatal(err)
		}
		if c, err := g.GetActivityOutput(as("ada"), e, bes.Stdout, 0, 9); err != nil || string(c.Data) != "done\n" {
			t.Errorf("its output: %v, %v", c, err)
		}
	})
}

// What was chosen for a site but not handed over goes elsewhere when it is drained.
func TestDrainBeforeItIsHandedOver(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := fake.NewWorld(0), fake.NewWorld(1)
		a.Inject(func(op string, _ adapters.Tag) fake.Fault {
			if op == "submit" {
				return fake.Fault{Delay: time.Minute}
			}
			return fake.Fault{}
		})
		g := two(t, a, b, fake.Options{MaxBatch: 1})
		var es []soap.EPR
		for range 5 {
			es = append(es, g.submit("exit 0"))
		}
		synctest.Wait()
		if err := g.DrainSite("here"); err != nil {
			t.Fatal(err)
		}
		for _, e := range es {
			g.until(e, bes.Finished, "")
		}
		if n := len(a.Ledger()); n != 1 {
			t.Errorf("%d were started at the site that was drained", n)
		}
	})
}

// A drained site is given jobs again without being opened anew.
func TestDrainIsUndone(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var closed atomic.Bool
		w := fake.NewWorld(1)
		t.Cleanup(w.Close)
		g := here(t, fake.NewWorld(1), fake.Options{}, func(c *Config) {
			c.Sites = append(c.Sites, Site{Name: "there", Adapter: closing{w.Open(fake.Options{}), &closed}})
		})
		e := g.submit("hang", "there")
		g.until(e, bes.Running, "Executing")
		if err := g.DrainSite("there"); err != nil {
			t.Fatal(err)
		}
		if err := g.SetSite(Change{Name: "there"}); err != nil {
			t.Fatal(err)
		}
		if s := g.site("there"); s.State != SiteUp || closed.Load() {
			t.Errorf("%+v, closed %v", s, closed.Load())
		}
		waits := g.submit("exit 0", "there")
		if err := one1(g.TerminateActivities(as("ada"), []soap.EPR{e})); err != nil {
			t.Fatal(err)
		}
		g.until(waits, bes.Finished, "")
	})
}

// An adapter is exchanged while submissions are under way: each is done once.
func TestSiteIsReplacedInFlight(t *testing.T) {
	for _, late := range []time.Duration{0, time.Second, time.Minute} { // the last is longer than it has
		bubble(t, func(t *testing.T) {
			w := fake.NewWorld(0)
			w.Inject(func(op string, _ adapters.Tag) fake.Fault {
				if op == "submit" {
					return fake.Fault{Delay: late}
				}
				return fake.Fault{}
			})
			g := here(t, w, fake.Options{MaxBatch: 3})
			var es []soap.EPR
			for i := range 30 {
				es = append(es, g.submit("sleep 10; exit 0"))
				if i%10 == 5 {
					if err := g.SetSite(Change{Name: "here", Open: opens(w, fake.Options{MaxBatch: 3})}); err != nil {
						t.Fatal(err)
					}
				}
			}
			for _, e := range es {
				g.until(e, bes.Finished, "")
			}
			for tag, n := range w.Ledger() {
				if n != 1 {
					t.Errorf("late %v: %s was started %d times", late, tag, n)
				}
			}
			if n := len(w.Ledger()); n != len(es) {
				t.Errorf("late %v: %d starts of %d jobs", late, n, len(es))
			}
		})
	}
}

// Handles stay good when the settings change, and what is asked for is asked of
// the adapter that is there.
func TestSiteIsReplacedUnderItsJobs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var closed atomic.Bool
		w := fake.NewWorld(2)
		g := here(t, w, fake.Options{}, func(c *Config) { c.Sites[0].Adapter = closing{w.Open(fake.Options{}), &closed} })
		e := g.submit("out hello; hang")
		g.until(e, bes.Running, "Executing")
		open := func() (adapters.Adapter, error) {
			if !closed.Load() {
				t.Error("the one before is still open")
			}
			// While there is none, it is told so.
			if _, err := g.GetActivityOutput(as("ada"), e, bes.Stdout, 0, 9); !fail.Is(err, fail.Unavailable) {
				t.Errorf("output meanwhile: %v", err)
			}
			return w.Open(fake.Options{NoSuspend: true, NoPush: true}), nil
		}
		if err := g.SetSite(Change{Name: "here", Open: open}); err != nil {
			t.Fatal(err)
		}
		if c, err := g.GetActivityOutput(as("ada"), e, bes.Stdout, 0, 9); err != nil || string(c.Data) != "hello\n" {
			t.Errorf("output: %v, %v", c, err)
		}
		if err := one1(g.SuspendActivities(as("ada"), []soap.EPR{e})); !fail.Is(err, fail.Unsupported) {
			t.Errorf("the new adapter can't suspend: %v", err)
		}
		if err := one1(g.TerminateActivities(as("ada"), []soap.EPR{e})); err != nil {
			t.Fatal(err)
		}
		g.until(e, bes.Cancelled, "")
	})
}

// Settings that can't be opened leave the site without an adapter, and its jobs wait.
func TestReplacementFails(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := fake.NewWorld(2)
		g := here(t, w, fake.Options{})
		e := g.submit("sleep 60; exit 3")
		g.until(e, bes.Running, "Executing")
		if err := g.SetSite(Change{Name: "here", Open: func() (adapters.Adapter, error) { return nil, fail.Errorf("x", fail.Invalid, "", "no such partition") }}); err == nil {
			t.Fatal("no error")
		}
		time.Sleep(time.Hour)
		if s := g.status(e); s.State != bes.Running || !strings.Contains(s.Details.Reason, "no such partition") || !strings.Contains(s.Details.Reason, "it waits") {
			t.Errorf("%v %q", s.State, s.Details.Reason)
		}
		if err := g.SetSite(Change{Name: "here", Open: opens(w, fake.Options{})}); err != nil {
			t.Fatal(err)
		}
		if s := g.until(e, bes.Finished, ""); *s.Details.ExitStatus != 3 {
			t.Errorf("%+v", s.Details)
		}
	})
}

func TestSiteIsNotConfiguredAnyMore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b, st := fake.NewWorld(4), fake.NewWorld(4), newStore(t)
		t.Cleanup(b.Close)
		g := start(t, Config{Store: st, Sites: []Site{{Name: "here", Adapter: a.Open(fake.Options{})}}})
		<-g.Ready()
		ends, cancelled, abandoned, waits := g.submit("sleep 60; exit 5"), g.submit("hang"), g.submit("hang"), g.submit("hang")
		for _, e := range []soap.EPR{ends, cancelled, abandoned, waits} {
			g.until(e, bes.Running, "Executing")
		}
		if err := one1(g.AbandonActivities(as("ada"), []soap.EPR{abandoned})); !fail.Is(err, fail.Conflict) {
			t.Errorf("abandoning a job of a site that answers: %v", err)
		}
		g.stop()

		g = start(t, Config{Store: st, Sites: []Site{{Name: "there", Adapter: b.Open(fake.Options{})}}})
		<-g.Ready()
		t.Cleanup(func() { a.Close(); g.stop() })
		if s := g.site("here"); s.State != SiteUnconfigured || s.Live != 4 {
			t.Errorf("%+v", s)
		}
		time.Sleep(time.Hour)
		if s := g.status(ends); s.State != bes.Running || !strings.Contains(s.Details.Reason, "the site here, which has it, can't be asked") {
			t.Errorf("%v %q", s.State, s.Details.Reason)
		}
		if err := one1(g.TerminateActivities(as("ada"), []soap.EPR{cancelled})); err != nil {
			t.Fatal(err)
		}
		if s := g.until(cancelled, bes.Running, "Cancelling"); !strings.Contains(s.Details.Reason, "its end is asked for once the site is back") {
			t.Errorf("%q", s.Details.Reason)
		}
		if err := one1(g.AbandonActivities(as("ada"), []soap.EPR{abandoned})); err != nil {
			t.Fatal(err)
		}
		if s := g.status(abandoned); s.State != bes.Failed || !strings.Contains(s.Details.Reason, "given up by ada") || s.Details.ExitStatus != nil {
			t.Errorf("%v %+v", s.State, s.Details)
		}
		if err := g.SetSite(Change{Name: "here", Open: opens(a, fake.Options{})}); err != nil {
			t.Fatal(err)
		}
		if s := g.until(ends, bes.Finished, ""); *s.Details.ExitStatus != 5 {
			t.Errorf("%+v", s.Details)
		}
		g.until(cancelled, bes.Cancelled, "")
		g.until(waits, bes.Running, "Executing")
		for tag, n := range a.Ledger() {
			if n != 1 {
				t.Errorf("%s was started %d times", tag, n)
			}
		}
	})
}

// A job that no site can run since the sites changed waits, says so, and runs when
// one can.
func TestNoSiteIsLeft(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := fake.NewWorld(1), fake.NewWorld(1)
		g := two(t, a, b, fake.Options{}, func(c *Config) { c.Limits.Ahead = 1 })
		var es []soap.EPR
		for range 4 {
			es = append(es, g.submit("sleep 60; exit 0", "there"))
		}
		g.until(es[0], bes.Running, "Executing")
		if err := g.DrainSite("there"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if s := g.status(es[3]); s.State != bes.Pending || !strings.Contains(s.Details.Reason, "no site can run it now, and it waits until one can: site here: ") {
			t.Errorf("%v %q", s.State, s.Details.Reason)
		}
		if err := one1(g.TerminateActivities(as("ada"), []soap.EPR{es[3]})); err != nil {
			t.Fatal(err)
		}
		g.until(es[3], bes.Cancelled, "")
		if err := g.SetSite(Change{Name: "there", Open: opens(b, fake.Options{})}); err != nil {
			t.Fatal(err)
		}
		for _, e := range es[:3] {
			g.until(e, bes.Finished, "")
		}
	})
}

// A site whose manager is down is given nothing while another is up, and loses
// nothing of what it has.
func TestSiteGoesDownWithJobs(t *testing.T) {
	for _, push := range []bool{true, false} {
		bubble(t, func(t *testing.T) {
			a, b := fake.NewWorld(8), fake.NewWorld(2)
			g := two(t, a, b, fake.Options{NoPush: !push})
			var at []soap.EPR
			for range 8 {
				at = append(at, g.submit("sleep 100; exit 7", "here"))
			}
			for _, e := range at {
				g.until(e, bes.Running, "Executing")
			}
			a.Down("slurmctld does not answer")
			time.Sleep(time.Minute)
			if s := g.site("here"); s.State != SiteDown || !strings.Contains(s.Problem, "slurmctld") {
				t.Errorf("%+v", s)
			}
			before := len(a.Ledger())
			for range 10 {
				if s := g.until(g.submit("exit 0"), bes.Finished, ""); s.Details.Site != "there" {
					t.Errorf("push %v: it ran at %s", push, s.Details.Site)
				}
			}
			if err := one1(g.TerminateActivities(as("ada"), at[:1])); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
			for _, e := range at {
				if s := g.status(e); s.State != bes.Running {
					t.Errorf("push %v: no evidence, and it is %v", push, s.State)
				}
			}
			if n := len(a.Ledger()); n != before {
				t.Errorf("%d more were started at the site that is down", n-before)
			}
			a.Up()
			for _, e := range at[1:] {
				if s := g.until(e, bes.Finished, ""); *s.Details.ExitStatus != 7 {
					t.Errorf("%+v", s.Details)
				}
			}
			time.Sleep(time.Minute)
			if s := g.site("here"); s.State != SiteUp {
				t.Errorf("it is back: %+v", s)
			}
			for tag, n := range a.Ledger() {
				if n != 1 {
					t.Errorf("%s was started %d times", tag, n)
				}
			}
		})
	}
}

// TestSitesChange is the promise while sites come, go, change and fail: every
// acknowledged job that can reach an end does, and none runs twice.
func TestSitesChange(t *testing.T) {
	type act struct {
		kind, site int
		pause      time.Duration
	}
	names := []string{"s0", "s1", "s2"}
	rapid.Check(t, func(rt *rapid.T) {
		acts := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) act {
			return act{
				rapid.IntRange(0, 10).Draw(t, "kind"), rapid.IntRange(0, 2).Draw(t, "site"),
				rapid.SampledFrom([]time.Duration{0, 0, time.Millisecond, time.Second, 15 * time.Second, time.Minute}).Draw(t, "pause"),
			}
		}), 1, 40).Draw(rt, "acts")
		push := rapid.Bool().Draw(rt, "push")
		slow := rapid.SampledFrom([]time.Duration{0, time.Second, 20 * time.Second}).Draw(rt, "slow")
		var broken error
		synctest.Test(t, func(t *testing.T) {
			worlds := map[string]*fake.World{}
			o := fake.Options{NoPush: !push, MaxBatch: 2}
			for _, name := range names {
				w := fake.NewWorld(2)
				if slow > 0 {
					w.Inject(func(op string, _ adapters.Tag) fake.Fault {
						if op == "submit" {
							return fake.Fault{Delay: slow}
						}
						return fake.Fault{}
					})
				}
				worlds[name] = w
			}
			g := start(t, Config{Store: newStore(t), Alone: true, Sites: []Site{{Name: "s0", Adapter: worlds["s0"].Open(o)}}})
			<-g.Ready()
			configured := map[string]bool{"s0": true}
			var es []soap.EPR
			for i, a := range acts {
				name := names[a.site]
				w := worlds[name]
				switch a.kind {
				case 0, 1, 2, 3:
					r, err := g.CreateActivity(as("ada"), &bes.CreateActivityRequest{Document: document(fmt.Sprintf("sleep %d; exit 0", 1+i%30))})
					if err == nil {
						es = append(es, r.Activity)
					} else if len(configured) > 0 {
						broken = fmt.Errorf("refused with %v: %w", configured, err)
					}
				case 4:
					if r, err := g.CreateActivity(as("ada"), &bes.CreateActivityRequest{Document: document("sleep 5", name)}); err == nil {
						es = append(es, r.Activity)
					}
				case 5:
					if err := g.SetSite(Change{Name: name, Open: opens(w, o)}); err != nil {
						broken = err
					}
					configured[name] = true
				case 6:
					if configured[name] {
						if err := g.DrainSite(name); err != nil {
							broken = err
						}
						delete(configured, name)
					}
				case 7:
					w.Down("it is down")
				case 8:
					w.Up()
				case 9:
					w.LoseNextAnswer(i%2 == 0)
				case 10:
					if len(es) > 0 {
						_, _ = g.TerminateActivities(as("ada"), []soap.EPR{es[i%len(es)]})
					}
				}
				time.Sleep(a.pause)
			}
			for _, name := range names {
				worlds[name].Up()
				if err := g.SetSite(Change{Name: name, Open: opens(worlds[name], o)}); err != nil {
					broken = err
				}
			}
			time.Sleep(6 * time.Hour)
			for _, e := range es {
				if s := g.status(e); !s.State.Final() || s.State == bes.Failed {
					broken = fmt.Errorf("%v: %s\n%s", s.State, s.Details.Reason, g.story(e))
				}
			}
			for _, name := range names {
				for tag, n := range worlds[name].Ledger() {
					if n != 1 {
						broken = fmt.Errorf("%s was started %d times at %s", tag, n, name)
					}
				}
			}
			starts := map[string]int{}
			for _, name := range names {
				for tag := range worlds[name].Ledger() {
					starts[string(tag)[:36]]++
				}
			}
			for id, n := range starts {
				if n > 1 {
					broken = fmt.Errorf("%s was run %d times", id, n)
				}
			}
			g.mu.Lock()
			if g.live != 0 || len(g.jobs) != 0 || g.waits() != 0 || len(g.kinds) != 0 {
				broken = errors.Join(broken, fmt.Errorf("left in memory: live %d, jobs %d, queued %d, kinds %d", g.live, len(g.jobs), g.waits(), len(g.kinds)))
			}
			if n, _ := g.sched.UnderWay(); n != 0 {
				broken = errors.Join(broken, fmt.Errorf("the scheduler counts %d at sites", n))
			}
			for _, s := range g.sites {
				if s.inFlight != 0 || len(s.phases) != 0 || len(s.coming) != 0 || len(s.running) != 0 {
					broken = errors.Join(broken, fmt.Errorf("site %s counts %d, %v", s.name, s.inFlight, s.phases))
				}
			}
			g.mu.Unlock()
			for _, w := range worlds {
				w.Close()
			}
			g.stop()
			g.Close()
		})
		if broken != nil {
			rt.Fatal(broken)
		}
	})
}

func TestTooManySites(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := fake.NewWorld(1)
		g := here(t, w, fake.Options{})
		for i := range maxSites - 1 {
			if err := g.SetSite(Change{Name: fmt.Sprint("s", i), Open: opens(w, fake.Options{})}); err != nil {
				t.Fatal(err)
			}
		}
		g.until(g.submit("exit 0", "s62"), bes.Finished, "")
		if err := g.SetSite(Change{Name: "more", Open: opens(w, fake.Options{})}); !fail.Is(err, fail.Invalid) {
			t.Errorf("%v", err)
		}
		all, _ := g.Sites(as("ada"))
		if len(all) != maxSites || slices.ContainsFunc(all, func(s SiteStatus) bool { return s.State != SiteUp }) {
			t.Errorf("%d sites", len(all))
		}
	})
}

// slowly is a store that takes its time for each change.
type slowly struct{ store.Store }

func (s slowly) Update(ctx context.Context, sess store.Session, cs ...store.Change) []store.Changed {
	time.Sleep(time.Second)
	return s.Store.Update(ctx, sess, cs...)
}

// A job that is being placed when it is asked of is judged as it stands once it is: it is not given up at a site that
// answers, and nobody waits for a suspension that its site can't do.
func TestAskedWhilePlaced(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := fake.NewWorld(4)
		t.Cleanup(w.Close)
		g := start(t, Config{Store: slowly{newStore(t)}, Sites: []Site{{Name: "here", Adapter: w.Open(fake.Options{NoSuspend: true, NoHold: true})}}})
		<-g.Ready()
		for what, c := range map[string]struct {
			ask  func(context.Context, []soap.EPR) ([]bes.Result, error)
			kind fail.Kind
			say  string
		}{
			"abandon": {g.AbandonActivities, fail.Conflict, "which has the activity, answers: terminate the activity"},
			"suspend": {g.SuspendActivities, fail.Unsupported, "can't suspend"},
		} {
			e := g.submit("sleep 60; exit 0")
			synctest.Wait() // its placement is on its way to the store
			if s := g.status(e); s.State != bes.Pending {
				t.Fatalf("%s: it is %v", what, s.State)
			}
			if err := one1(c.ask(as("ada"), []soap.EPR{e})); !fail.Is(err, c.kind) || !strings.Contains(fail.Sentence(err), c.say) {
				t.Errorf("%s: %v", what, err)
			}
			g.until(e, bes.Finished, "")
		}
		g.stop()
	})
}

// A term that ends while a drained site waits to be let go of, as another is being exchanged, ends all the
// same; the site is let go of in the next one.
func TestTermEndsBeforeDrainedSiteIsGone(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprintf("session lost %v", lost), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				a, b := fake.NewWorld(1), fake.NewWorld(1)
				defer a.Close()
				defer b.Close()
				g := start(t, Config{Store: newStore(t), Sites: []Site{{Name: "here", Adapter: a.Open(fake.Options{})}, {Name: "there", Adapter: b.Open(fake.Options{})}}})
				<-g.Ready()
				e := g.submit("sleep 60", "there")
				g.until(e, bes.Running, "Executing")
				if err := g.DrainSite("there"); err != nil {
					t.Fatal(err)
				}
				opening, open, changed := make(chan struct{}), make(chan struct{}), make(chan error, 1)
				go func() {
					changed <- g.SetSite(Change{Name: "here", Open: func() (adapters.Adapter, error) {
						close(opening)
						<-open
						return a.Open(fake.Options{}), nil
					}})
				}()
				<-opening
				g.until(e, bes.Finished, "")
				synctest.Wait() // it is drained, and waits to be let go of
				if !lost {
					g.cancel()
				} else {
					other, err := g.cfg.Store.Join(context.Background(), g.cfg.Replica)
					if err != nil {
						t.Fatal(err)
					}
					defer other.Close()
				}
				synctest.Wait()
				close(open)
				if err := <-changed; err != nil {
					t.Error(err)
				}
				if lost {
					time.Sleep(time.Minute)
					if s := g.site("there"); s != nil {
						t.Errorf("it is still there: %+v", s)
					}
				}
				g.stop()
			})
		})
	}
}
