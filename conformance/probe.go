package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/portolan-project/portolan/internal/soap"
)

// replyLimit bounds a reply, in bytes: an endpoint may send without end.
const replyLimit = 8 << 20

// probe sends messages to the endpoint and remembers what it made there.
type probe struct {
	opts       Options
	client     *http.Client
	own        *http.Transport // nil for a client of the caller's
	unanswered int             // exchanges in a row without an answer
	reached    bool            // something answered, whatever it was
	lastErr    error
	serial     int
	made       []string // the EPRs of activities that may still run
	shared     []string // two of made, for checks that only look

	mu      sync.Mutex // for all above that an exchange changes
	visit   *visit     // of the profile Peer: the session that most checks are made in
	errands errands
	lost    *visit // one that the other side took for lost

	provider provider // of the profile WSAG
}

func newProbe(o Options) *probe {
	p := &probe{opts: o}
	if o.HTTP != nil {
		c := *o.HTTP
		p.client = &c
	} else {
		p.own = http.DefaultTransport.(*http.Transport).Clone()
		p.own.Proxy = nil
		p.own.DisableCompression = true
		p.own.ExpectContinueTimeout = time.Second
		p.own.MaxResponseHeaderBytes = 256 << 10
		p.client = &http.Client{Transport: p.own}
	}
	// A redirect is an answer to be judged; following it could lead anywhere.
	p.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return p
}

// close ends what the run left running.
func (p *probe) close(ctx context.Context) {
	if p.opts.Profile == Peer {
		p.leave(ctx)
	}
	if p.opts.Profile == WSAG {
		p.endDeals(ctx)
	}
	if len(p.made) > 0 && p.unanswered < silent {
		ctx, stop := context.WithTimeout(ctx, p.opts.Timeout)
		defer stop()
		if _, err := p.ask(ctx, factory("TerminateActivities", identifiers(p.made...))); err != nil {
			p.opts.Log.WarnContext(ctx, "the activities of the run were not ended", "number", len(p.made), "error", err)
		}
	}
	if p.own != nil {
		p.own.CloseIdleConnections()
	}
}

// request is one HTTP request. Its zero value is a POST of nothing.
type request struct {
	method      string
	query       string // with its question mark
	contentType string // "-" sends none
	header      http.Header
	body        []byte
	stream      io.Reader // instead of body, chunked
	client      *http.Client
	patience    time.Duration // how much longer than usual the answer may take
}

// exchange sends a request and reads the answer, whatever it is. The error is of
// the transport: there was no whole answer.
func (p *probe) exchange(ctx context.Context, r request) (*reply, error) {
	ctx, stop := context.WithTimeout(ctx, p.opts.Timeout+r.patience)
	defer stop()
	rep, err := p.roundTrip(ctx, r)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reached = p.reached || rep != nil
	if err != nil {
		p.lastErr = err
		// An answer that was cut short is an answer; silence and dawdling are none.
		if (rep == nil || errors.Is(err, errLate)) && r.stream == nil {
			p.unanswered++
		}
		return rep, err
	}
	p.unanswered = 0
	return rep, nil
}

var errLate = errors.New("the time for one exchange is over")

func (p *probe) roundTrip(ctx context.Context, r request) (*reply, error) {
	method := r.method
	if method == "" {
		method = http.MethodPost
	}
	body := r.stream
	if body == nil && r.body != nil {
		body = bytes.NewReader(r.body)
	}
	target := p.opts.Endpoint + r.query
	if strings.HasPrefix(r.query, "http://") || strings.HasPrefix(r.query, "https://") {
		target = r.query
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	maps.Copy(req.Header, r.header)
	req.Header.Set("User-Agent", "portolan-conformance")
	if r.contentType != "-" && body != nil {
		req.Header.Set("Content-Type", r.contentType)
	}
	client := p.client
	if r.client != nil {
		client = r.client
	}
	began := time.Now()
	res, err := client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("no answer: %w (%v)", errLate, p.opts.Timeout)
		}
		return nil, fmt.Errorf("no answer: %w", unwrapURL(err))
	}
	defer res.Body.Close()
	rep := &reply{status: res.StatusCode, header: res.Header, sentClose: res.Close}
	rep.raw, err = io.ReadAll(io.LimitReader(res.Body, replyLimit+1))
	rep.took = time.Since(began)
	if len(rep.raw) > replyLimit {
		return rep, fmt.Errorf("the answer (HTTP %d) is longer than %d MiB", rep.status, replyLimit>>20)
	}
	if err != nil {
		if ctx.Err() != nil {
			return rep, fmt.Errorf("the answer (HTTP %d) was not complete: %w (%v)", rep.status, errLate, p.opts.Timeout)
		}
		return rep, fmt.Errorf("the answer (HTTP %d) broke off after %d bytes: %w", rep.status, len(rep.raw), err)
	}
	return rep, nil
}

// unwrapURL takes off the repeated method and URL of the client's errors.
func unwrapURL(err error) error {
	var inner interface{ Unwrap() error }
	if errors.As(err, &inner) && inner.Unwrap() != nil {
		return inner.Unwrap()
	}
	return err
}

// ask sends a SOAP message and reads the answer as one.
func (p *probe) ask(ctx context.Context, m message) (*reply, error) {
	rep, err := p.exchange(ctx, m.request())
	if err != nil {
		return rep, err
	}
	if err := rep.parse(); err != nil {
		return rep, err
	}
	want := m.version
	if want == 0 {
		want = soap.V11
	}
	if rep.version != want && !m.anyVersion {
		return rep, fmt.Errorf("asked in SOAP %s, answered in SOAP %s: %s", versionName(want), versionName(rep.version), rep)
	}
	return rep, nil
}

// fresh gives a word that no other message of this run has.
func (p *probe) fresh(prefix string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.serial++
	return fmt.Sprintf("%s-%d-%d", prefix, time.Now().UnixNano(), p.serial)
}
