package conformance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/portolan-project/portolan/peers/wire"
)

const favourLedger = "The favour ledger"

var peerLedgerChecks = []check{
	{"PEER-LED-1", chapter(favourLedger + " 1"), "what a copy used is claimed once its end was taken, and the Account tells of it", claims},
	{"PEER-LED-2", chapter(favourLedger + " (canonical form); 1"), "who lacks statements gets them in order, in their canonical form, each with the digest of the one before", statements},
	{"PEER-LED-3", chapter(favourLedger + " (signatures)"), "each statement is signed by the provider", statementsSigned},
	{"PEER-LED-4", chapter(favourLedger + " 1"), "who lacks no statements gets none", statementsOnce},
	{"PEER-LED-5", chapter(favourLedger + " (signatures)"), "a verdict that the consumer did not sign is not heeded", verdictUnsigned},
	{"PEER-LED-6", chapter(favourLedger + " 2; Account (heard)"), "a verdict that the consumer signed is kept: the Account has heard it", verdictSigned},
	{"PEER-LED-7", chapter(favourLedger), "an account of other domains is not told", otherAccount},
	{"PEER-LED-8", chapter(favourLedger + " (signatures)"), "a statement that the provider did not sign is not taken", claimUnsigned},
	{"PEER-LED-9", chapter(favourLedger + " 2"), "a signed claim for what nobody had settled is contested, with a reason and the consumer's signature", claimContested},
	{"PEER-LED-10", chapter(favourLedger + " 3"), "an Account with another digest is answered with a Probe", probed},
}

// claim is a statement of the ledger as the kit reads it.
type claim struct {
	number    uint64
	digest    [32]byte
	sum       int64
	canonical []byte
	signature []byte
}

// favourFields are the lines of a statement's canonical form after the first.
var favourFields = []string{"provider", "consumer", "number", "previous", "origin", "job", "token", "outcome", "used", "withdraws", "sum", "issued"}

// canonicalLines writes lines of the ledger's canonical form: docs/peer-protocol.md.
func canonicalLines(head string, pairs ...[2]string) []byte {
	b := []byte(head + "\n")
	for _, p := range pairs {
		b = fmt.Appendf(b, "%s:%d:%s\n", p[0], len(p[1]), p[1])
	}
	return b
}

// readFavour takes a statement's canonical form apart.
func readFavour(b []byte) (map[string]string, error) {
	rest, ok := strings.CutPrefix(string(b), "portolan-favour/1\n")
	if !ok {
		return nil, errors.New("its first line is not portolan-favour/1")
	}
	out := map[string]string{}
	for _, name := range favourFields {
		var length string
		if rest, ok = strings.CutPrefix(rest, name+":"); !ok {
			return nil, fmt.Errorf("the line %s is not where it belongs", name)
		}
		length, rest, _ = strings.Cut(rest, ":")
		n, err := strconv.Atoi(length)
		if err != nil || n < 0 || n >= len(rest) || rest[n] != '\n' || strconv.Itoa(n) != length {
			return nil, fmt.Errorf("the length of %s is %q", name, length)
		}
		out[name], rest = rest[:n], rest[n+1:]
	}
	if rest != "" {
		return nil, errors.New("something follows its last line")
	}
	for _, name := range []string{"number", "used", "withdraws", "sum", "issued"} {
		if n, err := strconv.ParseInt(out[name], 10, 64); err != nil || strconv.FormatInt(n, 10) != out[name] {
			return nil, fmt.Errorf("%s is %q: wanted a decimal number", name, out[name])
		}
	}
	return out, nil
}

// hasLedger gives a session in which the ledger was agreed on.
func (p *probe) hasLedger(ctx context.Context) (*visit, error) {
	v, err := p.standing(ctx)
	if err == nil && !slices.Contains(v.opened.Features, wire.FeatureLedger) {
		err = skip("the endpoint does not know the feature %s", wire.FeatureLedger)
	}
	return v, err
}

