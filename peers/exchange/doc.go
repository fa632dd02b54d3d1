// Package exchange is how one gateway shows its resources to another, as
// docs/peer-protocol.md has it under Resources, without clock, goroutine or socket.
//
//   - exporter.go: what a domain shows to one peer, and what brings the peer to that
//   - importer.go: what a peer showed, and what is to change in the model for it
//   - tree.go: sites with their digests, by category and by bucket; both sides have one
//
// An Exporter and an Importer hear only each other's messages, in order, each once: the
// session sees to that. A session that ends may take messages with it; the next begins
// with a Pull.
package exchange
