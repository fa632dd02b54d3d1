package jsdl

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// content is one complex type of the schemas as a table: a sequence of elements,
// then perhaps the wildcard "##other, lax", or text; and the attributes. T is the
// Go type that an element of it is read into. One walker (read) obeys the tables,
// so every sequence fails the same way.
type content[T any] struct {
	space    string         // the schema's target namespace, which ##other excludes
	parts    []part[T]      // in order
	attrs    []attribute[T] // without a namespace
	text     func(d *decoder, t *T, e *etree.Element, s string)
	any      bool // foreign elements may follow the parts
	anyAttr  bool // foreign attributes are allowed
	nillable bool
	aloof    bool // foreign elements here do not change what runs or where

	foreign  func(t *T) *Foreign                                             // where wildcard content is kept
	extra    func(t *T) *[]Attribute                                         // where foreign attributes are kept, without foreign
	leaves   func(t *T) *[]LeafAttribute                                     // where those of children with neither are kept
	claim    func(d *decoder, t *T, e *etree.Element, n xmldoc.Name) bool    // reads a foreign element that this package knows
	bareText func(d *decoder, t *T, e *etree.Element, s string) (taken bool) // text where elements belong
	after    func(d *decoder, t *T, e *etree.Element)                        // checks the whole
}

// part is one element of a sequence.
type part[T any] struct {
	space, local string
	occurs
	group    []xmldoc.Name // the substitution group whose members stand for the element
	other    bool          // any element of a namespace that is neither space nor absent
	read     func(d *decoder, t *T, e *etree.Element)
	assume   func(t *T) string // in lenient reading: does without the element, and says what is assumed
	mistaken string            // set for a name that is not in the schema though documents have it: what would be right
}

// occurs is how often an element stands.
type occurs struct{ min, max int }

var (
	optional = occurs{0, 1}
	once     = occurs{1, 1}
	repeated = occurs{0, math.MaxInt}
	several  = occurs{1, math.MaxInt}
)

// el makes a part.
func el[T any](space, local string, o occurs, read func(d *decoder, t *T, e *etree.Element)) part[T] {
	return part[T]{space: space, local: local, occurs: o, read: read}
}

// or says what lenient reading assumes when the element is missing.
func (p part[T]) or(assume func(t *T) string) part[T] {
	p.assume = assume
	return p
}

// not marks a name that is not in the schema.
func (p part[T]) not(want string) part[T] {
	p.mistaken = want
	return p
}

// attribute is one attribute of a complex type.
type attribute[T any] struct {
	local    string
	required bool
	read     func(d *decoder, t *T, e *etree.Element, v string)
	mistaken string
}

// maxParts bounds the sequences of the tables; a test holds them to it.
const maxParts = 32

const (
	nsXSI = "http://www.w3.org/2001/XMLSchema-instance"
	nsXML = "http://www.w3.org/XML/1998/namespace"
	nsXSD = "http://www.w3.org/2001/XMLSchema"
)

// maxProblems bounds the problems of each severity that one document can cause.
const maxProblems = 100

// maxForeign bounds the foreign elements that one definition keeps.
const maxForeign = 1000

// decoder reads one document.
type decoder struct {
	doc      *xmldoc.Document
	root     *etree.Element
	opts     Options
	problems Problems
	told     [numSeverities]int
	orphans  []Attribute // foreign attributes that wait for the parent to keep them
	kept     int         // foreign elements that were stored
	lax      int         // >0 inside foreign content: only the schema's rules hold there

	ids       map[string]bool // made with the first xsd:ID
	refs      []mention
	resources *etree.Element
	spmd      *etree.Element
}

// mention is a use of a file system's name.
type mention struct {
	at   *etree.Element
	name string
}

// name gives an element's expanded name. Walking up is cheaper than the
// document's index, which is made only when there is something to report.
func (d *decoder) name(e *etree.Element) xmldoc.Name { return xmldoc.NameOf(e) }

// childName is name for a child of an element in the namespace space.
func (d *decoder) childName(parent *etree.Element, space string, e *etree.Element) xmldoc.Name {
	if len(e.Attr) == 0 && e.Space == parent.Space {
		return xmldoc.Name{Space: space, Local: e.Tag}
	}
	return xmldoc.NameOf(e)
}

