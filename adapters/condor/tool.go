package condor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	"github.com/portolan-project/portolan/internal/fail"
)

// Bounds on what one of HTCondor's commands may say, and for how long it may run. A
// schedd that hangs lets condor_q wait for 20 seconds.
const (
	maxAnswer    = 256 << 20
	maxComplaint = 64 << 10
	toolTime     = 40 * time.Second
)

// tools run HTCondor's commands, within the budget, and know how the manager stands.
type tools struct {
	settings *Settings
	limiter  *rate.Limiter

	mu       sync.Mutex
	version  string
	problem  string
	since    time.Time
	contact  time.Time
	requests int64
	waiting  int
	back     func() // is called when the schedd answers again
}

func newTools(s *Settings) *tools {
	limit, burst := rate.Inf, 1
	if s.RequestsPerSecond > 0 {
		limit, burst = rate.Limit(s.RequestsPerSecond), 1+int(s.RequestsPerSecond/4)
	}
	return &tools{settings: s, limiter: rate.NewLimiter(limit, burst), since: time.Now()}
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

// answer is what a command said.
type answer struct {
	out, complaint []byte
	code           int
}

// as is whose command it is; the zero value is the gateway's own.
type as struct{ uid, gid int }

// run waits for the budget and runs a command that asks the schedd to its end. A nil
// error means that the command spoke with whom it asked, whatever the answer.
func (t *tools) run(ctx context.Context, who as, stdin, name string, args ...string) (answer, error) {
	t.mu.Lock()
	t.waiting++
	t.mu.Unlock()
	err := t.limiter.Wait(ctx)
	t.mu.Lock()
	t.waiting--
	if err == nil {
		t.requests++
	}
	t.mu.Unlock()
	if err != nil {
		return answer{}, fail.Errorf("condor."+name, fail.Unavailable, "", "the budget of requests to HTCondor is used up for longer than can be waited").Because(err)
	}
	a, err := t.exec(ctx, who, stdin, name, args...)
	if err == nil && a.code != 0 {
		if e := complaint(name, a); fail.Is(e, fail.Unavailable) {
			err = e
		}
	}
	switch {
	case err == nil:
		t.well("")
	case ctx.Err() == nil:
		t.unwell(fail.Sentence(err))
	}
	return a, err
}

// exec runs a command. The error is of kind Unavailable if it could not be run, and
// Uncertain if it did not end in time.
func (t *tools) exec(ctx context.Context, who as, stdin, name string, args ...string) (a answer, err error) {
	limited, cancel := context.WithTimeout(ctx, toolTime)
	defer cancel()
	path := name
	if t.settings.Bin != "" {
		path = filepath.Join(t.settings.Bin, name)
	}
	cmd := exec.CommandContext(limited, path, args...)
	cmd.Env = t.environment(cmd.Environ())
	cmd.Dir = "/"
	cmd.Stdin = strings.NewReader(stdin)
	out, said := &bounded{left: maxAnswer}, &bounded{left: maxComplaint}
	cmd.Stdout, cmd.Stderr = out, said
	// A gateway that dies must not leave a command behind that goes on trying: what was
	// not done by then is not done later.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if who != (as{}) {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(who.uid), Gid: uint32(who.gid)}
	}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err = runLocked(cmd)
	a = answer{out: out.Bytes(), complaint: said.Bytes()}
	if cmd.ProcessState != nil {
		a.code = cmd.ProcessState.ExitCode()
	}
	op := "condor." + name
	switch {
	case limited.Err() != nil && err != nil:
		return a, fail.Errorf(op, fail.Uncertain, "", "HTCondor did not answer in time").Because(fmt.Errorf("%s: %w", name, limited.Err()))
	case out.cut:
		return a, fail.Errorf(op, fail.Uncertain, "", "HTCondor's answer is larger than %d bytes", maxAnswer)
	}
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		if a.code < 0 {
			return a, fail.Errorf(op, fail.Uncertain, "", "HTCondor's command %s was killed", name).Because(err)
		}
		return a, nil
	}
	if err != nil {
		return a, fail.Errorf(op, fail.Unavailable, "", "HTCondor's command %s can't be run; is it installed, and does the setting bin lead to it?", name).Because(err)
	}
	return a, nil
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
func (t *tools) environment(env []string) []string {
	env = slices.DeleteFunc(slices.Clone(env), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		switch name {
		case "CONDOR_CONFIG":
			return t.settings.Config != ""
		case "PATH", "HOME", "LD_LIBRARY_PATH", "KRB5CCNAME", "X509_USER_PROXY", "BEARER_TOKEN_FILE":
			return false
		}
		return !strings.HasPrefix(name, "_CONDOR_SEC_") // what else is there is no business of a job's ad
	})
	env = append(env, "LC_ALL=C", "TZ=UTC0")
	if t.settings.Config != "" {
		env = append(env, "CONDOR_CONFIG="+t.settings.Config)
	}
	return env
}

