package shell

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portolan-project/portolan/adapters"
)

const (
	reasonKilled = "the job's supervisor was killed; its exit status is unknown"
	reasonReboot = "the machine was restarted; what became of the job is unknown"
	reasonBroken = "the job's record is damaged; what became of it is unknown"
	reasonDeaths = "the job was not started: its supervisors died before they could (the site's supervisors.log may say why)"
)

// takeOver reads the directory of jobs when the adapter opens.
func (a *Adapter) takeOver() error {
	staging := filepath.Join(a.dir, dirStaging)
	if left, err := os.ReadDir(staging); err == nil {
		for _, e := range left {
			_ = clear(filepath.Join(staging, e.Name()))
		}
	}
	dir, err := os.Open(a.jobs)
	if err != nil {
		return openError(a.dir, err)
	}
	names, err := dir.Readdirnames(-1)
	_ = dir.Close()
	if err != nil {
		return openError(a.dir, err)
	}
	type waiting struct {
		*job
		submitted time.Time
	}
	var queue []waiting
	kept := map[string]bool{} // supervisors that have a job
	var begunJobs []*job
	for _, name := range names {
		tag := adapters.Tag(name)
		if tag.Validate() != nil {
			continue
		}
		d := a.path(tag)
		b, e, started, err := d.read()
		if e != nil {
			continue
		}
		if err != nil {
			a.options.Log.Error("a job's record can't be read", "tag", tag, "error", err)
			continue
		}
		s, err := d.spec()
		switch {
		case err != nil:
			a.options.Log.Error("a job's description can't be read", "tag", tag, "error", err)
			s = &spec{Tag: tag, Need: 1}
			if !started {
				a.giveUp(d, ended{Phase: adapters.Lost, Reason: reasonBroken, Ended: time.Now()})
				continue
			}
		case s.Boot != a.boot:
			a.giveUp(d, ended{Phase: adapters.Lost, Reason: reasonReboot, Ended: time.Now()})
			continue
		}
		j := newJob(s)
		if !started {
			queue = append(queue, waiting{j, s.Submitted})
			continue
		}
		j.evidence.Phase = adapters.Running
		if b != nil {
			j.evidence.Started = b.Started
			kept[b.Supervisor] = true
		}
		begunJobs = append(begunJobs, j)
	}
	a.sweepAll(kept)
	a.mu.Lock()
	defer a.mu.Unlock()
	slices.SortStableFunc(queue, func(x, y waiting) int {
		return cmp.Or(x.submitted.Compare(y.submitted), cmp.Compare(x.tag, y.tag))
	})
	for _, w := range queue {
		a.active[w.tag] = w.job
		a.queue = append(a.queue, w.job)
		a.watchLease(w.job, w.until)
	}
	for _, j := range begunJobs {
		a.active[j.tag] = j
		a.watchLease(j, j.until)
		a.hold(j)
		a.wg.Go(func() { a.settle(j) })
	}
	a.dispatch()
	return nil
}

// giveUp records an end for a job that has none and that no one has.
func (a *Adapter) giveUp(d jobDir, e ended) {
	f, err := d.wait()
	if err == nil {
		defer f.Close() // closing is what frees the lock
		var have *ended
		if _, have, _, err = d.read(); have == nil && err == nil {
			err = end(f, e)
		}
	}
	if err != nil {
		a.options.Log.Error("the end of a job can't be recorded", "dir", string(d), "error", err)
	}
}

// settle finds out where a job stands that no known supervisor has: it has ended,
// another supervisor has it, its supervisor is dead, or nobody ever began it.
// Called without mu.
func (a *Adapter) settle(j *job) {
	d := a.path(j.tag)
	for {
		a.mu.Lock()
		closed := a.closed
		a.mu.Unlock()
		if closed {
			return
		}
		b, e, started, err := d.read()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			a.conclude(j, a.recorded(j.tag))
			return
		case err != nil:
			a.options.Log.Error("a job's record can't be read", "tag", j.tag, "error", err)
			<-time.After(retryAfter)
			continue
		case e != nil:
			a.conclude(j, e.evidence(j.tag))
			return
		case started:
			var err error
			if b != nil {
				if err = a.adopt(j, b); err == nil {
					return
				}
			}
			if err != nil && !nobody(err) {
				a.options.Log.Error("a supervisor can't be reached", "tag", j.tag, "error", err)
				<-time.After(retryAfter)
			} else if a.bury(j, b) {
				return
			}
			continue
		}
		lock, err := d.claim()
		if err == nil {
			_ = lock.Close()
			a.unbegun(j)
			return
		}
		if !errors.Is(err, errTaken) {
			a.options.Log.Error("a job can't be claimed", "tag", j.tag, "error", err)
			<-time.After(retryAfter)
			continue
		}
		// Somebody holds the lock and is about to begin, which takes no time.
		<-time.After(5 * time.Millisecond)
	}
}

func (a *Adapter) conclude(j *job, e adapters.Evidence) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.finish(j, e)
	a.dispatch()
}

