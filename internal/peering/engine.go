package peering

import (
	"cmp"
	"container/heap"
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/wire"
)

// Store is what the engine needs of store.Store.
type Store interface {
	store.Records
	Join(ctx context.Context, replica string) (store.Session, error)
	Get(ctx context.Context, ids ...string) (map[string]store.Job, error)
}

// Link is what carries items to peers: peers.Table.
type Link interface {
	// Put gives items to be sent, all or none. Its errors are those of peers.Table.Put.
	Put(domain string, items ...wire.Message) error
}

// Gate decides which jobs of peers are taken. It is safe for concurrent use.
type Gate interface {
	// Admit says for whom a route's job would run here, or why it is not taken: the error's
	// kind tells the peer what to do, see routing.Admit. Here is how many jobs of the peer
	// are here already.
	Admit(ctx context.Context, from string, r *wire.Route, here int) (Admitted, error)
}

// Admitted is for whom a job of a peer runs here.
type Admitted struct {
	Owner   string // the principal
	Account string // the local account; "" is the site's usual one
	VO      string
}

// Voucher vouches for users towards peers.
type Voucher interface {
	// Vouch gives the assertion that goes with a job and its document: who its owner is, for
	// the domain to alone and until a moment, the recall deadline of the route. Came is the
	// assertion with which the job came here; nil for a job of our own. nil is none.
	Vouch(ctx context.Context, to string, key handover.Key, owner, vo, document string, until time.Time, came []byte) ([]byte, error)
}

// Book is the favour ledger. Its methods are called one after the other.
type Book interface {
	// Load reads what the store remembers, when a term begins.
	Load(ctx context.Context) error
	// Owes reports whether a charge by the provider is noted for the copy.
	Owes(provider string, k handover.Key, t handover.Token) bool
	// Charge notes what this domain owes and earned, and gives the records that change with
	// that, at most MaxCharges for each charge, none twice. They may be written more than
	// once. It is called in the order in which they are written.
	Charge(owe, earn []handover.Charge) ([]store.RecordChange, error)
}

// MaxCharges bounds the records that change with one charge.
const MaxCharges = 3

// View is how a peer looks as a site.
type View interface {
	// Check says whether the domain could ever run the definition, as far as is known.
	Check(domain string, d *jsdl.JobDefinition) error
	// Resources gives what the domain shows.
	Resources(ctx context.Context, domain string) (adapters.Resources, error)
}

// Options are those of an Engine. Domain, Store, Link and Jobs are required.
type Options struct {
	Domain  string
	Replica string // names this process across restarts; default "gateway"
	Store   Store
	Link    Link
	Jobs    Jobs
	Gate    Gate    // nil takes no jobs
	Voucher Voucher // nil vouches for nobody
	Book    Book    // nil keeps none
	// Recount is told of a peer of whose jobs there are more here, or less, than before. It must
	// be quick, and not call the engine. May be nil.
	Recount func(domain string)
	View    View // nil knows nothing of what peers have, so that nothing is placed there
	// Serve runs while this replica is the engine, for as long as its session with the store
	// lasts; nil is nothing. The sessions with peers belong here, as these must talk to who
	// has the records. The term ends when it returns.
	Serve func(ctx context.Context, session store.Session) error
	// Hops says how many hops a job of our own may make; nil, or less than one, is 3.
	Hops func() int
	// Patience is how long a submission waits for a peer's answer, after which the answer
	// comes as evidence; default 3 s.
	Patience time.Duration
	// Outputs is how long the output of a peer's job that is over can be read; default 7 days.
	Outputs time.Duration
	Log     *slog.Logger // nil discards
}

