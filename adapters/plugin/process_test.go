package plugin

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// journal is a log that a test reads.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.b.Len() > 16<<20 {
		return len(p), nil
	}
	return j.b.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

func (j *journal) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func openText(t *testing.T, text string, j *journal) (adapters.Adapter, error) {
	t.Helper()
	s, err := adapters.ParseSettings(text)
	if err != nil {
		t.Fatal(err)
	}
	c := adapters.Config{Site: "here", Dir: t.TempDir(), Settings: s}
	if j != nil {
		c.Log = j.logger()
	}
	return Open(c)
}

func mustOpen(t *testing.T, text string, j *journal) adapters.Adapter {
	t.Helper()
	a, err := openText(t, text, j)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return a
}

// eventually asks again until it holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(2 * time.Minute)
	defer deadline.Stop()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for !ok() {
		select {
		case <-again.C:
		case <-deadline.C:
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "X")
}

// pidOf finds the program of a host.
func pidOf(t *testing.T, a adapters.Adapter) int {
	t.Helper()
	data, err := exec.Command("pgrep", "-P", strconv.Itoa(os.Getpid())).Output()
	if err != nil {
		t.Fatal(err)
	}
	_ = a
	for f := range strings.FieldsSeq(string(data)) {
		pid, _ := strconv.Atoi(f)
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if bytes.Contains(line, []byte("a-plug-in")) && !gone(pid) {
			return pid
		}
	}
	t.Fatal("the plug-in's program is not there")
	return 0
}

func up(a adapters.Adapter) func() bool { return func() bool { return a.Health().Problem == "" } }

func TestProgram(t *testing.T) {
	j := &journal{}
	a := mustOpen(t, command(t, "fake")+"settings: {slots: 3}", j)
	if p := a.Properties(); p.Type != "fake" || !p.Push || !p.Suspend || !p.Hold {
		t.Errorf("Properties %+v", p)
	}
	r, err := a.Resources(t.Context())
	if err != nil || r.Shares[0].Slots != 3 {
		t.Errorf("the settings did not arrive: %+v, %v", r, err)
	}
	p := a.Submit(t.Context(), []adapters.Job{{Tag: "one", Definition: script("out hello; exit 7")}})
	if p[0].Err != nil {
		t.Fatal(p[0].Err)
	}
	e, err := a.Status(t.Context(), []adapters.Handle{p[0].Handle})
	if err != nil || e[0].Phase != adapters.Exited || *e[0].ExitStatus != 7 {
		t.Errorf("%+v, %v", e, err)
	}
	eventually(t, "the plug-in's log", func() bool {
		return strings.Contains(j.String(), `level=INFO msg="the fake site is open"`)
	})
}

// What is wrong for good is an error of Open, in a sentence.
func TestRefusedForGood(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, text string
		kind       fail.Kind
		words      []string
	}{
		{"nothing", "", fail.Invalid, []string{"command"}},
		{"no such key", "comand: [x]", fail.Invalid, []string{"comand", "command"}},
		{"missing", "command: [/no/such/plug-in]", fail.Invalid, []string{"/no/such/plug-in"}},
		{"not in PATH", "command: [no-such-plug-in]", fail.Invalid, []string{"no-such-plug-in"}},
		{"relative", "command: [./x]", fail.Invalid, []string{"./x", "whole path"}},
		{"a directory", "command: [/tmp]", fail.Invalid, []string{"/tmp"}},
		{"cookie", command(t, "fake") + "environment: {PLUGIN_CLIENT_CERT: x}", fail.Invalid, []string{"PLUGIN_CLIENT_CERT"}},
		{"variable", command(t, "fake") + `environment: {"a=b": x}`, fail.Invalid, []string{"a=b"}},
		{"time", command(t, "fake") + "callTimeout: -1s", fail.Invalid, []string{"callTimeout"}},
		{"pin", command(t, "fake") + "sha256: abc", fail.Invalid, []string{"sha256"}},
		{"other pin", command(t, "fake") + "sha256: " + strings.Repeat("0a", 32), fail.Invalid, []string{"sha256", self}},
		{"the plug-in's settings", command(t, "fake") + "settings: {slotz: 1}", fail.Invalid, []string{"slotz", "slots"}},
		{"the plug-in's word", command(t, "refuses"), fail.Invalid, []string{"colour: write one that there is, site here"}},
		{"version", command(t, "prints", "1|2|unix|/tmp/x|grpc|"), fail.Unsupported, []string{"version 2", "version 1"}},
		{"version 0", command(t, "prints", "1|0|unix|/tmp/x|grpc|"), fail.Unsupported, []string{"version 0", "version 1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := openText(t, c.text, nil)
			if err == nil {
				_ = a.Close()
			}
			if !fail.Is(err, c.kind) {
				t.Fatalf("Open gives %v, want %v", err, c.kind)
			}
			for _, w := range c.words {
				if !strings.Contains(fail.Sentence(err), w) {
					t.Errorf("the sentence %q does not name %q", fail.Sentence(err), w)
				}
			}
		})
	}
}

