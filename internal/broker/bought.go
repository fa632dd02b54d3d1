package broker

import (
	"maps"
	"slices"
	"time"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/store"
)

// Room that a domain buys of another is used from both sides here. Who bought gives its jobs there as
// long as they fit in, by the name of the agreement: Placement.Bought. Who sold places a job that comes by
// such a name where its hold is: Foreign.Agreement. Neither trusts the other's count.

// Bought is room of another domain that is ours.
type Bought struct {
	Domain    string
	Agreement string // by which it was bought, there
	CPUs      int
	VO        string // whose jobs alone may have it; "" is all
	From      time.Time
	Until     time.Time
}

// SetBought tells which room of other domains is ours, in place of what was told before. It is to be
// called whenever a window begins or is over, too: that is not looked for here.
func (b *Broker) SetBought(all []Bought) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.far.bought, b.far.measured = slices.Clone(all), time.Time{}
	nudge(b.wakeDispatch)
}

// boughtOf gives what is ours of a domain now, what is over first being used first. The caller holds
// the lock.
func (b *Broker) boughtOf(domain string, now time.Time) (out []schedule.Bought) {
	for i := range b.far.bought {
		if x := &b.far.bought[i]; x.Domain == domain && !now.Before(x.From) && now.Before(x.Until) {
			out = append(out, schedule.Bought{Agreement: x.Agreement, CPUs: x.CPUs, VO: x.VO, Until: x.Until})
		}
	}
	slices.SortStableFunc(out, func(x, y schedule.Bought) int { return x.Until.Compare(y.Until) })
	return out
}

// roomOf gives the room in which a job that has a place is to run: that of its promise, that which was bought
// of the domain it is at, or that which the domain it came from bought here; "" is none.
func roomOf(st *store.Status) string {
	switch p, f := st.Placement, st.Foreign; {
	case p != nil && p.Bought != "":
		return schedule.BoughtRoom(p.Site, p.Bought)
	case st.Promise != nil:
		return st.Promise.Room
	case f != nil && f.Agreement != "":
		return schedule.BoughtRoom(f.From, f.Agreement)
	}
	return ""
}

// boughtFor gives the agreement by which a job that is handed over is to have room at the domain that the
// site is; "" is none. The caller holds the lock.
func (s *site) boughtFor(j *job) string {
	if p, c := j.rec.Status.Placement, s.conn.Load(); p != nil && p.Site == s.name && c != nil && c.props.Domain != "" {
		return p.Bought
	}
	return ""
}

// agreed reports whether room is held for a domain now, by an agreement of ours.
func (b *Broker) agreed(domain, agreement string, now time.Time) bool {
	if domain == "" || agreement == "" {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(b.sched.HoldsOf(agreement), func(h schedule.Hold) bool {
		return h.ForDomain == domain && !now.Before(h.From) && now.Before(h.Until)
	})
}

// showBought tells by which agreement a job has room at a peer among what is told of an activity.
func showBought(rec *store.Job, d *bes.Details) {
	p := rec.Status.Placement
	if p == nil || p.Bought == "" {
		return
	}
	all := make(map[string]string, len(d.Attributes)+1)
	maps.Copy(all, d.Attributes)
	all["peer.bought"] = "room of " + p.Site + ", by its agreement " + p.Bought
	d.Attributes = all
}
