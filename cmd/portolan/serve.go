package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/agreements/replica"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/broker/modelstore"
	"github.com/portolan-project/portolan/internal/console"
	among "github.com/portolan-project/portolan/internal/peering/gateway"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/etcd"
	"github.com/portolan-project/portolan/internal/telemetry"
	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/peers"
)

// serveOptions are the flags of serve.
type serveOptions struct {
	dev       bool
	listen    string
	data      string
	endpoints []string // of an etcd cluster; none for the embedded one
	domain    string   // that the gateway speaks for; "" has no name
	replica   string   // name of a process that has no sites and takes agreements for the one that has; "" is that one
	slots     int
	config    string
	sites     []string // that are looked for without a configuration; none for all
	dialect   string
	lenient   bool
	arc       bool
	logFormat string
	logLevel  string
}

func (a *app) serveCmd() *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve --dev [--config FILE] [--listen ADDR] [--data DIR]",
		Short: "Run a gateway",
		Long: `Run a whole gateway on this machine's loopback address: a BES service over HTTP, an embedded
etcd, and jobs run as programs of this machine, with the rights of whoever started it.
Nothing needs to be set up, and nobody is asked who they are: whoever can reach the address
can run programs. This version has no other mode.

Sites are the gateway's own machine ("shell"), and a local Slurm ("slurm") or HTCondor
("condor") that answers with its default settings; --sites names the only ones to look for.
With --config, the sites are those of FILE, and nothing is looked for: see docs/operate.md,
and 'portolan config check FILE'. The file is read again when it changes and on SIGHUP; one
that is wrong then changes nothing.

--domain names what the gateway speaks for: gateways of different domains share an etcd
cluster, each with jobs and settings of its own, and see each other's sites in 'portolan
resources'. It can't change once the gateway had jobs.

--replica NAME runs a further process of the domain on its etcd cluster, which has no sites and no
data of its own: it takes agreements, decided together with those of the gateway that has the
sites, and passes everything else on to that. It needs the same configuration, of which it
uses no sites and no peers. See docs/operate.md, Replicas.

With a section peer in FILE, the gateway works with those of other domains, over a listener of
its own, where both sides show certificates: see docs/configuration.md, Peers.

When it is up, it prints a line "name: URL" for each thing that it serves, and then "ready".
Its log goes to standard error.

SIGTERM or SIGINT stop it: requests under way are answered first. Jobs that run go on, and
the next gateway on the same data takes them up again, as it does after a crash.`,
		Example: `  portolan serve --dev
  portolan serve --dev --listen 127.0.0.1:0 --data /var/tmp/portolan
  portolan serve --dev --config gateway.yaml
  portolan serve --dev --etcd-endpoints 10.0.0.1:2379,10.0.0.2:2379 --domain north
  portolan serve --dev --etcd-endpoints 10.0.0.1:2379,10.0.0.2:2379 --domain north \
      --replica north-2 --listen 127.0.0.1:8444`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(a); err != nil {
				return err
			}
			log, err := telemetry.NewLogger(a.err, o.logFormat, o.logLevel)
			if err != nil {
				return usagef("%v", err)
			}
			if o.replica != "" {
				return a.serveReplica(cmd.Context(), o, log)
			}
			return a.serve(cmd.Context(), o, log)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.dev, "dev", false, "a gateway for one developer: loopback only, no authentication")
	f.StringVar(&o.listen, "listen", defaultListen, "loopback address and port; port 0 takes a free one")
	f.StringVar(&o.data, "data", "", "directory for everything that is kept (default ~/.local/share/portolan)")
	f.StringSliceVar(&o.endpoints, "etcd-endpoints", nil, "use this etcd cluster in place of the embedded etcd")
	f.StringVar(&o.domain, "domain", "", "name of what the gateway speaks for, among those that share an etcd cluster")
	f.StringVar(&o.replica, "replica", "", "take agreements under this name for the gateway of the domain that has the sites")
	f.IntVar(&o.slots, "slots", 0, "CPUs' worth of jobs that run at once on this machine (default all)")
	f.StringVar(&o.config, "config", "", "YAML file that says which sites there are")
	f.StringSliceVar(&o.sites, "sites", nil, "without --config, look for these sites only: "+strings.Join(detectable(), ", "))
	f.StringVar(&o.dialect, "bes-dialect", "2008", "schema lineage to speak: 2008, or 2007 for clients of the published WSDL")
	f.BoolVar(&o.lenient, "lenient", false, "take some documents of real clients that break the JSDL schema; see validate --lenient")
	f.BoolVar(&o.arc, "arc", false, "add to references what ARC's client wants to see")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	cobra.CheckErr(cmd.MarkFlagDirname("data"))
	cobra.CheckErr(cmd.MarkFlagFilename("config", "yaml", "yml"))
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("sites", oneOf(detectable()...)))
	for name, words := range map[string][]string{
		"bes-dialect": {"2008", "2007"}, "log-format": {"text", "json"}, "log-level": {"debug", "info", "warn", "error"},
	} {
		cobra.CheckErr(cmd.RegisterFlagCompletionFunc(name, oneOf(words...)))
	}
	for _, name := range []string{"listen", "etcd-endpoints", "domain", "replica", "slots"} {
		cobra.CheckErr(cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions))
	}
	return cmd
}

