package peering

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/handover"
)

// Copy names a copy of a job that a peer gave: its key, and the token under which it came.
type Copy struct {
	Key   handover.Key
	Token handover.Token
}

// Submission is the copy as the SubmissionID of the broker's job.
func (c Copy) Submission() string {
	return broker.ForeignPrefix + c.Key.String() + "#" + string(c.Token)
}

// Given is a job of a peer for the broker.
type Given struct {
	Copy
	Since    time.Time // when it came, as the record has it
	From     string    // who handed it over
	Path     []string  // the domains that hold it, the origin first, From last
	Hops     int       // that it may make from here
	Admitted           // for whom it runs
	Document string
	NotAfter time.Time // see adapters.Job
	Deadline time.Time // the job is of no use after it; zero is none
	// Agreement is that of ours in whose room it is to run, by the word of From; "" is none.
	Agreement string
	Trace     string // trace id
}

// Jobs is the broker's side of jobs that peers gave: see OfBroker. It is safe for concurrent
// use; calls about one copy come one after the other.
type Jobs interface {
	// Activity gives the name that the broker has for a copy that came at a moment, before it
	// has it and after.
	Activity(c Copy, since time.Time) string
	// Start takes jobs in, or finds them where they were taken in before, and tells of each
	// how it stands. An error of kind Unavailable, Uncertain, Exhausted, NotAccepting or
	// Internal has it tried again; after any other the copy is given back.
	Start(ctx context.Context, gs ...Given) []Started
	// Stop ends the job. It is idempotent; the end comes as a State. fail.NotFound says that
	// it was never taken in.
	Stop(ctx context.Context, activity, reason string) error
	// Hold keeps the job from running for now, or lets it go on.
	Hold(ctx context.Context, activity string, held bool) error
	// Extend moves NotAfter on.
	Extend(ctx context.Context, activity string, notAfter time.Time) error
	// States tells how jobs stand, live or ended; those that are not there are left out.
	States(ctx context.Context, activities ...string) ([]State, error)
	// Reasons tells what jobs wait for that have no place; others, and more of them than it
	// likes to look at, are left out.
	Reasons(activities ...string) map[string]broker.ForeignReason
	// Output reads a piece of a stream of the activity from an offset, at most so many bytes;
	// more says that the job may still write.
	Output(ctx context.Context, activity, stream string, offset int64, most int) (data []byte, more bool, err error)
	// Watch calls emit with how jobs of peers stand, all that have not ended and then each
	// change, until ctx ends. Once all are told it calls emit with none: others that the
	// caller knows have ended.
	Watch(ctx context.Context, emit func([]State)) error
}

// State is how a job of a peer stands in the broker.
type State struct {
	Activity string
	Revision int64 // grows with each change
	Status   handover.Status
	Site     string
	Result   *handover.Result // of IsEnded; its Token is not looked at
	Reason   string
	// Kind is of the reason of IsReturned, where that is one for good: see handover.Report.
	Kind fail.Kind
	// Again says that it lost its place, and Reason why.
	Again bool
	Used  handover.CPUTime
	Began bool // it was started, now or before
	// Return says that an administrator wants it given back to the peer.
	Return bool
}

// Started is what became of taking one job in.
type Started struct {
	State
	Err error
}

// worker is what was told to the broker's side about an entry. The goroutine that has the
// entry in hand writes it, under the lock.
type worker struct {
	busy     bool
	failures int
	nowhere  int  // turns in a row in which no site of ours took jobs
	rests    bool // after a failure; what ends the job is not kept waiting
	doubt    bool // the broker may come to have the job though it says that it has not
	started  bool
	stopped  bool
	held     bool
	notAfter time.Time
	revision int64 // of the newest state
	turn     int   // of the watch that told of it last
	timer    *time.Timer
}

func (w *worker) reset() {
	if w.timer != nil {
		w.timer.Stop()
	}
	*w = worker{busy: w.busy}
}

// mostWorkers is how many calls of the broker's side are under way at once.
const mostWorkers = 64

