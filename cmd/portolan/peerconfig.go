package main

import (
	"fmt"
	"maps"
	"math"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/portolan-project/portolan/internal/identity"
	"github.com/portolan-project/portolan/peers"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/members"
	"github.com/portolan-project/portolan/peers/routing"
	"github.com/portolan-project/portolan/peers/wire"
	"github.com/portolan-project/portolan/resourcemodel"
)

// peerConfig says how the gateway works with those of other domains.
type peerConfig struct {
	// Listen is the address of the listener for peers, such as ":9443"; without it, the gateway is
	// outbound-only: it opens all sessions itself, and nobody needs to reach it. Both sides show
	// their certificates there, so that any address will do.
	Listen string `yaml:"listen"`
	// URL is how peers reach the listener, as they are told; without it, https://ADDRESS/peer, if
	// Listen names an address that others can use.
	URL string `yaml:"url"`
	// TLS is the gateway's certificate; without it, key, certificate and a CA of its own are made at
	// the first start, below identity/ in the data directory.
	TLS tlsConfig `yaml:"tls"`
	// Signatures of messages, beside TLS: required (those of peers must be signed; the
	// default), offered (one's own are) or off.
	Signatures string `yaml:"signatures"`
	// LAN is the interface, such as eth0, on which portolan peers discover --lan looks for gateways, by
	// multicast DNS; without it, nobody looks there.
	LAN string `yaml:"lan"`
	// Announce has others find this gateway on that interface: its domain, address and the fingerprint of its key.
	Announce bool `yaml:"announce"`
	// Trust says of each domain how its certificates are known, by its name. Domains whose users come
	// through others may stand here too, so that what they sign is checked.
	Trust map[string]trustConfig `yaml:"trust"`
	// Peers are the gateways to have sessions with.
	Peers []memberConfig `yaml:"peers"`
	// Routing says when jobs go to other domains, and to which.
	Routing routingConfig `yaml:"routing"`
	// Mapping are rules that say as whom the users of other domains run jobs here; the first that
	// matches holds, and who matches none is refused.
	Mapping []ruleConfig `yaml:"mapping"`
	// Buy are standing orders: capacity of peers that is bought for windows of time, and that jobs are routed against.
	Buy []buyConfig `yaml:"buy"`
}

// tlsConfig is a certificate with its key.
type tlsConfig struct {
	// Cert is a file in PEM: the certificate, which has the domain as a DNS name, followed by those
	// that lead to its CA. It is read again when it changes.
	Cert string `yaml:"cert"`
	// Key is the file of its key: ECDSA on P-256, or RSA of 2048 bits or more. Others must not be able to read it.
	Key string `yaml:"key"`
}

// trustConfig says how a domain is known.
type trustConfig struct {
	// CA is a file in PEM with the certificates of its CAs. They are trusted for this domain alone.
	CA string `yaml:"ca"`
	// Key is the fingerprint of its key, as portolan peers shows it.
	Key string `yaml:"key"`
	// Keys are more of them, for the time when a key is replaced.
	Keys []string `yaml:"keys"`
	// Name is the DNS name that its certificates have, where that is not the domain's.
	Name string `yaml:"name"`
}

// memberConfig is one entry of peers.
type memberConfig struct {
	// Domain that the peer speaks for; trust must have it.
	Domain string `yaml:"domain"`
	// URL of its endpoint; without it, the peer opens the sessions.
	URL string `yaml:"url"`
	// OutboundOnly tells the peer no URL of ours, so that all goes over our own requests.
	OutboundOnly bool `yaml:"outboundOnly"`
	// Role is what the peer is to this gateway: peer (the default), parent or child. A parent shows
	// what its children have as its own.
	Role string `yaml:"role"`
	// Provides says that this gateway takes jobs of the peer; true.
	Provides *bool `yaml:"provides"`
	// Consumes says that this gateway may give jobs to the peer; true.
	Consumes *bool `yaml:"consumes"`
	// Shows is the detail at which the peer is shown what is here: full, categorized, simple (the default) or none.
	Shows string `yaml:"shows"`
	// Sites are those that it is shown, a child's as CHILD~SITE; without it, all.
	Sites []string `yaml:"sites"`
	// Every is how seldom it is told of changes; without it, as they come.
	Every time.Duration `yaml:"every"`
	// VOs whose users this gateway vouches for to the peer, or serves; shares that none of them may use
	// are not shown. Without it, all.
	VOs []string `yaml:"vos"`
	// Terms under which jobs are handed over; of both sides' wishes, the more careful one holds.
	Terms termsConfig `yaml:"terms"`
	// Beat is the longest time without a sign of life; 30s.
	Beat time.Duration `yaml:"beat"`
	// Lost is the silence after which the peer counts as lost; 5m.
	Lost time.Duration `yaml:"lost"`
	// Admission says which of its jobs are taken.
	Admission admissionConfig `yaml:"admission"`
	// Agreements says that the peer may make agreements here: capacity for itself, and jobs of its users, as mapping says
	// who they are; false. It is shown what can be promised at the sites under sites, whatever shows says.
	Agreements bool `yaml:"agreements"`

	line int // of the entry
}

