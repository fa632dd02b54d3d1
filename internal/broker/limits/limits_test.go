package limits_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/portolan-project/portolan/internal/broker/limits"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/etcd"
	"github.com/portolan-project/portolan/internal/store/faulty"
	"github.com/portolan-project/portolan/internal/store/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type replica struct {
	*limits.Limiter
	sess store.Session
}

func start(t testing.TB, st store.Store, name string) *replica {
	t.Helper()
	l, err := limits.Open(t.Context(), st, limits.Options{Replica: name, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = l.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	sess, err := st.Join(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sess.Close() })
	return &replica{l, sess}
}

func memory(t testing.TB) *mem.Store {
	s := mem.New()
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func set(t testing.TB, r *replica, subject string, most int) {
	t.Helper()
	s, err := limits.ParseSubject(subject)
	if err == nil {
		err = r.Set(t.Context(), "root", s, most)
	}
	if err != nil {
		t.Fatalf("Set(%s): %v", subject, err)
	}
}

// reserve counts how many of the uses there is room for; other errors fail the test.
func (r *replica) reserve(t testing.TB, uses ...limits.Use) (n int, refusal error) {
	t.Helper()
	for _, err := range r.Reserve(t.Context(), r.sess, uses...) {
		switch {
		case err == nil:
			n++
		case fail.Is(err, fail.NotAccepting):
			refusal = err
		default:
			t.Fatalf("Reserve: %v", err)
		}
	}
	return n, refusal
}

func times(n int, u limits.Use) []limits.Use {
	uses := make([]limits.Use, n)
	for i := range uses {
		uses[i] = u
	}
	return uses
}

func revision(t testing.TB, st store.Store) int64 {
	t.Helper()
	_, at, err := st.ListRecords(t.Context(), "none/", store.RecordOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// used gives "subject=used/max" of the limits.
func used(r *replica) string {
	var out []string
	for _, s := range r.Limits() {
		out = append(out, fmt.Sprintf("%s=%d/%d", s.Subject, s.Used, s.Max))
	}
	return strings.Join(out, " ")
}

func wantUsed(t testing.TB, r *replica, want string) {
	t.Helper()
	if got := used(r); got != want {
		t.Errorf("the limits are %q; want %q", got, want)
	}
}

func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory(t)
		a, b := start(t, st, "a"), start(t, st, "b")
		ann := limits.Use{User: "ann", VO: "bio", Site: "slurm"}
		before := revision(t, st)
		if n, _ := a.reserve(t, times(1000, ann)...); n != 1000 {
			t.Errorf("without limits %d of 1000 are reserved", n)
		}
		a.Release(times(1000, ann)...)
		synctest.Wait()
		if got := revision(t, st); got != before {
			t.Errorf("without limits this cost %d revisions", got-before)
		}
		set(t, a, "user:*", 5)
		set(t, a, "vo:bio", 8)
		set(t, b, "site:slurm", 7)
		synctest.Wait()
		before = revision(t, st)
		n, err := a.reserve(t, times(6, ann)...)
		if n != 5 || !strings.Contains(fail.Sentence(err), "the user ann has 5 live jobs and may have 5: wait until one has ended or cancel one") {
			t.Errorf("%d of 6 are reserved, and the user is told %q", n, fail.Sentence(err))
		}
		if got := revision(t, st); got != before+1 {
			t.Errorf("a round cost %d revisions; want 1", got-before)
		}
		synctest.Wait()
		if n, err = b.reserve(t, limits.Use{User: "ann"}); n != 0 || err == nil {
			t.Error("the other replica does not know of the five")
		}
		n, err = b.reserve(t, times(3, limits.Use{User: "bob", VO: "bio", Site: "slurm"})...)
		if n != 2 || !strings.Contains(fail.Sentence(err), "the site slurm has 7 jobs and may have 7") || !strings.Contains(fail.Sentence(err), "another site") {
			t.Errorf("%d of 3 are reserved, and the user is told %q", n, fail.Sentence(err))
		}
		n, err = b.reserve(t, times(2, limits.Use{User: "bob", VO: "bio"})...)
		if n != 1 || !strings.Contains(fail.Sentence(err), "the VO bio has 8 live jobs and may have 8") {
			t.Errorf("%d of 2 are reserved, and the user is told %q", n, fail.Sentence(err))
		}
		synctest.Wait()
		wantUsed(t, a, "site:slurm=7/7 user:*=5/5 vo:bio=8/8")
		wantUsed(t, b, "site:slurm=7/7 user:*=5/5 vo:bio=8/8")
		if got := b.Room(limits.Use{User: "cat"}); got != 5 {
			t.Errorf("there is room for %d of cat; want 5", got)
		}
		if got := b.Room(ann); got != 0 {
			t.Errorf("there is room for %d of ann; want 0", got)
		}
		if got := b.Room(limits.Use{VO: "chem"}); got >= 0 {
			t.Errorf("there is room for %d of a VO without a limit", got)
		}
		// What ends makes room, over there too.
		a.Release(ann, ann)
		synctest.Wait()
		if n, _ := b.reserve(t, times(9, ann)...); n != 2 {
			t.Errorf("after two have ended %d are reserved", n)
		}
		// A limit of one's own stands before that of everybody; a lower one ends nothing.
		set(t, a, "user:ann", 1)
		synctest.Wait()
		wantUsed(t, b, "site:slurm=7/7 user:*=3/5 user:ann=5/1 vo:bio=8/8")
		if err := b.Unset(t.Context(), "root", limits.Subject{Scope: limits.User, Name: "ann"}); err != nil {
			t.Fatal(err)
		}
		// Nothing is kept of what has ended.
		a.Release(times(3, ann)...)
		b.Release(ann, ann)
		b.Release(times(2, limits.Use{User: "bob", VO: "bio", Site: "slurm"})...)
		b.Release(limits.Use{User: "bob", VO: "bio"})
		synctest.Wait()
		wantUsed(t, a, "site:slurm=0/7 user:*=0/5 vo:bio=0/8")
		if left, _, err := st.ListRecords(t.Context(), "limits/used/", store.RecordOptions{}); err != nil || len(left) != 0 {
			t.Errorf("counts are left: %+v, %v", left, err)
		}
	})
}

// TestLimitComesLater: what was counted in memory is written when it gets a limit.
func TestLimitComesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory(t)
		a, b := start(t, st, "a"), start(t, st, "b")
		ann := limits.Use{User: "ann"}
		a.reserve(t, times(3, ann)...)
		b.reserve(t, times(4, ann)...)
		set(t, b, "user:ann", 8)
		synctest.Wait()
		wantUsed(t, a, "user:ann=7/8")
		if n, _ := a.reserve(t, times(5, ann)...); n != 1 {
			t.Errorf("%d are reserved; want 1", n)
		}
		if err := a.Unset(t.Context(), "root", limits.Subject{Scope: limits.User, Name: "ann"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n, _ := b.reserve(t, times(100, ann)...); n != 100 {
			t.Errorf("without a limit %d of 100 are reserved", n)
		}
		if left, _, err := st.ListRecords(t.Context(), "limits/", store.RecordOptions{}); err != nil || len(left) != 1 || left[0].Key != "limits/changes" {
			t.Errorf("without limits these are left: %+v, %v", left, err)
		}
		cs, err := a.Changes(t.Context())
		if err != nil || len(cs) != 2 || cs[0].Who != "root" || cs[0].Before == nil || *cs[0].Before != 8 || cs[0].After != nil || cs[1].Before != nil || *cs[1].After != 8 || cs[1].Name != "ann" {
			t.Errorf("the changes are %+v, %v", cs, err)
		}
		before := revision(t, st)
		if err := a.Unset(t.Context(), "root", limits.Subject{Scope: limits.User, Name: "ann"}); err != nil || revision(t, st) != before {
			t.Errorf("taking away what is not there: %v", err)
		}
	})
}

