package shell_test

import (
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/adaptertest"
	"github.com/portolan-project/portolan/adapters/shell"
)

// TestMain is a supervisor when the adapter starts the test's binary as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == shell.SuperviseWord {
		os.Exit(shell.SuperviseMain(os.Args[2:]))
	}
	goleak.VerifyTestMain(m)
}

func options(dir string) shell.Options {
	return shell.Options{Dir: dir, Slots: 4, Grace: 300 * time.Millisecond}
}

func harness(change func(*shell.Options)) adaptertest.Harness {
	return adaptertest.Harness{
		Site: func(t testing.TB) any { return t.TempDir() },
		Open: func(t testing.TB, site any) adapters.Adapter {
			o := options(site.(string))
			change(&o)
			a, err := shell.Open(o)
			if err != nil {
				t.Fatal(err)
			}
			return a
		},
		Programs: true,
		Limits: map[string]bool{
			"WallTimeLimit": true, "CPUTimeLimit": true, "FileSizeLimit": true, "CoreDumpLimit": true, "DataSegmentLimit": true,
			"LockedMemoryLimit": true, "OpenDescriptorsLimit": true, "StackSizeLimit": true, "VirtualMemoryLimit": true,
			"MemoryLimit": true, "ProcessCountLimit": true,
		},
		Umask: 0o022,
	}
}

func TestSuite(t *testing.T) {
	adaptertest.Run(t, harness(func(*shell.Options) {}))
}
