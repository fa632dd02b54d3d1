package slurm

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/portolan-project/portolan/jsdl"
)

// share finds the partition, and with it the nodes.
func (p *plan) share(element string) {
	name := p.request.Partition
	if s := p.placement().Share; s != nil {
		name = *s
	}
	for i := range p.info.Partitions {
		part := &p.info.Partitions[i]
		if name == "" && part.Default || name != "" && part.Name == name {
			p.partition = part
		}
	}
	switch {
	case p.partition == nil && name == "":
		p.nodes = p.info.Nodes // Slurm will say that there is none by default
	case p.partition == nil:
		p.refuse(local(element), "the site has no share %q; it has %s", clipped(name), p.info.partitionNames())
	default:
		for _, n := range p.info.Nodes {
			if slices.Contains(n.Partitions, p.partition.Name) {
				p.nodes = append(p.nodes, n)
			}
		}
		if name != "" {
			p.request.Partition = name
		}
	}
}

func clipped(s string) string {
	if len(s) > 80 {
		return strings.ToValidUTF8(s[:80], "") + "…"
	}
	return s
}

func (s *siteInfo) partitionNames() string {
	var names []string
	for _, p := range s.Partitions {
		names = append(names, p.Name)
	}
	return strings.Join(names[:min(len(names), 20)], ", ")
}

func (p *plan) candidateHosts(element string) {
	hosts := p.resources().CandidateHosts
	if len(hosts) == 0 {
		return
	}
	s := p.site
	own := append([]string{s.name, p.facts.Cluster, "localhost"}, s.settings.HostNames...)
	is := func(a string) func(string) bool { return func(b string) bool { return strings.EqualFold(a, b) } }
	for _, h := range hosts {
		if h != "" && slices.ContainsFunc(own, is(h)) {
			return // the site itself, with all of its nodes
		}
	}
	var shown []string
	for _, h := range hosts[:min(len(hosts), 8)] {
		shown = append(shown, strconv.Quote(clipped(h)))
	}
	p.keep(element, func(n node) bool { return slices.ContainsFunc(hosts, is(n.Name)) },
		fmt.Sprintf("none of %s is the site %q or a node of it that the job may use", strings.Join(shown, ", "), s.name))
}

// os gives JSDL's word for what a node runs, and its release.
func (n *node) os() (name, version string) {
	f := strings.Fields(n.OS)
	if len(f) > 0 {
		name = strings.ToUpper(f[0])
	}
	if len(f) > 1 {
		version = f[1]
	}
	if name == "" {
		name = "LINUX"
	}
	return name, version
}

func (p *plan) operatingSystem(element string) {
	o := p.resources().OperatingSystem
	if o == nil || !o.HasType || o.Name == "Unknown" || o.Name == "Not_Applicable" {
		return
	}
	p.keep(element, func(n node) bool { name, _ := n.os(); return name == o.Name }, "no node that the job may use runs "+o.Name)
}

func (p *plan) operatingSystemVersion(element string) {
	o := p.resources().OperatingSystem
	if o == nil || o.Version == nil {
		return
	}
	p.keep(element, func(n node) bool { _, v := n.os(); return v == *o.Version }, fmt.Sprintf("no node that the job may use has %q", clipped(*o.Version)))
}

// architectures puts uname's words into JSDL's (GFD.56 §5.2.1).
var architectures = map[string]string{
	"x86_64": "x86_64", "i386": "x86_32", "i486": "x86_32", "i586": "x86_32", "i686": "x86_32", "aarch64": "arm", "armv7l": "arm", "armv6l": "arm",
	"ppc64": "powerpc", "ppc64le": "powerpc", "ppc": "powerpc", "mips": "mips", "mips64": "mips", "sparc64": "sparc", "sparc": "sparc", "ia64": "ia64", "parisc": "parisc",
}

