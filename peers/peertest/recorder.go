package peertest

import (
	"fmt"
	"slices"
	"sync"

	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
)

// Recorder is a handler that notes what it is told, and is done with items at once.
type Recorder struct {
	// Hold has items not be done with before Release.
	Hold bool
	// On is called with each delivery, before it is done with. May be nil.
	On func(domain string, items []wire.Message)

	mu      sync.Mutex
	events  []string
	items   map[string][]wire.Message
	begins  map[string][]int
	held    []func()
	opened  map[string]session.Agreement
	changed chan struct{}
}

func (r *Recorder) note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, fmt.Sprintf(format, args...))
	r.signal()
}

func (r *Recorder) signal() {
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// Changed gives what is closed when something else is noted.
func (r *Recorder) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return r.changed
}

// Opened notes "domain: opened".
func (r *Recorder) Opened(domain string, a session.Agreement) {
	r.mu.Lock()
	if r.opened == nil {
		r.opened = map[string]session.Agreement{}
	}
	r.opened[domain] = a
	if r.begins == nil {
		r.begins = map[string][]int{}
	}
	r.begins[domain] = append(r.begins[domain], len(r.items[domain]))
	r.mu.Unlock()
	r.note("%s: opened", domain)
}

// Turned notes "domain: from→to".
func (r *Recorder) Turned(domain string, t session.Turn) { r.note("%s: %s→%s", domain, t.From, t.To) }

// Draining notes "domain: draining".
func (r *Recorder) Draining(domain, _ string) { r.note("%s: draining", domain) }

// Closed notes "domain: closed reason".
func (r *Recorder) Closed(domain string, reason wire.CloseReason, _ string) {
	r.note("%s: closed %s", domain, reason)
}

// Free notes "domain: free".
func (r *Recorder) Free(domain string) { r.note("%s: free", domain) }

// Deliver keeps the items.
func (r *Recorder) Deliver(domain string, items []wire.Message, done func()) {
	if r.On != nil {
		r.On(domain, items)
	}
	r.mu.Lock()
	if r.items == nil {
		r.items = map[string][]wire.Message{}
	}
	r.items[domain] = append(r.items[domain], items...)
	hold := r.Hold
	if hold {
		r.held = append(r.held, done)
	}
	r.signal()
	r.mu.Unlock()
	if !hold {
		done()
	}
}

// Release has what is held be done with, the last first, and holds no more.
func (r *Recorder) Release() {
	r.mu.Lock()
	held := r.held
	r.held, r.Hold = nil, false
	r.mu.Unlock()
	slices.Reverse(held)
	for _, done := range held {
		done()
	}
}

// Events gives what was noted.
func (r *Recorder) Events() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.events)
}

// Items gives what a domain sent, in all its sessions.
func (r *Recorder) Items(domain string) []wire.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.items[domain])
}

// Sessions gives what a domain sent, session by session.
func (r *Recorder) Sessions(domain string) [][]wire.Message {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out [][]wire.Message
	for i, from := range r.begins[domain] {
		to := len(r.items[domain])
		if i+1 < len(r.begins[domain]) {
			to = r.begins[domain][i+1]
		}
		out = append(out, slices.Clone(r.items[domain][from:to]))
	}
	return out
}

// Agreement gives that of the last session with a domain.
func (r *Recorder) Agreement(domain string) session.Agreement {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.opened[domain]
}
