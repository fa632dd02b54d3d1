package conformance

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

const portTypes = "WS-Agreement 1.0, the port types' messages"

var wsagWSDLChecks = []check{
	{"WSAG-WSDL-1", "WS-I BP 1.1 R2028", "?wsdl gives a WSDL 1.1 document", wsdlServed},
	{"WSAG-WSDL-2", "WSDL 1.1 §2.1.1; WS-I BP 1.1 R2007, R2008", "every import and include of the WSDL can be fetched from the endpoint and is what it says", wsdlImports},
	{"WSAG-WSDL-3", portTypes + " (AgreementFactory)", "CreateAgreement is described with the standard's elements", wsdlMessages(agreement.NS, createInput, responseOf(createInput), true)},
	{"WSAG-WSDL-4", portTypes + " (PendingAgreementFactory)", "CreatePendingAgreement, if described, has the standard's elements", wsdlMessages(agreement.NS, pendingInput, responseOf(pendingInput), false)},
	{"WSAG-WSDL-5", portTypes + " (Agreement)", "Terminate is described with the standard's elements", wsdlMessages(agreement.NS, "TerminateInput", "TerminateResponse", true)},
	{"WSAG-WSDL-6", portTypes + "; WS-ResourceProperties 1.2 §5", "GetResourceProperty is described with the standard's elements", wsdlMessages(nsProperties, "GetResourceProperty", "GetResourcePropertyResponse", true)},
	{"WSAG-WSDL-7", portTypes + " (ContinuingFault is the fault of all operations)", "CreateAgreement is described with the ContinuingFault", wsdlFault},
	{"WSAG-WSDL-8", "WSDL 1.1 §3.5; WS-I BP 1.1 R2706", "every body is literal", wsdlLiteral},
	{"WSAG-WSDL-9", "WSDL 1.1 §3.8", "a port of the WSDL says where the service is", wsdlAddress},
}

// describedOperation is an operation of a port type, by its elements.
type describedOperation struct {
	name          string
	input, output xmldoc.Name
	faults        []xmldoc.Name
}

// operations gives what the description has.
func (p *probe) operations(ctx context.Context) ([]describedOperation, error) {
	files, _, err := p.collect(ctx)
	if err != nil {
		return nil, err
	}
	elements := map[string]xmldoc.Name{} // of the one part of a message
	for _, f := range files {
		for _, m := range all(f.root, nsWSDL, "message") {
			parts := m.ChildElements()
			parts = slices.DeleteFunc(parts, func(e *etree.Element) bool { return !xmldoc.Is(e, nsWSDL, "part") })
			if len(parts) != 1 {
				continue
			}
			if n, err := xmldoc.ResolveQName(parts[0], parts[0].SelectAttrValue("element", "")); err == nil {
				elements[m.SelectAttrValue("name", "")] = n
			}
		}
	}
	of := func(op *etree.Element, local string) []xmldoc.Name {
		var list []xmldoc.Name
		for _, c := range op.ChildElements() {
			if xmldoc.Is(c, nsWSDL, local) {
				_, name, found := strings.Cut(c.SelectAttrValue("message", ""), ":")
				if !found {
					name = c.SelectAttrValue("message", "")
				}
				list = append(list, elements[name])
			}
		}
		return list
	}
	var ops []describedOperation
	for _, f := range files {
		for _, pt := range all(f.root, nsWSDL, "portType") {
			for _, op := range all(pt, nsWSDL, "operation") {
				o := describedOperation{name: op.SelectAttrValue("name", ""), faults: of(op, "fault")}
				if in := of(op, "input"); len(in) == 1 {
					o.input = in[0]
				}
				if out := of(op, "output"); len(out) == 1 {
					o.output = out[0]
				}
				ops = append(ops, o)
			}
		}
	}
	return ops, nil
}

func wsdlMessages(space, input, output string, needed bool) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		ops, err := p.operations(ctx)
		if err != nil {
			return "", err
		}
		var names []string
		for _, o := range ops {
			names = append(names, o.name)
			if o.input != (xmldoc.Name{Space: space, Local: input}) {
				continue
			}
			if o.output != (xmldoc.Name{Space: space, Local: output}) {
				return "", fmt.Errorf("the operation %s takes %s and gives %s: wanted %s", o.name, input, o.output, output)
			}
			return "operation " + o.name, nil
		}
		if !needed {
			return "", skip("no operation takes %s", input)
		}
		return "", fmt.Errorf("no operation of a port type takes the element {%s}%s: there are %s", space, input, strings.Join(names, ", "))
	}
}

