package wire

import (
	"encoding/base64"
	"slices"
	"strconv"
	"strings"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// attr gives an attribute's value; "" is none.
func (v *visit) attr(name string) string {
	v.known = append(v.known, name)
	s, _ := xmldoc.Attr(v.e, "", name)
	return s
}

// open begins to read an element: what stands in it besides elements must be blank.
func (v *visit) open(e *etree.Element) {
	v.e = e
	for _, t := range e.Child {
		switch t := t.(type) {
		case *etree.CharData:
			if strings.Trim(t.Data, " \t\r\n") != "" {
				v.wrong("text()", "is %s; there must be elements only", shown(t.Data))
			}
		case *etree.Element:
			v.kids = append(v.kids, t)
		}
	}
}

// take gives the next child element if it has the name.
func (v *visit) take(name string) *etree.Element {
	if len(v.kids) == 0 || v.failed() || v.kids[0].Tag != name || v.nameOf(v.kids[0]).Space != NS {
		return nil
	}
	c := v.kids[0]
	v.kids = v.kids[1:]
	return c
}

// single is take of what may stand here once.
func (v *visit) single(name string) *etree.Element {
	c := v.take(name)
	if c != nil && v.take(name) != nil {
		v.wrong(name, "stands here a second time")
	}
	return c
}

func (v *visit) nameOf(e *etree.Element) xmldoc.Name {
	if v.doc != nil {
		return v.doc.Name(e)
	}
	return xmldoc.NameOf(e)
}

// read reads a child element.
func (v *visit) read(e *etree.Element, fields func(*visit)) {
	inner := &visit{mode: reading, err: v.err, doc: v.doc}
	inner.open(e)
	if !v.failed() {
		fields(inner)
	}
	inner.close()
}

// close refuses what nobody asked for, unless it is of another namespace: extensions that
// are not known have no effect.
func (v *visit) close() {
	for i := range v.e.Attr {
		a := &v.e.Attr[i]
		if a.Space == "" && a.Key != "xmlns" && !slices.Contains(v.known, a.Key) {
			v.wrong(a.Key, "does not belong here")
		}
	}
	for i, c := range v.kids {
		if n := v.nameOf(c); n.Space == NS || n.Space == "" {
			if i > 0 {
				v.wrong(c.Tag, "stands behind an extension, which must come last")
			}
			v.wrong(c.Tag, "does not belong here, or not in this place or number")
		}
	}
}

// content gives the text of an element that has nothing else.
func (v *visit) content(e *etree.Element) string {
	for _, t := range e.Child {
		if _, ok := t.(*etree.Element); ok {
			v.wrong(e.Tag, "holds elements; it takes text only")
		}
	}
	for i := range e.Attr {
		if a := &e.Attr[i]; a.Space == "" && a.Key != "xmlns" {
			v.wrong(e.Tag, "has the attribute %s; it takes none", shown(a.Key))
		}
	}
	return xmldoc.Text(e)
}

func (v *visit) bytes(name, s string) []byte {
	b, err := base64.StdEncoding.Strict().DecodeString(strings.Trim(s, " \t\r\n"))
	if err != nil {
		v.wrong(name, "is not base64 in its canonical form")
		return nil
	}
	if len(b) == 0 {
		return nil
	}
	return b
}

// shown quotes a stranger's text, bounded.
func shown(s string) string {
	const most = 60
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strconv.Quote(s)
}
