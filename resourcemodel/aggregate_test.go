package resourcemodel

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

// wishes are a naive request of the tests, over every attribute that an aggregate merges.
type wishes struct {
	cpus, memory, speed, virtual, disk, bandwidth [2]float64 // within
	os, version, arch, feature, gpu, benchmark    string
	system, consumable, application               string
	least                                         float64 // of the GPUs, the benchmark, the file system and the consumable
	wall                                          time.Duration
	slots, nodes                                  int
	mem                                           int64
	price                                         float64
	queue                                         string
	subject                                       Subject
}

func (g modelGen) within(values ...float64) [2]float64 {
	if g.IntN(2) == 0 {
		return [2]float64{0, 1e30}
	}
	a, b := oneOf(g, values...), oneOf(g, values...)
	if g.IntN(4) > 0 {
		a, b = min(a, b)*0.9, 1e30
	}
	return [2]float64{min(a, b), max(a, b)}
}

func (g modelGen) rarely(words ...string) string {
	if g.IntN(6) > 0 {
		return ""
	}
	return oneOf(g, words...)
}

func (g modelGen) wishes() wishes {
	const gib = 1 << 30
	w := wishes{
		cpus: g.within(0, 0, 8, 16, 64), memory: g.within(0, 0, 30*gib, 33*gib, 50*gib, 64*gib), speed: g.within(0, 0, 2.4e9),
		virtual: g.within(0, 0, 64*gib), disk: g.within(0, 0, 1<<40), bandwidth: g.within(0, 0, 1e9),
		os: g.rarely("LINUX", "LINUX", "Solaris"), version: g.rarely("6.1", "5.10"), arch: g.rarely("x86_64", "arm"),
		feature: g.rarely("avx", "ib"), gpu: g.rarely("a100", "h100"), benchmark: g.rarely("specint2000", "hs06"),
		system: g.rarely("HOME", "SCRATCH"), consumable: g.rarely("fpga"), application: g.rarely("gromacs", "R"), least: float64(g.IntN(4)),
		wall: time.Duration(g.IntN(3)) * time.Hour, slots: g.IntN(20), nodes: g.IntN(3), mem: int64(g.IntN(2)) * 50 * gib, price: oneOf(g, 0.1, 0.6, 1),
		queue: g.rarely("share0", "share2"), subject: Subject{User: oneOf(g, "ann", "bob", "cid"), VO: oneOf(g, "bio", "chem", "test", "")},
	}
	if g.IntN(3) == 0 { // only "at least"
		for _, r := range []*[2]float64{&w.cpus, &w.memory, &w.speed, &w.virtual, &w.disk, &w.bandwidth} {
			r[1] = 1e30
		}
	}
	return w
}

func (w *wishes) onlyAtLeast() bool {
	for _, r := range [][2]float64{w.cpus, w.memory, w.speed, w.virtual, w.disk, w.bandwidth} {
		if r[1] < 1e30 {
			return false
		}
	}
	return w.os == "" && w.version == "" && w.arch == ""
}

