package store

import (
	"context"
)

// Record is a small named value that every replica sees: a part of the resource
// model, a policy in force, a decision, a counter.
type Record struct {
	Key      string // segments of letters, digits and - . _ ~ %, separated by '/'; at most MaxKey bytes
	Value    []byte // at most MaxRecord bytes; nil in an answer of WatchRecords for one that is gone
	Revision int64  // of its last change; grows over all records and jobs
}

// MaxRecord bounds a record's value, in bytes.
const MaxRecord = 1 << 20

// RecordChange writes one record, or removes it.
type RecordChange struct {
	Key   string
	Value []byte // nil removes
	// If is the revision that the record must have; 0: it must not exist; -1: anything.
	If int64
	// Bound ties the record to the session's lease: it is gone when the lease is.
	Bound bool
}

// Records is the part of a Store that keeps them. PutRecords applies all changes of
// a call in one transaction or none (fail.Conflict names the key that moved on); at
// most MaxTransaction of them. A value that is the same already is not written and
// costs no revision. With a session, the write is guarded by its lease.
type Records interface {
	PutRecords(ctx context.Context, s Session, changes ...RecordChange) (revision int64, err error)
	// ListRecords gives the records whose key begins with prefix, in the order of keys, and the
	// store's revision at which they were read. Limit 0 is all.
	ListRecords(ctx context.Context, prefix string, o RecordOptions) (records []Record, revision int64, err error)
	// WatchRecords calls emit with records that changed after the revision, as Store.Watch does;
	// the revision that ListRecords gave is never too old if it was given just now.
	WatchRecords(ctx context.Context, prefix string, after int64, emit func([]Record, int64)) error
}

// RecordOptions selects records.
type RecordOptions struct {
	After  string // only keys after this
	Limit  int
	Newest bool // from the last key to the first
}

// MaxTransaction bounds the changes of one PutRecords.
const MaxTransaction = 128
