package plugin

import (
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// The errors of an adapter, for authors: each is of a kind that says what it means
// for the job, with one sentence for the person whose job it is. subject is what it is
// about (a JSDL element, a setting, a job) and may be empty. Any other error claims
// nothing: it may have been done.

// Invalid is a request that is wrong: this site will never do it.
func Invalid(subject, format string, args ...any) error {
	return fail.Errorf("plugin", fail.Invalid, subject, format, args...)
}

// Unsupported is a request that can't be done here, ever.
func Unsupported(subject, format string, args ...any) error {
	return fail.Errorf("plugin", fail.Unsupported, subject, format, args...)
}

// Denied is what the manager forbids.
func Denied(subject, format string, args ...any) error {
	return fail.Errorf("plugin", fail.Denied, subject, format, args...)
}

// NotFound says that there is no such job.
func NotFound(subject, format string, args ...any) error {
	return fail.Errorf("plugin", fail.NotFound, subject, format, args...)
}

// Conflict is what the job's present state forbids.
func Conflict(subject, format string, args ...any) error {
	return fail.Errorf("plugin", fail.Conflict, subject, format, args...)
}

// Unavailable says that it was certainly not done, and may work later.
func Unavailable(subject, format string, args ...any) error {
	return fail.Errorf("plugin", fail.Unavailable, subject, format, args...)
}

// Exhausted says that a bound is reached, and that it was certainly not done.
func Exhausted(subject, format string, args ...any) error {
	return fail.Errorf("plugin", fail.Exhausted, subject, format, args...)
}

// Uncertain says that it may or may not have been done: the gateway asks Find.
func Uncertain(subject, format string, args ...any) error {
	return fail.Errorf("plugin", fail.Uncertain, subject, format, args...)
}

// Elements names the elements of a definition that ask for something, by the names
// of jsdl.Elements: "posix:WallTimeLimit", "jsdl:Resources/jsdl:CandidateHosts". Those
// that only describe are left out; those of other namespaces are "{namespace}local".
// An adapter refuses whatever it does not honour.
func Elements(d *jsdl.JobDefinition) []string { return elements(d) }