func wsdlFault(ctx context.Context, p *probe) (string, error) {
	ops, err := p.operations(ctx)
	if err != nil {
		return "", err
	}
	for _, o := range ops {
		if o.input.Local == createInput && slices.Contains(o.faults, continuingFault) {
			return fmt.Sprintf("%s has %d faults", o.name, len(o.faults)), nil
		}
	}
	return "", errors.New("no operation that takes CreateAgreementInput has the fault wsag:ContinuingFault")
}

func wsdlLiteral(ctx context.Context, p *probe) (string, error) {
	files, _, err := p.collect(ctx)
	if err != nil {
		return "", err
	}
	n := 0
	for _, f := range files {
		for _, ns := range []string{nsWSDL11, nsWSDL12} {
			for _, b := range all(f.root, ns, "body") {
				if n++; b.SelectAttrValue("use", "literal") != "literal" {
					return "", fmt.Errorf("a body of %s has use=%q: wanted literal", f.url, b.SelectAttrValue("use", ""))
				}
			}
		}
	}
	if n == 0 {
		return "", errors.New("no binding says how a body is written")
	}
	return fmt.Sprintf("%d bodies", n), nil
}

// gets makes a check that a message gets the templates.
func gets(m func(*probe) message) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		rep, err := p.ask(ctx, m(p))
		if err != nil {
			return "", err
		}
		return rep.String(), rep.wantPayload(nsProperties, "GetResourcePropertyResponse")
	}
}

// readIn makes one that the templates are got by a message around asking.
func readIn(v soap.Version, change func(message) message) probeFunc {
	return gets(func(*probe) message {
		m := asking(templates).with(v)
		if change != nil {
			m = change(m)
		}
		return m
	})
}

func under(block string) func(message) message {
	return func(m message) message { return m.under(block) }
}

// whole makes the message one that is this text.
func whole(text string) func(message) message {
	return func(m message) message { m.envelope = text; return m }
}

// bad makes a check that a message about the factory gets a fault of the code.
func bad(c soap.Code, v soap.Version, change func(message) message) probeFunc {
	return refused(c, func(*probe) message { return change(asking(templates).with(v)) })
}

func bodyIs(text string) func(message) message {
	return func(m message) message { m.body = text; return m }
}

// eitherReading makes a check of a message whose action and element belong to different
// operations: the element's answer, or a fault that blames the sender.
func eitherReading(change func(message) message) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		rep, err := p.ask(ctx, change(asking(templates)))
		if err != nil {
			return "", err
		}
		if rep.fault != nil {
			return rep.String(), rep.wantFault(soap.Sender)
		}
		return rep.String(), rep.wantPayload(nsProperties, "GetResourcePropertyResponse")
	}
}

// propertyBody is the Body that asks for the templates.
func propertyBody() string { return `<s:Body>` + asking(templates).body + `</s:Body>` }

