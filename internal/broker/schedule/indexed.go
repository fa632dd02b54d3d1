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
	order   []int                   // of each place, by its PlaceID
	places  []resourcemodel.PlaceID // in their order
	classes map[resourcemodel.ClassID]int
	ids     map[int]resourcemodel.ClassID
	scratch []resourcemodel.PlaceID
	helped  []resourcemodel.ClassID
}

var _, _ Places = (*Indexed)(nil), (*Survey)(nil)

// NewIndexed gives an Indexed of a snapshot.
func NewIndexed(m *resourcemodel.Snapshot) *Indexed {
	v := &Indexed{x: resourcemodel.NewIndex(m), classes: map[resourcemodel.ClassID]int{}, ids: map[int]resourcemodel.ClassID{}}
	v.number()
	return v
}

// number numbers the places anew.
func (v *Indexed) number() {
	v.places = v.places[:0]
	for id := range v.x.All() {
		if need := int(id) + 1 - len(v.order); need > 0 {
			v.order = append(v.order, make([]int, need)...)
		}
		v.order[id] = len(v.places)
		v.places = append(v.places, id)
	}
}

// Snapshot is the model as it is now.
func (v *Indexed) Snapshot() *resourcemodel.Snapshot { return v.x.Snapshot() }

// Reset begins anew with a snapshot; what was taken is forgotten.
func (v *Indexed) Reset(m *resourcemodel.Snapshot) {
	v.x.Reset(m)
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
func (v *Indexed) Candidates(into []Offer, r *resourcemodel.Request, d resourcemodel.Derived) []Offer {
	v.scratch = v.x.Candidates(v.scratch[:0], r, d)
	for _, id := range v.scratch {
		into = v.offer(into, id, r, d)
	}
	return into
}

// At does the same for the places of one site.
func (v *Indexed) At(into []Offer, k resourcemodel.Key, r *resourcemodel.Request, d resourcemodel.Derived) []Offer {
	v.scratch = v.x.Of(v.scratch[:0], k)
	for _, id := range v.scratch {
		if v.x.Fits(id, r, d) {
			into = v.offer(into, id, r, d)
		}
	}
	return into
}

// offer appends a place that the request fits.
func (v *Indexed) offer(into []Offer, id resourcemodel.PlaceID, r *resourcemodel.Request, d resourcemodel.Derived) []Offer {
	free := v.x.Room(id, r, d)
	if free == 0 && v.shut(id, r, d) {
		return into
	}
	return append(into, Offer{v.order[id], free})
}

// shut reports whether more stands against a place than the jobs that it has.
func (v *Indexed) shut(id resourcemodel.PlaceID, r *resourcemodel.Request, d resourcemodel.Derived) bool {
	return !v.x.Takes(id) || !plain(r) && shut(r, v.x.Where(id), d)
}

// Place names a place.
func (v *Indexed) Place(order int) resourcemodel.Place { return v.x.Place(v.places[order]) }

// Free gives how many jobs could start at a place.
func (v *Indexed) Free(order int, r *resourcemodel.Request, d resourcemodel.Derived) int {
	return v.x.Room(v.places[order], r, d)
}

// Tell says all that is known of a place. Soft criteria are held against the site less
// what was taken, which is a copy; nothing else asks for it.
func (v *Indexed) Tell(c *policy.Candidate, order int, r *resourcemodel.Request, d resourcemodel.Derived) {
	id := v.places[order]
	s := v.x.Standing(id)
	c.Place, c.Site, c.Share, c.Env, c.State, c.Nodes = s.Where.Place(), s.Site, s.Share, s.Environment, s.State, s.Nodes
	c.Load, c.Order, c.Derived = load(s.Where, &s.State, &s.Nodes, s.Jobs), order, d
	if len(r.Soft) > 0 {
		c.Site = v.x.Where(id).Site
	}
}

// Frees reports whether some place of the site has free what one job takes.
func (v *Indexed) Frees(k resourcemodel.Key, r *resourcemodel.Request, d resourcemodel.Derived) bool {
	v.scratch = v.x.Of(v.scratch[:0], k)
	return slices.ContainsFunc(v.scratch, func(id resourcemodel.PlaceID) bool { return v.x.Starts(id, r, d) })
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
		if fits && (v.x.Starts(id, r, d) || !v.shut(id, r, d)) {
			continue
		}
		if len(out) == most {
			more++
			continue
		}
		out = append(out, ruledAt(r, v.x.Where(id), d))
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
	v.scratch = v.x.TakeAt(v.scratch[:0], p, n)
}

// Give gives it back.
func (v *Indexed) Give(p resourcemodel.Place, n *resourcemodel.Need) {
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
func (v *Indexed) Exhausted(k resourcemodel.Key) bool { return v.x.Exhausted(k) }
