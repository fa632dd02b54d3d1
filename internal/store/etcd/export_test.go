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
