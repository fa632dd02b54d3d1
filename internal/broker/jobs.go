package broker

import (
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// The functions of this file keep what is derived from the jobs: queue, counts,
// waiters. Their caller holds b.mu.

// adopt takes in what the store says of a job, if that is news.
func (b *Broker) adopt(rec store.Job) *job {
	rec = ofOwner(rec)
	j := b.jobs[rec.ID]
	switch {
	case j == nil && rec.Status.Final:
		return nil
	case j == nil:
		j = &job{rec: rec, told: rec.Status.Told}
		b.jobs[rec.ID] = j
		if j.replica() {
			b.join(j)
		} else {
			b.live++
			b.owners[rec.Owner]++
		}
	case rec.Revision <= j.rec.Revision:
		return j
	default:
		b.dequeue(j)
		j.rec = rec
	}
	b.settle(j)
	return j
}

// settle brings everything derived into line with the job's status, and wakes
// who waits for it.
func (b *Broker) settle(j *job) {
	b.dequeue(j)
	st := &j.rec.Status
	phase := Phase(st.Phase)
	b.relate(j)
	at := j.reserved
	if at == nil && st.Placement != nil && phase.atSite() {
		at = b.place(st.Placement.Site)
	}
	b.count(j, at, phase)
	b.leaveLimit(j)
	if st.Foreign != nil {
		b.settleForeign(j)
	}
	if st.Promise != nil {
		b.settlePromised(j)
	}
	switch {
	case st.Final:
		b.forget(j)
	case phase.waits() && j.reserved == nil && !j.deciding:
		b.enqueue(j)
	case phase.atSite() && phase != Placing:
		b.dropKind(j) // the site has it
	}
	j.wake()
}

// forget drops a job from memory.
func (b *Broker) forget(j *job) {
	if b.jobs[j.rec.ID] != j {
		return
	}
	b.dequeue(j)
	b.dropKind(j)
	b.count(j, nil, "")
	b.unlimit(j)
	if sh := b.shared.Load(); j.counted && sh != nil {
		sh.limits.Release(useOf(&j.rec))
	}
	delete(b.jobs, j.rec.ID)
	delete(b.promised, j.rec.ID)
	b.unrelate(j)
	if j.replica() {
		b.part(j)
		return
	}
	b.live--
	b.release(j.rec.Owner)
}

func (b *Broker) release(owner string) {
	if b.owners[owner]--; b.owners[owner] <= 0 {
		delete(b.owners, owner)
	}
}

// count moves the job to the count of a site, and tells the scheduler.
func (b *Broker) count(j *job, at *site, phase Phase) {
	if j.at == at && j.atPhase == phase {
		return
	}
	if j.at != at {
		b.leave(j)
	}
	if old := j.at; old != nil {
		old.inFlight--
		if old.phases[j.atPhase]--; old.phases[j.atPhase] == 0 {
			delete(old.phases, j.atPhase)
		}
		if old != at {
			nudge(b.wakeDispatch)
			if old.draining && old.inFlight == 0 {
				nudge(b.wakeReap)
			}
		}
		if !old.configured && old.inFlight == 0 {
			delete(b.sites, old.name)
			nudge(b.wakeFeed)
		}
	}
	j.at, j.atPhase = at, phase
	if at != nil {
		at.inFlight++
		at.phases[phase]++
		b.occupy(j, at, phase)
	}
}

// siteOf gives the site that has the job, nil when none does; the caller holds
// the lock.
func (b *Broker) siteOf(st *store.Status) *site {
	if st.Placement == nil {
		return nil
	}
	return b.sites[st.Placement.Site]
}

// reserve counts a job that is about to be created, or says why there may be no more.
func (b *Broker) reserve(op, owner, id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch l := b.cfg.Limits; {
	case !b.serving:
		return errStarting
	case b.live >= l.Live:
		return fail.Errorf(op, fail.NotAccepting, "", "the gateway holds %d unfinished activities, as many as it may; try again when some have ended", b.live)
	case b.owners[owner] >= l.LivePerOwner:
		return fail.Errorf(op, fail.NotAccepting, owner, "you have %d unfinished activities, as many as one may have here; wait for some to end or terminate some", b.owners[owner])
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
