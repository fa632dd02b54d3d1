package agreement

import (
	"fmt"
	"slices"
	"strings"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/internal/xpath"
	"github.com/portolan-project/portolan/internal/xsd"
)

// maxBroken is how many broken constraints are told.
const maxBroken = 100

// Broken is one way in which an offer does not comply with its template.
type Broken struct {
	// Item is the name of the wsag:Item, or its number where it has none; "" for a free
	// constraint and for what differs outside all Items.
	Item     string
	Location string // as the template has it; the assertion of a free constraint
	Path     string // where in the offer, for people; "" where nothing is there
	Found    string // the value, quoted; "" where there is none
	Allowed  string // it goes on "must be …"; the message of a free constraint
	// Sentence tells all of it to a person.
	Sentence string
}

// Check gives every constraint that the offer breaks, the Items first, each for
// every node that breaks it; none is compliance. What no Item names and no free
// constraint mentions is not looked at.
func (c *Checker) Check(o *Offer) []Broken {
	broken, _ := c.check(element(o))
	return told(broken)
}

// CheckStrictly is Check, and everything outside the Items must equal the template,
// but for white space, comments, the choice of prefixes of names, and what is the
// offerer's own: the agreement's name and id, and of the Context what the template's
// leaves out of the parties, the expiration time and the names of the template.
func (c *Checker) CheckStrictly(o *Offer) []Broken {
	e := element(o)
	broken, covered := c.check(e)
	for i := range c.items {
		// Its budget held when the template was compiled.
		if nodes, err := c.items[i].location.SelectIn(c.tree, stepsFor(len(c.items))); err == nil {
			covered.add(nodes)
		}
	}
	d := &differ{covered: covered}
	d.elements(c.template, e, "/wsag:AgreementOffer")
	return told(append(broken, d.found...))
}

func told(broken []Broken) []Broken {
	if more := len(broken) - maxBroken; more > 0 {
		broken = append(broken[:maxBroken:maxBroken], Broken{Sentence: fmt.Sprintf("%d more constraints are broken", more)})
	}
	return broken
}

func element(o *Offer) *etree.Element {
	if o.Element != nil {
		return o.Element
	}
	return o.Encode()
}

func (c *Checker) check(offer *etree.Element) ([]Broken, *coverage) {
	covered := newCoverage()
	tree := xpath.Build(offer)
	opt := xpath.Options{RootNames: roots, Steps: checkSteps / max(8, len(c.items)+len(c.free))}
	var broken []Broken
	taken := c.branches.choice(offer)
	for i := range c.items {
		found, nodes := c.items[i].check(i, tree, taken, opt)
		covered.add(nodes)
		broken = append(broken, found...)
	}
	for _, a := range c.free {
		v, err := a.expression.EvalIn(tree, opt)
		if err == nil && v.Bool {
			continue
		}
		b := Broken{Location: xmldoc.Collapse(a.expression.String()), Allowed: a.message, Sentence: a.message}
		if err != nil {
			b.Sentence = fmt.Sprintf("%s (%s)", a.message, fail.Sentence(err))
		}
		broken = append(broken, b)
	}
	return broken, covered
}

// check gives how an offer breaks the Item of that number, and what it locates.
func (x *checkedItem) check(i int, tree *xpath.Tree, taken *choice, opt xpath.Options) (broken []Broken, nodes []xpath.Node) {
	b := Broken{Item: strings.Trim(itemName(x.Name, i), `"`), Location: x.Location, Allowed: x.typ.Allowed()}
	about := "the item " + itemName(x.Name, i)
	nodes, err := x.location.SelectIn(tree, opt)
	if err != nil {
		b.Sentence = fmt.Sprintf("%s: %s", about, fail.Sentence(err))
		return []Broken{b}, nil
	}
	if needed, stranger := x.needed(taken); len(nodes) == 0 && needed {
		b.Sentence = fmt.Sprintf("%s: nothing is at %s, where there must be %s", about, xmldoc.Collapse(x.Location), b.Allowed)
		if stranger != "" {
			b.Sentence += fmt.Sprintf("; the term %s, which the template does not have so, can't stand for it", quoted(stranger))
		}
		broken = append(broken, b)
	}
	for _, n := range nodes {
		v := xsd.Node{Text: n.Text(), Scope: n.Element()}
		if n.Kind() == xpath.Element {
			v.Element = n.Element()
		}
		if err := x.typ.Check(v); err != nil {
			b.Path, b.Found = n.Path(), xsd.Quote(v.Text)
			b.Sentence = fmt.Sprintf("%s, at %s: %s", about, b.Path, fail.Sentence(err))
			broken = append(broken, b)
		}
	}
	return broken, nodes
}

// coverage is what the Items are about, in the offer and in the template.
type coverage struct {
	elements   map[*etree.Element]bool
	texts      map[*etree.Element]bool // of the element
	attributes map[*etree.Element][]xmldoc.Name
}

func newCoverage() *coverage {
	return &coverage{map[*etree.Element]bool{}, map[*etree.Element]bool{}, map[*etree.Element][]xmldoc.Name{}}
}

