package engine_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/calendar"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/faulty"
	"github.com/portolan-project/portolan/internal/store/mem"
)

func TestMain(m *testing.M) {
	if os.Getenv("PORTOLAN_ENGINE_CHILD") != "" {
		child()
		return
	}
	goleak.VerifyTestMain(m)
}

const pool = "slurm/batch"

func start(t testing.TB, st store.Records, o engine.Options) *engine.Engine {
	t.Helper()
	o.Log = slog.New(slog.DiscardHandler)
	e, err := engine.New(t.Context(), st, o)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = e.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return e
}

func memory(t testing.TB) *mem.Store {
	s := mem.New()
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func feed(t testing.TB, e *engine.Engine, cpus int64, outages ...calendar.Outage) []engine.Danger {
	t.Helper()
	d, err := e.SetPools(t.Context(), []calendar.Pool{{ID: pool, Capacity: calendar.Amount{CPUs: cpus}, Outages: outages}})
	if err != nil {
		t.Fatalf("SetPools: %v", err)
	}
	return d
}

// hour gives a plan of CPUs for an hour, some hours from now.
func hour(cpus int64, in int) engine.Plan {
	from := time.Now().Add(time.Duration(in) * time.Hour).Truncate(time.Second)
	return engine.Plan{Holds: []calendar.Hold{{ID: "job", Pool: pool, Amount: calendar.Amount{CPUs: cpus}, From: from, Until: from.Add(time.Hour)}}}
}

func offer(id string, plans ...engine.Plan) engine.Proposal {
	return engine.Proposal{ID: id, Owner: "CN=ann,O=grid", VO: "bio", Name: "nightly", TemplateID: "1", TemplateName: "batch", Document: []byte("<offer " + id + "/>"), Alternatives: plans}
}

func must(t testing.TB, what string) func(engine.Record, error) engine.Record {
	t.Helper()
	return func(r engine.Record, err error) engine.Record {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		return r
	}
}

func wantState(t testing.TB, e *engine.Engine, id string, want agreement.State) engine.Record {
	t.Helper()
	r, err := e.Get(t.Context(), id)
	if err != nil || r.State != want {
		t.Errorf("the agreement %s is %q, %v; want %q", id, r.State, err, want)
	}
	return r
}

func wantKind(t testing.TB, what string, err error, want fail.Kind, words string) {
	t.Helper()
	if !fail.Is(err, want) || !strings.Contains(fail.Sentence(err), words) {
		t.Errorf("%s: %v; want %v with %q", what, err, want, words)
	}
}

func TestPropose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory(t)
		a, b := start(t, st, engine.Options{Replica: "a"}), start(t, st, engine.Options{Replica: "b"})
		feed(t, a, 10)
		p := offer("1", hour(6, 1))
		p.Alternatives[0].Guarantees = json.RawMessage(`{"x":1}`)
		r := must(t, "Propose")(a.Propose(t.Context(), p))
		if r.State != agreement.Observed || r.Revision == 0 || r.Plan == nil || string(r.Plan.Guarantees) != `{"x":1}` {
			t.Errorf("accepted as %+v", r)
		}
		again := must(t, "again")(a.Propose(t.Context(), p))
		if !reflect.DeepEqual(again, r) {
			t.Errorf("again gives\n%+v\nwant\n%+v", again, r)
		}
		synctest.Wait()
		elsewhere := must(t, "on the other replica")(b.Propose(t.Context(), p))
		if elsewhere.Revision != r.Revision {
			t.Errorf("the other replica made another: %+v", elsewhere)
		}
		other := p
		other.Document = []byte("<else/>")
		_, err := b.Propose(t.Context(), other)
		wantKind(t, "another offer of that id", err, fail.Conflict, "belongs to another")
		if doc, err := b.Document(t.Context(), "1"); err != nil || string(doc) != "<offer 1/>" {
			t.Errorf("the document is %q, %v", doc, err)
		}
		_, err = b.Propose(t.Context(), offer("2", hour(5, 1)))
		room, ok := errors.AsType[*engine.NoRoom](err)
		if !ok || !room.Earliest.Equal(r.Plan.Holds[0].Until) || room.Pool != pool {
			t.Errorf("without room: %+v, %v", room, err)
		}
		wantKind(t, "without room", err, fail.Exhausted, "5 CPUs of slurm/batch")
		if _, err := b.Get(t.Context(), "2"); !fail.Is(err, fail.NotFound) {
			t.Errorf("what was refused is there: %v", err)
		}
		r = must(t, "the second alternative")(b.Propose(t.Context(), offer("3", hour(5, 1), hour(5, 2))))
		if r.Alternative != 1 {
			t.Errorf("accepted is %+v", r)
		}
		late := hour(6, 1)
		late.StartBy = time.Now().Add(24 * time.Hour)
		r = must(t, "put off")(b.Propose(t.Context(), offer("4", late)))
		if want := late.Holds[0].From.Add(2 * time.Hour); !r.Plan.Holds[0].From.Equal(want) || r.Plan.Holds[0].Until.Sub(want) != time.Hour {
			t.Errorf("put off to %s, want %s", r.Plan.Holds[0].From, want)
		}
		must(t, "Complete")(b.Complete(t.Context(), "1", engine.Ending{Reason: "all done"}))
		must(t, "Complete again")(a.Complete(t.Context(), "1", engine.Ending{}))
		// At once, wherever it is asked: the fence tells that there is more to know.
		must(t, "where one has ended")(a.Propose(t.Context(), offer("5", hour(10, 1))))
		again = must(t, "of one that has ended")(a.Propose(t.Context(), p))
		if again.State != agreement.Complete || len(again.History) != 2 {
			t.Errorf("the same proposal afterwards gives %+v", again)
		}
		list, err := b.List(t.Context(), "CN=ann,O=grid", "", 3)
		if err != nil || len(list) != 3 || list[0].ID != "5" || list[2].ID != "3" {
			t.Errorf("List gave %+v, %v", list, err)
		}
		list, err = b.List(t.Context(), "CN=ann,O=grid", "3", 10)
		if err != nil || len(list) != 1 || list[0].ID != "1" {
			t.Errorf("the next page is %+v, %v", list, err)
		}
		if list, err := b.List(t.Context(), "CN=ann", "", 10); err != nil || len(list) != 0 {
			t.Errorf("somebody else has %+v, %v", list, err)
		}
	})
}

