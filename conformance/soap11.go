package conformance

import (
	"context"
	"errors"
	"fmt"
	"unicode/utf16"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

func headed(v soap.Version, block string) func(*probe) message {
	return func(*probe) message { return plain().with(v).under(block) }
}

func text(v soap.Version, s string) func(*probe) message {
	return func(*probe) message { return raw(v, s) }
}

func withBody(v soap.Version, s string) func(*probe) message {
	return func(*probe) message { return message{version: v, body: s, action: plain().action} }
}

var soap11Checks = []check{
	{"SOAP11-VER-1", "SOAP 1.1 §4.1.2", "a SOAP 1.1 request gets a SOAP 1.1 reply", answered(func(*probe) message { return plain() })},
	{"SOAP11-CT-1", "SOAP 1.1 §6; WS-I BP 1.1 R1012", "the reply is text/xml in UTF-8 or UTF-16", mediaType(soap.V11, "text/xml")},
	{"SOAP11-VM-1", "SOAP 1.1 §4.4.1", "an Envelope of another namespace gets VersionMismatch", versionMismatch},
	{"SOAP11-VM-2", "SOAP 1.2 part 1 §5.4.7", "VersionMismatch says in an Upgrade block what is understood", upgrade},
	{
		"SOAP11-MU-1", "SOAP 1.1 §4.2.3", "an unknown header with mustUnderstand=1 gets MustUnderstand",
		refused(soap.MustUnderstand, headed(soap.V11, unknownBlock(` s:mustUnderstand="1"`))),
	},
	{
		"SOAP11-MU-2", "SOAP 1.1 §4.2.3", "an unknown header with mustUnderstand=0 is ignored",
		answered(headed(soap.V11, unknownBlock(` s:mustUnderstand="0"`))),
	},
	{
		"SOAP11-MU-3", "SOAP 1.1 §4.2.3; WS-I BP 1.1 R1013", "mustUnderstand of another value is refused",
		refused(soap.Sender, headed(soap.V11, unknownBlock(` s:mustUnderstand="9"`))),
	},
	{
		"SOAP11-MU-4", "SOAP 1.1 §4.2.2", "a mustUnderstand header for another actor is ignored",
		answered(headed(soap.V11, unknownBlock(` s:mustUnderstand="1" s:actor="urn:somebody-else"`))),
	},
	{
		"SOAP11-MU-5", "SOAP 1.1 §4.2.2", "a mustUnderstand header for the actor next is ours",
		refused(soap.MustUnderstand, headed(soap.V11, unknownBlock(` s:mustUnderstand="1" s:actor="http://schemas.xmlsoap.org/soap/actor/next"`))),
	},
	{
		"SOAP11-MU-6", "SOAP 1.1 §4.2.2", "a mustUnderstand header with an empty actor is ours",
		refused(soap.MustUnderstand, headed(soap.V11, unknownBlock(` s:mustUnderstand="1" s:actor=""`))),
	},
	{"SOAP11-MU-7", "SOAP 1.1 §4.2.3; SOAP 1.2 part 1 §2.6", "MustUnderstand comes before anything is done", mustUnderstandFirst},
	{"SOAP11-FLT-1", "SOAP 1.1 §4.4; WS-I BP 1.1 R1000, R1001", "a fault has faultcode, faultstring, faultactor, detail, unqualified, in order", faultShape11},
	{"SOAP11-FLT-2", "SOAP 1.1 §4.4", "a fault about a header has no detail", headerFaultDetail},
	{
		"SOAP11-STR-1", "SOAP 1.1 §4", "a message without a Body is refused",
		refused(soap.Sender, text(soap.V11, envelope(soap.V11, `<s:Header/>`))),
	},
	{
		"SOAP11-STR-2", "SOAP 1.1 §4", "a message with two Bodies is refused",
		refused(soap.Sender, text(soap.V11, envelope(soap.V11, bodyOf(soap.V11)+bodyOf(soap.V11)))),
	},
	{
		"SOAP11-STR-3", "SOAP 1.1 §4.2", "a Header after the Body is refused",
		refused(soap.Sender, text(soap.V11, envelope(soap.V11, bodyOf(soap.V11)+`<s:Header/>`))),
	},
	{
		"SOAP11-STR-4", "WS-I BP 1.1 R2201, R9981", "two elements in the Body are refused",
		refused(soap.Sender, withBody(soap.V11, plain().body+plain().body)),
	},
	{
		"SOAP11-STR-5", "SOAP 1.1 §3", "a message that is not well-formed is refused",
		refused(soap.Sender, text(soap.V11, envelope(soap.V11, `<s:Body><a></b></s:Body>`))),
	},
	{
		"SOAP11-STR-6", "BES 1.0 WSDL: every operation has an input element", "an empty Body is refused",
		refused(soap.Sender, withBody(soap.V11, ``)),
	},
	{
		"SOAP11-STR-7", "SOAP 1.1 §4.3; WS-I BP 1.1 R2202", "text in the Body is refused",
		refused(soap.Sender, withBody(soap.V11, `GetFactoryAttributesDocument`)),
	},
	{"SOAP11-STR-8", "SOAP 1.1 §4", "a well-formed document that is not SOAP is refused", notSOAP},
	{"SOAP11-DIS-1", "BES 1.0 WSDL (document/literal); WS-I BP 1.1 R2710", "the body's element decides, not a SOAPAction of another operation", otherAction},
	{
		"SOAP11-DIS-2", "SOAP 1.1 §6.1.1", "an empty SOAPAction works",
		answered(func(*probe) message { m := plain(); m.action = ""; return m }),
	},
	{
		"SOAP11-DIS-3", "SOAP 1.1 §6.1.1", "a request without SOAPAction is answered, if only by a fault",
		tolerated(func(*probe) message { m := plain(); m.noAction = true; return m }),
	},
	{
		"SOAP11-DIS-4", "BES 1.0 WSDL", "an unknown element in the Body is the sender's fault",
		refused(soap.Sender, func(*probe) message {
			return message{body: `<x:Nothing xmlns:x="urn:portolan:conformance"/>`, action: "urn:portolan:conformance/Nothing"}
		}),
	},
	{
		"SOAP11-DIS-5", "Namespaces in XML 1.0 §6", "an operation's name in another namespace is another element",
		refused(soap.Sender, withBody(soap.V11, `<x:GetFactoryAttributesDocument xmlns:x="urn:portolan:conformance"/>`)),
	},
	{
		"SOAP11-XML-1", "Namespaces in XML 1.0 §6.2", "default namespaces mean what prefixes mean",
		answered(text(soap.V11, `<Envelope xmlns="`+soap.NS11+`"><Body><GetFactoryAttributesDocument xmlns="`+bes.NSFactory+`"/></Body></Envelope>`)),
	},
	{
		"SOAP11-XML-2", "XML 1.0 §2.5, §2.10", "comments and white space between elements change nothing",
		answered(text(soap.V11, "<?xml version='1.0'?>\n<!-- a -->\n"+envelope(soap.V11, "\n\t<!-- b --><s:Header>\n</s:Header>\r\n"+bodyOf(soap.V11)+"\n")+"<!-- c -->\n")),
	},
	{
		"SOAP11-XML-3", "XML 1.0 §4.3.3", "a byte order mark before UTF-8 is no content",
		answered(text(soap.V11, "\uFEFF"+envelope(soap.V11, bodyOf(soap.V11)))),
	},
	{"SOAP11-XML-4", "WS-I BP 1.1 R4003, R1012", "a message in UTF-16 is read", utf16Message},
	{
		"SOAP11-XML-5", "WS-I BP 1.1 R1005; real clients (SOAP::Lite)", "an encodingStyle on the Envelope is answered, if only by a fault",
		tolerated(func(*probe) message {
			m := plain()
			m.attrs = ` s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"`
			return m
		}),
	},
}

// mediaType checks the Content-Type of an ordinary reply.
func mediaType(v soap.Version, want string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		rep, err := p.ask(ctx, plain().with(v))
		if err != nil {
			return "", err
		}
		if rep.media() != want {
			return "", fmt.Errorf("the Content-Type of the reply is %q: wanted %s", rep.header.Get("Content-Type"), want)
		}
		return rep.header.Get("Content-Type"), rep.wantPayload(bes.NSFactory, plainResponse)
	}
}

