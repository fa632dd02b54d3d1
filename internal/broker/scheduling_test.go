package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/broker/limits"
	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/resourcemodel"
)

// asking is a document with more in its Resources.
func asking(script, resources string) []byte {
	doc := string(document(script, "here", "there"))
	i, j := strings.Index(doc, "<jsdl:Resources>"), strings.Index(doc, "</jsdl:Resources>")
	return []byte(doc[:i] + "<jsdl:Resources>" + resources + doc[j:])
}

func placementOf(inner string) string {
	return `<q:Placement xmlns:q="` + jsdl.NSPortolan + `">` + inner + `</q:Placement>`
}

func (g *gateway) create(who string, doc []byte) (soap.EPR, error) {
	r, err := g.CreateActivity(as(who), &bes.CreateActivityRequest{Document: doc})
	if err != nil {
		return soap.EPR{}, err
	}
	return r.Activity, nil
}

func (g *gateway) must(who string, doc []byte) soap.EPR {
	g.t.Helper()
	e, err := g.create(who, doc)
	if err != nil {
		g.t.Fatal(err)
	}
	return e
}

func environment(cpus int) fake.Options {
	return fake.Options{Environment: adapters.Environment{
		ID: "nodes", OperatingSystem: "LINUX", CPUArchitecture: "x86_64", CPUs: cpus, Memory: 8 << 30, Nodes: 1, Available: 1,
		HostNames: []string{"n1"},
	}}
}

// A job goes where the model says that it fits, a refusal names the clause of each site,
// and Match tells both beforehand.
func TestModelDecides(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := fake.NewWorld(4), fake.NewWorld(4)
		t.Cleanup(b.Close)
		g := here(t, a, environment(2), func(c *Config) {
			c.Sites = append(c.Sites, Site{Name: "there", Adapter: b.Open(environment(16))})
		})
		cpus := func(n int) []byte {
			return asking("exit 0", fmt.Sprintf(`<jsdl:TotalCPUCount><jsdl:Exact>%d</jsdl:Exact></jsdl:TotalCPUCount>`, n))
		}
		if s := g.until(g.must("ada", cpus(8)), bes.Finished, ""); s.Details.Site != "there" {
			t.Errorf("8 CPUs: run at %s", s.Details.Site)
		}
		_, err := g.create("ada", cpus(64))
		if !fail.Is(err, fail.Unsupported) {
			t.Fatalf("64 CPUs: %v", err)
		}
		for _, say := range []string{"no site here can ever run this", "site here: ", "site there: ", "TotalCPUCount", "16"} {
			if !strings.Contains(fail.Sentence(err), say) {
				t.Errorf("%q does not say %q", fail.Sentence(err), say)
			}
		}
		m, err := g.Match(as("ada"), cpus(8), "")
		if err != nil || !m.Could || !m.Now || len(m.Ranked) != 1 || m.Ranked[0].Place.Site != "there" || !strings.Contains(m.Sentence, "there") || len(m.Verdicts) != 2 || m.Verdicts[1].Could {
			t.Errorf("%v %+v", err, m)
		}
		m, err = g.Match(as("ada"), cpus(64), "")
		if err != nil || m.Could || m.Now || m.Nearest == "" || !strings.Contains(m.Sentence, "site here: ") {
			t.Errorf("%v %+v", err, m)
		}
		// What the model has no words for is the adapter's to refuse.
		m, err = g.Match(as("ada"), document("unsupported it needs a moon"), "")
		if err != nil || m.Could || !strings.Contains(m.Sentence, "moon") {
			t.Errorf("%v %+v", err, m)
		}
		if n, _ := g.cfg.Store.Count(context.Background(), ""); n != 1 {
			t.Errorf("Match left %d jobs", n-1)
		}
	})
}

