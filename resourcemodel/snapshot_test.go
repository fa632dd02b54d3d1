package resourcemodel

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

// TestSnapshotIsAMap applies random deltas to a snapshot and to a Go map, and holds
// the two beside each other; old snapshots stay as they were.
func TestSnapshotIsAMap(t *testing.T) {
	for seed := range uint64(4) {
		g := newModelGen(seed)
		templates := make([]*Site, 24)
		for i := range templates {
			templates[i] = g.site(Key{Site: "x"})
		}
		now, want := Empty(), map[Key]*Site{}
		type kept struct {
			snapshot *Snapshot
			want     map[Key]*Site
		}
		var old []kept
		for round := range 120 {
			d := Delta{Revision: now.Revision() + 1 + g.Int64N(3), At: modelStart.Add(time.Duration(round) * time.Second)}
			n := 1 + g.IntN(4)
			if g.IntN(10) == 0 {
				n = g.IntN(900)
			}
			for range n {
				c := Change{Key: g.key()}
				x := oneOf(g, templates...)
				c.Gone = g.IntN(4) == 0
				if g.IntN(2) == 0 {
					c.Static = x.Static
				}
				if g.IntN(2) == 0 {
					c.Dynamic = x.Dynamic
				}
				if c.Static == nil && c.Dynamic == nil {
					c.Gone = true
				}
				d.Changes = append(d.Changes, c)
				naive(want, c)
			}
			next, err := now.Apply(d)
			if err != nil {
				t.Fatal(err)
			}
			sameAsMap(t, next, want)
			if back := Diff(now, next); true {
				again, err := now.Apply(back)
				if err != nil && len(back.Changes) > 0 {
					t.Fatal(err)
				}
				sameAsMap(t, again, want)
				if rest := Diff(again, next); len(rest.Changes) != 0 {
					t.Fatalf("%d changes are left", len(rest.Changes))
				}
			}
			wellFormed(t, next)
			now = next
			if g.IntN(20) == 0 {
				old = append(old, kept{now, maps.Clone(want)})
			}
		}
		for _, k := range old {
			sameAsMap(t, k.snapshot, k.want)
		}
		if len(old) > 1 {
			a, b := old[0], old[len(old)-1]
			d := Diff(a.snapshot, b.snapshot)
			again, err := a.snapshot.Apply(d)
			if err != nil {
				t.Fatal(err)
			}
			sameAsMap(t, again, b.want)
		}
	}
}

func naive(m map[Key]*Site, c Change) {
	var site Site
	if m[c.Key] != nil && !c.Gone {
		site = *m[c.Key]
	}
	site.Key = c.Key
	if c.Static != nil {
		site.Static = c.Static
	}
	if c.Dynamic != nil {
		site.Dynamic = c.Dynamic
	}
	m[c.Key] = &site
	if site.Static == nil && site.Dynamic == nil {
		delete(m, c.Key)
	}
}

