package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/jsdl"
)

// handed gives a job that bsc handed over with a lease of so long.
func handed(n int, lease time.Duration, script string, hosts ...string) Foreign {
	now := time.Now()
	id := fmt.Sprintf("0192b1a0-0000-7000-8000-%012d", n)
	return Foreign{
		SubmissionID: "peer:bsc.example/" + id + "#1.1", Since: now, Owner: "guest", Account: "bscguest", VO: "bio",
		Document: document(script, hosts...), NotAfter: now.Add(lease),
		From: "bsc.example", Origin: "bsc.example", ID: id, Path: []string{"bsc.example"}, Hops: 1,
	}
}

func (g *gateway) takeIn(f Foreign) string {
	g.t.Helper()
	r := g.TakeIn(context.Background(), f)
	if len(r) != 1 || r[0].Err != nil || r[0].ID == "" {
		g.t.Fatalf("TakeIn: %+v", r)
	}
	return r[0].ID
}

func (g *gateway) foreign(id string) ForeignState {
	g.t.Helper()
	s, err := g.ForeignStates(context.Background(), id)
	if err != nil {
		g.t.Fatal(err)
	}
	return s[id]
}

// listener is what an engine hears of jobs of peers.
type listener struct {
	mu      sync.Mutex
	seen    map[string][]ForeignState
	fresh   int
	changed chan struct{}
	cancel  context.CancelFunc
	done    chan error
}

func (g *gateway) listen() *listener {
	l := &listener{seen: map[string][]ForeignState{}, changed: make(chan struct{}, 1), done: make(chan error, 1)}
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	go func() {
		l.done <- g.WatchForeign(ctx, func(states []ForeignState) {
			l.mu.Lock()
			defer l.mu.Unlock()
			if len(states) == 0 {
				l.fresh++
			}
			for _, s := range states {
				l.seen[s.ID] = append(l.seen[s.ID], s)
			}
			nudge(l.changed)
		})
	}()
	return l
}

func (l *listener) stop(t *testing.T) {
	t.Helper()
	l.cancel()
	if err := <-l.done; err != nil {
		t.Errorf("WatchForeign: %v", err)
	}
}

// until waits for a phase, and gives the phases that were heard on the way.
func (l *listener) until(t *testing.T, id string, p ForeignPhase) ForeignState {
	t.Helper()
	for {
		l.mu.Lock()
		states := l.seen[id]
		l.mu.Unlock()
		if n := len(states); n > 0 && states[n-1].Phase == p {
			return states[n-1]
		}
		select {
		case <-l.changed:
		case <-time.After(time.Hour):
			t.Fatalf("waited for %s, heard %+v", p, states)
		}
	}
}

func (l *listener) phases(id string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, s := range l.seen[id] {
		if n := len(out); n == 0 || out[n-1] != string(s.Phase) {
			out = append(out, string(s.Phase))
		}
	}
	return strings.Join(out, " ")
}

func TestForeignRuns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := fake.NewWorld(2)
		g := here(t, w, fake.Options{})
		l := g.listen()
		defer l.stop(t)
		f := handed(7, time.Hour, "out hello; usage 90s 1024; sleep 30; exit 3")
		id := g.takeIn(f)
		s := l.until(t, id, ForeignEnded)
		if s.Outcome != bes.Finished || s.ExitStatus == nil || *s.ExitStatus != 3 || s.Site != "here" || s.Used != 90*time.Second || s.SubmissionID != f.SubmissionID {
			t.Errorf("it ended as %+v", s)
		}
		if got := l.phases(id); !strings.HasSuffix(got, "running ended") {
			t.Errorf("the engine heard %q", got)
		}
		// Whatever is said of it the second time, it is the same.
		f.Owner, f.Document = "another", document("exit 9")
		f.NotAfter = time.Now().Add(-time.Hour)
		if r := g.TakeIn(context.Background(), f); r[0].Err != nil || r[0].ID != id || r[0].State.Phase != ForeignEnded {
			t.Errorf("taking it in again gives %+v", r)
		}
		chunk, err := g.ForeignOutput(context.Background(), id, bes.Stdout, 0, 100)
		if err != nil || string(chunk.Data) != "hello\n" || chunk.More {
			t.Errorf("its output is %+v, %v", chunk, err)
		}
		tag := adapters.Tag(id + "-1")
		if n := w.Starts(tag); n != 1 || len(w.Ledger()) != 1 {
			t.Errorf("it was started %d times; all: %v", n, w.Ledger())
		}
	})
}

