package schedule

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/resourcemodel"
)

// busy makes a trace of some days at a gateway: jobs come and go, sites change, fail and
// come back, policies change, until so many decisions were made.
func busy(t testing.TB, seed uint64, decisions int) (trace []byte, made []Decision) {
	rng := rand.New(rand.NewPCG(seed, 2))
	w := newWorld(t, Options{Seed: seed, Window: 16})
	ledger, err := policy.NewLedger()
	if err != nil {
		t.Fatal(err)
	}
	ledger.SetShares(map[string]float64{"vo:bio": 2})
	ledger.Add("user:ann", 5000, noon.Add(-time.Hour))
	w.s.SetUsage(ledger)
	names := []string{"alpha", "beta", "gamma", "delta"}
	for i, n := range names {
		w.put(siteOf(n, 4+4*i, 4))
	}
	next := 0
	add := func() {
		w.add(policy.Job{
			ID: fmt.Sprintf("j%07d", next), Owner: []string{"ann", "bob", "cid"}[rng.IntN(3)], VO: []string{"bio", "phys"}[rng.IntN(2)],
			CPUs: 1 << rng.IntN(3), Priority: rng.IntN(5), Class: rng.IntN(20) / 19, Length: time.Duration(rng.IntN(7200)) * time.Second,
			Deadline: w.now.Add(time.Duration(1+rng.IntN(20)) * time.Hour),
		}, nil)
		next++
	}
	for range 40 {
		add()
	}
	var under []Decision
	under = append(under, w.round(10)...) // before the trace begins
	var out bytes.Buffer
	rec, err := w.s.Record(&out, w.source)
	if err != nil {
		t.Fatal(err)
	}
	for len(made) < decisions {
		for range rng.IntN(24) {
			add()
		}
		switch rng.IntN(12) {
		case 0:
			n := names[rng.IntN(len(names))]
			w.free(n, rng.IntN(16))
		case 1:
			k := resourcemodel.Key{Site: names[rng.IntN(len(names))]}
			w.s.SetSite(k, Site{Ahead: rng.IntN(6), Closed: rng.IntN(3) == 0, Reopen: w.now.Add(time.Minute), Problem: "slurmctld does not answer"})
		case 2:
			kind := []policy.Kind{policy.Scheduling, policy.Selection, policy.Pairing}[rng.IntN(3)]
			setting := map[policy.Kind][]string{
				policy.Scheduling: {"fifo", "fairshare", "edf", "priority{age=1h}"},
				policy.Selection:  {"least-loaded", "earliest-start", "best-fit"},
				policy.Pairing:    {"none", "none", "assignment", "genetic{generations=4}"},
			}[kind]
			if err := w.set([]Scope{Gateway, "vo:bio"}[rng.IntN(2)], kind, setting[rng.IntN(len(setting))], rng.IntN(3) == 0); err != nil {
				t.Fatal(err)
			}
		case 3:
			w.waits[names[rng.IntN(len(names))]] = time.Duration(rng.IntN(3600)) * time.Second
		case 4:
			w.s.SetLimits(Limits{EachOwner: 30 + rng.IntN(40)})
		case 5:
			w.s.Remove(fmt.Sprintf("j%07d", rng.IntN(next)))
		}
		for range rng.IntN(20) {
			if len(under) == 0 {
				break
			}
			i := rng.IntN(len(under))
			id := under[i].Job
			if rng.IntN(3) == 0 {
				w.s.Settled(id)
				continue
			}
			under[i] = under[len(under)-1]
			under = under[:len(under)-1]
			w.s.Left(id)
			j := w.jobs[id]
			for _, g := range policy.Accounts(j) {
				w.s.Charge(g, float64(j.CPUs)*rng.Float64()*3600, w.now)
			}
		}
		w.now = w.now.Add(time.Duration(1+rng.IntN(30)) * time.Second)
		ds := w.round(rng.IntN(30))
		under = append(under, ds...)
		made = append(made, ds...)
	}
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), made
}

