package broker

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/resourcemodel"
)

// replicating gives a gateway with two sites under the policy of replication.
func replicating(t *testing.T, a, b *fake.World, parameters map[string]float64, change ...func(*Config)) *gateway {
	t.Helper()
	g := two(t, a, b, fake.Options{}, append([]func(*Config){func(c *Config) { c.Limits.Ahead = 1 }}, change...)...)
	if err := g.SetPolicy(as("ada"), schedule.Gateway, policy.Replication, &policy.Setting{Name: "wqr", Parameters: parameters}, false); err != nil {
		t.Fatal(err)
	}
	return g
}

// replicas gives the records of all replicas.
func (g *gateway) replicas() []store.Job {
	g.t.Helper()
	recs, err := g.cfg.Store.List(context.Background(), store.ListOptions{Owner: replicaOwner})
	if err != nil {
		g.t.Fatal(err)
	}
	return recs
}

// sound checks the histories of all jobs and replicas, and that none is live.
func (g *gateway) sound() {
	g.t.Helper()
	if err := soundStore(g.cfg.Store); err != nil {
		g.t.Error(err)
	}
}

func soundStore(st store.Store) error {
	ctx := context.Background()
	recs, err := st.List(ctx, store.ListOptions{})
	if err != nil {
		return err
	}
	tags := map[string]string{}
	for _, rec := range recs {
		lines, err := st.History(ctx, rec.ID, 0)
		if err != nil {
			return err
		}
		if err := consistent(rec.Status, lines); err != nil {
			return fmt.Errorf("%s of %q: %w\n%+v\n%+v", rec.ID, rec.Status.Of, err, rec.Status, lines)
		}
		if !rec.Status.Final {
			return fmt.Errorf("%s of %q is live: %+v\n%+v", rec.ID, rec.Status.Of, rec.Status, lines)
		}
		if (rec.Status.Of != "") != (rec.Owner == replicaOwner) {
			return fmt.Errorf("%s is of %q and of the owner %q", rec.ID, rec.Status.Of, rec.Owner)
		}
		if p := rec.Status.Placement; p != nil {
			if tags[p.Tag] != "" {
				return fmt.Errorf("%s and %s have the placement %s", tags[p.Tag], rec.ID, p.Tag)
			}
			tags[p.Tag] = rec.ID
		}
	}
	return nil
}

// going gives the tags that the manager has and that have not ended.
func going(t testing.TB, w *fake.World) []adapters.Tag {
	t.Helper()
	a := w.Open(fake.Options{})
	found, err := a.Find(context.Background(), w.Tags())
	if err != nil {
		t.Fatal(err)
	}
	var out []adapters.Tag
	for tag, h := range found {
		es, err := a.Status(context.Background(), []adapters.Handle{h})
		if err != nil {
			t.Fatal(err)
		}
		if !es[0].Phase.Final() {
			out = append(out, tag)
		}
	}
	return out
}

// only gives the only tag that goes on at a world.
func only(t testing.TB, w *fake.World) adapters.Tag {
	t.Helper()
	tags := going(t, w)
	if len(tags) != 1 {
		t.Fatalf("%d jobs go on", len(tags))
	}
	return tags[0]
}

