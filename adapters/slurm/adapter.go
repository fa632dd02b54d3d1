package slurm

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// Adapter is the Slurm adapter. It holds jobs and it pushes, and it reserves where Slurm lets it.
type Adapter struct {
	site
	log       *slog.Logger
	lock      *os.File // of the site's directory
	instance  string   // tells the jobs of this gateway from those of others
	budget    *budget
	took      atomic.Int64  // nanoseconds that the last look at the jobs took
	looking   atomic.Bool   // Slurm is asked for the jobs, and has answered since there are any
	ways      []manager     // the best first
	reserver  *commands     // makes reservations; nil: nobody does
	reserving chan struct{} // held while something is done to reservations
	feed      adapters.Feed
	loops     sync.WaitGroup
	stop      context.CancelFunc
	poke      chan struct{}     // look soon
	leasing   sync.Mutex        // held while ends of leases are written
	cache     flight[*siteInfo] // of nodes and partitions
	queue     flight[[]record]  // of jobs

	mu      sync.Mutex
	closed  bool
	way     manager // in use; nil before any answered
	facts   *facts
	health  adapters.Health
	reasons map[adapters.Path]string // why a way is not used
	runner  string                   // on the nodes
	members map[adapters.Tag]*member
	batches map[string]*batch
	live    int       // members that have not ended
	unknown int       // of these, that run while Slurm does not know them
	synced  time.Time // when Slurm was asked last what it knows
	highest int64     // the highest number that Slurm gave since we look
	forgot  time.Time // when it was last seen that a controller had forgotten jobs
	placing map[adapters.Tag]chan struct{}
	strays  map[int64]time.Time // jobs that nobody wants any more, and when they were told to end
	version struct{ static, dynamic uint64 }
	known   adapters.Resources // as last told
}

// suspending is the adapter where Slurm lets it suspend jobs.
type suspending struct{ *Adapter }

// member is one placement.
type member struct {
	tag      adapters.Tag
	batch    *batch
	index    int
	evidence adapters.Evidence
	begun    *begun    // once the runner said so
	ending   time.Time // since when Slurm says that it ended, and the runner nothing
	missing  time.Time // since when Slurm does not know it
	unheard  time.Time // since when Slurm has it as running, and its runner has not shown itself
	cancel   bool      // we want it to end
	held     bool      // kept from a second start by us
	sign     time.Time // the last sign of life of the runner that was seen, by its clock
	heard    time.Time // when that was seen first
	slurm    string    // the state that Slurm gave last
	notAfter time.Time // the end of its lease when it was placed; zero: none
	lease    *time.Timer
}

// batch is what was submitted at once.
type batch struct {
	name    string
	record  batchRecord
	tags    []adapters.Tag
	left    int       // members that are not forgotten
	sending bool      // the submission is under way
	doubt   time.Time // when the answer to it was lost
	floor   int64     // the highest number that Slurm had given when it was sent
	reused  bool      // its number, or that of a member, may be of a job that Slurm has forgotten
}

func (b *batch) settled() bool { return b.record.Job != 0 }

func (m *member) id() jobID {
	id := jobID{Job: m.batch.record.Job, Task: -1}
	if m.batch.record.Array {
		id.Task = m.index
	}
	return id
}

const handlePrefix = "slurm/1 "

func handleOf(tag adapters.Tag) adapters.Handle { return adapters.Handle(handlePrefix + string(tag)) }

func tagOf(h adapters.Handle) (adapters.Tag, error) {
	s, ok := strings.CutPrefix(string(h), handlePrefix)
	tag := adapters.Tag(s)
	if !ok || tag.Validate() != nil {
		return "", fail.Errorf("slurm", fail.Invalid, "", "the handle is not of the Slurm adapter")
	}
	return tag, nil
}

