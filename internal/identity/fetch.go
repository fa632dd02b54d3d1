package identity

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"slices"
	"syscall"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

// Offer is what the endpoint at a URL shows of itself before anybody trusts it. Who answers has the key;
// nothing else of it is proven, so that somebody must compare the fingerprint.
type Offer struct {
	URL   string
	Chain []*x509.Certificate // the endpoint's own first
	Pin   Pin                 // of its key
}

// Domains gives the domains that the certificate names; one, of a certificate that a gateway made.
func (o *Offer) Domains() []string {
	var list []string
	for _, n := range o.Chain[0].DNSNames {
		if BadDomain(n) == "" && !slices.Contains(list, n) {
			list = append(list, n)
		}
	}
	return list
}

// fetchTime bounds a look at an endpoint.
const fetchTime = 10 * time.Second

// Fetch connects to the host of an https URL, takes what it shows in the handshake, and sends
// nothing. It trusts nobody; the address may be any, so that whoever lets strangers choose it must
// see to where it leads. dial may be nil. fail.Unavailable is an endpoint that is not reached or
// speaks no TLS 1.3; fail.Invalid a URL that is none.
func Fetch(ctx context.Context, to string, dial func(ctx context.Context, network, address string) (net.Conn, error)) (*Offer, error) {
	u, err := url.Parse(to)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return nil, fail.Errorf("identity.Fetch", fail.Invalid, to, "%s is not the address of a gateway: write one like https://gateway.example.org:9443/peer", shown(to)).Because(err)
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	unreached := func(err error) error {
		return fail.Errorf("identity.Fetch", fail.Unavailable, to, "%s could not be reached: %s", u.Host, unreachedBy(err)).Because(err)
	}
	conn, err := dial(ctx, "tcp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443")))
	if err != nil {
		return nil, unreached(err)
	}
	defer conn.Close()
	offer := &Offer{URL: to}
	// In TLS 1.3 the client has proof that the server has the key before it must show anything itself.
	c := tls.Client(conn, &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: u.Hostname(),
		InsecureSkipVerify: true, //nolint:gosec // it is what this is for: nobody is trusted, and nothing is sent
		VerifyConnection: func(s tls.ConnectionState) error {
			offer.Chain = s.PeerCertificates
			return nil
		},
	})
	// The handshake may still fail when the server sees that it is shown no certificate.
	if err := c.HandshakeContext(ctx); err != nil && len(offer.Chain) == 0 {
		return nil, unreached(err)
	}
	if len(offer.Chain) > maxChain {
		return nil, fail.Errorf("identity.Fetch", fail.Invalid, to, "%s shows more than %d certificates", u.Host, maxChain)
	}
	offer.Pin = PinOf(offer.Chain[0])
	return offer, nil
}

// unreachedBy says in public words what a transport error was.
func unreachedBy(err error) string {
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return "its host is not known"
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return "it does not speak TLS"
	}
	if a, ok := errors.AsType[tls.AlertError](err); ok {
		return "it ended the TLS handshake: " + a.Error()
	}
	timeout, ok := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "the connection was refused"
	case errors.Is(err, context.Canceled):
		return "it was given up"
	case errors.Is(err, context.DeadlineExceeded), ok && timeout.Timeout():
		return "it took too long"
	}
	return "the connection broke"
}
