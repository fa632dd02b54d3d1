package xsd

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

const unbounded = -1

// particle is an element, a wildcard, or a group of particles (XML Schema part 1 §3.9).
type particle struct {
	kind        string // the element's name in XML Schema
	least, most int    // most may be unbounded
	parts       []*particle

	// Of an element.
	name   xmldoc.Name
	parent bool    // the namespace is that of the parent
	typ    *simple // nil is any

	// Of a wildcard: namespace as it was written.
	spaces []string
}

func (c *compiler) particle(e *etree.Element, top bool) (*particle, error) {
	if err := c.enter(); err != nil {
		return nil, err
	}
	defer c.leave()
	if err := c.count(); err != nil {
		return nil, err
	}
	p := &particle{kind: e.Tag, least: 1, most: 1}
	if xmldoc.NameOf(e).Space != NS {
		return nil, invalid("%s is not an element of XML Schema", e.FullTag())
	}
	if err := p.occurs(e); err != nil {
		return nil, err
	}
	var err error
	switch e.Tag {
	case "sequence", "choice", "all":
		for _, inner := range parts(e) {
			part, err := c.particle(inner, false)
			if err != nil {
				return nil, err
			}
			p.parts = append(p.parts, part)
		}
		if e.Tag == "all" {
			err = p.all(top)
		}
	case "element":
		err = c.element(p, e)
	case "any":
		spaces, ok := xmldoc.Attr(e, "", "namespace")
		if !ok {
			spaces = "##any"
		}
		p.spaces = strings.Fields(spaces)
	default:
		return nil, unsupported("xs:%s is not supported among particles: xs:sequence, xs:choice, xs:all, xs:element and xs:any are", e.Tag)
	}
	if err != nil {
		return nil, err
	}
	return p, nil
}

func (p *particle) occurs(e *etree.Element) error {
	const most = 1_000_000
	if v, ok := xmldoc.Attr(e, "", "minOccurs"); ok {
		n, err := strconv.ParseUint(v, 10, 32)
		if err != nil || n > most {
			return invalid("minOccurs must be a whole number up to %d, not %s", most, Quote(v))
		}
		p.least = int(n)
	}
	switch v, ok := xmldoc.Attr(e, "", "maxOccurs"); {
	case !ok:
	case v == "unbounded":
		p.most = unbounded
	default:
		n, err := strconv.ParseUint(v, 10, 32)
		if err != nil || n > most {
			return invalid("maxOccurs must be a whole number up to %d, or unbounded, not %s", most, Quote(v))
		}
		p.most = int(n)
	}
	if p.most != unbounded && p.most < p.least {
		return invalid("maxOccurs of an xs:%s is less than its minOccurs", e.Tag)
	}
	return nil
}

// all keeps the limits of §3.8.6: alone, elements only, each at most once.
func (p *particle) all(top bool) error {
	if !top {
		return invalid("an xs:all must be alone in its ItemConstraint")
	}
	if p.most != 1 {
		return invalid("maxOccurs of an xs:all must be 1")
	}
	for i, in := range p.parts {
		if in.kind != "element" || in.most > 1 || in.most == unbounded {
			return invalid("an xs:all holds elements that occur at most once")
		}
		if slices.ContainsFunc(p.parts[:i], func(o *particle) bool { return o.name == in.name && o.parent == in.parent }) {
			return invalid("the element %s stands twice in an xs:all", in.name.Local)
		}
	}
	return nil
}

func (c *compiler) element(p *particle, e *etree.Element) error {
	if ref, ok := xmldoc.Attr(e, "", "ref"); ok {
		name, err := xmldoc.ResolveQName(e, ref)
		if err != nil {
			return invalid("the element %s is not known: %v", Quote(ref), err)
		}
		p.name = name
		if len(parts(e)) > 0 {
			return invalid("an xs:element with a ref has nothing inside")
		}
		return nil
	}
	name, ok := xmldoc.Attr(e, "", "name")
	if _, err := xmldoc.ResolveQName(e, name); !ok || err != nil || strings.Contains(name, ":") {
		return invalid("an xs:element must have a ref, or a name without prefix")
	}
	p.name.Local = name
	form, _ := xmldoc.Attr(e, "", "form")
	p.parent = form != "unqualified"
	typ, typed := xmldoc.Attr(e, "", "type")
	inner := parts(e)
	var err error
	switch {
	case typed && len(inner) > 0 || len(inner) > 1:
		return invalid("the xs:element %s has a type or an xs:simpleType inside, not both", name)
	case typed:
		if n, err := xmldoc.ResolveQName(e, typ); err == nil && n.Space == NS && n.Local == "anyType" {
			return nil
		}
		p.typ, err = builtinType(e, typ)
	case len(inner) == 1 && xmldoc.Is(inner[0], NS, "simpleType"):
		p.typ, err = c.simpleType(inner[0])
	case len(inner) == 1:
		return unsupported("%s is not supported inside the xs:element %s: a type, or an xs:simpleType, is", inner[0].FullTag(), name)
	}
	return err
}

// content is what a particle is held against. The ends of each particle from each
// place are remembered, so that the work is bounded by their number.
type content struct {
	parent   xmldoc.Name
	children []*etree.Element
	names    []xmldoc.Name
	ends     map[place][]int
	steps    int
}

type place struct {
	p    *particle
	from int
}

const maxSteps = 2_000_000

