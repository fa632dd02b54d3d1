package soap

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

const (
	busyRetryAfter = 5 * time.Second

	// A body must arrive within bodyTime, without a pause of bodyPause.
	bodyTime  = 60 * time.Second
	bodyPause = 10 * time.Second

	defaultInFlight = 64 << 20
)

// Endpoint serves operations over HTTP, in SOAP 1.1 and 1.2. Its fields are set
// before the first request and left alone after.
type Endpoint struct {
	// Operations by the expanded name of the Body's element; the zero Name
	// answers an empty Body.
	Operations map[xmldoc.Name]*Operation
	// Verifier establishes who sent a message. Without one, all are refused.
	Verifier Verifier
	// Limits bounds a message.
	Limits xmldoc.Limits
	// FaultOf makes a fault of an operation's error; nil means FaultOfKind.
	FaultOf func(err error, op *Operation, v Version) *Fault
	// Describe gives the documents that GET serves: kind "wsdl", and kind "xsd"
	// with a name. address is the endpoint's own, as clients see it.
	Describe func(address, kind, name string) (doc []byte, ok bool)
	// ExternalURL is the address as clients see it, where a proxy stands between;
	// "" means what the request says.
	ExternalURL string
	// Roles are the SOAP roles (actors) played beside next and the ultimate receiver.
	Roles []string
	// Understands names header blocks, beyond those of WS-Addressing and of the
	// Verifier, that operations process. May be nil.
	Understands func(xmldoc.Name) bool
	// Signer gives what adds to an answer's envelope what shows whom it is of: for who is
	// asking, or the zero Principal where that could not be established. Nil, as it is or as
	// it gives, adds nothing.
	Signer func(to Principal) func(ctx context.Context, envelope *etree.Element) error
	// Strict holds clients to the letter of WS-Addressing: a MessageID on every
	// request, an action that agrees with the body and with SOAPAction.
	Strict bool
	// InFlight is the most bytes of messages held at once; beyond it senders are
	// told to come again. 0 means 64 MiB. One message is always taken.
	InFlight int64
	// Log gets what went wrong, once; nil discards it.
	Log *slog.Logger
	// Observe is told of every answered POST; the operation is empty where none
	// was found. May be nil.
	Observe func(operation string, status int, took time.Duration)

	// Tests set these to get the same bytes every time.
	newID, newReference func() string

	held atomic.Int64 // bytes of messages in flight
}

var _ http.Handler = (*Endpoint)(nil)

// ServeHTTP answers one request (SOAP 1.1 §6; SOAP 1.2 part 2 §7).
func (e *Endpoint) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodPost:
		began := time.Now()
		x := &exchange{e: e, w: w, r: r}
		x.serve()
		e.held.Add(-x.held)
		if e.Observe != nil {
			name := ""
			if x.op != nil {
				name = x.op.Name.Local
			}
			e.Observe(name, x.status, time.Since(began))
		}
	case http.MethodGet, http.MethodHead:
		e.describe(w, r)
	default:
		w.Header().Set("Allow", "POST, GET")
		http.Error(w, "this is a SOAP endpoint: send a SOAP message with POST", http.StatusMethodNotAllowed)
	}
}

// describe serves ?wsdl and ?xsd=name. Other GETs have nothing to get.
func (e *Endpoint) describe(w http.ResponseWriter, r *http.Request) {
	kind, name, asked := "", "", false
	for key, values := range r.URL.Query() {
		switch strings.ToLower(key) {
		case "wsdl":
			kind, name, asked = "wsdl", values[0], true
		case "xsd":
			kind, name, asked = "xsd", values[0], true
		}
	}
	if !asked || e.Describe == nil {
		w.Header().Set("Allow", "POST")
		http.Error(w, "this is a SOAP endpoint: send a SOAP message with POST, or get its description with ?wsdl", http.StatusMethodNotAllowed)
		return
	}
	doc, ok := e.Describe(e.Address(r), kind, name)
	if !ok {
		http.Error(w, "there is no such description here", http.StatusNotFound)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/xml; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(doc)))
	h.Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodHead {
		_, _ = w.Write(doc) // a client that went away
	}
}

// Address gives the endpoint's address as the sender of r sees it.
func (e *Endpoint) Address(r *http.Request) string {
	if e.ExternalURL != "" {
		return e.ExternalURL
	}
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	return scheme + "://" + r.Host + r.URL.Path
}

func (e *Endpoint) log() *slog.Logger {
	if e.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return e.Log
}

func (e *Endpoint) understands(n xmldoc.Name) bool {
	return n.Space == NSWSA && wsaHeaders[n.Local] ||
		e.Verifier != nil && e.Verifier.Understands(n) ||
		e.Understands != nil && e.Understands(n)
}

// exchange is one POST and its answer.
type exchange struct {
	e       *Endpoint
	w       http.ResponseWriter
	r       *http.Request
	version Version
	parsed  *Parsed // nil until there is an envelope
	op      *Operation
	sender  Principal // once it is established
	status  int       // that was sent
	held    int64     // bytes counted in e.held
}

