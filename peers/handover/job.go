package handover

import (
	"maps"
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

// Phase is where a job stands at one gateway.
type Phase string

// The phases.
const (
	Waiting  Phase = "Waiting"  // this gateway holds it, and it has no place
	Here     Phase = "Here"     // one of its own sites has it, or may
	Stopping Phase = "Stopping" // as Here, and its end was asked for
	Given    Phase = "Given"    // a peer has it, or may
	Over     Phase = "Over"     // there is a result
	Released Phase = "Released" // the copy is dead; the record stays to refuse what comes late
)

// event is what moves a job.
type event string

const (
	submitted event = "submitted" // the user's, at the origin
	accepted  event = "accepted"  // a route was taken
	refused   event = "refused"   // a route was not taken
	placed    event = "placed"    // a site of our own was chosen
	handed    event = "handed"    // a peer was chosen
	stopped   event = "stopped"   // the site is to end it
	unrun     event = "unrun"     // the site has it no more, and there is no result
	returned  event = "returned"  // the copy that a peer had is known to be dead
	ended     event = "ended"     // a result came
	cancelled event = "cancelled" // its end was wanted, and nobody has it
	released  event = "released"  // the copy goes back to its giver
	settled   event = "settled"   // the giver has heeded the result, or does not want it
)

// transitions is the life of a job at one gateway. What it does not name is an error.
// After Released only a higher token begins a copy, as if there had been none.
var transitions = map[Phase]map[event]Phase{
	"":       {submitted: Waiting, accepted: Waiting, refused: Released},
	Waiting:  {placed: Here, handed: Given, cancelled: Over, released: Released, ended: Over},
	Here:     {stopped: Stopping, unrun: Waiting, ended: Over},
	Stopping: {unrun: Waiting, ended: Over},
	Given:    {returned: Waiting, ended: Over},
	Over:     {settled: Released},
	Released: {},
}

// Phases lists all phases, sorted.
func Phases() []Phase {
	all := slices.Sorted(maps.Keys(transitions))
	return all[1:] // "" is before the first
}

// Job is what one gateway remembers of one job: what is exported is the durable record.
// It is never changed; Step makes the next one.
type Job struct {
	Key    Key    `json:"key"`
	Phase  Phase  `json:"phase"`
	Digest string `json:"digest,omitempty"` // of what is routed with it
	Want   Want   `json:"want"`
	// Attempts counts the placements that were made here, at home and at peers; the last
	// one's token ends with it.
	Attempts uint32 `json:"attempts,omitempty"`
	Taken    *Taken `json:"taken,omitempty"` // the copy that this gateway was handed; nil at the origin
	Gave     *Gave  `json:"gave,omitempty"`  // the last placement, if it was at a peer
	// Started and Paused are what our own site showed of it.
	Started  bool    `json:"started,omitempty"`
	Paused   bool    `json:"paused,omitempty"`
	Revision uint64  `json:"revision,omitempty"`
	Used     CPUTime `json:"used,omitempty"` // by all placements that ended
	Result   *Result `json:"result,omitempty"`
	Reason   string  `json:"reason,omitempty"` // why it last lost its place, or was released
	// Kind is of Reason, where that is one for good: see Report.
	Kind fail.Kind `json:"kind,omitempty"`

	// What a restart may forget.
	retry    time.Time // nothing is repeated before
	restored bool      // read back, and not yet stepped
}

// Taken is a copy that this gateway was handed.
type Taken struct {
	From     string    `json:"from"`
	Token    Token     `json:"token"`
	Routed   time.Time `json:"routed"`   // the route's recall deadline
	RecallBy time.Time `json:"recallBy"` // with what was granted since
	Path     []string  `json:"path,omitempty"`
	Hops     int       `json:"hops,omitempty"`
	Terms    Terms     `json:"terms"`
	Seq      uint64    `json:"seq,omitempty"` // of the last Control
	Recall   Recall    `json:"recall,omitempty"`
	// Refused says that it was never taken, for Kind and the job's Reason.
	Refused bool      `json:"refused,omitempty"`
	Kind    fail.Kind `json:"kind,omitempty"`
	// Lapsed says that the copy is dead or dying, and is never revived.
	Lapsed bool `json:"lapsed,omitempty"`
	// Until is how long the end of the copy is kept for a giver that is not heard of.
	Until   time.Time `json:"until,omitzero"`
	Settled bool      `json:"settled,omitempty"` // the giver knows how it ended, or has no use for it
}

// Gave is a placement at a peer.
type Gave struct {
	To       string    `json:"to"`
	Token    Token     `json:"token"`
	Routed   time.Time `json:"routed"`   // the route's recall deadline
	RecallBy time.Time `json:"recallBy"` // with what was granted since, as far as it is remembered
	Hops     int       `json:"hops,omitempty"`
	Terms    Terms     `json:"terms"`
	Accepted bool      `json:"accepted,omitempty"`
	Recall   Recall    `json:"recall,omitempty"` // our own
	// What was last asked for, and what of it the peer has heard.
	Asked    Asked  `json:"asked"`
	Seq      uint64 `json:"seq,omitempty"`
	Heard    uint64 `json:"heard,omitempty"`
	Revision uint64 `json:"revision,omitempty"`
	Status   Status `json:"status,omitempty"`
	// Where is the way from the peer to the job, as the peer last told it.
	Where []string `json:"where,omitempty"`
	Over  bool     `json:"over,omitempty"` // the copy is dead
	Done  bool     `json:"done,omitempty"` // its end was heeded
}

// Asked is what a Control asks for.
type Asked struct {
	Want   Want   `json:"want"`
	Recall Recall `json:"recall,omitempty"`
}

func (a Asked) ends() bool { return a.Want == Cancel || a.Recall == Running }

// clone copies what a step may change.
func (j *Job) clone() *Job {
	c := *j
	if j.Taken != nil {
		t := *j.Taken
		c.Taken = &t
	}
	if j.Gave != nil {
		g := *j.Gave
		c.Gave = &g
	}
	if j.Result != nil {
		r := *j.Result
		c.Result = &r
	}
	return &c
}

// base is the token that this gateway holds the job under: "" at the origin.
func (j *Job) base() Token {
	if j.Taken != nil {
		return j.Taken.Token
	}
	return ""
}

// Token is that of the last placement; "" if there was none.
func (j *Job) Token() Token {
	if j.Attempts == 0 {
		return ""
	}
	return j.base().Next(j.Attempts)
}

// Path is the way of the job to the gateway self, which is its last domain.
func (j *Job) Path(self string) []string {
	if j.Taken == nil {
		return []string{self}
	}
	return append(slices.Clone(j.Taken.Path), self)
}

// Status is how the job stands, wherever it is.
func (j *Job) Status() Status {
	switch j.Phase {
	case Here, Stopping:
		switch {
		case j.Paused:
			return IsSuspended
		case j.Started:
			return IsRunning
		}
		return IsPlaced
	case Given:
		if j.Gave.Status != "" {
			return j.Gave.Status
		}
		return IsWaiting
	case Over:
		return IsEnded
	case Released:
		return IsReturned
	case Waiting:
		if j.Want == Suspend {
			return IsSuspended
		}
	}
	return IsWaiting
}

// Where is the way from the gateway self to the job.
func (j *Job) Where(self string) []string {
	if j.Phase == Given {
		if len(j.Gave.Where) > 0 {
			return append([]string{self}, j.Gave.Where...)
		}
		return []string{self, j.Gave.To}
	}
	return []string{self}
}

// live reports whether the job may still run under this record.
func (j *Job) live() bool { return j.Phase != Over && j.Phase != Released }

// asked is what is wanted of whoever has the job for us.
func (j *Job) asked() Asked {
	a := Asked{Want: j.Want}
	if t := j.Taken; t != nil {
		a.Recall = t.Recall
		if t.Lapsed {
			a.Recall = Running
		}
	}
	if j.Phase == Given {
		a.Recall = max(a.Recall, j.Gave.Recall)
	}
	return a
}

// ElsewhereAt is when the job may be placed elsewhere if the peer that has it is not heard
// of, by this gateway's clock; false if no peer has it. The peer being heard of moves it on.
func (j *Job) ElsewhereAt() (time.Time, bool) {
	if j.Phase != Given {
		return time.Time{}, false
	}
	return j.Gave.Terms.Elsewhere(j.Gave.RecallBy), true
}
