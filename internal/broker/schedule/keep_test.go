package schedule

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/peers/routing"
	"github.com/portolan-project/portolan/resourcemodel"
)

func nobody(*Hold) bool { return false }

// ordered gives holds in the order of their beginnings.
func ordered(holds []Hold) (out []*Hold) {
	for i := range holds {
		out = append(out, &holds[i])
	}
	slices.SortFunc(out, (*Hold).before)
	return out
}

func TestKeep(t *testing.T) {
	at := func(h float64) time.Time { return noon.Add(time.Duration(h * float64(time.Hour))) }
	hold := func(slots int, from, until float64) Hold {
		return Hold{ID: "h", Slots: slots, From: at(from), Until: at(until), VO: "bio"}
	}
	four := func(free int, busy ...Busy) Standing {
		return Standing{Has: Amount{Slots: 4}, Free: Amount{Slots: free}, Busy: busy}
	}
	one := Amount{1, 1}
	const unbounded = math.MaxInt32
	for _, c := range []struct {
		what        string
		st          Standing
		holds       []Hold
		length      time.Duration
		mine        func(*Hold) bool
		room, queue int
		why         string
	}{
		{what: "nothing is held", st: four(3), room: 3, queue: unbounded},
		{what: "it ends before", st: four(4), holds: []Hold{hold(3, 2, 4)}, length: 2 * time.Hour, room: 4, queue: 1},
		{
			what: "it would not", st: four(4), holds: []Hold{hold(4, 2, 4)}, length: 3 * time.Hour,
			why: "4 of 4 slots of slurm/batch are promised from 2031-03-01T14:00:00Z to 2031-03-01T16:00:00Z: it would have to end before 2031-03-01T14:00:00Z, and its WallTimeLimit is 3h; give it one of at most 2h",
		},
		{
			what: "nobody knows", st: four(4), holds: []Hold{hold(4, 1.5, 4)},
			why: "4 of 4 slots of slurm/batch are promised from 2031-03-01T13:30:00Z to 2031-03-01T16:00:00Z: it would have to end before 2031-03-01T13:30:00Z; give it a WallTimeLimit of at most 1h30m",
		},
		{
			what: "the window has begun", st: four(3, Busy{Amount: one}), holds: []Hold{hold(3, -1, 1)}, length: time.Minute,
			why: "3 of 4 slots of slurm/batch are promised from 2031-03-01T11:00:00Z to 2031-03-01T13:00:00Z: it waits until room is left, or that window is over",
		},
		{what: "some is left", st: four(4), holds: []Hold{hold(3, 2, 4)}, room: 1, queue: 1},
		{what: "what runs ends before", st: four(1, Busy{one, at(1), "", ""}, Busy{one, at(2), "", ""}, Busy{one, at(3), "", ""}), holds: []Hold{hold(2, 2, 4)}, room: 1, queue: 1},
		{what: "what runs may run for ever", st: four(1, Busy{Amount: one}, Busy{one, at(2), "", ""}, Busy{one, at(3), "", ""}), holds: []Hold{hold(2, 2, 4)}},
		{what: "it is for it", st: four(4), holds: []Hold{hold(4, -1, 4)}, mine: func(*Hold) bool { return true }, room: 4, queue: unbounded},
		{what: "what is used is not kept twice", st: four(1, Busy{one, at(9), "h", ""}, Busy{one, at(9), "", "bio"}, Busy{one, at(9), "", "phys"}), holds: []Hold{{ID: "h", Slots: 2, From: at(-1), Until: at(4), VO: "bio", ForVO: true}}, room: 1, queue: 1},
		{what: "the manager keeps it", st: four(4), holds: []Hold{{ID: "h", Slots: 4, From: at(-1), Until: at(4), AtManager: true}}, room: 4, queue: unbounded},
		{what: "it is over", st: four(4), holds: []Hold{hold(4, -2, 0)}, room: 4, queue: unbounded},
		{what: "it queues behind what ends", st: four(0, Busy{one, at(1), "", ""}, Busy{one, at(1), "", ""}, Busy{one, at(1), "", ""}, Busy{one, at(1), "", ""}), holds: []Hold{hold(3, 2, 4)}, queue: 1},
		{what: "it may not queue in a window", st: four(0, Busy{one, at(1), "h", ""}), holds: []Hold{hold(1, -1, 4)}},
		{
			what: "CPUs where slots are not counted", st: Standing{Has: Amount{CPUs: 8}, Free: Amount{CPUs: 8}}, holds: []Hold{hold(6, 1, 4)}, room: 2, queue: 2,
		},
		{what: "two windows", st: four(4), holds: []Hold{hold(2, 1, 2), hold(4, 3, 4)}, length: 2 * time.Hour, room: 2},
	} {
		if c.mine == nil {
			c.mine = nobody
		}
		k := Keep(c.st, ordered(c.holds), noon)
		if n := k.Room(one, c.length, c.mine); n != c.room {
			t.Errorf("%s: room for %d, want %d", c.what, n, c.room)
		}
		if n := k.Queue(one, c.mine); n != c.queue {
			t.Errorf("%s: %d may queue, want %d", c.what, n, c.queue)
		}
		if why := k.why("slurm/batch", one, c.length, c.mine); c.room == 0 && c.why != "" && why != c.why || c.room > 0 && why != "" {
			t.Errorf("%s: it says %q\nwant %q", c.what, why, c.why)
		}
	}
}

