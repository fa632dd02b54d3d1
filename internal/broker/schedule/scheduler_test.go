package schedule

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/resourcemodel"
)

func TestRoomIsTakenAtOnce(t *testing.T) {
	w := newWorld(t, Options{})
	w.put(siteOf("a", 1, 2), siteOf("b", 1, 1))
	for i := range 5 {
		w.add(policy.Job{ID: fmt.Sprintf("j%d", i)}, nil)
	}
	w.expect("j0→a j1→a j2→b", w.round(0))
	w.expect("", w.round(0))
	w.s.Left("j1")
	w.expect("j3→a", w.round(0))
	// The model shows them now: what it has as free is what is left.
	w.free("a", 0)
	w.s.Settled("j0")
	w.s.Settled("j3")
	w.expect("", w.round(0))
	w.free("a", 1)
	w.expect("j4→a", w.round(0))
	if n, unsettled := w.s.UnderWay(); n != 4 || unsettled != 2 {
		t.Errorf("%d are under way, %d of them not seen", n, unsettled)
	}
}

// A large job that finds no room does not hold up small ones.
func TestFullClassesArePassed(t *testing.T) {
	w := newWorld(t, Options{})
	w.put(siteOf("a", 1, 4))
	w.free("a", 2)
	w.add(policy.Job{ID: "j0", CPUs: 4}, nil)
	w.add(policy.Job{ID: "j1"}, nil)
	w.expect("j1→a", w.round(0))
	w.s.Left("j1")
	w.free("a", 4)
	w.expect("j0→a", w.round(0))
}

func TestAheadMostAndClosed(t *testing.T) {
	w := newWorld(t, Options{})
	w.put(siteOf("a", 1, 1))
	a := resourcemodel.Key{Site: "a"}
	w.s.SetSite(a, Site{Ahead: 2})
	for i := range 6 {
		w.add(policy.Job{ID: fmt.Sprintf("j%d", i)}, nil)
	}
	w.expect("j0→a j1→a j2→a", w.round(0))
	// What becomes free is owed to those that queue there.
	w.free("a", 0)
	w.s.Settled("j0")
	w.s.Left("j0")
	w.free("a", 1)
	w.expect("", w.round(0))
	w.free("a", 0)
	w.s.Settled("j1") // it runs
	w.expect("j3→a", w.round(0))
	w.s.SetSite(a, Site{Ahead: 9, Most: 4})
	w.expect("j4→a", w.round(0))
	w.s.SetSite(a, Site{Ahead: 9, Closed: true, Reopen: w.now.Add(time.Minute)})
	w.expect("", w.round(0))
	if next := w.s.Next(w.now); !next.Equal(w.now.Add(time.Minute)) {
		t.Errorf("next is %s", next)
	}
	w.now = w.now.Add(time.Minute)
	w.expect("j5→a", w.round(0))
	if next := w.s.Next(w.now); !next.IsZero() {
		t.Errorf("next is %s", next)
	}
}

func TestNotBefore(t *testing.T) {
	w := newWorld(t, Options{})
	w.put(siteOf("a", 1, 1))
	j := &policy.Job{ID: "j", Submitted: noon, Request: w.request("", "", 1, nil)}
	w.s.Add(Entry{Job: j, NotBefore: noon.Add(time.Hour)})
	w.expect("", w.round(0))
	if next := w.s.Next(w.now); !next.Equal(noon.Add(time.Hour)) {
		t.Errorf("next is %s", next)
	}
	w.now = noon.Add(time.Hour)
	w.expect("j→a", w.round(0))
}

func TestLimits(t *testing.T) {
	w := newWorld(t, Options{})
	w.put(siteOf("a", 1, 9))
	w.s.SetLimits(Limits{EachOwner: 2, VO: map[string]int{"bio": 3}})
	for i := range 4 {
		w.add(policy.Job{ID: fmt.Sprintf("a%d", i), Owner: "ann", VO: "bio"}, nil)
		w.add(policy.Job{ID: fmt.Sprintf("b%d", i), Owner: "bob", VO: "bio"}, nil)
	}
	w.expect("a0→a a1→a b0→a", w.round(0))
	w.s.Left("a0")
	w.expect("a2→a", w.round(0))
	w.s.Left("b0")
	w.expect("b1→a", w.round(0)) // ann has two again
}

