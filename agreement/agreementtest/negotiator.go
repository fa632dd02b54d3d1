package agreementtest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
)

// Negotiator is one in memory: it would accept an offer by Template of up to Most CPUs, and
// answers others by that many where their constraints let it. It holds nothing.
type Negotiator struct {
	Most int              // CPUs; 0 is 16
	Now  func() time.Time // nil is time.Now

	mu    sync.Mutex
	open  map[string]*negotiation
	count int
	told  []agreement.NegotiationOffer
	why   []*etree.Element
}

type negotiation struct {
	owner      string
	properties agreement.NegotiationProperties
	by         map[string]int // OfferID to its place among the offers
}

var _ agreement.Negotiator = (*Negotiator)(nil)

func (n *Negotiator) now() time.Time {
	if n.Now != nil {
		return n.Now()
	}
	return time.Now()
}

// Initiate opens a negotiation of an hour, or as long as is asked for.
func (n *Negotiator) Initiate(ctx context.Context, req *agreement.InitiateRequest) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	x := req.Context
	switch {
	case x.AgreementResponder != agreement.NegotiationResponder:
		return "", agreement.Refuse(agreement.UnsupportedTerm, "the AgreementResponder must be the NegotiationResponder")
	case x.ExpirationTime.IsZero():
		x.ExpirationTime = n.now().Add(time.Hour).UTC().Truncate(time.Second)
	case !x.ExpirationTime.After(n.now()):
		return "", agreement.Refuse(agreement.Expired, "the negotiation would have expired already; set a later ExpirationTime")
	}
	if n.open == nil {
		n.open = map[string]*negotiation{}
	}
	n.count++
	key := fmt.Sprintf("n%07d", n.count)
	n.open[key] = &negotiation{soap.PrincipalFrom(ctx).Name, agreement.NegotiationProperties{Context: x, Templates: []agreement.Template{Template()}}, map[string]int{}}
	return key, nil
}

// find gives a negotiation of the caller; n.mu is held.
func (n *Negotiator) find(ctx context.Context, key string) (*negotiation, error) {
	x := n.open[key]
	if x == nil || x.owner != soap.PrincipalFrom(ctx).Name {
		return nil, fail.Errorf("agreementtest", fail.NotFound, key, "there is no negotiation with that key")
	}
	return x, nil
}

// take adds an offer to a negotiation; n.mu is held.
func (n *Negotiator) take(x *negotiation, o agreement.NegotiationOffer) (agreement.NegotiationOffer, error) {
	if !x.properties.Context.ExpirationTime.After(n.now()) {
		return o, agreement.Refuse(agreement.Expired, "the negotiation has expired; initiate another")
	}
	if _, twice := x.by[o.OfferID]; twice {
		return o, agreement.Refuse(agreement.WrongState, fmt.Sprintf("there is an offer %q already; give each an id of its own", o.OfferID))
	}
	if o.OfferID == "" {
		o.OfferID = "offer-" + strconv.Itoa(len(x.properties.Offers)+1)
	}
	if to := o.OfferContext.CounterOfferTo; to != "" && to != Template().TemplateID {
		i, ok := x.by[to]
		if !ok {
			return o, agreement.Refuse(agreement.WrongState, fmt.Sprintf("there is no offer %q that could be answered", to))
		}
		if err := o.Follows(&x.properties.Offers[i]); err != nil {
			return o, err
		}
	}
	x.by[o.OfferID] = len(x.properties.Offers)
	x.properties.Offers = append(x.properties.Offers, o)
	return o, nil
}

