package terms

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/resourcemodel"
)

// noon is the first moment of every test.
var noon = time.Date(2026, 11, 27, 12, 0, 30, 0, time.UTC)

func at(d time.Duration) string { return moment(noon.Add(d)) }

var bio = resourcemodel.Subject{User: "ann", VO: "bio"}

// cluster is a site with shares over environments, all of it up.
type cluster struct {
	name   string
	shares []resourcemodel.Share
	nodes  []set
	closed []string
	down   bool
	policy resourcemodel.Policy
	domain string
}

type set struct {
	environment resourcemodel.Environment
	available   int
}

func model(t testing.TB, list ...cluster) *resourcemodel.Snapshot {
	m, err := build(list...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func build(list ...cluster) (*resourcemodel.Snapshot, error) {
	d := resourcemodel.Delta{Revision: 1, At: noon}
	for _, c := range list {
		st := &resourcemodel.Static{Stamp: resourcemodel.Stamp{Version: 1, Changed: noon, Source: "a test"}, Type: "slurm", Shares: c.shares, Policy: c.policy}
		dy := &resourcemodel.Dynamic{
			Stamp: resourcemodel.Stamp{Version: 1, Changed: noon, Source: "a test"}, Up: !c.down,
			Shares: map[string]resourcemodel.ShareState{}, Environments: map[string]resourcemodel.EnvironmentState{},
		}
		if c.down {
			dy.Problem = "it is down"
		}
		for _, n := range c.nodes {
			st.Environments = append(st.Environments, n.environment)
			if n.available >= 0 {
				free := n.available * n.environment.CPUs
				dy.Environments[n.environment.ID] = resourcemodel.EnvironmentState{Nodes: n.available + 1, Available: n.available, FreeNodes: n.available, FreeCPUs: free}
			}
		}
		for _, h := range c.shares {
			dy.Shares[h.ID] = resourcemodel.ShareState{Open: true, FreeSlots: h.Slots}
		}
		for _, id := range c.closed {
			dy.Shares[id] = resourcemodel.ShareState{}
		}
		d.Changes = append(d.Changes, resourcemodel.Change{Key: resourcemodel.Key{Domain: c.domain, Site: c.name}, Static: st, Dynamic: dy})
	}
	return resourcemodel.Empty().Apply(d)
}

// slurm is a cluster of 10 nodes of 8 CPUs, of which 8 may be promised.
func slurm() cluster {
	return cluster{
		name:   "slurm",
		shares: []resourcemodel.Share{{ID: "batch", Default: true, Environments: []string{"n"}, Slots: 80, MaxWallTime: 48 * time.Hour, Price: 0.25}},
		nodes:  []set{{resourcemodel.Environment{ID: "n", CPUs: 8, Memory: 32 << 30, CPUArchitecture: "x86_64"}, 10}},
	}
}

// condor is a pool without nodes that anybody knows, of which 40 CPUs may be promised.
func condor() cluster {
	return cluster{
		name:   "condor",
		shares: []resourcemodel.Share{{ID: "default", Default: true, Environments: []string{"any"}, Slots: 50}},
		nodes:  []set{{resourcemodel.Environment{ID: "any"}, -1}},
	}
}

// mixed has two shares that both use the small nodes, one of which has large ones too.
func mixed() cluster {
	return cluster{
		name: "mixed",
		shares: []resourcemodel.Share{
			{ID: "long", Default: true, Environments: []string{"small", "large"}, MaxWallTime: 24 * time.Hour},
			{ID: "short", Environments: []string{"small"}, MaxWallTime: time.Hour, MaxCPUs: 16},
		},
		nodes: []set{
			{resourcemodel.Environment{ID: "small", CPUs: 4, Memory: 8 << 30}, 10},
			{resourcemodel.Environment{ID: "large", CPUs: 64, Memory: 512 << 30, GPUs: map[string]int{"": 4}}, 2},
		},
	}
}

// job writes a service description term with a job.
func job(name string, limit int, resources string) string {
	wall := ""
	if limit > 0 {
		wall = fmt.Sprintf("<x:WallTimeLimit>%d</x:WallTimeLimit>", limit)
	}
	if resources != "" {
		resources = "<j:Resources>" + resources + "</j:Resources>"
	}
	return fmt.Sprintf(`<j:JobDefinition xmlns:j="%s"><j:JobDescription><j:JobIdentification><j:JobName>%s</j:JobName></j:JobIdentification>`+
		`<j:Application><x:POSIXApplication xmlns:x="%s"><x:Executable>/bin/true</x:Executable>%s</x:POSIXApplication></j:Application>%s</j:JobDescription></j:JobDefinition>`,
		jsdl.NS, name, jsdl.NSPOSIX, wall, resources)
}

func cpus(n int) string {
	return fmt.Sprintf("<j:TotalCPUCount><j:Exact>%d</j:Exact></j:TotalCPUCount>", n)
}

// sdt writes a service description term of the service run; the content may use the prefix p.
func sdt(name, content string) string { return sdtOf("run", name, content) }

func sdtOf(service, name, content string) string {
	return fmt.Sprintf(`<wsag:ServiceDescriptionTerm wsag:Name="%s" wsag:ServiceName="%s">%s</wsag:ServiceDescriptionTerm>`, name, service, content)
}

func window(from, until time.Duration) string {
	return "<p:Window><p:StartTime>" + at(from) + "</p:StartTime><p:EndTime>" + at(until) + "</p:EndTime></p:Window>"
}

// document writes an offer of terms.
func document(terms ...string) string { return documentUntil("", terms...) }

func documentUntil(expiration string, terms ...string) string {
	if expiration != "" {
		expiration = "<wsag:ExpirationTime>" + expiration + "</wsag:ExpirationTime>"
	}
	return fmt.Sprintf(`<wsag:AgreementOffer xmlns:wsag="%s" xmlns:p="%s"><wsag:Context><wsag:ServiceProvider>AgreementResponder</wsag:ServiceProvider>%s</wsag:Context><wsag:Terms><wsag:All>%s</wsag:All></wsag:Terms></wsag:AgreementOffer>`,
		agreement.NS, agreement.NSPortolan, expiration, strings.Join(terms, ""))
}

func offer(t testing.TB, doc string) *agreement.Agreement {
	t.Helper()
	o, err := agreement.ParseOffer([]byte(doc))
	if err != nil {
		t.Fatalf("%v in %s", err, doc)
	}
	return &o.Agreement
}

func asked(t testing.TB, terms ...string) *Request {
	t.Helper()
	q, err := Read(offer(t, document(terms...)), noon, Settings{})
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// refused checks that an error is of a kind and says each of some words.
func refused(t testing.TB, err error, kind fail.Kind, says ...string) {
	t.Helper()
	if !fail.Is(err, kind) {
		t.Errorf("%v; want a refusal that is %s", err, kind)
		return
	}
	for _, s := range says {
		if !strings.Contains(fail.Sentence(err), s) {
			t.Errorf("%q does not say %q", fail.Sentence(err), s)
		}
	}
}

// drawModel makes any model.
func drawModel(t *rapid.T) *resourcemodel.Snapshot {
	var list []cluster
	for i := range rapid.IntRange(0, 3).Draw(t, "sites") {
		c := cluster{name: rapid.SampledFrom([]string{"s", "a-b", "x_y", "a.b"}).Draw(t, "site") + fmt.Sprint(i), down: rapid.IntRange(0, 5).Draw(t, "down") == 0}
		var ids []string
		for k := range rapid.IntRange(1, 3).Draw(t, "environments") {
			e := resourcemodel.Environment{ID: fmt.Sprintf("e%d", k), CPUs: rapid.SampledFrom([]int{0, 1, 4, 64}).Draw(t, "cpus"), Memory: rapid.SampledFrom([]int64{0, 1 << 30, 64 << 30}).Draw(t, "memory")}
			c.nodes = append(c.nodes, set{e, rapid.IntRange(-1, 12).Draw(t, "nodes")})
			ids = append(ids, e.ID)
		}
		for k := range rapid.IntRange(1, 3).Draw(t, "shares") {
			h := resourcemodel.Share{
				ID: fmt.Sprintf(rapid.SampledFrom([]string{"h%d", "a/%d", "%d@x", "100%% %d"}).Draw(t, "share"), k), Default: k == 0, Environments: ids[:rapid.IntRange(1, len(ids)).Draw(t, "of")],
				Slots:       rapid.SampledFrom([]int{0, 1, 7, 500}).Draw(t, "slots"),
				MaxCPUs:     rapid.SampledFrom([]int{0, 3, 100}).Draw(t, "most"),
				MaxWallTime: rapid.SampledFrom([]time.Duration{0, time.Second, time.Minute, 90 * time.Minute, 1000 * time.Hour}).Draw(t, "wall"),
				Price:       rapid.SampledFrom([]float64{0, 0.0001, 0.25, 1e12}).Draw(t, "price"),
			}
			if rapid.IntRange(0, 3).Draw(t, "closed") == 0 {
				c.closed = append(c.closed, h.ID)
			}
			if rapid.IntRange(0, 3).Draw(t, "others") == 0 {
				h.Policy.Allow = []string{"vo:chem"}
			}
			c.shares = append(c.shares, h)
		}
		list = append(list, c)
	}
	m, err := build(list...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func drawSettings(t *rapid.T) Settings {
	s := Settings{
		Promise: rapid.IntRange(1, 100).Draw(t, "promise"),
		Horizon: rapid.SampledFrom([]time.Duration{0, time.Hour, 24 * time.Hour, 366 * 24 * time.Hour}).Draw(t, "horizon"),
		Notice:  rapid.SampledFrom([]time.Duration{0, time.Minute, 30 * time.Minute}).Draw(t, "notice"),
		Penalty: rapid.SampledFrom([]int64{0, 1, 5000}).Draw(t, "penalty"),
	}
	s.EnsureDefaults()
	if err := s.Validate(); err != nil {
		t.Fatal(err)
	}
	return s
}
