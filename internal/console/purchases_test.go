package console_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/console"
	"github.com/portolan-project/portolan/internal/fail"
)

const wanted = `{"domain":"fiu.example","cpus":64,"least":32,"vo":"bio","start":"2026-03-02T08:00:00Z","end":"2026-03-02T18:00:00Z","later":3600,"maxPrice":12.5}`

// shop has one purchase, whose id is known, and one that is over.
type shop struct{}

func (shop) one() *console.Purchase {
	at := time.Date(2026, 3, 2, 8, 0, 0, 0, time.UTC)
	end := at.Add(10 * time.Hour)
	return &console.Purchase{
		ID: known, Order: "days", By: "ada", Domain: "fiu.example", CPUs: 64, Least: 32, VO: "bio", Start: at, End: end, MaxPrice: "12.5", State: "bought", Reason: "it is ours", Open: true,
		Agreement: "a1", Room: 48, Opens: &at, Closes: &end, Price: "12", Unit: "credit", Unusable: 90,
		Outages: []console.PurchaseOutage{{From: at, Until: &end, Why: "it is away"}, {From: at, Why: "again"}},
		Entries: []console.PurchaseEntry{{At: end, Kind: "price", Amount: "12", Unit: "credit", Evidence: "for the agreement"}},
		History: []console.PurchaseLine{{At: at, Event: "wished", State: "asking", Reason: "ada wants it"}},
	}
}

func (s shop) Purchases(context.Context) ([]console.Purchase, error) {
	return []console.Purchase{*s.one()}, nil
}

func (s shop) Purchase(_ context.Context, id string) (*console.Purchase, error) {
	if id != known {
		return nil, fail.Errorf("shop", fail.NotFound, id, "there is no purchase %q", id)
	}
	return s.one(), nil
}

func (s shop) Buy(_ context.Context, b console.Buy) (*console.Purchase, error) {
	if b.CPUs != 64 || b.Least != 32 || b.VO != "bio" || b.Later != 3600 || b.MaxPrice == nil || *b.MaxPrice != 12.5 || b.End.Sub(b.Start) != 10*time.Hour {
		return nil, fail.Errorf("shop", fail.Invalid, "", "something of the wish was lost on the way")
	}
	return s.one(), nil
}

func (s shop) Release(ctx context.Context, id string) (*console.Purchase, error) {
	if id == "over" {
		return nil, fail.Errorf("shop", fail.Conflict, id, "it is over")
	}
	return s.Purchase(ctx, id)
}

func TestPurchasesAreRefused(t *testing.T) {
	none, h := serve(gateway{}, console.Options{}), serve(gateway{}, console.Options{Purchases: shop{}})
	one := strings.ReplaceAll(console.PurchasePath, "{id}", known)
	for _, c := range []struct {
		h                  http.Handler
		method, path, body string
		code               int
		want               string
	}{
		{none, http.MethodGet, console.PurchasesPath, "", 400, "buys nothing"},
		{none, http.MethodPost, console.PurchasesPath, wanted, 400, "buys nothing"},
		{none, http.MethodGet, one, "", 400, "buys nothing"},
		{none, http.MethodDelete, one, "", 400, "buys nothing"},
		{h, http.MethodPost, console.PurchasesPath, "{}", 400, "domain"},
		{h, http.MethodPost, console.PurchasesPath, `{"domain":"fiu.example","cpu":1}`, 400, "domain, cpus, start and end"},
		{h, http.MethodGet, one + "x", "", 404, "no purchase"},
	} {
		code, body, _ := send(t, c.h, c.method, c.path, c.body)
		if code != c.code || !strings.Contains(body, c.want) {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, code, body)
		}
	}
}
