package broker

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/store"
)

// A replica is a further run of a job that may be run more than once, at a place that
// nobody else wants (policy.Replicas). It is a job of its own in the store, with its own
// id, placement and history, and names the job that it is a replica of. It begins with
// its place, never waits and is never placed again. The functions of this file keep what
// holds between a job and its replicas; what is durable of it is in their records alone,
// so that a start finds it again.
//
//   - The first valid result is the job's. Where a replica gives it, job and replica
//     exchange their placements in one transaction: the job is Finished with what the
//     replica ran, and the replica has what the job had, to see to its end.
//   - A job that ends otherwise while replicas go on is Outlasted; when none is left, it
//     ends as it did.
//   - A replica whose job has ended, or is to end, is ended.

// replicaOwner owns the records of replicas in the store, so that nobody's lists and
// counts have them; no principal has such a name.
const replicaOwner = "\x00replicas"

// ofOwner gives a record with the owner for whom it runs.
func ofOwner(rec store.Job) store.Job {
	if rec.Status.Of != "" {
		rec.Owner = rec.Status.For
	}
	return rec
}

// replica reports whether the job is one.
func (j *job) replica() bool { return j.rec.Status.Of != "" }

// valid reports whether the end of a job gives a result that counts: the program ended
// by itself with exit status 0.
func (f *fact) valid() bool {
	return f.event == Exited && f.signal == "" && f.exitStatus != nil && *f.exitStatus == 0
}

// ends reports whether the fact ends a job.
func (f *fact) ends() bool {
	return slices.Contains([]Event{Exited, Stopped, Vanished, GaveUp, Ended}, f.event)
}

// again says what it means for a job that its place is lost before it ran. A replica gets no
// other, as the step that follows tells.
func again(st *store.Status) string {
	if st.Of != "" {
		return ""
	}
	return "; it is placed again"
}

// anew is the same of a job that may have run, and may be run again.
func anew(st *store.Status) string {
	if st.Of != "" {
		return ""
	}
	return "; it is run again, as Rerunnable allows"
}

// join counts a replica among those of its job; the caller holds the lock.
func (b *Broker) join(j *job) {
	of := j.rec.Status.Of
	b.copies[of] = append(b.copies[of], j)
	j.asked = j.rec.Status.Suspend
}

// part undoes join.
func (b *Broker) part(j *job) {
	of := j.rec.Status.Of
	rest := slices.DeleteFunc(b.copies[of], func(r *job) bool { return r == j })
	if b.copies[of] = rest; len(rest) == 0 {
		delete(b.copies, of)
		if o := b.jobs[of]; o != nil {
			o.ending = false
		}
	}
}

// relate brings what holds between a job and its replicas into line with its status;
// the caller holds the lock.
func (b *Broker) relate(j *job) {
	st := &j.rec.Status
	j.ending = false // what was asked for is done, or to be asked for again
	if Phase(st.Phase) == Outlasted {
		b.outlasted[j.rec.ID] = j
	} else {
		delete(b.outlasted, j.rec.ID)
	}
	if j.replica() || b.copies[j.rec.ID] != nil || Phase(st.Phase) == Outlasted {
		nudge(b.wakeDispatch)
	}
	p := st.Placement
	if p == nil || !Phase(st.Phase).atSite() || strings.HasPrefix(p.Tag, j.rec.ID) || b.moved[p.Tag] == j.rec.ID {
		return
	}
	// It has what another job had: what is known of that is its own now.
	b.count(j, nil, "")
	b.moved[p.Tag] = j.rec.ID
	b.place(p.Site).rename(p.Tag, j.rec.ID)
}

// unrelate forgets what relate keeps of a job that is forgotten.
func (b *Broker) unrelate(j *job) {
	delete(b.outlasted, j.rec.ID)
	if p := j.rec.Status.Placement; p != nil && b.moved[p.Tag] == j.rec.ID {
		delete(b.moved, p.Tag)
	}
	if j.replica() || b.copies[j.rec.ID] != nil {
		nudge(b.wakeDispatch)
	}
}

