package condor

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters/internal/program"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// The rules about what a job needs of a machine and of the pool.

func (p *plan) candidateHosts(element string) {
	hosts := p.resources().CandidateHosts
	if len(hosts) == 0 || slices.ContainsFunc(hosts, func(h string) bool {
		return slices.ContainsFunc(p.site.settings.HostNames, func(n string) bool { return strings.EqualFold(h, n) }) || h == p.site.name
	}) {
		return
	}
	named := func(s slot) bool {
		return slices.ContainsFunc(hosts, func(h string) bool { return strings.EqualFold(h, s.Machine) })
	}
	var tests []string
	for _, h := range hosts {
		tests = append(tests, "TARGET.Machine == "+quote(h)) // which heeds no case
	}
	p.keep(element, named, "no machine of this pool is named so")
	p.require("%s", strings.Join(tests, " || "))
}

// systems are HTCondor's words for JSDL's operating systems.
var systems = map[string]string{"LINUX": "LINUX", "MACOS": "OSX", "FreeBSD": "FREEBSD", "WINNT": "WINDOWS", "Windows_XP": "WINDOWS"}

// architectures are HTCondor's words for JSDL's architectures.
var architectures = map[string]string{"x86_64": "X86_64", "x86_32": "INTEL", "ia64": "IA64", "powerpc": "PPC64LE", "arm": "AARCH64", "other": ""}

// reverse finds JSDL's word.
func reverse(words map[string]string, theirs, none string) string {
	for _, ours := range []string{"LINUX", "MACOS", "FreeBSD", "WINNT", "x86_64", "x86_32", "ia64", "powerpc", "arm"} {
		if w := words[ours]; w != "" && strings.EqualFold(w, theirs) {
			return ours
		}
	}
	return none
}

func (p *plan) operatingSystem(element string) {
	o := p.resources().OperatingSystem
	if o == nil || !o.HasType || o.Name == "" || o.Name == "Unknown" || o.Name == "Not_Applicable" {
		return
	}
	theirs := systems[o.Name]
	if theirs == "" {
		p.refuse(element, "HTCondor has no word for %s", o.Name)
		return
	}
	p.keep(element, func(s slot) bool { return strings.EqualFold(s.OpSys, theirs) }, "no machine of this pool runs %s", o.Name)
	p.require("TARGET.OpSys == %s", quote(theirs))
}

func (p *plan) operatingSystemVersion(element string) {
	o := p.resources().OperatingSystem
	if o == nil || o.Version == nil {
		return
	}
	p.keep(element, func(s slot) bool { return strings.EqualFold(s.OpSysAndVer, *o.Version) }, "no machine of this pool has %q; HTCondor names them like \"Debian12\"", *o.Version)
	p.require("TARGET.OpSysAndVer == %s", quote(*o.Version))
}

func (p *plan) architecture(element string) {
	a := p.resources().CPUArchitecture
	if a == nil {
		return
	}
	theirs := []string{architectures[a.Name]}
	if a.Name == "x86" {
		theirs = []string{"X86_64", "INTEL"}
	}
	if theirs[0] == "" {
		p.refuse(element, "HTCondor has no word for %s", a.Name)
		return
	}
	is := func(s slot) bool {
		return slices.ContainsFunc(theirs, func(t string) bool { return strings.EqualFold(t, s.Arch) })
	}
	p.keep(element, is, "no machine of this pool is %s", a.Name)
	var tests []string
	for _, t := range theirs {
		tests = append(tests, "TARGET.Arch == "+quote(t))
	}
	p.require("%s", strings.Join(tests, " || "))
}

func cpusOf(s slot) int64   { return s.CPUs }
func memoryOf(s slot) int64 { return s.Memory }
func diskOf(s slot) int64   { return s.Disk }

func (p *plan) cpuCount(element string) {
	p.cpus = max(p.cpus, p.least(element, p.resources().IndividualCPUCount, 1, cpusOf, "CPUs for one job"))
}

func (p *plan) totalCPUs(element string) {
	p.cpus = max(p.cpus, p.least(element, p.resources().TotalCPUCount, 1, cpusOf, "CPUs for one job"))
}

