package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// schemaVersion is that of the layout in the package comment.
const schemaVersion = 1

// Store is a store.Store in etcd.
type Store struct {
	opts Options
	log  *slog.Logger
	cli  *clientv3.Client
	etcd *embed.Etcd // nil for an external cluster
	lock *os.File    // of the data directory
	keys layout
	own  shelf // its records

	commits committer
	bases   recent[base]   // where updates start from
	headers recent[header] // for watches
	live    atomic.Pointer[snapshot]
	name    [8]byte       // of this Store, at random
	tags    atomic.Uint64 // of its writes of records
	disk    disk
	quota   quota

	dead   chan struct{} // closed when the store is closed or etcd has died
	why    atomic.Pointer[ending]
	broken atomic.Bool // etcd has died: it can't be closed
	once   sync.Once
	wg     sync.WaitGroup
	stop   context.CancelFunc // ends what wg waits for
}

var _ store.Store = (*Store)(nil)

// Open starts the embedded etcd in Options.Dir, or connects to Options.Endpoints,
// and checks the schema. A directory that another process uses, one that can't be
// used, and a schema newer than ours are fail.Invalid or fail.Unsupported; an etcd
// that does not answer is fail.Unavailable.
func Open(ctx context.Context, o Options) (*Store, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	s := &Store{opts: o, log: o.Log, dead: make(chan struct{}), keys: layoutOf(o.Domain)}
	s.own = shelf{Store: s, prefix: s.keys.records}
	var err error
	_, _ = rand.Read(s.name[:]) // it never fails
	s.quota.woken = make(chan struct{}, 1)
	s.disk.dir, s.disk.reserve = o.Dir, o.ReserveBytes
	run, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	if o.Dir != "" {
		err = s.openEmbedded(ctx)
	} else {
		err = s.openExternal()
	}
	if err == nil {
		err = s.checkSchema(ctx)
	}
	if err != nil {
		_ = s.Close()
		return nil, err
	}
	if s.etcd != nil {
		s.wg.Go(func() { s.tend(run) })
	}
	return s, nil
}

func (s *Store) openEmbedded(ctx context.Context) error {
	lock, err := lockDir(s.opts.Dir)
	if err != nil {
		return err
	}
	s.lock = lock
	if err := s.disk.startable(); err != nil {
		return err
	}
	died := make(chan error, 1)
	log := newLogger(s.log, func(err error) {
		select {
		case died <- err:
		default:
		}
		s.broken.Store(true)
		s.die(ending{"the store has stopped, and the gateway must be started again: " + err.Error(), err})
	})
	if s.etcd, err = startEmbedded(ctx, &s.opts, log, died); err != nil {
		return err
	}
	s.cli = v3client.New(s.etcd.Server)
	s.commits.limit(embeddedOps, embeddedBytes)
	s.disk.setAside()
	return nil
}

func (s *Store) openExternal() error {
	cli, err := clientv3.New(clientv3.Config{
		Endpoints: s.opts.Endpoints, TLS: s.opts.TLS, Username: s.opts.Username, Password: s.opts.Password,
		DialTimeout: 5 * time.Second, DialKeepAliveTime: 5 * time.Second, DialKeepAliveTimeout: 5 * time.Second, PermitWithoutStream: true,
		Logger: zap.New(&core{log: s.log}),
	})
	if err != nil {
		return fail.Errorf("store.Open", fail.Unavailable, "", "the etcd cluster cannot be reached: %v", err).Because(err)
	}
	s.cli = cli
	s.commits.limit(externalOps, externalBytes)
	return nil
}

// checkSchema writes the schema version at the first start and checks it at every
// other.
func (s *Store) checkSchema(ctx context.Context) error {
	const op = "store.Open"
	if s.etcd == nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
	}
	resp, err := call(ctx, s, op, func(ctx context.Context) (*clientv3.TxnResponse, error) {
		return s.cli.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision(schemaKey), "=", 0)).
			Then(clientv3.OpPut(schemaKey, strconv.Itoa(schemaVersion))).
			Else(clientv3.OpGet(schemaKey)).Commit()
	})
	if fail.Is(err, fail.Exhausted) { // a full store is no new one
		var got *clientv3.GetResponse
		got, err = call(ctx, s, op, func(ctx context.Context) (*clientv3.GetResponse, error) { return s.cli.Get(ctx, schemaKey) })
		if err == nil && len(got.Kvs) == 1 {
			return schemaFits(string(got.Kvs[0].Value))
		}
		if err == nil {
			err = s.quotaFull(op)
		}
	}
	switch {
	case err != nil:
		if len(s.opts.Endpoints) > 0 {
			return fail.Errorf(op, fail.Unavailable, "", "the etcd cluster at %v does not answer", s.opts.Endpoints).Because(err)
		}
		return err
	case resp.Succeeded:
		return nil
	}
	kvs := resp.Responses[0].GetResponseRange().Kvs
	if len(kvs) == 0 {
		return fail.E(op, fail.Unavailable, "", errors.New("the schema version went away"))
	}
	return schemaFits(string(kvs[0].Value))
}

func schemaFits(found string) error {
	const op = "store.Open"
	v, err := strconv.Atoi(found)
	switch {
	case err != nil || v < 1:
		return fail.Errorf(op, fail.Invalid, "", "the store's schema version is %q, which no gateway writes: this is not a store of ours, or it is damaged", found)
	case v > schemaVersion:
		return fail.Errorf(op, fail.Unsupported, "", "the store has schema version %d and this gateway knows %d: use a newer gateway, or a store of its own for this one", v, schemaVersion)
	}
	return nil
}

// Failed is closed when the store has been closed, or when etcd has died and only
// a new process can open it again.
func (s *Store) Failed() <-chan struct{} { return s.dead }

// Close waits for what is being written, and closes etcd.
func (s *Store) Close() error {
	s.once.Do(func() {
		s.die(ending{public: "the store is closed"})
		s.stop()
		if s.broken.Load() {
			return // its goroutines hold locks for ever
		}
		s.wg.Wait()
		s.commits.wait()
		if s.cli != nil {
			_ = s.cli.Close()
		}
		if s.etcd != nil {
			s.etcd.Close()
		}
		if s.lock != nil {
			s.lock.Close()
		}
	})
	return nil
}
