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
)

// scenario is a random run of a gateway: jobs, what users ask, what the site
// answers, and at which deeds the process dies.
type scenario struct {
	jobs    []scriptedJob
	deaths  []death
	answers []answer // of site and store, one for each call, then none
	push    bool
	alone   bool
	slots   int
}

type scriptedJob struct {
	script string
	after  time.Duration // submitted so long after the one before
	ask    Event         // Cancel, Suspend, Resume or ""
	askAt  time.Duration // so long after the submission
}

type death struct {
	deeds int
	after bool // the last deed is done, its answer lost
	pause time.Duration
}

type answer struct {
	op   string
	kind fail.Kind
	done bool // with Uncertain: the deed is done
}

func drawScenario(t *rapid.T) scenario {
	return scenario{
		jobs: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) scriptedJob {
			return scriptedJob{
				script: rapid.SampledFrom([]string{"exit 0", "exit 3", "sleep 2; exit 0", "sleep 40; exit 1", "signal SIGKILL", "missing no such program", "stop too long", "hold by the operator"}).Draw(t, "script"),
				after:  rapid.SampledFrom([]time.Duration{0, 0, time.Millisecond, time.Second}).Draw(t, "after"),
				ask:    rapid.SampledFrom([]Event{"", "", Cancel, Suspend, Resume}).Draw(t, "ask"),
				askAt:  rapid.SampledFrom([]time.Duration{0, time.Millisecond, time.Second, 10 * time.Second}).Draw(t, "ask at"),
			}
		}), 1, 8).Draw(t, "jobs"),
		deaths: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) death {
			return death{
				deeds: rapid.IntRange(0, 12).Draw(t, "deeds"), after: rapid.Bool().Draw(t, "after"),
				pause: rapid.SampledFrom([]time.Duration{0, time.Second, time.Minute}).Draw(t, "pause"),
			}
		}), 0, 6).Draw(t, "deaths"),
		answers: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) answer {
			return answer{
				op:   rapid.SampledFrom([]string{"", "", "submit", "find", "status", "cancel", "suspend", "resume", "create", "update", "update", "update"}).Draw(t, "op"),
				kind: rapid.SampledFrom([]fail.Kind{fail.Unavailable, fail.Uncertain, fail.Exhausted}).Draw(t, "kind"),
				done: rapid.Bool().Draw(t, "done"),
			}
		}), 0, 12).Draw(t, "answers"),
		alone: rapid.Bool().Draw(t, "alone"),
		push:  rapid.Bool().Draw(t, "push"),
		slots: rapid.IntRange(1, 4).Draw(t, "slots"),
	}
}

// run plays the scenario in a bubble and gives what broke a promise.
func (s scenario) run(t *testing.T) (broken error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		defer func() {
			if p := recover(); p != nil {
				broken = fmt.Errorf("panic: %v", p)
			}
		}()
		broken = s.play(t)
	})
	return broken
}

