package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/wssec"
)

// Claims are what a domain vouches for: that the user of the origin submitted the job, with the document,
// and is of the VOs. An assertion of them is good for one audience and a short time.
type Claims struct {
	Issuer   string // the domain that vouches: the origin, or one that passes the job on
	Audience string // the one domain that it is for
	Origin   string // the domain of the user, where the job was submitted
	Job      string // its name there: the id of the job's key
	User     string // the user's name there
	VOs      []string
	Document [sha256.Size]byte // SHA-256 of the job's document, as it is handed over
	// NotBefore and NotAfter are whole seconds.
	NotBefore, NotAfter time.Time
}

// Bounds of claims.
const (
	MaxUser = 256 // bytes of a user's name
	MaxVOs  = 64  // that are asserted of one user
	maxVO   = 256 // bytes of a VO's name
	maxJob  = 256 // bytes of a job's name
	// MaxAssertionLife is the longest time that an assertion is good for: that of the longest lease.
	MaxAssertionLife = 7*24*time.Hour + time.Hour
	// maxTokens bounds the domains that one job goes through.
	maxTokens = 16
	// maxAssertion bounds all of them together, in bytes.
	maxAssertion = 64 << 10
)

// typ of the tokens (RFC 8725 §3.11): no token of another use can be taken for one.
const typ = "portolan-assertion+jwt"

// hop separates the tokens of an assertion that was passed on: the origin's first.
const hop = "~"

func claimless(format string, args ...any) *fail.Error {
	return fail.Errorf("identity.Assertion", fail.Unauthenticated, "", "the assertion about the user "+format, args...)
}

// plainLine reports whether s is text of one line of 1 to most bytes, without what would need another escape
// in JSON than that of quote and backslash.
func plainLine(s string, most int) bool {
	if s == "" || len(s) > most || !utf8.ValidString(s) {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r >= 0x7F && r < 0xA0 || r == '\u2028' || r == '\u2029' })
}

func (c *Claims) check() error {
	switch {
	case BadDomain(c.Issuer) != "" || BadDomain(c.Audience) != "" || BadDomain(c.Origin) != "":
		return claimless("names a domain that can be none")
	case !plainLine(c.User, MaxUser):
		return claimless("names no user, or one with a name that is too long or not of one line")
	case !plainLine(c.Job, maxJob):
		return claimless("names no job")
	case len(c.VOs) > MaxVOs || slices.ContainsFunc(c.VOs, func(v string) bool { return !plainLine(v, maxVO) }):
		return claimless("names more than %d VOs, or one that can be none", MaxVOs)
	case c.NotBefore.Unix() < 0 || c.NotAfter.Unix() > 253402300799:
		return claimless("is of no time that is reckoned with")
	case !c.NotAfter.After(c.NotBefore) || c.NotAfter.Sub(c.NotBefore) > MaxAssertionLife:
		return claimless("must be good for more than no time and for %s at most", MaxAssertionLife)
	}
	return nil
}

// append writes the claims in their one form: JSON without white space, its names sorted (RFC 8785).
func (c *Claims) append(b []byte) []byte {
	b = appendString(append(b, `{"aud":`...), c.Audience)
	b = append(b, `,"doc":"`...)
	b = base64.RawURLEncoding.AppendEncode(b, c.Document[:])
	b = append(b, `","exp":`...)
	b = strconv.AppendInt(b, c.NotAfter.Unix(), 10)
	b = appendString(append(b, `,"iss":`...), c.Issuer)
	b = appendString(append(b, `,"job":`...), c.Job)
	b = append(b, `,"nbf":`...)
	b = strconv.AppendInt(b, c.NotBefore.Unix(), 10)
	b = appendString(append(b, `,"org":`...), c.Origin)
	b = appendString(append(b, `,"sub":`...), c.User)
	b = append(b, `,"vos":[`...)
	for i, v := range c.VOs {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, v)
	}
	return append(b, ']', '}')
}

func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := range len(s) {
		if s[i] == '"' || s[i] == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return append(b, '"')
}

// scanner reads JSON in that form, and nothing else.
type scanner struct {
	s  string
	ok bool
}

func (p *scanner) lit(what string) {
	rest, ok := strings.CutPrefix(p.s, what)
	p.s, p.ok = rest, p.ok && ok
}

