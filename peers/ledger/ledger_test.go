package ledger

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/handover"
)

var noon = time.Date(2031, 3, 1, 12, 0, 0, 0, time.UTC)

const minute = 60 * handover.CPUSecond

var pair = Pair{Provider: "p", Consumer: "c"}

func charge(n int, used handover.CPUTime) handover.Charge {
	return handover.Charge{Provider: "p", Consumer: "c", Key: handover.Key{Origin: "c", ID: fmt.Sprintf("job-%d", n)}, Token: "1", Outcome: handover.Finished, Used: used}
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// exchange goes on until nothing comes any more.
func exchange(t testing.TB, provider, consumer *Book, most int) {
	t.Helper()
	for range 1000 {
		entries := must(provider.After(consumer.Head(pair), most))(t)
		ok(t, consumer.Take(pair, entries))
		said := consumer.Verdicts(pair, provider.Heard(pair), most)
		if len(said) > 0 {
			ok(t, provider.Hear(pair, said))
		}
		if len(entries) == 0 && len(said) == 0 {
			return
		}
	}
	t.Fatal("the exchange does not end")
}

func TestBothSidesAgree(t *testing.T) {
	p, c := New("p"), New("c")
	for n := range 10 {
		x := charge(n, handover.CPUTime(n+1)*minute)
		ok(t, c.Owe(x))
		ok(t, c.Owe(x)) // twice is once
		s := must(p.Earn(x, noon))(t)
		if again := must(p.Earn(x, noon.Add(time.Hour)))(t); again != s {
			t.Fatalf("claimed twice: %+v", again)
		}
	}
	if b := p.Balance("c"); b.Unheard != 55*minute || b.Did != 0 {
		t.Errorf("before: %+v", b)
	}
	if b := c.Balance("p"); b.Unclaimed != 55*minute || b.Got != 0 || b.Surplus() != 55*minute {
		t.Errorf("before: %+v", b)
	}
	exchange(t, p, c, 3)
	if p.Head(pair) != c.Head(pair) || p.Head(pair).Number != 10 || p.Head(pair).Sum != 55*minute {
		t.Errorf("heads: %+v, %+v", p.Head(pair), c.Head(pair))
	}
	if b := p.Balance("c"); b != (Balance{Did: 55 * minute}) || b.Surplus() != -55*minute {
		t.Errorf("after: %+v", b)
	}
	if b := c.Balance("p"); b != (Balance{Got: 55 * minute}) {
		t.Errorf("after: %+v", b)
	}
	if !c.Owes("p", charge(3, 1).Key, "1") || c.Owes("p", charge(3, 1).Key, "2") || c.Owes("q", charge(3, 1).Key, "1") {
		t.Error("Owes")
	}
}

// TestWrongClaimsAreContested: each wrong claim counts for nobody, and is mended by
// withdrawing it.
func TestWrongClaimsAreContested(t *testing.T) {
	for _, c := range []struct {
		name  string
		owe   func(*handover.Charge) bool // what the consumer noted; false is nothing
		twice bool
		why   string
	}{
		{name: "never heeded", owe: func(*handover.Charge) bool { return false }, why: "no end"},
		{name: "more than was used", owe: func(x *handover.Charge) bool { x.Used -= handover.CPUSecond; return true }, why: "have used"},
		{name: "another outcome", owe: func(x *handover.Charge) bool { x.Outcome = handover.Failed; return true }, why: "outcome"},
		{name: "another token", owe: func(x *handover.Charge) bool { x.Token = "2"; return true }, why: "no end"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, q := New("p"), New("c")
			good, bad := charge(1, handover.CPUHour), charge(2, handover.CPUHour)
			ok(t, q.Owe(good))
			if x := bad; c.owe(&x) {
				ok(t, q.Owe(x))
			}
			must(p.Earn(good, noon))(t)
			must(p.Earn(bad, noon))(t)
			exchange(t, p, q, 10)
			e := p.Entries(pair)[1]
			if e.Verdict != Contested || !strings.Contains(e.Reason, c.why) || p.Balance("c").Did != handover.CPUHour || q.Balance("p").Got != handover.CPUHour || p.Balance("c").Contested != handover.CPUHour {
				t.Fatalf("%+v; %+v; %+v", e, p.Balance("c"), q.Balance("p"))
			}
			must(p.Withdraw(pair, 2, noon))(t)
			if _, err := p.Withdraw(pair, 2, noon); !fail.Is(err, fail.Conflict) {
				t.Errorf("withdrawn twice: %v", err)
			}
			exchange(t, p, q, 10)
			if p.Balance("c").Contested != 0 || q.Balance("p").Contested != 0 || p.Head(pair) != q.Head(pair) || p.Head(pair).Sum != handover.CPUHour {
				t.Errorf("%+v; %+v", p.Balance("c"), q.Balance("p"))
			}
		})
	}
}

