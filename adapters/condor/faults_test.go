package condor_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/adaptertest"
	"github.com/portolan-project/portolan/internal/testbed"
	"github.com/portolan-project/portolan/jsdl"
)

// world is an adapter on a pool, for tests of what the suite does not know.
type world struct {
	testing.TB
	c *testbed.Condor
	a adapters.Adapter
	n int
}

func (w *world) submit(d *jsdl.JobDefinition) adapters.Handle {
	w.Helper()
	w.n++
	p := w.a.Submit(context.Background(), []adapters.Job{{Tag: adapters.Tag(fmt.Sprintf("t-%d", w.n)), Definition: d, Owner: "tester"}})
	if p[0].Err != nil {
		w.Fatal(p[0].Err)
	}
	return p[0].Handle
}

func (w *world) status(h adapters.Handle) adapters.Evidence {
	w.Helper()
	all, err := w.a.Status(context.Background(), []adapters.Handle{h})
	if err != nil {
		w.Fatal(err)
	}
	return all[0]
}

// until waits for a phase.
func (w *world) until(h adapters.Handle, p adapters.Phase) adapters.Evidence {
	w.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		e := w.status(h)
		if e.Phase == p {
			return e
		}
		if e.Phase.Final() || time.Now().After(deadline) {
			w.Fatalf("waiting for %v: the job is %v: %s (%v)", p, e.Phase, e.Reason, e.Err)
		}
		<-time.After(50 * time.Millisecond)
	}
}

func (w *world) output(h adapters.Handle, s adapters.Stream) string {
	w.Helper()
	r, err := w.a.Output(context.Background(), h, s, 0)
	if err != nil {
		w.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		w.Fatal(err)
	}
	return string(data)
}

// id gives the number of a job at the schedd.
func (w *world) id(h adapters.Handle) string {
	w.Helper()
	return w.status(h).Attributes["JobId"]
}

// appears waits for a file.
func appears(t testing.TB, path string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; <-time.After(20 * time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not appear", path)
		}
	}
}

func says(t testing.TB, e adapters.Evidence, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(e.Reason, word) {
			t.Errorf("%q does not say %q", e.Reason, word)
		}
	}
}

var (
	hang   = adaptertest.POSIX(adaptertest.Behaviour{Hang: true})
	status = func(n int) *jsdl.JobDefinition {
		return adaptertest.POSIX(adaptertest.Behaviour{Stdout: "out", Stderr: "err", Exit: n})
	}
)

