package agreement

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Bounds on one document, beside those of xmldoc.Limits.
const (
	MaxTerms     = 1000 // terms and compositors
	MaxDepth     = 16   // of compositors in one another
	MaxVariables = 1000 // of all service properties together
	MaxItems     = 500  // of a template's creation constraints; as many free ones
	MaxName      = 1024 // bytes of a name, an id, a metric or a unit
	MaxLocation  = 8192 // bytes of a wsag:Location
	maxList      = 100  // scopes, penalties, rewards, preferences, extensions in one place
	maxInherited = 1 << 20
)

const (
	nsXS  = "http://www.w3.org/2001/XMLSchema"
	nsXSI = "http://www.w3.org/2001/XMLSchema-instance"
)

// older are namespaces of drafts that are still met. They are other languages.
var older = map[string]string{
	"http://www.ggf.org/namespaces/ws-agreement":        "an early draft",
	"http://schemas.ggf.org/graap/2005/09/ws-agreement": "the draft of September 2005",
}

// DecodeOffer reads a wsag:AgreementOffer. What the schema does not let is
// refused with a fail.Invalid that names the element, and so are names of terms
// that repeat and an offer without a service term.
func DecodeOffer(e *etree.Element) (*Offer, error) {
	return newReader(nil).offer(e)
}

// DecodeTemplate reads a wsag:Template; else as DecodeOffer.
func DecodeTemplate(e *etree.Element) (*Template, error) {
	return newReader(nil).template(e)
}

// DecodeProperties reads a wsag:AgreementProperties or a
// wsag:AgreementStateProperties; else as DecodeOffer.
func DecodeProperties(e *etree.Element) (*Properties, error) {
	return newReader(nil).properties(e)
}

// ParseOffer reads a document that is a wsag:AgreementOffer; refusals name the
// line too.
func ParseOffer(b []byte) (*Offer, error) {
	return parse(b, (*reader).offer)
}

// ParseTemplate reads a document that is a wsag:Template; refusals name the line
// too.
func ParseTemplate(b []byte) (*Template, error) {
	return parse(b, (*reader).template)
}

func parse[T any](b []byte, decode func(*reader, *etree.Element) (*T, error)) (*T, error) {
	doc, err := xmldoc.ReadBytes(b, xmldoc.Limits{})
	if err != nil {
		return nil, fail.Errorf("agreement.Parse", fail.Invalid, "", "%v", err).Because(err)
	}
	return decode(newReader(doc), doc.Root())
}

// reader decodes the elements of one message. Its first refusal stays: what is
// read after one is of no use and costs nothing.
type reader struct {
	doc *xmldoc.Document
	err error

	terms, variables, inherited int
	names                       map[string]bool
}

// newReader makes a reader of elements that doc has read; without one, refusals
// do not know lines.
func newReader(doc *xmldoc.Document) *reader {
	if doc == nil {
		doc = new(xmldoc.Document)
	}
	return &reader{doc: doc}
}

func done[T any](r *reader, v *T) (*T, error) {
	if r.err != nil {
		return nil, r.err
	}
	return v, nil
}

// refuse says what is wrong with e.
func (r *reader) refuse(e *etree.Element, format string, args ...any) {
	if r.err != nil {
		return
	}
	path := strings.TrimPrefix(r.doc.Path(e), "/Envelope/Body")
	at := ""
	if p := r.doc.Position(e); !p.IsZero() {
		at = "line " + p.String() + ": "
	}
	r.err = fail.Errorf("agreement.Decode", fail.Invalid, path, "%s%s: %s", at, path, fmt.Sprintf(format, args...))
}

// root checks the name of a document's root.
func (r *reader) root(e *etree.Element, locals ...string) {
	n := r.doc.Name(e)
	if draft := older[n.Space]; draft != "" {
		r.refuse(e, "is of the namespace %s, %s of WS-Agreement, which is another language; write it in %s", quoted(n.Space), draft, NS)
		return
	}
	if n.Space != NS || !slices.Contains(locals, n.Local) {
		r.refuse(e, "is %s; expected %s of the namespace %s", quoted(n.String()), strings.Join(locals, " or "), NS)
	}
}

// children are those of an element that holds elements only, taken in order.
type children struct {
	r     *reader
	of    *etree.Element
	left  []*etree.Element
	space string // of what take and need name, which is not foreign; "" is wsag's
}

// in gives the same children, of which those of another namespace are named from now on.
func (c *children) in(space string) *children {
	c.space = space
	return c
}

func (c *children) named() string {
	if c.space == "" {
		return NS
	}
	return c.space
}

