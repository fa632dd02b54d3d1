package modelstore_test

import (
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/broker/modelstore"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/etcd"
	"github.com/portolan-project/portolan/resourcemodel"
)

// seen gives the sites of a snapshot with the free CPUs of each.
func seen(s *resourcemodel.Snapshot) map[string]int {
	out := map[string]int{}
	for site := range s.Sites() {
		out[site.Key.String()] = free(s, site.Key)
	}
	return out
}

func wantSeen(t testing.TB, what string, s *resourcemodel.Snapshot, want map[string]int) {
	t.Helper()
	got := seen(s)
	if len(got) != len(want) {
		t.Errorf("%s has %v; want %v", what, got, want)
		return
	}
	for k, n := range want {
		if have, ok := got[k]; !ok || have != n {
			t.Errorf("%s has %v; want %v", what, got, want)
		}
	}
}

// TestDomains: gateways of three domains share one model; each has the sites of its own
// without a domain, and can't write those of another.
func TestDomains(t *testing.T) {
	endpoint := []string{cluster(t)}
	at := func(domain string) *replica {
		st := open(t, etcd.Options{Endpoints: endpoint, Domain: domain})
		o := modelstore.Options{Domain: domain, Interval: -1, DeadBand: -1, HistoryChanges: 12}
		return startOn(t, st, st.Shared(modelstore.Prefixes()...), "gateway", o)
	}
	plain, north, south := at(""), at("north"), at("south")
	began := time.Now()
	var last int64
	for n := 1; n <= 10; n++ { // more than the history holds
		plain.feed(t, slurm, static(8), dynamic(100+n, 0))
		north.feed(t, slurm, static(8), dynamic(200+n, 0))
		last = south.feed(t, slurm, static(8), dynamic(300+n, 0))
	}
	for _, r := range []*replica{plain, north, south} {
		r.await(t, last)
	}
	wants := []struct {
		what string
		*replica
		sites map[string]int
	}{
		{"the one without a name", plain, map[string]int{"slurm": 110, "north/slurm": 210, "south/slurm": 310}},
		{"north", north, map[string]int{"slurm": 210, "local/slurm": 110, "south/slurm": 310}},
		{"south", south, map[string]int{"slurm": 310, "local/slurm": 110, "north/slurm": 210}},
	}
	for _, w := range wants {
		wantSeen(t, w.what, w.Snapshot(), w.sites)
		if w.Snapshot().Revision() != last {
			t.Errorf("%s is at revision %d of %d", w.what, w.Snapshot().Revision(), last)
		}
		then, err := w.At(t.Context(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		wantSeen(t, "the history of "+w.what, then, w.sites)
		if _, err := w.At(t.Context(), began); !fail.Is(err, fail.NotFound) {
			t.Errorf("%s remembers the beginning, which was folded: %v", w.what, err)
		}
	}
	for domain, want := range map[string]string{"": "north/gateway", "south": "south/gateway", "local": "gateway"} {
		if got := north.Feeder(resourcemodel.Key{Domain: domain, Site: "slurm"}); got != want {
			t.Errorf("north sees %q feed the site of %q; want %q", got, domain, want)
		}
	}
	// Others' sites are theirs.
	for domain, kind := range map[string]fail.Kind{"north": fail.Invalid, "local": fail.Invalid, "south": fail.Conflict} {
		k := resourcemodel.Key{Domain: domain, Site: "slurm"}
		_, err := north.Feed(t.Context(), north.sess, k, static(1), dynamic(1, 0))
		wantKind(t, err, kind)
		_, err = north.Remove(t.Context(), north.sess, k)
		wantKind(t, err, kind)
	}
	// A gateway that is gone: its site stays, and grows old from when its lease went.
	away := resourcemodel.Key{Domain: "south", Site: "slurm"}
	if age, ok := north.Age(away); !ok || age != 0 {
		t.Errorf("a site that is vouched for is %v old", age)
	}
	before := revision(t, plain.st)
	if err := south.sess.Close(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(2 * time.Minute); north.Feeder(away) != "" && time.Now().Before(end); {
		time.Sleep(2 * time.Millisecond)
	}
	first, ok := north.Age(away)
	time.Sleep(20 * time.Millisecond)
	if next, _ := north.Age(away); !ok || next < first+20*time.Millisecond {
		t.Errorf("a site that nobody vouches for was %v old, and is %v", first, next)
	}
	wantSeen(t, "north", north.Snapshot(), wants[1].sites)
	if grown := revision(t, plain.st) - before; grown != 1 {
		t.Errorf("its going cost %d revisions", grown)
	}
	// It comes back under its name.
	sess, err := south.st.Join(t.Context(), "gateway")
	if err != nil {
		t.Fatal(err)
	}
	south.sess = sess
	north.await(t, south.feed(t, slurm, static(8), dynamic(5, 0)))
	wantSeen(t, "north", north.Snapshot(), map[string]int{"slurm": 210, "local/slurm": 110, "south/slurm": 5})
	if age, _ := north.Age(away); age != 0 {
		t.Errorf("a site that is back is %v old", age)
	}
}

// TestDomainOfModel: names that others could not tell apart are refused.
func TestDomainOfModel(t *testing.T) {
	for _, name := range []string{"local", "a/b", "a~b", "a b"} {
		_, err := modelstore.Open(t.Context(), memory(t), modelstore.Options{Domain: name})
		wantKind(t, err, fail.Invalid)
	}
	// A record that claims to be of the name by which another is called is not believed.
	st := memory(t)
	start(t, st, "a", modelstore.Options{}).feed(t, slurm, static(1), dynamic(1, 0))
	records, _, err := st.ListRecords(t.Context(), "model/%/slurm/", store.RecordOptions{})
	if err != nil || len(records) != 3 {
		t.Fatalf("%d records, %v", len(records), err)
	}
	for _, r := range records[:1] {
		if _, err := st.PutRecords(t.Context(), nil, store.RecordChange{Key: "model/local/slurm/static", Value: r.Value}); err != nil {
			t.Fatal(err)
		}
	}
	m, err := modelstore.Open(t.Context(), st, modelstore.Options{Domain: "north"})
	if err != nil {
		t.Fatal(err)
	}
	wantSeen(t, "north", m.Snapshot(), map[string]int{"local/slurm": 1})
}
