package console_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/console"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
)

const known = "01890a5d-ac96-774b-bcce-b302099a8057"

// gateway is what the API asks.
type gateway struct {
	sites func(context.Context) ([]broker.SiteStatus, error)
	scheduling
}

func (g gateway) Sites(ctx context.Context) ([]broker.SiteStatus, error) { return g.sites(ctx) }

func (g gateway) AbandonActivities(_ context.Context, es []soap.EPR) ([]bes.Result, error) {
	out := make([]bes.Result, len(es))
	for i, e := range es {
		if id, _ := bes.ActivityID(e); id != known {
			out[i].Err = fail.Errorf("x", fail.NotFound, id, "no activity %s of yours is known here", id)
		}
	}
	return out, nil
}

func (g gateway) FenceSite(_ context.Context, site, reason string, died time.Time) (*broker.FenceReport, error) {
	if site != "slurm" {
		return nil, fail.Errorf("x", fail.NotFound, site, "there is no site %s", site)
	}
	if reason != "sold" || !died.IsZero() && died.Year() != 2026 {
		return nil, fail.Errorf("x", fail.Invalid, site, "reason %q, died %s", reason, died)
	}
	return &broker.FenceReport{Jobs: 3, Again: 2, Ended: 1}, nil
}

func (g gateway) ForgetFence(_ context.Context, site string) error {
	if site != "slurm" {
		return fail.Errorf("x", fail.NotFound, site, "no site %s is fenced", site)
	}
	return nil
}

func TestFence(t *testing.T) {
	h := serve(gateway{}, console.Options{})
	for _, c := range []struct {
		site, body string
		code       int
		answer     string
	}{
		{"slurm", `{"reason": "sold"}`, http.StatusOK, `"again": 2`},
		{"slurm", `{"reason": "sold", "died": "2026-02-01T14:03:00Z"}`, http.StatusOK, `"jobs": 3`},
		{"slurm", `{"reason": "sold", "died": "yesterday"}`, http.StatusBadRequest, "such as"},
		{"slurm", `{"because": "sold"}`, http.StatusBadRequest, "because"},
		{"slurm", ``, http.StatusBadRequest, "such as"},
		{"none", `{"reason": "sold"}`, http.StatusNotFound, "no site none"},
	} {
		if code, body, _ := send(t, h, http.MethodPost, strings.ReplaceAll(console.FencePath, "{site}", c.site), c.body); code != c.code || !strings.Contains(body, c.answer) {
			t.Errorf("%s of %s: %d %s", c.body, c.site, code, body)
		}
	}
	for site, want := range map[string]int{"slurm": http.StatusOK, "none": http.StatusNotFound} {
		if code, body, _ := send(t, h, http.MethodDelete, strings.ReplaceAll(console.FencePath, "{site}", site), ""); code != want {
			t.Errorf("%s: %d %s", site, code, body)
		}
	}
}

func serve(g console.Gateway, o console.Options) http.Handler {
	api := console.New(g, o)
	mounts := map[string]http.Handler{}
	for _, p := range console.Paths() {
		mounts[p] = api
	}
	return soap.NewRouter(mounts)
}

func ask(t *testing.T, h http.Handler, method, path string) (int, string, http.Header) {
	t.Helper()
	return send(t, h, method, path, "")
}

func send(t *testing.T, h http.Handler, method, path, body string) (int, string, http.Header) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body)))
	return w.Code, w.Body.String(), w.Header()
}

