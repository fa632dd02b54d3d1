package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

func createAndRead(t *testing.T, m Maker) {
	s := m.Open(t)
	n := newJob(1, "alice")
	n.SubmissionID = "first"
	n.Submitted = epoch.In(time.FixedZone("somewhere", 3600))
	job := create(t, s, n)
	want := store.Job{
		ID: n.ID, Owner: "alice", Name: n.Name, SubmissionID: "first", DocumentSum: sha256.Sum256(n.Document),
		Submitted: epoch, Status: store.Status{Phase: "queued", Sequence: 1}, Revision: job.Revision,
	}
	if !reflect.DeepEqual(job, want) || job.Revision <= 0 {
		t.Errorf("Create gave\n%+v, want\n%+v", job, want)
	}
	if got := get(t, s, n.ID); !reflect.DeepEqual(got, want) {
		t.Errorf("Get gave\n%+v, want\n%+v", got, want)
	}
	doc, err := s.Document(t.Context(), n.ID)
	if err != nil || !bytes.Equal(doc, n.Document) {
		t.Errorf("Document gave %q, %v", doc, err)
	}
	n.Event.Sequence = 1
	if got := history(t, s, n.ID); !reflect.DeepEqual(got, []store.Event{n.Event}) {
		t.Errorf("History gave %+v, want %+v", got, n.Event)
	}
	jobs, err := s.Get(t.Context(), id(7), n.ID, n.ID)
	if err != nil || len(jobs) != 1 {
		t.Errorf("Get of a known and an unknown job gave %v, %v", jobs, err)
	}
	if jobs, err := s.Get(t.Context()); err != nil || len(jobs) != 0 {
		t.Errorf("Get of nothing gave %v, %v", jobs, err)
	}
	_, err = s.Document(t.Context(), id(7))
	wantKind(t, err, fail.NotFound)
	_, err = s.History(t.Context(), id(7), 0)
	wantKind(t, err, fail.NotFound)
}

func createIsIdempotent(t *testing.T, m Maker) {
	s := m.Open(t)
	n := newJob(1, "alice")
	n.SubmissionID = "key"
	first := create(t, s, n)

	again := newJob(2, "alice")
	again.SubmissionID, again.Document = "key", n.Document
	job, created, err := s.Create(t.Context(), again)
	if err != nil || created || !reflect.DeepEqual(job, first) {
		t.Errorf("the same submission gave created %v, %v\n%+v, want\n%+v", created, err, job, first)
	}
	again.Document = []byte("another")
	_, _, err = s.Create(t.Context(), again)
	wantKind(t, err, fail.Conflict)

	// Another owner's key is another key; no key at all is never the same.
	other := newJob(3, "bob")
	other.SubmissionID = "key"
	create(t, s, other)
	create(t, s, newJob(4, "alice"))
	create(t, s, newJob(5, "alice"))

	// The same id.
	job, created, err = s.Create(t.Context(), newJob(4, "alice"))
	if err != nil || created || job.ID != id(4) {
		t.Errorf("the same job gave created %v, %v, %+v", created, err, job)
	}
	for what, spoil := range map[string]func(*store.NewJob){
		"document":     func(n *store.NewJob) { n.Document = []byte("another") },
		"owner":        func(n *store.NewJob) { n.Owner = "bob" },
		"SubmissionID": func(n *store.NewJob) { n.SubmissionID = "new" },
	} {
		n := newJob(4, "alice")
		spoil(&n)
		if _, _, err := s.Create(t.Context(), n); !fail.Is(err, fail.Conflict) {
			t.Errorf("the same id with another %s gave %v", what, err)
		}
	}
	// What was refused left nothing behind.
	n = newJob(6, "alice")
	n.SubmissionID = "new"
	create(t, s, n)
	if c, err := s.Count(t.Context(), ""); err != nil || c != 5 {
		t.Errorf("Count gave %d, %v; want 5", c, err)
	}
	// The existing job is given as it is now.
	sess := join(t, s, "r")
	now := update(t, s, sess, change(first, "running", false))
	n = newJob(9, "alice")
	n.SubmissionID, n.Document = "key", newJob(1, "").Document
	job, created, err = s.Create(t.Context(), n)
	if err != nil || created || !reflect.DeepEqual(job, now) {
		t.Errorf("the same submission gave created %v, %v\n%+v, want\n%+v", created, err, job, now)
	}
}