var dialects = map[string]bes.Dialect{"2007": bes.Dialect2007, "2008": bes.Dialect2008}

// check refuses what can't be served, and fills in what follows from the rest.
func (o *serveOptions) check(a *app) error {
	if !o.dev && o.config != "" {
		return usagef("--config without --dev is for a gateway that others can reach, and this version can't ask them who they are: add --dev to serve on loopback with the sites of %s", o.config)
	}
	if !o.dev {
		return usagef("this version serves for one developer on loopback only: add --dev")
	}
	host, _, err := net.SplitHostPort(o.listen)
	if err != nil {
		return usagef("--listen %q is no address: write one like %s", o.listen, defaultListen)
	}
	if !loopback(host) {
		return usagef("--listen %s would let others run programs here, as --dev asks nobody who they are: choose a loopback address like %s", o.listen, defaultListen)
	}
	if o.slots < 0 {
		return usagef("--slots is negative: leave it out to use all CPUs")
	}
	if why := badDomain(o.domain); why != "" {
		return usagef("--domain: %s", why)
	}
	if err := o.checkReplica(); err != nil {
		return err
	}
	if o.config != "" && (o.slots > 0 || len(o.sites) > 0) {
		return usagef("--slots and --sites are for a gateway without --config: say it in %s", o.config)
	}
	for _, name := range o.sites {
		if !slices.Contains(detectable(), name) {
			return usagef("--sites: %q is nothing that is looked for; that is %s, and --config has any other", name, strings.Join(detectable(), ", "))
		}
	}
	if o.slots > 0 && len(o.sites) > 0 && !slices.Contains(o.sites, "shell") {
		return usagef("--slots is of the site shell, which --sites leaves out")
	}
	if _, ok := dialects[o.dialect]; !ok {
		return usagef("there is no BES dialect %q: use 2008 or 2007", o.dialect)
	}
	if o.data == "" && o.replica == "" {
		if o.data, err = a.dir("XDG_DATA_HOME", ".local/share"); err != nil {
			return usagef("%v: say with --data where to keep things", err)
		}
	}
	o.data, err = filepath.Abs(o.data)
	if err != nil {
		return usagef("--data: %v", err)
	}
	if o.config != "" {
		if o.config, err = absolute(o.config); err != nil {
			return usagef("%v", err)
		}
	}
	return nil
}

// The collector's settings: a gateway allocates much and keeps little, so that
// collecting less often saves a tenth of the processor (docs/performance.md);
// near memoryGoal it collects as often as it must. GOGC and GOMEMLIMIT win.
const (
	gcPercent  = 400
	memoryGoal = 640 << 20
)

func tuneCollector() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(memoryGoal)
	}
}

const (
	// gatewayReplica names the process across restarts: there is one for each data directory.
	gatewayReplica = replica.HolderName
	// modelSilence is how long a site stays in the model of which nobody tells.
	modelSilence = 90 * time.Second
)

