package xmldoc

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/portolan-project/portolan/internal/testenv"
)

func mustRead(t testing.TB, s string) *Document {
	t.Helper()
	d, err := ReadBytes([]byte(s), Limits{})
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	return d
}

// snippets are documents with the verdict of XML 1.0 and Namespaces in XML 1.0;
// stricter marks what is well-formed and still not taken from strangers.
var snippets = []struct {
	name, doc string
	ok        bool
	reason    Reason
	stricter  bool
	at        string
}{
	{name: "empty element", doc: `<a/>`, ok: true},
	{name: "declaration", doc: `<?xml version="1.0" encoding='UTF-8' standalone = "yes" ?><a></a>`, ok: true},
	{name: "declaration in ASCII quotes", doc: "<?xml version='1.0'?>\n<a/>", ok: true},
	{name: "prolog and epilog", doc: "<!-- c --><?pi x?>\n<a/><!-- d --><?q?>\n", ok: true},
	{name: "byte order mark", doc: "\xEF\xBB\xBF<a/>", ok: true},
	{name: "entities", doc: `<a b="&lt;&amp;&quot;&apos;&#10;">&gt;&#x41;&#65;</a>`, ok: true},
	{name: "CDATA", doc: `<a><![CDATA[<&]]]]><![CDATA[>]]></a>`, ok: true},
	{name: "default namespace undone", doc: `<a xmlns="u"><b xmlns=""/></a>`, ok: true},
	{name: "same local name in two namespaces", doc: `<a xmlns:p="u" xmlns:q="v" p:x="1" q:x="2" x="3"/>`, ok: true},
	{name: "xml:lang", doc: `<a xml:lang="en"/>`, ok: true},
	{name: "xml declared", doc: `<a xmlns:xml="http://www.w3.org/XML/1998/namespace"/>`, ok: true},
	{name: "names beyond ASCII", doc: `<größe ñ="1"><日本/></größe>`, ok: true},
	{name: "supplementary letter", doc: "<a\U00010000/>", ok: true},
	{name: "space in end tag", doc: "<a></a\n\t>", ok: true},
	{name: "spaces about =", doc: "<a b = '1'/>", ok: true},
	{name: "bracket in text", doc: `<a>]]&gt; ]] > ]</a>`, ok: true},
	{name: "dashes", doc: `<a><!-- - - --></a>`, ok: true},
	{name: "greater in attribute", doc: `<a b=">"/>`, ok: true},
	{name: "C1 control", doc: "<a>\u0085\u0090</a>", ok: true},
	{name: "delete", doc: "<a>\x7f</a>", ok: true},
	{name: "leading zeros", doc: "<a>&#0000000065;</a>", ok: true},

	{name: "nothing", doc: ``},
	{name: "white space only", doc: "  \n"},
	{name: "text only", doc: `hello`, at: "1:1"},
	{name: "DOCTYPE", doc: `<!DOCTYPE a><a/>`, reason: Forbidden, stricter: true, at: "1:1"},
	{name: "DOCTYPE with entities", doc: "<?xml version='1.0'?>\n<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", reason: Forbidden, stricter: true, at: "2:1"},
	{name: "DOCTYPE after the root", doc: `<a/><!DOCTYPE a>`, reason: Forbidden},
	{name: "instruction inside", doc: `<a><?pi x?></a>`, reason: Forbidden, stricter: true, at: "1:4"},
	{name: "XML 1.1", doc: `<?xml version="1.1"?><a/>`, stricter: true},
	{name: "no version", doc: `<?xml encoding="UTF-8"?><a/>`},
	{name: "declaration order", doc: `<?xml version="1.0" standalone="yes" encoding="UTF-8"?><a/>`},
	{name: "standalone maybe", doc: `<?xml version="1.0" standalone="maybe"?><a/>`},
	{name: "declaration late", doc: ` <?xml version="1.0"?><a/>`, at: "1:2"},
	{name: "instruction called XML", doc: `<a/><?XML x?>`},
	{name: "instruction without a target", doc: `<? x?><a/>`},
	{name: "unknown entity", doc: `<a>&nbsp;</a>`, at: "1:4"},
	{name: "unclosed reference", doc: `<a>&amp</a>`},
	{name: "bare ampersand", doc: `<a>a & b</a>`},
	{name: "bare ampersand in attribute", doc: `<a b="a & b"/>`},
	{name: "reference to NUL", doc: `<a>&#0;</a>`},
	{name: "reference to a control", doc: `<a>&#x1F;</a>`},
	{name: "reference to a surrogate", doc: `<a>&#xD800;</a>`},
	{name: "reference to a noncharacter", doc: `<a>&#xFFFE;</a>`},
	{name: "reference beyond Unicode", doc: `<a>&#x110000;</a>`},
	{name: "reference far beyond", doc: `<a>&#99999999999999999999;</a>`},
	{name: "reference without digits", doc: `<a>&#;</a>`},
	{name: "reference with capital X", doc: `<a>&#X41;</a>`},
	{name: "hex digits in decimal", doc: `<a>&#4A;</a>`},
	{name: "unclosed", doc: `<a><b></a>`, at: "1:7"},
	{name: "never closed", doc: `<a>`},
	{name: "ends in a tag", doc: `<a b="1"`},
	{name: "ends in a value", doc: `<a b="1`},
	{name: "ends after <", doc: `<a><`},
	{name: "close without open", doc: `</a>`},
	{name: "close too much", doc: `<a/></a>`},
	{name: "longer end tag", doc: `<a></ab>`},
	{name: "attribute in end tag", doc: `<a></a b="1">`},
	{name: "second root", doc: `<a/><b/>`, at: "1:5"},
	{name: "text after", doc: `<a/>x`},
	{name: "reference after", doc: `<a/>&#32;`},
	{name: "CDATA after", doc: `<a/><![CDATA[]]>`},
	{name: "undeclared element prefix", doc: "<a>\n <p:b/></a>", at: "2:2"},
	{name: "undeclared attribute prefix", doc: `<a p:b="1"/>`},
	{name: "prefix declared on a sibling", doc: `<a><b xmlns:p="u"/><p:c/></a>`},
	{name: "duplicate attribute", doc: `<a b="1" b="2"/>`},
	{name: "duplicate by namespace", doc: `<a xmlns:p="u" xmlns:q="u" p:b="1" q:b="2"/>`},
	{name: "duplicate declaration", doc: `<a xmlns:p="u" xmlns:p="v"/>`},
	{name: "duplicate default declaration", doc: `<a xmlns="u" xmlns="u"/>`},
	{name: "duplicate among many", doc: `<a b1="" b2="" b3="" b4="" b5="" b6="" b7="" b8="" b9="" c1="" c2="" c3="" c4="" b1=""/>`},
	{name: "prefix undeclared", doc: `<a xmlns:p="u"><b xmlns:p=""/></a>`},
	{name: "xmlns declared", doc: `<a xmlns:xmlns="u"/>`},
	{name: "xmlns element", doc: `<xmlns:a/>`},
	{name: "xml bound elsewhere", doc: `<a xmlns:xml="u"/>`},
	{name: "other prefix for xml", doc: `<a xmlns:p="http://www.w3.org/XML/1998/namespace"/>`},
	{name: "default xml", doc: `<a xmlns="http://www.w3.org/XML/1998/namespace"/>`},
	{name: "xmlns namespace", doc: `<a xmlns:p="http://www.w3.org/2000/xmlns/"/>`},
	{name: "two colons", doc: `<a:b:c xmlns:a="u"/>`},
	{name: "leading colon", doc: `<:a/>`},
	{name: "trailing colon", doc: `<a:/>`},
	{name: "local part begins with a digit", doc: `<p:1 xmlns:p="u"/>`},
	{name: "name begins with a digit", doc: `<1a/>`},
	{name: "name begins with a dash", doc: `<-a/>`},
	{name: "multiplication sign in a name", doc: "<a\u00d7/>"},
	{name: "space before the name", doc: `< a/>`},
	{name: "no space between attributes", doc: `<a b="1"c="2"/>`, at: "1:9"},
	{name: "no value", doc: `<a b/>`},
	{name: "no quotes", doc: `<a b=1/>`},
	{name: "less in a value", doc: `<a b="<"/>`, at: "1:7"},
	{name: "CDATA end in text", doc: `<a>]]></a>`, at: "1:4"},
	{name: "double dash in a comment", doc: `<a><!-- -- --></a>`},
	{name: "three dashes end", doc: `<a><!-- ---></a>`},
	{name: "comment unclosed", doc: `<a><!-- </a>`},
	{name: "CDATA unclosed", doc: `<a><![CDATA[ </a>`},
	{name: "lower case cdata", doc: `<a><![cdata[]]></a>`},
	{name: "other declaration", doc: `<a><!ELEMENT b></a>`},
	{name: "slash in tag", doc: `<a / >`},
	{name: "NUL", doc: "<a>\x00</a>"},
	{name: "control in text", doc: "<a>\n\x01</a>", at: "2:1"},
	{name: "control in a value", doc: "<a b='\x0b'/>"},
	{name: "control in a comment", doc: "<a><!--\x02--></a>"},
	{name: "control in CDATA", doc: "<a><![CDATA[\x02]]></a>"},
	{name: "noncharacter", doc: "<a>\uFFFE</a>"},
	{name: "invalid UTF-8", doc: "<a>é\xff</a>", reason: Encoding, at: "1:5"},
	{name: "surrogate in UTF-8", doc: "<a>\xed\xa0\x80</a>", reason: Encoding},
	{name: "overlong UTF-8", doc: "<a>\xc0\xbc</a>", reason: Encoding},
	{name: "Latin-1", doc: "<?xml version='1.0' encoding='ISO-8859-1'?><a>\xe9</a>", reason: Encoding, stricter: true},
	{name: "another encoding, ASCII bytes", doc: "<?xml version='1.0' encoding='ISO-8859-1'?><a/>", reason: Encoding, stricter: true},
	{name: "says UTF-16 and is not", doc: "<?xml version='1.0' encoding='UTF-16'?><a/>", reason: Encoding},
}

