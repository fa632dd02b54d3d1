package e2e

import (
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portolan-project/portolan/conformance"
	"github.com/portolan-project/portolan/internal/console"
	"github.com/portolan-project/portolan/internal/identity"
)

// kitGroups are the checks of the peer profile in groups, each for a domain of its own, so that nobody
// opens sessions too often, and what waits does so at the same time.
func kitGroups() [][]string {
	own := map[string]string{"PEER-PHS-": "lost", "PEER-BSY-": "busy", "PEER-DLN-1": "lapse", "PEER-DLN-2": "renew", "PEER-LED-": "ledger", "PEER-OPN-": "open"}
	groups := map[string][]string{}
	var names []string
	for i, c := range conformance.List(conformance.Peer) {
		name := fmt.Sprintf("some-%d", i/8)
		for prefix, group := range own {
			if strings.HasPrefix(c.ID, prefix) {
				name = group
			}
		}
		if name == "open" || name == "ledger" {
			name = fmt.Sprintf("%s-%d", name, i%3)
		}
		if groups[name] == nil {
			names = append(names, name)
		}
		groups[name] = append(groups[name], c.ID)
	}
	var out [][]string
	for _, name := range names {
		out = append(out, groups[name])
	}
	return out
}

// kit is a domain that judges a gateway.
type kit struct {
	domain string
	of     *identity.Gateway
}

