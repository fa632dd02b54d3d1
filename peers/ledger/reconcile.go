package ledger

import (
	"slices"

	"github.com/portolan-project/portolan/internal/fail"
)

// Reconciling: the consumer sends its Head; the provider answers with what comes After it;
// the consumer Takes that and sends its Verdicts; the provider Hears them. All of it may be
// lost, repeated and reordered. Each message is of bounded size, and the talk ends when
// nothing comes after the head. A provider that lost statements gets its own back from the
// consumer, by the same two calls.

// MaxBatch bounds the statements and verdicts of one message.
const MaxBatch = 500

// Head tells how far the account goes here.
func (b *Book) Head(p Pair) Head {
	if a := b.accounts[p]; a != nil {
		return a.head()
	}
	return Head{Pair: p}
}

// After gives the entries that follow the other side's head, the first most of them.
// fail.Conflict says that the two accounts are not the same up to there: see Differ.
// fail.NotFound says that they were trimmed, and must come from the store.
func (b *Book) After(h Head, most int) ([]Entry, error) {
	a, err := b.account(h.Pair)
	if err != nil {
		return nil, err
	}
	own := a.head()
	if h.Number > own.Number {
		return nil, nil // it is the other side that has more
	}
	d, ok := a.at(h.Number)
	if !ok {
		return nil, fail.Errorf("ledger.After", fail.NotFound, h.Pair.String(), "statements after %d were trimmed here; they must be read from the archive", h.Number)
	}
	if d != h.Digest {
		return nil, fail.Errorf("ledger.After", fail.Conflict, h.Pair.String(), "the two books have another statement %d; one of them was changed: compare digests to find the first", h.Number)
	}
	if b.domain == h.Provider {
		a.heard = max(a.heard, h.Number)
	}
	from := int(h.Number - a.base.Number)
	return slices.Clone(a.tail[from:min(len(a.tail), from+min(max(most, 0), MaxBatch))]), nil
}

// Take enters statements of the other side, whose signatures others verified, in order;
// those that are here already are held against what is here. A consumer judges each against
// what it noted. fail.Conflict stops at the first that does not fit: what came before it
// is entered.
func (b *Book) Take(p Pair, entries []Entry) error {
	a, err := b.account(p)
	if err != nil {
		return err
	}
	if len(entries) > MaxBatch {
		return fail.Errorf("ledger.Take", fail.Invalid, p.String(), "%d statements came at once; send %d at most", len(entries), MaxBatch)
	}
	for _, e := range entries {
		s := e.Statement
		if s.Number <= a.head().Number {
			if d, ok := a.at(s.Number); ok && d != s.Digest() {
				return fail.Errorf("ledger.Take", fail.Conflict, p.String(), "another statement %d was signed before; keep both, they prove that its book was changed", s.Number)
			}
			continue
		}
		if err := a.follows(s); err != nil {
			return err
		}
		in := Entry{Statement: s, Signature: slices.Clone(e.Signature)}
		if b.domain == p.Consumer {
			in.Verdict, in.Reason = a.verdict(s)
		} else {
			// It was ours before we lost it, and the consumer said this to it.
			in.Verdict, in.Reason, in.Answer = e.Verdict, e.Reason, slices.Clone(e.Answer)
			if in.Verdict != Agreed && in.Verdict != Contested {
				in.Verdict = Unheard
			}
		}
		a.append(in)
	}
	return nil
}

// verdict holds a statement against what the consumer noted.
func (a *account) verdict(s Statement) (Verdict, string) {
	if s.Withdraws > 0 {
		return Agreed, ""
	}
	k := copyOf{s.Key, s.Token}
	o, ok := a.owed[k]
	switch {
	case !ok:
		return Contested, "no end of such a copy was heeded here"
	case o.claimed > 0:
		return Contested, "the copy was claimed before"
	case o.Used != s.Used:
		return Contested, "the copy was reported to have used " + o.Used.String()
	case o.Outcome != s.Outcome:
		return Contested, "the copy was reported with another outcome"
	}
	o.claimed = s.Number
	a.owed[k] = o
	return Agreed, ""
}

// Said is the consumer's verdict on a statement.
type Said struct {
	Number  uint64
	Digest  Digest // of the statement
	Verdict Verdict
	Reason  string
	Answer  []byte // the consumer's signature
}

