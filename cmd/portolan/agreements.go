package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"
	"golang.org/x/sync/errgroup"
	"gopkg.in/yaml.v3"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/door"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/agreements/negotiator"
	"github.com/portolan-project/portolan/internal/agreements/replica"
	"github.com/portolan-project/portolan/internal/agreements/service"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/agreements/together"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/broker/modelstore"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/identity"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/telemetry"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// agreementsConfig says what the gateway promises in agreements (WS-Agreement).
type agreementsConfig struct {
	// Off has the gateway make no agreements.
	Off bool `yaml:"off"`
	// Promise is the part of each share, in percent, that may be promised; the rest is for best
	// effort; without it, 80.
	Promise int `yaml:"promise"`
	// Horizon is how far ahead promises reach; without it, 720h.
	Horizon time.Duration `yaml:"horizon"`
	// Notice is how soon the earliest promise may begin; without it, at once.
	Notice time.Duration `yaml:"notice"`
	// MaxWindow is how long a reserved window may be; without it, 168h.
	MaxWindow time.Duration `yaml:"maxWindow"`
	// Grace is how late a reservation may begin without being violated; without it, 5m.
	Grace time.Duration `yaml:"grace"`
	// Kinds are those of which templates are made: best-effort, start-by, finish-by,
	// advance-reservation and capacity; without any, all.
	Kinds []string `yaml:"kinds"`
	// Penalty is due when a promise is broken, in the unit, with up to three decimals; without it,
	// none.
	Penalty float64 `yaml:"penalty"`
	// Availability is the part of the time that reserved capacity is to be there, from 0 to 1;
	// without it, 0.99.
	Availability float64 `yaml:"availability"`
	// Unit is that of prices, penalties and budgets; without it, credit.
	Unit string `yaml:"unit"`
	// Budgets bound what a VO may spend on agreements, by name: an amount alone, for all time, or
	// an entry with a period; one that is not named has no bound.
	Budgets map[string]budgetConfig `yaml:"budgets"`
	// Templates is an absolute path of a directory whose files *.xml are templates of the
	// administrator's own, each a wsag:Template.
	Templates string `yaml:"templates"`
	// Callbacks say where decisions on pending agreements may be told to (AgreementAcceptanceEPR):
	// host names, *.DOMAIN, networks like 10.0.0.0/8, or loopback; without any, loopback.
	Callbacks []string `yaml:"callbacks"`
}

// budgetConfig is what a VO may spend.
type budgetConfig struct {
	// Amount is in the unit, with up to three decimals.
	Amount float64 `yaml:"amount"`
	// Period is day, week (from Monday on) or month, each from midnight in UTC on; an agreement counts
	// in the one in which its window begins. Without it, the amount is for all time.
	Period string `yaml:"period"`
}

// UnmarshalYAML reads an amount alone, too.
func (c *budgetConfig) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return n.Decode(&c.Amount)
	}
	amount := false
	for i := 0; i+1 < len(n.Content); i += 2 {
		switch key := n.Content[i]; key.Value {
		case "amount":
			amount = true
		case "period":
		default:
			return fmt.Errorf("line %d: field %s not found in a budget, which has amount and period", key.Line, key.Value)
		}
	}
	if !amount {
		return fmt.Errorf("line %d: a budget needs an amount", n.Line)
	}
	type plain budgetConfig
	return n.Decode((*plain)(c))
}

// maxTemplateFiles bounds the administrator's templates, each of maxConfig bytes.
const maxTemplateFiles = 500

func (c *agreementsConfig) settings() terms.Settings {
	s := terms.Settings{
		Promise: c.Promise, Horizon: c.Horizon, Notice: c.Notice, MaxWindow: c.MaxWindow, Grace: c.Grace,
		Penalty: toThousandths(c.Penalty), Availability: c.Availability, Unit: c.Unit,
	}
	for _, k := range c.Kinds {
		s.Kinds = append(s.Kinds, terms.Kind(k))
	}
	s.EnsureDefaults()
	return s
}

