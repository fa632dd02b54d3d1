package schedule

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/resourcemodel"
)

// wakes is a world of sites and jobs of many kinds.
type wakes struct {
	*world
	rng   *rand.Rand
	kinds []*resourcemodel.Request
	under []string // jobs that have a place
	next  int
}

// requests of all kinds of clauses that may rule a place out for a while.
func (w *wakes) requests() {
	doc := func(before, after string, cpus int) []byte {
		return []byte(`<jsdl:JobDefinition xmlns:jsdl="` + jsdl.NS + `" xmlns:posix="` + jsdl.NSPOSIX + `" xmlns:p="` + jsdl.NSPortolan + `"><jsdl:JobDescription>` +
			`<jsdl:Application><posix:POSIXApplication><posix:Executable>/bin/true</posix:Executable></posix:POSIXApplication></jsdl:Application><jsdl:Resources>` + before +
			fmt.Sprintf(`<jsdl:TotalCPUCount><jsdl:LowerBoundedRange>%d</jsdl:LowerBoundedRange></jsdl:TotalCPUCount>`, cpus) + after + `</jsdl:Resources></jsdl:JobDescription></jsdl:JobDefinition>`)
	}
	hard := func(name, operator, value string) *jsdl.Criteria {
		return &jsdl.Criteria{List: []jsdl.Criterion{{Name: name, Type: "integer", Operator: operator, Value: value, Hard: true}}}
	}
	memory := `<jsdl:IndividualPhysicalMemory><jsdl:LowerBoundedRange>3</jsdl:LowerBoundedRange></jsdl:IndividualPhysicalMemory>`
	for _, k := range []struct {
		before, after string
		cpus          int
		criteria      *jsdl.Criteria
	}{
		{"", "", 1, nil},
		{"", "", 2, nil},
		{"", "", 3, nil},
		{"", "", 7, nil},
		{memory, "", 1, nil},
		{memory, "", 5, nil},
		{`<jsdl:ExclusiveExecution>true</jsdl:ExclusiveExecution>`, "", 1, nil},
		{"", `<jsdl:TotalResourceCount><jsdl:LowerBoundedRange>2</jsdl:LowerBoundedRange></jsdl:TotalResourceCount>`, 2, nil},
		{`<jsdl:CandidateHosts><jsdl:HostName>b</jsdl:HostName></jsdl:CandidateHosts>`, "", 1, nil},
		{"", `<p:Placement><p:Share>long</p:Share></p:Placement>`, 2, nil},
		{"", `<p:Placement><p:Licence name="solver">2</p:Licence></p:Placement>`, 1, nil},
		{"", "", 1, hard("FreeCPUs", "le", "2")}, // what is taken may help it
		{"", "", 1, hard("FreeSlots", "ge", "3")},
		{"", "", 1, hard("Running", "eq", "1")},
	} {
		def, problems := jsdl.Parse(doc(k.before, k.after, k.cpus), jsdl.Options{})
		if err := problems.Invalid().Err(); err != nil {
			w.t.Fatal(err)
		}
		for _, s := range []resourcemodel.Subject{{User: "ann", VO: "bio"}, {User: "bob", VO: "bio"}, {User: "cid", VO: "phys"}} {
			r, err := resourcemodel.CompileWith(def, s, k.criteria)
			if err != nil {
				w.t.Fatal(err)
			}
			w.kinds = append(w.kinds, r)
		}
	}
}

// unlike makes a site of two shares over two environments, with counters and rights.
func (w *wakes) unlike(name string) *resourcemodel.Site {
	n := w.rng.IntN
	s := &resourcemodel.Site{Key: resourcemodel.Key{Site: name}, Static: &resourcemodel.Static{
		Type: "fake",
		Shares: []resourcemodel.Share{
			{ID: "short", Environments: []string{"thin"}, Slots: n(4)},
			{ID: "long", Environments: []string{"thin", "fat"}, Slots: n(3), MaxCPUs: 4 * n(3)},
		},
		Environments: []resourcemodel.Environment{{ID: "thin", CPUs: 1 + n(3), Memory: int64(n(5))}, {ID: "fat", CPUs: 2 + n(8), Memory: 8}},
		Consumables:  []resourcemodel.Consumable{{Name: "solver", Total: 4}},
	}}
	switch n(5) {
	case 0:
		s.Static.Shares[1].Policy.Allow = []string{"vo:bio"}
	case 1:
		s.Static.Policy.Deny = []string{"user:bob"}
	}
	w.stand(s)
	return s
}

// stand lets a site stand in some other way than before.
func (w *wakes) stand(s *resourcemodel.Site) {
	n := w.rng.IntN
	d := &resourcemodel.Dynamic{Up: n(6) > 0, Shares: map[string]resourcemodel.ShareState{}, Environments: map[string]resourcemodel.EnvironmentState{}, Consumables: map[string]int64{"solver": int64(n(5))}}
	for i := range s.Static.Shares {
		h := &s.Static.Shares[i]
		d.Shares[h.ID] = resourcemodel.ShareState{Open: n(6) > 0, FreeSlots: n(h.Slots + 1), Running: n(3)}
	}
	for i := range s.Static.Environments {
		e := &s.Static.Environments[i]
		nodes := 1 + n(4)
		up := n(nodes + 1)
		d.Environments[e.ID] = resourcemodel.EnvironmentState{Nodes: nodes, Available: up, FreeNodes: n(up + 1), FreeCPUs: n(up*e.CPUs + 1), FreeMemory: int64(n(2) * (1 + n(20)))}
	}
	s.Dynamic = d
}

