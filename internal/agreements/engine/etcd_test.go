package engine_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
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
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/etcd"
	"github.com/portolan-project/portolan/internal/store/faulty"
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
	o.Log = slog.New(slog.DiscardHandler)
	st, err := etcd.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return st
}

// wanted is when all of a test want the same.
var wanted = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)

// far gives a plan of CPUs at that time.
func far(cpus int64) engine.Plan {
	return engine.Plan{Price: 1, Holds: []calendar.Hold{{Pool: pool, Amount: calendar.Amount{CPUs: cpus}, From: wanted, Until: wanted.Add(2 * time.Hour)}}}
}

const horizon = 200 * 365 * 24 * time.Hour

// checkHeld reads everything anew, and says how many agreements hold something; no more may be
// held than there is.
func checkHeld(t testing.TB, st store.Store, capacity int64) map[string]bool {
	t.Helper()
	e, err := engine.New(t.Context(), st, engine.Options{Horizon: horizon})
	if err != nil {
		t.Fatal(err)
	}
	held := map[string]bool{}
	sum := int64(0)
	for _, r := range e.Live() {
		if r.State != agreement.Observed || r.Plan == nil {
			t.Errorf("the agreement %s is %+v", r.ID, r)
			continue
		}
		held[r.ID] = true
		sum += r.Plan.Holds[0].CPUs
		if doc, err := e.Document(t.Context(), r.ID); err != nil || string(doc) != "<offer "+r.ID+"/>" {
			t.Errorf("the document of %s is %q, %v", r.ID, doc, err)
		}
	}
	if sum > capacity {
		t.Errorf("%d CPUs are held of %d", sum, capacity)
	}
	for _, s := range e.Steps(pool, wanted, wanted.Add(2*time.Hour)) {
		if s.Over() || s.Held.CPUs != sum {
			t.Errorf("the calendar says %+v, and %d CPUs are held", s, sum)
		}
	}
	for _, a := range e.Accounts() {
		if a.Committed != int64(len(held)) {
			t.Errorf("%d is committed for %d agreements", a.Committed, len(held))
		}
	}
	return held
}

// TestThousandOffers: a thousand want at once, of two replicas, what a hundred can have.
func TestThousandOffers(t *testing.T) {
	endpoint := []string{cluster(t)}
	var engines []*engine.Engine
	for _, name := range []string{"a", "b"} {
		engines = append(engines, start(t, open(t, etcd.Options{Endpoints: endpoint}), engine.Options{Replica: name, Horizon: horizon}))
	}
	feed(t, engines[0], 100)
	var accepted, refused [2]atomic.Int64
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() {
			_, err := engines[i%2].Propose(t.Context(), offer(fmt.Sprintf("%04d", i), far(1)))
			room, lacking := errors.AsType[*engine.NoRoom](err)
			switch {
			case err == nil:
				accepted[i%2].Add(1)
			case lacking && room.Earliest.Equal(wanted.Add(2*time.Hour)):
				refused[i%2].Add(1)
			default:
				t.Errorf("Propose: %v", err)
			}
		})
	}
	wg.Wait()
	if n := accepted[0].Load() + accepted[1].Load(); n != 100 || refused[0].Load()+refused[1].Load() != 900 {
		t.Errorf("%d were accepted", n)
	}
	t.Logf("accepted %d and %d", accepted[0].Load(), accepted[1].Load())
	if held := checkHeld(t, open(t, etcd.Options{Endpoints: endpoint}), 100); len(held) != 100 {
		t.Errorf("%d agreements hold something", len(held))
	}
}

// TestBothGetOn: of two replicas that write to the same pool without a pause neither starves.
func TestBothGetOn(t *testing.T) {
	endpoint := []string{cluster(t)}
	var engines []*engine.Engine
	for _, name := range []string{"a", "b"} {
		engines = append(engines, start(t, open(t, etcd.Options{Endpoints: endpoint}), engine.Options{Replica: name, Horizon: horizon}))
	}
	feed(t, engines[0], 1<<20)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var done [2]atomic.Int64
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				if _, err := engines[i%2].Propose(ctx, offer(fmt.Sprintf("%d-%d", i, n), far(1))); err != nil && ctx.Err() == nil {
					t.Errorf("Propose: %v", err)
				}
				if done[i%2].Add(1) >= 40 && done[1-i%2].Load() >= 40 {
					cancel()
				}
			}
		})
	}
	wg.Wait()
	t.Logf("accepted %d and %d", done[0].Load(), done[1].Load())
}

