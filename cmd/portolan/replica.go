package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/portolan-project/portolan/internal/agreements/replica"
	"github.com/portolan-project/portolan/internal/broker/modelstore"
	"github.com/portolan-project/portolan/internal/console"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store/etcd"
	"github.com/portolan-project/portolan/internal/telemetry"
)

// checkReplica refuses what a process without sites has no use for.
func (o *serveOptions) checkReplica() error {
	if o.replica == "" {
		return nil
	}
	if why := replica.BadName(o.replica); why != "" {
		return usagef("--replica: %s", why)
	}
	if len(o.endpoints) == 0 {
		return usagef("--replica is of a domain on an etcd cluster, which it shares with the gateway that has the sites: name that with --etcd-endpoints")
	}
	for _, f := range []struct {
		name  string
		given bool
	}{{"data", o.data != ""}, {"slots", o.slots > 0}, {"sites", len(o.sites) > 0}, {"bes-dialect", o.dialect != "2008"}, {"lenient", o.lenient}, {"arc", o.arc}} {
		if f.given {
			return usagef("--%s is for the gateway that has the sites, and --replica has none: leave it out here", f.name)
		}
	}
	return nil
}

// toldTime is how long a replica waits at its start to be told how the sites stand.
const toldTime = 5 * time.Second

// serveReplica runs a process of a domain that has no sites: it takes agreements, and passes
// everything else on to the one that has them, until ctx ends.
func (a *app) serveReplica(ctx context.Context, o serveOptions, log *slog.Logger) (err error) {
	tuneCollector()
	config := &gatewayConfig{}
	if o.config != "" {
		if config, _, err = readConfig(o.config); err != nil {
			return usagef("%v", err)
		}
	}
	domain, err := oneDomain(o.domain, config.Domain)
	if err != nil {
		return usagef("%v", err)
	}
	refused := func(err error) error { return &exitError{code: exitRefused, err: errors.New(sentence(err))} }
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return refusedf("%v: choose another address with --listen", err)
	}
	defer listener.Close()
	base := url.URL{Scheme: "http", Host: listener.Addr().String()}
	v, _ := build()
	metrics := telemetry.NewMetrics(v)
	st, err := etcd.Open(ctx, etcd.Options{Endpoints: o.endpoints, Domain: domain, Log: log.With("part", "store")})
	if err != nil {
		return refused(err)
	}
	defer func() { err = errors.Join(err, closed("the store", st.Close())) }()
	promises, err := openAgreements(ctx, config.Agreements, "replica-"+o.replica, st, log)
	if err != nil {
		return refused(err)
	}
	if promises == nil {
		return usagef("agreements are off in %s, and a replica takes nothing else: leave --replica out, or agreements.off", o.config)
	}
	model, err := modelstore.Open(ctx, st.Shared(modelstore.Prefixes()...), modelstore.Options{Domain: domain, Replica: "replica-" + o.replica, Log: log.With("part", "model")})
	if err != nil {
		return refused(err)
	}
	said, err := promises.config.promises()
	if err != nil {
		return refused(err)
	}
	r, err := replica.New(ctx, replica.Options{Name: o.replica, Store: st, Model: model, URL: base.String(), Promises: said, Log: log.With("part", "replica")})
	if err != nil {
		return refused(err)
	}
	if err := promises.serves(st, r, model, nil, nil, o.domain, log); err != nil {
		return refused(err)
	}
	elsewhere := r.Proxy()
	mounts := map[string]http.Handler{
		"/bes":        elsewhere,
		"/bes/a/{id}": elsewhere,
		"/agreement":  r.Agreements(promises.handler(metrics, log)),
		"/metrics":    metrics.Handler(telemetry.Only("etcd_", prometheus.DefaultGatherer)),
		"/healthz":    http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }),
		"/readyz":     readiness(r.Ready(), promises, st),
	}
	for _, p := range console.Paths() {
		mounts[p] = elsewhere
	}

	working, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	group, failing := errgroup.WithContext(working)
	group.Go(func() error {
		if err := model.Run(working); working.Err() == nil {
			return err
		}
		return nil // it was stopped
	})
	group.Go(func() error { return r.Run(working) })
	group.Go(func() error { return promises.run(working) })
	group.Go(func() error {
		select {
		case <-st.Failed():
			return st.Health(working)
		case <-working.Done():
			return nil
		}
	})
	patient, stopWaiting := context.WithTimeout(failing, toldTime)
	defer stopWaiting()
	if !r.Told(patient) {
		log.Info("the gateway that has the sites has not told how they stand; capacity is promised once it has")
	}
	server := soap.NewHTTPServer(fromHere(soap.NewRouter(mounts)), log.With("part", "http"))
	requests, stopRequests := context.WithCancel(working)
	defer stopRequests()
	server.BaseContext = func(net.Listener) context.Context { return requests }
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	log.Info("serving", "replica", o.replica, "at", base.String(), "domain", domain, "version", v)
	for _, name := range []string{"bes", "agreement", "metrics"} {
		fmt.Fprintf(a.out, "%s: %s/%s\n", name, &base, name)
	}
	fmt.Fprintln(a.out, "ready")

	select {
	case <-ctx.Done():
	case <-failing.Done():
	}
	log.Info("stopping")
	drain(server, stopRequests)
	stopWork()
	if err := group.Wait(); err != nil {
		return refused(err)
	}
	return nil
}
