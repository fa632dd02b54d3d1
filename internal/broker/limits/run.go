package limits

import (
	"context"
	"sync"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// retry is how long Run waits before it asks again a store that did not answer.
const retry = time.Second

// Run follows what other replicas write, and writes what was released, until ctx ends.
func (l *Limiter) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { l.follow(ctx) })
	wg.Go(func() { l.flush(ctx) })
	wg.Wait()
	return fail.E("limits.Run", fail.Unavailable, "", context.Cause(ctx))
}

func (l *Limiter) follow(ctx context.Context) {
	for {
		l.mu.Lock()
		from := l.revision
		l.mu.Unlock()
		err := l.st.WatchRecords(ctx, prefix, from, func(records []store.Record, revision int64) {
			defer l.changed()
			l.mu.Lock()
			defer l.mu.Unlock()
			news := false
			for _, r := range records {
				l.note(r)
				if r.Value == nil {
					l.forget(r.Key) // nothing older comes any more
				}
				_, config := splitKey(r.Key, configPrefix)
				news = news || config
				if of, ok := splitKey(r.Key, usedPrefix); ok && l.used[of].value[l.replica] != l.own[of] {
					if _, doubted := l.doubted[r.Key]; doubted { // a write that was given up came late
						l.dirty[of] = true
						l.wake()
					}
				}
			}
			l.revision = revision
			if news { // what had no limit may have one, and is to be written
				l.all = true
				l.wake()
			}
		})
		if fail.Is(err, fail.Conflict) {
			err = l.reload(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			l.log.Warn("the limits cannot be followed at present", "cause", err)
			pause(ctx, retry)
		}
	}
}

// flush writes what we count when it is not as it is written.
func (l *Limiter) flush(ctx context.Context) {
	for {
		select {
		case <-l.woken:
		case <-ctx.Done():
			return
		}
		select {
		case l.busy <- struct{}{}:
		case <-ctx.Done():
			return
		}
		l.mu.Lock()
		sess := l.sess
		l.mu.Unlock()
		var err error
		if sess != nil {
			err = l.publish(ctx, sess, "")
		}
		<-l.busy
		if err != nil && ctx.Err() == nil && !fail.Is(err, fail.Conflict) { // a lost session writes no more
			l.log.Warn("what counts towards the limits is not written yet", "cause", err)
			pause(ctx, retry)
			l.wake()
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