var wsagSOAPChecks = []check{
	{"WSAG-SOAP-1", "SOAP 1.1 §4.1.2; WS-ResourceProperties 1.2 §5.3", "a SOAP 1.1 request for the templates gets a SOAP 1.1 reply", readIn(soap.V11, nil)},
	{"WSAG-SOAP-2", "SOAP 1.2 part 1 §2.8", "a SOAP 1.2 request for the templates gets a SOAP 1.2 reply", readIn(soap.V12, nil)},
	{"WSAG-SOAP-3", "SOAP 1.1 §6; SOAP 1.2 part 2 §7.1.4", "replies have the media type of their version", mediaTypes},
	{"WSAG-SOAP-4", "SOAP 1.1 §4.4.1", "an Envelope of another namespace gets VersionMismatch", func(ctx context.Context, p *probe) (string, error) {
		m := asking(templates)
		m.envelope, m.anyVersion = strings.ReplaceAll(m.text(), soap.NS11, "urn:no-such-soap"), true
		rep, err := p.ask(ctx, m)
		if err != nil {
			return "", err
		}
		return rep.String(), rep.wantFault(soap.VersionMismatch)
	}},
	{"WSAG-SOAP-5", "SOAP 1.1 §4.2.3", "an unknown header with mustUnderstand=1 gets MustUnderstand", bad(soap.MustUnderstand, soap.V11, under(unknownBlock(` s:mustUnderstand="1"`)))},
	{"WSAG-SOAP-6", "SOAP 1.2 part 1 §5.2.3", "so it does in SOAP 1.2", bad(soap.MustUnderstand, soap.V12, under(unknownBlock(` s:mustUnderstand="true"`)))},
	{"WSAG-SOAP-7", "SOAP 1.1 §4.2.3", "an unknown header that need not be understood is ignored", readIn(soap.V11, under(unknownBlock(` s:mustUnderstand="0"`)))},
	{"WSAG-SOAP-8", "SOAP 1.1 §4.2.3; SOAP 1.2 part 1 §2.6", "an offer under a header that is not understood makes no agreement", offerNotUnderstood},
	{"WSAG-SOAP-9", portTypes, "an empty Body is refused", bad(soap.Sender, soap.V11, bodyIs(""))},
	{"WSAG-SOAP-10", "WS-I BP 1.1 R2201, R9981", "two elements in the Body are refused", bad(soap.Sender, soap.V11, bodyIs(asking(templates).body+asking(templates).body))},
	{"WSAG-SOAP-11", portTypes, "an unknown element in the Body is the sender's fault", bad(soap.Sender, soap.V11, bodyIs(`<x:Nothing xmlns:x="`+nsOwn+`"/>`))},
	{"WSAG-SOAP-12", "Namespaces in XML 1.0 §6", "an operation's name in another namespace is another element", bad(soap.Sender, soap.V11, bodyIs(`<x:CreateAgreementInput xmlns:x="`+nsOwn+`"/>`))},
	{"WSAG-SOAP-13", "SOAP 1.1 §3", "a message that is not well-formed is refused", bad(soap.Sender, soap.V11, whole(envelope(soap.V11, `<s:Body><a></b></s:Body>`)))},
	{"WSAG-SOAP-14", "SOAP 1.1 §4", "a message without a Body is refused", bad(soap.Sender, soap.V11, whole(envelope(soap.V11, `<s:Header/>`)))},
	{"WSAG-SOAP-15", "SOAP 1.1 §6.1.1", "an empty SOAPAction works", readIn(soap.V11, func(m message) message { m.action = ""; return m })},
	{"WSAG-SOAP-16", portTypes + " (document/literal): the element decides", "with a SOAPAction of another operation it is read as its element says, or refused", eitherReading(func(m message) message {
		m.action = wsagMessage("TerminateInput", "").action
		return m
	})},
	{"WSAG-SOAP-17", "XML 1.0 §2.5, §2.10", "comments and white space between elements change nothing", readIn(soap.V11, whole("<?xml version='1.0'?>\n<!-- a -->\n"+envelope(soap.V11, "\n\t<!-- b -->"+propertyBody()+"\n")))},
	{"WSAG-SOAP-18", "Namespaces in XML 1.0 §6.2", "default namespaces mean what prefixes mean", readIn(soap.V11, whole(`<Envelope xmlns="`+soap.NS11+`"><Body><GetResourceProperty xmlns="`+nsProperties+`" xmlns:q="`+agreement.NS+`">q:Template</GetResourceProperty></Body></Envelope>`))},
	{"WSAG-SOAP-19", "RFC 9110 §15.5.16", "a body of text/plain is refused", func(ctx context.Context, p *probe) (string, error) {
		m := asking(templates)
		m.media = "text/plain"
		rep, err := p.exchange(ctx, m.request())
		if err != nil {
			return "", err
		}
		if httpRefusal(rep, http.StatusUnsupportedMediaType, http.StatusBadRequest, http.StatusNotAcceptable) {
			return rep.String(), nil
		}
		if err := rep.parse(); err != nil {
			return "", err
		}
		if rep.fault == nil {
			return "", fmt.Errorf("a body of text/plain was taken for a SOAP message: %s", rep)
		}
		return rep.String(), nil
	}},
	{"WSAG-SOAP-20", "SOAP 1.1 §4.4", "a SOAP 1.1 fault has faultcode, faultstring, faultactor and detail, unqualified, in order", faultOrder(soap.V11)},
	{"WSAG-SOAP-21", "SOAP 1.2 part 1 §5.4", "a SOAP 1.2 fault has Code, Reason, Node, Role and Detail, in order", faultOrder(soap.V12)},
}

func mediaTypes(ctx context.Context, p *probe) (string, error) {
	for v, want := range map[soap.Version]string{soap.V11: "text/xml", soap.V12: "application/soap+xml"} {
		rep, err := p.ask(ctx, asking(templates).with(v))
		if err != nil {
			return "", err
		}
		if rep.media() != want {
			return "", fmt.Errorf("the SOAP %s reply has the media type %q: wanted %s", versionName(v), rep.media(), want)
		}
	}
	return "as they should be", nil
}

