package agreement

import (
	"strconv"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Names of elements.
const (
	negotiationExtension   = "NegotiationExtension"
	renegotiationExtension = "RenegotiationExtension"
	negotiationOffer       = "NegotiationOffer"
	counterOffer           = "NegotiationCounterOffer"
)

// negotiation makes an element of WS-Agreement Negotiation, its prefixes declared.
func negotiation(local string) *etree.Element {
	e := etree.NewElement("neg:" + local)
	e.CreateAttr("xmlns:neg", NSNegotiation)
	e.CreateAttr("xmlns:wsag", NS)
	return e
}

// DecodeNegotiationOffer reads a neg:NegotiationOffer or a neg:NegotiationCounterOffer;
// refusals are as DecodeOffer's. One that describes no service is read.
func DecodeNegotiationOffer(e *etree.Element) (*NegotiationOffer, error) {
	return newReader(nil).negotiationOffer(e, negotiationOffer, counterOffer)
}

// DecodeNegotiationContext reads a neg:NegotiationContext; else as DecodeOffer.
func DecodeNegotiationContext(e *etree.Element) (*NegotiationContext, error) {
	return newReader(nil).negotiationContext(e)
}

// DecodeNegotiationExtension reads a neg:NegotiationExtension or a
// neg:RenegotiationExtension; else as DecodeOffer.
func DecodeNegotiationExtension(e *etree.Element) (*NegotiationExtension, error) {
	return newReader(nil).negotiationExtension(e)
}

// DecodeNegotiationProperties reads a neg:NegotiationProperties; else as DecodeOffer.
func DecodeNegotiationProperties(e *etree.Element) (*NegotiationProperties, error) {
	return newReader(nil).negotiationProperties(e)
}

// ParseNegotiationOffer reads a document that is a neg:NegotiationOffer; refusals name the
// line too.
func ParseNegotiationOffer(b []byte) (*NegotiationOffer, error) {
	return parse(b, func(r *reader, e *etree.Element) (*NegotiationOffer, error) {
		return r.negotiationOffer(e, negotiationOffer, counterOffer)
	})
}

// negotiationRoot checks the name of an element of WS-Agreement Negotiation.
func (r *reader) negotiationRoot(e *etree.Element, locals ...string) {
	n := r.doc.Name(e)
	for _, l := range locals {
		if n == (xmldoc.Name{Space: NSNegotiation, Local: l}) {
			return
		}
	}
	r.refuse(e, "is %s; expected %s of the namespace %s", quoted(n.String()), oneOf(locals), NSNegotiation)
}

// copyOf reads an element of a message by a reader of its own: its bounds are those of one
// document, and the first refusal stays.
func copyOf[T any](r *reader, e *etree.Element, decode func(*reader, *etree.Element) (*T, error)) (x T) {
	if e == nil || r.err != nil {
		return x
	}
	inner := &reader{doc: r.doc, inherited: r.inherited}
	v, err := decode(inner, e)
	r.inherited = inner.inherited
	if err != nil {
		r.err = err
		return x
	}
	return *v
}

func (r *reader) negotiationOffer(e *etree.Element, names ...string) (*NegotiationOffer, error) {
	r.negotiationRoot(e, names...)
	if r.err != nil {
		return nil, r.err
	}
	o := new(NegotiationOffer)
	var c *children
	o.Agreement, c = r.agreement(e, "neg:NegotiationOfferType", "neg:OfferId")
	o.OfferID = r.attributes(e, "neg:NegotiationOfferType", "neg:OfferId", "AgreementId")["neg:OfferId"]
	c.in(NSNegotiation)
	o.OfferContext = r.offerContext(c.need("NegotiationOfferContext"))
	o.Constraints = r.negotiationConstraints(c.need("NegotiationConstraints"))
	c.end()
	return done(r, o)
}

func (r *reader) offerContext(e *etree.Element) (x OfferContext) {
	if e == nil {
		return x
	}
	r.attributes(e, "neg:NegotiationOfferContextType")
	c := r.children(e).in(NSNegotiation)
	x.CounterOfferTo = r.text(c.need("CounterOfferTo"), "xs:string", MaxName)
	if t := c.take("ExpirationTime"); t != nil {
		x.ExpirationTime = r.time(t)
	}
	x.Creator = r.role(c.need("Creator"))
	if s := c.need("State"); s != nil {
		r.attributes(s, "neg:NegotiationOfferStateType")
		which := r.children(s).in(NSNegotiation)
		for _, state := range [...]OfferState{Advisory, Solicited, Acceptable, OfferRejected} {
			if i := which.take(string(state)); i != nil {
				x.State = state
				r.attributes(i, "neg:InnerNegotiationStateType")
				inner := r.children(i).in(NSNegotiation)
				x.Detail = inner.one()
				inner.end()
				break
			}
		}
		which.end()
		if x.State == "" {
			r.refuse(s, "holds no state; expected the element Advisory, Solicited, Acceptable or Rejected")
		}
	}
	x.Extensions = c.foreign()
	c.end()
	return x
}

func (r *reader) role(e *etree.Element) NegotiationRole {
	return NegotiationRole(r.word(e, "neg:NegotiationRoleType", string(NegotiationInitiator), string(NegotiationResponder)))
}

func (r *reader) negotiationConstraints(e *etree.Element) (x NegotiationConstraints) {
	if e == nil {
		return x
	}
	r.attributes(e, "neg:NegotiationConstraintSectionType")
	c := r.children(e).in(NSNegotiation)
	for i := c.take("Item"); i != nil; i = c.take("Item") {
		if len(x.Items) == MaxItems {
			r.refuse(i, "is more than the %d items that are taken", MaxItems)
		}
		attrs := r.attributes(i, "neg:NegotiationOfferItemType", "Name", "neg:Type", "neg:Importance")
		item := NegotiationItem{Type: ConstraintType(r.required(i, attrs, "neg:Type"))}
		if item.Type != Required && item.Type != Optional {
			r.refuse(i, "neg:Type is %s; expected Required or Optional", quoted(string(item.Type)))
		}
		if s, ok := attrs["neg:Importance"]; ok {
			if item.Importance, ok = integer(s); !ok {
				r.refuse(i, "neg:Importance is %s; expected a whole number within 64 bits", quoted(s))
			}
		}
		item.Item = r.itemContent(i, attrs["Name"])
		x.Items = append(x.Items, item)
	}
	c.in(NS)
	for f := c.take("Constraint"); f != nil; f = c.take("Constraint") {
		if len(x.Free) == MaxItems {
			r.refuse(f, "is more than the %d constraints that are taken", MaxItems)
		}
		x.Free = append(x.Free, r.keep(f))
	}
	c.end()
	return x
}

func (r *reader) negotiationContext(e *etree.Element) (*NegotiationContext, error) {
	r.negotiationRoot(e, "NegotiationContext")
	r.attributes(e, "neg:NegotiationContextType")
	x := new(NegotiationContext)
	c := r.children(e).in(NSNegotiation)
	if t := c.need("NegotiationType"); t != nil {
		r.attributes(t, "neg:NegotiationType")
		which := r.children(t).in(NSNegotiation)
		kind := which.take("Negotiation")
		if kind == nil {
			if kind = which.need("Renegotiation"); kind != nil {
				x.Renegotiation = new(Renegotiation)
			}
		}
		which.end()
		if kind != nil {
			r.attributes(kind, "")
			inner := r.children(kind).in(NSNegotiation)
			if x.Renegotiation != nil {
				if epr := r.epr(inner.need("ResponderAgreementEPR")); epr != nil {
					x.Renegotiation.ResponderEPR = *epr
				}
				x.Renegotiation.InitiatorEPR = r.epr(inner.take("InitiatorAgreementEPR"))
			}
			x.TypeExtensions = inner.foreign()
			inner.end()
		}
	}
	if t := c.take("ExpirationTime"); t != nil {
		x.ExpirationTime = r.time(t)
	}
	x.Initiator = r.keep(c.take("NegotiationInitiator"))
	x.Responder = r.keep(c.take("NegotiationResponder"))
	x.AgreementResponder = r.role(c.need("AgreementResponder"))
	x.FactoryEPR = r.epr(c.take("AgreementFactoryEPR"))
	x.Extensions = c.foreign()
	c.end()
	return done(r, x)
}

func (r *reader) negotiationExtension(e *etree.Element) (*NegotiationExtension, error) {
	r.negotiationRoot(e, negotiationExtension, renegotiationExtension)
	r.attributes(e, "neg:"+e.Tag+"Type")
	x := new(NegotiationExtension)
	c := r.children(e).in(NSNegotiation)
	if e.Tag == renegotiationExtension {
		x.ResponderEPR = r.epr(c.need("ResponderNegotiationEPR"))
	} else {
		x.ResponderEPR = r.epr(c.take("ResponderNegotiationEPR"))
	}
	x.InitiatorEPR = r.epr(c.take("InitiatorNegotiationEPR"))
	if e.Tag == renegotiationExtension {
		x.AgreementEPR = r.epr(c.need("ResponderAgreementEPR"))
	}
	x.OfferContext = r.offerContext(c.need("NegotiationOfferContext"))
	x.Extension = c.one()
	c.end()
	return done(r, x)
}

// negotiableTemplate reads a neg:NegotiableTemplate, which has the content of a
// wsag:Template.
func (r *reader) negotiableTemplate(e *etree.Element) (*Template, error) {
	t := e.Copy()
	t.Attr = append(t.Attr, xmldoc.Inherited(e)...)
	epr := soap.EPR{Source: t}
	return newReader(nil).template(epr.Echo("wsag", xmldoc.Name{Space: NS, Local: "Template"}))
}

func (r *reader) negotiationProperties(e *etree.Element) (*NegotiationProperties, error) {
	r.negotiationRoot(e, "NegotiationProperties")
	r.attributes(e, "neg:NegotiationPropertiesType")
	p := new(NegotiationProperties)
	c := r.children(e).in(NSNegotiation)
	p.Context = copyOf(r, c.need("NegotiationContext"), (*reader).negotiationContext)
	for t := c.take("NegotiableTemplate"); t != nil; t = c.take("NegotiableTemplate") {
		p.Templates = append(p.Templates, copyOf(r, t, (*reader).negotiableTemplate))
	}
	p.Offers = r.offers(c, negotiationOffer, MaxOffers*maxRead)
	c.end()
	return done(r, p)
}

// offers takes the offers of a message.
func (r *reader) offers(c *children, name string, most int) []NegotiationOffer {
	var list []NegotiationOffer
	for o := c.take(name); o != nil; o = c.take(name) {
		if len(list) == most {
			r.refuse(o, "is more than the %d offers that are taken at once", most)
			return nil
		}
		list = append(list, copyOf(r, o, func(r *reader, e *etree.Element) (*NegotiationOffer, error) { return r.negotiationOffer(e, name) }))
	}
	return list
}

// Encode gives the neg:NegotiationOffer.
func (o *NegotiationOffer) Encode() *etree.Element { return o.encodeAs(negotiationOffer) }

func (o *NegotiationOffer) encodeAs(local string) *etree.Element {
	e := negotiation(local)
	attrIf(e, "neg:OfferId", o.OfferID)
	o.encode(e)
	o.OfferContext.encode(e.CreateElement("neg:NegotiationOfferContext"))
	c := e.CreateElement("neg:NegotiationConstraints")
	for i := range o.Constraints.Items {
		n := &o.Constraints.Items[i]
		x := c.CreateElement("neg:Item")
		x.CreateAttr("neg:Type", string(n.Type))
		if n.Importance != 0 {
			x.CreateAttr("neg:Importance", strconv.FormatInt(n.Importance, 10))
		}
		n.encode(x)
	}
	for _, f := range o.Constraints.Free {
		own(c, "Constraint", f, true)
	}
	return e
}

func (x *OfferContext) encode(e *etree.Element) {
	e.CreateElement("neg:CounterOfferTo").SetText(x.CounterOfferTo)
	encodeTime(e, "neg:ExpirationTime", x.ExpirationTime)
	e.CreateElement("neg:Creator").SetText(string(x.Creator))
	foreign(e.CreateElement("neg:State").CreateElement("neg:"+string(x.State)), x.Detail)
	foreign(e, x.Extensions...)
}

func encodeTime(e *etree.Element, qname string, t time.Time) {
	if !t.IsZero() {
		e.CreateElement(qname).SetText(t.UTC().Format(time.RFC3339Nano))
	}
}

// encodeEPR adds a reference, as it came if it did.
func encodeEPR(e *etree.Element, local string, x *soap.EPR) {
	if x != nil {
		e.AddChild(x.Echo("neg", xmldoc.Name{Space: NSNegotiation, Local: local}))
	}
}

// Encode gives the neg:NegotiationContext.
func (x *NegotiationContext) Encode() *etree.Element {
	e := negotiation("NegotiationContext")
	t := e.CreateElement("neg:NegotiationType")
	if x.Renegotiation != nil {
		t = t.CreateElement("neg:Renegotiation")
		encodeEPR(t, "ResponderAgreementEPR", &x.Renegotiation.ResponderEPR)
		encodeEPR(t, "InitiatorAgreementEPR", x.Renegotiation.InitiatorEPR)
	} else {
		t = t.CreateElement("neg:Negotiation")
	}
	foreign(t, x.TypeExtensions...)
	encodeTime(e, "neg:ExpirationTime", x.ExpirationTime)
	party := func(local string, content *etree.Element) {
		if content != nil {
			encodeEPR(e, local, &soap.EPR{Source: xmldoc.Detach(content)})
		}
	}
	party(string(NegotiationInitiator), x.Initiator)
	party(string(NegotiationResponder), x.Responder)
	e.CreateElement("neg:AgreementResponder").SetText(string(x.AgreementResponder))
	encodeEPR(e, "AgreementFactoryEPR", x.FactoryEPR)
	foreign(e, x.Extensions...)
	return e
}

// Encode gives the neg:NegotiationExtension, or the neg:RenegotiationExtension where it
// replaces an agreement, for CreateRequest.Noncritical.
func (x *NegotiationExtension) Encode() *etree.Element {
	local := negotiationExtension
	if x.AgreementEPR != nil {
		local = renegotiationExtension
	}
	e := negotiation(local)
	encodeEPR(e, "ResponderNegotiationEPR", x.ResponderEPR)
	encodeEPR(e, "InitiatorNegotiationEPR", x.InitiatorEPR)
	encodeEPR(e, "ResponderAgreementEPR", x.AgreementEPR)
	x.OfferContext.encode(e.CreateElement("neg:NegotiationOfferContext"))
	foreign(e, x.Extension)
	return e
}

// Encode gives the neg:NegotiationProperties.
func (p *NegotiationProperties) Encode() *etree.Element {
	e := negotiation("NegotiationProperties")
	for _, x := range p.elements() {
		e.AddChild(x)
	}
	return e
}

// elements gives each resource property, in the order of the schema.
func (p *NegotiationProperties) elements() []*etree.Element {
	list := []*etree.Element{p.Context.Encode()}
	for i := range p.Templates {
		epr := soap.EPR{Source: p.Templates[i].Encode()}
		list = append(list, epr.Echo("neg", xmldoc.Name{Space: NSNegotiation, Local: "NegotiableTemplate"}))
	}
	for i := range p.Offers {
		list = append(list, p.Offers[i].Encode())
	}
	return list
}
