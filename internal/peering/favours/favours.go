package favours

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/ledger"
	"github.com/portolan-project/portolan/peers/limits"
	"github.com/portolan-project/portolan/peers/wire"
)

// Prefix begins the keys of the ledger's records:
//
//	peers/ledger/PROVIDER/CONSUMER/base            what was trimmed
//	peers/ledger/PROVIDER/CONSUMER/s/NUMBER        a statement with its verdict
//	peers/ledger/PROVIDER/CONSUMER/o/ORIGIN/ID/TOKEN   what is owed for a copy
const Prefix = "peers/ledger/"

// Signer signs for this domain and verifies what others signed. Signatures have at most
// wire.MaxSignature bytes.
type Signer interface {
	Sign(data []byte) ([]byte, error)
	// Verify gives fail.Denied where the signature is not of the domain over the data.
	Verify(domain string, data, signature []byte) error
}

// Link is what carries items to peers: peers.Table.
type Link interface {
	Put(domain string, items ...wire.Message) error
}

// Options are those of a Favours. Domain, Store, Signer and Link are required.
type Options struct {
	Domain string
	Store  store.Records
	Signer Signer
	Link   Link
	// Keep is how many settled statements of each account stay; default 2000.
	Keep int
	// Most is how many statements of what a peer claims are kept in any case; default
	// limits.Statements.
	Most int
	Log  *slog.Logger
	Now  func() time.Time // nil is time.Now
}

// Favours is the ledger of one domain. It is safe for concurrent use. It is a peering.Book.
type Favours struct {
	o    Options
	wake chan struct{}

	mu       sync.Mutex
	sess     store.Session
	book     *ledger.Book
	talks    map[string]*talk
	diverged map[ledger.Pair]string // why an account stands still
}

// New makes one with an empty book; Load reads what the store remembers.
func New(o Options) (*Favours, error) {
	if o.Domain == "" || o.Store == nil || o.Signer == nil || o.Link == nil {
		return nil, fail.Errorf("favours.New", fail.Invalid, o.Domain, "the favour ledger needs a domain, a store, a signer and a link")
	}
	o.Keep = cmp.Or(o.Keep, 2000)
	o.Most = cmp.Or(o.Most, limits.Statements)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Favours{o: o, wake: make(chan struct{}, 1), book: ledger.New(o.Domain), talks: map[string]*talk{}, diverged: map[ledger.Pair]string{}}, nil
}

// Begin says under which session the ledger writes from now on.
func (f *Favours) Begin(sess store.Session) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sess = sess
}

func pairPrefix(p ledger.Pair) string {
	return Prefix + store.Segment(p.Provider) + "/" + store.Segment(p.Consumer) + "/"
}

func statementKey(p ledger.Pair, n uint64) string { return fmt.Sprintf("%ss/%020d", pairPrefix(p), n) }

func owedKey(c *handover.Charge) string {
	return pairPrefix(ledger.Pair{Provider: c.Provider, Consumer: c.Consumer}) + "o/" + store.Path(store.MaxKey/2, c.Key.Origin, c.Key.ID, string(c.Token))
}

// based is the record of what was trimmed.
type based struct {
	Base   ledger.Head      `json:"base"`
	Agreed handover.CPUTime `json:"agreed,omitempty"`
}