func finish(t testing.TB, w *fake.World, tag adapters.Tag, status int) {
	t.Helper()
	if err := w.Finish(tag, status); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

var always = map[string]float64{"waste": 10}

// pairOf gives a gateway with one job that hangs at a site, and its replica at another.
func pairOf(t *testing.T, change ...func(*Config)) (g *gateway, e soap.EPR, a, b *fake.World) {
	t.Helper()
	a, b = fake.NewWorld(1), fake.NewWorld(1)
	g = replicating(t, a, b, always, change...)
	e = g.must("ada", rerunning("out done; hang"))
	g.until(e, bes.Running, "Executing")
	time.Sleep(20 * time.Second)
	if g.status(e).Details.Site != "here" {
		a, b = b, a
	}
	only(t, a)
	only(t, b)
	return g, e, a, b
}

// A job that hangs at its site is won by a replica at another, and what hangs is ended.
func TestReplicaWins(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var mu sync.Mutex
		made, wasted := 0, 0.0
		g, e, a, b := pairOf(t, func(c *Config) {
			c.Hooks.Replicated = func(string) { mu.Lock(); made++; mu.Unlock() }
			c.Hooks.Wasted = func(s float64) { mu.Lock(); wasted += s; mu.Unlock() }
		})
		at, tag := g.status(e).Details.Site, only(t, a)
		if n := g.live; n != 1 {
			t.Errorf("%d jobs are live", n)
		}
		finish(t, b, only(t, b), 0)
		s := g.until(e, bes.Finished, "")
		if s.Details.Site == at || *s.Details.ExitStatus != 0 || !strings.Contains(s.Details.Reason, "first valid result") {
			t.Errorf("%+v", s.Details)
		}
		c, err := g.GetActivityOutput(as("ada"), e, bes.Stdout, 0, 100)
		if err != nil || !strings.Contains(string(c.Data), "done") {
			t.Errorf("%+v, %v", c, err)
		}
		time.Sleep(time.Minute)
		if len(going(t, a))+len(going(t, b)) != 0 {
			t.Error("what lost runs on")
		}
		rs := g.replicas()
		if len(rs) != 1 || Phase(rs[0].Status.Phase) != Cancelled || rs[0].Status.Placement.Tag != string(tag) {
			t.Errorf("%+v", rs)
		}
		if got := g.events(e); strings.Count(got, " replicated") != 1 || !strings.HasSuffix(got, " won") {
			t.Error(g.story(e))
		}
		fa, err := g.GetFactoryAttributesDocument(as("ada"))
		if err != nil || fa.TotalNumberOfActivities != 1 || len(fa.Activities) != 1 {
			t.Errorf("%+v, %v", fa, err)
		}
		if _, errs, _ := g.find(as("ada"), "test", []soap.EPR{g.reference(rs[0].ID)}); errs[0] == nil {
			t.Error("a replica is shown as an activity")
		}
		mu.Lock()
		defer mu.Unlock()
		if made != 1 || wasted < 20 {
			t.Errorf("%d made, %g CPU-seconds wasted", made, wasted)
		}
		g.sound()
	})
}

// The job's own result is as good as any, and its replica is ended.
func TestReplicaLoses(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g, e, a, b := pairOf(t)
		finish(t, a, only(t, a), 0)
		g.until(e, bes.Finished, "")
		time.Sleep(time.Minute)
		if len(going(t, a))+len(going(t, b)) != 0 {
			t.Error("the replica runs on")
		}
		if ev := g.events(e); !strings.Contains(ev, "replicated") || !strings.HasSuffix(ev, "exited") {
			t.Error(g.story(e))
		}
		g.sound()
	})
}

// A replica that fails does not end the job, nor does the job's own failure while a
// replica goes on; when all failed, the job ends as it did.
func TestReplicaFails(t *testing.T) {
	for _, c := range []struct {
		name         string
		first, other int // exit statuses: of the job's own first, or of the replica's
		replicaFirst bool
		status       int
		events       string
	}{
		{"the replica, then the job is well", 4, 0, true, 0, "exited"},
		{"the job, then the replica is well", 3, 0, false, 0, "outlived won"},
		{"the job, then the replica", 3, 4, false, 3, "outlived replica-ended exited"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g, e, a, b := pairOf(t)
				x, y := a, b
				if c.replicaFirst {
					x, y = b, a
				}
				other := only(t, y)
				finish(t, x, only(t, x), c.first)
				time.Sleep(500 * time.Millisecond)
				if s := g.status(e); s.State.Final() {
					t.Fatalf("%+v", s)
				}
				finish(t, y, other, c.other)
				s := g.until(e, bes.Finished, "")
				if *s.Details.ExitStatus != c.status {
					t.Errorf("%+v", s.Details)
				}
				time.Sleep(time.Minute)
				if ev := g.events(e); !strings.HasSuffix(ev, c.events) {
					t.Errorf("%s", g.story(e))
				}
				if len(going(t, a))+len(going(t, b)) != 0 {
					t.Error("something runs on")
				}
				g.sound()
			})
		})
	}
}

