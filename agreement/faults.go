package agreement

import (
	"strings"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Namespaces of WS-ResourceFramework 1.2.
const (
	nsBaseFaults = "http://docs.oasis-open.org/wsrf/bf-2"
	nsResource   = "http://docs.oasis-open.org/wsrf/r-2"
	nsProperties = "http://docs.oasis-open.org/wsrf/rp-2"
)

// Dialect is that of the ErrorCode in our wsag:ContinuingFault: its text is a Code.
const Dialect = NSPortolan + "/error-codes"

// Code says why an offer or a request was refused.
type Code string

// The codes of our dialect.
const (
	NoSuchTemplate  Code = "NoSuchTemplate"  // the offer names no template, or one that is not there
	NotCompliant    Code = "NotCompliant"    // the offer breaks the template's constraints
	NotAuthorized   Code = "NotAuthorized"   // the sender may not do this
	NoCapacity      Code = "NoCapacity"      // there is not enough room, or not then
	UnsupportedTerm Code = "UnsupportedTerm" // a term, or a language in one, is not known here
	Expired         Code = "Expired"         // the offer was over before it came
	WrongState      Code = "WrongState"      // the agreement's state does not let it
)

// codes says which kind each code is.
var codes = map[Code]fail.Kind{
	NoSuchTemplate:  fail.NotFound,
	NotCompliant:    fail.Invalid,
	NotAuthorized:   fail.Denied,
	NoCapacity:      fail.Exhausted,
	UnsupportedTerm: fail.Unsupported,
	Expired:         fail.Invalid,
	WrongState:      fail.Conflict,
}

// Refusal is why an offer or a request was refused: a wsag:ContinuingFault, after
// which everything is as it was and the other side may go on. A Service returns
// it, and a Client gives it back as it was; its kind is that of its code.
type Refusal struct {
	Code Code // "" is one of another make
	// Sentences say what is wrong and what to change, for each broken constraint one.
	Sentences []string
	// Earliest is when the same offer could be kept; zero is not known.
	Earliest time.Time
	Cause    error // for the log only

	kind fail.Kind // if it is not that of the code
}

// Refuse makes a Refusal of one sentence or more.
func Refuse(code Code, sentences ...string) *Refusal {
	return &Refusal{Code: code, Sentences: sentences}
}

// Error gives the code and the sentences.
func (r *Refusal) Error() string { return r.Unwrap().Error() }

// Unwrap gives the refusal as an error of its kind.
func (r *Refusal) Unwrap() error {
	kind := r.kind
	if kind == fail.Internal {
		var ok bool
		if kind, ok = codes[r.Code]; !ok {
			kind = fail.Invalid
		}
	}
	s := strings.Join(r.Sentences, "\n")
	if s == "" {
		s = "the request was refused without a reason"
	}
	return fail.Errorf("agreement", kind, string(r.Code), "%s", s).Because(r.Cause)
}

// faults says what each kind of error is on the wire: a wsag:ContinuingFault, or a
// fault of SOAP where it can't be said that nothing has happened.
var faults = map[fail.Kind]struct {
	code       soap.Code
	continuing bool
	error      Code // of our dialect, where the service has not said one; "" is none
	retry      time.Duration
}{
	fail.Internal:        {code: soap.Receiver},
	fail.Invalid:         {code: soap.Sender, continuing: true},
	fail.Unsupported:     {code: soap.Sender, continuing: true, error: UnsupportedTerm},
	fail.Unauthenticated: {code: soap.Sender}, // a fault of WS-Security
	fail.Denied:          {code: soap.Sender, continuing: true, error: NotAuthorized},
	fail.NotFound:        {code: soap.Sender, continuing: true, error: NoSuchTemplate}, // of an agreement: ResourceUnknownFault
	fail.Conflict:        {code: soap.Sender, continuing: true, error: WrongState},
	fail.NotAccepting:    {code: soap.Receiver, continuing: true, error: NoCapacity},
	fail.Unavailable:     {code: soap.Receiver, retry: 5 * time.Second}, // of an agreement: ResourceUnavailableFault
	fail.Exhausted:       {code: soap.Receiver, continuing: true, error: NoCapacity},
	fail.Uncertain:       {code: soap.Receiver},
}

// The faults of WS-ResourceFramework.
var (
	resourceUnknown     = xmldoc.Name{Space: nsResource, Local: "ResourceUnknownFault"}
	resourceUnavailable = xmldoc.Name{Space: nsResource, Local: "ResourceUnavailableFault"}
	invalidProperty     = xmldoc.Name{Space: nsProperties, Local: "InvalidResourcePropertyQNameFault"}
	continuing          = xmldoc.Name{Space: NS, Local: "ContinuingFault"}
)

// propertyError is a request for a resource property that there is not.
type propertyError struct{ cause *fail.Error }

func (e *propertyError) Error() string { return e.cause.Error() }
func (e *propertyError) Unwrap() error { return e.cause }

// Ours, in NSPortolan: what a base fault carries for us, and the detail of a fault
// of SOAP.
const (
	refusal = "Refusal"
	failure = "Failure"

	// Bounds on what one fault says; a detail is cut, not the fault.
	maxSentence  = 4000
	maxSentences = 200
)

// faultOf makes the fault of an error. about says that the operation is about one
// agreement.
func faultOf(err error, about bool, now time.Time) *soap.Fault {
	kind := fail.KindOf(err)
	sentence := fail.Sentence(err)
	if kind == fail.Unauthenticated {
		return soap.SecurityFault("FailedAuthentication", "%s", sentence)
	}
	row := faults[kind]
	f := &soap.Fault{Code: row.code, Reason: cut(sentence)}
	r, refused := asRefusal(err)
	if !refused {
		r = &Refusal{Code: row.error, Sentences: []string{sentence}}
	}
	_, property := asProperty(err)
	var name xmldoc.Name
	switch {
	case property:
		name, r.Code = invalidProperty, ""
	case refused:
		name = continuing
	case kind == fail.NotFound && about:
		name, r.Code = resourceUnknown, ""
	case kind == fail.Unavailable && about:
		name, r.Code = resourceUnavailable, ""
	case row.continuing:
		name = continuing
	default:
		f.RetryAfter = row.retry
		e := etree.NewElement("p:" + failure)
		e.CreateAttr("xmlns:p", NSPortolan)
		e.CreateElement("p:Kind").SetText(kind.String())
		e.CreateElement("p:Message").SetText(f.Reason)
		f.Detail = []*etree.Element{e}
		return f
	}
	f.Refused = name == continuing
	f.Detail = []*etree.Element{baseFault(name, r, kind, now)}
	return f
}

// baseFault writes a fault that extends bf:BaseFaultType (WS-BaseFaults 1.2 §2).
func baseFault(name xmldoc.Name, r *Refusal, kind fail.Kind, now time.Time) *etree.Element {
	prefix := map[string]string{NS: "wsag", nsResource: "wsrf-r", nsProperties: "wsrf-rp"}[name.Space]
	e := etree.NewElement(prefix + ":" + name.Local)
	e.CreateAttr("xmlns:"+prefix, name.Space)
	e.CreateAttr("xmlns:bf", nsBaseFaults)
	p := e.CreateElement("p:" + refusal)
	p.CreateAttr("xmlns:p", NSPortolan)
	p.CreateElement("p:Kind").SetText(kind.String())
	if !r.Earliest.IsZero() {
		p.CreateElement("p:Earliest").SetText(r.Earliest.UTC().Format(time.RFC3339Nano))
	}
	e.CreateElement("bf:Timestamp").SetText(now.UTC().Format(time.RFC3339Nano))
	if r.Code != "" {
		c := e.CreateElement("bf:ErrorCode")
		c.CreateAttr("dialect", Dialect)
		c.SetText(string(r.Code))
	}
	for i, s := range r.Sentences {
		if i == maxSentences {
			break
		}
		d := e.CreateElement("bf:Description")
		d.CreateAttr("xml:lang", "en")
		d.SetText(cut(s))
	}
	return e
}

func cut(s string) string {
	if len(s) > maxSentence {
		s = strings.ToValidUTF8(s[:maxSentence], "") + "…"
	}
	return s
}
