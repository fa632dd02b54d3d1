package wire

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/beevik/etree"
	"github.com/rogpeppe/go-internal/txtar"
	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

var update = flag.Bool("update", false, "rewrite the golden messages, the description and the tables of the document")

// TestRoundTrip: what a description allows is read, written, and read the same.
func TestRoundTrip(t *testing.T) {
	types := all()
	for _, d := range types {
		t.Run(d.Name, func(t *testing.T) {
			rapid.Check(t, func(r *rapid.T) {
				e := element(r, d)
				doc, err := xmldoc.ReadBytes(xmldoc.Marshal(e), xmldoc.Limits{})
				if err != nil {
					r.Fatal(err)
				}
				m, err := Decode(doc, doc.Root())
				if err != nil {
					r.Fatalf("%v\n%s", err, xmldoc.Marshal(e))
				}
				again, err := Encode(m)
				if err != nil || !keeps(m) {
					r.Fatal(err, keeps(m))
				}
				b := xmldoc.Marshal(again)
				doc, err = xmldoc.ReadBytes(b, xmldoc.Limits{})
				if err != nil {
					r.Fatal(err)
				}
				m2, err := Decode(doc, doc.Root())
				if err != nil || !reflect.DeepEqual(m, m2) {
					r.Fatalf("%v\n%#v\n%#v", err, m, m2)
				}
				// The estimate is no less than half of what is sent, short of escapes.
				if plain := len(b) - len(NS) - 5*bytes.Count(b, []byte("&")); Size(m) < plain/2 {
					r.Fatalf("weighs %d, is %d bytes: %s", Size(m), len(b), b)
				}
			})
		})
	}
}

// TestBounds: for every field of every message, a value beyond its bound and one that is
// missing though it is required are refused, with the field's name.
func TestBounds(t *testing.T) {
	checks := 0
	for _, d := range all() {
		var walk func(d *Type, path []string)
		walk = func(d *Type, path []string) {
			for i := range d.Fields {
				f := &d.Fields[i]
				for what, change := range breaks(f) {
					checks++
					e := sample(path, f)
					if e == nil {
						t.Fatalf("no %v with %s", path, f.Name)
					}
					root := e
					for root.Parent() != nil && root.Parent().Tag != "" {
						root = root.Parent()
					}
					change(e)
					doc, _ := reread(t, root)
					_, err := Decode(doc, doc.Root())
					if !fail.Is(err, fail.Invalid) || !strings.Contains(fail.Sentence(err), f.Name) {
						t.Errorf("%s %v %s, %s: %v", root.Tag, path, f.Name, what, err)
					}
				}
				if f.Type != nil {
					walk(f.Type, append(slices.Clip(path), f.Name))
				}
			}
		}
		walk(d, []string{d.Name})
	}
	if checks < 400 {
		t.Errorf("only %d checks", checks)
	}
	t.Logf("%d checks", checks)
}

// sample draws a message and gives the element at the path; it has
// the field where that is a child.
func sample(path []string, f *Field) *etree.Element {
	for _, d := range all() {
		if d.Name != path[0] {
			continue
		}
		for seed := range 100 {
			e := rapid.Custom(func(r *rapid.T) *etree.Element { return element(r, d) }).Example(seed)
			at := e
			for _, p := range path[1:] {
				if at = at.SelectElement(p); at == nil {
					break
				}
			}
			if at != nil && (f.Most == 0 || at.SelectElement(f.Name) != nil) {
				return at
			}
		}
	}
	return nil
}

