package slurm

import (
	"fmt"
	"maps"
	"math/big"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// account is who a job runs as.
type account struct {
	user, group, home string
	uid, gid          int
}

func whoami() account {
	a := account{uid: os.Getuid(), gid: os.Getgid(), home: "/"}
	a.user, a.group = strconv.Itoa(a.uid), strconv.Itoa(a.gid)
	if u, err := user.LookupId(a.user); err == nil {
		a.user = u.Username
		if u.HomeDir != "" {
			a.home = u.HomeDir
		}
	}
	if g, err := user.LookupGroupId(a.group); err == nil {
		a.group = g.Name
	}
	return a
}

func lookupAccount(name string) (account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return account{}, fmt.Errorf("there is no account %q here", name)
	}
	a := account{user: u.Username, home: u.HomeDir}
	var errs [2]error
	a.uid, errs[0] = strconv.Atoi(u.Uid)
	a.gid, errs[1] = strconv.Atoi(u.Gid)
	if errs[0] != nil || errs[1] != nil {
		return account{}, fmt.Errorf("the account %q has no numbers here", name)
	}
	if a.uid == 0 {
		return account{}, fmt.Errorf("no job of another's runs as %q", name)
	}
	a.group = u.Gid
	if g, err := user.LookupGroupId(u.Gid); err == nil {
		a.group = g.Name
	}
	if a.home == "" {
		a.home = "/"
	}
	return a, nil
}

// site is what jobs are planned for.
type site struct {
	name     string
	settings *Settings
	spool    spool
	own      account
	root     bool // we may run jobs as others
	argMax   int64
	srun     string // the launcher, on the nodes
}

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

// refusals gathers every element that stands against a job.
type refusals struct {
	list    []string
	invalid bool // one of them is wrong in itself, not only here
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
	return fail.Errorf("slurm.Check", kind, "", "%s", strings.Join(r.list, "; "))
}

// plan is a job on its way from JSDL to Slurm: the rules of the mapping fill in what
// is asked of Slurm and what the runner is to do, or refuse.
type plan struct {
	site    *site
	info    *siteInfo
	facts   *facts
	now     time.Time
	def     *jsdl.JobDefinition
	program jsdl.Program
	mapped  string // the account that the owner is mapped to
	no      refusals
	note    string // of the rule at hand

	account   account
	mounts    func(string) (string, bool)
	nodes     []node // that may be used
	partition *partition
	size      int64 // bytes of arguments and environment
	asked     numbers

	request request
	spec    *spec
}

// numbers are what is asked for, before it is put into Slurm's words.
type numbers struct {
	hosts               int64 // 0: not said
	cpus, total         int64
	memory, memoryTotal int64 // bytes
	virtual, virtualAll int64
	tmp, tmpTotal       int64
	cpuTime, cpuTimeAll int64
}

// make runs the mapping on a job.
func (s *site) make(info *siteInfo, f *facts, now time.Time, d *jsdl.JobDefinition, tag adapters.Tag, mapped string) (*plan, error) {
	if d == nil {
		return nil, fail.Errorf("slurm.Check", fail.Invalid, "", "there is no job definition")
	}
	p := &plan{site: s, info: info, facts: f, now: now, def: d, program: d.Program(), mapped: mapped}
	p.spec = &spec{Version: specVersion, Tag: tag, Umask: s.settings.umask, Grace: s.settings.grace, Submitted: now}
	p.request = request{Nodes: 1, Dir: string(s.spool), Account: s.settings.Account, Partition: s.settings.Share, QOS: s.settings.QualityOfService}
	for i := range rules {
		if r := &rules[i]; r.apply != nil {
			p.note = r.note
			r.apply(p, r.element)
		}
	}
	p.finish()
	if err := p.no.err(); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *plan) refuse(element, format string, args ...any) {
	p.no.add("%s: %s", element, fmt.Sprintf(format, args...))
}

