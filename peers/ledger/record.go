package ledger

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/handover"
)

// MaxBook bounds the bytes of a book.
const MaxBook = 256 << 20

type bookRecord struct {
	Domain   string          `json:"domain"`
	Accounts []accountRecord `json:"accounts,omitempty"`
}

type accountRecord struct {
	Base Head         `json:"base"`
	Tail []Entry      `json:"tail,omitempty"`
	Owed []owedRecord `json:"owed,omitempty"`
	// What the trimmed statements came to.
	Agreed handover.CPUTime `json:"agreed,omitempty"`
}

type owedRecord struct {
	Charge  handover.Charge `json:"charge"`
	Claimed uint64          `json:"claimed,omitempty"`
}

// Owed is a charge that was noted, and the statement that claims it; 0 is none yet.
type Owed struct {
	Charge  handover.Charge `json:"charge"`
	Claimed uint64          `json:"claimed,omitempty"`
}

// Kept is an account in parts, for who writes them one by one.
type Kept struct {
	Base   Head             `json:"base"`             // what was trimmed
	Agreed handover.CPUTime `json:"agreed,omitempty"` // of that, what was agreed
	Tail   []Entry          `json:"tail,omitempty"`
	Owed   []Owed           `json:"owed,omitempty"`
}

// Restore makes a book of accounts in parts. Statements that do not follow each other are
// fail.Invalid or fail.Conflict: they were changed.
func Restore(domain string, accounts []Kept) (*Book, error) {
	b := New(domain)
	for _, k := range accounts {
		x := accountRecord{Base: k.Base, Tail: k.Tail, Agreed: k.Agreed}
		for _, o := range k.Owed {
			x.Owed = append(x.Owed, owedRecord(o))
		}
		if err := b.restoreAccount(x); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// Base gives what was trimmed of an account, and what of it was agreed.
func (b *Book) Base(p Pair) (Head, handover.CPUTime) {
	if a := b.accounts[p]; a != nil {
		return a.base, a.trimmed
	}
	return Head{Pair: p}, 0
}

// Entry gives a statement that is kept.
func (b *Book) Entry(p Pair, number uint64) (Entry, bool) {
	if a := b.accounts[p]; a != nil {
		if e := a.entry(number); e != nil {
			return *e, true
		}
	}
	return Entry{}, false
}

// Owed gives the charge by a provider that is noted for a copy.
func (b *Book) Owed(provider string, k handover.Key, t handover.Token) (Owed, bool) {
	if a := b.accounts[Pair{provider, b.domain}]; a != nil {
		if o, ok := a.owed[copyOf{k, t}]; ok {
			return Owed{o.Charge, o.claimed}, true
		}
	}
	return Owed{}, false
}

// Encode gives the book as bytes, the same for the same book.
func (b *Book) Encode() ([]byte, error) {
	r := bookRecord{Domain: b.domain}
	for _, p := range b.Pairs() {
		a := b.accounts[p]
		x := accountRecord{Base: a.base, Tail: a.tail, Agreed: a.trimmed}
		keys := slices.SortedFunc(maps.Keys(a.owed), func(m, n copyOf) int {
			return cmp.Or(strings.Compare(m.key.Origin, n.key.Origin), strings.Compare(m.key.ID, n.key.ID), m.token.Compare(n.token))
		})
		for _, k := range keys {
			x.Owed = append(x.Owed, owedRecord{a.owed[k].Charge, a.owed[k].claimed})
		}
		r.Accounts = append(r.Accounts, x)
	}
	out, err := json.Marshal(r)
	if err != nil {
		return nil, fail.E("ledger.Encode", fail.Internal, b.domain, err)
	}
	return out, nil
}

// Decode reads a book back. One whose statements do not follow each other is fail.Invalid:
// it was changed.
func Decode(data []byte) (*Book, error) {
	const op = "ledger.Decode"
	if len(data) > MaxBook {
		return nil, fail.Errorf(op, fail.Invalid, "", "the book is larger than %d bytes; trim it", MaxBook)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	var r bookRecord
	if err := d.Decode(&r); err != nil {
		return nil, fail.Errorf(op, fail.Invalid, "", "the book can't be read; restore it from a backup").Because(err)
	}
	b := New(r.Domain)
	for _, x := range r.Accounts {
		if err := b.restoreAccount(x); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (b *Book) restoreAccount(x accountRecord) error {
	if b.accounts[x.Base.Pair] != nil {
		return fail.Errorf("ledger.Decode", fail.Invalid, x.Base.Pair.String(), "the account is there twice; restore the book from a backup")
	}
	a, err := b.account(x.Base.Pair)
	if err != nil {
		return err
	}
	a.base = x.Base
	a.trimmed, a.agreed = x.Agreed, x.Agreed
	for _, o := range x.Owed {
		a.owed[copyOf{o.Charge.Key, o.Charge.Token}] = owed{o.Charge, o.Claimed}
	}
	for _, e := range x.Tail {
		if err := a.restore(e); err != nil {
			return err
		}
	}
	return nil
}

// restore appends a statement as it was.
func (a *account) restore(e Entry) error {
	verdict := e.Verdict
	if verdict == Withdrawn {
		e.Verdict = Unheard // the statement that withdrew it follows, and finds it so
	}
	if w := e.Statement.Withdraws; w > 0 && w <= a.base.Number {
		// What it withdrew was trimmed. It still follows the one before.
		h, s := a.head(), e.Statement
		if err := s.Check(); err != nil {
			return err
		}
		if s.Pair != a.pair || s.Number != h.Number+1 || s.Previous != h.Digest || s.Sum != h.Sum-s.Used {
			return fail.Errorf("ledger.Decode", fail.Conflict, a.pair.String(), "statement %d does not follow the one before; restore the book from a backup", s.Number)
		}
		a.tail = append(a.tail, e)
		return nil
	}
	if err := a.follows(e.Statement); err != nil {
		return err
	}
	claims := a.owed[copyOf{e.Statement.Key, e.Statement.Token}]
	a.append(e)
	if o, ok := a.owed[copyOf{e.Statement.Key, e.Statement.Token}]; ok && o != claims {
		a.owed[copyOf{e.Statement.Key, e.Statement.Token}] = claims // it is told as it is after all statements
	}
	return nil
}
