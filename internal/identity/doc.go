// Package identity is who a domain is, whom it trusts, for whom it vouches, and as whom the users
// of others run here.
//
//   - names.go, pin.go: names of domains, and fingerprints of keys
//   - identity.go: the key and the certificate of one's own domain; make.go makes them
//   - trust.go: Anchor and Trust: which certificates speak for which domain
//   - tls.go: TLS between gateways, each showing its certificate; fetch.go looks at a stranger's
//   - store.go: anchors that were added by command, below the data directory
//   - assertion.go: what a gateway vouches for of a user; vouch.go signs and checks it, over hops
//   - mapping.go: rules that say as whom a peer's user runs here, or why not
//   - messages.go: signed messages; the verifier of /peer
//
// Trust is by domain: an anchor, be it a CA or the fingerprint of a key, is good for the
// certificates of one domain and says nothing of any other. A certificate speaks for a
// domain if it leads to an anchor of that domain and has the domain's name; where it was met, in a TLS
// handshake, in a message or in an assertion, does not matter.
package identity
