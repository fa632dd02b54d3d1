package broker

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/resourcemodel"
)

// The functions of this file turn what an adapter tells of its manager, what the
// administrator says of the site, and what the broker knows itself into the parts
// of the resource model. They are pure.

// SiteModel is what an administrator says of a site beyond what its manager tells:
// who may use it, what it costs, what lies near. The zero value says nothing.
type SiteModel struct {
	Labels []string
	// Policy says who may use the site; a share's own narrows it.
	Policy resourcemodel.Policy
	// Price of a CPU-hour at shares that have none of their own.
	Price float64
	// Shares and Environments say more of those that the manager tells, by their IDs;
	// "*" is each that is not named. Names that the manager does not tell have no effect.
	Shares       map[string]ShareModel
	Environments map[string]EnvironmentModel
	Applications []resourcemodel.Application
	Consumables  []resourcemodel.Consumable // of the whole site, besides what the manager tells
	Data         []resourcemodel.Data
	// Ahead is how many jobs the site is given beyond its slots; nil leaves that to
	// Config.Limits. The fewer, the more of them are ordered by our policies rather than
	// by the manager's own.
	Ahead *int
}

// ShareModel is what an administrator says of a share.
type ShareModel struct {
	Policy      resourcemodel.Policy
	Price       float64
	Consumables []resourcemodel.Consumable
}

// EnvironmentModel is what an administrator says of an environment, per node.
type EnvironmentModel struct {
	Features    []string // besides the manager's
	FileSystems []resourcemodel.FileSystem
	Bandwidth   float64            // bit/s
	Benchmarks  map[string]float64 // by the benchmark's name; the more the faster
	Consumables []resourcemodel.Consumable
}

// staticOf gives the part of a site that seldom changes, without its stamp.
func staticOf(m SiteModel, typ string, r *adapters.Resources) *resourcemodel.Static {
	st := &resourcemodel.Static{
		Type: typ, Labels: sorted(m.Labels), Policy: m.Policy, Data: slices.Clone(m.Data),
		Applications: slices.Clone(m.Applications), Consumables: slices.Clone(m.Consumables),
	}
	for _, s := range r.Shares {
		more, ok := m.Shares[s.ID]
		if !ok {
			more = m.Shares["*"]
		}
		st.Shares = append(st.Shares, resourcemodel.Share{
			ID: s.ID, Default: s.Default, Environments: slices.Clone(s.Environments),
			MaxWallTime: max(0, s.MaxWallTime), MaxCPUs: max(0, s.MaxCPUs), MaxNodes: max(0, s.MaxNodes),
			MaxMemory: max(0, s.MaxMemory), Slots: max(0, s.Slots),
			Policy: more.Policy, Price: cmp.Or(more.Price, m.Price), Consumables: slices.Clone(more.Consumables),
		})
	}
	for _, e := range r.Environments {
		more, ok := m.Environments[e.ID]
		if !ok {
			more = m.Environments["*"]
		}
		hosts := e.HostNames
		if len(hosts) > adapters.MaxHostNames {
			hosts = hosts[:adapters.MaxHostNames]
		}
		st.Environments = append(st.Environments, resourcemodel.Environment{
			ID: e.ID, OperatingSystem: e.OperatingSystem, OSVersion: e.OSVersion, CPUArchitecture: e.CPUArchitecture,
			CPUs: max(0, e.CPUs), CPUSpeed: e.CPUSpeed, Memory: max(0, e.Memory), VirtualMemory: max(0, e.VirtualMemory), Disk: max(0, e.Disk),
			Bandwidth: more.Bandwidth, GPUs: maps.Clone(e.GPUs), Features: sorted(e.Features, more.Features), HostNames: sorted(hosts),
			FileSystems: slices.Clone(more.FileSystems), Benchmarks: maps.Clone(more.Benchmarks), Consumables: slices.Clone(more.Consumables),
		})
	}
	return st
}

// sorted joins lists into one that has each word once; nil when there is none.
func sorted(lists ...[]string) []string {
	all := slices.Concat(lists...)
	if len(all) == 0 {
		return nil
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// standing is what the broker knows of a site beside its manager's numbers.
type standing struct {
	Problem   string                   // why it is given no jobs; "" while it is
	Forecasts map[string]time.Duration // by share: what the manager itself says of the wait
}

// dynamicOf gives the part of a site that changes all the time, without its stamp.
// What a manager does not tell of free nodes is the most that its free CPUs allow.
func dynamicOf(r *adapters.Resources, k standing) *resourcemodel.Dynamic {
	d := &resourcemodel.Dynamic{
		Up: k.Problem == "", Problem: k.Problem,
		Shares:       make(map[string]resourcemodel.ShareState, len(r.Shares)),
		Environments: make(map[string]resourcemodel.EnvironmentState, len(r.Environments)),
	}
	for _, s := range r.Shares {
		d.Shares[s.ID] = resourcemodel.ShareState{
			Open: s.Open, Running: max(0, s.Running), Waiting: max(0, s.Waiting), FreeSlots: max(0, s.FreeSlots), Forecast: k.Forecasts[s.ID],
		}
	}
	for _, e := range r.Environments {
		st := resourcemodel.EnvironmentState{
			Nodes: max(0, e.Nodes), Available: max(0, min(e.Available, e.Nodes)), FreeCPUs: max(0, e.FreeCPUs), FreeMemory: max(0, e.FreeMemory),
		}
		st.FreeNodes = st.Available
		if e.CPUs > 0 {
			st.FreeNodes = min(st.Available, st.FreeCPUs/e.CPUs)
		}
		if st.FreeMemory == 0 && st.FreeCPUs > 0 && e.CPUs > 0 {
			// A manager that does not tell free memory: as much as goes with the free CPUs.
			st.FreeMemory = int64(float64(max(0, e.Memory)) * min(float64(st.Available), float64(st.FreeCPUs)/float64(e.CPUs)))
		}
		gpus := 0
		for _, n := range e.GPUs {
			gpus += max(0, n)
		}
		st.FreeGPUs = gpus * st.Available // nobody tells which are taken: their share's queue orders that
		d.Environments[e.ID] = st
	}
	return d
}

// restatic gives what is to be believed: the part of before, where nothing else is
// said now, else the new one with the next version.
func restatic(before, now *resourcemodel.Static, source string, at time.Time) *resourcemodel.Static {
	if before != nil {
		now.Stamp = before.Stamp
		if before.Source == source && reflect.DeepEqual(before, now) {
			return before
		}
	}
	now.Stamp = nextStamp(now.Stamp, source, at)
	return now
}

// redynamic is restatic for what changes all the time.
func redynamic(before, now *resourcemodel.Dynamic, source string, at time.Time) *resourcemodel.Dynamic {
	if before != nil {
		now.Stamp = before.Stamp
		if before.Source == source && reflect.DeepEqual(before, now) {
			return before
		}
	}
	now.Stamp = nextStamp(now.Stamp, source, at)
	return now
}

func nextStamp(before resourcemodel.Stamp, source string, at time.Time) resourcemodel.Stamp {
	// The store keeps no monotonic reading and no zone: what comes back must be equal.
	return resourcemodel.Stamp{Version: before.Version + 1, Changed: at.UTC().Round(0), Source: source}
}

// sourceOf says where numbers come from: "slurm by slurmrestd v0.0.40".
func sourceOf(typ string, h adapters.Health) string {
	if h.Path == "" {
		return typ
	}
	return typ + " by " + string(h.Path)
}
