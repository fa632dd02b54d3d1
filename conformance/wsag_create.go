package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

const factoryPortType = "WS-Agreement 1.0, the AgreementFactory port type"

var wsagCreateChecks = []check{
	{"WSAG-CRE-1", factoryPortType + "; GFD.107 schema, CreateAgreementResponse", "an offer made from a template is accepted, with a CreatedAgreementEPR", createsOne},
	{"WSAG-CRE-2", factoryPortType + ": a fault is a rejection", "an offer made from each template is accepted, or rejected with a ContinuingFault", createsEach},
	{"WSAG-CRE-3", factoryPortType + ": CreateAgreement is synchronous", "the agreement is Observed when the answer is there", createdObserved},
	{"WSAG-CRE-4", schemaOf("CreateAgreementOutputType"), "the CreatedAgreementEPR is the first child of the answer, and there is one", createdOne},
	{"WSAG-CRE-5", schemaOf("AgreementPropertiesType"), "an agreement has an id, and another has another", createdIDs},
	{"WSAG-CRE-6", "WS-Agreement 1.0, context", "the agreement's Context names the template and the provider that the offer named", createdContext},
	{"WSAG-CRE-7", "WS-Agreement 1.0, terms", "the agreement has the service terms and guarantees that were offered, and no others", createdTerms},
	{"WSAG-CRE-8", "WS-Agreement 1.0, compositors are choices for the other side", "no choice is left in the terms of an agreement", createdDefinite},
	{"WSAG-CRE-9", factoryPortType + ": what is noncritical and not understood is ignored", "an unknown NoncriticalExtension is ignored", taken(createInput, "", `<wsag:NoncriticalExtension><x:Unknown xmlns:x="`+nsOwn+`"/></wsag:NoncriticalExtension>`, nil)},
	{"WSAG-CRE-10", factoryPortType, "two NoncriticalExtensions are ignored too", taken(createInput, "", strings.Repeat(`<wsag:NoncriticalExtension><x:Unknown xmlns:x="`+nsOwn+`">x</x:Unknown></wsag:NoncriticalExtension>`, 2), nil)},
	{"WSAG-CRE-11", schemaOf("CreateAgreementInputType"), "an InitiatorAgreementEPR before the offer is taken", taken(createInput, ownEPR("InitiatorAgreementEPR"), "", nil)},
	{"WSAG-CRE-12", schemaOf("AgreementContextType"), "an ExpirationTime to come is taken, and the agreement has it", createdExpiration},
	{"WSAG-CRE-13", schemaOf("AgreementContextType") + " (attributes of other namespaces)", "an attribute of another namespace on Context is taken", taken(createInput, "", "", func(o *etree.Element) {
		c := xmldoc.Child(o, agreement.NS, "Context")
		c.CreateAttr("xmlns:own", nsOwn)
		c.CreateAttr("own:mark", "1")
	})},
	{"WSAG-CRE-14", schemaOf("AgreementType") + " (Name is optional)", "an offer without a Name of its own is taken", taken(createInput, "", "", func(o *etree.Element) {
		if n := xmldoc.Child(o, agreement.NS, "Name"); n != nil {
			o.RemoveChild(n)
		}
	})},
	{"WSAG-CRE-15", "XML 1.0 §2.5, §2.10", "comments between the elements of an offer change nothing", taken(createInput, "<!-- a -->", "<!-- b -->", func(o *etree.Element) {
		o.InsertChildAt(0, etree.NewComment(" c "))
	})},
	{"WSAG-CRE-16", "GFD.107 schema, AgreementInitiator (any content)", "an AgreementInitiator in words is taken, or refused with a ContinuingFault", takenOr(func(o *etree.Element) {
		setContext(o, "AgreementInitiator", "CN=somebody,O=conformance")
	})},
	{"WSAG-CRE-17", "GFD.107 schema, AgreementContextType (any, lax)", "an element of another namespace at the end of Context is taken, or refused with a ContinuingFault", takenOr(func(o *etree.Element) {
		e := xmldoc.Child(o, agreement.NS, "Context").CreateElement("own:Extension")
		e.CreateAttr("xmlns:own", nsOwn)
	})},
	{"WSAG-CRE-18", "WS-Agreement 1.0, templates: offers without a template", "an offer that names no template is taken, or refused with a ContinuingFault", takenOr(func(o *etree.Element) {
		c := xmldoc.Child(o, agreement.NS, "Context")
		for _, l := range []string{"TemplateId", "TemplateName"} {
			if e := xmldoc.Child(c, agreement.NS, l); e != nil {
				c.RemoveChild(e)
			}
		}
	})},
	{"WSAG-CRE-19", "SOAP 1.2 part 1; " + factoryPortType, "an offer in SOAP 1.2 is accepted", func(ctx context.Context, p *probe) (string, error) {
		_, o, err := p.accepted(ctx)
		if err != nil {
			return "", err
		}
		rep, err := p.ask(ctx, wsagMessage(createInput, xmlOf(o)).with(soap.V12))
		if err != nil {
			return "", err
		}
		_, err = p.dealOf(rep, createInput, o)
		return rep.String(), err
	}},
}

