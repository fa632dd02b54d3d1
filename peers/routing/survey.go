package routing

import (
	"time"

	"github.com/portolan-project/portolan/resourcemodel"
)

// Survey is what a domain has for one request, at its best place.
type Survey struct {
	Fits  bool // it could run it, as far as its aggregates tell
	Sure  bool // and does so whichever of the merged parts it is
	Now   bool
	Wait  time.Duration // of the best place; Known says whether anything tells it
	Known bool
	Room  int // jobs like this that could start now, over all places
	Spot  resourcemodel.Spot
	Why   string // what stands against it, if it does not fit
}

// Look looks at all places that a snapshot has of a domain; "" is our own.
func Look(s *resourcemodel.Snapshot, domain string, r *resourcemodel.Request, d resourcemodel.Derived, p Policy) Survey {
	var best Survey
	any := false
	for site := range s.SitesOf(domain) {
		any = true
		widest := resourcemodel.Widest(site)
		for i := range site.Static.Shares {
			for _, id := range site.Static.Shares[i].Environments {
				wide, ok := spotOf(widest, i, id)
				if !ok {
					continue
				}
				if !r.Fits(wide, d) {
					if best.Why == "" && !best.Fits {
						if v := r.Judge(wide.Site, wide.Share, wide.Environment, d); len(v.Clauses) > 0 {
							best.Why = v.Clauses[0].Sentence
						}
					}
					continue
				}
				c := Survey{Fits: true, Spot: wide, Sure: true}
				if site.Static.Detail != resourcemodel.Full {
					narrow, _ := spotOf(site, i, id)
					c.Sure = r.Fits(narrow, d)
				}
				c.Now = r.StartsIfFits(wide, d)
				if c.Now {
					c.Room = r.Room(wide, d)
				}
				c.Wait, c.Known = waitAt(wide, r, d, p, c.Now)
				room := best.Room + c.Room
				if !best.Fits || c.Better(best) {
					best = c
				}
				best.Room = min(room, resourcemodel.MaxCount)
			}
		}
	}
	if !any {
		best.Why = "it shows no resources"
	}
	return best
}

// spotOf gives the place of the i-th share on an environment that it uses.
func spotOf(s *resourcemodel.Site, i int, environment string) (resourcemodel.Spot, bool) {
	e := s.Static.Environment(environment)
	return resourcemodel.Spot{Site: s, Share: &s.Static.Shares[i], Environment: e}, e != nil
}

// Better puts two places of a domain in order: who starts it now, then who is sure to have it, then the shorter wait, then the
// place that comes first.
func (c Survey) Better(o Survey) bool {
	switch {
	case c.Now != o.Now:
		return c.Now
	case c.Sure != o.Sure:
		return c.Sure
	case c.Known != o.Known:
		return c.Known
	case c.Wait != o.Wait:
		return c.Wait < o.Wait
	}
	return false
}

// waitAt is how long a job would wait: as it is estimated, as the manager tells, or by the
// jobs that wait before it.
func waitAt(w resourcemodel.Spot, r *resourcemodel.Request, d resourcemodel.Derived, p Policy, now bool) (time.Duration, bool) {
	if now {
		return 0, true
	}
	if d.Wait != nil {
		if t, ok := d.Wait(w.Place(), &r.Need); ok {
			return max(t, 0), true
		}
	}
	state, ok := w.Site.Dynamic.Share(w.Share.ID)
	switch {
	case !ok || !state.Open || !w.Site.Dynamic.Up:
		return 0, false
	case state.Forecast > 0:
		return state.Forecast, true
	}
	slots := max(w.Share.Slots, state.Running, 1)
	// Each slot ends a job every typical time; that one has half of it left.
	wait := float64(p.Typical) * (0.5 + float64(state.Waiting)/float64(slots))
	return time.Duration(min(wait, float64(365*24*time.Hour))), true
}
