package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/resourcemodel"
)

// timed is a document that runs for so long at most, with further elements of Placement.
func timed(script string, wall time.Duration, placement string) []byte {
	doc := string(document(script))
	if wall > 0 {
		doc = strings.Replace(doc, `</p:POSIXApplication>`, fmt.Sprintf(`<p:WallTimeLimit>%d</p:WallTimeLimit></p:POSIXApplication>`, int(wall.Seconds())), 1)
	}
	if placement != "" {
		doc = strings.Replace(doc, `</jsdl:JobDescription>`, `<jsdl:Resources>`+placementOf(placement)+`</jsdl:Resources></jsdl:JobDescription>`, 1)
	}
	return []byte(doc)
}

const mayRunAgain = `<q:Rerunnable>true</q:Rerunnable>`

// promise submits a job of an agreement.
func (g *gateway) promise(name string, doc []byte, p Promise) *Promised {
	g.t.Helper()
	p.Agreement = "urn:a1"
	r, err := g.SubmitPromised(as("ada"), &bes.CreateActivityRequest{SubmissionID: name, Document: doc}, p)
	if err != nil {
		g.t.Fatalf("SubmitPromised: %v", err)
	}
	return r
}

// record gives what the store has of a job.
func (g *gateway) record(id string) store.Job {
	g.t.Helper()
	recs, err := g.cfg.Store.Get(context.Background(), id)
	if err != nil {
		g.t.Fatal(err)
	}
	return recs[id]
}

// lines gives the reasons of an event in a history.
func (g *gateway) lines(e soap.EPR, event Event) (out []string) {
	g.t.Helper()
	h, err := g.GetActivityHistory(as("ada"), e)
	if err != nil {
		g.t.Fatal(err)
	}
	for _, l := range h {
		if l.Event == string(event) {
			out = append(out, l.Reason)
		}
	}
	return out
}

// onOne gives a gateway with one site, which is given no jobs ahead.
func onOne(t *testing.T, w *fake.World, change ...func(*Config)) *gateway {
	return here(t, w, fake.Options{}, append([]func(*Config){notAhead}, change...)...)
}

func notAhead(c *Config) {
	none := 0
	for i := range c.Sites {
		c.Sites[i].Model.Ahead = &none
	}
}

func onTwo(t *testing.T, a, b *fake.World, change ...func(*Config)) *gateway {
	return two(t, a, b, fake.Options{}, append(change, notAhead)...)
}

// Under EDF a job that is promised to finish overtakes older ones of best effort by that alone.
func TestPromiseIsADeadline(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := onOne(t, fake.NewWorld(1))
		if err := g.SetPolicy(as("ada"), schedule.Gateway, policy.Scheduling, &policy.Setting{Name: "edf"}, false); err != nil {
			t.Fatal(err)
		}
		g.until(g.submit("sleep 60"), bes.Running, "Executing")
		older := g.submit("sleep 60")
		late := g.promise("late", timed("sleep 50", time.Minute, ""), Promise{FinishBy: time.Now().Add(10 * time.Hour)})
		soon := g.promise("soon", timed("sleep 50", time.Minute, ""), Promise{FinishBy: time.Now().Add(9 * time.Hour)})
		begin := g.promise("begin", timed("sleep 50", time.Minute, ""), Promise{StartBy: time.Now().Add(8 * time.Hour)})
		var order []soap.EPR
		for _, e := range []soap.EPR{begin.Activity, soon.Activity, late.Activity, older} {
			g.until(e, bes.Running, "Executing")
			order = append(order, e)
		}
		g.until(older, bes.Finished, "")
		for _, e := range order {
			if danger := g.lines(e, Pressed); danger != nil {
				t.Errorf("there was no danger: %s", danger)
			}
		}
	})
}

