package conformance

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// reply is what came back.
type reply struct {
	status    int
	header    http.Header
	raw       []byte
	took      time.Duration
	sentClose bool

	// Set by parse.
	doc     *xmldoc.Document
	version soap.Version
	head    *etree.Element // the Header; nil without one
	payload *etree.Element // the Body's child; nil in an empty Body
	fault   *fault         // the payload, if it is a fault
}

// fault is a SOAP fault of either version, as it stood.
type fault struct {
	element  *etree.Element
	code     xmldoc.Name   // faultcode, or Code/Value
	subcodes []xmldoc.Name // SOAP 1.2, from general to specific
	reason   string
	detail   *etree.Element
}

// String says what came back, for a report.
func (r *reply) String() string {
	s := fmt.Sprintf("HTTP %d", r.status)
	switch {
	case r.fault != nil:
		var codes []string
		for _, n := range r.fault.names() {
			codes = append(codes, n.Local)
		}
		s += fmt.Sprintf(", SOAP %s fault %s", versionName(r.version), strings.Join(codes, "/"))
		if d := r.fault.detailChild(); d != nil {
			s += ", detail " + xmldoc.NameOf(d).Local
		}
		s += ": " + r.fault.reason
	case r.payload != nil:
		s += fmt.Sprintf(", SOAP %s %s", versionName(r.version), xmldoc.NameOf(r.payload).Local)
	case r.version != 0:
		s += ", SOAP " + versionName(r.version) + " with an empty Body"
	case len(r.raw) == 0:
		s += ", no content"
	default:
		s += fmt.Sprintf(", %s beginning %q", r.header.Get("Content-Type"), r.raw[:min(len(r.raw), 60)])
	}
	return s
}

// media gives the reply's media type, without parameters.
func (r *reply) media() string {
	m, _, err := mime.ParseMediaType(r.header.Get("Content-Type"))
	if err != nil {
		return r.header.Get("Content-Type")
	}
	return m
}

// replyLimits lets long factory attributes through and nothing deep.
var replyLimits = xmldoc.Limits{Bytes: replyLimit}

// parse reads the reply as a SOAP message, strictly.
func (r *reply) parse() error {
	notSOAP := func(why string) error { return fmt.Errorf("the answer is not a SOAP message: %s (%s)", why, r) }
	if len(r.raw) == 0 {
		return notSOAP("it is empty")
	}
	doc, err := xmldoc.ReadBytes(r.raw, replyLimits)
	if err != nil {
		return notSOAP(err.Error())
	}
	r.doc = doc
	root := doc.Root()
	name := xmldoc.NameOf(root)
	switch {
	case name.Local == "Envelope" && name.Space == soap.NS11:
		r.version = soap.V11
	case name.Local == "Envelope" && name.Space == soap.NS12:
		r.version = soap.V12
	default:
		return notSOAP("its root is " + name.String())
	}
	ns := name.Space
	r.head = xmldoc.Child(root, ns, "Header")
	body := xmldoc.Child(root, ns, "Body")
	if body == nil {
		return notSOAP("it has no Body")
	}
	var order []string
	for _, c := range root.ChildElements() {
		order = append(order, xmldoc.NameOf(c).Local)
	}
	if want := []string{"Header", "Body"}; !slices.Equal(order, want) && !slices.Equal(order, want[1:]) {
		return notSOAP("the Envelope holds " + strings.Join(order, ", "))
	}
	kids := body.ChildElements()
	if len(kids) > 1 {
		return notSOAP(fmt.Sprintf("its Body has %d children", len(kids)))
	}
	if len(kids) == 0 {
		return nil
	}
	r.payload = kids[0]
	if xmldoc.Is(r.payload, ns, "Fault") {
		return r.readFault(ns)
	}
	return nil
}

func (r *reply) readFault(ns string) error {
	f := &fault{element: r.payload}
	r.fault = f
	var code *etree.Element
	if r.version == soap.V11 {
		// SOAP 1.1 §4.4: the children are unqualified.
		code = xmldoc.Child(f.element, "", "faultcode")
		if s := xmldoc.Child(f.element, "", "faultstring"); s != nil {
			f.reason = strings.TrimSpace(xmldoc.Text(s))
		}
		f.detail = xmldoc.Child(f.element, "", "detail")
	} else {
		c := xmldoc.Child(f.element, ns, "Code")
		if c != nil {
			code = xmldoc.Child(c, ns, "Value")
			for s := xmldoc.Child(c, ns, "Subcode"); s != nil; s = xmldoc.Child(s, ns, "Subcode") {
				v := xmldoc.Child(s, ns, "Value")
				if v == nil {
					return errors.New("a Subcode of the fault has no Value")
				}
				n, err := xmldoc.ResolveQName(v, strings.TrimSpace(xmldoc.Text(v)))
				if err != nil {
					return fmt.Errorf("a Subcode of the fault is not a QName in scope: %w", err)
				}
				f.subcodes = append(f.subcodes, n)
			}
		}
		if re := xmldoc.Child(f.element, ns, "Reason"); re != nil {
			if t := xmldoc.Child(re, ns, "Text"); t != nil {
				f.reason = strings.TrimSpace(xmldoc.Text(t))
			}
		}
		f.detail = xmldoc.Child(f.element, ns, "Detail")
	}
	if code == nil {
		return fmt.Errorf("the SOAP %s fault has no code: %s", versionName(r.version), r)
	}
	n, err := xmldoc.ResolveQName(code, strings.TrimSpace(xmldoc.Text(code)))
	if err != nil {
		return fmt.Errorf("the fault's code %q is not a QName in scope: %w", xmldoc.Text(code), err)
	}
	f.code = n
	return nil
}

