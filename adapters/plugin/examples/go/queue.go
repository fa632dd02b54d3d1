package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/plugin"
	"github.com/portolan-project/portolan/jsdl"
)

const share = "queue"

// settings are what the site's entry may say.
type settings struct {
	Slots int `yaml:"slots"` // jobs at once; as many as there are CPUs
}

// queue is the adapter. What it has in memory is only a reading of the directories.
type queue struct {
	root    string
	slots   int
	machine *machine
	self    string
	log     *slog.Logger
	feed    adapters.Feed
	news    *os.File
	stop    context.CancelFunc
	working sync.WaitGroup

	mu      sync.Mutex
	jobs    map[adapters.Tag]*job
	waiting []*job
	running int

	// Of the last answer of Resources.
	disk            int64
	counts          [2]int
	static, dynamic uint64
}

// job is guarded by the queue's lock, but for placing.
type job struct {
	tag       adapters.Tag
	dir       string
	placing   chan struct{} // closed when the job's directory is there, or can't be
	err       error         // why it can't be; valid then
	handed    bool          // to a supervisor, which takes a slot
	announced bool          // its start was told
	end       *end
}

// open opens the queue on its directory.
func open(c adapters.Config) (adapters.Adapter, error) {
	var s settings
	if err := c.Settings.Decode(&s); err != nil {
		return nil, err
	}
	m, err := look(c.Dir)
	if err != nil {
		return nil, plugin.Unavailable("", "this machine can't be looked at: %v", err)
	}
	if s.Slots == 0 {
		s.Slots = m.cpus
	}
	if s.Slots < 0 || s.Slots > 10000 {
		return nil, plugin.Invalid("slots", "slots: it must be a number from 1 to 10000, not %d", s.Slots)
	}
	self, err := os.Executable()
	if err != nil {
		return nil, plugin.Unavailable("", "the program does not find itself: %v", err)
	}
	q := &queue{root: filepath.Join(c.Dir, "jobs"), slots: s.Slots, machine: m, self: self, log: c.Log, jobs: map[adapters.Tag]*job{}}
	if err := os.MkdirAll(q.root, 0o700); err != nil {
		return nil, plugin.Unavailable("", "the jobs' directory can't be made: %v", err)
	}
	fifo := filepath.Join(c.Dir, fileNews)
	if err := unix.Mkfifo(fifo, 0o600); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, plugin.Unavailable("", "%s can't be made: %v", fifo, err)
	}
	if q.news, err = os.OpenFile(fifo, os.O_RDWR, 0); err != nil {
		return nil, plugin.Unavailable("", "%s can't be opened: %v", fifo, err)
	}
	if err := q.recover(); err != nil {
		_ = q.news.Close()
		return nil, plugin.Unavailable("", "the jobs can't be read: %v", err)
	}
	ctx, stop := context.WithCancel(context.Background())
	q.stop = stop
	q.working.Go(q.listen)
	q.working.Go(func() { q.patrol(ctx) })
	q.mu.Lock()
	defer q.mu.Unlock()
	q.advance()
	return q, nil
}

// recover learns from the directories what there is.
func (q *queue) recover() error {
	entries, err := os.ReadDir(q.root)
	if err != nil {
		return err
	}
	submitted := map[*job]time.Time{}
	for _, e := range entries {
		tag := adapters.Tag(e.Name())
		dir := filepath.Join(q.root, e.Name())
		var p plan
		if tag.Validate() != nil { // it was never placed, or is forgotten
			_ = os.RemoveAll(dir)
			continue
		}
		if ok, err := read(filepath.Join(dir, fileJob), &p); !ok || err != nil {
			return errors.Join(err, errors.New(dir+" is no job"))
		}
		j := &job{tag: tag, dir: dir, placing: make(chan struct{})}
		close(j.placing)
		q.jobs[tag] = j
		var e end
		ended, err := read(filepath.Join(dir, fileEnded), &e)
		switch {
		case err != nil:
			return err
		case ended:
			j.end = &e
		case exists(filepath.Join(dir, fileStarted)):
			j.handed, j.announced = true, true
			q.running++
		default:
			submitted[j] = p.Submitted
			q.waiting = append(q.waiting, j)
		}
	}
	slices.SortFunc(q.waiting, func(a, b *job) int {
		return cmp.Or(submitted[a].Compare(submitted[b]), cmp.Compare(a.tag, b.tag))
	})
	return nil
}

