package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/calendar"
	"github.com/portolan-project/portolan/internal/fail"
)

// NoRoom is the error of a plan for which there is no room; its kind is fail.Exhausted.
type NoRoom struct {
	// Earliest is when the first of the plans could begin, as things are; zero: not within the
	// horizon.
	Earliest time.Time
	Pool     string // where the room is lacking
	Lack     string // of what there is no room, for a person
	Sentence string // that, and from when on there is
	id, op   string
}

// Error implements error.
func (e *NoRoom) Error() string { return e.Unwrap().Error() }

// Unwrap gives it as one of the kinds that all know.
func (e *NoRoom) Unwrap() error {
	return fail.Errorf(e.op, fail.Exhausted, e.id, "%s", e.Sentence)
}

// Propose decides an offer and makes the answer durable: the agreement that it gives is written,
// together with what is held for it, over all replicas. The same proposal again gives the same
// agreement, in the state that it has by then; another of the same id is fail.Conflict. Where no
// plan has room the error is a *NoRoom and nothing is written; where the VO's budget does not
// suffice it is fail.Exhausted. After fail.Uncertain the same proposal may be made again.
func (e *Engine) Propose(ctx context.Context, p Proposal) (Record, error) {
	const op = "engine.Propose"
	if err := p.check(); err != nil {
		return Record{}, err
	}
	digest := p.digest()
	var d *draft
	err := e.do(ctx, op, func(b *batch) (err error) {
		d, err = b.propose(op, &p, digest)
		return err
	})
	return d.result(err)
}

// result gives the agreement that a transaction made.
func (d *draft) result(err error) (Record, error) {
	if err != nil {
		return Record{}, err
	}
	return *d.rec.clone(), nil
}

func (b *batch) propose(op string, p *Proposal, digest string) (*draft, error) {
	d := b.fresh(p.ID)
	if r := d.rec; r != nil {
		if r.Owner != p.Owner || r.Digest != digest {
			return d, fail.Errorf(op, fail.Conflict, p.ID, "the id %s belongs to another agreement", p.ID)
		}
		return d, nil
	}
	switch {
	case d.dirty:
		return d, fail.Errorf(op, fail.Unavailable, p.ID, "an agreement of the id %s is being removed; try again", p.ID)
	case !p.ExpirationTime.IsZero() && !p.ExpirationTime.After(b.now):
		return d, fail.Errorf(op, fail.Invalid, p.ID, "the agreement would have expired at %s, which has passed", p.ExpirationTime.UTC().Format(time.RFC3339))
	case !p.Prepared.IsZero() && !p.Prepared.After(b.now):
		return d, fail.Errorf(op, fail.Invalid, p.ID, "the agreement was to be confirmed by %s, which has passed", p.Prepared.UTC().Format(time.RFC3339))
	case p.Prepared.After(b.now.Add(b.e.opts.Horizon)):
		return d, fail.Errorf(op, fail.Invalid, p.ID, "nothing is held until %s without being confirmed; the latest is %s", p.Prepared.UTC().Format(time.RFC3339), b.now.Add(b.e.opts.Horizon).Format(time.RFC3339))
	case !p.Prepared.IsZero() && p.Pending:
		return d, fail.Errorf(op, fail.Invalid, p.ID, "an agreement waits for a decision or to be confirmed, not for both")
	case len(b.e.live)+b.created() >= b.e.opts.MaxLive:
		return d, fail.Errorf(op, fail.Exhausted, p.ID, "there are %d agreements that have not ended, as many as may be; end some first", b.e.opts.MaxLive)
	}
	plans, err := b.e.opts.plans(op, p.ID, p.Alternatives, b.now)
	if err != nil {
		return d, err
	}
	if p.Replaces != "" {
		if err := b.replace(op, p); err != nil {
			return d, err
		}
	}
	r := &Record{
		ID: p.ID, Owner: p.Owner, VO: p.VO, Domain: p.Domain, Name: p.Name, TemplateID: p.TemplateID, TemplateName: p.TemplateName,
		Digest: digest, State: agreement.Observed, Reason: p.Reason, Created: b.now, ExpirationTime: p.ExpirationTime.UTC(), Prepared: p.Prepared.UTC(), Replaces: p.Replaces,
	}
	event := string(Accepted)
	if p.Pending || !p.Prepared.IsZero() {
		r.State, event = agreement.Pending, "offered"
	}
	var apart []byte
	if len(p.Document) <= maxInside {
		r.document = p.Document
	} else {
		r.Apart, apart = true, p.Document
	}
	r.Tell(b.now, event, p.Reason)
	if err := b.accept(op, d, r, plans); err != nil {
		return d, err
	}
	d.document = apart
	return d, nil
}

