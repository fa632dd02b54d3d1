package replica

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/agreements/service"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/broker/modelstore"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/mem"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/jsdl"
)

// process is one of a domain.
type process struct {
	t      *testing.T
	url    string
	engine *engine.Engine
	svc    *service.Service
	r      *Replica // nil of the holder
	client *agreement.Client
	stop   func()
}

const patience = 2 * time.Minute

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// begin runs parts of a process, until stop.
func begin(t *testing.T, st store.Store, name string) (*process, *modelstore.Model, context.Context, func(func(context.Context) error)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	model, err := modelstore.Open(ctx, st, modelstore.Options{Replica: name, Interval: -1})
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t}
	if p.engine, err = engine.New(ctx, st, engine.Options{Replica: name}); err != nil {
		t.Fatal(err)
	}
	n, done := 0, make(chan error, 10)
	run := func(f func(context.Context) error) {
		n++
		go func() { done <- f(ctx) }()
	}
	stopped := false
	p.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		for range n {
			if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("%s ended with: %v", name, err)
			}
		}
	}
	run(func(ctx context.Context) error { _ = model.Run(ctx); return nil })
	return p, model, ctx, run
}

func (p *process) serve(h http.Handler) {
	transport := &http.Transport{}
	s := httptest.NewServer(nil)
	s.Config.Handler = h
	p.url = s.URL
	p.client = agreement.NewClient(&soap.Client{URL: s.URL + "/agreement", Addressing: true, Transport: transport, Timeout: patience, Retries: -1})
	stop := p.stop
	p.stop = func() { transport.CloseIdleConnections(); s.Close(); stop() }
}

func endpoint(svc *service.Service) http.Handler {
	return agreement.NewServer(svc, agreement.ServerOptions{Verifier: soap.DevVerifier{}})
}

var cpus = adapters.Environment{
	ID: "fake", OperatingSystem: "LINUX", OSVersion: "6.1", CPUArchitecture: "x86_64", CPUs: 8, CPUSpeed: 2e9,
	Memory: 64 << 30, VirtualMemory: 64 << 30, Disk: 1 << 40, HostNames: []string{"fake"}, Nodes: 1, Available: 1,
}

var promised = terms.Settings{Promise: 100}

// either is an administrator's template: capacity, or else a job.
func either() []agreement.Template {
	term := func(name, content string) string {
		return `<wsag:ServiceDescriptionTerm wsag:Name="` + name + `" wsag:ServiceName="run">` + content + `</wsag:ServiceDescriptionTerm>`
	}
	capacity := `<p:Capacity><p:Site>here</p:Site><p:Share>fake</p:Share><p:CPUs>1</p:CPUs><p:StartTime>2031-01-01T00:00:00Z</p:StartTime><p:EndTime>2031-01-01T01:00:00Z</p:EndTime></p:Capacity>`
	list, err := terms.Load(map[string][]byte{"either.xml": []byte(`<wsag:Template xmlns:wsag="` + agreement.NS + `" xmlns:p="` + agreement.NSPortolan + `" wsag:TemplateId="1"><wsag:Name>either</wsag:Name>` +
		`<wsag:Context><wsag:ServiceProvider>AgreementResponder</wsag:ServiceProvider></wsag:Context><wsag:Terms><wsag:All><wsag:ExactlyOne>` +
		term("capacity", capacity) + term("job", task) + `</wsag:ExactlyOne></wsag:All></wsag:Terms><wsag:CreationConstraints/></wsag:Template>`)})
	if err != nil {
		panic(err)
	}
	return list
}

const task = `<jsdl:JobDefinition xmlns:jsdl="` + jsdl.NS + `" xmlns:x="` + jsdl.NSPOSIX + `"><jsdl:JobDescription><jsdl:Application><x:POSIXApplication>` +
	`<x:Executable>fake:exit 0</x:Executable></x:POSIXApplication></jsdl:Application></jsdl:JobDescription></jsdl:JobDefinition>`

func promises() Promises {
	s := promised
	s.EnsureDefaults()
	return Promises{Settings: s}
}

