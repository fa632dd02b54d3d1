package broker

import "math/bits"

// siteSet is a set of sites, by their index in a roster.
type siteSet uint64

func only(i int) siteSet                    { return 1 << i }
func (s siteSet) has(i int) bool            { return s&only(i) != 0 }
func (s siteSet) without(t siteSet) siteSet { return s &^ t }
func (s siteSet) len() int                  { return bits.OnesCount64(uint64(s)) }

// siteView is what a choice needs to know of a site.
type siteView struct {
	Open     bool // it takes jobs at present
	Slots    int  // jobs that run at once
	InFlight int  // jobs that it has or is being given
	Load     int  // the same, and what others keep its slots busy with
	Most     int  // jobs that it is to have at most
}

func (v siteView) room() int {
	if !v.Open {
		return 0
	}
	return max(0, v.Most-v.InFlight)
}

// choice places a job, by its index in the queue, at a site.
type choice struct{ job, site int }

// better reports whether a job is placed at v rather than at w: the more free
// slots win; where none is free, the smaller load for each slot.
func (v siteView) better(w siteView) bool {
	if free, other := v.Slots-v.Load, w.Slots-w.Load; free > 0 || other > 0 {
		return free > other
	}
	return v.Load*w.Slots < w.Load*v.Slots
}

// decide chooses sites for the jobs of a queue, in its order: each job goes to
// the best site among those that it may use and that have room; the first
// configured wins a tie. A job that finds no room does not hold
// up those behind it. It is a function of its arguments alone.
func decide(sites []siteView, queue []siteSet) []choice {
	sites = append([]siteView(nil), sites...)
	open := siteSet(0)
	for i, v := range sites {
		if v.room() > 0 {
			open |= only(i)
		}
	}
	var out []choice
	for j, allowed := range queue {
		if open == 0 {
			break
		}
		best := -1
		for rest := allowed & open; rest != 0; rest &= rest - 1 {
			i := bits.TrailingZeros64(uint64(rest))
			if best < 0 || sites[i].better(sites[best]) {
				best = i
			}
		}
		if best < 0 {
			continue
		}
		out = append(out, choice{j, best})
		sites[best].InFlight++
		sites[best].Load++
		if sites[best].room() == 0 {
			open &^= only(best)
		}
	}
	return out
}
