package etcd

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// lag is how many answers of etcd a watch holds for its consumer. One that falls
// farther behind is served from etcd's history when it asks for more, so that
// its slowness costs no memory.
const lag = 64

var errLag = errors.New("the consumer is slow")

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, after int64, emit func([]store.Job)) error {
	const op = "store.Watch"
	for {
		err := s.follow(ctx, &after, emit)
		if dead := s.usable(op); dead != nil {
			return dead
		}
		var old tooOld
		switch {
		case ctx.Err() != nil:
			return fail.E(op, fail.Unavailable, "", context.Cause(ctx))
		case errors.Is(err, errLag):
		case errors.As(err, &old):
			seen := s.live.Load()
			if seen == nil || after < seen.top || after >= seen.at || seen.at+1 < old.compacted {
				return store.TooOld(op, after)
			}
			after = seen.at
		default:
			return err
		}
	}
}

// tooOld says up to where revisions are forgotten.
type tooOld struct{ compacted int64 }

func (tooOld) Error() string { return "the revision is compacted" }

// follow emits what changes after the revision, and moves it along.
func (s *Store) follow(ctx context.Context, after *int64, emit func([]store.Job)) error {
	const op = "store.Watch"
	if err := s.usable(op); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wctx := ctx
	if s.etcd == nil {
		wctx = clientv3.WithRequireLeader(ctx)
	}
	answers := s.cli.Watch(wctx, s.keys.jobs, clientv3.WithPrefix(), clientv3.WithRev(*after+1), clientv3.WithFilterDelete())
	waiting := make(chan clientv3.WatchResponse, lag)
	overflow := false
	go func() {
		defer close(waiting)
		for resp := range answers {
			select {
			case waiting <- resp:
			default:
				overflow = true
				cancel()
				return
			}
		}
	}()
	for {
		select {
		case resp, ok := <-waiting:
			if !ok {
				switch {
				case overflow:
					return errLag
				case ctx.Err() != nil:
					return ctx.Err()
				}
				return fail.Errorf(op, fail.Unavailable, "", "the store ended the watch")
			}
			if resp.CompactRevision != 0 {
				return tooOld{resp.CompactRevision}
			}
			if err := resp.Err(); err != nil {
				if errors.Is(err, rpctypes.ErrCompacted) {
					return tooOld{}
				}
				return s.classify(op, "", err)
			}
			// The context of an overflown watch is cancelled; what came before is emitted.
			jobs, err := s.changed(context.WithoutCancel(ctx), resp.Events)
			if err != nil {
				return err
			}
			if len(jobs) > 0 {
				emit(jobs)
				*after = jobs[len(jobs)-1].Revision
			}
		case <-s.dead:
			return s.gone(op)
		}
	}
}

// changed gives the jobs of events. A job that is created comes with its part.
func (s *Store) changed(ctx context.Context, events []*clientv3.Event) ([]store.Job, error) {
	var statuses []*mvccpb.KeyValue
	for _, e := range events {
		if _, _, ok := s.keys.statusID(e.Kv.Key); ok {
			statuses = append(statuses, e.Kv)
			continue
		}
		p, err := decodePart(e.Kv.Value)
		if err != nil {
			return nil, fail.E("store.Watch", fail.Internal, "", err)
		}
		s.headers.put(p.id, p.header)
	}
	return s.withHeaders(ctx, statuses)
}
