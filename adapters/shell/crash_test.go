package shell_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/adaptertest"
	"github.com/portolan-project/portolan/adapters/shell"
	"github.com/portolan-project/portolan/internal/fail"
)

// gatewayWord makes the test's binary a gateway that can be killed: it places the
// jobs that it is told on standard input, "TAG SCRIPT" a line, and says each tag
// once it is placed.
const gatewayWord = "gateway-to-be-killed"

func gatewayMain(dir string) int {
	a, err := reopen(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println("open")
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		tag, script, _ := strings.Cut(lines.Text(), " ")
		p := a.Submit(context.Background(), []adapters.Job{{Tag: adapters.Tag(tag), Definition: adaptertest.Command("/bin/sh", "-c", script)}})
		if p[0].Err != nil {
			fmt.Fprintln(os.Stderr, p[0].Err)
			return 1
		}
		fmt.Println(tag)
	}
	return 0
}

// fileHosts, in a site's directory, makes it a site of the hosts that it names.
const fileHosts = "test-hosts"

// reopen opens what the directory is the site of.
func reopen(dir string) (adapters.Adapter, error) {
	o := options(dir)
	data, err := os.ReadFile(filepath.Join(dir, fileHosts))
	if err != nil {
		return shell.Open(o)
	}
	if err := json.Unmarshal(data, &o.Hosts); err != nil {
		return nil, err
	}
	return shell.OpenHosts(o)
}

type gateway struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startGateway(t *testing.T, dir string) *gateway {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{cmd: exec.CommandContext(t.Context(), exe, gatewayWord, dir)}
	g.cmd.Stderr = os.Stderr
	if g.in, err = g.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := g.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	g.out = bufio.NewScanner(out)
	if err := g.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if !g.out.Scan() || g.out.Text() != "open" {
		t.Fatalf("the gateway did not open: %q", g.out.Text())
	}
	return g
}

func (g *gateway) kill(t *testing.T) {
	t.Helper()
	if err := g.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = g.cmd.Wait()
}

// The gateway is killed at random moments while it places and runs jobs. Every job
// that it acknowledged runs, none runs twice, and each exit status is found.
func TestGatewayKilled(t *testing.T) {
	t.Parallel()
	killGateway(t, t.TempDir(), 12)
}

// The same with jobs on hosts, and a connection that is cut now and then.
func TestGatewayOfHostsKilled(t *testing.T) {
	t.Parallel()
	f := startFleet(t, 2)
	dir := t.TempDir()
	data, err := json.Marshal(f.options(t, dir, 3).Hosts)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, fileHosts), data, 0o600); err != nil {
		t.Fatal(err)
	}
	killGateway(t, dir, 6)
}

