package modelstore

import (
	"context"
	"time"
)

// Tick does what is due by the model's clock.
func (m *Model) Tick(ctx context.Context) time.Duration { return m.tick(ctx) }

// Lines gives how many lines the history has and their bytes, as known here.
func (m *Model) Lines() (n, bytes int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.lines.lines), m.lines.bytes
}

// Weigh names how much a change matters.
var Weigh = weigh

// The weights.
const (
	Nothing = nothing
	Noise   = noise
	News    = news
	Urgent  = urgent
)
