package broker

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/resourcemodel"
)

// site is what the broker knows of a place and what it has to do there. There is
// one of each name, as long as it is configured or jobs are there. Broker.mu
// guards what has no atomic.
type site struct {
	b    *Broker
	name string

	conn      atomic.Pointer[conn]               // nil while it has no adapter
	capacity  atomic.Pointer[adapters.Capacity]  // nil until first known
	resources atomic.Pointer[adapters.Resources] // the same in full
	looking   sync.Mutex                         // held while condition is renewed, so that no older word comes after a newer
	condition atomic.Pointer[adapters.Health]    // as last looked at; nil before
	heard     atomic.Int64                       // when evidence came last, Unix nanoseconds
	contact   atomic.Int64                       // when a call was answered or evidence came last, the same; at first, when we began
	met       atomic.Bool                        // its manager was there, since we began
	answered  atomic.Int64                       // the same, 0 at first

	configured bool // it was given to us, and is not gone yet
	open       bool // it is given jobs
	draining   bool
	broken     error // why it has no adapter, though it should
	accounts   map[string]string
	account    string

	inFlight   int           // jobs that it has or is being given
	phases     map[Phase]int // the same by phase
	failures   int           // in a row
	closed     time.Time     // no new jobs until then
	down       error         // why
	lapsed     bool          // it did not answer for the time of a lease
	quarantine quarantine
	credit     credit
	fencing    Fencing
	unfenced   string // why it could not be fenced, though it should be

	model   SiteModel
	told    *adapters.Resources // as it was measured last; nil before
	source  string              // of that
	static  *resourcemodel.Static
	dynamic *resourcemodel.Dynamic
	shown   *resourcemodel.Static // that the scheduler has
	stale   bool                  // the scheduler must hear of it
	news    bool                  // the shared model must hear of it
	unfit   string                // why what it has can't be taken into the model
	running map[spot]taken        // by our jobs that run there
	base    map[spot]taken        // the same when it was measured
	coming  map[spot]int          // our jobs that it has, or is being given, and that do not run
	waited  map[string]int        // by share, those of coming when it was measured

	submitting bool      // a call that hands jobs over is under way
	submit     []ticket  // jobs to be handed over
	listening  time.Time // since when it tells by itself what becomes of jobs

	find   map[string]string // tag by job: was it placed?
	steer  map[string]Action // DoCancel, DoSuspend or DoResume by job
	drop   []adapters.Handle // to be forgotten
	extend map[string]bool   // jobs of which it is to be told a later end of the lease

	wakeExtend, wakeSubmit, wakeFind, wakeSteer, wakeAudit, wakeLease, wakeFence, wakePurge chan struct{}

	loops       sync.WaitGroup
	quit, abort context.CancelFunc // of the loops: no further chore; no further answer
}

// ticket names a placement.
type ticket struct{ id, tag string }

// forgetting is a placement that the site need not remember.
type forgetting struct {
	site   string
	handle adapters.Handle
}

func newSite(b *Broker, name string) *site {
	c := func() chan struct{} { return make(chan struct{}, 1) }
	s := &site{
		b: b, name: name, wakeExtend: c(), wakeSubmit: c(), wakeFind: c(), wakeSteer: c(), wakeAudit: c(), wakeLease: c(),
		wakeFence: c(), wakePurge: c(),
		quit: func() {}, abort: func() {},
	}
	s.reset()
	return s
}

func (s *site) reset() {
	s.inFlight, s.failures, s.closed, s.down, s.lapsed = 0, 0, time.Time{}, nil, false
	s.submitting = false
	s.phases = map[Phase]int{}
	s.running, s.coming = map[spot]taken{}, map[spot]int{}
	s.shown, s.stale = nil, true
	s.submit, s.drop = nil, nil
	s.find, s.steer, s.extend = map[string]string{}, map[string]Action{}, map[string]bool{}
}

