package agreement

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

func (r *reader) offer(e *etree.Element) (*Offer, error) {
	r.root(e, "AgreementOffer")
	a, c := r.agreement(e, "AgreementType")
	c.end()
	if r.err == nil && len(a.Services()) == 0 {
		terms := xmldoc.Child(e, NS, "Terms")
		r.refuse(terms, "holds no service term, so that nothing is offered; describe a service with a ServiceDescriptionTerm")
	}
	return done(r, &Offer{Agreement: a, Element: r.keep(e)})
}

func (r *reader) template(e *etree.Element) (*Template, error) {
	r.root(e, "Template")
	a, c := r.agreement(e, "AgreementTemplateType", "TemplateId")
	t := &Template{Agreement: a}
	t.TemplateID, _ = xmldoc.Attr(e, NS, "TemplateId")
	t.TemplateID = strings.Clone(t.TemplateID)
	t.Constraints = r.constraints(c.need("CreationConstraints"))
	c.end()
	t.Element = r.keep(e)
	return done(r, t)
}

// agreement reads what a wsag:AgreementType has, and leaves what extends it.
func (r *reader) agreement(e *etree.Element, typ string, attributes ...string) (a Agreement, c *children) {
	a.ID = r.attributes(e, typ, append(attributes, "AgreementId")...)["AgreementId"]
	c = r.children(e)
	a.Name = r.text(c.take("Name"), "xs:string", MaxName)
	a.Context = r.context(c.need("Context"))
	a.Terms = r.tree(c.need("Terms"))
	return a, c
}

func (r *reader) context(e *etree.Element) (x Context) {
	if e == nil {
		return x
	}
	_, x.Attributes = r.allAttributes(e, "AgreementContextType", true)
	c := r.children(e)
	x.AgreementInitiator = r.keep(c.take("AgreementInitiator"))
	x.AgreementResponder = r.keep(c.take("AgreementResponder"))
	x.ServiceProvider = Party(r.word(c.need("ServiceProvider"), "AgreementRoleType", string(Initiator), string(Responder)))
	if t := c.take("ExpirationTime"); t != nil {
		x.ExpirationTime = r.time(t)
	}
	x.TemplateID = r.text(c.take("TemplateId"), "xs:string", MaxName)
	x.TemplateName = r.text(c.take("TemplateName"), "xs:string", MaxName)
	x.Extensions = c.foreign()
	c.end()
	return x
}

func (r *reader) tree(e *etree.Element) *Compositor {
	if e == nil {
		return nil
	}
	r.attributes(e, "TermTreeType")
	c := r.children(e)
	var all *Compositor
	r.names = map[string]bool{}
	if t := c.take("All"); t != nil {
		all = r.compositor(t, 1)
	}
	c.end()
	return all
}

func (r *reader) compositor(e *etree.Element, depth int) *Compositor {
	if depth > MaxDepth {
		r.refuse(e, "is nested deeper than %d compositors", MaxDepth)
	}
	r.count(e)
	r.attributes(e, "TermCompositorType")
	c := r.children(e)
	x := &Compositor{Kind: Composition(strings.Clone(e.Tag))}
	for len(c.left) > 0 && r.err == nil {
		t := c.left[0]
		if r.doc.Name(t).Space != NS {
			break
		}
		var term Term
		switch t.Tag {
		case string(All), string(OneOrMore), string(ExactlyOne):
			term = r.compositor(t, depth+1)
		case "ServiceDescriptionTerm":
			d := new(ServiceDescription)
			d.Name, d.ServiceName, d.Description = r.service(t, "ServiceDescriptionTermType")
			term = d
		case "ServiceReference":
			d := new(ServiceReference)
			d.Name, d.ServiceName, d.Reference = r.service(t, "ServiceReferenceType")
			term = d
		case "ServiceProperties":
			term = r.serviceProperties(t)
		case "GuaranteeTerm":
			term = r.guarantee(t)
		}
		if term == nil {
			break
		}
		x.Terms = append(x.Terms, term)
		c.left = c.left[1:]
	}
	c.end()
	if len(x.Terms) == 0 {
		r.refuse(e, "is empty; it takes one term or more")
	}
	return x
}

