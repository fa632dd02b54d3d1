// Package peertest has what tests of peers need: trust by passwords, a network in memory
// that loses, doubles, delays and cuts messages, a handler that notes what it is told, and
// gateways that can be killed. All of it works in a bubble of testing/synctest, where hours
// of a session pass at once.
package peertest
