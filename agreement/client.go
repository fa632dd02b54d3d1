package agreement

import (
	"context"
	"errors"
	"strconv"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Client makes an agreement provider somewhere a Service again: a gateway's, or
// one of another make that keeps to the standard. Agreements are named by keys: of
// a gateway the key in their EPR; of another make the EPR itself, written as XML,
// so that a key is all that has to be remembered.
//
// Errors are a *Refusal for a wsag:ContinuingFault, and else of the kinds of the
// service's faults. A service that does not list agreements answers List with
// fail.Unsupported.
type Client struct {
	soap *soap.Client
	// At gives the client for an agreement whose EPR has another address than the
	// service; nil sends everything to the service's.
	At func(address string) (*soap.Client, error)
	// Catalogue bounds answers that have templates in place of the soap client's Limits; nil leaves
	// them to that.
	Catalogue *xmldoc.Limits
}

var (
	_ Service = (*Client)(nil)
	_ Lister  = (*Client)(nil)
)

// NewClient makes a client of the service that c calls.
func NewClient(c *soap.Client) *Client { return &Client{soap: c} }

// Key gives the key of an agreement by its EPR.
func (c *Client) Key(e soap.EPR) string {
	if key, ok := KeyOf(e); ok && key[0] != '<' && (c.At == nil || e.Address == c.soap.URL) {
		return key
	}
	return string(xmldoc.Marshal(e.Echo("wsag", xmldoc.Name{Space: NS, Local: "CreatedAgreementEPR"})))
}

// EPR gives the reference of an agreement by its key.
func (c *Client) EPR(key string) (soap.EPR, error) {
	if key == "" {
		return soap.EPR{}, fail.Errorf("agreement", fail.NotFound, "", "there is no agreement without a key")
	}
	if key[0] != '<' {
		return NewEPR(c.soap.URL, key), nil
	}
	doc, err := xmldoc.ReadBytes([]byte(key), xmldoc.Limits{Bytes: 64 << 10})
	if err != nil {
		return soap.EPR{}, fail.Errorf("agreement", fail.Invalid, "", "the key is no endpoint reference: %v", err).Because(err)
	}
	return soap.DecodeEPR(doc.Root())
}

// call sends a request and gives the element of the answer. epr is the agreement
// that it is about; nil is none.
func (c *Client) call(ctx context.Context, op, action string, epr *soap.EPR, body *etree.Element, opts ...soap.CallOption) (*soap.Reply, error) {
	client := c.soap
	if epr != nil {
		if epr.Address != client.URL && c.At != nil {
			var err error
			if client, err = c.At(epr.Address); err != nil {
				return nil, err
			}
		}
		opts = append(opts, soap.To(*epr))
	}
	return send(ctx, client, op, action, body, opts...)
}

func send(ctx context.Context, client *soap.Client, op, action string, body *etree.Element, opts ...soap.CallOption) (*soap.Reply, error) {
	r, err := client.Call(ctx, action, body, opts...)
	if f, ok := errors.AsType[*soap.Fault](err); ok {
		return nil, errorOf(op, f)
	}
	if err != nil {
		return nil, err
	}
	if r.Parsed == nil || r.Payload == nil {
		return nil, unreadable(op, "it is empty")
	}
	return r, nil
}

// unreadable is an answer that says nothing that we could use.
func unreadable(op, why string) error {
	return fail.Errorf("agreement."+op, fail.Unavailable, "", "the answer of the service to %s can't be used: %s", op, why)
}

// Create sends an offer. Where the answer was lost, the error is fail.Uncertain:
// the agreement may exist.
func (c *Client) Create(ctx context.Context, req *CreateRequest) (string, error) {
	return c.create(ctx, opCreate, req)
}

// CreatePending sends an offer whose decision comes later; else as Create.
func (c *Client) CreatePending(ctx context.Context, req *CreateRequest) (string, error) {
	return c.create(ctx, opCreatePending, req)
}

func (c *Client) create(ctx context.Context, op string, req *CreateRequest) (string, error) {
	return c.created(ctx, op, encodeCreate(op, req))
}

// created sends a request that makes an agreement, and gives its key.
func (c *Client) created(ctx context.Context, op string, body *etree.Element) (string, error) {
	r, err := c.call(ctx, op, actionOf(op), nil, body)
	if err != nil {
		return "", err
	}
	lost := func(why string) error {
		return fail.Errorf("agreement."+op, fail.Uncertain, "", "the answer of the service to %s can't be used: %s; the agreement may exist", op, why)
	}
	e := xmldoc.Child(r.Payload, NS, "CreatedAgreementEPR")
	if e == nil {
		return "", lost("it names no agreement")
	}
	epr, err := soap.DecodeEPR(e)
	if err != nil {
		return "", lost(fail.Sentence(err))
	}
	return c.Key(epr), nil
}

// catalogue gives the options of a call whose answer has templates.
func (c *Client) catalogue() []soap.CallOption {
	opts := []soap.CallOption{soap.Idempotent}
	if c.Catalogue != nil {
		opts = append(opts, soap.Within(*c.Catalogue))
	}
	return opts
}

// Templates gives those that the caller may offer by.
func (c *Client) Templates(ctx context.Context) ([]Template, error) {
	body := propertiesElement(opProperty)
	body.CreateAttr("xmlns:wsag", NS)
	body.SetText("wsag:Template")
	r, err := c.call(ctx, opProperty, propertyAction(opProperty)+"Request", nil, body, c.catalogue()...)
	if err != nil {
		return nil, err
	}
	list := []Template{}
	for _, e := range r.Payload.ChildElements() {
		t, err := newReader(r.Document).template(e)
		if err != nil {
			return nil, unreadable(opProperty, fail.Sentence(err))
		}
		list = append(list, *t)
	}
	return list, nil
}

// Agreement gives the properties of an agreement.
func (c *Client) Agreement(ctx context.Context, key string) (*Properties, error) {
	epr, err := c.EPR(key)
	if err != nil {
		return nil, err
	}
	return c.Properties(ctx, epr)
}

// Properties is Agreement by EPR.
func (c *Client) Properties(ctx context.Context, epr soap.EPR) (*Properties, error) {
	r, err := c.call(ctx, opDocument, propertyAction(opDocument)+"Request", &epr, propertiesElement(opDocument), soap.Idempotent)
	if err != nil {
		return nil, err
	}
	list := r.Payload.ChildElements()
	if len(list) != 1 {
		return nil, unreadable(opDocument, "it holds "+strconv.Itoa(len(list))+" documents")
	}
	p, err := newReader(r.Document).properties(list[0])
	if err != nil {
		return nil, unreadable(opDocument, fail.Sentence(err))
	}
	return p, nil
}

// State gives the state of an agreement alone.
func (c *Client) State(ctx context.Context, epr soap.EPR) (State, error) {
	body := propertiesElement(opProperty)
	body.CreateAttr("xmlns:wsag", NS)
	body.SetText("wsag:AgreementState")
	r, err := c.call(ctx, opProperty, propertyAction(opProperty)+"Request", &epr, body, soap.Idempotent)
	if err != nil {
		return "", err
	}
	e := xmldoc.Child(r.Payload, NS, "AgreementState")
	if e == nil {
		return "", unreadable(opProperty, "there is no AgreementState in it")
	}
	rd := newReader(r.Document)
	s, _ := rd.agreementState(e)
	if rd.err != nil {
		return "", unreadable(opProperty, fail.Sentence(rd.err))
	}
	return s, nil
}

// Terminate asks for the end of an agreement.
func (c *Client) Terminate(ctx context.Context, key string, reason *etree.Element) error {
	epr, err := c.EPR(key)
	if err != nil {
		return err
	}
	return c.TerminateEPR(ctx, epr, reason)
}

// TerminateEPR is Terminate by EPR.
func (c *Client) TerminateEPR(ctx context.Context, epr soap.EPR, reason *etree.Element) error {
	_, err := c.call(ctx, opTerminate, actionOf(opTerminate), &epr, encodeTerminate(reason))
	return err
}

// List gives the keys of the caller's agreements.
func (c *Client) List(ctx context.Context, before string, limit int) ([]string, error) {
	if limit < 1 {
		return nil, nil
	}
	body := portolan(opList)
	textIf(body, "p:Before", before)
	body.CreateElement("p:Limit").SetText(strconv.Itoa(limit))
	r, err := c.call(ctx, opList, listAction+"Request", nil, body, soap.Idempotent)
	if err != nil {
		return nil, err
	}
	var keys []string
	for _, e := range r.Payload.ChildElements() {
		epr, err := soap.DecodeEPR(e)
		if err != nil {
			return nil, unreadable(opList, fail.Sentence(err))
		}
		keys = append(keys, c.Key(epr))
	}
	return keys, nil
}

// AcceptanceClient is the client of an initiator's AgreementAcceptance port type.
type AcceptanceClient struct {
	soap *soap.Client
	epr  soap.EPR
}

// NewAcceptance makes a client that tells the decision on the agreement that epr,
// the CreateRequest's AcceptanceEPR, stands for. A decision may be told again where
// the answer was lost.
func NewAcceptance(c *soap.Client, epr soap.EPR) *AcceptanceClient { return &AcceptanceClient{c, epr} }

// Accept tells that the agreement is accepted.
func (t *AcceptanceClient) Accept(ctx context.Context) error { return t.tell(ctx, opAccept, nil) }

// Reject tells that the agreement is rejected, and why.
func (t *AcceptanceClient) Reject(ctx context.Context, why []*etree.Element) error {
	return t.tell(ctx, opReject, why)
}

func (t *AcceptanceClient) tell(ctx context.Context, op string, why []*etree.Element) error {
	body := NewElement(op)
	noncritical(body, why)
	_, err := send(ctx, t.soap, op, actionOf(op), body, soap.To(t.epr), soap.Idempotent)
	return err
}
