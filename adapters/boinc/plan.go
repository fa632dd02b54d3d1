package boinc

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// plan is what becomes of a definition at the project.
type plan struct {
	app        string
	version    int // of the application; 0 is the newest
	command    string
	native     bool   // the application has a program of its own
	script     []byte // of the wrapper application; nil for others
	stdout     *int   // places in the output template of others
	stderr     *int
	memory     int64
	disk       int64
	wall       time.Duration // limit; 0: the setting's
	quorum     int
	replicas   int
	rerunnable bool
	priority   *int
	deadline   time.Time
	name       string            // for people
	subjects   map[string]string // by element: what a sentence about its end names
}

// planner turns a definition into a plan, rule by rule, gathering every element that
// stands against the job.
type planner struct {
	s         *Settings
	site      string
	platforms []string // nil: the project never told
	d         *jsdl.JobDefinition
	p         jsdl.Program
	r         *jsdl.Resources
	place     *jsdl.Placement

	plan    plan
	script  script
	size    int64 // of arguments and environment
	list    []string
	invalid bool
	waits   bool // for the project to tell its platforms
}

func (p *planner) refuse(format string, args ...any) {
	p.list = append(p.list, fmt.Sprintf(format, args...))
}

// wrong refuses what is wrong anywhere.
func (p *planner) wrong(format string, args ...any) {
	p.invalid = true
	p.refuse(format, args...)
}

const opCheck = "boinc.Check"

// planFor makes the plan, or the error of Check: fail.Unsupported or fail.Invalid
// with a sentence that names each element.
func (a *Adapter) planFor(d *jsdl.JobDefinition) (plan, error) {
	if d == nil {
		return plan{}, fail.Errorf(opCheck, fail.Invalid, "", "there is no job definition")
	}
	p := &planner{
		s: &a.settings, site: a.site, platforms: a.knownPlatforms(), d: d, p: d.Program(), r: d.Description.Resources,
		plan:   plan{quorum: 1, replicas: 1, memory: a.settings.Memory, disk: a.settings.Disk, subjects: map[string]string{}},
		script: script{environment: map[string]word{}, maxOutput: a.settings.MaxOutput},
	}
	if p.r == nil {
		p.r = &jsdl.Resources{}
	}
	if p.place = p.r.Placement; p.place == nil {
		p.place = &jsdl.Placement{}
	}
	p.choose()
	for i := range rules {
		r := &rules[i]
		switch {
		case r.use != nil:
			r.use(p)
		case r.asked(p):
			p.refuse("%s: %s", r.Element, r.Note)
		}
	}
	p.finish()
	if len(p.list) > 0 {
		kind := fail.Unsupported
		if p.invalid {
			kind = fail.Invalid
		}
		return plan{}, fail.Errorf(opCheck, kind, "", "%s", strings.Join(p.list, "; "))
	}
	if p.waits {
		return plan{}, fail.Errorf(opCheck, fail.Unavailable, "", "the project has not told yet which kinds of hosts it has")
	}
	return p.plan, nil
}

// wrapped says that the job is run by a job script.
func (p *planner) wrapped() bool { return !p.plan.native }

// choose finds the application that runs the job.
func (p *planner) choose() {
	name, version := "", ""
	if a := p.d.Description.Application; a != nil {
		if a.Name != nil {
			name = *a.Name
		}
		if a.Version != nil {
			version = *a.Version
		}
	}
	mapped := p.s.application(name, version)
	runs := p.p.Executable.Value != "" || p.p.Executable.FileSystem != ""
	switch {
	case mapped != nil && (!runs || p.s.Wrapper == ""):
		p.plan.app, p.plan.version, p.plan.command = mapped.App, mapped.AppVersion, mapped.CommandLine
		p.plan.native, p.plan.stdout, p.plan.stderr = true, mapped.Stdout, mapped.Stderr
	case p.s.Wrapper != "":
		p.plan.app = p.s.Wrapper
	case runs:
		p.refuse("Executable: this project runs installed applications only; name one of them as ApplicationName: %s", p.s.names())
	case name != "":
		p.refuse("ApplicationName: %q is none of the applications of this project: %s", name, p.s.names())
	default:
		p.refuse("Application: name one of the applications of this project as ApplicationName: %s", p.s.names())
	}
}

