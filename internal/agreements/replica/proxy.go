package replica

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/portolan-project/portolan/internal/soap"
)

const (
	// dialTime is how long the holder may take to be reached.
	dialTime = 5 * time.Second
	// comeAgain is what is told to who asks while nobody has the sites.
	comeAgain = 5 * time.Second
	// partTime bounds how long each part of an answer may take that goes on for longer than the server gives one.
	partTime = time.Minute
)

// newTransport has no bound on how long an answer takes: some come as things happen.
func newTransport() *http.Transport {
	return &http.Transport{
		DialContext:         (&net.Dialer{Timeout: dialTime}).DialContext,
		MaxIdleConnsPerHost: 64,
		IdleConnTimeout:     time.Minute,
	}
}

// Proxy passes requests on to the holder. Where there is none, the answer is 503 with a sentence, to a SOAP
// message as a fault.
func (r *Replica) Proxy() http.Handler { return http.HandlerFunc(r.pass) }

func (r *Replica) pass(w http.ResponseWriter, req *http.Request) {
	var sent []byte // so that it can be answered as it was asked
	switch {
	case message(req):
		var release func()
		var ok bool
		if sent, release, ok = r.intake.Message(w, req); !ok {
			return
		}
		defer release()
		req.Body = io.NopCloser(bytes.NewReader(sent))
	case req.Body != nil && req.Body != http.NoBody:
		req.Body = soap.PatientBody(w, req)
	}
	h := r.holder()
	if h == nil {
		r.absent(w, req, sent, "the gateway that has the sites of this domain is not there now; what has an agreement and no job is served here at /agreement: try again later")
		return
	}
	to, err := url.Parse(h.URL)
	if err != nil || to.Host == "" {
		r.absent(w, req, sent, "the gateway that has the sites of this domain says nothing of where it is: try again later")
		return
	}
	answer := &lasting{ResponseWriter: w}
	p := &httputil.ReverseProxy{
		Transport:     r.http,
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo), // what failed is told below
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(to)
			p.SetXForwarded()
			p.Out.Host = p.In.Host // addresses that it makes of the request are ours
		},
		ModifyResponse: func(res *http.Response) error {
			answer.lasts = res.ContentLength < 0
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			if req.Context().Err() == nil { // else who asked has gone, or this process ends
				r.o.Log.Warn("the gateway that has the sites could not be asked", "at", h.URL, "path", req.URL.Path, "cause", err)
			}
			if errors.Is(err, os.ErrDeadlineExceeded) {
				w.Header().Set("Connection", "close")
				http.Error(w, "the request did not arrive in time", http.StatusRequestTimeout)
				return
			}
			if net, ok := errors.AsType[*net.OpError](err); ok && net.Op == "dial" {
				r.absent(w, req, sent, "the gateway that has the sites of this domain does not answer: try again later")
				return
			}
			r.refuse(w, req, sent, &soap.Fault{
				Code: soap.Receiver, Status: http.StatusBadGateway,
				Reason: "the gateway that has the sites of this domain broke off, and may have done what was asked: look whether it has before asking again",
			})
		},
	}
	p.ServeHTTP(answer, req)
}

// lasting is an answer that comes as things happen, if it says not how long it is.
type lasting struct {
	http.ResponseWriter
	lasts bool
}

// Write implements http.ResponseWriter.
func (l *lasting) Write(b []byte) (int, error) {
	if l.lasts {
		_ = http.NewResponseController(l.ResponseWriter).SetWriteDeadline(time.Now().Add(partTime)) // some writers can't
	}
	return l.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController through.
func (l *lasting) Unwrap() http.ResponseWriter { return l.ResponseWriter }

func message(r *http.Request) bool {
	return r.Method == http.MethodPost && strings.Contains(r.Header.Get("Content-Type"), "xml")
}

func (r *Replica) absent(w http.ResponseWriter, req *http.Request, sent []byte, why string) {
	r.refuse(w, req, sent, &soap.Fault{Code: soap.Receiver, Status: http.StatusServiceUnavailable, Reason: why, RetryAfter: comeAgain})
}

func (r *Replica) refuse(w http.ResponseWriter, req *http.Request, sent []byte, f *soap.Fault) {
	if sent != nil {
		req.Body = io.NopCloser(bytes.NewReader(sent))
	}
	soap.Refuse(w, req, f)
}

// passing is a request of which it is not known yet whether it is answered here.
type passing struct {
	asked atomic.Bool
	stop  context.CancelCauseFunc
}

type passingKey struct{}

var errPassedOn = errors.New("it is passed on to the gateway that has the sites")

func passingOf(ctx context.Context) *passing {
	p, _ := ctx.Value(passingKey{}).(*passing)
	return p
}

// on has the holder answer: whatever is under way here ends, before it writes anything.
func (p *passing) on() {
	p.asked.Store(true)
	p.stop(errPassedOn)
}

// Agreements has next answer, and the holder in its place where next finds that it can't: before anything
// was done about the request.
func (r *Replica) Agreements(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !message(req) {
			next.ServeHTTP(w, req)
			return
		}
		ctx, stop := context.WithCancelCause(req.Context())
		defer stop(nil)
		p := &passing{stop: stop}
		var sent bytes.Buffer
		here := req.WithContext(context.WithValue(ctx, passingKey{}, p))
		here.Body = &copied{req.Body, &sent}
		next.ServeHTTP(&muted{ResponseWriter: w, p: p}, here)
		if p.asked.Load() {
			there := req.Clone(req.Context())
			there.Body, there.ContentLength = io.NopCloser(&sent), int64(sent.Len())
			r.pass(w, there)
		}
	})
}

// copied keeps what is read.
type copied struct {
	io.ReadCloser
	to *bytes.Buffer
}

// Read implements io.Reader.
func (c *copied) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b)
	c.to.Write(b[:n])
	return n, err
}

// muted lets nothing through of an answer that another gives.
type muted struct {
	http.ResponseWriter
	p      *passing
	header http.Header
}

// Header gives headers that are sent if the answer is.
func (m *muted) Header() http.Header {
	if !m.p.asked.Load() {
		return m.ResponseWriter.Header()
	}
	if m.header == nil {
		m.header = http.Header{}
	}
	return m.header
}

// WriteHeader implements http.ResponseWriter.
func (m *muted) WriteHeader(status int) {
	if !m.p.asked.Load() {
		m.ResponseWriter.WriteHeader(status)
	}
}

// Write implements http.ResponseWriter.
func (m *muted) Write(b []byte) (int, error) {
	if m.p.asked.Load() {
		return len(b), nil
	}
	return m.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController through.
func (m *muted) Unwrap() http.ResponseWriter { return m.ResponseWriter }
