package service

import (
	"context"
	"sync"
)

// turns has those who ask for the same come one after the other.
type turns struct {
	mu sync.Mutex
	of map[string]*turn
}

type turn struct {
	token chan struct{}
	users int // who have it, or wait for it
}

// take waits for one's turn, and gives what to call when it is over.
func (t *turns) take(ctx context.Context, what string) (over func(), err error) {
	t.mu.Lock()
	x := t.of[what]
	if x == nil {
		x = &turn{token: make(chan struct{}, 1)}
		t.of[what] = x
	}
	x.users++
	t.mu.Unlock()
	done := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if x.users--; x.users == 0 {
			delete(t.of, what)
		}
	}
	select {
	case x.token <- struct{}{}:
		return func() { <-x.token; done() }, nil
	case <-ctx.Done():
		done()
		return nil, context.Cause(ctx)
	}
}
