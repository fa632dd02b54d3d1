package together_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/together"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/mem"
)

// fake is a provider that does as it is told.
type fake struct {
	mu       sync.Mutex
	prepare  func(n int) error // of the n. call
	confirm  func(n int) error
	end      func(n int) error
	state    agreement.State
	calls    []string
	key      string // of its agreement; "" is k
	prepared []agreement.Preparation
}

func (f *fake) say(what string, do func(int) error) error {
	f.mu.Lock()
	n := 1
	for _, c := range f.calls {
		if c == what {
			n++
		}
	}
	f.calls = append(f.calls, what)
	f.mu.Unlock()
	if do == nil {
		return nil
	}
	return do(n)
}

func (f *fake) Prepare(_ context.Context, _ *agreement.CreateRequest, p agreement.Preparation) (string, error) {
	if err := f.say("prepare", f.prepare); err != nil {
		return "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.prepared = append(f.prepared, p)
	if f.state == "" {
		f.state = agreement.Pending
	}
	return cmp.Or(f.key, "k"), nil
}

func (f *fake) Confirm(context.Context, string) error {
	err := f.say("confirm", f.confirm)
	if err == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.state = agreement.Observed
	}
	return err
}

func (f *fake) Agreement(context.Context, string) (*agreement.Properties, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.state == "" {
		return nil, fail.Errorf("test", fail.NotFound, "k", "there is no agreement k")
	}
	return &agreement.Properties{State: f.state}, nil
}

func (f *fake) Terminate(context.Context, string, *etree.Element) error {
	err := f.say("terminate", f.end)
	if err == nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.state = agreement.Terminated
	}
	return err
}

func (f *fake) did() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.calls, " ")
}

// always gives the same error; first gives it n times.
func always(err error) func(int) error { return func(int) error { return err } }

func first(n int, err error) func(int) error {
	return func(i int) error {
		if i <= n {
			return err
		}
		return nil
	}
}

var (
	errAway  = fail.Errorf("test", fail.Unavailable, "", "it could not be reached")
	errLost  = fail.Errorf("test", fail.Uncertain, "", "the answer was lost")
	errOver  = agreement.Refuse(agreement.WrongState, "it was let go")
	errBrute = fail.Errorf("test", fail.Denied, "", "you may not do this")
)

// open gives a coordinator of these providers that runs; stop ends it.
func open(t testing.TB, st store.Records, o together.Options, providers map[string]*fake) (c *together.Coordinator, stop func()) {
	t.Helper()
	o.Dial = func(_ context.Context, who, provider, _ string) (together.Provider, error) {
		if f := providers[provider]; f != nil && who == owner {
			return f, nil
		}
		return nil, fail.Errorf("test", fail.NotFound, provider, "nobody knows a provider %q", provider)
	}
	c, err := together.New(st, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = c.Run(ctx) })
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return c, stop
}

func memory(t testing.TB) *mem.Store {
	st := mem.New()
	t.Cleanup(func() { _ = st.Close() })
	return st
}

func planOf(t testing.TB, id string, providers ...string) together.Plan {
	p := together.Plan{ID: id, Owner: owner}
	for _, name := range providers {
		p.Parts = append(p.Parts, together.Part{Name: "part " + name, Provider: name, Offer: offered(t, 3)})
	}
	return p
}

