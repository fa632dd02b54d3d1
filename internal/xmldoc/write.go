package xmldoc

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/beevik/etree"
)

// Marshal writes an element that was built or detached as a UTF-8 document:
// everything escaped, characters that XML 1.0 does not allow replaced by U+FFFD.
// The same tree gives the same bytes. It adds no white space and no XML
// declaration. CDATA sections become escaped text; processing instructions and
// directives, which no document that was read has, are left out.
func Marshal(e *etree.Element) []byte { return Append(make([]byte, 0, 1024), e) }

// Size estimates the bytes that Marshal gives of an element: it counts no escapes.
func Size(e *etree.Element) int {
	n := 2*(len(e.Space)+len(e.Tag)) + 7
	for i := range e.Attr {
		n += len(e.Attr[i].Space) + len(e.Attr[i].Key) + len(e.Attr[i].Value) + 5
	}
	for _, t := range e.Child {
		switch t := t.(type) {
		case *etree.Element:
			n += Size(t)
		case *etree.CharData:
			n += len(t.Data)
		case *etree.Comment:
			n += len(t.Data) + 7
		}
	}
	return n
}

// Append is Marshal at the end of b.
func Append(b []byte, e *etree.Element) []byte {
	b = append(b, '<')
	b = appendName(b, e.Space, e.Tag)
	for i := range e.Attr {
		a := &e.Attr[i]
		b = append(b, ' ')
		b = appendName(b, a.Space, a.Key)
		b = append(b, '=', '"')
		b = appendEscaped(b, a.Value, true)
		b = append(b, '"')
	}
	mark := len(b)
	b = append(b, '>')
	for _, t := range e.Child {
		switch t := t.(type) {
		case *etree.Element:
			b = Append(b, t)
		case *etree.CharData:
			b = appendEscaped(b, t.Data, false)
		case *etree.Comment:
			b = appendComment(b, t.Data)
		}
	}
	if len(b) == mark+1 {
		return append(b[:mark], '/', '>')
	}
	b = append(b, '<', '/')
	b = appendName(b, e.Space, e.Tag)
	return append(b, '>')
}

func appendName(b []byte, space, local string) []byte {
	if space != "" {
		b = append(b, space...)
		b = append(b, ':')
	}
	return append(b, local...)
}

// AppendText writes escaped character data at the end of b, as Marshal does.
func AppendText(b []byte, s string) []byte { return appendEscaped(b, s, false) }

// appendEscaped writes text so that reading gives it back: a carriage return, and
// in attributes any white space but the space, would be normalised if left bare.
func appendEscaped(b []byte, s string, attribute bool) []byte {
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if class[c]&cPlain != 0 {
			i++
			continue
		}
		size, with := 1, ""
		switch {
		case c == '&':
			with = "&amp;"
		case c == '<':
			with = "&lt;"
		case c == '>':
			with = "&gt;"
		case c == '"' && attribute:
			with = "&quot;"
		case c == '\r':
			with = "&#13;"
		case c == '\t' && attribute:
			with = "&#9;"
		case c == '\n' && attribute:
			with = "&#10;"
		case c >= utf8.RuneSelf:
			var r rune
			r, size = utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && size == 1 || !isChar(r) {
				with = "\uFFFD"
			}
		case class[c]&cIllegal != 0:
			with = "\uFFFD"
		}
		if with != "" {
			b = append(b, s[from:i]...)
			b = append(b, with...)
			from = i + size
		}
		i += size
	}
	return append(b, s[from:]...)
}

// appendComment writes a comment; what cannot stand in one is blunted.
func appendComment(b []byte, s string) []byte {
	s = strings.Map(func(r rune) rune {
		if !isChar(r) {
			return utf8.RuneError
		}
		if r == '\r' {
			return '\n'
		}
		return r
	}, s)
	for strings.Contains(s, "--") {
		s = strings.ReplaceAll(s, "--", "- -")
	}
	if strings.HasSuffix(s, "-") {
		s += " "
	}
	b = append(b, "<!--"...)
	b = append(b, s...)
	return append(b, "-->"...)
}