func (c *agreementsConfig) callbacks() []string {
	if c.Callbacks == nil {
		return []string{"loopback"}
	}
	return c.Callbacks
}

func (c *agreementsConfig) budgets() map[string]service.Budget {
	list := map[string]service.Budget{}
	for vo, of := range c.Budgets {
		list[vo] = service.Budget{Amount: toThousandths(of.Amount), Period: engine.Period(of.Period)}
	}
	return list
}

// toThousandths gives an amount as agreements count it.
func toThousandths(f float64) int64 { return int64(math.Round(f * 1000)) }

// exact says what is wrong with an amount; "" is nothing.
func exact(f float64) string {
	switch scaled := f * 1000; {
	case f < 0:
		return "is negative"
	case !(scaled <= engine.MaxPrice):
		return fmt.Sprintf("is more than %d", int64(engine.MaxPrice/1000))
	case math.Abs(scaled-math.Round(scaled)) > 1e-6*max(1, scaled):
		return "has more than three decimals"
	}
	return ""
}

func (c *agreementsConfig) check(p *configProblems) {
	s := c.settings()
	if err := s.Validate(); err != nil {
		p.add(0, "agreements: %s", sentence(err))
	}
	if why := exact(c.Penalty); why != "" {
		p.add(0, "agreements.penalty: %g %s", c.Penalty, why)
	}
	for _, vo := range slices.Sorted(maps.Keys(c.Budgets)) {
		of := c.Budgets[vo]
		if why := exact(of.Amount); why != "" {
			p.add(0, "agreements.budgets.%s: %g %s", vo, of.Amount, why)
		}
		if !engine.Period(of.Period).Valid() {
			p.add(0, "agreements.budgets.%s.period: %q is none; write %s, %s or %s, or leave it out", vo, of.Period, engine.Day, engine.Week, engine.Month)
		}
		if vo == "" || len(vo) > engine.MaxName {
			p.add(0, "agreements.budgets: %q is no name of a VO", vo)
		}
	}
	if err := service.CheckCallbacks(c.Callbacks); err != nil {
		p.add(0, "agreements.callbacks: %s", sentence(err))
	}
	if _, err := c.own(); err != nil {
		for line := range strings.SplitSeq(sentence(err), "\n") {
			p.add(0, "agreements.templates: %s", line)
		}
	}
}

