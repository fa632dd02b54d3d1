package xpath

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// maker makes documents and expressions of a small world, in which tests find
// something often.
type maker struct{ *rand.Rand }

func (m maker) of(s ...string) string { return s[m.IntN(len(s))] }

func (m maker) word() string {
	return m.of("", "1", "2", "3", "10", "-4", "0.5", " 2 ", "1e1", "a", "b", "ab", "a b", "  a  b ", "é", "Ab", "true")
}

func (m maker) element(b *strings.Builder, depth int) {
	name := m.of("a", "b", "p:a", "p:b", "q:a", "a")
	b.WriteString("<" + name)
	if depth == 0 {
		b.WriteString(` xmlns:p="urn:p" xmlns:q="urn:q"`)
	} else if m.IntN(12) == 0 {
		b.WriteString(m.of(` xmlns="urn:p"`, ` xmlns:p="urn:q"`, ` xmlns="urn:d"`))
	}
	for _, a := range []string{"x", "y", "r:x"} {
		if m.IntN(4) == 0 {
			if a == "r:x" {
				b.WriteString(` xmlns:r="urn:p"`)
			}
			fmt.Fprintf(b, " %s=%q", a, m.word())
		}
	}
	b.WriteString(">")
	if depth < 5 {
		for range m.IntN(5 - depth/2) {
			switch m.IntN(6) {
			case 0:
				b.WriteString(m.word())
			case 1:
				b.WriteString(m.of("<!--c-->", "<!--1-->", "<![CDATA[a]]>", "\n "))
			default:
				m.element(b, depth+1)
			}
		}
	}
	if m.IntN(3) == 0 {
		b.WriteString(m.word())
	}
	b.WriteString("</" + name + ">")
}

func (m maker) document() string {
	var b strings.Builder
	m.element(&b, 0)
	return b.String()
}

func (m maker) step(depth int) string {
	s := m.of("", "", "", "", "child::", "descendant::", "descendant-or-self::", "self::", "parent::", "ancestor::", "ancestor-or-self::",
		"following-sibling::", "preceding-sibling::", "attribute::", "@")
	switch {
	case s == "" && m.IntN(6) == 0:
		return m.of(".", "..")
	case s == "@" || s == "attribute::":
		s += m.of("x", "y", "P:x", "*", "P:*", "node()")
	default:
		s += m.of("a", "a", "b", "P:a", "P:b", "Q:a", "*", "*", "P:*", "node()", "text()", "comment()")
	}
	for depth > 0 && m.IntN(3) == 0 {
		depth--
		s += "[" + m.of(m.boolean(depth), m.boolean(depth), m.integer(depth), strconv.Itoa(1+m.IntN(3)), "last()", "position() = last()", "position() > 1", m.set(depth)) + "]"
	}
	return s
}

// set makes an expression that gives nodes. On the top it is absolute, as the context there is
// not the same in lxml.
func (m maker) set(depth int) string {
	if depth > 0 {
		switch m.IntN(14) {
		case 0:
			return "(" + m.set(depth-1) + " | " + m.set(depth-1) + ")"
		case 1:
			return "(" + m.set(depth-1) + ")[" + m.of("1", "last()", m.boolean(depth-1)) + "]"
		case 2:
			return "(" + m.set(depth-1) + m.of(")/", ")//") + m.step(depth-1)
		}
	}
	return m.relative(depth)
}

func (m maker) relative(depth int) string {
	s := m.of("", "", "/", "//") + m.step(depth)
	for range m.IntN(3) {
		s += m.of("/", "/", "//") + m.step(depth)
	}
	return s
}

func (m maker) top() string {
	s := m.of("/", "//", "//", "//*/", "/*/*/") + m.step(2)
	for range m.IntN(4) {
		s += m.of("/", "/", "//") + m.step(2)
	}
	switch m.IntN(12) {
	case 0:
		return "(" + s + ")[" + m.of("1", "2", "last()", m.boolean(1)) + "]"
	case 1:
		return s + " | " + "//" + m.step(2)
	case 2:
		return "(" + s + " | //" + m.step(2) + ")/" + m.step(2)
	}
	return s
}