// Under every policy a job goes first when what is promised of it is in danger, and its history says so once;
// its times are shown.
func TestPromiseInDanger(t *testing.T) {
	for _, p := range []string{"fifo", "priority", "fairshare", "edf", "realtime"} {
		t.Run(p, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				g := onOne(t, fake.NewWorld(1))
				if err := g.SetPolicy(as("ada"), schedule.Gateway, policy.Scheduling, &policy.Setting{Name: p}, false); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				const each = 5 * time.Minute
				doc := timed("sleep 290", each, deadline(began.Add(30*time.Hour))+`<q:Priority>900</q:Priority>`)
				for range 40 {
					g.must("ada", doc)
				}
				promised := g.promise("x", timed("sleep 290", each, ""), Promise{FinishBy: began.Add(time.Hour)})
				s := g.status(promised.Activity)
				if s.Details.Attributes["agreement"] != "urn:a1" || s.Details.Attributes["agreement.finishBy"] != began.Add(time.Hour).UTC().Format(time.RFC3339) {
					t.Errorf("%+v", s.Details)
				}
				s = g.until(promised.Activity, bes.Finished, "")
				if s.Details.Ended.After(began.Add(time.Hour)) {
					t.Errorf("it ended %s after it began", s.Details.Ended.Sub(began))
				}
				danger := g.lines(promised.Activity, Pressed)
				if p == "edf" || p == "realtime" {
					return // by its deadline it goes before the others anyhow
				}
				if len(danger) != 1 || !strings.Contains(danger[0], "it goes first") || !strings.Contains(danger[0], "to finish by") {
					t.Errorf("%q", danger)
				}
				if rec := g.record(promised.ID); rec.Status.Class != promisedClass || !rec.Status.Promise.Pressed {
					t.Errorf("%+v", rec.Status)
				}
			})
		})
	}
}

// A window that opens is no danger to the job that has it: it starts in it, and nothing is said. Where it can't,
// that is said once half of the time that is left has passed; and each place is named once.
func TestWindowOpensWithoutDanger(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := onOne(t, fake.NewWorld(2))
		from := time.Now().Add(time.Hour)
		window := func(name string) *Promised {
			return g.promise(name, timed("sleep 50", 10*time.Minute, ""), Promise{NotBefore: from, StartBy: from.Add(5 * time.Minute), Site: "here", Room: name})
		}
		hold := schedule.Hold{ID: "a", Key: resourcemodel.Key{Site: "here"}, Share: "fake", Slots: 1, CPUs: 1, From: from, Until: from.Add(time.Hour), Owner: "ada"}
		g.KeepRoom([]schedule.Hold{hold})
		a := window("a")
		if s := g.until(a.Activity, bes.Finished, ""); s.Details.Started.Before(from) || s.Details.Started.After(from.Add(time.Minute)) {
			t.Errorf("%+v", s.Details)
		}
		if why := g.lines(a.Activity, Pressed); why != nil {
			t.Errorf("there was no danger: %q", why)
		}
		from = time.Now().Add(time.Hour)
		for range 2 {
			g.submit("sleep 7200") // of nobody knows how long
		}
		time.Sleep(time.Minute)
		b := window("b")
		time.Sleep(time.Until(from.Add(150*time.Second - time.Second)))
		if why := g.lines(b.Activity, Pressed); why != nil {
			t.Errorf("there is time left: %q", why)
		}
		time.Sleep(time.Minute)
		want := "its promise to start by " + from.Add(5*time.Minute).UTC().Format(time.RFC3339) + " is in danger: it goes first"
		if why := g.lines(b.Activity, Pressed); len(why) != 1 || why[0] != want {
			t.Errorf("%q, want %q", why, want)
		}
	})
}

func deadline(at time.Time) string {
	return `<q:Deadline>` + at.UTC().Format(time.RFC3339) + `</q:Deadline>`
}

