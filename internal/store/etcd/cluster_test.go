package etcd_test

import (
	"net/url"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/etcd"
	"github.com/portolan-project/portolan/internal/store/storetest"
)

// cluster starts an etcd of one member with the bounds that etcd has by itself,
// and gives its endpoint.
func cluster(t testing.TB) string {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Dir = t.TempDir()
	any := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	cfg.ListenClientUrls, cfg.ListenPeerUrls = []url.URL{any}, nil
	cfg.AdvertiseClientUrls = []url.URL{any}
	cfg.TickMs, cfg.ElectionMs = 20, 100
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(2 * time.Minute):
		t.Fatal("etcd does not start")
	}
	return e.Clients[0].Addr().String()
}

func TestCluster(t *testing.T) {
	at := map[store.Store]string{}
	dial := func(t testing.TB, endpoint string) store.Store {
		s := open(t, etcd.Options{Endpoints: []string{endpoint}})
		at[s] = endpoint
		return s
	}
	storetest.Run(t, storetest.Maker{
		Open: func(t testing.TB) store.Store { return dial(t, cluster(t)) },
		Reopen: func(t testing.TB, s store.Store) store.Store {
			_ = s.Close()
			return dial(t, at[s])
		},
		Compact:     etcd.Compact,
		Expire:      func(t testing.TB, s store.Store, sess store.Session, _ string) { etcd.Expire(t, s, sess) },
		MaxDocument: 8 << 20,
	})
}
