package handover

import (
	"time"

	"github.com/portolan-project/portolan/peers/wire"
)

// Terms are what two gateways agree on when they open their session, and what each job is
// handed over under; they are kept with it.
type Terms struct {
	// Lease is the longest time that a recall deadline is ahead when it is promised.
	Lease time.Duration `json:"lease"`
	// Skew bounds the error of each clock against true time, at all times. Each side
	// takes it off on its own side.
	Skew time.Duration `json:"skew"`
	// StopWithin is how long a site takes to end a job.
	StopWithin time.Duration `json:"stopWithin"`
	// Resend is the time between a message and its repetition.
	Resend time.Duration `json:"resend"`
	// Keep is how long the end of a copy waits for a giver that is not heard of; no less than
	// to the recall deadline.
	Keep time.Duration `json:"keep"`
}

// EnsureDefaults gives the terms with what is not said filled in.
func (t Terms) EnsureDefaults() Terms {
	set := func(d *time.Duration, to time.Duration) {
		if *d == 0 {
			*d = to
		}
	}
	set(&t.Lease, 10*time.Minute)
	set(&t.Skew, 5*time.Second)
	set(&t.StopWithin, 30*time.Second)
	set(&t.Resend, 10*time.Second)
	set(&t.Keep, 7*24*time.Hour)
	return t
}

// Bounds of Terms, as they stand in the protocol.
const (
	MaxLease = wire.MaxLease
	MaxKeep  = wire.MaxKeep
)

// Check gives fail.Invalid for terms under which no job could be held.
func (t Terms) Check() error { return wire.Terms(t).Check() }

// lapse is when, by its own clock, a taker gives a copy up.
func (t Terms) lapse(recallBy time.Time) time.Time { return recallBy.Add(-t.Skew - t.StopWithin) }

// NotAfter is when, by its own clock, a taker's site must have ended a job that is to be
// stopped by recallBy.
func (t Terms) NotAfter(recallBy time.Time) time.Time { return recallBy.Add(-t.Skew) }

// Elsewhere is when, by its own clock, a giver may place a job elsewhere: after this, and
// not at it or before.
func (t Terms) Elsewhere(recallBy time.Time) time.Time { return recallBy.Add(t.Skew) }

// ask is when a taker asks for a later deadline.
func (t Terms) ask(recallBy time.Time) time.Time { return recallBy.Add(-t.Lease * 3 / 4) }