func TestSubmitPromised(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := onTwo(t, fake.NewWorld(1), fake.NewWorld(1))
		doc, now := timed("sleep 50", time.Minute, ""), time.Now()
		for _, c := range []struct {
			what string
			id   string
			p    Promise
			doc  []byte
			kind fail.Kind
			say  string
		}{
			{"no agreement", "x", Promise{}, doc, fail.Invalid, "id of its agreement"},
			{"no name", "", Promise{Agreement: "a"}, doc, fail.Invalid, "SubmissionID"},
			{"a room at no site", "x", Promise{Agreement: "a", Room: "r"}, doc, fail.Invalid, "names none"},
			{"too late to start", "x", Promise{Agreement: "a", NotBefore: now.Add(2), StartBy: now.Add(1)}, doc, fail.Invalid, "too late"},
			{"too late to end", "x", Promise{Agreement: "a", NotBefore: now.Add(1), FinishBy: now.Add(1)}, doc, fail.Invalid, "too late"},
			{"no such site", "x", Promise{Agreement: "a", Site: "nowhere"}, doc, fail.Unsupported, "no site nowhere"},
			{"not that site", "x", Promise{Agreement: "a", Site: "there"}, document("exit 0", "here"), fail.Unsupported, "can't run it"},
			{"no document", "x", Promise{Agreement: "a"}, []byte("<no/>"), fail.Invalid, ""},
		} {
			if _, err := g.SubmitPromised(as("ada"), &bes.CreateActivityRequest{SubmissionID: c.id, Document: c.doc}, c.p); !fail.Is(err, c.kind) || !strings.Contains(fail.Sentence(err), c.say) {
				t.Errorf("%s: %v", c.what, err)
			}
		}
		one := g.promise("x", doc, Promise{FinishBy: now.Add(time.Hour), Pressed: true, Loose: true, Noted: true})
		again := g.promise("x", doc, Promise{FinishBy: now.Add(5 * time.Hour)})
		if !one.Created || again.Created || again.ID != one.ID {
			t.Errorf("%+v, again %+v", one, again)
		}
		if p := g.record(one.ID).Status.Promise; p == nil || p.Pressed || p.Loose || p.Noted || !p.FinishBy.Equal(now.Add(time.Hour)) {
			t.Errorf("%+v", p)
		}
		if _, err := g.SubmitPromised(as("ada"), &bes.CreateActivityRequest{SubmissionID: "x", Document: document("exit 0")}, Promise{Agreement: "urn:a1"}); !fail.Is(err, fail.Invalid) {
			t.Errorf("with another document: %v", err)
		}
		if _, err := g.CreateActivity(as("ada"), &bes.CreateActivityRequest{SubmissionID: PromisePrefix + "x", Document: doc}); !fail.Is(err, fail.Invalid) {
			t.Errorf("a user's: %v", err)
		}
		g.until(one.Activity, bes.Finished, "")
	})
}

// Room that is promised stays free though jobs of others wait for it, and the job whose room it is starts in time.
func TestKeepRoom(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := onOne(t, fake.NewWorld(4), func(c *Config) { c.AwaitRoom = true })
		began := time.Now().UTC()
		first := g.submit("sleep 36000")
		time.Sleep(time.Minute)
		if s := g.status(first); s.State != bes.Pending {
			t.Errorf("placed before anybody said what is promised: %v", s.State)
		}
		from, until := began.Add(2*time.Hour), began.Add(4*time.Hour)
		g.KeepRoom([]schedule.Hold{{ID: "r", Key: resourcemodel.Key{Site: "here"}, Share: "fake", Slots: 3, From: from, Until: until}})
		g.until(first, bes.Running, "Executing")
		var endless, short []soap.EPR
		for range 3 {
			endless = append(endless, g.must("ada", timed("sleep 86400", 0, "")))
		}
		s := g.status(endless[0])
		for _, say := range []string{"3 of 4 slots of here/fake are promised from " + from.Format(time.RFC3339), "it would have to end before", "give it a WallTimeLimit of at most 1h59m"} {
			if !strings.Contains(s.Details.Reason, say) {
				t.Errorf("%q does not say %q", s.Details.Reason, say)
			}
		}
		m, err := g.Match(as("ada"), timed("sleep 86400", 3*time.Hour, ""), "")
		if err != nil || m.Now || !m.Could || !strings.Contains(m.Sentence, "are promised from") || m.Verdicts[0].Clauses[0].Element != "Promise" {
			t.Errorf("%v %+v", err, m)
		}
		if m, err = g.Match(as("ada"), timed("sleep 60", time.Hour, ""), ""); err != nil || !m.Now || !strings.Contains(m.Sentence, "at once") {
			t.Errorf("%v %+v", err, m)
		}
		for range 3 { // they end before
			short = append(short, g.must("ada", timed("sleep 3500", time.Hour, "")))
		}
		for _, e := range short {
			g.until(e, bes.Running, "Executing")
		}
		var mine []*Promised
		for i := range 3 {
			mine = append(mine, g.promise(fmt.Sprint(i), timed("sleep 3500", time.Hour, ""), Promise{NotBefore: from, StartBy: from.Add(time.Minute), Site: "here", Share: "fake", Room: "r"}))
		}
		for _, p := range mine {
			s := g.until(p.Activity, bes.Running, "Executing")
			if at := s.Details.Started; at.Before(from) || at.After(from.Add(time.Minute)) {
				t.Errorf("it started %s after the window began", at.Sub(from))
			}
		}
		time.Sleep(time.Until(from.Add(90 * time.Minute)))
		for _, e := range endless { // the room is the promise's to its end, used or not
			if s := g.status(e); s.State != bes.Pending {
				t.Errorf("another has it: %v", s.State)
			}
		}
		for _, e := range endless {
			if s := g.until(e, bes.Running, "Executing"); s.Details.Started.Before(until) || s.Details.Started.After(until.Add(time.Minute)) {
				t.Errorf("it started %s after the window was over", s.Details.Started.Sub(until))
			}
		}
	})
}

