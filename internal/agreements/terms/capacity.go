package terms

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"

	"github.com/portolan-project/portolan/internal/agreements/calendar"
	"github.com/portolan-project/portolan/resourcemodel"
)

// What can be promised of a share is what it can run at once: no more than its slots
// (which managers count as CPUs), and no more than the CPUs of its nodes that are fit for
// work. A job runs on nodes of one environment, and shares may have environments in
// common; so wherever a share has several, or one is of several shares, the environment is
// a pool of its own, and a hold is taken of both. What is not known is not promised.

// PoolID names the pool of a share: "slurm/batch".
func PoolID(site, share string) string { return bounded(escaped(site) + "/" + escaped(share)) }

// NodesID names the pool of an environment of a site, where there is one: "slurm//big".
func NodesID(site, environment string) string {
	return bounded(escaped(site) + "//" + escaped(environment))
}

// escaped makes names of sites and shares fit together: none of them has a slash or an
// at-sign then.
func escaped(s string) string { return escaper.Replace(s) }

var escaper = strings.NewReplacer("%", "%25", "/", "%2F", "@", "%40", "\x00", "%00")

// bounded shortens an id that is too long for a pool to one that is as unique.
func bounded(id string) string {
	if len(id) <= calendar.MaxID {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	const digest = 32
	return strings.ToValidUTF8(id[:calendar.MaxID-digest-1], "") + "~" + hex.EncodeToString(sum[:digest/2])
}

// Pools gives the calendar's pools of our own sites, in order: what may be promised of
// each. A share that takes no jobs now, or of which too little is known, has nothing.
func Pools(m *resourcemodel.Snapshot, s Settings) []calendar.Pool {
	s.EnsureDefaults()
	var pools []calendar.Pool
	for site := range m.SitesOf("") {
		w := worth(site, &s)
		for i := range w.shares {
			pools = append(pools, calendar.Pool{ID: PoolID(site.Site, w.shares[i].share.ID), Capacity: w.shares[i].amount})
		}
		for i := range w.environments {
			if e := &w.environments[i]; e.own {
				pools = append(pools, calendar.Pool{ID: NodesID(site.Site, e.environment.ID), Capacity: e.amount})
			}
		}
	}
	slices.SortStableFunc(pools, func(a, b calendar.Pool) int { return strings.Compare(a.ID, b.ID) })
	return pools
}

// siteWorth is what of a site may be promised.
type siteWorth struct {
	site         *resourcemodel.Site
	shares       []shareWorth
	environments []environmentWorth
}

type shareWorth struct {
	share  *resourcemodel.Share
	open   bool
	amount calendar.Amount // that may be promised, all environments together
	all    int64           // CPUs, whether they may be promised or not
	spots  []*environmentWorth
}

type environmentWorth struct {
	environment *resourcemodel.Environment
	shares      int
	own         bool  // it is a pool of its own
	nodes       int64 // fit for work; 0 is not known
	cpus        int64 // of them all; 0 is not known
	amount      calendar.Amount
}

// worth works out what may be promised of a site.
func worth(site *resourcemodel.Site, s *Settings) *siteWorth {
	w := &siteWorth{site: site}
	st := site.Static
	up := site.Dynamic != nil && site.Dynamic.Up
	w.environments = make([]environmentWorth, len(st.Environments))
	for i := range st.Environments {
		e := &w.environments[i]
		e.environment = &st.Environments[i]
		if state, ok := site.Dynamic.Environment(e.environment.ID); ok && up {
			e.nodes = clamp(int64(state.Available))
			e.cpus = times(e.nodes, clamp(int64(e.environment.CPUs)))
		}
	}
	for i := range st.Shares {
		h := shareWorth{share: &st.Shares[i]}
		state, known := site.Dynamic.Share(h.share.ID)
		h.open = up && known && state.Open
		for _, id := range h.share.Environments {
			for k := range w.environments {
				if e := &w.environments[k]; e.environment.ID == id && !slices.Contains(h.spots, e) {
					e.shares++
					h.spots = append(h.spots, e)
				}
			}
		}
		w.shares = append(w.shares, h)
	}
	for i := range w.shares {
		h := &w.shares[i]
		var nodes int64
		for _, e := range h.spots {
			e.own = e.own || e.shares > 1 || len(h.spots) > 1
			h.all += e.cpus
			nodes += e.nodes
		}
		slots := clamp(int64(h.share.Slots))
		switch {
		case !h.open:
			h.all, nodes, slots = 0, 0, 0
		case slots == 0:
			slots = h.all // nobody runs more jobs than there are CPUs
		case h.all == 0 && !slices.ContainsFunc(h.spots, func(e *environmentWorth) bool { return e.environment.CPUs > 0 }):
			h.all = slots // the manager tells of slots alone
		}
		h.all = min(h.all, slots)
		h.amount = calendar.Amount{Slots: part(slots, s), CPUs: part(h.all, s), Nodes: part(nodes, s)}
		h.amount.Slots = min(h.amount.Slots, h.amount.CPUs)
	}
	for i := range w.environments {
		e := &w.environments[i]
		e.amount = calendar.Amount{CPUs: part(e.cpus, s), Nodes: part(e.nodes, s)}
		if e.own && e.environment.CPUs == 0 {
			// The same slots may stand behind each of its shares: only the least is sure.
			for k := range w.shares {
				if h := &w.shares[k]; h.open && slices.Contains(h.spots, e) && (e.amount.CPUs == 0 || h.amount.CPUs < e.amount.CPUs) {
					e.amount = calendar.Amount{CPUs: h.amount.CPUs}
				}
			}
		}
	}
	return w
}

// room gives the most CPUs, slots and nodes that one hold can have of a share on one of its
// environments.
func (h *shareWorth) room(e *environmentWorth) calendar.Amount {
	if !e.own {
		return h.amount
	}
	a := calendar.Amount{Slots: h.amount.Slots, CPUs: min(h.amount.CPUs, e.amount.CPUs), Nodes: min(h.amount.Nodes, e.amount.Nodes)}
	a.Slots = min(a.Slots, a.CPUs)
	return a
}

// most gives the most of each that one hold can have of the share.
func (h *shareWorth) most() (a calendar.Amount) {
	for _, e := range h.spots {
		r := h.room(e)
		a = calendar.Amount{Slots: max(a.Slots, r.Slots), CPUs: max(a.CPUs, r.CPUs), Nodes: max(a.Nodes, r.Nodes)}
	}
	return a
}

// part gives what may be promised of n.
func part(n int64, s *Settings) int64 { return n/100*int64(s.Promise) + n%100*int64(s.Promise)/100 }

func clamp(n int64) int64 { return min(max(n, 0), calendar.MaxAmount) }

func times(a, b int64) int64 {
	if a > 0 && b > calendar.MaxAmount/a {
		return calendar.MaxAmount
	}
	return a * b
}
