package program

import (
	"errors"
	"fmt"
	"math"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Unlimited is the kernel's own number for no limit (RLIM_INFINITY).
const Unlimited = math.MaxUint64

// The limits that end a program, by the elements' names.
const (
	LimitWallTime = "WallTimeLimit"
	LimitCPUTime  = "CPUTimeLimit"
	LimitFileSize = "FileSizeLimit"
)

// rlimits are those that setrlimit keeps. RLIMIT_NPROC is none of them: it counts all
// of the account's threads on the node, and does not bind root.
var rlimits = map[string]int{
	LimitCPUTime: unix.RLIMIT_CPU, LimitFileSize: unix.RLIMIT_FSIZE, "CoreDumpLimit": unix.RLIMIT_CORE,
	"DataSegmentLimit": unix.RLIMIT_DATA, "LockedMemoryLimit": unix.RLIMIT_MEMLOCK, "OpenDescriptorsLimit": unix.RLIMIT_NOFILE,
	"StackSizeLimit": unix.RLIMIT_STACK, "VirtualMemoryLimit": unix.RLIMIT_AS,
}

func (p *Program) wallTime() (time.Duration, bool) {
	n, ok := p.Limits[LimitWallTime]
	if !ok || n > uint64(math.MaxInt64/time.Second) {
		return 0, false
	}
	return time.Duration(n) * time.Second, true
}

// held reports whether the program must be held at its first instruction, for limits
// to be put on it.
func (p *Program) held() bool {
	for name := range p.Limits {
		if _, ok := rlimits[name]; ok {
			return true
		}
	}
	return false
}

// hold waits for the program to be loaded, puts its limits on it and lets it go.
func (p *Program) hold(pid int) error {
	var ws syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &ws, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		break
	}
	if !ws.Stopped() {
		return errors.New("the program ended while it was loaded")
	}
	for name, value := range p.Limits {
		resource, ok := rlimits[name]
		if !ok {
			continue
		}
		if err := setLimit(pid, resource, value); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return syscall.PtraceDetach(pid)
}

func setLimit(pid, resource int, value uint64) error {
	limit := unix.Rlimit{Cur: value, Max: value}
	if resource == unix.RLIMIT_CPU && value < Unlimited {
		limit.Cur = max(value, 1) // the kernel counts seconds from one
		limit.Max = limit.Cur + 1 // told apart: first SIGXCPU, then SIGKILL
	}
	err := unix.Prlimit(pid, resource, &limit, nil)
	if err == nil || !errors.Is(err, unix.EPERM) {
		return err
	}
	// The node allows less than the job's limit: that holds.
	var have unix.Rlimit
	if err := unix.Prlimit(pid, resource, nil, &have); err != nil {
		return err
	}
	limit.Cur, limit.Max = min(limit.Cur, have.Max), min(limit.Max, have.Max)
	return unix.Prlimit(pid, resource, &limit, nil)
}

func setsID(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0
}

// over says that a limit ended the program.
func (p *Program) over(name, what, unit string) string {
	n := p.Limits[name]
	if n == 1 {
		unit = unit[:len(unit)-1]
	}
	return fmt.Sprintf("%s: the program was stopped because %s more than %d %s", name, what, n, unit)
}

// verdict says which limit ended a program, if one did.
func (p *Program) verdict(ws syscall.WaitStatus, cpu time.Duration) string {
	limited := func(name string) bool { n, ok := p.Limits[name]; return ok && n < Unlimited }
	if !ws.Signaled() {
		return ""
	}
	switch signal := ws.Signal(); {
	case signal == unix.SIGXCPU && limited(LimitCPUTime),
		signal == unix.SIGKILL && limited(LimitCPUTime) && cpu >= time.Duration(min(max(p.Limits[LimitCPUTime], 1), 1<<32))*time.Second:
		return p.over(LimitCPUTime, "a process used the CPU for", "seconds")
	case signal == unix.SIGXFSZ && limited(LimitFileSize):
		return p.over(LimitFileSize, "it made a file of", "bytes")
	}
	return ""
}
