package slurm

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// refusal is why a program was not started, in a sentence for the user.
type refusal string

func (r refusal) Error() string { return string(r) }

func refuse(format string, args ...any) error { return refusal(fmt.Sprintf(format, args...)) }

// why puts an errno into words.
func why(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return "the disk is full"
	case errors.Is(err, syscall.EDQUOT):
		return "the disk quota is used up"
	case errors.Is(err, syscall.EROFS):
		return "the file system is read-only"
	case errors.Is(err, fs.ErrNotExist):
		return "it does not exist"
	case errors.Is(err, syscall.ENOTDIR):
		return "a part of its path is not a directory"
	case errors.Is(err, syscall.EISDIR):
		return "it is a directory"
	case errors.Is(err, fs.ErrPermission):
		return "permission was denied"
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	return err.Error()
}

// start makes the job's directories, opens its files and starts its program, held
// before its first instruction if the spec asks for limits.
func (r *runner) start() (pid int, err error) {
	s, d := r.spec, r.dir
	for _, name := range s.Make {
		if err := os.MkdirAll(d.path(name), 0o700); err != nil {
			return 0, refuse("the job's directory %s could not be made: %s", name, why(err))
		}
	}
	directory, err := d.directory(s)
	if err != nil {
		return 0, err
	}
	// The program's files and processes are made with its own mask.
	defer syscall.Umask(syscall.Umask(s.Umask))
	files, err := d.files(s, directory)
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	if err != nil {
		return 0, err
	}
	run, argv := s.command()
	env := s.variables()
	exe, err := lookup(run, directory, env)
	if err != nil {
		return 0, err
	}
	if run != s.Executable { // a launcher does not say what it is that it can't start
		if s.Prefix == nil {
			if _, err := lookup(s.Executable, directory, env); err != nil {
				return 0, err
			}
		}
	}
	held := s.held()
	if held && os.Geteuid() != 0 && setsID(exe) {
		return 0, refuse("Executable: %s changes the account it runs as, and limits can't be put on such a program here; leave the limits out", exe)
	}
	attributes := &syscall.ProcAttr{
		Dir: directory, Env: env, Files: []uintptr{files[0].Fd(), files[1].Fd(), files[2].Fd()},
		// A group of its own, so that what the program does to its group spares the runner.
		Sys: &syscall.SysProcAttr{Setpgid: true, Ptrace: held},
	}
	for tries := 0; ; tries++ {
		pid, err = syscall.ForkExec(exe, argv, attributes)
		// Whoever wrote the program may have started a process meanwhile that keeps
		// the file open until its own exec.
		if !errors.Is(err, syscall.ETXTBSY) || tries == 50 {
			break
		}
		<-time.After(10 * time.Millisecond)
	}
	if err != nil {
		return 0, unstarted(exe, held, err)
	}
	if held {
		if err := s.hold(pid); err != nil {
			_ = unix.Kill(pid, unix.SIGKILL) // it is reaped with what else is left
			return 0, refuse("the job's limits could not be set: %s", why(err))
		}
	}
	return pid, nil
}

// command gives what is run, which may be a launcher or a container's program, and
// with which arguments.
func (s *spec) command() (run string, argv []string) {
	argv = append([]string{s.Executable}, s.Arguments...)
	if len(s.Prefix) > 0 {
		argv = append(slices.Clone(s.Prefix), argv...)
	}
	if s.Launch != nil {
		argv = append(slices.Clone(s.Launch.Command), argv...)
	}
	return argv[0], argv
}

// variables gives the program's environment: what the manager says of the job, and over
// it what the spec says.
func (s *spec) variables() []string {
	own := map[string]bool{}
	for _, v := range s.Environment {
		name, _, _ := strings.Cut(v, "=")
		own[name] = true
	}
	env := slices.Clone(s.Environment)
	manager := environment()
	for _, name := range slices.Sorted(maps.Keys(manager)) {
		if managers(name) && !own[name] {
			env = append(env, name+"="+manager[name])
		}
	}
	if s.Launch != nil && !own["OMP_NUM_THREADS"] {
		threads := strconv.Itoa(s.Launch.Threads)
		if s.Launch.Threads == 0 {
			threads = manager["SLURM_CPUS_ON_NODE"]
		}
		env = append(env, "OMP_NUM_THREADS="+threads)
	}
	return env
}

// managers reports whether a variable is one by which Slurm tells a job about itself
// and its devices.
func managers(name string) bool {
	switch name {
	case "SLURM_EXPORT_ENV", "SLURM_GET_USER_ENV": // they are about what is not to be passed on
		return false
	case "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES", "ZE_AFFINITY_MASK":
		return true
	}
	return strings.HasPrefix(name, "SLURM_") || strings.HasPrefix(name, "SLURMD_") || strings.HasPrefix(name, "PMI")
}

// directory finds the working directory (GFD.56 §8.1.7), and makes it if it is
// the job's own.
func (d jobDir) directory(s *spec) (string, error) {
	path := s.workingDirectory(d)
	if !filepath.IsAbs(s.Directory) {
		if err := os.MkdirAll(path, 0o755&^os.FileMode(s.Umask)|0o700); err != nil {
			return "", refuse("WorkingDirectory: the job's own directory could not be made: %s", why(err))
		}
		return path, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", refuse("WorkingDirectory: %s can't be used: %s", path, why(err))
	}
	if !info.IsDir() {
		return "", refuse("WorkingDirectory: %s is not a directory", path)
	}
	if err := unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS); err != nil {
		return "", refuse("WorkingDirectory: %s can't be entered: %s", path, why(err))
	}
	return path, nil
}

