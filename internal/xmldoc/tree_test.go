package xmldoc

import (
	"fmt"
	"strings"
	"testing"

	"github.com/beevik/etree"
	"pgregory.net/rapid"
)

// picture writes what a document says, without how: expanded names, attributes
// in order, text in one piece. Two documents with one picture mean the same.
func picture(e *etree.Element) string {
	var b strings.Builder
	draw(&b, e)
	return b.String()
}

func draw(b *strings.Builder, e *etree.Element) {
	fmt.Fprintf(b, "<%s", NameOf(e))
	for i := range e.Attr {
		a := &e.Attr[i]
		if isDeclaration(a) {
			continue
		}
		space := ""
		if a.Space != "" {
			space, _ = lookupPrefix(e, a.Space)
		}
		fmt.Fprintf(b, " %s=%q", Name{space, a.Key}, a.Value)
	}
	b.WriteByte('>')
	text := ""
	flush := func() {
		if text != "" {
			fmt.Fprintf(b, "%q", text)
			text = ""
		}
	}
	for _, t := range e.Child {
		switch t := t.(type) {
		case *etree.CharData:
			text += t.Data
		case *etree.Element:
			flush()
			draw(b, t)
		case *etree.Comment:
			flush()
			fmt.Fprintf(b, "<!--%q-->", t.Data)
		}
	}
	flush()
	b.WriteString("</>")
}

func all(e *etree.Element) []*etree.Element {
	list := []*etree.Element{e}
	for _, c := range e.ChildElements() {
		list = append(list, all(c)...)
	}
	return list
}

func TestText(t *testing.T) {
	for doc, want := range map[string]string{
		`<a>one<!-- x -->two<![CDATA[<3>]]><b>no</b>four</a>`: "onetwo<3>four",
		"<a>a\r\nb\rc&#13;d</a>":                              "a\nb\nc\rd",
		"<a><![CDATA[a\r\nb\rc]]></a>":                        "a\nb\nc",
		`<a/>`:                                                "",
		`<a>&#x1F600;é</a>`:                                   "\U0001F600é",
		`<a>x]]</a>`:                                          "x]]",
	} {
		if got := Text(mustRead(t, doc).Root()); got != want {
			t.Errorf("%s: %q, want %q", doc, got, want)
		}
	}
	if got, _ := Attr(mustRead(t, "<a b='1\r\n2\t3\n4&#10;5&#x9;6&#xD;7  8'/>").Root(), "", "b"); got != "1 2 3 4\n5\t6\r7  8" {
		t.Errorf("attribute value %q", got)
	}
}

