// Package engine keeps agreements: it decides whether there is room for what an offer asks
// for, and makes the answer durable before it is given, over all replicas of the gateway that
// share a store.
//
// # Records
//
//	agreements/pool/<id>            capacity of a pool, and the fence of its calendar
//	agreements/state/<id>           an agreement: what is held for it, its state, a short document
//	agreements/document/<id>        a document that is too long to be written with each change
//	agreements/owner/<owner>/<id>   nothing: whose agreements there are, in the order of ids
//	agreements/account/<vo>         a VO's budget, and what of it is committed and spent
//	agreements/replica/<name>       bound to the lease of a replica that lives
//
// What is held of a pool is what the agreements that are not final say; it is written nowhere
// else, and each replica adds it up in memory. The record of a pool is its fence: whatever
// holds, or holds no more, is written in one transaction with the fences of its pools, on the
// condition that they are what the replica knows. A fence that is known at a revision was
// delivered by the watch together with all that was written until then, or written by the
// replica itself on top of such a one; so the calendar that a decision was made by is the one
// that it is written into, and two replicas can't both give away the last slot. Who loses reads
// on and decides again. The same holds for budgets, whose record is its own fence, and for
// refusals: their conditions are checked with the rest of the transaction, so that nobody is
// refused for something that had ended before he asked.
//
// What is asked for while a transaction is under way goes together into the next one.
//
// # Who acts
//
// No agreement has an owner that must live: every step is a transaction on the revision of what
// it changes, and doing it twice does it once. So that not all do the same at once, the replica
// that is responsible for an agreement (the one of those that live whose name and the
// agreement's id have the highest digest) expires it, and the others only when that has not
// happened for a while.
package engine
