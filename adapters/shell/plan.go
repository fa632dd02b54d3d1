package shell

import (
	"fmt"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

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

// plan turns a definition into what is run, or names what stands against it.
func (m *site) plan(w wanted) (*spec, error) {
	d, p := w.definition, w.program
	if d == nil {
		return nil, fail.Errorf("shell.Check", fail.Invalid, "", "there is no job definition")
	}
	s := &spec{
		Version: recordVersion, Tag: w.tag, Boot: m.boot, Need: 1, Umask: *m.options.Umask, Grace: m.options.Grace, Shares: m.options.CPUShares,
	}
	var no refusals
	no.list = append(no.list, m.lacking...)
	if len(d.Description.DataStaging) > 0 {
		no.add("DataStaging: the shell adapter moves no files itself")
	}
	if name := d.ByName(); name != "" {
		no.add("ApplicationName: this site has no catalogue in which to look up %q; name the program as Executable", name)
	}
	s.Account = m.accounts(p, w.account, &no)
	mounts := m.mounts(d, s, &no)
	limits(p.Limits, m.track, s, &no)
	m.resources(d.Description.Resources, w, s, &no)
	m.spmd(w, s, &no)
	m.program(p, mounts, s, &no)
	if err := no.err(); err != nil {
		return nil, err
	}
	s.blind = no.blind
	return s, nil
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

// mounts says where each file system is (GFD.56 §5.2.5). The directories that
// belong to the job are named in the spec, to be made when it starts.
func (m *site) mounts(d *jsdl.JobDefinition, s *spec, no *refusals) func(string) (string, bool) {
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
	if r := d.Description.Resources; r != nil {
		for _, f := range r.FileSystems {
			m.declared(f, no)
		}
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

func (m *site) declared(f jsdl.FileSystem, no *refusals) {
	where := m.jobs
	if f.MountPoint != nil {
		where = *f.MountPoint
		if m.afar {
			no.blind = true
			return
		}
		if info, err := os.Stat(where); err != nil || !info.IsDir() || !filepath.IsAbs(where) {
			no.add("FileSystem %s: its MountPoint %q is not a directory of this machine, which mounts nothing for jobs", f.Name, where)
			return
		}
	}
	if f.Type == "swap" && f.DiskSpace != nil {
		atMost(no, "FileSystem "+f.Name+"/DiskSpace", f.DiskSpace, 0, m.virtual-m.memory, "bytes of swap")
		return
	}
	if f.DiskSpace != nil {
		if free, err := m.free(where); err == nil {
			atMost(no, "FileSystem "+f.Name+"/DiskSpace", f.DiskSpace, 0, free, "bytes free")
		}
	}
}

// program resolves what is run and its files.
func (m *site) program(p jsdl.Program, mounts func(string) (string, bool), s *spec, no *refusals) {
	resolve := func(element string, t jsdl.Text) string {
		value, err := jsdl.ResolveText(t, mounts)
		if err != nil {
			no.add("%s: %s", element, fail.Sentence(err))
			no.invalid = no.invalid || fail.Is(err, fail.Invalid)
		}
		if strings.IndexByte(value, 0) >= 0 {
			no.add("%s: it holds the byte 0, which no program can be given", element)
			no.invalid = true
		}
		return value
	}
	optional := func(element string, t *jsdl.Text) string {
		if t == nil {
			return ""
		}
		value := resolve(element, *t)
		if value == "" {
			no.add("%s: it names no file; leave the element out instead", element)
			no.invalid = true
		}
		return value
	}
	s.Executable = resolve("Executable", p.Executable)
	size := int64(len(s.Executable))
	for i, a := range p.Arguments {
		value := resolve(fmt.Sprintf("Argument %d", i+1), a)
		s.Arguments = append(s.Arguments, value)
		size += m.given(fmt.Sprintf("Argument %d", i+1), len(value), no)
	}
	s.Input, s.Output, s.Error = optional("Input", p.Input), optional("Output", p.Output), optional("Error", p.Error)
	s.Directory = optional("WorkingDirectory", p.WorkingDirectory)
	if s.Directory != "" && !filepath.IsAbs(s.Directory) && !filepath.IsLocal(s.Directory) {
		no.add("WorkingDirectory: %q leads out of the job's own directory; give an absolute path or one without \"..\"", s.Directory)
		no.invalid = true
	}
	home, user := m.home(s)
	environment := map[string]string{
		"PATH": m.options.Path, "HOME": home, "USER": user, "LOGNAME": user,
		"TMPDIR": "/tmp", "LANG": "C.UTF-8", tagVariable: string(s.Tag),
	}
	maps.Copy(environment, m.options.Environment)
	if s.Ranks != nil && s.Ranks.Threads > 0 {
		environment["OMP_NUM_THREADS"] = strconv.Itoa(s.Ranks.Threads)
	}
	for _, v := range p.Environment {
		if v.Name == "" || strings.ContainsAny(v.Name, "=\x00") {
			no.add("Environment %q: this can't be the name of a variable", v.Name)
			no.invalid = true
			continue
		}
		environment[v.Name] = resolve("Environment "+v.Name, v.Text)
	}
	for name, value := range environment {
		s.Environment = append(s.Environment, name+"="+value)
		size += m.given("Environment "+name, len(name)+1+len(value), no)
	}
	slices.Sort(s.Environment)
	// Room for the kernel's own: the name again, the auxiliary vector, a page or two.
	if size > m.argMax-16<<10 {
		no.add("Argument, Environment: together they take %d bytes; this machine gives a program at most %d", size, m.argMax-16<<10)
	}
}

// tagVariable marks every process of a job that has not thrown its environment away.
const tagVariable = "PORTOLAN_JOB"

// given counts a string of a program's, with its end and its pointer.
func (m *site) given(element string, n int, no *refusals) int64 {
	if n >= maxString {
		no.add("%s: it has %d bytes; this machine gives a program at most %d in one", element, n, maxString-1)
	}
	return int64(n) + 1 + 8
}

// resources compares what the job requires of its one resource with this machine
// (GFD.56 §5.2). A requirement is never a hint.
func (m *site) resources(r *jsdl.Resources, w wanted, s *spec, no *refusals) {
	if r == nil {
		return
	}
	placement(r.Placement, no)
	if len(r.CandidateHosts) > 0 && !slices.ContainsFunc(r.CandidateHosts, m.named) {
		no.add("CandidateHosts: this machine is none of %s; it is %s", strings.Join(quoted(r.CandidateHosts), ", "), strings.Join(m.names, ", "))
	}
	if o := r.OperatingSystem; o != nil {
		if o.HasType && o.Name != m.os && o.Name != "Unknown" && o.Name != "Not_Applicable" {
			no.add("OperatingSystem: this machine runs %s, not %s", m.os, o.Name)
		}
		if o.Version != nil && *o.Version != m.osVersion {
			no.add("OperatingSystemVersion: this machine has %q, not %q", m.osVersion, *o.Version)
		}
	}
	if c := r.CPUArchitecture; c != nil && c.Name != m.arch && (c.Name != "x86" || m.arch != "x86_64" && m.arch != "x86_32") {
		no.add("CPUArchitecture: this machine is %s, not %s", m.arch, c.Name)
	}
	cpus := int64(min(m.cpus, m.options.Slots))
	s.Need = max(s.Need, int(atMost(no, "IndividualCPUCount", r.IndividualCPUCount, 1, cpus, "CPUs for jobs")))
	if w.part == nil { // else whoever made the parts saw to what they have in all
		atMost(no, "TotalResourceCount", r.TotalResourceCount, 1, 1, "machine")
		s.Need = max(s.Need, int(atMost(no, "TotalCPUCount", r.TotalCPUCount, 1, cpus, "CPUs for jobs")))
	}
	atMost(no, "IndividualPhysicalMemory", r.IndividualPhysicalMemory, 0, m.memory, "bytes")
	atMost(no, "TotalPhysicalMemory", r.TotalPhysicalMemory, 0, m.memory, "bytes")
	m.enforce("IndividualPhysicalMemory", r.IndividualPhysicalMemory, s, no)
	m.enforce("TotalPhysicalMemory", r.TotalPhysicalMemory, s, no)
	atMost(no, "IndividualVirtualMemory", r.IndividualVirtualMemory, 0, m.virtual, "bytes")
	atMost(no, "TotalVirtualMemory", r.TotalVirtualMemory, 0, m.virtual, "bytes")
	if r.IndividualDiskSpace != nil || r.TotalDiskSpace != nil {
		free, err := m.free(m.jobs)
		if err != nil {
			free = 0
		}
		atMost(no, "IndividualDiskSpace", r.IndividualDiskSpace, 0, free, "bytes free")
		atMost(no, "TotalDiskSpace", r.TotalDiskSpace, 0, free, "bytes free")
	}
	if r.IndividualCPUSpeed != nil && !r.IndividualCPUSpeed.Contains(m.speed) {
		no.add("IndividualCPUSpeed: this machine's CPUs run at %.0f Hz", m.speed)
	}
	for name, time := range map[string]*jsdl.RangeValue{"IndividualCPUTime": r.IndividualCPUTime, "TotalCPUTime": r.TotalCPUTime} {
		if time != nil && time.IsEmpty() {
			no.add("%s: no number is in its range", name)
		}
	}
	if n := r.IndividualNetworkBandwidth; n != nil && !n.Contains(0) {
		no.add("IndividualNetworkBandwidth: this machine promises none")
	}
	if r.ExclusiveExecution != nil && *r.ExclusiveExecution {
		s.Need = m.options.Slots
	}
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

// limits puts the POSIX limits (GFD.56 §8.1.9 ff.) into the spec. A number beyond
// what the machine can count is no limit that anything could reach.
func limits(l jsdl.Limits, t track, s *spec, no *refusals) {
	for _, one := range []struct {
		name  string
		value *big.Int
		able  bool
	}{
		{limitWallTime, l.WallTime, true},
		{limitCPUTime, l.CPUTime, true},
		{limitFileSize, l.FileSize, true},
		{limitCoreDump, l.CoreDump, true},
		{limitDataSegment, l.DataSegment, true},
		{limitLockedMemory, l.LockedMemory, true},
		{limitMemory, l.Memory, t.memory()},
		{limitOpenDescriptors, l.OpenDescriptors, true},
		{limitPipeSize, l.PipeSize, false},
		{limitStackSize, l.StackSize, true},
		{limitProcessCount, l.ProcessCount, t.processes()},
		{limitVirtualMemory, l.VirtualMemory, true},
		{limitThreadCount, l.ThreadCount, false},
	} {
		switch {
		case one.value == nil:
		case !one.able:
			no.add("%s: this machine can't keep such a limit; leave it out", one.name)
		case one.value.Sign() < 0:
			no.add("%s: a limit can't be negative", one.name)
			no.invalid = true
		default:
			if s.Limits == nil {
				s.Limits = map[string]uint64{}
			}
			s.Limits[one.name] = unlimited
			if one.value.IsUint64() {
				s.Limits[one.name] = one.value.Uint64()
			}
		}
	}
}

// placement refuses what only other managers have (our Placement extension), element
// by element. A permission that nobody makes use of is no demand.
func placement(p *jsdl.Placement, no *refusals) {
	if p == nil {
		return
	}
	for _, one := range []struct {
		element string
		asked   bool
	}{
		{"Share", p.Share != nil && *p.Share != shareName},
		{"QualityOfService", p.QualityOfService != nil},
		{"Reservation", p.Reservation != nil},
		{"Deadline", p.Deadline != nil},
		{"NotBefore", p.NotBefore != nil},
		{"Priority", p.Priority != nil && *p.Priority != 0},
		{"GPU", len(p.GPUs) > 0},
		{"Licence", len(p.Licences) > 0},
		{"Constraint", p.Constraint != nil},
		{"Container", p.Container != nil},
		{"Quorum", p.Quorum != nil && *p.Quorum > 1},
		{"Replicas", p.Replicas != nil && *p.Replicas > 1},
		{"Manager", len(p.Manager) > 0},
	} {
		if one.asked {
			no.add("Placement/%s: programs of a machine are run without such a thing; leave it out", one.element)
		}
	}
}

// shareName is the site's one share.
const shareName = "shell"
