package soap

import (
	"fmt"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// senderAt is a Sender fault about an element of the message.
func senderAt(d *xmldoc.Document, e *etree.Element, format string, args ...any) *Fault {
	return &Fault{Code: Sender, Reason: fmt.Sprintf("line %s: ", d.Position(e)) + fmt.Sprintf(format, args...)}
}

// refusedDocument is the fault for a message that could not be read. It says no
// more than what and where: nobody has been authenticated.
func refusedDocument(e *xmldoc.Error) *Fault {
	f := &Fault{Code: Sender, Reason: "the message was refused: " + e.What}
	if !e.Pos.IsZero() {
		f.Reason = fmt.Sprintf("the message was refused at line %s: %s", e.Pos, e.What)
	}
	if e.Reason == xmldoc.TooLarge && e.Limit == "Bytes" {
		f.Status = 413
	}
	return f
}

// versionMismatch carries the Upgrade header that lists what is understood
// (SOAP 1.2 part 1 §5.4.7).
func versionMismatch(root xmldoc.Name) *Fault {
	upgrade := etree.NewElement("s12:Upgrade")
	upgrade.CreateAttr("xmlns:s12", NS12)
	for _, v := range []Version{V12, V11} {
		env := upgrade.CreateElement("s12:SupportedEnvelope")
		env.CreateAttr("xmlns:e", v.Namespace())
		env.CreateAttr("qname", "e:Envelope")
	}
	return &Fault{
		Code:    VersionMismatch,
		Reason:  fmt.Sprintf("%s is not the Envelope of SOAP 1.1 or SOAP 1.2", shown(root)),
		Headers: []*etree.Element{upgrade},
	}
}

// notUnderstood names the header blocks that had to be understood and are not
// (SOAP 1.2 part 1 §5.4.8).
func notUnderstood(v Version, names []xmldoc.Name) *Fault {
	const most = 16 // one namespace can be repeated in thousands of headers
	f := &Fault{Code: MustUnderstand}
	listed := names[:min(len(names), most)]
	f.Reason = "a header that must be understood is not known here: " + shown(names[0])
	if len(names) > 1 {
		f.Reason += fmt.Sprintf(", and %d more", len(names)-1)
	}
	if v != V12 {
		return f
	}
	for _, n := range listed {
		block := etree.NewElement("s12:NotUnderstood")
		block.CreateAttr("xmlns:s12", NS12)
		qname := n.Local
		if n.Space != "" {
			block.CreateAttr("xmlns:n", n.Space)
			qname = "n:" + qname
		}
		block.CreateAttr("qname", qname)
		f.Headers = append(f.Headers, block)
	}
	return f
}

func wsaNames(locals ...string) []xmldoc.Name {
	names := make([]xmldoc.Name, len(locals))
	for i, l := range locals {
		names[i] = xmldoc.Name{Space: NSWSA, Local: l}
	}
	return names
}

func wsaElement(local string) *etree.Element {
	e := etree.NewElement("wsa:" + local)
	e.CreateAttr("xmlns:wsa", NSWSA)
	return e
}

// invalidHeader is a fault about an addressing header (WS-Addressing 1.0 SOAP
// binding §6.4.1).
func invalidHeader(sub, header, format string, args ...any) *Fault {
	problem := wsaElement("ProblemHeaderQName")
	problem.SetText("wsa:" + header)
	return &Fault{
		Code: Sender, Subcodes: wsaNames("InvalidAddressingHeader", sub), Action: ActionWSAFault,
		Reason: fmt.Sprintf(format, args...), HeaderDetail: []*etree.Element{problem},
	}
}

// headerRequired is for an addressing header that is not there (§6.4.2).
func headerRequired(header string) *Fault {
	problem := wsaElement("ProblemHeaderQName")
	problem.SetText("wsa:" + header)
	return &Fault{
		Code: Sender, Subcodes: wsaNames("MessageAddressingHeaderRequired"), Action: ActionWSAFault,
		Reason: "the header wsa:" + header + " is required where WS-Addressing is used", HeaderDetail: []*etree.Element{problem},
	}
}

// actionNotSupported is for a request that no operation answers (§6.4.4).
func actionNotSupported(p *Parsed, reason string) *Fault {
	problem := wsaElement("ProblemAction")
	problem.CreateElement("wsa:Action").SetText(p.Addressing.Action)
	if p.SOAPAction != "" {
		problem.CreateElement("wsa:SoapAction").SetText(p.SOAPAction)
	}
	return &Fault{
		Code: Sender, Subcodes: wsaNames("ActionNotSupported"), Action: ActionWSAFault,
		Reason: reason, HeaderDetail: []*etree.Element{problem},
	}
}

// SecurityFault is a fault of WS-Security (SOAP Message Security 1.0 §12), with
// its code, e.g. "InvalidSecurity".
func SecurityFault(code, format string, args ...any) *Fault {
	return &Fault{Code: Sender, Subcodes: []xmldoc.Name{{Space: NSWSSE, Local: code}}, Reason: fmt.Sprintf(format, args...)}
}

// FaultOfKind is the fault for an error of which only the kind is known: the
// sender's where the sender can change something, ours otherwise. An endpoint
// without a FaultOf uses it.
func FaultOfKind(err error) *Fault {
	f := &Fault{Code: Receiver, Reason: fail.Sentence(err)}
	switch fail.KindOf(err) {
	case fail.Invalid, fail.Unsupported, fail.Unauthenticated, fail.Denied, fail.NotFound, fail.Conflict, fail.NotAccepting:
		f.Code = Sender
	case fail.Unavailable, fail.Exhausted:
		f.RetryAfter = busyRetryAfter
	case fail.Internal, fail.Uncertain:
	}
	return f
}
