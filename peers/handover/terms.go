package handover

import (
	"time"

	"github.com/portolan-project/portolan/internal/fail"
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

// Bounds of Terms.
const (
	MaxLease = 7 * 24 * time.Hour
	MaxKeep  = 365 * 24 * time.Hour
)

// Check gives fail.Invalid for terms under which no job could be held.
func (t Terms) Check() error {
	bad := func(format string, args ...any) error {
		return fail.Errorf("handover.Terms", fail.Invalid, "", format, args...)
	}
	switch {
	case t.Skew < 0 || t.StopWithin < 0:
		return bad("the bound of the clocks' error and the time to stop a job must not be negative")
	case t.Lease <= 0 || t.Lease > MaxLease:
		return bad("the recall deadline must be above zero and at most %s ahead", MaxLease)
	case t.Resend <= 0 || t.Resend > t.Lease/4:
		return bad("the time after which a message is repeated must be above zero and at most a quarter of the %s to the recall deadline", t.Lease)
	case t.Skew > t.Lease/8 || t.StopWithin > t.Lease/4:
		return bad("the clocks' error must be at most an eighth, and the time to stop a job a quarter, of the %s to the recall deadline, else a copy would end before it could be renewed", t.Lease)
	case t.Keep < 0 || t.Keep > MaxKeep:
		return bad("results must be kept at least no time and at most %s", MaxKeep)
	}
	return nil
}

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