// TestOutcomes: what providers do, and what becomes of all.
func TestOutcomes(t *testing.T) {
	late := agreement.Refuse(agreement.NoCapacity, "there is no room before noon")
	late.Earliest = from
	for name, c := range map[string]struct {
		a, b   *fake
		plan   func(*together.Plan)
		want   together.State
		parts  []together.PartState
		reason string
		did    []string // by a and b
	}{
		"all do": {&fake{}, &fake{}, nil, together.Committed, []together.PartState{together.PartConfirmed, together.PartConfirmed}, "", []string{"prepare confirm", "prepare confirm"}},
		"one refuses": {
			&fake{}, &fake{prepare: always(late)}, nil,
			together.Aborted,
			[]together.PartState{together.PartGone, together.PartRefused},
			"part b at b was refused: there is no room before noon",
			[]string{"prepare terminate", "prepare"},
		},
		"answers are lost": {
			&fake{prepare: first(3, errLost), confirm: first(3, errAway)}, &fake{confirm: first(1, errLost)}, nil,
			together.Committed,
			[]together.PartState{together.PartConfirmed, together.PartConfirmed},
			"",
			[]string{"prepare prepare prepare prepare confirm confirm confirm confirm", "prepare confirm confirm"},
		},
		"one is away, and it is not known whether it heard": {
			&fake{}, &fake{prepare: always(errAway)}, nil,
			together.Aborted,
			[]together.PartState{together.PartGone, together.PartGone},
			"part b at b was not answered for by", nil,
		},
		"one lets go too early": {
			&fake{}, &fake{confirm: always(errOver)}, nil,
			together.RolledBack,
			[]together.PartState{together.PartGone, together.PartLost},
			"part b at b could not be confirmed: it was let go",
			[]string{"prepare confirm terminate", "prepare confirm"},
		},
		"one forgets": {
			&fake{}, &fake{confirm: always(fail.Errorf("test", fail.NotFound, "k", "there is no agreement k"))}, nil,
			together.RolledBack,
			[]together.PartState{together.PartGone, together.PartLost},
			"there is no agreement k",
			[]string{"prepare confirm terminate", "prepare confirm"},
		},
		"one has ended by itself before it is terminated": {
			&fake{end: always(errOver), state: agreement.Complete}, &fake{prepare: always(late)}, nil,
			together.Aborted,
			[]together.PartState{together.PartGone, together.PartRefused},
			"",
			[]string{"prepare terminate", "prepare"},
		},
		"one won't confirm any more": {
			&fake{}, &fake{confirm: always(errBrute)}, nil,
			together.RolledBack,
			[]together.PartState{together.PartGone, together.PartGone},
			"part b at b could not be confirmed: you may not do this", nil,
		},
		"one is out of reach for ever": {
			&fake{}, &fake{confirm: always(errAway), end: always(errAway)}, nil,
			together.Unsettled,
			[]together.PartState{together.PartGone, together.PartUnknown},
			"could not be confirmed: it could not be reached", nil,
		},
		"one can't be terminated, and lets go in time": {
			&fake{end: always(errAway)}, &fake{prepare: always(late)}, nil,
			together.Aborted,
			[]together.PartState{together.PartGone, together.PartRefused},
			"", nil,
		},
		"nobody knows one": {
			&fake{}, &fake{}, func(p *together.Plan) { p.Parts[1].Provider = "moon" },
			together.Aborted,
			[]together.PartState{together.PartGone, together.PartRefused},
			`part b at moon was refused: nobody knows a provider "moon"`,
			[]string{"prepare terminate", ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := memory(t)
				co, _ := open(t, st, together.Options{}, map[string]*fake{"a": c.a, "b": c.b})
				p := planOf(t, "1", "a", "b")
				if c.plan != nil {
					c.plan(&p)
				}
				o, err := co.Coordinate(t.Context(), p)
				if err != nil || o.State != c.want || !strings.Contains(o.Reason, c.reason) || c.reason == "" && c.want == together.Committed && o.Reason != "" || o.Committed() != (c.want == together.Committed) {
					t.Fatalf("the outcome is %+v, %v", o, err)
				}
				for i, want := range c.parts {
					if o.Parts[i].State != want {
						t.Errorf("%s is %s; want %s", o.Parts[i].Name, o.Parts[i].State, want)
					}
				}
				if name == "one refuses" && !o.Parts[1].Earliest.Equal(from) {
					t.Errorf("it could be had at %s", o.Parts[1].Earliest)
				}
				if c.did != nil {
					if got := []string{c.a.did(), c.b.did()}; !slices.Equal(got, c.did) {
						t.Errorf("they were asked %q; want %q", got, c.did)
					}
				}
				for _, f := range []*fake{c.a, c.b} {
					for _, p := range f.prepared {
						if p != f.prepared[0] || !strings.HasPrefix(p.Key, "1/") {
							t.Errorf("it was prepared as %+v", f.prepared)
						}
					}
				}
				// Again, it is the same; another plan of that name is not.
				asked := c.a.did()
				again, err := co.Coordinate(t.Context(), p)
				if err != nil || again.State != o.State || c.a.did() != asked {
					t.Errorf("again it is %+v, %v, and %q was asked", again, err, c.a.did())
				}
				p.Parts[0].Name = "another"
				if _, err := co.Coordinate(t.Context(), p); !fail.Is(err, fail.Conflict) || !strings.Contains(fail.Sentence(err), "belongs to another plan") {
					t.Errorf("another plan: %v", err)
				}
			})
		})
	}
}

