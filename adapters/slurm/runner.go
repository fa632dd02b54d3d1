package slurm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portolan-project/portolan/adapters/internal/program"
)

// RunWord is the program's first argument where it runs a job: its main calls RunMain
// with what follows it.
const RunWord = "slurm-run"

// RunMain is the runner: the process that a batch script becomes on a node. It runs
// the program of one job, keeps its limits and records its end. It must be called
// before the program starts anything else, and gives the exit status of the process.
func RunMain(args []string) int {
	runtime.LockOSThread() // the parent of a program is a thread: for tracing
	r, err := newRunner(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "portolan: "+err.Error())
		return exitRefused
	}
	return r.run()
}

// exitRefused is the runner's own exit status when it runs nothing.
const exitRefused = 125

type runner struct {
	spool   spool
	dir     jobDir
	spec    *spec
	began   time.Time
	event   string // the name of the job's events
	told    atomic.Bool
	program atomic.Int64 // its process group; 0 before it is started and once it has ended
}

// newRunner claims a job. The arguments are the spool, the batch and the member.
func newRunner(args []string) (*runner, error) {
	if len(args) != 3 {
		return nil, errors.New("the arguments are a spool, a batch and a member")
	}
	r := &runner{spool: spool(args[0])}
	member, err := strconv.Atoi(args[2])
	if err != nil {
		return nil, fmt.Errorf("there is no member %q", args[2])
	}
	tag, err := r.spool.member(args[1], member)
	if err != nil {
		return nil, fmt.Errorf("member %d of batch %s is not to be found: the gateway has withdrawn or forgotten it: %w", member, args[1], err)
	}
	r.dir = r.spool.job(tag)
	data, err := readBounded(r.dir.path(nameJob), maxSpec)
	if err == nil {
		r.spec, err = parseSpec(data)
	}
	if err != nil {
		return nil, fmt.Errorf("job %s can't be read: the gateway has withdrawn or forgotten it, or %s is not shared with this node: %w", tag, args[0], err)
	}
	if r.spec.Batch != args[1] {
		return nil, fmt.Errorf("job %s belongs to another batch", tag)
	}
	r.event = string(tag)
	return r, r.claim()
}

// claim begins the job, once and for all. Only a job that may be run again is, and
// only if the manager started this very job again.
func (r *runner) claim() error {
	env := environment()
	restarts, _ := strconv.Atoi(env["SLURM_RESTART_COUNT"])
	host := env["SLURMD_NODENAME"]
	if host == "" {
		host, _ = os.Hostname()
	}
	r.began = time.Now()
	job := env["SLURM_ARRAY_JOB_ID"]
	if job == "" {
		job = env["SLURM_JOB_ID"]
	}
	raw, _ := strconv.ParseInt(env["SLURM_JOB_ID"], 10, 64)
	b := begun{Version: specVersion, Job: job, Raw: raw, Restarts: restarts, Host: host, Started: r.began}
	data, err := json.Marshal(b)
	if err != nil {
		return err
	}
	err = create(r.dir.path(nameStart), data)
	if errors.Is(err, fs.ErrExist) {
		before, err := r.dir.begun()
		if err != nil || before == nil || before.Withdrawn || !r.spec.Rerunnable || before.Job != b.Job || restarts <= before.Restarts {
			return fmt.Errorf("job %s was begun before, or withdrawn, and is not to be run again", r.spec.Tag)
		}
		// A node that still runs the job refuses a second start itself; another does not
		// know, and a controller that had forgotten the first start may choose that one.
		if e, err := r.dir.ended(); before.Host != b.Host && (err != nil || e == nil) && r.dir.signs((showEvery+1)*heedEvery) {
			return fmt.Errorf("job %s still runs on %s", r.spec.Tag, before.Host)
		}
		if err := os.Remove(r.dir.path(nameEnd)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return writeFile(r.dir.path(nameStart), data, 0o600)
	}
	return err
}

// signs reports whether the runner that began the job shows within that time that it
// is there.
func (d jobDir) signs(within time.Duration) bool {
	_, first, err := d.lastSign()
	for end := time.Now().Add(within); err == nil && time.Now().Before(end); time.Sleep(time.Second) {
		_, sign, err := d.lastSign()
		if err == nil && !sign.Equal(first) {
			return true
		}
	}
	return err != nil
}

// create makes a file that must not be there yet, whole or not at all: a link fails
// where a name is taken, on NFS too.
func create(path string, data []byte) error {
	dir, name := filepath.Split(path)
	f, err := os.CreateTemp(dir, "."+name+"-")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Link(f.Name(), path)
	}
	_ = os.Remove(f.Name())
	return err
}