// met asks whether the place meets the wishes: for certain, whatever its values are
// between the plain fields and the span, or possibly, with some values between them.
// For what is no aggregate the two are the same.
func (w *wishes) met(p Spot, certain bool) bool {
	e, h, es, hs := p.Environment, p.Share, p.Environment.Most(), p.Share.Most()
	number := func(r [2]float64, least, most float64) bool {
		if certain {
			return r[0] <= least && most <= r[1]
		}
		return r[0] <= most && least <= r[1]
	}
	word := func(w string, all []string) bool {
		return w == "" || slices.Contains(all, w) && (!certain || len(all) == 1)
	}
	limit := func(n, narrow, wide int64) bool {
		if certain {
			return narrow == 0 || n <= narrow
		}
		return wide == 0 || n <= wide
	}
	gpus, features, benchmarks, systems, consumables := es.GPUs, es.Features, es.Benchmarks, es.FileSystems, es.Consumables
	if certain {
		gpus, features, benchmarks, systems, consumables = e.GPUs, e.Features, e.Benchmarks, e.FileSystems, e.Consumables
	}
	price := h.Price
	if certain {
		price = hs.Price
	}
	value := func(name string, n float64, known bool) bool { return name == "" || known && n >= w.least }
	benchmark, hasBenchmark := benchmarks[w.benchmark]
	var size, counter float64
	hasSystem := slices.ContainsFunc(systems, func(f FileSystem) bool {
		size = max(size, float64(f.Size)/(1<<40))
		return f.Name == w.system
	})
	if i := slices.IndexFunc(systems, func(f FileSystem) bool { return f.Name == w.system }); i >= 0 {
		size = 0
		for _, f := range systems {
			if f.Name == w.system {
				size = max(size, float64(f.Size)/(1<<40))
			}
		}
	}
	hasCounter := false
	for _, c := range consumables {
		if c.Name == w.consumable {
			hasCounter, counter = true, float64(c.Total)
		}
	}
	application := w.application == "" || slices.ContainsFunc(p.Site.Static.Applications, func(a Application) bool {
		return a.Name == w.application && (len(a.Environments) == 0 || slices.Contains(a.Environments, e.ID))
	})
	queue := w.queue == "" || slices.Contains(hs.IDs, w.queue) && (!certain || len(hs.IDs) == 1)
	return number(w.cpus, float64(e.CPUs), float64(es.CPUs)) && number(w.memory, float64(e.Memory), float64(es.Memory)) &&
		number(w.speed, e.CPUSpeed, es.CPUSpeed) && number(w.virtual, float64(e.VirtualMemory), float64(es.VirtualMemory)) &&
		number(w.disk, float64(e.Disk), float64(es.Disk)) && number(w.bandwidth, e.Bandwidth, es.Bandwidth) &&
		word(w.os, es.OperatingSystems) && word(w.version, es.OSVersions) && word(w.arch, es.CPUArchitectures) &&
		(w.feature == "" || slices.Contains(features, w.feature)) &&
		value(w.gpu, float64(gpus[w.gpu]), gpus[w.gpu] > 0) && value(w.benchmark, benchmark, hasBenchmark) &&
		value(w.system, size, hasSystem) && value(w.consumable, counter, hasCounter) &&
		limit(int64(w.wall), int64(h.MaxWallTime), int64(hs.MaxWallTime)) && limit(int64(w.slots), int64(h.MaxCPUs), int64(hs.MaxCPUs)) &&
		limit(int64(w.nodes), int64(h.MaxNodes), int64(hs.MaxNodes)) && limit(w.mem, h.MaxMemory, hs.MaxMemory) &&
		price <= w.price && queue && application && p.Site.Static.Policy.Allows(w.subject) && h.Policy.Allows(w.subject)
}

// aggregated gives the aggregate of a site, and for each of its places the members.
func aggregated(s *Site, d Detail) (*Site, map[Place][]Spot) {
	a := Aggregate(s, d)
	_, g := aggregate(s.Static.Canonical(), d)
	shareOf, envOf := map[string]string{}, map[string]string{}
	for id, members := range g.shares {
		for _, m := range members {
			shareOf[m] = id
		}
	}
	for id, members := range g.environments {
		for _, m := range members {
			envOf[m] = id
		}
	}
	members := map[Place][]Spot{}
	for p := range s.Places() {
		if d == Full {
			members[p.Place()] = []Spot{p}
			continue
		}
		in := Place{Key: s.Key, Share: shareOf[p.Share.ID], Environment: envOf[p.Environment.ID]}
		members[in] = append(members[in], p)
	}
	return a, members
}

