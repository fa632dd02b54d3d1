package service

import (
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/broker/schedule"
)

func one(slots int, o ...fake.Options) []site {
	s := site{name: "here", world: fake.NewWorld(slots)}
	if len(o) > 0 {
		s.options = o[0]
	}
	return []site{s}
}

func whole(_ *broker.Config, o *Options) { o.Settings.Promise = 100 }

func TestFinishBy(t *testing.T) {
	alone(t, one(4), func(t *testing.T, g *gateway) {
		now := time.Now()
		key := g.must("ada", g.by("ada", "finish-by@here/fake").say("job", job("sleep 600", time.Hour, 1)).say("finishBy", finishBy(now.Add(3*time.Hour))))
		p := g.properties("ada", key)
		if p.State != agreement.Observed || p.ID != key {
			t.Errorf("%+v", p)
		}
		r := g.ends(key)
		if r.State != agreement.Complete || len(r.Jobs) != 1 {
			t.Fatalf("%s\n%s", r.State, g.story(key))
		}
		if s := g.guarantee(key, "finish"); s.State != agreement.Fulfilled {
			t.Errorf("%s\n%s", s.State, g.story(key))
		}
		p = g.properties("ada", key)
		if s := p.Services[0]; s.State != agreement.Completed || s.Detail == nil || s.Detail.Tag != "Job" || found(s.Detail, "State") != string(bes.Finished) {
			t.Errorf("%+v", s)
		}
	}, whole)
}

// A promise to finish overtakes older jobs of best effort under EDF.
func TestFinishByOvertakes(t *testing.T) {
	alone(t, one(2), func(t *testing.T, g *gateway) {
		if err := g.broker.SetPolicy(as1("ada"), schedule.Gateway, policy.Scheduling, &policy.Setting{Name: "edf"}, false); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			g.submit("sleep 600", 15*time.Minute)
		}
		older := g.submit("sleep 600", 15*time.Minute)
		for range 4 {
			g.submit("sleep 600", 15*time.Minute)
		}
		g.until("the first run", func() bool { return g.state(older).State == bes.Pending })
		now := time.Now()
		key := g.must("ada", g.by("ada", "finish-by@here/fake").say("job", job("sleep 600", 15*time.Minute, 1)).say("finishBy", finishBy(now.Add(40*time.Minute))))
		r := g.ends(key)
		if s := g.guarantee(key, "finish"); s.State != agreement.Fulfilled || r.State != agreement.Complete {
			t.Errorf("%s\n%s", s.State, g.story(key))
		}
	}, whole)
}

// What can't be kept is refused, with the earliest time that can: because of what is promised, and because
// of what runs and is not stopped.
func TestRefusedWithTheEarliestTime(t *testing.T) {
	alone(t, one(1), func(t *testing.T, g *gateway) {
		now := time.Now()
		busy := g.submit("sleep 7000", 2*time.Hour)
		g.until("it runs", func() bool { return g.state(busy).State == bes.Running })
		late := func(by time.Duration) offering {
			return g.by("ada", "finish-by@here/fake").say("job", job("sleep 600", time.Hour, 1)).say("finishBy", finishBy(now.Add(by)))
		}
		_, err := g.offer("ada", late(2*time.Hour))
		r := refusal(t, err, agreement.NoCapacity)
		if d := r.Earliest.Sub(now); d < 3*time.Hour-time.Minute || d > 3*time.Hour+2*time.Minute || !strings.Contains(r.Error(), "the earliest end that can be promised is") {
			t.Errorf("%s %s", d, r)
		}
		first := g.must("ada", late(4*time.Hour-time.Minute))
		once(t, r)
		_, err = g.offer("ada", late(4*time.Hour-time.Minute))
		r = refusal(t, err, agreement.NoCapacity)
		once(t, r)
		if d := r.Earliest.Sub(now); d < 4*time.Hour-time.Minute || d > 4*time.Hour+5*time.Minute {
			t.Errorf("%s %s", d, r)
		}
		// By the time that the refusal tells it can be had.
		second := g.must("ada", g.by("ada", "finish-by@here/fake").say("job", job("sleep 600", time.Hour, 1)).say("finishBy", finishBy(r.Earliest.Add(time.Minute))))
		for _, key := range []string{first, second} {
			if g.ends(key); g.guarantee(key, "finish").State != agreement.Fulfilled {
				t.Errorf("%s", g.story(key))
			}
		}
	}, whole)
}

