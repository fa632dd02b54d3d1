package boinc

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // the project's own choice
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-retryablehttp"
	"golang.org/x/time/rate"
)

// client sends requests to one project, within the budget.
type client struct {
	base   string // master URL, with its end slash
	secret string
	http   *http.Client          // for deeds: each goes out once
	again  *retryablehttp.Client // for questions, which may be asked again

	limiter *rate.Limiter
	timeout time.Duration

	mu       sync.Mutex
	requests int64
	waiting  int
	version  string
	contact  time.Time
	problem  string
	since    time.Time
}

const (
	maxReply  = 64 << 20
	maxErrors = 4 << 10 // of a page that is no reply
)

func newClient(s *Settings, secret string) *client {
	base := s.URL
	if !strings.HasSuffix(base, "/") {
		base += "/"
	}
	c := &client{base: base, secret: secret, timeout: s.Timeout, since: time.Now()}
	// A burst of a tenth of a second and at least one: any second has the budget and
	// no more than that on top.
	c.limiter = rate.NewLimiter(rate.Limit(s.RequestsPerSecond), max(1, int(s.RequestsPerSecond/10)))
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 4
	c.http = &http.Client{
		Transport: &budget{c, transport},
		// A project that moved must not be sent the secret to wherever.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	c.again = retryablehttp.NewClient()
	c.again.HTTPClient, c.again.Logger = c.http, nil
	c.again.RetryMax, c.again.RetryWaitMin, c.again.RetryWaitMax = 2, 100*time.Millisecond, 2*time.Second
	c.again.ErrorHandler = retryablehttp.PassthroughErrorHandler
	c.again.CheckRetry = func(ctx context.Context, res *http.Response, err error) (bool, error) {
		if ctx.Err() != nil || errors.Is(err, errBudget) || err != nil && notSent(err) {
			return false, err
		}
		// A 500 of a project is a question that it can't answer, and asking again
		// gives the same; what is in front of it says 502 to 504.
		return err != nil || res.StatusCode > http.StatusInternalServerError, nil //nolint:nilerr // the client keeps the error
	}
	return c
}

// budget makes every request wait for its turn and counts it.
type budget struct {
	c    *client
	next http.RoundTripper
}

func (b *budget) RoundTrip(r *http.Request) (*http.Response, error) {
	b.c.mu.Lock()
	b.c.waiting++
	b.c.mu.Unlock()
	err := b.c.limiter.Wait(r.Context())
	b.c.mu.Lock()
	b.c.waiting--
	if err == nil {
		b.c.requests++
	}
	b.c.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBudget, err)
	}
	return b.next.RoundTrip(r)
}

func (c *client) close() {
	c.http.Transport.(*budget).next.(*http.Transport).CloseIdleConnections()
}

// met notes how a request went: whether the project answers.
func (c *client) met(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	_, said := errors.AsType[*reported](err)
	trouble := ""
	switch {
	case err == nil:
	case said:
		if r, _ := errors.AsType[*reported](err); r.kind().String() == "unauthenticated" || r.number == errNoDatabase || r.number == errProjectOff {
			trouble = "the project says: " + r.message
		}
	case errors.Is(err, errBudget) || errors.Is(err, context.Canceled):
		return
	default:
		trouble = bare(err).Error()
	}
	if trouble == "" {
		c.contact = now
	}
	if (trouble == "") != (c.problem == "") {
		c.since = now
	}
	c.problem = trouble
}

// file is one to be uploaded.
type file struct {
	name    string // physical
	content []byte
}

// call sends an operation and reads its reply. A deed is sent once, a question may
// be sent again. The error is a *reported when the project reports one.
func (c *client) call(ctx context.Context, script, operation, inner string, deed bool, files ...file) (*element, error) {
	reply, err := c.exchange(ctx, script, operation, inner, deed, files)
	c.met(err)
	return reply, err
}

