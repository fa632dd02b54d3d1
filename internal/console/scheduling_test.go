package console_test

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/broker/limits"
	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/console"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/resourcemodel"
)

// scheduling answers as a broker would, and notes what it was asked.
type scheduling struct {
	view *broker.PolicyView
	set  *set
	err  error
}

type set struct {
	scope   schedule.Scope
	kind    policy.Kind
	setting *policy.Setting
	shadow  bool
	asked   string
}

var place = resourcemodel.Place{Key: resourcemodel.Key{Site: "hpc"}, Share: "long", Environment: "thin"}

func (s scheduling) Policies(context.Context) (*broker.PolicyView, error) { return s.view, s.err }

func (s scheduling) SetPolicy(_ context.Context, scope schedule.Scope, kind policy.Kind, setting *policy.Setting, shadow bool) error {
	if s.err == nil {
		*s.set = set{scope, kind, setting, shadow, "set"}
	}
	return s.err
}

func (s scheduling) Limits(context.Context) (*broker.LimitView, error) {
	n := 7
	return &broker.LimitView{
		Limits:  []limits.Status{{Subject: limits.Subject{Scope: limits.SiteCPUs, Name: "hpc"}, Max: 64, Used: 12}, {Subject: limits.Subject{Scope: limits.User, Name: limits.Everybody}, Max: 7}},
		Changes: []limits.Change{{Who: "ada", Scope: limits.User, Name: limits.Everybody, After: &n}},
	}, s.err
}

func (s scheduling) SetLimit(_ context.Context, of limits.Subject, most *int) error {
	if s.err == nil {
		s.set.asked = of.String() + " none"
		if most != nil {
			s.set.asked = fmt.Sprint(of, " ", *most)
		}
	}
	return s.err
}

func (s scheduling) Match(_ context.Context, doc []byte, vo string) (*broker.MatchReport, error) {
	s.set.asked = string(doc) + " for " + vo
	return &broker.MatchReport{
		Verdicts: []resourcemodel.Verdict{
			{Place: place, Could: true, Now: true},
			{Place: resourcemodel.Place{Key: resourcemodel.Key{Domain: "peer", Site: "far"}, Share: "s", Environment: "e"}, Clauses: []resourcemodel.Clause{
				{Element: "TotalCPUCount", Asked: "at least 64", Has: "16", Sentence: "TotalCPUCount asks for at least 64, and far has 16"},
				{Element: "Criterion FreeCPUs", Sentence: "later", Dynamic: true},
			}},
		},
		Could: true, Now: true, Sentence: "it would be given to hpc", Nearest: "it would start now if …", Model: 42,
		Ranked: []schedule.Ranked{{Place: place, Soft: 1, Score: 0.5, Free: 3}},
	}, s.err
}

func (s scheduling) Resources(_ context.Context, at time.Time) (*resourcemodel.Snapshot, error) {
	s.set.asked = at.Format(time.RFC3339)
	if s.err != nil {
		return nil, s.err
	}
	m := resourcemodel.Empty()
	for i, k := range []resourcemodel.Key{{Site: "hpc"}, {Site: "shell"}, {Domain: "peer", Site: "far"}} {
		next, err := m.Apply(resourcemodel.Delta{Revision: int64(i + 1), At: time.Unix(int64(i), 0).UTC(), Changes: []resourcemodel.Change{{Key: k, Static: &resourcemodel.Static{
			Stamp: resourcemodel.Stamp{Version: 1}, Type: "slurm", Shares: []resourcemodel.Share{{ID: "long", Environments: []string{"thin"}}}, Environments: []resourcemodel.Environment{{ID: "thin", CPUs: 4}},
		}}}})
		if err != nil {
			return nil, err
		}
		m = next
	}
	return m, nil
}

func (s scheduling) Age(k resourcemodel.Key) (time.Duration, bool) {
	return time.Hour, k.Domain == "peer"
}

func (s scheduling) Decisions(_ context.Context, e soap.EPR) ([]schedule.Decision, error) {
	if id, _ := bes.ActivityID(e); id != known {
		return nil, fail.Errorf("x", fail.NotFound, id, "no activity %s of yours is known here", id)
	}
	return []schedule.Decision{{Job: known, Attempt: 1, Place: place, Policy: map[policy.Kind]string{policy.Selection: "first-fit"}, Out: []schedule.Ruled{{Element: "VO", Sentence: "no"}}}}, s.err
}

func (s scheduling) Compare(_ context.Context, most int) (*schedule.Comparison, error) {
	s.set.asked = fmt.Sprint(most)
	return &schedule.Comparison{Decisions: 3, Same: 2, Waited: 1}, s.err
}