// TestRestart: what was accepted is there afterwards, with its holds, documents and accounts.
// What nobody waits for any more when it is asked for is not begun.
func TestAskedTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := start(t, memory(t), engine.Options{})
		feed(t, e, 1000)
		gone, leave := context.WithCancelCause(t.Context())
		leave(errors.New("another answers"))
		for i := range 40 { // whoever is lucky is not refused each time
			id := fmt.Sprint(i)
			_, err := e.Propose(gone, offer(id, hour(1, 1)))
			wantKind(t, "asked too late", err, fail.Unavailable, "")
			if _, err := e.Get(t.Context(), id); !fail.Is(err, fail.NotFound) {
				t.Errorf("it was made all the same: %v", err)
			}
		}
		must(t, "in time")(e.Propose(t.Context(), offer("in time", hour(1, 1))))
		if n := len(e.Live()); n != 1 {
			t.Errorf("there are %d agreements", n)
		}
	})
}

func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory(t)
		a := start(t, st, engine.Options{})
		feed(t, a, 10)
		var budget int64 = 100
		if err := a.SetBudget(t.Context(), "bio", &budget); err != nil {
			t.Fatal(err)
		}
		p := offer("1", hour(6, 1))
		p.Document = []byte(strings.Repeat("long", 2000))
		p.Alternatives[0].Price = 7
		r := must(t, "Propose")(a.Propose(t.Context(), p))
		b := start(t, st, engine.Options{})
		if got := must(t, "Get")(b.Get(t.Context(), "1")); !reflect.DeepEqual(got, r) {
			t.Errorf("afterwards\n%+v\nbefore\n%+v", got, r)
		}
		if doc, err := b.Document(t.Context(), "1"); err != nil || string(doc) != string(p.Document) {
			t.Errorf("the document has %d bytes, %v", len(doc), err)
		}
		if _, err := b.Propose(t.Context(), offer("2", hour(5, 1))); !fail.Is(err, fail.Exhausted) {
			t.Errorf("what was held is not: %v", err)
		}
		if got, want := b.Accounts(), a.Accounts(); !reflect.DeepEqual(got, want) || got[0].Committed != 7 {
			t.Errorf("the accounts are %+v, want %+v", got, want)
		}
		if !reflect.DeepEqual(b.Pools(), a.Pools()) {
			t.Errorf("the pools are %+v, want %+v", b.Pools(), a.Pools())
		}
	})
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory(t)
		a, b := start(t, st, engine.Options{Replica: "a"}), start(t, st, engine.Options{Replica: "b"})
		feed(t, a, 10)
		sess, err := st.Join(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		defer sess.Close()
		if err := a.Attend(t.Context(), sess); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !a.Responsible("1") || b.Responsible("1") {
			t.Error("only the one that attends is responsible")
		}
		began := time.Now()
		expires := began.Add(3 * time.Hour)
		p := offer("1", hour(10, 1))
		p.ExpirationTime = expires
		p.Alternatives[0].Price = 5
		must(t, "Propose")(a.Propose(t.Context(), p))
		prepared := offer("2", hour(10, 3))
		prepared.Prepared = began.Add(time.Minute)
		prepared.ExpirationTime = expires
		must(t, "prepared")(b.Propose(t.Context(), prepared))
		pending := offer("3")
		pending.Pending, pending.ExpirationTime = true, expires
		must(t, "pending")(b.Propose(t.Context(), pending))
		synctest.Wait()
		time.Sleep(59 * time.Second)
		synctest.Wait()
		wantState(t, b, "2", agreement.Pending)
		time.Sleep(time.Second)
		synctest.Wait()
		r := wantState(t, b, "2", agreement.Rejected)
		if !r.Ended.Equal(began.Add(time.Minute)) || !strings.Contains(r.Reason, "confirmed") {
			t.Errorf("ended at %s: %s", r.Ended, r.Reason)
		}
		_, err = b.Confirm(t.Context(), "2")
		wantKind(t, "too late", err, fail.Conflict, "Rejected")
		time.Sleep(time.Until(expires))
		synctest.Wait()
		if r := wantState(t, b, "1", agreement.Complete); r.Due != 5 {
			t.Errorf("due is %d", r.Due)
		}
		wantState(t, a, "3", agreement.Rejected)
		if free := b.Free(pool, began, began.Add(10*time.Hour)); free.CPUs != 10 {
			t.Errorf("free is %+v", free)
		}
		// Where the responsible one does not do it, another does.
		lame, err := st.Join(t.Context(), "lame")
		if err != nil {
			t.Fatal(err)
		}
		defer lame.Close()
		if _, err := st.PutRecords(t.Context(), lame, store.RecordChange{Key: "agreements/replica/lame", Value: []byte("x"), If: -1, Bound: true}); err != nil {
			t.Fatal(err)
		}
		_ = sess.Close()
		synctest.Wait()
		p = offer("4", hour(1, 1))
		p.ExpirationTime = time.Now().Add(time.Hour)
		must(t, "Propose")(a.Propose(t.Context(), p))
		time.Sleep(time.Hour + 9*time.Second)
		synctest.Wait()
		wantState(t, a, "4", agreement.Observed)
		time.Sleep(time.Second)
		synctest.Wait()
		wantState(t, a, "4", agreement.Complete)
	})
}

