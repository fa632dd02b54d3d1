package program

import (
	"errors"
	"fmt"
	"io/fs"
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
	for _, w := range []struct {
		is   error
		says string
	}{
		{syscall.ENOSPC, "the disk is full"},
		{syscall.EDQUOT, "the disk quota is used up"},
		{syscall.EROFS, "the file system is read-only"},
		{syscall.ENOENT, "it does not exist"},
		{syscall.ENOTDIR, "a part of its path is not a directory"},
		{syscall.EISDIR, "it is a directory"},
		{fs.ErrPermission, "permission was denied"},
	} {
		if errors.Is(err, w.is) {
			return w.says
		}
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno.Error()
	}
	return err.Error()
}

// start makes the job's directories, opens its files and starts its processes, each
// held before its first instruction if it has limits. With an error, pids are those
// that were started.
func (p *Program) start(home string) (pids []int, err error) {
	for _, name := range p.Make {
		if !filepath.IsLocal(name) {
			return nil, refuse("the directory %q is not the job's own", name)
		}
		if err := os.MkdirAll(filepath.Join(home, name), 0o700); err != nil {
			return nil, refuse("the job's directory %s could not be made: %s", name, why(err))
		}
	}
	directory, err := p.directory(home)
	if err != nil {
		return nil, err
	}
	// The program's files and processes are made with its own mask.
	defer syscall.Umask(syscall.Umask(p.Umask))
	files, err := p.files(home, directory)
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	if err != nil {
		return nil, err
	}
	argv := append(slices.Clone(p.Prefix), append([]string{p.Executable}, p.Arguments...)...)
	exe, err := p.lookup(argv[0], directory)
	if err == nil && len(p.Prefix) > 0 { // a launcher does not say what it is that it can't start
		_, err = p.lookup(p.Executable, directory)
	}
	if err != nil {
		return nil, err
	}
	if p.held() && os.Geteuid() != 0 && setsID(exe) {
		return nil, refuse("Executable: %s changes the account it runs as, and limits can't be put on such a program here; leave the limits out", exe)
	}
	for rank := range max(p.Processes, 1) {
		pid, err := p.one(exe, argv, directory, files, rank)
		if err != nil {
			return pids, err
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// one starts one process.
func (p *Program) one(exe string, argv []string, directory string, files []*os.File, rank int) (int, error) {
	held := p.held()
	attributes := &syscall.ProcAttr{
		Dir: directory, Env: p.environment(rank), Files: []uintptr{files[0].Fd(), files[1].Fd(), files[2].Fd()},
		// A group of its own, so that what the program does to its group spares the runner.
		Sys: &syscall.SysProcAttr{Setpgid: true, Ptrace: held},
	}
	var pid int
	var err error
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
		if err := p.hold(pid); err != nil {
			_ = unix.Kill(pid, unix.SIGKILL) // it is reaped with what else is left
			return 0, refuse("the job's limits could not be set: %s", why(err))
		}
	}
	return pid, nil
}

// environment gives a process its variables; one of an SPMD program is told its place
// among the others.
func (p *Program) environment(rank int) []string {
	if p.Processes == 0 || len(p.Prefix) > 0 {
		return p.Environment
	}
	own := map[string]string{
		"PORTOLAN_RANK": strconv.Itoa(rank), "PORTOLAN_SIZE": strconv.Itoa(p.Processes),
		"PORTOLAN_LOCAL_RANK": strconv.Itoa(rank), "PORTOLAN_LOCAL_SIZE": strconv.Itoa(p.Processes),
		"PORTOLAN_NODE": "0", "PORTOLAN_NODES": "1",
		"PMI_RANK": strconv.Itoa(rank), "PMI_SIZE": strconv.Itoa(p.Processes),
	}
	out := make([]string, 0, len(p.Environment)+len(own))
	for _, v := range p.Environment {
		name, _, _ := strings.Cut(v, "=")
		if _, ours := own[name]; !ours {
			out = append(out, v)
		}
	}
	for name, value := range own {
		out = append(out, name+"="+value)
	}
	slices.Sort(out)
	return out
}

// WorkingDirectory gives the path of the working directory.
func (p *Program) WorkingDirectory(home string) string {
	if filepath.IsAbs(p.Directory) {
		return p.Directory
	}
	return filepath.Join(home, NameWork, p.Directory)
}

// directory finds the working directory (GFD.56 §8.1.7), and makes it if it is the
// job's own.
func (p *Program) directory(home string) (string, error) {
	path := p.WorkingDirectory(home)
	if !filepath.IsAbs(p.Directory) {
		if err := os.MkdirAll(path, 0o755&^os.FileMode(p.Umask)|0o700); err != nil {
			return "", refuse("WorkingDirectory: the job's own directory could not be made: %s", why(err))
		}
		return path, nil
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "", refuse("WorkingDirectory: %s can't be used: %s", path, why(err))
	case !info.IsDir():
		return "", refuse("WorkingDirectory: %s is not a directory", path)
	}
	if err := unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS); err != nil {
		return "", refuse("WorkingDirectory: %s can't be entered: %s", path, why(err))
	}
	return path, nil
}

// Outputs gives the paths of standard output and error.
func (p *Program) Outputs(home string) (stdout, stderr string) {
	at := func(path, own string) string {
		switch {
		case path == "":
			return filepath.Join(home, own)
		case filepath.IsAbs(path):
			return path
		}
		return filepath.Join(p.WorkingDirectory(home), path)
	}
	return at(p.Output, NameStdout), at(p.Error, NameStderr)
}

// files opens the program's three files. Output and Error that are one file are
// opened once, so that neither overwrites the other.
func (p *Program) files(home, directory string) ([]*os.File, error) {
	var files []*os.File
	input := p.Input
	switch {
	case input == "":
		input = os.DevNull
	case !filepath.IsAbs(input):
		input = filepath.Join(directory, input)
	}
	in, err := openFor("Input", input, os.O_RDONLY)
	if err != nil {
		return files, err
	}
	files = append(files, in)
	const write = os.O_WRONLY | os.O_CREATE | os.O_TRUNC | os.O_APPEND
	stdout, stderr := p.Outputs(home)
	out, err := openFor("Output", stdout, write)
	if err != nil {
		return files, err
	}
	files = append(files, out)
	if info, err := os.Stat(stderr); err == nil && info.Mode().IsRegular() {
		if mine, err := out.Stat(); err == nil && os.SameFile(info, mine) {
			return append(files, out), nil
		}
	}
	errs, err := openFor("Error", stderr, write)
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
	var stat syscall.Stat_t
	if err = syscall.Fstat(fd, &stat); err == nil {
		switch stat.Mode & syscall.S_IFMT {
		case syscall.S_IFREG, syscall.S_IFCHR:
			err = syscall.SetNonblock(fd, false)
		case syscall.S_IFDIR:
			err = syscall.EISDIR
		default:
			err = errors.New("it is neither a file nor a device")
		}
	}
	if err != nil {
		_ = syscall.Close(fd)
		return nil, refuse("%s: %s can't be opened: %s", element, path, why(err))
	}
	return os.NewFile(uintptr(fd), path), nil
}

// lookup finds a program as the system does: a name with a slash is a path, from the
// working directory if it is relative; one without is looked for along the job's own
// PATH. No shell is ever asked.
func (p *Program) lookup(name, directory string) (string, error) {
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
	search := ""
	for _, v := range p.Environment {
		if value, ok := strings.CutPrefix(v, "PATH="); ok {
			search = value
		}
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
	switch {
	case err != nil:
		return refuse("Executable: %s can't be run: %s", path, why(err))
	case info.IsDir():
		return refuse("Executable: %s is a directory", path)
	case unix.Faccessat(unix.AT_FDCWD, path, unix.X_OK, unix.AT_EACCESS) != nil:
		return refuse("Executable: %s is not executable; set its permission, or run an interpreter with it as the argument", path)
	}
	return nil
}

// unstarted says why a program that is there and executable could not be started.
func unstarted(exe string, held bool, err error) error {
	says := why(err)
	switch {
	case errors.Is(err, syscall.ENOEXEC):
		says = `it is neither a program of this node nor a script that begins with "#!"`
	case errors.Is(err, syscall.ENOENT):
		says = "its interpreter, named in its first line or its header, does not exist"
	case errors.Is(err, syscall.E2BIG):
		says = "its arguments and environment are more than the node takes"
	case errors.Is(err, syscall.ETXTBSY):
		says = "somebody is writing to it"
	case errors.Is(err, syscall.EAGAIN), errors.Is(err, syscall.ENOMEM):
		says = "the node has no process or memory left"
	case errors.Is(err, syscall.EPERM) && held:
		says = "the node does not let a program be held, as is needed to set its limits"
	}
	return refuse("Executable: %s can't be run: %s", exe, says)
}
