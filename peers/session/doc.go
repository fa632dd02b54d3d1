// Package session is one side of a session between two gateways, as docs/peer-protocol.md
// has it, without clock, goroutine or socket: State.Step makes of the state, what happened
// and the time the next state and what is to be done.
//
//   - config.go: what a side offers and wants; negotiate.go: what two sides agree on
//   - inputs.go: what happens to a session, and what is to be done about it
//   - phase.go: the phases, their table, and when each is left
//   - session.go: the state, and the order in which a step does things
//   - send.go, receive.go: items, cursors, credits; ask.go: who says what when; close.go
//
// # Why it holds
//
// Each side numbers its items, keeps each until the other says that it is done with it, and
// takes those of the other in order only: one that came before is dropped, one that comes
// too early waits to come again. So whatever is lost, doubled, reordered or cut, each item
// is delivered once and in order, as long as both sides have their state. One that lost it
// is told by its instance or its cursors, and the session is over, never gone on with.
package session
