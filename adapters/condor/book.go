package condor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/portolan-project/portolan/adapters"
)

// book is all that is known of the site's jobs. Its directory holds
//
//	jobs/TAG   a directory for each job, see jobDir
//	batches    a record for each submission, written before HTCondor hears of it
//	logs       the event logs
//	bin        the runner
//	trash      what is about to go, and what is not whole yet
type book struct {
	dir      string
	settings *Settings
	feed     adapters.Feed
	log      *slog.Logger

	mu      sync.Mutex
	jobs    map[adapters.Tag]*job
	batches map[string]*batch
	logs    map[string]*logFile // by path
	newest  map[int]int         // number of the newest log by uid
	// removals are jobs that are to leave the queue.
	removals map[ids]adapters.Tag
	leasing  sync.Mutex // held while ends of leases are written
	closed   bool
	strays   []ids // at HTCondor but of no job here
	damaged  int   // records that could not be read
	doubt    bool  // something may have been missed: an audit is due
	wake     chan struct{}
	news     chan struct{} // closed and made anew when evidence changes
}

// batch is one submission.
type batch struct {
	Version int            `json:"version"`
	Began   time.Time      `json:"began"`
	Tags    []adapters.Tag `json:"tags"`
	Log     string         `json:"log,omitzero"` // name of the event log
	UID     int            `json:"uid"`
	// Settled says that it is known which of its jobs HTCondor has.
	Settled bool `json:"settled,omitzero"`
	Cluster int  `json:"cluster,omitzero"`

	name string
	left int           // jobs in memory
	done chan struct{} // closed when its submission is over; nil: it was of before
}

const (
	dirJobs    = "jobs"
	dirBatches = "batches"
	dirLogs    = "logs"
	dirBin     = "bin"
	dirTrash   = "trash"
)

func (b *book) path(parts ...string) string {
	return filepath.Join(append([]string{b.dir}, parts...)...)
}

func (b *book) jobDir(tag adapters.Tag) jobDir { return jobDir(b.path(dirJobs, string(tag))) }

// openBook makes the directories and reads what is there.
func openBook(dir string, s *Settings, shared bool, log *slog.Logger) (*book, error) {
	b := &book{
		dir: dir, settings: s, log: log, jobs: map[adapters.Tag]*job{}, batches: map[string]*batch{}, logs: map[string]*logFile{},
		newest: map[int]int{}, removals: map[ids]adapters.Tag{}, wake: make(chan struct{}, 1),
		news: make(chan struct{}),
	}
	mode := os.FileMode(0o700)
	if shared {
		mode = 0o711 // whoever knows the name may enter
	}
	for _, d := range []string{"", dirJobs, dirLogs, dirBin} {
		if err := makeDir(b.path(d), mode); err != nil {
			return nil, err
		}
	}
	for _, d := range []string{dirBatches, dirTrash} {
		if err := makeDir(b.path(d), 0o700); err != nil {
			return nil, err
		}
	}
	return b, b.read()
}

func makeDir(path string, mode os.FileMode) error {
	if err := os.MkdirAll(path, mode); err != nil {
		return err
	}
	return os.Chmod(path, mode) // whatever the umask is
}

// read fills the book at its opening.
func (b *book) read() error {
	if left, err := os.ReadDir(b.path(dirTrash)); err == nil {
		for _, e := range left {
			_ = clearAway(b.path(dirTrash, e.Name()))
		}
	}
	records, err := os.ReadDir(b.path(dirBatches))
	if err != nil {
		return err
	}
	for _, r := range records {
		x, err := readBatch(b.path(dirBatches, r.Name()))
		if err != nil || !validBatch(r.Name()) {
			continue // half a file of a crash: nothing was submitted with it
		}
		x.name = r.Name()
		b.batches[x.name] = x
	}
	dirs, err := os.ReadDir(b.path(dirJobs))
	if err != nil {
		return err
	}
	for _, d := range dirs {
		tag := adapters.Tag(d.Name())
		if tag.Validate() != nil {
			continue
		}
		s, err := b.jobDir(tag).spec()
		if err != nil {
			b.log.Error("a job's file can't be read", "site", "condor", "tag", tag, "error", err)
			continue
		}
		j := &job{tag: tag, dir: b.jobDir(tag), spec: s.brief(), phase: adapters.Unknown}
		j.end = j.dir.final(tag)
		if j.end != nil {
			j.phase = j.end.Phase
		}
		b.add(j)
	}
	for name, x := range b.batches {
		if x.left == 0 {
			b.drop(name)
			continue
		}
		if !x.Settled {
			continue
		}
		for i, tag := range x.Tags {
			if j := b.jobs[tag]; j != nil && j.spec.batch == name {
				j.at, j.bound = ids{x.Cluster, i}, true
			}
		}
	}
	for tag, j := range b.jobs {
		if b.batches[j.spec.batch] == nil && j.end == nil {
			if err := b.discard(tag); err != nil { // it was about to be submitted
				return err
			}
		}
	}
	logs, err := os.ReadDir(b.path(dirLogs))
	if err != nil {
		return err
	}
	for _, l := range logs {
		uid, n, ok := parseLogName(l.Name())
		if !ok {
			continue
		}
		b.newest[uid] = max(b.newest[uid], n)
		b.logOf(l.Name())
	}
	b.look()
	b.mu.Lock()
	b.tidy()
	b.doubt = true
	b.mu.Unlock()
	return nil
}