// Properties says what the queue can.
func (q *queue) Properties() adapters.Properties {
	return adapters.Properties{Type: "queue", ManagerURI: "urn:portolan:example:queue", Version: "1", Suspend: true, Hold: true, Push: true}
}

// Check says what stands against a job.
func (q *queue) Check(d *jsdl.JobDefinition) error {
	_, err := q.machine.plan(d, "/nonexistent")
	return err
}

// Submit places jobs.
func (q *queue) Submit(_ context.Context, jobs []adapters.Job) []adapters.Placed {
	placed := make([]adapters.Placed, len(jobs))
	for i, j := range jobs {
		placed[i].Handle, placed[i].Err = q.place(j)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.advance()
	return placed
}

func (q *queue) place(spec adapters.Job) (adapters.Handle, error) {
	if err := spec.Tag.Validate(); err != nil {
		return nil, err
	}
	if spec.Account != "" && spec.Account != q.machine.user {
		return nil, plugin.Denied("Account", "jobs run as %s here, not as the account %s", q.machine.user, spec.Account)
	}
	q.mu.Lock()
	if j := q.jobs[spec.Tag]; j != nil { // it is placed already, or being placed
		q.mu.Unlock()
		<-j.placing
		if j.err != nil {
			return nil, j.err
		}
		return handle(spec.Tag), nil
	}
	j := &job{tag: spec.Tag, dir: filepath.Join(q.root, string(spec.Tag)), placing: make(chan struct{})}
	q.jobs[spec.Tag] = j
	q.mu.Unlock()
	err := q.write(j, spec)
	q.mu.Lock()
	defer q.mu.Unlock()
	if j.err = err; err != nil {
		delete(q.jobs, spec.Tag)
	} else {
		q.waiting = append(q.waiting, j)
	}
	close(j.placing)
	if err != nil {
		return nil, err
	}
	return handle(spec.Tag), nil
}

// write makes the job's directory. Once it has its name the job is placed, whatever
// happens to us.
func (q *queue) write(j *job, spec adapters.Job) error {
	p, err := q.machine.plan(spec.Definition, j.dir)
	if err != nil {
		return err
	}
	p.Owner = spec.Owner
	fresh := j.dir + ".new" // no tag has a dot
	err = os.RemoveAll(fresh)
	for _, name := range []string{"work", "tmp"} {
		if err == nil {
			err = os.MkdirAll(filepath.Join(fresh, name), 0o755)
		}
	}
	if err == nil {
		err = unix.Mkfifo(filepath.Join(fresh, fileControl), 0o600)
	}
	if err == nil {
		err = touch(filepath.Join(fresh, fileLock))
	}
	if err == nil {
		err = write(filepath.Join(fresh, fileJob), p)
	}
	if err == nil {
		err = os.Rename(fresh, j.dir)
	}
	if err != nil {
		return plugin.Unavailable("", "the job's directory can't be written: %v", err)
	}
	return nil
}

// advance hands jobs to supervisors while there are slots. It is called with mu held.
func (q *queue) advance() {
	for i := 0; i < len(q.waiting) && q.running < q.slots; {
		j := q.waiting[i]
		if j.end == nil && exists(filepath.Join(j.dir, fileHold)) {
			i++
			continue
		}
		q.waiting = slices.Delete(q.waiting, i, i+1)
		if j.end != nil || q.jobs[j.tag] != j {
			continue // it was cancelled
		}
		// A session of its own: our group is killed when we are.
		c := exec.Command(q.self, "supervise", j.dir) //nolint:noctx // it outlives us
		c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := c.Start(); err != nil {
			q.log.Error("no supervisor could be started", "job", j.tag, "error", err)
			q.waiting = slices.Insert(q.waiting, i, j) // the patrol tries again
			return
		}
		go func() { _ = c.Wait() }()
		j.handed = true
		q.running++
	}
}

// listen hears from supervisors.
func (q *queue) listen() {
	lines := bufio.NewScanner(q.news)
	for lines.Scan() {
		q.mu.Lock()
		if j := q.jobs[adapters.Tag(lines.Text())]; j != nil {
			q.refresh(j)
		}
		q.mu.Unlock()
	}
}

// refresh reads what is new of a job, and tells it. It is called with mu held.
func (q *queue) refresh(j *job) {
	if j.end != nil {
		return
	}
	var e end
	ended, err := read(filepath.Join(j.dir, fileEnded), &e)
	if err != nil {
		q.log.Error("a job's end can't be read", "job", j.tag, "error", err)
		return
	}
	if ended {
		j.end = &e
		if j.handed {
			q.running--
			j.handed = false
		}
		q.waiting = slices.DeleteFunc(q.waiting, func(o *job) bool { return o == j })
		defer q.advance()
	}
	q.feed.Publish(q.evidence(j))
}

// evidence is called with mu held.
func (q *queue) evidence(j *job) adapters.Evidence {
	out := adapters.Evidence{Tag: j.tag, Handle: handle(j.tag)}
	if e := j.end; e != nil {
		out.Phase, out.ExitStatus, out.Signal, out.Reason, out.NotRun = e.Phase, e.Status, e.Signal, e.Reason, e.NotRun
		out.Started, out.Ended = e.Started, e.Ended
		out.Usage = adapters.Usage{CPU: e.CPU, Memory: e.Memory}
	} else {
		out.Phase = adapters.Queued
		started, err := read(filepath.Join(j.dir, fileStarted), &out.Started)
		switch {
		case err != nil:
			return adapters.Evidence{Tag: j.tag, Handle: out.Handle, Err: plugin.Unavailable("", "the job's directory can't be read: %v", err)}
		case started && exists(filepath.Join(j.dir, fileSuspended)):
			out.Phase = adapters.Suspended
		case started:
			out.Phase = adapters.Running
		case exists(filepath.Join(j.dir, fileHold)):
			out.Phase, out.Reason = adapters.Held, "the job is held until it is released"
		}
	}
	if !out.Started.IsZero() {
		out.Hosts = []string{q.machine.host}
	}
	return out
}

// patrol looks after jobs whose supervisor says nothing any more.
func (q *queue) patrol(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	idle := map[*job]int{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		q.mu.Lock()
		var handed []*job
		for _, j := range q.jobs {
			if j.handed {
				handed = append(handed, j)
			}
		}
		q.advance()
		q.mu.Unlock()
		seen := map[*job]int{}
		for _, j := range handed {
			if free := q.inspect(j, idle[j]); free {
				seen[j] = idle[j] + 1
			}
		}
		idle = seen
	}
}

// inspect says whether nobody holds a job's lock. One that was started is lost then;
// one that was not, for several rounds, gets a new supervisor.
func (q *queue) inspect(j *job, rounds int) bool {
	held := lock(j.dir)
	if held == nil {
		return false
	}
	defer func() { _ = held.Close() }()
	path := func(name string) string { return filepath.Join(j.dir, name) }
	switch {
	case exists(path(fileEnded)):
	case exists(path(fileStarted)):
		e := end{Phase: adapters.Lost, Reason: "the job's supervisor was killed, so that its end is not known", Ended: time.Now()}
		_, _ = read(path(fileStarted), &e.Started)
		if err := write(path(fileEnded), e); err != nil {
			return true
		}
	case rounds > 5:
		q.mu.Lock()
		defer q.mu.Unlock()
		if j.handed {
			j.handed = false
			q.running--
			q.waiting = slices.Insert(q.waiting, 0, j)
		}
		return false
	default:
		return true
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.refresh(j)
	return true
}

// Find gives the handles of tags that are placed; one that is being placed just now
// is waited for, as the answer is for good.
func (q *queue) Find(ctx context.Context, tags []adapters.Tag) (map[adapters.Tag]adapters.Handle, error) {
	found := map[adapters.Tag]adapters.Handle{}
	for _, tag := range tags {
		q.mu.Lock()
		j := q.jobs[tag]
		q.mu.Unlock()
		if j == nil {
			continue
		}
		select {
		case <-j.placing:
		case <-ctx.Done():
			return nil, plugin.Unavailable(string(tag), "the job is being placed just now")
		}
		if j.err == nil {
			found[tag] = handle(tag)
		}
	}
	return found, nil
}

// Status gives evidence.
func (q *queue) Status(_ context.Context, handles []adapters.Handle) ([]adapters.Evidence, error) {
	out := make([]adapters.Evidence, len(handles))
	for i, h := range handles {
		tag, err := tagOf(h)
		if err != nil {
			out[i] = adapters.Evidence{Handle: h, Err: err}
			continue
		}
		q.mu.Lock()
		if j := q.jobs[tag]; j != nil {
			if j.end == nil && exists(filepath.Join(j.dir, fileEnded)) {
				q.refresh(j)
			}
			out[i] = q.evidence(j)
		} else {
			out[i] = adapters.Evidence{Tag: tag, Handle: h, Phase: adapters.Lost, Reason: "the queue does not know this job"}
		}
		q.mu.Unlock()
	}
	return out, nil
}

// each does something to the job of each handle, with mu held.
func (q *queue) each(handles []adapters.Handle, do func(*job) error) []error {
	errs := make([]error, len(handles))
	for i, h := range handles {
		tag, err := tagOf(h)
		if err == nil {
			q.mu.Lock()
			if j := q.jobs[tag]; j == nil {
				err = plugin.NotFound(string(tag), "the queue does not know the job %s", tag)
			} else {
				if j.end == nil {
					q.refresh(j)
				}
				err = do(j)
			}
			q.mu.Unlock()
		}
		errs[i] = err
	}
	return errs
}

// idle calls do if the job was not started, and keeps it from that meanwhile.
func idle(j *job, do func() error) (was bool, err error) {
	held := lock(j.dir)
	if held == nil {
		return false, nil
	}
	defer func() { _ = held.Close() }()
	if exists(filepath.Join(j.dir, fileStarted)) || exists(filepath.Join(j.dir, fileEnded)) {
		return false, nil
	}
	return true, do()
}

// Cancel ends jobs. The wish is written down first: a supervisor looks for it once
// before it starts the program, and whenever it is woken.
func (q *queue) Cancel(_ context.Context, handles []adapters.Handle) []error {
	return q.each(handles, func(j *job) error {
		if j.end != nil {
			return nil
		}
		err := touch(filepath.Join(j.dir, fileCancel))
		if err == nil {
			_, err = idle(j, func() error {
				return write(filepath.Join(j.dir, fileEnded), end{Phase: adapters.Cancelled, NotRun: true, Ended: time.Now()})
			})
		}
		if err != nil {
			return plugin.Unavailable(string(j.tag), "the job's directory can't be written: %v", err)
		}
		poke(filepath.Join(j.dir, fileControl), "!")
		q.refresh(j)
		return nil
	})
}

// Suspend stops jobs that run.
func (q *queue) Suspend(_ context.Context, handles []adapters.Handle) []error {
	return q.each(handles, func(j *job) error { return q.ask(j, touch) })
}

// Resume lets them go on.
func (q *queue) Resume(_ context.Context, handles []adapters.Handle) []error {
	return q.each(handles, func(j *job) error { return q.ask(j, remove) })
}

func (q *queue) ask(j *job, change func(string) error) error {
	if j.end != nil || !exists(filepath.Join(j.dir, fileStarted)) {
		return plugin.Conflict(string(j.tag), "the job is %v; only a job that runs can be suspended and resumed", q.evidence(j).Phase)
	}
	if err := change(filepath.Join(j.dir, fileSuspend)); err != nil {
		return plugin.Unavailable(string(j.tag), "the job's directory can't be written: %v", err)
	}
	poke(filepath.Join(j.dir, fileControl), "!")
	return nil
}

// Hold keeps jobs from starting.
func (q *queue) Hold(_ context.Context, handles []adapters.Handle) []error {
	return q.each(handles, func(j *job) error {
		held := false
		if j.end == nil && !j.handed {
			var err error
			if held, err = idle(j, func() error { return touch(filepath.Join(j.dir, fileHold)) }); err != nil {
				return plugin.Unavailable(string(j.tag), "the job's directory can't be written: %v", err)
			}
		}
		if !held {
			return plugin.Conflict(string(j.tag), "the job is %v, or about to be started; only a job that waits can be held", q.evidence(j).Phase)
		}
		q.refresh(j)
		return nil
	})
}

// Release lets them start.
func (q *queue) Release(_ context.Context, handles []adapters.Handle) []error {
	return q.each(handles, func(j *job) error {
		if j.end != nil {
			return plugin.Conflict(string(j.tag), "the job is %v; only a job that is held can be released", j.end.Phase)
		}
		if err := remove(filepath.Join(j.dir, fileHold)); err != nil {
			return plugin.Unavailable(string(j.tag), "the job's directory can't be written: %v", err)
		}
		q.refresh(j)
		q.advance()
		return nil
	})
}

// Output reads a stream to what is written so far.
func (q *queue) Output(_ context.Context, h adapters.Handle, s adapters.Stream, offset int64) (io.ReadCloser, error) {
	tag, err := tagOf(h)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(q.root, string(tag))
	var p plan
	if ok, err := read(filepath.Join(dir, fileJob), &p); !ok || err != nil {
		return nil, plugin.NotFound(string(tag), "the queue does not know the job %s", tag)
	}
	path := p.Output
	if s == adapters.Stderr {
		path = p.Error
	}
	nothing := io.NopCloser(strings.NewReader(""))
	if i, err := os.Stat(path); err != nil || !i.Mode().IsRegular() || !exists(filepath.Join(dir, fileStarted)) {
		return nothing, nil //nolint:nilerr // not written yet, or a device, which would keep us for ever
	}
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return nil, plugin.NotFound(string(tag), "the output can't be read: %v", err)
	}
	i, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, plugin.NotFound(string(tag), "the output can't be read: %v", err)
	}
	offset = max(offset, 0)
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, offset, max(0, i.Size()-offset)), f}, nil
}