// work files an entry for which there may be something to do; the caller holds the lock.
func (e *Engine) work(x *entry) {
	if do, _ := e.task(x); do == nil || x.worker.busy {
		return // who has it in hand looks again
	}
	if x.worker.rests && x.job.Phase == handover.Here {
		return // its timer looks again
	}
	x.worker.busy = true
	e.todo = append(e.todo, x)
	nudge(e.wakeWork)
}

// mostStarted is how many jobs the broker is given to take in at once.
const mostStarted = 256

// workLoop does what is to be done at the broker's side. Jobs that are to be taken in go
// together.
func (e *Engine) workLoop(t *term) error {
	slots := make(chan struct{}, mostWorkers)
	begin := func(f func()) bool {
		select {
		case <-t.ctx.Done():
			return false
		case slots <- struct{}{}:
		}
		t.bg.Go(func() {
			defer func() { <-slots }()
			f()
		})
		return true
	}
	for {
		var some, fresh []*entry
		var given []Given
		e.mu.Lock()
		if e.term == t {
			some = slices.Clone(e.todo[:min(len(e.todo), mostStarted)])
			clear(e.todo[:len(some)])
			e.todo = e.todo[len(some):]
		}
		some = slices.DeleteFunc(some, func(x *entry) bool {
			_, g := e.task(x)
			if g != nil {
				fresh, given = append(fresh, x), append(given, *g)
			}
			return g != nil
		})
		e.mu.Unlock()
		if len(some)+len(fresh) == 0 {
			select {
			case <-t.ctx.Done():
				return nil
			case <-e.wakeWork:
			}
			continue
		}
		if len(fresh) > 0 && !begin(func() { e.beginAll(t, fresh, given) }) {
			return nil
		}
		for _, x := range some {
			if !begin(func() { e.labour(t, x) }) {
				return nil
			}
		}
	}
}

// beginAll has the broker take jobs in whose documents are known.
func (e *Engine) beginAll(t *term, xs []*entry, gs []Given) {
	ctx, cancel := context.WithTimeout(t.ctx, callTime)
	defer cancel()
	for i, s := range e.o.Jobs.Start(ctx, gs...) {
		x := xs[i]
		if err := e.begun(x, gs[i], s); err != nil {
			e.failed(t, x, err)
			continue
		}
		e.mu.Lock()
		x.worker.failures, x.worker.rests, x.worker.busy = 0, false, false
		if e.term == t {
			e.work(x)
		}
		e.mu.Unlock()
	}
}

// labour does all that is to be done for an entry, one thing after the other.
func (e *Engine) labour(t *term, x *entry) {
	for {
		e.mu.Lock()
		do, _ := e.task(x)
		if do == nil || e.term != t {
			x.worker.busy = false
			e.mu.Unlock()
			return
		}
		e.mu.Unlock()
		ctx, cancel := context.WithTimeout(t.ctx, callTime)
		err := do(ctx, t)
		cancel()
		if err == nil {
			e.mu.Lock()
			x.worker.failures, x.worker.rests = 0, false
			e.mu.Unlock()
			continue
		}
		e.failed(t, x, err)
		return
	}
}

// failed has something tried again later.
func (e *Engine) failed(t *term, x *entry, err error) {
	if t.ctx.Err() != nil {
		return
	}
	e.o.Log.Warn("the broker can't do at present what a peer wants of its job; it is tried again", "job", x.key.String(), "cause", err)
	e.mu.Lock()
	defer e.mu.Unlock()
	x.worker.failures++
	x.worker.busy, x.worker.rests = false, true
	x.worker.timer = time.AfterFunc(backoff(x.worker.failures), func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.term == t && e.jobs[x.key] == x {
			x.worker.rests = false
			e.work(x)
		}
	})
}

// callTime bounds one call of the broker's side.
const callTime = time.Minute

type deed func(ctx context.Context, t *term) error

