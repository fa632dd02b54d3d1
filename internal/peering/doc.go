// Package peering is the engine of one gateway's domain: what ties sessions with other
// gateways, the records of jobs that are handed over, and the ledger to the store and to
// the broker.
//
//   - engine.go: Engine, what it needs of others, and its term: one replica of a domain is
//     the engine, by a record bound to its session; the others stand by
//   - step.go: a step of one job, its timer, and what waits for its record to be durable
//   - commit.go: the group commit; nothing is done before it, see peers/handover
//   - entry.go, record.go: a job in memory and in the store
//   - deliver.go: what peers say; outbox.go: what they are told
//   - giver.go, adapter.go: a peer as a site of the broker
//   - evidence.go: how a job that a peer has looks to the broker
//   - taker.go: a job of a peer as one of the broker
//   - output.go: output of jobs over hops
//   - sweep.go: what is not needed any more
//   - convert.go: messages of peers/handover as those of peers/wire and back
//
// The rules are those of peers/handover; here is no rule about where a job may be. A job of
// our own that a peer site is given has the key (our domain, its id); one that came from a
// peer keeps the key with which it came. Its record is Here while the broker has it, Given
// while the broker has placed it at a peer site in turn.
package peering
