package xsd

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// simple is a simple type: a built-in one, a list or a union, with the facets of
// each restriction on the way, which all hold.
type simple struct {
	atom    *builtin  // of an atomic type
	item    *simple   // of a list
	members []*simple // of a union
	space   space
	facets  []facets
	// untyped: it is text because nobody said what it is. What an enumeration lets may be a
	// number or a time then, which has many forms.
	untyped bool
}

// facets are those of one restriction.
type facets struct {
	patterns []*regexp.Regexp // one of them must match
	forms    []string         // as they were written
	values   []any            // of the enumeration
	literals []string
	bounds   []bound
	// Lengths and digits; -1 is none.
	length, minLength, maxLength, total, fraction int
}

type bound struct {
	facet   string
	value   any
	literal string
}

var facetNames = []string{
	"length", "minLength", "maxLength", "pattern", "enumeration", "whiteSpace",
	"minInclusive", "maxInclusive", "minExclusive", "maxExclusive", "totalDigits", "fractionDigits",
}

// simpleType reads an xs:simpleType (XML Schema part 2 §4.1.2).
func (c *compiler) simpleType(e *etree.Element) (*simple, error) {
	if err := c.enter(); err != nil {
		return nil, err
	}
	defer c.leave()
	if err := c.count(); err != nil {
		return nil, err
	}
	children := parts(e)
	if len(children) != 1 || xmldoc.NameOf(children[0]).Space != NS {
		return nil, invalid("an xs:simpleType must hold one xs:restriction, xs:list or xs:union")
	}
	in := children[0]
	switch in.Tag {
	case "restriction":
		var base *simple
		if name, ok := xmldoc.Attr(in, "", "base"); ok {
			var err error
			if base, err = builtinType(in, name); err != nil {
				return nil, err
			}
		} else if inner := parts(in); len(inner) == 0 || !xmldoc.Is(inner[0], NS, "simpleType") {
			return nil, invalid("an xs:restriction must have a base, or an xs:simpleType inside")
		}
		return c.restriction(in, base, false)
	case "list":
		item, err := c.referred(in, "itemType", 1)
		if err != nil {
			return nil, err
		}
		if item[0].item != nil || slices.ContainsFunc(item[0].members, func(m *simple) bool { return m.item != nil }) {
			return nil, invalid("a list of lists is not possible")
		}
		return &simple{item: item[0], space: collapse}, nil
	case "union":
		members, err := c.referred(in, "memberTypes", -1)
		if err != nil {
			return nil, err
		}
		return &simple{members: members, space: preserve}, nil
	}
	return nil, invalid("an xs:simpleType must hold one xs:restriction, xs:list or xs:union, not xs:%s", in.Tag)
}

// referred gives the types of an attribute and of the xs:simpleType children.
func (c *compiler) referred(e *etree.Element, attribute string, want int) ([]*simple, error) {
	var found []*simple
	names, _ := xmldoc.Attr(e, "", attribute)
	for name := range strings.FieldsSeq(names) {
		if err := c.count(); err != nil {
			return nil, err
		}
		s, err := builtinType(e, name)
		if err != nil {
			return nil, err
		}
		found = append(found, s)
	}
	for _, inner := range parts(e) {
		if !xmldoc.Is(inner, NS, "simpleType") {
			return nil, invalid("%s does not belong into xs:%s", inner.FullTag(), e.Tag)
		}
		s, err := c.simpleType(inner)
		if err != nil {
			return nil, err
		}
		found = append(found, s)
	}
	if len(found) == 0 || want > 0 && len(found) != want {
		return nil, invalid("an xs:%s must have its %s, or an xs:simpleType inside", e.Tag, attribute)
	}
	return found, nil
}

func builtinType(e *etree.Element, qname string) (*simple, error) {
	name, err := xmldoc.ResolveQName(e, qname)
	if err != nil {
		return nil, invalid("the type %s is not known: %v", qname, err)
	}
	if name.Space != NS {
		return nil, unsupported("the type %s is not supported: only the built-in types of XML Schema are", name)
	}
	if plural, ok := plurals[name.Local]; ok {
		f := facets{length: -1, minLength: 1, maxLength: -1, total: -1, fraction: -1}
		return &simple{item: &simple{atom: builtins[plural], space: collapse}, space: collapse, facets: []facets{f}}, nil
	}
	b, ok := builtins[name.Local]
	if !ok {
		return nil, unsupported("the type xs:%s is not supported", name.Local)
	}
	return &simple{atom: b, space: b.space}, nil
}

