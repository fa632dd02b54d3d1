package gateway

import (
	"slices"

	"github.com/portolan-project/portolan/peers/members"
)

// Away says in a sentence why a domain can be given no jobs now; "" is that it can.
func (g *Gateway) Away(domain string) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.IndexFunc(g.settings.Members, func(m members.Member) bool { return m.Domain == domain })
	switch {
	case i < 0:
		return "the domain " + domain + " is no peer of " + g.o.Domain
	case !g.settings.Members[i].Consumes:
		return "the domain " + domain + " is given no jobs of " + g.o.Domain
	case g.table.Load() == nil:
		return "another replica of this gateway talks to the peers at present, or it is starting"
	}
	away, known := g.stands[domain]
	if !known {
		return "there was no session with it yet"
	}
	return away
}