func newKit(t *testing.T, domain string) *kit {
	t.Helper()
	dir := t.TempDir()
	id, err := identity.Open(identity.Options{Domain: domain, Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	return &kit{domain: domain, of: &identity.Gateway{Identity: id}}
}

// TestPeerConformance: a gateway as it ships passes the whole profile of the peer protocol, over mutual
// TLS, with signed messages where they are required, and without where they are off.
func TestPeerConformance(t *testing.T) {
	for _, signatures := range []identity.Signatures{identity.Required, identity.Off} {
		t.Run(string(signatures), func(t *testing.T) {
			t.Parallel()
			groups := kitGroups()
			for i := range groups { // there is one second domain, which has one session
				groups[i] = slices.DeleteFunc(groups[i], func(id string) bool { return strings.HasPrefix(id, "PEER-TWO") })
			}
			groups = append(slices.DeleteFunc(groups, func(g []string) bool { return len(g) == 0 }), []string{"PEER-TWO"})
			if signatures == identity.Off { // what has to do with whom a message is of, and a little of all others
				groups = [][]string{{"PEER-TRU-1", "PEER-TRU-2", "PEER-TRU-3", "PEER-TRU-4", "PEER-MSG", "PEER-FLT"}, {"PEER-LED-2", "PEER-LED-3", "PEER-JOB-12", "PEER-JOB-24", "PEER-RSM-2"}}
			}
			judgePeer(t, signatures, groups)
		})
	}
}

func judgePeer(t *testing.T, signatures identity.Signatures, groups [][]string) {
	const host = "host.example"
	other := newKit(t, "other.example")
	var kits []*kit
	var trust, members strings.Builder
	for i := range groups {
		k := newKit(t, fmt.Sprintf("kit-%d.example", i))
		kits = append(kits, k)
		fmt.Fprintf(&members, "    - {domain: %s, shows: full, beat: 1s, lost: 4s, terms: {lease: 10m, skew: 1s, stopWithin: 1s, resend: 500ms, keep: 1h}}\n", k.domain)
	}
	for _, k := range append(kits, other) {
		fmt.Fprintf(&trust, "    %s: {key: %q}\n", k.domain, k.of.Current().Pin())
	}
	dir := t.TempDir()
	account, err := localAccount(dir)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(dir, "gateway.yaml")
	text := fmt.Sprintf(`domain: %s
sites:
  - {name: hosts, type: shell, settings: {slots: 64}}
peer:
  listen: 127.0.0.1:0
  signatures: %q
  trust:
%s  peers:
%s    - {domain: %s}
  mapping:
    - {account: %s}
`, host, signatures, trust.String(), members.String(), other.domain, account)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	g := startOn(t, filepath.Join(dir, "data"), "--config", config)
	g.untilModel(t, "its site", func(m *console.Resources) bool { return slotsIn(m, "", "hosts") > 0 })
	pin, err := identity.ParsePin(g.fingerprint)
	if err != nil {
		t.Fatal(err)
	}
	known, err := identity.NewTrust(identity.Anchor{Domain: host, Pins: []identity.Pin{pin}})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range append(kits, other) {
		k.of.Trusted, k.of.Signatures = known, signatures
	}

	var mu sync.Mutex
	var wg sync.WaitGroup
	room := make(chan struct{}, 6)
	total, passed := 0, 0
	for i, k := range kits {
		o := conformance.Options{
			Profile: conformance.Peer, Endpoint: g.peer, HTTP: k.client(t, host), Guest: k.guest(t, host, other), Filter: groups[i],
			Timeout: 30 * time.Second, Settle: time.Minute,
		}
		wg.Go(func() {
			if !strings.HasPrefix(groups[i][0], "PEER-PHS") && !strings.HasPrefix(groups[i][0], "PEER-DLN") { // those wait, and do nothing meanwhile
				room <- struct{}{}
				defer func() { <-room }()
			}
			rep, err := conformance.Run(t.Context(), o)
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for _, c := range rep.Checks {
				switch {
				case c.Result == conformance.Pass:
					passed++
					if c.Took > time.Second {
						t.Logf("%s took %v", c.ID, c.Took)
					}
				case c.Result == conformance.Skip && c.ID == "PEER-FRM-7": // the credit is more than fits into a frame
				default:
					t.Errorf("%s %s: %s (%s)", c.Result, c.ID, c.Saw, c.Clause)
				}
			}
			total += rep.Summary.Total
		})
	}
	wg.Wait()
	if all := len(conformance.List(conformance.Peer)); signatures == identity.Required && total != all || passed == 0 {
		t.Errorf("%d checks of %d were made, and %d passed", total, all, passed)
	}
	t.Logf("%d checks, %d passed", total, passed)
	if t.Failed() {
		t.Logf("the log of the gateway:\n%s", g.log.tail())
	}
}

// localAccount gives one as which a gateway below the directory can run jobs of peers: root's can run
// them as others, which must get there, and any other's as itself alone.
func localAccount(dir string) (string, error) {
	if os.Geteuid() == 0 {
		return "nobody", os.Chmod(filepath.Dir(dir), 0o711)
	}
	u, err := user.Current()
	if err != nil {
		return "", err
	}
	return u.Username, nil
}

// client shows the kit's certificate.
func (k *kit) client(t *testing.T, host string) *http.Client {
	config, err := k.of.ClientTLS(host)
	if err != nil {
		t.Fatal(err)
	}
	return clientWith(t, config)
}

func clientWith(t *testing.T, config *tls.Config) *http.Client {
	tr := &http.Transport{TLSClientConfig: config, DisableCompression: true, ExpectContinueTimeout: time.Second}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// guest is who the kit is.
func (k *kit) guest(t *testing.T, host string, other *kit) conformance.Guest {
	out := conformance.Guest{
		Domain: k.domain, Signature: k.of.Sign, Signed: k.of.Verify, Other: other.client(t, host), OtherDomain: other.domain,
		Nobody: clientWith(t, &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}),
		Vouch: func(audience, job, document string) ([]byte, error) {
			now := time.Now().Truncate(time.Second)
			return k.of.Vouch(identity.Claims{
				Issuer: k.domain, Audience: audience, Origin: k.domain, Job: job, User: "ann",
				Document: sha256.Sum256([]byte(document)), NotBefore: now.Add(-time.Minute), NotAfter: now.Add(time.Hour),
			})
		},
	}
	if s := k.of.Signer(host); s != nil {
		out.Sign = s
	}
	if s := other.of.Signer(host); s != nil {
		out.OtherSign = s
	}
	return out
}
