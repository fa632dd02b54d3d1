package wire

import (
	"errors"
	"strings"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// FaultCode says what the sender of a request can do about a fault.
type FaultCode string

// The codes.
const (
	UnknownSession  FaultCode = "UnknownSession"  // not known here, or no more: open one
	SessionClosed   FaultCode = "SessionClosed"   // it was closed: open another
	MustResume      FaultCode = "MustResume"      // it is lost: resume it first
	CursorMismatch  FaultCode = "CursorMismatch"  // one side lost state: open another
	SessionExists   FaultCode = "SessionExists"   // another session of the two domains stands
	NoVersion       FaultCode = "NoVersion"       // no version that both speak
	TermsRefused    FaultCode = "TermsRefused"    // roles or terms do not fit each other
	NotTrusted      FaultCode = "NotTrusted"      // the sender is no peer here, or not of that domain
	BadMessage      FaultCode = "BadMessage"      // the message does not keep to the protocol
	Busy            FaultCode = "Busy"            // later
	InternalProblem FaultCode = "InternalProblem" // ours
)

var faultCodes = []FaultCode{UnknownSession, SessionClosed, MustResume, CursorMismatch, SessionExists, NoVersion, TermsRefused, NotTrusted, BadMessage, Busy, InternalProblem}

// faultAction is the WS-Addressing action of faults.
const faultAction = NS + "/PeerPortType/Fault"

// kinds says which kind of error each fault is.
var kinds = map[FaultCode]fail.Kind{
	UnknownSession: fail.NotFound, SessionClosed: fail.Conflict, MustResume: fail.Conflict, CursorMismatch: fail.Conflict,
	SessionExists: fail.Conflict, NoVersion: fail.Unsupported, TermsRefused: fail.Unsupported, NotTrusted: fail.Denied,
	BadMessage: fail.Invalid, Busy: fail.Unavailable, InternalProblem: fail.Internal,
}

// Fault is the detail of a SOAP fault, and an error.
type Fault struct {
	Code     FaultCode
	Session  string
	Sentence string
	Retry    time.Duration
}

func (m *Fault) visit(v *visit) {
	enum(v, "code", &m.Code, true, "what can be done about it", faultCodes...)
	str(v, "session", &m.Session, 0, MaxID, word, "the session that it is about; with SessionExists the one that stands")
	str(v, "sentence", &m.Sentence, 1, MaxReason, line, "what is wrong and what to change")
	span(v, "retry", &m.Retry, 0, time.Hour, "with Busy: when to come again")
}

// Error gives the sentence.
func (m *Fault) Error() string { return string(m.Code) + ": " + m.Sentence }

// Unwrap gives the fault as an error of its kind.
func (m *Fault) Unwrap() error {
	return fail.Errorf("peers", kinds[m.Code], m.Session, "%s", m.Sentence)
}

// FaultOf gives the fault that an error is to the other side.
func FaultOf(err error) *Fault {
	if f, ok := errors.AsType[*Fault](err); ok {
		return f
	}
	f := &Fault{Code: InternalProblem, Sentence: Sentence(fail.Sentence(err))}
	switch fail.KindOf(err) {
	case fail.Invalid, fail.Conflict, fail.NotFound:
		f.Code = BadMessage
	case fail.Unsupported:
		f.Code = TermsRefused
	case fail.Unauthenticated, fail.Denied:
		f.Code = NotTrusted
	case fail.NotAccepting, fail.Unavailable, fail.Exhausted:
		f.Code, f.Retry = Busy, 5*time.Second
	case fail.Internal, fail.Uncertain:
	}
	return f
}

// Sentence makes of any text one that goes into a reason or a sentence: one line, within
// the bound.
func Sentence(s string) string {
	s = strings.Map(func(r rune) rune {
		if !line.takes(string(r)) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > MaxReason {
		s = strings.ToValidUTF8(s[:MaxReason-len("…")], "") + "…"
	}
	return s
}

// SOAP gives the SOAP fault.
func (m *Fault) SOAP() *soap.Fault {
	f := &soap.Fault{Code: soap.Sender, Subcodes: []xmldoc.Name{{Space: NS, Local: string(m.Code)}}, Reason: m.Sentence, Action: faultAction, RetryAfter: m.Retry}
	if m.Code == Busy || m.Code == InternalProblem {
		f.Code = soap.Receiver
	}
	if e, err := Encode(m); err == nil {
		f.Detail = []*etree.Element{e}
	}
	return f
}

// FromSOAP gives the fault that the other side sent; nil if it sent none of ours.
func FromSOAP(f *soap.Fault) *Fault {
	for _, d := range f.Detail {
		if m, err := Decode(nil, d); err == nil {
			if ours, ok := m.(*Fault); ok {
				return ours
			}
		}
	}
	return nil
}
