package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/broker/estimate"
	"github.com/portolan-project/portolan/internal/broker/limits"
	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/resourcemodel"
)

// Broker gives jobs a life. It is a bes.Service and a bes.Controller.
type Broker struct {
	cfg   Config
	ready chan struct{}

	ops    chan struct{} // holds one while sites come, go or change, which may take time
	roster atomic.Pointer[roster]
	shared atomic.Pointer[shared]

	settings  sync.Mutex // held while the settings are read or written
	accepting atomic.Bool
	unhealthy atomic.Pointer[error] // why the store refuses writes

	wakeCommit   chan struct{}
	wakeDispatch chan struct{}
	wakeReap     chan struct{}
	wakePrune    chan struct{}
	wakeFeed     chan struct{}
	wakeDisown   chan struct{}
	wakeReplicas chan struct{}

	mu       sync.Mutex
	sites    map[string]*site // that are configured, or have jobs
	order    []string         // of those that are configured
	fences   map[string]*Fence
	launch   func(*site) // starts a site's loops; nil between terms
	serving  bool        // a session is held and everything was read
	inbox    []input
	jobs     map[string]*job // that are not final
	owners   map[string]int  // live jobs of each, those being created included
	live     int
	sched    *schedule.Scheduler
	unread   jobHeap // jobs that wait to be brought to the scheduler
	dues     dues    // jobs that are too late at a time
	leases   dues    // jobs of peers, by the end of their leases
	asides   dues    // jobs that may get a site again at a time
	watches  map[*watch]struct{}
	follows  map[*follow]struct{}
	promised map[string]*job     // of which something is promised
	promises dues                // when it is looked at whether that holds
	restless bool                // all of them are looked at, as a site came or went
	rescues  map[string]bool     // those that are to be run elsewhere, too
	owning   map[string]int      // the holds of owners for themselves, without a VO
	roomOf   map[string][]string // these, by the agreement that says so
	roomTold bool                // KeepRoom was called
	kinds    map[kindKey]*kind
	spare    spares
	epoch    uint64 // grows when adapters are to be asked again what they can run
	revision int64  // of the model that the scheduler has
	fed      map[string]bool
	busy     bool // the last round left jobs that may find room
	far      afield
	judged   judged
	book     *estimate.Book
	policies *policyRecord
	own      *policy.Ledger // what was used under this replica
	others   *policy.Ledger // under the others, when it was read last
	learned  bool           // book has more than is written down
	used     bool           // own has more than is written down
	kept     atomic.Int64   // decisions stored since their number was looked at
	waiters  int
	creating map[string]bool      // jobs on their way into store and memory
	doubtful map[string]time.Time // creations whose answer was lost, and since when

	copies    map[string][]*job // replicas, by the job of which they are
	outlasted map[string]*job   // jobs that wait for theirs
	moved     map[string]string // jobs by tag: those that have a placement of another's
	bags      map[kindKey]*bag
	births    []birth   // replicas to be made
	passed    time.Time // when replicas were planned last
}

var (
	_ bes.Service    = (*Broker)(nil)
	_ bes.Controller = (*Broker)(nil)
)

// job is one that is not final. Broker.mu guards it; its status changes in the
// committer alone.
type job struct {
	rec      store.Job
	kind     *kind              // nil when its document must be read first
	queued   where              // it waits
	place    int                // its index among those to be read
	filed    bool               // among those that have a deadline
	aside    bool               // among those that may get a site again at a time
	reserved *site              // that is being written down for it
	chosen   *schedule.Decision // the same, with the reasons, until it is stored
	deciding bool               // its end is being written down, as no site is left
	at       *site              // in whose count it is
	atPhase  Phase              // under which it is counted there
	counted  bool               // towards the limits of its owner and VO, by this replica
	limited  *limits.Use        // what of it counts towards the limits of a site, by this replica
	given    bool               // the scheduler counts it at a place, too
	need     *policy.Job        // as given there
	where    resourcemodel.Place
	running  bool               // and counts as one that the site's manager shows
	handed   time.Time          // when it was handed over to the site; zero: before we started
	since    time.Time          // when it was given there; zero: before we started
	stood    estimate.State     // how the share stood then
	held     bool               // the site said last that it keeps it from starting
	released time.Time          // when the site answered that it lets it go on
	told     *store.Told        // what the site told beside, the newest
	toldAt   time.Time          // when that was last written
	last     time.Time          // of the newest history line
	asked    bool               // a replica was suspended with its job
	ending   bool               // its end as a replica, or for want of replicas, was asked for
	writing  bool               // the committer has it
	early    *adapters.Evidence // overtook the handle
	waiters  map[chan struct{}]struct{}
	leased   time.Time // of a peer's: the end of its lease as it is known here; zero: none
	dated    bool      // among those that have a lease
	look     time.Time // when what is promised of it is looked at again; zero: it is not
}

