package jsdl

import (
	"strconv"
	"strings"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// The words in which the walker says what it expected.

// unknown says what is wrong with an element that has no place.
func unknown(n xmldoc.Name, space string) string {
	switch n.Space {
	case space:
		return n.Local + " is not known here"
	case "":
		return n.Local + " is in no namespace"
	}
	return n.String() + " is not allowed here"
}

// expected lists what may stand at a place of a sequence.
func expected[T any](parts []part[T], seen []int, at int, other bool, n xmldoc.Name) string {
	if s := resembling(parts, n); s != "" {
		return s
	}
	var names []string
	for i := at; i < len(parts); i++ {
		if parts[i].mistaken == "" && seen[i] < parts[i].max {
			names = append(names, parts[i].local)
		}
		if seen[i] < parts[i].min {
			other = false
			break
		}
	}
	if other {
		names = append(names, "an element of another namespace")
	}
	switch len(names) {
	case 0:
		return "expected nothing more"
	case 1:
		return "expected " + names[0]
	}
	return "expected one of " + strings.Join(names, ", ")
}

// listing gives the names of a short sequence.
func listing[T any](before string, parts []part[T]) string {
	if len(parts) == 0 || len(parts) > 6 {
		return ""
	}
	var names []string
	for i := range parts {
		if parts[i].mistaken == "" {
			names = append(names, parts[i].local)
		}
	}
	return before + strings.Join(names, ", ")
}

// earliest gives the name of the first part that stands already, after part i.
func earliest[T any](parts []part[T], seen []int, i int) string {
	for j := i + 1; j < len(parts); j++ {
		if seen[j] > 0 && parts[j].mistaken == "" {
			return parts[j].local
		}
	}
	return "the elements of other namespaces"
}

// latest gives the name of the furthest part that stands already, after part i.
func latest[T any](parts []part[T], seen []int, i int) string {
	for j := len(parts) - 1; j > i; j-- {
		if seen[j] > 0 && parts[j].mistaken == "" {
			return parts[j].local
		}
	}
	return "an element of another namespace"
}

// place says where in its sequence a part belongs.
func place[T any](parts []part[T], i int) string {
	for j := i - 1; j >= 0; j-- {
		if parts[j].mistaken == "" {
			return "after " + parts[j].local
		}
	}
	return "first"
}

func allowed[T any](attrs []attribute[T]) string {
	var names []string
	for i := range attrs {
		if attrs[i].mistaken == "" {
			names = append(names, attrs[i].local)
		}
	}
	if len(names) == 0 {
		return "remove it"
	}
	return "expected only " + strings.Join(names, ", ")
}

// resembling names the part whose name differs little from n's.
func resembling[T any](parts []part[T], n xmldoc.Name) string {
	for i := range parts {
		p := &parts[i]
		if p.mistaken == "" && p.local == n.Local {
			return "expected " + p.local + " of the namespace " + p.space
		}
	}
	for i := range parts {
		p := &parts[i]
		if p.mistaken == "" && p.space == n.Space && near(p.local, n.Local) {
			return "did you mean " + p.local + "?"
		}
	}
	return ""
}

// near reports whether two names are the same but for case or for up to two letters.
func near(a, b string) bool {
	if strings.EqualFold(a, b) {
		return true
	}
	if len(b) > 64 || len(a)-len(b) > 2 || len(b)-len(a) > 2 || min(len(a), len(b)) < 4 {
		return false
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)] <= 2
}

// quote shows a value of the document, shortened.
func quote(s string) string {
	const most = 60
	if len(s) > most {
		cut := most
		for cut > 0 && s[cut]&0xC0 == 0x80 {
			cut--
		}
		s = s[:cut] + "…"
	}
	return strconv.Quote(s)
}
