package broker

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
)

// here gives a running gateway with one site in a bubble.
func here(t *testing.T, w *fake.World, o fake.Options, change ...func(*Config)) *gateway {
	t.Helper()
	cfg := Config{Store: newStore(t), Sites: []Site{{Name: "here", Adapter: w.Open(o)}}}
	for _, c := range change {
		c(&cfg)
	}
	g := start(t, cfg)
	<-g.Ready()
	t.Cleanup(func() {
		w.Close()
		g.stop()
	})
	return g
}

func TestLives(t *testing.T) {
	for _, c := range []struct {
		name, script string
		state        bes.State
		events       string
		reason       string
	}{
		{"short", "exit 0", bes.Finished, "submitted placing placed started exited", "the program ended with exit status 0"},
		{"exit status", "exit 3", bes.Finished, "submitted placing placed started exited", "the program ended with exit status 3"},
		{"long", "sleep 3600; exit 0", bes.Finished, "submitted placing placed started exited", ""},
		{"signal", "signal SIGSEGV", bes.Finished, "submitted placing placed started exited", "the program was ended by the signal SIGSEGV"},
		{"limit", "stop it used more memory than it may", bes.Failed, "submitted placing placed started stopped", "it used more memory than it may"},
		{"missing", "missing there is no /bin/nothing", bes.Failed, "submitted placing placed stopped", "there is no /bin/nothing"},
		{"lost while it ran", "lose", bes.Failed, "submitted placing placed started lost", "the site lost the job"},
		{"refused", "reject no such queue", bes.Failed, "submitted placing gave-up", ""},
	} {
		for _, push := range []bool{true, false} {
			name := c.name
			if !push {
				name += ", polled"
			}
			t.Run(name, func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					g := here(t, fake.NewWorld(2), fake.Options{NoPush: !push})
					e := g.submit(c.script)
					s := g.until(e, c.state, "")
					if got := g.events(e); push && got != c.events {
						t.Errorf("events: %s\nwant:   %s", got, c.events)
					}
					if c.reason != "" && s.Details.Reason != c.reason {
						t.Errorf("reason %q, want %q", s.Details.Reason, c.reason)
					}
					if s.Details.Ended.IsZero() || s.Details.Reason == "" || s.Details.Name != "job" {
						t.Errorf("details %+v", s.Details)
					}
					if g.live != 0 || len(g.jobs) != 0 || len(g.owners) != 0 || g.sites["here"].inFlight != 0 || len(g.kinds) != 0 {
						t.Errorf("something is left in memory: live %d, jobs %d, owners %d, in flight %d, kinds %d",
							g.live, len(g.jobs), len(g.owners), g.sites["here"].inFlight, len(g.kinds))
					}
				})
			})
		}
	}
}

func TestOutput(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := fake.NewWorld(1)
		g := here(t, w, fake.Options{})
		blocker := g.submit("sleep 60")
		e := g.submit("out hello; sleep 60; out world; err bad")
		read := func(stream bes.Stream, offset int64, max int) (string, bool) {
			t.Helper()
			c, err := g.GetActivityOutput(as("ada"), e, stream, offset, max)
			if err != nil {
				t.Fatal(err)
			}
			return string(c.Data), c.More
		}
		if s, more := read(bes.Stdout, 0, 0); s != "" || !more {
			t.Errorf("before it runs: %q, %v", s, more)
		}
		g.until(blocker, bes.Finished, "")
		g.until(e, bes.Running, "Executing")
		if s, more := read(bes.Stdout, 0, 100); s != "hello\n" || !more {
			t.Errorf("while it runs: %q, %v", s, more)
		}
		g.until(e, bes.Finished, "")
		for _, c := range []struct {
			stream bes.Stream
			offset int64
			max    int
			want   string
			more   bool
		}{
			{bes.Stdout, 0, 0, "hello\nworld\n", false},
			{bes.Stdout, 0, 5, "hello", true},
			{bes.Stdout, 6, 6, "world\n", false},
			{bes.Stdout, 12, 6, "", false},
			{bes.Stderr, 0, 6, "bad\n", false},
		} {
			if s, more := read(c.stream, c.offset, c.max); s != c.want || more != c.more {
				t.Errorf("%+v: %q, %v", c, s, more)
			}
		}
		if _, err := g.GetActivityOutput(as("ada"), e, "stdlog", 0, 1); !fail.Is(err, fail.Invalid) {
			t.Errorf("an unknown stream: %v", err)
		}
	})
}

