package condor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Event logs are shared by all jobs of an account that were submitted while the log
// was the newest: ACCOUNT.N.log. Nobody renames or shortens one, as HTCondor's
// programs hold them open; when one has grown, the next submission begins another, and
// an old one goes when all of its jobs are forgotten. What is known of a job that has
// not ended is derived anew from its log at each start of the gateway, so that no
// offset or state can be lost or be wrong. A log is as large as its jobs made it, so
// that this is quick.

// maxLog is the size from which on another log is begun.
const maxLog = 8 << 20

// logFile is one event log, as far as it was read.
type logFile struct {
	path   string
	uid, n int
	offset int64
	rest   []byte // the beginning of a record
	// jobs are those of the log by their numbers at the schedd: a submission in the log
	// begins a number, whoever had it before.
	jobs    map[ids]*job
	members int // jobs in memory that are of this log
	// unsure says that the log was lost once: what still holds it open writes where nobody
	// reads. Its jobs are asked for until they have ended.
	unsure bool
}

func logName(uid, n int) string { return strconv.Itoa(uid) + "." + strconv.Itoa(n) + ".log" }

func parseLogName(name string) (uid, n int, ok bool) {
	parts := strings.Split(name, ".")
	if len(parts) != 3 || parts[2] != "log" {
		return 0, 0, false
	}
	uid, errU := strconv.Atoi(parts[0])
	n, errN := strconv.Atoi(parts[1])
	return uid, n, errU == nil && errN == nil && uid >= 0 && n >= 0 && logName(uid, n) == name
}

// grow reads what was added to the log. shrunk says that what was read before is gone.
func (l *logFile) grow(take func(*event)) (damaged int, shrunk bool, err error) {
	f, err := os.Open(l.path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			if l.members == 0 {
				return 0, false, nil
			}
			l.offset, l.rest, l.unsure = 0, nil, true
			return 0, true, l.begin()
		}
		return 0, false, err
	}
	defer f.Close() // only read
	info, err := f.Stat()
	if err != nil {
		return 0, false, err
	}
	if !info.Mode().IsRegular() {
		return 0, false, fmt.Errorf("%s is no file", l.path)
	}
	if info.Size() < l.offset {
		l.offset, l.rest, shrunk = 0, nil, true
	}
	buffer := make([]byte, 256<<10)
	for {
		n, err := f.ReadAt(buffer, l.offset)
		if n > 0 {
			l.offset += int64(n)
			rest, bad := scan(append(l.rest, buffer[:n]...), take)
			damaged += bad
			l.rest = append([]byte(nil), rest...)
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return damaged, shrunk, err
		}
	}
}

// begin makes the log, for its account to write.
func (l *logFile) begin() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_WRONLY|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	if os.Getuid() == 0 {
		err = f.Chown(l.uid, -1)
	}
	if e := f.Close(); err == nil {
		err = e
	}
	return err
}

// watchLogs calls look when a log in the directory has grown, and now and then, for
// directories whose changes on other machines are not told (NFS).
func watchLogs(ctx context.Context, dir string, look func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer w.Close() //nolint:errcheck // nothing is lost with it
	if err := w.Add(dir); err != nil {
		return fmt.Errorf("the event logs in %s can't be watched: %w", dir, err)
	}
	now := time.NewTicker(2 * time.Second)
	defer now.Stop()
	look()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w.Events:
			if !ok {
				return errors.New("the watch on the event logs ended")
			}
			if !e.Has(fsnotify.Write) && !e.Has(fsnotify.Create) || filepath.Ext(e.Name) != ".log" {
				continue
			}
			for range len(w.Events) { // one look for all that came meanwhile
				<-w.Events
			}
			look()
		case _, ok := <-w.Errors: // events were lost
			if !ok {
				return errors.New("the watch on the event logs ended")
			}
			look()
		case <-now.C:
			look()
		}
	}
}
