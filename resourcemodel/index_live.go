package resourcemodel

import (
	"maps"
	"math"
	"slices"
)

// shareLive is how a share stands, less what was taken, in little.
type shareLive struct {
	freeSlots, running, waiting uint32
	is                          flags
}

// envLive is how an environment stands, less what was taken, in little.
type envLive struct {
	freeMemory                                      int64
	nodes, available, freeNodes, freeCPUs, freeGPUs uint32
	is                                              flags
}

type flags uint8

const (
	known  flags = 1 << iota // stated or counted
	opened                   // of a share
	// wide is that more is to be said than fits in here, which must be looked up in the
	// model: consumables, a forecast, the best of merged sets, numbers of 32 bits and more.
	wide
)

func (f flags) has(g flags) bool { return f&g != 0 }

// aspects are parts of how a place stands, of which one may change without the others.
type aspects uint16

const (
	ofRunning aspects = 1 << iota
	ofWaiting
	ofForecast
	ofNodes
	ofAvailable
	ofCounters // consumables
	ofTaking   // whether the site and the share take jobs, and what environment was merged
	ofSlots
	ofFreeNodes
	ofCPUs
	ofMemory
	ofGPUs
	ofAll = 1<<iota - 1
)

// aspectsOf are those of the dynamic attributes that are numbers.
var aspectsOf = map[string]aspects{
	"Running": ofRunning, "Waiting": ofWaiting, "Load": ofRunning | ofWaiting, "Forecast": ofForecast, "FreeSlots": ofSlots,
	"Nodes": ofNodes, "AvailableNodes": ofAvailable, "FreeNodes": ofFreeNodes | ofCPUs, "FreeCPUs": ofCPUs, "FreeMemory": ofMemory, "FreeGPUs": ofGPUs,
	"FreeConsumable:": ofCounters,
}

// differs gives the aspects in which two differ; none of what is wide is looked up.
func (h shareLive) differs(o shareLive) aspects {
	if h == o {
		return 0
	}
	if (h.is^o.is)&(known|wide) != 0 || h.is.has(wide) {
		return ofAll
	}
	return when(h.freeSlots != o.freeSlots, ofSlots) | when(h.running != o.running, ofRunning) | when(h.waiting != o.waiting, ofWaiting) | when(h.is != o.is, ofTaking)
}

func (e envLive) differs(o envLive) aspects {
	if e == o {
		return 0
	}
	if e.is != o.is || e.is.has(wide) {
		return ofAll
	}
	return when(e.nodes != o.nodes, ofNodes) | when(e.available != o.available, ofAvailable) | when(e.freeNodes != o.freeNodes, ofFreeNodes) |
		when(e.freeCPUs != o.freeCPUs, ofCPUs) | when(e.freeMemory != o.freeMemory, ofMemory) | when(e.freeGPUs != o.freeGPUs, ofGPUs)
}

func when(is bool, a aspects) aspects {
	if is {
		return a
	}
	return 0
}

// liveTable is a table that is divided among sites.
type liveTable[T any] struct {
	rows  []T
	spans spans
}

func (t *liveTable[T]) take(n int) span {
	at, grown := t.spans.take(n)
	if grown {
		t.rows = slices.Grow(t.rows, n)[:len(t.rows)+n]
	}
	return at
}

func small(n int) bool { return n >= 0 && n <= math.MaxUint32 }

func (x *Index) shareLive(s ShareState, stated bool) shareLive {
	if !stated {
		return shareLive{}
	}
	out := shareLive{freeSlots: uint32(s.FreeSlots), running: uint32(s.Running), waiting: uint32(s.Waiting), is: known}
	if s.Open {
		out.is |= opened
	}
	if s.Forecast != 0 || len(s.Consumables) > 0 || !small(s.FreeSlots) || !small(s.Running) || !small(s.Waiting) {
		out.is |= wide
	}
	return out
}

func (x *Index) envLive(s EnvironmentState, counted bool) envLive {
	if !counted {
		return envLive{}
	}
	out := envLive{
		freeMemory: s.FreeMemory, nodes: uint32(s.Nodes), available: uint32(s.Available),
		freeNodes: uint32(s.FreeNodes), freeCPUs: uint32(s.FreeCPUs), freeGPUs: uint32(s.FreeGPUs), is: known,
	}
	if s.Best != nil || !small(s.Nodes) || !small(s.Available) || !small(s.FreeNodes) || !small(s.FreeCPUs) || !small(s.FreeGPUs) {
		out.is |= wide
	}
	return out
}

