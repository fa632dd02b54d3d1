package schedule

import (
	"slices"
	"time"

	"github.com/portolan-project/portolan/resourcemodel"
)

// Sight is what Outlook needs to know of a share beside what is promised of it, for another process that
// knows the promises.
type Sight struct {
	Standing
	Queue []Planned `json:",omitempty"` // that queue there, in their order
}

// Sight gives a Look without what is promised.
func (l *Look) Sight() Sight { return Sight{l.st, l.queue[:min(len(l.queue), maxPlanned)]} }

// Look gives a Sight together with what is promised, as of now, in the order of SortHolds; of the holds those that
// are of no concern to the share are left out, see HoldsOn.
func (s *Sight) Look(holds []*Hold, now time.Time) Look {
	return Look{st: s.Standing, queue: s.Queue, holds: holds, now: now}
}

// SortHolds gives holds in the order in which they are looked at: that of their beginnings.
func SortHolds(holds []Hold) []*Hold {
	sorted := make([]*Hold, len(holds))
	for i := range holds {
		sorted[i] = &holds[i]
	}
	slices.SortStableFunc(sorted, (*Hold).before)
	return sorted
}

// HoldsOn gives of holds, in their order, those that concern a share of a site: its own and, without their slots,
// those of shares that use the same nodes. What the site's manager keeps itself shows in what is free.
func HoldsOn(site *resourcemodel.Site, share string, holds []*Hold) []*Hold {
	if site == nil || site.Static == nil {
		return nil
	}
	h := site.Static.Share(share)
	if h == nil {
		return nil
	}
	mine := make([]*Hold, 0, len(holds))
	for _, x := range holds {
		if x.AtManager || x.Key != site.Key {
			continue
		}
		if x.Share != share && x.Share != "" {
			other := site.Static.Share(x.Share)
			if other == nil || x.CPUs == 0 || !slices.ContainsFunc(other.Environments, func(id string) bool { return slices.Contains(h.Environments, id) }) {
				continue
			}
			without := *x
			without.Slots = 0
			x = &without
		}
		mine = append(mine, x)
	}
	return mine
}

// Coarser gives a Sight with at most so many entries of jobs that run: those that end about the same time
// are one, that ends with the last of them. Nothing can start sooner by it than it could.
func (s *Sight) Coarser(most int) Sight {
	out := *s
	for step := time.Minute; ; step *= 4 {
		var untold int
		out.Busy, untold = coarser(s.Busy, step)
		out.Untold = s.Untold + untold
		if len(out.Busy) <= most || step > 1000*24*time.Hour {
			return out
		}
	}
}

func coarser(all []Busy, step time.Duration) (out []Busy, untold int) {
	type kind struct {
		until int64
		room  string
		vo    string
	}
	at := map[kind]int{}
	for _, b := range all {
		k := kind{room: b.Room, vo: b.VO}
		if !b.Until.IsZero() {
			if up := b.Until.Truncate(step); up.Before(b.Until) {
				b.Until = up.Add(step)
			}
			k.until = b.Until.UnixNano()
		}
		if i, ok := at[k]; ok {
			out[i].Amount = out[i].plus(b.Amount, 1)
			if b.Until.IsZero() {
				untold++
			}
			continue
		}
		at[k] = len(out)
		out = append(out, b)
	}
	return out, untold
}
