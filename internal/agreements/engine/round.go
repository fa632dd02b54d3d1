package engine

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/agreements/calendar"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// work is one thing to be decided and written. It may be decided several times, each time anew;
// what it gives is that of the last time.
type work struct {
	op     string
	stamp  string
	decide func(*batch) error
	done   chan error
}

// errNeed is the error of a decision that must know an agreement that is not in memory.
type errNeed struct{ id string }

func (e *errNeed) Error() string { return "the agreement " + e.id + " must be read first" }

// draft is an agreement as a transaction makes it.
type draft struct {
	rec      *Record // nil: there is none
	base     int64   // the revision that it is to have
	dirty    bool
	document []byte // of a new one, when it is apart
	value    []byte
	gone     []string // keys that go with one that is removed
}

// account drafts and pool drafts are the same of what they are named for.
type accountDraft struct {
	account
	dirty bool
}

type poolDraft struct {
	fence fence
	base  int64
	dirty bool
	gone  bool // the record is to go
}

// batch is a transaction under decision. e.mu is held while it is decided.
type batch struct {
	e        *Engine
	now      time.Time
	stamp    string // of the work that is decided
	fence    string // by which the fences are written
	found    map[string]*Record
	drafts   map[string]*draft
	order    []string
	accounts map[string]*accountDraft
	pools    map[string]*poolDraft
	held     map[string][]signed
	undo     []func()
	untouch  []func() // forgets what the work was the first to look at
}

// signed is a hold that the calendar counts before it is written, or counts no more.
type signed struct {
	calendar.Hold
	sign int
}

// do has work decided and written, together with what others ask at the same time.
func (e *Engine) do(ctx context.Context, op string, decide func(*batch) error) error {
	return e.doAll(ctx, []*work{{op: op, decide: decide}})[0]
}

func (e *Engine) doAll(ctx context.Context, all []*work) []error {
	for _, w := range all {
		w.stamp, w.done = e.stamp(), make(chan error, 1)
	}
	e.queueMu.Lock()
	e.queue = append(e.queue, all...)
	e.queueMu.Unlock()
	errs := make([]error, len(all))
	for i, w := range all {
		errs[i] = e.await(ctx, w)
	}
	return errs
}

func (e *Engine) await(ctx context.Context, w *work) error {
	if ctx.Err() == nil { // else nothing is begun, though the token may be there
		select {
		case err := <-w.done: // done by another
			return err
		case e.busy <- struct{}{}:
			e.round(ctx)
			<-e.busy
			return <-w.done
		case <-ctx.Done():
		}
	}
	e.queueMu.Lock()
	i := slices.Index(e.queue, w)
	if i >= 0 {
		e.queue = slices.Delete(e.queue, i, i+1)
	}
	e.queueMu.Unlock()
	if i < 0 { // it is being written
		return <-w.done
	}
	return fail.E(w.op, fail.Unavailable, "", context.Cause(ctx))
}

// writeTime bounds the writing of one round.
const writeTime = 30 * time.Second

// round does all that is asked. The token is held.
func (e *Engine) round(ctx context.Context) {
	e.queueMu.Lock()
	all := e.queue
	e.queue = nil
	e.queueMu.Unlock()
	if len(all) == 0 {
		return
	}
	// What others asked does not end with our caller.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTime)
	defer cancel()
	for len(all) > 0 {
		errs := e.transact(ctx, all)
		for i, err := range errs {
			all[i].done <- err
		}
		all = all[len(errs):]
	}
}

// What one transaction may have: less than the store takes, as the last work of a batch is
// decided before it is known how much it writes.
const (
	maxChanges = store.MaxTransaction
	maxBytes   = store.MaxRecord - 4096
	maxWork    = 256 // for those that are refused, and write nothing
)

// tries bounds how often one transaction is decided.
const tries = 200