var foreignEnvelope = message{
	anyVersion: true, action: plain().action,
	envelope: `<s:Envelope xmlns:s="http://www.w3.org/2001/12/soap-envelope"><s:Body>` + plain().body + `</s:Body></s:Envelope>`,
}

func versionMismatch(ctx context.Context, p *probe) (string, error) {
	rep, err := p.ask(ctx, foreignEnvelope)
	if err != nil {
		return "", err
	}
	return rep.String(), rep.wantFault(soap.VersionMismatch)
}

func upgrade(ctx context.Context, p *probe) (string, error) {
	rep, err := p.ask(ctx, foreignEnvelope)
	if err != nil {
		return "", err
	}
	if err := rep.wantFault(soap.VersionMismatch); err != nil {
		return "", err
	}
	blocks := rep.blocks(soap.NS12, "Upgrade")
	if len(blocks) != 1 {
		return "", fmt.Errorf("the VersionMismatch fault has %d Upgrade header blocks: wanted one", len(blocks))
	}
	var seen []string
	for _, e := range blocks[0].ChildElements() {
		if !xmldoc.Is(e, soap.NS12, "SupportedEnvelope") {
			return "", fmt.Errorf("the Upgrade block holds %s: wanted SupportedEnvelope", xmldoc.NameOf(e))
		}
		n, err := xmldoc.ResolveQName(e, e.SelectAttrValue("qname", ""))
		if err != nil {
			return "", fmt.Errorf("a SupportedEnvelope's qname does not resolve: %w", err)
		}
		if n.Local != "Envelope" {
			return "", fmt.Errorf("SupportedEnvelope names %s, which is no Envelope", n)
		}
		seen = append(seen, n.Space)
	}
	if len(seen) == 0 {
		return "", errors.New("the Upgrade block lists no SupportedEnvelope")
	}
	return fmt.Sprintf("Upgrade to %v", seen), nil
}

