package agreement

import (
	"context"
	"slices"
	"strings"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Operations of a negotiation, by the local names of their requests, in NSNegotiation;
// TerminateInput has the same local name as that of WS-Agreement.
const (
	opInitiate  = "InitiateNegotiationInput"
	opNegotiate = "NegotiateInput"
	opAdvertise = "AdvertiseInput"
)

// negotiationKey is the reference parameter of a negotiation, in NSPortolan.
const negotiationKey = "NegotiationKey"

// NewNegotiationEPR gives the reference of a negotiation at the endpoint with that
// address; else as NewEPR.
func NewNegotiationEPR(address, key string) soap.EPR {
	p := portolan(negotiationKey)
	p.SetText(key)
	return soap.EPR{Address: address, ReferenceParameters: []*etree.Element{p}}
}

// NegotiationKeyOf gives the key in a reference that NewNegotiationEPR made; ok is false
// for one of another make.
func NegotiationKeyOf(e soap.EPR) (key string, ok bool) {
	for _, p := range e.ReferenceParameters {
		if xmldoc.Is(p, NSPortolan, negotiationKey) {
			key = xmldoc.Collapse(xmldoc.Text(p))
			return key, key != ""
		}
	}
	return "", false
}

// negotiationAnswer names the answer of a request: …Output, but for Terminate.
func negotiationAnswer(op string) string {
	if op == opTerminate {
		return answerOf(op)
	}
	return strings.TrimSuffix(op, "Input") + "Output"
}

func negotiationAction(op string) string {
	return NSNegotiation + "/" + strings.TrimSuffix(op, "Input") + "Request"
}

func negotiationOperation(op string, h handler) soap.Operation {
	return soap.Operation{
		Name:        xmldoc.Name{Space: NSNegotiation, Local: op},
		Action:      negotiationAction(op),
		ReplyAction: NSNegotiation + "/" + strings.TrimSuffix(op, "Input") + "Response",
		FaultAction: NSNegotiation + "/Fault",
		Handle:      handling(h, func() *etree.Element { return negotiation(negotiationAnswer(op)) }),
	}
}

// negotiations are the operations of a Negotiator.
func (s *server) negotiations() []soap.Operation {
	return []soap.Operation{
		negotiationOperation(opInitiate, s.initiate),
		negotiationOperation(opNegotiate, s.negotiate),
		negotiationOperation(opAdvertise, s.advertise),
		negotiationOperation(opTerminate, s.terminateNegotiation),
	}
}

func needNegotiation(m *soap.Verified) (string, error) {
	key, err := negotiationKeys.of(m)
	if err == nil && key == "" {
		err = fail.Errorf("agreement", fail.Invalid, "", "the message names no negotiation; send the reference parameters of its EPR as headers")
	}
	return key, err
}

func encodeInitiate(req *InitiateRequest) *etree.Element {
	e := negotiation(opInitiate)
	e.AddChild(req.Context.Encode())
	encodeEPR(e, "InitiatorNegotiationEPR", req.InitiatorEPR)
	noncriticalAs(e, "neg", req.Noncritical)
	return e
}

func (r *reader) initiate(e *etree.Element) (*InitiateRequest, error) {
	r.attributes(e, "neg:"+opInitiate+"Type")
	req := new(InitiateRequest)
	c := r.children(e).in(NSNegotiation)
	req.Context = copyOf(r, c.need("NegotiationContext"), (*reader).negotiationContext)
	req.InitiatorEPR = r.epr(c.take("InitiatorNegotiationEPR"))
	req.Noncritical = r.noncritical(c)
	if err := r.critical(c); err != nil {
		return nil, err
	}
	return req, nil
}

func (s *server) initiate(ctx context.Context, m *soap.Verified, out *etree.Element) error {
	req, err := newReader(m.Document).initiate(m.Payload)
	if err != nil {
		return err
	}
	key, err := s.negotiator.Initiate(ctx, req)
	if err != nil {
		return err
	}
	epr := NewNegotiationEPR(s.address(m), key)
	out.AddChild(epr.Element("neg", xmldoc.Name{Space: NSNegotiation, Local: "CreatedNegotiationEPR"}))
	return nil
}

func encodeOffers(op, name string, offers []NegotiationOffer) *etree.Element {
	e := negotiation(op)
	for i := range offers {
		e.AddChild(offers[i].encodeAs(name))
	}
	return e
}

// offered reads the request of Negotiate or Advertise.
func (r *reader) offered(e *etree.Element, op string) ([]NegotiationOffer, error) {
	r.attributes(e, "neg:"+op+"Type")
	c := r.children(e).in(NSNegotiation)
	list := r.offers(c, negotiationOffer, MaxOffers)
	if len(list) == 0 {
		c.need(negotiationOffer)
	}
	if err := r.critical(c); err != nil {
		return nil, err
	}
	return list, nil
}

func (s *server) negotiate(ctx context.Context, m *soap.Verified, out *etree.Element) error {
	offers, err := newReader(m.Document).offered(m.Payload, opNegotiate)
	if err != nil {
		return err
	}
	key, err := needNegotiation(m)
	if err != nil {
		return err
	}
	answers, err := s.negotiator.Negotiate(ctx, key, offers)
	if err != nil {
		return err
	}
	for i := range answers {
		out.AddChild(answers[i].encodeAs(counterOffer))
	}
	return nil
}

func (s *server) advertise(ctx context.Context, m *soap.Verified, _ *etree.Element) error {
	offers, err := newReader(m.Document).offered(m.Payload, opAdvertise)
	if err != nil {
		return err
	}
	key, err := needNegotiation(m)
	if err != nil {
		return err
	}
	return s.negotiator.Advertise(ctx, key, offers)
}

// terminateNegotiation takes any elements of other namespaces as the reason.
func (s *server) terminateNegotiation(ctx context.Context, m *soap.Verified, _ *etree.Element) error {
	r := newReader(m.Document)
	r.attributes(m.Payload, "neg:TerminateInputType")
	c := r.children(m.Payload).in(NSNegotiation)
	why := c.foreign()
	c.end()
	if r.err != nil {
		return r.err
	}
	key, err := needNegotiation(m)
	if err != nil {
		return err
	}
	return s.negotiator.TerminateNegotiation(ctx, key, why)
}

// negotiationPropertyNames are the resource properties of a negotiation.
var negotiationPropertyNames = []string{"NegotiationContext", "NegotiableTemplate", negotiationOffer}

// negotiated gives the properties of the negotiation that a message is about.
func (s *server) negotiated(ctx context.Context, key string) (*resource, error) {
	p, err := s.negotiator.Negotiation(ctx, key)
	if err != nil {
		return nil, err
	}
	return &resource{NSNegotiation, "NegotiationProperties", negotiationPropertyNames, p.elements()}, nil
}

// keys are the reference parameters of one kind of resource.
type keys struct{ parameter, what string }

var (
	agreementKeys   = keys{keyParameter, "agreement"}
	negotiationKeys = keys{negotiationKey, "negotiation"}
)

// of gives the key that a message carries: "" is none.
func (k keys) of(m *soap.Verified) (string, error) {
	blocks := m.Blocks(NSPortolan, k.parameter)
	if len(blocks) == 0 {
		return "", nil
	}
	key := xmldoc.Collapse(xmldoc.Text(blocks[0]))
	switch {
	case len(blocks) > 1:
		return "", fail.Errorf("agreement", fail.Invalid, "", "the message carries %d %s headers; a request is about one %s", len(blocks), k.parameter, k.what)
	case key == "":
		return "", fail.Errorf("agreement", fail.Invalid, "", "the header %s is empty; send the reference parameters of the %s's EPR as they were given", k.parameter, k.what)
	case len(key) > maxKey:
		return "", fail.Errorf("agreement", fail.NotFound, "", "there is no %s with a key of %d bytes", k.what, len(key))
	}
	return strings.Clone(key), nil
}

// about says which operations are about one agreement or negotiation: not those that make
// one or list them.
func about(op *soap.Operation) bool {
	return op != nil && !slices.Contains([]string{opCreate, opCreatePending, opList, opCreateTogether, opListTogether, opTemplatesOf}, op.Name.Local)
}
