package engine

import (
	"container/heap"
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// retry is how long Run waits before it asks again a store that did not answer.
const retry = time.Second

// idle is how long tend waits when nothing is to come.
const idle = time.Hour

// Run follows what other replicas write, lets expire what is due and removes what was kept long
// enough, until ctx ends.
func (e *Engine) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { e.follow(ctx) })
	wg.Go(func() { e.tend(ctx) })
	wg.Wait()
	return fail.E("engine.Run", fail.Unavailable, "", context.Cause(ctx))
}

// follow takes in what the watch tells, and tells it on.
func (e *Engine) follow(ctx context.Context) {
	e.mu.Lock()
	told := e.reached
	e.mu.Unlock()
	const soon = 20 * time.Millisecond
	wait := soon
	for {
		err := e.st.WatchRecords(ctx, Prefix, told, func(records []store.Record, revision int64) {
			wait = soon
			e.tell(e.receive(records, revision))
			told = max(told, revision)
		})
		if fail.Is(err, fail.Conflict) {
			var changed []Record
			if changed, err = e.missed(ctx, &told); err == nil {
				e.tell(changed)
			}
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			e.opts.Log.Warn("the agreements cannot be followed at present", "cause", err)
			pause(ctx, wait)
			wait = min(2*wait, retry)
		}
	}
}

// missed reads everything, and gives the agreements that changed since told.
func (e *Engine) missed(ctx context.Context, told *int64) ([]Record, error) {
	all, err := e.load(ctx)
	if err != nil {
		return nil, err
	}
	e.merge(all)
	var changed []Record
	for _, r := range all.states {
		if r.Revision > *told {
			changed = append(changed, *r.clone())
		}
	}
	*told = max(*told, all.revision)
	return changed, nil
}

func (e *Engine) tell(records []Record) {
	if len(records) == 0 {
		return
	}
	e.mu.Lock()
	tell := make([]func([]Record), 0, len(e.watchers))
	for n := 1; n <= e.watches; n++ {
		if w := e.watchers[n]; w != nil {
			tell = append(tell, w)
		}
	}
	e.mu.Unlock()
	for _, t := range tell {
		t(records)
	}
}

// receive takes in what one call of the watch tells, whole, and gives the agreements of it.
func (e *Engine) receive(records []store.Record, revision int64) []Record {
	var told []Record
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range records {
		id, ok := cut(r.Key, statePrefix)
		if !ok {
			e.note(r)
			continue
		}
		if r.Value == nil {
			if r.Revision > e.reached {
				e.applyState(id, nil, r.Revision)
			}
			continue
		}
		rec := e.live[id]
		if rec == nil || rec.Revision != r.Revision { // else it is our own
			var err error
			if rec, err = decode(r.Value, r.Revision); err != nil {
				e.opts.Log.Warn("the record of an agreement is damaged", "key", r.Key, "cause", err)
				continue
			}
			if r.Revision > e.reached {
				e.applyState(id, rec, r.Revision)
			}
		}
		if len(e.watchers) > 0 {
			told = append(told, *rec.clone())
		}
	}
	e.reached = max(e.reached, revision)
	close(e.news)
	e.news = make(chan struct{})
	return told
}

// note takes in a record that is no agreement's. e.mu is held.
func (e *Engine) note(r store.Record) {
	if id, ok := cut(r.Key, poolPrefix); ok {
		if r.Value == nil {
			e.applyPool(id, nil, r.Revision)
			return
		}
		var f fence
		if err := json.Unmarshal(r.Value, &f); err != nil {
			e.opts.Log.Warn("the record of a pool is damaged, and nothing can be had of it", "key", r.Key, "cause", err)
			f = fence{}
		}
		f.Pool.ID = id
		e.applyPool(id, &f, r.Revision)
	} else if vo, ok := cut(r.Key, accountPrefix); ok {
		a, err := decodeAccount(r.Value)
		if err != nil {
			e.opts.Log.Warn("the account of a VO is damaged, and it can't spend anything", "key", r.Key, "cause", err)
			a = &Account{VO: vo, Limit: new(int64)}
		}
		e.applyAccount(vo, a, r.Revision)
	} else if name, ok := cut(r.Key, replicaPrefix); ok {
		if r.Revision < e.replicas[name] {
			return
		}
		if r.Value == nil {
			delete(e.replicas, name)
		} else {
			e.replicas[name] = r.Revision
		}
		e.wake() // others may be responsible now
	}
}

