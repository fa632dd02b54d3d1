package soap

import (
	"context"
	"net/http"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Namespaces of the SOAP layer.
const (
	NS11   = "http://schemas.xmlsoap.org/soap/envelope/"
	NS12   = "http://www.w3.org/2003/05/soap-envelope"
	NSWSA  = "http://www.w3.org/2005/08/addressing"
	NSWSSE = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd"
	NSWSU  = "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd"
)

// URIs of WS-Addressing 1.0.
const (
	Anonymous       = NSWSA + "/anonymous"
	None            = NSWSA + "/none"
	ActionWSAFault  = NSWSA + "/fault"      // faults of addressing itself
	ActionSOAPFault = NSWSA + "/soap/fault" // generic SOAP faults
)

// Version is a SOAP version.
type Version uint8

// The versions.
const (
	V11 Version = iota + 1
	V12
)

// String gives "1.1" or "1.2".
func (v Version) String() string {
	if v == V12 {
		return "1.2"
	}
	return "1.1"
}

// Namespace gives the namespace of the version's envelope.
func (v Version) Namespace() string {
	if v == V12 {
		return NS12
	}
	return NS11
}

// ContentType gives the media type that the version is sent as.
func (v Version) ContentType() string {
	if v == V12 {
		return "application/soap+xml; charset=utf-8"
	}
	return "text/xml; charset=utf-8"
}

// EPR is a wsa:EndpointReference. Reference parameters and metadata are kept as
// they came, each with the namespaces it uses declared on itself: some stacks
// lose what is declared higher up.
type EPR struct {
	Address             string
	ReferenceParameters []*etree.Element
	Metadata            []*etree.Element
	Extensions          []*etree.Element
	// Source is the element that the reference was decoded from, detached, for
	// answers that must echo it; nil for a reference of our own.
	Source *etree.Element
}

// Addressing is what the WS-Addressing headers that are aimed at us said. The
// zero value means that the sender does not use WS-Addressing.
type Addressing struct {
	Engaged   bool
	To        string
	Action    string
	MessageID string
	RelatesTo string // of an answer: the relationship "reply" if there are several
	ReplyTo   *EPR
	FaultTo   *EPR
	From      *EPR
}

// Parsed is an envelope that was read and whose structure holds, from a sender
// that nobody has checked yet.
type Parsed struct {
	Version    Version
	Document   *xmldoc.Document
	Header     *etree.Element // nil without one
	Body       *etree.Element // the Body element
	Payload    *etree.Element // the Body's one child; nil in an empty Body
	SOAPAction string         // from SOAPAction or the media type's action, quotes stripped; "" if none
	Addressing Addressing
	HTTP       *http.Request // nil for messages that did not come over HTTP

	targeted []*etree.Element // the header blocks that are aimed at us
}

// Principal is who sent a message.
type Principal struct {
	Name   string // in the form of its method: a DN, a user name, "anonymous"
	Method string // how it was established: "none", "tls", "username", "x509"
	// Domain is that of one from elsewhere; "" is one of our own.
	Domain string
	// Account is the local account that jobs of a user from elsewhere run as; of our own users
	// the sites know it by their names.
	Account string
	// VO is that for which a user from elsewhere acts here; "" is none.
	VO string
}

// Verified is a message whose sender is established. Handlers accept only this.
type Verified struct {
	*Parsed
	Principal Principal
}

// A Verifier turns a parsed message into a verified one or refuses it with a
// *Fault. Understands names the header blocks that it processes, so that
// mustUnderstand on them is honoured.
type Verifier interface {
	Understands(xmldoc.Name) bool
	Verify(ctx context.Context, m *Parsed) (*Verified, error)
}

// WithPrincipal gives a context that carries who asks. The protocol services
// (bes.Service and its like) find it with PrincipalFrom.
func WithPrincipal(ctx context.Context, p Principal) context.Context {
	return context.WithValue(ctx, principalKey{}, p)
}

// PrincipalFrom gives who asks; the zero Principal when nobody said.
func PrincipalFrom(ctx context.Context) Principal {
	p, _ := ctx.Value(principalKey{}).(Principal)
	return p
}

type principalKey struct{}

// Operation is one request that an endpoint answers, found by the expanded name
// of the body's element.
type Operation struct {
	Name        xmldoc.Name
	Action      string // wsa:Action and SOAPAction of the request
	ReplyAction string
	FaultAction string // wsa:Action of this operation's own faults
	// Handle answers the message with the reply's body element, which declares
	// the prefixes it uses; nil for a one-way operation. Its error becomes a fault
	// by the endpoint's FaultOf, unless it is a *Fault already.
	Handle func(ctx context.Context, m *Verified) (*etree.Element, error)
}

// Blocks gives the header blocks of that name that are aimed at us, in order.
func (p *Parsed) Blocks(space, local string) []*etree.Element {
	var found []*etree.Element
	for _, b := range p.targeted {
		if xmldoc.Is(b, space, local) {
			found = append(found, b)
		}
	}
	return found
}

// Operations indexes operations by their body element. It panics where two have
// the same one: that is a mistake in the program.
func Operations(ops ...Operation) map[xmldoc.Name]*Operation {
	m := make(map[xmldoc.Name]*Operation, len(ops))
	for i := range ops {
		op := &ops[i]
		if m[op.Name] != nil {
			panic("soap: two operations for " + op.Name.String())
		}
		m[op.Name] = op
	}
	return m
}
