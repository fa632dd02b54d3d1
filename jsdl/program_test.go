package jsdl

import (
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

func parse(t *testing.T, doc string) *JobDefinition {
	t.Helper()
	j, ps := Parse([]byte(doc), Options{})
	if err := ps.Err(); err != nil {
		t.Fatal(err)
	}
	return j
}

const (
	openJob  = `<j:JobDefinition xmlns:j="` + NS + `" xmlns:p="` + NSPOSIX + `" xmlns:h="` + NSHPCPA + `"><j:JobDescription>`
	closeJob = `</j:JobDescription></j:JobDefinition>`
)

// GFD.111: the profile's elements mean what the POSIX ones of the same names mean.
func TestBothApplicationsGiveTheSameProgram(t *testing.T) {
	body := func(p string) string {
		s := `<X:Executable>
			/bin/sh
		</X:Executable><X:Argument> a  b </X:Argument><X:Argument/><X:Input>i</X:Input><X:Output>o</X:Output><X:Error>e</X:Error>` +
			`<X:WorkingDirectory>w</X:WorkingDirectory><X:Environment name="A">1</X:Environment><X:Environment name="B">
2</X:Environment><X:Environment name="A"> 3 </X:Environment><X:UserName>u</X:UserName>`
		return strings.ReplaceAll(s, "X:", p+":")
	}
	posix := parse(t, openJob+`<j:Application><p:POSIXApplication>`+body("p")+`</p:POSIXApplication></j:Application>`+closeJob).Program()
	hpc := parse(t, openJob+`<j:Application><h:HPCProfileApplication>`+body("h")+`</h:HPCProfileApplication></j:Application>`+closeJob).Program()
	if !reflect.DeepEqual(posix, hpc) {
		t.Errorf("POSIX gives %+v\nHPC gives %+v", posix, hpc)
	}
	if posix.Executable.Value != "/bin/sh" {
		t.Errorf("Executable %q: white space around it is layout", posix.Executable.Value)
	}
	if got := posix.Arguments[0].Value; got != " a  b " {
		t.Errorf("Argument %q: white space in it is content", got)
	}
	want := []EnvironmentVariable{{Name: "B", Text: Text{Value: "\n2"}}, {Name: "A", Text: Text{Value: " 3 "}}}
	if !reflect.DeepEqual(posix.Environment, want) {
		t.Errorf("Environment %+v, want %+v: the last of a name holds", posix.Environment, want)
	}
}

// xsd:normalizedString for POSIX, xsd:string for the profile.
func TestWhiteSpaceOfArguments(t *testing.T) {
	posix := parse(t, openJob+"<j:Application><p:POSIXApplication><p:Executable>x</p:Executable><p:Argument>a\tb\n c</p:Argument></p:POSIXApplication></j:Application>"+closeJob)
	if got := posix.Program().Arguments[0].Value; got != "a b  c" {
		t.Errorf("POSIX: %q", got)
	}
	hpc := parse(t, openJob+"<j:Application><h:HPCProfileApplication><h:Executable>x</h:Executable><h:Argument>a\tb\n c</h:Argument></h:HPCProfileApplication></j:Application>"+closeJob)
	if got := hpc.Program().Arguments[0].Value; got != "a\tb\n c" {
		t.Errorf("HPC: %q", got)
	}
}

func TestNothingToRun(t *testing.T) {
	for _, doc := range []string{openJob + closeJob, openJob + `<j:Application/>` + closeJob, openJob + `<j:Application><p:POSIXApplication/></j:Application>` + closeJob} {
		j := parse(t, doc)
		if p := j.Program(); p.Executable.Value != "" || j.Name() != "" {
			t.Errorf("%s: %+v", doc, p)
		}
	}
}

func TestResolveText(t *testing.T) {
	j := parse(t, openJob+`<j:Resources><j:FileSystem name="SOFT"><j:MountPoint>/soft/</j:MountPoint></j:FileSystem></j:Resources>`+closeJob)
	mount := func(name string) (string, bool) {
		if f := j.FileSystem(name); f != nil {
			return *f.MountPoint, true
		}
		if name == "HOME" {
			return "/home/ada", true
		}
		return "", false
	}
	for _, c := range []struct {
		text Text
		want string
		kind fail.Kind
	}{
		{Text{Value: "x/../y"}, "x/../y", 0},
		{Text{Value: "bin/x", FileSystem: "SOFT"}, "/soft/bin/x", 0},
		{Text{Value: "/bin/x", FileSystem: "HOME"}, "/home/ada/bin/x", 0},
		{Text{FileSystem: "HOME"}, "/home/ada", 0},
		{Text{Value: "a/..b", FileSystem: "HOME"}, "/home/ada/a/..b", 0},
		{Text{Value: "../bob", FileSystem: "HOME"}, "", fail.Invalid},
		{Text{Value: "a/../../bob", FileSystem: "HOME"}, "", fail.Invalid},
		{Text{Value: "x", FileSystem: "SCRATCH"}, "", fail.Unsupported},
	} {
		got, err := ResolveText(c.text, mount)
		if got != c.want || (err != nil) != (c.kind != 0) || err != nil && fail.KindOf(err) != c.kind {
			t.Errorf("%+v: got %q, %v; want %q, %v", c.text, got, err, c.want, c.kind)
		}
	}
	if j.FileSystem("HOME") != nil || new(JobDefinition).FileSystem("HOME") != nil {
		t.Error("a file system that is not declared was found")
	}
}

func TestCommandDefinition(t *testing.T) {
	for _, c := range []struct {
		name string
		give Command
		bad  string
	}{
		{"plain", Command{Name: "n", Argv: []string{"/bin/sh", "-c", "echo out; exit 3"}, Output: "o", CPUs: 2, Memory: 1 << 30, WallTime: 60, CandidateHosts: []string{"shell"}}, ""},
		{"line end in an argument", Command{Argv: []string{"/bin/sh", "-c", "echo a\necho b\t"}}, ""},
		{"empty argument", Command{Argv: []string{"printf", ""}, Environment: []EnvironmentVariable{{Name: "A", Text: Text{Value: "a\nb"}}}}, ""},
		{"nothing", Command{}, "no program"},
		{"blank", Command{Argv: []string{" "}}, "no program"},
		{"spaced", Command{Argv: []string{"x "}}, "white space around"},
		{"control", Command{Argv: []string{"x", "a\x00b"}}, "XML cannot carry"},
		{"not UTF-8", Command{Argv: []string{"x", "\xff"}}, "XML cannot carry"},
		{"variable", Command{Argv: []string{"x"}, Environment: []EnvironmentVariable{{Name: "1A"}}}, "name of a variable"},
		{"limit with a line end", Command{Argv: []string{"x", "a\nb"}, WallTime: 1}, "time limit"},
	} {
		j, err := c.give.Definition()
		if c.bad != "" {
			if !fail.Is(err, fail.Invalid) || !strings.Contains(fail.Sentence(err), c.bad) {
				t.Errorf("%s: got %v, want %q", c.name, err, c.bad)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		again := parse(t, string(j.Marshal()))
		if !reflect.DeepEqual(again.Program(), j.Program()) {
			t.Errorf("%s: written as %s", c.name, j.Marshal())
		}
		for i, s := range c.give.Argv[1:] {
			if got := again.Program().Arguments[i].Value; got != s {
				t.Errorf("%s: argument %q became %q", c.name, s, got)
			}
		}
	}
}

// Any command line that is taken arrives unchanged.
func TestCommandsArriveUnchanged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := Command{Argv: rapid.SliceOfN(rapid.String(), 1, 5).Draw(t, "argv")}
		j, err := c.Definition()
		if err != nil {
			return
		}
		again, ps := Parse(j.Marshal(), Options{})
		if err := ps.Err(); err != nil {
			t.Fatal(err)
		}
		p := again.Program()
		got := []string{p.Executable.Value}
		for _, a := range p.Arguments {
			got = append(got, a.Value)
		}
		if !reflect.DeepEqual(got, c.Argv) {
			t.Fatalf("%q became %q", c.Argv, got)
		}
	})
}