// start starts the loops of the site; Broker.ops is held.
func (s *site) start(ctx context.Context) {
	c := s.conn.Load()
	if c == nil {
		return
	}
	calls, abort := context.WithCancel(ctx)
	ctx, quit := context.WithCancel(calls)
	s.quit, s.abort = quit, abort
	s.loops.Go(func() {
		s.loop(ctx, calls, s.wakeSubmit, func(cc context.Context) (bool, error) { return s.submitSome(ctx, cc, c) })
	})
	s.loops.Go(func() {
		s.loop(ctx, calls, s.wakeFind, func(cc context.Context) (bool, error) { return s.findSome(cc, c) })
	})
	s.loops.Go(func() {
		s.loop(ctx, calls, s.wakeSteer, func(cc context.Context) (bool, error) { return s.steerSome(cc, c) })
	})
	if c.leaser != nil {
		s.loops.Go(func() {
			s.loop(ctx, calls, s.wakeExtend, func(cc context.Context) (bool, error) { return s.extendSome(cc, c) })
		})
	}
	s.loops.Go(func() { s.auditLoop(ctx, c) })
	s.loops.Go(func() { s.leaseLoop(ctx) })
	s.loops.Go(func() { s.fenceLoop(ctx) })
	s.loops.Go(func() { s.purgeLoop(ctx, c) })
	if c.watcher != nil {
		s.loops.Go(func() { s.watchLoop(ctx, c) })
	}
	for _, wake := range []chan struct{}{s.wakeExtend, s.wakeSubmit, s.wakeFind, s.wakeSteer} {
		nudge(wake) // what was filed before
	}
}

// stop ends the loops; calls under way have so long to end by themselves.
func (s *site) stop(grace time.Duration) {
	s.quit()
	if grace > 0 {
		late := time.AfterFunc(grace, s.abort)
		defer late.Stop()
	} else {
		s.abort()
	}
	s.loops.Wait()
	s.abort()
}

// catchUp files what is to be done about the jobs that the site has, with an
// adapter that knows nothing of what was asked of the one before; the caller
// holds the lock.
func (s *site) catchUp() {
	waiting := map[string]bool{}
	for _, t := range s.submit {
		waiting[t.tag] = true
	}
	for _, j := range s.b.jobs {
		if s.has(j) && !waiting[j.rec.Status.Placement.Tag] {
			s.b.resume(j)
		}
	}
}

// loop does a chore whenever it is woken, until nothing is left of it; while the
// site does not answer, it waits longer each time.
func (s *site) loop(ctx, calls context.Context, wake <-chan struct{}, chore func(context.Context) (more bool, err error)) {
	for failures := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-wake:
		}
		for more := true; more; {
			var err error
			more, err = chore(calls)
			if ctx.Err() != nil {
				return
			}
			if err == nil {
				failures = 0
				continue
			}
			failures++
			if !sleep(ctx, s.b.cfg.Retry.backoff(failures, s.b.cfg.Jitter())) {
				return
			}
		}
	}
}

// todo files actions on a job; the caller holds the lock.
func (s *site) todo(j *job, do Action) {
	id := j.rec.ID
	if do&DoSubmit != 0 {
		s.submit = append(s.submit, ticket{id, j.rec.Status.Placement.Tag})
		nudge(s.wakeSubmit)
	}
	if do&DoFind != 0 {
		s.find[id] = j.rec.Status.Placement.Tag
		nudge(s.wakeFind)
	}
	for _, one := range []Action{DoResume, DoSuspend, DoCancel} {
		if do&one != 0 {
			s.steer[id] = one
			nudge(s.wakeSteer)
		}
	}
}

// toForget files a handle to be forgotten; the caller holds the lock.
func (s *site) toForget(h adapters.Handle) {
	s.drop = append(s.drop, h)
	nudge(s.wakeSteer)
}

// callTime bounds one call of an adapter: one that hangs must not take the
// site's loop with it for ever.
const callTime = 5 * time.Minute

// batch says how many of n go into one call, if an adapter that has no bound of
// its own is given at most so many.
func (c *conn) batch(n, most int) int {
	if c.props.MaxBatch > 0 {
		most = c.props.MaxBatch
	}
	return min(n, most)
}

// has reports whether the site has the job, or may.
func (s *site) has(j *job) bool {
	st := &j.rec.Status
	return st.Placement != nil && st.Placement.Site == s.name && Phase(st.Phase).atSite()
}
