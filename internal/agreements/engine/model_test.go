package engine_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/calendar"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store/mem"
)

// promise is what the model knows of an agreement.
type promise struct {
	state    agreement.State
	cpus     int64
	price    int64
	prepared time.Time
	expires  time.Time
}

func (p *promise) final() bool {
	return p.state == agreement.Rejected || p.state == agreement.Complete || p.state == agreement.Terminated
}

// ledger is a model of agreements that all want the same hour: a sum of CPUs and one of money.
type ledger struct {
	all      map[string]*promise
	capacity int64
	limit    int64
	spent    int64
}

func (l *ledger) held() (cpus, committed int64) {
	for _, p := range l.all {
		if !p.final() {
			cpus, committed = cpus+p.cpus, committed+p.price
		}
	}
	return cpus, committed
}

func (l *ledger) end(p *promise, to agreement.State) {
	if to == agreement.Complete {
		l.spent += p.price
	}
	p.state = to
}

// TestModel: asked in any order, and started anew in between, it does what a model does, state by
// state, CPU by CPU and coin by coin.
func TestModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		st := mem.New()
		defer func() { _ = st.Close() }()
		now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		o := engine.Options{Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }}
		var e *engine.Engine
		open := func() {
			var err error
			if e, err = engine.New(t.Context(), st, o); err != nil {
				rt.Fatal(err)
			}
		}
		open()
		l := &ledger{all: map[string]*promise{}, capacity: 20, limit: 30}
		if _, err := e.SetPools(t.Context(), []calendar.Pool{{ID: pool, Capacity: calendar.Amount{CPUs: l.capacity}}}); err != nil {
			rt.Fatal(err)
		}
		if err := e.SetBudget(t.Context(), "bio", &l.limit); err != nil {
			rt.Fatal(err)
		}
		at := now.Add(30 * 24 * time.Hour)
		plan := func(cpus, price int64) engine.Plan {
			return engine.Plan{Price: price, Holds: []calendar.Hold{{Pool: pool, Amount: calendar.Amount{CPUs: cpus}, From: at, Until: at.Add(time.Hour)}}}
		}
		pick := func(rt *rapid.T) (string, *promise) {
			ids := make([]string, 0, len(l.all))
			for id := range l.all {
				ids = append(ids, id)
			}
			if len(ids) == 0 {
				rt.Skip()
			}
			slices.Sort(ids)
			id := rapid.SampledFrom(ids).Draw(rt, "id")
			return id, l.all[id]
		}
		room := func(cpus, price int64) bool {
			held, committed := l.held()
			return held+cpus <= l.capacity && committed+l.spent+price <= l.limit
		}
		agree := func(rt *rapid.T, what string, err error, want bool) {
			if (err == nil) != want {
				rt.Fatalf("%s: %v, and the model says %v", what, err, want)
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"": func(rt *rapid.T) {
				held, committed := l.held()
				if free := e.Free(pool, at, at.Add(time.Hour)); free.CPUs != l.capacity-held {
					rt.Fatalf("%d CPUs are free, and %d of %d are held", free.CPUs, held, l.capacity)
				}
				if a := e.Accounts(); a[0].Committed != committed || a[0].Spent != l.spent {
					rt.Fatalf("the account is %+v; committed are %d and spent %d", a[0], committed, l.spent)
				}
				live := 0
				for id, p := range l.all {
					r, err := e.Get(t.Context(), id)
					if err != nil || r.State != p.state || r.Ended.IsZero() == p.final() || r.History[len(r.History)-1].State != p.state {
						rt.Fatalf("the agreement %s is %+v, %v; want %s", id, r, err, p.state)
					}
					if !p.final() {
						live++
					}
				}
				if len(e.Live()) != live {
					rt.Fatalf("%d are live; want %d", len(e.Live()), live)
				}
			},
			"restart": func(*rapid.T) { open() },
			"propose": func(rt *rapid.T) {
				id := fmt.Sprint(rapid.IntRange(0, 30).Draw(rt, "id"))
				p := &promise{state: agreement.Observed, cpus: rapid.Int64Range(1, 12).Draw(rt, "cpus"), price: rapid.Int64Range(0, 9).Draw(rt, "price")}
				q := offer(id, plan(p.cpus, p.price))
				switch rapid.IntRange(0, 2).Draw(rt, "kind") {
				case 1:
					p.state, q.Pending = agreement.Pending, true
				case 2:
					p.state, q.Prepared = agreement.Pending, now.Add(time.Duration(rapid.IntRange(1, 5).Draw(rt, "confirm"))*time.Minute)
					p.prepared = q.Prepared
				}
				if rapid.Bool().Draw(rt, "expires") {
					q.ExpirationTime = now.Add(time.Duration(rapid.IntRange(1, 9).Draw(rt, "after")) * time.Minute)
					p.expires = q.ExpirationTime
				}
				r, err := e.Propose(t.Context(), q)
				if old := l.all[id]; old != nil {
					agree(rt, "the same again", err, true)
					if r.State != old.state {
						rt.Fatalf("the same again is %s, want %s", r.State, old.state)
					}
					return
				}
				agree(rt, "Propose", err, room(p.cpus, p.price))
				if err == nil {
					l.all[id] = p
				} else if _, lacking := errors.AsType[*engine.NoRoom](err); !fail.Is(err, fail.Exhausted) || lacking && room(p.cpus, 0) {
					rt.Fatalf("refused for %v", err)
				}
			},
			"decide": func(rt *rapid.T) {
				id, p := pick(rt)
				accept := rapid.Bool().Draw(rt, "accept")
				_, err := e.Decide(t.Context(), id, engine.Decision{Accept: accept})
				waiting := !p.prepared.IsZero() && p.state == agreement.Pending
				switch {
				case accept && p.state == agreement.Observed, !accept && p.state == agreement.Rejected:
					agree(rt, "decided already", err, true)
				case accept && p.state == agreement.Pending:
					agree(rt, "accept", err, !waiting)
					if !waiting {
						p.state = agreement.Observed
					}
				case accept && p.state == agreement.PendingAndTerminating:
					agree(rt, "accept", err, true)
					p.state = agreement.ObservedAndTerminating
				case !accept && (p.state == agreement.Pending || p.state == agreement.PendingAndTerminating):
					agree(rt, "reject", err, true)
					l.end(p, agreement.Rejected)
				default:
					agree(rt, "decide", err, false)
				}
			},
			"replan": func(rt *rapid.T) {
				id, p := pick(rt)
				cpus, price := rapid.Int64Range(1, 12).Draw(rt, "cpus"), rapid.Int64Range(0, 9).Draw(rt, "price")
				_, err := e.Replan(t.Context(), id, "", []engine.Plan{plan(cpus, price)})
				held, committed := l.held()
				more := committed - p.price + price + l.spent
				want := !p.final() && held-p.cpus+cpus <= l.capacity && (more <= l.limit || price == 0)
				agree(rt, "Replan", err, want)
				if want {
					p.cpus, p.price = cpus, price
				}
			},
			"terminate": func(rt *rapid.T) {
				id, p := pick(rt)
				_, err := e.Terminate(t.Context(), id, "")
				agree(rt, "Terminate", err, !p.final())
				if p.state == agreement.Pending {
					p.state = agreement.PendingAndTerminating
				} else if p.state == agreement.Observed {
					p.state = agreement.ObservedAndTerminating
				}
			},
			"terminated": func(rt *rapid.T) {
				id, p := pick(rt)
				_, err := e.Terminated(t.Context(), id, engine.Ending{})
				was := p.state
				if was == agreement.PendingAndTerminating || was == agreement.ObservedAndTerminating {
					l.end(p, agreement.Terminated)
				}
				agree(rt, "Terminated", err, p.state == agreement.Terminated)
			},
			"complete": func(rt *rapid.T) {
				id, p := pick(rt)
				_, err := e.Complete(t.Context(), id, engine.Ending{})
				if p.state == agreement.Observed || p.state == agreement.ObservedAndTerminating {
					l.end(p, agreement.Complete)
				}
				agree(rt, "Complete", err, p.state == agreement.Complete)
			},
			"confirm": func(rt *rapid.T) {
				id, p := pick(rt)
				_, err := e.Confirm(t.Context(), id)
				r, gotten := e.Get(context.Background(), id)
				if gotten != nil {
					rt.Fatal(gotten)
				}
				switch {
				case !p.prepared.IsZero() && p.state == agreement.Pending && now.Before(p.prepared):
					agree(rt, "Confirm", err, true)
					p.state = agreement.Observed
				case !p.prepared.IsZero() && p.state == agreement.PendingAndTerminating:
					agree(rt, "Confirm", err, true)
					p.state = agreement.ObservedAndTerminating
				default:
					agree(rt, "Confirm", err, !r.Confirmed.IsZero())
				}
			},
			"abort": func(rt *rapid.T) {
				id, p := pick(rt)
				_, err := e.Abort(t.Context(), id, "")
				if !p.prepared.IsZero() && (p.state == agreement.Pending || p.state == agreement.PendingAndTerminating) {
					l.end(p, agreement.Rejected)
				}
				agree(rt, "Abort", err, p.state == agreement.Rejected)
			},
			"wait": func(rt *rapid.T) {
				now = now.Add(time.Duration(rapid.IntRange(1, 120).Draw(rt, "seconds")) * time.Second)
				e.Tick(t.Context())
				for _, p := range l.all {
					due := !p.expires.IsZero() && !now.Before(p.expires)
					switch p.state {
					case agreement.Pending:
						if due || !p.prepared.IsZero() && !now.Before(p.prepared) {
							l.end(p, agreement.Rejected)
						}
					case agreement.PendingAndTerminating:
						if due {
							l.end(p, agreement.Terminated)
						}
					case agreement.Observed, agreement.ObservedAndTerminating:
						if due {
							l.end(p, agreement.Complete)
						}
					case agreement.Rejected, agreement.Complete, agreement.Terminated:
					}
				}
			},
		})
	})
}

