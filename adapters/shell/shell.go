package shell

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// The directories below Options.Dir.
const (
	dirJobs    = "jobs"
	dirSockets = "supervisors"
	dirStaging = "staging" // on its way in or out
	fileLock   = "lock"
	fileLog    = "supervisors.log"
)

const managerURI = "http://portolan-project.org/ns/2026/manager/shell"

// Adapter is the shell adapter. It suspends and it pushes.
type Adapter struct {
	opened   time.Time
	versions versions
	site
	dir    string
	lock   *os.File // of the whole directory
	log    *os.File // what supervisors complain of
	syncer syncer
	feed   adapters.Feed
	// placing is held for reading by Submit: who has held it for writing knows that
	// no earlier Submit is still under way.
	placing sync.RWMutex
	leasing sync.Mutex // held while ends of leases are written
	wg      sync.WaitGroup

	mu      sync.Mutex
	active  map[adapters.Tag]*job // that have not ended
	queue   []*job                // to be started, first in first out
	used    int                   // slots
	idle    []*member
	members map[*member]struct{}
	retry   *time.Timer
	closed  bool
}

// job is one that has not ended.
type job struct {
	tag      adapters.Tag
	need     int
	holds    bool // it has its slots
	evidence adapters.Evidence
	member   *member       // that has the job, or is to have it
	ready    chan struct{} // closed once the job can be reached, anew for each member
	cancel   bool          // asked for: repeated to whoever gets the job
	deaths   int           // of supervisors before it began
	made     chan struct{} // closed once it is on disk, or will not be; nil: it is
	until    time.Time     // the end of its lease when it was taken in
	lease    *time.Timer   // nil: it has none
}

// Open makes the adapter on its directory and takes over what it finds there: jobs
// that wait are queued in their order, jobs that run are adopted, jobs whose
// supervisor is dead are ended as lost.
func Open(o Options) (*Adapter, error) {
	if err := o.EnsureDefaults(); err != nil {
		return nil, err
	}
	for _, name := range []string{"", dirJobs, dirSockets, dirStaging} {
		if err := os.MkdirAll(filepath.Join(o.Dir, name), 0o700); err != nil {
			return nil, openError(o.Dir, err)
		}
	}
	a := &Adapter{
		dir: o.Dir, opened: time.Now(), active: map[adapters.Tag]*job{}, members: map[*member]struct{}{},
		site: site{machine: inspect(o.HostNames), options: &o, jobs: filepath.Join(o.Dir, dirJobs)},
	}
	lock, err := lockDir(o.Dir)
	if err != nil {
		return nil, err
	}
	a.lock = lock
	if err := a.open(); err != nil {
		_ = a.Close()
		return nil, err
	}
	return a, nil
}

// lockDir takes the directory for this gateway. A process that a killed gateway was
// just about to start may have the lock for a moment more.
func lockDir(dir string) (*os.File, error) {
	lock, err := os.OpenFile(filepath.Join(dir, fileLock), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, openError(dir, err)
	}
	for tries := 0; ; tries++ {
		err := flock(lock, syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return lock, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) || tries == 200 {
			_ = lock.Close()
			if errors.Is(err, syscall.EWOULDBLOCK) {
				return nil, fail.Errorf("shell.Open", fail.Conflict, dir, "another gateway runs jobs in %s; give each gateway a directory of its own", dir)
			}
			return nil, openError(dir, err)
		}
		<-time.After(10 * time.Millisecond)
	}
}

func openError(dir string, err error) error {
	return fail.Errorf("shell.Open", fail.Unavailable, dir, "the directory of jobs %s can't be used: %s", dir, why(err)).Because(err)
}

