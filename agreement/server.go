package agreement

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// ServerOptions changes how a Service is put on the wire. The zero value lets
// nobody in: set a Verifier.
type ServerOptions struct {
	Verifier soap.Verifier
	// Signer gives what shows whom an answer is of, as soap.Endpoint has it; nil adds nothing.
	Signer      func(to soap.Principal) func(context.Context, *etree.Element) error
	ExternalURL string // the endpoint's address as clients see it; "" takes it from each request
	// Negotiator is who is negotiated with; nil is the Service, if it is one too.
	Negotiator Negotiator
	// Coordinator makes agreements with several domains as one; nil is the Service, if it is one too.
	Coordinator Coordinator

	Limits  xmldoc.Limits    // of one message
	Now     func() time.Time // for the time stamps of faults; nil is time.Now
	Log     *slog.Logger     // nil discards
	Observe func(operation string, status int, took time.Duration)
}

// NewServer puts a Service on the wire: the port types AgreementFactory,
// PendingAgreementFactory, Agreement and AgreementState, with the resource
// properties of factory and agreements; the list of agreements, if it is a Lister;
// Prepare and Confirm, if it is a Preparer; AgreementsTogether, if there is a Coordinator; and NegotiationFactory, Negotiation and
// OfferAdvertisement, if there is a Negotiator, which ?wsdl=negotiation describes.
// One endpoint has all of them: a request that carries the key of an agreement or a
// negotiation, as the reference parameter of its EPR, is about it.
func NewServer(svc Service, o ServerOptions) *soap.Endpoint {
	s := &server{svc: svc}
	s.lister, _ = svc.(Lister)
	s.preparer, _ = svc.(Preparer)
	if s.negotiator = o.Negotiator; s.negotiator == nil {
		s.negotiator, _ = svc.(Negotiator)
	}
	if s.coordinator = o.Coordinator; s.coordinator == nil {
		s.coordinator, _ = svc.(Coordinator)
	}
	ops := []soap.Operation{
		operation(opCreate, s.create),
		operation(opCreatePending, s.createPending),
		operation(opTerminate, s.terminate),
		propertyOperation(opProperty, s.property),
		propertyOperation(opProperties, s.multiple),
		propertyOperation(opDocument, s.document),
	}
	if s.lister != nil {
		ops = append(ops, listOperation(s.list))
	}
	if s.preparer != nil {
		ops = append(ops, confirmOperation(s.confirm))
	}
	if s.coordinator != nil {
		ops = append(ops, s.togetherOperations()...)
	}
	if s.negotiator != nil {
		ops = append(ops, s.negotiations()...)
	}
	e := newEndpoint(ops, o)
	s.address = func(m *soap.Verified) string { return e.Address(m.HTTP) }
	ports, negotiating := factoryPorts(s.lister != nil, s.preparer != nil), []described(nil)
	if s.coordinator != nil {
		ports = append(ports, togetherPort())
	}
	if s.negotiator != nil {
		negotiating = negotiationPorts()
	}
	e.Describe = describe(ports, negotiating)
	return e
}

// NewAcceptanceServer puts an Acceptor on the wire: the port type
// AgreementAcceptance. The references that lead to it are made by NewEPR, with its
// address and the initiator's own key.
func NewAcceptanceServer(a Acceptor, o ServerOptions) *soap.Endpoint {
	e := newEndpoint([]soap.Operation{
		operation(opAccept, func(ctx context.Context, m *soap.Verified, _ *etree.Element) error {
			r := newReader(m.Document)
			if _, err := r.decision(m.Payload); err != nil {
				return err
			}
			key, err := needKey(m)
			if err != nil {
				return err
			}
			return a.Accept(ctx, key)
		}),
		operation(opReject, func(ctx context.Context, m *soap.Verified, _ *etree.Element) error {
			why, err := newReader(m.Document).decision(m.Payload)
			if err != nil {
				return err
			}
			key, err := needKey(m)
			if err != nil {
				return err
			}
			return a.Reject(ctx, key, why)
		}),
	}, o)
	e.Describe = describe([]described{acceptancePort}, nil)
	return e
}

