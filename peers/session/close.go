package session

import (
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/wire"
)

// maxGoodbyes is how often a side that closed tells the other before it leaves it at that.
const maxGoodbyes = 5

// stop begins the end.
func (s *step) stop(in Stop) {
	switch {
	case s.phase == Closed:
		return
	case in.Reason == "":
		s.rejected(fail.Invalid, "the end of a session needs a reason")
		return
	case !in.Drain:
		s.end(in.Reason, in.Sentence)
		return
	}
	if s.closing == "" {
		s.closing, s.closeReason, s.closeSentence, s.goodbyes = wire.Draining, in.Reason, wire.Sentence(in.Sentence), 0
	}
	if s.closeBy.IsZero() || in.By.Before(s.closeBy) {
		s.closeBy = in.By
	}
}

// theyClose takes how far the other side is with the end.
func (s *step) theyClose(c wire.Closing) {
	if c == "" || s.phase == Closed {
		return
	}
	s.theirs = c
	if s.closing == "" {
		s.closing, s.goodbyes = wire.Draining, 0
		s.out(Draining{Sentence: s.closeSentence})
	}
	if c == wire.Ended {
		reason := s.closeReason
		if s.queue.len() == 0 && s.done == s.theirSent {
			reason = wire.Drained
		} else if reason == "" {
			reason = wire.Withdrawn
		}
		s.end(reason, "the other side closed the session")
	}
}

// finish ends a session that is drained, or that was given until now to be.
func (s *step) finish() {
	switch {
	case s.phase == Closed || s.closing == "":
	case s.theirs != "" && s.queue.len() == 0 && s.done == s.theirSent:
		s.end(wire.Drained, "all items of both sides are done with")
	case !s.closeBy.IsZero() && !s.now.Before(s.closeBy):
		s.end(orElse(s.closeReason == "", wire.Withdrawn, s.closeReason), "the session was not drained in time")
	}
}

// end closes the session.
func (s *step) end(reason wire.CloseReason, sentence string) {
	if s.phase == Closed {
		return
	}
	sentence = wire.Sentence(sentence)
	s.closeReason, s.closeSentence = reason, sentence
	s.closing, s.goodbyes = wire.Ended, 0
	s.turn(Closed, string(reason)+": "+sentence)
	s.full = false
	s.queue, s.sizes, s.taken, s.held = fifo[wire.Message]{}, fifo[int]{}, nil, 0 // nothing more is sent, or done with
	s.queued = 0
}

// owesGoodbye reports whether the other side is still to be told of the end.
func (s *State) owesGoodbye() bool {
	return s.closing != "" && s.closing != s.announced && s.goodbyes < maxGoodbyes && s.theirs != wire.Ended && s.closeReason != wire.Forgotten
}

// goodbye tells the other side how far the end is.
func (s *step) goodbye() {
	if s.push.id != 0 || !s.owesGoodbye() {
		return
	}
	s.goodbyes++
	reason := orElse(s.closeReason == "", wire.Drained, s.closeReason)
	s.ask(&s.push, &wire.Close{Frame: s.frame(false), Reason: reason, Sentence: s.closeSentence}, 0)
	s.push.closing = s.closing
}
