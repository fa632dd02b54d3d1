package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// watcher collects what a watch emits.
type watcher struct {
	jobs   chan store.Job
	ended  chan error
	cancel context.CancelFunc
}

func watch(t testing.TB, s store.Store, after int64) *watcher {
	ctx, cancel := context.WithCancel(t.Context())
	w := &watcher{jobs: make(chan store.Job, 1<<16), ended: make(chan error, 1), cancel: cancel}
	var wg sync.WaitGroup
	wg.Go(func() {
		w.ended <- s.Watch(ctx, after, func(jobs []store.Job) {
			for _, j := range jobs {
				w.jobs <- j
			}
		})
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return w
}

// until reads up to and with the job at the revision, and checks the order.
func (w *watcher) until(t testing.TB, last store.Job) []store.Job {
	t.Helper()
	var got []store.Job
	for {
		j := await(t, w.jobs, fmt.Sprintf("%s at revision %d", last.ID, last.Revision))
		if len(got) > 0 && j.Revision < got[len(got)-1].Revision {
			t.Fatalf("revision %d came after %d", j.Revision, got[len(got)-1].Revision)
		}
		got = append(got, j)
		if j.ID == last.ID && j.Revision == last.Revision {
			if !reflect.DeepEqual(j, last) {
				t.Fatalf("Watch gave\n%+v, want\n%+v", j, last)
			}
			return got
		}
	}
}

func watchInOrder(t *testing.T, m Maker) {
	s := m.Open(t)
	w := watch(t, s, 0)
	sess := join(t, s, "r")
	type version struct {
		id       string
		revision int64
	}
	var mu sync.Mutex
	written := map[version]store.Job{}
	note := func(j store.Job) {
		mu.Lock()
		defer mu.Unlock()
		written[version{j.ID, j.Revision}] = j
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 10 {
				job := create(t, s, newJob(g*100+i, "alice"))
				note(job)
				for k := range 4 {
					job = update(t, s, sess, change(job, fmt.Sprint(k), k == 3))
					note(job)
				}
			}
		})
	}
	wg.Wait()
	last := create(t, s, newJob(9999, "alice"))
	note(last)
	got := w.until(t, last)
	seen := map[version]bool{}
	for _, j := range got {
		v := version{j.ID, j.Revision}
		if seen[v] {
			t.Errorf("%v came twice", v)
		}
		seen[v] = true
		if !reflect.DeepEqual(j, written[v]) {
			t.Fatalf("Watch gave\n%+v, written was\n%+v", j, written[v])
		}
	}
	if len(got) != len(written) {
		t.Errorf("Watch gave %d changes of %d", len(got), len(written))
	}
	w.cancel()
	if err := await(t, w.ended, "the watch to end"); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled watch gave %v", err)
	}
}

func watchResumes(t *testing.T, m Maker) {
	s := m.Open(t)
	sess := join(t, s, "r")
	var versions []store.Job
	for i := range 30 {
		job := create(t, s, newJob(i, "alice"))
		versions = append(versions, job, update(t, s, sess, change(job, "x", i%2 == 0)))
	}
	last := versions[len(versions)-1]
	for _, i := range []int{0, 1, 20, len(versions) - 2} {
		got := watch(t, s, versions[i].Revision).until(t, last)
		if !reflect.DeepEqual(got, versions[i+1:]) {
			t.Errorf("Watch after change %d gave %v, want %v", i, ids(got), ids(versions[i+1:]))
		}
	}
	w := watch(t, s, last.Revision)
	next := create(t, s, newJob(99, "alice"))
	if got := w.until(t, next); len(got) != 1 {
		t.Errorf("Watch after the last change gave %v", ids(got))
	}
}

