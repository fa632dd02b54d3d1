package condor

import (
	"fmt"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/internal/program"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// site is what jobs are planned for.
type site struct {
	name     string
	settings *Settings
	jobs     string  // the directory of jobs
	own      account // that jobs run as by default
	root     bool    // we may run jobs as others
	argMax   int64
	// parse asks the pool whether an expression is one; a nil error also when it can't be
	// asked.
	parse func(string) error
}

func (s *site) dir(tag adapters.Tag) jobDir { return jobDir(filepath.Join(s.jobs, string(tag))) }

// The kernel's bounds on what a program is given (execve(2)): a quarter of the stack
// limit, at most 6 MiB, for all of it; 32 pages for one string.
const (
	maxString     = 128 << 10
	maxAllStrings = 6 << 20
	minAllStrings = 128 << 10
)

func argMax() int64 {
	var r unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_STACK, &r) != nil || r.Cur/4 > maxAllStrings {
		return maxAllStrings
	}
	return max(int64(r.Cur/4), minAllStrings)
}

// plan is a job on its way from JSDL to HTCondor: the rules of the mapping fill in
// what is asked of HTCondor and what the runner is to do, or refuse.
type plan struct {
	site    *site
	facts   *facts // nil: the pool was never heard of
	now     time.Time
	def     *jsdl.JobDefinition
	program jsdl.Program
	mapped  string // the account that the owner is mapped to
	refused []string
	invalid bool // something is wrong in itself, not only here

	account   account
	mounts    func(string) (string, bool)
	slots     []slot // that may be used
	size      int64  // bytes of arguments and environment
	cpus      int64
	memory    int64 // bytes
	disk      int64 // bytes
	processes int

	request request
	spec    *spec
}

// make runs the mapping on a job.
func (s *site) make(f *facts, now time.Time, d *jsdl.JobDefinition, tag adapters.Tag, owner, mapped string) (*plan, error) {
	if d == nil {
		return nil, fail.Errorf("condor.Check", fail.Invalid, "", "there is no job definition")
	}
	p := &plan{site: s, facts: f, now: now, def: d, program: d.Program(), mapped: mapped, cpus: 1}
	if f != nil {
		p.slots = f.slots
	}
	p.spec = &spec{Version: version, Tag: tag, Owner: owner, Submitted: now}
	p.spec.Program.Umask, p.spec.Program.Grace = s.settings.umask, s.settings.grace
	for i := range rules {
		if r := &rules[i]; r.apply != nil {
			r.apply(p, r.element)
		}
	}
	p.finish()
	if len(p.refused) > 0 {
		kind := fail.Unsupported
		if p.invalid {
			kind = fail.Invalid
		}
		return nil, fail.Errorf("condor.Check", kind, "", "%s", clip(strings.Join(p.refused, "; ")))
	}
	return p, nil
}

func (p *plan) refuse(element, format string, args ...any) {
	p.refused = append(p.refused, fmt.Sprintf("%s: %s", element, fmt.Sprintf(format, args...)))
}

// wrong refuses what is wrong wherever it is asked for.
func (p *plan) wrong(element, format string, args ...any) {
	p.refuse(element, format, args...)
	p.invalid = true
}

func (p *plan) resources() *jsdl.Resources {
	if r := p.def.Description.Resources; r != nil {
		return r
	}
	return &jsdl.Resources{}
}

func (p *plan) placement() *jsdl.Placement {
	if x := p.resources().Placement; x != nil {
		return x
	}
	return &jsdl.Placement{}
}

func (p *plan) identification() *jsdl.JobIdentification {
	if x := p.def.Description.Identification; x != nil {
		return x
	}
	return &jsdl.JobIdentification{}
}

// who finds the account that the job runs as.
func (p *plan) who(element string) {
	s := p.site
	p.account = s.own
	wanted := p.mapped
	switch user := p.program.UserName; {
	case user == nil:
	case wanted == "":
		wanted = *user
		if !s.own.is(wanted) && !slices.Contains(s.settings.Accounts, wanted) {
			p.refuse(element, "jobs run as %q here, not as %q; leave it out", s.own.name, wanted)
			return
		}
	case *user != wanted:
		p.refuse(element, "the job's owner is mapped to the account %q here, not to %q; leave it out", wanted, *user)
		return
	}
	if wanted != "" && !s.own.is(wanted) {
		if !s.root {
			p.refuse(element, "the job is to run as %q, for which the gateway must be root; it is %q", wanted, s.own.name)
			return
		}
		a, err := lookupAccount(wanted)
		if err != nil {
			p.refuse(element, "%v", err)
			return
		}
		p.account = a
	}
	if s.root {
		if dir := closed(s.jobs); dir != "" {
			p.refuse(element, "the account %q can't get at the directory of jobs: others may not enter %s", p.account.name, dir)
		}
	}
	p.spec.UID, p.spec.Account = p.account.uid, p.account.name
	p.request.Account, p.request.UID, p.request.GID = p.account.name, p.account.uid, p.account.gid
}