// created counts the agreements that the transaction makes.
func (b *batch) created() int {
	n := 0
	for _, d := range b.drafts {
		if d.dirty && d.base == 0 {
			n++
		}
	}
	return n
}

// replace ends the agreement that a proposal is to stand for.
func (b *batch) replace(op string, p *Proposal) error {
	if p.Replaces == p.ID {
		return fail.Errorf(op, fail.Invalid, p.ID, "the agreement %s can't replace itself", p.ID)
	}
	old, err := b.existing(op, p.Replaces)
	if err != nil {
		return err
	}
	if old.rec.Owner != p.Owner {
		return notFound(op, p.Replaces)
	}
	if s := old.rec.State; s != agreement.Observed {
		return fail.Errorf(op, fail.Conflict, p.Replaces, "the agreement %s is %s; only one that is %s can be replaced", p.Replaces, s, agreement.Observed)
	}
	if err := b.e.Replaceable(old.rec); err != nil {
		return err
	}
	reason := "replaced by " + p.ID
	if err := b.step(op, old, Asked, Ending{Reason: reason}); err != nil {
		return err
	}
	return b.step(op, old, Terminated, Ending{Reason: reason})
}

// Replaceable says why an agreement that is Observed can't be replaced; nil is that it can.
func (e *Engine) Replaceable(r *Record) error {
	if e.opts.Replaceable == nil {
		return nil
	}
	return e.opts.Replaceable(r)
}

// accept writes the agreement with the first of the plans for which there is room and money;
// with none given it holds nothing.
func (b *batch) accept(op string, d *draft, r *Record, plans []Plan) error {
	if len(plans) == 0 {
		return b.set(d, r)
	}
	horizon := b.now.Add(b.e.opts.Horizon)
	var refused error
	full := true // nothing but room is lacking
	for i, p := range plans {
		for _, h := range p.Holds {
			b.pool(h.Pool)
		}
		if err := b.crowded(op, r.ID, p.Holds); err != nil {
			refused, full = err, false
			continue
		}
		limit := time.Duration(0)
		if !p.StartBy.IsZero() {
			limit = max(0, p.StartBy.Sub(p.start()))
		}
		shift, ok := b.e.book.Earliest(p.Holds, limit, horizon)
		if !ok {
			continue
		}
		c := r.clone()
		plan := p
		plan.Holds = slices.Clone(p.Holds)
		for k, h := range plan.Holds {
			plan.Holds[k] = h.Shift(shift)
		}
		c.Plan, c.Alternative = &plan, i
		err := b.set(d, c)
		if err == nil {
			return nil
		}
		if !fail.Is(err, fail.Exhausted) {
			return err
		}
		refused, full = err, false
	}
	if !full {
		return refused
	}
	return b.noRoom(op, r.ID, plans)
}