// TestTable: the table says what docs say of the life of an agreement, and no more.
func TestTable(t *testing.T) {
	states := []agreement.State{
		agreement.Pending, agreement.PendingAndTerminating, agreement.Observed, agreement.ObservedAndTerminating,
		agreement.Rejected, agreement.Complete, agreement.Terminated,
	}
	events := []engine.Event{engine.Accepted, engine.Refused, engine.Asked, engine.Terminated, engine.Completed, engine.Expired}
	want := map[string]agreement.State{
		"Pending accepted":                  agreement.Observed,
		"Pending rejected":                  agreement.Rejected,
		"Pending terminate":                 agreement.PendingAndTerminating,
		"Pending expired":                   agreement.Rejected,
		"PendingAndTerminating accepted":    agreement.ObservedAndTerminating,
		"PendingAndTerminating rejected":    agreement.Rejected,
		"PendingAndTerminating terminated":  agreement.Terminated,
		"PendingAndTerminating expired":     agreement.Terminated,
		"Observed terminate":                agreement.ObservedAndTerminating,
		"Observed completed":                agreement.Complete,
		"Observed expired":                  agreement.Complete,
		"ObservedAndTerminating terminated": agreement.Terminated,
		"ObservedAndTerminating completed":  agreement.Complete,
		"ObservedAndTerminating expired":    agreement.Complete,
	}
	for _, s := range states {
		final := true
		for _, e := range events {
			to, err := engine.Next("a", s, e)
			w, ok := want[fmt.Sprintf("%s %s", s, e)]
			final = final && !ok
			if ok != (err == nil) || ok && to != w {
				t.Errorf("%s %s: %s, %v; want %s", s, e, to, err, w)
			}
			if err != nil && (!fail.Is(err, fail.Conflict) || to != s) {
				t.Errorf("%s %s: %s, %v", s, e, to, err)
			}
		}
		if engine.Final(s) != final {
			t.Errorf("%s is final: %v", s, engine.Final(s))
		}
	}
}