// What a VO bought is for its jobs, without a word in them, and for nobody else's.
func TestCapacityOfAVO(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := onOne(t, fake.NewWorld(2))
		now := time.Now()
		g.KeepRoom([]schedule.Hold{{ID: "r", Key: resourcemodel.Key{Site: "here"}, Share: "fake", Slots: 2, From: now, Until: now.Add(time.Hour), VO: "bio", ForVO: true}})
		other := g.submit("sleep 60")
		bio := timed("sleep 50", time.Minute, "<q:VO>bio</q:VO>")
		for range 2 {
			g.until(g.must("ada", bio), bes.Running, "Executing")
		}
		time.Sleep(30 * time.Minute)
		if s := g.status(other); s.State != bes.Pending {
			t.Errorf("%v", s.State)
		}
		g.KeepRoom(nil)
		g.until(other, bes.Finished, "")
	})
}

// What an owner holds without a VO is for the owner's jobs that are for none, those that waited before it was held
// too, and for nobody else's.
func TestCapacityOfAnOwner(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := onOne(t, fake.NewWorld(2))
		g.KeepRoom(nil)
		now := time.Now()
		busy := []soap.EPR{g.submit("sleep 120"), g.submit("sleep 120")}
		for _, e := range busy {
			g.until(e, bes.Running, "Executing")
		}
		doc := timed("sleep 50", time.Minute, "")
		other := g.must("bob", doc)
		early := g.must("ada", doc)
		g.KeepRoom([]schedule.Hold{{ID: "r", Key: resourcemodel.Key{Site: "here"}, Share: "fake", Slots: 2, From: now, Until: now.Add(time.Hour), Owner: "ada", ForVO: true}})
		m, err := g.Match(as("bob"), doc, "")
		if err != nil || m.Now {
			t.Errorf("%v %+v", err, m)
		}
		g.until(early, bes.Finished, "")
		for range 3 {
			g.until(g.must("ada", doc), bes.Finished, "")
		}
		if m, err := g.Match(as("ada"), doc, ""); err != nil || !m.Now {
			t.Errorf("%v %+v", err, m)
		}
		bio := g.must("ada", timed("sleep 50", time.Minute, "<q:VO>bio</q:VO>"))
		time.Sleep(time.Until(now.Add(59 * time.Minute)))
		if s := g.status(bio); s.State != bes.Pending || !strings.Contains(s.Details.Reason, "promised") {
			t.Errorf("%+v", s)
		}
		rs, err := g.GetActivityStatuses(as("bob"), &bes.StatusRequest{Activities: []soap.EPR{other}})
		if err != nil || rs[0].Err != nil || rs[0].Status.State != bes.Pending {
			t.Errorf("another's job has it: %v %+v", err, rs)
		}
		g.until(bio, bes.Finished, "")
		late := g.must("ada", doc)
		g.KeepRoom(nil)
		g.until(late, bes.Finished, "")
	})
}

// The site of an agreement goes while its job waits for it: another is tried, the clock runs on, and a start of
// the gateway in between changes nothing.
func TestPromiseMovesOn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st, a, b := newStore(t), fake.NewWorld(1), fake.NewWorld(1)
		t.Cleanup(a.Close)
		t.Cleanup(b.Close)
		cfg := func() Config {
			c := Config{Store: st, Sites: []Site{{Name: "here", Adapter: a.Open(fake.Options{})}, {Name: "there", Adapter: b.Open(fake.Options{})}}}
			notAhead(&c)
			return c
		}
		g := start(t, cfg())
		<-g.Ready()
		g.until(g.submit("hang", "here"), bes.Running, "Executing")
		finish := time.Now().Add(5 * time.Hour)
		p := g.promise("x", timed("sleep 50", time.Minute, ""), Promise{FinishBy: finish, Site: "here"})
		time.Sleep(time.Minute)
		if s := g.status(p.Activity); s.State != bes.Pending {
			t.Fatalf("it is placed elsewhere: %+v", s)
		}
		g.stop()
		g = start(t, cfg())
		<-g.Ready()
		time.Sleep(time.Minute)
		if s := g.status(p.Activity); s.State != bes.Pending || s.Details.Attributes["agreement.site"] != "here" {
			t.Fatalf("it is placed elsewhere: %+v", s)
		}
		a.Down("the hall burns")
		s := g.until(p.Activity, bes.Finished, "")
		if s.Details.Site != "there" {
			t.Errorf("it ran at %s", s.Details.Site)
		}
		if why := g.lines(p.Activity, Loosened); len(why) != 1 || !strings.Contains(why[0], "the site here of its agreement is away") || !strings.Contains(why[0], "another is tried so that the promise holds") {
			t.Errorf("%q", why)
		}
		if q := g.record(p.ID).Status.Promise; !q.Loose || !q.FinishBy.Equal(finish) {
			t.Errorf("%+v", q)
		}
		g.stop()
	})
}