// loaded is everything as it was read: what is not an agreement first, at the revision, and
// agreements then or later, so that a fence is never known without what was written with it.
type loaded struct {
	others   []store.Record
	states   []*Record
	revision int64
}

// load reads everything.
func (e *Engine) load(ctx context.Context) (*loaded, error) {
	all := &loaded{}
	for i, prefix := range []string{poolPrefix, accountPrefix, replicaPrefix} {
		records, revision, err := e.st.ListRecords(ctx, prefix, store.RecordOptions{})
		if err != nil {
			return nil, err
		}
		if i == 0 {
			all.revision = revision
		}
		all.others = append(all.others, records...)
	}
	err := e.scan(ctx, func(r store.Record) {
		rec, err := decode(r.Value, r.Revision)
		if err != nil {
			e.opts.Log.Warn("the record of an agreement is damaged", "key", r.Key, "cause", err)
			return
		}
		all.states = append(all.states, rec)
	})
	return all, err
}

// pageRecords is how many agreements are read at once.
const pageRecords = 256

// scan gives all agreements that are kept, in the order of their ids.
func (e *Engine) scan(ctx context.Context, emit func(store.Record)) error {
	after := ""
	for {
		records, _, err := e.st.ListRecords(ctx, statePrefix, store.RecordOptions{After: after, Limit: pageRecords})
		if err != nil {
			return err
		}
		for _, r := range records {
			emit(r)
		}
		if len(records) < pageRecords {
			return nil
		}
		after = records[len(records)-1].Key
	}
}

// merge takes in what was read.
func (e *Engine) merge(all *loaded) {
	e.mu.Lock()
	defer e.mu.Unlock()
	there := make(map[string]bool, len(all.states))
	for _, r := range all.states {
		there[r.ID] = true
		// What the watch told already and is not in memory has ended.
		if r.Revision > e.reached || e.live[r.ID] != nil {
			e.applyState(r.ID, r, r.Revision)
		}
	}
	for id, r := range e.live {
		if !there[id] && r.Revision <= all.revision {
			e.applyState(id, nil, all.revision+1)
		}
	}
	replicas := map[string]bool{}
	for _, r := range all.others {
		if name, ok := cut(r.Key, replicaPrefix); ok {
			replicas[name] = true
		}
		e.note(r)
	}
	for name, at := range e.replicas {
		if !replicas[name] && at <= all.revision {
			delete(e.replicas, name)
		}
	}
	pools := map[string]bool{}
	for _, r := range all.others {
		if id, ok := cut(r.Key, poolPrefix); ok {
			pools[id] = true
		}
	}
	for id, p := range e.pools {
		if !pools[id] && p.revision != 0 && p.revision <= all.revision {
			e.applyPool(id, nil, all.revision+1)
		}
	}
	e.reached = max(e.reached, all.revision)
	close(e.news)
	e.news = make(chan struct{})
}

// reload reads everything and takes it in.
func (e *Engine) reload(ctx context.Context) error {
	all, err := e.load(ctx)
	if err == nil {
		e.merge(all)
	}
	return err
}

// dueAt is when something is to be done for an agreement; due is a heap of them. What is not
// due any more when its time comes is left out then.
type dueAt struct {
	at time.Time
	id string
}

type due []dueAt

func (d due) Len() int           { return len(d) }
func (d due) Less(i, k int) bool { return d[i].at.Before(d[k].at) }
func (d due) Swap(i, k int)      { d[i], d[k] = d[k], d[i] }
func (d *due) Push(x any)        { *d = append(*d, x.(dueAt)) }
func (d *due) Pop() any {
	old := *d
	last := old[len(old)-1]
	*d = old[:len(old)-1]
	return last
}

