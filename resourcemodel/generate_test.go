package resourcemodel

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// modelGen makes random parts of the model, the same for the same seed.
type modelGen struct{ *rand.Rand }

func newModelGen(seed uint64) modelGen { return modelGen{rand.New(rand.NewPCG(seed, 4))} }

// modelStart is the first moment of every test's world.
var modelStart = time.Date(2026, 3, 1, 14, 0, 0, 0, time.UTC)

func oneOf[T any](g modelGen, list ...T) T { return list[g.IntN(len(list))] }

func someOf[T any](g modelGen, list ...T) []T {
	var out []T
	for _, x := range list {
		if g.IntN(2) == 0 {
			out = append(out, x)
		}
	}
	return out
}

func (g modelGen) policy() Policy {
	if g.IntN(3) == 0 {
		return Policy{}
	}
	return Policy{Allow: someOf(g, "vo:bio", "vo:chem", "user:ann"), Deny: someOf(g, "user:bob", "vo:test")}
}

func (g modelGen) static() *Static {
	s := &Static{
		Stamp:  Stamp{Version: 1 + g.Uint64N(5), Changed: modelStart, Source: oneOf(g, "slurm by commands", "condor")},
		Type:   oneOf(g, "slurm", "condor", "shell"),
		Labels: someOf(g, "prod", "test"),
		Policy: g.policy(),
		Data:   []Data{{Prefix: "gsiftp://a/", Distance: float64(g.IntN(9))}},
	}
	if g.IntN(2) == 0 {
		s.Consumables = []Consumable{{Name: "matlab", Total: g.Int64N(50)}}
	}
	var ids []string
	for i := range 1 + g.IntN(8) {
		e := Environment{
			ID:              fmt.Sprintf("env%02d", i),
			OperatingSystem: oneOf(g, "LINUX", "LINUX", "LINUX", "Solaris", ""),
			OSVersion:       oneOf(g, "6.1", "6.1", "5.10"),
			CPUArchitecture: oneOf(g, "x86_64", "x86_64", "arm"),
			CPUs:            oneOf(g, 0, 8, 16, 16, 64),
			CPUSpeed:        oneOf(g, 0, 2.4e9, 3e9),
			Memory:          oneOf[int64](g, 0, 30, 33, 60, 64, 200) << 30,
			VirtualMemory:   oneOf[int64](g, 0, 64<<30),
			Disk:            oneOf[int64](g, 0, 1<<40, 3<<40),
			Bandwidth:       oneOf(g, 0, 1e9, 1e10),
			Features:        someOf(g, "avx", "avx512", "ib"),
			HostNames:       []string{fmt.Sprintf("n%d", i)},
		}
		if g.IntN(3) == 0 {
			e.GPUs = map[string]int{"": 4, oneOf(g, "a100", "h100"): oneOf(g, 2, 4)}
		}
		if g.IntN(2) == 0 {
			e.Benchmarks = map[string]float64{"specint2000": float64(g.IntN(100)), oneOf(g, "hs06", "linpack"): 5}
		}
		if g.IntN(2) == 0 {
			e.FileSystems = []FileSystem{{Name: "HOME", Type: "normal", MountPoint: "/home", Size: g.Int64N(3) << 40}, {Name: oneOf(g, "SCRATCH", "TMP"), MountPoint: "/s"}}
		}
		if g.IntN(3) == 0 {
			e.Consumables = []Consumable{{Name: "fpga", Total: g.Int64N(4)}}
		}
		s.Environments = append(s.Environments, e)
		ids = append(ids, e.ID)
	}
	for i := range 1 + g.IntN(5) {
		h := Share{
			ID: fmt.Sprintf("share%d", i), Default: i == 0, Environments: someOf(g, ids...),
			MaxWallTime: time.Duration(oneOf(g, 0, 1, 24)) * time.Hour, MaxCPUs: oneOf(g, 0, 16, 256), MaxNodes: oneOf(g, 0, 1, 8),
			MaxMemory: oneOf[int64](g, 0, 64<<30), Slots: oneOf(g, 0, 10, 100), Price: oneOf(g, 0, 0.5),
		}
		if g.IntN(2) == 0 {
			h.Policy = g.policy()
		}
		if g.IntN(4) == 0 {
			h.Consumables = []Consumable{{Name: "tokens", Total: g.Int64N(9)}}
		}
		s.Shares = append(s.Shares, h)
	}
	for range g.IntN(4) {
		a := Application{Name: oneOf(g, "gromacs", "R", "blast"), Version: oneOf(g, "1", "2")}
		if g.IntN(2) == 0 {
			a.Environments = someOf(g, ids...)
		}
		s.Applications = append(s.Applications, a)
	}
	return s
}

func (g modelGen) dynamic(s *Static) *Dynamic {
	d := &Dynamic{Stamp: Stamp{Version: 1 + g.Uint64N(5), Changed: modelStart, Source: s.Source}, Up: g.IntN(5) > 0, Shares: map[string]ShareState{}, Environments: map[string]EnvironmentState{}}
	if !d.Up {
		d.Problem = "the manager does not answer"
	}
	for _, k := range s.Consumables {
		d.Consumables = map[string]int64{k.Name: g.Int64N(k.Total + 1)}
	}
	for _, h := range s.Shares {
		if g.IntN(9) == 0 {
			continue // not known yet
		}
		state := ShareState{Open: g.IntN(4) > 0, Running: g.IntN(100), Waiting: g.IntN(100), FreeSlots: g.IntN(50), Forecast: time.Duration(g.IntN(3)) * time.Minute}
		for _, k := range h.Consumables {
			state.Consumables = map[string]int64{k.Name: g.Int64N(k.Total + 1)}
		}
		d.Shares[h.ID] = state
	}
	for _, e := range s.Environments {
		if g.IntN(9) == 0 {
			continue
		}
		nodes := 1 + g.IntN(20)
		up := g.IntN(nodes + 1)
		free := g.IntN(up + 1)
		d.Environments[e.ID] = EnvironmentState{Nodes: nodes, Available: up, FreeNodes: free, FreeCPUs: free*e.CPUs + g.IntN(5), FreeMemory: int64(free) * e.Memory, FreeGPUs: free * e.GPUs[""]}
	}
	return d
}

func (g modelGen) site(k Key) *Site {
	s := &Site{Key: k, Static: g.static()}
	if g.IntN(8) > 0 {
		s.Dynamic = g.dynamic(s.Static)
	}
	return s
}

func (g modelGen) key() Key {
	return Key{Domain: oneOf(g, "", "north.example", "south.example"), Site: fmt.Sprintf("site%03d", g.IntN(700))}
}
