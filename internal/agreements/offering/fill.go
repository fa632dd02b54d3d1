package offering

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/internal/xpath"
	"github.com/portolan-project/portolan/internal/xsd"
	"github.com/portolan-project/portolan/jsdl"
)

// MaxValues is the most values that one offer is filled with.
const MaxValues = 1000

// Value is what an item of a template is to have.
type Value struct {
	Item string // its name, or its number from 1 on if it has none
	Text string
}

// Filling is what an offer is made of, beside its template.
type Filling struct {
	Name string // of the agreement; "" is the template's
	// Jobs are the JSDL documents of the services, in their order: one for each service
	// that is described by a job, or none at all.
	Jobs   [][]byte
	Values []Value
	// Moment reads a time that a person wrote; nil takes RFC 3339 alone.
	Moment func(string) (time.Time, error)
}

// roots are what the first step of a Location may say.
var roots = []xmldoc.Name{{Space: agreement.NS, Local: "AgreementOffer"}, {Space: agreement.NS, Local: "Template"}}

func invalid(format string, args ...any) error {
	return fail.Errorf("offering", fail.Invalid, "", format, args...)
}

// Fill makes an offer of a template. What is not filled in is as the template has it.
// fail.Invalid says what the template can't be filled with, and what it can.
func Fill(t *agreement.Template, f Filling) (*agreement.Offer, error) {
	if len(f.Values) > MaxValues {
		return nil, invalid("%d values are given; at most %d are taken", len(f.Values), MaxValues)
	}
	p := &paper{template: t, Filling: f}
	if p.root = t.Element; p.root == nil {
		p.root = t.Encode()
	}
	p.root = xmldoc.Detach(p.root)
	if c := xmldoc.Child(p.root, agreement.NS, "CreationConstraints"); c != nil {
		p.root.RemoveChild(c)
	}
	if err := p.jobs(); err != nil {
		return nil, err
	}
	for _, v := range f.Values {
		if err := p.value(v); err != nil {
			return nil, err
		}
	}
	if err := p.places(); err != nil {
		return nil, err
	}
	return p.offer()
}

// paper is a template that is being filled in.
type paper struct {
	Filling
	template *agreement.Template
	root     *etree.Element
	place    terms.Place // where the template leaves it open
}

// descriptions gives the terms that describe services, in document order.
func (p *paper) descriptions() []*etree.Element {
	var list []*etree.Element
	var walk func(*etree.Element)
	walk = func(e *etree.Element) {
		for _, c := range e.ChildElements() {
			if xmldoc.Is(c, agreement.NS, "ServiceDescriptionTerm") {
				list = append(list, c)
			} else if xmldoc.NameOf(c).Space == agreement.NS {
				walk(c)
			}
		}
	}
	if e := xmldoc.Child(p.root, agreement.NS, "Terms"); e != nil {
		walk(e)
	}
	return list
}

func attribute(e *etree.Element, local string) string {
	value, _ := xmldoc.Attr(e, agreement.NS, local)
	return value
}

// described gives the one element that a term holds.
func described(term *etree.Element) *etree.Element {
	if list := term.ChildElements(); len(list) == 1 {
		return list[0]
	}
	return nil
}

func isJob(e *etree.Element) bool {
	return e != nil && (xmldoc.Is(e, jsdl.NS, "JobDefinition") || xmldoc.Is(e, jsdl.NS, "JobDescription"))
}

// jobs puts the documents where the template has jobs. A service that has its job in
// several alternatives has the same in each.
func (p *paper) jobs() error {
	var services []string
	at := map[string][]*etree.Element{}
	for _, term := range p.descriptions() {
		if !isJob(described(term)) {
			continue
		}
		s := attribute(term, "ServiceName")
		if at[s] == nil {
			services = append(services, s)
		}
		at[s] = append(at[s], term)
	}
	name := xsd.Quote(p.template.Name)
	switch {
	case len(p.Jobs) == 0:
		if len(services) > 0 && p.wantsJob(at[services[0]][0]) {
			return invalid("the template %s is for a job: name its JSDL document", name)
		}
		return nil
	case len(services) == 0:
		return invalid("the template %s has no job in it, and %s given: leave it out", name, documents(len(p.Jobs)))
	case len(services) != len(p.Jobs):
		return invalid("the template %s has %d services with a job each, and %s given", name, len(services), documents(len(p.Jobs)))
	}
	for i, s := range services {
		doc, err := xmldoc.ReadBytes(p.Jobs[i], xmldoc.Limits{})
		if err != nil {
			return fail.Errorf("offering", fail.Invalid, "", "the job can't be read: %s", fail.Sentence(err)).Because(err)
		}
		if !isJob(doc.Root()) {
			return invalid("the document is a %s, and no jsdl:JobDefinition", xmldoc.NameOf(doc.Root()))
		}
		for _, term := range at[s] {
			old := described(term)
			i := old.Index()
			term.RemoveChildAt(i)
			term.InsertChildAt(i, xmldoc.Detach(doc.Root()))
		}
	}
	return nil
}

func documents(n int) string {
	if n == 1 {
		return "one JSDL document is"
	}
	return strconv.Itoa(n) + " JSDL documents are"
}

