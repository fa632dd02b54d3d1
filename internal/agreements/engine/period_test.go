package engine_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/fail"
)

func TestPeriodBounds(t *testing.T) {
	for _, c := range []struct {
		p        engine.Period
		at       string
		from, to string
	}{
		{engine.Day, "2026-11-30T00:00:00Z", "2026-11-30", "2026-12-01"},
		{engine.Day, "2026-11-30T23:59:59.999Z", "2026-11-30", "2026-12-01"},
		{engine.Day, "2026-12-01T00:30:00+02:00", "2026-11-30", "2026-12-01"}, // in UTC
		{engine.Week, "2026-11-30T00:00:00Z", "2026-11-30", "2026-12-07"},     // a Monday
		{engine.Week, "2026-11-29T23:59:59Z", "2026-11-23", "2026-11-30"},     // a Sunday
		{engine.Week, "2027-01-01T12:00:00Z", "2026-12-28", "2027-01-04"},
		{engine.Month, "2026-11-30T23:59:59Z", "2026-11-01", "2026-12-01"},
		{engine.Month, "2026-12-01T00:00:00Z", "2026-12-01", "2027-01-01"},
		{engine.Month, "2028-02-29T00:00:00Z", "2028-02-01", "2028-03-01"},
	} {
		at, err := time.Parse(time.RFC3339, c.at)
		if err != nil {
			t.Fatal(err)
		}
		from, to := c.p.Bounds(at)
		if from.Format(time.DateOnly) != c.from || to.Format(time.DateOnly) != c.to || from.Hour() != 0 || at.Before(from) || !at.Before(to) {
			t.Errorf("the %s of %s is from %s to %s", c.p, c.at, from, to)
		}
	}
	if from, to := engine.Ever.Bounds(time.Now()); !from.IsZero() || !to.IsZero() || !engine.Ever.Valid() || engine.Period("year").Valid() {
		t.Error("a budget may be for all time, and not for years")
	}
}

func TestPeriodsFollowEachOther(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		at := time.Unix(rapid.Int64Range(0, 4e9).Draw(rt, "at"), 0)
		p := rapid.SampledFrom([]engine.Period{engine.Day, engine.Week, engine.Month}).Draw(rt, "period")
		from, next := p.Bounds(at)
		if at.Before(from) || !at.Before(next) {
			rt.Fatalf("%s is not from %s to %s", at, from, next)
		}
		if again, _ := p.Bounds(next); !again.Equal(next) {
			rt.Fatalf("after the one from %s comes one from %s, not %s", from, again, next)
		}
		if f, n := p.Bounds(next.Add(-1)); !f.Equal(from) || !n.Equal(next) {
			rt.Fatalf("the last moment before %s is of the one from %s", next, f)
		}
	})
}

// priced gives an offer of one CPU that costs something, for an hour from a time on.
func priced(id string, from time.Time, price int64) engine.Proposal {
	p := hour(1, 1)
	p.Holds[0].From, p.Holds[0].Until, p.Price = from, from.Add(time.Hour), price
	return offer(id, p)
}