// noRoom says when there would be room for one of the plans.
func (b *batch) noRoom(op, id string, plans []Plan) error {
	e := &NoRoom{op: op, id: id}
	horizon := b.now.Add(b.e.opts.Horizon)
	for _, p := range plans {
		if e.Pool == "" {
			e.Pool = b.e.book.Lacking(p.Holds)
			e.Lack = "there is no room for " + describe(p.Holds, e.Pool)
			if !p.StartBy.IsZero() {
				e.Lack += ", beginning by " + p.StartBy.UTC().Format(time.RFC3339)
			}
		}
		if shift, ok := b.e.book.Earliest(p.Holds, b.e.opts.Horizon, horizon); ok {
			if at := p.start().Add(shift); e.Earliest.IsZero() || at.Before(e.Earliest) {
				e.Earliest = at
			}
		}
	}
	if e.Earliest.IsZero() {
		e.Sentence = e.Lack + "; nor is there before " + horizon.UTC().Format(time.RFC3339) + ": ask for less, or for another place"
	} else {
		e.Sentence = e.Lack + "; there is from " + e.Earliest.Format(time.RFC3339) + " on"
	}
	return e
}

// describe says what is asked for of a pool.
func describe(holds []calendar.Hold, pool string) string {
	i := slices.IndexFunc(holds, func(h calendar.Hold) bool { return h.Pool == pool })
	h := holds[max(i, 0)]
	var parts []string
	for _, a := range []struct {
		n          int64
		one, other string
	}{{h.Slots, "slot", "slots"}, {h.CPUs, "CPU", "CPUs"}, {h.Nodes, "node", "nodes"}} {
		switch {
		case a.n == 1:
			parts = append(parts, "1 "+a.one)
		case a.n > 1:
			parts = append(parts, fmt.Sprintf("%d %s", a.n, a.other))
		}
	}
	return fmt.Sprintf("%s of %s from %s until %s", strings.Join(parts, " and "), h.Pool, h.From.Format(time.RFC3339), h.Until.Format(time.RFC3339))
}

// crowded refuses holds where a pool has as many as may be.
func (b *batch) crowded(op, id string, holds []calendar.Hold) error {
	for _, h := range holds {
		p := b.e.of(h.Pool)
		if p.count+len(holds) <= b.e.opts.MaxHolds {
			continue
		}
		if n := b.e.current(h.Pool, b.now); n+len(holds) > b.e.opts.MaxHolds {
			return fail.Errorf(op, fail.Exhausted, id, "%d reservations of %s are not over yet, and %d may be; try again when some are", n, h.Pool, b.e.opts.MaxHolds)
		}
	}
	return nil
}

// current counts the holds of a pool that are not over. e.mu is held.
func (e *Engine) current(pool string, now time.Time) int {
	p := e.of(pool)
	over := p.over
	if !now.Before(p.sweep) {
		over, p.sweep = 0, now.Add(e.opts.Horizon)
		for _, r := range e.live {
			for _, h := range r.holds() {
				switch {
				case h.Pool != pool:
				case !h.Until.After(now):
					over++
				case h.Until.Before(p.sweep):
					p.sweep = h.Until
				}
			}
		}
		p.over = over
		p.profile.Forget(now)
	}
	return p.count - over
}

// Quote says which plan would be accepted now, and how it would be put off; nothing is written,
// and nothing is promised. The errors are those of Propose.
func (e *Engine) Quote(ctx context.Context, vo string, plans []Plan) (Plan, int, error) {
	const op = "engine.Quote"
	var plan *Plan
	index := 0
	undone := errors.New("not to be written")
	err := e.do(ctx, op, func(b *batch) error {
		checked, err := b.e.opts.plans(op, "", plans, b.now)
		if err != nil {
			return err
		}
		d := &draft{}
		if err := b.accept(op, d, &Record{VO: vo, State: agreement.Observed}, checked); err != nil {
			return err
		}
		plan, index = d.rec.Plan, d.rec.Alternative
		return undone
	})
	if !errors.Is(err, undone) {
		return Plan{}, 0, err
	}
	if plan == nil {
		return Plan{}, 0, nil
	}
	return *plan, index, nil
}

