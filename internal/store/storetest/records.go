package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// put makes changes that must succeed, and gives the revision.
func put(t testing.TB, s store.Store, sess store.Session, changes ...store.RecordChange) int64 {
	t.Helper()
	revision, err := s.PutRecords(t.Context(), sess, changes...)
	if err != nil {
		t.Fatalf("PutRecords: %v", err)
	}
	return revision
}

// list gives the records below a prefix by key, and the store's revision.
func list(t testing.TB, s store.Store, prefix string, o store.RecordOptions) ([]store.Record, int64) {
	t.Helper()
	records, revision, err := s.ListRecords(t.Context(), prefix, o)
	if err != nil {
		t.Fatalf("ListRecords(%q): %v", prefix, err)
	}
	return records, revision
}

// values gives "key=value" of records.
func values(records []store.Record) []string {
	var out []string
	for _, r := range records {
		out = append(out, r.Key+"="+string(r.Value))
	}
	return out
}

func wantRecords(t testing.TB, s store.Store, prefix string, want ...string) {
	t.Helper()
	got, _ := list(t, s, prefix, store.RecordOptions{})
	if !slices.Equal(values(got), want) {
		t.Fatalf("the records below %q are %q; want %q", prefix, values(got), want)
	}
}

func text(key, value string) store.RecordChange {
	return store.RecordChange{Key: key, Value: []byte(value), If: -1}
}

func recordsAllOrNothing(t *testing.T, m Maker) {
	s := m.Open(t)
	first := put(t, s, nil, text("a/1", "x"), text("a/2", "y"))
	_, err := s.PutRecords(t.Context(), nil,
		text("a/1", "new"), text("a/3", "new"),
		store.RecordChange{Key: "a/2", Value: []byte("new"), If: first + 1})
	wantKind(t, err, fail.Conflict)
	if e, _ := errors.AsType[*fail.Error](err); e.Subject != "a/2" {
		t.Errorf("the conflict names %q; want a/2", e.Subject)
	}
	wantRecords(t, s, "", "a/1=x", "a/2=y")
	second := put(t, s, nil, text("a/1", "new"), text("a/3", "new"), store.RecordChange{Key: "a/2", If: first})
	wantRecords(t, s, "", "a/1=new", "a/3=new")
	got, revision := list(t, s, "a/", store.RecordOptions{})
	if second <= first || revision < second {
		t.Errorf("the revisions were %d, then %d; the list is of %d", first, second, revision)
	}
	for _, r := range got {
		if r.Revision != second {
			t.Errorf("%s has revision %d; the transaction's is %d", r.Key, r.Revision, second)
		}
	}
	// As many as a transaction takes, and an external etcd as it comes.
	var many []store.RecordChange
	for i := range store.MaxTransaction {
		many = append(many, text(fmt.Sprintf("many/%03d", i), "x"))
	}
	sess := join(t, s, "r")
	put(t, s, sess, many...)
	many[5].If = 1
	_, err = s.PutRecords(t.Context(), sess, many...)
	wantKind(t, err, fail.Conflict)
	if got, _ := list(t, s, "many/", store.RecordOptions{}); len(got) != store.MaxTransaction {
		t.Errorf("of %d records %d are there", store.MaxTransaction, len(got))
	}
}

func recordsCompare(t *testing.T, m Maker) {
	s := m.Open(t)
	key := "k"
	at := put(t, s, nil, store.RecordChange{Key: key, Value: []byte("1"), If: 0})
	for _, c := range []store.RecordChange{
		{Key: key, Value: []byte("2"), If: 0},
		{Key: key, Value: []byte("1"), If: 0}, // what is the same is there all the same
		{Key: key, Value: []byte("2"), If: at + 1},
		{Key: key, If: 0},
		{Key: key, If: at + 1},
		{Key: "other", Value: []byte("2"), If: at},
		{Key: "other", If: at},
	} {
		_, err := s.PutRecords(t.Context(), nil, c)
		wantKind(t, err, fail.Conflict)
	}
	wantRecords(t, s, "", "k=1")
	at = put(t, s, nil, store.RecordChange{Key: key, Value: []byte("2"), If: at})
	put(t, s, nil, store.RecordChange{Key: key, If: at})
	wantRecords(t, s, "")
	if again := put(t, s, nil, store.RecordChange{Key: key, Value: []byte("3"), If: 0}); again <= at {
		t.Errorf("a record that came again has revision %d, after %d", again, at)
	}
	put(t, s, nil, store.RecordChange{Key: key, If: -1}, store.RecordChange{Key: "never", If: -1}, store.RecordChange{Key: "nor", If: 0})
	wantRecords(t, s, "")
}