func TestReplayIsTheSameInEveryBit(t *testing.T) {
	n := 10_000
	if testing.Short() {
		n = 1000
	}
	trace, made := busy(t, 1, n)
	got, err := Replay(bytes.NewReader(trace), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Decisions != len(made) || got.Same != len(made) || len(got.Differences) > 0 || got.Cut {
		t.Fatalf("of %d decisions %d are the same: %+v", got.Decisions, got.Same, got.Differences)
	}
	t.Logf("%d decisions in %d rounds are the same in every bit; the trace has %d bytes, %d a decision", got.Decisions, got.Rounds, len(trace), len(trace)/len(made))

	swapped, err := Replay(bytes.NewReader(trace), map[policy.Kind]policy.Setting{policy.Scheduling: {Name: "edf"}, policy.Pairing: {Name: "none"}})
	if err != nil {
		t.Fatal(err)
	}
	c := swapped.Swapped
	if swapped.Same != len(made) || c.Same == 0 || c.Waited == 0 || c.Same+c.Elsewhere+c.Waited != c.Decisions {
		t.Fatalf("swapped: %d the same as they were; %+v", swapped.Same, c)
	}
	t.Logf("with another order: %d decisions, %d the same, %d elsewhere, %d waited", c.Decisions, c.Same, c.Elsewhere, c.Waited)

	// A policy swapped for itself changes nothing where it was in force all the time.
	w := newWorld(t, Options{})
	w.put(siteOf("a", 1, 2), siteOf("b", 1, 2))
	var out bytes.Buffer
	rec, err := w.s.Record(&out, w.source)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 9 {
		w.add(policy.Job{ID: fmt.Sprint(i)}, nil)
	}
	w.round(0)
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	same, err := Replay(&out, map[policy.Kind]policy.Setting{policy.Scheduling: {Name: "fifo"}})
	if err != nil || same.Swapped.Same != 4 || same.Swapped.Decisions != 4 {
		t.Fatalf("%+v, %v", same.Swapped, err)
	}
}

// A trace that was changed anywhere is found out.
func TestReplayFindsDifferences(t *testing.T) {
	trace, _ := busy(t, 3, 200)
	lines := strings.Split(strings.TrimSpace(string(trace)), "\n")
	for i, line := range lines {
		var e event
		if i == 0 || json.Unmarshal([]byte(line), &e) != nil || e.Round == nil || len(e.Round.Decisions) < 2 {
			continue
		}
		changed := func(change func(*roundEvent)) []byte {
			r := *e.Round
			r.Decisions = append([]decided(nil), r.Decisions...)
			change(&r)
			text, err := json.Marshal(&event{Round: &r})
			if err != nil {
				t.Fatal(err)
			}
			return []byte(strings.Join(append(append(append([]string(nil), lines[:i]...), string(text)), lines[i+1:len(lines)-1]...), "\n"))
		}
		for name, tc := range map[string]func(*roundEvent){
			"the digest":  func(r *roundEvent) { r.Decisions[0].Digest = "0" },
			"the job":     func(r *roundEvent) { r.Decisions[0].Job = "another" },
			"one less":    func(r *roundEvent) { r.Decisions = r.Decisions[1:] },
			"one more":    func(r *roundEvent) { r.Decisions = append(r.Decisions, decided{Job: "more"}) },
			"the moment":  func(r *roundEvent) { r.Now = r.Now.Add(1) },
			"the budget":  func(r *roundEvent) { r.Budget = 1 },
			"other order": func(r *roundEvent) { r.Decisions[0], r.Decisions[1] = r.Decisions[1], r.Decisions[0] },
		} {
			got, err := Replay(bytes.NewReader(changed(tc)), nil)
			if err != nil {
				t.Fatal(err)
			}
			if len(got.Differences) == 0 {
				t.Errorf("%s was changed on line %d, and nothing differs", name, i+1)
			}
			if !got.Cut {
				t.Error("the end was taken away, and nobody noticed")
			}
		}
		return
	}
	t.Fatal("the trace has no round of two")
}

func TestReplayRefuses(t *testing.T) {
	head := `{"trace":"portolan schedule","version":1,"seed":1,"window":8}` + "\n"
	request := `{"request":{"n":1,"document":"","subject":{}}}`
	for name, tc := range map[string]struct{ text, want string }{
		"nothing":           {"", "line 1 of the trace: it is empty"},
		"no JSON":           {"x", "line 1 of the trace is not readable"},
		"another file":      {`{"trace":"x","version":1,"window":1}`, "no trace of a"},
		"another version":   {`{"trace":"portolan schedule","version":2,"window":1}`, "version 2"},
		"no window":         {`{"trace":"portolan schedule","version":1,"window":0}`, "the window is 0"},
		"an unknown field":  {head + `{"wat":1}`, "line 2"},
		"two on a line":     {head + `{"left":"a"} {"left":"b"}`, "more follows"},
		"two events":        {head + `{"left":"a","settled":"b"}`, "2 events"},
		"no event":          {head + `{}`, "0 events"},
		"no document":       {head + request, "line 2"},
		"no request":        {head + `{"add":{"id":"a","submitted":"2031-03-01T12:00:00Z","request":7}}`, "no request 7"},
		"no snapshot":       {head + `{"model":{"revision":1,"at":"2031-03-01T12:00:00Z","done":true}}`, "not begun"},
		"half a snapshot":   {head + `{"model":{"revision":1,"at":"2031-03-01T12:00:00Z"}}` + "\n" + `{"left":"a"}`, "not complete"},
		"no policy":         {head + `{"policies":{"revision":1,"inForce":{"gateway":{"selection":{"name":"best"}}}}}`, `"best"`},
		"no scope":          {head + `{"policies":{"revision":1,"inForce":{"town":{"selection":{"name":"first-fit"}}}}}`, `"town"`},
		"after the end":     {head + `{"end":{"rounds":0,"decisions":0}}` + "\n" + `{"left":"a"}`, "goes on"},
		"lines are missing": {head + `{"end":{"rounds":3,"decisions":4}}`, "missing"},
		"a long line":       {head + `{"left":"` + strings.Repeat("x", MaxTraceLine) + `"}`, "longer than"},
		"an old delta":      {head + `{"delta":{"revision":0,"at":"2031-03-01T12:00:00Z","changes":null}}`, "revision"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Replay(strings.NewReader(tc.text), nil)
			if !fail.Is(err, fail.Invalid) && !fail.Is(err, fail.Unsupported) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
}

func FuzzReplay(f *testing.F) {
	trace, _ := busy(f, 5, 60)
	f.Add(trace)
	for _, n := range []int{1, 2, 7, 20} {
		lines := bytes.SplitN(trace, []byte("\n"), n+1)
		f.Add(bytes.Join(lines[:n], []byte("\n")))
	}
	f.Add([]byte(`{"trace":"portolan schedule","version":1,"seed":1,"window":8}` + "\n" + `{"round":{"now":"2031-03-01T12:00:00Z","seed":1}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > 1<<20 {
			return
		}
		got, err := Replay(bytes.NewReader(text), map[policy.Kind]policy.Setting{policy.Scheduling: {Name: "fairshare"}})
		if err == nil && got.Same > got.Decisions {
			t.Errorf("%d of %d are the same", got.Same, got.Decisions)
		}
	})
}
