// Package mem is the store in memory: the twin of etcd for tests and for
// gateways that need not remember. It passes the same suite, and what is written
// takes the same way through JSON, so that it gives back what etcd would.
package mem
