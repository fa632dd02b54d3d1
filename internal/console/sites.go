package console

import (
	"time"

	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/broker/estimate"
)

// Sites answers GET /api/v1/sites.
type Sites struct {
	Sites         []Site         `json:"sites"`
	Configuration *Configuration `json:"configuration,omitempty"`
}

// Site is one site. What is not known is left out, or null.
type Site struct {
	Name     string           `json:"name"`
	Type     string           `json:"type,omitempty"`
	State    broker.SiteState `json:"state"`
	Problem  string           `json:"problem,omitempty"`
	Since    *time.Time       `json:"since,omitempty"`    // when the problem began, or the manager began to answer
	Evidence *time.Time       `json:"evidence,omitempty"` // when news of a job came last
	Manager  *Manager         `json:"manager,omitempty"`
	Capacity *Capacity        `json:"capacity,omitempty"`
	Shares   []Share          `json:"shares,omitempty"`
	Jobs     map[string]int   `json:"jobs"` // that it has or is being given, by phase
	Live     int              `json:"live"` // their sum
}

// Manager is how the site's local resource manager is reached.
type Manager struct {
	URI       string     `json:"uri"`
	Version   string     `json:"version,omitempty"`
	Path      string     `json:"path,omitempty"`    // the way that is in use
	Offered   []string   `json:"offered,omitempty"` // the ways that there are, the best first
	Remarks   []string   `json:"remarks,omitempty"`
	Contact   *time.Time `json:"contact,omitempty"` // of the last good answer
	Requests  int64      `json:"requests"`          // sent since the site was opened
	Budget    float64    `json:"budget,omitempty"`  // requests a second that are never exceeded
	Waiting   int        `json:"waiting"`           // requests that wait for the budget
	Abilities []string   `json:"abilities"`         // suspend, hold, push, bulk
	MaxJobs   int        `json:"maxJobs,omitempty"`
}

// Capacity is what the site has.
type Capacity struct {
	Hosts     int   `json:"hosts"`
	CPUs      int   `json:"cpus"`
	Memory    int64 `json:"memory,omitempty"` // bytes
	Slots     int   `json:"slots"`
	FreeSlots int   `json:"freeSlots"`
}

// Share is a queue or partition.
type Share struct {
	ID          string  `json:"id"`
	Default     bool    `json:"default,omitempty"`
	Open        bool    `json:"open"`
	MaxWallTime float64 `json:"maxWallTime,omitempty"` // seconds
	Slots       int     `json:"slots,omitempty"`
	FreeSlots   int     `json:"freeSlots,omitempty"`
	Running     int     `json:"running"`
	Waiting     int     `json:"waiting"`
	Wait        *Wait   `json:"wait,omitempty"` // estimated, of a job of one CPU
}

// Wait is an estimate of how long a job would wait.
type Wait struct {
	Median float64 `json:"median"`          // seconds: half of the jobs start sooner
	Most   float64 `json:"most"`            // seconds: 9 of 10 do
	Method string  `json:"method"`          // history, or the manager's own forecast
	Error  float64 `json:"error,omitempty"` // the factor by which such estimates missed lately; without, none was put to the test yet
}

func waitOf(w estimate.Wait, known bool) *Wait {
	if !known {
		return nil
	}
	return &Wait{w.Median.Seconds(), w.Most.Seconds(), string(w.Method), w.Error}
}

// maxShares bounds the shares that are told of a site.
const maxShares = 1000

func siteOf(s *broker.SiteStatus) Site {
	h, p := &s.Health, &s.Properties
	out := Site{
		Name: s.Name, Type: p.Type, State: s.State, Problem: s.Problem, Since: moment(h.Since), Evidence: moment(s.Evidence),
		Jobs: map[string]int{}, Live: s.Live,
	}
	for phase, n := range s.Jobs {
		out.Jobs[string(phase)] = n
	}
	if p.Type != "" {
		m := &Manager{
			URI: p.ManagerURI, Version: h.Version, Path: string(h.Path), Remarks: h.Remarks, Contact: moment(h.Contact),
			Requests: h.Requests, Budget: p.Requests, Waiting: h.Waiting, Abilities: []string{}, MaxJobs: p.MaxJobs,
		}
		if m.Version == "" {
			m.Version = p.Version
		}
		for _, way := range h.Offered {
			m.Offered = append(m.Offered, string(way))
		}
		for _, a := range []struct {
			has  bool
			name string
		}{{p.Suspend, "suspend"}, {p.Hold, "hold"}, {p.Push, "push"}, {p.Bulk, "bulk"}} {
			if a.has {
				m.Abilities = append(m.Abilities, a.name)
			}
		}
		out.Manager = m
	}
	if c := s.Capacity; c != nil {
		out.Capacity = &Capacity{Hosts: c.Hosts, CPUs: c.CPUs, Memory: c.Memory, Slots: c.Slots, FreeSlots: c.FreeSlots}
	}
	if s.Resources != nil {
		for _, share := range s.Resources.Shares[:min(len(s.Resources.Shares), maxShares)] {
			w, known := s.Waits[share.ID]
			out.Shares = append(out.Shares, Share{
				ID: share.ID, Default: share.Default, Open: share.Open, MaxWallTime: share.MaxWallTime.Seconds(),
				Slots: share.Slots, FreeSlots: share.FreeSlots, Running: share.Running, Waiting: share.Waiting,
				Wait: waitOf(w, known),
			})
		}
	}
	return out
}

func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}
