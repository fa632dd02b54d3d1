package schedule

import "time"

// bar takes a job out of the book in force that the policy of selection wants at none
// of the places that have room. It is in the shadow's still.
func (s *Scheduler) bar(w *waiting, now time.Time) {
	c := w.class
	if c.barred == nil {
		c.barred = map[string]*waiting{}
	}
	w.barred = true
	c.barred[w.ID] = w
	s.barred[c] = true
	s.nBarred++
	s.lastBar = now
	if s.retry.IsZero() {
		s.retry = now.Add(Retry)
	}
}

// unbar forgets that a job was barred.
func (s *Scheduler) unbar(w *waiting) {
	w.barred = false
	s.nBarred--
	c := w.class
	if delete(c.barred, w.ID); len(c.barred) == 0 {
		delete(s.barred, c)
	}
	if s.nBarred == 0 {
		s.retry = time.Time{}
	}
}

// unbarAll lets all barred jobs be looked at again.
func (s *Scheduler) unbarAll() {
	for c := range s.barred {
		for _, w := range c.barred {
			s.unbar(w)
			s.books[0].add(w)
		}
	}
}

// sooner lets the barred be looked at soon, since something changed; not at once,
// because there may be very many of them and changes all the time.
func (s *Scheduler) sooner() {
	if s.nBarred == 0 {
		return
	}
	if t := s.lastBar.Add(time.Second + time.Duration(s.nBarred)*20*time.Microsecond); t.Before(s.retry) {
		s.retry = t
	}
}