// Away and without another site, it waits for its own; full until too late, another is tried.
func TestPromiseTriesAnotherSite(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := fake.NewWorld(1), fake.NewWorld(1)
		g := onTwo(t, a, b)
		g.until(g.submit("hang", "here"), bes.Running, "Executing")
		now := time.Now()
		p := g.promise("x", timed("sleep 50", time.Minute, ""), Promise{StartBy: now.Add(20 * time.Minute), Site: "here"})
		s := g.until(p.Activity, bes.Finished, "")
		if s.Details.Site != "there" || s.Details.Started.After(now.Add(20*time.Minute)) || s.Details.Started.Before(now.Add(10*time.Minute)) {
			t.Errorf("%+v", s.Details)
		}
		if got, want := g.events(p.Activity), "submitted in-danger unpinned placing placed started exited"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if why := g.lines(p.Activity, Loosened); !strings.Contains(why[0], "has no room for it in time") {
			t.Errorf("%q", why)
		}
		b.Down("flood")
		a.Down("fire")
		time.Sleep(time.Minute)
		q := g.promise("y", timed("sleep 50", time.Minute, ""), Promise{FinishBy: now.Add(100 * time.Hour), Site: "here"})
		time.Sleep(time.Hour)
		if why := g.lines(q.Activity, Loosened); why != nil {
			t.Errorf("there is no other: %q", why)
		}
		b.Up()
		g.until(q.Activity, bes.Finished, "")
		if why := g.lines(q.Activity, Loosened); len(why) != 1 {
			t.Errorf("%q", why)
		}
	})
}

// A site that has a job is killed. One that may run again is run elsewhere, too, while there is time; of another the
// history says why it is not.
func TestPromiseOfAKilledSite(t *testing.T) {
	bubble(t, func(t *testing.T) {
		a, b := fake.NewWorld(2), fake.NewWorld(2)
		g := onTwo(t, a, b)
		now := time.Now()
		again := g.promise("x", timed("sleep 600", 20*time.Minute, mayRunAgain), Promise{FinishBy: now.Add(time.Hour), Site: "here"})
		once := g.promise("y", timed("sleep 600", 20*time.Minute, ""), Promise{FinishBy: now.Add(time.Hour), Site: "here"})
		g.until(again.Activity, bes.Running, "Executing")
		g.until(once.Activity, bes.Running, "Executing")
		a.Down("the hall burns")
		s := g.until(again.Activity, bes.Finished, "")
		if s.Details.Site != "there" || s.Details.Ended.After(now.Add(time.Hour)) {
			t.Errorf("%+v", s.Details)
		}
		if why := g.lines(again.Activity, Pressed); len(why) != 1 || !strings.Contains(why[0], "a replica of it is tried at the site there") {
			t.Errorf("%q", why)
		}
		if why := g.lines(again.Activity, Copied); len(why) != 1 || !strings.Contains(why[0], "as its promise is in danger") {
			t.Errorf("%q", why)
		}
		if why := g.lines(once.Activity, Pressed); len(why) != 1 || !strings.Contains(why[0], "does not say that it is Rerunnable") || strings.Count(why[0], "at the site here") != 1 {
			t.Errorf("%q", why)
		}
		a.Up()
		g.until(once.Activity, bes.Finished, "")
		time.Sleep(10 * time.Minute) // what is left of the replica ends
		g.sound()
	})
}

