package service

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/beevik/etree"
	"go.uber.org/goleak"

	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/broker/modelstore"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/mem"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/jsdl"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site is a place of the tests: a world, and what its adapter claims.
type site struct {
	name    string
	world   *fake.World
	options fake.Options
}

// gateway is a whole one, in memory.
type gateway struct {
	t testing.TB
	*Service
	broker *broker.Broker
	st     store.Store
	engine *engine.Engine
	stop   func()
}

// start runs a gateway over a store.
func start(t testing.TB, st store.Store, sites []site, change ...func(*broker.Config, *Options)) *gateway {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	model, err := modelstore.Open(ctx, st, modelstore.Options{Interval: -1})
	if err != nil {
		t.Fatal(err)
	}
	none := 0
	cfg := broker.Config{
		Store: st, Model: model, AwaitRoom: true, BaseURL: func() string { return "http://gw.example.org/bes" }, Jitter: func() float64 { return 0.5 },
	}
	for _, s := range sites {
		cfg.Sites = append(cfg.Sites, broker.Site{Name: s.name, Adapter: s.world.Open(s.options), Model: broker.SiteModel{Ahead: &none}})
	}
	o := Options{Model: model}
	for _, f := range change {
		f(&cfg, &o)
	}
	if o.Engine, err = engine.New(ctx, st, engine.Options{Replica: cfg.Replica, Unfinished: Unfinished, Replaceable: Replaceable}); err != nil {
		t.Fatal(err)
	}
	b, err := broker.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	o.Broker = b
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 3)
	go func() {
		if err := model.Run(ctx); ctx.Err() == nil {
			done <- err
			return
		}
		done <- nil
	}()
	go func() { done <- b.Run(ctx) }()
	go func() { done <- s.Run(ctx) }()
	g := &gateway{t: t, Service: s, broker: b, st: st, engine: o.Engine}
	stopped := false
	g.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		for range 3 {
			if err := <-done; err != nil {
				t.Errorf("it ended with: %v", err)
			}
		}
		b.Close()
	}
	<-s.Ready()
	if len(g.engine.Pools()) == 0 {
		t.Error("it is ready, and does not know what its sites have")
	}
	return g
}

// until waits for something, in virtual time.
func (g *gateway) until(what string, is func() bool) {
	g.t.Helper()
	for range 200_000 {
		if is() {
			return
		}
		time.Sleep(time.Second)
		synctest.Wait()
	}
	g.t.Fatalf("never: %s", what)
}

// alone runs a test with one gateway.
func alone(t *testing.T, sites []site, f func(t *testing.T, g *gateway), change ...func(*broker.Config, *Options)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		st := mem.New()
		defer st.Close()
		for _, s := range sites {
			defer s.world.Close()
		}
		g := start(t, st, sites, change...)
		defer g.stop()
		f(t, g)
	})
}

func as1(name string) context.Context {
	return soap.WithPrincipal(context.Background(), soap.Principal{Name: name, Method: "none"})
}

// offering is an offer that is being written.
type offering struct {
	*agreement.Offer
}

// by makes an offer of a template, as it is.
func (g *gateway) by(who, template string) offering {
	g.t.Helper()
	list, err := g.Templates(as1(who))
	if err != nil {
		g.t.Fatal(err)
	}
	var names []string
	for i := range list {
		if names = append(names, list[i].Name); list[i].Name != template {
			continue
		}
		o := agreement.Offer{Agreement: list[i].Agreement}
		parsed, err := agreement.ParseOffer(xmldoc.Marshal(o.Encode()))
		if err != nil {
			g.t.Fatal(err)
		}
		return offering{parsed}
	}
	g.t.Fatalf("there is no template %s; there are %s", template, strings.Join(names, ", "))
	return offering{}
}

// say replaces the description of a term.
func (o offering) say(term, content string) offering {
	d := o.Term(term).(*agreement.ServiceDescription)
	doc, err := xmldoc.ReadBytes([]byte(content), xmldoc.Limits{})
	if err != nil {
		panic(err)
	}
	d.Description = xmldoc.Detach(doc.Root())
	o.Element = nil
	return o
}