// Raw gives the element's bytes as they were read (UTF-8), without the
// declarations it inherits; nil for an element that was not read with d.
func (d *Document) Raw(e *etree.Element) []byte {
	n, ok := d.lookup(e)
	if !ok {
		return nil
	}
	return []byte(d.src[n.start:n.end])
}

// Standalone gives the element as a document of its own: its own bytes, with
// the namespace declarations that it inherits added to its start tag. Reading it
// again gives the same expanded names, attributes and text. An element that was
// not read with d is detached and written instead.
func (d *Document) Standalone(e *etree.Element) []byte {
	n, ok := d.lookup(e)
	if !ok {
		return Marshal(Detach(e))
	}
	missing := d.inherited(n)
	b := make([]byte, 0, int(n.end-n.start)+64*len(missing))
	b = append(b, d.src[n.start:n.nameEnd]...)
	b = appendDeclarations(b, missing)
	return append(b, d.src[n.nameEnd:n.end]...)
}

// RenamedStandalone is Standalone with the root element's name replaced; the
// prefix is declared on it. Children and their bytes stay as they are: where
// the prefix is bound to another namespace at e, or is empty and the default
// namespace is another, a prefix that is free is taken instead. n must have a
// namespace and e must have been read with d.
func (d *Document) RenamedStandalone(e *etree.Element, prefix string, n Name) []byte {
	nd, ok := d.lookup(e)
	if !ok || n.Space == "" {
		panic(fmt.Sprintf("xmldoc: %s cannot be renamed to %s", e.Tag, n))
	}
	missing := d.inherited(nd)
	scope := slices.Concat(missing, d.decls[nd.declStart:nd.declEnd])
	bound := func(p string) (string, bool) {
		switch p {
		case "xml":
			return NSXML, true
		case "xmlns":
			return NSXMLNS, true
		}
		i := slices.IndexFunc(scope, func(b binding) bool { return b.prefix == p })
		if i < 0 {
			return "", false
		}
		return scope[i].uri, true
	}
	chosen := prefix
	for i := 0; ; i++ {
		if i > 0 {
			chosen = fmt.Sprintf("%s%d", cmp.Or(prefix, "ns"), i)
		}
		uri, taken := bound(chosen)
		if taken && uri == n.Space {
			break
		}
		// An unbound default namespace is not free: it is what unprefixed children stand in.
		if !taken && chosen != "" {
			missing = append(missing, binding{chosen, n.Space})
			break
		}
	}
	name := string(appendName(nil, chosen, n.Local))
	b := make([]byte, 0, int(nd.end-nd.start)+64*len(missing)+2*len(name))
	b = append(b, '<')
	b = append(b, name...)
	b = appendDeclarations(b, missing)
	if nd.tagEnd == nd.end {
		return append(b, d.src[nd.nameEnd:nd.end]...)
	}
	endTag := int(nd.tagEnd) + strings.LastIndex(d.src[nd.tagEnd:nd.end], "</")
	b = append(b, d.src[nd.nameEnd:endTag]...)
	b = append(b, '<', '/')
	b = append(b, name...)
	return append(b, '>')
}

// inherited gives the declarations in scope at an element, as it was read, that
// it does not make itself, sorted by prefix.
func (d *Document) inherited(n *node) []binding {
	own := len(d.decls[n.declStart:n.declEnd])
	all := slices.Clone(d.decls[n.declStart:n.declEnd])
	for p := n.parent; p >= 0; p = d.nodes[p].parent {
		for _, b := range d.decls[d.nodes[p].declStart:d.nodes[p].declEnd] {
			all = addBinding(all, b)
		}
	}
	missing := all[own:]
	missing = slices.DeleteFunc(missing, func(b binding) bool { return b.uri == "" || b.prefix == "xml" })
	slices.SortFunc(missing, func(a, b binding) int { return strings.Compare(a.prefix, b.prefix) })
	return missing
}

func appendDeclarations(b []byte, bs []binding) []byte {
	for _, x := range bs {
		if x.prefix == "" {
			b = append(b, ` xmlns="`...)
		} else {
			b = append(b, ` xmlns:`...)
			b = append(b, x.prefix...)
			b = append(b, '=', '"')
		}
		b = appendEscaped(b, x.uri, true)
		b = append(b, '"')
	}
	return b
}
