package shell

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// tree is what a supervisor runs jobs in, one after another. Its supervisor is a
// subreaper in every way of tracking, so that whatever the job leaves behind ends
// up as a child of the supervisor.
type tree struct {
	track
	name    string
	group   string   // the cgroup of the tree; "" for trackProcess
	fd      *os.File // of group, for trackCgroup2
	limited []string // cgroups made for the limits of the present job
	killed  atomic.Bool
}

func newTree(t track, name string) (*tree, error) {
	tr := &tree{track: t, name: name}
	if t.Way == trackProcess {
		return tr, nil
	}
	tr.group = filepath.Join(t.Tree, name)
	// The parent may be gone with the last supervisor before this one.
	if err := os.MkdirAll(tr.group, 0o755); err != nil {
		return nil, err
	}
	if t.Unified {
		handDown(t.Tree)
	}
	if t.Way == trackCgroup2 {
		fd, err := os.Open(tr.group)
		if err != nil {
			return nil, err
		}
		tr.fd = fd
	}
	return tr, nil
}

// groups lists the cgroups that the job of the spec will be in, for its record.
func (t *tree) groups(s *spec) []string {
	var list []string
	if t.group != "" {
		list = append(list, t.group)
	}
	if _, ok := s.Limits[limitMemory]; ok && !t.Unified {
		list = append(list, filepath.Join(t.Memory, t.name))
	}
	if _, ok := s.Limits[limitProcessCount]; ok && !t.Unified && t.processes() {
		list = append(list, filepath.Join(t.Pids, t.name))
	}
	if s.Shares && !t.Unified && t.shares() {
		list = append(list, filepath.Join(t.CPU, t.name))
	}
	return list
}

// prepare sets the limits that cgroups keep.
func (t *tree) prepare(s *spec) error {
	set := func(parent, file string, value uint64) error {
		dir := filepath.Join(parent, t.name)
		if !t.Unified {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			t.limited = append(t.limited, dir)
		}
		text := "max"
		if value < 1<<62 {
			text = strconv.FormatUint(value, 10)
		} else if file == "memory.limit_in_bytes" {
			text = "-1"
		}
		return write(filepath.Join(dir, file), text)
	}
	if n, ok := s.Limits[limitMemory]; ok {
		file := "memory.max"
		if !t.Unified {
			file = "memory.limit_in_bytes"
		}
		if err := set(t.Memory, file, n); err != nil {
			return fmt.Errorf("%s: %w", limitMemory, err)
		}
		// Swap is no way around it, where the kernel counts swap.
		if n < 1<<62 && t.Unified {
			_ = write(filepath.Join(t.Memory, t.name, "memory.swap.max"), "0")
		} else if n < 1<<62 {
			_ = write(filepath.Join(t.Memory, t.name, "memory.memsw.limit_in_bytes"), strconv.FormatUint(n, 10))
		}
	}
	if n, ok := s.Limits[limitProcessCount]; ok && t.processes() {
		if err := set(t.Pids, "pids.max", n); err != nil {
			return fmt.Errorf("%s: %w", limitProcessCount, err)
		}
	}
	if s.Shares && t.shares() {
		file, each, most := "cpu.shares", 1024, 1<<18
		if t.Unified {
			file, each, most = "cpu.weight", 100, 10000
		}
		if err := set(t.CPU, file, uint64(min(s.Need*each, most))); err != nil {
			return fmt.Errorf("cpuShares: %w", err)
		}
	}
	return nil
}

// enter puts a held program into the cgroups that it was not born in.
func (t *tree) enter(pid int) error {
	dirs := t.limited
	if t.Way == trackCgroup1 {
		dirs = append([]string{t.group}, dirs...)
	}
	for _, dir := range dirs {
		if err := write(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(pid)); err != nil {
			return err
		}
	}
	return nil
}

// outOfMemory reports whether the kernel killed for the memory limit.
func (t *tree) outOfMemory(s *spec) bool {
	if _, ok := s.Limits[limitMemory]; !ok {
		return false
	}
	file := "memory.oom_control"
	if t.Unified {
		file = "memory.events"
	}
	data, err := os.ReadFile(filepath.Join(t.Memory, t.name, file))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "oom_kill" && f[1] != "0" {
			return true
		}
	}
	return false
}

