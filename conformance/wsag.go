package conformance

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"
	"github.com/google/uuid"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/internal/xpath"
)

// The profile WSAG: what a WS-Agreement 1.0 endpoint offers is learnt from its templates,
// and what is sent is made of them. An endpoint may refuse an offer that complies, and may
// leave out what the standard does not ask for: the checks that need it are then skipped.
func wsagChecks() []check {
	return slices.Concat(wsagWSDLChecks, wsagSOAPChecks, wsagAddressingChecks, wsagTemplateChecks, wsagCreateChecks,
		wsagConstraintChecks, wsagMalformedChecks, wsagPropertyChecks, wsagStateChecks, wsagPendingChecks, wsagTerminateChecks,
		wsagFaultChecks, wsagHostileChecks)
}

// Namespaces of WS-ResourceFramework 1.2.
const (
	nsBaseFaults = "http://docs.oasis-open.org/wsrf/bf-2"
	nsResource   = "http://docs.oasis-open.org/wsrf/r-2"
	nsProperties = "http://docs.oasis-open.org/wsrf/rp-2"
)

// nsOwn is of what the kit itself puts into messages.
const nsOwn = "urn:portolan:conformance"

// schemaOf names a type or element of the schema of WS-Agreement 1.0.
func schemaOf(what string) string { return "GFD.107 schema, " + what }

const (
	declareWSAG = ` xmlns:wsag="` + agreement.NS + `"`
	templates   = "wsag:Template"
)

// wsagMessage gives a request of a port type of WS-Agreement.
func wsagMessage(operation, content string) message {
	return message{
		action: agreement.NS + "/" + strings.TrimSuffix(operation, "Input") + "Request",
		body:   `<wsag:` + operation + declareWSAG + `>` + content + `</wsag:` + operation + `>`,
	}
}

// propertyMessage gives a request of WS-ResourceProperties, the prefix wsag in scope.
func propertyMessage(operation, content string) message {
	return message{
		action: "http://docs.oasis-open.org/wsrf/rpw-2/" + operation + "/" + operation + "Request",
		body:   `<rp:` + operation + ` xmlns:rp="` + nsProperties + `"` + declareWSAG + `>` + content + `</rp:` + operation + `>`,
	}
}

// asking asks a resource for one property: at a factory, what tests of the layers below send.
func asking(name string) message { return propertyMessage("GetResourceProperty", name) }

// provider is what the kit has learnt of an agreement provider, and what it made there.
type provider struct {
	learnt    bool
	templates []*model
	wrong     []string // templates that can't be read
	taken     *model   // by which an offer was accepted
	made      []*deal
	standing  *deal // an agreement that checks look at and leave as it is
	listener  *listener
}

// model is a template.
type model struct {
	*agreement.Template
	element *etree.Element
	checker *agreement.Checker // nil with why
	why     error
}

// deal is an agreement that the kit made.
type deal struct {
	address string
	epr     soap.EPR
	offer   *etree.Element
}

// factoryTemplates gives the wsag:Template elements as they came.
func (p *probe) factoryTemplates(ctx context.Context) (*reply, []*etree.Element, error) {
	rep, err := p.ask(ctx, asking(templates))
	if err != nil {
		return nil, nil, err
	}
	if err := rep.wantPayload(nsProperties, "GetResourcePropertyResponse"); err != nil {
		return nil, nil, err
	}
	return rep, rep.payload.ChildElements(), nil
}

// models gives the templates that can be read; a skip if there are none.
func (p *probe) models(ctx context.Context) ([]*model, error) {
	w := &p.provider
	if !w.learnt {
		_, list, err := p.factoryTemplates(ctx)
		if err != nil {
			return nil, skip("the templates can't be had: %v", err)
		}
		w.learnt = true
		for _, e := range list {
			t, err := agreement.DecodeTemplate(e)
			if err != nil {
				w.wrong = append(w.wrong, fail.Sentence(err))
				continue
			}
			m := &model{Template: t, element: xmldoc.Detach(e)}
			m.checker, m.why = t.Compile()
			w.templates = append(w.templates, m)
		}
	}
	if len(w.templates) == 0 {
		if len(w.wrong) > 0 {
			return nil, skip("no template of the endpoint can be read: %s", w.wrong[0])
		}
		return nil, skip("the endpoint offers no template")
	}
	return w.templates, nil
}

// prefixed makes an element in the namespace of its parent-to-be.
func prefixed(parent *etree.Element, local, text string) *etree.Element {
	e := etree.NewElement(local)
	e.Space = parent.Space
	if text != "" {
		e.SetText(text)
	}
	return e
}

// contextParts is the sequence of a wsag:Context.
var contextParts = []string{"AgreementInitiator", "AgreementResponder", "ServiceProvider", "ExpirationTime", "TemplateId", "TemplateName"}

