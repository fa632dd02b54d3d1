package boinctest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Scheduler is what a host talks to: a Project, or Remote for one in another process.
type Scheduler interface {
	Contact(Contact) (Answer, error)
	Content(physical string) ([]byte, error)
}

// Remote is a Scheduler over HTTP: the project's master URL.
type Remote string

// Contact asks the scheduler.
func (u Remote) Contact(c Contact) (Answer, error) {
	body, err := json.Marshal(c)
	if err != nil {
		return Answer{}, err
	}
	res, err := http.Post(string(u)+"hosts_contact", "application/json", bytes.NewReader(body)) //nolint:noctx // a host waits
	if err != nil {
		return Answer{}, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return Answer{}, errors.New(res.Status)
	}
	var a Answer
	return a, json.NewDecoder(res.Body).Decode(&a)
}

// Content fetches an input file.
func (u Remote) Content(physical string) ([]byte, error) {
	return HTTPFetch(string(u) + "download/" + fanout(physical) + "/" + physical)
}

// Volunteer is a host that does what it is sent.
type Volunteer struct {
	Host  Host
	Slots int           // tasks at once; 1
	Poll  time.Duration // between contacts; 20 ms
	Dir   string        // where its slots are
	// Grace is how long a program has after SIGTERM; 1 s.
	Grace time.Duration

	// What is wrong with it: each is asked for the instance's name.
	Corrupt func(result string) bool // its outputs are wrong
	Vanish  func(result string) bool // it never reports
	Break   func(result string) int  // an exit status of the main program; 0 for none
	Started func(result string)      // told of each start of a program
}

type task struct {
	work   Assignment
	abort  context.CancelFunc
	report *Report
}

// Run works until ctx ends; programs that run then are ended, and nothing of them is
// reported.
func (v *Volunteer) Run(ctx context.Context, s Scheduler) {
	v.Slots, v.Poll, v.Grace = max(v.Slots, 1), orDuration(v.Poll, 20*time.Millisecond), orDuration(v.Grace, time.Second)
	if v.Host.Flops == 0 {
		v.Host.Flops = 1e9
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	tasks := map[string]*task{}
	ready := make(chan struct{}, 1)
	defer wg.Wait()
	poll := time.NewTicker(v.Poll)
	defer poll.Stop()
	for {
		mu.Lock()
		c := Contact{Host: v.Host, Want: v.Slots}
		for name, t := range tasks {
			c.Holding = append(c.Holding, name)
			if t.report == nil {
				c.Want--
			} else {
				c.Reports = append(c.Reports, *t.report)
			}
		}
		mu.Unlock()
		answer, err := s.Contact(c)
		if err != nil {
			answer = Answer{} // the project is down: later
		}
		mu.Lock()
		for _, name := range answer.Done {
			delete(tasks, name)
		}
		for _, name := range answer.Abort {
			if t := tasks[name]; t != nil {
				t.abort()
			}
		}
		for _, w := range answer.Work {
			if tasks[w.Result] != nil {
				continue
			}
			work, abort := context.WithCancel(ctx)
			t := &task{work: w, abort: abort}
			tasks[w.Result] = t
			if v.Vanish != nil && v.Vanish(w.Result) {
				abort()
				continue
			}
			wg.Go(func() {
				defer abort()
				r := v.do(work, s, w)
				if ctx.Err() != nil {
					return
				}
				if work.Err() != nil { // of what the server wants aborted nothing is uploaded
					r = Report{ExitStatus: 202, ClientState: ClientAborted}
				}
				r.Result = w.Result
				mu.Lock()
				t.report = &r
				mu.Unlock()
				select {
				case ready <- struct{}{}:
				default:
				}
			})
		}
		mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-ready:
		case <-poll.C:
		}
	}
}

func orDuration(d, other time.Duration) time.Duration {
	if d == 0 {
		return other
	}
	return d
}

