package conformance

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

const messageID = "urn:uuid:5f0c9a53-6a2f-4d0e-9a51-3d9f1f0b7a11"

// engaged gives plain with To, Action and MessageID, and more header blocks.
func engaged(more string) func(*probe) message {
	return func(p *probe) message { return p.addressed(plain(), messageID).under(more) }
}

var addressingChecks = []check{
	{"WSA-REP-1", "WS-Addressing 1.0 core §3.4; BES 1.0 WSDL", "the reply carries the operation's response action", replyHeader("Action", soap.V11, plain().action+"Response")},
	{"WSA-REP-2", "WS-Addressing 1.0 core §3.4", "the reply relates to the request's MessageID", replyHeader("RelatesTo", soap.V11, messageID)},
	{"WSA-REP-3", "WS-Addressing 1.0 core §3.4; SOAP binding §2", "in SOAP 1.2 the reply carries the action too", replyHeader("Action", soap.V12, plain().action+"Response")},
	{"WSA-REP-4", "WS-Addressing 1.0 core §3.4; SOAP binding §2", "in SOAP 1.2 the reply relates to the MessageID too", replyHeader("RelatesTo", soap.V12, messageID)},
	{"WSA-REP-5", "WS-Addressing 1.0 core §3.1; real clients (JAX-WS)", "a MessageID of another scheme comes back as it was", foreignID},
	{"WSA-REP-6", "WS-Addressing 1.0 core §3.4, §6", "a fault relates to the MessageID and carries an action", faultHeaders},
	{"WSA-REP-7", "WS-Addressing 1.0 SOAP binding §2", "without WS-Addressing in the request nothing in the reply must be understood", notEngaged},
	{
		"WSA-REP-8", "WS-Addressing 1.0 core §3.2", "an anonymous ReplyTo means the connection",
		answered(engaged(wsaHeader("ReplyTo", "", address(soap.Anonymous)))),
	},
	{"WSA-MU-1", "WS-Addressing 1.0 SOAP binding §3.4", "mustUnderstand on the addressing headers is honoured", mustUnderstandWSA},
	{"WSA-MU-2", "SOAP 1.1 §4.2.3", "headers of a draft of WS-Addressing are unknown ones", draft},
	{"WSA-CARD-1", "WS-Addressing 1.0 SOAP binding §6.4.1.3", "two Action headers are InvalidCardinality", cardinality("Action", "urn:x")},
	{"WSA-CARD-2", "WS-Addressing 1.0 SOAP binding §6.4.1.3", "two To headers are InvalidCardinality", cardinality("To", "urn:x")},
	{"WSA-CARD-3", "WS-Addressing 1.0 SOAP binding §6.4.1.3", "two MessageID headers are InvalidCardinality", cardinality("MessageID", "urn:x")},
	{"WSA-CARD-4", "WS-Addressing 1.0 SOAP binding §6.4.1.3", "two ReplyTo headers are InvalidCardinality", cardinality("ReplyTo", address(soap.Anonymous))},
	{"WSA-CARD-5", "WS-Addressing 1.0 SOAP binding §6.4.1.3", "two FaultTo headers are InvalidCardinality", cardinality("FaultTo", address(soap.Anonymous))},
	{
		"WSA-CARD-6", "WS-Addressing 1.0 SOAP binding §2; SOAP 1.1 §4.2.2", "a second set of headers for another actor does not count",
		answered(engaged(wsaHeader("Action", ` xmlns:s11="`+soap.NS11+`" s11:actor="urn:somebody-else"`, "urn:x"))),
	},
	{
		"WSA-REQ-1", "WS-Addressing 1.0 SOAP binding §6.4.2", "addressing without an Action is MessageAddressingHeaderRequired",
		subcoded(soap.NSWSA, []string{"MessageAddressingHeaderRequired", "InvalidAddressingHeader"},
			func(p *probe) message {
				return plain().under(wsaHeader("To", "", escape(p.opts.Endpoint)) + wsaHeader("MessageID", "", messageID))
			}),
	},
	{"WSA-ANON-1", "WS-Addressing 1.0 SOAP binding §6.4.1.7", "a ReplyTo elsewhere is refused, or accepted with 202", elsewhere("ReplyTo")},
	{"WSA-ANON-2", "WS-Addressing 1.0 SOAP binding §6.4.1.7", "a FaultTo elsewhere is refused, or the answer comes all the same", elsewhere("FaultTo")},
	{"WSA-NONE-1", "WS-Addressing 1.0 core §2.1; SOAP 1.2 part 2 §7.5", "a ReplyTo of none gets 202 and nothing more", replyToNone},
	{"WSA-RP-1", "WS-Addressing 1.0 core §3.4; SOAP binding §2.3", "the ReplyTo's reference parameters come back as headers, marked", referenceParameters},
	{"WSA-RP-2", "WS-Addressing 1.0 core §3.4, §7 (security)", "a reference parameter cannot pass for a header of the reply", forgedParameter},
	{
		"WSA-EPR-1", "WS-Addressing 1.0 SOAP binding §6.4.1.4", "a ReplyTo without an Address is refused",
		subcoded(soap.NSWSA, []string{"MissingAddressInEPR", "InvalidEPR", "InvalidAddressingHeader"}, engaged(wsaHeader("ReplyTo", "", ""))),
	},
	{"WSA-WS-1", "XML Schema part 2 §3.2.17 (anyURI)", "white space around URIs is no part of them", spaced},
	{"WSA-ACT-1", "WS-Addressing 1.0 SOAP binding §6.4.4", "an unknown action over an unknown body is refused", unknownAction},
	{"WSA-ACT-2", "BES 1.0 WSDL (document/literal)", "the body's element decides, not a wsa:Action of another operation", otherWSAAction},
}

