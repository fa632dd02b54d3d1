package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portolan-project/portolan/adapters"
)

// grace is the time between SIGTERM and SIGKILL.
const grace = 3 * time.Second

// supervisor runs one job to its end, whoever else lives or dies.
type supervisor struct {
	dir     string
	plan    plan
	control *os.File
	woken   chan struct{} // somebody wrote to control
	reaped  chan struct{} // a child ended
	main    int
	status  syscall.WaitStatus
	usage   syscall.Rusage
	over    bool // the program has ended
}

func (s *supervisor) path(name string) string { return filepath.Join(s.dir, name) }

// supervise is the whole life of a supervisor. What goes wrong before the program is
// started leaves the job as it was, for the next one.
func supervise(dir string) {
	held := lock(dir)
	if held == nil {
		return
	}
	defer func() { _ = held.Close() }()
	s := &supervisor{dir: dir, woken: make(chan struct{}, 1), reaped: make(chan struct{}, 1)}
	if ok, err := read(s.path(fileJob), &s.plan); !ok || err != nil || exists(s.path(fileStarted)) || exists(s.path(fileEnded)) {
		return
	}
	var err error
	if s.control, err = os.OpenFile(s.path(fileControl), os.O_RDWR, 0); err != nil {
		return
	}
	go s.listen()
	e := end{Phase: adapters.Cancelled, NotRun: true}
	if !exists(s.path(fileCancel)) {
		e = end{Started: time.Now()}
		if write(s.path(fileStarted), e.Started) != nil {
			return
		}
		e = s.run(e)
	}
	if e.NotRun {
		e.Started = time.Time{}
	}
	e.Ended = time.Now()
	for write(s.path(fileEnded), e) != nil {
		time.Sleep(time.Second) // a full disk: nothing better can be done than to wait
	}
	s.tell()
}

// tell tells the queue that there is news, if it listens.
func (s *supervisor) tell() {
	poke(filepath.Join(filepath.Dir(filepath.Dir(s.dir)), fileNews), filepath.Base(s.dir)+"\n")
}

func (s *supervisor) listen() {
	buffer := make([]byte, 64)
	for {
		if _, err := s.control.Read(buffer); err != nil {
			return
		}
		select {
		case s.woken <- struct{}{}:
		default:
		}
	}
}

// run starts the program and waits for its end and for that of its descendants.
func (s *supervisor) run(e end) end {
	if len(s.plan.Argv) == 0 {
		return end{Phase: adapters.Exited, Status: new(int), Started: e.Started} // a job that runs nothing
	}
	// Whatever the job leaves behind becomes our child, so that it can be found.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return end{Phase: adapters.Stopped, NotRun: true, Reason: "the job could not be supervised: " + err.Error()}
	}
	started := make(chan error, 1)
	go s.start(started)
	if err := <-started; err != nil {
		return end{Phase: adapters.Stopped, NotRun: true, Reason: err.Error()}
	}
	s.tell()
	cancelled, limited := s.watch(e.Started)
	e.CPU = time.Duration(s.usage.Utime.Nano() + s.usage.Stime.Nano())
	e.Memory = s.usage.Maxrss * 1024
	switch {
	case cancelled:
		e.Phase = adapters.Cancelled
	case limited:
		e.Phase, e.Reason = adapters.Stopped, fmt.Sprintf("WallTimeLimit: the job was ended after its %v seconds", s.plan.WallTime.Seconds())
	case s.status.Signaled():
		e.Phase, e.Signal = adapters.Exited, unix.SignalName(s.status.Signal())
	default:
		e.Phase, e.Status = adapters.Exited, new(s.status.ExitStatus())
	}
	return e
}

// start starts the program, and reaps. It keeps its thread: the program is killed
// when the thread that started it ends, as it does with the supervisor.
func (s *supervisor) start(started chan<- error) {
	runtime.LockOSThread()
	pid, err := s.fork()
	s.main = pid
	started <- err
	if err != nil {
		return
	}
	for {
		var status syscall.WaitStatus
		var usage syscall.Rusage
		pid, err := syscall.Wait4(-1, &status, 0, &usage)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil: // no child is left
			close(s.reaped)
			return
		case pid == s.main:
			s.status, s.usage = status, usage
			s.reaped <- struct{}{}
		}
	}
}

