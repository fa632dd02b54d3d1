package together

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// How long is waited before something is tried again: twice as long each time.
const (
	soon = 100 * time.Millisecond
	slow = 15 * time.Second
)

// drive moves a coordination on until it has ended or ctx has. fresh says that it was begun by
// this process, which may prepare it then.
func (c *Coordinator) drive(ctx context.Context, r *Record, fresh bool) {
	for r != nil && !r.State.Final() && ctx.Err() == nil {
		switch r.State {
		case Preparing:
			if fresh {
				fresh = false
				r = c.prepare(ctx, r)
				continue
			}
			r = c.turn(ctx, r, func(*Record, time.Time) (Event, string) {
				return Interrupted, "the gateway that prepared it ended before it was decided"
			})
		case Committing:
			r = c.confirm(ctx, r)
		case Aborting, Compensating, Dissolving:
			r = c.undo(ctx, r)
		case Committed, Aborted, RolledBack, Unsettled, Dissolved:
		}
	}
}

// turn writes what how makes of a record, and gives what is there then: that, or what another
// wrote meanwhile. how is called anew for each try, with the time. Nil: ctx has ended, or the
// record is gone.
func (c *Coordinator) turn(ctx context.Context, r *Record, how func(*Record, time.Time) (Event, string)) *Record {
	for wait := soon; ctx.Err() == nil; {
		n := r.clone()
		now := c.now()
		event, reason := how(n, now)
		if err := n.step(now, event, reason); err != nil {
			c.opts.Log.Error("a coordination took a wrong turn", "coordination", r.ID, "cause", err)
			return nil
		}
		n.By = c.opts.Replica
		changes := []store.RecordChange{{Key: stateKey(r.ID), Value: n.encode(), If: r.Revision}}
		if n.State.Final() {
			changes = append(changes, store.RecordChange{Key: offersKey(r.ID), If: -1})
		}
		revision, err := c.st.PutRecords(ctx, nil, changes...)
		if err == nil {
			n.Revision = revision
			return n
		}
		there, err2 := c.read(ctx, r.ID)
		switch {
		case err2 != nil:
			err = err2
		case there == nil || there.Revision != r.Revision:
			return there
		}
		if ctx.Err() == nil {
			c.opts.Log.Warn("a step of a coordination can't be written yet", "coordination", r.ID, "event", string(event), "cause", err)
		}
		pause(ctx, wait)
		wait = min(2*wait, slow)
	}
	return nil
}

// each calls do for all parts in one of the states, at once as far as lanes let it, and gives what became of them. A
// part whose error is not nil stays as it is.
func (c *Coordinator) each(ctx context.Context, kind errand, parts []PartOutcome, do func(ctx context.Context, i int, p *PartOutcome) error, states ...PartState) (errs []error) {
	errs = make([]error, len(parts))
	r := Record{Parts: parts}
	if !r.any(states...) {
		return errs
	}
	var wg sync.WaitGroup
	for i := range parts {
		for _, s := range states {
			if parts[i].State != s {
				continue
			}
			wg.Go(func() {
				timeout := c.opts.Timeout
				if kind == preparing { // managers of sites may take their time; what was lost is sent again, once at least
					if last, ok := ctx.Deadline(); ok {
						timeout = max(timeout, time.Until(last)/2)
					}
				}
				errs[i] = c.ask(ctx, kind, parts[i].Provider, timeout, func(ctx context.Context) error { return do(ctx, i, &parts[i]) })
			})
			break
		}
	}
	wg.Wait()
	return errs
}

// ask asks a provider for something, when it is its turn.
func (c *Coordinator) ask(ctx context.Context, kind errand, provider string, timeout time.Duration, do func(context.Context) error) error {
	leave, err := c.lanes.enter(ctx, kind, provider)
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return do(ctx)
}

// Definite says that an error of a provider tells that what was asked for did not happen, and
// that asking again won't help.
func Definite(err error) bool {
	if err == nil {
		return false
	}
	switch fail.KindOf(err) {
	case fail.Invalid, fail.Unsupported, fail.Unauthenticated, fail.Denied, fail.NotFound, fail.Conflict, fail.NotAccepting, fail.Exhausted:
		return true
	case fail.Internal, fail.Unavailable, fail.Uncertain:
	}
	return false
}

// dial reaches a provider that was known before: that it isn't now says nothing of the part.
func (c *Coordinator) dial(ctx context.Context, r *Record, p *PartOutcome) (Provider, error) {
	provider, err := c.opts.Dial(ctx, r.Owner, p.Provider, p.VO)
	if err != nil {
		return nil, fail.Errorf("together.dial", fail.Unavailable, r.ID, "%s", fail.Sentence(err)).Because(err)
	}
	return provider, nil
}

