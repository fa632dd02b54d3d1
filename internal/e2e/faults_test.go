package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/testenv"
	"github.com/portolan-project/portolan/jsdl"
)

// posixJob gives a document from the content of its POSIXApplication.
func posixJob(content string) []byte {
	return fmt.Appendf(nil, `<j:JobDefinition xmlns:j="%s"><j:JobDescription><j:Application><p:POSIXApplication xmlns:p="%s">%s</p:POSIXApplication></j:Application></j:JobDescription></j:JobDefinition>`,
		jsdl.NS, jsdl.NSPOSIX, content)
}

func shellJob(script string) []byte {
	return posixJob(`<p:Executable>/bin/sh</p:Executable><p:Argument>-c</p:Argument><p:Argument>` +
		strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(script) + `</p:Argument>`)
}

func submit(t testing.TB, g *gateway, document []byte) soap.EPR {
	t.Helper()
	r, err := g.client().CreateActivity(t.Context(), &bes.CreateActivityRequest{Document: document})
	if err != nil {
		t.Fatal(err)
	}
	return r.Activity
}

// final waits for the end of an activity.
func final(t testing.TB, g *gateway, e soap.EPR) bes.Status {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	s, err := waitFinal(ctx, g.client(), e)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wantFailed wants an activity that failed, with a sentence in its status that
// holds one of these words, and the same in the last line of its history.
func wantFailed(t testing.TB, g *gateway, e soap.EPR, words ...string) {
	t.Helper()
	s := final(t, g, e)
	why := reason(s)
	if s.State != bes.Failed {
		t.Fatalf("the activity is %s (%s): wanted Failed", s.State, why)
	}
	holds := false
	for _, w := range words {
		holds = holds || strings.Contains(strings.ToLower(why), strings.ToLower(w))
	}
	if !holds || len(strings.Fields(why)) < 3 {
		t.Errorf("the status says %q: wanted a sentence with one of %q", why, words)
	}
	h, err := g.client().GetActivityHistory(t.Context(), e)
	if err != nil {
		t.Fatal(err)
	}
	if len(h) == 0 || h[len(h)-1].State != bes.Failed || h[len(h)-1].Reason != why {
		t.Errorf("the history does not end with the status's sentence %q: %+v", why, h)
	}
	t.Logf("%s", why)
}

// TestWhatCannotStart: each of these jobs fails with a sentence that says why.
func TestWhatCannotStart(t *testing.T) {
	g := start(t)
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(dir, "foreign")
	if err := os.WriteFile(foreign, []byte("\x00\x01\x02not a program"), 0o700); err != nil {
		t.Fatal(err)
	}
	orphan := filepath.Join(dir, "orphan")
	if err := os.WriteFile(orphan, []byte("#!/no/such/interpreter\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	run := `<p:Executable>/bin/true</p:Executable>`
	for name, c := range map[string]struct {
		content string
		words   []string
	}{
		"missing executable":        {`<p:Executable>/no/such/program</p:Executable>`, []string{"no such", "not exist", "not found", "missing"}},
		"a file without permission": {`<p:Executable>` + plain + `</p:Executable>`, []string{"permission", "executable"}},
		"a directory":               {`<p:Executable>/tmp</p:Executable>`, []string{"permission", "directory", "executable"}},
		"no program":                {`<p:Executable>` + foreign + `</p:Executable>`, []string{"program"}},
		"missing interpreter":       {`<p:Executable>` + orphan + `</p:Executable>`, []string{"no such", "not exist", "not found", "interpreter"}},
		"missing input":             {run + `<p:Input>/no/such/input</p:Input>`, []string{"/no/such/input"}},
		// Even root cannot make anything in /proc.
		"unwritable working directory": {run + `<p:WorkingDirectory>/proc/portolan/work</p:WorkingDirectory>`, []string{"/proc/portolan"}},
		"unwritable output":            {run + `<p:Output>/proc/portolan/out</p:Output>`, []string{"/proc/portolan"}},
		"a file in the way":            {run + `<p:WorkingDirectory>` + plain + `</p:WorkingDirectory>`, []string{plain}},
	} {
		t.Run(name, func(t *testing.T) {
			wantFailed(t, g, submit(t, g, posixJob(c.content)), c.words...)
		})
	}
}

// pids reads the numbers that a job wrote to a file, once there are as many.
func pids(t *testing.T, g *gateway, e soap.EPR, file string, n int) []int {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	running := func(s bes.Status) bool { return s.State == bes.Running }
	if _, err := waitFor(ctx, g.client(), e, running); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		b, err := os.ReadFile(file)
		if f := strings.Fields(string(b)); err == nil && len(f) == n && strings.HasSuffix(string(b), "\n") {
			var out []int
			for _, s := range f {
				p, err := strconv.Atoi(s)
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, p)
			}
			return out
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the job did not write %s", file)
		}
	}
}

// gone waits until a process is no more, or only a zombie.
func gone(t *testing.T, pid int) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			return
		}
		if i := strings.LastIndexByte(string(b), ')'); i >= 0 && strings.HasPrefix(string(b)[i:], ") Z") {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Errorf("process %d is still there: %.80s", pid, b)
			return
		}
	}
}

