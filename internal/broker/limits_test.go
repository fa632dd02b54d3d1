package broker

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/broker/limits"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
)

// tally is a store that counts, with each write, how many jobs and CPUs are at a site.
type tally struct {
	store.Store
	site string

	mu         sync.Mutex
	at         map[string]int // CPUs by job
	jobs, cpus int            // that were there at once
}

func (s *tally) Update(ctx context.Context, sess store.Session, cs ...store.Change) []store.Changed {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.Store.Update(ctx, sess, cs...)
	for i, c := range cs {
		if out[i].Err != nil {
			continue
		}
		delete(s.at, c.ID)
		if p := c.Status.Placement; p != nil && p.Site == s.site && Phase(c.Status.Phase).atSite() {
			s.at[c.ID] = p.CPUs
		}
	}
	cpus := 0
	for _, n := range s.at {
		cpus += n
	}
	s.jobs, s.cpus = max(s.jobs, len(s.at)), max(s.cpus, cpus)
	return out
}

// now gives how many jobs and CPUs are there, and the most that were at once since it was
// asked last.
func (s *tally) now() (jobs, mostJobs, mostCPUs int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	jobs, mostJobs, mostCPUs = len(s.at), s.jobs, s.cpus
	s.jobs, s.cpus = 0, 0
	return jobs, mostJobs, mostCPUs
}

func tallied(t *testing.T) *tally {
	return &tally{Store: newStore(t), site: "here", at: map[string]int{}}
}

func (g *gateway) limit(subject string, most int) {
	g.t.Helper()
	s, err := limits.ParseSubject(subject)
	if err == nil && most < 0 {
		err = g.SetLimit(as("root"), s, nil)
	} else if err == nil {
		err = g.SetLimit(as("root"), s, &most)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	synctest.Wait()
}

// used gives "subject=used/max" of the limits.
func (g *gateway) used() string {
	g.t.Helper()
	v, err := g.Limits(as("ada"))
	if err != nil {
		g.t.Fatal(err)
	}
	var out []string
	for _, l := range v.Limits {
		out = append(out, fmt.Sprintf("%s=%d/%d", l.Subject, l.Used, l.Max))
	}
	return strings.Join(out, " ")
}

// A site has no more jobs and CPUs than its limits allow, those who wait are told which
// limit it is, and a change holds for them at once.
func TestSiteLimit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st, w := tallied(t), fake.NewWorld(16)
		g := here(t, w, environment(16), func(c *Config) { c.Store = st })
		g.limit("site:here", 3)
		var es []soap.EPR
		for range 12 {
			es = append(es, g.submit("hang"))
		}
		synctest.Wait()
		if jobs, most, _ := st.now(); jobs != 3 || most != 3 || g.used() != "site:here=3/3" {
			t.Errorf("%d jobs are there, %d were; %s", jobs, most, g.used())
		}
		const says = "has as many jobs as its limit allows at once (site:here: 3 jobs)"
		if s := g.status(es[11]); !strings.Contains(s.Details.Reason, says) {
			t.Errorf("it waits for %q", s.Details.Reason)
		}
		m, err := g.Match(as("ada"), document("exit 0"), "")
		if err != nil || m.Now || !m.Could || !strings.Contains(m.Sentence, says) || len(m.Verdicts) != 1 || m.Verdicts[0].Now || len(m.Verdicts[0].Clauses) != 1 ||
			!strings.Contains(m.Verdicts[0].Clauses[0].Sentence, says) || m.Verdicts[0].Clauses[0].Has != "site:here: 3 jobs" || !m.Verdicts[0].Clauses[0].Dynamic {
			t.Errorf("%v %+v", err, m)
		}
		// One ends, one follows.
		if err := one1(g.TerminateActivities(as("ada"), es[:1])); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if jobs, most, _ := st.now(); jobs != 3 || most != 3 {
			t.Errorf("%d jobs are there, %d were", jobs, most)
		}
		g.limit("site:*", 4) // its own limit stands
		g.limit("site:here", 6)
		if jobs, most, _ := st.now(); jobs != 6 || most != 6 || g.used() != "site:*=0/4 site:here=6/6" {
			t.Errorf("%d jobs are there, %d were; %s", jobs, most, g.used())
		}
		g.limit("site:here", 1)
		time.Sleep(time.Minute)
		if jobs, _, _ := st.now(); jobs != 6 || g.used() != "site:*=0/4 site:here=6/1" {
			t.Errorf("a lower limit leaves %d; %s", jobs, g.used())
		}
		g.limit("site:*", 0)
		g.limit("site:here", -1)
		if err := one1(g.TerminateActivities(as("ada"), es[1:8])); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if jobs, _, _ := st.now(); jobs != 0 || g.used() != "site:*=0/0" {
			t.Errorf("%d jobs are there; %s", jobs, g.used())
		}
		if s := g.status(es[11]); !strings.Contains(s.Details.Reason, "the site here is closed: its limit allows no further job (site:*: 0 jobs)") {
			t.Errorf("it waits for %q", s.Details.Reason)
		}
		g.limit("site:*", -1)
		if jobs, _, _ := st.now(); jobs != 4 {
			t.Errorf("without a limit %d are there", jobs)
		}
		v, err := g.Limits(as("ada"))
		if err != nil || len(v.Changes) != 7 || v.Changes[0].Who != "root" || v.Changes[0].After != nil || *v.Changes[0].Before != 0 {
			t.Errorf("%v %+v", err, v.Changes)
		}
	})
}

