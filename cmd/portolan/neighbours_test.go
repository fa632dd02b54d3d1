package main

import (
	"context"
	"net"
	"net/http/httptest"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/portolan-project/portolan/internal/console"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/discovery"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/ledger"
	"github.com/portolan-project/portolan/peers/status"
	"github.com/portolan-project/portolan/peers/wire"
)

// startNeighbours serves the API of a gateway that has one peer in its configuration and
// knows of another, and has nothing but them, so that what is shown of them is known.
func startNeighbours(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: neighbours")
	}
	n := &neighbours{of: map[string]*status.Peer{}}
	at := time.Now().Add(-90 * time.Second)
	n.of["ibm.example"] = &status.Peer{
		Domain: "ibm.example", URL: "https://gw.ibm.example/peer", Source: status.Configured, State: status.Suspect, Reason: "nothing was heard \x1b[31m for 1m30s",
		Since: &at, Role: wire.Parent, Jobs: status.Jobs{Given: status.Count{Live: 3, Total: 10}, Taken: status.Count{Live: 0, Total: 2}}, Ledger: status.Balance{Got: 7200_000, Surplus: 7200_000},
		Session: &status.Session{
			ID: "urn:uuid:1", Version: "1", Software: "portolan/7", Features: []string{"digests", "output"}, Ours: true, Outbound: true, Provides: true, Shows: wire.Full, Shown: wire.Simple,
			VOs: []string{"bio"}, Beat: 30, Lost: 300, Lease: 600, Heard: &at, Lag: 1.5, Behind: 2, Owed: 1, Clock: &status.Clock{Ahead: -0.25, Within: 0.01},
			Out: status.Traffic{Messages: 12, Bytes: 34567, Items: 89}, In: status.Traffic{Messages: 11, Bytes: 204, Items: 3},
		},
	}
	api := console.New(nil, console.Options{Peers: n, Finder: &discovery.Finder{
		Static: func() []discovery.Proposal {
			return []discovery.Proposal{
				{Domain: "fiu.example", URL: "https://gw.fiu.example/peer", Version: "1", Fingerprint: itsPrint},
				{Domain: "IBM.example", URL: "https://gw2.ibm.example/peer"},
				{Domain: "wrong one", URL: "https://x/peer"},
			}
		},
		DNS: &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
			return nil, fail.Errorf("x", fail.Unavailable, "", "there is no network")
		}},
	}})
	s := httptest.NewServer(api)
	ts.Defer(s.Close)
	ts.Setenv("PORTOLAN_ENDPOINT", s.URL+"/bes")
}

const itsPrint = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"

// neighbours keeps peers in memory.
type neighbours struct {
	mu sync.Mutex
	of map[string]*status.Peer
}

func (n *neighbours) Peers(context.Context) ([]status.Peer, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []status.Peer
	for _, d := range []string{"fiu.example", "ibm.example", "two.example"} {
		if p := n.of[d]; p != nil {
			out = append(out, *p)
		}
	}
	return out, nil
}

func (n *neighbours) Peer(_ context.Context, d string) (*status.Peer, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.of[d] == nil {
		return nil, fail.Errorf("x", fail.NotFound, d, "%s is no peer here: 'portolan peers' lists those that are", d)
	}
	p := *n.of[d]
	return &p, nil
}

func (n *neighbours) InspectPeer(_ context.Context, url string) (*status.Offer, error) {
	o := &status.Offer{URL: url, Domain: "fiu.example", Fingerprint: itsPrint, Subject: "CN=fiu.example", Issuer: "CN=FIU CA", NotAfter: time.Now().Add(time.Hour)}
	switch url {
	case "https://gw.fiu.example/peer":
	case "https://two.example/peer":
		o.Domain, o.Domains = "", []string{"one.example", "two.example"}
	case "https://none.example/peer":
		o.Domain = ""
	case "https://old.example/peer":
		o.Problem = "its certificate was good until yesterday: its administrator renews it"
	default:
		return nil, fail.Errorf("x", fail.Unavailable, url, "%s can't be reached", url)
	}
	return o, nil
}

func (n *neighbours) AddPeer(_ context.Context, url, domain, print string) (*status.Peer, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	p := &status.Peer{Domain: domain, URL: url, Fingerprint: print, Source: status.Added, State: status.Opening, Reason: "it was just added"}
	n.of[domain] = p
	return p, nil
}

func (n *neighbours) RemovePeer(ctx context.Context, d string, now bool) (*status.Peer, error) {
	p, err := n.Peer(ctx, d)
	if err != nil {
		return nil, err
	}
	if p.Source == status.Configured {
		return nil, fail.Errorf("x", fail.Conflict, d, "the configuration names %s: take it out there", d)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if p.State, p.Reason = status.Draining, "an administrator ended the relation"; now {
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
		c := handover.Charge{Key: handover.Key{Origin: d, ID: "job7"}, Provider: "bsc.example", Consumer: d, Token: handover.Token("").Next(i + 1), Outcome: handover.Finished, Used: 1000}
		if _, err := b.Earn(c, time.Now()); err != nil {
			return nil, err
		}
	}
	if _, err := b.Withdraw(ledger.Pair{Provider: "bsc.example", Consumer: d}, 2, time.Now()); err != nil {
		return nil, err
	}
	out := status.LedgerOf(b, "bsc.example", d, most)
	return &out, nil
}