// watchSlowConsumer: a consumer that stops for a while loses nothing and holds up
// nobody.
func watchSlowConsumer(t *testing.T, m Maker) {
	s := m.Open(t)
	sess := join(t, s, "r")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stuck, goOn := make(chan struct{}), make(chan struct{})
	var got []store.Job
	ended := make(chan error, 1)
	var once sync.Once
	done := make(chan struct{})
	go func() {
		ended <- s.Watch(ctx, 0, func(jobs []store.Job) {
			once.Do(func() { close(stuck); <-goOn })
			got = append(got, jobs...)
			if got[len(got)-1].ID == id(9999) {
				close(done)
			}
		})
	}()
	job := create(t, s, newJob(1, "alice"))
	await(t, stuck, "the first change")
	const n = 3000
	for i := range n {
		c := change(job, fmt.Sprint(i), false)
		out := s.Update(t.Context(), sess, c)
		if out[0].Err != nil {
			t.Fatal(out[0].Err)
		}
		job.Revision = out[0].Revision
	}
	create(t, s, newJob(9999, "alice"))
	close(goOn)
	await(t, done, "all changes")
	cancel()
	if err := await(t, ended, "the watch to end"); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled watch gave %v", err)
	}
	if len(got) != n+2 || !slices.IsSortedFunc(got, func(a, b store.Job) int { return int(a.Revision - b.Revision) }) {
		t.Errorf("a slow consumer got %d changes of %d, or not in order", len(got), n+2)
	}
}

func watchCompacted(t *testing.T, m Maker) {
	s := m.Open(t)
	sess := join(t, s, "r")
	live := create(t, s, newJob(1, "alice"))
	done := create(t, s, newJob(2, "alice"))
	for i := range 5 {
		done = update(t, s, sess, change(done, fmt.Sprint(i), i == 4))
	}
	m.Compact(t, s)
	// Never having read Live, one may have missed a change.
	wantKind(t, await(t, watch(t, s, live.Revision).ended, "the watch to end"), fail.Conflict)
	// What Live gives is a place to start from, however old it is.
	jobs, err := s.Live(t.Context())
	if err != nil || !slices.Equal(ids(jobs), []string{live.ID}) {
		t.Fatalf("Live gave %v, %v", ids(jobs), err)
	}
	w := watch(t, s, jobs[0].Revision)
	next := create(t, s, newJob(3, "alice"))
	w.until(t, next)
	// The same when nothing is live.
	update(t, s, sess, change(live, "done", true))
	update(t, s, sess, change(next, "done", true))
	m.Compact(t, s)
	wantKind(t, await(t, watch(t, s, 0).ended, "the watch to end"), fail.Conflict)
	if jobs, err := s.Live(t.Context()); err != nil || len(jobs) != 0 {
		t.Fatalf("Live gave %v, %v", ids(jobs), err)
	}
	w = watch(t, s, 0)
	w.until(t, create(t, s, newJob(4, "alice")))
	// Compaction takes revisions, not history.
	if h := history(t, s, done.ID); len(h) != 6 {
		t.Errorf("after compaction the history has %d lines; want 6", len(h))
	}
}

func watchEndsWithStore(t *testing.T, m Maker) {
	s := m.Open(t)
	w := watch(t, s, 0)
	w.until(t, create(t, s, newJob(1, "alice")))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantKind(t, await(t, w.ended, "the watch to end"), fail.Unavailable)
}

func settings(t *testing.T, m Maker) {
	s := m.Open(t)
	if v, ok, err := s.Setting(t.Context(), "a"); err != nil || ok || len(v) != 0 {
		t.Errorf("an unknown setting gave %q, %v, %v", v, ok, err)
	}
	for _, v := range [][]byte{[]byte("1"), {}, []byte("\x00\xff"), nil} {
		if err := s.SetSetting(t.Context(), "a/b", v); err != nil {
			t.Fatal(err)
		}
		if got, ok, err := s.Setting(t.Context(), "a/b"); err != nil || !ok || !bytes.Equal(got, v) {
			t.Errorf("the setting %q came back as %q, %v, %v", v, got, ok, err)
		}
	}
	if _, ok, err := s.Setting(t.Context(), "a"); err != nil || ok {
		t.Errorf("a beginning of a setting's name gave %v, %v", ok, err)
	}
}