func sameAsMap(t *testing.T, s *Snapshot, want map[Key]*Site) {
	t.Helper()
	var keys []Key
	for k, site := range want {
		if site.Static != nil {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, Key.Compare)
	if s.Len() != len(keys) {
		t.Fatalf("Len is %d of %d sites", s.Len(), len(keys))
	}
	i := 0
	for site := range s.Sites() {
		if i == len(keys) || site.Key != keys[i] {
			t.Fatalf("site %d is %v", i, site.Key)
		}
		w := want[site.Key]
		if !site.Static.Same(w.Static) || !site.Dynamic.Same(w.Dynamic) || site.Static.Version != w.Static.Version {
			t.Fatalf("%v differs", site.Key)
		}
		if s.Site(site.Key) != site {
			t.Fatalf("%v is not found", site.Key)
		}
		i++
	}
	if i != len(keys) {
		t.Fatalf("%d of %d sites", i, len(keys))
	}
}

// wellFormed checks what the structure promises: order, no empty chunk, bounded ones,
// not too many.
func wellFormed(t *testing.T, s *Snapshot) {
	t.Helper()
	n, last := 0, Key{}
	for _, c := range s.sites {
		if len(c) == 0 || len(c) > maxChunk {
			t.Fatalf("a chunk of %d", len(c))
		}
		for _, site := range c {
			if n > 0 && last.Compare(site.Key) >= 0 {
				t.Fatalf("%v behind %v", site.Key, last)
			}
			last = site.Key
			n++
		}
	}
}

func TestChunksStayFull(t *testing.T) {
	s := worldOf(t, 20_000)
	var err error
	// Take away 19 of 20, one by one.
	i := 0
	for site := range s.Sites() {
		if i++; i%20 != 0 {
			if s, err = s.Apply(Delta{Revision: s.Revision() + 1, At: modelStart, Changes: []Change{{Key: site.Key, Gone: true}}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if s.Len() != 1000 || len(s.sites) > 40 {
		t.Errorf("%d sites in %d chunks", s.Len(), len(s.sites))
	}
	wellFormed(t, s)
}

// worldOf makes a snapshot of n sites in 100 domains.
func worldOf(t testing.TB, n int) *Snapshot {
	t.Helper()
	g := newModelGen(1)
	templates := make([]*Site, 16)
	for i := range templates {
		templates[i] = g.site(Key{})
		templates[i].Dynamic = g.dynamic(templates[i].Static)
	}
	d := Delta{Revision: 1, At: modelStart}
	for i := range n {
		x := templates[i%len(templates)]
		d.Changes = append(d.Changes, Change{Key: Key{Domain: fmt.Sprintf("d%02d", i%100), Site: fmt.Sprintf("s%06d", i)}, Static: x.Static, Dynamic: x.Dynamic})
	}
	s, err := Empty().Apply(d)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestApplyShares(t *testing.T) {
	s := worldOf(t, 5000)
	var victim *Site
	for site := range s.Sites() {
		if victim = site; site.Domain == "d50" {
			break
		}
	}
	later := *victim.Dynamic
	later.Changed = later.Changed.Add(time.Hour)
	same, err := s.Apply(Delta{Revision: 2, At: modelStart.Add(time.Hour), Changes: []Change{{Key: victim.Key, Dynamic: &later}}})
	if err != nil {
		t.Fatal(err)
	}
	if same.Site(victim.Key) != victim {
		t.Error("a confirmation made a new site")
	}
	if d := Diff(s, same); len(d.Changes) != 0 {
		t.Errorf("a confirmation is %d changes", len(d.Changes))
	}
	later.Version++
	next, err := s.Apply(Delta{Revision: 3, At: modelStart, Changes: []Change{{Key: victim.Key, Dynamic: &later}}})
	if err != nil {
		t.Fatal(err)
	}
	if next.Site(victim.Key).Static != victim.Static {
		t.Error("the static part is not shared")
	}
	fresh := 0
	for i := range next.sites {
		if i >= len(s.sites) || &s.sites[i][0] != &next.sites[i][0] {
			fresh++
		}
	}
	if fresh != 1 {
		t.Errorf("%d chunks are new", fresh)
	}
	d := Diff(s, next)
	if len(d.Changes) != 1 || d.Changes[0].Static != nil || d.Changes[0].Dynamic != &later || d.Changes[0].Gone {
		t.Errorf("%+v", d.Changes)
	}
}

func TestApplyRefuses(t *testing.T) {
	good := &Static{Type: "slurm"}
	s, err := Empty().Apply(Delta{Revision: 5, At: modelStart, Changes: []Change{{Key: Key{Site: "a"}, Static: good}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		d    Delta
		kind fail.Kind
	}{
		"the same revision":   {Delta{Revision: 5}, fail.Conflict},
		"an earlier revision": {Delta{Revision: 4}, fail.Conflict},
		"no name":             {Delta{Revision: 6, Changes: []Change{{Static: good}}}, fail.Invalid},
		"a slash":             {Delta{Revision: 6, Changes: []Change{{Key: Key{Site: "a/b"}, Static: good}}}, fail.Invalid},
		"a blank domain":      {Delta{Revision: 6, Changes: []Change{{Key: Key{Domain: " ", Site: "a"}, Static: good}}}, fail.Invalid},
		"nothing":             {Delta{Revision: 6, Changes: []Change{{Key: Key{Site: "a"}}}}, fail.Invalid},
		"a bad part":          {Delta{Revision: 6, Changes: []Change{{Key: Key{Site: "a"}, Dynamic: &Dynamic{Stamp: Stamp{Detail: None}}}}}, fail.Invalid},
	} {
		if _, err := s.Apply(c.d); !fail.Is(err, c.kind) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if s, err = s.Apply(Delta{Revision: 6, At: modelStart.Add(-time.Hour), Changes: []Change{{Key: Key{Site: "b"}, Gone: true}}}); err != nil {
		t.Fatal(err)
	}
	if !s.At().Equal(modelStart) || s.Revision() != 6 || s.Len() != 1 {
		t.Errorf("%v %d %d", s.At(), s.Revision(), s.Len())
	}
}

// TestStateBeforeDescription: the parts come from different records, in any order.
func TestStateBeforeDescription(t *testing.T) {
	k := Key{Domain: "north", Site: "a"}
	s, err := Empty().Apply(Delta{Revision: 1, At: modelStart, Changes: []Change{{Key: k, Dynamic: &Dynamic{Up: true}}}})
	if err != nil {
		t.Fatal(err)
	}
	if s.Len() != 0 || s.Site(k) != nil || len(s.Domains()) != 0 {
		t.Error("a site without a description is shown")
	}
	if s, err = s.Apply(Delta{Revision: 2, At: modelStart, Changes: []Change{{Key: k, Static: &Static{Type: "slurm"}}}}); err != nil {
		t.Fatal(err)
	}
	if site := s.Site(k); s.Len() != 1 || site == nil || !site.Dynamic.Up {
		t.Error("the state was lost")
	}
	// Gone with a part: that part is all there is.
	if s, err = s.Apply(Delta{Revision: 3, At: modelStart, Changes: []Change{{Key: k, Gone: true, Static: &Static{Type: "condor"}}}}); err != nil {
		t.Fatal(err)
	}
	if site := s.Site(k); site == nil || site.Dynamic != nil || site.Static.Type != "condor" {
		t.Error("the site was not replaced")
	}
}

func TestPlacesAndDomains(t *testing.T) {
	st := &Static{
		Shares:       []Share{{ID: "long", Environments: []string{"fat", "thin"}}, {ID: "short", Environments: []string{"thin"}}, {ID: "none"}},
		Environments: []Environment{{ID: "fat"}, {ID: "thin"}},
	}
	s, err := Empty().Apply(Delta{Revision: 1, At: modelStart, Changes: []Change{
		{Key: Key{Domain: "z", Site: "b"}, Static: st}, {Key: Key{Site: "a"}, Static: st}, {Key: Key{Domain: "z", Site: "a"}, Static: st},
	}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for p := range s.Places() {
		got = append(got, p.Place().String())
	}
	want := []string{
		"a/long/fat", "a/long/thin", "a/short/thin", "z/a/long/fat", "z/a/long/thin", "z/a/short/thin",
		"z/b/long/fat", "z/b/long/thin", "z/b/short/thin",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if d := s.Domains(); !slices.Equal(d, []string{"", "z"}) {
		t.Errorf("%q", d)
	}
	n := 0
	for range s.SitesOf("z") {
		n++
	}
	if n != 2 {
		t.Errorf("%d sites of z", n)
	}
	for range s.Sites() {
		break
	}
	for range s.Places() {
		break
	}
}

// A change of one site among many must not cost a copy of them all.
func BenchmarkApply(b *testing.B) {
	for _, n := range []int{1000, 10_000, 100_000} {
		b.Run(fmt.Sprintf("sites=%d", n), func(b *testing.B) {
			s := worldOf(b, n)
			keys := keysOf(s)
			g := newModelGen(2)
			dynamic := g.dynamic(s.Site(keys[0]).Static)
			b.ReportAllocs()
			for b.Loop() {
				c := *dynamic
				c.Version = g.Uint64()
				next, err := s.Apply(Delta{Revision: s.Revision() + 1, At: modelStart, Changes: []Change{{Key: oneOf(g, keys...), Dynamic: &c}}})
				if err != nil {
					b.Fatal(err)
				}
				s = next
			}
		})
	}
}

func keysOf(s *Snapshot) []Key {
	var keys []Key
	for site := range s.Sites() {
		keys = append(keys, site.Key)
	}
	return keys
}

// BenchmarkDiff compares two snapshots of 100,000 sites: those that share all but what
// changed, and those that share nothing.
func BenchmarkDiff(b *testing.B) {
	s := worldOf(b, 100_000)
	keys := keysOf(s)
	for _, changed := range []int{1, 100} {
		b.Run(fmt.Sprintf("changed=%d", changed), func(b *testing.B) {
			g := newModelGen(3)
			d := Delta{Revision: 2, At: modelStart}
			for range changed {
				k := oneOf(g, keys...)
				c := *s.Site(k).Dynamic
				c.Version += 1000
				d.Changes = append(d.Changes, Change{Key: k, Dynamic: &c})
			}
			next, err := s.Apply(d)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if got := len(Diff(s, next).Changes); got == 0 || got > changed {
					b.Fatal(got)
				}
			}
		})
	}
	b.Run("unshared", func(b *testing.B) {
		other := worldOf(b, 100_000)
		for b.Loop() {
			if got := len(Diff(s, other).Changes); got != 0 {
				b.Fatal(got)
			}
		}
	})
}
