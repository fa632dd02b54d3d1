package bes

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/jsdl"
)

// The fault elements of bes-factory.
const (
	faultDenied       = "NotAuthorizedFault"
	faultNotAccepting = "NotAcceptingNewActivitiesFault"
	faultUnsupported  = "UnsupportedFeatureFault"
	faultInvalid      = "InvalidRequestMessageFault"
	faultUnknown      = "UnknownActivityIdentifierFault"
	faultUnknown2007  = "InvalidActivityIdentifierFault" // its name in the published schema
	faultState        = "CantApplyOperationToCurrentStateFault"
	faultEventually   = "OperationWillBeAppliedEventuallyFault"

	// failure is the detail, in NSPortolan, of what BES has no fault for.
	failure = "Failure"
)

// Dialect chooses among the two schemas that share one namespace.
type Dialect uint8

// The dialects. They differ in the boolean of TerminateActivities and in the
// name of the fault for an unknown activity; a client reads both.
const (
	Dialect2008 Dialect = iota // Terminated, UnknownActivityIdentifierFault: the default
	Dialect2007                // Cancelled, InvalidActivityIdentifierFault: what schemas.ogf.org serves
)

// faults says which fault each kind is.
var faults = map[fail.Kind]struct {
	code    soap.Code
	element string // of bes-factory; "" for a kind that BES has no fault for
	retry   time.Duration
}{
	fail.Internal:        {code: soap.Receiver},
	fail.Invalid:         {code: soap.Sender, element: faultInvalid},
	fail.Unsupported:     {code: soap.Sender, element: faultUnsupported},
	fail.Unauthenticated: {code: soap.Sender}, // a fault of WS-Security, not of BES
	fail.Denied:          {code: soap.Sender, element: faultDenied},
	fail.NotFound:        {code: soap.Sender, element: faultUnknown},
	fail.Conflict:        {code: soap.Sender, element: faultState},
	fail.NotAccepting:    {code: soap.Receiver, element: faultNotAccepting},
	fail.Unavailable:     {code: soap.Receiver, retry: 5 * time.Second},
	fail.Exhausted:       {code: soap.Receiver, retry: 30 * time.Second},
	fail.Uncertain:       {code: soap.Receiver},
}

// StateError is why an operation can't be applied: the activity's state. A
// Service may return one of its own making, which has ActivityStatus too.
type StateError struct {
	Status Status
	Cause  *fail.Error // of kind fail.Conflict
}

// Error gives the cause's text.
func (e *StateError) Error() string { return e.Cause.Error() }

// Unwrap gives the cause.
func (e *StateError) Unwrap() error { return e.Cause }

// ActivityStatus gives the state that stands in the way.
func (e *StateError) ActivityStatus() Status { return e.Status }

// eventually is a request that is remembered and applied later.
type eventually struct{ StateError }

// stated is an error that knows the state of its activity.
type stated interface {
	error
	ActivityStatus() Status
}

// requestError is what is wrong with a request, by elements.
type requestError struct {
	cause    *fail.Error
	elements []string // for InvalidElement or Feature
}

func (e *requestError) Error() string { return e.cause.Error() }
func (e *requestError) Unwrap() error { return e.cause }

// jobError is the error of a job's document: one element for each problem.
func jobError(ps jsdl.Problems) error {
	err := ps.Err()
	if err == nil {
		return nil
	}
	cause, _ := errors.AsType[*fail.Error](err)
	of := ps.Unsupported()
	if cause.Kind == fail.Invalid {
		of = ps.Invalid()
	}
	e := &requestError{cause: cause}
	for _, p := range of {
		e.elements = append(e.elements, p.Sentence())
	}
	return e
}

