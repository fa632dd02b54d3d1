package purchase

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	_ "time/tzdata" // wherever the test runs

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/ledger"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/peers/wire"
)

// TestStates: the table has a way out of each state that is not final, and each can be come to.
func TestStates(t *testing.T) {
	come := map[State]bool{Asking: true}
	for changed := true; changed; {
		changed = false
		for from, events := range transitions {
			for e, to := range events {
				if !come[from] {
					continue
				}
				if _, ok := transitions[to]; !ok {
					t.Errorf("%s by %s: %s is no state", from, e, to)
				}
				changed = changed || !come[to]
				come[to] = true
			}
		}
	}
	come[Lost] = true // what is settled is what its outcome says
	for s := range transitions {
		if !come[s] {
			t.Errorf("nothing comes to be %s", s)
		}
		for _, e := range []Event{Found, Held, LetGo, Declined, Dear, Confirmed, Unheard, Over, Dropped, Release, Gone, Withdrawn, Settled} {
			to, err := next("x", s, e, "")
			if want, ok := transitions[s][e]; ok != (err == nil) || ok && to != want || !ok && (to != s || !fail.Is(err, fail.Conflict)) {
				t.Errorf("%s by %s: %s %v", s, e, to, err)
			}
		}
	}
	for outcome, want := range map[State]State{"": Ended, Ended: Ended, Released: Released, Lost: Lost, Refused: Ended, Asking: Ended} {
		if got, err := next("x", Settling, Settled, outcome); got != want || err != nil {
			t.Errorf("settled as %q: %s %v", outcome, got, err)
		}
	}
}

func TestWishes(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ok := Wish{From: "fiu.example", CPUs: 4, Start: now, End: now.Add(time.Hour)}
	minus := int64(-1)
	for _, c := range []struct {
		change func(*Wish)
		want   string
	}{
		{func(*Wish) {}, ""},
		{func(w *Wish) { w.CPUs = MaxCPUs }, ""},
		{func(w *Wish) { w.End = w.Start.Add(MaxLength) }, ""},
		{func(w *Wish) { w.Later = MaxLength }, ""},
		{func(w *Wish) { w.From = "" }, "name the domain"},
		{func(w *Wish) { w.From = strings.Repeat("x", MaxName+1) }, "name the domain"},
		{func(w *Wish) { w.CPUs = 0 }, "0 CPUs"},
		{func(w *Wish) { w.CPUs = MaxCPUs + 1 }, "CPUs can't be bought"},
		{func(w *Wish) { w.Least = 5 }, "at least 5"},
		{func(w *Wish) { w.Least = -1 }, "at least -1"},
		{func(w *Wish) { w.VO = strings.Repeat("v", MaxName+1) }, "VO"},
		{func(w *Wish) { w.End = w.Start }, "end after"},
		{func(w *Wish) { w.Start = time.Time{} }, "end after"},
		{func(w *Wish) { w.Start, w.End = now.Add(-time.Hour), now }, "was over"},
		{func(w *Wish) { w.End = w.Start.Add(MaxLength + 1) }, "buy several"},
		{func(w *Wish) { w.Start = now.Add(MaxAhead + 1); w.End = w.Start.Add(1) }, "a year ahead"},
		{func(w *Wish) { w.Later = -1 }, "later"},
		{func(w *Wish) { w.Later = MaxLength + 1 }, "later"},
		{func(w *Wish) { w.MaxPrice = &minus }, "below zero"},
	} {
		w := ok
		c.change(&w)
		err := w.Check(now)
		if (err == nil) != (c.want == "") || err != nil && (!fail.Is(err, fail.Invalid) || !strings.Contains(fail.Sentence(err), c.want)) {
			t.Errorf("%+v: %v; want %q", w, err, c.want)
		}
	}
}