// TestKeepProperties places jobs as Keep lets them, while the time goes on: at no moment do they and what
// is held have more than there is, and nothing is kept from a job that no window meets.
func TestKeepProperties(t *testing.T) {
	type run struct {
		Busy
		from time.Time
	}
	rapid.Check(t, func(t *rapid.T) {
		minutes := func(what string, from, to int) time.Duration {
			return time.Duration(rapid.IntRange(from, to).Draw(t, what)) * time.Minute
		}
		slots := rapid.IntRange(1, 8).Draw(t, "slots")
		var holds []Hold
		left := slots // the windows may overlap: together they promise no more than there is
		for i := range rapid.IntRange(0, 4).Draw(t, "holds") {
			n := rapid.IntRange(0, left).Draw(t, "held")
			left -= n
			from := noon.Add(minutes("from", 0, 300))
			holds = append(holds, Hold{ID: fmt.Sprint(i), Slots: n, From: from, Until: from.Add(minutes("window", 1, 200)), VO: fmt.Sprint("vo", i), ForVO: rapid.Bool().Draw(t, "forVO")})
		}
		var runs []run
		at := func(m time.Time) (used int, held int) { // by counting alone
			byHold := make([]int, len(holds))
			for i := range runs {
				if r := &runs[i]; !r.from.After(m) && !r.ended(m) {
					used += r.Slots
					for j := range holds {
						if holds[j].mine(r.Room, r.VO) {
							byHold[j] += r.Slots
						}
					}
				}
			}
			for j, h := range holds {
				if !h.From.After(m) && h.Until.After(m) {
					held += max(0, h.Slots-byHold[j])
				}
			}
			return used, held
		}
		now := noon
		for range rapid.IntRange(1, 40).Draw(t, "jobs") {
			now = now.Add(minutes("later", 0, 30))
			used, _ := at(now)
			st := Standing{Has: Amount{Slots: slots}, Free: Amount{Slots: slots - used}}
			for i := range runs {
				if !runs[i].ended(now) {
					st.Busy = append(st.Busy, runs[i].Busy)
				}
			}
			need := Amount{rapid.IntRange(1, 3).Draw(t, "size"), 1}
			length := minutes("length", 0, 120)
			room, vo := "", ""
			if len(holds) > 0 {
				switch i := rapid.IntRange(0, len(holds)-1).Draw(t, "hold"); rapid.IntRange(0, 3).Draw(t, "whose") {
				case 0:
					room = holds[i].ID
				case 1:
					vo = holds[i].VO
				}
			}
			n := Keep(st, ordered(holds), now).Room(need, length, func(h *Hold) bool { return h.mine(room, vo) })
			met := length == 0 && len(holds) > 0
			for _, h := range holds {
				met = met || h.From.Before(now.Add(length)) && h.Until.After(now)
			}
			if free := st.Free.Slots / need.Slots; !met && n != free {
				t.Fatalf("no window meets a job of %v, and %d of %d start", length, n, free)
			}
			for range min(n, rapid.IntRange(0, 2).Draw(t, "taken")) {
				r := run{Busy{Amount: need, Room: room, VO: vo}, now}
				if length > 0 {
					r.Until = now.Add(length)
				}
				runs = append(runs, r)
			}
			moments := []time.Time{now}
			for _, h := range holds {
				moments = append(moments, h.From, h.Until.Add(-time.Second))
			}
			for i := range runs {
				moments = append(moments, runs[i].from, runs[i].Until)
			}
			for _, m := range moments {
				if m.Before(now) {
					continue
				}
				if used, held := at(m); used+held > slots {
					t.Fatalf("at %s jobs have %d of %d, and %d are held", m.Sub(noon), used, slots, held)
				}
			}
		}
	})
}