func (p *scanner) str() string {
	p.lit(`"`)
	if !p.ok {
		return ""
	}
	if i := strings.IndexAny(p.s, `"\`); i >= 0 && p.s[i] == '"' {
		out := p.s[:i]
		p.s = p.s[i+1:]
		return strings.Clone(out)
	}
	var b strings.Builder
	for i := 0; i < len(p.s); i++ {
		switch c := p.s[i]; {
		case c == '"':
			p.s = p.s[i+1:]
			return b.String()
		case c != '\\':
			b.WriteByte(c)
		case i+1 < len(p.s) && (p.s[i+1] == '"' || p.s[i+1] == '\\'):
			i++
			b.WriteByte(p.s[i])
		default:
			p.ok = false
			return ""
		}
	}
	p.ok = false
	return ""
}

func (p *scanner) seconds() time.Time {
	i := 0
	for i < len(p.s) && p.s[i] >= '0' && p.s[i] <= '9' {
		i++
	}
	n, err := strconv.ParseInt(p.s[:i], 10, 64)
	if err != nil || i > 1 && p.s[0] == '0' || i > 12 {
		p.ok = false
		return time.Time{}
	}
	p.s = p.s[i:]
	return time.Unix(n, 0)
}

func (p *scanner) list(most int) (list []string) {
	p.lit("[")
	if rest, ok := strings.CutPrefix(p.s, "]"); ok {
		p.s = rest
		return nil
	}
	for p.ok {
		if len(list) == most {
			p.ok = false
			return nil
		}
		list = append(list, p.str())
		if rest, ok := strings.CutPrefix(p.s, ","); ok {
			p.s = rest
			continue
		}
		p.lit("]")
		return list
	}
	return nil
}

// parseClaims reads claims in their one form.
func parseClaims(s string) (*Claims, error) {
	c := &Claims{}
	p := &scanner{s, true}
	p.lit(`{"aud":`)
	c.Audience = p.str()
	p.lit(`,"doc":`)
	doc, err := base64.RawURLEncoding.Strict().DecodeString(p.str())
	p.ok = p.ok && err == nil && copy(c.Document[:], doc) == len(c.Document) && len(doc) == len(c.Document)
	p.lit(`,"exp":`)
	c.NotAfter = p.seconds()
	p.lit(`,"iss":`)
	c.Issuer = p.str()
	p.lit(`,"job":`)
	c.Job = p.str()
	p.lit(`,"nbf":`)
	c.NotBefore = p.seconds()
	p.lit(`,"org":`)
	c.Origin = p.str()
	p.lit(`,"sub":`)
	c.User = p.str()
	p.lit(`,"vos":`)
	c.VOs = p.list(MaxVOs)
	p.lit(`}`)
	if !p.ok || p.s != "" {
		return nil, claimless("is not in its one form: see docs/peer-protocol.md")
	}
	return c, c.check()
}

// head is the header of a token: algorithm and certificates.
type head struct {
	chain []*x509.Certificate
	alg   string
}

func algOf(key crypto.PublicKey) string {
	if _, ok := key.(*ecdsa.PublicKey); ok {
		return "ES256"
	}
	return "RS256"
}

// encodeHead writes the header of a credential's tokens, in base64.
func encodeHead(c *Credential) string {
	b := appendString([]byte(`{"alg":`), algOf(c.Key.Public()))
	b = append(b, `,"typ":"`+typ+`","x5c":[`...)
	for i, x := range c.Chain {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, x.Raw)
		b = append(b, '"')
	}
	return base64.RawURLEncoding.EncodeToString(append(b, ']', '}'))
}

func parseHead(s string) (*head, error) {
	bad := claimless("has a header that is not in its one form: see docs/peer-protocol.md")
	raw, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, bad
	}
	p := &scanner{string(raw), true}
	h := &head{}
	p.lit(`{"alg":`)
	h.alg = p.str()
	p.lit(`,"typ":"` + typ + `","x5c":`)
	list := p.list(maxChain)
	p.lit(`}`)
	if !p.ok || p.s != "" || len(list) == 0 {
		return nil, bad
	}
	for _, s := range list {
		der, err := base64.StdEncoding.Strict().DecodeString(s)
		if err != nil {
			return nil, bad
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, claimless("has what is no certificate").Because(err)
		}
		h.chain = append(h.chain, c)
	}
	// The key decides the algorithm; a token that says another is none.
	if why := weakKey(h.chain[0]); why != "" || h.alg != algOf(h.chain[0].PublicKey) {
		return nil, claimless("is signed with an algorithm that is not taken, or that is not of its key")
	}
	return h, nil
}

// token is one of an assertion.
type token struct {
	*Claims
	head      string // in base64
	input     string // that is signed
	signature []byte
}

// parseToken reads a token; it looks at no signature.
func parseToken(s string) (t token, err error) {
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return t, claimless("is no token of three parts")
	}
	payload, err := base64.RawURLEncoding.Strict().DecodeString(parts[1])
	if err != nil {
		return t, claimless("is no base64")
	}
	if t.signature, err = base64.RawURLEncoding.Strict().DecodeString(parts[2]); err != nil {
		return t, claimless("is no base64")
	}
	t.head, t.input = parts[0], s[:len(parts[0])+1+len(parts[1])]
	t.Claims, err = parseClaims(string(payload))
	return t, err
}

// parseAssertion reads the tokens of an assertion.
func parseAssertion(b []byte) ([]token, error) {
	if len(b) == 0 {
		return nil, claimless("is missing: a peer vouches for the user of each job")
	}
	if len(b) > maxAssertion {
		return nil, claimless("is longer than %d bytes", maxAssertion)
	}
	s := string(b)
	if strings.Count(s, hop) >= maxTokens {
		return nil, claimless("was passed on by more than %d domains", maxTokens)
	}
	var list []token
	for part := range strings.SplitSeq(s, hop) {
		t, err := parseToken(part)
		if err != nil {
			return nil, err
		}
		list = append(list, t)
	}
	return list, nil
}

// Asserted reads the claims of an assertion, the origin's first, without checking who made them: for
// people, and for who passes it on.
func Asserted(b []byte) ([]Claims, error) {
	tokens, err := parseAssertion(b)
	if err != nil {
		return nil, err
	}
	list := make([]Claims, len(tokens))
	for i, t := range tokens {
		list[i] = *t.Claims
	}
	return list, nil
}

// signed reports whether the key made the token's signature.
func (t *token) signed(h *head) bool {
	sum := sha256.Sum256([]byte(t.input))
	return wssec.VerifyDigest(h.chain[0].PublicKey, sum[:], t.signature)
}
