package condor_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/adaptertest"
	"github.com/portolan-project/portolan/adapters/condor"
	"github.com/portolan-project/portolan/internal/testbed"
)

// pool is one for all tests of a package's run that want no other.
func pool(t testing.TB, o testbed.CondorOptions) *testbed.Condor {
	t.Helper()
	return testbed.StartCondor(t, o)
}

// open opens an adapter on a pool, in a directory.
func open(t testing.TB, c *testbed.Condor, dir, more string) adapters.Adapter {
	t.Helper()
	settings, err := adapters.ParseSettings(fmt.Sprintf("config: %s\nbin: %s\n%s", c.Config(), c.Bin(), more))
	if err != nil {
		t.Fatal(err)
	}
	a, err := condor.Open(adapters.Config{Site: "pool", Dir: dir, Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// dir makes a directory below the pool's that jobs can reach.
func dir(t testing.TB, c *testbed.Condor) string {
	t.Helper()
	d, err := os.MkdirTemp(c.Dir, "t")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(d, 0o777); err != nil { //nolint:gosec // jobs run as others
		t.Fatal(err)
	}
	return d
}

// Everything that is demanded of adapters, against a real pool.
func TestSuite(t *testing.T) {
	c := pool(t, testbed.CondorOptions{})
	adaptertest.Run(t, harness(c, "requestsPerSecond: 50"))
}

func harness(c *testbed.Condor, settings string) adaptertest.Harness {
	limits := map[string]bool{}
	for _, l := range strings.Fields("WallTimeLimit FileSizeLimit CoreDumpLimit DataSegmentLimit LockedMemoryLimit OpenDescriptorsLimit StackSizeLimit CPUTimeLimit VirtualMemoryLimit") {
		limits[l] = true
	}
	return adaptertest.Harness{
		Open:     func(t testing.TB, site any) adapters.Adapter { return open(t, c, site.(string), settings) },
		Site:     func(t testing.TB) any { return dir(t, c) },
		Dir:      func(t testing.TB) string { return dir(t, c) },
		Programs: true, Limits: limits, Umask: 0o022,
		Patience: 90 * time.Second, Pace: 2 * time.Second, WallTime: 2 * time.Second,
		Manager: adaptertest.Manager{
			Stop:    func(t testing.TB, _ any) { c.Stop(t, testbed.CondorSchedd) },
			Start:   func(t testing.TB, _ any) { c.Start(t, testbed.CondorSchedd) },
			Restart: func(t testing.TB, _ any) { c.Kill(t, testbed.CondorSchedd); c.Ready(t) },
		},
	}
}

var _ = filepath.Join
