package ledger

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/decimal"
	"github.com/portolan-project/portolan/internal/fail"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

func amount(t testing.TB, s string) decimal.Decimal {
	t.Helper()
	d, err := decimal.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func price(id string, n int64) Entry {
	return Entry{ID: id, VO: "bio", Unit: "credit", Time: noon, Kind: Price, Amount: decimal.New(n)}
}

func commitment(id string, n int64) Commitment {
	return Commitment{ID: id, VO: "bio", Unit: "credit", Time: noon, Amount: decimal.New(n)}
}

// budgeted has a budget of 100 credits a day for bio.
func budgeted(t testing.TB) *Ledger {
	t.Helper()
	l := New()
	if err := l.SetBudget(Budget{VO: "bio", Unit: "credit", Limit: decimal.New(100), From: noon, Period: 24 * time.Hour}); err != nil {
		t.Fatal(err)
	}
	return l
}

func wants(t *testing.T, what string, err error, kind fail.Kind) {
	t.Helper()
	if !fail.Is(err, kind) {
		t.Errorf("%s: %v, want %s", what, err, kind)
	}
}

func no(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func TestBudget(t *testing.T) {
	l := budgeted(t)
	no(t, l.Commit(commitment("offer", 60)))
	no(t, l.Commit(commitment("offer", 60)))
	wants(t, "another commitment of that name", l.Commit(commitment("offer", 61)), fail.Conflict)
	err := l.Commit(commitment("second", 41))
	wants(t, "more than is left", err, fail.Exhausted)
	if s := fail.Sentence(err); !strings.Contains(s, "has 40 credit left of its budget of 100 until 2026-11-30T12:00:00Z, and this takes 41") {
		t.Error(s)
	}
	no(t, l.WouldExceed("bio", "credit", decimal.New(40), noon.Add(24*time.Hour-1)))
	no(t, l.WouldExceed("bio", "credit", decimal.New(100), noon.Add(24*time.Hour)))
	wants(t, "the day before has its own", l.WouldExceed("bio", "credit", decimal.New(101), noon.Add(-1)), fail.Exhausted)
	no(t, l.WouldExceed("physics", "credit", decimal.New(1_000_000), noon))

	// A price out of its commitment, in parts, the last greater than what was committed.
	paid := price("first", 50)
	paid.Commitment, paid.Time = "offer", noon.Add(30*time.Hour) // in the next period, and counted in that of the offer
	no(t, l.Post(paid))
	no(t, l.Post(paid))
	if left, _ := l.Left("bio", "credit", noon); left != decimal.New(40) {
		t.Errorf("%v is left", left)
	}
	paid.ID, paid.Amount = "last", decimal.New(51)
	wants(t, "beyond commitment and budget", l.Post(paid), fail.Exhausted)
	paid.Amount = decimal.New(50)
	no(t, l.Post(paid))
	if left, _ := l.Left("bio", "credit", noon); left.Sign() != 0 || len(l.commitments) != 0 {
		t.Errorf("%v is left, of %v", left, l.commitments)
	}
	wants(t, "nothing is left", l.Post(price("third", 1)), fail.Exhausted)

	// What happened is noted, budget or not; what the VO gets it may spend.
	fine := price("fine", 7)
	fine.Kind, fine.Amount = Reward, decimal.New(7)
	no(t, l.Post(fine))
	fine.ID, fine.Kind, fine.Amount = "back", Penalty, decimal.New(-10)
	no(t, l.Post(fine))
	no(t, l.Post(price("third", 3)))
	if b := l.Balance("bio", "credit"); b != decimal.New(100) {
		t.Errorf("the balance is %v", b)
	}

	// Less is allowed now than was spent; later another budget counts the same entries.
	no(t, l.SetBudget(Budget{VO: "bio", Unit: "credit", Limit: decimal.New(10), From: noon.Add(-time.Hour), Period: 48 * time.Hour}))
	if left, _ := l.Left("bio", "credit", noon); left != decimal.New(-90) {
		t.Errorf("%v is left", left)
	}
	l.DropBudget("bio", "credit")
	no(t, l.Commit(commitment("any", 1000)))
}

func TestCommitmentsEnd(t *testing.T) {
	l := budgeted(t)
	c := commitment("quote", 100)
	c.Expires = noon.Add(time.Minute)
	no(t, l.Commit(c))
	if ids := l.Expire(noon.Add(time.Minute - 1)); ids != nil {
		t.Errorf("%v ended early", ids)
	}
	if ids := l.Expire(noon.Add(time.Minute)); !reflect.DeepEqual(ids, []string{"quote"}) {
		t.Errorf("%v ended", ids)
	}
	no(t, l.Commit(commitment("other", 100)))
	l.Release("other")
	l.Release("other")
	no(t, l.WouldExceed("bio", "credit", decimal.New(100), noon))
}

func TestPostRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Entry)
		kind   fail.Kind
	}{
		"no id":         {func(e *Entry) { e.ID = "" }, fail.Invalid},
		"no VO":         {func(e *Entry) { e.VO = "" }, fail.Invalid},
		"no unit":       {func(e *Entry) { e.Unit = "" }, fail.Invalid},
		"no time":       {func(e *Entry) { e.Time = time.Time{} }, fail.Invalid},
		"kind":          {func(e *Entry) { e.Kind = "gift" }, fail.Invalid},
		"negative":      {func(e *Entry) { e.Amount = decimal.New(-1) }, fail.Invalid},
		"empty penalty": {func(e *Entry) { e.Kind, e.Amount = Penalty, decimal.Decimal{} }, fail.Invalid},
		"long name":     {func(e *Entry) { e.User = strings.Repeat("u", maxName+1) }, fail.Invalid},
		"long evidence": {func(e *Entry) { e.Evidence = strings.Repeat("u", maxEvidence+1) }, fail.Invalid},
		"control":       {func(e *Entry) { e.Evidence = "a\x1b[2J" }, fail.Invalid},
		"commitment":    {func(e *Entry) { e.Kind, e.Commitment = Reward, "offer" }, fail.Invalid},
		"of another VO": {func(e *Entry) { e.VO, e.Commitment = "physics", "offer" }, fail.Invalid},
		"other content": {func(e *Entry) { e.ID, e.Amount = "there", decimal.New(2) }, fail.Conflict},
		"closed":        {func(e *Entry) { e.Time = noon.Add(-1000 * time.Hour) }, fail.Conflict},
	} {
		l := budgeted(t)
		no(t, l.Commit(commitment("offer", 10)))
		no(t, l.Post(price("there", 1)))
		l.Close(noon.Add(-999 * time.Hour))
		was := l.Snapshot()
		e := price("new", 1)
		c.change(&e)
		wants(t, name, l.Post(e), c.kind)
		if !reflect.DeepEqual(l.Snapshot(), was) {
			t.Errorf("%s: something changed", name)
		}
	}
	l := New()
	most := price("most", 0)
	most.Amount = amount(t, "999999999999999999999999.999999999")
	no(t, l.Post(most))
	wants(t, "more than can be told", l.Post(price("more", 1)), fail.Exhausted)
	ok := price("long", 1)
	ok.Unit, ok.User, ok.Evidence = "hours", strings.Repeat("ü", maxName), strings.Repeat("ü", maxEvidence)
	no(t, l.Post(ok))
	for name, b := range map[string]Budget{
		"no VO": {Unit: "credit", From: noon, Period: time.Hour}, "short": {VO: "bio", Unit: "credit", From: noon, Period: time.Hour - 1},
		"long":     {VO: "bio", Unit: "credit", From: noon, Period: maxPeriod + 1},
		"negative": {VO: "bio", Unit: "credit", From: noon, Period: time.Hour, Limit: decimal.New(-1)}, "no begin": {VO: "bio", Unit: "credit", Period: time.Hour},
	} {
		wants(t, name, l.SetBudget(b), fail.Invalid)
	}
	l.Close(noon)
	wants(t, "a commitment of a closed time", l.Commit(Commitment{ID: "c", VO: "bio", Unit: "credit", Amount: decimal.New(1), Time: noon.Add(-1)}), fail.Conflict)
	wants(t, "nothing committed", l.Commit(commitment("c", 0)), fail.Invalid)
	wants(t, "no name", l.Commit(commitment("", 1)), fail.Invalid)
}

