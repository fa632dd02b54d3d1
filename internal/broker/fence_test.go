package broker

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
)

// untilSite waits for a site's state.
func (g *gateway) untilSite(name string, state SiteState) {
	g.t.Helper()
	for range 10_000 {
		if g.site(name).State == state {
			return
		}
		time.Sleep(time.Second)
	}
	g.t.Fatalf("the site %s is %+v, want it %s", name, g.site(name), state)
}

// A site that does not come back is fenced: what it had not begun, and what may be run
// again, runs elsewhere before what came later; the rest is told. When it answers
// again all the same, it is rid of them before it is given jobs.
func TestFence(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := fake.NewWorld(3), fake.NewWorld(2)
		b.Down("it is not there yet")
		defer a.Close()
		defer b.Close()
		cfg := Config{
			Store: newStore(t), Limits: Limits{Ahead: 8},
			Sites: []Site{{Name: "here", Adapter: a.Open(fake.Options{})}, {Name: "there", Adapter: b.Open(fake.Options{}), Model: SiteModel{Ahead: new(int)}}},
		}
		g := start(t, cfg)
		<-g.Ready()
		again, once := g.must("ada", rerunning("sleep 4000")), g.submit("sleep 4000", "here", "there")
		ends := g.submit("sleep 4000")
		for _, e := range []soap.EPR{again, once, ends} {
			g.until(e, bes.Running, "Executing")
		}
		waits := []soap.EPR{g.submit("sleep 50"), g.submit("sleep 50")}
		withheld := g.submit("sleep 50")
		for _, e := range append(waits, withheld) {
			g.until(e, bes.Running, "Submitted")
		}
		if _, err := g.FenceSite(as("ada"), "here", "", time.Time{}); !fail.Is(err, fail.Conflict) || !strings.Contains(err.Error(), "answers") {
			t.Errorf("a site that answers: %v", err)
		}
		a.Down("the hall burns")
		g.untilSite("here", SiteDown)
		if rs, err := g.TerminateActivities(as("ada"), []soap.EPR{ends}); err != nil || rs[0].Err != nil {
			t.Fatal(err, rs)
		}
		b.Up()
		g.untilSite("there", SiteUp)
		for range 2 {
			g.until(g.submit("sleep 10", "there"), bes.Running, "Executing")
		}
		later := []soap.EPR{g.submit("sleep 50"), g.submit("sleep 50")}
		synctest.Wait()

		r, err := g.FenceSite(as("ada"), "here", "burnt down", time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		if *r != (FenceReport{Jobs: 6, Again: 4, Ended: 2}) {
			t.Errorf("%+v", *r)
		}
		if s := g.site("here"); s.State != SiteFenced || !strings.Contains(s.Problem, "ada") || !strings.Contains(s.Problem, "burnt down") || s.Live != 0 {
			t.Errorf("%+v", s)
		}
		for e, want := range map[*soap.EPR][2]string{
			&once: {"Failed", "does not allow that (Rerunnable)"},
			&ends: {"Cancelled", "its end was asked for before"},
		} {
			s := g.status(*e)
			if string(s.State) != want[0] || !strings.Contains(s.Details.Reason, want[1]) || !strings.Contains(s.Details.Reason, "burnt down") {
				t.Errorf("%s: %s", s.State, s.Details.Reason)
			}
		}
		last := g.until(waits[1], bes.Finished, "")
		for _, e := range later {
			if s := g.status(e); s.State.Final() || !s.Details.Started.IsZero() {
				t.Errorf("one that came later ran before it: %+v", s)
			}
		}
		if last.Details.Site != "there" || g.events(waits[1]) != "submitted placing placed unrun placing placed started exited" {
			t.Errorf("%+v\n%s", last, g.story(waits[1]))
		}
		if got := g.events(again); !strings.HasPrefix(got, "submitted placing placed started rerun placing placed") {
			t.Errorf("%s\n%s", got, g.story(again))
		}
		// To do it again is no harm.
		if r, err := g.FenceSite(as("ada"), "here", "burnt down", time.Time{}); err != nil || r.Jobs != 0 {
			t.Errorf("%+v, %v", r, err)
		}

		// It was not gone after all. The gateway, meanwhile another one, clears it up.
		g.stop()
		g = start(t, cfg)
		<-g.Ready()
		if s := g.site("here"); s.State != SiteFenced {
			t.Errorf("after a start: %+v", s)
		}
		a.Up()
		g.untilSite("here", SiteUp)
		for tag, n := range a.Ledger() {
			if n != 1 || strings.HasSuffix(string(tag), "-2") {
				t.Errorf("%s was started %d times", tag, n)
			}
		}
		for _, e := range append(waits, withheld) {
			if id, ok := bes.ActivityID(e); !ok || a.Starts(adapters.Tag(id+"-1")) != 0 {
				t.Errorf("%s was started at the site that was fenced", id)
			}
		}
		if e := g.until(g.submit("exit 0", "here"), bes.Finished, ""); e.Details.Site != "here" {
			t.Errorf("%+v", e)
		}
		if recs, _, err := cfg.Store.ListRecords(t.Context(), fencePrefix, store.RecordOptions{}); err != nil || len(recs) != 0 {
			t.Errorf("%v is left of the fence (%v)", recs, err)
		}
		for _, e := range later {
			g.until(e, bes.Finished, "")
		}
		g.stop()
	})
}

