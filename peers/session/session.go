package session

import (
	"fmt"
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/wire"
)

// flight is a request of this side that has no answer yet; ID 0 is none.
type flight struct {
	id      uint64
	until   time.Time
	closing wire.Closing // that CloseSession tells
}

// waiting is a request of the other side that has no answer yet.
type waiting struct {
	id    uint64
	poll  bool
	until time.Time
	upto  uint64 // answered when these items are done with
}

// State is one side of a session. It is a value: a step makes another one, and the first
// can still be used.
type State struct {
	config    Config
	agreement Agreement

	phase  Phase
	reason string
	since  time.Time

	number  uint64 // of the last frame that was made
	spokeAt time.Time
	heard   uint64 // the highest number of their frames
	heardAt time.Time

	queue     fifo[wire.Message] // not yet done with by the other side; the first has the number acked + 1
	sizes     fifo[int]
	queued    int // bytes of them
	acked     uint64
	sent      uint64 // number of the last item that was put
	theirGot  uint64
	next      uint64 // number of the item to send next
	carried   uint64 // number of the frame that had items last
	carriedAt time.Time
	again     int    // repetitions without progress
	rewound   uint64 // where the last repetition began
	credit    uint64
	full      bool // room was asked for in vain

	got, done, limit uint64
	taken            []int // sizes of items got and not done
	held             int   // bytes of them
	theirSent        uint64
	told             uint64    // the done that was last told
	oweSince         time.Time // since when there is a done that was not told

	waiting    []waiting
	push, poll flight
	lastID     uint64
	fails      int
	retryAt    time.Time
	resumeAt   time.Time

	closing       wire.Closing
	theirs        wire.Closing
	closeReason   wire.CloseReason
	closeSentence string
	closeBy       time.Time
	goodbyes      int          // how often CloseSession was sent since the last step of closing
	announced     wire.Closing // what the other side has answered to, or was told in answer to a poll
}

// New gives the side of a session that was just agreed on.
func New(c Config, a Agreement, now time.Time) State {
	c = c.EnsureDefaults()
	return State{
		config: c, agreement: a, phase: Alive, reason: "opened", since: now, heardAt: now, spokeAt: now,
		next: 1, credit: uint64(a.Window), limit: uint64(c.Window),
	}
}

// Phase gives the phase, why, and since when.
func (s State) Phase() (Phase, string, time.Time) { return s.phase, s.reason, s.since }

// End gives why the session is over, for whom that has closed.
func (s State) End() (wire.CloseReason, string) { return s.closeReason, s.closeSentence }

// Agreement gives what the session was opened under.
func (s State) Agreement() Agreement { return s.agreement }

// Cursors tells how far the items are.
func (s State) Cursors() (sent, acked, got, done uint64) { return s.sent, s.acked, s.got, s.done }

// Heard is when the other side last gave a sign of life.
func (s State) Heard() time.Time { return s.heardAt }

// Room is how many items may be put, as far as their bytes have room too.
func (s State) Room() int {
	if s.closing != "" || s.phase == Closed {
		return 0
	}
	if s.queued >= s.config.QueueBytes {
		return 0
	}
	return max(0, s.config.Queue-s.queue.len())
}

// step is a state on its way to the next.
type step struct {
	State
	now     time.Time
	outputs []Output
}

func (s *step) out(o Output) { s.outputs = append(s.outputs, o) }

// Step gives the state after an input, and what is to be done, in order. Time does not go
// back; where a clock did, the later moment is given.
func (s State) Step(in Input, now time.Time) (State, []Output) {
	x := &step{State: s, now: now}
	x.heed(in)
	x.judge()
	x.finish()
	x.speak()
	x.judge()
	return x.State, x.outputs
}

func (s *step) heed(in Input) {
	switch in := in.(type) {
	case Put:
		s.put(in.Items)
	case Done:
		s.doneWith(in.Upto)
	case Request:
		s.request(in)
	case Gone:
		s.waiting = slices.DeleteFunc(slices.Clone(s.waiting), func(w waiting) bool { return w.id == in.ID })
	case Response:
		s.response(in)
	case Failed:
		s.failed(in)
	case Stop:
		s.stop(in)
	case Tick:
	}
}

func (s *step) rejected(kind fail.Kind, format string, args ...any) {
	s.out(Rejected{Err: fail.Errorf("session.Step", kind, s.agreement.Session, format, args...)})
}

// frame makes the next frame, with as many items as may go and fit.
func (s *step) frame(withItems bool) wire.Frame {
	s.number++
	s.spokeAt = s.now
	f := wire.Frame{
		Session: s.agreement.Session, Number: s.number, Heard: s.heard, Sent: s.sent, Got: s.got, Done: s.done, Limit: s.limit,
		Closing: s.closing, Clock: s.now,
	}
	s.told, s.oweSince = s.done, time.Time{}
	if withItems {
		s.load(&f)
	}
	return f
}

func (s *step) broken(format string, args ...any) {
	s.end(wire.Broken, fmt.Sprintf(format, args...))
}
