package negotiator

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Negotiate answers offers. An advisory offer is answered by advisory ones, of which
// nothing is more than a guess; one that is solicited, or acceptable to its sender, by
// quotes: acceptable offers that are good until their ExpirationTime, and no longer than
// the capacity is there unless it is held. Where an offer can't be kept as it is, the
// answers differ from it within its constraints; where there is none, it is rejected and
// told why. An offer that comes again, with the same id, has the same answers.
func (n *Negotiator) Negotiate(ctx context.Context, key string, offers []agreement.NegotiationOffer) ([]agreement.NegotiationOffer, error) {
	const op = "negotiator.Negotiate"
	var answers []agreement.NegotiationOffer
	err := again(op, func() error {
		i, err := n.open(ctx, op, key)
		if err != nil {
			return err
		}
		r := &round{n: n, i: i, until: n.now().Add(n.opts.MaxTime)}
		err = r.negotiate(ctx, offers)
		if err == nil && r.changed {
			i.Rounds++
			err = n.save(ctx, i)
		}
		if err != nil {
			for _, o := range r.held {
				if !fail.Is(err, fail.Uncertain) { // else it may be given, when the offer comes again
					n.release(context.WithoutCancel(ctx), o, "the quote was not given")
				}
			}
			return err
		}
		r.release(ctx)
		answers = r.answers
		return nil
	})
	return answers, err
}

// Advertise takes offers into the negotiation and answers none.
func (n *Negotiator) Advertise(ctx context.Context, key string, offers []agreement.NegotiationOffer) error {
	const op = "negotiator.Advertise"
	return again(op, func() error {
		i, err := n.open(ctx, op, key)
		if err != nil {
			return err
		}
		r := &round{n: n, i: i}
		for k := range offers {
			if _, _, err := r.take(&offers[k]); err != nil {
				return err
			}
		}
		if !r.changed {
			return nil
		}
		i.Rounds++
		if err := n.save(ctx, i); err != nil {
			return err
		}
		r.release(ctx)
		return nil
	})
}

// release lets go what is held for quotes that were rejected.
func (r *round) release(ctx context.Context) {
	for _, o := range r.ended {
		r.n.release(ctx, o, "the quote was rejected")
	}
}

// round is one call.
type round struct {
	n       *Negotiator
	i       *instance
	answers []agreement.NegotiationOffer
	changed bool
	held    []*offer // quotes for which capacity is held since
	ended   []*offer // quotes that were rejected
	tried   int
	until   time.Time // no longer is looked for counter offers
}