// mount gives the place of a file system as a word.
func (p *planner) mount(name string) (word, bool) {
	if f := p.d.FileSystem(name); f != nil && f.MountPoint != nil {
		if p.s.AbsolutePaths {
			return word{text: *f.MountPoint}, true
		}
		return word{}, false
	}
	switch name {
	case "ROOT":
		return word{text: "/"}, true
	case "HOME":
		return word{variable: "here", text: "/work"}, true
	case "TMP":
		return word{variable: "here", text: "/tmp"}, true
	case "SCRATCH":
		return word{variable: "here", text: "/scratch"}, true
	}
	return word{}, false
}

// resolve turns a text into a word (standards' X1: below a file system it is a path
// after the mount point).
func (p *planner) resolve(element string, t jsdl.Text) word {
	var at word
	value, err := jsdl.ResolveText(t, func(name string) (string, bool) {
		w, ok := p.mount(name)
		at = w
		return w.text, ok
	})
	if err != nil {
		p.refuse("%s: %s", element, fail.Sentence(err))
		p.invalid = p.invalid || fail.Is(err, fail.Invalid)
	}
	if strings.IndexByte(value, 0) >= 0 {
		p.wrong("%s: it holds the byte 0, which no program can be given", element)
	}
	return word{variable: at.variable, text: value}
}

// file resolves the name of a file of the job's. Files that lie elsewhere on a host
// are no volunteer's.
func (p *planner) file(element string, t *jsdl.Text) *word {
	if t == nil {
		return nil
	}
	w := p.resolve(element, *t)
	switch {
	case w.variable == "" && w.text == "":
		p.wrong("%s: it names no file; leave the element out instead", element)
	case w.variable != "":
	case strings.HasPrefix(w.text, "/"):
		if !p.s.AbsolutePaths {
			p.refuse("%s: %q is a path of one machine, and hosts of volunteers have no files in common; use a name without a slash at its begin", element, w.text)
		}
	case element == "WorkingDirectory" && slices.Contains(strings.Split(w.text, "/"), ".."):
		p.wrong("WorkingDirectory: %q leads out of the job's own directory; write it without \"..\"", w.text)
	case !p.s.AbsolutePaths && slices.Contains(strings.Split(path.Clean(w.text), "/"), ".."):
		p.wrong("%s: %q leads out of the job's own directory; write it without \"..\"", element, w.text)
	}
	p.plan.subjects[element] = w.text
	return &w
}

// Bounds of what the kernels of hosts take.
const (
	maxString    = 128<<10 - 1
	maxArguments = 2<<20 - 64<<10
)

func (p *planner) given(element string, n int) {
	if n > maxString {
		p.refuse("%s: it has %d bytes; hosts give a program at most %d in one", element, n, maxString)
	}
	p.size += int64(n) + 1 + 8
}

// finish checks what the rules brought together.
func (p *planner) finish() {
	if p.size > maxArguments {
		p.refuse("Argument, Environment: together they take %d bytes; hosts give a program at most %d", p.size, maxArguments)
	}
	if p.plan.memory > p.s.Capacity.Memory {
		p.refuse("IndividualPhysicalMemory: no host of this site has %d bytes; a job that asks for more than %d would never be sent", p.plan.memory, p.s.Capacity.Memory)
	}
	if p.plan.disk > p.s.Capacity.Disk {
		p.refuse("IndividualDiskSpace: no host of this site has %d bytes for a job; a job that asks for more than %d would never be sent", p.plan.disk, p.s.Capacity.Disk)
	}
	if p.plan.quorum > 1 && p.plan.replicas < p.plan.quorum {
		p.plan.replicas = p.plan.quorum
	}
	if !p.wrapped() || len(p.list) > 0 {
		return
	}
	// Instances of one job must leave the same bytes behind, and no two run at the
	// same time.
	p.script.times = p.plan.quorum == 1
	text := p.script.String()
	if len(text) > p.s.MaxFile {
		p.refuse("Argument, Environment: the job's script has %d bytes; the project takes files of at most %d (max_file)", len(text), p.s.MaxFile)
	}
	p.plan.script = []byte(text)
}

