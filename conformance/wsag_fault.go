package conformance

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

var wsagFaultChecks = []check{
	{"WSAG-FLT-1", "GFD.107 schema, ContinuingFaultType; WS-BaseFaults 1.2 §2", "a ContinuingFault has a Timestamp, Originator, ErrorCode, Descriptions and FaultCause, in order", faultForm(baseFaultOrder)},
	{"WSAG-FLT-2", "WS-BaseFaults 1.2 §2 (Timestamp)", "its Timestamp is an xs:dateTime", faultForm(faultTime)},
	{"WSAG-FLT-3", "WS-BaseFaults 1.2 §2 (Description)", "it says in words what is wrong", faultForm(faultWords)},
	{"WSAG-FLT-4", "WS-BaseFaults 1.2 §2 (ErrorCode)", "its ErrorCode, if any, has a dialect", faultForm(faultCode)},
	{"WSAG-FLT-5", "WS-BaseFaults 1.2 §2; SOAP 1.1 §4.4", "it is the one child of the fault's detail that says what happened", faultAlone},
	{"WSAG-FLT-6", "SOAP 1.2 part 1 §5.4.5; WS-BaseFaults 1.2 §2", "in SOAP 1.2 it stands in Detail, in the same form", faultForm12},
	{"WSAG-FLT-7", "WS-Resource 1.2 §3; WS-BaseFaults 1.2 §2", "a ResourceUnknownFault has the form of a base fault", resourceFaultForm},
	{"WSAG-FLT-8", "WS-ResourceProperties 1.2 §5.3; WS-BaseFaults 1.2 §2", "an InvalidResourcePropertyQNameFault has the form of a base fault", propertyFaultForm},
	{"WSAG-FLT-9", "WS-Agreement 1.0: after a ContinuingFault everything is as it was", "after a refused offer the same good one is accepted", faultContinues},
	{"WSAG-FLT-10", "WS-Addressing 1.0 core §3.4", "a ContinuingFault relates to the MessageID and carries an action of its own", faultAddressed},
}

var baseFaultParts = []string{"Timestamp", "Originator", "ErrorCode", "Description", "FaultCause"}

// baseFaultOrder checks bf:BaseFaultType: foreign elements, then its own in sequence.
func baseFaultOrder(f *etree.Element) error {
	next, begun := 0, false
	var seen []string
	for _, c := range f.ChildElements() {
		n := xmldoc.NameOf(c)
		if n.Space != nsBaseFaults {
			if begun || n.Space == "" {
				return fmt.Errorf("%s holds %s behind what the base fault has", f.Tag, n)
			}
			continue
		}
		begun = true
		i := slices.Index(baseFaultParts, n.Local)
		if i < 0 || i < next || i == next-1 && n.Local != "Description" {
			return fmt.Errorf("%s has %s out of order, or twice", f.Tag, n.Local)
		}
		next = i
		if n.Local != "Description" {
			next++
		}
		seen = append(seen, n.Local)
	}
	if len(seen) == 0 || seen[0] != "Timestamp" {
		return fmt.Errorf("%s has no Timestamp", f.Tag)
	}
	return nil
}

var dateTime = regexp.MustCompile(`^-?[0-9]{4,}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})?$`)

func faultTime(f *etree.Element) error {
	t := xmldoc.Child(f, nsBaseFaults, "Timestamp")
	if t == nil {
		return errors.New("there is no Timestamp")
	}
	if s := xmldoc.Collapse(xmldoc.Text(t)); !dateTime.MatchString(s) {
		return fmt.Errorf("the Timestamp is %q: wanted an xs:dateTime", s)
	}
	return nil
}

func faultWords(f *etree.Element) error {
	for _, d := range f.ChildElements() {
		if xmldoc.Is(d, nsBaseFaults, "Description") && strings.TrimSpace(xmldoc.Text(d)) != "" {
			return nil
		}
	}
	return errors.New("there is no Description that says anything")
}

func faultCode(f *etree.Element) error {
	c := xmldoc.Child(f, nsBaseFaults, "ErrorCode")
	if c == nil {
		return skip("the fault has no ErrorCode, as it may")
	}
	if c.SelectAttrValue("dialect", "") == "" {
		return errors.New("the ErrorCode has no dialect, which the schema requires")
	}
	return nil
}