// Two gateways on one store keep one promise: the gateway that took it in goes, and the other acts once.
func TestPromiseOfTwoReplicas(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st, a, b := newStore(t), fake.NewWorld(1), fake.NewWorld(1)
		t.Cleanup(a.Close)
		t.Cleanup(b.Close)
		open := func(name string) *gateway {
			c := Config{Store: st, Replica: name, Sites: []Site{{Name: "here", Adapter: a.Open(fake.Options{})}, {Name: "there", Adapter: b.Open(fake.Options{})}}}
			notAhead(&c)
			g := start(t, c)
			<-g.Ready()
			return g
		}
		g, h := open("one"), open("two")
		hold := []schedule.Hold{{ID: "r", Key: resourcemodel.Key{Site: "there"}, Share: "fake", Slots: 1, From: time.Now(), Until: time.Now().Add(10 * time.Hour)}}
		g.KeepRoom(hold)
		h.KeepRoom(hold)
		g.until(g.submit("hang", "here"), bes.Running, "Executing")
		other := g.submit("sleep 60")
		p := g.promise("x", timed("sleep 50", time.Minute, ""), Promise{StartBy: time.Now().Add(time.Hour), Site: "here"})
		again := h.promise("x", timed("sleep 50", time.Minute, ""), Promise{StartBy: time.Now().Add(time.Hour), Site: "here"})
		q := h.promise("y", timed("sleep 50", time.Minute, ""), Promise{StartBy: time.Now().Add(time.Hour), Site: "there", Room: "r"})
		if again.ID != p.ID {
			t.Errorf("%s and %s", p.ID, again.ID)
		}
		h.until(q.Activity, bes.Finished, "")
		g.stop()
		h.KeepRoom(nil)
		h.until(p.Activity, bes.Finished, "")
		if why := h.lines(p.Activity, Loosened); len(why) != 1 {
			t.Errorf("%q", why)
		}
		if why := h.lines(p.Activity, Pressed); len(why) != 1 {
			t.Errorf("%q", why)
		}
		h.until(other, bes.Finished, "")
		h.stop()
	})
}

// Whoever follows hears of every line once, in order, over starts of the gateway and of the listener, and of what
// ended while nobody listened.
func TestFollow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		st, w := newStore(t), fake.NewWorld(4)
		t.Cleanup(w.Close)
		open := func() *gateway {
			c := Config{Store: st, Sites: []Site{{Name: "here", Adapter: w.Open(fake.Options{})}}}
			g := start(t, c)
			<-g.Ready()
			return g
		}
		cursors, heard := map[string]int{}, map[string][]string{}
		var mu sync.Mutex
		var last Evidence
		listen := func(g *gateway, after map[string]int) (stop func()) {
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error)
			go func() {
				done <- g.Follow(ctx, after)(func(es []Evidence) error {
					mu.Lock()
					defer mu.Unlock()
					for _, e := range es {
						if e.Sequence != cursors[e.Job]+1 {
							t.Errorf("%s: line %d after %d", e.Job, e.Sequence, cursors[e.Job])
						}
						cursors[e.Job] = e.Sequence
						heard[e.Job] = append(heard[e.Job], string(e.Kind))
						if e.Kind == EvidenceEnded {
							last = e
						}
					}
					return nil
				})
			}()
			return func() {
				cancel()
				if err := <-done; err != nil {
					t.Errorf("Follow: %v", err)
				}
			}
		}
		g := open()
		stop := listen(g, nil)
		g.submit("sleep 60") // nobody's promise
		a := g.promise("a", timed("sleep 600; exit 0", time.Hour, ""), Promise{FinishBy: time.Now().Add(3 * time.Hour)})
		b := g.promise("b", timed("sleep 60; exit 3", time.Hour, ""), Promise{})
		c := g.promise("c", timed("sleep 900; exit 0", time.Hour, mayRunAgain), Promise{})
		g.until(a.Activity, bes.Running, "Executing")
		if err := one1(g.SuspendActivities(as("ada"), []soap.EPR{a.Activity})); err != nil {
			t.Fatal(err)
		}
		g.until(a.Activity, bes.Running, "Suspended")
		g.until(c.Activity, bes.Running, "Executing")
		if err := w.Lose(adapters.Tag(c.ID+"-1"), false); err != nil {
			t.Fatal(err)
		}
		g.until(b.Activity, bes.Finished, "")
		synctest.Wait()
		mu.Lock()
		if last.Job != b.ID || last.Success || last.ExitStatus == nil || *last.ExitStatus != 3 || last.Outcome != bes.Finished || last.Started.IsZero() || last.Promise.Agreement != "urn:a1" {
			t.Errorf("%+v", last)
		}
		mu.Unlock()
		stop()
		if err := one1(g.ResumeActivities(as("ada"), []soap.EPR{a.Activity})); err != nil {
			t.Fatal(err)
		}
		g.until(a.Activity, bes.Running, "Executing")
		g.stop()
		g = open()
		g.until(a.Activity, bes.Finished, "") // while nobody listens
		mu.Lock()
		after := maps.Clone(cursors)
		mu.Unlock()
		stop = listen(g, after)
		g.until(c.Activity, bes.Finished, "")
		synctest.Wait()
		stop()
		for id, want := range map[string]string{
			a.ID: "submitted other other started other suspended other resumed ended",
			b.ID: "submitted other other started ended",
			c.ID: "submitted other other started lost other other started ended",
		} {
			if got := strings.Join(heard[id], " "); got != want {
				t.Errorf("heard %s\nwant  %s\n%s", got, want, g.story(g.reference(id)))
			}
		}
		if len(heard) != 3 {
			t.Errorf("%d jobs", len(heard))
		}
		// Who made it before this one went may not have kept its id: asking for it again tells of it.
		stop = listen(g, nil)
		synctest.Wait()
		delete(cursors, b.ID)
		delete(heard, b.ID)
		if again := g.promise("b", timed("sleep 60; exit 3", time.Hour, ""), Promise{}); again.Created || again.ID != b.ID {
			t.Errorf("%+v", again)
		}
		synctest.Wait()
		stop()
		if got := strings.Join(heard[b.ID], " "); got != "submitted other other started ended" {
			t.Errorf("asked for again: heard %s", got)
		}
		full := errors.New("full")
		if err := g.Follow(context.Background(), map[string]int{a.ID: 0})(func([]Evidence) error { return full }); !errors.Is(err, full) {
			t.Errorf("%v", err)
		}
		g.stop()
	})
}