// tend does what is due until ctx ends.
func (e *Engine) tend(ctx context.Context) {
	prune := e.now()
	for ctx.Err() == nil {
		wait := e.tick(ctx)
		if left := prune.Sub(e.now()); left > 0 {
			wait = min(wait, left)
		} else {
			every := max(time.Minute, min(time.Hour, e.opts.Retention/24))
			more, err := e.prune(ctx)
			if err != nil && ctx.Err() == nil {
				e.opts.Log.Warn("agreements that were kept long enough could not be removed", "cause", err)
			}
			if err != nil || more {
				every = retry
			}
			prune = e.now().Add(every)
			wait = min(wait, every)
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-e.woken:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// maxDue is how many agreements expire in one go.
const maxDue = 200

// tick does what is due now, and gives how long nothing will be.
func (e *Engine) tick(ctx context.Context) time.Duration {
	wait, err := e.tendPools(ctx)
	if err != nil && ctx.Err() == nil {
		e.opts.Log.Warn("what a pool has is not written yet", "cause", err)
		wait = retry
	}
	ids, left := e.overdue()
	wait = min(wait, left)
	if len(ids) == 0 {
		return wait
	}
	const op = "engine.expire"
	all := make([]*work, len(ids))
	for i, id := range ids {
		all[i] = &work{op: op, decide: func(b *batch) error { return b.expire(op, id) }}
	}
	for i, err := range e.doAll(ctx, all) {
		if err == nil || ctx.Err() != nil || fail.Is(err, fail.NotFound) {
			continue
		}
		e.opts.Log.Warn("an agreement could not be expired yet", "agreement", ids[i], "cause", err)
		e.mu.Lock()
		heap.Push(&e.times, dueAt{e.now().Add(retry), ids[i]})
		e.mu.Unlock()
	}
	return 0
}

// overdue takes the agreements whose time has come, and gives how long it will not for others.
func (e *Engine) overdue() ([]string, time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.now()
	var ids []string
	for len(e.times) > 0 && len(ids) < maxDue {
		first := e.times[0]
		if left := first.at.Sub(now); left > 0 {
			return ids, left
		}
		heap.Pop(&e.times)
		r := e.live[first.id]
		if r == nil {
			continue
		}
		at := r.due()
		switch {
		case at.IsZero():
		case at.After(now):
			heap.Push(&e.times, dueAt{at, first.id})
		case !e.responsible(first.id) && now.Before(at.Add(e.opts.Grace)):
			heap.Push(&e.times, dueAt{at.Add(e.opts.Grace), first.id})
		default:
			ids = append(ids, first.id)
		}
	}
	return ids, idle
}

// maxOld is how many agreements are removed in one go.
const maxOld = 1000

// prune removes agreements that were kept long enough; more says that there may be others.
func (e *Engine) prune(ctx context.Context) (more bool, err error) {
	const op = "engine.prune"
	now := e.now()
	var old []*Record
	err = e.scan(ctx, func(v store.Record) {
		r, err := decode(v.Value, v.Revision)
		if err != nil || !r.Final() {
			return
		}
		until := r.kept(&e.opts)
		if !e.Responsible(r.ID) {
			until = until.Add(e.opts.Retention/24 + 2*time.Hour)
		}
		if !now.Before(until) && len(old) < maxOld {
			old = append(old, r)
		}
	})
	if err != nil || len(old) == 0 {
		return false, err
	}
	all := make([]*work, len(old))
	for i, r := range old {
		all[i] = &work{op: op, decide: func(b *batch) error {
			d := b.drafts[r.ID]
			if d == nil {
				d = &draft{rec: r, base: r.Revision}
				if f, ok := b.found[r.ID]; ok { // it was changed since
					if f == nil {
						return nil
					}
					d.rec, d.base = f, f.Revision
				}
				b.touch(r.ID, d)
			}
			if d.rec == nil {
				return nil
			}
			gone := []string{ownerKey(r.Owner, r.ID)}
			if r.Apart {
				gone = append(gone, documentKey(r.ID))
			}
			if err := b.set(d, nil); err != nil {
				return err
			}
			d.gone = gone
			return nil
		}}
	}
	var failed error
	for _, err := range e.doAll(ctx, all) {
		if err != nil {
			failed = err
		}
	}
	return len(old) == maxOld, failed
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