func TestTerminate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := fake.NewWorld(1)
		g := here(t, w, fake.Options{}, func(c *Config) { c.Limits.Ahead = 1 })
		runs := g.submit("hang")
		waits := g.submit("hang")
		queued := g.submit("hang")
		g.until(runs, bes.Running, "Executing")
		g.until(waits, bes.Running, "Submitted")
		if s := g.status(queued); s.State != bes.Pending {
			t.Errorf("the third is %v", s)
		}
		rs, err := g.TerminateActivities(as("ada"), []soap.EPR{queued, waits, runs, runs})
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range rs {
			if r.Err != nil {
				t.Errorf("item %d: %v", i, r.Err)
			}
		}
		if s := g.status(queued); s.State != bes.Cancelled {
			t.Errorf("a queued job is not cancelled at once: %v", s.State)
		}
		g.until(waits, bes.Cancelled, "")
		g.until(runs, bes.Cancelled, "")
		if err := one1(g.TerminateActivities(as("ada"), []soap.EPR{runs})); err != nil {
			t.Errorf("terminating a cancelled activity again (V11): %v", err)
		}
		e := g.submit("exit 0")
		g.until(e, bes.Finished, "")
		err = one1(g.TerminateActivities(as("ada"), []soap.EPR{e}))
		if !fail.Is(err, fail.Conflict) {
			t.Fatalf("terminating a finished activity (V11): %v", err)
		}
		if s, ok := err.(interface{ ActivityStatus() bes.Status }); !ok || s.ActivityStatus().State != bes.Finished {
			t.Errorf("the refusal does not tell the state: %v", err)
		}
	})
}

func TestCancelWhilePlacing(t *testing.T) {
	for _, answer := range []error{nil, fail.Errorf("x", fail.Unavailable, "", "full"), fail.Errorf("x", fail.Uncertain, "", "lost"), fail.Errorf("x", fail.Unsupported, "", "no")} {
		bubble(t, func(t *testing.T) {
			w := fake.NewWorld(1)
			w.Inject(func(op string, _ adapters.Tag) fake.Fault {
				if op == "submit" {
					return fake.Fault{Delay: time.Minute, Err: answer, After: fail.Is(answer, fail.Uncertain)}
				}
				return fake.Fault{}
			})
			g := here(t, w, fake.Options{})
			e := g.submit("hang")
			g.until(e, bes.Running, "Placing")
			if err := one1(g.TerminateActivities(as("ada"), []soap.EPR{e})); err != nil {
				t.Fatal(err)
			}
			g.until(e, bes.Cancelled, "")
		})
	}
}

func TestEvidenceWinsOverCancel(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := fake.NewWorld(1)
		g := here(t, w, fake.Options{})
		e := g.submit("hang")
		g.until(e, bes.Running, "Executing")
		w.Inject(func(op string, tag adapters.Tag) fake.Fault {
			if op == "cancel" {
				return fake.Fault{Err: fail.Errorf("x", fail.Unavailable, "", "not now")}
			}
			return fake.Fault{}
		})
		if err := one1(g.TerminateActivities(as("ada"), []soap.EPR{e})); err != nil {
			t.Fatal(err)
		}
		g.until(e, bes.Running, "Cancelling")
		if err := one1(g.SuspendActivities(as("ada"), []soap.EPR{e})); !fail.Is(err, fail.Conflict) {
			t.Errorf("suspending what is being terminated: %v", err)
		}
		if err := w.Finish(w.Tags()[0], 7); err != nil {
			t.Fatal(err)
		}
		if s := g.until(e, bes.Finished, ""); *s.Details.ExitStatus != 7 {
			t.Errorf("%+v", s.Details)
		}
	})
}

func TestSuspendResume(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := fake.NewWorld(1)
		g := here(t, w, fake.Options{}, func(c *Config) { c.Limits.Ahead = 1 })
		runs, waits, queued := g.submit("sleep 100"), g.submit("exit 0"), g.submit("exit 0")
		g.until(runs, bes.Running, "Executing")
		do := func(f func(context.Context, []soap.EPR) ([]bes.Result, error), e soap.EPR) {
			t.Helper()
			if err := one1(f(as("ada"), []soap.EPR{e})); err != nil {
				t.Fatal(err)
			}
		}
		do(g.SuspendActivities, queued)
		g.until(queued, bes.Pending, "Held")
		do(g.SuspendActivities, runs)
		do(g.SuspendActivities, runs)
		g.until(runs, bes.Running, "Suspended")
		time.Sleep(time.Hour)
		if s := g.status(runs); s.State != bes.Running || s.SubStates[0].Local != "Suspended" {
			t.Errorf("an hour later: %v", s)
		}
		if s := g.status(queued); s.SubStates[0].Local != "Held" {
			t.Errorf("an hour later: %v", s)
		}
		do(g.ResumeActivities, runs)
		do(g.ResumeActivities, queued)
		g.until(runs, bes.Finished, "")
		g.until(waits, bes.Finished, "")
		g.until(queued, bes.Finished, "")
		if err := one1(g.ResumeActivities(as("ada"), []soap.EPR{runs})); !fail.Is(err, fail.Conflict) {
			t.Errorf("resuming what has finished: %v", err)
		}
	})
}

