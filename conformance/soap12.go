package conformance

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

var soap12Checks = []check{
	{
		"SOAP12-VER-1", "SOAP 1.2 part 1 §2.8, appendix A", "a SOAP 1.2 request gets a SOAP 1.2 reply",
		answered(func(*probe) message { return plain().with(soap.V12) }),
	},
	{"SOAP12-CT-1", "SOAP 1.2 part 2 §7.1.4; RFC 3902", "the reply is application/soap+xml", mediaType(soap.V12, "application/soap+xml")},
	{"SOAP12-CT-2", "SOAP 1.2 part 2 §7.5.1.2; RFC 7231 §6.5.13", "SOAP 1.2 as text/xml is answered, or refused with 415", textXML12},
	{
		"SOAP12-ACT-1", "RFC 3902 §2 (action is optional)", "a request without the action parameter works",
		answered(func(*probe) message { m := plain().with(soap.V12); m.noAction = true; return m }),
	},
	{
		"SOAP12-ACT-2", "BES 1.0 WSDL (document/literal)", "the body's element decides, not an action parameter of another operation",
		func(ctx context.Context, p *probe) (string, error) {
			m := factory("GetActivityStatuses", "").with(soap.V12)
			m.action = plain().action
			rep, err := p.ask(ctx, m)
			if err != nil {
				return "", err
			}
			if rep.fault != nil {
				return rep.String(), rep.wantFault(soap.Sender)
			}
			return rep.String(), rep.wantPayload(bes.NSFactory, "GetActivityStatusesResponse")
		},
	},
	{
		"SOAP12-MU-1", "SOAP 1.2 part 1 §5.2.3, §2.4", "an unknown header with mustUnderstand=true gets MustUnderstand",
		refused(soap.MustUnderstand, headed(soap.V12, unknownBlock(` s:mustUnderstand="true"`))),
	},
	{
		"SOAP12-MU-2", "SOAP 1.2 part 1 §5.2.3 (xs:boolean)", "mustUnderstand=1 is true too",
		refused(soap.MustUnderstand, headed(soap.V12, unknownBlock(` s:mustUnderstand="1"`))),
	},
	{"SOAP12-MU-3", "SOAP 1.2 part 1 §5.4.8", "a NotUnderstood block names the header, and its prefix resolves", notUnderstood},
	{
		"SOAP12-MU-4", "SOAP 1.2 part 1 §5.2.3", "an unknown header with mustUnderstand=false is ignored",
		answered(headed(soap.V12, unknownBlock(` s:mustUnderstand="false"`))),
	},
	{
		"SOAP12-MU-5", "SOAP 1.2 part 1 §2.2", "a mustUnderstand header for the role next is ours",
		refused(soap.MustUnderstand, headed(soap.V12, unknownBlock(` s:mustUnderstand="true" s:role="`+soap.NS12+`/role/next"`))),
	},
	{
		"SOAP12-MU-6", "SOAP 1.2 part 1 §2.2", "a mustUnderstand header for the ultimate receiver is ours",
		refused(soap.MustUnderstand, headed(soap.V12, unknownBlock(` s:mustUnderstand="true" s:role="`+soap.NS12+`/role/ultimateReceiver"`))),
	},
	{
		"SOAP12-MU-7", "SOAP 1.2 part 1 §2.4", "a mustUnderstand header for another role is ignored",
		answered(headed(soap.V12, unknownBlock(` s:mustUnderstand="true" s:role="urn:somebody-else"`))),
	},
	{
		"SOAP12-MU-8", "SOAP 1.2 part 1 §2.2", "a mustUnderstand header for the role none is ignored",
		answered(headed(soap.V12, unknownBlock(` s:mustUnderstand="true" s:role="`+soap.NS12+`/role/none"`))),
	},
	{
		"SOAP12-MU-9", "SOAP 1.2 part 1 §5.2.3", "mustUnderstand of another value is refused",
		refused(soap.Sender, headed(soap.V12, unknownBlock(` s:mustUnderstand="wrong"`))),
	},
	{
		"SOAP12-MU-10", "SOAP 1.2 part 1 §5.2.3; W3C test T34", "SOAP 1.1's mustUnderstand means nothing in SOAP 1.2",
		answered(headed(soap.V12, unknownBlock(` xmlns:old="`+soap.NS11+`" old:mustUnderstand="1"`))),
	},
	{"SOAP12-FLT-1", "SOAP 1.2 part 1 §5.4", "a fault has Code, Reason with xml:lang, Node?, Role?, Detail?, in order", faultShape12},
	{"SOAP12-FLT-2", "SOAP 1.2 part 2 §7.5.2.2, table 20", "a Sender fault comes with HTTP 400", senderStatus},
	{
		"SOAP12-STR-1", "SOAP 1.2 part 1 §5.1", "a message without a Body is refused",
		refused(soap.Sender, text(soap.V12, envelope(soap.V12, `<s:Header/>`))),
	},
	{
		"SOAP12-STR-2", "SOAP 1.2 part 1 §5.1", "a message with two Bodies is refused",
		refused(soap.Sender, text(soap.V12, envelope(soap.V12, bodyOf(soap.V12)+bodyOf(soap.V12)))),
	},
	{
		"SOAP12-STR-3", "SOAP 1.2 part 1 §5.1", "a Header after the Body is refused",
		refused(soap.Sender, text(soap.V12, envelope(soap.V12, bodyOf(soap.V12)+`<s:Header/>`))),
	},
	{
		"SOAP12-STR-4", "SOAP 1.2 part 1 §5.1", "an element after the Body is refused",
		refused(soap.Sender, text(soap.V12, envelope(soap.V12, bodyOf(soap.V12)+`<x:after xmlns:x="urn:x"/>`))),
	},
	{"SOAP12-STR-5", "SOAP 1.2 part 1 §5.1.1; real clients (SOAP::Lite)", "an encodingStyle on the Envelope, where it may not be, is refused or has no effect", encodingStyle12},
	{
		"SOAP12-STR-6", "SOAP 1.2 part 1 §5", "a message that is not well-formed is refused in SOAP 1.2 or 1.1",
		func(ctx context.Context, p *probe) (string, error) {
			m := raw(soap.V12, envelope(soap.V12, `<s:Body><a></b></s:Body>`))
			m.anyVersion = true
			rep, err := p.ask(ctx, m)
			if err != nil {
				return "", err
			}
			return rep.String(), rep.wantFault(soap.Sender)
		},
	},
	{
		"SOAP12-DIS-1", "BES 1.0 WSDL", "an unknown element in the Body is the sender's fault",
		refused(soap.Sender, withBody(soap.V12, `<x:Nothing xmlns:x="urn:portolan:conformance"/>`)),
	},
}