// Many are taken in at once, those that are wrong too, each with its own answer.
func TestForeignMany(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := here(t, fake.NewWorld(1000), fake.Options{})
		var all []Foreign
		for n := range 300 {
			all = append(all, handed(n, time.Hour, "exit 0"))
		}
		all[3].Document = []byte("<nonsense/>")
		all[5].NotAfter = time.Now().Add(-time.Second)
		all[7].Owner = ""
		out := g.TakeIn(context.Background(), all...)
		for i, r := range out {
			// That a lease is over says nothing against the job.
			if bad := i == 3 || i == 7; bad != fail.Is(r.Err, fail.Invalid) || (i == 5) != fail.Is(r.Err, fail.Unavailable) || !bad && i != 5 && r.Err != nil {
				t.Errorf("%d: %v", i, r.Err)
			}
		}
		if r := g.TakeIn(context.Background(), all[10], all[10]); r[0].ID != out[10].ID || r[1].ID != out[10].ID {
			t.Errorf("one job twice at once: %+v", r)
		}
		g.mu.Lock()
		live, creating := g.live, len(g.creating)
		g.mu.Unlock()
		if live > 297 || creating != 0 {
			t.Errorf("%d are live, %d being created", live, creating)
		}
	})
}

// A job of a peer gets no site that could not end it by itself, and goes neither back to where
// it came from nor further than it may.
func TestForeignPlaces(t *testing.T) {
	for _, c := range []struct {
		name    string
		sites   []fake.Options
		change  func(*Foreign)
		refused string // in the sentence; "" for none
		site    string // that it gets
	}{
		{"no lease", []fake.Options{{NoLease: true}}, nil, "can't end a job by itself", ""},
		{"the one with leases", []fake.Options{{NoLease: true}, {}}, nil, "", "s1"},
		{"back to where it came from", []fake.Options{{Domain: "bsc.example"}}, nil, "came through the domain bsc.example", ""},
		{"no hop left", []fake.Options{{Domain: "ibm.example"}}, func(f *Foreign) { f.Hops = 0 }, "may not be handed on", ""},
		// It waits for what the peer shows.
		{"a hop further", []fake.Options{{Domain: "bsc.example"}, {Domain: "ibm.example"}}, nil, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				w := fake.NewWorld(10)
				cfg := Config{Store: newStore(t)}
				for i, o := range c.sites {
					cfg.Sites = append(cfg.Sites, Site{Name: fmt.Sprintf("s%d", i), Adapter: w.Open(o)})
				}
				g := start(t, cfg)
				<-g.Ready()
				defer g.stop()
				defer w.Close()
				f := handed(1, time.Hour, "hang")
				if c.change != nil {
					c.change(&f)
				}
				r := g.TakeIn(context.Background(), f)[0]
				if c.refused != "" {
					if !fail.Is(r.Err, fail.Unsupported) || !strings.Contains(fail.Sentence(r.Err), c.refused) {
						t.Errorf("it is answered with %v", r.Err)
					}
					return
				}
				if r.Err != nil {
					t.Fatal(r.Err)
				}
				synctest.Wait()
				time.Sleep(time.Second)
				if s := g.foreign(r.ID); s.Site != c.site {
					t.Errorf("it is at %q: %+v", s.Site, s)
				}
			})
		})
	}
}

