package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters/boinc/boinctest"
	"github.com/portolan-project/portolan/internal/testbed"
)

// manager is a site's own manager, which a test kills and starts again.
type manager struct {
	name    string // of the part that is killed
	site    string
	entry   string // the site in the gateway's configuration
	kill    func()
	restart func()
}

// startManagers brings a real Slurm, a real HTCondor and a BOINC project with hosts
// up, side by side.
func startManagers(t *testing.T) []manager {
	t.Helper()
	var slurm *testbed.Slurm
	var condor *testbed.Condor
	var project *projectProcess
	slurm = testbed.StartSlurm(t, testbed.SlurmOptions{Nodes: 2})
	slurm.Tend(t)
	condor = testbed.StartCondor(t, testbed.CondorOptions{})
	project = startProject(t)
	for _, v := range append(slurm.Env(), condor.Env()...) {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	spool := filepath.Join(openDir(t), "slurm")
	if err := os.Mkdir(spool, 0o755); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(boinctest.Key+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return []manager{
		{
			name: "slurmctld", site: "slurm", entry: fmt.Sprintf("  - name: slurm\n    type: slurm\n    settings: {spool: %s, requestsPerSecond: 20, poll: 500ms}\n", spool),
			kill:    func() { slurm.Kill(t, testbed.Slurmctld) },
			restart: func() { slurm.Start(t, testbed.Slurmctld) },
		},
		{
			name: "the schedd", site: "condor", entry: "  - name: condor\n    type: condor\n    settings: {requestsPerSecond: 20}\n",
			kill:    func() { condor.Kill(t, "schedd") },
			restart: func() { condor.Ready(t) }, // its master starts it
		},
		{
			name: "the BOINC server", site: "boinc",
			entry: fmt.Sprintf("  - name: boinc\n    type: boinc\n    settings: {url: %q, authenticatorFile: %s, wrapper: run, requestsPerSecond: 50, poll: 500ms, settle: 1s, timeout: 20s, unproven: -1, absolutePaths: true, capacity: {hosts: 1, cpus: 4, slots: 4, memory: 1000000000000, disk: 1000000000000}}\n", project.url, key),
			kill:  project.kill, restart: project.start,
		},
	}
}

// projectWord makes this test's binary a BOINC project's server: its arguments are
// its directory and its address.
const projectWord = "boinc-project"

func projectMain(args []string) int {
	err := func() error {
		if len(args) != 2 {
			return errors.New("a directory and an address are wanted")
		}
		config := boinctest.Standard()
		config.URL = "http://" + args[1] + "/gw/"
		p, err := boinctest.Open(args[0], config)
		if err != nil {
			return err
		}
		go func() { // the project's daemons
			for range time.Tick(50 * time.Millisecond) {
				p.Tick()
			}
		}()
		server := &http.Server{Addr: args[1], Handler: p, ReadHeaderTimeout: time.Minute}
		return server.ListenAndServe()
	}()
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// projectProcess is a BOINC project's server in a process of its own; its hosts are
// here, as volunteers' hosts live on when the server dies.
type projectProcess struct {
	t        *testing.T
	dir, url string
	address  string
	cmd      *exec.Cmd
}

func startProject(t *testing.T) *projectProcess {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &projectProcess{t: t, dir: openDir(t), address: l.Addr().String()}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	p.url = "http://" + p.address + "/gw/"
	p.start()
	slots := openDir(t)
	v := &boinctest.Volunteer{
		Host: boinctest.Host{ID: 1, Platform: boinctest.Linux}, Slots: 4, Poll: 50 * time.Millisecond, Dir: slots,
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { v.Run(ctx, boinctest.Remote(p.url)) })
	t.Cleanup(func() {
		stop()
		p.kill()
		wg.Wait()
	})
	return p
}

func (p *projectProcess) start() {
	p.t.Helper()
	p.cmd = exec.Command(os.Args[0], projectWord, filepath.Join(p.dir, "project"), p.address)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	for end := time.Now().Add(2 * time.Minute); ; {
		c, err := net.Dial("tcp", p.address)
		if err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(end) {
			p.t.Fatalf("the BOINC project does not listen: %v", err)
		}
		pause(p.t.Context(), 20*time.Millisecond)
	}
}

func (p *projectProcess) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait() // it was killed
}