// task gives what is to be done next at the broker's side for an entry, by its record; nil
// for nothing. Where that is to take the job in, with a document that is in memory, it is
// given beside. The caller holds the lock.
func (e *Engine) task(x *entry) (deed, *Given) {
	j, w := x.job, &x.worker
	if j == nil || j.Taken == nil || j.Taken.Refused || x.Closed || x.Activity == "" {
		return nil, nil
	}
	if !live(j) && x.Final != nil && x.Token == j.Token() {
		return nil, nil // its end at the peer is that of the broker's job too
	}
	c, id := x.copyOf(), x.Activity
	if !live(j) || j.Phase == handover.Stopping {
		if w.stopped {
			return nil, nil
		}
		why := j.Reason
		if j.Want == handover.Cancel {
			why = "its domain asked for its end"
		}
		if why == "" {
			why = "the domain " + j.Taken.From + " wants it back"
		}
		g := x.given()
		return func(ctx context.Context, t *term) error { return e.stop(ctx, t, x, g, id, why) }, nil
	}
	if !w.started {
		// Of one that is at a peer it is asked, after a restart, how it stands.
		if j.Phase != handover.Here && j.Phase != handover.Given {
			return nil, nil
		}
		g := x.given()
		do := func(ctx context.Context, t *term) error { return e.begin(ctx, t, x, g) }
		if g.Document == "" {
			return do, nil
		}
		return do, &g
	}
	if at := j.Taken.Terms.NotAfter(j.Taken.RecallBy); at.After(w.notAfter) {
		return func(ctx context.Context, _ *term) error {
			return e.heard(x, c, e.o.Jobs.Extend(ctx, id, at), func() { w.notAfter = at })
		}, nil
	}
	if held := j.Want == handover.Suspend; held != w.held && j.Phase == handover.Here {
		return func(ctx context.Context, _ *term) error {
			return e.heard(x, c, e.o.Jobs.Hold(ctx, id, held), func() { w.held = held })
		}, nil
	}
	return nil, nil
}

// given is the copy for the broker; its document may be in the store only.
func (x *entry) given() Given {
	t := x.job.Taken
	g := Given{
		Copy: x.copyOf(), Since: x.Since, From: t.From, Path: t.Path, Hops: t.Hops, Admitted: Admitted{x.Owner, x.Account, x.LocalVO},
		NotAfter: t.Terms.NotAfter(t.RecallBy), Trace: traceID(x.key, x.Trace), Deadline: x.Deadline, Agreement: x.Agreement,
	}
	if x.freight != nil {
		g.Document = x.freight.Document
	}
	return g
}

// heard notes that the broker was told something, unless it must be told again.
func (e *Engine) heard(x *entry, c Copy, err error, note func()) error {
	if err != nil && again(err) {
		return err
	}
	// It has ended, or can't do this: its state tells.
	e.mu.Lock()
	defer e.mu.Unlock()
	if x.taken() && x.copyOf() == c {
		note()
	}
	return nil
}

// again reports whether a call that failed may succeed later.
func again(err error) bool {
	switch fail.KindOf(err) {
	case fail.Internal, fail.NotAccepting, fail.Unavailable, fail.Exhausted, fail.Uncertain:
		return true
	case fail.Invalid, fail.Unsupported, fail.Unauthenticated, fail.Denied, fail.NotFound, fail.Conflict:
	}
	return false
}

// begin has the broker take the job in.
func (e *Engine) begin(ctx context.Context, t *term, x *entry, g Given) error {
	if g.Document == "" {
		f, err := e.readFreight(t, g.Key)
		if err != nil {
			return err
		}
		if f == nil {
			err = fail.Errorf("peering.begin", fail.Invalid, g.Key.String(), "what was routed with the job is gone from the store; restore it from a backup")
			e.giveUp(x, g.Copy, err)
			return nil
		}
		g.Document = f.Document
	}
	return e.begun(x, g, e.o.Jobs.Start(ctx, g)[0])
}

