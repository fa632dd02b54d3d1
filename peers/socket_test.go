package peers_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/peers"
	"github.com/portolan-project/portolan/peers/peertest"
	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
)

// site is a gateway behind a real socket.
type site struct {
	domain string
	table  *peers.Table
	server *peers.Server
	http   *httptest.Server
	seen   *peertest.Recorder
}

func newSite(t *testing.T, domain string, trust peers.Trust, conf *tls.Config) *site {
	t.Helper()
	s := &site{domain: domain, seen: new(peertest.Recorder), server: peers.NewServer(peers.ServerOptions{Trust: trust})}
	s.http = httptest.NewUnstartedServer(s.server)
	if conf != nil {
		s.http.TLS = conf
		s.http.StartTLS()
	} else {
		s.http.Start()
	}
	t.Cleanup(s.http.Close)
	var err error
	s.table, err = peers.New(peers.Options{Domain: domain, Endpoint: s.http.URL + "/peer", Trust: trust, Handler: s.seen})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background()) // it outlives the test's own
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.table.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	s.server.Serve(s.table)
	t.Cleanup(func() { cancel(); wg.Wait() })
	return s
}

// until waits for something that a recorder would tell.
func until(t *testing.T, r *peertest.Recorder, what string, ok func() bool) {
	t.Helper()
	late := time.After(2 * time.Minute)
	for {
		changed := r.Changed()
		if ok() {
			return
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("after 2 min it is not so that %s; %v", what, r.Events())
		}
	}
}

func isAlive(s *site, domain string) func() bool {
	return func() bool {
		st, err := s.table.Session(domain)
		return err == nil && st.Phase == session.Alive
	}
}

// Over real sockets, through a proxy that ends connections, breaks answers off and is slow,
// items come once and in order.
func TestSockets(t *testing.T) {
	keys := peertest.NewKeys(domA, domB)
	a, b := newSite(t, domA, keys.Trust(domA), nil), newSite(t, domB, keys.Trust(domB), nil)
	toB, toA := newProxy(t, strings.TrimPrefix(b.http.URL, "http://")), newProxy(t, strings.TrimPrefix(a.http.URL, "http://"))
	ofB, ofA := pair(false)
	ofB.URL, ofA.URL = toB.url(), toA.url()
	ofB.Beat, ofA.Beat = time.Second, time.Second
	must(t, b.table.Add(ofA))
	must(t, a.table.Add(ofB))
	until(t, a.seen, "the session is alive", isAlive(a, domB))
	until(t, b.seen, "the session is alive", isAlive(b, domA))
	n := 0
	send := func(k int) {
		for range k {
			must(t, a.table.Put(domB, query(domA, n)))
			must(t, b.table.Put(domA, query(domB, n)))
			n++
		}
	}
	arrived := func() {
		t.Helper()
		for s, from := range map[*site]string{a: domB, b: domA} {
			until(t, s.seen, "all items came", func() bool { return len(s.seen.Items(from)) >= n })
			for i, m := range s.seen.Items(from) {
				if q := m.(*wire.Query); q.ID != query(from, i).ID {
					t.Fatalf("item %d is %s", i, q.ID)
				}
			}
		}
	}
	send(20)
	arrived()
	for _, p := range []*proxy{toA, toB} { // while items are on their way
		send(10)
		p.set(func() { p.most = 700 })
		send(10)
		p.set(func() { p.cut = true })
		send(10)
		p.set(func() { p.cut, p.most = false, 0 })
		arrived()
	}
	toA.set(func() { toA.delay = 50 * time.Millisecond })
	toB.set(func() { toB.delay = 50 * time.Millisecond })
	send(20)
	arrived()
	if s, err := a.table.Session(domB); err != nil || s.Sessions != 1 || s.In.Bytes == 0 || s.Out.Bytes == 0 {
		t.Errorf("%+v", s)
	}
	// Bulk is compressed once the other side was seen to take that.
	before, err := a.table.Session(domB)
	must(t, err)
	var bulk []wire.Message
	for range 50 {
		bulk = append(bulk, &wire.Route{
			About: wire.About{Origin: domA, ID: "x", Token: "1"}, Path: []string{domA}, RecallBy: time.Now(), Document: strings.Repeat("<a>the same again</a>", 100),
		})
	}
	b.seen.Hold = true
	must(t, a.table.Put(domB, bulk...))
	until(t, b.seen, "the bulk came", func() bool { return len(b.seen.Items(domA)) >= n+50 })
	after, err := a.table.Session(domB)
	must(t, err)
	if d := after.Out.Bytes - before.Out.Bytes; d > 20_000 {
		t.Errorf("100 kB that repeat took %d bytes", d)
	}
	b.seen.Release()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	must(t, a.table.Close(ctx))
}

