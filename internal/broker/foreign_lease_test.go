package broker

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/fail"
)

// The site ends a job with its lease while the gateway is dead; the next start hears of it, and
// places it nowhere again. So it is with one that waits.
func TestLeaseEndsWithoutGateway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st, w := newStore(t), fake.NewWorld(1)
		defer w.Close()
		one := 1
		cfg := func() Config {
			return Config{Store: st, Sites: []Site{{Name: "here", Adapter: w.Open(fake.Options{}), Model: SiteModel{Ahead: &one}}}}
		}
		g := start(t, cfg())
		<-g.Ready()
		lease := 10 * time.Minute
		runs := g.takeIn(handed(1, lease, "hang"))
		time.Sleep(time.Second)
		waits := g.takeIn(handed(2, lease-2*time.Second, "hang")) // at the site
		time.Sleep(time.Second)
		nowhere := g.takeIn(handed(3, lease-2*time.Second, "hang")) // here
		time.Sleep(time.Minute)
		if s := g.foreign(runs); s.Phase != ForeignRunning {
			t.Fatalf("%+v", s)
		}
		if s := g.foreign(nowhere); s.Phase != ForeignWaiting {
			t.Fatalf("%+v", s)
		}
		g.stop()
		time.Sleep(20 * time.Minute)
		g = start(t, cfg())
		<-g.Ready()
		defer g.stop()
		time.Sleep(time.Minute)
		for _, c := range []struct {
			id      string
			started bool
		}{{runs, true}, {waits, false}, {nowhere, false}} {
			s := g.foreign(c.id)
			if s.Phase != ForeignGone || s.Outcome != "" || s.Started.IsZero() == c.started || !strings.Contains(s.Reason, "lease") {
				t.Errorf("it is %+v", s)
			}
			lines, err := st.History(context.Background(), c.id, 0)
			recs, _ := st.Get(context.Background(), c.id)
			if err != nil || consistent(recs[c.id].Status, lines) != nil {
				t.Errorf("%v, %v", err, consistent(recs[c.id].Status, lines))
			}
		}
		if l := w.Ledger(); len(l) != 1 || l[adapters.Tag(runs+"-1")] != 1 {
			t.Errorf("started: %v", l)
		}
	})
}

// The gateway ends jobs whose lease is over itself too: at a site that does not, and here.
func TestLeaseEndsHere(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := fake.NewWorld(1)
		none := 0
		g := here(t, w, fake.Options{}, func(c *Config) {
			c.Sites[0].Adapter = deafLease{spySubmit{Adapter: c.Sites[0].Adapter, see: func(adapters.Job) {}}}
			c.Sites[0].Model.Ahead = &none
		})
		l := g.listen()
		defer l.stop(t)
		runs := g.takeIn(handed(1, time.Minute, "hang"))
		time.Sleep(time.Second)
		waits := g.takeIn(handed(2, 50*time.Second, "hang"))
		begun := time.Now()
		if s := l.until(t, waits, ForeignGone); !strings.Contains(s.Reason, "is over") || time.Since(begun) > 52*time.Second {
			t.Errorf("%v: %+v", time.Since(begun), s)
		}
		if s := l.until(t, runs, ForeignGone); !strings.Contains(g.tale(runs), "is over") || time.Since(begun) > 65*time.Second {
			t.Errorf("%v: %+v", time.Since(begun), s)
		}
		if n := w.Starts(adapters.Tag(waits + "-1")); n != 0 {
			t.Errorf("started %d times", n)
		}
	})
}

// deafLease claims leases and keeps none.
type deafLease struct{ spySubmit }

func (d deafLease) Submit(ctx context.Context, jobs []adapters.Job) []adapters.Placed {
	jobs = slices.Clone(jobs)
	for i := range jobs {
		jobs[i].NotAfter = time.Time{}
	}
	return d.spySubmit.Submit(ctx, jobs)
}