// Engine drives the jobs that this domain's gateway handed over and was handed. It is safe
// for concurrent use.
type Engine struct {
	o       Options
	gateway handover.Gateway

	wakeCommit, wakeTimer, wakeWork chan struct{}

	mu   sync.Mutex
	term *term // nil: another replica is the engine, or the records are being read
	over bool  // the gateway stops
	jobs map[handover.Key]*entry
	acts map[string]*entry // jobs of peers by the broker's name
	here map[string]int    // live jobs of each peer
	past map[string]int    // jobs of each peer that are over, of which there is a record
	// hereBytes and pastBytes are what their records have that is of no fixed size.
	hereBytes, pastBytes map[string]int
	counted              map[string]*counted // all jobs of each peer
	peers                map[string]*peer
	write                []*entry // whose records are to be written
	later                []*entry // the same, when there is time
	since                time.Time
	timers               timers
	owing                map[owed]bool // charges that are not in the book yet
	todo                 []*entry      // for whom there is something to do at the broker's side
	reads                requests
}

// term is the time for which this replica is the engine.
type term struct {
	ctx      context.Context //nolint:containedctx // what a term starts ends with it
	session  store.Session
	revision int64 // of the record that makes us the engine
	// confirmed is when, at the latest, nobody else was the engine; Engine.mu guards it.
	confirmed time.Time
	bg        sync.WaitGroup
}

// owed names a charge by its provider.
type owed struct {
	provider string
	key      handover.Key
	token    handover.Token
}

// New makes an Engine; Run starts it. The error is fail.Invalid.
func New(o Options) (*Engine, error) {
	if o.Domain == "" || o.Store == nil || o.Link == nil || o.Jobs == nil {
		return nil, fail.Errorf("peering.New", fail.Invalid, o.Domain, "the engine of peers needs a domain, a store, a link and the broker's side")
	}
	if err := (handover.Key{Origin: o.Domain, ID: "x"}).Check(); err != nil {
		return nil, err
	}
	o.Replica = cmp.Or(o.Replica, "gateway")
	o.Patience = cmp.Or(o.Patience, 3*time.Second)
	o.Outputs = cmp.Or(o.Outputs, 7*24*time.Hour)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{
		o: o, gateway: handover.Gateway{Domain: o.Domain}, peers: map[string]*peer{},
		wakeCommit: make(chan struct{}, 1), wakeTimer: make(chan struct{}, 1), wakeWork: make(chan struct{}, 1),
	}
	e.forgetAll()
	return e, nil
}

// forgetAll empties the memory; the caller holds the lock, or has e for itself.
func (e *Engine) forgetAll() {
	for _, x := range e.jobs {
		for _, w := range x.waits {
			w.settle(x, adapters.Placed{Err: errNoTerm("peering.Submit", fail.Uncertain)})
		}
		for _, f := range append(x.departed, x.pending...) {
			if f.call != nil {
				f.call() // whoever waits sees that the term is over
			}
		}
	}
	e.jobs, e.acts, e.here, e.past = map[handover.Key]*entry{}, map[string]*entry{}, map[string]int{}, map[string]int{}
	e.hereBytes, e.pastBytes = map[string]int{}, map[string]int{}
	e.counted = map[string]*counted{}
	e.write, e.later, e.timers, e.todo = nil, nil, nil, nil
	e.owing = map[owed]bool{}
	for _, p := range e.peers {
		for _, l := range p.outbox {
			if l.done != nil {
				go l.done() // it may come back to us
			}
		}
		p.outbox = nil
	}
	e.reads.end()
}

func errNoTerm(op string, kind fail.Kind) error {
	return fail.Errorf(op, kind, "", "another replica of this gateway talks to the peers at present, or the gateway is starting; try again in a moment")
}

// Run works until ctx ends, and then gives nil: it waits until this replica is the engine,
// and is that until its session with the store is lost.
func (e *Engine) Run(ctx context.Context) error {
	for failures := 0; ; {
		began := time.Now()
		err := e.serve(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // what fails while stopping is no failure
		}
		if fail.Is(err, fail.Invalid) {
			return err // records that can't be read: trying again is no use
		}
		if time.Since(began) > time.Minute {
			failures = 0
		}
		failures++
		wait := backoff(failures)
		e.o.Log.Warn("the engine of peers starts over", "cause", err, "after", wait)
		if !sleep(ctx, wait) {
			return nil
		}
	}
}