// TestBought is the life of a purchase that goes well: nothing is ours before the window, what was bought
// is while it is open, and nothing after; and what it cost is in the ledger.
func TestBought(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.shop.rate = 250
		b, stop := w.start(Options{}, nil)
		defer stop()
		r, err := b.Buy(t.Context(), wish(func(x *Wish) { x.VO = "bio" }), "ada")
		if err != nil || r.State != Asking {
			t.Fatal(r, err)
		}
		time.Sleep(time.Minute)
		if r = w.get(b, r.ID); r.State != Bought || r.Room != 60 || r.Price != 15_000 || r.Unit != "credit" || !strings.HasPrefix(r.Agreement, "agreement-") || len(w.ours()) != 0 {
			t.Fatalf("%+v %v", r, w.ours())
		}
		time.Sleep(time.Until(r.Start))
		synctest.Wait()
		want := []Open{{Domain: "fiu.example", Agreement: r.Agreement, CPUs: 60, VO: "bio", From: r.Start, Until: r.End}}
		if got := w.ours(); !slices.Equal(got, want) {
			t.Fatalf("%+v; want %+v", got, want)
		}
		// A domain that is away is noted, with the time.
		time.Sleep(10 * time.Minute)
		w.setAway("it was not heard of for too long")
		time.Sleep(10 * time.Minute)
		w.setAway("")
		time.Sleep(10 * time.Minute)
		if r = w.get(b, r.ID); len(r.Outages) != 1 || r.Unusable(time.Now()).Round(time.Minute) != 10*time.Minute || r.isAway() || r.State != Bought {
			t.Fatalf("%+v", r)
		}
		time.Sleep(time.Until(r.End))
		synctest.Wait()
		if got := w.ours(); len(got) != 0 {
			t.Fatalf("after the window: %+v", got)
		}
		time.Sleep(time.Minute)
		r = w.get(b, r.ID)
		if r.State != Ended || len(r.Entries) != 1 || r.Closed.IsZero() {
			t.Fatalf("%+v", r)
		}
		if e := r.Entries[0]; e.Kind != ledger.Price || e.Amount.String() != "15" || e.VO != "bio" || e.Domain != "fiu.example" || e.Agreement != r.Agreement {
			t.Errorf("%+v", e)
		}
		if _, err := b.Release(t.Context(), r.ID, "ada"); !fail.Is(err, fail.Conflict) {
			t.Error(err)
		}
		l := ledger.New()
		for _, e := range r.Entries { // the ledger takes them
			if err := l.Post(e); err != nil {
				t.Error(err)
			}
		}
		if w.shop.talks != 0 {
			t.Errorf("%d negotiations are open still", w.shop.talks)
		}
		time.Sleep(32 * 24 * time.Hour)
		if _, err := b.Get(t.Context(), r.ID); !fail.Is(err, fail.NotFound) {
			t.Errorf("it is kept for ever: %v", err)
		}
	})
}

// TestWhatIsBoughtInstead: fewer, later, or nothing, as the wish has it.
func TestWhatIsBoughtInstead(t *testing.T) {
	price := func(n int64) func(*Wish) { return func(w *Wish) { w.MaxPrice = &n } }
	for name, c := range map[string]struct {
		shop   func(*shop)
		change func(*Wish)
		state  State
		cpus   int
		later  time.Duration
		says   string
	}{
		"all":               {nil, nil, Bought, 60, 0, ""},
		"fewer":             {func(s *shop) { s.has = 40 }, func(w *Wish) { w.Least = 16 }, Bought, 40, 0, ""},
		"too few":           {func(s *shop) { s.has = 10 }, func(w *Wish) { w.Least = 16 }, Refused, 0, 0, "not 16 to 60"},
		"none":              {func(s *shop) { s.has = 40 }, nil, Refused, 0, 0, "no room for so many"},
		"no bargaining":     {func(s *shop) { s.silent = true }, nil, Bought, 60, 0, ""},
		"no bargain at all": {func(s *shop) { s.silent, s.has = true, 40 }, nil, Refused, 0, 0, "somebody was faster"},
		"a fair price":      {func(s *shop) { s.rate = 1000 }, price(60_000), Bought, 60, 0, ""},
		"too dear":          {func(s *shop) { s.rate = 1001 }, price(60_000), Refused, 0, 0, "asks for 60.06 credit"},
		"dearer than said":  {func(s *shop) { s.rate, s.raise = 1000, 1 }, price(60_000), Refused, 0, 0, "asks for 60.001 credit"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				if c.shop != nil {
					c.shop(w.shop)
				}
				b, stop := w.start(Options{}, nil)
				defer stop()
				r, err := b.Buy(t.Context(), wish(c.change), "ada")
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Minute)
				r = w.get(b, r.ID)
				if r.State != c.state || c.cpus > 0 && r.Room != c.cpus || !strings.Contains(r.Reason, c.says) {
					t.Errorf("%s, %d CPUs, %q", r.State, r.Room, r.Reason)
				}
				want := 0
				if c.state == Bought {
					want = 1
				}
				if got := w.shop.binding(); len(got) != want {
					t.Errorf("%+v", got)
				}
				w.shop.set(func(s *shop) {
					for _, d := range s.deals {
						if c.state == Refused && !d.state.Final() {
							t.Errorf("it holds %+v still", d)
						}
					}
				})
			})
		})
	}
}

