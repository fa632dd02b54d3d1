package adaptertest

import (
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/jsdl"
)

// limit is one of GFD.56 §8.1.9 to §8.1.21.
type limit struct {
	element string
	set     func(*jsdl.Limits, *big.Int)
	test    func(b *bench, with func(d *jsdl.JobDefinition, n int64) *jsdl.JobDefinition)
}

var limits = []limit{
	{"WallTimeLimit", func(l *jsdl.Limits, n *big.Int) { l.WallTime = n }, testWallTime},
	{"FileSizeLimit", func(l *jsdl.Limits, n *big.Int) { l.FileSize = n }, testFileSize},
	{"CoreDumpLimit", func(l *jsdl.Limits, n *big.Int) { l.CoreDump = n }, ulimit("c", 1, 0, 512)},
	{"DataSegmentLimit", func(l *jsdl.Limits, n *big.Int) { l.DataSegment = n }, ulimit("d", 1024, 64<<20)},
	{"LockedMemoryLimit", func(l *jsdl.Limits, n *big.Int) { l.LockedMemory = n }, testLockedMemory},
	{"MemoryLimit", func(l *jsdl.Limits, n *big.Int) { l.Memory = n }, testMemory},
	{"OpenDescriptorsLimit", func(l *jsdl.Limits, n *big.Int) { l.OpenDescriptors = n }, ulimit("n", 1, 17, 8)},
	{"PipeSizeLimit", func(l *jsdl.Limits, n *big.Int) { l.PipeSize = n }, nil},
	{"StackSizeLimit", func(l *jsdl.Limits, n *big.Int) { l.StackSize = n }, ulimit("s", 1024, 1<<20)},
	{"CPUTimeLimit", func(l *jsdl.Limits, n *big.Int) { l.CPUTime = n }, testCPUTime},
	{"ProcessCountLimit", func(l *jsdl.Limits, n *big.Int) { l.ProcessCount = n }, testProcessCount},
	{"VirtualMemoryLimit", func(l *jsdl.Limits, n *big.Int) { l.VirtualMemory = n }, ulimit("v", 1024, 256<<20)},
	{"ThreadCountLimit", func(l *jsdl.Limits, n *big.Int) { l.ThreadCount = n }, nil},
}

func limitNames() (names []string) {
	for _, l := range limits {
		names = append(names, l.element)
	}
	return names
}

// Each limit of GFD.56 is kept to the point, or refused by name.
func testLimits(b *bench) {
	for _, l := range limits {
		b.detail(l.element, func(b *bench) {
			with := func(d *jsdl.JobDefinition, n int64) *jsdl.JobDefinition {
				l.set(&posix(d).Limits, big.NewInt(n))
				return d
			}
			if !b.h.Limits[l.element] {
				b.refused(with(Command("/bin/true"), 1), l.element)
				b.Skip("skipped: the adapter does not claim this limit; it was seen to refuse it")
			}
			if l.test == nil {
				b.Fatal("the suite has no test of this limit")
			}
			l.test(b, with)
			// There is no bound on the digits of a limit (GFD.56: nonNegativeInteger).
			huge := Command("/bin/true")
			l.set(&posix(huge).Limits, new(big.Int).Exp(big.NewInt(10), big.NewInt(50), nil))
			b.exits(huge, 0)
		})
	}
}

// ulimit tests a limit that the program can read, at its first instruction.
func ulimit(letter string, unit int64, values ...int64) func(*bench, func(*jsdl.JobDefinition, int64) *jsdl.JobDefinition) {
	return func(b *bench, with func(*jsdl.JobDefinition, int64) *jsdl.JobDefinition) {
		for _, v := range values {
			want := v / unit
			if letter == "c" {
				want = v / 512
			}
			if out, _ := b.exits(with(shell("ulimit -S -"+letter), v), 0); out != fmt.Sprintf("%d\n", want) {
				b.Errorf("a limit of %d shows as %q, want %d", v, out, want)
			}
		}
	}
}

