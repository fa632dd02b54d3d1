package shell

import (
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/jsdl"
)

// rule is what becomes of one JSDL element. apply puts it into the plan, or refuses
// it; rules run in their order.
type rule struct {
	element string
	becomes string // "" is refused
	note    string
	apply   func(p *planner, element string)
}

// Mapping tells what becomes of each JSDL element here.
func Mapping() []adapters.MappingRow {
	rows := make([]adapters.MappingRow, len(rules))
	for i, r := range rules {
		rows[i] = adapters.MappingRow{Element: r.element, Becomes: r.becomes, Note: r.note}
	}
	return rows
}

const (
	record  = "the gateway's record"
	compare = "compared with the machine"
	promise = "programs of a machine are run without such a thing"
)

// rules are the mapping. What comes first is needed by what follows.
var rules = []rule{
	// Who.
	{"UserName", "setuid, setgroups", "the site's own account; others as root, if the settings allow it", func(p *planner, _ string) {
		p.s.Account = p.accountOf(p.program, p.w.account, &p.refusals)
	}},
	{"GroupName", "setgid", "a group of the account", nil},
	// What it is called.
	{"JobName", "PORTOLAN_JOB_NAME", "up to 4096 bytes", nil},
	{"JobProject", "PORTOLAN_JOB_PROJECT", "all of them, with commas between", nil},
	{"JobIdentification/Description", record, "", nil},
	{"JobAnnotation", record, "", nil},
	{"ApplicationName", record, "refused without an Executable: the site has no catalogue", func(p *planner, element string) {
		if name := p.w.definition.ByName(); name != "" {
			p.add("%s: this site has no catalogue in which to look up %q; name the program as Executable", element, name)
		}
	}},
	{"ApplicationVersion", record, "", nil},
	{"Application/Description", record, "", nil},
	// Limits.
	{limitWallTime, "a timer", "SIGTERM, then SIGKILL; suspension counts", limited(func(l *jsdl.Limits) *big.Int { return l.WallTime }, nil)},
	{limitCPUTime, "RLIMIT_CPU", "of each process", limited(func(l *jsdl.Limits) *big.Int { return l.CPUTime }, nil)},
	{limitFileSize, "RLIMIT_FSIZE", "", limited(func(l *jsdl.Limits) *big.Int { return l.FileSize }, nil)},
	{limitCoreDump, "RLIMIT_CORE", "", limited(func(l *jsdl.Limits) *big.Int { return l.CoreDump }, nil)},
	{limitDataSegment, "RLIMIT_DATA", "", limited(func(l *jsdl.Limits) *big.Int { return l.DataSegment }, nil)},
	{limitLockedMemory, "RLIMIT_MEMLOCK", "", limited(func(l *jsdl.Limits) *big.Int { return l.LockedMemory }, nil)},
	{limitMemory, "memory.max, memory.limit_in_bytes", "of the whole job; refused where the site gets no memory cgroup", limited(func(l *jsdl.Limits) *big.Int { return l.Memory }, track.memory)},
	{limitOpenDescriptors, "RLIMIT_NOFILE", "", limited(func(l *jsdl.Limits) *big.Int { return l.OpenDescriptors }, nil)},
	{limitPipeSize, "", "Linux has no such limit", limited(func(l *jsdl.Limits) *big.Int { return l.PipeSize }, never)},
	{limitStackSize, "RLIMIT_STACK", "", limited(func(l *jsdl.Limits) *big.Int { return l.StackSize }, nil)},
	{limitProcessCount, "pids.max", "of the whole job, threads too; refused where the site gets no pids cgroup", limited(func(l *jsdl.Limits) *big.Int { return l.ProcessCount }, track.processes)},
	{limitVirtualMemory, "RLIMIT_AS", "of each process", limited(func(l *jsdl.Limits) *big.Int { return l.VirtualMemory }, nil)},
	{limitThreadCount, "", "Linux counts threads as processes: see ProcessCountLimit", limited(func(l *jsdl.Limits) *big.Int { return l.ThreadCount }, never)},
	// Where.
	{"CandidateHosts", compare, "the machine's names, or those of the site's hosts", (*planner).candidateHosts},
	{"OperatingSystemType", compare, "", (*planner).operatingSystem},
	{"OperatingSystemVersion", compare, "the kernel's release", nil},
	{"OperatingSystem/Description", record, "", nil},
	{"CPUArchitecture", compare, "x86 is x86_32 or x86_64", (*planner).architecture},
	{"FileSystem", "a directory", "HOME, ROOT; the job's own TMP, SCRATCH and any other", (*planner).fileSystem},
	{"FileSystem/Description", record, "", nil},
	{"MountPoint", compare, "a directory that is there: the site mounts nothing", nil},
	{"FileSystem/DiskSpace", compare, "free bytes, at the time", nil},
	// How much.
	{"IndividualCPUCount", "slots", "the least of the range", func(p *planner, element string) {
		p.s.Need = max(p.s.Need, int(atMost(&p.refusals, element, p.r.IndividualCPUCount, 1, p.slots(), "CPUs for jobs")))
	}},
	{"TotalCPUCount", "slots", "the least of the range; of all hosts for SPMD", func(p *planner, element string) {
		if p.w.part == nil { // else whoever made the parts saw to what they have in all
			p.s.Need = max(p.s.Need, int(atMost(&p.refusals, element, p.r.TotalCPUCount, 1, p.slots(), "CPUs for jobs")))
		}
	}},
	{"TotalResourceCount", "hosts", "one, but for SPMD on a site of several hosts", func(p *planner, element string) {
		if p.w.part == nil {
			atMost(&p.refusals, element, p.r.TotalResourceCount, 1, 1, "machine")
		}
	}},
	{"ExclusiveExecution", "slots", "all of them", func(p *planner, _ string) {
		if exclusively(p.r) {
			p.s.Need = p.options.Slots
		}
	}},
	{"IndividualPhysicalMemory", compare, "and a limit, with enforceMemory", (*planner).memory},
	{"TotalPhysicalMemory", compare, "and a limit, with enforceMemory", (*planner).memory},
	{"IndividualVirtualMemory", compare, "memory and swap", func(p *planner, element string) {
		atMost(&p.refusals, element, p.r.IndividualVirtualMemory, 0, p.virtual, "bytes")
	}},
	{"TotalVirtualMemory", compare, "memory and swap", func(p *planner, element string) {
		atMost(&p.refusals, element, p.r.TotalVirtualMemory, 0, p.virtual, "bytes")
	}},
	{"IndividualDiskSpace", compare, "free bytes, at the time", func(p *planner, element string) { p.diskSpace(element, p.r.IndividualDiskSpace) }},
	{"TotalDiskSpace", compare, "free bytes, at the time", func(p *planner, element string) { p.diskSpace(element, p.r.TotalDiskSpace) }},
	{"IndividualCPUSpeed", compare, "", func(p *planner, element string) {
		if r := p.r.IndividualCPUSpeed; r != nil && !r.Contains(p.speed) {
			p.add("%s: this machine's CPUs run at %.0f Hz", element, p.speed)
		}
	}},
	{"IndividualCPUTime", record, "there is no bound but CPUTimeLimit; an empty range is refused", func(p *planner, element string) { p.some(element, p.r.IndividualCPUTime) }},
	{"TotalCPUTime", record, "there is no bound but CPUTimeLimit; an empty range is refused", func(p *planner, element string) { p.some(element, p.r.TotalCPUTime) }},
	{"IndividualNetworkBandwidth", compare, "none is promised: the range must hold 0", func(p *planner, element string) {
		if r := p.r.IndividualNetworkBandwidth; r != nil && !r.Contains(0) {
			p.add("%s: this machine promises none", element)
		}
	}},
	// How many processes.
	{"NumberOfProcesses", "PORTOLAN_SIZE", "and PMI_SIZE; as many as slots that the job has, without", nil},
	{"ProcessesPerHost", "PORTOLAN_LOCAL_SIZE", "", nil},
	{"ThreadsPerProcess", "OMP_NUM_THREADS", "and as many slots for each process", nil},
	{"SPMDVariation", "the launcher of the settings", "without one MPI is started by the site itself; others are refused", (*planner).processes},
	// What is run.
	{"Executable", "execve", "looked up along the job's PATH", func(p *planner, element string) {
		p.s.Executable = p.text(element, p.program.Executable)
		p.size += int64(len(p.s.Executable))
	}},
	{"Argument", "execve", "", (*planner).arguments},
	{"Input", "standard input", "empty without; of every process of SPMD", func(p *planner, element string) { p.s.Input = p.file(element, p.program.Input) }},
	{"Output", "standard output", "kept by the site without", func(p *planner, element string) { p.s.Output = p.file(element, p.program.Output) }},
	{"Error", "standard error", "kept by the site without", func(p *planner, element string) { p.s.Error = p.file(element, p.program.Error) }},
	{"WorkingDirectory", "chdir", "a fresh one without", (*planner).workingDirectory},
	{"Environment", "execve", "over the site's own variables", nil}, // see variables
	{"DataStaging", "", "the gateway moves files; the site itself moves none", func(p *planner, element string) {
		if len(p.w.definition.Description.DataStaging) > 0 {
			p.add("%s: the shell adapter moves no files itself", element)
		}
	}},
	// What only other managers have.
	{"Placement/Share", compare, "the site has one, shell", func(p *planner, element string) {
		if q := p.r.Placement; q != nil && q.Share != nil && *q.Share != shareName {
			p.add("%s: the site's share is %q, not %q", element, shareName, *q.Share)
		}
	}},
	{"Placement/Rerunnable", record, "a job is never started again", nil},
	{"Placement/QualityOfService", "", promise, asked(func(q *jsdl.Placement) bool { return q.QualityOfService != nil })},
	{"Placement/Reservation", "", promise, asked(func(q *jsdl.Placement) bool { return q.Reservation != nil })},
	{"Placement/Deadline", "", promise, asked(func(q *jsdl.Placement) bool { return q.Deadline != nil })},
	{"Placement/NotBefore", "", promise, asked(func(q *jsdl.Placement) bool { return q.NotBefore != nil })},
	{"Placement/Priority", "", "jobs are started in the order in which they came", asked(func(q *jsdl.Placement) bool { return q.Priority != nil })},
	{"Placement/GPU", "", promise, asked(func(q *jsdl.Placement) bool { return len(q.GPUs) > 0 })},
	{"Placement/Licence", "", promise, asked(func(q *jsdl.Placement) bool { return len(q.Licences) > 0 })},
	{"Placement/Constraint", "", promise, asked(func(q *jsdl.Placement) bool { return q.Constraint != nil })},
	{"Placement/Container", "", promise, asked(func(q *jsdl.Placement) bool { return q.Container != nil })},
	{"Placement/Quorum", "", promise, asked(func(q *jsdl.Placement) bool { return q.Quorum != nil })},
	{"Placement/Replicas", "", promise, asked(func(q *jsdl.Placement) bool { return q.Replicas != nil })},
	{"Placement/Manager", "", promise, asked(func(q *jsdl.Placement) bool { return len(q.Manager) > 0 })},
}

