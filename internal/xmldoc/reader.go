package xmldoc

import (
	"io"

	"github.com/beevik/etree"
)

// Read reads one document from r, at most l.Bytes of it. The error is an *Error
// for what the sender did, or r's own.
func Read(r io.Reader, l Limits) (*Document, error) { panic("to be written") }

// ReadBytes reads one document. The document keeps b; the caller leaves it be.
func ReadBytes(b []byte, l Limits) (*Document, error) { panic("to be written") }

// Root gives the root element.
func (d *Document) Root() *etree.Element { return d.root }

// Position gives where the element's start tag began; zero for an element that
// was not read with the document.
func (d *Document) Position(e *etree.Element) Position { return d.meta[e].pos }

// Name gives the element's expanded name without walking up the tree where it was read with d.
func (d *Document) Name(e *etree.Element) Name { panic("to be written") }

// Path gives an XPath-like path of local names with positions where siblings
// repeat: "/JobDefinition/JobDescription/DataStaging[2]/Source".
func (d *Document) Path(e *etree.Element) string { panic("to be written") }

// Raw gives the element's bytes as they were read (UTF-8), without the
// declarations it inherits.
func (d *Document) Raw(e *etree.Element) []byte { panic("to be written") }

// Standalone gives the element as a document of its own: its own bytes, with
// the namespace declarations that it inherits added to its start tag. Reading it
// again gives the same expanded names, attributes and text.
func (d *Document) Standalone(e *etree.Element) []byte { panic("to be written") }

// RenamedStandalone is Standalone with the root element's name replaced; the
// prefix is declared on it. Children and their bytes stay as they are.
func (d *Document) RenamedStandalone(e *etree.Element, prefix string, n Name) []byte {
	panic("to be written")
}

// NameOf gives an element's expanded name by walking up the tree.
func NameOf(e *etree.Element) Name { panic("to be written") }

// Is reports whether e has the expanded name.
func Is(e *etree.Element, space, local string) bool { panic("to be written") }

// Child gives the first child element of that expanded name, or nil.
func Child(e *etree.Element, space, local string) *etree.Element { panic("to be written") }

// Text gives the character data directly inside e, CDATA included, comments left
// out, pieces joined; white space kept.
func Text(e *etree.Element) string { panic("to be written") }

// Collapse applies the white space rule "collapse" of XML Schema part 2 §4.3.6.
func Collapse(s string) string { panic("to be written") }

// ResolveQName resolves a QName in content ("p:local") by the declarations in
// scope at e; without a prefix the default namespace applies.
func ResolveQName(e *etree.Element, qname string) (Name, error) { panic("to be written") }

// Detach gives a deep copy of e, without parent, that declares every namespace
// prefix in scope at e that its content could use.
func Detach(e *etree.Element) *etree.Element { panic("to be written") }

// Marshal writes an element that was built or detached as a UTF-8 document:
// everything escaped, characters that XML 1.0 does not allow replaced by U+FFFD.
// The same tree gives the same bytes. It adds no white space.
func Marshal(e *etree.Element) []byte { panic("to be written") }
