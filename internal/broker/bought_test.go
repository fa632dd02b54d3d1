package broker

import (
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/resourcemodel"
)

func TestRoomOf(t *testing.T) {
	promise, foreign := &store.Promise{Agreement: "p", Room: "p/0"}, &store.Foreign{From: "home", Agreement: "f"}
	for want, st := range map[string]store.Status{
		"":                                {Placement: &store.Placement{Site: "own"}},
		"p/0":                             {Promise: promise, Placement: &store.Placement{Site: "own"}},
		schedule.BoughtRoom("home", "f"):  {Foreign: foreign, Placement: &store.Placement{Site: "own"}},
		schedule.BoughtRoom("far", "b"):   {Placement: &store.Placement{Site: "far", Bought: "b"}},
		schedule.BoughtRoom("far", "b2"):  {Foreign: foreign, Placement: &store.Placement{Site: "far", Bought: "b2"}},
		schedule.BoughtRoom("far2", "b3"): {Promise: promise, Placement: &store.Placement{Site: "far2", Bought: "b3"}},
	} {
		if got := roomOf(&st); got != want {
			t.Errorf("%+v: %q; want %q", st, got, want)
		}
	}
}

// TestBoughtNow: what is ours is ours from the beginning to the end of its window, of its own domain only, and
// what is over first is used first.
func TestBoughtNow(t *testing.T) {
	at := time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)
	b := &Broker{}
	b.far.bought = []Bought{
		{Domain: "fiu", Agreement: "late", CPUs: 2, From: at, Until: at.Add(2 * time.Hour)},
		{Domain: "fiu", Agreement: "soon", CPUs: 1, VO: "bio", From: at.Add(time.Minute), Until: at.Add(time.Hour)},
		{Domain: "bsc", Agreement: "other", CPUs: 4, From: at, Until: at.Add(time.Hour)},
	}
	for after, want := range map[time.Duration]string{-1: "", 0: "late ", time.Minute: "soon late ", time.Hour - 1: "soon late ", time.Hour: "late ", 2 * time.Hour: ""} {
		got := ""
		for _, x := range b.boughtOf("fiu", at.Add(after)) {
			got += x.Agreement + " "
		}
		if got != want {
			t.Errorf("after %s: %q; want %q", after, got, want)
		}
	}
}

// TestAgreedNow: a job is agreed on while the room is held for its own domain by that agreement.
func TestAgreedNow(t *testing.T) {
	at := time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)
	sched, err := schedule.New(schedule.Options{Places: schedule.NewPlaces(resourcemodel.Empty()), Catalogue: schedule.BuiltIn()})
	if err != nil {
		t.Fatal(err)
	}
	b := &Broker{sched: sched}
	sched.SetHolds([]schedule.Hold{
		{ID: "a/0", Agreement: "a", ForDomain: "fiu", From: at, Until: at.Add(time.Hour)},
		{ID: "b/0", Agreement: "b", VO: "bio", ForVO: true, From: at, Until: at.Add(time.Hour)},
	})
	for _, c := range []struct {
		domain, agreement string
		after             time.Duration
		want              bool
	}{
		{"fiu", "a", 0, true},
		{"fiu", "a", -1, false},
		{"fiu", "a", time.Hour, false},
		{"bsc", "a", 0, false},
		{"fiu", "b", 0, false},
		{"", "b", 0, false},
		{"fiu", "", 0, false},
	} {
		if got := b.agreed(c.domain, c.agreement, at.Add(c.after)); got != c.want {
			t.Errorf("%+v", c)
		}
	}
}
