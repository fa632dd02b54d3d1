package identity_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/identity"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/peers"
	"github.com/portolan-project/portolan/peers/wire"
)

// gate makes a gateway that trusts the anchors.
func gate(t testing.TB, i *identity.Identity, s identity.Signatures, anchors ...identity.Anchor) *identity.Gateway {
	t.Helper()
	return &identity.Gateway{Identity: i, Trusted: trust(t, anchors...), Signatures: s, Endpoint: "https://gw.bsc.example/peer"}
}

// asVerifier is what peers makes of a Trust.
type asVerifier struct {
	trust peers.Trust
	seen  chan peers.Sender
}

func (v asVerifier) Understands(n xmldoc.Name) bool { return v.trust.Understands(n) }

func (v asVerifier) Verify(ctx context.Context, m *soap.Parsed) (*soap.Verified, error) {
	s, err := v.trust.Sender(ctx, m)
	if err != nil {
		return nil, err
	}
	v.seen <- s
	return &soap.Verified{Parsed: m, Principal: soap.Principal{Name: s.Domain, Method: s.Method}}, nil
}

// endpoint serves Heartbeat for the gateway, with or without TLS.
func endpoint(t *testing.T, g *identity.Gateway, withTLS bool) (string, chan peers.Sender) {
	t.Helper()
	v := asVerifier{g, make(chan peers.Sender, 16)}
	e := &soap.Endpoint{
		Operations: soap.Operations(soap.Operation{
			Name: xmldoc.Name{Space: wire.NS, Local: "Heartbeat"}, Action: wire.NS + "/x", ReplyAction: wire.NS + "/y",
			Handle: func(context.Context, *soap.Verified) (*etree.Element, error) {
				return wire.Encode(&wire.HeartbeatAnswer{Frame: wire.Frame{Session: "s", Number: 1, Clock: noon}})
			},
		}),
		Verifier:    v,
		Signer:      func(to soap.Principal) func(context.Context, *etree.Element) error { return g.Signer(to.Name) },
		Understands: func(n xmldoc.Name) bool { return n.Space == wire.NS },
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: e, ReadHeaderTimeout: 30 * time.Second, ErrorLog: quiet, TLSConfig: g.ServerTLS()}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if withTLS {
			_ = server.ServeTLS(l, "", "")
		} else {
			_ = server.Serve(l)
		}
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	scheme := map[bool]string{true: "https://", false: "http://"}[withTLS]
	return scheme + l.Addr().String() + "/peer", v.seen
}

// signs is how peers.Client has a request signed.
func signs(g *identity.Gateway) func() func(context.Context, *etree.Element) error {
	return func() func(context.Context, *etree.Element) error { return g.Signer("") }
}

