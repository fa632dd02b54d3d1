package gateway

import (
	"slices"
	"time"

	"github.com/portolan-project/portolan/peers/members"
	"github.com/portolan-project/portolan/peers/wire"
)

// quotas tells a peer that may give us jobs how many it may have here and has, and for each VO
// of its what the limits of that VO here leave: those for which it vouches, and those whose jobs
// are taken of it. The use of a VO is that of all who belong to it, as the limit is for all.
func (g *Gateway) quotas(domain string) []wire.Quota {
	g.mu.Lock()
	i := slices.IndexFunc(g.settings.Members, func(m members.Member) bool { return m.Domain == domain })
	if i < 0 || !g.settings.Members[i].Provides {
		g.mu.Unlock()
		return nil
	}
	to := g.settings.Members[i].Admission
	vos := slices.Concat(to.VOs, g.vos[domain])
	g.mu.Unlock()
	slices.Sort(vos)
	now := time.Now().UTC()
	out := []wire.Quota{{MaxJobs: count(to.MostJobs), Jobs: count(g.Engine.TakenOf(domain)), Measured: now}}
	for _, vo := range slices.Compact(vos) {
		if vo == "" || len(out) == wire.MaxQuotas || len(to.VOs) > 0 && !slices.Contains(to.VOs, vo) {
			continue // those that are not taken have none
		}
		u := g.o.Broker.VOUse(vo)
		q := wire.Quota{VO: vo, Jobs: count(u.Jobs), CPUs: count(u.CPUs), Measured: now}
		q.MaxJobs, q.Jobs = bounded(u.MostJobs, q.Jobs)
		q.MaxCPUs, q.CPUs = bounded(u.MostCPUs, q.CPUs)
		out = append(out, q)
	}
	return out
}

// bounded gives a limit as it is told: 0 is none there, so that a limit of nothing at all is told
// as one that is used up.
func bounded(most int, used uint64) (bound, has uint64) {
	switch {
	case most < 0:
		return 0, used
	case most == 0:
		return 1, max(used, 1)
	}
	return uint64(most), used
}

func count(n int) uint64 { return uint64(max(n, 0)) }
