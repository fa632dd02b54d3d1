package slurm

import (
	"crypto/sha256"
	"encoding/hex"
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
)

// spool is the directory that the gateway shares with the nodes.
type spool string

// The directories in it. See the package's documentation.
const (
	dirJobs    = "jobs"
	dirBatches = "batches"
	dirEvents  = "events"
	dirLogs    = "logs"
	dirBin     = "bin"
	dirTrash   = "trash"
	// Of reservations, a file each.
	dirReservations = "reservations"
)

func (s spool) path(parts ...string) string {
	return filepath.Join(append([]string{string(s)}, parts...)...)
}

func (s spool) job(tag adapters.Tag) jobDir { return jobDir(s.path(dirJobs, string(tag))) }

// make makes the spool, open to the accounts of jobs if there are any but our own.
func (s spool) make(shared bool) error {
	mode, inside, drop := os.FileMode(0o700), os.FileMode(0o700), os.FileMode(0o700)
	if shared {
		mode, inside, drop = 0o711, 0o711, 0o1733 // whoever knows the name may enter; anybody may leave a note
	}
	for name, mode := range map[string]os.FileMode{"": mode, dirJobs: inside, dirBatches: inside, dirEvents: drop, dirLogs: drop, dirBin: inside, dirTrash: 0o700, dirReservations: 0o700} {
		path := s.path(name)
		if err := os.MkdirAll(path, 0o700); err != nil {
			return err
		}
		if err := os.Chmod(path, 0o777&mode); err != nil {
			return err
		}
		if mode&0o1000 != 0 {
			if err := os.Chmod(path, 0o733|os.ModeSticky); err != nil {
				return err
			}
		}
	}
	return nil
}

// A batch is what one submission to the manager has: a job, or an array of jobs. Its
// members are a file of lines of one width, so that a runner finds its own at once.
const memberWidth = adapters.MaxTag + 1

func (s spool) membersPath(batch string) string { return s.path(dirBatches, batch+".members") }
func (s spool) batchPath(batch string) string   { return s.path(dirBatches, batch+".job") }

// writeMembers says who belongs to a batch, before the manager hears of it.
func (s spool) writeMembers(batch string, tags []adapters.Tag) error {
	var b strings.Builder
	b.Grow(len(tags) * memberWidth)
	for _, tag := range tags {
		b.WriteString(string(tag))
		for range adapters.MaxTag - len(tag) {
			b.WriteByte(' ')
		}
		b.WriteByte('\n')
	}
	return writeFile(s.membersPath(batch), []byte(b.String()), 0o644)
}

// member finds the tag of one member.
func (s spool) member(batch string, n int) (adapters.Tag, error) {
	if n < 0 || !validBatch(batch) {
		return "", fmt.Errorf("there is no member %d of %q", n, batch)
	}
	f, err := os.Open(s.membersPath(batch))
	if err != nil {
		return "", err
	}
	defer f.Close() // only read
	line := make([]byte, memberWidth)
	if _, err := f.ReadAt(line, int64(n)*memberWidth); err != nil {
		return "", err
	}
	tag := adapters.Tag(strings.TrimRight(string(line), " \n"))
	return tag, tag.Validate()
}

// maxMembers bounds the members of one batch.
const maxMembers = 1 << 17

// members lists a batch.
func (s spool) members(batch string) ([]adapters.Tag, error) {
	data, err := readBounded(s.membersPath(batch), maxMembers*memberWidth)
	if err != nil {
		return nil, err
	}
	return parseMembers(data)
}

func parseMembers(data []byte) ([]adapters.Tag, error) {
	if len(data)%memberWidth != 0 {
		return nil, errors.New("a list of members is broken")
	}
	tags := make([]adapters.Tag, 0, len(data)/memberWidth)
	for len(data) > 0 {
		tag := adapters.Tag(strings.TrimRight(string(data[:memberWidth]), " \n"))
		if err := tag.Validate(); err != nil {
			return nil, err
		}
		tags, data = append(tags, tag), data[memberWidth:]
	}
	return tags, nil
}