func TestPositionsAndPaths(t *testing.T) {
	d := mustRead(t, "<a>\r\n  <é/>ü<b\n/>\r<b><c/></b>\n\n   <c/></a>")
	want := map[string]string{"/a": "1:1", "/a/é": "2:3", "/a/b[1]": "2:8", "/a/b[2]": "4:1", "/a/b[2]/c": "4:4", "/a/c": "6:4"}
	got := map[string]string{}
	for _, e := range all(d.Root()) {
		got[d.Path(e)] = d.Position(e).String()
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if stranger := etree.NewElement("x"); !d.Position(stranger).IsZero() || d.Raw(stranger) != nil || string(d.Standalone(stranger)) != "<x/>" {
		t.Error("an element of another document is known")
	}
}

func TestNames(t *testing.T) {
	d := mustRead(t, `<a xmlns="u" xmlns:p="v" b="0" p:b="1"><p:c/><d xmlns=""/><e>p:x</e></a>`)
	a := d.Root()
	for _, e := range all(a) {
		if d.Name(e) != NameOf(e) {
			t.Errorf("%s and %s", d.Name(e), NameOf(e))
		}
	}
	if !Is(a, "u", "a") || Is(a, "", "a") || Is(nil, "u", "a") || Child(a, "v", "c") == nil || Child(a, "", "d") == nil || Child(a, "u", "d") != nil {
		t.Error("names are confused")
	}
	if v, ok := Attr(a, "v", "b"); v != "1" || !ok {
		t.Errorf("p:b is %q", v)
	}
	if v, ok := Attr(a, "", "b"); v != "0" || !ok {
		t.Errorf("b is %q", v)
	}
	if _, ok := Attr(a, "", "xmlns"); ok {
		t.Error("a declaration counts as attribute")
	}
	if p, ok := Prefix(Child(a, "v", "c"), "v"); p != "p" || !ok {
		t.Errorf("prefix %q", p)
	}
	for q, want := range map[string]string{"p:x": "{v}x", "x": "{u}x", " p:x\n": "{v}x", "xml:lang": "{" + NSXML + "}lang", "q:x": "", "": "", "p:": "", ":x": "", "p:x:y": "", "1": ""} {
		got, err := ResolveQName(a, q)
		if (err != nil) != (want == "") || err == nil && got.String() != want {
			t.Errorf("%q: %s %v", q, got, err)
		}
	}
	for s, want := range map[string]string{"": "", " a ": "a", "a b": "a b", "a  b": "a b", "\ta\r\nb\n": "a b", "a\u00a0 b": "a\u00a0 b"} {
		if got := Collapse(s); got != want {
			t.Errorf("Collapse(%q) is %q", s, got)
		}
	}
}

func TestStandalone(t *testing.T) {
	d := mustRead(t, `<s:E xmlns:s="urn:s" xmlns="urn:d" xmlns:p="urn:p" xmlns:q="a&amp;&quot;b"><w><j xmlns:p='urn:own' p:a = '1' ><k/>p:x</j ></w><n xmlns=""><m/></n><o/></s:E>`)
	el := func(tag string) *etree.Element {
		for _, e := range all(d.Root()) {
			if e.Tag == tag {
				return e
			}
		}
		t.Fatal(tag)
		return nil
	}
	for tag, want := range map[string]string{
		"j": `<j xmlns="urn:d" xmlns:q="a&amp;&quot;b" xmlns:s="urn:s" xmlns:p='urn:own' p:a = '1' ><k/>p:x</j >`,
		"n": `<n xmlns:p="urn:p" xmlns:q="a&amp;&quot;b" xmlns:s="urn:s" xmlns=""><m/></n>`,
		"m": `<m xmlns:p="urn:p" xmlns:q="a&amp;&quot;b" xmlns:s="urn:s"/>`,
	} {
		if got := string(d.Standalone(el(tag))); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", tag, got, want)
		}
	}
	if got := string(d.Raw(el("j"))); got != `<j xmlns:p='urn:own' p:a = '1' ><k/>p:x</j >` {
		t.Errorf("Raw: %s", got)
	}
	job := Name{"urn:job", "Job"}
	for _, c := range []struct{ tag, prefix, want string }{
		{"j", "jsdl", `<jsdl:Job xmlns="urn:d" xmlns:q="a&amp;&quot;b" xmlns:s="urn:s" xmlns:jsdl="urn:job" xmlns:p='urn:own' p:a = '1' ><k/>p:x</jsdl:Job>`},
		{"j", "p", `<p1:Job xmlns="urn:d" xmlns:q="a&amp;&quot;b" xmlns:s="urn:s" xmlns:p1="urn:job" xmlns:p='urn:own' p:a = '1' ><k/>p:x</p1:Job>`},
		{"m", "", `<ns1:Job xmlns:p="urn:p" xmlns:q="a&amp;&quot;b" xmlns:s="urn:s" xmlns:ns1="urn:job"/>`},
	} {
		got := d.RenamedStandalone(el(c.tag), c.prefix, job)
		if string(got) != c.want {
			t.Errorf("%s %s:\ngot  %s\nwant %s", c.tag, c.prefix, got, c.want)
		}
		again := mustRead(t, string(got))
		if NameOf(again.Root()) != job {
			t.Errorf("renamed to %s", NameOf(again.Root()))
		}
	}
	if got := string(d.RenamedStandalone(el("o"), "s", Name{"urn:s", "X"})); got != `<s:X xmlns="urn:d" xmlns:p="urn:p" xmlns:q="a&amp;&quot;b" xmlns:s="urn:s"/>` {
		t.Errorf("a prefix that is bound already: %s", got)
	}
	if got := string(d.RenamedStandalone(el("o"), "", Name{"urn:d", "X"})); !strings.HasPrefix(got, "<X ") {
		t.Errorf("the default namespace that is bound already: %s", got)
	}
}

func TestDetachDeclaresWhatCanBeUsed(t *testing.T) {
	d := mustRead(t, `<r xmlns="d" xmlns:a="ua" xmlns:b="ub" xmlns:c="uc" xmlns:e="ue" xmlns:f="uf" xmlns:no="un"><x a:i="b:v" j="count(//c:y)"><e:z/>5-f:q</x></r>`)
	got := string(Marshal(Detach(d.Root().ChildElements()[0])))
	want := `<x a:i="b:v" j="count(//c:y)" xmlns="d" xmlns:a="ua" xmlns:b="ub" xmlns:c="uc" xmlns:e="ue" xmlns:f="uf"><e:z/>5-f:q</x>`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if d.Root().Parent() != nil || Detach(d.Root()).Parent() != nil {
		t.Error("a root has a parent")
	}
}