// Verdicts gives what the consumer says to the statements after a number, the first most;
// up to there, which is its Heard, the provider knows them.
func (b *Book) Verdicts(p Pair, after uint64, most int) []Said {
	a := b.accounts[p]
	if a == nil || p.Consumer != b.domain {
		return nil
	}
	a.heard = max(a.heard, min(after, a.head().Number))
	var out []Said
	for i := range a.tail {
		e := &a.tail[i]
		if e.Statement.Number <= after || e.Statement.Withdraws > 0 {
			continue
		}
		if len(out) == min(most, MaxBatch) {
			break
		}
		out = append(out, Said{e.Statement.Number, e.Statement.Digest(), e.Verdict, e.Reason, e.Answer})
	}
	return out
}

// Heard is the number up to which the provider knows what the consumer says.
func (b *Book) Heard(p Pair) uint64 {
	a := b.accounts[p]
	if a == nil {
		return 0
	}
	n := a.base.Number
	for i := range a.tail {
		if a.tail[i].Verdict == Unheard {
			break
		}
		n = a.tail[i].Statement.Number
	}
	return n
}

// Hear enters verdicts at the provider. One about another statement of the number is
// fail.Conflict. A claim that was withdrawn stays so.
func (b *Book) Hear(p Pair, said []Said) error {
	a := b.accounts[p]
	if a == nil || p.Provider != b.domain {
		return fail.Errorf("ledger.Hear", fail.NotFound, p.String(), "there is no such account of %s", b.domain)
	}
	if len(said) > MaxBatch {
		return fail.Errorf("ledger.Hear", fail.Invalid, p.String(), "%d verdicts came at once; send %d at most", len(said), MaxBatch)
	}
	for _, v := range said {
		e := a.entry(v.Number)
		if e == nil {
			continue // trimmed, or lost here: Take brings it back
		}
		if e.Statement.Digest() != v.Digest {
			return fail.Errorf("ledger.Hear", fail.Conflict, p.String(), "the verdict on statement %d is about another one than was made here", v.Number)
		}
		if len(v.Reason) > 1024 {
			return fail.Errorf("ledger.Hear", fail.Invalid, p.String(), "a reason must be at most 1024 bytes")
		}
		switch v.Verdict {
		case Agreed, Contested:
			if e.Verdict == Unheard {
				a.judge(e, v.Verdict, v.Reason)
				e.Answer = slices.Clone(v.Answer)
			}
		case Withdrawn, Unheard:
		default:
			return fail.Errorf("ledger.Hear", fail.Invalid, p.String(), "the verdict %q is none of agreed, contested, withdrawn", v.Verdict)
		}
	}
	return nil
}

// Digests gives those of some statements, for Differ; a number that is not here is left out.
func (b *Book) Digests(p Pair, numbers []uint64) map[uint64]Digest {
	out := map[uint64]Digest{}
	if a := b.accounts[p]; a != nil {
		for _, n := range numbers[:min(len(numbers), MaxBatch)] {
			if d, ok := a.at(n); ok {
				out[n] = d
			}
		}
	}
	return out
}

// Probes gives the numbers whose digests narrow down where two accounts begin to differ:
// they are alike up to same, and differ at differs. A statement's digest covers all before
// it, so that each answer divides what is left by len(Probes)+1.
func Probes(same, differs uint64) []uint64 {
	const most = 15
	var out []uint64
	if differs <= same+1 {
		return nil
	}
	span := differs - same
	for i := uint64(1); i <= most; i++ {
		n := same + span/(most+1)*i + span%(most+1)*i/(most+1)
		if n > same && n < differs && (len(out) == 0 || out[len(out)-1] != n) {
			out = append(out, n)
		}
	}
	return out
}

// Differ narrows down where the account differs from the other side's, given digests of
// that side at Probes: it gives the new bounds. When differs is same+1, statement differs
// is the first that is not alike.
func (b *Book) Differ(p Pair, same, differs uint64, theirs map[uint64]Digest) (uint64, uint64) {
	a := b.accounts[p]
	if a == nil {
		return same, differs
	}
	for _, n := range Probes(same, differs) {
		d, ok := theirs[n]
		own, have := a.at(n)
		if !ok || !have {
			continue
		}
		if d == own {
			same = max(same, n)
		} else {
			differs = min(differs, n)
		}
	}
	return same, differs
}
