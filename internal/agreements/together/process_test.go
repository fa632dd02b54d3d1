package together_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/calendar"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/agreements/together"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store/etcd"
	"github.com/portolan-project/portolan/internal/store/mem"
)

// child is a site: its agreements are in the etcd that it is told, and it answers on a port of
// its own until it is killed.
func child() {
	check := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	ctx := context.Background()
	st, err := etcd.Open(ctx, etcd.Options{Endpoints: []string{os.Getenv(childEnv)}, Log: slog.New(slog.DiscardHandler)})
	check(err)
	e, err := engine.New(ctx, st, engine.Options{Replica: "site", Horizon: horizon})
	check(err)
	go func() { _ = e.Run(ctx) }()
	_, err = e.SetPools(ctx, []calendar.Pool{{ID: pool, Capacity: calendar.Amount{CPUs: 1000}}})
	check(err)
	svc, err := newService(e, together.ParticipantOptions{})
	check(err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	fmt.Println("listens", listener.Addr())
	check(http.Serve(listener, agreement.NewServer(svc, agreement.ServerOptions{Verifier: soap.DevVerifier{}})))
}

// cluster starts an etcd as it comes, and gives its endpoint.
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
	case <-t.Context().Done():
	}
	return e.Clients[0].Addr().String()
}

// realSite is a site in a process of its own.
type realSite struct {
	endpoint string
	address  atomic.Pointer[string]
	cmd      *exec.Cmd
}

// start starts the process, and returns when it answers.
func (s *realSite) start(t *testing.T) {
	t.Helper()
	s.cmd = exec.Command(os.Args[0])
	s.cmd.Env = append(os.Environ(), childEnv+"="+s.endpoint)
	s.cmd.Stderr = t.Output()
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	address, ok := strings.CutPrefix(strings.TrimSpace(line), "listens ")
	if !ok {
		t.Fatalf("the site says %q, %v", line, err)
	}
	s.address.Store(&address)
}

// kill kills it at once.
func (s *realSite) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// TestProcessesKilled: two sites in processes of their own, over real etcds and sockets, are
// killed while agreements are made at both: each is observed at both or at none.
func TestProcessesKilled(t *testing.T) {
	kills := 24
	if testing.Short() {
		kills = 6
	}
	sites := map[string]*realSite{"a": {endpoint: cluster(t)}, "b": {endpoint: cluster(t)}}
	for _, s := range sites {
		s.start(t)
		defer func() { s.kill() }()
	}
	transport := &http.Transport{DisableKeepAlives: true}
	st := mem.New()
	defer func() { _ = st.Close() }()
	c, err := together.New(st, together.Options{
		Margin: 300 * time.Millisecond, Patience: 500 * time.Millisecond, // so that some come too late
		Dial: func(_ context.Context, _, provider, _ string) (together.Provider, error) {
			return agreement.NewClient(&soap.Client{URL: "http://" + *sites[provider].address.Load() + "/agreement", Transport: transport, Retries: -1}), nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = c.Run(ctx) })
	defer running.Wait()
	defer cancel()

	var mu sync.Mutex
	outcomes := map[string]together.Outcome{}
	var wg sync.WaitGroup
	var over atomic.Bool
	for w := range 8 {
		offers := []agreement.Offer{offered(t, 1), offered(t, 1)}
		wg.Go(func() {
			for n := 0; n == 0 || !over.Load(); n++ {
				id := fmt.Sprintf("%d-%d", w, n)
				o, err := c.Coordinate(t.Context(), together.Plan{ID: id, Owner: owner, Parts: []together.Part{
					{Name: "at a", Provider: "a", Offer: offers[0]}, {Name: "at b", Provider: "b", Offer: offers[1]},
				}})
				if err != nil {
					t.Errorf("%s: %v", id, err)
					return
				}
				mu.Lock()
				outcomes[id] = o
				mu.Unlock()
			}
		})
	}
	client := &http.Client{Transport: transport}
	for n := range kills {
		s := sites[[]string{"a", "b"}[n%2]]
		// Somewhere in what it is doing: how far that comes depends on the machine.
		for range rand.IntN(8) {
			if resp, err := client.Get("http://" + *s.address.Load() + "/agreement?wsdl"); err == nil {
				_ = resp.Body.Close()
			}
		}
		s.kill()
		s.start(t)
	}
	over.Store(true)
	wg.Wait()
	for n := 0; !outcomes["last"].Committed(); n++ { // nobody is killed any more: one soon is
		o, err := c.Coordinate(t.Context(), together.Plan{ID: fmt.Sprint("last-", n), Owner: owner, Parts: []together.Part{
			{Name: "at a", Provider: "a", Offer: offered(t, 1)}, {Name: "at b", Provider: "b", Offer: offered(t, 1)},
		}})
		if err != nil {
			t.Fatal(err)
		}
		outcomes[o.ID] = o
		if o.Committed() {
			outcomes["last"] = o
		}
	}
	delete(outcomes, "last")
	committed := 0
	for name, s := range sites {
		st, err := etcd.Open(t.Context(), etcd.Options{Endpoints: []string{s.endpoint}, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		e, err := engine.New(t.Context(), st, engine.Options{Replica: "judge", Horizon: horizon})
		if err != nil {
			t.Fatal(err)
		}
		observed := map[string]bool{}
		for _, r := range e.Live() {
			if r.State == agreement.Observed {
				observed[r.ID] = true
			}
		}
		for id, o := range outcomes {
			i := strings.Index("ab", name)
			key := o.Parts[i].Agreement
			if o.Committed() {
				committed++
			}
			if o.Committed() != observed[key] {
				t.Errorf("%s is %s (%s), and its part at %s is observed: %t", id, o.State, o.Reason, name, observed[key])
			}
			delete(observed, key)
		}
		if len(observed) > 0 {
			t.Errorf("%s keeps %v, which nobody agreed on", name, observed)
		}
		_ = st.Close()
	}
	t.Logf("%d of %d were agreed on, and %d sites killed", committed/2, len(outcomes), kills)
	if _, err := c.Get(t.Context(), "another", "last-0"); !fail.Is(err, fail.NotFound) {
		t.Errorf("another sees it: %v", err)
	}
}