// begun heeds what became of taking a job in.
func (e *Engine) begun(x *entry, g Given, s Started) error {
	if err := s.Err; err != nil {
		if again(err) {
			e.delayed(x, g.Copy, err)
			return err
		}
		e.giveUp(x, g.Copy, err)
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !x.taken() || x.copyOf() != g.Copy {
		return nil
	}
	x.worker.started, x.worker.doubt, x.worker.notAfter = true, false, g.NotAfter
	if x.freighted && x.packed == nil {
		x.freight = nil // it is in the store
	}
	e.apply(x, s.State)
	return nil
}

// mostStarts is how often the broker is asked to take a job in before it is given back, which
// is after about half a minute.
const mostStarts = 10

// delayed notes that the broker could not take a copy in.
func (e *Engine) delayed(x *entry, c Copy, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !x.taken() || x.copyOf() != c {
		return
	}
	x.worker.doubt = doubtful(err)
	why := "the gateway of " + e.o.Domain + " can't take it in now: " + fail.Sentence(err)
	if x.worker.failures+1 < mostStarts || x.job.Phase != handover.Here {
		e.explain(x, why)
		return
	}
	if err := e.step(x, handover.Return{Running: true, Reason: why, Kind: fail.KindOf(err)}); err != nil {
		e.o.Log.Debug("a job of a peer can't be given back", "job", x.key.String(), "cause", err)
	}
}

// doubtful reports whether what failed may have been done, or be done yet.
func doubtful(err error) bool {
	return fail.Is(err, fail.Uncertain) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// surely makes certain that the broker has not, and never will have, a job that it does not
// know though it was told to take it in: by this gateway before, which did not hear, or by
// another replica. It is told once more, which does nothing where it was done, and then to
// end it.
func (e *Engine) surely(ctx context.Context, t *term, g Given) (known bool, err error) {
	if !time.Now().Before(g.NotAfter) {
		return false, nil // nor does it take in what is past its lease
	}
	if g.Document == "" {
		f, err := e.readFreight(t, g.Key)
		if err != nil || f == nil {
			return false, err
		}
		g.Document = f.Document
	}
	if err = e.o.Jobs.Start(ctx, g)[0].Err; err != nil {
		if doubtful(err) {
			return false, err
		}
		return false, nil
	}
	return true, nil
}

// giveUp gives a copy back that the broker does not take.
func (e *Engine) giveUp(x *entry, c Copy, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !x.taken() || x.copyOf() != c {
		return
	}
	x.worker.started = true
	e.apply(x, State{Status: handover.IsReturned, Kind: fail.KindOf(err), Reason: "the domain " + e.o.Domain + " can't run it: " + fail.Sentence(err)})
}

// stop has the broker end the job.
func (e *Engine) stop(ctx context.Context, t *term, x *entry, g Given, activity, why string) error {
	c := g.Copy
	err := e.o.Jobs.Stop(ctx, activity, why)
	gone := fail.Is(err, fail.NotFound)
	e.mu.Lock()
	doubt := x.worker.doubt && !x.worker.started
	e.mu.Unlock()
	if gone && doubt {
		known, serr := e.surely(ctx, t, g)
		switch {
		case serr != nil:
			return serr
		case known:
			err = e.o.Jobs.Stop(ctx, activity, why)
			gone = fail.Is(err, fail.NotFound)
		}
	}
	if err != nil && !gone && again(err) {
		return err
	}
	var states []State
	if !gone { // it may have ended before
		if states, err = e.o.Jobs.States(ctx, activity); err != nil {
			return err
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !x.taken() || x.copyOf() != c {
		return nil
	}
	x.worker.stopped = true
	if gone {
		e.apply(x, State{Status: handover.IsReturned, Reason: "it had not been given to a site"})
	}
	for _, st := range states {
		e.apply(x, st)
	}
	return nil
}

// watchJobs hears from the broker how jobs of peers stand.
func (e *Engine) watchJobs(t *term) error {
	for failures, turn := 0, 1; ; failures++ {
		err := e.o.Jobs.Watch(t.ctx, func(states []State) {
			if len(states) == 0 {
				e.missing(t, turn)
				turn++
				return
			}
			e.mu.Lock()
			defer e.mu.Unlock()
			e.hear(t, turn, states)
		})
		if t.ctx.Err() != nil {
			return nil //nolint:nilerr // what fails while stopping is no failure
		}
		e.o.Log.Warn("the broker does not tell how jobs of peers stand; it is asked again", "cause", err)
		if !sleep(t.ctx, backoff(failures)) {
			return nil
		}
	}
}

// hear takes states in; the caller holds the lock.
func (e *Engine) hear(t *term, turn int, states []State) {
	if e.term != t {
		return
	}
	for _, st := range states {
		if x := e.acts[st.Activity]; x != nil && x.taken() && x.Activity == st.Activity {
			x.worker.turn = turn
			e.apply(x, st)
		}
	}
}

// missing asks about the jobs of which the broker did not tell though it told of all; also about those that it is told to
// take in just now, as it may have had them before, and they may have ended before anybody listened.
func (e *Engine) missing(t *term, turn int) {
	var ask []string
	e.mu.Lock()
	for id, x := range e.acts {
		if x.taken() && !x.Closed && x.worker.turn != turn {
			ask = append(ask, id)
		}
	}
	e.mu.Unlock()
	if len(ask) == 0 {
		return
	}
	states, err := e.o.Jobs.States(t.ctx, ask...)
	if err != nil {
		e.o.Log.Warn("it can't be seen now how jobs of peers ended", "cause", err)
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.hear(t, turn, states)
}

// apply steps a job for how it stands in the broker; the caller holds the lock.
func (e *Engine) apply(x *entry, st State) {
	if x.Closed || st.Revision != 0 && st.Revision < x.worker.revision {
		return
	}
	x.worker.revision = max(x.worker.revision, st.Revision)
	if x.job.Phase != handover.Given {
		x.Site = st.Site
	}
	do := func(in handover.Input) {
		if err := e.step(x, in); err != nil {
			e.o.Log.Debug("how a job of a peer stands is not heeded", "job", x.key.String(), "cause", err)
		}
	}
	j := x.job
	here := j.Phase == handover.Here || j.Phase == handover.Stopping
	ev := handover.Evidence{Token: j.Token(), Used: min(max(st.Used, 0), maxUsed), Reason: st.Reason, Kind: st.Kind}
	if st.Began {
		ev.Used = max(ev.Used, 1) // 0 says that it never began
	}
	switch st.Status {
	case handover.IsWaiting, handover.IsPlaced, handover.IsRunning, handover.IsSuspended:
		if here {
			ev.Shows = shows[st.Status]
			do(ev)
		}
		if st.Again || x.why != "" {
			e.explain(x, st.Reason)
		}
		if st.Return && live(x.job) && x.job.Taken.Recall != handover.Running {
			do(handover.Return{Running: true, Reason: "an administrator of the domain " + e.o.Domain + " gave it back"})
		}
	case handover.IsEnded, handover.IsReturned:
		x.Closed = true
		e.saveLater(x)
		switch {
		case here && st.Status == handover.IsEnded && st.Result != nil:
			r := *st.Result
			ev.Shows, ev.Result = handover.HasEnded, &r
			do(ev)
		case here:
			ev.Shows = handover.NotRun
			do(ev) // what follows from it gives the copy back
		case j.Phase == handover.Given:
			do(handover.TakeBack{Running: true})
		case j.Phase == handover.Waiting:
			do(handover.Return{Running: true, Reason: st.Reason, Kind: st.Kind})
		}
	}
}

// shows is what a job that has not ended shows at our own sites.
var shows = map[handover.Status]handover.Shows{
	handover.IsWaiting: handover.HasQueued, handover.IsPlaced: handover.HasQueued, handover.IsRunning: handover.HasStarted, handover.IsSuspended: handover.HasPaused,
}

func now() time.Time { return time.Now().UTC().Round(0) }
