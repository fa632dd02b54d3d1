// Package favours keeps the favour ledger of one domain in the store, and talks about it with
// peers: who ran how much for whom, in statements that both sides hold, sign and audit. The
// rules are those of peers/ledger; what is said is under The favour ledger in
// docs/peer-protocol.md.
//
//   - favours.go: Favours, its records, and the charges of jobs (peering.Book)
//   - talk.go: what is said to peers and heard of them
//
// Nothing is told to a peer that is not durable here.
package favours