// Negotiate answers each offer once.
func (n *Negotiator) Negotiate(ctx context.Context, key string, offers []agreement.NegotiationOffer) ([]agreement.NegotiationOffer, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	x, err := n.find(ctx, key)
	if err != nil {
		return nil, err
	}
	var answers []agreement.NegotiationOffer
	for _, o := range offers {
		o, err := n.take(x, o)
		if err != nil {
			return nil, err
		}
		if o.OfferContext.State == agreement.OfferRejected {
			continue
		}
		a, err := n.answer(x, o)
		if err != nil {
			return nil, err
		}
		x.by[a.OfferID] = len(x.properties.Offers)
		x.properties.Offers = append(x.properties.Offers, a)
		answers = append(answers, a)
	}
	return answers, nil
}

func (n *Negotiator) answer(x *negotiation, o agreement.NegotiationOffer) (agreement.NegotiationOffer, error) {
	a := o
	a.OfferID = o.OfferID + "/answer"
	a.OfferContext = agreement.OfferContext{CounterOfferTo: o.OfferID, Creator: agreement.NegotiationResponder, State: agreement.Acceptable}
	if o.OfferContext.State == agreement.Advisory {
		a.OfferContext.State = agreement.Advisory
	} else {
		q := agreement.Quote{Price: "2.5"}
		a.OfferContext.ExpirationTime, a.OfferContext.Detail = x.properties.Context.ExpirationTime, q.Element()
	}
	rejected := func(why string) (agreement.NegotiationOffer, error) {
		a = o
		a.OfferID = o.OfferID + "/answer"
		a.OfferContext = agreement.OfferContext{CounterOfferTo: o.OfferID, Creator: agreement.NegotiationResponder, State: agreement.OfferRejected, Detail: agreement.Why(why)}
		return a, nil
	}
	if o.Context.TemplateName != Template().Name {
		return rejected("there is no such template")
	}
	most := n.Most
	if most == 0 {
		most = 16
	}
	free, err := o.Negotiable()
	if err != nil {
		return o, err
	}
	doc := o.Offer()
	e := doc.Encode()
	changes, err := free.Changeables(e)
	if err != nil {
		return o, err
	}
	for _, count := range e.FindElements("//TotalCPUCount/Exact") {
		v, err := strconv.ParseFloat(strings.TrimSpace(count.Text()), 64)
		if err != nil || v <= float64(most) {
			continue
		}
		if !slices.ContainsFunc(changes, func(c agreement.Changeable) bool { return c.Element == count }) {
			return rejected(fmt.Sprintf("there are %d CPUs, and the constraints let nothing else be offered", most))
		}
		count.SetText(strconv.Itoa(most))
	}
	changed, err := agreement.DecodeOffer(e)
	if err != nil {
		return o, err
	}
	if broken := free.Check(changed); len(broken) > 0 {
		return rejected(broken[0].Sentence)
	}
	a.Agreement = changed.Agreement
	return a, nil
}

// Advertise keeps the offers.
func (n *Negotiator) Advertise(ctx context.Context, key string, offers []agreement.NegotiationOffer) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	x, err := n.find(ctx, key)
	if err != nil {
		return err
	}
	for _, o := range offers {
		o, err := n.take(x, o)
		if err != nil {
			return err
		}
		n.told = append(n.told, o)
	}
	return nil
}

// Negotiation gives the properties of one of the caller's.
func (n *Negotiator) Negotiation(ctx context.Context, key string) (*agreement.NegotiationProperties, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	x, err := n.find(ctx, key)
	if err != nil {
		return nil, err
	}
	p := x.properties
	p.Offers = slices.Clone(p.Offers)
	return &p, nil
}

// TerminateNegotiation forgets a negotiation.
func (n *Negotiator) TerminateNegotiation(ctx context.Context, key string, why []*etree.Element) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, err := n.find(ctx, key); err != nil {
		return err
	}
	delete(n.open, key)
	n.why = why
	return nil
}

// Told gives the offers that were advertised.
func (n *Negotiator) Told() []agreement.NegotiationOffer {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.told)
}

// WhyEnded gives the reasons with which a negotiation was ended last.
func (n *Negotiator) WhyEnded() []*etree.Element {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.why
}
