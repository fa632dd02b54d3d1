package shell

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// site is what plans are made for.
type site struct {
	machine
	options *Options
	track   track
	jobs    string // the directory of jobs
	confinement
	lacking   []string          // of what the options promise to every job
	launchers map[string]string // why a variation's can't be used; "" if it can
	// afar plans without the machine at hand: files and accounts are not looked at.
	afar bool
	disk int64 // bytes free, as last heard, from afar
}

// wanted is a job to be planned.
type wanted struct {
	definition *jsdl.JobDefinition
	program    jsdl.Program
	tag        adapters.Tag
	account    string // that its owner is mapped to
	part       *part  // of a job over several hosts
	notAfter   time.Time
}

func want(d *jsdl.JobDefinition, tag adapters.Tag) wanted {
	w := wanted{definition: d, tag: tag}
	if d != nil {
		w.program = d.Program()
	}
	return w
}

// refusals gathers every element that stands against a job.
type refusals struct {
	list    []string
	invalid bool // one of them is wrong in itself, not only here
	blind   bool // something could not be looked at from afar
}

func (r *refusals) add(format string, args ...any) {
	r.list = append(r.list, fmt.Sprintf(format, args...))
}

func (r *refusals) err() error {
	if len(r.list) == 0 {
		return nil
	}
	kind := fail.Unsupported
	if r.invalid {
		kind = fail.Invalid
	}
	return fail.Errorf("shell.Check", kind, "", "%s", strings.Join(r.list, "; "))
}

// planner is one plan in the making.
type planner struct {
	*site
	w       wanted
	program jsdl.Program
	r       *jsdl.Resources // never nil
	s       *spec
	mounts  func(string) (string, bool)
	size    int64 // bytes of what the program is given
	refusals
}

// plan turns a definition into what is run, or names what stands against it.
func (m *site) plan(w wanted) (*spec, error) {
	d := w.definition
	if d == nil {
		return nil, fail.Errorf("shell.Check", fail.Invalid, "", "there is no job definition")
	}
	p := &planner{site: m, w: w, program: w.program, r: d.Description.Resources, s: &spec{
		Version: recordVersion, Tag: w.tag, Boot: m.boot, Need: 1, Umask: *m.options.Umask, Grace: m.options.Grace, Shares: m.options.CPUShares,
		NotAfter: w.notAfter.UTC().Round(0),
	}}
	if p.r == nil {
		p.r = &jsdl.Resources{}
	}
	p.list = append(p.list, m.lacking...)
	p.mounts = m.fileSystems(d, p.s)
	for i := range rules {
		if r := &rules[i]; r.apply != nil {
			r.apply(p, r.element)
		}
	}
	p.variables()
	if err := p.err(); err != nil {
		return nil, err
	}
	p.s.blind = p.blind
	return p.s, nil
}

func (m *site) free(path string) (int64, error) {
	if m.afar {
		return m.disk, nil
	}
	return diskFree(path)
}

// home gives the home directory and the name of the job's account.
func (m *site) home(s *spec) (home, name string) {
	if s.Account != nil {
		return s.Account.home, s.Account.Name
	}
	return m.account.home, m.account.user
}

// fileSystems says where each file system is (GFD.56 §5.2.5). The directories that
// belong to the job are named in the spec, to be made when it starts.
func (m *site) fileSystems(d *jsdl.JobDefinition, s *spec) func(string) (string, bool) {
	own := func(name string) string {
		if !slices.Contains(s.Make, name) {
			s.Make = append(s.Make, name)
		}
		return filepath.Join(m.jobs, string(s.Tag), name)
	}
	wellKnown := func(name string) (string, bool) {
		switch name {
		case "HOME":
			home, _ := m.home(s)
			return home, true
		case "ROOT":
			return "/", true
		case "TMP":
			return own(nameTmp), true
		case "SCRATCH":
			return own(nameScratch), true
		}
		return "", false
	}
	return func(name string) (string, bool) {
		f := d.FileSystem(name)
		if f == nil {
			return wellKnown(name)
		}
		if f.MountPoint != nil {
			return *f.MountPoint, true
		}
		if point, ok := wellKnown(name); ok {
			return point, true
		}
		if f.Type == "swap" {
			return "", false
		}
		return own(filepath.Join(nameMounts, name)), true
	}
}