// byTLS trusts by the certificate alone: the name in it is the domain.
type byTLS struct {
	domain string
	own    tls.Certificate
	roots  *x509.CertPool
}

func (byTLS) Understands(xmldoc.Name) bool { return false }

func (byTLS) Sender(_ context.Context, m *soap.Parsed) (peers.Sender, error) {
	if m.HTTP.TLS == nil || len(m.HTTP.TLS.VerifiedChains) == 0 {
		return peers.Sender{}, fail.Errorf("test", fail.Unauthenticated, "", "there is no certificate")
	}
	return peers.Sender{Domain: m.HTTP.TLS.PeerCertificates[0].Subject.CommonName, Method: "tls"}, nil
}

func (byTLS) Answer(_ context.Context, domain string, _ *soap.Parsed, conn *tls.ConnectionState) error {
	if conn == nil || conn.PeerCertificates[0].Subject.CommonName != domain {
		return fail.Errorf("test", fail.Denied, domain, "the answer is of somebody else")
	}
	return nil
}

func (byTLS) Signer(string) peers.Signer { return nil }

func (b byTLS) ClientTLS(string) (*tls.Config, error) {
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{b.own}, RootCAs: b.roots}, nil
}

func certificate(t *testing.T, domain string) (tls.Certificate, *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: domain}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{domain, "localhost"}, IPAddresses: nil, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	must(t, err)
	parsed, err := x509.ParseCertificate(der)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, parsed
}

func TestMutualTLS(t *testing.T) {
	certA, rootA := certificate(t, domA)
	certB, rootB := certificate(t, domB)
	certC, _ := certificate(t, "c.example")
	roots := x509.NewCertPool()
	roots.AddCert(rootA)
	roots.AddCert(rootB)
	conf := func(c tls.Certificate) *tls.Config {
		return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{c}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: roots}
	}
	a := newSite(t, domA, byTLS{domA, certA, roots}, conf(certA))
	b := newSite(t, domB, byTLS{domB, certB, roots}, conf(certB))
	url := func(s *site) string { return strings.Replace(s.http.URL, "127.0.0.1", "localhost", 1) + "/peer" }
	ofB, ofA := pair(true)
	ofB.URL, ofB.OutboundOnly = url(b), true
	must(t, b.table.Add(ofA))
	must(t, a.table.Add(ofB))
	until(t, a.seen, "the session is alive", isAlive(a, domB))
	must(t, b.table.Put(domA, query(domB, 0)))
	must(t, a.table.Put(domB, query(domA, 0)))
	until(t, a.seen, "b's item came", func() bool { return len(a.seen.Items(domB)) == 1 })
	until(t, b.seen, "a's item came", func() bool { return len(b.seen.Items(domA)) == 1 })

	beat := &wire.Heartbeat{Frame: wire.Frame{Session: "x", Number: 1, Clock: time.Now()}}
	none := &peers.Client{URL: url(b), Domain: domB, Trust: byTLS{domA, tls.Certificate{}, roots}}
	_, err := none.Call(t.Context(), beat)
	kind(t, err, fail.Denied) // NotTrusted
	none.CloseIdle()
	other := &peers.Client{URL: url(b), Domain: domA, Trust: byTLS{domA, certA, roots}}
	_, err = other.Call(t.Context(), beat)
	kind(t, err, fail.Denied) // the certificate is b's
	other.CloseIdle()
	stranger := &peers.Client{URL: url(b), Domain: domB, Trust: byTLS{"c.example", certC, roots}}
	_, err = stranger.Call(t.Context(), beat)
	if err == nil {
		t.Error("a certificate of nobody was taken")
	}
	stranger.CloseIdle()
	wrong := &peers.Client{URL: url(b), Domain: domB, Trust: byTLS{domA, certA, x509.NewCertPool()}}
	_, err = wrong.Call(t.Context(), beat)
	kind(t, err, fail.Unavailable)
	wrong.CloseIdle()
}