func (s *supervisor) fork() (int, error) {
	p := &s.plan
	syscall.Umask(0o022)
	if p.Relative {
		if err := os.MkdirAll(p.Directory, 0o755); err != nil {
			return 0, why("WorkingDirectory", p.Directory, err)
		}
	}
	if err := os.Chdir(p.Directory); err != nil {
		return 0, why("WorkingDirectory", p.Directory, err)
	}
	var files []uintptr
	open := func(element, path string, flags int) error {
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o666)
		if err != nil {
			return why(element, path, err)
		}
		if i, err := os.Stat(path); err == nil && i.IsDir() {
			return why(element, path, unix.EISDIR)
		}
		files = append(files, uintptr(fd))
		return nil
	}
	const fresh = unix.O_WRONLY | unix.O_CREAT | unix.O_TRUNC | unix.O_APPEND
	if err := open("Input", p.Input, unix.O_RDONLY); err != nil {
		return 0, err
	}
	if err := open("Output", p.Output, fresh); err != nil {
		return 0, err
	}
	if p.Error == p.Output {
		files = append(files, files[1])
	} else if err := open("Error", p.Error, fresh); err != nil {
		return 0, err
	}
	program, err := find(p.Argv[0], p.Path)
	if err != nil {
		return 0, err
	}
	pid, err := syscall.ForkExec(program, p.Argv, &syscall.ProcAttr{
		Env: p.Environment, Files: files, Sys: &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL},
	})
	switch {
	case errors.Is(err, unix.ENOENT):
		return 0, fmt.Errorf("Executable: the interpreter that %s names in its first line does not exist", p.Argv[0])
	case errors.Is(err, unix.ENOEXEC):
		return 0, fmt.Errorf("Executable: %s is no program of this machine; a script begins with #! and its interpreter", p.Argv[0])
	case err != nil:
		return 0, why("Executable", p.Argv[0], err)
	}
	return pid, nil
}

// why puts what the system says into a sentence.
func why(element, path string, err error) error {
	var said syscall.Errno
	errors.As(err, &said)
	what, ok := map[syscall.Errno]string{
		unix.ENOENT: "does not exist", unix.EACCES: "may not be opened", unix.ENOTDIR: "is not a directory, or leads through a file",
		unix.EISDIR: "is a directory", unix.ENAMETOOLONG: "has too long a name",
	}[said]
	if !ok {
		what = err.Error()
	}
	return fmt.Errorf("%s: %s %s", element, path, what)
}

// find looks a program up as execvp does, but says what is wrong with it.
func find(program, path string) (string, error) {
	if !strings.Contains(program, "/") {
		for dir := range strings.SplitSeq(path, ":") {
			file := filepath.Join(dir, program)
			if !strings.Contains(file, "/") {
				file = "./" + file
			}
			if i, err := os.Stat(file); err == nil && i.Mode().IsRegular() && unix.Access(file, unix.X_OK) == nil {
				return file, nil
			}
		}
		return "", fmt.Errorf("Executable: there is no program %s in the PATH of the job, %s", program, path)
	}
	i, err := os.Stat(program)
	switch {
	case err != nil:
		return "", why("Executable", program, err)
	case i.IsDir():
		return "", why("Executable", program, unix.EISDIR)
	case unix.Access(program, unix.X_OK) != nil:
		return "", fmt.Errorf("Executable: %s is not executable", program)
	}
	return program, nil
}

// watch does what the files in the job's directory ask for, until nothing of the job
// is left. It says whether it was cancelled, or ended for its limit.
func (s *supervisor) watch(started time.Time) (cancelled, limited bool) {
	var limit, kill <-chan time.Time
	if s.plan.Limited {
		limit = time.After(time.Until(started.Add(s.plan.WallTime)))
	}
	suspended := false
	for {
		if !s.over && !cancelled && !limited && exists(s.path(fileCancel)) {
			cancelled = true
		}
		if wanted := exists(s.path(fileSuspend)); wanted != suspended && !s.over && !cancelled && !limited {
			s.suspend(wanted)
			suspended = wanted
		}
		if (cancelled || limited) && kill == nil && !s.over {
			s.signal(unix.SIGTERM)
			s.signal(unix.SIGCONT)
			kill = time.After(grace)
		}
		if s.over {
			s.signal(unix.SIGKILL)
			kill = time.After(10 * time.Millisecond) // for what was forked meanwhile
		}
		select {
		case _, more := <-s.reaped:
			if !more {
				return cancelled, limited
			}
			s.over = true
		case <-s.woken:
		case <-limit:
			limited = !cancelled
		case <-kill:
			s.signal(unix.SIGKILL)
			kill = time.After(10 * time.Millisecond)
		}
	}
}

// suspend stops the job, or lets it go on.
func (s *supervisor) suspend(stop bool) {
	if !stop {
		_ = remove(s.path(fileSuspended))
		s.signal(unix.SIGCONT)
		s.tell()
		return
	}
	for n := -1; ; { // until nothing new has come
		pids := descendants()
		s.signal(unix.SIGSTOP)
		if len(pids) == n {
			break
		}
		n = len(pids)
	}
	_ = touch(s.path(fileSuspended))
	s.tell()
}

func (s *supervisor) signal(number syscall.Signal) {
	for _, pid := range descendants() {
		_ = unix.Kill(pid, number)
	}
}

// descendants finds the processes below this one.
func descendants() []int {
	children := map[int][]int{}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) < 2 {
			continue
		}
		if parent, err := strconv.Atoi(fields[1]); err == nil {
			children[parent] = append(children[parent], pid)
		}
	}
	var found []int
	for open := []int{os.Getpid()}; len(open) > 0; {
		below := children[open[0]]
		found, open = append(found, below...), append(open[1:], below...)
	}
	return found
}
