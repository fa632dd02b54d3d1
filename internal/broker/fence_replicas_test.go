package broker

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/broker/estimate"
	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
)

// sitesOf gives where a job of pairOf is, and where its replica.
func (g *gateway) sitesOf(e soap.EPR) (own, others string) {
	if own = g.status(e).Details.Site; own == "here" {
		return own, "there"
	}
	return own, "here"
}

// fences has a site that is down fenced.
func (g *gateway) fences(site string, w *fake.World, want FenceReport) {
	g.t.Helper()
	w.Down("the hall burns")
	g.untilSite(site, SiteDown)
	r, err := g.FenceSite(as("ada"), site, "burnt down", time.Time{})
	if err != nil {
		g.t.Fatal(err)
	}
	if *r != want {
		g.t.Errorf("%+v, want %+v", *r, want)
	}
}

// cleared lets a fenced site answer again, and checks that it is rid of what it had.
func (g *gateway) cleared(site string, w *fake.World) {
	g.t.Helper()
	w.Up()
	g.untilSite(site, SiteUp)
	if left := going(g.t, w); len(left) > 0 {
		g.t.Errorf("%v runs on", left)
	}
	for tag, n := range w.Ledger() {
		if n > 1 {
			g.t.Errorf("%s was started %d times", tag, n)
		}
	}
	if recs, _, err := g.cfg.Store.ListRecords(context.Background(), fencePrefix, store.RecordOptions{}); err != nil || len(recs) != 0 {
		g.t.Errorf("%v is left of the fence (%v)", recs, err)
	}
}

// The site of a replica is gone for good: the replica ends, and its job goes on.
func TestFenceOfReplica(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g, e, a, b := pairOf(t)
		_, other := g.sitesOf(e)
		g.fences(other, b, FenceReport{Replicas: 1})
		rs := g.replicas()
		if len(rs) != 1 || Phase(rs[0].Status.Phase) != Cancelled {
			t.Fatalf("%+v", rs)
		}
		why := rs[0].Status.Reason
		if !strings.Contains(why, "burnt down") || !strings.HasSuffix(why, "a replica is not placed again") || strings.Contains(why, "it is placed again") || strings.Contains(why, "it is run again") {
			t.Error(why)
		}
		time.Sleep(time.Hour)
		if s := g.status(e); s.SubStates[0].Local != "Executing" || g.events(e) != "submitted placing placed started replicated replica-ended" {
			t.Errorf("%+v\n%s", s, g.story(e))
		}
		if n := len(g.replicas()); n != 1 {
			t.Errorf("%d replicas, of which one can only be at the site that is fenced", n)
		}
		finish(t, a, only(t, a), 0)
		g.until(e, bes.Finished, "")
		g.cleared(other, b)
		g.sound()
	})
}

// The site of the original is gone for good: the job waits for another place, and has what
// its replica gives first.
func TestFenceOfOriginal(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g, e, a, b := pairOf(t)
		own, other := g.sitesOf(e)
		replica := only(t, b)
		g.fences(own, a, FenceReport{Jobs: 1, Again: 1})
		time.Sleep(time.Minute)
		if s := g.status(e); s.State.Final() || !strings.Contains(g.story(e), "burnt down), and may have begun it; it is run again, as Rerunnable allows") {
			t.Errorf("%+v\n%s", s, g.story(e))
		}
		finish(t, b, replica, 0)
		if s := g.until(e, bes.Finished, ""); s.Details.Site != other || !strings.HasSuffix(g.events(e), " won") {
			t.Errorf("%+v\n%s", s, g.story(e))
		}
		time.Sleep(time.Minute)
		if left := going(t, b); len(left) > 0 {
			t.Errorf("%v runs on", left)
		}
		g.cleared(own, a)
		g.sound()
	})
}