func newEndpoint(ops []soap.Operation, o ServerOptions) *soap.Endpoint {
	now := o.Now
	if now == nil {
		now = time.Now
	}
	return &soap.Endpoint{
		Operations:  soap.Operations(ops...),
		Verifier:    o.Verifier,
		Signer:      o.Signer,
		Limits:      o.Limits,
		ExternalURL: o.ExternalURL,
		Log:         o.Log,
		Observe:     o.Observe,
		Understands: func(n xmldoc.Name) bool {
			return n.Space == NSPortolan && (n.Local == keyParameter || n.Local == negotiationKey)
		},
		FaultOf: func(err error, op *soap.Operation, _ soap.Version) *soap.Fault {
			return faultOf(err, about(op), now())
		},
	}
}

// handler answers a request with the content of out.
type handler func(ctx context.Context, m *soap.Verified, out *etree.Element) error

// answerOf names the answer of a request of WS-Agreement: …Input, …Response.
func answerOf(op string) string { return strings.TrimSuffix(op, "Input") + "Response" }

// actionOf gives the action of a request: …Request (§6).
func actionOf(op string) string { return NS + "/" + strings.TrimSuffix(op, "Input") + "Request" }

func operation(op string, h handler) soap.Operation {
	return soap.Operation{
		Name:        xmldoc.Name{Space: NS, Local: op},
		Action:      actionOf(op),
		ReplyAction: NS + "/" + answerOf(op),
		FaultAction: NS + "/Fault",
		Handle:      handling(h, func() *etree.Element { return NewElement(answerOf(op)) }),
	}
}

// propertyAction gives the action of an operation of WS-ResourceProperties.
func propertyAction(op string) string {
	return "http://docs.oasis-open.org/wsrf/rpw-2/" + op + "/" + op
}

func propertyOperation(op string, h handler) soap.Operation {
	return soap.Operation{
		Name:        xmldoc.Name{Space: nsProperties, Local: op},
		Action:      propertyAction(op) + "Request",
		ReplyAction: propertyAction(op) + "Response",
		FaultAction: "http://docs.oasis-open.org/wsrf/fault",
		Handle:      handling(h, func() *etree.Element { return propertiesElement(op + "Response") }),
	}
}

const listAction = NSPortolan + "/" + opList

func listOperation(h handler) soap.Operation {
	return soap.Operation{
		Name:        xmldoc.Name{Space: NSPortolan, Local: opList},
		Action:      listAction + "Request",
		ReplyAction: listAction + "Response",
		FaultAction: NS + "/Fault",
		Handle:      handling(h, func() *etree.Element { return portolan(opList + "Response") }),
	}
}

func handling(h handler, answer func() *etree.Element) func(context.Context, *soap.Verified) (*etree.Element, error) {
	return func(ctx context.Context, m *soap.Verified) (*etree.Element, error) {
		out := answer()
		if err := h(ctx, m, out); err != nil {
			return nil, err
		}
		return out, nil
	}
}

type server struct {
	svc        Service
	lister     Lister     // nil if the service is none
	preparer   Preparer   // the same
	negotiator Negotiator // nil if there is none

	coordinator Coordinator // the same
	address     func(*soap.Verified) string
}

func needKey(m *soap.Verified) (string, error) {
	key, err := agreementKeys.of(m)
	if err == nil && key == "" {
		err = fail.Errorf("agreement", fail.Invalid, "", "the message names no agreement; send the reference parameters of its EPR as headers")
	}
	return key, err
}

func (s *server) create(ctx context.Context, m *soap.Verified, out *etree.Element) error {
	return s.created(ctx, m, opCreate, s.svc.Create, out)
}

func (s *server) createPending(ctx context.Context, m *soap.Verified, out *etree.Element) error {
	return s.created(ctx, m, opCreatePending, s.svc.CreatePending, out)
}

func (s *server) created(ctx context.Context, m *soap.Verified, op string, create func(context.Context, *CreateRequest) (string, error), out *etree.Element) error {
	req, p, err := newReader(m.Document).create(m.Payload, op, s.preparer != nil, s.understands)
	if err != nil {
		return err
	}
	if p != nil {
		create = func(ctx context.Context, req *CreateRequest) (string, error) { return s.preparer.Prepare(ctx, req, *p) }
	}
	key, err := create(ctx, req)
	if err != nil {
		return err
	}
	epr := NewEPR(s.address(m), key)
	out.AddChild(epr.Element("wsag", xmldoc.Name{Space: NS, Local: "CreatedAgreementEPR"}))
	return nil
}

// understands reports whether a critical extension is one that the service acts on.
func (s *server) understands(n xmldoc.Name) bool {
	x, ok := s.svc.(Extender)
	return ok && x.Understands(n)
}