// hold asks a provider to hold a part.
func (c *Coordinator) hold(ctx context.Context, provider Provider, r *Record, offers []agreement.Offer, i int, p *PartOutcome) error {
	key, err := provider.Prepare(ctx, &agreement.CreateRequest{Offer: offers[i]}, r.preparation(i))
	switch {
	case err == nil && (key == "" || len(key) > maxKey):
		return fail.Errorf("together", fail.Unavailable, r.ID, "the provider calls its agreement by a key of %d bytes; 1 to %d are taken", len(key), maxKey)
	case err == nil:
		p.State, p.Agreement, p.Reason = PartPrepared, key, ""
	case Definite(err):
		p.State, p.Reason, p.Kind = PartRefused, cut(fail.Sentence(err)), fail.KindOf(err).String()
		if refusal, ok := errors.AsType[*agreement.Refusal](err); ok {
			p.Earliest, p.Code = refusal.Earliest, refusal.Code
		}
	default:
		return err
	}
	return nil
}

// prepare asks all providers to hold their parts, and decides.
func (c *Coordinator) prepare(ctx context.Context, r *Record) *Record {
	offers, err := c.offers(ctx, r.ID)
	if err != nil || len(offers) != len(r.Parts) {
		c.opts.Log.Warn("the offers of a coordination can't be read", "coordination", r.ID, "cause", err)
		return c.turn(ctx, r, func(*Record, time.Time) (Event, string) {
			return Interrupted, "what was to be offered could not be read"
		})
	}
	parts := r.clone().Parts
	in, cancel := context.WithTimeout(ctx, r.Deadline.Sub(c.now()))
	defer cancel()
	for wait := soon; in.Err() == nil; wait = min(2*wait, slow) {
		errs := c.each(in, preparing, parts, func(ctx context.Context, i int, p *PartOutcome) error {
			provider, err := c.opts.Dial(ctx, r.Owner, p.Provider, p.VO)
			if err != nil {
				if Definite(err) {
					p.State, p.Reason, p.Kind = PartRefused, cut(fail.Sentence(err)), fail.KindOf(err).String()
					return nil
				}
				return err
			}
			return c.hold(ctx, provider, r, offers, i, p)
		}, PartAsked)
		note(parts, errs)
		state := Record{Parts: parts}
		if state.any(PartRefused) || !state.any(PartAsked) {
			break
		}
		pause(in, wait)
	}
	return c.turn(ctx, r, func(n *Record, now time.Time) (Event, string) {
		copy(n.Parts, parts)
		switch {
		case n.any(PartRefused):
			return Refused, n.why(PartRefused, "was refused")
		case n.any(PartAsked):
			return Late, n.why(PartAsked, fmt.Sprintf("was not answered for by %s", n.Deadline.Format(time.RFC3339)))
		case now.After(n.Deadline):
			return Late, fmt.Sprintf("all was prepared, too late: it was to be decided by %s", n.Deadline.Format(time.RFC3339))
		}
		return AllPrepared, ""
	})
}

// note keeps why parts stay as they are.
func note(parts []PartOutcome, errs []error) {
	for i, err := range errs {
		if err != nil {
			parts[i].Reason = cut(fail.Sentence(err))
		}
	}
}

// again calls try until it says that there is nothing left to try, or ctx ends; what it learns
// of the parts is written after each time, so that another can go on from there. try gives the
// event that ends it; "": it is to be called again.
func (c *Coordinator) again(ctx context.Context, r *Record, try func(parts []PartOutcome) (Event, func(*Record) string)) *Record {
	for wait := soon; ctx.Err() == nil; wait = min(2*wait, slow) {
		parts := r.clone().Parts
		event, why := try(parts)
		if event != "" || known(parts, r.Parts) {
			state := r.State
			r = c.turn(ctx, r, func(n *Record, _ time.Time) (Event, string) {
				copy(n.Parts, parts)
				if why == nil {
					return event, ""
				}
				return event, why(n)
			})
			if r == nil || r.State != state {
				return r
			}
		}
		pause(ctx, wait)
	}
	return nil
}

// known says that more is known of some part than was.
func known(parts, were []PartOutcome) bool {
	for i := range parts {
		if parts[i].State != were[i].State || parts[i].Agreement != were[i].Agreement {
			return true
		}
	}
	return false
}

