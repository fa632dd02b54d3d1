package resourcemodel

import (
	"math"
	"slices"
	"strings"
	"time"
)

// Kind says how an attribute's value comes about, and with that whether a place that
// lacks it may have it later.
type Kind uint8

// The kinds.
const (
	StaticAttribute  Kind = iota // changes only when somebody changes the site
	DynamicAttribute             // changes all the time
	DerivedAttribute             // worked out for the job and the moment
)

var kindNames = []string{"static", "dynamic", "derived"}

func (k Kind) String() string { return kindNames[k] }

// Type of an attribute's value, in the words of a criterion's type.
type Type string

// The types.
const (
	Integer  Type = "integer"
	Decimal  Type = "decimal"
	String   Type = "string"
	Boolean  Type = "boolean"
	Duration Type = "duration" // compared in seconds
)

func (t Type) number() bool { return t == Integer || t == Decimal || t == Duration }

// Attribute is one that criteria may name.
type Attribute struct {
	Name string // "FreeCPUs"; "Benchmark:" where an argument follows
	Type Type
	Unit string // "" for a plain number or none
	Of   string // domain, site, share, environment, job
	Kind Kind
	List bool // it has any number of values, one of which is enough
	Doc  string

	number func(p *at, argument string) (float64, bool)
	text   func(p *at, argument string) ([]string, bool)
	truth  func(p *at) (bool, bool)
}

// Argument reports whether a name of one's own follows the colon.
func (a *Attribute) Argument() bool { return strings.HasSuffix(a.Name, ":") }

// Attributes gives the table of all attributes, in the order of docs/criteria.md. It is
// the caller's.
func Attributes() []Attribute { return slices.Clone(attributes) }

// attributeOf finds an attribute by the name in a criterion, and its argument.
func attributeOf(name string) (*Attribute, string) {
	for i := range attributes {
		a := &attributes[i]
		switch {
		case !a.Argument():
			if a.Name == name {
				return a, ""
			}
		case strings.HasPrefix(name, a.Name) && len(name) > len(a.Name):
			return a, name[len(a.Name):]
		}
	}
	return nil, ""
}

// at is one place while it is looked at, with what is known of its state.
type at struct {
	Where
	static  *Static // never nil
	state   ShareState
	nodes   EnvironmentState
	stated  bool // state is known
	counted bool // nodes is known
	request *Request
	derived *Derived
}

var nothing Static

func (p *at) set(w Where, r *Request, d *Derived) {
	p.Where, p.request, p.derived, p.static = w, r, d, w.Site.Static
	if p.static == nil {
		p.static = &nothing
	}
	if dyn := w.Site.Dynamic; dyn != nil {
		p.state, p.stated = dyn.Shares[w.Share.ID]
		p.nodes, p.counted = dyn.Environments[w.Environment.ID]
	}
}

// The makers of rows.

func text(name, of string, kind Kind, doc string, get func(p *at) string) Attribute {
	return Attribute{Name: name, Type: String, Of: of, Kind: kind, Doc: doc, text: func(p *at, _ string) ([]string, bool) {
		s := get(p)
		return []string{s}, s != ""
	}}
}

func texts(name, of string, doc string, get func(p *at, argument string) []string) Attribute {
	return Attribute{Name: name, Type: String, Of: of, List: true, Doc: doc, text: func(p *at, argument string) ([]string, bool) { return get(p, argument), true }}
}

// count is a number of which 0 is not known, and negative none.
func count(name, unit, of string, kind Kind, doc string, get func(p *at) float64) Attribute {
	return number(name, Integer, unit, of, kind, doc, func(p *at, _ string) (float64, bool) {
		n := get(p)
		return n, n > 0
	})
}

func number(name string, t Type, unit, of string, kind Kind, doc string, get func(p *at, argument string) (float64, bool)) Attribute {
	return Attribute{Name: name, Type: t, Unit: unit, Of: of, Kind: kind, Doc: doc, number: get}
}

// limit is a number of which 0 is no limit, which is more than any.
func limit(n float64) (float64, bool) {
	if n <= 0 {
		return math.Inf(1), true
	}
	return n, true
}

// shareCount is a number of the share's state, which may be 0.
func shareCount(name, doc string, get func(s *ShareState) float64) Attribute {
	return number(name, Integer, "", "share", DynamicAttribute, doc, func(p *at, _ string) (float64, bool) { return get(&p.state), p.stated })
}

func nodeCount(name, unit, doc string, get func(s *EnvironmentState) float64) Attribute {
	return number(name, Integer, unit, "environment", DynamicAttribute, doc, func(p *at, _ string) (float64, bool) { return get(&p.nodes), p.counted })
}