func (a *Adapter) open() error {
	var err error
	if a.log, err = os.OpenFile(filepath.Join(a.dir, fileLog), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
		return openError(a.dir, err)
	}
	sum := sha256.Sum256([]byte(a.dir))
	if a.track, err = findTrack(a.options.Track, "portolan-"+hex.EncodeToString(sum[:4])); err != nil {
		return fail.E("shell.Open", fail.Unsupported, a.options.Track, err)
	}
	if !a.options.NoSync {
		if a.syncer.dir, err = os.Open(a.jobs); err != nil {
			return openError(a.dir, err)
		}
	}
	a.confinement = probeConfinement()
	a.lacking = a.confinement.missing(a.options.Sandbox)
	if a.options.CPUShares && !a.track.shares() {
		a.lacking = append(a.lacking, "cpuShares: this machine lets the site make no cgroup for processor time")
	}
	a.launchers = findLaunchers(a.options)
	a.options.Log.Info("shell adapter", "dir", a.dir, "slots", a.options.Slots, "track", a.track.Way, "memoryLimits", a.track.memory(), "processLimits", a.track.processes())
	return a.takeOver()
}

// Properties gives what the adapter claims.
func (a *Adapter) Properties() adapters.Properties {
	return adapters.Properties{
		Type: Type, ManagerURI: managerURI, Version: a.osVersion, Suspend: true, Push: true, Lease: true,
	}
}

// Check says what stands against a job here.
func (a *Adapter) Check(d *jsdl.JobDefinition) error {
	return a.CheckAs(d, "")
}

// CheckAs implements adapters.AccountChecker.
func (a *Adapter) CheckAs(d *jsdl.JobDefinition, account string) error {
	w := want(d, "check")
	w.account = account
	_, err := a.plan(w)
	return err
}

// Submit places jobs. Once it returns they are on disk, and will be run by this
// gateway or the next.
func (a *Adapter) Submit(_ context.Context, jobs []adapters.Job) []adapters.Placed {
	placed := make([]adapters.Placed, len(jobs))
	a.submit(len(jobs), func(i int) (*job, error) {
		j, err := a.place(&jobs[i])
		if placed[i].Err = err; err == nil {
			placed[i].Handle = handleOf(jobs[i].Tag)
		}
		return j, err
	})
	return placed
}

