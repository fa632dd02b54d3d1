// Package pluginpolicy has the policies that a site brings along: programs of their
// own, in whatever language, as plug-ins of hashicorp/go-plugin over gRPC.
// proto/policy.proto is the protocol; example has a whole one in Go; docs/policies.md
// tells how to write one.
//
// The gateway's decisions must not be hurt by a plug-in. Its program is in a process
// group of its own and dies with the gateway. Each decision has a time-out; one that the
// plug-in does not make in time, or makes against the protocol, is made by the built-in
// policy that the configuration names, and so are all while the program is down. It is
// started again with growing delays. What comes back is bounded.
//
// Scores of both are never mixed in one decision. Keys of waiting jobs must be of one
// policy, too: an Order has a Revision, which changes whenever the other begins to
// decide, and whoever keeps keys then makes all of them anew.
package pluginpolicy
