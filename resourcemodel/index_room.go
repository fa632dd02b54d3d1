package resourcemodel

// The functions of this file answer about one place what a Request answers about a Where,
// without a copy of the site being made: schedulers ask them for every job that comes or
// goes.

// glance is what such a question is asked with.
type glance struct {
	at      at
	derived Derived
}

// ask prepares the one glance that there is.
func (x *Index) ask(r *Request, d Derived) *at {
	x.glance.derived = d
	x.glance.at.request, x.glance.at.derived = r, &x.glance.derived
	return &x.glance.at
}

// Standing is how a place stands, less what was taken.
type Standing struct {
	// Where is the place. Its site's Dynamic is as the model has it: of what jobs took
	// only the consumables of the whole site are taken off. See Index.Where.
	Where
	State ShareState
	Nodes EnvironmentState
	Jobs  int // that the share was given
}

// Standing gives how a place stands.
func (x *Index) Standing(id PlaceID) Standing {
	var p at
	x.load(id, &p)
	out := Standing{Where: p.Where, State: p.state, Nodes: p.nodes}
	pl := &x.places.list[id]
	if t := x.sites[pl.site].taken; t != nil {
		out.Jobs = int(t.shares[pl.share].jobs)
	}
	return out
}

// Takes reports whether the site and the share of a place take jobs at present, whether
// anything is free there or not.
func (x *Index) Takes(id PlaceID) bool {
	p := &x.places.list[id]
	s := &x.sites[p.site]
	return s.site.Dynamic != nil && s.site.Dynamic.Up && x.shares.rows[s.shares.first+uint32(p.share)].is.has(opened)
}

// Fits is Request.Fits.
func (x *Index) Fits(id PlaceID, r *Request, d Derived) bool {
	a := x.of(r)
	a.ready(x)
	if a.simple {
		if answer := a.answer(x.places.list[id].class); answer != fitsUnasked {
			return answer != fitsNever
		}
	}
	p := x.ask(r, d)
	if !met(a.once, p) {
		return false
	}
	x.load(id, p)
	return a.fit(p, x.places.list[id].class)
}

// Starts is Request.Starts.
func (x *Index) Starts(id PlaceID, r *Request, d Derived) bool {
	a := x.of(r)
	a.ready(x)
	if n, ok := x.simply(id, a, r); ok {
		return n > 0
	}
	return x.starts(id, a, r, x.ask(r, d))
}

// Room is Request.Room: how many jobs with the request's need could start at once.
func (x *Index) Room(id PlaceID, r *Request, d Derived) int {
	a := x.of(r)
	a.ready(x)
	if n, ok := x.simply(id, a, r); ok {
		return n
	}
	p := x.ask(r, d)
	if !x.starts(id, a, r, p) {
		return 0
	}
	return p.jobs()
}

// simply gives the room of a place where one host serves each job, so that what is free
// has only to be divided by what a job takes; false is that there is more to it.
func (x *Index) simply(id PlaceID, a *asked, r *Request) (int, bool) {
	p := &x.places.list[id]
	s := &x.sites[p.site]
	h, e := &x.shares.rows[s.shares.first+uint32(p.share)], &x.envs.rows[s.envs.first+uint32(p.env)]
	if !a.simple || (h.is | e.is).has(wide) || !h.is.has(known) || !e.is.has(known) || e.nodes == 0 {
		return 0, false
	}
	switch a.answer(p.class) {
	case fitsSimply:
	case fitsNever:
		return 0, true
	default:
		return 0, false
	}
	if dyn := s.site.Dynamic; dyn == nil || !dyn.Up || !h.is.has(opened) || e.available == 0 {
		return 0, true
	}
	n := &r.Need
	free := int(e.freeCPUs) / n.CPUs
	if s.site.Static.Shares[p.share].Slots > 0 {
		free = min(free, int(h.freeSlots)/max(n.Slots, 1))
	}
	if n.Memory > 0 && e.freeMemory > 0 {
		free = int(min(int64(free), e.freeMemory/n.Memory))
	}
	return free, true
}

// Exhausted reports whether nothing that every job takes is free at a site, or there is no
// such site.
func (x *Index) Exhausted(k Key) bool {
	i, ok := x.keys[k]
	if !ok {
		return true
	}
	s := &x.sites[i]
	for id := s.places.first; id < s.places.first+s.places.count; id++ {
		if !x.Takes(PlaceID(id)) {
			continue
		}
		p := &x.places.list[id]
		h, e := &x.shares.rows[s.shares.first+uint32(p.share)], &x.envs.rows[s.envs.first+uint32(p.env)]
		if (h.is | e.is).has(wide) {
			var at at
			x.load(PlaceID(id), &at)
			if (at.Share.Slots <= 0 || at.state.FreeSlots > 0) && (!at.counted || at.nodes.FreeCPUs > 0) {
				return false
			}
			continue
		}
		if (s.site.Static.Shares[p.share].Slots <= 0 || h.freeSlots > 0) && (!e.is.has(known) || e.freeCPUs > 0) {
			return false
		}
	}
	return true
}
