package negotiator_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/agreement/agreementtest"
	"github.com/portolan-project/portolan/internal/agreements/calendar"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/agreements/negotiator"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// TestNegotiatorSuite runs the suite in real time; nothing in it waits.
func TestNegotiatorSuite(t *testing.T) {
	for name, hold := range map[string]func(context.Context) bool{"promising": nil, "holding": holding} {
		t.Run(name, func(t *testing.T) {
			agreementtest.RunNegotiator(t, func() agreement.Negotiator { return newWorld(t, negotiator.Options{Hold: hold}).n })
		})
	}
}

func TestAsItIs(t *testing.T) {
	bubble(t, negotiator.Options{Unit: "credit"}, func(w *world) {
		key := w.initiate()
		a := w.one(key, w.asked("a", 8, 1, 2), agreement.Acceptable)
		q, ok := a.OfferContext.Quoted()
		if !ok || q != (agreement.Quote{Price: "24", Unit: "credit", Start: w.in(1), End: w.in(3)}) {
			w.Errorf("quoted %+v", q)
		}
		if want := w.began.Add(10 * time.Minute); !a.OfferContext.ExpirationTime.Equal(want) || a.OfferContext.CounterOfferTo != "o" || a.OfferContext.Creator != agreement.NegotiationResponder {
			w.Errorf("%+v", a.OfferContext)
		}
		advisory := w.asked("a", 8, 1, 2)
		advisory.OfferID, advisory.OfferContext.State = "p", agreement.Advisory
		if a := w.one(key, advisory, agreement.Advisory); !a.OfferContext.ExpirationTime.IsZero() {
			w.Errorf("%+v", a.OfferContext)
		}
		if live := w.live(); len(live) != 0 {
			w.Errorf("it bound %+v", live)
		}
		key2, handled, err := w.bind(key, a.OfferID, a.Offer(), nil)
		if key2 != "" || handled || err != nil {
			w.Errorf("%q, %v, %v", key2, handled, err)
		}
	})
}

func TestLater(t *testing.T) {
	bubble(t, negotiator.Options{}, func(w *world) {
		w.fill("x", "a", 4, 1, 5)
		key := w.initiate()
		w.one(key, w.asked("a", 8, 2, 2), agreement.OfferRejected)
		o := w.asked("a", 8, 2, 2, may("StartTime", agreement.Required, 0), may("EndTime", agreement.Required, 0))
		o.OfferID = "p"
		a := w.one(key, o, agreement.Acceptable)
		if _, cpus, from, until := w.booked(&a.Agreement); cpus != 8 || !from.Equal(w.in(5)) || !until.Equal(w.in(7)) {
			w.Errorf("%d CPUs from %s until %s", cpus, from, until)
		}
		// No earlier than the constraint lets, over a second obstacle.
		w.fill("y", "a", 4, 6, 9)
		o = w.asked("a", 8, 2, 2, may("StartTime", agreement.Required, 0, "minInclusive="+w.in(6).Format(time.RFC3339)), may("EndTime", agreement.Required, 0))
		o.OfferID = "q"
		a = w.one(key, o, agreement.Acceptable)
		if _, _, from, until := w.booked(&a.Agreement); !from.Equal(w.in(9)) || !until.Equal(w.in(11)) {
			w.Errorf("from %s until %s", from, until)
		}
		o = w.asked("a", 8, 2, 2, may("StartTime", agreement.Required, 0), may("EndTime", agreement.Required, 0, "maxInclusive="+w.in(10).Format(time.RFC3339)))
		o.OfferID = "r"
		if a = w.one(key, o, agreement.OfferRejected); !strings.Contains(a.OfferContext.Reason(), "there is no room for 8 CPUs") {
			w.Error(a.OfferContext.Reason())
		}
	})
}

func TestFewer(t *testing.T) {
	for name, c := range map[string]struct {
		facets []string
		typ    agreement.ConstraintType
		want   int64 // 0 is none
	}{
		"anything":                      {nil, agreement.Required, 5},
		"from 5":                        {[]string{"minInclusive=5", "maxInclusive=8"}, agreement.Required, 5},
		"from 6":                        {[]string{"minInclusive=6"}, agreement.Required, 0},
		"above 4":                       {[]string{"minExclusive=4"}, agreement.Required, 5},
		"below 5":                       {[]string{"maxExclusive=5"}, agreement.Required, 4},
		"up to 4.5":                     {[]string{"maxInclusive=4.5"}, agreement.Required, 4},
		"of some":                       {[]string{"enumeration=2", "enumeration=4", "enumeration=8"}, agreement.Required, 4},
		"of others as they are written": {[]string{"enumeration=2.0", "enumeration=4.0", "enumeration=8.0"}, agreement.Required, 4},
		"of others":                     {[]string{"enumeration=6", "enumeration=8"}, agreement.Required, 0},
		"rather from 6":                 {[]string{"minInclusive=6"}, agreement.Optional, 5},
		"rather of others":              {[]string{"enumeration=6"}, agreement.Optional, 5},
		"a pattern of digits":           {[]string{"pattern=[24]"}, agreement.Required, 0}, // 1 is not let: nothing is found by halves
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, negotiator.Options{}, func(w *world) {
				w.fill("x", "a", 3, 1, 5)
				o := w.asked("a", 8, 2, 2, may("CPUs", c.typ, 1, c.facets...))
				if c.want == 0 {
					w.one(w.initiate(), o, agreement.OfferRejected)
					return
				}
				a := w.one(w.initiate(), o, agreement.Acceptable)
				if _, cpus, from, _ := w.booked(&a.Agreement); cpus != c.want || !from.Equal(w.in(2)) {
					w.Errorf("%d CPUs from %s", cpus, from)
				}
			})
		})
	}
}

