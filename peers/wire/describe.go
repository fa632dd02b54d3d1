package wire

import (
	"fmt"
	"strings"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Field is one field of a message, as the schema and the document describe it.
type Field struct {
	Name string
	// Kind is string, enum, integer, milliseconds, moment, boolean (attributes), text,
	// base64, string where Most is not 0, or "" for an element with fields of its own
	// (child elements).
	Kind      string
	Low, High int64 // of a number, or of the bytes of a string, text or base64
	Form      string
	Values    []string // of an enum
	Required  bool
	// Least and Most are how many child elements there are; Most 0 is an attribute.
	Least, Most int
	Meaning     string
	Type        *Type // of Kind ""
}

// Type is a message, or an element of one, with its fields in order.
type Type struct {
	Name    string
	Meaning string
	Fields  []Field
	Items   bool // any number of items follow, up to MaxItems
}

func (v *visit) describe(f Field) { v.d.Fields = append(v.d.Fields, f) }

func (v *visit) describeType(f Field, fields func(*visit)) {
	f.Type = &Type{Name: f.Name}
	fields(&visit{mode: describing, err: v.err, d: f.Type})
	v.describe(f)
}

func describe(name, meaning string, m Message) *Type {
	t := &Type{Name: name, Meaning: meaning}
	var err error
	m.visit(&visit{mode: describing, err: &err, d: t})
	return t
}

// Operations describes the messages that are bodies, requests and answers in turn.
func Operations() []*Type {
	var out []*Type
	for _, o := range operations {
		out = append(out, describe(o.name, o.meaning, o.request()), describe(o.name+"Response", "Answers "+o.name+".", o.answer()))
	}
	return out
}

// Items describes the messages that travel as items.
func Items() []*Type {
	var out []*Type
	for _, i := range items {
		out = append(out, describe(i.name, i.meaning, i.make()))
	}
	return out
}

// Bound tells what values the field takes, in words.
func (f *Field) Bound() string {
	var b string
	switch f.Kind {
	case "string", "text":
		b = fmt.Sprintf("%d to %d bytes", f.Low, f.High)
		if f.Low == f.High {
			b = fmt.Sprintf("%d bytes", f.Low)
		}
		if f.Form != "" {
			b += ", " + f.Form
		}
	case "base64":
		b = fmt.Sprintf("%d to %d bytes before encoding", f.Low, f.High)
	case "integer", "milliseconds":
		b = fmt.Sprintf("%d to %d", f.Low, f.High)
	case "enum":
		b = strings.Join(f.Values, ", ")
	case "moment":
		b = "years 1970 to 9999, UTC"
	case "boolean":
		b = "true, false"
	}
	if f.Most > 1 {
		b = strings.TrimPrefix(fmt.Sprintf("%s, %d to %d times", b, f.Least, f.Most), ", ")
	}
	return b
}

// Tables writes the fields of types as tables for the document.
func Tables(types []*Type) string {
	var b strings.Builder
	for _, t := range types {
		fmt.Fprintf(&b, "\n#### %s\n\n%s\n", t.Name, t.Meaning)
		if len(t.Fields) > 0 {
			b.WriteString("\n| field | type | bound | meaning |\n|---|---|---|---|\n")
			tableRows(&b, "", t)
		}
	}
	return b.String()
}

func tableRows(b *strings.Builder, within string, t *Type) {
	for _, f := range t.Fields {
		name, kind := within+"@"+f.Name, f.Kind
		if f.Most > 0 {
			name = within + f.Name
			if kind == "" {
				kind = "element"
			}
		}
		if f.Required {
			name = "**" + name + "**"
		}
		fmt.Fprintf(b, "| %s | %s | %s | %s |\n", name, kind, f.Bound(), f.Meaning)
		if f.Type != nil {
			tableRows(b, within+f.Name+"/", f.Type)
		}
	}
	if t.Items {
		fmt.Fprintf(b, "| %sitems | elements | 0 to %d | the items @first, @first + 1, … in order: any of those below |\n", within, MaxItems)
	}
}

// Schema writes the XML Schema of all messages.
func Schema() []byte {
	b := new(strings.Builder)
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>
<!-- The peer protocol of Portolan: written by package peers/wire from its messages. -->
<xsd:schema targetNamespace="` + NS + `"
    xmlns:p="` + NS + `"
    xmlns:xsd="http://www.w3.org/2001/XMLSchema"
    elementFormDefault="qualified" attributeFormDefault="unqualified">
`)
	for _, t := range append(Operations(), Items()...) {
		fmt.Fprintf(b, "  <xsd:element name=\"%s\">\n", t.Name)
		schemaType(b, "    ", t)
		b.WriteString("  </xsd:element>\n")
	}
	for _, t := range []*Type{describe("PeerFault", "", new(Fault)), describe("Trace", "", new(Trace))} {
		fmt.Fprintf(b, "  <xsd:element name=\"%s\">\n", t.Name)
		schemaType(b, "    ", t)
		b.WriteString("  </xsd:element>\n")
	}
	b.WriteString("  <xsd:group name=\"Item\">\n    <xsd:choice>\n")
	for _, i := range items {
		fmt.Fprintf(b, "      <xsd:element ref=\"p:%s\"/>\n", i.name)
	}
	b.WriteString("    </xsd:choice>\n  </xsd:group>\n</xsd:schema>\n")
	return []byte(b.String())
}

func schemaType(b *strings.Builder, in string, t *Type) {
	fmt.Fprintf(b, "%s<xsd:complexType>\n%s  <xsd:sequence>\n", in, in)
	for i := range t.Fields {
		if f := &t.Fields[i]; f.Most > 0 {
			fmt.Fprintf(b, "%s    <xsd:element name=\"%s\" minOccurs=\"%d\" maxOccurs=\"%d\">\n", in, f.Name, f.Least, f.Most)
			annotate(b, in+"      ", f.Meaning)
			if f.Type != nil {
				schemaType(b, in+"      ", f.Type)
			} else {
				schemaSimple(b, in+"      ", f)
			}
			fmt.Fprintf(b, "%s    </xsd:element>\n", in)
		}
	}
	if t.Items {
		fmt.Fprintf(b, "%s    <xsd:group ref=\"p:Item\" minOccurs=\"0\" maxOccurs=\"%d\"/>\n", in, MaxItems)
	}
	fmt.Fprintf(b, "%s    <xsd:any namespace=\"##other\" processContents=\"lax\" minOccurs=\"0\" maxOccurs=\"unbounded\"/>\n%s  </xsd:sequence>\n", in, in)
	for i := range t.Fields {
		if f := &t.Fields[i]; f.Most == 0 {
			use := ""
			if f.Required {
				use = ` use="required"`
			}
			fmt.Fprintf(b, "%s  <xsd:attribute name=\"%s\"%s>\n", in, f.Name, use)
			annotate(b, in+"    ", f.Meaning)
			schemaSimple(b, in+"    ", f)
			fmt.Fprintf(b, "%s  </xsd:attribute>\n", in)
		}
	}
	fmt.Fprintf(b, "%s  <xsd:anyAttribute namespace=\"##other\" processContents=\"lax\"/>\n%s</xsd:complexType>\n", in, in)
}

func annotate(b *strings.Builder, in, s string) {
	fmt.Fprintf(b, "%s<xsd:annotation><xsd:documentation>%s</xsd:documentation></xsd:annotation>\n", in, xmldoc.AppendText(nil, s))
}

// schemaSimple writes the type of a value. Lengths in XML Schema count characters, and
// ours bytes: the schema takes no less than the bounds do.
func schemaSimple(b *strings.Builder, in string, f *Field) {
	base := map[string]string{"string": "string", "text": "string", "enum": "string", "integer": "long", "milliseconds": "long", "moment": "dateTime", "boolean": "boolean", "base64": "base64Binary"}[f.Kind]
	fmt.Fprintf(b, "%s<xsd:simpleType><xsd:restriction base=\"xsd:%s\">", in, base)
	switch f.Kind {
	case "string", "text", "base64":
		low := f.Low
		if low > 1 && f.Kind != "base64" {
			low = 1
		}
		fmt.Fprintf(b, `<xsd:minLength value="%d"/><xsd:maxLength value="%d"/>`, low, f.High)
	case "integer", "milliseconds":
		fmt.Fprintf(b, `<xsd:minInclusive value="%d"/><xsd:maxInclusive value="%d"/>`, f.Low, f.High)
	case "enum":
		for _, x := range f.Values {
			fmt.Fprintf(b, `<xsd:enumeration value="%s"/>`, x)
		}
	}
	b.WriteString("</xsd:restriction></xsd:simpleType>\n")
}
