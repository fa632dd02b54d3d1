package shell

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/internal/program"
)

// setting is what the gateway tells a supervisor on its command line.
type setting struct {
	Dir   string  `json:"dir"`
	Name  string  `json:"name"` // of this supervisor: its socket and its cgroups
	Track track   `json:"track"`
	Box   Sandbox `json:"box,omitzero"`
}

// gatewayDescriptor is where the gateway's end of the connection is inherited.
const gatewayDescriptor = 3

// SuperviseMain is a supervisor: a process that the adapter starts with arguments
// of its own making, and that gives the exit status of the process. It must be
// called before the program starts anything else.
func SuperviseMain(args []string) int {
	if len(args) == 1 && args[0] == hostWord {
		return hostMain()
	}
	runtime.LockOSThread() // the parent of a program is a thread: for tracing, and for the death signal
	v, err := newSupervisor(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "supervisor of jobs: "+err.Error())
		return 2
	}
	go v.listen()
	for tag := range v.jobs {
		v.run(tag)
	}
	v.tree.dispose()
	_ = os.Remove(v.socket)
	return 0
}

type supervisor struct {
	setting
	socket   string
	listener *net.UnixListener
	tree     *tree
	box      *box
	jobs     chan adapters.Tag // closed when there will be no more

	mu      sync.Mutex
	gateway *wire // nil: there is none
	current *life // nil: idle
}

// life is the job at hand.
type life struct {
	tag       adapters.Tag
	spec      *spec
	running   bool      // the program was started and is not reaped
	began     time.Time // as it is in the state
	suspended bool
	cause     cause
	grace     time.Duration // when set, instead of the spec's
	over      chan struct{} // closed when the tree is gone
}

// cause is why a supervisor ends a job.
type cause uint8

const (
	causeNone cause = iota
	causeCancel
	causeWallTime
	causeFileSize // of what several processes wrote together
	causeLease    // its lease is over
	causeRank     // one of several processes failed
)

func newSupervisor(args []string) (*supervisor, error) {
	v := &supervisor{jobs: make(chan adapters.Tag, 1)}
	if len(args) != 1 {
		return nil, errors.New("this command is for the gateway's own use")
	}
	if err := json.Unmarshal([]byte(args[0]), &v.setting); err != nil {
		return nil, fmt.Errorf("the setting can't be read: %w", err)
	}
	// A signal meant for the gateway's terminal or service must not end what is to
	// outlive it. Signals that are caught, not ignored, are back to their default in
	// the programs that are started.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGPIPE, unix.SIGUSR1, unix.SIGUSR2, unix.SIGTSTP, unix.SIGTTOU, unix.SIGTTIN)
	debug.SetGCPercent(400)
	v.box = &box{Sandbox: v.Box}
	if err := v.box.prepare(); err != nil {
		return nil, fmt.Errorf("making the sandbox: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("becoming the subreaper: %w", err)
	}
	f := os.NewFile(gatewayDescriptor, "gateway")
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("there is no gateway: %w", err)
	}
	_ = f.Close()
	v.gateway = newWire(conn)
	v.socket = filepath.Join(v.Dir, dirSockets, v.Name)
	if v.listener, err = listen(v.socket); err != nil {
		return nil, fmt.Errorf("listening for the next gateway: %w", err)
	}
	if v.tree, err = newTree(v.Track, v.Name); err != nil {
		return nil, fmt.Errorf("making the cgroup: %w", err)
	}
	return v, nil
}

// listen obeys one gateway after another. When there is none and nothing to do,
// the supervisor ends.
func (v *supervisor) listen() {
	for {
		for {
			var o order
			if err := v.gateway.receive(&o); err != nil {
				break
			}
			v.obey(o)
		}
		v.mu.Lock()
		_ = v.gateway.conn.Close()
		v.gateway = nil
		if v.current == nil {
			close(v.jobs)
			v.mu.Unlock()
			return
		}
		v.mu.Unlock()
		conn, err := v.listener.Accept()
		if err != nil { // run has closed the listener
			return
		}
		v.mu.Lock()
		if v.current == nil { // it ended meanwhile, and run has closed jobs
			v.mu.Unlock()
			_ = conn.Close()
			return
		}
		v.gateway = newWire(conn)
		_ = v.gateway.send(v.state())
		v.mu.Unlock()
	}
}

// state says what the supervisor is doing.
func (v *supervisor) state() report {
	l := v.current
	r := report{What: saidRunning, Tag: l.tag, Started: l.began}
	if l.suspended {
		r.What = saidSuspended
	}
	return r
}

// say tells the gateway, if there is one.
func (v *supervisor) say(r report) {
	if v.gateway != nil {
		_ = v.gateway.send(r) // a dead gateway shows when reading from it
	}
}