// termsConfig are the terms of hand-overs.
type termsConfig struct {
	// Lease is the longest time until a job that the peer has may run elsewhere, when it is not heard of; 10m.
	Lease time.Duration `yaml:"lease"`
	// Skew bounds the error of each side's clock; 5s.
	Skew time.Duration `yaml:"skew"`
	// StopWithin is how long a site may take to end a job; 30s.
	StopWithin time.Duration `yaml:"stopWithin"`
	// Resend is the time after which a message about a job is repeated; 10s.
	Resend time.Duration `yaml:"resend"`
	// Keep is how long results wait for a peer that is not heard of; 168h.
	Keep time.Duration `yaml:"keep"`
}

// admissionConfig is which jobs of a peer are taken.
type admissionConfig struct {
	// Closed takes none, and is the sentence that says why.
	Closed string `yaml:"closed"`
	// VOs are those whose jobs are taken; without it, any.
	VOs []string `yaml:"vos"`
	// MostJobs bounds the peer's jobs that are here at once; 0 is no bound, here and below.
	MostJobs int `yaml:"mostJobs"`
	// MostCPUs bounds the CPUs of one job.
	MostCPUs int `yaml:"mostCPUs"`
	// MostWall bounds the time that a job asks for.
	MostWall time.Duration `yaml:"mostWall"`
	// MostDebt is what the peer may owe us, in CPU hours, before its jobs are taken only while none of ours wait.
	MostDebt float64 `yaml:"mostDebt"`
	// Reserve is the part of the slots that stays free for our own jobs, from 0 to 1.
	Reserve float64 `yaml:"reserve"`
	// OwnOnly takes only jobs that were submitted at the peer itself.
	OwnOnly bool `yaml:"ownOnly"`
}

// routingConfig is when jobs go to other domains.
type routingConfig struct {
	// Overload is the wait at the own sites above which jobs go out; 5m.
	Overload time.Duration `yaml:"overload"`
	// Recover is the wait to which it must fall before they are kept again, and idle ones come back; 1m.
	Recover time.Duration `yaml:"recover"`
	// Gain is the part of the own wait below which that at a peer must be; 0.8.
	Gain float64 `yaml:"gain"`
	// Hop is what a hand-over costs; 5s.
	Hop time.Duration `yaml:"hop"`
	// Typical is how long a job runs that does not say it; 10m.
	Typical time.Duration `yaml:"typical"`
	// Room weighs how much is free at a peer, when one is chosen; 1. With any of the five weights given, those that are not are 0.
	Room float64 `yaml:"room"`
	// Wait weighs how long a job would wait there; 2.
	Wait float64 `yaml:"wait"`
	// Speed weighs how fast our jobs ran there; 1.
	Speed float64 `yaml:"speed"`
	// Success weighs how many of our jobs ended well there; 1.
	Success float64 `yaml:"success"`
	// Favour weighs who owes whom; 1.
	Favour float64 `yaml:"favour"`
	// Doubt is taken off what a peer promises, for each step of coarseness; 0.15.
	Doubt float64 `yaml:"doubt"`
	// MostGiven bounds our jobs at one peer; 0 is no bound.
	MostGiven int `yaml:"mostGiven"`
	// MostOwed is what we may owe a peer, in CPU hours, before it is asked last; 0 is no bound.
	MostOwed float64 `yaml:"mostOwed"`
	// Keep runs jobs of peers here or gives them back, and never forwards them.
	Keep bool `yaml:"keep"`
	// Hops is how many domains a job of ours may go on through; 3.
	Hops *int `yaml:"hops"`
}