// The VO of a document must be one of the caller's, and a site may be for some only.
func TestVO(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := fake.NewWorld(4), fake.NewWorld(4)
		g := two(t, a, b, fake.Options{}, func(c *Config) {
			c.Sites[1].Model.Policy.Allow = []string{"vo:bio"}
			c.Member = func(who soap.Principal, vo string) error {
				if who.Name == "ada" && vo == "bio" {
					return nil
				}
				return errors.New("no")
			}
		})
		vo := func(vo string) []byte { return asking("exit 0", placementOf("<q:VO>"+vo+"</q:VO>")) }
		if _, err := g.create("bob", vo("bio")); !fail.Is(err, fail.Denied) {
			t.Errorf("bob in bio: %v", err)
		}
		_, err := g.create("ada", document("exit 0", "there"))
		if !fail.Is(err, fail.Unsupported) || !strings.Contains(fail.Sentence(err), "VO") {
			t.Errorf("without a VO: %v", err)
		}
		g.until(g.must("ada", vo("bio")), bes.Finished, "")
	})
}

// Decisions tell why, and stay when the gateway starts anew.
func TestDecisions(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b, st := fake.NewWorld(1), fake.NewWorld(2), newStore(t)
		g := two(t, a, b, fake.Options{}, func(c *Config) { c.Store = st })
		time.Sleep(time.Second) // the shared model has the sites
		e := g.must("ada", document("exit 0"))
		g.until(e, bes.Finished, "")
		synctest.Wait()
		ds, err := g.Decisions(as("ada"), e)
		if err != nil || len(ds) != 1 {
			t.Fatalf("%v %+v", err, ds)
		}
		d := ds[0]
		if d.Place.Site != "there" || d.Attempt != 1 || len(d.Ranked) != 2 || d.Ranked[0].Place != d.Place || d.Policy[policy.Selection] == "" || d.Model == 0 {
			t.Errorf("%+v", d)
		}
		if _, err := g.Decisions(as("bob"), e); !fail.Is(err, fail.NotFound) {
			t.Errorf("another's: %v", err)
		}
	})
}

func TestDecisionsAreBounded(t *testing.T) {
	for _, alone := range []bool{false, true} { // alone, they are counted anew now and then only
		bubble(t, func(t *testing.T) {
			st := newStore(t)
			g := here(t, fake.NewWorld(4), fake.Options{}, func(c *Config) { c.Store, c.Limits.Decisions, c.Alone = st, 10, alone })
			for range 100 {
				g.until(g.submit("exit 0"), bes.Finished, "")
				synctest.Wait()
			}
			recs, _, err := st.ListRecords(context.Background(), decisionPrefix, store.RecordOptions{})
			if err != nil || len(recs) > 12 || len(recs) < 10 {
				t.Errorf("%d records, %v", len(recs), err)
			}
		})
	}
	long := schedule.Decision{Job: "x"}
	for i := range schedule.MaxRuled {
		long.Out = append(long.Out, schedule.Ruled{Place: resourcemodel.Place{Share: fmt.Sprint(i)}, Sentence: strings.Repeat("x", 400)})
	}
	v, err := encodeDecision(&long)
	if err != nil || len(v) > mostDecision || len(long.Out) != schedule.MaxRuled || !strings.Contains(string(v), `"more":`) {
		t.Errorf("%v: %d bytes, %.300s", err, len(v), v)
	}
}