func TestElsewhere(t *testing.T) {
	bubble(t, negotiator.Options{}, func(w *world) {
		key := w.initiate()
		o := w.asked("a", 12, 2, 2, may("Site", agreement.Required, 0, "enumeration=c", "enumeration=b"))
		a := w.one(key, o, agreement.Acceptable)
		if site, cpus, _, _ := w.booked(&a.Agreement); site != "b" || cpus != 12 {
			w.Errorf("%d CPUs at %s", cpus, site)
		}
		o = w.asked("a", 12, 2, 2, may("Site", agreement.Required, 0))
		o.OfferID = "p"
		w.one(key, o, agreement.Acceptable)
		w.plan.sites = nil
		o.OfferID = "q"
		w.one(key, o, agreement.OfferRejected)
	})
}

// TestByImportance: of what could be kept, that comes first which breaks no wish, and then
// that which breaks the smaller one.
func TestByImportance(t *testing.T) {
	bubble(t, negotiator.Options{}, func(w *world) {
		w.fill("x", "a", 4, 1, 5)
		key := w.initiate()
		latest := "maxInclusive=" + w.in(4).Format(time.RFC3339)
		for i, c := range []struct {
			time, cpus int64
			want       []string
		}{{1, 5, []string{"elsewhere", "later", "fewer"}}, {5, 1, []string{"elsewhere", "fewer", "later"}}} {
			o := w.asked("a", 8, 2, 2, may("StartTime", agreement.Optional, c.time, latest), may("EndTime", agreement.Required, 0), may("CPUs", agreement.Optional, c.cpus, "minInclusive=8"), may("Site", agreement.Required, 0))
			o.OfferID = "o" + strconv.Itoa(i)
			var got []string
			for _, a := range w.negotiate(key, o) {
				site, cpus, from, _ := w.booked(&a.Agreement)
				switch {
				case site == "b" && cpus == 8 && from.Equal(w.in(2)):
					got = append(got, "elsewhere")
				case site == "a" && cpus == 4 && from.Equal(w.in(2)):
					got = append(got, "fewer")
				case site == "a" && cpus == 8 && from.Equal(w.in(5)):
					got = append(got, "later")
				default:
					w.Errorf("%d CPUs at %s from %s", cpus, site, from)
				}
			}
			if !slices.Equal(got, c.want) {
				w.Errorf("%v; want %v", got, c.want)
			}
		}
	})
}

