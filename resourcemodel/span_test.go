package resourcemodel

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/portolan-project/portolan/jsdl"
)

// site makes one of several shares and environments.
func (c chance) site() *Site {
	out := &Site{Key: Key{Site: "site"}, Static: &Static{Type: "slurm"}, Dynamic: &Dynamic{Up: true, Shares: map[string]ShareState{}, Environments: map[string]EnvironmentState{}}}
	for i := range 1 + c.IntN(3) {
		w := c.place()
		e := *w.Environment
		e.ID = fmt.Sprint("e", i)
		e.HostNames = nil
		out.Static.Environments = append(out.Static.Environments, e)
		s := w.Site.Dynamic.Environments["e"]
		s.Nodes, s.FreeMemory, s.FreeGPUs, s.FreeNodes = max(s.Nodes, 1), 0, 0, 0
		out.Dynamic.Environments[e.ID] = s
	}
	for i := range 1 + c.IntN(3) {
		w := c.place()
		h := *w.Share
		h.ID, h.Environments, h.Consumables, h.Slots = fmt.Sprint("s", i), nil, nil, 10
		for j := range out.Static.Environments {
			if j == 0 || c.one(2) {
				h.Environments = append(h.Environments, out.Static.Environments[j].ID)
			}
		}
		out.Static.Shares = append(out.Static.Shares, h)
		out.Dynamic.Shares[h.ID] = ShareState{Open: !c.one(6), FreeSlots: c.IntN(3)}
	}
	return out
}

// A job that a place of a site takes is taken by a place of each of the site's aggregates
// too, at their widest: nobody is ruled out by what a peer does not tell.
func TestAggregatesRuleNothingOut(t *testing.T) {
	n, could, now := 60_000, 0, 0
	if testing.Short() {
		n = 10_000
	}
	for i := range n {
		c := chance{rand.New(rand.NewPCG(uint64(i), 14))}
		def := c.definition()
		def.Description.Resources.CandidateHosts = nil
		if p := def.Description.Resources.Placement; p != nil {
			p.Share, p.Licences = nil, nil
		}
		r, err := Compile(def, c.subject())
		if err != nil {
			continue
		}
		s, d := c.site(), Derived{Now: noon}
		any := func(s *Site) (could, now bool) {
			for w := range s.Places() {
				could, now = could || r.Fits(w, d), now || r.Starts(w, d)
			}
			return could, now
		}
		wantCould, wantNow := any(s)
		for _, detail := range []Detail{Categorized, Simple} {
			a := Aggregate(s, detail)
			gotCould, gotNow := any(Widest(a))
			if wantCould && !gotCould || wantNow && !gotNow {
				t.Fatalf("seed %d: the site says %v, %v and its aggregate of detail %d %v, %v: %s\n%+v\n%+v", i, wantCould, wantNow, detail, gotCould, gotNow, ranges(def), s.Static, Widest(a).Static)
			}
		}
		if wantCould {
			could++
		}
		if wantNow {
			now++
		}
	}
	if could < n/10 || now < n/50 {
		t.Errorf("the questions are one-sided: %d could, %d now", could, now)
	}
}

func ranges(def *jsdl.JobDefinition) string {
	s := slow{def: def, res: def.Description.Resources, w: Where{&Site{Dynamic: &Dynamic{}}, &Share{}, &Environment{}}}
	return s.String()
}
