package schedule

import (
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
)

// Replicates reports whether a policy of replication is in force in some scope.
func (s *Scheduler) Replicates() bool {
	for _, r := range s.books[0].set.copiers {
		if r != nil {
			return true
		}
	}
	return false
}

// Replication gives the parameters with which jobs like the entry get replicas; nil is
// that they get none.
func (s *Scheduler) Replication(e *Entry) *policy.Replicator {
	return narrowest(s.books[0].set.copiers, e)
}

// Idle gives the places that could start a job like the entry at once, and how many such
// jobs its owner and VO may have beside those under way. It changes nothing: who gives
// one of the places says so with Given. Whether jobs wait that could use the places is
// for the caller to know, who asks after a Round.
func (s *Scheduler) Idle(e Entry, now time.Time) (places []policy.Candidate, most int) {
	v := &view{class: classOf(&e), now: now}
	s.sift(v)
	for _, h := range v.cands {
		if h.Free <= 0 { // it would wait there
			continue
		}
		c := *h.Candidate
		c.Free = s.room(v.class, h.site, h.order, h.Free, now)
		places = append(places, c)
	}
	for _, p := range places {
		most += p.Free
	}
	for _, l := range s.limitsOf(e.Owner, e.VO) {
		most = min(most, max(0, l.most-l.used))
	}
	return places, most
}