// ruleConfig is one entry of mapping. In patterns, "*" stands for any characters; one that is not given matches all.
type ruleConfig struct {
	// Peer is a pattern of the domain that hands the job over.
	Peer string `yaml:"peer"`
	// Origin is a pattern of the user's own domain.
	Origin string `yaml:"origin"`
	// VO is a pattern of the VO that the job is run for; "-" is one without.
	VO string `yaml:"vo"`
	// User is a pattern of the user's name in that domain.
	User string `yaml:"user"`
	// Vouched has the rule hold on the peer's word alone, for users whose own domain is not under trust.
	Vouched bool `yaml:"vouched"`
	// Account is the local account; "{user}" in it stands for the user's name, if that is one of an account. It is never root.
	Account string `yaml:"account"`
	// As is the VO here; without it, that of the job.
	As string `yaml:"as"`
	// Refuse refuses them, with a sentence for the user.
	Refuse string `yaml:"refuse"`

	line int // of the entry
}

// complain notes what is wrong with a part of peer; at is where in it: keys, and numbers of entries.
type complain func(at []any, format string, args ...any)

// lineOf gives the line where something stands, or that of the nearest thing around it.
func lineOf(root *yaml.Node, at ...any) int {
	n := root
	if n.Kind == yaml.DocumentNode && len(n.Content) == 1 {
		n = n.Content[0]
	}
	line := n.Line
	for _, step := range at {
		if n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		var next *yaml.Node
		switch s := step.(type) {
		case string:
			for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == s {
					line, next = n.Content[i].Line, n.Content[i+1]
				}
			}
		case int:
			if n.Kind == yaml.SequenceNode && s < len(n.Content) {
				next = n.Content[s]
				line = next.Line
			}
		}
		if next == nil {
			return line
		}
		n = next
	}
	return line
}

// check says what is wrong with the section. domain is that of the file; "" is told by --domain.
func (c *peerConfig) check(domain string, root *yaml.Node, p *configProblems) {
	for i := range c.Peers {
		c.Peers[i].line = lineOf(root, "peer", "peers", i)
	}
	for i := range c.Mapping {
		c.Mapping[i].line = lineOf(root, "peer", "mapping", i)
	}
	bad := func(at []any, format string, args ...any) {
		p.add(lineOf(root, append([]any{"peer"}, at...)...), "peer: "+format, args...)
	}
	if domain != "" {
		if why := identity.BadDomain(domain); why != "" {
			p.add(lineOf(root, "domain"), "domain: %s", why)
			return
		}
	}
	c.checkListener(bad)
	if c.Announce && (c.LAN == "" || c.Listen == "") {
		bad([]any{"announce"}, "announce: say with lan on which interface, and with listen where peers reach the gateway")
	}
	if (c.TLS.Cert == "") != (c.TLS.Key == "") {
		bad([]any{"tls"}, "tls: cert and key are given together, or neither")
	} else if c.TLS.Cert != "" && domain != "" {
		if !filepath.IsAbs(c.TLS.Cert) || !filepath.IsAbs(c.TLS.Key) {
			bad([]any{"tls"}, "tls: name both files with their whole path")
		} else if err := identity.Check(identity.Options{Domain: domain, Cert: c.TLS.Cert, Key: c.TLS.Key}); err != nil {
			bad([]any{"tls"}, "tls: %s", sentence(err))
		}
	}
	switch identity.Signatures(c.Signatures) {
	case "", identity.Required, identity.Offered, identity.Off:
	default:
		bad([]any{"signatures"}, "signatures: %q: it is required, offered or off", c.Signatures)
	}
	for _, d := range slices.Sorted(maps.Keys(c.Trust)) {
		t := c.Trust[d]
		if _, err := t.anchor(d, ""); err != nil {
			bad([]any{"trust", d}, "trust.%s: %s", d, sentence(err))
		} else if d == domain {
			bad([]any{"trust", d}, "trust.%s: that is the gateway's own domain", d)
		}
	}
	c.checkMembers(domain, bad)
	r := c.Routing
	if err := r.policy().Check(); err != nil {
		bad([]any{"routing"}, "routing: %s", sentence(err))
	}
	if r.MostOwed < 0 || r.MostOwed > maxCPUHours || math.IsNaN(r.MostOwed) {
		bad([]any{"routing", "mostOwed"}, "routing.mostOwed: %g is no number of CPU hours", r.MostOwed)
	}
	if h := r.Hops; h != nil && (*h < 1 || *h >= wire.MaxPath) {
		bad([]any{"routing", "hops"}, "routing.hops: %d: it is 1 to %d", *h, wire.MaxPath-1)
	}
	c.checkBuy(bad)
	if len(c.Mapping) > maxRules {
		bad([]any{"mapping"}, "mapping: there are %d rules; %d may be", len(c.Mapping), maxRules)
	}
	for i, rule := range c.rules("") {
		if err := rule.Check(); err != nil {
			bad([]any{"mapping", i}, "mapping: %s", sentence(err))
		}
	}
}