// The account and the end of the lease reach the site, and a job of our own with the same
// document is none of a peer's.
func TestForeignSubmission(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := fake.NewWorld(10)
		var mu sync.Mutex
		got := map[string]adapters.Job{}
		spy := spySubmit{Adapter: w.Open(fake.Options{}), see: func(j adapters.Job) {
			mu.Lock()
			defer mu.Unlock()
			got[jobOfTag(string(j.Tag))] = j
		}}
		cfg := Config{Store: newStore(t), Sites: []Site{{Name: "here", Adapter: spy, AccountDefault: "default"}}}
		g := start(t, cfg)
		<-g.Ready()
		defer g.stop()
		defer w.Close()
		f := handed(1, time.Hour, "sleep 5")
		id := g.takeIn(f)
		g.until(g.submit("sleep 5"), bes.Finished, "")
		mu.Lock()
		defer mu.Unlock()
		if j := got[id]; j.Account != "bscguest" || !j.NotAfter.Equal(f.NotAfter) || j.Owner != "guest" {
			t.Errorf("the site got %+v", j)
		}
		for other, j := range got {
			if other != id && (j.Account != "default" || !j.NotAfter.IsZero()) {
				t.Errorf("the site got %+v", j)
			}
		}
		if len(got) != 2 {
			t.Errorf("%d jobs", len(got))
		}
	})
}

type spySubmit struct {
	adapters.Adapter
	see func(adapters.Job)
}

func (s spySubmit) Submit(ctx context.Context, jobs []adapters.Job) []adapters.Placed {
	for _, j := range jobs {
		s.see(j)
	}
	return s.Adapter.Submit(ctx, jobs)
}

func (s spySubmit) Extend(ctx context.Context, xs []adapters.Extension) []error {
	return s.Adapter.(adapters.Leaser).Extend(ctx, xs)
}

func (s spySubmit) Watch(ctx context.Context, emit func([]adapters.Evidence)) error {
	return s.Adapter.(adapters.Watcher).Watch(ctx, emit)
}

func (s spySubmit) Properties() adapters.Properties {
	p := s.Adapter.Properties()
	p.Suspend, p.Hold = false, false
	return p
}

func TestForeignWishes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := fake.NewWorld(3)
		g := here(t, w, fake.Options{}, func(c *Config) {
			c.Authorise = func(p soap.Principal, what Permission) error {
				if what == Oversee && p.Name != "root" {
					return errors.New("no")
				}
				return nil
			}
		})
		l := g.listen()
		defer l.stop(t)
		ctx := context.Background()
		id := g.takeIn(handed(7, time.Hour, "hang"))
		e := []soap.EPR{g.reference(id)}
		l.until(t, id, ForeignRunning)

		// The owner here sees it, and decides nothing.
		rs, err := g.GetActivityStatuses(as("guest"), &bes.StatusRequest{Activities: e})
		if err != nil || rs[0].Err != nil {
			t.Fatal(err, rs)
		}
		told := rs[0].Status.Details.Attributes
		if told["peer.from"] != "bsc.example" || !strings.HasSuffix(told["peer.job"], "000000000007") || told["trace"] != "0192b1a0000070008000000000000007" {
			t.Errorf("it is shown with %v", told)
		}
		for name, do := range map[string]func(context.Context, []soap.EPR) ([]bes.Result, error){
			"terminate": g.TerminateActivities, "suspend": g.SuspendActivities, "resume": g.ResumeActivities,
		} {
			if err := one1(do(as("guest"), e)); !fail.Is(err, fail.Denied) || !strings.Contains(fail.Sentence(err), "bsc.example") {
				t.Errorf("%s by the owner: %v", name, err)
			}
		}
		if err := one1(g.SuspendActivities(as("root"), e)); !fail.Is(err, fail.Denied) {
			t.Errorf("suspend by root: %v", err)
		}

		for _, held := range []bool{true, true, false} {
			if errs := g.HoldForeign(ctx, held, id); errs[0] != nil {
				t.Fatal(errs[0])
			}
			if held {
				l.until(t, id, ForeignSuspended)
			}
		}
		l.until(t, id, ForeignRunning)

		// An administrator gives it back: the engine hears of it, whoever restarts.
		if err := one1(g.TerminateActivities(as("root"), e)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if s := l.until(t, id, ForeignRunning); !s.Return || s.Stopping {
			t.Errorf("%+v", s)
		}
		if errs := g.StopForeign(ctx, "it was given back", id, id, "nonsense"); errs[0] != nil || errs[1] != nil || !fail.Is(errs[2], fail.NotFound) {
			t.Errorf("StopForeign: %v", errs)
		}
		if s := l.until(t, id, ForeignGone); s.Site != "here" || !strings.Contains(g.tale(id), "root wants it given back to the domain bsc.example") {
			t.Errorf("%+v\n%s", s, g.tale(id))
		}
		if errs := g.StopForeign(ctx, "again", id); errs[0] != nil {
			t.Errorf("stopping what is stopped: %v", errs)
		}
		// A program that ends first has a result.
		quick := g.takeIn(handed(8, time.Hour, "sleep 5; exit 4"))
		l.until(t, quick, ForeignEnded)
		g.StopForeign(ctx, "too late", quick)
		if s := g.foreign(quick); s.Phase != ForeignEnded || *s.ExitStatus != 4 {
			t.Errorf("%+v", s)
		}
	})
}