// TestTransitions walks the table: what it does not name happens to nothing, and every state but
// the final ones leads to an end.
func TestTransitions(t *testing.T) {
	table := together.Transitions()
	var walk func(together.State, map[together.State]bool) bool
	walk = func(s together.State, seen map[together.State]bool) bool {
		if s.Final() {
			return true
		}
		seen[s] = true
		for _, to := range table[s] {
			if !seen[to] && !walk(to, maps.Clone(seen)) {
				return false
			}
		}
		return true
	}
	for s := range table {
		if !walk(s, map[together.State]bool{}) {
			t.Errorf("%s leads nowhere", s)
		}
		for _, e := range []together.Event{together.AllPrepared, together.Refused, together.Late, together.Interrupted, together.AllConfirmed, together.Lost, together.AllGone, together.GaveUp, "moon"} {
			want, ok := table[s][e]
			if got, err := together.Next("1", s, e); ok != (err == nil) || ok && got != want || !ok && got != s {
				t.Errorf("%s after %s is %s, %v", s, e, got, err)
			}
		}
	}
	// What is decided is never taken back but by compensation.
	if slices.Contains(slices.Collect(maps.Values(table[together.Aborting])), together.Committing) || len(table[together.Aborting]) != 1 {
		t.Error("what is aborted can be committed")
	}
}

// TestDecidedInTime: with less than the margins left nothing is committed, though all is prepared.
func TestDecidedInTime(t *testing.T) {
	for wait, want := range map[time.Duration]together.State{9 * time.Second: together.Committed, 11 * time.Second: together.Aborted} {
		synctest.Test(t, func(t *testing.T) {
			slow := &fake{prepare: func(int) error { time.Sleep(wait); return nil }}
			c, _ := open(t, memory(t), together.Options{Timeout: time.Minute}, map[string]*fake{"a": slow, "b": {}})
			p := planOf(t, "1", "a", "b")
			p.Deadline = time.Now().Add(10 * time.Second)
			o, err := c.Coordinate(t.Context(), p)
			if err != nil || o.State != want {
				t.Errorf("after %s: %+v, %v", wait, o, err)
			}
			if until := slow.prepared[0].Until; !until.Equal(p.Deadline.Add(20 * time.Second)) {
				t.Errorf("it is held until %s", until)
			}
		})
	}
}

// TestRestart: a coordinator that is back aborts what it had not decided, and goes on with what
// it had.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory(t)
		a, b := &fake{}, &fake{prepare: first(2, errAway)}
		c, stop := open(t, st, together.Options{}, map[string]*fake{"a": a, "b": b})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := c.Coordinate(ctx, planOf(t, "1", "a", "b"))
		if !fail.Is(err, fail.Unavailable) || !strings.Contains(fail.Sentence(err), "goes on") {
			t.Fatalf("Coordinate: %v", err)
		}
		stop()
		c, _ = open(t, st, together.Options{}, map[string]*fake{"a": a, "b": b})
		o, err := c.Coordinate(t.Context(), planOf(t, "1", "a", "b"))
		if err != nil || o.State != together.Aborted || !strings.Contains(o.Reason, "ended before it was decided") || a.state != agreement.Terminated {
			t.Errorf("%+v, %v", o, err)
		}

		a, b = &fake{}, &fake{confirm: first(1, errAway)}
		providers := map[string]*fake{"a": a, "b": b}
		c, stop = open(t, st, together.Options{Replica: "x"}, providers)
		ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := c.Coordinate(ctx, planOf(t, "2", "a", "b")); !fail.Is(err, fail.Unavailable) {
			t.Fatalf("Coordinate: %v", err)
		}
		stop()
		c, _ = open(t, st, together.Options{Replica: "x"}, providers)
		if o, err := c.Coordinate(t.Context(), planOf(t, "2", "a", "b")); err != nil || !o.Committed() || a.did() != "prepare confirm" {
			t.Errorf("%+v, %v; a was asked %q", o, err, a.did())
		}
	})
}

