package peers

import (
	"net/url"
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
)

// Peer is what this gateway's administrator says of the gateway of another domain. What has
// a default may be left zero.
type Peer struct {
	Domain string
	// URL is the peer's endpoint; "" for one that only comes to us: it opens the sessions.
	URL string
	// OutboundOnly has this side tell the peer no endpoint, and poll, though the Table has one.
	OutboundOnly bool
	// Role is what the peer is to this gateway: wire.Peer (the default), wire.Parent or
	// wire.Child.
	Role wire.Role
	// Provides: this gateway takes jobs of the peer. Consumes: it may give jobs to the peer.
	Provides, Consumes bool
	// Shows is the detail at which this gateway shows its resources to the peer; default
	// wire.None. Every is how seldom it pushes what changed; 0 is as it changes.
	Shows wire.Detail
	Every time.Duration
	// VOs whose users this gateway vouches for, or serves, towards the peer.
	VOs []string
	// Features that this gateway offers; nil offers all that it knows.
	Features []string
	// Terms under which jobs are handed over. Zero fields are filled in by session.Config.
	Terms wire.Terms
	// Beat, Lost, Window, Budget and Queue are session.Config's.
	Beat, Lost            time.Duration
	Window, Budget, Queue int
}

// clone gives p without memory that a caller has too, and with its defaults.
func (p Peer) clone() Peer {
	p.VOs, p.Features = slices.Clone(p.VOs), slices.Clone(p.Features)
	if p.Role == "" {
		p.Role = wire.Peer
	}
	if p.Shows == "" {
		p.Shows = wire.None
	}
	return p
}

// config gives what this side offers to the peer, and wants.
func (o *Options) config(p Peer) session.Config {
	c := session.Config{
		Party: wire.Party{
			Domain: o.Domain, Software: o.Software, Endpoint: o.Endpoint, Role: p.Role.Other(), Provides: p.Provides, Consumes: p.Consumes,
			Shows: p.Shows, Every: p.Every, VOs: p.VOs,
		},
		Instance: o.Instance, Features: p.Features, Beat: p.Beat, Lost: p.Lost, Window: p.Window, Budget: p.Budget, Queue: p.Queue, Terms: p.Terms,
	}
	if p.OutboundOnly {
		c.Party.Endpoint = ""
	}
	if p.Features == nil {
		c.Features = wire.Features()
	}
	return c.EnsureDefaults()
}

// Check gives fail.Invalid for what can't be a peer of the domain's gateway, which peers reach at
// endpoint; "" is one that is outbound-only.
func (p Peer) Check(domain, endpoint string) error {
	o := &Options{Domain: domain, Endpoint: endpoint, Instance: "check"}
	return o.validate(p.clone())
}

// validate gives fail.Invalid for what can't be a peer of this gateway.
func (o *Options) validate(p Peer) error {
	refuse := func(format string, args ...any) *fail.Error {
		return fail.Errorf("peers.Peer", fail.Invalid, p.Domain, format, args...)
	}
	switch {
	case p.Domain == "":
		return refuse("a peer needs its domain")
	case p.Domain == o.Domain:
		return refuse("%s is this gateway's own domain: a gateway is no peer of its own", p.Domain)
	case p.Role != wire.Peer && p.Role != wire.Parent && p.Role != wire.Child:
		return refuse("the role of %s is %q; it must be peer, parent or child", p.Domain, p.Role)
	}
	if p.URL != "" {
		if err := checkURL(p.URL); err != nil {
			return refuse("the URL of %s is %q; it must be an absolute http or https URL with a host", p.Domain, p.URL).Because(err)
		}
	}
	c := o.config(p)
	if p.URL == "" && c.Party.Endpoint == "" {
		return refuse("neither side can be reached: give %s a URL, or this gateway an endpoint", p.Domain)
	}
	for _, f := range c.Features {
		if !slices.Contains(wire.Features(), f) {
			return refuse("the feature %q is not known; known are %q", f, wire.Features())
		}
	}
	return c.Validate()
}

func checkURL(s string) error {
	u, err := url.Parse(s)
	if err == nil && (u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "") {
		err = fail.Errorf("peers", fail.Invalid, s, "it is not an http or https URL with a host and without user and fragment")
	}
	return err
}