// What others do to jobs is told as what it is.
func TestOthers(t *testing.T) {
	c := testbed.StartCondor(t, testbed.CondorOptions{Conf: quick})
	site := dir(t, c)
	w := &world{TB: t, c: c, a: open(t, c, site, "requestsPerSecond: 50\npoll: 1s")}
	t.Cleanup(func() { _ = w.a.Close() })
	n := 0
	run := func(name string, f func(t *testing.T, w *world)) {
		n += 100
		t.Run(name, func(t *testing.T) { f(t, &world{TB: t, c: c, a: w.a, n: n}) })
	}
	run("removed", func(t *testing.T, w *world) {
		h := w.submit(hang)
		w.until(h, adapters.Running)
		c.MustRun(t, "condor_rm", "-reason", "for the tests", w.id(h))
		says(t, w.until(h, adapters.Stopped), "somebody else", "for the tests")
	})
	run("held", func(t *testing.T, w *world) {
		h := w.submit(hang)
		w.until(h, adapters.Running)
		c.MustRun(t, "condor_hold", "-reason", "to be looked at", w.id(h))
		says(t, w.until(h, adapters.Held), "user or an administrator", "to be looked at")
		// It was begun, and is not begun again.
		c.MustRun(t, "condor_release", w.id(h))
		says(t, w.until(h, adapters.Stopped), "Rerunnable")
	})
	run("vacated", func(t *testing.T, w *world) {
		path := filepath.Join(dir(t, c), "runs")
		h := w.submit(adaptertest.Command("/bin/sh", "-c", `: > "$1"; sleep 1000`, "sh", path))
		appears(t, path)
		w.until(h, adapters.Running)
		c.MustRun(t, "condor_vacate_job", "-fast", w.id(h))
		if e := w.until(h, adapters.Stopped); e.NotRun {
			t.Error("a job that ran is said not to have run")
		} else {
			says(t, e, "Rerunnable")
		}
	})
	run("vacated-rerunnable", func(t *testing.T, w *world) {
		yes, path := true, filepath.Join(dir(t, c), "starts")
		d := adaptertest.Command("/bin/sh", "-c", `echo >> "$1"; [ $(wc -l < "$1") -gt 1 ] && exit 9; while :; do sleep 1000; done`, "sh", path)
		d.Description.Resources = &jsdl.Resources{Placement: &jsdl.Placement{Rerunnable: &yes}}
		h := w.submit(d)
		w.until(h, adapters.Running)
		appears(t, path)
		c.MustRun(t, "condor_vacate_job", "-fast", w.id(h))
		if e := w.until(h, adapters.Exited); e.ExitStatus == nil || *e.ExitStatus != 9 {
			t.Errorf("the second run gives %+v", e)
		}
	})
	run("log-emptied", func(t *testing.T, w *world) {
		word := filepath.Join(dir(t, c), "word")
		h, later := w.submit(hang), w.submit(adaptertest.Command("/bin/sh", "-c", `until [ -e "$1" ]; do sleep 0.2; done; exit 4`, "sh", word))
		w.until(h, adapters.Running)
		w.until(later, adapters.Running)
		logs, err := filepath.Glob(filepath.Join(site, "site", "logs", "*.log"))
		if err != nil || len(logs) != 1 {
			t.Fatalf("the logs are %v, %v", logs, err)
		}
		if err := os.Truncate(logs[0], 0); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(word, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if e := w.until(later, adapters.Exited); *e.ExitStatus != 4 {
			t.Errorf("after the log was emptied the end is %+v", e)
		}
		w.until(h, adapters.Running)
		if errs := w.a.Cancel(t.Context(), []adapters.Handle{h}); errs[0] != nil {
			t.Fatal(errs[0])
		}
		w.until(h, adapters.Cancelled)
	})
	run("log-removed-while-away", func(t *testing.T, w *world) {
		h, ends := w.submit(hang), w.submit(status(6))
		w.until(h, adapters.Running)
		if err := w.a.Close(); err != nil {
			t.Fatal(err)
		}
		logs, _ := filepath.Glob(filepath.Join(site, "site", "logs", "*.log"))
		finals, _ := filepath.Glob(filepath.Join(site, "site", "jobs", "*", "final"))
		for _, f := range append(logs, finals...) {
			if err := os.Remove(f); err != nil {
				t.Fatal(err)
			}
		}
		w.a = open(t, c, site, "requestsPerSecond: 50\npoll: 1s")
		w.until(h, adapters.Running)
		if e := w.until(ends, adapters.Exited); *e.ExitStatus != 6 {
			t.Errorf("without a log the end is %+v", e)
		}
		if errs := w.a.Cancel(t.Context(), []adapters.Handle{h}); errs[0] != nil {
			t.Fatal(errs[0])
		}
		w.until(h, adapters.Cancelled)
		if err := w.a.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// A job that HTCondor holds for good is ended with the reason in words, or kept for an
// administrator who wants to look at it.
func TestHeldForGood(t *testing.T) {
	c := testbed.StartCondor(t, testbed.CondorOptions{Conf: quick})
	w := &world{TB: t, c: c, a: open(t, c, dir(t, c), "requestsPerSecond: 50\nrunner: /no/such/runner")}
	t.Cleanup(func() { _ = w.a.Close() })
	h := w.submit(hang)
	e := w.until(h, adapters.Stopped)
	says(t, e, "runner could not be started", "no such file")
	if !e.NotRun {
		t.Error("it is certain that the program never ran")
	}
	k := &world{TB: t, c: c, a: open(t, c, dir(t, c), "requestsPerSecond: 50\nrunner: /no/such/runner\nholds: keep")}
	t.Cleanup(func() { _ = k.a.Close() })
	h = k.submit(hang)
	says(t, k.until(h, adapters.Held), "runner could not be started")
	if errs := k.a.Cancel(t.Context(), []adapters.Handle{h}); errs[0] != nil {
		t.Fatal(errs[0])
	}
	if e := k.until(h, adapters.Cancelled); !e.NotRun {
		t.Error("it is certain that the program never ran")
	}
}

// Nodes that share no files, and a schedd that is elsewhere, run jobs as well.
func TestElsewhere(t *testing.T) {
	c := testbed.StartCondor(t, testbed.CondorOptions{Conf: append([]string{"NO_DNS=True", "DEFAULT_DOMAIN_NAME=testbed"}, quick...)}) // as names of loopback lead nowhere
	name := strings.Fields(c.MustRun(t, "condor_status", "-schedd", "-af", "Name"))[0]
	collector := strings.TrimSpace(c.MustRun(t, "condor_config_val", "COLLECTOR_HOST"))
	for path, settings := range map[string]string{
		"transfer": "transfer: true",
		"spool":    "spool: true\nschedd: " + name + "\npool: " + collector,
		"named":    "schedd: " + name + "\npool: " + collector,
	} {
		t.Run(path, func(t *testing.T) {
			site := dir(t, c)
			shims(t, c, site)
			settings := settings + "\nrequestsPerSecond: 50\npoll: 500ms"
			w := &world{TB: t, c: c, a: open(t, c, site, settings)}
			t.Cleanup(func() { _ = w.a.Close() })
			h := w.submit(status(7))
			killed := w.submit(adaptertest.POSIX(adaptertest.Behaviour{Signal: "SIGSEGV"}))
			gone := w.submit(adaptertest.POSIX(adaptertest.Behaviour{Missing: true}))
			long := w.submit(hang)
			if e := w.until(h, adapters.Exited); *e.ExitStatus != 7 || e.Started.IsZero() {
				t.Errorf("the end is %+v", e)
			}
			if out, errs := w.output(h, adapters.Stdout), w.output(h, adapters.Stderr); out != "out\n" || errs != "err\n" {
				t.Errorf("the outputs are %q and %q", out, errs)
			}
			if e := w.until(killed, adapters.Exited); e.Signal != "SIGSEGV" {
				t.Errorf("the end of a program that was killed is %+v", e)
			}
			if e := w.until(gone, adapters.Stopped); !e.NotRun {
				t.Errorf("the end of a missing program is %+v", e)
			} else {
				says(t, e, "does not exist")
			}
			w.until(long, adapters.Running)
			s := w.a.(adapters.Suspender)
			if errs := s.Suspend(t.Context(), []adapters.Handle{long}); errs[0] != nil {
				t.Errorf("Suspend: %v", errs[0])
			}
			w.until(long, adapters.Suspended)
			if err := w.a.Close(); err != nil {
				t.Fatal(err)
			}
			w.a = open(t, c, site, settings)
			w.until(long, adapters.Suspended)
			if errs := w.a.Cancel(t.Context(), []adapters.Handle{long}); errs[0] != nil {
				t.Fatal(errs[0])
			}
			w.until(long, adapters.Cancelled)
			for _, done := range []bool{true, false} {
				lose(t, site, done)
				w.n++
				tag := adapters.Tag(fmt.Sprintf("lost-%d", w.n))
				p := w.a.Submit(t.Context(), []adapters.Job{{Tag: tag, Definition: status(3), Owner: "tester"}})[0]
				if adapters.ClassOf(p.Err) == adapters.Permanent || p.Err == nil {
					t.Fatalf("a lost submission gives %+v", p)
				}
				found, err := w.a.Find(t.Context(), []adapters.Tag{tag})
				if _, ok := found[tag]; err != nil || ok != done {
					t.Fatalf("a submission that was done %v is found %v, %v", done, ok, err)
				}
				if done {
					if e := w.until(found[tag], adapters.Exited); *e.ExitStatus != 3 {
						t.Errorf("the end is %+v", e)
					}
				}
			}
			for _, h := range []adapters.Handle{h, killed, gone, long} {
				if err := w.a.Forget(t.Context(), h); err != nil {
					t.Errorf("Forget: %v", err)
				}
			}
		})
	}
}

// A schedd that hangs leaves a submission in doubt, and no job twice or lost.
func TestScheddHangs(t *testing.T) {
	c := testbed.StartCondor(t, testbed.CondorOptions{Conf: quick})
	site := dir(t, c)
	w := &world{TB: t, c: c, a: open(t, c, site, "requestsPerSecond: 50\npoll: 1s")}
	t.Cleanup(func() { _ = w.a.Close() })
	starts := filepath.Join(dir(t, c), "starts")
	if err := os.WriteFile(starts, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(starts, 0o666); err != nil {
		t.Fatal(err)
	}
	d := adaptertest.Command("/bin/sh", "-c", `echo >> "$1"; exit 5`, "sh", starts)
	c.Freeze(t, testbed.CondorSchedd)
	brief, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	p := w.a.Submit(brief, []adapters.Job{{Tag: "hung", Definition: d, Owner: "tester"}})[0]
	if class := adapters.ClassOf(p.Err); p.Err == nil || class == adapters.Permanent {
		t.Fatalf("a schedd that hangs gives %+v", p)
	}
	if found, err := w.a.Find(brief, []adapters.Tag{"hung"}); err == nil {
		t.Errorf("while the schedd hangs Find says %v for certain", found)
	}
	c.Thaw(t, testbed.CondorSchedd)
	var h adapters.Handle
	for deadline := time.Now().Add(2 * time.Minute); h == nil; <-time.After(100 * time.Millisecond) {
		found, err := w.a.Find(t.Context(), []adapters.Tag{"hung"})
		if err == nil {
			if h = found["hung"]; h == nil {
				p := w.a.Submit(t.Context(), []adapters.Job{{Tag: "hung", Definition: d, Owner: "tester"}})[0]
				if h = p.Handle; p.Err != nil && adapters.ClassOf(p.Err) == adapters.Permanent {
					t.Fatal(p.Err)
				}
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the job can't be placed: %v", err)
		}
	}
	if e := w.until(h, adapters.Exited); *e.ExitStatus != 5 {
		t.Errorf("the end is %+v", e)
	}
	if data, err := os.ReadFile(starts); string(data) != "\n" {
		t.Errorf("the job was started %d times (%v)", len(data), err)
	}
}
