package showing

import (
	"context"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/resourcemodel"
)

// Check says whether the domain could ever run the definition: peering.View. What it shows
// is matched by the broker, request by request; here nothing more is known, and what the
// domain refuses it says in its answer.
func (s *Showing) Check(string, *jsdl.JobDefinition) error { return nil }

// Resources gives what the domain shows, for people, as one share over one environment:
// peering.View. Places are found in the model.
func (s *Showing) Resources(_ context.Context, domain string) (adapters.Resources, error) {
	m := s.o.Model.Snapshot()
	out := adapters.Resources{Static: uint64(max(m.Revision(), 1)), Dynamic: uint64(max(m.Revision(), 1))}
	all := adapters.Share{ID: domain, Default: true, Open: true, Environments: []string{domain}}
	nodes := adapters.Environment{ID: domain}
	for site := range m.SitesOf(domain) {
		if site.Static == nil {
			continue
		}
		for i := range site.Static.Shares {
			all.Slots = min(all.Slots+site.Static.Shares[i].Slots, resourcemodel.MaxCount)
		}
		if site.Dynamic == nil {
			continue
		}
		for _, st := range site.Dynamic.Shares {
			all.Running, all.Waiting, all.FreeSlots = all.Running+st.Running, all.Waiting+st.Waiting, all.FreeSlots+st.FreeSlots
		}
		for _, st := range site.Dynamic.Environments {
			nodes.Nodes, nodes.Available, nodes.FreeCPUs = nodes.Nodes+st.Nodes, nodes.Available+st.Available, nodes.FreeCPUs+st.FreeCPUs
		}
	}
	out.Shares, out.Environments = []adapters.Share{all}, []adapters.Environment{nodes}
	return out, nil
}
