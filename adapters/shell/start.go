package shell

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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
func (d jobDir) start(s *spec, t *tree) (pid int, err error) {
	if diskFull(string(d)) {
		return 0, refuse("the disk is full that holds the site's job directory, so that the job could not write anything")
	}
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
	exe, err := lookup(s, directory)
	if err != nil {
		return 0, err
	}
	if err := t.prepare(s); err != nil {
		return 0, refuse("the job's limits could not be set: %s", why(err))
	}
	held := s.held() || t.Way == trackCgroup1
	if held && os.Geteuid() != 0 && setsID(exe) {
		return 0, refuse("Executable: %s changes the account it runs as, and limits can't be put on such a program here; leave the limits out", exe)
	}
	attributes := &syscall.ProcAttr{
		Dir: directory, Env: s.Environment, Files: []uintptr{files[0].Fd(), files[1].Fd(), files[2].Fd()}, Sys: t.attributes(held),
	}
	for tries := 0; ; tries++ {
		pid, err = syscall.ForkExec(exe, append([]string{s.Executable}, s.Arguments...), attributes)
		// Whoever wrote the program may have started a process meanwhile that keeps
		// the file open until its own exec.
		if !errors.Is(err, syscall.ETXTBSY) || tries == 50 {
			break
		}
		<-time.After(10 * time.Millisecond)
	}
	if err != nil {
		return 0, unstarted(s, exe, held, err)
	}
	if held {
		err = hold(pid, s, t)
	}
	if err != nil {
		_ = unix.Kill(pid, unix.SIGKILL) // it is reaped with the tree
		return 0, refuse("the job's limits could not be set: %s", why(err))
	}
	return pid, nil
}

// hold waits for the program to be loaded, puts its limits on it and lets it go.
func hold(pid int, s *spec, t *tree) error {
	var ws syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &ws, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		break
	}
	if !ws.Stopped() {
		return fmt.Errorf("the program ended while it was loaded")
	}
	if err := t.enter(pid); err != nil {
		return err
	}
	if err := restrict(pid, s); err != nil {
		return err
	}
	return syscall.PtraceDetach(pid)
}

func setsID(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0
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
	if err := unix.Access(path, unix.X_OK); err != nil {
		return "", refuse("WorkingDirectory: %s can't be entered: %s", path, why(err))
	}
	return path, nil
}

func (s *spec) workingDirectory(d jobDir) string {
	if filepath.IsAbs(s.Directory) {
		return s.Directory
	}
	return filepath.Join(d.path(nameWork), s.Directory)
}

// outputs gives the files of standard output and error.
func (s *spec) outputs(d jobDir) (stdout, stderr string) {
	at := func(path, own string) string {
		switch {
		case path == "":
			return d.path(own)
		case filepath.IsAbs(path):
			return path
		}
		return filepath.Join(s.workingDirectory(d), path)
	}
	return at(s.Output, nameStdout), at(s.Error, nameStderr)
}

// files opens the program's three files. Output and Error that are one file are
// opened once, so that neither overwrites the other.
func (d jobDir) files(s *spec, directory string) ([]*os.File, error) {
	input := s.Input
	switch {
	case input == "":
		input = os.DevNull
	case !filepath.IsAbs(input):
		input = filepath.Join(directory, input)
	}
	var files []*os.File
	in, err := openFor("Input", input, os.O_RDONLY)
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
func lookup(s *spec, directory string) (string, error) {
	from := func(path string) string {
		if filepath.IsAbs(path) {
			return path
		}
		return filepath.Join(directory, path)
	}
	if strings.Contains(s.Executable, "/") {
		path := from(s.Executable)
		return path, executable(path)
	}
	search := ""
	for _, v := range s.Environment {
		if value, ok := strings.CutPrefix(v, "PATH="); ok {
			search = value
		}
	}
	var last error
	for dir := range strings.SplitSeq(search, ":") {
		path := from(filepath.Join(dir, s.Executable))
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
	return "", refuse("Executable: %s is in no directory of the job's PATH, which is %q", s.Executable, search)
}

func executable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return refuse("Executable: %s can't be run: %s", path, why(err))
	}
	if info.IsDir() {
		return refuse("Executable: %s is a directory", path)
	}
	if unix.Access(path, unix.X_OK) != nil {
		return refuse("Executable: %s is not executable; set its permission, or run an interpreter with it as the argument", path)
	}
	return nil
}

// unstarted says why a program that is there and executable could not be started.
func unstarted(s *spec, exe string, held bool, err error) error {
	switch {
	case errors.Is(err, syscall.ENOEXEC):
		return refuse("Executable: %s is neither a program of this machine nor a script that begins with \"#!\"", exe)
	case errors.Is(err, syscall.ENOENT):
		return refuse("Executable: %s can't be run: its interpreter, named in its first line or its header, does not exist", exe)
	case errors.Is(err, syscall.E2BIG):
		return refuse("Executable: %s can't be run: its arguments and environment are more than this machine takes", exe)
	case errors.Is(err, syscall.ETXTBSY):
		return refuse("Executable: %s can't be run: somebody is writing to it", exe)
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM):
		return refuse("Executable: %s can't be run: the machine has no process or memory left", exe)
	case errors.Is(err, syscall.EPERM) && held:
		return refuse("Executable: %s can't be run with limits: this machine does not let the site hold a program to set them", exe)
	}
	return refuse("Executable: %s can't be run: %s", exe, why(err))
}
