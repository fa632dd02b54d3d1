package xsd

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// NS is the namespace of XML Schema.
const NS = "http://www.w3.org/2001/XMLSchema"

// Bounds.
const (
	MaxFacets   = 1000 // facets, particles and types of one constraint
	MaxPattern  = 1000 // bytes of a pattern
	MaxDepth    = 16   // nesting of types and particles
	MaxChildren = 1000 // elements that a particle is held against
	maxLiteral  = 1024 // bytes of a value that is not text
)

// Type is a compiled constraint. It is immutable: any number of goroutines may check
// by it.
type Type struct {
	simple   *simple
	particle *particle // both nil: anything goes
}

// Node is what is checked.
type Node struct {
	// Text is the string value.
	Text string
	// Element is the element itself, which particles need; nil for an attribute or text.
	Element *etree.Element
	// Scope is where prefixes of QNames are resolved; Element where it is nil.
	Scope *etree.Element
}

// Compile reads an ItemConstraint: nothing, which lets anything; an xs:simpleType
// and facets, of which either may be absent; or one xs:sequence, xs:choice or
// xs:all. Errors are fail.Invalid or fail.Unsupported and say what to change.
func Compile(constraint *etree.Element) (*Type, error) {
	c := &compiler{}
	t, err := c.constraint(constraint)
	if err != nil {
		return nil, err
	}
	return t, nil
}

type compiler struct {
	parts, depth int
}

func invalid(format string, args ...any) error {
	return fail.Errorf("xsd.Compile", fail.Invalid, "", format, args...)
}

func unsupported(format string, args ...any) error {
	return fail.Errorf("xsd.Compile", fail.Unsupported, "", format, args...)
}

func (c *compiler) count() error {
	if c.parts++; c.parts > MaxFacets {
		return unsupported("the constraint has more than %d parts", MaxFacets)
	}
	return nil
}

func (c *compiler) enter() error {
	if c.depth++; c.depth > MaxDepth {
		return unsupported("the constraint is nested deeper than %d", MaxDepth)
	}
	return nil
}

func (c *compiler) leave() { c.depth-- }

func (c *compiler) constraint(e *etree.Element) (*Type, error) {
	var children []*etree.Element
	if e != nil {
		children = parts(e)
	}
	if len(children) == 0 {
		return &Type{}, nil
	}
	switch name := xmldoc.NameOf(children[0]); {
	case name.Space == NS && (name.Local == "sequence" || name.Local == "choice" || name.Local == "all"):
		if len(children) > 1 {
			return nil, invalid("an xs:%s must be alone in its ItemConstraint", name.Local)
		}
		p, err := c.particle(children[0], true)
		if err != nil {
			return nil, err
		}
		return &Type{particle: p}, nil
	case name.Space == NS && name.Local == "group":
		return nil, unsupported("xs:group is not supported in an ItemConstraint: write the xs:sequence, xs:choice or xs:all that it stands for")
	}
	s, err := c.restriction(e, nil, true)
	if err != nil {
		return nil, err
	}
	return &Type{simple: s}, nil
}

// parts gives the child elements but for annotations.
func parts(e *etree.Element) []*etree.Element {
	var found []*etree.Element
	for _, c := range e.ChildElements() {
		if !xmldoc.Is(c, NS, "annotation") {
			found = append(found, c)
		}
	}
	return found
}

// Required reports whether the constraint wants something to be there: a particle
// whose minOccurs is not 0.
func (t *Type) Required() bool { return t.particle != nil && t.particle.least > 0 }

// Anything reports whether the constraint lets anything.
func (t *Type) Anything() bool { return t.particle == nil && t.simple == nil }

// Allowed says what is allowed: it goes on "must be …".
func (t *Type) Allowed() string {
	switch {
	case t.simple != nil:
		return t.simple.describe()
	case t.particle != nil:
		return "an element with " + t.particle.describe()
	}
	return "anything"
}

// Check holds a node against the constraint. The error is fail.Invalid; its sentence
// names the value and what is allowed.
func (t *Type) Check(n Node) error {
	if n.Scope == nil {
		n.Scope = n.Element
	}
	switch {
	case t.simple != nil:
		if _, ok := t.simple.check(n.Text, n.Scope); !ok {
			return fail.Errorf("xsd.Check", fail.Invalid, "", "%s is not allowed: it must be %s", Quote(n.Text), t.Allowed())
		}
	case t.particle != nil:
		if why := t.particle.check(n.Element); why != "" {
			return fail.Errorf("xsd.Check", fail.Invalid, "", "%s: it must be %s", why, t.Allowed())
		}
	}
	return nil
}

// Quote gives a value for a sentence: on one line, and not for ever.
func Quote(s string) string {
	const longest = 80
	s = xmldoc.Collapse(s)
	if utf8.RuneCountInString(s) > longest {
		r := []rune(s)
		s = string(r[:longest]) + "…"
	}
	return `"` + strings.ToValidUTF8(s, "�") + `"`
}

func list(values []string, last string) string {
	const most = 20
	if len(values) > most {
		return strings.Join(values[:most], ", ") + fmt.Sprintf(" %s %d more", last, len(values)-most)
	}
	if len(values) < 2 {
		return strings.Join(values, "")
	}
	return strings.Join(values[:len(values)-1], ", ") + " " + last + " " + values[len(values)-1]
}