// do runs one instance in a directory of its own.
func (v *Volunteer) do(ctx context.Context, s Scheduler, w Assignment) Report {
	dir, err := os.MkdirTemp(v.Dir, "slot-")
	if err != nil {
		return Report{ExitStatus: -1, ClientState: ClientComputeError, Message: err.Error()}
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the test's directory goes as a whole
	for _, in := range w.Inputs {
		content, err := v.get(s, in)
		if err != nil || hexMD5(string(content)) != in.MD5 {
			return Report{ExitStatus: -186, ClientState: ClientDownloading, Message: fmt.Sprintf("WU download error: couldn't get input files: %s", in.Name)}
		}
		if !in.CopyFile {
			content = fmt.Appendf(nil, "<soft_link>../../projects/here/%s</soft_link>\n", in.Name) // only BOINC's library can follow it
		}
		path := filepath.Join(dir, filepath.Base(in.OpenName))
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return Report{ExitStatus: -1, ClientState: ClientComputeError, Message: err.Error()}
		}
	}
	started := time.Now()
	if v.Started != nil {
		v.Started(w.Result)
	}
	r := v.execute(ctx, dir, w)
	r.Elapsed = time.Since(started).Seconds()
	r.Credit = r.Elapsed * v.Host.Flops / 1e9 / 86400 * 200
	if v.Break != nil {
		if status := v.Break(w.Result); status != 0 {
			r.ExitStatus, r.ClientState = status, ClientComputeError
		}
	}
	r.Files = map[int][]byte{}
	for i, o := range w.Outputs {
		content, err := os.ReadFile(filepath.Join(dir, filepath.Base(o.OpenName)))
		switch {
		case err != nil && !o.Optional && r.ExitStatus == 0:
			r.ClientState, r.Message = ClientComputeError, fmt.Sprintf("upload failure: <file_xfer_error>\n  <file_name>%s</file_name>\n  <error_code>-161 (not found)</error_code>\n</file_xfer_error>\n", o.OpenName)
		case err != nil:
		case o.MaxBytes > 0 && float64(len(content)) > o.MaxBytes:
			r.ClientState, r.Message = ClientComputeError, fmt.Sprintf("upload failure: <file_xfer_error>\n  <file_name>%s</file_name>\n  <error_code>-131 (file size too big)</error_code>\n</file_xfer_error>\n", o.OpenName)
		default:
			if v.Corrupt != nil && v.Corrupt(w.Result) {
				content = append([]byte("corrupt: "), content...)
			}
			r.Files[i] = content
		}
	}
	return r
}

func (v *Volunteer) get(s Scheduler, in Input) ([]byte, error) {
	if in.Remote {
		return HTTPFetch(in.URL)
	}
	return s.Content(in.Name)
}

// execute runs the application's program. The wrapper shows every failure of its
// program as 195.
func (v *Volunteer) execute(ctx context.Context, dir string, w Assignment) Report {
	args := strings.Fields(w.Command)
	switch w.Program.Kind {
	case "":
		if w.Program.Go == nil {
			return Report{ExitStatus: 206, ClientState: ClientComputeError, Message: "couldn't start app"}
		}
		exit, stderr := w.Program.Go(dir, args)
		return mainProgram(exit, stderr)
	case "native":
		exit, signal, cpu, over := v.program(ctx, dir, w.Limits, w.Program.Path, args)
		r := mainProgram(exit, "")
		if signal != 0 {
			r = Report{ExitStatus: 193, ClientState: ClientComputeError, Message: fmt.Sprintf("process got signal %d", signal)}
		}
		if over != 0 {
			r = Report{ExitStatus: over, ClientState: ClientComputeError, Message: "exceeded a limit"}
		}
		r.CPU = cpu
		return r
	}
	var child []string // what follows the wrapper's own option
	if i := slices.Index(args, "--passthrough_child"); i >= 0 {
		child = args[i+1:]
	} else if len(args) > 0 {
		return Report{ExitStatus: 195, ClientState: ClientComputeError, StderrTxt: "wrapper: unknown option " + args[0] + "\n"}
	}
	begun := time.Now()
	exit, signal, cpu, over := v.program(ctx, dir, w.Limits, "/bin/sh", append([]string{"./job.sh"}, child...))
	log := WrapperLog{App: w.App, Version: w.Version, Args: child, Begin: begun, End: time.Now(), CPU: cpu, PID: os.Getpid(), Child: os.Getpid() + 1}
	r := Report{CPU: cpu}
	switch {
	case over != 0:
		r.ExitStatus, r.ClientState, r.Message = over, ClientComputeError, "exceeded a limit\n"
	case w.Program.Kind == "capture":
		_ = os.WriteFile(filepath.Join(dir, "exitcode"), fmt.Appendf(nil, "%d\n", exit), 0o600) // missing: a failed upload
	case exit != 0 || signal != 0:
		r.ExitStatus, r.ClientState, log.Exit = 195, ClientComputeError, exit
		if signal != 0 {
			log.Exit = signal
		}
		r.Message = "process exited with code 195 (0xc3, -61)"
	}
	r.StderrTxt = log.String()
	return r
}

func mainProgram(exit int, stderr string) Report {
	r := Report{ExitStatus: exit, StderrTxt: stderr}
	if exit != 0 {
		r.ClientState, r.Message = ClientComputeError, fmt.Sprintf("process exited with code %d (0x%x, %d)", exit, exit, exit-256)
	}
	return r
}