// Load reads what the store remembers, in place of what was known. fail.Invalid says that
// the records contradict each other.
func (f *Favours) Load(ctx context.Context) error {
	const op = "favours.Load"
	kept := map[ledger.Pair]*ledger.Kept{}
	read := func(v []byte, to any, key string) error {
		if err := json.Unmarshal(v, to); err != nil {
			return fail.Errorf(op, fail.Invalid, key, "a record of the favour ledger can't be read; restore it from a backup").Because(err)
		}
		return nil
	}
	const page = 1000
	for after := ""; ; {
		recs, _, err := f.o.Store.ListRecords(ctx, Prefix, store.RecordOptions{After: after, Limit: page})
		if err != nil {
			return err
		}
		for _, r := range recs {
			parts := strings.SplitN(strings.TrimPrefix(r.Key, Prefix), "/", 4)
			if len(parts) < 3 {
				continue
			}
			provider, ok1 := store.Text(parts[0])
			consumer, ok2 := store.Text(parts[1])
			if !ok1 || !ok2 {
				continue
			}
			p := ledger.Pair{Provider: provider, Consumer: consumer}
			k := kept[p]
			if k == nil {
				k = &ledger.Kept{Base: ledger.Head{Pair: p}}
				kept[p] = k
			}
			switch parts[2] { // in the order of keys, the base comes first
			case "base":
				var x based
				if err := read(r.Value, &x, r.Key); err != nil {
					return err
				}
				k.Base, k.Agreed = x.Base, x.Agreed
			case "s":
				var e ledger.Entry
				if err := read(r.Value, &e, r.Key); err != nil {
					return err
				}
				if e.Statement.Number > k.Base.Number { // else it was trimmed, and is being removed
					k.Tail = append(k.Tail, e)
				}
			case "o":
				var o ledger.Owed
				if err := read(r.Value, &o, r.Key); err != nil {
					return err
				}
				if o.Claimed == 0 || o.Claimed > k.Base.Number {
					k.Owed = append(k.Owed, o)
				}
			}
		}
		if len(recs) < page {
			break
		}
		after = recs[len(recs)-1].Key
	}
	var accounts []ledger.Kept
	for _, k := range kept {
		accounts = append(accounts, *k)
	}
	book, err := ledger.Restore(f.o.Domain, accounts)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.book = book
	clear(f.diverged)
	return nil
}

// Owes implements peering.Book.
func (f *Favours) Owes(provider string, k handover.Key, t handover.Token) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.book.Owes(provider, k, t)
}

// Charge implements peering.Book: it notes what this domain owes and earned, and gives the
// records that change with that, one for each charge. They are to be written in the order of
// the calls, in the transaction of the jobs' own records, and may be written more than once.
func (f *Favours) Charge(owe, earn []handover.Charge) ([]store.RecordChange, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []store.RecordChange
	var first error
	for i := range owe {
		c := &owe[i]
		if err := f.book.Owe(*c); err != nil {
			first = cmp.Or(first, err)
			continue
		}
		if o, ok := f.book.Owed(c.Provider, c.Key, c.Token); ok {
			out = append(out, change(owedKey(c), o))
		}
	}
	for i := range earn {
		c := &earn[i]
		p := ledger.Pair{Provider: c.Provider, Consumer: c.Consumer}
		s, err := f.book.Earn(*c, f.o.Now())
		if err == nil {
			if e, _ := f.book.Entry(p, s.Number); len(e.Signature) == 0 {
				var signature []byte
				if signature, err = f.o.Signer.Sign(s.Canonical()); err == nil {
					err = f.book.Sign(p, s.Number, signature)
				}
			}
		}
		if err != nil {
			first = cmp.Or(first, err)
		}
		if e, ok := f.book.Entry(p, s.Number); ok {
			out = append(out, change(statementKey(p, s.Number), e))
			f.stir(c.Consumer)
		}
	}
	return out, first
}

func change(key string, v any) store.RecordChange {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // of plain values
	}
	return store.RecordChange{Key: key, Value: b, If: -1}
}

// put writes records, in transactions of as many as fit. f.mu is held.
func (f *Favours) put(ctx context.Context, changes []store.RecordChange) error {
	for len(changes) > 0 {
		n, bytes := 0, 0
		for n < len(changes) && n < store.MaxTransaction && (n == 0 || bytes+len(changes[n].Value) <= store.MaxRecord) {
			bytes += len(changes[n].Value)
			n++
		}
		if _, err := f.o.Store.PutRecords(ctx, f.sess, changes[:n]...); err != nil {
			return err
		}
		changes = changes[n:]
	}
	return nil
}