// check holds the children of an element against the particle; "" is that they fit.
func (p *particle) check(e *etree.Element) string {
	if e == nil {
		return "the value has no elements inside"
	}
	c := &content{parent: xmldoc.NameOf(e), children: e.ChildElements(), ends: map[place][]int{}}
	if len(c.children) > MaxChildren {
		return fmt.Sprintf("%s has %d elements inside, more than the %d that are looked at", e.FullTag(), len(c.children), MaxChildren)
	}
	for _, t := range e.Child {
		if d, ok := t.(*etree.CharData); ok && strings.Trim(d.Data, " \t\r\n") != "" {
			return fmt.Sprintf("the text %s does not belong into %s", Quote(d.Data), e.FullTag())
		}
	}
	for _, child := range c.children {
		c.names = append(c.names, xmldoc.NameOf(child))
	}
	if slices.Contains(c.match(p, 0), len(c.children)) {
		return ""
	}
	if c.steps > maxSteps {
		return fmt.Sprintf("the elements inside %s take too long to compare", e.FullTag())
	}
	var tags []string
	for _, child := range c.children {
		tags = append(tags, child.FullTag())
	}
	if len(tags) == 0 {
		return e.FullTag() + " is empty"
	}
	return fmt.Sprintf("%s with %s, as it is, is not allowed", e.FullTag(), list(tags, "and"))
}

// match gives where a particle that begins at a child can end, in order.
func (c *content) match(p *particle, from int) []int {
	at := place{p, from}
	if ends, known := c.ends[at]; known {
		return ends
	}
	reached := []int{from}
	var ends []int
	if p.least == 0 {
		ends = append(ends, from)
	}
	for n := 1; p.most == unbounded || n <= p.most; n++ {
		var next []int
		for _, i := range reached {
			if c.steps++; c.steps > maxSteps {
				return nil
			}
			next = append(next, c.once(p, i)...)
		}
		slices.Sort(next)
		next = slices.Compact(next)
		c.steps += len(next)
		if n >= p.least {
			// What was reached before has been gone on from, with more occurrences left.
			next = slices.DeleteFunc(next, func(i int) bool {
				_, known := slices.BinarySearch(ends, i)
				return known
			})
			if len(next) == 0 {
				break
			}
			ends = append(ends, next...)
			slices.Sort(ends)
		} else if slices.Equal(next, reached) {
			n = p.least - 1 // it repeats: the counts between do not matter
		}
		if len(next) == 0 {
			break
		}
		reached = next
	}
	c.ends[at] = ends
	return ends
}

// once gives where one occurrence can end.
func (c *content) once(p *particle, from int) []int {
	switch p.kind {
	case "sequence":
		reached := []int{from}
		for _, part := range p.parts {
			var next []int
			for _, i := range reached {
				next = append(next, c.match(part, i)...)
			}
			slices.Sort(next)
			reached = slices.Compact(next)
			c.steps += len(reached)
		}
		return reached
	case "choice":
		var ends []int
		for _, part := range p.parts {
			ends = append(ends, c.match(part, from)...)
		}
		slices.Sort(ends)
		return slices.Compact(ends)
	case "all":
		return c.each(p, from)
	}
	if from < len(c.children) && p.takes(c, from) {
		return []int{from + 1}
	}
	return nil
}

// each is one occurrence of an xs:all: its names differ, so there is one way.
func (c *content) each(p *particle, from int) []int {
	used := make([]bool, len(p.parts))
	i := from
	for ; i < len(c.children); i++ {
		at := slices.IndexFunc(p.parts, func(part *particle) bool { return part.most > 0 && part.takes(c, i) })
		if at < 0 || used[at] {
			break
		}
		used[at] = true
	}
	for at, part := range p.parts {
		if part.least > 0 && !used[at] {
			return nil
		}
	}
	return []int{i}
}

func (p *particle) takes(c *content, i int) bool {
	name := c.names[i]
	if p.kind == "any" {
		return slices.ContainsFunc(p.spaces, func(s string) bool {
			switch s {
			case "##any":
				return true
			case "##other":
				return name.Space != "" && name.Space != c.parent.Space
			case "##targetNamespace":
				return name.Space == c.parent.Space
			case "##local":
				return name.Space == ""
			}
			return name.Space == s
		})
	}
	want := p.name
	if p.parent {
		want.Space = c.parent.Space
	}
	if name != want {
		return false
	}
	if p.typ == nil {
		return true
	}
	e := c.children[i]
	if len(e.ChildElements()) > 0 {
		return false
	}
	_, ok := p.typ.check(xmldoc.Text(e), e)
	return ok
}

func (p *particle) describe() string {
	var s string
	switch p.kind {
	case "any":
		s = "any element"
	case "element":
		s = p.name.Local
		if p.typ != nil {
			s += " (" + p.typ.describe() + ")"
		}
	default:
		var each []string
		for _, part := range p.parts {
			each = append(each, part.describe())
		}
		switch {
		case len(each) == 0:
			s = "nothing inside"
		case p.kind == "choice":
			s = "either " + strings.Join(each, " or ")
		case p.kind == "all":
			s = "in any order " + strings.Join(each, ", ")
		default:
			s = strings.Join(each, ", then ")
		}
	}
	switch {
	case p.least == 1 && p.most == 1:
		return s
	case p.most == 0:
		return "no " + s
	case p.least == 0 && p.most == 1:
		return "optionally " + s
	case p.most == unbounded:
		return fmt.Sprintf("%d or more times %s", p.least, s)
	case p.most == p.least:
		return fmt.Sprintf("%d times %s", p.least, s)
	}
	return fmt.Sprintf("%d to %d times %s", p.least, p.most, s)
}
