// Package resourcemodel is what the gateway believes about the places where jobs
// can run, of its own sites and of those that peers share, shaped as GLUE 2.0
// (GFD.147): domains have sites, a site has shares (queues) over environments
// (sets of like nodes) and applications, and policies say which VO may use what.
//
// Everything is pure: a Snapshot never changes, a Delta makes the next one of it,
// an Index follows deltas and answers which place suits a Request best. Time and
// chance are arguments.
package resourcemodel
