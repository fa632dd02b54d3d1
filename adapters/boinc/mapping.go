package boinc

import (
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/jsdl"
)

// rule is a line of the mapping: what becomes of one JSDL element, and the code that
// does it. A rule without code refuses the element where it is asked for.
type rule struct {
	adapters.MappingRow
	asked func(*planner) bool
	use   func(*planner)
}

// Mapping gives the lines of the table in docs/adapters.md.
func Mapping() []adapters.MappingRow {
	rows := make([]adapters.MappingRow, len(rules))
	for i := range rules {
		rows[i] = rules[i].MappingRow
	}
	return rows
}

func row(element, becomes, note string) adapters.MappingRow {
	return adapters.MappingRow{Element: element, Becomes: becomes, Note: note}
}

// kept are elements that tell people something; the gateway keeps them.
const kept = "(kept by the gateway)"

func nothing(*planner) {}

var rules = []rule{
	{row("JobName", "batch_name", "the first job's, made safe, is a part of it; names of jobs are made of tags"), nil, (*planner).useName},
	{row("Description", kept, "a project has no place for it"), nil, nothing},
	{row("JobAnnotation", kept, "a project has no place for it"), nil, nothing},
	{row("JobProject", kept, "credit goes to the volunteers, not to projects of users"), nil, nothing},
	{row("ApplicationName", "app_name", "by the setting applications, for jobs without Executable or sites without wrapper"), nil, nothing},
	{row("ApplicationVersion", "app_version_num", "by the setting applications"), nil, nothing},

	{row("Executable", "job.sh", "as the job script runs it; a path or a program of the hosts"), nil, (*planner).useExecutable},
	{row("Argument", "job.sh", "with an installed application: command_line, plain words only"), nil, (*planner).useArguments},
	{row("Input", "job.sh", "a file in the job's own directory; absolute paths only where hosts share files"), nil, (*planner).useInput},
	{row("Output", "job.sh", "a file in the job's own directory; the gateway gets its content as portolan.out"), nil, (*planner).useOutput},
	{row("Error", "job.sh", "as Output, as portolan.err"), nil, (*planner).useError},
	{row("WorkingDirectory", "job.sh", "below the job's own directory, made when missing; absolute paths only where hosts share files"), nil, (*planner).useDirectory},
	{row("Environment", "job.sh", "with an installed application it is refused"), nil, (*planner).useEnvironment},
	{row("WallTimeLimit", "rsc_fpops_bound", "seconds × benchmark, at least 180 s, and sharply by timeout in job.sh"), nil, (*planner).useWallTime},
	shellLimit("FileSizeLimit", func(l *jsdl.Limits) *big.Int { return l.FileSize }),
	shellLimit("CoreDumpLimit", func(l *jsdl.Limits) *big.Int { return l.CoreDump }),
	shellLimit("DataSegmentLimit", func(l *jsdl.Limits) *big.Int { return l.DataSegment }),
	shellLimit("LockedMemoryLimit", func(l *jsdl.Limits) *big.Int { return l.LockedMemory }),
	noLimit("MemoryLimit", "rsc_memory_bound is not enforced while a job runs; ask for IndividualPhysicalMemory", func(l *jsdl.Limits) *big.Int { return l.Memory }),
	shellLimit("OpenDescriptorsLimit", func(l *jsdl.Limits) *big.Int { return l.OpenDescriptors }),
	noLimit("PipeSizeLimit", "no shell can set it", func(l *jsdl.Limits) *big.Int { return l.PipeSize }),
	shellLimit("StackSizeLimit", func(l *jsdl.Limits) *big.Int { return l.StackSize }),
	shellLimit("CPUTimeLimit", func(l *jsdl.Limits) *big.Int { return l.CPUTime }),
	noLimit("ProcessCountLimit", "it would count what else runs on a volunteer's host", func(l *jsdl.Limits) *big.Int { return l.ProcessCount }),
	shellLimit("VirtualMemoryLimit", func(l *jsdl.Limits) *big.Int { return l.VirtualMemory }),
	noLimit("ThreadCountLimit", "no shell can set it", func(l *jsdl.Limits) *big.Int { return l.ThreadCount }),
	{row("UserName", "", "hosts have no accounts for jobs; leave it out"), nil, func(p *planner) { p.account("UserName", p.p.UserName) }},
	{row("GroupName", "", "hosts have no accounts for jobs; leave it out"), nil, func(p *planner) { p.account("GroupName", p.p.GroupName) }},
	refused("NumberOfProcesses", manyProcesses, func(p *planner) bool { return p.spmd().NumberOfProcesses != nil }),
	refused("ProcessesPerHost", manyProcesses, func(p *planner) bool { return p.spmd().ProcessesPerHost != nil }),
	refused("ThreadsPerProcess", manyProcesses, func(p *planner) bool { return p.spmd().ThreadsPerProcess != nil }),
	refused("SPMDVariation", manyProcesses, func(p *planner) bool {
		return p.d.Description.Application != nil && p.d.Description.Application.SPMD != nil
	}),

	{row("CandidateHosts", kept, "a project sends a job to whichever host asks; only the site's own name can stand here"), nil, (*planner).useHosts},
	{row("FileSystem", "job.sh", "HOME, TMP and SCRATCH are below the job's directory, ROOT is the host's; a MountPoint only where hosts share files"), nil, (*planner).useFileSystems},
	refused("ExclusiveExecution", "a volunteer's host does other work too", func(p *planner) bool { return p.r.ExclusiveExecution != nil && *p.r.ExclusiveExecution }),
	{row("OperatingSystem", kept, "must be that of every platform that the project has; a job can't choose"), nil, (*planner).useSystem},
	{row("CPUArchitecture", kept, "must be that of every platform that the project has; a job can't choose"), nil, (*planner).useArchitecture},
	refused("IndividualCPUSpeed", "hosts of any speed may take the job", func(p *planner) bool { return p.r.IndividualCPUSpeed != nil }),
	{row("IndividualCPUTime", "rsc_fpops_bound", "its upper end, seconds × benchmark"), nil, func(p *planner) { p.useCPUTime("IndividualCPUTime", p.r.IndividualCPUTime) }},
	{row("IndividualCPUCount", kept, "1; versions of the application decide about more"), nil, func(p *planner) { p.one("IndividualCPUCount", p.r.IndividualCPUCount) }},
	refused("IndividualNetworkBandwidth", "nothing is promised of volunteers' networks", func(p *planner) bool {
		return p.r.IndividualNetworkBandwidth != nil && !p.r.IndividualNetworkBandwidth.Contains(0)
	}),
	{row("IndividualPhysicalMemory", "rsc_memory_bound", "its lower end; hosts with less are not sent the job"), nil, func(p *planner) { p.useBytes("IndividualPhysicalMemory", p.r.IndividualPhysicalMemory, &p.plan.memory) }},
	{row("IndividualVirtualMemory", "rsc_memory_bound", "its lower end, as memory"), nil, func(p *planner) { p.useBytes("IndividualVirtualMemory", p.r.IndividualVirtualMemory, &p.plan.memory) }},
	{row("IndividualDiskSpace", "rsc_disk_bound", "its lower end; enforced on the job's directory"), nil, func(p *planner) { p.useBytes("IndividualDiskSpace", p.r.IndividualDiskSpace, &p.plan.disk) }},
	{row("TotalCPUTime", "rsc_fpops_bound", "as IndividualCPUTime: there is one host"), nil, func(p *planner) { p.useCPUTime("TotalCPUTime", p.r.TotalCPUTime) }},
	{row("TotalCPUCount", kept, "1"), nil, func(p *planner) { p.one("TotalCPUCount", p.r.TotalCPUCount) }},
	{row("TotalPhysicalMemory", "rsc_memory_bound", "as IndividualPhysicalMemory"), nil, func(p *planner) { p.useBytes("TotalPhysicalMemory", p.r.TotalPhysicalMemory, &p.plan.memory) }},
	{row("TotalVirtualMemory", "rsc_memory_bound", "as IndividualVirtualMemory"), nil, func(p *planner) { p.useBytes("TotalVirtualMemory", p.r.TotalVirtualMemory, &p.plan.memory) }},
	{row("TotalDiskSpace", "rsc_disk_bound", "as IndividualDiskSpace"), nil, func(p *planner) { p.useBytes("TotalDiskSpace", p.r.TotalDiskSpace, &p.plan.disk) }},
	{row("TotalResourceCount", kept, "1"), nil, func(p *planner) { p.one("TotalResourceCount", p.r.TotalResourceCount) }},
	refused("DataStaging", "the adapter moves no files of its own; give the data to the job's arguments or environment", func(p *planner) bool { return len(p.d.Description.DataStaging) > 0 }),

	{row("Placement/Share", "app_name", "the application that runs the job anyway; any other is refused"), nil, (*planner).useShare},
	refused("Placement/QualityOfService", "a project has none", func(p *planner) bool { return p.place.QualityOfService != nil }),
	refused("Placement/Reservation", "a project has none", func(p *planner) bool { return p.place.Reservation != nil }),
	{row("Placement/Deadline", "delay_bound", "and the job is aborted at that time"), nil, (*planner).useDeadline},
	refused("Placement/NotBefore", "a project holds no job back", func(p *planner) bool { return p.place.NotBefore != nil }),
	{row("Placement/Priority", "priority", "as it is"), nil, func(p *planner) { p.plan.priority = p.place.Priority }},
	{row("Placement/Rerunnable", "max_total_results", "replicas and the setting retries; else each job has no more than its replicas"), nil, func(p *planner) {
		p.plan.rerunnable = p.place.Rerunnable != nil && *p.place.Rerunnable
	}},
	refused("Placement/GPU", "versions of the application decide about devices", func(p *planner) bool { return len(p.place.GPUs) > 0 }),
	refused("Placement/Licence", "a project counts none", func(p *planner) bool { return len(p.place.Licences) > 0 }),
	refused("Placement/Constraint", "a job can't choose among hosts", func(p *planner) bool { return p.place.Constraint != nil }),
	refused("Placement/Container", "hosts have no containers for jobs", func(p *planner) bool { return p.place.Container != nil }),
	{row("Placement/Quorum", "min_quorum", "results that must agree; the times of the job are then not told by the hosts"), nil, (*planner).useQuorum},
	{row("Placement/Replicas", "target_nresults", "at least Quorum"), nil, (*planner).useReplicas},
	refused("Placement/Manager", "a workunit has no attributes of one's own", func(p *planner) bool { return len(p.place.Manager) > 0 }),
}

