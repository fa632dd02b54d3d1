package slurm_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/adaptertest"
	"github.com/portolan-project/portolan/adapters/slurm"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/testbed"
)

// until waits for something that is looked at again and again.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(60 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("waited for %s in vain", what)
		}
	}
}

// The better way is used as long as it works, Health says which and why, and jobs do
// not mind the change. What the hook tells is known at once.
func TestWaysAndHook(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("skipped: a cluster with slurmrestd needs root")
	}
	t.Parallel()
	s := testbed.StartSlurm(t, testbed.SlurmOptions{
		REST: true, Files: map[string]string{"hook": slurm.Hook}, Conf: []string{"JobCompType=jobcomp/script", "JobCompLoc=%DIR%/hook"},
	})
	site := shared(t, s, 0o711)
	// So seldom that nothing is seen in time but what is told.
	a := open(t, s, filepath.Join(site, "data"), "slurmrestd: unix:"+s.RESTSocket+"\nevents: "+filepath.Join(s.Dir, "events")+"\npoll: 10m\nrequestsPerSecond: 50\nspool: "+filepath.Join(site, "spool")+"\n")
	defer func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}()
	if h := a.Health(); h.Path != slurm.PathRest("v0.0.38") || len(h.Remarks) != 0 || h.Problem != "" || len(h.Offered) != 2 {
		t.Errorf("with all in order Health is %+v", h)
	}
	place := func(tag adapters.Tag, command ...string) adapters.Handle {
		t.Helper()
		p := a.Submit(t.Context(), []adapters.Job{{Tag: tag, Definition: adaptertest.Command(command[0], command[1:]...)}})[0]
		if p.Err != nil {
			t.Fatal(p.Err)
		}
		return p.Handle
	}
	phase := func(h adapters.Handle) adapters.Evidence {
		t.Helper()
		all, err := a.Status(t.Context(), []adapters.Handle{h})
		if err != nil {
			t.Fatal(err)
		}
		return all[0]
	}
	// A job that never runs is ended by somebody else: the runner can't tell.
	blocker := place("blocker", "/bin/sleep", "1000")
	until(t, "the start", func() bool { return phase(blocker).Phase == adapters.Running })
	id := phase(blocker).Attributes["JobId"]
	if id == "" {
		out := s.MustRun(t, "squeue", "-h", "-o", "%i")
		id = strings.TrimSpace(out)
	}
	s.MustRun(t, "scancel", id)
	until(t, "the end that somebody else brought about", func() bool { return phase(blocker).Phase.Final() })
	if e := phase(blocker); e.Phase != adapters.Stopped || !strings.Contains(e.Reason, "cancelled") {
		t.Errorf("a job that somebody else cancelled is %+v", e)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "events"), []byte("\x00 nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	s.Kill(t, testbed.Slurmrestd)
	until(t, "the other way", func() bool {
		_, _ = a.Resources(t.Context())
		return a.Health().Path == slurm.PathCommands && a.Health().Problem == ""
	})
	if h := a.Health(); len(h.Remarks) == 0 || !strings.Contains(h.Remarks[0], "slurmrestd") {
		t.Errorf("Health does not say why slurmrestd is not used: %+v", h)
	}
	h := place("by-commands", "/bin/sh", "-c", "exit 3")
	until(t, "the end", func() bool { return phase(h).Phase.Final() })
	if e := phase(h); e.ExitStatus == nil || *e.ExitStatus != 3 {
		t.Errorf("by commands a job gives %+v", e)
	}
}

// Bad settings are refused by name; a manager that is away is not.
func TestOpen(t *testing.T) {
	for settings, word := range map[string]string{
		"nonsense: 1":              "nonsense",
		"spool: here":              "spool",
		"path: telnet":             "path",
		"path: slurmrestd":         "slurmrestd",
		"slurmrestd: ftp://x":      "slurmrestd",
		"poll: soon":               "poll",
		"requestsPerSecond: 0.01":  "requestsPerSecond",
		"umask: '999'":             "umask",
		"reservations: maybe":      "reservations",
		"share: a b":               "share",
		"container: [run]":         "container",
		"launchers: {x: [mpirun]}": "launchers",
		"token: relative":          "token",
		"fileSystems: {A: b}":      "fileSystems",
		"environment: {'a=b': c}":  "environment",
	} {
		parsed, err := adapters.ParseSettings(settings)
		if err != nil {
			t.Fatal(err)
		}
		_, err = slurm.Open(adapters.Config{Site: "s", Dir: t.TempDir(), Settings: parsed})
		if !fail.Is(err, fail.Invalid) || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: Open gives %v, want fail.Invalid that names %s", settings, err, word)
		}
	}
	parsed, err := adapters.ParseSettings("conf: /no/such/slurm.conf\nbin: /no/such/bin\n")
	if err != nil {
		t.Fatal(err)
	}
	a, err := slurm.Open(adapters.Config{Site: "s", Dir: t.TempDir(), Settings: parsed})
	if err != nil {
		t.Fatalf("Open without a Slurm: %v", err)
	}
	defer func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}()
	d := adaptertest.Command("/bin/true")
	if a.Health().Problem == "" || !fail.Is(a.Check(d), fail.Unavailable) {
		t.Errorf("without a Slurm Health is %+v and Check says %v", a.Health(), a.Check(d))
	}
	if p := a.Submit(t.Context(), []adapters.Job{{Tag: "t", Definition: d}})[0]; !fail.Is(p.Err, fail.Unavailable) {
		t.Errorf("without a Slurm Submit says %v", p.Err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := a.Resources(ctx); !fail.Is(err, fail.Unavailable) {
		t.Errorf("without a Slurm Resources says %v", err)
	}
}