func (v *supervisor) obey(o order) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if o.Do == doRun {
		if v.current == nil {
			v.current = &life{tag: o.Tag, over: make(chan struct{})}
			v.jobs <- o.Tag
		}
		return
	}
	l := v.current
	if l == nil || l.tag != o.Tag {
		return
	}
	switch o.Do {
	case doCancel:
		v.terminate(l, causeCancel)
	case doSuspend:
		if !l.running || l.suspended || l.cause != causeNone {
			return
		}
		if err := v.tree.freeze(); err != nil {
			v.say(report{What: saidRunning, Tag: l.tag, Started: l.began, Error: "it could not be suspended: " + err.Error()})
			return
		}
		l.suspended = true
		v.say(v.state())
	case doResume:
		if !l.running || !l.suspended {
			return
		}
		if err := v.tree.thaw(); err != nil {
			v.say(report{What: saidSuspended, Tag: l.tag, Started: l.began, Error: "it could not be resumed: " + err.Error()})
			return
		}
		l.suspended = false
		v.say(v.state())
	}
}

// terminate ends the job's tree: SIGTERM, and SIGKILL after the grace. Called with
// mu held; before the start it only leaves word.
func (v *supervisor) terminate(l *life, c cause) {
	if l.cause == causeNone {
		l.cause = c
	}
	if l.cause != c || !l.running {
		return
	}
	v.tree.signal(unix.SIGTERM)
	if l.suspended {
		_ = v.tree.thaw()
		l.suspended = false
	}
	grace := l.spec.Grace
	if l.grace > 0 {
		grace = l.grace
	}
	v.killAfter(l, grace)
}

// killAfter kills what is left of a job's tree after a while.
func (v *supervisor) killAfter(l *life, patience time.Duration) {
	go func() {
		grace := time.NewTimer(patience)
		defer grace.Stop()
		select {
		case <-l.over:
			return
		case <-grace.C:
		}
		again := time.NewTicker(20 * time.Millisecond)
		defer again.Stop()
		for { // a process may fork away from a round of kills
			v.tree.kill()
			select {
			case <-l.over:
				return
			case <-again.C:
			}
		}
	}()
}

// run does one job, from its claim to its recorded end.
func (v *supervisor) run(tag adapters.Tag) {
	said := v.live(jobDir(filepath.Join(v.Dir, dirJobs, string(tag))), v.current)
	v.mu.Lock()
	defer v.mu.Unlock()
	said.Tag = tag
	v.current = nil
	v.say(said)
	if v.gateway == nil {
		close(v.jobs)
		_ = v.listener.Close()
	}
}

// live takes a job through its life and gives what is to be said of its end.
func (v *supervisor) live(d jobDir, l *life) report {
	f, err := d.claim()
	if errors.Is(err, errTaken) {
		return report{What: saidTaken}
	}
	if err != nil {
		return report{What: saidNotBegun, Error: err.Error()}
	}
	defer f.Close() // closing frees the lock; what was written is the kernel's
	s, err := specOf(f)
	if err != nil {
		s = &spec{Tag: l.tag, Grace: defaultGrace}
	}
	l.spec, l.began = s, time.Now()
	if err := begin(f, begun{
		Version: recordVersion, Supervisor: v.Name, Process: os.Getpid(), Started: l.began, Groups: v.tree.groups(s),
	}); err != nil {
		return report{What: saidNotBegun, Error: err.Error()}
	}
	var e ended
	switch {
	case err != nil:
		e = ended{Phase: adapters.Stopped, NotRun: true, Reason: "the job's description can't be read back: " + err.Error()}
	case program.LeaseOver(d.leaseOf(s)):
		e = leaseOver(d.leaseOf(s), true)
	case s.Executable == "":
		e = ended{Phase: adapters.Exited, Reason: "there was nothing to run"}
	default:
		e = v.execute(d, l)
	}
	e.Ended = time.Now()
	v.clean(d, s)
	v.record(f, e)
	return report{What: saidEnded, End: &e}
}

// record writes the end down. The room for it is there; if the file system says
// otherwise, the job has not ended for anybody until it is written.
func (v *supervisor) record(f *os.File, e ended) {
	for {
		err := end(f, e)
		if err == nil {
			return
		}
		fmt.Fprintln(os.Stderr, "supervisor of jobs: recording an end: "+err.Error())
		<-time.After(time.Second)
	}
}

// clean takes away what does not outlast the job.
func (v *supervisor) clean(d jobDir, s *spec) {
	for _, name := range s.Make {
		if name == nameTmp {
			_ = clear(d.path(name))
		}
	}
	if v.box.PrivateTmp {
		for i := range private {
			_ = clear(d.path(fmt.Sprintf("%s%d", namePrivate, i)))
		}
	}
}