// serve makes the parts, ties them together, and runs them until ctx ends.
func (a *app) serve(ctx context.Context, o serveOptions, log *slog.Logger) (err error) {
	tuneCollector()
	keeper := &siteKeeper{data: o.data, file: o.config, flag: o.domain, log: log}
	config := &gatewayConfig{}
	if o.config != "" {
		if config, err = keeper.start(); err != nil {
			return usagef("%v", err)
		}
	}
	sites := config.Sites
	domain, err := oneDomain(o.domain, config.Domain)
	if err != nil {
		return usagef("%v", err)
	}
	keeper.domain = domain
	release, err := lockData(o.data)
	if err != nil {
		return err
	}
	defer release()
	if err := bindDomain(o.data, domain); err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", o.listen)
	if err != nil {
		return refusedf("%v: choose another address with --listen", err)
	}
	defer listener.Close()
	peering, err := openPeers(ctx, o, config.Peer, domain, log.With("part", "peers"))
	if err != nil {
		return err
	}
	defer peering.close()
	keeper.peers = peering

	v, _ := build()
	metrics := telemetry.NewMetrics(v)

	opts := etcd.Options{Endpoints: o.endpoints, Domain: domain, Log: log.With("part", "store")}
	if len(o.endpoints) == 0 {
		opts.Dir = filepath.Join(o.data, "etcd")
	}
	st, err := etcd.Open(ctx, opts)
	if err != nil {
		return &exitError{code: exitRefused, err: errors.New(sentence(err))}
	}
	defer func() { err = errors.Join(err, closed("the store", st.Close())) }()

	// Sites are opened after the store, as they start programs: a program that is about to
	// start has the locks of etcd's log for a moment more than etcd, which closes and opens
	// that when a killed gateway left it cut, and does not wait.
	atSites := filepath.Join(o.data, "sites")
	if err := makeData(atSites); err != nil {
		return err
	}
	_ = os.Chmod(atSites, dataMode()) // it may have been made otherwise; a site that can't do with it says so
	if o.config == "" {
		if sites, err = keeper.devSites(ctx, o.slots, o.sites); err != nil {
			return &exitError{code: exitRefused, err: errors.New(sentence(err))}
		}
	}
	open, err := keeper.openAll(sites)
	if err != nil {
		return &exitError{code: exitRefused, err: errors.New(sentence(err))}
	}
	if err := claim(ctx, st, o.data, domain); err != nil {
		closeAll(open)
		return err
	}

	policies, err := openPolicies(config.Policies, log)
	if err != nil {
		closeAll(open)
		return &exitError{code: exitRefused, err: errors.New(sentence(err))}
	}
	defer policies.close()
	keeper.policies = policies

	promises, err := openAgreements(ctx, config.Agreements, gatewayReplica, st, log)
	if err != nil {
		closeAll(open)
		return &exitError{code: exitRefused, err: errors.New(sentence(err))}
	}
	keeper.agreements = config.Agreements
	var model *modelstore.Model // the broker's own, unless peers are shown it, or agreements made by it
	shared := st.Shared(modelstore.Prefixes()...)
	if peering != nil || promises != nil {
		if model, err = modelstore.Open(ctx, shared, modelstore.Options{Domain: domain, Replica: gatewayReplica, Silence: modelSilence, Log: log.With("part", "model")}); err != nil {
			closeAll(open)
			return &exitError{code: exitRefused, err: errors.New(sentence(err))}
		}
	}

	base := url.URL{Scheme: "http", Host: listener.Addr().String(), Path: "/bes"}
	documents := jsdl.Options{Lenient: o.lenient}
	var live atomic.Int64
	b, err := broker.New(broker.Config{
		Store:     st,
		Domain:    domain,
		Replica:   gatewayReplica,
		Shared:    shared,
		Model:     model,
		Sites:     open,
		BaseURL:   base.String,
		Log:       log.With("part", "broker"),
		JSDL:      documents,
		Alone:     len(o.endpoints) == 0,
		AwaitRoom: promises != nil,
		Limits:    broker.Limits{Wait: 2 * time.Minute},
		Bounds:    config.Limits.forBroker(),
		Shares:    config.Entitlements,
		Catalogue: policies.catalogue(),
		Hooks: broker.Hooks{
			Submitted: metrics.Submitted,
			Stepped:   metrics.Stepped,
			Committed: metrics.Committed,
			Placed:    metrics.Placed,
			Illegal:   metrics.Illegal,
			Ended:     metrics.Ended,

			Replicated: metrics.Replicated,
			Wasted:     metrics.Wasted,

			Gauges: func(n, queued int) {
				live.Store(int64(n))
				metrics.Gauges(n, queued)
			},
		},
	})
	if err != nil {
		closeAll(open)
		return &exitError{code: exitRefused, err: err}
	}
	defer b.Close()
	keeper.serves(b, sites)
	metrics.Sites(func() []telemetry.Site { return siteMetrics(b.Survey()) })

	var holder *replica.Holder // nil where there can be no other process of the domain
	if len(o.endpoints) > 0 {
		if holder, err = openHolder(config.Agreements, st, b, "http://"+base.Host, log); err != nil {
			return &exitError{code: exitRefused, err: errors.New(sentence(err))}
		}
	}
	if promises != nil {
		var join func(context.Context) (store.Session, error) // by which other gateways on the store know this one
		if len(o.endpoints) > 0 {
			join = func(ctx context.Context) (store.Session, error) { return st.Join(ctx, gatewayReplica+"-agreements") }
		}
		if err := promises.serves(st, b, model, join, peering.door(log), domain, log); err != nil {
			return &exitError{code: exitRefused, err: errors.New(sentence(err))}
		}
	}

	service := bes.NewServer(b, bes.ServerOptions{
		Verifier: soap.DevVerifier{},
		Dialect:  dialects[o.dialect],
		JSDL:     documents,
		ARC:      o.arc,
		Log:      log.With("part", "bes"),
		Observe:  metrics.Answered,
	})
	var (
		door      *peers.Server
		gw        *among.Gateway
		board     *peerBoard
		neighbour console.Peers // nil without peers, and not a nil pointer
	)
	if peering != nil {
		door = peers.NewServer(peers.ServerOptions{Trust: peering.gateway, ExternalURL: peering.url, Log: log.With("part", "peers"), Observe: metrics.Answered})
		gw, err = among.New(among.Options{
			Domain: domain, Replica: gatewayReplica, Software: "portolan " + v, Endpoint: peering.url, Store: st, Model: model, Broker: b, Trust: peering.gateway,
			Signer: peering.gateway, Users: peering.users, Door: door, Taken: keeper.has, Log: log.With("part", "peers"),
		})
		if err != nil {
			return &exitError{code: exitRefused, err: errors.New(sentence(err))}
		}
		peering.follows(gw.Follow)
		gw.Introduce() // before jobs are looked at, and new ones taken
		board = newPeerBoard(peering, gw, b)
		neighbour = board
	}
	var accounts console.Agreements // nil: there are none
	if promises != nil {
		accounts = promises.svc
	}
	var buying *purchases
	var purchased console.Purchases // nil where nothing is bought, and not a nil pointer
	if promises != nil && promises.door != nil {
		if buying, err = openPurchases(st, b, gw, peering, promises.asDomain, log); err != nil {
			return &exitError{code: exitRefused, err: errors.New(sentence(err))}
		}
		purchased = buying
	}
	api := console.New(b, console.Options{
		Agreements:    accounts,
		Peers:         neighbour,
		Purchases:     purchased,
		Finder:        peering.finder(),
		Configuration: keeper.shown,
		Version:       v,
		Domain:        domain,
		Principal: func(*http.Request) (soap.Principal, error) {
			return soap.Principal{Name: "anonymous", Method: "none"}, nil
		},
		Log: log.With("part", "console"),
	})
	mounts := map[string]http.Handler{
		"/bes":        service,
		"/bes/a/{id}": service, // where the references of activities point
		"/metrics":    metrics.Handler(telemetry.Only("etcd_", prometheus.DefaultGatherer)),
		"/healthz":    http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }),
		"/readyz":     readiness(b.Ready(), promises, st),
	}
	for _, p := range console.Paths() {
		mounts[p] = api
	}
	if promises != nil {
		mounts["/agreement"] = promises.handler(metrics, log)
	}
	handler := fromHere(soap.NewRouter(mounts))

	// Jobs are looked after until the last request is answered, so the broker does
	// not end with ctx.
	working, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	group, failing := errgroup.WithContext(working)
	if model != nil {
		group.Go(func() error {
			if err := model.Run(working); working.Err() == nil {
				return err
			}
			return nil // it was stopped
		})
	}
	group.Go(func() error { return b.Run(working) })
	if promises != nil {
		group.Go(func() error { return promises.run(working) })
	}
	if holder != nil {
		group.Go(func() error { return holder.Run(working) })
	}
	group.Go(func() error {
		select {
		case <-st.Failed(): // only a new process can open it again
			return st.Health(working)
		case <-working.Done():
			return nil
		}
	})
	up := []<-chan struct{}{b.Ready()}
	if promises != nil {
		up = append(up, promises.svc.Ready())
	}
	for _, ready := range up {
		select {
		case <-ready:
		case <-failing.Done():
			return &exitError{code: exitRefused, err: errors.New(sentence(group.Wait()))}
		case <-ctx.Done():
			stopWork()
			return group.Wait()
		}
	}
	server := soap.NewHTTPServer(handler, log.With("part", "http"))
	requests, stopRequests := context.WithCancel(working)
	defer stopRequests()
	server.BaseContext = func(net.Listener) context.Context { return requests }
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error { return keeper.follow(working) })
	stopPeers := func() {}
	if peering != nil {
		group.Go(func() error { return peering.follow(working) })
		group.Go(func() error { return peering.announce(working) })
		group.Go(func() error { return board.follow(working) })
		if buying != nil {
			group.Go(func() error { return buying.buyer.Run(working) })
		}
		together, part := context.WithCancel(working)
		defer part()
		parted := make(chan struct{})
		group.Go(func() error {
			defer close(parted)
			return gw.Run(together)
		})
		stopDoor := servePeers(working, group, peering, door, promises.peerHandler(metrics))
		stopPeers = func() {
			part() // the sessions are ended while peers still get through to say what is left
			<-parted
			stopDoor()
		}
	}
	log.Info("serving", "bes", base.String(), "data", o.data, "domain", domain, "version", v)
	metricsURL := base
	metricsURL.Path = "/metrics"
	fmt.Fprintf(a.out, "bes: %s\n", &base)
	if promises != nil {
		at := base
		at.Path = "/agreement"
		fmt.Fprintf(a.out, "agreement: %s\n", &at)
	}
	fmt.Fprintf(a.out, "metrics: %s\n", &metricsURL)
	if peering != nil {
		if peering.url != "" {
			fmt.Fprintf(a.out, "peer: %s\n", peering.url)
		}
		fmt.Fprintf(a.out, "fingerprint: %s\n", peering.gateway.Current().Pin()) // which others compare
	}
	fmt.Fprintln(a.out, "ready")

	select {
	case <-ctx.Done():
	case <-failing.Done():
	}
	log.Info("stopping")
	stopPeers()
	drain(server, stopRequests)
	stopWork()
	if err := group.Wait(); err != nil {
		return &exitError{code: exitRefused, err: errors.New(sentence(err))}
	}
	if n := live.Load(); n > 0 {
		a.complain(fmt.Sprintf("stopped with %d jobs that have not ended: those that run go on, and the next gateway on %s takes all of them up", n, o.data))
	}
	return nil
}

