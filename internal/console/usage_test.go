package console_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/internal/agreements/ledger"
	"github.com/portolan-project/portolan/internal/console"
)

// accounts has one agreement that was settled.
type accounts struct{}

func (accounts) Usage(_ context.Context, q ledger.Query) (*ledger.Page, error) {
	if err := q.Check(); err != nil {
		return nil, err
	}
	if q.Before != "" {
		return &ledger.Page{Agreements: []ledger.Settled{}}, nil
	}
	at := time.Date(2026, 1, 15, 12, 0, 0, 0, time.UTC)
	return &ledger.Page{Next: "a1", Agreements: []ledger.Settled{{
		Agreement: "a1", Name: "mine", VO: "bio", User: "ada", Status: "Completed", Ended: at,
		Jobs:    []ledger.SettledJob{{Job: known, Status: "Completed", Site: "here", Share: "batch", CPUs: 2, Begun: at.Add(-time.Hour), Ended: at, Wall: time.Hour}},
		Amounts: []ledger.SettledAmount{{Kind: ledger.Penalty, Unit: "credit", Amount: "-7.5", Job: known}},
	}}}, nil
}

func TestNoUsageWithoutAgreements(t *testing.T) {
	h := serve(gateway{}, console.Options{})
	if code, body, _ := ask(t, h, http.MethodGet, console.UsagePath); code != http.StatusNotFound || !strings.Contains(body, "agreements.off") {
		t.Errorf("%d: %s", code, body)
	}
}
