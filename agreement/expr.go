package agreement

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// The expression language of ours, in NSPortolan, for what the standard leaves open:
// wsag:QualifyingCondition, wsag:CustomServiceLevel (conditions) and
// wsag:ValueExpression (numbers). expr.xsd says its grammar to other programs; a test
// holds the two together.

// The bounds of an expression.
const (
	maxExpressionElements = 256
	maxExpressionDepth    = 16
	maxOperands           = 64
	maxExpressionText     = 1024 // characters of one value
	maxVariableName       = 255  // characters
)

// Environment is what an expression may speak of.
type Environment struct {
	Variables map[string]Declared
	// Target is the variable that atMost and atLeast are about: the KPI. "" is none, and
	// the short forms are refused.
	Target string
}

// Declared says what a variable is.
type Declared struct {
	Type  Type
	Words string // what a person calls it: "the wait in the queue"; "" is its name
}

// Expression is one that was checked: of a known type, within the bounds, with
// variables that exist. It doesn't change.
type Expression struct {
	form     string // the element's local name, a key of forms
	typ      Type
	operands []*Expression
	value    Value  // of Value, atMost, atLeast
	name     string // the variable of Variable, atMost, atLeast
	words    string // for it
}

// form is an element of the language.
type form struct {
	least, most int // operands
	// result gives the type for those of the operands; "" refuses them.
	result  func([]Type) Type
	compare func(a, b Value) Value
	compute func(a, b Value) Value
	words   map[Type]string // between two operands, by the type of the first; "" is for others
	want    string          // what operands it takes, for a refusal
}

func alike(ts []Type, ok func(Type) bool) bool {
	return ok(ts[0]) && !slices.ContainsFunc(ts, func(t Type) bool { return t != ts[0] })
}

func comparesOrdered(ts []Type) Type {
	if alike(ts, Type.ordered) {
		return Boolean
	}
	return ""
}

func comparesAny(ts []Type) Type {
	if alike(ts, func(Type) bool { return true }) {
		return Boolean
	}
	return ""
}

func connects(ts []Type) Type {
	if alike(ts, func(t Type) bool { return t == Boolean }) {
		return Boolean
	}
	return ""
}

func picks(ts []Type) Type {
	if alike(ts, Type.ordered) {
		return ts[0]
	}
	return ""
}

func sums(ts []Type) Type {
	out := ts[0]
	for _, t := range ts[1:] {
		switch {
		case out == t && (t == Number || t == Duration):
		case out == DateTime && t == Duration, out == Duration && t == DateTime:
			out = DateTime
		default:
			return ""
		}
	}
	return out
}

func differs(ts []Type) Type {
	switch a, b := ts[0], ts[1]; {
	case a == b && (a == Number || a == Duration):
		return a
	case a == DateTime && b == DateTime:
		return Duration
	case a == DateTime && b == Duration:
		return DateTime
	}
	return ""
}

func products(ts []Type) Type {
	out := ts[0]
	for _, t := range ts[1:] {
		switch {
		case out == Number && (t == Number || t == Duration):
			out = t
		case out == Duration && t == Number:
		default:
			return ""
		}
	}
	if out == Number || out == Duration {
		return out
	}
	return ""
}

func quotients(ts []Type) Type {
	switch a, b := ts[0], ts[1]; {
	case a == b && (a == Number || a == Duration):
		return Number
	case a == Duration && b == Number:
		return Duration
	}
	return ""
}

const (
	wantOrdered = "two numbers, two durations or two dateTimes"
	wantAny     = "two operands of one type"
	wantTruths  = "conditions"
)