// serve is the processing order of SOAP 1.2 part 1 §2.6: nothing has an effect
// before everything that can be refused is looked at.
func (x *exchange) serve() {
	charset, ok := x.media()
	if !ok {
		return
	}
	buf := buffers.Get().(*bytes.Buffer)
	defer putBuffer(buf)
	doc, ok := x.read(buf, charset)
	if !ok {
		return
	}
	p, f := parseEnvelope(doc, x.e.Roles)
	x.parsed, x.version = p, p.Version
	p.HTTP, p.SOAPAction = x.r, soapAction(x.r)
	if f != nil {
		x.fault(f, nil)
		return
	}
	addressing := parseAddressing(p)
	if f := checkMustUnderstand(p, x.e.understands); f != nil {
		x.fault(f, nil)
		return
	}
	if addressing != nil {
		x.fault(addressing, nil)
		return
	}
	if f := parseBody(p); f != nil {
		x.fault(f, nil)
		return
	}
	v, ok := x.verify()
	if !ok {
		return
	}
	x.sender = v.Principal
	if f := x.find(); f != nil {
		x.fault(f, nil)
		return
	}
	if f := checkReplyAddresses(&p.Addressing); f != nil {
		x.fault(f, nil)
		return
	}
	if x.e.Strict {
		if f := checkStrictly(p, x.op); f != nil {
			x.fault(f, nil)
			return
		}
	}
	reply, err := x.handle(v)
	if err != nil {
		x.fault(x.faultOf(err), err)
		return
	}
	x.reply(reply)
}

// media checks what can be checked before the body is read, and so before a
// client that waits for "100 Continue" sends it.
func (x *exchange) media() (charset string, ok bool) {
	kind, params, err := mime.ParseMediaType(x.r.Header.Get("Content-Type"))
	if err != nil && kind == "" {
		// A parameter that is not as it should be does not make it another type.
		kind, _, _ = strings.Cut(strings.ToLower(x.r.Header.Get("Content-Type")), ";")
		kind = strings.TrimSpace(kind)
	}
	switch kind {
	case "text/xml", "application/soap+xml", "application/xml":
	default:
		x.w.Header().Set("Accept-Post", "text/xml, application/soap+xml")
		x.plain(http.StatusUnsupportedMediaType, "send SOAP 1.1 as text/xml or SOAP 1.2 as application/soap+xml")
		return "", false
	}
	x.version = V11
	if kind == "application/soap+xml" {
		x.version = V12
	}
	if enc := x.r.Header.Get("Content-Encoding"); enc != "" && !strings.EqualFold(enc, "identity") {
		x.w.Header().Set("Accept-Encoding", "identity")
		x.plain(http.StatusUnsupportedMediaType, "send the message without a content encoding")
		return "", false
	}
	if most := x.e.Limits.EnsureDefaults().Bytes; x.r.ContentLength > most {
		x.w.Header().Set("Connection", "close")
		x.fault(&Fault{Code: Sender, Status: http.StatusRequestEntityTooLarge, Reason: fmt.Sprintf("the message is larger than %d bytes", most)}, nil)
		return "", false
	}
	return params["charset"], true
}

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// putBuffer gives a buffer back, unless one big message would keep its memory.
func putBuffer(b *bytes.Buffer) {
	if b.Cap() <= 1<<20 {
		b.Reset()
		buffers.Put(b)
	}
}

// take takes the message off the wire, to one byte more than it may have.
func (x *exchange) take(buf *bytes.Buffer) bool {
	limits := x.e.Limits.EnsureDefaults()
	body := &patientReader{r: x.r.Body, control: http.NewResponseController(x.w), until: time.Now().Add(bodyTime)}
	_, err := buf.ReadFrom(&countedReader{x, io.LimitReader(body, limits.Bytes+1)})
	body.done()
	if err != nil {
		if errors.Is(err, errBusy) {
			x.version = sniff(buf.Bytes(), x.version)
			x.w.Header().Set("Connection", "close")
			x.fault(&Fault{Code: Receiver, Reason: "too many messages are being worked on: try again later", RetryAfter: busyRetryAfter}, nil)
			return false
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			x.w.Header().Set("Connection", "close")
			x.plain(http.StatusRequestTimeout, "the message did not arrive in time")
		} else {
			x.plain(http.StatusBadRequest, "the message could not be read to its end")
		}
		x.e.log().Info("a SOAP request broke off", "remote", x.r.RemoteAddr, "err", err)
		return false
	}
	return true
}

// read takes the message off the wire and reads it.
func (x *exchange) read(buf *bytes.Buffer, charset string) (*xmldoc.Document, bool) {
	if !x.take(buf) {
		return nil, false
	}
	doc, err := xmldoc.ReadBytesEncoded(buf.Bytes(), charset, x.e.Limits.EnsureDefaults())
	if err == nil {
		return doc, true
	}
	refusal, ok := errors.AsType[*xmldoc.Error](err)
	if !ok {
		refusal = &xmldoc.Error{What: "it could not be read"}
	}
	x.version = sniff(buf.Bytes(), x.version)
	f := refusedDocument(refusal)
	switch {
	case f.Status == http.StatusRequestEntityTooLarge:
		x.w.Header().Set("Connection", "close")
	case refusal.Charset != "":
		f.Status = http.StatusUnsupportedMediaType
	}
	x.fault(f, nil)
	return nil, false
}

