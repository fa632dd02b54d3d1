package console

import (
	"net/http"

	"github.com/portolan-project/portolan/internal/broker/schedule"
)

// DecisionsPath has the placements of an activity with their reasons.
const DecisionsPath = "/api/v1/activities/{id}/decisions"

// Decisions answers GET.
type Decisions struct {
	Decisions []schedule.Decision `json:"decisions"` // the oldest first
}

func (a *api) decisions(r *http.Request) (any, error) {
	which, err := activity(r)
	if err != nil {
		return nil, err
	}
	ds, err := a.gateway.Decisions(r.Context(), which)
	if err != nil {
		return nil, err
	}
	return Decisions{append([]schedule.Decision{}, ds...)}, nil
}
