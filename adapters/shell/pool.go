package shell

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// member is a supervisor as the gateway sees it.
type member struct {
	name string
	wire *wire         // nil until it is connected
	job  *job          // nil: idle
	gone bool          // the gateway has hung up
	dead chan struct{} // closed when the process is reaped; nil for one that was adopted
}

// hangUp closes the connection; the supervisor ends, or goes on alone.
func (m *member) hangUp() {
	m.gone = true
	if m.wire != nil {
		_ = m.wire.conn.Close()
	}
}

// await waits for an idle supervisor, which has been hung up on, to be gone with
// its socket and its cgroups.
func (m *member) await() {
	if m.dead == nil {
		return
	}
	select {
	case <-m.dead:
	case <-time.After(10 * retryAfter): // somebody has stopped it; the next gateway sweeps
	}
}

// retryAfter is how long the gateway waits when supervisors can't be started.
const retryAfter = time.Second

// maxDeaths is how many supervisors may die over a job before it is given up.
const maxDeaths = 3

// What follows is called with mu held, unless it says otherwise.

// dispatch starts the jobs at the queue's head while there are slots. The order
// is kept: a job that needs many slots is not overtaken for ever.
func (a *Adapter) dispatch() {
	for !a.closed && len(a.queue) > 0 {
		j := a.queue[0]
		if a.used > 0 && a.used+j.need > a.options.Slots {
			return
		}
		a.queue[0] = nil
		a.queue = a.queue[1:]
		a.hold(j)
		if n := len(a.idle); n > 0 {
			m := a.idle[n-1]
			a.idle = a.idle[:n-1]
			a.give(m, j)
			continue
		}
		m := &member{name: rand.Text(), job: j, dead: make(chan struct{})}
		j.member = m
		a.members[m] = struct{}{}
		a.wg.Go(func() { a.spawn(m) })
	}
}

func (a *Adapter) hold(j *job) {
	if !j.holds {
		j.holds = true
		a.used += j.need
	}
}

func (a *Adapter) release(j *job) {
	if j.holds {
		j.holds = false
		a.used -= j.need
	}
}

// give hands a job to a connected supervisor.
func (a *Adapter) give(m *member, j *job) {
	m.job, j.member = j, m
	_ = m.wire.send(order{Do: doRun, Tag: j.tag}) // that it is dead shows when reading
	a.reachable(j)
}

// reachable wakes who waits to say something about the job.
func (a *Adapter) reachable(j *job) {
	select {
	case <-j.ready:
	default:
		close(j.ready)
	}
}

// requeue puts a job that did not begin back to the head of the queue.
func (a *Adapter) requeue(j *job) {
	a.release(j)
	a.reachable(j)
	j.member, j.ready = nil, make(chan struct{})
	j.evidence.Phase = adapters.Queued
	if a.closed {
		return
	}
	a.queue = slices.Insert(a.queue, 0, j)
	if j.cancel {
		if err := a.cancelQueued(j); err != nil {
			a.options.Log.Error("a job can't be cancelled", "tag", j.tag, "error", err)
		}
	}
}

// later tries again to start jobs.
func (a *Adapter) later() {
	if a.closed || a.retry != nil {
		return
	}
	a.retry = time.AfterFunc(retryAfter, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.retry = nil
		a.dispatch()
	})
}

// finish takes an end for known.
func (a *Adapter) finish(j *job, e adapters.Evidence) {
	if a.active[j.tag] != j {
		return
	}
	j.evidence = e
	if j.lease != nil {
		j.lease.Stop()
	}
	delete(a.active, j.tag)
	if i := slices.Index(a.queue, j); i >= 0 {
		a.queue = slices.Delete(a.queue, i, i+1)
	}
	a.release(j)
	a.reachable(j)
	a.feed.Publish(e)
}

// spawn starts a supervisor for the job that m has, and serves it. Called without mu.
func (a *Adapter) spawn(m *member) {
	wire, process, err := a.startSupervisor(m.name)
	a.mu.Lock()
	if err != nil {
		a.options.Log.Error("a supervisor can't be started", "error", err)
		delete(a.members, m)
		j := m.job
		a.requeue(j)
		j.evidence.Reason = "the site can't start a supervisor for the job at present, and tries again"
		a.feed.Publish(j.evidence)
		a.later()
		a.mu.Unlock()
		return
	}
	m.wire = wire
	if m.gone {
		m.hangUp()
	} else {
		a.give(m, m.job)
	}
	a.mu.Unlock()
	go func() { // it may outlive the adapter, but not as a zombie
		_, _ = process.Wait()
		close(m.dead)
	}()
	a.serve(m)
}