func (s *server) terminate(ctx context.Context, m *soap.Verified, _ *etree.Element) error {
	reason, err := newReader(m.Document).terminate(m.Payload)
	if err != nil {
		return err
	}
	key, err := needKey(m)
	if err != nil {
		return err
	}
	return s.svc.Terminate(ctx, key, reason)
}

// resource is what a message asks the properties of: of the factory, of an agreement or
// of a negotiation.
type resource struct {
	space    string // of its properties
	document string // the element of all of them
	known    []string
	all      []*etree.Element
}

func (s *server) resource(ctx context.Context, m *soap.Verified) (*resource, error) {
	key, err := agreementKeys.of(m)
	if err != nil {
		return nil, err
	}
	if s.negotiator != nil {
		other, err := negotiationKeys.of(m)
		switch {
		case err != nil:
			return nil, err
		case other != "" && key != "":
			return nil, fail.Errorf("agreement", fail.Invalid, "", "the message carries the keys of an agreement and of a negotiation; a request is about one of them")
		case other != "":
			return s.negotiated(ctx, other)
		}
	}
	if key == "" {
		list, err := s.svc.Templates(ctx)
		if err != nil {
			return nil, err
		}
		x := &resource{space: NS, document: "AgreementFactoryProperties", known: factoryProperties}
		for i := range list {
			x.all = append(x.all, list[i].Encode())
		}
		return x, nil
	}
	p, err := s.svc.Agreement(ctx, key)
	if err != nil {
		return nil, err
	}
	return &resource{NS, "AgreementProperties", agreementProperties, p.elements()}, nil
}

// The resource properties of the factory and of an agreement.
var (
	factoryProperties   = []string{"Template"}
	agreementProperties = []string{"Name", "AgreementId", "Context", "Terms", "AgreementState", "GuaranteeTermState", "ServiceTermState"}
)

// wanted adds the properties of those names to out.
func (s *server) wanted(ctx context.Context, m *soap.Verified, names []xmldoc.Name, out *etree.Element) error {
	x, err := s.resource(ctx, m)
	if err != nil {
		return err
	}
	for _, n := range names {
		if n.Space != x.space || !slices.Contains(x.known, n.Local) {
			return &propertyError{fail.Errorf("agreement."+opProperty, fail.Unsupported, "", "%s is no resource property here; %s has %s of the namespace %s", quoted(n.String()), x.document, oneOf(x.known), x.space)}
		}
	}
	size := 0
	for _, n := range names {
		for _, e := range x.all {
			if e.Tag == n.Local {
				c := e.Copy() // a request may name one twice
				if size += xmldoc.Size(c); size > maxAnswer {
					return fail.Errorf("agreement."+opProperty, fail.Exhausted, "", "the properties asked for are too large for one answer; ask for fewer")
				}
				out.AddChild(c)
			}
		}
	}
	return nil
}

// maxAnswer bounds what one request makes of what the service has.
const maxAnswer = 16 << 20

func (s *server) property(ctx context.Context, m *soap.Verified, out *etree.Element) error {
	r := newReader(m.Document)
	n := r.property(m.Payload)
	if r.err != nil {
		return r.err
	}
	return s.wanted(ctx, m, []xmldoc.Name{n}, out)
}

func (s *server) multiple(ctx context.Context, m *soap.Verified, out *etree.Element) error {
	r := newReader(m.Document)
	list := r.propertyNames(m.Payload)
	if r.err != nil {
		return r.err
	}
	return s.wanted(ctx, m, list, out)
}

func (s *server) document(ctx context.Context, m *soap.Verified, out *etree.Element) error {
	r := newReader(m.Document)
	r.attributes(m.Payload, "")
	r.children(m.Payload).end()
	if r.err != nil {
		return r.err
	}
	x, err := s.resource(ctx, m)
	if err != nil {
		return err
	}
	doc := NewElement(x.document)
	if x.space == NSNegotiation {
		doc = negotiation(x.document)
	}
	for _, e := range x.all {
		doc.AddChild(e)
	}
	out.AddChild(doc)
	return nil
}

func (s *server) list(ctx context.Context, m *soap.Verified, out *etree.Element) error {
	before, limit, err := newReader(m.Document).list(m.Payload)
	if err != nil {
		return err
	}
	keys, err := s.lister.List(ctx, before, limit)
	if err != nil {
		return err
	}
	for _, k := range keys {
		epr := NewEPR(s.address(m), k)
		out.AddChild(epr.Element("p", xmldoc.Name{Space: NSPortolan, Local: "Agreement"}))
	}
	return nil
}
