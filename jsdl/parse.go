package jsdl

import (
	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Options changes how documents are read. The zero value is strict.
type Options struct {
	File    string   // named in problems; may be empty
	Lenient bool     // take what standards' E1 lists (missing CreationFlag, order, FileSystemName…) with a warning
	Ignore  []string // namespaces whose elements may be ignored though they could change what runs
}

// Severity says what a problem means for the document.
type Severity uint8

// The severities.
const (
	Warning     Severity = iota // worth saying; the document is taken
	Unsupported                 // valid, but not to be had here: UnsupportedFeature
	Invalid                     // breaks the standard: InvalidRequestMessage
)

// Problem is one finding in a document.
type Problem struct {
	File     string
	Pos      xmldoc.Position
	Element  string // path of the element: "/JobDefinition/JobDescription/Resources"
	Severity Severity
	What     string // what is wrong
	Want     string // what would be right
}

// Problems are findings in document order.
type Problems []Problem

// Parse reads a JSDL document. The definition is nil when the document cannot
// be read at all; the problems say what stands against taking it. A document
// with neither Invalid nor Unsupported problems can be run as it says.
func Parse(b []byte, o Options) (*JobDefinition, Problems) { panic("to be written") }

// Decode reads the JobDefinition at e, an element of d.
func Decode(d *xmldoc.Document, e *etree.Element, o Options) (*JobDefinition, Problems) {
	panic("to be written")
}

// Element writes the definition with fixed prefixes: the same value gives the same tree.
func (j *JobDefinition) Element() *etree.Element { panic("to be written") }

// Marshal writes the definition as a UTF-8 document.
func (j *JobDefinition) Marshal() []byte { panic("to be written") }

// Program gives what the job runs, of whichever application it has.
func (j *JobDefinition) Program() Program { panic("to be written") }

// Name gives the job's name, or "".
func (j *JobDefinition) Name() string { panic("to be written") }