func (n *node) architecture() string {
	if a, ok := architectures[n.Arch]; ok {
		return a
	}
	return "other"
}

func (p *plan) architecture(element string) {
	c := p.resources().CPUArchitecture
	if c == nil {
		return
	}
	p.keep(element, func(n node) bool {
		a := n.architecture()
		return a == c.Name || c.Name == "x86" && (a == "x86_64" || a == "x86_32")
	}, "no node that the job may use is "+c.Name)
}

func (p *plan) exclusive(string) {
	if x := p.resources().ExclusiveExecution; x != nil && *x {
		p.request.Exclusive = true
	}
}

func (p *plan) resourceCount(element string) {
	p.asked.hosts = p.least(element, p.resources().TotalResourceCount, 1, int64(len(p.nodes)), "nodes")
	if m := p.asked.hosts; p.partition != nil && p.partition.MaxNodes > 0 && m > int64(p.partition.MaxNodes) {
		p.refuse(element, "the share %s gives a job at most %d nodes", p.partition.Name, p.partition.MaxNodes)
	}
}

func cpusOf(n node) int64   { return int64(n.CPUs) }
func memoryOf(n node) int64 { return n.Memory << 20 }
func diskOf(n node) int64   { return n.Tmp << 20 }

func (p *plan) cpuCount(element string) {
	p.asked.cpus = p.least(element, p.resources().IndividualCPUCount, 1, p.most(cpusOf), "CPUs on its largest node")
}

func (p *plan) totalCPUs(element string) {
	p.asked.total = p.least(element, p.resources().TotalCPUCount, 1, p.sum(cpusOf), "CPUs")
}

func (p *plan) memory(element string) {
	p.asked.memory = p.least(element, p.resources().IndividualPhysicalMemory, 0, p.mostMemory(), "bytes of memory on its largest node")
}

func (p *plan) mostMemory() int64 {
	m := p.most(memoryOf)
	if p.partition != nil && p.partition.MaxMemory > 0 {
		m = min(m, p.partition.MaxMemory<<20)
	}
	return m
}

func (p *plan) totalMemory(element string) {
	p.asked.memoryTotal = p.least(element, p.resources().TotalPhysicalMemory, 0, p.sum(memoryOf), "bytes of memory")
}

func (p *plan) virtualMemory(element string) {
	p.asked.virtual = p.least(element, p.resources().IndividualVirtualMemory, 0, p.mostMemory(), "bytes of memory on its largest node")
}

func (p *plan) totalVirtualMemory(element string) {
	p.asked.virtualAll = p.least(element, p.resources().TotalVirtualMemory, 0, p.sum(memoryOf), "bytes of memory")
}

func (p *plan) disk(element string) {
	p.asked.tmp = p.least(element, p.resources().IndividualDiskSpace, 0, p.most(diskOf), "bytes of disk for jobs on a node (TmpDisk)")
}

func (p *plan) totalDisk(element string) {
	p.asked.tmpTotal = p.least(element, p.resources().TotalDiskSpace, 0, p.sum(diskOf), "bytes of disk for jobs (TmpDisk)")
}

func (p *plan) seconds(element string, r *jsdl.RangeValue) int64 {
	if r == nil {
		return 0
	}
	n, ok := r.LowestInteger(0)
	if !ok || n > math.MaxInt32*60 {
		p.refuse(element, "no number of seconds that a job can have is in its range")
		return 0
	}
	return n
}

func (p *plan) cpuTime(element string) {
	p.asked.cpuTime = p.seconds(element, p.resources().IndividualCPUTime)
}

func (p *plan) totalCPUTime(element string) {
	p.asked.cpuTimeAll = p.seconds(element, p.resources().TotalCPUTime)
}

func (p *plan) cpuSpeed(element string) { p.never(element, p.resources().IndividualCPUSpeed != nil) }

func (p *plan) bandwidth(element string) {
	n := p.resources().IndividualNetworkBandwidth
	p.never(element, n != nil && !n.Contains(0))
}