// gone takes a site out of the model.
func (w *wakes) gone(name string) {
	if w.sites[name] == nil {
		return
	}
	delete(w.sites, name)
	w.revision++
	if err := w.s.Apply(resourcemodel.Delta{Revision: w.revision, At: w.now, Changes: []resourcemodel.Change{{Key: resourcemodel.Key{Site: name}, Gone: true}}}); err != nil {
		w.t.Fatal(err)
	}
}

// change does something at random that may help somebody, or nobody.
func (w *wakes) change(names []string) {
	n := w.rng.IntN
	name := names[n(len(names))]
	switch n(12) {
	case 0, 1, 2, 3:
		if s := w.sites[name]; s != nil {
			copied := *s
			w.stand(&copied)
			w.put(&copied)
		}
	case 4:
		w.put(w.unlike(name))
	case 5:
		w.gone(name)
	case 6, 7, 8:
		if len(w.under) > 0 {
			i := n(len(w.under))
			w.s.Left(w.under[i])
			w.under = slices.Delete(w.under, i, i+1)
		}
	case 9:
		if len(w.under) > 0 {
			w.s.Settled(w.under[n(len(w.under))])
		}
	case 10:
		to := Site{Ahead: n(3) / 2, Most: n(8), MostCPUs: max(0, n(24)-8), Closed: n(5) == 0}
		if to.Closed && n(2) == 0 {
			to.Reopen = w.now.Add(time.Duration(n(90)) * time.Second)
		}
		w.s.SetSite(resourcemodel.Key{Site: name}, to)
	default:
		w.now = w.now.Add(time.Duration(n(60)) * time.Second)
	}
}

// TestWakesAreExact holds what wakes after each change against a full rescan that knows no
// index: the classes of jobs that slept and have room somewhere now wake, and no others. A
// Scheduler that looks at all places decides the same.
func TestWakesAreExact(t *testing.T) {
	woken, slept, decided := 0, 0, 0
	for seed := range uint64(20) {
		var made [2][]string
		for i, places := range []Places{NewIndexed(resourcemodel.Empty()), NewSurvey(resourcemodel.Empty())} {
			w := &wakes{world: newWorld(t, Options{Places: places}), rng: rand.New(rand.NewPCG(seed, 5))}
			w.requests()
			names := []string{"a", "b", "c", "d", "e", "f"}
			for _, n := range names[:4] {
				w.put(w.unlike(n))
			}
			for range 250 {
				w.come(names)
				for _, d := range w.round(0) {
					w.under = append(w.under, d.Job)
					made[i] = append(made[i], digest(&d))
				}
				asleep := map[int]bool{}
				for id, c := range w.s.byID {
					asleep[id] = !c.awake[0]
				}
				for range 1 + w.rng.IntN(2) {
					w.change(names)
				}
				w.s.refresh(w.now)
				room := w.rescan()
				for _, id := range slices.Sorted(maps.Keys(w.s.byID)) {
					c := w.s.byID[id]
					if !asleep[id] {
						continue
					}
					slept++
					if c.awake[0] != room[id] {
						t.Fatalf("seed %d: class %d woke: %v; it has room: %v; it needs %+v", seed, id, c.awake[0], room[id], c.request.Need)
					}
					if c.awake[0] {
						woken++
					}
				}
				if err := w.s.Audit(w.now); err != nil {
					t.Fatal(err)
				}
			}
		}
		if !slices.Equal(made[0], made[1]) {
			t.Errorf("seed %d: the index leads to other decisions", seed)
		}
		decided += len(made[0])
	}
	if woken < 1000 || slept < 5*woken || decided < 1500 {
		t.Errorf("%d classes woke of %d that slept, %d jobs were placed: the changes are not of the kind that tells", woken, slept, decided)
	}
	t.Logf("%d classes woke, of %d that slept when something changed; %d jobs were placed", woken, slept, decided)
}

// come lets some jobs come.
func (w *wakes) come(names []string) {
	for range w.rng.IntN(4) {
		r := w.kinds[w.rng.IntN(len(w.kinds))]
		j := &policy.Job{ID: fmt.Sprintf("j%06d", w.next), Owner: r.Subject.User, VO: r.Subject.VO, Submitted: w.now, CPUs: r.Need.CPUs, Request: r}
		e := Entry{Job: j, Attempt: 1}
		if w.rng.IntN(9) == 0 {
			e.Avoid = []resourcemodel.Key{{Site: names[w.rng.IntN(len(names))]}}
		}
		w.s.Add(e)
		w.next++
	}
}

// rescan tells which classes have room somewhere, looking at every place of the model less
// what every job takes that it does not show yet.
func (w *wakes) rescan() map[int]bool {
	all := NewSurvey(w.s.Snapshot())
	for _, g := range w.s.given {
		if g.unsettled {
			all.Take(g.place, &g.job.Request.Need)
		}
	}
	out := map[int]bool{}
	d := w.s.derived(w.now)
	for id, c := range w.s.byID {
		out[id] = slices.ContainsFunc(all.Candidates(nil, c.request, d), func(o Offer) bool {
			return w.s.room(c, w.s.site(all.Place(o.Order).Key), o.Order, o.Free, w.now) > 0
		})
	}
	return out
}