// setContext gives a child of the offer's Context this text, or this content.
func setContext(offer *etree.Element, local, text string, content ...*etree.Element) *etree.Element {
	c := xmldoc.Child(offer, agreement.NS, "Context")
	if c == nil {
		return nil
	}
	if old := xmldoc.Child(c, agreement.NS, local); old != nil {
		c.RemoveChild(old)
	}
	e := prefixed(c, local, text)
	for _, x := range content {
		e.AddChild(x)
	}
	at := len(c.Child)
	for _, later := range contextParts[slices.Index(contextParts, local)+1:] {
		if l := xmldoc.Child(c, agreement.NS, later); l != nil {
			at = l.Index()
			break
		}
	}
	if at == len(c.Child) { // before what is not WS-Agreement's
		for _, k := range c.ChildElements() {
			if xmldoc.NameOf(k).Space != agreement.NS {
				at = k.Index()
				break
			}
		}
	}
	c.InsertChildAt(at, e)
	return e
}

// unchanged makes the offer of a template's terms as they are.
func (m *model) unchanged() *etree.Element {
	o := xmldoc.Detach(m.element)
	o.Tag = "AgreementOffer"
	o.Attr = slices.DeleteFunc(o.Attr, func(a etree.Attr) bool { return a.Key == "TemplateId" || a.Key == "AgreementId" })
	if c := xmldoc.Child(o, agreement.NS, "CreationConstraints"); c != nil {
		o.RemoveChild(c)
	}
	if m.TemplateID != "" {
		setContext(o, "TemplateId", m.TemplateID)
	}
	if m.Name != "" {
		setContext(o, "TemplateName", m.Name)
	}
	return o
}

// broken gives what an offer breaks, as far as the kit can say.
func (m *model) broken(offer *etree.Element) []agreement.Broken {
	if m.checker == nil {
		return nil
	}
	return m.checker.Check(&agreement.Offer{Element: offer})
}

// offer makes an offer that complies: unchanged, or with values that the Items let.
func (m *model) offer() (*etree.Element, error) {
	o := m.unchanged()
	for range len(m.Constraints.Items) + 1 {
		broken := m.broken(o)
		if len(broken) == 0 {
			return o, nil
		}
		mended := false
		for i := range m.Constraints.Items {
			for _, v := range inside(&m.Constraints.Items[i]) {
				c := o.Copy()
				if put(c, &m.Constraints.Items[i], v) && len(m.broken(c)) < len(broken) {
					o, mended = c, true
					break
				}
			}
			if mended {
				break
			}
		}
		if !mended {
			return nil, fmt.Errorf("the kit finds no values by which an offer of the template %q complies: %s", m.Name, broken[0].Sentence)
		}
	}
	return o, nil
}

// rootNames are what the first step of a Location may say.
var rootNames = []xmldoc.Name{{Space: agreement.NS, Local: "AgreementOffer"}, {Space: agreement.NS, Local: "Template"}}

// at gives what an Item is about in an offer; nothing where its Location can't be read.
func at(offer *etree.Element, i *agreement.Item) []xpath.Node {
	x, err := xpath.Compile(i.Location, i.Scope)
	if err != nil {
		return nil
	}
	nodes, err := x.SelectIn(xpath.Build(offer), xpath.Options{RootNames: rootNames})
	if err != nil {
		return nil
	}
	return nodes
}

// put gives everything that an Item is about a value; false where it is about nothing, or
// about what holds elements.
func put(offer *etree.Element, i *agreement.Item, value string) bool {
	nodes := at(offer, i)
	for _, n := range nodes {
		e := n.Element()
		switch n.Kind() {
		case xpath.Element, xpath.Text:
			if e == nil || len(e.ChildElements()) > 0 {
				return false
			}
			e.SetText(value)
		case xpath.Attribute:
			for k := range e.Attr {
				if a := &e.Attr[k]; a.Key == n.Name().Local && (a.Space == "") == (n.Name().Space == "") && a.Space != "xmlns" {
					a.Value = value
				}
			}
		case xpath.Document, xpath.Comment, xpath.Instruction:
			return false
		}
	}
	return len(nodes) > 0
}

// xmlOf gives an element as text that stands by itself.
func xmlOf(e *etree.Element) string { return string(xmldoc.Marshal(e)) }

const (
	createInput  = "CreateAgreementInput"
	pendingInput = "CreatePendingAgreementInput"
)

// responseOf names the answer to a request.
func responseOf(input string) string { return strings.TrimSuffix(input, "Input") + "Response" }

