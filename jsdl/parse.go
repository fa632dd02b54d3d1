package jsdl

import (
	"errors"
	"slices"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Options changes how documents are read. The zero value is strict.
type Options struct {
	File    string   // named in problems; may be empty
	Lenient bool     // take the habits of real clients that lenient.go lists, each with a warning
	Ignore  []string // namespaces whose elements may be ignored though they could change what runs
}

// Parse reads a JSDL document. The definition is nil when the document cannot
// be read at all; the problems say what stands against taking it. A document
// with neither Invalid nor Unsupported problems can be run as it says.
func Parse(b []byte, o Options) (*JobDefinition, Problems) {
	doc, ps := open(b, o)
	if doc == nil {
		return nil, ps
	}
	return Decode(doc, doc.Root(), o)
}

// open reads the XML of a file; the document is nil when it is none.
func open(b []byte, o Options) (*xmldoc.Document, Problems) {
	doc, err := xmldoc.ReadBytes(b, xmldoc.Limits{})
	if err == nil {
		return doc, nil
	}
	p := Problem{File: o.File, Severity: Invalid, schema: true, What: err.Error(), Want: "expected a well-formed XML document"}
	if x, ok := errors.AsType[*xmldoc.Error](err); ok {
		p.Pos, p.What = x.Pos, x.What
		switch x.Reason {
		case xmldoc.Forbidden, xmldoc.Encoding:
			p.Want = "" // these say themselves what to change
		case xmldoc.TooLarge:
			p.Want = "make the document smaller"
		case xmldoc.Malformed:
		}
	}
	return nil, Problems{p}
}

// Decode reads the JobDefinition at e, an element of doc.
func Decode(doc *xmldoc.Document, e *etree.Element, o Options) (*JobDefinition, Problems) {
	d := decoder{doc: doc, root: e, opts: o}
	if n := d.name(e); n.Space != NS || n.Local != "JobDefinition" {
		what := "the document is a " + n.String() + ", not a job definition"
		if n.Local == "JobDefinition" {
			what = "JobDefinition is in no namespace"
			if n.Space != "" {
				what = "JobDefinition is in the namespace " + n.Space
			}
		}
		d.invalid(e, what,
			"expected the root JobDefinition in the namespace "+NS)
		return nil, d.problems
	}
	j := new(JobDefinition)
	read(&d, e, j, &jobDefinitionType)
	d.rules(j)
	d.sort()
	return j, d.problems
}

// sort puts the problems, found in the order of the walk, as people read: from the top.
func (d *decoder) sort() {
	slices.SortStableFunc(d.problems, func(a, b Problem) int {
		if c := a.Pos.Line - b.Pos.Line; c != 0 {
			return c
		}
		return a.Pos.Column - b.Pos.Column
	})
}
