package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/plugin"
)

// A job's directory has these files. Whoever looks, at any time, sees the truth: no
// started: it may be started; ended: that is its end; started, and nobody holds lock:
// its end is lost.
const (
	fileJob       = "job.json"  // what is to be run, written before anything else
	fileLock      = "lock"      // held by the supervisor as long as it lives
	fileControl   = "control"   // a FIFO: a byte written to it wakes the supervisor
	fileHold      = "hold"      // is there while the job is kept from starting
	fileSuspend   = "suspend"   // is there while the job is to be suspended
	fileSuspended = "suspended" // is there while it is
	fileCancel    = "cancel"    // is there when the job is to be ended
	fileStarted   = "started"   // when the program was started, written before it is
	fileEnded     = "ended"     // how it ended: the last thing that is written
	fileNews      = "news"      // above the jobs: a FIFO that supervisors write tags to
)

// plan is what a supervisor runs.
type plan struct {
	Argv        []string
	Environment []string
	Path        string // of the environment, for looking the program up
	Directory   string
	Relative    bool // Directory is the job's own and is made
	Input       string
	Output      string
	Error       string
	WallTime    time.Duration // 0 is no limit
	Limited     bool          // WallTime is one, even if it is 0
	Submitted   time.Time
	Owner       string
}

// end is how a job ended.
type end struct {
	Phase   adapters.Phase
	Status  *int
	Signal  string
	Reason  string
	NotRun  bool
	Started time.Time
	Ended   time.Time
	CPU     time.Duration
	Memory  int64
}

// write writes a file that is there as a whole or not at all.
func write(path string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// read reads what write wrote; false when it is not there.
func read(path string, value any) (bool, error) {
	data, err := os.ReadFile(filepath.Clean(path))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, json.Unmarshal(data, value)
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func touch(path string) error { return os.WriteFile(path, nil, 0o600) }

func remove(path string) error {
	if err := os.Remove(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// lock takes the job's lock: a file to be closed, or nil when another holds it.
func lock(dir string) *os.File {
	f, err := os.OpenFile(filepath.Join(dir, fileLock), os.O_RDWR, 0)
	if err != nil {
		return nil
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		_ = f.Close()
		return nil
	}
	return f
}

// poke writes to a FIFO, if somebody reads it and it has room; it never waits.
func poke(path, text string) {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	_, _ = unix.Write(fd, []byte(text))
	_ = unix.Close(fd)
}

// A handle is "queue/1 TAG": the version comes first, so that a later one can tell.
const prefix = "queue/1 "

func handle(tag adapters.Tag) adapters.Handle { return adapters.Handle(prefix + string(tag)) }

func tagOf(h adapters.Handle) (adapters.Tag, error) {
	s, ok := strings.CutPrefix(string(h), prefix)
	tag := adapters.Tag(s)
	if !ok || tag.Validate() != nil {
		return "", plugin.Invalid("", "the handle is none of this adapter")
	}
	return tag, nil
}
