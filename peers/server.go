package peers

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/peers/wire"
)

// ServerOptions are those of a Server. Trust is required.
type ServerOptions struct {
	Trust Trust
	// ExternalURL is the address as peers see it, for the description; "" takes it from
	// each request.
	ExternalURL string
	// InFlight is the most bytes of messages held at once; default 256 MiB.
	InFlight int64
	// Unverified is the most requests at once of which it is not known yet whom they are
	// of; default 512.
	Unverified int
	Log        *slog.Logger // nil discards
	// Observe is told of every answered request. May be nil.
	Observe func(operation string, status int, took time.Duration)
}

// Server is the endpoint `/peer`, with its description at `?wsdl`. It answers for a Table
// (see Serve); without one it is busy. It is an http.Handler.
type Server struct {
	o          ServerOptions
	endpoint   *soap.Endpoint
	table      atomic.Pointer[Table]
	unverified atomic.Int64
}

// NewServer makes a Server.
func NewServer(o ServerOptions) *Server {
	if o.InFlight == 0 {
		o.InFlight = 256 << 20
	}
	if o.Unverified == 0 {
		o.Unverified = 512
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{o: o}
	s.endpoint = &soap.Endpoint{
		Operations:  soap.Operations(s.operations()...),
		Verifier:    verifier{o.Trust},
		Signer:      func(to soap.Principal) func(context.Context, *etree.Element) error { return o.Trust.Signer(to.Name) },
		Limits:      messageLimits,
		ExternalURL: o.ExternalURL,
		InFlight:    o.InFlight,
		Log:         o.Log,
		Observe:     o.Observe,
		Understands: func(n xmldoc.Name) bool { return n == traceName },
		FaultOf:     func(err error, _ *soap.Operation, _ soap.Version) *soap.Fault { return wire.FaultOf(err).SOAP() },
		Describe: func(address, kind, _ string) ([]byte, bool) {
			return wire.WSDL(address), kind == "wsdl"
		},
	}
	return s
}

// Serve has requests answered by t from now on; nil by nobody. One table's end and
// another's beginning are the caller's affair.
func (s *Server) Serve(t *Table) { s.table.Store(t) }

// call is one request on its way, in its context.
type call struct {
	server   *Server
	verified bool
	entry    *entry // whom its bytes are counted for; nil while that is not known
	bytes    atomic.Uint64
}

type callKey struct{}

func (c *call) verify() {
	if !c.verified {
		c.verified = true
		c.server.unverified.Add(-1)
	}
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// A request may be held for a beat; what the listener allows answers does not suffice.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(longestCall + answerTime)) // not every connection has one
	if r.Method != http.MethodPost {
		s.endpoint.ServeHTTP(w, r)
		return
	}
	c := &call{server: s}
	if s.unverified.Add(1) > int64(s.o.Unverified) {
		s.unverified.Add(-1)
		w.Header().Set("Retry-After", "1")
		w.Header().Set("Connection", "close")
		http.Error(w, "too many messages are being read: try again later", http.StatusServiceUnavailable)
		return
	}
	defer c.verify()
	r = r.WithContext(context.WithValue(r.Context(), callKey{}, c))
	r.Body = counter{r.Body, &c.bytes}
	if c := r.Header.Values("Content-Encoding"); len(c) == 1 && strings.EqualFold(strings.TrimSpace(c[0]), "gzip") {
		r.Header.Del("Content-Encoding")
		r.Body, r.ContentLength = &unzipper{from: r.Body}, -1
	}
	answer := &answerWriter{ResponseWriter: w, zips: isGzip(r.Header, "Accept-Encoding")}
	s.endpoint.ServeHTTP(answer, r)
	n := answer.finish()
	if e := c.entry; e != nil {
		e.count.in.messages.Add(1)
		e.count.in.bytes.Add(c.bytes.Load())
		e.count.out.messages.Add(1)
		e.count.out.bytes.Add(uint64(n))
	}
}

// verifier is a Trust as SOAP wants it. The principal's name is the domain.
type verifier struct{ trust Trust }

func (v verifier) Understands(n xmldoc.Name) bool { return v.trust.Understands(n) }

func (v verifier) Verify(ctx context.Context, m *soap.Parsed) (*soap.Verified, error) {
	who, err := v.trust.Sender(ctx, m)
	if err != nil {
		return nil, err
	}
	if who.Domain == "" {
		return nil, fail.Errorf("peers.Verify", fail.Unauthenticated, "", "it could not be told which domain the message is of")
	}
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		c.verify()
	}
	return &soap.Verified{Parsed: m, Principal: soap.Principal{Name: who.Domain, Method: who.Method}}, nil
}

// operations are those of the protocol: each takes its element and is answered by the table.
func (s *Server) operations() []soap.Operation {
	var ops []soap.Operation
	for _, name := range wire.Requests() {
		action := wire.NS + "/PeerPortType/"
		ops = append(ops, soap.Operation{
			Name: xmldoc.Name{Space: wire.NS, Local: name}, Action: action + name, ReplyAction: action + name + "Response", FaultAction: action + "Fault",
			Handle: s.handle,
		})
	}
	return ops
}

func (s *Server) handle(ctx context.Context, m *soap.Verified) (*etree.Element, error) {
	t := s.table.Load()
	if t == nil {
		// It starts, most likely; who meets with this again and again waits longer by itself.
		return nil, busy("", "this gateway does not speak for its domain now: come again", time.Second)
	}
	parent, err := traceOf(m.Parsed)
	if err != nil {
		return nil, err
	}
	request, err := wire.Decode(m.Document, m.Payload)
	if err != nil {
		return nil, err
	}
	if parent != "" {
		ctx = WithTrace(ctx, parent)
	}
	answer, err := t.answer(ctx, Sender{Domain: m.Principal.Name, Method: m.Principal.Method}, request)
	if err != nil {
		return nil, err
	}
	return wire.Encode(answer)
}

func busy(session, sentence string, retry time.Duration) error {
	return &wire.Fault{Code: wire.Busy, Session: session, Sentence: sentence, Retry: retry}
}