func offerNotUnderstood(ctx context.Context, p *probe) (string, error) {
	_, o, err := p.accepted(ctx)
	if err != nil {
		return "", err
	}
	rep, err := p.ask(ctx, wsagMessage(createInput, xmlOf(o)).under(unknownBlock(` s:mustUnderstand="1"`)))
	if err != nil {
		return "", err
	}
	_, _ = p.dealOf(rep, createInput, o) // one that was made all the same is to be ended
	return rep.String(), rep.wantFault(soap.MustUnderstand)
}

func faultOrder(v soap.Version) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		rep, err := p.ask(ctx, wsagMessage(createInput, "").with(v))
		if err != nil {
			return "", err
		}
		if rep.fault == nil {
			return "", fmt.Errorf("a CreateAgreementInput without an offer got %s", rep)
		}
		order, space := []string{"faultcode", "faultstring", "faultactor", "detail"}, ""
		if v == soap.V12 {
			order, space = []string{"Code", "Reason", "Node", "Role", "Detail"}, soap.NS12
		}
		next := 0
		var names []string
		for _, c := range rep.fault.element.ChildElements() {
			n := xmldoc.NameOf(c)
			i := slices.Index(order, n.Local)
			if i < next || n.Space != space {
				return "", fmt.Errorf("the fault has %s where the standard does not", n)
			}
			next = i + 1
			names = append(names, n.Local)
		}
		if !slices.Contains(names, order[0]) || !slices.Contains(names, order[1]) {
			return "", fmt.Errorf("the fault has %s only: wanted %s and %s too", strings.Join(names, ", "), order[0], order[1])
		}
		return strings.Join(names, ", "), nil
	}
}

var wsagAddressingChecks = []check{
	{"WSAG-WSA-1", "WS-Addressing 1.0 core §3.4", "the reply relates to the request's MessageID", related(soap.V11, templates)},
	{"WSAG-WSA-2", "WS-Addressing 1.0 core §3.4; SOAP binding §2", "so it does in SOAP 1.2", related(soap.V12, templates)},
	{"WSAG-WSA-3", "WS-Addressing 1.0 core §3.4, §6", "a fault relates to the MessageID", related(soap.V11, "wsag:NoSuchProperty")},
	{"WSAG-WSA-4", "WS-Addressing 1.0 core §3.4", "the reply carries an action, which is not the request's", replyAction},
	{"WSAG-WSA-5", "WS-Addressing 1.0 SOAP binding §2", "a request without addressing is answered, with no header that must be understood", unaddressed},
	{"WSAG-WSA-6", "WS-Addressing 1.0 core §3.2", "an anonymous ReplyTo means the connection", gets(func(p *probe) message {
		return p.addressed(asking(templates), messageID).under(wsaHeader("ReplyTo", "", address(soap.Anonymous)))
	})},
	{"WSAG-WSA-7", "WS-Addressing 1.0 core §3.4; SOAP binding §2.3", "the ReplyTo's reference parameters come back as headers, marked", returnedParameters},
	{"WSAG-WSA-8", "WS-Addressing 1.0 SOAP binding §6.4.1.3", "two MessageID headers are refused", refused(soap.Sender, func(p *probe) message {
		return p.addressed(asking(templates), messageID).under(wsaHeader("MessageID", "", "urn:x"))
	})},
	{"WSAG-WSA-9", portTypes + ": the action is a check only", "with a wsa:Action of another operation it is read as its element says, or refused", eitherReading(func(m message) message {
		return m.under(wsaHeader("Action", "", wsagMessage("TerminateInput", "").action) + wsaHeader("MessageID", "", messageID))
	})},
	{"WSAG-WSA-10", "WS-Addressing 1.0 core §2.1", "the EPR of an agreement has one Address, an absolute URI", createdAddress},
	{"WSAG-WSA-11", "WS-Addressing 1.0 core §3.3; SOAP binding §2.3", "the EPR of an agreement leads to it, its reference parameters as headers", leads(soap.V11)},
	{"WSAG-WSA-12", "WS-Addressing 1.0 core §3.3; SOAP binding §2.3", "so it does in SOAP 1.2", leads(soap.V12)},
	{"WSAG-WSA-13", "WS-Addressing 1.0 core §2.1, §3.3", "a request without the EPR's reference parameters is not about the agreement", parameterless},
	{"WSAG-WSA-14", "WS-Addressing 1.0 core §2; WS-Agreement 1.0, the AgreementFactory port type", "two agreements have different EPRs", differentEPRs},
}