func (p *plan) wallTime(element string) {
	n, given := p.limit(element, p.program.Limits.WallTime)
	if !given {
		return
	}
	most := p.maxMinutes()
	switch m := n/60 + min(n%60, 1); {
	case n > math.MaxInt32*30: // more than a thousand years
		p.request.Minutes = -1
		if most > 0 { // no limit in effect, and so the share's
			p.request.Minutes = most
		}
	case most > 0 && m > uint64(most):
		p.refuse(element, "the share %s lets a job run for at most %d minutes; ask for less or for another share", p.partition.Name, most)
	default:
		p.request.Minutes = max(int64(m), 1)
	}
}

func (p *plan) maxMinutes() int64 {
	if p.partition == nil {
		return 0
	}
	return p.partition.MaxMinutes
}

func (p *plan) memoryLimit(element string) {
	if p.program.Limits.Memory == nil {
		return
	}
	if !p.facts.MemoryLimits {
		p.refuse(element, "Slurm does not keep jobs to their memory at this site; leave it out")
		return
	}
	p.limit(element, p.program.Limits.Memory)
}

func (p *plan) quality(element string) {
	q := p.placement().QualityOfService
	if q == nil {
		return
	}
	if !slices.Contains(p.info.Qualities, *q) {
		p.refuse(local(element), "the site has no quality of service %q", clipped(*q))
		return
	}
	p.request.QOS = *q
}

func (p *plan) reservation(element string) {
	r := p.placement().Reservation
	if r == nil {
		return
	}
	if !word.MatchString(*r) {
		p.refuse(local(element), "%q can't be the name of a reservation at Slurm", clipped(*r))
		return
	}
	p.request.Reservation = *r
}

func (p *plan) deadline(element string) {
	d := p.placement().Deadline
	if d == nil {
		return
	}
	left := int64(d.Sub(p.now) / time.Minute)
	switch {
	case left < 1:
		p.refuse(local(element), "%s is over, or less than a minute away", d.UTC().Format(time.RFC3339))
		return
	case p.request.Minutes > left:
		p.refuse(local(element), "a job of the wall time that is asked for can't have ended by %s", d.UTC().Format(time.RFC3339))
		return
	}
	p.request.Deadline = *d
	if p.request.Minutes <= 0 {
		p.request.Minutes = left
		if p.partition != nil && p.partition.DefaultMinutes > 0 {
			p.request.Minutes = min(left, p.partition.DefaultMinutes)
		}
		if most := p.maxMinutes(); most > 0 {
			p.request.Minutes = min(p.request.Minutes, most)
		}
	}
}

func (p *plan) notBefore(element string) {
	t := p.placement().NotBefore
	if t == nil || !t.After(p.now) {
		return
	}
	if t.Sub(p.now) > 10*365*24*time.Hour {
		p.refuse(local(element), "%s is too far away", t.UTC().Format(time.RFC3339))
		return
	}
	p.request.Begin = *t
}

func (p *plan) priority(element string) {
	n := p.placement().Priority
	if n == nil {
		return
	}
	if *n > 0 && !mayActForOthers(p.facts, p.site.own.user) {
		p.refuse(local(element), "only an operator of Slurm may raise a priority above 0; leave it out, or lower that of other jobs")
		return
	}
	p.request.Nice = -*n
}

func (p *plan) gpus(element string) {
	var gres []string
	for _, g := range p.placement().GPUs {
		if g.Count <= 0 {
			continue
		}
		if g.Type != "" && !word.MatchString(g.Type) || !slices.ContainsFunc(p.nodes, func(n node) bool { return n.gpus(g.Type) >= g.Count }) {
			p.refuse(local(element), "no node that the job may use has %d of the type %q", g.Count, clipped(g.Type))
			return
		}
		one := "gpu:"
		if g.Type != "" {
			one += g.Type + ":"
		}
		gres = append(gres, one+strconv.Itoa(g.Count))
	}
	p.request.Gres = strings.Join(gres, ",")
}

