package agreement

import (
	"context"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

var _ Negotiator = (*Client)(nil)

// NegotiationKey gives the key of a negotiation by its EPR; else as Key.
func NegotiationKey(e soap.EPR) string {
	if key, ok := NegotiationKeyOf(e); ok {
		return key
	}
	return string(xmldoc.Marshal(e.Echo("neg", xmldoc.Name{Space: NSNegotiation, Local: "CreatedNegotiationEPR"})))
}

// NegotiationEPR gives the reference of a negotiation by its key.
func (c *Client) NegotiationEPR(key string) (soap.EPR, error) {
	if key == "" {
		return soap.EPR{}, fail.Errorf("agreement", fail.NotFound, "", "there is no negotiation without a key")
	}
	if key[0] != '<' {
		return NewNegotiationEPR(c.soap.URL, key), nil
	}
	return c.EPR(key) // written as XML, they are alike
}

// Initiate opens a negotiation. Where the answer was lost it may be open: it ends by
// itself when it expires.
func (c *Client) Initiate(ctx context.Context, req *InitiateRequest) (string, error) {
	r, err := c.call(ctx, opInitiate, negotiationAction(opInitiate), nil, encodeInitiate(req))
	if err != nil {
		return "", err
	}
	e := xmldoc.Child(r.Payload, NSNegotiation, "CreatedNegotiationEPR")
	if e == nil {
		return "", unreadable(opInitiate, "it names no negotiation")
	}
	epr, err := soap.DecodeEPR(e)
	if err != nil {
		return "", unreadable(opInitiate, fail.Sentence(err))
	}
	return NegotiationKey(epr), nil
}

// Negotiate sends offers and gives the counter offers to them.
func (c *Client) Negotiate(ctx context.Context, key string, offers []NegotiationOffer) ([]NegotiationOffer, error) {
	epr, err := c.NegotiationEPR(key)
	if err != nil {
		return nil, err
	}
	r, err := c.call(ctx, opNegotiate, negotiationAction(opNegotiate), &epr, encodeOffers(opNegotiate, negotiationOffer, offers))
	if err != nil {
		return nil, err
	}
	rd := newReader(r.Document)
	list := rd.offers(rd.children(r.Payload).in(NSNegotiation), counterOffer, MaxOffers*maxRead)
	if rd.err != nil {
		return nil, unreadable(opNegotiate, fail.Sentence(rd.err))
	}
	return list, nil
}

// Advertise sends offers that no answer is wanted to.
func (c *Client) Advertise(ctx context.Context, key string, offers []NegotiationOffer) error {
	epr, err := c.NegotiationEPR(key)
	if err != nil {
		return err
	}
	_, err = c.call(ctx, opAdvertise, negotiationAction(opAdvertise), &epr, encodeOffers(opAdvertise, negotiationOffer, offers))
	return err
}

// Negotiation gives the properties of a negotiation.
func (c *Client) Negotiation(ctx context.Context, key string) (*NegotiationProperties, error) {
	epr, err := c.NegotiationEPR(key)
	if err != nil {
		return nil, err
	}
	r, err := c.call(ctx, opDocument, propertyAction(opDocument)+"Request", &epr, propertiesElement(opDocument), c.catalogue()...)
	if err != nil {
		return nil, err
	}
	list := r.Payload.ChildElements()
	if len(list) != 1 {
		return nil, unreadable(opDocument, "it holds no document, or several")
	}
	p, err := newReader(r.Document).negotiationProperties(list[0])
	if err != nil {
		return nil, unreadable(opDocument, fail.Sentence(err))
	}
	return p, nil
}

// TerminateNegotiation ends a negotiation.
func (c *Client) TerminateNegotiation(ctx context.Context, key string, why []*etree.Element) error {
	epr, err := c.NegotiationEPR(key)
	if err != nil {
		return err
	}
	body := negotiation(opTerminate)
	foreign(body, why...)
	_, err = c.call(ctx, opTerminate, negotiationAction(opTerminate), &epr, body)
	return err
}
