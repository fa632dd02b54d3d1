package federation

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/testbed"
)

// domain is one organisation: a namespace with a manager and a gateway in it.
type domain struct {
	name    string
	number  int
	space   *space
	address string // on the bridge
	env     []string
	site    string // its entry in the gateway's configuration
	keys    string // directory of its key and certificate, and of its CA
	slots   int
	policy  string // of scheduling
	gateway *gateway
	clock   time.Duration // by which that of its gateway is wrong
}

// slots that each domain has.
const slots = 4

// ahead has sites given few jobs that they can't run at once: what waits at a manager can't go elsewhere any more. It holds
// isolated as well as federated.
const ahead = "    ahead: 2\n"

// newDomain makes the namespace of a domain.
func newDomain(t *testing.T, hub *space, name string, number int) *domain {
	t.Helper()
	d := &domain{name: name, number: number, space: newSpace(t, name), slots: slots}
	d.address = join(t, hub, d.space, number)
	return d
}

// workshop gives a short directory that jobs of others may enter; what runs below it dies
// with this process.
func workshop(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pf") //nolint:usetesting // short, for sockets
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	release, err := testbed.Keep(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := release(); err != nil {
			t.Errorf("ending what runs below %s: %v", dir, err)
		}
	})
	return dir
}

// slurm brings a real Slurm up in the domain.
func (d *domain) slurm(t *testing.T, dir string) {
	t.Helper()
	var s *testbed.Slurm
	var err error
	t.Cleanup(func() {
		if s != nil {
			s.Down()
		}
	})
	d.space.within(func() {
		if err = os.Mkdir(dir, 0o755); err != nil {
			return
		}
		if s, err = testbed.NewSlurm(dir, testbed.SlurmOptions{Nodes: 2, CPUs: d.slots / 2}); err == nil {
			err = s.Up()
		}
	})
	if err != nil {
		t.Fatalf("no Slurm: %v\n%s", err, s.Logs(20))
	}
	spool := filepath.Join(dir, "spool")
	if err := os.Mkdir(spool, 0o755); err != nil {
		t.Fatal(err)
	}
	d.env = s.Env()
	d.site = fmt.Sprintf("  - name: cluster\n    type: slurm\n    settings: {spool: %s, requestsPerSecond: 20, poll: 500ms}\n", spool) + ahead
}

// condor brings a real HTCondor up in the domain.
func (d *domain) condor(t *testing.T, dir string) {
	t.Helper()
	// Fetching its programs, if they are not there yet, needs the network that the domain
	// has not.
	if _, err := testbed.CondorSoftware(t.Context()); err != nil {
		t.Fatal(err)
	}
	var c *testbed.Condor
	var err error
	t.Cleanup(func() {
		if c != nil {
			c.Down()
		}
	})
	d.space.within(func() {
		if err = os.Mkdir(dir, 0o755); err != nil {
			return
		}
		if c, err = testbed.NewCondor(t.Context(), dir, testbed.CondorOptions{CPUs: d.slots}); err == nil {
			err = c.Up()
		}
	})
	if err != nil {
		t.Fatalf("no HTCondor: %v\n%s", err, c.Logs(20))
	}
	d.env = c.Env()
	d.site = "  - name: pool\n    type: condor\n    settings: {requestsPerSecond: 20}\n" + ahead
}

// hosts brings machines up that are reached by SSH.
func (d *domain) hosts(t *testing.T, dir string) {
	t.Helper()
	entries := startHosts(t, d.space, dir, 2, d.slots/2)
	d.site = "  - name: hosts\n    type: shell\n    settings:\n      hosts:\n" + entries + ahead
}

// gateway is a running gateway of a domain.
type gateway struct {
	d        *domain
	endpoint string // of BES, on the domain's loopback
	cmd      *exec.Cmd
	log      *logFile
	exited   chan struct{}
	client   *bes.Client
	http     *http.Client
}

// logFile keeps what gateways write to their standard error.
type logFile struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logFile) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buf.Len() > 4<<20 {
		l.buf.Reset()
	}
	return l.buf.Write(b)
}

func (l *logFile) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.buf.String()
	return s[max(0, len(s)-6000):]
}

// serve starts the domain's gateway with a configuration on a data directory, and waits until it is
// ready.
func (d *domain) serve(ctx context.Context, binary, config, data string, log *logFile) (*gateway, error) {
	transport := &http.Transport{DialContext: d.space.dial, MaxIdleConnsPerHost: 8}
	g := &gateway{d: d, log: log, exited: make(chan struct{}), http: &http.Client{Transport: transport, Timeout: 30 * time.Second}}
	g.cmd = exec.Command(binary, serveArgs(config, data)...)
	g.cmd.Stderr, g.cmd.Dir = log, filepath.Dir(config)
	g.cmd.Env = slices.Concat(os.Environ(), []string{"PORTOLAN_ENDPOINT="}, d.env, clockOf(d.clock))
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := g.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	d.space.within(func() { err = g.cmd.Start() })
	if err != nil {
		return nil, err
	}
	ready := make(chan error, 1)
	go func() {
		defer close(g.exited)
		told := false
		for s := bufio.NewScanner(out); s.Scan(); {
			switch name, value, _ := strings.Cut(s.Text(), ": "); name {
			case "bes":
				g.endpoint = value
			case "ready":
				told = true
				ready <- nil
			}
		}
		_ = g.cmd.Wait() // how it ended is in its ProcessState
		if !told {
			ready <- fmt.Errorf("the gateway of %s ended before it was ready (%s)\n%s", d.name, g.cmd.ProcessState, log.tail())
		}
	}()
	patience, stop := context.WithTimeout(ctx, 60*time.Second)
	defer stop()
	select {
	case err := <-ready:
		if err != nil {
			return nil, err
		}
	case <-patience.Done():
		g.kill()
		return nil, fmt.Errorf("the gateway of %s was not ready within a minute\n%s", d.name, log.tail())
	}
	u, err := url.Parse(g.endpoint)
	if err != nil || u.Host == "" {
		g.kill()
		return nil, fmt.Errorf("the gateway of %s printed %q as its BES URL", d.name, g.endpoint)
	}
	g.client = bes.NewClient(&soap.Client{URL: g.endpoint, Retries: -1, Timeout: 20 * time.Second, Transport: transport})
	return g, nil
}

// order has the domain's jobs go in the order that its policy says.
func (g *gateway) order(binary string) error {
	cmd := exec.Command(binary, "policy", "set", "gateway", "scheduling", g.d.policy)
	cmd.Env = append(os.Environ(), "PORTOLAN_ENDPOINT="+g.endpoint)
	var out []byte
	var err error
	g.d.space.within(func() { out, err = cmd.CombinedOutput() })
	if err != nil {
		return fmt.Errorf("the policy of %s: %w: %s", g.d.name, err, out)
	}
	return nil
}

// kill ends the process at once, as a power cut would.
func (g *gateway) kill() {
	_ = g.cmd.Process.Signal(syscall.SIGKILL)
	<-g.exited
}

// stop ends the process as an administrator would.
func (g *gateway) stop() error {
	_ = g.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(30 * time.Second)
	defer timer.Stop()
	select {
	case <-g.exited:
		return nil
	case <-timer.C:
		g.kill()
		return errors.New("the gateway of " + g.d.name + " did not stop within 30 s of SIGTERM\n" + g.log.tail())
	}
}
