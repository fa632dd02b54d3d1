package handover

import (
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

// forward hands a waiting job to a peer. The placement is written down before the route
// is sent.
func (s *stepper) forward(in Forward) error {
	j := s.job
	if err := in.Terms.Check(); err != nil {
		return err
	}
	if err := s.mayPlace(); err != nil {
		return err
	}
	if err := MayForward(j, s.self, in.To); err != nil {
		return err
	}
	if err := checkDigest(j.Key, in.Digest); err != nil {
		return err
	}
	if in.Digest != "" && in.Digest != j.Digest && j.Taken != nil {
		return invalid(j.Key, "what is routed must stay as the origin %s sent it", j.Key.Origin)
	}
	recallBy := s.now.Add(in.Terms.Lease)
	hops := min(max(in.Hops, 0), MaxPath-len(j.Path(s.self)))
	if t := j.Taken; t != nil {
		// No more than was promised to us, neither time nor hops.
		if recallBy.After(t.RecallBy) {
			recallBy = t.RecallBy
		}
		hops = min(hops, t.Hops-1)
	}
	if !s.now.Before(in.Terms.lapse(recallBy)) {
		return s.conflict("so little of the recall deadline is left that the peer could not hold the job; wait until it is renewed")
	}
	if err := s.attempt(); err != nil {
		return err
	}
	if in.Digest != "" {
		j.Digest = in.Digest
	}
	j.Gave = &Gave{To: in.To, Token: j.Token(), Routed: recallBy, RecallBy: recallBy, Hops: hops, Terms: in.Terms, Asked: Asked{Want: Run}}
	return s.move(handed)
}

// MayForward gives fail.Conflict where a job would go in a loop, or further than its origin
// allows, if the gateway self gave it to the domain to.
func MayForward(j *Job, self, to string) error {
	if err := checkDomain(to); err != nil {
		return err
	}
	path := j.Path(self)
	switch {
	case slices.Contains(path, to):
		return fail.Errorf("handover.Forward", fail.Conflict, j.Key.String(), "the job has come through the domain %s and must not go there again; choose another", to)
	case j.Taken != nil && j.Taken.Hops <= 0, len(path) >= MaxPath:
		return fail.Errorf("handover.Forward", fail.Conflict, j.Key.String(), "the job has made all hops that its origin allows; run it here or give it back")
	}
	return nil
}

// mayPlace: a placement, here or at a peer, is made of a job that waits for one, by who
// still holds it.
func (s *stepper) mayPlace() error {
	j := s.job
	switch {
	case j.Phase != Waiting:
		return s.conflict("the job is %s: only one that waits is given a place", j.Phase)
	case j.Want != Run:
		return s.conflict("the job is wanted to %s and is given no place", j.Want)
	case j.Taken != nil && (j.Taken.Lapsed || j.Taken.Recall != Keep):
		return s.conflict("the job is recalled by %s and is given no place", j.Taken.From)
	}
	return nil
}

// attempt numbers a placement. What may come late of the one before is not heeded any more.
func (s *stepper) attempt() error {
	if s.job.Attempts == 1<<32-1 {
		return fail.Errorf("handover.Step", fail.Exhausted, s.job.Key.String(), "the job was given as many places as can be numbered; cancel it and submit it again")
	}
	s.job.Attempts++
	s.job.Gave, s.job.Reason, s.job.Kind = nil, "", fail.Internal
	s.job.Started, s.job.Paused = false, false
	s.job.retry = time.Time{}
	return nil
}

func (s *stepper) takeBack(in TakeBack) error {
	if s.job.Phase != Given {
		return s.conflict("no peer has the job")
	}
	r := Idle
	if in.Running {
		r = Running
	}
	if r > s.job.Gave.Recall {
		s.job.Gave.Recall = r
		s.save(SaveFirst)
	}
	return nil
}

// overdue takes the copy of a peer for dead that is not heard of and past its deadline.
func (s *stepper) overdue() {
	j := s.job
	if j.Phase != Given || !s.now.After(j.Gave.Terms.Elsewhere(j.Gave.RecallBy)) {
		return
	}
	s.dead("the domain " + j.Gave.To + " was not heard of by the recall deadline, " + j.Gave.RecallBy.UTC().Format(time.RFC3339))
}

// dead ends the placement at the peer. The job has no place now.
func (s *stepper) dead(reason string) {
	j := s.job
	j.Gave.Over = true
	j.Reason, j.Kind = Short(reason), fail.Internal
	_ = s.move(returned) // of Given, which the callers know
	j.retry = time.Time{}
	if s.mayPlace() == nil {
		s.do(Place{})
	}
}

// restore brings back what is not written down. A deadline may have been promised that is
// forgotten, but none further ahead than the lease.
func (s *stepper) restore() {
	j := s.job
	j.restored, s.redo = false, true
	s.save(SaveLater)
	if j.Phase == Given {
		t := j.Gave.Terms
		if r := s.now.Add(t.Lease + 2*t.Skew); r.After(j.Gave.RecallBy) {
			j.Gave.RecallBy = r
		}
	}
}

// resume does again what was in progress before a restart.
func (s *stepper) resume() {
	j := s.job
	switch j.Phase {
	case Here:
		s.start()
		s.do(Hold{j.Token(), j.Want == Suspend})
	case Stopping:
		s.do(Stop{j.Token()})
	case Waiting:
		if s.mayPlace() == nil {
			s.do(Place{})
		}
	case Over:
		if j.Taken == nil {
			s.do(Done{*j.Result})
		}
	case Given, Released: // repeated, as retry is forgotten too
	}
}

// askPeer numbers what is wanted of the peer, where it is something else than before.
func (s *stepper) askPeer() {
	j := s.job
	if j.Phase != Given {
		return
	}
	if a := j.asked(); a != j.Gave.Asked {
		j.Gave.Asked = a
		j.Gave.Seq++
		s.save(SaveFirst)
	}
}

// repeatToPeer sends what the peer has not answered.
func (s *stepper) repeatToPeer() bool {
	j, g := s.job, s.job.Gave
	sent := false
	if !g.Accepted && !g.Asked.ends() {
		s.send(g.To, Route{j.Key, g.Token, g.Routed, j.Path(s.self), g.Hops, j.Digest})
		sent = true
	}
	if g.Heard < g.Seq {
		s.send(g.To, Control{j.Key, g.Token, g.Seq, g.Asked.Want, g.Asked.Recall, g.Routed})
		sent = true
	}
	return sent
}

// gave reports whether the message is of the peer that has, or last had, the job, about the
// token that was last given out.
func (s *stepper) gave(from string, t Token) bool {
	return s.job != nil && s.job.Gave != nil && s.job.Gave.To == from && s.job.Gave.Token == t && s.job.Token() == t
}

// fenced answers who has a copy that does not count.
func (s *stepper) fenced(in Received) {
	key, token := in.Message.About()
	s.send(in.From, Settle{key, token, in.Owed})
}

func (s *stepper) answer(in Received, m Answer) error {
	switch {
	case !s.gave(in.From, m.Token) || s.job.Phase != Given:
		if m.Accepted {
			s.fenced(in)
		}
	case m.Accepted:
		if !s.job.Gave.Accepted {
			s.job.Gave.Accepted = true
			s.save(SaveLater) // else the route is sent again, and answered the same
		}
	default:
		s.dead("the domain " + in.From + " refused it: " + m.Reason)
	}
	return nil
}

func (s *stepper) report(in Received, m Report) error {
	j := s.job
	if !s.gave(in.From, m.Token) || j.Gave.Done || j.Phase != Given && j.Phase != Waiting {
		s.fenced(in)
		return nil
	}
	g := j.Gave
	switch {
	case m.Status.Final():
		return s.heed(in, m)
	case j.Phase == Waiting:
		return nil // it is past its deadline; how it ended may still be heeded
	}
	if !g.Accepted {
		g.Accepted = true
		s.save(SaveLater)
	}
	g.Heard = max(g.Heard, min(m.Seq, g.Seq))
	if m.Revision > g.Revision {
		g.Revision = m.Revision
		where := s.credible(m.Where)
		if g.Status != m.Status || !slices.Equal(g.Where, where) {
			g.Status, g.Where = m.Status, where
			s.changed()
		}
	}
	s.grant()
	return nil
}

// credible gives the way that a peer tells to the job, or none where it would be a loop or
// too long: it is for people to see, and nothing else rests on it.
func (s *stepper) credible(where []string) []string {
	path := s.job.Path(s.self)
	if len(where) == 0 || where[0] != s.job.Gave.To || len(path)+len(where) > MaxPath || slices.ContainsFunc(where, func(d string) bool { return slices.Contains(path, d) }) {
		return nil
	}
	return slices.Clone(where)
}

// heed takes the end of the copy that was last given out: of one that is past its deadline
// too, as long as no other placement was made.
func (s *stepper) heed(in Received, m Report) error {
	j, g := s.job, s.job.Gave
	g.Done, g.Over = true, true
	if m.Used > 0 {
		charge := Charge{Provider: in.From, Consumer: s.self, Key: j.Key, Token: m.Token, Used: m.Used}
		if m.Result != nil {
			charge.Outcome = m.Result.Outcome
		}
		s.out.Owe = &charge
		j.Used = j.Used.plus(m.Used)
	}
	s.send(in.From, Settle{j.Key, m.Token, true})
	s.save(SaveFirst)
	switch {
	case m.Status == IsEnded:
		r := *m.Result
		j.Result = &r
		if err := s.move(ended); err != nil {
			return err
		}
		s.finish()
	case j.Phase == Given:
		s.dead("the domain " + in.From + " gave it back: " + m.Reason)
	}
	return nil
}

// grant renews the lease of a peer that was heard of, while its copy is wanted.
func (s *stepper) grant() {
	j, g := s.job, s.job.Gave
	if g.Asked.ends() || j.asked().ends() {
		return
	}
	to := s.now.Add(g.Terms.Lease)
	if t := j.Taken; t != nil && to.After(t.RecallBy) {
		to = t.RecallBy
	}
	if to.After(g.RecallBy) {
		g.RecallBy = to
		s.save(SaveLater)
	}
	s.send(g.To, Granted{j.Key, g.Token, to})
}
