package resourcemodel

import (
	"maps"
	"slices"
	"time"
)

// Same reports whether both parts say the same, of the same source and detail; their
// versions and times are not asked. Lists are compared in their order, which
// Canonical fixes.
func (s *Static) Same(o *Static) bool {
	if s == o || s == nil || o == nil {
		return s == o
	}
	return s.Source == o.Source && s.Detail == o.Detail && s.Type == o.Type &&
		slices.Equal(s.Labels, o.Labels) &&
		slices.EqualFunc(s.Shares, o.Shares, sameShare) &&
		slices.EqualFunc(s.Environments, o.Environments, sameEnvironment) &&
		slices.EqualFunc(s.Applications, o.Applications, sameApplication) &&
		samePolicy(s.Policy, o.Policy) &&
		slices.Equal(s.Consumables, o.Consumables) &&
		slices.Equal(s.Data, o.Data)
}

// Same is that of Static.
func (d *Dynamic) Same(o *Dynamic) bool {
	if d == o || d == nil || o == nil {
		return d == o
	}
	return d.Source == o.Source && d.Detail == o.Detail && d.Up == o.Up && d.Problem == o.Problem &&
		maps.EqualFunc(d.Shares, o.Shares, sameShareState) &&
		maps.EqualFunc(d.Environments, o.Environments, sameEnvironmentState) &&
		maps.Equal(d.Consumables, o.Consumables)
}

// stands reports whether s need not replace o.
func (s *Static) stands(o *Static) bool {
	return s == o || s != nil && o != nil && s.Version == o.Version && s.Same(o)
}

func (d *Dynamic) stands(o *Dynamic) bool {
	return d == o || d != nil && o != nil && d.Version == o.Version && d.Same(o)
}

// Stamped gives what follows prev in its source's records: prev itself if s says
// nothing new, so that a confirmation changes nothing; else s with the next version,
// changed now. prev may be nil.
func (s *Static) Stamped(prev *Static, now time.Time) *Static {
	if prev != nil && s.Same(prev) {
		return prev
	}
	next := *s
	next.Version, next.Changed = 1, now.UTC().Round(0)
	if prev != nil {
		next.Version = prev.Version + 1
	}
	return &next
}

// Stamped is that of Static.
func (d *Dynamic) Stamped(prev *Dynamic, now time.Time) *Dynamic {
	if prev != nil && d.Same(prev) {
		return prev
	}
	next := *d
	next.Version, next.Changed = 1, now.UTC().Round(0)
	if prev != nil {
		next.Version = prev.Version + 1
	}
	return &next
}

func sameShare(a, b Share) bool {
	return a.ID == b.ID && a.Default == b.Default && slices.Equal(a.Environments, b.Environments) &&
		a.MaxWallTime == b.MaxWallTime && a.MaxCPUs == b.MaxCPUs && a.MaxNodes == b.MaxNodes && a.MaxMemory == b.MaxMemory &&
		a.Slots == b.Slots && samePolicy(a.Policy, b.Policy) && a.Price == b.Price && slices.Equal(a.Consumables, b.Consumables) &&
		sameShareSpan(a.Span, b.Span)
}

func sameShareSpan(a, b *ShareSpan) bool {
	if a == b || a == nil || b == nil {
		return a == b
	}
	return slices.Equal(a.IDs, b.IDs) && a.MaxWallTime == b.MaxWallTime && a.MaxCPUs == b.MaxCPUs && a.MaxNodes == b.MaxNodes &&
		a.MaxMemory == b.MaxMemory && a.Price == b.Price
}

func sameEnvironment(a, b Environment) bool {
	return a.ID == b.ID && a.OperatingSystem == b.OperatingSystem && a.OSVersion == b.OSVersion && a.CPUArchitecture == b.CPUArchitecture &&
		a.CPUs == b.CPUs && a.CPUSpeed == b.CPUSpeed && a.Memory == b.Memory && a.VirtualMemory == b.VirtualMemory &&
		a.Disk == b.Disk && a.Bandwidth == b.Bandwidth && maps.Equal(a.GPUs, b.GPUs) && slices.Equal(a.Features, b.Features) &&
		slices.Equal(a.HostNames, b.HostNames) && slices.Equal(a.FileSystems, b.FileSystems) && maps.Equal(a.Benchmarks, b.Benchmarks) &&
		slices.Equal(a.Consumables, b.Consumables) && a.Classes == b.Classes && sameSpan(a.Span, b.Span)
}

func sameSpan(a, b *Span) bool {
	if a == b || a == nil || b == nil {
		return a == b
	}
	return slices.Equal(a.OperatingSystems, b.OperatingSystems) && slices.Equal(a.OSVersions, b.OSVersions) &&
		slices.Equal(a.CPUArchitectures, b.CPUArchitectures) && a.CPUs == b.CPUs && a.CPUSpeed == b.CPUSpeed &&
		a.Memory == b.Memory && a.VirtualMemory == b.VirtualMemory && a.Disk == b.Disk && a.Bandwidth == b.Bandwidth &&
		maps.Equal(a.GPUs, b.GPUs) && slices.Equal(a.Features, b.Features) && slices.Equal(a.FileSystems, b.FileSystems) &&
		maps.Equal(a.Benchmarks, b.Benchmarks) && slices.Equal(a.Consumables, b.Consumables)
}

func sameApplication(a, b Application) bool {
	return a.Name == b.Name && a.Version == b.Version && slices.Equal(a.Environments, b.Environments)
}

func samePolicy(a, b Policy) bool {
	return slices.Equal(a.Allow, b.Allow) && slices.Equal(a.Deny, b.Deny)
}

func sameShareState(a, b ShareState) bool {
	return a.Open == b.Open && a.Running == b.Running && a.Waiting == b.Waiting && a.FreeSlots == b.FreeSlots &&
		a.Forecast == b.Forecast && maps.Equal(a.Consumables, b.Consumables)
}

func sameEnvironmentState(a, b EnvironmentState) bool {
	if a.Best != nil && b.Best != nil {
		if !sameEnvironmentState(*a.Best, *b.Best) {
			return false
		}
		a.Best, b.Best = nil, nil
	}
	return a == b
}
