package adaptertest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// nasty are strings that a shell, a script writer, a submit description or a
// careless file name would spoil. Harness.Lacks names them.
var nasty = []struct{ name, text string }{
	{"empty", ""},
	{"blank", " "},
	{"blanks", "  two  blanks  "},
	{"tab", "tab\there"},
	{"newline", "line\nbreak"},
	{"last-newline", "trailing\n"},
	{"return", "a\rb\r\n"},
	{"dollar", "$HOME ${PATH} $$ $1"},
	{"substitution", "$(id) `id`"},
	{"separators", "; rm -rf /"},
	{"operators", "a && b | c > d < e &"},
	{"single", "'single' it's"},
	{"double", `"double" 6" disk`},
	{"doubled", `'' "" """" ''''`},
	{"backslash", `back\slash\`},
	{"escapes", `\n\t\\ \x41 \101`},
	{"glob", "*?[x]{a,b}"},
	{"tilde", "~root"},
	{"hash", "#hash"},
	{"dash", "-n"},
	{"dashes", "--"},
	{"percent", "%s%d%n %j-%N-%% %u"},
	{"history", "!history !!"},
	{"macro", "$(Process) $$(Cpus) $ENV(HOME) $F(x)"},
	{"commas", "a,b=c;d"},
	{"at", "@file"},
	{"unicode", "żółć 日本語 🗺️ 𝔘"},
	{"combining", "e\u0301"},
	{"rtl", "\u202eabc עברית"},
	{"breaks", "a\u0085b\u2028c\u00a0d"},
	{"markup", "&amp;<x>]]>"},
	{"long", strings.Repeat("long", 5000)},
}

func nastyNames() (names []string) {
	for _, n := range nasty {
		names = append(names, n.name)
	}
	return names
}

// able gives the strings that the manager can hold, and sees that Check refuses the
// others by the element's name.
func (b *bench) able(element string, with func(string) *jsdl.JobDefinition) (can []string) {
	b.Helper()
	for _, n := range nasty {
		why, lacks := b.h.lack(b.name + "/" + n.name)
		if !lacks {
			can = append(can, n.text)
			continue
		}
		b.Logf("refused by Check, as %s can't be said: %s", n.name, why)
		b.refused(with(n.text), element)
	}
	return can
}

// allExit places jobs at once, all of which must exit with 0, and gives their handles.
func (b *bench) allExit(jobs []*jsdl.JobDefinition, what func(int) string) []adapters.Handle {
	b.Helper()
	var handles []adapters.Handle
	for _, d := range jobs {
		handles = append(handles, b.submit(d))
	}
	for i, e := range b.finals(handles) {
		if !exited(e, 0) {
			b.Errorf("%s gives %s, want exit status 0; standard error: %q", what(i), show(e), b.output(handles[i], adapters.Stderr, 0))
		}
	}
	return handles
}

// GFD.56 §8.1.3: one element is one argument, with no shell between.
func testArguments(b *bench) {
	can := b.able("Argument", func(s string) *jsdl.JobDefinition { return Command("/bin/true", s) })
	out, _ := b.exits(shell(`for a; do printf '%s\0' "$a"; done`, can...), 0)
	if got := strings.Split(strings.TrimSuffix(out, "\x00"), "\x00"); !slices.Equal(got, can) {
		b.Errorf("the program saw %d arguments %q\nwant %d %q", len(got), got, len(can), can)
	}
	if out, _ := b.exits(shell(`echo $#`), 0); out != "0\n" {
		b.Errorf("a program without arguments saw %q", out)
	}
	d := Command("/bin/sh", "-c", `printf %s "$0"`)
	if out, _ := b.exits(d, 0); out != "/bin/sh" {
		b.Errorf("the program's own name is %q, want the executable as it was written", out)
	}
}

// GFD.56 §8.1.8: a variable has the value that is written, whatever it is.
func testEnvironment(b *bench) {
	can := b.able("Environment", func(s string) *jsdl.JobDefinition {
		d := Command("/bin/true")
		posix(d).Environment = []jsdl.EnvironmentVariable{{Name: "V", Text: jsdl.Text{Value: s}}}
		return d
	})
	d := Command("/bin/cat", "/proc/self/environ")
	p := posix(d)
	want := map[string]string{}
	for i, s := range can {
		name := fmt.Sprintf("V%d", i)
		p.Environment = append(p.Environment, jsdl.EnvironmentVariable{Name: name, Text: jsdl.Text{Value: s}})
		want[name] = s
	}
	// Names are NCNames: these no shell could set.
	for _, name := range []string{"with.dot", "with-dash", "größe"} {
		p.Environment = append(p.Environment, jsdl.EnvironmentVariable{Name: name, Text: jsdl.Text{Value: name}})
		want[name] = name
	}
	// The last of several wins.
	p.Environment = append(p.Environment, jsdl.EnvironmentVariable{Name: "V1", Text: jsdl.Text{Value: "last"}})
	want["V1"] = "last"
	out, _ := b.exits(d, 0)
	seen := map[string][]string{}
	for pair := range strings.SplitSeq(strings.TrimSuffix(out, "\x00"), "\x00") {
		name, value, _ := strings.Cut(pair, "=")
		seen[name] = append(seen[name], value)
	}
	for name, value := range want {
		if !slices.Equal(seen[name], []string{value}) {
			b.Errorf("the variable %s is %q, want %q", name, seen[name], value)
		}
	}
	for name, values := range seen {
		if len(values) != 1 {
			b.Errorf("the variable %s is there %d times", name, len(values))
		}
	}
}

