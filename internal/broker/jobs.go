package broker

import (
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// The functions of this file keep what is derived from the jobs: queue, counts,
// waiters. Their caller holds b.mu.

// adopt takes in what the store says of a job, if that is news.
func (b *Broker) adopt(rec store.Job) *job {
	j := b.jobs[rec.ID]
	switch {
	case j == nil && rec.Status.Final:
		return nil
	case j == nil:
		j = &job{rec: rec, reserved: -1, at: -1, allowed: b.all()}
		b.jobs[rec.ID] = j
		b.live++
		b.owners[rec.Owner]++
	case rec.Revision <= j.rec.Revision:
		return j
	default:
		b.queue.remove(j)
		j.rec = rec
	}
	b.settle(j)
	return j
}

// settle brings everything derived into line with the job's status, and wakes
// who waits for it.
func (b *Broker) settle(j *job) {
	b.queue.remove(j)
	st := &j.rec.Status
	phase := Phase(st.Phase)
	at := j.reserved
	if at < 0 && st.Placement != nil && phase.atSite() {
		at = b.siteIndex(st.Placement.Site)
	}
	b.count(j, at)
	switch {
	case st.Final:
		b.forget(j)
	case phase.waits() && j.reserved < 0:
		b.queue.add(j, time.Now())
		nudge(b.wakeDispatch)
	case phase.atSite() && phase != Placing:
		b.dropDefinition(j) // the site has it
	}
	j.wake()
}

// forget drops a job from memory.
func (b *Broker) forget(j *job) {
	if b.jobs[j.rec.ID] != j {
		return
	}
	b.queue.remove(j)
	b.dropDefinition(j)
	b.count(j, -1)
	delete(b.jobs, j.rec.ID)
	b.live--
	b.release(j.rec.Owner)
}

func (b *Broker) release(owner string) {
	if b.owners[owner]--; b.owners[owner] <= 0 {
		delete(b.owners, owner)
	}
}

func (b *Broker) dropDefinition(j *job) {
	if j.def != nil {
		j.def = nil
		b.read--
	}
}

// count moves the job to the count of a site.
func (b *Broker) count(j *job, at int) {
	if j.at == at {
		return
	}
	if j.at >= 0 {
		b.sites[j.at].inFlight--
		nudge(b.wakeDispatch)
	}
	if j.at = at; at >= 0 {
		b.sites[at].inFlight++
	}
}

func (b *Broker) siteIndex(name string) int {
	for i, s := range b.sites {
		if s.name == name {
			return i
		}
	}
	return -1
}

// siteOf gives the site that has the job, nil when none does or it is not
// configured any more.
func (b *Broker) siteOf(st *store.Status) *site {
	if st.Placement == nil {
		return nil
	}
	if i := b.siteIndex(st.Placement.Site); i >= 0 {
		return b.sites[i]
	}
	return nil
}

func (b *Broker) all() siteSet {
	if len(b.sites) == maxSites {
		return ^siteSet(0)
	}
	return only(len(b.sites)) - 1
}

// refusedBy gives the sites that a status names as having refused.
func (b *Broker) refusedBy(st *store.Status) siteSet {
	var s siteSet
	for _, name := range st.Refused {
		if i := b.siteIndex(name); i >= 0 {
			s |= only(i)
		}
	}
	return s
}

// reserve counts a job that is about to be created, or says why there may be no more.
func (b *Broker) reserve(owner, id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch l := b.cfg.Limits; {
	case !b.serving:
		return errStarting
	case b.live >= l.Live:
		return fail.Errorf("broker.CreateActivity", fail.NotAccepting, "", "the gateway holds %d unfinished activities, as many as it may; try again when some have ended", b.live)
	case b.owners[owner] >= l.LivePerOwner:
		return fail.Errorf("broker.CreateActivity", fail.NotAccepting, owner, "you have %d unfinished activities, as many as one may have here; wait for some to end or terminate some", b.owners[owner])
	}
	b.live++
	b.owners[owner]++
	b.creating[id] = true
	return nil
}

// unreserve takes reserve back.
func (b *Broker) unreserve(owner, id string) {
	delete(b.creating, id)
	if !b.serving {
		return // a new session counts from nothing
	}
	b.live--
	b.release(owner)
}

// wake tells those who wait for a change of the job.
func (j *job) wake() {
	for c := range j.waiters {
		nudge(c)
	}
}
