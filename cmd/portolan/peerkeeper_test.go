package main

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sync/errgroup"

	"github.com/portolan-project/portolan/internal/identity"
	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/peers"
	"github.com/portolan-project/portolan/peers/members"
)

// strange looks at a gateway's listener for peers as somebody whom it does not trust.
func strange(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: strange URL DOMAIN")
	}
	o, err := identity.Fetch(context.Background(), args[0], nil)
	ts.Check(err)
	if d := o.Domains(); len(d) != 1 || d[0] != args[1] {
		ts.Fatalf("the certificate is of %v", d)
	}
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	defer c.CloseIdleConnections()
	if resp, err := c.Get(args[0]); err == nil {
		resp.Body.Close()
		ts.Fatalf("it answers a stranger")
	}
}

// keeperOf makes a keeper of a configuration.
func keeperOf(t *testing.T, data, text string) *peerKeeper {
	t.Helper()
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	c, err := parseConfig(file, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	k, err := openPeers(t.Context(), serveOptions{data: data, config: file}, c.Peer, c.Domain, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.close)
	return k
}

const bscConfig = `
domain: bsc.example
sites: [{name: a, type: shell}]
peer:
  listen: 127.0.0.1:0
`

const fiuConfig = `
domain: fiu.example
sites: [{name: a, type: shell}]
peer:
  mapping: [{account: guest}]
`

// ask makes a request of a peer as its table would; the error is what is wrong before the gateway looks
// at what it says.
func ask(t *testing.T, k *peerKeeper, to, domain string) (int, error) {
	t.Helper()
	c, err := k.gateway.ClientTLS(domain)
	if err != nil {
		return 0, err
	}
	tr := &http.Transport{TLSClientConfig: c, DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, to+"?wsdl", nil)
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

// TestPeersThatAreAdded: two gateways that know nothing of each other trust each other once a file is in
// either's directory, while they run, and no more when it is gone.
func TestPeersThatAreAdded(t *testing.T) {
	bscData, fiuData := t.TempDir(), t.TempDir()
	bsc, fiu := keeperOf(t, bscData, bscConfig), keeperOf(t, fiuData, fiuConfig)
	if fiu.url != "" || !strings.HasPrefix(bsc.url, "https://127.0.0.1:") || bsc.gateway.Endpoint != bsc.url {
		t.Errorf("%q %q", fiu.url, bsc.url)
	}
	ctx, cancel := context.WithCancel(t.Context())
	group, ctx := errgroup.WithContext(ctx)
	stop := servePeers(ctx, group, bsc, peers.NewServer(peers.ServerOptions{Trust: bsc.gateway}), nil)
	told := make(chan members.Settings, 16)
	bsc.follows(func(s members.Settings) { told <- s })
	if s := <-told; len(s.Members) != 0 || s.Hops != 3 || s.Routing.Overload != 5*time.Minute {
		t.Errorf("%+v", s)
	}
	group.Go(func() error { return bsc.follow(ctx) })
	if _, err := ask(t, fiu, bsc.url, "bsc.example"); err == nil || !strings.Contains(err.Error(), "portolan peers add") {
		t.Errorf("fiu trusts nobody yet: %v", err)
	}
	offer, err := identity.Fetch(t.Context(), bsc.url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := fiu.add(offer.Pinned("bsc.example", "ada", time.Now())); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(t, fiu, bsc.url, "bsc.example"); err == nil {
		t.Error("bsc takes somebody whom it does not know")
	}
	// Another program adds fiu.
	if err := (identity.Store{Dir: filepath.Join(bscData, "trust")}).Put(identity.Added{Domain: "fiu.example", Key: fiu.gateway.Current().Pin().String(), Role: "child", At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	for s := range told {
		if len(s.Members) == 1 && s.Members[0].Domain == "fiu.example" && s.Members[0].Added && s.Members[0].Role == "child" && s.Members[0].Provides {
			break
		}
	}
	if status, err := ask(t, fiu, bsc.url, "bsc.example"); err != nil || status != http.StatusOK {
		t.Errorf("%d %v", status, err)
	}
	if err := bsc.remove("fiu.example"); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(t, fiu, bsc.url, "bsc.example"); err == nil {
		t.Error("fiu is still trusted")
	}
	// A file that is wrong harms nobody.
	if err := os.WriteFile(filepath.Join(bscData, "trust", "ibm.example.yaml"), []byte("domain: ibm.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := bsc.add(identity.Added{Domain: "fiu.example", Key: fiu.gateway.Current().Pin().String(), At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	if status, err := ask(t, fiu, bsc.url, "bsc.example"); err != nil || status != http.StatusOK {
		t.Errorf("%d %v", status, err)
	}
	stop()
	cancel()
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

// TestConfiguredPeers: what the file says goes before what was added, and follows it while the gateway runs.
func TestConfiguredPeers(t *testing.T) {
	data := t.TempDir()
	pin := func(b byte) string {
		var p identity.Pin
		p[0] = b
		return p.String()
	}
	if err := (identity.Store{Dir: filepath.Join(data, "trust")}).Put(identity.Added{Domain: "fiu.example", URL: "https://added/peer", Key: pin(1), At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	section := func(rest string) *peerConfig {
		c, err := parseConfig("x.yaml", []byte(bscConfig+rest))
		if err != nil {
			t.Fatal(err)
		}
		return c.Peer
	}
	k := keeperOf(t, data, bscConfig)
	var last members.Settings
	k.follows(func(s members.Settings) { last = s })
	if len(last.Members) != 1 || last.Members[0].URL != "https://added/peer" {
		t.Errorf("%+v", last)
	}
	use, err := k.prepare(section(`  trust: {fiu.example: {keys: ["` + pin(2) + `", "` + pin(3) + `"]}, far.example: {key: "` + pin(4) + `"}}
  peers:
    - {domain: fiu.example, url: "https://configured/peer", shows: full, sites: [a], vos: [bio], provides: false, beat: 10s, terms: {lease: 1h}, admission: {mostDebt: 2.5, reserve: 0.5}}
  routing: {mostOwed: 100, hops: 5, overload: 20m}
  mapping: [{user: ada, account: ada}]
`))
	if err != nil {
		t.Fatal(err)
	}
	if last.Members[0].URL != "https://added/peer" {
		t.Error("it holds before it is used")
	}
	use()
	m := last.Members
	if len(m) != 1 || m[0].URL != "https://configured/peer" || m[0].Added || m[0].Provides || !m[0].Consumes || m[0].Shows != "full" || m[0].Beat != 10*time.Second || m[0].Terms.Lease != time.Hour ||
		!slices.Equal(m[0].Export.Sites, []string{"a"}) || m[0].Admission.MostDebt != 9_000_000 || m[0].Admission.Reserve != 0.5 || m[0].From != "gateway.yaml:8" {
		t.Errorf("%+v", m)
	}
	if last.Hops != 5 || last.Routing.MostOwed != 360_000_000 || last.Routing.Overload != 20*time.Minute {
		t.Errorf("%+v", last)
	}
	anchors := k.gateway.Trusted.Anchors()
	if len(anchors) != 2 || anchors[1].Domain != "fiu.example" || len(anchors[1].Pins) != 2 {
		t.Errorf("%+v", anchors)
	}
	for _, bad := range []string{"  url: https://x/peer\n", "  signatures: off\n"} {
		if _, err := k.prepare(section(bad)); err == nil || !strings.Contains(err.Error(), "can't change") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if got := k.gateway.Trusted.Anchors(); len(got) != 2 {
		t.Errorf("a section that is refused changes %+v", got)
	}
}

// TestPeerExample: what the page on operation shows is a configuration.
func TestPeerExample(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(testenv.Root(t), "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(page), "## Peers\n")
	_, rest, begun := strings.Cut(rest, "```yaml\n")
	example, _, closed := strings.Cut(rest, "```")
	if !ok || !begun || !closed {
		t.Fatal("the page has no example of peers")
	}
	// The file of a CA is somebody else's.
	i, err := identity.Open(identity.Options{Domain: "ibm.example", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, identity.EncodeCertificates(i.CA()), 0o600); err != nil {
		t.Fatal(err)
	}
	example = strings.ReplaceAll(example, "/etc/portolan/ibm-ca.pem", ca)
	c, err := parseConfig("example.yaml", []byte(example))
	if err != nil {
		t.Fatal(err)
	}
	if c.Peer == nil || len(c.Peer.Peers) < 2 || len(c.Peer.Mapping) < 3 {
		t.Errorf("%+v", c.Peer)
	}
}