// breaks gives changes of an element that break the bounds of a field.
func breaks(f *Field) map[string]func(*etree.Element) {
	out := map[string]func(*etree.Element){}
	if f.Most == 0 {
		set := func(v string) func(*etree.Element) {
			return func(e *etree.Element) { setAttr(e, f.Name, v) }
		}
		if f.Required {
			out["missing"] = set("")
		}
		switch f.Kind {
		case "string":
			out["too long"] = set(strings.Repeat("a", int(f.High)+1))
			out["a control"] = set("a\u0085\u007f")
			if f.Form != line.String() {
				out["a blank"] = set("a b")
			}
		case "enum":
			out["unknown"] = set("gold")
		case "integer", "milliseconds":
			out["below"] = set(strconv.FormatInt(f.Low-1, 10))
			out["above"] = set(strconv.FormatInt(f.High+1, 10))
			out["no number"] = set("1e3")
		case "moment":
			out["local"] = set("2026-01-02T03:04:05+01:00")
			out["no moment"] = set("now")
		case "boolean":
			out["neither"] = set("yes")
		}
		return out
	}
	if f.Least > 0 {
		out["missing"] = func(e *etree.Element) { drop(e, f.Name) }
	}
	if f.Type == nil {
		out["with an element"] = func(e *etree.Element) { e.SelectElement(f.Name).CreateElement("p:x") }
		out["with an attribute"] = func(e *etree.Element) { e.SelectElement(f.Name).CreateAttr("x", "y") }
	}
	if f.Kind == "base64" {
		out["not base64"] = func(e *etree.Element) { e.SelectElement(f.Name).SetText("a$==") }
	}
	if f.Kind == "text" || f.Kind == "string" || f.Kind == "base64" {
		out["too long"] = func(e *etree.Element) {
			s := strings.Repeat("a", int(f.High)+1)
			if f.Kind == "base64" {
				s = base64Of([]byte(s))
			}
			e.SelectElement(f.Name).SetText(s)
		}
	}
	out["too many"] = func(e *etree.Element) {
		c := e.SelectElement(f.Name)
		at := c.Index()
		for range f.Most + 1 {
			e.InsertChildAt(at, c.Copy())
		}
	}
	return out
}

