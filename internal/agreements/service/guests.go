package service

import (
	"sync"

	"golang.org/x/time/rate"

	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/fail"
)

// guestBytes is how long an offer of a peer may be to count as one within an hour.
const guestBytes = 4 << 10

// guests counts what peers offer.
type guests struct {
	mu sync.Mutex
	of map[string]*rate.Limiter // by domain
}

// welcome says why no further agreement is made with a peer now. What a peer has made here is kept for
// long, whatever became of it.
func (s *Service) welcome(domain string, size int) error {
	const op = "service.offer"
	if domain == "" {
		return nil
	}
	if n := s.e.OfDomain(domain); n >= s.o.MaxGuests {
		return fail.Errorf(op, fail.Exhausted, domain, "%d agreements with the domain %s have not ended, and %d may be; terminate some first", n, domain, s.o.MaxGuests)
	}
	s.guests.mu.Lock()
	l := s.guests.of[domain]
	if l == nil {
		l = rate.NewLimiter(rate.Limit(float64(s.o.MaxHourly)/3600), s.o.MaxHourly)
		s.guests.of[domain] = l
	}
	s.guests.mu.Unlock()
	if !l.AllowN(s.o.Now(), min(s.o.MaxHourly, 1+(size-1)/guestBytes)) {
		return fail.Errorf(op, fail.Exhausted, domain, "the domain %s has made %d offers within the hour, as many as it may; a long one counts as several, one for each %d bytes: offer again in some minutes", domain, s.o.MaxHourly, guestBytes)
	}
	return nil
}

// Unfinished is engine.Options.Unfinished: reservations of a manager are to be released.
func Unfinished(r *engine.Record) bool {
	n, err := noteOf(r)
	return err == nil && n.kept()
}
