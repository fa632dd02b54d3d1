package shell

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// Hosts is the shell adapter of a site of several machines, reached by SSH. It keeps
// the queue and says which machine runs what; an agent on each, which is the shell
// adapter there, does the rest.
type Hosts struct {
	options  *Options
	dir      string
	identity string // of the site, in the names of its directories on the hosts
	lock     *os.File
	syncer   syncer
	feed     adapters.Feed
	hosts    []*host
	beat     time.Duration
	requests atomic.Int64
	contact  atomic.Int64 // of the last answer, in nanoseconds since 1970
	opened   time.Time
	placing  sync.RWMutex // as Adapter's
	leasing  sync.Mutex   // the same
	outputs  sync.Mutex   // held while an order of lines is made
	wg       sync.WaitGroup
	stop     context.CancelFunc
	life     <-chan struct{} // closed when the adapter is

	mu       sync.Mutex
	active   map[adapters.Tag]*hostedJob
	queue    []*hostedJob // first in first out
	retry    *time.Timer
	closed   bool
	versions versions
}

// The directories below a site's of hosts.
const (
	dirPlaced = "placed" // one for each job
	dirHosts  = "hosts"  // what is known of each
	dirForget = "forget" // HOST/TAG that the host is still to forget
	fileSite  = "identity"
)

// OpenHosts makes the adapter of a site of several machines. A machine that is down
// is no error: its jobs are unknown until it is back, and others take the new ones.
func OpenHosts(o Options) (*Hosts, error) {
	if err := o.EnsureDefaults(); err != nil {
		return nil, err
	}
	s := &Hosts{options: &o, dir: o.Dir, beat: beat, opened: time.Now(), active: map[adapters.Tag]*hostedJob{}}
	if o.beat > 0 {
		s.beat = o.beat
	}
	for _, name := range []string{"", dirPlaced, dirHosts, dirForget, dirStaging} {
		if err := os.MkdirAll(filepath.Join(o.Dir, name), 0o700); err != nil {
			return nil, openError(o.Dir, err)
		}
	}
	var err error
	if s.lock, err = lockDir(o.Dir); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	s.stop, s.life = stop, ctx.Done()
	if err := s.open(); err != nil {
		stop()
		return nil, errors.Join(err, s.lock.Close())
	}
	for _, h := range s.hosts {
		s.wg.Go(func() { h.run(ctx) })
	}
	// Who asks at once what the site has should hear of the hosts that are up.
	patience := time.After(connectTime)
	for _, h := range s.hosts {
		select {
		case <-h.tried:
		case <-patience:
			return s, nil
		}
	}
	return s, nil
}

func (s *Hosts) open() error {
	var err error
	if s.identity, err = identity(filepath.Join(s.dir, fileSite)); err != nil {
		return openError(s.dir, err)
	}
	if !s.options.NoSync {
		if s.syncer.dir, err = os.Open(filepath.Join(s.dir, dirPlaced)); err != nil {
			return openError(s.dir, err)
		}
	}
	for _, one := range s.options.Hosts {
		if err := one.ensureDefaults(); err != nil {
			return err
		}
		h := &host{Host: one, site: s, tried: make(chan struct{}), problem: "it was not reached yet", since: s.opened}
		h.recall(filepath.Join(s.dir, dirHosts))
		s.hosts = append(s.hosts, h)
	}
	return s.takeOver()
}

