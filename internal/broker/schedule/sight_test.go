package schedule

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/resourcemodel"
)

// What is told of a share to another process comes there as it was, and if it is told in less, nothing can
// start sooner by it.
func TestSight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		minutes := func(what string, from, to int) time.Duration {
			return time.Duration(rapid.IntRange(from, to).Draw(t, what)) * time.Minute
		}
		slots := rapid.IntRange(1, 30).Draw(t, "slots")
		l := Look{now: noon, st: Standing{Has: Amount{Slots: slots}, Free: Amount{Slots: slots}}}
		for range rapid.IntRange(0, slots).Draw(t, "jobs") {
			b := Busy{Amount: Amount{Slots: 1}, VO: rapid.SampledFrom([]string{"", "bio"}).Draw(t, "vo")}
			if rapid.IntRange(0, 5).Draw(t, "known") > 0 {
				b.Until = noon.Add(minutes("until", 1, 3000) + time.Second)
			}
			l.st.Busy, l.st.Free.Slots = append(l.st.Busy, b), l.st.Free.Slots-1
		}
		for range rapid.IntRange(0, 3).Draw(t, "queue") {
			l.queue = append(l.queue, Planned{Amount: Amount{Slots: rapid.IntRange(1, slots).Draw(t, "wants")}, Length: minutes("length", 0, 500)})
		}
		for range rapid.IntRange(0, 3).Draw(t, "holds") {
			from := noon.Add(minutes("from", 0, 2000))
			l.holds = append(l.holds, &Hold{ID: "h", Slots: rapid.IntRange(1, slots).Draw(t, "held"), From: from, Until: from.Add(minutes("window", 1, 500)), VO: "bio", ForVO: true})
		}
		slices.SortStableFunc(l.holds, (*Hold).before)
		length, vo := minutes("asked", 0, 1000), rapid.SampledFrom([]string{"", "bio"}).Draw(t, "of")
		want := l.Outlook(1, length, vo)

		sight := l.Sight()
		b, err := json.Marshal(sight)
		if err != nil {
			t.Fatal(err)
		}
		var got Sight
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		there := got.Look(l.holds, noon)
		if o := there.Outlook(1, length, vo); !o.Start.Equal(want.Start) || o.Sentence != want.Sentence || o.Unknown != want.Unknown {
			t.Fatalf("it comes as %+v, and was %+v, by %s", o, want, b)
		}

		most := rapid.IntRange(4, 10).Draw(t, "most") // two VOs, that end or don't
		coarse := got.Coarser(most)
		if len(coarse.Busy) > most {
			t.Fatalf("it has %d entries, not %d", len(coarse.Busy), most)
		}
		all := 0
		for _, b := range coarse.Busy {
			all += b.Slots
		}
		if all != len(l.st.Busy) {
			t.Fatalf("%d of %d jobs are left", all, len(l.st.Busy))
		}
		if len(l.queue) > 0 || len(l.holds) > 0 {
			return // a queue that begins later may leave a gap for others
		}
		less := coarse.Look(nil, noon)
		o := less.Outlook(1, length, vo)
		if o.Unknown != want.Unknown || !o.Start.IsZero() && (want.Start.IsZero() || o.Start.Before(want.Start)) {
			t.Fatalf("by less it is %+v, and by all %+v", o, want)
		}
	})
}

func TestHoldsOn(t *testing.T) {
	key := resourcemodel.Key{Site: "slurm"}
	site := &resourcemodel.Site{Key: key, Static: &resourcemodel.Static{Shares: []resourcemodel.Share{
		{ID: "batch", Environments: []string{"big", "small"}}, {ID: "long", Environments: []string{"big"}}, {ID: "gpu", Environments: []string{"gpu"}},
	}}}
	holds := []Hold{
		{ID: "own", Key: key, Share: "batch", Slots: 1, CPUs: 2},
		{ID: "whole", Key: key, Slots: 1, CPUs: 2},
		{ID: "nodes", Key: key, Share: "long", Slots: 1, CPUs: 2},
		{ID: "slots", Key: key, Share: "long", Slots: 1},
		{ID: "other", Key: key, Share: "gpu", Slots: 1, CPUs: 2},
		{ID: "gone", Key: key, Share: "was", Slots: 1, CPUs: 2},
		{ID: "elsewhere", Key: resourcemodel.Key{Site: "condor"}, Share: "batch", Slots: 1, CPUs: 2},
	}
	got := map[string]int{}
	for _, h := range HoldsOn(site, "batch", SortHolds(holds)) {
		got[h.ID] = h.Slots
	}
	if len(got) != 3 || got["own"] != 1 || got["whole"] != 1 {
		t.Errorf("of the share are %v", got)
	}
	if n, ok := got["nodes"]; !ok || n != 0 {
		t.Errorf("what is held of the same nodes is %d slots, %v", n, ok)
	}
	if len(HoldsOn(site, "none", SortHolds(holds))) > 0 || len(HoldsOn(nil, "batch", SortHolds(holds))) > 0 {
		t.Error("a share that is not known has holds")
	}
}
