package session

import (
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/wire"
)

// Times and bounds of requests.
const (
	pushHold   = 5 * time.Second // that the answer to items may wait until they are done with
	maxWaiting = 4               // requests of the other side that wait at once
	firstRetry = time.Second     // after a request without answer; doubled each time, up to a quarter of a beat, or lostRetry
	lostRetry  = time.Minute     // at most, between two tries to resume
	slowest    = 100_000         // bytes a second that a link is expected to bring at least
)

// answerTime is how long an answer may take, beside what it may be held: half a beat, 2 s
// to 20 s, and what the items take over a slow link.
func (s *State) answerTime(m wire.Message) time.Duration {
	d := min(max(s.agreement.Beat/2, 2*time.Second), 20*time.Second)
	if x, ok := m.(*wire.Exchange); ok && len(x.Items) > 0 {
		from := x.First - s.acked - 1
		for _, size := range s.sizes.s[from : from+uint64(len(x.Items))] {
			d += time.Duration(size) * time.Second / slowest
		}
	}
	return d
}

// request takes a request of the other side.
func (s *step) request(in Request) {
	var f *wire.Frame
	w := waiting{id: in.ID, until: s.now}
	instance := s.agreement.TheirInstance
	resume, polite := false, false
	switch m := in.Message.(type) {
	case *wire.Exchange:
		f = &m.Frame
		w.poll, w.until = f.Poll, s.now.Add(min(f.Hold, s.agreement.Beat))
	case *wire.Heartbeat:
		f = &m.Frame
	case *wire.Resume:
		f, resume, instance = &m.Frame, true, m.Instance
	case *wire.Close:
		f, polite = &m.Frame, true
		if s.closeReason == "" {
			s.closeReason, s.closeSentence = m.Reason, m.Sentence
		}
	default:
		s.out(Reply{ID: in.ID, Fault: &wire.Fault{Code: wire.BadMessage, Session: s.agreement.Session, Sentence: "this is no request of a session"}})
		return
	}
	switch {
	case f.Session != s.agreement.Session:
		s.out(Reply{ID: in.ID, Fault: &wire.Fault{Code: wire.UnknownSession, Session: f.Session, Sentence: "this is not the session that stands: open one"}})
		return
	case resume && instance != s.agreement.TheirInstance && s.phase != Closed:
		s.end(wire.Forgotten, "the other side was started anew and lost what it knew of the session")
		s.out(Reply{ID: in.ID, Fault: &wire.Fault{Code: wire.CursorMismatch, Session: f.Session, Sentence: "the session was opened by another instance: open another session"}})
		return
	case s.phase == Lost && !resume && !polite:
		s.out(Reply{ID: in.ID, Fault: &wire.Fault{Code: wire.MustResume, Session: f.Session, Sentence: "this side took the session for lost: resume it"}})
		return
	}
	stale := f.Number <= s.heard // doubled, or overtaken: it is not held
	if s.phase != Closed {
		if !s.read(f) {
			s.out(Reply{ID: in.ID, Fault: &wire.Fault{Code: wire.CursorMismatch, Session: f.Session, Sentence: "the two sides' cursors do not fit: one lost state; open another session"}})
			return
		}
		if resume && s.phase != Closed {
			s.resumed()
		}
	}
	switch {
	case resume:
		s.out(Reply{ID: in.ID, Message: &wire.Resumed{Frame: s.frame(false), Instance: s.agreement.Instance}})
		return
	case polite:
		s.finish() // so that the answer tells the end, if this is it
		s.out(Reply{ID: in.ID, Message: &wire.Closed{Frame: s.frame(false)}})
		return
	}
	if _, ok := in.Message.(*wire.Heartbeat); ok {
		s.out(Reply{ID: in.ID, Message: &wire.HeartbeatAnswer{Frame: s.frame(false)}})
		return
	}
	if stale {
		s.out(Reply{ID: in.ID, Message: &wire.Exchanged{Frame: s.frame(false)}})
		return
	}
	w.upto = s.got
	s.waiting = append(slices.Clip(s.waiting), w)
}

