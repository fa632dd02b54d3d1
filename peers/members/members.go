// Package members is what the administrator of a gateway says of the gateways of other
// domains: who they are, what they may send, what they are shown, and how jobs are routed. It is the
// configuration as the parts that work with peers take it.
package members

import (
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers"
	"github.com/portolan-project/portolan/peers/routing"
)

// MaxMembers bounds the peers of one gateway.
const MaxMembers = 1000

// Member is one peer.
type Member struct {
	peers.Peer
	// Admission is which of its jobs are taken.
	Admission routing.Admission
	// Export is what it is shown; its Detail is that of Peer.Shows.
	Export routing.Exporting
	// Agreements says that it, and its users, may make agreements here.
	Agreements bool
	// Added says that it was added by command, and is not in the configuration.
	Added bool
	// From says where it stands, for people.
	From string
}

// Settings are all that is said of peers.
type Settings struct {
	Members []Member // in the order of domains, each once
	Routing routing.Policy
	// Hops is how many domains a job of one's own may go on through.
	Hops int
}

// Check gives fail.Invalid for a member that can't be one of the domain, which peers reach at endpoint
// ("": it is outbound-only).
func (m Member) Check(domain, endpoint string) error {
	if err := m.Peer.Check(domain, endpoint); err != nil {
		return err
	}
	if err := m.Admission.Check(); err != nil {
		return err
	}
	if string(m.Shows) != m.Export.Detail.String() {
		return fail.Errorf("members.Member", fail.Invalid, m.Domain, "%s is shown detail %s by one setting and %s by another", m.Domain, m.Shows, m.Export.Detail)
	}
	return nil
}
