package store

import (
	"github.com/portolan-project/portolan/internal/fail"
)

// DefaultLimit is how many jobs List gives when it is not told.
const DefaultLimit = 1000

// MaxKey bounds, in bytes, the texts that a store looks things up by.
const MaxKey = 1024

// Check reports what is wrong with a job that is to be created.
func (n *NewJob) Check() error {
	const op = "store.Create"
	switch {
	case n.ID == "":
		return fail.Errorf(op, fail.Invalid, "", "a job needs an id")
	case len(n.ID) > MaxKey:
		return fail.Errorf(op, fail.Invalid, "", "a job's id may have %d bytes; this one has %d", MaxKey, len(n.ID))
	case n.Owner == "":
		return fail.Errorf(op, fail.Invalid, n.ID, "a job needs an owner")
	case len(n.Owner) > MaxKey:
		return fail.Errorf(op, fail.Invalid, n.ID, "the name of a job's owner may have %d bytes; this one has %d", MaxKey, len(n.Owner))
	case len(n.SubmissionID) > MaxKey:
		return fail.Errorf(op, fail.Invalid, n.ID, "a SubmissionId may have %d bytes; this one has %d", MaxKey, len(n.SubmissionID))
	}
	return nil
}

// Same says whether a job that was found in the place of n may stand for it: nil,
// or the conflict.
func Same(found Job, n NewJob, sum [32]byte) error {
	const op = "store.Create"
	switch {
	case found.Owner == n.Owner && found.SubmissionID == n.SubmissionID && found.DocumentSum == sum:
		return nil
	case found.ID == n.ID:
		return fail.Errorf(op, fail.Conflict, n.ID, "the id %s belongs to another job", n.ID)
	}
	return fail.Errorf(op, fail.Conflict, found.ID, "the SubmissionId %q was used before with another document; use a new one", n.SubmissionID)
}

// LostSession is the error of a write whose session has ended.
func LostSession(op, id string) error {
	return fail.Errorf(op, fail.Conflict, id, "the gateway's lease on its jobs is lost")
}

// MovedOn is the error of a write that met a newer revision.
func MovedOn(op, id string) error {
	return fail.Errorf(op, fail.Conflict, id, "job %s was changed by another", id)
}

// RecordMovedOn is the error of a write that met a record at another revision.
func RecordMovedOn(op, key string) error {
	return fail.Errorf(op, fail.Conflict, key, "the record %s was changed by another", key)
}

// TooOld is the error of a watch from a revision that is forgotten.
func TooOld(op string, revision int64) error {
	return fail.Errorf(op, fail.Conflict, "", "the changes after revision %d are not kept any more", revision)
}
