package resourcemodel

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// Compile makes a request of a job definition and its criteria, for a subject whose
// membership of the VO was checked: a document that names another VO is fail.Denied. What no place could
// ever meet (ranges without a number, counts that contradict each other, a criterion
// over an attribute that does not exist) is fail.Unsupported or fail.Invalid and names
// the element.
func Compile(def *jsdl.JobDefinition, who Subject) (*Request, error) {
	return CompileWith(def, who, criteriaOf(def))
}

// CompileWith is Compile with criteria from elsewhere in the place of the document's own.
// The definition and the criteria are kept, and must not be changed any more.
func CompileWith(def *jsdl.JobDefinition, who Subject, criteria *jsdl.Criteria) (*Request, error) {
	q, err := def.Request()
	if err != nil && !ofAmounts(err) {
		return nil, err
	}
	r := &Request{Subject: who, definition: def, criteria: criteria}
	c := compiler{request: r, def: def, program: def.Program(), resources: def.Description.Resources, asked: q}
	if c.resources == nil {
		c.resources = new(jsdl.Resources)
	}
	if c.placement = c.resources.Placement; c.placement == nil {
		c.placement = new(jsdl.Placement)
	}
	if vo := c.placement.VO; vo != nil && *vo != who.VO {
		return nil, fail.Errorf("resourcemodel.Compile", fail.Denied, "VO", "VO: the job is for the VO %s, for which its owner does not act here; name one that the owner is a member of", quoted(*vo))
	}
	c.allocation()
	if err := c.possible(err); err != nil {
		return nil, err
	}
	c.need()
	c.staticClauses()
	if err := c.readCriteria(criteria); err != nil {
		return nil, err
	}
	c.dynamicClauses()
	if err := c.class(); err != nil {
		return nil, err
	}
	return r, nil
}

// compiler fills a request in.
type compiler struct {
	request   *Request
	def       *jsdl.JobDefinition
	program   jsdl.Program
	resources *jsdl.Resources
	placement *jsdl.Placement
	asked     jsdl.Request
	gpus      map[string]int // asked for, of each host
	dynamic   []clause
}

// need sums up what the job takes.
func (c *compiler) need() {
	r, q := c.request, c.asked
	r.Need = Need{
		Slots: 1, CPUs: q.CPUs, Hosts: q.Hosts, CPUsPerHost: q.CPUsPerHost, Exclusive: q.Exclusive,
		Memory: max(q.Memory.Total, times(q.Memory.PerHost, int64(max(1, q.Hosts)))), WallTime: durationOf(q.WallTime),
	}
	limits := c.program.Limits
	if m := limits.Memory; r.Need.Memory == 0 && m != nil && m.IsInt64() {
		r.Need.Memory = times(m.Int64(), int64(max(1, q.Hosts)))
	}
	r.wallLimit = wallLimit(limits.WallTime)
	p := c.placement
	for _, g := range p.GPUs {
		if c.gpus == nil {
			c.gpus = map[string]int{}
		}
		c.gpus[g.Type] += g.Count
		r.Need.GPUs += g.Count * max(1, q.Hosts)
	}
	for _, l := range p.Licences {
		if r.Need.Consumables == nil {
			r.Need.Consumables = map[string]int64{}
		}
		r.Need.Consumables[l.Name] += int64(l.Count)
	}
	if p.Deadline != nil {
		r.Deadline = *p.Deadline
	}
	if p.NotBefore != nil {
		r.NotBefore = *p.NotBefore
	}
	if p.Priority != nil {
		r.Priority = *p.Priority
	}
	r.hosts = c.resources.CandidateHosts
	for i := range c.def.Description.DataStaging {
		s := &c.def.Description.DataStaging[i]
		for _, l := range []*jsdl.Location{s.Source, s.Target} {
			if l != nil && l.URI != nil && *l.URI != "" && !slices.Contains(r.data, *l.URI) {
				r.data = append(r.data, *l.URI)
			}
		}
	}
}

// longest is the time limit in seconds above which one is none: a thousand years.
const longest = 1000 * 365 * 86400

func wallLimit(n *big.Int) int64 {
	if n == nil || !n.IsInt64() || n.Int64() > longest {
		return 0
	}
	return max(1, n.Int64())
}

// rangeOf gives the range of a part; nil is not asked for.
func rangeOf(r *jsdl.Resources, p part) *jsdl.RangeValue {
	if at := rangeAt(r, p); at != nil {
		return *at
	}
	return nil
}