const (
	// politeTime is how long requests have to end by themselves once the gateway
	// stops, and lastTime how long they have after they were told to.
	politeTime = time.Second
	lastTime   = 10 * time.Second
)

// drain answers the requests under way and takes no more. Those that are held
// back for want of news are ended; their clients ask again.
func drain(server *http.Server, stopRequests func()) {
	ctx, cancel := context.WithTimeout(context.Background(), politeTime+lastTime)
	defer cancel()
	polite := time.AfterFunc(politeTime, stopRequests)
	defer polite.Stop()
	if server.Shutdown(ctx) != nil {
		server.Close() //nolint:errcheck // nothing is left to be saved
	}
}

func closed(what string, err error) error {
	if err == nil {
		return nil
	}
	return &exitError{code: exitRefused, err: fmt.Errorf("closing %s: %s", what, sentence(err))}
}

// readiness says whether new work can be taken.
func readiness(ready <-chan struct{}, promises *agreements, st store.Store) http.Handler {
	up := []<-chan struct{}{ready}
	if promises != nil {
		up = append(up, promises.svc.Ready())
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, ready := range up {
			select {
			case <-ready:
			default:
				http.Error(w, "starting", http.StatusServiceUnavailable)
				return
			}
		}
		if err := st.Health(r.Context()); err != nil {
			http.Error(w, sentence(err), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
}

// fromHere refuses what a web page of elsewhere makes a browser send: nobody is
// asked who they are, and a browser reaches loopback too. Browsers put Origin on
// every such request (Fetch §3.1); SOAP clients never do.
func fromHere(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if slices.ContainsFunc(r.Header.Values("Origin"), func(s string) bool {
			u, err := url.Parse(s)
			return err != nil || !loopback(u.Hostname())
		}) {
			http.Error(w, "web pages of elsewhere may not use this gateway", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// dataMode is that of the directories on the way to the sites' own. A gateway that is root runs
// jobs as other accounts, which must get through to their own: what else is in there has
// rights of its own, and nobody can see what it is called.
func dataMode() os.FileMode {
	if os.Geteuid() == 0 {
		return 0o711
	}
	return 0o700
}

// makeData makes the directory that everything is kept in. Documents and outputs
// are their owner's alone.
func makeData(dir string) error {
	if err := os.MkdirAll(dir, dataMode()); err != nil {
		return refusedf("the directory for the gateway's data could not be made: %v: choose another with --data", err)
	}
	return nil
}