// resumed goes on from the cursors.
func (s *step) resumed() {
	s.turn(Alive, "resumed")
	s.next = s.theirGot + 1
	s.again, s.fails, s.retryAt = 0, 0, time.Time{}
}

// response takes the answer to a request of this side.
func (s *step) response(in Response) {
	switch in.ID {
	case 0:
		return
	case s.push.id:
		if c := s.push.closing; c != "" {
			s.announced = c
		}
		s.push = flight{}
	case s.poll.id:
		s.poll = flight{}
	default:
		return // it was given up; what it brought comes again
	}
	var f *wire.Frame
	resume := false
	switch m := in.Message.(type) {
	case *wire.Exchanged:
		f = &m.Frame
	case *wire.HeartbeatAnswer:
		f = &m.Frame
	case *wire.Closed:
		f = &m.Frame
	case *wire.Resumed:
		f, resume = &m.Frame, true
		if m.Instance != s.agreement.TheirInstance {
			s.end(wire.Forgotten, "the other side was started anew and lost what it knew of the session")
			return
		}
	default:
		s.rejected(fail.Invalid, "a %T is no answer in a session", in.Message)
		return
	}
	s.fails, s.retryAt = 0, time.Time{}
	if f.Session != s.agreement.Session {
		s.broken("an answer was of another session")
		return
	}
	if s.read(f) && resume && s.phase != Closed {
		s.resumed()
	}
}

// failed takes that a request of this side has no answer.
func (s *step) failed(in Failed) {
	switch in.ID {
	case 0:
		return
	case s.push.id:
		s.push = flight{}
	case s.poll.id:
		s.poll = flight{}
	default:
		return
	}
	s.later()
	if in.Fault == nil || s.phase == Closed {
		return
	}
	switch in.Fault.Code {
	case wire.MustResume:
		s.turn(Lost, "the other side took the session for lost")
	case wire.UnknownSession, wire.CursorMismatch:
		s.end(wire.Forgotten, in.Fault.Sentence)
	case wire.SessionClosed:
		s.end(wire.Withdrawn, in.Fault.Sentence)
	case wire.SessionExists:
		s.end(wire.Superseded, in.Fault.Sentence)
	case wire.NotTrusted, wire.NoVersion, wire.TermsRefused, wire.BadMessage, wire.Busy, wire.InternalProblem:
		if in.Fault.Code == wire.BadMessage {
			s.broken("%s", in.Fault.Sentence)
		} else if in.Fault.Retry > 0 {
			s.retryAt = s.now.Add(in.Fault.Retry)
		}
	}
}

// later puts the next request off: not for long while the session may yet be kept.
func (s *step) later() {
	most := max(firstRetry, s.agreement.Beat/4)
	if s.phase == Lost {
		most = lostRetry
	}
	s.retryAt = s.now.Add(min(firstRetry<<min(s.fails, 12), most))
	s.resumeAt = s.retryAt
	s.fails++
}

// beat is after how much silence of its own this side gives a sign of life.
func (s *State) beat() time.Duration {
	if s.agreement.Opener || s.agreement.Polls {
		return s.agreement.Beat
	}
	return s.agreement.Beat + s.agreement.Beat/4
}

// speak answers what waits and asks what is to be asked.
func (s *step) speak() {
	s.expire()
	s.answer()
	if !s.agreement.Dials {
		return
	}
	if s.phase == Lost {
		if s.push.id == 0 && !s.now.Before(s.resumeAt) {
			s.ask(&s.push, &wire.Resume{Frame: s.frame(false), Instance: s.agreement.Instance}, 0)
		}
		return
	}
	if s.now.Before(s.retryAt) {
		return
	}
	s.goodbye()
	if s.phase == Closed {
		return
	}
	s.resend()
	if s.push.id == 0 && s.sendable() > 0 {
		f := s.frame(true)
		f.Hold = pushHold
		s.ask(&s.push, &wire.Exchange{Frame: f}, pushHold)
	}
	if s.agreement.Polls && s.poll.id == 0 && s.fails == 0 {
		f := s.frame(false)
		f.Hold, f.Poll = s.agreement.Beat, true
		s.ask(&s.poll, &wire.Exchange{Frame: f}, f.Hold)
	}
	// After a failure something short is tried first: a poll would hang for long.
	if s.push.id == 0 && (s.owes() || s.fails > 0 || s.poll.id == 0 && s.now.Sub(s.spokeAt) >= s.beat()) {
		s.ask(&s.push, &wire.Heartbeat{Frame: s.frame(false)}, 0)
	}
}

