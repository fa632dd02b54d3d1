// Package fail holds the few kinds of error that every service shares.
//
// An error is an operation, a kind, a subject and a cause. The kinds are few
// and survive the network: each protocol's faults.go maps them to its faults.
// What a stranger may read (Public) and what the log needs (Cause) are apart.
package fail

import (
	"errors"
	"fmt"
)

// Kind says what a caller can do about an error.
type Kind uint8

// The kinds. Callers branch on these and never on text.
const (
	Internal        Kind = iota // a fault of ours: nothing that the caller can change
	Invalid                     // the request is wrong; the caller must change it
	Unsupported                 // the request is right, but cannot be done here
	Unauthenticated             // who the caller is could not be established
	Denied                      // the caller is known and may not do this
	NotFound                    // the thing does not exist, or the caller must not learn that it does
	Conflict                    // the thing's present state, or a newer write, forbids it
	NotAccepting                // no new work is taken at present
	Unavailable                 // a part is out of reach for now; the same request may succeed later
	Exhausted                   // a bound is reached: quota, disk, size
	Uncertain                   // the answer was lost: it may or may not have happened
	numKinds
)

var kindNames = [numKinds]string{
	"internal", "invalid", "unsupported", "unauthenticated", "denied", "not found",
	"conflict", "not accepting", "unavailable", "exhausted", "uncertain",
}

// String gives the kind in words.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Kinds lists every kind, for tests that prove a mapping complete.
func Kinds() []Kind {
	ks := make([]Kind, 0, numKinds)
	for k := range numKinds {
		ks = append(ks, k)
	}
	return ks
}

// Error is an operation that failed on a subject.
type Error struct {
	Op      string // what was being done: "store.Create"
	Kind    Kind
	Subject string // what it was done to: a job id, a file, an element; may be empty
	Public  string // one sentence for the person at the other end: what is wrong and what to change
	Cause   error  // for the log only; never sent to a stranger
}

// E makes an Error. The cause's public sentence, if it has one, carries over;
// use Errorf to give a sentence of your own.
func E(op string, kind Kind, subject string, cause error) *Error {
	e := &Error{Op: op, Kind: kind, Subject: subject, Cause: cause}
	if inner, ok := errors.AsType[*Error](cause); ok {
		e.Public = inner.Public
	}
	return e
}

// Errorf makes an Error whose sentence may be shown to anybody.
func Errorf(op string, kind Kind, subject, format string, args ...any) *Error {
	return &Error{Op: op, Kind: kind, Subject: subject, Public: fmt.Sprintf(format, args...)}
}

// Because returns e with a private cause.
func (e *Error) Because(cause error) *Error {
	c := *e
	c.Cause = cause
	return &c
}

// Error gives everything, for logs.
func (e *Error) Error() string {
	s := e.Op + ": " + e.Kind.String()
	if e.Subject != "" {
		s += " " + e.Subject
	}
	if e.Public != "" {
		s += ": " + e.Public
	}
	if e.Cause != nil && e.Cause.Error() != e.Public {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Cause }

// KindOf gives the kind of the outermost Error in err's chain; Internal for any
// other error.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}

// Is reports whether err is of the kind.
func Is(err error, k Kind) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Kind == k
}

// Sentence gives what may be shown to a stranger. An error that has no public
// sentence gives a general one, so that nothing private leaks.
func Sentence(err error) string {
	if e, ok := errors.AsType[*Error](err); ok && e.Public != "" {
		return e.Public
	}
	return "the gateway could not do this; its log says why"
}
