package main

import (
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/console"
)

func TestMomentOf(t *testing.T) {
	zone := time.FixedZone("", 3600)
	now := time.Date(2026, 3, 2, 15, 0, 0, 0, zone)
	for text, want := range map[string]string{
		"90m":                      "2026-03-02T13:30:00+01:00",
		"0s":                       "2026-03-02T15:00:00+01:00",
		"2026-01-31T18:00:00.5Z":   "2026-01-31T18:00:00.5Z",
		"2026-01-31T18:00:00":      "2026-01-31T18:00:00+01:00",
		"2026-01-31 18:00":         "2026-01-31T18:00:00+01:00",
		"2026-01-31":               "2026-01-31T00:00:00+01:00",
		"14:03":                    "2026-03-02T14:03:00+01:00",
		"14:03:09":                 "2026-03-02T14:03:09+01:00",
		"2026-01-31T18:00:00+05:0": "",
		"-5m":                      "",
		"noon":                     "",
		"":                         "",
		"25:00":                    "",
	} {
		got, err := momentOf(text, now)
		if want == "" {
			if err == nil {
				t.Errorf("%q is taken for %s", text, got)
			}
			continue
		}
		if err != nil || got.Format(time.RFC3339Nano) != want {
			t.Errorf("%q: %s, %v; want %s", text, got.Format(time.RFC3339Nano), err, want)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "", -1: "", 1: "1.0 B", 1023: "1023 B", 1536: "1.5 KiB", 25276063744: "24 GiB", 1 << 62: "4.0 EiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

// What holds in a scope is its own, else the gateway's; shadows apart.
func TestHolding(t *testing.T) {
	all := []console.Policy{
		{Scope: "gateway", Kind: policy.Scheduling, Setting: "fifo"},
		{Scope: "gateway", Kind: policy.Selection, Setting: "first-fit"},
		{Scope: "gateway", Kind: policy.Selection, Setting: "cheapest", Shadow: true},
		{Scope: "queue:a", Kind: policy.Scheduling, Setting: "edf"},
		{Scope: "vo:b", Kind: policy.Selection, Setting: "best-fit"},
		{Scope: "vo:b", Kind: policy.Scheduling, Setting: "realtime", Shadow: true},
	}
	for scope, want := range map[schedule.Scope]string{
		"gateway": "fifo first-fit cheapest ",
		"queue:a": "edf first-fit cheapest ",
		"vo:b":    "fifo realtime best-fit cheapest ",
		"vo:none": "fifo first-fit cheapest ",
	} {
		got := ""
		for _, p := range holding(all, scope) {
			got += p.Setting + " "
		}
		if got != want {
			t.Errorf("%s: %q, want %q", scope, got, want)
		}
	}
}

func TestSwapped(t *testing.T) {
	got, err := swapped([]string{"selection=best-fit{gpu=2}", "scheduling=edf"})
	if err != nil || len(got) != 2 || got[policy.Selection].String() != "best-fit{gpu=2}" {
		t.Errorf("%v, %v", got, err)
	}
	for _, list := range [][]string{{"selection"}, {"selection="}, {"order=fifo"}, {"scheduling=best-fit"}, {"scheduling=fifo", "scheduling=edf"}, {"replication=wqr"}, {"selection=best-fit{cpu=-1}"}} {
		if got, err := swapped(list); err == nil {
			t.Errorf("%v is taken: %v", list, got)
		}
	}
}