// live works out how the shares and environments of a site stand.
func (x *Index) live(i uint32) {
	s := &x.sites[i]
	for j := range s.shares.count {
		x.liveShare(s, j)
	}
	for j := range s.envs.count {
		x.liveEnv(s, j)
	}
}

func (x *Index) liveShare(s *indexedSite, j uint32) {
	state, ok := s.share(j)
	x.shares.rows[s.shares.first+j] = x.shareLive(state, ok)
}

func (x *Index) liveEnv(s *indexedSite, j uint32) {
	state, ok := s.env(j)
	x.envs.rows[s.envs.first+j] = x.envLive(state, ok)
}

// share gives how a share stands, less what was taken.
func (s *indexedSite) share(j uint32) (ShareState, bool) {
	if s.taken != nil {
		return s.taken.shares[j].left(), s.taken.shares[j].stated
	}
	return s.site.Dynamic.Share(s.site.Static.Shares[j].ID)
}

// env gives how an environment stands, less what was taken.
func (s *indexedSite) env(j uint32) (EnvironmentState, bool) {
	if s.taken != nil {
		return s.taken.envs[j].left(), s.taken.envs[j].counted
	}
	return s.site.Dynamic.Environment(s.site.Static.Environments[j].ID)
}

// nodes gives the number of nodes that an environment counts; -1 is not known.
func (x *Index) nodes(s *indexedSite, j int) int64 {
	e := &x.envs.rows[s.envs.first+uint32(j)]
	switch {
	case !e.is.has(known):
		return -1
	case e.is.has(wide):
		state, _ := s.env(uint32(j))
		return int64(state.Nodes)
	}
	return int64(e.nodes)
}

// lively gives what a column has of a place, as its attribute gives it, without a look at the
// model where what is kept here is enough.
func (x *Index) lively(c *column, id PlaceID) (float64, bool) {
	p := &x.places.list[id]
	s := &x.sites[p.site]
	h, e := &x.shares.rows[s.shares.first+uint32(p.share)], &x.envs.rows[s.envs.first+uint32(p.env)]
	if c.argument != "" || (h.is | e.is).has(wide) {
		return c.value(x.grid.see(x, p.row))
	}
	stated, counted := h.is.has(known), e.is.has(known)
	switch c.of {
	case ofSlots:
		return float64(h.freeSlots), stated
	case ofRunning:
		return float64(h.running), stated
	case ofWaiting:
		return float64(h.waiting), stated
	case ofNodes:
		return float64(e.nodes), counted
	case ofAvailable:
		return float64(e.available), counted
	case ofCPUs:
		return float64(e.freeCPUs), counted
	case ofFreeNodes | ofCPUs: // see wholeNodes
		if counted && e.freeNodes > 0 {
			return float64(e.freeNodes), true
		}
		if cpus := s.site.Static.Environments[p.env].CPUs; counted && cpus > 0 {
			return float64(int64(e.freeCPUs) / int64(cpus)), true
		}
		return 0, false
	case ofMemory:
		return float64(e.freeMemory), counted && e.freeMemory > 0
	case ofGPUs:
		return float64(e.freeGPUs), counted && e.freeGPUs > 0
	case ofForecast, ofCounters, ofTaking, ofFreeNodes: // rare, or not of one column
	}
	return c.value(x.grid.see(x, p.row))
}

// load puts a place before the eyes of clauses and criteria.
func (x *Index) load(id PlaceID, p *at) {
	place := &x.places.list[id]
	s := &x.sites[place.site]
	j, k := uint32(place.share), uint32(place.env)
	p.static = s.site.Static
	p.Where = Where{Site: s.site, Share: &p.static.Shares[j], Environment: &p.static.Environments[k]}
	if s.taken != nil && s.taken.site != nil {
		p.Site = s.taken.site
	}
	h, e := &x.shares.rows[s.shares.first+j], &x.envs.rows[s.envs.first+k]
	p.stated, p.counted = h.is.has(known), e.is.has(known)
	if h.is.has(wide) {
		p.state, _ = s.share(j)
	} else {
		p.state = ShareState{Open: h.is.has(opened), FreeSlots: int(h.freeSlots), Running: int(h.running), Waiting: int(h.waiting)}
	}
	if e.is.has(wide) {
		p.nodes, _ = s.env(k)
	} else {
		p.nodes = EnvironmentState{
			Nodes: int(e.nodes), Available: int(e.available), FreeNodes: int(e.freeNodes), FreeCPUs: int(e.freeCPUs),
			FreeMemory: e.freeMemory, FreeGPUs: int(e.freeGPUs),
		}
	}
}

