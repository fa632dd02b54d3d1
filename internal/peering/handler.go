package peering

import (
	"context"
	"sync/atomic"

	"github.com/portolan-project/portolan/peers"
	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
)

// Part hears of sessions beside the engine: what peers show, and the ledger. Calls about one
// domain come one after the other.
type Part interface {
	// Takes reports whether an item is for it.
	Takes(m wire.Message) bool
	Opened(domain string, a session.Agreement)
	Closed(domain string)
	// Alive tells of a session that is lost, though it may be resumed, or that is heard of again.
	Alive(domain string, alive bool)
	Free(domain string)
	// Deliver hands over the items that it takes. Done is to be called once what they caused
	// is durable.
	Deliver(ctx context.Context, domain string, items []wire.Message, done func())
}

// Handler gives a Table's sessions to the engine and to the other parts, each what it takes.
type Handler struct {
	Engine *Engine
	Parts  []Part
	// Context is what deliveries to the parts are made under.
	Context context.Context //nolint:containedctx // a Handler lives as long as a term
}

var _ peers.Handler = (*Handler)(nil)

// Opened implements peers.Handler.
func (h *Handler) Opened(domain string, a session.Agreement) {
	h.Engine.Opened(domain, a)
	for _, p := range h.Parts {
		p.Opened(domain, a)
	}
}

// Turned implements peers.Handler.
func (h *Handler) Turned(domain string, t session.Turn) {
	h.Engine.Turned(domain, t)
	for _, p := range h.Parts {
		switch t.To {
		case session.Lost:
			p.Alive(domain, false)
		case session.Alive:
			p.Alive(domain, true)
		case session.Suspect, session.Closed:
		}
	}
}

// Draining implements peers.Handler.
func (h *Handler) Draining(domain, sentence string) { h.Engine.Draining(domain, sentence) }

// Closed implements peers.Handler.
func (h *Handler) Closed(domain string, reason wire.CloseReason, sentence string) {
	h.Engine.Closed(domain, reason, sentence)
	for _, p := range h.Parts {
		p.Closed(domain)
	}
}

// Free implements peers.Handler.
func (h *Handler) Free(domain string) {
	h.Engine.Free(domain)
	for _, p := range h.Parts {
		p.Free(domain)
	}
}

// Deliver implements peers.Handler.
func (h *Handler) Deliver(domain string, items []wire.Message, done func()) {
	var jobs []wire.Message
	other := make([][]wire.Message, len(h.Parts))
	for _, m := range items {
		if Takes(m) {
			jobs = append(jobs, m)
			continue
		}
		for i, p := range h.Parts {
			if p.Takes(m) {
				other[i] = append(other[i], m)
				break
			}
		}
	}
	var left atomic.Int64
	left.Store(1)
	one := func() {
		if left.Add(-1) == 0 {
			done()
		}
	}
	if len(jobs) > 0 {
		left.Add(1)
		h.Engine.Deliver(domain, jobs, one)
	}
	for i, p := range h.Parts {
		if len(other[i]) > 0 {
			left.Add(1)
			p.Deliver(h.Context, domain, other[i], one)
		}
	}
	one()
}