// Where the job has what its replica ran, the replica has what the job had; it is this
// that a fence ends, and its site forgets it.
func TestFenceAfterExchange(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g, e, a, b := pairOf(t)
		own, other := g.sitesOf(e)
		lost := only(t, a)
		a.Down("the hall burns")
		g.untilSite(own, SiteDown)
		finish(t, b, only(t, b), 0)
		g.until(e, bes.Finished, "")
		time.Sleep(time.Minute)
		if rs := g.replicas(); len(rs) != 1 || Phase(rs[0].Status.Phase) != Cancelling || rs[0].Status.Placement.Tag != string(lost) {
			t.Fatalf("%+v", rs)
		}
		if r, err := g.FenceSite(as("ada"), own, "burnt down", time.Time{}); err != nil || *r != (FenceReport{Replicas: 1}) {
			t.Fatalf("%+v, %v", r, err)
		}
		if rs := g.replicas(); Phase(rs[0].Status.Phase) != Cancelled || !strings.Contains(rs[0].Status.Reason, "its end was asked for before") {
			t.Errorf("%+v", rs)
		}
		g.cleared(own, a)
		if s := g.status(e); s.State != bes.Finished || s.Details.Site != other {
			t.Errorf("%+v", s)
		}
		if c, err := g.GetActivityOutput(as("ada"), e, bes.Stdout, 0, 100); err != nil || !strings.Contains(string(c.Data), "done") {
			t.Errorf("%+v, %v", c, err)
		}
		g.sound()
	})
}

// meddling is a store in which something happens before it is kept what is given up.
type meddling struct {
	store.Store
	before *func()
}

func (m meddling) PutRecords(ctx context.Context, s store.Session, changes ...store.RecordChange) (int64, error) {
	if strings.HasPrefix(changes[0].Key, fencePrefix) && strings.Contains(changes[0].Key, "/job/") {
		if f := *m.before; f != nil { // only the test's own goroutine comes here
			*m.before = nil
			f()
		}
	}
	return m.Store.PutRecords(ctx, s, changes...)
}

// A replica that wins while its site is being fenced has not run in vain: its output is the
// job's, and is not cleared away.
func TestFenceOfWinner(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var before func()
		g, e, a, b := pairOf(t, func(c *Config) { c.Store = meddling{newStore(t), &before} })
		_, other := g.sitesOf(e)
		tag := only(t, b)
		before = func() {
			b.Up()
			finish(t, b, tag, 0)
			g.until(e, bes.Finished, "")
		}
		g.fences(other, b, FenceReport{Replicas: 1})
		g.cleared(other, b)
		if s := g.status(e); s.Details.Site != other || !strings.HasSuffix(g.events(e), " won") {
			t.Errorf("%+v\n%s", s, g.story(e))
		}
		if c, err := g.GetActivityOutput(as("ada"), e, bes.Stdout, 0, 100); err != nil || !strings.Contains(string(c.Data), "done") {
			t.Errorf("%+v, %v", c, err)
		}
		time.Sleep(time.Minute)
		if left := going(t, a); len(left) > 0 {
			t.Errorf("%v runs on", left)
		}
		g.sound()
	})
}

// What a replica won did not wait where its job was: nothing of the kind is learned.
func TestNothingIsLearnedOfAnExchange(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := fake.NewWorld(1), fake.NewWorld(1)
		b.Down("it is not there yet")
		g := replicating(t, a, b, always)
		blocker := g.must("ada", document("hang", "here"))
		g.until(blocker, bes.Running, "Executing")
		e := g.must("ada", rerunning("hang"))
		g.until(e, bes.Running, "Submitted")
		b.Up()
		g.untilSite("there", SiteUp)
		time.Sleep(time.Hour)
		if s := g.status(e); s.SubStates[0].Local != "Submitted" {
			t.Fatalf("%+v", s)
		}
		g.mu.Lock()
		g.book = estimate.New(estimate.Options{})
		g.mu.Unlock()
		finish(t, b, only(t, b), 0)
		if s := g.until(e, bes.Finished, ""); s.Details.Site != "there" {
			t.Errorf("%+v", s)
		}
		time.Sleep(time.Minute)
		g.mu.Lock()
		if known := g.book.Shares(); len(known) != 0 {
			t.Errorf("it knows waits of %v, and no job has begun there", known)
		}
		g.mu.Unlock()
		if left := going(t, a); len(left) != 1 {
			t.Errorf("%v goes on at the first site", left)
		}
	})
}