// dealOf reads the answer to a request for an agreement, and remembers that there is one.
func (p *probe) dealOf(rep *reply, input string, offer *etree.Element) (*deal, error) {
	if err := rep.wantPayload(agreement.NS, responseOf(input)); err != nil {
		return nil, err
	}
	e := xmldoc.Child(rep.payload, agreement.NS, "CreatedAgreementEPR")
	if e == nil {
		return nil, fmt.Errorf("%s holds no CreatedAgreementEPR", responseOf(input))
	}
	epr, err := soap.DecodeEPR(e)
	if err != nil {
		return nil, fmt.Errorf("CreatedAgreementEPR: %s", fail.Sentence(err))
	}
	d := &deal{address: epr.Address, epr: epr, offer: offer}
	p.provider.made = append(p.provider.made, d)
	return d, nil
}

// makeDeal asks for an agreement; before and after stand round the offer.
func (p *probe) makeDeal(ctx context.Context, input string, offer *etree.Element, before, after string) (*deal, *reply, error) {
	rep, err := p.ask(ctx, wsagMessage(input, before+xmlOf(offer)+after))
	if err != nil {
		return nil, rep, err
	}
	d, err := p.dealOf(rep, input, offer)
	return d, rep, err
}

// accepted gives a template by which an offer was accepted, and the offer; a skip if there
// is none.
func (p *probe) accepted(ctx context.Context) (*model, *etree.Element, error) {
	w := &p.provider
	if w.taken != nil {
		o, err := w.taken.offer()
		return w.taken, o, err
	}
	list, err := p.models(ctx)
	if err != nil {
		return nil, nil, err
	}
	var why error
	for _, m := range list {
		o, err := m.offer()
		if err != nil {
			why = err
			continue
		}
		d, _, err := p.makeDeal(ctx, createInput, o, "", "")
		if err != nil {
			why = err
			continue
		}
		w.taken, w.standing = m, d
		return m, o, nil
	}
	return nil, nil, skip("no offer of a template as it is was accepted: %v", why)
}

// freshDeal gives a new agreement, for a check that changes it.
func (p *probe) freshDeal(ctx context.Context) (*deal, error) {
	_, o, err := p.accepted(ctx)
	if err != nil {
		return nil, err
	}
	d, _, err := p.makeDeal(ctx, createInput, o, "", "")
	if err != nil {
		return nil, skip("a second agreement is not to be had: %v", err)
	}
	return d, nil
}

// agreed gives an agreement that checks look at.
func (p *probe) agreed(ctx context.Context) (*deal, error) {
	if _, _, err := p.accepted(ctx); err != nil {
		return nil, err
	}
	return p.provider.standing, nil
}

// about makes a message one about an agreement: it goes where the EPR says, its reference
// parameters as headers (WS-Addressing 1.0 SOAP binding §2.3).
func (p *probe) about(d *deal, m message) (message, error) {
	u, err := url.Parse(d.address)
	home, errHome := url.Parse(p.opts.Endpoint)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return m, fmt.Errorf("the agreement's EPR has the address %q, which is no http or https URL", d.address)
	case errHome != nil || u.Host != home.Host:
		return m, skip("the agreement's EPR leads to another host, %s, where the kit does not follow", u.Host)
	}
	m.to = d.address
	m = m.under(wsaHeader("To", "", escape(d.address)) + wsaHeader("Action", "", m.action) + wsaHeader("MessageID", "", "urn:uuid:"+uuid.NewString()))
	for _, r := range d.epr.ReferenceParameters {
		e := xmldoc.Detach(r)
		e.CreateAttr("xmlns:isref", soap.NSWSA)
		e.CreateAttr("isref:IsReferenceParameter", "true")
		m = m.under(xmlOf(e))
	}
	return m, nil
}

// askAbout sends a message about an agreement.
func (p *probe) askAbout(ctx context.Context, d *deal, m message) (*reply, error) {
	m, err := p.about(d, m)
	if err != nil {
		return nil, err
	}
	return p.ask(ctx, m)
}

// property gives the values of one resource property of an agreement.
func (p *probe) property(ctx context.Context, d *deal, local string) ([]*etree.Element, error) {
	rep, err := p.askAbout(ctx, d, asking("wsag:"+local))
	if err != nil {
		return nil, err
	}
	if err := rep.wantPayload(nsProperties, "GetResourcePropertyResponse"); err != nil {
		return nil, fmt.Errorf("the property %s: %w", local, err)
	}
	list := rep.payload.ChildElements()
	for _, e := range list {
		if !xmldoc.Is(e, agreement.NS, local) {
			return nil, fmt.Errorf("asked for the property %s, got %s", local, xmldoc.NameOf(e))
		}
	}
	return list, nil
}

// dealState gives the state of an agreement.
func (p *probe) dealState(ctx context.Context, d *deal) (agreement.State, *etree.Element, error) {
	list, err := p.property(ctx, d, "AgreementState")
	if err != nil {
		return "", nil, err
	}
	if len(list) != 1 {
		return "", nil, fmt.Errorf("the agreement has %d AgreementState: wanted one", len(list))
	}
	s := xmldoc.Child(list[0], agreement.NS, "State")
	if s == nil {
		return "", list[0], errors.New("AgreementState holds no State")
	}
	state := agreement.State(xmldoc.Collapse(xmldoc.Text(s)))
	if !state.Valid() {
		return state, list[0], fmt.Errorf("the agreement's state is %q, which is none of the standard's", state)
	}
	return state, list[0], nil
}

