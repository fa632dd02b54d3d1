// Package wire is what gateways say to each other: the messages of the peer protocol of
// docs/peer-protocol.md, their XML, their bounds and their description.
//
// It is a package of its own below peers, as the pure parts need the messages too (the
// session, the exchange of resources), and must not see what serves and dials.
//
//   - session.go, resources.go, jobs.go, ledger.go: the four groups of messages
//   - visit.go: how a message tells its fields, once, with type, bound and meaning; all else
//     follows from that: write.go, read.go, weigh.go, and describe.go for the schema and the
//     tables of the document
//   - codec.go: messages from elements and back; faults.go how it fails; trace.go the trace
//   - wsdl.go and wsdl/: the description that an endpoint serves
//
// A message that was read keeps its bounds, and one that does not is never written.
package wire
