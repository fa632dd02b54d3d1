package testbed

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestCondor(t *testing.T) {
	var dir string
	t.Run("pool", func(t *testing.T) {
		begin := time.Now()
		c := StartCondor(t, CondorOptions{CPUs: 4, Memory: 2048, Conf: []string{"TESTBED_DIR=%DIR%"}})
		t.Logf("up in %v", time.Since(begin))
		dir = c.Dir
		if got := strings.TrimSpace(c.MustRun(t, "condor_config_val", "TESTBED_DIR")); got != c.Dir {
			t.Errorf("a line of the options says %q", got)
		}
		if got := strings.Fields(c.MustRun(t, "condor_status", "-af", "TotalSlotCpus", "TotalSlotMemory", "PartitionableSlot")); fmt.Sprint(got) != "[4 2048 true]" {
			t.Errorf("the slot has %v", got)
		}
		c.ends(t, 7)
		before, _ := c.pid(CondorSchedd)
		begin = time.Now()
		c.KillSchedd(t)
		t.Logf("another schedd after %v", time.Since(begin))
		if after, _ := c.pid("schedd"); after == before {
			t.Error("a killed schedd runs")
		}
		c.ends(t, 8)
		c.Stop(t, "schedd")
		if _, err := c.Run("condor_q"); err == nil {
			t.Error("a stopped schedd answers")
		}
		c.Continue(t, "schedd")
		c.Freeze(t, "startd")
		c.Continue(t, "startd")
		c.Kill(t, "master")
		if left := below(c.Dir, os.Getpid()); len(left) > 0 {
			t.Errorf("without the master there are %v", left)
		}
		c.Start(t, "master")
		c.ends(t, 9)
		log, err := os.ReadFile(c.EventLog())
		for code := 7; code <= 9; code++ { // an end may be there twice, as the schedd was killed meanwhile
			if !strings.Contains(string(log), fmt.Sprintf(`"ReturnValue": %d`, code)) {
				t.Errorf("the pool's log has no end with %d: %v\n%s", code, err, log)
			}
		}
		c.MustRun(t, c.submit("sleep 600")[0], c.submit("sleep 600")[1:]...)
		if err := eventually(2*time.Minute, func() error {
			if out, err := c.Run("condor_q", "-run", "-af", "ClusterId"); err != nil || strings.TrimSpace(out) == "" {
				return fmt.Errorf("no job runs: %w", err)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	})
	if dir != "" {
		nothingLeft(t, dir)
	}
}

// submit gives the command that submits a script.
func (c *Condor) submit(script string) []string {
	return []string{
		"condor_submit", "-terse", "executable=/bin/sh", `arguments="-c '` + strings.ReplaceAll(script, `"`, `""`) + `'"`, "initialdir=" + c.Work,
		"should_transfer_files=NO", "request_memory=64", "-queue", "1",
	}
}

// ends runs a job to its end.
func (c *Condor) ends(t *testing.T, code int) {
	t.Helper()
	command := c.submit(fmt.Sprintf("exit %d", code))
	id, _, _ := strings.Cut(c.MustRun(t, command[0], command[1:]...), " ")
	begin := time.Now()
	if err := eventually(2*time.Minute, func() error {
		out, err := c.Run("condor_history", id, "-af", "JobStatus", "ExitCode")
		if err == nil && strings.TrimSpace(out) != fmt.Sprint("4 ", code) {
			err = fmt.Errorf("the history says %q", out)
		}
		return err
	}); err != nil {
		t.Fatalf("%v\n%s", err, c.Logs(10))
	}
	t.Logf("a job ended after %v", time.Since(begin))
}

// What a test's process started dies with it, however it does, and jobs do so wherever
// they work.
func TestCondorDiesWithItsProcess(t *testing.T) {
	if os.Getenv("TESTBED_VICTIM") != "" {
		c := StartCondor(t, CondorOptions{})
		// One that turns its back on all that is known of it.
		command := c.submit("cd /; (setsid sh -c \"sleep 601 & touch " + c.Work + "/runs; wait\" &) ; sleep 602")
		c.MustRun(t, command[0], command[1:]...)
		if err := eventually(2*time.Minute, func() error { _, err := os.Stat(filepath.Join(c.Work, "runs")); return err }); err != nil {
			t.Fatalf("%v\n%s", err, c.Logs(10))
		}
		fmt.Println("victim", c.Dir)
		select {}
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestCondorDiesWithItsProcess$", "-test.v", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), "TESTBED_VICTIM=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var dir, said string
	for lines := bufio.NewScanner(out); dir == "" && lines.Scan(); {
		dir, _ = strings.CutPrefix(lines.Text(), "victim ")
		if dir == lines.Text() {
			dir, said = "", said+dir+"\n"
		}
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if dir == "" {
		if strings.Contains(said, "--- SKIP") {
			t.Skip(said)
		}
		t.Fatalf("the process that was to be killed failed:\n%s", said)
	}
	if err := eventually(2*time.Minute, func() error {
		if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s is still there", dir)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	nothingLeft(t, dir)
}

func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is left", dir)
	}
	if left := below(dir, 0); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// below gives the processes, but for the reaper of a parent, that work below a
// directory or were told of it.
func below(dir string, parent int) []string {
	var out []string
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		status, _ := os.ReadFile(filepath.Join(p, "status"))
		if parent != 0 && strings.Contains(string(status), fmt.Sprintf("PPid:\t%d\n", parent)) {
			continue
		}
		cwd, _ := os.Readlink(filepath.Join(p, "cwd"))
		line, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		env, _ := os.ReadFile(filepath.Join(p, "environ"))
		if len(line) > 0 && (strings.HasPrefix(cwd, dir+"/") || strings.Contains(string(line), dir) || strings.Contains(string(env), dir+"/")) {
			out = append(out, filepath.Base(p)+" "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return out
}
