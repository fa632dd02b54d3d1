package broker

import (
	"container/heap"
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/store"
)

// A peer that could not take a job now, or gave it back, is not given the same job again at
// once: that would send it to and fro. The job waits on meanwhile, and other sites may have it
// sooner. What stands against it is the job's own affair: others go to the peer as before.

// gaveBack is how many steps of Retry a peer that had a job and gave it back is further away
// than one that only said that it can't take it now: it is likely to say the same for a while.
const gaveBack = 4

// aside notes that a job is not to get the site again for a while, longer each time; nil where
// the site is no peer. A step of Retry is the shortest.
func (s *site) aside(st *store.Status, steps int, now time.Time) *store.Aside {
	if s.domain() == "" || st.Cancel {
		return nil
	}
	a := &store.Aside{Site: s.name, Times: 1}
	if i := slices.IndexFunc(st.Aside, func(x store.Aside) bool { return x.Site == s.name }); i >= 0 && now.Sub(st.Aside[i].Until) < s.b.cfg.Retry.Most {
		a.Times = min(st.Aside[i].Times+1, 30)
	}
	// Whole seconds, rounded up: it is told to people.
	a.Until = now.Add(s.b.cfg.Retry.backoff(steps+a.Times, s.b.cfg.Jitter())).Add(time.Second - 1).UTC().Truncate(time.Second)
	return a
}

// setAside has the job wait for other sites alone for a while, where it would have waited for
// all.
func (s *site) setAside(f *fact, st *store.Status, steps int) {
	if f.aside = s.aside(st, steps, time.Now()); f.aside != nil {
		f.notBefore = time.Time{}
		f.reason += ", but not at the site " + s.name + " before " + f.aside.Until.Format(time.RFC3339)
	}
}

// withAside gives what is set aside with one more, in place of the one of the same site.
func withAside(all []store.Aside, a *store.Aside) []store.Aside {
	out := slices.DeleteFunc(slices.Clone(all), func(x store.Aside) bool { return x.Site == a.Site })
	return append(out, *a)
}

// laterSites gives the sites that a job is not to get yet, with what to tell of each, and has it
// looked at again when that changes; the caller holds the lock.
func (b *Broker) laterSites(j *job, now time.Time) map[string]string {
	var out map[string]string
	var next time.Time
	for _, a := range j.rec.Status.Aside {
		if !a.Until.After(now) {
			continue
		}
		if out == nil {
			out = map[string]string{}
		}
		out[a.Site] = "it could not take the job or gave it back, and is asked again at " + a.Until.Format(time.RFC3339)
		if next.IsZero() || a.Until.Before(next) {
			next = a.Until
		}
	}
	if !next.IsZero() && !j.aside {
		j.aside = true
		heap.Push(&b.asides, due{next, j.rec.ID})
	}
	return out
}

// passAsides lets jobs have sites again that they were not to have for a while, and gives how
// long it is until the next one may; 0 when there is none. The caller holds the lock.
func (b *Broker) passAsides(now time.Time) time.Duration {
	for len(b.asides) > 0 {
		d := b.asides[0]
		if wait := d.at.Sub(now); wait > 0 {
			return wait
		}
		heap.Pop(&b.asides)
		j := b.jobs[d.id]
		if j == nil || !j.aside {
			continue
		}
		if j.aside = false; j.queued == waiting {
			b.enqueue(j)
		}
	}
	return 0
}
