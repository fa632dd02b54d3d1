package fake

import (
	"fmt"
	"maps"
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
	asked   uint64 // for resources
	faults  func(op string, tag adapters.Tag) Fault
	feed    adapters.Feed
}

type job struct {
	tag      adapters.Tag
	owner    string
	steps    []step
	next     int // the step to be done
	phase    adapters.Phase
	evidence adapters.Evidence
	out, err []byte
	timer    *time.Timer
	wakes    time.Time     // when timer fires
	left     time.Duration // of a sleep that was suspended
	round    int           // guards against timers that fired while being stopped
}

// NewWorld makes a site that runs so many jobs at once; 0 is no bound.
func NewWorld(slots int) *World {
	return &World{jobs: map[adapters.Tag]*job{}, starts: map[adapters.Tag]int{}, slots: slots}
}

// Inject sets the faults: f is asked once for each job of each call, with op one
// of "check", "submit", "find", "status", "cancel", "output", "forget",
// "resources", "suspend", "resume" ("check" and "resources" have no tag). Nil ends them.
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
		j.next++
		j.evidence.Reason = ""
		w.set(j, adapters.Queued)
		w.order = append(w.order, j)
		w.fill()
		return nil
	})
}

// Close ends every job, so that no timer is left.
func (w *World) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.order = nil
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

func (w *World) place(spec adapters.Job, steps []step) *job {
	j := &job{tag: spec.Tag, owner: spec.Owner, steps: steps}
	j.evidence = adapters.Evidence{Tag: spec.Tag, Handle: handle(spec.Tag)}
	w.jobs[spec.Tag] = j
	if len(steps) > 0 && steps[0].verb == "hold" {
		j.evidence.Reason = steps[0].arg
		w.set(j, adapters.Held)
		return j
	}
	w.set(j, adapters.Queued)
	w.order = append(w.order, j)
	w.fill()
	return j
}

// fill starts queued jobs while there are slots.
func (w *World) fill() {
	for len(w.order) > 0 && (w.slots == 0 || w.running < w.slots) {
		j := w.order[0]
		w.order = w.order[1:]
		if j.phase != adapters.Queued {
			continue // cancelled meanwhile
		}
		if s := j.step(); s.verb == "missing" {
			w.end(j, adapters.Evidence{Phase: adapters.Stopped, NotRun: true, Reason: s.arg})
			continue
		}
		w.starts[j.tag]++
		w.running++
		j.evidence.Started = time.Now()
		w.set(j, adapters.Running)
		w.advance(j)
	}
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
	ran := j.phase == adapters.Running || j.phase == adapters.Suspended
	e.Tag, e.Handle, e.Started, e.Ended = j.tag, j.evidence.Handle, j.evidence.Started, time.Now()
	if !ran && e.Phase != adapters.Lost {
		e.NotRun = e.Phase == adapters.Stopped || e.Phase == adapters.Cancelled
	}
	j.evidence = e
	w.set(j, e.Phase)
	if ran {
		w.running--
		w.fill()
	}
}

func (w *World) set(j *job, p adapters.Phase) {
	j.phase, j.evidence.Phase = p, p
	w.feed.Publish(j.evidence)
}