// restriction reads an optional xs:simpleType and facets. Where loose is set and no
// type is given, the facets choose it.
func (c *compiler) restriction(e *etree.Element, base *simple, loose bool) (*simple, error) {
	children := parts(e)
	if len(children) > 0 && xmldoc.Is(children[0], NS, "simpleType") {
		if base != nil {
			return nil, invalid("an xs:restriction has a base or an xs:simpleType inside, not both")
		}
		var err error
		if base, err = c.simpleType(children[0]); err != nil {
			return nil, err
		}
		children = children[1:]
	}
	for _, f := range children {
		if name := xmldoc.NameOf(f); name.Space != NS || !slices.Contains(facetNames, name.Local) {
			return nil, unsupported("%s is not a facet that is supported: these are %s", f.FullTag(), list(facetNames, "and"))
		}
	}
	if base == nil {
		if !loose {
			return nil, invalid("an xs:restriction must have a base, or an xs:simpleType inside")
		}
		var err error
		if base, err = inferred(children); err != nil {
			return nil, err
		}
	}
	if len(children) == 0 {
		return base, nil
	}
	s := *base
	s.facets = slices.Clone(base.facets)
	f := facets{length: -1, minLength: -1, maxLength: -1, total: -1, fraction: -1}
	seen := map[string]bool{}
	for _, child := range children {
		if err := c.count(); err != nil {
			return nil, err
		}
		value, ok := xmldoc.Attr(child, "", "value")
		if !ok {
			return nil, invalid("the facet xs:%s lacks its value", child.Tag)
		}
		if seen[child.Tag] && child.Tag != "pattern" && child.Tag != "enumeration" {
			return nil, invalid("the facet xs:%s stands there twice", child.Tag)
		}
		seen[child.Tag] = true
		if !s.takes(child.Tag) {
			return nil, invalid("the facet xs:%s does not apply to %s", child.Tag, s.name())
		}
		if err := s.facet(&f, child, value); err != nil {
			return nil, err
		}
	}
	for _, pair := range [][2]string{{"minInclusive", "minExclusive"}, {"maxInclusive", "maxExclusive"}, {"length", "minLength"}, {"length", "maxLength"}} {
		if seen[pair[0]] && seen[pair[1]] {
			return nil, invalid("the facets xs:%s and xs:%s exclude each other", pair[0], pair[1])
		}
	}
	if f.minLength >= 0 && f.maxLength >= 0 && f.minLength > f.maxLength {
		return nil, invalid("xs:minLength is more than xs:maxLength: nothing would fit")
	}
	if f.total >= 0 && f.fraction > f.total {
		return nil, invalid("xs:fractionDigits is more than xs:totalDigits")
	}
	for _, low := range f.bounds {
		for _, high := range f.bounds {
			if strings.HasPrefix(low.facet, "min") && strings.HasPrefix(high.facet, "max") {
				if order, ok := compare(low.value, high.value); ok && order > 0 {
					return nil, invalid("xs:%s is more than xs:%s: nothing would fit", low.facet, high.facet)
				}
			}
		}
	}
	s.facets = append(s.facets, f)
	return &s, nil
}

// inferred chooses the type of facets without one.
func inferred(children []*etree.Element) (*simple, error) {
	name := "token"
	var bounds []string
	for _, f := range children {
		value, _ := xmldoc.Attr(f, "", "value")
		switch f.Tag {
		case "minInclusive", "maxInclusive", "minExclusive", "maxExclusive":
			bounds = append(bounds, value)
		case "totalDigits", "fractionDigits":
			name = "decimal"
		case "whiteSpace":
			if value != "collapse" && name == "token" {
				name = "string"
			}
		}
	}
	if len(bounds) == 0 || name == "decimal" {
		b := builtins[name]
		return &simple{atom: b, space: b.space, untyped: name == "token"}, nil
	}
	for _, kind := range []string{"number", "dateTime", "date", "time", "duration", "gYear", "gYearMonth", "gMonth", "gMonthDay", "gDay"} {
		b := builtins[kind]
		if kind == "number" {
			b = number
		}
		if !slices.ContainsFunc(bounds, func(v string) bool { _, ok := b.parse(collapse.apply(v), nil); return !ok }) {
			return &simple{atom: b, space: collapse}, nil
		}
	}
	return nil, invalid("the bounds %s have no order that is known: numbers, dates, times and durations have, if all bounds are of one kind", strings.Join(bounds, ", "))
}

