package soap

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/beevik/etree"
	"github.com/hashicorp/go-retryablehttp"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Client calls one endpoint. Its fields are set before the first call. It is
// safe for concurrent use.
type Client struct {
	URL     string
	Version Version // 1.1 unless set
	// Addressing sends To, Action, MessageID and an anonymous ReplyTo, none of
	// them to be understood by force: old servers choke on that.
	Addressing bool
	Limits     xmldoc.Limits     // of an answer
	Transport  http.RoundTripper // nil: one of the client's own, without a proxy
	Timeout    time.Duration     // of one attempt; 0: 2 min
	Retries    int               // of idempotent calls; 0: 3, negative: none
	UserAgent  string            // "portolan" unless set
	// Headers are header blocks for every request, each declaring its prefixes.
	Headers []*etree.Element
	// Signer gives, for each call, what adds to the request's envelope what shows whom it is
	// of. Nil, as it is or as it gives, adds nothing. The call fails with the error.
	Signer func() func(ctx context.Context, envelope *etree.Element) error
	// Check is asked of each answer and fault before it is heeded; nil takes all. The call
	// fails with its error, as if there were no answer.
	Check func(ctx context.Context, answer *Parsed, resp *http.Response) error

	once sync.Once
	http *retryablehttp.Client
}

// Reply is an answer that is no fault.
type Reply struct {
	*Parsed     // nil where the server only accepted the message (HTTP 202)
	Status  int // HTTP status
}

// CallOption changes one call.
type CallOption func(*call)

type call struct {
	idempotent bool
	to         *EPR
	headers    []*etree.Element
	limits     *xmldoc.Limits
}

// Idempotent marks a call that may be sent again where its answer was lost or
// the server was busy.
func Idempotent(c *call) { c.idempotent = true }

// WithHeaders adds header blocks to one call.
func WithHeaders(blocks ...*etree.Element) CallOption {
	return func(c *call) { c.headers = append(c.headers, blocks...) }
}

// Within bounds the answer of one call in place of the client's Limits.
func Within(l xmldoc.Limits) CallOption { return func(c *call) { c.limits = &l } }

// To addresses the message to a reference: its address becomes wsa:To and its
// reference parameters headers (WS-Addressing 1.0 SOAP binding §2.2). The
// message still goes to the client's URL.
func To(epr EPR) CallOption {
	return func(c *call) { c.to = &epr }
}

const (
	defaultTimeout = 2 * time.Minute
	defaultRetries = 3
	longestWait    = 20 * time.Second
)

type idempotentKey struct{}

func (c *Client) init() {
	rt := c.Transport
	if rt == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.Proxy = nil // the environment is the program's business
		t.MaxResponseHeaderBytes = 256 << 10
		t.MaxIdleConnsPerHost = 16
		rt = t
	}
	timeout := c.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	rc := retryablehttp.NewClient()
	rc.Logger = nil
	rc.HTTPClient = &http.Client{
		Transport: rt,
		Timeout:   timeout,
		// A redirected POST would arrive as a GET.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	rc.RetryWaitMin, rc.RetryWaitMax = 200*time.Millisecond, longestWait
	switch {
	case c.Retries > 0:
		rc.RetryMax = c.Retries
	case c.Retries < 0:
		rc.RetryMax = 0
	default:
		rc.RetryMax = defaultRetries
	}
	rc.ErrorHandler = retryablehttp.PassthroughErrorHandler
	rc.CheckRetry = func(ctx context.Context, resp *http.Response, err error) (bool, error) {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if ok, _ := ctx.Value(idempotentKey{}).(bool); !ok {
			return false, nil
		}
		if err != nil {
			return true, nil //nolint:nilerr // what went wrong on the way is what is tried again
		}
		switch resp.StatusCode {
		case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
			return true, nil
		}
		return false, nil
	}
	rc.Backoff = func(least, most time.Duration, attempt int, resp *http.Response) time.Duration {
		// It obeys Retry-After; a server must not make us wait for a year.
		return min(retryablehttp.DefaultBackoff(least, most, attempt, resp), most)
	}
	c.http = rc
}