func TestMarshalEscapes(t *testing.T) {
	e := etree.NewElement("a")
	e.CreateAttr("b", "<&>\"'\r\n\t\x00\xff\uFFFE")
	e.CreateText("<&>\"'\r\n\t\x01\xc3(\uFFFF]]>")
	e.CreateComment("--a---")
	e.CreateCData("<x>")
	e.CreateProcInst("p", "q")
	e.CreateDirective("DOCTYPE x")
	d := mustRead(t, string(Marshal(e)))
	if v, _ := Attr(d.Root(), "", "b"); v != "<&>\"'\r\n\t\uFFFD\uFFFD\uFFFD" {
		t.Errorf("attribute %q", v)
	}
	if v := Text(d.Root()); v != "<&>\"'\r\n\t\uFFFD\uFFFD(\uFFFD]]><x>" {
		t.Errorf("text %q", v)
	}
}

// TestMarshalRoundTrip: any tree of legal names, whatever its strings, is read
// back as it was.
func TestMarshalRoundTrip(t *testing.T) {
	legal := rapid.StringOf(rapid.Custom(func(t *rapid.T) rune {
		r := rapid.Rune().Draw(t, "r")
		if !isChar(r) {
			return '\n'
		}
		return r
	}))
	names := rapid.SampledFrom([]string{"a", "b", "ü", "_x-1.2", "p:c", "q:d"})
	var element func(*rapid.T, int) *etree.Element
	element = func(t *rapid.T, depth int) *etree.Element {
		e := etree.NewElement(names.Draw(t, "name"))
		for range rapid.IntRange(0, 3).Draw(t, "attributes") {
			e.CreateAttr(names.Draw(t, "attribute"), legal.Draw(t, "value"))
		}
		for range rapid.IntRange(0, 3).Draw(t, "children") {
			switch rapid.IntRange(0, 2).Draw(t, "kind") {
			case 0:
				e.CreateText(legal.Draw(t, "text"))
			case 1:
				e.CreateCData(legal.Draw(t, "cdata"))
			case 2:
				if depth < 5 {
					e.AddChild(element(t, depth+1))
				}
			}
		}
		return e
	}
	rapid.Check(t, func(t *rapid.T) {
		e := element(t, 0)
		e.CreateAttr("xmlns:p", "urn:p")
		e.CreateAttr("xmlns:q", "urn:q")
		b := Marshal(e)
		d, err := ReadBytes(b, Limits{})
		if err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		if got, want := picture(d.Root()), picture(e); got != want {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
	})
}

func FuzzRead(f *testing.F) {
	for _, c := range snippets {
		f.Add([]byte(c.doc))
	}
	f.Add([]byte(`<s:E xmlns:s="urn:s" xmlns="urn:d"><w><j xmlns:p='urn:own' p:a = '1' ><k/>p:x</j ></w><n xmlns=""><m/></n></s:E>`))
	f.Add([]byte("\xfe\xff\x00<\x00a\x00/\x00>"))
	l := Limits{Bytes: 1 << 16, Depth: 16, Elements: 1000}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := ReadBytes(b, l)
		if err != nil {
			e, ok := err.(*Error) //nolint:errorlint // it must be this and nothing around it
			if !ok || e.What == "" || len(e.What) > 2000 {
				t.Fatalf("%T %v", err, err)
			}
			return
		}
		want := picture(d.Root())
		once := Marshal(d.Root())
		again, err := ReadBytes(once, Limits{})
		if err != nil {
			t.Fatalf("Marshal wrote %q: %v", once, err)
		}
		if got := picture(again.Root()); got != want {
			t.Fatalf("read, written, read:\ngot  %s\nwant %s", got, want)
		}
		if twice := Marshal(again.Root()); string(twice) != string(once) {
			t.Fatalf("not a fixed point:\n%s\n%s", once, twice)
		}
		for i, e := range all(d.Root()) {
			if i > 20 {
				break
			}
			want := picture(e)
			for _, b := range [][]byte{d.Standalone(e), Marshal(Detach(e))} {
				alone, err := ReadBytes(b, Limits{})
				if err != nil {
					t.Fatalf("alone: %q: %v", b, err)
				}
				if got := picture(alone.Root()); got != want {
					t.Fatalf("alone:\ngot  %s\nwant %s", got, want)
				}
			}
			n := Name{"urn:new", "New"}
			renamed, err := ReadBytes(d.RenamedStandalone(e, e.Space, n), Limits{})
			if err != nil || NameOf(renamed.Root()) != n {
				t.Fatalf("renamed: %q: %v", d.RenamedStandalone(e, e.Space, n), err)
			}
			_, gotRest, _ := strings.Cut(picture(renamed.Root()), "New")
			if _, wantRest, _ := strings.Cut(want, NameOf(e).String()); gotRest != wantRest {
				t.Fatalf("renamed:\ngot  %s\nwant %s", gotRest, wantRest)
			}
			if d.Position(e).IsZero() || d.Path(e) == "" {
				t.Fatal("no place")
			}
		}
	})
}