func (s *simple) takes(facet string) bool {
	switch facet {
	case "pattern":
		return true
	case "enumeration":
		return s.atom == nil || s.atom.kind != kindBoolean
	case "whiteSpace":
		return s.members == nil
	case "length", "minLength", "maxLength":
		return s.item != nil || s.atom != nil && s.atom.kind.measured()
	case "totalDigits", "fractionDigits":
		return s.atom != nil && s.atom.kind == kindDecimal
	}
	return s.atom != nil && s.atom.kind.ordered()
}

func (s *simple) facet(f *facets, e *etree.Element, value string) error {
	count := func(to *int, least int) error {
		n, err := strconv.ParseUint(strings.TrimPrefix(collapse.apply(value), "+"), 10, 31)
		if err != nil || int(n) < least {
			return invalid("xs:%s must be a whole number of at least %d, not %s", e.Tag, least, Quote(value))
		}
		*to = int(n)
		return nil
	}
	switch e.Tag {
	case "length":
		return count(&f.length, 0)
	case "minLength":
		return count(&f.minLength, 0)
	case "maxLength":
		return count(&f.maxLength, 0)
	case "totalDigits":
		return count(&f.total, 1)
	case "fractionDigits":
		if err := count(&f.fraction, 0); err != nil {
			return err
		}
		if s.atom.whole && f.fraction != 0 {
			return invalid("xs:fractionDigits of %s is 0", s.name())
		}
	case "whiteSpace":
		wanted := space(slices.Index(spaceNames, value))
		if wanted < 0 {
			return invalid("xs:whiteSpace is preserve, replace or collapse, not %s", Quote(value))
		}
		if wanted < s.space {
			return invalid("xs:whiteSpace of %s cannot be %s, as it is %s already", s.name(), value, spaceNames[s.space])
		}
		s.space = wanted
	case "pattern":
		re, err := translate(value)
		if err != nil {
			return err
		}
		f.patterns, f.forms = append(f.patterns, re), append(f.forms, value)
	case "enumeration":
		v, ok := s.value(value, e)
		if !ok {
			return invalid("the value %s of xs:enumeration is not %s", Quote(value), s.name())
		}
		f.values, f.literals = append(f.values, v), append(f.literals, Quote(value))
	default:
		v, ok := s.value(value, e)
		if !ok {
			return invalid("the value %s of xs:%s is not %s", Quote(value), e.Tag, s.name())
		}
		f.bounds = append(f.bounds, bound{e.Tag, v, collapse.apply(value)})
	}
	return nil
}

// value reads a literal into the value space; ok is whether it is in it, with the
// facets so far.
func (s *simple) value(literal string, scope *etree.Element) (any, bool) {
	return s.check(literal, scope)
}

// check gives the value of a text, and whether it is one of the type's.
func (s *simple) check(text string, scope *etree.Element) (any, bool) {
	literal := s.space.apply(text)
	var v any
	switch {
	case s.atom != nil:
		if len(literal) > maxLiteral && s.atom.kind != kindString {
			return nil, false
		}
		var ok bool
		if v, ok = s.atom.parse(literal, scope); !ok {
			return nil, false
		}
	case s.item != nil:
		var values []any
		for item := range strings.FieldsFuncSeq(literal, isWhite) {
			iv, ok := s.item.check(item, scope)
			if !ok {
				return nil, false
			}
			values = append(values, iv)
		}
		v = values
	default:
		at := slices.IndexFunc(s.members, func(m *simple) bool {
			var ok bool
			v, ok = m.check(text, scope)
			return ok
		})
		if at < 0 {
			return nil, false
		}
		literal = s.members[at].literal(text, scope)
	}
	for i := range s.facets {
		if !s.holds(&s.facets[i], v, literal) {
			return nil, false
		}
	}
	return v, true
}

// literal gives the text as the type sees it, its white space normalised.
func (s *simple) literal(text string, scope *etree.Element) string {
	for _, m := range s.members {
		if _, ok := m.check(text, scope); ok {
			return m.literal(text, scope)
		}
	}
	return s.space.apply(text)
}

