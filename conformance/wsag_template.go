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
	"github.com/portolan-project/portolan/internal/xpath"
	"github.com/portolan-project/portolan/internal/xsd"
)

var wsagTemplateChecks = []check{
	{"WSAG-TPL-1", "GFD.107 schema, AgreementFactoryProperties; WS-ResourceProperties 1.2 §5.3", "the property wsag:Template gives templates and nothing else", templatesAlone},
	{"WSAG-TPL-2", schemaOf("AgreementTemplateType"), "every template is what the schema says", eachElement(func(e *etree.Element) error {
		if _, err := agreement.DecodeTemplate(e); err != nil {
			return errors.New(fail.Sentence(err))
		}
		return nil
	})},
	{"WSAG-TPL-3", "GFD.107 schema (attributeFormDefault is qualified)", "the attributes of templates are qualified", eachElement(qualifiedAttributes)},
	{"WSAG-TPL-4", "WS-Agreement 1.0, templates: offers refer to them by name and id", "every template has a name and an id, and no two have the same", templateNames},
	{"WSAG-TPL-5", "WS-Agreement 1.0, templates: Context/TemplateId and TemplateName", "what a template's Context says of its name and id is so", eachTemplate(contextAgrees)},
	{"WSAG-TPL-6", schemaOf("AgreementContextType"), "every template says who provides the service", eachElement(saysProvider)},
	{"WSAG-TPL-7", "WS-Agreement 1.0, terms: one service term or more", "every template has a service term", eachTemplate(hasService)},
	{"WSAG-TPL-8", "WS-Agreement 1.0, terms: states and preferences refer to names", "no two terms of a template have the same name", eachElement(uniqueTerms)},
	{"WSAG-TPL-9", "GFD.107 schema, ServiceTermType", "a service description term holds one element of another namespace", eachElement(oneDescription)},
	{"WSAG-TPL-10", schemaOf("ServiceSelectorType"), "guarantees are about services that the template has", eachTemplate(scopesExist)},
	{"WSAG-TPL-11", schemaOf("GuaranteeTermType"), "every guarantee has an objective and a list of business values", eachElement(guaranteesWhole)},
	{"WSAG-TPL-12", "WS-Agreement 1.0, terms: Preference refers to terms", "preferences are among terms that the template has", eachTemplate(preferencesExist)},
	{"WSAG-TPL-13", "WS-Agreement 1.0, service properties: a Variable's Location is an XPath", "the Locations of variables are XPaths whose prefixes are in scope", eachTemplate(variableLocations)},
	{"WSAG-TPL-14", "WS-Agreement 1.0, creation constraints: an Item's Location is an XPath", "the Locations of Items are XPaths that give nodes, their prefixes in scope", eachTemplate(itemLocations)},
	{"WSAG-TPL-15", "GFD.107 schema, ItemConstraint; XML Schema part 2 §4.3", "every ItemConstraint holds facets, a simple type or a particle that say something", eachTemplate(itemConstraints)},
	{"WSAG-TPL-16", "WS-Agreement 1.0, creation constraints", "free constraints, if any, hold something", eachTemplate(freeConstraints)},
	{"WSAG-TPL-17", "WS-Agreement 1.0, compliance of an offer with a template", "a template's own terms can be offered: its constraints do not contradict them", eachTemplate(satisfiable)},
	{"WSAG-TPL-18", "SOAP 1.2 part 1; WS-ResourceProperties 1.2 §5.3", "the same number of templates comes in SOAP 1.2", templates12},
}

func templatesAlone(ctx context.Context, p *probe) (string, error) {
	_, list, err := p.factoryTemplates(ctx)
	if err != nil {
		return "", err
	}
	for _, e := range list {
		if !xmldoc.Is(e, agreement.NS, "Template") {
			return "", fmt.Errorf("among the templates is %s", xmldoc.NameOf(e))
		}
	}
	if len(list) == 0 {
		return "", skip("the endpoint offers no template, as it may")
	}
	return fmt.Sprintf("%d templates", len(list)), nil
}

