package peering

import (
	"context"
	"encoding/json"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/peers/handover"
)

// lazyTime is how long a record waits for company that may be written late.
const lazyTime = time.Second

// batch is what one transaction writes.
type batch struct {
	entries []*entry
	changes []store.RecordChange
	bytes   int
	owe     []handover.Charge
	earn    []handover.Charge
	charges int
}

// commitLoop writes records, many in one transaction, and lets go what waits for them.
func (e *Engine) commitLoop(t *term) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		b, wait, err := e.gather(t)
		if err != nil {
			return err
		}
		if b == nil {
			timer.Reset(wait)
			select {
			case <-t.ctx.Done():
				e.writeLast(t)
				return nil
			case <-timer.C:
			case <-e.wakeCommit:
			}
			continue
		}
		if err := e.commit(t, b); err != nil {
			return err
		}
	}
}

// gather takes the next records that are to be written; without any it says when there may be.
func (e *Engine) gather(t *term) (*batch, time.Duration, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	wait := time.Hour
	if len(e.later) > 0 {
		wait = max(0, time.Until(e.since.Add(lazyTime)))
	}
	if len(e.write) == 0 && wait > 0 {
		return nil, wait, nil
	}
	b := &batch{changes: []store.RecordChange{e.fence(t)}}
	for len(e.write) > 0 {
		x := e.write[0]
		if x.dirty == handover.SaveNothing { // it was dropped
			e.write[0] = nil
			e.write = e.write[1:]
			x.queued = false
			continue
		}
		if ok, err := e.add(b, x); err != nil {
			return nil, 0, err
		} else if !ok {
			break
		}
		e.write[0] = nil
		e.write = e.write[1:]
		x.queued = false
	}
	// Those that may be late fill up what is left, unless they are so young that another change
	// may well come.
	for len(e.later) > 0 {
		x := e.later[0]
		if x.dirty == handover.SaveLater && time.Since(x.lazily) < lazyTime/2 && wait > 0 {
			break
		}
		if x.dirty == handover.SaveLater {
			if ok, err := e.add(b, x); err != nil {
				return nil, 0, err
			} else if !ok {
				break
			}
		}
		e.later[0].lazy = false
		e.later[0] = nil
		e.later = e.later[1:]
	}
	if len(e.later) > 0 {
		e.since = e.later[0].lazily
	}
	if len(b.entries) == 0 {
		return nil, lazyTime, nil
	}
	if len(b.owe)+len(b.earn) > 0 {
		changes, err := e.o.Book.Charge(b.owe, b.earn)
		if err != nil {
			// The job's end must not wait for the ledger.
			e.o.Log.Error("the ledger does not take what was done; it is not charged", "cause", err)
		}
		b.changes = append(b.changes, changes...)
	}
	return b, 0, nil
}

// add puts an entry into the transaction, if there is room for it.
func (e *Engine) add(b *batch, x *entry) (bool, error) {
	var changes []store.RecordChange
	path := keyPath(x.key)
	if x.job != nil {
		value, err := x.encode()
		if err != nil {
			return false, err
		}
		changes = append(changes, store.RecordChange{Key: jobPrefix + path, Value: value, If: -1})
	} else {
		changes = append(changes, store.RecordChange{Key: jobPrefix + path, If: -1})
	}
	needed := x.needsFreight()
	switch {
	case x.packed != nil && needed:
		changes = append(changes, store.RecordChange{Key: freightPrefix + path, Value: x.packed, If: -1})
	case x.freighted && !needed:
		changes = append(changes, store.RecordChange{Key: freightPrefix + path, If: -1})
	}
	if x.keep != nil {
		value, err := json.Marshal(x.keep)
		if err != nil {
			return false, fail.E("peering.commit", fail.Internal, x.key.String(), err)
		}
		changes = append(changes, store.RecordChange{Key: keptPrefix + path, Value: value, If: -1})
	}
	bytes := 0
	for i := range changes {
		bytes += len(changes[i].Value)
	}
	charges := b.charges + len(x.charges)
	if len(b.entries) > 0 && (len(b.changes)+len(changes)+MaxCharges*charges > store.MaxTransaction || b.bytes+bytes > store.MaxRecord/2) {
		return false, nil
	}
	b.changes = append(b.changes, changes...)
	b.bytes += bytes
	b.charges = charges
	for _, c := range x.charges {
		if c.owe {
			b.owe = append(b.owe, c.Charge)
		} else {
			b.earn = append(b.earn, c.Charge)
		}
	}
	x.charges = nil
	x.freighted = needed && (x.freighted || x.packed != nil)
	if x.packed = nil; !needed {
		x.freight = nil
	}
	x.stored = x.stored || x.job != nil
	x.keep = nil
	x.departed, x.pending = x.pending, nil
	x.dirty, x.flying = handover.SaveNothing, true
	b.entries = append(b.entries, x)
	return true, nil
}

