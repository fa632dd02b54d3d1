package negotiator

import (
	"context"
	"fmt"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
)

// Bind makes an agreement of what was quoted: CreateAgreement with a NegotiationExtension
// of one of our negotiations. The offer must be the quote's. Where capacity is held for
// it, that agreement is confirmed, and where it replaces another, both change in one
// transaction: then handled is true and key the agreement's. Where it is false without an
// error, the offer is to be decided as any other. The same request again gives the same
// agreement.
func (n *Negotiator) Bind(ctx context.Context, x *agreement.NegotiationExtension, req *agreement.CreateRequest) (key string, handled bool, err error) {
	const op = "negotiator.Bind"
	if x.OfferContext.State == agreement.OfferRejected {
		return "", false, wrong("the NegotiationOfferContext of the request says that its offer is %s; send the one that you take as %s, or none", agreement.OfferRejected, agreement.Acceptable)
	}
	if x.ResponderEPR == nil {
		if x.Critical {
			return "", false, wrong("the extension is critical where it stands and has no ResponderNegotiationEPR, so that it relates to nothing; send the one of the negotiation, or put the extension into a NoncriticalExtension")
		}
		return "", false, nil // it relates to nothing
	}
	id, ok := agreement.NegotiationKeyOf(*x.ResponderEPR)
	if !ok {
		return "", false, wrong("the ResponderNegotiationEPR names no negotiation of this gateway; send it as it was given")
	}
	i, err := n.find(ctx, op, id)
	switch {
	case fail.Is(err, fail.NotFound): // the agreement's factory is there, so that it is no unknown resource
		return "", false, agreement.Refuse(agreement.Expired, fail.Sentence(err))
	case err != nil:
		return "", false, err
	}
	if err := i.related(x); err != nil {
		return "", false, err
	}
	quote, err := n.quoted(ctx, i, x, req)
	if err != nil {
		return "", false, err
	}
	if i.Agreement != "" {
		return n.replace(ctx, i, quote, req)
	}
	if quote.Held {
		r, err := n.engine.Confirm(ctx, quote.Agreement)
		switch {
		case err == nil:
			return r.ID, true, nil
		case !fail.Is(err, fail.Conflict) && !fail.Is(err, fail.NotFound):
			return "", false, err
		}
		// It is held no more: then the offer is one like others.
	}
	return "", false, nil
}

// related refuses an extension that is not as the negotiation is.
func (i *instance) related(x *agreement.NegotiationExtension) error {
	if x.AgreementEPR == nil {
		if i.Agreement != "" {
			return wrong("the negotiation %s is about the agreement %s, which the new one is to replace; send a RenegotiationExtension", i.ID, i.Agreement)
		}
		return nil
	}
	if key, ok := agreement.KeyOf(*x.AgreementEPR); !ok || key != i.Agreement {
		return wrong("the RenegotiationExtension names another agreement than the negotiation %s was about", i.ID)
	}
	return nil
}

// quoted finds the quote that an offer takes: the counter offer that the extension names,
// or one to the offer that it names, and refuses what is none, is over or is another offer.
func (n *Negotiator) quoted(ctx context.Context, i *instance, x *agreement.NegotiationExtension, req *agreement.CreateRequest) (*offer, error) {
	to := x.OfferContext.CounterOfferTo
	var refused error
	for _, o := range i.Offers {
		if !o.Mine || o.ID != to && o.To != to {
			continue
		}
		switch {
		case o.State != agreement.Acceptable:
			refused = wrong("the counter offer %q is %s; only one that is %s can be taken: solicit one", o.ID, o.State, agreement.Acceptable)
		case i.rejected(o.ID):
			refused = wrong("the counter offer %q was rejected by you; negotiate anew", o.ID)
		case !o.Expires.After(n.now()) && !n.made(ctx, i, o):
			refused = agreement.Refuse(agreement.Expired, fmt.Sprintf("the counter offer %q expired at %s; solicit another", o.ID, moment(o.Expires)))
		default:
			err := o.takes(&req.Offer)
			if err == nil {
				return o, nil
			}
			refused = err
		}
	}
	if refused == nil {
		refused = wrong("there is no counter offer %q in the negotiation %s; name the one that you take as CounterOfferTo", to, i.ID)
	}
	return nil, refused
}

// made says whether a quote is an agreement already.
func (n *Negotiator) made(ctx context.Context, i *instance, o *offer) bool {
	if i.Agreement == "" && !o.Held {
		return false
	}
	r, err := n.engine.Get(ctx, o.Agreement)
	return err == nil && (!o.Held || !r.Confirmed.IsZero())
}

// takes refuses an offer that is not what was quoted.
func (o *offer) takes(got *agreement.Offer) error {
	d, err := o.decode()
	if err != nil {
		return fail.E("negotiator.Bind", fail.Internal, o.ID, err)
	}
	t := agreement.Template{Agreement: d.Agreement}
	t.ID = ""
	c, err := t.Compile()
	if err != nil {
		return fail.E("negotiator.Bind", fail.Internal, o.ID, err)
	}
	// Both sides as they are written here: a time has many zones and a number many forms.
	broken := c.CheckStrictly(&agreement.Offer{Agreement: got.Agreement})
	same := d.Context.ExpirationTime.Equal(got.Context.ExpirationTime) && d.Context.TemplateID == got.Context.TemplateID && d.Context.TemplateName == got.Context.TemplateName
	if len(broken) == 0 && same {
		return nil
	}
	r := agreement.Refuse(agreement.NotCompliant, fmt.Sprintf("the offer is not what the counter offer %q quoted: send it with that one's terms and context as they are, or leave the NegotiationExtension out", o.ID))
	for _, b := range broken {
		r.Sentences = append(r.Sentences, b.Sentence)
	}
	if len(broken) == 0 {
		r.Sentences = append(r.Sentences, "its ExpirationTime or its template differs")
	}
	return r
}

// replace makes the agreement that replaces the one which was renegotiated (N6).
func (n *Negotiator) replace(ctx context.Context, i *instance, quote *offer, req *agreement.CreateRequest) (string, bool, error) {
	if r, err := n.engine.Get(ctx, quote.Agreement); err == nil && r.Owner == i.Owner {
		return r.ID, true, nil // it was made, and the answer lost
	} else if err != nil && !fail.Is(err, fail.NotFound) {
		return "", false, err
	}
	p, err := n.planner.Plan(ctx, &req.Offer)
	if err != nil {
		return "", false, err
	}
	p.ID, p.Replaces, p.Pending = quote.Agreement, i.Agreement, false
	r, err := n.engine.Propose(ctx, p)
	if err != nil {
		return "", false, err
	}
	return r.ID, true, nil
}
