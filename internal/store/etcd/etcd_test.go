package etcd_test

import (
	"log/slog"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/etcd"
	"github.com/portolan-project/portolan/internal/store/mem"
	"github.com/portolan-project/portolan/internal/store/storetest"
)

func TestMain(m *testing.M) {
	switch {
	case os.Getenv("PORTOLAN_STORE_CHILD") != "":
		child()
		return
	case os.Getenv("PORTOLAN_STORE_FILL") != "":
		fillChild()
		return
	}
	goleak.VerifyTestMain(m)
}

func open(t testing.TB, o etcd.Options) *etcd.Store {
	t.Helper()
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	s, err := etcd.Open(t.Context(), o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestStore(t *testing.T) {
	dirs := map[store.Store]string{}
	at := func(t testing.TB, dir string) store.Store {
		s := open(t, etcd.Options{Dir: dir})
		dirs[s] = dir
		return s
	}
	storetest.Run(t, storetest.Maker{
		Open: func(t testing.TB) store.Store { return at(t, t.TempDir()) },
		Reopen: func(t testing.TB, s store.Store) store.Store {
			_ = s.Close()
			return at(t, dirs[s])
		},
		Compact:     etcd.Compact,
		Expire:      func(t testing.TB, s store.Store, sess store.Session, _ string) { etcd.Expire(t, s, sess) },
		MaxDocument: 8 << 20,
	})
}

func TestAlikeToMemory(t *testing.T) {
	storetest.Alike(t, mem.New(), open(t, etcd.Options{Dir: t.TempDir()}))
}
