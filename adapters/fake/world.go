package fake

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/portolan-project/portolan/adapters"
)

// Fault is what befalls one call for one job; the zero value is nothing.
type Fault struct {
	Delay time.Duration // before anything else; ends early with the context
	Err   error         // the answer
	// After says that the deed is done all the same and only its answer is lost:
	// with an Err of kind fail.Uncertain, the case that tags are made for.
	After bool
}

// World is the site behind the adapters: its jobs outlive them.
type World struct {
	mu      sync.Mutex
	jobs    map[adapters.Tag]*job
	order   []*job // queued, first in first out
	running int
	starts  map[adapters.Tag]int
	slots   int
	live    int // jobs that have not ended
	told    [3]int
	dynamic uint64 // the version of what was told
	faults  func(op string, tag adapters.Tag) Fault
	feed    adapters.Feed

	down     string // why the manager does not answer; "" while it does
	silenced []*job // what changed meanwhile
	requests int64
	lose     *bool // the next answer to a submission; whether the deed is done
	lastID   int
	ids      map[int]*job // the newest that bears each

	reservations map[adapters.Tag]*reservation
	loseReserved *bool // the next answer to a reservation; whether the deed is done
}

type job struct {
	tag      adapters.Tag
	id       int
	spec     adapters.Job
	limit    *time.Timer // of its wall time
	notAfter time.Time   // the end of its lease; zero: none
	lease    *time.Timer
	steps    []step
	next     int // the step to be done
	phase    adapters.Phase
	evidence adapters.Evidence
	out, err []byte
	timer    *time.Timer
	wakes    time.Time     // when timer fires
	left     time.Duration // of a sleep that was suspended
	round    int           // guards against timers that fired while being stopped
	within   *reservation  // that it runs in; nil: none, or none any more
}

// NewWorld makes a site that runs so many jobs at once; 0 is no bound.
func NewWorld(slots int) *World {
	return &World{jobs: map[adapters.Tag]*job{}, ids: map[int]*job{}, starts: map[adapters.Tag]int{}, slots: slots, reservations: map[adapters.Tag]*reservation{}}
}

// Inject sets the faults: f is asked once for each job of each call, with op one
// of "check", "submit", "find", "status", "cancel", "output", "forget",
// "resources", "suspend", "resume", "hold", "release", "extend", "reserve", "reservations", "unreserve" ("check" and "resources" have no tag). Nil ends them.
func (w *World) Inject(f func(op string, tag adapters.Tag) Fault) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults = f
}

// Starts says how often the tag was started: the ledger that proves that nothing
// ran twice. It remembers forgotten jobs too.
func (w *World) Starts(tag adapters.Tag) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.starts[tag]
}

// Ledger copies the counts of all starts.
func (w *World) Ledger() map[adapters.Tag]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.starts)
}

// Tags lists the jobs that the site keeps.
func (w *World) Tags() []adapters.Tag {
	w.mu.Lock()
	defer w.mu.Unlock()
	tags := make([]adapters.Tag, 0, len(w.jobs))
	for tag := range w.jobs {
		tags = append(tags, tag)
	}
	return tags
}

// Finish ends a running job with the exit status.
func (w *World) Finish(tag adapters.Tag, status int) error {
	return w.change(tag, func(j *job) error {
		if j.phase != adapters.Running && j.phase != adapters.Suspended {
			return fmt.Errorf("job %s is %v", tag, j.phase)
		}
		w.end(j, adapters.Evidence{Phase: adapters.Exited, ExitStatus: &status})
		return nil
	})
}

// Lose makes the site forget a job as if its disk had: evidence says Lost.
func (w *World) Lose(tag adapters.Tag, notRun bool) error {
	return w.change(tag, func(j *job) error {
		if j.phase.Final() {
			return fmt.Errorf("job %s has ended", tag)
		}
		w.end(j, adapters.Evidence{Phase: adapters.Lost, NotRun: notRun, Reason: "the site lost the job"})
		return nil
	})
}

// Release lets a held job go on.
func (w *World) Release(tag adapters.Tag) error {
	return w.change(tag, func(j *job) error {
		if j.phase != adapters.Held {
			return fmt.Errorf("job %s is %v, not held", tag, j.phase)
		}
		w.release(j)
		return nil
	})
}

