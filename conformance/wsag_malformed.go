package conformance

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Each of these is the offer that was accepted with one thing wrong in it.
var wsagMalformedChecks = []check{
	{"WSAG-BAD-1", "GFD.107 schema (attributeFormDefault is qualified)", "a term whose Name is in no namespace is refused", invalid(unqualify("Name"))},
	{"WSAG-BAD-2", "GFD.107 schema (attributeFormDefault is qualified)", "a term whose ServiceName is in no namespace is refused", invalid(unqualify("ServiceName"))},
	{"WSAG-BAD-3", schemaOf("AgreementType"), "an offer without a Context is refused", invalid(without("Context"))},
	{"WSAG-BAD-4", schemaOf("AgreementType"), "an offer without Terms is refused", invalid(without("Terms"))},
	{"WSAG-BAD-5", schemaOf("AgreementType"), "Terms before Context are refused", invalid(inOffer(func(o *etree.Element) bool {
		t := xmldoc.Child(o, agreement.NS, "Terms")
		o.RemoveChild(t)
		o.InsertChildAt(0, t)
		return true
	}))},
	{"WSAG-BAD-6", schemaOf("AgreementType"), "a Name after the Context is refused", invalid(inOffer(func(o *etree.Element) bool {
		if n := xmldoc.Child(o, agreement.NS, "Name"); n != nil {
			o.RemoveChild(n)
		}
		o.InsertChildAt(xmldoc.Child(o, agreement.NS, "Context").Index()+1, prefixed(o, "Name", "late"))
		return true
	}))},
	{"WSAG-BAD-7", schemaOf("AgreementContextType"), "a Context without a ServiceProvider is refused", invalid(inside1("Context", func(c *etree.Element) bool { return drop(c, "ServiceProvider") }))},
	{"WSAG-BAD-8", schemaOf("AgreementRoleType"), "a ServiceProvider that is neither party is refused", invalid(inOffer(func(o *etree.Element) bool { return setContext(o, "ServiceProvider", "Nobody") != nil }))},
	{"WSAG-BAD-9", schemaOf("AgreementContextType"), "a TemplateId after the TemplateName is refused", invalid(inside1("Context", func(c *etree.Element) bool {
		id := xmldoc.Child(c, agreement.NS, "TemplateId")
		if id == nil || xmldoc.Child(c, agreement.NS, "TemplateName") == nil {
			return false
		}
		c.RemoveChild(id)
		c.AddChild(id)
		return true
	}))},
	{"WSAG-BAD-10", schemaOf("ServiceDescriptionTermType"), "two elements in a service description term are refused", invalid(inTerm("ServiceDescriptionTerm", func(t *etree.Element) bool {
		t.AddChild(t.ChildElements()[0].Copy())
		return true
	}))},
	{"WSAG-BAD-11", schemaOf("ServiceDescriptionTermType"), "an empty service description term is refused", invalid(inTerm("ServiceDescriptionTerm", func(t *etree.Element) bool { t.Child = nil; return true }))},
	{"WSAG-BAD-12", schemaOf("ServiceDescriptionTermType"), "text in place of a service description is refused", invalid(inTerm("ServiceDescriptionTerm", func(t *etree.Element) bool {
		t.Child = nil
		t.SetText("a job, please")
		return true
	}))},
	{"WSAG-BAD-13", schemaOf("TermType"), "a term without a Name is refused", invalid(inTerm("ServiceDescriptionTerm", func(t *etree.Element) bool { return unset(t, "Name") }))},
	{"WSAG-BAD-14", schemaOf("ServiceTermType"), "a service term without a ServiceName is refused", invalid(inTerm("ServiceDescriptionTerm", func(t *etree.Element) bool { return unset(t, "ServiceName") }))},
	{"WSAG-BAD-15", "WS-Agreement 1.0, terms: states and preferences refer to names", "two terms of one name are refused", invalid(inTerm("ServiceDescriptionTerm", func(t *etree.Element) bool {
		t.Parent().AddChild(t.Copy())
		return true
	}))},
	{"WSAG-BAD-16", schemaOf("TermTreeType"), "two All in Terms are refused", invalid(inside1("Terms", func(t *etree.Element) bool {
		e := prefixed(t, "All", "")
		e.AddChild(t.ChildElements()[0].Copy())
		t.AddChild(e)
		return true
	}))},
	{"WSAG-BAD-17", schemaOf("TermTreeType"), "a OneOrMore in place of All is refused", invalid(inside1("Terms", func(t *etree.Element) bool { t.ChildElements()[0].Tag = "OneOrMore"; return true }))},
	{"WSAG-BAD-18", schemaOf("TermCompositorType"), "an empty compositor is refused", invalid(inside1("Terms", func(t *etree.Element) bool {
		a := t.ChildElements()[0]
		a.AddChild(prefixed(a, "ExactlyOne", ""))
		return true
	}))},
	{"WSAG-BAD-19", schemaOf("TermCompositorType"), "a term that the standard does not have is refused", invalid(inside1("Terms", func(t *etree.Element) bool {
		a := t.ChildElements()[0]
		a.AddChild(prefixed(a, "ZeroOrMore", ""))
		return true
	}))},
	{"WSAG-BAD-20", "WS-Agreement 1.0, terms: one service term or more", "an offer without any service term is refused", invalid(inside1("Terms", func(t *etree.Element) bool { t.Child = nil; return true }))},
	{"WSAG-BAD-21", schemaOf("TermTreeType"), "text among the terms is refused", invalid(inside1("Terms", func(t *etree.Element) bool { t.CreateText("cheaply"); return true }))},
	{"WSAG-BAD-22", schemaOf("GuaranteeTermType"), "a guarantee without an objective is refused", invalid(inTerm("GuaranteeTerm", func(t *etree.Element) bool { return drop(t, "ServiceLevelObjective") }))},
	{"WSAG-BAD-23", schemaOf("GuaranteeTermType"), "a guarantee without business values is refused", invalid(inTerm("GuaranteeTerm", func(t *etree.Element) bool { return drop(t, "BusinessValueList") }))},
	{"WSAG-BAD-24", schemaOf("ServiceRoleType"), "a guarantee that obliges neither side is refused", invalid(inTerm("GuaranteeTerm", func(t *etree.Element) bool {
		unset(t, "Obligated")
		name := "Obligated"
		if t.Space != "" {
			name = t.Space + ":" + name
		} else {
			t.CreateAttr("xmlns:wsagattr", agreement.NS)
			name = "wsagattr:" + name
		}
		t.CreateAttr(name, "Somebody")
		return true
	}))},
	{"WSAG-BAD-25", schemaOf("CompensationType") + " (Count is a positiveInteger)", "a penalty after each 0 assessments is refused", invalid(inTerm("GuaranteeTerm", penalty("Count", "0")))},
	{"WSAG-BAD-26", schemaOf("CompensationType") + " (TimeInterval is a duration)", "a penalty for an interval that is no duration is refused", invalid(inTerm("GuaranteeTerm", penalty("TimeInterval", "soon")))},
	{"WSAG-BAD-27", schemaOf("AgreementContextType") + " (ExpirationTime is a dateTime)", "an ExpirationTime that is no time is refused", invalid(inOffer(func(o *etree.Element) bool { return setContext(o, "ExpirationTime", "next Friday") != nil }))},
	{"WSAG-BAD-28", "WS-Agreement 1.0, context: ExpirationTime ends the agreement", "an offer that has expired is refused with a ContinuingFault", rejected(inOffer(func(o *etree.Element) bool { return setContext(o, "ExpirationTime", "2001-01-01T00:00:00Z") != nil }))},
	{"WSAG-BAD-29", "WS-Agreement 1.0, templates: offers refer to them by name and id", "an offer by a template that is not there is refused with a ContinuingFault", rejected(inOffer(func(o *etree.Element) bool {
		return setContext(o, "TemplateName", "portolan-conformance-no-such-template") != nil
	}))},
	{"WSAG-BAD-30", "WS-Agreement 1.0, templates: offers refer to them by name and id", "an offer by a template's old id is refused with a ContinuingFault", rejected(inOffer(func(o *etree.Element) bool {
		return setContext(o, "TemplateId", "portolan-conformance-no-such-id") != nil
	}))},
	{"WSAG-BAD-31", schemaOf("AgreementType"), "an element after the Terms is refused", invalid(inOffer(func(o *etree.Element) bool { o.AddChild(prefixed(o, "Name", "again")); return true }))},
	{"WSAG-BAD-32", schemaOf("AgreementTemplateType"), "creation constraints in an offer are refused", invalid(inOffer(func(o *etree.Element) bool { o.AddChild(prefixed(o, "CreationConstraints", "")); return true }))},
	{"WSAG-BAD-33", schemaOf("AgreementType"), "an attribute that the schema does not have is refused", invalid(inOffer(func(o *etree.Element) bool {
		o.CreateAttr("xmlns:wsagattr", agreement.NS)
		o.CreateAttr("wsagattr:Nonsense", "1")
		return true
	}))},
	{"WSAG-BAD-34", schemaOf("CreateAgreementInputType"), "a request without an offer is refused", invalidInput(func(string) string { return "" })},
	{"WSAG-BAD-35", schemaOf("CreateAgreementInputType"), "two offers in one request are refused", invalidInput(func(o string) string { return o + o })},
	{"WSAG-BAD-36", schemaOf("CreateAgreementInputType"), "an AgreementAcceptanceEPR in CreateAgreement is refused", invalidInput(func(o string) string { return ownEPR("AgreementAcceptanceEPR") + o })},
	{"WSAG-BAD-37", "WS-Addressing 1.0 core §3.1", "an InitiatorAgreementEPR without an Address is refused", invalidInput(func(o string) string { return `<wsag:InitiatorAgreementEPR/>` + o })},
	{"WSAG-BAD-38", schemaOf("CreateAgreementInputType"), "an InitiatorAgreementEPR after the offer is refused", invalidInput(func(o string) string { return o + ownEPR("InitiatorAgreementEPR") })},
	{"WSAG-BAD-39", factoryPortType + ": what is not marked as noncritical is critical", "a critical extension that is not understood is refused with a ContinuingFault", rejected(func(o *etree.Element) (string, bool) {
		return xmlOf(o) + `<x:Unknown xmlns:x="` + nsOwn + `"/>`, true
	})},
	{"WSAG-BAD-40", schemaOf("NoncriticalExtensionType"), "a NoncriticalExtension of two elements is refused", invalidInput(func(o string) string {
		return o + `<wsag:NoncriticalExtension><x:a xmlns:x="` + nsOwn + `"/><x:b xmlns:x="` + nsOwn + `"/></wsag:NoncriticalExtension>`
	})},
	{"WSAG-BAD-41", schemaOf("NoncriticalExtensionType"), "an empty NoncriticalExtension is refused", invalidInput(func(o string) string { return o + `<wsag:NoncriticalExtension/>` })},
	{"WSAG-BAD-42", "WS-Agreement 1.0: the namespace is that of March 2007", "an offer in the namespace of the draft of 2005 is refused", invalidInput(func(o string) string {
		return strings.ReplaceAll(o, agreement.NS, "http://schemas.ggf.org/graap/2005/09/ws-agreement")
	})},
	{"WSAG-BAD-43", "WS-Agreement 1.0: the namespace is that of March 2007", "an offer in the namespace of the first drafts is refused", invalidInput(func(o string) string {
		return strings.ReplaceAll(o, agreement.NS, "http://www.ggf.org/namespaces/ws-agreement")
	})},
	{"WSAG-BAD-44", "WS-Agreement 1.0: the namespace is that of March 2007", "a whole request in the namespace of the draft of 2005 is refused", olderRequest},
	{"WSAG-BAD-45", schemaOf("CreateAgreementInputType"), "text in place of an offer is refused", invalidInput(func(string) string { return "an agreement, please" })},
}