// add takes a job in; the caller holds the lock, or is alone.
func (b *book) add(j *job) {
	b.jobs[j.tag] = j
	if j.end == nil {
		b.watchLease(j, j.spec.notAfter)
	}
	j.spec.uid = 0
	if x := b.batches[j.spec.batch]; x != nil {
		x.left++
		j.spec.uid = x.UID // the job's own file is the job's
		if x.Log != "" {
			if l := b.logOf(x.Log); l != nil {
				l.members++
			}
		}
	}
}

// logOf gives the log of that name.
func (b *book) logOf(name string) *logFile {
	uid, n, ok := parseLogName(name)
	if !ok {
		return nil
	}
	path := b.path(dirLogs, name)
	l := b.logs[path]
	if l == nil {
		l = &logFile{path: path, uid: uid, n: n, jobs: map[ids]*job{}}
		b.logs[path] = l
	}
	return l
}

// currentLog gives the log for a submission of an account, which is made for it.
func (b *book) currentLog(uid int) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l := b.logs[b.path(dirLogs, logName(uid, b.newest[uid]))]; l != nil && (l.offset > maxLog || l.unsure) {
		b.newest[uid]++
	}
	name := logName(uid, b.newest[uid])
	return name, b.logOf(name).begin()
}

// look reads what was added to the logs, and tells of it.
func (b *book) look() {
	b.mu.Lock()
	var changed []*job
	seen := map[*job]bool{}
	for _, l := range b.logs {
		damaged, shrunk, err := l.grow(func(e *event) {
			j, what := b.take(l, e)
			if what == nothing {
				return
			}
			if !seen[j] {
				seen[j] = true
				changed = append(changed, j)
			}
			switch what {
			case remove:
				b.removals[j.at] = j.tag
			case unclear:
				b.doubt = true
			case nothing, told:
			}
		})
		if shrunk {
			for _, j := range b.jobs {
				if x := b.batches[j.spec.batch]; j.end == nil && x != nil && x.Log == filepath.Base(l.path) {
					j.phase = adapters.Unknown // what the log said is gone
				}
			}
		}
		if damaged > 0 || shrunk || err != nil {
			b.damaged += damaged
			b.doubt = true
			b.log.Warn("an event log is damaged; the queue will be asked", "log", l.path, "records", damaged, "shrunk", shrunk, "error", err)
		}
	}
	b.tell(changed...)
	poke := b.doubt || len(b.removals)+len(b.strays) > 0
	b.mu.Unlock()
	if poke {
		b.poke()
	}
}

// tell passes evidence on; the caller holds the lock.
func (b *book) tell(changed ...*job) {
	for _, j := range changed {
		if e := j.evidence(); e.Phase != adapters.Unknown {
			b.feed.Publish(e)
		}
	}
	if len(changed) > 0 {
		close(b.news)
		b.news = make(chan struct{})
	}
}

// poke wakes the keeper.
func (b *book) poke() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// take finds whose event it is.
func (b *book) take(l *logFile, e *event) (*job, consequence) {
	at := ids{e.cluster, e.proc}
	if e.number == eventSubmit {
		delete(l.jobs, at)
		tag, name, ok := parseNote(e.text("LogNotes"))
		if !ok {
			return nil, nothing
		}
		j := b.jobs[tag]
		switch {
		case j != nil && j.spec.batch == name && (!j.bound || j.at == at):
			j.at, j.bound = at, true
			l.jobs[at] = j
		case b.batches[name] == nil && j == nil:
			return nil, nothing // forgotten
		default: // of a submission that was given up
			b.strays = append(b.strays, at)
			return nil, nothing
		}
	}
	j := l.jobs[at]
	if j == nil {
		return nil, nothing
	}
	if e.number == eventAborted || e.number == eventTerminated {
		delete(b.removals, at)
	}
	return j, j.apply(e, b.settings)
}

