// Package discovery finds gateways that could become peers: in a list, in the DNS of
// another domain, and on the LAN. What it finds are proposals. Found is not trusted: nobody
// is connected to, and nothing is remembered, before a person added the peer and compared
// its fingerprint.
//
//   - proposal.go: Proposal, what one must look like, and how those of one gateway become one
//   - finder.go: Finder, which asks all sources at once within a time
//   - dns.go: SRV and TXT records, with a resolver that is given
//   - lan.go: DNS-SD over multicast, browsed on demand; announce.go: to be found there
//   - text.go: the keys of a TXT record, the same for both
//
// Everything that comes in is a stranger's: numbers and lengths are bounded, and names with
// other than printable characters are dropped, with a remark that says so.
package discovery
