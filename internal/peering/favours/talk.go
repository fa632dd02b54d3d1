package favours

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"golang.org/x/time/rate"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/ledger"
	"github.com/portolan-project/portolan/peers/limits"
	"github.com/portolan-project/portolan/peers/wire"
)

// talk is what is said with one peer; Favours.mu guards it.
type talk struct {
	open    bool
	dirty   bool // there is something new to tell
	problem string
	out     []wire.Message // for which there was no room
	told    map[ledger.Pair]told
	asks    *rate.Limiter
	again   map[ledger.Pair]*wire.Account // what is answered when it is time
}

// tellEvery is how often a peer is told of something new, at most.
const tellEvery = time.Second

// told is what an account was answered with last: a peer that asks for the same again at once is
// answered later, as it has that most likely, or on its way, and each answer costs a write.
type told struct {
	theirs, ours, heard uint64
}

// Takes reports whether an item is about the ledger, and so for Deliver.
func Takes(m wire.Message) bool {
	switch m.(type) {
	case *wire.Account, *wire.Statements, *wire.Verdicts, *wire.Probe:
		return true
	}
	return false
}

// stir says that there is something new for a peer. f.mu is held.
func (f *Favours) stir(peer string) {
	if t := f.talks[peer]; t != nil {
		t.dirty = true
	}
	f.nudge()
}

func (f *Favours) nudge() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Run tells peers what is new, until ctx ends.
func (f *Favours) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.wake:
		}
		f.Tell(ctx)
		t := time.NewTimer(tellEvery)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil
		case <-t.C:
		}
	}
}

// Tell tells peers what is new, as far as there is room.
func (f *Favours) Tell(ctx context.Context) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for domain, t := range f.talks {
		if t.open && t.dirty {
			t.dirty = false
			t.say(f.account(ledger.Pair{Provider: f.o.Domain, Consumer: domain}))
		}
		f.flush(domain, t)
		for _, m := range maps.Clone(t.again) {
			if err := f.hearAccount(ctx, domain, t, m); err != nil && ctx.Err() == nil {
				t.problem = fail.Sentence(err)
			}
		}
		f.flush(domain, t)
	}
	if err := f.trim(ctx); err != nil && ctx.Err() == nil {
		f.o.Log.Warn("what is settled in the favour ledger is still in the store", "cause", err)
	}
}

func (t *talk) say(m ...wire.Message) {
	if len(t.out)+len(m) <= limits.Said {
		t.out = append(t.out, m...)
	}
}

// flush sends what there is room for. f.mu is held.
func (f *Favours) flush(domain string, t *talk) {
	for t.open && len(t.out) > 0 {
		err := f.o.Link.Put(domain, t.out[0])
		if err != nil && !fail.Is(err, fail.Invalid) && !fail.Is(err, fail.Unsupported) {
			return // Free, or the next session, goes on
		}
		if err != nil {
			f.o.Log.Error("what is in the favour ledger can't be told to a peer", "peer", domain, "cause", err)
		}
		t.out = t.out[1:]
	}
}

// Opened says that a session with a peer begins in which these features were agreed on.
func (f *Favours) Opened(domain string, features []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := &talk{open: slices.Contains(features, wire.FeatureLedger), told: map[ledger.Pair]told{}, asks: rate.NewLimiter(rate.Every(limits.AskEvery), limits.Asks), again: map[ledger.Pair]*wire.Account{}}
	f.talks[domain] = t
	if t.open {
		// Where the books were not alike, either may have been mended since: they are compared anew.
		delete(f.diverged, ledger.Pair{Provider: f.o.Domain, Consumer: domain})
		delete(f.diverged, ledger.Pair{Provider: domain, Consumer: f.o.Domain})
		t.say(f.account(ledger.Pair{Provider: f.o.Domain, Consumer: domain}), f.account(ledger.Pair{Provider: domain, Consumer: f.o.Domain}))
		f.stir(domain)
		t.dirty = false
	}
}

// Closed says that it is over.
func (f *Favours) Closed(domain string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.talks, domain)
}

// Free says that there is room for items again.
func (f *Favours) Free(domain string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t := f.talks[domain]; t != nil {
		f.flush(domain, t)
	}
}