// unsure reports whether jobs that have not ended are of a log that can't be relied
// on; under the lock.
func (b *book) unsure() bool {
	for _, l := range b.logs {
		if !l.unsure {
			continue
		}
		for _, j := range b.jobs {
			if j.end == nil && b.unsureOf(j) {
				return true
			}
		}
	}
	return false
}

// unsureOf reports whether the job's log can't be relied on; under the lock.
func (b *book) unsureOf(j *job) bool {
	x := b.batches[j.spec.batch]
	if x == nil {
		return false
	}
	l := b.logs[b.path(dirLogs, x.Log)]
	return l != nil && l.unsure
}

// drop forgets a submission; the caller holds the lock, or is alone.
func (b *book) drop(name string) {
	delete(b.batches, name)
	if err := os.Remove(b.path(dirBatches, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.log.Warn("the record of a submission can't be removed", "error", err)
	}
}

// tidy removes logs that no job is of any more; the caller holds the lock.
func (b *book) tidy() {
	used := map[string]bool{}
	for _, x := range b.batches {
		used[x.Log] = true
	}
	for path, l := range b.logs {
		if !used[filepath.Base(path)] && (l.n < b.newest[l.uid] || l.offset > maxLog) {
			if l.n == b.newest[l.uid] {
				b.newest[l.uid]++
			}
			delete(b.logs, path)
			_ = os.Remove(path)
		}
	}
}

// discard forgets a job, which ended or was never placed, with its directory; under the
// lock.
func (b *book) discard(tag adapters.Tag) error {
	dir := string(b.jobDir(tag))
	away := b.path(dirTrash, string(tag)+"."+newBatch())
	if err := os.Rename(dir, away); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	j := b.jobs[tag]
	if j != nil {
		delete(b.jobs, tag)
		if x := b.batches[j.spec.batch]; x != nil {
			if l := b.logs[b.path(dirLogs, x.Log)]; l != nil {
				l.members--
				if l.jobs[j.at] == j {
					delete(l.jobs, j.at)
				}
			}
			if x.left--; x.left <= 0 {
				b.drop(x.name)
				b.tidy()
			}
		}
	}
	return clearAway(away)
}

// clearAway removes a directory with whatever a job left in it, even directories that
// it closed to itself.
func clearAway(path string) error {
	if err := os.RemoveAll(path); err == nil {
		return nil
	}
	_ = filepath.WalkDir(path, func(p string, d fs.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(p, 0o700)
		}
		return nil
	})
	return os.RemoveAll(path)
}

// place makes a job's directory, whole or not at all. It gives false if the tag is
// taken.
func (b *book) place(s *spec, gid int, root bool) (bool, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return false, err
	}
	tmp := b.path(dirTrash, string(s.Tag)+"."+newBatch())
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return false, err
	}
	undo := func(err error) (bool, error) { return false, errors.Join(err, os.RemoveAll(tmp)) }
	file := filepath.Join(tmp, nameJob)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return undo(err)
	}
	if root {
		// The job's account reads its file and writes its records.
		if err := errors.Join(os.Chown(file, s.UID, gid), os.Chown(tmp, s.UID, gid)); err != nil {
			return undo(err)
		}
	}
	if err := os.Rename(tmp, string(b.jobDir(s.Tag))); err != nil {
		if errors.Is(err, fs.ErrExist) || isNotEmpty(err) {
			return undo(nil)
		}
		return undo(err)
	}
	return true, nil
}

func (b *book) writeBatch(x *batch) error {
	data, err := json.Marshal(x)
	if err != nil {
		return err
	}
	return writeFile(b.path(dirBatches, x.name), data, 0o600)
}

// maxBatchFile bounds the record of a submission, in bytes.
const maxBatchFile = 16 << 20

func readBatch(path string) (*batch, error) {
	data, err := readBounded(path, maxBatchFile)
	if err != nil {
		return nil, err
	}
	x := new(batch)
	if err := json.Unmarshal(data, x); err != nil {
		return nil, err
	}
	if x.Version != version {
		return nil, fmt.Errorf("version %d of a submission's record is not known here", x.Version)
	}
	return x, nil
}