const (
	maxRules    = 1000
	maxCPUHours = 1e9
)

func (c *peerConfig) checkListener(bad complain) {
	host := ""
	if c.Listen != "" {
		h, port, err := net.SplitHostPort(c.Listen)
		if err != nil || strings.Trim(port, "0123456789") != "" || port == "" {
			bad([]any{"listen"}, "listen: %q is no address: write one like :9443 or 192.0.2.1:9443", c.Listen)
			return
		}
		host = h
	}
	switch {
	case c.Listen == "" && c.URL != "":
		bad([]any{"url"}, "url: nothing would answer there without listen: give both, or neither for a gateway that nobody needs to reach")
	case c.Listen != "" && c.URL == "" && everywhere(host):
		bad([]any{"listen"}, "listen: %s is every address of this machine, and peers must be told one: say with url how they reach it", c.Listen)
	case c.URL != "":
		if why := badPeerURL(c.URL); why != "" {
			bad([]any{"url"}, "url: %s", why)
		}
	}
}

// everywhere reports whether a host to listen on is none that others can connect to.
func everywhere(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

// badPeerURL says what is wrong with the URL of a gateway's endpoint for peers.
func badPeerURL(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "" || u.RawQuery != "" {
		return fmt.Sprintf("%q is no address of a gateway: write one like https://gateway.example.org:9443/peer", s)
	}
	return ""
}

func (c *peerConfig) checkMembers(domain string, bad complain) {
	if len(c.Peers) > members.MaxMembers {
		bad([]any{"peers"}, "peers: there are %d; a gateway has at most %d", len(c.Peers), members.MaxMembers)
	}
	first := map[string]int{}
	for i := range c.Peers {
		m := &c.Peers[i]
		at := func(more ...any) []any { return append([]any{"peers", i}, more...) }
		name := m.Domain
		if why := identity.BadDomain(name); why != "" {
			bad(at("domain"), "peers: domain: %s", why)
			continue
		}
		if first[name] > 0 {
			bad(at("domain"), "peers: %s stands in line %d already", name, first[name])
			continue
		}
		first[name] = m.line
		if _, ok := c.Trust[name]; !ok {
			bad(at("domain"), "peers: %s: nothing under trust says how it is known: give its CA, or the fingerprint of its key", name)
		}
		if m.URL != "" {
			if why := badPeerURL(m.URL); why != "" {
				bad(at("url"), "peers: %s: url: %s", name, why)
				continue
			}
		}
		if _, ok := details[m.Shows]; !ok {
			bad(at("shows"), "peers: %s: shows: %q: it is full, categorized, simple or none", name, m.Shows)
			continue
		}
		if d := m.Admission.MostDebt; d < 0 || d > maxCPUHours || math.IsNaN(d) {
			bad(at("admission", "mostDebt"), "peers: %s: admission.mostDebt: %g is no number of CPU hours", name, d)
			continue
		}
		own, endpoint := domain, c.URL
		if own == "" {
			own = "own.invalid" // it is told by a flag
		}
		if endpoint == "" && c.Listen != "" {
			endpoint = "https://" + c.Listen + "/peer"
		}
		if err := handover.Terms(m.Terms).EnsureDefaults().Check(); err != nil {
			bad(at("terms"), "peers: %s: terms: %s", name, sentence(err))
			continue
		}
		if err := m.member("").Check(own, endpoint); err != nil {
			bad(at(), "peers: %s: %s", name, sentence(err))
		}
	}
}

// anchor gives what the certificates of a domain are held against. from says where it stands.
func (t trustConfig) anchor(domain, from string) (identity.Anchor, error) {
	a := identity.Anchor{Domain: domain, Name: strings.ToLower(t.Name), From: from}
	keys := t.Keys
	if t.Key != "" {
		keys = append([]string{t.Key}, keys...)
	}
	for _, k := range keys {
		pin, err := identity.ParsePin(k)
		if err != nil {
			return a, err
		}
		a.Pins = append(a.Pins, pin)
	}
	if t.CA != "" {
		if !filepath.IsAbs(t.CA) {
			return a, fmt.Errorf("ca: name the file with its whole path")
		}
		var err error
		if a.CAs, err = identity.ReadCertificates(t.CA, maxCAs); err != nil {
			return a, err
		}
	}
	return a, a.Check()
}

// maxCAs bounds the certificates of one domain's CAs.
const maxCAs = 32

// details by the words of the configuration.
var details = map[string]resourcemodel.Detail{
	"": resourcemodel.Simple, "full": resourcemodel.Full, "categorized": resourcemodel.Categorized, "simple": resourcemodel.Simple, "none": resourcemodel.None,
}

func orTrue(b *bool) bool { return b == nil || *b }

// member gives the peer as the parts that work with it take it.
func (m *memberConfig) member(from string) members.Member {
	detail := details[m.Shows]
	return members.Member{
		Peer: peers.Peer{
			Domain: m.Domain, URL: m.URL, OutboundOnly: m.OutboundOnly, Role: wire.Role(m.Role), Provides: orTrue(m.Provides), Consumes: orTrue(m.Consumes),
			Shows: wire.Detail(detail.String()), Every: m.Every, VOs: m.VOs, Terms: wire.Terms(m.Terms), Beat: m.Beat, Lost: m.Lost,
		},
		Admission: routing.Admission{
			Closed: m.Admission.Closed, VOs: m.Admission.VOs, MostJobs: m.Admission.MostJobs, MostCPUs: m.Admission.MostCPUs, MostWall: m.Admission.MostWall,
			MostDebt: cpuHours(m.Admission.MostDebt), Reserve: m.Admission.Reserve, OwnOnly: m.Admission.OwnOnly,
		},
		Export: routing.Exporting{Detail: detail, Sites: m.Sites, VOs: m.VOs},
		From:   from,

		Agreements: m.Agreements,
	}
}

func cpuHours(n float64) handover.CPUTime { return handover.CPUTime(n * float64(handover.CPUHour)) }

// policy gives how jobs are routed.
func (r *routingConfig) policy() routing.Policy {
	return routing.Policy{
		Overload: r.Overload, Recover: r.Recover, Gain: r.Gain, Hop: r.Hop, Typical: r.Typical, Room: r.Room, Wait: r.Wait, Speed: r.Speed, Success: r.Success,
		Favour: r.Favour, Doubt: r.Doubt, MostGiven: r.MostGiven, MostOwed: cpuHours(r.MostOwed), Keep: r.Keep,
	}.EnsureDefaults()
}

// rules gives the mapping; file is where it stands.
func (c *peerConfig) rules(file string) identity.Mapping {
	list := make(identity.Mapping, len(c.Mapping))
	for i, r := range c.Mapping {
		list[i] = identity.Rule{
			Peer: r.Peer, Origin: r.Origin, VO: r.VO, User: r.User, Vouched: r.Vouched, Account: r.Account, As: r.As, Refuse: r.Refuse,
			From: fmt.Sprintf("%s:%d", filepath.Base(file), r.line),
		}
	}
	return list
}

// settings gives all that is said of peers, with those that were added by command; one that the configuration has
// goes before an added one.
func (c *peerConfig) settings(file string, added []identity.Added) members.Settings {
	s := members.Settings{Routing: c.Routing.policy(), Hops: 3}
	if c.Routing.Hops != nil {
		s.Hops = *c.Routing.Hops
	}
	for i := range c.Peers {
		s.Members = append(s.Members, c.Peers[i].member(fmt.Sprintf("%s:%d", filepath.Base(file), c.Peers[i].line)))
	}
	for _, a := range added {
		if slices.ContainsFunc(s.Members, func(m members.Member) bool { return m.Domain == a.Domain }) {
			continue
		}
		m := (&memberConfig{Domain: a.Domain, URL: a.URL, Role: a.Role}).member("portolan peers add")
		m.Added = true
		s.Members = append(s.Members, m)
	}
	slices.SortFunc(s.Members, func(a, b members.Member) int { return strings.Compare(a.Domain, b.Domain) })
	return s
}

// anchors gives whom to trust: what the configuration says of a domain goes before what was added.
func (c *peerConfig) anchors(file string, added []identity.Added) ([]identity.Anchor, error) {
	var list []identity.Anchor
	for _, d := range slices.Sorted(maps.Keys(c.Trust)) {
		a, err := c.Trust[d].anchor(d, filepath.Base(file))
		if err != nil {
			return nil, fmt.Errorf("peer.trust.%s: %s", d, sentence(err))
		}
		list = append(list, a)
	}
	for _, x := range added {
		if _, ok := c.Trust[x.Domain]; ok {
			continue
		}
		a, err := x.Anchor()
		if err != nil {
			return nil, err
		}
		a.From = "portolan peers add"
		list = append(list, a)
	}
	return list, nil
}
