package calendar_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/internal/agreements/calendar"
	"github.com/portolan-project/portolan/internal/fail"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(s int) time.Time { return noon.Add(time.Duration(s) * time.Second) }

// days is how many seconds the brute-force model has.
const days = 40

// model is what a profile must be like: an amount for each second.
type model struct {
	pool calendar.Pool
	held [days]calendar.Amount
	past int
}

func second(t time.Time, up bool) int {
	d := t.Sub(noon)
	s := int(d / time.Second)
	if up && d%time.Second > 0 {
		s++
	}
	return s
}

func (m *model) add(h calendar.Hold, sign int64) {
	for s := max(m.past, second(h.From, false)); s < second(h.Until, true); s++ {
		m.held[s].Slots += sign * h.Slots
		m.held[s].CPUs += sign * h.CPUs
		m.held[s].Nodes += sign * h.Nodes
	}
}

func (m *model) free(s int) calendar.Amount {
	c := m.pool.Capacity
	for _, o := range m.pool.Outages {
		if s >= second(o.From, false) && (o.Until.IsZero() || s < second(o.Until, true)) {
			c.Slots, c.CPUs, c.Nodes = c.Slots-o.Less.Slots, c.CPUs-o.Less.CPUs, c.Nodes-o.Less.Nodes
		}
	}
	c = calendar.Amount{Slots: max(c.Slots, 0), CPUs: max(c.CPUs, 0), Nodes: max(c.Nodes, 0)}
	if s < days {
		c = calendar.Amount{Slots: c.Slots - m.held[s].Slots, CPUs: c.CPUs - m.held[s].CPUs, Nodes: c.Nodes - m.held[s].Nodes}
	}
	if m.pool.Capacity.Nodes == 0 {
		c.Nodes = calendar.MaxAmount
	}
	return c
}

func (m *model) fits(a calendar.Amount, from, until int) bool {
	for s := max(from, m.past); s < until; s++ {
		if !a.Within(m.free(s)) {
			return false
		}
	}
	return true
}

func drawAmount(t *rapid.T) calendar.Amount {
	n := func(what string) int64 { return rapid.Int64Range(0, 4).Draw(t, what) }
	a := calendar.Amount{Slots: n("slots"), CPUs: n("cpus"), Nodes: n("nodes")}
	if a == (calendar.Amount{}) {
		a.CPUs = 1
	}
	return a
}

func drawTimes(t *rapid.T) (time.Time, time.Time) {
	from := noon.Add(time.Duration(rapid.IntRange(0, 2*(days-2)).Draw(t, "from")) * time.Second / 2)
	most := int(noon.Add((days-1)*time.Second).Sub(from) / (time.Second / 2))
	return from, from.Add(time.Duration(rapid.IntRange(1, min(most, 16)).Draw(t, "halves")) * time.Second / 2)
}

func drawHold(t *rapid.T, pools ...string) calendar.Hold {
	h := calendar.Hold{Pool: rapid.SampledFrom(pools).Draw(t, "pool"), Amount: drawAmount(t)}
	h.From, h.Until = drawTimes(t)
	return h
}

func drawPool(t *rapid.T, id string) calendar.Pool {
	n := func(what string) int64 { return rapid.Int64Range(0, 12).Draw(t, what) }
	p := calendar.Pool{ID: id, Capacity: calendar.Amount{Slots: n("slots"), CPUs: n("cpus"), Nodes: n("nodes") / 2}}
	for range rapid.IntRange(0, 2).Draw(t, "outages") {
		o := calendar.Outage{Less: drawAmount(t)}
		o.From, o.Until = drawTimes(t)
		if rapid.IntRange(0, 4).Draw(t, "endless") == 0 {
			o.Until = time.Time{}
		}
		p.Outages = append(p.Outages, o)
	}
	return p
}