// mustUnderstandFirst asks for an activity under a header that cannot be
// understood and looks whether one was made all the same.
func mustUnderstandFirst(ctx context.Context, p *probe) (string, error) {
	before, err := p.readAttributes(ctx)
	if err != nil {
		return "", skip("the factory attributes, which would show the effect, could not be read: %v", err)
	}
	rep, err := p.ask(ctx, create(job(posix(p.opts.Programs.True))).under(unknownBlock(` s:mustUnderstand="1"`)))
	if err != nil {
		return "", err
	}
	if err := rep.wantFault(soap.MustUnderstand); err != nil {
		return "", err
	}
	after, err := p.readAttributes(ctx)
	if err != nil {
		return "", err
	}
	if after.total > before.total {
		return "", fmt.Errorf("the message was refused, yet TotalNumberOfActivities went from %d to %d", before.total, after.total)
	}
	return fmt.Sprintf("%s; activities before %d, after %d", rep, before.total, after.total), nil
}

// faultShape11 looks at the fault for an unknown operation.
func faultShape11(ctx context.Context, p *probe) (string, error) {
	rep, err := p.ask(ctx, message{body: `<x:Nothing xmlns:x="urn:portolan:conformance"/>`})
	if err != nil {
		return "", err
	}
	if err := rep.wantFault(soap.Sender); err != nil {
		return "", err
	}
	order := map[string]int{"faultcode": 0, "faultstring": 1, "faultactor": 2, "detail": 3}
	last := -1
	for _, c := range rep.fault.element.ChildElements() {
		n := xmldoc.NameOf(c)
		i, known := order[n.Local]
		if n.Space != "" || !known {
			return "", fmt.Errorf("the fault has a child %s: wanted faultcode, faultstring, faultactor?, detail?, all unqualified", n)
		}
		if i <= last {
			return "", fmt.Errorf("the fault's child %s is out of order", n.Local)
		}
		last = i
	}
	return rep.String(), nil
}

func headerFaultDetail(ctx context.Context, p *probe) (string, error) {
	rep, err := p.ask(ctx, plain().under(unknownBlock(` s:mustUnderstand="1"`)))
	if err != nil {
		return "", err
	}
	if err := rep.wantFault(soap.MustUnderstand); err != nil {
		return "", err
	}
	if rep.fault.detail != nil {
		return "", errors.New("the fault about a header has a detail, which SOAP 1.1 keeps for the Body")
	}
	return rep.String(), nil
}

func notSOAP(ctx context.Context, p *probe) (string, error) {
	rep, err := p.ask(ctx, message{envelope: `<greeting>hello</greeting>`, anyVersion: true})
	if err != nil {
		return "", err
	}
	if rep.fault == nil {
		return "", fmt.Errorf("wanted a fault, got %s", rep)
	}
	if rep.fault.code == codeOf(soap.VersionMismatch, rep.version) {
		return rep.String(), rep.wantFault(soap.VersionMismatch)
	}
	return rep.String(), rep.wantFault(soap.Sender)
}

// otherAction sends one operation under the action of another. The answer may be
// the operation's or a refusal, never the other operation's.
func otherAction(ctx context.Context, p *probe) (string, error) {
	m := factory("GetActivityStatuses", "")
	m.action = plain().action
	rep, err := p.ask(ctx, m)
	if err != nil {
		return "", err
	}
	if rep.fault != nil {
		return rep.String(), rep.wantFault(soap.Sender)
	}
	return rep.String(), rep.wantPayload(bes.NSFactory, "GetActivityStatusesResponse")
}

func utf16Message(ctx context.Context, p *probe) (string, error) {
	m := plain()
	m.envelope = `<?xml version="1.0" encoding="UTF-16"?>` + envelope(soap.V11, bodyOf(soap.V11))
	m.media = "text/xml; charset=utf-16"
	r := m.request()
	r.body = []byte{0xFE, 0xFF}
	for _, u := range utf16.Encode([]rune(m.envelope)) {
		r.body = append(r.body, byte(u>>8), byte(u))
	}
	rep, err := p.exchange(ctx, r)
	if err != nil {
		return "", err
	}
	if err := rep.parse(); err != nil {
		return "", err
	}
	return rep.String(), rep.wantPayload(bes.NSFactory, plainResponse)
}