// A policy that is changed while jobs wait orders the next decision, is remembered, and
// is audited.
func TestPolicyChanges(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, st := fake.NewWorld(1), newStore(t)
		t.Cleanup(w.Close)
		cfg := Config{Store: st, Limits: Limits{Ahead: 1}, Sites: []Site{{Name: "here", Adapter: w.Open(fake.Options{})}}}
		none := 0
		cfg.Sites[0].Model.Ahead = &none
		g := start(t, cfg)
		<-g.Ready()
		first := g.submit("sleep 100")
		g.until(first, bes.Running, "Executing")
		low := g.must("ada", asking("sleep 10", placementOf("<q:Priority>1</q:Priority>")))
		high := g.must("ada", asking("sleep 10", placementOf("<q:Priority>900</q:Priority>")))
		if s := g.status(low); !strings.Contains(s.Details.Reason, "full") {
			t.Errorf("it waits: %q", s.Details.Reason)
		}
		for _, c := range []struct {
			what  string
			who   string
			scope schedule.Scope
			set   policy.Setting
			kind  fail.Kind
		}{
			{"no such policy", "ada", schedule.Gateway, policy.Setting{Name: "sorcery"}, fail.Unsupported},
			{"no such scope", "ada", "planet:earth", policy.Setting{Name: "fifo"}, fail.Invalid},
			{"out of bounds", "ada", schedule.Gateway, policy.Setting{Name: "priority", Parameters: map[string]float64{"age": -1}}, fail.Invalid},
		} {
			if err := g.SetPolicy(as(c.who), c.scope, policy.Scheduling, &c.set, false); !fail.Is(err, c.kind) {
				t.Errorf("%s: %v", c.what, err)
			}
		}
		set := policy.Setting{Name: "priority", Parameters: map[string]float64{"age": 0}}
		if err := g.SetPolicy(as("root"), schedule.Gateway, policy.Scheduling, &set, false); err != nil {
			t.Fatal(err)
		}
		if err := g.SetPolicy(as("root"), schedule.Gateway, policy.Selection, &policy.Setting{Name: "first-fit"}, true); err != nil {
			t.Fatal(err)
		}
		g.stop()

		cfg.Sites[0].Adapter = w.Open(fake.Options{})
		g = start(t, cfg)
		<-g.Ready()
		v, err := g.Policies(as("ada"))
		if err != nil || v.Policies.Revision != 2 || v.Policies.InForce[schedule.Gateway][policy.Scheduling].Name != "priority" ||
			v.Policies.Shadow[schedule.Gateway][policy.Selection].Name != "first-fit" || len(v.Changes) != 2 || v.Changes[0].Who != "root" || !v.Changes[0].Shadow || len(v.Catalogue) == 0 {
			t.Errorf("%v %+v", err, v)
		}
		g.until(high, bes.Finished, "")
		if s := g.status(low); s.State.Final() {
			t.Error("the one of low priority ended before the other")
		}
		g.until(low, bes.Finished, "")
		ds, err := g.Decisions(as("ada"), high)
		if err != nil || len(ds) != 1 || !strings.HasPrefix(ds[0].Policy[policy.Scheduling], "priority") || ds[0].Shadow == nil {
			t.Errorf("%v %+v", err, ds)
		}
		if err := g.SetPolicy(as("root"), schedule.Gateway, policy.Scheduling, nil, false); err != nil {
			t.Fatal(err)
		}
		if v, _ := g.Policies(as("ada")); v.Policies.InForce[schedule.Gateway] != nil || v.Changes[0].After != nil || v.Changes[0].Before.Name != "priority" {
			t.Errorf("%+v", v.Policies)
		}
		g.stop()
	})
}

// Two gateways on one store see each other's policies and sites.
func TestReplicasShare(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st, a, b := newStore(t), fake.NewWorld(1), fake.NewWorld(1)
		t.Cleanup(a.Close)
		t.Cleanup(b.Close)
		g := start(t, Config{Store: st, Replica: "one", Sites: []Site{{Name: "here", Adapter: a.Open(fake.Options{})}}})
		h := start(t, Config{Store: st, Replica: "two", Sites: []Site{{Name: "there", Adapter: b.Open(fake.Options{})}}})
		<-g.Ready()
		<-h.Ready()
		synctest.Wait()
		m, err := g.Resources(as("ada"), time.Time{})
		if err != nil || m.Site(resourcemodel.Key{Site: "here"}) == nil || m.Site(resourcemodel.Key{Site: "there"}) == nil {
			t.Errorf("%v: %v", err, m)
		}
		if err := g.SetPolicy(as("root"), "vo:bio", policy.Scheduling, &policy.Setting{Name: "edf"}, false); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if v, _ := h.Policies(as("ada")); v.Policies.InForce["vo:bio"][policy.Scheduling].Name != "edf" {
			t.Errorf("%+v", v.Policies)
		}
		two := 2
		if err := g.SetLimit(as("root"), limits.Subject{Scope: limits.User, Name: "bob"}, &two); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := g.create("bob", document("hang", "here")); err != nil {
			t.Fatal(err)
		}
		last, err := h.create("bob", document("hang", "there"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.create("bob", document("hang", "here")); !fail.Is(err, fail.NotAccepting) {
			t.Errorf("the third of two: %v", err)
		}
		if err := one1(h.TerminateActivities(as("bob"), []soap.EPR{last})); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if _, err := g.create("bob", document("hang", "here")); err != nil {
			t.Errorf("one has ended: %v", err)
		}
		synctest.Wait()
		if ls, err := h.Limits(as("ada")); err != nil || len(ls.Limits) != 1 || ls.Limits[0].Used != 2 {
			t.Errorf("%v %+v", err, ls)
		}
		before, _ := g.Resources(as("ada"), time.Now())
		if before == nil || before.Site(resourcemodel.Key{Site: "here"}) == nil {
			t.Error("what was believed is not remembered")
		}
		g.stop()
		h.stop()
	})
}

