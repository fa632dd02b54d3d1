package peering

import (
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/peers/routing"
	"github.com/portolan-project/portolan/resourcemodel"
)

// TestBought: b is full of its own work, and holds room for a window that a bought. While it is open a's jobs
// that have no room at home run there, as many as fit in; before and after, none goes there.
func TestBought(t *testing.T) {
	street(t, []int{1, 4}, func(t *testing.T, _ *world, hs []*house) {
		a, b := hs[0], hs[1]
		from := time.Now().Add(time.Hour).UTC().Round(0)
		until := from.Add(time.Hour)
		// Nothing flows out by itself.
		err := a.broker.SetPeers(&broker.Peering{Own: "a", Policy: routing.Policy{Overload: 1000 * time.Hour}, Peers: map[string]broker.Standing{"b": {Role: routing.Equal}}})
		if err != nil {
			t.Fatal(err)
		}
		b.broker.KeepRoom([]schedule.Hold{{
			ID: "x/0", Agreement: "x", Key: resourcemodel.Key{Site: "local"}, Slots: 2, CPUs: 2, From: from, Until: until, Owner: "@a", ForDomain: "a",
		}})
		bought := []broker.Bought{{Domain: "b", Agreement: "x", CPUs: 2, From: from, Until: until}}
		a.broker.SetBought(bought)
		var own []soap.EPR
		for range 6 {
			own = append(own, b.submit(t, "sleep 36000", "local"))
		}
		long := a.submit(t, "sleep 36000", "local")
		b.await(t, own[1], bes.Running, "Executing")
		a.await(t, long, bes.Running, "Executing")
		site := func(j soap.EPR) string {
			t.Helper()
			return a.status(t, j).Details.Site
		}
		early := a.submit(t, "sleep 600")
		time.Sleep(time.Minute)
		if s := site(early); s != "local" {
			t.Errorf("before the window it is at %q\n%s", s, a.story(t, early))
		}

		time.Sleep(time.Until(from))
		a.broker.SetBought(bought) // whoever bought says so when the window begins
		var mine []soap.EPR
		for range 3 {
			mine = append(mine, a.submit(t, "sleep 1200;exit 4"))
			time.Sleep(time.Second)
		}
		for _, j := range mine[:2] {
			s := a.await(t, j, bes.Running, "Executing")
			if s.Details.Site != "b" || !strings.Contains(s.Details.Attributes["peer.bought"], "agreement x") {
				t.Errorf("%+v", s.Details)
			}
			if story := a.story(t, j); !strings.Contains(story, "room is bought of the domain b until") {
				t.Error(story)
			}
		}
		if s := site(mine[2]); s != "local" {
			t.Errorf("what does not fit in is at %q\n%s", s, a.story(t, mine[2]))
		}
		if n := b.starts(); n != 4 { // two of its own
			t.Errorf("%d ran at b", n)
		}
		told := false
		guest := as("guest-of-a") // whose they are there
		all, err := b.broker.GetFactoryAttributesDocument(guest)
		if err != nil {
			t.Fatal(err)
		}
		rs, err := b.broker.GetActivityStatuses(guest, &bes.StatusRequest{Activities: all.Activities})
		if err != nil {
			t.Fatal(err)
		}
		for i := range rs {
			told = told || rs[i].Err == nil && rs[i].Status.Details.Attributes["peer.agreement"] == "x"
		}
		if !told {
			t.Error("b does not tell by which agreement a job came")
		}
		// What one leaves is another's.
		for _, j := range mine[:2] {
			if s := a.await(t, j, bes.Finished, ""); *s.Details.ExitStatus != 4 {
				t.Errorf("%+v", s.Details)
			}
		}
		next := a.submit(t, "sleep 36000")
		if s := a.await(t, next, bes.Running, "Executing"); s.Details.Site != "b" {
			t.Errorf("%+v", s.Details)
		}
		// Another gateway that b sold nothing to gets nothing by the agreement's name; nor does a by another's.
		a.broker.SetBought([]broker.Bought{{Domain: "b", Agreement: "y", CPUs: 9, From: from, Until: until}})
		wrong := a.submit(t, "sleep 600")
		time.Sleep(time.Minute)
		if s := a.status(t, wrong); s.Details.Site != "b" || len(s.SubStates) != 1 || s.SubStates[0].Local == "Executing" {
			t.Errorf("by an agreement that is none: %+v\n%s", s, a.story(t, wrong))
		}
		if rs, err := a.broker.TerminateActivities(as("ada"), []soap.EPR{wrong}); err != nil || rs[0].Err != nil {
			t.Fatal(err, rs)
		}
		a.await(t, wrong, bes.Cancelled, "")

		// Afterwards none goes there, and the room is b's own again.
		a.broker.SetBought(bought)
		time.Sleep(time.Until(until))
		a.broker.SetBought(nil)
		b.broker.KeepRoom(nil)
		late := a.submit(t, "sleep 600")
		time.Sleep(time.Minute)
		if s := site(late); s != "local" {
			t.Errorf("after the window it is at %q\n%s", s, a.story(t, late))
		}
		b.await(t, own[2], bes.Running, "Executing")
		if t.Failed() {
			t.Log(a.story(t, next))
		}
	})
}
