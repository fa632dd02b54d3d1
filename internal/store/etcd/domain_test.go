package etcd_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/etcd"
	"github.com/portolan-project/portolan/internal/store/storetest"
)

// neighbour fills a domain with what the suite makes in another, under the same names.
func neighbour(t testing.TB, endpoint, domain string) *etcd.Store {
	t.Helper()
	s := open(t, etcd.Options{Endpoints: []string{endpoint}, Domain: domain})
	sess, err := s.Join(t.Context(), "r")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sess.Close() })
	random := make([]byte, 8<<10) // so that it is kept apart
	_, _ = rand.Read(random)
	for n, doc := range []string{"<a/>", "<b/>", "<c/>", "<d/>", hex.EncodeToString(random)} {
		job, created, err := s.Create(t.Context(), store.NewJob{
			ID: fmt.Sprintf("0190a000-0000-7000-8000-%012x", n), Owner: "alice", Name: domain, SubmissionID: fmt.Sprint("s", n),
			Document: []byte(doc), Submitted: time.Now(), Status: store.Status{Phase: "queued"},
		})
		if err != nil || !created {
			t.Fatalf("Create: %v %v", created, err)
		}
		done := s.Update(t.Context(), sess, store.Change{ID: job.ID, Revision: job.Revision, Status: store.Status{Phase: domain, Final: n%2 == 0}, Events: []store.Event{{Phase: domain}}})
		if done[0].Err != nil {
			t.Fatal(done[0].Err)
		}
	}
	if err := s.SetSetting(t.Context(), "name", []byte(domain)); err != nil {
		t.Fatal(err)
	}
	var changes []store.RecordChange
	for _, key := range []string{"a", "a/1", "k", "counter", "p/000", "big", "other"} {
		changes = append(changes, store.RecordChange{Key: key, Value: []byte(domain), If: -1})
	}
	if _, err := s.PutRecords(t.Context(), sess, append(changes, store.RecordChange{Key: "bound", Value: []byte(domain), Bound: true})...); err != nil {
		t.Fatal(err)
	}
	return s
}

// kept gives all keys of a cluster with their revisions and values.
func kept(t testing.TB, s *etcd.Store) map[string]string {
	t.Helper()
	got, err := etcd.Client(s).Get(context.WithoutCancel(t.Context()), "", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, kv := range got.Kvs {
		out[string(kv.Key)] = fmt.Sprint(kv.ModRevision, " ", string(kv.Value))
	}
	return out
}

// TestDomain judges a store whose neighbours on the same cluster have jobs, records and
// settings of the same names: it sees nothing of them, and they stay as they were.
func TestDomain(t *testing.T) {
	at := map[store.Store]string{}
	dial := func(t testing.TB, endpoint string) store.Store {
		s := open(t, etcd.Options{Endpoints: []string{endpoint}, Domain: "north"})
		at[s] = endpoint
		return s
	}
	storetest.Run(t, storetest.Maker{
		Open: func(t testing.TB) store.Store {
			endpoint := cluster(t)
			neighbour(t, endpoint, "")
			before := kept(t, neighbour(t, endpoint, "south"))
			if len(before) != 1+2*31 {
				t.Fatalf("the neighbours have %d keys", len(before))
			}
			t.Cleanup(func() {
				s, err := etcd.Open(context.Background(), etcd.Options{Endpoints: []string{endpoint}})
				if err != nil {
					t.Fatal(err)
				}
				defer s.Close()
				for key, value := range kept(t, s) {
					if before[key] == value {
						delete(before, key)
					} else if !strings.HasPrefix(key, "/portolan/v1/domain/north/") {
						t.Errorf("a neighbour's key %q was written", key)
					}
				}
				if len(before) > 0 {
					t.Errorf("of the neighbours' keys %q are gone or changed", slices.Sorted(maps.Keys(before)))
				}
			})
			return dial(t, endpoint)
		},
		Reopen: func(t testing.TB, s store.Store) store.Store {
			_ = s.Close()
			return dial(t, at[s])
		},
		Compact:     etcd.Compact,
		Expire:      func(t testing.TB, s store.Store, sess store.Session, _ string) { etcd.Expire(t, s, sess) },
		MaxDocument: 8 << 20,
	})
}

// TestDomainsWatch: two domains work at once; no watch of one tells of the other, and no
// session of one is taken for the other's.
func TestDomainsWatch(t *testing.T) {
	endpoint := cluster(t)
	type side struct {
		*etcd.Store
		sess store.Session
		mu   sync.Mutex
		told map[string]bool
	}
	var sides []*side
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for _, domain := range []string{"", "north", "south", "nort"} {
		s := &side{Store: open(t, etcd.Options{Endpoints: []string{endpoint}, Domain: domain}), told: map[string]bool{}}
		var err error
		if s.sess, err = s.Join(t.Context(), "gateway"); err != nil {
			t.Fatal(err)
		}
		defer s.sess.Close()
		say := func(what string) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.told[what] = true
		}
		wg.Go(func() {
			_ = s.Watch(ctx, 0, func(jobs []store.Job) {
				for _, j := range jobs {
					say("job of " + j.Name)
				}
			})
		})
		wg.Go(func() {
			_ = s.WatchRecords(ctx, "", 0, func(records []store.Record, _ int64) {
				for _, r := range records {
					say("record " + r.Key + " of " + string(r.Value))
				}
			})
		})
		sides = append(sides, s)
	}
	id := "0190a000-0000-7000-8000-000000000001"
	for _, s := range sides {
		domain := etcd.Domain(s.Store)
		if _, created, err := s.Create(t.Context(), store.NewJob{ID: id, Owner: "alice", Name: domain, Document: []byte(domain), Submitted: time.Now()}); err != nil || !created {
			t.Fatalf("the job of %q: created %v, %v", domain, created, err)
		}
		if _, err := s.PutRecords(t.Context(), s.sess, store.RecordChange{Key: "r", Value: []byte(domain), Bound: true}); err != nil {
			t.Fatal(err)
		}
		if err := s.SetSetting(t.Context(), "s", []byte(domain)); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range sides {
		domain := etcd.Domain(s.Store)
		select { // a Join under the same name took nobody over
		case <-s.sess.Lost():
			t.Errorf("the session of %q is lost", domain)
		default:
		}
		want := map[string]bool{"job of " + domain: true, "record r of " + domain: true}
		told := func() map[string]bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			return maps.Clone(s.told)
		}
		for end := time.Now().Add(2 * time.Minute); len(told()) < 2 && time.Now().Before(end); {
			time.Sleep(5 * time.Millisecond)
		}
		if got := told(); !maps.Equal(got, want) {
			t.Errorf("the watches of %q told %v", domain, got)
		}
		jobs, err := s.List(t.Context(), store.ListOptions{})
		n, err2 := s.Count(t.Context(), "")
		live, err3 := s.Live(t.Context())
		doc, err4 := s.Document(t.Context(), id)
		if err != nil || err2 != nil || err3 != nil || err4 != nil || len(jobs) != 1 || n != 1 || len(live) != 1 || jobs[0].Name != domain || string(doc) != domain {
			t.Errorf("%q has %d jobs by List, %d by Count, %d by Live, and the document %q (%v %v %v %v)", domain, len(jobs), n, len(live), doc, err, err2, err3, err4)
		}
		if v, ok, err := s.Setting(t.Context(), "s"); err != nil || !ok || string(v) != domain {
			t.Errorf("%q has the setting %q", domain, v)
		}
	}
	other := sides[1].Update(t.Context(), sides[2].sess, store.Change{ID: id, Revision: 1})
	if !fail.Is(other[0].Err, fail.Conflict) {
		t.Errorf("a session of another domain was taken: %v", other[0].Err)
	}
}

