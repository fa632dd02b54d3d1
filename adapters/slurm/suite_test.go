package slurm_test

import (
	"fmt"
	"os"
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

func harness(s *testbed.Slurm, settings string) adaptertest.Harness {
	return adaptertest.Harness{
		Site: func(t testing.TB) any {
			dir, err := os.MkdirTemp(s.Dir, "site")
			if err != nil {
				t.Fatal(err)
			}
			return dir
		},
		Open: func(t testing.TB, site any) adapters.Adapter {
			return open(t, s, filepath.Join(site.(string), "data"), settings)
		},
		Programs: true,
		Limits: map[string]bool{
			"WallTimeLimit": true, "FileSizeLimit": true, "CoreDumpLimit": true, "DataSegmentLimit": true, "LockedMemoryLimit": true,
			"MemoryLimit": true, "OpenDescriptorsLimit": true, "StackSizeLimit": true, "CPUTimeLimit": true, "VirtualMemoryLimit": true,
			"IndividualPhysicalMemory": true,
		},
		Umask: 0o022, Patience: 60 * time.Second, Pace: 3 * time.Second, WallTime: 2 * time.Second, Poll: 50 * time.Millisecond,
	}
}

func TestCommands(t *testing.T) {
	s := cluster(t)
	adaptertest.Run(t, harness(s, "path: commands\nrequestsPerSecond: 200\npoll: 500ms\n"))
}
