package broker

import (
	"context"
	"encoding/json"
	"iter"

	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// Compare tells how the policies in shadow would have decided what was decided, over the
// records of the newest decisions, at most so many. It needs Manage, as it tells of
// everybody's jobs.
func (b *Broker) Compare(ctx context.Context, most int) (*schedule.Comparison, error) {
	const op = "broker.Compare"
	if _, err := b.caller(ctx, op, Manage); err != nil {
		return nil, err
	}
	var bad error
	out := schedule.Compare(b.recorded(ctx, op, most, &bad))
	if bad != nil {
		return nil, bad
	}
	return &out, nil
}

// recorded gives the records of decisions, the newest first. What goes wrong ends it
// and is left in bad.
func (b *Broker) recorded(ctx context.Context, op string, most int, bad *error) iter.Seq[schedule.Decision] {
	const page = 1000
	return func(yield func(schedule.Decision) bool) {
		for after := ""; most > 0; {
			recs, _, err := b.cfg.Store.ListRecords(ctx, decisionPrefix, store.RecordOptions{After: after, Limit: min(most, page), Newest: true})
			if err != nil {
				*bad = err
				return
			}
			for _, r := range recs {
				var d schedule.Decision
				if err := json.Unmarshal(r.Value, &d); err != nil {
					*bad = fail.Errorf(op, fail.Internal, r.Key, "the record of a decision can't be read: it is of another version, or damaged").Because(err)
					return
				}
				if !yield(d) {
					return
				}
			}
			if most -= len(recs); len(recs) < page {
				return
			}
			after = recs[len(recs)-1].Key
		}
	}
}