// givenTo is the account of what the endpoint did for the kit's domain, and takenBy the other way.
func (v *visit) givenTo() wire.Pair {
	return wire.Pair{Provider: v.opened.Domain, Consumer: v.open.Domain}
}

func (v *visit) takenBy() wire.Pair {
	return wire.Pair{Provider: v.open.Domain, Consumer: v.opened.Domain}
}

// accounted gives the last Account of a pair that was told; nil if none was.
func (v *visit) accounted(of wire.Pair) (last *wire.Account) {
	for _, m := range v.since(0) {
		if a, ok := m.(*wire.Account); ok && a.Pair == of {
			last = a
		}
	}
	return last
}

// used has the endpoint run a job, takes its end, and waits for the claim.
func (p *probe) used(ctx context.Context) (*visit, *wire.Account, error) {
	if _, err := p.hasLedger(ctx); err != nil {
		return nil, nil, err
	}
	v, r, mark, err := p.begun(ctx, p.opts.Programs.True)
	if err != nil {
		return nil, nil, err
	}
	end, err := v.status(ctx, mark, r.About, "the copy is over", final)
	if err != nil {
		return nil, nil, err
	}
	var before uint64
	if a := v.accounted(v.givenTo()); a != nil {
		before = a.Number
	}
	mark = v.mark()
	if _, err := v.give(ctx, &wire.Settle{About: r.About, Taken: true}); err != nil {
		return nil, nil, err
	}
	a, err := await(ctx, v, mark, fmt.Sprintf("Account of what %s did for %s", v.opened.Domain, v.open.Domain), func(a *wire.Account) bool {
		return a.Pair == v.givenTo() && a.Number > before
	})
	if err != nil {
		return nil, nil, fmt.Errorf("the copy used %v, its end was taken, and %w", end.Used, err)
	}
	return v, a, nil
}

// owing gives an Account with statements, of a job of before where there was one.
func (p *probe) owing(ctx context.Context) (*visit, *wire.Account, error) {
	v, err := p.hasLedger(ctx)
	if err != nil {
		return nil, nil, err
	}
	if a := v.accounted(v.givenTo()); a != nil && a.Number > 0 {
		return v, a, nil
	}
	return p.used(ctx)
}

func claims(ctx context.Context, p *probe) (string, error) {
	_, a, err := p.used(ctx)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d statements, %d ms in all", a.Number, a.Sum), nil
}

// claims gets the statements of an account from the first one on, and holds them to the rules.
func (v *visit) claims(ctx context.Context, a *wire.Account) ([]claim, error) {
	var out []claim
	asked := &wire.Account{Pair: a.Pair}
	for {
		mark := v.mark()
		if _, err := v.give(ctx, asked); err != nil {
			return nil, err
		}
		m, err := await(ctx, v, mark, "Statements", func(s *wire.Statements) bool { return s.Pair == a.Pair })
		if err != nil {
			return nil, err
		}
		for i := range m.List {
			c := claim{canonical: m.List[i].Canonical, signature: m.List[i].Signature, digest: sha256.Sum256(m.List[i].Canonical)}
			f, err := readFavour(c.canonical)
			if err != nil {
				return nil, fmt.Errorf("statement %d is not in the canonical form: %w", len(out)+1, err)
			}
			previous := make([]byte, 32)
			sum := int64(0)
			if n := len(out); n > 0 {
				previous, sum = out[n-1].digest[:], out[n-1].sum
			}
			c.number, _ = strconv.ParseUint(f["number"], 10, 64) // they were read as numbers
			c.sum, _ = strconv.ParseInt(f["sum"], 10, 64)
			used, _ := strconv.ParseInt(f["used"], 10, 64)
			if f["withdraws"] != "0" {
				used = -used
			}
			switch {
			case f["provider"] != a.Provider || f["consumer"] != a.Consumer:
				return nil, fmt.Errorf("statement %s is of %s for %s: wanted %s for %s", f["number"], f["provider"], f["consumer"], a.Provider, a.Consumer)
			case c.number != uint64(len(out)+1):
				return nil, fmt.Errorf("statement %d came after statement %d", c.number, len(out))
			case f["previous"] != hex.EncodeToString(previous):
				return nil, fmt.Errorf("statement %d has %s for the digest of the one before, which is %x", c.number, f["previous"], previous)
			case c.sum != sum+used:
				return nil, fmt.Errorf("statement %d claims %d ms after %d, and has the sum %d", c.number, used, sum, c.sum)
			}
			out = append(out, c)
		}
		if last := out[len(out)-1]; !m.More {
			if last.number < a.Number || last.number == a.Number && (!bytes.Equal(last.digest[:], a.Digest) || last.sum != a.Sum) {
				return nil, fmt.Errorf("the Account goes up to statement %d with %x and %d ms, and the statements up to %d with %x and %d ms", a.Number, a.Digest, a.Sum, last.number, last.digest, last.sum)
			}
			return out, nil
		} else if len(out) > 10_000 {
			return nil, skip("the account has more than %d statements: use a domain that is for this alone", len(out))
		} else {
			asked = &wire.Account{Pair: a.Pair, Number: last.number, Sum: last.sum, Digest: last.digest[:]}
		}
	}
}