// TestBoughtProperties has domains run jobs in what they bought, many of which may run for ever, and anybody's
// beside them: whoever has fewer jobs than it bought of a window can start one more at once.
func TestBoughtProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		slots := rapid.IntRange(1, 8).Draw(t, "slots")
		domains := []string{"a", "b", "c"}
		var holds []Hold
		left := slots
		for _, d := range domains {
			n := rapid.IntRange(0, left).Draw(t, "bought")
			left -= n
			at := noon
			for i := range rapid.IntRange(0, 3).Draw(t, "windows") { // of one domain, none at the same time
				at = at.Add(time.Duration(rapid.IntRange(0, 4).Draw(t, "gap")) * time.Hour)
				h := Hold{ID: fmt.Sprint(d, i, "/0"), Agreement: fmt.Sprint(d, i), ForDomain: d, Slots: n, From: at}
				at = at.Add(time.Duration(rapid.IntRange(1, 4).Draw(t, "window")) * time.Hour)
				h.Until = at
				holds = append(holds, h)
			}
		}
		type run struct {
			Busy
			domain string
		}
		var runs []run
		now := noon
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "later")) * time.Minute)
			runs = slices.DeleteFunc(runs, func(r run) bool {
				return r.ended(now) || r.Until.IsZero() && rapid.IntRange(0, 9).Draw(t, "ends") == 0
			})
			there := holds
			if rapid.Bool().Draw(t, "forgotten") { // what is over may be held still, or not
				there = slices.DeleteFunc(slices.Clone(holds), func(h Hold) bool { return !h.Until.After(now) })
			}
			st := Standing{Has: Amount{Slots: slots}, Free: Amount{Slots: slots - len(runs)}}
			count := map[string]int{}
			for i := range runs {
				st.Busy = append(st.Busy, runs[i].Busy)
				count[runs[i].domain]++
			}
			if len(runs) > slots {
				t.Fatalf("%d run of %d", len(runs), slots)
			}
			room := func(name string, length time.Duration) int {
				c := &class{room: name, request: &resourcemodel.Request{}}
				return Keep(st, ordered(there), now).Room(Amount{1, 1}, length, c.starting(now))
			}
			for i := range holds {
				h := &holds[i]
				if !h.From.After(now) && h.Until.After(now) && count[h.ForDomain] < h.Slots && room(BoughtRoom(h.ForDomain, h.Agreement), time.Second) < 1 {
					t.Fatalf("at %s the domain %s has %d jobs, bought %d, and can't start one", now.Sub(noon), h.ForDomain, count[h.ForDomain], h.Slots)
				}
			}
			var length time.Duration
			if rapid.Bool().Draw(t, "limited") {
				length = time.Duration(rapid.IntRange(1, 300).Draw(t, "length")) * time.Minute
			}
			r := run{Busy: Busy{Amount: Amount{1, 1}}}
			if length > 0 {
				r.Until = now.Add(length)
			}
			if len(holds) > 0 && rapid.IntRange(0, 3).Draw(t, "whose") > 0 {
				h := rapid.SampledFrom(holds).Draw(t, "hold")
				r.Room, r.domain = BoughtRoom(h.ForDomain, h.Agreement), h.ForDomain
			}
			for range min(room(r.Room, length), rapid.IntRange(0, 3).Draw(t, "taken")) {
				runs = append(runs, r)
			}
		}
	})
}

// allKept is Kept as it was first written: every moment, with a part for every hold.
type allKept struct {
	has     Amount
	now     time.Time
	holds   []Hold
	moments []time.Time
	left    []Amount
	held    [][]Amount
}

func keepAll(st Standing, holds []Hold, now time.Time) *allKept {
	k := &allKept{has: st.Has, now: now, moments: []time.Time{now}}
	for _, h := range holds {
		if h.AtManager || !h.Until.After(now) || !h.Until.After(h.From) {
			continue
		}
		if st.Has.Slots <= 0 {
			if h.CPUs == 0 {
				h.CPUs = h.Slots
			}
			h.Slots = 0
		}
		if st.Has.CPUs <= 0 {
			h.CPUs = 0
		}
		k.holds = append(k.holds, h)
		if h.From.After(now) {
			k.moments = append(k.moments, h.From)
		}
	}
	slices.SortFunc(k.holds, func(a, b Hold) int { return a.before(&b) })
	slices.SortFunc(k.moments, time.Time.Compare)
	k.moments = slices.CompactFunc(k.moments, time.Time.Equal)
	for _, at := range k.moments {
		left, held := st.Free, make([]Amount, len(k.holds))
		for i, h := range k.holds {
			if !h.From.After(at) && h.Until.After(at) {
				held[i] = Amount{h.Slots, h.CPUs}
			}
		}
		for i := range st.Busy {
			b := &st.Busy[i]
			if b.ended(at) {
				left = left.plus(b.Amount, 1)
				continue
			}
			a := b.Amount
			for j, h := range held {
				if (b.Room != "" || b.VO != "") && k.holds[j].mine(b.Room, b.VO) {
					part := Amount{min(a.Slots, h.Slots), min(a.CPUs, h.CPUs)}
					held[j], a = h.plus(part, -1), a.plus(part, -1)
				}
			}
		}
		for _, h := range held {
			left = left.plus(h, -1)
		}
		k.left, k.held = append(k.left, left), append(k.held, held)
	}
	return k
}

func (k *allKept) fit(i int, need Amount, mine func(*Hold) bool) int {
	left := k.left[i]
	for j, h := range k.held[i] {
		if mine(&k.holds[j]) {
			left = left.plus(h, 1)
		}
	}
	n := math.MaxInt32
	if k.has.Slots > 0 {
		n = min(n, max(left.Slots, 0)/max(need.Slots, 1))
	}
	if k.has.CPUs > 0 {
		n = min(n, max(left.CPUs, 0)/max(need.CPUs, 1))
	}
	return n
}

func (k *allKept) room(need Amount, length time.Duration, mine func(*Hold) bool) (n int, against string) {
	n = math.MaxInt32
	for i, at := range k.moments {
		if i > 0 && length > 0 && !at.Before(k.now.Add(length)) {
			break
		}
		m := k.fit(i, need, mine)
		n = min(n, m)
		for j, h := range k.held[i] {
			if against == "" && m <= 0 && h != (Amount{}) && !mine(&k.holds[j]) {
				against = k.holds[j].ID
			}
		}
	}
	return n, against
}

