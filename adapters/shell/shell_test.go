package shell_test

import (
	"flag"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/adaptertest"
	"github.com/portolan-project/portolan/adapters/shell"
)

// TestMain is a supervisor when the adapter starts the test's binary as one.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case shell.SuperviseWord:
			os.Exit(shell.SuperviseMain(os.Args[2:]))
		case gatewayWord:
			os.Exit(gatewayMain(os.Args[2]))
		}
	}
	// The tests wait for processes more than they compute; fuzzing does not.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

func options(dir string) shell.Options {
	return shell.Options{Dir: dir, Slots: 4, Grace: time.Second}
}

func harness(change func(*shell.Options)) adaptertest.Harness {
	return adaptertest.Harness{
		Site: func(t testing.TB) any { return openDir(t) },
		Open: func(t testing.TB, site any) adapters.Adapter {
			o := options(site.(string))
			change(&o)
			a, err := shell.Open(o)
			if err != nil {
				t.Fatal(err)
			}
			return a
		},
		Programs: true, Parallel: true, Many: 100,
		Umask: 0o022, Rank: `"$PORTOLAN_RANK"`, Lacks: maps.Clone(lacks),
	}
}

// lacks are the parts for which the machine itself as its manager has no place.
var lacks = map[string]string{
	"Faults/ControllerKilled": "the site's manager is the machine's kernel; gateways and supervisors are killed in tests of their own",
	"Faults/Down":             "the site's manager is the machine's kernel, without which nothing runs",
	"Faults/AnswerLost":       "jobs are placed by the gateway itself, in one rename: there is no answer on the way",
	"Faults/SubmissionLost":   "jobs are placed by the gateway itself, in one rename: there is no request on the way",
	"Faults/ReuseIDs":         "jobs have no ids but their tags",
	"OldHandles":              "handles are of the first version",
	"Strings":                 "the programs themselves tell, in the parts of Programs",
	"Budget":                  "no requests are sent to any manager",
}

// openDir makes a directory that every account can get at, as a site's must be whose
// jobs run as other accounts.
func openDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "shell-") //nolint:usetesting // below t.TempDir only its owner may go
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "site")
}

// able says which limits the machine lets the adapter keep. Those that need a
// cgroup's controller are asked of the adapter itself, so that the suite sees that
// it either keeps them or refuses them.
func able(t *testing.T, way string) map[string]bool {
	t.Helper()
	limits := map[string]bool{
		"WallTimeLimit": true, "CPUTimeLimit": true, "FileSizeLimit": true, "CoreDumpLimit": true, "DataSegmentLimit": true,
		"LockedMemoryLimit": true, "OpenDescriptorsLimit": true, "StackSizeLimit": true, "VirtualMemoryLimit": true,
	}
	o := options(t.TempDir())
	o.Track = way
	a, err := shell.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	probe := adaptertest.Command("/bin/true")
	limit := &probe.Description.Application.POSIX.Limits
	limit.Memory = big.NewInt(1 << 30)
	limits["MemoryLimit"] = a.Check(probe) == nil
	limit.Memory, limit.ProcessCount = nil, big.NewInt(100)
	limits["ProcessCountLimit"] = a.Check(probe) == nil
	t.Logf("limits by cgroup: memory %v, processes %v", limits["MemoryLimit"], limits["ProcessCountLimit"])
	return limits
}

func TestSuite(t *testing.T) {
	t.Parallel()
	limits := able(t, "")
	h := harness(func(o *shell.Options) { o.EnforceMemory = limits["MemoryLimit"] })
	h.Limits = limits
	h.Limits["IndividualPhysicalMemory"] = h.Limits["MemoryLimit"]
	if os.Getuid() == 0 {
		u, _ := other(t)
		h.Accounts = []string{u.Username}
	}
	adaptertest.Run(t, h)
}
