package handover

import (
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

// refuses is why a route can never be taken by the gateway self, whenever it comes: such a
// refusal needs no record.
func (m Route) refuses(self, from string, t Terms, now time.Time) error {
	refuse := func(kind fail.Kind, format string, args ...any) error {
		return fail.Errorf("handover.Route", kind, m.Key.String(), format, args...)
	}
	switch {
	case m.Path[len(m.Path)-1] != from:
		return refuse(fail.Denied, "the route comes from %s, and its path ends with %s: they must be the same", from, m.Path[len(m.Path)-1])
	case slices.Contains(m.Path, self):
		return refuse(fail.Invalid, "the job has come through the domain %s and must not go there again; choose another", self)
	case m.RecallBy.After(now.Add(MaxLease + 2*t.Skew)):
		return refuse(fail.Invalid, "the recall deadline is further ahead than any can be agreed, %s", MaxLease)
	case now.After(t.Elsewhere(m.RecallBy)):
		return refuse(fail.Conflict, "the route came after its recall deadline; hand the job over again")
	}
	return nil
}

func (s *stepper) refuse(to string, m Message, err error) {
	key, token := m.About()
	s.send(to, Answer{Key: key, Token: token, Kind: fail.KindOf(err), Reason: Short(fail.Sentence(err))})
}

func (s *stepper) route(in Received, m Route) error {
	if err := in.Terms.Check(); err != nil {
		return err
	}
	j := s.job
	if j != nil && j.Taken != nil {
		switch m.Token.Compare(j.Taken.Token) {
		case -1:
			s.refuse(in.From, m, s.conflict("the job was handed over again since, under the token %s", j.Taken.Token))
			return nil
		case 0:
			s.again(in, m)
			return nil
		}
	}
	if err := m.refuses(s.self, in.From, in.Terms, s.now); err != nil {
		s.refuse(in.From, m, err)
		return nil
	}
	if j != nil {
		if j.Taken == nil {
			s.refuse(in.From, m, s.conflict("the job is this domain's own"))
			return nil
		}
		if j.live() {
			s.superseded(in.From, m.Token)
			return nil
		}
		if t := j.Taken; !t.Settled && !t.Refused && j.Used > 0 && t.From == in.From {
			// What was done under the lower token is settled first, else it could never be
			// claimed; the route comes again.
			s.send(t.From, s.reportOf())
			return nil
		}
	}
	// From here on the answer must be the same however often the route comes, and whatever
	// comes of it: the record is written before.
	t := &Taken{From: in.From, Token: m.Token, Routed: m.RecallBy, RecallBy: m.RecallBy, Path: slices.Clone(m.Path), Hops: m.Hops, Terms: in.Terms}
	s.job = &Job{Key: m.Key, Digest: m.Digest, Want: Run, Taken: t}
	why := in.Refuse
	if why == nil && m.RecallBy.After(s.now.Add(in.Terms.Lease+2*in.Terms.Skew)) {
		why = s.conflict("the recall deadline is further ahead than the %s agreed", in.Terms.Lease)
	}
	if why == nil && !s.now.Before(in.Terms.lapse(m.RecallBy)) {
		why = s.conflict("the route came so near to its recall deadline that the job could not be held; hand it over again")
	}
	if why != nil {
		t.Refused, t.Lapsed, t.Kind = true, true, fail.KindOf(why)
		s.job.Reason = Short(fail.Sentence(why))
		if err := s.move(refused); err != nil {
			return err
		}
		s.answerRoute()
		return nil
	}
	if err := s.move(accepted); err != nil {
		return err
	}
	s.answerRoute()
	s.do(Place{})
	return nil
}

// superseded: who gives out a higher token knows that the copy is dead, and where it is not
// yet, that is ours to see to; what was sent comes again when there is no answer. Another
// giver is not believed that much: its route waits until the copy's own deadline or giver
// ends it.
func (s *stepper) superseded(by string, t Token) {
	if s.job.Taken.From == by {
		s.abandon("it was handed over again under the token " + string(t))
	}
}

// again answers a route that was answered.
func (s *stepper) again(in Received, m Route) {
	t := s.job.Taken
	if t.From == in.From && len(t.Path) == 0 {
		s.refuse(in.From, m, fail.Errorf("handover.Route", fail.NotAccepting, m.Key.String(), "%s", s.job.Reason)) // it was recalled before it came
		return
	}
	if t.From != in.From || s.job.Digest != m.Digest || !slices.Equal(t.Path, m.Path) {
		s.refuse(in.From, m, s.conflict("another route had the same token %s", m.Token))
		return
	}
	s.answerRoute()
	if !t.Refused && !s.job.live() {
		s.send(t.From, s.reportOf())
	}
}

func (s *stepper) answerRoute() {
	t := s.job.Taken
	a := Answer{Key: s.job.Key, Token: t.Token, Accepted: !t.Refused}
	if t.Refused {
		a.Kind, a.Reason = t.Kind, s.job.Reason
	}
	s.send(t.From, a)
	s.told = true
}

// lapse gives up a copy that was not renewed in time.
func (s *stepper) lapse() {
	j, t := s.job, s.job.Taken
	if t == nil || !j.live() || s.now.Before(t.Terms.lapse(t.RecallBy)) {
		return
	}
	s.abandon("it was not renewed before its recall deadline")
}

// abandon makes sure that the copy never runs again.
func (s *stepper) abandon(reason string) {
	if j := s.job; !j.Taken.Lapsed {
		j.Taken.Lapsed = true
		j.Reason, j.Kind = Short(reason), fail.Internal
		s.save(SaveFirst)
	}
}

// taken reports whether the message is of the giver of the copy that is held.
func (s *stepper) taken(from string, t Token) bool {
	return s.job != nil && s.job.Taken != nil && s.job.Taken.From == from && s.job.Taken.Token == t
}

func (s *stepper) giveBack(in Return) error {
	j := s.job
	switch {
	case j.Taken == nil:
		return s.conflict("the job is this domain's own, and can be given back to nobody")
	case !j.live():
		return s.conflict("the copy is %s already", j.Phase)
	}
	r := Idle
	if in.Running {
		r = Running
	}
	j.Taken.Recall = max(j.Taken.Recall, r)
	j.Reason, j.Kind = Short(in.Reason), in.Kind
	s.changed()
	return nil
}

func (s *stepper) granted(in Received, m Granted) error {
	if !s.taken(in.From, m.Token) || !s.job.live() || s.job.Taken.Lapsed || !m.RecallBy.After(s.job.Taken.RecallBy) {
		return nil
	}
	t := s.job.Taken
	if m.RecallBy.After(s.now.Add(t.Terms.Lease + 2*t.Terms.Skew)) {
		return fail.Errorf("handover.Granted", fail.Invalid, m.Key.String(), "the recall deadline is further ahead than the %s agreed", t.Terms.Lease)
	}
	t.RecallBy = m.RecallBy
	s.save(SaveLater)
	if s.job.Phase == Here {
		s.do(Extend{s.job.Token(), t.Terms.NotAfter(t.RecallBy)})
	}
	return nil
}

func (s *stepper) control(in Received, m Control) error {
	j := s.job
	ends := Asked{m.Want, m.Recall}.ends() || m.Recall != Keep
	if j != nil && j.Taken == nil || m.Key.Origin == s.self {
		return fail.Errorf("handover.Control", fail.Denied, m.Key.String(), "the job is this domain's own")
	}
	held := Token("")
	if j != nil {
		held = j.Taken.Token
	}
	dead := func(why string) error {
		s.send(in.From, Report{Key: m.Key, Token: m.Token, Seq: m.Seq, Revision: 1, Status: IsReturned, Where: []string{s.self}, Reason: why})
		return nil
	}
	switch c := m.Token.Compare(held); {
	case c < 0: // a higher token is taken only when copies under lower ones are dead
		return dead("the job was handed over again since")
	case c > 0:
		if j != nil && j.live() {
			s.superseded(in.From, m.Token)
			return nil
		}
		if !ends {
			return nil // its route comes
		}
		if err := in.Terms.Check(); err != nil {
			return err
		}
		if s.now.After(in.Terms.Elsewhere(m.RecallBy)) {
			return dead("its recall deadline has passed")
		}
		if m.RecallBy.After(s.now.Add(in.Terms.Lease + 2*in.Terms.Skew)) {
			return fail.Errorf("handover.Control", fail.Invalid, m.Key.String(), "the recall deadline is further ahead than the %s agreed", in.Terms.Lease)
		}
		// The route is still on its way or is lost: it must not be taken when it comes.
		s.job = &Job{Key: m.Key, Want: m.Want, Reason: "it was recalled before it came", Taken: &Taken{
			From: in.From, Token: m.Token, Routed: m.RecallBy, RecallBy: m.RecallBy, Terms: in.Terms, Seq: m.Seq, Recall: m.Recall, Lapsed: true,
		}}
		return s.move(refused)
	}
	if j.Taken.From != in.From {
		return fail.Errorf("handover.Control", fail.Denied, m.Key.String(), "the copy is of the domain %s", j.Taken.From)
	}
	if m.Seq > j.Taken.Seq {
		j.Taken.Seq = m.Seq
		s.save(SaveFirst)
		if j.live() {
			j.Taken.Recall = max(j.Taken.Recall, m.Recall)
			if j.Want != Cancel {
				s.want(m.Want)
			}
		}
	}
	s.tell()
	return nil
}

func (s *stepper) query(in Received, m Query) error {
	j := s.job
	switch {
	case j != nil && j.Taken == nil:
		return fail.Errorf("handover.Query", fail.Denied, m.Key.String(), "the job is this domain's own")
	case j == nil || m.Token.Compare(j.Taken.Token) > 0:
		// Nothing keeps its route from being taken when it comes, so that nothing can be said.
		return fail.Errorf("handover.Query", fail.NotFound, m.Key.String(), "there is no copy under the token %s of %s here yet", m.Token, in.From)
	case m.Token.Compare(j.Taken.Token) < 0: // a higher token is taken only when copies under lower ones are dead
		s.send(in.From, Report{Key: m.Key, Token: m.Token, Revision: 1, Status: IsReturned, Where: []string{s.self}, Reason: "the job was handed over again since"})
		return nil
	case j.Taken.From != in.From:
		return fail.Errorf("handover.Query", fail.Denied, m.Key.String(), "the copy is of the domain %s", j.Taken.From)
	}
	if s.job.Phase == Given {
		s.send(s.job.Gave.To, Query{s.job.Key, s.job.Gave.Token}) // what it says is reported on
	}
	s.tell()
	return nil
}

// tell has the giver told at the end of the step.
func (s *stepper) tell() {
	t := s.job.Taken
	switch {
	case t.Refused:
		s.answerRoute()
	case s.out.Save == SaveFirst && !t.Settled: // it is told for that
	default:
		s.send(t.From, s.reportOf())
	}
}

func (s *stepper) reportOf() Report {
	j := s.job
	r := Report{Key: j.Key, Token: j.Taken.Token, Revision: j.Revision, Seq: j.Taken.Seq, Status: j.Status(), Where: j.Where(s.self), Used: j.Used}
	switch r.Status {
	case IsEnded:
		result := *j.Result
		r.Result = &result
	case IsReturned:
		r.Reason, r.Kind = j.Reason, j.Kind
	case IsWaiting, IsPlaced, IsRunning, IsSuspended:
	}
	if len(r.Where) > MaxPath {
		r.Where = r.Where[:MaxPath]
	}
	return r
}

// settle hears that the giver knows of the copy's end, or that the copy does not count.
func (s *stepper) settle(in Received, m Settle) error {
	if !s.taken(in.From, m.Token) || s.job.Taken.Settled {
		return nil
	}
	j := s.job
	if j.live() {
		if m.Taken {
			return s.conflict("the copy was settled while it lives")
		}
		s.abandon("it does not count any more for the domain " + in.From)
		return nil
	}
	j.Taken.Settled = true
	s.save(SaveFirst)
	if m.Taken && j.Used > 0 {
		charge := Charge{Provider: s.self, Consumer: in.From, Key: j.Key, Token: m.Token, Used: j.Used}
		if j.Phase == Over {
			charge.Outcome = j.Result.Outcome
		}
		s.out.Earn = &charge
	}
	if j.Phase == Over {
		return s.move(settled)
	}
	return nil
}
