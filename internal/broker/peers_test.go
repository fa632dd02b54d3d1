package broker

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/broker/modelstore"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/peers/routing"
	"github.com/portolan-project/portolan/resourcemodel"
)

// asPeer is a site that can be asked for jobs.
type asPeer struct {
	adapters.Adapter
	adapters.Watcher
	mu  sync.Mutex
	why []string
}

func (a *asPeer) Properties() adapters.Properties {
	p := a.Adapter.Properties()
	p.Recall, p.Hold, p.Suspend = true, false, false
	return p
}

func (a *asPeer) Recall(ctx context.Context, hs []adapters.Handle, why string) []error {
	a.mu.Lock()
	a.why = append(a.why, why)
	a.mu.Unlock()
	return a.Cancel(ctx, hs)
}

// showing gives what has a domain show as many free slots as told, of a site like "here".
func (g *gateway) showing(st store.Store, domain string) func(free int) {
	g.t.Helper()
	their, err := modelstore.Open(g.t.Context(), st, modelstore.Options{Domain: domain})
	if err != nil {
		g.t.Fatal(err)
	}
	sess, err := st.Join(g.t.Context(), domain)
	if err != nil {
		g.t.Fatal(err)
	}
	return func(free int) {
		g.mu.Lock()
		static, dynamic := *g.sites["here"].static, *g.sites["here"].dynamic
		g.mu.Unlock()
		dynamic.Shares = map[string]resourcemodel.ShareState{}
		for _, h := range static.Shares {
			dynamic.Shares[h.ID] = resourcemodel.ShareState{Open: true, FreeSlots: free}
		}
		dynamic.Version++
		if _, err := their.Feed(g.t.Context(), sess, resourcemodel.Key{Site: "cluster"}, &static, &dynamic); err != nil {
			g.t.Fatal(err)
		}
		synctest.Wait()
	}
}

// TestPeersAreSites: what the own sites would not start at once goes to a peer, if its domain
// shows room for it; the choice is told in words; what waits there is asked back when the own
// sites have recovered.
func TestPeersAreSites(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st, home, away := newStore(t), fake.NewWorld(1), fake.NewWorld(1)
		t.Cleanup(home.Close)
		t.Cleanup(away.Close)
		o := environment(2)
		o.Domain = "bsc"
		a := away.Open(o)
		peer := &asPeer{Adapter: a, Watcher: a.(adapters.Watcher)}
		g := start(t, Config{Store: st, Domain: "home", Limits: Limits{Ahead: 1}, Sites: []Site{{Name: "here", Adapter: home.Open(environment(2))}, {Name: "bsc", Adapter: peer}}})
		defer g.stop()
		<-g.Ready()
		synctest.Wait()
		shows := g.showing(st, "bsc")
		if err := g.SetPeers(&Peering{Own: "home", Policy: routing.Policy{Overload: time.Second, Recover: time.Second}, Peers: map[string]Standing{"bsc": {Role: routing.Equal}}}); err != nil {
			t.Fatal(err)
		}
		shows(1)
		first := g.submit("sleep 10m; exit 0")
		g.until(first, bes.Running, "")
		second := g.submit("sleep 1h; exit 0")
		if s := g.until(second, bes.Running, ""); s.Details.Site != "bsc" {
			t.Errorf("it is at %s: %s", s.Details.Site, s.Details.Reason)
		}
		if story := g.story(second); !strings.Contains(story, "the own sites are too full, and the domain bsc could start it now; it is given to the site bsc, which is that peer") {
			t.Error(story)
		}
		ds, err := g.Decisions(as("ada"), second)
		if err != nil || len(ds) != 1 || ds[0].Domain != "bsc" || ds[0].Far == nil || ds[0].Far.Key != (resourcemodel.Key{Domain: "bsc", Site: "cluster"}) {
			t.Errorf("%v %+v", err, ds)
		}
		// Nothing is published of the peer as a site of ours.
		m, err := g.Resources(as("ada"), time.Time{})
		if err != nil || m.Site(resourcemodel.Key{Site: "bsc"}) != nil {
			t.Errorf("%v: the peer is a site of our own", err)
		}
		r, err := g.Match(as("ada"), document("exit 0"), "")
		if err != nil || !r.Could {
			t.Fatal(err)
		}
		for _, v := range r.Verdicts {
			if v.Place.Domain == "bsc" && !v.Could {
				t.Errorf("%+v", v)
			}
		}

		// Its room is spent, and many wait less there than at home; the own sites recover.
		var queued []soap.EPR
		for range 4 {
			queued = append(queued, g.submit("sleep 1m; exit 0"))
		}
		synctest.Wait()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		waits := 0
		for _, e := range queued {
			if s := g.status(e); s.Details.Site == "bsc" {
				waits++
			}
		}
		if waits == 0 {
			t.Fatal("none waits at the peer")
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		peer.mu.Lock()
		asked := len(peer.why)
		peer.mu.Unlock()
		if asked == 0 {
			t.Error("none was asked back")
		}
		if free, slots, ours := g.Room(); slots == 0 || free > slots || ours != 0 {
			t.Error(free, slots, ours)
		}
		if err := g.Admit(routing.Asking{Peer: "bsc", Origin: "bsc", Here: 3}, routing.Admission{MostJobs: 3}); !fail.Is(err, fail.Exhausted) {
			t.Error(err)
		}
		if err := g.SetPeers(&Peering{Own: "home", Policy: routing.Policy{Overload: time.Second, Recover: time.Minute}}); !fail.Is(err, fail.Invalid) {
			t.Error(err)
		}
		if x := g.Measured("bsc"); x.Jobs == 0 {
			t.Errorf("%+v", x)
		}
	})
}