func related(v soap.Version, property string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		rep, err := p.ask(ctx, p.addressed(asking(property), messageID).with(v))
		if err != nil {
			return "", err
		}
		if (rep.fault != nil) != (property != templates) {
			return "", fmt.Errorf("asked for %s, got %s", property, rep)
		}
		got, err := rep.one("RelatesTo")
		if err != nil {
			return "", err
		}
		if got != messageID {
			return "", fmt.Errorf("wsa:RelatesTo is %q: wanted %q", got, messageID)
		}
		return rep.String(), nil
	}
}

func replyAction(ctx context.Context, p *probe) (string, error) {
	m := p.addressed(asking(templates), messageID)
	rep, err := p.ask(ctx, m)
	if err != nil {
		return "", err
	}
	got, err := rep.one("Action")
	if err != nil {
		return "", err
	}
	if u, err := url.Parse(got); err != nil || u.Scheme == "" || got == m.action {
		return "", fmt.Errorf("the reply's wsa:Action is %q: wanted the URI of a response", got)
	}
	return "wsa:Action " + got, rep.wantPayload(nsProperties, "GetResourcePropertyResponse")
}

func unaddressed(ctx context.Context, p *probe) (string, error) {
	rep, err := p.ask(ctx, asking(templates))
	if err != nil {
		return "", err
	}
	if rep.head != nil {
		for _, h := range rep.head.ChildElements() {
			if v, _ := xmldoc.Attr(h, soap.NS11, "mustUnderstand"); v == "1" {
				return "", fmt.Errorf("the reply's header %s must be understood, though nothing was asked for", xmldoc.NameOf(h))
			}
		}
	}
	return rep.String(), rep.wantPayload(nsProperties, "GetResourcePropertyResponse")
}

func returnedParameters(ctx context.Context, p *probe) (string, error) {
	word := p.fresh("ticket")
	rep, err := p.ask(ctx, p.addressed(asking(templates), messageID).under(wsaHeader("ReplyTo", "", address(soap.Anonymous)+
		`<wsa:ReferenceParameters><t:Ticket xmlns:t="`+nsOwn+`">`+word+`</t:Ticket></wsa:ReferenceParameters>`)))
	if err != nil {
		return "", err
	}
	blocks := rep.blocks(nsOwn, "Ticket")
	if len(blocks) != 1 || xmldoc.Text(blocks[0]) != word {
		return "", fmt.Errorf("the reference parameter came back %d times, or changed: wanted once, as a header", len(blocks))
	}
	if v, _ := xmldoc.Attr(blocks[0], soap.NSWSA, "IsReferenceParameter"); v != "true" && v != "1" {
		return "", errors.New("the header made of the reference parameter has no wsa:IsReferenceParameter=\"true\"")
	}
	return "came back, marked", nil
}

func createdAddress(ctx context.Context, p *probe) (string, error) {
	d, err := p.agreed(ctx)
	if err != nil {
		return "", err
	}
	if u, err := url.Parse(d.address); err != nil || !u.IsAbs() {
		return "", fmt.Errorf("the Address is %q: wanted an absolute URI", d.address)
	}
	return d.address, nil
}

func leads(v soap.Version) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		d, err := p.agreed(ctx)
		if err != nil {
			return "", err
		}
		rep, err := p.askAbout(ctx, d, asking("wsag:AgreementId").with(v))
		if err != nil {
			return "", err
		}
		if err := rep.wantPayload(nsProperties, "GetResourcePropertyResponse"); err != nil {
			return "", err
		}
		if xmldoc.Child(rep.payload, agreement.NS, "AgreementId") == nil {
			return "", fmt.Errorf("asked for AgreementId, got %s without it", rep)
		}
		return rep.String(), nil
	}
}

func parameterless(ctx context.Context, p *probe) (string, error) {
	d, err := p.agreed(ctx)
	if err != nil {
		return "", err
	}
	if len(d.epr.ReferenceParameters) == 0 {
		return "", skip("the EPR has no reference parameters: its address alone says which agreement is meant")
	}
	rep, err := p.askAbout(ctx, &deal{address: d.address, epr: soap.EPR{Address: d.address}}, asking("wsag:AgreementState"))
	if err != nil {
		return "", err
	}
	if rep.fault == nil {
		return "", fmt.Errorf("asked for the state of no agreement, got %s", rep)
	}
	return rep.String(), nil
}

func differentEPRs(ctx context.Context, p *probe) (string, error) {
	a, err := p.agreed(ctx)
	if err != nil {
		return "", err
	}
	b, err := p.freshDeal(ctx)
	if err != nil {
		return "", err
	}
	if xmlOf(a.epr.Source) == xmlOf(b.epr.Source) {
		return "", fmt.Errorf("two agreements have the EPR %s", xmlOf(a.epr.Source))
	}
	return "they differ", nil
}