func replyHeader(local string, v soap.Version, want string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		rep, err := p.ask(ctx, p.addressed(plain(), messageID).with(v))
		if err != nil {
			return "", err
		}
		if err := rep.wantPayload(bes.NSFactory, plainResponse); err != nil {
			return "", err
		}
		got, err := rep.one(local)
		if err != nil {
			return "", err
		}
		if got != want {
			return "", fmt.Errorf("wsa:%s of the reply is %q: wanted %q", local, got, want)
		}
		return "wsa:" + local + " " + got, nil
	}
}

func foreignID(ctx context.Context, p *probe) (string, error) {
	id := "uuid:" + p.fresh("conformance")
	rep, err := p.ask(ctx, p.addressed(plain(), id))
	if err != nil {
		return "", err
	}
	got, err := rep.one("RelatesTo")
	if err != nil {
		return "", err
	}
	if got != id {
		return "", fmt.Errorf("wsa:RelatesTo is %q: wanted %q", got, id)
	}
	return "wsa:RelatesTo " + got, nil
}

func faultHeaders(ctx context.Context, p *probe) (string, error) {
	m := p.addressed(factory("CreateActivity", ""), messageID)
	rep, err := p.ask(ctx, m)
	if err != nil {
		return "", err
	}
	if err := rep.wantFault(soap.Sender); err != nil {
		return "", err
	}
	relates, err := rep.one("RelatesTo")
	if err != nil {
		return "", err
	}
	if relates != messageID {
		return "", fmt.Errorf("the fault's wsa:RelatesTo is %q: wanted %q", relates, messageID)
	}
	action, err := rep.one("Action")
	if err != nil {
		return "", err
	}
	if action == "" || action == m.action+"Response" {
		return "", fmt.Errorf("the fault's wsa:Action is %q, which is no fault's", action)
	}
	return "wsa:Action " + action, nil
}

func notEngaged(ctx context.Context, p *probe) (string, error) {
	rep, err := p.ask(ctx, plain())
	if err != nil {
		return "", err
	}
	if err := rep.wantPayload(bes.NSFactory, plainResponse); err != nil {
		return "", err
	}
	if rep.head == nil {
		return "no Header", nil
	}
	for _, b := range rep.head.ChildElements() {
		if v, _ := xmldoc.Attr(b, soap.NS11, "mustUnderstand"); v == "1" || v == "true" {
			return "", fmt.Errorf("the reply demands that %s is understood, though the request had no header at all", xmldoc.NameOf(b))
		}
	}
	return fmt.Sprintf("%d header blocks, none with mustUnderstand", len(rep.head.ChildElements())), nil
}

