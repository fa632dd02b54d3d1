package peers

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/peers/wire"
)

// longestCall bounds a call whose context has no deadline: a poll is held for up to the
// longest beat.
const longestCall = wire.MaxBeat + time.Minute

// Client calls the endpoint of one peer. Its fields are set before the first call. It is
// safe for concurrent use.
type Client struct {
	URL string
	// Domain that answers must be of.
	Domain string
	Trust  Trust
	// Transport carries requests; nil is a pool of connections with the settings that Trust
	// gives.
	Transport http.RoundTripper
	Version   soap.Version // 1.1 unless set
	UserAgent string       // "portolan" unless set

	once   sync.Once
	failed error       // of the set-up
	broken atomic.Bool // failed is there: another client may fare better
	soap   *soap.Client
	count  *counts // the Table's, of the peer
}

func (c *Client) init() {
	if c.count == nil {
		c.count = new(counts)
	}
	if c.failed != nil {
		return
	}
	base := c.Transport
	if base == nil {
		t := &http.Transport{
			MaxResponseHeaderBytes: 64 << 10, MaxIdleConnsPerHost: 4, MaxConnsPerHost: 16, IdleConnTimeout: 2 * time.Minute,
			TLSHandshakeTimeout: 10 * time.Second, DisableCompression: true, // encoder has it
		}
		if t.TLSClientConfig, c.failed = c.Trust.ClientTLS(c.Domain); c.failed != nil {
			c.broken.Store(true)
			return
		}
		if t.TLSClientConfig != nil {
			t.TLSClientConfig = t.TLSClientConfig.Clone()
		}
		base = t
	}
	rt := &encoder{base: base, takes: &c.count.zips, in: &c.count.in.bytes, out: &c.count.out.bytes}
	c.soap = &soap.Client{
		URL: c.URL, Version: c.Version, Addressing: true, Limits: messageLimits, Transport: rt, Timeout: longestCall, UserAgent: c.UserAgent,
		Retries: -1, // what has no answer is repeated by the rules of sessions, as a new frame
		Signer:  func() func(context.Context, *etree.Element) error { return c.Trust.Signer(c.Domain) },
		Check:   c.check,
	}
}

// messageLimits of a message.
var messageLimits = xmldoc.Limits{Bytes: wire.MaxMessage}

// check establishes that an answer is of the domain.
func (c *Client) check(ctx context.Context, m *soap.Parsed, resp *http.Response) error {
	return c.Trust.Answer(ctx, c.Domain, m, resp.TLS)
}

// CloseIdle closes the connections that wait for another call.
func (c *Client) CloseIdle() {
	c.once.Do(c.init)
	if c.failed == nil {
		c.soap.CloseIdle()
	}
}

// Call sends a request and gives its answer. The error is the *wire.Fault that the other
// side sent, or a fail.Error: Unavailable where it was not reached, Uncertain where the
// answer was lost, Unauthenticated or Denied where the answer is not of the domain, Invalid
// where the answer does not keep to the protocol or the request can't be made.
func (c *Client) Call(ctx context.Context, request wire.Message) (wire.Message, error) {
	c.once.Do(c.init)
	if c.failed != nil {
		return nil, c.failed
	}
	body, err := wire.Encode(request)
	if err != nil {
		return nil, err
	}
	parent := TraceFrom(ctx)
	if parent == "" {
		parent = newTrace()
	}
	trace, err := wire.Encode(&wire.Trace{Parent: parent})
	if err != nil {
		return nil, err
	}
	c.count.out.messages.Add(1)
	reply, err := c.soap.Call(ctx, wire.Action(request), body, soap.WithHeaders(trace))
	if err != nil {
		return nil, c.refused(err)
	}
	c.count.in.messages.Add(1)
	if reply.Parsed == nil || reply.Payload == nil {
		return nil, c.wrong("the answer of %s is empty", c.URL)
	}
	m, err := wire.Decode(reply.Document, reply.Payload)
	switch {
	case err != nil:
		return nil, c.wrong("the answer of %s does not keep to the protocol: %s", c.URL, fail.Sentence(err)).Because(err)
	case !wire.Answers(request, m):
		return nil, c.wrong("%s answered with %s, which is no answer to %s", c.URL, wire.Name(m).Local, wire.Name(request).Local)
	}
	return m, nil
}

func (c *Client) wrong(format string, args ...any) *fail.Error {
	return fail.Errorf("peers.Call", fail.Invalid, c.Domain, format, args...)
}

// refused gives the fault of the protocol that an error of SOAP comes to.
func (c *Client) refused(err error) error {
	f, ok := errors.AsType[*soap.Fault](err)
	if !ok {
		return err
	}
	c.count.in.messages.Add(1)
	if ours := wire.FromSOAP(f); ours != nil {
		return ours
	}
	mine := &wire.Fault{Code: wire.BadMessage, Sentence: wire.Sentence(f.Reason)}
	for _, code := range f.Subcodes {
		if code.Space == soap.NSWSSE {
			mine.Code = wire.NotTrusted
		}
	}
	switch {
	case f.Code != soap.Receiver:
	case f.RetryAfter > 0:
		mine.Code, mine.Retry = wire.Busy, min(f.RetryAfter, time.Hour)
	default:
		mine.Code = wire.InternalProblem
	}
	return mine
}