// What a peer gives back is placed again, unless it ran and its document forbids that; the
// history has the way that it went.
func TestRecallable(t *testing.T) {
	for _, c := range []struct {
		name, forbid string
		notRun       bool
		again        bool
	}{
		{"it ran", "", false, true},
		{"it had not begun", "", true, true},
		{"it ran and is not to be run again", "false", false, false},
		{"it had not begun and is not to be run again", "false", true, true},
		{"it may be run again", "true", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				peer, home := fake.NewWorld(1), fake.NewWorld(1)
				defer peer.Close()
				defer home.Close()
				g := start(t, Config{Store: newStore(t), Sites: []Site{
					{Name: "fiu", Adapter: peer.Open(fake.Options{Recallable: true})},
					{Name: "home", Adapter: home.Open(fake.Options{})},
				}})
				<-g.Ready()
				defer g.stop()
				home.Down("not now")
				script := "sleep 3600"
				if c.notRun {
					script = "hold until it is recalled; " + script
				}
				doc := document(script)
				if c.forbid != "" {
					doc = []byte(strings.Replace(string(doc), "</jsdl:Application>", `</jsdl:Application><jsdl:Resources><q:Placement xmlns:q="http://portolan-project.org/ns/2026/jsdl"><q:Rerunnable>`+c.forbid+`</q:Rerunnable></q:Placement></jsdl:Resources>`, 1))
				}
				r, err := g.CreateActivity(as("ada"), &bes.CreateActivityRequest{Document: doc})
				if err != nil {
					t.Fatal(err)
				}
				e := r.Activity
				id, _ := idOf(e)
				tag := adapters.Tag(id + "-1")
				time.Sleep(2 * time.Second)
				for way := range slices.Values([]string{"fiu.example", "fiu.example@2026-01-01T00:00:00Z > ibm.example@2026-01-01T00:00:05Z"}) {
					if err := peer.Tell(tag, func(e *adapters.Evidence) { e.Attributes = map[string]string{adapters.AttributePath: way} }); err != nil {
						t.Fatal(err, g.story(e))
					}
					time.Sleep(time.Second)
				}
				home.Up()
				time.Sleep(2 * time.Minute)
				peer.Down("the session is lost")
				peer.Up()
				if err := peer.Lose(tag, c.notRun); err != nil {
					t.Fatal(err)
				}
				peer.Down("so that it goes home")
				time.Sleep(5 * time.Minute)
				story := g.story(e)
				s := g.status(e)
				if !c.again {
					if s.State != bes.Failed {
						t.Errorf("it is %s\n%s", s.State, story)
					}
				} else if s.State.Final() || s.Details.Site != "home" || !strings.Contains(story, "home#") {
					t.Errorf("it is %s at %s\n%s", s.State, s.Details.Site, story)
				}
				if !strings.Contains(story, "at fiu.example since 2026-01-01T00:00:00Z > ibm.example since 2026-01-01T00:00:05Z") || !strings.Contains(story, "at fiu.example") {
					t.Errorf("the way is not told:\n%s", story)
				}
				recs, _ := g.cfg.Store.Get(context.Background(), id)
				lines, _ := g.cfg.Store.History(context.Background(), id, 0)
				if err := consistent(recs[id].Status, lines); err != nil {
					t.Error(err)
				}
				if c.again && recs[id].Status.Lost != 0 && c.name != "it had not begun and is not to be run again" {
					t.Errorf("that it was given back counts as lost: %d", recs[id].Status.Lost)
				}
			})
		})
	}
}