func TestErrTellsTheWorst(t *testing.T) {
	var none Problems
	if none.Err() != nil || (Problems{{Severity: Warning}}).Err() != nil {
		t.Error("warnings alone are no error")
	}
	ps := Problems{{Severity: Unsupported, What: "u"}, {File: "f", Element: "/a", Severity: Invalid, What: "i", Want: "w"}}
	if err := ps.Err(); !fail.Is(err, fail.Invalid) || fail.Sentence(err) != "f: /a: i; w" {
		t.Error(err)
	}
	if err := ps[:1].Err(); !fail.Is(err, fail.Unsupported) {
		t.Error(err)
	}
	for range 20 {
		ps = append(ps, ps[1])
	}
	if s := fail.Sentence(ps.Err()); strings.Count(s, "\n") != shown || !strings.HasSuffix(s, "and 16 more") {
		t.Error(s)
	}
}

// However bad a document is, what is said of it is bounded, and no verdict is lost.
func TestProblemsAreBounded(t *testing.T) {
	doc := openJob + `<j:JobIdentification>` + strings.Repeat(`<f:x xmlns:f="urn:f"/>`, 5000) + `</j:JobIdentification>` +
		strings.Repeat(`<j:DataStaging><j:FileName/></j:DataStaging>`, 5000) + closeJob
	j, ps := Parse([]byte(doc), Options{})
	if n := len(j.Description.Identification.Foreign.Elements); n != maxForeign {
		t.Errorf("%d foreign elements were kept, want %d", n, maxForeign)
	}
	for _, s := range []Severity{Warning, Unsupported, Invalid} {
		if n := len(ps.Of(s)); n != maxProblems {
			t.Errorf("%d problems of severity %v, want %d", n, s, maxProblems)
		}
	}
}

