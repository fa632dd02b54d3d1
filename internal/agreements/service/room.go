package service

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/portolan-project/portolan/internal/agreements/calendar"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/resourcemodel"
)

// rooms is what is held, by agreement.
type rooms struct {
	mu       sync.Mutex // also while the broker is told, so that nothing older comes after what is newer
	told     bool       // all of it, once
	of       map[string]room
	ended    int // of which nothing is held, and that are remembered so that no older word counts
	capacity map[string]bool
}

type room struct {
	revision int64
	holds    []schedule.Hold
}

// mostEnded bounds what is remembered of agreements that hold nothing any more.
const mostEnded = 10_000

// hold notes what is held for an agreement, and has the broker know it.
func (s *Service) hold(r *engine.Record) {
	holds, capacity := s.holdsOf(r)
	s.rooms.mu.Lock()
	defer s.rooms.mu.Unlock()
	old, was := s.rooms.of[r.ID]
	if was && old.revision >= r.Revision {
		return
	}
	s.rooms.of[r.ID] = room{r.Revision, holds}
	if delete(s.rooms.capacity, r.ID); capacity && len(holds) > 0 {
		s.rooms.capacity[r.ID] = true
	}
	if len(holds) == 0 {
		if s.rooms.ended++; s.rooms.ended > mostEnded {
			s.rooms.ended = 0
			for id, o := range s.rooms.of {
				if len(o.holds) == 0 && id != r.ID {
					delete(s.rooms.of, id)
				}
			}
		}
	}
	if !s.rooms.told || slices.EqualFunc(old.holds, holds, func(a, b schedule.Hold) bool {
		return a.AtManager == b.AtManager && a.From.Equal(b.From) && a.Until.Equal(b.Until) && a.Key == b.Key && a.Share == b.Share && a.CPUs == b.CPUs && a.Slots == b.Slots
	}) {
		return
	}
	s.b.ChangeRoom(r.ID, holds)
}

// holdsOf gives what is held for an agreement, as the broker is told.
func (s *Service) holdsOf(r *engine.Record) (out []schedule.Hold, capacity bool) {
	if r.Plan == nil || r.Final() {
		return nil, false
	}
	placed, err := terms.Placements(r.Plan)
	if err != nil {
		s.o.Log.Error("what is held for an agreement can't be read", "agreement", r.ID, "cause", err)
		return nil, false
	}
	n, err := noteOf(r)
	if err != nil {
		s.o.Log.Error("the note of an agreement can't be read", "agreement", r.ID, "cause", err)
		n = &note{}
	}
	d, _ := detailOf(r) // of an agreement that is made elsewhere nothing is said
	capacity = d.Kind == terms.Capacity
	domain := ""
	if capacity && s.o.Domain != nil {
		domain = s.o.Domain(r.Owner)
	}
	for i := range placed {
		p := &placed[i]
		if len(p.Holds) == 0 || p.Holds[0] >= len(r.Plan.Holds) || i < len(n.Services) && n.Services[i].over() {
			continue
		}
		h := r.Plan.Holds[p.Holds[0]]
		if domain != "" { // its jobs are as narrow as they may be: each CPU that it bought may be one
			h.Slots = max(h.Slots, h.CPUs)
		}
		out = append(out, schedule.Hold{
			ID: roomOf(r.ID, i), Agreement: r.ID, Key: resourcemodel.Key{Site: p.Site}, Share: p.Share,
			Slots: int(h.Slots), CPUs: int(h.CPUs), From: h.From, Until: h.Until, Owner: r.Owner, VO: r.VO,
			ForVO: capacity, AtManager: n.held(i) != nil, ForDomain: domain,
		})
	}
	return out, capacity
}

// tellRoom tells the broker all that is held, and from then on hold what changes.
func (s *Service) tellRoom() {
	s.rooms.mu.Lock()
	defer s.rooms.mu.Unlock()
	var all []schedule.Hold
	for _, r := range s.rooms.of {
		all = append(all, r.holds...)
	}
	s.rooms.told = true
	s.b.KeepRoom(all)
}

// roomLoop has the broker know what is held, whenever that changed.
func (s *Service) roomLoop(ctx context.Context) error {
	s.tellRoom()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.roomNews:
		}
		s.mu.Lock()
		changed := s.changed
		s.changed = map[string]engine.Record{}
		s.mu.Unlock()
		for _, r := range changed {
			s.hold(&r)
		}
	}
}

