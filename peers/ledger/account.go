package ledger

import (
	"math"
	"strconv"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/handover"
)

// Verdict is what the consumer says to a statement.
type Verdict string

// The verdicts. Contested and Withdrawn statements count for nobody.
const (
	Unheard   Verdict = "unheard" // the provider has not heard of it
	Agreed    Verdict = "agreed"
	Contested Verdict = "contested"
	Withdrawn Verdict = "withdrawn" // by a later statement
)

// Entry is a statement with what was said to it.
type Entry struct {
	Statement Statement `json:"statement"`
	// Signature is the provider's over the canonical bytes, and Answer the consumer's; they
	// are made and verified by others.
	Signature []byte  `json:"signature,omitempty"`
	Answer    []byte  `json:"answer,omitempty"`
	Verdict   Verdict `json:"verdict"`
	Reason    string  `json:"reason,omitempty"` // of Contested
}

// Head is how far an account goes: equal heads are equal accounts.
type Head struct {
	Pair
	Number uint64           `json:"number"`
	Digest Digest           `json:"digest"`
	Sum    handover.CPUTime `json:"sum"`
}

func (h Head) String() string {
	return h.Pair.String() + " up to statement " + strconv.FormatUint(h.Number, 10) + " (" + h.Digest.String()[:12] + "), " + h.Sum.String()
}

// copyOf names a copy of a job.
type copyOf struct {
	key   handover.Key
	token handover.Token
}

// account is one pair as one of the two has it.
type account struct {
	pair Pair
	base Head    // what was trimmed
	tail []Entry // after base
	// By copy: of the provider the numbers it claimed; of the consumer what it owes, claimed
	// or not.
	claimed map[copyOf]uint64
	owed    map[copyOf]owed
	heard   uint64 // of the consumer: up to here the provider knows its verdicts; a restart may forget it
	// Sums over the whole account, and of what was agreed what was trimmed.
	agreed, contested, trimmed handover.CPUTime
}

// owed is a charge that the consumer noted.
type owed struct {
	handover.Charge
	claimed uint64 // by this statement; 0 is not yet
}

func newAccount(p Pair) *account {
	return &account{pair: p, base: Head{Pair: p}, claimed: map[copyOf]uint64{}, owed: map[copyOf]owed{}}
}

func (a *account) head() Head {
	if n := len(a.tail); n > 0 {
		s := &a.tail[n-1].Statement
		return Head{a.pair, s.Number, s.Digest(), s.Sum}
	}
	return a.base
}

// entry gives the statement with the number; nil if it is not there any more, or not yet.
func (a *account) entry(n uint64) *Entry {
	if n <= a.base.Number || n > a.base.Number+uint64(len(a.tail)) {
		return nil
	}
	return &a.tail[n-a.base.Number-1]
}

// at gives the digest of the statement with the number.
func (a *account) at(n uint64) (Digest, bool) {
	if n == a.base.Number {
		return a.base.Digest, true
	}
	if e := a.entry(n); e != nil {
		return e.Statement.Digest(), true
	}
	return Digest{}, false
}

// follows gives fail.Conflict for a statement that is not the next one.
func (a *account) follows(s Statement) error {
	if err := s.Check(); err != nil {
		return err
	}
	h := a.head()
	bad := func(why string) error {
		return fail.Errorf("ledger.Take", fail.Conflict, a.pair.String(), "statement %d %s; both sides must look at their books", s.Number, why)
	}
	switch {
	case s.Pair != a.pair:
		return bad("is of another account")
	case s.Number != h.Number+1:
		return bad("does not follow the last one")
	case s.Previous != h.Digest:
		return bad("names another statement before it than the one that is here")
	}
	sum := h.Sum
	if w := s.Withdraws; w > 0 && w <= a.base.Number {
		// What it withdraws was dropped here, and counts as it did. It takes from the provider alone.
		if sum -= s.Used; sum < 0 {
			return bad("withdraws more than was claimed")
		}
	} else if w > 0 {
		e := a.entry(s.Withdraws)
		if e == nil || e.Verdict == Withdrawn || e.Statement.Withdraws > 0 {
			return bad("withdraws one that can't be")
		}
		o := e.Statement
		if o.Key != s.Key || o.Token != s.Token || o.Used != s.Used || o.Outcome != s.Outcome {
			return bad("withdraws something else than was claimed")
		}
		sum -= s.Used
	} else {
		if sum > math.MaxInt64-s.Used {
			return bad("makes the sum greater than can be told")
		}
		sum += s.Used
	}
	if s.Sum != sum {
		return bad("has a sum that is not that of the claims")
	}
	return nil
}

// append adds a statement that follows.
func (a *account) append(e Entry) {
	s := e.Statement
	if w := s.Withdraws; w > 0 {
		if was := a.entry(w); was != nil {
			a.judge(was, Withdrawn, "")
		}
		e.Verdict = Agreed // it takes from nobody
		a.tail = append(a.tail, e)
		delete(a.claimed, copyOf{s.Key, s.Token})
		if o, ok := a.owed[copyOf{s.Key, s.Token}]; ok && o.claimed == w {
			o.claimed = 0
			a.owed[copyOf{s.Key, s.Token}] = o
		}
		return
	}
	v := e.Verdict
	e.Verdict = Unheard
	a.tail = append(a.tail, e)
	a.claimed[copyOf{s.Key, s.Token}] = s.Number
	a.judge(&a.tail[len(a.tail)-1], v, e.Reason)
}

// judge changes a verdict, and the sums with it.
func (a *account) judge(e *Entry, v Verdict, reason string) {
	count := func(sign handover.CPUTime) {
		if e.Statement.Withdraws > 0 {
			return
		}
		switch e.Verdict {
		case Agreed:
			a.agreed += sign * e.Statement.Used
		case Contested:
			a.contested += sign * e.Statement.Used
		case Unheard, Withdrawn:
		}
	}
	count(-1)
	e.Verdict, e.Reason = v, reason
	count(1)
}

// trim drops statements up to a number that both sides agree on, all but the last keep.
func (a *account) trim(keep int, upTo uint64) int {
	n := 0
	for len(a.tail)-n > keep && a.tail[n].Statement.Number <= upTo && a.tail[n].Verdict != Unheard && a.tail[n].Verdict != Contested {
		a.settle(&a.tail[n])
		n++
	}
	a.tail = append([]Entry(nil), a.tail[n:]...)
	return n
}

// drop drops all statements but the last keep, whatever was said to them.
func (a *account) drop(keep int) int {
	n := max(0, len(a.tail)-keep)
	for i := range a.tail[:n] {
		e := &a.tail[i]
		if e.Verdict == Contested {
			a.judge(e, Withdrawn, "") // it counts for nobody, and is told to nobody any more
		}
		a.settle(e)
	}
	a.tail = append([]Entry(nil), a.tail[n:]...)
	return n
}

// settle takes a statement, the first, out of the account.
func (a *account) settle(e *Entry) {
	s := &e.Statement
	a.base = Head{a.pair, s.Number, s.Digest(), s.Sum}
	if e.Verdict == Agreed && s.Withdraws == 0 {
		a.trimmed += s.Used
	}
	c := copyOf{s.Key, s.Token}
	if a.claimed[c] == s.Number {
		delete(a.claimed, c)
	}
	if o, ok := a.owed[c]; ok && o.claimed == s.Number {
		delete(a.owed, c)
	}
}
