package soap

import (
	"fmt"
	"slices"
	"strings"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Attribute values with a meaning of their own.
const (
	actorNext11    = "http://schemas.xmlsoap.org/soap/actor/next"
	roleNext12     = NS12 + "/role/next"
	roleUltimate12 = NS12 + "/role/ultimateReceiver"
	encoding11     = "http://schemas.xmlsoap.org/soap/encoding/"
	encoding12     = "http://www.w3.org/2003/05/soap-encoding"
	encodingNone12 = NS12 + "/encoding/none"
)

// parseEnvelope finds the parts of an envelope and checks that they stand where
// SOAP wants them (SOAP 1.1 §4; SOAP 1.2 part 1 §5). roles are those that we
// play beside next and the ultimate receiver. The Parsed that comes with a fault
// has as much as was found.
func parseEnvelope(d *xmldoc.Document, roles []string) (*Parsed, *Fault) {
	root := d.Root()
	p := &Parsed{Document: d}
	switch name := d.Name(root); name {
	case xmldoc.Name{Space: NS11, Local: "Envelope"}:
		p.Version = V11
	case xmldoc.Name{Space: NS12, Local: "Envelope"}:
		p.Version = V12
	default:
		p.Version = V11 // SOAP 1.2 part 1 appendix A: so that any client can read it
		return p, versionMismatch(name)
	}
	ns := p.Version.Namespace()
	fault := func(e *etree.Element, format string, args ...any) (*Parsed, *Fault) {
		return p, senderAt(d, e, format, args...)
	}
	var after *etree.Element // the first element behind the Body
	for _, t := range root.Child {
		switch t := t.(type) {
		case *etree.CharData:
			if !blank(t.Data) {
				return fault(root, "the Envelope holds text: it takes a Header and a Body")
			}
		case *etree.Element:
			switch {
			case xmldoc.Is(t, ns, "Body"):
				if p.Body != nil {
					return fault(t, "the Envelope has a second Body")
				}
				p.Body = t
			case xmldoc.Is(t, ns, "Header"):
				if p.Header != nil || p.Body != nil {
					return fault(t, "the Header must come once, before the Body")
				}
				p.Header = t
			case p.Body == nil:
				return fault(t, "%s stands before the Body: the Envelope takes a Header and a Body", shown(d.Name(t)))
			case after == nil:
				after = t
			}
		}
	}
	if p.Body == nil {
		return fault(root, "the Envelope has no Body")
	}
	if after != nil && p.Version == V12 {
		return fault(after, "%s stands behind the Body, where SOAP 1.2 has nothing", shown(d.Name(after)))
	}
	if p.Header != nil {
		for _, t := range p.Header.Child {
			switch t := t.(type) {
			case *etree.CharData:
				if !blank(t.Data) {
					return fault(p.Header, "the Header holds text: it takes header blocks")
				}
			case *etree.Element:
				if aimedAtUs(t, p.Version, roles) {
					p.targeted = append(p.targeted, t)
				}
			}
		}
	}
	return p, nil
}

// parseBody finds the one element of the Body. The headers come before: a fault
// of theirs is told first.
func parseBody(p *Parsed) *Fault {
	for _, t := range p.Body.Child {
		switch t := t.(type) {
		case *etree.CharData:
			if !blank(t.Data) {
				return senderAt(p.Document, p.Body, "the Body holds text: it takes one element")
			}
		case *etree.Element:
			if p.Payload != nil {
				return senderAt(p.Document, t, "the Body holds a second element, %s: it takes one (document/literal)", shown(p.Document.Name(t)))
			}
			p.Payload = t
		}
	}
	return checkAttributes(p)
}

// checkAttributes refuses what the Envelope, Header, Body and the request itself
// must not carry: unqualified attributes in SOAP 1.2 (part 1 §5.1 to §5.3) and
// encodings, for everything here is literal. SOAP::Lite puts the encoding that
// it does not use on every Envelope, so there it is taken for what it is.
func checkAttributes(p *Parsed) *Fault {
	ns := p.Version.Namespace()
	for _, e := range []*etree.Element{p.Document.Root(), p.Header, p.Body, p.Payload} {
		if e == nil {
			continue
		}
		if p.Version == V12 && e != p.Payload {
			for i := range e.Attr {
				if a := &e.Attr[i]; a.Space == "" && a.Key != "xmlns" {
					return senderAt(p.Document, e, "the attribute %s of the %s is not in a namespace, as SOAP 1.2 wants it", bounded(a.Key), e.Tag)
				}
			}
		}
		style, ok := xmldoc.Attr(e, ns, "encodingStyle")
		if style = strings.TrimSpace(style); !ok || style == "" && p.Version == V11 || style == encodingNone12 {
			continue
		}
		if e == p.Document.Root() && (style == encoding11 || style == encoding12) {
			continue
		}
		f := senderAt(p.Document, e, "the encoding %s is not supported: remove encodingStyle and send the message as document/literal", bounded(style))
		if p.Version == V12 && (e == p.Payload || e == p.Document.Root()) {
			f.Code = DataEncodingUnknown
		}
		return f
	}
	return nil
}

// aimedAtUs reports whether a header block is for us (SOAP 1.1 §4.2.2; SOAP 1.2
// part 1 §2.2). The attribute of the other version has no meaning.
func aimedAtUs(block *etree.Element, v Version, roles []string) bool {
	attr, next := "actor", actorNext11
	if v == V12 {
		attr, next = "role", roleNext12
	}
	role, _ := xmldoc.Attr(block, v.Namespace(), attr)
	switch role = strings.TrimSpace(role); {
	case role == "", role == next, v == V12 && role == roleUltimate12:
		return true
	}
	return slices.Contains(roles, role)
}

// checkMustUnderstand honours mustUnderstand on all header blocks that are aimed
// at us before anything has an effect (SOAP 1.2 part 1 §2.6).
func checkMustUnderstand(p *Parsed, understood func(xmldoc.Name) bool) *Fault {
	var missed []xmldoc.Name
	for _, b := range p.targeted {
		must, ok := mustUnderstand(b, p.Version)
		if !ok {
			return senderAt(p.Document, b, "mustUnderstand of the header %s must be %s", shown(p.Document.Name(b)), map[Version]string{V11: "0 or 1", V12: "a boolean"}[p.Version])
		}
		if n := p.Document.Name(b); must && !understood(n) {
			missed = append(missed, n)
		}
	}
	if len(missed) == 0 {
		return nil
	}
	return notUnderstood(p.Version, missed)
}

func mustUnderstand(b *etree.Element, v Version) (must, ok bool) {
	value, there := xmldoc.Attr(b, v.Namespace(), "mustUnderstand")
	if !there {
		return false, true
	}
	switch strings.TrimSpace(value) {
	case "0":
		return false, true
	case "1":
		return true, true
	case "false":
		return false, v == V12
	case "true":
		return true, v == V12
	}
	return false, false
}

func blank(s string) bool { return strings.Trim(s, " \t\r\n") == "" }

// bounded quotes a stranger's text for a message.
func bounded(s string) string {
	const most = 200
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return fmt.Sprintf("%q", s)
}

// shown writes a stranger's expanded name for a message.
func shown(n xmldoc.Name) string { return bounded(n.String()) }
