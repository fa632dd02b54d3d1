package schedule

import (
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/resourcemodel"
)

// Survey is Places that looks at every place whenever it is asked and remembers nothing:
// the simplest way, by which others are judged.
type Survey struct {
	snap   *resourcemodel.Snapshot
	sites  []*surveyed // in the order of their keys
	at     map[resourcemodel.Key]*surveyed
	places []resourcemodel.Where // of all sites
	taken  map[resourcemodel.Key]map[resourcemodel.Place]*takings
	users  int // sites that name users
	asked  map[int]*resourcemodel.Request
}

// surveyed is a site less what was taken from it.
type surveyed struct {
	site   resourcemodel.Site // Dynamic is our own copy
	first  int                // number of its first place among all
	places []resourcemodel.Where
	users  bool
}

// takings are what was taken from a place.
type takings struct {
	jobs, slots, cpus, hosts, gpus int
	memory                         int64
	consumables                    map[string]int64
}

// NewSurvey gives a Survey of a snapshot.
func NewSurvey(m *resourcemodel.Snapshot) *Survey {
	v := &Survey{asked: map[int]*resourcemodel.Request{}}
	v.Reset(m)
	return v
}

// Snapshot is the model as it is now.
func (v *Survey) Snapshot() *resourcemodel.Snapshot { return v.snap }

// Reset begins anew with a snapshot; what was taken is forgotten.
func (v *Survey) Reset(m *resourcemodel.Snapshot) {
	v.snap, v.sites, v.users = m, nil, 0
	v.at = map[resourcemodel.Key]*surveyed{}
	v.taken = map[resourcemodel.Key]map[resourcemodel.Place]*takings{}
	for site := range m.Sites() {
		v.put(site)
	}
	v.number()
}

// Apply follows a delta. What was taken stays taken.
func (v *Survey) Apply(d resourcemodel.Delta) error {
	next, err := v.snap.Apply(d)
	if err != nil {
		return err
	}
	v.snap = next
	number := false
	for i := range d.Changes {
		k := d.Changes[i].Key
		site, was := next.Site(k), v.at[k]
		switch {
		case site == nil && was != nil:
			v.drop(k)
			number = true
		case site == nil:
		case was != nil && was.site.Static == site.Static:
			was.site.Dynamic = v.less(site)
		default:
			v.drop(k)
			v.put(site)
			number = true
		}
	}
	if number {
		v.number()
	}
	return nil
}

func (v *Survey) put(site *resourcemodel.Site) {
	sv := &surveyed{site: *site, users: resourcemodel.NamesUsers(site)}
	if sv.users {
		v.users++
	}
	for i := range site.Static.Shares {
		share := &site.Static.Shares[i]
		for _, id := range share.Environments {
			if env := site.Static.Environment(id); env != nil {
				sv.places = append(sv.places, resourcemodel.Where{Site: &sv.site, Share: share, Environment: env})
			}
		}
	}
	sv.site.Dynamic = v.less(site)
	v.at[site.Key] = sv
	i, _ := slices.BinarySearchFunc(v.sites, site.Key, func(x *surveyed, k resourcemodel.Key) int { return x.site.Key.Compare(k) })
	v.sites = slices.Insert(v.sites, i, sv)
}

func (v *Survey) drop(k resourcemodel.Key) {
	sv := v.at[k]
	if sv == nil {
		return
	}
	if sv.users {
		v.users--
	}
	delete(v.at, k)
	i, _ := slices.BinarySearchFunc(v.sites, k, func(x *surveyed, k resourcemodel.Key) int { return x.site.Key.Compare(k) })
	v.sites = slices.Delete(v.sites, i, i+1)
}

// number numbers the places anew.
func (v *Survey) number() {
	v.places = nil
	for _, sv := range v.sites {
		sv.first = len(v.places)
		v.places = append(v.places, sv.places...)
	}
}

