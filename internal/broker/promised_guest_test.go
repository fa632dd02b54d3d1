package broker

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/peers/routing"
)

// TestPromisedToGuests: a job of an agreement with another domain's user runs as the account that the user was
// mapped to, after a restart too, and goes to no peer; a job of our own with the same document and owner is none
// of those.
func TestPromisedToGuests(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st, home, away := newStore(t), fake.NewWorld(1), fake.NewWorld(1)
		t.Cleanup(home.Close)
		t.Cleanup(away.Close)
		var mu sync.Mutex
		accounts := map[string]string{}
		spy := func() spySubmit {
			return spySubmit{Adapter: home.Open(environment(2)), see: func(j adapters.Job) {
				mu.Lock()
				defer mu.Unlock()
				accounts[jobOfTag(string(j.Tag))] = j.Account
			}}
		}
		boot := func() *gateway {
			o := environment(2)
			o.Domain = "bsc"
			a := away.Open(o)
			peer := &asPeer{Adapter: a, Watcher: a.(adapters.Watcher)}
			g := start(t, Config{Store: st, Domain: "home", Limits: Limits{Ahead: 1}, Sites: []Site{{Name: "here", Adapter: spy(), AccountDefault: "gateway"}, {Name: "bsc", Adapter: peer}}})
			<-g.Ready()
			synctest.Wait()
			if err := g.SetPeers(&Peering{Own: "home", Policy: routing.Policy{Overload: time.Second, Recover: time.Second}, Peers: map[string]Standing{"bsc": {Role: routing.Equal}}}); err != nil {
				t.Fatal(err)
			}
			return g
		}
		g := boot()
		g.showing(st, "bsc")(1)
		ada := soap.WithPrincipal(t.Context(), soap.Principal{Name: "ada@fiu", Domain: "fiu", Account: "bscguest"})
		doc := timed("sleep 600; exit 0", time.Hour, mayRunAgain)
		promise := func(name string) string {
			p, err := g.SubmitPromised(ada, &bes.CreateActivityRequest{SubmissionID: name, Document: doc}, Promise{Agreement: "urn:a1", Account: "root"})
			if err != nil {
				t.Fatal(err)
			}
			return p.ID
		}
		first, second := promise("1"), promise("2")
		ours, err := g.CreateActivity(soap.WithPrincipal(t.Context(), soap.Principal{Name: "ada@fiu"}), &bes.CreateActivityRequest{Document: doc})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if rec := g.record(second); rec.Status.Placement != nil && rec.Status.Placement.Site != "here" {
			t.Errorf("the job of another domain's user was given to %+v", rec.Status.Placement)
		}
		g.stop()
		g = boot()
		defer g.stop()
		for _, id := range []string{first, second} {
			for range 100 {
				if g.record(id).Status.Final {
					break
				}
				time.Sleep(time.Minute)
				synctest.Wait()
			}
			if rec := g.record(id); Phase(rec.Status.Phase) != Finished || rec.Status.Promise.Account != "bscguest" {
				t.Errorf("it is %s, as %q: %s", rec.Status.Phase, rec.Status.Promise.Account, rec.Status.Reason)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		for _, id := range []string{first, second} {
			if accounts[id] != "bscguest" {
				t.Errorf("it ran as %q", accounts[id])
			}
		}
		for id, account := range accounts {
			if id != first && id != second && account != "gateway" {
				t.Errorf("the job %s of our own ran as %q", id, account)
			}
		}
		_ = ours
	})
}