func TestTraceID(t *testing.T) {
	own := store.Job{ID: "0192b1a0-0000-7000-8000-000000000007"}
	there := store.Job{ID: "0192b1a0-0000-7000-8000-0000000000ff", Status: store.Status{Foreign: &store.Foreign{ID: own.ID}}}
	if a, b := TraceID(&own), TraceID(&there); a != b || !isTrace(a) {
		t.Errorf("%s at home, %s at the peer", a, b)
	}
	there.Status.Foreign.ID = "job 12"
	if id := TraceID(&there); !isTrace(id) {
		t.Errorf("%q is no trace id", id)
	}
	there.Status.Foreign.Trace = strings.Repeat("ab", 16)
	if id := TraceID(&there); id != there.Status.Foreign.Trace {
		t.Errorf("%q", id)
	}
}

// However often the process dies, and whatever site and store do: a copy is run once at most,
// not after its lease, and each ends with a result or as gone.
func TestForeignCrashes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := drawScenario(rt)
		leases := rapid.SliceOfN(rapid.SampledFrom([]time.Duration{3 * time.Second, time.Minute, 5 * time.Minute}), len(s.jobs), len(s.jobs)).Draw(rt, "leases")
		wishes := rapid.SliceOfN(rapid.SampledFrom([]string{"", "", "stop", "hold", "extend", "extend"}), len(s.jobs), len(s.jobs)).Draw(rt, "wishes")
		var broken error
		synctest.Test(t, func(t *testing.T) { broken = s.playForeign(t, leases, wishes) })
		if broken != nil {
			rt.Fatal(broken)
		}
	})
}

