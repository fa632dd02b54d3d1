package broker

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/broker/limits"
	"github.com/portolan-project/portolan/internal/broker/modelstore"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/resourcemodel"
)

// Gateways of two domains share the model and nothing else: each knows the other's sites,
// says why no job goes there, and gives them none.
func TestDomainsShareTheModel(t *testing.T) {
	bubble(t, func(t *testing.T) {
		model, a := newStore(t), fake.NewWorld(1)
		t.Cleanup(a.Close)
		g := start(t, Config{Store: model, Domain: "north", Sites: []Site{{Name: "here", Adapter: a.Open(environment(2))}}})
		<-g.Ready()
		synctest.Wait()
		// The other's place in the store is its own; of it only the model is seen.
		south, err := modelstore.Open(t.Context(), model, modelstore.Options{Domain: "south"})
		if err != nil {
			t.Fatal(err)
		}
		sess, err := model.Join(t.Context(), "south")
		if err != nil {
			t.Fatal(err)
		}
		there := resourcemodel.Key{Site: "there"}
		static := *g.sites["here"].static
		static.Environments = append([]resourcemodel.Environment{}, static.Environments...)
		static.Environments[0].CPUs = 64
		dynamic := *g.sites["here"].dynamic
		dynamic.Environments = map[string]resourcemodel.EnvironmentState{"nodes": {Nodes: 1, Available: 1, FreeNodes: 1, FreeCPUs: 64}}
		if _, err := south.Feed(t.Context(), sess, there, &static, &dynamic); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		m, err := g.Resources(as("ada"), time.Time{})
		away := resourcemodel.Key{Domain: "south", Site: "there"}
		if err != nil || m.Len() != 2 || m.Site(away) == nil || m.Site(resourcemodel.Key{Site: "here"}) == nil {
			t.Fatalf("%v: %d sites", err, m.Len())
		}
		if south.Snapshot().Len() != 1 {
			t.Errorf("what does not run has %d sites", south.Snapshot().Len())
		}
		if age, ok := g.Age(away); !ok || age != 0 {
			t.Errorf("its age is %v %v", age, ok)
		}
		doc := asking("exit 0", `<jsdl:TotalCPUCount><jsdl:Exact>64</jsdl:Exact></jsdl:TotalCPUCount>`)
		r, err := g.Match(as("ada"), doc, "")
		if err != nil || r.Could || r.Now || len(r.Verdicts) != 2 {
			t.Fatalf("%v %+v", err, r)
		}
		v := r.Verdicts[1]
		if v.Place.Key != away || v.Could || v.Now || len(v.Clauses) != 1 || v.Clauses[0].Element != "Domain" || !strings.Contains(v.Clauses[0].Sentence, "the domain south, with which this gateway has no session") {
			t.Errorf("a place that would fit, of another domain: %+v", v)
		}
		if !strings.HasPrefix(r.Sentence, "no site here can ever run this: site here") || strings.Contains(r.Sentence, "south") {
			t.Errorf("it says %q", r.Sentence)
		}
		if _, err := g.create("ada", doc); err == nil {
			t.Error("it is taken, though only another domain could run it")
		}
		for range 4 { // more than there is room for
			g.submit("hang")
		}
		time.Sleep(time.Minute)
		g.mu.Lock()
		for _, j := range g.jobs {
			if p := j.rec.Status.Placement; p != nil && p.Site != "here" {
				t.Errorf("a job is placed at %s", p.Site)
			}
		}
		g.mu.Unlock()
		// Nobody vouches for it any more.
		if err := sess.Close(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if age, ok := g.Age(away); !ok || age < time.Hour {
			t.Errorf("its age is %v %v", age, ok)
		}
		if age, ok := g.Age(resourcemodel.Key{Site: "here"}); !ok || age > time.Minute {
			t.Errorf("the age of our own is %v %v", age, ok)
		}
		g.stop()
	})
}

// A site that was taken out while the gateway was away leaves the model, and what others
// feed stays.
func TestSiteTakenOutWhileAway(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st, w := newStore(t), fake.NewWorld(1)
		t.Cleanup(w.Close)
		sites := []Site{{Name: "here", Adapter: w.Open(fake.Options{})}, {Name: "old", Adapter: w.Open(fake.Options{})}}
		g := start(t, Config{Store: st, Domain: "north", Sites: sites})
		<-g.Ready()
		synctest.Wait()
		south, err := modelstore.Open(t.Context(), st, modelstore.Options{Domain: "south"})
		if err != nil {
			t.Fatal(err)
		}
		sess, err := st.Join(t.Context(), "south")
		if err != nil {
			t.Fatal(err)
		}
		defer sess.Close()
		if _, err := south.Feed(t.Context(), sess, resourcemodel.Key{Site: "old"}, g.sites["old"].static, nil); err != nil {
			t.Fatal(err)
		}
		g.stop()
		names := func() string {
			records, _, err := st.ListRecords(t.Context(), "model/", store.RecordOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var out []string
			for _, r := range records {
				if strings.HasSuffix(r.Key, "/static") {
					out = append(out, r.Key)
				}
			}
			return strings.Join(out, " ")
		}
		if got := names(); got != "model/north/here/static model/north/old/static model/south/old/static" {
			t.Errorf("before: %s", got)
		}
		g = start(t, Config{Store: st, Domain: "north", Sites: sites[:1]})
		<-g.Ready()
		time.Sleep(3 * time.Minute)
		if got := names(); got != "model/north/here/static model/south/old/static" {
			t.Errorf("after: %s", got)
		}
		g.stop()
	})
}

