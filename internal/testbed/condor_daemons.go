package testbed

import (
	"bytes"
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
)

// named gives the name of a daemon's program.
func named(name string) string { return "condor_" + strings.TrimPrefix(name, "condor_") }

// pid finds a daemon of this pool that runs.
func (c *Condor) pid(name string) (int, bool) {
	name = named(name)
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return 0, false
	}
	for _, p := range procs {
		line, err := os.ReadFile(p + "/cmdline") // a zombie has none
		if err != nil || len(line) == 0 {
			continue
		}
		first, _, _ := bytes.Cut(line, []byte{0})
		if filepath.Base(string(first)) != name {
			continue
		}
		cwd, err := os.Readlink(p + "/cwd")
		if err != nil || cwd != c.Dir && !strings.HasPrefix(cwd, c.Dir+"/") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(p)); err == nil {
			return pid, true
		}
	}
	return 0, false
}

// Kill ends a daemon by SIGKILL, after which the master starts it again, within a second
// or so, which Ready awaits. With the master all others die, and so do jobs, as if the
// machine had lost its power; Start of the master brings it back.
func (c *Condor) Kill(tb testing.TB, name string) {
	tb.Helper()
	if err := c.kill(name); err != nil {
		tb.Fatalf("killing %s: %v", name, err)
	}
}

func (c *Condor) kill(name string) error {
	pid, ok := c.pid(name)
	if !ok {
		return errors.New("it does not run")
	}
	pids := []int{pid}
	if named(name) == CondorMaster {
		pids = tree(pid)
	}
	for _, p := range pids {
		if err := syscall.Kill(p, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	if named(name) == CondorMaster {
		_ = reap(c.Dir) // who was born meanwhile
	}
	return eventually(2*time.Minute, func() error {
		if now, ok := c.pid(name); ok && now == pid {
			return errors.New("it does not end")
		}
		return nil
	})
}

// KillSchedd kills the schedd and waits until the next one answers.
func (c *Condor) KillSchedd(tb testing.TB) {
	tb.Helper()
	c.Kill(tb, CondorSchedd)
	c.Ready(tb)
}

// Stop ends a daemon and keeps the master from starting it again. Jobs that run, run
// on. Stop of the master ends the pool, as its administrator would.
func (c *Condor) Stop(tb testing.TB, name string) {
	tb.Helper()
	name = named(name)
	if name == CondorMaster {
		c.Down()
		return
	}
	c.down[name] = true
	// The master must not see it die before it knows that this is meant.
	if err := c.off(name); err != nil {
		tb.Fatalf("stopping %s: %v", name, err)
	}
}

func (c *Condor) off(name string) error {
	master, ok := c.pid(CondorMaster)
	if !ok {
		return errors.New("the master does not run")
	}
	// A master that is held starts nothing; when it goes on, it is told at once.
	if err := syscall.Kill(master, syscall.SIGSTOP); err != nil {
		return err
	}
	return c.kill(name)
}

// Start lets a daemon that was stopped run again, and waits until the pool is well.
func (c *Condor) Start(tb testing.TB, name string) {
	tb.Helper()
	if _, runs := c.pid(CondorMaster); !runs {
		clear(c.down)
		if err := c.Up(); err != nil {
			tb.Fatalf("starting the pool: %v\n%s", err, c.Logs(10))
		}
		return
	}
	delete(c.down, named(name))
	if len(c.down) == 0 {
		if master, ok := c.pid(CondorMaster); ok {
			_ = syscall.Kill(master, syscall.SIGCONT)
		}
	}
	c.Ready(tb)
}

// Ready waits until the pool takes jobs.
func (c *Condor) Ready(tb testing.TB) {
	tb.Helper()
	if err := c.ready(); err != nil {
		tb.Fatalf("the pool does not come back: %v\n%s", err, c.Logs(10))
	}
}

// Freeze holds a daemon in mid-flight (SIGSTOP), Thaw lets it go on.
func (c *Condor) Freeze(tb testing.TB, name string) { tb.Helper(); c.signal(tb, name, syscall.SIGSTOP) }

// Thaw ends Freeze.
func (c *Condor) Thaw(tb testing.TB, name string) { tb.Helper(); c.signal(tb, name, syscall.SIGCONT) }

// Continue has a daemon go on, whether it was frozen or stopped, and waits until the
// pool is well.
func (c *Condor) Continue(tb testing.TB, name string) {
	tb.Helper()
	if _, runs := c.pid(name); runs {
		c.Thaw(tb, name)
	}
	c.Start(tb, name)
}

func (c *Condor) signal(tb testing.TB, name string, sig syscall.Signal) {
	tb.Helper()
	pid, ok := c.pid(name)
	if !ok {
		tb.Fatalf("%s does not run", name)
	}
	if err := syscall.Kill(pid, sig); err != nil {
		tb.Fatalf("%v to %s: %v", sig, name, err)
	}
}

// tree gives a process and what descends from it.
func tree(pid int) []int {
	out := []int{pid}
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		data, err := os.ReadFile(list)
		if err != nil {
			continue
		}
		for s := range strings.FieldsSeq(string(data)) {
			if child, err := strconv.Atoi(s); err == nil {
				out = append(out, tree(child)...)
			}
		}
	}
	return out
}

// UpCondor brings a pool up that outlives this process, and gives the variables to set
// for its use.
func UpCondor(dir string, o CondorOptions) ([]string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	c, err := NewCondor(ctx, dir, o)
	if err != nil {
		return nil, err
	}
	if err := c.Up(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, c.Logs(10))
	}
	return c.Env(), nil
}

// DownCondor ends a pool that UpCondor brought up; its queue and history stay there.
func DownCondor(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, "condor_config")); err != nil {
		return fmt.Errorf("%s holds no pool: %w", dir, err)
	}
	c := &Condor{Dir: dir, down: map[string]bool{}}
	c.Down()
	return nil
}