// attributes is the table. Every row is tested by TestAttributes.
var attributes = []Attribute{
	// Of the site.
	{Name: "Domain", Type: String, Of: "site", Doc: "what the site's gateway speaks for; empty for our own", text: func(p *at, _ string) ([]string, bool) {
		return []string{p.Site.Domain}, true
	}},
	text("Site", "site", StaticAttribute, "its name", func(p *at) string { return p.Site.Site }),
	text("Manager", "site", StaticAttribute, "the type of its manager: slurm, condor, shell, boinc or a plug-in's own", func(p *at) string { return p.static.Type }),
	texts("Label", "site", "words that its administrator put on it", func(p *at, _ string) []string { return p.static.Labels }),
	texts("Application", "site", "names of what is installed for the environment", func(p *at, _ string) []string {
		return p.applications(func(a *Application) string { return a.Name })
	}),
	texts("ApplicationVersion:", "site", "versions of the application of this name", func(p *at, name string) []string {
		return p.applications(func(a *Application) string {
			if a.Name != name {
				return ""
			}
			return a.Version
		})
	}),
	number("Consumable:", Integer, "", "site", StaticAttribute, "how many there are of the licence or other counter of this name: of the share, or else of the whole site, or else of a node",
		func(p *at, name string) (float64, bool) { n, ok := p.consumable(name); return float64(n), ok }),
	number("FreeConsumable:", Integer, "", "site", DynamicAttribute, "how many of them are free", func(p *at, name string) (float64, bool) {
		n, ok := p.freeConsumable(name)
		return float64(n), ok
	}),
	{Name: "Up", Type: Boolean, Of: "site", Kind: DynamicAttribute, Doc: "whether it takes jobs at present", truth: func(p *at) (bool, bool) {
		d := p.Site.Dynamic
		return d != nil && d.Up, d != nil
	}},
	// Of the share.
	{Name: "Share", Type: String, Of: "share", Doc: "its name: of a queue or partition", text: func(p *at, _ string) ([]string, bool) {
		return p.Share.Most().IDs, p.Share.ID != ""
	}},
	{Name: "DefaultShare", Type: Boolean, Of: "share", Doc: "whether it is the site's default", truth: func(p *at) (bool, bool) { return p.Share.Default, true }},
	number("MaxWallTime", Duration, "seconds", "share", StaticAttribute, "how long it lets a job run; more than any number without a limit",
		func(p *at, _ string) (float64, bool) { return limit(p.Share.MaxWallTime.Seconds()) }),
	number("MaxCPUs", Integer, "", "share", StaticAttribute, "CPUs that it gives one job; likewise",
		func(p *at, _ string) (float64, bool) { return limit(float64(p.Share.MaxCPUs)) }),
	number("MaxNodes", Integer, "", "share", StaticAttribute, "nodes that it gives one job; likewise",
		func(p *at, _ string) (float64, bool) { return limit(float64(p.Share.MaxNodes)) }),
	number("MaxMemory", Integer, "bytes", "share", StaticAttribute, "memory that it gives one job on a node; likewise",
		func(p *at, _ string) (float64, bool) { return limit(float64(p.Share.MaxMemory)) }),
	number("Slots", Integer, "", "share", StaticAttribute, "jobs that it runs at once; likewise",
		func(p *at, _ string) (float64, bool) { return limit(float64(p.Share.Slots)) }),
	number("Price", Decimal, "of a CPU-hour", "share", StaticAttribute, "0 where it costs nothing",
		func(p *at, _ string) (float64, bool) { return p.Share.Price, true }),
	{Name: "Open", Type: Boolean, Of: "share", Kind: DynamicAttribute, Doc: "whether it takes jobs at present", truth: func(p *at) (bool, bool) { return p.state.Open, p.stated }},
	shareCount("Running", "jobs that run", func(s *ShareState) float64 { return float64(s.Running) }),
	shareCount("Waiting", "jobs that wait", func(s *ShareState) float64 { return float64(s.Waiting) }),
	shareCount("FreeSlots", "jobs that could start at once", func(s *ShareState) float64 { return float64(s.FreeSlots) }),
	number("Load", Decimal, "", "share", DynamicAttribute, "jobs that run and wait, for each slot", func(p *at, _ string) (float64, bool) {
		return float64(p.state.Running+p.state.Waiting) / float64(max(p.Share.Slots, 1)), p.stated && p.Share.Slots > 0
	}),
	number("Forecast", Duration, "seconds", "share", DynamicAttribute, "how long a new job waits, as the manager itself says",
		func(p *at, _ string) (float64, bool) {
			return p.state.Forecast.Seconds(), p.stated && p.state.Forecast > 0
		}),
	// Of the environment.
	text("Environment", "environment", StaticAttribute, "its name: of a set of like nodes", func(p *at) string { return p.Environment.ID }),
	text("OperatingSystem", "environment", StaticAttribute, "of JSDL's list: LINUX", func(p *at) string { return p.Environment.OperatingSystem }),
	text("OperatingSystemVersion", "environment", StaticAttribute, "", func(p *at) string { return p.Environment.OSVersion }),
	text("CPUArchitecture", "environment", StaticAttribute, "of JSDL's list: x86_64", func(p *at) string { return p.Environment.CPUArchitecture }),
	count("CPUs", "", "environment", StaticAttribute, "of a node", func(p *at) float64 { return float64(p.Environment.CPUs) }),
	number("CPUSpeed", Decimal, "hertz", "environment", StaticAttribute, "", func(p *at, _ string) (float64, bool) {
		return p.Environment.CPUSpeed, p.Environment.CPUSpeed > 0
	}),
	count("Memory", "bytes", "environment", StaticAttribute, "of a node", func(p *at) float64 { return float64(p.Environment.Memory) }),
	count("VirtualMemory", "bytes", "environment", StaticAttribute, "of a node", func(p *at) float64 { return float64(p.Environment.VirtualMemory) }),
	count("Disk", "bytes", "environment", StaticAttribute, "for jobs, of a node", func(p *at) float64 { return float64(p.Environment.Disk) }),
	number("Bandwidth", Decimal, "bit/s", "environment", StaticAttribute, "of a node's network", func(p *at, _ string) (float64, bool) {
		return p.Environment.Bandwidth, p.Environment.Bandwidth > 0
	}),
	number("GPUs", Integer, "", "environment", StaticAttribute, "of a node, of all types", func(p *at, _ string) (float64, bool) {
		return float64(gpusOf(p.Environment, "")), true
	}),
	number("GPU:", Integer, "", "environment", StaticAttribute, "of a node, of this type", func(p *at, kind string) (float64, bool) {
		return float64(gpusOf(p.Environment, kind)), true
	}),
	texts("Feature", "environment", "words for what the nodes have", func(p *at, _ string) []string { return p.Environment.Features }),
	texts("HostName", "environment", "names of nodes, as far as they are known", func(p *at, _ string) []string { return p.Environment.HostNames }),
	texts("FileSystem", "environment", "names of file systems that the nodes mount", func(p *at, _ string) []string {
		var out []string
		for i := range p.Environment.FileSystems {
			out = append(out, p.Environment.FileSystems[i].Name)
		}
		return out
	}),
	number("Benchmark:", Decimal, "", "environment", StaticAttribute, "the nodes' mark in the benchmark of this name", func(p *at, name string) (float64, bool) {
		x, ok := p.Environment.Benchmarks[name]
		return x, ok
	}),
	nodeCount("Nodes", "", "in all", func(s *EnvironmentState) float64 { return float64(s.Nodes) }),
	nodeCount("AvailableNodes", "", "those that can take jobs", func(s *EnvironmentState) float64 { return float64(s.Available) }),
	number("FreeNodes", Integer, "", "environment", DynamicAttribute, "those that run nothing", func(p *at, _ string) (float64, bool) {
		n, ok := p.wholeNodes()
		return float64(n), ok
	}),
	nodeCount("FreeCPUs", "", "of all nodes together", func(s *EnvironmentState) float64 { return float64(s.FreeCPUs) }),
	number("FreeMemory", Integer, "bytes", "environment", DynamicAttribute, "of all nodes together", func(p *at, _ string) (float64, bool) {
		return float64(p.nodes.FreeMemory), p.counted && p.nodes.FreeMemory > 0
	}),
	number("FreeGPUs", Integer, "", "environment", DynamicAttribute, "of all nodes together", func(p *at, _ string) (float64, bool) {
		return float64(p.nodes.FreeGPUs), p.counted && p.nodes.FreeGPUs > 0
	}),
	// Of the job at the place.
	number("EstimatedWait", Duration, "seconds", "job", DerivedAttribute, "how long the job would wait here", func(p *at, _ string) (float64, bool) {
		w, ok := p.wait()
		return w.Seconds(), ok
	}),
	number("EstimatedStart", Duration, "seconds from now", "job", DerivedAttribute, "the same, but not before its NotBefore", func(p *at, _ string) (float64, bool) {
		w, ok := p.wait()
		return max(w, p.request.NotBefore.Sub(p.derived.Now)).Seconds(), ok
	}),
	number("JobPrice", Decimal, "", "job", DerivedAttribute, "the share's price for all of the job's CPUs over its time limit; without one the limit of the share", func(p *at, _ string) (float64, bool) {
		wall := p.request.Need.WallTime
		if wall == 0 || p.Share.MaxWallTime > 0 && p.Share.MaxWallTime < wall {
			wall = p.Share.MaxWallTime
		}
		return p.Share.Price * float64(p.request.Need.CPUs) * wall.Hours(), p.Share.Price == 0 || wall > 0
	}),
	number("SuccessRate", Decimal, "0 to 1", "job", DerivedAttribute, "the part of the recent jobs that the place ran to their end", func(p *at, _ string) (float64, bool) {
		if p.derived.SuccessRate == nil {
			return 0, false
		}
		return p.derived.SuccessRate(p.Place())
	}),
	number("DataDistance", Decimal, "as the sites say", "job", DerivedAttribute, "how far the job's data is, on the average of its files; 0 is on the spot", func(p *at, _ string) (float64, bool) {
		if p.derived.Distance == nil {
			return DataDistance(p.Site, p.request)
		}
		return p.derived.Distance(p.Place(), p.request)
	}),
	number("Performance", Decimal, "1 is usual", "job", DerivedAttribute, "how fast the place was found to be", func(p *at, _ string) (float64, bool) {
		if p.derived.Performance == nil {
			return 0, false
		}
		return p.derived.Performance(p.Place())
	}),
}