// CloseIdle closes the connections that wait for another call.
func (c *Client) CloseIdle() {
	c.once.Do(c.init)
	c.http.HTTPClient.CloseIdleConnections()
}

// Call sends body under the action and gives the answer. The error is a *Fault
// that the server sent, or a fail.Error: Unavailable where the server was not
// reached, refused to listen or does not speak SOAP; Uncertain where the answer
// of a call that is not idempotent was lost, so that it may have happened;
// Invalid where the request could not be made.
func (c *Client) Call(ctx context.Context, action string, body *etree.Element, opts ...CallOption) (*Reply, error) {
	c.once.Do(c.init)
	var o call
	for _, opt := range opts {
		opt(&o)
	}
	m := message{version: c.Version, body: body, headers: slices.Concat(c.Headers, o.headers)}
	if m.version == 0 {
		m.version = V11
	}
	to := c.URL
	if o.to != nil {
		to = o.to.Address
		m.addReferenceParameters(o.to)
	}
	if c.Addressing {
		m.engaged = true
		m.action, m.to, m.id, m.replyTo = action, to, newMessageID(), Anonymous
	}
	req, sent, err := c.request(ctx, &m, action, o.idempotent)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if resp != nil { // it came as the call was given up
			_ = resp.Body.Close()
		}
		return nil, c.unanswered(err, o.idempotent || !sent.Load())
	}
	defer resp.Body.Close()
	limits := c.Limits
	if o.limits != nil {
		limits = *o.limits
	}
	return c.answer(ctx, resp, m.id, o.idempotent, limits.EnsureDefaults())
}

func (c *Client) request(ctx context.Context, m *message, action string, idempotent bool) (*retryablehttp.Request, *atomic.Bool, error) {
	sent := new(atomic.Bool)
	ctx = context.WithValue(ctx, idempotentKey{}, idempotent)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }})
	var sign func(context.Context, *etree.Element) error
	if c.Signer != nil {
		sign = c.Signer()
	}
	envelope, err := m.bytes(ctx, sign, nil)
	if err != nil {
		return nil, nil, err
	}
	req, err := retryablehttp.NewRequestWithContext(ctx, http.MethodPost, c.URL, envelope)
	if err != nil {
		return nil, nil, fail.Errorf("soap.Call", fail.Invalid, c.URL, "%s is not the address of an endpoint", bounded(c.URL)).Because(err)
	}
	h := req.Header
	if m.version == V12 {
		ct := V12.ContentType()
		if action != "" && !strings.ContainsAny(action, "\"\\\r\n") {
			ct += `; action="` + action + `"`
		}
		h.Set("Content-Type", ct)
		h.Set("Accept", "application/soap+xml, text/xml")
	} else {
		h.Set("Content-Type", V11.ContentType())
		h.Set("Accept", "text/xml, application/soap+xml")
		h.Set("SOAPAction", `"`+action+`"`)
	}
	h.Set("User-Agent", "portolan")
	if c.UserAgent != "" {
		h.Set("User-Agent", c.UserAgent)
	}
	return req, sent, nil
}

// unanswered says what became of a call without an answer. safe means that
// sending it again does no harm.
func (c *Client) unanswered(err error, safe bool) error {
	if safe {
		return fail.Errorf("soap.Call", fail.Unavailable, c.URL, "the endpoint %s could not be reached: %s", c.URL, whyUnreached(err)).Because(err)
	}
	return c.uncertain(err, "the answer of %s was lost: the request may have been carried out", c.URL)
}

// whyUnreached says in public words what a transport error was.
func whyUnreached(err error) string {
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return "its host is not known"
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "its certificate is not trusted"
	}
	timeout, ok := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, http.ErrSchemeMismatch):
		return "it does not speak TLS"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the connection was refused"
	case errors.Is(err, context.Canceled):
		return "the call was cancelled"
	case errors.Is(err, context.DeadlineExceeded), ok && timeout.Timeout():
		return "it took too long"
	}
	return "the connection broke"
}

