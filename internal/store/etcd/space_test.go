package etcd_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/etcd"
	"github.com/portolan-project/portolan/internal/testenv"
)

func noiseJob(n, size int) store.NewJob {
	doc := make([]byte, size)
	_, _ = rand.Read(doc)
	return store.NewJob{ID: fmt.Sprintf("%08d", n), Owner: "alice", Document: doc, Submitted: time.Now(), Event: store.Event{Event: "accepted"}}
}

// fill creates jobs until there is no room, at last none for small ones, and gives their
// number.
func fill(t *testing.T, s *etcd.Store, size int) int {
	t.Helper()
	for n := 0; n < 10000; {
		_, _, err := s.Create(t.Context(), noiseJob(n, size))
		if err == nil {
			n++
			continue
		}
		if e, ok := errors.AsType[*fail.Error](err); !ok || e.Kind != fail.Exhausted || e.Public == "" {
			t.Fatalf("a full store gave %v", err)
		}
		t.Logf("full for jobs of %d bytes after %d jobs: %v", size, n, err)
		if size /= 8; size < 1<<10 {
			return n
		}
	}
	t.Fatal("the store is never full")
	return 0
}

// stillServes checks that reads, changes and refusals are as they must be when
// there is no room for new jobs.
func stillServes(t *testing.T, s *etcd.Store, jobs int) {
	t.Helper()
	if err := s.Health(t.Context()); !fail.Is(err, fail.Exhausted) || fail.Sentence(err) == "" {
		t.Errorf("Health gave %v", err)
	}
	all, err := s.List(t.Context(), store.ListOptions{Limit: 100000})
	if err != nil || len(all) < jobs {
		t.Fatalf("List gave %d jobs of %d, %v", len(all), jobs, err)
	}
	if _, err := s.Document(t.Context(), all[0].ID); err != nil {
		t.Errorf("Document: %v", err)
	}
	sess, err := s.Join(t.Context(), "r")
	if err != nil {
		t.Fatalf("Join: %v", err)
	}
	defer sess.Close()
	out := s.Update(t.Context(), sess, store.Change{ID: all[0].ID, Revision: all[0].Revision, Status: store.Status{Phase: "done"}, Events: []store.Event{{Event: "x"}}})
	if out[0].Err != nil {
		t.Errorf("a change of a job that exists: %v", out[0].Err)
	}
}

// eventually waits for a condition by asking the store, as its callers would.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); <-tick.C {
		if cond() {
			return
		}
	}
	t.Fatalf("waited in vain until %s", what)
}

func TestQuota(t *testing.T) {
	dir := t.TempDir()
	s := open(t, etcd.Options{Dir: dir, QuotaBytes: 96 << 20})
	jobs := fill(t, s, 200<<10)
	if jobs < 50 {
		t.Errorf("96 MiB were full after %d jobs of 200 KiB", jobs)
	}
	stillServes(t, s, jobs)
	// When room is made, it takes jobs again by itself.
	if _, err := etcd.Client(s).Delete(t.Context(), "/portolan/v1/doc/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the store takes jobs again", func() bool {
		_, _, err := s.Create(t.Context(), noiseJob(99999, 1<<10))
		return err == nil
	})
	if err := s.Health(t.Context()); err != nil {
		t.Errorf("Health gave %v", err)
	}
}

// TestAlarm: etcd's own alarm, which stops every write and outlasts the process.
func TestAlarm(t *testing.T) {
	dir := t.TempDir()
	s := open(t, etcd.Options{Dir: dir, QuotaBytes: 64 << 20})
	job, _, err := s.Create(t.Context(), noiseJob(0, 10))
	if err != nil {
		t.Fatal(err)
	}
	sess, err := s.Join(t.Context(), "r")
	if err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("x", 1<<20)
	for i := 0; !errors.Is(err, rpctypes.ErrNoSpace); i++ { // a busy machine has time-outs, too
		if i == 200 {
			t.Fatalf("etcd raises no alarm: %v", err)
		}
		_, err = etcd.Client(s).Put(t.Context(), fmt.Sprint("/other/", i), big)
	}
	c := store.Change{ID: job.ID, Revision: job.Revision, Status: store.Status{Phase: "x"}}
	lost := false // the lease, while etcd was slow
	select {
	case <-sess.Lost():
		lost = true
	default:
	}
	if out := s.Update(t.Context(), sess, c); !fail.Is(out[0].Err, fail.Exhausted) && !(lost && fail.Is(out[0].Err, fail.Conflict)) {
		t.Errorf("Update under an alarm gave %v", out[0].Err)
	}
	if _, _, err := s.Create(t.Context(), noiseJob(1, 10)); !fail.Is(err, fail.Exhausted) {
		t.Errorf("Create under an alarm gave %v", err)
	}
	if err := s.Health(t.Context()); !fail.Is(err, fail.Exhausted) {
		t.Errorf("Health under an alarm gave %v", err)
	}
	if jobs, err := s.Get(t.Context(), job.ID); err != nil || len(jobs) != 1 {
		t.Errorf("Get under an alarm gave %v, %v", jobs, err)
	}
	_ = s.Close()
	// A larger quota is the way out that the sentence names.
	s = open(t, etcd.Options{Dir: dir, QuotaBytes: 160 << 20})
	sess, err = s.Join(t.Context(), "r")
	eventually(t, "a larger quota ends the alarm", func() bool {
		if err != nil {
			sess, err = s.Join(t.Context(), "r")
			return false
		}
		out := s.Update(t.Context(), sess, c)[0].Err
		if fail.Is(out, fail.Conflict) { // the lease is lost
			sess, err = s.Join(t.Context(), "r")
		}
		return out == nil
	})
}

