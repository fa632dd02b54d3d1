package broker

import "time"

// quarantine keeps jobs away from a site that comes and goes too often: each coming
// back takes jobs in, and each going loses some of them time. It is a pure state
// machine; its owner holds the lock. The zero value is of a site that never went.
//
// A site that went Flaps times within Window is kept out, the first time for First,
// each further time twice as long, at most Most. Once it stayed up for Window after
// that, all is forgotten.
type quarantine struct {
	falls []time.Time // the last ones within Window, the oldest first
	times int         // it was kept out, in a row
	until time.Time
}

// fell notes that the site went.
func (q *quarantine) fell(now time.Time, f Flapping) {
	if q.times > 0 && len(q.falls) == 0 && now.Sub(q.until) > f.Window {
		q.times = 0
	}
	q.falls = append(q.falls, now)
	for len(q.falls) > 0 && now.Sub(q.falls[0]) > f.Window {
		q.falls = q.falls[1:]
	}
	if len(q.falls) < f.Flaps {
		return
	}
	d := f.Most
	if q.times < 30 {
		d = min(f.Most, f.First<<q.times)
	}
	q.times++
	q.until = now.Add(d)
	q.falls = nil
}

// left gives how long the site is still kept out; 0 when it is not.
func (q *quarantine) left(now time.Time) time.Duration { return max(0, q.until.Sub(now)) }
