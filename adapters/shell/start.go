package shell

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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

// started are the processes that a job began with.
type started struct {
	pids       []int  // in the order of their ranks
	out, error *merge // of several; nil for one
}

// start makes the job's directories, opens its files and starts its program, held
// before its first instruction if the spec asks for limits. over is called when the
// output of several processes exceeds FileSizeLimit. What was started is told with an
// error, too.
func (d jobDir) start(s *spec, t *tree, b *box, over func()) (*started, error) {
	if diskFull(string(d)) {
		return nil, refuse("the disk is full that holds the site's job directory, so that the job could not write anything")
	}
	if err := d.make(s); err != nil {
		return nil, err
	}
	if err := b.enter(d, s); err != nil {
		return nil, err
	}
	// The program's files and processes are made with its own mask.
	defer syscall.Umask(syscall.Umask(s.Umask))
	var files []*os.File
	defer func() { _ = closeAll(files) }()
	var argv []string
	var directory, exe string
	err := s.as(func() (err error) {
		if directory, err = d.directory(s); err != nil {
			return err
		}
		if files, err = d.files(s, directory); err != nil {
			return err
		}
		if exe, err = lookup(s, directory); err != nil {
			return err
		}
		argv = append([]string{s.Executable}, s.Arguments...)
		if len(s.Launcher) > 0 {
			argv = slices.Concat(s.Launcher, []string{exe}, s.Arguments)
			exe, err = lookupIn(s.Launcher[0], directory, s.variable("PATH"))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := t.prepare(s); err != nil {
		return nil, refuse("the job's limits could not be set: %s", why(err))
	}
	c := &child{spec: s, tree: t, exe: exe, argv: argv, directory: directory}
	if s.Ranks == nil || len(s.Launcher) > 0 {
		pid, err := c.start(files, s.Environment)
		if err != nil {
			return nil, err
		}
		return &started{pids: []int{pid}}, nil
	}
	return d.startRanks(c, files, over)
}

// startRanks starts the processes of an SPMD job, one after another.
func (d jobDir) startRanks(c *child, files []*os.File, over func()) (*started, error) {
	s := c.spec
	limit := uint64(unlimited)
	if n, ok := s.Limits[limitFileSize]; ok {
		limit = n
	}
	fresh := func(f *os.File) (*merge, error) {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		return &merge{file: os.NewFile(uintptr(fd), f.Name()), limit: limit, over: over}, nil
	}
	all := &started{}
	var err error
	if all.out, err = fresh(files[1]); err != nil {
		return nil, refuse("the job's output could not be opened: %s", why(err))
	}
	all.error = all.out
	if files[2] != files[1] {
		if all.error, err = fresh(files[2]); err != nil {
			return all, refuse("the job's output could not be opened: %s", why(err))
		}
	}
	for local := range s.Ranks.Count {
		pid, err := d.startRank(c, all, files[0], s.Ranks.environment(s.Environment, local))
		if err != nil {
			return all, err
		}
		all.pids = append(all.pids, pid)
	}
	return all, nil
}

func (d jobDir) startRank(c *child, all *started, first *os.File, environment []string) (int, error) {
	in := first
	if len(all.pids) > 0 && c.spec.Input != "" { // each reads the input for itself
		err := c.spec.as(func() (err error) {
			in, err = openFor("Input", c.spec.input(c.directory), os.O_RDONLY)
			return err
		})
		if err != nil {
			return 0, err
		}
		defer in.Close() // the process has its own
	}
	out, err := all.out.pipe()
	if err != nil {
		return 0, refuse("the processes' output could not be gathered: %s", why(err))
	}
	defer out.Close() // the process has its own
	errs := out
	if all.error != all.out {
		if errs, err = all.error.pipe(); err != nil {
			return 0, refuse("the processes' output could not be gathered: %s", why(err))
		}
		defer errs.Close() // the process has its own
	}
	return c.start([]*os.File{in, out, errs}, environment)
}

// end waits for what the processes wrote and closes its files.
func (s *started) end() {
	if s == nil || s.out == nil {
		return
	}
	s.out.wait()
	_ = s.out.file.Close()
	if s.error != nil && s.error != s.out {
		s.error.wait()
		_ = s.error.file.Close()
	}
}

// child is what the processes of a job have in common.
type child struct {
	*spec
	tree           *tree
	exe, directory string
	argv           []string
}

// start starts one process.
func (c *child) start(files []*os.File, environment []string) (pid int, err error) {
	s, t := c.spec, c.tree
	held := s.held() || t.Way == trackCgroup1 || len(t.limited) > 0
	if held && os.Geteuid() != 0 && setsID(c.exe) {
		return 0, refuse("Executable: %s changes the account it runs as, and limits can't be put on such a program here; leave the limits out", c.exe)
	}
	attributes := &syscall.ProcAttr{
		Dir: c.directory, Env: environment, Files: []uintptr{files[0].Fd(), files[1].Fd(), files[2].Fd()}, Sys: t.attributes(held),
	}
	attributes.Sys.Credential = s.Account.credential()
	for tries := 0; ; tries++ {
		pid, err = syscall.ForkExec(c.exe, c.argv, attributes)
		// Whoever wrote the program may have started a process meanwhile that keeps
		// the file open until its own exec.
		if !errors.Is(err, syscall.ETXTBSY) || tries == 50 {
			break
		}
		<-time.After(10 * time.Millisecond)
	}
	if err != nil {
		return 0, unstarted(s, c.exe, held, err)
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

// make makes the directories that are the job's own, and the file for a launcher.
func (d jobDir) make(s *spec) error {
	names := s.Make
	if s.Account != nil { // the account could not make it itself
		names = append([]string{nameWork}, names...)
	}
	for _, name := range names {
		err := os.MkdirAll(d.path(name), 0o700)
		if err == nil && s.Account != nil && filepath.Dir(name) != "." {
			err = os.Chmod(d.path(filepath.Dir(name)), 0o711) // to go through, no more
		}
		if err == nil {
			err = s.give(d.path(name))
		}
		if err != nil {
			return refuse("the job's directory %s could not be made: %s", name, why(err))
		}
	}
	if s.Account != nil { // nor could it make these
		for name, used := range map[string]bool{nameStdout: s.Output == "", nameStderr: s.Error == ""} {
			if !used {
				continue
			}
			err := os.WriteFile(d.path(name), nil, 0o600)
			if err == nil {
				err = s.give(d.path(name))
			}
			if err != nil {
				return refuse("the job's output could not be opened: %s", why(err))
			}
		}
	}
	return d.writeHosts(s)
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
	if err := unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS); err != nil {
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
	// The open may not wait, the program's reads and writes may; of the flags that can
	// be changed these are all that were set.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags&os.O_APPEND); err != nil {
		close()
		return nil, refuse("%s: %s can't be opened: %s", element, path, why(err))
	}
	return os.NewFile(uintptr(fd), path), nil
}

// lookup finds the executable as the system does: a name with a slash is a path,
// from the working directory if it is relative; one without is looked for along
// the job's own PATH. No shell is ever asked.
func lookup(s *spec, directory string) (string, error) {
	return lookupIn(s.Executable, directory, s.variable("PATH"))
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

// variable gives a variable of the job's environment.
func (s *spec) variable(name string) string {
	value := ""
	for _, v := range s.Environment {
		if after, ok := strings.CutPrefix(v, name+"="); ok {
			value = after
		}
	}
	return value
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
