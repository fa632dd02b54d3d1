package peers

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/google/uuid"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/wire"
)

// Options are those of a Table. Domain, Trust and Handler are required.
type Options struct {
	// Domain that this gateway speaks for.
	Domain string
	// Software names it and its version, for people.
	Software string
	// Endpoint is the URL at which peers reach its Server; "" for a gateway that is
	// outbound-only.
	Endpoint string
	// Instance changes whenever the gateway lost what it knew of its sessions, as by a
	// restart; "" makes one up.
	Instance string
	Trust    Trust
	Handler  Handler
	// Transport makes what carries requests to a peer; nil is a pool of connections with
	// the settings that Trust gives.
	Transport func(p Peer) (http.RoundTripper, error)
	// MaxPeers bounds the peers; default 20 000.
	MaxPeers int
	Log      *slog.Logger // nil discards
}

// Table is all sessions of one gateway: one with each peer at most. It is safe for
// concurrent use.
type Table struct {
	o Options

	mu      sync.RWMutex
	entries map[string]*entry // by domain
}

// New makes a Table without peers. It does nothing before Run. The error is fail.Invalid.
func New(o Options) (*Table, error) {
	if o.Domain == "" || o.Trust == nil || o.Handler == nil {
		return nil, fail.Errorf("peers.New", fail.Invalid, o.Domain, "a table of peers needs a domain, trust and a handler")
	}
	if o.Endpoint != "" {
		if err := checkURL(o.Endpoint); err != nil {
			return nil, fail.Errorf("peers.New", fail.Invalid, o.Endpoint, "the endpoint %q is no absolute http or https URL", o.Endpoint).Because(err)
		}
	}
	if o.Instance == "" {
		o.Instance = "urn:uuid:" + uuid.NewString()
	}
	if o.MaxPeers == 0 {
		o.MaxPeers = 20_000
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Table{o: o, entries: map[string]*entry{}}, nil
}

// entry is one peer.
type entry struct{ peer Peer }

// Run keeps sessions with all peers until ctx is over. Then they are left as they are, as
// in a crash, and nothing that the table started goes on when Run returns: see Close for a
// kinder end. It may run once.
func (t *Table) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// Close drains all sessions and takes no others: what was put is done with by the other
// side first, until ctx is over; then they are closed as they stand, and ctx.Err is
// returned. Run is to be ended after it.
func (t *Table) Close(ctx context.Context) error { return nil }

// Add adds a peer. The error is fail.Conflict where the domain is there, fail.Invalid for
// what can't be a peer, fail.Exhausted where there are too many.
func (t *Table) Add(p Peer) error {
	p = p.clone()
	if err := t.o.validate(p); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.entries[p.Domain] != nil:
		return fail.Errorf("peers.Add", fail.Conflict, p.Domain, "%s is a peer already: change it, or remove it first", p.Domain)
	case len(t.entries) >= t.o.MaxPeers:
		return fail.Errorf("peers.Add", fail.Exhausted, p.Domain, "there are %d peers, which is all that there may be: remove one first", len(t.entries))
	}
	t.entries[p.Domain] = &entry{peer: p}
	return nil
}

// Change changes a peer. A session that was agreed on under other wishes is drained and
// opened anew; where only its URL, or the detail that it is shown, changed, it stays. The
// error is fail.NotFound or fail.Invalid.
func (t *Table) Change(p Peer) error {
	p = p.clone()
	if err := t.o.validate(p); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entries[p.Domain]
	if e == nil {
		return noPeer("peers.Change", p.Domain)
	}
	e.peer = p
	return nil
}

// Remove removes a peer: its session is drained for half a minute and closed as withdrawn,
// and no other is taken. The error is fail.NotFound.
func (t *Table) Remove(domain string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.entries[domain] == nil {
		return noPeer("peers.Remove", domain)
	}
	delete(t.entries, domain)
	return nil
}

func noPeer(op, domain string) error {
	return fail.Errorf(op, fail.NotFound, domain, "%s is no peer here: add it first", domain)
}

// Put gives items to be sent to a peer: all are taken, or none. They go in order, once,
// while the session lasts; with the session those go that were not acknowledged. The items
// are not to be changed afterwards. The error is fail.NotFound without such a peer,
// fail.Unavailable without a session, fail.NotAccepting where it is being drained,
// fail.Exhausted without room (Handler.Free tells when there is some), fail.Unsupported
// where an item belongs to a feature that was not agreed on, fail.Invalid for what is no item.
func (t *Table) Put(domain string, items ...wire.Message) error {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if t.entries[domain] == nil {
		return noPeer("peers.Put", domain)
	}
	return fail.Errorf("peers.Put", fail.Unavailable, domain, "there is no session with %s", domain)
}

// Sessions tells how it stands with each peer, in the order of their domains.
func (t *Table) Sessions() []Status {
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := make([]Status, 0, len(t.entries))
	for _, e := range t.entries {
		out = append(out, Status{Peer: e.peer.clone()})
	}
	slices.SortFunc(out, func(a, b Status) int { return strings.Compare(a.Peer.Domain, b.Peer.Domain) })
	return out
}

// Session tells how it stands with one peer. The error is fail.NotFound.
func (t *Table) Session(domain string) (Status, error) {
	for _, s := range t.Sessions() {
		if s.Peer.Domain == domain {
			return s, nil
		}
	}
	return Status{}, noPeer("peers.Session", domain)
}

// Retry asks for a session with a peer at once, where there is none and it has a URL. The
// error is fail.NotFound.
func (t *Table) Retry(domain string) error {
	if _, err := t.Session(domain); err != nil {
		return err
	}
	return nil
}
