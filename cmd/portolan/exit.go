package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/portolan-project/portolan/internal/fail"
)

// The exit codes of every verb.
const (
	exitDone        = 0
	exitFailed      = 1   // the job or the check failed
	exitUsage       = 2   // the command line or a file on it is wrong
	exitRefused     = 3   // the endpoint could not be reached, or refused
	exitInterrupted = 130 // as shells say it of SIGINT
)

// exitError is an error that knows the exit code. Whatever else a command
// returns comes from cobra's own checks and is wrong usage.
type exitError struct {
	code  int
	err   error // what is said to the user; nil: everything is said already
	cause error // what came from below, for those who decide by its kind
}

// Error gives the sentence.
func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

// Unwrap gives the cause.
func (e *exitError) Unwrap() error { return e.cause }

// quietly ends the program without a further word.
func quietly(code int) error { return &exitError{code: code} }

func usagef(format string, args ...any) error {
	return &exitError{code: exitUsage, err: fmt.Errorf(format, args...)}
}

func failedf(format string, args ...any) error {
	return &exitError{code: exitFailed, err: fmt.Errorf(format, args...)}
}

func refusedf(format string, args ...any) error {
	return &exitError{code: exitRefused, err: fmt.Errorf(format, args...)}
}

// refusal turns what an endpoint answered, or the lack of an answer, into the
// sentence for the user.
func refusal(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*exitError](err); ok {
		return err
	}
	if errors.Is(err, context.Canceled) {
		return &exitError{code: exitInterrupted, err: errors.New("interrupted"), cause: err}
	}
	return &exitError{code: exitRefused, err: errors.New(sentence(err)), cause: err}
}

// sentence gives the words of an error: the public ones, if it has some.
func sentence(err error) string {
	if e, ok := errors.AsType[*fail.Error](err); ok && e.Public != "" {
		return e.Public
	}
	return err.Error()
}

// passing reports whether the same request may succeed later.
func passing(err error) bool {
	switch fail.KindOf(err) {
	case fail.Unavailable, fail.Uncertain:
		return true
	case fail.Internal, fail.Invalid, fail.Unsupported, fail.Unauthenticated, fail.Denied, fail.NotFound,
		fail.Conflict, fail.NotAccepting, fail.Exhausted:
	}
	return false
}
