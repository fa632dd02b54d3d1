package telemetry

import "github.com/prometheus/client_golang/prometheus"

// Site is what the metrics say of a site at the moment of a scrape.
type Site struct {
	Name     string
	Up       bool
	Requests int64   // sent to its manager since it was opened
	Budget   float64 // requests a second; 0 is no bound
	Waiting  int     // requests that wait for the budget
	Slots    int
	Free     int
	Jobs     map[string]int // by phase
}

// Sites adds the metrics of sites: now is asked at each scrape.
func (m *Metrics) Sites(now func() []Site) { m.registry.MustRegister(siteCollector{now}) }

type siteCollector struct{ now func() []Site }

func siteDesc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("portolan_site_"+name, help, append([]string{"site"}, labels...), nil)
}

var (
	siteUp       = siteDesc("up", "1 while the site takes jobs.")
	siteRequests = siteDesc("requests_total", "Requests sent to the site's manager since the site was opened.")
	siteBudget   = siteDesc("requests_budget", "Requests a second to the site's manager that are never exceeded.")
	siteWaiting  = siteDesc("requests_waiting", "Requests that wait for the budget.")
	siteSlots    = siteDesc("slots", "Jobs that the site runs at once.")
	siteFree     = siteDesc("slots_free", "Slots of the site that are free.")
	siteJobs     = siteDesc("jobs", "Jobs that the site has or is being given, by phase.", "phase")
)

// Describe names the metrics.
func (siteCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{siteUp, siteRequests, siteBudget, siteWaiting, siteSlots, siteFree, siteJobs} {
		out <- d
	}
}

// Collect gives their values.
func (c siteCollector) Collect(out chan<- prometheus.Metric) {
	for _, s := range c.now() {
		value := func(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
			out <- prometheus.MustNewConstMetric(d, kind, v, append([]string{s.Name}, labels...)...)
		}
		up := 0.0
		if s.Up {
			up = 1
		}
		value(siteUp, prometheus.GaugeValue, up)
		value(siteRequests, prometheus.CounterValue, float64(s.Requests))
		if s.Budget > 0 {
			value(siteBudget, prometheus.GaugeValue, s.Budget)
		}
		value(siteWaiting, prometheus.GaugeValue, float64(s.Waiting))
		value(siteSlots, prometheus.GaugeValue, float64(s.Slots))
		value(siteFree, prometheus.GaugeValue, float64(s.Free))
		for phase, n := range s.Jobs {
			value(siteJobs, prometheus.GaugeValue, float64(n), phase)
		}
	}
}
