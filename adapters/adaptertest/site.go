package adaptertest

import (
	"reflect"
	"slices"

	"github.com/portolan-project/portolan/adapters"
)

// What a site says of itself fits together, and its versions grow when, and only
// when, something changed.
func testSiteResources(b *bench) {
	one := b.resources()
	two := b.resources()
	b.sensible(one)
	if one.Static != two.Static {
		b.Errorf("the static version went from %d to %d although nothing changed:\n%+v\n%+v", one.Static, two.Static, one, two)
	}
	h := b.submit(b.h.Define(Behaviour{Hang: true}))
	b.running(h)
	three := b.resources()
	b.sensible(three)
	b.cancel(h)
	b.cancelled(h)
	four := b.resources()
	all := []adapters.Resources{one, two, three, four}
	for i, after := range all[1:] {
		before := all[i]
		if after.Static < before.Static || after.Dynamic < before.Dynamic {
			b.Errorf("a version of Resources went back: static %d to %d, dynamic %d to %d", before.Static, after.Static, before.Dynamic, after.Dynamic)
		}
		if after.Static == before.Static && !reflect.DeepEqual(static(before), static(after)) {
			b.Errorf("something static changed, but the static version is still %d:\n%+v\n%+v", after.Static, static(before), static(after))
		}
		if after.Static != before.Static && reflect.DeepEqual(static(before), static(after)) {
			b.Errorf("the static version went from %d to %d although nothing static changed", before.Static, after.Static)
		}
		if after.Dynamic == before.Dynamic && !reflect.DeepEqual(dynamic(before), dynamic(after)) {
			b.Errorf("something dynamic changed, but the dynamic version is still %d:\n%+v\n%+v", after.Dynamic, dynamic(before), dynamic(after))
		}
	}
}

func (b *bench) resources() adapters.Resources {
	b.Helper()
	r, err := b.a.Resources(b.Context())
	if err != nil {
		b.Fatalf("Resources: %v", err)
	}
	return r
}

func (b *bench) sensible(r adapters.Resources) {
	b.Helper()
	if len(r.Environments) == 0 || len(r.Shares) == 0 {
		b.Fatalf("Resources must name at least one environment and one share: %+v", r)
	}
	ids := map[string]bool{}
	for _, e := range r.Environments {
		if e.ID == "" || ids[e.ID] {
			b.Errorf("the environment %q has no id of its own", e.ID)
		}
		ids[e.ID] = true
		if e.CPUs < 0 || e.Memory < 0 || e.VirtualMemory < 0 || e.Disk < 0 || e.Nodes < 0 || e.CPUSpeed < 0 || e.FreeMemory < 0 || e.FreeCPUs < 0 {
			b.Errorf("the environment %s has a negative number: %+v", e.ID, e)
		}
		if e.Available > e.Nodes || e.Available < 0 {
			b.Errorf("%d of %d nodes of the environment %s are available", e.Available, e.Nodes, e.ID)
		}
		if e.CPUs > 0 && e.FreeCPUs > e.CPUs*e.Nodes {
			b.Errorf("%d of %d × %d processors of the environment %s are free", e.FreeCPUs, e.Nodes, e.CPUs, e.ID)
		}
		if e.Memory > 0 && e.FreeMemory > e.Memory*int64(e.Nodes) {
			b.Errorf("%d of %d × %d bytes of the environment %s are free", e.FreeMemory, e.Nodes, e.Memory, e.ID)
		}
		if len(e.HostNames) > adapters.MaxHostNames {
			b.Errorf("the environment %s lists %d hosts, more than MaxHostNames", e.ID, len(e.HostNames))
		}
	}
	shares := map[string]bool{}
	defaults := 0
	for _, s := range r.Shares {
		if s.ID == "" || shares[s.ID] {
			b.Errorf("the share %q has no id of its own", s.ID)
		}
		shares[s.ID] = true
		if s.Default {
			defaults++
		}
		if len(s.Environments) == 0 {
			b.Errorf("the share %s is of no environment", s.ID)
		}
		for _, id := range s.Environments {
			if !ids[id] {
				b.Errorf("the share %s names the environment %q, which there is not", s.ID, id)
			}
		}
		if s.MaxWallTime < 0 || s.MaxCPUs < 0 || s.MaxNodes < 0 || s.MaxMemory < 0 || s.Slots < 0 || s.Running < 0 || s.Waiting < 0 || s.FreeSlots < 0 {
			b.Errorf("the share %s has a negative number: %+v", s.ID, s)
		}
		if s.Slots > 0 && s.FreeSlots > s.Slots {
			b.Errorf("%d of %d slots of the share %s are free", s.FreeSlots, s.Slots, s.ID)
		}
	}
	if defaults > 1 {
		b.Errorf("%d shares say that they are the default", defaults)
	}
}

// static is what the version Static is of, but for the disk: at sites that share
// theirs with others, what jobs can have of it changes with every file.
func static(r adapters.Resources) adapters.Resources {
	s := adapters.Resources{Environments: slices.Clone(r.Environments), Shares: slices.Clone(r.Shares)}
	for i := range s.Environments {
		e := &s.Environments[i]
		e.Disk, e.Nodes, e.Available, e.FreeCPUs, e.FreeMemory = 0, 0, 0, 0, 0
	}
	for i := range s.Shares {
		h := &s.Shares[i]
		h.Open, h.Running, h.Waiting, h.FreeSlots = false, 0, 0, 0
	}
	return s
}

// dynamic is what the version Dynamic is of.
func dynamic(r adapters.Resources) (d [][5]int64) {
	for _, e := range r.Environments {
		d = append(d, [5]int64{int64(e.Nodes), int64(e.Available), int64(e.FreeCPUs), e.FreeMemory})
	}
	for _, s := range r.Shares {
		open := int64(0)
		if s.Open {
			open = 1
		}
		d = append(d, [5]int64{open, int64(s.Running), int64(s.Waiting), int64(s.FreeSlots)})
	}
	return d
}

// Health tells how things stand without asking: contact moves with the answers,
// requests are counted, and looking is free.
func testHealth(b *bench) {
	b.run(b.h.Define(Behaviour{}))
	before := b.a.Health()
	if before.Path == "" || before.Problem != "" || before.Contact.IsZero() || before.Version == "" {
		b.Errorf("after a job ran well Health is %+v; want a path, a version, the time of the last answer and no problem", before)
	}
	if len(before.Offered) > 0 && !slices.Contains(before.Offered, before.Path) {
		b.Errorf("the path in use, %q, is not among those offered, %q", before.Path, before.Offered)
	}
	b.run(b.h.Define(Behaviour{}))
	after := b.a.Health()
	if after.Contact.Before(before.Contact) || after.Requests < before.Requests {
		b.Errorf("Health went back: contact %v to %v, requests %d to %d", before.Contact, after.Contact, before.Requests, after.Requests)
	}
	if after.Requests > before.Requests && !after.Contact.After(before.Contact) {
		b.Errorf("%d requests were answered but Health().Contact stands at %v", after.Requests-before.Requests, after.Contact)
	}
	for range 1000 {
		b.a.Health()
	}
	if n := b.a.Health().Requests - after.Requests; n > 10 {
		b.Errorf("asking for Health 1000 times sent %d requests; it must send none", n)
	}
}