func TestAvoid(t *testing.T) {
	w := newWorld(t, Options{})
	w.put(siteOf("a", 9, 9), siteOf("b", 1, 1))
	j := &policy.Job{ID: "j", Submitted: noon, Request: w.request("", "", 1, nil)}
	w.s.Add(Entry{Job: j, Avoid: []resourcemodel.Key{{Site: "a"}}})
	w.expect("j→b", w.round(0))
}

// A job that lost its place goes first under every policy and in every scope.
func TestHigherClassFirst(t *testing.T) {
	for _, p := range policy.Catalogue() {
		if p.Kind != policy.Scheduling {
			continue
		}
		w := newWorld(t, Options{})
		w.put(siteOf("a", 1, 1))
		if err := w.set(Gateway, policy.Scheduling, p.Name, false); err != nil {
			t.Fatal(err)
		}
		if err := w.set("vo:bio", policy.Scheduling, "fifo", false); err != nil {
			t.Fatal(err)
		}
		w.add(policy.Job{ID: "j0", VO: "bio", Submitted: noon.Add(-time.Hour)}, nil)
		w.add(policy.Job{ID: "j1", Priority: 9, Deadline: noon.Add(time.Minute)}, nil)
		w.add(policy.Job{ID: "j2", Class: 1}, nil)
		w.expect("j2→a", w.round(0))
	}
}

// TestNothingIsMissed does anything in any order: no wake is missed, no place is given
// more than it has, and after a round no job waits that has room somewhere.
func TestNothingIsMissed(t *testing.T) {
	total := 0
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			survey := anything(t, seed, 300, NewSurvey(resourcemodel.Empty()))
			index := anything(t, seed, 300, NewIndexed(resourcemodel.Empty()))
			if !t.Failed() && !slices.Equal(survey, index) {
				t.Errorf("the index leads to other decisions")
			}
			total += len(survey)
		})
	}
	if total < 60*20 {
		t.Errorf("only %d decisions were made", total)
	}
	t.Logf("%d decisions", total)
}

