package together_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/together"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store/mem"
	"github.com/portolan-project/portolan/peers/peertest"
)

var (
	seed  = flag.Uint64("seed", 0, "repeat this seed of TestKills alone")
	seeds = flag.Int("seeds", 600, "how many seeds TestKills tries")
)

// TestKills: whoever is killed at whatever step, with clocks that differ, a network that loses
// messages and answers and is away for minutes: in the end all parts are observed or none is,
// nothing else is held, and the coordinator's record says which.
func TestKills(t *testing.T) { kills(t, false, *seeds) }

// TestKillsBetweenGateways is TestKills where all is said through the doors of gateways, which tell each
// other who they are and who asks.
func TestKillsBetweenGateways(t *testing.T) { kills(t, true, 200) }

func kills(t *testing.T, doors bool, n int) {
	if *seed != 0 {
		synctest.Test(t, func(t *testing.T) { t.Log(scenario(t, *seed, doors)) })
		return
	}
	if testing.Short() {
		n = 200
	}
	outcomes := map[string]int{}
	for s := range n {
		synctest.Test(t, func(t *testing.T) { outcomes[scenario(t, uint64(s)+1, doors)]++ })
		if t.Failed() {
			t.Fatalf("-run %s$ -seed %d repeats it", t.Name(), s+1)
		}
	}
	t.Log(outcomes)
	for _, want := range []together.State{together.Committed, together.Aborted, together.RolledBack} {
		if outcomes[string(want)] == 0 {
			t.Errorf("no coordination was %s: the seeds show too little", want)
		}
	}
}

// scenario lets one coordination live through what its seed has for it, and says how it ended.
func scenario(t *testing.T, seed uint64, doors bool) string {
	dice := rand.New(rand.NewPCG(seed, 1))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	began := time.Now()

	const margin = 10 * time.Second
	names := []string{"a", "b", "c"}[:2+dice.IntN(2)]
	var keys *peertest.Keys
	if doors {
		keys = peertest.NewKeys("gateway", "a", "b", "c")
	}
	net := &network{sites: map[string]*process{}}
	skews := map[string]time.Duration{}
	stores := map[string]*mem.Store{}
	plan := together.Plan{ID: fmt.Sprintf("seed-%d", seed), Owner: owner}
	full := ""
	if dice.IntN(8) == 0 {
		full = names[dice.IntN(len(names))]
	}
	kills := func() (list []kill) {
		for range dice.IntN(3) {
			list = append(list, kill{dice.IntN(24), dice.IntN(2) == 0, time.Duration(dice.Int64N(int64([]time.Duration{time.Second, 10 * time.Second, 2 * time.Minute}[dice.IntN(3)])))})
		}
		return list
	}
	for _, name := range names {
		st := mem.New()
		defer func() { _ = st.Close() }()
		stores[name] = st
		skews[name] = time.Duration(dice.Int64N(int64(2*margin)-2) - int64(margin) + 1)
		cpus := int64(4)
		if name == full {
			cpus = 2
		}
		p := &process{name: name, st: st, keys: keys, kills: kills(), boot: bootSite(cpus, skews[name])}
		net.sites[name] = p
		plan.Parts = append(plan.Parts, together.Part{Name: "part " + name, Provider: name, Offer: offered(t, 3)})
	}
	// Some have bad weather, and some are cut off for a while.
	storm := []float64{0, 0, 0.1, 0.4}[dice.IntN(4)]
	cutFrom, cutFor, cutOff := time.Duration(dice.Int64N(int64(time.Minute))), time.Duration(0), names[dice.IntN(len(names))]
	if dice.IntN(3) == 0 {
		cutFor = time.Duration(dice.Int64N(int64(5 * time.Minute)))
	}
	var skyMu sync.Mutex
	net.weather = func(site string) (w weather) {
		skyMu.Lock()
		defer skyMu.Unlock()
		if at := time.Since(began); site == cutOff && at >= cutFrom && at < cutFrom+cutFor {
			return weather{lost: dice.IntN(2) == 0, answerLost: true}
		}
		roll := dice.Float64()
		w.lost, w.answerLost = roll < storm/2, roll >= 1-storm/2
		w.late = time.Duration(dice.Int64N(int64([]time.Duration{time.Millisecond, time.Second, 20 * time.Second}[min(2, int(dice.ExpFloat64()))])))
		return w
	}
	home := mem.New()
	defer func() { _ = home.Close() }()
	gateway := &process{name: "gateway", st: home, keys: keys, kills: kills(), boot: bootCoordinator(net, together.Options{Margin: margin})}
	if dice.IntN(2) == 0 {
		plan.Deadline = time.Now().Add(time.Duration(1 + dice.Int64N(int64(time.Minute))))
	}
	for _, p := range net.sites {
		wg.Go(func() { p.run(ctx) })
	}
	wg.Go(func() { gateway.run(ctx) })

	// The user asks until there is an answer.
	var outcome together.Outcome
	var err error
	for range 1000 {
		l, _, c := gateway.get()
		if c == nil {
			time.Sleep(time.Second)
			continue
		}
		in, done := context.WithTimeout(ctx, 10*time.Minute)
		go func() {
			select {
			case <-l.dead:
				done()
			case <-in.Done():
			}
		}()
		outcome, err = c.Coordinate(in, plan)
		done()
		if err == nil || fail.Is(err, fail.Invalid) {
			break
		}
		time.Sleep(time.Second)
	}
	time.Sleep(20 * time.Minute) // whatever was on its way has arrived, and what was held is over
	synctest.Wait()

	c, err2 := together.New(home, together.Options{Dial: func(context.Context, string, string, string) (together.Provider, error) { return nil, nil }})
	if err2 != nil {
		t.Fatal(err2)
	}
	r, err2 := c.Get(ctx, owner, plan.ID)
	switch {
	case err == nil && (err2 != nil || r.State != outcome.State || !r.State.Final()):
		t.Errorf("the outcome was %+v, and the record says %+v, %v", outcome, r, err2)
	case err != nil && fail.Is(err, fail.Invalid) && !fail.Is(err2, fail.NotFound) && !r.State.Final():
		t.Errorf("it never began (%v), and the record says %+v, %v", err, r, err2)
	case err != nil && !fail.Is(err, fail.Invalid):
		t.Errorf("no outcome: %v; the record says %+v", err, r)
	}
	for i, name := range names {
		k := inspect(t, stores[name], skews[name])
		observed, free := 0, int64(4)
		if name == full {
			free = 2
		}
		if r.State == together.Committed {
			observed, free = 1, 1
		}
		if k.states[agreement.Observed] != observed || k.states[agreement.Pending] != 0 || k.free != free {
			t.Errorf("the coordination is %q (%s), and %s has %v with %d CPUs free", r.State, r.Reason, name, k.states, k.free)
		}
		if r.State == together.Committed && (r.Parts[i].State != together.PartConfirmed || r.Parts[i].Agreement == "") || r.State == together.RolledBack && r.Reason == "" {
			t.Errorf("the record says %+v", r)
		}
	}
	if full != "" && r.State == together.Committed {
		t.Errorf("%s had no room, and it was agreed on", full)
	}
	if left, _, err := home.ListRecords(ctx, together.Prefix+"offers/", noOptions); err != nil || len(left) > 0 {
		t.Errorf("offers are left: %v, %v", left, err)
	}
	if r.State == "" {
		return "never begun"
	}
	return string(r.State)
}
