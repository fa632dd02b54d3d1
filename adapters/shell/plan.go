package shell

import (
	"fmt"
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
	return fail.Errorf("shell.Check", kind, "", "%s", strings.Join(r.list, "; "))
}

// plan turns a definition into what is run for the tag, or names what stands
// against it.
func (m *site) plan(d *jsdl.JobDefinition, tag adapters.Tag) (*spec, error) {
	if d == nil {
		return nil, fail.Errorf("shell.Check", fail.Invalid, "", "there is no job definition")
	}
	s := &spec{
		Version: recordVersion, Tag: tag, Boot: m.boot, Need: 1, Umask: *m.options.Umask, Grace: m.options.Grace,
	}
	p := d.Program()
	var no refusals
	if len(d.Description.DataStaging) > 0 {
		no.add("DataStaging: the shell adapter moves no files itself")
	}
	mounts := m.mounts(d, s, &no)
	m.resources(d.Description.Resources, s, &no)
	m.accounts(p, &no)
	limits(p.Limits, m.track, s, &no)
	m.program(p, mounts, s, &no)
	if err := no.err(); err != nil {
		return nil, err
	}
	return s, nil
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
			return m.account.home, true
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
		if free, err := diskFree(where); err == nil {
			atMost(no, "FileSystem "+f.Name+"/DiskSpace", f.DiskSpace, 0, free, "bytes free")
		}
	}
}

func (m *site) accounts(p jsdl.Program, no *refusals) {
	if p.UserName != nil && *p.UserName != m.account.user && *p.UserName != strconv.Itoa(m.account.uid) {
		no.add("UserName: jobs run as %q here, not as %q; leave it out", m.account.user, *p.UserName)
	}
	if p.GroupName != nil && *p.GroupName != m.account.group && *p.GroupName != strconv.Itoa(m.account.gid) {
		no.add("GroupName: jobs run in the group %q here, not in %q; leave it out", m.account.group, *p.GroupName)
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
	environment := map[string]string{
		"PATH": m.options.Path, "HOME": m.account.home, "USER": m.account.user, "LOGNAME": m.account.user,
		"TMPDIR": "/tmp", "LANG": "C.UTF-8", tagVariable: string(s.Tag),
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
func (m *site) resources(r *jsdl.Resources, s *spec, no *refusals) {
	if r == nil {
		return
	}
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
	atMost(no, "TotalResourceCount", r.TotalResourceCount, 1, 1, "machine")
	cpus := int64(min(m.cpus, m.options.Slots))
	for _, c := range []struct {
		name string
		r    *jsdl.RangeValue
	}{{"IndividualCPUCount", r.IndividualCPUCount}, {"TotalCPUCount", r.TotalCPUCount}} {
		s.Need = max(s.Need, int(atMost(no, c.name, c.r, 1, cpus, "CPUs for jobs")))
	}
	atMost(no, "IndividualPhysicalMemory", r.IndividualPhysicalMemory, 0, m.memory, "bytes")
	atMost(no, "TotalPhysicalMemory", r.TotalPhysicalMemory, 0, m.memory, "bytes")
	atMost(no, "IndividualVirtualMemory", r.IndividualVirtualMemory, 0, m.virtual, "bytes")
	atMost(no, "TotalVirtualMemory", r.TotalVirtualMemory, 0, m.virtual, "bytes")
	if r.IndividualDiskSpace != nil || r.TotalDiskSpace != nil {
		free, err := diskFree(m.jobs)
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