// job gives the document of a job for the fake site.
func job(script string, wall time.Duration, cpus int) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(script))
	limit, res := "", ""
	if wall > 0 {
		limit = fmt.Sprintf("<p:WallTimeLimit>%d</p:WallTimeLimit>", int(wall.Seconds()))
	}
	if cpus > 0 {
		res = fmt.Sprintf("<jsdl:Resources><jsdl:TotalCPUCount><jsdl:Exact>%d</jsdl:Exact></jsdl:TotalCPUCount></jsdl:Resources>", cpus)
	}
	return `<jsdl:JobDefinition xmlns:jsdl="` + jsdl.NS + `" xmlns:p="` + jsdl.NSPOSIX + `"><jsdl:JobDescription>` +
		`<jsdl:Application><p:POSIXApplication><p:Executable>fake:` + b.String() + `</p:Executable>` + limit + `</p:POSIXApplication></jsdl:Application>` + res + `</jsdl:JobDescription></jsdl:JobDefinition>`
}

const pns = ` xmlns:p="` + agreement.NSPortolan + `"`

func at(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func finishBy(t time.Time) string { return "<p:FinishBy" + pns + ">" + at(t) + "</p:FinishBy>" }
func startBy(t time.Time) string  { return "<p:StartBy" + pns + ">" + at(t) + "</p:StartBy>" }
func window(from, until time.Time) string {
	return "<p:Window" + pns + "><p:StartTime>" + at(from) + "</p:StartTime><p:EndTime>" + at(until) + "</p:EndTime></p:Window>"
}

// offer sends an offer.
func (g *gateway) offer(who string, o offering) (string, error) {
	doc := xmldoc.Marshal(o.Encode())
	parsed, err := agreement.ParseOffer(doc)
	if err != nil {
		g.t.Fatalf("%v in %s", err, doc)
	}
	return g.Create(as1(who), &agreement.CreateRequest{Offer: *parsed, Received: doc})
}

func (g *gateway) must(who string, o offering) string {
	g.t.Helper()
	key, err := g.offer(who, o)
	if err != nil {
		g.t.Fatalf("the offer is refused: %v", err)
	}
	return key
}

func (g *gateway) properties(who, key string) *agreement.Properties {
	g.t.Helper()
	p, err := g.Agreement(as1(who), key)
	if err != nil {
		g.t.Fatal(err)
	}
	if _, err := agreement.DecodeProperties(p.Encode()); err != nil {
		g.t.Errorf("the properties are not what they should be: %v", err)
	}
	return p
}

func (g *gateway) record(key string) engine.Record {
	g.t.Helper()
	r, err := g.engine.Get(context.Background(), key)
	if err != nil {
		g.t.Fatal(err)
	}
	return r
}

// ends waits for the end of an agreement.
func (g *gateway) ends(key string) engine.Record {
	g.t.Helper()
	for range 200_000 {
		if r := g.record(key); r.Final() {
			return r
		}
		time.Sleep(time.Second)
		synctest.Wait()
	}
	g.t.Fatalf("it never ends:\n%s", g.story(key))
	return engine.Record{}
}

func (g *gateway) story(key string) string {
	r := g.record(key)
	s := ""
	for _, l := range r.History {
		s += fmt.Sprintf("%s %s [%s] %s\n", l.Time.Format("15:04:05.000"), l.Event, l.State, l.Reason)
	}
	return s + string(r.Notes[NoteName])
}

func (g *gateway) guarantee(key, name string) agreement.GuaranteeTermState {
	g.t.Helper()
	p := g.properties("ada", key)
	for _, s := range p.Guarantees {
		if s.Term == name {
			return s
		}
	}
	g.t.Fatalf("there is no guarantee %s of %s", name, key)
	return agreement.GuaranteeTermState{}
}

// submit makes a job of best effort, without an agreement.
func (g *gateway) submit(script string, wall time.Duration) soap.EPR {
	g.t.Helper()
	r, err := g.broker.CreateActivity(as1("bob"), &bes.CreateActivityRequest{Document: []byte(job(script, wall, 0))})
	if err != nil {
		g.t.Fatal(err)
	}
	return r.Activity
}

func (g *gateway) state(e soap.EPR) bes.Status {
	g.t.Helper()
	rs, err := g.broker.GetActivityStatuses(as1("bob"), &bes.StatusRequest{Activities: []soap.EPR{e}})
	if err != nil || rs[0].Err != nil {
		g.t.Fatalf("%v %v", err, rs)
	}
	return rs[0].Status
}

// refusal gives what an error says as a refusal.
func refusal(t testing.TB, err error, code agreement.Code) *agreement.Refusal {
	t.Helper()
	r, ok := errors.AsType[*agreement.Refusal](err)
	if !ok || r.Code != code {
		t.Fatalf("%v; want a refusal %s", err, code)
	}
	return r
}

func found(e *etree.Element, path string) string {
	for _, c := range e.ChildElements() {
		if c.Tag == path {
			return c.Text()
		}
	}
	return ""
}
