package broker

import (
	"container/heap"
	"maps"
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/broker/schedule"
)

// where is where a job waits.
type where uint8

const (
	nowhere where = iota // it does not wait
	unread               // for its document to be read, or adapters to be asked
	reading              // the dispatcher does that
	waiting              // with the scheduler
)

// enqueue lets a job wait for a place; the caller holds the lock.
func (b *Broker) enqueue(j *job) {
	b.dequeue(j)
	if j.kind == nil || j.kind.epoch != b.epoch {
		if k := b.kinds[keyOf(j)]; k != nil && k.epoch == b.epoch {
			b.holdKind(j, k)
		} else {
			b.unread.put(j)
			j.queued = unread
			nudge(b.wakeDispatch)
			return
		}
	}
	st, k := &j.rec.Status, j.kind
	if k.unfit {
		b.giveUp(j, true, "no site can run it: "+k.why)
		return
	}
	if len(st.Refused) > 0 {
		// That the sites changed since it was taken in is no reason to end it; that the
		// last one which could run it has refused it is.
		if _, could := b.against(k, st.Refused); len(could) == 0 {
			b.giveUp(j, true, "no site that could run it is left; "+st.Reason)
			return
		}
	}
	b.sched.Add(b.entry(j))
	j.queued = waiting
	if st.Promise != nil {
		b.lookAt(j, time.Time{})
	}
	b.fileDeadline(j)
	nudge(b.wakeDispatch)
}

// entry gives a job as the scheduler takes it; its kind is known.
func (b *Broker) entry(j *job) schedule.Entry {
	st, k := &j.rec.Status, j.kind
	later, out := b.laterSites(j, time.Now()), st.Refused
	if len(later) > 0 {
		out = slices.AppendSeq(slices.Clone(out), maps.Keys(later)) // whose order makes no difference
	}
	e := schedule.Entry{
		Job: jobOf(j.rec.ID, j.rec.Owner, j.rec.Submitted, st.Class, k), Attempt: st.Attempt + 1,
		Queue: k.queue(), NotBefore: st.NotBefore, Avoid: k.avoid(out), Later: later, Way: k.way(),
	}
	switch {
	case st.Promise != nil:
		promisedEntry(&e, st.Promise)
	case st.Foreign == nil:
		e.Room = b.ownRoom(e.Owner, e.VO)
	}
	if f := st.Foreign; f != nil && f.Agreement != "" {
		e.Room = schedule.BoughtRoom(f.From, f.Agreement)
	}
	return e
}

// jobOf gives a job as policies see it.
func jobOf(id, owner string, submitted time.Time, class int, k *kind) *policy.Job {
	r := k.request
	return &policy.Job{
		ID: id, Owner: owner, VO: r.Subject.VO, Submitted: submitted, Class: class, Priority: r.Priority,
		Deadline: r.Deadline, Length: r.Need.WallTime, CPUs: max(1, r.Need.CPUs), Request: r,
	}
}

// giveUp ends a job that gets no place: unfit says that no site can ever run it. It is out of
// the queue until that is written. The caller holds the lock.
func (b *Broker) giveUp(j *job, unfit bool, why string) {
	j.deciding = true
	b.inbox = append(b.inbox, input{id: j.rec.ID, facts: whileWaiting(fact{event: GaveUp, unfit: unfit, reason: why})})
	nudge(b.wakeCommit)
}

// dequeue takes a job out of wherever it waits; the caller holds the lock.
func (b *Broker) dequeue(j *job) {
	switch j.queued {
	case unread:
		b.unread.take(j)
	case waiting:
		b.sched.Remove(j.rec.ID)
	case nowhere, reading:
	}
	j.queued = nowhere
}

// waits gives how many jobs wait; the caller holds the lock.
func (b *Broker) waits() int { return b.unread.Len() + b.sched.Len() }

// jobHeap has the jobs that wait to be read: those whose place was lost first, then
// the oldest. They know their place in it.
type jobHeap struct{ jobs []*job }

func (h *jobHeap) put(j *job)  { heap.Push(h, j) }
func (h *jobHeap) take(j *job) { heap.Remove(h, j.place) }
func (h *jobHeap) first() *job { return h.jobs[0] }

func (h *jobHeap) Len() int { return len(h.jobs) }

func (h *jobHeap) Less(i, k int) bool {
	a, b := &h.jobs[i].rec, &h.jobs[k].rec
	if a.Status.Class != b.Status.Class {
		return a.Status.Class > b.Status.Class
	}
	return a.ID < b.ID
}

func (h *jobHeap) Swap(i, k int) {
	h.jobs[i], h.jobs[k] = h.jobs[k], h.jobs[i]
	h.jobs[i].place, h.jobs[k].place = i, k
}

// Push and Pop are heap.Interface's.
func (h *jobHeap) Push(x any) {
	j := x.(*job)
	j.place = len(h.jobs)
	h.jobs = append(h.jobs, j)
}

func (h *jobHeap) Pop() any {
	last := len(h.jobs) - 1
	j := h.jobs[last]
	h.jobs[last] = nil
	h.jobs = h.jobs[:last]
	return j
}
