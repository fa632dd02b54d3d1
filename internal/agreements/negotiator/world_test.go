package negotiator_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/calendar"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/agreements/negotiator"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store/mem"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// planner knows one template, of CPUs for a window at the site a or b, whose pools have
// their names. A CPU costs 1.5 for an hour.
type planner struct {
	template agreement.Template
	sites    []string
	err      error // of Plan, if it is not nil
	takes    time.Duration
}

func (p *planner) Templates(context.Context) ([]agreement.Template, error) {
	return []agreement.Template{p.template}, nil
}

func (p *planner) Sites(context.Context) ([]string, error) { return p.sites, nil }

func (p *planner) Plan(ctx context.Context, o *agreement.Offer) (engine.Proposal, error) {
	time.Sleep(p.takes)
	if p.err != nil {
		return engine.Proposal{}, p.err
	}
	if o.Context.TemplateName != p.template.Name {
		return engine.Proposal{}, agreement.Refuse(agreement.NoSuchTemplate, "there is no such template")
	}
	q, err := terms.Read(&o.Agreement, time.Now(), terms.Settings{})
	if err != nil {
		return engine.Proposal{}, err
	}
	b := q.Services[0].Capacity
	if b == nil {
		return engine.Proposal{}, fail.Errorf("planner", fail.Unsupported, "", "only capacity is promised here")
	}
	return engine.Proposal{
		Owner: soap.PrincipalFrom(ctx).Name, VO: "bio", Name: o.Name, TemplateID: "1", TemplateName: o.Context.TemplateName, Document: xmldoc.Marshal(o.Encode()),
		ExpirationTime: q.Expiration,
		Alternatives: []engine.Plan{{
			Name: b.Place.Site, Price: b.Amount.CPUs * 1500 * int64(b.Window.Length()/time.Hour),
			Holds: []calendar.Hold{{ID: "0", Pool: b.Place.Site, Amount: calendar.Amount{CPUs: b.Amount.CPUs}, From: b.Window.Start, Until: b.Window.End}},
		}},
	}, nil
}

// world is a gateway with sites of 8 and 16 CPUs; its time begins at a full hour.
type world struct {
	testing.TB
	st     *mem.Store
	engine *engine.Engine
	plan   *planner
	n      *negotiator.Negotiator
	ctx    context.Context //nolint:containedctx // who asks, in all calls of a test
	began  time.Time
}

func as(ctx context.Context, name string) context.Context {
	return soap.WithPrincipal(ctx, soap.Principal{Name: name, Method: "tls"})
}

