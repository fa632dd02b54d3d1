package negotiator_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/calendar"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/agreements/negotiator"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store/faulty"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// limits is what an offer's constraints let, in numbers of our own.
type limits struct {
	cpus, start  bool // may be changed
	low, high    int64
	optional     bool // of the CPUs
	from         int  // the earliest start
	site         bool
	sites        []string
	asked        int64
	at           string
	hour, length int
}

func drawOffer(t *rapid.T, w *world, id string) (agreement.NegotiationOffer, limits) {
	l := limits{
		asked: rapid.Int64Range(1, 20).Draw(t, "asked"), at: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "at"),
		hour: rapid.IntRange(1, 10).Draw(t, "hour"), length: rapid.IntRange(1, 3).Draw(t, "for"),
		cpus: rapid.Bool().Draw(t, "cpus may change"), start: rapid.Bool().Draw(t, "start may change"), site: rapid.Bool().Draw(t, "site may change"),
		low: rapid.Int64Range(1, 10).Draw(t, "low"), optional: rapid.Bool().Draw(t, "optional"), from: rapid.IntRange(1, 14).Draw(t, "from"),
	}
	l.high = l.low + rapid.Int64Range(0, 10).Draw(t, "high")
	l.sites = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 3, rapid.ID[string]).Draw(t, "sites")
	var items []agreement.NegotiationItem
	if l.cpus {
		typ := agreement.Required
		if l.optional {
			typ = agreement.Optional
		}
		items = append(items, may("CPUs", typ, 2, "minInclusive="+strconv.FormatInt(l.low, 10), "maxInclusive="+strconv.FormatInt(l.high, 10)))
	}
	if l.start {
		items = append(items, may("StartTime", agreement.Required, 0, "minInclusive="+w.in(l.from).Format(time.RFC3339)), may("EndTime", agreement.Required, 0))
	}
	if l.site {
		var values []string
		for _, s := range l.sites {
			values = append(values, "enumeration="+s)
		}
		items = append(items, may("Site", agreement.Required, 0, values...))
	}
	o := w.asked(l.at, l.asked, l.hour, l.length, items...)
	o.OfferID = id
	o.OfferContext.State = rapid.SampledFrom([]agreement.OfferState{agreement.Advisory, agreement.Solicited, agreement.Acceptable}).Draw(t, "state")
	return o, l
}

// check holds a counter offer against the limits.
func (l *limits) check(w *world, o, a *agreement.NegotiationOffer) error {
	if err := o.OfferContext.State.Answer(a.OfferContext.State); err != nil {
		return err
	}
	if a.OfferContext.CounterOfferTo != o.OfferID {
		return fmt.Errorf("it answers %q", a.OfferContext.CounterOfferTo)
	}
	if a.OfferContext.State == agreement.OfferRejected {
		if a.OfferContext.Reason() == "" {
			return errors.New("it does not say why")
		}
		return nil
	}
	site, cpus, from, until := w.booked(&a.Agreement)
	asIs := site == l.at && cpus == l.asked && from.Equal(w.in(l.hour))
	switch {
	case until.Sub(from) != time.Duration(l.length)*time.Hour:
		return fmt.Errorf("it is for %s", until.Sub(from))
	case asIs: // what is asked for may break what its own constraints say
		return nil
	case cpus != l.asked && !l.cpus, cpus > l.asked:
		return fmt.Errorf("%d CPUs", cpus)
	case l.cpus && !l.optional && (cpus < l.low || cpus > l.high):
		return fmt.Errorf("%d CPUs, not %d to %d", cpus, l.low, l.high)
	case !from.Equal(w.in(l.hour)) && !l.start, from.Before(w.in(l.hour)):
		return fmt.Errorf("from %s", from)
	case l.start && from.Before(w.in(l.from)):
		return fmt.Errorf("from %s, before %s", from, w.in(l.from))
	case site != l.at && !l.site, l.site && !slices.Contains(l.sites, site):
		return fmt.Errorf("at %s", site)
	}
	// It could be kept: as an agreement of its own.
	p, err := w.plan.Plan(w.ctx, offerOf(a))
	if err == nil {
		_, _, err = w.engine.Quote(w.ctx, "bio", p.Alternatives)
	}
	return err
}

func offerOf(a *agreement.NegotiationOffer) *agreement.Offer {
	o := a.Offer()
	return &o
}

