package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/agreements/negotiator"
	"github.com/portolan-project/portolan/internal/agreements/service"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/broker/modelstore"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/etcd"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

const (
	promisedCPUs = 512              // of the site that offers are about
	window       = 10 * time.Minute // that an offer asks for
	windows      = 4000             // that there are, one after the other, from tomorrow on
)

// BenchmarkAgreementRatios prints what an offer costs beside a job that is submitted.
func BenchmarkAgreementRatios(b *testing.B) {
	for b.Loop() {
		p := openPromiser(b)
		offers(b, p)
		p.close(b)
	}
	fmt.Println()
}

// promiser is a gateway with all that `serve` ties together where there are agreements: one etcd for
// jobs and agreements, a site whose capacity is offered, and another, with one slot, which is taken, where
// jobs wait.
type promiser struct {
	ctx     context.Context //nolint:containedctx // what it starts ends with it
	end     context.CancelFunc
	done    sync.WaitGroup
	store   *etcd.Store
	sites   []adapters.Adapter
	broker  *broker.Broker
	server  *http.Server
	address string

	job   []byte   // the request that submits one
	head  []byte   // of the request that offers
	parts [][]byte // of its body, before, between and after the times of the window
	first time.Time
	next  atomic.Int64
}

// queued is a job for the site that is taken.
var queued = bytes.Replace([]byte(document), []byte("<jsdl:TotalCPUCount>"),
	[]byte("<jsdl:CPUArchitecture><jsdl:CPUArchitectureName>sparc</jsdl:CPUArchitectureName></jsdl:CPUArchitecture><jsdl:TotalCPUCount>"), 1)

func openPromiser(b *testing.B) *promiser {
	b.Helper()
	p := &promiser{first: time.Now().Add(24 * time.Hour).UTC().Truncate(time.Hour)}
	var err error
	must := func() {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	p.ctx, p.end = context.WithCancel(context.WithoutCancel(b.Context()))
	var sites []broker.Site
	for _, s := range []struct {
		name, architecture string
		slots              int
	}{{"room", "x86_64", promisedCPUs}, {"taken", "sparc", 1}} {
		site := fake.NewWorld(s.slots).Open(fake.Options{Environment: adapters.Environment{
			ID: "all", OperatingSystem: "LINUX", CPUArchitecture: s.architecture, CPUs: s.slots, Memory: 1 << 40, VirtualMemory: 1 << 40, Disk: 1 << 40, Nodes: 1, Available: 1,
		}})
		p.sites = append(p.sites, site)
		sites = append(sites, broker.Site{Name: s.name, Adapter: site})
	}
	p.store, err = etcd.Open(b.Context(), etcd.Options{Dir: filepath.Join(b.TempDir(), "etcd"), Log: log})
	must()
	model, err := modelstore.Open(p.ctx, p.store.Shared(modelstore.Prefixes()...), modelstore.Options{Replica: "bench", Log: log})
	must()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must()
	p.address = listener.Addr().String()
	p.broker, err = broker.New(broker.Config{
		Store: p.store, Model: model, Replica: "bench", Sites: sites, AwaitRoom: true, BaseURL: func() string { return "http://" + p.address + "/bes" }, Log: log, Alone: true,
		Limits: broker.Limits{Live: 50_000_000, LivePerOwner: 50_000_000},
	})
	must()
	// As of jobs, there may be more of agreements here than a gateway takes otherwise.
	e, err := engine.New(p.ctx, p.store, engine.Options{Replica: "bench", Log: log, MaxHolds: 5_000_000, MaxLive: 5_000_000})
	must()
	svc, err := service.New(service.Options{
		Engine: e, Broker: p.broker, Model: model, Settings: terms.Settings{Promise: 100, Horizon: 60 * 24 * time.Hour}, Log: log,
		Join: func(ctx context.Context) (store.Session, error) { return p.store.Join(ctx, "agreements") },
	})
	must()
	negotiations, err := negotiator.New(p.store, e, svc, negotiator.Options{Log: log})
	must()
	svc.Bind(negotiations.Bind)
	for _, run := range []func(context.Context) error{model.Run, p.broker.Run, svc.Run, negotiations.Run} {
		p.done.Go(func() {
			if err := run(p.ctx); err != nil && p.ctx.Err() == nil {
				b.Error(err)
			}
		})
	}
	<-p.broker.Ready()
	p.server = soap.NewHTTPServer(soap.NewRouter(map[string]http.Handler{
		"/bes":       bes.NewServer(p.broker, bes.ServerOptions{Verifier: soap.DevVerifier{}, Log: log}),
		"/agreement": agreement.NewServer(svc, agreement.ServerOptions{Negotiator: negotiations, Verifier: soap.DevVerifier{}, Log: log}),
	}), log)
	p.done.Go(func() {
		if err := p.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			b.Error(err)
		}
	})
	p.job = fmt.Appendf(nil, "POST /bes HTTP/1.1\r\nHost: %s\r\nContent-Type: text/xml; charset=utf-8\r\nSOAPAction: \"%s/BESFactoryPortType/CreateActivity\"\r\nContent-Length: %d\r\n\r\n%s",
		p.address, bes.NSFactory, len(message)+len(queued)-len(document), bytes.Replace([]byte(message), []byte(document), queued, 1))
	p.blocked(b)
	p.offer(b)
	return p
}

// blocked takes the only slot of the site where jobs wait.
func (p *promiser) blocked(b *testing.B) {
	b.Helper()
	c := bes.NewClient(&soap.Client{URL: "http://" + p.address + "/bes"})
	if _, err := c.CreateActivity(b.Context(), &bes.CreateActivityRequest{Document: bytes.Replace(queued, []byte("/bin/true"), []byte("fake:hang"), 1)}); err != nil {
		b.Fatal(err)
	}
}

