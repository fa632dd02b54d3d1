package identity

import (
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/wssec"
)

// Vouch gives an assertion of claims about a user of one's own domain: Issuer and Origin are its
// own, whatever the claims say. Wrong claims are fail.Invalid.
func (i *Identity) Vouch(c Claims) ([]byte, error) {
	c.Issuer, c.Origin = i.o.Domain, i.o.Domain
	return i.assert(nil, c)
}

// Pass gives what goes on with a job that came with an assertion: that one, and one's own for the next
// domain. User, origin, job and document stay as they came; VOs are those that both say. The one that
// came must have been checked (Trust.Check).
func (i *Identity) Pass(came []byte, audience string, vos []string, from, until time.Time) ([]byte, error) {
	tokens, err := parseAssertion(came)
	if err != nil {
		return nil, err
	}
	if len(tokens) == maxTokens {
		return nil, fail.Errorf("identity.Pass", fail.Invalid, "", "the job went through %d domains already", maxTokens)
	}
	last := tokens[len(tokens)-1].Claims
	if last.Audience != i.o.Domain {
		return nil, fail.Errorf("identity.Pass", fail.Invalid, last.Audience, "the assertion that came is for %s and not for %s", last.Audience, i.o.Domain)
	}
	c := *last
	c.Issuer, c.Audience, c.NotBefore, c.NotAfter = i.o.Domain, audience, from, until
	c.VOs = slices.DeleteFunc(slices.Clone(last.VOs), func(vo string) bool { return !slices.Contains(vos, vo) })
	return i.assert(append(slices.Clip(came), hop...), c)
}

func (i *Identity) assert(before []byte, c Claims) ([]byte, error) {
	c.NotBefore, c.NotAfter = c.NotBefore.Truncate(time.Second), c.NotAfter.Truncate(time.Second)
	if err := c.check(); err != nil {
		return nil, fail.Errorf("identity.Vouch", fail.Invalid, c.User, "%s", fail.Sentence(err))
	}
	cred := i.Current()
	b := make([]byte, 0, len(before)+len(cred.head)+1024)
	b = append(append(b, before...), cred.head...)
	b = append(b, '.')
	var room [1024]byte
	b = base64.RawURLEncoding.AppendEncode(b, c.append(room[:0]))
	sum := sha256.Sum256(b[len(before):])
	signature, err := wssec.SignDigest(cred.Key, sum[:])
	if err != nil {
		return nil, fail.E("identity.Vouch", fail.Internal, c.User, err)
	}
	b = append(b, '.')
	if b = base64.RawURLEncoding.AppendEncode(b, signature); len(b) > maxAssertion {
		return nil, fail.Errorf("identity.Vouch", fail.Exhausted, c.User, "the assertion about the user would be longer than %d bytes", maxAssertion)
	}
	return b, nil
}

// Handed is a job as a peer hands it over, which its assertion is held against.
type Handed struct {
	By       string // the peer, whose session it is
	To       string // one's own domain
	Path     []string
	Job      string // id of its key; its origin is the first of the path
	VO       string // that it is run for; "" for none
	Document []byte
}

// Subject is a user of another domain, of whom all is checked that can be.
type Subject struct {
	User   string
	Origin string
	VOs    []string
	VO     string // that the job is run for
	// By is the peer that handed the job over.
	By string
	// Signed says that the origin's own signature was checked; else the user rests on the word of By,
	// as the origin is not trusted here.
	Signed bool
}

// Windows of assertions.
const (
	// assertionSkew bounds the difference of two clocks.
	assertionSkew = 2 * time.Minute
	// passedFor is how long after its end an assertion still tells, below a later one that is good, who
	// the user was when the job came there.
	passedFor = 30 * 24 * time.Hour
)