// TestPrepared: a coordinator that asks twice, or comes too late, changes nothing.
func TestPrepared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory(t)
		a, b := start(t, st, engine.Options{Replica: "a"}), start(t, st, engine.Options{Replica: "b"})
		feed(t, a, 10)
		synctest.Wait()
		prepare := func(id string) {
			p := offer(id, hour(4, 1))
			p.Prepared = time.Now().Add(time.Minute)
			must(t, "prepare")(a.Propose(t.Context(), p))
		}
		prepare("1")
		prepare("2")
		r := must(t, "Confirm")(b.Confirm(t.Context(), "1"))
		if r.State != agreement.Observed {
			t.Errorf("confirmed: %+v", r)
		}
		if again := must(t, "again")(a.Confirm(t.Context(), "1")); again.Revision != r.Revision {
			t.Errorf("confirming again wrote: %+v", again)
		}
		_, err := b.Abort(t.Context(), "1", "late")
		wantKind(t, "abort of what binds", err, fail.Conflict, "binding")
		must(t, "Abort")(b.Abort(t.Context(), "2", "no room elsewhere"))
		must(t, "again")(a.Abort(t.Context(), "2", "no room elsewhere"))
		_, err = a.Confirm(t.Context(), "2")
		wantKind(t, "confirm of what was aborted", err, fail.Conflict, "final")
		_, err = a.Confirm(t.Context(), "3")
		wantKind(t, "confirm of nothing", err, fail.NotFound, "no agreement")
		must(t, "Propose")(a.Propose(t.Context(), offer("4", hour(6, 1))))
		_, err = a.Confirm(t.Context(), "4")
		wantKind(t, "confirm of what is no offer", err, fail.Conflict, "not prepared")
		time.Sleep(time.Hour)
		synctest.Wait()
		wantState(t, a, "1", agreement.Observed)
		must(t, "Confirm long after")(b.Confirm(t.Context(), "1"))
	})
}

func TestPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := start(t, memory(t), engine.Options{})
		feed(t, a, 10)
		for _, id := range []string{"1", "2", "3", "4"} {
			p := offer(id)
			p.Pending = true
			must(t, "pending")(a.Propose(t.Context(), p))
		}
		r := must(t, "accept")(a.Decide(t.Context(), "1", engine.Decision{Accept: true, Alternatives: []engine.Plan{hour(11, 1), hour(8, 1)}}))
		if r.State != agreement.Observed || r.Alternative != 1 {
			t.Errorf("accepted: %+v", r)
		}
		must(t, "again")(a.Decide(t.Context(), "1", engine.Decision{Accept: true}))
		_, err := a.Decide(t.Context(), "1", engine.Decision{})
		wantKind(t, "reject what is accepted", err, fail.Conflict, "can't be rejected")
		_, err = a.Decide(t.Context(), "2", engine.Decision{Accept: true, Alternatives: []engine.Plan{hour(8, 1)}})
		wantKind(t, "no room", err, fail.Exhausted, "there is from")
		wantState(t, a, "2", agreement.Pending)
		must(t, "reject")(a.Decide(t.Context(), "2", engine.Decision{Reason: "no room"}))
		must(t, "reject")(a.Decide(t.Context(), "2", engine.Decision{}))
		must(t, "Terminate")(a.Terminate(t.Context(), "3", "no more"))
		must(t, "Terminate again")(a.Terminate(t.Context(), "3", "no more"))
		if r := must(t, "accept")(a.Decide(t.Context(), "3", engine.Decision{Accept: true})); r.State != agreement.ObservedAndTerminating {
			t.Errorf("accepted meanwhile: %+v", r)
		}
		r = must(t, "Terminated")(a.Terminated(t.Context(), "3", engine.Ending{Reason: "jobs cancelled"}))
		if len(r.History) != 4 || r.History[3].Event != "terminated" || r.History[3].Reason != "jobs cancelled" {
			t.Errorf("the history is %+v", r.History)
		}
		_, err = a.Terminate(t.Context(), "3", "again")
		wantKind(t, "terminate what has ended", err, fail.Conflict, "final")
	})
}

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory(t)
		a, b := start(t, st, engine.Options{Replica: "a"}), start(t, st, engine.Options{Replica: "b"})
		feed(t, a, 1000)
		var limit int64 = 100
		if err := b.SetBudget(t.Context(), "bio", &limit); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		priced := func(id string, price ...int64) engine.Proposal {
			p := offer(id)
			for _, n := range price {
				plan := hour(1, 1)
				plan.Price = n
				p.Alternatives = append(p.Alternatives, plan)
			}
			return p
		}
		var wg sync.WaitGroup
		var accepted, refused atomic.Int64
		for i := range 50 {
			wg.Go(func() {
				_, err := []*engine.Engine{a, b}[i%2].Propose(t.Context(), priced(fmt.Sprint("p", i), 7))
				switch {
				case err == nil:
					accepted.Add(1)
				case fail.Is(err, fail.Exhausted) && strings.Contains(fail.Sentence(err), `budget of the VO "bio"`):
					refused.Add(1)
				default:
					t.Errorf("Propose: %v", err)
				}
			})
		}
		wg.Wait()
		if accepted.Load() != 14 || refused.Load() != 36 {
			t.Errorf("%d were accepted and %d refused; 100 is 14 times 7 and 2", accepted.Load(), refused.Load())
		}
		r := must(t, "a cheaper one")(a.Propose(t.Context(), priced("cheap", 3, 2)))
		if r.Alternative != 1 {
			t.Errorf("accepted is %+v", r)
		}
		live := a.Live()
		two, minus := int64(2), int64(-20)
		_, err := a.Complete(t.Context(), live[1].ID, engine.Ending{Due: new(int64(8))})
		wantKind(t, "more than the price", err, fail.Invalid, "at most its price of 7")
		must(t, "Complete")(a.Complete(t.Context(), live[1].ID, engine.Ending{Due: &two}))
		must(t, "Complete")(b.Complete(t.Context(), live[2].ID, engine.Ending{Due: &minus}))
		must(t, "Complete")(b.Complete(t.Context(), live[3].ID, engine.Ending{}))
		if _, err := a.Update(t.Context(), live[4].ID, func(r *engine.Record) error { r.Owed = new(int64(1)); return nil }); err != nil {
			t.Fatal(err)
		}
		must(t, "Complete")(b.Complete(t.Context(), live[4].ID, engine.Ending{}))
		synctest.Wait()
		want := []engine.Account{{VO: "bio", Limit: &limit, Committed: 100 - 4*7, Spent: 2 - 20 + 7 + 1}}
		for _, e := range []*engine.Engine{a, b} {
			got := e.Accounts()
			got[0].By = ""
			if !reflect.DeepEqual(got, want) {
				t.Errorf("the account is %+v, want %+v", got, want)
			}
		}
		if err := a.SetBudget(t.Context(), "bio", nil); err != nil {
			t.Fatal(err)
		}
		must(t, "without a bound")(b.Propose(t.Context(), priced("dear", 1000)))
	})
}

func TestPools(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory(t)
		a, b := start(t, st, engine.Options{Replica: "a"}), start(t, st, engine.Options{Replica: "b"})
		feed(t, a, 10)
		must(t, "Propose")(a.Propose(t.Context(), offer("1", hour(6, 1))))
		time.Sleep(time.Second)
		must(t, "Propose")(a.Propose(t.Context(), offer("2", hour(4, 1))))
		revision := func() int64 {
			_, at, err := st.ListRecords(t.Context(), "none/", store.RecordOptions{})
			if err != nil {
				t.Fatal(err)
			}
			return at
		}
		// A site that comes and goes writes nothing, and gets nothing new while it is gone.
		before := revision()
		for range 10 {
			if d := feed(t, a, 0); len(d) != 0 {
				t.Errorf("endangered at once: %+v", d)
			}
			_, err := a.Propose(t.Context(), offer("3", hour(1, 5)))
			wantKind(t, "while it is gone", err, fail.Exhausted, "ask for less")
			time.Sleep(20 * time.Second)
			feed(t, a, 10)
			feed(t, b, 10)
		}
		if got := revision(); got != before {
			t.Errorf("a site that flaps wrote %d times", got-before)
		}
		feed(t, a, 7)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if p := b.Pools(); len(p) != 1 || p[0].Capacity.CPUs != 7 {
			t.Errorf("after a while the pool is %+v", p)
		}
		if d := feed(t, b, 7); len(d) != 1 || d[0].ID != "2" || d[0].Pool != pool || d[0].Hold != "job" {
			t.Errorf("endangered are %+v; want the one that was accepted last", d)
		}
		wantState(t, b, "2", agreement.Observed)
		if d := feed(t, b, 12); len(d) != 0 {
			t.Errorf("endangered are %+v", d)
		}
		must(t, "at once")(b.Propose(t.Context(), offer("3", hour(2, 1))))
		// An outage that was announced.
		from := time.Now().Add(10 * time.Hour).Truncate(time.Second)
		feed(t, a, 12, calendar.Outage{From: from, Until: from.Add(time.Hour), Less: calendar.Amount{CPUs: 12}})
		_, err := a.Propose(t.Context(), offer("4", hour(1, 10)))
		room, ok := errors.AsType[*engine.NoRoom](err)
		if !ok || !room.Earliest.Equal(from.Add(time.Hour)) {
			t.Errorf("in an outage: %v", err)
		}
		// A pool that goes away keeps what is held.
		if _, err := a.SetPools(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if d := b.Endangered(); len(d) != 3 {
			t.Errorf("endangered are %+v", d)
		}
		for _, id := range []string{"1", "2", "3"} {
			must(t, "Complete")(b.Complete(t.Context(), id, engine.Ending{}))
		}
		synctest.Wait()
		if _, err := a.SetPools(t.Context(), nil); err != nil || len(a.Pools()) != 0 {
			t.Errorf("a pool that is not used any more is there: %+v, %v", a.Pools(), err)
		}
		synctest.Wait()
		if len(b.Pools()) != 0 {
			t.Errorf("b has %+v", b.Pools())
		}
	})
}

func TestUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory(t)
		a, b := start(t, st, engine.Options{Replica: "a"}), start(t, st, engine.Options{Replica: "b"})
		feed(t, a, 10)
		must(t, "Propose")(a.Propose(t.Context(), offer("1", hour(6, 1))))
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				_, err := []*engine.Engine{a, b}[i%2].Update(t.Context(), "1", func(r *engine.Record) error {
					r.Jobs = append(r.Jobs, fmt.Sprint(i))
					return nil
				})
				if err != nil {
					t.Errorf("Update: %v", err)
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		if r := wantState(t, b, "1", agreement.Observed); len(r.Jobs) != 40 {
			t.Errorf("of 40 jobs there are %d", len(r.Jobs))
		}
		r := must(t, "Update")(a.Update(t.Context(), "1", func(r *engine.Record) error {
			r.State, r.Owner, r.Plan.Price, r.ID = agreement.Complete, "eve", 3, "x"
			r.Plan.Holds[0].CPUs = 1
			r.Plan.Detail = json.RawMessage(`"here"`)
			r.Tell(time.Now(), "reserved", "as resv-1")
			return nil
		}))
		if r.State != agreement.Observed || r.Owner != "CN=ann,O=grid" || r.Plan.Price != 0 || r.ID != "1" || r.Plan.Holds[0].CPUs != 6 {
			t.Errorf("an update changed what it may not: %+v", r)
		}
		if string(r.Plan.Detail) != `"here"` || r.History[1].Event != "reserved" {
			t.Errorf("an update is not kept: %+v", r)
		}
		boom := errors.New("boom")
		if _, err := a.Update(t.Context(), "1", func(r *engine.Record) error { r.Jobs = nil; return boom }); !errors.Is(err, boom) {
			t.Errorf("its error is %v", err)
		}
		if r := wantState(t, a, "1", agreement.Observed); len(r.Jobs) != 40 {
			t.Error("an update that failed changed something")
		}
		_, err := a.Update(t.Context(), "1", func(r *engine.Record) error { r.Notes = map[string]json.RawMessage{"x": []byte("{")}; return nil })
		wantKind(t, "no JSON", err, fail.Invalid, "no JSON")
		_, err = a.Update(t.Context(), "1", func(r *engine.Record) error {
			r.Notes = map[string]json.RawMessage{"x": []byte(`"` + strings.Repeat("x", engine.MaxRecord) + `"`)}
			return nil
		})
		wantKind(t, "too much", err, fail.Exhausted, "states and notes")
		_, err = a.Update(t.Context(), "1", func(r *engine.Record) error { r.History = nil; return nil })
		wantKind(t, "history", err, fail.Internal, "only grows")
		for i := range 2 * engine.MaxHistory {
			must(t, "Tell")(a.Update(t.Context(), "1", func(r *engine.Record) error { r.Tell(time.Now(), "told", fmt.Sprint(i)); return nil }))
		}
		r = wantState(t, a, "1", agreement.Observed)
		if n := len(r.History); n != engine.MaxHistory || r.History[0].Event != "accepted" || r.History[n-1].Reason != fmt.Sprint(2*engine.MaxHistory-1) {
			t.Errorf("%d lines of history: from %+v to %+v", n, r.History[0], r.History[n-1])
		}
		_, err = a.Update(t.Context(), "2", func(*engine.Record) error { return nil })
		wantKind(t, "of nothing", err, fail.NotFound, "no agreement")
	})
}

