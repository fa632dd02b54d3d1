package handover

import "time"

// placeHere gives the job to an own site.
func (s *stepper) placeHere() error {
	if err := s.mayPlace(); err != nil {
		return err
	}
	if err := s.attempt(); err != nil {
		return err
	}
	if err := s.move(placed); err != nil {
		return err
	}
	s.start()
	return nil
}

// start gives the site the job under its token, and when it must have ended it. A site
// that has the token already does nothing again.
func (s *stepper) start() {
	j := s.job
	var notAfter time.Time
	if t := j.Taken; t != nil {
		notAfter = t.Terms.NotAfter(t.RecallBy)
	}
	s.do(Start{j.Token(), notAfter})
}

// evidence is what the site shows. What it shows of another placement than the last is of
// one that is over.
func (s *stepper) evidence(in Evidence) error {
	j := s.job
	if in.Used < 0 || in.Used > MaxUsed {
		return invalid(j.Key, "the time used must be from 0 to %d milliseconds", MaxUsed)
	}
	if in.Token != j.Token() || j.Phase != Here && j.Phase != Stopping {
		return nil
	}
	switch in.Shows {
	case HasStarted, HasResumed:
		if !j.Started || j.Paused {
			j.Started, j.Paused = true, false
			s.changed()
		}
	case HasQueued:
		if j.Paused {
			j.Paused = false
			s.changed()
		}
	case HasPaused:
		if !j.Paused {
			j.Paused = true
			s.changed()
		}
	case HasEnded:
		if in.Result == nil {
			return invalid(j.Key, "evidence of an end needs the result")
		}
		r := *in.Result
		r.Token, r.Reason = in.Token, Short(r.Reason)
		if err := r.check(j.Key); err != nil {
			return err
		}
		j.Used = j.Used.plus(in.Used)
		j.Result = &r
		if err := s.move(ended); err != nil {
			return err
		}
		s.finish()
	case NotRun:
		j.Used = j.Used.plus(in.Used)
		if j.Reason == "" || j.Phase == Here {
			j.Reason, j.Kind = Short(in.Reason), in.Kind
		}
		j.Started, j.Paused = false, false
		if err := s.move(unrun); err != nil {
			return err
		}
		if s.mayPlace() == nil {
			s.do(Place{})
		}
	default:
		return invalid(j.Key, "evidence shows %q, which is none of queued, started, paused, resumed, ended, not run", in.Shows)
	}
	return nil
}
