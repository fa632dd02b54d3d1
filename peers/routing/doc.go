// Package routing decides where a job goes that this gateway holds: to its own sites, to
// which peer, or back; which jobs of peers it takes; and what it shows to whom.
//
//   - policy.go: the Policy, and what is known of a Peer
//   - survey.go: what a domain has for a request, seen through an aggregate
//   - route.go: Route, the order of the domains for one job; own sites first
//   - back.go: Back, when a job that a peer has is to be taken back
//   - admit.go: Admit, whether a peer's job is taken
//   - export.go: Export, what a peer is shown; parents show what their children have
//
// All of it is pure: the time, the model and what was measured are arguments, and the
// same arguments give the same answer.
//
// Loops are impossible whatever is decided here: handover refuses a domain that a job has
// come through. Route leaves such domains out, so that nobody needs to refuse.
package routing