// A fenced site that is not configured any more can be forgotten, and its name given to
// another.
func TestFenceIsForgotten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b, other := fake.NewWorld(3), fake.NewWorld(2), fake.NewWorld(1)
		defer a.Close()
		defer b.Close()
		defer other.Close()
		there := Site{Name: "there", Adapter: b.Open(fake.Options{})}
		cfg := Config{Store: newStore(t), Sites: []Site{{Name: "here", Adapter: a.Open(fake.Options{})}, there}}
		g := start(t, cfg)
		<-g.Ready()
		forget := func(kind fail.Kind, words string) {
			t.Helper()
			if err := g.ForgetFence(as("ada"), "here"); !fail.Is(err, kind) || !strings.Contains(fail.Sentence(err), words) {
				t.Errorf("%v, want %q", err, words)
			}
		}
		again := g.must("ada", rerunning("sleep 4000"))
		g.until(again, bes.Running, "Executing")
		forget(fail.NotFound, "no site here is fenced")
		a.Down("the hall burns")
		g.untilSite("here", SiteDown)
		if _, err := g.FenceSite(as("ada"), "here", "burnt down", time.Time{}); err != nil {
			t.Fatal(err)
		}
		forget(fail.Conflict, "take it out of the configuration")
		g.stop()

		cfg.Sites = []Site{there}
		g = start(t, cfg)
		<-g.Ready()
		if s := g.site("here"); s == nil || s.State != SiteFenced {
			t.Fatalf("%+v", s)
		}
		if err := g.ForgetFence(as("ada"), "here"); err != nil {
			t.Fatal(err)
		}
		forget(fail.NotFound, "no site here is fenced")
		if s := g.site("here"); s != nil {
			t.Errorf("it is still told of: %+v", s)
		}
		if recs, _, err := cfg.Store.ListRecords(t.Context(), fencePrefix, store.RecordOptions{}); err != nil || len(recs) != 0 {
			t.Errorf("%v is left of the fence (%v)", recs, err)
		}
		if err := g.SetSite(Change{Name: "here", Open: opens(other, fake.Options{})}); err != nil {
			t.Fatal(err)
		}
		g.untilSite("here", SiteUp)
		if e := g.until(g.submit("exit 0", "here"), bes.Finished, ""); e.Details.Site != "here" {
			t.Errorf("%+v", e)
		}
		g.until(again, bes.Finished, "")
		g.stop()
	})
}

// What a site may have begun in the time before it died, in which it told nothing, is
// not run a second time.
func TestFenceDiedLater(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := fake.NewWorld(1), fake.NewWorld(1)
		b.Down("it is not there yet")
		g := two(t, a, b, fake.Options{}, func(c *Config) { c.Limits.Ahead = 8 })
		g.until(g.submit("sleep 5000"), bes.Running, "Executing")
		once, again := g.submit("exit 0"), g.must("ada", rerunning("exit 0"))
		g.until(once, bes.Running, "Submitted")
		g.until(again, bes.Running, "Submitted")
		a.Down("the line is cut")
		g.untilSite("here", SiteDown)
		time.Sleep(time.Hour)
		b.Up()
		for _, c := range []struct {
			died time.Time
			kind fail.Kind
		}{{time.Now().Add(time.Minute), fail.Invalid}} {
			if _, err := g.FenceSite(as("ada"), "here", "", c.died); !fail.Is(err, c.kind) {
				t.Errorf("%v: %v", c.died, err)
			}
		}
		if _, err := g.FenceSite(as("ada"), "nowhere", "", time.Time{}); !fail.Is(err, fail.NotFound) {
			t.Error(err)
		}
		if _, err := g.FenceSite(as("ada"), "here", "", time.Now()); err != nil {
			t.Fatal(err)
		}
		if s := g.until(once, bes.Failed, ""); !strings.Contains(s.Details.Reason, "may have begun it, as it did not tell after") {
			t.Error(s.Details.Reason)
		}
		if s := g.until(again, bes.Finished, ""); s.Details.Site != "there" {
			t.Errorf("%+v", s)
		}
	})
}

