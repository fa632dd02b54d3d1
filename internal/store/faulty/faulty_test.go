package faulty_test

import (
	"fmt"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/faulty"
	"github.com/portolan-project/portolan/internal/store/mem"
	"github.com/portolan-project/portolan/internal/store/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestHonest: without faults it is a store like any other.
func TestHonest(t *testing.T) {
	inner := map[store.Store]*mem.Store{}
	open := func(t testing.TB, m *mem.Store) store.Store {
		s := faulty.New(m, nil)
		inner[s] = m
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	storetest.Run(t, storetest.Maker{
		Open:        func(t testing.TB) store.Store { return open(t, mem.New()) },
		Reopen:      func(t testing.TB, s store.Store) store.Store { return open(t, inner[s].Reopen()) },
		Compact:     func(_ testing.TB, s store.Store) { inner[s].Compact() },
		Expire:      func(_ testing.TB, s store.Store, _ store.Session, replica string) { inner[s].Expire(replica) },
		MaxDocument: 1 << 20,
	})
}

func job(n int) store.NewJob {
	return store.NewJob{ID: fmt.Sprintf("%04d", n), Owner: "alice", Document: []byte("x"), Submitted: time.Unix(0, 0)}
}

func TestFaults(t *testing.T) {
	m := mem.New()
	var next faulty.Fault
	s := faulty.New(m, func(faulty.Op) faulty.Fault { f := next; next = faulty.Fault{}; return f })
	there := func(n int) bool {
		jobs, err := m.Get(t.Context(), job(n).ID)
		return err == nil && len(jobs) == 1
	}
	next = faulty.Fault{Before: fail.Exhausted}
	if _, _, err := s.Create(t.Context(), job(1)); !fail.Is(err, fail.Exhausted) || there(1) {
		t.Errorf("refused: %v, and it is there: %v", err, there(1))
	}
	next = faulty.Fault{After: true}
	if _, created, err := s.Create(t.Context(), job(1)); !fail.Is(err, fail.Uncertain) || created || !there(1) {
		t.Errorf("lost: %v %v, and it is there: %v", created, err, there(1))
	}
	sess, err := s.Join(t.Context(), "r")
	if err != nil {
		t.Fatal(err)
	}
	jobs, _ := m.Get(t.Context(), job(1).ID)
	change := store.Change{ID: job(1).ID, Revision: jobs[job(1).ID].Revision, Status: store.Status{Phase: "new"}}
	next = faulty.Fault{After: true}
	if out := s.Update(t.Context(), sess, change); !fail.Is(out[0].Err, fail.Uncertain) {
		t.Errorf("lost: %v", out)
	}
	jobs, _ = m.Get(t.Context(), job(1).ID)
	if jobs[job(1).ID].Status.Phase != "new" {
		t.Errorf("an update whose answer was lost was not done: %+v", jobs)
	}
	next = faulty.Fault{Lose: true}
	change.Revision = jobs[job(1).ID].Revision
	if out := s.Update(t.Context(), sess, change); !fail.Is(out[0].Err, fail.Conflict) {
		t.Errorf("after the session was lost: %v", out)
	}
	<-sess.Lost()
	next = faulty.Fault{After: true}
	emitted := 0
	if err := s.Watch(t.Context(), 0, func(jobs []store.Job) { emitted++ }); !fail.Is(err, fail.Unavailable) || emitted != 1 {
		t.Errorf("a watch that breaks: %v after %d", err, emitted)
	}
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		next = faulty.Fault{Delay: time.Hour}
		if err := s.Health(t.Context()); err != nil || time.Since(began) != time.Hour {
			t.Errorf("a late call: %v after %v", err, time.Since(began))
		}
	})
}

func TestSeededIsRepeatable(t *testing.T) {
	rates := faulty.Rates{Unavailable: 0.2, Exhausted: 0.1, Lost: 0.2, Expire: 0.1, Delay: 0.3, Longest: time.Second}
	run := func(seed uint64) (faults []faulty.Fault) {
		script := faulty.Seeded(seed, rates)
		for range 500 {
			faults = append(faults, script(faulty.Create), script(faulty.Update), script(faulty.Get))
		}
		return faults
	}
	a := run(1)
	if !reflect.DeepEqual(a, run(1)) || reflect.DeepEqual(a, run(2)) {
		t.Error("a seed does not decide the script")
	}
	var seen struct{ refused, full, lost, expired, late int }
	for i, f := range a {
		if f.Before == fail.Exhausted {
			seen.full++
		}
		if f.Before == fail.Unavailable {
			seen.refused++
		}
		if f.After {
			seen.lost++
		}
		if f.Lose {
			seen.expired++
		}
		if f.Delay > 0 {
			seen.late++
		}
		if i%3 == 2 && (f.Before == fail.Exhausted || f.Lose) {
			t.Errorf("a read got %+v", f)
		}
	}
	if seen.full == 0 || seen.refused == 0 || seen.lost == 0 || seen.expired == 0 || seen.late == 0 {
		t.Errorf("some faults never happen: %+v", seen)
	}
}

func TestRecordFaults(t *testing.T) {
	m := mem.New()
	var next faulty.Fault
	s := faulty.New(m, func(faulty.Op) faulty.Fault { f := next; next = faulty.Fault{}; return f })
	sess, err := s.Join(t.Context(), "r")
	if err != nil {
		t.Fatal(err)
	}
	there := func() int {
		records, _, err := m.ListRecords(t.Context(), "", store.RecordOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return len(records)
	}
	one := store.RecordChange{Key: "one", Value: []byte("x")}
	next = faulty.Fault{Before: fail.Exhausted}
	if _, err := s.PutRecords(t.Context(), sess, one); !fail.Is(err, fail.Exhausted) || there() != 0 {
		t.Errorf("refused: %v, and %d are there", err, there())
	}
	next = faulty.Fault{After: true}
	if _, err := s.PutRecords(t.Context(), sess, one); !fail.Is(err, fail.Uncertain) || there() != 1 {
		t.Errorf("lost: %v, and %d are there", err, there())
	}
	next = faulty.Fault{After: true}
	if records, at, err := s.ListRecords(t.Context(), "", store.RecordOptions{}); !fail.Is(err, fail.Unavailable) || records != nil || at != 0 {
		t.Errorf("a list whose answer was lost gave %v at %d, %v", records, at, err)
	}
	next = faulty.Fault{After: true}
	emitted := 0
	if err := s.WatchRecords(t.Context(), "", 0, func([]store.Record, int64) { emitted++ }); !fail.Is(err, fail.Unavailable) || emitted != 1 {
		t.Errorf("a watch that breaks: %v after %d", err, emitted)
	}
	next = faulty.Fault{Lose: true}
	if _, err := s.PutRecords(t.Context(), sess, store.RecordChange{Key: "two", Value: []byte("x")}); !fail.Is(err, fail.Conflict) || there() != 1 {
		t.Errorf("after the session was lost: %v, and %d are there", err, there())
	}
	<-sess.Lost()
}