// noting notes the keys of the records that are written through it.
type noting struct {
	store.Store
	mu   sync.Mutex
	keys map[string]bool
}

func (n *noting) PutRecords(ctx context.Context, s store.Session, changes ...store.RecordChange) (int64, error) {
	n.mu.Lock()
	for _, c := range changes {
		n.keys[c.Key] = true
	}
	n.mu.Unlock()
	return n.Store.PutRecords(ctx, s, changes...)
}

func (n *noting) Update(ctx context.Context, s store.Session, changes ...store.Change) []store.Changed {
	n.mu.Lock()
	for _, c := range changes {
		if c.Note != nil {
			n.keys[c.Note.Key] = true
		}
	}
	n.mu.Unlock()
	return n.Store.Update(ctx, s, changes...)
}

// below gives a key that begins with a prefix; "" if none does.
func (n *noting) below(prefix string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	for key := range n.keys {
		if strings.HasPrefix(key, prefix) {
			return key
		}
	}
	return ""
}

// Where the model's records are shared, all else that a gateway writes down is in its own
// part of the store: another domain may have a site of the same name, which is not fenced,
// and not as slow.
func TestOnlyTheModelIsShared(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st, w := newStore(t), fake.NewWorld(2)
		t.Cleanup(w.Close)
		own, common := &noting{Store: st, keys: map[string]bool{}}, &noting{Store: st, keys: map[string]bool{}}
		g := start(t, Config{Store: own, Shared: common, Domain: "north", Sites: []Site{{Name: "here", Adapter: w.Open(fake.Options{})}}})
		<-g.Ready()
		most := 5
		if err := g.SetLimit(as("ada"), limits.Subject{Scope: limits.User, Name: "ada"}, &most); err != nil {
			t.Fatal(err)
		}
		g.until(g.submit("sleep 10"), bes.Finished, "")
		g.until(g.must("ada", rerunning("sleep 4000")), bes.Running, "Executing")
		time.Sleep(2 * usageInterval)
		w.Down("the hall burns")
		g.untilSite("here", SiteDown)
		if r, err := g.FenceSite(as("ada"), "here", "burnt down", time.Time{}); err != nil || r.Again != 1 {
			t.Fatalf("%+v, %v", r, err)
		}
		synctest.Wait()
		for _, prefix := range []string{fencePrefix, learnedPrefix, usagePrefix, decisionPrefix, "limits/"} {
			if own.below(prefix) == "" {
				t.Errorf("nothing is written below %s of our own", prefix)
			}
		}
		for _, prefix := range modelstore.Prefixes() {
			if common.below(prefix) == "" {
				t.Errorf("nothing is written below %s of all", prefix)
			}
			if key := own.below(prefix); key != "" {
				t.Errorf("%s is written where the others don't see it", key)
			}
		}
		for key := range common.keys {
			if !slices.ContainsFunc(modelstore.Prefixes(), func(p string) bool { return strings.HasPrefix(key, p) }) {
				t.Errorf("%s is written for all to see", key)
			}
		}
		g.stop()
	})
}

// A site that was taken out of the configuration while nobody was here leaves the shared
// model: not before its jobs have ended, and never while another gateway has it.
func TestOrphansLeaveTheModel(t *testing.T) {
	for _, alone := range []bool{true, false} {
		bubble(t, func(t *testing.T) {
			st := newStore(t)
			w := map[string]*fake.World{}
			for _, name := range []string{"a", "b", "c", "other"} {
				w[name] = fake.NewWorld(4)
				t.Cleanup(w[name].Close)
			}
			run := func(replica string, names ...string) *gateway {
				c := Config{Store: st, Replica: replica, Alone: alone}
				for _, n := range names {
					c.Sites = append(c.Sites, Site{Name: n, Adapter: w[n].Open(environment(4))})
				}
				g := start(t, c)
				<-g.Ready()
				synctest.Wait()
				return g
			}
			believed := func(g *gateway) string {
				m, err := g.Resources(as("ada"), time.Time{})
				if err != nil {
					t.Fatal(err)
				}
				var names []string
				for s := range m.Sites() {
					names = append(names, s.Key.String())
				}
				return strings.Join(names, " ")
			}
			g := run("one", "a", "b", "c")
			e := g.submit("hang", "b")
			synctest.Wait()
			if got := believed(g); got != "a b c" {
				t.Errorf("the model has %s", got)
			}
			g.stop()
			want := "a b"
			if !alone {
				h := run("two", "other")
				defer h.stop()
				want = "a b other"
			}
			g = run("one", "a")
			if !alone && believed(g) != "a b c other" {
				t.Errorf("who else has c was not waited for: %s", believed(g))
			}
			time.Sleep(3 * time.Minute)
			if got := believed(g); got != want {
				t.Errorf("alone %t: the model has %s, not %s", alone, got, want)
			}
			if err := one1(g.AbandonActivities(as("ada"), []soap.EPR{e})); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			if got := believed(g); got != strings.Replace(want, " b", "", 1) {
				t.Errorf("alone %t: after its job was given up the model has %s", alone, got)
			}
			g.stop()
		})
	}
}
