package xmldoc

import "fmt"

// Limits bounds one document. The zero value of a field means its default.
type Limits struct {
	Bytes                int64 // of the document as received; default 8 MiB
	Depth                int   // nesting of elements; default 64
	Elements             int   // in the document, comments and CDATA sections counted too; default 200 000
	Attributes           int   // in the document, namespace declarations included; default 400 000
	AttributesPerElement int   // default 128
	Namespaces           int   // declarations in scope at one place; default 256
	Name                 int   // bytes of a qualified name; default 1024
	AttributeValue       int   // bytes of an attribute value; default 64 KiB
	Text                 int   // bytes of one text node; default 4 MiB
}

// The defaults of Limits.
const (
	defaultBytes                = 8 << 20
	defaultDepth                = 64
	defaultElements             = 200_000
	defaultAttributes           = 400_000
	defaultAttributesPerElement = 128
	defaultNamespaces           = 256
	defaultName                 = 1024
	defaultAttributeValue       = 64 << 10
	defaultText                 = 4 << 20

	// A document's offsets are kept in 32 bits.
	maxBytes = 1 << 30
)

// EnsureDefaults gives l with its zero fields filled in.
func (l Limits) EnsureDefaults() Limits {
	fill := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	if l.Bytes <= 0 {
		l.Bytes = defaultBytes
	}
	l.Bytes = min(l.Bytes, maxBytes)
	fill(&l.Depth, defaultDepth)
	fill(&l.Elements, defaultElements)
	fill(&l.Attributes, defaultAttributes)
	fill(&l.AttributesPerElement, defaultAttributesPerElement)
	fill(&l.Namespaces, defaultNamespaces)
	fill(&l.Name, defaultName)
	fill(&l.AttributeValue, defaultAttributeValue)
	fill(&l.Text, defaultText)
	return l
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
	// Charset is, for Encoding, the name of one that is not supported; "" where
	// the bytes are not of their encoding.
	Charset string
	Pos     Position
	What    string // one sentence, safe to show to the sender
}

// Error gives the place and the sentence.
func (e *Error) Error() string { return e.Pos.String() + ": " + e.What }