// eachElement makes a check of every template as it came.
func eachElement(ok func(*etree.Element) error) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		_, list, err := p.factoryTemplates(ctx)
		if err != nil {
			return "", err
		}
		if len(list) == 0 {
			return "", skip("the endpoint offers no template, as it may")
		}
		for i, e := range list {
			if err := ok(e); err != nil {
				return "", fmt.Errorf("the template %d of %d: %w", i+1, len(list), err)
			}
		}
		return fmt.Sprintf("%d templates", len(list)), nil
	}
}

// eachTemplate makes a check of every template that could be read.
func eachTemplate(ok func(*model) error) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		list, err := p.models(ctx)
		if err != nil {
			return "", err
		}
		for _, m := range list {
			if err := ok(m); err != nil {
				return "", fmt.Errorf("the template %q: %w", m.Name, err)
			}
		}
		return fmt.Sprintf("%d templates", len(list)), nil
	}
}

// walk visits the elements of WS-Agreement at and below e; what stands in those of other
// namespaces is not ours.
func walk(e *etree.Element, visit func(*etree.Element) error) error {
	if xmldoc.NameOf(e).Space != agreement.NS {
		return nil
	}
	if err := visit(e); err != nil {
		return err
	}
	for _, c := range e.ChildElements() {
		if err := walk(c, visit); err != nil {
			return err
		}
	}
	return nil
}

func qualifiedAttributes(e *etree.Element) error {
	return walk(e, func(e *etree.Element) error {
		for _, a := range e.Attr {
			if a.Space == "" && a.Key != "xmlns" {
				return fmt.Errorf("%s has the attribute %s without a namespace: the schema has wsag:%[2]s", e.Tag, a.Key)
			}
		}
		return nil
	})
}

func templateNames(ctx context.Context, p *probe) (string, error) {
	list, err := p.models(ctx)
	if err != nil {
		return "", err
	}
	seen := map[string]bool{}
	for _, m := range list {
		id := m.Name + "\x00" + m.TemplateID
		if m.Name == "" || m.TemplateID == "" {
			return "", fmt.Errorf("the template %q with the id %q can't be referred to: wanted both", m.Name, m.TemplateID)
		}
		if seen[id] {
			return "", fmt.Errorf("two templates have the name %q and the id %q", m.Name, m.TemplateID)
		}
		seen[id] = true
	}
	return fmt.Sprintf("%d templates", len(list)), nil
}

func contextAgrees(m *model) error {
	c := m.Context
	if c.TemplateID != "" && c.TemplateID != m.TemplateID || c.TemplateName != "" && c.TemplateName != m.Name {
		return fmt.Errorf("its Context refers to %q with the id %q, and it is %q with the id %q", c.TemplateName, c.TemplateID, m.Name, m.TemplateID)
	}
	return nil
}

func saysProvider(e *etree.Element) error {
	c := xmldoc.Child(e, agreement.NS, "Context")
	if c == nil {
		return errors.New("it has no Context")
	}
	s := xmldoc.Child(c, agreement.NS, "ServiceProvider")
	if s == nil {
		return errors.New("its Context does not say who the ServiceProvider is")
	}
	if v := agreement.Party(xmldoc.Text(s)); v != agreement.Initiator && v != agreement.Responder {
		return fmt.Errorf("its ServiceProvider is %q: wanted AgreementInitiator or AgreementResponder", v)
	}
	return nil
}

func hasService(m *model) error {
	if len(m.Services()) == 0 {
		return errors.New("it has no service term")
	}
	return nil
}

var termTags = []string{"ServiceDescriptionTerm", "ServiceReference", "ServiceProperties", "GuaranteeTerm"}

func uniqueTerms(e *etree.Element) error {
	seen := map[string]bool{}
	return walk(e, func(e *etree.Element) error {
		if !slices.Contains(termTags, e.Tag) {
			return nil
		}
		name, ok := xmldoc.Attr(e, agreement.NS, "Name")
		if !ok || seen[name] {
			return fmt.Errorf("a %s has the name %q, which another has or which is none", e.Tag, name)
		}
		seen[name] = true
		return nil
	})
}

func oneDescription(e *etree.Element) error {
	return walk(e, func(e *etree.Element) error {
		if e.Tag != "ServiceDescriptionTerm" && e.Tag != "ServiceReference" {
			return nil
		}
		kids := e.ChildElements()
		if len(kids) != 1 || xmldoc.NameOf(kids[0]).Space == agreement.NS || xmldoc.NameOf(kids[0]).Space == "" {
			return fmt.Errorf("a %s holds %d elements: wanted one of another namespace", e.Tag, len(kids))
		}
		return nil
	})
}