func (r *reader) children(e *etree.Element) *children {
	c := &children{r: r, of: e}
	for _, t := range e.Child {
		switch t := t.(type) {
		case *etree.CharData:
			if strings.Trim(t.Data, " \t\r\n") != "" {
				r.refuse(e, "holds the text %s; it takes elements only", quoted(t.Data))
			}
		case *etree.Element:
			c.left = append(c.left, t)
		}
	}
	return c
}

// take gives the next child if it is the element of that name, of wsag unless in says
// otherwise; else nil.
func (c *children) take(local string) *etree.Element {
	if len(c.left) == 0 || c.r.err != nil || c.left[0].Tag != local || c.r.doc.Name(c.left[0]).Space != c.named() {
		return nil
	}
	e := c.left[0]
	c.left = c.left[1:]
	return e
}

// need is take of what must be there; nil once something was refused.
func (c *children) need(local string) *etree.Element {
	e := c.take(local)
	switch {
	case e != nil || c.r.err != nil:
	case len(c.left) == 0:
		c.r.refuse(c.of, "%s is missing", local)
	case older[c.r.doc.Name(c.left[0]).Space] != "":
		c.r.root(c.left[0])
	default:
		c.r.refuse(c.left[0], "stands where %s is expected", local)
	}
	return e
}

// foreign takes the children that stand in another namespace than what is named
// (##other).
func (c *children) foreign() []*etree.Element {
	var list []*etree.Element
	for len(c.left) > 0 && c.r.err == nil {
		if s := c.r.doc.Name(c.left[0]).Space; s == c.named() || s == "" {
			break
		}
		if len(list) == maxList {
			c.r.refuse(c.of, "holds more than %d extensions", maxList)
		}
		list = append(list, c.r.keep(c.left[0]))
		c.left = c.left[1:]
	}
	return list
}

// end refuses what is left.
func (c *children) end() {
	if len(c.left) == 0 || c.r.err != nil {
		return
	}
	e := c.left[0]
	n := c.r.doc.Name(e)
	if draft := older[n.Space]; draft != "" {
		c.r.root(e)
		return
	}
	c.r.refuse(e, "%s does not belong here in %s, or stands there twice or in the wrong order", quoted(n.String()), c.of.Tag)
}

// keep detaches an element, within a bound on the declarations that it takes along.
func (r *reader) keep(e *etree.Element) *etree.Element {
	if e == nil || r.err != nil {
		return nil
	}
	more := xmldoc.Inherited(e)
	for i := range more {
		r.inherited += len(more[i].Key) + len(more[i].Value)
	}
	if r.inherited > maxInherited {
		r.refuse(e, "uses namespaces that are declared far above it and long; declare fewer or shorter ones")
		return nil
	}
	c := e.Copy()
	c.Attr = append(c.Attr, more...)
	return c
}

// attributes gives the wsag attributes of an element by local name, and those of
// negotiation with the prefix neg, all of which must be among those named. typ is its
// type: of wsag, or of XML Schema or negotiation with the prefix xs or neg; "" has no
// name.
func (r *reader) attributes(e *etree.Element, typ string, names ...string) map[string]string {
	found, _ := r.allAttributes(e, typ, false, names...)
	return found
}

func (r *reader) allAttributes(e *etree.Element, typ string, others bool, names ...string) (map[string]string, []Attribute) {
	var found map[string]string
	var list []Attribute
	for i := range e.Attr {
		a := &e.Attr[i]
		if a.Space == "xmlns" || a.Space == "" && a.Key == "xmlns" {
			continue
		}
		if a.Space == "" {
			for _, prefix := range [...]string{"", "neg:"} {
				if slices.Contains(names, prefix+a.Key) {
					r.refuse(e, "the attribute %s is in no namespace; WS-Agreement has it qualified: write %s", a.Key, spelled(prefix+a.Key))
				}
			}
			r.refuse(e, "the attribute %s does not belong here", quoted(a.Key))
			return nil, nil
		}
		n, err := xmldoc.ResolveQName(e, a.Space+":"+a.Key)
		key := ""
		switch n.Space {
		case NS:
			key = strings.Clone(n.Local)
		case NSNegotiation:
			key = "neg:" + n.Local
		}
		switch {
		case err != nil:
			r.refuse(e, "the attribute %s: %v", quoted(a.Key), err)
		case n.Space == nsXSI && (n.Local == "schemaLocation" || n.Local == "noNamespaceSchemaLocation"):
		case n.Space == nsXSI && n.Local == "type":
			want := xmldoc.Name{Space: NS, Local: typ}
			if t, ok := strings.CutPrefix(typ, "xs:"); ok {
				want = xmldoc.Name{Space: nsXS, Local: t}
			} else if t, ok := strings.CutPrefix(typ, "neg:"); ok {
				want = xmldoc.Name{Space: NSNegotiation, Local: t}
			}
			if t, err := xmldoc.ResolveQName(e, a.Value); err != nil || typ == "" || t != want {
				r.refuse(e, "xsi:type is %s, which is not the element's own type; leave it out", quoted(a.Value))
			}
		case key != "" && slices.Contains(names, key):
			if found == nil {
				found = map[string]string{}
			}
			if len(a.Value) > MaxName {
				r.refuse(e, "the attribute %s has %d bytes; at most %d are taken", spelled(key), len(a.Value), MaxName)
			}
			found[key] = strings.Clone(a.Value)
		case others && n.Space != NS && n.Space != nsXSI:
			if len(list) == maxList {
				r.refuse(e, "has more than %d attributes of other namespaces", maxList)
			}
			list = append(list, Attribute{xmldoc.Name{Space: strings.Clone(n.Space), Local: strings.Clone(n.Local)}, strings.Clone(a.Value)})
		default:
			r.refuse(e, "the attribute %s does not belong here", quoted(n.String()))
		}
		if r.err != nil {
			return nil, nil
		}
	}
	return found, list
}