// transact decides and writes as much of the work as one transaction takes, and gives the
// outcome of each.
func (e *Engine) transact(ctx context.Context, all []*work) []error {
	found := map[string]*Record{}
	uncertain := false
	fails := func(n int, err error) []error {
		if uncertain && !fail.Is(err, fail.Uncertain) {
			err = fail.Errorf(all[0].op, fail.Uncertain, "", "the store's answer was lost").Because(err)
		}
		return slices.Repeat([]error{err}, n)
	}
	for try := 0; ; try++ {
		b, errs, needs := e.decide(all, found)
		if ctx.Err() != nil || try >= tries {
			e.settle(b, 0)
			return fails(len(errs), fail.Errorf(all[0].op, fail.Unavailable, "", "too many gateways write agreements at once; try again").Because(context.Cause(ctx)))
		}
		if len(needs) > 0 {
			e.settle(b, 0)
			for _, id := range needs {
				if err := unsettled(ctx, e.fetch(ctx, id, found), uncertain, try); err != nil {
					return fails(len(errs), err)
				}
			}
			continue
		}
		changes, err := b.changes()
		if err != nil {
			e.settle(b, 0)
			return fails(len(errs), err)
		}
		if len(changes) == 0 {
			return errs
		}
		revision, err := e.st.PutRecords(ctx, nil, changes...)
		if err == nil {
			e.settle(b, revision)
			return errs
		}
		e.settle(b, 0)
		f, ok := errors.AsType[*fail.Error](err)
		switch {
		case ok && f.Kind == fail.Conflict && f.Subject != "":
			err = e.catchUp(ctx, f.Subject, found)
		case ok && f.Kind == fail.Uncertain:
			uncertain = true
		}
		if err = unsettled(ctx, err, uncertain, try); err != nil {
			return fails(len(errs), err)
		}
	}
}

// unsettled gives nil for an error after which work is to be decided again, and waits a little:
// once an answer was lost, whether it was written shows only when the store answers again.
func unsettled(ctx context.Context, err error, uncertain bool, try int) error {
	if err == nil || !uncertain || !fail.Is(err, fail.Uncertain) && !fail.Is(err, fail.Unavailable) {
		return err
	}
	pause(ctx, min(time.Second, time.Duration(try+1)*10*time.Millisecond))
	return nil
}

// decide decides work, as much as one transaction takes, on what is known here. The calendar
// counts it already, until settle. The ids are those of agreements that must be read first.
func (e *Engine) decide(all []*work, found map[string]*Record) (*batch, []error, []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := &batch{
		e: e, now: e.now(), fence: e.stamp(), found: found,
		drafts: map[string]*draft{}, accounts: map[string]*accountDraft{}, pools: map[string]*poolDraft{}, held: map[string][]signed{},
	}
	var errs []error
	var needs []string
	for _, w := range all[:min(len(all), maxWork)] {
		b.stamp, b.undo, b.untouch = w.stamp, nil, nil
		err := w.decide(b)
		if err == nil {
			err = b.seal()
		}
		if need, ok := errors.AsType[*errNeed](err); ok && !slices.Contains(needs, need.id) {
			needs = append(needs, need.id)
		}
		if err != nil {
			b.rollback()
		}
		if changes, bytes := b.size(); len(errs) > 0 && (changes > maxChanges || bytes > maxBytes) {
			b.rollback()
			for _, forget := range b.untouch {
				forget()
			}
			break // the next transaction decides it anew
		}
		errs = append(errs, err)
	}
	return b, errs, needs
}

// settle takes out of the calendar what was counted before it was written, and, with a
// revision, takes in what was written at that.
func (e *Engine) settle(b *batch, revision int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	// What nobody told yet is what the calendar counts already: it may stay.
	stays := revision > e.reached
	for id, d := range b.drafts {
		if old := e.live[id]; d.dirty && old != nil && old.Revision != d.base {
			stays = false
		}
	}
	for id, holds := range b.held {
		if stays {
			break
		}
		p := e.of(id)
		for _, h := range holds {
			if h.sign > 0 {
				p.profile.Remove(h.Hold)
			} else {
				p.profile.Add(h.Hold)
			}
			p.count -= h.sign
		}
	}
	if revision == 0 {
		return
	}
	for _, id := range b.order {
		d := b.drafts[id]
		if !d.dirty {
			continue
		}
		if d.rec != nil {
			d.rec.Revision = revision
		}
		switch old := e.live[id]; {
		case stays:
			e.install(id, old, d.rec)
		case old != nil || revision > e.reached:
			e.applyState(id, d.rec, revision)
		}
	}
	for id, d := range b.pools {
		if !d.dirty {
			continue
		}
		if d.gone {
			e.applyPool(id, nil, revision)
		} else {
			e.applyPool(id, &d.fence, revision)
		}
	}
	for vo, d := range b.accounts {
		if d.dirty {
			e.applyAccount(vo, &d.Account, revision)
		}
	}
}