// TestAggregatesPromise proves what the comment of Aggregate says about wishes.
func TestAggregatesPromise(t *testing.T) {
	var fits, certains, merged, atLeast, wrongSimple int
	for seed := range uint64(400) {
		g := newModelGen(seed)
		s := g.site(Key{Site: "a"})
		if seed%2 == 0 { // one with many like nodes
			for i := range s.Static.Environments {
				e := &s.Static.Environments[i]
				e.OperatingSystem, e.OSVersion, e.CPUArchitecture, e.CPUs, e.GPUs = "LINUX", "6.1", "x86_64", 16, nil
				e.Memory, e.Disk, e.CPUSpeed = oneOf[int64](g, 33, 40, 60)<<30, oneOf[int64](g, 1, 2)<<40, oneOf(g, 2.4e9, 3e9)
			}
		}
		for _, d := range []Detail{Full, Categorized, Simple} {
			a, members := aggregated(s, d)
			places := 0
			for p := range a.Places() {
				places++
				if len(members[p.Place()]) == 0 {
					t.Fatalf("seed %d: the place %v has no member", seed, p.Place())
				}
			}
			if places != len(members) {
				t.Fatalf("seed %d: %d places for %d", seed, places, len(members))
			}
			if d == Simple && places > 1 {
				t.Fatalf("seed %d: %d places", seed, places)
			}
			for range 200 {
				w := g.wishes()
				for p := range a.Places() {
					in := members[p.Place()]
					n := 0
					for _, m := range in {
						if w.met(m, true) != w.met(m, false) {
							t.Fatalf("seed %d: the test does not know what it wants", seed)
						}
						if w.met(m, true) {
							n++
						}
					}
					if n > 0 {
						fits++
						if !w.met(p, false) {
							t.Fatalf("seed %d, detail %d: a false exclusion: %v of\n%s\n%+v", seed, d, p.Place(), shownJSON(a), w)
						}
					}
					if w.met(p, true) {
						certains++
						if len(in) > 1 {
							merged++
						}
						if n == 0 && d != Categorized {
							wrongSimple++
						}
						if n != len(in) && d == Categorized {
							t.Fatalf("seed %d: a false inclusion: %d of %d in %v of\n%s\n%+v", seed, n, len(in), p.Place(), shownJSON(a), w)
						}
					}
					// The plain fields alone decide wishes for "at least".
					plain := p
					share, env := *p.Share, *p.Environment
					env.Span = nil
					plain.Share, plain.Environment = &share, &env
					if d == Categorized && w.onlyAtLeast() && w.met(plain, true) {
						atLeast++
						if n != len(in) {
							t.Fatalf("seed %d: the plain fields promise too much in %v of\n%s", seed, p.Place(), shownJSON(a))
						}
					}
				}
			}
		}
	}
	t.Logf("%d wishes were met by a member, %d by an aggregate for certain, %d of them merged, %d by plain fields, %d wrongly by a simple one", fits, certains, merged, atLeast, wrongSimple)
	if fits < 10_000 || certains < 10_000 || merged < 1000 || atLeast < 1000 || wrongSimple == 0 {
		t.Error("the test tried too little")
	}
}

func shownJSON(s *Site) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// TestAggregatesOfStates proves what is said about room: what a member has room for,
// the sums have; what the best has room for, a member has.
func TestAggregatesOfStates(t *testing.T) {
	merged, best := 0, 0
	for seed := range uint64(400) {
		g := newModelGen(seed)
		s := g.site(Key{Site: "a"})
		if s.Dynamic == nil {
			continue
		}
		for _, d := range []Detail{Categorized, Simple} {
			a, members := aggregated(s, d)
			for p := range a.Places() {
				state, ok := a.Dynamic.Environment(p.Environment.ID)
				queue, _ := a.Dynamic.Share(p.Share.ID)
				var in []EnvironmentState
				for _, m := range members[p.Place()] {
					if e, known := s.Dynamic.Environment(m.Environment.ID); known {
						in = append(in, e)
					}
					if q, _ := s.Dynamic.Share(m.Share.ID); q.Open && (!queue.Open || q.FreeSlots > queue.FreeSlots) {
						t.Fatalf("seed %d: %+v in %+v", seed, q, queue)
					}
				}
				if len(in) > 0 && !ok {
					t.Fatalf("seed %d: the state is lost", seed)
				}
				for range 50 {
					need := EnvironmentState{FreeNodes: g.IntN(15), FreeCPUs: g.IntN(300), FreeMemory: g.Int64N(500) << 30, FreeGPUs: g.IntN(30)}
					room := func(e EnvironmentState) bool {
						return need.FreeNodes <= e.FreeNodes && need.FreeCPUs <= e.FreeCPUs && need.FreeMemory <= e.FreeMemory && need.FreeGPUs <= e.FreeGPUs
					}
					if slices.ContainsFunc(in, room) && !room(state) {
						t.Fatalf("seed %d: a false exclusion: %+v in %+v of %+v", seed, need, state, in)
					}
					if state.Best != nil {
						merged++
						if room(*state.Best) {
							best++
							if d == Categorized && !slices.ContainsFunc(in, room) {
								t.Fatalf("seed %d: %+v is in %+v and in none of %+v", seed, need, *state.Best, in)
							}
						}
					}
				}
			}
		}
	}
	if merged < 1000 || best < 100 {
		t.Errorf("only %d merged, %d with room", merged, best)
	}
}