var forms = map[string]form{
	"Less": {
		2, 2, comparesOrdered, compareLess, nil,
		map[Type]string{Duration: " is less than ", DateTime: " is before ", "": " is less than "},
		wantOrdered,
	},
	"LessOrEqual": {
		2, 2, comparesOrdered, compareLessOrEqual, nil,
		map[Type]string{DateTime: " is no later than ", "": " is at most "},
		wantOrdered,
	},
	"Equal":    {2, 2, comparesAny, compareEqual, nil, map[Type]string{"": " is "}, wantAny},
	"NotEqual": {2, 2, comparesAny, compareNotEqual, nil, map[Type]string{"": " is not "}, wantAny},
	"Greater": {
		2, 2, comparesOrdered, compareGreater, nil,
		map[Type]string{DateTime: " is after ", "": " is more than "},
		wantOrdered,
	},
	"GreaterOrEqual": {
		2, 2, comparesOrdered, compareGreaterOrEqual, nil,
		map[Type]string{DateTime: " is no earlier than ", "": " is at least "},
		wantOrdered,
	},
	"And":      {1, maxOperands, connects, nil, nil, map[Type]string{"": " and "}, wantTruths},
	"Or":       {1, maxOperands, connects, nil, nil, map[Type]string{"": " or "}, wantTruths},
	"Not":      {1, 1, connects, nil, nil, nil, wantTruths},
	"Add":      {2, maxOperands, sums, nil, add, map[Type]string{"": " plus "}, "numbers, durations, or one dateTime and durations"},
	"Subtract": {2, 2, differs, nil, subtract, map[Type]string{"": " minus "}, "two numbers, two durations, two dateTimes, or a dateTime and a duration"},
	"Multiply": {2, maxOperands, products, nil, multiply, map[Type]string{"": " times "}, "numbers, at most one of them a duration"},
	"Divide":   {2, 2, quotients, nil, divide, map[Type]string{"": " divided by "}, "two numbers, two durations, or a duration and a number"},
	"Min":      {1, maxOperands, picks, nil, minimum, nil, "numbers, durations or dateTimes, all of one type"},
	"Max":      {1, maxOperands, picks, nil, maximum, nil, "numbers, durations or dateTimes, all of one type"},
	"Variable": {},
	"Value":    {},
	"atMost": {
		compare: compareLessOrEqual,
		words:   map[Type]string{DateTime: " is no later than ", "": " is at most "},
	},
	"atLeast": {
		compare: compareGreaterOrEqual,
		words:   map[Type]string{DateTime: " is no earlier than ", "": " is at least "},
	},
}

// ParseCondition reads the condition in a wsag:QualifyingCondition or
// wsag:CustomServiceLevel: its one child element. fail.Unsupported is another language,
// by its name; fail.Invalid says what is wrong with one of ours.
func ParseCondition(holder *etree.Element, env Environment) (*Expression, error) {
	x, err := parseHeld(holder, env, Boolean)
	if err == nil && x.typ != Boolean {
		err = refuse(holder, "is a %s where a condition must stand: compare it with something", x.typ)
	}
	return x, err
}

// ParseAmount reads the number in a wsag:ValueExpression: one child element of ours, or
// a plain decimal number. Errors are those of ParseCondition.
func ParseAmount(holder *etree.Element, env Environment) (*Expression, error) {
	x, err := parseHeld(holder, env, Number)
	if err == nil && x.typ != Number {
		err = refuse(holder, "is a %s where a number must stand", x.typ)
	}
	return x, err
}

func refuse(e *etree.Element, format string, args ...any) error {
	return fail.Errorf("agreement.ParseExpression", fail.Invalid, e.Tag, "in the expression, "+e.Tag+" "+format, args...)
}

func parseHeld(holder *etree.Element, env Environment, want Type) (*Expression, error) {
	children := holder.ChildElements()
	text := strings.TrimSpace(xmldoc.Text(holder))
	switch {
	case len(children) == 0 && text != "" && want == Number:
		v, err := parseValue(Number, xmldoc.Collapse(text))
		if err != nil {
			return nil, fail.E("agreement.ParseExpression", fail.KindOf(err), holder.Tag, err)
		}
		return &Expression{form: "Value", typ: Number, value: v}, nil
	case len(children) == 0 && text != "":
		return nil, fail.Errorf("agreement.ParseExpression", fail.Unsupported, holder.Tag,
			"the expression in %s is text, a language that is not evaluated here: write it as an element of %s", holder.Tag, NSPortolan)
	case text != "":
		return nil, refuse(holder, "has text beside its element: take out %s", excerpt(text))
	case len(children) != 1:
		return nil, refuse(holder, "must be one element, and there are %d", len(children))
	}
	if n := xmldoc.NameOf(children[0]); n.Space != NSPortolan {
		return nil, fail.Errorf("agreement.ParseExpression", fail.Unsupported, holder.Tag,
			"the expression language of %.200s in %s is not evaluated here: write it with the elements of %s", n.String(), holder.Tag, NSPortolan)
	}
	p := &exprParser{env: env}
	return p.parse(children[0], 1)
}