// TestHeld: where the policy says so, a quote holds, binds when it is taken, and lets go by
// itself, when it is rejected and when the negotiation ends.
func TestHeld(t *testing.T) {
	bubble(t, negotiator.Options{Hold: holding}, func(w *world) {
		key := w.initiate()
		a := w.one(key, w.asked("a", 6, 1, 2), agreement.Acceptable)
		if q, _ := a.OfferContext.Quoted(); !q.Held {
			w.Errorf("%+v", q)
		}
		live := w.live()
		if len(live) != 1 || live[0].State != agreement.Pending || !live[0].Prepared.Equal(a.OfferContext.ExpirationTime) {
			w.Fatalf("%+v", live)
		}
		o := w.asked("a", 6, 1, 2)
		o.OfferID = "p"
		w.one(key, o, agreement.OfferRejected) // it is held
		other := a.Offer()
		other.Terms = w.asked("a", 7, 1, 2).Terms
		_, _, err := w.bind(key, a.OfferID, other, nil)
		w.refused(err, agreement.NotCompliant, `"7"`)
		got, handled, err := w.bind(key, a.OfferID, a.Offer(), nil)
		if err != nil || !handled || got != live[0].ID {
			w.Fatalf("%q, %v, %v", got, handled, err)
		}
		if r, err := w.engine.Get(w.ctx, got); err != nil || r.State != agreement.Observed || r.Owner != "CN=ann" {
			w.Errorf("%+v, %v", r, err)
		}
		// By the offer that it answers, again, and after all has expired.
		for _, to := range []string{"o", a.OfferID} {
			if again, handled, err := w.bind(key, to, a.Offer(), nil); again != got || !handled || err != nil {
				w.Errorf("%q, %v, %v", again, handled, err)
			}
			time.Sleep(61 * time.Minute)
		}

		key = w.initiate()
		quote := func(id string) agreement.NegotiationOffer {
			o := w.asked("b", 16, 20, 2)
			o.OfferID = id
			return w.one(key, o, agreement.Acceptable)
		}
		free := func(what string) {
			w.Helper()
			synctest.Wait()
			if f := w.engine.Free("b", w.in(20), w.in(22)); f.CPUs != 16 {
				w.Errorf("%s: %d CPUs are free", what, f.CPUs)
			}
		}
		a = quote("a")
		time.Sleep(10 * time.Minute)
		free("expired")
		_, _, err = w.bind(key, a.OfferID, a.Offer(), nil)
		w.refused(err, agreement.Expired, "expired")
		a = quote("b")
		no := a
		no.OfferID, no.OfferContext = "c", agreement.OfferContext{CounterOfferTo: a.OfferID, Creator: agreement.NegotiationInitiator, State: agreement.OfferRejected}
		if answers := w.negotiate(key, no); len(answers) != 0 {
			w.Errorf("%+v", answers)
		}
		free("rejected")
		_, _, err = w.bind(key, a.OfferID, a.Offer(), nil)
		w.refused(err, agreement.WrongState, "rejected by you")
		a = quote("d")
		if err := w.n.TerminateNegotiation(w.ctx, key, nil); err != nil {
			w.Error(err)
		}
		free("ended")
		_, _, err = w.bind(key, a.OfferID, a.Offer(), nil)
		w.refused(err, agreement.Expired, "no negotiation with that key")
		for name, c := range map[string]struct {
			epr  *soap.EPR
			want string
		}{"none": {nil, ""}, "strange": {&soap.EPR{Address: "urn:x"}, "send it as it was given"}} {
			key, handled, err := w.n.Bind(w.ctx, &agreement.NegotiationExtension{ResponderEPR: c.epr}, &agreement.CreateRequest{Offer: a.Offer()})
			if key != "" || handled || (err == nil) != (c.want == "") {
				w.Errorf("%s: %q, %v, %v", name, key, handled, err)
			}
			if err != nil {
				w.refused(err, agreement.WrongState, c.want)
			}
		}
		_, handled, err = w.n.Bind(w.ctx, &agreement.NegotiationExtension{Critical: true}, &agreement.CreateRequest{Offer: a.Offer()})
		if w.refused(err, agreement.WrongState, "relates to nothing"); handled {
			w.Error("it was made of nothing")
		}
	})
}

// TestTakenAsRejected: an extension that says of its offer that it is rejected makes no agreement of it.
func TestTakenAsRejected(t *testing.T) {
	bubble(t, negotiator.Options{Hold: holding}, func(w *world) {
		key := w.initiate()
		a := w.one(key, w.asked("a", 8, 1, 2), agreement.Acceptable)
		epr := agreement.NewNegotiationEPR("urn:here", key)
		for state, refused := range map[agreement.OfferState]bool{agreement.OfferRejected: true, agreement.Acceptable: false} {
			for _, to := range []*soap.EPR{nil, &epr} {
				x := &agreement.NegotiationExtension{ResponderEPR: to, OfferContext: agreement.OfferContext{CounterOfferTo: a.OfferID, Creator: agreement.NegotiationInitiator, State: state}}
				got, handled, err := w.n.Bind(w.ctx, x, &agreement.CreateRequest{Offer: a.Offer()})
				switch {
				case refused:
					w.refused(err, agreement.WrongState, "says that its offer is Rejected")
				case err != nil:
					w.Errorf("%s: %v", state, err)
				}
				if handled != (!refused && to != nil) {
					w.Errorf("%s: %q", state, got)
				}
			}
		}
	})
}