func (s scenario) playForeign(t *testing.T, leases []time.Duration, wishes []string) error {
	ctx := context.Background()
	st, w := newStore(t), fake.NewWorld(s.slots)
	defer w.Close()
	answers := map[string][]answer{}
	for _, a := range s.answers {
		answers[a.op] = append(answers[a.op], a)
	}
	var mu sync.Mutex
	next := func(op string) (answer, bool) {
		mu.Lock()
		defer mu.Unlock()
		if len(answers[op]) == 0 {
			return answer{}, false
		}
		a := answers[op][0]
		answers[op] = answers[op][1:]
		return a, true
	}
	w.Inject(func(op string, _ adapters.Tag) fake.Fault {
		a, ok := next(op)
		if !ok {
			return fake.Fault{}
		}
		if op == "submit" && a.kind != fail.Uncertain {
			a.done = false
		}
		return fake.Fault{Err: fail.Errorf("fault", a.kind, "", "injected"), After: a.done}
	})
	jobs := make([]Foreign, len(s.jobs))
	ids := make([]string, len(s.jobs))
	for i := range jobs {
		jobs[i] = handed(i, leases[i], s.jobs[i].script)
		ids[i] = ForeignID(jobs[i].Since, jobs[i].SubmissionID)
	}
	until := slices.Clone(leases)
	began := time.Now()
	for round := 0; round <= len(s.deaths); round++ {
		l := &life{left: -1, dead: make(chan struct{})}
		last := round == len(s.deaths)
		if !last {
			l.left, l.after = s.deaths[round].deeds, s.deaths[round].after
		}
		g := start(t, Config{
			Store: mortalStore{st, l, next}, Alone: s.alone,
			Sites: []Site{{Name: "here", Adapter: mortal{w.Open(fake.Options{}), l, !s.push}}},
		})
		select {
		case <-g.Ready():
			tries := 1
			if last {
				tries = 30 // the engine takes in again what it is not sure of
			}
			for range tries {
				doubt := false
				for i, r := range g.TakeIn(ctx, jobs...) {
					if r.ID != ids[i] {
						return fmt.Errorf("the job %d is %s, and was to be %s", i, r.ID, ids[i])
					}
					doubt = doubt || r.Err != nil && !fail.Is(r.Err, fail.Invalid)
				}
				for i, wish := range wishes {
					switch wish {
					case "stop":
						g.StopForeign(ctx, "as was wished", ids[i])
					case "hold":
						g.HoldForeign(ctx, round%2 == 0 && !last, ids[i])
					case "extend":
						at := time.Since(began) + leases[i]
						g.ExtendLease(ctx, LeaseExtension{ids[i], began.Add(at)})
						until[i] = max(until[i], at) // whatever the answer was
					}
				}
				if !doubt {
					break
				}
				time.Sleep(time.Second)
			}
			if !last {
				select {
				case <-l.dead:
				case <-time.After(time.Minute):
				}
				time.Sleep(s.deaths[round].pause)
			} else {
				time.Sleep(10 * time.Minute)
			}
		case <-time.After(time.Minute):
		}
		if last {
			states, err := g.ForeignStates(ctx, ids...)
			if err != nil {
				g.stop()
				return err
			}
			for i, id := range ids {
				state, there := states[id]
				if there && state.Phase != ForeignEnded && state.Phase != ForeignGone {
					g.stop()
					return fmt.Errorf("the job %d (%s, lease %v) does not end: %+v\n%s", i, s.jobs[i].script, leases[i], state, g.tale(id))
				}
				if !there && !s.sick() {
					g.stop()
					return fmt.Errorf("the job %d is not there", i)
				}
				recs, _ := st.Get(ctx, id)
				lines, _ := st.History(ctx, id, 0)
				if rec, ok := recs[id]; ok {
					if err := consistent(rec.Status, lines); err != nil {
						g.stop()
						return fmt.Errorf("%w\n%s", err, g.tale(id))
					}
				}
				runs := 0
				for tag, n := range w.Ledger() {
					if jobOfTag(string(tag)) == id {
						runs += n
					}
				}
				if runs > 1 || runs == 1 && !there {
					g.stop()
					return fmt.Errorf("the job %d was started %d times\n%s", i, runs, g.tale(id))
				}
				if !state.Started.IsZero() && state.Started.After(began.Add(until[i])) {
					g.stop()
					return fmt.Errorf("the job %d was started after its lease\n%s", i, g.tale(id))
				}
			}
		}
		g.stop()
	}
	return nil
}

// sick reports whether a job may never have been taken in: its lease ran out before that.
func (s scenario) sick() bool { return len(s.answers) > 0 || len(s.deaths) > 0 }

// TestForeignVO: a document says for which VO a job runs where it was submitted. Here it runs for the one to which
// its user was mapped, also for none, and after a restart.
func TestForeignVO(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st, w := newStore(t), fake.NewWorld(1)
		defer w.Close()
		open := func() *gateway {
			one := 1
			g := start(t, Config{Store: st, Sites: []Site{{Name: "here", Adapter: w.Open(fake.Options{}), Model: SiteModel{Ahead: &one}}}})
			<-g.Ready()
			return g
		}
		g := open()
		for n := range 3 { // one runs, the others wait
			g.takeIn(handed(10+n, time.Hour, "sleep 60"))
		}
		vos := map[string]string{}
		for n, vo := range []string{"climate", "visitors", ""} {
			f := handed(n+1, time.Hour, "")
			f.VO = vo
			f.Document = []byte(strings.Replace(string(document("exit 0")), "</jsdl:JobDescription>",
				`<jsdl:Resources><q:Placement xmlns:q="`+jsdl.NSPortolan+`"><q:VO>climate</q:VO></q:Placement></jsdl:Resources></jsdl:JobDescription>`, 1))
			vos[g.takeIn(f)] = vo
		}
		g.stop()
		g = open()
		defer g.stop()
		time.Sleep(10 * time.Minute)
		for id, vo := range vos {
			recs, err := st.Get(t.Context(), id)
			if s := g.foreign(id); err != nil || s.Phase != ForeignEnded || s.Outcome != bes.Finished || recs[id].Status.VO != vo {
				t.Errorf("the job of %q ended as %+v, for %q, %v", vo, s, recs[id].Status.VO, err)
			}
		}
	})
}