// excerpt quotes the beginning of a text.
func excerpt(s string) string {
	if utf8.RuneCountInString(s) > 40 {
		s = string([]rune(s)[:40]) + "…"
	}
	return strconv.Quote(s)
}

type exprParser struct {
	env      Environment
	elements int
}

func (p *exprParser) parse(e *etree.Element, depth int) (*Expression, error) {
	if p.elements++; p.elements > maxExpressionElements {
		return nil, refuse(e, "has more than %d elements: make it smaller", maxExpressionElements)
	}
	if depth > maxExpressionDepth {
		return nil, refuse(e, "is nested more than %d deep: make it flatter", maxExpressionDepth)
	}
	f, known := forms[e.Tag]
	if n := xmldoc.NameOf(e); n.Space != NSPortolan || !known {
		return nil, refuse(e, "is none of its elements; there are %s", strings.Join(slices.Sorted(maps.Keys(forms)), ", "))
	}
	attributes := map[string]string{}
	for _, a := range e.Attr {
		switch {
		case a.Space == "xmlns" || a.Space == "" && a.Key == "xmlns":
		case a.Space == "" && (a.Key == "name" && e.Tag == "Variable" || a.Key == "type" && e.Tag == "Value"):
			attributes[a.Key] = xmldoc.Collapse(a.Value)
		default:
			return nil, refuse(e, "has the attribute %s, which it does not take", excerpt(a.FullKey()))
		}
	}
	switch e.Tag {
	case "Value", "atMost", "atLeast":
		return p.literal(e, attributes["type"])
	}
	if text := strings.TrimSpace(xmldoc.Text(e)); text != "" {
		return nil, refuse(e, "has the text %s: put it into a Value", excerpt(text))
	}
	x := &Expression{form: e.Tag}
	children := e.ChildElements()
	if e.Tag == "Variable" {
		if len(children) > 0 {
			return nil, refuse(e, "takes no operands")
		}
		name, ok := attributes["name"]
		if !ok || name == "" || utf8.RuneCountInString(name) > maxVariableName {
			return nil, refuse(e, "needs the attribute name, of 1 to %d characters", maxVariableName)
		}
		return x.about(e, p.env, name)
	}
	if n := len(children); n < f.least || n > f.most {
		return nil, refuse(e, "has %d operands, and takes %s", n, howMany(f))
	}
	types := make([]Type, len(children))
	for i, c := range children {
		o, err := p.parse(c, depth+1)
		if err != nil {
			return nil, err
		}
		x.operands, types[i] = append(x.operands, o), o.typ
	}
	if x.typ = f.result(types); x.typ == "" {
		return nil, refuse(e, "takes %s, and has %s", f.want, typeNames(types))
	}
	return x, nil
}

func howMany(f form) string {
	if f.least == f.most {
		return strconv.Itoa(f.least)
	}
	return strconv.Itoa(f.least) + " to " + strconv.Itoa(f.most)
}

func typeNames(ts []Type) string {
	var names []string
	for _, t := range ts {
		if len(names) == 4 {
			names = append(names, "…")
			break
		}
		names = append(names, string(t))
	}
	return strings.Join(names, ", ")
}

// about makes x speak of a variable.
func (x *Expression) about(e *etree.Element, env Environment, name string) (*Expression, error) {
	d, ok := env.Variables[name]
	if !ok {
		return nil, refuse(e, "names the variable %s, which does not exist; there are %s", excerpt(name), strings.Join(slices.Sorted(maps.Keys(env.Variables)), ", "))
	}
	x.name, x.words = name, d.Words
	if x.words == "" {
		x.words = name
	}
	if x.form == "Variable" {
		x.typ = d.Type
	} else {
		x.typ = Boolean
	}
	return x, nil
}