// invalid reports a breach of the schema.
func (d *decoder) invalid(e *etree.Element, what, want string) {
	d.report(e, Invalid, true, what, want)
}

// rule reports a breach of a rule that the schema does not express, in a job that is to run.
func (d *decoder) rule(e *etree.Element, s Severity, what, want string) {
	if d.lax == 0 {
		d.report(e, s, false, what, want)
	}
}

// slip reports what only a lenient reading takes.
func (d *decoder) slip(e *etree.Element, what, want string) {
	if d.opts.Lenient {
		d.rule(e, Warning, what, want)
		return
	}
	d.invalid(e, what, want)
}

// path gives the path from the definition on, wherever that stands.
func (d *decoder) path(e *etree.Element) string {
	path := d.doc.Path(e)
	if above := d.root.Parent(); above != nil && above.Tag != "" {
		path = strings.TrimPrefix(path, d.doc.Path(above))
	}
	return path
}

func (d *decoder) report(e *etree.Element, s Severity, schema bool, what, want string) {
	if d.told[s]++; d.told[s] > maxProblems {
		return
	}
	d.problems = append(d.problems, Problem{
		File: d.opts.File, Pos: d.doc.Position(e), Element: d.path(e), Name: d.name(e),
		Severity: s, What: what, Want: want, schema: schema,
	})
}

// read checks e against the table and reads it into t.
func read[T any](d *decoder, e *etree.Element, t *T, c *content[T]) {
	null := readAttributes(d, e, t, c)
	switch {
	case null:
		d.empty(e)
	case c.text != nil:
		if s, ok := d.chars(e); ok {
			c.text(d, t, e, s)
		}
	default:
		readSequence(d, e, t, c)
	}
	if c.after != nil {
		c.after(d, t, e)
	}
}

func readSequence[T any](d *decoder, e *etree.Element, t *T, c *content[T]) {
	var seen [maxParts]int
	at, stray, strangers, own := 0, false, false, ""
	for _, token := range e.Child {
		switch token := token.(type) {
		case *etree.CharData:
			// An empty content model has no place for white space either.
			if !stray && (!blank(token.Data) || len(c.parts) == 0 && !c.any && token.Data != "") {
				stray = true
				readStray(d, e, t, c)
			}
		case *etree.Element:
			if own == "" {
				own = d.name(e).Space
			}
			n := d.childName(e, own, token)
			i := find(c.parts, n, at)
			wild := c.any && n.Space != c.space && n.Space != ""
			if i < 0 || wild && i < at && complete(c.parts, seen[:]) {
				if wild {
					at = len(c.parts)
					readForeign(d, token, n, t, c)
					continue
				}
				strangers = true
				d.invalid(token, unknown(n, c.space), expected(c.parts, seen[:], at, c.any, n))
				continue
			}
			p := &c.parts[i]
			seen[i]++
			switch {
			case p.mistaken != "":
				d.slip(token, p.local+" is not in the schema", p.mistaken)
			case seen[i] > p.max:
				d.invalid(token, p.local+" stands here "+strconv.Itoa(seen[i])+" times", "expected at most "+strconv.Itoa(p.max))
			case i < at:
				d.slip(token, p.local+" stands after "+latest(c.parts, seen[:], i), "move it before "+earliest(c.parts, seen[:], i))
			default:
				at = i
			}
			p.read(d, t, token)
			if len(d.orphans) > 0 {
				adopt(d, t, c, p.local, seen[i]-1)
			}
		}
	}
	for i := range c.parts {
		p := &c.parts[i]
		if seen[i] >= p.min || strangers {
			continue // a misspelt element is one defect, told above
		}
		if d.opts.Lenient && p.assume != nil {
			d.rule(e, Warning, p.local+" is missing", p.assume(t))
			continue
		}
		d.invalid(e, p.local+" is missing", "expected it "+place(c.parts, i))
	}
}

