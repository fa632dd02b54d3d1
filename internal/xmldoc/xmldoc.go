package xmldoc

import (
	"fmt"

	"github.com/beevik/etree"
)

// Limits bounds one document. The zero value of a field means its default.
type Limits struct {
	Bytes                int64 // of the document as received; default 8 MiB
	Depth                int   // nesting of elements; default 64
	Elements             int   // in the document; default 200 000
	Attributes           int   // in the document, namespace declarations included; default 400 000
	AttributesPerElement int   // default 128
	Namespaces           int   // declarations in scope at one place; default 256
	Name                 int   // bytes of a qualified name; default 1024
	AttributeValue       int   // bytes of an attribute value; default 64 KiB
	Text                 int   // bytes of one text node; default 4 MiB
}

// Position is a place in a document: the line and the column of a character,
// both counted from 1, the column in characters. The zero Position is unknown.
type Position struct {
	Line, Column int
}

// String gives "line:column".
func (p Position) String() string { return fmt.Sprintf("%d:%d", p.Line, p.Column) }

// IsZero reports whether the position is unknown.
func (p Position) IsZero() bool { return p.Line == 0 }

// Name is an expanded name: a namespace and a local part.
type Name struct {
	Space, Local string
}

// String gives "{space}local", or the local part alone in no namespace.
func (n Name) String() string {
	if n.Space == "" {
		return n.Local
	}
	return "{" + n.Space + "}" + n.Local
}

// Reason says why a document was refused.
type Reason uint8

// The reasons.
const (
	Malformed Reason = iota // not namespace-well-formed XML 1.0
	Forbidden               // well-formed, but of a kind not taken from strangers: DOCTYPE, processing instruction
	TooLarge                // a limit was passed; Error.Limit names it
	Encoding                // an encoding other than UTF-8 and UTF-16, or bytes that are not of it
)

// Error is a refusal, with the place.
type Error struct {
	Reason Reason
	Limit  string // for TooLarge: the field of Limits, e.g. "Depth"
	Pos    Position
	What   string // one sentence, safe to show to the sender
}

// Error gives the place and the sentence.
func (e *Error) Error() string { return e.Pos.String() + ": " + e.What }

// Document is one document, read. The tree under Root belongs to the caller;
// Raw, Position and Path speak of the elements as they were read.
type Document struct {
	root *etree.Element
	src  []byte // the document in UTF-8
	meta map[*etree.Element]meta
}

type meta struct {
	pos        Position
	space      string // resolved namespace
	start, end int    // offsets in src of the element, from '<' to past the last '>'
	tagEnd     int    // offset past the start tag's '>' (for an empty-element tag: end)
	nameEnd    int    // offset past the element's name in the start tag
}
