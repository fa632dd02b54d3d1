// Package gateway ties together all that a gateway is among others: the sessions, the engine
// of jobs, what is shown, the favour ledger, and the peers as sites of the broker.
package gateway

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/identity"
	"github.com/portolan-project/portolan/internal/peering"
	"github.com/portolan-project/portolan/internal/peering/favours"
	"github.com/portolan-project/portolan/internal/peering/showing"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/peers"
	"github.com/portolan-project/portolan/peers/members"
	"github.com/portolan-project/portolan/peers/routing"
	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
)

// Options are those of a Gateway; all but Replica, Software, Endpoint, Door, Taken,
// Transport and Log are required.
type Options struct {
	Domain   string
	Replica  string
	Software string
	Endpoint string // at which peers reach Door; "" is outbound-only
	Store    peering.Store
	Model    showing.Model
	Broker   *broker.Broker
	Trust    peers.Trust
	Signer   favours.Signer
	Users    *identity.Users
	// Door answers peers; nil for a gateway that only calls.
	Door *peers.Server
	// Taken reports whether an own site has a name; nil: none has.
	Taken func(name string) bool
	// Transport is that of peers.Options; nil carries requests over HTTP.
	Transport func(p peers.Peer) (http.RoundTripper, error)
	Log       *slog.Logger
}

// Gateway is one domain's gateway among others. It is safe for concurrent use.
type Gateway struct {
	o       Options
	Engine  *peering.Engine
	Showing *showing.Showing
	Favours *favours.Favours
	table   atomic.Pointer[peers.Table] // nil while another replica talks to the peers
	wake    chan struct{}

	mu       sync.Mutex
	settings members.Settings
	stands   map[string]string   // peers with a session; the others' reasons
	vos      map[string][]string // that peers vouch for, as they said when the session began
	sites    map[string]string   // names by domain, as the broker has them
}

// New makes one; Follow tells it of the peers, and Run makes it work.
func New(o Options) (*Gateway, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	g := &Gateway{o: o, wake: make(chan struct{}, 1), stands: map[string]string{}, vos: map[string][]string{}, sites: map[string]string{}}
	var err error
	if g.Showing, err = showing.New(showing.Options{Domain: o.Domain, Model: o.Model, Link: link{g}, Quotas: g.quotas, Log: o.Log}); err != nil {
		return nil, err
	}
	if g.Favours, err = favours.New(favours.Options{Domain: o.Domain, Store: o.Store, Signer: o.Signer, Link: link{g}, Log: o.Log}); err != nil {
		return nil, err
	}
	g.Engine, err = peering.New(peering.Options{
		Domain: o.Domain, Replica: o.Replica, Store: o.Store, Link: link{g}, Jobs: peering.OfBroker(o.Broker), Gate: g, Voucher: o.Users,
		Book: g.Favours, View: g.Showing, Recount: g.Showing.Recount, Serve: g.serve, Hops: g.hops, Log: o.Log,
	})
	return g, err
}

// link is the table of the term.
type link struct{ g *Gateway }

func (l link) Put(domain string, items ...wire.Message) error {
	if t := l.g.table.Load(); t != nil {
		return t.Put(domain, items...)
	}
	return fail.Errorf("gateway.Put", fail.Unavailable, domain, "another replica of this gateway talks to the peers at present")
}

// Table gives the sessions; nil while another replica has them.
func (g *Gateway) Table() *peers.Table { return g.table.Load() }

func (g *Gateway) hops() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.settings.Hops
}

// Run works until ctx ends.
func (g *Gateway) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return g.Engine.Run(ctx) })
	group.Go(func() error { return g.tell(ctx) })
	return group.Wait()
}

// drainTime is how long sessions have to say what is left when the gateway stops.
const drainTime = 2 * time.Second