func (c *client) exchange(ctx context.Context, script, operation, inner string, deed bool, files []file) (*element, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	document := "<" + operation + "><authenticator>" + c.secret + "</authenticator>" + inner + "</" + operation + ">"
	body, kind := []byte(url.Values{"request": {document}}.Encode()), "application/x-www-form-urlencoded"
	if files != nil {
		body, kind = form(document, files)
	}
	header := http.Header{"Content-Type": {kind}, "Accept-Language": {"en"}, "User-Agent": {"portolan"}}
	status, _, data, err := c.send(ctx, http.MethodPost, c.base+script, header, body, deed, maxReply)
	if err != nil {
		return nil, err
	}
	if status == http.StatusInternalServerError {
		return nil, fmt.Errorf("HTTP status 500 for %s: the project's script died", operation)
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("HTTP status %d for %s", status, operation)
	}
	reply, err := parseReply(data, operation)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", operation, err)
	}
	if err := errorOf(operation, reply); err != nil {
		return nil, err
	}
	return reply, nil
}

// send does one exchange, bounded.
func (c *client) send(ctx context.Context, method, target string, header http.Header, body []byte, deed bool, limit int64) (int, http.Header, []byte, error) {
	var res *http.Response
	if deed {
		r, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
		if err != nil {
			return 0, nil, nil, err
		}
		r.Header = header
		if res, err = c.http.Do(r); err != nil {
			return 0, nil, nil, err
		}
	} else {
		r, err := retryablehttp.NewRequestWithContext(ctx, method, target, body)
		if err != nil {
			return 0, nil, nil, err
		}
		r.Header = header
		if res, err = c.again.Do(r); err != nil {
			return 0, nil, nil, err
		}
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	if err != nil {
		return 0, nil, nil, err
	}
	if int64(len(data)) > limit {
		return 0, nil, nil, fmt.Errorf("the reply has more than %d bytes", limit)
	}
	return res.StatusCode, res.Header, data, nil
}

// form makes a multipart form of the document and files, in their order.
func form(document string, files []file) ([]byte, string) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	_ = w.WriteField("request", document) // into memory
	for i, f := range files {
		part, err := w.CreateFormFile(fmt.Sprintf("file_%d", i), fmt.Sprintf("file_%d", i))
		if err == nil {
			_, _ = part.Write(f.content)
		}
	}
	_ = w.Close()
	return b.Bytes(), w.FormDataContentType()
}

// errNoOutput says that an output certainly is not there (any more).
var errNoOutput = errors.New("the project has no such output")

// output gets a file from one of the output scripts. Their status is 200 whatever
// happens: only the headers tell a file from a complaint.
func (c *client) output(ctx context.Context, script string, query url.Values, cookie bool, limit int64) ([]byte, error) {
	data, err := c.outputOnce(ctx, script, query, cookie, limit)
	if errors.Is(err, errNoOutput) {
		c.met(nil)
	} else {
		c.met(err)
	}
	return data, err
}

func (c *client) outputOnce(ctx context.Context, script string, query url.Values, cookie bool, limit int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	header := http.Header{"Accept-Language": {"en"}, "User-Agent": {"portolan"}}
	if cookie {
		header.Set("Cookie", "auth="+c.secret)
	}
	status, h, data, err := c.send(ctx, http.MethodGet, c.base+script+"?"+query.Encode(), header, nil, false, limit)
	switch {
	case err != nil:
		return nil, err
	case status == http.StatusFound || status == http.StatusNotFound:
		return nil, errNoOutput
	case status != http.StatusOK:
		return nil, fmt.Errorf("HTTP status %d for %s", status, script)
	case strings.HasPrefix(h.Get("Content-Disposition"), "attachment"):
		return data, nil
	case bytes.Contains(data[:min(len(data), maxErrors)], []byte("<b>Fatal error</b>")):
		return nil, errFatal
	case strings.HasPrefix(h.Get("Content-Type"), "text/html"):
		return nil, errNoOutput
	}
	return nil, errOdd
}

// keyed is the key to an output: a digest, so that the secret stands in no URL.
func (c *client) keyed(what string) string { return hexMD5([]byte(c.secret + what)) }

func hexMD5(b []byte) string {
	sum := md5.Sum(b) //nolint:gosec // the project's own choice
	return hex.EncodeToString(sum[:])
}