func (k *allKept) queue(need Amount, mine func(*Hold) bool) int {
	n := math.MaxInt32
	for i := range k.moments {
		if i > 0 || slices.ContainsFunc(k.holds, func(h Hold) bool { return !h.From.After(k.now) && !mine(&h) }) {
			n = min(n, k.fit(i, need, mine))
		}
	}
	return n
}

// TestKeepIsLazy holds what is worked out as far as it is asked for against all that there is.
func TestKeepIsLazy(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		small := func(what string, most int) int { return rapid.IntRange(0, most).Draw(t, what) }
		at := func(what string) time.Time { return noon.Add(time.Duration(small(what, 12)-3) * time.Hour) }
		vo := func() string { return []string{"", "bio", "geo"}[small("vo", 2)] }
		room := func() string { return []string{"", "h0", "h1", "h2"}[small("room", 3)] }
		st := Standing{Has: Amount{10 * small("slots", 1), 12 * small("cpus", 1)}, Free: Amount{small("free", 10), small("freeCPUs", 12)}}
		for range small("busy", 5) {
			b := Busy{Amount: Amount{small("n", 2), small("m", 3)}, Room: room(), VO: vo()}
			if small("ends", 2) > 0 {
				b.Until = at("end")
			}
			st.Busy = append(st.Busy, b)
		}
		var holds []Hold
		for i := range small("holds", 8) {
			holds = append(holds, Hold{
				ID: fmt.Sprint("h", i), Slots: small("slots", 3), CPUs: small("cpus", 3), From: at("from"), Until: at("until"),
				VO: vo(), ForVO: rapid.Bool().Draw(t, "forVO"), AtManager: small("at manager", 3) == 0,
			})
		}
		all, k := keepAll(st, holds, noon), Keep(st, ordered(holds), noon)
		if (len(all.holds) > 0) != k.any() {
			t.Fatalf("any is %v", k.any())
		}
		for range 6 { // in any order: what was worked out for one serves the next
			need, length := Amount{small("need", 2), small("needs", 2)}, time.Duration(small("length", 12))*time.Hour
			r, v := room(), vo()
			mine := func(h *Hold) bool { return h.mine(r, v) }
			switch small("what", 2) {
			case 0:
				if got, want := k.Queue(need, mine), all.queue(need, mine); got != want {
					t.Fatalf("Queue(%v, %q, %q) is %d, want %d", need, r, v, got, want)
				}
			case 1:
				if want, _ := all.room(need, length, mine); k.Room(need, length, mine) != want {
					t.Fatalf("Room(%v, %v, %q, %q) is %d, want %d", need, length, r, v, k.Room(need, length, mine), want)
				}
			case 2:
				_, want := all.room(need, length, mine)
				if h := k.against(need, length, mine); h == nil && want != "" || h != nil && h.ID != want {
					t.Fatalf("against(%v, %v, %q, %q) is %v, want %q", need, length, r, v, h, want)
				}
			}
			in := length
			for _, h := range all.holds {
				if r != "" && h.ID == r && !h.From.After(noon) && (length <= 0 || length > h.Until.Sub(noon)) {
					in = h.Until.Sub(noon)
				}
			}
			if got := k.within(r, length); got != in {
				t.Fatalf("within(%q, %v) is %v, want %v", r, length, got, in)
			}
		}
	})
}

// TestKeepIsCheap: what windows far ahead cost a job that ends before them is nothing.
func TestKeepIsCheap(t *testing.T) {
	var holds []Hold
	for i := range 5000 {
		from := noon.Add(time.Duration(i+1) * time.Minute)
		holds = append(holds, Hold{ID: fmt.Sprint(i), Slots: 1, From: from, Until: from.Add(time.Minute)})
	}
	st := Standing{Has: Amount{Slots: 2}, Free: Amount{Slots: 2}}
	k := Keep(st, ordered(holds), noon)
	if n := k.Room(Amount{1, 1}, 3*time.Minute, nobody); n != 1 || len(k.moments) != 3 {
		t.Errorf("%d start, and %d moments were looked at", n, len(k.moments))
	}
	if n := k.Queue(Amount{1, 1}, nobody); n != 1 || len(k.moments) != 5001 {
		t.Errorf("%d queue, and %d moments were looked at", n, len(k.moments))
	}
	for i := range k.moments {
		if len(k.moments[i].held) > 1 {
			t.Fatalf("at %s there are %d windows", k.moments[i].at, len(k.moments[i].held))
		}
	}
}