// validBatch reports whether a name is one that newBatch makes: part of a file name,
// and of no option.
func validBatch(name string) bool {
	if name == "" || len(name) > 128 || name[0] == '.' {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// batchRecord is what is known of a batch at the manager.
type batchRecord struct {
	Version int       `json:"version"`
	Began   time.Time `json:"began"` // when it was about to be placed
	Request *request  `json:"request"`
	Job     int64     `json:"job,omitzero"` // its id; 0 as long as Slurm has not answered
	Array   bool      `json:"array,omitzero"`
	Tries   int       `json:"tries,omitzero"` // how often its jobs were placed before, and lost by Slurm
}

func (s spool) writeBatch(batch string, r batchRecord) error {
	r.Version = specVersion
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return writeFile(s.batchPath(batch), data, 0o600)
}

func (s spool) readBatch(batch string) (*batchRecord, error) {
	data, err := readBounded(s.batchPath(batch), maxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r := new(batchRecord)
	if err := json.Unmarshal(data, r); err != nil || r.Version != specVersion {
		return nil, fmt.Errorf("%s can't be understood", s.batchPath(batch))
	}
	return r, nil
}

func (s spool) removeBatch(batch string) error {
	var errs []error
	for _, path := range []string{s.batchPath(batch), s.membersPath(batch)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// The kinds of events that runners leave.
const (
	eventStart = ".s"
	eventEnd   = ".e"
)

// tell leaves an event, which is but a hint: what it is about stands in the job's
// directory.
func (s spool) tell(name, kind string) {
	f, err := os.OpenFile(s.path(dirEvents, name+kind), os.O_CREATE|os.O_WRONLY|syscall.O_NOFOLLOW, 0o600)
	if err == nil {
		_ = f.Close()
	}
}

// place makes a job's directory, for the account uid if that is another; without its
// file, which comes last, a job is none. It gives false if the tag is taken.
func (s spool) place(sp *spec, uid, gid int) (bool, error) {
	data, err := json.Marshal(sp)
	if err != nil {
		return false, err
	}
	dir := s.job(sp.Tag)
	if err := os.Mkdir(string(dir), 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return false, nil
		}
		return false, err
	}
	if err := os.WriteFile(dir.path(nameJob), data, 0o600); err != nil {
		return false, err
	}
	if uid != os.Getuid() {
		for _, path := range []string{dir.path(nameJob), string(dir)} {
			if err := os.Lchown(path, uid, gid); err != nil {
				return false, err
			}
		}
	}
	return true, nil
}

// rebatch says that another batch runs the job from now on.
func (s spool) rebatch(tag adapters.Tag, batch string) error {
	path := s.job(tag).path(nameJob)
	data, err := readBounded(path, maxSpec)
	if err != nil {
		return err
	}
	sp, err := parseSpec(data)
	if err != nil {
		return err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	sp.Batch = batch
	if data, err = json.Marshal(sp); err != nil {
		return err
	}
	owner := -1
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Getuid() {
		owner = int(st.Uid)
	}
	return writeFileFor(path, data, 0o600, owner)
}

// discard takes a directory out of sight at once, and away, which may take its time.
func (s spool) discard(path string) error {
	out, err := os.MkdirTemp(s.path(dirTrash), "gone-")
	if err != nil {
		return err
	}
	err = os.Rename(path, filepath.Join(out, "job"))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return errors.Join(err, os.Remove(out))
	}
	return clearAway(out)
}

// clearAway removes a directory with whatever a job left in it, even directories that
// it closed to itself.
func clearAway(path string) error {
	if err := os.RemoveAll(path); err == nil {
		return nil
	}
	_ = filepath.WalkDir(path, func(p string, d fs.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(p, 0o700)
		}
		return nil
	})
	return os.RemoveAll(path)
}

// install puts a copy of this program where nodes reach it, under a name that changes
// with its content, so that a new release disturbs no job of the old one.
func (s spool) install(exe string) (string, error) {
	in, err := os.Open(exe)
	if err != nil {
		return "", err
	}
	defer in.Close() // only read
	info, err := in.Stat()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %d", info.Size(), info.ModTime().UnixNano()))
	path := s.path(dirBin, "portolan-"+hex.EncodeToString(sum[:6]))
	if have, err := os.Stat(path); err == nil && have.Size() == info.Size() {
		return path, nil
	}
	out, err := os.CreateTemp(s.path(dirBin), ".copy-")
	if err != nil {
		return "", err
	}
	_, err = io.Copy(out, in)
	if err == nil {
		err = out.Chmod(0o755)
	}
	if e := out.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(out.Name(), path)
	}
	if err != nil {
		_ = os.Remove(out.Name())
		return "", err
	}
	return path, nil
}

// readBounded reads a file that a job's account may have put there: it is not waited
// for, and only so much of it is read.
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
