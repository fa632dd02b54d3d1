package resourcemodel

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/portolan-project/portolan/internal/fail"
)

// ClassID names a request that is registered.
type ClassID uint32

// waitingTable has the requests that wait for a change, those that take the fewest CPUs
// first.
type waitingTable struct {
	list []*waitingClass
	all  map[ClassID]*waitingClass
	last ClassID
}

type waitingClass struct {
	id      ClassID
	request *Request
	cpus    int64 // at least
	told    bool  // that something could help it
	timed   bool  // time alone could help it, or what is known beside the model
}

func (a *waitingClass) compare(b *waitingClass) int {
	return cmp.Or(cmp.Compare(a.cpus, b.cpus), cmp.Compare(a.id, b.id))
}

// Register says that a request waits which no place can start now. Helped tells when that
// changes.
func (x *Index) Register(r *Request) ClassID {
	t := &x.waiting
	t.last++
	w := &waitingClass{id: t.last, request: r, timed: !r.NotBefore.IsZero()}
	w.cpus, _ = r.ask.shape()
	for i := range r.hard {
		w.timed = w.timed || r.hard[i].attribute.Kind == DerivedAttribute
	}
	if t.all == nil {
		t.all = map[ClassID]*waitingClass{}
	}
	t.all[w.id] = w
	i, _ := slices.BinarySearchFunc(t.list, w, (*waitingClass).compare)
	t.list = slices.Insert(t.list, i, w)
	return w.id
}

// Unregister forgets it. That it is not known is no error.
func (x *Index) Unregister(id ClassID) {
	t := &x.waiting
	w := t.all[id]
	if w == nil {
		return
	}
	delete(t.all, id)
	i, _ := slices.BinarySearchFunc(t.list, w, (*waitingClass).compare)
	t.list = slices.Delete(t.list, i, i+1)
}

// Registered gives how many there are.
func (x *Index) Registered() int { return len(x.waiting.list) }

// Helped appends the registered requests that one of these places can start now: after a
// change of the places, all those and only those that it helps, as none could be started
// before. What only time helps (a NotBefore), or what is known of places beside the model,
// is for the caller to know.
func (x *Index) Helped(into []ClassID, touched []PlaceID, d Derived) []ClassID {
	var p at
	p.derived = &d
	begin := len(into)
	for _, id := range touched {
		free := int64(maxCount)
		s := &x.sites[x.places.list[id].site]
		e := &x.envs.rows[s.envs.first+uint32(x.places.list[id].env)]
		if e.is.has(known) && !e.is.has(wide) {
			free = int64(e.freeCPUs)
		}
		if h := &x.shares.rows[s.shares.first+uint32(x.places.list[id].share)]; !h.is.has(opened) {
			continue
		}
		b := x.places.list[id].row >> blockBits
		bit := uint64(1) << (x.places.list[id].row % blockRows)
		for _, w := range x.waiting.list {
			if w.cpus > free {
				break
			}
			if slices.Contains(into[begin:], w.id) {
				continue
			}
			a := x.of(w.request)
			a.ready(x)
			if a.plan.rows(&x.grid, bit, b, ^todo(0)>>(64-len(a.plan.conds)-len(a.plan.words))) == 0 {
				continue
			}
			p.request = w.request
			if x.starts(id, a, w.request, &p) {
				w.told = true
				into = append(into, w.id)
			}
		}
	}
	return into
}

// Audit looks at every place for every registered request, and reports a wake-up that
// was missed, which is fail.Internal: a request that some place can start, and that
// Helped never named since it was registered. Every change must have been given to
// Helped before. Requests that time alone may help are passed over.
func (x *Index) Audit(d Derived) error {
	for _, w := range x.waiting.list {
		if w.told || w.timed {
			continue
		}
		for id := range x.All() {
			if where := x.Where(id); w.request.Starts(where, d) {
				return fail.E("resourcemodel.Index.Audit", fail.Internal, "", fmt.Errorf("the place %s can start the waiting request %d, and nothing told of it", where.Place(), w.id))
			}
		}
	}
	return nil
}