// account tells how far an account goes here. f.mu is held.
func (f *Favours) account(p ledger.Pair) *wire.Account {
	h := f.book.Head(p)
	m := &wire.Account{Pair: wire.Pair(p), Number: h.Number, Sum: int64(h.Sum)}
	if h.Number > 0 {
		m.Digest = h.Digest[:]
	}
	if p.Provider == f.o.Domain {
		m.Heard = f.book.Heard(p)
	}
	return m
}

// Deliver hears what a peer says of the ledger; other items are passed over. When it returns,
// what it caused is durable, or will be asked for again. What a peer says wrong is told by
// Status, and changes nothing.
func (f *Favours) Deliver(ctx context.Context, from string, items []wire.Message) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.talks[from]
	if t == nil || !t.open {
		return
	}
	for _, m := range items {
		var p wire.Pair
		var hear func(context.Context, string, *talk) error
		switch m := m.(type) {
		case *wire.Account:
			p, hear = m.Pair, func(ctx context.Context, from string, t *talk) error { return f.hearAccount(ctx, from, t, m) }
		case *wire.Statements:
			p, hear = m.Pair, func(ctx context.Context, from string, t *talk) error { return f.hearStatements(ctx, from, t, m) }
		case *wire.Verdicts:
			p, hear = m.Pair, func(ctx context.Context, from string, t *talk) error { return f.hearVerdicts(ctx, from, t, m) }
		case *wire.Probe:
			p, hear = m.Pair, func(_ context.Context, from string, t *talk) error { return f.hearProbe(from, t, m) }
		default:
			continue
		}
		ours := p.Provider == f.o.Domain && p.Consumer == from || p.Provider == from && p.Consumer == f.o.Domain
		if !ours {
			t.problem = fmt.Sprintf("it spoke of the account %s, which is not between it and us", ledger.Pair(p))
			continue
		}
		if err := hear(ctx, from, t); err != nil && ctx.Err() == nil {
			t.problem = fail.Sentence(err)
			f.o.Log.Warn("what a peer says of the favour ledger is not taken", "peer", from, "cause", err)
		}
	}
	f.flush(from, t)
}

// hearAccount answers with what the other side lacks, or asks for what is missing here.
func (f *Favours) hearAccount(ctx context.Context, _ string, t *talk, m *wire.Account) error {
	p := ledger.Pair(m.Pair)
	if f.diverged[p] != "" {
		return nil
	}
	h := ledger.Head{Pair: p, Number: m.Number, Sum: handover.CPUTime(m.Sum)}
	copy(h.Digest[:], m.Digest)
	own := f.book.Head(p)
	is := told{m.Number, own.Number, m.Heard}
	if was, known := t.told[p]; len(t.out) >= limits.Said || known && was == is && !t.asks.AllowN(f.o.Now(), 1) {
		t.again[p] = m // there is no room, or it was just said
		f.nudge()
		return nil
	}
	t.told[p] = is
	delete(t.again, p)
	if h.Number > own.Number {
		if p.Consumer == f.o.Domain && m.Heard < own.Number {
			f.sayVerdicts(t, p, m.Heard)
		}
		t.say(f.account(p))
		return nil
	}
	entries, err := f.book.After(h, wire.MaxStatements)
	switch {
	case fail.Is(err, fail.Conflict):
		f.probe(t, p, 0, h.Number)
		return nil
	case err != nil:
		return err
	}
	if len(entries) > 0 {
		out := &wire.Statements{Pair: m.Pair, More: entries[len(entries)-1].Statement.Number < own.Number}
		var numbers []uint64
		for i := range entries {
			e := &entries[i]
			if len(e.Signature) == 0 {
				return fail.Errorf("favours", fail.Internal, p.String(), "statement %d was never signed, and is not told to anybody", e.Statement.Number)
			}
			s := wire.Statement{Canonical: e.Statement.Canonical(), Signature: e.Signature}
			if p.Consumer == f.o.Domain { // the provider lost it
				s.Verdict, s.Reason, s.Answer = wire.Verdict(e.Verdict), wire.Sentence(e.Reason), e.Answer
			}
			out.List = append(out.List, s)
			numbers = append(numbers, e.Statement.Number)
		}
		// A statement may have been made whose transaction is still under way.
		if err := f.put(ctx, f.records(p, numbers)); err != nil {
			return err
		}
		t.say(out)
	}
	if p.Consumer == f.o.Domain && m.Heard < own.Number {
		f.sayVerdicts(t, p, m.Heard)
	}
	return nil
}