func (s *simple) holds(f *facets, v any, literal string) bool {
	if len(f.patterns) > 0 && !slices.ContainsFunc(f.patterns, func(re *regexp.Regexp) bool { return re.MatchString(literal) }) {
		return false
	}
	if len(f.values) > 0 && !slices.ContainsFunc(f.values, func(o any) bool { return equal(o, v) || s.untyped && tantamount(o, v) }) {
		return false
	}
	for _, b := range f.bounds {
		order, ok := compare(v, b.value)
		if !ok {
			return false // the order is partial: what cannot be compared does not hold
		}
		switch b.facet {
		case "minInclusive":
			ok = order >= 0
		case "maxInclusive":
			ok = order <= 0
		case "minExclusive":
			ok = order > 0
		case "maxExclusive":
			ok = order < 0
		}
		if !ok {
			return false
		}
	}
	if f.length >= 0 || f.minLength >= 0 || f.maxLength >= 0 {
		n, counted := length(v)
		if counted && (f.length >= 0 && n != f.length || f.minLength >= 0 && n < f.minLength || f.maxLength >= 0 && n > f.maxLength) {
			return false
		}
	}
	if d, ok := v.(decimal); ok {
		if f.total >= 0 && d.digits() > f.total || f.fraction >= 0 && len(d.fraction) > f.fraction {
			return false
		}
	}
	return true
}

// tantamount reports whether two texts are the same number, or the same moment.
func tantamount(a, b any) bool {
	x, ok := a.(string)
	y, also := b.(string)
	if !ok || !also || len(x) > maxLiteral || len(y) > maxLiteral {
		return false
	}
	for _, t := range [...]*builtin{number, builtins["dateTime"]} {
		if v, ok := t.parse(x, nil); ok {
			w, ok := t.parse(y, nil)
			return ok && equal(v, w)
		}
	}
	return false
}

// length counts as XML Schema part 2 §4.3.1 has it; QNames are not counted.
func length(v any) (int, bool) {
	switch v := v.(type) {
	case string:
		return utf8.RuneCountInString(v), true
	case octets:
		return len(v), true
	case []any:
		return len(v), true
	}
	return 0, false
}

func (s *simple) name() string {
	switch {
	case s.atom != nil:
		return s.atom.what()
	case s.item != nil:
		return "a list whose items are " + s.item.name()
	}
	var names []string
	for _, m := range s.members {
		names = append(names, m.name())
	}
	return list(names, "or")
}

func (s *simple) describe() string {
	words := []string{s.name()}
	if s.item != nil && len(s.item.facets) > 0 {
		words[0] = "a list whose items are " + s.item.describe()
	}
	if s.members != nil {
		var each []string
		for _, m := range s.members {
			each = append(each, m.describe())
		}
		words[0] = list(each, "or")
	}
	for _, f := range s.facets {
		for _, b := range f.bounds {
			words = append(words, map[string]string{"minInclusive": "at least ", "maxInclusive": "at most ", "minExclusive": "more than ", "maxExclusive": "less than "}[b.facet]+b.literal)
		}
		if len(f.literals) > 0 {
			one := "one of "
			if len(f.literals) == 1 {
				one = ""
			}
			words = append(words, one+list(f.literals, "and"))
		}
		if len(f.forms) > 0 {
			words = append(words, "of the form "+list(f.forms, "or"))
		}
		unit := " characters"
		if s.item != nil {
			unit = " items"
		} else if s.atom != nil && (s.atom.kind == kindHex || s.atom.kind == kindBase64) {
			unit = " bytes"
		}
		for _, l := range []struct {
			n            int
			before, unit string
		}{
			{f.length, "exactly ", unit},
			{f.minLength, "at least ", unit},
			{f.maxLength, "at most ", unit},
			{f.total, "at most ", " digits"},
			{f.fraction, "at most ", " digits after the point"},
		} {
			if l.n >= 0 {
				words = append(words, l.before+strconv.Itoa(l.n)+l.unit)
			}
		}
	}
	return strings.Join(words, ", ")
}

// space is the facet whiteSpace; the larger normalises more.
type space int

const (
	preserve space = iota
	replace
	collapse
)

var spaceNames = []string{"preserve", "replace", "collapse"}

func isWhite(r rune) bool { return r == ' ' || r == '\t' || r == '\n' || r == '\r' }

func (w space) apply(s string) string {
	switch w {
	case replace:
		return strings.Map(func(r rune) rune {
			if isWhite(r) {
				return ' '
			}
			return r
		}, s)
	case collapse:
		return strings.Join(strings.FieldsFunc(s, isWhite), " ")
	case preserve:
	}
	return s
}