// input gives the file of standard input.
func (s *spec) input(directory string) string {
	switch {
	case s.Input == "":
		return os.DevNull
	case filepath.IsAbs(s.Input):
		return s.Input
	}
	return filepath.Join(directory, s.Input)
}

// files opens the program's three files. Output and Error that are one file are
// opened once, so that neither overwrites the other.
func (d jobDir) files(s *spec, directory string) ([]*os.File, error) {
	var files []*os.File
	in, err := openFor("Input", s.input(directory), os.O_RDONLY)
	if err != nil {
		return files, err
	}
	files = append(files, in)
	stdout, stderr := s.outputs(d)
	out, err := openFor("Output", stdout, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND)
	if err != nil {
		return files, err
	}
	files = append(files, out)
	if info, err := os.Stat(stderr); err == nil && info.Mode().IsRegular() {
		if mine, err := out.Stat(); err == nil && os.SameFile(info, mine) {
			return append(files, out), nil
		}
	}
	errs, err := openFor("Error", stderr, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND)
	if err != nil {
		return files, err
	}
	return append(files, errs), nil
}

// openFor opens a file for the program. Opening a named pipe could wait for ever.
func openFor(element, path string, flags int) (*os.File, error) {
	fd, err := syscall.Open(path, flags|syscall.O_CLOEXEC|syscall.O_NOCTTY|syscall.O_NONBLOCK, 0o666)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) && flags&os.O_CREATE != 0 {
			return nil, refuse("%s: %s can't be made: its directory does not exist", element, path)
		}
		return nil, refuse("%s: %s can't be opened: %s", element, path, why(err))
	}
	close := func() { _ = syscall.Close(fd) }
	var stat syscall.Stat_t
	if err := syscall.Fstat(fd, &stat); err != nil {
		close()
		return nil, refuse("%s: %s can't be opened: %s", element, path, why(err))
	}
	switch stat.Mode & syscall.S_IFMT {
	case syscall.S_IFREG, syscall.S_IFCHR:
	case syscall.S_IFDIR:
		close()
		return nil, refuse("%s: %s is a directory", element, path)
	default:
		close()
		return nil, refuse("%s: %s is neither a file nor a device", element, path)
	}
	if err := syscall.SetNonblock(fd, false); err != nil {
		close()
		return nil, refuse("%s: %s can't be opened: %s", element, path, why(err))
	}
	return os.NewFile(uintptr(fd), path), nil
}

// lookup finds the executable as the system does: a name with a slash is a path,
// from the working directory if it is relative; one without is looked for along
// the job's own PATH. No shell is ever asked.
func lookup(name, directory string, env []string) (string, error) {
	search := ""
	for _, v := range env {
		if value, ok := strings.CutPrefix(v, "PATH="); ok {
			search = value
		}
	}
	return lookupIn(name, directory, search)
}

func lookupIn(name, directory, search string) (string, error) {
	from := func(path string) string {
		if filepath.IsAbs(path) {
			return path
		}
		return filepath.Join(directory, path)
	}
	if strings.Contains(name, "/") {
		path := from(name)
		return path, executable(path)
	}
	var last error
	for dir := range strings.SplitSeq(search, ":") {
		path := from(filepath.Join(dir, name))
		if _, err := os.Stat(path); err != nil {
			continue
		}
		if last = executable(path); last == nil {
			return path, nil
		}
	}
	if last != nil {
		return "", last
	}
	return "", refuse("Executable: %s is in no directory of the job's PATH, which is %q", name, search)
}

func executable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return refuse("Executable: %s can't be run: %s", path, why(err))
	}
	if info.IsDir() {
		return refuse("Executable: %s is a directory", path)
	}
	if unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS) != nil {
		return refuse("Executable: %s is not executable; set its permission, or run an interpreter with it as the argument", path)
	}
	return nil
}

// unstarted says why a program that is there and executable could not be started.
func unstarted(exe string, held bool, err error) error {
	switch {
	case errors.Is(err, syscall.ENOEXEC):
		return refuse("Executable: %s is neither a program of this node nor a script that begins with \"#!\"", exe)
	case errors.Is(err, syscall.ENOENT):
		return refuse("Executable: %s can't be run: its interpreter, named in its first line or its header, does not exist", exe)
	case errors.Is(err, syscall.E2BIG):
		return refuse("Executable: %s can't be run: its arguments and environment are more than the node takes", exe)
	case errors.Is(err, syscall.ETXTBSY):
		return refuse("Executable: %s can't be run: somebody is writing to it", exe)
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM):
		return refuse("Executable: %s can't be run: the node has no process or memory left", exe)
	case errors.Is(err, syscall.EPERM) && held:
		return refuse("Executable: %s can't be run with limits: the node does not let a program be held, as is needed to set them", exe)
	}
	return refuse("Executable: %s can't be run: %s", exe, why(err))
}
