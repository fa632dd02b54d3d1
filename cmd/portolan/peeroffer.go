package main

import (
	"context"
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/identity"
	"github.com/portolan-project/portolan/peers/discovery"
	"github.com/portolan-project/portolan/peers/status"
)

// inspect gives what an endpoint shows of itself, for somebody to compare. It changes nothing.
func (k *peerKeeper) inspect(ctx context.Context, url string) (*status.Offer, error) {
	o, err := k.fetch(ctx, url)
	if err != nil {
		return nil, err
	}
	leaf, named := o.Chain[0], o.Domains()
	out := &status.Offer{
		URL: url, Fingerprint: o.Pin.String(), Subject: leaf.Subject.String(), Issuer: leaf.Issuer.String(), NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
	}
	now := time.Now()
	switch {
	case len(named) == 0:
		out.Problem = "its certificate names no domain among its DNS names, so that nothing could ever be known to be of it: it needs another"
	case len(named) > 1:
		out.Domains = named
	default:
		out.Domain = named[0]
		out.Trusted = k.gateway.Trusted.Verify(out.Domain, o.Chain, now) == nil
	}
	switch {
	case slices.Contains(named, k.gateway.Domain()):
		out.Problem = "it speaks for " + k.gateway.Domain() + ", as this gateway does: a domain is no peer of its own"
	case now.After(leaf.NotAfter):
		out.Problem = "its certificate ended at " + leaf.NotAfter.UTC().Format(time.RFC3339) + ": its administrator must renew it"
	case now.Before(leaf.NotBefore):
		out.Problem = "its certificate holds from " + leaf.NotBefore.UTC().Format(time.RFC3339) + " on: one of the two clocks may be wrong"
	}
	return out, nil
}

func (k *peerKeeper) fetch(ctx context.Context, url string) (*identity.Offer, error) {
	if err := discovery.CheckURL(url); err != nil {
		return nil, err
	}
	return identity.Fetch(ctx, url, nil)
}

// configured reports whether the configuration says how a domain is known, or that it is a peer.
func (k *peerKeeper) configured(domain string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	_, trusted := k.config.Trust[domain]
	return trusted || slices.ContainsFunc(k.config.Peers, func(m memberConfig) bool { return m.Domain == domain })
}

// pin trusts the endpoint at a URL for a domain, by its key, whose fingerprint somebody compared. It
// looks at the endpoint again: another key, or a certificate of other domains, is fail.Conflict, and so is a
// domain that the configuration names. The same again changes nothing.
func (k *peerKeeper) pin(ctx context.Context, url, domain, fingerprint, by string) error {
	refuse := func(kind fail.Kind, format string, args ...any) error {
		return fail.Errorf("serve.AddPeer", kind, domain, format, args...)
	}
	if why := identity.BadDomain(domain); why != "" {
		return refuse(fail.Invalid, "%s", why)
	}
	want, err := identity.ParsePin(fingerprint)
	if err != nil {
		return err
	}
	switch {
	case domain == k.gateway.Domain():
		return refuse(fail.Conflict, "%s is this gateway's own domain", domain)
	case k.configured(domain):
		return refuse(fail.Conflict, "the configuration says how %s is known: change it there", domain)
	}
	o, err := k.fetch(ctx, url)
	if err != nil {
		return err
	}
	switch {
	case !o.Pin.Equal(want):
		return refuse(fail.Conflict, "the endpoint shows the key %s now, and not the one that was compared: somebody may be in between", o.Pin)
	case !slices.Contains(o.Domains(), domain):
		return refuse(fail.Conflict, "the certificate at %s is not of %s: it names %q", url, domain, o.Domains())
	}
	if old, err := k.store.Get(domain); err == nil && old.URL == url && old.Key == o.Pin.String() {
		return nil
	}
	return k.add(o.Pinned(domain, by, time.Now()))
}