func createAtOnce(t *testing.T, m Maker) {
	s := m.Open(t)
	const workers, each = 16, 20
	var mu sync.Mutex
	created := map[string]int{}    // by key
	gave := map[string][]string{}  // ids by key
	conflicts := map[string]bool{} // keys
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				n := newJob(w*each+i, "alice")
				n.SubmissionID = fmt.Sprintf("key %d", i)
				n.Document = []byte("same")
				if i == 0 && w%2 == 1 {
					n.Document = []byte("different")
				}
				job, made, err := s.Create(t.Context(), n)
				mu.Lock()
				switch {
				case fail.Is(err, fail.Conflict):
					conflicts[n.SubmissionID] = true
				case err != nil:
					t.Errorf("Create: %v", err)
				default:
					gave[n.SubmissionID] = append(gave[n.SubmissionID], job.ID)
					if made {
						created[n.SubmissionID]++
					}
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for i := range each {
		key := fmt.Sprintf("key %d", i)
		if created[key] != 1 || len(slices.Compact(gave[key])) != 1 {
			t.Errorf("%s: %d were created, the answers were %v", key, created[key], slices.Compact(gave[key]))
		}
		if conflicts[key] != (i == 0) {
			t.Errorf("%s: conflict %v", key, conflicts[key])
		}
	}
	if c, err := s.Count(t.Context(), "alice"); err != nil || c != each {
		t.Errorf("Count gave %d, %v; want %d", c, err, each)
	}
	// The same id from many at once.
	made := make(chan bool, workers)
	for range workers {
		wg.Go(func() {
			_, created, err := s.Create(t.Context(), newJob(10000, "bob"))
			if err != nil {
				t.Errorf("Create: %v", err)
			}
			made <- created
		})
	}
	wg.Wait()
	close(made)
	n := 0
	for c := range made {
		if c {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d of %d alike creations say that they created the job", n, workers)
	}
}

func createRefuses(t *testing.T, m Maker) {
	s := m.Open(t)
	long := strings.Repeat("x", store.MaxKey+1)
	for what, spoil := range map[string]func(*store.NewJob){
		"no id":               func(n *store.NewJob) { n.ID = "" },
		"no owner":            func(n *store.NewJob) { n.Owner = "" },
		"a long id":           func(n *store.NewJob) { n.ID = long },
		"a long owner":        func(n *store.NewJob) { n.Owner = long },
		"a long SubmissionID": func(n *store.NewJob) { n.SubmissionID = long },
	} {
		n := newJob(1, "alice")
		spoil(&n)
		_, _, err := s.Create(t.Context(), n)
		if e, ok := errors.AsType[*fail.Error](err); !ok || e.Kind != fail.Invalid || e.Public == "" {
			t.Errorf("%s gave %v", what, err)
		}
	}
	if c, err := s.Count(t.Context(), ""); err != nil || c != 0 {
		t.Errorf("Count gave %d, %v; want 0", c, err)
	}
}

// createCancelled: who gives up spoils nothing for the others, and learns whether
// it may have happened.
func createCancelled(t *testing.T, m Maker) {
	s := m.Open(t)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := s.Create(gone, newJob(0, "alice"))
	if !fail.Is(err, fail.Unavailable) && !fail.Is(err, fail.Uncertain) {
		t.Errorf("a cancelled Create gave %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := 1; i <= 64; i++ {
		wg.Go(func() {
			if i%2 == 0 {
				create(t, s, newJob(i, "alice"))
				return
			}
			_, _, err := s.Create(ctx, newJob(i, "alice"))
			if err != nil && !fail.Is(err, fail.Unavailable) && !fail.Is(err, fail.Uncertain) {
				t.Errorf("a cancelled Create gave %v", err)
			}
			if i == 1 {
				cancel()
			}
		})
	}
	wg.Wait()
	cancel()
	for i := 2; i <= 64; i += 2 {
		get(t, s, id(i))
	}
}

func documents(t *testing.T, m Maker) {
	s := m.Open(t)
	noise := func(n int) []byte {
		r := rand.NewChaCha8([32]byte{byte(n)})
		b := make([]byte, n)
		_, _ = r.Read(b)
		return b
	}
	docs := map[string][]byte{
		"nil": nil, "empty": {}, "one zero": {0}, "binary": noise(1 << 10), "marks": []byte("\xef\xbb\xbf<a/>\r\n\x00\xff"),
		"repeating": bytes.Repeat([]byte("<jsdl:Argument>x</jsdl:Argument>\n"), 30000),
		"64 KiB":    noise(64 << 10), "1 MiB": noise(1 << 20), "3 MiB": noise(3 << 20), "largest": noise(m.MaxDocument),
		"largest, repeating": bytes.Repeat([]byte("a"), m.MaxDocument),
	}
	i := 0
	for what, doc := range docs {
		i++
		n := newJob(i, "alice")
		n.Document = doc
		job := create(t, s, n)
		if job.DocumentSum != sha256.Sum256(doc) {
			t.Errorf("%s: the sum is wrong", what)
		}
		got, err := s.Document(t.Context(), n.ID)
		if err != nil || !bytes.Equal(got, doc) {
			t.Errorf("%s: Document gave %d bytes of %d, %v", what, len(got), len(doc), err)
		}
	}
	// Large ones at once, and beside small ones.
	var wg sync.WaitGroup
	for w := range 6 {
		wg.Go(func() {
			n := newJob(100+w, "alice")
			if w%2 == 0 {
				n.Document = noise(m.MaxDocument - w)
			}
			create(t, s, n)
			got, err := s.Document(t.Context(), n.ID)
			if err != nil || !bytes.Equal(got, n.Document) {
				t.Errorf("Document gave %d bytes of %d, %v", len(got), len(n.Document), err)
			}
		})
	}
	wg.Wait()
	jobs, err := s.List(t.Context(), store.ListOptions{})
	if err != nil || len(jobs) != len(docs)+6 {
		t.Errorf("List gave %d jobs, %v", len(jobs), err)
	}
}

func liveLeavesOutFinal(t *testing.T, m Maker) {
	s := m.Open(t)
	if jobs, err := s.Live(t.Context()); err != nil || len(jobs) != 0 {
		t.Fatalf("Live of an empty store gave %v, %v", jobs, err)
	}
	sess := join(t, s, "r")
	var want []string
	for _, i := range rand.Perm(200) { //nolint:gosec // an order for a test
		job := create(t, s, newJob(i, "alice"))
		if i%3 == 0 {
			update(t, s, sess, change(job, "done", true))
			continue
		}
		want = append(want, job.ID)
	}
	done := newJob(1000, "alice")
	done.Status.Final = true
	create(t, s, done)
	slices.Sort(want)
	jobs, err := s.Live(t.Context())
	if err != nil || !slices.Equal(ids(jobs), want) {
		t.Errorf("Live gave %v, %v; want %v", ids(jobs), err, want)
	}
	for _, j := range jobs {
		if got := get(t, s, j.ID); !reflect.DeepEqual(got, j) {
			t.Fatalf("Live gave\n%+v, Get\n%+v", j, got)
		}
	}
}

func listPages(t *testing.T, m Maker) {
	s := m.Open(t)
	owners := []string{"alice", "bob", "al"}
	want := map[string][]string{}
	for _, i := range rand.Perm(150) { //nolint:gosec // an order for a test
		o := owners[i%3]
		create(t, s, newJob(i, o))
		want[o] = append(want[o], id(i))
		want[""] = append(want[""], id(i))
	}
	sess := join(t, s, "r")
	for i := range 40 {
		update(t, s, sess, change(get(t, s, id(i)), "done", i%2 == 0))
	}
	for owner, all := range want {
		slices.Sort(all)
		slices.Reverse(all)
		if n, err := s.Count(t.Context(), owner); err != nil || n != int64(len(all)) {
			t.Errorf("Count(%q) gave %d, %v; want %d", owner, n, err, len(all))
		}
		for _, limit := range []int{0, 1, 7, 50, 1000} {
			var got []string
			before := ""
			for {
				page, err := s.List(t.Context(), store.ListOptions{Owner: owner, Before: before, Limit: limit})
				if err != nil || (limit > 0 && len(page) > limit) {
					t.Fatalf("List gave %d jobs, %v", len(page), err)
				}
				if len(page) == 0 {
					break
				}
				for _, j := range page {
					if !reflect.DeepEqual(j, get(t, s, j.ID)) {
						t.Fatalf("List gave %+v, Get %+v", j, get(t, s, j.ID))
					}
				}
				got = append(got, ids(page)...)
				before = page[len(page)-1].ID
			}
			if !slices.Equal(got, all) {
				t.Errorf("List(%q) by %d gave\n%v, want\n%v", owner, limit, got, all)
			}
		}
	}
	// Before need not be an id.
	page, err := s.List(t.Context(), store.ListOptions{Before: id(3) + "\x00"})
	if err != nil || !slices.Equal(ids(page), []string{id(3), id(2), id(1), id(0)}) {
		t.Errorf("List before a text just above an id gave %v, %v", ids(page), err)
	}
	page, err = s.List(t.Context(), store.ListOptions{Before: id(3)[:len(id(3))-1]})
	if err != nil || len(page) != 0 {
		t.Errorf("List before a beginning of all ids gave %v, %v", ids(page), err)
	}
	if page, err := s.List(t.Context(), store.ListOptions{Owner: "carol"}); err != nil || len(page) != 0 {
		t.Errorf("List of an unknown owner gave %v, %v", page, err)
	}
}

// hostileNames: keys are made of what strangers choose.
func hostileNames(t *testing.T, m Maker) {
	s := m.Open(t)
	names := []string{
		"a", "a/", "/", "//", "a/b", "..", "\x00", "a\x00", "a\x00b", "\xff", "\xff\xff", "é", "a b", "*", "%2f",
		"CN=Alice, O=Grid/OU=\"x\"", strings.Repeat("n", store.MaxKey), strings.Repeat("n", store.MaxKey-1),
	}
	n := 0
	for _, owner := range names {
		for _, key := range names {
			n++
			j := newJob(n, owner)
			j.SubmissionID, j.Name = key, key
			create(t, s, j)
		}
	}
	for _, owner := range names {
		jobs, err := s.List(t.Context(), store.ListOptions{Owner: owner})
		if err != nil || len(jobs) != len(names) {
			t.Errorf("List(%q) gave %d jobs, %v; want %d", owner, len(jobs), err, len(names))
		}
		for _, j := range jobs {
			if j.Owner != owner || j.Name != j.SubmissionID {
				t.Errorf("List(%q) gave %+v", owner, j)
			}
		}
		if c, err := s.Count(t.Context(), owner); err != nil || c != int64(len(names)) {
			t.Errorf("Count(%q) gave %d, %v; want %d", owner, c, err, len(names))
		}
	}
	// Ids of any length, beginnings of each other among them, keep their order.
	s = m.Open(t)
	want := slices.Clone(names)
	slices.Sort(want)
	for _, i := range names {
		j := newJob(1, "alice")
		j.ID = i
		create(t, s, j)
		if got := history(t, s, i); len(got) != 1 {
			t.Errorf("History(%q) gave %v", i, got)
		}
	}
	live, err := s.Live(t.Context())
	if err != nil || !slices.Equal(ids(live), want) {
		t.Errorf("Live gave %q, %v; want %q", ids(live), err, want)
	}
	slices.Reverse(want)
	for _, owner := range []string{"", "alice"} {
		list, err := s.List(t.Context(), store.ListOptions{Owner: owner})
		if err != nil || !slices.Equal(ids(list), want) {
			t.Errorf("List gave %q, %v; want %q", ids(list), err, want)
		}
	}
}

// givenBackUnshared: what the caller does to its arguments or answers later does
// not reach the store.
func givenBackUnshared(t *testing.T, m Maker) {
	s := m.Open(t)
	n := newJob(1, "alice")
	n.Status.Placement = &store.Placement{Tag: "tag", Handle: []byte("handle")}
	job := create(t, s, n)
	n.Document[0], n.Status.Placement.Handle[0], n.Status.Placement.Tag = '!', '!', "!"
	job.Status.Placement.Tag = "!"
	if got := get(t, s, n.ID); got.Status.Placement.Tag != "tag" || string(got.Status.Placement.Handle) != "handle" {
		t.Errorf("the placement became %+v", got.Status.Placement)
	}
	doc, err := s.Document(t.Context(), n.ID)
	if err != nil || doc[0] != '<' {
		t.Errorf("the document became %q, %v", doc, err)
	}
	doc[0] = '!'
	if doc, err := s.Document(t.Context(), n.ID); err != nil || doc[0] != '<' {
		t.Errorf("the document became %q, %v", doc, err)
	}
}