// wantsJob says that the job in a term is there to be replaced: an item is about it as a whole.
func (p *paper) wantsJob(term *etree.Element) bool {
	job := described(term)
	for i := range p.template.Constraints.Items {
		nodes, err := p.find(&p.template.Constraints.Items[i])
		if err == nil && slices.ContainsFunc(nodes, func(n xpath.Node) bool { return n.Kind() == xpath.Element && n.Element() == job }) {
			return true
		}
	}
	return false
}

// item finds an item by its name, or its number.
func (p *paper) item(name string) (*agreement.Item, error) {
	items := p.template.Constraints.Items
	for _, same := range []func(a, b string) bool{func(a, b string) bool { return a == b }, strings.EqualFold} {
		for i := range items {
			if items[i].Name != "" && same(items[i].Name, name) {
				return &items[i], nil
			}
		}
	}
	if n, err := strconv.Atoi(name); err == nil && n >= 1 && n <= len(items) && items[n-1].Name == "" {
		return &items[n-1], nil
	}
	var names []string
	for i := range items {
		n := items[i].Name
		if n == "" {
			n = strconv.Itoa(i + 1)
		}
		names = append(names, n)
	}
	if len(names) == 0 {
		return nil, invalid("the template %s has no items: an offer takes it as it is", xsd.Quote(p.template.Name))
	}
	return nil, invalid("the template %s has no item %s; it has %s", xsd.Quote(p.template.Name), xsd.Quote(name), strings.Join(names, ", "))
}

func (p *paper) find(item *agreement.Item) ([]xpath.Node, error) {
	x, err := xpath.Compile(item.Location, item.Scope)
	if err != nil {
		return nil, err
	}
	if x.Type() != xpath.NodeSet {
		return nil, invalid("its Location names no place in the offer")
	}
	return x.SelectIn(xpath.Build(p.root), xpath.Options{RootNames: roots})
}

// value fills in one item.
func (p *paper) value(v Value) error {
	item, err := p.item(v.Item)
	if err != nil {
		return err
	}
	if p.placed(item, v.Text) {
		return nil
	}
	nodes, err := p.find(item)
	if err != nil {
		return fail.Errorf("offering", fail.KindOf(err), "", "the item %s can't be found in the template %s: %s", xsd.Quote(v.Item), xsd.Quote(p.template.Name), fail.Sentence(err)).Because(err)
	}
	if len(nodes) == 0 && tail(item, jsdl.NS, "TotalCPUCount", "Exact") {
		return p.cpus(v)
	}
	if len(nodes) == 0 {
		return invalid("the template %s has nothing where %s would be: put it into the job's document, or write the offer as a file", xsd.Quote(p.template.Name), xsd.Quote(v.Item))
	}
	for _, n := range nodes {
		text, err := p.moment(v, n.Text())
		if err != nil {
			return err
		}
		e := n.Element()
		switch n.Kind() {
		case xpath.Attribute:
			for i := range e.Attr {
				if named(e, &e.Attr[i], n.Name()) {
					e.Attr[i].Value = text
				}
			}
		case xpath.Element, xpath.Text:
			if len(e.ChildElements()) > 0 {
				return invalid("%s is no single value: there is a whole %s; write the offer as a file", xsd.Quote(v.Item), e.Tag)
			}
			e.SetText(text)
		case xpath.Document, xpath.Comment, xpath.Instruction:
			return invalid("%s is no value that can be filled in", xsd.Quote(v.Item))
		}
	}
	return nil
}

// moment reads a time where the template has one.
func (p *paper) moment(v Value, old string) (string, error) {
	if _, err := time.Parse(time.RFC3339Nano, xmldoc.Collapse(old)); err != nil {
		return v.Text, nil //nolint:nilerr // it is something else
	}
	read := p.Moment
	if read == nil {
		read = func(s string) (time.Time, error) { return time.Parse(time.RFC3339Nano, s) }
	}
	t, err := read(v.Text)
	if err != nil {
		return "", fail.Errorf("offering", fail.Invalid, "", "%s: %s", v.Item, fail.Sentence(err)).Because(err)
	}
	return t.UTC().Format(time.RFC3339Nano), nil
}

// tail says that a Location ends with those steps of a namespace.
func tail(item *agreement.Item, space string, names ...string) bool {
	steps := strings.Split(xmldoc.Collapse(item.Location), "/")
	if len(steps) < len(names) {
		return false
	}
	steps = steps[len(steps)-len(names):]
	for i, name := range names {
		prefix, local, ok := strings.Cut(steps[i], ":")
		if !ok || local != name || item.Scope[prefix] != space {
			return false
		}
	}
	return true
}