func statements(ctx context.Context, p *probe) (string, error) {
	v, a, err := p.owing(ctx)
	if err != nil {
		return "", err
	}
	all, err := v.claims(ctx, a)
	return fmt.Sprintf("%d statements", len(all)), err
}

func statementsSigned(ctx context.Context, p *probe) (string, error) {
	if p.opts.Guest.Signed == nil {
		return "", skip("the kit does not know the endpoint's key")
	}
	v, a, err := p.owing(ctx)
	if err != nil {
		return "", err
	}
	all, err := v.claims(ctx, a)
	if err != nil {
		return "", err
	}
	for _, c := range all {
		if err := p.opts.Guest.Signed(a.Provider, c.canonical, c.signature); err != nil {
			return "", fmt.Errorf("the signature of statement %d: %w", c.number, err)
		}
	}
	return fmt.Sprintf("%d signatures", len(all)), nil
}

func statementsOnce(ctx context.Context, p *probe) (string, error) {
	v, a, err := p.owing(ctx)
	if err != nil {
		return "", err
	}
	all, err := v.claims(ctx, a)
	if err != nil {
		return "", err
	}
	last := all[len(all)-1]
	mark := v.mark()
	if err := v.caughtUp(ctx, &wire.Account{Pair: a.Pair, Number: last.number, Sum: last.sum, Digest: last.digest[:]}); err != nil {
		return "", err
	}
	for _, m := range v.since(mark) {
		if s, ok := m.(*wire.Statements); ok && s.Pair == a.Pair {
			return "", fmt.Errorf("the kit has all %d statements, and %d came", last.number, len(s.List))
		}
	}
	return fmt.Sprintf("none after %d", last.number), nil
}

// verdictOf is what a consumer signs.
func verdictOf(digest []byte, verdict wire.Verdict, reason string) []byte {
	return canonicalLines("portolan-verdict/1", [2]string{"statement", hex.EncodeToString(digest)}, [2]string{"verdict", string(verdict)}, [2]string{"reason", reason})
}

