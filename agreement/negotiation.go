package agreement

import (
	"context"
	"slices"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Bounds on the messages of a negotiation, beside those of documents.
const (
	MaxOffers = 50 // of one request
	maxRead   = 20 // times as many are read in an answer
)

// NegotiationRole is a side of a negotiation.
type NegotiationRole string

// The sides: who opened the negotiation, and who was asked.
const (
	NegotiationInitiator NegotiationRole = "NegotiationInitiator"
	NegotiationResponder NegotiationRole = "NegotiationResponder"
)

// NegotiationContext is a neg:NegotiationContext: what is negotiated, until when, and who
// would provide it.
type NegotiationContext struct {
	// Renegotiation is the agreement to be replaced; nil is none: a new one.
	Renegotiation      *Renegotiation
	TypeExtensions     []*etree.Element // of the neg:Negotiation or neg:Renegotiation
	ExpirationTime     time.Time        // zero is none
	Initiator          *etree.Element   // any content; nil is none. As in Context it proves nothing.
	Responder          *etree.Element
	AgreementResponder NegotiationRole
	FactoryEPR         *soap.EPR // where the agreement would be made; nil: where the negotiation was
	Extensions         []*etree.Element
}

// Renegotiation names an agreement that there is.
type Renegotiation struct {
	ResponderEPR soap.EPR
	InitiatorEPR *soap.EPR // the initiator's own resource; nil is none
}

// OfferState is how much is meant by an offer; nothing binds in any of them.
type OfferState string

// The states of offers (GFD.193).
const (
	Advisory      OfferState = "Advisory"   // it may change still
	Solicited     OfferState = "Solicited"  // the sender wants a firm answer
	Acceptable    OfferState = "Acceptable" // the sender would accept it as it stands
	OfferRejected OfferState = "Rejected"   // this branch ends
)

// counters is what may answer an offer: a firm answer where one is solicited, nothing
// where the branch has ended.
var counters = map[OfferState][]OfferState{
	Advisory:      {Advisory, Solicited, Acceptable, OfferRejected},
	Solicited:     {Acceptable, OfferRejected},
	Acceptable:    {Advisory, Solicited, Acceptable, OfferRejected},
	OfferRejected: {},
}

// Valid reports whether s is a state of offers.
func (s OfferState) Valid() bool {
	_, ok := counters[s]
	return ok
}

// Answer reports whether a counter offer in state by may answer an offer in state s; a
// fail.Conflict where not.
func (s OfferState) Answer(by OfferState) error {
	if slices.Contains(counters[s], by) {
		return nil
	}
	var may []string
	for _, c := range counters[s] {
		may = append(may, string(c))
	}
	if len(may) == 0 {
		return fail.Errorf("agreement.OfferState", fail.Conflict, string(s), "an offer that is %s is answered by nothing; begin again with an offer that answers none", s)
	}
	return fail.Errorf("agreement.OfferState", fail.Conflict, string(s), "an offer that is %s can't be answered by one that is %s; only by one that is %s", s, quoted(string(by)), oneOf(may))
}

// OfferContext is a neg:NegotiationOfferContext.
type OfferContext struct {
	// CounterOfferTo is the OfferID of the offer that is answered; of a first offer the
	// template's id, or "".
	CounterOfferTo string
	ExpirationTime time.Time // zero is none
	Creator        NegotiationRole
	State          OfferState
	Detail         *etree.Element // foreign, in the state: why it is rejected, what it costs; nil is none
	Extensions     []*etree.Element
}

// ConstraintType is whether a constraint of a negotiation must be kept.
type ConstraintType string

// The types of constraints.
const (
	Required ConstraintType = "Required" // in every later offer
	Optional ConstraintType = "Optional" // if it can be; of two, the one of greater importance
)

// NegotiationItem is a neg:Item: what a counter offer may change, and to what.
type NegotiationItem struct {
	Item
	Type       ConstraintType
	Importance int64
}

// NegotiationConstraints are those of an offer: counter offers change what its Items
// locate, and nothing else.
type NegotiationConstraints struct {
	Items []NegotiationItem
	Free  []*etree.Element // wsag:Constraint, across items, which hold in each later offer
}

// NegotiationOffer is a neg:NegotiationOffer or a neg:NegotiationCounterOffer.
type NegotiationOffer struct {
	Agreement
	OfferID      string // @neg:OfferId; "" is none
	OfferContext OfferContext
	Constraints  NegotiationConstraints
}

// Offer gives what would be agreed: the wsag:AgreementOffer that CreateAgreement takes.
func (o *NegotiationOffer) Offer() Offer {
	a := o.Agreement
	a.ID = ""
	return Offer{Agreement: a}
}

// NegotiationExtension relates the offer of a CreateRequest to what was negotiated: a
// neg:NegotiationExtension, or a neg:RenegotiationExtension where it replaces an agreement.
type NegotiationExtension struct {
	ResponderEPR *soap.EPR // the negotiation; needed for a renegotiation
	InitiatorEPR *soap.EPR // the initiator's own; nil is none
	// AgreementEPR is the agreement that the new one replaces; nil is none.
	AgreementEPR *soap.EPR
	// OfferContext has the OfferId of the counter offer that is taken as CounterOfferTo.
	OfferContext OfferContext
	Extension    *etree.Element // nil is none
	// Critical: it stood where it must be understood, so that the request is refused if the
	// agreement is not made of what was negotiated.
	Critical bool
}

// IsNegotiationExtension reports whether an element of that name relates a CreateRequest to
// a negotiation.
func IsNegotiationExtension(n xmldoc.Name) bool {
	return n.Space == NSNegotiation && (n.Local == negotiationExtension || n.Local == renegotiationExtension)
}

// Negotiated gives the extension that relates the request to a negotiation; nil is none.
// More than one, or one that is not as the schema has it, is a fail.Invalid.
func (req *CreateRequest) Negotiated() (*NegotiationExtension, error) {
	var found *NegotiationExtension
	for i, e := range slices.Concat(req.Noncritical, req.Critical) {
		if !IsNegotiationExtension(xmldoc.NameOf(e)) {
			continue
		}
		if found != nil {
			return nil, fail.Errorf("agreement.Negotiated", fail.Invalid, "", "the request comes from two negotiations; an agreement is made of one: send one %s", negotiationExtension)
		}
		x, err := DecodeNegotiationExtension(e)
		if err != nil {
			return nil, err
		}
		x.Critical = i >= len(req.Noncritical)
		found = x
	}
	return found, nil
}

// InitiateRequest opens a negotiation.
type InitiateRequest struct {
	Context NegotiationContext
	// InitiatorEPR is the initiator's own negotiation resource; nil is none.
	InitiatorEPR *soap.EPR
	Noncritical  []*etree.Element
}

// NegotiationProperties are the resource properties of a negotiation.
type NegotiationProperties struct {
	Context   NegotiationContext
	Templates []Template         // neg:NegotiableTemplate: what first offers may be made from
	Offers    []NegotiationOffer // of both sides, in the order in which they came
}

// Negotiator is who is negotiated with. Nothing that it answers binds anybody: an
// agreement is made by CreateAgreement alone, whose request carries a
// NegotiationExtension. Who asks is in the context; errors are as a Service's. A
// negotiation is named by the key that its EPR carries.
type Negotiator interface {
	// Initiate opens a negotiation.
	Initiate(context.Context, *InitiateRequest) (key string, err error)
	// Negotiate answers offers by counter offers, which name the one that they answer by
	// CounterOfferTo; so each offer needs an OfferID of its own.
	Negotiate(ctx context.Context, key string, offers []NegotiationOffer) ([]NegotiationOffer, error)
	// Advertise tells offers that no answer is wanted to.
	Advertise(ctx context.Context, key string, offers []NegotiationOffer) error
	// Negotiation gives the properties of one.
	Negotiation(ctx context.Context, key string) (*NegotiationProperties, error)
	// TerminateNegotiation ends one: its offers can't be referred to any more.
	TerminateNegotiation(ctx context.Context, key string, why []*etree.Element) error
}

// Quote is what we tell with a counter offer: the detail of its state.
type Quote struct {
	Price string    // the most that it would cost, a decimal number; "" is not told
	Unit  string    // of the price; "" is the gateway's own
	Start time.Time // when it would begin; zero is not known
	End   time.Time
	Held  bool // the capacity is held until the offer's ExpirationTime
}

// Element gives the p:Quote.
func (q *Quote) Element() *etree.Element {
	e := portolan("Quote")
	if q.Price != "" {
		p := e.CreateElement("p:Price")
		attrIf(p, "unit", q.Unit)
		p.SetText(q.Price)
	}
	for _, t := range [...]struct {
		local string
		at    time.Time
	}{{"Start", q.Start}, {"End", q.End}} {
		if !t.at.IsZero() {
			e.CreateElement("p:" + t.local).SetText(t.at.UTC().Format(time.RFC3339Nano))
		}
	}
	if q.Held {
		e.CreateElement("p:Held")
	}
	return e
}

// Quoted gives what the detail of an offer's state says, if it is a p:Quote.
func (x *OfferContext) Quoted() (Quote, bool) {
	if x.Detail == nil || !xmldoc.Is(x.Detail, NSPortolan, "Quote") {
		return Quote{}, false
	}
	at := func(local string) time.Time {
		t, _ := time.Parse(time.RFC3339Nano, textOf(xmldoc.Child(x.Detail, NSPortolan, local)))
		return t
	}
	q := Quote{Start: at("Start"), End: at("End"), Held: xmldoc.Child(x.Detail, NSPortolan, "Held") != nil}
	if p := xmldoc.Child(x.Detail, NSPortolan, "Price"); p != nil {
		q.Price = textOf(p)
		q.Unit, _ = xmldoc.Attr(p, "", "unit")
	}
	return q, true
}

// Why makes the detail of a rejected offer.
func Why(sentence string) *etree.Element {
	e := portolan("Why")
	e.SetText(cut(sentence))
	return e
}

// Reason gives why an offer is rejected, so far as its detail is text; "" is not told.
func (x *OfferContext) Reason() string {
	if x.Detail == nil || !xmldoc.Is(x.Detail, NSPortolan, "Why") {
		return ""
	}
	return cut(textOf(x.Detail))
}
