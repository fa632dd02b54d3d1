package purchase

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

// Order is a standing order: capacity that is wanted once, or each day.
type Order struct {
	Name string
	Wish // of a daily order, without Start and End
	// Daily has the window begin and end at these times of each day, in Zone; an End that is not
	// later than Start is of the next day. Zero is that the order is for Wish's window.
	Daily *Daily
}

// Daily is a window of each day.
type Daily struct {
	Start, End time.Duration // since midnight
	Days       []time.Weekday
	Zone       *time.Location // nil is UTC
}

const day = 24 * time.Hour

// Check gives fail.Invalid for an order that can't be meant.
func (o *Order) Check() error {
	bad := func(format string, args ...any) error {
		return fail.Errorf("purchase.Order", fail.Invalid, o.Name, format, args...)
	}
	w := o.Wish
	d := o.Daily
	switch {
	case o.Name == "" || len(o.Name) > MaxName:
		return bad("an order needs a name of 1 to %d bytes", MaxName)
	case d == nil:
		return w.Check(w.Start) // one that is over is no mistake: it is not asked for
	case !w.Start.IsZero() || !w.End.IsZero():
		return bad("an order is for each day, or for one window from start to end")
	case d.Start < 0 || d.Start >= day || d.End < 0 || d.End > day || d.End == d.Start:
		return bad("the times of a day are from 00:00 to 24:00, and the window must not be empty")
	}
	w.Start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	w.End = w.Start.Add(time.Hour)
	return w.Check(w.Start)
}

// windows gives the windows of an order that are not over, and begin no later than a moment.
func (o *Order) windows(now, until time.Time) (out []Wish) {
	add := func(from, to time.Time) {
		w := o.Wish
		w.Start, w.End = from.UTC(), to.UTC()
		if w.last().After(now) && !w.Start.After(until) && w.End.After(w.Start) {
			out = append(out, w)
		}
	}
	d := o.Daily
	if d == nil {
		add(o.Start, o.End)
		return out
	}
	zone := d.Zone
	if zone == nil {
		zone = time.UTC
	}
	// By the clock on the wall: a day may have 23 hours, or 25. A time that it skips, as midnight is in some
	// zones, is when it does; noon is of each day.
	at := func(noon time.Time, t time.Duration) time.Time {
		y, m, dd := noon.Date()
		clock := func(zone *time.Location) time.Time {
			return time.Date(y, m, dd, int(t/time.Hour), int(t%time.Hour/time.Minute), int(t%time.Minute/time.Second), 0, zone)
		}
		is, want := clock(zone), clock(time.UTC)
		_, offset := is.Zone()
		from, until := is.ZoneBounds()
		switch wall := is.Add(time.Duration(offset) * time.Second); { // there is no such time if it is another
		case wall.Before(want):
			return until
		case wall.After(want):
			return from
		}
		return is
	}
	y, m, dd := now.In(zone).Date()
	for k := -2; ; k++ {
		noon := time.Date(y, m, dd+k, 12, 0, 0, 0, zone)
		if k > 0 && at(noon, 0).After(until) {
			return out
		}
		if len(d.Days) > 0 && !slices.Contains(d.Days, noon.Weekday()) {
			continue
		}
		end := d.End
		if end <= d.Start {
			end += day
		}
		add(at(noon, d.Start), at(noon, end))
	}
}

// SetOrders puts standing orders in force in place of those before. What was bought for others stays
// bought.
func (b *Buyer) SetOrders(orders []Order) {
	b.mu.Lock()
	b.orders = slices.Clone(orders)
	b.mu.Unlock()
	nudge(b.news)
}

// orderEvery is how often it is looked at least whether an order's window has come near.
const orderEvery = time.Minute

func (b *Buyer) orderLoop(ctx context.Context) {
	full, again := false, time.Second
	for ctx.Err() == nil {
		wait := orderEvery
		switch err := b.order(ctx); {
		case err == nil:
			full, again = false, time.Second
		case fail.Is(err, fail.Exhausted):
			if !full {
				b.o.Log.Warn("more is ordered of other domains than may be under way; it is asked for when there is room", "cause", err)
			}
			full, again = true, time.Second
		case ctx.Err() == nil:
			b.o.Log.Warn("what is ordered of other domains can't be written down now; it is tried again", "cause", err)
			wait, again = again, min(2*again, orderEvery)
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-b.news:
		case <-ctx.Done():
		}
		t.Stop()
	}
}

// order begins a purchase for each window of the orders that is near, and that has none. What fails of one
// is nothing to the others; the error is of the last that failed, and of one that did not for want of room if
// there is any.
func (b *Buyer) order(ctx context.Context) error {
	b.mu.Lock()
	orders := b.orders
	b.mu.Unlock()
	now := b.now()
	var failed error
	for i := range orders {
		o := &orders[i]
		for _, w := range o.windows(now, now.Add(b.o.Ahead)) {
			err := b.orderWindow(ctx, o, w)
			if ctx.Err() != nil {
				return err
			}
			if err != nil && (failed == nil || !fail.Is(err, fail.Exhausted)) {
				failed = err
			}
		}
	}
	return failed
}

// orderWindow begins a purchase for a window of an order, unless there is one.
func (b *Buyer) orderWindow(ctx context.Context, o *Order, w Wish) error {
	id := o.purchase(&w)
	if there, err := b.read(ctx, id); err != nil || there != nil {
		return err
	}
	_, err := b.begin(ctx, &Record{ID: id, Order: o.Name, Wish: w})
	if fail.Is(err, fail.Conflict) { // another replica was faster
		return nil
	}
	return err
}

// purchase gives the id of the purchase for a window: the same at each replica, and each time.
func (o *Order) purchase(w *Wish) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{o.Name, w.From, stamp(w.Start), stamp(w.End)}, "\x00")))
	return "order-" + w.Start.UTC().Format("20060102T1504") + "-" + hex.EncodeToString(sum[:8])
}
