package ledger

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/decimal"
	"github.com/portolan-project/portolan/internal/fail"
)

// Account is what one VO has in one unit.
type Account struct {
	VO   string `json:"vo"`
	Unit string `json:"unit"`
}

func (a Account) compare(b Account) int {
	return cmp.Or(cmp.Compare(a.VO, b.VO), cmp.Compare(a.Unit, b.Unit))
}

// Ledger is a book of entries. Its methods may not be called at once.
type Ledger struct {
	closed      time.Time // entries before are not kept any more
	entries     map[string]Entry
	carried     map[Account]decimal.Decimal // of entries that are not kept
	balances    map[Account]decimal.Decimal
	budgets     map[Account]Budget
	commitments map[string]Commitment
	spent       map[period]decimal.Decimal // without usage
	held        map[period]decimal.Decimal // what commitments have left
}

// New makes an empty ledger.
func New() *Ledger {
	return &Ledger{
		entries: map[string]Entry{}, carried: map[Account]decimal.Decimal{}, balances: map[Account]decimal.Decimal{},
		budgets: map[Account]Budget{}, commitments: map[string]Commitment{},
		spent: map[period]decimal.Decimal{}, held: map[period]decimal.Decimal{},
	}
}

// Post adds an entry. The same again changes nothing; fail.Conflict is another one with
// its ID, or one of a time that is closed; fail.Exhausted is a price for which neither
// its commitment nor the budget has enough left. Usage, penalties and rewards are never
// refused for a budget: they have happened.
func (l *Ledger) Post(e Entry) error {
	e.Time, e.Counted = plain(e.Time), time.Time{}
	if err := e.check(); err != nil {
		return err
	}
	if old, ok := l.entries[e.ID]; ok {
		old.Counted = time.Time{}
		if old != e {
			return fail.Errorf("ledger.Post", fail.Conflict, e.ID, "the entry %s is in the ledger already, with other contents", e.ID)
		}
		return nil
	}
	if e.Time.Before(l.closed) {
		return fail.Errorf("ledger.Post", fail.Conflict, e.ID, "the ledger is closed up to %s: date the entry later", l.closed.Format(time.RFC3339))
	}
	a := Account{e.VO, e.Unit}
	c, from := l.commitments[e.Commitment]
	if e.Commitment != "" && from && c.account() != a {
		return invalid("Post", e.ID, "the commitment %s is of the VO %s in %s, not of %s in %s", c.ID, c.VO, c.Unit, e.VO, e.Unit)
	}
	e.Counted = e.Time
	taken := decimal.Decimal{}
	if from {
		e.Counted = c.Time
		if taken = e.Amount; taken.Cmp(c.Amount) > 0 {
			taken = c.Amount
		}
	}
	if e.Kind == Price {
		more, _ := e.Amount.Sub(taken)
		if more.Sign() > 0 && e.Counted.Before(l.closed) {
			return fail.Errorf("ledger.Post", fail.Exhausted, e.ID, "the commitment %s has %s left, of a time that is closed: post no more than that", c.ID, taken)
		}
		if err := l.would("Post", a, more, e.Counted); err != nil {
			return err
		}
	}
	if err := l.add(e); err != nil {
		return err
	}
	if from {
		c.Amount, _ = c.Amount.Sub(taken)
		l.hold(c, taken.Neg())
		if l.commitments[c.ID] = c; c.Amount.Sign() == 0 {
			delete(l.commitments, c.ID)
		}
	}
	return nil
}

// add puts a checked entry into the sums.
func (l *Ledger) add(e Entry) error {
	a := Account{e.VO, e.Unit}
	balance, ok := l.balances[a].Add(e.Amount)
	if !ok {
		return fail.Errorf("ledger.Post", fail.Exhausted, e.ID, "the balance of %s in %s would be larger than can be told", e.VO, e.Unit)
	}
	l.entries[e.ID], l.balances[a] = e, balance
	if e.Kind != Usage {
		if p, ok := l.period(a, e.Counted); ok {
			l.spent[p], _ = l.spent[p].Add(e.Amount) // parts of a balance that fits
		}
	}
	return nil
}

// Balance is the sum of a VO's entries in a unit, closed ones too: what it used, or
// what it owes; below zero, what it is owed.
func (l *Ledger) Balance(vo, unit string) decimal.Decimal { return l.balances[Account{vo, unit}] }

