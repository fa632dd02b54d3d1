package schedule

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/peers/routing"
	"github.com/portolan-project/portolan/resourcemodel"
)

// peersOf tells of peers that are called as their sites are.
func peersOf(p routing.Policy, domains ...string) *Peers {
	out := &Peers{Own: "home", Policy: p.EnsureDefaults(), Hops: 3}
	for _, d := range domains {
		out.Peers = append(out.Peers, Peer{Peer: routing.Peer{Domain: d, Role: routing.Equal}, Site: resourcemodel.Key{Site: d}})
	}
	return out
}

// show tells what a peer shows: a site with nodes of 4 CPUs of which so many CPUs are free.
func (w *world) show(domain string, nodes, free, waiting int, detail resourcemodel.Detail) {
	w.t.Helper()
	w.revision++
	s := siteOf("cluster", nodes, 4)
	s.Domain = domain
	stamp := resourcemodel.Stamp{Version: uint64(w.revision), Changed: w.now, Source: "test"}
	s.Static.Stamp, s.Dynamic.Stamp = stamp, stamp
	s.Static.Shares[0].Slots = nodes * 4
	s.Dynamic.Shares["all"] = resourcemodel.ShareState{Open: true, Running: nodes*4 - free, Waiting: waiting, FreeSlots: free}
	s.Dynamic.Environments["node"] = resourcemodel.EnvironmentState{Nodes: nodes, Available: nodes, FreeNodes: free / 4, FreeCPUs: free}
	s = resourcemodel.Aggregate(s, detail)
	if err := w.s.ApplyFar(resourcemodel.Delta{Revision: w.revision, At: w.now, Changes: []resourcemodel.Change{{Key: s.Key, Static: s.Static, Dynamic: s.Dynamic}}}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) addSome(prefix string, n int) {
	for i := range n {
		w.add(policy.Job{ID: fmt.Sprintf("%s%02d", prefix, i), Owner: "ann", VO: "bio"}, nil)
	}
}

// TestOverflow: own sites come first; what they would not start at once flows out only when
// the wait is above what the policy bears, and to no peer more than it has room for.
func TestOverflow(t *testing.T) {
	for _, detail := range []resourcemodel.Detail{resourcemodel.Full, resourcemodel.Categorized, resourcemodel.Simple} {
		t.Run(detail.String(), func(t *testing.T) {
			w := newWorld(t, Options{})
			w.put(siteOf("own", 1, 4))
			w.s.SetPeers(peersOf(routing.Policy{Typical: 10 * time.Minute}, "bsc", "fiu"))
			w.show("bsc", 1, 3, 0, detail)
			w.show("fiu", 1, 1, 4, detail)
			w.addSome("a", 4)
			w.expect("a00→own a01→own a02→own a03→own", w.round(0))
			w.addSome("b", 5)
			ds := w.round(0)
			w.expect("b00→bsc b01→bsc b02→bsc b03→fiu", ds)
			d := ds[0]
			if d.Domain != "bsc" || d.Far == nil || d.Far.Domain != "bsc" || d.Place.Domain != "" || d.Why != "the own sites are too full, and the domain bsc could start it now" || d.Far.Share != d.Place.Share {
				t.Errorf("%+v", d)
			}
			// The last one starts nowhere, and waits no longer at home.
			// That jobs run there does not free what they take, before the peer shows it.
			for _, id := range []string{"b00", "b01", "b02"} {
				w.s.Settled(id)
			}
			w.addSome("c", 1)
			if got := w.round(0); len(got) != 0 {
				t.Errorf("%+v", got)
			}
			w.show("bsc", 1, 1, 0, detail)
			if got := w.round(0); len(got) != 1 || got[0].Why != d.Why {
				t.Errorf("%+v", got)
			}
			// Many wait less at a peer's queue too, and not all of them.
			w.addSome("d", 40)
			got := w.round(0)
			if len(got) < 10 || len(got) > 30 || !strings.Contains(got[0].Why, "it would wait about") {
				t.Errorf("%d: %+v", len(got), got[0])
			}
		})
	}
}

// TestOwnFirst: what the policy bears is waited for at home, and a peer that is away, that
// refused the job or that it came through is none for it.
func TestOwnFirst(t *testing.T) {
	at := func(p routing.Policy) *world {
		w := newWorld(t, Options{})
		w.put(siteOf("own", 1, 4))
		w.s.SetPeers(peersOf(p, "bsc"))
		w.show("bsc", 4, 16, 0, resourcemodel.Full)
		w.addSome("a", 4)
		w.expect("a00→own a01→own a02→own a03→own", w.round(0))
		return w
	}
	w := at(routing.Policy{Overload: time.Hour})
	w.addSome("b", 2)
	w.expect("", w.round(0))
	if why, ok := w.s.Why("b00", w.now); !ok || !strings.Contains(why.Sentence, "the own sites come first as long as they are not too full") || !strings.Contains(why.Sentence, "the domain bsc could start it now") {
		t.Error(why.Sentence)
	}
	// Thirty jobs are more than it bears.
	w.addSome("c", 30)
	if ds := w.round(0); len(ds) < 10 || len(ds) == 32 {
		t.Errorf("%d", len(ds))
	}

	w = at(routing.Policy{Overload: time.Second})
	p := peersOf(routing.Policy{Overload: time.Second}, "bsc")
	p.Peers[0].Away = "its session is lost"
	w.s.SetPeers(p)
	w.addSome("b", 1)
	w.expect("", w.round(0))
	if why, _ := w.s.Why("b00", w.now); !strings.Contains(why.Sentence, "its session is lost") {
		t.Error(why.Sentence)
	}
	w.s.SetPeers(peersOf(routing.Policy{Overload: time.Second}, "bsc"))
	w.expect("b00→bsc", w.round(0))

	for _, e := range []Entry{
		{Avoid: []resourcemodel.Key{{Site: "bsc"}}},
		{Way: &Way{Path: []string{"bsc"}, Hops: 2}},
		{Way: &Way{Path: []string{"fiu"}}},
	} {
		w = at(routing.Policy{Overload: time.Second})
		e.Job = &policy.Job{ID: "x", Owner: "ann", Submitted: noon, CPUs: 1, Request: w.request("", "bio", 1, nil)}
		w.s.Add(e)
		w.expect("", w.round(0))
	}
	// A job that no own site could ever run goes out at once; nobody else's does so when
	// there are no peers any more.
	w = at(routing.Policy{})
	w.s.SetSite(resourcemodel.Key{Site: "own"}, Site{Closed: true})
	w.put(siteOf("own", 1, 1))
	w.add(policy.Job{ID: "wide", Owner: "ann", VO: "bio", CPUs: 4}, nil)
	w.expect("wide→bsc", w.round(0))
	w.s.SetPeers(nil)
	w.add(policy.Job{ID: "wide2", Owner: "ann", VO: "bio", CPUs: 4}, nil)
	w.expect("", w.round(0))
}

// TestFarBack: a job that has not begun at a peer comes back when the own sites could start
// it, and nothing of ours waits.
func TestFarBack(t *testing.T) {
	w := newWorld(t, Options{})
	w.put(siteOf("own", 1, 1))
	w.s.SetPeers(peersOf(routing.Policy{Overload: time.Second, Recover: time.Second}, "bsc"))
	w.show("bsc", 1, 1, 0, resourcemodel.Full)
	w.addSome("a", 6)
	w.expect("a00→own a01→bsc a02→bsc", w.round(3))
	left, known := w.s.FarWait("a02", w.now)
	if !known || left <= 0 {
		t.Error(left, known)
	}
	w.s.Left("a00")
	if why, _, back := w.s.Back("a02", left, known, w.now); back {
		t.Error("others wait, and it is taken back: " + why)
	}
	for _, id := range []string{"a03", "a04", "a05"} {
		w.s.Remove(id)
	}
	if why, room, back := w.s.Back("a02", left, known, w.now); !back || room != 1 || why != "the own sites have recovered and could start it now" {
		t.Error(why, back)
	}
}

// TestFarReplay: with peers too, a replay decides the same in every bit, whenever the trace
// was begun.
func TestFarReplay(t *testing.T) {
	for seed := range uint64(6) {
		rng := rand.New(rand.NewPCG(seed, 3))
		w := newWorld(t, Options{Seed: seed, Window: 8})
		w.put(siteOf("own", 2, 4))
		domains := []string{"bsc", "fiu", "ibm"}
		w.s.SetPeers(peersOf(routing.Policy{Overload: time.Minute}, domains...))
		if seed%2 == 1 {
			if err := w.set(Gateway, policy.Pairing, "assignment", false); err != nil {
				t.Fatal(err)
			}
		}
		var out bytes.Buffer
		var rec *Recorder
		var under []string
		next, far := 0, 0
		for step := range 300 {
			if step == 20 {
				var err error
				if rec, err = w.s.Record(&out, w.source); err != nil {
					t.Fatal(err)
				}
			}
			switch rng.IntN(6) {
			case 0:
				w.show(domains[rng.IntN(3)], 4, rng.IntN(17), rng.IntN(5), resourcemodel.Detail(rng.IntN(3)))
			case 1, 2:
				for range rng.IntN(6) {
					e := Entry{Job: &policy.Job{ID: fmt.Sprintf("j%05d", next), Owner: "ann", VO: "bio", Submitted: w.now, CPUs: 1 + rng.IntN(4)}, Attempt: 1}
					e.Request = w.request("", "bio", e.CPUs, nil)
					if rng.IntN(3) == 0 {
						e.Way = &Way{Path: []string{domains[rng.IntN(3)]}, Hops: rng.IntN(3)}
					}
					w.s.Add(e)
					next++
				}
			case 3:
				w.free("own", rng.IntN(9))
			case 4:
				for range min(len(under), rng.IntN(8)) {
					i := rng.IntN(len(under))
					if rng.IntN(2) == 0 {
						w.s.Settled(under[i])
					} else {
						w.s.Left(under[i])
						under = append(under[:i], under[i+1:]...)
					}
				}
			case 5:
				p := peersOf(routing.Policy{Overload: time.Minute}, domains[:rng.IntN(4)]...)
				for i := range p.Peers {
					p.Peers[i].Balance.Did = 1000
					p.Peers[i].Measured = routing.Measured{Jobs: rng.IntN(9), Success: 1, Speed: 1, Wait: time.Minute}
				}
				w.s.SetPeers(p)
			}
			w.now = w.now.Add(time.Duration(rng.IntN(60)) * time.Second)
			for _, d := range w.round(rng.IntN(12)) {
				under = append(under, d.Job)
				if d.Far != nil {
					far++
				}
			}
			if err := w.s.Audit(w.now); err != nil {
				t.Fatal(err)
			}
		}
		if err := rec.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := Replay(&out, nil)
		if err != nil || got.Same != got.Decisions || len(got.Differences) > 0 || far == 0 {
			t.Fatalf("seed %d: %d of %d alike, %d went to peers, %v: %+v", seed, got.Same, got.Decisions, far, err, got.Differences[:min(len(got.Differences), 3)])
		}
	}
}

// TestFarShadow: policies in shadow have the same peers as those in force. The same ones choose the
// same, and others another; and that they were asked changes nothing of what is decided.
func TestFarShadow(t *testing.T) {
	peers := routing.Policy{Typical: 10 * time.Minute, Overload: time.Minute}
	begin := func(shadow string) *world {
		w := newWorld(t, Options{})
		w.put(siteOf("own", 1, 4))
		w.s.SetSite(resourcemodel.Key{Site: "own"}, Site{Ahead: 1})
		w.s.SetPeers(peersOf(peers, "bsc", "fiu"))
		w.show("bsc", 1, 2, 0, resourcemodel.Full)
		w.show("fiu", 1, 1, 0, resourcemodel.Simple)
		if shadow != "" {
			if err := w.set(Gateway, policy.Scheduling, shadow, true); err != nil {
				t.Fatal(err)
			}
		}
		return w
	}
	shadows := func(ds []Decision) string {
		var out []string
		for i := range ds {
			at := "waits"
			if s := ds[i].Shadow; s == nil {
				at = "nothing"
			} else if s.Place != nil {
				at = s.Place.Site
			}
			out = append(out, ds[i].Job+"→"+at)
		}
		return strings.Join(out, " ")
	}
	fill := func(w *world) []Decision {
		for i := range 8 {
			w.add(policy.Job{ID: fmt.Sprintf("j%d", i), Owner: "ann", VO: "bio", Submitted: noon.Add(time.Duration(i) * time.Second), Priority: i}, nil)
		}
		w.now = noon.Add(time.Minute)
		return w.round(0)
	}
	const want = "j0→own j1→own j2→own j3→own j4→bsc j5→bsc j6→fiu j7→own"
	w := begin("")
	w.expect(want, fill(w))
	w = begin("fifo")
	ds := fill(w)
	w.expect(want, ds)
	if got := shadows(ds); got != want {
		t.Errorf("the same policies in shadow say %s", got)
	}
	if due := w.s.Next(w.now); due.Equal(w.now) {
		t.Error("a trial wakes the next round")
	}
	if c := Compare(slices.Values(ds)); c.Same != 8 || c.Sites["bsc"] != (Tally{2, 2}) {
		t.Errorf("%+v", c)
	}
	w = begin("priority")
	ds = fill(w)
	w.expect(want, ds)
	if got := shadows(ds); got != "j0→own j1→fiu j2→bsc j3→bsc j4→own j5→own j6→own j7→own" {
		t.Errorf("others in shadow say %s", got)
	}
}

// TestFarShadowAside: whatever happens, a gateway decides with policies in shadow as without, and
// those that are the same choose the same.
func TestFarShadowAside(t *testing.T) {
	for seed := range uint64(4) {
		var worlds [3]*world
		domains := []string{"bsc", "fiu", "ibm"}
		for i := range worlds {
			w := newWorld(t, Options{Seed: seed, Window: 8})
			w.put(siteOf("own", 2, 4))
			w.s.SetPeers(peersOf(routing.Policy{Overload: time.Minute, Recover: 20 * time.Second}, domains...))
			if seed%2 == 1 {
				if err := w.set(Gateway, policy.Pairing, "assignment", false); err != nil {
					t.Fatal(err)
				}
			}
			if i > 0 {
				if err := w.set(Gateway, policy.Scheduling, []string{"", "fifo", "priority"}[i], true); err != nil {
					t.Fatal(err)
				}
			}
			worlds[i] = w
		}
		rng := rand.New(rand.NewPCG(seed, 11))
		var under []string
		next, far, elsewhere := 0, 0, 0
		for range 200 {
			var do func(*world)
			switch rng.IntN(5) {
			case 0:
				domain, free, waiting, detail := domains[rng.IntN(3)], rng.IntN(17), rng.IntN(5), resourcemodel.Detail(rng.IntN(3))
				do = func(w *world) { w.show(domain, 4, free, waiting, detail) }
			case 1, 2:
				n, cpus, prio := rng.IntN(6), 1+rng.IntN(4), rng.IntN(9)
				from := next
				next += n
				do = func(w *world) {
					for i := range n {
						w.add(policy.Job{ID: fmt.Sprintf("j%05d", from+i), Owner: "ann", VO: "bio", CPUs: cpus, Priority: prio}, nil)
					}
				}
			case 3:
				free := rng.IntN(9)
				do = func(w *world) { w.free("own", free) }
			case 4:
				var settle, leave []string
				for range min(len(under), rng.IntN(8)) {
					i := rng.IntN(len(under))
					if rng.IntN(2) == 0 {
						settle = append(settle, under[i])
					} else {
						leave = append(leave, under[i])
						under = append(under[:i], under[i+1:]...)
					}
				}
				do = func(w *world) {
					for _, id := range settle {
						w.s.Settled(id)
					}
					for _, id := range leave {
						w.s.Left(id)
					}
				}
			}
			pass, budget := time.Duration(rng.IntN(60))*time.Second, rng.IntN(12)
			var first []Decision
			for i, w := range worlds {
				do(w)
				w.now = w.now.Add(pass)
				ds := w.round(budget)
				if err := w.s.Audit(w.now); err != nil {
					t.Fatal(err)
				}
				if i == 0 {
					first = ds
					for _, d := range ds {
						under = append(under, d.Job)
						if d.Far != nil {
							far++
						}
					}
					continue
				}
				if told(ds) != told(first) {
					t.Fatalf("seed %d: decided %s, and without a shadow %s", seed, told(ds), told(first))
				}
				for _, d := range ds {
					switch same := d.Shadow.Place != nil && *d.Shadow.Place == d.Place; {
					case i == 1 && !same:
						t.Fatalf("seed %d: the same policies in shadow gave %s %v, and those in force %v", seed, d.Job, d.Shadow.Place, d.Place)
					case !same && d.Shadow.Place != nil && (d.Far != nil || slices.Contains(domains, d.Shadow.Place.Site)):
						elsewhere++
					}
				}
			}
		}
		if far == 0 || elsewhere == 0 {
			t.Errorf("seed %d: %d went to peers, %d would have been elsewhere by the shadow", seed, far, elsewhere)
		}
	}
}

// TestBoughtRoom: jobs that the own sites would not start at once go where room is ours, before other
// peers and whatever the peer shows, up to what was bought, and no longer than it is ours.
func TestBoughtRoom(t *testing.T) {
	buy := func(p *Peers, b ...Bought) *Peers {
		p.Peers[1].Bought = b
		return p
	}
	at := func(b ...Bought) *world {
		w := newWorld(t, Options{})
		w.put(siteOf("own", 1, 1))
		// They would bear to wait for hours.
		w.s.SetPeers(buy(peersOf(routing.Policy{Overload: 100 * time.Hour}, "bsc", "fiu"), b...))
		w.show("bsc", 4, 16, 0, resourcemodel.Full)
		w.show("fiu", 4, 0, 50, resourcemodel.Full)
		return w
	}
	until := noon.Add(time.Hour)
	one := Bought{Agreement: "a1", CPUs: 3, Until: until}
	w := at(one)
	w.addSome("a", 6)
	ds := w.round(0)
	w.expect("a00→own a01→fiu a02→fiu a03→fiu", ds)
	for _, d := range ds[1:] {
		if d.Bought != "a1" || d.Domain != "fiu" || !strings.Contains(d.Why, "room is bought of the domain fiu until") || !strings.Contains(d.Why, "by its agreement a1") {
			t.Errorf("%+v", d)
		}
	}
	// What is left behind gives room; what began has it still.
	w.s.Settled("a01")
	w.expect("", w.round(0))
	w.s.Left("a01")
	w.expect("a04→fiu", w.round(0))
	// The time is over: nothing goes on its account.
	w.now = until
	w.s.Left("a02")
	w.expect("", w.round(0))
	// Bought anew, by another agreement, it is another room.
	w.s.SetPeers(buy(peersOf(routing.Policy{Overload: 100 * time.Hour}, "bsc", "fiu"), Bought{Agreement: "a2", CPUs: 1, Until: until.Add(time.Hour)}))
	if ds := w.round(0); told(ds) != "a05→fiu" || ds[0].Bought != "a2" {
		t.Errorf("%+v", ds)
	}
	// Of a job that was placed before a restart it is known what it has.
	w = at(one)
	w.s.Given(&policy.Job{ID: "old", Owner: "ann", CPUs: 2, Room: BoughtRoom("fiu", "a1"), Request: w.request("", "bio", 2, nil)}, resourcemodel.Place{Key: resourcemodel.Key{Site: "fiu"}, Share: "all", Environment: "node"}, false)
	w.addSome("a", 4)
	w.expect("a00→own a01→fiu", w.round(0))
	w.s.Left("old")
	w.expect("a02→fiu a03→fiu", w.round(0))

	for name, c := range map[string]struct {
		b    Bought
		cpus int
		want string
	}{
		"another VO's":      {Bought{Agreement: "a1", CPUs: 9, VO: "chem", Until: until}, 1, "a→own"},
		"its own VO's":      {Bought{Agreement: "a1", CPUs: 9, VO: "bio", Until: until}, 1, "a→own b→fiu"},
		"too wide":          {Bought{Agreement: "a1", CPUs: 3, Until: until}, 4, "b→bsc"},
		"over":              {Bought{Agreement: "a1", CPUs: 3, Until: noon}, 1, "a→own"},
		"as wide as may be": {Bought{Agreement: "a1", CPUs: 4, Until: until}, 4, "b→fiu"},
		"on several nodes":  {Bought{Agreement: "a1", CPUs: 5, Until: until}, 5, "b→fiu"},
	} {
		w := at(c.b)
		if c.cpus == 1 {
			w.add(policy.Job{ID: "a", Owner: "ann", VO: "bio"}, nil)
		}
		w.add(policy.Job{ID: "b", Owner: "ann", VO: "bio", CPUs: c.cpus}, nil)
		if got := told(w.round(0)); got != c.want {
			t.Errorf("%s: %q; want %q", name, got, c.want)
		}
	}
}

// TestBoughtByBoth: jobs that the peer gives us by an agreement of its own, whatever its name, use up nothing of
// what is ours there.
func TestBoughtByBoth(t *testing.T) {
	w := newWorld(t, Options{})
	w.put(siteOf("own", 1, 4))
	p := peersOf(routing.Policy{Overload: 100 * time.Hour}, "fiu")
	p.Peers[0].Bought = []Bought{{Agreement: "a1", CPUs: 1, Until: noon.Add(time.Hour)}}
	w.s.SetPeers(p)
	w.show("fiu", 4, 0, 50, resourcemodel.Full)
	j := &policy.Job{ID: "theirs", Owner: "u@fiu", VO: "bio", Submitted: noon, CPUs: 4, Room: BoughtRoom("fiu", "a1"), Request: w.request("", "bio", 4, nil)}
	w.s.Add(Entry{Job: j, Attempt: 1, Way: &Way{Path: []string{"fiu"}}})
	w.expect("theirs→own", w.round(0))
	w.addSome("a", 2)
	w.expect("a00→fiu", w.round(0))
	w.s.Left("theirs") // and it gives nothing back of it
	w.expect("a01→own", w.round(0))
	w.addSome("b", 4)
	w.expect("b00→own b01→own b02→own", w.round(0))
}

// TestBoughtStays: a job is not taken back from room that is ours, unless it does not begin there; when that is
// over, it is like others.
func TestBoughtStays(t *testing.T) {
	w := newWorld(t, Options{})
	w.put(siteOf("own", 1, 1))
	p := peersOf(routing.Policy{Overload: time.Second, Recover: time.Second}, "bsc")
	p.Peers[0].Bought = []Bought{{Agreement: "a1", CPUs: 1, Until: noon.Add(time.Hour)}}
	w.s.SetPeers(p)
	w.show("bsc", 1, 0, 9, resourcemodel.Full)
	w.addSome("a", 2)
	w.expect("a00→own a01→bsc", w.round(0))
	w.s.Left("a00")
	if why, _, back := w.s.Back("a01", time.Hour, true, w.now); back {
		t.Error("it is taken back: " + why)
	}
	w.now = noon.Add(paidPatience - 1)
	if why, _, back := w.s.Back("a01", time.Hour, true, w.now); back {
		t.Error("it is taken back at once: " + why)
	}
	w.now = noon.Add(paidPatience)
	if _, room, back := w.s.Back("a01", time.Hour, true, w.now); !back || room != 1 {
		t.Error("it does not begin, and is kept", room, back)
	}
	w.s.Settled("a01")
	if why, _, back := w.s.Back("a01", time.Hour, true, w.now); back {
		t.Error("it runs, and is taken back: " + why)
	}
	w.now = noon.Add(time.Hour)
	if _, room, back := w.s.Back("a01", time.Hour, true, w.now); !back || room != 1 {
		t.Error("the room is ours no more, and it is kept", room, back)
	}
}

// TestBoughtEachDay: a job that may run for ever starts in what its domain bought, though the domain has bought
// of the next day too; what others have bought stands against it, and they find what is theirs.
func TestBoughtEachDay(t *testing.T) {
	const day = 24 * time.Hour
	hold := func(id, domain string, cpus int, from time.Time) Hold {
		return Hold{ID: id + "/0", Agreement: id, Key: resourcemodel.Key{Site: "own"}, Share: "all", CPUs: cpus, From: from, Until: from.Add(time.Hour), Owner: "@" + domain, ForDomain: domain}
	}
	at := func(cpus int, holds ...Hold) *world {
		w := newWorld(t, Options{})
		w.put(siteOf("own", 1, cpus))
		w.s.SetHolds(holds)
		return w
	}
	come := func(w *world, domain, agreement string, ids ...string) {
		for _, id := range ids {
			w.timed(id, "bio", 1, 0, BoughtRoom(domain, agreement), nil)
		}
	}
	today, tomorrow := hold("a1", "home", 2, noon), hold("a2", "home", 2, noon.Add(day))

	w := at(2, today, tomorrow)
	w.addSome("other", 1)
	come(w, "home", "a2", "early")
	come(w, "home", "a1", "j1", "j2", "j3")
	w.expect("j1→own j2→own", w.round(0))

	// Nobody else's window is run into, whatever is bought beside it.
	w = at(2, today, hold("b", "fiu", 1, noon.Add(2*time.Hour)), tomorrow)
	come(w, "home", "a1", "j1", "j2")
	w.expect("j1→own", w.round(0))
	if why, _ := w.s.Why("j2", w.now); !strings.Contains(why.Sentence, "1 of 2 CPUs of own/all are promised from 2031-03-01T14:00:00Z") {
		t.Errorf("%+v", why)
	}

	// What runs until the next day has what its domain bought of that, and not what others did.
	w = at(4, today, tomorrow, hold("b", "fiu", 2, noon.Add(day)))
	come(w, "home", "a1", "j1", "j2")
	w.addSome("other", 1)
	w.expect("j1→own j2→own", w.round(0))
	w.s.Remove("other00")
	for _, id := range []string{"j1", "j2"} {
		w.s.Began(id, w.now)
		w.s.Settled(id)
	}
	w.free("own", 2)
	w.now = noon.Add(day)
	w.s.SetHolds([]Hold{tomorrow, hold("b", "fiu", 2, noon.Add(day))})
	come(w, "home", "a2", "k1")
	come(w, "fiu", "b", "l1", "l2", "l3")
	w.expect("l1→own l2→own", w.round(0))
	w.s.Left("j1")
	w.free("own", 3)
	w.expect("k1→own", w.round(0))
}

// TestBoughtHold: what a domain bought here is for the jobs that it names it for, and for nobody else's.
func TestBoughtHold(t *testing.T) {
	h := Hold{ID: "x/0", Agreement: "x", Key: resourcemodel.Key{Site: "own"}, Share: "all", CPUs: 2, From: noon, Until: noon.Add(time.Hour), Owner: "@home", ForDomain: "home"}
	for room, want := range map[string]bool{
		BoughtRoom("home", "x"): true, "x/0": true,
		"": false, BoughtRoom("home", "y"): false, BoughtRoom("hom", "ex"): false, BoughtRoom("home", ""): false, BoughtRoom("homer", "x"): false, "bought:home/xx": false, "bought:": false, "home/x": false,
	} {
		if h.mine(room, "bio") != want {
			t.Errorf("%q: %t", room, !want)
		}
	}
	w := newWorld(t, Options{})
	w.put(siteOf("own", 1, 4))
	w.s.SetHolds([]Hold{h})
	w.addSome("a", 4)
	w.expect("a00→own a01→own", w.round(0))
	for i, room := range []string{BoughtRoom("other", "x"), BoughtRoom("home", "x"), BoughtRoom("home", "x"), BoughtRoom("home", "x")} {
		j := &policy.Job{ID: fmt.Sprintf("b%d", i), Owner: "u@home", VO: "bio", Submitted: noon, CPUs: 1, Room: room, Request: w.request("", "bio", 1, nil)}
		w.s.Add(Entry{Job: j, Attempt: 1, Way: &Way{Path: []string{"home"}}})
	}
	w.expect("b1→own b2→own", w.round(0))
	w.now = noon.Add(2 * time.Hour) // nothing is held any more
	w.s.SetHolds(nil)
	w.s.Left("b1")
	if ds := w.round(0); len(ds) != 1 {
		t.Errorf("%s", told(ds))
	}
}
