package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sync/errgroup"

	"github.com/portolan-project/portolan/internal/agreements/purchase"
	"github.com/portolan-project/portolan/internal/identity"
	"github.com/portolan-project/portolan/internal/peering"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/peers/members"
)

// peerKeeper keeps who the gateway is among others, and whom it trusts, in line with the configuration and
// with what was added by command.
type peerKeeper struct {
	file     string // of the configuration
	log      *slog.Logger
	gateway  *identity.Gateway
	users    *identity.Users
	store    identity.Store
	listener net.Listener // nil: the gateway is outbound-only
	url      string       // how peers reach it; "" likewise

	mu      sync.Mutex
	config  *peerConfig
	added   []identity.Added
	leaving map[string]identity.Added // taken away, and trusted until the sessions with them are over
	problem string                    // with what was added, as it was logged last
	changed func(members.Settings)
	ordered func([]purchase.Order) // is told of the standing orders; nil: nothing is bought
}

var _ peering.Voucher = (*identity.Users)(nil)

// Directories below the data directory.
const (
	identityDir = "identity"
	trustDir    = "trust" // peers that were added by command
)

// openPeers makes what the section peer asks for; nil without the section. It listens, and answers nobody yet.
func openPeers(ctx context.Context, o serveOptions, c *peerConfig, domain string, log *slog.Logger) (*peerKeeper, error) {
	if c == nil {
		return nil, nil //nolint:nilnil // a gateway without peers
	}
	if why := identity.BadDomain(domain); why != "" {
		return nil, usagef("a gateway with peers speaks for a domain: %s; say it with domain in %s, or with --domain", why, o.config)
	}
	id, err := identity.Open(identity.Options{Domain: domain, Dir: filepath.Join(o.data, identityDir), Cert: c.TLS.Cert, Key: c.TLS.Key, Log: log})
	if err != nil {
		return nil, &exitError{code: exitRefused, err: errors.New(sentence(err))}
	}
	trust, err := identity.NewTrust()
	if err != nil {
		return nil, err
	}
	k := &peerKeeper{file: o.config, log: log, store: identity.Store{Dir: filepath.Join(o.data, trustDir)}, url: c.URL}
	k.gateway = &identity.Gateway{Identity: id, Trusted: trust, Signatures: identity.Signatures(c.Signatures)}
	k.users = identity.NewUsers(k.gateway)
	if err := k.put(c, k.listAdded()); err != nil {
		return nil, &exitError{code: exitRefused, err: errors.New(sentence(err))}
	}
	if c.Listen != "" {
		if k.listener, err = new(net.ListenConfig).Listen(ctx, "tcp", c.Listen); err != nil {
			return nil, refusedf("%v: choose another address with listen under peer in %s", err, o.config)
		}
		if k.url == "" {
			k.url = (&url.URL{Scheme: "https", Host: k.listener.Addr().String(), Path: "/peer"}).String()
		}
	}
	k.gateway.Endpoint = k.url
	return k, nil
}

// prepare checks a section, and gives what puts it in force. On an error everything is as it was.
func (k *peerKeeper) prepare(c *peerConfig) (use func(), err error) {
	if k == nil {
		return func() {}, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, x := range []struct{ key, was, is string }{
		{"listen", k.config.Listen, c.Listen},
		{"url", k.config.URL, c.URL},
		{"tls.cert", k.config.TLS.Cert, c.TLS.Cert},
		{"tls.key", k.config.TLS.Key, c.TLS.Key},
		{"signatures", k.config.Signatures, c.Signatures},
		{"lan", k.config.LAN, c.LAN},
		{"announce", strconv.FormatBool(k.config.Announce), strconv.FormatBool(c.Announce)},
	} {
		if x.was != x.is {
			return nil, fmt.Errorf("peer.%s can't change while the gateway runs: give it back its value %q, or start the gateway again", x.key, x.was)
		}
	}
	if err := k.check(c, nil); err != nil {
		return nil, err
	}
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if err := k.put(c, k.listAdded()); err != nil { // it was checked
			k.log.Error("what is said of peers can't be used; what held before holds on", "cause", err)
		}
	}, nil
}

// check says whether a section could be put in force with added peers.
func (k *peerKeeper) check(c *peerConfig, added []identity.Added) error {
	anchors, err := c.anchors(k.file, added)
	if err != nil {
		return err
	}
	_, err = identity.NewTrust(anchors...)
	return err
}

// put has a section and added peers hold from now on; the caller holds the lock.
func (k *peerKeeper) put(c *peerConfig, added []identity.Added) error {
	added = slices.DeleteFunc(added, func(a identity.Added) bool { return a.Domain == k.gateway.Domain() })
	trusted := slices.Clone(added)
	for domain, a := range k.leaving {
		if !slices.ContainsFunc(added, func(b identity.Added) bool { return b.Domain == domain }) {
			trusted = append(trusted, a)
		}
	}
	anchors, err := c.anchors(k.file, trusted)
	if err != nil {
		return err
	}
	rules := c.rules(k.file)
	for _, r := range rules {
		if err := r.Check(); err != nil {
			return err
		}
	}
	if err := k.gateway.Trusted.Set(anchors); err != nil {
		return err
	}
	if err := k.users.SetMapping(rules); err != nil {
		return err
	}
	k.config, k.added = c, added
	if k.changed != nil {
		k.changed(c.settings(k.file, added))
	}
	if k.ordered != nil {
		orders, _ := c.orders()
		k.ordered(orders)
	}
	return nil
}

