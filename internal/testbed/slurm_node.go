package testbed

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// KillNode does what a power cut does to a node: its daemon and all that runs there
// are gone at once, and nobody is told. The nodes of a cluster here share one machine,
// so that what runs there is found by the jobs that the controller put there.
func (s *Slurm) KillNode(tb testing.TB, node string) {
	tb.Helper()
	jobs := strings.Fields(s.MustRun(tb, "squeue", "-h", "-t", "R", "-w", node, "-o", "%A"))
	s.Kill(tb, Slurmd(node))
	children, steps := map[int][]int{}, []int{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		tb.Fatal(err)
	}
	for _, e := range entries {
		var pid, parent int
		if _, err := fmt.Sscan(e.Name(), &pid); err != nil {
			continue // no process
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // gone
		}
		_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
		var state string
		if _, err := fmt.Sscan(rest, &state, &parent); err != nil {
			tb.Fatalf("/proc/%d/stat: %v", pid, err)
		}
		children[parent] = append(children[parent], pid)
		title, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline") // "" once it is gone
		for _, id := range jobs {
			if strings.HasPrefix(string(title), "slurmstepd: ["+id+".") {
				steps = append(steps, pid)
			}
		}
	}
	for len(steps) > 0 {
		pid := steps[0]
		steps = append(steps[1:], children[pid]...)
		_ = syscall.Kill(pid, syscall.SIGKILL) // one that is gone already is what is wanted
	}
}

// UntilDown waits until the controller takes a node for down, and says when that was.
func (s *Slurm) UntilDown(tb testing.TB, node string) time.Time {
	tb.Helper()
	var last string
	if err := eventually(2*time.Minute, func() error {
		out, err := s.Run("sinfo", "-h", "-N", "-n", node, "-o", "%T")
		if last = strings.TrimSpace(out); err == nil && !strings.HasPrefix(last, "down") {
			err = fmt.Errorf("the node %s is %s", node, last)
		}
		return err
	}); err != nil {
		tb.Error(err)
	}
	return time.Now()
}
