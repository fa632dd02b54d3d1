package broker

import (
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
)

// Bounds and shares that change hold for the next decision.
func TestReconfigure(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st, w := tallied(t), fake.NewWorld(16)
		g := here(t, w, environment(16), func(c *Config) {
			c.Store, c.Bounds = st, schedule.Limits{EachOwner: 1}
		})
		for range 5 {
			g.submit("hang")
		}
		for _, n := range []int{1, 3, 2, 4} {
			g.SetBounds(schedule.Limits{EachOwner: n})
			synctest.Wait()
			if jobs, _, _ := st.now(); jobs != max(n, 3) && (n != 1 || jobs != 1) {
				t.Errorf("with a bound of %d, %d are there", n, jobs)
			}
		}
	})
}

// Entitlements that change are reckoned with by the next decision.
func TestSharesChange(t *testing.T) {
	for shares, first := range map[float64]string{1: "bio", 3: "chem"} {
		bubble(t, func(t *testing.T) {
			g := here(t, fake.NewWorld(16), environment(16), func(c *Config) { c.Bounds = schedule.Limits{EachOwner: 1} })
			if err := g.SetPolicy(as("root"), schedule.Gateway, policy.Scheduling, &policy.Setting{Name: "fairshare"}, false); err != nil {
				t.Fatal(err)
			}
			g.submit("hang")
			synctest.Wait()
			jobs := map[string]soap.EPR{}
			for _, vo := range []string{"bio", "chem"} {
				jobs[vo] = g.must("ada", asking("hang", placementOf(`<q:VO>`+vo+`</q:VO>`)))
			}
			g.mu.Lock()
			g.own.Add("vo:bio", 100_000, time.Now())
			g.own.Add("vo:chem", 150_000, time.Now())
			g.mu.Unlock()
			if err := g.SetShares(map[string]float64{"vo:chem": shares}); err != nil {
				t.Fatal(err)
			}
			g.SetBounds(schedule.Limits{EachOwner: 2})
			synctest.Wait()
			for vo, e := range jobs {
				if placed := g.status(e).State == bes.Running; placed != (vo == first) {
					t.Errorf("with a share of %g for chem, the job of %s has a place: %t", shares, vo, placed)
				}
			}
		})
	}
}

// A policy of the catalogue that is gone, though it is in force, is told of; the one that
// there was decides on.
func TestRemakePolicies(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var gone atomic.Bool
		var made atomic.Int32
		cat := schedule.BuiltIn()
		cat.Choice = func(s policy.Setting) (policy.Choice, error) {
			if s.Name != "plugin:ours" {
				return policy.NewChoice(s)
			}
			if gone.Load() {
				return nil, fail.Errorf("x", fail.Unsupported, s.Name, "there is no policy plugin:ours")
			}
			made.Add(1)
			return policy.NewChoice(policy.Setting{Name: "first-fit"})
		}
		g := here(t, fake.NewWorld(16), environment(16), func(c *Config) { c.Catalogue = cat })
		if err := g.SetPolicy(as("root"), schedule.Gateway, policy.Selection, &policy.Setting{Name: "plugin:ours"}, false); err != nil {
			t.Fatal(err)
		}
		before := made.Load()
		if err := g.RemakePolicies(); err != nil || made.Load() == before {
			t.Errorf("%v; made %d times", err, made.Load()-before)
		}
		gone.Store(true)
		if err := g.RemakePolicies(); !fail.Is(err, fail.Conflict) || !strings.Contains(fail.Sentence(err), "there is no policy plugin:ours") {
			t.Error(err)
		}
		e := g.submit("exit 0")
		synctest.Wait()
		if ds, err := g.Decisions(as("ada"), e); err != nil || len(ds) != 1 || ds[0].Policy[policy.Selection] != "plugin:ours" {
			t.Errorf("%v %+v", err, ds)
		}
	})
}