// text resolves a text of the program's.
func (p *planner) text(element string, t jsdl.Text) string {
	value, err := jsdl.ResolveText(t, p.mounts)
	if err != nil {
		p.add("%s: %s", element, fail.Sentence(err))
		p.invalid = p.invalid || fail.Is(err, fail.Invalid)
	}
	if strings.IndexByte(value, 0) >= 0 {
		p.add("%s: it holds the byte 0, which no program can be given", element)
		p.invalid = true
	}
	return value
}

// file resolves the name of a file that may be left out.
func (p *planner) file(element string, t *jsdl.Text) string {
	if t == nil {
		return ""
	}
	value := p.text(element, *t)
	if value == "" {
		p.add("%s: it names no file; leave the element out instead", element)
		p.invalid = true
	}
	return value
}

func (p *planner) arguments(element string) {
	for i, a := range p.program.Arguments {
		name := fmt.Sprintf("%s %d", element, i+1)
		value := p.text(name, a)
		p.s.Arguments = append(p.s.Arguments, value)
		p.given(name, len(value))
	}
}

func (p *planner) workingDirectory(element string) {
	dir := p.file(element, p.program.WorkingDirectory)
	if dir != "" && !filepath.IsAbs(dir) && !filepath.IsLocal(dir) {
		p.add("%s: %q leads out of the job's own directory; give an absolute path or one without \"..\"", element, dir)
		p.invalid = true
	}
	p.s.Directory = dir
}

// variables makes the program's environment: the site's, and over it the job's own.
func (p *planner) variables() {
	home, user := p.home(p.s)
	environment := map[string]string{
		"PATH": p.options.Path, "HOME": home, "USER": user, "LOGNAME": user,
		"TMPDIR": "/tmp", "LANG": "C.UTF-8", tagVariable: string(p.s.Tag),
	}
	if id := p.w.definition.Description.Identification; id != nil {
		if id.JobName != nil && plainVariable(*id.JobName) {
			environment["PORTOLAN_JOB_NAME"] = *id.JobName
		}
		if all := strings.Join(id.Projects, ","); len(id.Projects) > 0 && plainVariable(all) {
			environment["PORTOLAN_JOB_PROJECT"] = all
		}
	}
	maps.Copy(environment, p.options.Environment)
	if p.s.Ranks != nil && p.s.Ranks.Threads > 0 {
		environment["OMP_NUM_THREADS"] = strconv.Itoa(p.s.Ranks.Threads)
	}
	for _, v := range p.program.Environment {
		if v.Name == "" || strings.ContainsAny(v.Name, "=\x00") {
			p.add("Environment %q: this can't be the name of a variable", v.Name)
			p.invalid = true
			continue
		}
		environment[v.Name] = p.text("Environment "+v.Name, v.Text)
	}
	for name, value := range environment {
		p.s.Environment = append(p.s.Environment, name+"="+value)
		p.given("Environment "+name, len(name)+1+len(value))
	}
	slices.Sort(p.s.Environment)
	// Room for the kernel's own: the name again, the auxiliary vector, a page or two.
	if p.size > p.argMax-16<<10 {
		p.add("Argument, Environment: together they take %d bytes; this machine gives a program at most %d", p.size, p.argMax-16<<10)
	}
}

// plainVariable reports whether a label is short and plain enough to be told as a variable.
func plainVariable(s string) bool { return len(s) <= 4096 && strings.IndexByte(s, 0) < 0 }

// tagVariable marks every process of a job that has not thrown its environment away.
const tagVariable = "PORTOLAN_JOB"

// given counts a string of a program's, with its end and its pointer.
func (p *planner) given(element string, n int) {
	if n >= maxString {
		p.add("%s: it has %d bytes; this machine gives a program at most %d in one", element, n, maxString-1)
	}
	p.size += int64(n) + 1 + 8
}

func (m *site) named(host string) bool {
	return slices.ContainsFunc(m.names, func(n string) bool { return strings.EqualFold(n, host) })
}

func quoted(list []string) []string {
	out := make([]string, 0, min(len(list), 8))
	for _, s := range list[:min(len(list), 8)] {
		out = append(out, strconv.Quote(s))
	}
	return out
}

// atMost finds the smallest number of the range, from least on, and refuses the
// element if the machine has less.
func atMost(no *refusals, element string, r *jsdl.RangeValue, least, have int64, unit string) int64 {
	if r == nil {
		return least
	}
	n, ok := r.LowestInteger(least)
	if !ok || n > have {
		no.add("%s: this machine has %d %s, which is not enough or not in the range", element, have, unit)
		return least
	}
	return n
}
