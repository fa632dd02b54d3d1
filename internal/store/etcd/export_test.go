package etcd

import (
	"context"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/portolan-project/portolan/internal/store"
)

// Expire revokes a session's lease behind its back.
func Expire(t testing.TB, s store.Store, sess store.Session) {
	if _, err := s.(*Store).cli.Revoke(context.Background(), sess.(*session).lease); err != nil {
		t.Fatal(err)
	}
}

// Compact forgets all revisions before the present one.
func Compact(t testing.TB, s store.Store) {
	cli := s.(*Store).cli
	at, err := cli.Get(context.Background(), schemaKey)
	if err == nil {
		_, err = cli.Compact(context.Background(), at.Header.Revision, clientv3.WithCompactPhysical())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Client gives the client below a store.
func Client(s store.Store) *clientv3.Client { return s.(*Store).cli }

// Reckless makes a store believe that its disk is endless.
func Reckless(s *Store) {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	s.disk.checked, s.disk.free = time.Now().Add(time.Hour), 1<<50
}

// Interrupt lets commit decide what becomes of each transaction of a store from now on:
// it is given what sends it.
func Interrupt(s *Store, commit func(send func() (*clientv3.TxnResponse, error)) (*clientv3.TxnResponse, error)) {
	s.cli.KV = interrupted{s.cli.KV, commit}
}

type interrupted struct {
	clientv3.KV
	commit func(send func() (*clientv3.TxnResponse, error)) (*clientv3.TxnResponse, error)
}

func (k interrupted) Txn(ctx context.Context) clientv3.Txn { return &interruptedTxn{k.KV.Txn(ctx), k} }

type interruptedTxn struct {
	clientv3.Txn
	k interrupted
}

func (t *interruptedTxn) If(cs ...clientv3.Cmp) clientv3.Txn {
	t.Txn = t.Txn.If(cs...)
	return t
}

func (t *interruptedTxn) Then(ops ...clientv3.Op) clientv3.Txn {
	t.Txn = t.Txn.Then(ops...)
	return t
}

func (t *interruptedTxn) Else(ops ...clientv3.Op) clientv3.Txn {
	t.Txn = t.Txn.Else(ops...)
	return t
}

func (t *interruptedTxn) Commit() (*clientv3.TxnResponse, error) { return t.k.commit(t.Txn.Commit) }

// Domain gives whose store it is.
func Domain(s *Store) string { return s.opts.Domain }
