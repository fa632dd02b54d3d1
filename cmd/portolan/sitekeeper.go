package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/fail"
)

// siteKeeper opens sites, and keeps the broker's in line with the configuration, together
// with its limits, entitlements and the policies that are programs.
type siteKeeper struct {
	data     string
	log      *slog.Logger
	file     string // "" without a configuration
	flag     string // the domain that --domain names
	domain   string // that the gateway speaks for
	policies *policyPlugins
	peers    *peerKeeper // nil without the section peer

	agreements *agreementsConfig // nil: as usual

	mu      sync.Mutex // held while the configuration is read anew
	broker  *broker.Broker
	current map[string]siteConfig
	content []byte // of the file, as it was read last
	state   configState
}

// dir gives the directory of a site. The shell's is where it was before there
// were others, if it is there.
func (k *siteKeeper) dir(name string) string {
	if name == "shell" {
		old := filepath.Join(k.data, "shell")
		if _, err := os.Stat(old); err == nil {
			return old
		}
	}
	return filepath.Join(k.data, "sites", name)
}

// has reports whether a site of that name is configured.
func (k *siteKeeper) has(name string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, ok := k.current[name]
	return ok
}

// open makes the adapter of a site. Its directory remembers the type: an adapter
// of another would not find the jobs that are there, and they would be run again.
func (k *siteKeeper) open(c siteConfig) (adapters.Adapter, error) {
	dir := k.dir(c.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, unfit(c, "its directory could not be made: %v", err)
	}
	mark := filepath.Join(k.data, "sites", c.Name+".type")
	if filepath.Dir(dir) == k.data {
		mark = dir + ".type"
	}
	was, err := os.ReadFile(mark)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = writeWhole(mark, []byte(c.Type+"\n"))
	case err == nil && strings.TrimSpace(string(was)) != c.Type:
		return nil, unfit(c, "it was of the type %s, and jobs of it may still be there, which one of the type %s would not find: give the new site another name, or remove %s if that type has no job left",
			plain(strings.TrimSpace(string(was))), c.Type, mark)
	}
	if err != nil {
		return nil, unfit(c, "%v", err)
	}
	a, err := siteRegistry().Open(c.Type, adapters.Config{Site: c.Name, Dir: dir, Settings: c.Settings, Log: k.log.With("part", c.Type, "site", c.Name)})
	if err != nil {
		return nil, unfit(c, "%s", sentence(err))
	}
	return a, nil
}

// unfit is why a site can't be opened, in words that its users may read.
func unfit(c siteConfig, format string, args ...any) error {
	return fail.Errorf("serve", fail.Invalid, c.Name, "site %s: %s", c.Name, fmt.Sprintf(format, args...))
}

// openAll opens sites, all at once, as opening may take time. On an error none is
// left open.
func (k *siteKeeper) openAll(sites []siteConfig) ([]broker.Site, error) {
	open := make([]broker.Site, len(sites))
	var group errgroup.Group
	for i, c := range sites {
		group.Go(func() error {
			a, err := k.open(c)
			open[i] = broker.Site{Name: c.Name, Adapter: a, Accounts: c.Accounts, AccountDefault: c.AccountDefault, Model: c.forBroker(), Fencing: c.Fence.fencing()}
			return err
		})
	}
	err := group.Wait()
	if err != nil {
		closeAll(open)
		return nil, err
	}
	return open, nil
}

func closeAll(sites []broker.Site) {
	for _, s := range sites {
		if s.Adapter != nil {
			s.Adapter.Close() //nolint:errcheck // the error that made us close it tells
		}
	}
}

// found looks for local managers, all at once; those that do not answer are no
// sites. wanted, when given, names the only ones that are looked for.
func (k *siteKeeper) found(ctx context.Context, wanted []string) []string {
	ctx, cancel := context.WithTimeout(ctx, detectTime)
	defer cancel()
	var mu sync.Mutex
	var names []string
	var all sync.WaitGroup
	for name, t := range siteTypes {
		if t.detect == nil || len(wanted) > 0 && !slices.Contains(wanted, name) {
			continue
		}
		all.Go(func() {
			version, err := t.detect(ctx)
			if err != nil {
				k.log.Debug("no local manager", "type", name, "cause", err)
				return
			}
			k.log.Info("a local manager is offered as a site", "site", name, "version", version)
			mu.Lock()
			defer mu.Unlock()
			names = append(names, name)
		})
	}
	all.Wait()
	slices.Sort(names)
	return names
}

// devSites gives the sites of a gateway that has no configuration: its own
// machine, and what is found on it.
func (k *siteKeeper) devSites(ctx context.Context, slots int, wanted []string) ([]siteConfig, error) {
	want := func(name string) bool { return len(wanted) == 0 || slices.Contains(wanted, name) }
	var sites []siteConfig
	if want("shell") {
		c := siteConfig{Name: "shell", Type: "shell"}
		if slots > 0 {
			var err error
			if c.Settings, err = adapters.ParseSettings(fmt.Sprintf("slots: %d", slots)); err != nil {
				return nil, err
			}
		}
		sites = append(sites, c)
	}
	for _, name := range k.found(ctx, wanted) {
		sites = append(sites, siteConfig{Name: name, Type: name})
	}
	for _, name := range wanted {
		if !slices.ContainsFunc(sites, func(c siteConfig) bool { return c.Name == name }) {
			return nil, fmt.Errorf("no local %s answers: start it, or leave it out of --sites", name)
		}
	}
	return sites, nil
}