// manyProcesses is why SPMD jobs are refused.
const manyProcesses = "a job runs on one host as one process; parallel jobs over hosts are not BOINC's"

// spmd gives the job's SPMD application; an empty one without.
func (p *planner) spmd() *jsdl.SPMDApplication {
	if a := p.d.Description.Application; a != nil && a.SPMD != nil {
		return a.SPMD
	}
	return &jsdl.SPMDApplication{}
}

func refused(element, why string, asked func(*planner) bool) rule {
	return rule{row(element, "", why), asked, nil}
}

// shellLimit is a limit that the job script sets.
func shellLimit(element string, at func(*jsdl.Limits) *big.Int) rule {
	return rule{row(element, "job.sh", "ulimit; with an installed application it is refused"), nil, func(p *planner) {
		n := at(&p.p.Limits)
		switch {
		case n == nil:
		case n.Sign() < 0:
			p.wrong("%s: a limit can't be negative", element)
		case !p.wrapped():
			p.refuse("%s: an installed application sets no such limit; leave it out", element)
		default:
			p.script.limit(element, n)
			p.plan.subjects[element] = n.String()
		}
	}}
}

func noLimit(element, why string, at func(*jsdl.Limits) *big.Int) rule {
	return rule{row(element, "", why), func(p *planner) bool { return at(&p.p.Limits) != nil }, nil}
}

