package slurm

import (
	"strings"

	"github.com/portolan-project/portolan/adapters"
)

// rule is what becomes of one JSDL element. apply puts it into the plan, or refuses
// it; rules run in their order.
type rule struct {
	element string
	becomes string // "" is refused
	note    string
	apply   func(p *plan, element string)
}

// Mapping tells what becomes of each JSDL element here.
func Mapping() []adapters.MappingRow {
	rows := make([]adapters.MappingRow, len(rules))
	for i, r := range rules {
		rows[i] = adapters.MappingRow{Element: r.element, Becomes: r.becomes, Note: r.note}
	}
	return rows
}

const byRunner = "the runner"

// rules are the mapping. What comes first is needed by what follows.
var rules = []rule{
	// Who and where.
	{"UserName", "--uid", "an account that the site may run jobs as; Slurm's own account otherwise", (*plan).who},
	{"GroupName", "--gid", "the account's own group only", (*plan).groupName},
	{"Placement/Share", "--partition", "", (*plan).share},
	{"CandidateHosts", "--exclude", "the nodes that are not named are excluded, or --nodelist for one; the site's own name is all of them", (*plan).candidateHosts},
	{"OperatingSystem", "--exclude", "nodes with another one are excluded", (*plan).operatingSystem},
	{"OperatingSystemVersion", "--exclude", "the kernel's release; nodes with another one are excluded", (*plan).operatingSystemVersion},
	{"CPUArchitecture", "--exclude", "nodes with another one are excluded", (*plan).architecture},
	{"ExclusiveExecution", "--exclusive", "", (*plan).exclusive},
	// What the program is.
	{"FileSystem", byRunner, "well-known ones and those of the settings; the job's own are made below its directory", (*plan).fileSystems},
	{"Executable", byRunner, "looked up on the node", func(p *plan, element string) {
		p.spec.Executable = p.text(element, p.program.Executable)
		p.size += int64(len(p.spec.Executable))
	}},
	{"Argument", byRunner, "", (*plan).arguments},
	{"Input", byRunner, "empty without", func(p *plan, element string) { p.spec.Input = p.file(element, p.program.Input) }},
	{"Output", byRunner, "kept by the site without", func(p *plan, element string) { p.spec.Output = p.file(element, p.program.Output) }},
	{"Error", byRunner, "kept by the site without", func(p *plan, element string) { p.spec.Error = p.file(element, p.program.Error) }},
	{"WorkingDirectory", byRunner, "a fresh one below the job's directory without", (*plan).workingDirectory},
	{"Environment", byRunner, "exactly these, over the site's and beside Slurm's own SLURM_…", (*plan).environment},
	// How many processes.
	{"NumberOfProcesses", "--ntasks", "as many as CPUs are asked for, without", nil},
	{"ProcessesPerHost", "--ntasks-per-node", "", nil},
	{"ThreadsPerProcess", "--cpus-per-task", "and OMP_NUM_THREADS", nil},
	{"SPMDVariation", "srun --mpi", "or the launcher of the settings; others are refused", (*plan).variation},
	// What it needs.
	{"TotalResourceCount", "--nodes", "the least that is in the range", (*plan).resourceCount},
	{"IndividualCPUCount", "--cpus-per-task", "with --ntasks-per-node=1 unless the job is SPMD", (*plan).cpuCount},
	{"TotalCPUCount", "--cpus-per-task", "on one node where one has as many; else --ntasks", (*plan).totalCPUs},
	{"IndividualPhysicalMemory", "--mem", "MiB, rounded up, and at least 64", (*plan).memory},
	{"TotalPhysicalMemory", "--mem", "by the number of nodes", (*plan).totalMemory},
	{"IndividualVirtualMemory", "--mem", "as physical memory: Slurm does not know of swap", (*plan).virtualMemory},
	{"TotalVirtualMemory", "--mem", "likewise, by the number of nodes", (*plan).totalVirtualMemory},
	{"IndividualDiskSpace", "--tmp", "MiB, rounded up", (*plan).disk},
	{"TotalDiskSpace", "--tmp", "by the number of nodes", (*plan).totalDisk},
	{"IndividualCPUTime", "--time", "at least as many minutes, unless there is a WallTimeLimit", (*plan).cpuTime},
	{"TotalCPUTime", "--time", "likewise, by the number of CPUs", (*plan).totalCPUTime},
	{"IndividualCPUSpeed", "", "Slurm does not tell the speed of CPUs", (*plan).cpuSpeed},
	{"IndividualNetworkBandwidth", "", "Slurm promises none; a range with 0 is met", (*plan).bandwidth},
	// Its limits.
	{"WallTimeLimit", "--time", "minutes, rounded up; the runner keeps it to the second", (*plan).wallTime},
	{"MemoryLimit", "--mem", "where Slurm keeps jobs to their memory (ConstrainRAMSpace); 32 MiB more are for the runner", (*plan).memoryLimit},
	{"CPUTimeLimit", byRunner, "RLIMIT_CPU", func(p *plan, element string) { p.limit(element, p.program.Limits.CPUTime) }},
	{"FileSizeLimit", byRunner, "RLIMIT_FSIZE", func(p *plan, element string) { p.limit(element, p.program.Limits.FileSize) }},
	{"CoreDumpLimit", byRunner, "RLIMIT_CORE", func(p *plan, element string) { p.limit(element, p.program.Limits.CoreDump) }},
	{"DataSegmentLimit", byRunner, "RLIMIT_DATA", func(p *plan, element string) { p.limit(element, p.program.Limits.DataSegment) }},
	{"LockedMemoryLimit", byRunner, "RLIMIT_MEMLOCK", func(p *plan, element string) { p.limit(element, p.program.Limits.LockedMemory) }},
	{"OpenDescriptorsLimit", byRunner, "RLIMIT_NOFILE", func(p *plan, element string) { p.limit(element, p.program.Limits.OpenDescriptors) }},
	{"StackSizeLimit", byRunner, "RLIMIT_STACK", func(p *plan, element string) { p.limit(element, p.program.Limits.StackSize) }},
	{"VirtualMemoryLimit", byRunner, "RLIMIT_AS", func(p *plan, element string) { p.limit(element, p.program.Limits.VirtualMemory) }},
	{"ProcessCountLimit", "", "RLIMIT_NPROC counts all of an account's processes on a node, not the job's", func(p *plan, element string) { p.never(element, p.program.Limits.ProcessCount != nil) }},
	{"PipeSizeLimit", "", "no node can keep such a limit", func(p *plan, element string) { p.never(element, p.program.Limits.PipeSize != nil) }},
	{"ThreadCountLimit", "", "no node can keep such a limit", func(p *plan, element string) { p.never(element, p.program.Limits.ThreadCount != nil) }},
	// Our own.
	{"Placement/QualityOfService", "--qos", "one that accounting knows", (*plan).quality},
	{"Placement/Reservation", "--reservation", "", (*plan).reservation},
	{"Placement/Deadline", "--deadline", "", (*plan).deadline},
	{"Placement/NotBefore", "--begin", "", (*plan).notBefore},
	{"Placement/Priority", "--nice", "the negative; above 0 only where the gateway is an operator of Slurm", (*plan).priority},
	{"Placement/Rerunnable", "--requeue", "--no-requeue without", func(p *plan, _ string) {
		if r := p.placement().Rerunnable; r != nil && *r {
			p.request.Requeue, p.spec.Rerunnable = true, true
		}
	}},
	{"Placement/GPU", "--gres", "gpu:TYPE:COUNT of each node", (*plan).gpus},
	{"Placement/Licence", "--licenses", "", (*plan).licences},
	{"Placement/Constraint", "--constraint", "features of nodes, in Slurm's own words", (*plan).constraint},
	{"Placement/Container", "the settings' container command", "refused where the settings have none", (*plan).container},
	{"Placement/Quorum", "", "Slurm runs a job once", func(p *plan, element string) { p.never(element, p.placement().Quorum != nil) }},
	{"Placement/Replicas", "", "Slurm runs a job once", func(p *plan, element string) { p.never(element, p.placement().Replicas != nil) }},
	{"Placement/Manager", "", "Slurm has no attributes of one's own", func(p *plan, element string) { p.never(element, len(p.placement().Manager) > 0) }},
	// What it is called. The name that Slurm has of a job carries the placement's tag.
	{"JobName", "--comment", "the job's name at Slurm carries the placement", (*plan).comment},
	{"JobIdentification/Description", "--comment", "after the name", nil},
	{"Description", "(kept by the gateway)", "of an application, a system or a file system", nil},
	{"JobAnnotation", "--comment", "after the description", nil},
	{"JobProject", "--account", "the first that can be an account's name; others are told in the comment", (*plan).project},
	{"ApplicationName", "--comment", "in brackets, with its version; refused without Executable, as there is no catalogue", func(p *plan, element string) {
		if name := p.def.ByName(); name != "" {
			p.refuse(element, "this site has no catalogue in which to look up %q; name the program as Executable", name)
		}
	}},
	{"ApplicationVersion", "--comment", "", nil},
	{"DataStaging", "", "the adapter moves no files itself", func(p *plan, element string) { p.never(element, len(p.def.Description.DataStaging) > 0) }},
}

// never refuses an element that is there, with the note of its rule.
func (p *plan) never(element string, given bool) {
	if !given {
		return
	}
	p.refuse(local(element), "%s", p.note)
}

// local gives the element's own name.
func local(element string) string { return element[strings.LastIndexByte(element, '/')+1:] }