func testLockedMemory(b *bench, with func(*jsdl.JobDefinition, int64) *jsdl.JobDefinition) {
	out, _ := b.exits(with(Command("/bin/cat", "/proc/self/limits"), 65536), 0)
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); strings.HasPrefix(line, "Max locked memory") && f[3] != "65536" {
			b.Errorf("the limit shows as %q", line)
		}
	}
}

func testWallTime(b *bench, with func(*jsdl.JobDefinition, int64) *jsdl.JobDefinition) {
	n := int64(b.h.WallTime / time.Second)
	hang := b.submit(with(b.h.Define(Behaviour{Hang: true}), n))
	// Nor does a program that ignores SIGTERM get away.
	stubborn := b.submit(with(shell(`trap '' TERM; while :; do sleep 1000; done`), n))
	brief := b.submit(with(Command("/bin/true"), n+100))
	// Over a restart of the gateway, too.
	away := b.submit(with(b.h.Define(Behaviour{Hang: true}), n+1))
	b.running(away)
	b.restart()
	b.patient(b.h.WallTime, func(b *bench) {
		b.wasStopped(b.final(hang), false, "WallTimeLimit", fmt.Sprint(n))
		b.wasStopped(b.final(stubborn), false, "WallTimeLimit")
		b.wasStopped(b.final(away), false, "WallTimeLimit")
	})
	if e := b.final(brief); !exited(e, 0) {
		b.Errorf("a job that keeps its wall time gives %s", show(e))
	}
}

func testCPUTime(b *bench, with func(*jsdl.JobDefinition, int64) *jsdl.JobDefinition) {
	b.stopped(with(shell(`while :; do :; done`), 1), false, "CPUTimeLimit", "1 second")
	b.exits(with(shell(`sleep 1`), 1), 0)
}

func testFileSize(b *bench, with func(*jsdl.JobDefinition, int64) *jsdl.JobDefinition) {
	b.stopped(with(shell(`exec head -c 100000 /dev/zero > file`), 4096), false, "FileSizeLimit", "4096 bytes")
	b.exits(with(shell(`head -c 4096 /dev/zero > file`), 4096), 0)
	// The limit counts from the program's first write to standard output.
	h, e := b.run(with(shell(`exec head -c 100000 /dev/zero`), 4096))
	if out := b.output(h, adapters.Stdout, 0); e.Phase != adapters.Stopped || len(out) != 4096 {
		b.Errorf("with a limit of 4096 bytes standard output has %d (%s)", len(out), show(e))
	}
}

func testMemory(b *bench, with func(*jsdl.JobDefinition, int64) *jsdl.JobDefinition) {
	b.memory(func(d *jsdl.JobDefinition) *jsdl.JobDefinition { return with(d, 32<<20) })
	b.stopped(with(shell(`exec tail -n 1 /dev/zero`), 32<<20), false, "MemoryLimit", fmt.Sprint(32<<20))
}

func testProcessCount(b *bench, with func(*jsdl.JobDefinition, int64) *jsdl.JobDefinition) {
	many := `i=0; while [ $i -lt 30 ]; do sleep 30 & i=$((i+1)); done; echo all; kill 0`
	h, e := b.run(with(shell(many), 10))
	if out := b.output(h, adapters.Stdout, 0); strings.Contains(out, "all") {
		b.Errorf("a limit of 10 processes lets 30 be made (%s)", show(e))
	}
	b.exits(with(shell(`(true) & wait`), 10), 0)
}

// pids reads process ids that a job writes to a file, once all are there.
func (b *bench) pids(path string, n int) []int {
	b.Helper()
	var pids []int
	b.eventually(fmt.Sprintf("%d process ids in %s", n, path), func() bool {
		data, _ := os.ReadFile(path)
		pids = nil
		for f := range strings.FieldsSeq(string(data)) {
			if pid, err := strconv.Atoi(f); err == nil {
				pids = append(pids, pid)
			}
		}
		return len(pids) >= n
	}, func() string { return fmt.Sprint(pids) })
	return pids
}

// gone checks that processes end.
func (b *bench) gone(pids []int) {
	b.Helper()
	b.eventually("the processes to be gone", func() bool {
		return !slices.ContainsFunc(pids, alive)
	}, func() string { return fmt.Sprintf("some of %v alive", pids) })
}

