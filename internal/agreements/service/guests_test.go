package service

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portolan-project/portolan/adapters/fake"
	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/calendar"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/resourcemodel"
)

// host lets guests have what is at one site, and no jobs where it says so.
type host struct {
	mu     sync.Mutex
	site   string
	closed string
	asked  []string
	most   int64 // CPUs; 0 is any
}

func (h *host) View(who soap.Principal, m *resourcemodel.Snapshot) (*resourcemodel.Snapshot, error) {
	if who.Domain != "fiu" {
		return nil, fail.Errorf("test", fail.Denied, "", "the domain %s is no peer", who.Domain)
	}
	var gone []resourcemodel.Change
	for s := range m.Sites() {
		if s.Site != h.site {
			gone = append(gone, resourcemodel.Change{Key: s.Key, Gone: true})
		}
	}
	return m.Apply(resourcemodel.Delta{Revision: m.Revision() + 1, At: m.At(), Changes: gone})
}

func (h *host) Admit(who soap.Principal, vo string, job bool, cpus int64, wall time.Duration) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = append(h.asked, fmt.Sprintf("%s %q %t %d %s", who.Name, vo, job, cpus, wall))
	if h.most > 0 && cpus > h.most {
		return fail.Errorf("test", fail.Unsupported, "", "%d CPUs are too many", cpus)
	}
	if h.closed != "" {
		return fail.Errorf("test", fail.NotAccepting, "", "%s", h.closed)
	}
	return nil
}

// TestGuests: those of other domains get what they may, run as who they are here, and see their own.
func TestGuests(t *testing.T) {
	h := &host{site: "there"}
	sites := []site{{name: "here", world: fake.NewWorld(4)}, {name: "there", world: fake.NewWorld(4)}}
	ada := soap.WithPrincipal(context.Background(), soap.Principal{Name: "ada@fiu", Method: "tls", Domain: "fiu", Account: "guest"})
	alone(t, sites, func(t *testing.T, g *gateway) {
		g.until("both sites are known", func() bool { return len(g.engine.Pools()) > 1 })
		list, err := g.Templates(ada)
		if err != nil || len(list) == 0 {
			t.Fatal(list, err)
		}
		named := map[string]agreement.Template{}
		for _, x := range list {
			named[x.Name] = x
		}
		if _, ok := named["finish-by@there/fake"]; !ok || named["finish-by@here/fake"].Name != "" {
			t.Errorf("they are shown %d templates: %+v", len(list), named)
		}
		offer := func(ctx context.Context, o offering) (string, error) {
			doc := xmldoc.Marshal(o.Encode())
			parsed, err := agreement.ParseOffer(doc)
			if err != nil {
				t.Fatal(err)
			}
			return g.Create(ctx, &agreement.CreateRequest{Offer: *parsed, Received: doc})
		}
		soon := func(template string) offering {
			return g.by("ada", template).say("job", job("sleep 600", time.Hour, 2)).say("finishBy", finishBy(time.Now().Add(3*time.Hour)))
		}
		if _, err := offer(ada, soon("finish-by@here/fake")); !fail.Is(err, fail.NotFound) {
			t.Errorf("at a site that they are not shown: %v", err)
		}
		key, err := offer(ada, soon("finish-by@there/fake"))
		if err != nil {
			t.Fatal(err)
		}
		if want := `ada@fiu "" true 2 1h0m0s`; len(h.asked) == 0 || h.asked[len(h.asked)-1] != want {
			t.Errorf("it was asked for %q", h.asked)
		}
		if _, err := g.Agreement(as1("ada"), key); !fail.Is(err, fail.NotFound) {
			t.Errorf("another sees it: %v", err)
		}
		r := g.ends(key)
		if r.State != agreement.Complete || r.Owner != "ada@fiu" || len(r.Jobs) != 1 {
			t.Fatalf("%+v\n%s", r, g.story(key))
		}
		recs, err := g.st.Get(t.Context(), r.Jobs[0])
		if err != nil {
			t.Fatal(err)
		}
		if p := recs[r.Jobs[0]].Status.Promise; p == nil || p.Account != "guest" {
			t.Errorf("the job is promised as %+v", p)
		}
		h.mu.Lock()
		h.closed = "we are on holiday"
		h.mu.Unlock()
		if _, err := offer(ada, soon("finish-by@there/fake")); !fail.Is(err, fail.NotAccepting) || fail.Sentence(err) != `the term "job": we are on holiday` {
			t.Errorf("%v", err)
		}
		if _, err := offer(as1("ada"), soon("finish-by@here/fake")); err != nil {
			t.Errorf("our own users are not asked about: %v", err)
		}
		if _, err := g.Templates(soap.WithPrincipal(t.Context(), soap.Principal{Name: "eve@x", Domain: "x"})); !fail.Is(err, fail.Denied) {
			t.Errorf("%v", err)
		}
	}, whole, func(_ *broker.Config, o *Options) { o.Guests = h })

	alone(t, one(1), func(t *testing.T, g *gateway) {
		if _, err := g.Templates(ada); !fail.Is(err, fail.Denied) {
			t.Errorf("a gateway without guests: %v", err)
		}
	}, whole)
}

