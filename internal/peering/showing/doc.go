// Package showing is what a gateway and its peers show each other of their resources: it ties
// peers/exchange to the resource model that the gateway's replicas share.
//
//   - showing.go: Showing, what it needs of others, and the loop that does what is due
//   - peer.go: one peer: what it is shown, what it showed, and what waits for room
//   - view.go: a peer as a site of the broker, by what it shows
//
// Sites of a peer are those of its domain in the model, to the byte as it showed them. They are
// claimed under the session of the replica that talks to peers, so that the model tells their age: that of
// a peer that is not heard of grows, and so does that of all when the replica is gone. A
// domain that shares our store tells of itself, and is not written by us.
package showing