// alive reports whether a process is there and no zombie.
func alive(pid int) bool {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

// tree is a script that leaves processes behind in every way there is: children,
// double-forked orphans, other sessions, other process groups, deaf to signals,
// with an environment of their own. Each writes its id.
const tree = `
	sleep 1000 & echo $! >> "$1"
	(sleep 1000 & echo $! >> "$1") &
	wait $!
	setsid sh -c 'echo $$ >> "$1"; (setsid sh -c "echo \$\$ >> \"\$1\"; exec sleep 1000" sh "$1" &) ; exec sleep 1000' sh "$1" &
	(trap '' TERM HUP INT; sleep 1000 & echo $! >> "$1") &
	env -i PATH="$PATH" setsid sleep 1000 & 
	echo $$ >> "$1"
`

func testTree(b *bench) {
	path := filepath.Join(b.TempDir(), "pids")
	h := b.submit(shell(tree+"\nwhile :; do sleep 1000; done", path))
	pids := b.pids(path, 6)
	for _, pid := range pids {
		if !alive(pid) {
			b.Fatalf("process %d of the tree is not there", pid)
		}
	}
	b.running(h)
	if s, ok := b.a.(adapters.Suspender); ok {
		b.suspend(h)
		if errs := s.Resume(b.Context(), []adapters.Handle{h}); errs[0] != nil {
			b.Errorf("Resume of a tree: %v", errs[0])
		}
	}
	b.cancel(h)
	b.cancelled(h)
	b.gone(pids)
}

// A job has ended when its main process has; what it left behind is ended too.
func testTreeAfterExit(b *bench) {
	path := filepath.Join(b.TempDir(), "pids")
	h := b.submit(shell(tree+"\nwhile [ $(wc -l < \"$1\") -lt 6 ]; do sleep 0.05; done; exit 4", path))
	if e := b.final(h); e.Phase != adapters.Exited || e.ExitStatus == nil || *e.ExitStatus != 4 {
		b.Errorf("a job that leaves processes behind gives %s", show(e))
	}
	b.gone(b.pids(path, 6))
}

func testCancelStubborn(b *bench) {
	path := filepath.Join(b.TempDir(), "pids")
	h := b.submit(shell(`trap '' TERM HUP INT; echo $$ > "$1"; while :; do sleep 1000; done`, path))
	pids := b.pids(path, 1)
	b.cancel(h)
	b.cancelled(h)
	b.gone(pids)
	// A program may use the time it is given.
	polite := filepath.Join(b.TempDir(), "polite")
	h = b.submit(shell(`trap 'echo bye; exit 0' TERM; echo $$ > "$1"; while :; do sleep 0.05; done`, polite))
	b.pids(polite, 1)
	b.cancel(h)
	b.cancelled(h)
	if out := b.output(h, adapters.Stdout, 0); out != "bye\n" {
		b.Errorf("a program that handles SIGTERM wrote %q", out)
	}
}

func testOutputRunning(b *bench) {
	gate := filepath.Join(b.TempDir(), "gate")
	if err := unix.Mkfifo(gate, 0o600); err != nil {
		b.Fatal(err)
	}
	if err := os.Chmod(gate, 0o666); err != nil { // jobs may have another account
		b.Fatal(err)
	}
	h := b.submit(shell(`echo first; cat "$1" > /dev/null; echo second`, gate))
	open, err := os.OpenFile(gate, os.O_WRONLY, 0) // waits for the job to come here
	if err != nil {
		b.Fatal(err)
	}
	if out := b.output(h, adapters.Stdout, 0); out != "first\n" {
		b.Errorf("the output of the running job is %q", out)
	}
	if out := b.output(h, adapters.Stdout, 3); out != "st\n" {
		b.Errorf("the output from 3 is %q", out)
	}
	_ = open.Close()
	b.final(h)
	if out := b.output(h, adapters.Stdout, 6); out != "second\n" {
		b.Errorf("the rest of the output is %q", out)
	}
}