func TestSites(t *testing.T) {
	since := time.Date(2026, 3, 1, 12, 0, 0, 0, time.FixedZone("", 3600))
	all := []broker.SiteStatus{
		{
			Name: "slurm", State: broker.SiteDown, Problem: "slurmctld does not answer", Evidence: since,
			Properties: adapters.Properties{Type: "slurm", ManagerURI: "urn:slurm", Version: "22.05", Bulk: true, Hold: true, Requests: 5, MaxJobs: 9000},
			Health:     adapters.Health{Path: "slurmrestd v0.0.38", Since: since, Contact: since, Requests: 12, Waiting: 2, Offered: []adapters.Path{"slurmrestd v0.0.38", "commands"}, Remarks: []string{"no accounting"}},
			Resources:  &adapters.Resources{Shares: []adapters.Share{{ID: "debug", Default: true, Open: true, Slots: 4, FreeSlots: 1, MaxWallTime: time.Hour, Running: 3}}},
			Capacity:   &adapters.Capacity{Hosts: 2, CPUs: 4, Slots: 4, FreeSlots: 1, Memory: 1 << 30},
			Jobs:       map[broker.Phase]int{broker.Running: 3}, Live: 3,
		},
		{Name: "gone", State: broker.SiteUnconfigured, Problem: "it is not configured here any more", Live: 1},
	}
	h := serve(gateway{sites: func(ctx context.Context) ([]broker.SiteStatus, error) {
		if soap.PrincipalFrom(ctx).Name != "ada" {
			return nil, errors.New("who asks?")
		}
		return all, nil
	}}, console.Options{
		Principal: func(*http.Request) (soap.Principal, error) { return soap.Principal{Name: "ada"}, nil },
		Configuration: func() *console.Configuration {
			return &console.Configuration{File: "g.yaml", Read: since, Problem: "g.yaml:3: no"}
		},
	})
	code, body, header := ask(t, h, http.MethodGet, "/api/v1/sites")
	if code != http.StatusOK || header.Get("Content-Type") != "application/json" || header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %v: %s", code, header, body)
	}
	var got console.Sites
	if err := json.Unmarshal([]byte(body), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Sites) != 2 || got.Configuration == nil || got.Configuration.Problem != "g.yaml:3: no" {
		t.Fatalf("%s", body)
	}
	for _, want := range []string{
		`"name": "slurm"`, `"state": "down"`, `"problem": "slurmctld does not answer"`, `"since": "2026-03-01T11:00:00Z"`, `"evidence": "2026-03-01T11:00:00Z"`,
		`"path": "slurmrestd v0.0.38"`, `"version": "22.05"`, `"requests": 12`, `"budget": 5`, `"waiting": 2`, `"no accounting"`, `"hold"`, `"bulk"`,
		`"maxJobs": 9000`, `"freeSlots": 1`, `"id": "debug"`, `"maxWallTime": 3600`, `"Running": 3`, `"live": 3`, `"state": "unconfigured"`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in %s", want, body)
		}
	}
	if got.Sites[1].Manager != nil || got.Sites[1].Capacity != nil || got.Sites[1].Since != nil {
		t.Errorf("what is not known is told: %+v", got.Sites[1])
	}
}

func TestRefusals(t *testing.T) {
	none := func(context.Context) ([]broker.SiteStatus, error) { return nil, nil }
	h := serve(gateway{sites: none}, console.Options{})
	for _, c := range []struct {
		method, path string
		want         int
	}{
		{http.MethodGet, "/api/v1/sites", http.StatusOK},
		{http.MethodHead, "/api/v1/sites", http.StatusOK},
		{http.MethodPost, "/api/v1/sites", http.StatusMethodNotAllowed},
		{http.MethodGet, "/api/v1/activities/" + known + "/abandon", http.StatusMethodNotAllowed},
		{http.MethodPost, "/api/v1/activities/" + known + "/abandon", http.StatusOK},
		{http.MethodPost, "/api/v1/activities/01890a5d-ac96-774b-bcce-b302099a8058/abandon", http.StatusNotFound},
		{http.MethodPost, "/api/v1/activities/none/abandon", http.StatusNotFound},
		{http.MethodGet, "/api/v1/nothing", http.StatusNotFound},
	} {
		code, body, _ := ask(t, h, c.method, c.path)
		if code != c.want {
			t.Errorf("%s %s: %d, not %d: %s", c.method, c.path, code, c.want, body)
		}
	}
	for kind, want := range map[fail.Kind]int{
		fail.Denied: http.StatusForbidden, fail.Unavailable: http.StatusServiceUnavailable, fail.Internal: http.StatusInternalServerError,
	} {
		h := serve(gateway{sites: func(context.Context) ([]broker.SiteStatus, error) {
			return nil, fail.E("x", kind, "", errors.New("a secret"))
		}}, console.Options{})
		if code, body, _ := ask(t, h, http.MethodGet, "/api/v1/sites"); code != want || strings.Contains(body, "secret") {
			t.Errorf("%v: %d %s", kind, code, body)
		}
	}
	h = serve(gateway{sites: none}, console.Options{Principal: func(*http.Request) (soap.Principal, error) { return soap.Principal{}, errors.New("no token") }})
	if code, _, _ := ask(t, h, http.MethodGet, "/api/v1/sites"); code != http.StatusUnauthorized {
		t.Errorf("nobody: %d", code)
	}
}

// More requests than are answered at once are refused, not queued.
func TestRequestsAreBounded(t *testing.T) {
	enter, leave := make(chan struct{}), make(chan struct{})
	h := serve(gateway{sites: func(context.Context) ([]broker.SiteStatus, error) {
		enter <- struct{}{}
		<-leave
		return nil, nil
	}}, console.Options{})
	var all sync.WaitGroup
	for range 32 {
		all.Go(func() { ask(t, h, http.MethodGet, "/api/v1/sites") })
		<-enter
	}
	if code, _, header := ask(t, h, http.MethodGet, "/api/v1/sites"); code != http.StatusServiceUnavailable || header.Get("Retry-After") == "" {
		t.Errorf("one more: %d", code)
	}
	close(leave)
	all.Wait()
}