// judged agrees to all statements of an account, signed or not, and gives the Account in the next
// session.
func (p *probe) judged(ctx context.Context, signed bool) (upto uint64, next *wire.Account, err error) {
	sign := p.opts.Guest.Signature
	if sign == nil {
		return 0, nil, skip("the kit has no key to sign verdicts with")
	}
	v, a, err := p.used(ctx)
	if err != nil {
		return 0, nil, err
	}
	all, err := v.claims(ctx, a)
	if err != nil {
		return 0, nil, err
	}
	for part := range slices.Chunk(all, wire.MaxVerdicts) {
		said := &wire.Verdicts{Pair: a.Pair}
		for _, c := range part {
			what := verdictOf(c.digest[:], wire.VerdictAgreed, "")
			if !signed {
				what = verdictOf(c.digest[:], wire.VerdictContested, "another verdict than is said")
			}
			s, err := sign(what)
			if err != nil {
				return 0, nil, fmt.Errorf("the kit can't sign its verdict: %w", err)
			}
			said.List = append(said.List, wire.Said{Number: c.number, Verdict: wire.VerdictAgreed, Digest: c.digest[:], Signature: s})
		}
		if err := v.caughtUp(ctx, said); err != nil {
			return 0, nil, err
		}
	}
	// An Account is told when a session begins.
	if v, err = p.begin(ctx, nil); err != nil {
		return 0, nil, err
	}
	p.visit = v
	next, err = await(ctx, v, 0, "Account", func(x *wire.Account) bool { return x.Pair == a.Pair })
	return all[len(all)-1].number, next, err
}

func verdictUnsigned(ctx context.Context, p *probe) (string, error) {
	n, a, err := p.judged(ctx, false)
	if err != nil {
		return "", err
	}
	if a.Heard >= n {
		return "", fmt.Errorf("the verdict on statement %d was signed for other words, and heard is %d", n, a.Heard)
	}
	return fmt.Sprintf("heard is %d of %d", a.Heard, n), nil
}

func verdictSigned(ctx context.Context, p *probe) (string, error) {
	n, a, err := p.judged(ctx, true)
	if err != nil {
		return "", err
	}
	if a.Heard < n {
		return "", fmt.Errorf("the kit agreed to all %d statements, and heard is %d", n, a.Heard)
	}
	return fmt.Sprintf("heard is %d of %d", a.Heard, n), nil
}

func otherAccount(ctx context.Context, p *probe) (string, error) {
	v, _, err := p.owing(ctx)
	if err != nil {
		return "", err
	}
	others := wire.Pair{Provider: v.opened.Domain, Consumer: "stranger.invalid"}
	mark := v.mark()
	if err := v.caughtUp(ctx, &wire.Account{Pair: others}); err != nil {
		return "", err
	}
	for _, m := range v.since(mark) {
		switch m := m.(type) {
		case *wire.Statements:
			if m.Pair == others {
				return "", fmt.Errorf("%d statements of %s for %s were told to %s", len(m.List), m.Provider, m.Consumer, v.open.Domain)
			}
		case *wire.Account:
			if m.Pair == others {
				return "", fmt.Errorf("the account of %s for %s was told to %s", m.Provider, m.Consumer, v.open.Domain)
			}
		}
	}
	return "nothing was told", nil
}

// claimed makes a claim of the kit's for a job that it never had; what is signed may be something
// else than is claimed.
func (p *probe) claimed(ctx context.Context, signed bool) (*visit, *wire.Statements, [32]byte, uint64, error) {
	none := func(err error) (*visit, *wire.Statements, [32]byte, uint64, error) {
		return nil, nil, [32]byte{}, 0, err
	}
	sign := p.opts.Guest.Signature
	if sign == nil {
		return none(skip("the kit has no key to sign claims with"))
	}
	v, err := p.hasLedger(ctx)
	if err != nil {
		return none(err)
	}
	// Who has less tells how far its account goes.
	mark := v.mark()
	if _, err := v.give(ctx, &wire.Account{Pair: v.takenBy(), Number: wire.MaxBooked, Digest: bytes.Repeat([]byte{1}, 32)}); err != nil {
		return none(err)
	}
	at, err := await(ctx, v, mark, "Account of one who has less", func(a *wire.Account) bool { return a.Pair == v.takenBy() })
	if err != nil {
		return none(err)
	}
	previous := at.Digest
	if at.Number == 0 {
		previous = make([]byte, 32)
	}
	const used = 1000
	n := at.Number + 1
	text := canonicalLines("portolan-favour/1", [2]string{"provider", v.open.Domain}, [2]string{"consumer", v.opened.Domain}, [2]string{"number", strconv.FormatUint(n, 10)},
		[2]string{"previous", hex.EncodeToString(previous)}, [2]string{"origin", v.opened.Domain}, [2]string{"job", p.fresh("never")}, [2]string{"token", "1"}, [2]string{"outcome", "finished"},
		[2]string{"used", strconv.Itoa(used)}, [2]string{"withdraws", "0"}, [2]string{"sum", strconv.FormatInt(at.Sum+used, 10)}, [2]string{"issued", strconv.FormatInt(time.Now().UnixNano(), 10)})
	what := text
	if !signed {
		what = []byte("something else")
	}
	s, err := sign(what)
	if err != nil {
		return none(fmt.Errorf("the kit can't sign its claim: %w", err))
	}
	return v, &wire.Statements{Pair: v.takenBy(), List: []wire.Statement{{Canonical: text, Signature: s}}}, sha256.Sum256(text), n, nil
}