// gpus counts a node's devices of a type; "" is any.
func (n *node) gpus(kind string) int {
	total := 0
	for t, count := range parseGPUs(n.Gres) {
		if kind == "" || strings.EqualFold(t, kind) {
			total += count
		}
	}
	return total
}

// parseGPUs reads "gpu:a100:4(S:0-1),gpu:2,fpga:1" into counts by type.
func parseGPUs(gres string) map[string]int {
	out := map[string]int{}
	for item := range strings.SplitSeq(gres, ",") {
		item, _, _ = strings.Cut(item, "(")
		f := strings.Split(item, ":")
		switch {
		case f[0] != "gpu":
		case len(f) == 1:
			out[""]++
		case len(f) == 2:
			if n, err := strconv.Atoi(f[1]); err == nil && n > 0 {
				out[""] += n
			} else if err != nil {
				out[f[1]]++
			}
		default:
			if n := number(f[2]); n > 0 {
				out[f[1]] += n
			}
		}
	}
	return out
}

func (p *plan) licences(element string) {
	var all []string
	for _, l := range p.placement().Licences {
		if !word.MatchString(l.Name) {
			p.refuse(local(element), "%q can't be the name of a licence at Slurm", clipped(l.Name))
			return
		}
		all = append(all, l.Name+":"+strconv.Itoa(max(l.Count, 1)))
	}
	p.request.Licenses = strings.Join(all, ",")
}

func (p *plan) constraint(element string) {
	c := p.placement().Constraint
	if c == nil {
		return
	}
	ok := *c != "" && len(*c) < 1000 && !strings.HasPrefix(*c, "-")
	for _, r := range *c {
		ok = ok && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("_.-+@:&|,*[]()!=", r))
	}
	if !ok {
		p.refuse(local(element), "%q is no expression of features of nodes", clipped(*c))
		return
	}
	p.request.Constraint = *c
}

func (p *plan) container(element string) {
	c := p.placement().Container
	if c == nil {
		return
	}
	if len(p.site.settings.Container) == 0 {
		p.refuse(local(element), "the site runs no containers")
		return
	}
	if *c == "" || strings.ContainsRune(*c, 0) {
		p.invalid(local(element), "it names no image")
		return
	}
	for _, w := range p.site.settings.Container {
		p.spec.Prefix = append(p.spec.Prefix, strings.ReplaceAll(w, "{image}", *c))
	}
}

// comment tells people what the job is. Slurm's own name of it is taken.
func (p *plan) comment(string) {
	var parts []string
	add := func(s *string) {
		if s != nil && *s != "" {
			parts = append(parts, *s)
		}
	}
	if id := p.def.Description.Identification; id != nil {
		add(id.JobName)
		add(id.Description)
		parts = append(parts, id.Annotations...)
		for _, project := range id.Projects {
			if !word.MatchString(project) {
				parts = append(parts, project)
			}
		}
	}
	if a := p.def.Description.Application; a != nil && a.Name != nil && *a.Name != "" {
		name := *a.Name
		if a.Version != nil && *a.Version != "" {
			name += " " + *a.Version
		}
		parts = append(parts, "["+name+"]")
	}
	p.request.Comment = plainLine(strings.Join(parts, " - "))
}

// maxComment bounds what people are told, in bytes.
const maxComment = 500

// plainLine makes one line of a text that may hold anything.
func plainLine(s string) string {
	if len(s) > maxComment {
		s = s[:maxComment]
	}
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, " "))
	return strings.TrimSpace(s)
}

func (p *plan) project(string) {
	id := p.def.Description.Identification
	if id == nil {
		return
	}
	for _, project := range id.Projects {
		if word.MatchString(project) {
			p.request.Account = project
			return
		}
	}
}
