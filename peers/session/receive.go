package session

import (
	"slices"

	"github.com/portolan-project/portolan/peers/wire"
)

// read takes in a frame. It is false where the frame ended the session.
func (s *step) read(f *wire.Frame) bool {
	if s.phase == Closed {
		return false // of which nothing is kept
	}
	if f.Number > s.heard {
		switch {
		case f.Got > s.sent || f.Heard > s.number:
			s.end(wire.Forgotten, "the other side has what this side never sent: this side lost state")
			return false
		case f.Got < s.theirGot || f.Done < s.acked || f.Sent < s.theirSent || f.Limit < s.credit:
			s.end(wire.Forgotten, "the other side's cursors went back: it lost state")
			return false
		}
		s.heard, s.heardAt = f.Number, s.now
		s.theirSent = f.Sent
		s.acknowledged(f)
		s.theyClose(f.Closing)
	}
	s.take(f)
	return true
}

// take takes items in order: what came before is dropped, what comes too early, beyond the
// credit or beyond the budget comes again.
func (s *step) take(f *wire.Frame) {
	if s.phase == Closed {
		return
	}
	first, n, bytes := 0, 0, 0
	taken := slices.Clip(s.taken)
	for i, m := range f.Items {
		number := f.First + uint64(i)
		if number <= s.got {
			continue
		}
		size := wire.Size(m)
		if number != s.got+1 || number > s.limit || s.held > 0 && s.held+size > s.config.Budget {
			break
		}
		if n == 0 {
			first = i
		}
		n++
		s.got++
		s.held += size
		bytes += size
		taken = append(taken, size)
	}
	if n == 0 {
		return
	}
	s.taken = taken
	s.theirSent = max(s.theirSent, s.got)
	s.out(Deliver{First: s.got - uint64(n) + 1, Items: f.Items[first : first+n : first+n], Bytes: bytes})
}

// doneWith lets go of items, and gives credit for as many.
func (s *step) doneWith(upto uint64) {
	n := int(min(upto, s.got)) - int(s.done)
	if n <= 0 || s.phase == Closed {
		return
	}
	for _, size := range s.taken[:n] {
		s.held -= size
	}
	s.taken = s.taken[n:]
	s.done += uint64(n)
	s.limit = max(s.limit, s.done+uint64(s.config.Window))
	if s.oweSince.IsZero() {
		s.oweSince = s.now
	}
}
