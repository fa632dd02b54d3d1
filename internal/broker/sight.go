package broker

import (
	"cmp"
	"time"

	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/fail"
)

// SiteSight is what Outlook needs to know of a site of ours, for another process that keeps the same
// promises.
type SiteSight struct {
	// Problem says why nobody can tell when a job could start there; "" where one can.
	Problem string `json:"problem,omitempty"`
	// Usual is the share that is meant where none is named.
	Usual  string                    `json:"usual,omitempty"`
	Shares map[string]schedule.Sight `json:"shares,omitempty"`
}

// unclear is that of a site nothing can be told.
func unclear(site, why string) schedule.Outlook {
	return schedule.Outlook{Sentence: "nobody can tell when it could start at the site " + site + ": " + why}
}

func noShare(op, site, share string) error {
	return fail.Errorf(op, fail.NotFound, share, "the site %s has no share %s, as far as is known", site, share)
}

// Outlook is Broker.Outlook by what another process saw, with what is promised of the share (schedule.HoldsOn).
func (s *SiteSight) Outlook(site, share string, cpus int, length time.Duration, vo string, holds []*schedule.Hold, now time.Time) (schedule.Outlook, error) {
	if s.Problem != "" {
		return unclear(site, s.Problem), nil
	}
	x, ok := s.Shares[cmp.Or(share, s.Usual)]
	if !ok {
		return schedule.Outlook{}, noShare("broker.Outlook", site, cmp.Or(share, s.Usual))
	}
	look := x.Look(holds, now)
	return look.Outlook(cpus, length, vo), nil
}

// Sights gives those of our sites by name, each share with about so many entries of jobs at most. It is
// fail.Unavailable until the broker knows its jobs.
func (b *Broker) Sights(most int) (map[string]SiteSight, error) {
	now := time.Now()
	b.mu.Lock()
	if !b.serving {
		b.mu.Unlock()
		return nil, errStarting
	}
	b.feedAll(now)
	b.mu.Unlock()
	out := map[string]SiteSight{}
	for _, s := range b.roster.Load().sites {
		out[s.name] = b.sight(s, most, now)
	}
	return out, nil
}

func (b *Broker) sight(s *site, most int, now time.Time) SiteSight {
	b.mu.Lock()
	problem, static := cmp.Or(s.outageLocked(), s.barredLocked()), s.static
	b.mu.Unlock()
	if problem != "" || static == nil {
		return SiteSight{Problem: problem}
	}
	out := SiteSight{Shares: map[string]schedule.Sight{}}
	for i := range static.Shares {
		h := &static.Shares[i]
		if out.Usual == "" || h.Default {
			out.Usual = h.ID
		}
		b.mu.Lock() // for each of them: others are not to wait for all
		look, ok := b.sched.Look(s.key(), h.ID, time.Time{}, now)
		b.mu.Unlock()
		if ok {
			x := look.Sight()
			out.Shares[h.ID] = x.Coarser(most)
		}
	}
	return out
}
