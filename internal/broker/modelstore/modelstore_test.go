package modelstore_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/portolan-project/portolan/internal/broker/modelstore"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/faulty"
	"github.com/portolan-project/portolan/internal/store/mem"
	"github.com/portolan-project/portolan/resourcemodel"
)

func TestMain(m *testing.M) {
	if os.Getenv("PORTOLAN_MODEL_CHILD") != "" {
		child()
		return
	}
	goleak.VerifyTestMain(m)
}

var slurm = resourcemodel.Key{Site: "slurm"}

func static(cpus int) *resourcemodel.Static {
	return &resourcemodel.Static{
		Stamp: resourcemodel.Stamp{Source: "slurm by slurmrestd v0.0.40"}, Type: "slurm",
		Shares:       []resourcemodel.Share{{ID: "long", Environments: []string{"node"}, Slots: 100}},
		Environments: []resourcemodel.Environment{{ID: "node", CPUs: cpus, OperatingSystem: "LINUX"}},
	}
}

func dynamic(free, waiting int) *resourcemodel.Dynamic {
	return &resourcemodel.Dynamic{
		Stamp: resourcemodel.Stamp{Source: "slurm by slurmrestd v0.0.40"}, Up: true,
		Shares:       map[string]resourcemodel.ShareState{"long": {Open: true, Running: 10, Waiting: waiting, FreeSlots: 90}},
		Environments: map[string]resourcemodel.EnvironmentState{"node": {Nodes: 100, Available: 100, FreeCPUs: free}},
	}
}

// replica is a Model that runs.
type replica struct {
	*modelstore.Model
	st   store.Store
	sess store.Session
}

func start(t testing.TB, st store.Store, name string, o modelstore.Options) *replica {
	t.Helper()
	return startOn(t, st, st, name, o)
}