// Only jobs that say that they may be run more than once get replicas, and none while a
// job waits that could use the place, nor beyond the bound of waste.
func TestReplicasAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := fake.NewWorld(2), fake.NewWorld(2)
		g := replicating(t, a, b, always)
		g.must("ada", document("hang"))
		time.Sleep(time.Minute)
		if n := len(g.replicas()); n != 0 {
			t.Errorf("%d replicas of a job that may not be run again", n)
		}
		one := g.must("ada", rerunning("hang"))
		time.Sleep(time.Minute)
		if n := len(g.replicas()); n != 1 {
			t.Fatalf("%d replicas", n)
		}
		_ = one1(g.TerminateActivities(as("ada"), []soap.EPR{one}))
		time.Sleep(time.Minute)
		if n := len(going(t, a)) + len(going(t, b)); n != 1 {
			t.Errorf("%d go on, though the job with the replica was terminated", n)
		}
	})
	bubble(t, func(t *testing.T) {
		a, b := fake.NewWorld(4), fake.NewWorld(4)
		g := replicating(t, a, b, map[string]float64{"waste": 0.5})
		var es []soap.EPR
		for range 4 {
			es = append(es, g.must("ada", rerunning("hang")))
		}
		time.Sleep(time.Minute)
		if n := len(g.replicas()); n != 2 { // two of an hour each are half of what the bag needs
			t.Errorf("%d replicas", n)
		}
		for _, e := range es {
			_ = one1(g.TerminateActivities(as("ada"), []soap.EPR{e}))
		}
		time.Sleep(time.Minute)
		if n := len(going(t, a)) + len(going(t, b)); n != 0 {
			t.Errorf("%d go on", n)
		}
		g.sound()
	})
}

// What waits goes before replicas.
func TestReplicasComeLast(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b, yonder := fake.NewWorld(1), fake.NewWorld(1), fake.NewWorld(1)
		t.Cleanup(yonder.Close)
		g := replicating(t, a, b, always, func(c *Config) {
			c.Sites = append(c.Sites, Site{Name: "yonder", Adapter: yonder.Open(fake.Options{})})
			for i := range c.Sites {
				c.Sites[i].Model.Ahead = new(int)
			}
		})
		blocker := g.must("ada", document("hang", "here"))
		g.until(blocker, bes.Running, "Executing")
		time.Sleep(time.Minute) // the site is measured again
		e := g.must("ada", rerunning("hang", "yonder"))
		g.until(e, bes.Running, "Executing")
		// A job waits for "here" alone: another place is of no use to it.
		waits := g.must("ada", document("hang", "here"))
		time.Sleep(time.Minute)
		if n := len(g.replicas()); n != 1 {
			t.Fatalf("%d replicas", n)
		}
		finish(t, a, only(t, a), 0)
		g.until(waits, bes.Running, "Executing")
		time.Sleep(time.Minute)
		if n := len(g.replicas()); n != 1 {
			t.Errorf("%d replicas", n)
		}
	})
	bubble(t, func(t *testing.T) {
		a, b := fake.NewWorld(2), fake.NewWorld(1)
		b.Down("it is not there yet")
		g := replicating(t, a, b, always, func(c *Config) { c.Sites[1].Model.Ahead = new(int); c.Sites[0].Model.Ahead = new(int) })
		for range 2 {
			g.until(g.must("ada", rerunning("hang")), bes.Running, "Executing")
		}
		last := g.must("ada", document("hang", "there"))
		time.Sleep(time.Minute)
		b.Up()
		g.until(last, bes.Running, "Executing")
		time.Sleep(time.Minute)
		if n := len(g.replicas()); n != 0 {
			t.Errorf("%d replicas went before a job that waited", n)
		}
	})
}