// adopt connects to the supervisor that has the job, and serves it.
func (a *Adapter) adopt(j *job, b *begun) error {
	conn, err := dial(a.socket(b.Supervisor))
	if err != nil {
		return err
	}
	m := &member{name: b.Supervisor, wire: newWire(conn), job: j}
	a.mu.Lock()
	if a.closed {
		a.mu.Unlock()
		_ = conn.Close()
		return nil
	}
	a.members[m] = struct{}{}
	j.member = m
	j.evidence.Phase, j.evidence.Started = adapters.Running, b.Started
	a.hold(j)
	if j.cancel {
		_ = m.tell("shell.Cancel", doCancel, j.tag) // that it is dead shows when reading
	}
	a.reachable(j)
	a.feed.Publish(j.evidence)
	a.mu.Unlock()
	a.wg.Go(func() { a.serve(m) })
	return nil
}

// bury ends what a dead supervisor left behind and records the loss. It gives
// false if the job turns out not to be dead.
func (a *Adapter) bury(j *job, b *begun) bool {
	d := a.path(j.tag)
	a.mu.Lock()
	if j.member != nil { // nobody can reach it any more
		j.member, j.ready = nil, make(chan struct{})
	}
	a.mu.Unlock()
	f, err := d.patiently()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		// A process of the job stands between fork and exec and still has it.
		if b != nil {
			a.endTree(j.tag, b.Groups)
		}
		f, err = d.wait()
	}
	if err != nil {
		a.options.Log.Error("a lost job can't be locked", "tag", j.tag, "error", err)
		<-time.After(retryAfter)
		return false
	}
	defer f.Close() // closing is what frees the lock
	now, e, _, _ := d.read()
	if e != nil {
		return false
	}
	if now != nil {
		a.endTree(j.tag, now.Groups)
		a.sweep(now.Supervisor)
	}
	lost := ended{Phase: adapters.Lost, Reason: reasonKilled, Ended: time.Now()}
	if now == nil {
		lost.Reason = reasonBroken
	}
	for {
		err := end(f, lost)
		if err == nil {
			return false // read again, and found ended
		}
		a.options.Log.Error("the end of a lost job can't be recorded", "tag", j.tag, "error", err)
		a.mu.Lock()
		closed := a.closed
		a.mu.Unlock()
		if closed {
			return true
		}
		<-time.After(retryAfter)
	}
}

// unbegun is what becomes of a job whose supervisor died before it began.
func (a *Adapter) unbegun(j *job) {
	a.mu.Lock()
	j.deaths++
	give := j.deaths >= maxDeaths
	if !give {
		a.requeue(j)
		if j.deaths > 1 {
			a.later()
		} else {
			a.dispatch()
		}
	}
	a.mu.Unlock()
	if give {
		d := a.path(j.tag)
		a.giveUp(d, ended{Phase: adapters.Stopped, NotRun: true, Reason: reasonDeaths, Ended: time.Now()})
		a.conclude(j, a.recorded(j.tag))
	}
}

// endTree kills what is left of a job whose supervisor is dead.
func (a *Adapter) endTree(tag adapters.Tag, groups []string) {
	for range 2000 {
		left := false
		for _, dir := range groups {
			if !killGroup(dir) {
				left = true
			}
		}
		if a.track.Way == trackProcess || len(groups) == 0 {
			for _, pid := range marked(string(tag)) {
				left = unix.Kill(pid, unix.SIGKILL) == nil && alive(pid) || left
			}
		}
		if !left {
			break
		}
		<-time.After(5 * time.Millisecond) // the kernel gives no word of it
	}
	for _, dir := range groups {
		if err := removeGroup(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			a.options.Log.Warn("a cgroup is left behind", "dir", dir, "error", err)
		}
	}
}

// sweep removes what a dead supervisor leaves behind.
func (a *Adapter) sweep(name string) {
	for _, parent := range a.track.parents() {
		if name != "" {
			a.endTree("", []string{filepath.Join(parent, name)})
		}
	}
	if name != "" {
		_ = os.Remove(a.socket(name))
	}
}

// sweepAll sweeps for every supervisor but those that have jobs and those that live.
func (a *Adapter) sweepAll(kept map[string]bool) {
	names := map[string]bool{}
	for _, parent := range append(a.track.parents(), filepath.Join(a.dir, dirSockets)) {
		entries, err := os.ReadDir(parent)
		if err != nil {
			continue
		}
		for _, e := range entries {
			switch info, err := e.Info(); {
			case e.IsDir():
				names[e.Name()] = true
			case err != nil || e.Type()&os.ModeSocket == 0:
			case !strings.HasSuffix(e.Name(), unready):
				names[e.Name()] = true
			case time.Since(info.ModTime()) > time.Minute:
				_ = os.Remove(filepath.Join(parent, e.Name())) // its supervisor died young
			}
		}
	}
	for name := range names {
		if kept[name] {
			continue
		}
		conn, err := dial(a.socket(name))
		if err == nil { // an idle one that is about to end, or one that is about to begin
			_ = conn.Close()
		} else if nobody(err) {
			a.sweep(name)
		}
	}
}
