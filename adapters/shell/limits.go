package shell

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portolan-project/portolan/jsdl"
)

// unlimited is the kernel's own number for no limit (RLIM_INFINITY).
const unlimited = math.MaxUint64

// The limits, by the elements' names.
const (
	limitWallTime        = "WallTimeLimit"
	limitCPUTime         = "CPUTimeLimit"
	limitFileSize        = "FileSizeLimit"
	limitCoreDump        = "CoreDumpLimit"
	limitDataSegment     = "DataSegmentLimit"
	limitLockedMemory    = "LockedMemoryLimit"
	limitMemory          = "MemoryLimit"
	limitOpenDescriptors = "OpenDescriptorsLimit"
	limitPipeSize        = "PipeSizeLimit"
	limitStackSize       = "StackSizeLimit"
	limitProcessCount    = "ProcessCountLimit"
	limitVirtualMemory   = "VirtualMemoryLimit"
	limitThreadCount     = "ThreadCountLimit"
)

// rlimits are those that setrlimit keeps. RLIMIT_NPROC is none of them: it counts
// all threads of the account, the gateway's own among them, and does not bind root.
var rlimits = map[string]int{
	limitCPUTime: unix.RLIMIT_CPU, limitFileSize: unix.RLIMIT_FSIZE, limitCoreDump: unix.RLIMIT_CORE,
	limitDataSegment: unix.RLIMIT_DATA, limitLockedMemory: unix.RLIMIT_MEMLOCK, limitOpenDescriptors: unix.RLIMIT_NOFILE,
	limitStackSize: unix.RLIMIT_STACK, limitVirtualMemory: unix.RLIMIT_AS,
}

// wallTime gives the wall time limit.
func (s *spec) wallTime() (time.Duration, bool) {
	n, ok := s.Limits[limitWallTime]
	if !ok || n > uint64(math.MaxInt64/time.Second) {
		return 0, false
	}
	return time.Duration(n) * time.Second, true
}

// memoryElement names what limits the job's memory.
func (s *spec) memoryElement() string {
	if s.MemoryBy != "" {
		return s.MemoryBy
	}
	return limitMemory
}

// enforce makes a job's limit of the memory that it requires, where the site wants it
// so: of the least that would do, or of the most where that alone was said.
func (p *planner) enforce(element string, r *jsdl.RangeValue) {
	if !p.options.EnforceMemory || r == nil {
		return
	}
	n, ok := r.LowestInteger(1)
	if r.Lower == nil && len(r.Exact) == 0 && len(r.Ranges) == 0 {
		n, ok = r.HighestInteger()
	}
	if !ok || n <= 0 {
		return
	}
	if !p.track.memory() {
		p.add("%s: this machine can't keep jobs to the memory that they require; leave it out", element)
		return
	}
	n = max(n, leastMemory)
	if have, limited := p.s.Limits[limitMemory]; limited && have <= uint64(n) {
		return
	}
	p.limit(limitMemory, uint64(n))
	p.s.MemoryBy = element
}

// leastMemory is what a program needs to be loaded at all, with room to spare: who
// requires less says that it does not matter.
const leastMemory = 16 << 20

func (p *planner) limit(element string, n uint64) {
	if p.s.Limits == nil {
		p.s.Limits = map[string]uint64{}
	}
	p.s.Limits[element] = n
}

// limited puts a POSIX limit (GFD.56 §8.1.9 ff.) into the plan. A number beyond what
// the machine can count is no limit that anything could reach.
func limited(value func(*jsdl.Limits) *big.Int, able func(track) bool) func(*planner, string) {
	return func(p *planner, element string) {
		n := value(&p.program.Limits)
		switch {
		case n == nil:
		case able != nil && !able(p.track):
			p.add("%s: this machine can't keep such a limit; leave it out", element)
		case n.Sign() < 0:
			p.add("%s: a limit can't be negative", element)
			p.invalid = true
		case n.IsUint64():
			p.limit(element, n.Uint64())
		default:
			p.limit(element, unlimited)
		}
	}
}

// held reports whether the program must be held at its first instruction for
// limits to be put on it.
func (s *spec) held() bool {
	for name := range s.Limits {
		if name != limitWallTime {
			return true
		}
	}
	return false
}

// restrict sets a held program's limits.
func restrict(pid int, s *spec) error {
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
		limit.Max = limit.Cur + 1
	}
	err := unix.Prlimit(pid, resource, &limit, nil)
	if err == nil || !errors.Is(err, unix.EPERM) {
		return err
	}
	// The machine itself allows less than the job's limit: that holds.
	var have unix.Rlimit
	if err := unix.Prlimit(pid, resource, nil, &have); err != nil {
		return err
	}
	limit.Cur, limit.Max = min(limit.Cur, have.Max), min(limit.Max, have.Max)
	return unix.Prlimit(pid, resource, &limit, nil)
}

// verdict says which limit ended a program, if one did.
func (s *spec) verdict(signal unix.Signal, cpu time.Duration, oom bool) string {
	over := func(name, what, unit string) string {
		n := s.Limits[name]
		if name == limitMemory {
			name = s.memoryElement()
		}
		if n == 1 && len(unit) > 1 {
			unit = unit[:len(unit)-1]
		}
		return fmt.Sprintf("%s: the program was stopped because %s more than %d %s", name, what, n, unit)
	}
	limited := func(name string) bool { n, ok := s.Limits[name]; return ok && n < unlimited }
	switch {
	case signal == unix.SIGXCPU && limited(limitCPUTime),
		signal == unix.SIGKILL && limited(limitCPUTime) && cpu >= time.Duration(min(max(s.Limits[limitCPUTime], 1), 1<<32))*time.Second:
		return over(limitCPUTime, "a process used the CPU for", "seconds")
	case signal == unix.SIGXFSZ && limited(limitFileSize):
		return over(limitFileSize, "it made a file of", "bytes")
	case signal == unix.SIGKILL && oom && limited(limitMemory):
		return over(limitMemory, "it used", "bytes of memory")
	}
	return ""
}