func (r *round) negotiate(ctx context.Context, offers []agreement.NegotiationOffer) error {
	for k := range offers {
		if k > 0 && r.n.now().After(r.until) {
			return agreement.Refuse(agreement.NoCapacity, fmt.Sprintf("%d offers take longer to answer than is given to one call, which is %s; send fewer at once, with simpler constraints", len(offers), r.n.opts.MaxTime))
		}
		o, fresh, err := r.take(&offers[k])
		if err != nil {
			return err
		}
		switch {
		case !fresh:
			err = r.repeat(o)
		case o.OfferContext.State != agreement.OfferRejected:
			err = r.answer(ctx, o)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func wrong(format string, args ...any) error {
	return agreement.Refuse(agreement.WrongState, fmt.Sprintf(format, args...))
}

// take puts an offer of the initiator's into the tree; fresh is false where it is there
// already.
func (r *round) take(o *agreement.NegotiationOffer) (taken *agreement.NegotiationOffer, fresh bool, err error) {
	opts, now := &r.n.opts, r.n.now()
	c := *o
	x := &c.OfferContext
	if c.OfferID != "" {
		if old := r.i.offer(c.OfferID); old != nil {
			if old.Mine || !bytes.Equal(old.Document, xmldoc.Marshal(c.Encode())) {
				return nil, false, wrong("there is another offer with the id %q in this negotiation; give each an id of its own", c.OfferID)
			}
			return &c, false, nil
		}
	} else {
		c.OfferID = r.fresh("offer")
	}
	if len(c.OfferID) > maxOfferID {
		return nil, false, wrong("the offer's id has %d bytes; it may have %d", len(c.OfferID), maxOfferID)
	}
	switch {
	case x.Creator != agreement.NegotiationInitiator:
		return nil, false, wrong("the offer %q says that its Creator is the %s; you are the %s", c.OfferID, x.Creator, agreement.NegotiationInitiator)
	case !x.ExpirationTime.IsZero() && !x.ExpirationTime.After(now):
		return nil, false, agreement.Refuse(agreement.Expired, fmt.Sprintf("the offer %q expired at %s; set a later ExpirationTime", c.OfferID, moment(x.ExpirationTime)))
	case r.i.Rounds >= opts.MaxRounds:
		return nil, false, agreement.Refuse(agreement.NoCapacity, fmt.Sprintf("the negotiation has had %d rounds, as many as it may; take what was offered, or initiate another", opts.MaxRounds))
	}
	kept := &offer{ID: c.OfferID, Depth: 1, State: x.State, Expires: x.ExpirationTime}
	before := r.i.offer(x.CounterOfferTo)
	switch {
	case before == nil && x.CounterOfferTo != "" && x.CounterOfferTo != c.Context.TemplateID:
		return nil, false, wrong("the offer %q answers the offer %q, which is not in this negotiation; a first offer has the id of its template, %q, or nothing as CounterOfferTo", c.OfferID, x.CounterOfferTo, c.Context.TemplateID)
	case before != nil && !before.Mine:
		return nil, false, wrong("the offer %q answers your own offer %q; answer one that was made to you, or none", c.OfferID, before.ID)
	case before != nil && !before.Expires.IsZero() && !before.Expires.After(now):
		return nil, false, agreement.Refuse(agreement.Expired, fmt.Sprintf("the offer %q answers %q, which expired at %s; begin again with an offer that answers none", c.OfferID, before.ID, moment(before.Expires)))
	case before == nil && x.State == agreement.OfferRejected:
		return nil, false, wrong("the offer %q rejects nothing: name the offer that you reject as CounterOfferTo", c.OfferID)
	case before != nil:
		kept.To, kept.Depth = before.ID, before.Depth+1
		if kept.Depth > opts.MaxDepth {
			return nil, false, agreement.Refuse(agreement.NoCapacity, fmt.Sprintf("the offer %q would be the %dth that answers the one before; %d may: begin again with an offer that answers none", c.OfferID, kept.Depth, opts.MaxDepth))
		}
		d, err := before.decode()
		if err != nil {
			return nil, false, fail.E("negotiator.Negotiate", fail.Internal, before.ID, err)
		}
		if x.State == agreement.OfferRejected {
			err = d.OfferContext.State.Answer(x.State) // what it says else does not matter
		} else {
			err = c.Follows(d)
		}
		if err != nil {
			return nil, false, err
		}
	}
	if r.rejected(kept.To) {
		return nil, false, wrong("the offer %q answers %q, which you have rejected; begin again with an offer that answers none", c.OfferID, kept.To)
	}
	kept.Document = xmldoc.Marshal(c.Encode())
	if err := r.add(kept); err != nil {
		return nil, false, err
	}
	if x.State == agreement.OfferRejected {
		r.ended = append(r.ended, before)
	}
	return &c, true, nil
}

const maxOfferID = 256

// add puts an offer into the tree, within its bounds.
func (r *round) add(o *offer) error {
	if len(r.i.Offers) >= r.n.opts.MaxOffers {
		return agreement.Refuse(agreement.NoCapacity, fmt.Sprintf("the negotiation would have more than %d offers; take one that was made, or initiate another", r.n.opts.MaxOffers))
	}
	r.i.Offers = append(r.i.Offers, o)
	r.changed = true
	return nil
}

// fresh gives an id that no offer has.
func (r *round) fresh(prefix string) string {
	for k := len(r.i.Offers) + 1; ; k++ {
		if id := prefix + "-" + strconv.Itoa(k); r.i.offer(id) == nil {
			return id
		}
	}
}

// rejected says whether the initiator has rejected an offer of ours.
func (r *round) rejected(id string) bool { return id != "" && r.i.rejected(id) }

func (i *instance) rejected(id string) bool {
	for _, o := range i.Offers {
		if !o.Mine && o.To == id && o.State == agreement.OfferRejected {
			return true
		}
	}
	return false
}

// repeat gives the answers that an offer had.
func (r *round) repeat(o *agreement.NegotiationOffer) error {
	for _, a := range r.i.Offers {
		if !a.Mine || a.To != o.OfferID {
			continue
		}
		d, err := a.decode()
		if err != nil {
			return fail.E("negotiator.Negotiate", fail.Internal, a.ID, err)
		}
		r.answers = append(r.answers, *d)
	}
	return nil
}

// answer makes counter offers to an offer.
func (r *round) answer(ctx context.Context, o *agreement.NegotiationOffer) error {
	s := &search{n: r.n, i: r.i, offer: o, until: r.until, left: min(r.n.opts.MaxTries, max(1, maxRoundTries-r.tried))}
	found, why, err := s.search(ctx)
	r.tried += s.tried
	if err != nil {
		return err
	}
	if len(found) == 0 {
		c := *o
		c.OfferContext = agreement.OfferContext{State: agreement.OfferRejected, Detail: agreement.Why(fail.Sentence(why))}
		return r.counter(o, &c, &offer{})
	}
	now := r.n.now()
	for k := range found {
		f := &found[k]
		c := agreement.NegotiationOffer{Agreement: f.offer.Agreement, Constraints: o.Constraints}
		q := agreement.Quote{Start: f.start(), End: f.end(), Unit: r.n.opts.Unit}
		if q.Price = strconv.FormatFloat(float64(f.plan.Price)/1000, 'f', -1, 64); f.plan.Price == 0 {
			q.Price, q.Unit = "", ""
		}
		kept := &offer{}
		c.OfferContext.State = agreement.Advisory
		if o.OfferContext.State != agreement.Advisory {
			c.OfferContext.State = agreement.Acceptable
			until := now.Add(r.n.opts.Quote)
			for _, t := range []time.Time{r.i.Expires, f.proposal.ExpirationTime} {
				if !t.IsZero() && t.Before(until) {
					until = t
				}
			}
			if until = until.Truncate(time.Second); !until.After(now) {
				until = r.i.Expires
			}
			c.OfferContext.ExpirationTime = until
			kept.Agreement = r.n.opts.NewID()
			if k == 0 {
				if kept.Held, err = r.hold(ctx, f, kept.Agreement, until); err != nil {
					return err
				}
			}
			q.Held = kept.Held
		}
		c.OfferContext.Detail = q.Element()
		if kept.Held {
			r.held = append(r.held, kept)
		}
		if err := r.counter(o, &c, kept); err != nil {
			return err
		}
	}
	return nil
}

// maxRoundTries bounds the changed offers that are tried for all offers of a call.
const maxRoundTries = 400

// counter adds a counter offer to the tree and to the answers.
func (r *round) counter(o, c *agreement.NegotiationOffer, kept *offer) error {
	c.ID, c.OfferID = "", r.fresh("counter")
	c.OfferContext.CounterOfferTo, c.OfferContext.Creator = o.OfferID, agreement.NegotiationResponder
	kept.ID, kept.To, kept.Mine = c.OfferID, o.OfferID, true
	kept.Depth = r.i.offer(o.OfferID).Depth + 1
	kept.State, kept.Expires, kept.Document = c.OfferContext.State, c.OfferContext.ExpirationTime, xmldoc.Marshal(c.Encode())
	if err := r.add(kept); err != nil {
		return err
	}
	r.answers = append(r.answers, *c)
	return nil
}

// hold has capacity held for a quote, where the policy lets it and there may be one more.
func (r *round) hold(ctx context.Context, f *found, id string, until time.Time) (bool, error) {
	if r.i.Agreement != "" || !r.n.opts.Hold(ctx) {
		return false, nil
	}
	now, held := r.n.now(), 0
	for _, o := range r.i.Offers {
		if o.Held && o.Expires.After(now) && !r.i.rejected(o.ID) {
			held++
		}
	}
	if held >= r.n.opts.MaxHeld {
		return false, nil
	}
	p := f.proposal
	p.ID, p.Prepared, p.Pending, p.Replaces, p.Reason = id, until, false, "", "held for a quote"
	_, err := r.n.engine.Propose(ctx, p)
	switch {
	case fail.Is(err, fail.Exhausted): // somebody was faster
		return false, nil
	case err != nil:
		return false, err
	}
	return true, nil
}
