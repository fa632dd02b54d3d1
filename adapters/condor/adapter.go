package condor

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
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

// Adapter is a site whose jobs an HTCondor schedd runs.
type Adapter struct {
	*tools
	settings *Settings
	site     *site
	book     *book
	log      *slog.Logger
	id       string // marks this site's jobs at the schedd
	runner   string // its path on the nodes
	place    string // why jobs can't be placed at all; ""

	submissions chan *submission
	exprs       expressions
	stock       stock
	seeker      sync.Mutex // one search at a time
	stop        context.CancelFunc
	running     sync.WaitGroup
}

// Open opens the adapter of a site. A schedd that is away is no reason not to.
func Open(c adapters.Config) (adapters.Adapter, error) {
	s := new(Settings)
	if err := c.Settings.Decode(s); err != nil {
		return nil, err
	}
	if err := s.ensureDefaults(); err != nil {
		return nil, err
	}
	log := c.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	a := &Adapter{tools: newTools(s), settings: s, log: log, submissions: make(chan *submission, 1024)}
	a.site = &site{name: c.Site, settings: s, own: whoami(), argMax: argMax(), parse: a.parseExpression}
	a.site.root = a.site.own.uid == 0
	if a.site.root {
		if err := a.chooseAccount(); err != nil {
			a.place = err.Error()
		}
	}
	dir, err := a.directory(c.Dir)
	if err != nil {
		return nil, err
	}
	if a.id, err = siteID(c.Dir); err != nil {
		return nil, err
	}
	if a.book, err = openBook(dir, s, a.site.root, log); err != nil {
		return nil, fail.Errorf("condor.Open", fail.Internal, dir, "the directory of jobs can't be used").Because(err)
	}
	a.site.jobs = a.book.path(dirJobs)
	if a.runner, err = a.install(); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	a.stop = stop
	a.tools.back = func() {
		a.book.mu.Lock()
		a.book.doubt = true
		a.book.mu.Unlock()
		a.book.poke()
	}
	first, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := a.stock.get(first, a, 0); err != nil {
		log.Warn("HTCondor does not answer yet", "site", c.Site, "error", err)
	}
	a.running.Go(func() { a.submitter(ctx) })
	a.running.Go(func() { a.keeper(ctx) })
	if !s.Spool {
		a.running.Go(func() {
			for ctx.Err() == nil {
				if err := watchLogs(ctx, a.book.path(dirLogs), a.book.look); err != nil {
					log.Error("event logs", "site", c.Site, "error", err)
					a.book.look()
					wait(ctx, 2*time.Second)
				}
			}
		})
	}
	return a, nil
}

// wait waits, unless ctx ends before.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// chooseAccount finds who root's jobs run as: HTCondor runs none as root.
func (a *Adapter) chooseAccount() error {
	name := a.settings.Account
	if name == "" {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		name = "condor"
		if v, err := a.exec(ctx, as{}, "", "condor_config_val", "CONDOR_IDS"); err == nil && v.code == 0 {
			uid, _, ok := strings.Cut(strings.TrimSpace(string(v.out)), ".")
			if ok && uid != "" && strings.Trim(uid, "0123456789") == "" {
				name = uid
			}
		}
	}
	acc, err := lookupAccount(name)
	if err != nil {
		return fmt.Errorf("jobs of a gateway that is root need an account to run as (the setting account): %w", err)
	}
	a.site.own = acc
	return nil
}

// directory gives where jobs live. Where they run as another account than the
// gateway's, which may not enter the site's own directory, it is one that they may.
func (a *Adapter) directory(own string) (string, error) {
	dir := a.settings.Directory
	switch {
	case dir != "":
	case !a.site.root:
		dir = own
	default:
		_ = os.Chmod(own, 0o711)
		if dir = own; closed(own) == "" {
			break
		}
		sum := sha256.Sum256([]byte(own))
		dir = "/var/tmp/portolan-condor-" + hex.EncodeToString(sum[:6])
		if err := os.Mkdir(dir, 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
			return "", fail.Errorf("condor.Open", fail.Internal, dir, "the directory of jobs can't be made").Because(err)
		}
		var stat syscall.Stat_t
		if err := syscall.Lstat(dir, &stat); err != nil || stat.Mode&syscall.S_IFMT != syscall.S_IFDIR || stat.Uid != 0 {
			return "", fail.Errorf("condor.Open", fail.Invalid, "directory", "%s is another's; say where jobs are to live (the setting directory)", dir)
		}
	}
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err == nil && strings.ContainsAny(dir, "\n\r$\"\\") {
		err = errors.New("its path holds characters that HTCondor reads as something else")
	}
	if err != nil {
		return "", fail.Errorf("condor.Open", fail.Invalid, "directory", "jobs can't live in %q: %v", dir, err)
	}
	return dir, nil
}

// siteID gives the mark of this site's jobs, made at its first opening.
func siteID(dir string) (string, error) {
	path := filepath.Join(dir, "site")
	data, err := readBounded(path, 100)
	if err == nil && validBatch(strings.TrimSpace(string(data))) {
		return strings.TrimSpace(string(data)), nil
	}
	id := newBatch()
	return id, writeFile(path, []byte(id+"\n"), 0o600)
}

