package broker

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
)

// immortal is the life of a process that does not die.
func immortal() *life { return &life{left: -1, dead: make(chan struct{})} }

func TestDiskFull(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var full atomic.Bool
		st := newStore(t)
		sick := func(string) (answer, bool) { return answer{kind: fail.Exhausted}, full.Load() }
		w := fake.NewWorld(1)
		g := here(t, w, fake.Options{}, func(c *Config) { c.Store = mortalStore{st, immortal(), sick} })
		e := g.submit("sleep 60; exit 4")
		g.until(e, bes.Running, "Executing")
		full.Store(true)
		_, err := g.CreateActivity(as("ada"), &bes.CreateActivityRequest{Document: document("exit 0")})
		if !fail.Is(err, fail.NotAccepting) || !strings.Contains(fail.Sentence(err), "room") {
			t.Errorf("a new activity: %v", err)
		}
		if err := one1(g.TerminateActivities(as("ada"), []soap.EPR{e})); !fail.Is(err, fail.Exhausted) {
			t.Errorf("terminate: %v", err)
		}
		time.Sleep(10 * time.Minute)
		if s := g.status(e); s.State != bes.Running {
			t.Errorf("what is not durable is told: %v", s.State)
		}
		full.Store(false)
		if s := g.until(e, bes.Finished, ""); *s.Details.ExitStatus != 4 {
			t.Errorf("%+v", s.Details)
		}
		g.until(g.submit("exit 0"), bes.Finished, "")
	})
}

func TestSessionLost(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st, w := newStore(t), fake.NewWorld(1)
		g := here(t, w, fake.Options{}, func(c *Config) { c.Store = st })
		e, queued := g.submit("sleep 60; exit 0"), g.submit("exit 0")
		g.until(e, bes.Running, "Executing")
		other, err := st.Join(context.Background(), g.cfg.Replica)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		g.until(e, bes.Finished, "")
		g.until(queued, bes.Finished, "")
		for tag, n := range w.Ledger() {
			if n != 1 {
				t.Errorf("%s was started %d times", tag, n)
			}
		}
	})
}

func TestSiteDownAndUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := fake.NewWorld(2)
		var down atomic.Bool
		var ups atomic.Int32
		submits := 0
		w.Inject(func(op string, _ adapters.Tag) fake.Fault {
			if op == "submit" {
				submits++
			}
			if down.Load() {
				return fake.Fault{Err: fail.Errorf("x", fail.Unavailable, "", "the manager is down")}
			}
			return fake.Fault{}
		})
		down.Store(true)
		g := here(t, w, fake.Options{}, func(c *Config) {
			c.Hooks.Site = func(_ string, up bool) {
				if up {
					ups.Add(1)
				}
			}
		})
		var es []soap.EPR
		for range 20 {
			es = append(es, g.submit("exit 0"))
		}
		time.Sleep(6 * time.Hour)
		if submits > 20+6*12+20 { // at most one job each five minutes tries whether it is back
			t.Errorf("a site that is down was asked %d times", submits)
		}
		down.Store(false)
		began := time.Now()
		for _, e := range es {
			g.until(e, bes.Finished, "")
		}
		if took := time.Since(began); took > 20*time.Minute {
			t.Errorf("after the site was back it took %v", took)
		}
		if ups.Load() != 1 {
			t.Errorf("it came back %d times", ups.Load())
		}
	})
}

// TestJobsOfOthers takes in a job that another process wrote to the store.
func TestJobsOfOthers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st := newStore(t)
		g := here(t, fake.NewWorld(1), fake.Options{}, func(c *Config) { c.Store = st })
		id, err := newID()
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		s, line, _, err := step(store.Status{}, fact{event: Accepted, at: now, reason: "accepted elsewhere"})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := st.Create(context.Background(), store.NewJob{
			ID: id, Owner: "ada", Document: document("exit 0"), Submitted: now, Status: s, Event: *line,
		}); err != nil {
			t.Fatal(err)
		}
		e := g.reference(id)
		for !g.status(e).State.Final() {
			time.Sleep(time.Millisecond)
		}
		if got := g.events(e); got != "submitted placing placed started exited" {
			t.Errorf("events: %s", got)
		}
	})
}

