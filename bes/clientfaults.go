package bes

import (
	"strings"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// maxSentence bounds what is repeated of a stranger's fault.
const maxSentence = 4000

// errorOf makes the error that a fault stands for; the counterpart of faultOf.
func errorOf(op string, f *soap.Fault) error {
	kind, sentence, status := kindOfCode(f), f.Reason, (*Status)(nil)
	for _, d := range f.Detail {
		n := xmldoc.NameOf(d)
		if n == (xmldoc.Name{Space: NSPortolan, Local: failure}) {
			if k, ok := kindNamed(childText(d, "Kind")); ok {
				kind, sentence = k, childText(d, "Message")
				break
			}
		}
		k, ok := kindOfElement(n)
		if !ok {
			if strings.HasPrefix(n.Local, "ResourceUnknown") { // WS-ResourceFramework
				kind = fail.NotFound
			}
			continue
		}
		kind = k
		if k == fail.NotFound && status == nil && op == opCreate {
			kind = fail.Invalid
		}
		if own := xmldoc.Child(d, NSPortolan, "Kind"); own != nil {
			if k, ok := kindNamed(strings.TrimSpace(xmldoc.Text(own))); ok {
				kind = k
			}
		}
		if s := child(d, "ActivityStatus"); s != nil {
			st := decodeStatus(s)
			status = &st
		}
		if m := childText(d, "Message"); m != "" {
			sentence = m
		} else if fs := features(d); fs != "" {
			sentence = fs
		}
		break
	}
	if len(sentence) > maxSentence {
		sentence = strings.ToValidUTF8(sentence[:maxSentence], "") + "…"
	}
	if sentence == "" {
		sentence = "the service gave no reason"
	}
	cause := fail.Errorf("bes."+op, kind, "", "%s", sentence).Because(f)
	if status != nil && kind == fail.Conflict {
		return &StateError{*status, cause}
	}
	return cause
}

// features joins what a service can't do. Some say it in the fault's own text.
func features(d *etree.Element) string {
	var list []string
	for _, c := range d.ChildElements() {
		if c.Tag == "Feature" || c.Tag == "InvalidElement" {
			list = append(list, strings.TrimSpace(xmldoc.Text(c)))
		}
	}
	return strings.Join(list, "\n")
}

// kindOfCode judges a fault that carries no detail that is known.
func kindOfCode(f *soap.Fault) fail.Kind {
	for _, c := range f.Subcodes {
		switch {
		case c.Space == soap.NSWSSE:
			return fail.Unauthenticated
		case c.Space == soap.NSWSA && c.Local == "ActionNotSupported":
			return fail.Unsupported
		case c.Space == soap.NSWSA && c.Local == "EndpointUnavailable":
			return fail.Unavailable
		}
	}
	switch {
	case f.RetryAfter > 0 || f.Status == 503:
		return fail.Unavailable
	case f.Code == soap.Sender:
		return fail.Invalid
	case f.Code == soap.MustUnderstand, f.Code == soap.VersionMismatch, f.Code == soap.DataEncodingUnknown:
		return fail.Unsupported
	}
	return fail.Internal
}

// decodeItemFault reads the Fault of one item: by the schema a bf:Fault with
// unqualified children, from A-REX a SOAP-ENV:Fault with qualified ones.
func decodeItemFault(e *etree.Element) *soap.Fault {
	f := &soap.Fault{Code: soap.Receiver, Reason: childText(e, "faultstring")}
	code := childText(e, "faultcode")
	if c := child(e, "Code"); c != nil { // one of SOAP 1.2
		code = childText(c, "Value")
		f.Reason = childText(child(e, "Reason"), "Text")
	}
	if i := strings.LastIndexByte(code, ':'); i >= 0 {
		code = code[i+1:]
	}
	if strings.HasPrefix(code, "Client") || strings.HasPrefix(code, "Sender") {
		f.Code = soap.Sender
	}
	if d := child(e, "detail", "Detail"); d != nil {
		for _, c := range d.ChildElements() {
			f.Detail = append(f.Detail, xmldoc.Detach(c))
		}
	}
	return f
}
