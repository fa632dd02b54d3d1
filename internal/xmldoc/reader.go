package xmldoc

import (
	"fmt"
	"hash/maphash"
	"io"
	"slices"
	"strings"

	"github.com/beevik/etree"
)

// Read reads one document from r, at most l.Bytes of it. The error is an *Error
// for what the sender did, or r's own.
func Read(r io.Reader, l Limits) (*Document, error) { return ReadEncoded(r, "", l) }

// ReadEncoded is Read where the transport named the encoding, which then goes
// before the document's own declaration (RFC 7303 §3); "" if it did not.
func ReadEncoded(r io.Reader, charset string, l Limits) (*Document, error) {
	l = l.EnsureDefaults()
	b, err := readAll(r, l.Bytes)
	if err != nil {
		return nil, err
	}
	return read(b, charset, l)
}

// ReadBytes reads one document. It does not keep b.
func ReadBytes(b []byte, l Limits) (*Document, error) {
	return read(b, "", l.EnsureDefaults())
}

// ReadBytesEncoded is ReadBytes where the transport named the encoding.
func ReadBytesEncoded(b []byte, charset string, l Limits) (*Document, error) {
	return read(b, charset, l.EnsureDefaults())
}

func read(b []byte, charset string, l Limits) (*Document, error) {
	if int64(len(b)) > l.Bytes {
		return nil, tooLarge("Bytes", l.Bytes, "bytes in the document")
	}
	s, enc, bad := decode(b, charset)
	if bad != nil {
		return nil, bad
	}
	// Each element has one of these two; what only looks like it costs little.
	elements := min(strings.Count(s, "</")+strings.Count(s, "/>"), l.Elements, 512)
	doc := &Document{src: s, nodes: make([]node, 0, elements)}
	rd := &reader{seed: maphash.MakeSeed(), s: s, enc: enc, external: charset != "", lim: l, doc: doc}
	if err := rd.document(); err != nil {
		if err.Pos.IsZero() {
			err.Pos = positionAt(s, rd.i)
		}
		return nil, err
	}
	return rd.doc, nil
}

func tooLarge[N int | int64](limit string, most N, what string) *Error {
	return &Error{Reason: TooLarge, Limit: limit, What: fmt.Sprintf("more than %d %s", most, what)}
}

func malformed(format string, args ...any) *Error {
	return &Error{Reason: Malformed, What: fmt.Sprintf(format, args...)}
}

// reader scans a document and builds its tree. Errors are made where s[i] is
// the character at fault, so that the place is found only when there is one.
type reader struct {
	s        string
	i        int
	enc      encoding
	external bool // the encoding was named by the transport
	lim      Limits
	doc      *Document

	open  []openElement
	scope []scoped // declarations in scope, innermost last
	seed  maphash.Seed

	count, attributes int

	attrs []etree.Attr // of the start tag at hand
	seen  map[Name]struct{}

	// Elements, texts and attributes are made many at a time.
	elementSlab []etree.Element
	textSlab    []etree.CharData
	attrSlab    []etree.Attr
}

// scoped is a declaration in scope. The hash, which no sender can foresee, keeps
// the search quick where hundreds of prefixes begin alike.
type scoped struct {
	hash uint64
	binding
}

type openElement struct {
	el    *etree.Element
	name  string // as written
	node  int32
	scope int // len(reader.scope) outside the element
}

// document is the production of the same name (XML 1.0 §2.1), without doctypedecl.
func (r *reader) document() *Error {
	for _, noncharacter := range []string{"\uFFFE", "\uFFFF"} {
		if i := strings.Index(r.s, noncharacter); i >= 0 {
			e := malformed("the character U+%04X is not allowed in XML", []rune(noncharacter)[0])
			e.Pos = positionAt(r.s, i)
			return e
		}
	}
	if strings.HasPrefix(r.s, "<?xml") && len(r.s) > 5 && isSpace(r.s[5]) {
		if err := r.declaration(); err != nil {
			return err
		}
	}
	for len(r.open) > 0 || r.i < len(r.s) {
		if r.i >= len(r.s) {
			return malformed("the document ends inside %s, which is not closed", quote(r.open[len(r.open)-1].name))
		}
		var err *Error
		switch {
		case r.s[r.i] == '<':
			err = r.markup()
		case len(r.open) > 0:
			err = r.text()
		default:
			err = r.outside()
		}
		if err != nil {
			return err
		}
	}
	if r.doc.root == nil {
		return malformed("the document has no element")
	}
	return nil
}

// outside skips the white space that alone may stand beside the root.
func (r *reader) outside() *Error {
	if !isSpace(r.s[r.i]) {
		if r.doc.root == nil {
			return malformed("the document does not begin with an element")
		}
		return malformed("there is text after the end of the root element")
	}
	r.space()
	return nil
}

