package ledger

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/handover"
)

// Book has all accounts of a domain.
type Book struct {
	domain   string
	accounts map[Pair]*account
}

// New makes an empty book.
func New(domain string) *Book { return &Book{domain: domain, accounts: map[Pair]*account{}} }

// account gives the pair's, made if there is none; fail.Invalid for one that is not ours.
func (b *Book) account(p Pair) (*account, error) {
	if a := b.accounts[p]; a != nil {
		return a, nil
	}
	if p.Provider == p.Consumer || p.Provider == "" || p.Consumer == "" || p.Provider != b.domain && p.Consumer != b.domain {
		return nil, fail.Errorf("ledger.Book", fail.Invalid, p.String(), "the account is none of %s's: one of its two domains must be %s", b.domain, b.domain)
	}
	a := newAccount(p)
	b.accounts[p] = a
	return a, nil
}

// Owe notes what this domain owes: against it statements are held. The same charge again
// changes nothing; fail.Conflict is another one for the same copy.
func (b *Book) Owe(c handover.Charge) error {
	if c.Consumer != b.domain || c.Used <= 0 {
		return fail.Errorf("ledger.Owe", fail.Invalid, c.Key.String(), "a charge must be owed by %s, for a time above zero", b.domain)
	}
	a, err := b.account(Pair{c.Provider, c.Consumer})
	if err != nil {
		return err
	}
	k := copyOf{c.Key, c.Token}
	if o, ok := a.owed[k]; ok {
		if o.Charge != c {
			return fail.Errorf("ledger.Owe", fail.Conflict, c.Key.String(), "another charge was noted for the token %s", c.Token)
		}
		return nil
	}
	a.owed[k] = owed{Charge: c}
	return nil
}

// Owes reports whether a charge by the provider is noted for the copy: handover's Owed.
func (b *Book) Owes(provider string, k handover.Key, t handover.Token) bool {
	a := b.accounts[Pair{provider, b.domain}]
	if a == nil {
		return false
	}
	_, ok := a.owed[copyOf{k, t}]
	return ok
}

// Earn makes the next statement of what this domain did. The same charge again gives the
// statement that there is.
func (b *Book) Earn(c handover.Charge, now time.Time) (Statement, error) {
	if c.Provider != b.domain {
		return Statement{}, fail.Errorf("ledger.Earn", fail.Invalid, c.Key.String(), "only what %s did is claimed here", b.domain)
	}
	a, err := b.account(Pair{c.Provider, c.Consumer})
	if err != nil {
		return Statement{}, err
	}
	if n, ok := a.claimed[copyOf{c.Key, c.Token}]; ok {
		if e := a.entry(n); e != nil && e.Statement.Used == c.Used && e.Statement.Outcome == c.Outcome {
			return e.Statement, nil
		}
		return Statement{}, fail.Errorf("ledger.Earn", fail.Conflict, c.Key.String(), "another claim was made for the token %s", c.Token)
	}
	h := a.head()
	s := Statement{
		Pair: a.pair, Number: h.Number + 1, Previous: h.Digest, Key: c.Key, Token: c.Token, Outcome: c.Outcome,
		Used: c.Used, Sum: h.Sum + c.Used, Issued: now.UTC().Round(0),
	}
	if err := a.follows(s); err != nil {
		return Statement{}, err
	}
	a.append(Entry{Statement: s, Verdict: Unheard})
	return s, nil
}

// Withdraw takes a claim of this domain back.
func (b *Book) Withdraw(p Pair, number uint64, now time.Time) (Statement, error) {
	a := b.accounts[p]
	if a == nil || p.Provider != b.domain || a.entry(number) == nil {
		return Statement{}, fail.Errorf("ledger.Withdraw", fail.NotFound, p.String(), "there is no statement %d of %s to withdraw", number, b.domain)
	}
	h, o := a.head(), a.entry(number).Statement
	s := o
	s.Number, s.Previous, s.Withdraws, s.Sum, s.Issued = h.Number+1, h.Digest, number, h.Sum-o.Used, now.UTC().Round(0)
	if err := a.follows(s); err != nil {
		return Statement{}, err
	}
	a.append(Entry{Statement: s})
	return s, nil
}

// Sign puts the signature of this domain to a statement: the provider's, or the
// consumer's to its answer.
func (b *Book) Sign(p Pair, number uint64, signature []byte) error {
	a := b.accounts[p]
	if a == nil || a.entry(number) == nil {
		return fail.Errorf("ledger.Sign", fail.NotFound, p.String(), "there is no statement %d", number)
	}
	if e := a.entry(number); p.Provider == b.domain {
		e.Signature = slices.Clone(signature)
	} else {
		e.Answer = slices.Clone(signature)
	}
	return nil
}

// Balance is how a domain stands with a peer. Work that is contested counts for nobody.
type Balance struct {
	Did, Got handover.CPUTime // what this domain gave, and took, agreed on both sides
	// Unheard is what this domain gave and the peer has not yet said anything to, and
	// Unclaimed what it took and the peer has not yet claimed.
	Unheard, Unclaimed handover.CPUTime
	Contested          handover.CPUTime // in both directions
}

// Surplus is how much more the peer did for us than we for it, with what is on its way;
// below zero the peer owes us.
func (b Balance) Surplus() handover.CPUTime { return b.Got + b.Unclaimed - b.Did - b.Unheard }

// Balance gives how the domain stands with the peer.
func (b *Book) Balance(peer string) Balance {
	var out Balance
	if a := b.accounts[Pair{b.domain, peer}]; a != nil {
		out.Did = a.agreed
		out.Contested += a.contested
		for i := range a.tail {
			if e := &a.tail[i]; e.Verdict == Unheard {
				out.Unheard += e.Statement.Used
			}
		}
	}
	if a := b.accounts[Pair{peer, b.domain}]; a != nil {
		out.Got = a.agreed
		out.Contested += a.contested
		for _, o := range a.owed {
			if o.claimed == 0 {
				out.Unclaimed += o.Used
			}
		}
	}
	return out
}

// Pairs lists the accounts, in order.
func (b *Book) Pairs() []Pair {
	return slices.SortedFunc(maps.Keys(b.accounts), func(x, y Pair) int {
		return cmp.Or(strings.Compare(x.Provider, y.Provider), strings.Compare(x.Consumer, y.Consumer))
	})
}

// Entries gives what is kept of an account, in order, for those who audit.
func (b *Book) Entries(p Pair) []Entry {
	if a := b.accounts[p]; a != nil {
		return slices.Clone(a.tail)
	}
	return nil
}

// Trim drops what is settled and known to be so on both sides, all but the last keep statements of each
// account, and gives how many it dropped. They stay in the store of who must show them.
//
// Of an account of what others claim no more than most statements are kept, whatever was said
// to them: a provider that makes claims without end, or never tells that it has heard of the
// verdicts, is not to fill this domain's memory. What was contested goes with them; a
// withdrawal of it that comes later is taken. 0 is no bound.
func (b *Book) Trim(keep, most int) int {
	n := 0
	for p, a := range b.accounts {
		n += a.trim(max(keep, 0), a.heard)
		if most > 0 && p.Consumer == b.domain && len(a.tail) > most {
			n += a.drop(most - most/10)
		}
	}
	return n
}
