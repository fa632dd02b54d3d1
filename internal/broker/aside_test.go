package broker

import (
	"context"
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
	"github.com/portolan-project/portolan/peers/routing"
)

// TestNotSoonAgain: a peer that could not take a job, or gave it back, is not given it again for
// a while, longer each time; the story and what is told of the job say so, others go there as
// before, and the own sites may have it meanwhile.
func TestNotSoonAgain(t *testing.T) {
	for _, c := range []struct {
		name    string
		refuses bool
		least   time.Duration // that it stays away the first time
		most    time.Duration
		says    string
	}{
		{"it refuses it", true, 500 * time.Millisecond, 3 * time.Second, "the site bsc can't take it now (full); it is tried again, but not at the site bsc before "},
		{"it gives it back", false, 8 * time.Second, 20 * time.Second, "; it is placed again, but not at the site bsc before "},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				st, home, away := newStore(t), fake.NewWorld(1), fake.NewWorld(4)
				t.Cleanup(home.Close)
				t.Cleanup(away.Close)
				o := environment(2)
				o.Domain, o.Recallable = "bsc", true
				g := start(t, Config{Store: st, Domain: "home", Sites: []Site{
					{Name: "here", Adapter: home.Open(environment(2)), Model: SiteModel{Ahead: new(int)}}, {Name: "bsc", Adapter: away.Open(o)},
				}})
				defer g.stop()
				<-g.Ready()
				synctest.Wait()
				shows := g.showing(st, "bsc")
				if err := g.SetPeers(&Peering{Own: "home", Policy: routing.Policy{Overload: time.Second, Recover: time.Second}, Peers: map[string]Standing{"bsc": {Role: routing.Equal}}}); err != nil {
					t.Fatal(err)
				}
				shows(4)
				long := g.submit("sleep 10h; exit 0")
				g.until(long, bes.Running, "Executing")
				var refusing atomic.Bool
				refusing.Store(c.refuses)
				away.Inject(func(op string, _ adapters.Tag) fake.Fault {
					if op == "submit" && refusing.Load() {
						return fake.Fault{Err: fail.Errorf("fake", fail.Exhausted, "", "full")}
					}
					return fake.Fault{}
				})
				e := g.submit("sleep 2h; exit 0")
				id, _ := idOf(e)
				aside := func() (out time.Duration, times int) {
					time.Sleep(100 * time.Millisecond)
					synctest.Wait()
					recs, err := st.Get(context.Background(), id)
					if err != nil || len(recs[id].Status.Aside) != 1 {
						t.Fatalf("%v %+v\n%s", err, recs[id].Status, g.story(e))
					}
					a := recs[id].Status.Aside[0]
					return time.Until(a.Until), a.Times
				}
				if !c.refuses {
					g.until(e, bes.Running, "Executing")
					if err := away.Lose(adapters.Tag(id+"-1"), false); err != nil {
						t.Fatal(err)
					}
				}
				left, times := aside()
				if times != 1 || left < c.least || left > c.most {
					t.Errorf("it stays away for %s, %d times", left, times)
				}
				if story := g.story(e); !strings.Contains(story, c.says) {
					t.Error(story)
				}
				if s := g.status(e); s.Details.Site != "" || !strings.Contains(s.Details.Reason, "the domain bsc is none for it: it could not take the job or gave it back, and is asked again at ") {
					t.Errorf("%s: %s", s.State, s.Details.Reason)
				}
				refusing.Store(false)
				other := g.submit("sleep 2h; exit 0")
				if s := g.until(other, bes.Running, "Executing"); s.Details.Site != "bsc" {
					t.Errorf("the other is at %s", s.Details.Site)
				}
				if s := g.status(e); s.Details.Site != "" {
					t.Errorf("it is at %s already", s.Details.Site)
				}
				// It goes there again when the time is over, though nothing else happens.
				refusing.Store(c.refuses)
				time.Sleep(left)
				if !c.refuses {
					g.until(e, bes.Running, "Executing")
					if err := away.Lose(adapters.Tag(id+"-2"), false); err != nil {
						t.Fatal(err)
					}
				}
				longer, times := aside()
				if times != 2 || longer < left/2 {
					t.Errorf("the second time it stays away for %s, %d times", longer, times)
				}
				// The own sites need not wait for that.
				if err := one1(g.TerminateActivities(as("ada"), []soap.EPR{long})); err != nil {
					t.Fatal(err)
				}
				if s := g.until(e, bes.Running, "Executing"); s.Details.Site != "here" {
					t.Errorf("it is at %s\n%s", s.Details.Site, g.story(e))
				}
				if now, _ := aside(); now <= 0 {
					t.Error("it was not before its time")
				}
			})
		})
	}
}
