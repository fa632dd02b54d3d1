package ledger

import (
	"cmp"
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/decimal"
	"github.com/portolan-project/portolan/internal/fail"
)

// Budget is what a VO may spend in a unit, in each period. A VO without one may spend
// what it likes.
type Budget struct {
	VO     string          `json:"vo"`
	Unit   string          `json:"unit"`
	Limit  decimal.Decimal `json:"limit"`
	From   time.Time       `json:"from"` // a moment at which a period begins
	Period time.Duration   `json:"period"`
}

func (b *Budget) account() Account { return Account{b.VO, b.Unit} }

const (
	minPeriod = time.Hour
	maxPeriod = 10 * 366 * 24 * time.Hour
)

func (b *Budget) check() error {
	switch {
	case b.VO == "" || b.Unit == "" || !proper(b.VO, maxName) || !proper(b.Unit, maxName) || b.From.IsZero():
		return invalid("SetBudget", b.VO, "a budget needs a VO, a unit and the begin of a period")
	case b.Limit.Sign() < 0:
		return invalid("SetBudget", b.VO, "a budget can't be below zero")
	case b.Period < minPeriod || b.Period > maxPeriod:
		return invalid("SetBudget", b.VO, "a budget's period lasts from an hour to ten years")
	}
	return nil
}

// Commitment is what a VO has promised to pay and has not paid: the price of an offer or
// of an agreement that runs.
type Commitment struct {
	ID        string          `json:"id"`
	Agreement string          `json:"agreement,omitempty"`
	VO        string          `json:"vo"`
	Unit      string          `json:"unit"`
	Amount    decimal.Decimal `json:"amount"`           // what is left of it
	Time      time.Time       `json:"time"`             // by whose period it counts, and what is paid of it
	Expires   time.Time       `json:"expires,omitzero"` // zero is never
}

func (c *Commitment) account() Account { return Account{c.VO, c.Unit} }

func (c *Commitment) check() error {
	switch {
	case c.ID == "" || c.VO == "" || c.Unit == "" || c.Time.IsZero() ||
		!proper(c.ID, maxName) || !proper(c.VO, maxName) || !proper(c.Unit, maxName) || !proper(c.Agreement, maxName):
		return invalid("Commit", c.ID, "a commitment needs an id, a VO, a unit and a time")
	case c.Amount.Sign() <= 0:
		return invalid("Commit", c.ID, "a commitment must be above zero")
	}
	return nil
}

// period is one of a budget.
type period struct {
	Account
	n int64 // from the one that begins at From; below zero before
}

func (l *Ledger) period(a Account, at time.Time) (period, bool) {
	b, ok := l.budgets[a]
	if !ok {
		return period{}, false
	}
	since := at.Sub(b.From)
	n := since / b.Period
	if since < n*b.Period {
		n-- // towards the past
	}
	return period{a, int64(n)}, true
}

func (l *Ledger) hold(c Commitment, more decimal.Decimal) {
	if p, ok := l.period(c.account(), c.Time); ok {
		if l.held[p], _ = l.held[p].Add(more); l.held[p].Sign() == 0 {
			delete(l.held, p)
		}
	}
}

// SetBudget sets or replaces a VO's budget in a unit, and counts anew what was spent
// by the entries that are kept. What was committed stays so, if it is above the new limit too.
func (l *Ledger) SetBudget(b Budget) error {
	b.From = plain(b.From)
	if err := b.check(); err != nil {
		return err
	}
	l.budgets[b.account()] = b
	l.recount(b.account())
	return nil
}

// DropBudget takes a budget away.
func (l *Ledger) DropBudget(vo, unit string) {
	delete(l.budgets, Account{vo, unit})
	l.recount(Account{vo, unit})
}

func (l *Ledger) recount(a Account) {
	for p := range l.spent {
		if p.Account == a {
			delete(l.spent, p)
		}
	}
	for p := range l.held {
		if p.Account == a {
			delete(l.held, p)
		}
	}
	for _, e := range l.entries {
		if p, ok := l.period(a, e.Counted); ok && e.Kind != Usage && (Account{e.VO, e.Unit}) == a {
			l.spent[p], _ = l.spent[p].Add(e.Amount)
		}
	}
	for _, c := range l.commitments {
		if c.account() == a {
			l.hold(c, c.Amount)
		}
	}
}

// Left gives what a VO can still commit in the period of a moment, which is below zero
// where more was spent; false if it has no budget.
func (l *Ledger) Left(vo, unit string, at time.Time) (decimal.Decimal, bool) {
	p, ok := l.period(Account{vo, unit}, plain(at))
	if !ok {
		return decimal.Decimal{}, false
	}
	left, _ := l.budgets[p.Account].Limit.Sub(l.spent[p])
	left, _ = left.Sub(l.held[p])
	return left, true
}

// WouldExceed gives fail.Exhausted if the VO can't pay an amount in the period of a
// moment, with a sentence that says what is left.
func (l *Ledger) WouldExceed(vo, unit string, amount decimal.Decimal, at time.Time) error {
	return l.would("WouldExceed", Account{vo, unit}, amount, plain(at))
}

func (l *Ledger) would(op string, a Account, amount decimal.Decimal, at time.Time) error {
	left, ok := l.Left(a.VO, a.Unit, at)
	if !ok || amount.Sign() <= 0 || amount.Cmp(left) <= 0 {
		return nil
	}
	b := l.budgets[a]
	p, _ := l.period(a, at)
	if left.Sign() < 0 {
		left = decimal.Decimal{}
	}
	return fail.Errorf("ledger."+op, fail.Exhausted, a.VO, "the VO %s has %s %s left of its budget of %s until %s, and this takes %s: offer less, or wait",
		a.VO, left, a.Unit, b.Limit, b.From.Add(time.Duration(p.n+1)*b.Period).Format(time.RFC3339), amount)
}

// Commit takes a price out of the budget before it is owed. The same again changes
// nothing; fail.Conflict is another one with its ID, or one of a time that is closed;
// fail.Exhausted is that the budget
// has less left.
func (l *Ledger) Commit(c Commitment) error {
	c.Time, c.Expires = plain(c.Time), plain(c.Expires)
	if err := c.check(); err != nil {
		return err
	}
	if old, ok := l.commitments[c.ID]; ok {
		if old != c {
			return fail.Errorf("ledger.Commit", fail.Conflict, c.ID, "the commitment %s was made already, with other contents, or a part of it is paid", c.ID)
		}
		return nil
	}
	if c.Time.Before(l.closed) {
		return fail.Errorf("ledger.Commit", fail.Conflict, c.ID, "the ledger is closed up to %s: date the commitment later", l.closed.Format(time.RFC3339))
	}
	if err := l.would("Commit", c.account(), c.Amount, c.Time); err != nil {
		return err
	}
	l.commitments[c.ID] = c
	l.hold(c, c.Amount)
	return nil
}

// Release gives back what is left of a commitment; one that is not there is no error.
func (l *Ledger) Release(id string) {
	if c, ok := l.commitments[id]; ok {
		delete(l.commitments, id)
		l.hold(c, c.Amount.Neg())
	}
}

// Expire releases the commitments that end by now, and gives their IDs.
func (l *Ledger) Expire(now time.Time) []string {
	var ids []string
	for id, c := range l.commitments {
		if !c.Expires.IsZero() && !c.Expires.After(now) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, cmp.Compare[string])
	for _, id := range ids {
		l.Release(id)
	}
	return ids
}