// less gives how a site stands without what was taken from it.
func (v *Survey) less(site *resourcemodel.Site) *resourcemodel.Dynamic {
	if site.Dynamic == nil {
		return nil
	}
	d := *site.Dynamic
	all := v.taken[site.Key]
	if len(all) == 0 {
		return &d // shared with the model until something is taken
	}
	d.Shares, d.Environments, d.Consumables = maps.Clone(d.Shares), maps.Clone(d.Environments), maps.Clone(d.Consumables)
	for p, t := range all {
		if state, ok := d.Shares[p.Share]; ok {
			state.FreeSlots -= t.slots
			state.Consumables = minus(state.Consumables, t.consumables)
			d.Shares[p.Share] = state
		}
		if state, ok := d.Environments[p.Environment]; ok {
			state.FreeCPUs -= t.cpus
			state.FreeMemory = lower(state.FreeMemory, t.memory)
			state.FreeGPUs = int(lower(int64(state.FreeGPUs), int64(t.gpus)))
			state.FreeNodes -= t.hosts
			d.Environments[p.Environment] = state
		}
		d.Consumables = minus(d.Consumables, t.consumables)
	}
	for id, state := range d.Shares {
		state.FreeSlots = max(state.FreeSlots, 0)
		d.Shares[id] = state
	}
	for id, state := range d.Environments {
		state.FreeCPUs, state.FreeNodes = max(state.FreeCPUs, 0), max(state.FreeNodes, 0)
		d.Environments[id] = state
	}
	return &d
}

// lower lowers a number of which 0 means that it is not known: 1 is as good as nothing.
func lower(have, by int64) int64 {
	if have <= 0 || by <= 0 {
		return have
	}
	return max(have-by, 1)
}