// invalid refuses what is wrong wherever it is asked for.
func (p *plan) invalid(element, format string, args ...any) {
	p.refuse(element, format, args...)
	p.no.invalid = true
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

// who finds the account that the job runs as.
func (p *plan) who(element string) {
	s, program := p.site, p.program
	p.account = s.own
	name := p.mapped
	switch {
	case name == "" && program.UserName != nil:
		name = *program.UserName
		if name != s.own.user && name != strconv.Itoa(s.own.uid) && !slices.Contains(s.settings.Accounts, name) {
			p.refuse(element, "jobs run as %q here, not as %q; leave it out", s.own.user, name)
			return
		}
	case name != "" && program.UserName != nil && *program.UserName != name:
		p.refuse(element, "the job's owner is mapped to the account %q here, not to %q; leave it out", name, *program.UserName)
		return
	}
	if name == "" || name == s.own.user || name == strconv.Itoa(s.own.uid) {
		return
	}
	if !s.root {
		p.refuse(element, "the job is to run as %q, for which the gateway must be root; it is %q", name, s.own.user)
		return
	}
	a, err := lookupAccount(name)
	if err != nil {
		p.refuse(element, "%v", err)
		return
	}
	if dir := closed(string(s.spool)); dir != "" {
		p.refuse(element, "the account %q can't get at the site's spool: others may not enter %s", name, dir)
		return
	}
	p.account = a
	p.request.User, p.request.UID, p.request.GID = a.user, a.uid, a.gid
}

// closed gives the first directory on a path that others may not enter.
func closed(path string) string {
	for dir := path; ; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil && info.Mode()&0o001 == 0 {
			return dir
		}
		if dir == filepath.Dir(dir) {
			return ""
		}
	}
}

func (p *plan) groupName(element string) {
	if g := p.program.GroupName; g != nil && *g != p.account.group && *g != strconv.Itoa(p.account.gid) {
		p.refuse(element, "jobs run in the group %q here, not in %q; leave it out", p.account.group, *g)
	}
}

