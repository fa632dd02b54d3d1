package broker

import (
	"cmp"
	"context"
	"slices"
)

// watch is one who listens to what becomes of jobs of peers. Broker.mu guards it.
type watch struct {
	wake    chan struct{}
	pending map[string]ForeignState // the newest of each job that is not told yet
	fresh   bool                    // everything is to be told anew
}

// WatchForeign calls emit with how jobs of peers stand, as their records change, until ctx
// ends, when it gives nil. It begins with all that are live, as it does again whenever the
// broker has read everything anew, and calls emit with none once these were told: a job that
// the caller has a record of and that was not among them has ended, see ForeignStates. A slow
// emit costs one state for each job that changes, and gets the newest. Of one job, revisions
// grow, except that a state may come again.
func (b *Broker) WatchForeign(ctx context.Context, emit func([]ForeignState)) error {
	w := &watch{wake: make(chan struct{}, 1), pending: map[string]ForeignState{}, fresh: true}
	b.mu.Lock()
	b.watches[w] = struct{}{}
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		delete(b.watches, w)
		b.mu.Unlock()
	}()
	nudge(w.wake)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
		}
		b.mu.Lock()
		fresh := w.fresh && b.serving
		if fresh {
			w.fresh = false
			for _, j := range b.jobs {
				if j.rec.Status.Foreign != nil {
					w.pending[j.rec.ID] = stateOf(&j.rec, j.told)
				}
			}
		}
		states := make([]ForeignState, 0, len(w.pending))
		for _, s := range w.pending {
			states = append(states, s)
		}
		clear(w.pending)
		b.mu.Unlock()
		slices.SortFunc(states, func(x, y ForeignState) int { return cmp.Compare(x.Revision, y.Revision) })
		if len(states) > 0 {
			emit(states)
		}
		if fresh {
			emit(nil)
		}
	}
}