// submit places n jobs and queues those that are new.
func (a *Adapter) submit(n int, place func(int) (*job, error)) {
	a.placing.RLock()
	defer a.placing.RUnlock()
	fresh := make([]*job, 0, n)
	for i := range n {
		if j, err := place(i); err == nil && j != nil {
			fresh = append(fresh, j)
		}
	}
	if len(fresh) == 0 {
		return
	}
	if err := a.syncer.sync(); err != nil {
		a.options.Log.Error("syncing the directory of jobs", "error", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, j := range fresh {
		if a.active[j.tag] == j { // else it was cancelled already
			a.queue = append(a.queue, j)
			a.watchLease(j, j.until)
		}
	}
	a.dispatch()
}

// place puts one job on disk. It gives nil without an error for a tag that is there.
func (a *Adapter) place(spec *adapters.Job) (*job, error) {
	if known, err := a.known(spec.Tag); known || err != nil {
		return nil, err
	}
	if err := spec.WithoutReservations("shell.Submit"); err != nil {
		return nil, err
	}
	w := want(spec.Definition, spec.Tag)
	w.account, w.notAfter = spec.Account, spec.NotAfter
	return a.placePlanned(w, spec.Owner)
}

// known reports whether the tag is placed already.
func (a *Adapter) known(tag adapters.Tag) (bool, error) {
	if err := tag.Validate(); err != nil {
		return false, err
	}
	a.mu.Lock()
	_, known := a.active[tag]
	closed := a.closed
	a.mu.Unlock()
	if closed {
		return false, fail.Errorf("shell.Submit", fail.Unavailable, string(tag), "the site is being shut down")
	}
	if !known {
		_, err := os.Lstat(a.path(tag).path(""))
		known = err == nil
	}
	return known, nil
}

// placePlanned puts on disk what is not there.
func (a *Adapter) placePlanned(w wanted, owner string) (*job, error) {
	s, err := a.plan(w)
	if err != nil {
		return nil, err
	}
	if s.Account != nil {
		if err := a.admit(); err != nil {
			return nil, fail.Errorf("shell.Submit", fail.Unavailable, string(s.Tag), "the site's directory can't be opened to the job's account: %s", why(err)).Because(err)
		}
	}
	s.Owner, s.Submitted = owner, time.Now()
	j := newJob(s)
	j.made = make(chan struct{})
	defer close(j.made)
	// Known before it is there, so that nobody sees a job that no one looks after.
	a.mu.Lock()
	if _, known := a.active[s.Tag]; known {
		a.mu.Unlock()
		return nil, nil
	}
	a.active[s.Tag] = j
	a.mu.Unlock()
	made, err := place(a.jobs, filepath.Join(a.dir, dirStaging), s)
	if err == nil && made {
		return j, nil
	}
	a.mu.Lock()
	delete(a.active, s.Tag)
	a.mu.Unlock()
	if err != nil {
		kind := fail.Unavailable
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			kind = fail.Exhausted
		}
		return nil, fail.Errorf("shell.Submit", kind, string(s.Tag), "the job could not be written to the site's job directory: %s", why(err)).Because(err)
	}
	return nil, nil
}

// admit lets other accounts go through the site's directory to what is theirs,
// and see nothing on the way.
func (a *Adapter) admit() error {
	for _, dir := range []string{a.dir, a.jobs} {
		info, err := os.Stat(dir)
		if err == nil && info.Mode().Perm()&0o011 != 0o011 {
			err = os.Chmod(dir, info.Mode().Perm()|0o011) // to go through, no more
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func newJob(s *spec) *job {
	return &job{
		until: s.NotAfter,
		tag:   s.Tag, need: s.Need, ready: make(chan struct{}),
		evidence: adapters.Evidence{Tag: s.Tag, Handle: handleOf(s.Tag), Phase: adapters.Queued},
	}
}

func (a *Adapter) path(tag adapters.Tag) jobDir { return jobDir(filepath.Join(a.jobs, string(tag))) }

// Find gives the handles of the tags that are on disk.
func (a *Adapter) Find(_ context.Context, tags []adapters.Tag) (map[adapters.Tag]adapters.Handle, error) {
	a.placing.Lock()
	defer a.placing.Unlock()
	found := map[adapters.Tag]adapters.Handle{}
	for _, tag := range tags {
		if tag.Validate() != nil {
			continue
		}
		_, err := os.Lstat(string(a.path(tag)))
		switch {
		case err == nil:
			found[tag] = handleOf(tag)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, fail.Errorf("shell.Find", fail.Unavailable, string(tag), "the directory of jobs can't be read: %s", why(err)).Because(err)
		}
	}
	return found, nil
}

// Status gives evidence from memory for jobs that have not ended, else from disk.
func (a *Adapter) Status(_ context.Context, handles []adapters.Handle) ([]adapters.Evidence, error) {
	evidence := make([]adapters.Evidence, len(handles))
	for i, h := range handles {
		tag, err := tagOf(h)
		if err != nil {
			evidence[i] = adapters.Evidence{Handle: h, Err: err}
			continue
		}
		evidence[i] = a.evidence(tag)
	}
	return evidence, nil
}

func (a *Adapter) evidence(tag adapters.Tag) adapters.Evidence {
	a.mu.Lock()
	j, ok := a.active[tag]
	var e adapters.Evidence
	if ok {
		e = j.evidence
	}
	a.mu.Unlock()
	if ok {
		return e
	}
	return a.recorded(tag)
}

// recorded gives the evidence of what is on disk.
func (a *Adapter) recorded(tag adapters.Tag) adapters.Evidence {
	base := adapters.Evidence{Tag: tag, Handle: handleOf(tag)}
	b, e, started, err := a.path(tag).read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		base.Phase, base.Reason = adapters.Lost, "the site has no such job, or has forgotten it"
	case err != nil:
		base.Err = fail.Errorf("shell.Status", fail.Unavailable, string(tag), "the job's record can't be read: %s", why(err)).Because(err)
	case e != nil:
		return e.evidence(tag)
	case started:
		base.Phase = adapters.Running
		if b != nil {
			base.Started = b.Started
		}
	default:
		base.Phase = adapters.Queued
	}
	return base
}

// errUnknown refuses to act on a job that is not there.
func errUnknown(op string, tag adapters.Tag) error {
	return fail.Errorf(op, fail.NotFound, string(tag), "the site has no job %s, or has forgotten it", tag)
}

// Output opens a stream.
func (a *Adapter) Output(_ context.Context, h adapters.Handle, stream adapters.Stream, offset int64) (io.ReadCloser, error) {
	tag, err := tagOf(h)
	if err != nil {
		return nil, err
	}
	if offset < 0 || stream != adapters.Stdout && stream != adapters.Stderr {
		return nil, fail.Errorf("shell.Output", fail.Invalid, string(tag), "there is no stream %d from %d", stream, offset)
	}
	d := a.path(tag)
	s, err := d.spec()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errUnknown("shell.Output", tag)
	}
	if err != nil {
		return nil, fail.E("shell.Output", fail.Unavailable, string(tag), err)
	}
	path, other := s.outputs(d)
	if stream == adapters.Stderr {
		path = other
	}
	f, err := openOutput(path, s.Account)
	if errors.Is(err, fs.ErrNotExist) {
		return io.NopCloser(strings.NewReader("")), nil
	}
	if err != nil {
		return nil, fail.Errorf("shell.Output", fail.Unavailable, string(tag), "the job's output %s can't be read: %s", path, why(err)).Because(err)
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, fail.E("shell.Output", fail.Unavailable, string(tag), err)
	}
	if !info.Mode().IsRegular() { // a device keeps nothing
		_ = f.Close()
		return io.NopCloser(strings.NewReader("")), nil
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		_ = f.Close()
		return nil, fail.E("shell.Output", fail.Unavailable, string(tag), err)
	}
	return f, nil
}

// Forget removes a job that ended, with its outputs and its own directories.
func (a *Adapter) Forget(_ context.Context, h adapters.Handle) error {
	tag, err := tagOf(h)
	if err != nil {
		return err
	}
	e := a.evidence(tag)
	switch {
	case e.Err != nil:
		return e.Err
	case !e.Phase.Final():
		return fail.Errorf("shell.Forget", fail.Conflict, string(tag), "the job is %v; only a job that ended can be forgotten", e.Phase)
	}
	// Out of sight at once, then away, which may take its time.
	out, err := os.MkdirTemp(filepath.Join(a.dir, dirStaging), "forget-")
	if err != nil {
		return fail.E("shell.Forget", fail.Unavailable, string(tag), err)
	}
	if err := os.Rename(string(a.path(tag)), filepath.Join(out, "job")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail.E("shell.Forget", fail.Unavailable, string(tag), errors.Join(err, os.Remove(out)))
	}
	if err := clear(out); err != nil {
		a.options.Log.Warn("a forgotten job leaves files behind", "dir", out, "error", err)
	}
	return nil
}

// Watch delivers evidence as it comes.
func (a *Adapter) Watch(ctx context.Context, emit func([]adapters.Evidence)) error {
	return a.feed.Watch(ctx, emit)
}

// Close lets go of the jobs: running ones go on, waiting ones wait for the next Open.
func (a *Adapter) Close() error {
	a.mu.Lock()
	a.closed = true
	a.queue = nil
	if a.retry != nil {
		a.retry.Stop()
	}
	for m := range a.members {
		m.hangUp()
	}
	a.mu.Unlock()
	a.wg.Wait()
	a.track.removeParents()
	var errs []error
	for _, f := range []*os.File{a.log, a.syncer.dir, a.lock} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// syncer makes a directory's entries lasting, for all who ask meanwhile at once.
type syncer struct {
	dir  *os.File // nil: nothing is synced
	mu   sync.Mutex
	next *syncRound // that new callers join
	busy sync.Mutex
}

type syncRound struct {
	once sync.Once
	err  error
}

func (s *syncer) sync() error {
	if s.dir == nil {
		return nil
	}
	s.mu.Lock()
	if s.next == nil {
		s.next = new(syncRound)
	}
	round := s.next
	s.mu.Unlock()
	s.busy.Lock()
	defer s.busy.Unlock()
	round.once.Do(func() {
		// Who comes from here on may have come too late for this round.
		s.mu.Lock()
		s.next = nil
		s.mu.Unlock()
		round.err = s.dir.Sync()
	})
	return round.err
}