// What is asked of a job is asked of its replicas.
func TestReplicasFollow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g, e, a, b := pairOf(t)
		if err := one1(g.SuspendActivities(as("ada"), []soap.EPR{e})); err != nil {
			t.Fatal(err)
		}
		g.until(e, bes.Running, "Suspended")
		time.Sleep(time.Minute)
		if p := g.replicas()[0].Status.Phase; Phase(p) != Suspended {
			t.Errorf("the replica is %s", p)
		}
		if err := one1(g.ResumeActivities(as("ada"), []soap.EPR{e})); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if p := g.replicas()[0].Status.Phase; Phase(p) != Running {
			t.Errorf("the replica is %s", p)
		}
		// It waits for its replica, and its end is asked for.
		finish(t, a, only(t, a), 3)
		if err := one1(g.TerminateActivities(as("ada"), []soap.EPR{e})); err != nil {
			t.Fatal(err)
		}
		g.until(e, bes.Cancelled, "")
		time.Sleep(time.Minute)
		if len(going(t, a))+len(going(t, b)) != 0 {
			t.Error("something runs on")
		}
		g.sound()
	})
	bubble(t, func(t *testing.T) {
		g, e, a, b := pairOf(t)
		a.Down("gone for good")
		b.Down("gone for good, too")
		time.Sleep(time.Minute)
		if err := one1(g.AbandonActivities(as("ada"), []soap.EPR{e})); err != nil {
			t.Fatal(err)
		}
		g.until(e, bes.Failed, "")
		synctest.Wait()
		if p := g.replicas()[0].Status.Phase; Phase(p) != Failed {
			t.Errorf("the replica is %s", p)
		}
		g.sound()
	})
}

// The winner is the job's even while the job's own placement is lost and it waits for
// another.
func TestReplicaWinsForOneThatWaits(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g, e, a, b := pairOf(t)
		tag := only(t, b)
		a.Down("it is away")
		if err := a.Lose(a.Tags()[0], false); err != nil {
			t.Fatal(err)
		}
		a.Up()
		a.Inject(func(op string, _ adapters.Tag) fake.Fault {
			if op == "submit" {
				return fake.Fault{Delay: 10 * time.Minute}
			}
			return fake.Fault{}
		})
		time.Sleep(time.Minute)
		finish(t, b, tag, 0)
		g.until(e, bes.Finished, "")
		time.Sleep(time.Hour)
		if len(going(t, a))+len(going(t, b)) != 0 {
			t.Errorf("something runs on\n%s", g.story(e))
		}
		g.sound()
	})
}

// bagScenario is a random run with replicas: jobs that are alike but for chance, at
// sites of which one is slow, with a process that dies.
type bagScenario struct {
	jobs, slots int
	script      string
	exits       []int // of what runs, in the order in which it is ended
	deaths      []death
	answers     []answer
	ask         Event // of the first job
	askAt       time.Duration
	push, alone bool
}

func drawBag(t *rapid.T) bagScenario {
	return bagScenario{
		jobs: rapid.IntRange(1, 4).Draw(t, "jobs"), slots: rapid.IntRange(1, 3).Draw(t, "slots"),
		script: rapid.SampledFrom([]string{"hang", "sleep 30; exit 0", "sleep 5; lose", "sleep 30; exit 2", "stop too long"}).Draw(t, "script"),
		exits:  rapid.SliceOfN(rapid.SampledFrom([]int{0, 0, 1, 7}), 1, 8).Draw(t, "exits"),
		deaths: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) death {
			return death{
				deeds: rapid.IntRange(0, 20).Draw(t, "deeds"), after: rapid.Bool().Draw(t, "after"),
				pause: rapid.SampledFrom([]time.Duration{0, time.Second, time.Minute}).Draw(t, "pause"),
			}
		}), 0, 4).Draw(t, "deaths"),
		answers: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) answer {
			return answer{
				op:   rapid.SampledFrom([]string{"", "submit", "find", "status", "cancel", "create", "update", "update", "update"}).Draw(t, "op"),
				kind: rapid.SampledFrom([]fail.Kind{fail.Unavailable, fail.Uncertain, fail.Exhausted}).Draw(t, "kind"),
				done: rapid.Bool().Draw(t, "done"),
			}
		}), 0, 8).Draw(t, "answers"),
		ask:   rapid.SampledFrom([]Event{"", "", "", Cancel, Suspend}).Draw(t, "ask"),
		askAt: rapid.SampledFrom([]time.Duration{0, 5 * time.Second, 25 * time.Second}).Draw(t, "ask at"),
		push:  rapid.Bool().Draw(t, "push"), alone: rapid.Bool().Draw(t, "alone"),
	}
}