// TestCounterOffersKeepToTheConstraints: whatever is held of the sites and whatever is
// asked for, a counter offer changes only what it may, to what it may, and could be kept;
// an offer that could be kept as it is comes back as it is; and nothing is bound (N1, N3).
func TestCounterOffersKeepToTheConstraints(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, negotiator.Options{})
			for k := range rapid.IntRange(0, 6).Draw(rt, "held") {
				from := rapid.IntRange(1, 12).Draw(rt, "held from")
				cpus := rapid.Int64Range(1, 8).Draw(rt, "held CPUs")
				p := engine.Proposal{ID: fmt.Sprint("x", k), Owner: "CN=other", Document: []byte("x"), Alternatives: []engine.Plan{{Holds: []calendar.Hold{{ID: "0", Pool: rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "held at"), Amount: calendar.Amount{CPUs: cpus}, From: w.in(from), Until: w.in(from + rapid.IntRange(1, 4).Draw(rt, "held for"))}}}}}
				if _, err := w.engine.Propose(w.ctx, p); err != nil && !fail.Is(err, fail.Exhausted) {
					rt.Fatal(err)
				}
			}
			others := len(w.engine.Live())
			key := w.initiate()
			for k := range rapid.IntRange(1, 4).Draw(rt, "offers") {
				o, l := drawOffer(rt, w, fmt.Sprint("o", k))
				p, err := w.plan.Plan(w.ctx, offerOf(&o))
				if err != nil {
					rt.Fatal(err)
				}
				_, _, could := w.engine.Quote(w.ctx, "bio", p.Alternatives)
				answers, err := w.n.Negotiate(w.ctx, key, []agreement.NegotiationOffer{o})
				if err != nil || len(answers) == 0 || len(answers) > 3 {
					rt.Fatalf("%d answers, %v", len(answers), err)
				}
				for i := range answers {
					if err := l.check(w, &o, &answers[i]); err != nil {
						rt.Fatalf("%+v: %v", l, err)
					}
					again, err := agreement.DecodeNegotiationOffer(answers[i].Encode())
					if err != nil {
						rt.Fatal(err)
					}
					if rejected := again.OfferContext.State == agreement.OfferRejected; could == nil && (rejected || len(answers) != 1 || !bytes.Equal(xmldoc.Marshal(offerOf(again).Encode()), xmldoc.Marshal(offerOf(&o).Encode()))) {
						rt.Fatalf("%+v could be kept as it is", l)
					}
				}
			}
			if n := len(w.engine.Live()); n != others || len(w.live()) > 0 {
				rt.Fatalf("%d agreements came of a negotiation", n-others)
			}
		})
	})
}

// TestFewerIsTheMost: what is offered where CPUs alone may be less is the most that there
// is.
func TestFewerIsTheMost(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, negotiator.Options{})
			held, low := rapid.Int64Range(1, 8).Draw(rt, "held"), rapid.Int64Range(1, 9).Draw(rt, "low")
			w.fill("x", "a", held, 1, 5)
			asked := rapid.Int64Range(9-held, 400).Draw(rt, "asked")
			a := w.negotiate(w.initiate(), w.asked("a", asked, 2, 2, may("CPUs", agreement.Required, 0, "minInclusive="+strconv.FormatInt(low, 10))))[0]
			if 8-held < low {
				if a.OfferContext.State != agreement.OfferRejected {
					rt.Fatalf("%+v", a.OfferContext)
				}
				return
			}
			if a.OfferContext.State != agreement.Acceptable {
				rt.Fatal(a.OfferContext.Reason())
			}
			if _, cpus, _, _ := w.booked(&a.Agreement); cpus != 8-held {
				rt.Fatalf("%d of %d are offered", cpus, 8-held)
			}
		})
	})
}

// TestFaults: whatever the store does, an offer that comes until it is answered is answered
// once, what is quoted as held is held, and nothing is held that was not quoted once all
// has expired.
func TestFaults(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, negotiator.Options{})
			bad := faulty.New(w.st, nil)
			n, err := negotiator.New(bad, w.engine, w.plan, negotiator.Options{Hold: holding})
			if err != nil {
				t.Fatal(err)
			}
			w.n = n
			key := w.initiate()
			bad.Follow(faulty.Seeded(seed, faulty.Rates{Unavailable: 0.2, Lost: 0.3}))
			var quotes []agreement.NegotiationOffer
			for k := range 4 {
				o := w.asked("b", 2, 1, 1)
				o.OfferID = fmt.Sprint("o", k)
				for try := 0; ; try++ {
					answers, err := n.Negotiate(w.ctx, key, []agreement.NegotiationOffer{o})
					if err == nil {
						quotes = append(quotes, answers...)
						break
					}
					if !fail.Is(err, fail.Unavailable) && !fail.Is(err, fail.Uncertain) || try > 100 {
						t.Fatalf("seed %d: %v", seed, err)
					}
				}
			}
			bad.Follow(nil)
			p, err := n.Negotiation(w.ctx, key)
			if err != nil || len(p.Offers) != 8 || len(quotes) != 4 {
				t.Fatalf("seed %d: %d offers and %d quotes, %v", seed, len(p.Offers), len(quotes), err)
			}
			for _, a := range quotes {
				q, _ := a.OfferContext.Quoted()
				if _, handled, err := w.bind(key, a.OfferID, a.Offer(), nil); err != nil || handled != q.Held {
					t.Fatalf("seed %d: held %v, bound %v, %v", seed, q.Held, handled, err)
				}
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			for _, r := range w.live() {
				if r.State != agreement.Observed {
					t.Errorf("seed %d: %+v", seed, r)
				}
			}
		})
	}
}
