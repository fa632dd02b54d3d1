package routing

import (
	"fmt"
	"testing"
	"time"

	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/resourcemodel"
)

var noon = time.Date(2031, 3, 1, 12, 0, 0, 0, time.UTC)

// size is one site of a domain, as simple as a test wants it.
type size struct {
	domain, site           string
	nodes, cpus            int
	memory                 int64 // GiB
	running, waiting, free int
	allow                  []string
	detail                 resourcemodel.Detail
	more                   []resourcemodel.Environment
}

func (z size) change(t testing.TB) resourcemodel.Change {
	t.Helper()
	stamp := resourcemodel.Stamp{Version: 1, Changed: noon, Source: "test"}
	envs := append([]resourcemodel.Environment{{ID: "e0", OperatingSystem: "LINUX", CPUArchitecture: "x86_64", CPUs: z.cpus, Memory: z.memory << 30}}, z.more...)
	states := map[string]resourcemodel.EnvironmentState{}
	var ids []string
	for _, e := range envs {
		ids = append(ids, e.ID)
		states[e.ID] = resourcemodel.EnvironmentState{Nodes: z.nodes, Available: z.nodes, FreeNodes: z.free, FreeCPUs: z.free * z.cpus, FreeMemory: int64(z.free) * z.memory << 30}
	}
	site := &resourcemodel.Site{
		Key: resourcemodel.Key{Domain: z.domain, Site: z.site},
		Static: &resourcemodel.Static{
			Stamp: stamp, Type: "slurm", Environments: envs,
			Shares: []resourcemodel.Share{{ID: "batch", Default: true, Environments: ids, Slots: z.nodes, Policy: resourcemodel.Policy{Allow: z.allow}}},
		},
		Dynamic: &resourcemodel.Dynamic{Stamp: stamp, Up: true, Environments: states, Shares: map[string]resourcemodel.ShareState{
			"batch": {Open: true, Running: z.running, Waiting: z.waiting, FreeSlots: z.free},
		}},
	}
	a := resourcemodel.Aggregate(site, z.detail)
	return resourcemodel.Change{Key: site.Key, Static: a.Static, Dynamic: a.Dynamic}
}

func model(t testing.TB, sizes ...size) *resourcemodel.Snapshot {
	t.Helper()
	d := resourcemodel.Delta{Revision: 7, At: noon}
	for _, z := range sizes {
		d.Changes = append(d.Changes, z.change(t))
	}
	s, err := resourcemodel.Empty().Apply(d)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// request is a job that wants so many CPUs and GiB on one node.
func request(t testing.TB, cpus, memory int) *resourcemodel.Request {
	t.Helper()
	doc := `<jsdl:JobDefinition xmlns:jsdl="` + jsdl.NS + `" xmlns:posix="` + jsdl.NSPOSIX + `"><jsdl:JobDescription>` +
		`<jsdl:Application><posix:POSIXApplication><posix:Executable>/bin/true</posix:Executable></posix:POSIXApplication></jsdl:Application>` +
		fmt.Sprintf(`<jsdl:Resources><jsdl:IndividualCPUCount><jsdl:LowerBoundedRange>%d</jsdl:LowerBoundedRange></jsdl:IndividualCPUCount>`, cpus) +
		fmt.Sprintf(`<jsdl:IndividualPhysicalMemory><jsdl:LowerBoundedRange>%d</jsdl:LowerBoundedRange></jsdl:IndividualPhysicalMemory>`, memory<<30) +
		fmt.Sprintf(`<jsdl:TotalCPUCount><jsdl:LowerBoundedRange>%d</jsdl:LowerBoundedRange></jsdl:TotalCPUCount></jsdl:Resources>`, cpus) +
		`</jsdl:JobDescription></jsdl:JobDefinition>`
	def, problems := jsdl.Parse([]byte(doc), jsdl.Options{})
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	r, err := resourcemodel.Compile(def, resourcemodel.Subject{User: "ann", VO: "bio"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func policyFor(t testing.TB) Policy {
	t.Helper()
	p := Policy{}.EnsureDefaults()
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	return p
}

func domains(d Decision) string {
	s := ""
	for _, c := range d.Choices {
		name := c.Domain
		if name == "" {
			name = "own"
		}
		s += name + " "
	}
	return s
}
