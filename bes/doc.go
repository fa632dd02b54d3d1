// Package bes is OGSA-BES 1.0 (GFD.108): its messages, faults, state model and
// WSDL, a server that puts a Service on the wire, and a client that makes the
// wire a Service again. A gateway one dialled looks like one at home.
//
// The package knows messages and a small interface; it knows nothing of stores,
// brokers or adapters.
package bes