func TestKindOfLine(t *testing.T) {
	for from, row := range transitions {
		for e, tr := range row {
			k := kindOfLine(from, tr.to, e)
			if (k == EvidenceEnded) != tr.to.Final() || (k == EvidenceSubmitted) != (e == Accepted) {
				t.Errorf("%s --%s--> %s is %s", from, e, tr.to, k)
			}
		}
	}
}

func TestOutlook(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := fake.NewWorld(2)
		g := onOne(t, w)
		now := time.Now().UTC()
		ask := func(length time.Duration, vo string) schedule.Outlook {
			t.Helper()
			o, err := g.Outlook("here", "", 1, length, vo)
			if err != nil {
				t.Fatal(err)
			}
			return o
		}
		if o := ask(time.Hour, ""); o.Start.Before(now) || !strings.Contains(o.Sentence, "now") {
			t.Errorf("%+v", o)
		}
		g.until(g.must("ada", timed("sleep 3500", time.Hour, "")), bes.Running, "Executing")
		g.until(g.must("ada", timed("sleep 7100", 2*time.Hour, "")), bes.Running, "Executing")
		if o := ask(time.Hour, ""); o.Start.Sub(now) < time.Hour || o.Start.Sub(now) > time.Hour+time.Minute || o.Unknown != 0 {
			t.Errorf("%+v", o)
		}
		g.KeepRoom([]schedule.Hold{{ID: "r", Key: resourcemodel.Key{Site: "here"}, Share: "fake", Slots: 2, From: now.Add(90 * time.Minute), Until: now.Add(5 * time.Hour), VO: "bio", ForVO: true}})
		if o := ask(time.Hour, ""); !o.Start.Equal(now.Add(5 * time.Hour)) {
			t.Errorf("%+v", o)
		}
		if o := ask(time.Hour, "bio"); o.Start.Sub(now) > time.Hour+time.Minute {
			t.Errorf("%+v", o)
		}
		for _, c := range [][2]string{{"nowhere", ""}, {"here", "none"}} {
			if _, err := g.Outlook(c[0], c[1], 1, time.Hour, ""); !fail.Is(err, fail.NotFound) {
				t.Errorf("%v: %v", c, err)
			}
		}
		w.Down("fire")
		g.untilSite("here", SiteDown)
		if o := ask(time.Hour, ""); !o.Start.IsZero() || !strings.Contains(o.Sentence, "fire") {
			t.Errorf("%+v", o)
		}
	})
}

// A gateway without promises looks at none.
func TestNoPromises(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := fake.NewWorld(1)
		g := onOne(t, w)
		for range 5 {
			g.until(g.submit("exit 0"), bes.Finished, "")
		}
		w.Down("fire")
		g.untilSite("here", SiteDown)
		g.mu.Lock()
		defer g.mu.Unlock()
		if len(g.promised) != 0 || len(g.promises) != 0 || g.restless || len(g.rescues) != 0 || len(g.sched.Holds()) != 0 {
			t.Errorf("%v %v %v %v", g.promised, g.promises, g.restless, g.rescues)
		}
	})
}