// trim drops what is settled, if there is much of it, here and in the store. f.mu is held.
func (f *Favours) trim(ctx context.Context) error {
	var changes []store.RecordChange
	type was struct {
		p       ledger.Pair
		entries []ledger.Entry
	}
	var before []was
	for _, p := range f.book.Pairs() {
		if es := f.book.Entries(p); len(es) > min(2*f.o.Keep, f.o.Most) {
			before = append(before, was{p, es})
		}
	}
	if len(before) == 0 || f.book.Trim(f.o.Keep, f.o.Most) == 0 {
		return nil
	}
	for _, w := range before {
		base, agreed := f.book.Base(w.p)
		changes = append(changes, change(pairPrefix(w.p)+"base", based{base, agreed}))
		for i := range w.entries {
			s := &w.entries[i].Statement
			if s.Number > base.Number {
				break
			}
			changes = append(changes, store.RecordChange{Key: statementKey(w.p, s.Number), If: -1})
			if w.p.Consumer == f.o.Domain && !f.book.Owes(w.p.Provider, s.Key, s.Token) {
				changes = append(changes, store.RecordChange{Key: owedKey(&handover.Charge{Provider: w.p.Provider, Consumer: w.p.Consumer, Key: s.Key, Token: s.Token}), If: -1})
			}
		}
	}
	return f.put(ctx, changes)
}

// Balance gives how this domain stands with a peer.
func (f *Favours) Balance(peer string) ledger.Balance {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.book.Balance(peer)
}

// Status is how the ledger stands with a peer.
type Status struct {
	Gave, Took ledger.Head // what we did for it, and it for us
	Heard      uint64      // of Gave: up to which statement its verdicts are here
	Balance    ledger.Balance
	// Problem is where the books are not alike, or what the peer did wrong; "" is that all
	// is well.
	Problem string
}

// Status tells it.
func (f *Favours) Status(peer string) Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	gave, took := ledger.Pair{Provider: f.o.Domain, Consumer: peer}, ledger.Pair{Provider: peer, Consumer: f.o.Domain}
	out := Status{Gave: f.book.Head(gave), Took: f.book.Head(took), Heard: f.book.Heard(gave), Balance: f.book.Balance(peer)}
	out.Problem = cmp.Or(f.diverged[gave], f.diverged[took])
	if t := f.talks[peer]; t != nil && out.Problem == "" {
		out.Problem = t.problem
	}
	return out
}

// Entries gives what is kept of an account, for those who audit.
func (f *Favours) Entries(p ledger.Pair) []ledger.Entry {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.book.Entries(p)
}

// Withdraw takes back a claim of this domain that the peer contests, for good.
func (f *Favours) Withdraw(ctx context.Context, peer string, number uint64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := ledger.Pair{Provider: f.o.Domain, Consumer: peer}
	s, err := f.book.Withdraw(p, number, f.o.Now())
	if err != nil {
		return err
	}
	signature, err := f.o.Signer.Sign(s.Canonical())
	if err != nil {
		return err
	}
	if err := f.book.Sign(p, s.Number, signature); err != nil {
		return err
	}
	f.stir(peer)
	return f.put(ctx, f.records(p, []uint64{number, s.Number}))
}

// records gives those of some statements of an account as they are now, and of what is owed
// for them. f.mu is held.
func (f *Favours) records(p ledger.Pair, numbers []uint64) []store.RecordChange {
	var out []store.RecordChange
	slices.Sort(numbers)
	for _, n := range slices.Compact(numbers) {
		e, ok := f.book.Entry(p, n)
		if !ok {
			continue
		}
		out = append(out, change(statementKey(p, n), e))
		if p.Consumer == f.o.Domain {
			if o, ok := f.book.Owed(p.Provider, e.Statement.Key, e.Statement.Token); ok {
				k := owedKey(&o.Charge)
				out = slices.DeleteFunc(out, func(c store.RecordChange) bool { return c.Key == k })
				out = append(out, change(k, o))
			}
		}
	}
	return out
}