// Wherever the gateway dies while the site of a job or of its replica is fenced or cleared,
// the job comes to one end, nothing is started twice, and nothing runs on.
func TestFenceCrashWithReplica(t *testing.T) {
	for deeds := range 9 {
		for _, after := range []bool{false, true} {
			for _, original := range []bool{false, true} {
				t.Run(fmt.Sprintf("%d %v %v", deeds, after, original), func(t *testing.T) {
					bubble(t, func(t *testing.T) { fenceCrashWithReplica(t, deeds, after, original) })
				})
			}
		}
	}
}

func fenceCrashWithReplica(t *testing.T, deeds int, after, original bool) {
	st := newStore(t)
	worlds := map[string]*fake.World{"here": fake.NewWorld(1), "there": fake.NewWorld(1)}
	for _, w := range worlds {
		defer w.Close()
	}
	begin := func(l *life) *gateway {
		cfg := Config{Store: fragile{mortalStore{Store: st, life: l}}, Limits: Limits{Ahead: 1}}
		for _, name := range []string{"here", "there"} {
			cfg.Sites = append(cfg.Sites, Site{Name: name, Adapter: mortal{Adapter: worlds[name].Open(fake.Options{}), life: l}})
		}
		g := start(t, cfg)
		<-g.Ready()
		return g
	}
	// dies lets a process die at a deed, while f has it do something.
	dies := func(g *gateway, l *life, within time.Duration) {
		select {
		case <-l.dead:
		case <-time.After(within):
			l.mu.Lock()
			l.left = -1
			l.mu.Unlock()
		}
		g.stop()
	}
	l := immortal()
	g := begin(l)
	if err := g.SetPolicy(as("ada"), schedule.Gateway, policy.Replication, &policy.Setting{Name: "wqr", Parameters: always}, false); err != nil {
		t.Fatal(err)
	}
	e := g.must("ada", rerunning("hang"))
	g.until(e, bes.Running, "Executing")
	time.Sleep(20 * time.Second)
	out, stays := g.sitesOf(e)
	if !original {
		out, stays = stays, out
	}
	only(t, worlds[out])
	kept := only(t, worlds[stays])
	worlds[out].Down("the hall burns")
	g.untilSite(out, SiteDown)
	synctest.Wait()
	l.mu.Lock()
	l.left, l.after = deeds, after
	l.mu.Unlock()
	fenced := make(chan error, 1)
	go func() {
		_, err := g.FenceSite(as("ada"), out, "burnt down", time.Time{})
		fenced <- err
	}()
	dies(g, l, 10*time.Second)
	err := <-fenced
	l = immortal()
	g = begin(l)
	if err != nil { // whoever asked asks again
		if _, err := g.FenceSite(as("ada"), out, "burnt down", time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(time.Minute)
	if s := g.site(out); s.State != SiteFenced || s.Live != 0 {
		t.Errorf("%+v", s)
	}
	// The same while it is cleared.
	l.mu.Lock()
	l.left, l.after = deeds, after
	l.mu.Unlock()
	worlds[out].Up()
	dies(g, l, 10*time.Minute)
	g = begin(immortal())
	g.untilSite(out, SiteUp)
	finish(t, worlds[stays], kept, 0)
	if s := g.until(e, bes.Finished, ""); s.Details.Site != stays {
		t.Errorf("the result is of the site %s\n%s", s.Details.Site, g.story(e))
	}
	time.Sleep(time.Hour)
	for name, w := range worlds {
		for tag, n := range w.Ledger() {
			if n != 1 {
				t.Errorf("%s was started %d times", tag, n)
			}
		}
		if left := going(t, w); len(left) > 0 {
			t.Errorf("%v runs on at the site %s", left, name)
		}
	}
	if recs, _, err := st.ListRecords(t.Context(), fencePrefix, store.RecordOptions{}); err != nil || len(recs) != 0 {
		t.Errorf("%v is left of the fence (%v)", recs, err)
	}
	g.sound()
	g.stop()
}