func minus(have, by map[string]int64) map[string]int64 {
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

// Class gives what the request has in common with those that every place answers alike.
func (v *Survey) Class(r *resourcemodel.Request) resourcemodel.Class {
	if v.users > 0 {
		return r.UserClass()
	}
	return r.Class()
}

// NamesUsers reports whether classes depend on who the users are.
func (v *Survey) NamesUsers() bool { return v.users > 0 }

// Candidates appends the places that could run the request and are not shut.
func (v *Survey) Candidates(into []Offer, r *resourcemodel.Request, d resourcemodel.Derived) []Offer {
	for _, sv := range v.sites {
		into = sv.offer(into, r, d)
	}
	return into
}

// At does the same for the places of one site.
func (v *Survey) At(into []Offer, k resourcemodel.Key, r *resourcemodel.Request, d resourcemodel.Derived) []Offer {
	if sv := v.at[k]; sv != nil {
		into = sv.offer(into, r, d)
	}
	return into
}

func (sv *surveyed) offer(into []Offer, r *resourcemodel.Request, d resourcemodel.Derived) []Offer {
	for i, w := range sv.places {
		if !r.Fits(w, d) {
			continue
		}
		if free := r.Room(w, d); free > 0 || !shut(r, w, d) {
			into = append(into, Offer{sv.first + i, free})
		}
	}
	return into
}

// Place names a place.
func (v *Survey) Place(order int) resourcemodel.Place { return v.places[order].Place() }

// Free gives how many jobs could start at a place.
func (v *Survey) Free(order int, r *resourcemodel.Request, d resourcemodel.Derived) int {
	return r.Room(v.places[order], d)
}

// Tell says all that is known of a place.
func (v *Survey) Tell(c *policy.Candidate, order int, _ *resourcemodel.Request, d resourcemodel.Derived) {
	w := v.places[order]
	c.Place, c.Site, c.Share, c.Env, c.Order, c.Derived = w.Place(), w.Site, w.Share, w.Environment, order, d
	c.State, c.Nodes = resourcemodel.ShareState{}, resourcemodel.EnvironmentState{}
	if dyn := w.Site.Dynamic; dyn != nil {
		c.State, c.Nodes = dyn.Shares[w.Share.ID], dyn.Environments[w.Environment.ID]
	}
	jobs := 0
	for p, t := range v.taken[w.Site.Key] {
		if p.Share == w.Share.ID {
			jobs += t.jobs
		}
	}
	c.Load = load(w, &c.State, &c.Nodes, jobs)
}

// load gives the jobs that the share of a place has or was given, for each slot.
func load(w resourcemodel.Where, share *resourcemodel.ShareState, nodes *resourcemodel.EnvironmentState, jobs int) float64 {
	slots := w.Share.Slots
	if slots <= 0 {
		slots = nodes.Available * max(w.Environment.CPUs, 1)
	}
	return float64(share.Running+share.Waiting+jobs) / float64(max(slots, 1))
}

// shut reports whether more stands against a place than the jobs that it has.
func shut(r *resourcemodel.Request, w resourcemodel.Where, d resourcemodel.Derived) bool {
	dyn := w.Site.Dynamic
	if dyn == nil || !dyn.Up || !dyn.Shares[w.Share.ID].Open {
		return true
	}
	if plain(r) {
		return false // what else stands against it is what jobs take
	}
	return slices.ContainsFunc(r.Judge(w.Site, w.Share, w.Environment, d).Clauses, shuts)
}

// plain reports whether only what jobs take stands against a place that takes jobs and
// that the request fits.
func plain(r *resourcemodel.Request) bool {
	return len(r.Hard) == 0 && r.NotBefore.IsZero() && r.Deadline.IsZero()
}

// Frees reports whether some place of the site has free what one job takes.
func (v *Survey) Frees(k resourcemodel.Key, r *resourcemodel.Request, d resourcemodel.Derived) bool {
	sv := v.at[k]
	return sv != nil && slices.ContainsFunc(sv.places, func(w resourcemodel.Where) bool { return r.Starts(w, d) })
}

// Ruled gives the places that are no candidates.
func (v *Survey) Ruled(r *resourcemodel.Request, d resourcemodel.Derived, most int) (out []Ruled, more int) {
	for _, w := range v.places {
		switch {
		case r.Fits(w, d) && (r.Starts(w, d) || !shut(r, w, d)):
		case len(out) == most:
			more++
		default:
			out = append(out, ruledAt(r, w, d))
		}
	}
	return out, more
}

// ruledAt says why a place is no candidate.
func ruledAt(r *resourcemodel.Request, w resourcemodel.Where, d resourcemodel.Derived) Ruled {
	clauses := r.Judge(w.Site, w.Share, w.Environment, d).Clauses
	c := &clauses[max(slices.IndexFunc(clauses, shuts), 0)]
	return Ruled{Place: w.Place(), Element: c.Element, Sentence: c.Sentence}
}

// All gives every place.
func (v *Survey) All() iter.Seq[resourcemodel.Where] {
	return slices.Values(v.places)
}

// Take takes a job's need from a place.
func (v *Survey) Take(p resourcemodel.Place, n *resourcemodel.Need) { v.move(p, n, 1) }

// Give gives it back.
func (v *Survey) Give(p resourcemodel.Place, n *resourcemodel.Need) { v.move(p, n, -1) }

func (v *Survey) move(p resourcemodel.Place, n *resourcemodel.Need, sign int) {
	all := v.taken[p.Key]
	if all == nil {
		all = map[resourcemodel.Place]*takings{}
		v.taken[p.Key] = all
	}
	t := all[p]
	if t == nil {
		t = &takings{}
		all[p] = t
	}
	t.jobs += sign
	t.slots += sign * n.Slots
	t.cpus += sign * n.CPUs
	t.memory += int64(sign) * n.Memory
	t.gpus += sign * n.GPUs
	if n.Exclusive {
		t.hosts += sign * max(n.Hosts, 1)
	}
	for name, count := range n.Consumables {
		if t.consumables == nil {
			t.consumables = map[string]int64{}
		}
		t.consumables[name] += int64(sign) * count
	}
	if t.jobs == 0 {
		delete(all, p)
	}
	if sv := v.at[p.Key]; sv != nil {
		sv.site.Dynamic = v.less(v.snap.Site(p.Key))
	}
}

// Register says that a class of requests waits.
func (v *Survey) Register(class int, r *resourcemodel.Request) { v.asked[class] = r }

// Forget says that it does not any more.
func (v *Survey) Forget(class int) { delete(v.asked, class) }

// Helped gives all classes that the site could ever run jobs of.
func (v *Survey) Helped(k resourcemodel.Key, _ bool, _ resourcemodel.Derived, yield func(class int)) {
	if v.at[k] == nil {
		return
	}
	for class := range v.asked {
		yield(class)
	}
}

// Exhausted reports whether no job of any kind could start at the site.
func (v *Survey) Exhausted(k resourcemodel.Key) bool {
	sv := v.at[k]
	return sv == nil || exhausted(&sv.site)
}

// exhausted reports whether nothing that any job takes is free at a site.
func exhausted(site *resourcemodel.Site) bool {
	dyn := site.Dynamic
	if dyn == nil || !dyn.Up {
		return true
	}
	for i := range site.Static.Shares {
		share := &site.Static.Shares[i]
		state := dyn.Shares[share.ID]
		if !state.Open || share.Slots > 0 && state.FreeSlots <= 0 {
			continue
		}
		for _, id := range share.Environments {
			if n, known := dyn.Environments[id]; !known || n.FreeCPUs > 0 {
				return false
			}
		}
	}
	return true
}

// shuts reports whether a clause shuts a place, so that it can't be given jobs ahead
// either. The others are of what jobs take, and come free with time.
func shuts(c resourcemodel.Clause) bool {
	return !c.Dynamic || c.Element == "NotBefore" || c.Element == "Up" || c.Element == "Open" || strings.HasPrefix(c.Element, "Criterion ")
}

// NewPlaces gives the Places that ship.
func NewPlaces(m *resourcemodel.Snapshot) Places { return NewIndexed(m) }
