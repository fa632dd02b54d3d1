// Package agreement is WS-Agreement 1.0 (GFD.107, GFD.192): its documents,
// messages, faults, states and WSDL, the checking of offers against a template's
// creation constraints, a server that puts a Service on the wire, and a client
// that makes the wire a Service again.
//
// agreement.go has what we mean; elements.go and the files beside it what it
// looks like; faults.go how it fails; states.go the tables of states.
//
// The package knows messages and a small interface; it knows nothing of stores,
// brokers or adapters.
package agreement
