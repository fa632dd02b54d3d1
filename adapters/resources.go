package adapters

import "slices"

// Capacity sums the environments and shares up; what differs between environments
// is left empty, as no single answer would be true.
func (r Resources) Capacity() Capacity {
	var c Capacity
	for i, e := range r.Environments {
		c.Hosts += e.Nodes
		c.CPUs += e.CPUs * e.Nodes
		c.Memory += e.Memory * int64(e.Nodes)
		c.VirtualMemory += e.VirtualMemory * int64(e.Nodes)
		c.Disk += e.Disk * int64(e.Nodes)
		c.HostNames = append(c.HostNames, e.HostNames...)
		if i == 0 {
			c.OperatingSystem, c.OSVersion, c.CPUArchitecture, c.CPUSpeed = e.OperatingSystem, e.OSVersion, e.CPUArchitecture, e.CPUSpeed
			continue
		}
		if c.OperatingSystem != e.OperatingSystem {
			c.OperatingSystem = ""
		}
		if c.OSVersion != e.OSVersion {
			c.OSVersion = ""
		}
		if c.CPUArchitecture != e.CPUArchitecture {
			c.CPUArchitecture = ""
		}
		c.CPUSpeed = min(c.CPUSpeed, e.CPUSpeed)
	}
	slices.Sort(c.HostNames)
	c.HostNames = slices.Compact(c.HostNames)
	for _, s := range r.Shares {
		c.Slots += s.Slots
		if s.Open {
			c.FreeSlots += s.FreeSlots
		}
	}
	return c
}
