package soap

import (
	"errors"
	"strings"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Bounds on what a stranger's ReplyTo can make us send back.
const (
	maxReferenceParameters     = 32
	maxReferenceParametersSize = 64 << 10
)

// wsaHeaders are the headers of WS-Addressing that we understand.
var wsaHeaders = map[string]bool{
	"To": true, "Action": true, "MessageID": true, "ReplyTo": true, "FaultTo": true, "From": true, "RelatesTo": true,
}

// parseAddressing reads the addressing headers that are aimed at us (WS-Addressing
// 1.0 core §3, SOAP binding §3). With a fault, what could be read is kept, so
// that the fault can relate to its message.
func parseAddressing(p *Parsed) *Fault {
	a := &p.Addressing
	found := map[string][]*etree.Element{}
	for _, b := range p.targeted {
		if n := p.Document.Name(b); n.Space == NSWSA && wsaHeaders[n.Local] {
			found[n.Local] = append(found[n.Local], b)
		}
	}
	if len(found) == 0 {
		return nil
	}
	a.Engaged = true
	var first *Fault // all headers are read before the first fault is told
	fault := func(f *Fault) {
		if first == nil {
			first = f
		}
	}
	text := func(local string, into *string) {
		switch bs := found[local]; len(bs) {
		case 0:
		case 1:
			*into = xmldoc.Collapse(xmldoc.Text(bs[0]))
		default:
			fault(invalidHeader("InvalidCardinality", local, "the header wsa:%s is there %d times: it can come once", local, len(bs)))
		}
	}
	text("MessageID", &a.MessageID)
	text("Action", &a.Action)
	text("To", &a.To)
	epr := func(local string, into **EPR) {
		switch bs := found[local]; len(bs) {
		case 0:
		case 1:
			e, f := headerEPR(local, bs[0])
			if f != nil {
				fault(f)
				return
			}
			*into = e
		default:
			fault(invalidHeader("InvalidCardinality", local, "the header wsa:%s is there %d times: it can come once", local, len(bs)))
		}
	}
	epr("ReplyTo", &a.ReplyTo)
	epr("FaultTo", &a.FaultTo)
	epr("From", &a.From)
	for _, b := range found["RelatesTo"] {
		kind, given := b.SelectAttrValue("RelationshipType", ""), b.SelectAttr("RelationshipType") != nil
		if a.RelatesTo == "" || !given || kind == NSWSA+"/reply" {
			a.RelatesTo = xmldoc.Collapse(xmldoc.Text(b))
		}
	}
	if first == nil && len(found["Action"]) == 0 {
		first = headerRequired("Action")
	}
	return first
}

// headerEPR reads an endpoint reference that is a header.
func headerEPR(local string, b *etree.Element) (*EPR, *Fault) {
	if f := replyable(local, b); f != nil {
		return nil, f
	}
	e, err := DecodeEPR(b)
	switch {
	case errors.Is(err, ErrNoAddress):
		return nil, invalidHeader("MissingAddressInEPR", local, "the header wsa:%s lacks its wsa:Address", local)
	case err != nil:
		return nil, invalidHeader("InvalidEPR", local, "the header wsa:%s is not an endpoint reference: it has more than one wsa:Address", local)
	case !absoluteIRI(e.Address):
		return nil, invalidHeader("InvalidAddress", local, "the address %s in wsa:%s is not an absolute IRI", bounded(e.Address), local)
	}
	return &e, nil
}

// replyable refuses reference parameters that could not be sent back: they are
// the sender's data, and none of them may act as a header of ours (WS-Addressing
// 1.0 core §7), nor may their copies outgrow what came.
func replyable(local string, b *etree.Element) *Fault {
	bad := func(format string, args ...any) *Fault {
		return invalidHeader("InvalidEPR", local, "the header wsa:"+local+" is refused: "+format, args...)
	}
	count, size := 0, 0
	for _, c := range b.ChildElements() {
		if !xmldoc.Is(c, NSWSA, "ReferenceParameters") {
			continue
		}
		for _, p := range c.ChildElements() {
			n := xmldoc.NameOf(p)
			if reservedSpace(n.Space) {
				return bad("a reference parameter must not be %s", shown(n))
			}
			for i := range p.Attr {
				a := &p.Attr[i]
				if a.Space == "" || a.Space == "xmlns" {
					continue
				}
				if q, err := xmldoc.ResolveQName(p, a.Space+":"+a.Key); err == nil && (q.Space == NS11 || q.Space == NS12) {
					return bad("a reference parameter must not carry %s", shown(q))
				}
			}
			count++
			size += weight(p) + scopeWeight(p)
			if count > maxReferenceParameters || size > maxReferenceParametersSize {
				return bad("it has more than %d reference parameters or %d bytes of them", maxReferenceParameters, maxReferenceParametersSize)
			}
		}
	}
	return nil
}

// reservedSpace names the namespaces whose headers mean something to a receiver.
func reservedSpace(space string) bool {
	switch space {
	case NSWSA, NSWSSE, NSWSU, NS11, NS12, "http://www.w3.org/2000/09/xmldsig#":
		return true
	}
	return false
}

// weight estimates the bytes that an element takes when written; it stops
// counting where that is already too much.
func weight(e *etree.Element) int {
	n := 2*len(e.Tag) + 2*len(e.Space) + 5
	for i := range e.Attr {
		n += len(e.Attr[i].Space) + len(e.Attr[i].Key) + len(e.Attr[i].Value) + 4
	}
	for _, t := range e.Child {
		if n > maxReferenceParametersSize {
			return n
		}
		switch t := t.(type) {
		case *etree.Element:
			n += weight(t)
		case *etree.CharData:
			n += len(t.Data)
		case *etree.Comment:
			n += len(t.Data)
		}
	}
	return n
}

// scopeWeight estimates the bytes of the declarations that a copy of e takes along.
func scopeWeight(e *etree.Element) int {
	n := 0
	for _, a := range xmldoc.Inherited(e) {
		n += len(a.Key) + len(a.Value)
	}
	return n
}

// absoluteIRI reports whether s begins with a scheme (RFC 3987 §2.2).
func absoluteIRI(s string) bool {
	scheme, rest, ok := strings.Cut(s, ":")
	if !ok || scheme == "" || rest == "" || strings.ContainsAny(s, " \"<>\\^`{|}") {
		return false
	}
	for i, c := range scheme {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || !(c >= '0' && c <= '9' || c == '+' || c == '-' || c == '.')) {
			return false
		}
	}
	return true
}

