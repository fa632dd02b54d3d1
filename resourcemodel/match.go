package resourcemodel

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/jsdl"
)

// How a request is held against a place (docs/matching.md has the same as a table).
//
// A place fits when an allocation exists: a number of hosts, CPUs on them, and memory
// and disk, so that every Individual… range holds for each host, every Total… range for
// the sum, TotalResourceCount for the number of hosts, all within what the environment
// has and the share gives one job (JSDL 1.0 §5.2; standards' S1 to S3). Counts, memory
// and disk are what the job is given, so that a larger node serves a smaller request;
// speed and bandwidth are what the node is. It starts now when one exists within what
// is free.
//
// What is not known of a place does not rule it out: its adapter, or the peer, is asked
// before the job is placed, and knows. A HARD criterion is another matter: it is about
// the model, and is not met by what the model does not know.

// clause is one wish in compiled form.
type clause struct {
	element string
	dynamic bool
	met     func(*at) bool
	// tell puts it into words where it is not met; tellAll where it may be several.
	tell    func(*at) Clause
	tellAll func(*at) []Clause
	// mend makes the smallest change after which it would be met, now or some day; nil where
	// no change of the request helps.
	mend func(p *at, now bool) (Edit, bool)
}

// Judge says all that stands against a place, in words. Fits and Starts are faster
// where the words are not wanted. The share must be one of the site's, and the
// environment one of the share's.
func (r *Request) Judge(site *Site, share *Share, env *Environment, d Derived) Verdict {
	var p at
	p.set(Where{site, share, env}, r, &d)
	v := Verdict{Place: p.Place(), Could: true}
	never := false // no allocation exists, so that none is free either
	for i := range r.clauses {
		c := &r.clauses[i]
		if c.met(&p) || never && c.element == elementAllocation {
			continue
		}
		var said []Clause
		if c.tellAll != nil {
			said = c.tellAll(&p)
		} else {
			said = []Clause{c.tell(&p)}
		}
		for _, s := range said {
			if s.Element == "" {
				s.Element = c.element
			}
			s.Dynamic = c.dynamic
			v.Clauses = append(v.Clauses, s)
		}
		if !c.dynamic {
			v.Could = false
			never = never || c.element == elementAllocation
		}
	}
	v.Now = len(v.Clauses) == 0
	return v
}

// Fits is Judge's Could alone.
func (r *Request) Fits(w Where, d Derived) bool {
	var p at
	p.set(w, r, &d)
	return met(r.clauses[:r.static], &p)
}

// Starts is Judge's Now alone.
func (r *Request) Starts(w Where, d Derived) bool {
	var p at
	p.set(w, r, &d)
	return met(r.clauses, &p)
}

// StartsIfFits is Starts for a place that is known to fit: the static clauses are not
// looked at again.
func (r *Request) StartsIfFits(w Where, d Derived) bool {
	var p at
	p.set(w, r, &d)
	return met(r.clauses[r.static:], &p)
}

func met(clauses []clause, p *at) bool {
	for i := range clauses {
		if !clauses[i].met(p) {
			return false
		}
	}
	return true
}

// Allocate gives what the job would be given at a place that is all free; false where
// it does not fit.
func (r *Request) Allocate(w Where, d Derived) (Allocation, bool) {
	var p at
	p.set(w, r, &d)
	if !met(r.clauses[:r.static], &p) {
		return Allocation{}, false
	}
	space := p.room()
	return r.ask.solve(&space)
}

// Room gives how many jobs with this request's need could start at once at a place where
// one could: no more than the share's free slots, and the CPUs, memory, hosts, GPUs and
// consumables that are free.
func (r *Request) Room(w Where, d Derived) int {
	var p at
	p.set(w, r, &d)
	if !met(r.clauses, &p) {
		return 0
	}
	return p.jobs()
}

// jobs is Room of a place that could start one.
func (p *at) jobs() int {
	r, free := p.request, p.free()
	one, ok := r.ask.solve(&free)
	if !ok {
		return 0
	}
	n := int64(math.MaxInt32)
	fits := func(have, each int64) {
		if each > 0 && have < unlimited {
			n = min(n, have/each)
		}
	}
	if p.Share.Slots > 0 {
		fits(int64(p.state.FreeSlots), int64(r.Need.Slots))
	}
	if p.counted {
		fits(int64(p.nodes.FreeCPUs), int64(one.CPUs))
	}
	fits(free.sum[0], one.Memory)
	fits(free.gpus, r.ask.gpus*int64(one.Hosts))
	if r.Need.Exclusive {
		fits(free.whole, int64(one.Hosts))
	}
	for name, count := range r.Need.Consumables {
		if have, ok := p.freeConsumable(name); ok {
			fits(have, count)
		}
	}
	return int(max(n, 1))
}

// room gives what the place has for one job.
func (p *at) room() room {
	share, env := p.Share, p.Environment
	orMost := func(n int64, most int64) int64 {
		if n <= 0 {
			return most
		}
		return n
	}
	r := room{
		hosts: p.hosts(), each: orMost(int64(env.CPUs), maxCount),
		amount: [3]int64{orMost(env.Memory, unlimited), orMost(env.VirtualMemory, unlimited), orMost(env.Disk, unlimited)},
		sum:    [3]int64{unlimited, unlimited, unlimited},
		wall:   orMost(int64(share.MaxWallTime/time.Second), unlimited), whole: unlimited, gpus: unlimited,
	}
	r.hosts = min(r.hosts, orMost(int64(share.MaxNodes), maxCount))
	r.amount[0] = min(r.amount[0], orMost(share.MaxMemory, unlimited))
	r.total = min(times(r.hosts, r.each), orMost(int64(share.MaxCPUs), maxCount))
	return r
}