func (s scheduling) Trace(ctx context.Context, w io.Writer, d time.Duration) error {
	s.set.asked = d.String()
	if s.err != nil {
		return s.err
	}
	io.WriteString(w, "a line\n")
	return ctx.Err()
}

func gate() (http.Handler, *set, *broker.PolicyView) {
	said := new(set)
	view := &broker.PolicyView{
		Policies: &schedule.Policies{
			Revision: 7,
			InForce: map[schedule.Scope]map[policy.Kind]policy.Setting{
				schedule.Gateway: {policy.Scheduling: {Name: "priority", Parameters: map[string]float64{"age": 7200}}},
				"vo:bio":         {policy.Selection: {Name: "cheapest"}},
			},
			Shadow: map[schedule.Scope]map[policy.Kind]policy.Setting{schedule.Gateway: {policy.Selection: {Name: "best-fit"}}, "queue:long": {policy.Scheduling: {Name: "edf"}}},
		},
		Catalogue: policy.Catalogue(),
		Changes:   []broker.PolicyChange{{Who: "ada", Scope: "vo:bio", Kind: policy.Selection, After: &policy.Setting{Name: "cheapest"}}},
	}
	return serve(gateway{scheduling: scheduling{view: view, set: said}}, console.Options{Domain: "home"}), said, view
}

func TestPolicies(t *testing.T) {
	h, said, _ := gate()
	code, body, _ := ask(t, h, http.MethodGet, console.PoliciesPath)
	var got console.Policies
	if err := json.Unmarshal([]byte(body), &got); code != http.StatusOK || err != nil {
		t.Fatalf("%d %v: %s", code, err, body)
	}
	var lines []string
	for _, p := range got.Policies {
		lines = append(lines, fmt.Sprintf("%s %s %s shadow=%v default=%v", p.Scope, p.Kind, p.Setting, p.Shadow, p.Default))
	}
	if want := []string{
		"gateway scheduling priority{age=2h} shadow=false default=false",
		"gateway selection least-loaded shadow=false default=true",
		"gateway selection best-fit shadow=true default=false",
		"gateway pairing none shadow=false default=true",
		"gateway replication none shadow=false default=true",
		"queue:long scheduling edf shadow=true default=false",
		"vo:bio selection cheapest shadow=false default=false",
	}; !reflect.DeepEqual(lines, want) {
		t.Errorf("got  %q\nwant %q", lines, want)
	}
	if got.Revision != 7 || len(got.Catalogue) < 10 || len(got.Changes) != 1 || got.Changes[0].To != "cheapest" || got.Changes[0].Who != "ada" || got.Policies[0].Parameters["age"] != 7200 || got.Policies[2].Parameters["memory"] != 0.25 {
		t.Errorf("%s", body)
	}
	for _, c := range []struct {
		body string
		code int
		want set
	}{
		{`{"scope":"vo:bio","kind":"scheduling","setting":"priority{age=90s}","shadow":true}`, 200, set{"vo:bio", policy.Scheduling, &policy.Setting{Name: "priority", Parameters: map[string]float64{"age": 90}}, true, "set"}},
		{`{"scope":"gateway","kind":"selection"}`, 200, set{"gateway", policy.Selection, nil, false, "set"}},
		{`{"scope":"gateway","kind":"selection","setting":"nothing"}`, 400, set{}},
		{`{"scope":"gateway","kind":"order","setting":"fifo"}`, 400, set{}},
		{`{"scope":"gateway","kind":"selection","force":true}`, 400, set{}},
		{`{"scope":"gateway","kind":"selection"} {}`, 400, set{}},
		{`no`, 400, set{}},
		{``, 400, set{}},
		{`"` + strings.Repeat("a", 5<<20) + `"`, 400, set{}},
	} {
		*said = set{}
		code, body, _ := send(t, h, http.MethodPut, console.PoliciesPath, c.body)
		if code != c.code || !reflect.DeepEqual(*said, c.want) {
			t.Errorf("%.80s: %d %+v, want %d %+v: %s", c.body, code, *said, c.code, c.want, body)
		}
	}
	if code, _, header := send(t, h, http.MethodDelete, console.PoliciesPath, ""); code != http.StatusMethodNotAllowed || header.Get("Allow") != "GET, PUT" {
		t.Errorf("DELETE: %d %v", code, header)
	}
}