func backoff(n int) time.Duration { return min(10*time.Second, 50*time.Millisecond<<min(n, 10)) }

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

var errLost = fail.Errorf("peering.Run", fail.Conflict, "", "the session with the store was lost, or another replica became the engine")

// serve is one term.
func (e *Engine) serve(ctx context.Context) error {
	session, err := e.o.Store.Join(ctx, e.o.Replica+"-peers")
	if err != nil {
		return err
	}
	defer session.Close() //nolint:errcheck // a lease that can't be given back runs out
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		select {
		case <-session.Lost():
			return errLost
		case <-gctx.Done():
			return nil
		}
	})
	g.Go(func() error {
		t := &term{ctx: gctx, session: session}
		if err := e.acquire(t); err != nil {
			return err
		}
		if err := e.load(t); err != nil {
			return err
		}
		g.Go(func() error { return e.commitLoop(t) })
		g.Go(func() error { return e.timerLoop(t) })
		g.Go(func() error { return e.workLoop(t) })
		g.Go(func() error { return e.watchJobs(t) })
		g.Go(func() error { return e.sweepLoop(t) })
		g.Go(func() error { return e.reasonLoop(t) })
		if e.o.Serve != nil {
			g.Go(func() error {
				if err := e.o.Serve(gctx, session); err != nil || gctx.Err() != nil {
					return err
				}
				return errLost
			})
		}
		<-gctx.Done()
		e.mu.Lock()
		e.term, e.over = nil, ctx.Err() != nil
		e.mu.Unlock()
		t.bg.Wait()
		return nil
	})
	err = g.Wait()
	e.mu.Lock()
	e.forgetAll()
	e.mu.Unlock()
	return err
}

// acquire waits until this replica is the engine.
func (e *Engine) acquire(t *term) error {
	for {
		rev, err := e.o.Store.PutRecords(t.ctx, t.session, store.RecordChange{Key: engineKey, Value: []byte(e.o.Replica), Bound: true})
		if err == nil {
			t.revision = rev
			return nil
		}
		if fail.Is(err, fail.Uncertain) {
			// Ours if it has our name: the session's end takes those of before.
			recs, _, lerr := e.o.Store.ListRecords(t.ctx, engineKey, store.RecordOptions{Limit: 1})
			if lerr == nil && len(recs) == 1 && recs[0].Key == engineKey && string(recs[0].Value) == e.o.Replica {
				t.revision = recs[0].Revision
				return nil
			}
			return err
		}
		subject := ""
		if fe, ok := err.(*fail.Error); ok { //nolint:errorlint // the subject is that of the store's own
			subject = fe.Subject
		}
		if !fail.Is(err, fail.Conflict) || subject != engineKey {
			return err
		}
		recs, at, err := e.o.Store.ListRecords(t.ctx, engineKey, store.RecordOptions{Limit: 1})
		if err != nil {
			return err
		}
		if len(recs) == 0 || recs[0].Key != engineKey {
			continue
		}
		e.o.Log.Info("another replica talks to the peers; this one stands by", "replica", string(recs[0].Value))
		wctx, cancel := context.WithCancel(t.ctx)
		err = e.o.Store.WatchRecords(wctx, engineKey, at, func(rs []store.Record, _ int64) {
			for _, r := range rs {
				if r.Key == engineKey && r.Value == nil {
					cancel()
				}
			}
		})
		cancel()
		if t.ctx.Err() != nil {
			return t.ctx.Err()
		}
		if wctx.Err() == nil {
			return err
		}
	}
}