// A fault names the element by its place in the definition, not in the envelope.
func TestPathsBeginWithTheDefinition(t *testing.T) {
	doc, err := xmldoc.ReadBytes([]byte(`<a><b/><b>`+openJob+"\n"+`<j:Nonsense/>`+closeJob+`</b></a>`), xmldoc.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	_, ps := Decode(doc, doc.Root().FindElement("//JobDefinition"), Options{})
	if len(ps) != 1 || ps[0].Element != "/JobDefinition/JobDescription/Nonsense" || ps[0].Pos != (xmldoc.Position{Line: 2, Column: 1}) ||
		ps[0].Name != (xmldoc.Name{Space: NS, Local: "Nonsense"}) {
		t.Errorf("%+v", ps)
	}
}

func TestByName(t *testing.T) {
	const program = `<p:POSIXApplication><p:Executable>x</p:Executable></p:POSIXApplication>`
	for inner, want := range map[string]string{
		``: "",
		`<j:Application><j:ApplicationName> blast </j:ApplicationName></j:Application>`:                         "blast",
		`<j:Application><j:ApplicationName> </j:ApplicationName></j:Application>`:                               "",
		`<j:Application><j:ApplicationName>blast</j:ApplicationName><p:POSIXApplication/></j:Application>`:      "blast",
		`<j:Application><j:ApplicationName>blast</j:ApplicationName>` + program + `</j:Application>`:            "",
		`<j:Application><j:ApplicationName>blast</j:ApplicationName><h:HPCProfileApplication/></j:Application>`: "blast",
	} {
		if got := parse(t, openJob+inner+closeJob).ByName(); got != want {
			t.Errorf("%s: %q, want %q", inner, got, want)
		}
	}
}