func (f *Favours) sayVerdicts(t *talk, p ledger.Pair, after uint64) {
	out := &wire.Verdicts{Pair: wire.Pair(p)}
	for _, v := range f.book.Verdicts(p, after, wire.MaxVerdicts) {
		if v.Verdict == ledger.Unheard {
			continue
		}
		d := v.Digest
		out.List = append(out.List, wire.Said{Number: v.Number, Verdict: wire.Verdict(v.Verdict), Reason: wire.Sentence(v.Reason), Digest: d[:], Signature: v.Answer})
	}
	if len(out.List) > 0 {
		t.say(out)
	}
}

// verdictBytes are what a consumer signs.
func verdictBytes(d ledger.Digest, v ledger.Verdict, reason string) []byte {
	out := []byte("portolan-verdict/1\n")
	for _, x := range [][2]string{{"statement", d.String()}, {"verdict", string(v)}, {"reason", reason}} {
		out = append(out, x[0]+":"+strconv.Itoa(len(x[1]))+":"+x[1]+"\n"...)
	}
	return out
}

// hearStatements enters what the other side has more.
func (f *Favours) hearStatements(ctx context.Context, _ string, t *talk, m *wire.Statements) error {
	p := ledger.Pair(m.Pair)
	if f.diverged[p] != "" {
		return nil
	}
	before := f.book.Head(p).Number
	var entries []ledger.Entry
	for i := range m.List {
		w := &m.List[i]
		s, err := ledger.Parse(w.Canonical)
		if err != nil {
			return err
		}
		if s.Pair != p {
			return fail.Errorf("favours", fail.Invalid, p.String(), "statement %d is of another account than it was sent for", s.Number)
		}
		if s.Number <= before { // it came again; whether it is the same is looked at below
			entries = append(entries, ledger.Entry{Statement: s})
			continue
		}
		if err := f.o.Signer.Verify(p.Provider, w.Canonical, w.Signature); err != nil {
			return fail.Errorf("favours", fail.Denied, p.String(), "the signature of statement %d is not that of %s", s.Number, p.Provider).Because(err)
		}
		e := ledger.Entry{Statement: s, Signature: w.Signature}
		if p.Provider == f.o.Domain {
			e.Verdict, e.Reason, e.Answer = ledger.Verdict(w.Verdict), w.Reason, w.Answer
			if e.Verdict == ledger.Agreed || e.Verdict == ledger.Contested {
				if len(e.Answer) == 0 || f.o.Signer.Verify(p.Consumer, verdictBytes(s.Digest(), e.Verdict, e.Reason), e.Answer) != nil {
					e.Verdict, e.Reason, e.Answer = ledger.Unheard, "", nil // it says so again by itself
				}
			}
		}
		entries = append(entries, e)
	}
	err := f.book.Take(p, entries)
	if fail.Is(err, fail.Conflict) {
		last := entries[len(entries)-1].Statement.Number
		f.probe(t, p, 0, min(last, max(before, 1)))
	}
	after := f.book.Head(p).Number
	var numbers []uint64
	for n := before + 1; n <= after; n++ {
		e, ok := f.book.Entry(p, n)
		if !ok {
			continue
		}
		numbers = append(numbers, n)
		if e.Statement.Withdraws > 0 {
			numbers = append(numbers, e.Statement.Withdraws)
			continue
		}
		if p.Consumer == f.o.Domain {
			answer, serr := f.o.Signer.Sign(verdictBytes(e.Statement.Digest(), e.Verdict, e.Reason))
			if serr != nil {
				return serr
			}
			if serr := f.book.Sign(p, n, answer); serr != nil {
				return serr
			}
		}
	}
	if perr := f.put(ctx, f.records(p, numbers)); perr != nil {
		return perr // it is durable before the provider hears of it
	}
	if p.Consumer == f.o.Domain && after > before {
		f.sayVerdicts(t, p, before)
	}
	if m.More && err == nil {
		t.say(f.account(p))
	}
	if fail.Is(err, fail.Conflict) {
		return nil // it is being looked into
	}
	return err
}