// child makes offers until it is killed, and prints what was acknowledged.
func child() {
	ctx := context.Background()
	st, err := etcd.Open(ctx, etcd.Options{Endpoints: []string{os.Getenv("PORTOLAN_ENGINE_CHILD")}})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	e, err := engine.New(ctx, st, engine.Options{Replica: "child", Horizon: horizon})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	go func() { _ = e.Run(ctx) }()
	name := os.Getenv("PORTOLAN_ENGINE_NAME")
	var mu sync.Mutex
	say := func(args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Println(args...)
	}
	say("ready")
	for w := range 16 {
		go func() {
			for n := 0; ; n++ {
				id := fmt.Sprintf("%s-%d-%d", name, w, n)
				_, err := e.Propose(ctx, offer(id, far(1)))
				if _, full := errors.AsType[*engine.NoRoom](err); full {
					say("full", id)
					return
				} else if err != nil {
					say("error", err)
					return
				}
				say("accepted", id)
			}
		}()
	}
	select {}
}

// TestKilled kills one of two replicas in the middle, several times: what it acknowledged is
// there, no more is held than there is, and the other fills up what is left.
func TestKilled(t *testing.T) {
	rounds := 5
	if testing.Short() {
		rounds = 2
	}
	endpoint := cluster(t)
	st := open(t, etcd.Options{Endpoints: []string{endpoint}})
	e := start(t, st, engine.Options{Replica: "parent", Horizon: horizon})
	const capacity = 400
	feed(t, e, capacity)
	acked := map[string]bool{}
	var mu sync.Mutex
	for round := range rounds {
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Go(func() {
				for n := 0; ctx.Err() == nil && n < 10; n++ {
					id := fmt.Sprintf("parent-%d-%d-%d", round, w, n)
					_, err := e.Propose(t.Context(), offer(id, far(1)))
					switch {
					case err == nil:
						mu.Lock()
						acked[id] = true
						mu.Unlock()
					case !fail.Is(err, fail.Exhausted):
						t.Errorf("Propose: %v", err)
					}
				}
			})
		}
		runChild(t, endpoint, fmt.Sprint("child-", round), func(id string) {
			mu.Lock()
			defer mu.Unlock()
			acked[id] = true
		})
		cancel()
		wg.Wait()
		held := checkHeld(t, st, capacity)
		for id := range acked {
			if !held[id] {
				t.Errorf("round %d: %s was acknowledged and is lost", round, id)
			}
		}
		t.Logf("round %d: %d are acknowledged, %d are there", round, len(acked), len(held))
	}
	// What the killed ones left is there for others, to the last.
	for n := 0; ; n++ {
		_, err := e.Propose(t.Context(), offer(fmt.Sprint("last-", n), far(1)))
		if fail.Is(err, fail.Exhausted) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if held := checkHeld(t, st, capacity); len(held) != capacity {
		t.Errorf("in the end %d hold something; %d could", len(held), capacity)
	}
}

func runChild(t *testing.T, endpoint, name string, acked func(id string)) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PORTOLAN_ENGINE_CHILD="+endpoint, "PORTOLAN_ENGINE_NAME="+name)
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	after := 1 + rand.IntN(60)
	lines := bufio.NewReader(out)
	for n := 0; ; n++ {
		line, err := lines.ReadString('\n')
		if err != nil { // a line that is not whole was not acknowledged
			if err != io.EOF && !strings.Contains(err.Error(), "closed") {
				t.Error(err)
			}
			break
		}
		switch what, id, _ := strings.Cut(strings.TrimSpace(line), " "); what {
		case "accepted":
			acked(id)
		case "full":
			_ = cmd.Process.Kill()
		case "error":
			t.Errorf("the child says: %s", line)
		}
		if n == after {
			_ = cmd.Process.Kill() // and read on what it had said
		}
	}
	_ = cmd.Wait()
}

// TestUncertain: a store that loses answers, refuses and is late loses no agreement and gives
// nothing away twice.
func TestUncertain(t *testing.T) {
	for _, in := range []struct {
		name string
		open func(testing.TB) store.Store
	}{
		{"mem", func(t testing.TB) store.Store { return memory(t) }},
		{"etcd", func(t testing.TB) store.Store { return open(t, etcd.Options{Dir: t.TempDir()}) }},
	} {
		t.Run(in.name, func(t *testing.T) {
			seeds := 6
			if in.name == "mem" && !testing.Short() {
				seeds = 20
			}
			for seed := range seeds {
				uncertain(t, in.open(t), uint64(seed))
			}
		})
	}
}

