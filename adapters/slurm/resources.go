package slurm

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
)

// info gives nodes and partitions, no older than so.
func (a *Adapter) info(ctx context.Context, old time.Duration) (*siteInfo, error) {
	info, _, err := a.cache.get(ctx, old, func(ctx context.Context) (*siteInfo, error) {
		way, err := a.manager()
		if err != nil {
			return nil, err
		}
		info, err := way.site(ctx)
		if err != nil {
			a.unwell(err)
			return nil, err
		}
		a.answered(nil)
		return info, nil
	})
	if err != nil {
		return nil, unavailable("slurm.Resources", a.name, err)
	}
	return info, nil
}

// Resources gives the partitions as shares, and like nodes as environments.
func (a *Adapter) Resources(ctx context.Context) (adapters.Resources, error) {
	info, err := a.info(ctx, min(a.settings.poll, time.Second))
	if err != nil {
		return adapters.Resources{}, err
	}
	r := a.describe(info)
	a.mu.Lock()
	defer a.mu.Unlock()
	if !reflect.DeepEqual(static(r), static(a.known)) {
		a.version.static++
	}
	if !reflect.DeepEqual(dynamic(r), dynamic(a.known)) {
		a.version.dynamic++
	}
	a.known = r
	r.Static, r.Dynamic = a.version.static, a.version.dynamic
	return r, nil
}

// static leaves of resources what seldom changes.
func static(r adapters.Resources) adapters.Resources {
	out := adapters.Resources{Environments: slices.Clone(r.Environments), Shares: slices.Clone(r.Shares)}
	for i := range out.Environments {
		e := &out.Environments[i]
		e.Nodes, e.Available, e.FreeCPUs, e.FreeMemory = 0, 0, 0, 0
	}
	for i := range out.Shares {
		s := &out.Shares[i]
		s.Open, s.Running, s.Waiting, s.FreeSlots = false, 0, 0, 0
	}
	return out
}

// dynamic leaves what changes all the time.
func dynamic(r adapters.Resources) adapters.Resources {
	var out adapters.Resources
	for _, e := range r.Environments {
		out.Environments = append(out.Environments, adapters.Environment{ID: e.ID, Nodes: e.Nodes, Available: e.Available, FreeCPUs: e.FreeCPUs, FreeMemory: e.FreeMemory})
	}
	for _, s := range r.Shares {
		out.Shares = append(out.Shares, adapters.Share{ID: s.ID, Open: s.Open, Running: s.Running, Waiting: s.Waiting, FreeSlots: s.FreeSlots})
	}
	return out
}

// describe puts nodes and partitions into GLUE's shape.
func (a *Adapter) describe(info *siteInfo) adapters.Resources {
	var r adapters.Resources
	index := map[string]int{}
	at := map[string]string{} // a node's environment
	for i := range info.Nodes {
		n := &info.Nodes[i]
		os, version := n.os()
		key := fmt.Sprint(os, version, n.Arch, n.CPUs, n.Memory, n.Tmp, n.Gres, n.Features, n.Partitions)
		k, ok := index[key]
		if !ok {
			sum := sha256.Sum256([]byte(key))
			k = len(r.Environments)
			index[key] = k
			e := adapters.Environment{
				ID: fmt.Sprintf("%s-%dcpus-%dMiB-%s", n.architecture(), n.CPUs, n.Memory, hex.EncodeToString(sum[:3])), OperatingSystem: os, OSVersion: version,
				CPUArchitecture: n.architecture(), CPUs: n.CPUs, Memory: n.Memory << 20, VirtualMemory: n.Memory << 20, Disk: n.Tmp << 20, Features: n.Features,
			}
			for t, count := range parseGPUs(n.Gres) {
				if e.GPUs == nil {
					e.GPUs = map[string]int{}
				}
				e.GPUs[t] = count
			}
			r.Environments = append(r.Environments, e)
		}
		e := &r.Environments[k]
		at[n.Name] = e.ID
		e.Nodes++
		if len(e.HostNames) < adapters.MaxHostNames {
			e.HostNames = append(e.HostNames, n.Name)
		}
		if n.takes() {
			e.Available++
			e.FreeCPUs += max(n.CPUs-n.Alloc, 0)
			e.FreeMemory += max(n.Memory-n.Used, 0) << 20
		}
	}
	waiting, running := a.counts()
	counted := map[string]bool{}
	parts := slices.Clone(info.Partitions)
	slices.SortStableFunc(parts, func(x, y partition) int { return cmp.Compare(boolean(y.Default), boolean(x.Default)) })
	for i := range parts {
		p := &parts[i]
		s := adapters.Share{
			ID: p.Name, Default: p.Default, MaxWallTime: time.Duration(min(p.MaxMinutes, 1<<26)) * time.Minute, MaxNodes: p.MaxNodes, MaxMemory: p.MaxMemory << 20,
			Open: p.Up, Running: running[p.Name], Waiting: waiting[p.Name],
		}
		if p.Default {
			s.Running, s.Waiting = s.Running+running[""], s.Waiting+waiting[""]
		}
		for _, n := range info.Nodes {
			if !slices.Contains(n.Partitions, p.Name) {
				continue
			}
			if e := at[n.Name]; !slices.Contains(s.Environments, e) {
				s.Environments = append(s.Environments, e)
			}
			// CPUs that several partitions reach are counted once, so that the shares' sum is
			// what there is.
			if counted[n.Name] {
				continue
			}
			counted[n.Name] = true
			s.Slots += n.CPUs
			if n.takes() && p.Up {
				s.FreeSlots += max(n.CPUs-n.Alloc, 0)
			}
		}
		r.Shares = append(r.Shares, s)
	}
	slices.SortFunc(r.Environments, func(x, y adapters.Environment) int { return strings.Compare(x.ID, y.ID) })
	return r
}

func boolean(b bool) int {
	if b {
		return 1
	}
	return 0
}

// counts counts our own jobs by the share that they asked for.
func (a *Adapter) counts() (waiting, running map[string]int) {
	waiting, running = map[string]int{}, map[string]int{}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, m := range a.members {
		share := ""
		if r := m.batch.record.Request; r != nil {
			share = r.Partition
		}
		switch p := m.evidence.Phase; {
		case p == adapters.Running || p == adapters.Suspended:
			running[share]++
		case !p.Final():
			waiting[share]++
		}
	}
	return waiting, running
}