// The gateway fences a site by itself, once the site's command made sure.
func TestFencingCommand(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := fake.NewWorld(1), fake.NewWorld(1)
		b.Down("it is not there yet")
		var calls, word atomic.Int64
		g := two(t, a, b, fake.Options{}, func(c *Config) {
			c.Limits.Ahead = 8
			c.Sites[0].Fencing = Fencing{After: 10 * time.Minute, Do: func(_ context.Context, site string, answered time.Time) (time.Time, error) {
				if calls.Add(1) < 3 {
					return time.Time{}, fail.Errorf("test", fail.Unavailable, site, "the power switch does not answer")
				}
				word.Store(answered.UnixNano())
				return answered.Add(time.Second), nil
			}}
		})
		g.until(g.must("ada", rerunning("sleep 5000")), bes.Running, "Executing")
		waits := g.submit("exit 0")
		g.until(waits, bes.Running, "Submitted")
		time.Sleep(time.Hour)
		if calls.Load() > 0 {
			t.Fatal("a site that answers is fenced")
		}
		a.Down("the hall burns")
		began := time.Now()
		b.Up()
		g.untilSite("here", SiteDown)
		time.Sleep(9 * time.Minute)
		if calls.Load() > 0 {
			t.Error("too early")
		}
		for calls.Load() == 0 {
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if d := time.Since(began); d > 10*time.Minute+time.Second {
			t.Errorf("after %v", d)
		}
		if s := g.site("here"); s.State != SiteDown || !strings.Contains(s.Problem, "power switch") {
			t.Errorf("%+v", s)
		}
		if s := g.until(waits, bes.Finished, ""); s.Details.Site != "there" || calls.Load() != 3 {
			t.Errorf("%d calls, %+v", calls.Load(), s)
		}
		if at := time.Unix(0, word.Load()); at.After(began) || began.Sub(at) > time.Minute {
			t.Errorf("it answered last at %v, and went at %v", at, began)
		}
		if s := g.site("here"); s.State != SiteFenced || strings.Contains(s.Problem, "power switch") {
			t.Errorf("%+v", s)
		}
	})
}

// fragile is a store whose process may die at what it writes of fences, too.
type fragile struct{ mortalStore }

func (f fragile) PutRecords(ctx context.Context, s store.Session, changes ...store.RecordChange) (r int64, err error) {
	if !strings.HasPrefix(changes[0].Key, fencePrefix) {
		return f.Store.PutRecords(ctx, s, changes...)
	}
	if derr := f.life.deed(func() { r, err = f.Store.PutRecords(ctx, s, changes...) }); derr != nil {
		return 0, derr
	}
	return r, err
}

// Wherever the gateway dies while a site is fenced or cleared, each job comes to one end
// and what had not begun runs once.
func TestFenceCrash(t *testing.T) {
	for deeds := range 9 {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d %v", deeds, after), func(t *testing.T) { bubble(t, func(t *testing.T) { fenceCrash(t, deeds, after) }) })
		}
	}
}