// TestGuestsAreBounded: what one peer makes and ends, again and again, fills no store.
func TestGuestsAreBounded(t *testing.T) {
	h := &host{site: "here"}
	of := func(name, domain string) context.Context {
		return soap.WithPrincipal(context.Background(), soap.Principal{Name: name, Method: "tls", Domain: domain, Account: "guest"})
	}
	const hourly = 12
	alone(t, []site{{name: "here", world: fake.NewWorld(64)}}, func(t *testing.T, g *gateway) {
		request := func(pad int) *agreement.CreateRequest {
			o := g.by("ada", "finish-by@here/fake").say("job", job("sleep 36000", 12*time.Hour, 1)).say("finishBy", finishBy(time.Now().Add(40*time.Hour)))
			doc := append(xmldoc.Marshal(o.Encode()), bytes.Repeat([]byte{' '}, pad)...)
			parsed, err := agreement.ParseOffer(doc)
			if err != nil {
				t.Fatal(err)
			}
			return &agreement.CreateRequest{Offer: *parsed, Received: doc}
		}
		cost := 1 + (len(request(0).Received)-1)/guestBytes
		ways := []func(context.Context, *agreement.CreateRequest) (string, error){
			g.Create, g.CreatePending,
			func(ctx context.Context, req *agreement.CreateRequest) (string, error) {
				return g.Prepare(ctx, req, agreement.Preparation{Key: fmt.Sprint(time.Now().UnixNano()), Until: time.Now().Add(time.Minute)})
			},
		}
		made := 0
		var err error
		for made = range 100 {
			var key string
			who := of(fmt.Sprintf("ada%d@fiu", made), "fiu") // a peer has as many users as it likes
			if key, err = ways[made%len(ways)](who, request(0)); err != nil {
				break
			}
			if err := g.Terminate(who, key, nil); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if made != hourly/cost || !fail.Is(err, fail.Exhausted) || !strings.Contains(fail.Sentence(err), "the domain fiu has made 12 offers within the hour") {
			t.Errorf("after %d: %v", made, err)
		}
		if _, err := g.Create(as1("ada"), request(0)); err != nil {
			t.Errorf("our own users are not counted: %v", err)
		}
		time.Sleep(time.Hour)
		if _, err := g.Create(of("ada@fiu", "fiu"), request(guestBytes*(hourly-cost+1))); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		if _, err := g.Create(of("ada@fiu", "fiu"), request(0)); !fail.Is(err, fail.Exhausted) {
			t.Errorf("a long one counts as several: %v", err)
		}
		for range 5 {
			time.Sleep(time.Hour)
			_, err = g.Create(of("ada@fiu", "fiu"), request(0))
		}
		if !fail.Is(err, fail.Exhausted) || !strings.Contains(fail.Sentence(err), "4 agreements with the domain fiu have not ended, and 4 may be") {
			t.Errorf("%v", err)
		}
		bad := g.o
		bad.MaxHourly = -1
		if err := bad.Validate(); !fail.Is(err, fail.Invalid) {
			t.Errorf("%v", err)
		}
	}, whole, func(_ *broker.Config, o *Options) { o.Guests, o.MaxHourly, o.MaxGuests = h, hourly, 4 })
}

// TestGuestsHaveNoMore: what a guest may have bounds what is held, however it is asked for.
func TestGuestsHaveNoMore(t *testing.T) {
	h := &host{site: "here", most: 2}
	ada := soap.WithPrincipal(context.Background(), soap.Principal{Name: "ada@fiu", Method: "tls", Domain: "fiu", Account: "guest"})
	alone(t, []site{{name: "here", world: fake.NewWorld(64)}}, func(t *testing.T, g *gateway) {
		from := time.Now().Add(time.Hour)
		capacity := func(amount string) offering {
			return g.by("ada", "capacity@here/fake").say("capacity", "<p:Capacity"+pns+"><p:Site>here</p:Site><p:Share>fake</p:Share>"+amount+"<p:StartTime>"+at(from)+"</p:StartTime><p:EndTime>"+at(from.Add(time.Hour))+"</p:EndTime></p:Capacity>")
		}
		memory := func(gibibytes int) offering {
			doc := strings.Replace(job("sleep 60", time.Hour, 1), "</jsdl:TotalCPUCount>", fmt.Sprintf("</jsdl:TotalCPUCount><jsdl:TotalPhysicalMemory><jsdl:LowerBoundedRange>%d</jsdl:LowerBoundedRange></jsdl:TotalPhysicalMemory>", gibibytes<<30), 1)
			return g.by("ada", "finish-by@here/fake").say("job", doc).say("finishBy", finishBy(from.Add(2*time.Hour)))
		}
		for what, c := range map[string]struct {
			offer offering
			words string
		}{
			"CPUs":     {capacity("<p:CPUs>3</p:CPUs>"), "3 CPUs are too many"},
			"few CPUs": {capacity("<p:CPUs>2</p:CPUs>"), ""},
			"memory":   {memory(4), "4 CPUs are too many"}, // that of so many CPUs is held
			"little":   {memory(2), ""},
		} {
			doc := xmldoc.Marshal(c.offer.Encode())
			parsed, err := agreement.ParseOffer(doc)
			if err != nil {
				t.Fatal(err)
			}
			switch key, err := g.Create(ada, &agreement.CreateRequest{Offer: *parsed, Received: doc}); {
			case c.words == "" && err != nil:
				t.Errorf("%s: %v", what, err)
			case c.words != "" && (!fail.Is(err, fail.Unsupported) || !strings.Contains(fail.Sentence(err), c.words)):
				t.Errorf("%s: %s, %v", what, key, err)
			}
		}
		who := soap.PrincipalFrom(ada)
		booked := &terms.Request{Services: []terms.Service{{Term: "capacity", Capacity: &terms.Booking{Amount: calendar.Amount{Slots: 3}}}}}
		if err := g.admit(who, "", booked); !fail.Is(err, fail.Unsupported) {
			t.Errorf("slots: %v", err)
		}
		// A plan may take more than was asked for: whole nodes.
		q := &terms.Request{Services: []terms.Service{{Term: "job", Job: &jsdl.JobDefinition{}}}}
		if err := g.admit(who, "", q, terms.Placed{CPUs: 2, Nodes: 1}); err != nil {
			t.Error(err)
		}
		if err := g.admit(who, "", q, terms.Placed{CPUs: 4, Nodes: 1}); !fail.Is(err, fail.Unsupported) || fail.Sentence(err) != `the term "job": 4 CPUs are too many` {
			t.Errorf("%v", err)
		}
	}, whole, func(_ *broker.Config, o *Options) { o.Guests = h })
}

// TestGuestsAreToldElsewhere: no peer has the gateway call what listens at its own machine, and who prepares an offer
// is told of no decision, which is its own.
func TestGuestsAreToldElsewhere(t *testing.T) {
	h := &host{site: "here"}
	ada := soap.WithPrincipal(context.Background(), soap.Principal{Name: "ada@fiu", Method: "tls", Domain: "fiu", Account: "guest"})
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := newCallers([]string{"loopback", "localhost.example"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if conn, err := c.of("").own.DialContext(t.Context(), "tcp", l.Addr().String()); err != nil {
		t.Errorf("our own users: %v", err)
	} else {
		_ = conn.Close()
	}
	if conn, err := c.of("fiu").own.DialContext(t.Context(), "tcp", l.Addr().String()); !fail.Is(err, fail.Denied) {
		t.Errorf("guests: %v %v", conn, err)
	}
	c.close()
	alone(t, []site{{name: "here", world: fake.NewWorld(8)}}, func(t *testing.T, g *gateway) {
		doc := xmldoc.Marshal(g.by("ada", "finish-by@here/fake").say("job", job("sleep 600", time.Hour, 1)).say("finishBy", finishBy(time.Now().Add(3*time.Hour))).Encode())
		parsed, err := agreement.ParseOffer(doc)
		if err != nil {
			t.Fatal(err)
		}
		to := func(address string) *agreement.CreateRequest {
			return &agreement.CreateRequest{Offer: *parsed, Received: doc, AcceptanceEPR: new(agreement.NewEPR(address, "mine"))}
		}
		for address, kind := range map[string]fail.Kind{
			"http://127.0.0.1:8080/x": fail.Denied, "http://[::1]:8080/x": fail.Denied, "http://localhost:8080/x": fail.Denied, "http://[::ffff:127.0.0.1]/": fail.Denied,
			"http://initiator.example/x": 0, "http://10.1.2.3/x": 0,
		} {
			if _, err := g.CreatePending(ada, to(address)); kind == 0 && err != nil || kind != 0 && !fail.Is(err, kind) {
				t.Errorf("%s: %v", address, err)
			}
		}
		if _, err := g.CreatePending(as1("ada"), to("http://127.0.0.1:8080/x")); err != nil {
			t.Errorf("our own users: %v", err)
		}
		key, err := g.Prepare(as1("ada"), to("http://evil.example/x"), agreement.Preparation{Key: "k", Until: time.Now().Add(time.Minute)})
		if err != nil {
			t.Fatal(err)
		}
		if d, err := detailOf(new(g.record(key))); err != nil || d.Acceptance != "" {
			t.Errorf("%+v %v", d, err)
		}
	}, whole, func(_ *broker.Config, o *Options) {
		o.Guests, o.Callbacks = h, []string{"loopback", "initiator.example", "10.0.0.0/8"}
		o.Transport = inside{http.NotFoundHandler()}
	})
}

// TestGuestsSeeTheirOwn: what one peer is shown of the sites says nothing of what another is.
func TestGuestsSeeTheirOwn(t *testing.T) {
	shown := func(vo string) *resourcemodel.Snapshot {
		m, err := resourcemodel.Empty().Apply(resourcemodel.Delta{Revision: 1, At: time.Now(), Changes: []resourcemodel.Change{{Key: resourcemodel.Key{Site: vo}, Static: &resourcemodel.Static{
			Stamp: resourcemodel.Stamp{Version: 1, Changed: time.Now(), Source: "a test"}, Type: "slurm",
			Shares:       []resourcemodel.Share{{ID: "batch", Default: true, Environments: []string{"n"}, Slots: 8, Policy: resourcemodel.Policy{Allow: []string{"vo:" + vo}}}},
			Environments: []resourcemodel.Environment{{ID: "n", CPUs: 8, Memory: 32 << 30}},
		}}}})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	alone(t, one(1), func(t *testing.T, g *gateway) {
		bio, physics := shown("bio"), shown("physics")
		for range 2 {
			for vo, m := range map[string]*resourcemodel.Snapshot{"bio": bio, "physics": physics} {
				if as := g.subjects(as1("ada"), m, "ada"); len(as) != 2 || as[1].VO != vo {
					t.Errorf("who is shown what is for %s asks as %+v", vo, as)
				}
			}
		}
	}, whole)
}