// once checks that a refusal says its times once each.
func once(t *testing.T, r *agreement.Refusal) {
	t.Helper()
	said := map[string]bool{}
	for w := range strings.FieldsSeq(strings.TrimRight(r.Error(), ".")) {
		if w = strings.Trim(w, ",;:"); !strings.HasSuffix(w, "Z") || !strings.Contains(w, "T") {
			continue
		}
		if said[w] {
			t.Errorf("it says %s twice: %s", w, r)
		}
		said[w] = true
	}
	if len(said) == 0 {
		t.Errorf("it says no time: %s", r)
	}
}

func TestBestEffort(t *testing.T) {
	alone(t, one(4), func(t *testing.T, g *gateway) {
		for _, template := range []string{"best-effort@here/fake"} {
			key := g.must("ada", g.by("ada", template).say("job", job("sleep 60", 0, 0)))
			if r := g.ends(key); r.State != agreement.Complete || r.Plan.Holds != nil {
				t.Errorf("%s", g.story(key))
			}
			if s := g.properties("ada", key).Services[0]; s.State != agreement.Completed {
				t.Errorf("%+v", s)
			}
		}
	})
}

func TestStartBy(t *testing.T) {
	alone(t, one(1), func(t *testing.T, g *gateway) {
		now := time.Now()
		busy := g.submit("sleep 1700", 30*time.Minute)
		g.until("it runs", func() bool { return g.state(busy).State == bes.Running })
		for range 3 {
			g.submit("sleep 1700", 30*time.Minute)
		}
		key := g.must("ada", g.by("ada", "start-by@here/fake").say("job", job("sleep 60", time.Hour, 1)).say("startBy", startBy(now.Add(40*time.Minute))))
		if p := g.properties("ada", key); p.Services[0].State != agreement.NotReady {
			t.Errorf("%+v", p.Services[0])
		}
		g.until("it runs", func() bool {
			s := g.properties("ada", key).Services[0]
			return s.State == agreement.Ready && s.Activity == agreement.Processing
		})
		if d := time.Since(now); d > 40*time.Minute {
			t.Errorf("it starts after %s", d)
		}
		if g.ends(key); g.guarantee(key, "start").State != agreement.Fulfilled {
			t.Errorf("%s", g.story(key))
		}
	}, whole)
}

// An advance reservation is one of the site's manager where it makes any, and else the gateway's own; the job starts
// in time though the site is wanted by others.
func TestAdvanceReservation(t *testing.T) {
	for name, o := range map[string]fake.Options{"at the manager": {}, "in our own calendar": {NoReserve: true}} {
		t.Run(name, func(t *testing.T) {
			sites := one(4, o)
			alone(t, sites, func(t *testing.T, g *gateway) {
				now := time.Now()
				from, until := now.Add(2*time.Hour), now.Add(3*time.Hour)
				key := g.must("ada", g.by("ada", "advance-reservation@here/fake").say("job", job("sleep 1800", 0, 1)).say("window", window(from, until)))
				kept := reservations(t, g)
				if want := map[bool]int{true: 0, false: 1}[o.NoReserve]; kept != want {
					t.Errorf("there are %d reservations, want %d\n%s", kept, want, g.story(key))
				}
				for range 12 {
					g.submit("sleep 7200", 0)
				}
				time.Sleep(time.Until(from.Add(-time.Minute)))
				g.until("it runs", func() bool { return g.properties("ada", key).Services[0].State == agreement.Ready })
				if d := time.Since(from); d < 0 || d > time.Minute {
					t.Errorf("it starts %s after the window opens\n%s", d, g.story(key))
				}
				g.ends(key)
				if s := g.guarantee(key, "start"); s.State != agreement.Fulfilled {
					t.Errorf("%s", g.story(key))
				}
				g.until("the reservation is gone", func() bool { return reservations(t, g) == 0 })
			})
		})
	}
}