func readStray[T any](d *decoder, e *etree.Element, t *T, c *content[T]) {
	s, ok := xmldoc.Text(e), false
	if c.bareText != nil && len(e.ChildElements()) == 0 {
		ok = c.bareText(d, t, e, s)
	}
	if !ok {
		d.invalid(e, "holds the text "+quote(trim(s)), "expected elements only"+listing(": ", c.parts))
	}
}

// readForeign reads an element that the wildcard lets through.
func readForeign[T any](d *decoder, e *etree.Element, n xmldoc.Name, t *T, c *content[T]) {
	if d.lax == 0 && c.claim != nil && c.claim(d, t, e, n) {
		return
	}
	d.checkLax(e, n)
	if d.lax > 0 {
		return
	}
	if c.foreign != nil && !d.keep(e, c.foreign(t)) {
		return
	}
	switch {
	case slices.Contains(d.opts.Ignore, n.Space):
		d.rule(e, Warning, "the extension "+n.String()+" is ignored as this endpoint is configured", "")
	case c.aloof:
		d.rule(e, Warning, "the extension "+n.String()+" is not understood; it is kept and has no effect", "")
	default:
		what, want := refusal(n)
		d.rule(e, Unsupported, what, want)
	}
}

// keep stores a foreign element as a document of its own. Each carries the
// declarations it inherits, so their number is bounded.
func (d *decoder) keep(e *etree.Element, f *Foreign) bool {
	if d.kept++; d.kept > maxForeign {
		d.rule(e, Unsupported, "the document has more than "+strconv.Itoa(maxForeign)+" extension elements", "remove some")
		return false
	}
	f.Elements = append(f.Elements, xmldoc.Detach(e))
	return true
}

// readAttributes reports whether the element is nil (XML Schema part 1 §2.6.2).
func readAttributes[T any](d *decoder, e *etree.Element, t *T, c *content[T]) (null bool) {
	var given uint8
	for i := range e.Attr {
		a := &e.Attr[i]
		switch {
		case a.Space == "xmlns", a.Space == "" && a.Key == "xmlns":
		case a.Space == "":
			j := slices.IndexFunc(c.attrs, func(x attribute[T]) bool { return x.local == a.Key })
			if j < 0 {
				d.invalid(e, "the attribute "+a.Key+" is not allowed here", allowed(c.attrs))
				continue
			}
			given |= 1 << j
			if m := c.attrs[j].mistaken; m != "" {
				d.slip(e, "the attribute "+a.Key+" is not in the schema", m)
			}
			c.attrs[j].read(d, t, e, a.Value)
		default:
			space := attributeSpace(e, a)
			if space == nsXSI && instance(a.Key) {
				null = d.instanceAttribute(e, a, c.nillable) || null
				continue
			}
			if j := slices.IndexFunc(c.attrs, func(x attribute[T]) bool { return x.local == a.Key }); j >= 0 && space == c.space {
				given |= 1 << j
				d.invalid(e, "the attribute "+a.FullKey()+" is not allowed here", "write "+a.Key+", without a prefix")
				continue
			}
			if !c.anyAttr || space == c.space {
				d.invalid(e, "the attribute "+a.FullKey()+" is not allowed here", allowed(c.attrs))
				continue
			}
			keepAttribute(d, e, xmldoc.Name{Space: space, Local: a.Key}, a.Value, t, c)
		}
	}
	for j := range c.attrs {
		if c.attrs[j].required && given&(1<<j) == 0 {
			d.invalid(e, "the attribute "+c.attrs[j].local+" is missing", "expected "+c.attrs[j].local+`="…"`)
		}
	}
	return null
}

func keepAttribute[T any](d *decoder, e *etree.Element, n xmldoc.Name, v string, t *T, c *content[T]) {
	if d.lax > 0 {
		return
	}
	var list *[]Attribute
	switch {
	case c.foreign != nil:
		list = &c.foreign(t).Attributes
	case c.extra != nil:
		list = c.extra(t)
	}
	if list == nil {
		list = &d.orphans
	}
	*list = append(*list, Attribute{Name: n, Value: v})
	if n.Space != nsXML { // xml:lang and its like are everybody's
		d.rule(e, Warning, "the attribute "+n.String()+" is not understood; it is kept and has no effect", "")
	}
}

