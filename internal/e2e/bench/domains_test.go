package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/broker/modelstore"
	"github.com/portolan-project/portolan/internal/identity"
	among "github.com/portolan-project/portolan/internal/peering/gateway"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store/etcd"
	"github.com/portolan-project/portolan/peers"
	"github.com/portolan-project/portolan/peers/members"
	"github.com/portolan-project/portolan/peers/routing"
	"github.com/portolan-project/portolan/peers/wire"
	"github.com/portolan-project/portolan/resourcemodel"
)

var log = slog.New(slog.DiscardHandler)

// domain is a gateway with all that `serve` ties together where there are peers: an etcd, a site of
// its own that starts what it is given at once, the door for users and, over TLS, that for peers.
type domain struct {
	name         string
	architecture string // of its site
	dir          string
	ctx          context.Context //nolint:containedctx // what it starts ends with it
	store        *etcd.Store
	world        *fake.World
	site         adapters.Adapter
	// reached hears of each job that the site is given.
	reached chan struct{}
	address string // of the door for users
	url     string // of that for peers

	listener net.Listener
	model    *modelstore.Model
	broker   *broker.Broker
	identity *identity.Gateway
	users    *identity.Users
	gateway  *among.Gateway
	stop     []func() // the last first
	done     sync.WaitGroup
}

// architectures are those by which jobs say at which domain's site they run.
var architectures = []string{"x86_64", "powerpc", "sparc", "parisc", "mips", "ia64", "x86_32", "other", "arm"}

// neighbour is a domain as others need to know it.
type neighbour struct {
	Name, URL, Pin string
}

func (d *domain) card() neighbour {
	return neighbour{d.name, d.url, d.identity.Current().Pin().String()}
}

// join has a domain trust all of a row of domains, in which it is at a place, and be a peer of
// those beside it: each is the parent of the next.
func (d *domain) join(b *testing.B, row []neighbour, at int) {
	b.Helper()
	anchors := make([]identity.Anchor, len(row))
	for i, n := range row {
		pin, err := identity.ParsePin(n.Pin)
		if err != nil {
			b.Fatal(err)
		}
		anchors[i] = identity.Anchor{Domain: n.Name, Pins: []identity.Pin{pin}}
	}
	if err := d.identity.Trusted.Set(anchors); err != nil {
		b.Fatal(err)
	}
	s := members.Settings{Routing: routing.Policy{}.EnsureDefaults(), Hops: len(row)}
	side := func(n neighbour, role wire.Role) {
		s.Members = append(s.Members, members.Member{
			Peer: peers.Peer{
				Domain: n.Name, URL: n.URL, Role: role, Provides: role == wire.Parent, Consumes: role == wire.Child,
				Shows: wire.Full, Every: 50 * time.Millisecond, // so that what is beyond is soon known
			},
			Export: routing.Exporting{Detail: resourcemodel.Full},
		})
	}
	if at > 0 {
		side(row[at-1], wire.Parent)
	}
	if at < len(row)-1 {
		side(row[at+1], wire.Child)
	}
	d.gateway.Follow(s)
}

// street makes n domains in a row, and waits until a job of the first reaches the site of the last.
func street(b *testing.B, n int) []*domain {
	b.Helper()
	all := make([]*domain, n)
	row := make([]neighbour, n)
	for i := range all {
		all[i] = openDomain(b, fmt.Sprintf("d%d.example", i), architectures[i])
		all[i].meet(b)
		row[i] = all[i].card()
	}
	for i, d := range all {
		d.join(b, row, i)
	}
	all[0].first(b, architectures[n-1], all[n-1].reached)
	return all
}

// first submits one job, and waits until it has reached a site: then the sessions stand, and what
// is shown over them is known.
func (d *domain) first(b *testing.B, architecture string, reached <-chan struct{}) {
	b.Helper()
	c, err := dial(d.address)
	if err != nil {
		b.Fatal(err)
	}
	defer c.conn.Close() //nolint:errcheck // nothing of it is needed
	if err := c.do(d.request(architecture), made); err != nil {
		b.Fatal(err)
	}
	await(b, reached, 1)
}

// await waits until so many jobs have reached a site.
func await(b *testing.B, reached <-chan struct{}, n int) {
	b.Helper()
	patience := time.NewTimer(2 * time.Minute)
	defer patience.Stop()
	for range n {
		select {
		case <-reached:
		case <-patience.C:
			b.Fatal("not all jobs have reached the site that they were for")
		}
	}
}

