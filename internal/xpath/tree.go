package xpath

import (
	"fmt"
	"slices"
	"strings"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Kind is the kind of a node (XPath 1.0 §5).
type Kind uint8

// The kinds; there are no namespace nodes.
const (
	Document Kind = iota
	Element
	Attribute
	Text
	Comment
	Instruction
)

// node is one of a Tree. Its index is its place in document order: an element, its
// attributes, its children. So descendants are a range, and sets sort by number.
type node struct {
	kind   Kind
	parent int32 // -1 for the document
	first  int32 // of its children: what lies between it and the node are attributes
	end    int32 // one past the last descendant
	name   xmldoc.Name
	prefix string
	text   string         // of all kinds but document and element
	el     *etree.Element // the element, or the one that the node stands in
}

// Tree is a document with its nodes in order. It is not changed by evaluations,
// and must be built anew when the document is changed.
type Tree struct {
	nodes []node
}

type binding struct{ prefix, uri string }

// Build numbers the nodes of a document whose root element is root; what is above
// it is used for the namespaces in scope only.
func Build(root *etree.Element) *Tree {
	t := &Tree{nodes: make([]node, 0, 64)}
	t.nodes = append(t.nodes, node{kind: Document, parent: -1, first: 1})
	scope := []binding{{"xml", xmldoc.NSXML}}
	var above []*etree.Element
	for e := root.Parent(); e != nil; e = e.Parent() {
		above = append(above, e)
	}
	for _, e := range slices.Backward(above) {
		scope = declared(e, scope)
	}
	t.element(root, 0, scope)
	t.nodes[0].end = int32(len(t.nodes))
	return t
}

func declared(e *etree.Element, scope []binding) []binding {
	for i := range e.Attr {
		switch a := &e.Attr[i]; {
		case a.Space == "xmlns":
			scope = append(scope, binding{a.Key, a.Value})
		case a.Space == "" && a.Key == "xmlns":
			scope = append(scope, binding{"", a.Value})
		}
	}
	return scope
}

func resolve(scope []binding, prefix string) string {
	for _, b := range slices.Backward(scope) {
		if b.prefix == prefix {
			return b.uri
		}
	}
	return ""
}

func (t *Tree) element(e *etree.Element, parent int32, scope []binding) {
	scope = declared(e, slices.Clip(scope))
	at := int32(len(t.nodes))
	t.nodes = append(t.nodes, node{kind: Element, parent: parent, el: e, prefix: e.Space, name: xmldoc.Name{Space: resolve(scope, e.Space), Local: e.Tag}})
	for i := range e.Attr {
		a := &e.Attr[i]
		if a.Space == "xmlns" || a.Space == "" && a.Key == "xmlns" {
			continue
		}
		n := node{kind: Attribute, parent: at, el: e, prefix: a.Space, name: xmldoc.Name{Local: a.Key}, text: a.Value}
		if a.Space != "" {
			n.name.Space = resolve(scope, a.Space)
		}
		t.leaf(n)
	}
	t.nodes[at].first = int32(len(t.nodes))
	var run []string // adjacent text is one node (§5.7)
	flush := func() {
		if len(run) > 0 {
			t.leaf(node{kind: Text, parent: at, el: e, text: strings.Join(run, "")})
			run = run[:0]
		}
	}
	for _, c := range e.Child {
		switch c := c.(type) {
		case *etree.Element:
			flush()
			t.element(c, at, scope)
		case *etree.CharData:
			if c.Data != "" {
				run = append(run, c.Data)
			}
		case *etree.Comment:
			flush()
			t.leaf(node{kind: Comment, parent: at, el: e, text: c.Data})
		case *etree.ProcInst:
			flush()
			t.leaf(node{kind: Instruction, parent: at, el: e, text: c.Inst, name: xmldoc.Name{Local: c.Target}})
		}
	}
	flush()
	t.nodes[at].end = int32(len(t.nodes))
}

func (t *Tree) leaf(n node) {
	n.first = int32(len(t.nodes)) + 1
	n.end = n.first
	t.nodes = append(t.nodes, n)
}

// Node is a node of a Tree.
type Node struct {
	tree *Tree
	i    int32
}

// Kind gives the kind of the node.
func (n Node) Kind() Kind { return n.tree.nodes[n.i].kind }

// Element gives the element, or the one that an attribute, text or comment stands
// in; nil for the document.
func (n Node) Element() *etree.Element { return n.tree.nodes[n.i].el }

// Name gives the expanded name of an element or attribute.
func (n Node) Name() xmldoc.Name { return n.tree.nodes[n.i].name }

// Text gives the string value (XPath 1.0 §5).
func (n Node) Text() string { return n.tree.text(n.i) }

// Order gives the node's place in document order.
func (n Node) Order() int { return int(n.i) }

func (t *Tree) text(i int32) string {
	n := &t.nodes[i]
	if n.kind != Document && n.kind != Element {
		return n.text
	}
	var parts []string
	for j := n.first; j < n.end; j++ {
		if t.nodes[j].kind == Text {
			parts = append(parts, t.nodes[j].text)
		}
	}
	if len(parts) == 1 {
		return parts[0]
	}
	return strings.Join(parts, "")
}

// Path gives where the node stands, in the prefixes of the document, with positions
// where a name alone would not tell: for people.
func (n Node) Path() string {
	t := n.tree
	at := &t.nodes[n.i]
	if at.kind == Document {
		return "/"
	}
	var step string
	switch at.kind {
	case Attribute:
		step = "@" + qualified(at)
	case Text:
		step = "text()"
	case Comment:
		step = "comment()"
	case Instruction:
		step = "processing-instruction()"
	case Element, Document:
		step = qualified(at)
	}
	if at.kind != Attribute {
		same, mine := 0, 0
		up := &t.nodes[at.parent]
		for c := up.first; c < up.end; c = t.nodes[c].end {
			if o := &t.nodes[c]; o.kind == at.kind && o.name == at.name {
				same++
				if c == n.i {
					mine = same
				}
			}
		}
		if same > 1 {
			step += fmt.Sprintf("[%d]", mine)
		}
	}
	if up := (Node{t, at.parent}); up.Kind() != Document {
		return up.Path() + "/" + step
	}
	return "/" + step
}

func qualified(n *node) string {
	if n.prefix == "" {
		return n.name.Local
	}
	return n.prefix + ":" + n.name.Local
}
