package slurm

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// begins writes down that a job was begun, and shows signs of life so often; 0 for
// never.
func begins(t *testing.T, dir jobDir, b begun, every time.Duration) {
	t.Helper()
	b.Version = specVersion
	data, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir.path(nameStart), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if every == 0 {
		return
	}
	tick := time.NewTicker(every)
	done := make(chan struct{})
	t.Cleanup(func() { tick.Stop(); close(done) })
	go func() {
		for {
			select {
			case <-done:
				return
			case now := <-tick.C:
				_ = os.Chtimes(dir.path(nameStart), now, now)
			}
		}
	}()
}

// A job that may be run again is not, on another node, while its first runner shows
// that it is there.
func TestSecondStart(t *testing.T) {
	for name, c := range map[string]struct {
		host     string // on which the first was begun
		every    time.Duration
		ended    bool
		restarts string
		again    bool
	}{
		"the first runs on":               {host: "n1", every: showYoung * heedEvery, restarts: "1"},
		"the first is old and runs on":    {host: "n1", every: showEvery * heedEvery, restarts: "1"},
		"its node has failed":             {host: "n1", restarts: "1", again: true},
		"it has ended":                    {host: "n1", every: heedEvery, ended: true, restarts: "1", again: true},
		"the node vouches for it":         {host: "n2", every: heedEvery, restarts: "1", again: true},
		"Slurm does not know of a second": {host: "n1", restarts: "0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("SLURMD_NODENAME", "n2")
			t.Setenv("SLURM_JOB_ID", "7")
			t.Setenv("SLURM_RESTART_COUNT", c.restarts)
			dir := jobDir(t.TempDir())
			synctest.Test(t, func(t *testing.T) {
				begins(t, dir, begun{Job: "7", Host: c.host, Started: time.Now()}, c.every)
				if c.ended {
					data, err := json.Marshal(ended{Version: specVersion})
					if err == nil {
						err = os.WriteFile(dir.path(nameEnd), data, 0o600)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				r := &runner{dir: dir, spec: &spec{Tag: "t", Rerunnable: true}}
				switch err := r.claim(); {
				case c.again && err != nil:
					t.Error(err)
				case !c.again && err == nil:
					t.Error("it is begun a second time")
				case !c.again && c.restarts == "1" && !strings.Contains(err.Error(), "still runs on n1"):
					t.Error(err)
				}
			})
		})
	}
}

// A runner is given up when it has left out four signs, whatever the clock of its node
// shows, and a young one sooner.
func TestQuiet(t *testing.T) {
	for name, c := range map[string]struct {
		off   time.Duration // the node's clock less ours
		age   time.Duration // of the job when it gave the last sign
		after time.Duration
	}{
		"young":                    {age: 30 * time.Second, after: time.Minute},
		"old":                      {age: time.Hour, after: 4 * time.Minute},
		"young, its clock is fast": {off: 10 * time.Minute, age: 30 * time.Second, after: time.Minute},
		"old, its clock is slow":   {off: -10 * time.Minute, age: time.Hour, after: 4 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sign := time.Now().Add(c.off)
				b := &begun{Started: sign.Add(-c.age)}
				m := &member{}
				if m.quiet(b, sign) {
					t.Error("given up when first heard of")
				}
				time.Sleep(c.after)
				if m.quiet(b, sign) {
					t.Errorf("given up after %v", c.after)
				}
				time.Sleep(time.Second)
				if !m.quiet(b, sign) {
					t.Errorf("not given up after %v", c.after+time.Second)
				}
				if m.quiet(b, sign.Add(c.after)) {
					t.Error("given up though it shows that it is there")
				}
			})
		})
	}
}
