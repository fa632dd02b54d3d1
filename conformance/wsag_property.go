package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

const (
	getProperty   = "WS-ResourceProperties 1.2 §5.3"
	getMultiple   = "WS-ResourceProperties 1.2 §5.4"
	getDocument   = "WS-ResourceProperties 1.2 §5.2"
	ofAgreement   = "GFD.107 schema, AgreementPropertiesType"
	opMultiple    = "GetMultipleResourceProperties"
	opDocument    = "GetResourcePropertyDocument"
	unknownPrefix = "nowhere:Template"
)

var wsagPropertyChecks = []check{
	{"WSAG-PRO-1", ofAgreement, "the property AgreementId is there once", present("AgreementId", 1, 1)},
	{"WSAG-PRO-2", ofAgreement, "the property Name is there once, or not", present("Name", 0, 1)},
	{"WSAG-PRO-3", ofAgreement, "the property Context is there once", present("Context", 1, 1)},
	{"WSAG-PRO-4", ofAgreement, "the property Terms is there once", present("Terms", 1, 1)},
	{"WSAG-PRO-5", ofAgreement, "the property AgreementState is there once", present("AgreementState", 1, 1)},
	{"WSAG-PRO-6", ofAgreement, "the property GuaranteeTermState can be read", present("GuaranteeTermState", 0, -1)},
	{"WSAG-PRO-7", ofAgreement, "the property ServiceTermState can be read", present("ServiceTermState", 0, -1)},
	{"WSAG-PRO-8", getProperty, "a prefix other than wsag means the same namespace", gets(func(*probe) message { return propertyNamed(`xmlns:q="`+agreement.NS+`"`, "q:Template") })},
	{"WSAG-PRO-9", getProperty + "; XML Schema part 2 §3.2.18 (QName)", "white space around the name is no part of it", gets(func(*probe) message { return asking("\n  " + templates + "\t\n") })},
	{"WSAG-PRO-10", getProperty + "; XML Schema part 2 §3.2.18 (QName)", "a prefix that is declared on the Envelope is in scope", gets(func(*probe) message {
		m := propertyNamed("", "far:Template")
		m.attrs = ` xmlns:far="` + agreement.NS + `"`
		return m
	})},
	{"WSAG-PRO-11", getProperty, "a property that the factory does not have is InvalidResourcePropertyQNameFault", factoryFault(asking("wsag:NoSuchProperty"))},
	{"WSAG-PRO-12", getProperty, "the name in another namespace is another property", factoryFault(propertyNamed(`xmlns:q="`+nsOwn+`"`, "q:Template"))},
	{"WSAG-PRO-13", getProperty, "a property that an agreement does not have is InvalidResourcePropertyQNameFault", agreementFault("wsag:NoSuchProperty")},
	{"WSAG-PRO-14", "WS-Agreement 1.0, the Agreement port type; " + getProperty, "an agreement has no property Template", agreementFault(templates)},
	{"WSAG-PRO-15", factoryPortType + "; " + getProperty, "a factory has no property AgreementState", factoryFault(asking("wsag:AgreementState"))},
	{"WSAG-PRO-16", getProperty + "; Namespaces in XML 1.0 §5", "a name whose prefix is not declared is refused", refusedRead(asking(unknownPrefix))},
	{"WSAG-PRO-17", getProperty, "text that is no name is refused", refusedRead(asking("all of them"))},
	{"WSAG-PRO-18", getProperty, "a request that names no property is refused", refusedRead(asking(""))},
	{"WSAG-PRO-19", "WS-Resource 1.2 §3; " + getProperty, "a property of an agreement that does not exist is ResourceUnknownFault", strange(asking("wsag:AgreementState"))},
	{"WSAG-PRO-20", getMultiple, "two properties come together, in the order asked for", multiple},
	{"WSAG-PRO-21", getMultiple, "with one that there is not, none comes", multipleUnknown},
	{"WSAG-PRO-22", getDocument + "; " + ofAgreement, "an agreement's document is what the schema says", agreementDocument},
	{"WSAG-PRO-23", getDocument, "an agreement's document has the properties that are read one by one", sameProperties},
	{"WSAG-PRO-24", getDocument + "; GFD.107 schema, AgreementFactoryProperties", "the factory's document has the templates", factoryDocument},
	{"WSAG-PRO-25", "SOAP 1.2 part 1; " + getProperty, "an unknown property in SOAP 1.2 is InvalidResourcePropertyQNameFault too", func(ctx context.Context, p *probe) (string, error) {
		rep, err := p.ask(ctx, asking("wsag:NoSuchProperty").with(soap.V12))
		if err != nil {
			return "", err
		}
		_, err = rep.wantDetail(invalidProperty)
		return rep.String(), err
	}},
}

