package bes

import (
	"strings"

	"github.com/beevik/etree"
)

// detachUsed gives a copy of e, without parent, that declares those inherited
// prefixes which its content uses: in names, or in front of a colon in text and
// attribute values, where QNames may stand. A request can inherit long
// declarations into each of thousands of references; cost says how many bytes
// of them were added here, so that its reader can stop.
func detachUsed(e *etree.Element) (copied *etree.Element, cost int) {
	used := map[string]bool{"": true}
	collectPrefixes(e, used)
	copied = e.Copy()
	own := map[string]bool{}
	declared(e, func(prefix, _ string) { own[prefix] = true })
	for p := e.Parent(); p != nil; p = p.Parent() {
		declared(p, func(prefix, uri string) {
			if !used[prefix] || own[prefix] {
				return
			}
			own[prefix] = true
			if uri == "" {
				return
			}
			key := etree.Attr{Key: "xmlns", Value: uri}
			if prefix != "" {
				key.Space, key.Key = "xmlns", prefix
			}
			copied.Attr = append(copied.Attr, key)
			cost += len(prefix) + len(uri) + len(` xmlns:=""`)
		})
	}
	return copied, cost
}

// inherited counts the prefixes that are declared above e and not on it.
func inherited(e *etree.Element) int {
	seen := map[string]bool{}
	declared(e, func(prefix, _ string) { seen[prefix] = true })
	own := len(seen)
	for p := e.Parent(); p != nil; p = p.Parent() {
		declared(p, func(prefix, _ string) { seen[prefix] = true })
	}
	return len(seen) - own
}

func declared(e *etree.Element, f func(prefix, uri string)) {
	for i := range e.Attr {
		switch a := &e.Attr[i]; {
		case a.Space == "xmlns":
			f(a.Key, a.Value)
		case a.Space == "" && a.Key == "xmlns":
			f("", a.Value)
		}
	}
}

func collectPrefixes(e *etree.Element, used map[string]bool) {
	used[e.Space] = true
	for i := range e.Attr {
		used[e.Attr[i].Space] = true
		prefixesIn(e.Attr[i].Value, used)
	}
	for _, t := range e.Child {
		switch t := t.(type) {
		case *etree.Element:
			collectPrefixes(t, used)
		case *etree.CharData:
			prefixesIn(t.Data, used)
		}
	}
}

// prefixesIn notes what stands in front of each colon, back to white space or
// punctuation.
func prefixesIn(s string, used map[string]bool) {
	for {
		i := strings.IndexByte(s, ':')
		if i < 0 {
			return
		}
		from := strings.LastIndexAny(s[:i], " \t\r\n\"'/()[]{},;=@") + 1
		if p := s[from:i]; p != "" && len(p) <= 256 {
			used[p] = true
		}
		s = s[i+1:]
	}
}
