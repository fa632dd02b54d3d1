package etcd

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/portolan-project/portolan/internal/fail"
)

// write is one change that is done if all its comparisons hold, and not at all
// otherwise. It may be sent twice: its comparisons hold only once.
type write struct {
	op, id string
	create bool
	alone  []string // what no other write of the same transaction may touch
	guard  *session
	when   []clientv3.Cmp
	then   []clientv3.Op
	or     []string // keys whose reading says why it was not done
	bytes  int

	taken  atomic.Bool // by the committer, or by a caller who gave up before
	result chan outcome
}

// outcome is what became of a write.
type outcome struct {
	ok       bool
	revision int64
	found    []*pb.ResponseOp // the answers to or
	repeated bool             // it was sent before, and that answer was lost
	err      error
}

// flights is how many transactions are on their way at once. A second one would
// halve the batches, and was measured to gain nothing.
const flights = 1

// committer sends what waits, together.
type committer struct {
	ops, bytes int // what one transaction may have

	mu     sync.Mutex
	queue  []*write
	flying int
	wg     sync.WaitGroup
}

func (c *committer) limit(ops, bytes int) { c.ops, c.bytes = ops, bytes }

// commit does each write, alone or together with those of others.
func (s *Store) commit(ctx context.Context, writes ...*write) []outcome {
	c := &s.commits
	for _, w := range writes {
		w.result = make(chan outcome, 1)
	}
	c.mu.Lock()
	c.queue = append(c.queue, writes...)
	if c.flying < flights && s.usable("") == nil {
		c.flying++
		c.wg.Go(s.fly)
	}
	c.mu.Unlock()
	out := make([]outcome, len(writes))
	for i, w := range writes {
		out[i] = s.await(ctx, w)
	}
	return out
}

// await waits until the write is done or given up.
func (s *Store) await(ctx context.Context, w *write) outcome {
	select {
	case r := <-w.result:
		return r
	case <-ctx.Done():
	case <-s.dead:
	}
	if w.taken.CompareAndSwap(false, true) { // nobody will send it
		err := s.usable(w.op)
		if err == nil {
			err = fail.E(w.op, fail.Unavailable, w.id, context.Cause(ctx))
		}
		return outcome{err: err}
	}
	if !s.broken.Load() && ctx.Err() == nil { // closing: what is on its way arrives
		select {
		case r := <-w.result:
			return r
		case <-ctx.Done():
		}
	}
	return outcome{err: fail.Errorf(w.op, fail.Uncertain, w.id, "the store's answer was lost").Because(context.Cause(ctx))}
}