// play runs it in a bubble and gives what broke a promise, and how many replicas were
// made and won.
func (s bagScenario) play(t *testing.T) (made, won int, broken error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		defer func() {
			if p := recover(); p != nil {
				broken = fmt.Errorf("panic: %v", p)
			}
		}()
		made, won, broken = s.run(t)
	})
	return made, won, broken
}

func (s bagScenario) run(t *testing.T) (made, won int, err error) {
	ctx := context.Background()
	st := newStore(t)
	var mu sync.Mutex
	answers := map[string][]answer{}
	for _, a := range s.answers {
		answers[a.op] = append(answers[a.op], a)
	}
	next := func(op string) (answer, bool) {
		mu.Lock()
		defer mu.Unlock()
		if len(answers[op]) == 0 {
			return answer{}, false
		}
		a := answers[op][0]
		answers[op] = answers[op][1:]
		return a, true
	}
	worlds := map[string]*fake.World{"here": fake.NewWorld(s.slots), "there": fake.NewWorld(s.slots)}
	for _, w := range worlds {
		defer w.Close()
		w.Inject(func(op string, _ adapters.Tag) fake.Fault {
			a, ok := next(op)
			if !ok {
				return fake.Fault{}
			}
			if op == "submit" && a.kind != fail.Uncertain {
				a.done = false // the contract: only an uncertain answer may hide a deed
			}
			return fake.Fault{Err: fail.Errorf("fault", a.kind, "", "injected"), After: a.done}
		})
	}
	var es []soap.EPR
	exits, asked := s.exits, s.ask == ""
	var began time.Time
	for round := 0; ; round++ {
		l := &life{left: -1, dead: make(chan struct{})}
		last := round >= len(s.deaths)
		if !last {
			l.left, l.after = s.deaths[round].deeds, s.deaths[round].after
		}
		cfg := Config{Store: mortalStore{st, l, next}, Alone: s.alone}
		for _, name := range []string{"here", "there"} {
			cfg.Sites = append(cfg.Sites, Site{Name: name, Adapter: mortal{worlds[name].Open(fake.Options{}), l, !s.push}})
		}
		g := start(t, cfg)
		<-g.Ready()
		if err := g.SetPolicy(as("ada"), schedule.Gateway, policy.Replication, &policy.Setting{Name: "wqr", Parameters: map[string]float64{"waste": 10, "copies": 2}}, false); err != nil {
			return 0, 0, err
		}
		for end, tick := time.Now().Add(3*time.Hour), 0; !l.gone() && time.Now().Before(end); tick++ {
			if len(es) < s.jobs {
				r, err := g.CreateActivity(as("ada"), &bes.CreateActivityRequest{Document: rerunning(s.script)})
				if err == nil {
					es = append(es, r.Activity)
					began = time.Now()
				} else {
					time.Sleep(time.Second)
				}
				continue
			}
			if !asked && time.Since(began) >= s.askAt {
				f := g.TerminateActivities
				if s.ask == Suspend {
					f = g.SuspendActivities
				}
				err := one1(f(as("ada"), es[:1]))
				asked = err == nil || fail.Is(err, fail.Conflict)
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if asked && s.ask == Suspend && time.Since(began) > s.askAt+time.Minute {
				_, _ = g.ResumeActivities(as("ada"), es[:1])
			}
			if tick%20 == 19 { // something that hangs comes to its end
				for _, name := range []string{"there", "here"} {
					for _, tag := range worlds[name].Tags() {
						x := 0
						if len(exits) > 0 {
							x = exits[0]
						}
						if worlds[name].Finish(tag, x) == nil && len(exits) > 0 {
							exits = exits[1:]
							break
						}
					}
				}
			}
			live, err := st.Live(ctx)
			if err != nil {
				return 0, 0, err
			}
			if len(live) == 0 && asked {
				break
			}
		}
		g.stop()
		if last {
			break
		}
		time.Sleep(s.deaths[round].pause)
	}
	if err := soundStore(st); err != nil {
		return 0, 0, err
	}
	recs, err := st.List(ctx, store.ListOptions{})
	if err != nil {
		return 0, 0, err
	}
	known := map[string]store.Job{}
	for _, rec := range recs {
		known[rec.ID] = rec
		if rec.Status.Of != "" {
			made++
			continue
		}
		lines, _ := st.History(ctx, rec.ID, 0)
		if lines[len(lines)-1].Event == string(Won) {
			won++
			if x := rec.Status.ExitStatus; x == nil || *x != 0 || strings.HasPrefix(rec.Status.Placement.Tag, rec.ID) {
				return 0, 0, fmt.Errorf("won, and %+v", rec.Status)
			}
		}
	}
	for _, e := range es {
		if id, _ := idOf(e); known[id].ID == "" || known[id].Status.Of != "" {
			return 0, 0, fmt.Errorf("%s was acknowledged and is lost", id)
		}
	}
	for name, w := range worlds {
		for tag, n := range w.Ledger() {
			if n > 1 {
				return 0, 0, fmt.Errorf("%s was started %d times", tag, n)
			}
		}
		w.Inject(nil)
		if left := going(t, w); len(left) > 0 {
			return 0, 0, fmt.Errorf("at the site %s runs on %v", name, left)
		}
	}
	return made, won, nil
}

// TestReplicasCrash is the promise that replicas keep: wherever the process dies and
// whatever store and sites answer, every job has one end, every placement was started
// at most once, and nothing runs on.
func TestReplicasCrash(t *testing.T) {
	made := 0
	rapid.Check(t, func(rt *rapid.T) {
		m, _, err := drawBag(rt).play(t)
		if err != nil {
			rt.Fatal(err)
		}
		made += m
	})
	if made == 0 {
		t.Error("no replica was made: nothing was tried")
	}
}

// TestReplicasCrashAtEveryDeed dies once at each deed of a run in which a replica wins.
func TestReplicasCrashAtEveryDeed(t *testing.T) {
	won := 0
	for _, after := range []bool{false, true} {
		for n := range 24 {
			for _, exits := range [][]int{{0}, {3, 0}, {3, 4}} {
				s := bagScenario{jobs: 1, slots: 2, script: "hang", exits: exits, deaths: []death{{deeds: n, after: after, pause: time.Second}}, push: n%2 == 0}
				_, w, err := s.play(t)
				if err != nil {
					t.Errorf("death at deed %d, after %v, exits %v: %v", n, after, exits, err)
				}
				won += w
			}
		}
	}
	if won == 0 {
		t.Error("no replica won")
	}
}

// A place that is free is not idle while a job waits that could use the site, though it
// does not fit now.
func TestReplicasLeaveRoom(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := fake.NewWorld(2), fake.NewWorld(2)
		g := two(t, a, b, environment(2), func(c *Config) {
			for i := range c.Sites {
				c.Sites[i].Model.Ahead = new(int)
			}
		})
		var es []soap.EPR
		for _, doc := range [][]byte{rerunning("hang"), document("hang", "here"), document("hang", "there")} {
			e := g.must("ada", doc)
			g.until(e, bes.Running, "Executing")
			es = append(es, e)
			if at := g.status(e).Details.Site; len(es) == 1 && at != "here" {
				t.Fatalf("the first is at %s", at)
			}
		}
		time.Sleep(time.Minute) // the sites are measured again
		big := g.must("ada", asking("hang", `<jsdl:IndividualCPUCount><jsdl:Exact>2</jsdl:Exact></jsdl:IndividualCPUCount>`))
		time.Sleep(time.Minute)
		if s := g.status(big); s.State != bes.Pending {
			t.Fatalf("%+v", s)
		}
		if err := g.SetPolicy(as("ada"), schedule.Gateway, policy.Replication, &policy.Setting{Name: "wqr", Parameters: always}, false); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if n := len(g.replicas()); n != 0 {
			t.Errorf("%d replicas at a place that a job waits for", n)
		}
		if err := one1(g.TerminateActivities(as("ada"), []soap.EPR{big})); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if n := len(g.replicas()); n != 1 {
			t.Errorf("%d replicas once nothing waits", n)
		}
	})
}