// TestChangeHolds changes what agreements promise one by one, and all at once; both come to the same.
func TestChangeHolds(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		one, all := newWorld(t, Options{}), newWorld(t, Options{})
		for _, w := range []*world{one, all} {
			w.put(siteOf("a", 1, 4), siteOf("b", 1, 4))
		}
		now := map[string][]Hold{}
		for range rapid.IntRange(1, 12).Draw(rt, "changes") {
			id := rapid.SampledFrom([]string{"x", "y", "z"}).Draw(rt, "agreement")
			var holds []Hold
			for i := range rapid.IntRange(0, 2).Draw(rt, "holds") {
				from := noon.Add(time.Duration(rapid.IntRange(0, 3).Draw(rt, "from")) * time.Hour)
				holds = append(holds, Hold{
					ID: fmt.Sprint(i), Agreement: id, Key: resourcemodel.Key{Site: rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "site")},
					Share: "all", CPUs: 1, From: from, Until: from.Add(time.Hour),
				})
			}
			if now[id] = holds; holds == nil {
				delete(now, id)
			}
			one.s.ChangeHolds(id, holds)
			var sum []Hold
			for _, h := range now {
				sum = append(sum, h...)
			}
			all.s.SetHolds(sum)
			if a, b := one.s.Holds(), all.s.Holds(); !slices.Equal(a, b) || len(a) != len(sum) || one.s.held() != len(sum) {
				rt.Fatalf("one by one there is %v, and at once %v", a, b)
			}
			for _, w := range []*world{one, all} {
				var at int
				for _, v := range w.s.sites {
					if (v.keep != nil) != slices.Contains(w.s.keeping, v) {
						rt.Fatalf("the site %s is kept wrongly", v.key)
					}
					if v.keep == nil {
						continue
					}
					at += len(v.keep.holds)
					if !slices.IsSortedFunc(v.keep.holds, (*Hold).before) || slices.ContainsFunc(v.keep.holds, func(h *Hold) bool { return h.Key != v.key }) || len(v.keep.holds) == 0 {
						rt.Fatalf("the site %s has %v", v.key, v.keep.holds)
					}
				}
				if at != len(sum) || !slices.IsSortedFunc(w.s.keeping, func(a, b *site) int { return a.key.Compare(b.key) }) {
					rt.Fatalf("%d holds are at sites, of %d", at, len(sum))
				}
			}
		}
	})
}

func TestEarliest(t *testing.T) {
	at := func(h float64) time.Time { return noon.Add(time.Duration(h * float64(time.Hour))) }
	one := Amount{1, 1}
	two := func(free int, busy ...Busy) Standing {
		return Standing{Has: Amount{Slots: 2}, Free: Amount{Slots: free}, Busy: busy}
	}
	for _, c := range []struct {
		what   string
		st     Standing
		queue  []Planned
		holds  []Hold
		need   Amount
		length time.Duration
		want   string
	}{
		{"free", two(1, Busy{one, at(1), "", ""}), nil, nil, one, time.Hour, "it could start now"},
		{"the first to end", two(0, Busy{one, at(1), "", ""}, Busy{one, at(2), "", ""}), nil, nil, one, time.Hour, "it could start at 2031-03-01T13:00:00Z at the earliest"},
		{"both must", two(0, Busy{one, at(1), "", ""}, Busy{one, at(2), "", ""}), nil, nil, Amount{2, 2}, time.Hour, "it could start at 2031-03-01T14:00:00Z at the earliest"},
		{"behind what queues", two(0, Busy{one, at(1), "", ""}, Busy{one, at(2), "", ""}), []Planned{{Amount: one, Length: 3 * time.Hour}}, nil, one, time.Hour, "it could start at 2031-03-01T14:00:00Z at the earliest"},
		{"a small one goes before a large one that queues", two(1, Busy{one, at(2), "", ""}), []Planned{{Amount: Amount{2, 2}, Length: time.Hour}}, nil, one, time.Hour, "it could start now"},
		{"a long one does not", two(1, Busy{one, at(2), "", ""}), []Planned{{Amount: Amount{2, 2}, Length: time.Hour}}, nil, one, 4 * time.Hour, "it could start at 2031-03-01T15:00:00Z at the earliest"},
		{"after the window", two(2), nil, []Hold{{ID: "h", Slots: 2, From: at(1), Until: at(2)}}, one, 90 * time.Minute, "it could start at 2031-03-01T14:00:00Z at the earliest"},
		{"before the window", two(2), nil, []Hold{{ID: "h", Slots: 2, From: at(1), Until: at(2)}}, one, time.Hour, "it could start now"},
		{"nobody knows", two(0, Busy{Amount: one}, Busy{Amount: one}), nil, nil, one, time.Hour, "nobody can tell when it could start: 2 jobs there do not say how long they run"},
		{"some do not say", two(0, Busy{Amount: one}, Busy{one, at(1), "", ""}), nil, nil, one, time.Hour, "it could start at 2031-03-01T13:00:00Z at the earliest, or sooner: 1 job there do not say how long they run"},
		{"never", two(2), nil, nil, Amount{3, 3}, time.Hour, "it has 2 slots and 0 CPUs, and never so many as are asked for"},
	} {
		if o := Earliest(c.st, c.queue, ordered(c.holds), c.need, c.length, nobody, noon); o.Sentence != c.want {
			t.Errorf("%s: %+v, want %q", c.what, o, c.want)
		}
	}
	// A site with very many jobs is not looked at for ever.
	many := Standing{Has: Amount{Slots: 5000}}
	for i := range 5000 {
		many.Busy = append(many.Busy, Busy{one, noon.Add(time.Duration(i+1) * time.Minute), "", ""})
	}
	if o := Earliest(many, nil, nil, Amount{50, 50}, time.Hour, nobody, noon); o.Start.Before(noon.Add(50*time.Minute)) || o.Start.After(noon.Add(65*time.Minute)) {
		t.Errorf("%+v", o)
	}
}