func (r *reader) count(e *etree.Element) {
	if r.terms++; r.terms > MaxTerms {
		r.refuse(e, "is more than the %d terms that are taken", MaxTerms)
	}
}

// name reads the attributes of a term; names are unique, since states and
// preferences refer to them.
func (r *reader) name(e *etree.Element, typ string, more ...string) (string, map[string]string) {
	r.count(e)
	attrs := r.attributes(e, typ, append(more, "Name")...)
	name := r.required(e, attrs, "Name")
	if r.err == nil && r.names[name] {
		r.refuse(e, "is the second term with the name %s; names of terms are unique in an agreement", quoted(name))
	}
	if r.err == nil {
		r.names[name] = true
	}
	return name, attrs
}

// service reads a service description term or a reference: one foreign element.
func (r *reader) service(e *etree.Element, typ string) (name, service string, content *etree.Element) {
	name, attrs := r.name(e, typ, "ServiceName")
	service = r.required(e, attrs, "ServiceName")
	c := r.children(e)
	switch {
	case r.err != nil:
		return name, service, nil
	case len(c.left) == 0:
		r.refuse(e, "is empty; it takes one element of another namespace that describes the service")
		return name, service, nil
	case len(c.left) > 1:
		r.refuse(c.left[1], "is the second element in %s, which takes one; write another term of the same service", e.Tag)
		return name, service, nil
	}
	if s := r.doc.Name(c.left[0]).Space; s == NS || s == "" {
		r.refuse(c.left[0], "%s does not describe a service; expected an element of another namespace, such as jsdl:JobDefinition", quoted(r.doc.Name(c.left[0]).String()))
	}
	return name, service, r.keep(c.left[0])
}

func (r *reader) serviceProperties(e *etree.Element) *ServiceProperties {
	p := new(ServiceProperties)
	name, attrs := r.name(e, "ServicePropertiesType", "ServiceName")
	p.Name, p.ServiceName = name, r.required(e, attrs, "ServiceName")
	c := r.children(e)
	set := c.need("VariableSet")
	c.end()
	if set == nil {
		return p
	}
	r.attributes(set, "VariableSetType")
	c = r.children(set)
	for v := c.need("Variable"); v != nil; v = c.take("Variable") {
		if r.variables++; r.variables > MaxVariables {
			r.refuse(v, "is more than the %d variables that are taken", MaxVariables)
		}
		attrs := r.attributes(v, "VariableType", "Name", "Metric")
		inner := r.children(v)
		x := Variable{Name: attrs["Name"], Metric: attrs["Metric"], MetricSpace: r.metricSpace(v, attrs["Metric"])}
		x.Location, x.Scope = r.location(inner.need("Location"))
		inner.end()
		p.Variables = append(p.Variables, x)
	}
	c.end()
	return p
}

// metricSpace gives what the prefix of a metric is bound to at e; "" where it is no QName
// with a prefix that is declared.
func (r *reader) metricSpace(e *etree.Element, metric string) string {
	n, err := xmldoc.ResolveQName(e, metric)
	if err != nil || !strings.Contains(metric, ":") || n.Space == xmldoc.NSXML || n.Space == xmldoc.NSXMLNS {
		return ""
	}
	if r.inherited += len(n.Space); r.inherited > maxInherited {
		r.refuse(e, "uses namespaces that are too long")
		return ""
	}
	return strings.Clone(n.Space)
}

// location reads an XPath and the namespaces of the prefixes that stand in it.
func (r *reader) location(e *etree.Element) (string, map[string]string) {
	if e == nil {
		return "", nil
	}
	s := r.text(e, "xs:string", MaxLocation)
	if r.err != nil {
		return s, nil
	}
	var scope map[string]string
	for _, m := range prefixed.FindAllStringSubmatch(s, -1) {
		n, err := xmldoc.ResolveQName(e, m[1]+":x")
		if err != nil || n.Space == "" || scope[m[1]] != "" || m[1] == "xml" || m[1] == "xmlns" {
			continue
		}
		if r.inherited += len(n.Space); r.inherited > maxInherited {
			r.refuse(e, "uses namespaces that are too long")
			return s, nil
		}
		if scope == nil {
			scope = map[string]string{}
		}
		scope[strings.Clone(m[1])] = strings.Clone(n.Space)
	}
	return s, scope
}