func (c *Client) uncertain(cause error, format string, args ...any) error {
	return fail.Errorf("soap.Call", fail.Uncertain, c.URL, format, args...).Because(cause)
}

// answer reads what came back. Only the body tells whether it is a fault: some
// servers send faults with HTTP 200.
func (c *Client) answer(ctx context.Context, resp *http.Response, id string, idempotent bool, limits xmldoc.Limits) (*Reply, error) {
	var buf bytes.Buffer
	if _, err := buf.ReadFrom(io.LimitReader(resp.Body, limits.Bytes+1)); err != nil {
		return nil, c.unanswered(err, idempotent)
	}
	if (resp.StatusCode == http.StatusAccepted || resp.StatusCode == http.StatusNoContent) && blank(buf.String()) {
		return &Reply{Status: resp.StatusCode}, nil
	}
	doc, err := xmldoc.ReadBytes(buf.Bytes(), limits)
	var p *Parsed
	if err == nil {
		var f *Fault
		if p, f = parseEnvelope(doc, nil); f != nil {
			err = f
		}
	}
	if err != nil {
		return nil, c.foreign(resp, buf.Bytes(), err, idempotent)
	}
	p.SOAPAction = strings.Trim(resp.Header.Get("SOAPAction"), `" `)
	// What is wrong with a server's headers does not undo its answer; nor does a
	// header that we should understand and do not, such as a timestamp of its own.
	_ = parseAddressing(p)
	if rel := p.Addressing.RelatesTo; id != "" && rel != "" && rel != id {
		err := fmt.Errorf("RelatesTo is %s, wanted %s", bounded(rel), id)
		if idempotent {
			return nil, fail.Errorf("soap.Call", fail.Unavailable, c.URL, "%s answered another message", c.URL).Because(err)
		}
		return nil, c.uncertain(err, "%s answered another message: the request may have been carried out", c.URL)
	}
	if kids := p.Body.ChildElements(); len(kids) > 0 {
		p.Payload = kids[0] // some servers put more behind: multiRef
	}
	if c.Check != nil {
		if err := c.Check(ctx, p, resp); err != nil {
			return nil, err
		}
	}
	if p.Payload != nil && xmldoc.Is(p.Payload, p.Version.Namespace(), "Fault") {
		return nil, decodeFault(p, resp)
	}
	if resp.StatusCode >= 400 {
		return nil, c.foreign(resp, buf.Bytes(), errors.New("an error status without a fault"), idempotent)
	}
	return &Reply{Parsed: p, Status: resp.StatusCode}, nil
}

// foreign is for an answer that is not SOAP: from a proxy, a web page, a server
// that broke down.
func (c *Client) foreign(resp *http.Response, body []byte, cause error, idempotent bool) error {
	const most = 300
	head := strings.Join(strings.Fields(strings.ToValidUTF8(string(body[:min(len(body), most)]), "")), " ")
	cause = fmt.Errorf("%w; the answer begins %s", cause, bounded(head))
	kind := fail.Unavailable
	switch s := resp.StatusCode; {
	case s == http.StatusUnauthorized:
		kind = fail.Unauthenticated
	case s == http.StatusForbidden:
		kind = fail.Denied
	case idempotent, s >= 300 && s < 500, s == http.StatusServiceUnavailable, s == http.StatusNotImplemented:
	default: // it may have been carried out before this went wrong
		return c.uncertain(cause, "%s answered with HTTP %d and nothing that can be read as SOAP: the request may have been carried out", c.URL, s)
	}
	if loc := resp.Header.Get("Location"); loc != "" && resp.StatusCode < 400 {
		head = "moved to " + loc
	}
	return fail.Errorf("soap.Call", kind, c.URL, "%s answered with HTTP %d and nothing that can be read as SOAP: %s", c.URL, resp.StatusCode, bounded(head)).Because(cause)
}
