package identity

import (
	"crypto/sha256"
	"crypto/x509"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

// Anchor is what a domain's certificates are held against.
type Anchor struct {
	Domain string
	// Name is the DNS name that its certificates have; "" is the domain's own.
	Name string
	// CAs have signed its certificates.
	CAs []*x509.Certificate
	// Pins are fingerprints of its keys; certificates of such a key need no CA.
	Pins []Pin
	// From says where the anchor stands, for people: a file, with a line.
	From string
}

func (a *Anchor) name() string {
	if a.Name != "" {
		return a.Name
	}
	return a.Domain
}

// Check gives fail.Invalid for an anchor that could never hold.
func (a Anchor) Check() error {
	bad := func(format string, args ...any) error {
		return fail.Errorf("identity.Anchor", fail.Invalid, a.Domain, format, args...)
	}
	if why := BadDomain(a.Domain); why != "" {
		return bad("%s", why)
	}
	if a.Name != "" {
		if why := BadDomain(strings.ToLower(a.Name)); why != "" {
			return bad("name: %s", why)
		}
	}
	if len(a.CAs) == 0 && len(a.Pins) == 0 {
		return bad("nothing says how %s is known: give the certificate of its CA, or the fingerprint of its key", a.Domain)
	}
	for _, c := range a.CAs {
		if !c.IsCA {
			return bad("the certificate of %s is none of a CA: give its key's fingerprint, %s", shown(c.Subject.String()), PinOf(c))
		}
	}
	return nil
}

// Trust is whom a domain trusts to be whom. It is safe for concurrent use.
type Trust struct {
	mu      sync.RWMutex
	anchors map[string]*anchor // by domain
	known   map[[sha256.Size]byte]verdict
	heads   heads
}

// anchor is an Anchor in use.
type anchor struct {
	Anchor
	roots *x509.CertPool
}

// verdict is what was found out about a certificate; the key is the digest of its whole chain.
type verdict struct {
	domains []string
	from    time.Time // it holds between these
	until   time.Time
}

// maxKnown bounds the verdicts that are remembered.
const maxKnown = 4096

// NewTrust gives trust in the anchors.
func NewTrust(anchors ...Anchor) (*Trust, error) {
	t := &Trust{}
	return t, t.Set(anchors)
}

// Set replaces the anchors. Two of one domain are both good. Wrong ones are fail.Invalid,
// and change nothing.
func (t *Trust) Set(anchors []Anchor) error {
	by := map[string]*anchor{}
	for _, a := range anchors {
		if err := a.Check(); err != nil {
			return err
		}
		x := by[a.Domain]
		if x == nil {
			x = &anchor{Anchor: Anchor{Domain: a.Domain, Name: a.Name, From: a.From}, roots: x509.NewCertPool()}
			by[a.Domain] = x
		}
		if x.name() != a.name() {
			return fail.Errorf("identity.Trust", fail.Invalid, a.Domain, "certificates of %s must be named %s by one entry and %s by another: say it once", a.Domain, x.name(), a.name())
		}
		x.Pins = append(x.Pins, a.Pins...)
		for _, c := range a.CAs {
			x.CAs = append(x.CAs, c)
			x.roots.AddCert(c)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.anchors, t.known = by, map[[sha256.Size]byte]verdict{}
	return nil
}

// Knows reports whether there is an anchor of the domain.
func (t *Trust) Knows(domain string) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.anchors[domain] != nil
}

// Anchors gives the anchors in use, sorted by domain.
func (t *Trust) Anchors() []Anchor {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var list []Anchor
	for _, d := range slices.Sorted(maps.Keys(t.anchors)) {
		list = append(list, t.anchors[d].Anchor)
	}
	return list
}

// Domains gives the domains that a certificate speaks for at a moment: one, as a rule; several where one
// gateway speaks for several, or where two entries trust one key. chain is the certificate, then those
// that may lead to its CA. None is fail.Denied, with a sentence that says why.
func (t *Trust) Domains(chain []*x509.Certificate, at time.Time) ([]string, error) {
	if len(chain) == 0 {
		return nil, fail.Errorf("identity.Trust", fail.Unauthenticated, "", "no certificate was shown: a gateway shows its own in the TLS handshake")
	}
	if len(chain) > maxChain {
		return nil, fail.Errorf("identity.Trust", fail.Denied, "", "the chain has more than %d certificates", maxChain)
	}
	h := sha256.New()
	for _, c := range chain {
		h.Write(c.Raw) // DER tells its length itself
	}
	var key [sha256.Size]byte
	h.Sum(key[:0])

	t.mu.RLock()
	v, ok := t.known[key]
	anchors := t.anchors
	t.mu.RUnlock()
	if ok && !at.Before(v.from) && !at.After(v.until) {
		return v.domains, nil
	}
	v = verdict{from: chain[0].NotBefore, until: chain[0].NotAfter}
	var first error
	for _, d := range slices.Sorted(maps.Keys(anchors)) {
		a := anchors[d]
		if !a.concerns(chain[0]) {
			continue
		}
		from, until, err := a.verify(chain, at)
		if err != nil {
			if first == nil {
				first = err
			}
			continue
		}
		v.domains = append(v.domains, d)
		if from.After(v.from) {
			v.from = from
		}
		if until.Before(v.until) {
			v.until = until
		}
	}
	if len(v.domains) == 0 {
		if first == nil {
			first = fail.Errorf("identity.Trust", fail.Denied, "", "the certificate names %s, and no such domain is trusted here: an administrator must add it, with the fingerprint %s", listed(chain[0].DNSNames), PinOf(chain[0]))
		}
		return nil, first
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.known) >= maxKnown {
		clear(t.known)
	}
	if sameMap(t.anchors, anchors) {
		t.known[key] = v
	}
	return v.domains, nil
}

// sameMap reports whether the anchors are still those that a verdict was made of.
func sameMap(a, b map[string]*anchor) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return true
}

// Verify checks that a certificate speaks for the domain. Else it is fail.Denied, with a sentence that
// says why.
func (t *Trust) Verify(domain string, chain []*x509.Certificate, at time.Time) error {
	got, err := t.Domains(chain, at)
	if err == nil && slices.Contains(got, domain) {
		return nil
	}
	t.mu.RLock()
	a := t.anchors[domain]
	t.mu.RUnlock()
	switch {
	case a == nil:
		return fail.Errorf("identity.Trust", fail.Denied, domain, "the domain %s is not trusted here: an administrator must add it", shown(domain))
	case len(chain) == 0 || len(chain) > maxChain:
		return err
	}
	_, _, err = a.verify(chain, at)
	return err
}

// concerns reports whether it is worth looking at a certificate: it has the name, or a key that is pinned.
func (a *anchor) concerns(c *x509.Certificate) bool {
	return named(c, a.name()) || slices.Contains(a.Pins, PinOf(c))
}

// verify checks a chain against the anchor, and says between which moments it holds.
func (a *anchor) verify(chain []*x509.Certificate, at time.Time) (from, until time.Time, err error) {
	leaf := chain[0]
	no := func(format string, args ...any) (time.Time, time.Time, error) {
		return time.Time{}, time.Time{}, fail.Errorf("identity.Trust", fail.Denied, a.Domain, format, args...)
	}
	switch {
	case !named(leaf, a.name()):
		return no("the certificate is not of %s: it names %s and not %s", a.Domain, listed(leaf.DNSNames), shown(a.name()))
	case at.Before(leaf.NotBefore):
		return no("the certificate of %s holds from %s on: one of the two clocks may be wrong", a.Domain, leaf.NotBefore.UTC().Format(time.RFC3339))
	case at.After(leaf.NotAfter):
		return no("the certificate of %s ended at %s: its administrator must renew it", a.Domain, leaf.NotAfter.UTC().Format(time.RFC3339))
	case leaf.IsCA:
		return no("the certificate of %s is that of a CA, which is none to speak with", a.Domain)
	}
	if why := weakKey(leaf); why != "" {
		return no("the certificate of %s can't be used: %s", a.Domain, why)
	}
	if slices.ContainsFunc(a.Pins, PinOf(leaf).Equal) {
		return leaf.NotBefore, leaf.NotAfter, nil
	}
	if len(a.CAs) == 0 {
		return no("the key of %s is not the one that is trusted here, but %s: if it was replaced, its administrator can tell; else somebody is in between", a.Domain, PinOf(leaf))
	}
	if leaf.KeyUsage != 0 && leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return no("the certificate of %s is not made for signatures (keyUsage)", a.Domain)
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	// A gateway is client and server in one, and CAs there are that say only one of both.
	ways, err := leaf.Verify(x509.VerifyOptions{
		Roots: a.roots, Intermediates: between, CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return time.Time{}, time.Time{}, fail.Errorf("identity.Trust", fail.Denied, a.Domain, "the certificate of %s does not lead to a CA that is trusted for it: %v", a.Domain, err).Because(err)
	}
	from, until = leaf.NotBefore, leaf.NotAfter
	for _, c := range ways[0] {
		if c.NotBefore.After(from) {
			from = c.NotBefore
		}
		if c.NotAfter.Before(until) {
			until = c.NotAfter
		}
	}
	return from, until, nil
}