// Forget drops a job that ended.
func (q *queue) Forget(_ context.Context, h adapters.Handle) error {
	var trash string
	err := q.each([]adapters.Handle{h}, func(j *job) error {
		if j.end == nil {
			return plugin.Conflict(string(j.tag), "the job is %v; only a job that ended can be forgotten", q.evidence(j).Phase)
		}
		trash = j.dir + ".gone"
		if err := errors.Join(os.RemoveAll(trash), os.Rename(j.dir, trash)); err != nil {
			return plugin.Unavailable(string(j.tag), "the job's directory can't be removed: %v", err)
		}
		delete(q.jobs, j.tag)
		return nil
	})[0]
	if trash != "" {
		_ = os.RemoveAll(trash)
	}
	if adapters.ClassOf(err) == adapters.Permanent && !q.knows(h) {
		if _, bad := tagOf(h); bad == nil {
			return nil // it is forgotten already
		}
	}
	return err
}

func (q *queue) knows(h adapters.Handle) bool {
	tag, err := tagOf(h)
	q.mu.Lock()
	defer q.mu.Unlock()
	return err == nil && q.jobs[tag] != nil
}

// Resources tells what there is. A version grows when what it is about has changed.
func (q *queue) Resources(context.Context) (adapters.Resources, error) {
	m := q.machine
	q.mu.Lock()
	defer q.mu.Unlock()
	if disk := m.disk() >> 30 << 30; disk != q.disk { // in steps, as it changes all the time
		q.disk = disk
		q.static++
	}
	if now := [2]int{q.running, len(q.waiting)}; now != q.counts {
		q.counts = now
		q.dynamic++
	}
	return adapters.Resources{
		Static: q.static + 1, Dynamic: q.dynamic + 1,
		Environments: []adapters.Environment{{
			ID: "machine", OperatingSystem: m.system, OSVersion: m.release, CPUArchitecture: m.architecture, CPUs: m.cpus, Memory: m.memory,
			VirtualMemory: m.virtual, Disk: q.disk, HostNames: []string{m.host}, Nodes: 1, Available: 1,
		}},
		Shares: []adapters.Share{{
			ID: share, Default: true, Environments: []string{"machine"}, Slots: q.slots, Open: true, Running: q.running, Waiting: len(q.waiting),
			FreeSlots: max(0, q.slots-q.running),
		}},
	}, nil
}

// Health is good while there are directories.
func (q *queue) Health() adapters.Health {
	return adapters.Health{Path: "directories", Version: "1", Offered: []adapters.Path{"directories"}, Contact: time.Now()}
}

// Watch delivers evidence as it comes.
func (q *queue) Watch(ctx context.Context, emit func([]adapters.Evidence)) error {
	return q.feed.Watch(ctx, emit)
}

// Close lets go; supervisors go on.
func (q *queue) Close() error {
	q.stop()
	err := q.news.Close()
	q.working.Wait()
	return err
}
