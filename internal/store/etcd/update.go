package etcd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// base is what an update must know of the status that it replaces.
type base struct {
	revision int64
	sequence int
	final    bool
	owner    string // digest
}

// Update implements store.Store.
func (s *Store) Update(ctx context.Context, sess store.Session, changes ...store.Change) []store.Changed {
	const op = "store.Update"
	out := make([]store.Changed, len(changes))
	failAll := func(err error) []store.Changed {
		for i := range out {
			out[i].Err = err
		}
		return out
	}
	if err := s.usable(op); err != nil {
		return failAll(err)
	}
	own, ok := sess.(*session)
	if !ok || own.s != s || own.isLost() {
		return failAll(store.LostSession(op, ""))
	}
	if ctx.Err() != nil {
		return failAll(fail.E(op, fail.Unavailable, "", context.Cause(ctx)))
	}
	bases, err := s.basesOf(ctx, changes)
	if err != nil {
		return failAll(err)
	}
	var writes []*write
	var plans []*plan
	var at []int
	seen := make(map[string]bool, len(changes))
	one := func(c store.Change) (*plan, error) {
		b, known := bases[c.ID]
		switch {
		case !known:
			return nil, fail.Errorf(op, fail.NotFound, c.ID, "there is no job %s", c.ID)
		case b.revision != c.Revision, seen[c.ID]:
			return nil, store.MovedOn(op, c.ID)
		}
		return newPlan(c, b, own)
	}
	for i, c := range changes {
		if out[i].Err = c.Check(); out[i].Err != nil {
			continue
		}
		p, err := one(c)
		if err == nil && c.With != nil {
			if p.with, err = one(*c.With); err == nil {
				p.join(p.with)
			}
		}
		if err != nil {
			out[i].Err = err
			continue
		}
		if seen[c.ID] = true; c.With != nil {
			seen[c.With.ID] = true
		}
		writes, plans, at = append(writes, p.write), append(plans, p), append(at, i)
	}
	for k, r := range s.commit(ctx, writes...) {
		out[at[k]] = s.settle(plans[k], r)
	}
	return out
}

// basesOf gives what the changes start from, reading what is not remembered.
func (s *Store) basesOf(ctx context.Context, changes []store.Change) (map[string]base, error) {
	bases := make(map[string]base, len(changes))
	var unknown []string
	look := func(c *store.Change) {
		if b, ok := s.bases.get(c.ID); ok && b.revision >= c.Revision {
			bases[c.ID] = b
		} else {
			unknown = append(unknown, c.ID)
		}
	}
	for i := range changes {
		if look(&changes[i]); changes[i].With != nil {
			look(changes[i].With)
		}
	}
	if len(unknown) == 0 {
		return bases, nil
	}
	jobs, err := s.Get(ctx, unknown...)
	for id, j := range jobs {
		bases[id] = baseOf(&j)
	}
	return bases, err
}

func baseOf(j *store.Job) base {
	return base{j.Revision, j.Status.Sequence, j.Status.Final, digest(j.Owner)}
}

// plan is a change on its way.
type plan struct {
	*write
	before, after base
	status, lines []byte
	with          *plan // that is made in the same write
}

// join puts another plan's write into this one's.
func (p *plan) join(with *plan) {
	p.alone = append(p.alone, with.alone...)
	p.when = append(p.when, with.when...)
	p.then = append(p.then, with.then...)
	p.or = append(p.or, with.or[1:]...) // the session is asked for once
	p.bytes += with.bytes
}

func newPlan(c store.Change, b base, own *session) (*plan, error) {
	const op = "store.Update"
	p := &plan{
		write:  &write{op: op, id: c.ID, guard: own},
		before: b,
		after:  base{sequence: b.sequence + len(c.Events), final: c.Status.Final, owner: b.owner},
	}
	c.Status.Sequence = p.after.sequence
	var err error
	if p.status, err = encodeStatus(b.owner, &c.Status); err != nil {
		return nil, err
	}
	from, to := own.s.keys.statusKey(c.ID, b.final), own.s.keys.statusKey(c.ID, c.Status.Final)
	p.alone = []string{from, to}
	p.when = []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(from), "=", c.Revision)}
	p.or = []string{own.key, from, to}
	p.put(to, p.status)
	if from != to {
		p.then = append(p.then, clientv3.OpDelete(from))
	}
	if n := c.Note; n != nil && (own.s.etcd == nil || own.s.room(op, int64(len(n.Value)), true) == nil) {
		key := own.s.own.key(n.Key)
		p.alone = append(p.alone, key)
		p.put(key, append(own.s.tag(), n.Value...))
	}
	if len(c.Events) == 0 {
		return p, nil
	}
	events := make([]store.Event, len(c.Events))
	for i, e := range c.Events {
		e.Sequence = b.sequence + i + 1
		events[i] = e
	}
	if p.lines, err = json.Marshal(events); err != nil {
		return nil, fail.E(op, fail.Invalid, c.ID, err)
	}
	key := own.s.keys.historyKey(c.ID, b.sequence+1)
	p.or = append(p.or, key)
	p.put(key, p.lines)
	return p, nil
}

// settle says what became of a change.
func (s *Store) settle(p *plan, r outcome) store.Changed {
	both := []*plan{p}
	if p.with != nil {
		both = append(both, p.with)
	}
	done := func(revision int64) store.Changed {
		out := store.Changed{Revision: revision}
		for _, q := range both {
			q.after.revision = revision
			s.bases.put(q.id, q.after)
		}
		if p.with != nil {
			out.With = revision
		}
		return out
	}
	switch {
	case r.err != nil:
		return store.Changed{Err: r.err}
	case r.ok:
		return done(r.revision)
	}
	// It was not done now: because it had been done before, because the session is
	// not ours any more, or because another was faster.
	found := make([][]*mvccpb.KeyValue, len(r.found))
	for i := range r.found {
		found[i] = r.found[i].GetResponseRange().Kvs
	}
	own := found[0]
	if found = found[1:]; r.repeated {
		before := found
		revision, arrived := int64(0), true
		for _, q := range both {
			n := len(q.or) - 1
			if q == p && p.with != nil {
				n -= len(p.with.or) - 1
			}
			was := q.arrived(before[:n])
			arrived = arrived && was > 0 && (revision == 0 || was == revision)
			revision, before = was, before[n:]
		}
		if arrived {
			return done(revision)
		}
	}
	if len(own) == 0 || own[0].ModRevision != p.guard.revision {
		p.guard.lose(fmt.Errorf("the key of the session is gone or is another's"))
		return store.Changed{Err: store.LostSession(p.op, p.id)}
	}
	if len(found[0]) == 0 && len(found[1]) == 0 {
		return store.Changed{Err: fail.Errorf(p.op, fail.NotFound, p.id, "there is no job %s", p.id)}
	}
	return store.Changed{Err: store.MovedOn(p.op, p.id)}
}

// arrived gives the revision at which the plan's own keys were written as it wants
// them; 0 when they were not.
func (p *plan) arrived(found [][]*mvccpb.KeyValue) int64 {
	to := found[1]
	if len(to) != 1 || !bytes.Equal(to[0].Value, p.status) || to[0].ModRevision <= p.before.revision {
		return 0
	}
	if len(found) > 2 {
		lines := found[2]
		if len(lines) != 1 || !bytes.Equal(lines[0].Value, p.lines) || lines[0].ModRevision != to[0].ModRevision {
			return 0
		}
	}
	return to[0].ModRevision
}