// fly sends batches until nothing waits.
func (s *Store) fly() {
	c := &s.commits
	for {
		c.mu.Lock()
		batch := c.take()
		if len(batch) == 0 {
			c.flying--
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		s.send(s.admit(batch))
	}
}

// take gives the next batch, in the order of the queue; what can't be in it waits
// for the next.
func (c *committer) take() []*write {
	var batch, rest []*write
	var compares, ops, bytes, largest int
	touched := map[string]bool{}
	for i, w := range c.queue {
		compares += len(w.when) + 1
		ops += len(w.then)
		bytes += w.bytes
		largest = max(largest, len(w.when)+1, len(w.then))
		// When they are tried each by itself, etcd takes their number off what each may have.
		if len(batch) > 0 && (max(compares, ops) > c.ops || bytes > c.bytes || len(batch)+max(8, largest+1) > c.ops) {
			rest = append(rest, c.queue[i:]...)
			break
		}
		if slices.ContainsFunc(w.alone, func(k string) bool { return touched[k] }) {
			rest = append(rest, w)
			continue
		}
		if !w.taken.CompareAndSwap(false, true) {
			continue
		}
		for _, k := range w.alone {
			touched[k] = true
		}
		batch = append(batch, w)
	}
	c.queue = rest
	return batch
}

// admit refuses what there is no room for.
func (s *Store) admit(batch []*write) []*write {
	if s.etcd == nil {
		return batch
	}
	bytes := 0
	for _, w := range batch {
		bytes += w.bytes
	}
	return slices.DeleteFunc(batch, func(w *write) bool {
		err := s.room(w.op, int64(bytes), w.create)
		if err != nil {
			w.result <- outcome{err: err}
		}
		return err != nil
	})
}

const (
	sendTime  = 10 * time.Second // for one transaction
	sendTries = 3
)

// send commits a batch, and tells each of its writes what became of it.
func (s *Store) send(batch []*write) {
	if len(batch) == 0 {
		return
	}
	repeated := false
	for try := 1; ; try++ {
		ctx, cancel := context.WithTimeout(context.Background(), sendTime)
		err := s.transact(ctx, batch, repeated)
		cancel()
		if err == nil {
			return
		}
		switch {
		case refused(err):
			err = s.classify(batch[0].op, "", err)
		case try < sendTries && s.pause(time.Duration(try)*100*time.Millisecond):
			repeated = true
			continue
		default:
			err = fail.Errorf(batch[0].op, fail.Uncertain, "", "the store's answer was lost").Because(err)
		}
		for _, w := range batch {
			w.result <- outcome{err: err}
		}
		return
	}
}

// pause waits before a repetition; false when the store has ended.
func (s *Store) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.dead:
		return false
	}
}

// transact sends a batch once. An error means that no write has been told.
func (s *Store) transact(ctx context.Context, batch []*write, repeated bool) error {
	if len(batch) == 1 {
		w := batch[0]
		resp, err := s.cli.Txn(ctx).If(w.conditions()...).Then(w.then...).Else(w.reads()...).Commit()
		if err != nil {
			return err
		}
		w.result <- outcome{ok: resp.Succeeded, revision: resp.Header.Revision, found: resp.Responses, repeated: repeated}
		return nil
	}
	if !repeated {
		when, then := flat(batch)
		resp, err := s.cli.Txn(ctx).If(when...).Then(then...).Commit()
		if err != nil {
			return err
		}
		if resp.Succeeded {
			for _, w := range batch {
				w.result <- outcome{ok: true, revision: resp.Header.Revision}
			}
			return nil
		}
	}
	each := make([]clientv3.Op, len(batch))
	for i, w := range batch {
		each[i] = clientv3.OpTxn(w.conditions(), w.then, w.reads())
	}
	resp, err := s.cli.Txn(ctx).Then(each...).Commit()
	if err != nil {
		return err
	}
	for i, w := range batch {
		r := resp.Responses[i].GetResponseTxn()
		w.result <- outcome{ok: r.Succeeded, revision: resp.Header.Revision, found: r.Responses, repeated: repeated}
	}
	return nil
}

// conditions gives the write's own comparisons and that of its session.
func (w *write) conditions() []clientv3.Cmp {
	if w.guard == nil {
		return w.when
	}
	return append(slices.Clip(w.when), w.guard.holds())
}

func (w *write) reads() []clientv3.Op {
	ops := make([]clientv3.Op, len(w.or))
	for i, key := range w.or {
		ops[i] = clientv3.OpGet(key)
	}
	return ops
}

// flat gives all comparisons and all puts of a batch.
func flat(batch []*write) (when []clientv3.Cmp, then []clientv3.Op) {
	var guards []*session
	for _, w := range batch {
		when, then = append(when, w.when...), append(then, w.then...)
		if w.guard != nil && !slices.Contains(guards, w.guard) {
			guards = append(guards, w.guard)
			when = append(when, w.guard.holds())
		}
	}
	return when, then
}

// wait returns when nothing is on its way any more; the store must be dead.
func (c *committer) wait() {
	c.mu.Lock()   // whoever comes after this sees that it is
	c.mu.Unlock() //nolint:staticcheck // an empty critical section is the point
	c.wg.Wait()
}
