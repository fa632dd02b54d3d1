package door

import (
	"context"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// User is one of our own users, for whom a peer is asked.
type User struct {
	Name string // as jobs have their owner
	VO   string // for which the user acts there; "" is none
}

// Dial gives the agreement service of a peer. It is asked by one's own domain, or for a user; with a
// user the client is good for some minutes: dial again for what comes later. Nothing is sent yet.
// fail.NotFound is a domain that is no peer, fail.Denied one that is not trusted or not to be given
// anything, fail.Unsupported one that can't be reached from here.
func (d *Door) Dial(_ context.Context, domain string, u *User) (*agreement.Client, error) {
	const op = "door.Dial"
	peer, ok := d.o.Member(domain)
	switch {
	case !ok:
		return nil, fail.Errorf(op, fail.NotFound, domain, "the domain %s is no peer of %s", domain, d.o.Domain)
	case !peer.Consumes:
		return nil, fail.Errorf(op, fail.Denied, domain, "this gateway gives nothing to %s to do (consumes: false)", domain)
	case peer.URL == "":
		return nil, fail.Errorf(op, fail.Unsupported, domain, "the gateway of %s can't be reached from here, as it opens all sessions itself: agreements with it can't be made", domain)
	}
	at, err := URL(peer.URL)
	if err != nil {
		return nil, err
	}
	way, err := d.way(domain)
	if err != nil {
		return nil, err
	}
	c := &soap.Client{
		URL: at, Addressing: true, Limits: answers, Transport: way, Timeout: callTime, UserAgent: d.o.UserAgent,
		Signer: func() func(context.Context, *etree.Element) error { return d.o.Trust.Signer(domain) },
		Check: func(ctx context.Context, m *soap.Parsed, resp *http.Response) error {
			return d.o.Trust.Answer(ctx, domain, m, resp.TLS)
		},
	}
	if u != nil {
		token, err := d.o.Users.VouchAsking(domain, u.Name, u.VO)
		if err != nil {
			return nil, err
		}
		c.Headers = []*etree.Element{onBehalfOf(token, u.VO)}
	}
	client := agreement.NewClient(c)
	client.Catalogue = &catalogue
	return client, nil
}

// What a peer answers: an agreement has half a mebibyte at most, and some states; templates are many.
var (
	answers   = xmldoc.Limits{Bytes: 1 << 20, Elements: 20_000, Attributes: 40_000}
	catalogue = xmldoc.Limits{Bytes: 4 << 20, Elements: 100_000, Attributes: 200_000}
)

// callTime bounds one request.
const callTime = 3 * time.Minute

func onBehalfOf(token []byte, vo string) *etree.Element {
	e := etree.NewElement("p:" + onBehalf.Local)
	e.CreateAttr("xmlns:p", onBehalf.Space)
	// Whoever does not know the block would take the domain itself for who asks.
	e.CreateAttr("xmlns:s", soap.V11.Namespace())
	e.CreateAttr("s:mustUnderstand", "1")
	if vo != "" {
		e.CreateAttr("vo", vo)
	}
	e.SetText(string(token))
	return e
}

// URL gives where the gateway makes agreements with peers whose endpoint is at another: beside it.
func URL(peer string) (string, error) {
	u, err := url.Parse(peer)
	if err != nil || u.Host == "" {
		return "", fail.Errorf("door.URL", fail.Invalid, peer, "%s is no address of a gateway", peer)
	}
	u.Path, u.RawPath = path.Join("/", path.Dir(strings.TrimSuffix(u.Path, "/")), "agreement"), ""
	return u.String(), nil
}

// way gives the connections to a peer.
func (d *Door) way(domain string) (http.RoundTripper, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w := d.ways[domain]; w != nil {
		return w, nil
	}
	var w http.RoundTripper
	var err error
	if d.o.Transport != nil {
		w, err = d.o.Transport(domain)
	} else {
		t := &http.Transport{
			MaxResponseHeaderBytes: 64 << 10, MaxIdleConnsPerHost: 4, MaxConnsPerHost: 16, IdleConnTimeout: 2 * time.Minute,
			TLSHandshakeTimeout: 10 * time.Second, ForceAttemptHTTP2: true,
		}
		t.TLSClientConfig, err = d.o.Trust.ClientTLS(domain)
		w = t
	}
	if err != nil {
		return nil, err
	}
	d.ways[domain] = w
	return w, nil
}

// Close ends the connections to peers that nobody uses.
func (d *Door) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for domain, w := range d.ways {
		if t, ok := w.(interface{ CloseIdleConnections() }); ok {
			t.CloseIdleConnections()
		}
		delete(d.ways, domain)
	}
}
