package engine

import (
	"context"

	"github.com/portolan-project/portolan/agreement"
)

// Tick does what is due now, until nothing is.
func (e *Engine) Tick(ctx context.Context) {
	for e.tick(ctx) == 0 {
	}
}

// Next gives what the table says.
func Next(id string, s agreement.State, event Event) (agreement.State, error) {
	return next("engine.test", id, s, event)
}

// Entries gives how much is kept in memory: agreements, times to come, pools and accounts.
func (e *Engine) Entries() [4]int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return [4]int{len(e.live), len(e.times), len(e.pools), len(e.accounts)}
}