func TestLimits(t *testing.T) {
	h, said, _ := gate()
	code, body, _ := ask(t, h, http.MethodGet, console.LimitsPath)
	var got console.Limits
	if err := json.Unmarshal([]byte(body), &got); code != http.StatusOK || err != nil || len(got.Limits) != 2 || len(got.Changes) != 1 || *got.Changes[0].After != 7 ||
		got.Limits[0] != (console.Limit{Subject: "site-cpus:hpc", Scope: "site-cpus", Name: "hpc", Counts: "CPUs", Max: 64, Used: 12}) || got.Limits[1].Counts != "jobs" {
		t.Errorf("%d %v: %s", code, err, body)
	}
	for _, c := range []struct {
		body  string
		code  int
		asked string
	}{
		{`{"subject":"site:hpc","max":3}`, 200, "site:hpc 3"},
		{`{"subject":"vo:*","max":0}`, 200, "vo:* 0"},
		{`{"subject":"user:ann"}`, 200, "user:ann none"},
		{`{"subject":"user:ann","max":null}`, 200, "user:ann none"},
		{`{"subject":"ann","max":3}`, 400, ""},
		{`{"subject":"user:ann","max":"3"}`, 400, ""},
		{`{"subject":"user:ann","max":3.5}`, 400, ""},
		{`{"subject":"user:ann","min":3}`, 400, ""},
		{`{"subject":"user:ann"} 7`, 400, ""},
		{``, 400, ""},
	} {
		said.asked = ""
		if code, body, _ := send(t, h, http.MethodPut, console.LimitsPath, c.body); code != c.code || said.asked != c.asked {
			t.Errorf("%s: %d, asked %q: %s", c.body, code, said.asked, body)
		}
	}
}

func TestMatch(t *testing.T) {
	h, said, _ := gate()
	code, body, _ := send(t, h, http.MethodPost, console.MatchPath+"?vo=bio", "<doc/>")
	var got console.Match
	if err := json.Unmarshal([]byte(body), &got); code != http.StatusOK || err != nil || said.asked != "<doc/> for bio" {
		t.Fatalf("%d %v %q: %s", code, err, said.asked, body)
	}
	if !got.Could || !got.Now || got.Model != 42 || got.Nearest == "" || len(got.Places) != 2 || got.Places[0].Place.String() != "hpc/long/thin" || got.Places[1].Place.String() != "peer/far/s/e" ||
		got.Places[1].Could || len(got.Places[1].Clauses) != 2 || got.Places[1].Clauses[0].Has != "16" || !got.Places[1].Clauses[1].Dynamic || len(got.Ranked) != 1 || got.Ranked[0].Free != 3 {
		t.Errorf("%+v", got)
	}
	if code, _, _ := ask(t, h, http.MethodGet, console.MatchPath); code != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", code)
	}
}