// TestStrict: what is not known is refused in our namespace and let through elsewhere.
func TestStrict(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		says string // "" is taken
	}{
		"plain":                  {`<p:Query @ABOUT/>`, ""},
		"foreign":                {`<p:Query @ABOUT x:y="1" xmlns:x="urn:x"><x:z/></p:Query>`, ""},
		"unknown attribute":      {`<p:Query @ABOUT urgent="1"/>`, "urgent"},
		"unknown element":        {`<p:Query @ABOUT><p:Z/></p:Query>`, "Z"},
		"element without space":  {`<p:Query @ABOUT><Z/></p:Query>`, "Z"},
		"text":                   {`<p:Query @ABOUT>now</p:Query>`, "text"},
		"wrong order":            {`<p:Route @ABOUT recallBy="2026-01-02T03:04:05Z"><p:Document>d</p:Document><p:Domain>n</p:Domain></p:Route>`, "Domain"},
		"behind an extension":    {`<p:Route @ABOUT recallBy="2026-01-02T03:04:05Z"><p:Domain>n</p:Domain><x:z xmlns:x="urn:x"/><p:Document>d</p:Document></p:Route>`, "Document"},
		"not a message":          {`<p:Rout/>`, "no message"},
		"a loop":                 {`<p:Route @ABOUT recallBy="2026-01-02T03:04:05Z"><p:Domain>n</p:Domain><p:Domain>s</p:Domain><p:Domain>s</p:Domain><p:Document>d</p:Document></p:Route>`, "loop"},
		"another origin":         {`<p:Route @ABOUT recallBy="2026-01-02T03:04:05Z"><p:Domain>s</p:Domain><p:Document>d</p:Document></p:Route>`, "origin"},
		"a token of zeros":       {`<p:Query origin="n" id="1" token="1.0"/>`, "token"},
		"a token's other form":   {`<p:Query origin="n" id="1" token="01"/>`, "token"},
		"an item in a heartbeat": {`<p:Heartbeat session="s" number="1" clock="2026-01-02T03:04:05Z"><p:Query @ABOUT/></p:Heartbeat>`, "Query"},
		"items without first":    {`<p:Exchange session="s" number="1" sent="1" clock="2026-01-02T03:04:05Z"><p:Query @ABOUT/></p:Exchange>`, "first"},
		"items above sent":       {`<p:Exchange session="s" number="1" first="1" clock="2026-01-02T03:04:05Z"><p:Query @ABOUT/></p:Exchange>`, "sent"},
		"done above got":         {`<p:Heartbeat session="s" number="1" got="1" done="2" clock="2026-01-02T03:04:05Z"/>`, "done"},
		"body as item":           {`<p:Exchange session="s" number="1" sent="1" first="1" clock="2026-01-02T03:04:05Z"><p:Heartbeat/></p:Exchange>`, "Heartbeat"},
	} {
		about := `origin="n" id="1" token="1"`
		b := strings.Replace(strings.ReplaceAll(c.body, "@ABOUT", about), " ", ` xmlns:p="`+NS+`" `, 1)
		if !strings.Contains(b, "xmlns:p") {
			b = strings.Replace(b, "/>", ` xmlns:p="`+NS+`"/>`, 1)
		}
		doc, err := xmldoc.ReadBytes([]byte(b), xmldoc.Limits{})
		if err != nil {
			t.Fatal(name, err)
		}
		_, err = Decode(doc, doc.Root())
		if c.says == "" && err != nil || c.says != "" && (!fail.Is(err, fail.Invalid) || !strings.Contains(fail.Sentence(err), c.says)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestEncodeRefuses what it would not read.
func TestEncodeRefuses(t *testing.T) {
	about := About{Origin: "n", ID: "1", Token: "1"}
	for name, m := range map[string]Message{
		"no deadline":      &Route{About: about, Path: []string{"n"}, Document: "d"},
		"bad text":         &Answer{About: about, Kind: Denied, Reason: "a\xff"},
		"no reason":        &Answer{About: about, Kind: Denied},
		"a large number":   &Report{About: about, Status: IsRunning, Revision: 1 << 63},
		"kind too early":   &Report{About: about, Status: IsRunning, Kind: Denied},
		"result too early": &Report{About: about, Status: IsRunning, Result: &Result{Outcome: Finished}},
		"no item":          &Exchange{Frame{Session: "s", Number: 1, First: 1, Sent: 1, Items: []Message{&Heartbeat{}}}},
	} {
		if _, err := Encode(m); !fail.Is(err, fail.Invalid) || keeps(m) {
			t.Errorf("%s: %v, %v", name, err, keeps(m))
		}
	}
}

// TestGolden: each message of testdata/*.txtar is read and written again, or refused with
// the sentence that was reviewed.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	seen := map[string]bool{}
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if len(a.Files) != 2 {
			t.Fatalf("%s: message.xml and written.xml or refused.txt are needed", file)
		}
		doc, err := xmldoc.ReadBytes(bytes.TrimSpace(a.Files[0].Data), xmldoc.Limits{})
		if err != nil {
			t.Fatal(file, err)
		}
		var got string
		m, err := Decode(doc, doc.Root())
		if good := strings.HasPrefix(filepath.Base(file), "good_"); (err == nil) != good {
			t.Errorf("%s: %v", file, err)
		}
		if err != nil {
			got = fail.Sentence(err) + "\n"
		} else {
			seen[bodyName(m)] = true
			e, err := Encode(m)
			if err != nil {
				t.Fatal(err)
			}
			got = strings.ReplaceAll(string(xmldoc.Marshal(e)), "><", ">\n<") + "\n"
		}
		if *update {
			a.Files[1].Data = []byte(got)
			if err := os.WriteFile(file, txtar.Format(a), 0o600); err != nil {
				t.Fatal(err)
			}
		} else if want := string(a.Files[1].Data); got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
		}
	}
	for _, o := range operations {
		if !seen[o.name] || !seen[o.name+"Response"] {
			t.Errorf("%s has no golden message", o.name)
		}
	}
}

