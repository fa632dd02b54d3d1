package conformance

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/soap"
)

// Each of these messages is meant to do harm. The answer must be a fault that
// blames the sender, or a refusal by HTTP; afterwards the endpoint must answer
// an ordinary request.
var hostileChecks = []check{
	{"HOST-DTD-1", "SOAP 1.1 §3; WS-I BP 1.1 R1008", "a DOCTYPE is refused", hostile(soap.V11, `<!DOCTYPE x>`+ordinary(soap.V11))},
	{"HOST-DTD-2", "SOAP 1.2 part 1 §5", "a DOCTYPE is refused in SOAP 1.2", hostile(soap.V12, `<!DOCTYPE x>`+ordinary(soap.V12))},
	{"HOST-DTD-3", "SOAP 1.1 §3", "entities that multiply are refused", hostile(soap.V11, multiplying())},
	{"HOST-DTD-4", "SOAP 1.1 §3", "an external entity is refused", hostile(soap.V11, `<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]>`+envelope(soap.V11, `<s:Body><x:y xmlns:x="urn:x">&e;</x:y></s:Body>`))},
	{"HOST-DTD-5", "SOAP 1.1 §3", "a parameter entity is refused", hostile(soap.V11, `<!DOCTYPE x [<!ENTITY % p SYSTEM "http://127.0.0.1:9/x.dtd"> %p;]>`+ordinary(soap.V11))},
	{"HOST-ENT-1", "XML 1.0 §4.1 (WFC: Entity Declared)", "an entity that nobody declared is refused", hostile(soap.V11, envelope(soap.V11, `<s:Body><x:y xmlns:x="urn:x">&nbsp;</x:y></s:Body>`))},
	{"HOST-PI-1", "SOAP 1.2 part 1 §5; WS-I BP 1.1 R1009", "a processing instruction in the Envelope is refused, or has no effect", eitherWay(envelope(soap.V11, `<?do harm?>`+bodyOf(soap.V11)))},
	{"HOST-DEEP-1", "bounded work", "100 000 levels of elements are refused", hostile(soap.V11, envelope(soap.V11, `<s:Body>`+strings.Repeat("<a>", 100_000)+strings.Repeat("</a>", 100_000)+`</s:Body>`))},
	{"HOST-DEEP-2", "bounded work", "100 000 levels that are never closed are refused", hostile(soap.V11, envelopeStart(soap.V11)+`<s:Body>`+strings.Repeat("<a>", 100_000))},
	{"HOST-ATT-1", "bounded work", "an element with 100 000 attributes is refused, or read in time", eitherWay(envelope(soap.V11, `<s:Header><x:h xmlns:x="urn:x"`+many(100_000, ` a%d="v"`)+`/></s:Header>`+bodyOf(soap.V11)))},
	{"HOST-NS-1", "bounded work", "an element with 50 000 namespaces is refused, or read in time", eitherWay(envelope(soap.V11, `<s:Header><x:h xmlns:x="urn:x"`+many(50_000, ` xmlns:n%d="urn:n"`)+`/></s:Header>`+bodyOf(soap.V11)))},
	{"HOST-SIZE-1", "RFC 9110 §15.5.14", "a body without end is refused before it is whole", endless},
	{"HOST-XML-1", "XML 1.0 §3.1 (WFC: Unique Att Spec)", "an attribute that is there twice is refused", hostile(soap.V11, envelope(soap.V11, `<s:Header><h a="1" a="2"/></s:Header>`+bodyOf(soap.V11)))},
	{"HOST-XML-2", "Namespaces in XML 1.0 §6.3", "the same attribute under two prefixes is refused", hostile(soap.V11, envelope(soap.V11, `<s:Header><h xmlns:p="urn:x" xmlns:q="urn:x" p:a="1" q:a="2"/></s:Header>`+bodyOf(soap.V11)))},
	{"HOST-XML-3", "Namespaces in XML 1.0 §5", "a prefix that is not declared is refused", hostile(soap.V11, envelope(soap.V11, `<s:Body><nowhere:GetFactoryAttributesDocument/></s:Body>`))},
	{"HOST-XML-4", "XML 1.0 §2.1", "a second root is refused", hostile(soap.V11, ordinary(soap.V11)+ordinary(soap.V11))},
	{"HOST-XML-5", "XML 1.0 §2.1", "text after the root is refused", hostile(soap.V11, ordinary(soap.V11)+"and more")},
	{"HOST-XML-6", "XML 1.0 §4.3.3", "bytes that are not UTF-8 are refused", hostile(soap.V11, envelope(soap.V11, "<s:Header><h>\xff\xfe\xc0\x80</h></s:Header>"+bodyOf(soap.V11)))},
	{"HOST-XML-7", "XML 1.0 §2.2, §4.1 (WFC: Legal Character)", "a reference to a character that XML does not have is refused", hostile(soap.V11, envelope(soap.V11, `<s:Header><h>&#0;&#8;</h></s:Header>`+bodyOf(soap.V11)))},
	{"HOST-XML-8", "XML 1.0 §2.1", "a message that stops in the middle is refused", hostile(soap.V11, ordinary(soap.V11)[:len(ordinary(soap.V11))/2])},
	{"HOST-XML-9", "XML 1.0 §2.1", "an empty message is refused", hostile(soap.V11, " ")},
	{"HOST-VEC-1", "bounded work", "a vector of 20 000 identifiers is answered, or refused with a fault", longVector},
	{"HOST-HDR-1", "bounded work", "20 000 header blocks are read in time, or refused", eitherWay(envelope(soap.V11, `<s:Header>`+strings.Repeat(`<x:h xmlns:x="urn:x"/>`, 20_000)+`</s:Header>`+bodyOf(soap.V11)))},
	{"HOST-LIVE-1", "bounded work", "after all this the endpoint answers an ordinary request", answered(func(*probe) message { return plain() })},
}

