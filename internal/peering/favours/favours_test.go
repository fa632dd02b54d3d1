package favours

import (
	"crypto/hmac"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/mem"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/ledger"
	"github.com/portolan-project/portolan/peers/limits"
	"github.com/portolan-project/portolan/peers/wire"
)

// seal signs with a key that follows from the domain's name.
type seal string

func (s seal) Sign(data []byte) ([]byte, error) {
	h := hmac.New(sha256.New, []byte(s))
	h.Write(data)
	return h.Sum(nil), nil
}

func (s seal) Verify(domain string, data, signature []byte) error {
	want, _ := seal(domain).Sign(data)
	if !hmac.Equal(want, signature) {
		return errors.New("not its signature")
	}
	return nil
}

// side is one domain's ledger with what is on its way from it.
type side struct {
	f    *Favours
	st   *mem.Store
	sent []wire.Message
}

// Put implements Link.
func (s *side) Put(_ string, items ...wire.Message) error {
	for _, m := range items {
		if err := wire.Sendable(m); err != nil {
			return err
		}
	}
	s.sent = append(s.sent, items...)
	return nil
}

type pairOf struct {
	t     *testing.T
	sides map[string]*side
	rng   *rand.Rand
	loss  float64
	said  int
}

func newPair(t *testing.T, seed uint64) *pairOf {
	w := &pairOf{t: t, sides: map[string]*side{}, rng: rand.New(rand.NewPCG(seed, 1))}
	for _, d := range []string{"bsc", "fiu"} {
		s := &side{st: mem.New()}
		t.Cleanup(func() { _ = s.st.Close() })
		w.sides[d] = s
		w.start(d)
	}
	return w
}

// start starts a domain's ledger anew, with what its store has.
func (w *pairOf) start(d string) {
	w.t.Helper()
	s := w.sides[d]
	f, err := New(Options{Domain: d, Store: s.st, Signer: seal(d), Link: s, Keep: 20})
	if err == nil {
		err = f.Load(w.t.Context())
	}
	if err != nil {
		w.t.Fatal(err)
	}
	s.f = f
}

func other(d string) string {
	if d == "bsc" {
		return "fiu"
	}
	return "bsc"
}

// open begins a session: what was on its way is lost.
func (w *pairOf) open() {
	for d, s := range w.sides {
		s.sent = nil
		s.f.Closed(other(d))
		s.f.Opened(other(d), []string{wire.FeatureLedger})
	}
}

// settle delivers until nothing is said any more.
func (w *pairOf) settle() {
	for range 200 {
		quiet := true
		for d, s := range w.sides {
			s.f.Tell(w.t.Context())
			items := s.sent
			s.sent = nil
			if len(items) == 0 {
				continue
			}
			quiet = false
			w.said += len(items)
			if w.rng.Float64() < w.loss {
				continue
			}
			w.sides[other(d)].f.Deliver(w.t.Context(), d, items)
		}
		if quiet {
			return
		}
	}
	w.t.Fatal("they never end to talk")
}

