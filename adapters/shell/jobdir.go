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

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// jobDir is the directory of one job.
type jobDir string

func (d jobDir) path(name string) string { return filepath.Join(string(d), name) }

// The names in it. See the package's documentation.
const (
	nameSpec      = "spec"
	nameState     = "state"
	nameCancelled = "cancelled"
	nameStopped   = "stopped"
	nameStdout    = "stdout"
	nameStderr    = "stderr"
	nameWork      = "work"
	nameTmp       = "tmp"
	nameScratch   = "scratch"
	nameMounts    = "fs"
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

// claim takes the lock of a job that was not started. The lock is held until the
// file is closed, and it dies with its process.
func (d jobDir) claim() (*os.File, error) {
	f, err := os.Open(d.path(nameSpec))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, errTaken // cancelled, stopped or forgotten
		}
		return nil, err
	}
	if err := flock(f, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errTaken
		}
		return nil, err
	}
	// Between the opening and the lock it may have been started and ended, or renamed.
	_, stateErr := os.Lstat(d.path(nameState))
	_, specErr := os.Lstat(d.path(nameSpec))
	if !errors.Is(stateErr, fs.ErrNotExist) || specErr != nil {
		_ = f.Close()
		return nil, errTaken
	}
	return f, nil
}

// wait takes the lock of a job whose supervisor is dying.
func (d jobDir) wait() (*os.File, error) {
	f, err := os.Open(d.path(nameSpec))
	if err != nil {
		return nil, err
	}
	if err := flock(f, syscall.LOCK_EX); err != nil {
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

// begin makes the state, which no one else can do any more. The room for the end
// is taken with it.
func (d jobDir) begin(b begun) (*os.File, error) {
	first, err := encodeBlock(b)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(d.path(nameState), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil, errTaken
		}
		return nil, err
	}
	if _, err := f.Write(append(first, make([]byte, block)...)); err != nil {
		_ = f.Close()
		return nil, errors.Join(err, os.Remove(d.path(nameState)))
	}
	return f, nil
}

// end writes the end into a state.
func end(state *os.File, e ended) error {
	e.Version, e.Reason = recordVersion, clip(e.Reason)
	second, err := encodeBlock(e)
	if err != nil {
		return err
	}
	_, err = state.WriteAt(second, block)
	return err
}

// lose records an end for a job whose supervisor is dead; the caller has the lock.
func (d jobDir) lose(e ended) error {
	state, err := os.OpenFile(d.path(nameState), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(end(state, e), state.Close())
}

// void makes sure that a job is never started, without needing room on the disk;
// the caller has the lock.
func (d jobDir) void(as string) error { return os.Rename(d.path(nameSpec), d.path(as)) }

// read tells what the directory says of a job: begun and ended as parseState
// gives them, started if there is a state at all.
func (d jobDir) read() (b *begun, e *ended, started bool, err error) {
	f, err := os.Open(d.path(nameState))
	if err == nil {
		defer f.Close() //nolint:errcheck // only read
		data, err := io.ReadAll(io.LimitReader(f, 2*block))
		if err != nil {
			return nil, nil, true, err
		}
		b, e = parseState(data)
		if e != nil && e.Started.IsZero() && b != nil && !e.NotRun {
			e.Started = b.Started
		}
		return b, e, true, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, false, err
	}
	for as, phase := range map[string]adapters.Phase{nameCancelled: adapters.Cancelled, nameStopped: adapters.Stopped} {
		info, err := os.Lstat(d.path(as))
		if err != nil {
			continue
		}
		e := &ended{Version: recordVersion, Phase: phase, NotRun: true, Ended: info.ModTime()}
		if dir, err := os.Lstat(string(d)); err == nil {
			e.Ended = dir.ModTime()
		}
		if phase == adapters.Stopped {
			e.Reason = reasonNoRoom
		}
		return nil, e, false, nil
	}
	if _, err := os.Lstat(string(d)); err != nil {
		return nil, nil, false, err
	}
	return nil, nil, false, nil
}

const reasonNoRoom = "the job was not started: its start could not be recorded in the site's job directory (is the disk full?)"

// spec reads what is to be run, also of a job that will not be.
func (d jobDir) spec() (*spec, error) {
	for _, name := range []string{nameSpec, nameCancelled, nameStopped} {
		data, err := readBounded(d.path(name), maxSpec+1)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		s, err := parseSpec(data)
		if err != nil {
			return nil, fmt.Errorf("%s can't be read: %w", d.path(name), err)
		}
		return s, nil
	}
	return nil, fmt.Errorf("%s: %w", d.path(nameSpec), fs.ErrNotExist)
}

func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
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
	if err := os.WriteFile(filepath.Join(tmp, nameSpec), data, 0o600); err != nil {
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