func uncertain(t *testing.T, st store.Store, seed uint64) {
	const capacity = 50
	var engines []*engine.Engine
	var faults []*faulty.Store
	for i := range 2 {
		f := faulty.New(st, nil)
		faults = append(faults, f)
		engines = append(engines, start(t, f, engine.Options{Replica: fmt.Sprint(i), Horizon: horizon}))
	}
	feed(t, engines[0], capacity)
	for i, f := range faults {
		f.Follow(faulty.Seeded(2*seed+uint64(i), faulty.Rates{Unavailable: 0.1, Lost: 0.3, Delay: 0.2, Longest: 2 * time.Millisecond}))
	}
	var mu sync.Mutex
	acked, ended := map[string]bool{}, map[string]bool{}
	var wg sync.WaitGroup
	for i := range 120 {
		wg.Go(func() {
			id := fmt.Sprintf("%03d", i)
			for try := 0; ; try++ {
				_, err := engines[(i+try)%2].Propose(t.Context(), offer(id, far(1)))
				if fail.Is(err, fail.Unavailable) || fail.Is(err, fail.Uncertain) {
					continue // the same again, perhaps of the other
				}
				if err == nil {
					mu.Lock()
					acked[id] = true
					mu.Unlock()
				} else if !fail.Is(err, fail.Exhausted) {
					t.Errorf("Propose: %v", err)
				}
				break
			}
			mu.Lock()
			had := acked[id]
			mu.Unlock()
			if !had {
				return
			}
			for {
				_, err := engines[i%2].Update(t.Context(), id, func(r *engine.Record) error {
					r.Jobs = append(r.Jobs, "job")
					return nil
				})
				if err == nil {
					break
				}
				if fail.Is(err, fail.Uncertain) {
					t.Errorf("seed %d: an update stayed uncertain: %v", seed, err)
				}
			}
			for i%3 == 0 {
				if _, err := engines[i%2].Complete(t.Context(), id, engine.Ending{Due: new(int64(0))}); err == nil {
					mu.Lock()
					ended[id] = true
					mu.Unlock()
					break
				}
			}
		})
	}
	wg.Wait()
	for _, f := range faults {
		f.Follow(nil)
	}
	held := checkHeld(t, st, capacity)
	for id := range acked {
		if held[id] == ended[id] {
			t.Errorf("seed %d: %s is held: %v, and ended: %v", seed, id, held[id], ended[id])
		}
		r, err := engines[0].Get(t.Context(), id)
		if err != nil || len(r.Jobs) != 1 {
			t.Errorf("seed %d: an update was made %d times, %v", seed, len(r.Jobs), err)
		}
	}
	// Nothing is left that nobody holds: what is free can be had.
	for n := len(held); n < capacity; n++ {
		must(t, "what is left")(engines[n%2].Propose(t.Context(), offer(fmt.Sprint("last-", n), far(1))))
	}
	if _, err := engines[0].Propose(t.Context(), offer("too-many", far(1))); !fail.Is(err, fail.Exhausted) {
		t.Errorf("seed %d: when all is held: %v", seed, err)
	}
}

// BenchmarkPropose gives how many offers are decided and written a second, and what part that is
// of the jobs that the store takes in the same run.
func BenchmarkPropose(b *testing.B) {
	for _, callers := range []int{64, 1} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) {
			st := open(b, etcd.Options{Dir: b.TempDir()})
			e := start(b, st, engine.Options{Horizon: horizon, MaxHolds: 1 << 30, MaxLive: 1 << 30})
			feed(b, e, calendar.MaxAmount)
			doc := []byte(strings.Repeat("<offer>0123456789</offer>", 40))
			var ids atomic.Int64
			id := func() string {
				return fmt.Sprintf("%08x-0000-7000-8000-%012x", time.Now().Unix(), ids.Add(1))
			}
			propose := func() error {
				p := offer(id(), far(1))
				p.Document = doc
				// Not all at the same time: the calendar has many steps.
				later := time.Duration(rand.IntN(100_000)) * time.Second
				p.Alternatives[0].Holds[0] = p.Alternatives[0].Holds[0].Shift(later)
				_, err := e.Propose(context.Background(), p)
				return err
			}
			create := func() error {
				_, _, err := st.Create(context.Background(), store.NewJob{
					ID: id(), Owner: "CN=ann,O=grid", Name: "bench", Document: doc, Submitted: time.Now(),
					Status: store.Status{Phase: "queued"}, Event: store.Event{Time: time.Now(), Phase: "queued", Event: "accepted"},
				})
				return err
			}
			// In turns, as others use the machine too.
			var took [2]time.Duration
			var done int
			b.ResetTimer()
			for left := b.N; left > 0; {
				n := min(left, 512)
				for i, do := range []func() error{propose, create} {
					began := time.Now()
					together(b, callers, n, do)
					took[i] += time.Since(began)
				}
				done += n
				left -= n
			}
			b.ReportMetric(float64(done)/took[0].Seconds(), "offers/s")
			b.ReportMetric(float64(done)/took[1].Seconds(), "jobs/s")
			b.ReportMetric(took[1].Seconds()/took[0].Seconds(), "offers/job")
		})
	}
}

func together(b *testing.B, callers, n int, do func() error) {
	var wg sync.WaitGroup
	var left atomic.Int64
	left.Store(int64(n))
	for range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := do(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}