// ran says that the provider ran a job for the other; unnoted is that the consumer heeded no end.
func (w *pairOf) ran(provider string, n int, used handover.CPUTime, unnoted bool) {
	w.t.Helper()
	c := handover.Charge{
		Provider: provider, Consumer: other(provider), Key: handover.Key{Origin: other(provider), ID: fmt.Sprint("j", n)}, Token: "1",
		Outcome: handover.Finished, Used: used,
	}
	write := func(d string, owe, earn []handover.Charge) {
		changes, err := w.sides[d].f.Charge(owe, earn)
		if err != nil || len(changes) == 0 {
			w.t.Fatal(err)
		}
		for range 1 + w.rng.IntN(2) { // it may be written more than once
			if _, err := w.sides[d].st.PutRecords(w.t.Context(), nil, changes...); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	if !unnoted {
		write(c.Consumer, []handover.Charge{c}, nil)
	}
	write(provider, nil, []handover.Charge{c})
}

func (w *pairOf) alike() {
	w.t.Helper()
	a, b := w.sides["bsc"].f, w.sides["fiu"].f
	for _, p := range []ledger.Pair{{Provider: "bsc", Consumer: "fiu"}, {Provider: "fiu", Consumer: "bsc"}} {
		if x, y := a.book.Head(p), b.book.Head(p); x != y {
			w.t.Fatalf("%s and %s", x, y)
		}
	}
	x, y := a.Balance("fiu"), b.Balance("bsc")
	if x.Did != y.Got || x.Got != y.Did || x.Contested != y.Contested || x.Unheard+x.Unclaimed+y.Unheard+y.Unclaimed != 0 {
		w.t.Fatalf("%+v and %+v", x, y)
	}
	for d, s := range w.sides {
		if st := s.f.Status(other(d)); st.Problem != "" || st.Heard != st.Gave.Number {
			w.t.Fatalf("%s: %+v", d, st)
		}
	}
}

// TestBooksAgree: whatever is lost and however often a side begins anew with its store, the
// books become alike, each entry is signed by both, and what is settled is trimmed.
func TestBooksAgree(t *testing.T) {
	for seed := range uint64(8) {
		w := newPair(t, seed)
		w.open()
		var total handover.CPUTime
		n := 0
		for range 30 {
			for range w.rng.IntN(8) {
				n++
				used := handover.CPUTime(1 + w.rng.IntN(1000))
				provider := []string{"bsc", "fiu"}[w.rng.IntN(2)]
				if w.ran(provider, n, used, false); provider == "bsc" {
					total += used
				}
			}
			w.loss = []float64{0, 0.5, 1}[w.rng.IntN(3)]
			w.settle()
			switch w.rng.IntN(4) {
			case 0:
				w.start([]string{"bsc", "fiu"}[w.rng.IntN(2)])
				w.open()
			case 1:
				w.open()
			}
		}
		w.loss = 0
		w.open()
		w.settle()
		w.alike()
		if got := w.sides["bsc"].f.Balance("fiu").Did; got != total {
			t.Fatalf("seed %d: %s were done, and %s are agreed", seed, total, got)
		}
		for d, s := range w.sides {
			recs, _, err := s.st.ListRecords(t.Context(), Prefix, store.RecordOptions{})
			if err != nil || len(recs) > 2+4*41 {
				t.Errorf("%s keeps %d records of %d jobs, %v", d, len(recs), n, err)
			}
			for _, p := range s.f.book.Pairs() {
				for _, e := range s.f.Entries(p) {
					if len(e.Signature) == 0 || len(e.Answer) == 0 {
						t.Errorf("%s has %s unsigned", d, e.Statement)
					}
				}
			}
		}
		before := w.said
		w.settle()
		if w.said != before {
			t.Error("they talk though nothing is new")
		}
	}
}

// TestContested: what the consumer heeded no end of counts for nobody, until it is withdrawn.
func TestContested(t *testing.T) {
	w := newPair(t, 1)
	w.open()
	w.ran("bsc", 1, 1000, false)
	w.ran("bsc", 2, 5000, true)
	w.settle()
	w.alike()
	b := w.sides["bsc"].f
	if x := b.Balance("fiu"); x.Did != 1000 || x.Contested != 5000 {
		t.Errorf("%+v", x)
	}
	e := b.Entries(ledger.Pair{Provider: "bsc", Consumer: "fiu"})[1]
	if e.Verdict != ledger.Contested || e.Reason != "no end of such a copy was heeded here" {
		t.Errorf("%+v", e)
	}
	if err := b.Withdraw(t.Context(), "fiu", 2); err != nil {
		t.Fatal(err)
	}
	w.start("bsc")
	w.open()
	w.settle()
	w.alike()
	if x := w.sides["fiu"].f.Balance("bsc"); x.Got != 1000 || x.Contested != 0 {
		t.Errorf("%+v", x)
	}
}

// TestDivergence: where a book was changed, both sides find the first statement that is another
// one, say so in a sentence, and go on with the other account.
func TestDivergence(t *testing.T) {
	for _, first := range []int{1, 7, 40} {
		w := newPair(t, 2)
		w.open()
		for n := range 50 {
			w.ran("bsc", n, 1000, false)
		}
		w.ran("fiu", 99, 1000, false)
		// The provider's store is lost, and it makes other statements from one on.
		w.settleTo(first - 1)
		w.sides["bsc"].st = mem.New()
		w.start("bsc")
		w.open()
		w.settle()
		if first > 1 { // it got its own back
			if got := w.sides["bsc"].f.Status("fiu").Gave.Number; got != uint64(first-1) {
				t.Fatalf("got back %d of %d", got, first-1)
			}
		}
		for d, s := range w.sides {
			s.f.Closed(other(d))
		}
		fork := func(d string, used handover.CPUTime) {
			for n := range 20 {
				c := handover.Charge{Provider: "bsc", Consumer: "fiu", Key: handover.Key{Origin: "fiu", ID: fmt.Sprint("k", n)}, Token: "1", Outcome: handover.Finished, Used: used}
				f := w.sides[d].f
				s, err := func() (ledger.Statement, error) {
					if d == "bsc" {
						changes, err := f.Charge(nil, []handover.Charge{c})
						_ = changes
						return ledger.Statement{}, err
					}
					p := ledger.Pair{Provider: "bsc", Consumer: "fiu"}
					h := f.book.Head(p)
					s := ledger.Statement{Pair: p, Number: h.Number + 1, Previous: h.Digest, Key: c.Key, Token: "1", Outcome: c.Outcome, Used: used, Sum: h.Sum + used, Issued: time.Unix(1, 0).UTC()}
					return s, f.book.Take(p, []ledger.Entry{{Statement: s, Signature: []byte{1}}})
				}()
				if err != nil {
					t.Fatal(s, err)
				}
			}
		}
		fork("bsc", 700)
		fork("fiu", 800)
		w.open()
		w.settle()
		for d, s := range w.sides {
			p := s.f.Status(other(d)).Problem
			if !strings.Contains(p, fmt.Sprintf("another statement %d ", first)) {
				t.Errorf("first %d: %s says %q", first, d, p)
			}
		}
		// The consumer gets its book from a backup, and the provider goes on with the next session.
		w.start("fiu")
		w.open()
		w.settle()
		for d, s := range w.sides {
			if p := s.f.Status(other(d)).Problem; strings.Contains(p, "another statement") {
				t.Errorf("first %d: %s still says %q", first, d, p)
			}
		}
		if b, c := w.sides["bsc"].f.Status("fiu").Gave, w.sides["fiu"].f.Status("bsc").Took; b != c {
			t.Errorf("first %d: the provider is at %+v and the consumer at %+v", first, b, c)
		}
	}
}

// settleTo lets the consumer have so many statements and no more.
func (w *pairOf) settleTo(n int) {
	w.t.Helper()
	b, c := w.sides["bsc"].f, w.sides["fiu"].f
	p := ledger.Pair{Provider: "bsc", Consumer: "fiu"}
	entries, err := b.book.After(ledger.Head{Pair: p}, n)
	if err != nil {
		w.t.Fatal(err)
	}
	if n > 0 {
		if err := c.book.Take(p, entries); err != nil {
			w.t.Fatal(err)
		}
	}
	for _, s := range w.sides {
		s.sent = nil
	}
}

// TestRefused: what is not signed by who it must be is not entered, and said.
func TestRefused(t *testing.T) {
	w := newPair(t, 3)
	w.open()
	w.ran("bsc", 1, 1000, false)
	p := ledger.Pair{Provider: "bsc", Consumer: "fiu"}
	e := w.sides["bsc"].f.Entries(p)[0]
	f := w.sides["fiu"].f
	for name, m := range map[string]wire.Message{
		"signature of statement 1 is not":     &wire.Statements{Pair: wire.Pair(p), List: []wire.Statement{{Canonical: e.Statement.Canonical(), Signature: []byte("x")}}},
		"canonical form":                      &wire.Statements{Pair: wire.Pair(p), List: []wire.Statement{{Canonical: []byte("x"), Signature: []byte("x")}}},
		"not between it and us":               &wire.Account{Pair: wire.Pair{Provider: "bsc", Consumer: "ibm"}},
		"gives verdicts in this":              &wire.Verdicts{Pair: wire.Pair(p), List: []wire.Said{{Number: 1, Verdict: wire.VerdictAgreed, Digest: make([]byte, 32)}}},
		"statement 2 differs, and here are 0": &wire.Probe{Pair: wire.Pair{Provider: "fiu", Consumer: "bsc"}, Same: 1, Differs: 2},
	} {
		f.Opened("bsc", []string{wire.FeatureLedger})
		f.Deliver(t.Context(), "bsc", []wire.Message{m})
		if got := f.Status("bsc").Problem; !strings.Contains(got, name) {
			t.Errorf("%s: %q", name, got)
		}
		if f.book.Head(p).Number != 0 {
			t.Errorf("%s: it was entered", name)
		}
	}
	if _, err := New(Options{}); !fail.Is(err, fail.Invalid) {
		t.Error(err)
	}
}

// TestClaimsWithoutEnd: a provider whose claims are all contested fills neither memory nor store.
func TestClaimsWithoutEnd(t *testing.T) {
	const most = 30
	w := newPair(t, 7)
	fiu := w.sides["fiu"]
	fiu.f.o.Most = most
	w.open()
	p := ledger.Pair{Provider: "bsc", Consumer: "fiu"}
	count := func() (n int) {
		recs, _, err := fiu.st.ListRecords(t.Context(), pairPrefix(p)+"s/", store.RecordOptions{Limit: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range recs {
			if strings.HasPrefix(r.Key, pairPrefix(p)+"s/") {
				n++
			}
		}
		return n
	}
	for n := range most {
		w.ran("bsc", n+1, 1000, true)
	}
	w.settle()
	fiu.f.Tell(t.Context())
	if len(fiu.f.Entries(p)) != most || count() != most {
		t.Fatalf("%d statements of %d, %d records", len(fiu.f.Entries(p)), most, count())
	}
	w.ran("bsc", most+1, 1000, true)
	w.settle()
	fiu.f.Tell(t.Context())
	if n := len(fiu.f.Entries(p)); n >= most || count() != n {
		t.Errorf("%d statements, %d records", n, count())
	}
	before := fiu.f.Balance("bsc")
	w.start("fiu")
	if is := w.sides["fiu"].f.Balance("bsc"); is != before {
		t.Errorf("after a restart %+v, before %+v", is, before)
	}
	w.open()
	w.ran("bsc", most+2, 7000, false)
	w.settle()
	if is := w.sides["fiu"].f.Balance("bsc"); is.Got != 7000 {
		t.Errorf("what is owed after that: %+v", is)
	}
}

// TestAskedWithoutEnd: a peer that asks for the same again and again is told it once a second, as each costs
// a write.
func TestAskedWithoutEnd(t *testing.T) {
	w := newPair(t, 8)
	bsc := w.sides["bsc"]
	now := time.Unix(1<<30, 0)
	bsc.f.o.Now = func() time.Time { return now }
	w.open()
	w.ran("bsc", 1, 1000, false)
	ask := &wire.Account{Pair: wire.Pair{Provider: "bsc", Consumer: "fiu"}}
	told := func(times int) (n int) {
		bsc.sent = nil
		for range times {
			bsc.f.Deliver(t.Context(), "fiu", []wire.Message{ask})
		}
		for _, m := range bsc.sent {
			if _, ok := m.(*wire.Statements); ok {
				n++
			}
		}
		return n
	}
	if n := told(limits.Asks + 1); n != limits.Asks+1 {
		t.Errorf("it was told %d times", n)
	}
	if n := told(1); n != 0 {
		t.Errorf("once more, it was told %d times", n)
	}
	w.ran("bsc", 2, 1000, false)
	if n := told(100); n != 1 {
		t.Errorf("with something new, %d times", n)
	}
	// The last is answered a second later, though nothing more comes.
	bsc.f.Tell(t.Context())
	if n := told(0); n != 0 {
		t.Errorf("at once, %d times", n)
	}
	now = now.Add(limits.AskEvery)
	bsc.sent = nil
	bsc.f.Tell(t.Context())
	if len(bsc.sent) != 1 {
		t.Errorf("a second later, %v", bsc.sent)
	}
	now = now.Add(limits.AskEvery)
	bsc.f.Tell(t.Context())
	if len(bsc.sent) != 1 {
		t.Errorf("and again, %v", bsc.sent)
	}
	if n := told(1); n != 1 {
		t.Errorf("later, %d times", n)
	}
}