// Check holds an assertion against the job that it came with. Each domain that passed the job on has
// vouched for the next; the peer's own word must be good now, and the signatures of all that are trusted here
// must be right, above all the origin's. What is not right is fail.Unauthenticated, or fail.Denied where the
// one who says it is not trusted (any more).
func (t *Trust) Check(assertion []byte, h Handed, at time.Time) (*Subject, error) {
	tokens, err := parseAssertion(assertion)
	if err != nil {
		return nil, err
	}
	if len(h.Path) == 0 || h.Path[len(h.Path)-1] != h.By {
		return nil, claimless("can't be checked: the path of the job must end with %s", h.By)
	}
	if len(tokens) != len(h.Path) {
		return nil, claimless("is of %d domains, and the job came through %d: each must vouch for the next", len(tokens), len(h.Path))
	}
	first, doc := tokens[0].Claims, sha256.Sum256(h.Document)
	for n := range tokens {
		c, last := tokens[n].Claims, n == len(tokens)-1
		next := h.To
		if !last {
			next = h.Path[n+1]
		}
		switch {
		case c.Issuer != h.Path[n]:
			return nil, claimless("is of %s where the path has %s", c.Issuer, h.Path[n])
		case c.Audience != next:
			return nil, claimless("of %s is for %s and not for %s", c.Issuer, c.Audience, next)
		case c.Origin != h.Path[0] || c.Job != h.Job:
			return nil, claimless("of %s is about another job: %s of %s", c.Issuer, shown(c.Job), c.Origin)
		case c.Document != doc:
			return nil, claimless("of %s is about another document than the one that came", c.Issuer)
		case c.User != first.User:
			return nil, claimless("of %s names %s, and that of the origin %s", c.Issuer, shown(c.User), shown(first.User))
		case n > 0 && slices.ContainsFunc(c.VOs, func(vo string) bool { return !slices.Contains(tokens[n-1].VOs, vo) }):
			return nil, claimless("of %s names VOs that the one before it does not", c.Issuer)
		case c.NotBefore.After(at.Add(assertionSkew)):
			return nil, claimless("of %s holds from %s on, which is not yet: one of the two clocks is wrong", c.Issuer, c.NotBefore.UTC().Format(time.RFC3339))
		case last && c.NotAfter.Before(at.Add(-assertionSkew)):
			return nil, claimless("of %s was good until %s, which is over: route the job anew", c.Issuer, c.NotAfter.UTC().Format(time.RFC3339))
		case c.NotAfter.Before(at.Add(-passedFor)):
			return nil, claimless("of %s is too old to be passed on", c.Issuer)
		}
	}
	out := &Subject{User: first.User, Origin: first.Origin, VO: h.VO, By: h.By, VOs: tokens[len(tokens)-1].VOs}
	if h.VO != "" && !slices.Contains(out.VOs, h.VO) {
		return nil, claimless("says nothing of the VO %s, which the job is to be run for: the user is vouched for as of %s", shown(h.VO), listed(out.VOs))
	}
	// Signatures come last, as they cost most.
	for n := len(tokens) - 1; n >= 0; n-- {
		x := &tokens[n]
		known := t.Knows(x.Issuer)
		if !known && n < len(tokens)-1 {
			continue // nobody here can judge it; what comes after it vouches for it
		}
		head, err := t.head(x.head)
		if err != nil {
			return nil, err
		}
		if err := t.Verify(x.Issuer, head.chain, at); err != nil {
			return nil, fail.Errorf("identity.Check", fail.KindOf(err), x.Issuer, "the assertion about the user: %s", fail.Sentence(err)).Because(err)
		}
		if !x.signed(head) {
			return nil, claimless("was not signed by %s as it is here", x.Issuer)
		}
		out.Signed = out.Signed || n == 0
	}
	return out, nil
}

// heads remembers the headers of tokens: those of one domain are all the same, certificates and all.
type heads struct {
	mu sync.RWMutex
	by map[string]*head
}

// maxHeads bounds them.
const maxHeads = 512

func (t *Trust) head(s string) (*head, error) {
	t.heads.mu.RLock()
	h := t.heads.by[s]
	t.heads.mu.RUnlock()
	if h != nil {
		return h, nil
	}
	h, err := parseHead(s)
	if err != nil {
		return nil, err
	}
	t.heads.mu.Lock()
	defer t.heads.mu.Unlock()
	if t.heads.by == nil || len(t.heads.by) >= maxHeads {
		t.heads.by = map[string]*head{}
	}
	t.heads.by[strings.Clone(s)] = h
	return h, nil
}