// Late evidence of the placement that ended is no news to a job that waits for its
// replicas.
func TestOutlastedHearsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g, e, a, b := pairOf(t)
		tag, name := only(t, a), g.status(e).Details.Site
		finish(t, a, tag, 3)
		g.mu.Lock()
		s := g.sites[name]
		g.mu.Unlock()
		three := 3
		for _, p := range []adapters.Phase{adapters.Exited, adapters.Running, adapters.Lost} {
			s.hear([]adapters.Evidence{{Tag: tag, Phase: p, ExitStatus: &three}}, nil, nil, time.Time{})
		}
		time.Sleep(time.Second)
		if s := g.status(e); s.State.Final() {
			t.Errorf("%+v", s)
		}
		finish(t, b, only(t, b), 0)
		g.until(e, bes.Finished, "")
		g.sound()
	})
}

// A replica whose creation was in doubt, and that nobody handed over, is ended.
func TestReplicaInDoubt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g, e, _, b := pairOf(t)
		of, _ := idOf(e)
		id, _ := newID()
		st, line, _, err := step(store.Status{Of: of, For: "ada"}, fact{
			event: Copied, at: time.Now(), reason: "for a test", place: schedulePlace("there"), rerunnable: true, cpus: 1, tag: adapters.Tag(id + "-1"),
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := g.cfg.Store.Create(context.Background(), store.NewJob{
			ID: id, Owner: replicaOwner, Document: rerunning("hang"), Submitted: time.Now(), Status: st, Event: *line,
		}); err != nil {
			t.Fatal(err)
		}
		g.mu.Lock()
		g.doubtful[id] = time.Now()
		g.mu.Unlock()
		time.Sleep(time.Minute)
		recs, _ := g.cfg.Store.Get(context.Background(), id)
		if p := recs[id].Status.Phase; Phase(p) != Cancelled {
			t.Errorf("it is %s", p)
		}
		if n := b.Starts(adapters.Tag(id + "-1")); n != 0 {
			t.Errorf("it was started %d times", n)
		}
	})
}

