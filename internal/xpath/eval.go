package xpath

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// value is what a part of an expression gave. Sets are in document order.
type value struct {
	t   Type
	b   bool
	n   float64
	s   string
	set []int32
}

func boolValue(b bool) value      { return value{t: Boolean, b: b} }
func numberValue(n float64) value { return value{t: Number, n: n} }
func textValue(s string) value    { return value{t: String, s: s} }

// expr is a part of an expression. Its type is known when compiling.
type expr interface {
	typ() Type
	eval(c focus) value
}

// focus is where an expression is evaluated (§1): the node, its position and the
// size of the set that it is of.
type focus struct {
	*evaluation
	node           int32
	position, size int
}

// evaluation is one run over one tree, with what is left of the budget. Spending
// more than that panics with exhausted, which recovered turns into the error: the
// evaluators stay free of an error that only the budget could cause.
type evaluation struct {
	tree  *Tree
	steps int
	names []xmldoc.Name
}

type exhausted struct{}

func newEvaluation(t *Tree, o Options) *evaluation {
	if o.Steps <= 0 {
		o.Steps = DefaultSteps
	}
	return &evaluation{tree: t, steps: o.Steps, names: o.RootNames}
}

func (ev *evaluation) start() focus { return focus{ev, 0, 1, 1} }

func (ev *evaluation) recovered(err *error) {
	switch r := recover().(type) {
	case nil:
	case exhausted:
		*err = fail.Errorf("xpath.Eval", fail.Exhausted, "", "the XPath expression takes too many steps on this document: name the path more closely, with fewer \"//\"")
	default:
		panic(r)
	}
}

func (ev *evaluation) spend(n int) {
	if ev.steps -= n; ev.steps < 0 {
		panic(exhausted{})
	}
}

// made is spent for text that an evaluation makes or compares.
func (ev *evaluation) made(s string) string {
	ev.spend(1 + len(s)/32)
	return s
}

func (ev *evaluation) textOf(i int32) string {
	n := &ev.tree.nodes[i]
	ev.spend(int(n.end - i))
	return ev.made(ev.tree.text(i))
}

// The conversions of §4.2, §4.3 and §4.4.

func (ev *evaluation) text(v value) string {
	switch v.t {
	case String:
		return v.s
	case Number:
		return numberText(v.n)
	case Boolean:
		return strconv.FormatBool(v.b)
	case NodeSet:
	}
	if len(v.set) == 0 {
		return ""
	}
	return ev.textOf(v.set[0])
}

func (ev *evaluation) number(v value) float64 {
	switch v.t {
	case Number:
		return v.n
	case Boolean:
		if v.b {
			return 1
		}
		return 0
	case String, NodeSet:
	}
	return parseNumber(ev.text(v))
}

func (ev *evaluation) boolean(v value) bool {
	switch v.t {
	case Boolean:
		return v.b
	case Number:
		return v.n != 0 && !math.IsNaN(v.n)
	case String:
		return v.s != ""
	case NodeSet:
	}
	return len(v.set) > 0
}

func numberText(n float64) string {
	switch {
	case math.IsNaN(n):
		return "NaN"
	case math.IsInf(n, 1):
		return "Infinity"
	case math.IsInf(n, -1):
		return "-Infinity"
	case n == 0:
		return "0"
	}
	return strconv.FormatFloat(n, 'f', -1, 64)
}

// parseNumber is number() of a string (§4.4). As in libxml2, and unlike the letter
// of the Recommendation, an exponent may follow: JSDL's numbers are doubles.
func parseNumber(s string) float64 {
	s = strings.Trim(s, white)
	i := 0
	if strings.HasPrefix(s, "-") {
		i = 1
	}
	whole := digits(s[i:])
	i += whole
	if i < len(s) && s[i] == '.' {
		fraction := digits(s[i+1:])
		whole += fraction
		i += 1 + fraction
	}
	if whole == 0 {
		return math.NaN()
	}
	if i < len(s) && (s[i] == 'e' || s[i] == 'E') {
		i++
		if i < len(s) && (s[i] == '-' || s[i] == '+') {
			i++
		}
		n := digits(s[i:])
		if n == 0 {
			return math.NaN()
		}
		i += n
	}
	if i != len(s) {
		return math.NaN()
	}
	// A range error gives an infinity, which is what is meant.
	n, _ := strconv.ParseFloat(s, 64)
	return n
}