// TestProfile: whatever is added, removed and forgotten, all answers are those of a model that
// counts each second.
func TestProfile(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{pool: drawPool(t, "p")}
		var holds []calendar.Hold
		for range rapid.IntRange(0, 6).Draw(t, "first") {
			h := drawHold(t, "p")
			holds = append(holds, h)
			m.add(h, 1)
		}
		f := calendar.NewProfile(m.pool, holds...)
		t.Repeat(map[string]func(*rapid.T){
			"": func(t *rapid.T) { compare(t, f, m) },
			"add": func(t *rapid.T) {
				h := drawHold(t, "p")
				holds = append(holds, h)
				f.Add(h)
				m.add(h, 1)
			},
			"remove": func(t *rapid.T) {
				if len(holds) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(holds)-1).Draw(t, "which")
				f.Remove(holds[i])
				m.add(holds[i], -1)
				holds = append(holds[:i:i], holds[i+1:]...)
			},
			"pool": func(t *rapid.T) {
				m.pool = drawPool(t, "p")
				f.SetPool(m.pool)
			},
			"forget": func(t *rapid.T) {
				s := rapid.IntRange(0, days/4).Draw(t, "before")
				f.Forget(at(s))
				m.past = max(m.past, s)
			},
		})
		for _, h := range holds {
			f.Remove(h)
		}
		f.SetPool(calendar.Pool{ID: "p"})
		if f.Len() != 0 {
			t.Fatalf("with nothing held %d steps are left", f.Len())
		}
	})
}

func compare(t *rapid.T, f *calendar.Profile, m *model) {
	h := drawHold(t, "p")
	if got, want := f.Fits(h), m.fits(h.Amount, second(h.From, false), second(h.Until, true)); got != want {
		t.Fatalf("Fits(%+v) = %v, want %v", h, got, want)
	}
	least := m.free(max(m.past, second(h.From, false)))
	for s := max(m.past, second(h.From, false)); s < second(h.Until, true); s++ {
		q := m.free(s)
		least = calendar.Amount{Slots: min(least.Slots, q.Slots), CPUs: min(least.CPUs, q.CPUs), Nodes: min(least.Nodes, q.Nodes)}
	}
	if m.pool.Capacity.Nodes == 0 {
		least.Nodes = 0
	}
	least = calendar.Amount{Slots: max(0, least.Slots), CPUs: max(0, least.CPUs), Nodes: max(0, least.Nodes)}
	if got := f.Free(h.From, h.Until); got != least {
		t.Fatalf("Free(%s, %s) = %+v, want %+v", h.From, h.Until, got, least)
	}
	d := rapid.IntRange(1, 10).Draw(t, "duration")
	horizon, latest := rapid.IntRange(0, days).Draw(t, "horizon"), rapid.IntRange(0, days).Draw(t, "latest")
	start := second(h.From, true)
	want, found := 0, false
	for s := max(start, m.past); s <= latest && s+d <= horizon && !found; s++ {
		if m.fits(h.Amount, s, s+d) {
			want, found = s, true
		}
	}
	got, ok := f.Earliest(h.Amount, time.Duration(d)*time.Second-time.Millisecond, h.From, at(horizon), at(latest))
	if ok != found || ok && !got.Equal(at(want)) {
		t.Fatalf("Earliest(%+v, %ds, %s, %d, %d) = %s %v, want %d %v", h.Amount, d, h.From, horizon, latest, got, ok, want, found)
	}
	over := map[int]bool{}
	for _, s := range f.Steps(at(m.past), at(days)) {
		for i := second(s.From, false); i < second(s.Until, true); i++ {
			over[i] = s.Over()
		}
	}
	for s := m.past; s < days; s++ {
		q := m.free(s)
		if want := m.held[s].Slots > 0 && q.Slots < 0 || m.held[s].CPUs > 0 && q.CPUs < 0 || m.held[s].Nodes > 0 && q.Nodes < 0; over[s] != want {
			t.Fatalf("second %d is over: %v, want %v", s, over[s], want)
		}
	}
}

