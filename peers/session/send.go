package session

import (
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/wire"
)

// put takes items into the queue.
func (s *step) put(items []wire.Message) {
	switch {
	case s.phase == Closed || s.closing != "":
		s.rejected(fail.NotAccepting, "the session is being closed: nothing more is sent in it")
		return
	case len(items) > s.Room():
		s.full = true
		s.rejected(fail.Exhausted, "the session has room for %d items and not for %d: wait until it is free", s.Room(), len(items))
		return
	}
	sizes, bytes := make([]int, 0, len(items)), 0
	for _, m := range items {
		if !wire.Item(m) {
			s.rejected(fail.Invalid, "a %T does not travel as an item", m)
			return
		}
		n := wire.Size(m)
		sizes, bytes = append(sizes, n), bytes+n
	}
	if s.queued+bytes > s.config.QueueBytes && (s.queue.len() > 0 || len(items) > 1) {
		s.full = true
		s.rejected(fail.Exhausted, "%d bytes of items wait to be acknowledged, and %d more are beyond the %d that may: wait until the session is free", s.queued, bytes, s.config.QueueBytes)
		return
	}
	s.queued += bytes
	s.queue, s.sizes = s.queue.push(items...), s.sizes.push(sizes...)
	s.sent += uint64(len(items))
}

// sendable is how many items may be sent now.
func (s *State) sendable() uint64 {
	if last := min(s.sent, s.credit); last >= s.next {
		return last - s.next + 1
	}
	return 0
}

// load puts items into a frame.
func (s *step) load(f *wire.Frame) {
	n := min(s.sendable(), wire.MaxItems)
	if n == 0 {
		return
	}
	from := int(s.next - s.acked - 1)
	to, bytes := from, 0
	for to < from+int(n) && (to == from || bytes+s.sizes.s[to] <= s.config.Frame) {
		bytes += s.sizes.s[to]
		to++
	}
	f.First, f.Items = s.next, s.queue.s[from:to:to]
	s.next += uint64(to - from)
	s.carried, s.carriedAt = f.Number, s.now
}

// Times of repetition.
const (
	resendFirst = 2 * time.Second // after which items that nobody spoke of are sent again
	ackWithin   = time.Second     // after which a done is told, if nothing else tells it
)

func (s *State) resendAfter() time.Duration {
	return min(resendFirst<<min(s.again, 10), max(s.agreement.Beat, resendFirst))
}

// resend goes back to what the other side has not got, where it is due.
func (s *step) resend() {
	if s.next > s.theirGot+1 && s.now.Sub(s.carriedAt) >= s.resendAfter() {
		s.next = s.theirGot + 1
		s.again++
	}
}

// acknowledged reads the other side's cursors: of a frame that is newer than all before.
func (s *step) acknowledged(f *wire.Frame) {
	if f.Got > s.theirGot {
		s.theirGot, s.again = f.Got, 0
	}
	if n := int(f.Done - s.acked); n > 0 {
		for _, size := range s.sizes.s[:n] {
			s.queued -= size
		}
		s.queue, s.sizes = s.queue.pop(n), s.sizes.pop(n)
		s.acked = f.Done
		if s.full && s.Room() > 0 {
			s.full = false
			s.out(Free{})
		}
	}
	s.credit = f.Limit
	// They read the frame that had our last items, and have not got them: lost on the way,
	// or come too early.
	// Once this is done at once; what does not get through again waits, as it may be that
	// they have no room.
	if s.next <= s.theirGot || f.Heard >= s.carried && s.next > s.theirGot+1 && s.rewound != s.theirGot+1 {
		s.next, s.rewound = s.theirGot+1, s.theirGot+1
	}
}