// TestAggregateOfAggregates: the way to a coarse picture makes no difference.
func TestAggregateOfAggregates(t *testing.T) {
	again := func(s *Site, d Detail) *Site {
		// As if it were no aggregate, so that it is not just given back.
		static := *s.Static
		static.Detail = Full
		return Aggregate(&Site{Key: s.Key, Static: &static, Dynamic: s.Dynamic}, d)
	}
	for seed := range uint64(1000) {
		g := newModelGen(seed)
		s := g.site(Key{Site: "a"})
		c, m := Aggregate(s, Categorized), Aggregate(s, Simple)
		if Aggregate(s, Full) != s || Aggregate(s, None) != nil || Aggregate(m, Categorized) != m {
			t.Fatal("a site is not given back")
		}
		for name, pair := range map[string][2]*Site{
			"simple of categorized": {Aggregate(c, Simple), m}, "categorized twice": {again(c, Categorized), c}, "simple twice": {again(m, Simple), m},
		} {
			if !reflect.DeepEqual(pair[0], pair[1]) {
				t.Fatalf("seed %d: %s:\n%s\n%s\nof %s", seed, name, shownJSON(pair[0]), shownJSON(pair[1]), shownJSON(s))
			}
		}
		for _, a := range []*Site{c, m} {
			if err := a.Static.Check(); err != nil {
				t.Fatal(err)
			}
			b, err := a.Static.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if back, err := DecodeStatic(b); err != nil || !reflect.DeepEqual(back, a.Static) {
				t.Fatalf("%v: %s", err, b)
			}
			if a.Dynamic != nil {
				if b, err = a.Dynamic.Encode(); err != nil {
					t.Fatal(err)
				}
				if back, err := DecodeDynamic(b); err != nil || !reflect.DeepEqual(back, a.Dynamic) {
					t.Fatalf("%v: %s", err, b)
				}
			}
		}
	}
}

// TestSumsAreConserved adds up everything that a place can be reached with.
func TestSumsAreConserved(t *testing.T) {
	for seed := range uint64(500) {
		g := newModelGen(seed)
		s := g.site(Key{Site: "a"})
		want := sumsOf(s)
		for _, d := range []Detail{Categorized, Simple} {
			a := Aggregate(s, d)
			got := sumsOf(a)
			if !reflect.DeepEqual(got, want) {
				t.Fatalf("seed %d, detail %d: %+v, want %+v\n%s\n%s", seed, d, got, want, shownJSON(a), shownJSON(s))
			}
			if n := len(a.Static.Environments); d == Simple && n > 1 {
				t.Fatalf("%d environments", n)
			}
		}
	}
}

type sums struct {
	environments, nodes, available, freeNodes, cpus, gpus int
	memory                                                int64
	running, waiting, slots                               int
	consumables                                           map[string]int64
}

