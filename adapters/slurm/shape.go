package slurm

import (
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/portolan-project/portolan/jsdl"
)

// Memory that a job is given beside what it asks for, and at least.
const (
	runnerMemory = 32 << 20 // the runner's own, which counts as the job's
	leastMemory  = 64       // MiB
)

// finish puts what was asked for into Slurm's words, now that all of it is known.
func (p *plan) finish() {
	if p.size > p.site.argMax-16<<10 {
		p.refuse("Argument, Environment", "together they take %d bytes; a node gives a program at most %d", p.size, p.site.argMax-16<<10)
	}
	p.spec.UID = p.account.uid
	if len(p.no.list) > 0 {
		return
	}
	if p.program.SPMD != nil {
		p.processes()
	} else {
		p.oneProcess()
	}
	p.amounts()
	p.filter()
}

// ceil divides, and rounds up.
func ceil(a, b int64) int64 { return (a + b - 1) / b }

// oneProcess shapes a job of one process, which runs on the first of its nodes.
func (p *plan) oneProcess() {
	a, r := &p.asked, &p.request
	hosts := max(a.hosts, 1)
	r.Nodes = int(hosts)
	each := a.cpus
	switch {
	case a.total == 0:
		each = max(each, 1)
	case each == 0 && (a.hosts == 1 || a.hosts == 0 && a.total <= p.most(cpusOf)):
		each = a.total
	case each == 0: // more than one node has
		if a.hosts == 0 {
			p.spread(a.total, 1)
			return
		}
		r.Tasks, r.CPUsPerTask = int(a.total), 1
		return
	default:
		if a.hosts == 0 {
			hosts = ceil(a.total, each)
			r.Nodes = int(hosts)
		}
		each = max(each, ceil(a.total, hosts))
		if in, all := p.resources().IndividualCPUCount, p.resources().TotalCPUCount; !in.Contains(float64(each)) || !all.Contains(float64(each*hosts)) || hosts > int64(len(p.nodes)) {
			p.refuse("TotalCPUCount", "no number of nodes with as many CPUs as IndividualCPUCount says has as many in all")
			return
		}
		if n := p.resources().TotalResourceCount; n != nil && !n.Contains(float64(hosts)) {
			p.refuse("TotalResourceCount", "it does not go with the numbers of CPUs")
			return
		}
	}
	if each > p.most(cpusOf) {
		p.refuse("TotalCPUCount", "a node would need %d CPUs; the largest has %d", each, p.most(cpusOf))
		return
	}
	r.Tasks, r.TasksPerNode, r.CPUsPerTask = int(hosts), 1, int(each)
}

// spread lets Slurm put tasks on as many nodes as it takes.
func (p *plan) spread(tasks, cpus int64) {
	r := &p.request
	r.Tasks, r.CPUsPerTask = int(tasks), int(cpus)
	perNode := max(p.most(cpusOf)/cpus, 1)
	r.Nodes, r.MaxNodes = int(ceil(tasks, perNode)), min(len(p.nodes), int(tasks))
}

// processes shapes an SPMD job (GFD.115).
func (p *plan) processes() {
	a, r, want := &p.asked, &p.request, p.program.SPMD
	n := int64(want.Processes)
	if n == 0 { // as many as CPUs are allocated
		n = max(a.total, a.cpus*max(a.hosts, 1), 1)
		if want.ThreadsActual {
			n = max(a.hosts, 1)
		}
	}
	threads := int64(max(want.Threads, 1))
	if want.ThreadsActual {
		threads = max(a.cpus, 1)
	}
	if a.total > n*threads {
		threads = ceil(a.total, n)
	}
	perHost := int64(want.ProcessesPerHost)
	hosts := a.hosts
	if hosts == 0 && perHost > 0 {
		hosts = ceil(n, perHost)
	}
	switch {
	case n > math.MaxInt32/threads || n*threads > p.sum(cpusOf):
		p.refuse("NumberOfProcesses", "the site has %d CPUs, which is not enough for %d processes of %d threads", p.sum(cpusOf), n, threads)
		return
	case perHost*threads > p.most(cpusOf):
		p.refuse("ProcessesPerHost", "the largest node has %d CPUs, which is not enough for %d processes of %d threads", p.most(cpusOf), perHost, threads)
		return
	case threads > p.most(cpusOf):
		p.refuse("ThreadsPerProcess", "the largest node has %d CPUs", p.most(cpusOf))
		return
	case hosts > int64(len(p.nodes)) || hosts > n:
		p.refuse("ProcessesPerHost", "%d processes do not go on %d nodes here", n, hosts)
		return
	}
	if a.cpus > 0 && perHost == 0 && hosts > 0 {
		perHost = ceil(n, hosts)
	}
	if a.cpus > 0 && perHost > 0 {
		threads = max(threads, ceil(a.cpus, perHost))
	}
	if hosts > 0 {
		r.Nodes, r.Tasks, r.TasksPerNode, r.CPUsPerTask = int(hosts), int(n), int(perHost), int(threads)
	} else {
		p.spread(n, threads)
	}
	p.launch(n, perHost, threads)
}

// mpi gives srun's --mpi for the variations that it starts itself.
var mpi = map[string]string{
	jsdl.VariationMPI: "", jsdl.VariationOpenMPI: "pmix", jsdl.VariationMPICH2: "pmi2", jsdl.VariationMVAPICH2: "pmi2", jsdl.VariationIntelMPI: "pmi2",
}

