package telemetry_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

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
	m.Replicated("slurm")
	m.Wasted(2.5)
	m.Gauges(7, 4)
	m.Committed(5, time.Millisecond)
	m.Placed("shell", 3, time.Millisecond)
	up := true
	m.Sites(func() []telemetry.Site {
		return []telemetry.Site{{Name: "shell", Up: up, Requests: 9, Budget: 5, Waiting: 2, Slots: 4, Free: 3, Jobs: map[string]int{"Running": 6}}}
	})
	m.Answered("CreateActivity", 200, time.Millisecond)
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
		`portolan_replicas_total{site="slurm"} 1`,
		`portolan_replicas_wasted_cpu_seconds_total 2.5`,
		`portolan_jobs_queued 4`,
		`portolan_commit_jobs_sum 5`,
		`portolan_place_jobs_sum{site="shell"} 3`,
		`portolan_site_up{site="shell"} 1`,
		`portolan_site_requests_total{site="shell"} 9`,
		`portolan_site_requests_budget{site="shell"} 5`,
		`portolan_site_requests_waiting{site="shell"} 2`,
		`portolan_site_slots{site="shell"} 4`,
		`portolan_site_slots_free{site="shell"} 3`,
		`portolan_site_jobs{phase="Running",site="shell"} 6`,
		`portolan_bes_request_seconds_count{code="200",operation="CreateActivity"} 1`,
		`go_goroutines `,
	} {
		if !strings.Contains(got, "\n"+want) {
			t.Errorf("no line %q", want)
		}
	}
	up = false
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

func TestOnlyWhatIsAskedForIsTakenFromOthers(t *testing.T) {
	others := prometheus.NewRegistry()
	others.MustRegister(
		prometheus.NewGauge(prometheus.GaugeOpts{Name: "etcd_x"}), prometheus.NewGauge(prometheus.GaugeOpts{Name: "noise"}),
		collectors.NewGoCollector(), // which both have
	)
	w := httptest.NewRecorder()
	telemetry.NewMetrics("v").Handler(telemetry.Only("etcd_", others)).
		ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	got := w.Body.String()
	if w.Code != http.StatusOK || !strings.Contains(got, "\netcd_x 0\n") || strings.Contains(got, "\nnoise") || !strings.Contains(got, "\nportolan_jobs_live") {
		t.Errorf("status %d: %s", w.Code, got)
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
