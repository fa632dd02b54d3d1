// Package store is the contract for what the gateway remembers: jobs, their
// history, who owns them, and settings. etcd and mem implement it; storetest
// judges both.
//
// A job is an immutable part (document, owner) and a small mutable part
// (Status), and every change of the latter appends to the history in the same
// transaction. What is returned without error is durable.
package store