// TestAChangedBookIsFound: whatever a provider changes afterwards, the consumer says so, and
// both find the first statement that is not alike.
func TestAChangedBookIsFound(t *testing.T) {
	build := func(n int, wrong int) *Book {
		p := New("p")
		for i := range n {
			used := minute
			if i+1 == wrong {
				used = handover.CPUHour
			}
			must(p.Earn(charge(i, used), noon))(t)
		}
		return p
	}
	c := New("c")
	for i := range 300 {
		ok(t, c.Owe(charge(i, minute)))
	}
	exchange(t, build(300, 0), c, 500)
	for _, wrong := range []int{1, 2, 17, 150, 299, 300} {
		p := build(300, wrong)
		must(p.Earn(charge(300, minute), noon))(t)
		if _, err := p.After(c.Head(pair), 10); !fail.Is(err, fail.Conflict) {
			t.Fatalf("%d: %v", wrong, err)
		}
		same, differs, rounds := uint64(0), uint64(300), 0
		for differs > same+1 {
			same, differs = p.Differ(pair, same, differs, c.Digests(pair, Probes(same, differs)))
			if rounds++; rounds > 5 {
				t.Fatalf("%d: still between %d and %d", wrong, same, differs)
			}
		}
		if differs != uint64(wrong) {
			t.Errorf("the first that differs is %d, not %d", differs, wrong)
		}
		// Its statements don't get in by being sent anyway.
		if err := c.Take(pair, p.Entries(pair)[wrong-1:]); !fail.Is(err, fail.Conflict) {
			t.Errorf("%d: %v", wrong, err)
		}
	}
}

func TestStatementsThatDoNotFollow(t *testing.T) {
	p := New("p")
	for i := range 3 {
		must(p.Earn(charge(i, minute), noon))(t)
	}
	all := p.Entries(pair)
	for name, edit := range map[string]func(*Statement){
		"a gap":             func(s *Statement) { s.Number++ },
		"another before it": func(s *Statement) { s.Previous[0]++ },
		"a wrong sum":       func(s *Statement) { s.Sum++ },
		"another pair":      func(s *Statement) { s.Provider = "q" },
		"nothing used":      func(s *Statement) { s.Used = 0 },
		"a false withdrawal": func(s *Statement) {
			s.Withdraws, s.Used, s.Sum = 1, 2*minute, 0
		},
		"a withdrawal of what is not there": func(s *Statement) { s.Withdraws = 2 },
	} {
		c := New("c")
		ok(t, c.Take(pair, all[:1]))
		e := all[1]
		edit(&e.Statement)
		if err := c.Take(pair, []Entry{e}); err == nil {
			t.Errorf("%s was taken", name)
		}
		if c.Head(pair).Number != 1 {
			t.Errorf("%s: %+v", name, c.Head(pair))
		}
	}
}

// TestALostBookComesBack: a provider that lost its last statements gets its own back.
func TestALostBookComesBack(t *testing.T) {
	p, c := New("p"), New("c")
	for n := range 10 {
		if n != 4 { // one is contested
			ok(t, c.Owe(charge(n, minute)))
		}
	}
	for n := range 6 {
		must(p.Earn(charge(n, minute), noon))(t)
	}
	backup := must(p.Encode())(t)
	for n := 6; n < 10; n++ {
		must(p.Earn(charge(n, minute), noon))(t)
	}
	exchange(t, p, c, 2)
	old := must(Decode(backup))(t)
	if got := must(old.After(c.Head(pair), 10))(t); len(got) != 0 {
		t.Fatalf("%+v", got)
	}
	ok(t, old.Take(pair, must(c.After(old.Head(pair), 100))(t)))
	exchange(t, old, c, 100)
	if old.Head(pair) != p.Head(pair) || old.Balance("c") != p.Balance("c") {
		t.Errorf("%+v, %+v; %+v, %+v", old.Head(pair), p.Head(pair), old.Balance("c"), p.Balance("c"))
	}
}

