package service

import (
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// A service is in use while evidence says that its job runs, and not because a site has it.
func TestServicePoints(t *testing.T) {
	noon := time.Date(2031, 3, 1, 12, 0, 0, 0, time.UTC)
	waiting := served{State: bes.Pending}
	runs := served{State: bes.Running, Ran: true, Since: noon}
	stopped := served{State: bes.Running, Ran: true}
	lost := served{State: bes.Pending, Ran: true}
	live := func(s bes.State, sub string) bes.Status {
		out := bes.Status{State: s}
		if sub != "" {
			out.SubStates = []xmldoc.Name{{Space: bes.NSPortolan, Local: sub}}
		}
		return out
	}
	notReady := agreement.ServicePoint{State: agreement.NotReady}
	used := agreement.ServicePoint{State: agreement.Ready, Activity: agreement.Processing}
	idle := agreement.ServicePoint{State: agreement.Ready, Activity: agreement.Idle}
	completed := agreement.ServicePoint{State: agreement.Completed}
	for name, c := range map[string]struct {
		v    served
		live bes.Status
		want agreement.ServicePoint
	}{
		"it waits":                       {waiting, live(bes.Pending, "Queued"), notReady},
		"a site is to have it":           {waiting, live(bes.Running, "Placing"), notReady},
		"a site has it in its queue":     {waiting, live(bes.Running, "Submitted"), notReady},
		"a site holds it":                {waiting, live(bes.Running, "HeldAtSite"), notReady},
		"it is to be placed again":       {waiting, live(bes.Running, "Requeued"), notReady},
		"it is cancelled before it runs": {waiting, live(bes.Running, "Cancelling"), notReady},
		"it just began":                  {waiting, live(bes.Running, "Executing"), used},
		"it runs":                        {runs, live(bes.Running, "Executing"), used},
		"it runs and is cancelled":       {runs, live(bes.Running, "Cancelling"), used},
		"it is suspended":                {stopped, live(bes.Running, "Suspended"), idle},
		"it is suspended, as is heard":   {runs, live(bes.Running, "Suspended"), idle},
		"it waits for its second run":    {lost, live(bes.Running, "Submitted"), idle},
		"it was put back":                {runs, live(bes.Running, "Submitted"), idle},
		"it ended, as is heard":          {runs, live(bes.Finished, ""), completed},
		"it failed":                      {waiting, live(bes.Failed, ""), completed},
		"waits, and is kept no more":     {waiting, bes.Status{}, notReady},
		"ran last, and is kept no more":  {runs, bes.Status{}, used},
		"stopped, and is kept no more":   {stopped, bes.Status{}, idle},
		"lost, and is kept no more":      {lost, bes.Status{}, idle},
		"ended, and is kept no more":     {served{State: bes.Cancelled, Ran: true}, bes.Status{}, completed},
	} {
		got := pointOf(&c.v, &c.live)
		if got != c.want || !got.Valid() {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

// A job that its site holds is not in use, though for BES it is Running.
func TestHeldAtTheSite(t *testing.T) {
	sites := one(1, fake.Options{NoReserve: true})
	alone(t, sites, func(t *testing.T, g *gateway) {
		key := g.must("ada", g.by("ada", "best-effort@here/fake").say("job", job("hold for the licence; sleep 60", 0, 0)))
		g.until("the site has it", func() bool {
			s := g.properties("ada", key).Services[0]
			return s.Detail != nil && found(s.Detail, "State") == string(bes.Running)
		})
		time.Sleep(time.Minute)
		if s := g.properties("ada", key).Services[0]; s.State != agreement.NotReady || s.Activity != "" {
			t.Errorf("%+v", s)
		}
		if err := sites[0].world.Release(sites[0].world.Tags()[0]); err != nil {
			t.Fatal(err)
		}
		g.until("it runs", func() bool { return g.properties("ada", key).Services[0].Activity == agreement.Processing })
		g.ends(key)
	}, whole)
}