// A dry run over BES says the same as Match, and creates nothing.
func TestDryRun(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := here(t, fake.NewWorld(4), environment(2))
		doc := asking("exit 0", `<jsdl:TotalCPUCount><jsdl:Exact>64</jsdl:Exact></jsdl:TotalCPUCount>`)
		m, err := g.MatchActivity(as("ada"), &bes.CreateActivityRequest{Document: doc})
		if err != nil || m.Could || m.Nearest == "" || len(m.Places) != 1 || m.Places[0].Name != "here/fake/nodes" || len(m.Places[0].Reasons) == 0 {
			t.Errorf("%v %+v", err, m)
		}
		_, refused := g.create("ada", doc)
		if refused == nil || !strings.Contains(fail.Sentence(refused), m.Places[0].Reasons[0]) || !strings.Contains(fail.Sentence(refused), m.Nearest) {
			t.Errorf("the fault says %v, the dry run %+v", refused, m)
		}
		if n, _ := g.cfg.Store.Count(context.Background(), ""); n != 0 {
			t.Errorf("%d jobs", n)
		}
	})
}

// Of a site with several shares, the one that was chosen is told to the manager, unless
// it is the default.
func TestShareIsTold(t *testing.T) {
	s := &site{static: &resourcemodel.Static{Shares: []resourcemodel.Share{{ID: "short", Default: true}, {ID: "long"}}}}
	def, problems := jsdl.Parse(document("exit 0"), jsdl.Options{})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	if s.inShare(def, "short") != def || s.inShare(def, "gone") != def || s.inShare(def, "") != def {
		t.Error("changed for nothing")
	}
	if got := s.inShare(def, "long"); got == def || *got.Description.Resources.Placement.Share != "long" || def.Description.Resources != nil {
		t.Errorf("%+v", got.Description.Resources)
	}
	named, _ := jsdl.Parse(asking("exit 0", placementOf("<q:Share>long</q:Share><q:Priority>3</q:Priority>")), jsdl.Options{})
	if s.inShare(named, "long") != named {
		t.Error("what the document names is left alone")
	}
}

// Whatever is listed, in the list of policies and in the refusal of one that there is not,
// is taken; and what is taken is listed.
func TestWhatIsListedIsTaken(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := here(t, fake.NewWorld(1), environment(1))
		v, err := g.Policies(as("ada"))
		if err != nil {
			t.Fatal(err)
		}
		listed := map[policy.Kind][]string{}
		for _, d := range v.Catalogue {
			listed[d.Kind] = append(listed[d.Kind], d.Name)
		}
		for _, kind := range policy.Kinds() {
			err := g.SetPolicy(as("root"), schedule.Gateway, kind, &policy.Setting{Name: "nothing"}, false)
			if want := fmt.Sprintf("of %s there are %s", kind, strings.Join(listed[kind], ", ")); !fail.Is(err, fail.Unsupported) || !strings.HasSuffix(fail.Sentence(err), want) {
				t.Errorf("%v; want %s", err, want)
			}
		}
		for _, d := range policy.Catalogue() {
			err := g.SetPolicy(as("root"), schedule.Gateway, d.Kind, &policy.Setting{Name: d.Name}, false)
			if taken := err == nil; taken != slices.Contains(listed[d.Kind], d.Name) {
				t.Errorf("%s %s is taken: %t, and listed: %t", d.Kind, d.Name, taken, !taken)
			}
		}
	})
}
