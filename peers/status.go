package peers

import (
	"sync/atomic"
	"time"

	"github.com/portolan-project/portolan/peers/session"
)

// Traffic counts what went in one direction, since the peer was added.
type Traffic struct {
	Messages uint64 // requests, answers and faults
	Bytes    uint64 // of their HTTP bodies, compressed where they are
	Items    uint64 // repetitions included
}

// counts are the traffic with a peer as it grows.
type counts struct {
	in, out count
	zips    atomic.Bool // the peer said that it takes gzip, wherever it was called
}

type count struct{ messages, bytes, items atomic.Uint64 }

func (c *count) traffic() Traffic {
	return Traffic{Messages: c.messages.Load(), Bytes: c.bytes.Load(), Items: c.items.Load()}
}

// Clock is how the other side's clock differs from this side's.
type Clock struct {
	Difference time.Duration // theirs less ours
	Within     time.Duration // the error of that, from the time that the messages took
	At         time.Time     // when it was measured; zero: it was not
}

// Status is how it stands with one peer.
type Status struct {
	Peer Peer
	// Endpoint is where this side calls the other; "" where it does not.
	Endpoint string
	// Session is the name of the session that stands; "" without one.
	Session string
	// Phase of the session; "" without one. Reason says why, and without a session why
	// there is none.
	Phase  session.Phase
	Reason string
	Since  time.Time
	// Trouble is why the last request to the peer failed; "" once one was answered.
	Trouble string
	// NextTry is when a session is asked for next; zero where it is not, or just now.
	NextTry time.Time
	// Agreement of the session.
	Agreement session.Agreement
	// Heard is when the other side last gave a sign of life.
	Heard time.Time
	// Unacknowledged items were put, and the other side is not done with them: the lag. The
	// oldest was put at Oldest.
	Unacknowledged int
	Oldest         time.Time
	// Undone items of the other side were delivered, and this side is not done with them.
	Undone int
	// Room is how many items Put takes now.
	Room     int
	In, Out  Traffic
	Clock    Clock
	Sessions int // how many there were since the peer was added
}
