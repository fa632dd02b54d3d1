package c14n

import (
	"cmp"
	"hash"
	"slices"
	"strings"
	"sync"

	"github.com/beevik/etree"
)

// Exclusive is the algorithm's identifier.
const Exclusive = "http://www.w3.org/2001/10/xml-exc-c14n#"

// Default is the token of a prefix list that stands for the default namespace.
const Default = "#default"

const nsXML = "http://www.w3.org/XML/1998/namespace"

// Append writes the canonical form of e, with all below it, at the end of b. prefixes are those of
// an InclusiveNamespaces PrefixList (§4): their declarations are written as Canonical XML
// does, used or not. e stays as it is; what is declared above it counts.
func Append(b []byte, e *etree.Element, prefixes ...string) []byte {
	w := writer{b: b}
	w.top(e, prefixes)
	return w.b
}

// Hash gives the canonical form of e to h.
func Hash(h hash.Hash, e *etree.Element, prefixes ...string) {
	buf := pieces.Get().(*[]byte)
	w := writer{b: (*buf)[:0], to: h}
	w.top(e, prefixes)
	h.Write(w.b)
	*buf = w.b
	pieces.Put(buf)
}

// piece is about how many bytes a hash is given at a time.
const piece = 32 << 10

var pieces = sync.Pool{New: func() any { b := make([]byte, 0, piece+8<<10); return &b }}

type binding struct{ prefix, uri string }

type writer struct {
	b  []byte
	to hash.Hash // nil: all stays in b

	scope     []binding // declarations in scope, the innermost last
	rendered  []binding // those that were written by elements around, the innermost last
	inclusive []string  // prefixes; "" for the default namespace
	ns        []binding // of the element at hand
	attrs     []attr    // likewise
}

type attr struct {
	uri string
	a   *etree.Attr
}

// top begins with what is declared above e.
func (w *writer) top(e *etree.Element, prefixes []string) {
	for p := e.Parent(); p != nil; p = p.Parent() {
		for i := range p.Attr {
			if b, ok := declared(&p.Attr[i]); ok && !slices.ContainsFunc(w.scope, func(x binding) bool { return x.prefix == b.prefix }) {
				w.scope = append(w.scope, b)
			}
		}
	}
	for _, p := range prefixes {
		if p == Default {
			p = ""
		}
		if !slices.Contains(w.inclusive, p) {
			w.inclusive = append(w.inclusive, p)
		}
	}
	w.element(e)
}

// declared gives the namespace that an attribute declares.
func declared(a *etree.Attr) (binding, bool) {
	switch {
	case a.Space == "xmlns":
		return binding{a.Key, a.Value}, true
	case a.Space == "" && a.Key == "xmlns":
		return binding{"", a.Value}, true
	}
	return binding{}, false
}

// find gives what a prefix is bound to; "" for nothing.
func find(list []binding, prefix string) string {
	for _, b := range slices.Backward(list) {
		if b.prefix == prefix {
			return b.uri
		}
	}
	return ""
}

func (w *writer) uri(prefix string) string {
	if prefix == "xml" {
		return nsXML
	}
	return find(w.scope, prefix)
}

func (w *writer) element(e *etree.Element) {
	scope, rendered := len(w.scope), len(w.rendered)
	w.ns, w.attrs = w.ns[:0], w.attrs[:0]
	for i := range e.Attr {
		if b, ok := declared(&e.Attr[i]); ok {
			w.scope = append(w.scope, b)
		}
	}
	// §3: a declaration is written where its prefix is visibly used and the output around
	// does not have it.
	w.declare(e.Space)
	for i := range e.Attr {
		a := &e.Attr[i]
		if _, ok := declared(a); ok {
			continue
		}
		uri := ""
		if a.Space != "" {
			uri = w.uri(a.Space)
			w.declare(a.Space)
		}
		w.attrs = append(w.attrs, attr{uri, a})
	}
	for _, p := range w.inclusive {
		w.declare(p)
	}
	if len(w.ns) > 1 {
		slices.SortFunc(w.ns, func(a, b binding) int { return strings.Compare(a.prefix, b.prefix) })
	}
	if len(w.attrs) > 1 {
		slices.SortFunc(w.attrs, func(a, b attr) int {
			return cmp.Or(strings.Compare(a.uri, b.uri), strings.Compare(a.a.Key, b.a.Key))
		})
	}
	w.b = append(w.b, '<')
	w.name(e.Space, e.Tag)
	for _, n := range w.ns {
		w.b = append(w.b, " xmlns"...)
		if n.prefix != "" {
			w.b = append(w.b, ':')
			w.b = append(w.b, n.prefix...)
		}
		w.b = append(w.b, '=', '"')
		w.escape(n.uri, true)
		w.b = append(w.b, '"')
		w.rendered = append(w.rendered, n)
	}
	for _, a := range w.attrs {
		w.b = append(w.b, ' ')
		w.name(a.a.Space, a.a.Key)
		w.b = append(w.b, '=', '"')
		w.escape(a.a.Value, true)
		w.b = append(w.b, '"')
	}
	w.b = append(w.b, '>')
	for _, t := range e.Child {
		switch t := t.(type) {
		case *etree.Element:
			w.element(t)
		case *etree.CharData:
			w.escape(t.Data, false)
		}
		if w.to != nil && len(w.b) >= piece {
			w.to.Write(w.b)
			w.b = w.b[:0]
		}
	}
	w.b = append(w.b, '<', '/')
	w.name(e.Space, e.Tag)
	w.b = append(w.b, '>')
	w.scope, w.rendered = w.scope[:scope], w.rendered[:rendered]
}

// declare notes that the element at hand must declare a prefix, unless what is around it did.
func (w *writer) declare(prefix string) {
	if prefix == "xml" || prefix == "xmlns" {
		return
	}
	uri := find(w.scope, prefix)
	if uri == find(w.rendered, prefix) {
		return // of the default namespace: xmlns="" is only written where another one is around
	}
	if uri == "" && prefix != "" {
		return
	}
	for _, n := range w.ns {
		if n.prefix == prefix {
			return
		}
	}
	w.ns = append(w.ns, binding{prefix, uri})
}

func (w *writer) name(space, local string) {
	if space != "" {
		w.b = append(w.b, space...)
		w.b = append(w.b, ':')
	}
	w.b = append(w.b, local...)
}

// escape writes character data (Canonical XML 1.0 §2.3).
func (w *writer) escape(s string, attribute bool) {
	b, from := w.b, 0
	for i := 0; i < len(s); i++ {
		c := s[i]
		if special[c] == 0 {
			continue
		}
		with := ""
		switch c {
		case '&':
			with = "&amp;"
		case '<':
			with = "&lt;"
		case '\r':
			with = "&#xD;"
		case '>':
			if !attribute {
				with = "&gt;"
			}
		case '"':
			if attribute {
				with = "&quot;"
			}
		case '\t':
			if attribute {
				with = "&#x9;"
			}
		case '\n':
			if attribute {
				with = "&#xA;"
			}
		}
		if with != "" {
			b = append(b, s[from:i]...)
			b = append(b, with...)
			from = i + 1
		}
	}
	w.b = append(b, s[from:]...)
}

// special has the bytes that are written in another way somewhere.
var special = func() (t [256]uint8) {
	for _, c := range "&<>\"\t\n\r" {
		t[c] = 1
	}
	return t
}()