// ownEPR gives an EPR of the kit's.
func ownEPR(local string) string {
	return `<wsag:` + local + `>` + address("http://initiator.invalid/agreement") +
		`<a:ReferenceParameters xmlns:a="` + soap.NSWSA + `"><x:Id xmlns:x="` + nsOwn + `">1</x:Id></a:ReferenceParameters></wsag:` + local + `>`
}

func createsOne(ctx context.Context, p *probe) (string, error) {
	list, err := p.models(ctx)
	if err != nil {
		return "", err
	}
	var why error
	for _, m := range list {
		o, err := m.offer()
		if err != nil {
			why = err
			continue
		}
		_, rep, err := p.makeDeal(ctx, createInput, o, "", "")
		if err == nil {
			return fmt.Sprintf("by the template %q: %s", m.Name, rep), nil
		}
		why = err
	}
	return "", fmt.Errorf("no offer of the %d templates was accepted; the last: %w", len(list), why)
}

func createsEach(ctx context.Context, p *probe) (string, error) {
	list, err := p.models(ctx)
	if err != nil {
		return "", err
	}
	yes := 0
	for _, m := range list {
		o, err := m.offer()
		if err != nil {
			continue // what can't be offered is told by the templates' checks
		}
		_, rep, err := p.makeDeal(ctx, createInput, o, "", "")
		switch {
		case err == nil:
			yes++
		case rep == nil || rep.fault == nil:
			return "", fmt.Errorf("the offer of %q: %w", m.Name, err)
		default:
			if _, err := rep.wantContinuing(); err != nil {
				return "", fmt.Errorf("the offer of %q: %w", m.Name, err)
			}
		}
	}
	return fmt.Sprintf("%d of %d offers accepted", yes, len(list)), nil
}

func createdObserved(ctx context.Context, p *probe) (string, error) {
	d, err := p.freshDeal(ctx)
	if err != nil {
		return "", err
	}
	s, _, err := p.dealState(ctx, d)
	if err != nil {
		return "", err
	}
	if s != agreement.Observed && s != agreement.Complete { // it may be over already
		return "", fmt.Errorf("the agreement is %s: wanted Observed", s)
	}
	return string(s), nil
}

func createdOne(ctx context.Context, p *probe) (string, error) {
	_, o, err := p.accepted(ctx)
	if err != nil {
		return "", err
	}
	_, rep, err := p.makeDeal(ctx, createInput, o, "", "")
	if err != nil {
		return "", err
	}
	for i, c := range rep.payload.ChildElements() {
		n := xmldoc.NameOf(c)
		if (i == 0) != (n == xmldoc.Name{Space: agreement.NS, Local: "CreatedAgreementEPR"}) || i > 0 && n.Space == agreement.NS {
			return "", fmt.Errorf("child %d of CreateAgreementResponse is %s", i+1, n)
		}
	}
	return rep.String(), nil
}

// word gives the text of a property that is there once.
func (p *probe) word(ctx context.Context, d *deal, local string) (string, error) {
	list, err := p.property(ctx, d, local)
	if err != nil {
		return "", err
	}
	if len(list) != 1 {
		return "", fmt.Errorf("the agreement has %d %s: wanted one", len(list), local)
	}
	return strings.TrimSpace(xmldoc.Text(list[0])), nil
}

func createdIDs(ctx context.Context, p *probe) (string, error) {
	a, err := p.agreed(ctx)
	if err != nil {
		return "", err
	}
	b, err := p.freshDeal(ctx)
	if err != nil {
		return "", err
	}
	first, err := p.word(ctx, a, "AgreementId")
	if err != nil {
		return "", err
	}
	second, err := p.word(ctx, b, "AgreementId")
	if err != nil {
		return "", err
	}
	if first == "" || first == second {
		return "", fmt.Errorf("two agreements have the ids %q and %q", first, second)
	}
	return first + ", " + second, nil
}

func createdContext(ctx context.Context, p *probe) (string, error) {
	d, err := p.agreed(ctx)
	if err != nil {
		return "", err
	}
	list, err := p.property(ctx, d, "Context")
	if err != nil {
		return "", err
	}
	if len(list) != 1 {
		return "", fmt.Errorf("the agreement has %d Context: wanted one", len(list))
	}
	offered := xmldoc.Child(d.offer, agreement.NS, "Context")
	for _, l := range []string{"ServiceProvider", "TemplateId", "TemplateName"} {
		want, got := "", ""
		if e := xmldoc.Child(offered, agreement.NS, l); e != nil {
			want = xmldoc.Text(e)
		}
		if e := xmldoc.Child(list[0], agreement.NS, l); e != nil {
			got = xmldoc.Text(e)
		}
		if got != want {
			return "", fmt.Errorf("%s of the agreement is %q: the offer had %q", l, got, want)
		}
	}
	return "as offered", nil
}

