package slurm

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/portolan-project/portolan/adapters"
)

// specVersion is that of every file that the gateway and the runner exchange.
const specVersion = 1

// spec is what the runner is to do for one job: the whole truth about the program,
// so that nothing of it passes through a shell or a manager's options.
type spec struct {
	Version     int           `json:"version"`
	Tag         adapters.Tag  `json:"tag"`
	Batch       string        `json:"batch"`               // that may run it
	Executable  string        `json:"executable,omitzero"` // "" runs nothing
	Arguments   []string      `json:"arguments,omitzero"`
	Prefix      []string      `json:"prefix,omitzero"` // a program that runs the program: of containers
	Environment []string      `json:"environment,omitzero"`
	Input       string        `json:"input,omitzero"`
	Output      string        `json:"output,omitzero"`
	Error       string        `json:"error,omitzero"`
	Directory   string        `json:"directory,omitzero"`
	Make        []string      `json:"make,omitzero"` // directories below the job's own
	Umask       int           `json:"umask"`
	Rerunnable  bool          `json:"rerunnable,omitzero"`
	NotAfter    time.Time     `json:"notAfter,omitzero"` // the end of its lease, unless a file has a later one
	Grace       time.Duration `json:"grace"`             // between SIGTERM and SIGKILL
	// Limits by element. Memory is the manager's to keep; it is here to name what ended a program.
	Limits map[string]uint64 `json:"limits,omitzero"`
	// MemoryFrom is the element that the memory limit comes from.
	MemoryFrom string `json:"memoryFrom,omitzero"`
	// Reservation is the one that it runs in, at Slurm; here to name what ended a program.
	Reservation string  `json:"reservation,omitzero"`
	Launch      *launch `json:"launch,omitzero"`
	// What only the gateway needs.
	UID       int       `json:"uid"` // of the account that it runs as
	Home      string    `json:"-"`
	Owner     string    `json:"owner,omitzero"`
	Submitted time.Time `json:"submitted"`
}

// launch starts the processes of an SPMD job.
type launch struct {
	Command []string `json:"command"`          // the launcher, with its options
	Threads int      `json:"threads,omitzero"` // of each process; 0 is as many as CPUs are allocated on the host
}

// maxSpec bounds the file of a spec, in bytes.
const maxSpec = 32 << 20

func parseSpec(data []byte) (*spec, error) {
	s := new(spec)
	if err := json.Unmarshal(data, s); err != nil {
		return nil, err
	}
	switch {
	case s.Version != specVersion:
		return nil, fmt.Errorf("version %d of a job's file is not known here", s.Version)
	case s.Tag.Validate() != nil:
		return nil, fmt.Errorf("it has no tag")
	case slices.ContainsFunc(s.Make, func(name string) bool { return !filepath.IsLocal(name) }):
		return nil, fmt.Errorf("it makes directories that are not its own")
	}
	return s, nil
}

// jobDir is the directory of one job.
type jobDir string

// The names in it. See the package's documentation.
const (
	nameJob     = "job"
	nameStart   = "start"
	nameEnd     = "end"
	nameCancel  = "cancel"
	nameFinal   = "final"
	nameStdout  = "stdout"
	nameStderr  = "stderr"
	nameWork    = "work"
	nameTmp     = "tmp"
	nameScratch = "scratch"
	nameMounts  = "fs"
)

func (d jobDir) path(name string) string { return filepath.Join(string(d), name) }

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

// begun is the file start: who runs the job, or that nobody ever shall.
type begun struct {
	Version   int       `json:"version"`
	Withdrawn bool      `json:"withdrawn,omitzero"` // by the gateway, before anybody ran it
	Job       string    `json:"job,omitzero"`       // of the job, or of the array
	Raw       int64     `json:"raw,omitzero"`       // SLURM_JOB_ID: a member of an array has one of its own
	Restarts  int       `json:"restarts,omitzero"`
	Host      string    `json:"host,omitzero"`
	Started   time.Time `json:"started"`
}

// ended is the file end: what became of the program.
type ended struct {
	Version int    `json:"version"`
	Status  *int   `json:"status,omitzero"`
	Signal  string `json:"signal,omitzero"`
	Reason  string `json:"reason,omitzero"` // with it the program was stopped, or could not be started
	NotRun  bool   `json:"notRun,omitzero"`
	// LeaseEnded says that it was for the end of the job's lease.
	LeaseEnded bool `json:"leaseEnded,omitzero"`
	// Told says that the manager asked the job to end (SIGTERM) before the program had:
	// why, only the manager knows.
	Told    bool          `json:"told,omitzero"`
	Started time.Time     `json:"started"`
	Ended   time.Time     `json:"ended"`
	CPU     time.Duration `json:"cpu,omitzero"`
	MaxRSS  int64         `json:"maxRSS,omitzero"` // bytes
}

// decisive reports whether the end says all: what else may have ended a program with
// such an end is the manager's to tell.
func (e *ended) decisive() bool {
	return e.Reason != "" || !e.Told && e.Signal != "SIGKILL"
}

// terminated reports whether the program ended as one does that is asked to: by SIGTERM,
// or, a shell, with what it makes of a child's. The manager asks one process of a job
// after the other, and a shell whose child was the first may be gone before its own turn.
func (e *ended) terminated() bool {
	return e.Signal == "SIGTERM" || e.Status != nil && *e.Status == 128+int(syscall.SIGTERM)
}

// writeFile puts a file into its place, whole or not at all.
func writeFile(path string, data []byte, mode os.FileMode) error {
	return writeFileFor(path, data, mode, -1)
}

// writeFileFor gives the file to the account uid, before anybody can put another into
// its place; -1 leaves it.
func writeFileFor(path string, data []byte, mode os.FileMode, uid int) error {
	dir, name := filepath.Split(path)
	f, err := os.CreateTemp(dir, "."+name+"-")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil && uid >= 0 {
		err = f.Chown(uid, -1)
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// maxRecord bounds the files start, end, final and cancel, in bytes.
const maxRecord = 64 << 10

// clip keeps a sentence within reason.
func clip(s string) string {
	const most = 4000
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