// confirm makes all parts binding.
func (c *Coordinator) confirm(ctx context.Context, r *Record) *Record {
	return c.again(ctx, r, func(parts []PartOutcome) (Event, func(*Record) string) {
		forsaken := make([]bool, len(parts)) // it is not known what they are, and asking won't help
		errs := c.each(ctx, confirming, parts, func(ctx context.Context, i int, p *PartOutcome) error {
			provider, err := c.dial(ctx, r, p)
			if err == nil {
				err = provider.Confirm(ctx, p.Agreement)
			}
			now := c.now()
			switch {
			case err == nil:
				p.State, p.Reason, p.Confirmed = PartConfirmed, "", now
				return nil
			case fail.Is(err, fail.Conflict), isUnknown(err):
				p.State, p.Reason = PartLost, cut(fail.Sentence(err))
				return nil
			case Definite(err) && now.After(r.Until.Add(c.opts.Margin)), now.After(r.Until.Add(c.opts.GiveUp)):
				forsaken[i] = true
			}
			return err
		}, PartPrepared)
		note(parts, errs)
		const what = "could not be confirmed"
		switch state := (Record{Parts: parts}); {
		case state.any(PartLost):
			return Lost, func(n *Record) string { return n.why(PartLost, what) }
		case slices.Contains(forsaken, true):
			return Lost, func(n *Record) string { return n.why(PartPrepared, what) }
		case !state.any(PartPrepared):
			return AllConfirmed, nil
		}
		return "", nil
	})
}

// isUnknown says that a provider does not know the agreement.
func isUnknown(err error) bool { return fail.Is(err, fail.NotFound) }

// undo ends all parts that may be there. Before any was confirmed, all are gone when their time
// is over, even if nobody can be told.
func (c *Coordinator) undo(ctx context.Context, r *Record) *Record {
	offers, err := c.offers(ctx, r.ID)
	if err != nil && ctx.Err() == nil {
		c.opts.Log.Warn("the offers of a coordination can't be read", "coordination", r.ID, "cause", err)
	}
	binding := r.State != Aborting
	giveUp := r.Until
	if r.State == Dissolving {
		giveUp = r.Asked
	}
	giveUp = giveUp.Add(c.opts.GiveUp)
	return c.again(ctx, r, func(parts []PartOutcome) (Event, func(*Record) string) {
		over := c.now().After(r.Until.Add(c.opts.Margin))
		late := c.now().After(giveUp)
		errs := c.each(ctx, ending, parts, func(ctx context.Context, i int, p *PartOutcome) error {
			if over && !binding {
				p.State = PartGone
				return nil
			}
			provider, err := c.dial(ctx, r, p)
			if err == nil && p.Agreement == "" {
				// The answer was lost, or we were: what it would have been is what it is now.
				if len(offers) != len(parts) {
					return fail.Errorf("together", fail.Unavailable, r.ID, "what was offered can't be read")
				}
				if err = c.hold(ctx, provider, r, offers, i, p); err == nil && p.State == PartRefused {
					return nil
				}
			}
			if err == nil {
				err = c.terminate(ctx, provider, r, p)
			}
			if err == nil {
				if p.State != PartLost { // which says more
					p.State = PartGone
				}
				return nil
			}
			if binding && late {
				p.State, p.Reason = PartUnknown, cut(fail.Sentence(err))
				return nil
			}
			return err
		}, PartAsked, PartPrepared, PartConfirmed)
		note(parts, errs)
		switch state := (Record{Parts: parts}); {
		case state.any(PartAsked, PartPrepared, PartConfirmed):
			return "", nil
		case state.any(PartUnknown):
			return GaveUp, nil
		}
		return AllGone, nil
	})
}

// terminate ends a part, whatever its state is.
func (c *Coordinator) terminate(ctx context.Context, provider Provider, r *Record, p *PartOutcome) error {
	reason := etree.NewElement("p:Reason")
	reason.CreateAttr("xmlns:p", agreement.NSPortolan)
	why := "of what was to be agreed on together, all or nothing, there is nothing: " + r.Reason
	if r.State == Dissolving {
		why = "all that was agreed on together is ended: " + r.Reason
	}
	reason.SetText(cut(why))
	err := provider.Terminate(ctx, p.Agreement, reason)
	switch {
	case err == nil || isUnknown(err):
		return nil
	case !fail.Is(err, fail.Conflict):
		return err
	}
	a, err2 := provider.Agreement(ctx, p.Agreement)
	switch {
	case isUnknown(err2):
		return nil
	case err2 != nil:
		return err2
	case a.State.Final(), a.State == agreement.PendingAndTerminating, a.State == agreement.ObservedAndTerminating:
		return nil
	}
	return err
}
