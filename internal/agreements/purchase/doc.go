// Package purchase buys capacity from other gateways for a window, and watches over what was bought
// until it is settled.
//
// # How
//
// A Wish says how many CPUs are wanted from which domain, for which window, and what may be given
// way in: fewer CPUs, a later window, a price. The domain is asked by a negotiation, in which nothing
// binds, what of it could be kept. What it says is offered to it to be held (p:Prepare), by a key that
// is written down before it is asked; when it holds it, and the price is right, the decision to buy is written,
// and then it is confirmed until it has answered. So a crash at any step loses nothing and buys nothing
// twice: what was asked is asked again by the same key, and gives the same agreement; what was held and
// not decided lets go by itself.
//
// While the window is open the broker is told of the room (Options.Tell), and routes jobs against it.
// At its end, or when it was released or the domain ended it, the domain is asked what it costs, and what
// it says is kept as entries of the ledger, with the domain that provided.
//
// # Records
//
//	purchase/<id>   a purchase: what was wished for, its state, what was bought, and what it cost
//
// Any replica may do any step, as each is a transaction on the revision of the record; the one that
// did the last step does the next, and another takes over what does not move on.
package purchase
