package store

import (
	"context"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

// NewJob is a job to be created.
type NewJob struct {
	ID           string // chosen by the caller, ordered by time (UUIDv7)
	Owner        string
	Name         string
	SubmissionID string // unique for an owner when not empty
	Document     []byte // given back byte for byte
	Submitted    time.Time
	Status       Status
	Event        Event // the first history line; Sequence is set by the store
}

// Job is a job without its document.
type Job struct {
	ID           string
	Owner        string
	Name         string
	SubmissionID string
	DocumentSum  [32]byte // SHA-256 of the document
	Submitted    time.Time
	Status       Status
	Revision     int64 // of Status: grows with each write, across all jobs
}

// Status is a job's mutable part. The store keeps it and reads only Final.
type Status struct {
	Phase      string        `json:"phase"` // of the broker's state table
	Final      bool          `json:"final,omitempty"`
	Reason     string        `json:"reason,omitempty"`
	Attempt    int           `json:"attempt,omitempty"`
	Lost       int           `json:"lost,omitempty"`    // placements lost before they ran, or that it may be run again after
	VO         string        `json:"vo,omitempty"`      // for which it runs
	Gateway    string        `json:"gateway,omitempty"` // the replica that took it in, and counts it
	CPUs       int           `json:"cpus,omitempty"`    // that it asks for; 0 is 1
	Class      int           `json:"class,omitempty"`   // of the queue: one whose place was lost is of a higher one than 0
	Refused    []string      `json:"refused,omitempty"` // sites that refused it for good; never changed in place
	Aside      []Aside       `json:"aside,omitempty"`   // sites that it is not to get for a while; never changed in place
	Placement  *Placement    `json:"placement,omitempty"`
	ExitStatus *int          `json:"exitStatus,omitempty"`
	Signal     string        `json:"signal,omitempty"`
	Started    time.Time     `json:"started,omitzero"`
	Ended      time.Time     `json:"ended,omitzero"`
	NotBefore  time.Time     `json:"notBefore,omitzero"` // a retry waits until then
	Cancel     bool          `json:"cancel,omitempty"`   // its end was asked for
	Suspend    bool          `json:"suspend,omitempty"`  // it is to be kept from running
	Of         string        `json:"of,omitempty"`       // the job that it is a replica of; "" for a job of its own
	For        string        `json:"for,omitempty"`      // who owns that one
	Verdict    *Verdict      `json:"verdict,omitempty"`  // its end, unless a replica does better; never changed in place
	Told       *Told         `json:"told,omitempty"`     // what the site tells beside; never changed in place
	Foreign    *Foreign      `json:"foreign,omitempty"`  // a job of a peer; nil for one of our own; never changed in place
	NotAfter   time.Time     `json:"notAfter,omitzero"`  // the end of its lease, as it was last written down
	Return     bool          `json:"return,omitempty"`   // an administrator wants it given back to the peer
	Spent      time.Duration `json:"spent,omitempty"`    // of a peer's: CPU time of placements that are over, nanoseconds
	Gone       bool          `json:"gone,omitempty"`     // it ended without a result: the copy is dead, and the peer may place it elsewhere
	Unfit      bool          `json:"unfit,omitempty"`    // with Gone: as no site here can run it, ever
	Promise    *Promise      `json:"promise,omitempty"`  // what an agreement promises of it; nil for best effort; never changed in place
	Sequence   int           `json:"sequence"`           // of the newest history line; set by the store
}

// Aside is a site that a job is not to get again before Until, as it gave it back or could not
// take it, Times times in a row.
type Aside struct {
	Site  string    `json:"site"`
	Until time.Time `json:"until"`
	Times int       `json:"times"`
}

// Foreign is whose a job is that a peer handed over.
type Foreign struct {
	From    string   `json:"from"`              // the domain that handed it over
	Origin  string   `json:"origin"`            // the domain where it was submitted
	ID      string   `json:"id"`                // its id there
	Path    []string `json:"path,omitempty"`    // domains that hold it: the origin first, From last
	Hops    int      `json:"hops,omitempty"`    // that it may make from here
	Account string   `json:"account,omitempty"` // the local account as which it runs; "" is that of its owner
	Trace   string   `json:"trace,omitempty"`   // the trace id, where it does not follow from ID
	// Agreement is that of ours in whose room it is to run, as From bought it; "" is none.
	Agreement string `json:"agreement,omitempty"`
}

// Promise is what an accepted agreement says of a job. Its times are never moved.
type Promise struct {
	Agreement   string    `json:"agreement"`             // its id
	StartBy     time.Time `json:"startBy,omitzero"`      // it is to have started by then
	FinishBy    time.Time `json:"finishBy,omitzero"`     // it is to have ended by then
	NotBefore   time.Time `json:"notBefore,omitzero"`    // it is not to be placed before
	Site        string    `json:"site,omitempty"`        // where its room is held; "" is anywhere
	Share       string    `json:"share,omitempty"`       // of the site; "" is any
	Room        string    `json:"room,omitempty"`        // id of what is held for it there
	Reservation []byte    `json:"reservation,omitempty"` // handle of what the site's manager keeps for it
	Account     string    `json:"account,omitempty"`     // local account of the job of another domain's user; "" is that of the owner at each site

	// What became of it. They are the broker's.
	Pressed bool `json:"pressed,omitempty"` // it is in danger, and goes first
	Loose   bool `json:"loose,omitempty"`   // it may go to other sites: that of the agreement was away, or had no room in time
	Noted   bool `json:"noted,omitempty"`   // it was in danger at a site, and what could be done about it was
}

// Verdict is how a job ended that waits for its replicas.
type Verdict struct {
	Event  string    `json:"event"`
	Reason string    `json:"reason"`
	Ended  time.Time `json:"ended,omitzero"`
}

// Told is what a site tells of a job beside its phase; zero is "not told".
type Told struct {
	Progress   float64           `json:"progress,omitempty"` // of the work, 0 to 1
	Hosts      []string          `json:"hosts,omitempty"`
	CPU        time.Duration     `json:"cpu,omitempty"`    // used, nanoseconds
	Memory     int64             `json:"memory,omitempty"` // the most bytes resident at once
	Attributes map[string]string `json:"attributes,omitempty"`
}

// Placement is one attempt at one site.
type Placement struct {
	Tag         string `json:"tag"`
	Site        string `json:"site"`
	Share       string `json:"share,omitempty"`
	Environment string `json:"environment,omitempty"`
	CPUs        int    `json:"cpus,omitempty"`       // that it has there
	Gateway     string `json:"gateway,omitempty"`    // the replica that placed it, and counts it there
	Rerunnable  bool   `json:"rerunnable,omitempty"` // the job may be run again though it ran
	Recallable  bool   `json:"recallable,omitempty"` // once it is lost there it runs there no more
	// Length is for how long it runs at most, as its document says, nanoseconds; 0 is not said.
	Length time.Duration `json:"length,omitempty"`
	// Bought is the agreement in whose room it runs there, which was bought of the domain that the site is.
	Bought string `json:"bought,omitempty"`
	Path   string `json:"path,omitempty"`  // the job's way from there, as the site last told it
	Handle []byte `json:"handle,omitzero"` // nil until the site answered; an empty one is an answer
}

// Event is one history line.
type Event struct {
	Sequence int       `json:"sequence"`
	Time     time.Time `json:"time"`
	Phase    string    `json:"phase"`
	Event    string    `json:"event"`
	Site     string    `json:"site,omitempty"`
	Attempt  int       `json:"attempt,omitempty"`
	Reason   string    `json:"reason,omitempty"`
}

// Change replaces one job's Status and appends its events, if the job is still
// at Revision.
type Change struct {
	ID       string
	Revision int64
	Status   Status
	Events   []Event
	// With is a change of another job that is made in the same transaction: both are
	// made or neither. It has no With of its own.
	With *Change
	// Note is a record that is written in the same transaction, in place of what its key
	// has; nil is none. Where the store has room for changes of what exists and for nothing
	// new, the change is made without it.
	Note *Note
}

// Note is a record that goes with a change.
type Note struct {
	Key   string // as Record has it; no other change of the call has the same
	Value []byte // at most MaxRecord bytes
}

// Check reports what is wrong with a change.
func (c *Change) Check() error {
	if w := c.With; w != nil && (w.With != nil || w.ID == c.ID) {
		return fail.Errorf("store.Update", fail.Invalid, c.ID, "a change of the job %s goes with one change of one other job", c.ID)
	}
	for _, n := range []*Note{c.Note, c.with().Note} {
		switch {
		case n == nil:
		case len(n.Value) > MaxRecord:
			return fail.Errorf("store.Update", fail.Exhausted, c.ID, "the record %s has %d bytes; the store takes %d", n.Key, len(n.Value), MaxRecord)
		default:
			if err := CheckKey("store.Update", n.Key); err != nil {
				return err
			}
		}
	}
	return nil
}

func (c *Change) with() *Change {
	if c.With != nil {
		return c.With
	}
	return new(Change)
}

// Changed is the outcome of one Change: the new revision, or fail.Conflict (the
// job, or that of With, moved on), fail.NotFound, or what the store itself met.
type Changed struct {
	Revision int64
	With     int64 // the new revision of the job of Change.With
	Err      error
}

// ListOptions selects jobs, newest first.
type ListOptions struct {
	Owner  string // "" for everybody's
	Before string // only jobs with an id below this; "" from the newest
	Limit  int    // at most so many; 0 is 1000
}

// Store remembers. Methods may be called at once from many goroutines. Errors
// are fail errors: Exhausted when disk or quota is full (reads still work),
// Unavailable when it can't be reached, Uncertain when a write's answer was lost.
type Store interface {
	// Create makes the job durable. Alike calls at the same time are committed
	// together; a lone one is not delayed. An owner's SubmissionID that exists
	// with the same document gives the existing job and created false; with
	// another document it is fail.Conflict. The same holds for an ID that exists,
	// so that a Create whose answer was lost may be repeated.
	Create(context.Context, NewJob) (job Job, created bool, err error)
	// Get gives the jobs that exist among ids.
	Get(ctx context.Context, ids ...string) (map[string]Job, error)
	// Document gives the job's document, byte for byte.
	Document(ctx context.Context, id string) ([]byte, error)
	// Update applies each change by itself, or with its With; one may fail while another is done.
	// Of several changes of one job the first is applied and the rest conflict.
	// Every write is guarded by s: once its lease is lost, all fail with
	// fail.Conflict.
	Update(ctx context.Context, s Session, changes ...Change) []Changed
	// History gives a job's lines with Sequence above after.
	History(ctx context.Context, id string, after int) ([]Event, error)
	List(context.Context, ListOptions) ([]Job, error)
	// Count gives how many jobs an owner has; "" counts everybody's.
	Count(ctx context.Context, owner string) (int64, error)
	// Live gives every job that is not final, oldest first, without reading those
	// that are.
	Live(context.Context) ([]Job, error)
	// Watch calls emit with jobs that were created or changed after the revision,
	// in the order of their revisions, until ctx ends or the store cannot go on
	// (fail.Unavailable, or fail.Conflict when the revision is too old: read Live
	// and start again). The highest revision that Live just gave is never too old,
	// nor is 0 when it gave no job; jobs that were final already when Live read may
	// then be left out. A slow emit costs no memory.
	Watch(ctx context.Context, after int64, emit func([]Job)) error
	// Setting gives a named value and whether it is there.
	Setting(ctx context.Context, name string) ([]byte, bool, error)
	SetSetting(ctx context.Context, name string, value []byte) error
	Records
	// Join registers a replica under a lease. The same replica name takes over
	// from a dead process of its own at once; records that were bound to that one's
	// lease are gone then.
	Join(ctx context.Context, replica string) (Session, error)
	// Health gives nil, or why writes are refused at present.
	Health(context.Context) error
	Close() error
}

// Session is a replica's lease: while it lives, its holder owns the jobs.
type Session interface {
	// Lost is closed when the lease is gone.
	Lost() <-chan struct{}
	Close() error
}