// spelled writes the name of an attribute as attributes has it with its prefix.
func spelled(key string) string {
	if strings.HasPrefix(key, "neg:") {
		return key
	}
	return "wsag:" + key
}

// required gives an attribute that must be there and say something.
func (r *reader) required(e *etree.Element, attrs map[string]string, local string) string {
	v, ok := attrs[local]
	switch {
	case r.err != nil:
	case !ok:
		r.refuse(e, "the attribute %s is missing", spelled(local))
	case strings.TrimSpace(v) == "":
		r.refuse(e, "the attribute %s is empty; others refer to it", spelled(local))
	}
	return v
}

// text gives the content of an element of a simple type; "" for none.
func (r *reader) text(e *etree.Element, typ string, most int) string {
	if e == nil || r.err != nil {
		return ""
	}
	r.attributes(e, typ)
	if kids := e.ChildElements(); len(kids) > 0 {
		r.refuse(kids[0], "does not belong into %s, which takes text", e.Tag)
	}
	s := xmldoc.Text(e)
	if len(s) > most {
		r.refuse(e, "has %d bytes; at most %d are taken", len(s), most)
		return ""
	}
	return strings.Clone(s)
}

func (r *reader) word(e *etree.Element, typ string, words ...string) string {
	s := r.text(e, typ, MaxName)
	if e != nil && !slices.Contains(words, s) {
		r.refuse(e, "is %s; expected %s", quoted(s), oneOf(words))
	}
	return s
}

func oneOf(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

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
		x := Variable{Name: attrs["Name"], Metric: attrs["Metric"]}
		x.Location, x.Scope = r.location(inner.need("Location"))
		inner.end()
		p.Variables = append(p.Variables, x)
	}
	c.end()
	return p
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

func (r *reader) properties(e *etree.Element) (*Properties, error) {
	r.root(e, "AgreementProperties", "AgreementStateProperties")
	r.attributes(e, e.Tag+"Type")
	c := r.children(e)
	p := new(Properties)
	p.Name = r.text(c.take("Name"), "xs:string", MaxName)
	p.ID = r.text(c.need("AgreementId"), "xs:string", MaxName)
	p.Context = r.context(c.need("Context"))
	p.Terms = r.tree(c.need("Terms"))
	p.State, p.SubState = r.agreementState(c.need("AgreementState"))
	for s := c.take("GuaranteeTermState"); s != nil; s = c.take("GuaranteeTermState") {
		p.Guarantees = append(p.Guarantees, r.guaranteeState(s))
		r.countStates(s, len(p.Guarantees))
	}
	for s := c.take("ServiceTermState"); s != nil; s = c.take("ServiceTermState") {
		p.Services = append(p.Services, r.serviceState(s))
		r.countStates(s, len(p.Services))
	}
	c.end()
	return done(r, p)
}

func (r *reader) countStates(e *etree.Element, n int) {
	if n > MaxTerms {
		r.refuse(e, "is more than the %d states that are taken", MaxTerms)
	}
}

func (r *reader) agreementState(e *etree.Element) (State, *etree.Element) {
	if e == nil {
		return "", nil
	}
	r.attributes(e, "AgreementStateType")
	c := r.children(e)
	sub := c.one()
	s := r.word(c.need("State"), "AgreementStateDefinition", names(transitions)...)
	c.end()
	return State(s), sub
}