// openDomain opens a domain that knows of no others yet.
func openDomain(b *testing.B, name, architecture string) *domain {
	b.Helper()
	d := &domain{name: name, architecture: architecture, dir: b.TempDir(), world: fake.NewWorld(0), reached: make(chan struct{}, 1<<16)}
	var err error
	must := func() {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.Context()))
	d.ctx, d.stop = ctx, []func(){cancel}
	d.world.Inject(func(op string, _ adapters.Tag) fake.Fault {
		if op == "submit" {
			d.reached <- struct{}{}
		}
		return fake.Fault{}
	})
	d.site = d.world.Open(fake.Options{Bulk: true, Environment: adapters.Environment{
		ID: "all", OperatingSystem: "LINUX", CPUArchitecture: architecture, CPUs: 64, Memory: 1 << 40, VirtualMemory: 1 << 40, Disk: 1 << 40, Nodes: 4096, Available: 4096,
	}})
	d.store, err = etcd.Open(b.Context(), etcd.Options{Dir: filepath.Join(d.dir, "etcd"), Domain: d.name, Log: log})
	must()
	shared := d.store.Shared(modelstore.Prefixes()...)
	d.model, err = modelstore.Open(ctx, shared, modelstore.Options{Domain: d.name, Replica: "bench", Log: log})
	must()
	door, err := net.Listen("tcp", "127.0.0.1:0")
	must()
	d.address = door.Addr().String()
	d.broker, err = broker.New(broker.Config{
		Store: d.store, Domain: d.name, Replica: "bench", Shared: shared, Model: d.model, Sites: []broker.Site{{Name: "local", Adapter: d.site}},
		BaseURL: func() string { return "http://" + d.address + "/bes" }, Log: log, Alone: true,
		Limits: broker.Limits{Live: 50_000_000, LivePerOwner: 50_000_000},
	})
	must()
	d.run(b, func() error { return d.model.Run(ctx) })
	d.run(b, func() error { return d.broker.Run(ctx) })
	<-d.broker.Ready()
	d.serve(b, soap.NewHTTPServer(soap.NewRouter(map[string]http.Handler{"/bes": bes.NewServer(d.broker, bes.ServerOptions{Verifier: soap.DevVerifier{}, Log: log})}), log), door)
	return d
}

// run runs f until the domain is closed.
func (d *domain) run(b *testing.B, f func() error) {
	d.done.Go(func() {
		if err := f(); err != nil && d.ctx.Err() == nil {
			b.Error(err)
		}
	})
}

func (d *domain) serve(b *testing.B, s *http.Server, l net.Listener) {
	d.run(b, func() error {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	d.stop = append(d.stop, func() { _ = s.Close() })
}

// meet opens the domain's door for peers, and has it call those that it is told of.
func (d *domain) meet(b *testing.B) {
	b.Helper()
	var err error
	must := func() {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	id, err := identity.Open(identity.Options{Domain: d.name, Dir: filepath.Join(d.dir, "identity"), Log: log})
	must()
	trust, err := identity.NewTrust()
	must()
	d.listener, err = net.Listen("tcp", "127.0.0.1:0")
	must()
	d.url = "https://" + d.listener.Addr().String() + "/peer"
	d.identity = &identity.Gateway{Identity: id, Trusted: trust, Endpoint: d.url} // signatures are required, as by default
	d.users = identity.NewUsers(d.identity)
	err = d.users.SetMapping(identity.Mapping{{Account: "guest"}})
	must()
	peerDoor := peers.NewServer(peers.ServerOptions{Trust: d.identity, ExternalURL: d.url, Log: log})
	d.gateway, err = among.New(among.Options{
		Domain: d.name, Replica: "bench", Software: "bench", Endpoint: d.url, Store: d.store, Model: d.model, Broker: d.broker, Trust: d.identity, Signer: d.identity,
		Users: d.users, Door: peerDoor, Log: log,
	})
	must()
	secure := soap.NewHTTPServer(soap.NewRouter(map[string]http.Handler{"/peer": peerDoor}), log)
	secure.TLSConfig = d.identity.ServerTLS()
	d.serve(b, secure, tls.NewListener(d.listener, secure.TLSConfig))
	together, part := context.WithCancel(d.ctx)
	parted := make(chan struct{})
	d.run(b, func() error {
		defer close(parted)
		return d.gateway.Run(together)
	})
	d.stop = append(d.stop, func() { part(); <-parted })
}

func (d *domain) close(b *testing.B) {
	b.Helper()
	for i := len(d.stop) - 1; i >= 0; i-- {
		d.stop[i]()
	}
	d.done.Wait()
	d.broker.Close()
	d.world.Close()
	if err := d.store.Close(); err != nil {
		b.Error(err)
	}
}

// request is a submission to the domain of a job for sites of an architecture: as the one of the other
// ratios, but that it is at a site in memory and does not end meanwhile.
func (d *domain) request(architecture string) []byte {
	m := strings.NewReplacer(
		"/bin/true", "fake:sleep 3600;out",
		"<jsdl:TotalCPUCount>", "<jsdl:CPUArchitecture><jsdl:CPUArchitectureName>"+architecture+"</jsdl:CPUArchitectureName></jsdl:CPUArchitecture><jsdl:TotalCPUCount>",
	).Replace(message)
	return fmt.Appendf(nil, "POST /bes HTTP/1.1\r\nHost: %s\r\nContent-Type: text/xml; charset=utf-8\r\nSOAPAction: \"%s/BESFactoryPortType/CreateActivity\"\r\nContent-Length: %d\r\n\r\n%s",
		d.address, bes.NSFactory, len(m), m)
}
