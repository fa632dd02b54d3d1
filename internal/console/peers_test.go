package console_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/console"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/discovery"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/ledger"
	"github.com/portolan-project/portolan/peers/status"
	"github.com/portolan-project/portolan/peers/wire"
)

const (
	fingerprint = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"
	fiu         = "https://gw.fiu.example/peer"
)

// neighbours keeps peers in memory.
type neighbours struct{ of map[string]*status.Peer }

func newNeighbours() *neighbours {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	return &neighbours{map[string]*status.Peer{"ibm.example": {
		Domain: "ibm.example", URL: "https://gw.ibm.example/peer", Source: status.Configured, State: status.Suspect, Reason: "nothing was heard for 1m30s",
		Since: &at, Role: wire.Parent, Jobs: status.Jobs{Given: status.Count{Live: 3, Total: 10}}, Ledger: status.Balance{Got: 7200_000, Surplus: 7200_000},
		Session: &status.Session{
			ID: "s1", Version: "1", Software: "portolan/7", Features: []string{"digests"}, Ours: true, Provides: true, Shows: wire.Full, Shown: wire.Simple,
			VOs: []string{"bio"}, Beat: 30, Lost: 300, Lease: 600, Heard: &at, Lag: 1.5, Behind: 2, Owed: 1, Clock: &status.Clock{Ahead: -0.25, Within: 0.1},
			Out: status.Traffic{Messages: 12, Bytes: 34567, Items: 89}, In: status.Traffic{Messages: 11, Bytes: 2048, Items: 3},
		},
	}}}
}

func (n *neighbours) Peers(context.Context) ([]status.Peer, error) {
	var out []status.Peer
	for _, d := range []string{"fiu.example", "ibm.example"} {
		if p := n.of[d]; p != nil {
			out = append(out, *p)
		}
	}
	return out, nil
}

func (n *neighbours) Peer(_ context.Context, d string) (*status.Peer, error) {
	if n.of[d] == nil {
		return nil, fail.Errorf("x", fail.NotFound, d, "%s is no peer here", d)
	}
	return n.of[d], nil
}

func (n *neighbours) InspectPeer(_ context.Context, url string) (*status.Offer, error) {
	if url != fiu {
		return nil, fail.Errorf("x", fail.Unavailable, url, "%s can't be reached", url)
	}
	_, known := n.of["fiu.example"]
	return &status.Offer{URL: url, Domain: "fiu.example", Fingerprint: fingerprint, Subject: "CN=fiu.example", Issuer: "CN=FIU CA", NotAfter: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), Trusted: known}, nil
}

func (n *neighbours) AddPeer(_ context.Context, url, domain, print string) (*status.Peer, error) {
	if url != fiu || domain != "fiu.example" || print != fingerprint {
		return nil, fail.Errorf("x", fail.Conflict, domain, "%s shows another key", url)
	}
	n.of[domain] = &status.Peer{Domain: domain, URL: url, Fingerprint: print, Source: status.Added, State: status.Opening, Reason: "it was just added"}
	return n.of[domain], nil
}

func (n *neighbours) RemovePeer(ctx context.Context, d string, now bool) (*status.Peer, error) {
	p, err := n.Peer(ctx, d)
	if err != nil {
		return nil, err
	}
	if p.Source == status.Configured {
		return nil, fail.Errorf("x", fail.Conflict, d, "the configuration names %s: take it out there", d)
	}
	p.State = status.Draining
	if now {
		p.State = status.Closed
		delete(n.of, d)
	}
	return p, nil
}

func (n *neighbours) PeerLedger(ctx context.Context, d string, most int) (*status.Ledger, error) {
	if _, err := n.Peer(ctx, d); err != nil {
		return nil, err
	}
	b := ledger.New("bsc.example")
	for i := range uint32(3) {
		c := handover.Charge{Key: handover.Key{Origin: d, ID: "j"}, Provider: "bsc.example", Consumer: d, Token: handover.Token("").Next(i + 1), Outcome: handover.Finished, Used: 1000}
		if _, err := b.Earn(c, time.Unix(1, 0)); err != nil {
			return nil, err
		}
	}
	if err := b.Sign(ledger.Pair{Provider: "bsc.example", Consumer: d}, 3, []byte{1, 2}); err != nil {
		return nil, err
	}
	out := status.LedgerOf(b, "bsc.example", d, most)
	return &out, nil
}

