// Package handover is how one job goes from gateway to gateway and ends exactly once,
// whatever is lost, late, repeated, restarted or cut off on the way.
//
// A gateway has one Job, its record, for each job that it handed over or was handed.
// Gateway.Step is the whole of the rules: of the record, what happened and the time it
// makes the next record and what is to be done. Nothing here reads a clock or sends.
//
//   - key.go: the origin's Key, the same at every hop, and the fencing Token
//   - terms.go: what two gateways agree on: lease, bound of clock error, time to stop
//   - message.go: what gateways say to each other, and what of it is refused unread
//   - job.go: the record, its phases and their table
//   - step.go: inputs, outputs, and the order in which a step does things
//   - giver.go: the side that hands over: the origin, and each that forwards
//   - taker.go: the side that is handed a job
//   - here.go: the job at the gateway's own sites
//   - record.go: the record as bytes
//
// # Why it holds
//
// Write first. What a step says is to be done, is done after its record is committed, with
// its charges, in one transaction. Everything that is done may be done twice: messages are
// answered the same again, a site runs a Token once. So a process that is killed at any
// point reads its record and goes on.
//
// One place. A copy of the job is with one holder at a time. The giver makes another only
// when the last one is known to be dead: the peer refused it, ended it, gave it back, or
// is past its recall deadline. Each placement, at a peer or at home, has a higher Token
// than all before; who knows a higher one acts on no lower one.
//
// One deadline. RecallBy is a moment of true time by which every copy under a token has
// stopped, at the peer and at all to whom that one forwarded it. Clocks are wrong by Skew
// at most. The taker begins to stop at RecallBy − Skew − StopWithin by its own clock, and
// its site ends the job by itself at RecallBy − Skew, the gateway being dead or alive; the
// giver takes the copy for dead after RecallBy + Skew by its own. So neither needs to hear
// of the other. A forwarder promises no more than it was promised.
//
// Renewal. A taker that is heard of gets a later RecallBy. Neither side has to write that
// down: a taker that forgets it stops sooner, and a giver never promises more than Lease
// from now, so that one that restarts waits for a whole Lease.
//
// What is left to the caller. That From is who it says, and may hand over jobs of the key's
// origin: a peer that lies about paths and tokens can have a job refused, though not run
// twice by others. That the site keeps NotAfter without the gateway: one that can't must
// not be given jobs of peers. That a record is read back with Decode before its first step
// after a restart, and only then.
//
// No loop. The path of domains travels with the job, and each side refuses a domain that
// is in it, and a hop more than the origin allowed.
package handover