// own reads the administrator's templates.
func (c *agreementsConfig) own() ([]agreement.Template, error) {
	if c.Templates == "" {
		return nil, nil
	}
	const op = "agreements.templates"
	if !filepath.IsAbs(c.Templates) {
		return nil, fail.Errorf(op, fail.Invalid, c.Templates, "%s is no absolute path", c.Templates)
	}
	names, err := fs.Glob(os.DirFS(c.Templates), "*.xml")
	if err == nil {
		_, err = os.Stat(c.Templates)
	}
	if err != nil {
		return nil, fail.Errorf(op, fail.Invalid, c.Templates, "the directory can't be read: %v", err)
	}
	if len(names) > maxTemplateFiles {
		return nil, fail.Errorf(op, fail.Invalid, c.Templates, "there are %d templates in %s; there may be %d", len(names), c.Templates, maxTemplateFiles)
	}
	root, err := os.OpenRoot(c.Templates)
	if err != nil {
		return nil, fail.Errorf(op, fail.Invalid, c.Templates, "the directory can't be read: %v", err)
	}
	defer root.Close() //nolint:errcheck // nothing is written
	files := map[string][]byte{}
	for _, name := range names {
		info, err := root.Stat(name)
		if err == nil && info.Size() > maxConfig {
			err = fmt.Errorf("it has more than %d bytes", maxConfig)
		}
		if err == nil {
			files[name], err = root.ReadFile(name)
		}
		if err != nil {
			return nil, fail.Errorf(op, fail.Invalid, name, "%s can't be read: %v", filepath.Join(c.Templates, name), err)
		}
	}
	list, err := terms.Load(files)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if _, err := list[i].Compile(); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// alikeAgreements reports whether two sections say the same.
func alikeAgreements(a, b *agreementsConfig) bool {
	if a == nil {
		a = &agreementsConfig{}
	}
	if b == nil {
		b = &agreementsConfig{}
	}
	return reflect.DeepEqual(a, b)
}

// agreements are what the gateway has of them; nil where it makes none.
type agreements struct {
	config *agreementsConfig
	engine *engine.Engine
	svc    *service.Service

	negotiator *negotiator.Negotiator
	door       *door.Door // nil without peers

	domain      string                // our own; "" has no name
	coordinator *together.Coordinator // nil where the holder coordinates
	front       agreement.Coordinator
}

// openAgreements reads what is kept of agreements for a replica of that name, nil where the gateway
// makes none.
func openAgreements(ctx context.Context, c *agreementsConfig, name string, st store.Records, log *slog.Logger) (*agreements, error) {
	if c == nil {
		c = &agreementsConfig{}
	}
	if c.Off {
		return nil, nil
	}
	s := c.settings()
	e, err := engine.New(ctx, st, engine.Options{
		Replica: name, Log: log.With("part", "agreements"),
		Horizon:     s.Horizon + s.MaxWindow, // what may be put off begins within the horizon
		Unfinished:  service.Unfinished,
		Replaceable: service.Replaceable,
		Amount:      func(n int64) string { return service.Amount(n, s.Unit) },
	})
	if err != nil {
		return nil, err
	}
	return &agreements{config: c, engine: e}, nil
}

// openHolder gives what other processes of the domain hear of this one by, which has the sites and serves at a
// URL: that it makes no agreements, too.
func openHolder(c *agreementsConfig, st store.Store, b *broker.Broker, at string, log *slog.Logger) (*replica.Holder, error) {
	if c == nil {
		c = &agreementsConfig{}
	}
	o := replica.HolderOptions{Store: st, URL: at, Off: c.Off, Sights: b.Sights, Log: log.With("part", "replicas")}
	if !c.Off {
		var err error
		if o.Promises, err = c.promises(); err != nil {
			return nil, err
		}
	}
	return replica.NewHolder(o), nil
}

// promises gives what all processes of a domain are to promise alike.
func (c *agreementsConfig) promises() (replica.Promises, error) {
	p := replica.Promises{Settings: c.settings(), Callbacks: slices.Sorted(slices.Values(c.callbacks())), Budgets: c.budgets()}
	own, err := c.own()
	if err != nil || len(own) == 0 {
		return p, err
	}
	sum := sha256.New()
	for i := range own {
		b := xmldoc.Marshal(own[i].Encode())
		fmt.Fprintf(sum, "%d\n%s\n", len(b), b)
	}
	p.Own = hex.EncodeToString(sum.Sum(nil))
	return p, nil
}

// serves ties them to the broker, or what stands for one, and the model.
func (a *agreements) serves(st store.Records, b service.Broker, m *modelstore.Model, join func(context.Context) (store.Session, error), d *door.Door, domain string, log *slog.Logger) error {
	own, err := a.config.own()
	if err != nil {
		return err
	}
	o := service.Options{
		Engine: a.engine, Broker: b, Model: m, Settings: a.config.settings(), Own: own, Budgets: a.config.budgets(),
		Callbacks: a.config.callbacks(), Join: join, Log: log.With("part", "agreements"), Domain: identity.OwnerDomain,
	}
	if a.door = d; d != nil {
		o.Guests = d
	}
	_, o.Decides = b.(*replica.Replica)
	if a.svc, err = service.New(o); err != nil {
		return err
	}
	a.negotiator, err = negotiator.New(st, a.engine, a.svc, negotiator.Options{Log: log.With("part", "negotiations"), Unit: o.Settings.Unit})
	if err != nil {
		return err
	}
	a.svc.Bind(a.negotiator.Bind)
	switch b := b.(type) {
	case *replica.Replica:
		a.front = b.Together()
	case *broker.Broker:
		return a.coordinates(st, b, domain, log)
	}
	return nil
}

// coordinates makes what makes agreements with several domains as one.
func (a *agreements) coordinates(st store.Records, b *broker.Broker, domain string, log *slog.Logger) (err error) {
	a.domain = domain
	a.coordinator, err = together.New(st, together.Options{Dial: a.dial, Replica: gatewayReplica, Log: log.With("part", "together")})
	if err != nil {
		return err
	}
	front, err := together.NewFront(together.FrontOptions{
		Coordinator: a.coordinator, Domain: domain, VO: service.VO,
		Owner: func(ctx context.Context) (string, error) {
			who, err := b.Permit(ctx, "together", broker.Submit)
			return who.Name, err
		},
	})
	if err == nil {
		a.front = front
	}
	return err
}

// dial gives a domain's agreement service, as an owner of ours asks it.
func (a *agreements) dial(ctx context.Context, owner, domain, vo string) (together.Provider, error) {
	switch {
	case domain == together.Home || domain == a.domain:
		return atHome{a.svc, soap.Principal{Name: owner, Method: "together"}}, nil
	case a.door == nil:
		return nil, fail.Errorf("serve.dial", fail.NotFound, domain, "this gateway has no peers, so that nothing can be agreed on with %s", domain)
	}
	return a.door.Dial(ctx, domain, &door.User{Name: owner, VO: vo})
}

// atHome is our own agreement service as an owner asks it.
type atHome struct {
	svc *service.Service
	who soap.Principal
}

func (h atHome) as(ctx context.Context) context.Context { return soap.WithPrincipal(ctx, h.who) }

func (h atHome) Prepare(ctx context.Context, req *agreement.CreateRequest, p agreement.Preparation) (string, error) {
	// It is read as what comes from elsewhere is, so that constraints are checked on it.
	o, err := agreement.DecodeOffer(req.Offer.Encode())
	if err != nil {
		return "", err
	}
	r := *req
	r.Offer = *o
	return h.svc.Prepare(h.as(ctx), &r, p)
}

func (h atHome) Templates(ctx context.Context) ([]agreement.Template, error) {
	return h.svc.Templates(h.as(ctx))
}

func (h atHome) Confirm(ctx context.Context, key string) error { return h.svc.Confirm(h.as(ctx), key) }

func (h atHome) Agreement(ctx context.Context, key string) (*agreement.Properties, error) {
	return h.svc.Agreement(h.as(ctx), key)
}

func (h atHome) Terminate(ctx context.Context, key string, reason *etree.Element) error {
	return h.svc.Terminate(h.as(ctx), key, reason)
}

// run keeps them until ctx ends.
func (a *agreements) run(ctx context.Context) error {
	if a.door != nil {
		defer a.door.Close()
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.svc.Run(ctx) })
	if a.coordinator != nil {
		g.Go(func() error {
			if err := a.coordinator.Run(ctx); ctx.Err() == nil {
				return err
			}
			return nil // it was stopped
		})
	}
	g.Go(func() error {
		if err := a.negotiator.Run(ctx); ctx.Err() == nil {
			return err
		}
		return nil // it was stopped
	})
	return g.Wait()
}

// handler is the endpoint.
func (a *agreements) handler(metrics *telemetry.Metrics, log *slog.Logger) http.Handler {
	return agreement.NewServer(a.svc, agreement.ServerOptions{Negotiator: a.negotiator, Coordinator: a.front, Verifier: soap.DevVerifier{}, Log: log.With("part", "agreements"), Observe: metrics.Answered})
}

// peerHandler is the endpoint for peers; nil without them.
func (a *agreements) peerHandler(metrics *telemetry.Metrics) http.Handler {
	if a == nil || a.door == nil {
		return nil
	}
	return a.door.Handler(a.svc, a.negotiator, door.ServeOptions{Observe: metrics.Answered})
}