// TestLater: another has the room until later.
func TestLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		b, stop := w.start(Options{}, nil)
		defer stop()
		x := wish(func(x *Wish) { x.Later = 3 * time.Hour })
		w.shop.deals = append(w.shop.deals, &deal{key: "other", state: agreement.Observed, cpus: 80, window: windowOf(x)})
		r, err := b.Buy(t.Context(), x, "ada")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if r = w.get(b, r.ID); r.State != Bought || !r.Opens.Equal(w.shop.opened) || r.Closes.Sub(r.Opens) != time.Hour {
			t.Errorf("%+v", r)
		}
	})
}

// TestLate: an order that is asked for late gets what is left of its window, or a window that is as late as it may
// be; never one that nobody wished for.
func TestLate(t *testing.T) {
	const h, m = time.Hour, time.Minute
	for name, c := range map[string]struct {
		start, end, later time.Duration // from when it is ordered on
		down              time.Duration // for which the shop is closed
		opens             time.Duration // until when another has the room; 0: nobody has
		state             State         // "": it is not asked for
		from, until       time.Duration
	}{
		"in time":                     {start: h, end: 2 * h, state: Bought, from: h, until: 2 * h},
		"begun":                       {start: -h, end: 9 * h, state: Bought, from: 0, until: 9 * h},
		"begun, and may be later":     {start: -h, end: 9 * h, later: 2 * h, opens: 30 * m, state: Bought, from: 30 * m, until: 9*h + 30*m},
		"later than it may be":        {start: -h, end: 9 * h, later: 2 * h, opens: 90 * m, state: Refused},
		"begun too long ago":          {start: -3 * h, end: 9 * h, later: 2 * h, opens: 30 * m, state: Refused},
		"over":                        {start: -11 * h, end: -h},
		"over, and may be later":      {start: -11 * h, end: -h, later: 12 * h, state: Bought, from: 0, until: 10 * h},
		"over, as late as it may be":  {start: -11 * h, end: -h, later: 12 * h, opens: 30 * m, state: Bought, from: 30 * m, until: 10*h + 30*m},
		"over, and later than it may": {start: -11 * h, end: -h, later: 12 * h, opens: 90 * m, state: Refused},
		"over for longer than may be": {start: -11 * h, end: -h, later: 2 * h},
		"over as the shop opens":      {start: -10 * h, end: h, later: 2 * h, down: 2 * h, state: Refused},
		"in the last second":          {start: -h, end: time.Second, state: Refused},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				b, stop := w.start(Options{Again: 2 * 24 * h}, nil)
				defer stop()
				now := time.Now().UTC().Truncate(time.Second)
				w.shop.down, w.shop.opened = c.down > 0, now.Add(c.opens)
				if c.opens > 0 {
					w.shop.deals = append(w.shop.deals, &deal{key: "other", state: agreement.Observed, cpus: 80, window: terms.Window{Start: now.Add(-h), End: now.Add(c.opens)}})
				}
				o := Order{Name: "late", Wish: wish(func(x *Wish) { x.Start, x.End, x.Later = now.Add(c.start), now.Add(c.end), c.later })}
				if err := o.Check(); err != nil {
					t.Fatal(err)
				}
				b.SetOrders([]Order{o})
				time.Sleep(c.down)
				w.shop.set(func(s *shop) { s.down = false })
				time.Sleep(time.Minute)
				all, err := b.List(t.Context())
				if err != nil || len(all) > 1 {
					t.Fatal(all, err)
				}
				if c.state == "" || len(all) == 0 {
					if len(all) != 0 || c.state != "" {
						t.Errorf("%+v", all)
					}
					return
				}
				near := func(at time.Time, d time.Duration) bool { // it takes seconds to get there
					return at.Sub(now.Add(d)).Abs() < 10*time.Second
				}
				r := &all[0]
				if r.State != c.state || r.State == Bought && !(near(r.Opens, c.from) && near(r.Closes, c.until)) {
					t.Errorf("%s, from %s to %s: %s", r.State, r.Opens.Sub(now), r.Closes.Sub(now), r.Reason)
				}
				w.shop.set(func(s *shop) { // whatever is made of it, it is no longer than the wish, and no later
					for _, d := range s.deals {
						if d.key != "other" && (d.window.Length() > r.End.Sub(r.Start) || d.window.Start.After(r.Start.Add(r.Later)) && d.window.End.After(r.End)) {
							t.Errorf("from %s to %s", d.window.Start.Sub(now), d.window.End.Sub(now))
						}
					}
				})
			})
		})
	}
}

