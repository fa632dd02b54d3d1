package engine

import (
	"cmp"
	"container/heap"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"hash/fnv"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portolan-project/portolan/internal/agreements/calendar"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// Options says how an Engine works.
type Options struct {
	Replica string // our name; "" is "gateway"
	Log     *slog.Logger
	Now     func() time.Time // nil is time.Now
	// Amount writes an amount of an account for people; nil is as the number that it is.
	Amount func(int64) string
	// Horizon is how far ahead anything is promised; 0 is 90 days.
	Horizon time.Duration
	// Retention is how long an agreement that has ended is kept; 0 is 30 days. One that was prepared and
	// let go without ever having been confirmed is kept for an hour only.
	Retention time.Duration
	// Unfinished says of one that was let go so that something is still to be done about it, for which it
	// is kept as others are; nil: nothing is.
	Unfinished func(*Record) bool
	// Replaceable says why an agreement that is Observed can't be replaced; nil: each can.
	Replaceable func(*Record) error
	// MaxHolds bounds the holds of one pool that are not over; 0 is 10,000.
	MaxHolds int
	// MaxLive bounds the agreements that are not final; 0 is 100,000.
	MaxLive int
	// Patience is how long less capacity must be told of before it is written; 0 is 30 seconds.
	// For new agreements it counts at once.
	Patience time.Duration
	// Grace is how long after its time an agreement is expired by a replica that is not
	// responsible for it; 0 is 10 seconds.
	Grace time.Duration
}

// EnsureDefaults fills in what is not set.
func (o *Options) EnsureDefaults() {
	if o.Replica == "" {
		o.Replica = "gateway"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Amount == nil {
		o.Amount = func(n int64) string { return strconv.FormatInt(n, 10) }
	}
	for _, d := range []struct {
		of *time.Duration
		is time.Duration
	}{{&o.Horizon, 90 * 24 * time.Hour}, {&o.Retention, 30 * 24 * time.Hour}, {&o.Patience, 30 * time.Second}, {&o.Grace, 10 * time.Second}} {
		if *d.of == 0 {
			*d.of = d.is
		}
	}
	if o.MaxHolds == 0 {
		o.MaxHolds = 10_000
	}
	if o.MaxLive == 0 {
		o.MaxLive = 100_000
	}
}

// Validate reports what can't be worked with.
func (o *Options) Validate() error {
	const op = "engine.New"
	switch {
	case len(o.Replica) > MaxName:
		return fail.Errorf(op, fail.Invalid, "", "a replica's name may have %d bytes; this one has %d", MaxName, len(o.Replica))
	case min(o.Horizon, o.Retention, o.Patience, o.Grace) < 0:
		return fail.Errorf(op, fail.Invalid, "", "the horizon, the retention, the patience and the grace of agreements can't be negative")
	case o.MaxHolds < 1 || o.MaxLive < 1:
		return fail.Errorf(op, fail.Invalid, "", "there must be room for an agreement: MaxHolds is %d and MaxLive %d", o.MaxHolds, o.MaxLive)
	}
	return nil
}

// Engine keeps agreements for one replica. Its methods may be called at once from many
// goroutines; they need Run to be running where there are other replicas.
type Engine struct {
	st   store.Records
	opts Options
	// nonce and counter name our transactions.
	nonce   string
	counter atomic.Int64

	busy  chan struct{} // holds a token while a transaction is decided and written
	woken chan struct{} // tend has to look again

	queueMu sync.Mutex
	queue   []*work

	mu       sync.Mutex
	live     map[string]*Record
	awaiting map[string]int // by owner: those of live that wait to be confirmed
	guests   map[string]int // by domain of a peer: those of live that were made with it
	pools    map[string]*pool
	book     calendar.Book // the profiles of pools
	accounts map[string]account
	replicas map[string]int64
	reached  int64
	news     chan struct{} // closed when the watch told something
	times    due
	watchers map[int]func([]Record)
	watches  int
}

// pool is what is known of a pool.
type pool struct {
	fence    fence
	revision int64 // at which the calendar is known; 0: there is no record
	profile  *calendar.Profile
	count    int            // holds that are counted
	over     int            // how many of them were over when that was looked for last
	sweep    time.Time      // when it may be more
	less     *calendar.Pool // told of, and not written yet
	since    time.Time      // when less was told of first
}

// fence is the record of a pool.
type fence struct {
	Pool calendar.Pool `json:"pool"`
	By   string        `json:"by"` // the transaction that wrote it
}

func (f fence) encode() []byte {
	b, err := json.Marshal(f)
	if err != nil {
		panic("engine: a pool is no JSON: " + err.Error())
	}
	return b
}

// New reads what is kept.
func New(ctx context.Context, st store.Records, o Options) (*Engine, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	var nonce [6]byte
	_, _ = rand.Read(nonce[:]) // never fails
	e := &Engine{
		st: st, opts: o, nonce: hex.EncodeToString(nonce[:]),
		busy: make(chan struct{}, 1), woken: make(chan struct{}, 1), news: make(chan struct{}),
		live: map[string]*Record{}, awaiting: map[string]int{}, guests: map[string]int{}, pools: map[string]*pool{}, book: calendar.Book{}, accounts: map[string]account{},
		replicas: map[string]int64{}, watchers: map[int]func([]Record){},
	}
	if err := e.reload(ctx); err != nil {
		return nil, err
	}
	return e, nil
}

// now gives the time without what only this process understands.
func (e *Engine) now() time.Time { return e.opts.Now().UTC().Round(0) }

// stamp gives a name that nothing else has.
func (e *Engine) stamp() string { return e.nonce + strconv.FormatInt(e.counter.Add(1), 36) }

// of gives what is known of a pool, and makes it. e.mu is held.
func (e *Engine) of(id string) *pool {
	p := e.pools[id]
	if p == nil {
		p = &pool{fence: fence{Pool: calendar.Pool{ID: id}}, profile: calendar.NewProfile(calendar.Pool{ID: id})}
		e.pools[id] = p
		e.book[id] = p.profile
	}
	return p
}

// forgetPool drops a pool that is not there and of which nothing is held. e.mu is held.
func (e *Engine) forgetPool(id string) {
	if p := e.pools[id]; p != nil && p.revision == 0 && p.count == 0 && p.less == nil {
		delete(e.pools, id)
		delete(e.book, id)
	}
}

// count adds holds to the calendar, or takes them out. e.mu is held.
func (e *Engine) count(holds []calendar.Hold, sign int) {
	for _, h := range holds {
		p := e.of(h.Pool)
		if sign > 0 {
			p.profile.Add(h)
		} else {
			p.profile.Remove(h)
			p.sweep = time.Time{}
		}
		p.count += sign
	}
}

// applyState takes what a record of a state says; nil: it is gone. e.mu is held.
func (e *Engine) applyState(id string, r *Record, revision int64) {
	old := e.live[id]
	if old != nil && old.Revision >= revision {
		return
	}
	if old != nil {
		e.count(old.holds(), -1)
	}
	if r != nil {
		e.count(r.holds(), 1)
	}
	e.install(id, old, r)
}

// install puts an agreement in the place of an older one, when what they hold is counted. e.mu
// is held.
func (e *Engine) install(id string, old, r *Record) {
	if old != nil && old.Awaiting() {
		if e.awaiting[old.Owner]--; e.awaiting[old.Owner] == 0 {
			delete(e.awaiting, old.Owner)
		}
	}
	if r != nil && r.Awaiting() {
		e.awaiting[r.Owner]++
	}
	if old != nil && old.Domain != "" {
		if e.guests[old.Domain]--; e.guests[old.Domain] == 0 {
			delete(e.guests, old.Domain)
		}
	}
	if r == nil || r.Final() {
		delete(e.live, id)
	} else {
		e.live[id] = r
		if r.Domain != "" {
			e.guests[r.Domain]++
		}
		e.schedule(old, r)
	}
	if old != nil {
		for _, h := range old.holds() {
			e.forgetPool(h.Pool)
		}
	}
}

// schedule has an agreement looked at when its time comes. e.mu is held.
func (e *Engine) schedule(old, r *Record) {
	at := r.due()
	if at.IsZero() || old != nil && at.Equal(old.due()) {
		return
	}
	if len(e.times) > 2*len(e.live)+1000 { // most of them have ended since
		e.times = slices.DeleteFunc(e.times, func(d dueAt) bool { // what comes after its time is a second try
			return e.live[d.id] == nil || d.at.Before(e.live[d.id].due())
		})
		heap.Init(&e.times)
	}
	heap.Push(&e.times, dueAt{at, r.ID})
	if e.times[0].id == r.ID {
		e.wake()
	}
}

// applyPool takes what the record of a pool says; nil: it is gone. e.mu is held.
func (e *Engine) applyPool(id string, f *fence, revision int64) {
	if f == nil {
		if p := e.pools[id]; p != nil && p.revision < revision {
			p.fence, p.revision, p.less = fence{Pool: calendar.Pool{ID: id}}, 0, nil
			p.use()
			e.forgetPool(id)
		}
		return
	}
	p := e.of(id)
	if p.revision >= revision {
		return
	}
	same := equalPools(p.fence.Pool, f.Pool)
	p.fence, p.revision = *f, revision
	if !same {
		p.use()
	}
}

func (e *Engine) wake() {
	select {
	case e.woken <- struct{}{}:
	default:
	}
}

// Get gives an agreement; fail.NotFound when there is none.
func (e *Engine) Get(ctx context.Context, id string) (Record, error) {
	const op = "engine.Get"
	e.mu.Lock()
	r := e.live[id]
	e.mu.Unlock()
	if r != nil {
		return *r.clone(), nil
	}
	r, _, err := e.read(ctx, op, id)
	if err != nil {
		return Record{}, err
	}
	if r == nil {
		return Record{}, notFound(op, id)
	}
	return *r, nil
}

func notFound(op, id string) error {
	return fail.Errorf(op, fail.NotFound, id, "there is no agreement %q", id)
}

// record reads one record; nil: it is not there. The revision is its own, or that at which it
// was not there.
func (e *Engine) record(ctx context.Context, key string) ([]byte, int64, error) {
	// The key itself comes first of those that begin with it.
	records, at, err := e.st.ListRecords(ctx, key, store.RecordOptions{Limit: 1})
	if err != nil {
		return nil, 0, err
	}
	if len(records) == 1 && records[0].Key == key {
		return records[0].Value, records[0].Revision, nil
	}
	return nil, at, nil
}

// read reads an agreement; nil: there is none.
func (e *Engine) read(ctx context.Context, op, id string) (*Record, int64, error) {
	if id == "" || len(id) > MaxID {
		return nil, 0, notFound(op, id)
	}
	value, revision, err := e.record(ctx, stateKey(id))
	if err != nil || value == nil {
		return nil, revision, err
	}
	r, err := decode(value, revision)
	if err != nil {
		return nil, 0, fail.E(op, fail.Internal, id, err)
	}
	return r, revision, nil
}

// Document gives the offer of an agreement as it came.
func (e *Engine) Document(ctx context.Context, id string) ([]byte, error) {
	const op = "engine.Document"
	r, err := e.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	if !r.Apart {
		return slices.Clone(r.document), nil
	}
	value, _, err := e.record(ctx, documentKey(id))
	if err != nil {
		return nil, err
	}
	if value == nil {
		return nil, notFound(op, id)
	}
	return value, nil
}

// MaxList bounds an answer of List.
const MaxList = 1000

// List gives the agreements of an owner, the newest ids first, below before ("" from the newest),
// at most limit (0 or more than MaxList is MaxList).
func (e *Engine) List(ctx context.Context, owner, before string, limit int) ([]Record, error) {
	if limit <= 0 || limit > MaxList {
		limit = MaxList
	}
	o := store.RecordOptions{Limit: limit, Newest: true}
	if before != "" {
		o.After = ownerKey(owner, before)
	}
	keys, _, err := e.st.ListRecords(ctx, owned(owner), o)
	if err != nil {
		return nil, err
	}
	out := make([]Record, 0, len(keys))
	for _, k := range keys {
		id, ok := cut(k.Key, owned(owner))
		if !ok {
			continue
		}
		r, err := e.Get(ctx, id)
		switch {
		case fail.Is(err, fail.NotFound): // pruned meanwhile
		case err != nil:
			return nil, err
		default:
			out = append(out, r)
		}
	}
	return out, nil
}

// Ended calls each with the agreements that have ended and are kept, by id; the store is read for it.
// Records that are damaged are left out.
func (e *Engine) Ended(ctx context.Context, each func(*Record)) error {
	return e.scan(ctx, func(v store.Record) {
		if r, err := decode(v.Value, v.Revision); err == nil && r.Final() {
			each(r)
		}
	})
}

// Live gives the agreements that are not final, by id.
func (e *Engine) Live() []Record {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]Record, 0, len(e.live))
	for _, r := range e.live {
		out = append(out, *r.clone())
	}
	slices.SortFunc(out, func(a, b Record) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// Awaiting counts the agreements of an owner that wait to be confirmed.
func (e *Engine) Awaiting(owner string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.awaiting[owner]
}

// OfDomain counts the agreements with a peer's domain that have not ended.
func (e *Engine) OfDomain(domain string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.guests[domain]
}

// Free gives what is free of a pool throughout a time.
func (e *Engine) Free(pool string, from, until time.Time) calendar.Amount {
	e.mu.Lock()
	defer e.mu.Unlock()
	if p := e.pools[pool]; p != nil {
		return p.profile.Free(from, until)
	}
	return calendar.Amount{}
}

// Steps gives what is held of a pool over a time.
func (e *Engine) Steps(pool string, from, until time.Time) []calendar.Step {
	e.mu.Lock()
	defer e.mu.Unlock()
	if p := e.pools[pool]; p != nil {
		return p.profile.Steps(from, until)
	}
	return nil
}

// Watch calls tell with the agreements that changed, of any replica, once each change is
// durable, in the order of the changes; of one that changed several times at once only the last
// state is told. It must return at once. Only while Run runs is anything told.
func (e *Engine) Watch(tell func([]Record)) (stop func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.watches++
	n := e.watches
	e.watchers[n] = tell
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.watchers, n)
	}
}

// Attend tells the other replicas that this one lives, for as long as the session does. When
// that is lost, call it again with a new one.
func (e *Engine) Attend(ctx context.Context, sess store.Session) error {
	_, err := e.st.PutRecords(ctx, sess, store.RecordChange{Key: replicaKey(e.opts.Replica), Value: []byte(e.nonce), If: -1, Bound: true})
	return err
}

// Responsible says whether this replica is the one to act first on something of that name: an
// agreement, a pool. Exactly one of those that attend is, once all have heard of each other;
// when none attends, all are.
func (e *Engine) Responsible(name string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.responsible(name)
}

func (e *Engine) responsible(name string) bool {
	if len(e.replicas) == 0 {
		return true
	}
	best, most := "", uint64(0)
	for r := range e.replicas {
		h := fnv.New64a()
		_, _ = h.Write([]byte(r + "\x00" + name))
		// The last bytes hardly touch the high bits of FNV: they are mixed.
		n := h.Sum64()
		n ^= n >> 33
		n *= 0xff51afd7ed558ccd
		n ^= n >> 33
		if best == "" || n > most || n == most && r < best {
			best, most = r, n
		}
	}
	return best == e.opts.Replica
}
