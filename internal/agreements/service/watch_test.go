package service

import (
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// What counts as used is what evidence says ran: of a run that a site took with it nothing does.
func TestUsedIsWhatRan(t *testing.T) {
	noon := time.Date(2031, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(m int) time.Time { return noon.Add(time.Duration(m) * time.Minute) }
	type line = broker.Evidence
	started := func(m int, site string) line {
		return line{Kind: broker.EvidenceStarted, Event: string(broker.Started), At: at(m), Site: site}
	}
	ended := func(m, since int, e broker.Event) line {
		return line{Kind: broker.EvidenceEnded, Event: string(e), At: at(m), Started: at(since), Outcome: bes.Finished, Site: "there"}
	}
	lost := func(m int) line {
		return line{Kind: broker.EvidenceLost, Event: string(broker.Rerun), At: at(m), Site: "here"}
	}
	suspended := func(m int) line { return line{Kind: broker.EvidenceSuspended, At: at(m)} }
	resumed := func(m int) line { return line{Kind: broker.EvidenceResumed, At: at(m)} }
	for name, c := range map[string]struct {
		lines []line
		want  int // minutes
	}{
		"one run":                                  {[]line{started(0, "here"), ended(10, 0, broker.Exited)}, 10},
		"suspended meanwhile":                      {[]line{started(0, "here"), suspended(4), resumed(30), ended(36, 0, broker.Exited)}, 10},
		"it ended while it was suspended":          {[]line{started(0, "here"), suspended(4), ended(36, 0, broker.Ended)}, 4},
		"saved by a replica":                       {[]line{started(0, "here"), ended(60, 50, broker.Won)}, 10},
		"saved by a replica, and not started here": {[]line{ended(60, 50, broker.Won)}, 10},
		"saved by a replica of one that was lost":  {[]line{started(0, "here"), lost(40), ended(60, 50, broker.Won)}, 10},
		"lost and run again":                       {[]line{started(0, "here"), lost(40), started(50, "there"), ended(60, 50, broker.Exited)}, 10},
		"put back into its queue":                  {[]line{started(0, "here"), started(50, "here"), ended(60, 50, broker.Exited)}, 10},
		"lost, and nobody knows its end":           {[]line{started(0, "here"), ended(60, 0, broker.Vanished)}, 0},
		"given up":                                 {[]line{started(0, "here"), ended(60, 0, broker.Abandon)}, 0},
		"ended as was asked":                       {[]line{started(0, "here"), ended(7, 0, broker.Ended)}, 7},
		"started and ended unseen":                 {[]line{ended(60, 50, broker.Exited)}, 10},
		"ended before it began":                    {[]line{started(10, "here"), ended(5, 10, broker.Exited)}, 0},
	} {
		j := &judging{
			s: &Service{}, r: &engine.Record{ID: "x", Created: noon}, now: at(100),
			x: &reading{request: &terms.Request{Services: []terms.Service{{Name: "run"}}}}, n: &note{Services: make([]served, 1)},
		}
		for i := range c.lines {
			e := c.lines[i]
			e.Name, e.Job, e.Sequence = "0", "j", i+1
			j.evidence(&e)
		}
		if v := j.n.Services[0]; v.Used != time.Duration(c.want)*time.Minute || !v.Since.IsZero() || !v.over() {
			t.Errorf("%s: %+v; want %d minutes", name, v, c.want)
		}
	}
}

// A job that a killed site had is saved elsewhere, and pays for its run there.
func TestSavedJobPaysForWhatRan(t *testing.T) {
	sites := []site{{name: "here", world: fake.NewWorld(2)}, {name: "there", world: fake.NewWorld(2)}}
	alone(t, sites, func(t *testing.T, g *gateway) {
		o := g.by("ada", "finish-by@here/fake").say("job", job("sleep 600", 20*time.Minute, 1)).say("finishBy", finishBy(time.Now().Add(2*time.Hour)))
		key := g.must("ada", again(o))
		g.until("it runs", func() bool { return g.properties("ada", key).Services[0].State == agreement.Ready })
		time.Sleep(5 * time.Minute)
		sites[0].world.Down("a test")
		r := g.ends(key)
		n, err := noteOf(&r)
		if err != nil {
			t.Fatal(err)
		}
		if v := n.Services[0]; v.Site != "there" || v.Used < 10*time.Minute || v.Used > 11*time.Minute {
			t.Errorf("%+v\n%s", v, g.story(key))
		}
		list, err := Ledger(&r)
		if err != nil || len(list) == 0 || !strings.HasPrefix(list[0].Evidence, "the job of the service run ran for 10m") {
			t.Errorf("%+v %v", list, err)
		}
		sites[0].world.Up()
	}, whole)
}

// again lets the job of an offer be run again.
func again(o offering) offering {
	d := o.Term("job").(*agreement.ServiceDescription)
	s := string(xmldoc.Marshal(d.Description))
	s = strings.Replace(s, "</jsdl:Resources>", `<q:Placement xmlns:q="http://portolan-project.org/ns/2026/jsdl"><q:Rerunnable>true</q:Rerunnable></q:Placement></jsdl:Resources>`, 1)
	return o.say("job", s)
}
