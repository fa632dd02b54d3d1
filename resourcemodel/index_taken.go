package resourcemodel

import (
	"maps"
	"slices"
)

// takenShare is what jobs have of a share beside what the model says.
type takenShare struct {
	jobs, slots int64
	consumables map[string]int64
	// How the share stands with them, as the model says; in a siteTaken.
	model  ShareState
	stated bool
}

func (t *takenShare) empty() bool { return t.jobs == 0 && t.slots == 0 && len(t.consumables) == 0 }

// left gives how the share stands without them.
func (t *takenShare) left() ShareState {
	s := t.model
	s.FreeSlots = int(t.freeSlots())
	s.Consumables = less(s.Consumables, t.consumables)
	return s
}

// takenEnv is what jobs have of an environment.
type takenEnv struct {
	cpus, hosts, gpus, memory int64
	model                     EnvironmentState
	counted                   bool
}

func (t *takenEnv) empty() bool { return t.cpus|t.hosts|t.gpus|t.memory == 0 }

func (t *takenEnv) left() EnvironmentState {
	s := t.model
	s.FreeCPUs, s.FreeNodes, s.FreeMemory, s.FreeGPUs = int(t.freeCPUs()), int(t.freeNodes()), t.freeMemory(), int(t.freeGPUs())
	return s
}

func (t *takenShare) freeSlots() int64 { return max(int64(t.model.FreeSlots)-t.slots, 0) }
func (t *takenEnv) freeCPUs() int64    { return max(int64(t.model.FreeCPUs)-t.cpus, 0) }
func (t *takenEnv) freeNodes() int64   { return max(int64(t.model.FreeNodes)-t.hosts, 0) }
func (t *takenEnv) freeMemory() int64  { return lower(t.model.FreeMemory, t.memory) }
func (t *takenEnv) freeGPUs() int64    { return lower(int64(t.model.FreeGPUs), t.gpus) }

// lower lowers a number of which 0 means that it is not known: 1 is as good as nothing.
func lower(have, by int64) int64 {
	if have <= 0 || by <= 0 {
		return have
	}
	return max(have-by, 1)
}

// less gives what is left of counters; those that are not known stay so.
func less(have, by map[string]int64) map[string]int64 {
	if len(by) == 0 || len(have) == 0 {
		return have
	}
	out := maps.Clone(have)
	for name, n := range by {
		if was, ok := out[name]; ok {
			out[name] = max(was-n, 0)
		}
	}
	return out
}

// siteTaken is what jobs have of a site, by the numbers of its shares and environments.
type siteTaken struct {
	shares      []takenShare
	envs        []takenEnv
	consumables map[string]int64
	site        *Site // with what is left of the whole site's consumables; nil: none was taken
	whole       *Site // without all that was taken, once somebody asked for it
}

func newSiteTaken(s *Static) *siteTaken {
	if len(s.Shares) == 1 && len(s.Environments) == 1 {
		all := new(struct { // together, for the cache
			siteTaken
			share [1]takenShare
			env   [1]takenEnv
		})
		all.shares, all.envs = all.share[:], all.env[:]
		return &all.siteTaken
	}
	return &siteTaken{shares: make([]takenShare, len(s.Shares)), envs: make([]takenEnv, len(s.Environments))}
}

func (t *siteTaken) empty() bool {
	return len(t.consumables) == 0 && !slices.ContainsFunc(t.shares, func(s takenShare) bool { return !s.empty() }) &&
		!slices.ContainsFunc(t.envs, func(e takenEnv) bool { return !e.empty() })
}

// settle brings what is derived from the site up to date.
func (t *siteTaken) settle(site *Site) {
	t.site, t.whole = nil, nil
	for j := range t.shares {
		t.shares[j].model, t.shares[j].stated = site.Dynamic.Share(site.Static.Shares[j].ID)
	}
	for k := range t.envs {
		t.envs[k].model, t.envs[k].counted = site.Dynamic.Environment(site.Static.Environments[k].ID)
	}
	if d := site.Dynamic; d != nil && len(t.consumables) > 0 && len(d.Consumables) > 0 {
		c := *d
		c.Consumables = less(d.Consumables, t.consumables)
		t.site = &Site{Key: site.Key, Static: site.Static, Dynamic: &c}
	}
}

// ledger is what jobs have of shares and environments by name, while these are not there.
type ledger struct {
	shares      map[string]takenShare
	envs        map[string]takenEnv
	consumables map[string]int64
}

func newLedger() *ledger {
	return &ledger{shares: map[string]takenShare{}, envs: map[string]takenEnv{}, consumables: map[string]int64{}}
}

func (l *ledger) empty() bool { return len(l.shares)+len(l.envs)+len(l.consumables) == 0 }

// names adds all that was taken to a ledger, which may be nil.
func (t *siteTaken) names(s *Static, l *ledger) *ledger {
	if l == nil {
		l = newLedger()
	}
	for j, h := range t.shares {
		if !h.empty() {
			l.shares[s.Shares[j].ID] = h
		}
	}
	for k, e := range t.envs {
		if !e.empty() {
			l.envs[s.Environments[k].ID] = e
		}
	}
	for name, n := range t.consumables {
		l.consumables[name] += n
	}
	return l
}

// at takes out of the ledger what a site has the parts for.
func (l *ledger) at(s *Static) *siteTaken {
	t := newSiteTaken(s)
	for j := range s.Shares {
		id := s.Shares[j].ID
		if h, ok := l.shares[id]; ok {
			t.shares[j] = h
			delete(l.shares, id)
		}
	}
	for k := range s.Environments {
		id := s.Environments[k].ID
		if e, ok := l.envs[id]; ok {
			t.envs[k] = e
			delete(l.envs, id)
		}
	}
	if len(l.consumables) > 0 {
		t.consumables, l.consumables = l.consumables, map[string]int64{}
	}
	return t
}

