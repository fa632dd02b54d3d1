package engine

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

// Account is what a VO may spend on agreements, and what it has spent.
type Account struct {
	VO string `json:"vo,omitempty"`
	// Limit bounds what is committed and spent together, in each Period; nil is no bound.
	Limit     *int64 `json:"limit,omitempty"`
	Period    Period `json:"period,omitempty"`
	Committed int64  `json:"committed"` // the most that agreements can cost that have not ended
	Spent     int64  `json:"spent"`     // what those cost that have
	// Days has both for agreements whose windows begin on a day, by its date, from when a Period was
	// set on.
	Days map[string]Sum `json:"days,omitempty"`
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

// charge commits and spends, if the budget has it in the period of a moment.
func (b *batch) charge(vo string, at time.Time, committed, spent int64) error {
	const op = "engine.charge"
	d := b.account(vo)
	more := committed + spent
	used, from, next := d.within(at)
	say := b.e.opts.Amount
	switch {
	case more > 0 && d.Limit != nil && used+more > *d.Limit && d.Period == Ever:
		return fail.Errorf(op, fail.Exhausted, vo, "the budget of the VO %q is %s, of which %s is left; this may cost %s", vo, say(*d.Limit), say(max(0, *d.Limit-used)), say(more))
	case more > 0 && d.Limit != nil && used+more > *d.Limit:
		return fail.Errorf(op, fail.Exhausted, vo, "the budget of the VO %q is %s for each %s, and of that for the one from %s %s is left; this may cost %s: ask for less, or for a time in the next, which begins at %s",
			vo, say(*d.Limit), d.Period, from.Format(time.RFC3339), say(max(0, *d.Limit-used)), say(more), next.Format(time.RFC3339))
	case more > 0 && d.Committed+d.Spent+more > MaxPrice:
		return fail.Errorf(op, fail.Exhausted, vo, "the VO %q has spent as much as can be counted", vo)
	case d.revision == 0 && !d.dirty && len(b.e.accounts) >= MaxAccounts:
		return fail.Errorf(op, fail.Exhausted, vo, "there are %d accounts, as many as may be", MaxAccounts)
	}
	b.edit(d, func(a *Account) {
		a.Committed, a.Spent = a.Committed+committed, a.Spent+spent
		a.count(at, committed, spent, b.now)
	})
	return nil
}

func (b *batch) edit(d *accountDraft, how func(*Account)) {
	old := *d
	b.undo = append(b.undo, func() { *d = old })
	how(&d.Account)
	d.dirty, d.By = true, b.fence
}

// SetBudget bounds what a VO may spend on agreements in all; nil is no bound. It ends nothing: a VO
// that has more already gets no new agreement that costs anything.
func (e *Engine) SetBudget(ctx context.Context, vo string, limit *int64) error {
	return e.SetBudgetFor(ctx, vo, limit, Ever)
}

// SetBudgetFor bounds what a VO may spend in each period, by when the windows of its agreements begin. It
// counts what is committed when a period is first set, and all from then on; what was spent
// before is not known by days, and does not count.
func (e *Engine) SetBudgetFor(ctx context.Context, vo string, limit *int64, period Period) error {
	const op = "engine.SetBudget"
	if !period.Valid() {
		return fail.Errorf(op, fail.Invalid, vo, "the budget of %q is for each %q; it can be for each %s, %s or %s", vo, period, Day, Week, Month)
	}
	if limit == nil {
		period = Ever
	}
	if len(vo) > MaxName {
		return fail.Errorf(op, fail.Invalid, "", "the name of a VO may have %d bytes; this one has %d", MaxName, len(vo))
	}
	if limit != nil && (*limit < 0 || *limit > MaxPrice) {
		return fail.Errorf(op, fail.Invalid, vo, "the budget of %q is %d; it must be from 0 to %d", vo, *limit, int64(MaxPrice))
	}
	return e.do(ctx, op, func(b *batch) error {
		d := b.account(vo)
		same := (d.Limit == nil) == (limit == nil) && (limit == nil || *d.Limit == *limit) && d.Period == period
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
			had := a.Period
			a.Period = period
			switch {
			case period == Ever:
				a.Days = nil
			case had == Ever:
				for _, r := range b.unended(vo) {
					a.count(r.counts(), r.price(), 0, b.now)
				}
			}
		})
		return nil
	})
}

// unended gives the agreements of a VO that have not ended, as the transaction has them.
func (b *batch) unended(vo string) (out []*Record) {
	for id, r := range b.e.live {
		if b.drafts[id] == nil && r.VO == vo {
			out = append(out, r)
		}
	}
	for _, d := range b.drafts {
		if d.rec != nil && d.rec.VO == vo && !d.rec.Final() {
			out = append(out, d.rec)
		}
	}
	return out
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