func (p *at) wait() (time.Duration, bool) {
	if p.derived.Wait == nil {
		return 0, false
	}
	return p.derived.Wait(p.Place(), &p.request.Need)
}

// applications gives a word of each application that the environment has.
func (p *at) applications(of func(*Application) string) []string {
	var out []string
	for i := range p.static.Applications {
		a := &p.static.Applications[i]
		if s := of(a); s != "" && a.on(p.Environment.ID) {
			out = append(out, s)
		}
	}
	return out
}

func (a *Application) on(environment string) bool {
	return len(a.Environments) == 0 || slices.Contains(a.Environments, environment)
}

// consumable gives how many there are of a counter.
func (p *at) consumable(name string) (int64, bool) {
	for _, list := range [][]Consumable{p.Share.Consumables, p.static.Consumables, p.Environment.Consumables} {
		for _, c := range list {
			if c.Name == name {
				return c.Total, true
			}
		}
	}
	return 0, false
}

// countsConsumables reports whether the site says which counters it has at all.
func (p *at) countsConsumables() bool {
	return len(p.Share.Consumables)+len(p.static.Consumables)+len(p.Environment.Consumables) > 0
}

func (p *at) freeConsumable(name string) (int64, bool) {
	n, ok := p.state.Consumables[name]
	if d := p.Site.Dynamic; d != nil {
		if all, known := d.Consumables[name]; known && (!ok || all < n) {
			return all, true
		}
	}
	return n, ok
}