// TestDropped: the domain ends it, and what was bought is not ours any more.
func TestDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.shop.rate = 100
		b, stop := w.start(Options{}, nil)
		defer stop()
		r, err := b.Buy(t.Context(), wish(nil), "ada")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(70 * time.Minute)
		if len(w.ours()) != 1 {
			t.Fatal("it is not ours")
		}
		w.shop.set(func(s *shop) { s.deals[0].state = agreement.Terminated })
		time.Sleep(2 * time.Minute)
		if r = w.get(b, r.ID); r.State != Lost || len(w.ours()) != 0 || len(r.Entries) != 0 {
			t.Errorf("%+v %v", r, w.ours())
		}
	})
}

// TestReleased: in each state that a purchase may be in, it is given back, and the domain holds nothing.
func TestReleased(t *testing.T) {
	for n := range 12 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.shop.rate = 100
				l := &life{left: n + 2}
				b, stop := w.start(Options{}, l)
				r, err := b.Buy(t.Context(), wish(nil), "ada")
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Second)
				stop()
				b, stop = w.start(Options{}, nil)
				defer stop()
				if _, err := b.Release(t.Context(), r.ID, "ada"); err != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Minute)
				if r = w.get(b, r.ID); r.State != Released || len(r.Entries) != 0 {
					t.Errorf("%+v", r)
				}
				w.shop.set(func(s *shop) {
					_ = s.up()
					if got := s.room(windowOf(wish(nil))); got != s.has {
						t.Errorf("%d of %d are free: %+v", got, s.has, s.deals)
					}
				})
				if again, err := b.Release(t.Context(), r.ID, "ada"); err != nil || again.State != Released {
					t.Errorf("again: %+v %v", again, err)
				}
			})
		})
	}
}

// TestKilledAtEachStep: whatever the gateway was doing when it died, the next one has bought exactly what was
// wished for, or nothing if nobody was told that it was wished for.
func TestKilledAtEachStep(t *testing.T) {
	for n := 1; n <= 24; n++ {
		for _, after := range []bool{false, true} {
			for _, pause := range []time.Duration{0, 2 * time.Minute} { // what was held has been let go
				t.Run(fmt.Sprintf("%d-%t-%s", n, after, pause), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(t)
						w.shop.rate = 100
						b, stop := w.start(Options{Watch: 10 * time.Minute}, &life{left: n, after: after})
						r, err := b.Buy(t.Context(), wish(nil), "ada")
						known := err == nil
						time.Sleep(75 * time.Minute)
						stop()
						time.Sleep(pause)
						b, stop = w.start(Options{Watch: 10 * time.Minute}, nil)
						defer stop()
						time.Sleep(2 * time.Minute)
						if !known {
							all, err := b.List(t.Context())
							if err != nil || len(all) > 1 {
								t.Fatal(all, err)
							}
							if len(all) == 0 {
								if got := w.shop.binding(); len(got) != 0 {
									t.Errorf("%+v", got)
								}
								return
							}
							r = &all[0]
						}
						if r = w.get(b, r.ID); r.State != Bought || len(w.ours()) != 1 {
							t.Fatalf("%+v %v", r, w.ours())
						}
						time.Sleep(2 * time.Hour)
						if r = w.get(b, r.ID); r.State != Ended || len(r.Entries) != 1 || len(w.ours()) != 0 {
							t.Fatalf("%+v %v", r, w.ours())
						}
						if got := w.shop.binding(); len(got) != 1 || w.shop.most > 60 {
							t.Errorf("bought twice, or held twice: %+v, %d", got, w.shop.most)
						}
					})
				})
			}
		}
	}
}

// TestKilledPastTheWindow: what was sold to a gateway that was dead until the window was over is in its ledger,
// whether it had heard of that or not.
func TestKilledPastTheWindow(t *testing.T) {
	lost := 0
	for n := 2; n <= 12; n++ {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.shop.rate = 100
				b, stop := w.start(Options{}, &life{left: n, after: true})
				r, err := b.Buy(t.Context(), wish(nil), "ada")
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				stop()
				time.Sleep(3 * time.Hour)
				b, stop = w.start(Options{}, nil)
				defer stop()
				time.Sleep(time.Minute)
				r = w.get(b, r.ID)
				if got := w.shop.binding(); !r.State.Final() || len(r.Entries) != len(got) {
					t.Errorf("%+v, of %+v", r, got)
				}
				if r.State == Lost && len(r.Entries) == 1 {
					lost++
				}
			})
		})
	}
	if lost == 0 {
		t.Error("it never died between the confirmation and its record")
	}
}

