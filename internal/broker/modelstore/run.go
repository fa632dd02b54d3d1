package modelstore

import (
	"context"
	"sync"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/resourcemodel"
)

// retry is how long Run waits before it asks again a store that did not answer.
const retry = time.Second

// Run follows the store until ctx ends: it delivers what any replica writes, writes what
// waited for its interval, gives up the claims of sites that are not heard of, and keeps
// the history within its bounds.
func (m *Model) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { m.follow(ctx, modelPrefix, m.watched, m.reload) })
	wg.Go(func() { m.follow(ctx, historyPrefix, m.watchedLines, m.reloadLines) })
	wg.Go(func() { m.tend(ctx) })
	wg.Wait()
	return fail.E("modelstore.Run", fail.Unavailable, "", context.Cause(ctx))
}

func (m *Model) wake() {
	select {
	case m.woken <- struct{}{}:
	default:
	}
}

func (m *Model) watched(records []store.Record, revision int64) { m.receive(records, revision, false) }

// follow watches a prefix, and reads it anew when the watch can't go on.
func (m *Model) follow(ctx context.Context, prefix string, tell func([]store.Record, int64), reload func(context.Context) error) {
	for {
		m.mu.Lock()
		from := m.reached
		if prefix == historyPrefix {
			from = m.lines.from
		}
		m.mu.Unlock()
		err := m.st.WatchRecords(ctx, prefix, from, tell)
		if fail.Is(err, fail.Conflict) {
			err = reload(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			m.opts.Log.Warn("the resource model cannot be followed at present", "cause", err)
			pause(ctx, retry)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// tend does what is due until ctx ends.
func (m *Model) tend(ctx context.Context) {
	for ctx.Err() == nil {
		wait := m.tick(ctx)
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-m.woken:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// idle is how long tend waits when nothing is to come.
const idle = time.Hour

// tick does what is due now, and gives how long nothing will be.
func (m *Model) tick(ctx context.Context) time.Duration {
	type due struct {
		e       *entry
		sess    store.Session
		pending *resourcemodel.Dynamic
	}
	var flush, silent []due
	wait := idle
	m.mu.Lock()
	now := m.now()
	for _, e := range m.entries {
		if e.ours == nil {
			continue
		}
		if left := e.contact.Add(m.opts.Silence).Sub(now); left > 0 {
			wait = min(wait, left)
		} else {
			silent = append(silent, due{e: e, sess: e.ours})
			continue
		}
		if e.pending == nil {
			continue
		}
		if left := e.wrote.Add(m.opts.Interval).Sub(now); left > 0 {
			wait = min(wait, left)
		} else {
			flush = append(flush, due{e, e.ours, e.pending})
		}
	}
	m.mu.Unlock()
	for _, d := range flush {
		if err := m.flush(ctx, d.sess, d.e); err != nil {
			wait = min(wait, retry)
			m.opts.Log.Warn("a change of the resource model is not written yet", "site", d.e.key.String(), "cause", err)
		}
	}
	for _, d := range silent {
		if err := m.fallSilent(ctx, d.sess, d.e); err != nil {
			wait = min(wait, retry)
		}
	}
	folded, err := m.fold(ctx)
	switch {
	case err != nil:
		wait = min(wait, retry)
		m.opts.Log.Warn("the history of the resource model could not be shortened", "cause", err)
	case folded:
		wait = 0
	}
	return min(wait, m.untilOld())
}

// flush writes what waited for the interval.
func (m *Model) flush(ctx context.Context, sess store.Session, e *entry) error {
	const op = "modelstore.Feed"
	if err := e.hold(ctx, op); err != nil {
		return err
	}
	defer m.release(e)
	m.mu.Lock()
	pending := e.pending
	m.mu.Unlock()
	if pending == nil {
		return nil
	}
	_, err := m.feed(ctx, op, sess, e, nil, pending, true)
	if fail.Is(err, fail.Conflict) { // it is another's now, or the lease is lost
		m.mu.Lock()
		e.pending, e.ours = nil, nil
		m.mu.Unlock()
		return nil
	}
	return err
}

// fallSilent gives up the claim of a site that is not heard of.
func (m *Model) fallSilent(ctx context.Context, sess store.Session, e *entry) error {
	if err := e.hold(ctx, "modelstore.Feed"); err != nil {
		return err
	}
	defer m.release(e)
	m.mu.Lock()
	claim, ours := e.claim, e.ours
	silent := m.now().Sub(e.contact) >= m.opts.Silence
	m.mu.Unlock()
	if !silent || ours != sess {
		return nil
	}
	revision, err := m.st.PutRecords(ctx, sess, store.RecordChange{Key: m.names.partKey(e.key, feederPart), If: claim})
	if err != nil && !fail.Is(err, fail.Conflict) {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e.feeder, e.ours, e.pending, e.claim = "", nil, nil, max(e.claim, revision)
	return nil
}