// identity tells the sites of different gateways apart on one host.
func identity(path string) (string, error) {
	data, err := readBounded(path, 128)
	if err == nil && adapters.Tag(data).Validate() == nil {
		return string(data), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	id := rand.Text()
	return id, replace(path, []byte(id), true)
}

// setup is what a host's agent is told.
func (s *Hosts) setup(h *host, dir string) *hostSetup {
	o := s.options
	environment := maps.Clone(o.Environment)
	if environment == nil {
		environment = map[string]string{}
	}
	maps.Copy(environment, h.Environment)
	return &hostSetup{
		Dir: dir, Slots: h.Slots, Grace: o.Grace, Umask: *o.Umask, HostNames: append([]string{h.Name, h.Address}, h.Labels...), Path: o.Path, Track: o.Track,
		EnforceMemory: o.EnforceMemory, CPUShares: o.CPUShares, NoSync: o.NoSync, Sandbox: o.Sandbox, Launchers: o.Launchers,
		Environment: environment, Silence: 12 * s.beat,
	}
}

// Properties gives what the adapter claims.
func (s *Hosts) Properties() adapters.Properties {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := adapters.Properties{Type: Type, ManagerURI: managerURI, Suspend: true, Push: true, Lease: true}
	for _, h := range s.hosts {
		if h.facts != nil {
			p.Version = h.facts.OSVersion
			break
		}
	}
	return p
}

// Check says what stands against a job on every host.
func (s *Hosts) Check(d *jsdl.JobDefinition) error { return s.CheckAs(d, "") }

// CheckAs implements adapters.AccountChecker.
func (s *Hosts) CheckAs(d *jsdl.JobDefinition, account string) error {
	if d == nil {
		return fail.Errorf("shell.Check", fail.Invalid, "", "there is no job definition")
	}
	j := &hostedJob{request: hostJobOf(&adapters.Job{Tag: "check", Definition: d, Account: account}), wanted: want(d, "check"), plans: map[*host]planned{}}
	j.wanted.account = account
	return s.check(j)
}

// check asks each host's facts, and the host where facts are not enough.
func (s *Hosts) check(j *hostedJob) error {
	s.mu.Lock()
	var refusal error
	var ask []*host
	fits := false
	for _, h := range s.hosts {
		switch p := s.plan(j, h); {
		case p.err == nil && !p.blind:
			fits = true
		case p.err == nil:
			ask = append(ask, h)
		case refusal == nil, len(p.err.Error()) < len(refusal.Error()):
			refusal = p.err
		}
	}
	if (fits || len(ask) > 0) && j.wanted.program.SPMD != nil {
		if err := s.couldSpread(j); err != nil {
			s.mu.Unlock()
			return err
		}
	}
	s.mu.Unlock()
	if fits {
		return nil
	}
	ctx, stop := context.WithTimeout(context.Background(), connectTime)
	defer stop()
	for _, h := range ask {
		errs, err := h.each(ctx, call{Do: hostCheck, Jobs: []hostJob{j.request}}, 1)
		if err != nil || errs[0] == nil {
			return nil // who can't be asked may say yes
		}
		refusal = errs[0]
	}
	return refusal
}

// Submit places jobs. Once it returns they are on disk, and will be run by this
// gateway or the next.
func (s *Hosts) Submit(_ context.Context, jobs []adapters.Job) []adapters.Placed {
	s.placing.RLock()
	defer s.placing.RUnlock()
	placed := make([]adapters.Placed, len(jobs))
	fresh := make([]*hostedJob, 0, len(jobs))
	for i := range jobs {
		j, err := s.place(&jobs[i])
		if placed[i].Err = err; err == nil {
			placed[i].Handle = handleOf(jobs[i].Tag)
		}
		if j != nil {
			fresh = append(fresh, j)
		}
	}
	if len(fresh) == 0 {
		return placed
	}
	if err := s.syncer.sync(); err != nil {
		s.log().Error("syncing the directory of jobs", "error", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, j := range fresh {
		if s.active[j.tag] == j {
			s.queue = append(s.queue, j)
			s.watchLease(j)
		}
	}
	s.dispatch()
	return placed
}

func (s *Hosts) place(spec *adapters.Job) (*hostedJob, error) {
	if err := spec.Tag.Validate(); err != nil {
		return nil, err
	}
	if err := spec.WithoutReservations("shell.Submit"); err != nil {
		return nil, err
	}
	s.mu.Lock()
	_, known := s.active[spec.Tag]
	closed := s.closed
	s.mu.Unlock()
	if closed {
		return nil, fail.Errorf("shell.Submit", fail.Unavailable, string(spec.Tag), "the site is being shut down")
	}
	if known {
		return nil, nil
	}
	if _, err := os.Lstat(s.path(spec.Tag)); err == nil {
		return nil, nil
	}
	if spec.Definition == nil {
		return nil, fail.Errorf("shell.Check", fail.Invalid, "", "there is no job definition")
	}
	j := newHostedJob(hostJobOf(spec))
	j.wanted = want(spec.Definition, spec.Tag)
	j.wanted.account, j.wanted.notAfter = spec.Account, j.notAfter
	j.submitted = time.Now()
	if err := s.check(j); err != nil {
		return nil, err
	}
	// Known before it is there, so that nobody sees a job that no one looks after.
	j.made = make(chan struct{})
	defer close(j.made)
	s.mu.Lock()
	if _, known := s.active[j.tag]; known {
		s.mu.Unlock()
		return nil, nil
	}
	s.active[j.tag] = j
	s.mu.Unlock()
	made, err := s.write(j)
	if err == nil && made {
		return j, nil
	}
	s.mu.Lock()
	delete(s.active, j.tag)
	s.mu.Unlock()
	if err != nil {
		kind := fail.Unavailable
		if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
			kind = fail.Exhausted
		}
		return nil, fail.Errorf("shell.Submit", kind, string(j.tag), "the job could not be written to the site's directory: %s", why(err)).Because(err)
	}
	return nil, nil
}

// Find gives the handles of the tags that are on disk here: a host is given a job
// only after that.
func (s *Hosts) Find(_ context.Context, tags []adapters.Tag) (map[adapters.Tag]adapters.Handle, error) {
	s.placing.Lock()
	defer s.placing.Unlock()
	found := map[adapters.Tag]adapters.Handle{}
	for _, tag := range tags {
		if tag.Validate() != nil {
			continue
		}
		_, err := os.Lstat(s.path(tag))
		switch {
		case err == nil:
			found[tag] = handleOf(tag)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, fail.Errorf("shell.Find", fail.Unavailable, string(tag), "the directory of jobs can't be read: %s", why(err)).Because(err)
		}
	}
	return found, nil
}

// Status gives evidence: what the hosts last said of jobs that have not ended, and
// Unknown where the host is away.
func (s *Hosts) Status(_ context.Context, handles []adapters.Handle) ([]adapters.Evidence, error) {
	evidence := make([]adapters.Evidence, len(handles))
	for i, h := range handles {
		tag, err := tagOf(h)
		if err != nil {
			evidence[i] = adapters.Evidence{Handle: h, Err: err}
			continue
		}
		evidence[i] = s.evidence(tag)
	}
	return evidence, nil
}

func (s *Hosts) evidence(tag adapters.Tag) adapters.Evidence {
	s.mu.Lock()
	if j, ok := s.active[tag]; ok {
		defer s.mu.Unlock()
		return j.view()
	}
	s.mu.Unlock()
	return s.recorded(tag)
}

// Watch delivers evidence as it comes.
func (s *Hosts) Watch(ctx context.Context, emit func([]adapters.Evidence)) error {
	return s.feed.Watch(ctx, emit)
}

// Resources gives each host as an environment behind one share.
func (s *Hosts) Resources(context.Context) (adapters.Resources, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	share := adapters.Share{ID: shareName, Default: true, Waiting: len(s.queue)}
	var r adapters.Resources
	for _, h := range s.hosts {
		if h.facts == nil {
			continue
		}
		f, free := h.facts, max(h.facts.Slots-h.used, 0)
		e := adapters.Environment{
			ID: h.Name, OperatingSystem: f.OS, OSVersion: f.OSVersion, CPUArchitecture: f.Arch, CPUs: f.CPUs, CPUSpeed: f.Speed, Memory: f.Memory,
			VirtualMemory: f.Virtual, Disk: coarse(f.Disk), Features: slices.Clone(h.Labels), HostNames: slices.Clone(f.Names), Nodes: 1,
		}
		share.Slots += f.Slots
		share.Running += h.used
		if h.up {
			e.Available, e.FreeCPUs, e.FreeMemory = 1, min(free, f.CPUs), coarse(f.Free)
			share.Open = !s.closed
			share.FreeSlots += free
		}
		r.Environments = append(r.Environments, e)
		share.Environments = append(share.Environments, h.Name)
	}
	r.Shares = []adapters.Share{share}
	return s.versions.of(r), nil
}

// Health tells which hosts answer.
func (s *Hosts) Health() adapters.Health {
	s.mu.Lock()
	defer s.mu.Unlock()
	health := adapters.Health{Path: pathSSH, Offered: []adapters.Path{pathSSH}, Requests: s.requests.Load(), Since: s.opened}
	up := 0
	var troubles []string
	if last := s.contact.Load(); last != 0 {
		health.Contact = time.Unix(0, last)
	}
	for _, h := range s.hosts {
		if !h.up {
			troubles = append(troubles, fmt.Sprintf("host %s is down since %s: %s", h.Name, h.since.Format(time.RFC3339), h.problem))
			continue
		}
		up++
		if health.Version == "" {
			health.Version = h.facts.OSVersion
		}
		health.Remarks = append(health.Remarks, fmt.Sprintf("host %s is up, with %d of %d slots free", h.Name, max(h.facts.Slots-h.used, 0), h.facts.Slots))
		for _, r := range h.facts.Remarks {
			health.Remarks = append(health.Remarks, "host "+h.Name+": "+r)
		}
	}
	health.Remarks = append(troubles, health.Remarks...)
	for _, h := range s.hosts {
		if up == 0 && h.since.After(health.Since) || up > 0 && h.up && h.since.After(health.Since) {
			health.Since = h.since
		}
	}
	if up == 0 {
		health.Problem = "no host of the site can be reached: " + strings.Join(troubles, "; ")
	}
	return health
}

const pathSSH adapters.Path = "ssh"

// Close lets go of the hosts: running jobs go on, waiting ones wait for the next Open.
func (s *Hosts) Close() error {
	s.mu.Lock()
	s.closed = true
	s.queue = nil
	if s.retry != nil {
		s.retry.Stop()
	}
	s.mu.Unlock()
	s.stop()
	s.wg.Wait()
	var errs []error
	for _, f := range []*os.File{s.syncer.dir, s.lock} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

func (s *Hosts) log() *slog.Logger { return s.options.Log }
