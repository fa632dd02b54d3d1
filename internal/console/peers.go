package console

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/gorilla/mux"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/discovery"
	"github.com/portolan-project/portolan/peers/status"
)

const (
	// PeersPath has the domains that this gateway works with: GET lists them, POST adds one.
	PeersPath = "/api/v1/peers"
	// PeerPath is one of them: GET shows it, DELETE takes it away.
	PeerPath = "/api/v1/peers/{domain}"
	// PeerLedgerPath is the favour ledger with one of them.
	PeerLedgerPath = "/api/v1/peers/{domain}/ledger"
	// InspectPath looks at what an endpoint shows of itself: POST, as it has the gateway
	// connect to it.
	InspectPath = "/api/v1/peer-offers"
	// ProposalsPath has the gateways that are found: POST, as it has the gateway look.
	ProposalsPath = "/api/v1/peer-proposals"
)

// Peers is what the API needs of what keeps the sessions with other domains. Each method
// finds who asks in the context (soap.PrincipalFrom) and gives fail.Denied to one who may
// not; AddPeer and RemovePeer need the right to manage. A replica that does not have the
// engine of the domain answers from the store, or gives fail.Unavailable that says which
// one has it.
type Peers interface {
	// Peers lists all, in the order of domains.
	Peers(context.Context) ([]status.Peer, error)
	// Peer gives one; fail.NotFound if it is none.
	Peer(ctx context.Context, domain string) (*status.Peer, error)
	// InspectPeer connects to the URL and gives what it shows. It changes nothing. The
	// URL is checked (discovery.CheckURL); fail.Unavailable is one that can't be reached.
	InspectPeer(ctx context.Context, url string) (*status.Offer, error)
	// AddPeer trusts the key with the fingerprint for the domain and opens a session. It
	// looks at the endpoint again: fail.Conflict is one that shows another key or names other
	// domains. When it returns, trust and peer are in the store and in use; the session may
	// still be opening. The same again changes nothing.
	AddPeer(ctx context.Context, url, domain, fingerprint string) (*status.Peer, error)
	// RemovePeer ends the relation: the session is drained, or with now closed at once,
	// and the key is not trusted any more when that is done. fail.Conflict is a peer that
	// the configuration names.
	RemovePeer(ctx context.Context, domain string, now bool) (*status.Peer, error)
	// PeerLedger gives the ledger with a peer, with at most so many of the newest
	// statements of each account: status.LedgerOf. fail.NotFound if nothing is known of it.
	PeerLedger(ctx context.Context, domain string, most int) (*status.Ledger, error)
}

// Finder looks for gateways that could become peers: discovery.Finder.
type Finder interface {
	Find(context.Context, discovery.Query) (*discovery.Found, error)
}

// PeerList answers GET.
type PeerList struct {
	Peers []status.Peer `json:"peers"`
}

// InspectPeer is what POST takes there.
type InspectPeer struct {
	URL string `json:"url"`
}

// AddPeer is what POST takes.
type AddPeer struct {
	URL         string `json:"url"`
	Domain      string `json:"domain"`
	Fingerprint string `json:"fingerprint"` // that somebody compared
}

// Discover is what POST takes there.
type Discover struct {
	LAN  bool     `json:"lan,omitempty"`
	DNS  []string `json:"dns,omitempty"`  // domains that are asked
	Wait float64  `json:"wait,omitempty"` // seconds for all of it
}

// keeper gives what keeps the peers.
func (a *api) keeper() (Peers, error) {
	if a.options.Peers == nil {
		return nil, fail.Errorf("console", fail.Unsupported, "", "this gateway has no peers: give it a domain and a peer section in its configuration, and start it with --config")
	}
	return a.options.Peers, nil
}

func (a *api) peers(r *http.Request) (any, error) {
	k, err := a.keeper()
	if err != nil {
		return nil, err
	}
	all, err := k.Peers(r.Context())
	if err != nil {
		return nil, err
	}
	return PeerList{append([]status.Peer{}, all...)}, nil
}

// domainOf gives the domain that a path names.
func domainOf(r *http.Request) (string, error) {
	d := mux.Vars(r)["domain"]
	return d, discovery.CheckDomain(d)
}

func (a *api) peer(r *http.Request) (any, error) {
	k, err := a.keeper()
	if err != nil {
		return nil, err
	}
	d, err := domainOf(r)
	if err != nil {
		return nil, err
	}
	return k.Peer(r.Context(), d)
}

func (a *api) inspectPeer(r *http.Request) (any, error) {
	k, err := a.keeper()
	if err != nil {
		return nil, err
	}
	var q InspectPeer
	if err := decode(r, &q, `url, such as {"url": "https://gw.example.org/peer"}`); err != nil {
		return nil, err
	}
	if err := discovery.CheckURL(q.URL); err != nil {
		return nil, err
	}
	return k.InspectPeer(r.Context(), q.URL)
}

func (a *api) addPeer(r *http.Request) (any, error) {
	k, err := a.keeper()
	if err != nil {
		return nil, err
	}
	var q AddPeer
	if err := decode(r, &q, "url, domain and fingerprint"); err != nil {
		return nil, err
	}
	if err := discovery.CheckURL(q.URL); err != nil {
		return nil, err
	}
	if err := discovery.CheckDomain(q.Domain); err != nil {
		return nil, err
	}
	if err := discovery.CheckFingerprint(q.Fingerprint); err != nil {
		return nil, err
	}
	return k.AddPeer(r.Context(), q.URL, q.Domain, q.Fingerprint)
}

func (a *api) removePeer(r *http.Request) (any, error) {
	k, err := a.keeper()
	if err != nil {
		return nil, err
	}
	d, err := domainOf(r)
	if err != nil {
		return nil, err
	}
	now := false
	if s := r.URL.Query().Get("now"); s != "" {
		if now, err = strconv.ParseBool(s); err != nil {
			return nil, fail.Errorf("console", fail.Invalid, "", "now must be true or false")
		}
	}
	return k.RemovePeer(r.Context(), d, now)
}

func (a *api) peerLedger(r *http.Request) (any, error) {
	k, err := a.keeper()
	if err != nil {
		return nil, err
	}
	d, err := domainOf(r)
	if err != nil {
		return nil, err
	}
	most := status.UsualStatements
	if s := r.URL.Query().Get("most"); s != "" {
		if most, err = strconv.Atoi(s); err != nil || most < 1 || most > status.MaxStatements {
			return nil, fail.Errorf("console", fail.Invalid, "", "most must be a number from 1 to %d", status.MaxStatements)
		}
	}
	return k.PeerLedger(r.Context(), d, most)
}

func (a *api) discover(r *http.Request) (any, error) {
	if a.options.Finder == nil {
		return nil, fail.Errorf("console", fail.Unsupported, "", "this gateway looks for no peers: give it a domain and a peer section in its configuration, and start it with --config")
	}
	var d Discover
	if err := decode(r, &d, "lan, dns and wait"); err != nil {
		return nil, err
	}
	if d.Wait < 0 || d.Wait > discovery.MaxWait.Seconds() {
		return nil, fail.Errorf("console", fail.Invalid, "", "wait must be at most %g seconds", discovery.MaxWait.Seconds())
	}
	q := discovery.Query{LAN: d.LAN, DNS: d.DNS, Wait: time.Duration(d.Wait * float64(time.Second))}
	if err := q.Validate(); err != nil {
		return nil, err
	}
	return a.options.Finder.Find(r.Context(), q)
}