func TestReplanAndReplace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := start(t, memory(t), engine.Options{})
		feed(t, a, 10)
		must(t, "Propose")(a.Propose(t.Context(), offer("1", hour(6, 1))))
		r := must(t, "Replan")(a.Replan(t.Context(), "1", "more is needed", []engine.Plan{hour(9, 1)}))
		if r.Plan.Holds[0].CPUs != 9 || r.History[1].Event != "replanned" {
			t.Errorf("replanned: %+v", r)
		}
		_, err := a.Replan(t.Context(), "1", "still more", []engine.Plan{hour(11, 1)})
		wantKind(t, "too much", err, fail.Exhausted, "no room")
		if r := wantState(t, a, "1", agreement.Observed); r.Plan.Holds[0].CPUs != 9 || len(r.History) != 2 {
			t.Errorf("after what failed: %+v", r)
		}
		p := offer("2", hour(10, 1))
		p.Replaces = "1"
		stranger := p
		stranger.Owner = "CN=eve"
		_, err = a.Propose(t.Context(), stranger)
		wantKind(t, "a stranger's", err, fail.NotFound, "no agreement")
		bad := p
		bad.Alternatives = []engine.Plan{hour(11, 1)}
		_, err = a.Propose(t.Context(), bad)
		wantKind(t, "no room", err, fail.Exhausted, "no room")
		wantState(t, a, "1", agreement.Observed)
		r = must(t, "Propose")(a.Propose(t.Context(), p))
		if old := wantState(t, a, "1", agreement.Terminated); old.Revision != r.Revision {
			t.Error("the old one did not end in the transaction that made the new one")
		}
		p.ID = "3"
		_, err = a.Propose(t.Context(), p)
		wantKind(t, "of one that has ended", err, fail.Conflict, "only one that is Observed")
		plan, i, err := a.Quote(t.Context(), "bio", []engine.Plan{hour(1, 1), hour(1, 2)})
		if err != nil || i != 1 || plan.Holds[0].CPUs != 1 {
			t.Errorf("quoted is %+v, %d, %v", plan, i, err)
		}
		_, _, err = a.Quote(t.Context(), "bio", []engine.Plan{hour(1, 1)})
		wantKind(t, "quote without room", err, fail.Exhausted, "no room")
		if free := a.Free(pool, time.Now(), time.Now().Add(90*24*time.Hour)); free.CPUs != 0 || len(a.Live()) != 1 {
			t.Errorf("a quote holds something: %+v", free)
		}
		if free := a.Free(pool, time.Now().Add(3*time.Hour), time.Now().Add(90*24*time.Hour)); free.CPUs != 10 {
			t.Errorf("free is %+v", free)
		}
	})
}

// TestWatch: every change is told on every replica, once and in order, though the watch breaks
// after each, and with what was missed when the store forgot it.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory(t)
		var down atomic.Bool
		breaks := faulty.New(st, func(op faulty.Op) faulty.Fault {
			switch {
			case op != faulty.WatchRecords:
				return faulty.Fault{}
			case down.Load():
				return faulty.Fault{Before: fail.Unavailable}
			}
			return faulty.Fault{After: true}
		})
		a, b := start(t, st, engine.Options{Replica: "a"}), start(t, breaks, engine.Options{Replica: "b"})
		feed(t, a, 10)
		var mu sync.Mutex
		var told []string
		stop := b.Watch(func(records []engine.Record) {
			mu.Lock()
			defer mu.Unlock()
			for _, r := range records {
				told = append(told, fmt.Sprintf("%s %s", r.ID, r.State))
			}
		})
		want := func(want ...string) {
			t.Helper()
			time.Sleep(time.Minute)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(told, want) {
				t.Errorf("told is %q, want %q", told, want)
			}
			told = nil
		}
		must(t, "Propose")(a.Propose(t.Context(), offer("1", hour(6, 1))))
		want("1 Observed")
		must(t, "Propose")(b.Propose(t.Context(), offer("2", hour(1, 1))))
		want("2 Observed")
		must(t, "Terminate")(a.Terminate(t.Context(), "1", ""))
		want("1 ObservedAndTerminating")
		down.Store(true)
		must(t, "Terminate")(a.Terminate(t.Context(), "2", ""))
		want("2 ObservedAndTerminating") // the last that it tells
		must(t, "Terminated")(a.Terminated(t.Context(), "1", engine.Ending{}))
		must(t, "Propose")(a.Propose(t.Context(), offer("3", hour(1, 1))))
		want()
		// Without a watch it is right all the same, if slower.
		_, err := b.Propose(t.Context(), offer("4", hour(9, 1)))
		wantKind(t, "without a watch", err, fail.Exhausted, "no room")
		must(t, "without a watch")(b.Propose(t.Context(), offer("5", hour(8, 1))))
		st.Compact()
		down.Store(false)
		want("1 Terminated", "3 Observed", "5 Observed")
		stop()
		must(t, "Terminated")(a.Terminated(t.Context(), "2", engine.Ending{}))
		want()
	})
}

// TestMemory: what has ended is not kept in memory, nor is the time at which it would have.
func TestMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := start(t, memory(t), engine.Options{})
		feed(t, a, 10)
		for i := range 3000 {
			p := offer(fmt.Sprint(i), hour(1, 1))
			p.ExpirationTime = time.Now().Add(1000 * time.Hour)
			must(t, "Propose")(a.Propose(t.Context(), p))
			must(t, "Complete")(a.Complete(t.Context(), p.ID, engine.Ending{}))
		}
		synctest.Wait()
		if got := a.Entries(); got[0] != 0 || got[1] > 1100 || got[2] != 1 || got[3] != 0 {
			t.Errorf("in memory are %d agreements, %d times, %d pools and %d accounts", got[0], got[1], got[2], got[3])
		}
	})
}

func TestRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory(t)
		a := start(t, st, engine.Options{Retention: 24 * time.Hour})
		feed(t, a, 10)
		for i := range 5 {
			p := offer(fmt.Sprint(i))
			p.Document = []byte(strings.Repeat("x", 1000*(i+1)*(i+1)))
			must(t, "Propose")(a.Propose(t.Context(), p))
			if i > 0 {
				must(t, "Complete")(a.Complete(t.Context(), p.ID, engine.Ending{}))
			}
		}
		time.Sleep(23 * time.Hour)
		synctest.Wait()
		if list, err := a.List(t.Context(), "CN=ann,O=grid", "", 0); err != nil || len(list) != 5 {
			t.Errorf("before the time %d are there, %v", len(list), err)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		wantState(t, a, "0", agreement.Observed)
		records, _, err := st.ListRecords(t.Context(), engine.Prefix, store.RecordOptions{})
		if err != nil || len(records) != 3 { // the pool, and the one that is live with its owner
			t.Errorf("left are %d records, %v", len(records), err)
		}
		if _, err := a.Get(t.Context(), "1"); !fail.Is(err, fail.NotFound) {
			t.Errorf("what was removed: %v", err)
		}
	})
}

// TestFruitless: what was prepared and let go is kept for an hour, as others may fill the store with it; what was
// binding once, was offered otherwise, or is not done with, is kept as ever.
func TestFruitless(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory(t)
		a := start(t, st, engine.Options{Unfinished: func(r *engine.Record) bool { return len(r.Notes) > 0 }})
		feed(t, a, 10)
		long := []byte(strings.Repeat("x", 100_000))
		for _, id := range []string{"let go", "not confirmed", "confirmed", "unfinished", "waiting"} {
			p := offer(id, hour(1, 1))
			p.Prepared, p.Document, p.Domain = time.Now().Add(2*time.Minute), long, "fiu"
			if id == "waiting" {
				p.Prepared = time.Now().Add(24 * time.Hour)
			}
			must(t, "Propose")(a.Propose(t.Context(), p))
		}
		if n := a.OfDomain("fiu"); n != 5 || a.OfDomain("") != 0 {
			t.Errorf("%d are made with the peer", n)
		}
		must(t, "Abort")(a.Abort(t.Context(), "let go", "no"))
		must(t, "Confirm")(a.Confirm(t.Context(), "confirmed"))
		must(t, "Complete")(a.Complete(t.Context(), "confirmed", engine.Ending{}))
		must(t, "Update")(a.Update(t.Context(), "unfinished", func(r *engine.Record) error {
			r.Notes = map[string]json.RawMessage{"x": json.RawMessage("1")}
			return nil
		}))
		must(t, "Abort")(a.Abort(t.Context(), "unfinished", "no"))
		must(t, "Propose")(a.Propose(t.Context(), func() engine.Proposal {
			p := offer("refused", hour(1, 1))
			p.Pending = true
			return p
		}()))
		must(t, "Decide")(a.Decide(t.Context(), "refused", engine.Decision{Reason: "no"}))
		time.Sleep(50 * time.Minute)
		synctest.Wait()
		wantState(t, a, "let go", agreement.Rejected)
		wantState(t, a, "not confirmed", agreement.Rejected)
		if n := a.OfDomain("fiu"); n != 1 {
			t.Errorf("%d are left with the peer", n)
		}
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		for id, want := range map[string]agreement.State{"let go": "", "not confirmed": "", "confirmed": agreement.Complete, "unfinished": agreement.Rejected, "refused": agreement.Rejected, "waiting": agreement.Pending} {
			if want != "" {
				wantState(t, a, id, want)
				continue
			}
			if r, err := a.Get(t.Context(), id); !fail.Is(err, fail.NotFound) {
				t.Errorf("%s is kept: %+v %v", id, r, err)
			}
			if _, err := a.Document(t.Context(), id); !fail.Is(err, fail.NotFound) {
				t.Errorf("the offer of %s is kept: %v", id, err)
			}
		}
		must(t, "Abort")(a.Abort(t.Context(), "waiting", "no"))
		time.Sleep(3 * time.Hour) // it might be asked for until the time that it was to be confirmed by
		synctest.Wait()
		wantState(t, a, "waiting", agreement.Rejected)
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if _, err := a.Get(t.Context(), "waiting"); !fail.Is(err, fail.NotFound) {
			t.Errorf("it is kept: %v", err)
		}
	})
}