func schedulePlace(site string) resourcemodel.Place {
	return resourcemodel.Place{Key: resourcemodel.Key{Site: site}}
}

// What is to be done about a placement is done for the job that has it.
func TestRename(t *testing.T) {
	s := newSite(&Broker{}, "here")
	s.submit = []ticket{{"o", "o-1"}, {"p", "p-1"}}
	s.find = map[string]string{"o": "o-1", "p": "p-1"}
	s.rename("o-1", "r")
	if s.submit[0] != (ticket{"r", "o-1"}) || s.submit[1].id != "p" || len(s.find) != 2 || s.find["r"] != "o-1" {
		t.Errorf("%v, %v", s.submit, s.find)
	}
}

// Policies of replication are set as others are, but not in shadow.
func TestReplicationIsSet(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := fake.NewWorld(1), fake.NewWorld(1)
		g := replicating(t, a, b, nil)
		set := &policy.Setting{Name: "wqr"}
		if err := g.SetPolicy(as("ada"), "vo:bio", policy.Replication, set, true); !fail.Is(err, fail.Unsupported) || !strings.Contains(err.Error(), "in force") {
			t.Errorf("%v", err)
		}
		if err := g.SetPolicy(as("ada"), "vo:bio", policy.Replication, set, false); err != nil {
			t.Error(err)
		}
		if err := g.SetPolicy(as("ada"), "vo:bio", policy.Replication, &policy.Setting{Name: "wqr", Parameters: map[string]float64{"copies": 1}}, false); !fail.Is(err, fail.Invalid) {
			t.Errorf("%v", err)
		}
		v, err := g.Policies(as("ada"))
		if err != nil || v.Policies.InForce[schedule.Gateway][policy.Replication].Name != "wqr" {
			t.Errorf("%+v, %v", v, err)
		}
		// Where the gateway's is taken away, no further job gets replicas.
		if err := g.SetPolicy(as("ada"), schedule.Gateway, policy.Replication, nil, false); err != nil {
			t.Fatal(err)
		}
		g.until(g.must("ada", rerunning("hang")), bes.Running, "Executing")
		time.Sleep(time.Minute)
		if n := len(g.replicas()); n != 0 {
			t.Errorf("%d replicas", n)
		}
	})
}