// detectable lists what --sites may name.
func detectable() []string {
	names := []string{"shell"}
	for name, t := range siteTypes {
		if t.detect != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// use puts a configuration in force. On an error everything is as it was.
func (k *siteKeeper) use(c *gatewayConfig) error {
	if domain, err := oneDomain(k.flag, c.Domain); err != nil {
		return err
	} else if domain != k.domain {
		return fmt.Errorf("the gateway speaks for %s, and that can't change to %s while it has jobs: give domain back its value", inWords(k.domain), inWords(domain))
	}
	if (c.Peer != nil) != (k.peers != nil) {
		return errors.New("the section peer can't come or go while the gateway runs: start the gateway again")
	}
	if !alikeAgreements(c.Agreements, k.agreements) {
		return errors.New("the section agreements can't change while the gateway runs: give it back what it said, or start the gateway again")
	}
	usePeers, err := k.peers.prepare(c.Peer)
	if err != nil {
		return err
	}
	change, err := k.policies.prepare(c.Policies)
	if err != nil {
		return err
	}
	if err := change.try(k.broker.RemakePolicies); err != nil {
		return err
	}
	if err := k.useSites(c); err != nil {
		if undo := change.drop(k.broker.RemakePolicies); undo != nil {
			k.log.Error("the configuration is not used, and not all is as it was", "cause", undo)
		}
		return err
	}
	change.keep()
	usePeers()
	k.broker.SetBounds(c.Limits.forBroker())
	if err := k.broker.SetShares(c.Entitlements); err != nil { // they were checked
		k.log.Error("the entitlements can't be used; those before hold on", "cause", err)
	}
	return nil
}

// useSites makes the broker's sites those of the configuration: new ones are opened and
// offered, changed ones are opened anew, those that are gone are drained. On an
// error everything is as it was.
func (k *siteKeeper) useSites(c *gatewayConfig) error {
	b := k.broker
	next := map[string]siteConfig{}
	var fresh, changed, moved []siteConfig
	draining := map[string]bool{}
	for _, s := range b.Survey() {
		draining[s.Name] = s.State == broker.SiteDraining
	}
	for _, s := range c.Sites {
		next[s.Name] = s
		old, known := k.current[s.Name]
		switch {
		case !known && draining[s.Name]: // its adapter is still open
			changed = append(changed, s)
		case !known:
			fresh = append(fresh, s)
		case old.Type != s.Type || !alikeSettings(old.Settings, s.Settings):
			changed = append(changed, s)
		case !maps.Equal(old.Accounts, s.Accounts) || old.AccountDefault != s.AccountDefault || !reflect.DeepEqual(old.forBroker(), s.forBroker()) || !old.Fence.alike(&s.Fence):
			moved = append(moved, s)
		}
	}
	opened, err := k.openAll(fresh)
	if err != nil {
		return err
	}
	for i, s := range changed {
		if old, known := k.current[s.Name]; known && old.Type != s.Type {
			err = fmt.Errorf("site %s: its type can't change from %s to %s while the gateway runs: give the new site another name", s.Name, old.Type, s.Type)
		} else {
			err = b.SetSite(k.change(s, true))
		}
		if err == nil {
			continue
		}
		closeAll(opened)
		for _, undo := range changed[:i+1] {
			k.undo(undo.Name)
		}
		return err
	}
	for i, s := range opened {
		change := k.change(fresh[i], false)
		change.Open = func() (adapters.Adapter, error) { return s.Adapter, nil }
		if err := b.SetSite(change); err != nil {
			closeAll(opened[i : i+1]) // too many sites, some of which are draining
			k.log.Error("a site can't be offered", "site", s.Name, "cause", err)
			delete(next, s.Name)
		}
	}
	for _, s := range moved {
		if err := b.SetSite(k.change(s, false)); err != nil {
			k.log.Error("the accounts and the model of a site can't be changed", "site", s.Name, "cause", err)
		}
	}
	for name := range k.current {
		if _, stays := next[name]; !stays {
			if err := b.DrainSite(name); err != nil {
				k.log.Error("a site can't be drained", "site", name, "cause", err)
			}
		}
	}
	k.log.Info("the configuration is in use", "file", k.file, "new", namesOf(fresh), "changed", namesOf(append(changed, moved...)), "sites", len(next))
	k.current = next
	return nil
}

func namesOf(sites []siteConfig) string {
	var names []string
	for _, s := range sites {
		names = append(names, s.Name)
	}
	return strings.Join(names, ",")
}

// change gives what the broker is to do with a site.
func (k *siteKeeper) change(s siteConfig, reopen bool) broker.Change {
	c := broker.Change{Name: s.Name, Accounts: s.Accounts, AccountDefault: s.AccountDefault, Model: s.forBroker(), Fencing: s.Fence.fencing()}
	if reopen {
		c.Open = func() (adapters.Adapter, error) { return k.open(s) }
	}
	return c
}

// undo gives a site the settings back that it had.
func (k *siteKeeper) undo(name string) {
	old, known := k.current[name]
	if !known { // it was being drained, and goes on being
		if err := k.broker.DrainSite(name); err != nil {
			k.log.Error("a site can't be drained", "site", name, "cause", err)
		}
		return
	}
	if err := k.broker.SetSite(k.change(old, true)); err != nil {
		k.log.Error("a site could not be given its settings back; it is tried again when the configuration is read next", "site", name, "cause", err)
		delete(k.current, name)
	}
}

// serves says which sites the broker has now.
func (k *siteKeeper) serves(b *broker.Broker, sites []siteConfig) {
	k.broker = b
	k.current = map[string]siteConfig{}
	for _, s := range sites {
		k.current[s.Name] = s
	}
}