// TestClosedShop: a domain that is out of reach is asked again until it is too late.
func TestClosedShop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.shop.down = true
		b, stop := w.start(Options{}, nil)
		defer stop()
		first, err := b.Buy(t.Context(), wish(nil), "ada")
		if err != nil {
			t.Fatal(err)
		}
		elsewhere, err := b.Buy(t.Context(), wish(func(x *Wish) { x.From = "nobody.example" }), "ada")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if r := w.get(b, elsewhere.ID); r.State != Refused || !strings.Contains(r.Reason, "no peer") {
			t.Errorf("%+v", r)
		}
		w.shop.set(func(s *shop) { s.down = false })
		time.Sleep(time.Minute)
		if r := w.get(b, first.ID); r.State != Bought {
			t.Errorf("%+v", r)
		}
		w.shop.set(func(s *shop) { s.down = true })
		last, err := b.Buy(t.Context(), wish(nil), "ada")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Hour)
		if r := w.get(b, last.ID); r.State != Refused || !strings.Contains(r.Reason, "before it was bought") || len(r.History) > 5 {
			t.Errorf("%+v", r)
		}
		// What it costs can't be learnt, and so is not known; it is not asked for ever.
		if r := w.get(b, first.ID); r.State != Settling {
			t.Errorf("%+v", r)
		}
		time.Sleep(26 * time.Hour)
		if r := w.get(b, first.ID); r.State != Ended || len(r.Entries) != 0 {
			t.Errorf("%+v", r)
		}
	})
}

// TestNoPeerForAMoment: that the domain is no peer of ours for a while is not its word. Nothing is taken to be
// over of what it may hold, and it is told of what is given back when it is a peer again.
func TestNoPeerForAMoment(t *testing.T) {
	for _, s := range []State{Asking, Preparing, Confirming, Bought, Releasing, Settling} {
		t.Run(string(s), func(t *testing.T) {
			b, err := New(nil, Options{Own: "home.example", Dial: func(_ context.Context, domain string) (Provider, error) {
				return nil, fail.Errorf("test", fail.NotFound, domain, "the domain %s is no peer", domain)
			}})
			if err != nil {
				t.Fatal(err)
			}
			now := time.Now()
			r := &Record{ID: "x", Wish: wish(nil), State: s, Created: now, Key: "key", Until: now.Add(time.Minute), Opens: now.Add(-time.Minute), Closes: now.Add(time.Hour)}
			want := s
			if s == Asking {
				want = Refused // nothing is asked for where nobody is known
			}
			if !b.drive(t.Context(), r) || r.State != want || s != Asking && (r.Fails != 1 || r.Key == "" || !r.Next.After(now)) {
				t.Errorf("%+v", r)
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.shop.rate = 100
		b, stop := w.start(Options{}, nil)
		defer stop()
		r, err := b.Buy(t.Context(), wish(nil), "ada")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(70 * time.Minute)
		w.setGone(true)
		time.Sleep(10 * time.Minute)
		if r = w.get(b, r.ID); r.State != Bought || len(w.ours()) != 1 || !strings.Contains(r.Reason, "no peer") {
			t.Fatalf("%+v %v", r, w.ours())
		}
		if _, err := b.Release(t.Context(), r.ID, "ada"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if r = w.get(b, r.ID); r.State != Releasing {
			t.Fatalf("%+v", r)
		}
		w.setGone(false)
		time.Sleep(time.Minute)
		if r = w.get(b, r.ID); r.State != Released || len(r.Entries) != 1 {
			t.Errorf("%+v", r)
		}
		w.shop.set(func(s *shop) {
			if d := s.deals[0]; d.state != agreement.Terminated {
				t.Errorf("it is held still: %+v", d)
			}
		})
	})
}

// TestReplicas: two gateways on one store buy once; one goes on with what the other left.
func TestReplicas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		order := Order{Name: "now", Wish: wish(nil)}
		a, stopA := w.start(Options{Replica: "a"}, nil)
		b, stopB := w.start(Options{Replica: "b"}, nil)
		a.SetOrders([]Order{order})
		b.SetOrders([]Order{order})
		time.Sleep(10 * time.Second)
		all, err := b.List(t.Context())
		if err != nil || len(all) != 1 || all[0].State != Bought {
			t.Fatal(all, err)
		}
		stopA()
		time.Sleep(3 * time.Hour)
		if r := w.get(b, all[0].ID); r.State != Ended || len(w.shop.binding()) != 1 {
			t.Errorf("%+v %+v", r, w.shop.binding())
		}
		stopB()
	})
}