// TestTakenInOtherWords: an offer is the quoted one however its times, numbers and prefixes are
// written, and none where anything of it says something else.
func TestTakenInOtherWords(t *testing.T) {
	bubble(t, negotiator.Options{}, func(w *world) {
		o := w.asked("a", 8, 1, 2)
		level := agreement.NewElement("CustomServiceLevel")
		level.CreateAttr("xmlns:p", agreement.NSPortolan)
		level.CreateElement("p:atLeast").SetText("0.9")
		g := &agreement.Guarantee{Name: "there", Obligated: agreement.ServiceProvider, KPIName: "availability", Level: level, Scopes: []agreement.Scope{{ServiceName: "s"}}}
		amount := agreement.NewElement("ValueExpression")
		amount.SetText("3")
		importance := int64(7)
		g.Values = agreement.BusinessValues{Importance: &importance, Penalties: []agreement.Compensation{{Count: 1, Unit: "credit", Expression: amount}}, Preferences: []agreement.Preference{{Term: "c", Utility: 5}}}
		o.Terms.Terms = append(o.Terms.Terms, g)
		o.Context.ExpirationTime = w.in(48)
		o.Context.Extensions = []*etree.Element{agreement.Why("an extension")}
		o.Context.Attributes = []agreement.Attribute{{Name: xmldoc.Name{Space: "urn:x", Local: "a"}, Value: "v"}}
		key := w.initiate()
		q := w.one(key, o, agreement.Acceptable)
		epr := agreement.NewNegotiationEPR("urn:here", key)
		x := &agreement.NegotiationExtension{ResponderEPR: &epr, OfferContext: agreement.OfferContext{CounterOfferTo: q.OfferID, Creator: agreement.NegotiationInitiator, State: agreement.Acceptable}}
		offer := q.Offer()
		as := string(xmldoc.Marshal(offer.Encode()))
		until := w.in(48).UTC().Format("2006-01-02T15:04:05") + "Z"
		const other = "is not what the counter offer"
		for _, c := range []struct{ old, new, refused string }{
			{"", "", ""},
			{until, w.in(48).In(time.FixedZone("", 3600)).Format(time.RFC3339), ""},
			{until, strings.TrimSuffix(until, "Z") + ".000Z", ""},
			{"<wsag:Utility>5<", "<wsag:Utility> 5.0 <", ""},
			{">7<", ">+07<", ""},
			{"<wsag:Count>1<", "<wsag:Count>01<", ""},
			{"<wsag:All>", "<wsag:All><!-- as quoted -->\n", ""},
			{"wsag:", "w:", ""},
			{until, w.in(49).UTC().Format(time.RFC3339), other},
			{"<wsag:Utility>5<", "<wsag:Utility>6<", other},
			{">7<", ">8<", other},
			{"<wsag:Count>1<", "<wsag:Count>2<", other},
			{"an extension", "another", other},
			{`="v"`, `="w"`, other},
			{">0.9<", ">0.8<", other},
			{"credit", "cent", other},
			{">8</", ">7</", other},
			{`wsag:Name="c"`, `wsag:Name="d"`, other},
			{"AgreementResponder<", "AgreementInitiator<", other},
		} {
			s := strings.ReplaceAll(as, c.old, c.new)
			if c.new == "w:" {
				s = strings.ReplaceAll(s, "xmlns:wsag=", "xmlns:w=")
			}
			if c.old != "" && s == as {
				w.Errorf("%s is nowhere in %s", c.old, as)
			}
			d, err := agreement.ParseOffer([]byte(s))
			if err != nil {
				w.Fatal(err)
			}
			_, _, err = w.n.Bind(w.ctx, x, &agreement.CreateRequest{Offer: *d})
			switch {
			case c.refused != "":
				w.refused(err, agreement.NotCompliant, c.refused)
			case err != nil:
				w.Errorf("%s written %s: %v", c.old, c.new, err)
			}
		}
	})
}

// TestReplaced: an agreement that is renegotiated ends when the new one is made, in one
// transaction, and stays where that fails (N6).
func TestReplaced(t *testing.T) {
	bubble(t, negotiator.Options{Hold: holding}, func(w *world) {
		old := engine.Proposal{ID: "old", Owner: "CN=ann", VO: "bio", Document: []byte("x"), Alternatives: []engine.Plan{{Holds: []calendar.Hold{{ID: "0", Pool: "a", Amount: calendar.Amount{CPUs: 6}, From: w.in(1), Until: w.in(4)}}}}}
		if _, err := w.engine.Propose(w.ctx, old); err != nil {
			w.Fatal(err)
		}
		epr := agreement.NewEPR("urn:here", "old")
		key, err := w.n.Initiate(w.ctx, request(&agreement.Renegotiation{ResponderEPR: epr}))
		if err != nil {
			w.Fatal(err)
		}
		for name, about := range map[string]soap.EPR{"moon": agreement.NewEPR("urn:here", "moon"), "strange": {Address: "urn:x"}} {
			if _, err := w.n.Initiate(w.ctx, request(&agreement.Renegotiation{ResponderEPR: about})); !fail.Is(err, fail.NotFound) {
				w.Errorf("%s: %v", name, err)
			}
		}
		if _, err := w.n.Initiate(as(w.ctx, "CN=bob"), request(&agreement.Renegotiation{ResponderEPR: epr})); !fail.Is(err, fail.NotFound) {
			w.Errorf("another's: %v", err)
		}
		a := w.one(key, w.asked("a", 8, 2, 2), agreement.Acceptable) // what the old one holds counts as free
		b := w.asked("a", 7, 2, 2)
		b.OfferID = "p"
		b = w.one(key, b, agreement.Acceptable)
		if live := w.live(); len(live) != 1 || live[0].State != agreement.Observed {
			w.Fatalf("it bound %+v", live)
		}
		_, _, err = w.bind(key, a.OfferID, a.Offer(), nil)
		w.refused(err, agreement.WrongState, "RenegotiationExtension")
		moon := agreement.NewEPR("urn:here", "moon")
		_, _, err = w.bind(key, a.OfferID, a.Offer(), &moon)
		w.refused(err, agreement.WrongState, "another agreement")
		w.fill("x", "a", 1, 2, 3)
		if _, _, err = w.bind(key, a.OfferID, a.Offer(), &epr); !fail.Is(err, fail.Exhausted) {
			w.Errorf("without room: %v", err)
		}
		if r, err := w.engine.Get(w.ctx, "old"); err != nil || r.State != agreement.Observed {
			w.Errorf("%+v, %v", r, err)
		}
		for range 2 {
			got, handled, err := w.bind(key, b.OfferID, b.Offer(), &epr)
			if err != nil || !handled {
				w.Fatalf("%q, %v, %v", got, handled, err)
			}
			r, err := w.engine.Get(w.ctx, got)
			if err != nil || r.State != agreement.Observed || r.Replaces != "old" {
				w.Errorf("%+v, %v", r, err)
			}
			if live := w.live(); len(live) != 1 || live[0].ID != got {
				w.Errorf("%+v", live)
			}
		}
		_, err = w.n.Initiate(w.ctx, request(&agreement.Renegotiation{ResponderEPR: epr}))
		w.refused(err, agreement.WrongState, "only one that is Observed")
		if _, _, err = w.bind(key, a.OfferID, a.Offer(), &epr); !fail.Is(err, fail.Conflict) {
			w.Errorf("the old one ended: %v", err)
		}
	})
}

