package jsdl

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Severity says what a problem means for the document.
type Severity uint8

// The severities.
const (
	Warning     Severity = iota // worth saying; the document is taken
	Unsupported                 // valid, but not to be had here: UnsupportedFeature
	Invalid                     // breaks the standard: InvalidRequestMessage
)

const numSeverities = int(Invalid) + 1

// String gives the severity in a word.
func (s Severity) String() string {
	switch s {
	case Warning:
		return "warning"
	case Unsupported:
		return "unsupported"
	case Invalid:
		return "invalid"
	}
	return "severity " + strconv.Itoa(int(s))
}

// Problem is one finding in a document.
type Problem struct {
	File     string
	Pos      xmldoc.Position
	Element  string // path of the element: "/JobDefinition/JobDescription/Resources"
	Name     xmldoc.Name
	Severity Severity
	What     string // what is wrong
	Want     string // what would be right

	schema bool // the schema itself forbids it, not only the specification's prose
}

// String gives "file:line:column: element: what; want", leaving out what is not known.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		b.WriteByte(':')
	}
	if !p.Pos.IsZero() {
		b.WriteString(p.Pos.String())
		b.WriteByte(':')
	}
	if b.Len() > 0 {
		b.WriteByte(' ')
	}
	b.WriteString(p.Sentence())
	return b.String()
}

// Error is String, so that a problem can be returned as an error.
func (p Problem) Error() string { return p.String() }

// Sentence gives "element: what; want": the problem without the place.
func (p Problem) Sentence() string {
	s := p.What
	if p.Element != "" {
		s = p.Element + ": " + s
	}
	if p.Want != "" {
		s += "; " + p.Want
	}
	return s
}

// Problems are findings in document order.
type Problems []Problem

// Of gives the problems of one severity.
func (ps Problems) Of(s Severity) Problems {
	var out Problems
	for _, p := range ps {
		if p.Severity == s {
			out = append(out, p)
		}
	}
	return out
}

// Invalid gives what breaks the standard.
func (ps Problems) Invalid() Problems { return ps.Of(Invalid) }

// Unsupported gives what is valid but not to be had here.
func (ps Problems) Unsupported() Problems { return ps.Of(Unsupported) }

// Warnings gives what is worth saying though the document is taken.
func (ps Problems) Warnings() Problems { return ps.Of(Warning) }

// shown bounds how many problems one error's sentence tells.
const shown = 5

// Err gives an error of kind fail.Invalid when there is an invalid part, else of
// fail.Unsupported when there is an unsupported one, else nil. Its public
// sentence tells the first ones with their places.
func (ps Problems) Err() error {
	for _, k := range []struct {
		severity Severity
		kind     fail.Kind
	}{{Invalid, fail.Invalid}, {Unsupported, fail.Unsupported}} {
		of := ps.Of(k.severity)
		if len(of) == 0 {
			continue
		}
		var b strings.Builder
		for i, p := range of {
			if i == shown {
				fmt.Fprintf(&b, "\nand %d more", len(of)-shown)
				break
			}
			if i > 0 {
				b.WriteByte('\n')
			}
			b.WriteString(p.String())
		}
		return &fail.Error{Op: "jsdl.Parse", Kind: k.kind, Subject: of[0].Element, Public: b.String()}
	}
	return nil
}
