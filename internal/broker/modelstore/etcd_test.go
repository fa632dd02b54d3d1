package modelstore_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/portolan-project/portolan/internal/broker/modelstore"
	"github.com/portolan-project/portolan/internal/store/etcd"
	"github.com/portolan-project/portolan/resourcemodel"
)

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
	case <-time.After(2 * time.Minute):
		t.Fatal("etcd does not start")
	}
	return e.Clients[0].Addr().String()
}

func open(t testing.TB, o etcd.Options) *etcd.Store {
	t.Helper()
	o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	st, err := etcd.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st
}

// TestTwoGatewaysOneCluster: what one gateway learns the other has within one delivery
// of its watch.
func TestTwoGatewaysOneCluster(t *testing.T) {
	endpoint := []string{cluster(t)}
	o := modelstore.Options{Interval: -1, DeadBand: -1}
	a := start(t, open(t, etcd.Options{Endpoints: endpoint}), "a", o)
	b := start(t, open(t, etcd.Options{Endpoints: endpoint}), "b", o)
	type delivery struct {
		revision int64
		changes  int
	}
	told := make(chan delivery, 1000)
	defer b.Updates(func(d resourcemodel.Delta) { told <- delivery{d.Revision, len(d.Changes)} })()
	for n := range 50 {
		at := a.feed(t, slurm, static(n/10+1), dynamic(2*n, n))
		b.await(t, at)
		// The first delivery after the change is the one that has it.
		if d := <-told; d.revision != at || d.changes != 1 {
			t.Fatalf("change %d of revision %d: the watch told %+v", n, at, d)
		}
		if free(b.Snapshot(), slurm) != 2*n || b.Snapshot().Revision() != at {
			t.Fatalf("change %d of revision %d is not seen: %d free CPUs at revision %d", n, at, free(b.Snapshot(), slurm), b.Snapshot().Revision())
		}
	}
	wantSame(t, "the other's snapshot", b.Snapshot(), a.Snapshot())
	if b.Feeder(slurm) != "a" {
		t.Errorf("b sees %q feed the site", b.Feeder(slurm))
	}
}

// TestDayOfHeartbeats: 24 hours of heartbeats of 20 sites every 10 seconds, with noise
// in them; etcd's revision grows by the real changes and by nothing else.
func TestDayOfHeartbeats(t *testing.T) {
	st := open(t, etcd.Options{Endpoints: []string{cluster(t)}})
	var clock atomic.Int64
	clock.Store(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC).UnixNano())
	o := modelstore.Options{Now: func() time.Time { return time.Unix(0, clock.Load()).UTC() }}
	a := start(t, st, "a", o)
	sites := make([]resourcemodel.Key, 20)
	for i := range sites {
		sites[i] = resourcemodel.Key{Site: fmt.Sprintf("site-%02d", i)}
		a.feed(t, sites[i], static(64), dynamic(1000, 100))
	}
	before := revision(t, st)
	heartbeats, real := 0, int64(0)
	const every = 10 * time.Second
	for n := range int(24 * time.Hour / every) {
		clock.Add(int64(every))
		for i, k := range sites {
			d := dynamic(1000-(n+i)%40, 100-(n*7+i)%5) // noise
			if hour := int(time.Hour / every); n%hour == hour/2 && i == n/hour%len(sites) {
				d = dynamic(0, 100) // once an hour one of them is full
				real++
			} else if n%hour == hour/2+1 && i == n/hour%len(sites) {
				real++ // and is not any more
			}
			if _, err := a.Feed(t.Context(), a.sess, k, static(64), d); err != nil {
				t.Fatal(err)
			}
			heartbeats++
		}
		if n%360 == 0 {
			a.Tick(t.Context())
		}
	}
	grown := revision(t, st) - before
	t.Logf("%d heartbeats of %d sites: %d real changes, %d revisions", heartbeats, len(sites), real, grown)
	if grown != real || real != 48 {
		t.Errorf("24 hours cost %d revisions for %d real changes", grown, real)
	}
}

// child feeds a model in an embedded etcd until it is killed, and prints what was
// acknowledged: the versions of both parts and how many CPUs are free.
func child() {
	ctx := context.Background()
	fatal := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	st, err := etcd.Open(ctx, etcd.Options{Dir: os.Getenv("PORTOLAN_MODEL_CHILD")})
	fatal(err)
	sess, err := st.Join(ctx, "child")
	fatal(err)
	m, err := modelstore.Open(ctx, st, modelstore.Options{Replica: "child", Interval: -1, HistoryChanges: 30})
	fatal(err)
	go func() { _ = m.Run(ctx) }()
	n := max(0, free(m.Snapshot(), slurm))
	for {
		n++
		_, err := m.Feed(ctx, sess, slurm, static(n%3+1), dynamic(n*2, n))
		fatal(err)
		fmt.Println("fed", n*2)
		n *= 2
		if n > 1<<30 {
			n = 0
		}
	}
}

// TestKilled kills a gateway that feeds, many times: the model is what was acknowledged
// last, or the one after it, and the history makes the same.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	for round := range 5 {
		t.Run(fmt.Sprint(round), func(t *testing.T) { killOnce(t, dir, 40+17*round) })
	}
}

func killOnce(t *testing.T, dir string, after int) {
	last := ""
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PORTOLAN_MODEL_CHILD="+dir)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for n := 0; lines.Scan(); n++ {
		if strings.HasPrefix(lines.Text(), "error") {
			t.Error(lines.Text())
		}
		last = lines.Text()
		if n == after {
			_ = cmd.Process.Kill()
		}
	}
	_ = cmd.Wait()
	var acked int
	if _, err := fmt.Sscanf(last, "fed %d", &acked); err != nil {
		t.Fatalf("the child said %q", last)
	}
	st := open(t, etcd.Options{Dir: dir})
	r := start(t, st, "child", modelstore.Options{HistoryChanges: 30})
	got := free(r.Snapshot(), slurm)
	next := 2 * (acked + 1)
	if acked > 1<<30 {
		next = 2
	}
	if got != acked && got != next {
		t.Errorf("%d free CPUs were acknowledged, and %d are known; the next would be %d", acked, got, next)
	}
	at, err := r.At(t.Context(), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, "what the history makes", at, r.Snapshot())
	// Who was killed may not have folded all, and that it feeds no more may be told a little later.
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		n, _ := r.Lines()
		by := r.Feeder(slurm)
		if n <= 31 && by == "" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the history has %d lines, and %q feeds the site", n, by)
		}
	}
}
