package soap

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// decodeFault reads a Fault of either version, and of servers with habits of
// their own: qualified children in SOAP 1.1, codes without a namespace, dotted
// codes, prefixes that are not declared.
func decodeFault(p *Parsed, resp *http.Response) *Fault {
	f := &Fault{Action: p.Addressing.Action}
	if p.Version == V12 {
		f.decode12(p.Payload)
	} else {
		f.decode11(p.Payload)
	}
	for _, b := range p.targeted {
		if p.Version == V11 && xmldoc.Is(b, NSWSA, "FaultDetail") {
			f.HeaderDetail = append(f.HeaderDetail, detachChildren(b)...)
		} else if n := p.Document.Name(b); n.Space == NS12 && (n.Local == "Upgrade" || n.Local == "NotUnderstood") {
			f.Headers = append(f.Headers, xmldoc.Detach(b))
		}
	}
	if len(f.Reason) > maxReason {
		f.Reason = strings.ToValidUTF8(f.Reason[:maxReason], "") + "…"
	}
	if f.Reason == "" {
		f.Reason = "the endpoint gave no reason"
	}
	if resp != nil {
		f.Status = resp.StatusCode
		if s, err := strconv.Atoi(strings.TrimSpace(resp.Header.Get("Retry-After"))); err == nil && s > 0 && s < 1<<20 {
			f.RetryAfter = time.Duration(s) * time.Second
		}
	}
	for _, d := range f.HeaderDetail { // WS-Addressing 1.0 SOAP binding §6.4.5: in milliseconds
		if xmldoc.Is(d, NSWSA, "RetryAfter") && f.RetryAfter == 0 {
			if ms, err := strconv.ParseInt(strings.TrimSpace(xmldoc.Text(d)), 10, 32); err == nil && ms > 0 {
				f.RetryAfter = time.Duration(ms) * time.Millisecond
			}
		}
	}
	return f
}

// local gives the first child of that local name in any namespace.
func local(e *etree.Element, name string) *etree.Element {
	for _, t := range e.Child {
		if c, ok := t.(*etree.Element); ok && c.Tag == name {
			return c
		}
	}
	return nil
}

func (f *Fault) decode11(e *etree.Element) {
	if c := local(e, "faultcode"); c != nil {
		f.setCode(codeName(c))
	} else {
		f.Code = Receiver
	}
	if s := local(e, "faultstring"); s != nil {
		f.Reason = strings.TrimSpace(xmldoc.Text(s))
	}
	if d := local(e, "detail"); d != nil {
		f.Detail = detachChildren(d)
	}
}

func (f *Fault) decode12(e *etree.Element) {
	f.Code = Receiver
	if c := xmldoc.Child(e, NS12, "Code"); c != nil {
		if v := xmldoc.Child(c, NS12, "Value"); v != nil {
			f.setCode(codeName(v))
		}
		for s := xmldoc.Child(c, NS12, "Subcode"); s != nil; s = xmldoc.Child(s, NS12, "Subcode") {
			if v := xmldoc.Child(s, NS12, "Value"); v != nil {
				f.Subcodes = append(f.Subcodes, codeName(v))
			}
		}
	}
	if r := xmldoc.Child(e, NS12, "Reason"); r != nil {
		for _, t := range r.ChildElements() {
			lang, _ := xmldoc.Attr(t, xmldoc.NSXML, "lang")
			if f.Reason == "" || strings.HasPrefix(lang, "en") {
				f.Reason = strings.TrimSpace(xmldoc.Text(t))
			}
			if strings.HasPrefix(lang, "en") {
				break
			}
		}
	}
	if d := xmldoc.Child(e, NS12, "Detail"); d != nil {
		for _, c := range detachChildren(d) {
			if xmldoc.NameOf(c).Space == NSWSA {
				f.HeaderDetail = append(f.HeaderDetail, c)
			} else {
				f.Detail = append(f.Detail, c)
			}
		}
	}
}

// codeName reads a fault code; one whose prefix is not declared loses it.
func codeName(e *etree.Element) xmldoc.Name {
	text := strings.TrimSpace(xmldoc.Text(e))
	if n, err := xmldoc.ResolveQName(e, text); err == nil {
		if !strings.Contains(text, ":") && codeOf(n.Local) != 0 {
			n.Space = "" // a bare "Client" is meant as SOAP's own, whatever the default namespace
		}
		return n
	}
	if _, after, ok := strings.Cut(text, ":"); ok {
		text = after
	}
	return xmldoc.Name{Local: text}
}

// codeOf knows the codes of both versions; a dotted one counts by its first part
// (SOAP 1.1 §4.4.1).
func codeOf(name string) Code {
	first, _, _ := strings.Cut(name, ".")
	switch first {
	case "Client", "Sender":
		return Sender
	case "Server", "Receiver":
		return Receiver
	case "MustUnderstand":
		return MustUnderstand
	case "VersionMismatch":
		return VersionMismatch
	case "DataEncodingUnknown":
		return DataEncodingUnknown
	}
	return 0
}

func (f *Fault) setCode(n xmldoc.Name) {
	soaps := n.Space == NS11 || n.Space == NS12 || n.Space == ""
	if c := codeOf(n.Local); c != 0 && soaps {
		f.Code = c
		if strings.Contains(n.Local, ".") {
			f.Subcodes = []xmldoc.Name{n}
		}
		return
	}
	// In SOAP 1.1 a specific code stands alone; nearly all say what the sender did.
	f.Code = Sender
	if n == (xmldoc.Name{Space: NSWSA, Local: "EndpointUnavailable"}) {
		f.Code = Receiver
	}
	f.Subcodes = []xmldoc.Name{n}
}