// TestExpired: nothing can be referred to after its time (N7), and what is over is
// forgotten.
func TestExpired(t *testing.T) {
	bubble(t, negotiator.Options{Life: time.Hour, Kept: time.Hour, Quote: 2 * time.Hour}, func(w *world) {
		req := request(nil)
		req.Context.ExpirationTime = w.began
		_, err := w.n.Initiate(w.ctx, req)
		w.refused(err, agreement.Expired, "has passed")
		req.Context.ExpirationTime = w.in(1000)
		long, err := w.n.Initiate(w.ctx, req)
		if err != nil {
			w.Fatal(err)
		}
		if p, err := w.n.Negotiation(w.ctx, long); err != nil || !p.Context.ExpirationTime.Equal(w.in(24)) {
			w.Errorf("%+v, %v", p, err)
		}
		key := w.initiate()
		a := w.one(key, w.asked("a", 8, 5, 2), agreement.Acceptable)
		if !a.OfferContext.ExpirationTime.Equal(w.in(1)) { // not longer than the negotiation
			w.Errorf("%+v", a.OfferContext)
		}
		late := w.asked("a", 8, 5, 2)
		late.OfferID, late.OfferContext.ExpirationTime = "late", w.began
		_, err = w.n.Negotiate(w.ctx, key, []agreement.NegotiationOffer{late})
		w.refused(err, agreement.Expired, "late")
		b := w.one(long, w.asked("a", 8, 5, 2), agreement.Acceptable)
		time.Sleep(time.Hour)
		_, err = w.n.Negotiate(w.ctx, key, []agreement.NegotiationOffer{w.asked("a", 8, 5, 2)})
		w.refused(err, agreement.Expired, "initiate another")
		w.refused(w.n.Advertise(w.ctx, key, []agreement.NegotiationOffer{w.asked("a", 8, 5, 2)}), agreement.Expired, "initiate another")
		_, _, err = w.bind(key, a.OfferID, a.Offer(), nil)
		w.refused(err, agreement.Expired, "expired")
		if _, err := w.n.Negotiation(w.ctx, key); err != nil {
			w.Error(err)
		}
		time.Sleep(time.Hour)
		next := b
		next.OfferID = "next"
		next.OfferContext = agreement.OfferContext{CounterOfferTo: b.OfferID, Creator: agreement.NegotiationInitiator, State: agreement.Solicited}
		_, err = w.n.Negotiate(w.ctx, long, []agreement.NegotiationOffer{next})
		w.refused(err, agreement.Expired, "begin again")
		if _, err := w.n.Negotiation(w.ctx, key); !fail.Is(err, fail.NotFound) {
			w.Error(err)
		}
		ctx, cancel := context.WithCancel(w.ctx)
		var wg sync.WaitGroup
		wg.Go(func() { _ = w.n.Run(ctx) })
		synctest.Wait()
		if n := w.records("negotiations/instance/"); n != 1 {
			w.Errorf("%d negotiations are kept", n)
		}
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if n := w.records("negotiations/"); n != 0 {
			w.Errorf("%d records are kept", n)
		}
		cancel()
		wg.Wait()
	})
}

func (w *world) records(prefix string) int {
	list, _, err := w.st.ListRecords(w.ctx, prefix, store.RecordOptions{})
	if err != nil {
		w.Fatal(err)
	}
	return len(list)
}