// free gives what it has for one job now.
func (p *at) free() room {
	r := p.room()
	if !p.counted {
		return r
	}
	n := &p.nodes
	r.hosts = min(r.hosts, int64(n.Available))
	r.total = min(r.total, int64(n.FreeCPUs))
	if n.Best != nil {
		// Sums over unlike sets of nodes, of which some may not tell: no more can be said.
		return r
	}
	if n.FreeMemory > 0 {
		r.sum[0] = n.FreeMemory
	}
	if whole, ok := p.wholeNodes(); ok {
		r.whole = whole
	}
	if n.FreeGPUs > 0 {
		r.gpus = int64(n.FreeGPUs)
	}
	return r
}

// hosts gives how many nodes the job may be on: all of the environment's, or those that
// CandidateHosts name.
func (p *at) hosts() int64 {
	n := int64(maxCount)
	if p.counted && p.nodes.Nodes > 0 {
		n = int64(p.nodes.Nodes)
	}
	if len(p.request.hosts) > 0 && p.listsHosts() && !p.namesSite(p.request.hosts) {
		n = min(n, int64(p.named(p.request.hosts)))
	}
	return n
}

// listsHosts reports whether all of the environment's nodes are known by name.
func (p *at) listsHosts() bool {
	n := len(p.Environment.HostNames)
	return n > 0 && (!p.counted || n >= p.nodes.Nodes)
}

// namesSite reports whether a name of CandidateHosts stands for the whole site, or for all of
// a domain on the way to it.
func (p *at) namesSite(hosts []string) bool {
	return slices.ContainsFunc(hosts, func(h string) bool {
		return h != "" && (p.Site.Named(h) ||
			slices.ContainsFunc(p.static.Labels, func(l string) bool { return strings.EqualFold(l, h) }))
	})
}

// named counts the nodes that are named.
func (p *at) named(hosts []string) int {
	n := 0
	for _, have := range p.Environment.HostNames {
		if slices.ContainsFunc(hosts, func(h string) bool { return strings.EqualFold(h, have) }) {
			n++
		}
	}
	return n
}

// candidate reports whether the place is one of those named, or may be.
func (p *at) candidate(hosts []string) bool {
	return p.namesSite(hosts) || p.named(hosts) > 0 || !p.listsHosts()
}

// runsSystem: Unknown and Not_Applicable match anything (standards' S9).
func runsSystem(want, have string) bool {
	return want == "" || want == "Unknown" || want == "Not_Applicable" || have == "" || want == have
}

// isArchitecture: x86 is either width, as it is to the adapters.
func isArchitecture(want, have string) bool {
	return have == "" || want == have || want == "x86" && (have == "x86_64" || have == "x86_32")
}

// hasGPUs reports whether a node has devices of each type, and enough of any.
func hasGPUs(e *Environment, asked map[string]int) bool {
	all := 0
	for kind, n := range asked {
		if all += n; kind != "" && gpusOf(e, kind) < n {
			return false
		}
	}
	return gpusOf(e, "") >= all
}

// features reads a Constraint that is only names of features joined by & or |; false is
// any other expression, which only the manager can judge.
func features(constraint string) (names []string, all, ok bool) {
	sep, all := "&", true
	if strings.Contains(constraint, "|") {
		sep, all = "|", false
	}
	for name := range strings.SplitSeq(constraint, sep) {
		name = strings.TrimSpace(name)
		if name == "" || strings.ContainsFunc(name, func(r rune) bool {
			return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_.-", r))
		}) {
			return nil, false, false
		}
		names = append(names, name)
	}
	return names, all, true
}

// classAds are types of managers whose constraints are expressions over attributes,
// where a bare name is no feature.
const classAds = "condor"

// meetsConstraint reports whether the nodes have the features, or may.
func (p *at) meetsConstraint(names []string, all bool) bool {
	if len(p.Environment.Features) == 0 || p.static.Type == classAds {
		return true
	}
	has := func(name string) bool { return slices.Contains(p.Environment.Features, name) }
	if all {
		return !slices.ContainsFunc(names, func(n string) bool { return !has(n) })
	}
	return slices.ContainsFunc(names, has)
}

// fileSystem looks for one that the document declares. Jobs are given file systems of
// their own where the nodes mount none of that name, so that only what is known to be
// otherwise stands against the place.
func (p *at) fileSystem(f *jsdl.FileSystem) (has string, ok bool) {
	fits := func(size int64) bool {
		if f.DiskSpace == nil || size <= 0 {
			return true
		}
		n, ok := f.DiskSpace.LowestInteger(0)
		return ok && n <= size
	}
	for i := range p.Environment.FileSystems {
		have := &p.Environment.FileSystems[i]
		if have.Name != f.Name {
			continue
		}
		switch {
		case f.Type != "" && have.Type != "" && f.Type != have.Type:
			return "of the type " + have.Type, false
		case f.MountPoint != nil && have.MountPoint != "" && strings.TrimRight(*f.MountPoint, "/") != strings.TrimRight(have.MountPoint, "/"):
			return "mounted at " + quoted(have.MountPoint), false
		case !fits(have.Size):
			return unitBytes.say(float64(have.Size)) + " in size", false
		}
		return "", true
	}
	size := p.Environment.Disk
	if f.Type == "swap" {
		size = 0
		if p.Environment.Memory > 0 && p.Environment.VirtualMemory > p.Environment.Memory {
			size = p.Environment.VirtualMemory - p.Environment.Memory
		}
	} else if f.MountPoint != nil {
		size = 0 // somewhere else than where jobs have theirs
	}
	if !fits(size) {
		return unitBytes.say(float64(size)) + " in size", false
	}
	return "", true
}