// Open makes the adapter of a site. That Slurm does not answer is no error: Health
// says it, and it is asked again.
func Open(c adapters.Config) (adapters.Adapter, error) {
	s := new(Settings)
	if err := c.Settings.Decode(s); err != nil {
		return nil, err
	}
	if err := s.ensureDefaults(c.Dir); err != nil {
		return nil, err
	}
	a := &Adapter{
		site: site{name: c.Site, settings: s, spool: spool(s.Spool), own: whoami(), argMax: argMax()},
		log:  c.Log, poke: make(chan struct{}, 1), members: map[adapters.Tag]*member{}, batches: map[string]*batch{},
		reserving: make(chan struct{}, 1), placing: map[adapters.Tag]chan struct{}{}, strays: map[int64]time.Time{}, reasons: map[adapters.Path]string{},
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	a.root = a.own.uid == 0
	a.health.Since = time.Now()
	a.budget = newBudget(s.RequestsPerSecond)
	cmds := &commands{bin: s.Bin, conf: s.Conf, budget: a.budget}
	a.srun = cmds.find("srun")
	if s.Path != "commands" && s.Slurmrestd != "" {
		rest, err := newRest(s, a.budget, cmds, a.own.user)
		if err != nil {
			return nil, err
		}
		a.ways = append(a.ways, rest)
	}
	if s.Path != "slurmrestd" {
		a.ways = append(a.ways, cmds)
	}
	if err := a.take(c.Dir); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	a.stop = stop
	probing, done := context.WithTimeout(ctx, 5*time.Second)
	_ = a.reach(probing) // Health tells
	if a.mayReserve(probing, cmds) {
		a.reserver = cmds
	}
	done()
	a.loops.Go(func() { a.look(ctx) })
	a.loops.Go(func() { a.listen(ctx) })
	may := a.root
	if a.facts != nil {
		may = mayActForOthers(a.facts, a.own.user)
	}
	if s.Suspend != nil {
		may = *s.Suspend
	}
	if may && cmds.there() {
		return suspending{a}, nil
	}
	return a, nil
}

// find gives the path of one of Slurm's commands.
func (c *commands) find(name string) string {
	if c.bin != "" {
		return filepath.Join(c.bin, name)
	}
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	return "/usr/bin/" + name
}

// there reports whether Slurm's commands are on this machine.
func (c *commands) there() bool {
	_, err := os.Stat(c.find("scontrol"))
	return err == nil
}

// take makes the site's directories this gateway's own, and reads what is there.
func (a *Adapter) take(dir string) error {
	cant := func(path string, err error) error {
		return fail.Errorf("slurm.Open", fail.Unavailable, path, "the directory %s can't be used: %s", path, why(err)).Because(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return cant(dir, err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return cant(dir, err)
	}
	a.lock = lock
	// A process that a killed gateway was just about to start may have it for a moment more.
	for tries := 0; ; tries++ {
		if err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			break
		}
		if tries == 200 {
			_ = lock.Close()
			return fail.Errorf("slurm.Open", fail.Conflict, dir, "another gateway uses the directory %s; give each site of each gateway one of its own", dir)
		}
		<-time.After(10 * time.Millisecond)
	}
	err = os.MkdirAll(filepath.Dir(string(a.spool)), 0o711)
	if err == nil {
		err = a.spool.make(a.root)
	}
	if err == nil {
		err = a.identify()
	}
	if err == nil {
		err = a.recall()
	}
	if err != nil {
		_ = lock.Close()
		return cant(string(a.spool), err)
	}
	return nil
}

// identify gives the site's jobs at Slurm a name that no other gateway's have.
func (a *Adapter) identify() error {
	path := a.spool.path("instance")
	data, err := readBounded(path, 64)
	if errors.Is(err, fs.ErrNotExist) {
		var b [4]byte
		_, _ = rand.Read(b[:]) // it never fails
		a.instance = hex.EncodeToString(b[:])
		return writeFile(path, []byte(a.instance), 0o600)
	}
	a.instance = string(data)
	if err == nil && !validBatch(a.instance) {
		err = fmt.Errorf("%s can't be understood", path)
	}
	return err
}

// prefix begins the names of all jobs of this site at Slurm.
func (a *Adapter) prefix() string { return "portolan." + a.instance + "." }

// newBatch names a batch, by its first member and so that no two are alike.
func (a *Adapter) newBatch(first adapters.Tag) string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // it never fails
	return a.prefix() + string(first) + "." + hex.EncodeToString(b[:])
}

// recall reads the batches of before.
func (a *Adapter) recall() error {
	entries, err := os.ReadDir(a.spool.path(dirBatches))
	if err != nil {
		return err
	}
	belong := map[adapters.Tag]bool{}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".job")
		if !ok || !validBatch(name) {
			continue
		}
		r, err := a.spool.readBatch(name)
		if err != nil {
			return err
		}
		tags, err := a.spool.members(name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		b := &batch{name: name, tags: tags}
		if r != nil {
			b.record = *r
		}
		if !b.settled() {
			b.doubt = b.record.Began
		}
		for i, tag := range tags {
			if m := a.remember(b, i, tag); m != nil {
				belong[tag] = true
			}
		}
		if b.left == 0 {
			if err := a.spool.removeBatch(name); err != nil {
				return err
			}
			continue
		}
		a.batches[name] = b
		a.highest = max(a.highest, b.record.Job+int64(len(b.tags))-1)
	}
	// What was being placed when a gateway died, and was not told to Slurm.
	jobs, err := os.ReadDir(a.spool.path(dirJobs))
	if err != nil {
		return err
	}
	for _, e := range jobs {
		if tag := adapters.Tag(e.Name()); !belong[tag] && tag.Validate() == nil {
			if err := a.spool.discard(string(a.spool.job(tag))); err != nil {
				a.log.Warn("a job of before leaves files behind", "tag", tag, "error", err)
			}
		}
	}
	for _, e := range entries { // members of a batch that was not begun
		if name, ok := strings.CutSuffix(e.Name(), ".members"); ok && validBatch(name) && a.batches[name] == nil {
			if err := a.spool.removeBatch(name); err != nil {
				return err
			}
		}
	}
	trash, _ := os.ReadDir(a.spool.path(dirTrash))
	for _, e := range trash {
		_ = clearAway(a.spool.path(dirTrash, e.Name()))
	}
	return nil
}