// TestAnotherReplicaTakesOver: what a replica leaves behind another ends, in time for what was
// decided to be confirmed; it leaves alone what the other is at.
func TestAnotherReplicaTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory(t)
		a, b := &fake{}, &fake{confirm: first(1, errAway)}
		providers := map[string]*fake{"a": a, "b": b}
		x, stop := open(t, st, together.Options{Replica: "x"}, providers)
		y, _ := open(t, st, together.Options{Replica: "y"}, providers)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := x.Coordinate(ctx, planOf(t, "1", "a", "b")); !fail.Is(err, fail.Unavailable) {
			t.Fatalf("Coordinate: %v", err)
		}
		stop()
		began := time.Now()
		o, err := y.Coordinate(t.Context(), planOf(t, "1", "a", "b"))
		if r, _ := y.Get(t.Context(), owner, "1"); err != nil || !o.Committed() || r.By != "y" || time.Since(began) >= 10*time.Second {
			t.Errorf("%+v, %v, by %s after %s", o, err, r.By, time.Since(began))
		}

		slow := &fake{prepare: func(int) error { time.Sleep(5 * time.Second); return nil }}
		providers["a"] = slow
		x, stop = open(t, st, together.Options{Replica: "x"}, providers)
		if o, err := x.Coordinate(t.Context(), planOf(t, "2", "a", "b")); err != nil || !o.Committed() || slow.did() != "prepare confirm" {
			t.Errorf("%+v, %v; asked %q", o, err, slow.did())
		}
		ctx, cancel = context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := x.Coordinate(ctx, planOf(t, "3", "a", "b")); !fail.Is(err, fail.Unavailable) {
			t.Fatalf("Coordinate: %v", err)
		}
		stop()
		if o, err := y.Coordinate(t.Context(), planOf(t, "3", "a", "b")); err != nil || o.State != together.Aborted {
			t.Errorf("%+v, %v", o, err)
		}
	})
}