func (p *plan) resourceCount(element string) {
	r := p.resources().TotalResourceCount
	if r == nil {
		return
	}
	if n, ok := r.LowestInteger(1); !ok || n > 1 {
		p.refuse(element, "a job runs on one machine here")
	}
}

func (p *plan) physicalMemory(element string, r *jsdl.RangeValue) {
	p.memory = max(p.memory, p.least(element, r, 0, memoryOf, "bytes of memory"))
}

func (p *plan) virtualMemory(element string, r *jsdl.RangeValue) {
	if n := p.least(element, r, 0, func(s slot) int64 { return s.Virtual }, "bytes of virtual memory"); n > 0 {
		p.require("TARGET.TotalVirtualMemory >= %d", ceil(n, 1<<10))
	}
}

func (p *plan) diskSpace(element string, r *jsdl.RangeValue) {
	p.disk = max(p.disk, p.least(element, r, 0, diskOf, "bytes of disk for jobs"))
}

// cpuTime is a need that any machine meets: HTCondor bounds no job's time.
func (p *plan) cpuTime(element string, r *jsdl.RangeValue) {
	if r != nil && r.IsEmpty() {
		p.refuse(element, "no number is in its range")
	}
}

func (p *plan) bandwidth(element string) {
	n := p.resources().IndividualNetworkBandwidth
	p.never(element, n != nil && !n.Contains(0))
}

func (p *plan) exclusive(element string) {
	x := p.resources().ExclusiveExecution
	if x == nil || !*x {
		return
	}
	if !p.site.settings.WholeMachines {
		p.refuse(element, "this pool gives no job a machine for itself (the setting wholeMachines)")
		return
	}
	p.keep(element, func(s slot) bool { return s.Partitionable }, "no machine of this pool can be given away as a whole")
	// The smallest machines that do; all of their CPUs are the job's.
	n := int64(0)
	for _, s := range p.slots {
		if s.CPUs >= p.cpus && (n == 0 || s.CPUs < n) {
			n = s.CPUs
		}
	}
	if n > 0 {
		p.cpus = n
		p.require("TARGET.TotalSlotCpus == %d && TARGET.TotalCpus == TARGET.TotalSlotCpus", n)
	}
}

// spmd says how many processes the runner starts on the one machine (GFD.115).
func (p *plan) spmd(element string) {
	want := p.program.SPMD
	if want == nil {
		return
	}
	command, ok := p.site.settings.launcher(want.Variation)
	if !ok {
		p.refuse(element, "this site has no launcher for %s (the setting launchers); it starts %s by itself", want.Variation, jsdl.VariationMPI)
		return
	}
	n := int64(want.Processes)
	if n == 0 {
		n = p.cpus
	}
	threads := int64(max(want.Threads, 1))
	if want.ProcessesPerHost > 0 && int64(want.ProcessesPerHost) < n {
		p.refuse("ProcessesPerHost", "%d processes, %d on each host, need more machines than the one that a job runs on here", n, want.ProcessesPerHost)
	}
	if n > maxProcesses {
		p.refuse("NumberOfProcesses", "a job starts at most %d here", maxProcesses)
		return
	}
	if n*threads > p.cpus {
		have := p.most(cpusOf)
		what := "NumberOfProcesses"
		if n <= have {
			what = "ThreadsPerProcess"
		}
		p.keep(what, func(s slot) bool { return s.CPUs >= n*threads }, "a machine of this pool has at most %d CPUs for one job, which is not enough for %d processes of %d threads", have, n, threads)
		p.cpus = n * threads
	}
	prog := &p.spec.Program
	p.processes, prog.Processes, prog.Threads = int(n), int(n), want.Threads
	if slices.ContainsFunc(prog.Environment, func(v string) bool { return strings.HasPrefix(v, "OMP_NUM_THREADS=") }) {
		threads = 0 // the job knows better
	}
	if threads > 0 && (want.Threads > 0 || !want.ThreadsActual) {
		prog.Environment = append(prog.Environment, "OMP_NUM_THREADS="+strconv.FormatInt(threads, 10))
	}
	if len(command) > 0 {
		words := strings.NewReplacer("{processes}", strconv.FormatInt(n, 10), "{perhost}", strconv.FormatInt(n, 10), "{threads}", strconv.FormatInt(max(threads, 1), 10))
		for _, w := range command {
			prog.Prefix = append(prog.Prefix, words.Replace(w))
		}
		prog.Processes = 0 // the launcher starts them
	}
}