// program runs a program with the streams that the wrapper's job.xml names, and ends
// whatever it leaves behind. over is the client's code for a limit that was passed.
func (v *Volunteer) program(ctx context.Context, dir string, l Limits, path string, args []string) (exit, signal int, cpu float64, over int) {
	run, stop := context.WithTimeout(ctx, v.timeLimit(l))
	defer stop()
	cmd := exec.CommandContext(run, path, args...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	for name, to := range map[string]*io.Writer{"stdout": &cmd.Stdout, "stderr": &cmd.Stderr} {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return 206, 0, 0, 0
		}
		defer f.Close()
		*to = f
	}
	cmd.Cancel = func() error {
		v.end(dir, cmd.Process.Pid)
		return nil
	}
	cmd.WaitDelay = v.Grace + 5*time.Second
	err := cmd.Run()
	killThose(dir)
	if cmd.ProcessState == nil {
		return 206, 0, 0, 0
	}
	cpu = (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()
	if errors.Is(run.Err(), context.DeadlineExceeded) && ctx.Err() == nil {
		return 0, 0, cpu, 197
	}
	if l.DiskBound > 0 && used(dir) > l.DiskBound {
		return 0, 0, cpu, 196
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && err != nil && status.Signaled() {
		return 0, int(status.Signal()), cpu, 0
	}
	return cmd.ProcessState.ExitCode(), 0, cpu, 0
}

// timeLimit is the elapsed time that rsc_fpops_bound allows on this host. A client
// takes a limit under two minutes for a mistake.
func (v *Volunteer) timeLimit(l Limits) time.Duration {
	seconds := l.FpopsBound / v.Host.Flops
	if seconds < 120 {
		seconds = 12 * 3600
	}
	return time.Duration(min(seconds, 1e8) * float64(time.Second))
}

func used(dir string) float64 {
	total := 0.0
	_ = filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() {
			total += float64(info.Size())
		}
		return nil
	})
	return total
}

// end asks a task's processes to end, and makes them.
func (v *Volunteer) end(dir string, group int) {
	for _, pid := range those(dir) {
		_ = unix.Kill(pid, unix.SIGTERM)
	}
	_ = unix.Kill(-group, unix.SIGTERM)
	deadline := time.After(v.Grace)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for len(those(dir)) > 0 {
		select {
		case <-deadline:
			killThose(dir)
			_ = unix.Kill(-group, unix.SIGKILL)
			return
		case <-tick.C:
		}
	}
	_ = unix.Kill(-group, unix.SIGKILL)
}

func killThose(dir string) {
	for range 100 { // what forks meanwhile is found in the next round
		pids := those(dir)
		if len(pids) == 0 {
			return
		}
		for _, pid := range pids {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		<-time.After(2 * time.Millisecond)
	}
}

// those lists the processes that work in a slot's directory.
func those(dir string) []int {
	var pids []int
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		cwd, err := os.Readlink(filepath.Join("/proc", e.Name(), "cwd"))
		if err != nil || cwd != dir && !strings.HasPrefix(cwd, dir+"/") {
			continue
		}
		if stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat")); err == nil && !bytes.Contains(stat, []byte(") Z ")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// WrapperLog is what the stock wrapper writes to its standard error.
type WrapperLog struct {
	App        string
	Version    int
	Project    string // directory; "boinc.example.org_gw" when empty
	Args       []string
	Begin, End time.Time
	PID, Child int
	CPU        float64
	Exit       int
	Raw        string // the arguments as the wrapper shows them, in place of Args
}

// String gives the lines.
func (l WrapperLog) String() string {
	project, args := l.Project, l.Raw
	if project == "" {
		project = "boinc.example.org_gw"
	}
	if args == "" && len(l.Args) > 0 {
		args = " " + strings.Join(l.Args, " ")
	}
	line := func(t time.Time, format string, a ...any) string {
		return fmt.Sprintf("%s (%d): ", t.UTC().Format("2006-01-02 15:04:05"), l.PID) + fmt.Sprintf(format, a...) + "\n"
	}
	s := line(l.Begin, "wrapper (8.3.26019): starting") +
		line(l.Begin, "wrapper: running ../../projects/%s/%s_runner_%d (%s)", project, l.App, l.Version, args) +
		line(l.Begin, "wrapper: created child process %d", l.Child)
	if l.End.IsZero() {
		return s
	}
	s += line(l.End, "runner exited; CPU time %f", l.CPU)
	if l.Exit != 0 {
		s += line(l.End, "app exit status: 0x%x", l.Exit) + line(l.End, "called boinc_finish(195)")
		return s
	}
	return s + line(l.End, "called boinc_finish(0)")
}