// serve keeps the sessions while this replica is the engine.
func (g *Gateway) serve(ctx context.Context, sess store.Session) error {
	parts := []peering.Part{resources{g.Showing}, accounts{g.Favours}, watcher{g}}
	t, err := peers.New(peers.Options{
		Domain: g.o.Domain, Software: g.o.Software, Endpoint: g.o.Endpoint, Trust: g.o.Trust, Transport: g.o.Transport, Log: g.o.Log,
		Handler: &peering.Handler{Engine: g.Engine, Parts: parts, Context: ctx},
	})
	if err != nil {
		return err
	}
	g.Favours.Begin(sess)
	g.Showing.Begin(sess)
	// Sessions outlast the term by as long as it takes to say that they end.
	sessions, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	group, gctx := errgroup.WithContext(ctx)
	running := make(chan error, 1)
	go func() { running <- t.Run(sessions) }()
	g.mu.Lock()
	g.table.Store(t)
	for _, m := range g.settings.Members {
		g.join(t, m)
	}
	g.mu.Unlock()
	if g.o.Door != nil {
		g.o.Door.Serve(t)
	}
	group.Go(func() error { return g.Showing.Run(gctx) })
	group.Go(func() error { return g.Favours.Run(gctx) })
	err = group.Wait()
	late, cancel := context.WithTimeout(sessions, drainTime)
	_ = t.Close(late) // those that take longer see it by the silence
	cancel()
	g.table.CompareAndSwap(t, nil)
	if g.o.Door != nil {
		g.o.Door.Serve(nil)
	}
	end()
	return errors.Join(err, <-running)
}

// join adds a member to the sessions.
func (g *Gateway) join(t *peers.Table, m members.Member) {
	if err := t.Add(m.Peer); err != nil {
		g.o.Log.Error("a peer can't be one", "peer", m.Domain, "cause", err)
	}
}

// Follow tells of the peers as they are from now on.
func (g *Gateway) Follow(s members.Settings) {
	g.mu.Lock()
	was := map[string]members.Member{}
	for _, m := range g.settings.Members {
		was[m.Domain] = m
	}
	g.settings = s
	t := g.table.Load()
	to := map[string]showing.To{}
	for _, m := range s.Members {
		to[m.Domain] = showing.To{Exporting: m.Export, Role: routing.Role(m.Role), Every: m.Every}
		old, known := was[m.Domain]
		delete(was, m.Domain)
		switch {
		case t == nil:
		case !known:
			g.join(t, m)
		default:
			if err := t.Change(m.Peer); err != nil {
				g.o.Log.Error("what is said of a peer can't be used", "peer", m.Domain, "cause", err, "before", old.From)
			}
		}
	}
	for domain := range was {
		delete(g.stands, domain)
		delete(g.vos, domain)
		if t != nil {
			if err := t.Remove(domain); err != nil {
				g.o.Log.Warn("a peer could not be removed", "peer", domain, "cause", err)
			}
		}
	}
	g.mu.Unlock()
	g.Showing.SetPeers(to)
	g.nudge()
}

func (g *Gateway) nudge() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// tellEvery is how often the broker is told of the peers though no session changed: the
// ledger's balances go into it.
const tellEvery = 10 * time.Second

// tell keeps the broker's picture of the peers, and its sites.
func (g *Gateway) tell(ctx context.Context) error {
	tick := time.NewTicker(tellEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-g.wake:
		case <-tick.C:
		}
		g.Introduce()
	}
}

// Introduce has the broker know the peers of which Follow told, and have them as sites. It is to
// be called before the broker begins, and not beside Run: a gateway that starts anew would
// find, until then, that no site can ever run what only a peer can.
func (g *Gateway) Introduce() {
	g.mu.Lock()
	settings, stands, before := g.settings, maps.Clone(g.stands), maps.Clone(g.sites)
	g.mu.Unlock()
	p := &broker.Peering{Own: g.o.Domain, Policy: settings.Routing, Hops: settings.Hops, Peers: map[string]broker.Standing{}}
	names := map[string]string{}
	for _, m := range settings.Members {
		if !m.Consumes {
			continue
		}
		away, known := stands[m.Domain]
		if !known {
			away = "there was no session with it yet"
		}
		p.Peers[m.Domain] = broker.Standing{Role: routing.Role(m.Role), Away: away, Balance: g.Favours.Balance(m.Domain)}
		name := m.Domain
		if g.o.Taken != nil && g.o.Taken(name) {
			name = "peer-" + name
		}
		names[m.Domain] = name
	}
	for domain, name := range names {
		if before[domain] == name {
			continue
		}
		err := g.o.Broker.SetSite(broker.Change{Name: name, Open: func() (adapters.Adapter, error) { return g.Engine.Site(domain), nil }})
		if err != nil {
			g.o.Log.Error("a peer can't be a site", "peer", domain, "cause", err)
			continue
		}
		g.mu.Lock()
		g.sites[domain] = name
		g.mu.Unlock()
	}
	for domain, name := range before {
		if names[domain] == name {
			continue
		}
		if err := g.o.Broker.DrainSite(name); err != nil && !fail.Is(err, fail.NotFound) {
			g.o.Log.Warn("a peer is a site still", "peer", domain, "cause", err)
			continue
		}
		g.mu.Lock()
		if g.sites[domain] == name {
			delete(g.sites, domain)
		}
		g.mu.Unlock()
	}
	if err := g.o.Broker.SetPeers(p); err != nil {
		g.o.Log.Error("the routing policy can't be used; no peer is given jobs", "cause", err)
	}
}