type constant struct {
	t Type
	n float64
	s string
}

func (e constant) typ() Type        { return e.t }
func (e constant) eval(focus) value { return value{t: e.t, n: e.n, s: e.s} }

type logical struct {
	or          bool
	left, right expr
}

func (e *logical) typ() Type { return Boolean }

func (e *logical) eval(c focus) value {
	c.spend(1)
	if left := c.boolean(e.left.eval(c)); left == e.or {
		return boolValue(left)
	}
	return boolValue(c.boolean(e.right.eval(c)))
}

type negation struct{ of expr }

func (e *negation) typ() Type          { return Number }
func (e *negation) eval(c focus) value { return numberValue(-c.number(e.of.eval(c))) }

type arithmetic struct {
	op          string
	left, right expr
}

func (e *arithmetic) typ() Type { return Number }

func (e *arithmetic) eval(c focus) value {
	c.spend(1)
	l, r := c.number(e.left.eval(c)), c.number(e.right.eval(c))
	switch e.op {
	case "+":
		l += r
	case "-":
		l -= r
	case "*":
		l *= r
	case "div":
		l /= r
	case "mod":
		l = math.Mod(l, r)
	}
	return numberValue(l)
}

type comparison struct {
	op          string
	left, right expr
}

func (e *comparison) typ() Type { return Boolean }

// eval is §3.4: with a node set, whether any of its nodes compares so.
func (e *comparison) eval(c focus) value {
	c.spend(1)
	l, r := e.left.eval(c), e.right.eval(c)
	if l.t != NodeSet && r.t != NodeSet {
		return boolValue(c.compare(e.op, l, r))
	}
	// A boolean takes the whole set.
	if l.t == Boolean || r.t == Boolean {
		return boolValue(c.compare(e.op, boolValue(c.boolean(l)), boolValue(c.boolean(r))))
	}
	ls, rs := c.members(l), c.members(r)
	for _, lv := range ls {
		for _, rv := range rs {
			c.spend(1)
			if c.compare(e.op, lv, rv) {
				return boolValue(true)
			}
		}
	}
	return boolValue(false)
}

func (ev *evaluation) members(v value) []value {
	if v.t != NodeSet {
		return []value{v}
	}
	vs := make([]value, len(v.set))
	for i, n := range v.set {
		vs[i] = textValue(ev.textOf(n))
	}
	return vs
}

func (ev *evaluation) compare(op string, l, r value) bool {
	if op == "=" || op == "!=" {
		var same bool
		switch {
		case l.t == Boolean || r.t == Boolean:
			same = ev.boolean(l) == ev.boolean(r)
		case l.t == Number || r.t == Number:
			same = ev.number(l) == ev.number(r)
		default:
			ev.spend(min(len(l.s), len(r.s)) / 32)
			same = l.s == r.s
		}
		return same == (op == "=")
	}
	a, b := ev.number(l), ev.number(r)
	switch op {
	case "<":
		return a < b
	case "<=":
		return a <= b
	case ">":
		return a > b
	}
	return a >= b
}

type union struct{ left, right expr }

func (e *union) typ() Type { return NodeSet }

func (e *union) eval(c focus) value {
	set := slices.Concat(e.left.eval(c).set, e.right.eval(c).set)
	return value{set: c.ordered(set)}
}

// ordered puts a set into document order, each node once.
func (ev *evaluation) ordered(set []int32) []int32 {
	ev.spend(len(set))
	if !slices.IsSorted(set) {
		slices.Sort(set)
	}
	return slices.Compact(set)
}

type axis uint8

const (
	axisChild axis = iota
	axisDescendant
	axisDescendantOrSelf
	axisAttribute
	axisSelf
	axisParent
	axisAncestor
	axisAncestorOrSelf
	axisFollowingSibling
	axisPrecedingSibling
)

var axes = map[string]axis{
	"child": axisChild, "descendant": axisDescendant, "descendant-or-self": axisDescendantOrSelf, "attribute": axisAttribute,
	"self": axisSelf, "parent": axisParent, "ancestor": axisAncestor, "ancestor-or-self": axisAncestorOrSelf,
	"following-sibling": axisFollowingSibling, "preceding-sibling": axisPrecedingSibling,
}

type testKind uint8

const (
	testName        testKind = iota // of the axis' principal kind, of this name
	testAny                         // of the principal kind
	testSpace                       // of the principal kind, in this namespace
	testNode                        // any
	testText                        //
	testComment                     //
	testInstruction                 // of this target, if there is one
)

