// Package proto is the wire between the gateway and an adapter that is a program
// of its own. It is generated from adapter.proto, which says what everything means,
// by generate.sh.
package proto

//go:generate ./generate.sh
