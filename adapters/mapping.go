package adapters

import (
	"fmt"
	"strings"

	"github.com/portolan-project/portolan/jsdl"
)

// MappingRow is a line of an adapter's mapping: what becomes of JSDL elements at a
// manager. Each adapter gives its rows from the very table that its mapping code
// runs on; Mapped spreads them over jsdl.Elements.
type MappingRow struct {
	// Element is an entry of jsdl.Elements, or the end of one or several without
	// prefixes: "Executable", "Placement/GPU". A row for what holds other entries
	// ("FileSystem") is for each of them that has no row of its own, and of two
	// names the longer holds.
	Element string
	Becomes string // the manager's word for it: "--ntasks", "request_cpus"; "" when it is refused
	Note    string // a few words: rounding, conditions, why it is refused
}

// Mapped gives one row for each of jsdl.Elements, in that order. An element without a
// row or with two, and a row without an element, is an error.
func Mapped(rows []MappingRow) ([]MappingRow, error) {
	elements := jsdl.Elements()
	out := make([]MappingRow, 0, len(elements))
	used := make([]bool, len(rows))
	for _, e := range elements {
		found, depth := -1, 0
		for i, r := range rows {
			switch d := covers(r.Element, e); {
			case d > depth:
				found, depth = i, d
			case d == depth && d > 0:
				return nil, fmt.Errorf("the element %s has two rows: %s and %s", e, rows[found].Element, r.Element)
			}
		}
		if found < 0 {
			return nil, fmt.Errorf("the element %s has no row", e)
		}
		used[found] = true
		out = append(out, MappingRow{Element: e, Becomes: rows[found].Becomes, Note: rows[found].Note})
	}
	for i := range rows {
		if !used[i] {
			return nil, fmt.Errorf("the row %s is for no element", rows[i].Element)
		}
	}
	return out, nil
}

// covers says how exactly a row's name is for an element: 0 if not at all; more the
// further down its path the name ends, then the more of the path it names.
func covers(name, element string) int {
	const deeper = 100 // than any path has steps
	steps := strings.Split(element, "/")
	if name == element {
		return deeper*len(steps) + len(steps) + 1
	}
	for i, s := range steps {
		_, steps[i], _ = strings.Cut(s, ":")
	}
	for n := len(steps); n > 0 && name != ""; n-- {
		if strings.HasSuffix("/"+strings.Join(steps[:n], "/"), "/"+name) {
			return deeper*n + strings.Count(name, "/") + 1
		}
	}
	return 0
}
