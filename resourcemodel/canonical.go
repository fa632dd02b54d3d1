package resourcemodel

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Canonical gives the part in the one form that all parts of its value have: what is a
// set is sorted and has nothing twice, what is empty is nil, times are UTC. Records and
// aggregates are in this form. The given part is not changed.
func (s *Static) Canonical() *Static {
	c := *s
	c.Changed = utc(s.Changed)
	c.Labels = set(s.Labels)
	c.Policy = s.Policy.canonical()
	c.Consumables = sortedBy(s.Consumables, byName)
	c.Data = sortedBy(s.Data, func(a, b Data) int {
		return cmp.Or(strings.Compare(a.Prefix, b.Prefix), cmp.Compare(a.Distance, b.Distance))
	})
	c.Shares = sortedBy(s.Shares, func(a, b Share) int { return strings.Compare(a.ID, b.ID) })
	for i := range c.Shares {
		h := &c.Shares[i]
		h.Environments = set(h.Environments)
		h.Policy = h.Policy.canonical()
		h.Consumables = sortedBy(h.Consumables, byName)
		if h.Span != nil {
			span := *h.Span
			span.IDs = set(span.IDs)
			h.Span = &span
		}
	}
	c.Environments = sortedBy(s.Environments, func(a, b Environment) int { return strings.Compare(a.ID, b.ID) })
	for i := range c.Environments {
		e := &c.Environments[i]
		e.GPUs, e.Benchmarks = unlessEmpty(e.GPUs), unlessEmpty(e.Benchmarks)
		e.Features, e.HostNames = set(e.Features), set(e.HostNames)
		e.FileSystems = sortedBy(e.FileSystems, FileSystem.compare)
		e.Consumables = sortedBy(e.Consumables, byName)
		if e.Span != nil {
			e.Span = e.Span.canonical()
		}
	}
	c.Applications = sortedBy(s.Applications, func(a, b Application) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Version, b.Version), slices.Compare(a.Environments, b.Environments))
	})
	for i := range c.Applications {
		c.Applications[i].Environments = set(c.Applications[i].Environments)
	}
	return &c
}

// Canonical is that of Static.
func (d *Dynamic) Canonical() *Dynamic {
	c := *d
	c.Changed = utc(d.Changed)
	c.Environments, c.Consumables = unlessEmpty(d.Environments), unlessEmpty(d.Consumables)
	c.Shares = nil
	for id, s := range d.Shares {
		if c.Shares == nil {
			c.Shares = make(map[string]ShareState, len(d.Shares))
		}
		s.Consumables = unlessEmpty(s.Consumables)
		c.Shares[id] = s
	}
	return &c
}

func (p Policy) canonical() Policy { return Policy{Allow: set(p.Allow), Deny: set(p.Deny)} }

func (s *Span) canonical() *Span {
	c := *s
	c.OperatingSystems, c.OSVersions, c.CPUArchitectures = set(s.OperatingSystems), set(s.OSVersions), set(s.CPUArchitectures)
	c.GPUs, c.Benchmarks = unlessEmpty(s.GPUs), unlessEmpty(s.Benchmarks)
	c.Features = set(s.Features)
	c.FileSystems = sortedBy(s.FileSystems, FileSystem.compare)
	c.Consumables = sortedBy(s.Consumables, byName)
	return &c
}

func byName(a, b Consumable) int { return strings.Compare(a.Name, b.Name) }

func (f FileSystem) compare(o FileSystem) int {
	return cmp.Or(f.like(o), cmp.Compare(f.Size, o.Size))
}

// like orders file systems by all but their size.
func (f FileSystem) like(o FileSystem) int {
	return cmp.Or(strings.Compare(f.Name, o.Name), strings.Compare(f.Type, o.Type), strings.Compare(f.MountPoint, o.MountPoint))
}

// utc gives the moment without what a time has beside it; the zero time stays zero.
func utc(t time.Time) time.Time { return t.UTC().Round(0) }

// set gives a sorted copy without repetitions; nil if it is empty.
func set(list []string) []string {
	if len(list) == 0 {
		return nil
	}
	if slices.IsSorted(list) && len(slices.Compact(slices.Clone(list))) == len(list) {
		return list // shared, as nobody changes it
	}
	return slices.Clip(slices.Compact(slices.Sorted(slices.Values(list))))
}

// sortedBy gives a copy in order; nil if it is empty.
func sortedBy[T any](list []T, order func(a, b T) int) []T {
	if len(list) == 0 {
		return nil
	}
	c := slices.Clone(list)
	slices.SortStableFunc(c, order)
	return c
}

func unlessEmpty[M ~map[K]V, K comparable, V any](m M) M {
	if len(m) == 0 {
		return nil
	}
	return m
}