// What may be better later leaves the site open, down, with a reason.
func TestBrokenForNow(t *testing.T) {
	long := strings.Repeat("x", maxLine+10)
	for _, c := range []struct {
		name, text string
		words      []string
	}{
		{"silent", command(t, "silent") + "startTimeout: 300ms", []string{"300ms"}},
		{"exits", command(t, "exits"), []string{"no licence for this"}},
		{"greets", command(t, "prints", "hello"), []string{"hello", "handshake"}},
		{"long line", command(t, "prints", long), []string{"handshake"}},
		{"no line", command(t, "newline"), []string{"handshake"}},
		{"floods", command(t, "floods"), []string{"flood", "handshake"}},
		{"net/rpc", command(t, "prints", "1|1|unix|/tmp/x|netrpc|"), []string{"netrpc"}},
		{"core", command(t, "prints", "9|1|unix|/tmp/x|grpc|"), []string{"9|1"}},
		{"letters", command(t, "prints", "1|one|unix|/tmp/x|grpc|"), []string{"one"}},
		{"no TLS", command(t, "prints", "1|1|unix|/tmp/x|grpc|"), []string{"certificate", "tls"}},
		{"TLS unasked", command(t, "prints", "1|1|unix|/tmp/x|grpc|"+strings.Repeat("A", 100)) + "tls: false", []string{"certificate"}},
		{"bad certificate", command(t, "prints", "1|1|unix|/tmp/x|grpc|"+strings.Repeat("A", 100)), []string{"cert"}},
		{"elsewhere", command(t, "prints", "1|1|unix|/tmp/x|grpc|") + "tls: false", []string{"/tmp/x"}},
		{"network", command(t, "prints", "1|1|tcp|10.0.0.1:80|grpc|"+strings.Repeat("A", 100)), []string{"10.0.0.1"}},
		{"udp", command(t, "prints", "1|1|udp|x|grpc|"+strings.Repeat("A", 100)), []string{"udp"}},
		{"panics", command(t, "panics"), []string{"cheese"}},
		{"no gRPC", command(t, "speaks") + "tls: false\nstartTimeout: 2s", []string{"could not be opened"}},
		{"environment", command(t, "environ") + "environment: {MINE: yes}", []string{"MINE=yes", "PATH=true"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("SECRET_OF_THE_GATEWAY", "secret")
			a := mustOpen(t, c.text, nil)
			problem := a.Health().Problem
			for _, w := range c.words {
				if !strings.Contains(problem, w) {
					t.Errorf("the problem %q does not name %q", problem, w)
				}
			}
			if strings.Contains(problem, "secret") {
				t.Errorf("the gateway's environment reaches the plug-in: %q", problem)
			}
			if p := a.Submit(t.Context(), []adapters.Job{{Tag: "x", Definition: script("exit 0")}}); !fail.Is(p[0].Err, fail.Unavailable) {
				t.Errorf("Submit gives %v", p[0].Err)
			}
			if _, err := a.Find(t.Context(), []adapters.Tag{"x"}); !fail.Is(err, fail.Unavailable) {
				t.Errorf("Find gives %v", err)
			}
			if err := a.Check(script("exit 0")); !fail.Is(err, fail.Unavailable) {
				t.Errorf("Check gives %v", err)
			}
		})
	}
}

func TestPin(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Clean(self))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	a := mustOpen(t, command(t, "fake")+"sha256: "+hex.EncodeToString(sum[:]), nil)
	if h := a.Health(); h.Problem != "" {
		t.Error(h.Problem)
	}
}

// A killed plug-in is started again; its handles stay good, Watch goes on, and the
// reason can be read.
func TestKilled(t *testing.T) {
	a := mustOpen(t, command(t, "fake"), nil)
	pushed := make(chan adapters.Evidence, 100)
	ctx, stop := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() {
		_ = a.(adapters.Watcher).Watch(ctx, func(all []adapters.Evidence) {
			for _, e := range all {
				pushed <- e
			}
		})
	})
	defer watching.Wait()
	defer stop()
	p := a.Submit(t.Context(), []adapters.Job{{Tag: "before", Definition: script("hang")}})
	if p[0].Err != nil {
		t.Fatal(p[0].Err)
	}
	pid := pidOf(t, a)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new start", func() bool { return up(a)() && len(a.Health().Remarks) > 0 })
	if r := strings.Join(a.Health().Remarks, "\n"); !strings.Contains(r, "1 times") || !strings.Contains(r, "killed") {
		t.Errorf("remarks: %q", r)
	}
	// The fake's world died with the program, so the job is lost, and this is pushed.
	for {
		e := <-pushed
		if e.Tag == "before" && e.Phase == adapters.Lost {
			break
		}
	}
	e, err := a.Status(t.Context(), []adapters.Handle{p[0].Handle})
	if err != nil || e[0].Phase != adapters.Lost || e[0].Tag != "before" {
		t.Errorf("%+v, %v", e, err)
	}
}