// TestBounds: each bound lets as much as it says, and no more (N11).
func TestBounds(t *testing.T) {
	bubble(t, negotiator.Options{MaxOpen: 3, MaxOffers: 8, MaxDepth: 3, MaxRounds: 5, Hold: holding, MaxHeld: 2}, func(w *world) {
		var keys []string
		for range 3 {
			keys = append(keys, w.initiate())
		}
		_, err := w.n.Initiate(w.ctx, request(nil))
		w.refused(err, agreement.NoCapacity, "as many negotiations open")
		if _, err := w.n.Initiate(as(w.ctx, "CN=bob"), request(nil)); err != nil {
			w.Error(err) // another's
		}
		if err := w.n.TerminateNegotiation(w.ctx, keys[0], nil); err != nil {
			w.Fatal(err)
		}
		keys[0] = w.initiate()

		o := w.asked("a", 1, 1, 1)
		o.OfferContext.State = agreement.Advisory
		a := w.one(keys[0], o, agreement.Advisory)
		answer := func(to agreement.NegotiationOffer, id string) agreement.NegotiationOffer {
			to.OfferContext = agreement.OfferContext{CounterOfferTo: to.OfferID, Creator: agreement.NegotiationInitiator, State: agreement.Advisory}
			to.OfferID = id
			return to
		}
		a = w.one(keys[0], answer(a, "p"), agreement.Advisory)
		_, err = w.n.Negotiate(w.ctx, keys[0], []agreement.NegotiationOffer{answer(a, "q")})
		w.refused(err, agreement.NoCapacity, "begin again")

		var many []agreement.NegotiationOffer
		for k := range 5 {
			o.OfferID = fmt.Sprint("o", k)
			many = append(many, o)
		}
		_, err = w.n.Negotiate(w.ctx, keys[1], many)
		w.refused(err, agreement.NoCapacity, "more than 8 offers")
		if p, err := w.n.Negotiation(w.ctx, keys[1]); err != nil || len(p.Offers) != 0 {
			w.Errorf("what was refused is kept: %+v, %v", p, err)
		}
		w.negotiate(keys[1], many[:4]...)

		for k := range 5 {
			o.OfferID = fmt.Sprint("o", k)
			if err := w.n.Advertise(w.ctx, keys[2], []agreement.NegotiationOffer{o}); err != nil {
				w.Fatal(err)
			}
		}
		o.OfferID = "o5"
		w.refused(w.n.Advertise(w.ctx, keys[2], []agreement.NegotiationOffer{o}), agreement.NoCapacity, "5 rounds")
		if err := w.n.TerminateNegotiation(w.ctx, keys[2], nil); err != nil {
			w.Fatal(err)
		}
		keys[2] = w.initiate()
		held := 0
		for k := range 3 {
			o.OfferID, o.OfferContext.State = fmt.Sprint("s", k), agreement.Solicited
			a := w.one(keys[2], o, agreement.Acceptable)
			if q, _ := a.OfferContext.Quoted(); q.Held {
				held++
			}
		}
		if live := w.live(); held != 2 || len(live) != 2 {
			w.Errorf("%d are held: %+v", held, live)
		}
		o.OfferID = strings.Repeat("i", 257)
		_, err = w.n.Negotiate(w.ctx, keys[2], []agreement.NegotiationOffer{o})
		w.refused(err, agreement.WrongState, "may have 256")
		big := request(nil)
		big.Context.Initiator = agreement.Why(strings.Repeat("x", 4000))
		for range 20 {
			big.Context.Extensions = append(big.Context.Extensions, agreement.Why(strings.Repeat("x", 4000)))
		}
		_, err = w.n.Initiate(as(w.ctx, "CN=eve"), big)
		w.refused(err, agreement.UnsupportedTerm, "leave extensions out")
	})
	if _, err := negotiator.New(nil, nil, nil, negotiator.Options{MaxOpen: -1}); !fail.Is(err, fail.Invalid) {
		t.Error(err)
	}
	if _, err := negotiator.New(nil, nil, nil, negotiator.Options{Life: 48 * time.Hour}); !fail.Is(err, fail.Invalid) {
		t.Error(err)
	}
}

// TestManyFillNoStore: neither who has each expire at once nor a peer with many users has more of them kept.
func TestManyFillNoStore(t *testing.T) {
	bubble(t, negotiator.Options{MaxOpen: 3}, func(w *world) {
		short := func(ctx context.Context) error {
			q := request(nil)
			q.Context.ExpirationTime = time.Now().Add(time.Second)
			_, err := w.n.Initiate(ctx, q)
			return err
		}
		for range 15 {
			if err := short(w.ctx); err != nil {
				w.Fatal(err)
			}
			time.Sleep(2 * time.Second)
		}
		err := short(w.ctx)
		w.refused(err, agreement.NoCapacity, "you have as many negotiations that have expired and are still known as one may have")
		if r, ok := errors.AsType[*agreement.Refusal](err); !ok || r.Earliest.Before(time.Now().Add(50*time.Minute)) || r.Earliest.After(time.Now().Add(time.Hour)) {
			w.Errorf("it is told to come again: %v", err)
		}
		time.Sleep(time.Hour)
		if err := short(w.ctx); err != nil {
			w.Error(err)
		}

		user := func(i int) context.Context {
			return soap.WithPrincipal(w.ctx, soap.Principal{Name: fmt.Sprintf("u%d@fiu", i), Method: "tls", Domain: "fiu"})
		}
		keys := map[int]string{}
		for i := range 30 {
			key, err := w.n.Initiate(user(i), request(nil))
			if err != nil {
				w.Fatal(err)
			}
			keys[i] = key
		}
		_, err = w.n.Initiate(user(30), request(nil))
		w.refused(err, agreement.NoCapacity, "all of fiu have as many negotiations open")
		if _, err := w.n.Initiate(soap.WithPrincipal(w.ctx, soap.Principal{Name: "u30@uam", Domain: "uam"}), request(nil)); err != nil {
			w.Errorf("another domain: %v", err)
		}
		if err := w.n.TerminateNegotiation(user(7), keys[7], nil); err != nil {
			w.Fatal(err)
		}
		if _, err := w.n.Initiate(user(30), request(nil)); err != nil {
			w.Error(err)
		}
	})
}

