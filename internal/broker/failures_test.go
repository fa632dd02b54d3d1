package broker

import (
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/soap"
)

func TestQuarantine(t *testing.T) {
	f := Flapping{Flaps: 3, Window: 10 * time.Minute, First: time.Minute, Most: 5 * time.Minute}
	var q quarantine
	now := time.Unix(1e9, 0)
	for _, c := range []struct {
		what  string
		after time.Duration
		left  time.Duration
	}{
		{"it went", time.Second, 0},
		{"again", time.Minute, 0},
		{"and again", time.Minute, time.Minute},
		{"after it was kept out", 2 * time.Minute, 0},
		{"again", time.Second, 0},
		{"it flaps still", time.Second, 2 * time.Minute},
		{"at the end of that", 2 * time.Minute, 0},
		{"again", 0, 0},
		{"a third time", 0, 4 * time.Minute},
		{"", 4 * time.Minute, 0},
		{"", 0, 0},
		{"not longer than the most", 0, 5 * time.Minute},
		{"seldom is not often: all is forgotten", 16 * time.Minute, 0},
		{"", time.Second, 0},
		{"it begins anew", time.Second, time.Minute},
		{"", 12 * time.Minute, 0},
		{"", 9 * time.Minute, 0},
		{"two within the window are no three", 9 * time.Minute, 0},
	} {
		now = now.Add(c.after)
		q.fell(now, f)
		if got := q.left(now); got != c.left {
			t.Errorf("%s: kept out for %v, want %v", c.what, got, c.left)
		}
	}
	if got := q.left(now.Add(time.Hour)); got != 0 {
		t.Errorf("for ever: %v", got)
	}
}

func TestQuarantineProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := Flapping{
			Flaps: rapid.IntRange(1, 5).Draw(t, "flaps"), Window: time.Duration(rapid.IntRange(1, 600).Draw(t, "window")) * time.Second,
			First: time.Second, Most: time.Duration(rapid.IntRange(1, 1<<20).Draw(t, "most")) * time.Second,
		}
		var q quarantine
		now := time.Unix(1e9, 0)
		for range rapid.IntRange(1, 200).Draw(t, "falls") {
			now = now.Add(time.Duration(rapid.IntRange(0, 1000).Draw(t, "after")) * time.Second)
			before := q.left(now)
			q.fell(now, f)
			switch left := q.left(now); {
			case left > f.Most || left < before && before <= f.Most:
				t.Fatalf("kept out for %v, at most %v; before %v", left, f.Most, before)
			case len(q.falls) >= f.Flaps:
				t.Fatalf("%d falls are remembered", len(q.falls))
			}
		}
	})
}

func TestCredit(t *testing.T) {
	var c credit
	full := c.window()
	for range 100 {
		c.answered(64, 0, 50*time.Millisecond)
	}
	if c.window() != full {
		t.Errorf("a site that answers well has %d of %d", c.window(), full)
	}
	c.answered(64, 0, 100*time.Millisecond)
	if c.window() != full {
		t.Error("twice its usual is not slow yet, as it is quick")
	}
	c.answered(64, 0, 3*time.Second)
	if c.window() != full/2 {
		t.Errorf("slow: %d of %d", c.window(), full)
	}
	c.answered(64, 1, time.Millisecond)
	if c.window() != full/4 {
		t.Errorf("put off: %d of %d", c.window(), full)
	}
	for range 50 {
		c.answered(1, 1, time.Minute)
	}
	if c.window() != leastCredit {
		t.Errorf("it is never without: %d", c.window())
	}
	n := 0
	for ; c.window() < 256 && n < 10000; n++ {
		c.answered(1, 0, time.Millisecond)
	}
	if n < 256 || n == 10000 {
		t.Errorf("it is back after %d jobs", n)
	}
	// What is always slow is its usual, and no reason to give it less.
	c = credit{}
	for range 100 {
		c.answered(64, 0, 5*time.Second)
	}
	if c.window() < full/2 {
		t.Errorf("%d of %d", c.window(), full)
	}
}

func TestCreditProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c credit
		for range rapid.IntRange(1, 100).Draw(t, "answers") {
			before := c.window()
			n := rapid.IntRange(0, 2000).Draw(t, "n")
			refused := rapid.IntRange(0, n).Draw(t, "refused")
			c.answered(n, refused, time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "took")))
			switch w := c.window(); {
			case w < leastCredit || w > mostCredit:
				t.Fatalf("window %d", w)
			case refused > 0 && w > max(leastCredit, before/2+1):
				t.Fatalf("put off, and from %d to %d", before, w)
			case w > before+n:
				t.Fatalf("from %d to %d by %d answers", before, w, n)
			}
		}
	})
}

// rerunning is a document whose job may be run again.
func rerunning(script string, hosts ...string) []byte {
	doc := string(document(script, append(hosts, "here", "there")...))
	return []byte(strings.Replace(doc, "</jsdl:Resources>", `<q:Placement xmlns:q="http://portolan-project.org/ns/2026/jsdl"><q:Rerunnable>true</q:Rerunnable></q:Placement></jsdl:Resources>`, 1))
}