// TestShared: what domains share they all see, under their own sessions; and nothing else
// of one without a name.
func TestShared(t *testing.T) {
	endpoint := cluster(t)
	at := func(domain string) (*etcd.Store, store.Records, store.Session) {
		s := open(t, etcd.Options{Endpoints: []string{endpoint}, Domain: domain})
		sess, err := s.Join(t.Context(), "gateway")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = sess.Close() })
		return s, s.Shared("model/", "modelhistory/"), sess
	}
	plain, atPlain, ofPlain := at("")
	north, atNorth, ofNorth := at("north")
	for _, c := range []struct {
		key  string
		s    store.Records
		sess store.Session
	}{{"model/%/a", atPlain, ofPlain}, {"model/north/a", atNorth, ofNorth}} {
		if _, err := c.s.PutRecords(t.Context(), c.sess, store.RecordChange{Key: c.key, Value: []byte("x"), Bound: true}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := plain.PutRecords(t.Context(), nil, store.RecordChange{Key: "secret", Value: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	keys := func(s store.Records, prefix string) string {
		records, _, err := s.ListRecords(t.Context(), prefix, store.RecordOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, r := range records {
			out = append(out, r.Key)
		}
		return strings.Join(out, " ")
	}
	for what, c := range map[string]struct{ got, want string }{
		"shared, of north":     {keys(atNorth, "model/"), "model/%/a model/north/a"},
		"shared, of no name":   {keys(atPlain, "model/"), "model/%/a model/north/a"},
		"own, of north":        {keys(north, ""), ""},
		"own, of no name":      {keys(plain, ""), "model/%/a model/north/a secret"},
		"shared, another part": {keys(atNorth, "modelhistory/"), ""},
	} {
		if c.got != c.want {
			t.Errorf("the records, %s: %q; want %q", what, c.got, c.want)
		}
	}
	for _, prefix := range []string{"", "m", "secret", "r", "models/"} {
		if _, _, err := atNorth.ListRecords(t.Context(), prefix, store.RecordOptions{}); !fail.Is(err, fail.Invalid) {
			t.Errorf("a list of %q gave %v", prefix, err)
		}
		if err := atNorth.WatchRecords(t.Context(), prefix, 0, nil); !fail.Is(err, fail.Invalid) {
			t.Errorf("a watch of %q gave %v", prefix, err)
		}
	}
	if _, err := atNorth.PutRecords(t.Context(), ofNorth, store.RecordChange{Key: "secret", If: -1}); !fail.Is(err, fail.Invalid) {
		t.Errorf("another's record was removed: %v", err)
	}
	// What is bound goes with the session, though it is in another place than its key.
	if err := ofNorth.Close(); err != nil {
		t.Fatal(err)
	}
	if got := keys(atPlain, "model/"); got != "model/%/a" {
		t.Errorf("after the session %q is left", got)
	}
}

// TestDomainNames: names that could leave their place are refused.
func TestDomainNames(t *testing.T) {
	for _, name := range []string{"a/b", "a b", "ä", "\x00", "%", "~", strings.Repeat("a", etcd.MaxDomain+1)} {
		if _, err := etcd.Open(t.Context(), etcd.Options{Dir: t.TempDir(), Domain: name}); !fail.Is(err, fail.Invalid) {
			t.Errorf("the name %q gave %v", name, err)
		}
	}
}
