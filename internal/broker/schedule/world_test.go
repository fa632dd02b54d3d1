package schedule

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/resourcemodel"
)

var noon = time.Date(2031, 3, 1, 12, 0, 0, 0, time.UTC)

// world is a Scheduler with what it is told.
type world struct {
	t        testing.TB
	s        *Scheduler
	now      time.Time
	requests map[string]*resourcemodel.Request
	sources  map[*resourcemodel.Request]Source
	jobs     map[string]*policy.Job
	sites    map[string]*resourcemodel.Site
	revision int64
	policies Policies
	waits    map[string]time.Duration
	stage    string // URI that the jobs' data come from
}

func newWorld(t testing.TB, o Options) *world {
	w := &world{
		t: t, now: noon, requests: map[string]*resourcemodel.Request{}, sources: map[*resourcemodel.Request]Source{},
		jobs: map[string]*policy.Job{}, sites: map[string]*resourcemodel.Site{}, waits: map[string]time.Duration{},
	}
	if o.Places == nil {
		o.Places = NewPlaces(resourcemodel.Empty())
	}
	if o.Catalogue == nil {
		o.Catalogue = BuiltIn()
	}
	o.Derived = func(now time.Time) resourcemodel.Derived {
		return resourcemodel.Derived{Now: now, Wait: func(p resourcemodel.Place, _ *resourcemodel.Need) (time.Duration, bool) {
			d, ok := w.waits[p.Site]
			return d, ok
		}}
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	w.s = s
	return w
}

// document is a job that wants so many CPUs, with further elements of Resources.
func document(cpus int, resources, stage string) []byte {
	if stage != "" {
		stage = `<jsdl:DataStaging><jsdl:FileName>in</jsdl:FileName><jsdl:CreationFlag>overwrite</jsdl:CreationFlag><jsdl:Source><jsdl:URI>` + stage + `</jsdl:URI></jsdl:Source></jsdl:DataStaging>`
	}
	return []byte(`<jsdl:JobDefinition xmlns:jsdl="` + jsdl.NS + `" xmlns:posix="` + jsdl.NSPOSIX + `" xmlns:p="` + jsdl.NSPortolan + `"><jsdl:JobDescription>` +
		`<jsdl:Application><posix:POSIXApplication><posix:Executable>/bin/true</posix:Executable></posix:POSIXApplication></jsdl:Application>` +
		fmt.Sprintf(`<jsdl:Resources>%s<jsdl:TotalCPUCount><jsdl:LowerBoundedRange>%d</jsdl:LowerBoundedRange></jsdl:TotalCPUCount></jsdl:Resources>`, resources, cpus) + stage +
		`</jsdl:JobDescription></jsdl:JobDefinition>`)
}

// request compiles once what is alike.
func (w *world) request(user, vo string, cpus int, criteria []jsdl.Criterion) *resourcemodel.Request {
	key := fmt.Sprint(w.stage, "|", user, "|", vo, "|", cpus, "|", criteria)
	if r := w.requests[key]; r != nil {
		return r
	}
	src := Source{Document: document(cpus, "", w.stage), Subject: resourcemodel.Subject{User: user, VO: vo}}
	def, problems := jsdl.Parse(src.Document, jsdl.Options{})
	if err := problems.Invalid().Err(); err != nil { // staging is not supported yet, but says where data are
		w.t.Fatal(err)
	}
	var list *jsdl.Criteria
	if len(criteria) > 0 {
		list = &jsdl.Criteria{List: criteria}
	}
	r, err := resourcemodel.CompileWith(def, src.Subject, list)
	if err != nil {
		w.t.Fatal(err)
	}
	w.requests[key], w.sources[r] = r, src
	return r
}

func (w *world) source(j *policy.Job) (Source, error) { return w.sources[j.Request], nil }

// siteOf makes a site of one share over nodes with so many CPUs each.
func siteOf(name string, nodes, cpus int) *resourcemodel.Site {
	return &resourcemodel.Site{
		Key: resourcemodel.Key{Site: name},
		Static: &resourcemodel.Static{
			Type: "fake", Shares: []resourcemodel.Share{{ID: "all", Environments: []string{"node"}}},
			Environments: []resourcemodel.Environment{{ID: "node", CPUs: cpus}},
		},
		Dynamic: &resourcemodel.Dynamic{
			Up: true, Shares: map[string]resourcemodel.ShareState{"all": {Open: true}},
			Environments: map[string]resourcemodel.EnvironmentState{"node": {Nodes: nodes, Available: nodes, FreeNodes: nodes, FreeCPUs: nodes * cpus}},
		},
	}
}

// put tells of sites as they are now.
func (w *world) put(sites ...*resourcemodel.Site) {
	w.t.Helper()
	w.revision++
	d := resourcemodel.Delta{Revision: w.revision, At: w.now}
	for _, s := range sites {
		was := w.sites[s.Site]
		static, dynamic := *s.Static, *s.Dynamic
		static.Version, dynamic.Version = uint64(w.revision), uint64(w.revision)
		static.Changed, dynamic.Changed = w.now, w.now
		static.Source, dynamic.Source = "test", "test"
		c := resourcemodel.Change{Key: s.Key, Static: &static, Dynamic: &dynamic}
		if was != nil && was.Static == s.Static {
			c.Static = nil
		}
		copied := *s
		w.sites[s.Site] = &copied
		d.Changes = append(d.Changes, c)
	}
	if err := w.s.Apply(d); err != nil {
		w.t.Fatal(err)
	}
}

// free tells that so many CPUs of a site are free.
func (w *world) free(name string, cpus int) {
	s := *w.sites[name]
	d := *s.Dynamic
	n := d.Environments["node"]
	n.FreeCPUs, n.FreeNodes = cpus, min(n.Nodes, cpus/max(s.Static.Environments[0].CPUs, 1))
	d.Environments = map[string]resourcemodel.EnvironmentState{"node": n}
	s.Dynamic = &d
	w.put(&s)
}

func (w *world) set(scope Scope, kind policy.Kind, setting string, shadow bool) error {
	v, err := policy.ParseSetting(setting)
	if err != nil {
		return err
	}
	copied := Policies{Revision: w.policies.Revision + 1, InForce: clonePolicies(w.policies.InForce), Shadow: clonePolicies(w.policies.Shadow)}
	m := copied.InForce
	if shadow {
		m = copied.Shadow
	}
	if m[scope] == nil {
		m[scope] = map[policy.Kind]policy.Setting{}
	}
	m[scope][kind] = v
	w.policies = copied
	return w.s.SetPolicies(&copied)
}

func clonePolicies(m map[Scope]map[policy.Kind]policy.Setting) map[Scope]map[policy.Kind]policy.Setting {
	out := map[Scope]map[policy.Kind]policy.Setting{}
	for scope, kinds := range m {
		out[scope] = map[policy.Kind]policy.Setting{}
		maps.Copy(out[scope], kinds)
	}
	return out
}

// add lets a job wait.
func (w *world) add(j policy.Job, criteria []jsdl.Criterion) *policy.Job {
	j.Request = w.request("", j.VO, max(j.CPUs, 1), criteria)
	j.CPUs = max(j.CPUs, 1)
	if j.Submitted.IsZero() {
		j.Submitted = w.now
	}
	w.jobs[j.ID] = &j
	w.s.Add(Entry{Job: &j, Attempt: 1})
	return &j
}

func (w *world) round(budget int) []Decision { return w.s.Round(w.now, budget) }

// told names what was decided: "j1→a j2→b".
func told(ds []Decision) string {
	var out []string
	for i := range ds {
		out = append(out, ds[i].Job+"→"+ds[i].Place.Site)
	}
	return strings.Join(out, " ")
}

func (w *world) expect(want string, ds []Decision) {
	w.t.Helper()
	if got := told(ds); got != want {
		w.t.Errorf("decided %s, want %s", got, want)
	}
	if err := w.s.Audit(w.now); err != nil {
		w.t.Error(err)
	}
}