func (r *reader) guaranteeState(e *etree.Element) (x GuaranteeTermState) {
	x.Term = r.required(e, r.attributes(e, "GuaranteeTermStateType", "termName"), "termName")
	c := r.children(e)
	x.State = GuaranteeState(r.word(c.need("State"), "GuaranteeTermStateDefinition", names(guaranteeTransitions)...))
	x.Detail = c.one()
	c.end()
	return x
}

func (r *reader) serviceState(e *etree.Element) (x ServiceTermState) {
	x.Term = r.required(e, r.attributes(e, "ServiceTermStateType", "termName"), "termName")
	c := r.children(e)
	x.State = ServiceState(r.word(c.need("State"), "ServiceTermStateDefinition", names(serviceTransitions)...))
	for _, a := range [...]Activity{Processing, Idle} {
		if s := c.take(string(a)); s != nil {
			x.Activity = a
			c.end()
			r.attributes(s, "InnerTermStateType")
			c = r.children(s)
		}
	}
	if x.Detail = c.one(); x.Activity != "" && x.Detail != nil && xmldoc.Is(x.Detail, NSPortolan, noDetail) {
		x.Detail = nil
	}
	c.end()
	return x
}

// noDetail fills a sub-state of which nothing is told: the schema wants a child.
const noDetail = "NoDetail"

// one takes one foreign element, or none.
func (c *children) one() *etree.Element {
	if len(c.left) == 0 || c.r.err != nil {
		return nil
	}
	if s := c.r.doc.Name(c.left[0]).Space; s == c.named() || s == "" {
		return nil
	}
	e := c.r.keep(c.left[0])
	c.left = c.left[1:]
	return e
}

var (
	whole       = regexp.MustCompile(`^[+-]?[0-9]+$`)
	decimalForm = regexp.MustCompile(`^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?$`)
	duration    = regexp.MustCompile(`^-?P([0-9]+Y)?([0-9]+M)?([0-9]+D)?(T([0-9]+H)?([0-9]+M)?([0-9]+(\.[0-9]+)?S)?)?$`)
	instant     = regexp.MustCompile(`^([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})?$`)
)

// isDuration tells an xs:duration: a P or a T with nothing behind it is none.
func isDuration(s string) bool {
	return duration.MatchString(s) && !strings.HasSuffix(s, "P") && !strings.HasSuffix(s, "T")
}

func integer(s string) (int64, bool) {
	s = xmldoc.Collapse(s)
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && whole.MatchString(s)
}

// time reads an xs:dateTime; without a zone it is taken as UTC.
func (r *reader) time(e *etree.Element) time.Time {
	s := xmldoc.Collapse(r.text(e, "xs:dateTime", MaxName))
	if r.err != nil {
		return time.Time{}
	}
	m := instant.FindStringSubmatch(s)
	bad := func() time.Time {
		r.refuse(e, "is %s; expected a time such as 2030-01-31T12:00:00Z, in the years 1970 to 9999", quoted(s))
		return time.Time{}
	}
	if m == nil {
		return bad()
	}
	number := func(s string) int { n, _ := strconv.Atoi(s); return n }
	hour, minute, second := number(m[4]), number(m[5]), number(m[6])
	midnight := hour == 24 && minute == 0 && second == 0 && strings.Trim(m[7], ".0") == ""
	if hour > 23 && !midnight || minute > 59 || second > 59 {
		return bad()
	}
	nanos := number((strings.TrimPrefix(m[7], ".") + "000000000")[:9])
	zone := time.UTC
	if z := m[8]; len(z) > 1 {
		h, m := number(z[1:3]), number(z[4:6])
		if m > 59 || h > 14 || h == 14 && m > 0 {
			return bad()
		}
		off := (h*60 + m) * 60
		if z[0] == '-' {
			off = -off
		}
		zone = time.FixedZone("", off)
	}
	day := time.Date(number(m[1]), time.Month(number(m[2])), number(m[3]), 0, 0, 0, 0, zone)
	if int(day.Month()) != number(m[2]) || day.Day() != number(m[3]) {
		return bad()
	}
	t := time.Date(day.Year(), day.Month(), day.Day(), hour, minute, second, nanos, zone).UTC()
	if t.Year() < 1970 || t.Year() > 9999 {
		return bad()
	}
	return t
}

// quoted shows a stranger's text, bounded.
func quoted(s string) string {
	const most = 100
	if s = strings.TrimSpace(s); len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strconv.Quote(s)
}