func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory(t)
		slow := &fake{prepare: func(int) error { time.Sleep(time.Second); return nil }}
		c, _ := open(t, st, together.Options{MaxLive: 2, MaxCalls: 1, Retention: time.Hour}, map[string]*fake{"a": slow, "b": {}})
		for words, change := range map[string]func(*together.Plan){
			"needs an id":                   func(p *together.Plan) { p.ID = "" },
			"1 to 128 bytes":                func(p *together.Plan) { p.ID = strings.Repeat("i", 129) },
			"without spaces":                func(p *together.Plan) { p.ID = " i" },
			"needs an owner":                func(p *together.Plan) { p.Owner = "" },
			"nothing to agree on":           func(p *together.Plan) { p.Parts = nil },
			"has 33 parts":                  func(p *together.Plan) { p.Parts = slices.Repeat(p.Parts, 33) },
			`two parts are called "part a"`: func(p *together.Plan) { p.Parts = slices.Repeat(p.Parts, 2) },
			"needs a name":                  func(p *together.Plan) { p.Parts[0].Name = "" },
			"needs a provider":              func(p *together.Plan) { p.Parts[0].Provider = "" },
			"which has passed":              func(p *together.Plan) { p.Deadline = time.Now() },
			"longer than 5m0s":              func(p *together.Plan) { p.Deadline = time.Now().Add(6 * time.Minute) },
			"more than 524288 bytes": func(p *together.Plan) {
				p.Parts[0].Offer.Context.Extensions = []*etree.Element{etree.NewElement("x")}
				p.Parts[0].Offer.Context.Extensions[0].SetText(strings.Repeat("x", together.MaxOffers))
			},
		} {
			p := planOf(t, "1", "a")
			change(&p)
			if _, err := c.Coordinate(t.Context(), p); err == nil || !strings.Contains(fail.Sentence(err), words) {
				t.Errorf("want %q: %v", words, err)
			}
		}
		var wg sync.WaitGroup
		for _, id := range []string{"1", "2"} {
			wg.Go(func() {
				if o, err := c.Coordinate(t.Context(), planOf(t, id, "a")); err != nil || !o.Committed() {
					t.Errorf("%s: %+v, %v", id, o, err)
				}
			})
		}
		synctest.Wait()
		if got := slow.did(); got != "prepare" {
			t.Errorf("with one request at a time, %q are under way", got)
		}
		if _, err := c.Coordinate(t.Context(), planOf(t, "3", "a")); !fail.Is(err, fail.Exhausted) || !strings.Contains(fail.Sentence(err), "2 coordinations are under way") {
			t.Errorf("a third: %v", err)
		}
		wg.Wait()
		if o, err := c.Coordinate(t.Context(), planOf(t, "3", "b")); err != nil || !o.Committed() {
			t.Errorf("then: %+v, %v", o, err)
		}
		// It is kept for a while, and then it is not.
		time.Sleep(55 * time.Minute)
		if _, err := c.Get(t.Context(), owner, "1"); err != nil {
			t.Errorf("after 55 minutes: %v", err)
		}
		time.Sleep(10 * time.Minute)
		if list, _, err := st.ListRecords(t.Context(), together.Prefix, noOptions); err != nil || len(list) > 0 {
			t.Errorf("after an hour there are %v, %v", list, err)
		}
	})
	for words, o := range map[string]together.Options{
		"set Dial":         {},
		"negative":         {Margin: -1},
		"more than the":    {Patience: time.Hour},
		"MaxLive is -1":    {MaxLive: -1},
		"MaxCalls -1":      {MaxCalls: -1},
		"times of a coord": {Retention: -1},
	} {
		if words != "set Dial" {
			o.Dial = func(context.Context, string, string, string) (together.Provider, error) { return nil, nil }
		}
		if _, err := together.New(nil, o); !fail.Is(err, fail.Invalid) || !strings.Contains(fail.Sentence(err), words) {
			t.Errorf("want %q: %v", words, err)
		}
	}
}