// propertyNamed asks for a property under declarations of its own.
func propertyNamed(declarations, name string) message {
	m := asking("")
	m.body = `<rp:GetResourceProperty xmlns:rp="` + nsProperties + `" ` + declarations + `>` + name + `</rp:GetResourceProperty>`
	return m
}

func present(local string, least, most int) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		d, err := p.agreed(ctx)
		if err != nil {
			return "", err
		}
		list, err := p.property(ctx, d, local)
		if err != nil {
			return "", err
		}
		if len(list) < least || most >= 0 && len(list) > most {
			return "", fmt.Errorf("the agreement has %d %s: wanted %d", len(list), local, most)
		}
		return fmt.Sprintf("%d of it", len(list)), nil
	}
}

func factoryFault(m message) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		rep, err := p.ask(ctx, m)
		if err != nil {
			return "", err
		}
		_, err = rep.wantDetail(invalidProperty)
		return rep.String(), err
	}
}

func agreementFault(name string) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		d, err := p.agreed(ctx)
		if err != nil {
			return "", err
		}
		rep, err := p.askAbout(ctx, d, asking(name))
		if err != nil {
			return "", err
		}
		_, err = rep.wantDetail(invalidProperty)
		return rep.String(), err
	}
}

func refusedRead(m message) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		rep, err := p.ask(ctx, m)
		if err != nil {
			return "", err
		}
		if _, err := rep.wantDetail(invalidProperty); err == nil {
			return rep.String(), nil
		}
		return rep.String(), rep.wantRefusal()
	}
}

// strangeDeal gives a reference like that of an agreement, to one that is not there.
func (p *probe) strangeDeal(ctx context.Context) (*deal, error) {
	d, err := p.agreed(ctx)
	if err != nil {
		return nil, err
	}
	s := &deal{address: d.address, epr: soap.EPR{Address: d.address}}
	for _, r := range d.epr.ReferenceParameters {
		e := xmldoc.Detach(r)
		var leaves func(*etree.Element)
		leaves = func(x *etree.Element) {
			if len(x.ChildElements()) == 0 {
				x.SetText("portolan-conformance-no-such-agreement")
			}
			for _, c := range x.ChildElements() {
				leaves(c)
			}
		}
		leaves(e)
		s.epr.ReferenceParameters = append(s.epr.ReferenceParameters, e)
	}
	if len(s.epr.ReferenceParameters) == 0 {
		return nil, skip("the EPRs of agreements have no reference parameters: the kit makes up no addresses")
	}
	return s, nil
}

func strange(m message) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		d, err := p.strangeDeal(ctx)
		if err != nil {
			return "", err
		}
		rep, err := p.askAbout(ctx, d, m)
		if err != nil {
			return "", err
		}
		_, err = rep.wantDetail(resourceUnknown, continuingFault)
		return rep.String(), err
	}
}

func wanting(names ...string) message {
	var b strings.Builder
	for _, n := range names {
		b.WriteString(`<rp:ResourceProperty>` + n + `</rp:ResourceProperty>`)
	}
	return propertyMessage(opMultiple, b.String())
}