// move adds what a job takes, or gives back. Nobody gives back more than was taken.
func (t *takenShare) move(n *Need, sign int64) {
	t.jobs = max(t.jobs+sign, 0)
	t.slots = max(t.slots+sign*int64(n.Slots), 0)
	t.consumables = moveAll(t.consumables, n.Consumables, sign)
}

func (t *takenEnv) move(n *Need, sign int64) {
	t.cpus = max(t.cpus+sign*int64(n.CPUs), 0)
	t.memory = max(t.memory+sign*n.Memory, 0)
	t.gpus = max(t.gpus+sign*int64(n.GPUs), 0)
	if n.Exclusive {
		t.hosts = max(t.hosts+sign*int64(max(n.Hosts, 1)), 0)
	}
}

func moveAll(have, by map[string]int64, sign int64) map[string]int64 {
	for name, n := range by {
		if have == nil {
			have = map[string]int64{}
		}
		if have[name] += sign * n; have[name] <= 0 {
			delete(have, name)
		}
	}
	return have
}

// Take takes a job's need from a place, and with that from those that have the share, the
// environment or the counters in common with it. All these are appended: less of
// something may help a request whose criteria want little of it.
func (x *Index) Take(into []PlaceID, id PlaceID, n *Need) []PlaceID { return x.move(into, id, n, 1) }

// Give gives it back, and appends the places that have more now.
func (x *Index) Give(into []PlaceID, id PlaceID, n *Need) []PlaceID { return x.move(into, id, n, -1) }

func (x *Index) move(into []PlaceID, id PlaceID, n *Need, sign int64) []PlaceID {
	p := &x.places.list[id]
	s := &x.sites[p.site]
	if s.taken == nil {
		s.taken = newSiteTaken(s.site.Static)
		s.taken.settle(s.site)
	}
	t := s.taken
	t.whole = nil
	j, k := uint32(p.share), uint32(p.env)
	t.shares[j].move(n, sign)
	t.envs[k].move(n, sign)
	if len(n.Consumables) > 0 {
		t.consumables = moveAll(t.consumables, n.Consumables, sign)
		t.settle(s.site)
	}
	h, e := &x.shares.rows[s.shares.first+j], &x.envs.rows[s.envs.first+k]
	share, env := *h, *e
	if h.is&(known|wide) == known {
		h.freeSlots = uint32(t.shares[j].freeSlots())
	} else {
		x.liveShare(s, j)
	}
	if e.is&(known|wide) == known {
		l := &t.envs[k]
		e.freeCPUs, e.freeNodes, e.freeMemory, e.freeGPUs = uint32(l.freeCPUs()), uint32(l.freeNodes()), l.freeMemory(), uint32(l.freeGPUs())
	} else {
		x.liveEnv(s, k)
	}
	what := share.differs(*h) | env.differs(*e)
	if len(n.Consumables) > 0 {
		what |= ofCounters
	}
	rows := x.rows[:0]
	for other := s.places.first; other < s.places.first+s.places.count; other++ {
		if o := &x.places.list[other]; len(n.Consumables) > 0 || o.share == p.share || o.env == p.env {
			rows = append(rows, o.row)
			into = append(into, PlaceID(other))
		}
	}
	x.rows = rows
	x.grid.update(x, rows, what)
	return into
}

// TakeAt is Take for a place by its name. What is taken of a site, a share or an
// environment that is not there counts when it comes back.
func (x *Index) TakeAt(into []PlaceID, p Place, n *Need) []PlaceID { return x.moveAt(into, p, n, 1) }

// GiveAt is that of Give.
func (x *Index) GiveAt(into []PlaceID, p Place, n *Need) []PlaceID { return x.moveAt(into, p, n, -1) }

func (x *Index) moveAt(into []PlaceID, p Place, n *Need, sign int64) []PlaceID {
	if id, ok := x.Find(p); ok {
		return x.move(into, id, n, sign)
	}
	x.moveLost(p, n, sign)
	return x.Of(into, p.Key)
}

// moveLost is for a place that is not there, though its share or its environment may be.
func (x *Index) moveLost(p Place, n *Need, sign int64) {
	l := x.lost[p.Key]
	i, here := x.keys[p.Key]
	if here {
		// What is there takes its part through the ledger, which the site then reads anew.
		s := &x.sites[i]
		if s.taken != nil {
			l = s.taken.names(s.site.Static, l)
		}
	}
	if l == nil {
		l = newLedger()
	}
	h, e := l.shares[p.Share], l.envs[p.Environment]
	h.move(n, sign)
	e.move(n, sign)
	l.shares[p.Share], l.envs[p.Environment] = h, e
	if h.empty() {
		delete(l.shares, p.Share)
	}
	if e.empty() {
		delete(l.envs, p.Environment)
	}
	l.consumables = moveAll(l.consumables, n.Consumables, sign)
	if here {
		s := &x.sites[i]
		s.taken = l.at(s.site.Static)
		s.taken.settle(s.site)
		x.live(i)
		rows := x.rows[:0]
		for id := s.places.first; id < s.places.first+s.places.count; id++ {
			rows = append(rows, x.places.list[id].row)
		}
		x.rows = rows
		x.grid.update(x, rows, ofAll)
	}
	x.lost[p.Key] = l
	if l.empty() {
		delete(x.lost, p.Key)
	}
}