// startSupervisor starts a process apart from the gateway: a session of its own,
// no terminal, none of the gateway's environment.
func (a *Adapter) startSupervisor(name string) (*wire, *os.Process, error) {
	text, err := json.Marshal(setting{Dir: a.dir, Name: name, Track: a.track, Box: a.options.Sandbox})
	if err != nil {
		return nil, nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "supervisor"), os.NewFile(uintptr(pair[1]), "gateway")
	defer theirs.Close() // the supervisor has its own
	conn, err := net.FileConn(ours)
	_ = ours.Close()
	if err != nil {
		return nil, nil, err
	}
	command := slices.Concat(a.options.Supervisor, []string{string(text)})
	cmd := exec.CommandContext(context.Background(), command[0], command[1:]...)
	cmd.Dir, cmd.Env = "/", []string{"PATH=" + a.options.Path, "GOMAXPROCS=2"}
	cmd.Stderr, cmd.ExtraFiles = a.log, []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if a.confinement.users && a.options.Sandbox.namespaces() {
		cmd.SysProcAttr = userNamespace()
	}
	cmd.SysProcAttr.Setsid = true
	if err := cmd.Start(); err != nil {
		return nil, nil, errors.Join(err, conn.Close())
	}
	return newWire(conn), cmd.Process, nil
}

// serve hears a supervisor until the connection ends. Called without mu.
func (a *Adapter) serve(m *member) {
	for {
		var r report
		if err := m.wire.receive(&r); err != nil {
			break
		}
		a.mu.Lock()
		a.hear(m, r)
		a.mu.Unlock()
	}
	a.mu.Lock()
	_ = m.wire.conn.Close()
	delete(a.members, m)
	if i := slices.Index(a.idle, m); i >= 0 {
		a.idle = slices.Delete(a.idle, i, i+1)
	}
	j, gone := m.job, m.gone
	a.mu.Unlock()
	if gone { // not it, but we have gone
		if j == nil {
			m.await()
		}
		return
	}
	if j != nil {
		a.settle(j)
		return
	}
	a.sweep(m.name)
}

func (a *Adapter) hear(m *member, r report) {
	j := m.job
	if j == nil || r.Tag != j.tag {
		return
	}
	switch r.What {
	case saidRunning, saidSuspended:
		j.evidence.Phase, j.evidence.Started = adapters.Running, r.Started
		if r.What == saidSuspended {
			j.evidence.Phase = adapters.Suspended
		}
		j.evidence.Reason = r.Error
		a.feed.Publish(j.evidence)
		return
	case saidEnded:
		if r.End != nil && r.End.Phase.Final() {
			a.finish(j, r.End.evidence(j.tag))
		}
	case saidNotBegun:
		a.options.Log.Error("a job can't be begun", "tag", j.tag, "error", r.Error)
		a.requeue(j)
		j.evidence.Reason = "the site can't record the job's start at present (is its disk full?), and tries again"
		a.feed.Publish(j.evidence)
		a.later()
		m.job = nil
		m.hangUp()
		return
	case saidTaken:
		j.member, j.ready = nil, make(chan struct{})
		a.wg.Go(func() { a.settle(j) })
	default:
		return
	}
	m.job = nil
	if a.closed || len(a.queue) == 0 && len(a.idle) >= a.options.Idle {
		m.hangUp()
		return
	}
	a.idle = append(a.idle, m)
	a.dispatch()
	// A queue whose head did not fit leaves more idle than are wanted.
	for len(a.idle) > max(a.options.Idle, 1) {
		a.idle[0].hangUp()
		a.idle = a.idle[1:]
	}
}

