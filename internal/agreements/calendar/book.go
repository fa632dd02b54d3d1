package calendar

import (
	"time"
)

// Book has the profiles of pools by their ids. A pool that it does not have has no capacity.
type Book map[string]*Profile

var nothing = NewProfile(Pool{})

func (b Book) profile(pool string) *Profile {
	if f := b[pool]; f != nil {
		return f
	}
	return nothing
}

// need is an amount of a pool for a time, of which no two of the same pool overlap.
type need struct {
	pool    string
	profile *Profile
	amount  Amount
	from, d int64
}

// needs sums up holds that are to be had together.
func (b Book) needs(holds []Hold) []need {
	if len(holds) == 1 {
		h := holds[0]
		return []need{{h.Pool, b.profile(h.Pool), h.Amount, floor(h.From), ceil(h.Until) - floor(h.From)}}
	}
	var order []string
	of := map[string][]Hold{}
	for _, h := range holds {
		if of[h.Pool] == nil {
			order = append(order, h.Pool)
		}
		of[h.Pool] = append(of[h.Pool], h)
	}
	var out []need
	for _, pool := range order {
		sum := NewProfile(Pool{}, of[pool]...)
		for i, q := range sum.points {
			if !q.held.zero() {
				out = append(out, need{pool, b.profile(pool), q.held, q.at, sum.end(i) - q.at})
			}
		}
	}
	return out
}

// Fits says whether the holds fit, all of them together.
func (b Book) Fits(holds []Hold) bool {
	for _, n := range b.needs(holds) {
		if !n.profile.fits(n.amount, n.from, n.from+n.d) {
			return false
		}
	}
	return true
}

// Lacking gives the first pool that has no room for its part of the holds; "" is none.
func (b Book) Lacking(holds []Hold) string {
	for _, n := range b.needs(holds) {
		if !n.profile.fits(n.amount, n.from, n.from+n.d) {
			return n.pool
		}
	}
	return ""
}

// maxShifts bounds the work of Earliest where the pools have room in turn and never at once.
const maxShifts = 4096

// Earliest gives by how much the holds must be put off to fit, all by the same and by no more
// than most, so that the last ends by the horizon (zero: there is none). False: there is no such
// time, or it was not found after trying thousands of times at which a single one of them fits.
func (b Book) Earliest(holds []Hold, most time.Duration, horizon time.Time) (time.Duration, bool) {
	end := int64(ever)
	if !horizon.IsZero() {
		end = floor(horizon)
	}
	needs := b.needs(holds)
	limit := int64(most / time.Second)
	shift := int64(0)
	for range maxShifts {
		moved := false
		for _, n := range needs {
			at, ok := n.profile.earliest(n.amount, n.d, n.from+shift, end, n.from+limit)
			if !ok {
				return 0, false
			}
			// A beginning in what is forgotten is no reason to begin later.
			if at > max(n.from+shift, n.profile.past) {
				shift, moved = at-n.from, true
			}
		}
		if !moved {
			return time.Duration(shift) * time.Second, true
		}
	}
	return 0, false
}