// What the system can hold reaches the program whole; what it can't is refused by
// name before it is placed.
func testHugeEnvironment(b *bench) {
	d := shell(`echo "${#BIG0} ${#BIG11}"`)
	for i := range 12 {
		posix(d).Environment = append(posix(d).Environment, jsdl.EnvironmentVariable{
			Name: fmt.Sprintf("BIG%d", i), Text: jsdl.Text{Value: strings.Repeat("x", 120_000)},
		})
	}
	if out, _ := b.exits(d, 0); out != "120000 120000\n" {
		b.Errorf("a job with 1.4 MB of environment saw %q", out)
	}
	many := make([]string, 5000)
	for i := range many {
		many[i] = fmt.Sprintf("argument %d", i)
	}
	d = shell(`echo "$#;${5000};$V1999;$(env | grep -c '^V[0-9]*=value ')"`, many...)
	for i := range 2000 {
		posix(d).Environment = append(posix(d).Environment, jsdl.EnvironmentVariable{
			Name: fmt.Sprintf("V%d", i), Text: jsdl.Text{Value: fmt.Sprintf("value %d", i)},
		})
	}
	if out, _ := b.exits(d, 0); out != "5000;argument 4999;value 1999;2000\n" {
		b.Errorf("a job with 5000 arguments and 2000 variables saw %q", out)
	}
	one := shell("true")
	posix(one).Environment = []jsdl.EnvironmentVariable{{Name: "BIG", Text: jsdl.Text{Value: strings.Repeat("x", 200_000)}}}
	b.refused(one, "Environment", "BIG")
	arg := shell("true", strings.Repeat("x", 200_000))
	b.refused(arg, "Argument")
	sum := shell("true")
	for i := range 100 {
		posix(sum).Environment = append(posix(sum).Environment, jsdl.EnvironmentVariable{
			Name: fmt.Sprintf("BIG%d", i), Text: jsdl.Text{Value: strings.Repeat("x", 120_000)},
		})
	}
	b.refused(sum, "Environment")
}

// Names and labels are for people: whatever stands in them, the job runs.
func testJobName(b *bench) {
	var jobs []*jsdl.JobDefinition
	for _, n := range nasty {
		d := shell("exit 0")
		d.Description.Identification = &jsdl.JobIdentification{JobName: &n.text, Description: &n.text, Annotations: []string{n.text}, Projects: []string{n.text}}
		d.Description.Application.Name = &n.text
		if _, lacks := b.h.lack(b.name + "/" + n.name); lacks {
			b.refused(d, "Job")
			continue
		}
		jobs = append(jobs, d)
	}
	b.allExit(jobs, func(i int) string {
		return fmt.Sprintf("a job named %.80q", *jobs[i].Description.Identification.JobName)
	})
	// The owner is somebody's name as well.
	d := shell("exit 0")
	var batch []adapters.Job
	for _, n := range nasty {
		batch = append(batch, adapters.Job{Tag: newTag(), Definition: d, Owner: n.text})
	}
	for i, e := range b.finals(b.place(batch)) {
		if !exited(e, 0) {
			b.Errorf("a job of the owner %.80q gives %s", batch[i].Owner, show(e))
		}
	}
}