// TestWritesOfAShortJob counts what a job costs: many at once share writes.
func TestWritesOfAShortJob(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var writes, changes atomic.Int32
		g := here(t, fake.NewWorld(0), fake.Options{}, func(c *Config) {
			c.Alone = true
			c.Hooks.Committed = func(n int, _ time.Duration) {
				writes.Add(1)
				changes.Add(int32(n))
			}
		})
		const n = 200
		var es []soap.EPR
		for range n {
			es = append(es, g.submit("exit 0"))
		}
		for _, e := range es {
			g.until(e, bes.Finished, "")
		}
		if c := changes.Load(); c > 3*n {
			t.Errorf("%d changes for %d jobs", c, n)
		}
		t.Logf("%d jobs: %d changes in %d writes", n, changes.Load(), writes.Load())
	})
}

// TestReadAgain places jobs whose documents are not in memory, as after a start.
func TestReadAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, st := fake.NewWorld(1), newStore(t)
		t.Cleanup(w.Close)
		cfg := Config{Store: st, Limits: Limits{Ahead: 1}, Sites: []Site{{Name: "here", Adapter: w.Open(fake.Options{})}}}
		g := start(t, cfg)
		<-g.Ready()
		var es []soap.EPR
		for i := range 50 {
			es = append(es, g.submit(fmt.Sprintf("sleep 1; exit %d", i%7)))
		}
		g.stop()
		cfg.Sites[0].Adapter = w.Open(fake.Options{})
		g = start(t, cfg)
		<-g.Ready()
		for _, e := range es {
			g.until(e, bes.Finished, "")
		}
		if n := len(g.kinds); n != 0 {
			t.Errorf("%d documents are in memory", n)
		}
		g.stop()
	})
}

func TestMethodsBeforeRun(t *testing.T) {
	b, err := New(Config{Store: newStore(t), BaseURL: func() string { return "x" }, Sites: []Site{{Name: "here", Adapter: fake.NewWorld(1).Open(fake.Options{})}}})
	if err != nil {
		t.Fatal(err)
	}
	es := []soap.EPR{b.reference("00000000-0000-7000-8000-000000000000")}
	_, e1 := b.CreateActivity(as("ada"), &bes.CreateActivityRequest{Document: document("exit 0")})
	_, e2 := b.GetActivityStatuses(as("ada"), &bes.StatusRequest{Activities: es, Wait: time.Hour})
	_, e3 := b.TerminateActivities(as("ada"), es)
	_, e4 := b.GetFactoryAttributesDocument(as("ada"))
	e5 := b.StopAcceptingNewActivities(as("ada"))
	for i, err := range []error{e1, e2, e3, e4, e5} {
		if !fail.Is(err, fail.Unavailable) {
			t.Errorf("%d: %v", i+1, err)
		}
	}
}

func TestConfigRefusals(t *testing.T) {
	a := fake.NewWorld(1).Open(fake.Options{})
	url, st := func() string { return "x" }, newStore(t)
	for name, c := range map[string]Config{
		"no store":     {BaseURL: url, Sites: []Site{{Name: "a", Adapter: a}}},
		"no URL":       {Store: st, Sites: []Site{{Name: "a", Adapter: a}}},
		"no sites":     {Store: st, BaseURL: url},
		"two alike":    {Store: st, BaseURL: url, Sites: []Site{{Name: "a", Adapter: a}, {Name: "a", Adapter: a}}},
		"no name":      {Store: st, BaseURL: url, Sites: []Site{{Name: "", Adapter: a}}},
		"no adapter":   {Store: st, BaseURL: url, Sites: []Site{{Name: "a", Adapter: nil}}},
		"513 of these": {Store: st, BaseURL: url, Sites: make([]Site, maxSites+1)},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
