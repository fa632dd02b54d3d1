package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/wssec"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/peers"
	"github.com/portolan-project/portolan/peers/wire"
)

// Signatures says whether messages between gateways are signed, beside the TLS that they go over.
type Signatures string

// The ways.
const (
	// Required: what is sent is signed, and what is not signed is not taken.
	Required Signatures = "required"
	// Offered: what is sent is signed; of what comes, TLS tells whom it is of, or a signature.
	Offered Signatures = "offered"
	// Off: nothing is signed. A signature that comes is checked all the same.
	Off Signatures = "off"
)

// Gateway is one's own domain among others: it shows who it is, and finds out who they are. It is what
// peers asks (peers.Trust), and is safe for concurrent use.
type Gateway struct {
	*Identity
	Trusted *Trust
	// Endpoint is the URL that peers reach this gateway at; a signed message that came without TLS of its
	// sender must be addressed to it.
	Endpoint string
	// Signatures; "" is Required.
	Signatures Signatures

	signer atomic.Pointer[signing]
}

var _ peers.Trust = (*Gateway)(nil)

// signing is the signer of a credential.
type signing struct {
	of *Credential
	by *wssec.Signer
}

// Understands says yes to wsse:Security.
func (g *Gateway) Understands(n xmldoc.Name) bool {
	return n == xmldoc.Name{Space: soap.NSWSSE, Local: "Security"}
}

// Sender finds out whom a request is of: by the certificate of its connection, by its signature, or
// as Signatures asks by both, which must agree.
func (g *Gateway) Sender(_ context.Context, m *soap.Parsed) (peers.Sender, error) {
	var conn *tls.ConnectionState
	if m.HTTP != nil {
		conn = m.HTTP.TLS
	}
	s := peers.Sender{}
	var err error
	if conn != nil {
		if s.Domain, err = g.one(conn.PeerCertificates); err != nil {
			return peers.Sender{}, err
		}
		s.Method = "tls"
	}
	by, err := g.signedBy(m, s.Domain)
	switch {
	case err != nil:
		return peers.Sender{}, err
	case by == "" && conn == nil:
		return peers.Sender{}, fail.Errorf("identity.Sender", fail.Unauthenticated, "", "the request came without TLS and without a signature, so that nobody knows whom it is of")
	case by == "":
		return s, nil
	case conn == nil && m.Addressing.To != g.Endpoint:
		return peers.Sender{}, fail.Errorf("identity.Sender", fail.Denied, by, "the message is addressed to %s, and this is %s", shown(m.Addressing.To), g.Endpoint)
	case conn == nil:
		return peers.Sender{Domain: by, Method: "signature"}, nil
	}
	s.Method = "tls+signature"
	return s, nil
}

// one gives the domain of certificates that speak for one only.
func (g *Gateway) one(chain []*x509.Certificate) (string, error) {
	domains, err := g.Trusted.Domains(chain, g.o.Now())
	if err != nil {
		return "", err
	}
	if len(domains) > 1 {
		return "", fail.Errorf("identity.Sender", fail.Denied, domains[0], "the certificate is trusted for %s at once, so that nobody knows whom a message is of: each domain needs a certificate of its own", strings.Join(domains, " and "))
	}
	return domains[0], nil
}

// signedBy gives the domain that signed a message, with all of it that is heeded; "" for one without
// signature, where that will do. By TLS it is known to be of the domain, unless that is "".
func (g *Gateway) signedBy(m *soap.Parsed, domain string) (string, error) {
	root := m.Document.Root()
	if !wssec.Has(root) {
		if g.Signatures == Required || g.Signatures == "" {
			return "", fail.Errorf("identity.Sender", fail.Unauthenticated, domain, "the message is not signed, and this gateway takes none that is not: have %s sign its messages (signatures: required or offered)", orPeer(domain))
		}
		return "", nil
	}
	by := domain
	signed, err := wssec.Verify(root, g.o.Now(), wssec.Window{}, func(chain []*x509.Certificate) error {
		if domain != "" {
			return g.Trusted.Verify(domain, chain, g.o.Now())
		}
		var err error
		by, err = g.one(chain)
		return err
	})
	if err != nil {
		return "", err
	}
	blocks := []*etree.Element{m.Body}
	if m.Header != nil {
		for _, b := range m.Header.ChildElements() {
			if n := m.Document.Name(b); n.Space == soap.NSWSA || n.Space == wire.NS || n.Space == agreement.NSPortolan {
				blocks = append(blocks, b)
			}
		}
	}
	if i := slices.IndexFunc(blocks, func(b *etree.Element) bool { return !signed.Covers(b) }); i >= 0 {
		return "", fail.Errorf("identity.Sender", fail.Unauthenticated, by, "the signature of the message does not cover %s: Body, addressing and our own headers must be signed", blocks[i].Tag)
	}
	return by, nil
}

func orPeer(domain string) string {
	if domain == "" {
		return "the peer"
	}
	return domain
}

// Answer checks that an answer is of the domain that was asked. Which request it answers is told by the
// connection, or where there is no TLS by what it relates to.
func (g *Gateway) Answer(_ context.Context, domain string, m *soap.Parsed, conn *tls.ConnectionState) error {
	if conn != nil {
		if err := g.Trusted.Verify(domain, conn.PeerCertificates, g.o.Now()); err != nil {
			return err
		}
		_, err := g.signedBy(m, domain)
		return err
	}
	if !wssec.Has(m.Document.Root()) {
		return fail.Errorf("identity.Answer", fail.Unauthenticated, domain, "the answer came without TLS and without a signature, so that nobody knows whom it is of")
	}
	if _, err := g.signedBy(m, domain); err != nil {
		return err
	}
	if m.Addressing.RelatesTo == "" {
		return fail.Errorf("identity.Answer", fail.Unauthenticated, domain, "the answer came without TLS and does not say which message it answers")
	}
	return nil
}

// Signer gives what signs messages; nil where Signatures is Off.
func (g *Gateway) Signer(string) peers.Signer {
	if g.Signatures == Off {
		return nil
	}
	return func(_ context.Context, envelope *etree.Element) error {
		c := g.Current()
		s := g.signer.Load()
		if s == nil || s.of != c {
			by, err := wssec.NewSigner(c.Key, c.Chain, 0)
			if err != nil {
				return err
			}
			s = &signing{c, by}
			g.signer.Store(s)
		}
		return s.by.Sign(envelope, g.o.Now())
	}
}

// ClientTLS gives the settings of connections to a domain; fail.Denied where nothing is trusted for it.
func (g *Gateway) ClientTLS(domain string) (*tls.Config, error) {
	if !g.Trusted.Knows(domain) {
		return nil, fail.Errorf("identity.ClientTLS", fail.Denied, domain, "nothing is trusted for the domain %s: say under trust how it is known, or add it with portolan peers add", domain)
	}
	return g.Identity.ClientTLS(g.Trusted, domain), nil
}

// ServerTLS gives the settings of the listener for peers.
func (g *Gateway) ServerTLS() *tls.Config { return g.Identity.ServerTLS(g.Trusted) }