func multiple(ctx context.Context, p *probe) (string, error) {
	d, err := p.agreed(ctx)
	if err != nil {
		return "", err
	}
	rep, err := p.askAbout(ctx, d, wanting("wsag:AgreementState", "wsag:AgreementId"))
	if err != nil {
		return "", err
	}
	if err := notOffered(rep, opMultiple); err != nil {
		return "", err
	}
	if err := rep.wantPayload(nsProperties, opMultiple+"Response"); err != nil {
		return "", err
	}
	var got []string
	for _, c := range rep.payload.ChildElements() {
		got = append(got, xmldoc.NameOf(c).Local)
	}
	if !slices.Equal(got, []string{"AgreementState", "AgreementId"}) {
		return "", fmt.Errorf("asked for AgreementState and AgreementId, got %s", strings.Join(got, ", "))
	}
	return rep.String(), nil
}

func multipleUnknown(ctx context.Context, p *probe) (string, error) {
	d, err := p.agreed(ctx)
	if err != nil {
		return "", err
	}
	rep, err := p.askAbout(ctx, d, wanting("wsag:AgreementState", "wsag:NoSuchProperty"))
	if err != nil {
		return "", err
	}
	if err := notOffered(rep, opMultiple); err != nil {
		return "", err
	}
	_, err = rep.wantDetail(invalidProperty)
	return rep.String(), err
}

// documentOf gives the resource property document of an agreement, or of the factory.
func (p *probe) documentOf(ctx context.Context, d *deal, name string) (*etree.Element, error) {
	m := propertyMessage(opDocument, "")
	rep, err := p.ask(ctx, m)
	if d != nil {
		rep, err = p.askAbout(ctx, d, m)
	}
	if err != nil {
		return nil, err
	}
	if err := notOffered(rep, opDocument); err != nil {
		return nil, err
	}
	if err := rep.wantPayload(nsProperties, opDocument+"Response"); err != nil {
		return nil, err
	}
	list := rep.payload.ChildElements()
	if len(list) != 1 || !xmldoc.Is(list[0], agreement.NS, name) {
		return nil, fmt.Errorf("the answer does not hold one wsag:%s", name)
	}
	return list[0], nil
}

func agreementDocument(ctx context.Context, p *probe) (string, error) {
	d, err := p.agreed(ctx)
	if err != nil {
		return "", err
	}
	doc, err := p.documentOf(ctx, d, "AgreementProperties")
	if err != nil {
		return "", err
	}
	if _, err := agreement.DecodeProperties(doc); err != nil {
		return "", errors.New(fail.Sentence(err))
	}
	return fmt.Sprintf("%d properties", len(doc.ChildElements())), nil
}

func sameProperties(ctx context.Context, p *probe) (string, error) {
	d, err := p.agreed(ctx)
	if err != nil {
		return "", err
	}
	doc, err := p.documentOf(ctx, d, "AgreementProperties")
	if err != nil {
		return "", err
	}
	for _, local := range []string{"Name", "AgreementId", "Context", "Terms", "AgreementState", "GuaranteeTermState", "ServiceTermState"} {
		list, err := p.property(ctx, d, local)
		if err != nil {
			return "", err
		}
		n := 0
		for _, c := range doc.ChildElements() {
			if xmldoc.Is(c, agreement.NS, local) {
				n++
			}
		}
		if n != len(list) {
			return "", fmt.Errorf("the document has %d %s, and %d are read by name", n, local, len(list))
		}
	}
	return "the same", nil
}

func factoryDocument(ctx context.Context, p *probe) (string, error) {
	doc, err := p.documentOf(ctx, nil, "AgreementFactoryProperties")
	if err != nil {
		return "", err
	}
	_, list, err := p.factoryTemplates(ctx)
	if err != nil {
		return "", err
	}
	if got := len(all(doc, agreement.NS, "Template")); got != len(list) || got != len(doc.ChildElements()) {
		return "", fmt.Errorf("the document has %d templates among %d elements, and %d are read by name", got, len(doc.ChildElements()), len(list))
	}
	return fmt.Sprintf("%d templates", len(list)), nil
}