// owes reports whether the other side is to be told now what is done with.
func (s *step) owes() bool {
	return s.done > s.told && (s.done-s.told >= uint64(max(1, s.config.Window/4)) || s.now.Sub(s.oweSince) >= ackWithin)
}

func (s *step) ask(f *flight, m wire.Message, hold time.Duration) {
	s.lastID++
	within := hold + s.answerTime(m)
	*f = flight{id: s.lastID, until: s.now.Add(within + time.Second)}
	s.out(Ask{ID: f.id, Message: m, Within: within})
}

// expire gives up requests of which nobody said that they failed.
func (s *step) expire() {
	for _, f := range []*flight{&s.push, &s.poll} {
		if f.id != 0 && !s.now.Before(f.until) {
			*f = flight{}
			s.later()
		}
	}
}

// answer answers the requests that have waited enough.
func (s *step) answer() {
	if len(s.waiting) == 0 {
		return
	}
	s.resend()
	var rest []waiting
	for i, w := range s.waiting {
		newer := false // a poll is answered when the next one is here
		for _, o := range s.waiting[i+1:] {
			newer = newer || w.poll && o.poll
		}
		ready := s.phase == Closed || s.phase == Lost || newer || len(s.waiting)-i > maxWaiting || !s.now.Before(w.until)
		if w.poll {
			ready = ready || s.sendable() > 0 || s.owes() || s.closing != s.announced
		} else {
			ready = ready || s.done >= w.upto
		}
		if !ready {
			rest = append(rest, w)
			continue
		}
		s.announced = s.closing
		s.out(Reply{ID: w.id, Message: &wire.Exchanged{Frame: s.frame(s.phase != Closed && s.phase != Lost)}})
	}
	s.waiting = rest
}

// Wake gives when a Tick is due; false when none is.
func (s State) Wake() (time.Time, bool) {
	var at time.Time
	by := func(t time.Time) {
		if !t.IsZero() && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	by(s.push.until)
	by(s.poll.until)
	polled := false
	for _, w := range s.waiting {
		by(w.until)
		polled = polled || w.poll
	}
	if s.phase != Closed {
		by(s.closeBy)
	}
	if s.phase == Alive {
		by(s.heardAt.Add(s.agreement.Suspect))
	}
	if s.phase == Alive || s.phase == Suspect {
		by(s.heardAt.Add(s.agreement.Lost))
	}
	idle := s.agreement.Dials && s.push.id == 0
	speaks := func(t time.Time) { // not before a request may be made again
		if t.Before(s.retryAt) {
			t = s.retryAt
		}
		by(t)
	}
	switch {
	case s.phase == Lost && idle:
		by(s.resumeAt)
		return at, true
	case s.phase == Lost:
		return at, !at.IsZero()
	case idle && s.owesGoodbye():
		by(s.retryAt)
	}
	if s.phase == Closed {
		return at, !at.IsZero()
	}
	if idle && (s.sendable() > 0 || s.fails > 0) || s.agreement.Dials && s.agreement.Polls && s.poll.id == 0 && s.fails == 0 {
		by(s.retryAt)
	}
	since, owed := s.oweSince, s.done > s.told
	again := s.next > s.theirGot+1
	if idle {
		if again {
			speaks(s.carriedAt.Add(s.resendAfter()))
		}
		if owed {
			speaks(since.Add(ackWithin))
		}
		if s.poll.id == 0 {
			speaks(s.spokeAt.Add(s.beat()))
		}
	}
	if polled && again {
		by(s.carriedAt.Add(s.resendAfter()))
	}
	if polled && owed {
		by(since.Add(ackWithin))
	}
	return at, !at.IsZero()
}