// anything gives the digests of the decisions.
func anything(t *testing.T, seed uint64, steps int, places Places) (made []string) {
	rng := rand.New(rand.NewPCG(seed, 1))
	w := newWorld(t, Options{Window: 8, Places: places})
	names := []string{"a", "b", "c", "d", "e"}
	for _, n := range names {
		w.put(siteOf(n, 1+rng.IntN(3), 1+rng.IntN(4)))
	}
	orders := []string{"fifo", "priority", "edf", "fairshare"}
	choices := []string{"least-loaded", "first-fit", "best-fit", "cheapest"}
	wishes := [][]jsdl.Criterion{
		nil, nil, nil,
		{{Name: "FreeCPUs", Type: "integer", Operator: "le", Value: "2", Hard: true}},
		{{Name: "FreeCPUs", Type: "integer", Operator: "max", Priority: 100}},
	}
	next := 0
	var ids []string
	for range steps {
		switch rng.IntN(14) {
		case 0, 1, 2, 3:
			for range 1 + rng.IntN(4) {
				w.add(policy.Job{
					ID: fmt.Sprintf("j%06d", next), Owner: names[rng.IntN(3)], VO: names[rng.IntN(2)], CPUs: 1 + rng.IntN(4),
					Class: rng.IntN(8) / 7, Priority: rng.IntN(3), Deadline: noon.Add(time.Duration(rng.IntN(9)) * time.Hour),
				}, wishes[rng.IntN(len(wishes))])
				next++
			}
		case 4:
			w.s.Remove(fmt.Sprintf("j%06d", rng.IntN(next+1)))
		case 5, 6:
			if len(ids) > 0 {
				i := rng.IntN(len(ids))
				id := ids[i]
				ids = append(ids[:i], ids[i+1:]...)
				w.s.Left(id)
			}
		case 7:
			n := names[rng.IntN(len(names))]
			w.free(n, rng.IntN(1+w.sites[n].Static.Environments[0].CPUs*3))
		case 8:
			site := Site{Ahead: rng.IntN(3), Most: rng.IntN(6), MostCPUs: max(0, rng.IntN(14)-6), Closed: rng.IntN(4) == 0}
			if site.Closed && rng.IntN(2) == 0 {
				site.Reopen = w.now.Add(time.Duration(rng.IntN(300)) * time.Second)
			}
			w.s.SetSite(resourcemodel.Key{Site: names[rng.IntN(len(names))]}, site)
		case 9:
			scope := []Scope{Gateway, "vo:a", "queue:q"}[rng.IntN(3)]
			var err error
			switch rng.IntN(4) {
			case 0:
				err = w.set(scope, policy.Scheduling, orders[rng.IntN(len(orders))], rng.IntN(3) == 0)
			case 1:
				err = w.set(scope, policy.Selection, choices[rng.IntN(len(choices))], rng.IntN(3) == 0)
			case 2:
				err = w.set(scope, policy.Pairing, []string{"none", "assignment"}[rng.IntN(2)], rng.IntN(3) == 0)
			case 3:
				w.policies.Shadow = nil
				err = w.set(scope, policy.Scheduling, "fifo", false)
			}
			if err != nil {
				t.Fatal(err)
			}
		case 10:
			w.s.SetLimits(Limits{EachOwner: rng.IntN(6), EachVO: rng.IntN(9)})
		case 11:
			w.now = w.now.Add(time.Duration(rng.IntN(120)) * time.Second)
		default:
			budget := []int{0, 0, 1, 3}[rng.IntN(4)]
			ds := w.round(budget)
			for n := 0; budget == 0 && w.s.Next(w.now).Equal(w.now); n++ {
				if n == 9 {
					t.Fatal("the next round is due at once, again and again")
				}
				ds = append(ds, w.round(0)...)
			}
			for _, d := range ds {
				if v := w.s.sites[d.Place.Key]; v.Most > 0 && v.jobs > v.Most || v.MostCPUs > 0 && v.cpus > v.MostCPUs {
					t.Fatalf("%s was given a job beyond its bounds: %d of %d, with %d CPUs of %d", d.Place, v.jobs, v.Most, v.cpus, v.MostCPUs)
				}
				ids = append(ids, d.Job)
				made = append(made, digest(&d))
				if budget > 0 && len(ds) > budget {
					t.Fatalf("%d placed, of %d", len(ds), budget)
				}
			}
			if budget == 0 {
				w.nobodyHasRoom()
			}
		}
		if err := w.s.Audit(w.now); err != nil {
			t.Fatal(err)
		}
		w.nobodyHasTooMuch()
		if t.Failed() {
			return nil
		}
	}
	return made
}

// nobodyHasRoom holds every job that waits against every place.
func (w *world) nobodyHasRoom() {
	w.t.Helper()
	s := w.s
	for id, j := range s.jobs {
		if j.class == nil || s.limited(j.class) {
			continue
		}
		cands := s.candidates(j.Request, s.derived(w.now))
		for i := range cands {
			if s.room(j.class, s.site(cands[i].Place.Key), cands[i].Order, cands[i].Free, w.now) > 0 && s.books[0].set.pairer(&j.Entry) == nil {
				w.t.Fatalf("%s waits after a round, though %s has room", id, cands[i].Place)
			}
		}
	}
}

// nobodyHasTooMuch counts what sites were given.
func (w *world) nobodyHasTooMuch() {
	jobs, cpus, ahead := map[resourcemodel.Key]int{}, map[resourcemodel.Key]int{}, map[resourcemodel.Key]int{}
	for _, g := range w.s.given {
		jobs[g.place.Key]++
		cpus[g.place.Key] += max(1, g.job.Request.Need.CPUs)
		if g.ahead {
			ahead[g.place.Key]++
		}
	}
	for k, v := range w.s.sites {
		if v.jobs != jobs[k] || v.cpus != cpus[k] || v.ahead != ahead[k] {
			w.t.Fatalf("%s counts %d jobs with %d CPUs, and %d ahead; there are %d, %d and %d", k, v.jobs, v.cpus, v.ahead, jobs[k], cpus[k], ahead[k])
		}
	}
	used := map[string]int{}
	for _, g := range w.s.given {
		used["user:"+g.job.Owner]++
		used["vo:"+g.job.VO]++
	}
	for name, l := range w.s.limits {
		if l.used != used[name] {
			w.t.Fatalf("%s counts %d jobs; there are %d", name, l.used, used[name])
		}
	}
}