// execute runs the program and gives its end.
func (v *supervisor) execute(d jobDir, l *life) ended {
	v.mu.Lock()
	cancelled := l.cause != causeNone
	v.mu.Unlock()
	if cancelled {
		return ended{Phase: adapters.Cancelled, NotRun: true}
	}
	defer v.box.leave()
	run, err := d.start(l.spec, v.tree, v.box, func() { v.cut(l, causeFileSize) })
	if err != nil {
		v.reap(nil)
		run.end()
		v.tree.reset(l.spec)
		return ended{Phase: adapters.Stopped, NotRun: run == nil || len(run.pids) == 0, Reason: err.Error()}
	}
	v.mu.Lock()
	l.running = true
	v.say(v.state())
	if l.cause != causeNone {
		v.terminate(l, l.cause)
	}
	v.mu.Unlock()
	if wall, ok := l.spec.wallTime(); ok {
		timer := time.AfterFunc(wall, func() { v.cut(l, causeWallTime) })
		defer timer.Stop()
	}
	defer v.keepLease(d, l)()
	ws, cpu := v.await(l, run.pids)
	v.mu.Lock()
	l.running = false
	why := l.cause
	frozen := l.suspended
	v.mu.Unlock()
	oom := v.tree.outOfMemory(l.spec)
	v.reap(nil)
	run.end()
	close(l.over)
	if frozen {
		_ = v.tree.thaw()
	}
	v.tree.reset(l.spec)
	if why == causeLease {
		e := leaseOver(d.leaseOf(l.spec), false)
		e.Started = l.began
		return e
	}
	e := outcome(l.spec, why, ws, cpu, oom)
	if e.ExitStatus != nil && *e.ExitStatus != 0 && e.Reason == "" && diskFull(string(d)) {
		e.Reason = "when the program ended, the disk was full that holds the site's job directory"
	}
	e.Started = l.began
	return e
}

// outcome judges the end of a program.
func outcome(s *spec, why cause, ws syscall.WaitStatus, cpu time.Duration, oom bool) ended {
	switch why {
	case causeCancel:
		return ended{Phase: adapters.Cancelled}
	case causeWallTime:
		n := s.Limits[limitWallTime]
		unit := "seconds"
		if n == 1 {
			unit = "second"
		}
		return ended{Phase: adapters.Stopped, Reason: fmt.Sprintf("%s: the program was stopped because it ran longer than %d %s", limitWallTime, n, unit)}
	case causeFileSize:
		return ended{Phase: adapters.Stopped, Reason: fmt.Sprintf("%s: the job was stopped because its processes wrote more than %d bytes", limitFileSize, s.Limits[limitFileSize])}
	case causeNone, causeRank, causeLease:
	}
	if !ws.Signaled() {
		status := ws.ExitStatus()
		e := ended{Phase: adapters.Exited, ExitStatus: &status}
		if oom {
			e.Reason = s.memoryElement() + ": a process of the job was killed because the job used more memory than that"
		}
		return e
	}
	signal := unix.Signal(ws.Signal())
	if reason := s.verdict(signal, cpu, oom); reason != "" {
		return ended{Phase: adapters.Stopped, Reason: reason}
	}
	return ended{Phase: adapters.Exited, Signal: signalName(signal)}
}

func signalName(s unix.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return fmt.Sprintf("SIG%d", int(s)) // a real-time signal
}

// cut ends a job for a reason of its own.
func (v *supervisor) cut(l *life, c cause) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.terminate(l, c)
}

// await waits for the job's processes, and gives the end that counts with the CPU
// time that it took: of the first that failed, after which the others are ended, or
// of any, as they are alike.
func (v *supervisor) await(l *life, pids []int) (end syscall.WaitStatus, cpu time.Duration) {
	failed := false
	for len(pids) > 0 {
		pid, ws, used := v.reap(pids)
		if pid == 0 {
			break
		}
		pids = slices.DeleteFunc(pids, func(p int) bool { return p == pid })
		if !failed {
			end, cpu = ws, used
		}
		if !failed && (ws.Signaled() || ws.ExitStatus() != 0) {
			failed = true
			if len(pids) > 0 {
				v.cut(l, causeRank)
			}
		}
	}
	return end, cpu
}

// reap waits for children. With some it goes on until one of these ends, and gives
// its end and the CPU time that it took; orphans that end meanwhile are let go.
// With none it kills until there is no child left.
func (v *supervisor) reap(pids []int) (int, syscall.WaitStatus, time.Duration) {
	for {
		var ws syscall.WaitStatus
		var usage syscall.Rusage
		if len(pids) == 0 {
			got, err := syscall.Wait4(-1, nil, syscall.WNOHANG|syscall.WALL, nil)
			if errors.Is(err, syscall.ECHILD) {
				return 0, 0, 0
			}
			if err == nil && got > 0 {
				continue
			}
			v.tree.kill()
		}
		got, err := syscall.Wait4(-1, &ws, syscall.WALL, &usage)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil: // there is no child: it was reaped before
			return 0, 0, 0
		case slices.Contains(pids, got) && (ws.Exited() || ws.Signaled()):
			return got, ws, time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
		}
	}
}
