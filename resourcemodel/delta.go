package resourcemodel

import (
	"slices"

	"github.com/portolan-project/portolan/internal/fail"
)

// Apply gives the model after the delta. What the delta does not touch is shared with
// s, and so is a part that it gives with the value and version that s has already.
// Changes of one site apply in their order. A dynamic part whose site is not known is
// kept and comes into sight with the static part. That an unknown site is gone is no
// error. One that breaks a bound or whose revision is not above that of s is refused
// as a whole: fail.Invalid, fail.Conflict.
//
// A clock that was set back does not make the model younger: At is never before that of s.
func (s *Snapshot) Apply(d Delta) (*Snapshot, error) {
	if d.Revision <= s.revision {
		return nil, fail.Errorf("resourcemodel.Apply", fail.Conflict, "", "the change of the model has revision %d, and the model is at %d already", d.Revision, s.revision)
	}
	changes := d.Changes
	if len(changes) > MaxChanges {
		return nil, fail.Errorf("resourcemodel.Apply", fail.Invalid, "", "the delta has %d changes; at most %d are taken: divide it", len(changes), MaxChanges)
	}
	for i := range changes {
		if err := changes[i].Check(); err != nil {
			return nil, err
		}
	}
	byKey := func(a, b Change) int { return a.Key.Compare(b.Key) }
	if !slices.IsSortedFunc(changes, byKey) {
		changes = slices.Clone(changes)
		slices.SortStableFunc(changes, byKey)
	}
	next := &Snapshot{revision: d.Revision, at: d.At, sites: s.sites, count: s.count}
	if next.at.Before(s.at) {
		next.at = s.at
	}
	if len(changes) > 0 {
		next.sites = s.sites.apply(changes, &next.count)
	}
	return next, nil
}

// apply makes the list anew: chunks that no change falls into are taken over.
func (ss sites) apply(changes []Change, count *int) sites {
	out := make(sites, 0, len(ss)+1)
	done := 0 // chunks of ss that are in out
	for len(changes) > 0 {
		var old []*Site
		n := len(changes)
		if len(ss) > 0 {
			// The chunk of the first change has all that are before the next chunk.
			c := done + ss[done:].chunk(changes[0].Key)
			out = append(out, ss[done:c]...)
			old, done = ss[c], c+1
			if done < len(ss) {
				end := ss[done][0].Key
				n, _ = slices.BinarySearchFunc(changes, end, func(c Change, k Key) int { return c.Key.Compare(k) })
			}
		}
		fresh := merge(old, changes[:n], count)
		changes = changes[n:]
		if last := len(out) - 1; last >= 0 && len(out[last])+len(fresh) <= maxChunk/2 {
			fresh = slices.Concat(out[last], fresh)
			out = out[:last]
		}
		for parts := (len(fresh) + maxChunk - 1) / maxChunk; parts > 0; parts-- {
			size := (len(fresh) + parts - 1) / parts
			out = append(out, slices.Clip(fresh[:size]))
			fresh = fresh[size:]
		}
	}
	return append(out, ss[done:]...)
}

// merge applies sorted changes to sorted sites.
func merge(old []*Site, changes []Change, count *int) []*Site {
	out := make([]*Site, 0, len(old)+len(changes))
	for len(changes) > 0 {
		k := changes[0].Key
		for len(old) > 0 && old[0].Key.Compare(k) < 0 {
			out, old = append(out, old[0]), old[1:]
		}
		var was *Site
		if len(old) > 0 && old[0].Key == k {
			was, old = old[0], old[1:]
		}
		site := was
		for len(changes) > 0 && changes[0].Key == k {
			site = changes[0].of(site)
			changes = changes[1:]
		}
		site = shared(was, site)
		if was != nil && was.Static != nil {
			*count--
		}
		if site != nil {
			out = append(out, site)
			if site.Static != nil {
				*count++
			}
		}
	}
	return append(out, old...)
}

// of gives the site after the change; nil is none.
func (c *Change) of(site *Site) *Site {
	next := Site{Key: c.Key}
	if site != nil && !c.Gone {
		next = *site
	}
	if c.Static != nil {
		next.Static = c.Static
	}
	if c.Dynamic != nil {
		next.Dynamic = c.Dynamic
	}
	if next.Static == nil && next.Dynamic == nil {
		return nil
	}
	return &next
}

// shared gives site with those parts of was that have the same value.
func shared(was, site *Site) *Site {
	if was == nil || site == nil || was == site {
		return site
	}
	if site.Static.stands(was.Static) {
		site.Static = was.Static
	}
	if site.Dynamic.stands(was.Dynamic) {
		site.Dynamic = was.Dynamic
	}
	if site.Static == was.Static && site.Dynamic == was.Dynamic {
		return was
	}
	return site
}

// Diff gives what makes new of old, part by part and nothing else: what is shared is
// not looked at, and a part that differs only in the time of its change is no change.
// old.Apply(Diff(old, new)) has the value of new, where new is the later one.
func Diff(old, new *Snapshot) Delta {
	d := Delta{Revision: new.revision, At: new.at}
	a, b := cursor{sites: old.sites}, cursor{sites: new.sites}
	for {
		if a.startsLike(b) {
			a.skip()
			b.skip()
			continue
		}
		was, is := a.site(), b.site()
		order := 0
		switch {
		case was == nil && is == nil:
			return d
		case was == nil:
			order = 1
		case is == nil:
			order = -1
		case was != is:
			order = was.Key.Compare(is.Key)
		}
		switch {
		case order < 0:
			d.Changes = append(d.Changes, Change{Key: was.Key, Gone: true})
		case order > 0:
			d.Changes = append(d.Changes, Change{Key: is.Key, Static: is.Static, Dynamic: is.Dynamic})
		case was != is:
			if c, differs := difference(was, is); differs {
				d.Changes = append(d.Changes, c)
			}
		}
		if order <= 0 {
			a.next()
		}
		if order >= 0 {
			b.next()
		}
	}
}

// difference gives the change from one site to another of the same key.
func difference(was, is *Site) (c Change, differs bool) {
	c.Key = is.Key
	if was.Static != nil && is.Static == nil || was.Dynamic != nil && is.Dynamic == nil {
		return Change{Key: is.Key, Static: is.Static, Dynamic: is.Dynamic, Gone: true}, true
	}
	if !is.Static.stands(was.Static) {
		c.Static = is.Static
	}
	if !is.Dynamic.stands(was.Dynamic) {
		c.Dynamic = is.Dynamic
	}
	return c, c.Static != nil || c.Dynamic != nil
}

// cursor walks over sites.
type cursor struct {
	sites     sites
	chunk, at int
}

func (c *cursor) site() *Site {
	if c.chunk == len(c.sites) {
		return nil
	}
	return c.sites[c.chunk][c.at]
}

func (c *cursor) next() {
	if c.at++; c.at == len(c.sites[c.chunk]) {
		c.skip()
	}
}

func (c *cursor) skip() { c.chunk, c.at = c.chunk+1, 0 }

// startsLike reports whether both stand before the same chunk.
func (c *cursor) startsLike(o cursor) bool {
	if c.at != 0 || o.at != 0 || c.chunk == len(c.sites) || o.chunk == len(o.sites) {
		return false
	}
	a, b := c.sites[c.chunk], o.sites[o.chunk]
	return &a[0] == &b[0] && len(a) == len(b)
}
