package telemetry_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/telemetry"
)

func scrape(t *testing.T, m *telemetry.Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestEachHookShowsInTheMetrics(t *testing.T) {
	m := telemetry.NewMetrics("v1.2.3")
	m.Submitted("shell")
	m.Stepped("Queued", "Placing", "placing")
	m.Illegal("Finished", "started")
	m.Ended("shell", "Finished", 2*time.Second, 3*time.Second)
	m.Ended("shell", "Cancelled", 2*time.Second, 0)
	m.Gauges(7, 4)
	m.Committed(5, time.Millisecond)
	m.Placed("shell", 3, time.Millisecond)
	m.Site("shell", true)
	m.Grouped(9, time.Millisecond)
	got := scrape(t, m)
	for _, want := range []string{
		`portolan_build_info{version="v1.2.3"} 1`,
		`portolan_jobs_submitted_total{site="shell"} 1`,
		`portolan_job_steps_total{event="placing",from="Queued",to="Placing"} 1`,
		`portolan_job_steps_illegal_total{event="started",phase="Finished"} 1`,
		`portolan_jobs_ended_total{phase="Finished",site="shell"} 1`,
		`portolan_job_wait_seconds_count{site="shell"} 2`,
		`portolan_job_run_seconds_sum{site="shell"} 3`,
		`portolan_job_run_seconds_count{site="shell"} 1`,
		`portolan_jobs_live 7`,
		`portolan_jobs_queued 4`,
		`portolan_commit_jobs_sum 5`,
		`portolan_place_jobs_sum{site="shell"} 3`,
		`portolan_site_up{site="shell"} 1`,
		`portolan_store_group_jobs_sum 9`,
		`go_goroutines `,
	} {
		if !strings.Contains(got, "\n"+want) {
			t.Errorf("no line %q", want)
		}
	}
	m.Site("shell", false)
	if got := scrape(t, m); !strings.Contains(got, `portolan_site_up{site="shell"} 0`) {
		t.Error("a site that went is still up")
	}
}

func TestTwoGatewaysCountApart(t *testing.T) {
	a, b := telemetry.NewMetrics("v"), telemetry.NewMetrics("v")
	a.Gauges(3, 1)
	b.Gauges(5, 1)
	if !strings.Contains(scrape(t, a), "portolan_jobs_live 3\n") || !strings.Contains(scrape(t, b), "portolan_jobs_live 5\n") {
		t.Error("the gauges are shared")
	}
}

func TestRequestsAreMeasuredWithBoundedLabels(t *testing.T) {
	m := telemetry.NewMetrics("v")
	h := m.Instrument("bes", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			t.Errorf("the writer hides what lies under it: %v", err)
		}
	}))
	for _, method := range []string{http.MethodGet, "BREW", "WHEN"} {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), method, "/bes", nil))
	}
	got := scrape(t, m)
	for _, want := range []string{
		`portolan_http_request_seconds_count{code="200",endpoint="bes",method="GET"} 1`,
		`portolan_http_request_seconds_count{code="405",endpoint="bes",method="other"} 2`,
		`portolan_http_requests_in_flight 0`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no line %q", want)
		}
	}
}

func TestLogger(t *testing.T) {
	var b strings.Builder
	log, err := telemetry.NewLogger(&b, "json", "warn")
	if err != nil {
		t.Fatal(err)
	}
	log.Info("quiet")
	log.Warn("loud", "n", 1)
	if got := b.String(); strings.Contains(got, "quiet") || !strings.Contains(got, `"msg":"loud","n":1`) {
		t.Errorf("got %s", got)
	}
	for _, bad := range [][2]string{{"xml", "info"}, {"text", "chatty"}} {
		if _, err := telemetry.NewLogger(io.Discard, bad[0], bad[1]); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
}