// TestTries: what is tried for one offer is bounded.
func TestTries(t *testing.T) {
	bubble(t, negotiator.Options{MaxTries: 3}, func(w *world) {
		w.fill("x", "a", 3, 1, 5)
		a := w.one(w.initiate(), w.asked("a", 8, 2, 2, may("CPUs", agreement.Required, 0)), agreement.Acceptable)
		if _, cpus, _, _ := w.booked(&a.Agreement); cpus < 1 || cpus > 5 { // the best of what was found by then
			w.Errorf("%d CPUs", cpus)
		}
	})
}

// TestTime: what is looked for in one call takes a time, and no more.
func TestTime(t *testing.T) {
	bubble(t, negotiator.Options{MaxTime: 10 * time.Second}, func(w *world) {
		w.fill("x", "a", 3, 1, 5)
		w.plan.takes = 3 * time.Second
		key, began := w.initiate(), time.Now()
		w.one(key, w.asked("a", 8, 2, 2, may("CPUs", agreement.Required, 0)), agreement.Acceptable)
		if took := time.Since(began); took > 15*time.Second {
			w.Errorf("it took %s", took)
		}
		var many []agreement.NegotiationOffer
		for k := range 5 {
			o := w.asked("a", 1, 2, 2)
			o.OfferID = fmt.Sprint("m", k)
			many = append(many, o)
		}
		_, err := w.n.Negotiate(w.ctx, key, many)
		w.refused(err, agreement.NoCapacity, "send fewer at once")
		w.negotiate(key, many[:4]...)
		ctx, cancel := context.WithCancel(w.ctx)
		cancel()
		if _, err := w.n.Negotiate(ctx, key, many[4:]); !fail.Is(err, fail.Unavailable) {
			w.Error(err)
		}
	})
}

// TestTree: what may answer what.
func TestTree(t *testing.T) {
	bubble(t, negotiator.Options{}, func(w *world) {
		key := w.initiate()
		a := w.one(key, w.asked("a", 1, 1, 1), agreement.Acceptable)
		for name, c := range map[string]struct {
			change func(*agreement.NegotiationOffer)
			want   string
		}{
			"of ours":       {func(o *agreement.NegotiationOffer) { o.OfferContext.Creator = agreement.NegotiationResponder }, "you are the NegotiationInitiator"},
			"to his own":    {func(o *agreement.NegotiationOffer) { o.OfferContext.CounterOfferTo = "o" }, "your own offer"},
			"to nothing":    {func(o *agreement.NegotiationOffer) { o.OfferContext.CounterOfferTo = "moon" }, "not in this negotiation"},
			"twice":         {func(o *agreement.NegotiationOffer) { o.OfferID = "o"; o.Name = "other" }, "another offer with the id"},
			"by our id":     {func(o *agreement.NegotiationOffer) { o.OfferID = a.OfferID }, "another offer with the id"},
			"no to nothing": {func(o *agreement.NegotiationOffer) { o.OfferContext.State = agreement.OfferRejected }, "rejects nothing"},
		} {
			o := w.asked("a", 1, 1, 1)
			o.OfferID = "p"
			c.change(&o)
			_, err := w.n.Negotiate(w.ctx, key, []agreement.NegotiationOffer{o})
			w.refused(err, agreement.WrongState, c.want)
			if err == nil {
				w.Errorf("%s is taken", name)
			}
		}
		next := w.asked("a", 2, 1, 1)
		next.OfferID, next.OfferContext.CounterOfferTo = "q", a.OfferID
		_, err := w.n.Negotiate(w.ctx, key, []agreement.NegotiationOffer{next})
		w.refused(err, agreement.NotCompliant, "may change only what")
		no := w.one(key, func() agreement.NegotiationOffer {
			o := w.asked("a", 99, 1, 1)
			o.OfferID, o.OfferContext.CounterOfferTo = "r", ""
			return o
		}(), agreement.OfferRejected)
		next.OfferContext.CounterOfferTo = no.OfferID
		if _, err := w.n.Negotiate(w.ctx, key, []agreement.NegotiationOffer{next}); !fail.Is(err, fail.Conflict) {
			w.Error(err)
		}
		// The same again has the same answer, and costs no round.
		before, _ := w.n.Negotiation(w.ctx, key)
		if again := w.one(key, w.asked("a", 1, 1, 1), agreement.Acceptable); again.OfferID != a.OfferID {
			w.Errorf("%s, not %s", again.OfferID, a.OfferID)
		}
		if after, _ := w.n.Negotiation(w.ctx, key); len(after.Offers) != len(before.Offers) {
			w.Error("the offer was taken twice")
		}
		// Nobody else sees it.
		for what, err := range map[string]error{
			"read": func() error { _, err := w.n.Negotiation(as(w.ctx, "CN=bob"), key); return err }(),
			"end":  w.n.TerminateNegotiation(as(w.ctx, "CN=bob"), key, nil),
		} {
			if !fail.Is(err, fail.NotFound) {
				w.Errorf("%s: %v", what, err)
			}
		}
		unnamed := w.asked("a", 1, 1, 1)
		unnamed.OfferID = ""
		if a := w.one(key, unnamed, agreement.Acceptable); a.OfferContext.CounterOfferTo == "" {
			w.Error("an offer without an id got none")
		}
	})
}