// Tell changes what the evidence of a job says beside its phase: its progress,
// hosts, usage, attributes or the reason why it is held.
func (w *World) Tell(tag adapters.Tag, change func(*adapters.Evidence)) error {
	return w.change(tag, func(j *job) error {
		if j.phase.Final() {
			return fmt.Errorf("job %s has ended", tag)
		}
		change(&j.evidence)
		w.set(j, j.phase)
		return nil
	})
}

// Close ends every job, so that no timer is left.
func (w *World) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.order = nil
	for _, r := range w.reservations {
		r.stop()
	}
	for _, j := range w.jobs {
		if !j.phase.Final() {
			w.end(j, adapters.Evidence{Phase: adapters.Lost, Reason: "the site was closed"})
		}
	}
}

func (w *World) change(tag adapters.Tag, f func(*job) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	j, ok := w.jobs[tag]
	if !ok {
		return fmt.Errorf("there is no job %s", tag)
	}
	return f(j)
}

// What follows is called with mu held.

// known gives the job that a handle means, or nil.
func (w *World) known(tag adapters.Tag, id int) *job {
	if j := w.jobs[tag]; j != nil && (id == 0 || j.id == id) {
		return j
	}
	return nil
}

// newID gives the next id that no live job bears, as managers do whose ids wrap.
func (w *World) newID() int {
	for {
		w.lastID++
		if j := w.ids[w.lastID]; j == nil || j.phase.Final() {
			return w.lastID
		}
	}
}

func (w *World) place(spec adapters.Job, steps []step) *job {
	j := &job{tag: spec.Tag, id: w.newID(), spec: spec, steps: steps}
	j.evidence = adapters.Evidence{Tag: spec.Tag, Handle: j.handle()}
	w.jobs[spec.Tag], w.ids[j.id] = j, j
	w.live++
	j.within = w.named(spec.Reservation)
	if j.notAfter = spec.NotAfter; !j.notAfter.IsZero() {
		w.set(j, adapters.Queued)
		if w.lapseLater(j); j.phase.Final() {
			return j
		}
	}
	if len(steps) > 0 && steps[0].verb == "hold" {
		j.next++
		j.evidence.Reason = steps[0].arg
		w.set(j, adapters.Held)
		return j
	}
	w.set(j, adapters.Queued)
	w.order = append(w.order, j)
	w.fill()
	return j
}

func (w *World) release(j *job) {
	j.evidence.Reason = ""
	w.set(j, adapters.Queued)
	w.order = append(w.order, j)
	w.fill()
}

func (w *World) dequeue(j *job) {
	w.order = slices.DeleteFunc(w.order, func(o *job) bool { return o == j })
}

func (w *World) drop(j *job) {
	delete(w.jobs, j.tag)
	if w.ids[j.id] == j {
		delete(w.ids, j.id)
	}
}

// fill starts queued jobs while there is room for them.
func (w *World) fill() {
	for i := 0; i < len(w.order); {
		j := w.order[i]
		if j.phase == adapters.Queued && !w.fits(j) {
			if len(w.reservations) == 0 {
				return // nor does any other
			}
			i++
			continue
		}
		if i == 0 {
			w.order = w.order[1:]
		} else {
			w.order = slices.Delete(w.order, i, i+1)
		}
		if j.phase != adapters.Queued {
			continue // cancelled meanwhile
		}
		if s := j.step(); s.verb == "missing" {
			w.end(j, adapters.Evidence{Phase: adapters.Stopped, NotRun: true, Reason: s.arg})
			continue
		}
		w.starts[j.tag]++
		w.running++
		if j.within != nil {
			j.within.running++
		}
		j.evidence.Started = time.Now()
		w.set(j, adapters.Running)
		w.limit(j)
		w.advance(j)
		i = 0 // who waits is another now
	}
}

// lapseLater ends the job at the end of its lease, whoever is there.
func (w *World) lapseLater(j *job) {
	if j.lease != nil {
		j.lease.Stop()
	}
	left := time.Until(j.notAfter)
	if left <= 0 {
		w.end(j, adapters.Evidence{Phase: adapters.Stopped, LeaseEnded: true, Reason: "the job's lease ended at " + j.notAfter.UTC().Format(time.RFC3339)})
		return
	}
	j.lease = time.AfterFunc(left, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !j.phase.Final() && !j.notAfter.After(time.Now()) {
			w.lapseLater(j)
		}
	})
}

