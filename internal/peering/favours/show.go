package favours

import (
	"github.com/portolan-project/portolan/peers/ledger"
	"github.com/portolan-project/portolan/peers/status"
)

// Ledger gives the ledger with a peer, for people: at most so many of the newest statements
// of each account, status.UsualStatements for 0.
func (f *Favours) Ledger(peer string, most int) status.Ledger {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := status.LedgerOf(f.book, f.o.Domain, peer, most)
	for i := range out.Accounts {
		a := &out.Accounts[i]
		a.Problem = f.diverged[ledger.Pair{Provider: a.Provider, Consumer: a.Consumer}]
	}
	return out
}
