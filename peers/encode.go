package peers

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/gzip"
)

const (
	// compressed are bodies of at least so many bytes: below that it saves no packet.
	compressFrom = 1 << 10
	// An answer must be taken within answerTime, and a second more for each answerRate bytes.
	answerTime = 30 * time.Second
	answerRate = 50_000
)

var (
	zippers = sync.Pool{New: func() any {
		z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed) // the level is one that there is
		return z
	}}
	unzippers sync.Pool
)

// zip compresses b.
func zip(b []byte) []byte {
	out := bytes.NewBuffer(make([]byte, 0, len(b)/4+64))
	z := zippers.Get().(*gzip.Writer)
	z.Reset(out)
	_, _ = z.Write(b) // a bytes.Buffer takes all
	_ = z.Close()
	zippers.Put(z)
	return out.Bytes()
}

// unzipper reads what was compressed. It begins with the first Read, so that the time that
// the sender takes counts as time of reading. Who reads must have a bound: a small body can
// become a large one.
type unzipper struct {
	from io.ReadCloser
	z    *gzip.Reader
	err  error
}

func (u *unzipper) Read(b []byte) (int, error) {
	if u.err != nil {
		return 0, u.err
	}
	if u.z == nil {
		if z, ok := unzippers.Get().(*gzip.Reader); ok {
			u.z, u.err = z, z.Reset(u.from)
		} else {
			u.z, u.err = gzip.NewReader(u.from)
		}
		if u.err != nil {
			u.z = nil
			return 0, u.err
		}
	}
	n, err := u.z.Read(b)
	if err != nil {
		u.err = err
		if errors.Is(err, io.EOF) {
			unzippers.Put(u.z)
		}
		u.z = nil
	}
	return n, err
}

func (u *unzipper) Close() error {
	u.err = http.ErrBodyReadAfterClose
	return u.from.Close()
}

// counter counts the bytes that are read through it.
type counter struct {
	io.ReadCloser
	n *atomic.Uint64
}

func (c counter) Read(b []byte) (int, error) {
	n, err := c.ReadCloser.Read(b)
	c.n.Add(uint64(n))
	return n, err
}

func isGzip(h http.Header, name string) bool {
	for _, v := range h.Values(name) {
		for part := range strings.SplitSeq(v, ",") {
			coding, params, _ := strings.Cut(strings.TrimSpace(part), ";")
			if strings.EqualFold(strings.TrimSpace(coding), "gzip") && strings.ReplaceAll(params, " ", "") != "q=0" {
				return true
			}
		}
	}
	return false
}

// encoder compresses requests for those that take it, and counts what goes over the wire.
type encoder struct {
	base  http.RoundTripper
	takes *atomic.Bool // the other side said that it takes gzip; it is the Client's
	// bytes of the bodies; they are the Client's
	in, out *atomic.Uint64
}

func (e *encoder) RoundTrip(req *http.Request) (*http.Response, error) {
	var body []byte
	if req.Body != nil {
		var err error
		body, err = io.ReadAll(req.Body)
		_ = req.Body.Close()
		if err != nil {
			return nil, err
		}
	}
	zipped := e.takes.Load() && len(body) >= compressFrom
	resp, err := e.send(req, body, zipped)
	if err == nil && zipped && resp.StatusCode == http.StatusUnsupportedMediaType {
		// Another make stands there now, or a proxy.
		_ = resp.Body.Close()
		e.takes.Store(false)
		resp, err = e.send(req, body, false)
	}
	if err != nil {
		return nil, err
	}
	if isGzip(resp.Header, "Accept-Encoding") { // RFC 7694
		e.takes.Store(true)
	}
	resp.Body = counter{resp.Body, e.in}
	if isGzip(resp.Header, "Content-Encoding") {
		resp.Body = &unzipper{from: resp.Body}
		resp.Header.Del("Content-Encoding")
		resp.Header.Del("Content-Length")
		resp.ContentLength = -1
	}
	return resp, nil
}

// CloseIdleConnections does so below.
func (e *encoder) CloseIdleConnections() {
	if c, ok := e.base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

func (e *encoder) send(req *http.Request, body []byte, zipped bool) (*http.Response, error) {
	r := req.Clone(req.Context())
	r.Header.Set("Accept-Encoding", "gzip")
	// Each message may be sent twice: where a connection that waited turns out to be dead,
	// net/http takes another. With no value this is not sent.
	r.Header["X-Idempotency-Key"] = nil
	if zipped {
		body = zip(body)
		r.Header.Set("Content-Encoding", "gzip")
	}
	r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	r.Body, _ = r.GetBody()
	r.ContentLength = int64(len(body))
	e.out.Add(uint64(len(body)))
	return e.base.RoundTrip(r)
}

// answerWriter holds an answer back until it is whole, compresses it for who takes that,
// and counts it.
type answerWriter struct {
	http.ResponseWriter
	zips   bool // the other side takes gzip
	status int
	body   bytes.Buffer
}

// Unwrap is for http.ResponseController.
func (w *answerWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *answerWriter) WriteHeader(status int) { w.status = status }

func (w *answerWriter) Write(b []byte) (int, error) { return w.body.Write(b) }

// finish sends the answer and gives the bytes of its body.
func (w *answerWriter) finish() int {
	body := w.body.Bytes()
	h := w.Header()
	h.Set("Accept-Encoding", "gzip")
	if w.zips && len(body) >= compressFrom {
		body = zip(body)
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Vary", "Accept-Encoding")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	takes := answerTime + time.Duration(len(body))*time.Second/answerRate
	_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now().Add(takes)) // not every connection has one
	if w.status == 0 {
		w.status = http.StatusOK
	}
	w.ResponseWriter.WriteHeader(w.status)
	_, _ = w.ResponseWriter.Write(body) // a client that went away
	return len(body)
}
