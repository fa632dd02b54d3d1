package boinc

import (
	"bufio"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
)

// The adapter's memory is a journal: a line is written before each deed that a crash
// must not hide, and read at Open. A line that a crash cut off was not followed by
// its deed.

// entry is a line. One of its parts is set.
type entry struct {
	Batch     *batchRecord `json:"batch,omitempty"`     // is about to be made
	Created   *created     `json:"created,omitempty"`   // has an id
	Submit    string       `json:"submit,omitempty"`    // its jobs are about to be submitted
	Submitted string       `json:"submitted,omitempty"` // its jobs are there
	Dropped   string       `json:"dropped,omitempty"`   // it has no jobs, and will have none
	Cancel    *cancelled   `json:"cancel,omitempty"`
	Started   *started     `json:"started,omitempty"`
	Final     *final       `json:"final,omitempty"`
	Forget    adapters.Tag `json:"forget,omitempty"`
	Proven    string       `json:"proven,omitempty"` // an application of which a host took a job
}

// batchRecord is a batch as it was meant.
type batchRecord struct {
	Name string      `json:"name"`
	App  string      `json:"app"`
	At   time.Time   `json:"at"`
	Jobs []jobRecord `json:"jobs"`
	// Adopted is the id of a batch that was found at the project and not remembered.
	Adopted int64 `json:"adopted,omitempty"`
}

// jobRecord is what is remembered of a job.
type jobRecord struct {
	Tag      adapters.Tag      `json:"tag"`
	Native   bool              `json:"native,omitempty"`
	Stdout   *int              `json:"stdout,omitempty"`
	Stderr   *int              `json:"stderr,omitempty"`
	Quorum   int               `json:"quorum,omitempty"`
	Wall     time.Duration     `json:"wall,omitempty"`
	Deadline time.Time         `json:"deadline,omitzero"`
	Subjects map[string]string `json:"subjects,omitempty"`
}

type created struct {
	Name string `json:"name"`
	ID   int64  `json:"id"`
}

// cancelled is the intent to end a job; Reason is "" for a user's.
type cancelled struct {
	Tag    adapters.Tag `json:"tag"`
	Reason string       `json:"reason,omitempty"`
}

type started struct {
	Tag adapters.Tag `json:"tag"`
	At  time.Time    `json:"at"`
}

// final is a job's end.
type final struct {
	Tag    adapters.Tag   `json:"tag"`
	Phase  adapters.Phase `json:"phase"`
	Exit   *int           `json:"exit,omitempty"`
	Signal string         `json:"signal,omitempty"`
	Reason string         `json:"reason,omitempty"`
	NotRun bool           `json:"not_run,omitempty"`
	Start  time.Time      `json:"start,omitzero"`
	End    time.Time      `json:"end,omitzero"`
	CPU    time.Duration  `json:"cpu,omitempty"`

	Attributes map[string]string `json:"attributes,omitempty"`
}

const journalName = "journal"

// openJournal reads what is remembered and begins the journal anew with it.
func (a *Adapter) openJournal() error {
	path := filepath.Join(a.dir, journalName)
	f, err := os.Open(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail.Errorf("boinc.Open", fail.Unavailable, path, "the adapter's memory can't be read: %v", err)
	}
	if err == nil {
		r := bufio.NewReader(f)
		for {
			line, err := r.ReadBytes('\n')
			if err != nil {
				break // the end, or a line that was cut
			}
			var e entry
			if json.Unmarshal(line, &e) == nil {
				a.replay(&e)
			}
		}
		_ = f.Close() // read only
	}
	return a.compact(path)
}

// compact writes the journal anew, with what is still of use.
func (a *Adapter) compact(path string) error {
	tmp := path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fail.Errorf("boinc.Open", fail.Unavailable, path, "the adapter's memory can't be written: %v", err)
	}
	w := bufio.NewWriter(f)
	enc := json.NewEncoder(w)
	for _, e := range a.remembered() {
		if err := enc.Encode(e); err != nil {
			_ = f.Close()
			return fail.E("boinc.Open", fail.Unavailable, path, err)
		}
	}
	err = errors.Join(w.Flush(), f.Sync(), os.Rename(tmp, path))
	if err != nil {
		_ = f.Close()
		return fail.Errorf("boinc.Open", fail.Unavailable, path, "the adapter's memory can't be written: %v", err).Because(err)
	}
	a.journal = f
	return nil
}