// adopt keeps a child's attributes with the parent.
func adopt[T any](d *decoder, t *T, c *content[T], local string, index int) {
	if c.leaves != nil {
		list := c.leaves(t)
		for _, a := range d.orphans {
			*list = append(*list, LeafAttribute{local, index, a})
		}
	}
	d.orphans = d.orphans[:0]
}

func attributeSpace(e *etree.Element, a *etree.Attr) string {
	if a.Space == "xml" {
		return nsXML
	}
	for ; e != nil; e = e.Parent() {
		for i := range e.Attr {
			if e.Attr[i].Key == a.Space && e.Attr[i].Space == "xmlns" {
				return e.Attr[i].Value
			}
		}
	}
	return ""
}

// instance reports whether local is one of the four attributes that XML Schema
// allows on every element (part 1 §2.6).
func instance(local string) bool {
	return local == "type" || local == "nil" || local == "schemaLocation" || local == "noNamespaceSchemaLocation"
}

func (d *decoder) instanceAttribute(e *etree.Element, a *etree.Attr, nillable bool) (null bool) {
	if a.Key != "nil" {
		return false
	}
	v, ok := parseBoolean(a.Value)
	if !ok {
		d.invalid(e, "xsi:nil is "+quote(a.Value), "expected true, false, 1 or 0")
	}
	if !nillable {
		d.invalid(e, "xsi:nil is not allowed: the element must have content", "remove xsi:nil")
		return false
	}
	return v && ok
}

// leaf reads an element of a simple type: text and no attributes.
func (d *decoder) leaf(e *etree.Element) (string, bool) {
	if len(e.Attr) > 0 {
		var none struct{}
		readAttributes(d, e, &none, &simpleType)
	}
	return d.chars(e)
}

var simpleType content[struct{}]

// chars gives the text of an element that may hold nothing else.
func (d *decoder) chars(e *etree.Element) (string, bool) {
	switch len(e.Child) {
	case 0:
		return "", true
	case 1:
		if c, ok := e.Child[0].(*etree.CharData); ok {
			return c.Data, true
		}
	}
	for _, token := range e.Child {
		if child, ok := token.(*etree.Element); ok {
			d.invalid(child, "an element stands where only text may", "remove it")
			return "", false
		}
	}
	return xmldoc.Text(e), true
}

// empty checks the content of a nil element.
func (d *decoder) empty(e *etree.Element) {
	for _, token := range e.Child {
		switch token := token.(type) {
		case *etree.Element:
			d.invalid(token, "stands in an element with xsi:nil", "remove it, or xsi:nil")
		case *etree.CharData:
			if token.Data != "" {
				d.invalid(e, "holds text though xsi:nil is true", "remove the text, or xsi:nil")
				return
			}
		}
	}
}

// checkLax does what processContents="lax" asks for: what a schema declares is
// checked, wherever it stands inside the unknown.
func (d *decoder) checkLax(e *etree.Element, n xmldoc.Name) {
	d.lax++
	defer func() { d.lax-- }()
	if check, ok := globals[n]; ok {
		check(d, e)
		return
	}
	for _, token := range e.Child {
		if child, ok := token.(*etree.Element); ok {
			d.checkLax(child, d.name(child))
		}
	}
}

// find gives the index of the part named n, looking first from the place where
// the sequence stands.
func find[T any](parts []part[T], n xmldoc.Name, at int) int {
	for i := at; i < len(parts); i++ {
		if parts[i].is(n) {
			return i
		}
	}
	for i := range min(at, len(parts)) {
		if parts[i].is(n) {
			return i
		}
	}
	return -1
}

// complete reports whether every required part stands, so that the wildcard is reached.
func complete[T any](parts []part[T], seen []int) bool {
	for i := range parts {
		if seen[i] < parts[i].min {
			return false
		}
	}
	return true
}

func (p *part[T]) is(n xmldoc.Name) bool {
	switch {
	case p.group != nil:
		return slices.Contains(p.group, n)
	case p.other:
		return n.Space != p.space && n.Space != ""
	}
	return p.local == n.Local && p.space == n.Space
}