// New makes a Broker; Run starts it.
func New(cfg Config) (*Broker, error) {
	cfg.EnsureDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	b := &Broker{
		cfg:          cfg,
		ready:        make(chan struct{}),
		ops:          make(chan struct{}, 1),
		wakeCommit:   make(chan struct{}, 1),
		wakeDispatch: make(chan struct{}, 1),
		wakeReap:     make(chan struct{}, 1),
		wakePrune:    make(chan struct{}, 1),
		wakeFeed:     make(chan struct{}, 1),
		wakeDisown:   make(chan struct{}, 1),
		wakeReplicas: make(chan struct{}, 1),
		sites:        map[string]*site{},
		fences:       map[string]*Fence{},
		jobs:         map[string]*job{},
		book:         estimate.New(estimate.Options{}),
		policies:     &policyRecord{},
		creating:     map[string]bool{},
		doubtful:     map[string]time.Time{},
		watches:      map[*watch]struct{}{},
		follows:      map[*follow]struct{}{},
	}
	for _, l := range []**policy.Ledger{&b.own, &b.others} {
		var err error
		if *l, err = policy.NewLedger(halfLives(&b.policies.Policies)...); err != nil {
			return nil, err
		}
	}
	for _, c := range cfg.Sites {
		s := b.place(c.Name)
		s.conn.Store(newConn(c.Adapter))
		s.configured, s.open, s.accounts, s.account, s.model = true, true, c.Accounts, c.AccountDefault, c.Model
		s.fencing = c.Fencing
		b.order = append(b.order, c.Name)
	}
	b.reset()
	b.enrol()
	return b, nil
}

// Ready is closed once Run has read what the store remembers; before that, the
// methods answer fail.Unavailable.
func (b *Broker) Ready() <-chan struct{} { return b.ready }

// Run works until ctx ends; it then returns nil. A session that is lost is
// joined again, and everything is read anew.
func (b *Broker) Run(ctx context.Context) error {
	for failures := 0; ; {
		began := time.Now()
		err := b.term(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // what fails while stopping is no failure
		}
		if fail.Is(err, fail.Invalid) || fail.Is(err, fail.Unsupported) {
			return err // a store of another schema version, say: trying again is no use
		}
		if time.Since(began) > time.Minute {
			failures = 0
		}
		failures++
		wait := min(b.cfg.Retry.backoff(failures, b.cfg.Jitter()), 10*time.Second)
		b.cfg.Log.Warn("the broker starts over", "cause", err, "after", wait)
		if !sleep(ctx, wait) {
			return nil
		}
	}
}

var errSessionLost = errors.New("the session with the store was lost")

// term holds one session: it recovers and then works until the session is lost
// or ctx ends.
func (b *Broker) term(ctx context.Context) error {
	sess, err := b.cfg.Store.Join(ctx, b.cfg.Replica)
	if err != nil {
		return fmt.Errorf("joining the store: %w", err)
	}
	defer sess.Close() //nolint:errcheck // a lease that can't be given back runs out
	defer b.stopServing()

	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		select {
		case <-sess.Lost():
			return errSessionLost
		case <-gctx.Done():
			return nil
		}
	})
	revision, err := b.recover(gctx, sess)
	if err != nil {
		g.Go(func() error { return err })
		return g.Wait()
	}
	sh := b.shared.Load()
	g.Go(func() error { return b.commitLoop(gctx, sess) })
	if b.cfg.Model == nil {
		g.Go(func() error { return sh.model.Run(gctx) })
	}
	defer sh.model.Updates(b.heardFar)()
	g.Go(func() error { return sh.limits.Run(gctx) })
	g.Go(func() error { return b.feedLoop(gctx, sh) })
	g.Go(func() error { return b.dispatchLoop(gctx) })
	g.Go(func() error { return b.replicaLoop(gctx) })
	g.Go(func() error { return b.policyLoop(gctx) })
	g.Go(func() error { return b.usageLoop(gctx, sess) })
	g.Go(func() error { return b.pruneLoop(gctx, sess) })
	g.Go(func() error { return b.settingsLoop(gctx) })
	g.Go(func() error { return b.retentionLoop(gctx, sess) })
	if !b.cfg.Alone {
		g.Go(func() error { return b.watchStore(gctx, revision) })
	}
	g.Go(func() error { return b.reapLoop(gctx) })
	g.Go(func() error { return b.disownLoop(gctx) })
	b.startSites(gctx)
	defer b.stopSites()
	return g.Wait()
}

// stopServing answers everybody who waits.
func (b *Broker) stopServing() {
	b.mu.Lock()
	inbox := b.inbox
	b.inbox, b.serving = nil, false
	for _, j := range b.jobs {
		j.wake()
	}
	b.mu.Unlock()
	for _, in := range inbox {
		in.answer(errStarting)
	}
}

var errStarting = fail.Errorf("broker", fail.Unavailable, "", "the gateway is starting and reads what it remembers; try again in a moment")

// reset empties the memory. What had no jobs and is not configured is forgotten.
func (b *Broker) reset() {
	b.jobs = map[string]*job{}
	b.owners = map[string]int{}
	b.roomOf = map[string][]string{}
	b.live = 0
	b.kinds, b.unread, b.fed, b.busy = map[kindKey]*kind{}, jobHeap{}, map[string]bool{}, false
	b.spare.clear()
	b.dues, b.leases, b.asides = nil, nil, nil
	b.promised, b.promises, b.restless, b.rescues = map[string]*job{}, nil, false, map[string]bool{}
	b.copies, b.outlasted, b.moved = map[string][]*job{}, map[string]*job{}, map[string]string{}
	b.bags, b.births, b.passed = map[kindKey]*bag{}, nil, time.Time{}
	b.newScheduler()
	for name, s := range b.sites {
		if s.reset(); !s.configured {
			delete(b.sites, name)
		}
	}
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// sleep waits for d, or gives false when ctx ends first.
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

// backoff gives how long to wait after the n-th failure in a row: doubling, and
// spread over the upper half so that many do not come back at once.
func (r Retry) backoff(n int, jitter float64) time.Duration {
	d := r.Most
	if n < 30 {
		d = min(r.Most, r.First<<max(0, n-1))
	}
	return d/2 + time.Duration(jitter*float64(d/2))
}
