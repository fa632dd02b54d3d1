package broker

import (
	"container/heap"
	"context"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// LeaseExtension is a later end of the lease of a peer's job.
type LeaseExtension struct {
	ID       string
	NotAfter time.Time
}

// ExtendLease moves the ends of leases on; an earlier one than a job has is not heeded. nil
// says that it holds here, or that the job has ended, and that its site will be told, in
// batches; a site that can't be told ends the job sooner. It is written down only as often as
// keeps what is written ahead of the time: who starts anew may know an earlier one, and
// forgets no later one that matters. After an error the later one may hold or not.
// fail.NotFound says that there is no such job.
func (b *Broker) ExtendLease(ctx context.Context, extensions ...LeaseExtension) []error {
	const op = "broker.ExtendLease"
	errs := make([]error, len(extensions))
	now := time.Now()
	var write []string
	var of []int
	until := map[string]time.Time{}
	b.mu.Lock()
	for i, x := range extensions {
		j := b.jobs[x.ID]
		if j == nil || j.rec.Status.Foreign == nil {
			write, of = append(write, x.ID), append(of, i)
			continue
		}
		at := x.NotAfter.UTC().Round(0)
		if !at.After(j.leased) || j.rec.Status.Cancel {
			continue
		}
		j.leased = at
		if s := b.siteOf(&j.rec.Status); s != nil {
			s.toExtend(j)
		}
		if left := j.rec.Status.NotAfter.Sub(now); left < at.Sub(now)/2 {
			write, of = append(write, x.ID), append(of, i)
			until[x.ID] = at
		}
	}
	b.mu.Unlock()
	if len(write) == 0 {
		return errs
	}
	for i, err := range b.wishEach(ctx, op, write, func(id string, st *store.Status) *fact {
		if at := until[id]; at.After(st.NotAfter) {
			return &fact{event: Extended, notAfter: at}
		}
		return nil
	}) {
		errs[of[i]] = err
	}
	return errs
}

// settleForeign keeps what is derived from a job of a peer; the caller holds the lock.
func (b *Broker) settleForeign(j *job) {
	st := &j.rec.Status
	if st.NotAfter.After(j.leased) {
		j.leased = st.NotAfter
	}
	if !st.Final && !j.dated && !j.leased.IsZero() {
		j.dated = true
		heap.Push(&b.leases, due{j.leased, j.rec.ID})
		nudge(b.wakeDispatch) // it may be the next
	}
	if len(b.watches) > 0 {
		s := stateOf(&j.rec, j.told)
		for w := range b.watches {
			w.pending[s.ID] = s
			nudge(w.wake)
		}
	}
}

// lapseRetry is when a job whose lease is over is looked at again.
const lapseRetry = time.Second

// passLeases ends the jobs whose lease is over, and gives how long it is until the next one's
// is; 0 when there is none. The site ends them by itself: it is asked all the same, as what
// it has may be at a further gateway, and as what is said here is then true here. The caller
// holds the lock.
func (b *Broker) passLeases(now time.Time) time.Duration {
	for len(b.leases) > 0 {
		d := b.leases[0]
		if wait := d.at.Sub(now); wait > 0 {
			return wait
		}
		heap.Pop(&b.leases)
		j := b.jobs[d.id]
		if j == nil {
			continue
		}
		if Phase(j.rec.Status.Phase) == Cancelling {
			continue
		}
		if j.leased.After(now) {
			heap.Push(&b.leases, due{j.leased, d.id})
			continue
		}
		b.inbox = append(b.inbox, input{id: d.id, facts: lapses})
		nudge(b.wakeCommit)
		heap.Push(&b.leases, due{now.Add(lapseRetry), d.id}) // it may not be written, or be extended meanwhile
	}
	return 0
}

// lapses gives what becomes of a job whose lease is over, if it still is.
func lapses(j *job, st store.Status) []fact {
	now := time.Now()
	if st.Foreign == nil || st.NotAfter.After(now) || j.leased.After(now) || Phase(st.Phase) == Cancelling {
		return nil
	}
	until := j.leased
	if st.NotAfter.After(until) {
		until = st.NotAfter
	}
	why := leaseReason(st.Foreign, until)
	if Phase(st.Phase).atSite() {
		return []fact{{event: Cancel, reason: why}}
	}
	if _, ok := transitions[Phase(st.Phase)][Expired]; !ok {
		return nil
	}
	return []fact{{event: Expired, reason: why}}
}

// toExtend has the site told of the end of a job's lease; the caller holds the lock.
func (s *site) toExtend(j *job) {
	if j.leased.IsZero() || !s.has(j) {
		return
	}
	s.extend[j.rec.ID] = true
	nudge(s.wakeExtend)
}

// extendSome tells the site of later ends of leases.
func (s *site) extendSome(ctx context.Context, c *conn) (bool, error) {
	b := s.b
	b.mu.Lock()
	var ids []string
	var xs []adapters.Extension
	most := c.batch(len(s.extend), mostAlike)
	for id := range s.extend {
		if len(xs) == most {
			break
		}
		delete(s.extend, id)
		j := b.jobs[id]
		if j == nil || !s.has(j) || j.rec.Status.Placement.Handle == nil || Phase(j.rec.Status.Phase) == Cancelling {
			continue // one without a handle is told once there is one
		}
		ids, xs = append(ids, id), append(xs, adapters.Extension{Handle: j.rec.Status.Placement.Handle, NotAfter: j.leased})
	}
	more := len(s.extend) > 0
	b.mu.Unlock()
	if len(xs) == 0 {
		return more, nil
	}
	cctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	errs := c.leaser.Extend(cctx, xs)
	var trouble error
	b.mu.Lock()
	for i, id := range ids {
		err := error(fail.Errorf("broker.extend", fail.Uncertain, id, "the site gave no answer"))
		if i < len(errs) {
			err = errs[i]
		}
		if class := adapters.ClassOf(err); class == adapters.Transient || class == adapters.Doubtful {
			s.extend[id], trouble = true, err
		}
	}
	b.mu.Unlock()
	if trouble != nil {
		s.look(c)
		b.cfg.Log.Warn("a site was not told of later ends of leases; it is told again, and may end jobs of peers before", "site", s.name, "cause", trouble)
	}
	return more || trouble != nil, trouble
}