// hearVerdicts enters what the consumer says.
func (f *Favours) hearVerdicts(ctx context.Context, from string, t *talk, m *wire.Verdicts) error {
	p := ledger.Pair(m.Pair)
	if p.Consumer != from {
		return fail.Errorf("favours", fail.Invalid, p.String(), "only %s gives verdicts in this account", p.Consumer)
	}
	if f.diverged[p] != "" {
		return nil
	}
	var said []ledger.Said
	var numbers []uint64
	for i := range m.List {
		w := &m.List[i]
		v := ledger.Said{Number: w.Number, Verdict: ledger.Verdict(w.Verdict), Reason: w.Reason, Answer: w.Signature}
		copy(v.Digest[:], w.Digest)
		if v.Verdict != ledger.Withdrawn {
			if err := f.o.Signer.Verify(from, verdictBytes(v.Digest, v.Verdict, v.Reason), w.Signature); err != nil {
				return fail.Errorf("favours", fail.Denied, p.String(), "the signature of the verdict on statement %d is not that of %s", v.Number, from).Because(err)
			}
		}
		said, numbers = append(said, v), append(numbers, v.Number)
	}
	err := f.book.Hear(p, said)
	if fail.Is(err, fail.Conflict) {
		f.probe(t, p, 0, max(f.book.Head(p).Number, 1))
		return nil
	}
	if perr := f.put(ctx, f.records(p, numbers)); perr != nil {
		return perr
	}
	return err
}

// probe looks for where two accounts begin to differ.
func (f *Favours) probe(t *talk, p ledger.Pair, same, differs uint64) {
	if differs <= same {
		return
	}
	m := &wire.Probe{Pair: wire.Pair(p), Same: same, Differs: differs}
	numbers := append(ledger.Probes(same, differs), differs)
	have := f.book.Digests(p, numbers)
	for _, n := range numbers {
		if d, ok := have[n]; ok {
			m.List = append(m.List, wire.ProbeDigest{Number: n, Digest: d[:]})
		}
	}
	t.say(m)
}

// hearProbe narrows down where they differ.
func (f *Favours) hearProbe(_ string, t *talk, m *wire.Probe) error {
	p := ledger.Pair(m.Pair)
	same, differs := m.Same, m.Differs
	if n := f.book.Head(p).Number; differs > n {
		return fail.Errorf("favours", fail.Invalid, p.String(), "it says that statement %d differs, and here are %d", differs, n)
	}
	numbers := make([]uint64, len(m.List))
	for i := range m.List {
		numbers[i] = m.List[i].Number
	}
	have := f.book.Digests(p, numbers)
	wrong := false
	for i := range m.List {
		own, ok := have[m.List[i].Number]
		switch {
		case !ok:
		case string(own[:]) == string(m.List[i].Digest):
			same = max(same, m.List[i].Number)
		default:
			differs, wrong = min(differs, m.List[i].Number), true
		}
	}
	if same >= differs {
		if !wrong {
			return nil // they are alike, as far as was asked
		}
		return fail.Errorf("favours", fail.Invalid, p.String(), "the digests that it gives contradict each other")
	}
	final := len(m.List) == 0
	if !final && !wrong {
		return nil // what was said to differ does not, as far as is known here
	}
	if differs == same+1 || final {
		if f.diverged[p] == "" {
			f.diverged[p] = fmt.Sprintf("the books of both domains have another statement %d in the account %s: one of them was changed; compare it with a backup, or withdraw the relation", differs, p)
			f.o.Log.Error("the favour ledger is not that of the peer", "account", p.String(), "statement", differs)
			if !final {
				t.say(&wire.Probe{Pair: m.Pair, Same: same, Differs: differs})
			}
		}
		return nil
	}
	if same > m.Same || differs < m.Differs {
		f.probe(t, p, same, differs)
	}
	return nil
}