// rangeAt gives where a part's range stands; nil where it is no range.
func rangeAt(r *jsdl.Resources, p part) **jsdl.RangeValue {
	switch p {
	case partTotal:
		return &r.TotalCPUCount
	case partEach:
		return &r.IndividualCPUCount
	case partHosts:
		return &r.TotalResourceCount
	case partMemoryEach:
		return &r.IndividualPhysicalMemory
	case partMemoryTotal:
		return &r.TotalPhysicalMemory
	case partVirtualEach:
		return &r.IndividualVirtualMemory
	case partVirtualTotal:
		return &r.TotalVirtualMemory
	case partDiskEach:
		return &r.IndividualDiskSpace
	case partDiskTotal:
		return &r.TotalDiskSpace
	case partTimeEach:
		return &r.IndividualCPUTime
	case partTimeTotal:
		return &r.TotalCPUTime
	case partProcesses, partExclusive, partGPU, numParts:
	}
	return nil
}

func unitOf(p part) unit {
	switch p {
	case partMemoryEach, partMemoryTotal, partVirtualEach, partVirtualTotal, partDiskEach, partDiskTotal:
		return unitBytes
	case partTimeEach, partTimeTotal:
		return unitSeconds
	case partTotal, partEach, partHosts, partProcesses, partExclusive, partGPU, numParts:
	}
	return unitCount
}

// allocation compiles what shapes it.
func (c *compiler) allocation() {
	a := &c.request.ask
	for p := range partProcesses {
		if v := rangeOf(c.resources, p); v != nil {
			least := int64(0)
			if p == partTotal || p == partEach || p == partHosts {
				least = 1
			}
			a.given |= 1 << p
			a.want[p] = runsOf(v, least)
		}
	}
	if x := c.resources.ExclusiveExecution; x != nil && *x {
		a.given |= 1 << partExclusive
	}
	for _, g := range c.placement.GPUs {
		a.gpus += int64(g.Count)
		a.given |= 1 << partGPU
	}
	a.leastCPUs, a.leastHosts = c.least()
	if a.leastCPUs > 1 || a.leastHosts > 1 {
		a.given |= 1 << partProcesses
	}
}

// ofAmounts reports whether jsdl.Request failed over memory or disk. It settles the number
// of hosts before it looks at them, and another number may do.
func ofAmounts(err error) bool {
	e, ok := errors.AsType[*fail.Error](err)
	return ok && (strings.HasSuffix(e.Subject, "Memory") || strings.HasSuffix(e.Subject, "DiskSpace"))
}

// possible reports what no place could give, however large. Where jsdl.Request found no
// numbers (which is err), those of the first allocation take their place.
func (c *compiler) possible(err error) error {
	a := &c.request.ask
	space := boundless()
	found, ok := a.solve(&space)
	if !ok {
		if err != nil {
			return err
		}
		together := a.contradiction(&space)
		first := together.first().String()
		return fail.Errorf("resourcemodel.Compile", fail.Unsupported, first, "%s can't be had together at any place, however large it is; change one of them", c.names(together))
	}
	if err == nil {
		return nil
	}
	c.asked = jsdl.Request{CPUs: found.CPUs, Hosts: found.Hosts, CPUsPerHost: found.CPUsPerHost, Exclusive: a.given.has(partExclusive), Processes: 1, Threads: 1}
	c.asked.Memory.Total = found.Memory
	if spmd := c.program.SPMD; spmd != nil {
		c.asked.Processes, c.asked.Threads, c.asked.ProcessesPerHost = max(1, spmd.Processes), max(1, spmd.Threads), spmd.ProcessesPerHost
	}
	c.asked.WallTime = wallLimit(c.program.Limits.WallTime)
	return nil
}

// least gives the CPUs and hosts that the processes need at least.
func (c *compiler) least() (cpus, hosts int64) {
	c.request.spmd = processes{1, 1, 0}
	if spmd := c.program.SPMD; spmd != nil {
		p := processes{int64(spmd.Processes), int64(max(1, spmd.Threads)), int64(spmd.ProcessesPerHost)}
		if p.count == 0 && c.resources.TotalResourceCount == nil { // as many as there are CPUs
			p.count = int64(c.asked.Processes)
		}
		c.request.spmd = p
		if spmd.Processes == 0 {
			_, hosts = p.needs(nil, false)
			p.count = 1
			cpus, _ = p.needs(c.request.ask.want[partTotal], c.request.ask.given.has(partTotal))
			return cpus, hosts
		}
	}
	return c.request.spmd.needs(c.request.ask.want[partTotal], c.request.ask.given.has(partTotal))
}