// remember reads one member of a batch; nil if it is forgotten, or has gone on to
// another batch.
func (a *Adapter) remember(b *batch, index int, tag adapters.Tag) *member {
	dir := a.spool.job(tag)
	if _, err := os.Lstat(string(dir)); err != nil {
		return nil
	}
	if s, err := a.readSpec(tag); err != nil || s.Batch != b.name {
		return nil
	}
	m := &member{tag: tag, batch: b, index: index}
	m.evidence = adapters.Evidence{Tag: tag, Handle: handleOf(tag), Phase: adapters.Queued}
	b.left++
	a.members[tag] = m
	if e, err := dir.final(); err == nil && e != nil {
		m.evidence = *e
		return m
	}
	if _, err := os.Lstat(dir.path(nameCancel)); err == nil {
		m.cancel = true
	}
	a.live++
	if s, err := a.readSpec(tag); err == nil {
		m.notAfter = s.NotAfter
		a.watchLease(m, m.notAfter)
	}
	a.observe(m)
	return m
}

func (a *Adapter) readSpec(tag adapters.Tag) (*spec, error) {
	data, err := readBounded(a.spool.job(tag).path(nameJob), maxSpec)
	if err != nil {
		return nil, err
	}
	return parseSpec(data)
}

// Properties gives what the adapter claims.
func (a *Adapter) Properties() adapters.Properties {
	a.mu.Lock()
	defer a.mu.Unlock()
	return adapters.Properties{
		Type: Type, ManagerURI: "http://portolan-project.org/ns/2026/manager/slurm", Version: a.health.Version,
		Hold: true, Push: true, Lease: true, Reserve: a.reserver != nil, Bulk: a.settings.Fold != 1, Requests: a.settings.RequestsPerSecond,
	}
}

// Properties gives what the adapter claims.
func (s suspending) Properties() adapters.Properties {
	p := s.Adapter.Properties()
	p.Suspend = true
	return p
}

// Check says what stands against a job here.
func (a *Adapter) Check(d *jsdl.JobDefinition) error { return a.CheckAs(d, "") }

// CheckAs implements adapters.AccountChecker.
func (a *Adapter) CheckAs(d *jsdl.JobDefinition, account string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	info, f, err := a.ready(ctx)
	if err != nil {
		return err
	}
	p, err := a.make(info, f, time.Now(), d, "check", account)
	if err != nil {
		return err
	}
	_, err = a.taker(&p.request)
	return err
}

// taker gives the way that can express a request: the one in use, or else the commands.
func (a *Adapter) taker(r *request) (manager, error) {
	way, err := a.manager()
	if err != nil {
		return nil, err
	}
	element := way.takes(r)
	if element == "" {
		return way, nil
	}
	if x, ok := way.(*rest); ok && x.cmds != nil {
		return x.cmds, nil
	}
	return nil, fail.Errorf("slurm.Check", fail.Unsupported, "", "%s: %s can't express it, and Slurm's commands are not on the gateway's machine", element, way.path())
}

// ready gives what jobs are planned with.
func (a *Adapter) ready(ctx context.Context) (*siteInfo, *facts, error) {
	info, err := a.info(ctx, time.Hour)
	if err != nil {
		return nil, nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.facts == nil {
		return nil, nil, fail.Errorf("slurm", fail.Unavailable, "", "Slurm has not answered yet")
	}
	return info, a.facts, nil
}

// Watch delivers evidence as it comes.
func (a *Adapter) Watch(ctx context.Context, emit func([]adapters.Evidence)) error {
	return a.feed.Watch(ctx, emit)
}

// Close lets go of Slurm; jobs go on.
func (a *Adapter) Close() error {
	a.mu.Lock()
	a.closed = true
	a.mu.Unlock()
	a.stop()
	a.loops.Wait()
	for _, w := range a.ways {
		if r, ok := w.(*rest); ok {
			r.close()
		}
	}
	return a.lock.Close()
}
