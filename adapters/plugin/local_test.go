package plugin

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/plugin/proto"
	"github.com/portolan-project/portolan/internal/fail"
)

// local is a plug-in in the test's own process: all of the wire and none of the
// program, so that a test can reach behind it and kill it.
type local struct {
	mu     sync.Mutex
	lives  int
	refuse error // of the next starts
	kill   func()
}

// open opens an adapter whose plug-in serves what serve gives.
func (l *local) open(t testing.TB, c adapters.Config, serve func() proto.AdapterServer, change ...func(*host)) (adapters.Adapter, error) {
	t.Helper()
	settings := Settings{CallTimeout: 30 * time.Second, Settings: c.Settings}
	settings.ensureDefaults()
	h := &host{site: "local", dir: c.Dir, settings: settings, log: slog.New(slog.DiscardHandler)}
	h.launch = func(context.Context) (*session, error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.refuse != nil {
			return nil, l.refuse
		}
		l.lives++
		return l.launch(serve())
	}
	for _, f := range change {
		f(h)
	}
	return h.open()
}

func (l *local) launch(s proto.AdapterServer) (*session, error) {
	lis := bufconn.Listen(1 << 20)
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(4*maxMessage))
	proto.RegisterAdapterServer(server, s)
	conn, err := grpc.NewClient("passthrough:local", append(dialOptions(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))...)
	if err != nil {
		return nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(lis)
		_ = conn.Close()
	}()
	l.kill = server.Stop
	return &session{
		api: proto.NewAdapterClient(conn), log: slog.New(slog.DiscardHandler), done: done, stop: server.Stop, end: server.Stop,
		how: func() string { return "it was killed" },
	}, nil
}

// crash kills the plug-in as a signal would.
func (l *local) crash() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.kill()
}

func (l *local) refusing(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse = err
}

var errBroken = fail.Errorf("test", fail.Unavailable, "", "the program is broken for now")
