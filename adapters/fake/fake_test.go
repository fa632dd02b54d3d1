package fake_test

import (
	"context"
	"flag"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/adaptertest"
	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

func TestMain(m *testing.M) {
	// The parts of the suite wait more than they compute.
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// define puts a behaviour into the fake's own words.
func define(b adaptertest.Behaviour) *jsdl.JobDefinition {
	var steps []string
	if b.Missing {
		steps = append(steps, "missing there is no such program")
	}
	if b.Stdout != "" {
		steps = append(steps, "out "+b.Stdout)
	}
	if b.Stderr != "" {
		steps = append(steps, "err "+b.Stderr)
	}
	if b.Hang {
		steps = append(steps, "hang")
	}
	if b.Sleep > 0 {
		steps = append(steps, fmt.Sprintf("sleep %d", b.Sleep))
	}
	if b.Signal != "" {
		steps = append(steps, "signal "+b.Signal)
	}
	steps = append(steps, fmt.Sprintf("exit %d", b.Exit))
	return script(strings.Join(steps, "; "))
}

func script(s string) *jsdl.JobDefinition { return adaptertest.Command("fake:" + s) }

func harness(o fake.Options) adaptertest.Harness {
	return adaptertest.Harness{
		Site: func(t testing.TB) any {
			w := fake.NewWorld(8)
			t.Cleanup(w.Close)
			return w
		},
		Open:   func(_ testing.TB, site any) adapters.Adapter { return site.(*fake.World).Open(o) },
		Define: define, Parallel: true,
		Starts: func(site any, tag adapters.Tag) int { return site.(*fake.World).Starts(tag) },
		Seen:   seen,
		OldHandles: func(_ any, h adapters.Handle) []adapters.Handle {
			return []adapters.Handle{fake.OldHandle(h)}
		},
		Manager: adaptertest.Manager{
			Stop:  func(_ testing.TB, site any) { site.(*fake.World).Down("it was stopped") },
			Start: func(_ testing.TB, site any) { site.(*fake.World).Up() },
			Restart: func(_ testing.TB, site any) {
				site.(*fake.World).Down("it was killed")
				site.(*fake.World).Up()
			},
			LoseNextAnswer:      func(_ testing.TB, site any, done bool) { site.(*fake.World).LoseNextAnswer(done) },
			LoseNextReservation: func(_ testing.TB, site any, done bool) { site.(*fake.World).LoseNextReservation(done) },
			ReuseIDs:            func(_ testing.TB, site any) { site.(*fake.World).ReuseIDs() },
			Requests:            func(site any) int64 { return site.(*fake.World).Requests() },
		},
	}
}

// seen tells what the fake manager has of a job.
func seen(site any, tag adapters.Tag) adaptertest.Seen {
	d := site.(*fake.World).Definition(tag)
	p := d.Program()
	s := adaptertest.Seen{Executable: &p.Executable.Value, Environment: map[string]string{}, JobName: d.Description.Identification.JobName}
	for _, a := range p.Arguments {
		s.Arguments = append(s.Arguments, a.Value)
	}
	for _, v := range p.Environment {
		s.Environment[v.Name] = v.Value
	}
	return s
}

func TestSuite(t *testing.T) { adaptertest.Run(t, harness(fake.Options{})) }

func TestSuitePlain(t *testing.T) {
	h := harness(fake.Options{NoPush: true, NoSuspend: true, NoHold: true, NoReserve: true, MaxBatch: 7, MaxJobs: 400})
	h.Lacks = map[string]string{"Hold": "this fake has no way to hold a job"}
	adaptertest.Run(t, h)
}

func TestSuiteBudget(t *testing.T) {
	h := harness(fake.Options{Requests: 150, Bulk: true})
	h.Short = true
	adaptertest.Run(t, h)
}

// Hours pass at once, and a suspended job's clock stands still.
func TestTimeIsTheCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := fake.NewWorld(1)
		a := w.Open(fake.Options{})
		p := a.Submit(t.Context(), []adapters.Job{{Tag: "a", Definition: script("sleep 3600; exit 2")}, {Tag: "b", Definition: script("sleep 1h")}})
		s := a.(adapters.Suspender)
		phase := func(i int) adapters.Phase {
			t.Helper()
			e, err := a.Status(t.Context(), []adapters.Handle{p[i].Handle})
			if err != nil {
				t.Fatal(err)
			}
			return e[0].Phase
		}
		time.Sleep(30 * time.Minute)
		if errs := s.Suspend(t.Context(), []adapters.Handle{p[0].Handle}); errs[0] != nil {
			t.Fatal(errs[0])
		}
		time.Sleep(5 * time.Hour)
		if phase(0) != adapters.Suspended || phase(1) != adapters.Queued {
			t.Fatalf("after five hours of suspension: %v, %v", phase(0), phase(1))
		}
		if errs := s.Resume(t.Context(), []adapters.Handle{p[0].Handle}); errs[0] != nil {
			t.Fatal(errs[0])
		}
		time.Sleep(31 * time.Minute)
		if phase(0) != adapters.Exited || phase(1) != adapters.Running {
			t.Fatalf("after an hour of running: %v, %v", phase(0), phase(1))
		}
		w.Close()
	})
}

