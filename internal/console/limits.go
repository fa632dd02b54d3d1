package console

import (
	"net/http"

	"github.com/portolan-project/portolan/internal/broker/limits"
)

// LimitsPath has the limits of users, VOs and sites: GET tells, PUT changes one.
const LimitsPath = "/api/v1/limits"

// Limits answers GET.
type Limits struct {
	Limits  []Limit         `json:"limits"`  // in the order of subjects
	Changes []limits.Change `json:"changes"` // the newest first
}

// Limit is one that is in force.
type Limit struct {
	Subject string       `json:"subject"` // as people write it: "user:ann"
	Scope   limits.Scope `json:"scope"`
	Name    string       `json:"name"`   // "*" is everybody who has none of their own
	Counts  string       `json:"counts"` // "jobs" or "CPUs"
	Max     int          `json:"max"`
	Used    int          `json:"used"` // of "*", the most that one has
}

// SetLimit is what PUT takes. Without max, the limit is taken away.
type SetLimit struct {
	Subject string `json:"subject"`
	Max     *int   `json:"max,omitempty"`
}

func (a *api) limits(r *http.Request) (any, error) {
	v, err := a.gateway.Limits(r.Context())
	if err != nil {
		return nil, err
	}
	out := Limits{Limits: make([]Limit, len(v.Limits)), Changes: append([]limits.Change{}, v.Changes...)}
	for i, l := range v.Limits {
		s := l.Subject
		out.Limits[i] = Limit{Subject: s.String(), Scope: s.Scope, Name: s.Name, Counts: s.Scope.Counts(), Max: l.Max, Used: l.Used}
	}
	return out, nil
}

func (a *api) setLimit(r *http.Request) (any, error) {
	var q SetLimit
	if err := decode(r, &q, "subject and max"); err != nil {
		return nil, err
	}
	s, err := limits.ParseSubject(q.Subject)
	if err != nil {
		return nil, err
	}
	if err := a.gateway.SetLimit(r.Context(), s, q.Max); err != nil {
		return nil, err
	}
	return a.limits(r)
}
