// Package bes is OGSA-BES 1.0 (GFD.108): its messages, faults, state model and
// WSDL, a server that puts a Service on the wire, and a client that makes the
// wire a Service again. A gateway one dialled looks like one at home.
//
// bes.go has what we mean; elements.go, requests.go and answers.go what it looks
// like on the wire; faults.go and clientfaults.go how it fails; states.go the
// one table of states; epr.go the references of activities; wsdl.go and wsdl/
// the description. bestest is a service in memory.
//
// Requests are read strictly by the schema, except where real clients are known
// to differ; answers of other services are read as leniently as can be.
//
// The package knows messages and a small interface; it knows nothing of stores,
// brokers or adapters.
package bes
