package xmldoc

import (
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/beevik/etree"
)

// Document is one document, read. The tree under Root belongs to the caller;
// Raw, Position and Path speak of the elements as they were read.
//
// Names and values in the tree share the memory of the document: whoever keeps
// one of them for long clones it.
type Document struct {
	root  *etree.Element
	src   string    // the document in UTF-8, without its byte order mark
	nodes []node    // the elements, in document order
	decls []binding // the namespace declarations, in document order

	once  sync.Once
	index map[*etree.Element]int32 // into nodes; made when first asked for

	mu       sync.Mutex
	siblings map[*etree.Element]int32 // for Path: place among the siblings of one name, 0 if alone
}

// node is what is remembered of an element beside its place in the tree.
type node struct {
	el         *etree.Element
	space      string // resolved namespace
	start, end int32  // offsets in src of the element, from '<' to past the last '>'
	tagEnd     int32  // offset past the start tag's '>' (for an empty-element tag: end)
	nameEnd    int32  // offset past the element's name in the start tag
	parent     int32  // index of the parent, -1 for the root
	declStart  int32  // its namespace declarations are decls[declStart:declEnd]
	declEnd    int32
	line, col  int32 // filled in with the index
}

// binding is a namespace declaration; the prefix is empty for the default one.
type binding struct{ prefix, uri string }

// Root gives the root element.
func (d *Document) Root() *etree.Element { return d.root }

// lookup gives the node of an element that was read with d.
func (d *Document) lookup(e *etree.Element) (*node, bool) {
	d.once.Do(d.makeIndex)
	i, ok := d.index[e]
	if !ok {
		return nil, false
	}
	return &d.nodes[i], true
}

// makeIndex finds lines and columns in one pass: most documents are never asked
// for them, and one that is all errors must not cost a pass for each.
func (d *Document) makeIndex() {
	d.index = make(map[*etree.Element]int32, len(d.nodes))
	at := place{line: 1, col: 1}
	for i := range d.nodes {
		n := &d.nodes[i]
		d.index[n.el] = int32(i)
		at.advance(d.src, int(n.start))
		n.line, n.col = int32(at.line), int32(at.col)
	}
}

// place walks through a text, counting lines and characters.
type place struct{ off, line, col int }

func (p *place) advance(s string, to int) {
	for p.off < to {
		switch c := s[p.off]; {
		case c == '\n' || c == '\r' && (p.off+1 >= len(s) || s[p.off+1] != '\n'):
			p.line++
			p.col = 1
		case c == '\r': // the line feed that follows ends the line
		case utf8.RuneStart(c):
			p.col++
		}
		p.off++
	}
}

func positionAt(s string, off int) Position {
	at := place{line: 1, col: 1}
	at.advance(s, min(off, len(s)))
	return Position{at.line, at.col}
}

// Position gives where the element's start tag began; zero for an element that
// was not read with the document.
func (d *Document) Position(e *etree.Element) Position {
	n, ok := d.lookup(e)
	if !ok {
		return Position{}
	}
	return Position{int(n.line), int(n.col)}
}

// Name gives the element's expanded name without walking up the tree where it was read with d.
func (d *Document) Name(e *etree.Element) Name {
	if n, ok := d.lookup(e); ok {
		return Name{n.space, e.Tag}
	}
	return NameOf(e)
}

// Path gives an XPath-like path of local names with positions where siblings
// repeat: "/JobDefinition/JobDescription/DataStaging[2]/Source".
func (d *Document) Path(e *etree.Element) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var steps []string
	for ; e != nil; e = e.Parent() {
		step := e.Tag
		if i := d.sibling(e); i > 0 {
			step += "[" + strconv.Itoa(int(i)) + "]"
		}
		steps = append(steps, step)
	}
	slices.Reverse(steps)
	return "/" + strings.Join(steps, "/")
}

// sibling gives e's place, from 1, among its siblings of the same local name; 0
// if it is the only one. It numbers all of them at once, so that a thousand bad
// siblings do not cost a million comparisons.
func (d *Document) sibling(e *etree.Element) int32 {
	parent := e.Parent()
	if parent == nil {
		return 0
	}
	if i, ok := d.siblings[e]; ok {
		return i
	}
	if d.siblings == nil {
		d.siblings = map[*etree.Element]int32{}
	}
	count := map[string]int32{}
	first := map[string]*etree.Element{}
	for _, t := range parent.Child {
		c, ok := t.(*etree.Element)
		if !ok {
			continue
		}
		count[c.Tag]++
		switch count[c.Tag] {
		case 1:
			first[c.Tag] = c
			d.siblings[c] = 0
		case 2:
			d.siblings[first[c.Tag]] = 1
			d.siblings[c] = 2
		default:
			d.siblings[c] = count[c.Tag]
		}
	}
	return d.siblings[e]
}
