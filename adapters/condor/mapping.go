package condor

import (
	"github.com/portolan-project/portolan/adapters"
)

// rule is what becomes of one JSDL element. apply puts it into the plan, or refuses it;
// rules run in their order.
type rule struct {
	element string // as adapters.Mapped reads it
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

const (
	byRunner = "the runner"
	inReqs   = "requirements"
)

// rules are the mapping. What comes first is needed by what follows.
var rules []rule

func init() { // as rules name methods that look into them
	rules = []rule{
		// Who and where.
		{"UserName", "the account of condor_submit", "one that the site may run jobs as; its own otherwise", (*plan).who},
		{"GroupName", "the account of condor_submit", "the account's own group only", (*plan).groupName},
		{"Placement/Share", "the schedd", "there is one, \"condor\"", (*plan).share},
		{"CandidateHosts", inReqs, "TARGET.Machine; the site's own name is any machine", (*plan).candidateHosts},
		{"OperatingSystemType", inReqs, "TARGET.OpSys", (*plan).operatingSystem},
		{"OperatingSystemVersion", inReqs, "TARGET.OpSysAndVer, like \"Debian12\"", (*plan).operatingSystemVersion},
		{"CPUArchitecture", inReqs, "TARGET.Arch", (*plan).architecture},
		// What the program is.
		{"FileSystem", byRunner, "well-known ones and those of the settings; the job's own are made below its directory", (*plan).fileSystems},
		{"Executable", byRunner, "looked up on the node", (*plan).executable},
		{"Argument", byRunner, "", (*plan).arguments},
		{"Input", byRunner, "empty without", func(p *plan, element string) { p.spec.Program.Input = p.file(element, p.program.Input) }},
		{"Output", byRunner, "kept by the site without", func(p *plan, element string) { p.spec.Program.Output = p.file(element, p.program.Output) }},
		{"Error", byRunner, "kept by the site without", func(p *plan, element string) { p.spec.Program.Error = p.file(element, p.program.Error) }},
		{"WorkingDirectory", byRunner, "a fresh one below the job's directory without", (*plan).workingDirectory},
		{"Environment", byRunner, "exactly these, over the site's and beside HTCondor's own _CONDOR_…", (*plan).environment},
		// What it needs.
		{"TotalResourceCount", "request_cpus", "1 only: a job runs on one machine", (*plan).resourceCount},
		{"IndividualCPUCount", "request_cpus", "the least that is in the range", (*plan).cpuCount},
		{"TotalCPUCount", "request_cpus", "the least that is in the range", (*plan).totalCPUs},
		{"NumberOfProcesses", "request_cpus", "one each, by the threads; as many as CPUs are asked for, without", nil},
		{"ProcessesPerHost", "request_cpus", "all are on one host: fewer are refused", nil},
		{"ThreadsPerProcess", "request_cpus", "and OMP_NUM_THREADS", nil},
		{"SPMDVariation", byRunner, "any MPI, or the launcher of the settings; others are refused", (*plan).spmd},
		{"IndividualPhysicalMemory", "request_memory", "MiB, rounded up", func(p *plan, element string) { p.physicalMemory(element, p.resources().IndividualPhysicalMemory) }},
		{"TotalPhysicalMemory", "request_memory", "MiB, rounded up", func(p *plan, element string) { p.physicalMemory(element, p.resources().TotalPhysicalMemory) }},
		{"IndividualVirtualMemory", inReqs, "TARGET.TotalVirtualMemory, KiB", func(p *plan, element string) { p.virtualMemory(element, p.resources().IndividualVirtualMemory) }},
		{"TotalVirtualMemory", inReqs, "TARGET.TotalVirtualMemory, KiB", func(p *plan, element string) { p.virtualMemory(element, p.resources().TotalVirtualMemory) }},
		{"IndividualDiskSpace", "request_disk", "KiB, rounded up", func(p *plan, element string) { p.diskSpace(element, p.resources().IndividualDiskSpace) }},
		{"TotalDiskSpace", "request_disk", "KiB, rounded up", func(p *plan, element string) { p.diskSpace(element, p.resources().TotalDiskSpace) }},
		{"IndividualCPUTime", "nothing", "any machine meets it: HTCondor bounds no job's time", func(p *plan, element string) { p.cpuTime(element, p.resources().IndividualCPUTime) }},
		{"TotalCPUTime", "nothing", "any machine meets it: HTCondor bounds no job's time", func(p *plan, element string) { p.cpuTime(element, p.resources().TotalCPUTime) }},
		{"IndividualCPUSpeed", "", "HTCondor does not tell the speed of CPUs in hertz", func(p *plan, element string) { p.never(element, p.resources().IndividualCPUSpeed != nil) }},
		{"IndividualNetworkBandwidth", "", "HTCondor promises none; a range with 0 is met", (*plan).bandwidth},
		{"ExclusiveExecution", "request_cpus", "all of a machine's, where the setting wholeMachines says that a job may; else refused", (*plan).exclusive},
		// Its limits.
		{"WallTimeLimit", "allowed_job_duration", "a minute more than the limit; the runner keeps it to the second", (*plan).wallTime},
		{"CPUTimeLimit", byRunner, "RLIMIT_CPU", func(p *plan, element string) { p.limit(element, p.program.Limits.CPUTime) }},
		{"FileSizeLimit", byRunner, "RLIMIT_FSIZE", func(p *plan, element string) { p.limit(element, p.program.Limits.FileSize) }},
		{"CoreDumpLimit", "coresize", "and RLIMIT_CORE, by the runner", (*plan).coreDump},
		{"DataSegmentLimit", byRunner, "RLIMIT_DATA", func(p *plan, element string) { p.limit(element, p.program.Limits.DataSegment) }},
		{"LockedMemoryLimit", byRunner, "RLIMIT_MEMLOCK", func(p *plan, element string) { p.limit(element, p.program.Limits.LockedMemory) }},
		{"OpenDescriptorsLimit", byRunner, "RLIMIT_NOFILE", func(p *plan, element string) { p.limit(element, p.program.Limits.OpenDescriptors) }},
		{"StackSizeLimit", byRunner, "RLIMIT_STACK", func(p *plan, element string) { p.limit(element, p.program.Limits.StackSize) }},
		{"VirtualMemoryLimit", byRunner, "RLIMIT_AS", func(p *plan, element string) { p.limit(element, p.program.Limits.VirtualMemory) }},
		{"MemoryLimit", "", "HTCondor keeps jobs to the memory that they ask for, if it does, and no other bound", func(p *plan, element string) { p.never(element, p.program.Limits.Memory != nil) }},
		{"ProcessCountLimit", "", "RLIMIT_NPROC counts all of an account's processes on a machine, not the job's", func(p *plan, element string) { p.never(element, p.program.Limits.ProcessCount != nil) }},
		{"PipeSizeLimit", "", "no machine can keep such a limit", func(p *plan, element string) { p.never(element, p.program.Limits.PipeSize != nil) }},
		{"ThreadCountLimit", "", "no machine can keep such a limit", func(p *plan, element string) { p.never(element, p.program.Limits.ThreadCount != nil) }},
		// Our own.
		{"Placement/QualityOfService", "", "HTCondor has none", func(p *plan, element string) { p.never(element, p.placement().QualityOfService != nil) }},
		{"Placement/Reservation", "", "HTCondor has none", func(p *plan, element string) { p.never(element, p.placement().Reservation != nil) }},
		{"Placement/Deadline", "periodic_remove", "the runner ends what runs, to the second", (*plan).deadline},
		{"Placement/NotBefore", "deferral_time", "no slot is taken before", (*plan).notBefore},
		{"Placement/Priority", "priority", "among the jobs of the account", (*plan).priority},
		{"Placement/Rerunnable", "My.PortolanRerunnable", "without, requirements and periodic_remove end a job that was begun and lost", (*plan).rerunnable},
		{"Placement/GPU", "request_gpus", "with require_gpus for its DeviceName; of one kind", (*plan).gpus},
		{"Placement/Licence", "concurrency_limits", "those of the settings or the pool's configuration", (*plan).licences},
		{"Placement/Constraint", inReqs, "an expression of the ClassAd language", (*plan).constraint},
		{"Placement/Container", "container_image", "with the container universe, where machines run containers", (*plan).container},
		{"Placement/Quorum", "", "HTCondor runs a job once", func(p *plan, element string) { p.never(element, p.placement().Quorum != nil) }},
		{"Placement/Replicas", "", "HTCondor runs a job once", func(p *plan, element string) { p.never(element, p.placement().Replicas != nil) }},
		{"Placement/Manager", "My.NAME", "attributes of the job, but those that HTCondor or the gateway sets", (*plan).manager},
		// What it is called.
		{"JobName", "JobBatchName", "at most 1000 bytes", (*plan).labels},
		{"JobIdentification/Description", "My.PortolanDescription", "at most 1000 bytes", nil},
		{"Description", "(kept by the gateway)", "of an application, a system or a file system", nil},
		{"JobAnnotation", "My.PortolanAnnotation", "in one, a line each", nil},
		{"JobProject", "accounting_group", "where the settings or the pool's GROUP_NAMES have one; in any case My.PortolanProject", (*plan).project},
		{"ApplicationName", "My.PortolanApplication", "with the version; refused without Executable, as there is no catalogue", func(p *plan, element string) {
			if name := p.def.ByName(); name != "" {
				p.refuse(element, "this site has no catalogue in which to look up %q; name the program as Executable", name)
			}
		}},
		{"ApplicationVersion", "My.PortolanApplication", "after the name", nil},
		{"DataStaging", "", "the adapter moves no files itself", func(p *plan, element string) { p.never(element, len(p.def.Description.DataStaging) > 0) }},
	}
}