// alteration gives what stands in a CreateAgreementInput instead of the offer; false where
// the offer has nothing to alter.
type alteration func(offer *etree.Element) (string, bool)

func inOffer(change func(*etree.Element) bool) alteration {
	return func(o *etree.Element) (string, bool) {
		if !change(o) {
			return "", false
		}
		return xmlOf(o), true
	}
}

// inside1 alters a child of the offer.
func inside1(local string, change func(*etree.Element) bool) alteration {
	return inOffer(func(o *etree.Element) bool {
		e := xmldoc.Child(o, agreement.NS, local)
		return e != nil && len(e.ChildElements()) > 0 && change(e)
	})
}

// inTerm alters the first term of a tag.
func inTerm(tag string, change func(*etree.Element) bool) alteration {
	return inOffer(func(o *etree.Element) bool {
		return slices.ContainsFunc(all(o, agreement.NS, tag), change)
	})
}

func without(local string) alteration {
	return inOffer(func(o *etree.Element) bool { return drop(o, local) })
}

func drop(parent *etree.Element, local string) bool {
	e := xmldoc.Child(parent, agreement.NS, local)
	return e != nil && parent.RemoveChild(e) != nil
}

// attribute finds an attribute of WS-Agreement's.
func attribute(e *etree.Element, local string) int {
	return slices.IndexFunc(e.Attr, func(a etree.Attr) bool {
		if a.Key != local || a.Space == "" || a.Space == "xmlns" {
			return false
		}
		n, err := xmldoc.ResolveQName(e, a.Space+":"+a.Key)
		return err == nil && n.Space == agreement.NS
	})
}

