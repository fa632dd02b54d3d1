package program

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Program is what is to be run.
type Program struct {
	Executable  string   `json:"executable,omitzero"` // "" runs nothing
	Arguments   []string `json:"arguments,omitzero"`
	Prefix      []string `json:"prefix,omitzero"`      // a launcher's command, before the program
	Environment []string `json:"environment,omitzero"` // NAME=VALUE
	Directory   string   `json:"directory,omitzero"`   // relative to Home/work, which is then made
	Input       string   `json:"input,omitzero"`       // "" is empty
	Output      string   `json:"output,omitzero"`      // "" is Home/stdout
	Error       string   `json:"error,omitzero"`       // "" is Home/stderr
	Make        []string `json:"make,omitzero"`        // directories below Home
	Umask       int      `json:"umask"`
	// Grace is the time between SIGTERM and SIGKILL.
	Grace time.Duration `json:"grace"`
	// Limits by element, in its unit.
	Limits map[string]uint64 `json:"limits,omitzero"`
	// Deadline is when the program is stopped at the latest.
	Deadline time.Time `json:"deadline,omitzero"`
	// NotAfter is the end of the job's lease, unless the file NameLease has a later one; zero
	// is none.
	NotAfter time.Time `json:"notAfter,omitzero"`
	// Processes is how many are started of an SPMD program; 0 is one of another.
	Processes int `json:"processes,omitzero"`
	Threads   int `json:"threads,omitzero"` // that each of them makes; 0 was not said
}

// The names below a job's home.
const (
	NameStdout  = "stdout"
	NameStderr  = "stderr"
	NameWork    = "work"
	NameTmp     = "tmp"
	NameScratch = "scratch"
	NameMounts  = "fs"
)

// End is what became of a program.
type End struct {
	Status *int   `json:"status,omitzero"`
	Signal string `json:"signal,omitzero"`
	Reason string `json:"reason,omitzero"` // with it the program was stopped, or could not be started
	NotRun bool   `json:"notRun,omitzero"`
	// LeaseEnded says that it was for the end of the job's lease.
	LeaseEnded bool `json:"leaseEnded,omitzero"`
	// Told says that the manager asked for the end (SIGTERM) before the program had ended.
	Told   bool          `json:"told,omitzero"`
	CPU    time.Duration `json:"cpu,omitzero"`
	MaxRSS int64         `json:"maxRSS,omitzero"` // bytes, of the largest process
}

// Decisive reports whether the end says all: what else may end a program so is the
// manager's to tell.
func (e *End) Decisive() bool { return e.Reason != "" || !e.Told && e.Signal != "SIGKILL" }

// Run runs a program to its end, in the job's directory home. It must be called from
// a goroutine that is locked to its thread.
func (p *Program) Run(home string) End {
	watch := listen()
	defer watch.stop()
	// Orphans of the job become this process's children, so that it finds them.
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	if until := p.LeaseEnd(home); LeaseOver(until) {
		return End{Reason: LeaseReason(until), NotRun: true, LeaseEnded: true}
	}
	if p.Executable == "" {
		return End{Status: new(int)}
	}
	began := time.Now()
	pids, err := p.start(home)
	if err != nil {
		killDescendants()
		return End{Reason: err.Error(), NotRun: len(pids) == 0}
	}
	if !p.NotAfter.IsZero() {
		lease := Lease{Read: func() time.Time { return p.LeaseEnd(home) }, Began: began, Grace: p.Grace}
		go lease.Keep(watch.over, func(within time.Duration) { watch.lease <- within })
	}
	go p.guard(watch, pids, began)
	ws, usage := await(pids)
	close(watch.over)
	// Read before the rest is killed: its end is no part of the program's.
	told, ended := watch.told.Load(), watch.limit.Load()
	killDescendants()
	e := End{Told: told, CPU: time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), MaxRSS: usage.Maxrss << 10}
	var all syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_CHILDREN, &all) == nil {
		e.CPU = max(e.CPU, time.Duration(all.Utime.Nano()+all.Stime.Nano()))
		e.MaxRSS = max(e.MaxRSS, all.Maxrss<<10)
	}
	cpu := time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	switch {
	case watch.lapsed.Load():
		e.Reason, e.LeaseEnded = LeaseReason(p.LeaseEnd(home)), true
	case ended != nil:
		e.Reason = *ended
	case p.verdict(ws, cpu) != "":
		e.Reason = p.verdict(ws, cpu)
	case ws.Signaled():
		e.Signal = SignalName(ws.Signal())
	default:
		status := ws.ExitStatus()
		e.Status = &status
	}
	return e
}

// LeaseEnd gives the end of the job's lease, the newest; zero is none.
func (p *Program) LeaseEnd(home string) time.Time {
	if p.NotAfter.IsZero() {
		return p.NotAfter
	}
	return ReadLease(filepath.Join(home, NameLease), p.NotAfter, -1)
}

// SignalName gives a signal its name, SIG and a number where it has none.
func SignalName(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return "SIG" + strconv.Itoa(int(s))
}

// ExitAs ends this process as the program ended, so that the manager's own record
// says the same; where nothing ran it gives status 125.
func (e *End) ExitAs() int {
	switch {
	case e.Status != nil:
		return *e.Status
	case e.Signal != "":
		if n := unix.SignalNum(e.Signal); n != 0 {
			reset(n)
			_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) // the program's core is the one of interest
			_ = unix.Kill(os.Getpid(), n)
			<-time.After(100 * time.Millisecond)
			return 128 + int(n)
		}
	}
	return StatusRefused
}

// StatusRefused is the status of a runner that ran nothing, or stopped what it ran.
const StatusRefused = 125

// await waits for all of the processes, and reaps orphans by the way. The end that
// counts is the first that is no success; with it the others are ended, as processes
// of one job belong together (GFD.115).
func await(pids []int) (ws syscall.WaitStatus, usage syscall.Rusage) {
	left := map[int]bool{}
	for _, p := range pids {
		left[p] = true
	}
	failed := false
	for len(left) > 0 {
		var w syscall.WaitStatus
		var u syscall.Rusage
		got, err := syscall.Wait4(-1, &w, 0, &u)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil { // it can't be: the processes are children
			return syscall.WaitStatus(uint32(syscall.SIGKILL)), usage
		}
		if !left[got] {
			continue
		}
		delete(left, got)
		if failed {
			continue
		}
		ws, usage = w, u
		if w.Signaled() || w.ExitStatus() != 0 {
			failed = true
			for other := range left {
				_ = unix.Kill(-other, unix.SIGKILL)
				_ = unix.Kill(other, unix.SIGKILL)
			}
		}
	}
	return ws, usage
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

// descendants lists the processes below one that have not ended.
func descendants(of int) []int {
	var all []int
	next := []int{of}
	for len(next) > 0 {
		pid := next[0]
		next = next[1:]
		for _, child := range children(pid) {
			all, next = append(all, child), append(next, child)
		}
	}
	return all
}

// children lists the children of a process, zombies among them.
func children(pid int) (out []int) {
	lists, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/children")
	for _, list := range lists {
		data, err := os.ReadFile(list)
		if err != nil {
			continue
		}
		n := 0
		for _, b := range data {
			switch {
			case b >= '0' && b <= '9':
				n = n*10 + int(b-'0')
			case n > 0:
				out, n = append(out, n), 0
			}
		}
	}
	return out
}