// continuing has an offer refused, and gives the fault.
func (p *probe) continuing(ctx context.Context, v soap.Version) (*reply, *etree.Element, error) {
	_, o, err := p.accepted(ctx)
	if err != nil {
		return nil, nil, err
	}
	setContext(o, "TemplateName", "portolan-conformance-no-such-template")
	rep, err := p.ask(ctx, p.addressed(wsagMessage(createInput, xmlOf(o)), messageID).with(v))
	if err != nil {
		return nil, nil, err
	}
	_, _ = p.dealOf(rep, createInput, o) // one that was made all the same is to be ended
	f, err := rep.wantContinuing()
	return rep, f, err
}

func faultForm(ok func(*etree.Element) error) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		rep, f, err := p.continuing(ctx, soap.V11)
		if err != nil {
			return "", err
		}
		return rep.String(), ok(f)
	}
}

func faultAlone(ctx context.Context, p *probe) (string, error) {
	rep, _, err := p.continuing(ctx, soap.V11)
	if err != nil {
		return "", err
	}
	n := 0
	for _, c := range rep.fault.detail.ChildElements() {
		if s := xmldoc.NameOf(c).Space; s == agreement.NS || s == nsResource || s == nsProperties {
			n++
		}
	}
	if n != 1 {
		return "", fmt.Errorf("the detail holds %d faults", n)
	}
	return rep.String(), nil
}

func faultForm12(ctx context.Context, p *probe) (string, error) {
	rep, f, err := p.continuing(ctx, soap.V12)
	if err != nil {
		return "", err
	}
	return rep.String(), errors.Join(baseFaultOrder(f), faultTime(f))
}

func resourceFaultForm(ctx context.Context, p *probe) (string, error) {
	d, err := p.strangeDeal(ctx)
	if err != nil {
		return "", err
	}
	rep, err := p.askAbout(ctx, d, asking("wsag:AgreementState"))
	if err != nil {
		return "", err
	}
	f, err := rep.wantDetail(resourceUnknown, continuingFault)
	if err != nil {
		return "", err
	}
	return rep.String(), errors.Join(baseFaultOrder(f), faultTime(f))
}

func propertyFaultForm(ctx context.Context, p *probe) (string, error) {
	rep, err := p.ask(ctx, asking("wsag:NoSuchProperty"))
	if err != nil {
		return "", err
	}
	f, err := rep.wantDetail(invalidProperty)
	if err != nil {
		return "", err
	}
	return rep.String(), errors.Join(baseFaultOrder(f), faultTime(f))
}

func faultContinues(ctx context.Context, p *probe) (string, error) {
	if _, _, err := p.continuing(ctx, soap.V11); err != nil {
		return "", err
	}
	_, o, err := p.accepted(ctx)
	if err != nil {
		return "", err
	}
	_, rep, err := p.makeDeal(ctx, createInput, o, "", "")
	if err != nil {
		return "", err
	}
	return rep.String(), nil
}

func faultAddressed(ctx context.Context, p *probe) (string, error) {
	rep, _, err := p.continuing(ctx, soap.V11)
	if err != nil {
		return "", err
	}
	relates, err := rep.one("RelatesTo")
	if err != nil {
		return "", err
	}
	action, err := rep.one("Action")
	if err != nil {
		return "", err
	}
	if relates != messageID || action == "" || strings.HasSuffix(action, "CreateAgreementRequest") || strings.HasSuffix(action, "CreateAgreementResponse") {
		return "", fmt.Errorf("the fault relates to %q and has the action %q", relates, action)
	}
	return "wsa:Action " + action, nil
}