// recordsEqualCostNothing: what is the same already is not written.
func recordsEqualCostNothing(t *testing.T, m Maker) {
	s := m.Open(t)
	sess := join(t, s, "r")
	a := put(t, s, nil, text("a", "x"), store.RecordChange{Key: "empty", Value: []byte{}, If: -1})
	b := put(t, s, sess, store.RecordChange{Key: "b", Value: []byte("y"), If: -1, Bound: true})
	_, before := list(t, s, "", store.RecordOptions{})
	for range 3 {
		if got := put(t, s, nil, text("a", "x"), store.RecordChange{Key: "empty", Value: []byte{}, If: -1}); got != a {
			t.Errorf("writing the same gave revision %d; want that of the records, %d", got, a)
		}
		if got := put(t, s, sess, store.RecordChange{Key: "b", Value: []byte("y"), If: b, Bound: true}); got != b {
			t.Errorf("writing the same gave revision %d; want that of the record, %d", got, b)
		}
		put(t, s, nil, store.RecordChange{Key: "gone", If: -1}, store.RecordChange{Key: "gone/too", If: 0})
		put(t, s, nil)
	}
	if _, after := list(t, s, "", store.RecordOptions{}); after != before {
		t.Errorf("writing what is there cost %d revisions", after-before)
	}
	// Of several, only those that differ are written.
	c := put(t, s, nil, text("a", "x"), text("c", "z"))
	got, _ := list(t, s, "", store.RecordOptions{})
	for _, r := range got {
		if want := map[string]int64{"a": a, "b": b, "c": c, "empty": a}[r.Key]; r.Revision != want {
			t.Errorf("%s has revision %d; want %d", r.Key, r.Revision, want)
		}
		if r.Value == nil {
			t.Errorf("%s has no value in a list", r.Key)
		}
	}
	// The same value bound, or not bound any more, is not the same.
	if d := put(t, s, sess, store.RecordChange{Key: "a", Value: []byte("x"), If: a, Bound: true}); d <= c {
		t.Errorf("binding a record gave revision %d, after %d", d, c)
	}
	put(t, s, sess, text("b", "y"))
	if err := sess.Close(); err != nil {
		t.Fatal(err)
	}
	wantRecords(t, s, "", "b=y", "c=z", "empty=")
}

func recordsBound(t *testing.T, m Maker) {
	s := m.Open(t)
	claim := func(sess store.Session, key, value string) {
		t.Helper()
		put(t, s, sess, store.RecordChange{Key: key, Value: []byte(value), If: -1, Bound: true}, text("kept/"+key, value))
	}
	_, from := list(t, s, "", store.RecordOptions{})
	w := watchRecords(t, s, "claim/", from)
	expired, closed, taken, alive := join(t, s, "expired"), join(t, s, "closed"), join(t, s, "taken"), join(t, s, "alive")
	claim(expired, "claim/1", "expired")
	claim(closed, "claim/2", "closed")
	claim(taken, "claim/3", "taken")
	claim(alive, "claim/4", "alive")
	w.until(t, "claim/4=alive")

	m.Expire(t, s, expired, "expired")
	w.until(t, "claim/1 gone")
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	w.until(t, "claim/2 gone")
	again := join(t, s, "taken")
	wantRecords(t, s, "claim/", "claim/4=alive") // at once, with no lease to run out
	w.until(t, "claim/3 gone")
	claim(again, "claim/3", "taken again")
	// What another took over is that one's.
	claim(again, "claim/4", "another")
	if err := alive.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, alive.Lost(), "the session to end")
	wantRecords(t, s, "claim/", "claim/3=taken again", "claim/4=another")
	if got, _ := list(t, s, "kept/", store.RecordOptions{}); len(got) != 4 {
		t.Errorf("of 4 records that are not bound %d are there: %q", len(got), values(got))
	}
	_, err := s.PutRecords(t.Context(), nil, store.RecordChange{Key: "x", Value: []byte("x"), If: -1, Bound: true})
	wantKind(t, err, fail.Invalid)
}