func killGateway(t *testing.T, dir string, rounds int) {
	t.Helper()
	const each = 12
	if testing.Short() {
		rounds = min(rounds, 4)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	ledger := filepath.Join(t.TempDir(), "ledger")
	status := map[adapters.Tag]int{}
	var acknowledged, doubtful []adapters.Tag
	script := func(tag adapters.Tag) string {
		return fmt.Sprintf("echo %s >> %s; sleep 0.0%d; echo done %s; exit %d", tag, ledger, random.IntN(10), tag, status[tag])
	}
	for round := range rounds {
		g := startGateway(t, dir)
		stop := random.IntN(each)
		for i := range each {
			tag := adapters.Tag(fmt.Sprintf("job-%d-%d", round, i))
			status[tag] = random.IntN(200)
			if _, err := fmt.Fprintf(g.in, "%s %s\n", tag, script(tag)); err != nil {
				t.Fatal(err)
			}
			if i == stop { // the answer is not waited for
				doubtful = append(doubtful, tag)
				break
			}
			if !g.out.Scan() || g.out.Text() != string(tag) {
				t.Fatalf("the gateway says %q", g.out.Text())
			}
			acknowledged = append(acknowledged, tag)
		}
		g.kill(t)
	}
	a, err := reopen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	found, err := a.Find(t.Context(), append(acknowledged, doubtful...))
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range acknowledged {
		if found[tag] == nil {
			t.Errorf("job %s was acknowledged and is lost", tag)
		}
	}
	for _, tag := range doubtful { // as a broker does with what was not found
		if found[tag] == nil {
			found[tag] = place(t, a, tag, script(tag))
		}
	}
	for tag, h := range found {
		e := final(t, a, h)
		if e.Phase != adapters.Exited || e.ExitStatus == nil || *e.ExitStatus != status[tag] {
			t.Errorf("job %s: %v %v, want exit status %d", tag, e.Phase, e.Reason, status[tag])
		}
		if out := read(t, a, h); out != fmt.Sprintf("done %s\n", tag) {
			t.Errorf("job %s wrote %q", tag, out)
		}
	}
	data, err := os.ReadFile(ledger)
	if err != nil {
		t.Fatal(err)
	}
	ran := map[string]int{}
	for tag := range strings.FieldsSeq(string(data)) {
		ran[tag]++
	}
	for tag := range status {
		if ran[string(tag)] != 1 {
			t.Errorf("job %s ran %d times", tag, ran[string(tag)])
		}
	}
	t.Logf("%d jobs over %d kills", len(status), rounds)
}

func place(t *testing.T, a adapters.Adapter, tag adapters.Tag, script string) adapters.Handle {
	t.Helper()
	p := a.Submit(t.Context(), []adapters.Job{{Tag: tag, Definition: adaptertest.Command("/bin/sh", "-c", script)}})
	if p[0].Err != nil {
		t.Fatal(p[0].Err)
	}
	return p[0].Handle
}

func wait(t testing.TB, what string, ok func() bool, state ...func() string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	patience := time.After(2 * time.Minute) // a host is tried again 23 s later at most, and the machine may be busy
	for !ok() {
		select {
		case <-tick.C:
		case <-patience:
			for _, f := range state {
				what += ": " + f()
			}
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func status(t *testing.T, a adapters.Adapter, h adapters.Handle) adapters.Evidence {
	t.Helper()
	e, err := a.Status(t.Context(), []adapters.Handle{h})
	if err != nil {
		t.Fatal(err)
	}
	return e[0]
}

func final(t *testing.T, a adapters.Adapter, h adapters.Handle) (e adapters.Evidence) {
	t.Helper()
	wait(t, "the end of "+string(h), func() bool { e = status(t, a, h); return e.Phase.Final() })
	return e
}

func read(t *testing.T, a adapters.Adapter, h adapters.Handle) string {
	t.Helper()
	r, err := a.Output(t.Context(), h, adapters.Stdout, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// family is a job that writes the ids of its supervisor, its main process and an
// orphan in a session of its own.
const family = `setsid sh -c 'echo $$ > "$0/orphan.tmp"; mv "$0/orphan.tmp" "$0/orphan"; while :; do sleep 1000; done' %[1]s &
	echo $$ > %[1]s/main; echo $PPID > %[1]s/tmp; mv %[1]s/tmp %[1]s/supervisor; while :; do sleep 1000; done`

func pid(t *testing.T, path string) (n int) {
	t.Helper()
	wait(t, path, func() bool {
		data, err := os.ReadFile(path)
		if err == nil {
			n, err = strconv.Atoi(strings.TrimSpace(string(data)))
		}
		return err == nil
	})
	return n
}

func gone(t *testing.T, pid int) {
	t.Helper()
	wait(t, fmt.Sprintf("process %d to be gone", pid), func() bool {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(data), ") Z ")
	})
}

// A killed supervisor takes its job's tree with it, and the job is Lost, once and
// for all, whether a gateway looks on or comes later.
func TestSupervisorKilled(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"", "cgroup1", "process"} {
		for _, away := range []bool{false, true} {
			t.Run(fmt.Sprintf("track=%s,away=%v", way, away), func(t *testing.T) {
				dir, notes := t.TempDir(), t.TempDir()
				o := options(dir)
				o.Track = way
				a, err := shell.Open(o)
				if fail.Is(err, fail.Unsupported) {
					t.Skipf("skipped: %v", err)
				}
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = a.Close() }()
				h := place(t, a, "family", fmt.Sprintf(family, notes))
				supervisor, main, orphan := pid(t, notes+"/supervisor"), pid(t, notes+"/main"), pid(t, notes+"/orphan")
				if away {
					if err := a.Close(); err != nil {
						t.Fatal(err)
					}
				}
				if err := unix.Kill(supervisor, unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
				if away {
					gone(t, supervisor)
					if a, err = shell.Open(o); err != nil {
						t.Fatal(err)
					}
				}
				e := final(t, a, h)
				if e.Phase != adapters.Lost || e.NotRun || !strings.Contains(e.Reason, "supervisor was killed") || e.Started.IsZero() || e.Ended.IsZero() {
					t.Errorf("the job is %+v", e)
				}
				gone(t, main)
				gone(t, orphan)
				if again := place(t, a, "family", "exit 0"); string(again) != string(h) || status(t, a, again).Phase != adapters.Lost {
					t.Errorf("placed again it is %+v", status(t, a, again))
				}
				r, err := a.Resources(t.Context())
				c := r.Capacity()
				if err != nil || c.FreeSlots != c.Slots {
					t.Errorf("%d of %d slots are free (%v)", c.FreeSlots, c.Slots, err)
				}
				// And the site goes on.
				if e := final(t, a, place(t, a, "next", "exit 3")); e.ExitStatus == nil || *e.ExitStatus != 3 {
					t.Errorf("the next job is %+v", e)
				}
			})
		}
	}
}

// A directory of jobs has one gateway at a time.
func TestTwoGateways(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, err := shell.Open(options(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if _, err := shell.Open(options(dir)); !fail.Is(err, fail.Conflict) {
		t.Errorf("a second gateway opens with %v, want a conflict", err)
	}
}

// A supervisor that can't be run, or that dies at once, is no reason to lose jobs
// or to try for ever.
func TestBadSupervisor(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir())
	o.Supervisor = []string{"/bin/false"}
	a, err := shell.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	e := final(t, a, place(t, a, "doomed", "exit 0"))
	if e.Phase != adapters.Stopped || !e.NotRun || !strings.Contains(e.Reason, "supervisors") {
		t.Errorf("under supervisors that die the job is %+v", e)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	o.Supervisor = []string{"/no/such/supervisor"}
	if a, err = shell.Open(o); err != nil {
		t.Fatal(err)
	}
	h := place(t, a, "waits", "exit 4")
	wait(t, "word of the trouble", func() bool { e := status(t, a, h); return e.Phase == adapters.Queued && e.Reason != "" })
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	o.Supervisor = nil
	if a, err = shell.Open(o); err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	if e := final(t, a, h); e.ExitStatus == nil || *e.ExitStatus != 4 {
		t.Errorf("with a supervisor again the job is %+v", e)
	}
}

// First in, first out; and a job that wants the machine for itself gets it.
func TestQueue(t *testing.T) {
	t.Parallel()
	o := options(t.TempDir())
	o.Slots = 1
	a, err := shell.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	order := filepath.Join(t.TempDir(), "order")
	var handles []adapters.Handle
	for i := range 10 {
		handles = append(handles, place(t, a, adapters.Tag(fmt.Sprintf("q-%d", i)), fmt.Sprintf("echo %d >> %s", i, order)))
	}
	for _, h := range handles {
		final(t, a, h)
	}
	if data, err := os.ReadFile(order); err != nil || string(data) != "0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n" {
		t.Errorf("the jobs ran in the order %q (%v)", data, err)
	}
}