func TestSiteLimitOfCPUs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st, w := tallied(t), fake.NewWorld(64)
		g := here(t, w, environment(64), func(c *Config) { c.Store = st })
		g.limit("site-cpus:here", 10)
		doc := func(cpus int) []byte {
			return asking("hang", fmt.Sprintf(`<jsdl:TotalCPUCount><jsdl:Exact>%d</jsdl:Exact></jsdl:TotalCPUCount>`, cpus))
		}
		var es []soap.EPR
		for _, cpus := range []int{4, 4, 4, 2, 1} {
			es = append(es, g.must("ada", doc(cpus)))
		}
		synctest.Wait()
		if jobs, _, most := st.now(); jobs != 3 || most != 10 || g.used() != "site-cpus:here=10/10" {
			t.Errorf("%d jobs are there, with %d CPUs; %s", jobs, most, g.used())
		}
		for i, want := range map[int]string{2: "4 further CPUs (site-cpus:here: 10 CPUs)", 4: "1 further CPU (site-cpus:here: 10 CPUs)"} {
			if s := g.status(es[i]); !strings.Contains(s.Details.Reason, want) {
				t.Errorf("it waits for %q", s.Details.Reason)
			}
		}
		g.limit("user-cpus:ada", 16)
		if _, err := g.create("ada", doc(2)); !fail.Is(err, fail.NotAccepting) || !strings.Contains(fail.Sentence(err), "live jobs with 15 CPUs and may have 16, and the job asks for 2") {
			t.Errorf("%v", err)
		}
		if m, err := g.Match(as("ada"), doc(2), ""); err != nil || !strings.Contains(m.Sentence, "it would not be taken in now: the user ada has live jobs with 15 CPUs") {
			t.Errorf("%v %+v", err, m)
		}
		g.must("ada", doc(1))
	})
}

// What was placed before a start counts after it, as it was: for a gateway of the same name,
// and for one of another that has the store alone.
func TestLimitsAfterAStart(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st, w := tallied(t), fake.NewWorld(64)
		t.Cleanup(w.Close)
		run := func(replica string, alone bool) *gateway {
			g := start(t, Config{Store: st, Replica: replica, Alone: alone, Sites: []Site{{Name: "here", Adapter: w.Open(environment(64))}}})
			<-g.Ready()
			synctest.Wait()
			return g
		}
		doc := asking("hang", `<jsdl:TotalCPUCount><jsdl:Exact>3</jsdl:Exact></jsdl:TotalCPUCount>`)
		g := run("one", false)
		g.limit("site:here", 4)
		g.limit("site-cpus:here", 12)
		g.limit("user:ada", 100)
		g.limit("user-cpus:ada", 100)
		var es []soap.EPR
		for range 6 {
			es = append(es, g.must("ada", doc))
		}
		synctest.Wait()
		g.stop()
		for _, next := range []struct {
			name  string
			alone bool
		}{{"one", false}, {"one", true}, {"two", true}} {
			g = run(next.name, next.alone)
			time.Sleep(time.Minute)
			if jobs, most, _ := st.now(); jobs != 4 || most > 4 || g.used() != "site:here=4/4 site-cpus:here=12/12 user:ada=6/100 user-cpus:ada=18/100" {
				t.Errorf("as %+v %d jobs are there, %d were; %s", next, jobs, most, g.used())
			}
			g.stop()
		}
		g = run("two", true)
		g.limit("site:here", 5) // the CPUs bound it
		if err := one1(g.TerminateActivities(as("ada"), es[:1])); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if jobs, most, cpus := st.now(); jobs != 4 || most != 4 || cpus != 12 || g.used() != "site:here=4/5 site-cpus:here=12/12 user:ada=5/100 user-cpus:ada=15/100" {
			t.Errorf("%d jobs are there, %d were, with %d CPUs; %s", jobs, most, cpus, g.used())
		}
		if err := one1(g.TerminateActivities(as("ada"), es[1:])); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if g.used() != "site:here=0/5 site-cpus:here=0/12 user:ada=0/100 user-cpus:ada=0/100" {
			t.Error(g.used())
		}
		g.stop()
		left, _, err := st.ListRecords(t.Context(), "limits/used/", store.RecordOptions{})
		if err != nil || len(left) != 0 {
			t.Errorf("counts are left: %v %+v", err, left)
		}
	})
}