func TestTrim(t *testing.T) {
	p, c := New("p"), New("c")
	for n := range 10 {
		ok(t, c.Owe(charge(n, minute)))
		must(p.Earn(charge(n, minute), noon))(t)
	}
	if n := p.Trim(0, 0); n != 0 {
		t.Fatalf("%d statements were trimmed that nobody has heard of", n)
	}
	ok(t, c.Take(pair, must(p.After(c.Head(pair), 100))(t)))
	if n := c.Trim(0, 0); n != 0 {
		t.Fatalf("%d statements were trimmed whose verdicts nobody has heard of", n)
	}
	exchange(t, p, c, 100)
	before := p.Balance("c")
	if n, m := p.Trim(3, 0), c.Trim(3, 0); n != 7 || m != 7 {
		t.Fatalf("%d and %d", n, m)
	}
	if p.Balance("c") != before || c.Balance("p").Got != before.Did || p.Head(pair) != c.Head(pair) {
		t.Errorf("%+v %+v", p.Balance("c"), c.Balance("p"))
	}
	for _, b := range []*Book{p, c} {
		back := must(Decode(must(b.Encode())(t)))(t)
		if back.Balance("c") != b.Balance("c") || back.Balance("p") != b.Balance("p") || back.Head(pair) != b.Head(pair) {
			t.Errorf("%+v", back.Head(pair))
		}
	}
	ok(t, c.Owe(charge(10, minute)))
	must(p.Earn(charge(10, minute), noon))(t)
	exchange(t, p, c, 100)
	if got := p.Balance("c").Did; got != 11*minute {
		t.Error(got)
	}
	if _, err := p.After(Head{Pair: pair}, 10); !fail.Is(err, fail.NotFound) {
		t.Errorf("trimmed statements: %v", err)
	}
}

// TestClaimsWithoutEnd: of what a provider claims no more is kept than so much, though all of it is contested
// and the provider never hears of that; what it withdraws later is taken, and its own book is not trimmed so.
func TestClaimsWithoutEnd(t *testing.T) {
	p, c := New("p"), New("c")
	const most = 20
	claim := func(n int) {
		must(p.Earn(charge(n, minute), noon))(t)
		ok(t, c.Take(pair, must(p.After(c.Head(pair), 100))(t)))
	}
	for n := range most {
		claim(n)
	}
	if n := c.Trim(0, most); n != 0 || len(c.Entries(pair)) != most || c.Balance("p").Contested != most*minute {
		t.Fatalf("%d were dropped of as many as may be: %+v", n, c.Balance("p"))
	}
	claim(most)
	if n := c.Trim(0, most); n != 3 || len(c.Entries(pair)) != most-2 || c.Balance("p").Contested != (most-2)*minute {
		t.Errorf("%d were dropped with one more, %+v", n, c.Balance("p"))
	}
	if n := p.Trim(0, most); n != 0 {
		t.Errorf("the provider dropped %d of its own claims", n)
	}
	// What was dropped, and what was not, is withdrawn.
	for _, n := range []uint64{1, 7} {
		must(p.Withdraw(pair, n, noon))(t)
	}
	ok(t, c.Owe(charge(100, minute)))
	claim(100)
	if c.Head(pair) != p.Head(pair) || c.Balance("p").Got != minute || c.Balance("p").Contested != (most-3)*minute {
		t.Errorf("%+v, %+v; %+v", c.Head(pair), p.Head(pair), c.Balance("p"))
	}
	back := must(Decode(must(c.Encode())(t)))(t)
	if back.Head(pair) != c.Head(pair) || back.Balance("p") != c.Balance("p") {
		t.Errorf("%+v, %+v", back.Head(pair), back.Balance("p"))
	}
}

// TestCanonical: equal statements have equal bytes; nothing else does, and nothing else is
// read.
func TestCanonical(t *testing.T) {
	s := must(New("p").Earn(charge(1, handover.CPUHour), noon))(t)
	want := "portolan-favour/1\nprovider:1:p\nconsumer:1:c\nnumber:1:1\nprevious:64:" + strings.Repeat("0", 64) +
		"\norigin:1:c\njob:5:job-1\ntoken:1:1\noutcome:8:finished\nused:7:3600000\nwithdraws:1:0\nsum:7:3600000\nissued:19:1930132800000000000\n"
	if got := string(s.Canonical()); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if back := must(Parse(s.Canonical()))(t); back != s {
		t.Errorf("%+v", back)
	}
	for name, edit := range map[string]func(string) string{
		"a field more":   func(s string) string { return s + "more:1:x\n" },
		"a field less":   func(s string) string { return s[:strings.Index(s, "issued")] },
		"another head":   func(s string) string { return "x" + s },
		"a false length": func(s string) string { return strings.Replace(s, "job:5", "job:4", 1) },
		"a long length":  func(s string) string { return strings.Replace(s, "job:5", "job:5000", 1) },
		"a minus length": func(s string) string { return strings.Replace(s, "job:5", "job:-5", 1) },
		"a leading zero": func(s string) string { return strings.Replace(s, "number:1:1", "number:2:01", 1) },
		"capitals": func(s string) string {
			return strings.Replace(s, ":"+strings.Repeat("0", 64), ":"+strings.Repeat("0", 63)+"A", 1)
		},
		"nothing claimed": func(s string) string { return strings.Replace(s, "used:7:3600000", "used:1:0", 1) },
		"an outcome":      func(s string) string { return strings.Replace(s, "finished", "finishes", 1) },
		"too long":        func(s string) string { return s + strings.Repeat("x", MaxCanonical) },
	} {
		if _, err := Parse([]byte(edit(want))); !fail.Is(err, fail.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	s, err := New("p").Earn(charge(1, handover.CPUHour), noon)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.Canonical())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Parse(b)
		if err == nil && !bytes.Equal(s.Canonical(), b) {
			t.Errorf("%q is read as %q", b, s.Canonical())
		}
	})
}