func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := start(t, memory(t), engine.Options{MaxHolds: 5, MaxLive: 7, Horizon: 48 * time.Hour})
		feed(t, a, 1000)
		refuse := func(what string, kind fail.Kind, words string, change func(*engine.Proposal)) {
			t.Helper()
			p := offer("x", hour(1, 1))
			change(&p)
			_, err := a.Propose(t.Context(), p)
			wantKind(t, what, err, kind, words)
		}
		past := time.Now().Add(-time.Second)
		long := strings.Repeat("x", 2000)
		refuse("no id", fail.Invalid, "needs an id", func(p *engine.Proposal) { p.ID = "" })
		refuse("long id", fail.Invalid, "needs an id", func(p *engine.Proposal) { p.ID = long })
		refuse("no owner", fail.Invalid, "needs an owner", func(p *engine.Proposal) { p.Owner = "" })
		refuse("long name", fail.Invalid, "may have", func(p *engine.Proposal) { p.TemplateName = long })
		refuse("long document", fail.Exhausted, "the offer has", func(p *engine.Proposal) { p.Document = make([]byte, engine.MaxDocument+1) })
		refuse("expired", fail.Invalid, "has passed", func(p *engine.Proposal) { p.ExpirationTime = past })
		refuse("confirmed", fail.Invalid, "has passed", func(p *engine.Proposal) { p.Prepared = past })
		refuse("confirmed late", fail.Invalid, "the latest is", func(p *engine.Proposal) { p.Prepared = time.Now().Add(49 * time.Hour) })
		refuse("both", fail.Invalid, "not for both", func(p *engine.Proposal) { p.Prepared, p.Pending = time.Now().Add(time.Hour), true })
		refuse("itself", fail.Invalid, "itself", func(p *engine.Proposal) { p.Replaces = p.ID })
		refuse("alternatives", fail.Exhausted, "alternatives", func(p *engine.Proposal) { p.Alternatives = make([]engine.Plan, engine.MaxAlternatives+1) })
		refuse("holds", fail.Exhausted, "reservations at once", func(p *engine.Proposal) {
			p.Alternatives[0].Holds = make([]calendar.Hold, engine.MaxPlanHolds+1)
		})
		refuse("price", fail.Invalid, "price", func(p *engine.Proposal) { p.Alternatives[0].Price = -1 })
		refuse("over", fail.Invalid, "is over", func(p *engine.Proposal) {
			p.Alternatives[0].Holds[0].From, p.Alternatives[0].Holds[0].Until = past.Add(-time.Hour), past
		})
		refuse("horizon", fail.Invalid, "nothing is promised beyond", func(p *engine.Proposal) { p.Alternatives = []engine.Plan{hour(1, 48)} })
		refuse("no pool", fail.Exhausted, "ask for less", func(p *engine.Proposal) { p.Alternatives[0].Holds[0].Pool = "nowhere" })
		refuse("bad hold", fail.Invalid, "asks for nothing", func(p *engine.Proposal) { p.Alternatives[0].Holds[0].CPUs = 0 })
		for i := range 5 {
			must(t, "Propose")(a.Propose(t.Context(), offer(fmt.Sprint(i), hour(1, i))))
		}
		refuse("a crowded pool", fail.Exhausted, "5 reservations of slurm/batch are not over yet", func(*engine.Proposal) {})
		time.Sleep(90 * time.Minute) // one of them is over, though its agreement is not
		must(t, "Propose")(a.Propose(t.Context(), offer("6", hour(1, 1))))
		refuse("a crowded pool", fail.Exhausted, "5 reservations of slurm/batch are not over yet", func(*engine.Proposal) {})
		must(t, "Complete")(a.Complete(t.Context(), "0", engine.Ending{}))
		refuse("a crowded pool still", fail.Exhausted, "5 reservations of slurm/batch are not over yet", func(*engine.Proposal) {})
		must(t, "Propose")(a.Propose(t.Context(), offer("7")))
		must(t, "Propose")(a.Propose(t.Context(), offer("8")))
		refuse("too many", fail.Exhausted, "that have not ended", func(p *engine.Proposal) { p.Alternatives = nil })
		_, err := a.SetPools(t.Context(), make([]calendar.Pool, engine.MaxPools+1))
		wantKind(t, "pools", err, fail.Exhausted, "there may be")
		_, err = a.SetPools(t.Context(), []calendar.Pool{{ID: "a"}, {ID: "a"}})
		wantKind(t, "pools", err, fail.Invalid, "twice")
		wantKind(t, "budget", a.SetBudget(t.Context(), "x", new(int64(-1))), fail.Invalid, "must be from 0")
		wantKind(t, "budget", a.SetBudget(t.Context(), long, nil), fail.Invalid, "the name of a VO")
		_, err = engine.New(t.Context(), memory(t), engine.Options{Horizon: -1})
		wantKind(t, "options", err, fail.Invalid, "negative")
		_, err = engine.New(t.Context(), memory(t), engine.Options{MaxLive: -1})
		wantKind(t, "options", err, fail.Invalid, "must be room")
		// What passes as late as it may is put off whole.
		begun := hour(1, 0)
		begun.Holds[0].From, begun.Holds[0].Until = time.Now().Add(-30*time.Minute), time.Now().Add(30*time.Minute)
		begun.StartBy = time.Now().Add(time.Hour)
		if plan, _, err := a.Quote(t.Context(), "", []engine.Plan{begun}); err == nil || !fail.Is(err, fail.Exhausted) {
			t.Errorf("a crowded pool quotes %+v, %v", plan, err)
		}
		must(t, "Complete")(a.Complete(t.Context(), "1", engine.Ending{}))
		plan, _, err := a.Quote(t.Context(), "", []engine.Plan{begun})
		if err != nil || plan.Holds[0].Until.Sub(plan.Holds[0].From) != time.Hour || plan.Holds[0].From.Before(time.Now()) {
			t.Errorf("begun: %+v, %v", plan, err)
		}
	})
}