func claimUnsigned(ctx context.Context, p *probe) (string, error) {
	v, s, _, n, err := p.claimed(ctx, false)
	if err != nil {
		return "", err
	}
	mark := v.mark()
	if err := v.caughtUp(ctx, s); err != nil {
		return "", err
	}
	for _, m := range v.since(mark) {
		if x, ok := m.(*wire.Verdicts); ok && x.Pair == s.Pair {
			return "", fmt.Errorf("statement %d was signed for other words, and got a verdict", n)
		}
	}
	return "no verdict", nil
}

func claimContested(ctx context.Context, p *probe) (string, error) {
	v, s, digest, n, err := p.claimed(ctx, true)
	if err != nil {
		return "", err
	}
	mark := v.mark()
	if _, err := v.give(ctx, s); err != nil {
		return "", err
	}
	m, err := await(ctx, v, mark, "Verdicts", func(x *wire.Verdicts) bool {
		return x.Pair == s.Pair && slices.ContainsFunc(x.List, func(s wire.Said) bool { return s.Number == n })
	})
	if err != nil {
		return "", err
	}
	said := m.List[slices.IndexFunc(m.List, func(s wire.Said) bool { return s.Number == n })]
	switch {
	case said.Verdict != wire.VerdictContested:
		return "", fmt.Errorf("the kit claimed what it never did, and the verdict is %s", said.Verdict)
	case !bytes.Equal(said.Digest, digest[:]):
		return "", fmt.Errorf("the verdict is on a statement with the digest %x, and the kit's has %x", said.Digest, digest)
	}
	if known := p.opts.Guest.Signed; known != nil {
		if err := known(v.opened.Domain, verdictOf(said.Digest, said.Verdict, said.Reason), said.Signature); err != nil {
			return "", fmt.Errorf("the signature of the verdict: %w", err)
		}
	}
	return string(said.Verdict) + ": " + said.Reason, nil
}

func probed(ctx context.Context, p *probe) (string, error) {
	v, a, err := p.owing(ctx)
	if err != nil {
		return "", err
	}
	other := &wire.Account{Pair: a.Pair, Number: a.Number, Sum: a.Sum, Digest: slices.Clone(a.Digest)}
	other.Digest[0] ^= 0xff
	mark := v.mark()
	if _, err := v.give(ctx, other); err != nil {
		return "", err
	}
	m, err := await(ctx, v, mark, "Probe", func(x *wire.Probe) bool { return x.Pair == a.Pair })
	if err != nil {
		return "", err
	}
	// It is not answered, so that the account goes on.
	if m.Differs != a.Number {
		return "", fmt.Errorf("the digest of statement %d is another, and the Probe says so of %d", a.Number, m.Differs)
	}
	for _, d := range m.List {
		if d.Number == a.Number && !bytes.Equal(d.Digest, a.Digest) {
			return "", fmt.Errorf("the Probe has %x for statement %d, and the Account had %x", d.Digest, d.Number, a.Digest)
		}
	}
	return fmt.Sprintf("same %d, differs %d, %d digests", m.Same, m.Differs, len(m.List)), nil
}