// TestKept: of one owner so many are begun and kept, and the newest; what is committed is kept while what was agreed on
// may last.
func TestKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory(t)
		providers := map[string]*fake{"a": {}, "no": {prepare: always(errBrute)}}
		c, _ := open(t, st, together.Options{MaxKept: 3, MaxHourly: 40, Retention: 30 * 24 * time.Hour}, providers)
		ids := func(before string, limit int) string {
			t.Helper()
			list, err := c.List(t.Context(), owner, before, limit)
			if err != nil {
				t.Fatal(err)
			}
			var out []string
			for _, r := range list {
				out = append(out, r.ID)
			}
			return strings.Join(out, " ")
		}
		for i := range 5 {
			time.Sleep(time.Second)
			if o, err := c.Coordinate(t.Context(), planOf(t, fmt.Sprint("no", i), "no")); err != nil || o.State != together.Aborted {
				t.Fatal(o, err)
			}
		}
		for i := range 35 {
			time.Sleep(time.Second)
			p := planOf(t, fmt.Sprint("a", i), "a")
			if i == 34 {
				p.Parts[0].Offer.Context.ExpirationTime = time.Now().Add(100 * 24 * time.Hour)
			}
			if o, err := c.Coordinate(t.Context(), p); err != nil || !o.Committed() {
				t.Fatal(o, err)
			}
		}
		if _, err := c.Coordinate(t.Context(), planOf(t, "more", "a")); !fail.Is(err, fail.Exhausted) || !strings.Contains(fail.Sentence(err), "has begun 40 coordinations within the hour") {
			t.Errorf("one more: %v", err)
		}
		if o, err := c.Coordinate(t.Context(), planOf(t, "a0", "a")); err != nil || !o.Committed() {
			t.Errorf("asked again: %+v %v", o, err)
		}
		if got := ids("", 2); got != "a34 a33" {
			t.Errorf("the newest are %s", got)
		}
		if got := ids("a33", 2); got != "a32 a31" {
			t.Errorf("then there are %s", got)
		}
		if got := ids("no1", 5); got != "no0" {
			t.Errorf("at last there are %s", got)
		}
		if got := ids("", 0); got != "" {
			t.Errorf("of none there are %s", got)
		}
		if _, err := c.List(t.Context(), "eve", "a33", 2); !fail.Is(err, fail.NotFound) {
			t.Errorf("%v", err)
		}
		time.Sleep(2 * time.Hour) // 3 that were refused, and 30 that are committed
		if got := ids("", 100); !strings.HasPrefix(got, "a34 ") || !strings.HasSuffix(got, " a6 a5 no4 no3 no2") {
			t.Errorf("kept are %s", got)
		}
		if o, err := c.Coordinate(t.Context(), planOf(t, "more", "a")); err != nil || !o.Committed() {
			t.Errorf("after an hour: %+v %v", o, err)
		}
		time.Sleep(32 * 24 * time.Hour)
		if got := ids("", 100); got != "a34" {
			t.Errorf("after a month are kept %s", got)
		}
		if err := c.Dissolve(t.Context(), owner, "a34", "enough"); err != nil {
			t.Error(err)
		}
		time.Sleep(31 * 24 * time.Hour)
		if got := ids("", 100); got != "" {
			t.Errorf("what was ended is kept: %s", got)
		}
		far := planOf(t, "far", "a")
		far.Parts[0].Offer.Context.ExpirationTime = time.Now().Add(90_000 * time.Hour)
		if o, err := c.Coordinate(t.Context(), far); err != nil || !o.Committed() {
			t.Fatal(o, err)
		}
		time.Sleep(2*366*24*time.Hour + 32*24*time.Hour)
		if got := ids("", 100); got != "" {
			t.Errorf("kept for ever: %s", got)
		}
	})
	for words, o := range map[string]together.Options{"MaxKept is -1": {MaxKept: -1}, "MaxHourly -1": {MaxHourly: -1}} {
		o.Dial = func(context.Context, string, string, string) (together.Provider, error) { return nil, nil }
		if _, err := together.New(nil, o); !fail.Is(err, fail.Invalid) || !strings.Contains(fail.Sentence(err), words) {
			t.Errorf("want %q: %v", words, err)
		}
	}
}

// TestLargest: however long and odd what providers say is, what is known of all parts can be written, and a
// coordination ends. A key that is too long is taken for no answer.
func TestLargest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		odd := func(n int, tail string) string { return strings.Repeat("<", n-len(tail)) + tail }
		for keys, want := range map[int]together.State{1024: together.Unsettled, 1025: together.Aborted} {
			providers := map[string]*fake{}
			p := together.Plan{ID: odd(together.MaxID, fmt.Sprint(keys)), Owner: owner}
			for i := range together.MaxParts {
				name := odd(512, fmt.Sprint(i))
				awful := fail.Errorf("test", fail.Unavailable, "", "%s", strings.Repeat("<", 10_000))
				providers[name] = &fake{key: strings.Repeat("<", keys), end: always(awful)}
				if i == 0 {
					providers[name].confirm = always(agreement.Refuse(agreement.WrongState, strings.Repeat("\x01", 10_000)))
				}
				p.Parts = append(p.Parts, together.Part{Name: odd(together.MaxName, fmt.Sprint(i)), Provider: name, VO: odd(together.MaxName, ""), Offer: offered(t, 1)})
			}
			c, stop := open(t, memory(t), together.Options{GiveUp: 5 * time.Minute}, providers)
			if out, err := c.Coordinate(t.Context(), p); err != nil || out.State != want {
				t.Errorf("with keys of %d bytes it is %s, %v", keys, out.State, err)
			}
			stop()
		}
	})
}

// TestIdle: a coordinator that has nothing to do writes nothing.
func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory(t)
		c, _ := open(t, st, together.Options{}, map[string]*fake{"a": {}})
		if _, err := c.Coordinate(t.Context(), planOf(t, "1", "a")); err != nil {
			t.Fatal(err)
		}
		_, before, err := st.ListRecords(t.Context(), "", noOptions)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
		if _, after, err := st.ListRecords(t.Context(), "", noOptions); err != nil || after != before {
			t.Errorf("revision %d after a day, %d before: %v", after, before, err)
		}
	})
}