func (g *gateway) tale(id string) string {
	lines, err := g.cfg.Store.History(context.Background(), id, 0)
	out := ""
	for _, l := range lines {
		out += l.Event + ": " + l.Reason + "\n"
	}
	if err != nil {
		out += err.Error()
	}
	return out
}

// Leases are extended for hours with few writes, over a restart, and of jobs that wait.
func TestExtendLease(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st, w := newStore(t), fake.NewWorld(1)
		defer w.Close()
		none := 0
		cfg := func() Config {
			return Config{Store: st, Sites: []Site{{Name: "here", Adapter: w.Open(fake.Options{}), Model: SiteModel{Ahead: &none}}}}
		}
		g := start(t, cfg())
		<-g.Ready()
		runs, waits := g.takeIn(handed(1, 10*time.Minute, "sleep 10h; exit 2")), ""
		time.Sleep(time.Second)
		waits = g.takeIn(handed(2, 10*time.Minute, "exit 0"))
		before, _ := st.Get(context.Background(), runs, waits)
		const each = 150 * time.Second
		for i := range 200 {
			time.Sleep(each)
			until := time.Now().Add(10 * time.Minute)
			if i == 100 {
				g.stop()
				g = start(t, cfg())
				<-g.Ready()
			}
			for _, err := range g.ExtendLease(context.Background(), LeaseExtension{runs, until}, LeaseExtension{waits, until}, LeaseExtension{runs, until.Add(-time.Hour)}) {
				if err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
		}
		defer g.stop()
		if s := g.foreign(runs); s.Phase != ForeignRunning {
			t.Fatalf("%+v\n%s", s, g.tale(runs))
		}
		if s := g.foreign(waits); s.Phase != ForeignWaiting {
			t.Fatalf("%+v\n%s", s, g.tale(waits))
		}
		after, _ := st.Get(context.Background(), runs, waits)
		if n := after[waits].Status.Sequence - before[waits].Status.Sequence; n != 0 {
			t.Errorf("the history got %d lines by extensions", n)
		}
		if after[waits].Status.NotAfter.Before(time.Now().Add(time.Minute)) {
			t.Errorf("what is written is behind: %v", after[waits].Status.NotAfter)
		}
		if writes := after[waits].Revision - before[waits].Revision; writes > 450 { // of both jobs
			t.Errorf("%d writes", writes)
		}
		errs := g.ExtendLease(context.Background(), LeaseExtension{"0192b1a0-0000-7000-8000-00000000beef", time.Now().Add(time.Hour)})
		if !fail.Is(errs[0], fail.NotFound) {
			t.Errorf("extending the lease of a job that is none: %v", errs)
		}
		time.Sleep(12 * time.Minute)
		for _, id := range []string{runs, waits} {
			if s := g.foreign(id); s.Phase != ForeignGone {
				t.Errorf("after its lease it is %+v", s)
			}
		}
		if errs := g.ExtendLease(context.Background(), LeaseExtension{runs, time.Now().Add(time.Hour)}); errs[0] != nil {
			t.Errorf("of a job that ended: %v", errs)
		}
		if l := w.Ledger(); len(l) != 1 {
			t.Errorf("started: %v", l)
		}
	})
}

// A site that can't be told of an extension is told once it can be.
func TestExtendTrouble(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := fake.NewWorld(1)
		g := here(t, w, fake.Options{})
		id := g.takeIn(handed(1, 10*time.Minute, "sleep 12m; exit 0"))
		time.Sleep(time.Second)
		w.Down("out for lunch")
		if errs := g.ExtendLease(context.Background(), LeaseExtension{id, time.Now().Add(time.Hour)}); errs[0] != nil {
			t.Fatal(errs[0])
		}
		time.Sleep(2 * time.Minute)
		w.Up()
		time.Sleep(13 * time.Minute)
		if s := g.foreign(id); s.Phase != ForeignEnded || s.Outcome != bes.Finished {
			t.Errorf("%+v\n%s", s, g.tale(id))
		}
	})
}