// literal reads what has a value as its text.
func (p *exprParser) literal(e *etree.Element, written string) (*Expression, error) {
	if len(e.ChildElements()) > 0 {
		return nil, refuse(e, "takes a text, and has elements")
	}
	t := Type(written)
	x := &Expression{form: e.Tag}
	if e.Tag != "Value" {
		if p.env.Target == "" {
			return nil, refuse(e, "is about a KPI, and stands where there is none: compare a Variable instead")
		}
		var err error
		if x, err = x.about(e, p.env, p.env.Target); err != nil {
			return nil, err
		}
		if t = p.env.Variables[p.env.Target].Type; !t.ordered() {
			return nil, refuse(e, "needs a KPI with an order, and %s is a %s: use Equal", p.env.Target, t)
		}
	} else if t == "" {
		t = Number
	}
	text := xmldoc.Text(e)
	switch t {
	case Number, Duration, DateTime, Boolean:
		text = xmldoc.Collapse(text)
	case String:
	default:
		return nil, refuse(e, "has the type %s; there are number, duration, dateTime, string and boolean", excerpt(written))
	}
	if utf8.RuneCountInString(text) > maxExpressionText {
		return nil, refuse(e, "has a value of more than %d characters", maxExpressionText)
	}
	v, err := parseValue(t, text)
	if err != nil {
		return nil, fail.E("agreement.ParseExpression", fail.KindOf(err), e.Tag, err)
	}
	if x.value = v; e.Tag == "Value" {
		x.typ = t
	}
	return x, nil
}

// Type is what the expression gives.
func (e *Expression) Type() Type { return e.typ }

// variableType is the type of the variable that it speaks of.
func (e *Expression) variableType() Type {
	if e.form == "Variable" {
		return e.typ
	}
	return e.value.Type
}

// Variables gives the names that it speaks of, sorted, each once.
func (e *Expression) Variables() []string {
	var names []string
	var walk func(*Expression)
	walk = func(x *Expression) {
		if x.name != "" {
			names = append(names, x.name)
		}
		for _, o := range x.operands {
			walk(o)
		}
	}
	walk(e)
	slices.Sort(names)
	return slices.Compact(names)
}

// Element gives the expression as an element that is read the same, with its
// namespace declared.
func (e *Expression) Element() *etree.Element {
	x := e.element()
	x.CreateAttr("xmlns:portolan", NSPortolan)
	return x
}

func (e *Expression) element() *etree.Element {
	x := etree.NewElement("portolan:" + e.form)
	switch e.form {
	case "Variable":
		x.CreateAttr("name", e.name)
	case "Value":
		x.CreateAttr("type", string(e.typ))
		x.SetText(e.value.lexical())
	case "atMost", "atLeast":
		x.SetText(e.value.lexical())
	}
	for _, o := range e.operands {
		x.AddChild(o.element())
	}
	return x
}

// String gives the expression in plain words: "the wait in the queue is at most 10 minutes".
func (e *Expression) String() string { return e.render(false) }

// render puts brackets around what stands inside of another expression and has a word
// between its operands.
func (e *Expression) render(inside bool) string {
	f := forms[e.form]
	between := func(t Type) string {
		if w, ok := f.words[t]; ok {
			return w
		}
		return f.words[""]
	}
	switch e.form {
	case "Value":
		return e.value.String()
	case "Variable":
		return e.words
	case "atMost", "atLeast":
		return e.words + between(e.value.Type) + e.value.String()
	case "Not":
		return "it is not so that " + e.operands[0].render(true)
	case "Min", "Max":
		if len(e.operands) == 1 {
			return e.operands[0].render(inside)
		}
	}
	var parts []string
	for _, o := range e.operands {
		parts = append(parts, o.render(len(e.operands) > 1))
	}
	var s string
	switch e.form {
	case "Min":
		return "the smallest of (" + strings.Join(parts, ", ") + ")"
	case "Max":
		return "the largest of (" + strings.Join(parts, ", ") + ")"
	default:
		s = strings.Join(parts, between(e.operands[0].typ))
	}
	if inside && len(e.operands) > 1 && f.compare == nil {
		return "(" + s + ")"
	}
	return s
}
