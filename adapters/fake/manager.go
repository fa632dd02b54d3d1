package fake

import (
	"context"
	"sync"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// Down takes the manager away: every request fails and nothing is pushed, but what
// runs, runs on.
func (w *World) Down(why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = or(why, "the manager does not answer")
}

// Up brings it back: what changed meanwhile is told.
func (w *World) Up() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = ""
	for _, j := range w.silenced {
		w.feed.Publish(j.snapshot())
	}
	w.silenced = nil
}

// LoseNextAnswer loses the answer to the next submission of a job, after it was
// done or on its way there.
func (w *World) LoseNextAnswer(done bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lose = &done
}

// ReuseIDs makes the manager start over with its ids: those of jobs that ended are
// given to new ones. It keeps what it knows of the jobs by their tags.
func (w *World) ReuseIDs() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lastID = 0
}

// Requests counts what reached the manager, or would have while it was down.
func (w *World) Requests() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.requests
}

// Definition gives a job as it was placed, or nil.
func (w *World) Definition(tag adapters.Tag) *jsdl.JobDefinition {
	w.mu.Lock()
	defer w.mu.Unlock()
	if j := w.jobs[tag]; j != nil {
		return j.spec.Definition
	}
	return nil
}

// request is one request to the manager, once the budget has room for it.
func (a *base) request(ctx context.Context, op string) error {
	a.waits(1)
	err := a.limiter.Wait(ctx)
	a.waits(-1)
	if err != nil {
		return fail.E("fake."+op, fail.Unavailable, "", err)
	}
	return a.sent(op)
}

func (a *base) waits(n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.health.Waiting += n
}

// sent counts a request, which fails while the manager is down.
func (a *base) sent(op string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.health.Requests++
	a.world.mu.Lock()
	a.world.requests++
	problem := a.world.down
	a.world.mu.Unlock()
	if problem != a.health.Problem {
		a.health.Problem, a.health.Since = problem, time.Now()
	}
	if problem != "" {
		return fail.Errorf("fake."+op, fail.Unavailable, "", "%s", problem)
	}
	a.health.Contact = time.Now()
	return nil
}

// query is one question after the state of all jobs.
type query struct {
	done chan struct{}
	err  error
}

// shared makes one request for all callers that come before it is sent, so that
// the number of watchers costs the manager nothing.
func (a *base) shared(ctx context.Context) error {
	if a.options.Requests == 0 {
		return a.request(ctx, "status")
	}
	a.mu.Lock()
	q := a.pending
	if q == nil {
		q = &query{done: make(chan struct{})}
		a.pending = q
		// The caller that began it may give up; the others need it all the same.
		begun := sync.OnceFunc(func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.pending = nil
		})
		go func() {
			defer close(q.done)
			q.err = a.question(context.WithoutCancel(ctx), begun)
		}()
	}
	a.mu.Unlock()
	select {
	case <-q.done:
		return q.err
	case <-ctx.Done():
		return fail.E("fake.status", fail.Unavailable, "", ctx.Err())
	}
}

// question waits for its turn, and only then is too late to be joined.
func (a *base) question(ctx context.Context, begun func()) error {
	defer begun()
	if err := a.limiter.Wait(ctx); err != nil {
		return fail.E("fake.status", fail.Unavailable, "", err)
	}
	begun()
	return a.sent("status")
}

// Health tells what the last requests showed.
func (a *base) Health() adapters.Health {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.health
	h.Path, h.Version, h.Offered = "memory", "1", []adapters.Path{"memory"}
	if h.Since.IsZero() {
		h.Since = a.opened
	}
	return h
}