func (s scenario) play(t *testing.T) error {
	ctx := context.Background()
	st := newStore(t)
	w := fake.NewWorld(s.slots)
	defer w.Close()
	answers := map[string][]answer{}
	for _, a := range s.answers {
		answers[a.op] = append(answers[a.op], a)
	}
	var mu sync.Mutex
	w.Inject(func(op string, _ adapters.Tag) fake.Fault {
		mu.Lock()
		defer mu.Unlock()
		if len(answers[op]) == 0 {
			return fake.Fault{}
		}
		a := answers[op][0]
		answers[op] = answers[op][1:]
		if op == "submit" && a.kind != fail.Uncertain {
			a.done = false // the contract: only an uncertain answer may hide a deed
		}
		return fake.Fault{Err: fail.Errorf("fault", a.kind, "", "injected"), After: a.done}
	})

	var acked []soap.EPR
	todo := slices.Clone(s.jobs)
	type asking struct {
		e     soap.EPR
		event Event
		at    time.Time
	}
	var asks []asking
	for round := 0; ; round++ {
		l := &life{left: -1, dead: make(chan struct{})}
		last := round >= len(s.deaths)
		if !last {
			l.left, l.after = s.deaths[round].deeds, s.deaths[round].after
		}
		g := start(t, Config{
			Store: mortalStore{st, l, func(op string) (answer, bool) {
				mu.Lock()
				defer mu.Unlock()
				if len(answers[op]) == 0 {
					return answer{}, false
				}
				a := answers[op][0]
				answers[op] = answers[op][1:]
				return a, true
			}},
			Alone: s.alone,
			Sites: []Site{{Name: "here", Adapter: mortal{w.Open(fake.Options{}), l, !s.push}}},
		})
		<-g.Ready()
		end := time.Now().Add(3 * time.Hour)
		for !l.gone() && time.Now().Before(end) {
			if len(todo) > 0 {
				j := todo[0]
				time.Sleep(j.after)
				r, err := g.CreateActivity(as("ada"), &bes.CreateActivityRequest{Document: document(j.script)})
				if err == nil {
					todo = todo[1:]
					acked = append(acked, r.Activity)
					if j.ask != "" {
						asks = append(asks, asking{r.Activity, j.ask, time.Now().Add(j.askAt)})
						if j.ask == Suspend {
							asks = append(asks, asking{r.Activity, Resume, time.Now().Add(j.askAt + time.Minute)})
						}
					}
				} else {
					time.Sleep(time.Second)
				}
				continue
			}
			undone := map[string]bool{} // what is asked later of these must wait
			asks = slices.DeleteFunc(asks, func(a asking) bool {
				if time.Now().Before(a.at) || undone[a.e.Address] {
					return false
				}
				f := map[Event]func(context.Context, []soap.EPR) ([]bes.Result, error){
					Cancel: g.TerminateActivities, Suspend: g.SuspendActivities, Resume: g.ResumeActivities,
				}[a.event]
				err := one1(f(as("ada"), []soap.EPR{a.e}))
				undone[a.e.Address] = err != nil && !fail.Is(err, fail.Conflict)
				return !undone[a.e.Address]
			})
			for _, tag := range w.Tags() {
				_ = w.Release(tag) // of those that are held
			}
			time.Sleep(100 * time.Millisecond)
			synctest.Wait()
			live, err := st.Live(ctx)
			if err != nil {
				return err
			}
			if len(todo) == 0 && len(live) == 0 && len(asks) == 0 {
				break
			}
		}
		g.stop()
		if last {
			break
		}
		time.Sleep(s.deaths[round].pause)
	}
	return s.judge(ctx, st, w, acked)
}

// judge checks the promises.
func (s scenario) judge(ctx context.Context, st store.Store, w *fake.World, acked []soap.EPR) error {
	starts := map[string]int{}
	for tag, n := range w.Ledger() {
		if n > 1 {
			return fmt.Errorf("%s was started %d times", tag, n)
		}
		starts[string(tag)[:36]] += n
	}
	live, err := st.Live(ctx)
	if err != nil {
		return err
	}
	if len(live) > 0 {
		var b strings.Builder
		for _, rec := range live {
			lines, _ := st.History(ctx, rec.ID, 0)
			fmt.Fprintf(&b, "a job never ended: %+v\n%+v\n", rec.Status, lines)
		}
		return errors.New(b.String())
	}
	all, err := st.List(ctx, store.ListOptions{})
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, rec := range all {
		known[rec.ID] = true
		lines, err := st.History(ctx, rec.ID, 0)
		if err != nil {
			return err
		}
		if err := consistent(rec.Status, lines); err != nil {
			return fmt.Errorf("%w\n%+v\n%+v", err, rec.Status, lines)
		}
		n := starts[rec.ID]
		if n > 1 {
			return fmt.Errorf("%s was run %d times\n%+v", rec.ID, n, lines)
		}
		if Phase(rec.Status.Phase) == Finished && n != 1 {
			return fmt.Errorf("%s is Finished and was started %d times", rec.ID, n)
		}
		if Phase(rec.Status.Phase) == Cancelled && !rec.Status.Cancel {
			return fmt.Errorf("%s is Cancelled and nobody asked\n%+v", rec.ID, lines)
		}
	}
	for _, e := range acked {
		if id, _ := idOf(e); !known[id] {
			return fmt.Errorf("%s was acknowledged and is lost", id)
		}
	}
	return nil
}

// TestCrashes is the promise of the broker: every acknowledged job reaches an
// end, and none runs twice, wherever the process dies and whatever the site
// answers.
func TestCrashes(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := drawScenario(rt)
		if err := s.run(t); err != nil {
			rt.Fatal(err)
		}
	})
}

// TestCrashAtEveryDeed dies once at each deed of a plain run.
func TestCrashAtEveryDeed(t *testing.T) {
	for _, after := range []bool{false, true} {
		for n := range 16 {
			for _, push := range []bool{true, false} {
				s := scenario{
					jobs:   []scriptedJob{{script: "sleep 2; exit 0"}, {script: "sleep 40; exit 0", ask: Cancel, askAt: time.Second}, {script: "missing it"}},
					deaths: []death{{deeds: n, after: after, pause: time.Second}}, push: push, slots: 2,
				}
				if err := s.run(t); err != nil {
					t.Errorf("death at deed %d, after %v, push %v: %v", n, after, push, err)
				}
			}
		}
	}
}