func (m maker) text(depth int) string {
	if depth <= 0 {
		return m.of("'a'", "'b'", "\"ab\"", "'1'", "'2'", "''", "'a b'", "'é'")
	}
	s, u := m.text(depth-1), m.text(depth-1)
	switch m.IntN(16) {
	case 0, 1, 2:
		return "string(" + m.set(depth-1) + ")"
	case 3:
		return "concat(" + s + ", " + u + ", " + m.set(depth-1) + ")"
	case 4:
		return "normalize-space(" + m.set(depth-1) + ")"
	case 5:
		return "substring(" + s + ", " + m.integer(depth-1) + ")"
	case 6:
		return "substring(" + s + ", " + m.integer(depth-1) + ", " + m.integer(depth-1) + ")"
	case 7:
		return "substring-before(" + s + ", " + u + ")"
	case 8:
		return "substring-after(" + s + ", " + u + ")"
	case 9:
		return "translate(" + s + ", " + u + ", " + m.text(depth-1) + ")"
	case 10:
		return "local-name(" + m.set(depth-1) + ")"
	case 11:
		return "namespace-uri(" + m.set(depth-1) + ")"
	case 12:
		return "name(" + m.set(depth-1) + ")"
	case 13:
		return "string(" + m.integer(depth-1) + ")"
	case 14:
		return "string(" + m.boolean(depth-1) + ")"
	}
	return s
}

// integer makes numbers that both print alike: small integers and halves of them.
func (m maker) integer(depth int) string {
	if depth <= 0 {
		return m.of("0", "1", "2", "3", "1.5", "-1", "0.5", ".5", "2.")
	}
	a, b := m.integer(depth-1), m.integer(depth-1)
	switch m.IntN(12) {
	case 0:
		return "count(" + m.set(depth-1) + ")"
	case 1:
		return "string-length(" + m.text(depth-1) + ")"
	case 2:
		return "(" + a + " + " + b + ")"
	case 3:
		return "(" + a + " - " + b + ")"
	case 4:
		return "(" + a + " * " + b + ")"
	case 5:
		return "(" + a + " div " + m.of("2", "0", "-2") + ")"
	case 6:
		return "(" + a + " mod " + m.of("2", "3", "-2", "0") + ")"
	case 7:
		return m.of("floor(", "ceiling(", "round(") + a + ")"
	case 8:
		return "number(" + m.set(depth-1) + ")"
	case 9:
		return "sum(" + m.set(depth-1) + ")"
	case 10:
		return "-" + a
	}
	return a
}

func (m maker) boolean(depth int) string {
	op := m.of(" = ", " = ", " != ", " < ", " <= ", " > ", " >= ")
	if depth <= 0 {
		return m.of("@x", "a", "text()", "@x = '1'", "@y", ". = 'a'", "true()", "false()", "position() = 1", "* = 2")
	}
	switch m.IntN(12) {
	case 0:
		return "not(" + m.boolean(depth-1) + ")"
	case 1:
		return "(" + m.boolean(depth-1) + " and " + m.boolean(depth-1) + ")"
	case 2:
		return "(" + m.boolean(depth-1) + " or " + m.boolean(depth-1) + ")"
	case 3:
		return m.set(depth-1) + op + m.set(depth-1)
	case 4, 5:
		return m.set(depth-1) + op + m.text(0)
	case 6:
		return m.set(depth-1) + op + m.integer(depth-1)
	case 7:
		return m.text(depth-1) + op + m.text(depth-1)
	case 8:
		return m.integer(depth-1) + op + m.integer(depth-1)
	case 9:
		return "contains(" + m.text(depth-1) + ", " + m.text(depth-1) + ")"
	case 10:
		return "starts-with(" + m.text(depth-1) + ", " + m.text(depth-1) + ")"
	}
	return m.set(depth-1) + op + m.boolean(depth-1)
}