// useName makes a job's name a part of a batch's.
func (p *planner) useName() {
	var b strings.Builder
	for _, c := range p.d.Name() {
		switch {
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9':
			b.WriteRune(c)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
		if b.Len() == 40 {
			break
		}
	}
	p.plan.name = strings.Trim(b.String(), "-")
}

func (p *planner) useExecutable() {
	if !p.wrapped() {
		return
	}
	t := p.p.Executable
	if t.Value == "" && t.FileSystem == "" {
		if len(p.p.Arguments) > 0 {
			p.refuse("Executable: there are arguments and no program to be given them")
		}
		return
	}
	w := p.resolve("Executable", t)
	p.script.executable = &w
	p.plan.subjects["Executable"] = w.text
	p.size += int64(len(w.text))
}

func (p *planner) useArguments() {
	for i, t := range p.p.Arguments {
		if !p.wrapped() {
			w := p.resolve("Argument", t)
			if w.variable != "" || !safeWords.MatchString(w.text) || strings.Contains(w.text, " ") {
				p.refuse("Argument: the project's command line takes plain words of letters, digits and _./:=,+@%%- only, not %q", w.text)
				continue
			}
			p.plan.command = strings.TrimPrefix(p.plan.command+" "+w.text, " ")
			continue
		}
		w := p.resolve("Argument", t)
		p.given("Argument "+big.NewInt(int64(i+1)).String(), len(w.text))
		p.script.arguments = append(p.script.arguments, w)
	}
	if len(p.plan.command) > maxCommand || strings.Count(p.plan.command, " ") > maxWords {
		p.refuse("Argument: together they are too long for the project's command line of %d bytes and %d words", maxCommand, maxWords)
	}
}

// A job's line at the project, with all its names, has less than 4096 bytes and 100
// words.
const (
	maxCommand = 3000
	maxWords   = 80
)

// streams refuses files that an installed application would have to be told of.
func (p *planner) onlyWrapped(element string, t *jsdl.Text) bool {
	if t != nil && !p.wrapped() {
		p.refuse("%s: an installed application reads and writes its own files; leave it out", element)
	}
	return t != nil && p.wrapped()
}

func (p *planner) useInput() {
	if p.onlyWrapped("Input", p.p.Input) {
		p.script.input = p.file("Input", p.p.Input)
	}
}

func (p *planner) useOutput() {
	if p.onlyWrapped("Output", p.p.Output) {
		p.script.output = p.file("Output", p.p.Output)
	}
}

func (p *planner) useError() {
	if p.onlyWrapped("Error", p.p.Error) {
		p.script.errors = p.file("Error", p.p.Error)
	}
}

func (p *planner) useDirectory() {
	if p.onlyWrapped("WorkingDirectory", p.p.WorkingDirectory) {
		p.script.directory = p.file("WorkingDirectory", p.p.WorkingDirectory)
	}
}

func (p *planner) useEnvironment() {
	if !p.wrapped() {
		if len(p.p.Environment) > 0 {
			p.refuse("Environment: an installed application is started without any; leave it out")
		}
		return
	}
	e := p.script.environment
	e["PATH"] = word{text: "/usr/local/bin:/usr/bin:/bin"}
	e["HOME"], e["TMPDIR"] = word{variable: "here", text: "/work"}, word{variable: "here", text: "/tmp"}
	e["USER"], e["LOGNAME"] = word{variable: "me"}, word{variable: "me"}
	e["LANG"] = word{text: "C.UTF-8"}
	for _, v := range p.p.Environment {
		if v.Name == "" || strings.ContainsAny(v.Name, "=\x00") {
			p.wrong("Environment %q: this can't be the name of a variable", v.Name)
			continue
		}
		e[v.Name] = p.resolve("Environment "+v.Name, v.Text)
	}
	for name, w := range e {
		p.given("Environment "+name, len(name)+1+len(w.text))
	}
}

func (p *planner) useWallTime() {
	n := p.p.Limits.WallTime
	switch {
	case n == nil:
	case n.Sign() < 0:
		p.wrong("WallTimeLimit: a limit can't be negative")
	case !n.IsInt64() || n.Int64() > maxSeconds: // nothing could reach it
	default:
		p.plan.wall = max(time.Duration(n.Int64())*time.Second, time.Second)
		p.script.wallTime = max(n.Int64(), 1)
		p.plan.subjects["WallTimeLimit"] = n.String()
	}
}

// maxSeconds is some thirty years.
const maxSeconds = 1e9

// useCPUTime takes the most that a job may use for its time limit: a program can't
// use more of one processor than passes.
func (p *planner) useCPUTime(element string, r *jsdl.RangeValue) {
	if r == nil {
		return
	}
	n, ok := r.HighestInteger()
	if !ok {
		p.refuse("%s: no number is in its range", element)
		return
	}
	if n > 0 && n <= maxSeconds {
		d := time.Duration(n) * time.Second
		if p.plan.wall == 0 || d < p.plan.wall {
			p.plan.wall = d
		}
	}
}

func (p *planner) useBytes(element string, r *jsdl.RangeValue, at *int64) {
	if r == nil {
		return
	}
	n, ok := r.LowestInteger(0)
	if !ok {
		p.refuse("%s: no number is in its range", element)
		return
	}
	limit := p.s.Capacity.Memory
	if at == &p.plan.disk {
		limit = p.s.Capacity.Disk
	}
	if n > limit {
		p.refuse("%s: hosts of this site have at most %d bytes; a job that asks for more would never be sent", element, limit)
		return
	}
	*at = max(*at, n)
}

func (p *planner) one(element string, r *jsdl.RangeValue) {
	if r != nil && !r.Contains(1) {
		p.refuse("%s: a job has one processor of one host", element)
	}
}

func (p *planner) account(element string, name *string) {
	if name != nil {
		p.refuse("%s: hosts have no account %q for jobs; leave it out", element, *name)
	}
}

func (p *planner) useHosts() {
	if h := p.r.CandidateHosts; len(h) > 0 && !slices.ContainsFunc(h, func(n string) bool { return strings.EqualFold(n, p.site) }) {
		p.refuse("CandidateHosts: a project sends jobs to whichever host asks; of hosts only the site's own name, %q, can be asked for", p.site)
	}
}

func (p *planner) useFileSystems() {
	for _, f := range p.r.FileSystems {
		if f.MountPoint != nil && !p.s.AbsolutePaths {
			p.refuse("FileSystem %s: hosts of volunteers mount nothing at %q; leave MountPoint out and use HOME, TMP or SCRATCH", f.Name, *f.MountPoint)
		}
		if f.MountPoint == nil {
			if _, ok := p.mount(f.Name); !ok {
				p.refuse("FileSystem %s: hosts have HOME, TMP, SCRATCH and ROOT only", f.Name)
			}
		}
		if f.DiskSpace != nil {
			p.useBytes("FileSystem "+f.Name+"/DiskSpace", f.DiskSpace, &p.plan.disk)
		}
	}
}

// every asks something of all platforms: a job can't choose among them.
func (p *planner) every(ok func(kind) bool) bool {
	if p.platforms == nil {
		p.waits = true
		return true
	}
	return !slices.ContainsFunc(p.platforms, func(name string) bool { return !ok(kindOf(name)) })
}

func (p *planner) useSystem() {
	o := p.r.OperatingSystem
	if o == nil {
		return
	}
	if o.HasType && o.Name != "Unknown" && o.Name != "Not_Applicable" && !p.every(func(k kind) bool { return k.system == o.Name }) {
		p.refuse("OperatingSystem: hosts of this project run %s, and a job can't choose among them", p.kinds(func(k kind) string { return k.system }))
	}
	if o.Version != nil {
		p.refuse("OperatingSystemVersion: hosts of any version may take the job; leave it out")
	}
}

func (p *planner) useArchitecture() {
	c := p.r.CPUArchitecture
	if c == nil {
		return
	}
	if !p.every(func(k kind) bool {
		return k.architecture == c.Name || c.Name == "x86" && (k.architecture == "x86_32" || k.architecture == "x86_64")
	}) {
		p.refuse("CPUArchitecture: hosts of this project are %s, and a job can't choose among them", p.kinds(func(k kind) string { return k.architecture }))
	}
}

func (p *planner) kinds(of func(kind) string) string {
	var list []string
	for _, name := range p.platforms {
		list = append(list, of(kindOf(name)))
	}
	slices.Sort(list)
	return strings.Join(slices.Compact(list), ", ")
}

func (p *planner) useShare() {
	if p.place.Share != nil && *p.place.Share != p.plan.app {
		p.refuse("Placement/Share: the job is run by the application %q; leave it out", p.plan.app)
	}
}

func (p *planner) useDeadline() {
	if d := p.place.Deadline; d != nil {
		if !d.After(time.Now()) {
			p.refuse("Placement/Deadline: %s has passed", d.Format(time.RFC3339))
		}
		p.plan.deadline = *d
	}
}

// maxReplicas bounds what one job may take from the volunteers.
const maxReplicas = 20

func (p *planner) useQuorum() {
	if q := p.place.Quorum; q != nil {
		if *q < 1 || *q > maxReplicas {
			p.wrong("Placement/Quorum: it must be from 1 to %d", maxReplicas)
			return
		}
		p.plan.quorum = *q
	}
}

func (p *planner) useReplicas() {
	if r := p.place.Replicas; r != nil {
		if *r < p.plan.quorum || *r > maxReplicas {
			p.wrong("Placement/Replicas: it must be from Quorum, %d, to %d", p.plan.quorum, maxReplicas)
			return
		}
		p.plan.replicas = *r
	}
}