func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=160m"); err != nil {
		testenv.Missing(t, "a small file system can't be mounted here (%v): run as root", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("the small file system can't be unmounted: %v", err)
		}
	})
	return dir
}

// fillChild fills a disk of which nothing is kept free, until etcd dies of it, and
// says how that looks.
func fillChild() {
	ctx := context.Background()
	s, err := etcd.Open(ctx, etcd.Options{Dir: os.Getenv("PORTOLAN_STORE_FILL"), ReserveBytes: 1})
	if err != nil {
		fmt.Println("open:", err)
		return
	}
	etcd.Reckless(s)
	for n := 0; err == nil; n++ {
		_, _, err = s.Create(ctx, noiseJob(n, 100<<10))
	}
	fmt.Println("create:", fail.KindOf(err))
	<-s.Failed()
	_, err = s.Get(ctx, "00000000")
	fmt.Println("get:", fail.KindOf(err))
	err = s.Health(ctx)
	fmt.Println("health:", fail.KindOf(err), fail.Sentence(err))
	fmt.Println("watch:", fail.KindOf(s.Watch(ctx, 0, func([]store.Job) {})))
	fmt.Println("close:", s.Close())
}

// TestDeathOfEtcd: when etcd's disk fails under it in spite of everything, it would
// end the process. It must not: the gateway says what happened.
func TestDeathOfEtcd(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "PORTOLAN_STORE_FILL="+filepath.Join(smallDisk(t), "data"))
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	t.Logf("%s", out)
	if err != nil {
		t.Fatalf("the process ended by itself: %v", err)
	}
	// The last creation was on its way, or came after.
	if !strings.Contains(string(out), "create: uncertain\n") && !strings.Contains(string(out), "create: unavailable\n") {
		t.Error("the creation that met it does not say so")
	}
	for _, want := range []string{"get: unavailable\n", "health: unavailable the store has stopped", "no space left", "watch: unavailable\n", "close: <nil>\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("it does not say %q", want)
		}
	}
}

// TestDiskFull fills a small file system, at first with jobs and then with
// somebody else's file to the last byte.
func TestDiskFull(t *testing.T) {
	dir := smallDisk(t)
	s := open(t, etcd.Options{Dir: filepath.Join(dir, "data")})
	jobs := fill(t, s, 100<<10)
	if jobs < 50 {
		t.Errorf("160 MiB were full after %d jobs of 100 KiB", jobs)
	}
	stillServes(t, s, jobs)

	other := filepath.Join(dir, "other")
	f, err := os.Create(other)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for {
		if _, err := f.Write(make([]byte, 4096)); err != nil {
			break
		}
	}
	sess, err := s.Join(t.Context(), "r")
	if err != nil {
		t.Logf("Join on a full disk: %v", err)
	}
	all, err := s.List(t.Context(), store.ListOptions{})
	if err != nil || len(all) < jobs {
		t.Fatalf("List on a full disk gave %d jobs of %d, %v", len(all), jobs, err)
	}
	eventually(t, "changes are refused", func() bool {
		out := s.Update(t.Context(), sess, store.Change{ID: all[0].ID, Revision: all[0].Revision, Status: store.Status{Phase: "done"}})
		if out[0].Err == nil {
			all[0].Revision = out[0].Revision
		}
		return fail.Is(out[0].Err, fail.Exhausted)
	})
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "changes are taken again", func() bool {
		out := s.Update(t.Context(), sess, store.Change{ID: all[0].ID, Revision: all[0].Revision, Status: store.Status{Phase: "done"}})
		if fail.Is(out[0].Err, fail.Conflict) {
			// One whose answer was lost was made all the same, or the lease ran out meanwhile.
			if now, err := s.Get(t.Context(), all[0].ID); err == nil {
				all[0] = now[all[0].ID]
			}
			if again, err := s.Join(t.Context(), "r"); err == nil {
				sess = again
			}
		}
		return out[0].Err == nil
	})
	select {
	case <-s.Failed():
		t.Error("etcd died of a full disk")
	default:
	}
	if _, _, err := s.Create(t.Context(), noiseJob(99999, 10)); !fail.Is(err, fail.Exhausted) {
		t.Errorf("Create at the reserve gave %v", err)
	}
	_ = s.Close()
}