// rollback undoes what the work that is decided did.
func (b *batch) rollback() {
	for _, undo := range slices.Backward(b.undo) {
		undo()
	}
	b.undo = nil
}

// size gives how many changes the transaction has, and how many bytes of values at most.
func (b *batch) size() (changes, bytes int) {
	for _, d := range b.drafts {
		changes++
		bytes += len(d.value) + len(d.document)
		if d.dirty && d.base == 0 {
			changes += 2
			bytes += 8
		}
		changes += len(d.gone)
	}
	for _, d := range b.pools {
		changes++
		bytes += 256 + 160*len(d.fence.Pool.Outages)
	}
	for _, d := range b.accounts {
		changes++
		bytes += 256 + 64*len(d.Days)
	}
	return changes, bytes
}

// seal writes out the drafts that the work changed.
func (b *batch) seal() error {
	for _, id := range b.order {
		d := b.drafts[id]
		if d.rec == nil || d.value != nil {
			continue
		}
		value, err := d.rec.encode()
		if err != nil {
			return err
		}
		d.value = value
	}
	return nil
}

// draft gives an agreement as the transaction makes it. Its revision is a condition then.
func (b *batch) draft(id string) (*draft, error) {
	if d := b.drafts[id]; d != nil {
		return d, nil
	}
	d := &draft{}
	if r := b.e.live[id]; r != nil {
		d.rec, d.base = r, r.Revision
	} else if r, ok := b.found[id]; !ok {
		return nil, &errNeed{id}
	} else if r != nil {
		d.rec, d.base = r, r.Revision
	}
	b.touch(id, d)
	return d, nil
}

func (b *batch) touch(id string, d *draft) {
	b.drafts[id] = d
	b.order = append(b.order, id)
	b.untouch = append(b.untouch, func() {
		delete(b.drafts, id)
		b.order = slices.DeleteFunc(b.order, func(o string) bool { return o == id })
	})
}

// fresh gives an agreement that is not expected to be there: the transaction fails where it is.
func (b *batch) fresh(id string) *draft {
	if b.drafts[id] == nil && b.e.live[id] == nil && b.found[id] == nil {
		d := &draft{}
		b.touch(id, d)
		return d
	}
	d, err := b.draft(id)
	if err != nil {
		panic("engine: " + err.Error()) // it is in memory
	}
	return d
}

// existing gives an agreement that must be there.
func (b *batch) existing(op, id string) (*draft, error) {
	if id == "" || len(id) > MaxID {
		return nil, notFound(op, id)
	}
	d, err := b.draft(id)
	if err == nil && d.rec == nil {
		return nil, notFound(op, id)
	}
	return d, err
}

// set changes an agreement, with what is held and committed for it. nil removes it.
func (b *batch) set(d *draft, rec *Record) error {
	var vo string
	var committed, freed, spent int64
	var at, freedAt time.Time // by whose periods they count
	var before, after []calendar.Hold
	if old := d.rec; old != nil {
		vo, before = old.VO, old.holds()
		freed, freedAt = old.price(), old.counts()
		at = freedAt
	}
	if rec != nil {
		vo, after = rec.VO, rec.holds()
		committed, at = rec.price(), rec.counts()
		if rec.Final() && d.rec != nil && !d.rec.Final() {
			spent = rec.Due
		}
		if len(rec.Stamps) == 0 || rec.Stamps[0] != b.stamp {
			rec.Stamps = append([]string{b.stamp}, rec.Stamps[:min(len(rec.Stamps), maxStamps-1)]...)
		}
	}
	if freed != 0 && !at.Equal(freedAt) { // it is moved to another time
		if err := b.charge(vo, freedAt, -freed, 0); err != nil {
			return err
		}
		freed = 0
	}
	if committed -= freed; committed != 0 || spent != 0 {
		if err := b.charge(vo, at, committed, spent); err != nil {
			return err
		}
	}
	if !slices.Equal(before, after) {
		b.count(before, -1)
		b.count(after, 1)
	}
	old := *d
	b.undo = append(b.undo, func() { *d = old })
	d.rec, d.dirty, d.value = rec, true, nil
	return nil
}

