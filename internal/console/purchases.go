package console

import (
	"context"
	"net/http"
	"time"

	"github.com/gorilla/mux"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/discovery"
)

const (
	// PurchasesPath has the capacity that was bought of other domains: GET lists it, POST buys some.
	PurchasesPath = "/api/v1/purchases"
	// PurchasePath is one of them: GET shows it, DELETE gives it back.
	PurchasePath = "/api/v1/purchases/{id}"
)

// Purchases is what the API needs of what buys capacity of other domains. Each method finds who
// asks in the context (soap.PrincipalFrom) and gives fail.Denied to one who may not; Buy and Release
// need the right to manage.
type Purchases interface {
	// Purchases lists those that are kept, those whose window begins first first.
	Purchases(context.Context) ([]Purchase, error)
	// Purchase gives one; fail.NotFound if there is none.
	Purchase(ctx context.Context, id string) (*Purchase, error)
	// Buy begins one, and gives it when it is written down; what comes of it is seen in its state.
	Buy(context.Context, Buy) (*Purchase, error)
	// Release has one given back. The same again changes nothing; fail.Conflict is one that is over.
	Release(ctx context.Context, id string) (*Purchase, error)
}

// Buy is what POST takes.
type Buy struct {
	Domain   string    `json:"domain"`
	CPUs     int       `json:"cpus"`
	Least    int       `json:"least,omitempty"` // the fewest CPUs that would do; cpus without it
	VO       string    `json:"vo,omitempty"`    // whose jobs alone may have it; all of ours without it
	Start    time.Time `json:"start"`
	End      time.Time `json:"end"`
	Later    float64   `json:"later,omitempty"`    // seconds by which the window may be later
	MaxPrice *float64  `json:"maxPrice,omitempty"` // in the domain's unit; no bound without it
}

// Purchase is capacity of another domain that was wanted, and what came of it.
type Purchase struct {
	ID       string    `json:"id"`
	Order    string    `json:"order,omitempty"` // the standing order that it is of
	By       string    `json:"by,omitempty"`    // who asked for it
	Domain   string    `json:"domain"`
	CPUs     int       `json:"cpus"` // that were wanted
	Least    int       `json:"least,omitempty"`
	VO       string    `json:"vo,omitempty"`
	Start    time.Time `json:"start"`
	End      time.Time `json:"end"`
	MaxPrice string    `json:"maxPrice,omitempty"`
	State    string    `json:"state"` // asking, preparing, confirming, bought, releasing or settling; ended, released, refused or lost
	Reason   string    `json:"reason,omitempty"`
	Open     bool      `json:"open"` // it can be used now

	Agreement string     `json:"agreement,omitempty"` // of the domain, by which it was bought
	Room      int        `json:"room,omitempty"`      // CPUs
	Opens     *time.Time `json:"opens,omitempty"`
	Closes    *time.Time `json:"closes,omitempty"`
	Price     string     `json:"price,omitempty"` // the most that it costs
	Unit      string     `json:"unit,omitempty"`

	Unusable float64          `json:"unusable,omitempty"` // seconds in which it was ours and could not be used
	Outages  []PurchaseOutage `json:"outages,omitempty"`
	Entries  []PurchaseEntry  `json:"entries,omitempty"` // of the ledger: above zero is owed to the domain
	History  []PurchaseLine   `json:"history,omitempty"`
}

// PurchaseOutage is a time in which what was bought could not be used.
type PurchaseOutage struct {
	From  time.Time  `json:"from"`
	Until *time.Time `json:"until,omitempty"` // without it, it goes on
	Why   string     `json:"why"`
}

// PurchaseEntry is one of the ledger.
type PurchaseEntry struct {
	At       time.Time `json:"at"`
	Kind     string    `json:"kind"`
	Amount   string    `json:"amount"` // a decimal number
	Unit     string    `json:"unit"`
	Evidence string    `json:"evidence,omitempty"`
}

// PurchaseLine is one of the history.
type PurchaseLine struct {
	At     time.Time `json:"at"`
	Event  string    `json:"event"`
	State  string    `json:"state"`
	Reason string    `json:"reason,omitempty"`
}

// PurchaseList answers GET.
type PurchaseList struct {
	Purchases []Purchase `json:"purchases"`
}

func (a *api) buyer() (Purchases, error) {
	if a.options.Purchases == nil {
		return nil, fail.Errorf("console", fail.Unsupported, "", "this gateway buys nothing: it needs a domain, a peer section in its configuration, and agreements that are not off")
	}
	return a.options.Purchases, nil
}

func (a *api) purchases(r *http.Request) (any, error) {
	b, err := a.buyer()
	if err != nil {
		return nil, err
	}
	all, err := b.Purchases(r.Context())
	if err != nil {
		return nil, err
	}
	return PurchaseList{append([]Purchase{}, all...)}, nil
}

func (a *api) purchase(r *http.Request) (any, error) {
	b, err := a.buyer()
	if err != nil {
		return nil, err
	}
	return b.Purchase(r.Context(), mux.Vars(r)["id"])
}

func (a *api) buy(r *http.Request) (any, error) {
	b, err := a.buyer()
	if err != nil {
		return nil, err
	}
	var q Buy
	if err := decode(r, &q, "domain, cpus, start and end"); err != nil {
		return nil, err
	}
	if err := discovery.CheckDomain(q.Domain); err != nil {
		return nil, err
	}
	return b.Buy(r.Context(), q)
}

func (a *api) release(r *http.Request) (any, error) {
	b, err := a.buyer()
	if err != nil {
		return nil, err
	}
	return b.Release(r.Context(), mux.Vars(r)["id"])
}
