package adapters

import "github.com/portolan-project/portolan/internal/fail"

// Class is what a failed call to a manager means for a job.
type Class uint8

// The classes.
const (
	None      Class = iota // no error
	Permanent              // this site will never do it
	Transient              // not done; it may work later
	Doubtful               // it may have been done: only evidence tells
)

// ClassOf gives the class of an error of an adapter. Whatever an adapter did not
// think of is Doubtful, as that claims nothing.
func ClassOf(err error) Class {
	if err == nil {
		return None
	}
	switch fail.KindOf(err) {
	case fail.Unavailable, fail.Exhausted, fail.NotAccepting:
		return Transient
	case fail.Invalid, fail.Unsupported, fail.Denied, fail.Unauthenticated, fail.NotFound, fail.Conflict:
		return Permanent
	case fail.Uncertain, fail.Internal:
		return Doubtful
	}
	return Doubtful
}