func finder() *discovery.Finder {
	return &discovery.Finder{
		Own:    "bsc.example",
		Static: func() []discovery.Proposal { return []discovery.Proposal{{Domain: "fiu.example", URL: fiu}} },
		LAN:    browser{},
	}
}

type browser struct{}

func (browser) Browse(context.Context) (*discovery.Found, error) {
	return &discovery.Found{Proposals: []discovery.Proposal{{Domain: "fiu.example", URL: fiu, Fingerprint: fingerprint}}}, fail.Errorf("x", fail.Unavailable, "", "one interface is down")
}

func TestPeersAreRefused(t *testing.T) {
	none := serve(gateway{}, console.Options{})
	h := serve(gateway{}, console.Options{Peers: newNeighbours(), Finder: finder()})
	at := func(path, domain string) string { return strings.ReplaceAll(path, "{domain}", domain) }
	for _, c := range []struct {
		h            http.Handler
		method, path string
		body         string
		code         int
		answer       string
	}{
		{none, http.MethodGet, console.PeersPath, "", 400, "a peer section"},
		{none, http.MethodGet, at(console.PeerPath, "a"), "", 400, "a peer section"},
		{none, http.MethodDelete, at(console.PeerPath, "a"), "", 400, "a peer section"},
		{none, http.MethodGet, at(console.PeerLedgerPath, "a"), "", 400, "a peer section"},
		{none, http.MethodPost, console.PeersPath, "{}", 400, "a peer section"},
		{none, http.MethodPost, console.InspectPath, "{}", 400, "a peer section"},
		{none, http.MethodPost, console.ProposalsPath, "{}", 400, "a peer section"},
		{h, http.MethodGet, at(console.PeerPath, "bsc.example"), "", 404, "no peer here"},
		{h, http.MethodGet, at(console.PeerPath, "a%20b"), "", 400, "without blanks"},
		{h, http.MethodDelete, at(console.PeerPath, "a%20b"), "", 400, "without blanks"},
		{h, http.MethodGet, at(console.PeerLedgerPath, "a%20b"), "", 400, "without blanks"},
		{h, http.MethodDelete, at(console.PeerPath, "ibm.example"), "", 409, "take it out there"},
		{h, http.MethodDelete, at(console.PeerPath, "ibm.example") + "?now=maybe", "", 400, "true or false"},
		{h, http.MethodGet, at(console.PeerLedgerPath, "ibm.example") + "?most=1001", "", 400, "1 to 1000"},
		{h, http.MethodPost, console.InspectPath, `{"uri":"x"}`, 400, "such as"},
		{h, http.MethodPost, console.InspectPath, `{"url":"gw.fiu.example"}`, 400, "https://gw.example.org/peer"},
		{h, http.MethodPost, console.InspectPath, `{"url":"https://u:p@gw.fiu.example/peer"}`, 400, "user name"},
		{h, http.MethodPost, console.InspectPath, `{"url":"https://other.example/peer"}`, 503, "can't be reached"},
		{h, http.MethodPost, console.PeersPath, `{"url":"` + fiu + `","domain":"fiu.example"}`, 400, "43 characters"},
		{h, http.MethodPost, console.PeersPath, `{"url":"` + fiu + `","domain":"fiu/x","fingerprint":"` + fingerprint + `"}`, 400, "slashes"},
		{h, http.MethodPost, console.PeersPath, `{"url":"fiu","domain":"fiu.example","fingerprint":"` + fingerprint + `"}`, 400, "https://"},
		{h, http.MethodPost, console.PeersPath, `{"url":"` + fiu + `","domain":"ibm.example","fingerprint":"` + fingerprint + `"}`, 409, "another key"},
		{h, http.MethodPost, console.PeersPath, `{"trust":true}`, 400, "url, domain and fingerprint"},
		{h, http.MethodPost, console.ProposalsPath, `{"wait":31}`, 400, "at most 30"},
		{h, http.MethodPost, console.ProposalsPath, `{"dns":["a b"]}`, 400, "letters, digits"},
		{h, http.MethodPost, console.ProposalsPath, `{"dns":["example.org"]}`, 400, "asks no DNS"},
		{h, http.MethodPost, console.ProposalsPath, `{"lan":1}`, 400, "lan, dns and wait"},
	} {
		if code, body, _ := send(t, c.h, c.method, c.path, c.body); code != c.code || !strings.Contains(body, c.answer) {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, code, body)
		}
	}
}
