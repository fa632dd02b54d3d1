package identity

import (
	"context"
	"crypto/sha256"
	"sync/atomic"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/wire"
)

// Users says who the users of other domains are here, and vouches for one's own there. It is safe for
// concurrent use.
type Users struct {
	gateway *Gateway
	rules   atomic.Pointer[Mapping]
}

// NewUsers makes it without rules, so that nobody is taken.
func NewUsers(g *Gateway) *Users { return &Users{gateway: g} }

// SetMapping has the rules hold for what comes from now on. Wrong ones are fail.Invalid, and change nothing.
func (u *Users) SetMapping(m Mapping) error {
	for _, r := range m {
		if err := r.Check(); err != nil {
			return err
		}
	}
	u.rules.Store(&m)
	return nil
}

// Take says for whom a job runs here that a peer hands over, or why it is not taken: fail.Unauthenticated
// where nobody who is trusted says who the user is, fail.Denied where the rules do not take the user.
func (u *Users) Take(peer string, r *wire.Route) (Local, error) {
	s, err := u.gateway.Trusted.Check(r.Assertion, Handed{
		By: peer, To: u.gateway.o.Domain, Path: r.Path, Job: r.ID, VO: r.VO, Document: []byte(r.Document),
	}, u.gateway.o.Now())
	if err != nil {
		return Local{}, err
	}
	if s.Origin != r.Origin {
		return Local{}, claimless("is of %s, and the job of %s", s.Origin, shown(r.Origin))
	}
	m := u.rules.Load()
	if m == nil {
		m = &Mapping{}
	}
	return m.Map(s)
}

// vouchEarly is how far back an assertion begins, for peers whose clocks are behind.
const vouchEarly = time.Minute

// Vouch gives the assertion that goes with a job to the domain to, good until a moment, as a rule the recall
// deadline of the copy. came is the assertion with which the job came here; nil for a job of one's own,
// whose owner is the user. document is what is handed over.
func (u *Users) Vouch(_ context.Context, to string, key handover.Key, owner, vo, document string, until time.Time, came []byte) ([]byte, error) {
	now := u.gateway.o.Now()
	if !until.After(now) {
		return nil, fail.Errorf("identity.Vouch", fail.Conflict, key.String(), "the job's time at %s is over before it is handed over", to)
	}
	if most := now.Add(MaxAssertionLife - 2*vouchEarly); until.After(most) {
		until = most
	}
	// Whole seconds, and not one too few.
	until = until.Add(time.Second - 1)
	var vos []string
	if vo != "" {
		vos = []string{vo}
	}
	if len(came) > 0 {
		return u.gateway.Pass(came, to, vos, now.Add(-vouchEarly), until)
	}
	if key.Origin != u.gateway.o.Domain {
		return nil, fail.Errorf("identity.Vouch", fail.Internal, key.String(), "the job is of %s, and came without an assertion about its user", key.Origin)
	}
	return u.gateway.Vouch(Claims{
		Audience: to, Job: key.ID, User: owner, VOs: vos, Document: sha256.Sum256([]byte(document)), NotBefore: now.Add(-vouchEarly), NotAfter: until,
	})
}
