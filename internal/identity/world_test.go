package identity_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/portolan-project/portolan/internal/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// noon is a moment that tests count from.
var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// clock is one that tests set.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

// open makes an identity in a directory of its own.
func open(t testing.TB, domain string, c *clock) *identity.Identity {
	t.Helper()
	i, err := identity.Open(identity.Options{Domain: domain, Dir: filepath.Join(t.TempDir(), "identity"), Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func trust(t testing.TB, anchors ...identity.Anchor) *identity.Trust {
	t.Helper()
	tr, err := identity.NewTrust(anchors...)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// byKey and byCA give the two kinds of anchors of an identity.
func byKey(i *identity.Identity) identity.Anchor {
	return identity.Anchor{Domain: i.Domain(), Pins: []identity.Pin{i.Current().Pin()}}
}

func byCA(i *identity.Identity) identity.Anchor {
	return identity.Anchor{Domain: i.Domain(), CAs: []*x509.Certificate{i.CA()}}
}

// issuer is a CA that tests have make what no gateway would.
type issuer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newIssuer(t testing.TB, edit func(*x509.Certificate)) *issuer {
	t.Helper()
	is := &issuer{}
	is.cert, is.key = is.make(t, func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage, c.ExtKeyUsage = true, true, x509.KeyUsageCertSign, nil
		c.NotBefore, c.NotAfter = noon.Add(-1000*time.Hour), noon.Add(10000*time.Hour)
		c.Subject.CommonName = "a CA"
		if edit != nil {
			edit(c)
		}
	}, nil)
	return is
}

// make issues a certificate, with a key of its own unless one is given.
func (is *issuer) make(t testing.TB, edit func(*x509.Certificate), key crypto.Signer) (*x509.Certificate, crypto.Signer) {
	t.Helper()
	n, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: n, Subject: pkix.Name{CommonName: "x"}, NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	edit(c)
	if key == nil {
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	parent, by := is.cert, is.key
	if parent == nil {
		parent, by = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// openFiles makes an identity of a certificate that was issued elsewhere.
func openFiles(t testing.TB, domain string, c *clock, key crypto.Signer, chain ...*x509.Certificate) (*identity.Identity, error) {
	t.Helper()
	dir := t.TempDir()
	o := identity.Options{Domain: domain, Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem"), Now: c.now}
	writeFiles(t, o, key, chain...)
	return identity.Open(o)
}

func writeFiles(t testing.TB, o identity.Options, key crypto.Signer, chain ...*x509.Certificate) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.Cert, identity.EncodeCertificates(chain...), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// served is a gateway's listener for peers.
type served struct {
	url  string
	seen chan []string // the domains that a request was of
}

func serve(t testing.TB, i *identity.Identity, tr *identity.Trust) *served {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &served{url: "https://" + l.Addr().String() + "/peer", seen: make(chan []string, 16)}
	server := &http.Server{
		TLSConfig: i.ServerTLS(tr), ReadHeaderTimeout: 30 * time.Second, ErrorLog: nil,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			domains, err := i.From(tr, r.TLS)
			if err != nil {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			s.seen <- domains
			_, _ = io.WriteString(w, "ok")
		}),
	}
	server.ErrorLog = quiet
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.ServeTLS(l, "", "")
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return s
}

// get makes a request with the settings.
func get(t testing.TB, url string, c *tls.Config) (int, error) {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: c, DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, nil
}
