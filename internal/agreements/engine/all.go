package engine

import (
	"context"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// All gives the agreements of all owners, like List: the newest ids first, below before ("" from the
// newest), at most limit (0 or more than MaxList is MaxList).
func (e *Engine) All(ctx context.Context, before string, limit int) ([]Record, error) {
	if limit <= 0 || limit > MaxList {
		limit = MaxList
	}
	o := store.RecordOptions{Limit: limit, Newest: true}
	if before != "" {
		o.After = stateKey(before)
	}
	kept, _, err := e.st.ListRecords(ctx, statePrefix, o)
	if err != nil {
		return nil, err
	}
	out := make([]Record, 0, len(kept))
	for _, k := range kept {
		r, err := decode(k.Value, k.Revision)
		if err != nil {
			return nil, fail.E("engine.All", fail.Internal, k.Key, err)
		}
		out = append(out, *r)
	}
	return out, nil
}
