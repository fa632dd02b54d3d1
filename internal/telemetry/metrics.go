package telemetry

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	dto "github.com/prometheus/client_model/go"
)

// Metrics are the numbers of one gateway. Its methods fit the hooks of the parts
// and may be called from many goroutines.
type Metrics struct {
	registry *prometheus.Registry

	submitted *prometheus.CounterVec
	steps     *prometheus.CounterVec
	illegal   *prometheus.CounterVec
	ended     *prometheus.CounterVec
	waited    *prometheus.HistogramVec
	ran       *prometheus.HistogramVec
	live      prometheus.Gauge
	queued    prometheus.Gauge

	commitSize prometheus.Histogram
	commitTook prometheus.Histogram
	placeSize  *prometheus.HistogramVec
	placeTook  *prometheus.HistogramVec

	replicas *prometheus.CounterVec
	wasted   prometheus.Counter

	requests *prometheus.HistogramVec
}

// Seconds of the histograms: what answers a client, and what a job lives.
var (
	quick = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	slow  = []float64{.01, .1, 1, 10, 60, 600, 3600, 6 * 3600, 24 * 3600, 7 * 24 * 3600}
	sizes = []float64{1, 2, 4, 8, 16, 32, 64, 128, 256, 512}
)

// NewMetrics makes the metrics of one gateway. version is the program's.
func NewMetrics(version string) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "portolan_" + name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "portolan_" + name, Help: help})
	}
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: "portolan_" + name, Help: help, Buckets: buckets})
	}
	histograms := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "portolan_" + name, Help: help, Buckets: buckets}, labels)
	}
	m := &Metrics{
		registry:   prometheus.NewRegistry(),
		submitted:  counter("jobs_submitted_total", "Jobs accepted, by the site that they are pinned to.", "site"),
		steps:      counter("job_steps_total", "Steps of jobs made durable, by the phases they lead between and the event.", "from", "to", "event"),
		illegal:    counter("job_steps_illegal_total", "Events that the state table does not name.", "phase", "event"),
		ended:      counter("jobs_ended_total", "Jobs that became final, by site and phase.", "site", "phase"),
		waited:     histograms("job_wait_seconds", "Time from submission to the start of the program.", slow, "site"),
		ran:        histograms("job_run_seconds", "Time from the start of the program to its end.", slow, "site"),
		live:       gauge("jobs_live", "Jobs that are not final."),
		queued:     gauge("jobs_queued", "Jobs that wait for a place to run."),
		commitSize: histogram("commit_jobs", "Job changes in one write of the broker.", sizes),
		commitTook: histogram("commit_seconds", "Time of one write of the broker.", quick),
		placeSize:  histograms("place_jobs", "Jobs handed to a site in one call.", sizes, "site"),
		placeTook:  histograms("place_seconds", "Time of handing jobs to a site.", quick, "site"),
		replicas:   counter("replicas_total", "Replicas of jobs that were made, by the site that they were given to.", "site"),
		wasted: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "portolan_replicas_wasted_cpu_seconds_total", Help: "CPU time of copies of jobs that were not the first with a valid result.",
		}),
		requests: histograms("bes_request_seconds", "Time to answer a BES request, by operation and HTTP status.", quick, "operation", "code"),
	}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "portolan_build_info", Help: "1, labelled with the version."}, []string{"version"})
	build.WithLabelValues(version).Set(1)
	m.registry.MustRegister(
		m.submitted, m.steps, m.illegal, m.ended, m.waited, m.ran, m.live, m.queued,
		m.commitSize, m.commitTook, m.placeSize, m.placeTook,
		m.replicas, m.wasted, m.requests, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// Handler serves the metrics, and those of others.
func (m *Metrics) Handler(others ...prometheus.Gatherer) http.Handler {
	all := append(prometheus.Gatherers{m.registry}, others...)
	return promhttp.HandlerFor(all, promhttp.HandlerOpts{MaxRequestsInFlight: 8, Timeout: 10 * time.Second})
}

// Only gives the metrics of g whose names begin with the prefix. The embedded
// etcd registers its own in a place that it shares with whatever else is linked.
func Only(prefix string, g prometheus.Gatherer) prometheus.Gatherer {
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		all, err := g.Gather()
		return slices.DeleteFunc(all, func(f *dto.MetricFamily) bool { return !strings.HasPrefix(f.GetName(), prefix) }), err
	})
}

// Submitted counts an accepted job.
func (m *Metrics) Submitted(site string) { m.submitted.WithLabelValues(site).Inc() }

// Stepped counts a durable step of a job.
func (m *Metrics) Stepped(from, to, event string) { m.steps.WithLabelValues(from, to, event).Inc() }

// Illegal counts an event that had no place in the state table.
func (m *Metrics) Illegal(phase, event string) { m.illegal.WithLabelValues(phase, event).Inc() }

// Ended counts a final job; ran is zero for one that never started.
func (m *Metrics) Ended(site, phase string, waited, ran time.Duration) {
	m.ended.WithLabelValues(site, phase).Inc()
	m.waited.WithLabelValues(site).Observe(waited.Seconds())
	if ran > 0 {
		m.ran.WithLabelValues(site).Observe(ran.Seconds())
	}
}

// Replicated counts a replica that was made.
func (m *Metrics) Replicated(site string) { m.replicas.WithLabelValues(site).Inc() }

// Wasted counts the CPU time of a copy of a job that ended in vain.
func (m *Metrics) Wasted(cpuSeconds float64) { m.wasted.Add(max(0, cpuSeconds)) }

// Gauges sets how many jobs there are at present.
func (m *Metrics) Gauges(live, queued int) {
	m.live.Set(float64(live))
	m.queued.Set(float64(queued))
}

// Committed observes one write of the broker.
func (m *Metrics) Committed(changes int, took time.Duration) {
	m.commitSize.Observe(float64(changes))
	m.commitTook.Observe(took.Seconds())
}

// Placed observes one hand-over to a site.
func (m *Metrics) Placed(site string, jobs int, took time.Duration) {
	m.placeSize.WithLabelValues(site).Observe(float64(jobs))
	m.placeTook.WithLabelValues(site).Observe(took.Seconds())
}

// Answered observes one answered request of the BES endpoint; the operation is
// empty where the message named none.
func (m *Metrics) Answered(operation string, status int, took time.Duration) {
	m.requests.WithLabelValues(operation, strconv.Itoa(status)).Observe(took.Seconds())
}
