package condor_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/adaptertest"
	"github.com/portolan-project/portolan/adapters/condor"
	"github.com/portolan-project/portolan/internal/testbed"
	"github.com/portolan-project/portolan/internal/testenv"
)

// open opens an adapter on a pool, in a directory.
func open(t testing.TB, c *testbed.Condor, dir, more string) adapters.Adapter {
	t.Helper()
	bin := filepath.Join(dir, "bin") // the shims
	if _, err := os.Stat(filepath.Join(bin, "condor_submit")); err != nil {
		bin = c.Bin()
	}
	settings, err := adapters.ParseSettings(fmt.Sprintf("config: %s\nbin: %s\n%s", c.Config(), bin, more))
	if err != nil {
		t.Fatal(err)
	}
	own := filepath.Join(dir, "site")
	if err := os.MkdirAll(own, 0o755); err != nil {
		t.Fatal(err)
	}
	a, err := condor.Open(adapters.Config{Site: "pool", Dir: own, Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// dir makes a directory below the pool's that jobs can reach.
func dir(t testing.TB, c *testbed.Condor) string {
	t.Helper()
	d, err := os.MkdirTemp(c.Dir, "t") //nolint:usetesting // other accounts can't enter what TempDir makes
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(d, 0o777); err != nil {
		t.Fatal(err)
	}
	return d
}

// Everything that is demanded of adapters, against a real pool.
func TestSuite(t *testing.T) {
	c := testbed.StartCondor(t, testbed.CondorOptions{Conf: quick})
	adaptertest.Run(t, harness(c, "requestsPerSecond: 50"))
}

// quick makes a pool hand jobs out without delay.
var quick = []string{
	"CONDOR_FSYNC=False", "SHADOW_WORKLIFE=36000", // nothing here must survive a power failure
	"NEGOTIATOR_CYCLE_DELAY=0", "NEGOTIATOR_MIN_INTERVAL=0", "NEGOTIATOR_INTERVAL=1", "SCHEDD_MIN_INTERVAL=0",
}

// shims makes a directory of HTCondor's commands in which condor_submit may be told to
// die, before or after its work.
func shims(t testing.TB, c *testbed.Condor, dir string) string {
	t.Helper()
	bin := filepath.Join(dir, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(c.Bin())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != "condor_submit" {
			if err := os.Symlink(filepath.Join(c.Bin(), e.Name()), filepath.Join(bin, e.Name())); err != nil && !os.IsExist(err) {
				t.Fatal(err)
			}
		}
	}
	shim := fmt.Sprintf(`#!/bin/sh
if mv %[1]s/lose-before %[1]s/lost 2>/dev/null; then kill -KILL $$; fi
if mv %[1]s/lose-after %[1]s/lost 2>/dev/null; then %[2]s/condor_submit "$@" >/dev/null; kill -KILL $$; fi
exec %[2]s/condor_submit "$@"
`, dir, c.Bin())
	if err := os.WriteFile(filepath.Join(bin, "condor_submit"), []byte(shim), 0o755); err != nil {
		t.Fatal(err)
	}
	return bin
}

func lose(t testing.TB, site any, done bool) {
	t.Helper()
	name := "lose-before"
	if done {
		name = "lose-after"
	}
	if err := os.WriteFile(filepath.Join(site.(string), name), nil, 0o666); err != nil {
		t.Fatal(err)
	}
}

// reuse makes the schedd forget everything and count its jobs from where the last ones
// were.
func reuse(t testing.TB, c *testbed.Condor) {
	t.Helper()
	last := 1
	for id := range strings.FieldsSeq(c.MustRun(t, "condor_history", "-limit", "10", "-af", "ClusterId")) {
		if n, err := strconv.Atoi(id); err == nil {
			last = max(last, n)
		}
	}
	c.Stop(t, testbed.CondorSchedd)
	for _, pattern := range []string{"spool/job_queue.log*", "spool/history*"} {
		files, err := filepath.Glob(filepath.Join(c.Dir, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("the schedd keeps no %s: %v", pattern, err)
		}
		for _, f := range files {
			if err := os.Remove(f); err != nil {
				t.Fatal(err)
			}
		}
	}
	conf := fmt.Sprintf("SCHEDD_CLUSTER_INITIAL_VALUE = %d\n", max(1, last-2))
	if err := os.WriteFile(filepath.Join(c.Dir, "local.conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	c.Start(t, testbed.CondorSchedd)
}

// idle waits until nothing of an earlier test occupies the pool. A schedd that was
// killed, or whose job was removed while it was being started, may leave a claim
// behind that nothing runs under; as an administrator would, idle takes it back.
func idle(t testing.TB, c *testbed.Condor) {
	t.Helper()
	const patience = 10 * time.Second
	deadline, late := time.Now().Add(3*time.Minute), time.Now().Add(patience)
	for {
		out, err := c.Run("condor_status", "-af", "Cpus", "TotalSlotCpus", "SlotType")
		f := strings.Fields(out)
		if err == nil && len(f) == 3 && f[0] == f[1] {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the pool does not become idle: %s, %v", out, err)
		}
		if time.Now().After(late) {
			late = time.Now().Add(patience)
			unused, err := c.Run("condor_status", "-constraint", `State == "Claimed" && Activity == "Idle"`, "-af", "Name", "MyAddress")
			if f := strings.Fields(unused); err == nil && len(f) > 1 {
				// By its address: a slot of a claim can't be found by its name.
				_, err = c.Run("condor_vacate", "-fast", "-addr", f[1])
			}
			t.Logf("claims that nothing runs under are taken back: %s (%v)", unused, err)
		}
		<-time.After(50 * time.Millisecond)
	}
}

func harness(c *testbed.Condor, settings string) adaptertest.Harness {
	limits := map[string]bool{}
	for l := range strings.FieldsSeq("WallTimeLimit FileSizeLimit CoreDumpLimit DataSegmentLimit LockedMemoryLimit OpenDescriptorsLimit StackSizeLimit CPUTimeLimit VirtualMemoryLimit") {
		limits[l] = true
	}
	var accounts []string
	if c.User != "" {
		accounts = []string{"daemon"}
	}
	return adaptertest.Harness{
		Open: func(t testing.TB, site any) adapters.Adapter { return open(t, c, site.(string), settings) },
		Site: func(t testing.TB) any {
			idle(t, c)
			site := dir(t, c)
			shims(t, c, site)
			return site
		},
		Dir:      func(t testing.TB) string { return dir(t, c) },
		Programs: true, Limits: limits, Umask: 0o022, Accounts: accounts,
		Short: !testenv.Thorough(), Patience: 2 * time.Minute, Pace: 2 * time.Second, WallTime: 2 * time.Second,
		Manager: adaptertest.Manager{
			Stop:    func(t testing.TB, _ any) { c.Stop(t, testbed.CondorSchedd) },
			Start:   func(t testing.TB, _ any) { c.Start(t, testbed.CondorSchedd) },
			Restart: func(t testing.TB, _ any) { c.Kill(t, testbed.CondorSchedd); c.Ready(t) },

			LoseNextAnswer: lose,
			ReuseIDs:       func(t testing.TB, _ any) { reuse(t, c) },
		},
	}
}