// The bound of waste knows after a start what was wasted before it.
func TestWasteIsRemembered(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := fake.NewWorld(4), fake.NewWorld(4)
		defer a.Close()
		defer b.Close()
		st := newStore(t)
		begin := func() *gateway {
			g := start(t, Config{Store: st, Sites: []Site{{Name: "here", Adapter: a.Open(fake.Options{})}, {Name: "there", Adapter: b.Open(fake.Options{})}}})
			<-g.Ready()
			return g
		}
		g := begin()
		if err := g.SetPolicy(as("ada"), schedule.Gateway, policy.Replication, &policy.Setting{Name: "wqr", Parameters: map[string]float64{"waste": 0.5, "length": 100}}, false); err != nil {
			t.Fatal(err)
		}
		var es []soap.EPR
		for range 2 { // 200 CPU-seconds, of which 100 may be wasted
			es = append(es, g.must("ada", rerunning("hang")))
		}
		time.Sleep(95 * time.Second)
		r := g.replicas()
		if len(r) != 1 {
			t.Fatalf("%d replicas", len(r))
		}
		w := a
		if r[0].Status.Placement.Site == "there" {
			w = b
		}
		finish(t, w, adapters.Tag(r[0].Status.Placement.Tag), 5)
		time.Sleep(time.Minute)
		if n := len(g.replicas()); n != 1 {
			t.Errorf("%d replicas beyond the bound", n)
		}
		g.stop()
		g = begin()
		defer g.stop()
		time.Sleep(time.Minute)
		if n := len(g.replicas()); n != 1 {
			t.Errorf("%d replicas beyond the bound after a start", n)
		}
		for _, e := range es {
			_ = one1(g.TerminateActivities(as("ada"), []soap.EPR{e}))
		}
		time.Sleep(time.Minute)
	})
}

// A replica counts towards the limit of its site, as what it is exchanged for does, and
// is not made where the limit has no room.
func TestReplicasAreLimited(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := fake.NewWorld(1), fake.NewWorld(1)
		g := replicating(t, a, b, always)
		g.limit("site:here", 1)
		g.limit("site:there", 0)
		e := g.must("ada", rerunning("out done; hang"))
		g.until(e, bes.Running, "Executing")
		time.Sleep(20 * time.Second)
		if n := len(g.replicas()); n != 0 || g.used() != "site:here=1/1 site:there=0/0" {
			t.Fatalf("%d replicas are made where none may be; %s", n, g.used())
		}
		g.limit("site:there", 1)
		time.Sleep(20 * time.Second)
		if n := len(g.replicas()); n != 1 || g.used() != "site:here=1/1 site:there=1/1" {
			t.Fatalf("%d replicas; %s", n, g.used())
		}
		a.Down("it does not end what it has")
		finish(t, b, only(t, b), 0)
		g.until(e, bes.Finished, "")
		if got := g.used(); got != "site:here=1/1 site:there=0/1" {
			t.Errorf("what lost is still there: %s", got)
		}
		a.Up()
		time.Sleep(5 * time.Minute)
		if got := g.used(); got != "site:here=0/1 site:there=0/1" {
			t.Errorf("nothing is there: %s", got)
		}
		g.sound()
	})
}