func (a account) is(name string) bool { return name == a.name || name == strconv.Itoa(a.uid) }

func (p *plan) groupName(element string) {
	if g := p.program.GroupName; g != nil && *g != p.account.group && *g != strconv.Itoa(p.account.gid) {
		p.refuse(element, "jobs run in the group %q here, not in %q; leave it out", p.account.group, *g)
	}
}

// fileSystems says where each file system is (GFD.56 §5.2.5). The directories that
// belong to the job are named in the spec, to be made when it starts.
func (p *plan) fileSystems(element string) {
	home := string(p.site.dir(p.spec.Tag))
	own := func(name string) (string, bool) {
		if p.site.settings.Transfer {
			return "", false // where the node puts the job is not known before
		}
		if make := &p.spec.Program.Make; !slices.Contains(*make, name) {
			*make = append(*make, name)
		}
		return filepath.Join(home, name), true
	}
	wellKnown := func(name string) (string, bool) {
		switch name {
		case "HOME":
			return p.account.home, true
		case "ROOT":
			return "/", true
		case "TMP":
			return own(program.NameTmp)
		case "SCRATCH":
			return own(program.NameScratch)
		}
		path, ok := p.site.settings.FileSystems[name]
		return path, ok
	}
	for _, f := range p.resources().FileSystems {
		p.declared(element, f)
	}
	p.mounts = func(name string) (string, bool) {
		f := p.def.FileSystem(name)
		switch {
		case f == nil:
			return wellKnown(name)
		case f.MountPoint != nil:
			return *f.MountPoint, true
		}
		if point, ok := wellKnown(name); ok {
			return point, true
		}
		if f.Type == "swap" {
			return "", false
		}
		return own(filepath.Join(program.NameMounts, name))
	}
}

func (p *plan) declared(element string, f jsdl.FileSystem) {
	where := p.site.jobs
	if f.MountPoint != nil {
		where = *f.MountPoint
		if !p.site.settings.Transfer {
			if info, err := os.Stat(where); err != nil || !info.IsDir() || !filepath.IsAbs(where) {
				p.refuse(element+" "+f.Name, "its MountPoint %q is not a directory that the gateway and the nodes share; nothing is mounted for jobs here", where)
				return
			}
		}
	}
	if f.DiskSpace == nil {
		return
	}
	if f.Type == "swap" || p.site.settings.Transfer {
		p.refuse(element+" "+f.Name+"/DiskSpace", "HTCondor does not tell the space of this file system on its nodes")
		return
	}
	var s syscall.Statfs_t
	if syscall.Statfs(where, &s) != nil {
		return
	}
	free := int64(min(s.Bavail*uint64(s.Bsize), 1<<62))
	if n, ok := f.DiskSpace.LowestInteger(0); !ok || n > free {
		p.refuse(element+" "+f.Name+"/DiskSpace", "%d bytes are free at %s, which is not enough or not in the range", free, where)
	}
}

// text resolves a string of the program's.
func (p *plan) text(element string, t jsdl.Text) string {
	value, err := jsdl.ResolveText(t, p.mounts)
	if err != nil {
		p.refuse(element, "%s", fail.Sentence(err))
		p.invalid = p.invalid || fail.Is(err, fail.Invalid)
	}
	if strings.IndexByte(value, 0) >= 0 {
		p.wrong(element, "it holds the byte 0, which no program can be given")
	}
	return value
}

// file resolves the name of a file.
func (p *plan) file(element string, t *jsdl.Text) string {
	if t == nil {
		return ""
	}
	value := p.text(element, *t)
	if value == "" {
		p.wrong(element, "it names no file; leave the element out instead")
	}
	return value
}

// given counts a string of the program's, with its end and its pointer.
func (p *plan) given(element string, n int) {
	if n >= maxString {
		p.refuse(element, "it has %d bytes; a node gives a program at most %d in one", n, maxString-1)
	}
	p.size += int64(n) + 1 + 8
}

func (p *plan) executable(element string) {
	p.spec.Program.Executable = p.text(element, p.program.Executable)
	p.size += int64(len(p.spec.Program.Executable))
}

func (p *plan) arguments(element string) {
	for i, a := range p.program.Arguments {
		element := fmt.Sprintf("%s %d", element, i+1)
		value := p.text(element, a)
		p.spec.Program.Arguments = append(p.spec.Program.Arguments, value)
		p.given(element, len(value))
	}
}

