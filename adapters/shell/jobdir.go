package shell

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// jobDir is the directory of one job.
type jobDir string

func (d jobDir) path(name string) string { return filepath.Join(string(d), name) }

// The names in it. See the package's documentation.
const (
	nameJob     = "job"
	nameStdout  = "stdout"
	nameStderr  = "stderr"
	nameWork    = "work"
	nameTmp     = "tmp"
	nameScratch = "scratch"
	nameMounts  = "fs"
	namePrivate = "private" // and a number: what the job sees as /tmp and /var/tmp
	nameHosts   = "hosts"   // for a launcher
)

const handlePrefix = "shell/1 "

func handleOf(tag adapters.Tag) adapters.Handle { return adapters.Handle(handlePrefix + string(tag)) }

func tagOf(h adapters.Handle) (adapters.Tag, error) {
	s, ok := strings.CutPrefix(string(h), handlePrefix)
	tag := adapters.Tag(s)
	if !ok || tag.Validate() != nil {
		return "", fail.Errorf("shell", fail.Invalid, "", "the handle is not of the shell adapter")
	}
	return tag, nil
}

// errTaken means that somebody else has the job, or had it.
var errTaken = errors.New("the job is taken")

// claim takes the lock of a job that nobody has begun or ended. The lock is held
// until the file is closed, and it dies with its process.
func (d jobDir) claim() (*os.File, error) {
	f, err := d.lock(syscall.LOCK_EX | syscall.LOCK_NB)
	if err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, fs.ErrNotExist) {
			return nil, errTaken // or forgotten
		}
		return nil, err
	}
	blocks := make([]byte, 2*block)
	if _, err := f.ReadAt(blocks, 0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if !blank(blocks) {
		_ = f.Close()
		return nil, errTaken
	}
	return f, nil
}

// wait takes the lock of a job, once whoever has it lets go.
func (d jobDir) wait() (*os.File, error) { return d.lock(syscall.LOCK_EX) }

// patiently takes it if it is free, or soon is.
func (d jobDir) patiently() (*os.File, error) {
	for tries := 0; ; tries++ {
		f, err := d.lock(syscall.LOCK_EX | syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) || tries == 200 {
			return f, err
		}
		<-time.After(5 * time.Millisecond)
	}
}

func (d jobDir) lock(how int) (*os.File, error) {
	f, err := openPlain(d.path(nameJob), syscall.O_RDWR)
	if err != nil {
		return nil, err
	}
	if err := flock(f, how); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func flock(f *os.File, how int) error {
	for {
		err := syscall.Flock(int(f.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// begin writes that the job is being started; the caller has claimed it.
func begin(f *os.File, b begun) error {
	first, err := encodeBlock(b)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(first, 0)
	return err
}

// end writes the end; the caller has the lock.
func end(f *os.File, e ended) error {
	e.Version, e.Reason = recordVersion, clip(e.Reason)
	second, err := encodeBlock(e)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(second, block)
	return err
}

// read tells what the file says of a job: begun and ended as parseState gives
// them, started if anybody ever began it.
func (d jobDir) read() (b *begun, e *ended, started bool, err error) {
	data, err := readBounded(d.path(nameJob), 2*block)
	if err != nil {
		return nil, nil, false, err
	}
	b, e = parseState(data)
	if e != nil && e.Started.IsZero() && b != nil && !e.NotRun {
		e.Started = b.Started
	}
	return b, e, !blank(data[:min(block, len(data))]), nil
}

// spec reads what is to be run.
func (d jobDir) spec() (*spec, error) {
	f, err := openPlain(d.path(nameJob), syscall.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	return specOf(f)
}

// specOf reads it from the job's file.
func specOf(f *os.File) (*spec, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	data := make([]byte, min(max(info.Size()-2*block, 0), maxSpec+1))
	if _, err := f.ReadAt(data, 2*block); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	s, err := parseSpec(data)
	if err != nil {
		return nil, fmt.Errorf("%s can't be read: %w", f.Name(), err)
	}
	return s, nil
}

// openPlain opens a file of the site's own, which never makes anybody wait: without
// what os.Open does for those that may.
func openPlain(path string, flags int) (*os.File, error) {
	for {
		fd, err := syscall.Open(path, flags|syscall.O_CLOEXEC, 0o600)
		if err == nil {
			return os.NewFile(uintptr(fd), path), nil
		}
		if !errors.Is(err, syscall.EINTR) {
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
	}
}

func readBounded(path string, limit int64) ([]byte, error) {
	f, err := openPlain(path, syscall.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	return io.ReadAll(io.LimitReader(f, limit))
}

// place puts a job under its name, whole or not at all. It gives false if the
// name is taken.
func place(jobs, staging string, s *spec) (bool, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return false, err
	}
	tmp, err := os.MkdirTemp(staging, "place-")
	if err != nil {
		return false, err
	}
	undo := func(err error) (bool, error) { return false, errors.Join(err, os.RemoveAll(tmp)) }
	if s.Account != nil { // which must reach what is its own in there
		if err := os.Chmod(tmp, 0o711); err != nil {
			return undo(err)
		}
	}
	f, err := openPlain(filepath.Join(tmp, nameJob), syscall.O_WRONLY|syscall.O_CREAT|syscall.O_EXCL)
	if err != nil {
		return undo(err)
	}
	_, err = f.Write(append(make([]byte, 2*block), data...))
	if err = errors.Join(err, f.Close()); err != nil {
		return undo(err)
	}
	// A job's directory is never empty, so that a rename does not replace one.
	if err := os.Rename(tmp, filepath.Join(jobs, string(s.Tag))); err != nil {
		if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTEMPTY) {
			return undo(nil)
		}
		return undo(err)
	}
	return true, nil
}

// clear removes a directory with whatever a job left in it, even directories that
// it closed to itself.
func clear(path string) error {
	if err := os.RemoveAll(path); err == nil {
		return nil
	}
	root, err := os.OpenRoot(path)
	if errors.Is(err, fs.ErrPermission) {
		if err = os.Chmod(path, 0o700); err == nil {
			root, err = os.OpenRoot(path)
		}
	}
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	open(root, ".")
	_ = root.Close()
	return os.RemoveAll(path)
}

// open gives the owner every right to the directories below name.
func open(root *os.Root, name string) {
	_ = root.Chmod(name, 0o700)
	dir, err := root.Open(name)
	if err != nil {
		return
	}
	entries, _ := dir.ReadDir(-1)
	_ = dir.Close()
	for _, e := range entries {
		if e.IsDir() {
			open(root, filepath.Join(name, e.Name()))
		}
	}
}
