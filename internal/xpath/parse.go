package xpath

import (
	"strconv"
	"strings"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

type parser struct {
	source string
	scope  map[string]string
	own    map[string]string // of the prologue
	toks   []token
	i      int
	depth  int
	nodes  int
}

func (p *parser) parse() (expr, *problem) {
	start, err := p.prologue()
	if err != nil {
		return nil, err
	}
	if p.toks, err = lex(p.source, start); err != nil {
		return nil, err
	}
	e, err := p.binary(0)
	if err != nil {
		return nil, err
	}
	if t := p.peek(); t.kind != tokEnd {
		return nil, p.unexpected()
	}
	return e, nil
}

// prologue reads "declare namespace p = 'u';" as often as it stands there, as XQuery
// has it, and gives where the expression begins.
func (p *parser) prologue() (int, *problem) {
	s, i := p.source, 0
	for {
		i += spaces(s[i:])
		at := i
		if !strings.HasPrefix(s[i:], "declare") || spaces(s[i+len("declare"):]) == 0 {
			return i, nil
		}
		after := i + len("declare")
		after += spaces(s[after:])
		n := nameLen(s[after:])
		if n == 0 {
			return i, nil // an element of that name
		}
		switch s[after : after+n] {
		case "and", "or", "div", "mod":
			return i, nil
		case "namespace":
		default:
			return 0, unsupported(at, "the declaration \"declare %s\" is not supported: only \"declare namespace p='u';\" is", s[after:after+n])
		}
		i = after + n
		i += spaces(s[i:])
		n = nameLen(s[i:])
		prefix := s[i : i+n]
		i += n
		i += spaces(s[i:])
		if n == 0 || i >= len(s) || s[i] != '=' {
			return 0, invalid(i, "a declaration is written \"declare namespace p='u';\"")
		}
		i++
		i += spaces(s[i:])
		if i >= len(s) || s[i] != '"' && s[i] != '\'' {
			return 0, invalid(i, "the namespace of the prefix %s must stand between quotes", prefix)
		}
		end := strings.IndexByte(s[i+1:], s[i])
		if end < 0 {
			return 0, invalid(i, "the namespace that begins here is not closed")
		}
		uri := s[i+1 : i+1+end]
		i += end + 2
		i += spaces(s[i:])
		if i >= len(s) || s[i] != ';' {
			return 0, invalid(i, "a \";\" must end the declaration of the prefix %s", prefix)
		}
		i++
		if _, twice := p.own[prefix]; twice {
			return 0, invalid(at, "the prefix %s is declared twice", prefix)
		}
		if p.own == nil {
			p.own = map[string]string{}
		}
		p.own[prefix] = uri
	}
}

func (p *parser) peek() token { return p.toks[p.i] }

func (p *parser) symbol(s string) bool {
	if t := p.peek(); t.kind == tokSymbol && t.text == s {
		p.i++
		return true
	}
	return false
}

func (p *parser) expect(s string) *problem {
	if !p.symbol(s) {
		if p.peek().kind == tokEnd {
			return invalid(p.peek().at, "the expression ends where %q is wanted", s)
		}
		return invalid(p.peek().at, "%q stands where %q is wanted", p.peek().text, s)
	}
	return nil
}

func (p *parser) unexpected() *problem {
	t := p.peek()
	if t.kind == tokEnd {
		return invalid(t.at, "the expression ends too early")
	}
	return invalid(t.at, "%q does not belong here", t.text)
}

// enter counts a part of the expression that nests; leave undoes the depth.
func (p *parser) enter() *problem {
	p.depth++
	if p.depth > MaxDepth {
		return unsupported(p.peek().at, "the expression is nested deeper than %d", MaxDepth)
	}
	return nil
}

func (p *parser) leave() { p.depth-- }

func (p *parser) count() *problem {
	if p.nodes++; p.nodes > maxNodes {
		return unsupported(p.peek().at, "the expression has more than %d parts", maxNodes)
	}
	return nil
}

// levels are the binary operators, the loosest first (§3.9).
var levels = [][]string{
	{"or"}, {"and"}, {"=", "!="}, {"<", "<=", ">", ">="}, {"+", "-"}, {"*", "div", "mod"},
}

func (p *parser) binary(level int) (expr, *problem) {
	if level == len(levels) {
		return p.unary()
	}
	left, err := p.binary(level + 1)
	if err != nil {
		return nil, err
	}
next:
	for {
		for _, op := range levels[level] {
			if !p.symbol(op) {
				continue
			}
			if err := p.count(); err != nil {
				return nil, err
			}
			right, err := p.binary(level + 1)
			if err != nil {
				return nil, err
			}
			left = makeBinary(op, left, right)
			continue next
		}
		return left, nil
	}
}

func makeBinary(op string, left, right expr) expr {
	switch op {
	case "or", "and":
		return &logical{op == "or", left, right}
	case "=", "!=", "<", "<=", ">", ">=":
		return &comparison{op, left, right}
	}
	return &arithmetic{op, left, right}
}

func (p *parser) unary() (expr, *problem) {
	if p.symbol("-") {
		if err := p.enter(); err != nil {
			return nil, err
		}
		defer p.leave()
		e, err := p.unary()
		if err != nil {
			return nil, err
		}
		return &negation{e}, nil
	}
	return p.union()
}

func (p *parser) union() (expr, *problem) {
	at := p.peek().at
	left, err := p.path()
	if err != nil {
		return nil, err
	}
	for p.symbol("|") {
		if err := p.count(); err != nil {
			return nil, err
		}
		rightAt := p.peek().at
		right, err := p.path()
		if err != nil {
			return nil, err
		}
		if left.typ() != NodeSet {
			return nil, invalid(at, "\"|\" joins node sets, and this is %s", left.typ())
		}
		if right.typ() != NodeSet {
			return nil, invalid(rightAt, "\"|\" joins node sets, and this is %s", right.typ())
		}
		left = &union{left, right}
	}
	return left, nil
}

// path is PathExpr (§3.3): a location path, or a primary expression with predicates
// and steps.
func (p *parser) path() (expr, *problem) {
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	if err := p.count(); err != nil {
		return nil, err
	}
	t := p.peek()
	out := &path{}
	primary := false
	switch t.kind {
	case tokVariable, tokLiteral, tokNumber, tokFunction:
		primary = true
	case tokSymbol:
		primary = t.text == "("
	case tokEnd, tokName, tokNodeType, tokAxis:
	}
	switch {
	case primary:
		e, err := p.primary()
		if err != nil {
			return nil, err
		}
		preds, err := p.predicates()
		if err != nil {
			return nil, err
		}
		next := p.peek()
		goesOn := next.kind == tokSymbol && (next.text == "/" || next.text == "//")
		if len(preds) == 0 && !goesOn {
			return e, nil
		}
		if e.typ() != NodeSet {
			return nil, invalid(next.at, "only node sets have predicates and steps, and this is %s", e.typ())
		}
		out.from, out.filter = e, preds
		if !goesOn {
			return out, nil
		}
	case t.kind == tokSymbol && (t.text == "/" || t.text == "//"):
		out.absolute = true
		if t.text == "/" && !p.stepFollows(p.i+1) {
			p.i++
			return out, nil
		}
	default:
		if err := p.step(out); err != nil {
			return nil, err
		}
	}
	for {
		switch {
		case p.symbol("//"):
			out.steps = append(out.steps, step{axis: axisDescendantOrSelf, test: test{kind: testNode}})
		case p.symbol("/"):
		default:
			return out, nil
		}
		if err := p.step(out); err != nil {
			return nil, err
		}
	}
}

func (p *parser) stepFollows(i int) bool {
	switch t := p.toks[i]; t.kind {
	case tokName, tokNodeType, tokAxis:
		return true
	case tokSymbol:
		return t.text == "." || t.text == ".." || t.text == "@"
	case tokEnd, tokFunction, tokLiteral, tokNumber, tokVariable:
	}
	return false
}

func (p *parser) step(out *path) *problem {
	if err := p.count(); err != nil {
		return err
	}
	if p.symbol(".") {
		out.steps = append(out.steps, step{axis: axisSelf, test: test{kind: testNode}})
		return nil
	}
	if p.symbol("..") {
		out.steps = append(out.steps, step{axis: axisParent, test: test{kind: testNode}})
		return nil
	}
	s := step{axis: axisChild}
	if p.symbol("@") {
		s.axis = axisAttribute
	} else if t := p.peek(); t.kind == tokAxis {
		a, ok := axes[t.local]
		if !ok {
			switch t.local {
			case "namespace", "following", "preceding":
				return unsupported(t.at, "the axis %s:: is not supported", t.local)
			}
			return invalid(t.at, "there is no axis %s::", t.local)
		}
		s.axis = a
		p.i++
		if err := p.expect("::"); err != nil {
			return err
		}
	}
	switch t := p.peek(); t.kind {
	case tokName:
		p.i++
		s.test.kind, s.test.name.Local = testName, t.local
		if t.local == "*" {
			s.test.kind = testAny
			if t.prefix != "" {
				s.test.kind = testSpace
			}
		}
		if t.prefix != "" {
			uri, ok := p.resolve(t.prefix)
			if !ok {
				return invalid(t.at, "the prefix %s is not declared", t.prefix)
			}
			s.test.name.Space = uri
		}
	case tokNodeType:
		p.i += 2 // with its "("
		switch t.local {
		case "node":
			s.test.kind = testNode
		case "text":
			s.test.kind = testText
		case "comment":
			s.test.kind = testComment
		case "processing-instruction":
			s.test.kind = testInstruction
			if l := p.peek(); l.kind == tokLiteral {
				p.i++
				s.test.name.Local = l.text
			}
		}
		if err := p.expect(")"); err != nil {
			return err
		}
	case tokFunction:
		return unsupported(t.at, "the function %s() cannot stand as a step of a path in XPath 1.0", t.text)
	case tokEnd, tokSymbol, tokAxis, tokLiteral, tokNumber, tokVariable:
		return p.unexpected()
	}
	var err *problem
	if s.predicates, err = p.predicates(); err != nil {
		return err
	}
	out.steps = append(out.steps, s)
	return nil
}

func (p *parser) resolve(prefix string) (string, bool) {
	if uri, ok := p.own[prefix]; ok {
		return uri, true
	}
	if prefix == "xml" {
		return xmldoc.NSXML, true
	}
	uri, ok := p.scope[prefix]
	return uri, ok && uri != ""
}

func (p *parser) predicates() ([]expr, *problem) {
	var preds []expr
	for p.symbol("[") {
		if err := p.enter(); err != nil {
			return nil, err
		}
		e, err := p.binary(0)
		if err != nil {
			return nil, err
		}
		if err := p.expect("]"); err != nil {
			return nil, err
		}
		p.leave()
		preds = append(preds, e)
	}
	return preds, nil
}

func (p *parser) primary() (expr, *problem) {
	t := p.peek()
	p.i++
	switch t.kind {
	case tokLiteral:
		return constant{t: String, s: t.text}, nil
	case tokNumber:
		// A range error gives an infinity, which is what is meant.
		n, _ := strconv.ParseFloat(t.text, 64)
		return constant{t: Number, n: n}, nil
	case tokVariable:
		if t.text == "$this" {
			return &path{absolute: true}, nil
		}
		return nil, unsupported(t.at, "the variable %s is not known: only $this is, the document", t.text)
	case tokFunction:
		return p.call(t)
	case tokSymbol, tokEnd, tokName, tokNodeType, tokAxis:
	}
	e, err := p.binary(0) // after "("
	if err != nil {
		return nil, err
	}
	return e, p.expect(")")
}

func (p *parser) call(t token) (expr, *problem) {
	f, ok := functions[t.text]
	if !ok {
		return nil, unsupported(t.at, "the function %s() is not supported", t.text)
	}
	p.i++ // "("
	var args []expr
	for !p.symbol(")") {
		if len(args) > 0 {
			if err := p.expect(","); err != nil {
				return nil, err
			}
		}
		at := p.peek().at
		a, err := p.binary(0)
		if err != nil {
			return nil, err
		}
		if f.nodes && a.typ() != NodeSet {
			return nil, invalid(at, "the function %s() takes a node set, and this is %s", t.text, a.typ())
		}
		args = append(args, a)
	}
	if len(args) < f.least || f.most >= 0 && len(args) > f.most {
		return nil, invalid(t.at, "the function %s() takes %s, not %d", t.text, arguments(f.least, f.most), len(args))
	}
	return &call{f, args}, nil
}

func arguments(least, most int) string {
	s := strconv.Itoa(least)
	switch {
	case most < 0:
		return s + " or more arguments"
	case most == 0:
		return "no arguments"
	case most > least:
		s += " or " + strconv.Itoa(most)
	}
	if most == 1 {
		return s + " argument"
	}
	return s + " arguments"
}