// begun reads the file start; nil where there is none.
func (d jobDir) begun() (*begun, error) {
	data, err := readBounded(d.path(nameStart), maxRecord)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, err
	}
	b := new(begun)
	if err := json.Unmarshal(data, b); err != nil || b.Version != specVersion {
		return nil, fmt.Errorf("%s can't be understood", d.path(nameStart))
	}
	return b, nil
}

// ended reads the file end; nil where there is none.
func (d jobDir) ended() (*ended, error) {
	data, err := readBounded(d.path(nameEnd), maxRecord)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, err
	}
	e := new(ended)
	if err := json.Unmarshal(data, e); err != nil || e.Version != specVersion {
		return nil, fmt.Errorf("%s can't be understood", d.path(nameEnd))
	}
	return e, nil
}

// toldSoon waits for the manager's SIGTERM, which goes to all processes of the job, and
// reaches the program before this one, or is heard here after the program's end.
func (r *runner) toldSoon() bool {
	for end := time.Now().Add(500 * time.Millisecond); !r.told.Load() && time.Now().Before(end); {
		time.Sleep(5 * time.Millisecond)
	}
	return r.told.Load()
}

// environment gives this process's own variables.
func environment() map[string]string {
	env := map[string]string{}
	for _, v := range syscall.Environ() {
		name, value, _ := strings.Cut(v, "=")
		env[name] = value
	}
	return env
}

// run runs the program to its end.
func (r *runner) run() int {
	// The manager ends a job with SIGTERM to all of its processes: this one stays to see
	// the end of the program.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGXCPU)
	go func() {
		for s := range signals {
			if s == syscall.SIGTERM {
				r.told.Store(true)
			}
			// With cgroups Slurm tells only its own child, which is this process.
			if pid := int(r.program.Load()); pid > 0 {
				_ = unix.Kill(-pid, s.(syscall.Signal)) //nolint:forcetypeassert // what else
			}
		}
	}()
	// Orphans of the job become this process's children, so that both the manager, where
	// it has no cgroups, and this process find them.
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	if until := r.dir.leaseOf(r.spec.NotAfter); program.LeaseOver(until) {
		return r.record(ended{Reason: program.LeaseReason(until), NotRun: true, LeaseEnded: true})
	}
	r.spool.tell(r.event, eventStart)
	if r.spec.Executable == "" {
		return r.record(ended{Status: new(int)})
	}
	before := oomKills()
	pid, err := r.start()
	if err != nil {
		killDescendants()
		return r.record(ended{Reason: err.Error(), NotRun: true})
	}
	r.program.Store(int64(pid))
	if r.told.Load() { // while it was being started
		_ = unix.Kill(-pid, unix.SIGTERM)
	}
	over, wall := make(chan struct{}), make(chan struct{})
	if limit, ok := r.spec.wallTime(); ok {
		go func() {
			select {
			case <-over:
			case <-time.After(max(limit-time.Since(r.began), 0)):
				close(wall)
				r.end(pid, over, r.spec.Grace)
			}
		}()
	}
	lapsed := make(chan struct{})
	if !r.spec.NotAfter.IsZero() {
		lease := program.Lease{Read: func() time.Time { return r.dir.leaseOf(r.spec.NotAfter) }, Began: r.began, Grace: r.spec.Grace}
		go lease.Keep(over, func(within time.Duration) {
			close(lapsed)
			r.end(pid, over, within)
		})
	}
	go r.heed(pid, over)
	ws, usage := await(pid)
	r.program.Store(0)
	close(over)
	killDescendants()
	own := exitOf(ws)
	e := ended{Told: r.told.Load() || own.terminated() && r.toldSoon()}
	e.CPU = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	e.MaxRSS = usage.Maxrss << 10
	select {
	case <-lapsed:
		e.Reason, e.LeaseEnded = program.LeaseReason(r.dir.leaseOf(r.spec.NotAfter)), true
		return r.record(e)
	case <-wall:
		e.Reason = r.spec.over(limitWallTime, "it ran for", "seconds")
		return r.record(e)
	default:
	}
	oom := oomKills() > before
	if reason := r.spec.verdict(ws, e.CPU, oom); reason != "" {
		e.Reason = reason
		return r.record(e)
	}
	e.Status, e.Signal = own.Status, own.Signal
	return r.record(e)
}

// exitOf says how a program ended, by its own account.
func exitOf(ws syscall.WaitStatus) (e ended) {
	if !ws.Signaled() {
		status := ws.ExitStatus()
		e.Status = &status
	} else if e.Signal = unix.SignalName(ws.Signal()); e.Signal == "" {
		e.Signal = fmt.Sprintf("SIG%d", int(ws.Signal()))
	}
	return e
}