// A file's name may hold anything but '/' and NUL: executable, working directory,
// input, output and error are those that are written.
func testFileNames(b *bench) {
	dir := b.TempDir()
	var jobs []*jsdl.JobDefinition
	var names []string
	for _, n := range nasty {
		if n.text == "" || len(n.text) > 200 || strings.Contains(n.text, "/") {
			continue
		}
		wd := filepath.Join(dir, n.text)
		for _, below := range []string{"i", "e", "x"} {
			if err := os.MkdirAll(filepath.Join(wd, below), 0o777); err != nil {
				b.Fatal(err)
			}
			open(b, filepath.Join(wd, below))
		}
		open(b, wd)
		script(b, filepath.Join(wd, "x", n.text), "#!/bin/sh\npwd\ncat\necho err >&2\n", 0o755)
		script(b, filepath.Join(wd, "i", n.text), "input", 0o644)
		d := Command(filepath.Join(wd, "x", n.text))
		p := posix(d)
		p.WorkingDirectory, p.Input = text(wd), text("i/"+n.text)
		p.Output, p.Error = text(n.text), text(filepath.Join(wd, "e", n.text))
		if why, lacks := b.h.lack(b.name + "/" + n.name); lacks {
			b.Logf("refused by Check, as %s can't be said: %s", n.name, why)
			b.refused(d)
			continue
		}
		jobs, names = append(jobs, d), append(names, n.text)
	}
	handles := b.allExit(jobs, func(i int) string { return fmt.Sprintf("a job whose files are named %q", names[i]) })
	for i, name := range names {
		wd := filepath.Join(dir, name)
		b.content(filepath.Join(wd, name), wd+"\ninput")
		b.content(filepath.Join(wd, "e", name), "err\n")
		if out, errs := b.output(handles[i], adapters.Stdout, 0), b.output(handles[i], adapters.Stderr, 0); out != wd+"\ninput" || errs != "err\n" {
			b.Errorf("Output of files named %q reads %q and %q", name, out, errs)
		}
	}
}

// open lets the accounts of jobs write in a directory.
func open(b *bench, dir string) {
	b.Helper()
	if err := os.Chmod(dir, 0o777); err != nil {
		b.Fatal(err)
	}
}

// What is written in a definition is what the manager has, to the letter; what it
// can't hold is refused by the element's name. It is for adapters whose jobs are no
// programs of this machine: there the programs themselves tell.
func testStrings(b *bench) {
	if b.h.Seen == nil {
		if b.h.Programs {
			b.Skip("skipped: the programs themselves tell, in the parts of Programs")
		}
		b.Skip("skipped: the harness can't tell what reached the manager (Harness.Seen)")
	}
	var handles []adapters.Handle
	var tags []adapters.Tag
	var jobs []*jsdl.JobDefinition
	for _, n := range nasty {
		d := b.h.Bearing(n.text)
		if why, lacks := b.h.lack(b.name + "/" + n.name); lacks {
			if err := b.a.Check(d); !fail.Is(err, fail.Unsupported) && !fail.Is(err, fail.Invalid) || fail.Sentence(err) == "" {
				b.Errorf("%s can't be said (%s), but Check gives %v; want a refusal that names the element", n.name, why, err)
			}
			continue
		}
		h, tag := b.submitTag(newTag(), d)
		handles, tags, jobs = append(handles, h), append(tags, tag), append(jobs, d)
	}
	for i, e := range b.finals(handles) {
		p := jobs[i].Program()
		if !exited(e, 0) {
			b.Errorf("a job of strings like %.60q gives %s", p.Arguments, show(e))
		}
		b.bears(tags[i], jobs[i])
	}
}

// bears compares a definition with what reached the manager.
func (b *bench) bears(tag adapters.Tag, d *jsdl.JobDefinition) {
	b.Helper()
	seen, p := b.h.Seen(b.site, tag), d.Program()
	if seen.Executable != nil && *seen.Executable != p.Executable.Value {
		b.Errorf("the executable reached the manager as %q, want %q", *seen.Executable, p.Executable.Value)
	}
	if seen.Arguments != nil {
		var want []string
		for _, a := range p.Arguments {
			want = append(want, a.Value)
		}
		if !slices.Equal(seen.Arguments, want) {
			b.Errorf("the arguments reached the manager as %.200q, want %.200q", seen.Arguments, want)
		}
	}
	if seen.Environment != nil {
		for _, v := range p.Environment {
			if got, ok := seen.Environment[v.Name]; !ok || got != v.Value {
				b.Errorf("the variable %s reached the manager as %.200q, want %.200q", v.Name, got, v.Value)
			}
		}
	}
	if id := d.Description.Identification; id != nil {
		if seen.JobName != nil && id.JobName != nil && *seen.JobName != *id.JobName {
			b.Errorf("the job's name reached the manager as %.200q, want %.200q", *seen.JobName, *id.JobName)
		}
		if seen.Project != nil && len(id.Projects) > 0 && *seen.Project != id.Projects[0] {
			b.Errorf("the project reached the manager as %.200q, want %.200q", *seen.Project, id.Projects[0])
		}
	}
}

// bearing is a job that does nothing and bears the string wherever it may.
func bearing(s string) *jsdl.JobDefinition {
	d := Command("/bin/true", s, "second", s)
	posix(d).Environment = []jsdl.EnvironmentVariable{{Name: "V", Text: jsdl.Text{Value: s}}}
	d.Description.Identification = &jsdl.JobIdentification{JobName: &s, Projects: []string{s}}
	return d
}
