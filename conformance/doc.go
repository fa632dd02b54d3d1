// Package conformance judges a live endpoint, ours or a stranger's: a BES service, or what a
// gateway has for those of other domains (peer*.go).
//
// It knows messages only. Every request to a BES service is written here by hand, byte for byte,
// so that a mistake in our own encoders cannot hide itself, and every reply is
// read strictly. A check has an id, names the clause it proves, and says what
// it saw; one that needs what the endpoint does not offer is skipped, with the
// reason. Where the standards leave room, every reading that they allow passes.
//
// An endpoint that answers garbage costs bounded time and memory and fails: it
// never stops the run.
package conformance