func TestFaults(t *testing.T) {
	w := fake.NewWorld(0)
	t.Cleanup(w.Close)
	a := w.Open(fake.Options{})
	lost := fail.Errorf("test", fail.Uncertain, "", "the answer was lost")
	w.Inject(func(op string, tag adapters.Tag) fake.Fault {
		switch {
		case op == "submit" && tag == "lost":
			return fake.Fault{Err: lost, After: true}
		case op == "submit" && tag == "down":
			return fake.Fault{Err: fail.Errorf("test", fail.Unavailable, "", "down")}
		case op == "status":
			return fake.Fault{Delay: time.Hour}
		}
		return fake.Fault{}
	})
	p := a.Submit(t.Context(), []adapters.Job{{Tag: "lost", Definition: script("exit 0")}, {Tag: "down", Definition: script("exit 0")}})
	if !fail.Is(p[0].Err, fail.Uncertain) || !fail.Is(p[1].Err, fail.Unavailable) {
		t.Fatalf("answers: %+v", p)
	}
	found, err := a.Find(t.Context(), []adapters.Tag{"lost", "down"})
	if err != nil || len(found) != 1 || w.Starts("lost") != 1 || w.Starts("down") != 0 {
		t.Errorf("found %v (%v); ledger %v", found, err, w.Ledger())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.Status(ctx, []adapters.Handle{found["lost"]}); !fail.Is(err, fail.Unavailable) {
		t.Errorf("a delayed Status that was given up answers %v", err)
	}
	w.Inject(nil)
	if e, err := a.Status(t.Context(), []adapters.Handle{found["lost"]}); err != nil || e[0].Phase != adapters.Exited {
		t.Errorf("after the faults: %v, %v", e, err)
	}
}

func TestVerbs(t *testing.T) {
	w := fake.NewWorld(0)
	t.Cleanup(w.Close)
	a := w.Open(fake.Options{})
	for _, s := range []string{"nonsense", "exit x", "exit 256", "signal 9", "sleep soon", "unsupported no MPI here"} {
		if err := a.Check(script(s)); !fail.Is(err, fail.Unsupported) {
			t.Errorf("Check of %q gives %v", s, err)
		}
	}
	p := a.Submit(t.Context(), []adapters.Job{
		{Tag: "reject", Definition: script("reject no")},
		{Tag: "lose", Definition: script("lose")},
		{Tag: "stop", Definition: script("stop too long")},
		{Tag: "hold", Definition: script("hold by the owner; exit 1")},
		{Tag: "hang", Definition: script("hang")},
		{Tag: "plain", Definition: adaptertest.Command("/bin/true")},
	})
	if !fail.Is(p[0].Err, fail.Unsupported) {
		t.Errorf("reject gives %+v", p[0])
	}
	if err := w.Finish("hang", 4); err != nil {
		t.Error(err)
	}
	status := func() (phases []adapters.Phase) {
		var handles []adapters.Handle
		for _, one := range p[1:] {
			handles = append(handles, one.Handle)
		}
		all, err := a.Status(t.Context(), handles)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all {
			phases = append(phases, e.Phase)
		}
		return phases
	}
	if got, want := fmt.Sprint(status()), "[lost stopped held exited exited]"; got != want {
		t.Errorf("phases %v, want %v", got, want)
	}
	if err := w.Release("hold"); err != nil {
		t.Error(err)
	}
	if got, want := fmt.Sprint(status()), "[lost stopped exited exited exited]"; got != want {
		t.Errorf("phases %v, want %v", got, want)
	}
}

// What a job tells of itself is in its evidence, to the end.
func TestTelling(t *testing.T) {
	w := fake.NewWorld(0)
	t.Cleanup(w.Close)
	a := w.Open(fake.Options{})
	for _, s := range []string{"progress 2", "progress x", "usage 3s", "usage soon 1", "attribute"} {
		if err := a.Check(script(s)); !fail.Is(err, fail.Unsupported) {
			t.Errorf("Check of %q gives %v", s, err)
		}
	}
	p := a.Submit(t.Context(), []adapters.Job{{Tag: "a", Definition: script("progress 0.5; hosts n1 n2; usage 3s 4096; attribute Colour dark red; hang")}})
	tells := func(progress float64, more string) {
		t.Helper()
		all, err := a.Status(t.Context(), []adapters.Handle{p[0].Handle})
		if err != nil {
			t.Fatal(err)
		}
		e := all[0]
		if e.Progress != progress || fmt.Sprint(e.Hosts) != "[n1 n2]" || e.Usage != (adapters.Usage{CPU: 3 * time.Second, Memory: 4096}) || e.Attributes["Colour"] != "dark red" || e.Attributes["More"] != more {
			t.Errorf("the job tells %+v", e)
		}
		if more == "" && e.Attributes != nil {
			e.Attributes["More"] = "written by the reader" // and nobody else sees it
		}
	}
	tells(0.5, "")
	if err := w.Tell("a", func(e *adapters.Evidence) { e.Progress, e.Attributes["More"] = 1, "yes" }); err != nil {
		t.Fatal(err)
	}
	tells(1, "yes")
	if err := w.Finish("a", 0); err != nil {
		t.Fatal(err)
	}
	tells(1, "yes")
	if w.Tell("a", func(*adapters.Evidence) {}) == nil {
		t.Error("a job that ended is told about")
	}
}

// While the manager is down nothing is heard of it; afterwards everything is.
func TestDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := fake.NewWorld(1)
		a := w.Open(fake.Options{})
		ctx, stop := context.WithCancel(t.Context())
		var heard []string
		done := make(chan error)
		go func() {
			done <- a.(adapters.Watcher).Watch(ctx, func(all []adapters.Evidence) {
				for _, e := range all {
					heard = append(heard, fmt.Sprintf("%s=%v", e.Tag, e.Phase))
				}
			})
		}()
		synctest.Wait()
		p := a.Submit(t.Context(), []adapters.Job{{Tag: "a", Definition: script("sleep 60")}})
		synctest.Wait()
		w.Down("the cable is out")
		heard = nil
		time.Sleep(time.Hour)
		synctest.Wait()
		if _, err := a.Status(t.Context(), []adapters.Handle{p[0].Handle}); !fail.Is(err, fail.Unavailable) || len(heard) > 0 || a.Health().Problem != "the cable is out" {
			t.Errorf("while it is down: %v, heard %v, %+v", err, heard, a.Health())
		}
		before := w.Requests()
		w.Up()
		synctest.Wait()
		if e, err := a.Status(t.Context(), []adapters.Handle{p[0].Handle}); err != nil || e[0].Phase != adapters.Exited || fmt.Sprint(heard) != "[a=exited]" || a.Health().Problem != "" || w.Requests() != before+1 {
			t.Errorf("when it is back: %v, %v, heard %v, %+v", e, err, heard, a.Health())
		}
		stop()
		<-done
		w.Close()
	})
}