// TestCPUs: a limit of CPUs counts those of the jobs, and a job for which there is no room
// does not keep a smaller one out.
func TestCPUs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory(t)
		a, b := start(t, st, "a"), start(t, st, "b")
		set(t, a, "site-cpus:slurm", 10)
		set(t, a, "user-cpus:*", 12)
		synctest.Wait()
		at := func(cpus int) limits.Use { return limits.Use{Site: "slurm", CPUs: cpus} }
		if n, _ := a.reserve(t, at(4), at(4)); n != 2 {
			t.Errorf("%d of 2 are reserved", n)
		}
		n, err := b.reserve(t, at(4), at(2), at(0))
		if n != 1 || !strings.Contains(fail.Sentence(err), "the site slurm has 10 CPUs and may have 10, and the job asks for 1") {
			t.Errorf("%d of 3 are reserved: %v", n, err)
		}
		synctest.Wait()
		wantUsed(t, a, "site-cpus:slurm=10/10 user-cpus:*=0/12")
		a.Release(at(4))
		synctest.Wait()
		if got := b.Room(at(2)); got != 2 {
			t.Errorf("there is room for %d of 2 CPUs; want 2", got)
		}
		ann := limits.Use{User: "ann", CPUs: 7}
		if err := b.Full(ann); err != nil {
			t.Error(err)
		}
		a.reserve(t, ann)
		synctest.Wait()
		if err := b.Full(ann); !fail.Is(err, fail.NotAccepting) || !strings.Contains(fail.Sentence(err), "the user ann has live jobs with 7 CPUs and may have 12, and the job asks for 7") {
			t.Error(err)
		}
		if s, ok := b.Of(limits.Subject{Scope: limits.UserCPUs, Name: "ann"}); !ok || s.Subject.Name != limits.Everybody || s.Max != 12 || s.Used != 7 {
			t.Errorf("%v %+v", ok, s)
		}
		if _, ok := b.Of(limits.Subject{Scope: limits.User, Name: "ann"}); ok {
			t.Error("there is no limit of jobs")
		}
	})
}

