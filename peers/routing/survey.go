package routing

import (
	"time"

	"github.com/portolan-project/portolan/resourcemodel"
)

// survey is what a domain has for one request, at its best place.
type survey struct {
	fits  bool // it could run it, as far as its aggregates tell
	sure  bool // and does so whichever of the merged parts it is
	now   bool
	wait  time.Duration // of the best place; known says whether anything tells it
	known bool
	room  int // jobs like this that could start now, over all places
	spot  resourcemodel.Spot
	why   string // what stands against it, if it does not fit
}

// surveyOf looks at all places of a domain; "" is our own.
func surveyOf(s *resourcemodel.Snapshot, domain string, r *resourcemodel.Request, d resourcemodel.Derived, p Policy) survey {
	var best survey
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
					if best.why == "" && !best.fits {
						if v := r.Judge(wide.Site, wide.Share, wide.Environment, d); len(v.Clauses) > 0 {
							best.why = v.Clauses[0].Sentence
						}
					}
					continue
				}
				c := survey{fits: true, spot: wide, sure: true}
				if site.Static.Detail != resourcemodel.Full {
					narrow, _ := spotOf(site, i, id)
					c.sure = r.Fits(narrow, d)
				}
				c.now = r.StartsIfFits(wide, d)
				if c.now {
					c.room = r.Room(wide, d)
				}
				c.wait, c.known = waitAt(wide, r, d, p, c.now)
				room := best.room + c.room
				if !best.fits || c.better(best) {
					best = c
				}
				best.room = min(room, resourcemodel.MaxCount)
			}
		}
	}
	if !any {
		best.why = "it shows no resources"
	}
	return best
}

// spotOf gives the place of the i-th share on an environment that it uses.
func spotOf(s *resourcemodel.Site, i int, environment string) (resourcemodel.Spot, bool) {
	e := s.Static.Environment(environment)
	return resourcemodel.Spot{Site: s, Share: &s.Static.Shares[i], Environment: e}, e != nil
}

// better: who starts it now, then who is sure to have it, then the shorter wait, then the
// place that comes first.
func (c survey) better(o survey) bool {
	switch {
	case c.now != o.now:
		return c.now
	case c.sure != o.sure:
		return c.sure
	case c.known != o.known:
		return c.known
	case c.wait != o.wait:
		return c.wait < o.wait
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