// recordsGuarded: who lost the lease can't write, not even what is there already.
func recordsGuarded(t *testing.T, m Maker) {
	s := m.Open(t)
	a, b, c := join(t, s, "a"), join(t, s, "b"), join(t, s, "c")
	for _, sess := range []store.Session{a, b, c} {
		put(t, s, sess, text("k", "x"))
	}
	m.Expire(t, s, a, "a")
	_ = b.Close()
	join(t, s, "c")
	for name, sess := range map[string]store.Session{"expired": a, "closed": b, "taken over": c} {
		for _, value := range []string{"x", "new"} {
			_, err := s.PutRecords(t.Context(), sess, text("k", value))
			if !fail.Is(err, fail.Conflict) {
				t.Errorf("writing %q with a session that was %s gave %v", value, name, err)
			}
		}
	}
	wantRecords(t, s, "", "k=x")
	other := m.Open(t)
	_, err := s.PutRecords(t.Context(), join(t, other, "d"), text("k", "new"))
	wantKind(t, err, fail.Conflict)
}

func recordsListing(t *testing.T, m Maker) {
	s := m.Open(t)
	var all []string
	var changes []store.RecordChange
	for i := range 700 {
		key := fmt.Sprintf("p/%03d", i)
		all = append(all, key)
		changes = append(changes, text(key, key))
	}
	for some := range slices.Chunk(changes, store.MaxTransaction) {
		put(t, s, nil, some...)
	}
	put(t, s, nil, text("o", "before"), text("p", "the prefix without its slash"), text("p-", "x"), text("p0", "after"), text("p/000/below", "x"))
	all = slices.Insert(all, 1, "p/000/below")
	back := slices.Clone(all)
	slices.Reverse(back)
	for _, c := range []struct {
		prefix string
		o      store.RecordOptions
		want   []string
	}{
		{"p/", store.RecordOptions{}, all},
		{"p/", store.RecordOptions{Newest: true}, back},
		{"p/", store.RecordOptions{Limit: 3}, all[:3]},
		{"p/", store.RecordOptions{Limit: 300}, all[:300]},
		{"p/", store.RecordOptions{Limit: 3000}, all},
		{"p/", store.RecordOptions{Limit: 3, Newest: true}, back[:3]},
		{"p/", store.RecordOptions{Limit: 300, Newest: true}, back[:300]},
		{"p/", store.RecordOptions{After: "p/100"}, all[102:]},
		{"p/", store.RecordOptions{After: "p/100", Limit: 2}, all[102:104]},
		{"p/", store.RecordOptions{After: "p/100", Newest: true, Limit: 2}, []string{"p/099", "p/098"}},
		{"p/", store.RecordOptions{After: "p/100", Newest: true}, back[600:]},
		{"p/", store.RecordOptions{After: "a"}, all},
		{"p/", store.RecordOptions{After: "z"}, nil},
		{"p/", store.RecordOptions{After: "a", Newest: true}, nil},
		{"p/", store.RecordOptions{After: "z", Newest: true, Limit: 2}, back[:2]},
		{"p/01", store.RecordOptions{}, all[11:21]},
		{"p", store.RecordOptions{Limit: 4}, []string{"p", "p-", "p/000", "p/000/below"}},
		{"", store.RecordOptions{Limit: 2}, []string{"o", "p"}},
		{"", store.RecordOptions{Limit: 2, Newest: true}, []string{"p0", "p/699"}},
		{"none", store.RecordOptions{}, nil},
		{"none", store.RecordOptions{Newest: true, Limit: 1}, nil},
	} {
		got, revision := list(t, s, c.prefix, c.o)
		var keys []string
		for _, r := range got {
			keys = append(keys, r.Key)
		}
		if !slices.Equal(keys, c.want) || revision < 1 {
			t.Errorf("the list of %q with %+v is %q at %d; want %q", c.prefix, c.o, keys, revision, c.want)
		}
	}
	// In pages.
	for _, newest := range []bool{false, true} {
		var got []string
		for after := ""; ; {
			page, _ := list(t, s, "p/", store.RecordOptions{After: after, Limit: 64, Newest: newest})
			if len(page) == 0 {
				break
			}
			for _, r := range page {
				got = append(got, r.Key)
			}
			after = got[len(got)-1]
		}
		if want := map[bool][]string{false: all, true: back}[newest]; !slices.Equal(got, want) {
			t.Errorf("in pages, newest first %v, the list has %d records of %d, or another order", newest, len(got), len(want))
		}
	}
}