// What a promise names is gone from memory with the end of its job.
func TestPromisesAreForgotten(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := onOne(t, fake.NewWorld(1))
		for i := range 20 {
			p := g.promise(fmt.Sprint(i), timed("exit 0", time.Minute, ""), Promise{FinishBy: time.Now().Add(15 * time.Minute)})
			g.until(p.Activity, bes.Finished, "")
		}
		time.Sleep(20 * time.Minute)
		g.submit("exit 0")
		time.Sleep(time.Minute)
		g.mu.Lock()
		defer g.mu.Unlock()
		if len(g.promised) != 0 || len(g.promises) != 0 {
			t.Errorf("%d promised, %d to be looked at", len(g.promised), len(g.promises))
		}
	})
}

// A manager's own reservation has its job start though the site is full of others; once it is of no use, the job is
// placed as any other.
func TestPromiseOfAReservation(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w := fake.NewWorld(2)
		g := onOne(t, w)
		now := time.Now().UTC().Truncate(time.Second)
		r := w.Open(fake.Options{}).(adapters.Reserver).Reserve(context.Background(), []adapters.Reservation{{Tag: "res-1", CPUs: 1, From: now.Add(10 * time.Minute), Until: now.Add(20 * time.Minute)}})[0]
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		hold := schedule.Hold{ID: "r", Key: resourcemodel.Key{Site: "here"}, Share: "fake", Slots: 1, From: now.Add(10 * time.Minute), Until: now.Add(20 * time.Minute), AtManager: true}
		g.KeepRoom([]schedule.Hold{hold})
		for range 3 {
			g.submit("sleep 20000")
		}
		in := g.promise("x", timed("sleep 50", time.Minute, ""), Promise{NotBefore: now.Add(10 * time.Minute), StartBy: now.Add(11 * time.Minute), Site: "here", Room: "r", Reservation: r.Handle})
		s := g.until(in.Activity, bes.Finished, "")
		if at := s.Details.Started; at.Before(now.Add(10*time.Minute)) || at.After(now.Add(11*time.Minute)) {
			t.Errorf("it started %s after it was submitted", at.Sub(now))
		}
		time.Sleep(20 * time.Minute)
		late := g.promise("y", timed("sleep 50", time.Minute, ""), Promise{FinishBy: now.Add(300 * time.Hour), Site: "here", Reservation: r.Handle})
		g.until(late.Activity, bes.Finished, "")
		if why := g.lines(late.Activity, Deferred); len(why) != 1 || !strings.Contains(why[0], "it is placed as any other job") {
			t.Errorf("%q", why)
		}
		if p := g.record(late.ID).Status.Promise; p.Reservation != nil {
			t.Errorf("%+v", p)
		}
	})
}

// Who holds room without a VO is counted with each change as it would be anew of all that is held.
func TestOwnersAreCounted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		g := onOne(t, fake.NewWorld(2))
		g.KeepRoom(nil)
		rng := rand.New(rand.NewPCG(7, 1))
		kept := map[string][]schedule.Hold{}
		now := time.Now()
		for range 2000 {
			id := strconv.Itoa(rng.IntN(6))
			var holds []schedule.Hold
			for range rng.IntN(3) {
				h := schedule.Hold{ID: id + "/0", Agreement: id, Key: resourcemodel.Key{Site: "here"}, Share: "fake", Slots: 1, From: now, Until: now.Add(time.Hour), Owner: []string{"ada", "bob", ""}[rng.IntN(3)], ForVO: rng.IntN(4) > 0}
				if rng.IntN(4) == 0 {
					h.VO = "bio"
				}
				holds = append(holds, h)
			}
			kept[id] = holds
			want := map[string]int{}
			var all []schedule.Hold
			for _, list := range kept {
				all = append(all, list...)
				for i := range list {
					if isOwn(&list[i]) {
						want[list[i].Owner]++
					}
				}
			}
			if rng.IntN(10) == 0 {
				g.KeepRoom(all)
			} else {
				g.ChangeRoom(id, holds)
			}
			g.mu.Lock()
			got := maps.Clone(g.owning)
			g.mu.Unlock()
			if !maps.Equal(got, want) {
				t.Fatalf("%v, and there are %v", got, want)
			}
		}
	})
}