// readCriteria compiles them; the hard ones over static attributes become static clauses.
func (c *compiler) readCriteria(criteria *jsdl.Criteria) error {
	r := c.request
	if criteria == nil {
		r.static = len(r.clauses)
		return nil
	}
	for _, one := range criteria.List {
		done, err := compileCriterion(one)
		if err != nil {
			return err
		}
		switch {
		case !one.Hard:
			r.Soft, r.soft = append(r.Soft, one), append(r.soft, done)
			continue
		case done.dynamic():
			c.dynamic = append(c.dynamic, done.clause(len(r.hard)))
		default:
			r.clauses = append(r.clauses, done.clause(len(r.hard)))
		}
		r.Hard, r.hard = append(r.Hard, one), append(r.hard, done)
	}
	r.static = len(r.clauses)
	return nil
}

// class digests everything that a place's answer depends on.
func (c *compiler) class() error {
	r := c.request
	d := c.resources
	spmd, application, version := c.program.SPMD, c.def.ByName(), ""
	if a := c.def.Description.Application; application != "" && a.Version != nil {
		version = *a.Version
	}
	var data []string
	if slices.ContainsFunc(slices.Concat(r.Hard, r.Soft), func(c jsdl.Criterion) bool { return c.Name == "DataDistance" }) {
		data = r.data
	}
	wishes := struct {
		Need                            Need
		Ranges                          [partProcesses]string
		Speed, Bandwidth                string
		LeastCPUs, LeastHosts, Wall     int64
		Hosts, FileSystems, Data        []string
		OS, OSVersion, Arch             string
		GPUs                            map[string]int
		Share, Constraint               string
		Application, ApplicationVersion string
		SPMD                            bool
		NotBefore, Deadline             int64
		Hard, Soft                      []jsdl.Criterion
	}{
		Need: r.Need, LeastCPUs: r.ask.leastCPUs, LeastHosts: r.ask.leastHosts, Wall: r.wallLimit, Hosts: r.hosts, Data: data,
		GPUs: c.gpus, Share: given(c.placement.Share), Constraint: given(c.placement.Constraint),
		Application: application, ApplicationVersion: version, SPMD: spmd != nil, Hard: r.Hard, Soft: r.Soft,
	}
	for p := range partProcesses {
		wishes.Ranges[p] = exactly(rangeOf(d, p))
	}
	wishes.Speed, wishes.Bandwidth = exactly(d.IndividualCPUSpeed), exactly(d.IndividualNetworkBandwidth)
	if d.OperatingSystem != nil {
		wishes.OS, wishes.OSVersion = d.OperatingSystem.Name, given(d.OperatingSystem.Version)
	}
	if d.CPUArchitecture != nil {
		wishes.Arch = d.CPUArchitecture.Name
	}
	for i := range d.FileSystems {
		f := &d.FileSystems[i]
		wishes.FileSystems = append(wishes.FileSystems, strings.Join([]string{f.Name, f.Type, given(f.MountPoint), exactly(f.DiskSpace)}, "\x00"))
	}
	if !r.NotBefore.IsZero() {
		wishes.NotBefore = r.NotBefore.UnixNano()
	}
	if !r.Deadline.IsZero() {
		wishes.Deadline = r.Deadline.UnixNano()
	}
	b, err := json.Marshal(wishes) // whose maps are sorted
	if err != nil {
		return fail.E("resourcemodel.Compile", fail.Internal, "", err)
	}
	r.wishes = sha256.Sum256(b)
	return nil
}

func given(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// exactly writes a range down without loss.
func exactly(r *jsdl.RangeValue) string {
	if r == nil {
		return ""
	}
	bound := func(b *jsdl.Bound) string {
		if b == nil {
			return "-"
		}
		if b.Exclusive {
			return "x" + plain(b.Value)
		}
		return plain(b.Value)
	}
	out := []string{bound(r.Lower), bound(r.Upper)}
	for _, x := range r.Exact {
		out = append(out, "="+plain(x.Value)+"±"+plain(x.Epsilon))
	}
	for i := range r.Ranges {
		out = append(out, bound(&r.Ranges[i].Lower)+".."+bound(&r.Ranges[i].Upper))
	}
	return strings.Join(out, " ")
}

// notYet reports whether the request must still wait for its NotBefore.
func (r *Request) notYet(now time.Time) bool {
	return !r.NotBefore.IsZero() && now.Before(r.NotBefore)
}

// criteriaOf gives the document's own criteria.
func criteriaOf(def *jsdl.JobDefinition) *jsdl.Criteria {
	if r := def.Description.Resources; r != nil {
		return r.Criteria
	}
	return nil
}