// TestPinnedBeyondAPeer: a job that is pinned to a site or a domain that is known only through a peer goes to
// that peer; one that is pinned to what nobody shows is refused, and told what each has.
func TestPinnedBeyondAPeer(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st, home, away := newStore(t), fake.NewWorld(1), fake.NewWorld(8)
		t.Cleanup(home.Close)
		t.Cleanup(away.Close)
		o := environment(2)
		o.Domain, o.Environment.HostNames = "hub", nil
		a := away.Open(o)
		g := start(t, Config{Store: st, Domain: "home", Limits: Limits{Ahead: 1}, Sites: []Site{
			{Name: "here", Adapter: home.Open(environment(2))}, {Name: "hub", Adapter: &asPeer{Adapter: a, Watcher: a.(adapters.Watcher)}},
		}})
		defer g.stop()
		<-g.Ready()
		synctest.Wait()
		if err := g.SetPeers(&Peering{Own: "home", Policy: routing.Policy{Overload: time.Second, Recover: time.Second}, Peers: map[string]Standing{"hub": {Role: routing.Equal}}}); err != nil {
			t.Fatal(err)
		}
		// What the gateway's own sessions would bring: the hub shows a site of its child.
		g.mu.Lock()
		static, dynamic := *g.sites["here"].static, *g.sites["here"].dynamic
		g.mu.Unlock()
		dynamic.Shares = map[string]resourcemodel.ShareState{}
		for _, h := range static.Shares {
			dynamic.Shares[h.ID] = resourcemodel.ShareState{Open: true, FreeSlots: 8}
		}
		own, err := modelstore.Open(t.Context(), st, modelstore.Options{Domain: "home"})
		if err != nil {
			t.Fatal(err)
		}
		sess, err := st.Join(t.Context(), "sessions")
		if err != nil {
			t.Fatal(err)
		}
		key := resourcemodel.Key{Domain: "hub", Site: "leaf~hpc"}
		if _, _, err := own.Import(t.Context(), sess, []resourcemodel.Change{{Key: key, Static: &static, Dynamic: &dynamic, Gone: true}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		time.Sleep(time.Second)
		for _, name := range []string{"hub", "leaf", "hpc", "leaf~hpc", "leaf/hpc", "hub/leaf~hpc"} {
			if s := g.until(g.submit("exit 0", name), bes.Finished, ""); s.Details.Site != "hub" {
				t.Errorf("what is pinned to %s is at %s: %s", name, s.Details.Site, s.Details.Reason)
			}
		}
		for _, name := range []string{"twig", "twig/hpc", "hpc/leaf"} {
			_, err := g.CreateActivity(as("ada"), &bes.CreateActivityRequest{Document: document("exit 0", name)})
			if !fail.Is(err, fail.Unsupported) || !strings.Contains(fail.Sentence(err), "none of what the domain hub shows fits: CandidateHosts asks for \""+name+"\", which is neither the site hub/leaf~hpc nor a node of") {
				t.Errorf("what is pinned to %s: %v", name, err)
			}
		}
	})
}

// TestPinnedFromAfar: a peer's job that is pinned to what is ours, by whichever name others have for it, is at
// home here.
func TestPinnedFromAfar(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := fake.NewWorld(8)
		t.Cleanup(w.Close)
		o := environment(2)
		o.Accounts = []string{"bscguest"}
		g := start(t, Config{Store: newStore(t), Sites: []Site{{Name: "hpc", Adapter: w.Open(o)}}})
		defer g.stop()
		<-g.Ready()
		if err := g.SetPeers(&Peering{Own: "leaf"}); err != nil {
			t.Fatal(err)
		}
		for i, name := range []string{"hpc", "leaf", "leaf/hpc", "leaf~hpc", "hub/leaf~hpc", "hub/leaf", "n1", "leaf/n1"} {
			f := handed(200+i, time.Hour, "exit 0")
			f.Document = document("exit 0", name)
			if _, err := g.CheckForeign(&f); err != nil {
				t.Errorf("what is pinned to %s: %v", name, err)
			}
		}
		for i, name := range []string{"hub", "leaf/other", "leaflet"} {
			f := handed(300+i, time.Hour, "exit 0")
			f.Document = document("exit 0", name)
			if _, err := g.CheckForeign(&f); !fail.Is(err, fail.Unsupported) || !strings.Contains(fail.Sentence(err), "CandidateHosts") {
				t.Errorf("what is pinned to %s: %v", name, err)
			}
		}
	})
}
