package schedule

import (
	"iter"
	"slices"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/resourcemodel"
)

// Indexed is Places over a resourcemodel.Index: where there are very many places, of
// which each request fits few, it looks at few. It answers as a Survey does.
type Indexed struct {
	x       *resourcemodel.Index
	order   []int // of each place, by its PlaceID
	classes map[resourcemodel.ClassID]int
	ids     map[int]resourcemodel.ClassID
	scratch []resourcemodel.PlaceID
	helped  []resourcemodel.ClassID
	jobs    map[shareKey]int // that were given, by share
}

type shareKey struct {
	resourcemodel.Key
	share string
}

var _, _ Places = (*Indexed)(nil), (*Survey)(nil)

// NewIndexed gives an Indexed of a snapshot.
func NewIndexed(m *resourcemodel.Snapshot) *Indexed {
	v := &Indexed{x: resourcemodel.NewIndex(m), classes: map[resourcemodel.ClassID]int{}, ids: map[int]resourcemodel.ClassID{}, jobs: map[shareKey]int{}}
	v.number()
	return v
}

// number numbers the places anew.
func (v *Indexed) number() {
	n := 0
	for id := range v.x.All() {
		if need := int(id) + 1 - len(v.order); need > 0 {
			v.order = append(v.order, make([]int, need)...)
		}
		v.order[id] = n
		n++
	}
}

// Snapshot is the model as it is now.
func (v *Indexed) Snapshot() *resourcemodel.Snapshot { return v.x.Snapshot() }

// Reset begins anew with a snapshot; what was taken is forgotten.
func (v *Indexed) Reset(m *resourcemodel.Snapshot) {
	v.x.Reset(m)
	clear(v.jobs)
	v.number()
}

// Apply follows a delta. What was taken stays taken.
func (v *Indexed) Apply(d resourcemodel.Delta) error {
	if _, err := v.x.Apply(d); err != nil {
		return err
	}
	for i := range d.Changes {
		if d.Changes[i].Static != nil || d.Changes[i].Gone {
			v.number()
			break
		}
	}
	return nil
}

// Class gives what the request has in common with those that every place answers alike.
func (v *Indexed) Class(r *resourcemodel.Request) resourcemodel.Class { return v.x.Class(r) }

// NamesUsers reports whether classes depend on who the users are.
func (v *Indexed) NamesUsers() bool { return v.x.NamesUsers() }

// Candidates appends the places that could run the request and are not shut.
func (v *Indexed) Candidates(into []policy.Candidate, r *resourcemodel.Request, d resourcemodel.Derived) []policy.Candidate {
	v.scratch = v.x.Candidates(v.scratch[:0], r, d)
	for _, id := range v.scratch {
		into = v.look(into, id, r, d)
	}
	return into
}

// At does the same for the places of one site.
func (v *Indexed) At(into []policy.Candidate, k resourcemodel.Key, r *resourcemodel.Request, d resourcemodel.Derived) []policy.Candidate {
	v.scratch = v.x.Of(v.scratch[:0], k)
	for _, id := range v.scratch {
		if r.Fits(v.x.Where(id), d) {
			into = v.look(into, id, r, d)
		}
	}
	return into
}

// look appends a place that the request fits.
func (v *Indexed) look(into []policy.Candidate, id resourcemodel.PlaceID, r *resourcemodel.Request, d resourcemodel.Derived) []policy.Candidate {
	w := v.x.Where(id)
	free := r.Room(w, d)
	if free == 0 && shut(r, w, d) {
		return into
	}
	into = append(into, policy.Candidate{Place: w.Place(), Site: w.Site, Share: w.Share, Env: w.Environment, Free: free, Soft: 1, Order: v.order[id], Derived: d})
	v.tell(&into[len(into)-1], w)
	return into
}

func (v *Indexed) tell(c *policy.Candidate, w resourcemodel.Where) {
	st := standingOf(w, v.jobs[shareKey{w.Site.Key, w.Share.ID}])
	st.tell(c)
}

// Refresh brings a candidate up to what was taken since.
func (v *Indexed) Refresh(c *policy.Candidate, r *resourcemodel.Request) {
	id, ok := v.x.Find(c.Place)
	if !ok {
		c.Free = 0
		return
	}
	w := v.x.Where(id)
	c.Site = w.Site
	v.tell(c, w)
	c.Free = r.Room(w, c.Derived)
}

// Frees reports whether some place of the site has free what one job takes.
func (v *Indexed) Frees(k resourcemodel.Key, r *resourcemodel.Request, d resourcemodel.Derived) bool {
	v.scratch = v.x.Of(v.scratch[:0], k)
	return slices.ContainsFunc(v.scratch, func(id resourcemodel.PlaceID) bool { return r.Starts(v.x.Where(id), d) })
}

// Ruled gives the places that are no candidates.
func (v *Indexed) Ruled(r *resourcemodel.Request, d resourcemodel.Derived, most int) (out []Ruled, more int) {
	v.scratch = v.x.Candidates(v.scratch[:0], r, d)
	next := 0
	for id := range v.x.All() {
		fits := next < len(v.scratch) && v.scratch[next] == id
		if fits {
			next++
		} else if len(out) == most {
			more++
			continue
		}
		w := v.x.Where(id)
		if fits && (r.Room(w, d) > 0 || !shut(r, w, d)) {
			continue
		}
		if len(out) == most {
			more++
			continue
		}
		out = append(out, ruledAt(r, w, d))
	}
	return out, more
}

// All gives every place.
func (v *Indexed) All() iter.Seq[resourcemodel.Where] {
	return func(yield func(resourcemodel.Where) bool) {
		for id := range v.x.All() {
			if !yield(v.x.Where(id)) {
				return
			}
		}
	}
}

// Take takes a job's need from a place.
func (v *Indexed) Take(p resourcemodel.Place, n *resourcemodel.Need) {
	v.jobs[shareKey{p.Key, p.Share}]++
	v.scratch = v.x.TakeAt(v.scratch[:0], p, n)
}

// Give gives it back.
func (v *Indexed) Give(p resourcemodel.Place, n *resourcemodel.Need) {
	k := shareKey{p.Key, p.Share}
	if v.jobs[k]--; v.jobs[k] == 0 {
		delete(v.jobs, k)
	}
	v.scratch = v.x.GiveAt(v.scratch[:0], p, n)
}

// Register says that a class of requests waits.
func (v *Indexed) Register(class int, r *resourcemodel.Request) {
	id := v.x.Register(r)
	v.classes[id], v.ids[class] = class, id
}

// Forget says that it does not any more.
func (v *Indexed) Forget(class int) {
	id, ok := v.ids[class]
	if !ok {
		return
	}
	v.x.Unregister(id)
	delete(v.ids, class)
	delete(v.classes, id)
}

// Helped gives the classes that the site could start a job of; where it takes jobs ahead,
// all of them, since the index does not look at those.
func (v *Indexed) Helped(k resourcemodel.Key, ahead bool, d resourcemodel.Derived, yield func(class int)) {
	if ahead {
		for class := range v.ids {
			yield(class)
		}
		return
	}
	v.scratch = v.x.Of(v.scratch[:0], k)
	v.helped = v.x.Helped(v.helped[:0], v.scratch, d)
	for _, id := range v.helped {
		yield(v.classes[id])
	}
}

// Exhausted reports whether no job of any kind could start at the site.
func (v *Indexed) Exhausted(k resourcemodel.Key) bool {
	site := v.x.Site(k)
	return site == nil || exhausted(site)
}