// TestBook: several holds of several pools are put off together to the first time at which all
// of them fit.
func TestBook(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		book := calendar.Book{}
		models := map[string]*model{}
		for _, id := range []string{"a", "b"} {
			m := &model{pool: drawPool(t, id)}
			book[id] = calendar.NewProfile(m.pool)
			for range rapid.IntRange(0, 4).Draw(t, "held") {
				h := drawHold(t, id)
				m.add(h, 1)
				book[id].Add(h)
			}
			models[id] = m
		}
		var holds []calendar.Hold
		for range rapid.IntRange(1, 4).Draw(t, "holds") {
			h := drawHold(t, "a", "b", "a", "b", "unknown").Outward()
			holds = append(holds, h)
		}
		fits := func(shift int) bool {
			need := map[string]*[3 * days]calendar.Amount{}
			for _, h := range holds {
				if need[h.Pool] == nil {
					need[h.Pool] = &[3 * days]calendar.Amount{}
				}
				for s := second(h.From, false) + shift; s < second(h.Until, true)+shift; s++ {
					n := &need[h.Pool][s]
					n.Slots, n.CPUs, n.Nodes = n.Slots+h.Slots, n.CPUs+h.CPUs, n.Nodes+h.Nodes
				}
			}
			for id, seconds := range need {
				m := models[id]
				if m == nil {
					m = &model{}
				}
				for s, a := range seconds {
					if a != (calendar.Amount{}) && !a.Within(m.free(s)) {
						return false
					}
				}
			}
			return true
		}
		if got := book.Fits(holds); got != fits(0) || got != (book.Lacking(holds) == "") {
			t.Fatalf("Fits = %v and %q is lacking, want %v: %+v", got, book.Lacking(holds), fits(0), holds)
		}
		last := 0
		for _, h := range holds {
			last = max(last, second(h.Until, true))
		}
		most, horizon := rapid.IntRange(0, days).Draw(t, "most"), rapid.IntRange(1, 2*days).Draw(t, "horizon")
		want, found := 0, false
		for s := 0; s <= most && last+s <= horizon && !found; s++ {
			if fits(s) {
				want, found = s, true
			}
		}
		got, ok := book.Earliest(holds, time.Duration(most)*time.Second, at(horizon))
		if ok != found || ok && got != time.Duration(want)*time.Second {
			t.Fatalf("Earliest(%+v, %d, %d) = %v %v, want %ds %v", holds, most, horizon, got, ok, want, found)
		}
	})
}

