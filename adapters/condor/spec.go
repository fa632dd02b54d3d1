package condor

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
	"github.com/portolan-project/portolan/adapters/internal/program"
)

// version is that of every file that the gateway and the runner exchange.
const version = 1

// spec is what the runner is to do for one job: the whole truth about the program, so
// that nothing of it passes through the submit language, a shell or the manager.
type spec struct {
	Version int             `json:"version"`
	Tag     adapters.Tag    `json:"tag"`
	Batch   string          `json:"batch"` // the submission that may run it
	Program program.Program `json:"program"`
	// Rerunnable jobs may be begun again by the manager.
	Rerunnable bool `json:"rerunnable,omitzero"`
	// What only the gateway needs.
	UID       int       `json:"uid"`
	Account   string    `json:"account,omitzero"`
	Owner     string    `json:"owner,omitzero"`
	Wall      string    `json:"wall,omitzero"` // the wall time limit, for a sentence
	Submitted time.Time `json:"submitted"`
}

// Bounds of the files, in bytes.
const (
	maxSpec   = 32 << 20
	maxRecord = 64 << 10
)

func parseSpec(data []byte) (*spec, error) {
	s := new(spec)
	if err := json.Unmarshal(data, s); err != nil {
		return nil, err
	}
	if s.Version != version {
		return nil, fmt.Errorf("version %d of a job's file is not known here", s.Version)
	}
	return s, s.Tag.Validate()
}

// jobDir is the directory of one job.
type jobDir string

// The names in it, beside those of its program.
const (
	nameJob    = "job"    // the spec
	nameStart  = "start"  // who began it, or that nobody ever shall
	nameEnd    = "end"    // what became of the program, by the runner
	nameCancel = "cancel" // the gateway was asked to end it
	nameStop   = "stop"   // the gateway ends it, with the reason
	nameFinal  = "final"  // what the gateway told of its end
)

func (d jobDir) path(name string) string { return filepath.Join(string(d), name) }

// begun is the file start.
type begun struct {
	Version   int       `json:"version"`
	Withdrawn bool      `json:"withdrawn,omitzero"` // by the gateway, before anybody ran it
	Host      string    `json:"host,omitzero"`
	Started   time.Time `json:"started"`
}

// ended is the file end.
type ended struct {
	Version int       `json:"version"`
	Host    string    `json:"host,omitzero"`
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"`
	program.End
}

func (d jobDir) spec() (*spec, error) {
	data, err := readBounded(d.path(nameJob), maxSpec)
	if err != nil {
		return nil, err
	}
	return parseSpec(data)
}

// begun reads the file start; nil where there is none.
func (d jobDir) begun() (*begun, error) { return record[begun](d.path(nameStart)) }

// ended reads the file end; nil where there is none.
func (d jobDir) ended() (*ended, error) { return record[ended](d.path(nameEnd)) }

// record reads a file of JSON; nil where there is none.
func record[T any](path string) (*T, error) {
	data, err := readBounded(path, maxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	v := new(T)
	if err := json.Unmarshal(data, v); err != nil {
		return nil, fmt.Errorf("%s can't be understood: %w", path, err)
	}
	return v, nil
}

// marked reports whether one of the gateway's marks is there.
func (d jobDir) marked(name string) bool {
	_, err := os.Lstat(d.path(name))
	return err == nil
}

// withdraw makes sure that nobody ever runs the job; false if somebody has begun it.
func (d jobDir) withdraw() (bool, error) {
	data, err := json.Marshal(begun{Version: version, Withdrawn: true, Started: time.Now()})
	if err != nil {
		return false, err
	}
	err = create(d.path(nameStart), data)
	if errors.Is(err, fs.ErrExist) {
		b, err := d.begun()
		return err == nil && b != nil && b.Withdrawn, err
	}
	return err == nil, err
}

// create makes a file that must not be there yet, whole or not at all: a link fails
// where a name is taken, on NFS too.
func create(path string, data []byte) error {
	f, err := temporary(path, data, 0o644)
	if err != nil {
		return err
	}
	err = os.Link(f, path)
	_ = os.Remove(f)
	return err
}

// writeFile puts a file into its place, whole or not at all.
func writeFile(path string, data []byte, mode os.FileMode) error {
	f, err := temporary(path, data, mode)
	if err != nil {
		return err
	}
	if err = os.Rename(f, path); err != nil {
		_ = os.Remove(f)
	}
	return err
}

func temporary(path string, data []byte, mode os.FileMode) (string, error) {
	dir, name := filepath.Split(path)
	f, err := os.CreateTemp(dir, "."+name+"-")
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return f.Name(), err
}

// readBounded reads a file that a job's account may have put there: it is not waited
// for, no link is followed, and only so much of it is read.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return data, err
}

// clip keeps a sentence within reason.
func clip(s string) string {
	const most = 4000
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