// TestChanged: who asked to be told is told of what others write, and of limits set here.
func TestChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory(t)
		var told atomic.Int64
		l, err := limits.Open(t.Context(), st, limits.Options{Replica: "a", Changed: func() { told.Add(1) }})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go func() { _ = l.Run(ctx) }()
		b := start(t, st, "b")
		synctest.Wait()
		set(t, b, "site:slurm", 3)
		synctest.Wait()
		n := told.Load()
		if n == 0 {
			t.Error("nobody told of a limit")
		}
		b.reserve(t, limits.Use{Site: "slurm"})
		synctest.Wait()
		if told.Load() == n {
			t.Error("nobody told of what another counts")
		}
		if got := l.Others(); len(got) != 1 || got[0] != "b" {
			t.Errorf("the others are %q", got)
		}
	})
}

func TestCrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory(t)
		a, b := start(t, st, "a"), start(t, st, "b")
		set(t, a, "user:*", 10)
		synctest.Wait()
		ann, bob := limits.Use{User: "ann"}, limits.Use{User: "bob"}
		a.reserve(t, append(times(6, ann), times(2, bob)...)...)
		b.reserve(t, times(3, ann)...)
		// a dies with four of ann's placed, and comes back.
		again := start(t, st, "a")
		if n, _ := again.reserve(t, times(5, ann)...); n != 1 {
			t.Errorf("before it counts anew %d are reserved; want 1", n)
		}
		if err := again.Recount(t.Context(), again.sess, times(4, ann)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		wantUsed(t, b, "user:*=7/10")
		// b dies and does not come back; one of its jobs had ended.
		if err := again.Adopt(t.Context(), again.sess, "b", times(2, ann)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		wantUsed(t, again, "user:*=6/10")
		if n, _ := again.reserve(t, times(9, ann)...); n != 4 {
			t.Errorf("after the takeover %d are reserved; want 4", n)
		}
		records, _, err := st.ListRecords(t.Context(), "limits/used/", store.RecordOptions{})
		if err != nil || len(records) != 1 || string(records[0].Value) != `{"a":10}` {
			t.Errorf("the counts are %+v, %v", records, err)
		}
		if errs := a.Reserve(t.Context(), a.sess, bob); !fail.Is(errs[0], fail.Conflict) {
			t.Errorf("the process that died reserves: %v", errs)
		}
		if err := again.Adopt(t.Context(), again.sess, "a", nil); !fail.Is(err, fail.Invalid) {
			t.Errorf("adopting one's own gave %v", err)
		}
	})
}