// awaitDeal asks for an agreement's state until it is one of those wanted. seen are the states,
// each once.
func (p *probe) awaitDeal(ctx context.Context, d *deal, wanted func(agreement.State) bool) (seen []agreement.State, err error) {
	until := time.Now().Add(p.opts.Settle)
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		s, _, err := p.dealState(ctx, d)
		if err != nil {
			return seen, err
		}
		if len(seen) == 0 || seen[len(seen)-1] != s {
			seen = append(seen, s)
		}
		if wanted(s) {
			return seen, nil
		}
		if time.Now().Add(pause).After(until) {
			return seen, fmt.Errorf("after %v the agreement is still %s", p.opts.Settle, s)
		}
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return seen, ctx.Err()
		}
	}
}

func joined(states []agreement.State) string {
	var b []string
	for _, s := range states {
		b = append(b, string(s))
	}
	return strings.Join(b, ", ")
}

// wantContinuing fails unless the reply is a wsag:ContinuingFault.
func (r *reply) wantContinuing() (*etree.Element, error) {
	if r.fault == nil {
		return nil, fmt.Errorf("wanted a wsag:ContinuingFault, got %s", r)
	}
	d := r.fault.detailChild()
	if d == nil || !xmldoc.Is(d, agreement.NS, "ContinuingFault") {
		return nil, fmt.Errorf("wanted a fault with wsag:ContinuingFault in its detail, got %s", r)
	}
	return d, nil
}

// wantRefusal fails unless the reply refuses the request: with a wsag:ContinuingFault, or a
// fault that blames the sender, as a stack gives that checks messages by their schema.
func (r *reply) wantRefusal() error {
	if r.fault != nil {
		if d := r.fault.detailChild(); d != nil && xmldoc.Is(d, agreement.NS, "ContinuingFault") {
			return nil
		}
	}
	return r.wantFault(soap.Sender)
}

// wantDetail fails unless the fault's detail is one of these elements.
func (r *reply) wantDetail(names ...xmldoc.Name) (*etree.Element, error) {
	if r.fault == nil {
		return nil, fmt.Errorf("wanted a fault with %s, got %s", names[0].Local, r)
	}
	d := r.fault.detailChild()
	if d == nil || !slices.Contains(names, xmldoc.NameOf(d)) {
		return nil, fmt.Errorf("wanted a fault with %s in its detail, got %s", names[0].Local, r)
	}
	return d, nil
}

var (
	continuingFault  = xmldoc.Name{Space: agreement.NS, Local: "ContinuingFault"}
	resourceUnknown  = xmldoc.Name{Space: nsResource, Local: "ResourceUnknownFault"}
	invalidProperty  = xmldoc.Name{Space: nsProperties, Local: "InvalidResourcePropertyQNameFault"}
	propertyResponse = xmldoc.Name{Space: nsProperties, Local: "GetResourcePropertyResponse"}
)

// endDeals ends the agreements that the run left.
func (p *probe) endDeals(ctx context.Context) {
	if p.provider.listener != nil {
		p.provider.listener.close()
	}
	if p.unanswered >= silent {
		return
	}
	ctx, stop := context.WithTimeout(ctx, p.opts.Timeout)
	defer stop()
	left := 0
	for _, d := range p.provider.made {
		rep, err := p.askAbout(ctx, d, wsagMessage("TerminateInput", reason))
		if err != nil || rep.fault != nil && rep.fault.detailChild() == nil {
			left++ // those that ended before answer with a fault that says so
		}
	}
	if left > 0 {
		p.opts.Log.WarnContext(ctx, "agreements of the run were not ended", "number", left)
	}
}

// reason is the one child of a TerminateInput.
const reason = `<x:Reason xmlns:x="` + nsOwn + `">the check is over</x:Reason>`

// ordinary is the message that asks for least in the profile, and the answer to it.
func (p *probe) ordinary() (m message, space, response string) {
	if p.opts.Profile == WSAG {
		return asking(templates), propertyResponse.Space, propertyResponse.Local
	}
	return plain(), bes.NSFactory, plainResponse
}

// notOffered is a skip if the reply says that there is no such operation, in the words of
// SOAP and not of WS-Agreement.
func notOffered(rep *reply, operation string) error {
	if rep.status == http.StatusNotImplemented || rep.fault != nil && rep.fault.detailChild() == nil {
		return skip("the endpoint does not offer %s: %s", operation, rep)
	}
	return nil
}