// maxProcesses bounds the processes of one job.
const maxProcesses = 4096

func (p *plan) share(element string) {
	if s := p.placement().Share; s != nil && *s != shareName {
		p.refuse(local(element), "this pool has one share, %q, not %q", shareName, *s)
	}
}

// shareName is the pool's one share: the queue of its schedd.
const shareName = "condor"

func (p *plan) deadline(element string) {
	d := p.placement().Deadline
	if d == nil {
		return
	}
	if !d.After(p.now) {
		p.refuse(local(element), "%s has passed", d.UTC().Format(time.RFC3339))
		return
	}
	p.spec.Program.Deadline = *d
	// The runner ends what runs, to the second; this is for what waits.
	p.request.Remove = append(p.request.Remove, fmt.Sprintf("time() >= %d", d.Unix()+int64(p.site.settings.grace/time.Second)))
}

func (p *plan) notBefore(string) {
	if t := p.placement().NotBefore; t != nil && t.After(p.now) {
		p.request.set("deferral_time", strconv.FormatInt(t.Unix(), 10))
		p.request.set("deferral_window", "2000000000") // however long it then waits
		p.request.set("deferral_prep_time", "0")       // no slot is taken before
	}
}

func (p *plan) priority(string) {
	if n := p.placement().Priority; n != nil {
		p.request.set("priority", strconv.Itoa(*n))
	}
}

func (p *plan) rerunnable(string) {
	if r := p.placement().Rerunnable; r != nil && *r {
		p.spec.Rerunnable = true
		p.request.set("My.PortolanRerunnable", "true")
		return
	}
	// HTCondor starts a job again until it ends. This one is not: it matches nothing more,
	// and leaves the queue.
	p.require("(MY.NumJobStarts ?: 0) == 0")
	p.request.Remove = append(p.request.Remove, "JobStatus == 1 && (NumJobStarts ?: 0) > 0")
}

func (p *plan) gpus(element string) {
	element = local(element)
	total := 0
	var kinds []string
	for _, g := range p.placement().GPUs {
		total += g.Count
		if g.Type != "" {
			kinds = append(kinds, g.Type)
		}
	}
	if total == 0 {
		return
	}
	if len(kinds) > 1 || len(kinds) == 1 && len(p.placement().GPUs) > 1 {
		p.refuse(element, "HTCondor gives a job devices of one kind")
		return
	}
	have := p.most(func(s slot) int64 { return s.GPUs })
	p.keep(element, func(s slot) bool {
		return s.GPUs >= int64(total) && (len(kinds) == 0 || slices.ContainsFunc(s.GPUNames, func(n string) bool { return strings.EqualFold(n, kinds[0]) }))
	}, "no machine of this pool has %d such devices; one has at most %d", total, have)
	p.request.set("request_gpus", strconv.Itoa(total))
	if len(kinds) == 1 {
		p.request.set("require_gpus", escape("DeviceName == "+quote(kinds[0])))
	}
}

func (p *plan) licences(element string) {
	element = local(element)
	var all []string
	for _, l := range p.placement().Licences {
		known := p.facts == nil && len(p.site.settings.Licences) == 0
		list := p.site.settings.Licences
		if len(list) == 0 && p.facts != nil {
			list = p.facts.licences
		}
		base, _, _ := strings.Cut(l.Name, ".")
		known = known || slices.ContainsFunc(list, func(n string) bool { return strings.EqualFold(n, l.Name) || strings.EqualFold(n, base) })
		if !known || !limitName.MatchString(l.Name) {
			p.refuse(element, "this pool counts no licence %q: it has no concurrency limit of this name", l.Name)
			continue
		}
		all = append(all, l.Name+":"+strconv.Itoa(l.Count))
	}
	if len(all) > 0 {
		slices.Sort(all)
		p.request.set("concurrency_limits", strings.Join(all, ","))
	}
}