func TestSuspendUnsupported(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := here(t, fake.NewWorld(1), fake.Options{NoSuspend: true})
		e := g.submit("hang")
		g.until(e, bes.Running, "Executing")
		if err := one1(g.SuspendActivities(as("ada"), []soap.EPR{e})); !fail.Is(err, fail.Unsupported) {
			t.Errorf("%v", err)
		}
	})
}

func TestRetries(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := fake.NewWorld(1)
		n := 0
		w.Inject(func(op string, _ adapters.Tag) fake.Fault {
			if op == "submit" {
				if n++; n <= 4 {
					return fake.Fault{Err: fail.Errorf("x", fail.Unavailable, "", "the manager restarts")}
				}
			}
			return fake.Fault{}
		})
		g := here(t, w, fake.Options{})
		began := time.Now()
		e := g.submit("exit 0")
		g.until(e, bes.Running, "Requeued")
		g.until(e, bes.Finished, "")
		// 1+2+4+8 s, each spread over its upper half by a jitter of one half.
		if took := time.Since(began); took < 11*time.Second || took > 12*time.Second {
			t.Errorf("five attempts took %v\n%s", took, g.story(e))
		}
		want := "submitted" + strings.Repeat(" placing deferred", 4) + " placing placed started exited"
		if got := g.events(e); got != want {
			t.Errorf("events: %s", got)
		}
	})
}

func TestLostAnswer(t *testing.T) {
	for _, placed := range []bool{true, false} {
		bubble(t, func(t *testing.T) {
			w := fake.NewWorld(1)
			submits, finds := 0, 0
			w.Inject(func(op string, _ adapters.Tag) fake.Fault {
				switch op {
				case "submit":
					if submits++; submits == 1 {
						return fake.Fault{Err: fail.Errorf("x", fail.Uncertain, "", "lost"), After: placed}
					}
				case "find":
					if finds++; finds < 4 {
						return fake.Fault{Err: fail.Errorf("x", fail.Unavailable, "", "down")}
					}
				}
				return fake.Fault{}
			})
			g := here(t, w, fake.Options{NoPush: true})
			e := g.submit("sleep 100; exit 0")
			g.until(e, bes.Finished, "")
			starts := 0
			for _, n := range w.Ledger() {
				starts += n
			}
			if starts != 1 {
				t.Errorf("placed %v: started %d times\n%s", placed, starts, g.story(e))
			}
		})
	}
}

func TestOtherSiteIsTried(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := fake.NewWorld(4), fake.NewWorld(4)
		refuse := func(op string, _ adapters.Tag) fake.Fault {
			if op == "submit" {
				return fake.Fault{Err: fail.Errorf("x", fail.Denied, "", "your account is closed")}
			}
			return fake.Fault{}
		}
		a.Inject(refuse)
		g := here(t, a, fake.Options{}, func(c *Config) { c.Sites = append(c.Sites, Site{Name: "there", Adapter: b.Open(fake.Options{})}) })
		t.Cleanup(b.Close)
		e := g.submit("exit 0")
		if s := g.until(e, bes.Finished, ""); s.Details.Site != "there" {
			t.Errorf("it ran at %q\n%s", s.Details.Site, g.story(e))
		}
		pinned := g.submit("exit 0", "here")
		if s := g.until(pinned, bes.Failed, ""); !strings.Contains(s.Details.Reason, "your account is closed") {
			t.Errorf("reason %q", s.Details.Reason)
		}
		b.Inject(refuse)
		e = g.submit("exit 0")
		g.until(e, bes.Failed, "")
		if got := g.events(e); got != "submitted placing refused placing gave-up" {
			t.Errorf("events: %s", got)
		}
	})
}

func TestLostBeforeItRan(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := fake.NewWorld(1)
		g := here(t, w, fake.Options{}, func(c *Config) { c.Retry.Lost = 2 })
		g.submit("hang")
		e := g.submit("exit 0")
		for n := range 3 {
			g.until(e, bes.Running, "Submitted")
			synctest.Wait()
			for _, tag := range w.Tags() {
				if w.Starts(tag) == 0 {
					_ = w.Lose(tag, true) // those of before are lost already
				}
			}
			if n < 2 {
				g.until(e, bes.Running, "Requeued")
			}
		}
		g.until(e, bes.Failed, "")
		if got := g.events(e); got != "submitted placing placed unrun placing placed unrun placing placed lost" {
			t.Errorf("events: %s", got)
		}
	})
}
