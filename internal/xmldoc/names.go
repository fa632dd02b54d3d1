package xmldoc

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/beevik/etree"
)

// The namespaces that no document needs to declare (Namespaces in XML 1.0 §3).
const (
	NSXML   = "http://www.w3.org/XML/1998/namespace"
	NSXMLNS = "http://www.w3.org/2000/xmlns/"
)

// NameOf gives an element's expanded name by walking up the tree.
func NameOf(e *etree.Element) Name {
	space, _ := lookupPrefix(e, e.Space)
	return Name{space, e.Tag}
}

// Is reports whether e has the expanded name.
func Is(e *etree.Element, space, local string) bool {
	if e == nil || e.Tag != local {
		return false
	}
	uri, _ := lookupPrefix(e, e.Space)
	return uri == space
}

// Child gives the first child element of that expanded name, or nil.
func Child(e *etree.Element, space, local string) *etree.Element {
	for _, t := range e.Child {
		if c, ok := t.(*etree.Element); ok && Is(c, space, local) {
			return c
		}
	}
	return nil
}

// Attr gives the value of the attribute of that expanded name, and whether it is
// there. Namespace declarations are not attributes here.
func Attr(e *etree.Element, space, local string) (string, bool) {
	for i := range e.Attr {
		a := &e.Attr[i]
		if a.Key != local || isDeclaration(a) || (a.Space == "") != (space == "") {
			continue
		}
		if space == "" {
			return a.Value, true
		}
		if uri, ok := lookupPrefix(e, a.Space); ok && uri == space {
			return a.Value, true
		}
	}
	return "", false
}

// Text gives the character data directly inside e, CDATA included, comments left
// out, pieces joined; white space kept.
func Text(e *etree.Element) string {
	var first string
	var b strings.Builder
	for _, t := range e.Child {
		c, ok := t.(*etree.CharData)
		switch {
		case !ok || c.Data == "":
		case first == "":
			first = c.Data
		default:
			if b.Len() == 0 {
				b.WriteString(first)
			}
			b.WriteString(c.Data)
		}
	}
	if b.Len() == 0 {
		return first
	}
	return b.String()
}

// Collapse applies the white space rule "collapse" of XML Schema part 2 §4.3.6.
func Collapse(s string) string {
	s = strings.Trim(s, white)
	if !strings.ContainsAny(s, "\t\n\r") && !strings.Contains(s, "  ") {
		return s
	}
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r < 0x80 && isSpace(byte(r)) }), " ")
}

// ResolveQName resolves a QName in content ("p:local") by the declarations in
// scope at e; without a prefix the default namespace applies.
func ResolveQName(e *etree.Element, qname string) (Name, error) {
	q := strings.Trim(qname, white)
	prefix, local, ok := splitQName(q)
	if !ok {
		return Name{}, fmt.Errorf("%s is not a qualified name", quote(q))
	}
	uri, ok := lookupPrefix(e, prefix)
	if !ok && prefix != "" {
		return Name{}, fmt.Errorf("the prefix of %s is not declared", quote(q))
	}
	return Name{uri, local}, nil
}

// Prefix gives a prefix that is bound to the namespace at e, and whether there is
// one; the empty prefix is not considered.
func Prefix(e *etree.Element, space string) (string, bool) {
	for _, b := range inScope(e) {
		if b.uri == space && b.prefix != "" {
			return b.prefix, true
		}
	}
	return "", false
}

// Detach gives a deep copy of e, without parent, that declares every namespace
// prefix in scope at e that its content could use: those of names, those that
// stand before a colon in text or an attribute value, and the default one.
func Detach(e *etree.Element) *etree.Element {
	c := e.Copy()
	c.Attr = append(c.Attr, Inherited(e)...)
	return c
}

// Inherited gives the declarations that Detach adds.
func Inherited(e *etree.Element) []etree.Attr {
	if e.Parent() == nil {
		return nil
	}
	used := map[string]bool{"": true}
	usedPrefixes(e, used)
	var found []etree.Attr
	for _, prefix := range slices.Sorted(maps.Keys(used)) {
		if prefix == "xml" || prefix == "xmlns" {
			continue
		}
		if _, own := ownDeclaration(e, prefix); own {
			continue
		}
		if uri, ok := lookupPrefix(e.Parent(), prefix); ok && uri != "" {
			found = append(found, declaration(binding{prefix, uri}))
		}
	}
	return found
}

func usedPrefixes(e *etree.Element, used map[string]bool) {
	used[e.Space] = true
	for i := range e.Attr {
		if a := &e.Attr[i]; !isDeclaration(a) {
			used[a.Space] = true
			prefixesIn(a.Value, used)
		}
	}
	for _, t := range e.Child {
		switch t := t.(type) {
		case *etree.Element:
			usedPrefixes(t, used)
		case *etree.CharData:
			prefixesIn(t.Data, used)
		}
	}
}

// prefixesIn adds what stands before a colon and could be a prefix: QNames in
// content, in XPath expressions too.
func prefixesIn(s string, used map[string]bool) {
	for {
		i := strings.IndexByte(s, ':')
		if i < 0 {
			return
		}
		before := s[:i]
		s = s[i+1:]
		start := len(before)
		for start > 0 && (before[start-1] >= utf8.RuneSelf || class[before[start-1]]&cName != 0) {
			start--
		}
		// A name cannot begin with a digit, dash or dot, but can follow one: "5-p:x".
		for start < len(before) && before[start] < utf8.RuneSelf && class[before[start]]&cNameStart == 0 {
			start++
		}
		if p := before[start:]; p != "" && len(p) <= defaultName && !used[p] {
			used[strings.Clone(p)] = true
		}
	}
}

func declaration(b binding) etree.Attr {
	if b.prefix == "" {
		return etree.Attr{Key: "xmlns", Value: b.uri}
	}
	return etree.Attr{Space: "xmlns", Key: b.prefix, Value: b.uri}
}

func isDeclaration(a *etree.Attr) bool {
	return a.Space == "xmlns" || a.Space == "" && a.Key == "xmlns"
}

func ownDeclaration(e *etree.Element, prefix string) (string, bool) {
	for i := range e.Attr {
		a := &e.Attr[i]
		if a.Space == "xmlns" && a.Key == prefix || prefix == "" && a.Space == "" && a.Key == "xmlns" {
			return a.Value, true
		}
	}
	return "", false
}

func lookupPrefix(e *etree.Element, prefix string) (string, bool) {
	switch prefix {
	case "xml":
		return NSXML, true
	case "xmlns":
		return NSXMLNS, true
	}
	for ; e != nil; e = e.Parent() {
		if uri, ok := ownDeclaration(e, prefix); ok {
			return uri, true
		}
	}
	return "", false
}

// inScope gives the declarations in scope at e, nearest first, each prefix once.
func inScope(e *etree.Element) []binding {
	var found []binding
	for ; e != nil; e = e.Parent() {
		for i := range e.Attr {
			if a := &e.Attr[i]; isDeclaration(a) {
				b := binding{a.Key, a.Value}
				if a.Space == "" {
					b.prefix = ""
				}
				found = addBinding(found, b)
			}
		}
	}
	return found
}

// addBinding adds b unless its prefix is there.
func addBinding(bs []binding, b binding) []binding {
	for i := range bs {
		if bs[i].prefix == b.prefix {
			return bs
		}
	}
	return append(bs, b)
}