// wholeNodes gives how many nodes run nothing: no more than the free CPUs allow.
func (p *at) wholeNodes() (int64, bool) {
	switch {
	case !p.counted:
		return 0, false
	case p.nodes.FreeNodes > 0:
		return int64(p.nodes.FreeNodes), true
	case p.Environment.CPUs > 0:
		return int64(p.nodes.FreeCPUs / p.Environment.CPUs), true
	}
	return 0, false
}

// gpusOf counts a node's devices of a type; "" is any.
func gpusOf(e *Environment, kind string) int {
	n := 0
	for t, count := range e.GPUs {
		if kind == "" || strings.EqualFold(t, kind) {
			n += count
		}
	}
	return n
}

// DataDistance gives how far the job's data is from a site, by what the site says of
// itself: the average over the job's files, each at the distance of the longest prefix
// that it has. It is false when the job has no files or the site knows none of them;
// a file that it does not know counts as far as the farthest that it names.
func DataDistance(s *Site, r *Request) (float64, bool) {
	if s.Static == nil || len(s.Static.Data) == 0 || len(r.data) == 0 {
		return 0, false
	}
	far := 0.0
	for _, d := range s.Static.Data {
		far = max(far, d.Distance)
	}
	sum, known := 0.0, false
	for _, uri := range r.data {
		best, length := far, -1
		for _, d := range s.Static.Data {
			if len(d.Prefix) > length && strings.HasPrefix(uri, d.Prefix) {
				best, length = d.Distance, len(d.Prefix)
			}
		}
		sum += best
		known = known || length >= 0
	}
	return sum / float64(len(r.data)), known
}