// reach finds a job that has not ended and waits until it can be spoken to; f is
// then called, with mu held and the job's supervisor, or nil while it is queued.
func (a *Adapter) reach(ctx context.Context, op string, h adapters.Handle, f func(*job, *member) error, over func(adapters.Evidence) error) error {
	tag, err := tagOf(h)
	if err != nil {
		return err
	}
	for {
		a.mu.Lock()
		j, ok := a.active[tag]
		if !ok {
			a.mu.Unlock()
			e := a.recorded(tag)
			switch {
			case e.Err != nil:
				return e.Err
			case e.Phase.Final():
				if _, err := os.Lstat(string(a.path(tag))); errors.Is(err, fs.ErrNotExist) {
					return errUnknown(op, tag)
				}
				return over(e)
			}
			return fail.Errorf(op, fail.Unavailable, string(tag), "the job is not in this gateway's hands")
		}
		if j.made != nil {
			select {
			case <-j.made:
			default: // it is about to be put on disk
				a.mu.Unlock()
				<-j.made
				continue
			}
		}
		queued := j.member == nil && !j.holds
		if queued || j.member != nil && j.member.wire != nil && j.member.job == j {
			m := j.member
			if queued {
				m = nil
			}
			err := f(j, m)
			a.mu.Unlock()
			return err
		}
		ready := j.ready
		a.mu.Unlock()
		select {
		case <-ready:
		case <-ctx.Done():
			return fail.E(op, fail.Unavailable, string(tag), ctx.Err())
		}
	}
}

func (m *member) tell(op, do string, tag adapters.Tag) error {
	if err := m.wire.send(order{Do: do, Tag: tag}); err != nil {
		return fail.E(op, fail.Unavailable, string(tag), err)
	}
	return nil
}

// Cancel ends jobs: queued ones at once, others by their supervisor.
func (a *Adapter) Cancel(ctx context.Context, handles []adapters.Handle) []error {
	errs := make([]error, len(handles))
	for i, h := range handles {
		errs[i] = a.reach(ctx, "shell.Cancel", h, func(j *job, m *member) error {
			if m == nil {
				return a.cancelQueued(j)
			}
			j.cancel = true
			return m.tell("shell.Cancel", doCancel, j.tag)
		}, func(adapters.Evidence) error { return nil })
	}
	return errs
}

// cancelQueued cancels a job that no supervisor of this gateway has. One of the
// gateway before may have it all the same; then the cancel follows it there.
func (a *Adapter) cancelQueued(j *job) error {
	d := a.path(j.tag)
	f, err := d.claim()
	if err != nil {
		if errors.Is(err, errTaken) {
			j.cancel = true
			a.queue = slices.DeleteFunc(a.queue, func(q *job) bool { return q == j })
			a.hold(j)
			a.wg.Go(func() { a.settle(j) })
			return nil
		}
		return fail.E("shell.Cancel", fail.Unavailable, string(j.tag), err)
	}
	defer f.Close() // closing is what frees the lock
	e := ended{Phase: adapters.Cancelled, NotRun: true, Ended: time.Now()}
	if err := end(f, e); err != nil {
		return fail.E("shell.Cancel", fail.Unavailable, string(j.tag), err)
	}
	a.finish(j, e.evidence(j.tag))
	return nil
}

// Suspend stops running jobs for a while.
func (a *Adapter) Suspend(ctx context.Context, handles []adapters.Handle) []error {
	return a.turn(ctx, "shell.Suspend", doSuspend, adapters.Running, adapters.Suspended, handles)
}

// Resume lets them go on.
func (a *Adapter) Resume(ctx context.Context, handles []adapters.Handle) []error {
	return a.turn(ctx, "shell.Resume", doResume, adapters.Suspended, adapters.Running, handles)
}

func (a *Adapter) turn(ctx context.Context, op, do string, from, to adapters.Phase, handles []adapters.Handle) []error {
	refuse := func(e adapters.Evidence) error {
		return fail.Errorf(op, fail.Conflict, string(e.Tag), "the job is %v; it must be %v", e.Phase, from)
	}
	errs := make([]error, len(handles))
	for i, h := range handles {
		errs[i] = a.reach(ctx, op, h, func(j *job, m *member) error {
			switch {
			case j.evidence.Phase == to:
				return nil
			case j.evidence.Phase != from || m == nil:
				return refuse(j.evidence)
			}
			return m.tell(op, do, j.tag)
		}, refuse)
	}
	return errs
}

func (a *Adapter) socket(name string) string { return filepath.Join(a.dir, dirSockets, name) }