// startHolder gives a process with a site of 4 CPUs.
func startHolder(t *testing.T, st store.Store, world *fake.World) *process {
	t.Helper()
	p, model, _, run := begin(t, st, HolderName)
	mux := http.NewServeMux()
	p.serve(mux)
	none := 0
	b, err := broker.New(broker.Config{
		Store: st, Model: model, AwaitRoom: true, BaseURL: func() string { return p.url + "/bes" },
		Sites: []broker.Site{{Name: "here", Adapter: world.Open(fake.Options{Environment: cpus}), Model: broker.SiteModel{Ahead: &none}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	stop := p.stop
	p.stop = func() { stop(); b.Close() }
	p.svc, err = service.New(service.Options{Engine: p.engine, Broker: b, Model: model, Settings: promised, Own: either(), Join: func(ctx context.Context) (store.Session, error) { return st.Join(ctx, "agreements") }})
	if err != nil {
		t.Fatal(err)
	}
	mux.Handle("/agreement", endpoint(p.svc))
	mux.Handle("/bes", bes.NewServer(b, bes.ServerOptions{Verifier: soap.DevVerifier{}}))
	h := NewHolder(HolderOptions{Store: st, URL: p.url, Promises: promises(), Sights: b.Sights})
	run(b.Run)
	run(p.svc.Run)
	run(h.Run)
	<-b.Ready()
	eventually(t, "the capacity is known", func() bool { return len(p.engine.Pools()) > 0 })
	eventually(t, "who has the sites says so", func() bool { // else a replica believes that nobody has them
		list, _, err := st.ListRecords(t.Context(), holderKey, store.RecordOptions{Limit: 1})
		return err == nil && len(list) > 0
	})
	return p
}

func startReplica(t *testing.T, st store.Store, name string) *process {
	t.Helper()
	p, model, ctx, run := begin(t, st, "replica-"+name)
	mux := http.NewServeMux()
	p.serve(mux)
	var err error
	if p.r, err = New(ctx, Options{Name: name, Store: st, Model: model, URL: p.url, Promises: promises()}); err != nil {
		t.Fatal(err)
	}
	p.svc, err = service.New(service.Options{Engine: p.engine, Broker: p.r, Model: model, Settings: promised, Own: either(), Decides: true})
	if err != nil {
		t.Fatal(err)
	}
	mux.Handle("/agreement", p.r.Agreements(endpoint(p.svc)))
	mux.Handle("/", p.r.Proxy())
	run(p.r.Run)
	run(p.svc.Run)
	return p
}

func (p *process) by(template string) *agreement.Offer {
	p.t.Helper()
	list, err := p.client.Templates(context.Background())
	if err != nil {
		p.t.Fatal(err)
	}
	for i := range list {
		if list[i].Name == template {
			o := agreement.Offer{Agreement: list[i].Agreement}
			parsed, err := agreement.ParseOffer(xmldoc.Marshal(o.Encode()))
			if err != nil {
				p.t.Fatal(err)
			}
			return parsed
		}
	}
	p.t.Fatalf("there is no template %s among %d", template, len(list))
	return nil
}

func (p *process) offer(o *agreement.Offer) (string, error) {
	return p.client.Create(context.Background(), &agreement.CreateRequest{Offer: *o})
}

// say replaces the description of a term.
func (p *process) say(o *agreement.Offer, term, content string) {
	p.t.Helper()
	doc, err := xmldoc.ReadBytes([]byte(content), xmldoc.Limits{})
	if err != nil {
		p.t.Fatal(err)
	}
	o.Term(term).(*agreement.ServiceDescription).Description = xmldoc.Detach(doc.Root())
	o.Element = nil
}

func window(n string, from time.Time) string {
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	return `<p:Capacity xmlns:p="` + agreement.NSPortolan + `"><p:Site>here</p:Site><p:Share>fake</p:Share><p:CPUs>` + n + `</p:CPUs><p:StartTime>` +
		at(from) + `</p:StartTime><p:EndTime>` + at(from.Add(time.Hour)) + `</p:EndTime></p:Capacity>`
}

// capacity wants so many CPUs for an hour.
func (p *process) capacity(n string, from time.Time) (string, error) {
	p.t.Helper()
	o := p.by("capacity@here/fake")
	p.say(o, "capacity", window(n, from))
	return p.offer(o)
}

// state gives that of an agreement; "" when it can't be had.
func (p *process) state(key string) agreement.State {
	q, err := p.client.Agreement(context.Background(), key)
	if err != nil {
		return ""
	}
	return q.State
}

// TestDomain: what one of two processes promises, the other does not promise again; who has the sites keeps it;
// and what needs a site is done by that one, or refused while it is away.
func TestDomain(t *testing.T) {
	st := mem.New()
	defer st.Close()
	world := fake.NewWorld(4)
	defer world.Close()
	again := fake.NewWorld(4)
	defer again.Close()
	main := startHolder(t, st, world)
	defer func() { main.stop() }()
	second := startReplica(t, st, "b")
	defer func() { second.stop() }()
	told, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if !second.r.Told(told) {
		t.Fatal("nothing is told of the sites")
	}
	from := time.Now().Add(2 * time.Hour).Truncate(time.Second)
	key, err := second.capacity("3", from)
	if err != nil {
		t.Fatal(err)
	}
	if s := main.state(key); s != agreement.Observed {
		t.Errorf("at the gateway it is %q", s)
	}
	for _, p := range []*process{main, second} {
		if _, err := p.capacity("2", from); !fail.Is(err, fail.Exhausted) {
			t.Errorf("it is promised twice: %v", err)
		}
	}
	other, err := main.capacity("1", from)
	if err != nil {
		t.Fatal(err)
	}
	if s := second.state(other); s != agreement.Observed {
		t.Errorf("at the replica it is %q", s)
	}
	// The end is asked for at one, and done by the other.
	if err := second.client.Terminate(t.Context(), key, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is terminated", func() bool { return second.state(key) == agreement.Terminated })

	// A job is for who has the sites: it is asked in place of the replica, which is not noticed.
	job := second.by("best-effort@here/fake")
	second.say(job, "job", task)
	key, err = second.offer(job)
	if err != nil {
		t.Fatalf("the offer with a job: %v", err)
	}
	eventually(t, "its job has run", func() bool { return second.state(key) == agreement.Complete })
	factory, err := bes.NewClient(&soap.Client{URL: second.url + "/bes", Transport: second.r.http}).GetFactoryAttributesDocument(t.Context())
	if err != nil || !factory.IsAcceptingNewActivities {
		t.Errorf("the gateway, asked at the replica, says %+v, %v", factory, err)
	}

	main.stop()
	eventually(t, "it is known that nobody has the sites", func() bool { return second.r.holder() == nil })
	if _, err := second.capacity("2", from); err != nil {
		t.Errorf("capacity is refused while nobody has the sites: %v", err)
	}
	if _, err := second.offer(job); !fail.Is(err, fail.Unavailable) || !strings.Contains(err.Error(), "the gateway that has the sites, which is not there now") {
		t.Errorf("a job is answered with: %v", err)
	}

	// It comes back, and keeps what was agreed on meanwhile.
	main = startHolder(t, st, again)
	if _, err := main.capacity("2", from); !fail.Is(err, fail.Exhausted) {
		t.Errorf("it is promised twice: %v", err)
	}
}

// TestEither: what has a job among its choices is answered by who has the sites, and nothing is made of the
// choices that could be had here.
func TestEither(t *testing.T) {
	st := mem.New()
	defer st.Close()
	world := fake.NewWorld(4)
	defer world.Close()
	main := startHolder(t, st, world)
	defer func() { main.stop() }()
	second := startReplica(t, st, "b")
	defer second.stop()
	told, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if !second.r.Told(told) {
		t.Fatal("nothing is told of the sites")
	}
	from := time.Now().Add(2 * time.Hour).Truncate(time.Second)
	const offers = 4
	for i := range offers { // whoever is lucky makes none beside it each time
		o := second.by("either")
		second.say(o, "capacity", window("1", from.Add(time.Duration(i)*time.Hour)))
		if _, err := second.offer(o); err != nil {
			t.Fatal(err)
		}
	}
	list, err := main.client.List(t.Context(), "", 100)
	if err != nil || len(list) != offers {
		t.Errorf("of %d offers there are %d agreements, %v", offers, len(list), err)
	}
}

// TestPreparedAgain: what is prepared and needs a manager is held only once who has the sites says so, whoever is
// asked again; a capacity is held by the calendar.
func TestPreparedAgain(t *testing.T) {
	st := mem.New()
	defer st.Close()
	world := fake.NewWorld(4)
	defer world.Close()
	main := startHolder(t, st, world)
	defer main.stop()
	second := startReplica(t, st, "b")
	defer second.stop()
	told, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if !second.r.Told(told) {
		t.Fatal("nothing is told of the sites")
	}
	from := time.Now().Add(2 * time.Hour).Truncate(time.Second)
	at := func(t time.Time) string { return t.UTC().Format(time.RFC3339) }
	reserved, capacity := second.by("advance-reservation@here/fake"), second.by("capacity@here/fake")
	second.say(reserved, "job", task)
	second.say(reserved, "window", `<p:Window xmlns:p="`+agreement.NSPortolan+`"><p:StartTime>`+at(from)+`</p:StartTime><p:EndTime>`+at(from.Add(time.Hour))+`</p:EndTime></p:Window>`)
	second.say(capacity, "capacity", window("1", from))
	until := time.Now().Add(5 * time.Minute)
	prepare := func(what string, o *agreement.Offer) (string, error) {
		return second.client.Prepare(t.Context(), &agreement.CreateRequest{Offer: *o}, agreement.Preparation{Key: what, Until: until})
	}
	note := func(key string) string { // as who has the sites knows it, which writes it
		r, err := main.engine.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		return string(r.Notes[service.NoteName])
	}
	keys := map[string]string{}
	for what, o := range map[string]*agreement.Offer{"reserved": reserved, "capacity": capacity} {
		key, err := prepare(what, o)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		keys[what] = key
	}
	if key := keys["reserved"]; !strings.Contains(note(key), "handle") {
		t.Errorf("it is not held at the site: %s", note(key))
	}
	// As if the gateway had died before it asked the manager.
	if _, err := main.engine.Update(t.Context(), keys["reserved"], func(r *engine.Record) error { r.Notes = nil; return nil }); err != nil {
		t.Fatal(err)
	}
	again, err := prepare("reserved", reserved)
	if err != nil || again != keys["reserved"] {
		t.Errorf("again it is %s, %v; want %s", again, err, keys["reserved"])
	}
	if !strings.Contains(note(again), "handle") {
		t.Errorf("said to be held, it is not at the site: %s", note(again))
	}
	main.stop()
	eventually(t, "it is known that nobody has the sites", func() bool { return second.r.holder() == nil })
	if _, err := prepare("reserved", reserved); !fail.Is(err, fail.Unavailable) {
		t.Errorf("while nobody has the sites: %v", err)
	}
	if again, err := prepare("capacity", capacity); err != nil || again != keys["capacity"] {
		t.Errorf("the capacity is %s, %v; want %s", again, err, keys["capacity"])
	}
}