func unset(e *etree.Element, local string) bool {
	i := attribute(e, local)
	if i >= 0 {
		e.Attr = slices.Delete(e.Attr, i, i+1)
	}
	return i >= 0
}

func unqualify(local string) alteration {
	return inTerm("ServiceDescriptionTerm", func(t *etree.Element) bool {
		i := attribute(t, local)
		if i >= 0 {
			t.Attr[i].Space = ""
		}
		return i >= 0
	})
}

// penalty puts one in front of a guarantee's others.
func penalty(interval, value string) func(*etree.Element) bool {
	return func(t *etree.Element) bool {
		l := xmldoc.Child(t, agreement.NS, "BusinessValueList")
		if l == nil {
			return false
		}
		x := prefixed(l, "Penalty", "")
		a := prefixed(x, "AssessmentInterval", "")
		a.AddChild(prefixed(a, interval, value))
		x.AddChild(a)
		x.AddChild(prefixed(x, "ValueExpression", "1"))
		at := 0
		if i := xmldoc.Child(l, agreement.NS, "Importance"); i != nil {
			at = i.Index() + 1
		}
		l.InsertChildAt(at, x)
		return true
	}
}

// altering sends the accepted offer altered, and holds the answer against want.
func altering(change alteration, want func(*reply) error) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		m, o, err := p.accepted(ctx)
		if err != nil {
			return "", err
		}
		text, ok := change(o)
		if !ok {
			// Another template may have what is to be altered.
			for _, other := range p.provider.templates {
				if o, err := other.offer(); err == nil && other != m {
					if text, ok = change(o); ok {
						break
					}
				}
			}
		}
		if !ok {
			return "", skip("no offer of a template has what is to be altered")
		}
		rep, err := p.ask(ctx, wsagMessage(createInput, text))
		if err != nil {
			return "", err
		}
		_, _ = p.dealOf(rep, createInput, o) // one that was made all the same is to be ended
		return rep.String(), want(rep)
	}
}

// invalid is for what the schema does not let: any fault that blames the sender will do.
func invalid(change alteration) probeFunc {
	return altering(change, (*reply).wantRefusal)
}

func invalidInput(change func(offer string) string) probeFunc {
	return invalid(func(o *etree.Element) (string, bool) { return change(xmlOf(o)), true })
}

// rejected is for offers that mean something and can't be taken: CreateAgreement answers
// with its own fault.
func rejected(change alteration) probeFunc {
	return altering(change, func(r *reply) error {
		_, err := r.wantContinuing()
		return err
	})
}

func olderRequest(ctx context.Context, p *probe) (string, error) {
	_, o, err := p.accepted(ctx)
	if err != nil {
		return "", err
	}
	m := wsagMessage(createInput, xmlOf(o))
	m.body = strings.ReplaceAll(m.body, agreement.NS, "http://schemas.ggf.org/graap/2005/09/ws-agreement")
	rep, err := p.ask(ctx, m)
	if err != nil {
		return "", err
	}
	if rep.fault == nil {
		return "", fmt.Errorf("wanted a fault, got %s", rep)
	}
	return rep.String(), rep.wantRefusal()
}