const mark = "2001-01-01T00:00:00Z"

// offer writes an offer by the gateway's own template, as a client does.
func (p *promiser) offer(b *testing.B) {
	b.Helper()
	c := agreement.NewClient(&soap.Client{URL: "http://" + p.address + "/agreement"})
	var t *agreement.Template
	for deadline := time.Now().Add(time.Minute); t == nil; {
		list, err := c.Templates(b.Context())
		if err != nil && !fail.Is(err, fail.Unavailable) || time.Now().After(deadline) {
			b.Fatalf("there is no template for capacity: %v", err)
		}
		for i := range list {
			if list[i].Name == "capacity@room/fake" {
				t = &list[i]
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	content, err := xmldoc.ReadBytes(fmt.Appendf(nil,
		`<p:Capacity xmlns:p="%s"><p:Site>room</p:Site><p:Share>fake</p:Share><p:CPUs>1</p:CPUs><p:StartTime>%s</p:StartTime><p:EndTime>%[2]s</p:EndTime></p:Capacity>`,
		agreement.NSPortolan, mark), xmldoc.Limits{})
	if err != nil {
		b.Fatal(err)
	}
	o := agreement.Offer{Agreement: t.Agreement}
	o.Term("capacity").(*agreement.ServiceDescription).Description = xmldoc.Detach(content.Root()) //nolint:forcetypeassert // the template is ours
	var sent written
	asked := agreement.NewClient(&soap.Client{URL: "http://" + p.address + "/agreement", Transport: &sent, Retries: -1})
	if _, err := asked.Create(b.Context(), &agreement.CreateRequest{Offer: o}); err == nil || len(sent.body) == 0 {
		b.Fatalf("the client sent nothing: %v", err)
	}
	parts := bytes.Split(sent.body, []byte(mark))
	if len(parts) != 3 {
		b.Fatalf("the offer has %d times, and two are wanted:\n%s", len(parts)-1, sent.body)
	}
	p.head = fmt.Appendf(nil, "POST /agreement HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nSOAPAction: %s\r\nContent-Length: %d\r\n\r\n",
		p.address, sent.header.Get("Content-Type"), sent.header.Get("SOAPAction"), len(sent.body))
	p.parts = parts
}

// written notes what a client would send.
type written struct {
	header http.Header
	body   []byte
}

// RoundTrip implements http.RoundTripper.
func (w *written) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	w.header, w.body = r.Header.Clone(), body
	return nil, errors.New("it is only noted")
}

// ask writes the request for a window into a buffer.
func (p *promiser) ask(into []byte, from time.Time) []byte {
	into = append(into[:0], p.head...)
	into = append(into, p.parts[0]...)
	into = from.AppendFormat(into, time.RFC3339)
	into = append(into, p.parts[1]...)
	into = from.Add(window).AppendFormat(into, time.RFC3339)
	return append(into, p.parts[2]...)
}

// window gives the next of the windows, all of them before one comes again.
func (p *promiser) window() time.Time {
	return p.first.Add(time.Duration(p.next.Add(1)%windows) * window)
}

var (
	agreed  = []byte("CreateAgreementResponse")
	refused = []byte("there is no room for 1 CPU")
)

func (p *promiser) propose(int) (func() error, func(), error) {
	c, err := dial(p.address)
	if err != nil {
		return nil, nil, err
	}
	var request []byte
	return func() error {
		request = p.ask(request, p.window())
		return c.do(request, agreed)
	}, func() { _ = c.conn.Close() }, nil
}

// vain offers for a window that is full.
func (p *promiser) vain(int) (func() error, func(), error) {
	c, err := dial(p.address)
	if err != nil {
		return nil, nil, err
	}
	request := p.ask(nil, p.full())
	return func() error { return c.ask(request, faultStatus, refused) }, func() { _ = c.conn.Close() }, nil
}

// full gives a window of which nothing is left: see fill.
func (p *promiser) full() time.Time { return p.first.Add(-2 * window) }

// fill has all of one window promised.
func (p *promiser) fill(b *testing.B) {
	b.Helper()
	c, err := dial(p.address)
	if err != nil {
		b.Fatal(err)
	}
	defer c.conn.Close()
	request := p.ask(nil, p.full())
	for range promisedCPUs {
		if err := c.do(request, agreed); err != nil {
			b.Fatal(err)
		}
	}
}

func (p *promiser) submit(int) (func() error, func(), error) {
	c, err := dial(p.address)
	if err != nil {
		return nil, nil, err
	}
	return func() error { return c.do(p.job, made) }, func() { _ = c.conn.Close() }, nil
}

func (p *promiser) close(b *testing.B) {
	b.Helper()
	if err := p.server.Close(); err != nil {
		b.Error(err)
	}
	p.end()
	p.done.Wait()
	for _, s := range p.sites {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	}
	if err := p.store.Close(); err != nil {
		b.Error(err)
	}
}

func offers(b *testing.B, p *promiser) {
	b.Helper()
	o, t, r := inTurn(b, clients, p.propose, p.submit)
	fmt.Printf("9  offers decided and recorded, %d clients %8.0f /s   (%4.0f µs of processor each, clients included)\n", clients, o.perSecond, o.processor)
	fmt.Printf("   durable SOAP submissions by the same     %8.0f /s   (%4.0f µs)\n", t.perSecond, t.processor)
	report(b, "offers/submissions", r, "≥ 0.5")
	p.fill(b)
	v, err := during(turn, clients, p.vain)
	if err != nil {
		b.Fatal(err)
	}
	fmt.Printf("   offers refused as there is no room       %8.0f /s   (%4.0f µs)\n", v.perSecond(), v.each())
}
