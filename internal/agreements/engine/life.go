package engine

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
)

// Ending is how an agreement ends.
type Ending struct {
	Reason string
	// Due is what is settled: at most the price of its plan, and less than nothing where the
	// provider pays. Nil: what Record.Owed says, or else the price where it was Observed and is
	// completed or expires, and nothing where it is not.
	Due *int64
}

// change has one agreement changed, once.
func (e *Engine) change(ctx context.Context, op, id string, how func(*batch, *draft) error) (Record, error) {
	var d *draft
	err := e.do(ctx, op, func(b *batch) (err error) {
		if d, err = b.existing(op, id); err != nil {
			return err
		}
		if slices.Contains(d.rec.Stamps, b.stamp) {
			return nil // it was written, and the answer lost
		}
		return how(b, d)
	})
	return d.result(err)
}

// step moves an agreement on by an event.
func (b *batch) step(op string, d *draft, event Event, how Ending) error {
	r := d.rec.clone()
	to, err := next(op, r.ID, r.State, event)
	if err != nil {
		return err
	}
	if Final(to) {
		due := int64(0)
		switch {
		case how.Due != nil:
			due = *how.Due
		case r.Owed != nil:
			due = *r.Owed
		case to == agreement.Complete:
			due = r.price()
		}
		if due > r.price() || due < -MaxPrice {
			return fail.Errorf(op, fail.Invalid, r.ID, "%d would be due of the agreement %s; at most its price of %d can be", due, r.ID, r.price())
		}
		r.Due, r.Ended = due, b.now
	}
	r.State, r.Reason = to, how.Reason
	r.Tell(b.now, string(event), how.Reason)
	return b.set(d, r)
}

// Terminate asks for the end of an agreement: what is held for it is held until Terminated says
// that what ran for it has ended. Asked again it changes nothing; of one that has ended it is
// fail.Conflict.
func (e *Engine) Terminate(ctx context.Context, id, reason string) (Record, error) {
	const op = "engine.Terminate"
	return e.change(ctx, op, id, func(b *batch, d *draft) error {
		if s := d.rec.State; s == agreement.ObservedAndTerminating || s == agreement.PendingAndTerminating {
			return nil
		}
		return b.step(op, d, Asked, Ending{Reason: reason})
	})
}

// Terminated ends an agreement whose end was asked for, and lets go what is held for it.
func (e *Engine) Terminated(ctx context.Context, id string, how Ending) (Record, error) {
	return e.end(ctx, "engine.Terminated", id, Terminated, agreement.Terminated, how)
}

// Complete ends an agreement whose services are completed, and lets go what is held for it.
func (e *Engine) Complete(ctx context.Context, id string, how Ending) (Record, error) {
	return e.end(ctx, "engine.Complete", id, Completed, agreement.Complete, how)
}

func (e *Engine) end(ctx context.Context, op, id string, event Event, in agreement.State, how Ending) (Record, error) {
	return e.change(ctx, op, id, func(b *batch, d *draft) error {
		if d.rec.State == in {
			return nil
		}
		return b.step(op, d, event, how)
	})
}

// expire does what the time of an agreement asks for, if it has come.
func (b *batch) expire(op, id string) error {
	d, err := b.existing(op, id)
	if err != nil || d.rec.Final() {
		return err
	}
	at := d.rec.due()
	if at.IsZero() || at.After(b.now) {
		return nil
	}
	reason := "its time has come"
	if d.rec.Awaiting() && at.Equal(d.rec.Prepared) {
		reason = "it was not confirmed in time"
	}
	return b.step(op, d, Expired, Ending{Reason: reason})
}

// Update lets fn change what those who act on an agreement keep with it: Jobs, Notes, Owed, the
// guarantees, services and detail of its plan, and lines of its history (Tell). What else fn
// changes is not kept. fn may be called several times, each time with what is there by then, and
// must not wait for anything; its error ends the Update. It may change an agreement that has
// ended, but not what was settled.
func (e *Engine) Update(ctx context.Context, id string, fn func(*Record) error) (Record, error) {
	const op = "engine.Update"
	return e.change(ctx, op, id, func(b *batch, d *draft) error {
		was := d.rec
		c := was.clone()
		if err := fn(c); err != nil {
			return err
		}
		r := was.clone()
		r.Jobs, r.Notes, r.Owed, r.History = c.Jobs, c.Notes, c.Owed, c.History
		if r.Plan != nil && c.Plan != nil {
			r.Plan.Guarantees, r.Plan.Services, r.Plan.Detail = c.Plan.Guarantees, c.Plan.Services, c.Plan.Detail
		}
		if len(r.History) > MaxHistory || len(r.History) < min(len(was.History), MaxHistory) {
			return fail.Errorf(op, fail.Internal, id, "the history of the agreement %s only grows, by Tell", id)
		}
		for _, m := range r.Notes {
			if !json.Valid(m) {
				return fail.Errorf(op, fail.Invalid, id, "a note of the agreement %s is no JSON", id)
			}
		}
		r.Changed = b.now
		return b.set(d, r)
	})
}