func TestChecks(t *testing.T) {
	hold := func(change func(*calendar.Hold)) calendar.Hold {
		h := calendar.Hold{ID: "h", Pool: "p", Amount: calendar.Amount{CPUs: 1}, From: at(0), Until: at(1)}
		change(&h)
		return h
	}
	for name, h := range map[string]calendar.Hold{
		"nothing":   hold(func(h *calendar.Hold) { h.Amount = calendar.Amount{} }),
		"negative":  hold(func(h *calendar.Hold) { h.Slots = -1 }),
		"too much":  hold(func(h *calendar.Hold) { h.Nodes = calendar.MaxAmount + 1 }),
		"no time":   hold(func(h *calendar.Hold) { h.Until = h.From }),
		"no end":    hold(func(h *calendar.Hold) { h.Until = time.Time{} }),
		"far end":   hold(func(h *calendar.Hold) { h.Until = h.From.AddDate(9000, 0, 0) }),
		"no pool":   hold(func(h *calendar.Hold) { h.Pool = "" }),
		"long pool": hold(func(h *calendar.Hold) { h.Pool = strings.Repeat("p", calendar.MaxID+1) }),
		"long id":   hold(func(h *calendar.Hold) { h.ID = strings.Repeat("i", calendar.MaxID+1) }),
	} {
		if err := h.Check(); !fail.Is(err, fail.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	good := hold(func(*calendar.Hold) {})
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	pool := func(change func(*calendar.Pool)) calendar.Pool {
		p := calendar.Pool{ID: "p", Capacity: calendar.Amount{CPUs: 1}, Outages: []calendar.Outage{{From: at(0)}}}
		change(&p)
		return p
	}
	for name, p := range map[string]calendar.Pool{
		"no id":        pool(func(p *calendar.Pool) { p.ID = "" }),
		"negative":     pool(func(p *calendar.Pool) { p.Capacity.CPUs = -1 }),
		"odd outage":   pool(func(p *calendar.Pool) { p.Outages[0].Less.CPUs = -1 }),
		"backwards":    pool(func(p *calendar.Pool) { p.Outages[0].Until = at(-1) }),
		"many outages": pool(func(p *calendar.Pool) { p.Outages = make([]calendar.Outage, calendar.MaxOutages+1) }),
	} {
		if err := p.Check(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	fine := pool(func(*calendar.Pool) {})
	if err := fine.Check(); err != nil {
		t.Error(err)
	}
}

// TestOutward: a hold covers at least what was asked for, in whole seconds.
func TestOutward(t *testing.T) {
	h := calendar.Hold{Pool: "p", Amount: calendar.Amount{CPUs: 1}, From: at(1).Add(time.Millisecond), Until: at(2).Add(time.Millisecond)}
	want := h
	want.From, want.Until = at(1), at(3)
	if got := h.Outward(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	b, err := json.Marshal(want)
	var back calendar.Hold
	if err == nil {
		err = json.Unmarshal(b, &back)
	}
	if err != nil || !reflect.DeepEqual(back, want) {
		t.Errorf("%s gives %+v, %v", b, back, err)
	}
}

// TestShifts: where two pools have room in turn and never at once, the search ends.
func TestShifts(t *testing.T) {
	book := calendar.Book{}
	for i, id := range []string{"a", "b"} {
		var holds []calendar.Hold
		for n := range 5000 {
			s := 2*n + i
			holds = append(holds, calendar.Hold{Pool: id, Amount: calendar.Amount{CPUs: 1}, From: at(s), Until: at(s + 1)})
		}
		book[id] = calendar.NewProfile(calendar.Pool{ID: id, Capacity: calendar.Amount{CPUs: 1}}, holds...)
	}
	both := []calendar.Hold{
		{Pool: "a", Amount: calendar.Amount{CPUs: 1}, From: at(0), Until: at(1)},
		{Pool: "b", Amount: calendar.Amount{CPUs: 1}, From: at(0), Until: at(1)},
	}
	if got, ok := book.Earliest(both, 1<<62, time.Time{}); ok {
		t.Errorf("found %v, after more steps than there should be", got)
	}
	if got, ok := book.Earliest(both[:1], 1<<62, time.Time{}); !ok || got != time.Second {
		t.Errorf("one by itself: %v %v", got, ok)
	}
}

func BenchmarkAddRemove10000(b *testing.B) {
	f := full(10_000)
	h := calendar.Hold{Pool: "p", Amount: calendar.Amount{CPUs: 1}, From: at(5_003), Until: at(5_501)}
	for b.Loop() {
		f.Add(h)
		f.Remove(h)
	}
}

func BenchmarkEarliest10000(b *testing.B) {
	f := full(10_000)
	for b.Loop() {
		if _, ok := f.Earliest(calendar.Amount{CPUs: 1 << 30}, time.Hour, at(0), time.Time{}, time.Time{}); ok {
			b.Fatal("there is no such room")
		}
	}
}

func full(n int) *calendar.Profile {
	holds := make([]calendar.Hold, n)
	for i := range holds {
		holds[i] = calendar.Hold{ID: fmt.Sprint(i), Pool: "p", Amount: calendar.Amount{CPUs: int64(1 + i%7)}, From: at(10 * i), Until: at(10*i + 995)}
	}
	return calendar.NewProfile(calendar.Pool{ID: "p", Capacity: calendar.Amount{CPUs: 1 << 20}}, holds...)
}