// A job that is lost while it ran is run again if its document allows it, before
// those that wait, and no other is.
func TestLostWhileItRan(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := fake.NewWorld(1), fake.NewWorld(1)
		b.Down("it is not there yet")
		g := two(t, a, b, fake.Options{}, func(c *Config) { c.Limits.Ahead = 1 })
		create := func(doc []byte) soap.EPR {
			r, err := g.CreateActivity(as("ada"), &bes.CreateActivityRequest{Document: doc})
			if err != nil {
				t.Fatal(err)
			}
			return r.Activity
		}
		e := create(rerunning("sleep 50; exit 0"))
		g.until(e, bes.Running, "Executing")
		behind := []soap.EPR{create(document("sleep 50")), create(document("sleep 50")), create(document("sleep 50"))}
		synctest.Wait()
		if err := a.Lose(first(a), false); err != nil {
			t.Fatal(err)
		}
		s := g.until(e, bes.Running, "Requeued")
		if !strings.Contains(s.Details.Reason, "lost") || !strings.Contains(s.Details.Reason, "Rerunnable") || !s.Details.Started.IsZero() {
			t.Errorf("%+v", s.Details)
		}
		g.until(e, bes.Running, "Executing")
		last := g.status(behind[2])
		if last.State.Final() || last.State == bes.Running && last.SubStates[0].Local == "Executing" {
			t.Errorf("one that came later was run before it: %+v", last)
		}
		g.until(e, bes.Finished, "")
		if got, want := g.events(e), "submitted placing placed started rerun placing placed started exited"; got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
		// One that does not allow it is not run again, nor is one that keeps being lost.
		e = create(document("lose", "here"))
		g.until(e, bes.Failed, "")
		e = create(rerunning("lose"))
		g.until(e, bes.Failed, "")
		if n := strings.Count(g.events(e), "rerun"); n != g.cfg.Retry.Lost {
			t.Errorf("run again %d times:\n%s", n, g.story(e))
		}
	})
}

// A site whose manager hangs is noticed within two intervals, and what was not handed
// over yet runs elsewhere.
func TestSiteHangs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := fake.NewWorld(8), fake.NewWorld(8)
		var mu sync.Mutex
		hangs := false
		hang := func(op string, _ adapters.Tag) fake.Fault {
			mu.Lock()
			defer mu.Unlock()
			if hangs && op != "check" {
				return fake.Fault{Delay: time.Hour}
			}
			return fake.Fault{}
		}
		a.Inject(hang)
		g := two(t, a, b, fake.Options{MaxBatch: 1, NoPush: true}, func(c *Config) { c.PollInterval = 5 * time.Second })
		mu.Lock()
		hangs = true
		mu.Unlock()
		began := time.Now()
		var es []soap.EPR
		for range 8 {
			es = append(es, g.submit("sleep 10; exit 0"))
		}
		for g.site("here").State != SiteDown {
			time.Sleep(time.Second)
		}
		if d := time.Since(began); d > 2*g.cfg.AuditInterval+time.Second {
			t.Errorf("noticed after %v", d)
		}
		if s := g.site("here"); !strings.Contains(s.Problem, "has not answered since") {
			t.Errorf("%+v", s)
		}
		done := 0
		time.Sleep(time.Minute)
		for _, e := range es {
			if s := g.status(e); s.State == bes.Finished && s.Details.Site == "there" {
				done++
			}
		}
		if done != 7 { // one is in the call that hangs
			t.Errorf("%d ran elsewhere", done)
		}
		mu.Lock()
		hangs = false
		mu.Unlock()
		for _, e := range es {
			g.until(e, bes.Finished, "")
		}
		g.until(g.submit("exit 0", "here"), bes.Finished, "")
		if s := g.site("here"); s.State != SiteUp {
			t.Errorf("it is back: %+v", s)
		}
		starts := map[string]int{}
		for _, w := range []*fake.World{a, b} {
			for tag, n := range w.Ledger() {
				starts[string(tag)[:36]] += n
			}
		}
		for id, n := range starts {
			if n != 1 {
				t.Errorf("%s was run %d times", id, n)
			}
		}
	})
}

// A site that comes and goes is kept out, longer each time.
func TestSiteFlaps(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := fake.NewWorld(8), fake.NewWorld(8)
		g := two(t, a, b, fake.Options{})
		for range 4 {
			a.Down("slurmctld does not answer")
			time.Sleep(31 * time.Second)
			a.Up()
			time.Sleep(31 * time.Second)
		}
		if s := g.site("here"); s.State != SiteDown || !strings.Contains(s.Problem, "came and went") {
			t.Errorf("%+v", s)
		}
		for range 4 {
			if s := g.until(g.submit("exit 0"), bes.Finished, ""); s.Details.Site != "there" {
				t.Errorf("run at %s", s.Details.Site)
			}
		}
		waits := g.submit("exit 0", "here")
		if s := g.status(waits); !strings.Contains(s.Details.Reason, "came and went") {
			t.Errorf("%q", s.Details.Reason)
		}
		if s := g.until(waits, bes.Finished, ""); s.Details.Site != "here" {
			t.Errorf("run at %s", s.Details.Site)
		}
	})
}