// Accounts gives those that have had an entry, by VO and unit.
func (l *Ledger) Accounts() []Account {
	return slices.SortedFunc(maps.Keys(l.balances), Account.compare)
}

// Entries gives those that are kept and that want holds of (nil is all), the oldest first.
func (l *Ledger) Entries(want func(*Entry) bool) []Entry {
	var out []Entry
	for _, e := range l.entries {
		if want == nil || want(&e) {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b Entry) int { return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.ID, b.ID)) })
	return out
}

// Charges gives what a job cost, by unit: its prices, penalties and rewards.
func (l *Ledger) Charges(job string) []Charge {
	sums := map[string]decimal.Decimal{}
	for _, e := range l.entries {
		if e.Job == job && e.Kind != Usage {
			sums[e.Unit], _ = sums[e.Unit].Add(e.Amount)
		}
	}
	var out []Charge
	for _, unit := range slices.Sorted(maps.Keys(sums)) {
		out = append(out, Charge{Amount: sums[unit], Unit: unit})
	}
	return out
}

// Close takes out the entries before a moment, for an archive, and carries their sums
// on. What budgets have counted in a period that still runs at that moment stays.
func (l *Ledger) Close(before time.Time) []Entry {
	before = plain(before)
	if !before.After(l.closed) {
		return nil
	}
	l.closed = before
	out := l.Entries(func(e *Entry) bool { return e.Time.Before(before) && l.over(e, before) })
	for _, e := range out {
		a := Account{e.VO, e.Unit}
		l.carried[a], _ = l.carried[a].Add(e.Amount)
		delete(l.entries, e.ID)
	}
	for a := range l.budgets {
		l.recount(a)
	}
	return out
}

// over reports whether no budget's running period needs the entry.
func (l *Ledger) over(e *Entry, now time.Time) bool {
	a := Account{e.VO, e.Unit}
	p, counted := l.period(a, e.Counted)
	if e.Kind == Usage || !counted {
		return true
	}
	current, ok := l.period(a, now)
	return ok && p.n < current.n
}

// Snapshot is a ledger as data.
type Snapshot struct {
	Closed      time.Time    `json:"closed,omitzero"`
	Carried     []Carried    `json:"carried,omitempty"`
	Entries     []Entry      `json:"entries,omitempty"`
	Budgets     []Budget     `json:"budgets,omitempty"`
	Commitments []Commitment `json:"commitments,omitempty"`
}

// Carried is the sum of an account's closed entries.
type Carried struct {
	Account
	Amount decimal.Decimal `json:"amount"`
}

// Snapshot gives the ledger as data; equal ledgers give the same.
func (l *Ledger) Snapshot() Snapshot {
	s := Snapshot{Closed: l.closed, Entries: l.Entries(nil)}
	for _, a := range slices.SortedFunc(maps.Keys(l.carried), Account.compare) {
		s.Carried = append(s.Carried, Carried{a, l.carried[a]})
	}
	for _, a := range slices.SortedFunc(maps.Keys(l.budgets), Account.compare) {
		s.Budgets = append(s.Budgets, l.budgets[a])
	}
	for _, id := range slices.Sorted(maps.Keys(l.commitments)) {
		s.Commitments = append(s.Commitments, l.commitments[id])
	}
	return s
}

// Restore makes a ledger of a snapshot, all sums reckoned anew. fail.Invalid is one that
// no ledger gave.
func Restore(s Snapshot) (*Ledger, error) {
	l := New()
	l.closed = plain(s.Closed)
	for _, b := range s.Budgets {
		if err := b.check(); err != nil {
			return nil, err
		}
		l.budgets[b.account()] = b
	}
	for _, c := range s.Carried {
		l.carried[c.Account], l.balances[c.Account] = c.Amount, c.Amount
	}
	for _, e := range s.Entries {
		if err := e.check(); err != nil {
			return nil, err
		}
		if _, twice := l.entries[e.ID]; twice || e.Counted.IsZero() {
			return nil, invalid("Restore", e.ID, "the entry %s is there twice, or counted at no time", e.ID)
		}
		if err := l.add(e); err != nil {
			return nil, err
		}
	}
	for _, c := range s.Commitments {
		if err := c.check(); err != nil {
			return nil, err
		}
		l.commitments[c.ID] = c
		l.hold(c, c.Amount)
	}
	return l, nil
}
