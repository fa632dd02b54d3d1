package slurm

import (
	"context"
	"sync"
	"time"
)

// flight is an answer that many ask for at once and the manager gives once.
type flight[T any] struct {
	mu    sync.Mutex
	value T
	at    time.Time // when the question was put that value answers; zero: none was
	next  *asking[T]
}

type asking[T any] struct {
	done  chan struct{}
	value T
	at    time.Time
	err   error
}

// get gives an answer to a question that was put no earlier than so long ago, which may
// be one that somebody else is putting.
func (f *flight[T]) get(ctx context.Context, old time.Duration, ask func(context.Context) (T, error)) (T, time.Time, error) {
	wanted := time.Now().Add(-old)
	for {
		f.mu.Lock()
		if !f.at.IsZero() && !f.at.Before(wanted) {
			value, at := f.value, f.at
			f.mu.Unlock()
			return value, at, nil
		}
		one := f.next
		if one == nil {
			one = &asking[T]{done: make(chan struct{}), at: time.Now()}
			f.next = one
			// Who asked first may not wait as long as those who joined.
			go func() {
				ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commandTime)
				defer cancel()
				one.value, one.err = ask(ctx)
				f.mu.Lock()
				f.next = nil
				if one.err == nil {
					f.value, f.at = one.value, one.at
				}
				f.mu.Unlock()
				close(one.done)
			}()
		}
		f.mu.Unlock()
		select {
		case <-ctx.Done():
			var none T
			return none, time.Time{}, ctx.Err()
		case <-one.done:
		}
		if one.err != nil || !one.at.Before(wanted) {
			return one.value, one.at, one.err
		}
	}
}
