package console

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/gorilla/mux"

	"github.com/portolan-project/portolan/internal/fail"
)

// FencePath gives up what a site has that is out for good. The body is a FenceRequest,
// the answer a broker.FenceReport.
const FencePath = "/api/v1/sites/{site}/fence"

// FenceRequest vouches that nothing runs any more of what the site was given.
type FenceRequest struct {
	Reason string     `json:"reason,omitempty"`
	Died   *time.Time `json:"died,omitempty"` // when the site ended; without, when it answered last
}

func (a *api) fence(r *http.Request) (any, error) {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	var f FenceRequest
	if err := d.Decode(&f); err != nil {
		return nil, fail.Errorf("console.fence", fail.Invalid, "", `the request must be JSON such as {"reason": "its machines are gone", "died": "2026-02-01T14:03:00Z"}: %v`, err)
	}
	var died time.Time
	if f.Died != nil {
		died = *f.Died
	}
	return a.gateway.FenceSite(r.Context(), mux.Vars(r)["site"], f.Reason, died)
}
