package agreement

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// NewElement makes an element of WS-Agreement, its prefix declared: for the
// parts of a document that have any content.
func NewElement(local string) *etree.Element {
	e := etree.NewElement("wsag:" + local)
	e.CreateAttr("xmlns:wsag", NS)
	return e
}

// Encode gives the wsag:AgreementOffer. It is made of the fields, whatever Element
// is.
func (o *Offer) Encode() *etree.Element {
	e := NewElement("AgreementOffer")
	o.encode(e)
	return e
}

// Encode gives the wsag:Template. It is made of the fields, whatever Element is.
func (t *Template) Encode() *etree.Element {
	e := NewElement("Template")
	if t.TemplateID != "" {
		e.CreateAttr("wsag:TemplateId", t.TemplateID)
	}
	t.encode(e)
	t.Constraints.encode(e.CreateElement("wsag:CreationConstraints"))
	return e
}

// Encode gives the wsag:AgreementProperties.
func (p *Properties) Encode() *etree.Element {
	e := NewElement("AgreementProperties")
	for _, x := range p.elements() {
		e.AddChild(x)
	}
	return e
}

// elements gives each resource property, in the order of the schema.
func (p *Properties) elements() []*etree.Element {
	var list []*etree.Element
	add := func(local string) *etree.Element {
		e := NewElement(local)
		list = append(list, e)
		return e
	}
	if p.Name != "" {
		add("Name").SetText(p.Name)
	}
	add("AgreementId").SetText(p.ID)
	p.Context.encode(add("Context"))
	encodeTerms(add("Terms"), p.Terms)
	s := add("AgreementState")
	foreign(s, p.SubState)
	s.CreateElement("wsag:State").SetText(string(p.State))
	for i := range p.Guarantees {
		g := &p.Guarantees[i]
		s := add("GuaranteeTermState")
		s.CreateAttr("wsag:termName", g.Term)
		s.CreateElement("wsag:State").SetText(string(g.State))
		foreign(s, g.Detail)
	}
	for i := range p.Services {
		t := &p.Services[i]
		s := add("ServiceTermState")
		s.CreateAttr("wsag:termName", t.Term)
		s.CreateElement("wsag:State").SetText(string(t.State))
		detail := t.Detail
		if t.Activity != "" {
			s = s.CreateElement("wsag:" + string(t.Activity))
			if detail == nil {
				detail = etree.NewElement("p:" + noDetail)
				detail.CreateAttr("xmlns:p", NSPortolan)
			}
		}
		foreign(s, detail)
	}
	return list
}

// encode fills in what a wsag:AgreementType has.
func (a *Agreement) encode(e *etree.Element) {
	if a.ID != "" {
		e.CreateAttr("wsag:AgreementId", a.ID)
	}
	textIf(e, "wsag:Name", a.Name)
	a.Context.encode(e.CreateElement("wsag:Context"))
	encodeTerms(e.CreateElement("wsag:Terms"), a.Terms)
}

func (x *Context) encode(e *etree.Element) {
	for i, a := range x.Attributes {
		prefix := "xml"
		if a.Name.Space != xmldoc.NSXML {
			prefix = "a" + strconv.Itoa(i+1)
			e.CreateAttr("xmlns:"+prefix, a.Name.Space)
		}
		e.CreateAttr(prefix+":"+a.Name.Local, a.Value)
	}
	own(e, "AgreementInitiator", x.AgreementInitiator, false)
	own(e, "AgreementResponder", x.AgreementResponder, false)
	e.CreateElement("wsag:ServiceProvider").SetText(string(x.ServiceProvider))
	if !x.ExpirationTime.IsZero() {
		e.CreateElement("wsag:ExpirationTime").SetText(x.ExpirationTime.UTC().Format(time.RFC3339Nano))
	}
	textIf(e, "wsag:TemplateId", x.TemplateID)
	textIf(e, "wsag:TemplateName", x.TemplateName)
	foreign(e, x.Extensions...)
}

func encodeTerms(e *etree.Element, all *Compositor) {
	if all != nil {
		all.encode(e)
	}
}

func (x *Compositor) encode(parent *etree.Element) {
	e := parent.CreateElement("wsag:" + string(x.Kind))
	for _, t := range x.Terms {
		switch t := t.(type) {
		case *Compositor:
			t.encode(e)
		case *ServiceDescription:
			foreign(service(e, "ServiceDescriptionTerm", t.Name, t.ServiceName), t.Description)
		case *ServiceReference:
			foreign(service(e, "ServiceReference", t.Name, t.ServiceName), t.Reference)
		case *ServiceProperties:
			set := service(e, "ServiceProperties", t.Name, t.ServiceName).CreateElement("wsag:VariableSet")
			for i := range t.Variables {
				t.Variables[i].encode(set)
			}
		case *Guarantee:
			t.encode(e)
		}
	}
}

func service(parent *etree.Element, local, name, service string) *etree.Element {
	e := parent.CreateElement("wsag:" + local)
	e.CreateAttr("wsag:Name", name)
	e.CreateAttr("wsag:ServiceName", service)
	return e
}