func sumsOf(s *Site) sums {
	n := sums{consumables: map[string]int64{}}
	used := map[string]bool{}
	for _, h := range s.Static.Shares {
		for _, e := range h.Environments {
			used[e] = true
		}
		q, _ := s.Dynamic.Share(h.ID)
		n.running, n.waiting = n.running+q.Running, n.waiting+q.Waiting
		if q.Open {
			n.slots += q.FreeSlots
		}
		for _, c := range h.Consumables {
			n.consumables["total "+c.Name] += c.Total
		}
		for k, free := range q.Consumables {
			n.consumables["free "+k] += free
		}
	}
	for _, e := range s.Static.Environments {
		if !used[e.ID] {
			continue
		}
		n.environments += max(1, e.Classes)
		st, _ := s.Dynamic.Environment(e.ID)
		n.nodes, n.available, n.freeNodes = n.nodes+st.Nodes, n.available+st.Available, n.freeNodes+st.FreeNodes
		n.cpus, n.gpus, n.memory = n.cpus+st.FreeCPUs, n.gpus+st.FreeGPUs, n.memory+st.FreeMemory
	}
	return n
}

func TestCategoriesByExample(t *testing.T) {
	const gib = 1 << 30
	s := &Site{Key: Key{Site: "a"}, Static: &Static{
		Shares: []Share{
			{ID: "day", Environments: []string{"n1", "n2", "fat"}, MaxWallTime: 24 * time.Hour, Policy: Policy{Allow: []string{"vo:bio", "vo:chem"}}},
			{ID: "hour", Environments: []string{"n1", "n2"}, MaxWallTime: time.Hour, Policy: Policy{Allow: []string{"vo:chem", "vo:bio"}}},
			{ID: "open", Environments: []string{"old"}},
		},
		Environments: []Environment{
			{ID: "n1", OperatingSystem: "LINUX", CPUArchitecture: "x86_64", CPUs: 16, Memory: 33 * gib, Features: []string{"avx", "ib"}},
			{ID: "n2", OperatingSystem: "LINUX", CPUArchitecture: "x86_64", CPUs: 16, Memory: 60 * gib, Features: []string{"avx"}},
			{ID: "fat", OperatingSystem: "LINUX", CPUArchitecture: "x86_64", CPUs: 16, Memory: 64 * gib},
			{ID: "old", OperatingSystem: "Solaris", CPUArchitecture: "sparc", CPUs: 4, Memory: gib},
			{ID: "spare", CPUs: 99},
		},
		Applications: []Application{{Name: "R", Environments: []string{"n1", "n2"}}, {Name: "blast", Environments: []string{"spare"}}},
	}}
	a := Aggregate(s, Categorized).Static
	if len(a.Shares) != 2 || a.Shares[0].ID != "day" || a.Shares[0].MaxWallTime != time.Hour || a.Shares[0].Span.MaxWallTime != 24*time.Hour ||
		!a.Shares[0].Has("hour") || a.Shares[0].Has("open") || !slices.Equal(a.Shares[0].Environments, []string{"fat", "n1"}) {
		t.Errorf("%+v", a.Shares)
	}
	if len(a.Environments) != 3 {
		t.Fatalf("%+v", a.Environments)
	}
	n1 := a.Environment("n1")
	if n1.Classes != 2 || n1.Memory != 33*gib || n1.Span.Memory != 60*gib || !slices.Equal(n1.Features, []string{"avx"}) || !slices.Equal(n1.Span.Features, []string{"avx", "ib"}) {
		t.Errorf("%+v", n1)
	}
	if len(a.Applications) != 1 || !slices.Equal(a.Applications[0].Environments, []string{"n1"}) {
		t.Errorf("%+v", a.Applications)
	}
	m := Aggregate(s, Simple).Static
	e := m.Environments[0]
	if len(m.Environments) != 1 || e.Classes != 4 || e.CPUs != 4 || e.Span.CPUs != 16 || e.OperatingSystem != "" || !slices.Equal(e.Span.OperatingSystems, []string{"LINUX", "Solaris"}) {
		t.Errorf("%+v", e)
	}
	if h := m.Shares[0]; len(m.Shares) != 1 || !h.Policy.IsZero() || h.MaxWallTime != time.Hour || h.Span.MaxWallTime != 0 {
		t.Errorf("%+v", h)
	}
	for n, want := range map[int64]int64{0: 0, 1: 1, 2: 2, 3: 2, 33 * gib: 32 * gib, 64 * gib: 64 * gib, MaxBytes: MaxBytes} {
		if got := MemoryClass(n); got != want {
			t.Errorf("MemoryClass(%d) is %d", n, got)
		}
	}
}