func health(t *testing.T, m Maker) {
	s := m.Open(t)
	if err := s.Health(t.Context()); err != nil {
		t.Errorf("Health gave %v", err)
	}
}

func survivesReopening(t *testing.T, m Maker) {
	s := m.Open(t)
	sess := join(t, s, "r")
	var want []store.Job
	for i := range 20 {
		n := newJob(i, "alice")
		n.SubmissionID = fmt.Sprint("key ", i)
		job := create(t, s, n)
		if i%2 == 0 {
			job = update(t, s, sess, change(job, "x", i%4 == 0))
		}
		want = append(want, job)
	}
	slices.Reverse(want)
	if err := s.SetSetting(t.Context(), "name", []byte("value")); err != nil {
		t.Fatal(err)
	}
	s = m.Reopen(t, s)
	got, err := s.List(t.Context(), store.ListOptions{Owner: "alice"})
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("after reopening List gave\n%+v, %v; want\n%+v", got, err, want)
	}
	if v, ok, err := s.Setting(t.Context(), "name"); err != nil || !ok || string(v) != "value" {
		t.Errorf("after reopening the setting is %q, %v, %v", v, ok, err)
	}
	if live, err := s.Live(t.Context()); err != nil || len(live) != 15 {
		t.Errorf("after reopening Live gave %d jobs, %v", len(live), err)
	}
	for i, j := range want {
		if h := history(t, s, j.ID); len(h) != j.Status.Sequence {
			t.Errorf("after reopening job %d has %d lines", i, len(h))
		}
	}
	n := newJob(500, "alice")
	n.SubmissionID, n.Document = "key 3", newJob(3, "").Document
	if job, created, err := s.Create(t.Context(), n); err != nil || created || job.ID != id(3) {
		t.Errorf("after reopening the same submission gave %v, %v, %v", job.ID, created, err)
	}
	// The replica comes back at once under its name.
	young := join(t, s, "r")
	next := update(t, s, young, change(want[0], "again", false))
	if next.Revision <= want[0].Revision || next.Status.Sequence != want[0].Status.Sequence+1 {
		t.Errorf("after reopening an update gave %+v", next)
	}
	watch(t, s, want[0].Revision).until(t, next)
}

func closedIsUnavailable(t *testing.T, m Maker) {
	s := m.Open(t)
	job := create(t, s, newJob(1, "alice"))
	sess := join(t, s, "r")
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	ctx := t.Context()
	for what, do := range map[string]func() error{
		"Create":     func() error { _, _, err := s.Create(ctx, newJob(2, "alice")); return err },
		"Get":        func() error { _, err := s.Get(ctx, job.ID); return err },
		"Document":   func() error { _, err := s.Document(ctx, job.ID); return err },
		"Update":     func() error { return s.Update(ctx, sess, change(job, "x", false))[0].Err },
		"History":    func() error { _, err := s.History(ctx, job.ID, 0); return err },
		"List":       func() error { _, err := s.List(ctx, store.ListOptions{}); return err },
		"Count":      func() error { _, err := s.Count(ctx, ""); return err },
		"Live":       func() error { _, err := s.Live(ctx); return err },
		"Watch":      func() error { return s.Watch(ctx, 0, func([]store.Job) {}) },
		"Setting":    func() error { _, _, err := s.Setting(ctx, "x"); return err },
		"SetSetting": func() error { return s.SetSetting(ctx, "x", nil) },
		"Join":       func() error { _, err := s.Join(ctx, "r"); return err },
		"Health":     func() error { return s.Health(ctx) },
	} {
		if err := do(); !fail.Is(err, fail.Unavailable) {
			t.Errorf("%s of a closed store gave %v", what, err)
		}
	}
	_ = sess.Close()
}