func TestHoldsOfOwners(t *testing.T) {
	own, vo, named := Hold{ID: "a/0", Owner: "ada", ForVO: true}, Hold{ID: "b/0", Owner: "ada", VO: "bio", ForVO: true}, Hold{ID: "c/0", Owner: "ada"}
	for _, c := range []struct {
		h        Hold
		room, vo string
		want     bool
	}{
		{own, OwnRoom("ada"), "", true},
		{own, OwnRoom("bob"), "", false},
		{own, OwnRoom(""), "", false},
		{own, "", "", false},
		{own, "", "bio", false},
		{own, "a/0", "", true},
		{vo, "", "bio", true},
		{vo, OwnRoom("ada"), "", false},
		{named, OwnRoom("ada"), "", false},
		{named, "c/0", "", true},
		{Hold{ForVO: true}, OwnRoom(""), "", false},
	} {
		if got := c.h.mine(c.room, c.vo); got != c.want {
			t.Errorf("%+v for the room %q and the VO %q: %v", c.h, c.room, c.vo, got)
		}
	}
}

func TestEndangered(t *testing.T) {
	at := func(m int) time.Time { return noon.Add(time.Duration(m) * time.Minute) }
	for _, c := range []struct {
		start, finish time.Time
		length        time.Duration
		want          time.Time
	}{
		{},
		{start: at(5), want: at(5)},
		{finish: at(100), length: 30 * time.Minute, want: at(70)},
		{finish: at(100), want: at(40)},
		{start: at(20), finish: at(100), length: 30 * time.Minute, want: at(20)},
		{start: at(90), finish: at(100), length: 30 * time.Minute, want: at(70)},
	} {
		if got := LatestStart(c.start, c.finish, c.length); !got.Equal(c.want) {
			t.Errorf("%+v: %s", c, got)
		}
	}
	for _, c := range []struct {
		latest time.Time
		wait   time.Duration
		danger bool
		look   time.Time
	}{
		{},
		{latest: at(100), look: at(45)},
		{latest: at(100), wait: 40 * time.Minute, look: at(25)},
		{latest: at(100), wait: 90 * time.Minute, danger: true},
		{latest: at(10), danger: true},
		{latest: at(-10), danger: true},
		{latest: at(10).Add(10 * time.Second), look: noon.Add(10 * time.Second)},
	} {
		if danger, look := Endangered(c.latest, PromiseMargin, c.wait, noon); danger != c.danger || !look.Equal(c.look) {
			t.Errorf("%+v: %v, %s", c, danger, look)
		}
	}
	for _, c := range []struct {
		from, latest time.Time
		want         time.Duration
	}{
		{latest: at(5), want: PromiseMargin},
		{from: at(0), latest: at(100), want: PromiseMargin},
		{from: at(0), latest: at(20), want: PromiseMargin},
		{from: at(0), latest: at(19), want: 9*time.Minute + 30*time.Second},
		{from: at(60), latest: at(65), want: 2*time.Minute + 30*time.Second},
		{from: at(60), latest: at(60)},
		{from: at(60), latest: at(50)},
	} {
		if got := Margin(c.from, c.latest); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
	if danger, look := Endangered(at(5), Margin(at(0), at(5)), 0, at(0)); danger || !look.Equal(at(0).Add(75*time.Second)) {
		t.Errorf("a window that opens is no danger: %v, %s", danger, look)
	}
	// However long it is until then, it is looked at a few times only, and danger is seen in time.
	now, looks := noon, 0
	for latest := noon.AddDate(0, 1, 0); ; looks++ {
		danger, look := Endangered(latest, PromiseMargin, 0, now)
		if danger {
			if left := latest.Sub(now); left != PromiseMargin || looks > 40 {
				t.Errorf("seen %s before, after %d looks", left, looks)
			}
			return
		}
		now = look
	}
}

// limited gives a request with a WallTimeLimit.
func (w *world) limited(vo string, cpus int, wall time.Duration) *resourcemodel.Request {
	limit := ""
	if wall > 0 {
		limit = fmt.Sprintf(`<posix:WallTimeLimit>%d</posix:WallTimeLimit>`, int(wall.Seconds()))
	}
	doc := bytes.Replace(document(cpus, "", ""), []byte(`</posix:POSIXApplication>`), []byte(limit+`</posix:POSIXApplication>`), 1)
	if r := w.requests[vo+string(doc)]; r != nil {
		return r
	}
	src := Source{Document: doc, Subject: resourcemodel.Subject{VO: vo}}
	def, problems := jsdl.Parse(doc, jsdl.Options{})
	if err := problems.Err(); err != nil {
		w.t.Fatal(err)
	}
	r, err := resourcemodel.Compile(def, src.Subject)
	if err != nil {
		w.t.Fatal(err)
	}
	w.requests[vo+string(doc)], w.sources[r] = r, src
	return r
}

// timed lets a job with a length wait.
func (w *world) timed(id, vo string, cpus int, wall time.Duration, room string, only *Pin) {
	r := w.limited(vo, cpus, wall)
	j := &policy.Job{ID: id, VO: vo, Submitted: w.now, Length: wall, CPUs: cpus, Room: room, Request: r}
	w.jobs[id] = j
	w.s.Add(Entry{Job: j, Attempt: 1, Only: only})
}

// A window of a site keeps jobs of others out that would still run in it, and those of its room in; time alone
// opens it again.
func TestHoldsAreKept(t *testing.T) {
	w := newWorld(t, Options{})
	w.put(siteOf("a", 1, 4))
	a := resourcemodel.Key{Site: "a"}
	w.s.SetHolds([]Hold{{ID: "room", Key: a, Share: "all", CPUs: 3, From: noon.Add(2 * time.Hour), Until: noon.Add(4 * time.Hour)}})
	w.timed("endless", "", 1, 0, "", nil)
	w.timed("endless2", "", 1, 0, "", nil)
	w.timed("long", "", 2, 3*time.Hour, "", nil)
	w.timed("short", "", 1, time.Hour, "", nil)
	w.expect("endless→a short→a", w.round(0))
	why, _ := w.s.Why("long", w.now)
	if !strings.Contains(why.Sentence, "3 of 4 CPUs of a/all are promised from 2031-03-01T14:00:00Z") || !strings.Contains(why.Sentence, "give it one of at most 2h") || !why.Until.Equal(noon.Add(2*time.Hour)) {
		t.Errorf("%+v", why)
	}
	if next := w.s.Next(w.now); !next.Equal(noon.Add(2 * time.Hour)) {
		t.Errorf("next is %s", next)
	}
	r := w.s.Try(w.s.jobs["long"].Entry, w.now, 10)
	if r.Now || len(r.Verdicts) != 1 || r.Verdicts[0].Now || r.Verdicts[0].Clauses[0].Element != "Promise" {
		t.Errorf("%+v", r)
	}
	w.s.Left("short")
	w.now = noon.Add(2 * time.Hour)
	w.timed("mine", "", 3, time.Hour, "room", &Pin{Key: a})
	w.timed("other", "", 1, time.Minute, "", nil)
	w.expect("mine→a", w.round(0))
	w.s.Began("mine", w.now)
	w.s.Left("mine")
	w.expect("", w.round(0))
	w.now = noon.Add(4 * time.Hour)
	w.expect("endless2→a long→a", w.round(0))
	w.s.SetHolds(nil)
	if w.s.site(a).keep != nil || len(w.s.keeping) != 0 {
		t.Error("something is left of what was held")
	}
}

// A job that is a few seconds late in its window has its room all the same, though another's window follows.
func TestWindowsFollow(t *testing.T) {
	w := newWorld(t, Options{})
	w.put(siteOf("a", 1, 2))
	a := resourcemodel.Key{Site: "a"}
	w.s.SetHolds([]Hold{
		{ID: "one", Key: a, Share: "all", CPUs: 2, From: noon.Add(time.Hour), Until: noon.Add(2 * time.Hour)},
		{ID: "two", Key: a, Share: "all", CPUs: 2, From: noon.Add(2 * time.Hour), Until: noon.Add(3 * time.Hour)},
	})
	w.timed("early", "", 2, time.Hour, "two", nil)
	w.now = noon.Add(time.Second)
	w.expect("", w.round(0)) // it would meet the window of the other
	w.now = noon.Add(time.Hour + 5*time.Second)
	w.timed("late", "", 2, time.Hour, "one", nil)
	w.timed("other", "", 1, time.Minute, "", nil)
	w.expect("late→a", w.round(0))
	w.s.Began("late", w.now)
	w.s.Left("late")
	w.now = noon.Add(2 * time.Hour)
	w.expect("early→a", w.round(0))
}

// A pin may name a peer: the job goes there whatever is free at home, and to no other.
func TestPinToAPeer(t *testing.T) {
	w := newWorld(t, Options{})
	w.put(siteOf("own", 1, 4))
	w.s.SetPeers(peersOf(routing.Policy{}, "bsc", "fiu"))
	w.show("bsc", 1, 4, 0, resourcemodel.Full)
	w.show("fiu", 1, 1, 0, resourcemodel.Full)
	w.timed("1fiu", "", 1, time.Hour, "", &Pin{Key: resourcemodel.Key{Site: "fiu"}})
	w.timed("2own", "", 4, time.Hour, "", &Pin{Key: resourcemodel.Key{Site: "own"}})
	w.timed("3own", "", 1, time.Hour, "", &Pin{Key: resourcemodel.Key{Site: "own"}})
	w.expect("1fiu→fiu 2own→own", w.round(0))
}

// A pin leaves one site and share, and a manager's own reservation has its jobs placed whatever is free.
func TestPins(t *testing.T) {
	w := newWorld(t, Options{})
	w.put(siteOf("a", 1, 9), siteOf("b", 1, 1))
	w.timed("1there", "", 1, 0, "", &Pin{Key: resourcemodel.Key{Site: "b"}, Share: "all"})
	w.timed("2nowhere", "", 1, 0, "", &Pin{Key: resourcemodel.Key{Site: "b"}, Share: "other"})
	w.timed("3full", "", 1, 0, "", &Pin{Key: resourcemodel.Key{Site: "b"}})
	w.timed("4reserved", "", 1, 0, "", &Pin{Key: resourcemodel.Key{Site: "b"}, Reserved: true})
	w.timed("5any", "", 1, 0, "", nil)
	ds := w.round(0)
	w.expect("1there→b 4reserved→b 5any→a", ds)
	for _, d := range ds {
		if d.Job == "1there" && (len(d.Out) != 1 || d.Out[0].Element != "Promise") {
			t.Errorf("%+v", d.Out)
		}
	}
}

// TestHoldsProperties has a Scheduler place jobs as they come, on a site with windows: no class sleeps that
// has room, and by what jobs declare nobody has what is held for others. A replay decides the same.
func TestHoldsProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t, Options{})
		const cpus = 6
		w.put(siteOf("a", 1, cpus), siteOf("b", 1, 2))
		a := resourcemodel.Key{Site: "a"}
		var trace bytes.Buffer
		rec, err := w.s.Record(&trace, w.source)
		if err != nil {
			rt.Fatal(err)
		}
		var holds []Hold
		for i := range rapid.IntRange(1, 2).Draw(rt, "holds") {
			from := noon.Add(time.Duration(rapid.IntRange(5, 200).Draw(rt, "from")) * time.Minute)
			holds = append(holds, Hold{
				ID: fmt.Sprint("h", i), Key: a, Share: "all", CPUs: rapid.IntRange(1, 3).Draw(rt, "cpus"), From: from,
				Until: from.Add(time.Duration(rapid.IntRange(1, 90).Draw(rt, "window")) * time.Minute), VO: fmt.Sprint("vo", i), ForVO: true,
			})
		}
		if rapid.Bool().Draw(rt, "one by one") {
			for i := range holds {
				holds[i].Agreement = holds[i].ID
				w.s.ChangeHolds(holds[i].ID, holds[i:i+1])
			}
		} else {
			w.s.SetHolds(holds)
		}
		w.s.SetSite(a, Site{Ahead: rapid.IntRange(0, 3).Draw(rt, "ahead")})
		began, ends := map[string]time.Time{}, map[string]time.Time{}
		place := map[string]string{}
		free := cpus
		check := func() {
			if err := w.s.Audit(w.now); err != nil {
				rt.Fatal(err)
			}
			for _, h := range holds {
				for _, m := range []time.Time{h.From, h.Until.Add(-time.Second)} {
					if m.Before(w.now) {
						continue
					}
					used, held := 0, make([]int, len(holds))
					for id, at := range place {
						if at != "a" || !ends[id].IsZero() && !ends[id].After(m) {
							continue
						}
						j := w.jobs[id]
						used += j.CPUs
						for i := range holds {
							if holds[i].mine(j.Room, j.VO) {
								held[i] += j.CPUs
							}
						}
					}
					kept := 0
					for i, h := range holds {
						if !h.From.After(m) && h.Until.After(m) {
							kept += max(0, h.CPUs-held[i])
						}
					}
					if kept > 0 && used+kept > cpus {
						rt.Fatalf("at %s jobs have %d CPUs of %d, and %d are held", m.Sub(noon), used, cpus, kept)
					}
				}
			}
		}
		for i := range rapid.IntRange(1, 25).Draw(rt, "steps") {
			w.now = w.now.Add(time.Duration(rapid.IntRange(0, 20).Draw(rt, "later")) * time.Minute)
			for id, end := range ends { // as declared, at the latest
				if place[id] != "" && !end.IsZero() && !end.After(w.now) {
					if place[id] == "a" && !began[id].IsZero() {
						free += w.jobs[id].CPUs
					}
					w.s.Left(id)
					delete(place, id)
				}
			}
			w.free("a", max(0, free))
			vo := []string{"", "vo0", "vo1"}[rapid.IntRange(0, 2).Draw(rt, "vo")]
			w.timed(fmt.Sprintf("j%02d", i), vo, rapid.IntRange(1, 3).Draw(rt, "size"), time.Duration(rapid.IntRange(0, 90).Draw(rt, "length"))*time.Minute, "", nil)
			for _, d := range w.round(0) {
				j := w.jobs[d.Job]
				place[d.Job] = d.Place.Site
				starts := false
				for _, r := range d.Ranked {
					starts = starts || r.Place == d.Place && r.Free > 0
				}
				if !starts {
					ends[d.Job] = time.Time{} // it queues: for ever, for all that is known
					continue
				}
				if j.Length > 0 {
					ends[d.Job] = w.now.Add(j.Length)
				}
				began[d.Job] = w.now
				if d.Place.Site == "a" {
					free -= j.CPUs
					w.free("a", max(0, free))
				}
				w.s.Began(d.Job, w.now)
				w.s.Settled(d.Job)
			}
			check()
		}
		if err := rec.Close(); err != nil {
			rt.Fatal(err)
		}
		res, err := Replay(&trace, nil)
		if err != nil || res.Same != res.Decisions || len(res.Differences) > 0 {
			rt.Fatalf("%v: %+v", err, res)
		}
	})
}