// checkReplyAddresses refuses answers to anywhere but this connection: a gateway
// that calls any address it is told could be made to attack others.
func checkReplyAddresses(a *Addressing) *Fault {
	for _, h := range []struct {
		local string
		epr   *EPR
	}{{"ReplyTo", a.ReplyTo}, {"FaultTo", a.FaultTo}} {
		if h.epr != nil && h.epr.Address != Anonymous && h.epr.Address != None {
			return invalidHeader("OnlyAnonymousAddressSupported", h.local,
				"answers go back on the connection only: wsa:%s must be %s or %s, or left out", h.local, Anonymous, None)
		}
	}
	return nil
}

// checkStrictly holds a message to the letter of WS-Addressing where many
// clients do not keep it.
func checkStrictly(p *Parsed, op *Operation) *Fault {
	a := &p.Addressing
	if !a.Engaged {
		return nil
	}
	if a.MessageID == "" {
		return headerRequired("MessageID")
	}
	if p.SOAPAction != "" && p.SOAPAction != a.Action {
		return invalidHeader("ActionMismatch", "Action", "wsa:Action is %s and SOAPAction is %s: they must agree", bounded(a.Action), bounded(p.SOAPAction))
	}
	if a.Action != op.Action {
		return invalidHeader("ActionMismatch", "Action", "wsa:Action is %s and the Body holds %s, whose action is %s", bounded(a.Action), shown(op.Name), op.Action)
	}
	return nil
}