// Nothing beyond the budget of a period is accepted, by two replicas at once either, exact to the last unit and second; the
// next period has its own; what ends gives back what it did not cost, to the period where it was taken.
func TestBudgetOfAPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // begins 2000-01-01T00:00:00Z, a Saturday
		st := memory(t)
		a, b := start(t, st, engine.Options{Replica: "a"}), start(t, st, engine.Options{Replica: "b"})
		feed(t, a, 1000)
		limit := int64(100)
		january, february := time.Date(2000, 1, 20, 0, 0, 0, 0, time.UTC), time.Date(2000, 2, 1, 0, 0, 0, 0, time.UTC)
		early := must(t, "without a budget")(a.Propose(t.Context(), priced("early", january, 2)))
		must(t, "without a budget")(a.Propose(t.Context(), priced("earlier", february, 1)))
		synctest.Wait()
		if err := b.SetBudgetFor(t.Context(), "bio", &limit, engine.Month); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		var wg sync.WaitGroup
		var accepted, refused atomic.Int64
		for i := range 60 {
			wg.Go(func() {
				from := january
				if i%3 == 0 {
					from = february.Add(-time.Second) // the window is February's, but begins in January
				}
				_, err := []*engine.Engine{a, b}[i%2].Propose(t.Context(), priced(fmt.Sprint("p", i), from, 7))
				switch {
				case err == nil:
					accepted.Add(1)
				case fail.Is(err, fail.Exhausted) && strings.Contains(fail.Sentence(err), "begins at 2000-02-01T00:00:00Z"):
					refused.Add(1)
				default:
					t.Errorf("Propose: %v", err)
				}
			})
		}
		wg.Wait()
		if accepted.Load() != 14 || refused.Load() != 46 { // 98 of it, and 2 were committed before
			t.Errorf("%d were accepted and %d refused", accepted.Load(), refused.Load())
		}
		synctest.Wait()
		_, err := a.Propose(t.Context(), priced("more", january, 1))
		want := `the budget of the VO "bio" is 100 for each month, and of that for the one from 2000-01-01T00:00:00Z 0 is left; this may cost 1: ask for less, or for a time in the next, which begins at 2000-02-01T00:00:00Z`
		if fail.Sentence(err) != want {
			t.Errorf("it says %q, want %q", fail.Sentence(err), want)
		}
		_, err = a.Propose(t.Context(), priced("too much", february, 100))
		wantKind(t, "more than February has", err, fail.Exhausted, "99 is left")
		must(t, "all that February has")(b.Propose(t.Context(), priced("all", february, 99)))
		synctest.Wait()
		must(t, "free")(a.Propose(t.Context(), priced("free", january, 0)))

		// What is moved to another month counts there.
		moved := priced("x", time.Date(2000, 3, 1, 0, 0, 0, 0, time.UTC), 7).Alternatives
		_, err = a.Replan(t.Context(), "all", "it can't be", []engine.Plan{{Holds: priced("x", january, 0).Alternatives[0].Holds, Price: 3}})
		wantKind(t, "moved to where nothing is left", err, fail.Exhausted, "0 is left")
		wantState(t, a, "all", "Observed")
		must(t, "Replan")(a.Replan(t.Context(), "all", "it is to be", moved))
		synctest.Wait()
		must(t, "again all that February has")(b.Propose(t.Context(), priced("all again", february, 99)))

		// What has ended cost what was due, in the month of its window, whenever that is.
		time.Sleep(time.Until(february.Add(10 * 24 * time.Hour)))
		minus := int64(-3)
		must(t, "Complete")(a.Complete(t.Context(), early.ID, engine.Ending{Due: &minus}))
		must(t, "Complete")(b.Complete(t.Context(), "all again", engine.Ending{Due: new(int64(40))}))
		synctest.Wait()
		_, err = b.Propose(t.Context(), priced("60", time.Now().Add(time.Hour), 60))
		wantKind(t, "one too much", err, fail.Exhausted, "59 is left")
		must(t, "59")(b.Propose(t.Context(), priced("59", time.Now().Add(time.Hour), 59)))
		synctest.Wait()

		// The same days are counted for other periods; and without any all of it counts.
		if err := a.SetBudgetFor(t.Context(), "bio", &limit, engine.Day); err != nil {
			t.Fatal(err)
		}
		_, err = a.Propose(t.Context(), priced("42", time.Now().Add(time.Hour), 42))
		wantKind(t, "of the day", err, fail.Exhausted, "41 is left")
		must(t, "of the next day")(a.Propose(t.Context(), priced("tomorrow", time.Now().Add(24*time.Hour), 100)))
		if err := a.SetBudget(t.Context(), "bio", &limit); err != nil {
			t.Fatal(err)
		}
		_, err = a.Propose(t.Context(), priced("ever", time.Now().Add(48*time.Hour), 1))
		wantKind(t, "of all time", err, fail.Exhausted, "0 is left")
		wantKind(t, "no period", a.SetBudgetFor(t.Context(), "bio", &limit, "year"), fail.Invalid, "day, week or month")
	})
}

// A period that is set counts what another process has committed just before, and not told of yet.
func TestPeriodCountsWhatOthersJustMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory(t)
		a := start(t, st, engine.Options{Replica: "a"})
		feed(t, a, 1000)
		from := time.Date(2000, 1, 20, 0, 0, 0, 0, time.UTC)
		must(t, "early")(a.Propose(t.Context(), priced("early", from, 2)))
		b, err := engine.New(t.Context(), st, engine.Options{Replica: "b"}) // which the watch tells nothing
		if err != nil {
			t.Fatal(err)
		}
		must(t, "just made")(a.Propose(t.Context(), priced("just made", from, 5)))
		limit := int64(10)
		if err := b.SetBudgetFor(t.Context(), "bio", &limit, engine.Month); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		_, err = a.Propose(t.Context(), priced("too much", from, 4))
		wantKind(t, "more than is left", err, fail.Exhausted, "of that for the one from 2000-01-01T00:00:00Z 3 is left")
		must(t, "what is left")(a.Propose(t.Context(), priced("what is left", from, 3)))
	})
}

// The days that an account knows are bounded by what can still count.
func TestDaysAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory(t)
		a := start(t, st, engine.Options{})
		feed(t, a, 1000)
		limit := int64(1000)
		if err := a.SetBudgetFor(t.Context(), "bio", &limit, engine.Week); err != nil {
			t.Fatal(err)
		}
		late := must(t, "Propose")(a.Propose(t.Context(), priced("late", time.Now().Add(time.Hour), 5)))
		most := 0
		for i := range 200 {
			id := fmt.Sprint("n", i)
			must(t, "Propose")(a.Propose(t.Context(), priced(id, time.Now().Add(2*time.Hour), 3)))
			must(t, "Complete")(a.Complete(t.Context(), id, engine.Ending{}))
			most = max(most, len(a.Accounts()[0].Days))
			time.Sleep(24 * time.Hour)
		}
		if most > 40 {
			t.Errorf("%d days were known at once", most)
		}
		must(t, "Complete")(a.Complete(t.Context(), late.ID, engine.Ending{}))
		must(t, "Propose")(a.Propose(t.Context(), priced("last", time.Now().Add(time.Hour), 1)))
		x := a.Accounts()[0]
		if sum := x.Days["2000-01-01"]; sum != (engine.Sum{}) || x.Committed != 1 || x.Spent != 200*3+5 {
			t.Errorf("%+v", x)
		}
	})
}