var errBusy = errors.New("soap: too many bytes of messages in flight")

// countedReader counts what it reads as held, so that many large messages at once
// do not add up to more memory than there is.
type countedReader struct {
	x *exchange
	r io.Reader
}

func (c *countedReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.x.held += int64(n)
	total := c.x.e.held.Add(int64(n))
	if total > cmp.Or(c.x.e.InFlight, defaultInFlight) && total > c.x.held {
		return n, errBusy
	}
	return n, err
}

// sniff guesses the version of a message that could not be read, so that its
// sender can read the fault.
func sniff(b []byte, fallback Version) Version {
	head := b[:min(len(b), 4096)]
	i11, i12 := bytes.Index(head, []byte(NS11)), bytes.Index(head, []byte(NS12))
	switch {
	case i12 >= 0 && (i11 < 0 || i12 < i11):
		return V12
	case i11 >= 0:
		return V11
	}
	return fallback
}

// patientReader ends a read that takes too long.
type patientReader struct {
	r       io.Reader
	control *http.ResponseController
	until   time.Time
	set     time.Time // when the deadline was last moved
}

func (p *patientReader) Read(b []byte) (int, error) {
	p.extend()
	return p.r.Read(b)
}

// extend gives what is read next its time.
func (p *patientReader) extend() {
	if now := time.Now(); now.Sub(p.set) > time.Second {
		p.set = now
		deadline := now.Add(bodyPause)
		if deadline.After(p.until) {
			deadline = p.until
		}
		_ = p.control.SetReadDeadline(deadline) // not every connection has one: tests, proxies
	}
}

// done lifts the deadline: past the body it would cancel the request's context.
func (p *patientReader) done() { _ = p.control.SetReadDeadline(time.Time{}) }

// soapAction gives the action from the header of SOAP 1.1 or the media type of 1.2.
func soapAction(r *http.Request) string {
	clean := func(s string) string {
		return strings.TrimSpace(strings.Trim(strings.TrimSpace(s), `"`))
	}
	if a := clean(r.Header.Get("SOAPAction")); a != "" {
		return a
	}
	_, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return clean(params["action"])
}

func (x *exchange) verify() (*Verified, bool) {
	if x.e.Verifier == nil {
		x.fault(&Fault{Code: Receiver, Reason: "this endpoint cannot tell who sends: it is not configured"}, errors.New("soap: Endpoint without a Verifier"))
		return nil, false
	}
	v, err := x.e.Verifier.Verify(x.r.Context(), x.parsed)
	if err == nil && v == nil {
		err = errors.New("soap: the Verifier gave nothing")
	}
	if err != nil {
		x.fault(x.faultOf(err), err)
		return nil, false
	}
	return v, true
}

// find finds the operation by the Body's element, and by nothing else: actions
// that are wrong, empty or of the answer before are common.
func (x *exchange) find() *Fault {
	var name xmldoc.Name
	if x.parsed.Payload != nil {
		name = x.parsed.Document.Name(x.parsed.Payload)
	}
	if op := x.e.Operations[name]; op != nil {
		x.op = op
		return nil
	}
	var offered []string
	for n := range x.e.Operations {
		if n != (xmldoc.Name{}) {
			offered = append(offered, n.String())
		}
	}
	slices.Sort(offered)
	reason := "the Body is empty"
	if x.parsed.Payload != nil {
		reason = "no operation here answers " + shown(name)
	}
	reason += "; offered are " + strings.Join(offered, ", ")
	if x.parsed.Addressing.Engaged {
		return actionNotSupported(x.parsed, reason)
	}
	return &Fault{Code: Sender, Reason: reason}
}

// handle calls the operation. A panic ends this request only.
func (x *exchange) handle(v *Verified) (_ reply, err error) {
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler { //nolint:errorlint // net/http compares it so
				panic(p)
			}
			err = fmt.Errorf("soap: %s panicked: %v\n%s", x.op.Name.Local, p, debug.Stack())
		}
	}()
	ctx := WithPrincipal(x.r.Context(), v.Principal)
	el, err := x.op.Handle(ctx, v)
	return reply{el}, err
}

// faultOf makes a fault of whatever went wrong.
func (x *exchange) faultOf(err error) *Fault {
	if f, ok := errors.AsType[*Fault](err); ok {
		return f
	}
	if errors.Is(err, context.DeadlineExceeded) && fail.KindOf(err) == fail.Internal {
		return &Fault{Code: Receiver, Reason: "the request took too long: try again later", RetryAfter: busyRetryAfter}
	}
	if x.e.FaultOf != nil {
		if f := x.e.FaultOf(err, x.op, x.version); f != nil {
			return f
		}
	}
	return FaultOfKind(err)
}
