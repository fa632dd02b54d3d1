// Package proto is the wire between the gateway and a policy that is a program of its
// own. It is generated from policy.proto, which says what everything means, by
// generate.sh.
package proto

//go:generate ./generate.sh
