// Package plugin is the adapter of sites whose adapter is a program of its own, in
// whatever language: a plug-in of hashicorp/go-plugin over gRPC. proto/adapter.proto is
// the protocol; Serve is the other end of it for authors in Go; examples has a whole
// plug-in in Go and one in Python; docs/adapters.md tells how to write one.
//
// The gateway must not be hurt by a plug-in. Its program is in a process group of
// its own and dies with the gateway. While it is down every call gives
// fail.Unavailable; a Submit whose answer was lost gives fail.Uncertain, and Find
// waits until nothing of the old program is left that could still carry it out. It is
// started again with growing delays and opened again; handles stay valid, Watch goes
// on and tells what was missed. A plug-in that answers nothing, or a call not in time,
// is ended. All that comes back is bounded and held to the contract: what can't be true
// becomes evidence that says nothing, since only evidence ends a job.
package plugin