func (p *plan) variation(element string) {
	want := p.program.SPMD
	if want == nil {
		return
	}
	if _, own := p.site.settings.Launchers[want.Variation]; own {
		return
	}
	plugin, ok := mpi[want.Variation]
	if ok && plugin != "" {
		ok = false
		for _, have := range p.facts.MPI {
			ok = ok || have == plugin
		}
	}
	if !ok {
		p.refuse(element, "this site has no launcher for %s", want.Variation)
	}
}

// launch says what starts the processes.
func (p *plan) launch(processes, perHost, threads int64) {
	want := p.program.SPMD
	l := &launch{Threads: want.Threads}
	if !want.ThreadsActual {
		l.Threads = max(l.Threads, 1)
	}
	if own, ok := p.site.settings.Launchers[want.Variation]; ok {
		fill := strings.NewReplacer("{processes}", strconv.FormatInt(processes, 10), "{perhost}", strconv.FormatInt(perHost, 10), "{threads}", strconv.FormatInt(threads, 10))
		for _, w := range own {
			l.Command = append(l.Command, fill.Replace(w))
		}
		p.spec.Launch = l
		return
	}
	l.Command = []string{
		p.site.srun, "--ntasks=" + strconv.FormatInt(processes, 10), "--cpus-per-task=" + strconv.FormatInt(threads, 10),
		"--export=ALL", "--kill-on-bad-exit=1",
	}
	if perHost > 0 {
		l.Command = append(l.Command, "--ntasks-per-node="+strconv.FormatInt(perHost, 10))
	}
	if plugin := mpi[want.Variation]; plugin != "" {
		l.Command = append(l.Command, "--mpi="+plugin)
	}
	l.Command = append(l.Command, "--")
	p.spec.Launch = l
}

// amounts puts memory, disk and time into Slurm's units, which are those of a node.
func (p *plan) amounts() {
	if len(p.no.list) > 0 {
		return
	}
	a, r := &p.asked, &p.request
	hosts := int64(max(r.Nodes, 1))
	var memory int64
	from := ""
	for _, one := range []struct {
		element string
		bytes   int64
	}{
		{"IndividualPhysicalMemory", a.memory},
		{"TotalPhysicalMemory", ceil(a.memoryTotal, hosts)},
		{"IndividualVirtualMemory", a.virtual},
		{"TotalVirtualMemory", ceil(a.virtualAll, hosts)},
	} {
		if one.bytes > memory {
			memory, from = one.bytes, one.element
		}
	}
	limit, limited := p.spec.Limits[limitMemory]
	switch most := p.mostMemory(); {
	case limited && limit < uint64(most):
		if l := int64(limit); l < memory {
			p.refuse("MemoryLimit", "it is less than what %s asks for", from)
			return
		}
		memory, from = min(int64(limit)+runnerMemory, most), limitMemory
	case memory > most:
		p.refuse(from, "a node would need %d bytes; the largest has %d", memory, most)
		return
	case limited: // more than a node has: all of it is there
		delete(p.spec.Limits, limitMemory)
	}
	if memory > 0 {
		r.Memory = max(ceil(memory, 1<<20), leastMemory)
		p.spec.MemoryFrom = from
		if from != limitMemory {
			if p.spec.Limits == nil {
				p.spec.Limits = map[string]uint64{}
			}
			p.spec.Limits[limitMemory] = uint64(r.Memory) << 20
		}
	}
	tmp := max(a.tmp, ceil(a.tmpTotal, hosts))
	if tmp > p.most(diskOf) {
		p.refuse("TotalDiskSpace", "a node would need %d bytes; the largest has %d", tmp, p.most(diskOf))
	}
	r.Tmp = ceil(tmp, 1<<20)
	if r.Minutes != 0 {
		return
	}
	cpus := int64(max(r.Tasks, 1)) * int64(max(r.CPUsPerTask, 1))
	seconds := max(a.cpuTime, ceil(a.cpuTimeAll, cpus))
	if seconds == 0 {
		return
	}
	need := ceil(seconds, 60)
	if most := p.maxMinutes(); most > 0 && need > most {
		p.refuse("IndividualCPUTime", "the share %s lets a job run for at most %d minutes", p.partition.Name, most)
		return
	}
	if p.partition == nil || p.partition.DefaultMinutes > 0 && need > p.partition.DefaultMinutes {
		r.Minutes = need
	}
}

// filter tells Slurm which nodes may be used, where not all may.
func (p *plan) filter() {
	if len(p.no.list) > 0 {
		return
	}
	may := map[string]bool{}
	for _, n := range p.nodes {
		may[n.Name] = true
	}
	var not []string
	for _, n := range p.info.Nodes {
		if !may[n.Name] && (p.partition == nil || contains(n.Partitions, p.partition.Name)) {
			not = append(not, n.Name)
		}
	}
	switch {
	case len(not) == 0:
	case len(p.nodes) == 1 && p.request.Nodes <= 1:
		p.request.NodeList = p.nodes[0].Name
	case p.request.Nodes > len(p.nodes):
		p.refuse("TotalResourceCount", "%d nodes are asked for, of which %d may be used", p.request.Nodes, len(p.nodes))
	default:
		p.request.Exclude = hostlist(not)
	}
}

func contains(list []string, s string) bool {
	return slices.Contains(list, s)
}
