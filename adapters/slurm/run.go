package slurm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

// Bounds on what one of Slurm's commands may say, and for how long it may run. A
// controller that is down lets its commands wait for nine seconds.
const (
	maxAnswer    = 256 << 20
	maxComplaint = 64 << 10
	commandTime  = 30 * time.Second
)

// answer is what a command said.
type answer struct {
	out, complaint []byte
	code           int
}

// bounded keeps the first bytes that are written to it.
type bounded struct {
	bytes.Buffer
	left int
	cut  bool
}

func (b *bounded) Write(p []byte) (int, error) {
	n := len(p)
	if len(p) > b.left {
		p, b.cut = p[:b.left], true
	}
	b.left -= len(p)
	b.Buffer.Write(p)
	return n, nil
}

// command runs one of Slurm's commands to its end. The error is of kind Unavailable
// if it could not be run or did not end in time, when "started" says that it was.
func (c *commands) command(ctx context.Context, stdin string, name string, args ...string) (a answer, started bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	path := name
	if c.bin != "" {
		path = c.bin + "/" + name
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = c.environment(cmd.Environ())
	if name == "sbatch" {
		cmd.Env = bare(cmd.Env)
	}
	cmd.Dir = "/"
	cmd.Stdin = strings.NewReader(stdin)
	out, complaint := &bounded{left: maxAnswer}, &bounded{left: maxComplaint}
	cmd.Stdout, cmd.Stderr = out, complaint
	// A gateway that dies must not leave a command behind that goes on trying: what was
	// not done by then is not done later.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err = runLocked(cmd)
	a = answer{out: out.Bytes(), complaint: complaint.Bytes()}
	started = cmd.Process != nil
	if cmd.ProcessState != nil {
		a.code = cmd.ProcessState.ExitCode()
	}
	switch {
	case ctx.Err() != nil && err != nil:
		return a, started, fail.Errorf("slurm."+name, fail.Unavailable, "", "Slurm did not answer in time").Because(fmt.Errorf("%s: %w", name, ctx.Err()))
	case out.cut:
		return a, started, fail.Errorf("slurm."+name, fail.Unavailable, "", "Slurm's answer is larger than %d bytes", maxAnswer)
	}
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return a, started, nil // the caller looks at the code
	}
	if err == nil {
		c.budget.answer()
	}
	if err != nil {
		return a, started, fail.Errorf("slurm."+name, fail.Unavailable, "", "Slurm's command %s can't be run", name).Because(err)
	}
	return a, started, nil
}

// runLocked runs a command whose parent is a thread that lives as long as it: the
// death signal is sent when that thread ends, not when the process does.
func runLocked(cmd *exec.Cmd) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		done <- cmd.Run()
	}()
	return <-done
}

// environment gives a command what it needs, and nothing by which somebody's habits
// would change its options or its answers.
func (c *commands) environment(env []string) []string {
	env = slices.DeleteFunc(slices.Clone(env), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		switch {
		case name == "SLURM_CONF" || name == "SLURM_JWT" || name == "SLURM_CLUSTERS":
			return name == "SLURM_CONF" && c.conf != ""
		case name == "LANG" || name == "LANGUAGE" || name == "TZ":
			return true
		}
		for _, prefix := range []string{"SLURM_", "SBATCH_", "SQUEUE_", "SACCT_", "SCANCEL_", "SINFO_", "SCONTROL_", "SALLOC_", "SRUN_", "LC_"} {
			if strings.HasPrefix(name, prefix) {
				return true
			}
		}
		return false
	})
	env = append(env, "LC_ALL=C", "TZ=UTC0", "SLURM_TIME_FORMAT=%s")
	if c.conf != "" {
		env = append(env, "SLURM_CONF="+c.conf)
	}
	return env
}

// bare leaves of an environment what sbatch needs: it goes on to the job's script, and
// nothing of the gateway's is the business of anybody there.
func bare(env []string) []string {
	return slices.DeleteFunc(env, func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return !slices.Contains([]string{"PATH", "SLURM_CONF", "LC_ALL"}, name)
	})
}

// complaints turns what a command complains of into an error of the right kind. They
// are Slurm's own words (slurm_errno.h), the same in all of its releases.
var complaints = []struct {
	words string
	kind  fail.Kind
}{
	{"Unable to contact slurm controller", fail.Unavailable},
	{"Could not establish a configuration source", fail.Unavailable},
	{"Incompatible versions of client and server", fail.Unavailable},
	{"Protocol authentication error", fail.Unavailable},
	{"Unable to contact slurm database", fail.Unavailable},
	{"slurmdbd", fail.Unavailable},
	{"Slurm backup controller in standby mode", fail.Unavailable},
	{"Socket timed out", fail.Uncertain},
	{"Zero Bytes were transmitted or received", fail.Uncertain},
	{"Slurm temporarily unable to accept job", fail.Unavailable},
	{"Resource temporarily unavailable", fail.Unavailable},
	{"Job violates accounting/QOS policy", fail.Exhausted},
	{"Job cannot be submitted without the current user environment", fail.Unavailable},
	{"Access/permission denied", fail.Denied},
	{"Invalid user id", fail.Denied},
	{"User's group not permitted to use this partition", fail.Denied},
	{"Invalid job id specified", fail.NotFound},
	{"Requested reservation is invalid", fail.NotFound},
	{"Requested reservation is in use", fail.Conflict},
	{"Access denied to requested reservation", fail.Denied},
	{"Duplicate reservation name", fail.Conflict},
	{"Requested nodes are busy", fail.Exhausted},
	{"count specification invalid", fail.Unsupported},
	{"Job/step already completing or completed", fail.Conflict},
	{"Job is pending execution", fail.Conflict},
	{"Job is not suspended", fail.Conflict},
	{"Job is no longer pending execution", fail.Conflict},
	{"Unexpected message received", fail.Uncertain},
	{"Invalid", fail.Unsupported},
	{"Requested node configuration is not available", fail.Unsupported},
	{"specification can not be satisfied", fail.Unsupported},
	{"Requested time limit", fail.Unsupported},
	{"Requested partition configuration not available now", fail.Unsupported},
	{"More processors requested than permitted", fail.Unsupported},
	{"Node count specification", fail.Unsupported},
	{"Unspecified error", fail.Unsupported},
	{"Pathname of a file, directory or other parameter too long", fail.Unsupported},
	{"Required node not available", fail.Unavailable},
	{"Requested operation is presently disabled", fail.NotAccepting},
	{"Required partition not available", fail.NotAccepting},
	{"System resource limit", fail.Unavailable},
}

// complaint gives the error of a command that failed. What nobody foresaw claims
// nothing.
func complaint(op string, said []byte) error {
	kind := fail.Uncertain
	text := strings.Join(strings.Fields(strings.ToValidUTF8(string(said), "?")), " ")
	for _, c := range complaints {
		if strings.Contains(text, c.words) {
			kind = c.kind
			break
		}
	}
	return fail.Errorf(op, kind, "", "Slurm says: %s", clip(plainComplaint(string(said))))
}

// plainComplaint leaves out which program says it.
func plainComplaint(said string) string {
	var lines []string
	for line := range strings.Lines(strings.ToValidUTF8(said, "?")) {
		line = strings.TrimSpace(line)
		for _, word := range []string{"sbatch: ", "squeue: ", "scancel: ", "scontrol: ", "sacct: ", "sinfo: ", "error: ", "fatal: ", "Batch job submission failed: "} {
			line = strings.TrimPrefix(line, word)
		}
		if line != "" {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return "nothing"
	}
	return strings.Join(lines, "; ")
}
