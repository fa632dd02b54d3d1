package agreement

import (
	"strconv"
	"strings"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Operations, by the local names of their requests.
const (
	opCreate        = "CreateAgreementInput"
	opCreatePending = "CreatePendingAgreementInput"
	opTerminate     = "TerminateInput"
	opAccept        = "AcceptAgreementInput"
	opReject        = "RejectAgreementInput"
	opProperty      = "GetResourceProperty"
	opProperties    = "GetMultipleResourceProperties"
	opDocument      = "GetResourcePropertyDocument"
	opList          = "ListAgreements" // of ours
)

const (
	noReason = "NoReason" // of ours: stands for a reason that is not given; the schema wants one

	// MaxList is the most keys in one answer of ListAgreements.
	MaxList = 1000
	// maxProperties is how many properties one request may name.
	maxProperties = 20
)

// encodeCreate makes the request of CreateAgreement or CreatePendingAgreement.
func encodeCreate(op string, req *CreateRequest) *etree.Element {
	e := NewElement(op)
	epr := func(local string, x *soap.EPR) {
		if x != nil {
			e.AddChild(x.Echo("wsag", xmldoc.Name{Space: NS, Local: local}))
		}
	}
	if op == opCreatePending {
		epr("AgreementAcceptanceEPR", req.AcceptanceEPR)
	}
	epr("InitiatorAgreementEPR", req.InitiatorEPR)
	e.AddChild(req.Offer.Encode())
	noncritical(e, req.Noncritical)
	foreign(e, req.Critical...)
	return e
}

func noncritical(e *etree.Element, list []*etree.Element) { noncriticalAs(e, "wsag", list) }

func noncriticalAs(e *etree.Element, prefix string, list []*etree.Element) {
	for _, x := range list {
		if x != nil {
			foreign(e.CreateElement(prefix+":NoncriticalExtension"), x)
		}
	}
}

// create reads the request of CreateAgreement or CreatePendingAgreement. prepares says that
// p:Prepare is known, whose content is nil where there is none, and understands which other
// critical extensions are.
func (r *reader) create(e *etree.Element, op string, prepares bool, understands func(xmldoc.Name) bool) (*CreateRequest, *Preparation, error) {
	req := new(CreateRequest)
	r.attributes(e, op+"Type")
	c := r.children(e)
	if op == opCreatePending {
		req.AcceptanceEPR = r.epr(c.take("AgreementAcceptanceEPR"))
	}
	req.InitiatorEPR = r.epr(c.take("InitiatorAgreementEPR"))
	if o := c.need("AgreementOffer"); o != nil {
		offer, err := r.offer(o)
		if err != nil {
			return nil, nil, err
		}
		req.Offer = *offer
		req.Received = r.doc.Standalone(o)
	}
	req.Noncritical = r.noncritical(c)
	var p *Preparation
	for len(c.left) > 0 && r.err == nil {
		if prepares && op == opCreatePending && p == nil {
			if p = r.prepare(c); p != nil {
				continue
			}
		}
		x := c.left[0]
		if n := r.doc.Name(x); n.Space == NS || n.Space == "" || !understands(n) {
			break
		}
		if len(req.Critical) == maxList {
			r.refuse(x, "is more than the %d extensions that are taken", maxList)
		}
		req.Critical = append(req.Critical, r.keep(x))
		c.left = c.left[1:]
	}
	if err := r.critical(c); err != nil {
		return nil, nil, err
	}
	req, err := done(r, req)
	return req, p, err
}

func (r *reader) epr(e *etree.Element) *soap.EPR {
	if e == nil || r.err != nil {
		return nil
	}
	kept := r.keep(e)
	if kept == nil {
		return nil
	}
	epr, err := soap.DecodeEPR(kept)
	if err != nil {
		r.refuse(e, "%s", fail.Sentence(err))
		return nil
	}
	return &epr
}

// noncritical gives what stands in the wsag:NoncriticalExtension elements: one
// element of another namespace in each.
func (r *reader) noncritical(c *children) []*etree.Element {
	var list []*etree.Element
	for x := c.take("NoncriticalExtension"); x != nil; x = c.take("NoncriticalExtension") {
		if len(list) == maxList {
			r.refuse(x, "is more than the %d extensions that are taken", maxList)
		}
		r.attributes(x, "NoncriticalExtensionType")
		inner := r.children(x)
		if f := inner.one(); f != nil {
			list = append(list, f)
		} else {
			r.refuse(x, "takes one element of another namespace")
		}
		inner.end()
	}
	return list
}

// critical refuses what is left: an extension beside the noncritical ones is one
// that must be understood, and is not.
func (r *reader) critical(c *children) error {
	if r.err != nil {
		return r.err
	}
	if len(c.left) > 0 {
		n := r.doc.Name(c.left[0])
		if n.Space != c.named() && n.Space != "" {
			at := ""
			if p := r.doc.Position(c.left[0]); !p.IsZero() {
				at = "line " + p.String() + ": "
			}
			return Refuse(UnsupportedTerm, at+"the extension "+quoted(n.String())+" is critical where it stands and not known here; leave it out, or put it into a NoncriticalExtension")
		}
	}
	c.end()
	return r.err
}

// encodeTerminate makes the request of Terminate.
func encodeTerminate(reason *etree.Element) *etree.Element {
	e := NewElement(opTerminate)
	if reason == nil {
		reason = etree.NewElement("p:" + noReason)
		reason.CreateAttr("xmlns:p", NSPortolan)
	}
	foreign(e, reason)
	return e
}

// terminate reads the request of Terminate: one element of any namespace. The
// schema requires it; a request without one is taken.
func (r *reader) terminate(e *etree.Element) (reason *etree.Element, err error) {
	r.attributes(e, "TerminateInputType")
	c := r.children(e)
	if len(c.left) > 0 {
		reason = r.keep(c.left[0])
		c.left = c.left[1:]
	}
	c.end()
	if r.err == nil && reason != nil && xmldoc.Is(reason, NSPortolan, noReason) {
		reason = nil
	}
	return reason, r.err
}

// decision reads the request of Accept or Reject.
func (r *reader) decision(e *etree.Element) ([]*etree.Element, error) {
	r.attributes(e, "AgreementAcceptanceInputType")
	c := r.children(e)
	list := r.noncritical(c)
	if err := r.critical(c); err != nil {
		return nil, err
	}
	return list, nil
}

// property reads the name of a resource property: a QName, whose prefix must be in
// scope.
func (r *reader) property(e *etree.Element) xmldoc.Name {
	s := r.text(e, "xs:QName", MaxName)
	if r.err != nil {
		return xmldoc.Name{}
	}
	n, err := xmldoc.ResolveQName(e, xmldoc.Collapse(s))
	if err != nil {
		r.refuse(e, "%v; expected the name of a resource property, such as wsag:Template", err)
	}
	return n
}

// properties read the names of GetMultipleResourceProperties.
func (r *reader) propertyNames(e *etree.Element) []xmldoc.Name {
	r.attributes(e, "")
	var list []xmldoc.Name
	for _, c := range r.children(e).left {
		if r.doc.Name(c) != (xmldoc.Name{Space: nsProperties, Local: "ResourceProperty"}) {
			r.refuse(c, "does not belong here; expected ResourceProperty")
		}
		if len(list) == maxProperties {
			r.refuse(e, "names more than %d properties", maxProperties)
		}
		if list = append(list, r.property(c)); r.err != nil {
			return nil
		}
	}
	if len(list) == 0 {
		r.refuse(e, "names no ResourceProperty")
	}
	return list
}

// list reads the request of ListAgreements: the key before which to begin, and how
// many.
func (r *reader) list(e *etree.Element) (before string, limit int, err error) {
	limit = MaxList
	seen := map[string]bool{}
	for _, c := range r.children(e).left {
		n := r.doc.Name(c)
		if n.Space != NSPortolan || seen[n.Local] {
			r.refuse(c, "%s does not belong here, or stands there twice", quoted(n.String()))
			break
		}
		seen[n.Local] = true
		v := strings.TrimSpace(r.text(c, "", MaxName))
		switch n.Local {
		case "Before":
			before = v
		case "Limit":
			i, err := strconv.Atoi(v)
			if err != nil || i < 1 {
				r.refuse(c, "is %s; expected a whole number, 1 or more", quoted(v))
			}
			limit = min(i, MaxList)
		default:
			r.refuse(c, "does not belong here")
		}
	}
	return before, limit, r.err
}

// portolan makes an element of ours, its prefix declared.
func portolan(local string) *etree.Element {
	e := etree.NewElement("p:" + local)
	e.CreateAttr("xmlns:p", NSPortolan)
	return e
}

// propertiesElement makes an element of WS-ResourceProperties, its prefix declared.
func propertiesElement(local string) *etree.Element {
	e := etree.NewElement("wsrf-rp:" + local)
	e.CreateAttr("xmlns:wsrf-rp", nsProperties)
	return e
}