// TestForeignDeadline: a job has the deadline with which it came, also where its document says
// none or a later one, and after a restart.
func TestForeignDeadline(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st, w := newStore(t), fake.NewWorld(1)
		defer w.Close()
		open := func() *gateway {
			one := 1
			g := start(t, Config{Store: st, Sites: []Site{{Name: "here", Adapter: w.Open(fake.Options{}), Model: SiteModel{Ahead: &one}}}})
			<-g.Ready()
			return g
		}
		g := open()
		for n := range 3 { // one runs, the others wait at the site
			g.takeIn(handed(10+n, time.Hour, "hang"))
			time.Sleep(time.Second)
		}
		at := time.Now().Add(10 * time.Minute)
		var ids []string
		for n, doc := range [][]byte{
			document("exit 0"),
			[]byte(strings.Replace(string(document("exit 0")), "</jsdl:JobDescription>", "<jsdl:Resources><q:Placement xmlns:q=\""+jsdl.NSPortolan+"\"><q:Deadline>"+at.Add(time.Hour).UTC().Format(time.RFC3339)+"</q:Deadline></q:Placement></jsdl:Resources></jsdl:JobDescription>", 1)),
		} {
			f := handed(n+1, time.Hour, "")
			f.Document, f.Deadline = doc, at
			ids = append(ids, g.takeIn(f))
		}
		g.stop()
		g = open()
		defer g.stop()
		time.Sleep(time.Until(at) - time.Second)
		for _, id := range ids {
			if s := g.foreign(id); s.Phase != ForeignWaiting {
				t.Errorf("before its deadline it is %+v", s)
			}
		}
		time.Sleep(5 * time.Second)
		for _, id := range ids {
			if s := g.foreign(id); s.Phase != ForeignGone || s.Unfit || !strings.Contains(s.Reason, "Deadline") {
				t.Errorf("after its deadline it is %+v", s)
			}
		}
		f := handed(9, time.Hour, "")
		f.Document = []byte(strings.Replace(string(document("exit 0")), "</jsdl:JobDescription>", "<jsdl:Resources><q:Placement xmlns:q=\""+jsdl.NSPortolan+"\"><q:NotBefore>"+at.Add(time.Hour).UTC().Format(time.RFC3339)+"</q:NotBefore></q:Placement></jsdl:Resources></jsdl:JobDescription>", 1))
		f.Deadline = at
		if r := g.TakeIn(context.Background(), f)[0]; !fail.Is(r.Err, fail.Invalid) || !strings.Contains(fail.Sentence(r.Err), "came with the deadline") {
			t.Errorf("it is answered with %v", r.Err)
		}
	})
}