// poolLoop tells the engine what of the sites can be promised, whenever the model changed.
func (s *Service) poolLoop(ctx context.Context) error {
	stop := s.o.Model.Updates(func(resourcemodel.Delta) { nudge(s.poolNews) })
	defer stop()
	nudge(s.poolNews)
	late, look := time.NewTimer(mostStart), time.NewTicker(lookTime)
	defer late.Stop()
	defer look.Stop()
	ready, waited := false, false
	var told []calendar.Pool
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.poolNews:
		case <-late.C:
			waited = true
		case <-look.C: // less is written only once it was told of for long, by any replica
			s.warn(ctx, s.e.Endangered())
			continue
		}
		known := waited || ready || s.knowsSites() // before the snapshot that is told
		pools := terms.Pools(s.o.Model.Snapshot(), s.o.Settings)
		if told != nil && (ready || !known) && slices.EqualFunc(told, pools, func(a, b calendar.Pool) bool { return a.ID == b.ID && a.Capacity == b.Capacity }) {
			continue
		}
		var dangers []engine.Danger
		err := s.insist(ctx, "the capacity of the sites", func() (err error) {
			dangers, err = s.e.SetPools(ctx, pools)
			return err
		})
		if err == nil {
			told = pools
		}
		if ctx.Err() == nil && known && !ready {
			ready = true
			close(s.ready)
		}
		if err != nil {
			s.o.Log.Error("the calendar does not take what the sites have", "cause", err)
			continue
		}
		s.warn(ctx, dangers)
		s.rooms.mu.Lock()
		var ids []string
		for id := range s.rooms.capacity {
			ids = append(ids, id)
		}
		s.rooms.mu.Unlock()
		for _, id := range ids {
			s.work.add(id, time.Time{})
		}
	}
}

// mostStart bounds how long Ready waits until the model has the sites that answer.
const mostStart = 10 * time.Second

// lookTime is how often it is looked whether agreements are in danger, though nothing was heard of sites.
const lookTime = time.Minute

// knowsSites reports whether the model has all of our sites that answered.
func (s *Service) knowsSites() bool {
	m := s.o.Model.Snapshot()
	for _, st := range s.b.Survey() {
		if st.State != broker.SiteUp || st.Capacity == nil {
			continue
		}
		if site := m.Site(resourcemodel.Key{Site: st.Name}); site == nil || site.Static == nil || site.Dynamic == nil {
			return false
		}
	}
	return true
}

// warn says once in the history of each agreement that there is not enough any more of what it holds.
func (s *Service) warn(ctx context.Context, dangers []engine.Danger) {
	for _, d := range dangers {
		if !s.e.Responsible(d.ID) {
			continue
		}
		if r, err := s.e.Get(ctx, d.ID); err != nil || warned(&r) {
			continue
		}
		_, err := s.e.Update(ctx, d.ID, func(r *engine.Record) error {
			n, err := noteOf(r)
			if err != nil {
				return err
			}
			if n.Endangered {
				return errSame
			}
			n.Endangered = true
			r.Tell(s.now(), "danger", "of "+d.Pool+" is less there than was promised, from "+d.From.UTC().Format(time.RFC3339)+" until "+d.Until.UTC().Format(time.RFC3339)+", and others were accepted before")
			return n.encode(r)
		})
		if err != nil && unlessOver(err) != nil {
			s.o.Log.Warn("the danger to an agreement is not in its history", "agreement", d.ID, "cause", err)
		}
	}
}

func warned(r *engine.Record) bool {
	n, err := noteOf(r)
	return err != nil || n.Endangered
}

// usable gives how much of a capacity there is at present.
func (s *Service) usable(r *engine.Record, placed []terms.Placed, i int) int64 {
	if i >= len(placed) || len(placed[i].Holds) == 0 {
		return 0
	}
	p := &placed[i]
	m := s.o.Model.Snapshot()
	site := m.Site(resourcemodel.Key{Site: p.Site})
	if site == nil || site.Dynamic == nil || !site.Dynamic.Up {
		return 0
	}
	h := r.Plan.Holds[p.Holds[0]]
	whole := terms.Settings{Promise: 100} // what is there, and not what may be promised of it
	for _, pool := range terms.Pools(m, whole) {
		if pool.ID != h.Pool {
			continue
		}
		n := max(h.CPUs, h.Slots)
		have := n
		if h.CPUs > 0 {
			have = min(have, pool.Capacity.CPUs)
		}
		if h.Slots > 0 {
			have = min(have, pool.Capacity.Slots)
		}
		if h.Nodes > 0 {
			return min(h.Nodes, pool.Capacity.Nodes)
		}
		return have
	}
	return 0
}
