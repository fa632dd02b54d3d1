package simtest

import (
	"fmt"
	"time"

	"github.com/portolan-project/portolan/peers/ledger"
	"github.com/portolan-project/portolan/peers/wire"
)

// most is how many statements go into one message here: few, so that there are several.
const most = 2

// pairs are the two accounts of a side with its peer.
func (x *side) pairs() [2]ledger.Pair {
	me, they := x.g.g.Domain, x.peer.g.Domain
	return [2]ledger.Pair{{Provider: me, Consumer: they}, {Provider: they, Consumer: me}}
}

// accounts tells the peer how far the accounts with it go, as far as there is anything.
func (x *side) accounts() []wire.Message {
	var out []wire.Message
	for _, p := range x.pairs() {
		if h := x.g.book.Head(p); h.Number > 0 {
			out = append(out, x.account(p))
		}
	}
	return out
}

func (x *side) account(p ledger.Pair) *wire.Account {
	h := x.g.book.Head(p)
	a := &wire.Account{Pair: wire.Pair(p), Number: h.Number, Sum: int64(h.Sum)}
	if h.Number > 0 {
		a.Digest = h.Digest[:]
	}
	if p.Provider == x.g.g.Domain {
		a.Heard = x.g.book.Heard(p)
	}
	return a
}

// auditSoon tells the peer of what is new, a little later.
func (x *side) auditSoon() {
	if !x.open || x.auditing || x.g.w.options.Faults.LedgerNotTold {
		return
	}
	x.auditing = true
	epoch := x.epoch
	x.g.w.after(x.g.w.between(0, 10*time.Second), func() {
		if x.open && x.epoch == epoch {
			x.auditing = false
			x.add(x.accounts()...)
		}
	})
}

// audit takes an item about an account.
func (x *side) audit(m wire.Message) {
	w, b := x.g.w, x.g.book
	bad := func(err error) bool {
		if err != nil {
			w.breach("the ledger of %s: %v", x.g.g.Domain, err)
		}
		return err != nil
	}
	switch m := m.(type) {
	case *wire.Account:
		p := ledger.Pair(m.Pair)
		own := b.Head(p)
		if m.Number > own.Number {
			x.add(x.account(p)) // it has more, and is told from where on
			return
		}
		if m.Number < own.Number {
			h := ledger.Head{Pair: p, Number: m.Number}
			copy(h.Digest[:], m.Digest)
			entries, err := b.After(h, most)
			if !bad(err) {
				x.add(statements(p, entries, m.Number+uint64(len(entries)) < own.Number, p.Consumer == x.g.g.Domain))
			}
		}
		if p.Consumer == x.g.g.Domain && m.Heard < own.Number {
			x.verdicts(p, m.Heard)
		}
	case *wire.Statements:
		p := ledger.Pair(m.Pair)
		var entries []ledger.Entry
		for _, s := range m.List {
			statement, err := ledger.Parse(s.Canonical)
			if bad(err) {
				return
			}
			entries = append(entries, ledger.Entry{Statement: statement, Signature: s.Signature, Verdict: ledger.Verdict(s.Verdict), Reason: s.Reason, Answer: s.Answer})
		}
		if bad(b.Take(p, entries)) {
			return
		}
		w.counters.Statements += len(entries)
		if p.Consumer == x.g.g.Domain {
			x.verdicts(p, entries[0].Statement.Number-1)
		}
		if m.More {
			x.add(x.account(p))
		}
	case *wire.Verdicts:
		var said []ledger.Said
		for _, v := range m.List {
			s := ledger.Said{Number: v.Number, Verdict: ledger.Verdict(v.Verdict), Reason: v.Reason, Answer: v.Signature}
			copy(s.Digest[:], v.Digest)
			said = append(said, s)
		}
		bad(b.Hear(ledger.Pair(m.Pair), said))
	}
}

// verdicts says what this side, as the consumer, says to the statements after a number.
func (x *side) verdicts(p ledger.Pair, after uint64) {
	said := x.g.book.Verdicts(p, after, wire.MaxVerdicts)
	if len(said) == 0 {
		return
	}
	m := &wire.Verdicts{Pair: wire.Pair(p)}
	for _, s := range said {
		m.List = append(m.List, wire.Said{Number: s.Number, Verdict: wire.Verdict(s.Verdict), Reason: s.Reason, Digest: s.Digest[:], Signature: s.Answer})
	}
	x.add(m)
}

// statements are entries of an account as an item; a consumer gives them back to a
// provider with what it said to them. Nobody signs here.
func statements(p ledger.Pair, entries []ledger.Entry, more, back bool) *wire.Statements {
	m := &wire.Statements{Pair: wire.Pair(p), More: more}
	for _, e := range entries {
		s := wire.Statement{Canonical: e.Statement.Canonical(), Signature: []byte("unsigned")}
		if back {
			s.Verdict, s.Reason, s.Answer = wire.Verdict(e.Verdict), e.Reason, e.Answer
		}
		m.List = append(m.List, s)
	}
	return m
}

// unlike says in what the two books of a pair differ; "" if they do not.
func (x *side) unlike() string {
	for _, p := range x.pairs() {
		a, b := x.g.book.Head(p), x.peer.book.Head(p)
		if a != b {
			return fmt.Sprintf("the books of %s differ: %s has %s, and %s has %s", p, x.g.g.Domain, a, x.peer.g.Domain, b)
		}
		if provider := x.g; p.Provider == provider.g.Domain && provider.book.Heard(p) < a.Number {
			return fmt.Sprintf("%s has heard what %s says up to %d of %d statements", p.Provider, p.Consumer, provider.book.Heard(p), a.Number)
		}
	}
	return ""
}
