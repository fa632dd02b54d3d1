package resourcemodel

import (
	"cmp"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

// Aggregate gives the site at a coarser detail; nil for None. A site that is as coarse
// already, or coarser, is given as it is. What an aggregate keeps and what it loses:
//
// Full is the site itself.
//
// Categorized has like environments as one (the class), and like shares as one.
//   - Shares are alike that have the same policy, the same price and are both the default
//     or both not; one with consumables of its own stays alone.
//   - Environments are alike that agree in the operating system and its version, the CPU
//     architecture, the number of CPUs, the memory to the power of two below it, the GPUs
//     by type, which numbers and lists are known, which of the resulting shares use them, and which
//     of the applications that are not everywhere they have.
//   - The class has the least of each number and what all have of each list, its Span has
//     the most and what any has. So a wish (for at least, for at most, for a word, for
//     all at once) that is met by everything between the two is met by every member: no
//     false inclusion, all attributes taken together. And a wish that no value between the
//     two meets is met by no member: no false exclusion. For wishes of "at least" the
//     plain fields alone decide the former, those of the Span the latter.
//   - States are sums of those that are known: a job that a member has room for, the sums have room for (no false
//     exclusion). That one member has room for what the sums have is not said; for what
//     Best has, one member has room, all attributes together (no false inclusion).
//   - Lost: which member has what. Host names are those of all members.
//
// Simple has all shares as one over all environments as one, by the same rules but
// whatever they are, and applications as if each were everywhere. What a Simple site rules
// out by the Span, the site rules out (no false exclusion). The reverse does not hold: the
// largest memory may be of another environment than the GPU, the widest limit of another
// share than the one that the subject may use; policies are joined so that nobody is shut
// out who may use one of the shares.
//
// Both leave out environments that no share uses. Sums (nodes, CPUs, memory and GPUs free,
// jobs running and waiting, slots, totals of consumables) are conserved, but for free
// slots of shares that are closed, which no job gets. Where a list would grow beyond the bounds
// of Check, the first in order stay; a list of allowing rules becomes "everybody".
//
// An aggregate of aggregates is the aggregate of the whole.
func Aggregate(s *Site, d Detail) *Site {
	if d >= None || s.Static == nil {
		return nil
	}
	if s.Static.Detail >= d {
		return s
	}
	static, g := aggregate(s.Static.Canonical(), d)
	out := &Site{Key: s.Key, Static: static}
	if s.Dynamic != nil {
		out.Dynamic = g.dynamic(s.Dynamic, d)
	}
	return out
}

// Via stands between the names of a child domain and of its site where a domain shows
// the site as its own.
const Via = "~"

// Merge gives what a domain shows of itself: the sites of the domains in of, at a detail,
// all as sites of the domain as. Those of our own domain, "", and of as itself keep their names;
// the site s of another domain d is d~s. The revision is that of s. A name that gets
// too long is fail.Invalid.
func Merge(s *Snapshot, as string, d Detail, of ...string) (*Snapshot, error) {
	if as == "" {
		return nil, fail.Errorf("resourcemodel.Merge", fail.Invalid, "", "a domain that shows its sites needs a name")
	}
	out := &Snapshot{revision: s.revision, at: s.at}
	var changes []Change
	for _, domain := range of {
		for site := range s.SitesOf(domain) {
			a := Aggregate(site, d)
			if a == nil {
				continue
			}
			k := Key{Domain: as, Site: site.Site}
			if domain != "" && domain != as {
				k.Site = domain + Via + site.Site
			}
			c := Change{Key: k, Static: a.Static, Dynamic: a.Dynamic, Gone: true}
			if err := c.Check(); err != nil {
				return nil, err
			}
			changes = append(changes, c)
		}
	}
	slices.SortStableFunc(changes, func(a, b Change) int { return a.Key.Compare(b.Key) })
	out.sites = out.sites.apply(changes, &out.count)
	return out, nil
}

// Most gives the span of the environment; what is not merged spans itself. It is not
// to be changed.
func (e *Environment) Most() *Span {
	if e.Span != nil {
		return e.Span
	}
	return &Span{
		OperatingSystems: []string{e.OperatingSystem}, OSVersions: []string{e.OSVersion}, CPUArchitectures: []string{e.CPUArchitecture},
		CPUs: e.CPUs, CPUSpeed: e.CPUSpeed, Memory: e.Memory, VirtualMemory: e.VirtualMemory, Disk: e.Disk, Bandwidth: e.Bandwidth,
		GPUs: e.GPUs, Features: e.Features, FileSystems: e.FileSystems, Benchmarks: e.Benchmarks, Consumables: e.Consumables,
	}
}

// Most gives the span of the share; what is not merged spans itself. It is not to be changed.
func (s *Share) Most() *ShareSpan {
	if s.Span != nil {
		return s.Span
	}
	return &ShareSpan{IDs: []string{s.ID}, MaxWallTime: s.MaxWallTime, MaxCPUs: s.MaxCPUs, MaxNodes: s.MaxNodes, MaxMemory: s.MaxMemory, Price: s.Price}
}

// Has reports whether the share is, or was merged of, one of this ID.
func (s *Share) Has(id string) bool {
	return s.ID == id || s.Span != nil && slices.Contains(s.Span.IDs, id)
}

// Widest gives the site as its spans have it at best, for those who must not rule out
// what a member could do, and take what is not known for possible: numbers that a job is
// given a part of are the most, or unknown if they are of one member; numbers and words
// that a node is are unknown where they differ; lists have what any member has; limits are
// the widest. A site that is no aggregate is given as it is. Its dynamic part is the same:
// sums are at best already.
func Widest(s *Site) *Site {
	if s.Static == nil || s.Static.Detail == Full {
		return s
	}
	static := *s.Static
	static.Shares, static.Environments = slices.Clone(static.Shares), slices.Clone(static.Environments)
	for i := range static.Shares {
		h := &static.Shares[i]
		if w := h.Span; w != nil {
			h.MaxWallTime, h.MaxCPUs, h.MaxNodes, h.MaxMemory = w.MaxWallTime, w.MaxCPUs, w.MaxNodes, w.MaxMemory
		}
	}
	for i := range static.Environments {
		e := &static.Environments[i]
		w := e.Span
		if w == nil {
			continue
		}
		e.OperatingSystem, e.OSVersion, e.CPUArchitecture = only(w.OperatingSystems), only(w.OSVersions), only(w.CPUArchitectures)
		if e.Memory < w.Memory && e.VirtualMemory > 0 {
			e.VirtualMemory = 0 // what is left of it for swap is another number at each
		}
		e.CPUs, e.Memory = part64(e.CPUs, w.CPUs), part64(e.Memory, w.Memory)
		e.VirtualMemory, e.Disk = part64(e.VirtualMemory, w.VirtualMemory), part64(e.Disk, w.Disk)
		if e.CPUSpeed < w.CPUSpeed {
			e.CPUSpeed = 0
		}
		if e.Bandwidth < w.Bandwidth {
			e.Bandwidth = 0
		}
		e.GPUs, e.Benchmarks, e.Consumables = w.GPUs, w.Benchmarks, w.Consumables
		if len(e.Features) > 0 || static.Detail == Categorized {
			e.Features = w.Features // else they may not be known of one
		}
		e.FileSystems = e.widestFileSystems()
	}
	if static.Detail == Simple && len(static.Consumables) == 0 {
		// Who counts nothing may have anything; whether all of them count is not known here.
		for i := range static.Environments {
			if e := &static.Environments[i]; e.Span != nil {
				e.Consumables = nil
			}
		}
		for i := range static.Shares {
			static.Shares[i].Consumables = nil
		}
	}
	return &Site{Key: s.Key, Static: &static, Dynamic: s.Dynamic}
}

// widestFileSystems gives one of each name that any member mounts: that of all members,
// with the most of their sizes, or where they differ one of which nothing else is known.
func (e *Environment) widestFileSystems() []FileSystem {
	var list []FileSystem
	for _, f := range e.Span.FileSystems {
		if n := len(list) - 1; n >= 0 && list[n].Name == f.Name { // they are in order
			list[n] = FileSystem{Name: f.Name}
			continue
		}
		i := slices.IndexFunc(e.FileSystems, func(o FileSystem) bool { return o.like(f) == 0 })
		if i >= 0 {
			f.Size = part64(e.FileSystems[i].Size, f.Size)
		} else {
			f = FileSystem{Name: f.Name}
		}
		list = append(list, f)
	}
	return list
}

// part64 gives the most, or that it is not known if it is not known of one.
func part64[T int | int64](least, most T) T {
	if least == 0 {
		return 0
	}
	return most
}

// only gives the word where there is one.
func only(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return ""
}

// groups say which members each merged share and environment has, by its ID. Its ID is
// that of its first member.
type groups struct {
	shares, environments map[string][]string
}

// aggregate merges a canonical part.
func aggregate(s *Static, d Detail) (*Static, groups) {
	g := groups{shares: map[string][]string{}, environments: map[string][]string{}}
	simple := d == Simple

	// Shares first: which of them use an environment is part of what it is.
	shareOf, byKey := make([]string, len(s.Shares)), map[string]string{}
	users := map[string][]string{} // of an environment: the merged shares
	for i := range s.Shares {
		h := &s.Shares[i]
		key := ""
		if !simple {
			key = h.category()
		}
		id, known := byKey[key]
		if !known {
			id = h.ID
			byKey[key] = id
		}
		shareOf[i] = id
		g.shares[id] = append(g.shares[id], h.ID)
		for _, e := range h.Environments {
			users[e] = append(users[e], id)
		}
	}
	software := map[string][]string{} // of an environment: the applications that name it
	for _, a := range s.Applications {
		for _, e := range a.Environments {
			software[e] = append(software[e], a.Name+"\x00"+a.Version)
		}
	}

	envOf := map[string]string{}
	clear(byKey)
	merged := map[string][]*Environment{}
	var order []string
	for i := range s.Environments {
		e := &s.Environments[i]
		if len(users[e.ID]) == 0 {
			continue
		}
		key := ""
		if !simple {
			key = e.category(set(users[e.ID]), set(software[e.ID]))
		}
		id, known := byKey[key]
		if !known {
			id = e.ID
			byKey[key] = id
			order = append(order, id)
		}
		envOf[e.ID] = id
		g.environments[id] = append(g.environments[id], e.ID)
		merged[id] = append(merged[id], e)
	}

	out := &Static{Stamp: s.Stamp, Type: s.Type, Labels: s.Labels, Policy: s.Policy, Consumables: s.Consumables, Data: s.Data}
	out.Detail = d
	for _, id := range order {
		out.Environments = append(out.Environments, mergeEnvironments(merged[id]))
	}
	for i := range s.Shares {
		if id := shareOf[i]; id == s.Shares[i].ID {
			var members []*Share
			for j := range s.Shares {
				if shareOf[j] == id {
					members = append(members, &s.Shares[j])
				}
			}
			out.Shares = append(out.Shares, mergeShares(members, envOf))
		}
	}
	out.Applications = mergeApplications(s.Applications, envOf, simple)
	return out.Canonical(), g
}

// category is the same for shares that Categorized has as one.
func (s *Share) category() string {
	if len(s.Consumables) > 0 {
		return "alone\x00" + s.ID
	}
	return strings.Join([]string{
		strconv.FormatBool(s.Default), number64(s.Price), strings.Join(s.Policy.Allow, "\x01"), strings.Join(s.Policy.Deny, "\x01"),
	}, "\x00")
}

// category is the same for environments that Categorized has as one.
func (e *Environment) category(users, software []string) string {
	var b strings.Builder
	for _, s := range []string{e.OperatingSystem, e.OSVersion, e.CPUArchitecture} {
		b.WriteString(s)
		b.WriteByte(0)
	}
	known := []bool{e.CPUSpeed > 0, e.VirtualMemory > 0, e.Disk > 0, e.Bandwidth > 0, len(e.Features) > 0, len(e.Consumables) > 0}
	fmt.Fprintf(&b, "%d\x00%d\x00%t\x00", e.CPUs, MemoryClass(e.Memory), known)
	for _, k := range sorted(e.GPUs) {
		fmt.Fprintf(&b, "%s\x01%d\x01", k, e.GPUs[k])
	}
	for _, list := range [][]string{users, software} {
		b.WriteByte(0)
		for _, s := range list {
			b.WriteString(s)
			b.WriteByte(1)
		}
	}
	return b.String()
}

// MemoryClass gives the power of two at or below a number of bytes, in bytes; 0 of what is
// not known.
func MemoryClass(n int64) int64 {
	if n <= 0 {
		return 0
	}
	return 1 << (bits.Len64(uint64(n)) - 1)
}

func number64(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }

// mergeEnvironments makes one of at least one.
func mergeEnvironments(members []*Environment) Environment {
	if len(members) == 1 {
		return *members[0]
	}
	e, most := *members[0], *members[0].Most()
	e.Classes = max(1, e.Classes)
	for _, m := range members[1:] {
		e.Classes = sum(e.Classes, max(1, m.Classes))
		e.meet(m)
		most.join(m.Most())
	}
	e.Span = nil
	e.HostNames = first(MaxHostNames, e.HostNames)
	most = *most.canonical()
	if own := e.Most().canonical(); !sameSpan(own, &most) {
		e.Span = &most
	}
	return e
}

// meet leaves in e what both have.
func (e *Environment) meet(m *Environment) {
	e.OperatingSystem, e.OSVersion, e.CPUArchitecture = agreed(e.OperatingSystem, m.OperatingSystem), agreed(e.OSVersion, m.OSVersion), agreed(e.CPUArchitecture, m.CPUArchitecture)
	e.CPUs, e.CPUSpeed, e.Memory = min(e.CPUs, m.CPUs), min(e.CPUSpeed, m.CPUSpeed), min(e.Memory, m.Memory)
	e.VirtualMemory, e.Disk, e.Bandwidth = min(e.VirtualMemory, m.VirtualMemory), min(e.Disk, m.Disk), min(e.Bandwidth, m.Bandwidth)
	e.GPUs, e.Benchmarks = common(e.GPUs, m.GPUs), common(e.Benchmarks, m.Benchmarks)
	e.Features = slices.DeleteFunc(slices.Clone(e.Features), func(f string) bool { return !has(m.Features, f) })
	e.HostNames = union(MaxHostNames, e.HostNames, m.HostNames)
	var systems []FileSystem
	for _, f := range e.FileSystems {
		if i := slices.IndexFunc(m.FileSystems, func(o FileSystem) bool { return f.like(o) == 0 }); i >= 0 {
			f.Size = min(f.Size, m.FileSystems[i].Size)
			systems = append(systems, f)
		}
	}
	e.FileSystems = systems
	var counters []Consumable
	for _, c := range e.Consumables {
		if i := slices.IndexFunc(m.Consumables, func(o Consumable) bool { return c.Name == o.Name }); i >= 0 {
			c.Total = min(c.Total, m.Consumables[i].Total)
			counters = append(counters, c)
		}
	}
	e.Consumables = counters
}

// join puts into s what either has.
func (s *Span) join(m *Span) {
	s.OperatingSystems = union(MaxEnvironments, s.OperatingSystems, m.OperatingSystems)
	s.OSVersions = union(MaxEnvironments, s.OSVersions, m.OSVersions)
	s.CPUArchitectures = union(MaxEnvironments, s.CPUArchitectures, m.CPUArchitectures)
	s.CPUs, s.CPUSpeed, s.Memory = max(s.CPUs, m.CPUs), max(s.CPUSpeed, m.CPUSpeed), max(s.Memory, m.Memory)
	s.VirtualMemory, s.Disk, s.Bandwidth = max(s.VirtualMemory, m.VirtualMemory), max(s.Disk, m.Disk), max(s.Bandwidth, m.Bandwidth)
	s.GPUs, s.Benchmarks = either(MaxGPUTypes, s.GPUs, m.GPUs), either(MaxBenchmarks, s.Benchmarks, m.Benchmarks)
	s.Features = union(MaxFeatures, s.Features, m.Features)

	systems := slices.Clone(s.FileSystems)
	for _, f := range m.FileSystems {
		if i := slices.IndexFunc(systems, func(o FileSystem) bool { return f.like(o) == 0 }); i >= 0 {
			systems[i].Size = max(systems[i].Size, f.Size)
		} else {
			systems = append(systems, f)
		}
	}
	slices.SortFunc(systems, FileSystem.compare)
	s.FileSystems = first(MaxFileSystems, systems)

	counters := slices.Clone(s.Consumables)
	for _, c := range m.Consumables {
		if i := slices.IndexFunc(counters, func(o Consumable) bool { return c.Name == o.Name }); i >= 0 {
			counters[i].Total = max(counters[i].Total, c.Total)
		} else {
			counters = append(counters, c)
		}
	}
	slices.SortFunc(counters, byName)
	s.Consumables = first(MaxConsumables, counters)
}

// mergeShares makes one of at least one.
func mergeShares(members []*Share, envOf map[string]string) Share {
	h := *members[0]
	var used []string
	for _, m := range members {
		for _, e := range m.Environments {
			used = append(used, envOf[e])
		}
	}
	h.Environments = set(used)
	if len(members) == 1 {
		return h
	}
	most := *h.Most()
	for _, m := range members[1:] {
		h.Default = h.Default || m.Default
		h.MaxWallTime, h.MaxMemory = narrower(h.MaxWallTime, m.MaxWallTime), narrower(h.MaxMemory, m.MaxMemory)
		h.MaxCPUs, h.MaxNodes = narrower(h.MaxCPUs, m.MaxCPUs), narrower(h.MaxNodes, m.MaxNodes)
		if h.Slots > 0 && m.Slots > 0 {
			h.Slots = sum(h.Slots, m.Slots)
		} else {
			h.Slots = 0 // one of them has no limit
		}
		h.Price = min(h.Price, m.Price)
		h.Policy = h.Policy.or(m.Policy)
		h.Consumables = total(h.Consumables, m.Consumables)
		w := m.Most()
		most.IDs = union(MaxShares, most.IDs, w.IDs)
		most.MaxWallTime, most.MaxMemory = wider(most.MaxWallTime, w.MaxWallTime), wider(most.MaxMemory, w.MaxMemory)
		most.MaxCPUs, most.MaxNodes = wider(most.MaxCPUs, w.MaxCPUs), wider(most.MaxNodes, w.MaxNodes)
		most.Price = max(most.Price, w.Price)
	}
	h.Span = &most
	return h
}

// or gives a policy that lets everybody in whom one of the two lets in.
func (p Policy) or(o Policy) Policy {
	var j Policy
	if len(p.Allow) > 0 && len(o.Allow) > 0 {
		if all := set(slices.Concat(p.Allow, o.Allow)); len(all) <= MaxRules {
			j.Allow = all
		}
	}
	for _, r := range p.Deny {
		if has(o.Deny, r) {
			j.Deny = append(j.Deny, r)
		}
	}
	return j
}

func mergeApplications(list []Application, envOf map[string]string, simple bool) []Application {
	var out []Application
	for _, a := range list {
		var on []string
		for _, e := range a.Environments {
			if id, used := envOf[e]; used {
				on = append(on, id)
			}
		}
		everywhere := len(a.Environments) == 0
		if !everywhere && len(on) == 0 {
			continue // only where no share leads
		}
		if simple {
			on, everywhere = nil, true
		}
		a.Environments = set(on)
		if n := len(out) - 1; n >= 0 && out[n].Name == a.Name && out[n].Version == a.Version {
			if everywhere || len(out[n].Environments) == 0 {
				a.Environments = nil
			} else {
				a.Environments = set(slices.Concat(out[n].Environments, a.Environments))
			}
			out[n] = a
			continue
		}
		out = append(out, a)
	}
	return out
}

// dynamic merges the states of members.
func (g groups) dynamic(d *Dynamic, detail Detail) *Dynamic {
	out := &Dynamic{Stamp: d.Stamp, Up: d.Up, Problem: d.Problem, Consumables: d.Consumables}
	out.Detail = detail
	for id, members := range g.shares {
		var states []ShareState
		for _, m := range members {
			if s, ok := d.Shares[m]; ok {
				states = append(states, s)
			}
		}
		if len(states) > 0 {
			if out.Shares == nil {
				out.Shares = map[string]ShareState{}
			}
			out.Shares[id] = mergeShareStates(states)
		}
	}
	for id, members := range g.environments {
		var states []EnvironmentState
		for _, m := range members {
			if s, ok := d.Environments[m]; ok {
				states = append(states, s)
			}
		}
		if len(states) > 0 {
			if out.Environments == nil {
				out.Environments = map[string]EnvironmentState{}
			}
			out.Environments[id] = mergeEnvironmentStates(states)
		}
	}
	return out.Canonical()
}

func mergeShareStates(states []ShareState) ShareState {
	if len(states) == 1 {
		return states[0]
	}
	var out ShareState
	untold := false
	for _, s := range states {
		out.Running, out.Waiting = sum(out.Running, s.Running), sum(out.Waiting, s.Waiting)
		for k, n := range s.Consumables {
			if out.Consumables == nil {
				out.Consumables = map[string]int64{}
			}
			out.Consumables[k] = min(out.Consumables[k]+n, MaxCount)
		}
		if s.Open {
			out.Open = true
			out.FreeSlots = sum(out.FreeSlots, s.FreeSlots)
			untold = untold || s.Forecast == 0
			out.Forecast = max(out.Forecast, s.Forecast)
		}
	}
	if untold {
		out.Forecast = 0
	}
	for _, k := range sorted(out.Consumables)[:max(0, len(out.Consumables)-MaxConsumables)] {
		delete(out.Consumables, k)
	}
	return out
}

func mergeEnvironmentStates(states []EnvironmentState) EnvironmentState {
	if len(states) == 1 {
		return states[0]
	}
	var out EnvironmentState
	for _, s := range states {
		out.Nodes, out.Available, out.FreeNodes = sum(out.Nodes, s.Nodes), sum(out.Available, s.Available), sum(out.FreeNodes, s.FreeNodes)
		out.FreeCPUs, out.FreeGPUs = sum(out.FreeCPUs, s.FreeCPUs), sum(out.FreeGPUs, s.FreeGPUs)
		out.FreeMemory = min(out.FreeMemory+s.FreeMemory, MaxBytes)
		one := &s
		if s.Best != nil {
			one = s.Best
		}
		if out.Best == nil || one.compare(out.Best) > 0 {
			out.Best = one
		}
	}
	return out
}

// compare orders states by what a set has free.
func (s *EnvironmentState) compare(o *EnvironmentState) int {
	return cmp.Or(
		cmp.Compare(s.FreeCPUs, o.FreeCPUs), cmp.Compare(s.FreeMemory, o.FreeMemory), cmp.Compare(s.FreeGPUs, o.FreeGPUs),
		cmp.Compare(s.FreeNodes, o.FreeNodes), cmp.Compare(s.Available, o.Available), cmp.Compare(s.Nodes, o.Nodes),
	)
}

// sum adds counts and stays within the bound.
func sum(a, b int) int { return min(a+b, MaxCount) }

// total adds counters by name.
func total(a, b []Consumable) []Consumable {
	out := slices.Clone(a)
	for _, c := range b {
		if i := slices.IndexFunc(out, func(o Consumable) bool { return c.Name == o.Name }); i >= 0 {
			out[i].Total = min(out[i].Total+c.Total, MaxCount)
		} else {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, byName)
	return first(MaxConsumables, out)
}

// has finds a word in a sorted list.
func has(list []string, s string) bool {
	_, found := slices.BinarySearch(list, s)
	return found
}

func agreed(a, b string) string {
	if a == b {
		return a
	}
	return ""
}

// narrower and wider compare limits, of which zero is none.
func narrower[T int | int64 | time.Duration](a, b T) T {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

func wider[T int | int64 | time.Duration](a, b T) T {
	if a == 0 || b == 0 {
		return 0
	}
	return max(a, b)
}

// common has the keys of both maps, with the lesser values.
func common[V int | float64](a, b map[string]V) map[string]V {
	out := make(map[string]V)
	for k, v := range a {
		if w, ok := b[k]; ok {
			out[k] = min(v, w)
		}
	}
	return unlessEmpty(out)
}

// either has the keys of one map at least, with the greater values, of which the first
// most stay.
func either[V int | float64](most int, a, b map[string]V) map[string]V {
	if len(a)+len(b) == 0 {
		return nil
	}
	out := maps.Clone(a)
	if out == nil {
		out = make(map[string]V, len(b))
	}
	for k, v := range b {
		if w, ok := out[k]; !ok || v > w {
			out[k] = v
		}
	}
	if len(out) > most {
		for _, k := range sorted(out)[most:] {
			delete(out, k)
		}
	}
	return out
}

func union(most int, a, b []string) []string { return first(most, set(slices.Concat(a, b))) }

func first[T any](most int, list []T) []T {
	if len(list) > most {
		return slices.Clip(list[:most])
	}
	return list
}
