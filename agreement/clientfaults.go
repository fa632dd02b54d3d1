package agreement

import (
	"errors"
	"strings"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

func asRefusal(err error) (*Refusal, bool) {
	r, ok := errors.AsType[*Refusal](err)
	if !ok {
		return nil, false
	}
	c := *r
	return &c, true
}

func asProperty(err error) (*propertyError, bool) { return errors.AsType[*propertyError](err) }

// errorOf makes the error that a fault stands for; the counterpart of faultOf.
func errorOf(op string, f *soap.Fault) error {
	kind, sentence := kindOfCode(f), f.Reason
	for _, d := range f.Detail {
		n := xmldoc.NameOf(d)
		if n == (xmldoc.Name{Space: NSPortolan, Local: failure}) {
			if k, ok := kindNamed(textOf(xmldoc.Child(d, NSPortolan, "Kind"))); ok {
				kind, sentence = k, textOf(xmldoc.Child(d, NSPortolan, "Message"))
				break
			}
		}
		named, ok := kindOfElement(n)
		if !ok {
			continue
		}
		r, told := decodeBaseFault(d)
		if !told {
			r.kind = named
		}
		if len(r.Sentences) == 0 && f.Reason != "" {
			r.Sentences = []string{cut(f.Reason)}
		}
		r.Cause = f
		if n.Local == continuing.Local && (r.Code != "" || !told) {
			return r
		}
		kind, sentence = r.kind, strings.Join(r.Sentences, "\n")
		break
	}
	if sentence == "" {
		sentence = "the service gave no reason"
	}
	return fail.Errorf("agreement."+op, kind, "", "%s", cut(sentence)).Because(f)
}

// decodeBaseFault reads what extends bf:BaseFaultType. told says that its kind
// stands in it, as ours have it.
func decodeBaseFault(d *etree.Element) (r *Refusal, told bool) {
	r = new(Refusal)
	for _, c := range d.ChildElements() {
		switch n := xmldoc.NameOf(c); {
		case n == xmldoc.Name{Space: NSPortolan, Local: refusal}:
			r.kind, told = kindNamed(textOf(xmldoc.Child(c, NSPortolan, "Kind")))
			if t, err := time.Parse(time.RFC3339Nano, textOf(xmldoc.Child(c, NSPortolan, "Earliest"))); err == nil {
				r.Earliest = t
			}
		case n.Local == "ErrorCode":
			if dialect, _ := xmldoc.Attr(c, "", "dialect"); strings.TrimSpace(dialect) == Dialect {
				if code := Code(strings.Clone(textOf(c))); codes[code] != fail.Internal {
					r.Code = code
				}
			}
		case n.Local == "Description" && len(r.Sentences) < maxSentences:
			if s := textOf(c); s != "" {
				r.Sentences = append(r.Sentences, strings.Clone(cut(s)))
			}
		}
	}
	if told && codes[r.Code] == r.kind {
		r.kind = fail.Internal // as the code says
	}
	return r, told
}

// kindOfElement gives the kind of a fault element. A ContinuingFault of another
// make says no more than that the request was refused.
func kindOfElement(n xmldoc.Name) (fail.Kind, bool) {
	switch n {
	case continuing:
		return fail.Invalid, true
	case resourceUnknown:
		return fail.NotFound, true
	case resourceUnavailable:
		return fail.Unavailable, true
	case invalidProperty:
		return fail.Unsupported, true
	}
	return fail.Internal, false
}

// kindNamed finds a kind by its words.
func kindNamed(s string) (fail.Kind, bool) {
	for _, k := range fail.Kinds() {
		if k.String() == s {
			return k, true
		}
	}
	return fail.Internal, false
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

// textOf gives the text of an element, trimmed; "" of none.
func textOf(e *etree.Element) string {
	if e == nil {
		return ""
	}
	return strings.Trim(xmldoc.Text(e), " \t\r\n")
}