// shareName is the site's one share.
const shareName = "shell"

func never(track) bool { return false }

// asked refuses an element of Placement.
func asked(is func(*jsdl.Placement) bool) func(*planner, string) {
	return func(p *planner, element string) {
		if p.r.Placement != nil && is(p.r.Placement) {
			p.add("%s: %s; leave it out", element, promise)
		}
	}
}

// slots gives the CPUs that one job can have.
func (p *planner) slots() int64 { return int64(min(p.cpus, p.options.Slots)) }

func (p *planner) candidateHosts(element string) {
	if hosts := p.r.CandidateHosts; len(hosts) > 0 && !slices.ContainsFunc(hosts, p.named) {
		p.add("%s: this machine is none of %s; it is %s", element, strings.Join(quoted(hosts), ", "), strings.Join(p.names, ", "))
	}
}

func (p *planner) operatingSystem(string) {
	o := p.r.OperatingSystem
	if o == nil {
		return
	}
	if o.HasType && o.Name != p.os && o.Name != "Unknown" && o.Name != "Not_Applicable" {
		p.add("OperatingSystem: this machine runs %s, not %s", p.os, o.Name)
	}
	if o.Version != nil && *o.Version != p.osVersion {
		p.add("OperatingSystemVersion: this machine has %q, not %q", p.osVersion, *o.Version)
	}
}