// TestAnyExchangeEndsAlike: whatever is lost, repeated, reordered, restarted or withdrawn on
// the way, the last exchange makes both sides alike.
func TestAnyExchangeEndsAlike(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 9))
		p, c := New("p"), New("c")
		var late []func()
		n := 0
		for range 60 {
			switch rng.IntN(9) {
			case 0, 1:
				x := charge(n, handover.CPUTime(1+rng.IntN(100))*handover.CPUSecond)
				n++
				ok(t, c.Owe(x))
				if rng.IntN(6) == 0 {
					x.Used++ // a wrong claim
				}
				must(p.Earn(x, noon))(t)
			case 2:
				entries := must(p.After(c.Head(pair), 1+rng.IntN(4)))(t)
				late = append(late, func() { _ = c.Take(pair, entries) })
			case 3:
				said := c.Verdicts(pair, 0, 1+rng.IntN(50))
				late = append(late, func() {
					if len(said) > 0 {
						ok(t, p.Hear(pair, said))
					}
				})
			case 4, 5:
				if len(late) > 0 {
					i := rng.IntN(len(late))
					late[i]()
					if rng.IntN(3) > 0 {
						late = append(late[:i], late[i+1:]...)
					}
				}
			case 6:
				p, c = must(Decode(must(p.Encode())(t)))(t), must(Decode(must(c.Encode())(t)))(t)
				late = nil
			case 8:
				p.Trim(rng.IntN(3), 0)
				c.Trim(rng.IntN(3), 0)
			case 7:
				for _, e := range p.Entries(pair) {
					if e.Verdict == Contested {
						must(p.Withdraw(pair, e.Statement.Number, noon))(t)
						break
					}
				}
			}
		}
		exchange(t, p, c, 5)
		x, y := p.Balance("c"), c.Balance("p")
		if p.Head(pair) != c.Head(pair) || x.Did != y.Got || x.Contested != y.Contested || x.Unheard != 0 {
			t.Fatalf("seed %d: %+v, %+v; %+v, %+v", seed, p.Head(pair), c.Head(pair), x, y)
		}
	}
}

func TestWhatABookRefuses(t *testing.T) {
	b := New("c")
	foreign := charge(1, handover.CPUHour)
	foreign.Consumer = "x"
	none := charge(1, 0)
	for name, err := range map[string]error{
		"a charge of others": b.Owe(foreign),
		"no time":            b.Owe(none),
		"a foreign account":  b.Take(Pair{"x", "y"}, nil),
		"too many":           b.Take(pair, make([]Entry, MaxBatch+1)),
	} {
		if !fail.Is(err, fail.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ok(t, b.Owe(charge(1, handover.CPUHour)))
	if err := b.Owe(charge(1, minute)); !fail.Is(err, fail.Conflict) {
		t.Errorf("another charge for the same copy: %v", err)
	}
	p := New("p")
	must(p.Earn(charge(1, handover.CPUHour), noon))(t)
	if _, err := p.Earn(charge(1, minute), noon); !fail.Is(err, fail.Conflict) {
		t.Errorf("another claim for the same copy: %v", err)
	}
	if _, err := Decode(bytes.Replace(must(p.Encode())(t), []byte(`"used":3600000`), []byte(`"used":3600001`), 1)); !fail.Is(err, fail.Conflict) {
		t.Errorf("a book that was changed: %v", err)
	}
}

// TestACopyIsPaidOnce: a provider that claims one twice, in statements that follow each other
// as they must, is paid once.
func TestACopyIsPaidOnce(t *testing.T) {
	p, c := New("p"), New("c")
	ok(t, c.Owe(charge(1, minute)))
	first := must(p.Earn(charge(1, minute), noon))(t)
	second := first
	second.Number, second.Previous, second.Sum = 2, first.Digest(), 2*minute
	ok(t, c.Take(pair, []Entry{{Statement: first}, {Statement: second}}))
	if got := c.Entries(pair); got[0].Verdict != Agreed || got[1].Verdict != Contested || c.Balance("p").Got != minute {
		t.Errorf("%+v", got)
	}
	back := must(Decode(must(c.Encode())(t)))(t)
	if back.Balance("p") != c.Balance("p") {
		t.Errorf("%+v", back.Balance("p"))
	}
}