func TestRefuses(t *testing.T) {
	st := memory(t)
	a := start(t, st, "a")
	for _, text := range []string{"", "ann", "user:", "queue:x", "user:" + strings.Repeat("x", 2000)} {
		s, err := limits.ParseSubject(text)
		if !fail.Is(err, fail.Invalid) {
			t.Errorf("%q is %v, %v", text, s, err)
		}
		if err := a.Set(t.Context(), "root", s, 1); !fail.Is(err, fail.Invalid) {
			t.Errorf("setting a limit of %q gave %v", text, err)
		}
	}
	for _, most := range []int{-1, limits.MaxLimit + 1} {
		if err := a.Set(t.Context(), "root", limits.Subject{Scope: limits.User, Name: "ann"}, most); !fail.Is(err, fail.Invalid) {
			t.Errorf("a limit of %d gave %v", most, err)
		}
	}
	// Names are anything: a key takes them.
	for _, name := range []string{"/C=DE/O=Grid/CN=Ann B", "ann:b", "ü", "%", "%2A"} {
		set(t, a, "user:"+name, 1)
		if n, _ := a.reserve(t, times(2, limits.Use{User: name})...); n != 1 {
			t.Errorf("of %q %d are reserved; want 1", name, n)
		}
	}
	set(t, a, "user:*", 0)
	if n, err := a.reserve(t, limits.Use{User: "dan"}); n != 0 || err == nil {
		t.Error("a limit of none lets one through")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range a.Reserve(ctx, a.sess, limits.Use{User: "%"}) {
		if err != nil && !fail.Is(err, fail.Unavailable) && !fail.Is(err, fail.NotAccepting) {
			t.Errorf("a cancelled call gave %v", err)
		}
	}
}

var most = map[string]int{"user:ann": 7, "user:bob": 9, "user:*": 5, "vo:bio": 14, "site:slurm": 11}

// setAll sets the limits of the races, and waits until all replicas know them.
func setAll(t *testing.T, replicas ...*replica) []*replica {
	for s, n := range most {
		set(t, replicas[0], s, n)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for tries := 0; ; tries++ {
		knowing := 0
		for _, r := range replicas {
			if len(r.Limits()) == len(most) {
				knowing++
			}
		}
		if knowing == len(replicas) {
			return replicas
		}
		if tries == 20_000 {
			t.Fatal("the limits do not reach all replicas")
		}
		<-tick.C
	}
}

// race has replicas reserve and release at once, and checks at every moment that no more
// jobs live than the limits allow.
func race(t *testing.T, replicas []*replica, rounds int, seed uint64) {
	var live sync.Map
	count := func(u limits.Use, n int64) {
		for _, s := range []string{"user:" + u.User, "vo:" + u.VO, "site:" + u.Site} {
			c, _ := live.LoadOrStore(s, new(atomic.Int64))
			now := c.(*atomic.Int64).Add(n)
			limit, ok := most[s]
			if !ok && strings.HasPrefix(s, "user:") {
				limit, ok = most["user:*"], true
			}
			if ok && now > int64(limit) {
				t.Errorf("%s has %d live jobs; its limit is %d", s, now, limit)
			}
		}
	}
	var granted, refused atomic.Int64
	var wg sync.WaitGroup
	for i, r := range replicas {
		for g := range 4 {
			wg.Go(func() {
				dice := rand.New(rand.NewPCG(seed, uint64(i*10+g)))
				var mine []limits.Use
				for range rounds {
					uses := make([]limits.Use, 1+dice.IntN(5))
					for k := range uses {
						uses[k] = limits.Use{
							User: []string{"ann", "bob", "cat", "dan"}[dice.IntN(4)], VO: []string{"bio", "chem"}[dice.IntN(2)], Site: []string{"slurm", "condor"}[dice.IntN(2)],
						}
					}
					for k, err := range r.Reserve(t.Context(), r.sess, uses...) {
						switch {
						case err == nil:
							granted.Add(1)
							count(uses[k], 1)
							mine = append(mine, uses[k])
						case fail.Is(err, fail.NotAccepting):
							refused.Add(1)
						case !fail.Is(err, fail.Uncertain) && !fail.Is(err, fail.Unavailable):
							t.Errorf("Reserve: %v", err)
						}
					}
					n := dice.IntN(len(mine) + 1)
					for _, u := range mine[:n] {
						count(u, -1)
					}
					r.Release(mine[:n]...)
					mine = mine[n:]
				}
				for _, u := range mine {
					count(u, -1)
				}
				r.Release(mine...)
			})
		}
	}
	wg.Wait()
	if granted.Load() == 0 || refused.Load() == 0 {
		t.Errorf("%d were reserved and %d refused: nothing was tried", granted.Load(), refused.Load())
	}
	t.Logf("%d were reserved, %d refused", granted.Load(), refused.Load())
}

// settled waits until nothing counts any more.
func settled(t *testing.T, st store.Store) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	left := map[string]bool{}
	records, at, err := st.ListRecords(ctx, "limits/used/", store.RecordOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		left[r.Key] = true
	}
	if len(left) == 0 {
		return
	}
	_ = st.WatchRecords(ctx, "limits/used/", at, func(records []store.Record, _ int64) {
		for _, r := range records {
			if left[r.Key] = true; r.Value == nil {
				delete(left, r.Key)
			}
		}
		if len(left) == 0 {
			cancel()
		}
	})
	if len(left) > 0 {
		t.Errorf("when all has ended these count still: %v", left)
	}
}

func TestRace(t *testing.T) {
	st := memory(t)
	race(t, setAll(t, start(t, st, "a"), start(t, st, "b"), start(t, st, "c")), 200, 1)
	settled(t, st)
}

func TestRaceWithFaults(t *testing.T) {
	for seed := range uint64(8) {
		synctest.Test(t, func(t *testing.T) {
			inner := memory(t)
			st := faulty.New(inner, nil)
			replicas := setAll(t, start(t, st, "a"), start(t, st, "b"))
			st.Follow(faulty.Seeded(seed, faulty.Rates{Unavailable: 0.05, Lost: 0.1, Delay: 0.2, Longest: 100 * time.Millisecond}))
			race(t, replicas, 60, seed)
			st.Follow(nil)
			time.Sleep(time.Minute)
			synctest.Wait()
			settled(t, inner)
		})
	}
}

func TestRaceOnEtcd(t *testing.T) {
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
	<-e.Server.ReadyNotify()
	var replicas []*replica
	var st store.Store
	for _, name := range []string{"a", "b"} {
		s, err := etcd.Open(t.Context(), etcd.Options{Endpoints: []string{e.Clients[0].Addr().String()}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		replicas, st = append(replicas, start(t, s, name)), s
	}
	race(t, setAll(t, replicas...), 60, 1)
	settled(t, st)
	// As many subjects as one call may bring, in transactions that etcd takes.
	set(t, replicas[0], "user:*", 2)
	var uses []limits.Use
	for i := range 500 {
		u := limits.Use{User: fmt.Sprint("user ", i)}
		uses = append(uses, u, u, u)
	}
	before := revision(t, st)
	if n, _ := replicas[0].reserve(t, uses...); n != 1000 {
		t.Errorf("%d are reserved; want 1000", n)
	}
	t.Logf("1000 jobs of 500 users cost %d revisions", revision(t, st)-before)
	if err := replicas[0].Recount(t.Context(), replicas[0].sess, nil); err != nil {
		t.Fatal(err)
	}
	settled(t, st)
}

// slow is a store that tells nothing while it is deaf, before it has heard.
type slow struct {
	store.Store
	deaf  *atomic.Bool
	heard chan struct{}
}

func (s slow) WatchRecords(ctx context.Context, prefix string, after int64, emit func([]store.Record, int64)) error {
	return s.Store.WatchRecords(ctx, prefix, after, func(rs []store.Record, revision int64) {
		if s.deaf.Load() {
			<-s.heard
		}
		emit(rs, revision)
	})
}

// TestLostAnswer: after a write whose answer is lost, what the record says is read before
// it is relied on. Else a count that was lowered in the store and not here is taken for
// one that others see.
func TestLostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ann := limits.Use{User: "ann"}
		inner := memory(t)
		heard := make(chan struct{})
		defer close(heard)
		var deaf, lost atomic.Bool
		st := faulty.New(slow{inner, &deaf, heard}, nil)
		a := start(t, st, "a")
		set(t, a, "user:ann", 2)
		b := start(t, inner, "b")
		if n, err := a.reserve(t, times(2, ann)...); n != 2 {
			t.Fatal(err)
		}
		synctest.Wait()
		deaf.Store(true)
		st.Follow(func(op faulty.Op) faulty.Fault {
			return faulty.Fault{After: op == faulty.PutRecords && lost.CompareAndSwap(false, true)}
		})
		a.Release(ann)
		synctest.Wait()
		if !lost.Load() {
			t.Fatal("no answer was lost")
		}
		if n, err := a.reserve(t, ann); n != 1 {
			t.Fatal(err)
		}
		if n, _ := b.reserve(t, ann); n != 0 {
			t.Error("the limit is 2, and there are 3")
		}
	})
}
