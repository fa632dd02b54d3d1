// Package negotiator negotiates agreements (WS-Agreement Negotiation 1.0): it answers
// offers by counter offers that could be kept, and quotes what could be agreed.
//
//	negotiator.go  negotiations: opened, read, ended; the bounds on them
//	negotiate.go   the tree of offers, and what is answered
//	counter.go     what could be kept where an offer can't, within its constraints
//	bind.go        an agreement made of what was quoted
//	record.go      what of a negotiation is durable, and the sweep of what is over
//
// Nothing here binds anybody. A negotiation lives in the store, so that any replica
// answers and a restart loses none; it is over at its ExpirationTime, and forgotten a
// while later. Where the policy lets capacity be held for a quote, the engine holds it as
// an agreement that waits to be confirmed, and lets it go by itself.
package negotiator
