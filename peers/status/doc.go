// Package status is what people see of peers: who they are, how the session with each
// stands, what went over it, and the ledger. It has the shapes alone, as the JSON API and
// the command line show them, so that what keeps the sessions and what shows them need
// not know each other.
//
//   - peer.go: Peer, with its Session, Traffic and Jobs
//   - offer.go: what a stranger shows of itself before anybody trusts it
//   - ledger.go: balance, accounts and statements, made of a ledger.Book
package status