// reset takes the limits of a job away that has wholly ended.
func (t *tree) reset(s *spec) {
	for _, dir := range t.limited {
		_ = removeGroup(dir)
	}
	t.limited = nil
	_, counted := s.Limits[limitMemory]
	counted = counted && t.Unified // of kills for want of memory, which can't be set back
	// Linux kills whatever is born into a cgroup that was once killed as a whole by
	// a parent outside of it.
	if (t.killed.Swap(false) || counted) && t.Way == trackCgroup2 {
		t.renew()
	} else if _, ok := s.Limits[limitProcessCount]; t.Unified && ok {
		_ = write(filepath.Join(t.group, "pids.max"), "max")
	}
	if s.Shares && t.Unified {
		_ = write(filepath.Join(t.group, "cpu.weight"), "100")
	}
}

// renew makes the cgroup anew.
func (t *tree) renew() {
	_ = t.fd.Close()
	if err := removeGroup(t.group); err != nil {
		fmt.Fprintln(os.Stderr, "supervisor of jobs: making the cgroup anew: "+err.Error())
	}
	_ = os.MkdirAll(t.group, 0o755)
	if fd, err := os.Open(t.group); err == nil {
		t.fd = fd
	}
}

// dispose removes the tree's cgroups.
func (t *tree) dispose() {
	if t.fd != nil {
		_ = t.fd.Close()
	}
	if t.group != "" {
		_ = removeGroup(t.group)
	}
	t.removeParents()
}

// processes lists the tree's processes.
func (t *tree) members() []int {
	if t.group != "" {
		pids, _ := groupProcesses(t.group)
		return pids
	}
	return descendants(os.Getpid())
}

// signal sends a signal to each process.
func (t *tree) signal(s unix.Signal) {
	for _, pid := range t.members() {
		_ = unix.Kill(pid, s)
	}
}

// kill kills the tree; it may have to be called again while processes fork.
func (t *tree) kill() {
	t.killed.Store(true)
	if t.group != "" {
		killGroup(t.group)
		return
	}
	t.signal(unix.SIGKILL)
}

// freeze stops every process, thaw lets them go on.
func (t *tree) freeze() error {
	switch t.Way {
	case trackCgroup2:
		return write(filepath.Join(t.group, "cgroup.freeze"), "1")
	case trackCgroup1:
		return write(filepath.Join(t.group, "freezer.state"), "FROZEN")
	}
	// Until no process is new: a stopped one can't fork.
	for seen := map[int]bool{}; ; {
		fresh := false
		for _, pid := range t.members() {
			if !seen[pid] {
				seen[pid], fresh = true, true
				_ = unix.Kill(pid, unix.SIGSTOP)
			}
		}
		if !fresh {
			return nil
		}
	}
}

func (t *tree) thaw() error {
	switch t.Way {
	case trackCgroup2:
		return write(filepath.Join(t.group, "cgroup.freeze"), "0")
	case trackCgroup1:
		return write(filepath.Join(t.group, "freezer.state"), "THAWED")
	}
	t.signal(unix.SIGCONT)
	return nil
}

// attributes are those that a program of the tree is started with.
func (t *tree) attributes(held bool) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL, Ptrace: held}
	if t.fd != nil {
		a.UseCgroupFD, a.CgroupFD = true, int(t.fd.Fd())
	}
	return a
}

// descendants lists the processes below one, whatever session they are in.
func descendants(root int) []int {
	var all []int
	for queue := []int{root}; len(queue) > 0; queue = queue[1:] {
		tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", queue[0]))
		if err != nil {
			continue
		}
		for _, task := range tasks {
			data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", queue[0], task.Name()))
			if err != nil {
				continue
			}
			children := numbers(string(data))
			all, queue = append(all, children...), append(queue, children...)
		}
	}
	return all
}

// alive reports whether a process is there and has not ended.
func alive(pid int) bool {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(data), ") ")
	return !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
}

// marked lists the processes whose environment names the tag: what is left of a
// tree whose subreaper is dead, where there are no cgroups.
func marked(tag string) []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	want := "\x00" + tagVariable + "=" + tag + "\x00"
	var list []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		data, err := readBounded("/proc/"+e.Name()+"/environ", maxAllStrings+maxString)
		if err == nil && strings.Contains("\x00"+string(data), want) {
			list = append(list, pid)
		}
	}
	return list
}
