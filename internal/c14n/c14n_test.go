package c14n_test

import (
	"bytes"
	"crypto/sha256"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/beevik/etree"
	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/internal/c14n"
	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

func read(t testing.TB, s string) *etree.Element {
	t.Helper()
	d, err := xmldoc.ReadBytes([]byte(s), xmldoc.Limits{})
	if err != nil {
		t.Fatalf("%v\n%s", err, s)
	}
	return d.Root()
}

// at gives the element at a way of child numbers.
func at(e *etree.Element, way ...int) *etree.Element {
	for _, i := range way {
		e = e.ChildElements()[i]
	}
	return e
}

func TestAppend(t *testing.T) {
	for _, c := range []struct {
		name, doc string
		way       []int
		prefixes  []string
		want      string
	}{
		{"unused declarations are left out", `<a xmlns:x="u:x" xmlns:y="u:y"><y:b/></a>`, nil, nil, `<a><y:b xmlns:y="u:y"></y:b></a>`},
		{"what is declared above", `<a xmlns="u:d" xmlns:y="u:y"><b y:k="v"/></a>`, []int{0}, nil, `<b xmlns="u:d" xmlns:y="u:y" y:k="v"></b>`},
		{"sorted", `<a z="1" b="2" y:a="3" x:b="4" xmlns:y="u:1" xmlns:x="u:2" xml:lang="de"/>`, nil, nil, `<a xmlns:x="u:2" xmlns:y="u:1" b="2" z="1" xml:lang="de" y:a="3" x:b="4"></a>`},
		{"a default namespace that ends", `<a xmlns="u:d"><b xmlns=""><c xmlns="u:d"/></b></a>`, nil, nil, `<a xmlns="u:d"><b xmlns=""><c xmlns="u:d"></c></b></a>`},
		{"none to end", `<a xmlns=""><b xmlns=""/></a>`, nil, nil, `<a><b></b></a>`},
		{"below one that has a prefix", `<a xmlns="u:d"><x:b xmlns:x="u:x" xmlns=""><c/></x:b></a>`, nil, nil, `<a xmlns="u:d"><x:b xmlns:x="u:x"><c xmlns=""></c></x:b></a>`},
		{"written again in siblings", `<a xmlns:x="u:x"><x:b/><x:b><x:c/></x:b></a>`, nil, nil, `<a><x:b xmlns:x="u:x"></x:b><x:b xmlns:x="u:x"><x:c></x:c></x:b></a>`},
		{"another binding below", `<x:a xmlns:x="u:1"><x:b xmlns:x="u:2"><x:c xmlns:x="u:1"/></x:b></x:a>`, nil, nil, `<x:a xmlns:x="u:1"><x:b xmlns:x="u:2"><x:c xmlns:x="u:1"></x:c></x:b></x:a>`},
		{"text", "<a k='&quot;&#9;&#10;&#13;&lt;&gt;&amp;\"'>&quot;&#9;\n&#13;&lt;&gt;&amp;<!-- x -->'<![CDATA[<&>]]></a>", nil, nil, "<a k=\"&quot;&#x9;&#xA;&#xD;&lt;>&amp;&quot;\">\"\t\n&#xD;&lt;&gt;&amp;'&lt;&amp;&gt;</a>"},
		{"a prefix list", `<a xmlns:x="u:x" xmlns:y="u:y"><b xmlns:z="u:z"><c xmlns:x="u:3"/></b></a>`, []int{0}, []string{"x", "z", "none"}, `<b xmlns:x="u:x" xmlns:z="u:z"><c xmlns:x="u:3"></c></b>`},
		{"a prefix list with the default", `<a xmlns="u:d" xmlns:y="u:y"><y:b><y:c xmlns=""/></y:b></a>`, []int{0}, []string{c14n.Default}, `<y:b xmlns="u:d" xmlns:y="u:y"><y:c xmlns=""></y:c></y:b>`},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := at(read(t, c.doc), c.way...)
			if got := string(c14n.Append(nil, e, c.prefixes...)); got != c.want {
				t.Errorf("\n got %s\nwant %s", got, c.want)
			}
			h, whole := sha256.New(), sha256.Sum256([]byte(c.want))
			if c14n.Hash(h, e, c.prefixes...); !bytes.Equal(h.Sum(nil), whole[:]) {
				t.Error("the hash is of something else")
			}
		})
	}
}

// libxml2 gives its exclusive canonical form of a document.
func libxml2(t interface {
	Helper()
	Fatal(...any)
}, tool string, doc []byte,
) []byte {
	t.Helper()
	cmd := exec.Command(tool, "--nonet", "--exc-c14n", "-")
	cmd.Stdin = bytes.NewReader(doc)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err, string(doc))
	}
	return out
}