// cpus says in each job how many it needs.
func (p *paper) cpus(v Value) error {
	n, err := strconv.ParseFloat(v.Text, 64)
	if err != nil {
		return invalid("%s: %s is no number", v.Item, xsd.Quote(v.Text))
	}
	for _, term := range p.descriptions() {
		e := described(term)
		if !isJob(e) {
			continue
		}
		bare := e.Tag == "JobDescription"
		doc := xmldoc.Detach(e)
		if bare {
			whole := etree.NewElement("jsdl:JobDefinition")
			whole.CreateAttr("xmlns:jsdl", jsdl.NS)
			whole.AddChild(doc)
			doc = whole
		}
		job, problems := jsdl.Parse(xmldoc.Marshal(doc), jsdl.Options{Lenient: true})
		if job == nil || len(problems.Invalid()) > 0 {
			return invalid("%s can't be written into the job, which is not valid JSDL: 'portolan validate' tells why", v.Item)
		}
		if job.Description.Resources == nil {
			job.Description.Resources = new(jsdl.Resources)
		}
		job.Description.Resources.TotalCPUCount = &jsdl.RangeValue{Exact: []jsdl.Exact{{Value: n}}}
		back, err := xmldoc.ReadBytes(job.Marshal(), xmldoc.Limits{})
		if err != nil {
			return fail.E("offering", fail.Internal, v.Item, err)
		}
		made := back.Root()
		if bare {
			made = xmldoc.Child(made, jsdl.NS, "JobDescription")
		}
		i := e.Index()
		term.RemoveChildAt(i)
		term.InsertChildAt(i, xmldoc.Detach(made))
	}
	return nil
}

// placed keeps a value that says where, if the template leaves that open.
func (p *paper) placed(item *agreement.Item, text string) bool {
	local := ""
	for _, l := range []string{"Site", "Share"} {
		if tail(item, agreement.NSPortolan, "Place", l) || tail(item, agreement.NSPortolan, "Capacity", l) {
			local = l
		}
	}
	if local == "" {
		return false
	}
	if nodes, err := p.find(item); err != nil || len(nodes) > 0 {
		return false
	}
	if local == "Site" {
		p.place.Site = text
	} else {
		p.place.Share = text
	}
	return true
}

// places writes where, for each service.
func (p *paper) places() error {
	if p.place.IsZero() {
		return nil
	}
	last := map[string]*etree.Element{} // the last term of each service
	var services []string
	for _, term := range p.descriptions() {
		s := attribute(term, "ServiceName")
		e := described(term)
		switch {
		case e != nil && xmldoc.Is(e, agreement.NSPortolan, "Capacity"):
			in := p.place.Element().ChildElements()
			for _, x := range slices.Backward(in) {
				if old := xmldoc.Child(e, agreement.NSPortolan, x.Tag); old != nil {
					old.SetText(x.Text())
					continue
				}
				e.InsertChildAt(0, xmldoc.Detach(x))
			}
		case e != nil && xmldoc.Is(e, agreement.NSPortolan, "Place"):
			return invalid("the template %s says already where, but for a part: write the offer as a file", xsd.Quote(p.template.Name))
		default:
			if last[s] == nil {
				services = append(services, s)
			}
			last[s] = term
		}
	}
	for i, s := range services {
		name := "place"
		if i > 0 {
			name += strconv.Itoa(i + 1)
		}
		for p.template.Term(name) != nil {
			name += "-"
		}
		term := agreement.NewElement("ServiceDescriptionTerm")
		term.CreateAttr("wsag:Name", name)
		term.CreateAttr("wsag:ServiceName", s)
		term.AddChild(p.place.Element())
		after := last[s]
		after.Parent().InsertChildAt(after.Index()+1, term)
	}
	return nil
}

// named says that an attribute of an element has an expanded name.
func named(e *etree.Element, a *etree.Attr, name xmldoc.Name) bool {
	if a.Key != name.Local || a.Space == "xmlns" {
		return false
	}
	if a.Space == "" {
		return name.Space == ""
	}
	n, err := xmldoc.ResolveQName(e, a.Space+":"+a.Key)
	return err == nil && n == name
}

// offer makes the offer of what was filled in.
func (p *paper) offer() (*agreement.Offer, error) {
	e := p.root
	e.Tag = "AgreementOffer"
	var attrs []etree.Attr
	for _, a := range e.Attr {
		own := func(local string) bool { return named(e, &a, xmldoc.Name{Space: agreement.NS, Local: local}) }
		if !own("TemplateId") && !own("AgreementId") {
			attrs = append(attrs, a)
		}
	}
	e.Attr = attrs
	o, err := agreement.DecodeOffer(e)
	if err != nil {
		return nil, fail.Errorf("offering", fail.KindOf(err), "", "what was filled in makes no offer: %s", fail.Sentence(err)).Because(err)
	}
	o.Context.TemplateID, o.Context.TemplateName = p.template.TemplateID, p.template.Agreement.Name
	if p.Name != "" {
		o.Agreement.Name = p.Name
	}
	return agreement.DecodeOffer(o.Encode())
}

// Check holds an offer against its template before it is sent: a sentence for each
// constraint that it breaks, and for what is not understood in it. unchecked says why
// the template's constraints can't be held against it here; "" where they were.
func Check(t *agreement.Template, o *agreement.Offer) (broken []string, unchecked string) {
	c, err := t.Compile()
	if err != nil {
		return nil, fail.Sentence(err)
	}
	for _, b := range c.Check(o) {
		broken = append(broken, b.Sentence)
	}
	return broken, ""
}
