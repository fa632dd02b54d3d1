package console

import (
	"net/http"
	"time"

	"github.com/gorilla/mux"
)

// FencePath gives up what a site has that is out for good. The body is a FenceRequest,
// the answer a broker.FenceReport. DELETE forgets a fenced site that is not configured.
const FencePath = "/api/v1/sites/{site}/fence"

// FenceRequest vouches that nothing runs any more of what the site was given.
type FenceRequest struct {
	Reason string     `json:"reason,omitempty"`
	Died   *time.Time `json:"died,omitempty"` // when the site ended; without, when it answered last
}

func (a *api) fence(r *http.Request) (any, error) {
	var f FenceRequest
	if err := decode(r, &f, `reason and died, such as {"reason": "its machines are gone", "died": "2026-02-01T14:03:00Z"}`); err != nil {
		return nil, err
	}
	var died time.Time
	if f.Died != nil {
		died = *f.Died
	}
	return a.gateway.FenceSite(r.Context(), mux.Vars(r)["site"], f.Reason, died)
}

func (a *api) forgetFence(r *http.Request) (any, error) {
	return struct{}{}, a.gateway.ForgetFence(r.Context(), mux.Vars(r)["site"])
}
