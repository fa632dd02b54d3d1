package main

import (
	"strings"
	"testing"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/portolan-project/portolan/internal/agreements/purchase"
)

func TestStandingOrders(t *testing.T) {
	for _, c := range []struct{ entry, want string }{
		{"{from: fiu.example, cpus: 64, daily: 08:00-18:00}", ""},
		{"{name: days, from: fiu.example, cpus: 64, least: 16, vo: bio, daily: 22:00-06:00, days: [mon, Tue], zone: UTC, later: 1h, maxPrice: 12.5}", ""},
		{"{from: fiu.example, cpus: 64, daily: 00:00-24:00}", ""},
		{"{from: fiu.example, cpus: 1, start: 2026-03-02T08:00:00Z, end: 2026-03-02T12:00:00Z}", ""}, // long ago, and no mistake
		{"{cpus: 64, daily: 08:00-18:00}", "an order needs a name"},
		{"{from: fiu.example, daily: 08:00-18:00}", "0 CPUs"},
		{"{from: fiu.example, cpus: 4}", "say for which window"},
		{"{from: fiu.example, cpus: 4, start: 2026-03-02T08:00:00Z}", "say for which window"},
		{"{from: fiu.example, cpus: 4, start: 2026-03-02T08:00:00Z, end: 2026-03-02T08:00:00Z}", "end after"},
		{"{from: fiu.example, cpus: 4, daily: 8:00-18:00}", "write one like 08:00-18:00"},
		{"{from: fiu.example, cpus: 4, daily: 08:00}", "write one like 08:00-18:00"},
		{"{from: fiu.example, cpus: 4, daily: 08:00-25:00}", "write one like 08:00-18:00"},
		{"{from: fiu.example, cpus: 4, daily: 08:00-08:00}", "must not be empty"},
		{"{from: fiu.example, cpus: 4, daily: 24:00-08:00}", "times of a day"},
		{"{from: fiu.example, cpus: 4, daily: 08:00-09:00, start: 2026-03-02T08:00:00Z}", "or for one window"},
		{"{from: fiu.example, cpus: 4, daily: 08:00-09:00, days: [friday]}", "none of mon"},
		{"{from: fiu.example, cpus: 4, daily: 08:00-09:00, zone: Mars/Base}", "no zone"},
		{"{from: fiu.example, cpus: 4, days: [mon], start: 2026-03-02T08:00:00Z, end: 2026-03-02T12:00:00Z}", "go with daily"},
		{"{from: fiu.example, cpus: 4, least: 5, daily: 08:00-09:00}", "at least 5"},
		{"{from: fiu.example, cpus: 4, later: -1h, daily: 08:00-09:00}", "later"},
		{"{from: fiu.example, cpus: 4, maxPrice: -1, daily: 08:00-09:00}", "is negative"},
		{"{from: fiu.example, cpus: 4, maxPrice: 0.0001, daily: 08:00-09:00}", "three decimals"},
		{"{from: fiu.example, cpus: 4, maxPrice: .nan, daily: 08:00-09:00}", "no number"},
	} {
		var p peerConfig
		if err := yaml.Unmarshal([]byte("buy:\n- "+c.entry+"\n"), &p); err != nil {
			t.Fatal(c.entry, err)
		}
		orders, wrong := p.orders()
		if (len(orders) == 1) != (c.want == "") || !strings.Contains(wrong[0], c.want) {
			t.Errorf("%s: %+v %v; want %q", c.entry, orders, wrong, c.want)
		}
	}
	var p peerConfig
	if err := yaml.Unmarshal([]byte("buy:\n- {from: fiu.example, cpus: 64, least: 16, daily: 08:00-18:30, maxPrice: 12.5}\n- {from: fiu.example, cpus: 1, daily: 08:00-18:00}\n"), &p); err != nil {
		t.Fatal(err)
	}
	orders, wrong := p.orders()
	if len(orders) != 1 || !strings.Contains(wrong[1], "two orders") {
		t.Errorf("%+v %v", orders, wrong)
	}
	o := orders[0]
	if o.Name != "fiu.example" || o.Least != 16 || *o.MaxPrice != 12_500 || o.Daily.Start != 8*time.Hour || o.Daily.End != 18*time.Hour+30*time.Minute {
		t.Errorf("%+v", o)
	}
}

// TestShownPurchase: what is told of a purchase is what it is.
func TestShownPurchase(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 1: "0.001", 10: "0.01", 1000: "1", 12_500: "12.5", 1_000_010: "1000.01"} {
		if got := priceText(n); got != want {
			t.Errorf("%d: %s", n, got)
		}
	}
	at, most := time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC), int64(20_000)
	r := &purchase.Record{
		ID: "x", Wish: purchase.Wish{From: "fiu.example", CPUs: 64, Start: at, End: at.Add(time.Hour), MaxPrice: &most}, State: purchase.Bought,
		Agreement: "a", Room: 48, Opens: at, Closes: at.Add(time.Hour), Price: 12_500, Unit: "credit", Outages: []purchase.Outage{{From: at.Add(time.Minute), Why: "away"}},
	}
	for after, open := range map[time.Duration]bool{-1: false, 0: true, time.Hour - 1: true, time.Hour: false} {
		p := shownPurchase(r, at.Add(after))
		if p.Open != open || p.Room != 48 || p.Price != "12.5" || p.MaxPrice != "20" || len(p.Outages) != 1 || p.Outages[0].Until != nil {
			t.Errorf("%+v", p)
		}
	}
	if p := shownPurchase(r, at.Add(3*time.Minute)); p.Unusable != 120 {
		t.Errorf("%g", p.Unusable)
	}
}