// TestRefusalsOfThePlanner: what says nothing of the offer is no answer to it.
func TestRefusalsOfThePlanner(t *testing.T) {
	bubble(t, negotiator.Options{}, func(w *world) {
		key := w.initiate()
		for k, kind := range fail.Kinds() {
			o := w.asked("a", 1, 1, 1, may("CPUs", agreement.Required, 0), may("StartTime", agreement.Required, 0), may("Site", agreement.Required, 0))
			o.OfferID = fmt.Sprint("o", k)
			w.plan.err = fail.Errorf("test", kind, "", "because")
			answers, err := w.n.Negotiate(w.ctx, key, []agreement.NegotiationOffer{o})
			if slices.Contains([]fail.Kind{fail.Internal, fail.Unauthenticated, fail.Unavailable, fail.Uncertain}, kind) {
				if !fail.Is(err, kind) {
					w.Errorf("%s: %v", kind, err)
				}
				continue
			}
			if err != nil || len(answers) != 1 || answers[0].OfferContext.State != agreement.OfferRejected || answers[0].OfferContext.Reason() != "because" {
				w.Errorf("%s: %+v, %v", kind, answers, err)
			}
		}
		w.plan.err = nil
		bad := w.asked("a", 1, 1, 1, may("CPUs", agreement.Required, 0))
		bad.Constraints.Items[0].Location = "count(/*)"
		if a := w.one(key, bad, agreement.OfferRejected); !strings.Contains(a.OfferContext.Reason(), "negotiation constraints") {
			w.Error(a.OfferContext.Reason())
		}
		none := w.asked("a", 1, 1, 1)
		none.OfferID, none.Terms = "none", nil
		if a := w.one(key, none, agreement.OfferRejected); !strings.Contains(a.OfferContext.Reason(), "no service") {
			w.Error(a.OfferContext.Reason())
		}
		provider := request(nil)
		provider.Context.AgreementResponder = agreement.NegotiationInitiator
		_, err := w.n.Initiate(w.ctx, provider)
		w.refused(err, agreement.UnsupportedTerm, "no AgreementFactoryEPR")
		factory := agreement.NewEPR("urn:x", "k")
		provider.Context.FactoryEPR = &factory
		_, err = w.n.Initiate(w.ctx, provider)
		w.refused(err, agreement.UnsupportedTerm, "provides services")
	})
}

// TestRestart: a negotiation outlives who answered it, and several answer at once.
func TestRestart(t *testing.T) {
	bubble(t, negotiator.Options{Hold: holding}, func(w *world) {
		key := w.initiate()
		a := w.one(key, w.asked("a", 2, 1, 1), agreement.Acceptable)
		w.open(negotiator.Options{Hold: holding})
		p, err := w.n.Negotiation(w.ctx, key)
		if err != nil || len(p.Offers) != 2 {
			w.Fatalf("%+v, %v", p, err)
		}
		first := w.n
		w.open(negotiator.Options{})
		var wg sync.WaitGroup
		errs := make([]error, 6)
		for k := range errs {
			n := w.n
			if k%2 == 0 {
				n = first
			}
			wg.Go(func() {
				o := w.asked("a", 1, 1, 1)
				o.OfferID = fmt.Sprint("c", k)
				_, errs[k] = n.Negotiate(w.ctx, key, []agreement.NegotiationOffer{o})
			})
		}
		wg.Wait()
		if p, err = w.n.Negotiation(w.ctx, key); err != nil || errors.Join(errs...) != nil || len(p.Offers) != 14 {
			w.Errorf("%d offers, %v, %v", len(p.Offers), err, errs)
		}
		seen := map[string]bool{}
		for _, o := range p.Offers {
			if seen[o.OfferID] {
				w.Errorf("%s is there twice", o.OfferID)
			}
			seen[o.OfferID] = true
		}
		if live := w.live(); len(live) != 4 { // what was held for a try that was too late is let go
			w.Errorf("%d are held", len(live))
		}
		if _, handled, err := w.bind(key, a.OfferID, a.Offer(), nil); !handled || err != nil {
			w.Error(handled, err)
		}
	})
}