func mustUnderstandWSA(ctx context.Context, p *probe) (string, error) {
	mu := ` xmlns:s11="` + soap.NS11 + `" s11:mustUnderstand="1"`
	m := plain().under(wsaHeader("To", mu, escape(p.opts.Endpoint)) + wsaHeader("Action", mu, plain().action) +
		wsaHeader("MessageID", mu, messageID) + wsaHeader("ReplyTo", mu, address(soap.Anonymous)))
	rep, err := p.ask(ctx, m)
	if err != nil {
		return "", err
	}
	return rep.String(), rep.wantPayload(bes.NSFactory, plainResponse)
}

func draft(ctx context.Context, p *probe) (string, error) {
	const ns = "http://schemas.xmlsoap.org/ws/2004/08/addressing"
	rep, err := p.ask(ctx, plain().under(`<d:Action xmlns:d="`+ns+`" s:mustUnderstand="0">urn:x</d:Action><d:Action xmlns:d="`+ns+`">urn:y</d:Action>`))
	if err != nil {
		return "", err
	}
	return rep.String(), rep.wantPayload(bes.NSFactory, plainResponse)
}

// cardinality sends one header twice. The fault names it, in the detail of SOAP
// 1.2 and in a FaultDetail header of SOAP 1.1.
func cardinality(local, content string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		headers := map[string]string{"To": escape(p.opts.Endpoint), "Action": plain().action, "MessageID": messageID}
		delete(headers, local)
		m := plain().under(wsaHeader(local, "", content) + wsaHeader(local, "", content))
		for _, h := range []string{"To", "Action", "MessageID"} {
			if c, ok := headers[h]; ok {
				m = m.under(wsaHeader(h, "", c))
			}
		}
		rep, err := p.ask(ctx, m)
		if err != nil {
			return "", err
		}
		if err := rep.wantFault(soap.Sender); err != nil {
			return "", err
		}
		if err := rep.wantSubcode(soap.NSWSA, "InvalidCardinality", "InvalidAddressingHeader"); err != nil {
			return "", err
		}
		for _, b := range rep.blocks(soap.NSWSA, "FaultDetail") {
			if q := xmldoc.Child(b, soap.NSWSA, "ProblemHeaderQName"); q != nil {
				n, err := xmldoc.ResolveQName(q, strings.TrimSpace(xmldoc.Text(q)))
				if err != nil || n.Space != soap.NSWSA || n.Local != local {
					return "", fmt.Errorf("ProblemHeaderQName is %q: wanted wsa:%s", xmldoc.Text(q), local)
				}
			}
		}
		return rep.String(), nil
	}
}

// elsewhere points an answer at an address where nobody listens. An endpoint may
// be able to send answers there; then it says 202.
func elsewhere(local string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		m := p.addressed(plain(), messageID).under(wsaHeader(local, "", address("http://127.0.0.1:9/nobody")))
		rep, err := p.exchange(ctx, m.request())
		if err != nil {
			return "", err
		}
		if rep.status == http.StatusAccepted {
			return "", skip("the endpoint took a %s that is not anonymous, as it may (202)", local)
		}
		if err := rep.parse(); err != nil {
			return "", err
		}
		if local == "FaultTo" && rep.fault == nil {
			return rep.String(), rep.wantPayload(bes.NSFactory, plainResponse)
		}
		if err := rep.wantFault(soap.Sender); err != nil {
			return "", err
		}
		return rep.String(), rep.wantSubcode(soap.NSWSA, "OnlyAnonymousAddressSupported", "InvalidAddressingHeader", "InvalidAddress", "DestinationUnreachable")
	}
}

func replyToNone(ctx context.Context, p *probe) (string, error) {
	rep, err := p.exchange(ctx, engaged(wsaHeader("ReplyTo", "", address(soap.None)))(p).request())
	if err != nil {
		return "", err
	}
	if rep.status != http.StatusAccepted || len(strings.TrimSpace(string(rep.raw))) > 0 {
		return "", fmt.Errorf("wanted HTTP 202 without content, got %s", rep)
	}
	return rep.String(), nil
}

