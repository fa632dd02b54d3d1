package purchase

import (
	"context"
	"sync"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// page is how many records are read at once.
const page = 256

const (
	soon = 100 * time.Millisecond
	slow = time.Minute
)

// Run does what is to be done for purchases and orders until ctx ends.
func (b *Buyer) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { b.turns(ctx) })
	wg.Go(func() { b.orderLoop(ctx) })
	wg.Go(func() { b.prune(ctx) })
	for ctx.Err() == nil {
		if err := b.follow(ctx, &wg); err != nil && ctx.Err() == nil {
			b.o.Log.Warn("purchases cannot be followed at present", "cause", err)
			pause(ctx, time.Second)
		}
	}
	wg.Wait()
	return nil
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// follow starts what is there, and what comes.
func (b *Buyer) follow(ctx context.Context, wg *sync.WaitGroup) error {
	revision := int64(-1)
	for after := ""; ; {
		list, at, err := b.st.ListRecords(ctx, Prefix, store.RecordOptions{After: after, Limit: page})
		if err != nil {
			return err
		}
		if revision < 0 {
			revision = at
		}
		b.start(ctx, wg, list)
		if len(list) < page {
			break
		}
		after = list[len(list)-1].Key
	}
	b.mu.Lock()
	for _, e := range b.entries { // what changed while nothing was told
		nudge(e.news)
	}
	b.mu.Unlock()
	b.tell()
	err := b.st.WatchRecords(ctx, Prefix, revision, func(list []store.Record, _ int64) { b.start(ctx, wg, list) })
	if fail.Is(err, fail.Conflict) { // fell behind
		return nil
	}
	return err
}

// start has purchases looked after that are not over.
func (b *Buyer) start(ctx context.Context, wg *sync.WaitGroup, list []store.Record) {
	for _, v := range list {
		if v.Value == nil {
			continue
		}
		r, err := decode(v)
		if err != nil {
			b.o.Log.Warn("the record of a purchase is damaged", "key", v.Key, "cause", err)
			continue
		}
		b.mu.Lock()
		e := b.entries[r.ID]
		if e == nil && !r.State.Final() && ctx.Err() == nil {
			e = &entry{id: r.ID, record: r, news: make(chan struct{}, 1)}
			b.entries[r.ID] = e
			wg.Go(func() { b.supervise(ctx, e) })
		}
		b.mu.Unlock()
		if e != nil {
			b.took(r)
		}
	}
}

// supervise looks after a purchase until it is over.
func (b *Buyer) supervise(ctx context.Context, e *entry) {
	defer func() {
		b.mu.Lock()
		delete(b.entries, e.id)
		b.mu.Unlock()
		b.tell()
	}()
	for wait := soon; ctx.Err() == nil; {
		r, err := b.read(ctx, e.id)
		if err != nil {
			if ctx.Err() == nil {
				b.o.Log.Warn("a purchase can't be read at present", "purchase", e.id, "cause", err)
			}
			pause(ctx, wait)
			wait = min(2*wait, slow)
			continue
		}
		if r == nil {
			return
		}
		b.took(r)
		if r.State.Final() {
			return
		}
		if left := b.due(r).Sub(b.now()); left > 0 {
			t := time.NewTimer(left)
			select {
			case <-t.C:
			case <-e.news:
			case <-ctx.Done():
			}
			t.Stop()
			continue
		}
		n := r.clone()
		if !b.drive(ctx, n) {
			pause(ctx, soon) // nothing is to be written, or not now
			continue
		}
		switch err := b.save(ctx, n); {
		case err == nil:
			wait = soon
			b.took(n)
		case fail.Is(err, fail.Conflict): // another was faster, or the answer of ours was lost
		case ctx.Err() == nil:
			b.o.Log.Warn("a purchase can't be written down now; it is tried again", "purchase", e.id, "cause", err)
			pause(ctx, wait)
			wait = min(2*wait, slow)
		}
	}
}

// due gives when this replica has to look at a purchase.
func (b *Buyer) due(r *Record) time.Time {
	at := r.Next
	if r.Gateway != b.o.Replica {
		return at.Add(b.o.Takeover)
	}
	// Whether its domain is away is looked at more often than anything is written.
	if now := b.now(); r.open(now) && (b.o.Away(r.From) != "") != r.isAway() {
		return now
	} else if look := now.Add(b.o.Look); r.open(now) && look.Before(at) {
		return look
	}
	return at
}

// prune removes what was kept long enough, until ctx ends.
func (b *Buyer) prune(ctx context.Context) {
	every := max(time.Minute, min(time.Hour, b.o.Retention/24))
	for ctx.Err() == nil {
		if err := b.pruneOnce(ctx); err != nil && ctx.Err() == nil {
			b.o.Log.Warn("purchases that were kept long enough could not be removed", "cause", err)
		}
		pause(ctx, every)
	}
}

func (b *Buyer) pruneOnce(ctx context.Context) error {
	for after := ""; ; {
		list, _, err := b.st.ListRecords(ctx, Prefix, store.RecordOptions{After: after, Limit: page})
		if err != nil {
			return err
		}
		for _, v := range list {
			// An order's record says that its window was asked for: it stays until the window, with what it may be later, is over.
			r, err := decode(v)
			if err != nil || !r.State.Final() || b.now().Sub(r.Closed) < b.o.Retention || b.now().Sub(r.last()) < b.o.Retention {
				continue
			}
			if _, err := b.st.PutRecords(ctx, nil, store.RecordChange{Key: v.Key, If: v.Revision}); err != nil && !fail.Is(err, fail.Conflict) {
				return err
			}
		}
		if len(list) < page {
			return nil
		}
		after = list[len(list)-1].Key
	}
}
