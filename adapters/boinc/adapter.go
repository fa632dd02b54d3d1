package boinc

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// Adapter runs jobs through one account of one project.
type Adapter struct {
	settings Settings
	site     string
	dir      string
	log      *slog.Logger
	c        *client
	feed     adapters.Feed

	life    context.Context //nolint:containedctx // ends with Close: what it bounds outlives the call that began it
	end     context.CancelFunc
	asking  sync.WaitGroup
	writing sync.Mutex
	journal *os.File
	written int64        // since it was begun
	gate    sync.RWMutex // closed while the journal is begun anew

	mu         sync.Mutex
	batches    map[string]*batch // by name
	byID       map[int64]*batch
	jobs       map[adapters.Tag]*job // that are not forgotten
	placing    map[adapters.Tag]chan struct{}
	proven     map[string]bool
	unfit      map[string]string // by application: why it takes no jobs
	platforms  []string
	info       projectInfo
	asked      time.Time // when the project described itself
	tried      time.Time // when it was asked to
	noStderr   bool      // the server can't tell what failed jobs wrote
	refreshing chan struct{}
	fresh      time.Time // of the last round of questions
	serverTime float64   // of the project's last answer to what changed
	rounds     int
	spare      int // questions about single jobs that are left to the round
	refreshErr error
	static     uint64
	dynamic    uint64
	lastStatic string
	lastState  [3]int
	swept      time.Time
}

// batch states.
type batchState uint8

const (
	batchPlanned  batchState = iota // nothing was submitted
	batchDoubtful                   // submit_batch was sent and its answer is not known
	batchOpen                       // its jobs are at the project
	batchGone                       // retired, or never had jobs
)

// batch is one batch at the project.
type batch struct {
	record *batchRecord
	id     int64
	state  batchState
	sent   time.Time // when submit_batch was sent last
	jobs   []*job
	open   int  // jobs that are not final
	kept   int  // jobs that are not forgotten
	whole  bool // its jobs' states were asked in full
	absent bool // query_batch2 does not know its name
	huge   bool // its outputs are too many to be had together
}

// job is one placement.
type job struct {
	record    *jobRecord
	batch     *batch
	id        int64  // of the workunit
	status    string // as query_batch2 says
	started   time.Time
	cancel    *cancelled
	aborted   bool // the project took the cancel
	final     *final
	forgotten bool
	tries     int // of fetching its outputs, in vain
}

// Open opens the adapter of a site. A project that does not answer is no error.
func Open(config adapters.Config) (adapters.Adapter, error) {
	var s Settings
	if err := config.Settings.Decode(&s); err != nil {
		return nil, err
	}
	s.EnsureDefaults()
	if err := s.Validate(); err != nil {
		return nil, err
	}
	secret, err := readSecret(s.AuthenticatorFile)
	if err != nil {
		return nil, err
	}
	a := &Adapter{
		settings: s, site: config.Site, dir: config.Dir, log: config.Log, c: newClient(&s, secret),
		batches: map[string]*batch{}, byID: map[int64]*batch{}, jobs: map[adapters.Tag]*job{}, placing: map[adapters.Tag]chan struct{}{},
		proven: map[string]bool{}, unfit: map[string]string{},
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if a.site == "" {
		a.site = Type
	}
	a.life, a.end = context.WithCancel(context.Background())
	if err := os.MkdirAll(filepath.Join(a.dir, outputsDir), 0o700); err != nil {
		return nil, fail.Errorf("boinc.Open", fail.Unavailable, a.dir, "the adapter's directory can't be made: %v", err)
	}
	if err := a.openJournal(); err != nil {
		return nil, err
	}
	a.introduce(a.life)
	return a, nil
}

// introduce asks the project what it is, and what its applications want. It is
// patient for a moment only: a project that is away is asked again later.
func (a *Adapter) introduce(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, min(a.settings.Timeout, 10*time.Second))
	defer cancel()
	info, err := a.c.project(ctx)
	if err != nil {
		a.log.Warn("the project does not answer", "error", bare(err))
		return
	}
	unfit := map[string]string{}
	wanted := map[string]int{}
	for _, m := range a.settings.Applications {
		wanted[m.App] = 0
	}
	if a.settings.Wrapper != "" {
		wanted[a.settings.Wrapper] = 1
	}
	for app, inputs := range wanted {
		own, n, err := a.c.templates(ctx, app)
		switch {
		case err != nil && gone(err), isUnsupported(err):
			unfit[app] = fmt.Sprintf("the project has no application %q for this account: %s", app, fail.Sentence(wrap("get_templates", err, false)))
		case err != nil:
			a.log.Warn("the project does not tell about an application", "app", app, "error", bare(err))
			return
		case own && n != inputs:
			unfit[app] = fmt.Sprintf("the application %q has an input template for %d files; jobs of this site bring %d", app, n, inputs)
		}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.info, a.asked, a.platforms, a.unfit = info, time.Now(), info.platforms, unfit
	if a.platforms == nil {
		a.platforms = []string{}
	}
}

func isUnsupported(err error) bool {
	e := wrap("", err, false)
	return err != nil && (fail.Is(e, fail.Unsupported) || fail.Is(e, fail.Denied))
}

// introduced asks again what the project is, when it was away or has had the time to
// change.
func (a *Adapter) introduced(ctx context.Context) {
	a.mu.Lock()
	old := time.Since(a.asked) > max(time.Hour, a.settings.Poll) && time.Since(a.tried) > min(a.settings.Poll, 30*time.Second)
	if old {
		a.tried = time.Now()
	}
	a.mu.Unlock()
	if old {
		a.introduce(ctx)
	}
}

func (a *Adapter) knownPlatforms() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.platforms
}

