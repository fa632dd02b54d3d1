package resourcemodel

import (
	"strconv"
	"time"
)

// Key names a site: its domain is what one gateway speaks for. "" is our own.
type Key struct{ Domain, Site string }

func (k Key) String() string {
	if k.Domain == "" {
		return k.Site
	}
	return k.Domain + "/" + k.Site
}

// Place names where a job can be put: a share of a site, on one of the environments
// that the share uses.
type Place struct {
	Key
	Share       string
	Environment string
}

func (p Place) String() string { return p.Key.String() + "/" + p.Share + "/" + p.Environment }

// Detail says how much of the truth a record holds; coarser ones are higher.
type Detail uint8

// The details, as exporters choose them for each peer.
const (
	Full        Detail = iota // every share and environment
	Categorized               // like environments merged into classes: see Aggregate
	Simple                    // one share over one environment a site
	None
)

// String gives the detail in words.
func (d Detail) String() string {
	switch d {
	case Full:
		return "full"
	case Categorized:
		return "categorized"
	case Simple:
		return "simple"
	case None:
		return "none"
	}
	return "detail " + strconv.Itoa(int(d))
}

// Stamp tells where a record comes from. Changed is when its value last changed,
// not when it was last confirmed: confirming costs no revision, so that the age of a
// value is that of its source's last sign of life.
type Stamp struct {
	Version uint64    `json:"version"` // grows with each change of this part of the site
	Changed time.Time `json:"changed"`
	Source  string    `json:"source"` // who says so: "slurm by slurmrestd v0.0.40"
	Detail  Detail    `json:"detail,omitempty"`
}

// Site is one administrative place with one manager (GLUE2 ComputingService).
// The two parts are versioned apart and never changed in place; Dynamic may be nil
// until first known.
type Site struct {
	Key
	Static  *Static
	Dynamic *Dynamic
}

// Static is what seldom changes.
type Static struct {
	Stamp
	Type         string        `json:"type"` // of manager: "slurm"
	Labels       []string      `json:"labels,omitempty"`
	Shares       []Share       `json:"shares"`
	Environments []Environment `json:"environments"`
	Applications []Application `json:"applications,omitempty"`
	Policy       Policy        `json:"policy,omitzero"`
	Consumables  []Consumable  `json:"consumables,omitempty"` // of the whole site: licences
	// Data says what lies near: prefixes of URIs and paths, each with its distance.
	Data []Data `json:"data,omitempty"`
}

// Share is a queue or partition (GLUE2 ComputingShare). Zero is no limit.
type Share struct {
	ID           string        `json:"id"`
	Default      bool          `json:"default,omitempty"`
	Environments []string      `json:"environments"` // IDs
	MaxWallTime  time.Duration `json:"maxWallTime,omitempty"`
	MaxCPUs      int           `json:"maxCPUs,omitempty"`  // of one job
	MaxNodes     int           `json:"maxNodes,omitempty"` // of one job
	MaxMemory    int64         `json:"maxMemory,omitempty"`
	Slots        int           `json:"slots,omitempty"` // jobs at once
	Policy       Policy        `json:"policy,omitzero"` // narrows the site's
	Price        float64       `json:"price,omitempty"` // of a CPU-hour, in the VO's unit
	Consumables  []Consumable  `json:"consumables,omitempty"`
	// Span is there where several shares were merged into this one: see Aggregate.
	Span *ShareSpan `json:"span,omitempty"`
}

// ShareSpan tells how widely the shares differ that an aggregate has as one. The
// Share has the narrowest limit of each kind, which all of them allow; the span has
// the widest, which one of them allows at least, zero being no limit.
type ShareSpan struct {
	IDs         []string      `json:"ids"` // of the merged shares
	MaxWallTime time.Duration `json:"maxWallTime,omitempty"`
	MaxCPUs     int           `json:"maxCPUs,omitempty"`
	MaxNodes    int           `json:"maxNodes,omitempty"`
	MaxMemory   int64         `json:"maxMemory,omitempty"`
	Price       float64       `json:"price,omitempty"` // the highest; the Share has the lowest
}

// Environment is a set of like nodes (GLUE2 ExecutionEnvironment). Numbers are
// per node; zero is unknown.
type Environment struct {
	ID              string             `json:"id"`
	OperatingSystem string             `json:"os,omitempty"` // of JSDL's enumeration
	OSVersion       string             `json:"osVersion,omitempty"`
	CPUArchitecture string             `json:"arch,omitempty"` // of JSDL's enumeration
	CPUs            int                `json:"cpus,omitempty"`
	CPUSpeed        float64            `json:"cpuSpeed,omitempty"`      // hertz
	Memory          int64              `json:"memory,omitempty"`        // bytes
	VirtualMemory   int64              `json:"virtualMemory,omitempty"` // bytes
	Disk            int64              `json:"disk,omitempty"`          // bytes for jobs
	Bandwidth       float64            `json:"bandwidth,omitempty"`     // bit/s
	GPUs            map[string]int     `json:"gpus,omitempty"`          // by type; "" is any
	Features        []string           `json:"features,omitempty"`
	HostNames       []string           `json:"hostNames,omitempty"` // not all of them, if they are many
	FileSystems     []FileSystem       `json:"fileSystems,omitempty"`
	Benchmarks      map[string]float64 `json:"benchmarks,omitempty"`
	Consumables     []Consumable       `json:"consumables,omitempty"` // per node
	// Classes is how many sets of nodes were merged into this one; 0 is none.
	Classes int `json:"classes,omitempty"`
	// Span is there where the merged sets differ: see Aggregate.
	Span *Span `json:"span,omitempty"`
}