// startOn starts one whose records may be elsewhere than its session.
func startOn(t testing.TB, st store.Store, records store.Records, name string, o modelstore.Options) *replica {
	t.Helper()
	o.Replica = name
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	m, err := modelstore.Open(t.Context(), records, o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := m.Run(ctx); !fail.Is(err, fail.Unavailable) {
			t.Errorf("Run gave %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	sess, err := st.Join(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sess.Close() })
	return &replica{m, st, sess}
}

func memory(t testing.TB) *mem.Store {
	s := mem.New()
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// feed feeds a site and waits until this replica's own snapshot has it.
func (r *replica) feed(t testing.TB, k resourcemodel.Key, s *resourcemodel.Static, d *resourcemodel.Dynamic) int64 {
	t.Helper()
	revision, err := r.Feed(t.Context(), r.sess, k, s, d)
	if err != nil {
		t.Fatalf("Feed(%s): %v", k, err)
	}
	r.await(t, revision)
	return revision
}

func (r *replica) await(t testing.TB, revision int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := r.Reached(ctx, revision); err != nil {
		t.Fatalf("revision %d does not come: %v", revision, err)
	}
}

// revision gives the store's.
func revision(t testing.TB, st store.Store) int64 {
	t.Helper()
	_, at, err := st.ListRecords(t.Context(), "none/", store.RecordOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func free(s *resourcemodel.Snapshot, k resourcemodel.Key) int {
	site := s.Site(k)
	if site == nil || site.Dynamic == nil {
		return -1
	}
	return site.Dynamic.Environments["node"].FreeCPUs
}

func wantSame(t testing.TB, what string, got, want *resourcemodel.Snapshot) {
	t.Helper()
	if d := resourcemodel.Diff(want, got); len(d.Changes) > 0 {
		t.Errorf("%s differs: %+v", what, d.Changes)
	}
}

func wantKind(t testing.TB, err error, kind fail.Kind) {
	t.Helper()
	if !fail.Is(err, kind) {
		t.Errorf("the error is %v; want one of kind %q", err, kind)
	}
}

func TestReplicasSeeTheSame(t *testing.T) {
	st := memory(t)
	a, b := start(t, st, "a", modelstore.Options{}), start(t, st, "b", modelstore.Options{})
	a.feed(t, slurm, static(64), dynamic(10, 0))
	away := resourcemodel.Key{Domain: "lab.example", Site: "slurm"}
	at := b.feed(t, away, static(32), nil)
	a.await(t, at)
	b.await(t, at)
	if got := a.Snapshot(); got.Len() != 2 || free(got, slurm) != 10 || got.Site(away).Static.Environments[0].CPUs != 32 || got.Revision() != at {
		t.Errorf("a sees %d sites at revision %d; the last change has %d", got.Len(), got.Revision(), at)
	}
	wantSame(t, "b's snapshot", b.Snapshot(), a.Snapshot())
	if a.Snapshot().Revision() != b.Snapshot().Revision() {
		t.Errorf("the snapshots are of revision %d and %d", a.Snapshot().Revision(), b.Snapshot().Revision())
	}
	// One that comes later sees it too.
	c := start(t, st, "c", modelstore.Options{})
	wantSame(t, "c's snapshot", c.Snapshot(), a.Snapshot())
	if c.Snapshot().Revision() != at {
		t.Errorf("c's snapshot is of revision %d; want %d", c.Snapshot().Revision(), at)
	}
	// Only one feeds a site.
	if _, err := b.Feed(t.Context(), b.sess, slurm, nil, dynamic(0, 0)); !fail.Is(err, fail.Conflict) {
		t.Errorf("feeding another's site gave %v", err)
	}
	_, err := b.Remove(t.Context(), b.sess, slurm)
	wantKind(t, err, fail.Conflict)
	if b.Feeder(slurm) != "a" || b.Feeder(away) != "b" {
		t.Errorf("the feeders are %q and %q", b.Feeder(slurm), b.Feeder(away))
	}
	// A feeder that dies is followed by another, on from the same versions.
	st.Expire("a")
	b.await(t, revision(t, st))
	at = b.feed(t, slurm, nil, dynamic(0, 0))
	c.await(t, at)
	a.await(t, at) // else it takes what it is told next for something to be written later
	if d := c.Snapshot().Site(slurm).Dynamic; d.Version != 2 || free(c.Snapshot(), slurm) != 0 {
		t.Errorf("after the takeover the dynamic part is %+v", d)
	}
	_, err = a.Feed(t.Context(), a.sess, slurm, nil, dynamic(1, 0))
	wantKind(t, err, fail.Conflict)
	// Gone is gone everywhere.
	at, err = b.Remove(t.Context(), b.sess, slurm)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []*replica{a, b, c} {
		r.await(t, at)
		if s := r.Snapshot(); s.Len() != 1 || s.Site(slurm) != nil || s.Revision() != at {
			t.Errorf("after the removal there are %d sites at revision %d", s.Len(), s.Revision())
		}
	}
	if again, err := b.Remove(t.Context(), b.sess, slurm); err != nil || again != 0 {
		t.Errorf("removing nothing gave %d, %v", again, err)
	}
	// And may come again.
	c.await(t, b.feed(t, slurm, static(16), dynamic(3, 0)))
	if free(c.Snapshot(), slurm) != 3 {
		t.Error("a site that came again is not seen")
	}
}

func TestWeigh(t *testing.T) {
	base := dynamic(100, 50)
	with := func(change func(d *resourcemodel.Dynamic)) *resourcemodel.Dynamic {
		d := dynamic(100, 50)
		change(d)
		return d
	}
	node := func(e resourcemodel.EnvironmentState) func(*resourcemodel.Dynamic) {
		return func(d *resourcemodel.Dynamic) { d.Environments["node"] = e }
	}
	for _, c := range []struct {
		what     string
		old, now *resourcemodel.Dynamic
		want     any
	}{
		{"the same", base, dynamic(100, 50), modelstore.Nothing},
		{"not asked", base, nil, modelstore.Nothing},
		{"the first", nil, base, modelstore.Urgent},
		{"4 of 100", base, dynamic(96, 50), modelstore.Noise},
		{"5 of 100, up", base, dynamic(105, 50), modelstore.Noise},
		{"6 of 100", base, dynamic(94, 50), modelstore.News},
		{"twice the waiting", base, dynamic(100, 100), modelstore.News},
		{"none waits", base, dynamic(100, 0), modelstore.News},
		{"none free", base, dynamic(0, 50), modelstore.Urgent},
		{"some free", dynamic(0, 50), dynamic(1, 50), modelstore.Urgent},
		{"down", base, with(func(d *resourcemodel.Dynamic) { d.Up = false }), modelstore.Urgent},
		{"another problem", base, with(func(d *resourcemodel.Dynamic) { d.Problem = "slow" }), modelstore.News},
		{"closed", base, with(func(d *resourcemodel.Dynamic) {
			d.Shares["long"] = resourcemodel.ShareState{Running: 10, Waiting: 50, FreeSlots: 90}
		}), modelstore.Urgent},
		{"another share", base, with(func(d *resourcemodel.Dynamic) { d.Shares["new"] = resourcemodel.ShareState{} }), modelstore.Urgent},
		{"another environment", base, with(func(d *resourcemodel.Dynamic) { d.Environments["new"] = resourcemodel.EnvironmentState{} }), modelstore.Urgent},
		{"a licence", base, with(func(d *resourcemodel.Dynamic) { d.Consumables = map[string]int64{"matlab": 1} }), modelstore.Urgent},
		{"memory came", base, with(node(resourcemodel.EnvironmentState{Nodes: 100, Available: 100, FreeCPUs: 100, FreeMemory: 1})), modelstore.Urgent},
		{"nodes gone", base, with(node(resourcemodel.EnvironmentState{Nodes: 80, Available: 80, FreeCPUs: 100})), modelstore.News},
		{"no node fit", base, with(node(resourcemodel.EnvironmentState{Nodes: 100, FreeCPUs: 100})), modelstore.Urgent},
	} {
		if got := modelstore.Weigh(c.old, c.now, 0.05); got != c.want {
			t.Errorf("%s weighs %v; want %v", c.what, got, c.want)
		}
	}
}

func TestWritesOnlyWhatMatters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory(t)
		a, b := start(t, st, "a", modelstore.Options{}), start(t, st, "b", modelstore.Options{})
		a.feed(t, slurm, static(64), dynamic(100, 0))
		wrote := func(want int64, do func()) {
			t.Helper()
			before := revision(t, st)
			do()
			synctest.Wait()
			if got := revision(t, st) - before; got != want {
				t.Errorf("this cost %d revisions; want %d", got, want)
			}
		}
		feed := func(d *resourcemodel.Dynamic) { t.Helper(); a.feed(t, slurm, static(64), d) }
		time.Sleep(time.Minute / 2)
		wrote(0, func() { feed(dynamic(100, 0)); feed(dynamic(98, 0)); feed(dynamic(103, 0)) })
		wrote(1, func() { feed(dynamic(50, 0)) })
		// Within the interval what comes is put together.
		wrote(0, func() {
			for n := range 20 {
				feed(dynamic(40-n, n))
				time.Sleep(200 * time.Millisecond)
			}
		})
		wrote(1, func() { time.Sleep(2 * time.Second) })
		if got := free(b.Snapshot(), slurm); got != 21 {
			t.Errorf("b sees %d free CPUs; want the last, 21", got)
		}
		// What goes back to what was written is no change.
		wrote(0, func() { feed(dynamic(30, 19)); feed(dynamic(21, 19)); time.Sleep(20 * time.Second) })
		// The last one that is free, and the first, count at once.
		wrote(4, func() { feed(dynamic(0, 19)); feed(dynamic(1, 19)); feed(dynamic(0, 19)); feed(dynamic(7, 19)) })
		if got := free(b.Snapshot(), slurm); got != 7 {
			t.Errorf("b sees %d free CPUs; want 7", got)
		}
		// A static part counts at once, and takes with it what waits.
		wrote(1, func() { a.feed(t, slurm, static(128), dynamic(14, 19)) })
		wrote(0, func() { time.Sleep(20 * time.Second) })
		if s := b.Snapshot().Site(slurm); s.Static.Environments[0].CPUs != 128 || s.Static.Version != 2 || free(b.Snapshot(), slurm) != 14 {
			t.Errorf("b sees %+v", s.Static)
		}
	})
}

func TestAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory(t)
		a, b := start(t, st, "a", modelstore.Options{}), start(t, st, "b", modelstore.Options{})
		age := func(r *replica, want time.Duration) {
			t.Helper()
			synctest.Wait()
			if got, ok := r.Age(slurm); !ok || got != want {
				t.Errorf("the age is %v, %v; want %v", got, ok, want)
			}
		}
		if _, ok := a.Age(slurm); ok {
			t.Error("a site that is not known has an age")
		}
		for range 10 { // the same again confirms
			a.feed(t, slurm, static(64), dynamic(1, 0))
			time.Sleep(30 * time.Second)
		}
		age(a, 30*time.Second)
		age(b, 0) // by the claim
		before := revision(t, st)
		time.Sleep(30 * time.Second) // now it is silent
		age(a, time.Minute)
		age(b, 0)
		time.Sleep(time.Hour)
		age(b, time.Hour)
		if b.Feeder(slurm) != "" || revision(t, st) != before+1 {
			t.Errorf("a silent site is fed by %q, and that cost %d revisions", b.Feeder(slurm), revision(t, st)-before)
		}
		a.feed(t, slurm, static(64), dynamic(1, 0))
		age(b, 0)
		if revision(t, st) != before+2 {
			t.Error("hearing of a site again must cost one revision")
		}
		st.Expire("a")
		time.Sleep(time.Hour)
		age(b, time.Hour)
		// Nobody knows more than the record, after a restart.
		c := start(t, st, "c", modelstore.Options{})
		if got, ok := c.Age(slurm); !ok || got < 2*time.Hour {
			t.Errorf("after a restart the age is %v, %v", got, ok)
		}
	})
}

func TestHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := memory(t)
		o := modelstore.Options{HistoryChanges: 40, Interval: -1}
		a, b := start(t, st, "a", o), start(t, st, "b", o)
		began := time.Now()
		var want []*resourcemodel.Snapshot
		var when []time.Time
		keys := []resourcemodel.Key{slurm, {Site: "condor"}, {Domain: "lab", Site: "x"}}
		for n := range 200 {
			time.Sleep(time.Minute)
			k := keys[n%len(keys)]
			if n%37 == 36 {
				at, err := a.Remove(t.Context(), a.sess, k)
				if err != nil {
					t.Fatal(err)
				}
				a.await(t, at)
			} else {
				a.feed(t, k, static(n/10), dynamic(n*n, n))
			}
			want, when = append(want, a.Snapshot()), append(when, time.Now())
			time.Sleep(time.Minute / 2)
			synctest.Wait()
			if lines, _ := b.Lines(); lines > 40 {
				t.Fatalf("the history has %d lines; its bound is 40", lines)
			}
		}
		if lines, _ := a.Lines(); lines < 20 {
			t.Errorf("the history has %d lines only", lines)
		}
		kept := 0
		h, err := b.History(t.Context(), resourcemodel.HistoryOptions{})
		if err != nil {
			t.Fatal(err)
		}
		wantSame(t, "the history's head", h.Head(), a.Snapshot())
		if n, _ := b.Lines(); h.Len() != n || h.Head().Revision() != a.Snapshot().Revision() {
			t.Errorf("the history has %d deltas up to revision %d; want %d up to %d", h.Len(), h.Head().Revision(), n, a.Snapshot().Revision())
		}
		for i, w := range want {
			if got, err := h.At(when[i]); err == nil {
				wantSame(t, fmt.Sprintf("the history's model at %v", when[i]), got, w)
			}
			for _, r := range []*replica{a, b} {
				got, err := r.At(t.Context(), when[i])
				if err != nil {
					wantKind(t, err, fail.NotFound)
					if kept > 0 {
						t.Errorf("what was at %v is not kept, and what was before is", when[i])
					}
					continue
				}
				kept++
				wantSame(t, fmt.Sprintf("the model at %v", when[i]), got, w)
			}
		}
		if kept < 2*30 {
			t.Errorf("of %d states %d can be asked for", 2*len(want), kept)
		}
		if _, err := a.At(t.Context(), began); !fail.Is(err, fail.NotFound) {
			t.Errorf("what was at the beginning gave %v", err)
		}
		now, err := b.At(t.Context(), time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		wantSame(t, "base and lines together", now, a.Snapshot())
		changes, err := a.Changes(t.Context(), when[189], 5)
		if err != nil || len(changes) != 5 || !changes[0].At.Equal(when[190]) || changes[4].Revision <= changes[0].Revision {
			t.Errorf("the changes are %+v, %v", changes, err)
		}
		// What is old is folded too, to the last line.
		time.Sleep(8 * 24 * time.Hour)
		synctest.Wait()
		if lines, bytes := b.Lines(); lines != 0 || bytes != 0 {
			t.Errorf("after a week of nothing the history has %d lines of %d bytes", lines, bytes)
		}
		if now, err = b.At(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
		wantSame(t, "the base", now, a.Snapshot())
	})
}

