package peering

import (
	"context"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/peers/handover"
)

var _ adapters.Recaller = (*site)(nil)

// Recall implements adapters.Recaller: a job that has not begun is given back, and one that
// has goes on. The reason stays with us; the peer is told that the copy is wanted back.
func (s *site) Recall(ctx context.Context, handles []adapters.Handle, _ string) []error {
	return s.e.steer(ctx, "peering.Recall", handles, func(*entry) (handover.Input, error) {
		return handover.TakeBack{}, nil
	})
}