func referenceParameters(ctx context.Context, p *probe) (string, error) {
	word := p.fresh("ticket")
	rep, err := p.ask(ctx, engaged(wsaHeader("ReplyTo", "", address(soap.Anonymous)+
		`<wsa:ReferenceParameters><t:Ticket xmlns:t="urn:portolan:conformance" class="c"><t:Word>`+word+`</t:Word></t:Ticket></wsa:ReferenceParameters>`))(p))
	if err != nil {
		return "", err
	}
	if err := rep.wantPayload(bes.NSFactory, plainResponse); err != nil {
		return "", err
	}
	blocks := rep.blocks("urn:portolan:conformance", "Ticket")
	if len(blocks) != 1 {
		return "", fmt.Errorf("the reference parameter came back %d times: wanted once, as a header", len(blocks))
	}
	w := xmldoc.Child(blocks[0], "urn:portolan:conformance", "Word")
	if w == nil || xmldoc.Text(w) != word || blocks[0].SelectAttrValue("class", "") != "c" {
		return "", fmt.Errorf("the reference parameter came back changed: %s", xmldoc.Marshal(xmldoc.Detach(blocks[0])))
	}
	if v, _ := xmldoc.Attr(blocks[0], soap.NSWSA, "IsReferenceParameter"); v == "true" || v == "1" {
		return "came back, marked", nil
	}
	return "", errors.New("the header made of the reference parameter has no wsa:IsReferenceParameter=\"true\"")
}

func forgedParameter(ctx context.Context, p *probe) (string, error) {
	rep, err := p.ask(ctx, engaged(wsaHeader("ReplyTo", "", address(soap.Anonymous)+
		`<wsa:ReferenceParameters>`+wsaHeader("Action", "", "urn:forged")+wsaHeader("RelatesTo", "", "urn:forged")+`</wsa:ReferenceParameters>`))(p))
	if err != nil {
		return "", err
	}
	if rep.fault != nil {
		return rep.String(), rep.wantFault(soap.Sender)
	}
	for _, local := range []string{"Action", "RelatesTo"} {
		got, err := rep.one(local)
		if err != nil {
			return "", err
		}
		if got == "urn:forged" {
			return "", fmt.Errorf("the reply's wsa:%s is the reference parameter's", local)
		}
	}
	return rep.String(), rep.wantPayload(bes.NSFactory, plainResponse)
}

func spaced(ctx context.Context, p *probe) (string, error) {
	m := plain().under(wsaHeader("To", "", "\n  "+escape(p.opts.Endpoint)+"\n") + wsaHeader("Action", "", "\n\t"+plain().action+" ") +
		wsaHeader("MessageID", "", " "+messageID+"\n") + wsaHeader("ReplyTo", "", address("\n"+soap.Anonymous+"\n")))
	rep, err := p.ask(ctx, m)
	if err != nil {
		return "", err
	}
	if err := rep.wantPayload(bes.NSFactory, plainResponse); err != nil {
		return "", err
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

func unknownAction(ctx context.Context, p *probe) (string, error) {
	rep, err := p.ask(ctx, p.addressed(message{body: `<x:Nothing xmlns:x="urn:portolan:conformance"/>`, action: "urn:portolan:conformance/Nothing"}, messageID))
	if err != nil {
		return "", err
	}
	return rep.String(), rep.wantFault(soap.Sender)
}

func otherWSAAction(ctx context.Context, p *probe) (string, error) {
	m := factory("GetActivityStatuses", "")
	m.headers = wsaHeader("Action", "", plain().action) + wsaHeader("MessageID", "", messageID)
	rep, err := p.ask(ctx, m)
	if err != nil {
		return "", err
	}
	if rep.fault != nil {
		return rep.String(), rep.wantFault(soap.Sender)
	}
	return rep.String(), rep.wantPayload(bes.NSFactory, "GetActivityStatusesResponse")
}
