package mem_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/mem"
	"github.com/portolan-project/portolan/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func closed(t testing.TB, s *mem.Store) store.Store {
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestStore(t *testing.T) {
	storetest.Run(t, storetest.Maker{
		Open:        func(t testing.TB) store.Store { return closed(t, mem.New()) },
		Reopen:      func(t testing.TB, s store.Store) store.Store { return closed(t, s.(*mem.Store).Reopen()) },
		Compact:     func(t testing.TB, s store.Store) { s.(*mem.Store).Compact() },
		Expire:      func(t testing.TB, s store.Store, _ store.Session, replica string) { s.(*mem.Store).Expire(replica) },
		MaxDocument: 8 << 20,
	})
}

func TestAlikeToItself(t *testing.T) { storetest.Alike(t, mem.New(), mem.New()) }