// Admit implements peering.Gate.
func (g *Gateway) Admit(_ context.Context, from string, r *wire.Route, here int) (peering.Admitted, error) {
	refuse := func(kind fail.Kind, why string) (peering.Admitted, error) {
		return peering.Admitted{}, fail.Errorf("gateway.Admit", kind, from, "%s", why)
	}
	g.mu.Lock()
	i := slices.IndexFunc(g.settings.Members, func(m members.Member) bool { return m.Domain == from })
	if i < 0 {
		g.mu.Unlock()
		return refuse(fail.Denied, "the domain "+from+" is no peer of "+g.o.Domain)
	}
	m := g.settings.Members[i]
	g.mu.Unlock()
	if !m.Provides {
		return refuse(fail.Denied, "the domain "+g.o.Domain+" takes no jobs of "+from)
	}
	local, err := g.o.Users.Take(from, r)
	if err != nil {
		return peering.Admitted{}, err
	}
	// What nothing here could run, or not as the account, is refused now and not taken and given back.
	need, err := g.o.Broker.CheckForeign(&broker.Foreign{
		Owner: local.Owner, Account: local.Account, VO: local.VO, Document: []byte(r.Document), Deadline: r.Deadline,
		From: from, Origin: r.Origin, ID: r.ID, Path: r.Path, Hops: r.Hops, Agreement: r.Agreement,
	})
	if err != nil {
		return peering.Admitted{}, err
	}
	err = g.o.Broker.Admit(routing.Asking{
		Peer: from, Origin: r.Origin, VO: local.VO, CPUs: max(1, need.CPUs), WallTime: need.WallTime, Here: here, Balance: g.Favours.Balance(from), Agreement: r.Agreement,
	}, m.Admission)
	if err != nil {
		return peering.Admitted{}, err
	}
	return peering.Admitted{Owner: local.Owner, Account: local.Account, VO: local.VO}, nil
}

// resources gives Showing its part of the sessions.
type resources struct{ *showing.Showing }

func (resources) Takes(m wire.Message) bool { return showing.Takes(m) }

func (r resources) Deliver(ctx context.Context, domain string, items []wire.Message, done func()) {
	_ = r.Showing.Deliver(ctx, domain, items, done) // what is wrong changes nothing, and is told by Status
}

// accounts gives Favours its part.
type accounts struct{ *favours.Favours }

func (accounts) Takes(m wire.Message) bool { return favours.Takes(m) }

func (a accounts) Opened(domain string, s session.Agreement) { a.Favours.Opened(domain, s.Features) }

func (accounts) Alive(string, bool) {}

func (a accounts) Deliver(ctx context.Context, domain string, items []wire.Message, done func()) {
	defer done()
	a.Favours.Deliver(ctx, domain, items)
}

// watcher sees how sessions stand.
type watcher struct{ g *Gateway }

func (watcher) Takes(wire.Message) bool { return false }

func (w watcher) stand(domain, away string) {
	w.g.mu.Lock()
	w.g.stands[domain] = away
	w.g.mu.Unlock()
	w.g.nudge()
}

func (w watcher) Opened(domain string, a session.Agreement) {
	w.g.mu.Lock()
	w.g.vos[domain] = a.Theirs.VOs
	w.g.mu.Unlock()
	away := ""
	if !a.Theirs.Provides {
		away = "the domain " + domain + " takes no jobs of " + w.g.o.Domain
	}
	w.stand(domain, away)
}

func (w watcher) Closed(domain string) { w.stand(domain, "there is no session with it") }

func (w watcher) Alive(domain string, alive bool) {
	if !alive {
		w.stand(domain, "it was not heard of for too long")
		return
	}
	if t := w.g.table.Load(); t != nil {
		if s, err := t.Session(domain); err == nil && s.Agreement.Theirs.Provides {
			w.stand(domain, "")
		}
	}
}

func (watcher) Free(string) {}

func (watcher) Deliver(context.Context, string, []wire.Message, func()) {}
