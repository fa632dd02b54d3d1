package shell

import (
	"context"
	"maps"
	"math/bits"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// Resources gives the machine as one environment behind one share.
func (a *Adapter) Resources(context.Context) (adapters.Resources, error) {
	disk, err := diskFree(a.jobs)
	if err != nil {
		return adapters.Resources{}, fail.E("shell.Resources", fail.Unavailable, a.jobs, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	free := max(a.options.Slots-a.used, 0)
	return a.versions.of(adapters.Resources{
		Environments: []adapters.Environment{{
			ID: "machine", OperatingSystem: a.os, OSVersion: a.osVersion, CPUArchitecture: a.arch, CPUs: a.cpus, CPUSpeed: a.speed,
			Memory: a.memory, VirtualMemory: a.virtual, Disk: coarse(disk), HostNames: slices.Clone(a.names),
			Nodes: 1, Available: 1, FreeCPUs: min(free, a.cpus), FreeMemory: coarse(meminfo()["MemAvailable"]),
		}},
		Shares: []adapters.Share{{
			ID: shareName, Default: true, Environments: []string{"machine"}, Slots: a.options.Slots,
			Open: !a.closed, Running: a.used, Waiting: len(a.queue), FreeSlots: free,
		}},
	}), nil
}

// Health says that the machine answers: it is the one that this runs on.
func (a *Adapter) Health() adapters.Health {
	return adapters.Health{
		Path: "this machine", Version: a.osVersion, Since: a.opened, Contact: time.Now(), Offered: []adapters.Path{"this machine"}, Remarks: a.remarks(),
	}
}

// remarks say what the machine offers jobs, and how.
func (a *Adapter) remarks() []string {
	offered := func(what string, yes bool) string {
		if yes {
			return what + ": offered"
		}
		return what + ": not offered here"
	}
	list := []string{
		"process trees are held together by " + a.track.Way,
		offered("MemoryLimit", a.track.memory()), offered("ProcessCountLimit", a.track.processes()), offered("cpuShares", a.track.shares()),
	}
	list = append(list, a.confinement.remarks()...)
	for _, uri := range slices.Sorted(maps.Keys(a.launchers)) {
		if reason := a.launchers[uri]; reason != "" {
			list = append(list, "launchers: "+reason)
		}
	}
	if len(a.lacking) > 0 {
		list = append(list, "every job is refused, for want of what the settings promise: "+strings.Join(a.lacking, "; "))
	}
	return list
}

// versions numbers what Resources tells: a number grows only when something has
// changed that it stands for.
type versions struct {
	static, dynamic uint64
	last            adapters.Resources
}

func (v *versions) of(r adapters.Resources) adapters.Resources {
	if v.static == 0 || !reflect.DeepEqual(lasting(r), lasting(v.last)) {
		v.static++
	}
	if v.dynamic == 0 || !reflect.DeepEqual(passing(r), passing(v.last)) {
		v.dynamic++
	}
	v.last = r
	r.Static, r.Dynamic = v.static, v.dynamic
	// The caller's to keep: what is remembered here stays as it is.
	r.Environments, r.Shares = slices.Clone(r.Environments), slices.Clone(r.Shares)
	return r
}

// lasting is r without what is dynamic, passing is the rest.
func lasting(r adapters.Resources) adapters.Resources {
	r.Static, r.Dynamic = 0, 0
	r.Environments, r.Shares = slices.Clone(r.Environments), slices.Clone(r.Shares)
	for i := range r.Environments {
		e := &r.Environments[i]
		e.Nodes, e.Available, e.FreeCPUs, e.FreeMemory = 0, 0, 0, 0
	}
	for i := range r.Shares {
		s := &r.Shares[i]
		s.Open, s.Running, s.Waiting, s.FreeSlots = false, 0, 0, 0
	}
	return r
}

func passing(r adapters.Resources) adapters.Resources {
	var out adapters.Resources
	for _, e := range r.Environments {
		out.Environments = append(out.Environments, adapters.Environment{ID: e.ID, Nodes: e.Nodes, Available: e.Available, FreeCPUs: e.FreeCPUs, FreeMemory: e.FreeMemory})
	}
	for _, s := range r.Shares {
		out.Shares = append(out.Shares, adapters.Share{ID: s.ID, Open: s.Open, Running: s.Running, Waiting: s.Waiting, FreeSlots: s.FreeSlots})
	}
	return out
}

// coarse rounds a number of bytes down to its first four bits: a file that somebody
// writes is no news for those who follow a site's resources.
func coarse(n int64) int64 {
	if n <= 0 {
		return 0
	}
	if extra := bits.Len64(uint64(n)) - 4; extra > 0 {
		return n >> extra << extra
	}
	return n
}