// Properties say what the adapter can.
func (a *Adapter) Properties() adapters.Properties {
	version := a.Health().Version
	if version == "" {
		version = "unknown"
	}
	return adapters.Properties{
		Type: Type, ManagerURI: "https://boinc.berkeley.edu/", Version: version, Push: true, Bulk: true,
		MaxBatch: a.settings.MaxBatch, MaxJobs: a.settings.MaxJobs, Requests: a.settings.RequestsPerSecond, MaxOutput: a.settings.MaxOutput,
	}
}

// onlyPath is the one way to a project.
const onlyPath = adapters.Path("remote submission RPC")

// Health tells how the project answers.
func (a *Adapter) Health() adapters.Health {
	a.c.mu.Lock()
	h := adapters.Health{
		Path: onlyPath, Version: a.c.version, Problem: a.c.problem, Since: a.c.since, Contact: a.c.contact, Requests: a.c.requests,
		Waiting: a.c.waiting, Offered: []adapters.Path{onlyPath},
	}
	a.c.mu.Unlock()
	if h.Problem != "" {
		h.Problem = "the project at " + a.c.base + " can't be used: " + h.Problem
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, why := range a.unfit {
		h.Remarks = append(h.Remarks, why)
	}
	if a.info.schedDown {
		h.Remarks = append(h.Remarks, "the project's scheduler is stopped: hosts get no jobs")
	}
	if a.info.webDown {
		h.Remarks = append(h.Remarks, "the project's web interface is stopped by its staff")
	}
	for app, n := range a.unsent() {
		if !a.proven[app] {
			h.Remarks = append(h.Remarks, fmt.Sprintf("no host has taken any of %d jobs of the application %q yet; it may have no version for the hosts in use", n, app))
		}
	}
	return h
}

// Close lets go of the project; jobs go on.
func (a *Adapter) Close() error {
	a.end()
	a.asking.Wait()
	a.c.close()
	a.writing.Lock()
	defer a.writing.Unlock()
	return a.journal.Close()
}

// Handles.

const handlePrefix = "boinc/1"

func (a *Adapter) jobName(tag adapters.Tag) string { return a.settings.Prefix + "_" + string(tag) }

// handleOf makes a job's handle: its batch and its name at the project.
func (a *Adapter) handleOf(j *job) adapters.Handle {
	return adapters.Handle(fmt.Sprintf("%s %d %s %s", handlePrefix, j.batch.id, a.jobName(j.record.Tag), j.record.Tag))
}

// parsed is a handle that was read.
type parsed struct {
	batch int64
	name  string
	tag   adapters.Tag
}

func parseHandle(h adapters.Handle) (parsed, error) {
	bad := fail.Errorf("boinc", fail.Invalid, "", "the handle is not of this adapter")
	f := strings.Split(string(h), " ")
	if len(h) > 512 || len(f) != 4 || f[0] != handlePrefix {
		return parsed{}, bad
	}
	id, err := strconv.ParseInt(f[1], 10, 64)
	p := parsed{batch: id, name: f[2], tag: adapters.Tag(f[3])}
	if err != nil || id <= 0 || !safeName.MatchString(p.name) || len(p.name) > maxName || p.tag.Validate() != nil || !strings.HasSuffix(p.name, "_"+f[3]) {
		return parsed{}, bad
	}
	return p, nil
}

// addBatch takes a batch into memory.
func (a *Adapter) addBatch(r *batchRecord) *batch {
	b := &batch{record: r, id: r.Adopted, open: len(r.Jobs), kept: len(r.Jobs)}
	if r.Adopted != 0 {
		b.state = batchOpen
		a.byID[b.id] = b
	}
	for i := range r.Jobs {
		j := &job{record: &r.Jobs[i], batch: b}
		b.jobs = append(b.jobs, j)
		a.jobs[j.record.Tag] = j
	}
	a.batches[r.Name] = b
	return b
}

func (a *Adapter) identify(b *batch, id int64) {
	b.id = id
	a.byID[id] = b
}

// drop forgets a batch that has no jobs at the project and will have none.
func (a *Adapter) drop(b *batch) {
	b.state = batchGone
	for _, j := range b.jobs {
		if a.jobs[j.record.Tag] == j {
			delete(a.jobs, j.record.Tag)
		}
	}
	delete(a.batches, b.record.Name)
	delete(a.byID, b.id)
}

// forget drops a job that ended. It stays in its batch's list, so that a handle of it
// is known to be forgotten, until the batch is.
func (a *Adapter) forget(j *job) {
	if j.forgotten {
		return
	}
	j.forgotten = true
	j.batch.kept--
	if a.jobs[j.record.Tag] == j {
		delete(a.jobs, j.record.Tag)
	}
}

// unsent counts jobs by application that no host has taken yet.
func (a *Adapter) unsent() map[string]int {
	n := map[string]int{}
	for _, b := range a.batches {
		if b.state == batchGone {
			continue
		}
		for _, j := range b.jobs {
			if j.final == nil && j.started.IsZero() {
				n[b.record.App]++
			}
		}
	}
	return n
}
