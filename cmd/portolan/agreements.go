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

	"golang.org/x/sync/errgroup"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/agreements/negotiator"
	"github.com/portolan-project/portolan/internal/agreements/replica"
	"github.com/portolan-project/portolan/internal/agreements/service"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/broker/modelstore"
	"github.com/portolan-project/portolan/internal/fail"
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
	// Budgets bound what a VO may spend on agreements, by name, in the unit, with up to three
	// decimals; one that is not named has no bound.
	Budgets map[string]float64 `yaml:"budgets"`
	// Templates is an absolute path of a directory whose files *.xml are templates of the
	// administrator's own, each a wsag:Template.
	Templates string `yaml:"templates"`
	// Callbacks say where decisions on pending agreements may be told to (AgreementAcceptanceEPR):
	// host names, *.DOMAIN, networks like 10.0.0.0/8, or loopback; without any, loopback.
	Callbacks []string `yaml:"callbacks"`
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
		if why := exact(c.Budgets[vo]); why != "" {
			p.add(0, "agreements.budgets.%s: %g %s", vo, c.Budgets[vo], why)
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
	holder *replica.Holder // tells other processes of the domain of this one; nil where there can be none

	negotiator *negotiator.Negotiator
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
		Horizon: s.Horizon + s.MaxWindow, // what may be put off begins within the horizon
	})
	if err != nil {
		return nil, err
	}
	return &agreements{config: c, engine: e}, nil
}

// holds has other processes of the domain hear of this one, which has the sites and serves at a URL.
func (a *agreements) holds(st store.Store, b *broker.Broker, at string, log *slog.Logger) error {
	p, err := a.config.promises()
	if err == nil {
		a.holder = replica.NewHolder(replica.HolderOptions{Store: st, URL: at, Promises: p, Sights: b.Sights, Log: log.With("part", "replicas")})
	}
	return err
}

// promises gives what all processes of a domain are to promise alike.
func (c *agreementsConfig) promises() (replica.Promises, error) {
	own, err := c.own()
	if err != nil || len(own) == 0 {
		return replica.Promises{Settings: c.settings()}, err
	}
	sum := sha256.New()
	for i := range own {
		b := xmldoc.Marshal(own[i].Encode())
		fmt.Fprintf(sum, "%d\n%s\n", len(b), b)
	}
	return replica.Promises{Settings: c.settings(), Own: hex.EncodeToString(sum.Sum(nil))}, nil
}

// serves ties them to the broker, or what stands for one, and the model.
func (a *agreements) serves(st store.Records, b service.Broker, m *modelstore.Model, join func(context.Context) (store.Session, error), log *slog.Logger) error {
	own, err := a.config.own()
	if err != nil {
		return err
	}
	o := service.Options{
		Engine: a.engine, Broker: b, Model: m, Settings: a.config.settings(), Own: own, Budgets: map[string]int64{},
		Callbacks: a.config.Callbacks, Join: join, Log: log.With("part", "agreements"),
	}
	_, o.Decides = b.(*replica.Replica)
	if o.Callbacks == nil {
		o.Callbacks = []string{"loopback"}
	}
	for vo, f := range a.config.Budgets {
		o.Budgets[vo] = toThousandths(f)
	}
	if a.svc, err = service.New(o); err != nil {
		return err
	}
	a.negotiator, err = negotiator.New(st, a.engine, a.svc, negotiator.Options{Log: log.With("part", "negotiations"), Unit: o.Settings.Unit})
	if err != nil {
		return err
	}
	a.svc.Bind(a.negotiator.Bind)
	return nil
}

// run keeps them until ctx ends.
func (a *agreements) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.svc.Run(ctx) })
	if a.holder != nil {
		g.Go(func() error { return a.holder.Run(ctx) })
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
	return agreement.NewServer(a.svc, agreement.ServerOptions{Negotiator: a.negotiator, Verifier: soap.DevVerifier{}, Log: log.With("part", "agreements"), Observe: metrics.Answered})
}
