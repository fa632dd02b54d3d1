package resourcemodel

import (
	"testing"

	"github.com/portolan-project/portolan/jsdl"
)

// TestWidestRulesNothingOut holds the matcher that ships against members and aggregates:
// where a member could run the job, its aggregate at its widest could.
func TestWidestRulesNothingOut(t *testing.T) {
	fits, ruled := map[Detail]int{}, map[Detail]int{}
	for seed := range uint64(150) {
		g := newModelGen(seed)
		c := chance(g)
		s := g.site(Key{Site: "a"})
		for i := range s.Static.Environments { // of the size that the definitions ask for
			e := &s.Static.Environments[i]
			e.CPUs, e.Memory, e.VirtualMemory, e.Disk = g.IntN(5), g.Int64N(9), g.Int64N(9), g.Int64N(9)
			e.CPUSpeed, e.Bandwidth = float64(g.IntN(5)), float64(g.IntN(5))
			for j := range e.FileSystems {
				e.FileSystems[j].Size = g.Int64N(5)
				e.FileSystems[j].Type = oneOf(g, "", "normal")
			}
			if e.GPUs != nil {
				e.GPUs = map[string]int{"": 1 + g.IntN(2), "k": 1}
			}
		}
		for i := range s.Static.Shares {
			h := &s.Static.Shares[i]
			h.Environments = nil
			for _, e := range s.Static.Environments {
				if g.IntN(2) == 0 {
					h.Environments = append(h.Environments, e.ID)
				}
			}
			h.Policy, h.MaxMemory = Policy{}, g.Int64N(20)
			h.MaxCPUs, h.MaxNodes = g.IntN(6), g.IntN(4)
		}
		s.Static.Policy = Policy{}
		s.Dynamic = nil // how many nodes there are is not known of some, which is of no detail
		for range 60 {
			def := c.definition()
			def.Description.Resources.CandidateHosts = nil
			if g.IntN(4) == 0 {
				def.Description.Resources.FileSystems = []jsdl.FileSystem{{Name: oneOf(g, "HOME", "SCRATCH", "OWN"), Type: oneOf(g, "", "", "swap", "normal"), DiskSpace: c.values(2)}}
			}
			if p := def.Description.Resources.Placement; p != nil {
				if p.Share = nil; g.IntN(2) == 0 { // the aggregate has the names of all that it was merged of
					p.Share = &s.Static.Shares[g.IntN(len(s.Static.Shares))].ID
				}
				if g.IntN(2) == 0 {
					f := oneOf(g, "avx", "ib&avx", "ib|avx512")
					p.Constraint = &f
				}
			}
			r, err := Compile(def, c.subject())
			if err != nil {
				continue
			}
			for _, d := range []Detail{Categorized, Simple} {
				a, members := aggregated(s, d)
				for p := range Widest(a).Places() {
					one := false
					for _, m := range members[p.Place()] {
						one = one || r.Fits(m, Derived{})
					}
					could := r.Fits(p, Derived{})
					if one && !could {
						t.Fatalf("seed %d, %v: %v is ruled out: %+v\n%s\n%s", seed, d, p.Place(), r.Judge(p.Site, p.Share, p.Environment, Derived{}).Clauses, shownJSON(a), shownJSON(s))
					}
					if one {
						fits[d]++
					}
					if !could {
						ruled[d]++
					}
				}
			}
		}
	}
	t.Logf("fits %v, ruled out %v", fits, ruled)
	for _, d := range []Detail{Categorized, Simple} {
		if fits[d] < 200 || ruled[d] < 200 {
			t.Errorf("%v: the test tried too little", d)
		}
	}
}