// rename lets what is to be done about a placement be done for another job.
func (s *site) rename(tag, id string) {
	for i := range s.submit {
		if s.submit[i].tag == tag {
			s.submit[i].id = id
		}
	}
	for old, t := range s.find {
		if t == tag && old != id {
			delete(s.find, old)
			s.find[id] = tag
			return
		}
	}
}

// home gives an input to the job that has the placement which it speaks of.
func (bt *batch) home(b *Broker, in input) input {
	if in.tag == "" {
		return in
	}
	id, ok := bt.moved[in.tag]
	if !ok {
		id, ok = b.moved[in.tag]
	}
	if ok && id != in.id {
		if in.id = id; in.asOf != 0 {
			in.asOf = -1 // it counted the lines of another job
		}
	}
	return in
}

// outlives turns the end of a job without a valid result into its waiting for its
// replicas, where some go on; the caller holds the lock.
func (b *Broker) outlives(bt *batch, p *plan, f fact) fact {
	if p.j.replica() || !f.ends() || f.valid() || p.after.Cancel || Phase(p.after.Phase) == Outlasted {
		return f
	}
	if _, ok := transitions[Phase(p.after.Phase)][Outlived]; !ok {
		return f
	}
	goOn := slices.ContainsFunc(b.copies[p.j.rec.ID], func(r *job) bool {
		st := &r.rec.Status
		if q := bt.byID[r.rec.ID]; q != nil {
			st = &q.after
		}
		return !st.Final && !st.Cancel
	})
	if !goOn {
		return f
	}
	f.verdict = &store.Verdict{Event: string(f.event), Reason: f.reason, Ended: f.ended}
	if f.ended.IsZero() {
		f.verdict.Ended = f.at
	}
	f.event = Outlived
	f.reason += "; its replicas go on"
	return f
}

// win lets a replica's valid result be the job's, in one write of both; false when it
// is not the first, or the job is to end. The caller holds the lock.
func (b *Broker) win(bt *batch, p *plan, f fact, now time.Time) bool {
	if !p.j.replica() || !f.valid() || p.after.Cancel || p.carrier != nil {
		return false
	}
	o := b.jobs[p.j.rec.Status.Of]
	if o == nil {
		return false
	}
	is := &o.rec.Status
	if po := bt.byID[o.rec.ID]; po != nil {
		if is = &po.after; po.with != nil {
			return false
		}
	}
	if _, ok := transitions[Phase(is.Phase)][Won]; !ok || is.Cancel {
		return false
	}
	end, _, _, err := step(p.after, f)
	if err != nil || end.Placement == nil {
		return false
	}
	po := bt.of(o)
	had := po.after
	if po.do&DoSubmit != 0 {
		had.Placement = nil // it was chosen in this very batch, and nothing was handed over
	}
	live := had.Placement != nil && Phase(had.Phase).atSite()
	why := fmt.Sprintf("its replica %s at the site %s gave the first valid result: %s", p.j.rec.ID, end.Placement.Site, f.reason)
	swap := fact{event: Retired, at: now, had: &had, reason: "its result is that of the job " + o.rec.ID + ", which had nothing any more that is to be ended"}
	if live {
		why += "; what the job had at the site " + had.Placement.Site + " is ended"
		swap.event = Swapped
		swap.reason = "its result is that of the job " + o.rec.ID + "; it has what the job had at the site " + had.Placement.Site + ", which is to end"
	}
	if had.Verdict != nil {
		swap.ended = had.Verdict.Ended
	}
	find := po.do & DoFind
	po.do, p.do = 0, 0
	po.j.told, p.j.told = merge(p.j.told, f.told), po.j.told
	p.j.held, p.j.early, po.j.early = po.j.held, po.j.early, nil
	_ = b.take(bt, po, fact{event: Won, at: f.at, ended: end.Ended, winner: &end, reason: why}, now)
	_ = b.take(bt, p, swap, now)
	po.do = 0
	if live {
		p.do |= find
		bt.moved[had.Placement.Tag] = p.j.rec.ID
	}
	po.with, p.carrier = p, po
	return true
}

