// Package simtest has federations in virtual time, made of seeds: the rules that ship,
// under everything that a network, clocks, sites and gateways that die can do to them.
//
//   - simtest.go: what a World may be like, what it counts, and which rules it can break
//   - world.go: the seed, the time, the links, what users do, and when all is still
//   - gateway.go: a gateway: it steps handover records, commits, acts, dies and restarts
//   - site.go: where jobs run, gateway dead or alive
//   - truth.go: what really happened, and what must hold
//   - books.go: the favour ledgers of all pairs; audit.go: they travel over sessions
//   - wires.go: messages that are thrown at each other one by one
//   - sessions.go: the same over sessions; opening.go: how these come to be
//   - resources.go: what gateways show each other, and whether it is what there is
//   - translate.go: messages about jobs as items of the protocol, and back
//   - faults.go: deliberate breaches of the rules
//
// It is for tests: of peers/handover with wires, and of all of peers together.
package simtest
