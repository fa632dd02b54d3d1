package main

import (
	"fmt"
	"math"
	"strings"
	"time"
	_ "time/tzdata" // zones by name, on hosts that know none

	"github.com/portolan-project/portolan/internal/agreements/purchase"
)

// buyConfig is one entry of buy: a standing order.
type buyConfig struct {
	// Name of the order, unlike those of others; without it, FROM.
	Name string `yaml:"name"`
	// From is the domain of the peer that is to provide it, whose administrator must let us (agreements: true there).
	From string `yaml:"from"`
	// CPUs is how many are wanted.
	CPUs int `yaml:"cpus"`
	// Least is the fewest that would do; without it, all.
	Least int `yaml:"least"`
	// VO whose jobs alone may have the room; without it, all of ours.
	VO string `yaml:"vo"`
	// Daily is a window of each day, such as 08:00-18:00; an end that is not later than the start is of the next day.
	Daily string `yaml:"daily"`
	// Days has the daily window on these days of the week only: mon, tue, wed, thu, fri, sat, sun.
	Days []string `yaml:"days"`
	// Zone is that of daily, such as Europe/Madrid; without it, UTC.
	Zone string `yaml:"zone"`
	// Start of the one window, in place of daily, such as 2026-03-02T08:00:00Z.
	Start time.Time `yaml:"start"`
	// End of that window.
	End time.Time `yaml:"end"`
	// Later is by how much the window may be later than asked for, as a whole; 0.
	Later time.Duration `yaml:"later"`
	// MaxPrice is the most that each window may cost, in the peer's unit, with up to three decimals; without it, any.
	MaxPrice *float64 `yaml:"maxPrice"`
}

// maxOrders bounds the standing orders.
const maxOrders = 200

// orders gives the standing orders, and what is wrong with each, by its number.
func (c *peerConfig) orders() (out []purchase.Order, wrong map[int]string) {
	wrong = map[int]string{}
	names := map[string]bool{}
	for i := range c.Buy {
		o, err := c.Buy[i].order()
		switch {
		case err != nil:
			wrong[i] = sentence(err)
		case names[o.Name]:
			wrong[i] = fmt.Sprintf("there are two orders %q: give each a name of its own", o.Name)
		default:
			names[o.Name] = true
			out = append(out, *o)
		}
	}
	return out, wrong
}

func (b *buyConfig) order() (*purchase.Order, error) {
	o := &purchase.Order{Name: b.Name, Wish: purchase.Wish{
		From: b.From, CPUs: b.CPUs, Least: b.Least, VO: b.VO, Start: b.Start.UTC(), End: b.End.UTC(), Later: b.Later,
	}}
	if o.Name == "" {
		o.Name = b.From
	}
	if b.MaxPrice != nil {
		n, err := priceOf(*b.MaxPrice)
		if err != nil {
			return nil, err
		}
		o.MaxPrice = &n
	}
	switch {
	case b.Daily != "":
		d, err := daily(b.Daily)
		if err != nil {
			return nil, err
		}
		o.Daily = d
		if o.Start, o.End = b.Start, b.End; b.Zone != "" {
			if d.Zone, err = time.LoadLocation(b.Zone); err != nil {
				return nil, fmt.Errorf("zone: %q is no zone: write one like Europe/Madrid", b.Zone)
			}
		}
		for _, day := range b.Days {
			w, ok := weekdays[strings.ToLower(day)]
			if !ok {
				return nil, fmt.Errorf("days: %q is none of mon, tue, wed, thu, fri, sat and sun", day)
			}
			d.Days = append(d.Days, w)
		}
	case len(b.Days) > 0 || b.Zone != "":
		return nil, fmt.Errorf("days and zone go with daily; start and end say it all")
	case b.Start.IsZero() || b.End.IsZero():
		return nil, fmt.Errorf("say for which window: daily, such as 08:00-18:00, or start and end")
	}
	return o, o.Check()
}

var weekdays = map[string]time.Weekday{
	"mon": time.Monday, "tue": time.Tuesday, "wed": time.Wednesday, "thu": time.Thursday, "fri": time.Friday, "sat": time.Saturday, "sun": time.Sunday,
}

// daily reads a window of each day.
func daily(s string) (*purchase.Daily, error) {
	from, to, ok := strings.Cut(s, "-")
	start, ok1 := timeOfDay(from)
	end, ok2 := timeOfDay(to)
	if !ok || !ok1 || !ok2 {
		return nil, fmt.Errorf("daily: %q is no window of a day: write one like 08:00-18:00", s)
	}
	return &purchase.Daily{Start: start, End: end}, nil
}

func timeOfDay(s string) (time.Duration, bool) {
	s = strings.TrimSpace(s)
	if s == "24:00" {
		return 24 * time.Hour, true
	}
	t, err := time.Parse("15:04", s)
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, err == nil && len(s) == 5
}

// priceOf gives a price as purchases count it.
func priceOf(f float64) (int64, error) {
	if math.IsNaN(f) {
		return 0, fmt.Errorf("maxPrice: it is no number")
	}
	if why := exact(f); why != "" {
		return 0, fmt.Errorf("maxPrice: %g %s", f, why)
	}
	return toThousandths(f), nil
}

// checkBuy says what is wrong with the standing orders.
func (c *peerConfig) checkBuy(bad complain) {
	if len(c.Buy) > maxOrders {
		bad([]any{"buy"}, "buy: there are %d orders; %d may be", len(c.Buy), maxOrders)
		return
	}
	_, wrong := c.orders()
	for i := range c.Buy {
		if why := wrong[i]; why != "" {
			bad([]any{"buy", i}, "buy: %s", why)
		}
	}
}