func TestSnippets(t *testing.T) {
	for _, c := range snippets {
		d, err := Read(strings.NewReader(c.doc), Limits{})
		if c.ok {
			if err != nil {
				t.Errorf("%s: %v", c.name, err)
			} else if d.Root() == nil {
				t.Errorf("%s: no root", c.name)
			}
			continue
		}
		e, ok := errors.AsType[*Error](err)
		if !ok {
			t.Errorf("%s: accepted, or not an *Error: %v", c.name, err)
			continue
		}
		if e.Reason != c.reason {
			t.Errorf("%s: reason %d, want %d: %v", c.name, e.Reason, c.reason, e)
		}
		if c.at != "" && e.Pos.String() != c.at {
			t.Errorf("%s: at %s, want %s: %v", c.name, e.Pos, c.at, e)
		}
		if e.Pos.IsZero() || e.What == "" {
			t.Errorf("%s: place or sentence lacks: %v", c.name, e)
		}
	}
}

func TestUTF16(t *testing.T) {
	doc := "<?xml version='1.0' encoding='UTF-16'?><a b='é'>\U0001F600</a>"
	encode := func(s string, big bool, mark bool) []byte {
		var b []byte
		if mark {
			s = "\uFEFF" + s
		}
		for _, u := range utf16.Encode([]rune(s)) {
			if big {
				b = append(b, byte(u>>8), byte(u))
			} else {
				b = append(b, byte(u), byte(u>>8))
			}
		}
		return b
	}
	for _, big := range []bool{true, false} {
		for _, mark := range []bool{true, false} {
			d, err := ReadBytes(encode(doc, big, mark), Limits{})
			if err != nil {
				t.Errorf("big %v mark %v: %v", big, mark, err)
				continue
			}
			if got := Text(d.Root()); got != "\U0001F600" {
				t.Errorf("big %v mark %v: %q", big, mark, got)
			}
		}
	}
	bad := map[string][]byte{
		"odd length":        append(encode(doc, true, true), 0),
		"lone high":         append(encode("<a>", true, true), 0xD8, 0, 0, '<'),
		"lone low":          append(encode("<a>", true, true), 0xDC, 0, 0, '<'),
		"declared as UTF-8": encode("<?xml version='1.0' encoding='UTF-8'?><a/>", false, true),
	}
	for name, b := range bad {
		_, err := ReadBytes(b, Limits{})
		if e, ok := errors.AsType[*Error](err); !ok || e.Reason != Encoding {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ReadEncoded(bytes.NewReader(encode("<a/>", true, false)), "utf-16be", Limits{}); err != nil {
		t.Errorf("charset from outside: %v", err)
	}
	if _, err := ReadEncoded(strings.NewReader("<?xml version='1.0' encoding='latin1'?><a/>"), "UTF-8", Limits{}); err != nil {
		t.Errorf("charset goes before the declaration: %v", err)
	}
	if _, err := ReadEncoded(strings.NewReader("<a/>"), "koi8-r", Limits{}); err == nil {
		t.Error("an unknown charset was accepted")
	}
}

func TestLimits(t *testing.T) {
	wide := strings.Repeat("<b/>", 9)
	for _, c := range []struct {
		limit string
		l     Limits
		doc   string // just within; over is just beyond
		over  string
	}{
		{"Bytes", Limits{Bytes: 8}, "<a></a> ", "<a></a>  "},
		{"Depth", Limits{Depth: 2}, "<a><b/></a>", "<a><b><c/></b></a>"},
		{"Elements", Limits{Elements: 10}, "<a>" + wide + "</a>", "<a>" + wide + "<b/></a>"},
		{"Elements", Limits{Elements: 2}, "<a><!----></a>", "<a><!----><![CDATA[]]></a>"},
		{"Attributes", Limits{Attributes: 2}, "<a b='' c=''><d/></a>", "<a b='' c=''><d e=''/></a>"},
		{"AttributesPerElement", Limits{AttributesPerElement: 2}, "<a b='' c=''/>", "<a b='' c='' d=''/>"},
		{"Namespaces", Limits{Namespaces: 2}, "<a xmlns='u'><b xmlns:p='u'/><b xmlns:p='u'/></a>", "<a xmlns='u'><b xmlns:p='u' xmlns:q='u'/></a>"},
		{"Name", Limits{Name: 3}, "<abc/>", "<abcd/>"},
		{"Name", Limits{Name: 7}, "<a b:cdefg='' xmlns:b='u'/>", "<a b:cdefgh='' xmlns:b='u'/>"},
		{"AttributeValue", Limits{AttributeValue: 3}, "<a b='123'/>", "<a b='1234'/>"},
		{"Text", Limits{Text: 3}, "<a>123</a>", "<a>1234</a>"},
		{"Text", Limits{Text: 3}, "<a><![CDATA[123]]></a>", "<a><![CDATA[1234]]></a>"},
	} {
		if _, err := ReadBytes([]byte(c.doc), c.l); err != nil {
			t.Errorf("%s: %s: %v", c.limit, c.doc, err)
		}
		_, err := ReadBytes([]byte(c.over), c.l)
		if e, ok := errors.AsType[*Error](err); !ok || e.Reason != TooLarge || e.Limit != c.limit {
			t.Errorf("%s: %s: %v", c.limit, c.over, err)
		}
	}
}

type endless struct{ n int64 }

func (e *endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = ' '
	}
	e.n += int64(len(b))
	return len(b), nil
}

func TestReadStopsAtTheLimit(t *testing.T) {
	var src endless
	_, err := Read(&src, Limits{Bytes: 10_000})
	if e, ok := errors.AsType[*Error](err); !ok || e.Limit != "Bytes" {
		t.Errorf("%v", err)
	}
	if src.n > 10_001 {
		t.Errorf("%d bytes were read", src.n)
	}
	broken := io.MultiReader(strings.NewReader("<a>"), iotestErr{})
	if _, err := Read(broken, Limits{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("the reader's own error is lost: %v", err)
	}
}

type iotestErr struct{}

func (iotestErr) Read([]byte) (int, error) { return 0, io.ErrClosedPipe }

func captured(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(testenv.Shared(t), "samples", "captured", name))
	if err != nil {
		t.Fatal(err)
	}
	_, body, ok := bytes.Cut(b, []byte("\r\n\r\n"))
	if !ok {
		t.Fatalf("%s: no body", name)
	}
	return body
}

const benchMessage = "gridsam-2.3.0-plain-CreateActivity.request.http"

func BenchmarkRead(b *testing.B) {
	doc := captured(b, benchMessage)
	b.Run("xmldoc", func(b *testing.B) {
		b.SetBytes(int64(len(doc)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := ReadBytes(doc, Limits{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding-xml-tokens", func(b *testing.B) {
		b.SetBytes(int64(len(doc)))
		b.ReportAllocs()
		for b.Loop() {
			dec := xml.NewDecoder(bytes.NewReader(doc))
			for {
				if _, err := dec.Token(); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("encoding-xml-unmarshal", func(b *testing.B) {
		type any struct {
			XMLName  xml.Name
			Attrs    []xml.Attr `xml:",any,attr"`
			Text     string     `xml:",chardata"`
			Children []any      `xml:",any"`
		}
		b.SetBytes(int64(len(doc)))
		b.ReportAllocs()
		for b.Loop() {
			var v any
			if err := xml.Unmarshal(doc, &v); err != nil {
				b.Fatal(err)
			}
		}
	})
}