// listAdded reads the added peers; what can't be read is logged, once.
func (k *peerKeeper) listAdded() []identity.Added {
	list, err := k.store.List()
	problem := ""
	if err != nil {
		problem = err.Error()
	}
	if problem != "" && problem != k.problem {
		k.log.Error("some peers that were added are not used", "cause", err)
	}
	k.problem = problem
	return list
}

// reread has the added peers hold as they are now.
func (k *peerKeeper) reread() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := k.put(k.config, k.listAdded()); err != nil {
		k.log.Error("the peers that were added are not used, and nothing is changed", "cause", err)
		return
	}
	k.log.Info("the peers that were added are in use", "peers", len(k.added))
}

// follows says whom to tell of the peers: at once, and whenever they change.
func (k *peerKeeper) follows(changed func(members.Settings)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.changed = changed
	changed(k.config.settings(k.file, k.added))
}

// add trusts a peer that somebody compared the fingerprint of, from now on.
func (k *peerKeeper) add(p identity.Added) error {
	if err := k.store.Put(p); err != nil {
		return err
	}
	k.mu.Lock()
	delete(k.leaving, p.Domain)
	k.mu.Unlock()
	k.reread()
	return nil
}

// retire takes a peer away that was added. It is a member no more, and trusted until release says that
// the session with it is over. A gateway that starts meanwhile does not know it any more.
func (k *peerKeeper) retire(domain string) error {
	old, err := k.store.Get(domain)
	if err != nil {
		return err
	}
	k.mu.Lock()
	if k.leaving == nil {
		k.leaving = map[string]identity.Added{}
	}
	k.leaving[domain] = old
	k.mu.Unlock()
	if err := k.store.Remove(domain); err != nil {
		k.release(domain)
		return err
	}
	k.reread()
	return nil
}

// retired reports whether a peer was taken away and is trusted still.
func (k *peerKeeper) retired(domain string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, is := k.leaving[domain]
	return is
}

// release ends the trust in a peer that was taken away.
func (k *peerKeeper) release(domain string) {
	k.mu.Lock()
	delete(k.leaving, domain)
	k.mu.Unlock()
	k.reread()
}

// remove ends the trust in a peer that was added, whatever stands with it.
func (k *peerKeeper) remove(domain string) error {
	if err := k.retire(domain); err != nil {
		return err
	}
	k.release(domain)
	return nil
}

// members gives the peers as they are now, in the order of domains.
func (k *peerKeeper) members() []members.Member {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.config.settings(k.file, k.added).Members
}

// follow reads the added peers anew when something changes in their directory, until ctx ends.
func (k *peerKeeper) follow(ctx context.Context) error {
	if err := os.MkdirAll(k.store.Dir, 0o700); err != nil {
		return refusedf("the directory of added peers could not be made: %v", err)
	}
	w, err := fsnotify.NewWatcher()
	if err == nil {
		defer w.Close() //nolint:errcheck // nothing of it is kept
		err = w.Add(k.store.Dir)
	}
	if err != nil {
		k.log.Warn("peers that another program adds are not seen before the configuration is read again: send SIGHUP after it", "cause", err)
		<-ctx.Done()
		return nil
	}
	k.reread() // something may have been added since it was read
	settled := time.NewTimer(settleTime)
	settled.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w.Events:
			if !ok {
				<-ctx.Done()
				return nil
			}
			if filepath.Ext(e.Name) == ".yaml" { // others are files under way
				settled.Reset(settleTime)
			}
		case err, ok := <-w.Errors:
			if ok {
				k.log.Warn("watching the peers that are added", "cause", err)
				settled.Reset(settleTime)
			}
		case <-settled.C:
			k.reread()
		}
	}
}

// close ends what openPeers began.
func (k *peerKeeper) close() {
	if k != nil && k.listener != nil {
		k.listener.Close() // servePeers may have closed it
	}
}

// servePeers answers peers at /peer of the keeper's listener with the handler, and at /agreement with the
// other, if that is not nil. It gives what ends that: it answers the requests under way first. Without a listener it does nothing. Who connects is known from the
// handshake on: nobody else gets as far as the handler.
func servePeers(ctx context.Context, group *errgroup.Group, k *peerKeeper, h, agreements http.Handler) (stop func()) {
	if k.listener == nil {
		return func() {}
	}
	mounts := map[string]http.Handler{"/peer": h}
	if agreements != nil {
		mounts["/agreement"] = agreements
	}
	server := soap.NewHTTPServer(soap.NewRouter(mounts), k.log.With("part", "peers"))
	server.TLSConfig = k.gateway.ServerTLS()
	requests, stopRequests := context.WithCancel(ctx)
	server.BaseContext = func(net.Listener) context.Context { return requests }
	listener := tls.NewListener(k.listener, server.TLSConfig)
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	return func() {
		drain(server, stopRequests)
		stopRequests()
	}
}
