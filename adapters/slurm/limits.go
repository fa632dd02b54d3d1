package slurm

import (
	"errors"
	"fmt"
	"math"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// unlimited is the kernel's own number for no limit (RLIM_INFINITY).
const unlimited = math.MaxUint64

// The limits that are kept, by the elements' names.
const (
	limitWallTime = "WallTimeLimit"
	limitCPUTime  = "CPUTimeLimit"
	limitFileSize = "FileSizeLimit"
	limitMemory   = "MemoryLimit"
)

// rlimits are those that setrlimit keeps. RLIMIT_NPROC is none of them: it counts all
// of the account's threads on the node, and does not bind root.
var rlimits = map[string]int{
	limitCPUTime: unix.RLIMIT_CPU, limitFileSize: unix.RLIMIT_FSIZE, "CoreDumpLimit": unix.RLIMIT_CORE,
	"DataSegmentLimit": unix.RLIMIT_DATA, "LockedMemoryLimit": unix.RLIMIT_MEMLOCK, "OpenDescriptorsLimit": unix.RLIMIT_NOFILE,
	"StackSizeLimit": unix.RLIMIT_STACK, "VirtualMemoryLimit": unix.RLIMIT_AS,
}

// wallTime gives the wall time limit.
func (s *spec) wallTime() (time.Duration, bool) {
	n, ok := s.Limits[limitWallTime]
	if !ok || n > uint64(math.MaxInt64/time.Second) {
		return 0, false
	}
	return time.Duration(n) * time.Second, true
}

// held reports whether the program must be held at its first instruction, for limits
// to be put on it.
func (s *spec) held() bool {
	for name := range s.Limits {
		if _, ok := rlimits[name]; ok {
			return true
		}
	}
	return false
}

// restrict sets the limits of a program that is held.
func (s *spec) restrict(pid int) error {
	for name, value := range s.Limits {
		resource, ok := rlimits[name]
		if !ok {
			continue
		}
		if err := setLimit(pid, resource, value); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func setLimit(pid, resource int, value uint64) error {
	limit := unix.Rlimit{Cur: value, Max: value}
	if resource == unix.RLIMIT_CPU && value < unlimited {
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

// hold waits for the program to be loaded, puts its limits on it and lets it go.
func (s *spec) hold(pid int) error {
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
	if err := s.restrict(pid); err != nil {
		return err
	}
	return syscall.PtraceDetach(pid)
}

func setsID(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0
}

// over says that a limit ended the program.
func (s *spec) over(name, what, unit string) string {
	n := s.Limits[name]
	if n == 1 {
		unit = unit[:len(unit)-1]
	}
	return fmt.Sprintf("%s: the program was stopped because %s more than %d %s", name, what, n, unit)
}

// verdict says which limit ended a program, if one did.
func (s *spec) verdict(ws syscall.WaitStatus, cpu time.Duration, oom bool) string {
	limited := func(name string) bool { n, ok := s.Limits[name]; return ok && n < unlimited }
	var signal unix.Signal
	if ws.Signaled() {
		signal = ws.Signal()
	}
	switch {
	case signal == unix.SIGXCPU && limited(limitCPUTime),
		signal == unix.SIGKILL && limited(limitCPUTime) && cpu >= time.Duration(min(max(s.Limits[limitCPUTime], 1), 1<<32))*time.Second:
		return s.over(limitCPUTime, "a process used the CPU for", "seconds")
	case signal == unix.SIGXFSZ && limited(limitFileSize):
		return s.over(limitFileSize, "it made a file of", "bytes")
	case oom && (ws.Signaled() || ws.ExitStatus() != 0):
		return s.overMemory()
	}
	return ""
}

// overMemory says that the job used more memory than it may.
func (s *spec) overMemory() string {
	if n, ok := s.Limits[limitMemory]; ok && s.MemoryFrom != "" {
		return fmt.Sprintf("%s: the program was stopped because it used more than %d bytes of memory", s.MemoryFrom, n)
	}
	return "MemoryLimit: the program was stopped because it used more memory than the site gives a job that does not ask for it; ask for more with IndividualPhysicalMemory"
}
