package calendar

import (
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

// Amount is how much of a pool: each kind is counted by itself.
type Amount struct {
	Slots int64 `json:"slots,omitempty"` // jobs at once
	CPUs  int64 `json:"cpus,omitempty"`
	Nodes int64 `json:"nodes,omitempty"` // whole nodes; counted only where the pool has any
}

// MaxAmount bounds each number of an Amount, so that no sum of holds overflows.
const MaxAmount = 1 << 40

// plus gives a + n·b.
func (a Amount) plus(b Amount, n int64) Amount {
	return Amount{a.Slots + n*b.Slots, a.CPUs + n*b.CPUs, a.Nodes + n*b.Nodes}
}

// zero says that it is nothing.
func (a Amount) zero() bool { return a == Amount{} }

// least gives the lower of each number.
func (a Amount) least(b Amount) Amount {
	return Amount{min(a.Slots, b.Slots), min(a.CPUs, b.CPUs), min(a.Nodes, b.Nodes)}
}

// floor gives 0 for each number below it.
func (a Amount) floor() Amount {
	return Amount{max(a.Slots, 0), max(a.CPUs, 0), max(a.Nodes, 0)}
}

// Within says whether b has as much of each kind. Of what a has nothing, b may have less than
// nothing.
func (a Amount) Within(b Amount) bool {
	return (a.Slots <= 0 || a.Slots <= b.Slots) && (a.CPUs <= 0 || a.CPUs <= b.CPUs) && (a.Nodes <= 0 || a.Nodes <= b.Nodes)
}

func (a Amount) odd() bool {
	for _, n := range []int64{a.Slots, a.CPUs, a.Nodes} {
		if n < 0 || n > MaxAmount {
			return true
		}
	}
	return false
}

// Outage takes capacity away for a time: all of it, or a part. Outages at the same time add up.
type Outage struct {
	From  time.Time `json:"from"`
	Until time.Time `json:"until,omitzero"` // zero: no end is known
	Less  Amount    `json:"less"`
}

// Pool is the capacity of one share of a site.
type Pool struct {
	ID string `json:"id"` // "slurm/batch"
	// Capacity is what there is. Where it has no nodes, those of holds are not counted.
	Capacity Amount   `json:"capacity"`
	Outages  []Outage `json:"outages,omitempty"`
}

// Bounds of what one pool may say.
const (
	MaxID      = 256 // bytes of the id of a pool or a hold
	MaxOutages = 256 // of a pool
)

// Check reports what is wrong with a pool.
func (p *Pool) Check() error {
	const op = "calendar.Pool"
	switch {
	case p.ID == "" || len(p.ID) > MaxID || strings.ContainsRune(p.ID, 0):
		return fail.Errorf(op, fail.Invalid, p.ID, "a pool needs an id of 1 to %d bytes; this one has %d", MaxID, len(p.ID))
	case p.Capacity.odd():
		return fail.Errorf(op, fail.Invalid, p.ID, "the capacity of the pool %s is %+v; each number must be from 0 to %d", p.ID, p.Capacity, int64(MaxAmount))
	case len(p.Outages) > MaxOutages:
		return fail.Errorf(op, fail.Exhausted, p.ID, "the pool %s has %d outages; it may have %d", p.ID, len(p.Outages), MaxOutages)
	}
	for _, o := range p.Outages {
		switch {
		case o.Less.odd():
			return fail.Errorf(op, fail.Invalid, p.ID, "an outage of the pool %s takes %+v; each number must be from 0 to %d", p.ID, o.Less, int64(MaxAmount))
		case !sane(o.From) || !o.Until.IsZero() && (!sane(o.Until) || !o.Until.After(o.From)):
			return fail.Errorf(op, fail.Invalid, p.ID, "an outage of the pool %s is from %s until %s; it must end after it begins", p.ID, o.From.Format(time.RFC3339), o.Until.Format(time.RFC3339))
		}
	}
	return nil
}

// Hold is an amount of a pool from one instant until another, which is no part of it.
type Hold struct {
	ID   string `json:"id,omitempty"` // as its owner calls it
	Pool string `json:"pool"`
	Amount
	From  time.Time `json:"from"`
	Until time.Time `json:"until"`
}

// Check reports what is wrong with a hold.
func (h *Hold) Check() error {
	const op = "calendar.Hold"
	switch {
	case len(h.ID) > MaxID:
		return fail.Errorf(op, fail.Invalid, "", "a hold's id may have %d bytes; this one has %d", MaxID, len(h.ID))
	case h.Pool == "" || len(h.Pool) > MaxID || strings.ContainsRune(h.Pool, 0):
		return fail.Errorf(op, fail.Invalid, h.ID, "a hold must name its pool in 1 to %d bytes", MaxID)
	case h.odd():
		return fail.Errorf(op, fail.Invalid, h.ID, "the hold asks for %d slots, %d CPUs and %d nodes; each must be from 0 to %d", h.Slots, h.CPUs, h.Nodes, int64(MaxAmount))
	case h.zero():
		return fail.Errorf(op, fail.Invalid, h.ID, "the hold asks for nothing; say how many slots, CPUs or nodes")
	case !sane(h.From) || !sane(h.Until) || !h.Until.After(h.From):
		return fail.Errorf(op, fail.Invalid, h.ID, "the hold is from %s until %s; it must end after it begins", h.From.Format(time.RFC3339), h.Until.Format(time.RFC3339))
	}
	return nil
}

// Outward gives the hold in whole seconds: the last before it begins, the first after it ends.
func (h Hold) Outward() Hold {
	h.From, h.Until = instant(floor(h.From)), instant(ceil(h.Until))
	return h
}

// Shift gives the hold later by d.
func (h Hold) Shift(d time.Duration) Hold {
	h.From, h.Until = h.From.Add(d), h.Until.Add(d)
	return h
}

// sane says that a time is of the years 1 to 9999, which RFC 3339 can write.
func sane(t time.Time) bool { return t.Year() >= 1 && t.Year() <= 9999 }

func floor(t time.Time) int64 { return t.Unix() }

func ceil(t time.Time) int64 {
	if t.Nanosecond() > 0 {
		return t.Unix() + 1
	}
	return t.Unix()
}

func instant(s int64) time.Time { return time.Unix(s, 0).UTC() }