// Each of these is meant to do harm; afterwards the endpoint must answer an ordinary request.
var wsagHostileChecks = []check{
	{"WSAG-HOST-1", "SOAP 1.1 §3; WS-I BP 1.1 R1008", "a DOCTYPE is refused", hostile(soap.V11, `<!DOCTYPE x>`+askingText())},
	{"WSAG-HOST-2", "SOAP 1.1 §3", "entities that multiply are refused", hostile(soap.V11, multiplying())},
	{"WSAG-HOST-3", "SOAP 1.1 §3", "an external entity is refused", hostile(soap.V11, `<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]>`+envelope(soap.V11, `<s:Body><x:y xmlns:x="urn:x">&e;</x:y></s:Body>`))},
	{"WSAG-HOST-4", "bounded work", "100 000 levels of elements are refused", hostile(soap.V11, envelope(soap.V11, `<s:Body>`+strings.Repeat("<a>", 100_000)+strings.Repeat("</a>", 100_000)+`</s:Body>`))},
	{"WSAG-HOST-5", "RFC 9110 §15.5.14", "a body without end is refused before it is whole", endless},
	{"WSAG-HOST-6", "XML 1.0 §3.1 (WFC: Unique Att Spec)", "an attribute that is there twice is refused", hostile(soap.V11, envelope(soap.V11, `<s:Header><h a="1" a="2"/></s:Header>`+propertyBody()))},
	{"WSAG-HOST-7", "XML 1.0 §4.3.3", "bytes that are not UTF-8 are refused", hostile(soap.V11, envelope(soap.V11, "<s:Header><h>\xff\xfe\xc0\x80</h></s:Header>"+propertyBody()))},
	{"WSAG-HOST-8", "XML 1.0 §2.1", "a message that stops in the middle is refused", hostile(soap.V11, askingText()[:len(askingText())/2])},
	{"WSAG-HOST-9", "bounded work", "an offer of 20 000 terms is answered, or refused with a fault", costlyOffer(func(o *etree.Element) bool {
		a := xmldoc.Child(xmldoc.Child(o, agreement.NS, "Terms"), agreement.NS, "All")
		d := all(o, agreement.NS, "ServiceDescriptionTerm")
		if a == nil || len(d) == 0 {
			return false
		}
		for i := range 20_000 {
			c := d[0].Copy()
			if k := attribute(c, "Name"); k >= 0 {
				c.Attr[k].Value = fmt.Sprintf("term-%d", i)
			}
			c.Child = nil
			c.CreateElement("x").CreateAttr("xmlns", nsOwn)
			a.AddChild(c)
		}
		return true
	})},
	{"WSAG-HOST-10", "bounded work", "compositors that are 2 000 deep are refused", costlyOffer(func(o *etree.Element) bool {
		a := xmldoc.Child(xmldoc.Child(o, agreement.NS, "Terms"), agreement.NS, "All")
		if a == nil {
			return false
		}
		for range 2000 {
			c := prefixed(a, "All", "")
			a.AddChild(c)
			a = c
		}
		return true
	})},
	{"WSAG-HOST-11", "bounded work", "a template's name of 1 MiB is refused", costlyOffer(func(o *etree.Element) bool {
		return setContext(o, "TemplateName", strings.Repeat("n", 1<<20)) != nil
	})},
	{"WSAG-HOST-12", "bounded work", "a request for 20 000 properties is answered, or refused with a fault", func(ctx context.Context, p *probe) (string, error) {
		rep, err := p.exchange(ctx, wanting(slices.Repeat([]string{templates}, 20_000)...).request())
		if err != nil {
			return "", err
		}
		if rep.parse() == nil && rep.fault == nil {
			if err := rep.wantPayload(nsProperties, opMultiple+"Response"); err != nil {
				return "", err
			}
		} else if err := refusedSafely(rep); err != nil {
			return "", err
		}
		return rep.String(), p.alive(ctx)
	}},
	{"WSAG-HOST-13", "bounded work", "after all this the endpoint gives its templates", readIn(soap.V11, nil)},
}

func askingText() string { return asking(templates).envelopeOnly() }

// refusedSafely fails unless the answer is a refusal: by HTTP, or by a fault.
func refusedSafely(rep *reply) error {
	if rep.parse() == nil && rep.fault != nil {
		return rep.wantRefusal()
	}
	return blamed(rep)
}

// costlyOffer sends an offer that is large. To accept it in time is as good as to refuse it.
func costlyOffer(change func(*etree.Element) bool) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		_, o, err := p.accepted(ctx)
		if err != nil {
			return "", err
		}
		if !change(o) {
			return "", skip("the offer has nothing to make large")
		}
		rep, err := p.exchange(ctx, wsagMessage(createInput, xmlOf(o)).request())
		if err != nil {
			return "", err
		}
		if rep.parse() == nil && rep.fault == nil {
			if _, err := p.dealOf(rep, createInput, o); err != nil {
				return "", err
			}
		} else if err := refusedSafely(rep); err != nil {
			return "", err
		}
		return rep.String(), p.alive(ctx)
	}
}