// encode declares the prefix of the metric, which may be bound to anything; the element
// takes another then.
func (x *Variable) encode(parent *etree.Element) {
	metric, _, _ := strings.Cut(strings.TrimSpace(x.Metric), ":")
	prefix := "wsag"
	if x.MetricSpace != "" && x.MetricSpace != NS && metric == prefix {
		prefix = "w1"
		for i := 2; strings.Contains(x.Location, prefix+":"); i++ {
			prefix = "w" + strconv.Itoa(i)
		}
	}
	v := parent.CreateElement(prefix + ":Variable")
	if prefix != "wsag" {
		v.CreateAttr("xmlns:"+prefix, NS)
	}
	if x.MetricSpace != "" && metric != "" && (metric != "wsag" || x.MetricSpace != NS) {
		v.CreateAttr("xmlns:"+metric, x.MetricSpace)
	}
	attrIf(v, prefix+":Name", x.Name)
	attrIf(v, prefix+":Metric", x.Metric)
	encodeLocation(v, prefix, x.Location, x.Scope)
}

// encodeLocation declares the prefixes of an XPath on its element; they may be
// bound to anything, so the element takes one that is free, if that of its parent is not.
func encodeLocation(parent *etree.Element, inherited, location string, scope map[string]string) {
	prefix := inherited
	for i := 1; scope[prefix] != "" && scope[prefix] != NS; i++ {
		prefix = "w" + strconv.Itoa(i)
	}
	e := parent.CreateElement(prefix + ":Location")
	if prefix != inherited && scope[prefix] == "" {
		e.CreateAttr("xmlns:"+prefix, NS)
	}
	for _, p := range slices.Sorted(maps.Keys(scope)) {
		e.CreateAttr("xmlns:"+p, scope[p])
	}
	e.SetText(location)
}

func (g *Guarantee) encode(parent *etree.Element) {
	e := parent.CreateElement("wsag:GuaranteeTerm")
	e.CreateAttr("wsag:Name", g.Name)
	attrIf(e, "wsag:Obligated", string(g.Obligated))
	for i := range g.Scopes {
		s := e.CreateElement("wsag:ServiceScope")
		attrIf(s, "wsag:ServiceName", g.Scopes[i].ServiceName)
		foreign(s, g.Scopes[i].Extensions...)
	}
	own(e, "QualifyingCondition", g.QualifyingCondition, false)
	o := e.CreateElement("wsag:ServiceLevelObjective")
	if g.KPIName != "" {
		o = o.CreateElement("wsag:KPITarget")
		o.CreateElement("wsag:KPIName").SetText(g.KPIName)
	}
	own(o, "CustomServiceLevel", g.Level, true)
	g.Values.encode(e.CreateElement("wsag:BusinessValueList"))
}

func (v *BusinessValues) encode(e *etree.Element) {
	if v.Importance != nil {
		e.CreateElement("wsag:Importance").SetText(strconv.FormatInt(*v.Importance, 10))
	}
	compensations := func(local string, list []Compensation) {
		for i := range list {
			x := e.CreateElement("wsag:" + local)
			a := x.CreateElement("wsag:AssessmentInterval")
			if list[i].Interval != "" {
				a.CreateElement("wsag:TimeInterval").SetText(list[i].Interval)
			} else {
				a.CreateElement("wsag:Count").SetText(strconv.FormatInt(list[i].Count, 10))
			}
			textIf(x, "wsag:ValueUnit", list[i].Unit)
			own(x, "ValueExpression", list[i].Expression, true)
		}
	}
	compensations("Penalty", v.Penalties)
	compensations("Reward", v.Rewards)
	if len(v.Preferences) > 0 {
		p := e.CreateElement("wsag:Preference")
		for _, x := range v.Preferences {
			p.CreateElement("wsag:ServiceTermReference").SetText(x.Term)
			p.CreateElement("wsag:Utility").SetText(strconv.FormatFloat(x.Utility, 'g', -1, 64))
		}
	}
	for _, x := range v.Custom {
		own(e, "CustomBusinessValue", x, true)
	}
}

func (c *Constraints) encode(e *etree.Element) {
	for i := range c.Items {
		c.Items[i].encode(e.CreateElement("wsag:Item"))
	}
	for _, f := range c.Free {
		own(e, "Constraint", f, true)
	}
}

func (i *Item) encode(x *etree.Element) {
	attrIf(x, "wsag:Name", i.Name)
	encodeLocation(x, "wsag", i.Location, i.Scope)
	own(x, "ItemConstraint", i.Constraint, true)
	foreign(x, i.Extensions...)
}

// own adds an element of WS-Agreement with any content, under its name; an empty
// one stands for one that is needed and nil.
func own(parent *etree.Element, local string, e *etree.Element, needed bool) {
	switch {
	case e != nil:
		epr := soap.EPR{Source: xmldoc.Detach(e)}
		parent.AddChild(epr.Echo("wsag", xmldoc.Name{Space: NS, Local: local}))
	case needed:
		parent.CreateElement("wsag:" + local)
	}
}

// foreign adds copies of elements that are not ours.
func foreign(parent *etree.Element, list ...*etree.Element) {
	for _, x := range list {
		if x != nil {
			parent.AddChild(xmldoc.Detach(x))
		}
	}
}

// textIf leaves out what is empty: it is not known.
func textIf(parent *etree.Element, qname, s string) {
	if s != "" {
		parent.CreateElement(qname).SetText(s)
	}
}

func attrIf(e *etree.Element, qname, s string) {
	if s != "" {
		e.CreateAttr(qname, s)
	}
}
