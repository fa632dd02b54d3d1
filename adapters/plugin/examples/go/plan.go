package main

import (
	"math/big"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portolan-project/portolan/adapters/plugin"
	"github.com/portolan-project/portolan/jsdl"
)

// honoured are the JSDL elements that this site knows. Every other one is refused by
// its name: what is not understood must never be passed over.
var honoured = []string{
	"Executable", "Argument", "Input", "Output", "Error", "WorkingDirectory", "Environment", "UserName", "GroupName", "WallTimeLimit",
	"CandidateHosts", "ExclusiveExecution", "OperatingSystemType", "OperatingSystemVersion", "CPUArchitecture", "IndividualCPUCount",
	"IndividualPhysicalMemory", "IndividualVirtualMemory", "IndividualDiskSpace", "TotalCPUCount", "TotalPhysicalMemory", "TotalVirtualMemory",
	"TotalDiskSpace", "TotalResourceCount", "FileSystem", "MountPoint", "Share",
}

// What Linux takes: one argument or variable (MAX_ARG_STRLEN), and all together.
const (
	longest = 128 << 10
	most    = 1536 << 10
)

// machine is what there is here.
type machine struct {
	user, group, home     string
	host, system, release string
	architecture          string
	cpus                  int
	memory, virtual       int64
	dir                   string
}

func look(dir string) (*machine, error) {
	u, err := user.Current()
	if err != nil {
		return nil, err
	}
	g, err := user.LookupGroupId(u.Gid)
	if err != nil {
		return nil, err
	}
	var names unix.Utsname
	var info unix.Sysinfo_t
	if err := unix.Uname(&names); err != nil {
		return nil, err
	}
	if err := unix.Sysinfo(&info); err != nil {
		return nil, err
	}
	word := func(b [65]byte) string { return unix.ByteSliceToString(b[:]) }
	m := &machine{
		user: u.Username, group: g.Name, home: u.HomeDir, host: word(names.Nodename), system: "LINUX", release: word(names.Release),
		architecture: word(names.Machine), cpus: runtime.NumCPU(), dir: dir,
		memory: int64(info.Totalram) * int64(info.Unit), virtual: int64(info.Totalram+info.Totalswap) * int64(info.Unit),
	}
	if m.architecture == "aarch64" {
		m.architecture = "arm"
	}
	return m, nil
}

func (m *machine) disk() int64 {
	var s unix.Statfs_t
	if unix.Statfs(m.dir, &s) != nil {
		return 0
	}
	return int64(s.Bavail) * s.Bsize
}

// lacks names what the machine does not meet of a job's resources (GFD.56 §6.4).
func (m *machine) lacks(r *jsdl.Resources) (names []string) {
	if r == nil {
		return nil
	}
	need := func(element string, met bool) {
		if !met {
			names = append(names, element+": this machine does not have it")
		}
	}
	need("CandidateHosts", len(r.CandidateHosts) == 0 || slices.ContainsFunc(r.CandidateHosts, func(h string) bool {
		return strings.EqualFold(h, m.host) || strings.EqualFold(h, "localhost")
	}))
	need("ExclusiveExecution", r.ExclusiveExecution == nil || !*r.ExclusiveExecution)
	if o := r.OperatingSystem; o != nil {
		need("OperatingSystem", slices.Contains([]string{"", m.system, "Not_Applicable", "Unknown"}, o.Name))
		need("OperatingSystemVersion", o.Version == nil || *o.Version == m.release)
	}
	if a := r.CPUArchitecture; a != nil {
		need("CPUArchitecture", a.Name == m.architecture || a.Name == "x86" && m.architecture == "x86_64")
	}
	for _, q := range []struct {
		element     string
		r           *jsdl.RangeValue
		least, have int64
	}{
		{"IndividualCPUCount", r.IndividualCPUCount, 1, int64(m.cpus)},
		{"TotalCPUCount", r.TotalCPUCount, 1, int64(m.cpus)},
		{"TotalResourceCount", r.TotalResourceCount, 1, 1},
		{"IndividualPhysicalMemory", r.IndividualPhysicalMemory, 0, m.memory},
		{"TotalPhysicalMemory", r.TotalPhysicalMemory, 0, m.memory},
		{"IndividualVirtualMemory", r.IndividualVirtualMemory, 0, m.virtual},
		{"TotalVirtualMemory", r.TotalVirtualMemory, 0, m.virtual},
		{"IndividualDiskSpace", r.IndividualDiskSpace, 0, m.disk()},
		{"TotalDiskSpace", r.TotalDiskSpace, 0, m.disk()},
	} {
		if q.r != nil {
			n, ok := q.r.LowestInteger(q.least)
			need(q.element, ok && n <= q.have)
		}
	}
	return names
}