// TestKilledSupervisor kills what looks after a running job, with the gateway
// there and without it: the job fails with a sentence, and nothing of its tree
// is left.
func TestKilledSupervisor(t *testing.T) {
	for _, withGateway := range []bool{true, false} {
		t.Run(map[bool]string{true: "gateway up", false: "gateway down"}[withGateway], func(t *testing.T) {
			data, file := t.TempDir(), filepath.Join(t.TempDir(), "pids")
			log := new(logFile)
			g, err := launch(t.Context(), data, log)
			if err != nil {
				t.Fatal(err)
			}
			// The grandchild is the one that a careless kill would leave behind.
			e := submit(t, g, shellJob(`(setsid sleep 600 & echo $! > `+file+`.child); sleep 600 & echo $PPID $$ $! $(cat `+file+`.child) > `+file+`; wait`))
			ps := pids(t, g, e, file, 4)
			if !withGateway {
				g.kill()
			}
			if err := syscall.Kill(ps[0], syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			gone(t, ps[0])
			if !withGateway {
				g, err = launch(t.Context(), data, log)
				if err != nil {
					t.Fatal(err)
				}
			}
			t.Cleanup(func() {
				endAll(t, g)
				g.stop(t)
				if t.Failed() {
					t.Logf("the gateway's log:\n%s", log.tail())
				}
			})
			wantFailed(t, g, e, "supervisor")
			for _, p := range ps[1:] {
				gone(t, p)
			}
		})
	}
}

// TestAdopted: a job that runs while the gateway is killed keeps running, and the
// next gateway knows its end, whether it came meanwhile or comes later.
func TestAdopted(t *testing.T) {
	for _, meanwhile := range []bool{true, false} {
		t.Run(map[bool]string{true: "ended meanwhile", false: "ends later"}[meanwhile], func(t *testing.T) {
			data, dir := t.TempDir(), t.TempDir()
			file, fifo := filepath.Join(dir, "pids"), filepath.Join(dir, "go")
			if err := syscall.Mkfifo(fifo, 0o600); err != nil {
				t.Fatal(err)
			}
			log := new(logFile)
			g, err := launch(t.Context(), data, log)
			if err != nil {
				t.Fatal(err)
			}
			e := submit(t, g, shellJob(`echo $PPID $$ > `+file+`; echo before; cat `+fifo+`; echo after >&2; exit 42`))
			ps := pids(t, g, e, file, 2)
			g.kill()
			release := func() {
				f, err := os.OpenFile(fifo, os.O_WRONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := f.WriteString("word\n"); err != nil {
					t.Fatal(err)
				}
				if err := f.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if meanwhile {
				release()
				gone(t, ps[1])
			}
			g = startOn(t, data)
			if !meanwhile {
				release()
			}
			s := final(t, g, e)
			if s.State != bes.Finished || s.Details == nil || s.Details.ExitStatus == nil || *s.Details.ExitStatus != 42 {
				t.Errorf("ended as %s with %+v: wanted Finished with 42", s.State, s.Details)
			}
			for stream, want := range map[bes.Stream]string{bes.Stdout: "before\nword\n", bes.Stderr: "after\n"} {
				if got, err := readStream(t.Context(), g.client(), e, stream); err != nil || string(got) != want {
					t.Errorf("%s is %q, %v: wanted %q", stream, got, err, want)
				}
			}
		})
	}
}

// smallDisk mounts a file system of so many MiB for the test, which only root can.
func smallDisk(t *testing.T, mib int) string {
	t.Helper()
	if os.Geteuid() != 0 {
		testenv.Missing(t, "only root can mount a small file system to fill")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0700", mib)); err != nil {
		testenv.Missing(t, "a small file system can't be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	return dir
}

// fill writes a file until its disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4096, 1} {
		b := make([]byte, size)
		for {
			if _, err := f.Write(b); err != nil {
				break
			}
		}
	}
}

// TestFullDisk fills the gateway's disk: new work is refused with a sentence,
// what is known can still be read, and once there is room the gateway goes on,
// restarted at the latest.
func TestFullDisk(t *testing.T) {
	disk := smallDisk(t, 400)
	data := filepath.Join(disk, "data")
	log := new(logFile)
	g, err := launch(t.Context(), data, log)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		endAll(t, g)
		g.stop(t)
		if t.Failed() {
			t.Logf("the gateway's log:\n%s", log.tail())
		}
	}()
	first := submit(t, g, shellJob("echo kept"))
	final(t, g, first)
	filler := filepath.Join(disk, "filler")
	fill(t, filler)

	// Files that are open may have room set aside: some more may be taken. In the
	// end the answer is a refusal, or the jobs fail, each with a sentence.
	c := g.client()
	refused := ""
	for i := 0; i < 5000 && refused == ""; i++ {
		r, err := c.CreateActivity(t.Context(), &bes.CreateActivityRequest{Document: shellJob(fmt.Sprintf("echo %d", i))})
		if err != nil {
			k := fail.KindOf(err)
			if k != fail.Exhausted && k != fail.Unavailable && k != fail.NotAccepting && k != fail.Internal {
				t.Fatalf("a full disk is a %s: %v", k, err)
			}
			refused = fail.Sentence(err)
			break
		}
		if s := final(t, g, r.Activity); s.State == bes.Failed {
			refused = reason(s)
		}
	}
	t.Logf("on a full disk: %s", refused)
	if !strings.Contains(refused, "full") && !strings.Contains(refused, "space") && !strings.Contains(refused, "room") {
		t.Errorf("a full disk is told as %q", refused)
	}
	// Reads are still served.
	if got, err := readStream(t.Context(), c, first, bes.Stdout); err != nil || string(got) != "kept\n" {
		t.Errorf("what was there is %q, %v", got, err)
	}
	if _, err := c.GetFactoryAttributesDocument(t.Context()); err != nil {
		t.Errorf("the factory's attributes: %v", err)
	}
	if r, err := c.GetActivityDocuments(t.Context(), []soap.EPR{first}); err != nil || len(r) != 1 || r[0].Err != nil {
		t.Errorf("a document: %+v, %v", r, err)
	}

	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for again := false; ; {
		r, err := c.CreateActivity(ctx, &bes.CreateActivityRequest{Document: shellJob("echo again")})
		if err == nil {
			if s := final(t, g, r.Activity); s.State == bes.Finished {
				break
			}
		}
		select {
		case <-tick.C:
			continue
		case <-g.exited:
		case <-ctx.Done():
		}
		if again {
			t.Fatalf("with room again and after a restart, work is still refused: %v", err)
		}
		t.Logf("with room again the gateway needed a restart: %v", err)
		again = true
		g.kill()
		if g, err = launch(t.Context(), data, log); err != nil {
			t.Fatal(err)
		}
		c = g.client()
		ctx, stop = context.WithTimeout(t.Context(), 2*time.Minute) //nolint:fatcontext // one more try
		defer stop()
	}
	if got, err := readStream(t.Context(), c, first, bes.Stdout); err != nil || string(got) != "kept\n" {
		t.Errorf("after the full disk, what was there is %q, %v", got, err)
	}
}

// TestOutcome: the program's own verbs over the real thing, as the README has
// them: an exit status that is not 0 is Finished, and submit --wait exits 1.
func TestOutcome(t *testing.T) {
	g := start(t)
	doc := filepath.Join(t.TempDir(), "job.jsdl")
	if err := os.WriteFile(doc, shellJob("echo out; echo err >&2; exit 3"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, errs, code := portolan(t, "submit", "--endpoint", g.endpoint, "--wait", doc)
	if code != 1 {
		t.Errorf("submit --wait exits %d: wanted 1\n%s%s", code, out, errs)
	}
	out, errs, code = portolan(t, "status", "--endpoint", g.endpoint, "-o", "json")
	if code != 0 || !strings.Contains(out, `"Finished"`) || !strings.Contains(strings.ReplaceAll(out, " ", ""), `"exitStatus":3`) {
		t.Errorf("status exits %d\n%s%s", code, out, errs)
	}
	id, errs, code := portolan(t, "status", "--endpoint", g.endpoint, "-o", "name")
	if code != 0 || strings.TrimSpace(id) == "" {
		t.Fatalf("status -o name exits %d\n%s%s", code, id, errs)
	}
	out, errs, code = portolan(t, "output", "--endpoint", g.endpoint, strings.TrimSpace(id))
	if code != 0 || !strings.Contains(out, "out\n") || !strings.Contains(out+errs, "err\n") {
		t.Errorf("output exits %d: %q, %q", code, out, errs)
	}
}