// TestBounds: as many are under way as may be, and no more.
func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		b, stop := w.start(Options{MaxLive: 2}, nil)
		defer stop()
		for range 2 {
			if _, err := b.Buy(t.Context(), wish(func(x *Wish) { x.CPUs = 1 }), "ada"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if _, err := b.Buy(t.Context(), wish(nil), "ada"); !fail.Is(err, fail.Exhausted) {
			t.Error(err)
		}
		r := &Record{State: Bought, Closes: time.Now().Add(time.Hour)}
		for range maxHistory + 50 {
			r.away(time.Now(), strings.Repeat("x", 2*maxReason))
			r.back(time.Now())
		}
		if len(r.History) != maxHistory || len(r.Outages) > maxOutages || len(r.Reason) > maxReason+8 {
			t.Errorf("%d %d %d", len(r.History), len(r.Outages), len(r.Reason))
		}
	})
	if _, err := New(nil, Options{}); !fail.Is(err, fail.Invalid) {
		t.Error(err)
	}
}

func TestOrderWindows(t *testing.T) {
	zone := func(name string) *time.Location {
		z, err := time.LoadLocation(name)
		if err != nil {
			t.Fatal(err)
		}
		return z
	}
	madrid, santiago, havana := zone("Europe/Madrid"), zone("America/Santiago"), zone("America/Havana")
	sunday := []time.Weekday{time.Sunday}
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	base := Wish{From: "fiu.example", CPUs: 4}
	h := time.Hour
	for name, c := range map[string]struct {
		o     Order
		now   string
		ahead time.Duration
		want  string
	}{
		"daily":          {Order{Daily: &Daily{Start: 8 * h, End: 18 * h}}, "2026-03-02T12:00:00Z", 24 * h, "02T08-02T18 03T08-03T18"},
		"over for today": {Order{Daily: &Daily{Start: 8 * h, End: 18 * h}}, "2026-03-02T18:00:00Z", 10 * h, ""},
		"at night":       {Order{Daily: &Daily{Start: 22 * h, End: 6 * h}}, "2026-03-02T05:00:00Z", 24 * h, "01T22-02T06 02T22-03T06"},
		"weekdays":       {Order{Daily: &Daily{Start: 8 * h, End: 18 * h, Days: []time.Weekday{time.Monday, time.Friday}}}, "2026-03-02T00:00:00Z", 7 * 24 * h, "02T08-02T18 06T08-06T18"},
		"the clocks go":  {Order{Daily: &Daily{Start: 8 * h, End: 18 * h, Zone: madrid}}, "2026-03-28T12:00:00Z", 24 * h, "28T07-28T17 29T06-29T16"},
		"in spring":      {Order{Daily: &Daily{Start: 2 * h, End: 4 * h, Zone: madrid}}, "2026-03-29T00:00:00Z", 12 * h, "29T01-29T02"},
		"in autumn":      {Order{Daily: &Daily{Start: 1 * h, End: 4 * h, Zone: madrid}}, "2026-10-24T20:00:00Z", 12 * h, "24T23-25T03"},
		// Where the clocks go forward at midnight, at 04:00Z and 05:00Z.
		"no midnight":         {Order{Daily: &Daily{Start: 8 * h, End: 18 * h, Zone: santiago}}, "2026-09-05T03:00:00Z", 48 * h, "05T12-05T22 06T11-06T21"},
		"no midnight before":  {Order{Daily: &Daily{Start: 8 * h, End: 18 * h, Zone: santiago}}, "2026-09-06T12:00:00Z", 12 * h, "06T11-06T21"},
		"no Sunday midnight":  {Order{Daily: &Daily{Start: 8 * h, End: 18 * h, Zone: havana, Days: sunday}}, "2026-03-07T12:00:00Z", 72 * h, "08T12-08T22"},
		"all of days":         {Order{Daily: &Daily{Start: 0, End: 24 * h, Zone: santiago}}, "2026-09-05T12:00:00Z", 40 * h, "05T04-06T04 06T04-07T03 07T03-08T03"},
		"all of the next day": {Order{Daily: &Daily{Start: 0, End: 24 * h, Zone: santiago}}, "2026-09-05T12:00:00Z", 16 * h, "05T04-06T04 06T04-07T03"},
		"all day":             {Order{Daily: &Daily{Start: 0, End: 24 * h}}, "2026-03-02T12:00:00Z", 1 * h, "02T00-03T00"},
	} {
		c.o.Name, c.o.Wish = name, base
		if err := c.o.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		var got []string
		for _, w := range c.o.windows(at(c.now), at(c.now).Add(c.ahead)) {
			got = append(got, w.Start.Format("02T15")+"-"+w.End.Format("02T15"))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q; want %q", name, got, c.want)
		}
	}
	for want, o := range map[string]Order{
		"a name":          {Wish: base, Daily: &Daily{Start: h, End: 2 * h}},
		"or for one":      {Name: "x", Wish: Wish{From: "a", CPUs: 1, Start: at("2026-03-02T12:00:00Z")}, Daily: &Daily{Start: h, End: 2 * h}},
		"times of a day":  {Name: "x", Wish: base, Daily: &Daily{Start: h, End: h}},
		"end after":       {Name: "x", Wish: base},
		"0 CPUs":          {Name: "x", Wish: Wish{From: "a"}, Daily: &Daily{Start: h, End: 2 * h}},
		"name the domain": {Name: "x", Wish: Wish{CPUs: 1}, Daily: &Daily{Start: h, End: 2 * h}},
	} {
		if err := o.Check(); !fail.Is(err, fail.Invalid) || !strings.Contains(fail.Sentence(err), want) {
			t.Errorf("%+v: %v; want %q", o, err, want)
		}
	}
}