type test struct {
	kind testKind
	name xmldoc.Name
}

type step struct {
	axis       axis
	test       test
	predicates []expr
}

// path is a location path, or a node set with predicates and steps after it.
type path struct {
	absolute bool
	from     expr // nil is the context node, or the document when absolute
	filter   []expr
	steps    []step
}

func (e *path) typ() Type { return NodeSet }

func (e *path) eval(c focus) value {
	var set []int32
	switch {
	case e.from != nil:
		set = e.from.eval(c).set
		for _, p := range e.filter {
			set = c.filter(set, p)
		}
	case e.absolute:
		set = []int32{0}
	default:
		set = []int32{c.node}
	}
	for i := range e.steps {
		c.spend(1)
		s := &e.steps[i]
		var out []int32
		for _, n := range set {
			// In the order of the axis, by which positions count (§2.4).
			found := c.walk(s, n)
			for _, p := range s.predicates {
				found = c.filter(found, p)
			}
			out = append(out, found...)
		}
		set = c.ordered(out)
	}
	return value{set: set}
}

// filter keeps the nodes for which the predicate holds.
func (ev *evaluation) filter(set []int32, p expr) []int32 {
	kept := make([]int32, 0, len(set))
	for i, n := range set {
		ev.spend(1)
		v := p.eval(focus{ev, n, i + 1, len(set)})
		if v.t == Number {
			if v.n == float64(i+1) {
				kept = append(kept, n)
			}
		} else if ev.boolean(v) {
			kept = append(kept, n)
		}
	}
	return kept
}

// walk gives the nodes of a step from a node, nearest first.
func (ev *evaluation) walk(s *step, from int32) []int32 {
	nodes := ev.tree.nodes
	var found []int32
	see := func(i int32) {
		ev.spend(1)
		if ev.matches(s, i) {
			found = append(found, i)
		}
	}
	n := &nodes[from]
	descendants := func(i int32) {
		for j := nodes[i].first; j < nodes[i].end; j++ {
			if nodes[j].kind == Attribute {
				ev.spend(1)
				continue
			}
			see(j)
		}
	}
	switch s.axis {
	case axisChild:
		for c := n.first; c < n.end; c = nodes[c].end {
			see(c)
		}
	case axisDescendantOrSelf:
		see(from)
		descendants(from)
	case axisDescendant:
		descendants(from)
	case axisAttribute:
		if n.kind == Element {
			for c := from + 1; c < n.first; c++ {
				see(c)
			}
		}
	case axisSelf:
		see(from)
	case axisParent:
		if n.parent >= 0 {
			see(n.parent)
		}
	case axisAncestorOrSelf, axisAncestor:
		if s.axis == axisAncestorOrSelf {
			see(from)
		}
		for p := n.parent; p >= 0; p = nodes[p].parent {
			see(p)
		}
	case axisFollowingSibling:
		if n.kind != Attribute && n.parent >= 0 {
			for c := n.end; c < nodes[n.parent].end; c = nodes[c].end {
				see(c)
			}
		}
	case axisPrecedingSibling:
		if n.kind != Attribute && n.parent >= 0 {
			var before []int32
			for c := nodes[n.parent].first; c < from; c = nodes[c].end {
				ev.spend(1)
				before = append(before, c)
			}
			for _, c := range slices.Backward(before) {
				see(c)
			}
		}
	}
	return found
}

func (ev *evaluation) matches(s *step, i int32) bool {
	n := &ev.tree.nodes[i]
	principal := Element
	if s.axis == axisAttribute {
		principal = Attribute
	}
	switch s.test.kind {
	case testNode:
		return true
	case testText:
		return n.kind == Text
	case testComment:
		return n.kind == Comment
	case testInstruction:
		return n.kind == Instruction && (s.test.name.Local == "" || s.test.name.Local == n.name.Local)
	case testAny:
		return n.kind == principal
	case testSpace:
		if n.kind != principal {
			return false
		}
		if n.name.Space == s.test.name.Space {
			return true
		}
		return i == 1 && slices.ContainsFunc(ev.names, func(o xmldoc.Name) bool { return o.Space == s.test.name.Space })
	case testName:
		return n.kind == principal && (n.name == s.test.name || i == 1 && slices.Contains(ev.names, s.test.name))
	}
	return false
}