func TestBounds(t *testing.T) {
	st := memory(t)
	a := start(t, st, "a", modelstore.Options{MaxSites: 2})
	a.feed(t, slurm, static(1), nil)
	a.feed(t, resourcemodel.Key{Site: "b"}, static(1), nil)
	_, err := a.Feed(t.Context(), a.sess, resourcemodel.Key{Site: "c"}, static(1), nil)
	wantKind(t, err, fail.Exhausted)
	_, err = a.Feed(t.Context(), a.sess, resourcemodel.Key{Site: "a/b"}, static(1), nil)
	wantKind(t, err, fail.Invalid)
	_, err = a.Feed(t.Context(), nil, slurm, static(1), nil)
	wantKind(t, err, fail.Invalid)
	bad := static(-1)
	_, err = a.Feed(t.Context(), a.sess, slurm, bad, nil)
	wantKind(t, err, fail.Invalid)
	// As large as a site may be, both parts and the line of the history in one transaction.
	large := static(1)
	large.Environments = nil
	large.Shares = nil
	for n := range 3000 {
		e := resourcemodel.Environment{ID: fmt.Sprintf("environment-%04d", n), OperatingSystem: "LINUX", CPUArchitecture: "x86_64", CPUs: 64, Memory: 1 << 38}
		for h := range 8 {
			e.HostNames = append(e.HostNames, fmt.Sprintf("node-%04d.cluster.example", 8*n+h))
		}
		large.Environments = append(large.Environments, e)
	}
	a.feed(t, slurm, large, dynamic(1, 1))
	if got := len(a.Snapshot().Site(slurm).Static.Environments); got != 3000 {
		t.Errorf("the large site came back with %d environments", got)
	}
	for what, o := range map[string]modelstore.Options{
		"dead-band": {DeadBand: 1}, "silence": {Silence: time.Millisecond}, "sites": {MaxSites: -1},
		"changes": {HistoryChanges: -1}, "bytes": {HistoryBytes: -1}, "age": {HistoryAge: -1},
	} {
		_, err := modelstore.Open(t.Context(), st, o)
		if !fail.Is(err, fail.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestDamaged: a record that can't be read harms no other, and is written anew.
func TestDamaged(t *testing.T) {
	st := memory(t)
	a := start(t, st, "a", modelstore.Options{})
	a.feed(t, slurm, static(8), dynamic(1, 1))
	at, err := st.PutRecords(t.Context(), nil,
		store.RecordChange{Key: "model/%/slurm/static", Value: []byte("sxyz"), If: -1},
		store.RecordChange{Key: "model/%/condor/dynamic", Value: []byte("p{}{}"), If: -1},
		store.RecordChange{Key: "model/%/condor/mood", Value: []byte("good"), If: -1},
		store.RecordChange{Key: "model/of/a/newer/gateway", Value: []byte("x"), If: -1})
	if err != nil {
		t.Fatal(err)
	}
	a.await(t, at)
	if s := a.Snapshot(); s.Len() != 1 || s.Site(slurm).Static.Environments[0].CPUs != 8 {
		t.Error("what was known before does not stand")
	}
	b := start(t, st, "b", modelstore.Options{})
	if b.Snapshot().Len() != 0 {
		t.Error("a site without a static part is seen")
	}
	at = a.feed(t, slurm, static(8), dynamic(1, 1))
	b.await(t, at)
	wantSame(t, "b's snapshot", b.Snapshot(), a.Snapshot())
	b.feed(t, resourcemodel.Key{Site: "condor"}, static(4), dynamic(2, 2))
}

func TestUpdates(t *testing.T) {
	st := memory(t)
	a := start(t, st, "a", modelstore.Options{Interval: -1})
	a.feed(t, slurm, static(1), dynamic(1, 0))
	var mu sync.Mutex
	own := resourcemodel.Empty()
	told := 0
	stop := a.Updates(func(d resourcemodel.Delta) {
		mu.Lock()
		defer mu.Unlock()
		told++
		var err error
		if own, err = own.Apply(d); err != nil {
			t.Errorf("a delta does not fit: %v", err)
		}
		wantSame(t, "what the deltas make", own, a.Snapshot())
		if own.Revision() != a.Snapshot().Revision() {
			t.Errorf("the delta leads to revision %d; the snapshot has %d", own.Revision(), a.Snapshot().Revision())
		}
	})
	for n := range 50 {
		a.feed(t, resourcemodel.Key{Site: fmt.Sprint("s", n%7)}, static(n), dynamic(n*2, n))
		if n%9 == 8 {
			at, err := a.Remove(t.Context(), a.sess, resourcemodel.Key{Site: fmt.Sprint("s", n%7)})
			if err != nil {
				t.Fatal(err)
			}
			a.await(t, at)
		}
	}
	stop()
	mu.Lock()
	defer mu.Unlock()
	if told < 10 {
		t.Errorf("%d deltas were told", told)
	}
	wantSame(t, "what the deltas made", own, a.Snapshot())
}

// TestFaults: whatever the store does, the replicas agree in the end, with what was fed
// last, and the history makes the same of it.
func TestFaults(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st := memory(t)
				o := modelstore.Options{HistoryChanges: 20, Interval: time.Second, Log: slog.New(slog.DiscardHandler)}
				bad := faulty.New(st, nil)
				a, b := start(t, bad, "a", o), start(t, bad, "b", o)
				bad.Follow(faulty.Seeded(seed, faulty.Rates{Unavailable: 0.1, Lost: 0.1, Delay: 0.1, Longest: time.Second}))
				dice := rand.New(rand.NewPCG(seed, 1))
				last := map[resourcemodel.Key]*resourcemodel.Dynamic{}
				for n := range 300 {
					r := []*replica{a, b}[dice.IntN(2)]
					k := resourcemodel.Key{Site: fmt.Sprint("s", dice.IntN(3))}
					d := dynamic(dice.IntN(4)*dice.IntN(100), 0)
					if _, err := r.Feed(t.Context(), r.sess, k, static(8+dice.IntN(2)), d); err == nil {
						last[k] = d
					}
					if dice.IntN(10) == 0 {
						_, _ = r.Remove(t.Context(), r.sess, k)
					}
					if n%50 == 49 {
						st.Compact()
					}
					time.Sleep(time.Duration(dice.IntN(3000)) * time.Millisecond)
				}
				bad.Follow(nil)
				time.Sleep(2 * time.Minute)
				for k, d := range last {
					r := a
					if _, err := a.Feed(t.Context(), a.sess, k, static(9), d); err != nil {
						r = b
						if _, err := b.Feed(t.Context(), b.sess, k, static(9), d); err != nil {
							t.Fatal(err)
						}
					}
					time.Sleep(10 * time.Second)
					if got, want := free(r.Snapshot(), k), d.Environments["node"].FreeCPUs; got != want && float64(max(got, want)-min(got, want)) > 0.05*float64(min(got, want)) {
						t.Errorf("%s has %d free CPUs; %d were fed", k, got, want)
					}
				}
				synctest.Wait()
				wantSame(t, "b's snapshot", b.Snapshot(), a.Snapshot())
				at, err := a.At(t.Context(), time.Now())
				if err != nil {
					t.Fatal(err)
				}
				wantSame(t, "the history", at, a.Snapshot())
				c := start(t, st, "c", o)
				wantSame(t, "a new replica's snapshot", c.Snapshot(), a.Snapshot())
				if lines, _ := c.Lines(); lines > 20 {
					t.Errorf("the history has %d lines", lines)
				}
			})
		})
	}
}

