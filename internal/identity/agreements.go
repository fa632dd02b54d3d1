package identity

import (
	"crypto/sha256"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

// What gateways ask of each other about agreements is asked by the domain itself, or for one of its
// users. Then an assertion says who that is: it is as that of a job, whose name and document are
// these, so that neither can be taken for the other.
const (
	askingJob      = "agreement"
	askingDocument = "about agreements (http://portolan-project.org/ns/2026/agreement)"
	// askingLife is how long such an assertion is good.
	askingLife = 5 * time.Minute
)

// domainMark begins the names of owners that are domains: no user's name begins with it, be it one of
// our own (who has one) or of others, who are USER@ORIGIN.
const domainMark = "@"

// DomainOwner gives the name of a domain as an owner.
func DomainOwner(domain string) string { return domainMark + domain }

// OwnerDomain gives the domain that an owner is; "" is for an owner that is none.
func OwnerDomain(owner string) string {
	domain, ok := strings.CutPrefix(owner, domainMark)
	if !ok || BadDomain(domain) != "" {
		return ""
	}
	return domain
}

// VouchAsking gives the assertion by which a user of one's own asks the domain to about agreements, for a
// VO; "" is none. It is good for some minutes.
func (u *Users) VouchAsking(to, user, vo string) ([]byte, error) {
	now := u.gateway.o.Now()
	c := Claims{
		Audience: to, Job: askingJob, User: user, Document: sha256.Sum256([]byte(askingDocument)), NotBefore: now.Add(-vouchEarly), NotAfter: now.Add(askingLife),
	}
	if vo != "" {
		c.VOs = []string{vo}
	}
	return u.gateway.Vouch(c)
}

// TakeAsking says who the user of a peer is here who asks about agreements, for a VO, or why nobody is: the
// errors are those of Take. Only the user's own domain may ask.
func (u *Users) TakeAsking(peer, vo string, assertion []byte) (Local, error) {
	s, err := u.gateway.Trusted.Check(assertion, Handed{
		By: peer, To: u.gateway.o.Domain, Path: []string{peer}, Job: askingJob, VO: vo, Document: []byte(askingDocument),
	}, u.gateway.o.Now())
	if err != nil {
		return Local{}, err
	}
	m := u.rules.Load()
	if m == nil {
		return Local{}, fail.Errorf("identity.TakeAsking", fail.Denied, s.User, "no rule says who the users of %s are here: ask the administrator for one", peer)
	}
	return m.Map(s)
}
