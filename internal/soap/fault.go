package soap

import (
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Code is a SOAP 1.2 fault code; SOAP 1.1 says Client for Sender and Server for
// Receiver.
type Code uint8

// The codes.
const (
	Sender Code = iota + 1
	Receiver
	MustUnderstand
	VersionMismatch
	DataEncodingUnknown
)

// Fault is a SOAP fault of either version. It is an error: servers return it,
// clients receive it.
type Fault struct {
	Code Code
	// Subcodes go from general to specific. SOAP 1.1 has room for one: the most
	// specific becomes its faultcode.
	Subcodes []xmldoc.Name
	Reason   string           // one sentence for a person
	Detail   []*etree.Element // about the Body
	// HeaderDetail is about a header: it is put in the Detail of SOAP 1.2 and in
	// a wsa:FaultDetail header of SOAP 1.1 (WS-Addressing 1.0 SOAP binding §6).
	HeaderDetail []*etree.Element
	Headers      []*etree.Element // further headers of the reply: Upgrade, NotUnderstood
	Action       string           // wsa:Action of the reply; "" lets the endpoint choose
	Status       int              // HTTP status; 0 lets the version and the code decide
	RetryAfter   time.Duration    // for overload: sent as Retry-After
	// Refused says that the request was understood and refused, so that nothing failed, whatever the
	// code: an endpoint logs it as that. It is not sent.
	Refused bool
}

// Error gives the reason.
func (f *Fault) Error() string { return "soap fault: " + f.Reason }
