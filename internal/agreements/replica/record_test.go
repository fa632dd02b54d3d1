package replica

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/store"
)

func TestBadName(t *testing.T) {
	for name, good := range map[string]bool{
		"b": true, "north-2": true, "a.b": true, "9": true, strings.Repeat("a", MaxName): true,
		"": false, "gateway": false, "-a": false, "a-": false, "A": false, "a/b": false, "a b": false, "é": false, strings.Repeat("a", MaxName+1): false,
	} {
		if why := BadName(name); (why == "") != good {
			t.Errorf("%q: %q", name, why)
		}
	}
}

func TestDiffer(t *testing.T) {
	var a terms.Settings
	a.EnsureDefaults()
	b := a
	b.Promise, b.MaxWindow = 70, time.Hour
	if got := (Promises{Settings: a}).differ(Promises{Settings: b, Own: "x"}); !slices.Equal(got, []string{"agreements.promise", "agreements.maxWindow", "agreements.templates"}) {
		t.Errorf("they differ in %v", got)
	}
	if got := (Promises{Settings: a, Own: "x"}).differ(Promises{Settings: a, Own: "x"}); len(got) > 0 {
		t.Errorf("they differ in %v", got)
	}
}

func TestNotes(t *testing.T) {
	var n notes
	rec := func(key string, v any) store.Record {
		if v == nil {
			return store.Record{Key: key}
		}
		return store.Record{Key: key, Value: encode(v)}
	}
	all := []store.Record{
		rec(holderKey, presence{Instance: "1", URL: "http://a"}), rec(replicaKey("b"), presence{Instance: "2"}),
		rec(siteKey("slurm/x"), seen{At: time.Unix(1, 0)}), rec(prefix+"newer/thing", "?"),
	}
	if err := n.take(all, false); err != nil {
		t.Fatal(err)
	}
	if n.holder == nil || n.holder.URL != "http://a" || len(n.replicas) != 1 || !slices.Equal(n.known(), []string{"slurm/x"}) {
		t.Errorf("%+v", n)
	}
	if err := n.take([]store.Record{rec(holderKey, nil), rec(replicaKey("b"), nil), rec(siteKey("slurm/x"), nil)}, false); err != nil {
		t.Fatal(err)
	}
	if n.holder != nil || len(n.replicas)+len(n.sites) > 0 {
		t.Errorf("what is gone is there: %+v", n)
	}
	// One that is damaged is as if it was not there; the others count.
	if err := n.take(append([]store.Record{{Key: holderKey, Value: []byte("{")}}, all[1:]...), true); err == nil || n.holder != nil || len(n.replicas) != 1 {
		t.Errorf("%v: %+v", err, n)
	}
}
