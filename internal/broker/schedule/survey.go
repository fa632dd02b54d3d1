package schedule

import (
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/resourcemodel"
)

// Survey is Places that looks at every place whenever it is asked: the simplest way,
// by which others are judged, and fast enough for some hundred places.
type Survey struct {
	snap  *resourcemodel.Snapshot
	sites []*surveyed // in the order of their keys
	at    map[resourcemodel.Key]*surveyed
	taken map[resourcemodel.Key]map[resourcemodel.Place]*takings
	users int // sites that name users
	asked map[int]*resourcemodel.Request

	// How requests fit the places, of those that say the same at any time.
	fits     map[*resourcemodel.Request][]fit
	last     *resourcemodel.Request
	lastFits []fit
	places   int
}

// surveyed is a site less what was taken from it.
type surveyed struct {
	site   resourcemodel.Site // Dynamic is our own copy
	first  int                // number of its first place among all
	places []resourcemodel.Where
	users  bool
	live   []standing // of each place
}

// standing is how a place stands, less what was taken.
type standing struct {
	share resourcemodel.ShareState
	nodes resourcemodel.EnvironmentState
	up    bool
	load  float64
}

// fit is how a request fits a place.
type fit uint8

const (
	never  fit = iota
	fits       // but how many could start takes a search
	simply     // one host serves the job, and what it needs is all that counts
)

// maxFits bounds the requests that a Survey remembers.
const maxFits = 4096

// could tells how the request fits all places, by their number.
func (v *Survey) could(r *resourcemodel.Request, d resourcemodel.Derived) []fit {
	if v.last == r {
		return v.lastFits
	}
	out, ok := v.fits[r]
	if !ok {
		out = make([]fit, 0, v.places)
		for _, sv := range v.sites {
			for _, w := range sv.places {
				out = append(out, fitOf(r, w, d))
			}
		}
		if !timeless(r) {
			return out
		}
		if len(v.fits) == maxFits {
			clear(v.fits)
		}
		v.fits[r] = out
	}
	v.last, v.lastFits = r, out
	return out
}