// call makes a request as peers.Client does.
func call(t *testing.T, g *identity.Gateway, url, domain string, edit func(c *soap.Client)) error {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	if strings.HasPrefix(url, "https") {
		var err error
		if tr.TLSClientConfig, err = g.ClientTLS(domain); err != nil {
			return err
		}
	}
	c := &soap.Client{
		URL: url, Addressing: true, Transport: tr, Retries: -1, Timeout: 10 * time.Second, Signer: signs(g),
		Check: func(ctx context.Context, m *soap.Parsed, r *http.Response) error {
			return g.Answer(ctx, domain, m, r.TLS)
		},
	}
	if edit != nil {
		edit(c)
	}
	body, err := wire.Encode(&wire.Heartbeat{Frame: wire.Frame{Session: "s", Number: 1, Clock: noon}})
	if err != nil {
		t.Fatal(err)
	}
	trace, err := wire.Encode(&wire.Trace{Parent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"})
	if err != nil {
		t.Fatal(err)
	}
	c.Headers = append(c.Headers, trace)
	_, err = c.Call(t.Context(), wire.NS+"/x", body)
	return err
}

func TestMessages(t *testing.T) {
	clk := &clock{time.Now()}
	bsc, fiu, ibm := open(t, "bsc.example", clk), open(t, "fiu.example", clk), open(t, "ibm.example", clk)
	slow := open(t, "fiu.example", &clock{clk.at.Add(-time.Hour)})
	both := identity.Anchor{Domain: "alias.example", Name: "fiu.example", Pins: []identity.Pin{fiu.Current().Pin()}}
	for _, c := range []struct {
		name           string
		tls            bool
		server, client identity.Signatures
		of             *identity.Identity
		anchors        []identity.Anchor // of the server
		edit           func(*soap.Client)
		want           string // the error; "" is none
		method         string
	}{
		{"TLS and signatures", true, "", "", fiu, []identity.Anchor{byKey(fiu)}, nil, "", "tls+signature"},
		{"TLS only", true, identity.Off, identity.Off, fiu, []identity.Anchor{byKey(fiu)}, nil, "", "tls"},
		{"offered and not given", true, identity.Offered, identity.Off, fiu, []identity.Anchor{byKey(fiu)}, nil, "", "tls"},
		{"required and not given", true, identity.Required, identity.Off, fiu, []identity.Anchor{byKey(fiu)}, nil, "not signed", ""},
		{"the answer is not signed", true, identity.Off, identity.Required, fiu, []identity.Anchor{byKey(fiu)}, nil, "not signed", "tls+signature"},
		{"signed by somebody else", true, "", "", fiu, []identity.Anchor{byKey(fiu), byKey(ibm)}, func(c *soap.Client) {
			c.Signer = signs(&identity.Gateway{Identity: ibm, Trusted: trust(t)})
		}, "not of fiu.example", ""},
		{"a certificate for two domains", true, "", "", fiu, []identity.Anchor{byKey(fiu), both}, nil, "a certificate of its own", ""},
		{"a clock that is wrong", true, "", "", fiu, []identity.Anchor{byKey(fiu), byKey(slow)}, func(c *soap.Client) {
			c.Signer = signs(&identity.Gateway{Identity: slow, Trusted: trust(t)})
		}, "one of the two clocks", ""},
		{"a block that is not signed", true, "", "", fiu, []identity.Anchor{byKey(fiu)}, func(c *soap.Client) {
			sign := c.Signer()
			c.Signer = func() func(context.Context, *etree.Element) error {
				return func(ctx context.Context, e *etree.Element) error {
					err := sign(ctx, e)
					x := etree.NewElement("wsa:From")
					x.CreateAttr("xmlns:wsa", soap.NSWSA)
					x.CreateElement("wsa:Address").SetText("http://x/")
					e.SelectElement("Header").AddChild(x)
					return err
				}
			}
		}, "does not cover From", ""},
		{"no TLS, signed and addressed", false, "", "", fiu, []identity.Anchor{byKey(fiu)}, nil, "", "signature"},
		{"no TLS, no signature", false, identity.Off, identity.Off, fiu, []identity.Anchor{byKey(fiu)}, nil, "nobody knows", ""},
		{"no TLS, not trusted", false, "", "", fiu, []identity.Anchor{byKey(ibm)}, nil, "is trusted here", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := gate(t, bsc, c.server, c.anchors...)
			url, seen := endpoint(t, server, c.tls)
			server.Endpoint = url
			err := call(t, gate(t, c.of, c.client, byKey(bsc)), url, "bsc.example", c.edit)
			switch {
			case c.want == "" && err != nil:
				t.Fatal(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Fatalf("%v; want %q", err, c.want)
			}
			select {
			case s := <-seen:
				if s.Method != c.method || s.Domain != "fiu.example" {
					t.Errorf("%+v", s)
				}
			default:
				if c.method != "" {
					t.Error("the server saw nobody")
				}
			}
		})
	}
	t.Run("no TLS, for another gateway", func(t *testing.T) {
		url, _ := endpoint(t, gate(t, bsc, "", byKey(fiu)), false) // its endpoint is another URL
		if err := call(t, gate(t, fiu, "", byKey(bsc)), url, "bsc.example", nil); err == nil || !strings.Contains(err.Error(), "is addressed to") {
			t.Error(err)
		}
	})
	t.Run("the answer of another domain", func(t *testing.T) {
		server := gate(t, ibm, "", byKey(fiu))
		url, _ := endpoint(t, server, false)
		server.Endpoint = url
		if err := call(t, gate(t, fiu, "", byKey(bsc), byKey(ibm)), url, "bsc.example", nil); err == nil || !strings.Contains(err.Error(), "not of bsc.example") {
			t.Error(err)
		}
	})
	t.Run("nothing is trusted for the domain", func(t *testing.T) {
		if _, err := gate(t, fiu, "").ClientTLS("bsc.example"); !fail.Is(err, fail.Denied) {
			t.Error(err)
		}
	})
	t.Run("an answer without TLS and without signature", func(t *testing.T) {
		d, err := xmldoc.ReadBytes([]byte(`<s:Envelope xmlns:s="`+soap.NS11+`"><s:Body/></s:Envelope>`), xmldoc.Limits{})
		if err != nil {
			t.Fatal(err)
		}
		m := &soap.Parsed{Document: d, Body: d.Root().ChildElements()[0]}
		g := gate(t, fiu, identity.Off, byKey(bsc))
		if err := g.Answer(t.Context(), "bsc.example", m, nil); !fail.Is(err, fail.Unauthenticated) {
			t.Error(err)
		}
		if err := g.Answer(t.Context(), "bsc.example", m, &tls.ConnectionState{}); !fail.Is(err, fail.Unauthenticated) {
			t.Error(err)
		}
	})
}