// Before the first that is remembered nothing was believed, which is not the same as that
// there were no sites.
func TestBeforeTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := start(t, memory(t), "a", modelstore.Options{})
		_, err := a.At(t.Context(), time.Now())
		if wantKind(t, err, fail.NotFound); !strings.Contains(fail.Sentence(err), "nothing is remembered of them yet") {
			t.Error(err)
		}
		time.Sleep(90*time.Minute + time.Millisecond)
		before := time.Now().Add(-time.Nanosecond)
		if _, err := a.Feed(t.Context(), a.sess, slurm, static(4), dynamic(4, 0)); err != nil {
			t.Fatal(err)
		}
		_, err = a.At(t.Context(), before)
		if wantKind(t, err, fail.NotFound); !strings.Contains(fail.Sentence(err), "nothing is known of the sites at 2000-01-01T01:30:00Z: the first that is remembered of them is of 2000-01-01T01:30:01Z") {
			t.Error(err)
		}
		for _, at := range []time.Time{time.Now(), time.Date(2000, 1, 1, 1, 30, 1, 0, time.UTC)} {
			if m, err := a.At(t.Context(), at); err != nil || m.Site(slurm) == nil {
				t.Errorf("at %s: %v", at, err)
			}
		}
		// A model that was emptied is known to be empty.
		if _, err := a.Remove(t.Context(), a.sess, slurm); err != nil {
			t.Fatal(err)
		}
		if m, err := a.At(t.Context(), time.Now().Add(time.Second)); err != nil || m.Site(slurm) != nil {
			t.Errorf("%v", err)
		}
	})
}