// A reservation keeps its slots through hours of other work, by the bounds of wall times;
// faults befall it by its tag.
func TestReservations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := fake.NewWorld(2)
		a := w.Open(fake.Options{Accounts: []string{"ann"}})
		r := a.(adapters.Reserver)
		now := time.Now()
		place := func(j adapters.Job) adapters.Placed { return a.Submit(t.Context(), []adapters.Job{j})[0] }
		limited := func(s string, seconds int64) *jsdl.JobDefinition {
			d := script(s)
			d.Description.Application.POSIX.Limits.WallTime = big.NewInt(seconds)
			return d
		}
		phases := func(tags ...adapters.Tag) string {
			t.Helper()
			found, err := a.Find(t.Context(), tags)
			if err != nil {
				t.Fatal(err)
			}
			var words []string
			for _, tag := range tags {
				all, err := a.Status(t.Context(), []adapters.Handle{found[tag]})
				if err != nil {
					t.Fatal(err)
				}
				words = append(words, all[0].Phase.String())
			}
			return strings.Join(words, " ")
		}
		ask := func(tag adapters.Tag, cpus int, from, until time.Duration) adapters.Reserved {
			return r.Reserve(t.Context(), []adapters.Reservation{{Tag: tag, CPUs: cpus, From: now.Add(from), Until: now.Add(until), Account: "ann"}})[0]
		}
		place(adapters.Job{Tag: "short", Definition: limited("hang", 1800)})
		if got := ask("early", 2, 20*time.Minute, time.Hour); !fail.Is(got.Err, fail.Exhausted) {
			t.Errorf("two slots before the job has ended give %+v", got)
		}
		both := ask("both", 2, time.Hour, 2*time.Hour)
		if both.Err != nil {
			t.Fatal(both.Err)
		}
		place(adapters.Job{Tag: "long", Definition: script("hang")})
		place(adapters.Job{Tag: "brief", Definition: limited("sleep 60", 120)})
		if p := place(adapters.Job{Tag: "bob", Definition: script("exit 0"), Reservation: both.Handle}); !fail.Is(p.Err, fail.Denied) {
			t.Errorf("a job of another account gives %+v", p)
		}
		place(adapters.Job{Tag: "in", Definition: script("hang"), Account: "ann", Reservation: both.Handle})
		place(adapters.Job{Tag: "in-short", Definition: script("sleep 60; exit 3"), Account: "ann", Reservation: both.Handle})
		if got, want := phases("short", "long", "brief", "in", "in-short"), "running queued running queued queued"; got != want {
			t.Errorf("before the window: %s, want %s", got, want)
		}
		time.Sleep(time.Hour + time.Second)
		if got, want := phases("short", "long", "brief", "in", "in-short"), "stopped queued exited running running"; got != want {
			t.Errorf("in the window: %s, want %s", got, want)
		}
		if c, err := a.Resources(t.Context()); err != nil || c.Shares[0].FreeSlots != 0 {
			t.Errorf("in the window the site has %+v, %v", c, err)
		}
		if err := w.Trouble("both", "the node is on fire"); err != nil || w.Trouble("other", "x") == nil {
			t.Errorf("Trouble: %v", err)
		}
		if all, err := r.Reservations(t.Context(), nil); err != nil || len(all) != 1 || all[0].Problem != "the node is on fire" || all[0].Phase != adapters.ReservationActive || all[0].CPUs != 2 {
			t.Errorf("the reservations are %+v, %v", all, err)
		}
		time.Sleep(time.Hour)
		if got, want := phases("long", "in", "in-short"), "running stopped exited"; got != want {
			t.Errorf("after the window: %s, want %s", got, want)
		}

		w.Inject(func(op string, tag adapters.Tag) fake.Fault {
			if tag == "faulty" && (op == "reserve" || op == "unreserve") {
				return fake.Fault{Err: fail.Errorf("test", fail.Uncertain, "", "lost"), After: true}
			}
			return fake.Fault{}
		})
		if got := ask("faulty", 1, 3*time.Hour, 4*time.Hour); !fail.Is(got.Err, fail.Uncertain) {
			t.Errorf("a faulty reservation gives %+v", got)
		}
		all, err := r.Reservations(t.Context(), []adapters.Tag{"faulty"})
		if err != nil || all[0].Phase != adapters.ReservationPending {
			t.Fatalf("it is %+v, %v", all, err)
		}
		if errs := r.Unreserve(t.Context(), []adapters.Handle{all[0].Handle}); !fail.Is(errs[0], fail.Uncertain) {
			t.Errorf("releasing it gives %v", errs)
		}
		if all, err := r.Reservations(t.Context(), []adapters.Tag{"faulty"}); err != nil || all[0].Phase != adapters.ReservationGone {
			t.Errorf("then it is %+v, %v", all, err)
		}
		w.Close()
	})
}