func (p *plan) constraint(element string) {
	c := p.placement().Constraint
	if c == nil {
		return
	}
	if err := p.expression(local(element), *c); err == nil {
		p.require("%s", oneLine(*c))
	}
}

// expression judges an expression that the job brings.
func (p *plan) expression(element, text string) error {
	err := expression(text)
	if err == nil {
		err = p.site.parse(oneLine(text))
	}
	if err != nil {
		p.wrong(element, "%.200q is no expression of the ClassAd language: %s", text, plain(err))
	}
	return err
}

func plain(err error) string {
	if s := fail.Sentence(err); s != fail.Sentence(nil) {
		return s
	}
	return err.Error()
}

func (p *plan) container(element string) {
	c := p.placement().Container
	if c == nil {
		return
	}
	element = local(element)
	if *c == "" || strings.ContainsFunc(*c, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune("\"'$\\", r) }) {
		p.refuse(element, "%q can't be the name of an image here", *c)
		return
	}
	if p.facts == nil {
		return
	}
	p.keep(element, func(s slot) bool { return s.Containers }, "no machine of this pool runs containers")
	p.request.Container = *c
}

func (p *plan) manager(element string) {
	for _, m := range p.placement().Manager {
		e := local(element) + " " + m.Name
		if why := forbidden(m.Name); why != "" {
			p.refuse(e, "%s", why)
			continue
		}
		if p.expression(e, m.Value) == nil {
			p.request.set("My."+m.Name, escape(oneLine(m.Value)))
		}
	}
}

// project becomes an accounting group where the pool has one for it; else it is a label.
func (p *plan) project(string) {
	for _, name := range p.identification().Projects {
		group := p.site.settings.Projects[name]
		if group == "" && p.facts != nil {
			for _, g := range p.facts.groups {
				if strings.EqualFold(g, name) {
					group = g
				}
			}
		}
		if group != "" {
			p.request.set("accounting_group", group)
			p.request.set("accounting_group_user", p.account.name)
			return
		}
	}
}

func (p *plan) label(attribute, value string) {
	if value != "" {
		p.request.Labels = append(p.request.Labels, [2]string{attribute, label(value)})
	}
}

// label keeps a text for people within reason.
func label(s string) string {
	const most = 1000
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

func (p *plan) labels(string) {
	id := p.identification()
	deref := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	p.request.Name = label(deref(id.JobName))
	p.label("PortolanDescription", deref(id.Description))
	p.label("PortolanAnnotation", strings.Join(id.Annotations, "\n"))
	p.label("PortolanProject", strings.Join(id.Projects, "\n"))
	if a := p.def.Description.Application; a != nil {
		p.label("PortolanApplication", strings.TrimSpace(deref(a.Name)+" "+deref(a.Version)))
	}
}

// finish puts the numbers together.
func (p *plan) finish() {
	if p.size > p.site.argMax-(64<<10) {
		p.refuse("Argument, Environment", "together they take %d bytes; a node gives a program at most %d", p.size, p.site.argMax-(64<<10))
	}
	p.request.set("request_cpus", strconv.FormatInt(p.cpus, 10))
	switch {
	case p.memory > 0:
		p.request.set("request_memory", strconv.FormatInt(max(ceil(p.memory, 1<<20), 1), 10))
	case p.site.settings.Memory > 0:
		p.request.set("request_memory", strconv.FormatInt(p.site.settings.Memory, 10))
	}
	if p.disk > 0 {
		p.request.set("request_disk", strconv.FormatInt(max(ceil(p.disk, 1<<10), 1), 10))
	}
	if w := p.spec.Program.Limits[program.LimitWallTime]; p.program.Limits.WallTime != nil && w < 1 {
		p.spec.Wall = "0"
	}
}

func ceil(n, unit int64) int64 { return n/unit + min(n%unit, 1) }