func (p *planner) architecture(element string) {
	if c := p.r.CPUArchitecture; c != nil && c.Name != p.arch && (c.Name != "x86" || p.arch != "x86_64" && p.arch != "x86_32") {
		p.add("%s: this machine is %s, not %s", element, p.arch, c.Name)
	}
}

func (p *planner) memory(element string) {
	r := p.r.IndividualPhysicalMemory
	if element == "TotalPhysicalMemory" {
		r = p.r.TotalPhysicalMemory
	}
	atMost(&p.refusals, element, r, 0, p.site.machine.memory, "bytes")
	p.enforce(element, r)
}

func (p *planner) diskSpace(element string, r *jsdl.RangeValue) {
	if r == nil {
		return
	}
	free, err := p.free(p.jobs)
	if err != nil {
		free = 0
	}
	atMost(&p.refusals, element, r, 0, free, "bytes free")
}

// some refuses a range that no number is in.
func (p *planner) some(element string, r *jsdl.RangeValue) {
	if r != nil && r.IsEmpty() {
		p.add("%s: no number is in its range", element)
	}
}

// fileSystem looks at the file systems that the job declares.
func (p *planner) fileSystem(string) {
	for i := range p.r.FileSystems {
		p.declared(&p.r.FileSystems[i])
	}
}

func (p *planner) declared(f *jsdl.FileSystem) {
	where := p.jobs
	if f.MountPoint != nil {
		where = *f.MountPoint
		if p.afar {
			p.blind = true
			return
		}
		if info, err := os.Stat(where); err != nil || !info.IsDir() || !filepath.IsAbs(where) {
			p.add("FileSystem %s: its MountPoint %q is not a directory of this machine, which mounts nothing for jobs", f.Name, where)
			return
		}
	}
	if f.DiskSpace == nil {
		return
	}
	element := "FileSystem " + f.Name + "/DiskSpace"
	if f.Type == "swap" {
		atMost(&p.refusals, element, f.DiskSpace, 0, p.virtual-p.site.machine.memory, "bytes of swap")
		return
	}
	if free, err := p.free(where); err == nil {
		atMost(&p.refusals, element, f.DiskSpace, 0, free, "bytes free")
	}
}