// TestOrders: a daily order is bought each day, once; when there is no room it is asked for again.
func TestOrders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		b, stop := w.start(Options{}, nil)
		defer stop()
		start := time.Duration(time.Now().UTC().Hour()+2) % 22 * time.Hour
		o := Order{Name: "days", Wish: Wish{From: "fiu.example", CPUs: 60}, Daily: &Daily{Start: start, End: start + time.Hour}}
		w.shop.has = 0
		b.SetOrders([]Order{o})
		time.Sleep(10 * time.Minute)
		if all, err := b.List(t.Context()); err != nil || len(all) == 0 || all[0].State != Asking {
			t.Fatal(all, err)
		}
		w.shop.set(func(s *shop) { s.has = 100 })
		time.Sleep(71 * time.Hour)
		b.SetOrders(nil)
		all, err := b.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		ended := 0
		for _, r := range all {
			if r.State == Ended {
				ended++
			}
			if r.State == Refused || r.Order != "days" {
				t.Errorf("%+v", r)
			}
		}
		if ended != 3 || len(all) > 4 {
			t.Errorf("%d of %d are over", ended, len(all))
		}
	})
}

// TestOrdersOutlastABadMoment: that a domain has nothing to sell for a while, or is no peer, ends no order.
func TestOrdersOutlastABadMoment(t *testing.T) {
	for name, bad := range map[string]func(w *world, is bool){
		"no template": func(w *world, is bool) { w.shop.set(func(s *shop) { s.bare = is }) },
		"no peer":     func(w *world, is bool) { w.setGone(is) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				bad(w, true)
				b, stop := w.start(Options{}, nil)
				defer stop()
				b.SetOrders([]Order{{Name: "mended", Wish: wish(nil)}, {Name: "too late", Wish: wish(func(x *Wish) { x.Start = x.Start.Add(-57 * time.Minute) })}})
				once, err := b.Buy(t.Context(), wish(nil), "ada")
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(20 * time.Minute)
				if r := w.get(b, once.ID); r.State != Refused {
					t.Errorf("who asked once isn't told: %+v", r)
				}
				bad(w, false)
				time.Sleep(6 * time.Minute)
				all, err := b.List(t.Context())
				if err != nil || len(all) != 3 {
					t.Fatal(all, err)
				}
				for _, r := range all {
					if want := map[string]State{"mended": Bought, "too late": Refused, "": Refused}[r.Order]; r.State != want || len(r.History) > 20 {
						t.Errorf("%s; want %s: %+v", r.State, want, r)
					}
				}
			})
		})
	}
}