// minutes: a limit under two of them is taken for a mistake by clients, which then
// allow twelve hours; and hosts may be faster than the benchmark.
const (
	leastLimit = 180 * time.Second
	margin     = 10 // of the project's limit over the script's own, which is the sharp one
)

// limits gives the numbers of the workunit.
func (pl *plan) limits(s *Settings, now time.Time) (est, bound float64, delay int64) {
	wall := pl.wall
	if wall == 0 {
		wall = s.WallTime
	}
	est = min(wall, time.Hour).Seconds() * s.Benchmark
	bound = max(wall, leastLimit).Seconds() * s.Benchmark
	if pl.script != nil {
		bound = max(wall+time.Minute, leastLimit).Seconds() * s.Benchmark * margin
	}
	back := s.Return
	if !pl.deadline.IsZero() {
		back = min(back, max(pl.deadline.Sub(now), time.Minute))
	}
	return est, bound, int64(back.Seconds())
}

// totals gives the numbers of instances (max_error ≤ max_total, target ≤ max_success ≤ max_total).
func (pl *plan) totals(s *Settings) (errors, total, success int) {
	total = pl.replicas
	if pl.rerunnable || pl.quorum > 1 {
		total += s.Retries
	}
	return total, total, total
}

// jobXML writes a job of a submit_batch.
func (pl *plan) jobXML(s *Settings, name string, input string, now time.Time) string {
	est, bound, delay := pl.limits(s, now)
	errors, total, success := pl.totals(s)
	var b strings.Builder
	b.WriteString("<job>" + el("name", name))
	if pl.command != "" {
		b.WriteString(el("command_line", pl.command))
	}
	if pl.priority != nil {
		fmt.Fprintf(&b, "<priority>%d</priority>", *pl.priority)
	}
	fmt.Fprintf(&b, "<rsc_fpops_est>%g</rsc_fpops_est>", est)
	b.WriteString(input)
	b.WriteString("<input_template>")
	if pl.script != nil {
		b.WriteString("<file_info><no_delete/></file_info>")
	}
	b.WriteString("<workunit>")
	if pl.script != nil {
		b.WriteString("<file_ref><open_name>" + scriptFile + "</open_name><copy_file/></file_ref>")
	}
	fmt.Fprintf(&b, "<rsc_fpops_est>%g</rsc_fpops_est><rsc_fpops_bound>%g</rsc_fpops_bound><rsc_memory_bound>%d</rsc_memory_bound><rsc_disk_bound>%d</rsc_disk_bound><delay_bound>%d</delay_bound>",
		est, bound, pl.memory, pl.disk, delay)
	fmt.Fprintf(&b, "<min_quorum>%d</min_quorum><target_nresults>%d</target_nresults><max_error_results>%d</max_error_results><max_total_results>%d</max_total_results><max_success_results>%d</max_success_results>",
		pl.quorum, pl.replicas, errors, total, success)
	b.WriteString("</workunit></input_template>")
	if pl.script != nil {
		b.WriteString(outputTemplate(s.MaxOutput))
	}
	b.WriteString("</job>")
	return b.String()
}

// outputTemplate is the same for all jobs of a site: projects keep each for ever.
func outputTemplate(maxOutput int64) string {
	var infos, refs strings.Builder
	for i, name := range outputs {
		limit := maxOutput + 4096
		if name == statusFile {
			limit = maxStatus
		}
		fmt.Fprintf(&infos, "<file_info><name><OUTFILE_%d/></name><generated_locally/><upload_when_present/><max_nbytes>%d</max_nbytes><url><UPLOAD_URL/></url></file_info>", i, limit)
		fmt.Fprintf(&refs, "<file_ref><file_name><OUTFILE_%d/></file_name><open_name>%s</open_name><copy_file/></file_ref>", i, name)
	}
	return "<output_template>" + infos.String() + "<result>" + refs.String() + "</result></output_template>"
}

// Check says whether the project could ever run the definition.
func (a *Adapter) Check(d *jsdl.JobDefinition) error {
	_, err := a.planFor(d)
	return err
}

var _ adapters.Adapter = (*Adapter)(nil)