func (p *plan) workingDirectory(element string) {
	d := p.file(element, p.program.WorkingDirectory)
	p.spec.Program.Directory = d
	if d != "" && !filepath.IsAbs(d) && !filepath.IsLocal(d) {
		p.wrong(element, "%q leads out of the job's own directory; give an absolute path or one without \"..\"", d)
	}
}

// tagVariable marks every process of a job that has not thrown its environment away.
const tagVariable = "PORTOLAN_JOB"

func (p *plan) environment(element string) {
	s := p.site.settings
	env := map[string]string{
		"PATH": s.ProgramPath, "HOME": p.account.home, "USER": p.account.name, "LOGNAME": p.account.name,
		"TMPDIR": "/tmp", "LANG": "C.UTF-8", tagVariable: string(p.spec.Tag),
	}
	maps.Copy(env, s.Environment)
	for _, v := range p.program.Environment {
		if v.Name == "" || strings.ContainsAny(v.Name, "=\x00") {
			p.wrong(fmt.Sprintf("%s %q", element, v.Name), "this can't be the name of a variable")
			continue
		}
		env[v.Name] = p.text(element+" "+v.Name, v.Text)
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		value := env[name]
		p.spec.Program.Environment = append(p.spec.Program.Environment, name+"="+value)
		p.given(element+" "+name, len(name)+1+len(value))
	}
}

// limit takes a POSIX limit (GFD.56 §8.1.9 ff.). A number beyond what a node can count
// is no limit that anything could reach.
func (p *plan) limit(element string, n *big.Int) (value uint64, given bool) {
	if n == nil {
		return 0, false
	}
	if n.Sign() < 0 {
		p.wrong(element, "a limit can't be negative")
		return 0, false
	}
	value = program.Unlimited
	if n.IsUint64() {
		value = n.Uint64()
	}
	if p.spec.Program.Limits == nil {
		p.spec.Program.Limits = map[string]uint64{}
	}
	p.spec.Program.Limits[element] = value
	return value, true
}

// wallTime is kept to the second by the runner; HTCondor's own bound, some time later,
// ends what the runner could not.
func (p *plan) wallTime(element string) {
	n, given := p.limit(element, p.program.Limits.WallTime)
	if given && n < 1<<30 {
		p.request.set("allowed_job_duration", strconv.FormatUint(n+uint64(p.site.settings.grace/time.Second)+60, 10))
		p.spec.Wall = strconv.FormatUint(n, 10)
	}
}

// coreDump needs the node's leave as well: HTCondor lets a job dump as much as it says.
func (p *plan) coreDump(element string) {
	if n, given := p.limit(element, p.program.Limits.CoreDump); given {
		p.request.set("coresize", strconv.FormatUint(min(n, 1<<31-1), 10))
	}
}

// require puts an expression over slots into the job's requirements.
func (p *plan) require(format string, args ...any) {
	p.request.Requirements = append(p.request.Requirements, fmt.Sprintf(format, args...))
}

// keep leaves only some of the slots to the job, and refuses the element if none is
// left.
func (p *plan) keep(element string, ok func(slot) bool, format string, args ...any) {
	if len(p.slots) == 0 {
		return // nothing is known
	}
	left := make([]slot, 0, len(p.slots))
	for _, s := range p.slots {
		if ok(s) {
			left = append(left, s)
		}
	}
	if len(left) == 0 {
		p.refuse(element, format, args...)
		return // what else stands against the job is judged by the same slots
	}
	p.slots = left
}

// most gives the largest of what the slots that may be used have.
func (p *plan) most(of func(slot) int64) int64 {
	var n int64
	for _, s := range p.slots {
		n = max(n, of(s))
	}
	return n
}

// least takes the smallest number of a range, from one on, that one slot has.
func (p *plan) least(element string, r *jsdl.RangeValue, least int64, of func(slot) int64, unit string) int64 {
	if r == nil {
		return 0
	}
	n, ok := r.LowestInteger(least)
	if !ok {
		p.refuse(element, "no number of the range can be asked for")
		return 0
	}
	enough := func(s slot) bool { return of(s) >= n }
	if p.facts != nil && slices.ContainsFunc(p.facts.slots, enough) {
		p.keep(element, enough, "of the machines of this pool that have what else the job asks for, each has at most %d %s, which is not enough; %d are asked for", p.most(of), unit, n)
		return n
	}
	p.keep(element, enough, "a machine of this pool has at most %d %s, which is not enough", p.most(of), unit)
	return n
}

// never refuses an element that is there, with the note of its rule.
func (p *plan) never(element string, given bool) {
	if !given {
		return
	}
	for _, r := range rules {
		if r.element == element {
			p.refuse(local(element), "%s", r.note)
		}
	}
}

// local gives the element's own name.
func local(element string) string { return element[strings.LastIndexByte(element, '/')+1:] }
