package replica

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/agreements/service"
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
	more := Promises{Settings: a, Callbacks: []string{"loopback"}, Budgets: map[string]service.Budget{"bio": {Amount: 1, Period: engine.Week}}}
	if got := more.differ(Promises{Settings: a}); !slices.Equal(got, []string{"agreements.callbacks", "agreements.budgets"}) {
		t.Errorf("they differ in %v", got)
	}
	monthly := more
	monthly.Budgets = map[string]service.Budget{"bio": {Amount: 1, Period: engine.Month}}
	if got := more.differ(monthly); !slices.Equal(got, []string{"agreements.budgets"}) {
		t.Errorf("they differ in %v", got)
	}
	for _, p := range []Promises{{Settings: a, Own: "x"}, more, {Settings: a, Callbacks: []string{}, Budgets: map[string]service.Budget{}}} {
		var same Promises // as it is read
		if err := json.Unmarshal(encode(p), &same); err != nil {
			t.Fatal(err)
		}
		if got := p.differ(same); len(got) > 0 {
			t.Errorf("%+v differs from itself in %v", p, got)
		}
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
