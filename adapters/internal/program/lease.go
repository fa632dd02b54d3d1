package program

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// NameLease is the file below a job's home that has a later end of its lease than the one
// it was placed with. The gateway writes it anew, whole; whoever has the job reads it once
// the end that it knows has come. So an extension is no message to anybody.
const NameLease = "notafter"

const (
	// LeaseMargin is how long before the end of its lease what is left of a job is killed.
	LeaseMargin = 200 * time.Millisecond
	// LeaseTick is how often at least a clock that may be set is looked at.
	LeaseTick = 5 * time.Second
)

// ReadLease gives the later of what the file at path says and what is known. A file of
// another's than owner's is not heeded; owner -1 is anybody.
func ReadLease(path string, known time.Time, owner int) time.Time {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return known
	}
	defer f.Close() // only read
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return known
	}
	if st, ok := info.Sys().(*syscall.Stat_t); owner >= 0 && (!ok || int(st.Uid) != owner) {
		return known
	}
	data, err := io.ReadAll(io.LimitReader(f, 64))
	if err != nil {
		return known
	}
	var t time.Time
	if t.UnmarshalText(data) != nil || t.Before(known) {
		return known
	}
	return t
}

// WriteLease moves an end on, and does nothing if it is not later than what is there. Two who
// do this at once must take turns.
func WriteLease(path string, known, until time.Time) error {
	until = until.UTC().Round(0)
	if !until.After(ReadLease(path, known, -1)) {
		return nil
	}
	text, err := until.MarshalText()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".lease-")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// LeaseOver reports whether a lease, if there is one, has so little left that nothing may
// begin any more.
func LeaseOver(until time.Time) bool {
	return !until.IsZero() && !time.Now().Before(until.Add(-LeaseMargin))
}

// LeaseReason says in a sentence that a lease is over.
func LeaseReason(until time.Time) string {
	return "the job's lease ended at " + until.UTC().Format(time.RFC3339)
}

// Lease is the lease of a job that runs.
type Lease struct {
	Read  func() time.Time // the newest end
	Began time.Time
	Grace time.Duration // that a program has between SIGTERM and SIGKILL
}

// Keep calls end, once, when the lease is about to be over, with the time that is left until
// nothing of the job may be there; it returns then, or when done is closed.
func (l Lease) Keep(done <-chan struct{}, end func(within time.Duration)) {
	until := l.Read()
	for {
		// A short lease must not be all notice.
		notice := min(l.Grace, max(until.Sub(l.Began), 0)/4)
		left := time.Until(until.Add(-notice - LeaseMargin))
		if left <= 0 {
			if later := l.Read(); later.After(until) {
				until = later
				continue
			}
			end(max(time.Until(until.Add(-LeaseMargin)), time.Millisecond))
			return
		}
		t := time.NewTimer(min(left, LeaseTick))
		select {
		case <-done:
			t.Stop()
			return
		case <-t.C:
		}
	}
}
