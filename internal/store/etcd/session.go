package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// session is a replica's key under a lease. It is ours while the key's revision is
// the one that we wrote: a process that takes over writes another.
type session struct {
	s        *Store
	key      string
	lease    clientv3.LeaseID
	revision int64
	lost     chan struct{}
	once     sync.Once
	given    sync.Once
	stop     context.CancelFunc
	wg       sync.WaitGroup
}

// Join implements store.Store.
func (s *Store) Join(ctx context.Context, replica string) (store.Session, error) {
	const op = "store.Join"
	switch {
	case replica == "":
		return nil, fail.Errorf(op, fail.Invalid, "", "a replica needs a name")
	case len(replica) > store.MaxKey:
		return nil, fail.Errorf(op, fail.Invalid, "", "a replica's name may have %d bytes; this one has %d", store.MaxKey, len(replica))
	}
	if err := s.usable(op); err != nil {
		return nil, err
	}
	grant, err := call(ctx, s, op, func(ctx context.Context) (*clientv3.LeaseGrantResponse, error) {
		return s.cli.Grant(ctx, int64((s.opts.LeaseTTL+time.Second-1)/time.Second))
	})
	if err != nil {
		return nil, err
	}
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	own := &session{s: s, key: s.keys.replicas + replica, lease: grant.ID, lost: make(chan struct{}), stop: stop}
	put, err := call(ctx, s, op, func(ctx context.Context) (*clientv3.PutResponse, error) {
		return s.cli.Put(ctx, own.key, time.Now().UTC().Format(time.RFC3339), clientv3.WithLease(own.lease), clientv3.WithPrevKV())
	})
	if err == nil {
		err = s.endOthers(ctx, op, put.PrevKv, own.lease)
	}
	var alive <-chan *clientv3.LeaseKeepAliveResponse
	if err == nil {
		own.revision = put.Header.Revision
		alive, err = s.cli.KeepAlive(run, own.lease)
		if err != nil {
			err = s.classify(op, "", err)
		}
	}
	if err != nil {
		own.giveBack()
		stop()
		return nil, err
	}
	own.wg.Go(func() { own.keep(run, alive) })
	own.wg.Go(func() { own.guard(run) })
	return own, nil
}

// keep ends the session when the lease can't be kept.
func (own *session) keep(ctx context.Context, alive <-chan *clientv3.LeaseKeepAliveResponse) {
	for {
		select {
		case _, ok := <-alive:
			if !ok {
				own.lose(errors.New("the lease ran out"))
				return
			}
		case <-own.s.dead:
			own.lose(errors.New("the store has ended"))
			return
		case <-ctx.Done():
			return
		}
	}
}

// guard ends the session when its key is written or removed by another.
func (own *session) guard(ctx context.Context) {
	for ctx.Err() == nil {
		wctx, cancel := context.WithCancel(ctx)
		err := own.wait(wctx)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			own.lose(err)
			return
		}
		// The watch ended by itself; the lease says whether the session goes on.
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// wait returns an error when the key is not ours any more, nil when that can't be
// seen at present.
func (own *session) wait(ctx context.Context) error {
	watch := own.s.cli.Watch(ctx, own.key, clientv3.WithCreatedNotify())
	got, err := call(ctx, own.s, "store.Join", func(ctx context.Context) (*clientv3.GetResponse, error) {
		// The watch must see what happens after this read.
		select {
		case _, ok := <-watch:
			if !ok {
				return nil, errors.New("the watch did not start")
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		return own.s.cli.Get(ctx, own.key)
	})
	if err != nil {
		return nil //nolint:nilerr // not known is not lost
	}
	if len(got.Kvs) == 0 || got.Kvs[0].ModRevision != own.revision {
		return errors.New("another process took over, or the lease ran out")
	}
	for resp := range watch {
		for _, e := range resp.Events {
			if e.Kv.ModRevision != own.revision {
				return fmt.Errorf("another process took over, or the lease ran out, at revision %d", e.Kv.ModRevision)
			}
		}
	}
	return nil
}

// holds is true in a transaction while the session is ours.
func (own *session) holds() clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(own.key), "=", own.revision)
}

func (own *session) isLost() bool {
	select {
	case <-own.lost:
		return true
	default:
		return false
	}
}

func (own *session) lose(why error) {
	own.once.Do(func() {
		if why != nil && own.s.usable("") == nil {
			own.s.log.Warn("the session with the store is lost", "key", own.key, "cause", why)
		}
		close(own.lost)
		own.stop()
	})
}

// Lost implements store.Session.
func (own *session) Lost() <-chan struct{} { return own.lost }

// Close implements store.Session.
func (own *session) Close() error {
	own.lose(nil)
	own.wg.Wait()
	own.given.Do(own.giveBack)
	return nil
}

// giveBack ends the lease, and the key with it unless another has put it under
// theirs. If that fails the lease runs out.
func (own *session) giveBack() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, _ = call(ctx, own.s, "store.Session.Close", func(ctx context.Context) (*clientv3.LeaseRevokeResponse, error) {
		return own.s.cli.Revoke(ctx, own.lease)
	})
}