// await waits for the program, reaping orphans by the way.
func await(pid int) (syscall.WaitStatus, syscall.Rusage) {
	for {
		var ws syscall.WaitStatus
		var usage syscall.Rusage
		got, err := syscall.Wait4(-1, &ws, 0, &usage)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return syscall.WaitStatus(uint32(syscall.SIGKILL)), usage // it can't be: the program is a child
		case got == pid:
			return ws, usage
		}
	}
}

// end ends the program, politely at first.
func (r *runner) end(pid int, over <-chan struct{}, grace time.Duration) {
	_ = unix.Kill(-pid, unix.SIGTERM)
	_ = unix.Kill(-pid, unix.SIGCONT)
	select {
	case <-over:
	case <-time.After(grace):
		_ = unix.Kill(-pid, unix.SIGKILL)
	}
}

// How often the runner looks whether the gateway wants the job to end, and how often it
// shows that it is there. Both matter when Slurm has lost a job that runs, as a
// controller does that is killed shortly after it started one: which is why the sign is
// given more often while the job is young.
const (
	heedEvery = 5 * time.Second
	showEvery = 12 // times as seldom
	showYoung = 3  // the same, of a job that is young
	young     = 2 * time.Minute
)

// heed looks after what the gateway says in the job's directory.
func (r *runner) heed(pid int, over <-chan struct{}) {
	tick := time.NewTicker(heedEvery)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-over:
			return
		case <-tick.C:
		}
		if n%showEvery == 0 || n%showYoung == 0 && time.Since(r.began) < young {
			now := time.Now()
			_ = os.Chtimes(r.dir.path(nameStart), now, now)
		}
		if _, err := os.Stat(r.dir.path(nameCancel)); err == nil {
			r.told.Store(true)
			r.end(pid, over, r.spec.Grace)
			return
		}
	}
}

// killDescendants ends what the program left behind, until nothing is.
func killDescendants() {
	for range 100 {
		left := descendants(os.Getpid())
		if len(left) == 0 {
			return
		}
		for _, pid := range left {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		for {
			got, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if got <= 0 || err != nil && !errors.Is(err, syscall.EINTR) {
				break
			}
		}
		<-time.After(2 * time.Millisecond)
	}
}

// descendants lists the processes below one that are no zombies.
func descendants(of int) []int {
	children := map[int][]int{}
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + p.Name() + "/stat")
		if err != nil {
			continue
		}
		i := strings.LastIndex(string(stat), ") ")
		if i < 0 {
			continue
		}
		f := strings.Fields(string(stat)[i+2:])
		if len(f) < 2 || f[0] == "X" {
			continue
		}
		parent, err := strconv.Atoi(f[1])
		if err != nil {
			continue
		}
		if f[0] == "Z" && parent != of { // its children are another's already
			continue
		}
		children[parent] = append(children[parent], pid)
	}
	var all []int
	next := []int{of}
	for len(next) > 0 {
		pid := next[0]
		next = append(next[1:], children[pid]...)
		all = append(all, children[pid]...)
	}
	return all
}

// record writes the end, tells of it, and gives the exit status that the manager is to
// see.
func (r *runner) record(e ended) int {
	e.Version, e.Reason = specVersion, clip(e.Reason)
	e.Started, e.Ended = r.began, time.Now()
	data, err := json.Marshal(e)
	if err == nil {
		err = writeFile(r.dir.path(nameEnd), data, 0o600)
	}
	if err != nil {
		// The manager's own record is then all that is left.
		fmt.Fprintf(os.Stderr, "portolan: the end of job %s could not be recorded: %v\n", r.spec.Tag, err)
	}
	r.spool.tell(r.event, eventEnd)
	switch {
	case e.Status != nil:
		return *e.Status
	case e.Signal != "":
		if n := unix.SignalNum(e.Signal); n != 0 {
			signal.Reset(n)
			_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) // the program's core is the one of interest
			_ = unix.Kill(os.Getpid(), n)
			<-time.After(100 * time.Millisecond)
			return 128 + int(n)
		}
	}
	return exitRefused
}

// oomKills counts the processes of this job that the kernel killed for memory; 0 where
// that can't be told.
func oomKills() int {
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return 0
	}
	n := 0
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		path := filepath.Join("/sys/fs/cgroup", f[2], "memory.events")
		if f[1] == "memory" {
			path = filepath.Join("/sys/fs/cgroup/memory", f[2], "memory.oom_control")
		} else if f[1] != "" {
			continue
		}
		events, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for event := range strings.Lines(string(events)) {
			if k, ok := strings.CutPrefix(strings.TrimSpace(event), "oom_kill "); ok {
				c, _ := strconv.Atoi(k)
				n += c
			}
		}
	}
	return n
}