// remote gives the options that name the schedd, and its pool.
func (t *tools) remote() (args []string) {
	if t.settings.Pool != "" {
		args = append(args, "-pool", t.settings.Pool)
	}
	if t.settings.Schedd != "" {
		args = append(args, "-name", t.settings.Schedd)
	}
	return args
}

func (t *tools) well(version string) {
	t.mu.Lock()
	now := time.Now()
	t.contact = now
	if version != "" {
		t.version = version
	}
	was := t.problem
	if was != "" {
		t.problem, t.since = "", now
	}
	back := t.back
	t.mu.Unlock()
	if was != "" && back != nil {
		back()
	}
}

func (t *tools) unwell(problem string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.problem == "" {
		t.since = time.Now()
	}
	t.problem = problem
}

// complaints turn what a command complains of into an error of the right kind.
var complaints = []struct {
	words string
	kind  fail.Kind
}{
	{"Failed to connect to", fail.Unavailable},
	{"Can't find address of", fail.Unavailable},
	{"Can't connect to", fail.Unavailable},
	{"unknown host", fail.Unavailable},
	{"Collector has no record", fail.Unavailable},
	{"Couldn't contact the condor_collector", fail.Unavailable},
	{"Failed to fetch ads from", fail.Unavailable},
	{"Unable to connect", fail.Unavailable},
	{"Failed to contact", fail.Unavailable},
	{"Could not connect", fail.Unavailable},
	{"communication error", fail.Unavailable},
	{"Communication error", fail.Unavailable},
	{"Failed to end classad message", fail.Unavailable},
	{"unable to read any configuration", fail.Unavailable},
	{"Neither the environment variable CONDOR_CONFIG", fail.Unavailable},
	{"Cannot allocate a cluster id", fail.Unavailable},
	{"Failed to allocate a cluster", fail.Unavailable},
	{"Failed to create new cluster", fail.Unavailable},
	{"MAX_JOBS", fail.Exhausted},
	{"Number of submitted jobs would exceed", fail.Exhausted},
	{"Permission denied", fail.Denied},
	{"PERMISSION DENIED", fail.Denied},
	{"AUTHENTICATE:", fail.Denied},
	{"Failed to authenticate", fail.Denied},
	{"Can't open", fail.Unsupported},
	{"is not permitted", fail.Unsupported},
	{"nrecognized", fail.Unsupported},
	{"Unable to parse", fail.Unsupported},
	{"Failed to parse", fail.Unsupported},
	{"Parse error", fail.Unsupported},
	{"expression", fail.Unsupported},
	{"nvalid", fail.Unsupported},
	{"SUBMIT_REQUIREMENT", fail.Unsupported},
	{"SUBMIT_TRANSFORM", fail.Unsupported},
}

// complaint gives the error of a command that failed. What nobody foresaw claims
// nothing.
func complaint(name string, a answer) error {
	text := strings.Join(strings.Fields(strings.ToValidUTF8(string(a.complaint)+" "+string(a.out[:min(len(a.out), maxComplaint)]), "?")), " ")
	kind := fail.Uncertain
	for _, c := range complaints {
		if strings.Contains(text, c.words) {
			kind = c.kind
			break
		}
	}
	if text == "" {
		text = "nothing"
	}
	return fail.Errorf("condor."+name, kind, "", "HTCondor says: %s", clip(text))
}