// tend gives what jobs and their replicas call for: replicas end with their job, are
// suspended and resumed with it, and a job that outlasted all of them ends as it did. The
// caller holds the lock.
func (b *Broker) tend() []input {
	var ins []input
	ask := func(r *job, e Event, why string) {
		ins = append(ins, input{id: r.rec.ID, facts: func(_ *job, st store.Status) []fact {
			if _, ok := transitions[Phase(st.Phase)][e]; !ok || e == Cancel && st.Cancel {
				return nil
			}
			return []fact{{event: e, reason: why}}
		}})
	}
	for id, replicas := range b.copies {
		o := b.jobs[id]
		if o == nil && b.creating[id] {
			continue
		}
		for _, r := range replicas {
			switch st := &r.rec.Status; {
			case st.Cancel, r.ending:
			case o == nil:
				r.ending = true
				ask(r, Cancel, "the job "+id+" has ended, and no replica of it is needed any more")
			case o.rec.Status.Cancel:
				r.ending = true
				ask(r, Cancel, "the end of the job "+id+" was asked for")
			case o.rec.Status.Suspend != r.asked:
				if r.asked = o.rec.Status.Suspend; r.asked {
					ask(r, Suspend, "the job "+id+" was suspended")
				} else {
					ask(r, Resume, "the job "+id+" was resumed")
				}
			}
		}
	}
	for id, o := range b.outlasted {
		if b.copies[id] != nil || o.ending {
			continue
		}
		o.ending = true
		ins = append(ins, input{id: o.rec.ID, facts: func(j *job, st store.Status) []fact {
			v := st.Verdict
			if Phase(st.Phase) != Outlasted || v == nil || b.copies[j.rec.ID] != nil {
				return nil
			}
			return []fact{{
				event: Event(v.Event), exitStatus: st.ExitStatus, signal: st.Signal, started: st.Started, ended: v.Ended,
				reason: v.Reason + "; no replica of it gave a valid result",
			}}
		}})
	}
	return ins
}

// lapsed tells the job of a replica that this ended without being the first with a
// valid result, before the job's own end may be decided for that. The caller holds the
// lock.
func (b *Broker) lapsed(p *plan) {
	if !p.j.replica() || !p.after.Final || p.before.Final || b.jobs[p.j.rec.Status.Of] == nil {
		return
	}
	f := fact{event: Lapsed, reason: "its replica " + p.j.rec.ID + " ended: " + p.after.Reason}
	for _, pl := range []*store.Placement{p.before.Placement, p.after.Placement} {
		if pl != nil {
			f.place.Site = pl.Site
		}
	}
	b.inbox = append(b.inbox, input{id: p.j.rec.Status.Of, facts: func(_ *job, st store.Status) []fact {
		if _, ok := transitions[Phase(st.Phase)][Lapsed]; !ok {
			return nil
		}
		return []fact{f}
	}})
	nudge(b.wakeCommit)
}

// abandon gives up the replicas of a job that is given up, where their sites can't be
// asked either; the others are ended.
func (b *Broker) abandon(id, why string) {
	var ins []input
	b.mu.Lock()
	for _, r := range b.copies[id] {
		ins = append(ins, input{id: r.rec.ID, facts: func(_ *job, st store.Status) []fact { // Broker.mu is held again
			if s := b.siteOf(&st); s == nil || s.troubleLocked() == "" {
				return nil
			}
			if _, ok := transitions[Phase(st.Phase)][Abandon]; !ok {
				return nil
			}
			return []fact{{event: Abandon, reason: why}}
		}})
	}
	b.mu.Unlock()
	b.post(ins...)
}
