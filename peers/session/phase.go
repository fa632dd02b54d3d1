package session

import (
	"slices"
	"time"
)

// Phase is what a side believes of the other.
type Phase string

// The phases.
const (
	Alive   Phase = "alive"   // it is heard of
	Suspect Phase = "suspect" // it was not heard of for three beats; all goes on as before
	Lost    Phase = "lost"    // it was not heard of for long; items wait, and the session must be resumed
	Closed  Phase = "closed"  // the session is over
)

// phases says what may follow each phase.
var phases = map[Phase][]Phase{
	Alive:   {Suspect, Lost, Closed},
	Suspect: {Alive, Lost, Closed},
	Lost:    {Alive, Closed},
	Closed:  {},
}

// turn goes to a phase; it is the only place where one is set.
func (s *step) turn(to Phase, reason string) {
	if s.phase == to || !slices.Contains(phases[s.phase], to) {
		return
	}
	s.out(Turn{From: s.phase, To: to, Reason: reason})
	s.phase, s.reason, s.since = to, reason, s.now
	if to == Lost {
		s.resumeAt, s.fails = s.now, 0
		s.push, s.poll = flight{}, flight{}
	}
}

// silence is how long nothing new was heard.
func (s *State) silence(now time.Time) time.Duration { return now.Sub(s.heardAt) }

// judge sets the phase by the silence.
func (s *step) judge() {
	switch quiet := s.silence(s.now); {
	case s.phase == Closed || s.phase == Lost:
	case quiet >= s.agreement.Lost:
		s.turn(Lost, "nothing was heard for "+quiet.Round(time.Second).String()+"; the session must be resumed")
	case quiet >= s.agreement.Suspect:
		s.turn(Suspect, "nothing was heard for "+quiet.Round(time.Second).String())
	default:
		s.turn(Alive, "it was heard of again")
	}
}
