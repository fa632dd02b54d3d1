package boinc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"

	"github.com/portolan-project/portolan/internal/fail"
)

// reported is an error that the project's interface reports. Its number is -1 for
// nearly all, so that only the text tells.
type reported struct {
	operation string
	number    int64
	message   string
}

func (e *reported) Error() string {
	return fmt.Sprintf("%s: %s (%d)", e.operation, e.message, e.number)
}

// errorOf finds the error in a reply.
func errorOf(operation string, reply *element) error {
	e := reply.child("error")
	if e == nil || !e.has("error_msg") {
		return nil
	}
	return &reported{operation: operation, number: e.num("error_num"), message: short(e.str("error_msg"))}
}

// maxMessage bounds what is kept of a project's message: some hold whole statements.
const maxMessage = 500

func short(s string) string {
	if len(s) > maxMessage {
		return strings.ToValidUTF8(s[:maxMessage], "") + "…"
	}
	return s
}

// numbers of errors that pass.
const (
	errNoDatabase = -138
	errProjectOff = -183
)

// kinds says what a reported error means, by the beginning of its text.
var kinds = []struct {
	text string
	kind fail.Kind
}{
	{"no authenticator", fail.Unauthenticated},
	{"bad authenticator", fail.Unauthenticated},
	{"no submit access", fail.Denied},
	{"no file access", fail.Denied},
	{"not owner", fail.Denied},
	{"app not found", fail.Unsupported},
	{"no such batch", fail.NotFound},
	{"no batch ", fail.NotFound},
	{"batch not specified", fail.Internal},
	{"no such job", fail.NotFound},
	{"no job ", fail.NotFound},
	{"job not found", fail.NotFound},
	{"batch not in init state", fail.Conflict},
	{"wrong # of input files", fail.Invalid},
	{"unsupported file mode", fail.Invalid},
	{"Can't get MD5", fail.Invalid},
	{"couldn't parse input template", fail.Unsupported},
	{"template file missing", fail.NotFound},
	{"file immutability violation", fail.Conflict},
	{"can't copy file", fail.Unavailable},
	{"can't write to file", fail.Unavailable},
	{"bad command", fail.Unsupported},
	{"can't parse request", fail.Invalid},
	{"create_work failed: fgets() buffer", fail.Invalid},
	{"project down", fail.Unavailable},
	{"Can't connect to database", fail.Unavailable},
}

func (e *reported) kind() fail.Kind {
	if e.number == errNoDatabase || e.number == errProjectOff {
		return fail.Unavailable
	}
	for _, k := range kinds {
		if strings.HasPrefix(e.message, k.text) {
			return k.kind
		}
	}
	if strings.Contains(e.message, "fopen() failed") { // a staged file is gone
		return fail.Unavailable
	}
	if strings.HasPrefix(e.message, "create_work failed") {
		return fail.Unavailable
	}
	return fail.Unavailable
}

// duplicate finds the job name that a submission failed for, as it was used before.
var duplicate = regexp.MustCompile(`Duplicate entry '([^']*)' for key`)

// wrap makes an error of the adapter's. What may have been done although its answer
// is lost is Uncertain; asking alone is Unavailable.
func wrap(operation string, err error, deed bool) error {
	const op = "boinc"
	if err == nil {
		return nil
	}
	if r, ok := errors.AsType[*reported](err); ok {
		k := r.kind()
		if k == fail.Unauthenticated {
			// Not the job's fault: it may go on when the site is set right.
			return fail.Errorf(op, fail.Unavailable, operation, "the project does not know the account's authenticator; an administrator must renew authenticatorFile").Because(err)
		}
		return fail.Errorf(op, k, operation, "the project says: %s", r.message).Because(err)
	}
	if f, ok := errors.AsType[*fail.Error](err); ok {
		return f
	}
	kind := fail.Unavailable
	if deed && !notSent(err) {
		kind = fail.Uncertain
	}
	sentence := "the project can't be asked now: %v"
	if kind == fail.Uncertain {
		sentence = "the answer of the project was lost: %v"
	}
	return fail.Errorf(op, kind, operation, sentence, bare(err)).Because(bare(err))
}

// bare takes the URL out of an error of the HTTP client: it may hold a key.
func bare(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}

// notSent says that a request certainly did not reach the project.
func notSent(err error) bool {
	if errors.Is(err, errBudget) {
		return true
	}
	o, ok := errors.AsType[*net.OpError](err)
	if ok && o.Op == "dial" {
		return true
	}
	_, lookup := errors.AsType[*net.DNSError](err)
	return lookup
}

// errBudget is a request that was given up while it waited for the budget.
var errBudget = errors.New("the request waited for the budget in vain")

// gone says that the project does not know what was asked for.
func gone(err error) bool {
	r, ok := errors.AsType[*reported](err)
	return ok && r.kind() == fail.NotFound
}

func ended(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