// TestCheckForeign: what could not be taken in is told before, by TakeIn's own words, and nothing comes of asking.
func TestCheckForeign(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := fake.NewWorld(2)
		t.Cleanup(w.Close)
		g := start(t, Config{Store: newStore(t), Sites: []Site{
			{Name: "a", Adapter: w.Open(fake.Options{Accounts: []string{"bscguest"}})}, {Name: "b", Adapter: w.Open(fake.Options{NoLease: true})},
		}})
		defer g.stop()
		<-g.Ready()
		for i, c := range []struct {
			what   string
			change func(*Foreign)
			kind   fail.Kind
			says   string
		}{
			{"good", func(*Foreign) {}, 0, ""},
			{"the site's usual account", func(f *Foreign) { f.Account = "" }, 0, ""},
			{"no account", func(f *Foreign) { f.Account = "nobody" }, fail.Unsupported, `site a: there is no account "nobody" on this machine; site b: it can't end a job by itself`},
			{"no program", func(f *Foreign) { f.Document = document("unsupported no such thing") }, fail.Unsupported, "no such thing"},
			{"no such site", func(f *Foreign) { f.Document = document("exit 0", "elsewhere") }, fail.Unsupported, "CandidateHosts"},
			{"no document", func(f *Foreign) { f.Document = []byte("<x/>") }, fail.Invalid, ""},
			{"too long", func(f *Foreign) { f.Document = make([]byte, 64<<20) }, fail.Invalid, "bytes"},
			{"in time", func(f *Foreign) { f.Document, f.Deadline = limited(600), time.Now().Add(11*time.Minute) }, 0, ""},
			{"too late", func(f *Foreign) { f.Deadline = time.Now().Add(-time.Second) }, fail.Unsupported, "which has passed"},
			{"too little time", func(f *Foreign) { f.Document, f.Deadline = limited(600), time.Now().Add(9*time.Minute) }, fail.Unsupported, "a job that may run for 10m can't be sure to have ended by then"},
		} {
			for range 2 { // what is remembered says the same
				f := handed(100+i, time.Hour, "exit 0")
				c.change(&f)
				need, err := g.CheckForeign(&f)
				taken := g.TakeIn(t.Context(), f)[0]
				if c.says == "" && c.kind == 0 {
					if err != nil || need.CPUs < 1 || taken.Err != nil {
						t.Errorf("%s: %v %v %+v", c.what, err, taken.Err, need)
					}
					continue
				}
				lasting := func(err error) string { // what would start at this moment is another thing the next
					why, _, _ := strings.Cut(fail.Sentence(err), "; it would ")
					return why
				}
				if !fail.Is(err, c.kind) || !strings.Contains(fail.Sentence(err), c.says) || lasting(err) != lasting(taken.Err) {
					t.Errorf("%s: %v; it is taken in as %v", c.what, err, taken.Err)
				}
			}
		}
		if err := g.SetSite(Change{Name: "a", Open: func() (adapters.Adapter, error) { return w.Open(fake.Options{}), nil }}); err != nil {
			t.Fatal(err)
		}
		f := handed(200, time.Hour, "exit 0")
		f.Account = "nobody"
		if _, err := g.CheckForeign(&f); err != nil {
			t.Errorf("the site has it now: %v", err)
		}
	})
}

// limited gives a document whose program may run for so many seconds.
func limited(seconds int) []byte {
	return []byte(strings.Replace(string(document("exit 0")), "</p:POSIXApplication>", fmt.Sprintf("<p:WallTimeLimit>%d</p:WallTimeLimit></p:POSIXApplication>", seconds), 1))
}

// TestForeignKindShared: jobs of the same document that come at once, while it is asked whether
// they may, share what was found out about it, and each has its own words of where it came from.
func TestForeignKindShared(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := here(t, fake.NewWorld(4), fake.Options{})
		var all sync.WaitGroup
		for i := range 32 {
			f := handed(300+i, time.Hour, "exit 0")
			f.Hops += i % 3
			all.Go(func() {
				if _, err := g.CheckForeign(&f); err != nil {
					t.Error(err)
				}
			})
			all.Go(func() {
				r := g.TakeIn(context.Background(), f)[0]
				if r.Err != nil {
					t.Error(r.Err)
					return
				}
				recs, err := g.foreigners(context.Background(), []string{r.ID})
				if is := recs[r.ID].Status.Foreign; err != nil || is == nil || is.ID != f.ID || is.Hops != f.Hops {
					t.Errorf("the record of %s says that it is %+v, %v", f.ID, is, err)
				}
			})
		}
		all.Wait()
	})
}
