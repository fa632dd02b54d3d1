package slurm

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/adapters"
)

// A job that Slurm has as running though no node ever launched it is given up, sooner
// after Slurm's controller was away, and nobody begins it any more.
func TestNeverLaunched(t *testing.T) {
	for name, c := range map[string]struct {
		up     time.Duration // for which Slurm has answered when the job is said to run
		forgot time.Duration // before which it was found that the controller forgets; 0: it was not
		begins time.Duration // after which the runner shows itself; 0: never
		cancel bool          // it is wanted to end
		after  time.Duration // it is given up; 0: never
	}{
		"nothing is wrong with Slurm":       {up: time.Hour, after: launchPatience},
		"its controller was away":           {up: time.Second, after: launchDoubted},
		"its controller forgets":            {up: time.Hour, forgot: time.Minute, after: launchDoubted},
		"it is wanted to end":               {up: time.Second, cancel: true, after: launchDoubted},
		"it begins in time":                 {up: time.Second, begins: launchDoubted - 2*time.Second},
		"what runs before it takes minutes": {up: time.Hour, begins: launchPatience - 2*time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				a := &Adapter{site: site{settings: &Settings{}, spool: spool(dir)}, log: slog.New(slog.DiscardHandler), poke: make(chan struct{}, 1)}
				job := a.spool.job("t")
				if err := os.MkdirAll(filepath.Clean(string(job)), 0o700); err != nil {
					t.Fatal(err)
				}
				m := &member{tag: "t", batch: &batch{}, cancel: c.cancel, evidence: adapters.Evidence{Phase: adapters.Queued}}
				a.members = map[adapters.Tag]*member{"t": m}
				a.health.Since = time.Now().Add(-c.up)
				if c.forgot > 0 {
					a.forgot = time.Now().Add(-c.forgot)
				}
				started := time.Now()
				for range int(time.Hour / time.Second) {
					a.judge(t.Context(), m, &record{State: "RUNNING", Started: started}, time.Now())
					since := time.Since(started)
					if final := m.evidence.Phase.Final(); final != (c.after > 0 && since >= c.after) {
						t.Fatalf("after %v it is %+v", since, m.evidence)
					} else if final {
						break
					}
					want := adapters.Queued
					if c.after != launchDoubted && c.begins != launchDoubted-2*time.Second && since > startPatience {
						want = adapters.Running
					}
					if c.begins > 0 && since > c.begins {
						want = adapters.Running
					}
					if m.evidence.Phase != want {
						t.Fatalf("after %v it is %+v", since, m.evidence)
					}
					if c.begins > 0 && since == c.begins {
						begins(t, job, begun{Job: "7", Host: "n1", Started: time.Now()}, 0)
					}
					time.Sleep(time.Second)
				}
				switch e := m.evidence; {
				case c.begins > 0:
					if e.Phase != adapters.Running || !e.Started.Equal(started.Add(c.begins)) {
						t.Errorf("%+v", e)
					}
				case c.cancel:
					if e.Phase != adapters.Cancelled || !e.NotRun {
						t.Errorf("%+v", e)
					}
				case e.Phase != adapters.Lost || !e.NotRun || e.Reason == "":
					t.Errorf("%+v", e)
				}
				if b, err := job.begun(); err != nil || b == nil || b.Withdrawn != (c.begins == 0) {
					t.Errorf("who began it: %+v, %v", b, err)
				}
			})
		})
	}
}

// TestWhoseEnd: a program that is asked to end has been cancelled, by whatever name its
// end goes; one that ends so by itself has exited.
func TestWhoseEnd(t *testing.T) {
	terminated := exitOf(syscall.WaitStatus(syscall.SIGTERM))
	shell := exitOf(syscall.WaitStatus((128 + int(syscall.SIGTERM)) << 8))
	other := exitOf(syscall.WaitStatus(3 << 8))
	for name, c := range map[string]struct {
		end    ended
		told   bool // the manager asked the runner, too
		cancel bool // the gateway wants the end
		want   adapters.Phase
	}{
		"by itself":                                {end: other, want: adapters.Exited},
		"by itself, before the request came":       {end: other, cancel: true, want: adapters.Exited},
		"asked, and it exits as it likes":          {end: other, told: true, cancel: true, want: adapters.Cancelled},
		"by the signal":                            {end: terminated, told: true, cancel: true, want: adapters.Cancelled},
		"by the signal, before the runner had its": {end: terminated, cancel: true, want: adapters.Cancelled},
		"by a signal of its own":                   {end: terminated, want: adapters.Exited},
		"a shell whose child had the signal":       {end: shell, told: true, cancel: true, want: adapters.Cancelled},
		"the same, before its own turn":            {end: shell, cancel: true, want: adapters.Cancelled},
		"exit status 143 of its own":               {end: shell, want: adapters.Exited},
	} {
		t.Run(name, func(t *testing.T) {
			a := &Adapter{site: site{settings: &Settings{}, spool: spool(t.TempDir())}, log: slog.New(slog.DiscardHandler), poke: make(chan struct{}, 1)}
			job := a.spool.job("t")
			if err := os.MkdirAll(filepath.Clean(string(job)), 0o700); err != nil {
				t.Fatal(err)
			}
			m := &member{tag: "t", batch: &batch{}, cancel: c.cancel, evidence: adapters.Evidence{Phase: adapters.Running}}
			a.members = map[adapters.Tag]*member{"t": m}
			c.end.Version, c.end.Told = specVersion, c.told
			data, err := json.Marshal(c.end)
			if err == nil {
				err = os.WriteFile(job.path(nameEnd), data, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			if !a.fromRunner(m) {
				t.Fatal("the runner's word is not enough")
			}
			e := m.evidence
			if e.Phase != c.want {
				t.Errorf("%+v", e)
			}
			if own := e.ExitStatus != nil || e.Signal != ""; own != (c.want == adapters.Exited) {
				t.Errorf("%+v", e)
			}
		})
	}
}