func recordsRefuses(t *testing.T, m Maker) {
	s := m.Open(t)
	long := strings.Repeat("k", store.MaxKey)
	big := make([]byte, store.MaxRecord)
	put(t, s, nil, text(long, "x"))
	put(t, s, nil, store.RecordChange{Key: "big", Value: big, If: -1})
	got, _ := list(t, s, "big", store.RecordOptions{})
	if len(got) != 1 || !bytes.Equal(got[0].Value, big) {
		t.Error("the largest record did not come back")
	}
	_, before := list(t, s, "", store.RecordOptions{})
	var many []store.RecordChange
	for i := range store.MaxTransaction + 1 {
		many = append(many, text(strconv.Itoa(i), "x"))
	}
	for what, c := range map[string]struct {
		kind    fail.Kind
		changes []store.RecordChange
	}{
		"no key":               {fail.Invalid, []store.RecordChange{text("", "x")}},
		"a long key":           {fail.Invalid, []store.RecordChange{text(long+"k", "x")}},
		"a slash before":       {fail.Invalid, []store.RecordChange{text("/a", "x")}},
		"a slash after":        {fail.Invalid, []store.RecordChange{text("a/", "x")}},
		"an empty segment":     {fail.Invalid, []store.RecordChange{text("a//b", "x")}},
		"a space":              {fail.Invalid, []store.RecordChange{text("a b", "x")}},
		"a zero byte":          {fail.Invalid, []store.RecordChange{text("a\x00", "x")}},
		"a letter of another":  {fail.Invalid, []store.RecordChange{text("ä", "x")}},
		"the same twice":       {fail.Invalid, []store.RecordChange{text("a", "x"), text("a", "y")}},
		"a revision below all": {fail.Invalid, []store.RecordChange{{Key: "a", Value: []byte("x"), If: -2}}},
		"too many":             {fail.Invalid, many},
		"too large":            {fail.Exhausted, []store.RecordChange{{Key: "a", Value: make([]byte, store.MaxRecord+1), If: -1}}},
		"too large together":   {fail.Exhausted, []store.RecordChange{{Key: "a", Value: big, If: -1}, text("b", "x")}},
	} {
		_, err := s.PutRecords(t.Context(), nil, c.changes...)
		if !fail.Is(err, c.kind) || fail.Sentence(err) == "" {
			t.Errorf("%s gave %v; want one of kind %q", what, err, c.kind)
		}
	}
	if _, after := list(t, s, "", store.RecordOptions{}); after != before {
		t.Errorf("what was refused cost %d revisions", after-before)
	}
	for _, prefix := range []string{"/", "a//", " ", "\x00", long + "kk"} {
		_, _, err := s.ListRecords(t.Context(), prefix, store.RecordOptions{})
		wantKind(t, err, fail.Invalid)
		wantKind(t, s.WatchRecords(t.Context(), prefix, 0, func([]store.Record, int64) {}), fail.Invalid)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.PutRecords(ctx, nil, text("a", "x"))
	wantKind(t, err, fail.Unavailable)
}

// recordsRace: of writers that compare, each wins once for each value.
func recordsRace(t *testing.T, m Maker) {
	s := m.Open(t)
	const writers, each = 8, 20
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			own := fmt.Sprintf("own/%d", w)
			for n := 0; n < each; {
				got, _, err := s.ListRecords(t.Context(), "counter", store.RecordOptions{})
				if err != nil {
					t.Error(err)
					return
				}
				value, at := 0, int64(0)
				if len(got) == 1 {
					value, _ = strconv.Atoi(string(got[0].Value))
					at = got[0].Revision
				}
				_, err = s.PutRecords(t.Context(), nil,
					store.RecordChange{Key: "counter", Value: []byte(strconv.Itoa(value + 1)), If: at},
					text(own, strconv.Itoa(n+1)))
				switch {
				case err == nil:
					n++
				case !fail.Is(err, fail.Conflict):
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	want := []string{fmt.Sprintf("counter=%d", writers*each)}
	for w := range writers {
		want = append(want, fmt.Sprintf("own/%d=%d", w, each))
	}
	wantRecords(t, s, "", want...)
}

func recordsUnshared(t *testing.T, m Maker) {
	s := m.Open(t)
	value := []byte("value")
	w := watchRecords(t, s, "", 0)
	put(t, s, nil, store.RecordChange{Key: "k", Value: value, If: -1})
	value[0] = 'X'
	got, _ := list(t, s, "", store.RecordOptions{})
	got[0].Value[0] = 'Y'
	w.until(t, "k=value")
	wantRecords(t, s, "", "k=value")
}

// recordWatcher collects what a watch of records emits.
type recordWatcher struct {
	calls  chan recordCall
	ended  chan error
	cancel context.CancelFunc
	last   int64
}

type recordCall struct {
	records  []store.Record
	revision int64
}

func watchRecords(t testing.TB, s store.Store, prefix string, after int64) *recordWatcher {
	ctx, cancel := context.WithCancel(t.Context())
	w := &recordWatcher{calls: make(chan recordCall, 1<<16), ended: make(chan error, 1), cancel: cancel, last: after}
	var wg sync.WaitGroup
	wg.Go(func() {
		w.ended <- s.WatchRecords(ctx, prefix, after, func(records []store.Record, revision int64) {
			w.calls <- recordCall{records, revision}
		})
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return w
}

// next gives one call's records, and checks its order.
func (w *recordWatcher) next(t testing.TB, what string) []store.Record {
	t.Helper()
	c := await(t, w.calls, what)
	seen := map[string]bool{}
	at := w.last
	for _, r := range c.records {
		if seen[r.Key] {
			t.Fatalf("%s comes twice in one call", r.Key)
		}
		seen[r.Key] = true
		if r.Revision <= w.last || r.Revision < at || r.Revision > c.revision {
			t.Fatalf("%s has revision %d, after %d, in a call up to %d after one up to %d", r.Key, r.Revision, at, c.revision, w.last)
		}
		at = r.Revision
	}
	w.last = c.revision
	return c.records
}

// until reads up to a change, written "key=value" or "key gone", and gives all that it read.
func (w *recordWatcher) until(t testing.TB, last string) []string {
	t.Helper()
	var got []string
	for {
		for _, r := range w.next(t, last) {
			line := r.Key + "=" + string(r.Value)
			if r.Value == nil {
				line = r.Key + " gone"
			}
			got = append(got, line)
		}
		if slices.Contains(got, last) {
			return got
		}
	}
}

func recordsWatch(t *testing.T, m Maker) {
	s := m.Open(t)
	put(t, s, nil, text("w/0", "before"))
	_, from := list(t, s, "w/", store.RecordOptions{})
	w := watchRecords(t, s, "w/", from)
	// Others' keys and jobs are not told.
	put(t, s, nil, text("w", "x"), text("w0", "x"), text("v/1", "x"), text("w/1", "one"))
	create(t, s, newJob(1, "alice"))
	if got := w.until(t, "w/1=one"); !slices.Equal(got, []string{"w/1=one"}) {
		t.Errorf("the watch told %q", got)
	}
	// A transaction comes in one call.
	at := put(t, s, nil, text("w/1", "uno"), text("w/2", ""), store.RecordChange{Key: "w/0", If: -1}, text("other", "x"))
	got := map[string]string{}
	for _, r := range w.next(t, "the transaction") {
		if r.Revision != at {
			t.Errorf("%s has revision %d; the transaction's is %d", r.Key, r.Revision, at)
		}
		got[r.Key] = fmt.Sprintf("%q %v", r.Value, r.Value == nil)
	}
	if want := map[string]string{"w/0": `"" true`, "w/1": `"uno" false`, "w/2": `"" false`}; !maps.Equal(got, want) {
		t.Errorf("the watch told %v; want %v", got, want)
	}
	// What is the same is not told, nor is a removal of what is not there.
	put(t, s, nil, text("w/1", "uno"), store.RecordChange{Key: "w/0", If: -1})
	put(t, s, nil, text("w/3", "three"))
	if got := w.until(t, "w/3=three"); !slices.Equal(got, []string{"w/3=three"}) {
		t.Errorf("the watch told %q", got)
	}
	// From a revision on.
	w = watchRecords(t, s, "w/", at-1)
	if got := w.until(t, "w/3=three"); len(got) != 4 {
		t.Errorf("a watch after %d told %q", at-1, got)
	}
	w.cancel()
	if err := await(t, w.ended, "the watch to end"); !errors.Is(err, context.Canceled) || !fail.Is(err, fail.Unavailable) {
		t.Errorf("a cancelled watch gave %v", err)
	}
	w = watchRecords(t, s, "", 0)
	w.until(t, "w/3=three")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantKind(t, await(t, w.ended, "the watch to end"), fail.Unavailable)
}

// recordsSlowConsumer: a consumer that stops for a while holds up nobody and gets, of
// what changed often, the last; following what it is told, it knows what is there.
func recordsSlowConsumer(t *testing.T, m Maker) {
	s := m.Open(t)
	stuck, goOn := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended, done := make(chan error, 1), make(chan struct{})
	known := map[string]string{}
	told := 0
	var once sync.Once
	go func() {
		ended <- s.WatchRecords(ctx, "s/", 0, func(records []store.Record, _ int64) {
			once.Do(func() { close(stuck); <-goOn })
			told += len(records)
			for _, r := range records {
				known[r.Key] = string(r.Value)
				if r.Value == nil {
					delete(known, r.Key)
				}
				if r.Key == "s/last" {
					close(done)
				}
			}
		})
	}()
	put(t, s, nil, text("s/first", "x"))
	await(t, stuck, "the first change")
	const n = 400
	value := strings.Repeat("v", 32<<10)
	for i := range n {
		put(t, s, nil, text(fmt.Sprintf("s/%d", i%7), fmt.Sprint(i, value)), text(fmt.Sprintf("s/%d", 100+i), value))
		put(t, s, nil, store.RecordChange{Key: fmt.Sprintf("s/%d", 100+i), If: -1})
	}
	put(t, s, nil, text("s/last", "x"))
	close(goOn)
	await(t, done, "all changes")
	cancel()
	if err := await(t, ended, "the watch to end"); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled watch gave %v", err)
	}
	want := map[string]string{}
	got, _ := list(t, s, "s/", store.RecordOptions{})
	for _, r := range got {
		want[r.Key] = string(r.Value)
	}
	if len(want) != 9 || !maps.Equal(known, want) {
		t.Errorf("a slow consumer knows %d records of %d, or others", len(known), len(want))
	}
	if told > 3*n {
		t.Errorf("a slow consumer was told %d changes", told)
	}
}

func recordsWatchCompacted(t *testing.T, m Maker) {
	s := m.Open(t)
	at := put(t, s, nil, text("k", "1"))
	idle := watchRecords(t, s, "idle/", at)
	put(t, s, nil, text("idle/0", "x"))
	idle.until(t, "idle/0=x")
	put(t, s, nil, text("k", "2"))
	put(t, s, nil, text("k", "3"))
	m.Compact(t, s)
	wantKind(t, await(t, watchRecords(t, s, "k", at).ended, "the watch to end"), fail.Conflict)
	// What a list just gave is a place to start from.
	got, from := list(t, s, "k", store.RecordOptions{})
	if !slices.Equal(values(got), []string{"k=3"}) {
		t.Errorf("after compaction the list is %q", values(got))
	}
	w := watchRecords(t, s, "k", from)
	put(t, s, nil, text("k", "4"))
	w.until(t, "k=4")
	// A watch that had nothing to tell goes on.
	put(t, s, nil, text("idle/1", "x"))
	if got := idle.until(t, "idle/1=x"); len(got) != 1 {
		t.Errorf("the watch that waited told %q", got)
	}
}

func recordsReopen(t *testing.T, m Maker) {
	s := m.Open(t)
	sess := join(t, s, "r")
	put(t, s, sess, text("a", "1"), text("b", "2"), store.RecordChange{Key: "claim", Value: []byte("r"), If: 0, Bound: true})
	last := put(t, s, nil, store.RecordChange{Key: "b", If: -1}, text("d", "3"))
	s = m.Reopen(t, s)
	wantRecords(t, s, "a", "a=1")
	wantRecords(t, s, "b")
	wantRecords(t, s, "d", "d=3")
	// Whoever comes back under the name finds what it was bound to gone.
	again := join(t, s, "r")
	wantRecords(t, s, "", "a=1", "d=3")
	if next := put(t, s, again, store.RecordChange{Key: "d", Value: []byte("4"), If: last}); next <= last {
		t.Errorf("after reopening a change gave revision %d, after %d", next, last)
	}
}

func recordsClosed(t *testing.T, m Maker) {
	s := m.Open(t)
	_ = s.Close()
	_, err := s.PutRecords(t.Context(), nil, text("a", "x"))
	wantKind(t, err, fail.Unavailable)
	_, _, err = s.ListRecords(t.Context(), "", store.RecordOptions{})
	wantKind(t, err, fail.Unavailable)
	wantKind(t, s.WatchRecords(t.Context(), "", 0, func([]store.Record, int64) {}), fail.Unavailable)
}

// noteRecords makes revisions comparable between stores, record by record.
func (s *side) noteRecords(records []store.Record) []store.Record {
	var out []store.Record
	for _, r := range records {
		key := "record " + r.Key
		if !slices.Contains(s.revs[key], r.Revision) {
			s.revs[key] = append(s.revs[key], r.Revision)
		}
		r.Revision = int64(slices.Index(s.revs[key], r.Revision))
		out = append(out, r)
	}
	return out
}

var segments = []string{"a", "b", "a/b", "c/d/e", "~"}

// records changes or lists records of both stores.
func (p *pair) records(rt *rapid.T) {
	type plan struct {
		c   store.RecordChange
		ago int // -1: anything; 0: must not exist; n: the n-th newest revision
	}
	var plans []plan
	for _, key := range rapid.SliceOfNDistinct(rapid.SampledFrom(segments), 1, 4, rapid.ID).Draw(rt, "keys") {
		c := store.RecordChange{Key: p.prefix + "/" + key, Bound: rapid.Bool().Draw(rt, "bound")}
		if rapid.IntRange(0, 3).Draw(rt, "value") > 0 {
			c.Value = []byte(texts.Draw(rt, "text"))
		}
		plans = append(plans, plan{c, rapid.IntRange(-1, 2).Draw(rt, "if")})
	}
	replica := rapid.SampledFrom([]string{"x", "y"}).Draw(rt, "replica")
	var kinds, subjects [2]string
	var lists [2][]store.Record
	var costs [2]bool
	var errs [2]error
	for i, s := range p.sides {
		var changes []store.RecordChange
		for _, q := range plans {
			c := q.c
			c.If = int64(q.ago)
			if q.ago > 0 {
				c.If = 1
				if revs := s.revs["record "+c.Key]; len(revs) >= q.ago {
					c.If = revs[len(revs)-q.ago]
				}
			}
			changes = append(changes, c)
		}
		_, before, err := s.s.ListRecords(p.t.Context(), p.prefix, store.RecordOptions{})
		if err != nil {
			rt.Fatalf("ListRecords: %v", err)
		}
		var sess store.Session
		if own := s.sess[replica]; own != nil {
			sess = own
		}
		_, err = s.s.PutRecords(p.t.Context(), sess, changes...)
		kinds[i] = kind(err)
		if e, ok := errors.AsType[*fail.Error](err); ok {
			subjects[i] = e.Subject
		}
		found, after, err := s.s.ListRecords(p.t.Context(), p.prefix, store.RecordOptions{})
		lists[i], errs[i] = s.noteRecords(found), err
		costs[i] = after != before
	}
	same(rt, "PutRecords", kinds, [2]error{})
	same(rt, "PutRecords's subject", subjects, [2]error{})
	same(rt, "whether PutRecords cost a revision", costs, [2]error{})
	same(rt, "ListRecords", lists, errs)
}
