package shell

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The ways to hold a process tree together.
const (
	trackCgroup2 = "cgroup2"
	trackCgroup1 = "cgroup1"
	trackProcess = "process"
)

// track says how trees are held together here: the way, and the directories
// below which supervisors make their cgroups. It is found by the gateway and
// told to each supervisor.
type track struct {
	Way     string `json:"way"`
	Tree    string `json:"tree,omitzero"`    // cgroup2, or the freezer of cgroup1
	Memory  string `json:"memory,omitzero"`  // where memory is limited
	Pids    string `json:"pids,omitzero"`    // where processes are counted
	CPU     string `json:"cpu,omitzero"`     // where processor time is shared
	Unified bool   `json:"unified,omitzero"` // Memory, Pids and CPU are Tree, of version 2
}

func (t track) memory() bool    { return t.Memory != "" }
func (t track) processes() bool { return t.Pids != "" }
func (t track) shares() bool    { return t.CPU != "" }

// parents are the directories that hold the supervisors' cgroups.
func (t track) parents() []string {
	var list []string
	for _, dir := range []string{t.Tree, t.Memory, t.Pids, t.CPU} {
		if dir != "" && !slices.Contains(list, dir) {
			list = append(list, dir)
		}
	}
	return list
}

// controllers gives the directory of this process in each hierarchy: by the
// controller's name for version 1, "" for version 2.
func controllers() map[string]string {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil
	}
	return placeOf(string(mounts), string(own))
}

// placeOf reads /proc/PID/mountinfo (proc_pid_mountinfo(5)) and /proc/PID/cgroup
// (cgroups(7)).
func placeOf(mountinfo, own string) map[string]string {
	paths := map[string]string{} // by controller, in its hierarchy
	for line := range strings.Lines(own) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(f) != 3 {
			continue
		}
		for c := range strings.SplitSeq(f[1], ",") {
			paths[c] = f[2]
		}
	}
	dirs := map[string]string{}
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " - ")
		f, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(f) < 5 || len(kind) < 3 {
			continue
		}
		names := []string{""}
		switch kind[0] {
		case "cgroup":
			names = strings.Split(kind[2], ",")
		case "cgroup2":
		default:
			continue
		}
		for _, name := range names {
			path, ok := paths[name]
			rel, err := filepath.Rel(f[3], path)
			if !ok || err != nil || strings.HasPrefix(rel, "..") {
				continue
			}
			dirs[name] = filepath.Join(unescape(f[4]), rel)
		}
	}
	return dirs
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				out.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

// findTrack makes the parents of the supervisors' cgroups, called name, and says
// what can be had. want restricts the way.
func findTrack(want, name string) (track, error) {
	dirs := controllers()
	t := track{Way: trackProcess}
	if want == "" || want == trackCgroup2 {
		if dir, ok := dirs[""]; ok {
			if parent := filepath.Join(dir, name); probeCgroup2(parent) {
				t.Way, t.Tree = trackCgroup2, parent
			}
		}
	}
	if t.Way == trackProcess && (want == "" || want == trackCgroup1) {
		if dir, ok := dirs["freezer"]; ok {
			if parent := filepath.Join(dir, name); probe(parent, "freezer.state") {
				t.Way, t.Tree = trackCgroup1, parent
			}
		}
	}
	if want != "" && want != t.Way {
		return track{}, errors.New("process trees can't be tracked by " + want + " here: no cgroup can be made")
	}
	if t.Way == trackCgroup2 && delegate(dirs[""], t.Tree) {
		t.Unified = true
		if probe(t.Tree, "memory.max") {
			t.Memory = t.Tree
		}
		if probe(t.Tree, "pids.max") {
			t.Pids = t.Tree
		}
		if probe(t.Tree, "cpu.weight") {
			t.CPU = t.Tree
		}
	}
	if t.Way != trackProcess && t.Memory == "" {
		if dir, ok := dirs["memory"]; ok {
			if parent := filepath.Join(dir, name); probe(parent, "memory.limit_in_bytes") {
				t.Memory, t.Unified = parent, false
			}
		}
	}
	if t.Way != trackProcess && t.Pids == "" && !t.Unified {
		if dir, ok := dirs["pids"]; ok {
			if parent := filepath.Join(dir, name); probe(parent, "pids.max") {
				t.Pids = parent
			}
		}
	}
	if t.Way != trackProcess && t.CPU == "" && !t.Unified {
		if dir, ok := dirs["cpu"]; ok {
			if parent := filepath.Join(dir, name); probe(parent, "cpu.shares") {
				t.CPU = parent
			}
		}
	}
	return t, nil
}

// delegate hands the controllers down to the supervisors' cgroups, where the
// gateway's own cgroup may (cgroup v2: one without processes of its own, or the root).
func delegate(own, parent string) bool {
	handDown(own)
	handDown(parent)
	enabled, err := os.ReadFile(filepath.Join(parent, "cgroup.subtree_control"))
	return err == nil && strings.Contains(string(enabled), "memory")
}

func handDown(dir string) {
	for _, c := range []string{"+memory", "+pids", "+cpu"} {
		_ = write(filepath.Join(dir, "cgroup.subtree_control"), c)
	}
}

// removeParents removes the directories of the supervisors' cgroups, if nobody
// needs them any more.
func (t track) removeParents() {
	for _, parent := range t.parents() {
		_ = os.Remove(parent) // which fails while there is a child
	}
}

// probe makes parent and sees whether a child of it has the file.
func probe(parent, file string) bool {
	child := filepath.Join(parent, "probe")
	for tries := 0; os.MkdirAll(child, 0o755) != nil; tries++ {
		if tries == 2 { // a supervisor that ends may have removed the parent meanwhile
			return false
		}
	}
	defer os.Remove(child) //nolint:errcheck // a stale one is found and used again
	f, err := os.OpenFile(filepath.Join(child, file), os.O_WRONLY, 0)
	if err != nil {
		return false
	}
	return f.Close() == nil
}

func probeCgroup2(parent string) bool {
	return probe(parent, "cgroup.kill") && probe(parent, "cgroup.freeze") && probe(parent, "cgroup.procs")
}

func write(path, value string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	return errors.Join(err, f.Close())
}

// removeGroup removes a cgroup whose processes have ended: the kernel may need a
// moment more than their parent to see that they are gone.
func removeGroup(dir string) error {
	for tries := 0; ; tries++ {
		err := os.Remove(dir)
		if !errors.Is(err, unix.EBUSY) || tries == 2000 {
			return err
		}
		<-time.After(time.Millisecond)
	}
}

// groupProcesses lists the processes in a cgroup of either version.
func groupProcesses(dir string) ([]int, error) {
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	return numbers(string(data)), nil
}

func numbers(s string) []int {
	var list []int
	for f := range strings.FieldsSeq(s) {
		if n, err := strconv.Atoi(f); err == nil {
			list = append(list, n)
		}
	}
	return list
}

// killGroup kills what is in a cgroup, once; it may have to be called again.
func killGroup(dir string) (empty bool) {
	pids, err := groupProcesses(dir)
	if err != nil || len(pids) == 0 {
		return true
	}
	if write(filepath.Join(dir, "cgroup.kill"), "1") == nil {
		return false
	}
	// Frozen, it can't fork away from the signals; thawed, it takes them.
	state := filepath.Join(dir, "freezer.state")
	_ = write(state, "FROZEN")
	if frozen, err := groupProcesses(dir); err == nil {
		pids = frozen
	}
	for _, pid := range pids {
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	_ = write(state, "THAWED")
	return false
}