// An answer that the crash took away is uncertain, and then Find knows.
func TestCrashInSubmit(t *testing.T) {
	a := mustOpen(t, command(t, "fake"), nil)
	p := a.Submit(t.Context(), []adapters.Job{{Tag: "crash-1", Definition: script("exit 0")}, {Tag: "other", Definition: script("exit 0")}})
	for _, one := range p {
		if !fail.Is(one.Err, fail.Uncertain) {
			t.Errorf("a submission that a crash took gives %v", one.Err)
		}
	}
	eventually(t, "the new start", up(a))
	found, err := a.Find(t.Context(), []adapters.Tag{"crash-1", "other"})
	if err != nil || len(found) != 0 {
		t.Errorf("Find gives %v, %v", found, err)
	}
}

// A plug-in that does not answer is ended; Find waits until it is.
func TestHangInSubmit(t *testing.T) {
	a := mustOpen(t, command(t, "fake")+"callTimeout: 5s", nil)
	pid := pidOf(t, a)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	p := a.Submit(ctx, []adapters.Job{{Tag: "hang-1", Definition: script("exit 0")}})
	if !fail.Is(p[0].Err, fail.Uncertain) {
		t.Errorf("a submission that hangs gives %v", p[0].Err)
	}
	if _, err := a.Find(ctx, []adapters.Tag{"hang-1"}); err == nil {
		t.Error("Find answers while the submission is under way")
	}
	// Others are not kept waiting.
	if p := a.Submit(t.Context(), []adapters.Job{{Tag: "other", Definition: script("exit 0")}}); p[0].Err != nil {
		t.Error(p[0].Err)
	}
	eventually(t, "Find to know", func() bool {
		found, err := a.Find(t.Context(), []adapters.Tag{"hang-1"})
		return err == nil && len(found) == 0
	})
	if !gone(pid) {
		t.Error("the plug-in that hung is still there")
	}
	if r := strings.Join(a.Health().Remarks, "\n"); !strings.Contains(r, "did not answer Submit within 5s") {
		t.Errorf("remarks: %q", r)
	}
}

// A stopped plug-in can't keep Close waiting, nor be left behind.
func TestCloseOfAStoppedPlugin(t *testing.T) {
	a, err := openText(t, command(t, "fake"), nil)
	if err != nil {
		t.Fatal(err)
	}
	pid := pidOf(t, a)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if h := a.Health(); h.Path == "" {
		t.Errorf("health of a stopped plug-in: %+v", h)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if !gone(pid) {
		t.Error("the plug-in outlives Close")
	}
}

// What a plug-in left in its group ends with it, and can't hide its end.
func TestLitter(t *testing.T) {
	j := &journal{}
	a := mustOpen(t, command(t, "litter"), j)
	var litter int
	eventually(t, "the litter", func() bool {
		m := regexp.MustCompile(`litter (\d+)`).FindStringSubmatch(j.String())
		if m != nil {
			litter, _ = strconv.Atoi(m[1])
		}
		return m != nil
	})
	if err := syscall.Kill(pidOf(t, a), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the litter's end", func() bool { return gone(litter) })
	eventually(t, "the new start", func() bool { return up(a)() && len(a.Health().Remarks) > 0 })
}

// A flood of noise costs little, and the plug-in goes on.
func TestNoise(t *testing.T) {
	for _, name := range []string{"noise", "chatter"} {
		j := &journal{}
		a := mustOpen(t, command(t, name), j)
		for i := range 50 {
			if p := a.Submit(t.Context(), []adapters.Job{{Tag: adapters.Tag(fmt.Sprint("t", i)), Definition: script("exit 0")}}); p[0].Err != nil {
				t.Fatal(p[0].Err)
			}
		}
		if n := strings.Count(j.String(), "\n"); n > 5*logBurst {
			t.Errorf("%s: %d lines were logged", name, n)
		}
	}
}

// TestGatewayDies: a plug-in does not outlive the gateway, however that ended.
func TestGatewayDies(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := exec.Command(self, "a-plug-in", "gateway", dir)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	if gone(pid) {
		t.Fatal("the plug-in is not there")
	}
	_ = c.Process.Kill()
	_ = c.Wait()
	eventually(t, "the plug-in's end", func() bool { return gone(pid) })
}

func init() {
	children["gateway"] = func(args []string) {
		s, err := adapters.ParseSettings(fmt.Sprintf("command: [%q, a-plug-in, fake]", os.Args[0]))
		if err != nil {
			panic(err)
		}
		if _, err := Open(adapters.Config{Site: "s", Dir: args[0], Settings: s}); err != nil {
			panic(err)
		}
		data, _ := exec.Command("pgrep", "-P", strconv.Itoa(os.Getpid()), "-f", "a-plug-in fake").Output()
		fmt.Println(strings.TrimSpace(string(data)))
		select {}
	}
}
