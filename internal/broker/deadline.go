package broker

import (
	"container/heap"
	"math/big"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// The functions of this file do what a document's Placement asks for at sites whose
// managers can't: the gateway itself keeps a job until NotBefore, orders jobs by
// Priority and Deadline, and takes one out of the queue whose Deadline has passed.

// keptHere gives the definition without what the gateway does in the manager's place; false
// when there is no such thing in it. A Deadline is kept here only where the program can
// be given a time limit instead, as it must have ended by then.
func keptHere(def *jsdl.JobDefinition) (*jsdl.JobDefinition, bool) {
	r := def.Description.Resources
	if r == nil || r.Placement == nil {
		return def, false
	}
	p := *r.Placement
	p.Priority, p.NotBefore = nil, nil
	if limitable(def) {
		p.Deadline = nil
	}
	if p.Priority == r.Placement.Priority && p.NotBefore == r.Placement.NotBefore && p.Deadline == r.Placement.Deadline {
		return def, false
	}
	d, res := *def, *r
	res.Placement = &p
	d.Description.Resources = &res
	return &d, true
}

// limitable reports whether the document's application has a place for a time limit.
func limitable(def *jsdl.JobDefinition) bool {
	a := def.Description.Application
	return a != nil && a.POSIX != nil
}

// checkKept says whether the site could ever run the definition, and whether only if
// the gateway keeps for itself what its manager can't do.
func (s *site) checkKept(def *jsdl.JobDefinition, account string, r *roster) (keeps bool, err error) {
	if err = s.check(def, account, r); err == nil || fail.Is(err, fail.Unavailable) {
		return false, err
	}
	if less, some := keptHere(def); some {
		if s.check(less, account, r) == nil {
			return true, nil
		}
	}
	return false, err
}

// within gives a definition whose program may run until the deadline at most. now must
// be before it.
func within(def *jsdl.JobDefinition, deadline, now time.Time) *jsdl.JobDefinition {
	if deadline.IsZero() || !limitable(def) {
		return def
	}
	left := big.NewInt(max(1, int64(deadline.Sub(now)/time.Second)))
	posix := *def.Description.Application.POSIX
	if was := posix.Limits.WallTime; was != nil && was.Cmp(left) <= 0 {
		return def
	}
	posix.Limits.WallTime = left
	d, app := *def, *def.Description.Application
	app.POSIX = &posix
	d.Description.Application = &app
	return &d
}

// forSite gives the definition of a job of the kind as a site is to have it.
func (k *kind) forSite(name string, r *roster, now time.Time) *jsdl.JobDefinition {
	def := k.def
	if k.keeps[name] {
		def, _ = keptHere(def)
		def = within(def, k.request.Deadline, now)
	}
	return forSite(def, name, r)
}

// due is when a waiting job is too late.
type due struct {
	at time.Time
	id string
}

// dues are ordered by their time. Jobs that do not wait any more are left in until
// then.
type dues []due

func (d dues) Len() int           { return len(d) }
func (d dues) Less(i, k int) bool { return d[i].at.Before(d[k].at) }
func (d dues) Swap(i, k int)      { d[i], d[k] = d[k], d[i] }

// Push and Pop are heap.Interface's.
func (d *dues) Push(x any) { *d = append(*d, x.(due)) }

func (d *dues) Pop() any {
	last := len(*d) - 1
	x := (*d)[last]
	*d = (*d)[:last]
	return x
}

// fileDeadline notes when a job that waits is too late; the caller holds the lock.
func (b *Broker) fileDeadline(j *job) {
	if at := j.kind.request.Deadline; !at.IsZero() && !j.filed {
		j.filed = true
		heap.Push(&b.dues, due{at, j.rec.ID})
	}
}

// passDeadlines gives up the waiting jobs whose deadline has passed, and gives how long
// it is until the next one's; 0 when there is none. The caller holds the lock.
func (b *Broker) passDeadlines(now time.Time) time.Duration {
	for len(b.dues) > 0 {
		d := b.dues[0]
		if wait := d.at.Sub(now); wait > 0 {
			return wait
		}
		heap.Pop(&b.dues)
		j := b.jobs[d.id]
		if j == nil {
			continue
		}
		j.filed = false
		if j.queued == waiting {
			b.dequeue(j)
			b.giveUp(j, false, "its Deadline, "+d.at.UTC().Format(time.RFC3339)+", passed before it had a place")
		}
	}
	return 0
}