// count changes what is held, and writes the fences of the pools.
func (b *batch) count(holds []calendar.Hold, sign int) {
	b.e.count(holds, sign)
	for _, h := range holds {
		b.held[h.Pool] = append(b.held[h.Pool], signed{h, sign})
		b.bump(h.Pool)
	}
	b.undo = append(b.undo, func() {
		b.e.count(holds, -sign)
		for _, h := range slices.Backward(holds) {
			b.held[h.Pool] = b.held[h.Pool][:len(b.held[h.Pool])-1]
		}
	})
}

// pool gives a pool as the transaction makes it. Its fence is a condition then.
func (b *batch) pool(id string) *poolDraft {
	d := b.pools[id]
	if d == nil {
		p := b.e.of(id)
		d = &poolDraft{fence: p.fence, base: p.revision}
		b.pools[id] = d
		b.untouch = append(b.untouch, func() { delete(b.pools, id) })
	}
	return d
}

func (b *batch) bump(id string) {
	d := b.pool(id)
	if d.base == 0 || d.dirty { // of what has no record nothing can be taken
		return
	}
	old := *d
	b.undo = append(b.undo, func() { *d = old })
	d.dirty, d.fence.By = true, b.fence
}

// changes gives the transaction.
func (b *batch) changes() ([]store.RecordChange, error) {
	if err := b.seal(); err != nil { // of what is only looked at
		return nil, err
	}
	var out []store.RecordChange
	for _, id := range b.order {
		d := b.drafts[id]
		out = append(out, store.RecordChange{Key: stateKey(id), Value: d.value, If: d.base})
		if !d.dirty {
			continue
		}
		switch {
		case d.rec == nil:
			out[len(out)-1].Value = nil
			for _, key := range d.gone {
				out = append(out, store.RecordChange{Key: key, If: -1})
			}
		case d.base == 0:
			out = append(out, store.RecordChange{Key: ownerKey(d.rec.Owner, id), Value: []byte("1"), If: -1})
			if d.document != nil {
				out = append(out, store.RecordChange{Key: documentKey(id), Value: d.document, If: -1})
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(b.pools)) {
		d := b.pools[id]
		c := store.RecordChange{Key: poolKey(id), If: d.base}
		if !d.gone && (d.base != 0 || d.dirty) {
			c.Value = d.fence.encode()
		}
		out = append(out, c)
	}
	for _, vo := range slices.Sorted(maps.Keys(b.accounts)) {
		d := b.accounts[vo]
		c := store.RecordChange{Key: accountKey(vo), If: d.revision}
		if d.revision != 0 || d.dirty {
			c.Value = d.encode()
		}
		out = append(out, c)
	}
	return out, nil
}

// fetch reads an agreement that is not in memory.
func (e *Engine) fetch(ctx context.Context, id string, found map[string]*Record) error {
	r, revision, err := e.read(ctx, "engine.fetch", id)
	if err != nil {
		return err
	}
	found[id] = r
	e.mu.Lock()
	defer e.mu.Unlock()
	// What the watch told already and is not in memory has ended.
	if revision > e.reached && (r != nil || e.live[id] != nil) {
		e.applyState(id, r, revision)
	}
	return nil
}

// watchTime is how long a transaction that lost waits for the watch to tell why.
const watchTime = 300 * time.Millisecond

// catchUp learns what another wrote.
func (e *Engine) catchUp(ctx context.Context, key string, found map[string]*Record) error {
	if id, ok := cut(key, statePrefix); ok {
		return e.fetch(ctx, id, found)
	}
	value, revision, err := e.record(ctx, key)
	if err != nil {
		return err
	}
	id, pool := cut(key, poolPrefix)
	vo, account := cut(key, accountPrefix)
	if !pool && !account {
		return nil
	}
	// A fence by itself says nothing of what is held, and an account nothing of what it is for: the watch tells
	// both together.
	limit := time.NewTimer(watchTime)
	defer limit.Stop()
	for {
		e.mu.Lock()
		news := e.news
		at := e.accounts[vo].revision
		if p := e.pools[id]; pool {
			if at = 0; p != nil {
				at = p.revision
			}
		}
		known := value == nil && at == 0 || at >= revision
		e.mu.Unlock()
		if known {
			return nil
		}
		select {
		case <-news:
		case <-limit.C:
			return e.reload(ctx)
		case <-ctx.Done():
			return nil
		}
	}
}