func TestResources(t *testing.T) {
	h, said, _ := gate()
	read := func(path string) console.Resources {
		t.Helper()
		code, body, header := ask(t, h, http.MethodGet, path)
		var got console.Resources
		if err := json.Unmarshal([]byte(body), &got); code != http.StatusOK || err != nil || header.Get("Content-Type") != "application/json" {
			t.Fatalf("%d %v: %s", code, err, body)
		}
		return got
	}
	if got := read(console.ResourcesPath + "?at=2026-03-01T12:00:00%2B01:00"); len(got.Sites) != 3 || got.Revision != 3 || got.At == nil || got.Sites[0].Static.Environments[0].CPUs != 4 || said.asked != "2026-03-01T12:00:00+01:00" {
		t.Errorf("%+v, asked %s", got, said.asked)
	}
	if got := read(console.ResourcesPath + "?site=shell&site=peer/far"); len(got.Sites) != 2 || got.Sites[0].Site != "shell" || got.Sites[1].Domain != "peer" {
		t.Errorf("%+v", got)
	}
	if got := read(console.ResourcesPath + "?site=home/shell&site=peer/far"); len(got.Sites) != 2 || got.Domain != "home" || got.Sites[0].Site != "shell" || got.Sites[1].Domain != "peer" {
		t.Errorf("by its own domain: %+v", got)
	}
	if got := read(console.ResourcesPath); got.Sites[0].Confirmed != nil || got.Sites[2].Confirmed == nil || time.Since(*got.Sites[2].Confirmed).Round(time.Minute) != time.Hour {
		t.Errorf("when they were confirmed: %+v", got)
	}
	if got := read(console.ResourcesPath + "?at=2026-03-01T12:00:00Z"); got.Sites[2].Confirmed != nil {
		t.Errorf("confirmed at another time: %+v", got)
	}
	if got := read(console.ResourcesPath + "?site=none"); got.Sites == nil || len(got.Sites) != 0 {
		t.Errorf("%+v", got)
	}
	for path, want := range map[string][2]string{"?format=xml": {"home", "far"}, "?format=xml&domain=home": {"home", "far"}, "?format=xml&domain=peer": {"far", "home"}} {
		code, body, header := ask(t, h, http.MethodGet, console.ResourcesPath+path)
		var any struct{ XMLName xml.Name }
		if err := xml.Unmarshal([]byte(body), &any); code != http.StatusOK || err != nil || any.XMLName.Space != resourcemodel.NSGLUE || header.Get("Content-Type") != "application/xml" {
			t.Errorf("%s: %d %v: %s", path, code, err, body)
		}
		if !strings.Contains(body, want[0]) || strings.Contains(body, want[1]) {
			t.Errorf("%s is to have %s and not %s:\n%s", path, want[0], want[1], body)
		}
	}
	for path, want := range map[string]int{"?at=yesterday": 400, "?format=yaml": 400, "?format=xml&domain=none": 404} {
		if code, body, _ := ask(t, h, http.MethodGet, console.ResourcesPath+path); code != want {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}

func TestDecisions(t *testing.T) {
	h, _, _ := gate()
	at := func(id string) string { return strings.ReplaceAll(console.DecisionsPath, "{id}", id) }
	code, body, _ := ask(t, h, http.MethodGet, at(known))
	var got console.Decisions
	if err := json.Unmarshal([]byte(body), &got); code != http.StatusOK || err != nil || len(got.Decisions) != 1 || got.Decisions[0].Place != place || got.Decisions[0].Out[0].Element != "VO" {
		t.Errorf("%d %v: %s", code, err, body)
	}
	for _, id := range []string{"none", "01890a5d-ac96-774b-bcce-b302099a8058"} {
		if code, _, _ := ask(t, h, http.MethodGet, at(id)); code != http.StatusNotFound {
			t.Errorf("%s: %d", id, code)
		}
	}
}

func TestCompareAndTrace(t *testing.T) {
	h, said, _ := gate()
	for _, c := range []struct {
		path  string
		code  int
		asked string
	}{
		{console.ComparePath, 200, "10000"},
		{console.ComparePath + "?most=5", 200, "5"},
		{console.ComparePath + "?most=0", 400, ""},
		{console.ComparePath + "?most=many", 400, ""},
		{console.TracePath, 200, "1m0s"},
		{console.TracePath + "?for=90s", 200, "1m30s"},
		{console.TracePath + "?for=long", 400, ""},
	} {
		said.asked = ""
		if code, body, _ := ask(t, h, http.MethodGet, c.path); code != c.code || said.asked != c.asked {
			t.Errorf("%s: %d, asked %q: %s", c.path, code, said.asked, body)
		}
	}
	if _, body, header := ask(t, h, http.MethodGet, console.TracePath); body != "a line\n" || header.Get("Content-Type") != "application/x-ndjson" {
		t.Errorf("%v %q", header, body)
	}
}

// What the broker refuses is refused with its kind and its sentence, streams too; what
// breaks off later is not taken for whole.
func TestSchedulingIsRefused(t *testing.T) {
	no := serve(gateway{scheduling: scheduling{set: new(set), err: fail.Errorf("x", fail.Denied, "", "ada may not manage here").Because(errors.New("a secret"))}}, console.Options{})
	for _, c := range []struct{ method, path, body string }{
		{http.MethodGet, console.PoliciesPath, ""},
		{http.MethodPut, console.PoliciesPath, `{"scope":"gateway","kind":"selection","setting":"first-fit"}`},
		{http.MethodGet, console.ComparePath, ""},
		{http.MethodGet, console.LimitsPath, ""},
		{http.MethodPut, console.LimitsPath, `{"subject":"site:hpc"}`},
		{http.MethodPost, console.MatchPath, "<doc/>"},
		{http.MethodGet, console.ResourcesPath, ""},
		{http.MethodGet, console.TracePath, ""},
	} {
		code, body, _ := send(t, no, c.method, c.path, c.body)
		if code != http.StatusForbidden || !strings.Contains(body, "may not manage") || strings.Contains(body, "secret") {
			t.Errorf("%s %s: %d %s", c.method, c.path, code, body)
		}
	}
	h, _, _ := gate()
	ctx, stop := context.WithCancel(t.Context())
	stop()
	defer func() {
		if err, _ := recover().(error); !errors.Is(err, http.ErrAbortHandler) {
			t.Error("a trace that broke off looks whole")
		}
	}()
	h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, http.MethodGet, console.TracePath, nil))
}
