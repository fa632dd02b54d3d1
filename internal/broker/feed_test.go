package broker

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/resourcemodel"
)

func told2() *adapters.Resources {
	return &adapters.Resources{
		Environments: []adapters.Environment{
			{ID: "thin", OperatingSystem: "LINUX", CPUArchitecture: "x86_64", CPUs: 8, Memory: 16 << 30, Nodes: 10, Available: 9, FreeCPUs: 20, HostNames: []string{"b", "a"}},
			{ID: "gpu", CPUs: 16, Memory: 64 << 30, Nodes: 2, Available: 2, FreeCPUs: 32, FreeMemory: 5, GPUs: map[string]int{"a100": 4}, Features: []string{"ib"}},
		},
		Shares: []adapters.Share{
			{ID: "long", Default: true, Environments: []string{"thin"}, MaxWallTime: time.Hour, Slots: 80, Open: true, Running: 60, Waiting: 3, FreeSlots: 20},
			{ID: "gpu", Environments: []string{"gpu"}, Slots: 8},
		},
	}
}

func TestStaticOf(t *testing.T) {
	m := SiteModel{
		Labels: []string{"z", "a", "z"}, Price: 2, Policy: resourcemodel.Policy{Allow: []string{"vo:bio"}},
		Shares:       map[string]ShareModel{"gpu": {Price: 9, Policy: resourcemodel.Policy{Deny: []string{"user:eve"}}}},
		Environments: map[string]EnvironmentModel{"*": {Features: []string{"scratch", "ib"}}, "thin": {Benchmarks: map[string]float64{"hs": 11}}},
		Data:         []resourcemodel.Data{{Prefix: "gsiftp://here/"}},
	}
	st := staticOf(m, "slurm", told2())
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"type", st.Type, "slurm"},
		{"labels", strings.Join(st.Labels, " "), "a z"},
		{"price of the site", st.Shares[0].Price, 2.0},
		{"price of the share", st.Shares[1].Price, 9.0},
		{"policy of the share", st.Shares[1].Policy.Deny[0], "user:eve"},
		{"policy of the site", st.Policy.Allow[0], "vo:bio"},
		{"an environment that is named", st.Environments[0].Benchmarks["hs"], 11.0},
		{"is not each other", len(st.Environments[0].Features), 0},
		{"one that is not", strings.Join(st.Environments[1].Features, " "), "ib scratch"},
		{"hosts", strings.Join(st.Environments[0].HostNames, " "), "a b"},
		{"GPUs", st.Environments[1].GPUs["a100"], 4},
		{"wall time", st.Shares[0].MaxWallTime, time.Hour},
		{"data", st.Data[0].Prefix, "gsiftp://here/"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v, want %v", c.what, c.got, c.want)
		}
	}
}

func TestDynamicOf(t *testing.T) {
	d := dynamicOf(told2(), standing{Forecasts: map[string]time.Duration{"long": time.Minute}})
	if s := d.Shares["long"]; !d.Up || !s.Open || s.Running != 60 || s.Waiting != 3 || s.FreeSlots != 20 || s.Forecast != time.Minute {
		t.Errorf("%+v", d)
	}
	if e := d.Environments["thin"]; e.Available != 9 || e.FreeNodes != 2 || e.FreeCPUs != 20 || e.FreeMemory != 40<<30 {
		t.Errorf("%+v", e)
	}
	if e := d.Environments["gpu"]; e.FreeNodes != 2 || e.FreeMemory != 5 || e.FreeGPUs != 8 {
		t.Errorf("%+v", e)
	}
	if d := dynamicOf(told2(), standing{Problem: "slurmctld does not answer"}); d.Up || d.Problem == "" {
		t.Errorf("%+v", d)
	}
}

// What is said again is the same record, also after it came back from a store; what
// is not is the next version of it.
func TestStamps(t *testing.T) {
	at := time.Now()
	a := restatic(nil, staticOf(SiteModel{}, "fake", told2()), "fake", at)
	raw, _ := json.Marshal(a)
	back := new(resourcemodel.Static)
	if err := json.Unmarshal(raw, back); err != nil {
		t.Fatal(err)
	}
	if b := restatic(back, staticOf(SiteModel{}, "fake", told2()), "fake", at.Add(time.Hour)); b != back {
		t.Errorf("nothing changed, and it is another:\n%+v\n%+v", back, b)
	}
	if b := restatic(back, staticOf(SiteModel{Price: 1}, "fake", told2()), "fake", at.Add(time.Hour)); b.Version != 2 || !b.Changed.Equal(at.Add(time.Hour)) {
		t.Errorf("%+v", b.Stamp)
	}
	d := redynamic(nil, dynamicOf(told2(), standing{}), "fake", at)
	if e := redynamic(d, dynamicOf(told2(), standing{}), "fake", at.Add(time.Hour)); e != d {
		t.Errorf("%+v", e)
	}
	if e := redynamic(d, dynamicOf(told2(), standing{Problem: "x"}), "fake", at.Add(time.Hour)); e.Version != 2 || e.Up {
		t.Errorf("%+v", e)
	}
	if e := redynamic(d, dynamicOf(told2(), standing{}), "fake by another way", at); e.Version != 2 || !strings.HasSuffix(e.Source, "way") {
		t.Errorf("%+v", e.Stamp)
	}
}

// Whatever a manager tells, the model has no negative numbers, and is not what the
// adapter may change later.
func TestFeedProperties(t *testing.T) {
	n := rapid.IntRange(-3, 1<<20)
	rapid.Check(t, func(t *rapid.T) {
		r := &adapters.Resources{
			Environments: []adapters.Environment{{
				ID: "e", CPUs: n.Draw(t, "cpus"), Memory: int64(n.Draw(t, "memory")), Nodes: n.Draw(t, "nodes"), Available: n.Draw(t, "available"),
				FreeCPUs: n.Draw(t, "free"), FreeMemory: int64(n.Draw(t, "free memory")), GPUs: map[string]int{"": n.Draw(t, "gpus")}, HostNames: []string{"h"},
			}},
			Shares: []adapters.Share{{ID: "s", Environments: []string{"e"}, Slots: n.Draw(t, "slots"), FreeSlots: n.Draw(t, "free slots"), Running: n.Draw(t, "running"), Waiting: n.Draw(t, "waiting")}},
		}
		st, d := staticOf(SiteModel{}, "x", r), dynamicOf(r, standing{})
		e, s := d.Environments["e"], d.Shares["s"]
		for _, v := range []int64{int64(e.Nodes), int64(e.Available), int64(e.FreeNodes), int64(e.FreeCPUs), e.FreeMemory, int64(e.FreeGPUs), int64(s.Running), int64(s.Waiting), int64(s.FreeSlots), int64(st.Shares[0].Slots)} {
			if v < 0 {
				t.Fatalf("%+v %+v %+v", e, s, st.Shares[0])
			}
		}
		if e.Available > e.Nodes || e.FreeNodes > e.Available {
			t.Fatalf("%+v", e)
		}
		before, _ := json.Marshal(st)
		r.Environments[0].HostNames[0], r.Environments[0].GPUs[""], r.Shares[0].Environments[0] = "x", 77777777, "x"
		if after, _ := json.Marshal(st); !reflect.DeepEqual(before, after) {
			t.Fatal("it changes with the adapter's")
		}
	})
}