func (r *reader) markup() *Error {
	rest := r.s[r.i:]
	if len(rest) < 2 {
		return malformed("the document ends inside a tag")
	}
	switch rest[1] {
	case '/':
		return r.endTag()
	case '?':
		return r.instruction()
	case '!':
		switch {
		case strings.HasPrefix(rest, "<!--"):
			return r.comment()
		case strings.HasPrefix(rest, "<![CDATA["):
			return r.cdata()
		case strings.HasPrefix(rest, "<!DOCTYPE"):
			return &Error{Reason: Forbidden, What: "a document type declaration (DOCTYPE) is not accepted: remove it"}
		}
		return malformed("%s does not begin a comment or a CDATA section", quote(rest[:min(len(rest), 12)]))
	}
	return r.startTag()
}

func (r *reader) space() bool {
	at := r.i
	for r.i < len(r.s) && isSpace(r.s[r.i]) {
		r.i++
	}
	return r.i > at
}

// name scans a QName (Namespaces in XML 1.0 §4).
func (r *reader) name(what string) (prefix, local string, err *Error) {
	s := r.s[r.i:]
	n := ncNameLen(s)
	if n == 0 {
		return "", "", malformed("%s must begin here", what)
	}
	prefix, local = "", s[:n]
	if n < len(s) && s[n] == ':' {
		m := ncNameLen(s[n+1:])
		if m == 0 || n+1+m < len(s) && s[n+1+m] == ':' {
			return "", "", malformed("%s is no qualified name: it takes one colon, with a name on each side", quote(s[:min(n+1+m+1, len(s))]))
		}
		prefix, local = local, s[n+1:n+1+m]
		n += 1 + m
	}
	if n > r.lim.Name {
		return "", "", tooLarge("Name", r.lim.Name, "bytes in a name")
	}
	r.i += n
	return prefix, local, nil
}

func (r *reader) startTag() *Error {
	start := r.i
	if len(r.open) == 0 && r.doc.root != nil {
		return malformed("a second root element begins here: a document has one")
	}
	if len(r.open) >= r.lim.Depth {
		return tooLarge("Depth", r.lim.Depth, "elements inside one another")
	}
	if err := r.countNode(); err != nil {
		return err
	}
	r.i++
	prefix, local, err := r.name("the name of an element")
	if err != nil {
		return err
	}
	nameEnd := r.i
	scope := len(r.scope)
	declStart := len(r.doc.decls)
	empty, err := r.attributeList(local)
	if err != nil {
		return err
	}
	after := r.i
	r.i = start // what is wrong from here on is wrong with the whole tag
	if len(r.scope) > r.lim.Namespaces {
		return tooLarge("Namespaces", r.lim.Namespaces, "namespace declarations in scope")
	}
	space, ok := r.resolve(prefix)
	if !ok {
		return malformed("the prefix %s of element %s is not declared", quote(prefix), quote(local))
	}
	if err := r.distinct(); err != nil {
		return err
	}
	r.i = after

	el := r.newElement()
	el.Space, el.Tag = prefix, local
	if n := len(r.attrs); n > 0 {
		if len(r.attrSlab) < n {
			r.attrSlab = make([]etree.Attr, max(n, min(64, len(r.doc.nodes)+8)))
		}
		el.Attr = r.attrSlab[:n:n]
		copy(el.Attr, r.attrs)
		r.attrSlab = r.attrSlab[n:]
	}
	id := int32(len(r.doc.nodes))
	parent := int32(-1)
	if len(r.open) == 0 {
		r.doc.root = el
	} else {
		top := &r.open[len(r.open)-1]
		parent = top.node
		top.el.AddChild(el)
	}
	r.doc.nodes = append(r.doc.nodes, node{
		el: el, space: space, start: int32(start), tagEnd: int32(after), end: int32(after), nameEnd: int32(nameEnd),
		parent: parent, declStart: int32(declStart), declEnd: int32(len(r.doc.decls)),
	})
	if empty {
		r.scope = r.scope[:scope]
		return nil
	}
	r.open = append(r.open, openElement{el, r.s[start+1 : nameEnd], id, scope})
	return nil
}

// attributeList scans from the element's name to past the '>', and brings the
// declarations that it finds into scope.
func (r *reader) attributeList(element string) (empty bool, err *Error) {
	r.attrs = r.attrs[:0]
	for {
		spaced := r.space()
		if r.i >= len(r.s) {
			return false, malformed("the document ends inside the start tag of %s", quote(element))
		}
		switch r.s[r.i] {
		case '>':
			r.i++
			return false, nil
		case '/':
			if !strings.HasPrefix(r.s[r.i:], "/>") {
				return false, malformed("a \"/\" in the start tag of %s must be followed by \">\"", quote(element))
			}
			r.i += 2
			return true, nil
		}
		if !spaced {
			return false, malformed("white space, \">\" or \"/>\" must follow here in the start tag of %s", quote(element))
		}
		if len(r.attrs) >= r.lim.AttributesPerElement {
			return false, tooLarge("AttributesPerElement", r.lim.AttributesPerElement, "attributes on one element")
		}
		if r.attributes >= r.lim.Attributes {
			return false, tooLarge("Attributes", r.lim.Attributes, "attributes in the document")
		}
		r.attributes++
		if err := r.attribute(); err != nil {
			return false, err
		}
	}
}

