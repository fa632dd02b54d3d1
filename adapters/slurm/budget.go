package slurm

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/portolan-project/portolan/internal/fail"
)

// budget is how many requests a second the controller is sent at most.
type budget struct {
	limiter *rate.Limiter // nil: without bound
	sent    atomic.Int64
	waiting atomic.Int64
	heard   atomic.Int64 // when an answer came last, Unix nanoseconds
}

// answer notes a good answer.
func (b *budget) answer() { b.heard.Store(time.Now().UnixNano()) }

func newBudget(perSecond float64) *budget {
	b := new(budget)
	if perSecond > 0 {
		// No saved-up requests: no second has more than its own.
		b.limiter = rate.NewLimiter(rate.Limit(perSecond), 1)
	}
	return b
}

// errBudget is the cause where nothing was sent.
var errBudget = errors.New("no request was sent")

// wait waits for a request's turn, and counts it.
func (b *budget) wait(ctx context.Context) error {
	if b.limiter != nil {
		b.waiting.Add(1)
		err := b.limiter.Wait(ctx)
		b.waiting.Add(-1)
		if err != nil {
			return fail.Errorf("slurm", fail.Unavailable, "", "the site's budget of requests leaves no room for this one in time").Because(errors.Join(errBudget, err))
		}
	} else if err := ctx.Err(); err != nil {
		return fail.Errorf("slurm", fail.Unavailable, "", "the call was given up").Because(errors.Join(errBudget, err))
	}
	b.sent.Add(1)
	return nil
}