// TestPruned: what was bought for an order is kept while the order could still ask for its window.
func TestPruned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		b, stop := w.start(Options{Retention: time.Hour}, nil)
		defer stop()
		b.SetOrders([]Order{{Name: "once", Wish: wish(func(x *Wish) { x.Later = 12 * time.Hour })}})
		time.Sleep(11 * time.Hour)
		if got := w.shop.binding(); len(got) != 1 {
			t.Errorf("it was bought %d times", len(got))
		}
		time.Sleep(5 * time.Hour)
		if all, err := b.List(t.Context()); err != nil || len(all) != 0 {
			t.Error(all, err)
		}
	})
}

// counting counts what is logged.
type counting struct {
	slog.Handler
	n atomic.Int64
}

func (c *counting) Handle(context.Context, slog.Record) error { c.n.Add(1); return nil }

// TestOrdersWait: orders for which there is no room among what is under way wait for it, and say so once.
func TestOrdersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		said := &counting{Handler: slog.DiscardHandler}
		b, stop := w.start(Options{MaxLive: 1, Log: slog.New(onlyWarnings{said})}, nil)
		defer stop()
		first, err := b.Buy(t.Context(), wish(nil), "ada")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		b.SetOrders([]Order{{Name: "later", Wish: wish(func(x *Wish) { x.Start, x.End = x.Start.Add(2*time.Hour), x.End.Add(2*time.Hour) })}})
		time.Sleep(90 * time.Minute)
		if n := said.n.Load(); n != 1 {
			t.Errorf("it was said %d times", n)
		}
		if all, err := b.List(t.Context()); err != nil || len(all) != 1 || all[0].ID != first.ID {
			t.Fatal(all, err)
		}
		time.Sleep(40 * time.Minute)
		if all, err := b.List(t.Context()); err != nil || len(all) != 2 || all[1].State != Bought {
			t.Error(all, err)
		}
	})
}

// onlyWarnings lets through what somebody should know of.
type onlyWarnings struct{ *counting }

func (onlyWarnings) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }
func (o onlyWarnings) WithAttrs([]slog.Attr) slog.Handler         { return o }

// TestOrdersPassOneThatFails: what can't be read of one order is nothing to the others, and is tried again ever
// less often.
func TestOrdersPassOneThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		said := &counting{Handler: slog.DiscardHandler}
		orders := []Order{{Name: "damaged", Wish: wish(nil)}, {Name: "sound", Wish: wish(nil)}}
		if _, err := w.st.PutRecords(t.Context(), nil, store.RecordChange{Key: keyOf(orders[0].purchase(&orders[0].Wish)), Value: []byte("{")}); err != nil {
			t.Fatal(err)
		}
		b, stop := w.start(Options{Log: slog.New(onlyWarnings{said})}, nil)
		defer stop()
		b.SetOrders(orders)
		time.Sleep(30 * time.Minute)
		if all, err := b.List(t.Context()); err != nil || len(all) != 1 || all[0].Order != "sound" || all[0].State != Bought {
			t.Error(all, err)
		}
		if n := said.n.Load(); n < 10 || n > 45 {
			t.Errorf("it was tried %d times", n)
		}
	})
}

// TestAgreementsThatNoRouteHas: what could not be used is not bought.
func TestAgreementsThatNoRouteHas(t *testing.T) {
	for name, want := range map[string]State{
		"": Refused, "a b": Refused, "a\tb": Refused, "ä": Refused, "\xff": Refused, "a\x7f": Refused, strings.Repeat("a", maxAgreement+1): Refused,
		"a": Bought, "!~": Bought, "urn:uuid:0e8400-e29b": Bought, strings.Repeat("a", maxAgreement): Bought,
	} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.shop.name = func(string) string { return name }
			b, stop := w.start(Options{}, nil)
			defer stop()
			r, err := b.Buy(t.Context(), wish(nil), "ada")
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Minute)
			if r = w.get(b, r.ID); r.State != want || want == Bought && r.Agreement != name || want == Refused && !strings.Contains(r.Reason, "no job can be given") {
				t.Errorf("%q: %s, %q, %s", name, r.State, r.Agreement, r.Reason)
			}
			if got := w.shop.binding(); (len(got) == 1) != (want == Bought) {
				t.Errorf("%q: %+v", name, got)
			}
		})
	}
}

// TestRoutesHaveAgreements: an id that is bought by is one that a Route carries.
func TestRoutesHaveAgreements(t *testing.T) {
	if maxAgreement != wire.MaxID {
		t.Errorf("a Route has room for %d bytes, and %d are bought by", wire.MaxID, maxAgreement)
	}
}