func (r *reader) attribute() *Error {
	at := r.i
	prefix, local, err := r.name("the name of an attribute")
	if err != nil {
		return err
	}
	r.space()
	if r.i >= len(r.s) || r.s[r.i] != '=' {
		return malformed("a \"=\" must follow the attribute %s", quote(local))
	}
	r.i++
	r.space()
	value, err := r.attributeValue(local)
	if err != nil {
		return err
	}
	r.attrs = append(r.attrs, etree.Attr{Space: prefix, Key: local, Value: value})
	if prefix == "xmlns" || prefix == "" && local == "xmlns" {
		after := r.i
		r.i = at
		if err := r.declare(prefix, local, value); err != nil {
			return err
		}
		r.i = after
	}
	return nil
}

// declare brings a declaration into scope (Namespaces in XML 1.0 §3, §5).
func (r *reader) declare(prefix, local, uri string) *Error {
	if prefix == "" {
		local = ""
	}
	switch {
	case local == "xmlns":
		return malformed("the prefix xmlns must not be declared")
	case local == "xml" && uri != NSXML:
		return malformed("the prefix xml can stand for %s only", NSXML)
	case local != "xml" && uri == NSXML, uri == NSXMLNS:
		return malformed("the namespace %s must not be declared here", quote(uri))
	case local != "" && uri == "":
		return malformed("the declaration of the prefix %s is empty: only the default namespace can be undeclared", quote(local))
	}
	b := binding{local, uri}
	r.scope = append(r.scope, scoped{maphash.String(r.seed, local), b})
	r.doc.decls = append(r.doc.decls, b)
	return nil
}

func (r *reader) resolve(prefix string) (string, bool) {
	hash := maphash.String(r.seed, prefix)
	for i := range slices.Backward(r.scope) {
		if b := &r.scope[i]; b.hash == hash && b.prefix == prefix {
			return b.uri, true
		}
	}
	if prefix == "xml" {
		return NSXML, true
	}
	return "", prefix == ""
}

// distinct checks that every prefix of an attribute is declared, and that no
// expanded name comes twice (Namespaces in XML 1.0 §6.3).
func (r *reader) distinct() *Error {
	const few = 12 // up to here comparing each with each is quicker than a map
	clash := func(a etree.Attr) *Error {
		return malformed("the attribute %s is there twice", quote(a.FullKey()))
	}
	prefixed := false
	for i := range r.attrs {
		a := &r.attrs[i]
		if a.Space != "" && a.Space != "xmlns" {
			if _, ok := r.resolve(a.Space); !ok {
				return malformed("the prefix %s of the attribute %s is not declared", quote(a.Space), quote(a.Key))
			}
			prefixed = true
		}
		if len(r.attrs) > few {
			continue
		}
		for j := range i {
			if b := &r.attrs[j]; b.Key == a.Key && b.Space == a.Space {
				return clash(*a)
			}
		}
	}
	if len(r.attrs) <= few && !prefixed {
		return nil
	}
	if r.seen == nil {
		r.seen = map[Name]struct{}{}
	}
	clear(r.seen)
	for _, a := range r.attrs {
		n := Name{Local: a.Key}
		switch a.Space {
		case "":
		case "xmlns":
			n.Space = NSXMLNS
		default:
			n.Space, _ = r.resolve(a.Space)
		}
		if _, twice := r.seen[n]; twice {
			return clash(a)
		}
		r.seen[n] = struct{}{}
	}
	return nil
}

func (r *reader) endTag() *Error {
	if len(r.open) == 0 {
		return malformed("an end tag stands outside the root element")
	}
	top := &r.open[len(r.open)-1]
	rest := r.s[r.i+2:]
	n := len(top.name)
	if !strings.HasPrefix(rest, top.name) || len(rest) > n && rest[n] != '>' && !isSpace(rest[n]) {
		return malformed("the element %s must be closed before this end tag", quote(top.name))
	}
	j := r.i + 2 + n
	for j < len(r.s) && isSpace(r.s[j]) {
		j++
	}
	if j >= len(r.s) || r.s[j] != '>' {
		return malformed("the end tag of %s lacks its \">\"", quote(top.name))
	}
	r.i = j + 1
	r.doc.nodes[top.node].end = int32(r.i)
	r.scope = r.scope[:top.scope]
	r.open = r.open[:len(r.open)-1]
	return nil
}

// countNode counts what takes memory of its own.
func (r *reader) countNode() *Error {
	if r.count >= r.lim.Elements {
		return tooLarge("Elements", r.lim.Elements, "elements, comments and CDATA sections")
	}
	r.count++
	return nil
}

func (r *reader) newElement() *etree.Element {
	if len(r.elementSlab) == 0 {
		r.elementSlab = make([]etree.Element, min(64, len(r.doc.nodes)+8))
	}
	el := &r.elementSlab[0]
	r.elementSlab = r.elementSlab[1:]
	return el
}