// Gateways that place jobs at one site at the same time never exceed its limit together,
// though their stores fail and processes die.
func TestSiteLimitOverReplicas(t *testing.T) {
	for seed := range 12 {
		bubble(t, func(t *testing.T) {
			st, w := tallied(t), fake.NewWorld(32)
			t.Cleanup(w.Close)
			run := func(name string, deeds int) (*gateway, *life) {
				l := &life{left: deeds, after: seed%2 == 0, dead: make(chan struct{})}
				g := start(t, Config{
					Store: mortalStore{st, l, nil}, Replica: name,
					Sites: []Site{{Name: "here", Adapter: mortal{w.Open(environment(32)), l, false}}},
				})
				<-g.Ready()
				return g, l
			}
			g, _ := run("one", -1)
			synctest.Wait()
			g.limit("site:here", 5)
			h, dying := run("two", 20+7*seed)
			synctest.Wait()
			var es []soap.EPR
			for i := range 40 {
				at := g
				if i%2 == 0 && !dying.gone() {
					at = h
				}
				if e, err := at.create("ada", document(fmt.Sprintf("sleep %d; exit 0", 1+i%5))); err == nil {
					es = append(es, e)
				}
			}
			time.Sleep(time.Second)
			h.stop()
			h, _ = run("two", -1)
			for _, e := range es {
				g.until(e, bes.Finished, "")
			}
			time.Sleep(time.Minute)
			if _, most, _ := st.now(); most > 5 || most < 2 {
				t.Errorf("seed %d: %d jobs were there at once; the limit is 5", seed, most)
			}
			if g.used() != "site:here=0/5" || h.used() != "site:here=0/5" {
				t.Errorf("seed %d: all have ended, and %s, %s", seed, g.used(), h.used())
			}
			g.stop()
			h.stop()
		})
	}
}

// What a fenced site had counts there no more: it counts where it goes, as far as the
// limit of that site lets it.
func TestFenceFreesTheLimit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := fake.NewWorld(8), fake.NewWorld(8)
		b.Down("it is not there yet")
		g := start(t, Config{Store: newStore(t), Sites: []Site{{Name: "here", Adapter: a.Open(environment(8))}, {Name: "there", Adapter: b.Open(environment(8))}}})
		t.Cleanup(func() {
			a.Close()
			b.Close()
			g.stop()
		})
		<-g.Ready()
		g.limit("site:here", 2)
		g.limit("site:there", 2)
		var es []soap.EPR
		for range 3 {
			es = append(es, g.must("ada", rerunning("sleep 4000")))
		}
		g.until(es[1], bes.Running, "Executing")
		if got := g.used(); got != "site:here=2/2 site:there=0/2" {
			t.Error(got)
		}
		a.Down("the hall burns")
		g.untilSite("here", SiteDown)
		b.Up()
		g.until(es[2], bes.Running, "Executing")
		if got := g.used(); got != "site:here=2/2 site:there=1/2" {
			t.Error(got)
		}
		if r, err := g.FenceSite(as("root"), "here", "burnt down", time.Time{}); err != nil || r.Again != 2 {
			t.Fatalf("%+v, %v", r, err)
		}
		time.Sleep(time.Minute)
		if got := g.used(); got != "site:here=0/2 site:there=2/2" {
			t.Error(got)
		}
		for _, e := range es {
			g.until(e, bes.Finished, "")
		}
		synctest.Wait()
		if got := g.used(); got != "site:here=0/2 site:there=0/2" {
			t.Error(got)
		}
	})
}