func (c *coverage) add(nodes []xpath.Node) {
	for _, n := range nodes {
		switch e := n.Element(); n.Kind() {
		case xpath.Element:
			c.elements[e] = true
		case xpath.Text:
			c.texts[e] = true
		case xpath.Attribute:
			c.attributes[e] = append(c.attributes[e], n.Name())
		case xpath.Document, xpath.Comment, xpath.Instruction:
		}
	}
}

// differ compares what no Item covers.
type differ struct {
	covered *coverage
	found   []Broken
}

func (d *differ) say(path, found, allowed string) {
	sentence := fmt.Sprintf("at %s is %s, where the template has %s and lets nothing else", path, or(found, "nothing"), or(allowed, "nothing"))
	d.found = append(d.found, Broken{Path: path, Found: found, Allowed: or(allowed, "absent"), Sentence: sentence})
}

func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// elements compares two elements of one name (but for the root's).
func (d *differ) elements(want, got *etree.Element, path string) {
	if len(d.found) > maxBroken || d.covered.elements[want] || d.covered.elements[got] {
		return
	}
	root := xmldoc.Is(want, NS, "Template")
	wa, ga := d.attributes(want, root), d.attributes(got, root)
	for name, v := range wa {
		if o, ok := ga[name]; !ok {
			d.say(path+"/@"+name.Local, "", xsd.Quote(v))
		} else if o != v {
			d.say(path+"/@"+name.Local, xsd.Quote(o), xsd.Quote(v))
		}
	}
	for name, v := range ga {
		if _, ok := wa[name]; !ok {
			d.say(path+"/@"+name.Local, xsd.Quote(v), "")
		}
	}
	if !d.covered.texts[want] && !d.covered.texts[got] {
		if w, g := xmldoc.Collapse(xmldoc.Text(want)), xmldoc.Collapse(xmldoc.Text(got)); w != g {
			quoted := func(s string) string {
				if s == "" {
					return ""
				}
				return xsd.Quote(s)
			}
			d.say(path, quoted(g), quoted(w))
		}
	}
	d.children(want, got, path, root)
}

func (d *differ) attributes(e *etree.Element, root bool) map[xmldoc.Name]string {
	found := map[xmldoc.Name]string{}
	for _, a := range e.Attr {
		if a.Space == "xmlns" || a.Space == "" && a.Key == "xmlns" {
			continue
		}
		name := xmldoc.Name{Local: a.Key}
		if a.Space != "" {
			if n, err := xmldoc.ResolveQName(e, a.Space+":"+a.Key); err == nil {
				name = n
			}
		}
		own := root && name.Space == NS && (name.Local == "AgreementId" || name.Local == "TemplateId") || name.Space == nsXSI && (name.Local == "schemaLocation" || name.Local == "type")
		if own || slices.Contains(d.covered.attributes[e], name) {
			continue
		}
		found[name] = xmldoc.Collapse(a.Value)
	}
	return found
}

// mine are the children of Context that the offerer fills in where the template
// leaves them out.
var mine = []string{"AgreementInitiator", "AgreementResponder", "ExpirationTime", "TemplateId", "TemplateName"}

func (d *differ) children(want, got *etree.Element, path string, root bool) {
	ws, gs := d.open(want), d.open(got)
	named := func(list []*etree.Element, n xmldoc.Name) bool {
		return slices.ContainsFunc(list, func(e *etree.Element) bool { return xmldoc.NameOf(e) == n })
	}
	if root {
		name := func(e *etree.Element) bool { return xmldoc.Is(e, NS, "Name") }
		ws, gs = slices.DeleteFunc(ws, name), slices.DeleteFunc(gs, name)
	}
	if xmldoc.Is(want, NS, "Context") {
		gs = slices.DeleteFunc(gs, func(e *etree.Element) bool {
			n := xmldoc.NameOf(e)
			return n.Space == NS && slices.Contains(mine, n.Local) && !named(ws, n)
		})
	}
	for i := range max(len(ws), len(gs)) {
		switch {
		case i >= len(gs):
			d.say(path, "", "the element "+ws[i].FullTag())
		case i >= len(ws):
			d.say(path, "the element "+gs[i].FullTag(), "")
		case xmldoc.NameOf(ws[i]) != xmldoc.NameOf(gs[i]):
			d.say(path, "the element "+gs[i].FullTag(), "the element "+ws[i].FullTag())
			return // what follows would differ because of this
		default:
			d.elements(ws[i], gs[i], path+"/"+gs[i].FullTag()+position(gs[i], got))
		}
	}
}

// open gives the children that no Item covers.
func (d *differ) open(e *etree.Element) []*etree.Element {
	return slices.DeleteFunc(e.ChildElements(), func(c *etree.Element) bool { return d.covered.elements[c] })
}

func position(e, parent *etree.Element) string {
	n, at := 0, 0
	for _, c := range parent.ChildElements() {
		if xmldoc.NameOf(c) == xmldoc.NameOf(e) {
			n++
			if c == e {
				at = n
			}
		}
	}
	if n < 2 {
		return ""
	}
	return fmt.Sprintf("[%d]", at)
}