// labels names a node as testenv.XPathAnswer does.
func labels(t *Tree) map[int32]string {
	names := map[int32]string{}
	n := -1
	for i := range t.nodes {
		if k := t.nodes[i].kind; k == Element || k == Comment {
			n++
			names[int32(i)] = "e" + strconv.Itoa(n)
		}
	}
	for i := range t.nodes {
		at := &t.nodes[i]
		up := names[at.parent]
		switch at.kind {
		case Attribute:
			names[int32(i)] = "a" + up[1:] + " " + at.name.String()
		case Text:
			names[int32(i)] = "t" + up[1:]
			for c := t.nodes[at.parent].first; c < int32(i); c = t.nodes[c].end {
				names[int32(i)] = "u" + names[c][1:]
			}
		case Document, Element, Comment, Instruction:
		}
	}
	return names
}

var generated = map[string]string{"P": "urn:p", "Q": "urn:q"}

// TestAgainstLibxml2 evaluates generated expressions over generated documents, here
// and by libxml2.
func TestAgainstLibxml2(t *testing.T) {
	t.Parallel()
	const documents, each = 150, 60
	m := maker{rand.New(rand.NewPCG(3, 14))}
	var cases []testenv.XPathCase
	for range documents {
		doc := m.document()
		for range each {
			var e string
			switch m.IntN(8) {
			case 0:
				e = "boolean(/*[" + m.boolean(3) + "])"
			case 1:
				e = "concat('', " + m.top() + ")"
			case 2:
				e = "count(" + m.top() + ")"
			case 3:
				e = "sum(/*[" + m.boolean(2) + "]/@x)"
			default:
				e = m.top()
			}
			cases = append(cases, testenv.XPathCase{Document: doc, Expression: e, Namespaces: generated})
		}
	}
	compare(t, cases, 0.15)
}

// compare holds our answers against libxml2's; at least the share some of the node
// sets must have nodes.
func compare(t *testing.T, cases []testenv.XPathCase, some float64) {
	t.Helper()
	sets, found := 0, 0
	for i, want := range testenv.XPath(t, cases) {
		c := cases[i]
		d, err := xmldoc.ReadBytes([]byte(c.Document), xmldoc.Limits{})
		if err != nil {
			t.Fatalf("%s: %v", c.Document, err)
		}
		e, err := Compile(c.Expression, c.Namespaces)
		if err != nil {
			if want.Error == "" {
				t.Errorf("%s is refused: %v", c.Expression, err)
			}
			continue
		}
		if want.Error != "" {
			t.Errorf("%s: libxml2 says %s", c.Expression, want.Error)
			continue
		}
		tree := Build(d.Root())
		o := Options{Steps: 50_000_000}
		var got, expected any
		switch e.Type() {
		case NodeSet:
			nodes, err := e.SelectIn(tree, o)
			if err != nil {
				t.Fatal(err)
			}
			names := labels(tree)
			ours, theirs := []string{}, []string{}
			for _, n := range nodes {
				if n.Kind() != Document { // lxml has none
					ours = append(ours, names[n.i]+"="+n.Text())
				}
			}
			for j, n := range want.Nodes {
				theirs = append(theirs, n+"="+want.Texts[j])
			}
			sets++
			if len(ours) > 0 {
				found++
			}
			slices.Sort(ours)
			slices.Sort(theirs)
			got, expected = strings.Join(ours, "\n"), strings.Join(theirs, "\n")
		case Boolean, Number, String:
			v, err := e.EvalIn(tree, o)
			if err != nil {
				t.Fatal(err)
			}
			switch {
			case want.Bool != nil:
				got, expected = v.Bool, *want.Bool
			case want.Text != nil:
				got, expected = v.Text, *want.Text
			default:
				n, err := strconv.ParseFloat(strings.Replace(want.Number, "Infinity", "Inf", 1), 64)
				if err != nil {
					t.Fatalf("%s: %q: %v", c.Expression, want.Number, err)
				}
				got, expected = v.Number, n
				if math.IsNaN(n) && math.IsNaN(v.Number) {
					got, expected = 0, 0
				}
			}
		}
		if got != expected {
			t.Errorf("%s on\n%s\ngives\n%v\nand libxml2\n%v", c.Expression, c.Document, got, expected)
		}
	}
	if float64(found) < some*float64(sets) {
		t.Errorf("only %d of %d node sets have nodes: the test is too easy", found, sets)
	}
	t.Logf("%d expressions, %d node sets, %d with nodes", len(cases), sets, found)
}