// terms gives the agreement's Terms.
func (p *probe) terms(ctx context.Context, d *deal) (*etree.Element, error) {
	list, err := p.property(ctx, d, "Terms")
	if err != nil {
		return nil, err
	}
	if len(list) != 1 {
		return nil, fmt.Errorf("the agreement has %d Terms: wanted one", len(list))
	}
	return list[0], nil
}

// termNames gives the names of the terms at and below e that have one of these tags.
func termNames(e *etree.Element, tags ...string) []string {
	var names []string
	_ = walk(e, func(e *etree.Element) error {
		if slices.Contains(tags, e.Tag) {
			n, _ := xmldoc.Attr(e, agreement.NS, "Name")
			names = append(names, n)
		}
		return nil
	})
	slices.Sort(names)
	return names
}

func createdTerms(ctx context.Context, p *probe) (string, error) {
	d, err := p.agreed(ctx)
	if err != nil {
		return "", err
	}
	t, err := p.terms(ctx, d)
	if err != nil {
		return "", err
	}
	got, offered := termNames(t, termTags...), termNames(d.offer, termTags...)
	if n := choices(d.offer); n > 0 { // some of them were chosen
		for _, name := range got {
			if !slices.Contains(offered, name) {
				return "", fmt.Errorf("the agreement has the term %q, which was not offered", name)
			}
		}
		return fmt.Sprintf("%d of %d terms chosen", len(got), len(offered)), nil
	}
	if !slices.Equal(got, offered) {
		return "", fmt.Errorf("the agreement has the terms %s: offered were %s", strings.Join(got, ", "), strings.Join(offered, ", "))
	}
	return strings.Join(got, ", "), nil
}

// choices counts the compositors that leave one.
func choices(e *etree.Element) int {
	n := 0
	_ = walk(e, func(e *etree.Element) error {
		if e.Tag == "ExactlyOne" || e.Tag == "OneOrMore" {
			n++
		}
		return nil
	})
	return n
}

func createdDefinite(ctx context.Context, p *probe) (string, error) {
	d, err := p.agreed(ctx)
	if err != nil {
		return "", err
	}
	t, err := p.terms(ctx, d)
	if err != nil {
		return "", err
	}
	if n := choices(t); n > 0 {
		return "", fmt.Errorf("%d compositors with a choice are left in the agreement", n)
	}
	return "none", nil
}

// taken makes a check that an offer is accepted, changed and between such elements.
func taken(input, before, after string, change func(*etree.Element)) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		_, o, err := p.accepted(ctx)
		if err != nil {
			return "", err
		}
		if change != nil {
			change(o)
		}
		_, rep, err := p.makeDeal(ctx, input, o, before, after)
		if err != nil {
			return "", err
		}
		return rep.String(), nil
	}
}

// takenOr makes a check of an offer that may be refused, but with a ContinuingFault.
func takenOr(change func(*etree.Element)) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		_, o, err := p.accepted(ctx)
		if err != nil {
			return "", err
		}
		change(o)
		_, rep, err := p.makeDeal(ctx, createInput, o, "", "")
		if err != nil && rep != nil && rep.fault != nil {
			_, err = rep.wantContinuing()
		}
		if err != nil {
			return "", err
		}
		return rep.String(), nil
	}
}

func createdExpiration(ctx context.Context, p *probe) (string, error) {
	_, o, err := p.accepted(ctx)
	if err != nil {
		return "", err
	}
	// Long enough for what a template may promise, and a whole second.
	want := time.Now().Add(90 * 24 * time.Hour).UTC().Truncate(time.Second)
	setContext(o, "ExpirationTime", want.Format(time.RFC3339))
	d, rep, err := p.makeDeal(ctx, createInput, o, "", "")
	if err != nil {
		if rep != nil && rep.fault != nil {
			if _, notOurs := rep.wantContinuing(); notOurs == nil {
				return "", skip("the offer with an ExpirationTime of %s was refused, as it may be: %s", want.Format(time.RFC3339), rep)
			}
		}
		return "", err
	}
	list, err := p.property(ctx, d, "Context")
	if err != nil {
		return "", err
	}
	if len(list) != 1 {
		return "", errors.New("the agreement has no Context")
	}
	e := xmldoc.Child(list[0], agreement.NS, "ExpirationTime")
	if e == nil {
		return "", errors.New("the agreement's Context has no ExpirationTime")
	}
	got, err := time.Parse(time.RFC3339Nano, xmldoc.Collapse(xmldoc.Text(e)))
	if err != nil || !got.Equal(want) {
		return "", fmt.Errorf("the agreement's ExpirationTime is %q: offered was %s", xmldoc.Text(e), want.Format(time.RFC3339))
	}
	return xmldoc.Text(e), nil
}