// newBatch makes a name that nothing else has.
func newBatch() string {
	var b [10]byte
	_, _ = rand.Read(b[:]) // it never fails
	return "b" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}

// install gives the runner's path on the nodes: a copy of this program, under a name
// that changes with its content, so that a new release disturbs no job of the old one.
func (a *Adapter) install() (string, error) {
	if a.settings.Runner != "" {
		return a.settings.Runner, nil
	}
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	in, err := os.Open(exe)
	if err != nil {
		return "", err
	}
	defer in.Close() // only read
	info, err := in.Stat()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %d", info.Size(), info.ModTime().UnixNano()))
	path := a.book.path(dirBin, "portolan-"+hex.EncodeToString(sum[:6]))
	if have, err := os.Stat(path); err == nil && have.Size() == info.Size() {
		return path, nil
	}
	out, err := os.CreateTemp(a.book.path(dirBin), ".copy-")
	if err != nil {
		return "", err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Chmod(0o755)
	}
	if e := out.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(out.Name(), path)
	}
	if err != nil {
		_ = os.Remove(out.Name())
	}
	return path, err
}

// Properties tells what the site is and can.
func (a *Adapter) Properties() adapters.Properties {
	return adapters.Properties{
		Type: Type, ManagerURI: "https://htcondor.org/", Version: a.Health().Version,
		Suspend: true, Hold: true, Push: true, Bulk: true, Lease: a.keepsLeases(), Requests: a.settings.RequestsPerSecond,
	}
}

// Health tells how the site stands.
func (a *Adapter) Health() adapters.Health {
	t := a.tools
	t.mu.Lock()
	defer t.mu.Unlock()
	path := adapters.Path("schedd")
	switch {
	case a.settings.Spool:
		path = "schedd, spooled"
	case a.settings.Transfer:
		path = "schedd, files transferred"
	}
	h := adapters.Health{
		Path: path, Version: t.version, Problem: t.problem, Since: t.since, Contact: t.contact, Requests: t.requests, Waiting: t.waiting,
		Offered: []adapters.Path{path},
	}
	if h.Problem == "" {
		h.Problem = a.place
	}
	if a.site.root {
		h.Remarks = append(h.Remarks, "jobs run as "+a.site.own.name+" unless their owner is mapped to another account")
	}
	h.Remarks = append(h.Remarks, "jobs live in "+a.book.dir)
	return h
}

// Check says whether the pool could ever run the job.
func (a *Adapter) Check(d *jsdl.JobDefinition) error { return a.CheckAs(d, "") }

// CheckAs implements adapters.AccountChecker.
func (a *Adapter) CheckAs(d *jsdl.JobDefinition, account string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	f, _ := a.stock.get(ctx, a, factsAge) // without it only the form is judged
	_, err := a.site.make(f, time.Now(), d, "check", "", account)
	return err
}

// factsAge is how old what is known of the pool may be for a check.
const factsAge = 30 * time.Second

// Status tells of jobs what the event log says; it asks nobody.
func (a *Adapter) Status(_ context.Context, handles []adapters.Handle) ([]adapters.Evidence, error) {
	out := make([]adapters.Evidence, len(handles))
	a.book.mu.Lock()
	defer a.book.mu.Unlock()
	for i, h := range handles {
		tag, err := parseHandle(h)
		if err != nil {
			out[i] = adapters.Evidence{Handle: h, Err: fail.Errorf("condor.Status", fail.Invalid, "", "%v", err)}
			continue
		}
		j := a.book.jobs[tag]
		if j == nil {
			out[i] = adapters.Evidence{Tag: tag, Handle: h, Phase: adapters.Lost, Reason: "the site knows nothing of this job: it was forgotten, or the site's directory was lost", Ended: time.Now()}
			continue
		}
		out[i] = j.evidence()
		if out[i].Phase == adapters.Unknown {
			out[i].Err = fail.Errorf("condor.Status", fail.Unavailable, "", "nothing is known of the job for now: neither its event log nor HTCondor has told of it yet")
		}
	}
	return out, nil
}

// Watch tells of changes as they come.
func (a *Adapter) Watch(ctx context.Context, emit func([]adapters.Evidence)) error {
	return a.book.feed.Watch(ctx, emit)
}

// Forget drops what is kept of a job that ended.
func (a *Adapter) Forget(_ context.Context, h adapters.Handle) error {
	tag, err := parseHandle(h)
	if err != nil {
		return fail.Errorf("condor.Forget", fail.Invalid, "", "%v", err)
	}
	a.book.mu.Lock()
	defer a.book.mu.Unlock()
	j := a.book.jobs[tag]
	if j == nil {
		return nil
	}
	if j.end == nil {
		return fail.Errorf("condor.Forget", fail.Conflict, string(tag), "the job has not ended")
	}
	if a.settings.Spool && j.bound {
		a.book.strays = append(a.book.strays, j.at) // its files at the schedd go with it
		a.book.poke()
	}
	return a.book.discard(tag)
}

// Close lets go of HTCondor; jobs go on.
func (a *Adapter) Close() error {
	a.stop()
	a.running.Wait()
	a.book.mu.Lock()
	defer a.book.mu.Unlock()
	a.book.closed = true // no timer of a lease does anything any more
	return nil
}