var prefixed = regexp.MustCompile(`([\pL_][\pL\pN\pM_.\-·]*):`)

func (r *reader) guarantee(e *etree.Element) *Guarantee {
	g := new(Guarantee)
	name, attrs := r.name(e, "GuaranteeTermType", "Obligated")
	g.Name = name
	if v, ok := attrs["Obligated"]; ok {
		if g.Obligated = Obligation(v); g.Obligated != ServiceConsumer && g.Obligated != ServiceProvider {
			r.refuse(e, "the attribute wsag:Obligated is %s; expected %s or %s", quoted(v), ServiceConsumer, ServiceProvider)
		}
	}
	c := r.children(e)
	for s := c.take("ServiceScope"); s != nil; s = c.take("ServiceScope") {
		if len(g.Scopes) == maxList {
			r.refuse(s, "is more than the %d scopes that are taken", maxList)
		}
		x := Scope{ServiceName: r.attributes(s, "ServiceSelectorType", "ServiceName")["ServiceName"]}
		inner := r.children(s)
		x.Extensions = inner.foreign()
		inner.end()
		g.Scopes = append(g.Scopes, x)
	}
	g.QualifyingCondition = r.keep(c.take("QualifyingCondition"))
	r.objective(c.need("ServiceLevelObjective"), g)
	g.Values = r.values(c.need("BusinessValueList"))
	c.end()
	return g
}

func (r *reader) objective(e *etree.Element, g *Guarantee) {
	if e == nil {
		return
	}
	r.attributes(e, "ServiceLevelObjectiveType")
	c := r.children(e)
	if k := c.take("KPITarget"); k != nil {
		c.end()
		r.attributes(k, "KPITargetType")
		c = r.children(k)
		n := c.need("KPIName")
		if g.KPIName = r.text(n, "xs:string", MaxName); n != nil && strings.TrimSpace(g.KPIName) == "" {
			r.refuse(n, "is empty; expected the name of what is measured")
		}
	}
	g.Level = r.keep(c.need("CustomServiceLevel"))
	c.end()
}

func (r *reader) values(e *etree.Element) (v BusinessValues) {
	if e == nil {
		return v
	}
	r.attributes(e, "BusinessValueListType")
	c := r.children(e)
	if x := c.take("Importance"); x != nil {
		if n, ok := integer(r.text(x, "xs:integer", MaxName)); ok {
			v.Importance = &n
		} else {
			r.refuse(x, "is %s; expected a whole number within 64 bits", quoted(xmldoc.Text(x)))
		}
	}
	v.Penalties = r.compensations(c, "Penalty")
	v.Rewards = r.compensations(c, "Reward")
	if x := c.take("Preference"); x != nil {
		v.Preferences = r.preferences(x)
	}
	for x := c.take("CustomBusinessValue"); x != nil; x = c.take("CustomBusinessValue") {
		if len(v.Custom) == maxList {
			r.refuse(x, "is more than the %d that are taken", maxList)
		}
		v.Custom = append(v.Custom, r.keep(x))
	}
	c.end()
	return v
}

func (r *reader) compensations(c *children, local string) []Compensation {
	var list []Compensation
	for e := c.take(local); e != nil; e = c.take(local) {
		if len(list) == maxList {
			r.refuse(e, "is more than the %d that are taken", maxList)
		}
		r.attributes(e, "CompensationType")
		inner := r.children(e)
		var x Compensation
		if a := inner.need("AssessmentInterval"); a != nil {
			r.attributes(a, "")
			which := r.children(a)
			if n := which.take("Count"); n != nil {
				var ok bool
				if x.Count, ok = integer(r.text(n, "xs:positiveInteger", MaxName)); !ok || x.Count < 1 {
					r.refuse(n, "is %s; expected a whole number, 1 or more", quoted(xmldoc.Text(n)))
				}
			} else if n := which.need("TimeInterval"); n != nil {
				if x.Interval = xmldoc.Collapse(r.text(n, "xs:duration", MaxName)); !isDuration(x.Interval) {
					r.refuse(n, "is %s; expected a duration such as PT10M", quoted(x.Interval))
				}
			}
			which.end()
		}
		x.Unit = r.text(inner.take("ValueUnit"), "xs:string", MaxName)
		x.Expression = r.keep(inner.need("ValueExpression"))
		inner.end()
		list = append(list, x)
	}
	return list
}

