package slurm_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/adaptertest"
	"github.com/portolan-project/portolan/adapters/slurm"
	"github.com/portolan-project/portolan/internal/testbed"
)

// cluster is one for several tests.
func cluster(t testing.TB) *testbed.Slurm {
	t.Helper()
	root := os.Getuid() == 0
	return testbed.StartSlurm(t, testbed.SlurmOptions{
		Nodes: 2, DBD: true, REST: root, Cgroup: root && testbed.MemoryController(),
		Conf: []string{"PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=01:00:00"},
	})
}

func open(t testing.TB, s *testbed.Slurm, dir, settings string) adapters.Adapter {
	t.Helper()
	parsed, err := adapters.ParseSettings(fmt.Sprintf("conf: %s\n%s", s.Conf(), settings))
	if err != nil {
		t.Fatal(err)
	}
	a, err := slurm.Open(adapters.Config{Site: "slurm", Dir: dir, Settings: parsed})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// shared makes a directory that jobs of any account reach.
func shared(t testing.TB, s *testbed.Slurm, mode os.FileMode) string {
	t.Helper()
	dir, err := os.MkdirTemp(s.Dir, "t")
	if err == nil {
		err = os.Chmod(dir, mode)
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func harness(s *testbed.Slurm, settings string) adaptertest.Harness {
	h := adaptertest.Harness{
		Site: func(t testing.TB) any { return shared(t, s, 0o711) },
		Dir:  func(t testing.TB) string { return shared(t, s, 0o777) },
		Open: func(t testing.TB, site any) adapters.Adapter {
			return open(t, s, filepath.Join(site.(string), "data"), "spool: "+filepath.Join(site.(string), "spool")+"\n"+settings)
		},
		Programs: true, Short: true,
		Limits: map[string]bool{
			"WallTimeLimit": true, "FileSizeLimit": true, "CoreDumpLimit": true, "DataSegmentLimit": true, "LockedMemoryLimit": true,
			"MemoryLimit": true, "OpenDescriptorsLimit": true, "StackSizeLimit": true, "CPUTimeLimit": true, "VirtualMemoryLimit": true,
			"IndividualPhysicalMemory": true,
		},
		Umask: 0o022, Patience: 90 * time.Second, Pace: 3 * time.Second, WallTime: 2 * time.Second, Poll: 50 * time.Millisecond,
		Manager: adaptertest.Manager{
			Stop:  func(t testing.TB, _ any) { s.Stop(t, testbed.Slurmctld) },
			Start: func(t testing.TB, _ any) { s.Start(t, testbed.Slurmctld) },
			Restart: func(t testing.TB, _ any) {
				s.Kill(t, testbed.Slurmctld)
				s.Start(t, testbed.Slurmctld)
			},
			// A controller that has lost its list of jobs counts from the first again.
			ReuseIDs: func(t testing.TB, _ any) {
				s.Stop(t, testbed.Slurmctld)
				states, err := filepath.Glob(filepath.Join(s.Dir, "ctld", "job_state*"))
				if err != nil || len(states) == 0 {
					t.Fatalf("the controller's list of jobs: %v, %v", states, err)
				}
				for _, state := range states {
					if err := os.Remove(state); err != nil {
						t.Fatal(err)
					}
				}
				s.Start(t, testbed.Slurmctld)
			},
		},
	}
	if os.Getuid() == 0 {
		h.Accounts = []string{"nobody"}
	}
	return h
}

// forgetful makes a directory of Slurm's commands whose sbatch does not tell what it
// did where a file says so: the answer is lost, or the question was.
func forgetful(t testing.TB, s *testbed.Slurm) (bin string, lose func(testing.TB, any, bool)) {
	t.Helper()
	bin = shared(t, s, 0o755)
	for _, name := range []string{"squeue", "scancel", "scontrol", "sacct", "sacctmgr", "srun"} {
		path, err := exec.LookPath(name)
		if err == nil {
			err = os.Symlink(path, filepath.Join(bin, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	sbatch, err := exec.LookPath("sbatch")
	if err != nil {
		t.Fatal(err)
	}
	flag := filepath.Join(bin, "lose")
	script := fmt.Sprintf(`#!/bin/sh
[ -e %[1]s ] || exec %[2]s "$@"
[ -s %[1]s ] && %[2]s "$@" > /dev/null
rm %[1]s
echo 'sbatch: error: Batch job submission failed: Socket timed out on send/recv operation' >&2
exit 1
`, flag, sbatch)
	if err := os.WriteFile(filepath.Join(bin, "sbatch"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return bin, func(t testing.TB, _ any, done bool) {
		t.Helper()
		content := ""
		if done {
			content = "done"
		}
		if err := os.WriteFile(flag, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCommands(t *testing.T) {
	s := cluster(t)
	bin, lose := forgetful(t, s)
	h := harness(s, "path: commands\nbin: "+bin+"\nrequestsPerSecond: 200\npoll: 500ms\n")
	h.Manager.LoseNextAnswer = lose
	adaptertest.Run(t, h)
}
