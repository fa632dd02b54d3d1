// Package together makes agreements at several places as one: all of them are binding in the
// end, or none is, whatever fails on the way.
//
// # How
//
// A Coordinator prepares every part at its provider, at once and until the same time: each holds
// what it was offered for, and waits. When all hold, and enough time is left for the word to
// reach everybody, it writes that it commits, and confirms each part until it has its answer.
// When one refuses, or the time is short, it writes that it aborts, and terminates each part that
// may be there. What is not confirmed in time is let go by its provider without being told, so
// that nothing is held for a coordinator that is gone.
//
// What is decided is a record of the store, written before anybody is told; what has to be known
// to go on (what was offered to whom, by which key, until when) is written before anybody is
// asked. After a crash a coordination that had decided goes on, and one that had not is aborted
// (presumed abort). A request that is sent again gives the agreement that it gave before, so an
// answer that was lost is asked for again.
//
// The one thing that a decision can't make true is that a provider which is out of reach from
// the decision until the time is over hears of it. It has let go then, and says so when it is
// asked; the parts that were confirmed are terminated, and the outcome is none, with the reason.
//
// # Records
//
//	together/state/<id>    a coordination: its parts, its state, what was decided and why
//	together/offers/<id>   what was offered, until it has ended
//
// Any replica may do any step: each is a transaction on the revision of the state, and doing it
// twice does it once. The replica that began a coordination does it; another takes over what
// does not move on.
//
// The clocks of coordinator and providers may differ by less than Options.Margin.
package together