// TestDescription: the WSDL is what was reviewed, well-formed, and names what is there.
func TestDescription(t *testing.T) {
	got := WSDL("https://gw.example/peer")
	const file = "testdata/peer.wsdl"
	if *update {
		if err := os.WriteFile(file, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not what the messages say (%v): run with -update and read what changed", file, err)
	}
	doc, err := xmldoc.ReadBytes(got, xmldoc.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(doc.Root().FindElements("//portType/operation")); n != len(operations) {
		t.Errorf("%d operations", n)
	}
}

// TestDocument: the tables of the document are what the messages say.
func TestDocument(t *testing.T) {
	file := filepath.Join("..", "..", "docs", "peer-protocol.md")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	doc := string(b)
	for name, types := range map[string][]*Type{"operations": Operations(), "items": Items(), "rest": {describe("PeerFault", "The detail of a SOAP fault.", new(Fault)), describe("Trace", "A SOAP header block.", new(Trace))}} {
		open, shut := "<!-- generated: "+name+" -->\n", "<!-- end: "+name+" -->"
		head, rest, ok := strings.Cut(doc, open)
		old, tail, ok2 := strings.Cut(rest, shut)
		if !ok || !ok2 {
			t.Fatalf("no place for the %s", name)
		}
		if now := Tables(types) + "\n"; now != old && !*update {
			t.Errorf("the tables of the %s are not what the messages say: run with -update", name)
		} else {
			doc = head + open + now + shut + tail
		}
	}
	if *update && doc != string(b) {
		if err := os.WriteFile(file, []byte(doc), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestExamples: the messages in the document are taken.
func TestExamples(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "peer-protocol.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(b), "```xml\n")[1:]
	if len(blocks) < 2 {
		t.Fatalf("%d examples", len(blocks))
	}
	for _, block := range blocks {
		text, _, _ := strings.Cut(block, "```")
		doc, err := xmldoc.ReadBytes([]byte(text), xmldoc.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		action := doc.Root().FindElement("Header/Action").Text()
		m, err := Decode(doc, doc.Root().FindElement("Body").ChildElements()[0])
		if err != nil || Action(m) != action {
			t.Errorf("%v: %s, %s", err, action, text)
		}
		if h := doc.Root().FindElement("Header/Trace"); h != nil {
			if _, err := Decode(doc, h); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestSchema: what is written, xmllint finds valid by the schema that is served.
func TestSchema(t *testing.T) {
	lint, err := exec.LookPath("xmllint")
	if err != nil {
		t.Skip("xmllint is not here")
	}
	dir := t.TempDir()
	schema := filepath.Join(dir, "peer.xsd")
	if err := os.WriteFile(schema, Schema(), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--noout", "--schema", schema}
	for i, d := range all() {
		for seed := range 3 {
			e := rapid.Custom(func(r *rapid.T) *etree.Element { return element(r, d) }).Example(seed)
			f := filepath.Join(dir, strconv.Itoa(i)+"-"+strconv.Itoa(seed)+".xml")
			if err := os.WriteFile(f, xmldoc.Marshal(e), 0o600); err != nil {
				t.Fatal(err)
			}
			args = append(args, f)
		}
	}
	if out, err := exec.CommandContext(t.Context(), lint, args...).CombinedOutput(); err != nil {
		t.Errorf("%v: %.3000s", err, out)
	}
}

// TestFaults: every kind of error has a fault, and a fault survives the way.
func TestFaults(t *testing.T) {
	for _, k := range fail.Kinds() {
		f := FaultOf(fail.Errorf("x", k, "", "a sentence"))
		got := FromSOAP(f.SOAP())
		if !reflect.DeepEqual(got, f) {
			t.Errorf("%s: %+v, %+v", k, got, f)
		}
	}
	for _, c := range faultCodes {
		if _, ok := kinds[c]; !ok {
			t.Errorf("%s is of no kind", c)
		}
		if fail.KindOf(&Fault{Code: c, Sentence: "s"}) != kinds[c] {
			t.Errorf("%s: %v", c, fail.KindOf(&Fault{Code: c, Sentence: "s"}))
		}
	}
	for _, k := range fail.Kinds() {
		if r := RefusalOf(k); r.Kind() != k || string(r) != strings.ReplaceAll(k.String(), " ", "-") {
			t.Errorf("%s is told as %s", k, r)
		}
	}
	for _, text := range []string{"", "a\nb\x00\x7f", "a\xff", strings.Repeat("é", 2000), "\uffff"} {
		s := Sentence(text)
		if _, err := Encode(&Answer{About: About{Origin: "n", ID: "1", Token: "1"}, Kind: Denied, Reason: s + "."[:min(1, MaxReason-len(s))]}); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	if f := FaultOf(fail.Errorf("x", fail.Invalid, "", "a\nb%s", strings.Repeat("c", 2000))); FromSOAP(f.SOAP()) == nil {
		t.Error("a long sentence of two lines gets lost")
	}
}

// FuzzDecode: whatever it is, it is read or refused; what was read is written, and read
// the same again.
func FuzzDecode(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(a.Files[0].Data)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		doc, err := xmldoc.ReadBytes(b, xmldoc.Limits{})
		if err != nil {
			return
		}
		m, err := Decode(doc, doc.Root())
		if err != nil {
			return
		}
		e, err := Encode(m)
		if err != nil {
			t.Fatalf("read, and not written: %v", err)
		}
		doc, _ = reread(t, e)
		again, err := Decode(doc, doc.Root())
		if err != nil || !reflect.DeepEqual(m, again) {
			t.Fatalf("%v\n%#v\n%#v", err, m, again)
		}
	})
}