// comments are kept by xmllint's --exc-c14n.
func withoutComments(e *etree.Element) {
	for i, t := range slices.Backward(e.Child) {
		switch c := t.(type) {
		case *etree.Comment:
			e.RemoveChildAt(i)
		case *etree.Element:
			withoutComments(c)
		}
	}
}

// TestAgainstLibxml2 compares with libxml2 over documents made at random.
func TestAgainstLibxml2(t *testing.T) {
	tool := testenv.Tool(t, "xmllint", "libxml2-utils")
	rapid.Check(t, func(t *rapid.T) {
		doc := xmldoc.Marshal(anyElement(t, 0, map[string]bool{}))
		d, err := xmldoc.ReadBytes(doc, xmldoc.Limits{})
		if err != nil {
			t.Fatalf("%v\n%s", err, doc)
		}
		got, want := c14n.Append(nil, d.Root()), libxml2(t, tool, doc)
		if !bytes.Equal(got, want) {
			t.Fatalf("%s\n got %s\nwant %s", doc, got, want)
		}
	})
}

// anyElement makes an element whose prefixes are declared.
func anyElement(t *rapid.T, depth int, bound map[string]bool) *etree.Element {
	here := map[string]bool{}
	for p := range bound {
		here[p] = bound[p]
	}
	e := etree.NewElement("e")
	for _, p := range []string{"", "a", "b"} {
		switch rapid.SampledFrom([]string{"no", "no", "u:1", "u:2", "u:3?x=<&\"", "off"}).Draw(t, "declaration "+p) {
		case "no":
			continue
		case "off":
			if p == "" {
				e.Attr = append(e.Attr, etree.Attr{Key: "xmlns"})
				here[""] = false
			}
			continue
		}
		uri := rapid.SampledFrom([]string{"u:1", "u:2", "u:3"}).Draw(t, "uri")
		if p == "" {
			e.Attr = append(e.Attr, etree.Attr{Key: "xmlns", Value: uri})
		} else {
			e.Attr = append(e.Attr, etree.Attr{Space: "xmlns", Key: p, Value: uri})
		}
		here[p] = true
	}
	pick := func(what string) string {
		p := rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, what)
		if p != "" && !here[p] {
			return ""
		}
		return p
	}
	e.Space, e.Tag = pick("prefix"), rapid.SampledFrom([]string{"e", "f"}).Draw(t, "name")
	text := rapid.StringOf(rapid.SampledFrom([]rune("ab <>&\"'\t\n\r]é€𝄞-")))
	// Two prefixes may be of one namespace, so that an attribute's local name comes once.
	for _, k := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"k", "l", "m", "lang"}), 0, 4, rapid.ID).Draw(t, "attributes") {
		space := pick("of attribute")
		if k == "lang" {
			space = "xml"
		}
		e.Attr = append(e.Attr, etree.Attr{Space: space, Key: k, Value: text.Draw(t, "value")})
	}
	for range rapid.IntRange(0, 3).Draw(t, "children") {
		if rapid.Bool().Draw(t, "text") {
			e.CreateText(text.Draw(t, "content"))
		} else if depth < 4 {
			e.AddChild(anyElement(t, depth+1, here))
		}
	}
	return e
}

// TestSharedDocuments compares with libxml2 over real documents.
func TestSharedDocuments(t *testing.T) {
	tool := testenv.Tool(t, "xmllint", "libxml2-utils")
	seen := 0
	err := filepath.WalkDir(testenv.Shared(t), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || seen >= 300 {
			return err
		}
		ext := filepath.Ext(path)
		if ext != ".xml" && ext != ".jsdl" && ext != ".xsd" && ext != ".wsdl" {
			return nil
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		d, err := xmldoc.ReadBytes(raw, xmldoc.Limits{})
		if err != nil || bytes.Contains(raw, []byte("<?xml-")) {
			return nil //nolint:nilerr // not what this test is about
		}
		withoutComments(d.Root())
		doc := xmldoc.Marshal(d.Root())
		if got, want := c14n.Append(nil, d.Root()), libxml2(t, tool, doc); !bytes.Equal(got, want) {
			t.Errorf("%s differs", path)
		}
		seen++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d documents", seen)
}

func BenchmarkHash(b *testing.B) {
	e := read(b, "<a xmlns='u:a'>"+strings.Repeat("<x:b xmlns:x='u:x' k='v'><x:c>"+strings.Repeat("some text ", 30)+"</x:c></x:b>", 1000)+"</a>")
	n := len(c14n.Append(nil, e))
	b.SetBytes(int64(n))
	b.ReportAllocs()
	for b.Loop() {
		c14n.Hash(sha256.New(), e)
	}
}