// reservations counts those at the site here.
func reservations(t *testing.T, g *gateway) int {
	t.Helper()
	if !g.broker.Reserves("here") {
		return 0
	}
	list, err := g.broker.Reservations(t.Context(), "here", nil)
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// A job that overruns its window is ended, so that others have the room.
func TestWindowIsOver(t *testing.T) {
	alone(t, one(4), func(t *testing.T, g *gateway) {
		now := time.Now()
		key := g.must("ada", g.by("ada", "advance-reservation@here/fake").say("job", job("sleep 90000", 0, 1)).say("window", window(now.Add(time.Hour), now.Add(2*time.Hour))))
		g.ends(key)
		if d := time.Since(now.Add(2 * time.Hour)); d < 0 || d > time.Minute {
			t.Errorf("it ended %s after its window\n%s", d, g.story(key))
		}
	})
}

func TestCapacity(t *testing.T) {
	sites := one(4)
	alone(t, sites, func(t *testing.T, g *gateway) {
		now := time.Now()
		from, until := now.Add(time.Hour), now.Add(2*time.Hour)
		content := "<p:Capacity" + pns + "><p:Site>here</p:Site><p:Share>fake</p:Share><p:CPUs>2</p:CPUs><p:StartTime>" + at(from) + "</p:StartTime><p:EndTime>" + at(until) + "</p:EndTime></p:Capacity>"
		key := g.must("ada", g.by("ada", "capacity@here/fake").say("capacity", content))
		g.until("it is open", func() bool {
			s := g.properties("ada", key).Services[0]
			return s.State == agreement.Ready && s.Activity == agreement.Idle
		})
		if d := time.Since(from); d < 0 || d > 2*time.Second {
			t.Errorf("it opens %s after its time", d)
		}
		sites[0].world.Down("a test")
		time.Sleep(30 * time.Minute)
		if s := g.guarantee(key, "available"); s.State != agreement.Violated {
			t.Errorf("%s\n%s", s.State, g.story(key))
		}
		sites[0].world.Up()
		g.ends(key)
		if d := time.Since(until); d < 0 || d > time.Minute {
			t.Errorf("it ended %s after its window\n%s", d, g.story(key))
		}
	})
}

func TestTerminate(t *testing.T) {
	alone(t, one(4), func(t *testing.T, g *gateway) {
		now := time.Now()
		running := g.must("ada", g.by("ada", "finish-by@here/fake").say("job", job("sleep 6000", 2*time.Hour, 1)).say("finishBy", finishBy(now.Add(30*time.Hour))))
		g.until("it runs", func() bool { return g.properties("ada", running).Services[0].State == agreement.Ready })
		waiting := g.must("ada", g.by("ada", "advance-reservation@here/fake").say("job", job("sleep 60", 0, 1)).say("window", window(now.Add(time.Hour), now.Add(2*time.Hour))))
		for _, key := range []string{running, waiting} {
			if err := g.Terminate(as1("bob"), key, nil); err == nil {
				t.Error("a stranger ended it")
			}
			if _, err := g.Agreement(as1("bob"), key); err == nil {
				t.Error("a stranger sees it")
			}
			if err := g.Terminate(as1("ada"), key, nil); err != nil {
				t.Fatal(err)
			}
			r := g.ends(key)
			if r.State != agreement.Terminated {
				t.Errorf("%s\n%s", r.State, g.story(key))
			}
			if s := g.properties("ada", key).Services[0]; s.State != agreement.Completed || found(s.Detail, "State") != string(bes.Cancelled) {
				t.Errorf("%+v", s)
			}
			if err := g.Terminate(as1("ada"), key, nil); err == nil {
				t.Error("it was ended twice")
			}
		}
		if d := time.Since(now); d > 10*time.Minute {
			t.Errorf("it took %s", d)
		}
		g.until("the reservation is gone", func() bool { return reservations(t, g) == 0 })
	})
}