func (r *reader) preferences(e *etree.Element) []Preference {
	r.attributes(e, "PreferenceType")
	c := r.children(e)
	var list []Preference
	for t := c.need("ServiceTermReference"); t != nil; t = c.take("ServiceTermReference") {
		if len(list) == maxList {
			r.refuse(t, "is more than the %d preferences that are taken", maxList)
		}
		p := Preference{Term: r.text(t, "xs:string", MaxName)}
		if u := c.need("Utility"); u != nil {
			s := xmldoc.Collapse(r.text(u, "xs:float", MaxName))
			var err error
			if p.Utility, err = strconv.ParseFloat(s, 64); err != nil || !decimalForm.MatchString(s) || math.Abs(p.Utility) > math.MaxFloat32 {
				r.refuse(u, "is %s; expected a number", quoted(s))
			}
		}
		list = append(list, p)
	}
	c.end()
	return list
}

func (r *reader) constraints(e *etree.Element) (x Constraints) {
	if e == nil {
		return x
	}
	r.attributes(e, "ConstraintSectionType")
	c := r.children(e)
	for i := c.take("Item"); i != nil; i = c.take("Item") {
		if len(x.Items) == MaxItems {
			r.refuse(i, "is more than the %d items that are taken", MaxItems)
		}
		x.Items = append(x.Items, r.item(i))
	}
	for f := c.take("Constraint"); f != nil; f = c.take("Constraint") {
		if len(x.Free) == MaxItems {
			r.refuse(f, "is more than the %d constraints that are taken", MaxItems)
		}
		x.Free = append(x.Free, r.keep(f))
	}
	c.end()
	return x
}

func (r *reader) item(e *etree.Element) Item {
	return r.itemContent(e, r.attributes(e, "OfferItemType", "Name")["Name"])
}

func (r *reader) itemContent(e *etree.Element, name string) (x Item) {
	x.Name = name
	c := r.children(e)
	x.Location, x.Scope = r.location(c.need("Location"))
	k := c.need("ItemConstraint")
	r.itemConstraint(k)
	x.Constraint = r.keep(k)
	for _, o := range c.left {
		if len(x.Extensions) == maxList {
			r.refuse(e, "holds more than %d extensions", maxList)
		}
		x.Extensions = append(x.Extensions, r.keep(o))
	}
	return x
}

// facets are those of xs:simpleRestrictionModel, particles those of
// xs:typeDefParticle.
var (
	facets = []string{
		"minExclusive", "minInclusive", "maxExclusive", "maxInclusive", "totalDigits", "fractionDigits",
		"length", "minLength", "maxLength", "enumeration", "whiteSpace", "pattern",
	}
	particles = []string{"group", "all", "choice", "sequence"}
)

// itemConstraint checks which elements stand in a constraint: a simple type and
// facets, or one particle. What they say is read by who checks offers.
func (r *reader) itemConstraint(e *etree.Element) {
	if e == nil {
		return
	}
	r.attributes(e, "")
	for i, c := range r.children(e).left {
		n := r.doc.Name(c)
		switch {
		case n.Space != nsXS:
			r.refuse(c, "%s does not belong into ItemConstraint, which takes facets or one particle of XML Schema (%s)", quoted(n.String()), nsXS)
		case i > 0 && slices.Contains(particles, e.ChildElements()[0].Tag):
			r.refuse(c, "follows a particle; ItemConstraint takes one particle, or facets")
		case i == 0 && slices.Contains(particles, n.Local):
		case i == 0 && n.Local == "simpleType":
		case slices.Contains(facets, n.Local):
			if _, ok := xmldoc.Attr(c, "", "value"); !ok {
				r.refuse(c, "the attribute value is missing")
			}
		default:
			r.refuse(c, "xs:%s does not belong here in ItemConstraint, which takes at most a simpleType and then facets, or one particle", quoted(n.Local))
		}
		if r.err != nil {
			return
		}
	}
}