func TestSigned(t *testing.T) {
	one := decimal.New(1)
	for _, c := range []struct {
		who  agreement.Obligation
		kind Kind
		want int
	}{
		{agreement.ServiceProvider, Penalty, -1},
		{agreement.ServiceProvider, Reward, 1},
		{agreement.ServiceConsumer, Penalty, 1},
		{agreement.ServiceConsumer, Reward, -1},
	} {
		if got := Signed(c.who, c.kind, one).Sign(); got != c.want {
			t.Errorf("a %s of the %s is %d for the VO", c.kind, c.who, got)
		}
	}
}

// TestInvariants: whatever is done in whatever order, each balance is the sum of all that
// was posted, the same again changes nothing, prices and commitments never go over a
// budget, and a snapshot restores the very ledger.
func TestInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := New()
		limit := map[string]decimal.Decimal{}
		for _, vo := range []string{"bio", "physics"} {
			limit[vo] = decimal.New(rapid.Int64Range(0, 60).Draw(t, "limit"))
			if err := l.SetBudget(Budget{VO: vo, Unit: "credit", Limit: limit[vo], From: noon, Period: 24 * time.Hour}); err != nil {
				t.Fatal(err)
			}
		}
		posted, sums := map[string]Entry{}, map[Account]decimal.Decimal{}
		at := func() time.Time { return noon.Add(time.Duration(rapid.IntRange(-36, 60).Draw(t, "hour")) * time.Hour) }
		name := func(of string) string { return fmt.Sprint(of, rapid.IntRange(0, 11).Draw(t, of)) }
		vo := func() string { return rapid.SampledFrom([]string{"bio", "physics"}).Draw(t, "vo") }
		value := func(low int64) decimal.Decimal {
			d, _ := decimal.New(rapid.Int64Range(low, 300).Draw(t, "value")).Div(decimal.New(10))
			return d
		}
		t.Repeat(map[string]func(*rapid.T){
			"post": func(*rapid.T) {
				e := Entry{ID: name("e"), VO: vo(), Unit: "credit", Time: at(), Kind: Price, Amount: value(0)}
				switch rapid.IntRange(0, 3).Draw(t, "kind") {
				case 0:
					e.Commitment = name("c")
				case 1:
					e.Kind, e.Unit = Usage, "core-seconds"
				case 2:
					e.Kind, e.Amount = Penalty, value(1).Neg()
				}
				if l.Post(e) == nil && posted[e.ID] != e {
					posted[e.ID] = e // once closed, an ID is free
					a := Account{e.VO, e.Unit}
					sums[a], _ = sums[a].Add(e.Amount)
				}
			},
			"again": func(t *rapid.T) {
				was := l.Snapshot()
				for _, e := range posted {
					if err := l.Post(e); err != nil && !e.Time.Before(l.closed) {
						t.Fatal(err)
					}
				}
				if !reflect.DeepEqual(l.Snapshot(), was) {
					t.Fatal("the same entries again changed something")
				}
			},
			"commit": func(*rapid.T) {
				c := Commitment{ID: name("c"), VO: vo(), Unit: "credit", Amount: value(1), Time: at()}
				if rapid.Bool().Draw(t, "expires") {
					c.Expires = at()
				}
				_ = l.Commit(c) // refusals are checked below: by what is then there
			},
			"release": func(*rapid.T) { l.Release(name("c")) },
			"expire":  func(*rapid.T) { l.Expire(at()) },
			"close":   func(*rapid.T) { l.Close(at().Add(-30 * time.Hour)) },
			"restart": func(t *rapid.T) {
				b, err := json.Marshal(l.Snapshot())
				if err != nil {
					t.Fatal(err)
				}
				var s Snapshot
				if err := json.Unmarshal(b, &s); err != nil {
					t.Fatal(err)
				}
				if l, err = Restore(s); err != nil {
					t.Fatal(err)
				}
				if c, _ := json.Marshal(l.Snapshot()); string(c) != string(b) {
					t.Fatalf("restored is\n%s\nof\n%s", c, b)
				}
			},
			"": func(t *rapid.T) {
				for _, a := range l.Accounts() {
					if l.Balance(a.VO, a.Unit) != sums[a] {
						t.Fatalf("the balance of %v is %v, the sum of its entries %v", a, l.Balance(a.VO, a.Unit), sums[a])
					}
				}
				// No rewards are drawn: what prices and commitments take stays within the limit.
				spent := map[period]decimal.Decimal{}
				for _, e := range l.Entries(func(e *Entry) bool { return e.Kind == Price }) {
					p, _ := l.period(Account{e.VO, e.Unit}, e.Counted)
					spent[p], _ = spent[p].Add(e.Amount)
				}
				for _, e := range l.Entries(func(e *Entry) bool { return e.Kind == Penalty }) {
					p, _ := l.period(Account{e.VO, e.Unit}, e.Counted)
					spent[p], _ = spent[p].Add(e.Amount)
				}
				for _, c := range l.commitments {
					p, _ := l.period(c.account(), c.Time)
					spent[p], _ = spent[p].Add(c.Amount)
				}
				for p, s := range spent {
					if now, _ := l.period(p.Account, l.closed); !l.closed.IsZero() && p.n < now.n {
						continue // a part of it is in the archive
					}
					if s.Cmp(limit[p.VO]) > 0 && s.Sign() > 0 {
						t.Fatalf("%v has spent and committed %v of %v", p, s, limit[p.VO])
					}
				}
			},
		})
	})
}