func fenceCrash(t *testing.T, deeds int, after bool) {
	st := newStore(t)
	a, b := fake.NewWorld(2), fake.NewWorld(2)
	defer a.Close()
	defer b.Close()
	b.Down("it is not there yet")
	begin := func(l *life) *gateway {
		cfg := Config{Store: fragile{mortalStore{Store: st, life: l}}, Limits: Limits{Ahead: 8}}
		cfg.Sites = []Site{
			{Name: "here", Adapter: mortal{Adapter: a.Open(fake.Options{}), life: l}},
			{Name: "there", Adapter: mortal{Adapter: b.Open(fake.Options{}), life: l}},
		}
		g := start(t, cfg)
		<-g.Ready()
		return g
	}
	l := immortal()
	g := begin(l)
	again, once := g.must("ada", rerunning("sleep 4000")), g.submit("sleep 4000", "here", "there")
	g.until(again, bes.Running, "Executing")
	g.until(once, bes.Running, "Executing")
	waits := []soap.EPR{g.submit("sleep 5"), g.submit("sleep 5"), g.submit("sleep 5")}
	for _, e := range waits {
		g.until(e, bes.Running, "Submitted")
	}
	a.Down("the hall burns")
	g.untilSite("here", SiteDown)
	synctest.Wait()
	l.mu.Lock()
	l.left, l.after = deeds, after
	l.mu.Unlock()
	fenced := make(chan error, 1)
	go func() {
		_, err := g.FenceSite(as("ada"), "here", "burnt down", time.Time{})
		fenced <- err
	}()
	select {
	case <-l.dead:
	case <-time.After(2 * time.Minute):
		l.mu.Lock()
		l.left = -1
		l.mu.Unlock()
	}
	g.stop()
	err := <-fenced
	l = immortal()
	g = begin(l)
	if err != nil { // whoever asked asks again
		if _, err := g.FenceSite(as("ada"), "here", "burnt down", time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	b.Up()
	for _, e := range waits {
		if s := g.until(e, bes.Finished, ""); s.Details.Site != "there" {
			t.Errorf("run at %s\n%s", s.Details.Site, g.story(e))
		}
	}
	g.until(once, bes.Failed, "")
	// The same while it is cleared.
	l.mu.Lock()
	l.left, l.after = deeds, after
	l.mu.Unlock()
	a.Up()
	select {
	case <-l.dead:
	case <-time.After(10 * time.Minute):
		l.mu.Lock()
		l.left = -1
		l.mu.Unlock()
	}
	g.stop()
	g = begin(immortal())
	g.untilSite("here", SiteUp)
	g.until(g.submit("exit 0", "here"), bes.Finished, "")
	if s := g.until(again, bes.Finished, ""); s.Details.Site != "there" {
		t.Errorf("run at %s\n%s", s.Details.Site, g.story(again))
	}
	for _, w := range []*fake.World{a, b} {
		for tag, n := range w.Ledger() {
			if n != 1 {
				t.Errorf("%s was started %d times", tag, n)
			}
		}
	}
	if n := len(a.Ledger()); n != 3 {
		t.Errorf("%d were started at the site that was fenced, want 3", n)
	}
	if recs, _, err := st.ListRecords(t.Context(), fencePrefix, store.RecordOptions{}); err != nil || len(recs) != 0 {
		t.Errorf("%v is left of the fence (%v)", recs, err)
	}
	jobs, err := st.List(t.Context(), store.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range jobs {
		lines, err := st.History(t.Context(), j.ID, 0)
		if err == nil {
			err = consistent(j.Status, lines)
		}
		if err != nil || !j.Status.Final {
			t.Errorf("%s is %s: %v", j.ID, j.Status.Phase, err)
		}
	}
	g.stop()
}

// A store that is away in the middle delays a fence, and does not leave it half done.
func TestFenceStoreAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := fake.NewWorld(1), fake.NewWorld(2)
		defer a.Close()
		defer b.Close()
		b.Down("it is not there yet")
		var away atomic.Bool
		st := refusing{newStore(t), &away}
		g := start(t, Config{Store: st, Limits: Limits{Ahead: 8}, Sites: []Site{
			{Name: "here", Adapter: a.Open(fake.Options{})}, {Name: "there", Adapter: b.Open(fake.Options{})},
		}})
		<-g.Ready()
		g.until(g.must("ada", rerunning("sleep 4000")), bes.Running, "Executing")
		waits := g.submit("exit 0")
		g.until(waits, bes.Running, "Submitted")
		a.Down("the hall burns")
		g.untilSite("here", SiteDown)
		b.Up()
		away.Store(true)
		if _, err := g.FenceSite(as("ada"), "here", "burnt down", time.Time{}); !fail.Is(err, fail.Unavailable) {
			t.Errorf("%v", err)
		}
		time.Sleep(time.Minute)
		if s := g.status(waits); s.State.Final() {
			t.Errorf("%+v", s)
		}
		away.Store(false)
		if s := g.until(waits, bes.Finished, ""); s.Details.Site != "there" { // nobody asks again
			t.Errorf("%+v", s)
		}
		g.stop()
	})
}

// refusing is a store that at times keeps no placement that is given up.
type refusing struct {
	store.Store
	away *atomic.Bool
}

func (r refusing) PutRecords(ctx context.Context, s store.Session, changes ...store.RecordChange) (int64, error) {
	if r.away.Load() && strings.Contains(changes[0].Key, "/job/") {
		return 0, fail.Errorf("store.PutRecords", fail.Unavailable, "", "etcd is away")
	}
	return r.Store.PutRecords(ctx, s, changes...)
}
