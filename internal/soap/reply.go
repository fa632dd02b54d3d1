package soap

import (
	"crypto/rand"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/beevik/etree"
	"github.com/google/uuid"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// message is an envelope to be written.
type message struct {
	version Version
	engaged bool // write addressing headers
	action  string
	to      string
	id      string
	relates string
	replyTo string
	headers []*etree.Element // each declares the prefixes it uses
	body    *etree.Element   // nil for an empty Body
	fault   *Fault           // instead of body
}

func newMessageID() string { return "urn:uuid:" + uuid.NewString() }

// newReference gives a short name for one fault, that the sender sees and the
// log has.
func newReference() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// append writes the envelope. The prefixes s and wsa are declared at the top for
// our own elements; what others wrote brings its declarations along.
func (m *message) append(b []byte) []byte {
	b = append(b, `<?xml version="1.0" encoding="UTF-8"?><s:Envelope xmlns:s="`...)
	b = append(b, m.version.Namespace()...)
	b = append(b, '"')
	headers := m.headers
	if m.fault != nil {
		headers = slices.Concat(headers, m.fault.Headers)
		if m.version == V11 && len(m.fault.HeaderDetail) > 0 {
			detail := wsaElement("FaultDetail")
			for _, d := range m.fault.HeaderDetail {
				detail.AddChild(d.Copy())
			}
			headers = append(headers, detail)
		}
	}
	if m.engaged {
		b = append(b, ` xmlns:wsa="`+NSWSA+`"`...)
	}
	b = append(b, '>')
	if m.engaged || len(headers) > 0 {
		b = append(b, "<s:Header>"...)
		if m.engaged {
			b = appendElement(b, "wsa:To", m.to)
			b = appendElement(b, "wsa:Action", m.action)
			b = appendElement(b, "wsa:MessageID", m.id)
			b = appendElement(b, "wsa:RelatesTo", m.relates)
			if m.replyTo != "" {
				b = append(b, "<wsa:ReplyTo>"...)
				b = appendElement(b, "wsa:Address", m.replyTo)
				b = append(b, "</wsa:ReplyTo>"...)
			}
		}
		for _, h := range headers {
			b = xmldoc.Append(b, h)
		}
		b = append(b, "</s:Header>"...)
	}
	b = append(b, "<s:Body>"...)
	switch {
	case m.fault != nil && m.version == V12:
		b = m.fault.append12(b)
	case m.fault != nil:
		b = m.fault.append11(b)
	case m.body != nil:
		b = xmldoc.Append(b, m.body)
	}
	return append(b, "</s:Body></s:Envelope>"...)
}

// appendElement writes an element of text; none for no text.
func appendElement(b []byte, name, text string) []byte {
	if text == "" {
		return b
	}
	b = append(b, '<')
	b = append(b, name...)
	b = append(b, '>')
	b = xmldoc.AppendText(b, text)
	b = append(b, '<', '/')
	b = append(b, name...)
	return append(b, '>')
}

var (
	codes11 = [...]string{Sender: "Client", Receiver: "Server", MustUnderstand: "MustUnderstand", VersionMismatch: "VersionMismatch", DataEncodingUnknown: "Client"}
	codes12 = [...]string{Sender: "Sender", Receiver: "Receiver", MustUnderstand: "MustUnderstand", VersionMismatch: "VersionMismatch", DataEncodingUnknown: "DataEncodingUnknown"}
)

// String gives the code's name in SOAP 1.2.
func (c Code) String() string {
	if int(c) < len(codes12) && c > 0 {
		return codes12[c]
	}
	return "Receiver"
}

func (c Code) name11() string {
	if int(c) < len(codes11) && c > 0 {
		return codes11[c]
	}
	return "Server"
}

// append11 writes the Fault of SOAP 1.1 §4.4: unqualified children, the most
// specific code, detail about the Body only.
func (f *Fault) append11(b []byte) []byte {
	b = append(b, "<s:Fault>"...)
	if n := len(f.Subcodes); n > 0 {
		b = appendQName(b, "faultcode", f.Subcodes[n-1])
	} else {
		b = appendElement(b, "faultcode", "s:"+f.Code.name11())
	}
	b = append(b, "<faultstring>"...)
	b = xmldoc.AppendText(b, f.Reason)
	b = append(b, "</faultstring>"...)
	if len(f.Detail) > 0 {
		b = append(b, "<detail>"...)
		for _, d := range f.Detail {
			b = xmldoc.Append(b, d)
		}
		b = append(b, "</detail>"...)
	}
	return append(b, "</s:Fault>"...)
}

// append12 writes the Fault of SOAP 1.2 part 1 §5.4.
func (f *Fault) append12(b []byte) []byte {
	b = append(b, "<s:Fault><s:Code>"...)
	b = appendElement(b, "s:Value", "s:"+f.Code.String())
	for _, c := range f.Subcodes {
		b = append(b, "<s:Subcode>"...)
		b = appendQName(b, "s:Value", c)
	}
	b = append(b, strings.Repeat("</s:Subcode>", len(f.Subcodes))...)
	b = append(b, `</s:Code><s:Reason><s:Text xml:lang="en">`...)
	b = xmldoc.AppendText(b, f.Reason)
	b = append(b, "</s:Text></s:Reason>"...)
	if len(f.Detail)+len(f.HeaderDetail) > 0 {
		b = append(b, "<s:Detail>"...)
		for _, list := range [][]*etree.Element{f.HeaderDetail, f.Detail} {
			for _, d := range list {
				b = xmldoc.Append(b, d)
			}
		}
		b = append(b, "</s:Detail>"...)
	}
	return append(b, "</s:Fault>"...)
}

// appendQName writes an element whose text is a QName, with its prefix declared
// on it.
func appendQName(b []byte, name string, q xmldoc.Name) []byte {
	b = append(b, '<')
	b = append(b, name...)
	prefix := "c"
	switch q.Space {
	case NSWSA:
		prefix = "wsa" // what people expect to read
	case NSWSSE:
		prefix = "wsse"
	}
	if q.Space != "" {
		b = append(b, " xmlns:"+prefix+`="`...)
		b = xmldoc.AppendText(b, q.Space) // a namespace name has no quote
		b = append(b, `">`+prefix+":"...)
	} else {
		b = append(b, '>')
	}
	b = xmldoc.AppendText(b, q.Local)
	b = append(b, '<', '/')
	b = append(b, name...)
	return append(b, '>')
}

// Reason texts are cut so that a stranger cannot make us say anything at length.
const maxReason = 2000

// status gives the HTTP status of a fault (SOAP 1.1 §6.2; SOAP 1.2 part 2 §7.5.2.2).
func (f *Fault) status(v Version) int {
	switch {
	case f.Status != 0:
		return f.Status
	case f.RetryAfter > 0:
		return 503
	case v == V12 && f.Code == Sender:
		return 400
	}
	return 500
}

// bound gives the fault with its reason cut and the reference put behind it.
func (f *Fault) bound(reference string) *Fault {
	c := *f
	if len(c.Reason) > maxReason {
		c.Reason = strings.ToValidUTF8(c.Reason[:maxReason], "") + "…"
	}
	if c.Reason == "" {
		c.Reason = "the request failed"
	}
	c.Reason += " [reference " + reference + "]"
	return &c
}