// plan makes of a definition what is to be run in the job's directory, or names every
// element that stands against it.
func (m *machine) plan(d *jsdl.JobDefinition, dir string) (*plan, error) {
	var refused []string
	refuse := func(s string) {
		if !slices.Contains(refused, s) {
			refused = append(refused, s)
		}
	}
	for _, e := range plugin.Elements(d) {
		if name := e[strings.LastIndexAny(e, "/:")+1:]; !slices.Contains(honoured, name) {
			refuse(e + ": this site has no such thing")
		}
	}
	p, r := d.Program(), d.Description.Resources
	for _, s := range m.lacks(r) {
		refuse(s)
	}
	if p.UserName != nil && *p.UserName != m.user {
		refuse("UserName: jobs run as " + m.user + " here, not as " + *p.UserName)
	}
	if p.GroupName != nil && *p.GroupName != m.group {
		refuse("GroupName: jobs run in the group " + m.group + " here, not in " + *p.GroupName)
	}
	mounts := map[string]string{"ROOT": "/", "HOME": m.home, "TMP": filepath.Join(dir, "tmp"), "SCRATCH": filepath.Join(dir, "work")}
	if r != nil {
		if r.Placement != nil && r.Placement.Share != nil && *r.Placement.Share != share {
			refuse("Share: there is none named " + *r.Placement.Share + "; the share is " + share)
		}
		for _, fs := range r.FileSystems {
			if fs.MountPoint == nil {
				continue
			}
			mounts[fs.Name] = *fs.MountPoint
			if i, err := os.Stat(*fs.MountPoint); err != nil || !i.IsDir() {
				refuse("FileSystem: " + fs.Name + " is to be at " + *fs.MountPoint + ", which is no directory here")
			}
		}
	}
	text := func(element string, t jsdl.Text) string {
		s, err := jsdl.ResolveText(t, func(name string) (string, bool) { point, ok := mounts[name]; return point, ok })
		if err != nil {
			refuse(element + ": the file system " + t.FileSystem + " is not to be had here, or the path leads out of it")
		}
		return s
	}
	out := &plan{Path: "/usr/local/bin:/usr/bin:/bin", Directory: filepath.Join(dir, "work"), Relative: true, Submitted: time.Now()}
	out.arguments(&p, text, refuse)
	out.environment(&p, m, text, refuse)
	if t := p.WorkingDirectory; t != nil {
		wd := text("WorkingDirectory", *t)
		out.Relative = !filepath.IsAbs(wd) || strings.HasPrefix(wd, dir+"/")
		if !filepath.IsAbs(wd) {
			if slices.Contains(strings.Split(wd, "/"), "..") {
				refuse("WorkingDirectory: " + wd + " leads out of the job's directory")
			}
			wd = filepath.Join(out.Directory, wd)
		}
		out.Directory = wd
	}
	file := func(element string, t *jsdl.Text, otherwise string) string {
		if t == nil || t.Value == "" && t.FileSystem == "" {
			return otherwise
		}
		s := text(element, *t)
		if !filepath.IsAbs(s) {
			s = filepath.Join(out.Directory, s)
		}
		return filepath.Clean(s)
	}
	out.Input = file("Input", p.Input, os.DevNull)
	out.Output = file("Output", p.Output, filepath.Join(dir, "stdout"))
	out.Error = file("Error", p.Error, filepath.Join(dir, "stderr"))
	if l := p.Limits.WallTime; l != nil && l.Cmp(big.NewInt(1<<32)) < 0 {
		out.WallTime, out.Limited = time.Duration(l.Int64())*time.Second, true
	}
	if len(refused) > 0 {
		return nil, plugin.Unsupported("", "%s", strings.Join(refused, "; "))
	}
	return out, nil
}

func (out *plan) arguments(p *jsdl.Program, text func(string, jsdl.Text) string, refuse func(string)) {
	if p.Executable.Value == "" && p.Executable.FileSystem == "" {
		return
	}
	out.Argv = []string{text("Executable", p.Executable)}
	for _, a := range p.Arguments {
		out.Argv = append(out.Argv, text("Argument", a))
	}
	for _, a := range out.Argv {
		if len(a) >= longest {
			refuse("Argument: one is too long for this system")
		}
	}
}

func (out *plan) environment(p *jsdl.Program, m *machine, text func(string, jsdl.Text) string, refuse func(string)) {
	values := map[string]string{"PATH": out.Path, "HOME": m.home, "USER": m.user, "LOGNAME": m.user}
	for _, v := range p.Environment {
		values[v.Name] = text("Environment", v.Text)
	}
	sum := 0
	for name, value := range values {
		if len(name)+len(value)+1 >= longest {
			refuse("Environment: the variable " + name + " is too long for this system")
		}
		out.Environment = append(out.Environment, name+"="+value)
		sum += len(name) + len(value) + 10
	}
	for _, a := range out.Argv {
		sum += len(a) + 9
	}
	if sum > most {
		refuse("Environment and Argument: together they are too long for this system")
	}
	slices.Sort(out.Environment)
	out.Path = values["PATH"]
}
