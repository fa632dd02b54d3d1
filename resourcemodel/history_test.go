package resourcemodel

import (
	"fmt"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

// TestHistoryRemembers holds every answer of a bounded history beside the snapshots
// that were kept whole.
func TestHistoryRemembers(t *testing.T) {
	for seed := range uint64(4) {
		g := newModelGen(seed)
		templates := make([]*Site, 12)
		for i := range templates {
			templates[i] = g.site(Key{})
		}
		o := []HistoryOptions{{}, {Deltas: 70}, {Age: 90 * time.Second}, {Bytes: 600_000}}[seed%4]
		h := NewHistory(Empty(), o)
		o.EnsureDefaults()
		kept := []*Snapshot{Empty()}
		now := modelStart
		const steps = 250
		for range steps {
			now = now.Add(time.Duration(g.IntN(4)-1) * time.Second) // it stands still and goes back, too
			d := Delta{Revision: h.Head().Revision() + 1 + g.Int64N(2), At: now}
			for range 1 + g.IntN(3) {
				x := oneOf(g, templates...)
				d.Changes = append(d.Changes, Change{Key: Key{Site: fmt.Sprint("s", g.IntN(20))}, Static: x.Static, Dynamic: x.Dynamic, Gone: g.IntN(3) == 0})
			}
			if err := h.Add(d); err != nil {
				t.Fatal(err)
			}
			next, err := kept[len(kept)-1].Apply(d)
			if err != nil {
				t.Fatal(err)
			}
			kept = append(kept, next)
		}
		if h.Len() > o.Deltas || h.Bytes() > o.Bytes {
			t.Fatalf("%d deltas of %d bytes", h.Len(), h.Bytes())
		}
		if first := h.Base().At(); seed%4 == 2 && (first.Before(kept[len(kept)-1].At().Add(-o.Age-3*time.Second)) || h.Len() == steps) {
			t.Fatalf("%d deltas since %v", h.Len(), first)
		}
		if seed%4 != 0 && h.Len() >= steps || h.Len() < 20 {
			t.Fatalf("%d deltas", h.Len())
		}
		begin := steps - h.Len()
		for i, want := range kept {
			got, err := h.AtRevision(want.Revision())
			if i < begin {
				if !fail.Is(err, fail.NotFound) {
					t.Fatalf("seed %d: revision %d: %v", seed, want.Revision(), err)
				}
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			if d := Diff(got, want); len(d.Changes) != 0 || got.Revision() != want.Revision() || !got.At().Equal(want.At()) {
				t.Fatalf("seed %d: revision %d has %d differences", seed, want.Revision(), len(d.Changes))
			}
			// The last one of that moment is the belief of the moment.
			last := i
			for last+1 < len(kept) && !kept[last+1].At().After(want.At()) {
				last++
			}
			if got, err = h.At(want.At()); err != nil || got.Revision() != kept[last].Revision() {
				t.Fatalf("seed %d: %v", seed, err)
			}
			k := Key{Site: fmt.Sprint("s", g.IntN(20))}
			b, err := h.Believed(k, want.At())
			if err != nil {
				t.Fatal(err)
			}
			site := kept[last].Site(k)
			if (b.Site == nil) != (site == nil) || site != nil && (!b.Site.Static.Same(site.Static) || !b.Site.Dynamic.Same(site.Dynamic)) {
				t.Fatalf("seed %d: %v was believed otherwise", seed, k)
			}
			if b.Since.After(want.At()) || !b.Until.IsZero() && !b.Until.After(want.At()) || b.Revision > kept[last].Revision() {
				t.Fatalf("seed %d: %+v at %v", seed, b, want.At())
			}
		}
		if _, err := h.AtRevision(h.Head().Revision() + 1); !fail.Is(err, fail.NotFound) {
			t.Error(err)
		}
		if _, err := h.At(h.Base().At().Add(-1)); begin > 0 && !fail.Is(err, fail.NotFound) {
			t.Error(err)
		}
		if s, err := h.At(now.Add(time.Hour)); err != nil || s != h.Head() {
			t.Errorf("the future: %v", err)
		}
		h.Compact(h.Head().At().Add(2 * o.Age))
		if h.Len() != 0 || h.Bytes() != 0 || h.Base() != h.Head() {
			t.Errorf("%d deltas, %d bytes", h.Len(), h.Bytes())
		}
	}
}

// TestHistoryAnswersQuickly: however long it ran, an answer applies few deltas.
func TestHistoryAnswersQuickly(t *testing.T) {
	h := NewHistory(Empty(), HistoryOptions{Deltas: 1000})
	for i := range int64(5000) {
		if err := h.Add(Delta{Revision: i + 1, At: modelStart, Changes: []Change{{Key: Key{Site: "a"}, Dynamic: &Dynamic{Problem: fmt.Sprint(i)}}}}); err != nil {
			t.Fatal(err)
		}
	}
	without := 0
	for i := range h.entries {
		if without++; h.entries[i].after != nil {
			without = 0
		}
		if without > checkpointEvery {
			t.Fatalf("%d deltas without a snapshot", without)
		}
	}
}

func TestBeliefs(t *testing.T) {
	k := Key{Site: "a"}
	at := func(minute int) time.Time { return modelStart.Add(time.Duration(minute) * time.Minute) }
	st := &Static{Type: "slurm"}
	up := &Dynamic{Stamp: Stamp{Version: 1}, Up: true}
	down := &Dynamic{Stamp: Stamp{Version: 2}, Problem: "no answer"}
	base, err := Empty().Apply(Delta{Revision: 1, At: at(0), Changes: []Change{{Key: k, Static: st, Dynamic: up}}})
	if err != nil {
		t.Fatal(err)
	}
	h := NewHistory(base, HistoryOptions{})
	for i, c := range []Change{
		{Key: Key{Site: "b"}, Static: st},
		{Key: k, Dynamic: down},
		{Key: k, Dynamic: &Dynamic{Stamp: Stamp{Version: 2, Changed: at(3)}, Problem: "no answer"}}, // a confirmation
		{Key: k, Gone: true},
		{Key: k, Dynamic: up},
		{Key: k, Static: st},
	} {
		if err := h.Add(Delta{Revision: int64(i + 2), At: at(i + 1), Changes: []Change{c}}); err != nil {
			t.Fatal(err)
		}
	}
	want := []struct {
		minute int
		known  bool
		up     bool
		since  int
		until  int
	}{
		{0, true, true, 0, 2},
		{1, true, true, 0, 2},
		{2, true, false, 2, 4},
		{3, true, false, 2, 4},
		{4, false, false, 4, 6},
		{5, false, false, 4, 6},
		{6, true, true, 6, -1},
		{99, true, true, 6, -1},
	}
	for _, w := range want {
		b, err := h.Believed(k, at(w.minute).Add(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		if (b.Site != nil) != w.known || w.known && b.Site.Dynamic.Up != w.up || !b.Since.Equal(at(w.since)) || b.Earlier != (w.since == 0) {
			t.Errorf("minute %d: %+v", w.minute, b)
		}
		if w.until < 0 != b.Until.IsZero() || w.until >= 0 && !b.Until.Equal(at(w.until)) {
			t.Errorf("minute %d: until %v", w.minute, b.Until)
		}
	}
	if n := len(h.Beliefs(k)); n != 4 {
		t.Errorf("%d beliefs", n)
	}
	if n := len(h.Beliefs(Key{Site: "never"})); n != 1 {
		t.Errorf("%d beliefs of an unknown site", n)
	}
	if _, err := h.Believed(k, at(-1)); !fail.Is(err, fail.NotFound) {
		t.Error(err)
	}
	if err := h.Add(Delta{Revision: 3}); !fail.Is(err, fail.Conflict) || h.Head().Revision() != 7 {
		t.Error(err)
	}
	h.Reset(base)
	if h.Len() != 0 || h.Head() != base {
		t.Error("not reset")
	}
}
