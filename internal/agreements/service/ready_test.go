package service

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/mem"
)

// slow is a store that does not take the capacity of sites before a time.
type slow struct {
	store.Store
	until time.Time

	mu      sync.Mutex
	refused int
}

func (s *slow) PutRecords(ctx context.Context, sess store.Session, cs ...store.RecordChange) (int64, error) {
	for i := range cs {
		if strings.HasPrefix(cs[i].Key, engine.Prefix+"pool/") && time.Now().Before(s.until) {
			s.mu.Lock()
			s.refused++
			s.mu.Unlock()
			return 0, fail.Errorf("slow", fail.Unavailable, "", "not now")
		}
	}
	return s.Store.PutRecords(ctx, sess, cs...)
}

// What is ready decides offers: the capacity of the sites that answer is known by then, however slow the store is; sites
// that do not answer are not waited for.
func TestReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &slow{Store: mem.New(), until: time.Now().Add(time.Minute)}
		defer st.Close()
		sites := []site{{name: "here", world: fake.NewWorld(2)}, {name: "there", world: fake.NewWorld(2)}}
		for _, s := range sites {
			defer s.world.Close()
		}
		sites[1].world.Down("a test")
		g := start(t, st, sites, whole)
		defer g.stop()
		if st.refused == 0 || time.Now().Before(st.until) || time.Now().After(st.until.Add(time.Minute)) {
			t.Errorf("it was ready at %s, after %d refusals", time.Now(), st.refused)
		}
		key := g.must("ada", g.by("ada", "finish-by@here/fake").say("job", job("sleep 60", 10*time.Minute, 1)).say("finishBy", finishBy(time.Now().Add(time.Hour))))
		if r := g.ends(key); r.State != agreement.Complete {
			t.Errorf("%s", g.story(key))
		}
	})
}

// What VOs may spend is what the options say, over starts: of what is not named any more nothing is bound.
func TestBudgetsAreSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := mem.New()
		defer st.Close()
		sites := one(2)
		defer sites[0].world.Close()
		for _, c := range []map[string]Budget{
			{"bio": {Amount: 1000}, "chem": {Amount: 5000, Period: engine.Week}},
			{"bio": {Amount: 2000, Period: engine.Month}},
			{},
		} {
			g := start(t, st, sites, whole, func(_ *broker.Config, o *Options) { o.Budgets = c })
			synctest.Wait()
			left := 0
			for _, a := range g.engine.Accounts() {
				if a.Limit == nil {
					continue
				}
				left++
				if of := c[a.VO]; *a.Limit != of.Amount || a.Period != of.Period {
					t.Errorf("%+v, want %+v", a, of)
				}
			}
			if left != len(c) {
				t.Errorf("%d budgets are set, want %d", left, len(c))
			}
			g.stop()
		}
	})
	for n, want := range map[int64]string{0: "0 credit", 1: "0.001 credit", 1000: "1 credit", 12500: "12.5 credit", -20: "-0.02 credit", 1000000: "1000 credit"} {
		if got := Amount(n, "credit"); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
}