func scopesExist(m *model) error {
	for _, g := range m.Guarantees() {
		for _, s := range g.Scopes {
			known := s.ServiceName == ""
			m.Terms.Walk(func(t agreement.Term) bool {
				switch t := t.(type) {
				case *agreement.ServiceDescription:
					known = known || t.ServiceName == s.ServiceName
				case *agreement.ServiceReference:
					known = known || t.ServiceName == s.ServiceName
				case *agreement.ServiceProperties:
					known = known || t.ServiceName == s.ServiceName
				}
				return true
			})
			if !known {
				return fmt.Errorf("its guarantee %q is about the service %q, which it does not have", g.Name, s.ServiceName)
			}
		}
	}
	return nil
}

func guaranteesWhole(e *etree.Element) error {
	return walk(e, func(e *etree.Element) error {
		if e.Tag != "GuaranteeTerm" {
			return nil
		}
		for _, want := range []string{"ServiceLevelObjective", "BusinessValueList"} {
			if xmldoc.Child(e, agreement.NS, want) == nil {
				return fmt.Errorf("a GuaranteeTerm has no %s", want)
			}
		}
		return nil
	})
}

func preferencesExist(m *model) error {
	names := map[string]bool{}
	m.Terms.Walk(func(t agreement.Term) bool { names[t.TermName()] = true; return true })
	for _, g := range m.Guarantees() {
		for _, x := range g.Values.Preferences {
			if !names[x.Term] {
				return fmt.Errorf("its guarantee %q prefers the term %q, which it does not have", g.Name, x.Term)
			}
		}
	}
	return nil
}

// readable fails unless a Location can be read as an XPath.
func readable(location string, scope map[string]string) error {
	x, err := xpath.Compile(location, scope)
	if err != nil {
		return fmt.Errorf("the Location %q: %s", xmldoc.Collapse(location), fail.Sentence(err))
	}
	if x.Type() != xpath.NodeSet {
		return fmt.Errorf("the Location %q gives no nodes", xmldoc.Collapse(location))
	}
	return nil
}

func variableLocations(m *model) error {
	var bad error
	m.Terms.Walk(func(t agreement.Term) bool {
		if s, ok := t.(*agreement.ServiceProperties); ok {
			for _, v := range s.Variables {
				if err := readable(v.Location, v.Scope); err != nil && bad == nil {
					bad = err
				}
			}
		}
		return true
	})
	return bad
}

func itemLocations(m *model) error {
	for _, i := range m.Constraints.Items {
		if err := readable(i.Location, i.Scope); err != nil {
			return fmt.Errorf("its Item %q: %w", i.Name, err)
		}
	}
	return nil
}

func itemConstraints(m *model) error {
	for _, i := range m.Constraints.Items {
		if _, err := xsd.Compile(i.Constraint); err != nil && !fail.Is(err, fail.Unsupported) {
			return fmt.Errorf("its Item %q: %s", i.Name, fail.Sentence(err))
		}
	}
	return nil
}

func freeConstraints(m *model) error {
	for _, f := range m.Constraints.Free {
		if len(f.ChildElements()) == 0 && strings.TrimSpace(xmldoc.Text(f)) == "" {
			return errors.New("a Constraint is empty")
		}
	}
	return nil
}

func satisfiable(m *model) error {
	_, err := m.offer()
	return err
}

func templates12(ctx context.Context, p *probe) (string, error) {
	_, list, err := p.factoryTemplates(ctx)
	if err != nil {
		return "", err
	}
	rep, err := p.ask(ctx, asking(templates).with(soap.V12))
	if err != nil {
		return "", err
	}
	if err := rep.wantPayload(nsProperties, "GetResourcePropertyResponse"); err != nil {
		return "", err
	}
	if got := len(rep.payload.ChildElements()); got != len(list) {
		return "", fmt.Errorf("%d templates come in SOAP 1.1 and %d in SOAP 1.2", len(list), got)
	}
	return fmt.Sprintf("%d templates", len(list)), nil
}