// Span tells how widely the sets of nodes differ that an aggregate has as one. The
// Environment has the least of each number and what all of them have: a wish for
// "at least" that it meets, each of the sets meets. The span has the most of each
// number and what any of them has, so that nothing which the span can't meet is met
// by any of them. It is complete: what does not differ is told here too. A number
// that is zero in the Environment and not here is unknown of some of the sets.
type Span struct {
	OperatingSystems []string           `json:"os,omitempty"` // "" among them: of some it is not known
	OSVersions       []string           `json:"osVersions,omitempty"`
	CPUArchitectures []string           `json:"archs,omitempty"`
	CPUs             int                `json:"cpus,omitempty"`
	CPUSpeed         float64            `json:"cpuSpeed,omitempty"`
	Memory           int64              `json:"memory,omitempty"`
	VirtualMemory    int64              `json:"virtualMemory,omitempty"`
	Disk             int64              `json:"disk,omitempty"`
	Bandwidth        float64            `json:"bandwidth,omitempty"`
	GPUs             map[string]int     `json:"gpus,omitempty"`
	Features         []string           `json:"features,omitempty"`
	FileSystems      []FileSystem       `json:"fileSystems,omitempty"`
	Benchmarks       map[string]float64 `json:"benchmarks,omitempty"`
	Consumables      []Consumable       `json:"consumables,omitempty"`
}

// FileSystem is one that the nodes mount.
type FileSystem struct {
	Name       string `json:"name"`
	Type       string `json:"type,omitempty"` // of JSDL's enumeration
	MountPoint string `json:"mountPoint,omitempty"`
	Size       int64  `json:"size,omitempty"` // bytes
}

// Application is installed software (GLUE2 ApplicationEnvironment).
type Application struct {
	Name         string   `json:"name"`
	Version      string   `json:"version,omitempty"`
	Environments []string `json:"environments,omitempty"` // IDs; none is all
}

// Policy says who may use something: a subject must match one of Allow, where there
// is any, and none of Deny. Rules are "vo:NAME", "user:NAME" and "*".
type Policy struct {
	Allow []string `json:"allow,omitempty"`
	Deny  []string `json:"deny,omitempty"`
}

// IsZero reports whether everybody may.
func (p Policy) IsZero() bool { return len(p.Allow) == 0 && len(p.Deny) == 0 }

// Consumable is a named counter that jobs take from while they run: licences, GPUs of
// a type, anything.
type Consumable struct {
	Name  string `json:"name"`
	Total int64  `json:"total"`
}

// Data says that what is named with the prefix lies at a distance, 0 on the spot;
// the unit is the administrator's, the same over all sites.
type Data struct {
	Prefix   string  `json:"prefix"`
	Distance float64 `json:"distance,omitempty"`
}

// Dynamic is what changes all the time.
type Dynamic struct {
	Stamp
	Up           bool                        `json:"up"`
	Problem      string                      `json:"problem,omitempty"` // a sentence, while not Up
	Shares       map[string]ShareState       `json:"shares,omitempty"`
	Environments map[string]EnvironmentState `json:"environments,omitempty"`
	Consumables  map[string]int64            `json:"consumables,omitempty"` // free, of the whole site
}

// ShareState is how a share stands.
type ShareState struct {
	Open        bool             `json:"open"`
	Running     int              `json:"running,omitempty"`
	Waiting     int              `json:"waiting,omitempty"`
	FreeSlots   int              `json:"freeSlots,omitempty"`
	Forecast    time.Duration    `json:"forecast,omitempty"` // wait of a new job by the manager itself; 0 is not told
	Consumables map[string]int64 `json:"consumables,omitempty"`
}

// EnvironmentState is how an environment stands, all nodes together.
// The numbers of an aggregate are the sums of its sets.
type EnvironmentState struct {
	Nodes      int   `json:"nodes"`
	Available  int   `json:"available"` // of Nodes, fit to take jobs
	FreeNodes  int   `json:"freeNodes,omitempty"`
	FreeCPUs   int   `json:"freeCPUs,omitempty"`
	FreeMemory int64 `json:"freeMemory,omitempty"`
	FreeGPUs   int   `json:"freeGPUs,omitempty"`
	// Best is there where several sets were merged into this one: how that one stands
	// which has the most free CPUs, then memory, GPUs, nodes. What it has free, one set has.
	Best *EnvironmentState `json:"best,omitempty"`
}

// Snapshot is the model at a revision. It never changes; sites that are alike in two
// snapshots are shared between them.
type Snapshot struct {
	revision int64
	at       time.Time
	sites    sites
	count    int // of those that have a Static part
}

// Delta is what changed between two revisions.
type Delta struct {
	Revision int64     `json:"revision"`
	At       time.Time `json:"at"`
	Changes  []Change  `json:"changes"`
}

// Change replaces parts of one site; a part that is nil stays as it is, unless the
// change says Gone: then the site is gone, and where the change has parts too, they
// are all that there is in its place.
type Change struct {
	Key     Key      `json:"key"`
	Static  *Static  `json:"static,omitempty"`
	Dynamic *Dynamic `json:"dynamic,omitempty"`
	Gone    bool     `json:"gone,omitempty"`
}