func textXML12(ctx context.Context, p *probe) (string, error) {
	m := plain().with(soap.V12)
	m.media = "text/xml; charset=utf-8"
	rep, err := p.exchange(ctx, m.request())
	if err != nil {
		return "", err
	}
	if rep.status == http.StatusUnsupportedMediaType {
		return rep.String(), nil
	}
	if err := rep.parse(); err != nil {
		return "", err
	}
	if rep.fault != nil {
		return rep.String(), rep.wantFault(soap.Sender)
	}
	if rep.version != soap.V12 {
		return "", fmt.Errorf("a SOAP 1.2 envelope was answered in SOAP %s", versionName(rep.version))
	}
	return rep.String(), rep.wantPayload(bes.NSFactory, plainResponse)
}

func notUnderstood(ctx context.Context, p *probe) (string, error) {
	rep, err := p.ask(ctx, plain().with(soap.V12).under(unknownBlock(` s:mustUnderstand="true"`)))
	if err != nil {
		return "", err
	}
	if err := rep.wantFault(soap.MustUnderstand); err != nil {
		return "", err
	}
	return rep.String(), wantNotUnderstood(rep)
}

func unknown12(ctx context.Context, p *probe) (*reply, error) {
	return p.ask(ctx, message{version: soap.V12, body: `<x:Nothing xmlns:x="urn:portolan:conformance"/>`})
}

func faultShape12(ctx context.Context, p *probe) (string, error) {
	rep, err := unknown12(ctx, p)
	if err != nil {
		return "", err
	}
	if err := rep.wantFault(soap.Sender); err != nil {
		return "", err
	}
	order := map[string]int{"Code": 0, "Reason": 1, "Node": 2, "Role": 3, "Detail": 4}
	last := -1
	for _, c := range rep.fault.element.ChildElements() {
		n := xmldoc.NameOf(c)
		i, known := order[n.Local]
		if n.Space != soap.NS12 || !known {
			return "", fmt.Errorf("the fault has a child %s: wanted Code, Reason, Node?, Role?, Detail? of SOAP 1.2", n)
		}
		if i <= last {
			return "", fmt.Errorf("the fault's child %s is out of order", n.Local)
		}
		last = i
	}
	texts := xmldoc.Child(rep.fault.element, soap.NS12, "Reason").ChildElements()
	for _, t := range texts {
		if t.SelectAttrValue("xml:lang", "") == "" {
			return "", errors.New("a Text of the Reason has no xml:lang")
		}
	}
	return rep.String(), nil
}

func senderStatus(ctx context.Context, p *probe) (string, error) {
	rep, err := unknown12(ctx, p)
	if err != nil {
		return "", err
	}
	return rep.String(), rep.wantFault(soap.Sender)
}

// encodingStyle12: the attribute is not allowed there, and real clients send it.
// DataEncodingUnknown says so as well as Sender does.
func encodingStyle12(ctx context.Context, p *probe) (string, error) {
	m := plain().with(soap.V12)
	m.attrs = ` s:encodingStyle="http://www.w3.org/2003/05/soap-encoding"`
	rep, err := p.ask(ctx, m)
	if err != nil {
		return "", err
	}
	if rep.fault == nil {
		return rep.String(), rep.wantPayload(bes.NSFactory, plainResponse)
	}
	if rep.fault.code == codeOf(soap.DataEncodingUnknown, soap.V12) {
		return rep.String(), rep.wantFault(soap.DataEncodingUnknown)
	}
	return rep.String(), rep.wantFault(soap.Sender)
}
