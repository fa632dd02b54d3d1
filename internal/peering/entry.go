package peering

import (
	"time"

	"github.com/portolan-project/portolan/peers/handover"
)

// entry is a job in memory. Engine.mu guards it, but what worker has for itself.
type entry struct {
	key handover.Key
	job *handover.Job // as it was last stepped; nil: it is forgotten
	meta

	freight   *freight // nil: it is in the store, if freighted
	freighted bool     // the store has it, or is to have it
	packed    []byte   // of freight, to be written

	stored   bool // the store has the record, or may
	dirty    handover.Save
	lazy     bool      // filed among those that are written when there is time
	lazily   time.Time // since when it is
	queued   bool      // filed among those that are to be written
	flying   bool      // being written
	keep     *keptRecord
	pending  []effect // to be done once the record is durable
	departed []effect // the same, of the write that is under way
	charges  []charge

	due   time.Time // of the next tick
	index int       // in the heap of these; -1: not there

	why     string    // of a job of a peer: what it waits for, for its giver
	toldWhy string    // what the giver was told of that
	told    time.Time // when that was told
	asked   time.Time // when the broker was asked for it
	theirs  string    // of a job that a peer has: what it waits for there

	cause  *cause // of the step that is made
	held   bool   // no place is chosen by ourselves in the step that is made
	waits  []*submission
	worker worker
}

// cause is what a message says of the end of a placement at a peer, beside what handover
// needs to know.
type cause struct {
	refusal *handover.Answer
	report  *handover.Report
}

// charge is one of the favour ledger's, with the side of it that this domain is on.
type charge struct {
	handover.Charge
	owe bool
}

// effect is something to be done: one of the fields.
type effect struct {
	send    *handover.Send
	publish bool   // tell the broker's site how the job stands
	chore   bool   // see what is to be done at the broker's side
	call    func() // who waits for the record to be durable
}

// taken reports whether the job is a copy that a peer gave.
func (x *entry) taken() bool { return x.job != nil && x.job.Taken != nil }

// live reports whether the job may still run under its record.
func live(j *handover.Job) bool {
	return j != nil && j.Phase != handover.Over && j.Phase != handover.Released
}

// copyOf names the copy that a peer gave, as the broker has it.
func (x *entry) copyOf() Copy { return Copy{x.key, x.job.Taken.Token} }
