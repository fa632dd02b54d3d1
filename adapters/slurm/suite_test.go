package slurm_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/adaptertest"
	"github.com/portolan-project/portolan/adapters/slurm"
	"github.com/portolan-project/portolan/internal/testbed"
	"github.com/portolan-project/portolan/internal/testenv"
)

// cluster is one for several tests.
func cluster(t testing.TB) *testbed.Slurm {
	t.Helper()
	root := os.Getuid() == 0
	s := testbed.StartSlurm(t, testbed.SlurmOptions{
		Nodes: 2, CPUs: 8, DBD: true, REST: root, Cgroup: root && testbed.MemoryController(),
		Conf: []string{"PartitionName=debug Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=01:00:00"},
	})
	s.Tend(t) // the suite kills the controller
	return s
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
	dir, err := os.MkdirTemp(s.Dir, "t") //nolint:usetesting // the nodes share it
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
		Programs: true, Many: 100,
		Limits: map[string]bool{
			"WallTimeLimit": true, "FileSizeLimit": true, "CoreDumpLimit": true, "DataSegmentLimit": true, "LockedMemoryLimit": true,
			"MemoryLimit": true, "OpenDescriptorsLimit": true, "StackSizeLimit": true, "CPUTimeLimit": true, "VirtualMemoryLimit": true,
			"IndividualPhysicalMemory": true,
		},
		Umask: 0o022, Patience: 2 * time.Minute, Pace: 3 * time.Second, WallTime: 2 * time.Second, Poll: 50 * time.Millisecond,
		Manager: adaptertest.Manager{
			Stop:  func(t testing.TB, _ any) { s.Stop(t, testbed.Slurmctld) },
			Start: func(t testing.TB, _ any) { s.Start(t, testbed.Slurmctld) },
			Restart: func(t testing.TB, _ any) {
				s.Kill(t, testbed.Slurmctld)
				s.Start(t, testbed.Slurmctld)
			},
			Forgets: true, // it writes down what it did some five seconds later
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

// forgetful makes a directory of Slurm's commands whose sbatch, and whose scontrol when it
// creates something, do not tell what they did where a file says so: the answer is lost,
// or the question was.
func forgetful(t testing.TB, s *testbed.Slurm) (bin string, lose, loseReservation func(testing.TB, any, bool)) {
	t.Helper()
	bin = shared(t, s, 0o755)
	for _, name := range []string{"squeue", "scancel", "sacct", "sacctmgr", "srun"} {
		path, err := exec.LookPath(name)
		if err == nil {
			err = os.Symlink(path, filepath.Join(bin, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	loser := func(name, when, complaint string) func(testing.TB, any, bool) {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		flag := filepath.Join(bin, "lose-"+name)
		script := fmt.Sprintf(`#!/bin/sh
[ -e %[1]s ] && %[3]s || exec %[2]s "$@"
[ -s %[1]s ] && %[2]s "$@" > /dev/null
rm %[1]s
echo '%[4]s: Socket timed out on send/recv operation' >&2
exit 1
`, flag, path, when, complaint)
		if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		return func(t testing.TB, _ any, done bool) {
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
	return bin, loser("sbatch", "true", "sbatch: error: Batch job submission failed"), loser("scontrol", `[ "$1" = create ]`, "Error creating the reservation")
}

// forwarder passes requests on to slurmrestd, but loses one submission where it is told
// to: the answer to it, or the request.
func forwarder(t testing.TB, s *testbed.Slurm) (address string, lose func(testing.TB, any, bool)) {
	t.Helper()
	const no, after, before = 0, 1, 2
	var next atomic.Int32
	target := &url.URL{Scheme: "http", Host: s.RESTAddr}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.ErrorLog = log.New(io.Discard, "", 0)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "/job/submit") {
			proxy.ServeHTTP(w, r)
			return
		}
		how := next.Swap(no)
		if how == after {
			proxy.ServeHTTP(httptest.NewRecorder(), r)
		}
		if how != no {
			panic(http.ErrAbortHandler)
		}
		proxy.ServeHTTP(w, r)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	t.Cleanup(func() {
		server.Close()
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	})
	return server.URL, func(_ testing.TB, _ any, done bool) {
		if done {
			next.Store(after)
		} else {
			next.Store(before)
		}
	}
}

func TestRest(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("skipped: slurmrestd runs neither as root nor as Slurm's own account, so that a cluster with it needs root")
	}
	t.Parallel()
	s := cluster(t)
	address, lose := forwarder(t, s)
	h := harness(s, "path: slurmrestd\nslurmrestd: "+address+"\nrequestsPerSecond: 200\npoll: 500ms\n")
	h.Manager.LoseNextAnswer = lose
	h.Short = true // TestCommands places the thousands, if somebody does
	adaptertest.Run(t, h)
}

func TestCommands(t *testing.T) {
	t.Parallel()
	s := cluster(t)
	bin, lose, loseReservation := forgetful(t, s)
	h := harness(s, "path: commands\nbin: "+bin+"\nrequestsPerSecond: 200\npoll: 500ms\n")
	h.Manager.LoseNextAnswer, h.Manager.LoseNextReservation = lose, loseReservation
	h.Short = !testenv.Thorough()
	adaptertest.Run(t, h)
}
