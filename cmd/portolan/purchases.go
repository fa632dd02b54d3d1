package main

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/agreements/purchase"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/console"
	"github.com/portolan-project/portolan/internal/fail"
	among "github.com/portolan-project/portolan/internal/peering/gateway"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
)

// purchases buys capacity of peers, and has the broker route against it.
type purchases struct {
	buyer  *purchase.Buyer
	permit func(ctx context.Context, op string, p broker.Permission) (soap.Principal, error)
	known  func(domain string) bool
}

var _ console.Purchases = (*purchases)(nil)

// openPurchases makes what buys; dial gives the agreement service of a domain, as our own domain asks it.
func openPurchases(st store.Records, b *broker.Broker, gw *among.Gateway, k *peerKeeper, dial func(ctx context.Context, domain string) (purchase.Provider, error), log *slog.Logger) (*purchases, error) {
	buyer, err := purchase.New(st, purchase.Options{
		Dial: dial, Own: k.gateway.Domain(), Replica: gatewayReplica, Log: log.With("part", "purchases"), Away: gw.Away,
		Tell: func(open []purchase.Open) {
			all := make([]broker.Bought, len(open))
			for i, o := range open {
				all[i] = broker.Bought{Domain: o.Domain, Agreement: o.Agreement, CPUs: o.CPUs, VO: o.VO, From: o.From, Until: o.Until}
			}
			b.SetBought(all)
		},
	})
	if err != nil {
		return nil, err
	}
	k.orders(buyer.SetOrders)
	known := func(domain string) bool {
		for _, m := range k.members() {
			if m.Domain == domain {
				return true
			}
		}
		return false
	}
	return &purchases{buyer: buyer, permit: b.Permit, known: known}, nil
}

// asDomain gives the agreement service of a domain, as our own domain asks it.
func (a *agreements) asDomain(ctx context.Context, domain string) (purchase.Provider, error) {
	c, err := a.door.Dial(ctx, domain, nil)
	if err != nil {
		return nil, err // and not a nil client
	}
	return c, nil
}

// orders says whom to tell of the standing orders: at once, and whenever they change.
func (k *peerKeeper) orders(set func([]purchase.Order)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ordered = set
	orders, _ := k.config.orders() // what is wrong with one was said when it was read
	set(orders)
}

// Purchases implements console.Purchases.
func (p *purchases) Purchases(ctx context.Context) ([]console.Purchase, error) {
	if _, err := p.permit(ctx, "serve.Purchases", broker.Submit); err != nil {
		return nil, err
	}
	all, err := p.buyer.List(ctx)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	out := make([]console.Purchase, 0, len(all))
	for i := range all {
		c := shownPurchase(&all[i], now)
		c.History, c.Outages, c.Entries = nil, nil, nil // which one of them alone shows
		out = append(out, *c)
	}
	return out, nil
}

// Purchase implements console.Purchases.
func (p *purchases) Purchase(ctx context.Context, id string) (*console.Purchase, error) {
	if _, err := p.permit(ctx, "serve.Purchase", broker.Submit); err != nil {
		return nil, err
	}
	r, err := p.buyer.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	return shownPurchase(r, time.Now()), nil
}

// Buy implements console.Purchases.
func (p *purchases) Buy(ctx context.Context, q console.Buy) (*console.Purchase, error) {
	const op = "serve.Buy"
	who, err := p.permit(ctx, op, broker.Manage)
	if err != nil {
		return nil, err
	}
	if !p.known(q.Domain) {
		return nil, noPeerHere(op, q.Domain)
	}
	const most = float64(purchase.MaxLength / time.Second)
	if !(q.Later >= 0 && q.Later <= most) {
		return nil, fail.Errorf(op, fail.Invalid, q.Domain, "later is a number of seconds from 0 to %g", most)
	}
	w := purchase.Wish{From: q.Domain, CPUs: q.CPUs, Least: q.Least, VO: q.VO, Start: q.Start, End: q.End, Later: time.Duration(q.Later * float64(time.Second)).Truncate(time.Second)}
	if q.MaxPrice != nil {
		n, err := priceOf(*q.MaxPrice)
		if err != nil {
			return nil, fail.Errorf(op, fail.Invalid, q.Domain, "%v", err)
		}
		w.MaxPrice = &n
	}
	r, err := p.buyer.Buy(ctx, w, who.Name)
	if err != nil {
		return nil, err
	}
	return shownPurchase(r, time.Now()), nil
}

// Release implements console.Purchases.
func (p *purchases) Release(ctx context.Context, id string) (*console.Purchase, error) {
	who, err := p.permit(ctx, "serve.Release", broker.Manage)
	if err != nil {
		return nil, err
	}
	r, err := p.buyer.Release(ctx, id, who.Name)
	if err != nil {
		return nil, err
	}
	return shownPurchase(r, time.Now()), nil
}

func momentIf(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// priceText writes thousandths.
func priceText(n int64) string {
	s := strconv.FormatInt(n/1000, 10)
	if rest := n % 1000; rest != 0 {
		s += "." + strings.TrimRight(strconv.FormatInt(1000+rest, 10)[1:], "0")
	}
	return s
}

// shownPurchase gives a purchase as the API tells of it.
func shownPurchase(r *purchase.Record, now time.Time) *console.Purchase {
	out := &console.Purchase{
		ID: r.ID, Order: r.Order, By: r.By, Domain: r.From, CPUs: r.CPUs, Least: r.Least, VO: r.VO, Start: r.Start, End: r.End, State: string(r.State), Reason: r.Reason,
		Open:      r.State == purchase.Bought && !now.Before(r.Opens) && now.Before(r.Closes),
		Agreement: r.Agreement, Unit: r.Unit, Unusable: r.Unusable(now).Seconds(),
	}
	if r.MaxPrice != nil {
		out.MaxPrice = priceText(*r.MaxPrice)
	}
	if r.Agreement != "" {
		out.Room, out.Opens, out.Closes, out.Price = r.Room, momentIf(r.Opens), momentIf(r.Closes), priceText(r.Price)
	}
	for _, o := range r.Outages {
		out.Outages = append(out.Outages, console.PurchaseOutage{From: o.From, Until: momentIf(o.Until), Why: o.Why})
	}
	for i := range r.Entries {
		e := &r.Entries[i]
		out.Entries = append(out.Entries, console.PurchaseEntry{At: e.Time, Kind: string(e.Kind), Amount: e.Amount.String(), Unit: e.Unit, Evidence: e.Evidence})
	}
	for _, l := range r.History {
		out.History = append(out.History, console.PurchaseLine{At: l.Time, Event: l.Event, State: string(l.State), Reason: l.Reason})
	}
	return out
}