// fileSystems says where each file system is (GFD.56 §5.2.5). The directories that
// belong to the job are named in the spec, to be made when it starts.
func (p *plan) fileSystems(element string) {
	job := p.site.spool.job(p.spec.Tag)
	own := func(name string) string {
		if !slices.Contains(p.spec.Make, name) {
			p.spec.Make = append(p.spec.Make, name)
		}
		return job.path(name)
	}
	wellKnown := func(name string) (string, bool) {
		switch name {
		case "HOME":
			return p.account.home, true
		case "ROOT":
			return "/", true
		case "TMP":
			return own(nameTmp), true
		case "SCRATCH":
			return own(nameScratch), true
		}
		path, ok := p.site.settings.FileSystems[name]
		return path, ok
	}
	for _, f := range p.resources().FileSystems {
		p.declared(element, f)
	}
	p.mounts = func(name string) (string, bool) {
		f := p.def.FileSystem(name)
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

func (p *plan) declared(element string, f jsdl.FileSystem) {
	where := string(p.site.spool)
	if f.MountPoint != nil {
		where = *f.MountPoint
		if info, err := os.Stat(where); err != nil || !info.IsDir() || !filepath.IsAbs(where) {
			p.refuse(element+" "+f.Name, "its MountPoint %q is not a directory that the gateway and the nodes share; nothing is mounted for jobs here", where)
			return
		}
	}
	if f.Type == "swap" && f.DiskSpace != nil {
		p.refuse(element+" "+f.Name+"/DiskSpace", "Slurm does not tell the swap of its nodes")
		return
	}
	if f.DiskSpace != nil {
		free, err := diskFree(where)
		if n, ok := f.DiskSpace.LowestInteger(0); err == nil && (!ok || n > free) {
			p.refuse(element+" "+f.Name+"/DiskSpace", "%d bytes are free at %s, which is not enough or not in the range", free, where)
		}
	}
}

// diskFree gives the bytes free to an ordinary account where path is.
func diskFree(path string) (int64, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(path, &s); err != nil {
		return 0, err
	}
	return int64(min(s.Bavail*uint64(s.Bsize), 1<<62)), nil
}

// text resolves a string of the program's.
func (p *plan) text(element string, t jsdl.Text) string {
	value, err := jsdl.ResolveText(t, p.mounts)
	if err != nil {
		p.refuse(element, "%s", fail.Sentence(err))
		p.no.invalid = p.no.invalid || fail.Is(err, fail.Invalid)
	}
	if strings.IndexByte(value, 0) >= 0 {
		p.invalid(element, "it holds the byte 0, which no program can be given")
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
		p.invalid(element, "it names no file; leave the element out instead")
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

func (p *plan) arguments(element string) {
	for i, a := range p.program.Arguments {
		element := fmt.Sprintf("%s %d", element, i+1)
		value := p.text(element, a)
		p.spec.Arguments = append(p.spec.Arguments, value)
		p.given(element, len(value))
	}
}

func (p *plan) workingDirectory(element string) {
	p.spec.Directory = p.file(element, p.program.WorkingDirectory)
	if d := p.spec.Directory; d != "" && !filepath.IsAbs(d) && !filepath.IsLocal(d) {
		p.invalid(element, "%q leads out of the job's own directory; give an absolute path or one without \"..\"", d)
	}
}

// tagVariable marks every process of a job that has not thrown its environment away.
const tagVariable = "PORTOLAN_JOB"

func (p *plan) environment(element string) {
	s := p.site.settings
	env := map[string]string{
		"PATH": s.ProgramPath, "HOME": p.account.home, "USER": p.account.user, "LOGNAME": p.account.user,
		"TMPDIR": "/tmp", "LANG": "C.UTF-8", tagVariable: string(p.spec.Tag),
	}
	maps.Copy(env, s.Environment)
	for _, v := range p.program.Environment {
		if v.Name == "" || strings.ContainsAny(v.Name, "=\x00") {
			p.invalid(fmt.Sprintf("%s %q", element, v.Name), "this can't be the name of a variable")
			continue
		}
		env[v.Name] = p.text(element+" "+v.Name, v.Text)
	}
	for name, value := range env {
		p.spec.Environment = append(p.spec.Environment, name+"="+value)
		p.given(element+" "+name, len(name)+1+len(value))
	}
	slices.Sort(p.spec.Environment)
}

// limit takes a POSIX limit (GFD.56 §8.1.9 ff.). A number beyond what a node can count
// is no limit that anything could reach.
func (p *plan) limit(element string, n *big.Int) (value uint64, given bool) {
	if n == nil {
		return 0, false
	}
	if n.Sign() < 0 {
		p.invalid(element, "a limit can't be negative")
		return 0, false
	}
	value = unlimited
	if n.IsUint64() {
		value = n.Uint64()
	}
	if p.spec.Limits == nil {
		p.spec.Limits = map[string]uint64{}
	}
	p.spec.Limits[element] = value
	return value, true
}

// least takes the smallest number of a range, from one on, and refuses what no node or
// cluster has.
func (p *plan) least(element string, r *jsdl.RangeValue, least, have int64, unit string) int64 {
	if r == nil {
		return 0
	}
	n, ok := r.LowestInteger(least)
	if !ok || n > have {
		p.refuse(element, "this site has %d %s, which is not enough or not in the range", have, unit)
		return 0
	}
	return n
}

// most gives the largest of what the nodes that may be used have.
func (p *plan) most(of func(node) int64) int64 {
	var n int64
	for _, x := range p.nodes {
		n = max(n, of(x))
	}
	return n
}

func (p *plan) sum(of func(node) int64) int64 {
	var n int64
	for _, x := range p.nodes {
		n += of(x)
	}
	return n
}

// keep leaves only some of the nodes to the job; what element says if none is left.
func (p *plan) keep(element string, ok func(node) bool, none string) {
	if len(p.nodes) == 0 {
		return // refused already
	}
	left := make([]node, 0, len(p.nodes))
	for _, n := range p.nodes {
		if ok(n) {
			left = append(left, n)
		}
	}
	if len(left) == 0 {
		p.refuse(element, "%s", none)
	}
	p.nodes = left
}