// TestMerge: a domain shows its own sites and its children's, and what it shows can be
// merged again; whichever way, the picture is the same.
func TestMerge(t *testing.T) {
	g := newModelGen(21)
	d := Delta{Revision: 9, At: modelStart}
	for _, domain := range []string{"", "north", "south", "other"} {
		for _, name := range []string{"a", "b", "c"} {
			s := g.site(Key{Domain: domain, Site: name})
			d.Changes = append(d.Changes, Change{Key: s.Key, Static: s.Static, Dynamic: s.Dynamic})
		}
	}
	s, err := Empty().Apply(d)
	if err != nil {
		t.Fatal(err)
	}
	view, err := Merge(s, "europe", Full, "", "south", "north")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for site := range view.Sites() {
		names = append(names, site.String())
	}
	if want := "europe/a europe/b europe/c europe/north~a europe/north~b europe/north~c europe/south~a europe/south~b europe/south~c"; strings.Join(names, " ") != want {
		t.Errorf("%q", names)
	}
	if view.Revision() != 9 || view.Len() != 9 {
		t.Errorf("%d %d", view.Revision(), view.Len())
	}
	wellFormed(t, view)
	direct, err := Merge(view, "world", Simple, "europe")
	if err != nil {
		t.Fatal(err)
	}
	for _, detail := range []Detail{Full, Categorized, Simple} {
		coarse, err := Merge(s, "europe", detail, "north", "", "south")
		if err != nil {
			t.Fatal(err)
		}
		world, err := Merge(coarse, "world", Simple, "europe")
		if err != nil {
			t.Fatal(err)
		}
		if got := Diff(direct, world); len(got.Changes) != 0 || world.Len() != 9 || world.Site(Key{"world", "europe~north~a"}) == nil {
			t.Errorf("%d changes by way of %d", len(got.Changes), detail)
		}
	}
	if none, err := Merge(s, "europe", None, "north"); err != nil || none.Len() != 0 {
		t.Errorf("%v", err)
	}
	if _, err := Merge(s, "", Full, "north"); !fail.Is(err, fail.Invalid) {
		t.Errorf("%v", err)
	}
	long, err := Empty().Apply(Delta{Revision: 1, Changes: []Change{{Key: Key{Domain: "north", Site: strings.Repeat("x", MaxName)}, Static: &Static{}}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Merge(long, "europe", Full, "north"); !fail.Is(err, fail.Invalid) {
		t.Errorf("%v", err)
	}
}

func TestDigest(t *testing.T) {
	g := newModelGen(31)
	var ours, theirs Delta
	for i := range 30 {
		s := g.site(Key{Site: "s" + strings.Repeat("x", i)})
		ours.Changes = append(ours.Changes, Change{Key: s.Key, Static: s.Static, Dynamic: s.Dynamic})
		static := *s.Static
		static.Changed = modelStart.Add(time.Hour)
		theirs.Changes = append(theirs.Changes, Change{Key: Key{Domain: "north", Site: s.Site}, Static: &static, Dynamic: s.Dynamic})
	}
	slices.Reverse(theirs.Changes)
	ours.Revision, theirs.Revision = 1, 70
	a, err := Empty().Apply(ours)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Empty().Apply(theirs)
	if err != nil {
		t.Fatal(err)
	}
	digest := func(s *Snapshot, domain string) Digest {
		t.Helper()
		d, err := s.Digest(domain)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	first := digest(a, "")
	if first != digest(b, "north") || first == digest(b, "") || first.Sites != 30 {
		t.Errorf("%+v", first)
	}
	dynamic := *g.dynamic(g.static())
	dynamic.Version = 77
	if b, err = b.Apply(Delta{Revision: 71, Changes: []Change{{Key: Key{Domain: "north", Site: "s"}, Dynamic: &dynamic}}}); err != nil {
		t.Fatal(err)
	}
	if second := digest(b, "north"); second.Static != first.Static || second.Dynamic == first.Dynamic {
		t.Error("the digest of a category does not follow its values")
	}
}