// needsFreight reports whether what is routed with a job may be needed again.
func (x *entry) needsFreight() bool {
	switch {
	case x.job == nil || !live(x.job):
		return false
	case x.taken():
		return true // the broker may place it at a peer in turn
	}
	return x.job.Phase == handover.Given && !x.job.Gave.Accepted
}

// commit writes a transaction, as often as it takes: written twice it is the same. An error
// says that this replica is the engine no more.
func (e *Engine) commit(t *term, b *batch) error {
	var began time.Time
	for failures := 0; ; {
		began = time.Now()
		_, err := e.o.Store.PutRecords(t.ctx, t.session, b.changes...)
		if err == nil {
			break
		}
		if t.ctx.Err() != nil {
			return nil
		}
		if fail.Is(err, fail.Conflict) || fail.Is(err, fail.Invalid) {
			return err
		}
		failures++
		e.o.Log.Warn("the records of jobs of peers can't be written; it is tried again", "records", len(b.changes), "cause", err)
		if !sleep(t.ctx, backoff(failures)) {
			return nil
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.term != t {
		return nil
	}
	t.confirmed = began
	for _, c := range b.owe {
		delete(e.owing, owed{c.Provider, c.Key, c.Token})
	}
	for _, x := range b.entries {
		do := x.departed
		x.departed, x.flying = nil, false
		if x.job == nil && x.dirty == handover.SaveNothing {
			x.stored = false
		}
		if x.dirty == handover.SaveFirst && !x.queued {
			x.queued = true
			e.write = append(e.write, x)
		}
		e.perform(x, do)
		e.release(x)
	}
	return nil
}

// confirm makes certain that this replica was the engine at a moment no further back than the
// time given: who comes next reads the records after that. Where nothing was written since, it
// asks the store, which writes nothing.
func (e *Engine) confirm(t *term, within time.Duration) bool {
	e.mu.Lock()
	since := time.Since(t.confirmed)
	if wall := time.Now().Round(0).Sub(t.confirmed.Round(0)); wall > since {
		since = wall // the machine slept
	}
	e.mu.Unlock()
	if since <= within {
		return true
	}
	began := time.Now()
	if _, err := e.o.Store.PutRecords(t.ctx, t.session, e.fence(t)); err != nil {
		e.o.Log.Debug("it is not certain that no other replica talks to the peers by now; no recall deadline is moved on", "cause", err)
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	t.confirmed = began
	return true
}

// fence is what goes with each write: nobody else may be the engine. The same value at the same
// revision costs nothing.
func (e *Engine) fence(t *term) store.RecordChange {
	return store.RecordChange{Key: engineKey, Value: []byte(e.o.Replica), If: t.revision, Bound: true}
}

// writeLast writes what is left when the gateway stops. Nothing is done any more; who
// comes next begins there.
func (e *Engine) writeLast(t *term) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), 2*time.Second)
	defer cancel()
	if err := e.saveCounts(ctx, t); err != nil {
		e.o.Log.Debug("how many jobs went to and fro was not written", "cause", err)
	}
	for {
		e.mu.Lock()
		e.since = time.Time{} // nothing waits for company any more
		e.mu.Unlock()
		b, _, err := e.gather(t)
		if err != nil || b == nil {
			return
		}
		if _, err := e.o.Store.PutRecords(ctx, t.session, b.changes...); err != nil {
			e.o.Log.Debug("the last records of jobs of peers were not written", "cause", err)
			return
		}
		e.mu.Lock()
		for _, x := range b.entries {
			x.flying = false
		}
		e.mu.Unlock()
	}
}
