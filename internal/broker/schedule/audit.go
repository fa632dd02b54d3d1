package schedule

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

// Audit looks at every place for every class that sleeps, without any index, and says
// which of them was not woken though there is room for its jobs: fail.Internal, since
// that would be a fault of ours. What the next Round is about to look at anyway, since
// something changed there, is not missed. It also counts what is filed where.
func (s *Scheduler) Audit(now time.Time) error {
	const op = "schedule.Audit"
	all := NewSurvey(s.places.Snapshot())
	for _, g := range s.given {
		if g.unsettled {
			all.Take(g.place, &g.job.Request.Need)
		}
	}
	d := s.derived(now)
	for _, id := range slices.Sorted(maps.Keys(s.byID)) {
		c := s.byID[id]
		if c.awake[0] {
			continue
		}
		if c.full {
			if !s.limited(c) {
				return fail.Errorf(op, fail.Internal, "", "class %d sleeps for a limit that is not reached", id)
			}
			continue
		}
		for _, o := range all.Candidates(nil, c.request, d) {
			p := all.Place(o.Order)
			v := s.site(p.Key)
			if v.dirty || v.Closed || s.room(c, v, o.Order, o.Free, now) == 0 {
				continue
			}
			return fail.Errorf(op, fail.Internal, "", "class %d, of %d jobs, sleeps, though %s has room", id, c.n, p)
		}
	}
	return s.tally(op)
}

// tally counts what is filed.
func (s *Scheduler) tally(op string) error {
	jobs := map[*class]int{}
	filed := 0
	for _, w := range s.jobs {
		if w.class == nil {
			continue
		}
		filed++
		jobs[w.class]++
		if (w.spot.in == nil) != w.barred {
			return fail.Errorf(op, fail.Internal, w.ID, "job %s is filed wrongly", w.ID)
		}
	}
	if filed+s.later.len() != len(s.jobs) {
		return fail.Errorf(op, fail.Internal, "", "%d jobs wait, %d are filed and %d wait for their time", len(s.jobs), filed, s.later.len())
	}
	for _, b := range s.books {
		if b == nil {
			continue
		}
		awake := 0
		for _, c := range s.classes {
			if c.n != jobs[c] {
				return fail.Errorf(op, fail.Internal, "", "class %d has %d jobs and counts %d", c.id, jobs[c], c.n)
			}
			if c.awake[b.index] {
				awake++
				if len(c.out[b.index]) > 0 {
					return fail.Errorf(op, fail.Internal, "", "class %d is awake, and has cells that are out", c.id)
				}
			}
		}
		if awake != b.awake {
			return fail.Errorf(op, fail.Internal, "", "%d classes are awake, and %d are counted", awake, b.awake)
		}
		if err := b.check(op); err != nil {
			return err
		}
	}
	return nil
}

// check looks whether everything is where it thinks it is.
func (b *book) check(op string) error {
	for _, l := range b.lanes {
		in := 0
		for _, t := range l.tiers {
			if err := t.check(op, b.index); err != nil {
				return err
			}
			if (t.heap.len() > 0) != (t.at >= 0) || t.at >= 0 && l.heap.items[t.at] != t {
				return fail.Errorf(op, fail.Internal, "", "tier %s has %d groups, and is at %d", t.name, t.heap.len(), t.at)
			}
			if t.at >= 0 {
				in++
			}
		}
		if in != l.heap.len() {
			return fail.Errorf(op, fail.Internal, "", "lane %s has %d tiers, and %d in its heap", fmt.Sprint(l.laneKey), in, l.heap.len())
		}
	}
	return nil
}

func (t *tier) check(op string, index int) error {
	in := 0
	for name, g := range t.groups {
		cells := 0
		for _, c := range g.cells {
			if c.heap.len() == 0 {
				return fail.Errorf(op, fail.Internal, "", "group %s has an empty cell", name)
			}
			if c.at < 0 {
				if c.class.out[index][c.out] != c {
					return fail.Errorf(op, fail.Internal, "", "group %s has a lost cell", name)
				}
				continue
			}
			if cells++; g.heap.items[c.at] != c {
				return fail.Errorf(op, fail.Internal, "", "group %s has a cell at the wrong position", name)
			}
		}
		if cells != g.heap.len() || (cells > 0) != (g.at >= 0) {
			return fail.Errorf(op, fail.Internal, "", "group %s has %d cells, and %d in its heap", name, cells, g.heap.len())
		}
		if g.at >= 0 {
			if in++; t.heap.items[g.at] != g {
				return fail.Errorf(op, fail.Internal, "", "group %s is at the wrong position", name)
			}
		}
	}
	if in != t.heap.len() {
		return fail.Errorf(op, fail.Internal, "", "tier %s has %d groups, and %d in its heap", t.name, in, t.heap.len())
	}
	return nil
}