// Decision is how a pending agreement is decided.
type Decision struct {
	Accept bool
	Reason string
	// Alternatives are tried as those of a Proposal, in place of what is held already; none:
	// that stays.
	Alternatives []Plan
}

// Decide accepts or rejects an agreement that is Pending. Where no plan has room the error is
// as that of Propose, and it stays Pending. The same decision again changes nothing.
func (e *Engine) Decide(ctx context.Context, id string, how Decision) (Record, error) {
	const op = "engine.Decide"
	return e.change(ctx, op, id, func(b *batch, d *draft) error {
		if !how.Accept {
			if d.rec.State == agreement.Rejected {
				return nil
			}
			return b.step(op, d, Refused, Ending{Reason: how.Reason})
		}
		switch {
		case d.rec.State == agreement.Observed:
			return nil
		case d.rec.Awaiting():
			return fail.Errorf(op, fail.Conflict, id, "the agreement %s waits to be confirmed", id)
		}
		if err := b.step(op, d, Accepted, Ending{Reason: how.Reason}); err != nil {
			return err
		}
		return b.replan(op, d, how.Alternatives)
	})
}

// Replan replaces what is held for an agreement, in one transaction: what it held counts as
// free. Where no plan has room the error is as that of Propose, and all stays as it is.
func (e *Engine) Replan(ctx context.Context, id, reason string, plans []Plan) (Record, error) {
	const op = "engine.Replan"
	return e.change(ctx, op, id, func(b *batch, d *draft) error {
		if d.rec.Final() {
			return fail.Errorf(op, fail.Conflict, id, "the agreement is %s, and that is final", d.rec.State)
		}
		r := d.rec.clone()
		r.Tell(b.now, "replanned", reason)
		if err := b.set(d, r); err != nil {
			return err
		}
		return b.replan(op, d, plans)
	})
}

func (b *batch) replan(op string, d *draft, plans []Plan) error {
	if len(plans) == 0 {
		return nil
	}
	checked, err := b.e.opts.plans(op, d.rec.ID, plans, b.now)
	if err != nil {
		return err
	}
	r := d.rec.clone()
	r.Plan, r.Alternative = nil, 0
	if err := b.set(d, r); err != nil {
		return err
	}
	return b.accept(op, d, r, checked)
}

// Confirm makes an agreement that was prepared binding. Again, it changes nothing. When the time
// for it has passed, or it was aborted, that is fail.Conflict.
func (e *Engine) Confirm(ctx context.Context, id string) (Record, error) {
	const op = "engine.Confirm"
	return e.change(ctx, op, id, func(b *batch, d *draft) error {
		r := d.rec
		switch {
		case !r.Confirmed.IsZero():
			return nil
		case r.Prepared.IsZero():
			return fail.Errorf(op, fail.Conflict, id, "the agreement %s was not prepared; there is nothing to confirm", id)
		case r.State == agreement.Pending && !r.Prepared.After(b.now):
			return fail.Errorf(op, fail.Conflict, id, "the agreement %s was to be confirmed by %s, which has passed", id, r.Prepared.UTC().Format(time.RFC3339))
		}
		if err := b.step(op, d, Accepted, Ending{Reason: "confirmed"}); err != nil {
			return err
		}
		c := d.rec.clone()
		c.Confirmed = b.now
		return b.set(d, c)
	})
}

// Abort ends an agreement that was prepared and not confirmed. Again, it changes nothing. When
// it was confirmed already that is fail.Conflict.
func (e *Engine) Abort(ctx context.Context, id, reason string) (Record, error) {
	const op = "engine.Abort"
	return e.change(ctx, op, id, func(b *batch, d *draft) error {
		switch r := d.rec; {
		case r.State == agreement.Rejected:
			return nil
		case r.Prepared.IsZero() || !r.Confirmed.IsZero():
			return fail.Errorf(op, fail.Conflict, id, "the agreement %s is binding already; it can be terminated", id)
		}
		return b.step(op, d, Refused, Ending{Reason: reason})
	})
}