func newWorld(t testing.TB, o negotiator.Options) *world {
	t.Helper()
	w := &world{TB: t, st: mem.New(), began: time.Now().UTC().Truncate(time.Hour), ctx: as(t.Context(), "CN=ann")}
	t.Cleanup(func() { _ = w.st.Close() })
	var err error
	if w.engine, err = engine.New(t.Context(), w.st, engine.Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err = w.engine.SetPools(t.Context(), []calendar.Pool{{ID: "a", Capacity: calendar.Amount{CPUs: 8}}, {ID: "b", Capacity: calendar.Amount{CPUs: 16}}}); err != nil {
		t.Fatal(err)
	}
	w.plan = &planner{template: agreement.Template{Agreement: w.asked("a", 1, 1, 1).Agreement, TemplateID: "1"}, sites: []string{"a", "b"}}
	w.open(o)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.engine.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return w
}

func (w *world) open(o negotiator.Options) {
	w.Helper()
	var err error
	if w.n, err = negotiator.New(w.st, w.engine, w.plan, o); err != nil {
		w.Fatal(err)
	}
}

// in gives the time some hours from the beginning.
func (w *world) in(hours int) time.Time { return w.began.Add(time.Duration(hours) * time.Hour) }

// asked is an offer of CPUs at a site from one hour until another.
func (w *world) asked(site string, cpus int64, from, until int, items ...agreement.NegotiationItem) agreement.NegotiationOffer {
	b := terms.Booking{Place: terms.Place{Site: site}, Amount: calendar.Amount{CPUs: cpus}, Window: terms.Window{Start: w.in(from), End: w.in(from + until)}}
	o := agreement.NegotiationOffer{OfferID: "o"}
	o.Name = "capacity"
	o.Context = agreement.Context{ServiceProvider: agreement.Responder, TemplateID: "1", TemplateName: "capacity"}
	o.Terms = &agreement.Compositor{Kind: agreement.All, Terms: []agreement.Term{&agreement.ServiceDescription{Name: "c", ServiceName: "s", Description: b.Element()}}}
	o.OfferContext = agreement.OfferContext{CounterOfferTo: "1", Creator: agreement.NegotiationInitiator, State: agreement.Solicited}
	o.Constraints.Items = items
	return o
}

// may is an item that lets an element of the capacity be changed, within facets.
func may(local string, typ agreement.ConstraintType, importance int64, facets ...string) agreement.NegotiationItem {
	i := agreement.NegotiationItem{Type: typ, Importance: importance}
	i.Name, i.Location = local, "/neg:NegotiationOffer/wsag:Terms/wsag:All/wsag:ServiceDescriptionTerm/p:Capacity/p:"+local
	i.Scope = map[string]string{"neg": agreement.NSNegotiation, "wsag": agreement.NS, "p": agreement.NSPortolan}
	i.Constraint = agreement.NewElement("ItemConstraint")
	i.Constraint.CreateAttr("xmlns:xs", "http://www.w3.org/2001/XMLSchema")
	for _, f := range facets {
		name, value, _ := strings.Cut(f, "=")
		i.Constraint.CreateElement("xs:"+name).CreateAttr("value", value)
	}
	return i
}

// booked reads what an offer asks for.
func (w *world) booked(a *agreement.Agreement) (site string, cpus int64, from, until time.Time) {
	w.Helper()
	q, err := terms.Read(a, time.Now(), terms.Settings{})
	if err != nil {
		w.Fatal(err)
	}
	b := q.Services[0].Capacity
	return b.Place.Site, b.Amount.CPUs, b.Window.Start, b.Window.End
}

func (w *world) fill(id, site string, cpus int64, from, until int) {
	w.Helper()
	_, err := w.engine.Propose(w.ctx, engine.Proposal{ID: id, Owner: "CN=other", Document: []byte("x"), Alternatives: []engine.Plan{{Holds: []calendar.Hold{{ID: "0", Pool: site, Amount: calendar.Amount{CPUs: cpus}, From: w.in(from), Until: w.in(until)}}}}})
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) initiate() string {
	w.Helper()
	key, err := w.n.Initiate(w.ctx, request(nil))
	if err != nil {
		w.Fatal(err)
	}
	return key
}

func request(about *agreement.Renegotiation) *agreement.InitiateRequest {
	return &agreement.InitiateRequest{Context: agreement.NegotiationContext{AgreementResponder: agreement.NegotiationResponder, Renegotiation: about}}
}

func (w *world) negotiate(key string, offers ...agreement.NegotiationOffer) []agreement.NegotiationOffer {
	w.Helper()
	answers, err := w.n.Negotiate(w.ctx, key, offers)
	if err != nil {
		w.Fatal(err)
	}
	return answers
}

// one gives the only answer to an offer.
func (w *world) one(key string, o agreement.NegotiationOffer, want agreement.OfferState) agreement.NegotiationOffer {
	w.Helper()
	answers := w.negotiate(key, o)
	if len(answers) != 1 || answers[0].OfferContext.State != want {
		for _, a := range answers {
			w.Logf("%s %s", a.OfferContext.State, a.OfferContext.Reason())
		}
		w.Fatalf("%d answers; wanted one that is %s", len(answers), want)
	}
	return answers[0]
}

func (w *world) bind(key, to string, o agreement.Offer, old *soap.EPR) (string, bool, error) {
	epr := agreement.NewNegotiationEPR("urn:here", key)
	x := &agreement.NegotiationExtension{ResponderEPR: &epr, AgreementEPR: old, OfferContext: agreement.OfferContext{CounterOfferTo: to, Creator: agreement.NegotiationInitiator, State: agreement.Acceptable}}
	// As it comes over the wire.
	d, err := agreement.DecodeOffer(o.Encode())
	if err != nil {
		w.Fatal(err)
	}
	return w.n.Bind(w.ctx, x, &agreement.CreateRequest{Offer: *d})
}

// live gives what the engine has that is not the others'.
func (w *world) live() (list []engine.Record) {
	for _, r := range w.engine.Live() {
		if r.Owner != "CN=other" {
			list = append(list, r)
		}
	}
	return list
}

func (w *world) refused(err error, code agreement.Code, words string) {
	w.Helper()
	r, ok := errors.AsType[*agreement.Refusal](err)
	if !ok || r.Code != code || !strings.Contains(strings.Join(r.Sentences, "\n"), words) {
		w.Errorf("%v; want %s with %q", err, code, words)
	}
}

func bubble(t *testing.T, o negotiator.Options, do func(*world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { do(newWorld(t, o)) })
}

func holding(context.Context) bool { return true }
