package session

import (
	"time"

	"github.com/portolan-project/portolan/peers/wire"
)

// Input is what happened.
type Input interface{ input() }

// The inputs.
type (
	// Put gives items to be sent. They are all taken, or none: see Room.
	Put struct{ Items []wire.Message }
	// Done says that all items up to this one are done with, and what they caused is durable.
	Done struct{ Upto uint64 }
	// Request is a message of the other side that wants an answer: *wire.Exchange,
	// *wire.Heartbeat, *wire.Resume, *wire.Close. ID is the caller's.
	Request struct {
		ID      uint64
		Message wire.Message
	}
	// Gone says that nobody waits for the answer to a Request any more.
	Gone struct{ ID uint64 }
	// Response answers an Ask.
	Response struct {
		ID      uint64
		Message wire.Message
	}
	// Failed says that an Ask has no answer; Fault is nil unless the other side sent one.
	Failed struct {
		ID    uint64
		Fault *wire.Fault
	}
	// Tick is there for the time alone: see Wake.
	Tick struct{}
	// Stop begins the end of the session. With Drain, all items that were put are done
	// with first, or By comes; else it is closed at once.
	Stop struct {
		Reason   wire.CloseReason
		Sentence string
		Drain    bool
		By       time.Time
	}
)

func (Put) input()      {}
func (Done) input()     {}
func (Request) input()  {}
func (Gone) input()     {}
func (Response) input() {}
func (Failed) input()   {}
func (Tick) input()     {}
func (Stop) input()     {}

// Output is what is to be done.
type Output interface{ output() }

// The outputs.
type (
	// Ask sends a request. Its answer, or that there is none within the time, comes back
	// under the ID.
	Ask struct {
		ID      uint64
		Message wire.Message
		Within  time.Duration
	}
	// Reply answers a Request: with a message, or with a fault.
	Reply struct {
		ID      uint64
		Message wire.Message
		Fault   *wire.Fault
	}
	// Deliver hands over items of the other side; each comes once, in order.
	Deliver struct {
		First uint64
		Items []wire.Message
		Bytes int // of the items
	}
	// Turn tells of another phase.
	Turn struct {
		From, To Phase
		Reason   string
	}
	// Free says that there is room for items again, after there was none.
	Free struct{}
	// Draining says that the other side drains the session; nothing can be put any more.
	Draining struct{ Sentence string }
	// Rejected says why an input was not heeded.
	Rejected struct{ Err error }
)

func (Ask) output()      {}
func (Reply) output()    {}
func (Deliver) output()  {}
func (Turn) output()     {}
func (Free) output()     {}
func (Draining) output() {}
func (Rejected) output() {}