func (f *fault) detailChild() *etree.Element {
	if f == nil || f.detail == nil {
		return nil
	}
	for _, c := range f.detail.ChildElements() {
		return c
	}
	return nil
}

// names gives the codes and subcodes, general ones first.
func (f *fault) names() []xmldoc.Name { return append([]xmldoc.Name{f.code}, f.subcodes...) }

// wantPayload fails unless the reply is this element with a good status.
func (r *reply) wantPayload(space, local string) error {
	if r.fault != nil {
		return fmt.Errorf("wanted %s, got %s", local, r)
	}
	if r.payload == nil || !xmldoc.Is(r.payload, space, local) {
		return fmt.Errorf("wanted the body %s, got %s", xmldoc.Name{Space: space, Local: local}, r)
	}
	if r.status != http.StatusOK {
		return fmt.Errorf("%s came with HTTP %d: wanted 200", local, r.status)
	}
	return nil
}

// codeOf gives a code's name in a version.
func codeOf(c soap.Code, v soap.Version) xmldoc.Name {
	n := xmldoc.Name{Space: namespaceOf(v)}
	switch c {
	case soap.Sender:
		n.Local = "Sender"
		if v == soap.V11 {
			n.Local = "Client"
		}
	case soap.Receiver:
		n.Local = "Receiver"
		if v == soap.V11 {
			n.Local = "Server"
		}
	case soap.MustUnderstand:
		n.Local = "MustUnderstand"
	case soap.VersionMismatch:
		n.Local = "VersionMismatch"
	case soap.DataEncodingUnknown:
		n.Local = "DataEncodingUnknown"
	}
	return n
}

// wantFault fails unless the reply is a fault of the code, with the status that
// goes with it (SOAP 1.1 §6.2: 500; SOAP 1.2 part 2 table 20: 400 for Sender, else 500).
func (r *reply) wantFault(c soap.Code) error {
	want := codeOf(c, r.version)
	if r.fault == nil {
		return fmt.Errorf("wanted a fault %s, got %s", want.Local, r)
	}
	// SOAP 1.1 has one code only, and a more telling one may take the place of Client.
	special := r.version == soap.V11 && c == soap.Sender && r.fault.code.Space != soap.NS11
	if r.fault.code != want && !special {
		return fmt.Errorf("wanted the fault code %s, got %s", want.Local, r)
	}
	status := http.StatusInternalServerError
	if r.version == soap.V12 && c == soap.Sender {
		status = http.StatusBadRequest
	}
	if r.status != status {
		return fmt.Errorf("the fault %s came with HTTP %d: wanted %d", r.fault.code.Local, r.status, status)
	}
	if r.fault.reason == "" {
		return fmt.Errorf("the fault %s gives no reason in words", r.fault.code.Local)
	}
	return nil
}

// wantSubcode fails unless the fault carries one of these names as its code or a subcode.
func (r *reply) wantSubcode(space string, locals ...string) error {
	if r.fault == nil {
		return fmt.Errorf("wanted a fault %s, got %s", strings.Join(locals, " or "), r)
	}
	for _, n := range r.fault.names() {
		if n.Space == space && slices.Contains(locals, n.Local) {
			return nil
		}
	}
	return fmt.Errorf("wanted the fault code %s of %s, got %s", strings.Join(locals, " or "), space, r)
}

// wantBESFault fails unless the fault's detail is one of these BES elements, the
// first of them being the one of the later schema.
func (r *reply) wantBESFault(space string, locals ...string) (*etree.Element, error) {
	if r.fault == nil {
		return nil, fmt.Errorf("wanted %s, got %s", locals[0], r)
	}
	d := r.fault.detailChild()
	if d == nil || xmldoc.NameOf(d).Space != space || !slices.Contains(locals, xmldoc.NameOf(d).Local) {
		return nil, fmt.Errorf("wanted a fault with %s in its detail, got %s", locals[0], r)
	}
	return d, nil
}

// blocks gives the reply's header blocks of an expanded name.
func (r *reply) blocks(space, local string) []*etree.Element {
	if r.head == nil {
		return nil
	}
	var out []*etree.Element
	for _, c := range r.head.ChildElements() {
		if xmldoc.Is(c, space, local) {
			out = append(out, c)
		}
	}
	return out
}

// one gives the collapsed text of the one header block of WS-Addressing with this name.
func (r *reply) one(local string) (string, error) {
	b := r.blocks(soap.NSWSA, local)
	if len(b) != 1 {
		return "", fmt.Errorf("wanted one wsa:%s in the reply, found %d (%s)", local, len(b), r)
	}
	return xmldoc.Collapse(xmldoc.Text(b[0])), nil
}