// Site gives a site as it stands without what was taken; nil if it is not known. It is
// not to be changed, and changes no more itself.
func (x *Index) Site(k Key) *Site {
	i, ok := x.keys[k]
	if !ok {
		return nil
	}
	return x.sites[i].current()
}

// Where gives a place as it stands without what was taken: see Site.
func (x *Index) Where(id PlaceID) Where {
	p := &x.places.list[id]
	s := &x.sites[p.site]
	return Where{Site: s.current(), Share: &s.site.Static.Shares[p.share], Environment: &s.site.Static.Environments[p.env]}
}

func (s *indexedSite) current() *Site {
	t := s.taken
	if t == nil || t.empty() || s.site.Dynamic == nil {
		return s.site
	}
	if t.whole == nil {
		d := *s.site.Dynamic
		d.Shares, d.Environments = maps.Clone(d.Shares), maps.Clone(d.Environments)
		for j := range s.shares.count {
			if state, ok := s.share(j); ok {
				d.Shares[s.site.Static.Shares[j].ID] = state
			}
		}
		for j := range s.envs.count {
			if state, ok := s.env(j); ok {
				d.Environments[s.site.Static.Environments[j].ID] = state
			}
		}
		d.Consumables = less(d.Consumables, t.consumables)
		t.whole = &Site{Key: s.site.Key, Static: s.site.Static, Dynamic: &d}
	}
	return t.whole
}

// refresh follows a new dynamic part in the place of the old one, and appends the places
// that changed.
func (x *Index) refresh(touched []PlaceID, i uint32, old *Dynamic) []PlaceID {
	s := &x.sites[i]
	now := s.site.Dynamic
	if s.taken != nil {
		s.taken.settle(s.site)
	}
	var all aspects // of all places
	if (old == nil) != (now == nil) || old != nil && (old.Up != now.Up || !maps.Equal(old.Consumables, now.Consumables)) {
		all = ofTaking | ofCounters
	}
	changed := x.changed[:0]
	for j := range s.shares.count {
		row := &x.shares.rows[s.shares.first+j]
		was := *row
		x.liveShare(s, j)
		c := was.differs(*row)
		if c == 0 && row.is.has(wide) {
			id := s.site.Static.Shares[j].ID
			a, _ := old.Share(id)
			b, _ := now.Share(id)
			c = when(!sameShareState(a, b), ofAll)
		}
		changed = append(changed, c)
	}
	for j := range s.envs.count {
		row := &x.envs.rows[s.envs.first+j]
		was := *row
		x.liveEnv(s, j)
		c := was.differs(*row)
		if c == 0 && row.is.has(wide) {
			id := s.site.Static.Environments[j].ID
			a, _ := old.Environment(id)
			b, _ := now.Environment(id)
			c = when(!sameEnvironmentState(a, b), ofAll)
		}
		changed = append(changed, c)
	}
	x.changed = changed
	rows, what := x.rows[:0], all
	for id := s.places.first; id < s.places.first+s.places.count; id++ {
		p := &x.places.list[id]
		share, env := changed[p.share], changed[s.shares.count+uint32(p.env)]
		if all|share|env == 0 {
			continue
		}
		if env&ofNodes != 0 {
			x.reclass(PlaceID(id))
		}
		what |= share | env
		rows = append(rows, p.row)
		touched = append(touched, PlaceID(id))
	}
	x.rows = rows
	x.grid.update(x, rows, what)
	return touched
}

// reclass finds the class of a place again, whose number of nodes may have changed.
func (x *Index) reclass(id PlaceID) {
	p := &x.places.list[id]
	s := &x.sites[p.site]
	j, k := int(p.share), int(p.env)
	was := p.class
	if x.classes.nodes[was] == x.nodes(s, k) {
		return
	}
	p.class = x.classes.enter(x.classes.of(s.site).place(j, k, x.nodes(s, k)))
	x.classes.leave(was)
}
