package xpath

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Bounds of an expression.
const (
	MaxLength = 4096 // bytes, the prologue included
	MaxDepth  = 48   // nesting of parentheses, predicates, arguments and signs
	maxNodes  = 1024 // parts of an expression
)

// DefaultSteps is the budget of one evaluation: nodes looked at, values compared,
// and 32 bytes of text each. It is a few milliseconds.
const DefaultSteps = 500_000

// Type is what an expression gives.
type Type uint8

// The types of XPath 1.0 §1.
const (
	NodeSet Type = iota
	Boolean
	Number
	String
)

// String gives the type in words.
func (t Type) String() string {
	return [...]string{"a node set", "a boolean", "a number", "a string"}[t]
}

// Expr is a compiled expression. It is immutable: any number of goroutines may
// evaluate it.
type Expr struct {
	source string
	root   expr
}

// Compile reads an expression, with its prologue if it has one. The scope resolves
// the prefixes that the prologue does not declare; as XPath 1.0 §2.3 has it, a
// name without prefix is in no namespace. Errors are fail.Invalid or
// fail.Unsupported; their sentence says what is wrong, and where.
func Compile(source string, scope map[string]string) (*Expr, error) {
	if len(source) > MaxLength {
		return nil, fail.Errorf("xpath.Compile", fail.Unsupported, "", "the XPath expression has %d bytes: at most %d are taken", len(source), MaxLength)
	}
	p := &parser{source: source, scope: scope}
	root, err := p.parse()
	if err != nil {
		return nil, fail.Errorf("xpath.Compile", err.kind, "", "%s, at %s of the XPath expression", err.what, place(source, err.at))
	}
	return &Expr{source, root}, nil
}

// place gives the column of a byte, and the line where there are several.
func place(s string, at int) string {
	at = min(at, len(s))
	line := strings.Count(s[:at], "\n")
	column := utf8.RuneCountInString(s[strings.LastIndexByte(s[:at], '\n')+1:at]) + 1
	if line == 0 && !strings.Contains(s, "\n") {
		return fmt.Sprintf("column %d", column)
	}
	return fmt.Sprintf("line %d, column %d", line+1, column)
}

// String gives the expression as it was written.
func (e *Expr) String() string { return e.source }

// Type gives what the expression evaluates to.
func (e *Expr) Type() Type { return e.root.typ() }

// Options of an evaluation; the zero value works.
type Options struct {
	// Steps is the budget; 0 means DefaultSteps.
	Steps int
	// RootNames are names that the root element answers to in name tests, beside
	// its own.
	RootNames []xmldoc.Name
}

// Select gives the nodes of a node set, in document order, with the document node
// above root as the context. Errors are fail.Invalid for an expression of another
// type, fail.Exhausted when the budget is spent.
func (e *Expr) Select(root *etree.Element, o Options) ([]Node, error) {
	return e.SelectIn(Build(root), o)
}

// SelectIn is Select on a tree built before.
func (e *Expr) SelectIn(t *Tree, o Options) ([]Node, error) {
	if e.Type() != NodeSet {
		return nil, fail.Errorf("xpath.Select", fail.Invalid, "", "the XPath expression gives %s where nodes are wanted", e.Type())
	}
	v, err := e.eval(t, o)
	if err != nil {
		return nil, err
	}
	nodes := make([]Node, len(v.set))
	for i, n := range v.set {
		nodes[i] = Node{t, n}
	}
	return nodes, nil
}

// Value is what an expression evaluated to, with the conversions of XPath 1.0
// §4.2–4.4 done.
type Value struct {
	Bool   bool
	Number float64
	Text   string
}

// Eval evaluates an expression of any type. The error is fail.Exhausted.
func (e *Expr) Eval(root *etree.Element, o Options) (Value, error) {
	return e.EvalIn(Build(root), o)
}

// EvalIn is Eval on a tree built before.
func (e *Expr) EvalIn(t *Tree, o Options) (v Value, err error) {
	ev := newEvaluation(t, o)
	defer ev.recovered(&err)
	got := e.root.eval(ev.start())
	return Value{ev.boolean(got), ev.number(got), ev.text(got)}, nil
}

func (e *Expr) eval(t *Tree, o Options) (v value, err error) {
	ev := newEvaluation(t, o)
	defer ev.recovered(&err)
	return e.root.eval(ev.start()), nil
}