// limit keeps the WallTimeLimit (GFD.56 §8.1.9): real time from the start.
func (w *World) limit(j *job) {
	if j.spec.Definition == nil {
		return
	}
	n := j.spec.Definition.Program().Limits.WallTime
	if n == nil || !n.IsInt64() || n.Int64() > int64(1<<31) {
		return
	}
	j.limit = time.AfterFunc(time.Duration(n.Int64())*time.Second, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !j.phase.Final() {
			w.end(j, adapters.Evidence{Phase: adapters.Stopped, Reason: fmt.Sprintf("the job ran longer than its WallTimeLimit of %v seconds", n)})
		}
	})
}

func (j *job) step() step {
	if j.next < len(j.steps) {
		return j.steps[j.next]
	}
	return step{verb: "exit"}
}

// advance runs steps until one takes time or ends the job.
func (w *World) advance(j *job) {
	for {
		s := j.step()
		j.next++
		switch s.verb {
		case "out":
			j.out = append(append(j.out, s.arg...), '\n')
		case "err":
			j.err = append(append(j.err, s.arg...), '\n')
		case "sleep":
			w.sleep(j, s.wait)
			return
		case "hang":
			return
		case "signal":
			w.end(j, adapters.Evidence{Phase: adapters.Exited, Signal: s.arg})
			return
		case "stop":
			w.end(j, adapters.Evidence{Phase: adapters.Stopped, Reason: s.arg})
			return
		case "lose":
			w.end(j, adapters.Evidence{Phase: adapters.Lost, Reason: "the site lost the job"})
			return
		case "progress", "hosts", "usage", "attribute":
			s.tell(&j.evidence)
			w.set(j, j.phase)
		case "exit":
			w.end(j, adapters.Evidence{Phase: adapters.Exited, ExitStatus: &s.status})
			return
		}
	}
}

func (w *World) sleep(j *job, d time.Duration) {
	j.round++
	round := j.round
	j.wakes = time.Now().Add(d)
	j.timer = time.AfterFunc(d, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if j.round == round && j.phase == adapters.Running {
			j.timer = nil
			w.advance(j)
		}
	})
}

// stopTimer gives the time that was left.
func (j *job) stopTimer() time.Duration {
	j.round++
	if j.timer == nil {
		return 0
	}
	j.timer.Stop()
	j.timer = nil
	return max(time.Until(j.wakes), 0)
}

func (w *World) end(j *job, e adapters.Evidence) {
	j.stopTimer()
	if j.limit != nil {
		j.limit.Stop()
	}
	if j.lease != nil {
		j.lease.Stop()
	}
	w.live--
	if j.phase == adapters.Queued || j.phase == adapters.Held {
		w.dequeue(j)
	}
	ran := j.phase == adapters.Running || j.phase == adapters.Suspended
	e.Tag, e.Handle, e.Started, e.Ended = j.tag, j.evidence.Handle, j.evidence.Started, time.Now()
	if !ran && e.Phase != adapters.Lost {
		e.NotRun = e.Phase == adapters.Stopped || e.Phase == adapters.Cancelled
	}
	e.Progress, e.Hosts, e.Usage, e.Attributes = j.evidence.Progress, j.evidence.Hosts, j.evidence.Usage, j.evidence.Attributes
	j.evidence = e
	w.set(j, e.Phase)
	if ran {
		w.running--
		if j.within != nil {
			j.within.running--
		}
		w.fill()
	}
}

func (w *World) set(j *job, p adapters.Phase) {
	j.phase, j.evidence.Phase = p, p
	if w.down != "" {
		w.silenced = append(w.silenced, j)
		return
	}
	w.feed.Publish(j.snapshot())
}

// snapshot is the evidence with nothing in it that will change.
func (j *job) snapshot() adapters.Evidence {
	e := j.evidence
	e.Hosts, e.Attributes = slices.Clone(e.Hosts), maps.Clone(e.Attributes)
	return e
}