// note writes lines down. What it is told to be lasting is on disk when it returns.
func (a *Adapter) note(lasting bool, entries ...entry) error {
	if len(entries) == 0 {
		return nil
	}
	var data []byte
	for _, e := range entries {
		line, err := json.Marshal(e)
		if err != nil {
			return fail.E("boinc", fail.Internal, "", err)
		}
		data = append(append(data, line...), '\n')
	}
	a.writing.Lock()
	defer a.writing.Unlock()
	_, err := a.journal.Write(data)
	a.written += int64(len(data))
	if err == nil && lasting {
		err = a.journal.Sync()
	}
	if err != nil {
		return fail.Errorf("boinc", fail.Unavailable, a.dir, "the adapter's memory can't be written: %v", err).Because(err)
	}
	return nil
}

// maxJournal is how much may be written until the journal is begun anew.
const maxJournal = 32 << 20

// tidy begins a long journal anew. The gate keeps out whoever has written a line down
// and not yet taken it into memory.
func (a *Adapter) tidy() error {
	a.gate.Lock()
	defer a.gate.Unlock()
	a.writing.Lock()
	defer a.writing.Unlock()
	if a.written < maxJournal {
		return nil
	}
	old := a.journal
	a.mu.Lock()
	err := a.compact(filepath.Join(a.dir, journalName))
	a.mu.Unlock()
	if err != nil {
		return err
	}
	a.written = 0
	return old.Close()
}

// replay takes a line over.
func (a *Adapter) replay(e *entry) {
	switch {
	case e.Batch != nil:
		a.addBatch(e.Batch)
	case e.Created != nil:
		if b := a.batches[e.Created.Name]; b != nil {
			a.identify(b, e.Created.ID)
		}
	case e.Submit != "":
		if b := a.batches[e.Submit]; b != nil {
			b.state, b.sent = batchDoubtful, b.record.At
		}
	case e.Submitted != "":
		if b := a.batches[e.Submitted]; b != nil {
			b.state = batchOpen
		}
	case e.Dropped != "":
		if b := a.batches[e.Dropped]; b != nil {
			a.drop(b)
		}
	case e.Cancel != nil:
		if j := a.jobs[e.Cancel.Tag]; j != nil {
			j.cancel = e.Cancel
		}
	case e.Started != nil:
		if j := a.jobs[e.Started.Tag]; j != nil {
			j.started = e.Started.At
		}
	case e.Final != nil:
		if j := a.jobs[e.Final.Tag]; j != nil {
			j.final = e.Final
			j.batch.open--
		}
	case e.Forget != "":
		if j := a.jobs[e.Forget]; j != nil {
			a.forget(j)
		}
	case e.Proven != "":
		a.proven[e.Proven] = true
	}
}

// remembered gives the lines that make the present memory.
func (a *Adapter) remembered() []entry {
	var list []entry
	for app := range a.proven {
		list = append(list, entry{Proven: app})
	}
	for _, b := range a.batches {
		if b.state == batchGone {
			continue
		}
		list = append(list, entry{Batch: b.record})
		if b.id != 0 && b.record.Adopted == 0 {
			list = append(list, entry{Created: &created{b.record.Name, b.id}})
		}
		switch b.state {
		case batchDoubtful:
			list = append(list, entry{Submit: b.record.Name})
		case batchOpen:
			list = append(list, entry{Submitted: b.record.Name})
		case batchPlanned, batchGone: // the record says it all
		}
		for _, j := range b.jobs {
			if j.cancel != nil {
				list = append(list, entry{Cancel: j.cancel})
			}
			if !j.started.IsZero() {
				list = append(list, entry{Started: &started{j.record.Tag, j.started}})
			}
			if j.final != nil {
				list = append(list, entry{Final: j.final})
			}
			if j.forgotten {
				list = append(list, entry{Forget: j.record.Tag})
			}
		}
	}
	return list
}
