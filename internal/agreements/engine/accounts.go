package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"

	"github.com/portolan-project/portolan/internal/fail"
)

// Account is what a VO may spend on agreements, and what it has spent.
type Account struct {
	VO string `json:"vo,omitempty"`
	// Limit bounds what is committed and spent together; nil is no bound.
	Limit     *int64 `json:"limit,omitempty"`
	Committed int64  `json:"committed"` // the most that agreements can cost that have not ended
	Spent     int64  `json:"spent"`     // what those cost that have
	// By is the transaction that wrote it.
	By string `json:"by,omitempty"`
}

// MaxAccounts bounds the accounts that there are.
const MaxAccounts = 10_000

type account struct {
	Account
	revision int64 // 0: there is no record
}

func (a account) encode() []byte {
	b, err := json.Marshal(a.Account)
	if err != nil {
		panic("engine: an account is no JSON: " + err.Error())
	}
	return b
}

// decodeAccount gives nil for one that is not there.
func decodeAccount(value []byte) (*Account, error) {
	if value == nil {
		return nil, nil
	}
	a := new(Account)
	if err := json.Unmarshal(value, a); err != nil {
		return nil, fail.E("engine.account", fail.Internal, "", err)
	}
	return a, nil
}

// applyAccount takes what a record says; nil: it is gone. e.mu is held.
func (e *Engine) applyAccount(vo string, a *Account, revision int64) {
	if e.accounts[vo].revision >= revision {
		return
	}
	if a == nil {
		delete(e.accounts, vo)
		return
	}
	e.accounts[vo] = account{*a, revision}
}

// account gives an account as the transaction makes it. Its revision is a condition then.
func (b *batch) account(vo string) *accountDraft {
	d := b.accounts[vo]
	if d == nil {
		d = &accountDraft{account: b.e.accounts[vo]}
		d.VO = vo
		b.accounts[vo] = d
		b.untouch = append(b.untouch, func() { delete(b.accounts, vo) })
	}
	return d
}

// charge commits and spends, if the budget has it.
func (b *batch) charge(vo string, committed, spent int64) error {
	const op = "engine.charge"
	d := b.account(vo)
	used := d.Committed + d.Spent
	more := committed + spent
	switch {
	case more > 0 && d.Limit != nil && used+more > *d.Limit:
		return fail.Errorf(op, fail.Exhausted, vo, "the budget of the VO %q is %d, of which %d is left; this may cost %d", vo, *d.Limit, max(0, *d.Limit-used), more)
	case more > 0 && used+more > MaxPrice:
		return fail.Errorf(op, fail.Exhausted, vo, "the VO %q has spent as much as can be counted", vo)
	case d.revision == 0 && !d.dirty && len(b.e.accounts) >= MaxAccounts:
		return fail.Errorf(op, fail.Exhausted, vo, "there are %d accounts, as many as may be", MaxAccounts)
	}
	b.edit(d, func(a *Account) { a.Committed, a.Spent = a.Committed+committed, a.Spent+spent })
	return nil
}

func (b *batch) edit(d *accountDraft, how func(*Account)) {
	old := *d
	b.undo = append(b.undo, func() { *d = old })
	how(&d.Account)
	d.dirty, d.By = true, b.fence
}

// SetBudget bounds what a VO may spend on agreements; nil is no bound. It ends nothing: a VO
// that has more already gets no new agreement that costs anything.
func (e *Engine) SetBudget(ctx context.Context, vo string, limit *int64) error {
	const op = "engine.SetBudget"
	if len(vo) > MaxName {
		return fail.Errorf(op, fail.Invalid, "", "the name of a VO may have %d bytes; this one has %d", MaxName, len(vo))
	}
	if limit != nil && (*limit < 0 || *limit > MaxPrice) {
		return fail.Errorf(op, fail.Invalid, vo, "the budget of %q is %d; it must be from 0 to %d", vo, *limit, int64(MaxPrice))
	}
	return e.do(ctx, op, func(b *batch) error {
		d := b.account(vo)
		same := (d.Limit == nil) == (limit == nil) && (limit == nil || *d.Limit == *limit)
		switch {
		case same:
			return nil
		case d.revision == 0 && !d.dirty && len(b.e.accounts) >= MaxAccounts:
			return fail.Errorf(op, fail.Exhausted, vo, "there are %d accounts, as many as may be", MaxAccounts)
		}
		b.edit(d, func(a *Account) {
			a.Limit = nil
			if limit != nil {
				a.Limit = new(*limit)
			}
		})
		return nil
	})
}

// Accounts gives what the VOs have, by name.
func (e *Engine) Accounts() []Account {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]Account, 0, len(e.accounts))
	for _, a := range e.accounts {
		out = append(out, a.Account)
	}
	slices.SortFunc(out, func(a, b Account) int { return cmp.Compare(a.VO, b.VO) })
	return out
}
