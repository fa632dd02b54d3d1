package status

import (
	"time"

	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
)

// State is how a peer stands: the phases of its session, and what is when there is none.
type State string

// The states.
const (
	Opening  State = "opening" // there is no session yet; Reason says what the last attempt met, or that the peer is waited for
	Alive    State = State(session.Alive)
	Suspect  State = State(session.Suspect)
	Lost     State = State(session.Lost)
	Draining State = "draining" // the session ends when all that was begun is done with; nothing new is given
	Closed   State = State(session.Closed)
)

// States gives all of them.
func States() []State { return []State{Opening, Alive, Suspect, Lost, Draining, Closed} }

// Source says how a peer came to be known.
type Source string

// The sources.
const (
	Configured Source = "configured" // the gateway's file names it
	Added      Source = "added"      // somebody did, while the gateway ran
	Came       Source = "came"       // it opened a session, and its domain's anchor is trusted
)

// Sources gives all of them.
func Sources() []Source { return []Source{Configured, Added, Came} }

// Peer is a domain that this gateway works with, or would.
type Peer struct {
	Domain string `json:"domain"`
	URL    string `json:"url,omitempty"` // where it is reached; none: it comes to us
	Source Source `json:"source"`
	// Fingerprint is that of the key it is trusted by, as in Offer; none where a CA vouches.
	Fingerprint string     `json:"fingerprint,omitempty"`
	State       State      `json:"state"`
	Reason      string     `json:"reason"` // of the state, a sentence
	Since       *time.Time `json:"since,omitempty"`
	Role        wire.Role  `json:"role,omitempty"` // what it is to us
	Session     *Session   `json:"session,omitempty"`
	Jobs        Jobs       `json:"jobs"`
	Ledger      Balance    `json:"ledger"`
}

// Session is what is known of an open one.
type Session struct {
	ID       string      `json:"id"`
	Version  string      `json:"version"`
	Software string      `json:"software,omitempty"` // the peer's
	Features []string    `json:"features"`
	Ours     bool        `json:"ours"`     // we opened it
	Outbound bool        `json:"outbound"` // one side can't be reached, so that all goes over its polls
	Provides bool        `json:"provides"` // it takes our jobs
	Consumes bool        `json:"consumes"` // it may give us jobs
	Shows    wire.Detail `json:"shows"`    // what it shows us of its resources
	Shown    wire.Detail `json:"shown"`    // what we show it of ours
	VOs      []string    `json:"vos,omitempty"`
	Beat     float64     `json:"beat"`            // seconds
	Lost     float64     `json:"lost"`            // seconds of silence until it is taken for lost
	Lease    float64     `json:"lease"`           // seconds that a recall deadline is ahead at most
	Heard    *time.Time  `json:"heard,omitempty"` // the last sign of life
	// Lag is how long the oldest item waits that the peer is not done with, in seconds; 0
	// where none does.
	Lag float64 `json:"lag"`
	// Behind are the items that the peer is not done with, and Owed those of it that we
	// are not.
	Behind int     `json:"behind"`
	Owed   int     `json:"owed"`
	Clock  *Clock  `json:"clock,omitempty"` // without, it was not measured yet
	Out    Traffic `json:"out"`
	In     Traffic `json:"in"`
}

// Clock is how far the peer's clock is before ours, in seconds.
type Clock struct {
	Ahead  float64 `json:"ahead"`  // below zero it is behind
	Within float64 `json:"within"` // the error of that
}

// Traffic is what went in one direction since the peer came to be known.
type Traffic struct {
	Messages uint64 `json:"messages"`
	Bytes    uint64 `json:"bytes"` // of the bodies as they were sent, compressed where they were
	Items    uint64 `json:"items"` // repetitions too
}

// Jobs are those that go between two domains.
type Jobs struct {
	Given Count `json:"given"` // by us, to the peer
	Taken Count `json:"taken"` // by us, of the peer
}

// Count counts jobs in one direction.
type Count struct {
	Live  int   `json:"live"`  // not ended
	Total int64 `json:"total"` // since the engine of the domain began, on whichever replica
}
