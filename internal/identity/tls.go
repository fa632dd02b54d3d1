package identity

import (
	"crypto/tls"
	"slices"

	"github.com/portolan-project/portolan/internal/fail"
)

// ServerTLS gives the settings of a listener for peers: it shows the domain's certificate and asks for the
// other side's, which must speak for a domain that is trusted. The changes of both take effect with the
// next handshake; Domains of the connection's certificates tells who it is, and at each request whether
// it is still trusted.
func (i *Identity) ServerTLS(t *Trust) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return &i.Current().tls, nil
		},
		ClientAuth: tls.RequireAnyClientCert, // which VerifyConnection looks at, in resumed sessions too
		VerifyConnection: func(s tls.ConnectionState) error {
			_, err := t.Domains(s.PeerCertificates, i.o.Now())
			return err
		},
		NextProtos: []string{"h2", "http/1.1"},
	}
}

// ClientTLS gives the settings for requests to a domain. What counts is that the other side speaks for the
// domain, and not the host that it is reached at.
func (i *Identity) ClientTLS(t *Trust, domain string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection verifies, by domain and not by host
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return &i.Current().tls, nil
		},
		VerifyConnection: func(s tls.ConnectionState) error {
			return t.Verify(domain, s.PeerCertificates, i.o.Now())
		},
	}
}

// From gives the domains that the other side of a connection speaks for. No certificate is
// fail.Unauthenticated, one that is not trusted (any more) fail.Denied.
func (i *Identity) From(t *Trust, s *tls.ConnectionState) ([]string, error) {
	if s == nil {
		return nil, fail.Errorf("identity.From", fail.Unauthenticated, "", "the request came without TLS, so that nobody knows who sent it")
	}
	domains, err := t.Domains(s.PeerCertificates, i.o.Now())
	return slices.Clone(domains), err
}
