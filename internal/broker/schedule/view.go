package schedule

import (
	"fmt"
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/resourcemodel"
)

// view is what a class sees of the places, as long as nothing but takings changes it.
type view struct {
	class *class
	epoch uint64
	now   time.Time
	seen  int                // takings in the log that it reckons with
	cands []policy.Candidate // those with room
	full  []Ruled            // could run the jobs, but have no room for them
	ruled []Ruled            // could not
	more  int                // further ones that could not
	out   []Ruled            // both, bounded; nil when they changed
	rest  int                // that are in neither
	told  bool               // ruled was asked for
}

// maxViews bounds the views that are kept, and maxLog the takings that they follow.
const (
	maxViews = 512
	maxLog   = 1 << 16
)

// look gives what a class sees now.
func (s *Scheduler) look(c *class, now time.Time) *view {
	v := c.view
	if v == nil || v.epoch != s.epoch || !v.now.Equal(now) {
		return s.build(c, now)
	}
	if v.seen < len(s.log) {
		s.follow(v, now)
	}
	return v
}

// build looks at all places.
func (s *Scheduler) build(c *class, now time.Time) *view {
	v := c.view
	if v == nil {
		v = &view{class: c}
		c.view = v
		if len(s.views) == maxViews {
			s.dropView(s.views[0].class)
		}
		s.views = append(s.views, v)
	}
	if len(s.log) > maxLog {
		s.forgetViews(v)
	}
	cands := v.cands[:0]
	*v = view{class: c, epoch: s.epoch, now: now, seen: len(s.log)}
	v.cands = s.places.Candidates(cands, c.request, s.derived(now))
	s.sift(v, now, func(*policy.Candidate) bool { return true })
	return v
}

// follow takes into account what was taken since.
func (s *Scheduler) follow(v *view, now time.Time) {
	sites := s.log[v.seen:]
	v.seen = len(s.log)
	if len(sites) > 64 {
		s.build(v.class, now)
		return
	}
	s.sift(v, now, func(c *policy.Candidate) bool {
		if !slices.Contains(sites, c.Place.Key) {
			return false
		}
		s.places.Refresh(c, v.class.request)
		return true
	})
}

// sift moves the candidates that have no room, among those that changed, to full.
func (s *Scheduler) sift(v *view, now time.Time, changed func(*policy.Candidate) bool) {
	kept := 0
	for i := range v.cands {
		c := &v.cands[i]
		if changed(c) && s.room(v.class, c, now) == 0 {
			v.full = append(v.full, s.fullness(v.class, c, now))
			v.out = nil
			continue
		}
		if kept != i {
			v.cands[kept] = *c
		}
		kept++
	}
	clear(v.cands[kept:])
	v.cands = v.cands[:kept]
	soften(v.class.request, v.cands, s.derived, now)
}

// soften grades candidates by the soft criteria.
func soften(r *resourcemodel.Request, cands []policy.Candidate, derived Derived, now time.Time) {
	if len(r.Soft) == 0 || len(cands) == 0 {
		return
	}
	where := make([]resourcemodel.Where, len(cands))
	for i := range cands {
		where[i] = resourcemodel.Where{Site: cands[i].Site, Share: cands[i].Share, Environment: cands[i].Env}
	}
	for i, x := range r.SoftScore(where, derived(now)) {
		cands[i].Soft = x
	}
}

// room gives how many jobs of a class a candidate takes now.
func (s *Scheduler) room(of *class, c *policy.Candidate, now time.Time) int {
	v := s.site(c.Place.Key)
	if v.credit() == 0 || v.closed(now) || len(of.avoid) > 0 && slices.Contains(of.avoid, v.key) {
		return 0
	}
	n := c.Free
	if n <= 0 {
		n = max(v.Ahead-v.ahead, 0)
	}
	return min(n, v.credit())
}

// fullness says why a candidate has no room.
func (s *Scheduler) fullness(of *class, c *policy.Candidate, now time.Time) Ruled {
	v := s.site(c.Place.Key)
	r := Ruled{Place: c.Place}
	switch {
	case slices.Contains(of.avoid, v.key):
		r.Element, r.Sentence = "Placement", fmt.Sprintf("the job is not to get site %s again", v.key)
	case v.closed(now):
		r.Element, r.Sentence = "Site", v.sentence()
	case v.credit() == 0:
		r.Element, r.Sentence = "Site", fmt.Sprintf("site %s has as many jobs of this gateway as it is to have", v.key)
	default:
		r.Element, r.Sentence = "Room", fmt.Sprintf("%s has no room for it now: %s", c.Place, wants(&of.request.Need, c))
	}
	return r
}

// sentence says that the site is closed.
func (v *site) sentence() string {
	why := ""
	if v.Problem != "" {
		why = ": " + v.Problem
	}
	if v.Reopen.IsZero() {
		return fmt.Sprintf("site %s is closed%s", v.key, why)
	}
	return fmt.Sprintf("site %s is closed until %s%s", v.key, v.Reopen.UTC().Format(time.RFC3339), why)
}

// wants says what a job takes and what there is.
func wants(n *resourcemodel.Need, c *policy.Candidate) string {
	cpus := "1 CPU"
	if n.CPUs > 1 {
		cpus = fmt.Sprintf("%d CPUs", n.CPUs)
	}
	return fmt.Sprintf("it takes %s, and %d jobs run and %d wait there", cpus, c.State.Running, c.State.Waiting)
}

// ruled gives why the other places are no candidates, and how many were left out.
func (s *Scheduler) ruled(v *view, now time.Time) ([]Ruled, int) {
	if !v.told {
		v.ruled, v.more = s.places.Ruled(v.class.request, s.derived(now), MaxRuled)
		v.told = true
	}
	if v.out == nil {
		full := v.full[:min(len(v.full), MaxRuled)]
		ruled := v.ruled[:min(len(v.ruled), MaxRuled-len(full))]
		v.out = slices.Concat(full, ruled)
		v.rest = v.more + len(v.full) + len(v.ruled) - len(v.out)
	}
	return v.out, v.rest
}

// dropView forgets what a class saw.
func (s *Scheduler) dropView(c *class) {
	if c.view == nil {
		return
	}
	if i := slices.Index(s.views, c.view); i >= 0 {
		s.views = slices.Delete(s.views, i, i+1)
	}
	c.view = nil
}

// forgetViews lets all other views be built anew, so that the log can begin anew.
func (s *Scheduler) forgetViews(but *view) {
	for _, v := range s.views {
		if v != but {
			v.class.view = nil
		}
	}
	s.views = append(s.views[:0], but)
	s.log = s.log[:0]
}