// faultElement makes the BES fault element for err, or our own where BES has
// none. op is the operation, "" if none is known.
func faultElement(err error, op string, d Dialect) *etree.Element {
	kind := fail.KindOf(err)
	name, named := faults[kind].element, fail.Internal
	sentence := fail.Sentence(err)
	state, hasState := errors.AsType[stated](err)
	elements := elementsOf(err)
	switch {
	case kind == fail.Conflict && !hasState:
		// Without a state there is nothing that the schema's fault could say. For
		// CreateActivity the request contradicts an earlier one.
		name = ""
		if op == opCreate {
			name, named = faultInvalid, fail.Invalid
			if elements == nil {
				elements = []string{"SubmissionId"}
			}
		}
	case kind == fail.Exhausted && op == opCreate:
		name, named = faultNotAccepting, fail.NotAccepting // over quota: others may still be taken
	case kind == fail.NotFound && op == opCreate, kind == fail.NotAccepting && op != opCreate:
		name = ""
	default:
		named = kind
	}
	if _, ok := errors.AsType[*eventually](err); ok {
		name = faultEventually
	}
	if name == "" {
		e := controlPort.message(failure)
		text(e, "p:Kind", kind.String())
		text(e, "p:Message", sentence)
		return e
	}
	local := name
	if name == faultUnknown && d == Dialect2007 {
		local = faultUnknown2007
	}
	e := factoryPort.message(local)
	switch name {
	case faultUnsupported:
		if elements == nil {
			elements = []string{sentence}
		}
		for _, x := range elements {
			text(e, "bf:Feature", x)
		}
	case faultInvalid:
		for _, x := range elements {
			text(e, "bf:InvalidElement", x)
		}
		text(e, "bf:Message", sentence)
	case faultState, faultEventually:
		e.AddChild(encodeStatus(state.ActivityStatus()))
		text(e, "bf:Message", sentence)
	case faultUnknown:
		text(e, "bf:Message", sentence)
	}
	if named != kind {
		k := e.CreateElement("p:Kind")
		k.CreateAttr("xmlns:p", NSPortolan)
		k.SetText(kind.String())
	}
	return e
}

func hasState(err error) bool {
	_, ok := errors.AsType[stated](err)
	return ok
}

func elementsOf(err error) []string {
	if r, ok := errors.AsType[*requestError](err); ok {
		return slices.Clone(r.elements)
	}
	// A Service names an element by its path.
	if f, ok := errors.AsType[*fail.Error](err); ok && f.Kind != fail.NotFound && strings.HasPrefix(f.Subject, "/") {
		return []string{f.Subject + ": " + fail.Sentence(err)}
	}
	return nil
}

// faultOf makes the fault for a whole message.
func faultOf(err error, op string, d Dialect) *soap.Fault {
	kind := fail.KindOf(err)
	if kind == fail.Unauthenticated {
		return soap.SecurityFault("FailedAuthentication", "%s", fail.Sentence(err))
	}
	row := faults[kind]
	f := &soap.Fault{Code: row.code, Reason: fail.Sentence(err), RetryAfter: row.retry}
	e := faultElement(err, op, d)
	f.Detail = []*etree.Element{e}
	if e.Tag != failure {
		f.RetryAfter = 0 // a BES fault is sent as one, with 500
	}
	return f
}

// itemFault makes the bf:Fault of one item. Its type is that of a SOAP 1.1
// fault, whatever the envelope, so its children are in no namespace. The prefix
// of its code is declared on itself, and a default namespace undone, so that it
// survives being cut out.
func itemFault(prefix string, err error, op string, d Dialect) *etree.Element {
	e := etree.NewElement(prefix + ":Fault")
	e.CreateAttr("xmlns", "")
	e.CreateAttr("xmlns:s", soap.NS11)
	kind := fail.KindOf(err)
	code := "s:Client"
	if _, ok := errors.AsType[*eventually](err); ok || faults[kind].code == soap.Receiver {
		code = "s:Server"
	}
	text(e, "faultcode", code)
	text(e, "faultstring", fail.Sentence(err))
	e.CreateElement("detail").AddChild(faultElement(err, op, d))
	return e
}

// kindNamed finds a kind by its words.
func kindNamed(s string) (fail.Kind, bool) {
	for _, k := range fail.Kinds() {
		if k.String() == s {
			return k, true
		}
	}
	return fail.Internal, false
}

// kindOfElement gives the kind of a BES fault element, by either lineage's names
// and with the spellings that are seen.
func kindOfElement(n xmldoc.Name) (fail.Kind, bool) {
	if n.Space != NSFactory && n.Space != NSManagement {
		return fail.Internal, false
	}
	local := strings.TrimSuffix(n.Local, "Type") // ARC names elements by their types
	switch local {
	case faultUnknown2007:
		return fail.NotFound, true
	case faultEventually:
		return fail.Conflict, true
	}
	for k, row := range faults {
		if row.element == local && local != "" {
			return k, true
		}
	}
	return fail.Internal, false
}