func ordinary(v soap.Version) string { return plain().with(v).envelopeOnly() }

// envelopeOnly gives the message's XML without a declaration.
func (m message) envelopeOnly() string {
	_, after, _ := strings.Cut(m.text(), "?>\n")
	return after
}

func envelopeStart(v soap.Version) string { return `<s:Envelope xmlns:s="` + namespaceOf(v) + `">` }

func many(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// multiplying gives the document whose entities are each ten of the one before.
func multiplying() string {
	var b strings.Builder
	b.WriteString(`<!DOCTYPE x [<!ENTITY e0 "ha">`)
	for i := 1; i < 12; i++ {
		fmt.Fprintf(&b, `<!ENTITY e%d "%s">`, i, strings.Repeat(fmt.Sprintf("&e%d;", i-1), 10))
	}
	b.WriteString(`]>` + envelope(soap.V11, `<s:Body><x:y xmlns:x="urn:x">&e11;</x:y></s:Body>`))
	return b.String()
}

// refusals are the statuses by which HTTP itself refuses a message.
var refusals = []int{http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity}

// blamed fails unless the answer refuses the message and blames its sender.
func blamed(rep *reply) error {
	if err := rep.parse(); err != nil {
		if httpRefusal(rep, refusals...) {
			return nil
		}
		return err
	}
	if rep.fault == nil {
		return fmt.Errorf("wanted a fault, got %s", rep)
	}
	if rep.status == http.StatusRequestEntityTooLarge {
		return nil
	}
	return rep.wantFault(soap.Sender)
}

func hostile(v soap.Version, text string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		rep, err := p.exchange(ctx, raw(v, text).request())
		if err != nil {
			return "", err
		}
		if err := blamed(rep); err != nil {
			return "", err
		}
		return rep.String(), p.alive(ctx)
	}
}

// eitherWay is for a message that is legal but costly: the ordinary answer in
// time is as good as a refusal.
func eitherWay(text string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		rep, err := p.exchange(ctx, raw(soap.V11, text).request())
		if err != nil {
			return "", err
		}
		if rep.parse() == nil && rep.fault == nil {
			if err := rep.wantPayload(bes.NSFactory, plainResponse); err != nil {
				return "", err
			}
		} else if err := blamed(rep); err != nil {
			return "", err
		}
		return rep.String(), p.alive(ctx)
	}
}

// endlessSize is how much an endpoint gets before it counts as taking everything.
const endlessSize = 256 << 20

// endless sends a body that goes on until the endpoint has had enough. A closed
// connection is an answer here: the rest of the body has nowhere to go.
func endless(ctx context.Context, p *probe) (string, error) {
	sent := &filler{head: envelopeStart(soap.V11) + `<s:Body><x:y xmlns:x="urn:x">`, left: endlessSize}
	m, _, _ := p.ordinary()
	r := m.request()
	r.body, r.stream = nil, sent
	rep, err := p.exchange(ctx, r)
	took := sent.taken()
	if took >= endlessSize {
		return "", fmt.Errorf("the endpoint read all of %d MiB", endlessSize>>20)
	}
	saw := fmt.Sprintf("after %d MiB: ", took>>20)
	switch {
	case rep == nil && ctx.Err() != nil:
		return "", err
	case rep == nil:
		saw += "the connection was closed"
	default:
		if err := blamed(rep); err != nil {
			return "", err
		}
		saw += rep.String()
	}
	return saw, p.alive(ctx)
}

func longVector(ctx context.Context, p *probe) (string, error) {
	rep, err := p.exchange(ctx, factory("GetActivityStatuses", strings.Repeat(identifiers(stranger("x")), 20_000)).request())
	if err != nil {
		return "", err
	}
	if rep.parse() == nil && rep.fault == nil {
		if err := rep.wantPayload(bes.NSFactory, "GetActivityStatusesResponse"); err != nil {
			return "", err
		}
	} else if err := blamed(rep); err != nil {
		return "", err
	}
	return rep.String(), p.alive(ctx)
}