// load reads the records.
func (e *Engine) load(t *term) error {
	var all []*entry
	for after := ""; ; {
		recs, _, err := e.o.Store.ListRecords(t.ctx, jobPrefix, store.RecordOptions{After: after, Limit: 1000})
		if err != nil {
			return err
		}
		for _, r := range recs {
			x, err := decodeEntry(r.Value)
			if err != nil {
				return fail.E("peering.load", fail.KindOf(err), strings.TrimPrefix(r.Key, jobPrefix), err)
			}
			if jobPrefix+keyPath(x.key) != r.Key {
				return fail.Errorf("peering.load", fail.Invalid, r.Key, "the record of the job %s is at the key of another; restore it from a backup", x.key)
			}
			all = append(all, x)
			after = r.Key
		}
		if len(recs) < 1000 {
			break
		}
	}
	if e.o.Book != nil {
		if err := e.o.Book.Load(t.ctx); err != nil {
			return err
		}
	}
	counts, err := e.loadCounts(t)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.term, e.over, e.counted = t, false, counts
	for _, x := range all {
		e.jobs[x.key] = x
		if x.taken() {
			e.count(x.job, 1)
			if x.Activity != "" {
				e.acts[x.Activity] = x
			}
		}
		e.schedule(x)
		if x.Tag != "" {
			x.pending = append(x.pending, effect{publish: true})
		}
		if x.taken() {
			x.worker.doubt = true
			x.pending = append(x.pending, effect{chore: true})
		}
		e.release(x)
	}
	nudge(e.wakeTimer)
	for _, p := range e.peers {
		p.turned() // what was missed is asked for
	}
	return nil
}

// timers is the heap of entries by when they are due.
type timers []*entry

func (h timers) Len() int           { return len(h) }
func (h timers) Less(i, j int) bool { return h[i].due.Before(h[j].due) }
func (h timers) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *timers) Push(v any) {
	x := v.(*entry) //nolint:forcetypeassert // only entries are pushed
	x.index = len(*h)
	*h = append(*h, x)
}

func (h *timers) Pop() any {
	old := *h
	x := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	x.index = -1
	return x
}

// schedule files when the job is to be stepped for the time alone; the caller holds the lock.
func (e *Engine) schedule(x *entry) {
	var at time.Time
	if x.job != nil {
		at = x.job.Next()
	}
	switch {
	case at.IsZero():
		if x.index >= 0 {
			heap.Remove(&e.timers, x.index)
		}
		return
	case x.index < 0:
		x.due = at
		heap.Push(&e.timers, x)
	case x.due.Equal(at):
		return
	default:
		x.due = at
		heap.Fix(&e.timers, x.index)
	}
	if x.index == 0 {
		nudge(e.wakeTimer)
	}
}

// clockTime is how often it is looked at the clock though nothing is due: it may have been set,
// or have gone on while the machine slept.
const clockTime = 10 * time.Second

// mostTicks bounds the ticks of one turn, as the lock is held meanwhile.
const mostTicks = 256

// timerLoop steps jobs for which it is time.
func (e *Engine) timerLoop(t *term) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-t.ctx.Done():
			return nil
		case <-timer.C:
		case <-e.wakeTimer:
		}
		e.mu.Lock()
		now := time.Now()
		for n := 0; len(e.timers) > 0 && e.term == t && !e.timers[0].due.After(now) && n < mostTicks; n++ {
			x := e.timers[0]
			if err := e.step(x, handover.Tick{}); err != nil {
				e.o.Log.Error("a job of peers can't go on", "job", x.key.String(), "cause", err)
			}
			if x.index >= 0 && !x.due.After(now) {
				// It wants to be stepped at once again: not without end.
				x.due = now.Add(10 * time.Millisecond)
				heap.Fix(&e.timers, x.index)
			}
		}
		wait := clockTime
		if len(e.timers) > 0 {
			wait = min(wait, max(0, time.Until(e.timers[0].due)))
		}
		e.mu.Unlock()
		timer.Reset(wait)
	}
}
