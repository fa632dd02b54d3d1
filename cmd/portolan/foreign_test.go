package main

import (
	"bytes"
	"context"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// stranger is a service of another make: its references are its own affair, and
// it has BES 1.0 and nothing else.
type stranger struct {
	mu   sync.Mutex
	jobs []bes.State
}

func (s *stranger) epr(n int) soap.EPR {
	p := etree.NewElement("x:Job")
	p.CreateAttr("xmlns:x", "urn:stranger")
	p.SetText(strconv.Itoa(n))
	return soap.EPR{Address: "http://stranger.example/jobs", ReferenceParameters: []*etree.Element{p}}
}

func (s *stranger) find(e soap.EPR) (int, error) {
	for _, p := range e.ReferenceParameters {
		if xmldoc.Is(p, "urn:stranger", "Job") {
			if n, err := strconv.Atoi(p.Text()); err == nil && n < len(s.jobs) {
				return n, nil
			}
		}
	}
	return 0, fail.Errorf("stranger", fail.NotFound, "", "what job?")
}

func (s *stranger) CreateActivity(context.Context, *bes.CreateActivityRequest) (*bes.CreateActivityResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.jobs = append(s.jobs, bes.Running)
	return &bes.CreateActivityResponse{Activity: s.epr(len(s.jobs) - 1)}, nil
}

func (s *stranger) GetActivityStatuses(_ context.Context, req *bes.StatusRequest) ([]bes.StatusResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []bes.StatusResult
	for _, e := range req.Activities {
		n, err := s.find(e)
		r := bes.StatusResult{Activity: e, Err: err}
		if err == nil {
			r.Status.State = s.jobs[n]
		}
		out = append(out, r)
	}
	return out, nil
}

func (s *stranger) TerminateActivities(_ context.Context, list []soap.EPR) ([]bes.Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []bes.Result
	for _, e := range list {
		n, err := s.find(e)
		if err == nil {
			s.jobs[n] = bes.Cancelled
		}
		out = append(out, bes.Result{Activity: e, Err: err})
	}
	return out, nil
}

func (s *stranger) GetActivityDocuments(context.Context, []soap.EPR) ([]bes.DocumentResult, error) {
	return nil, fail.Errorf("stranger", fail.Unsupported, "", "no")
}

func (s *stranger) GetFactoryAttributesDocument(context.Context) (*bes.FactoryAttributes, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fa := &bes.FactoryAttributes{
		IsAcceptingNewActivities: true, TotalNumberOfActivities: int64(len(s.jobs)),
		NamingProfiles: []string{"urn:none"}, LocalResourceManagerType: "urn:none",
	}
	for n := range s.jobs {
		fa.Activities = append(fa.Activities, s.epr(n))
	}
	return fa, nil
}
func (s *stranger) StopAcceptingNewActivities(context.Context) error  { return nil }
func (s *stranger) StartAcceptingNewActivities(context.Context) error { return nil }

func TestActivitiesOfOtherMakesAreFoundAgain(t *testing.T) {
	server := httptest.NewServer(bes.NewServer(&stranger{}, bes.ServerOptions{Verifier: soap.DevVerifier{}}))
	defer server.Close()
	dir := t.TempDir()
	env := map[string]string{"HOME": dir}
	run := func(code int, args ...string) (string, string) {
		t.Helper()
		var out, errs bytes.Buffer
		a := &app{in: strings.NewReader(""), out: &out, err: &errs, env: func(k string) string { return env[k] }}
		if got := a.execute(t.Context(), args); got != code {
			t.Fatalf("%v: exit code %d, not %d\n%s%s", args, got, code, &out, &errs)
		}
		return out.String(), errs.String()
	}
	doc := filepath.Join(dir, "job.xml")
	if err := os.WriteFile(doc, []byte(`<JobDefinition xmlns="http://schemas.ggf.org/jsdl/2005/11/jsdl"><JobDescription/></JobDefinition>`), 0o600); err != nil {
		t.Fatal(err)
	}

	out, _ := run(exitDone, "submit", "--endpoint", server.URL, doc)
	id := strings.TrimSpace(out)
	if !strings.HasPrefix(id, "epr-") {
		t.Fatalf("id %q", id)
	}
	// The id alone finds it, wherever the settings point.
	out, _ = run(exitDone, "status", "-o", "json", id)
	for _, want := range []string{`"id": "` + id + `"`, `"state": "Running"`, `"exitStatus": null`, `"submitted": null`, `"site": null`} {
		if !strings.Contains(out, want) {
			t.Errorf("no %s in %s", want, out)
		}
	}
	// What others submitted is listed, and then remembered.
	run(exitDone, "submit", "--endpoint", server.URL, doc)
	if err := os.RemoveAll(filepath.Join(dir, ".local")); err != nil {
		t.Fatal(err)
	}
	run(exitUsage, "status", id)
	out, _ = run(exitDone, "status", "--endpoint", server.URL, "-o", "name")
	if got := strings.Fields(out); len(got) != 2 || got[0] != id {
		t.Errorf("listed %q", got)
	}
	run(exitDone, "cancel", id)
	out, _ = run(exitDone, "status", id)
	if !strings.Contains(out, "Cancelled") {
		t.Error(out)
	}
	// A reference in a file does as well.
	epr := filepath.Join(dir, "a.epr")
	if err := os.WriteFile(epr, eprBytes((&stranger{}).epr(1)), 0o600); err != nil {
		t.Fatal(err)
	}
	out, _ = run(exitDone, "status", "--endpoint", server.URL, epr)
	if !strings.Contains(out, "Running") {
		t.Error(out)
	}
	// What BES 1.0 leaves out is refused with a sentence.
	for _, verb := range []string{"suspend", "resume", "history", "output"} {
		if _, errs := run(exitRefused, verb, id); !strings.Contains(errs, "does not offer") {
			t.Errorf("%s: %s", verb, errs)
		}
	}
	// Activities of two endpoints can't be asked for at once.
	run(exitUsage, "status", id, "01890a5d-ac96-774b-bcce-b302099a8057")
}

func TestFilesThatAreNoReferences(t *testing.T) {
	for name, text := range map[string]string{
		"no xml":     "hello",
		"no address": `<E xmlns="http://www.w3.org/2005/08/addressing"/>`,
		"too large":  `<E xmlns="http://www.w3.org/2005/08/addressing">` + strings.Repeat(" ", maxEPR) + `</E>`,
		"doctype":    `<!DOCTYPE E><E/>`,
	} {
		a := &app{in: strings.NewReader(text)}
		if _, _, err := a.resolve("-", "http://h/bes"); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
