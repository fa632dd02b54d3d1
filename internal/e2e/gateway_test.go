package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/soap"
)

// binary is the program, built once for all tests.
var binary string

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == projectWord {
		os.Exit(projectMain(os.Args[2:]))
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "portolan-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "portolan")
		build := exec.Command("go", "build", "-o", binary, "../../cmd/portolan")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "building the program:", err)
			return 1
		}
		return m.Run()
	}())
}

// gateway is a running `portolan serve --dev`.
type gateway struct {
	data        string
	endpoint    string // of BES
	agreement   string // of WS-Agreement
	metrics     string
	peer        string // where peers come, if it has one
	fingerprint string
	address     string // host:port
	cmd         *exec.Cmd
	log         *logFile
	exited      chan struct{} // closed once the process is gone
}

// logFile keeps what the gateway writes to its standard error.
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
	if len(s) > 6000 {
		s = "…" + s[len(s)-6000:]
	}
	return s
}

// launch starts a gateway on a data directory, or one without any, and waits until it is ready.
func launch(ctx context.Context, data string, log *logFile, args ...string) (*gateway, error) {
	g := &gateway{data: data, log: log, exited: make(chan struct{})}
	if data != "" {
		args = append([]string{"--data", data}, args...)
	}
	g.cmd = exec.Command(binary, append([]string{"serve", "--dev", "--listen", "127.0.0.1:0"}, args...)...)
	g.cmd.Stderr = log
	// Its own group: a test that is interrupted does not leave it half alive.
	g.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := g.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := g.cmd.Start(); err != nil {
		return nil, err
	}
	ready := make(chan error, 1)
	go func() {
		defer close(g.exited)
		s := bufio.NewScanner(out)
		told := false
		for s.Scan() {
			name, value, _ := strings.Cut(s.Text(), ": ")
			switch name {
			case "bes":
				g.endpoint = value
			case "agreement":
				g.agreement = value
			case "metrics":
				g.metrics = value
			case "peer":
				g.peer = value
			case "fingerprint":
				g.fingerprint = value
			case "ready":
				told = true
				ready <- nil
			}
		}
		_ = g.cmd.Wait() // how it ended is in its ProcessState
		if !told {
			ready <- fmt.Errorf("the gateway ended before it was ready (%s)\n%s", g.cmd.ProcessState, log.tail())
		}
	}()
	t := time.NewTimer(2 * time.Minute)
	defer t.Stop()
	select {
	case err := <-ready:
		if err != nil {
			return nil, err
		}
	case <-t.C:
		g.kill()
		return nil, fmt.Errorf("the gateway was not ready within 2 min\n%s", log.tail())
	case <-ctx.Done():
		g.kill()
		return nil, ctx.Err()
	}
	u, err := url.Parse(g.endpoint)
	if err != nil || u.Host == "" {
		g.kill()
		return nil, fmt.Errorf("the gateway printed %q as its BES URL", g.endpoint)
	}
	g.address = u.Host
	return g, nil
}

// kill ends the process at once, as a power cut would, and waits until it is gone.
func (g *gateway) kill() {
	_ = g.cmd.Process.Signal(syscall.SIGKILL)
	<-g.exited
}

// stop ends the process as an administrator would.
func (g *gateway) stop(t testing.TB) {
	t.Helper()
	_ = g.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(2 * time.Minute)
	defer timer.Stop()
	select {
	case <-g.exited:
	case <-timer.C:
		t.Errorf("the gateway did not stop within 2 min of SIGTERM\n%s", g.log.tail())
		g.kill()
	}
}

// start gives a gateway on a data directory of its own. At the test's end its
// activities are ended and it is stopped.
func start(t testing.TB, args ...string) *gateway {
	t.Helper()
	return startOn(t, t.TempDir(), args...)
}

func startOn(t testing.TB, data string, args ...string) *gateway {
	t.Helper()
	log := new(logFile)
	g, err := launch(context.Background(), data, log, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		select {
		case <-g.exited:
		default:
			endAll(t, g)
			g.stop(t)
		}
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", log.tail())
		}
	})
	return g
}

// client speaks BES to the gateway.
func (g *gateway) client() *bes.Client {
	return bes.NewClient(&soap.Client{URL: g.endpoint})
}

// endAll terminates every activity and waits until all are final, so that
// nothing of a test outlives it.
func endAll(t testing.TB, g *gateway) {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Minute)
	defer stop()
	c := g.client()
	a, err := c.GetFactoryAttributesDocument(ctx)
	if err != nil {
		t.Errorf("listing the activities to end them: %v", err)
		return
	}
	if len(a.Activities) == 0 {
		return
	}
	if _, err := c.TerminateActivities(ctx, a.Activities); err != nil {
		t.Errorf("ending the activities: %v", err)
		return
	}
	for _, e := range a.Activities {
		if _, err := waitFinal(ctx, c, e); err != nil {
			t.Errorf("waiting for the end of %s: %v", e.Address, err)
			return
		}
	}
}

// waitFinal waits until an activity is final.
func waitFinal(ctx context.Context, c bes.Service, e soap.EPR) (bes.Status, error) {
	return waitFor(ctx, c, e, func(s bes.Status) bool { return s.State.Final() })
}

// waitFor waits until an activity's status is as wanted; the gateway holds each
// answer back until there is news.
func waitFor(ctx context.Context, c bes.Service, e soap.EPR, wanted func(bes.Status) bool) (bes.Status, error) {
	var after int64
	for {
		r, err := c.GetActivityStatuses(ctx, &bes.StatusRequest{Activities: []soap.EPR{e}, Wait: 20 * time.Second, After: after})
		if err != nil {
			return bes.Status{}, err
		}
		if len(r) != 1 {
			return bes.Status{}, fmt.Errorf("%d statuses for one activity", len(r))
		}
		if r[0].Err != nil {
			return bes.Status{}, r[0].Err
		}
		s := r[0].Status
		if wanted(s) {
			return s, nil
		}
		if s.State.Final() {
			return s, fmt.Errorf("the activity ended as %s: %s", s.State, reason(s))
		}
		if s.Details == nil {
			return s, errors.New("the status has no details")
		}
		after = s.Details.Revision
	}
}

func reason(s bes.Status) string {
	if s.Details == nil {
		return ""
	}
	return s.Details.Reason
}

// post sends a message and gives status and body.
func post(ctx context.Context, endpoint, contentType, action string, body []byte) (int, http.Header, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, err
	}
	req.Header.Set("Content-Type", contentType)
	req.Header.Set("SOAPAction", `"`+action+`"`)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, nil, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 32<<20))
	return res.StatusCode, res.Header, b, err
}

// portolan runs the program and gives its output and exit code.
func portolan(t testing.TB, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), 2*time.Minute)
	defer stop()
	cmd := exec.CommandContext(ctx, binary, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "XDG_CONFIG_HOME=", "XDG_DATA_HOME=", "XDG_STATE_HOME=", "XDG_CACHE_HOME=")
	err := cmd.Run()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return out.String(), errs.String(), e.ExitCode()
	}
	if err != nil {
		t.Fatalf("portolan %s: %v", strings.Join(args, " "), err)
	}
	return out.String(), errs.String(), 0
}