// fitOf looks how a request fits a place.
func fitOf(r *resourcemodel.Request, w resourcemodel.Where, d resourcemodel.Derived) fit {
	one, ok := r.Allocate(w, d)
	n := &r.Need
	switch {
	case !ok:
		return never
	case one.Hosts != 1 || one.CPUs != n.CPUs || one.Memory != n.Memory || n.CPUs < 1 || n.Exclusive || n.GPUs > 0 || len(n.Consumables) > 0,
		!timeless(r), !r.NotBefore.IsZero(), len(w.Environment.HostNames) > 0:
		return fits
	}
	return simply
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
			v.stand(was, site)
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
	v.stand(sv, site)
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
	n := 0
	for _, sv := range v.sites {
		sv.first = n
		n += len(sv.places)
	}
	v.places, v.last, v.fits = n, nil, map[*resourcemodel.Request][]fit{}
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
func (v *Survey) Candidates(into []policy.Candidate, r *resourcemodel.Request, d resourcemodel.Derived) []policy.Candidate {
	for _, sv := range v.sites {
		into = v.look(into, sv, r, d)
	}
	return into
}

// At does the same for the places of one site.
func (v *Survey) At(into []policy.Candidate, k resourcemodel.Key, r *resourcemodel.Request, d resourcemodel.Derived) []policy.Candidate {
	if sv := v.at[k]; sv != nil {
		into = v.look(into, sv, r, d)
	}
	return into
}

func (v *Survey) look(into []policy.Candidate, sv *surveyed, r *resourcemodel.Request, d resourcemodel.Derived) []policy.Candidate {
	could := v.could(r, d)[sv.first:]
	for i, w := range sv.places {
		if could[i] == never {
			continue
		}
		free := could[i].freeAt(r, w, &sv.live[i], d)
		if free == 0 && shut(r, w, d) {
			continue
		}
		into = append(into, policy.Candidate{
			Place: w.Place(), Site: w.Site, Share: w.Share, Env: w.Environment,
			Free: free, Soft: 1, Order: sv.first + i, Derived: d,
		})
		sv.live[i].tell(&into[len(into)-1])
	}
	return into
}

// shut reports whether more stands against a place than the jobs that it has.
func shut(r *resourcemodel.Request, w resourcemodel.Where, d resourcemodel.Derived) bool {
	dyn := w.Site.Dynamic
	if dyn == nil || !dyn.Up || !dyn.Shares[w.Share.ID].Open {
		return true
	}
	if len(r.Hard) == 0 && r.NotBefore.IsZero() && r.Deadline.IsZero() {
		return false // what else stands against it is what jobs take
	}
	return slices.ContainsFunc(r.Judge(w.Site, w.Share, w.Environment, d).Clauses, shuts)
}

// freeAt is Request.Room at a place that a request fits.
func (f fit) freeAt(r *resourcemodel.Request, w resourcemodel.Where, st *standing, d resourcemodel.Derived) int {
	if f != simply || st.nodes.Nodes == 0 || st.nodes.Best != nil {
		return r.Room(w, d)
	}
	if !st.up || !st.share.Open || st.nodes.Available == 0 {
		return 0
	}
	n := &r.Need
	free := st.nodes.FreeCPUs / n.CPUs
	if w.Share.Slots > 0 {
		free = min(free, st.share.FreeSlots/max(n.Slots, 1))
	}
	if n.Memory > 0 && st.nodes.FreeMemory > 0 {
		free = int(min(int64(free), st.nodes.FreeMemory/n.Memory))
	}
	return max(free, 0)
}

// Refresh brings a candidate up to what was taken since.
func (v *Survey) Refresh(c *policy.Candidate, r *resourcemodel.Request) {
	sv := v.at[c.Place.Key]
	if sv == nil {
		c.Free = 0
		return
	}
	i := c.Order - sv.first
	sv.live[i].tell(c)
	c.Free = v.could(r, c.Derived)[c.Order].freeAt(r, sv.places[i], &sv.live[i], c.Derived)
}

// Frees reports whether some place of the site has free what one job takes.
func (v *Survey) Frees(k resourcemodel.Key, r *resourcemodel.Request, d resourcemodel.Derived) bool {
	sv := v.at[k]
	if sv == nil {
		return false
	}
	could := v.could(r, d)[sv.first:]
	for i, w := range sv.places {
		if could[i] != never && could[i].freeAt(r, w, &sv.live[i], d) > 0 {
			return true
		}
	}
	return false
}

// stand brings how the places of a site stand up to date.
func (v *Survey) stand(sv *surveyed, site *resourcemodel.Site) {
	sv.site.Dynamic = v.less(site)
	if sv.live == nil {
		sv.live = make([]standing, len(sv.places))
	}
	jobs := map[string]int{}
	for p, t := range v.taken[site.Key] {
		jobs[p.Share] += t.jobs
	}
	for i, w := range sv.places {
		sv.live[i] = standingOf(w, jobs[w.Share.ID])
	}
}

// standingOf tells how a place stands, with jobs that were given to its share.
func standingOf(w resourcemodel.Where, jobs int) standing {
	st := standing{}
	if dyn := w.Site.Dynamic; dyn != nil {
		st.share, st.nodes, st.up = dyn.Shares[w.Share.ID], dyn.Environments[w.Environment.ID], dyn.Up
	}
	slots := w.Share.Slots
	if slots <= 0 {
		slots = st.nodes.Available * max(w.Environment.CPUs, 1)
	}
	st.load = float64(st.share.Running+st.share.Waiting+jobs) / float64(max(slots, 1))
	return st
}

// tell says it in a candidate.
func (st *standing) tell(c *policy.Candidate) { c.State, c.Nodes, c.Load = st.share, st.nodes, st.load }

// Ruled gives the places that are no candidates.
func (v *Survey) Ruled(r *resourcemodel.Request, d resourcemodel.Derived, most int) (out []Ruled, more int) {
	for _, sv := range v.sites {
		could := v.could(r, d)[sv.first:]
		for i, w := range sv.places {
			if could[i] != never && (could[i].freeAt(r, w, &sv.live[i], d) > 0 || !shut(r, w, d)) {
				continue
			}
			if len(out) == most {
				more++
				continue
			}
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
	return func(yield func(resourcemodel.Where) bool) {
		for _, sv := range v.sites {
			for _, w := range sv.places {
				if !yield(w) {
					return
				}
			}
		}
	}
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
		v.stand(sv, v.snap.Site(p.Key))
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
func NewPlaces(m *resourcemodel.Snapshot) Places { return NewSurvey(m) }
