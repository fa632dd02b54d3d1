package conformance

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/peering/favours"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/mem"
	"github.com/portolan-project/portolan/internal/xmldoc"
	"github.com/portolan-project/portolan/jsdl"
	"github.com/portolan-project/portolan/peers"
	"github.com/portolan-project/portolan/peers/exchange"
	"github.com/portolan-project/portolan/peers/handover"
	"github.com/portolan-project/portolan/peers/session"
	"github.com/portolan-project/portolan/peers/wire"
	"github.com/portolan-project/portolan/resourcemodel"
)

const (
	hostDomain  = "host.example"
	guestDomain = "guest.example"
	thirdDomain = "third.example"
)

// byHeader trusts a header of HTTP to tell whom a message is of: a stand-in for TLS.
type byHeader struct{}

const domainHeader = "X-Test-Domain"

func (byHeader) Understands(xmldoc.Name) bool { return false }

func (byHeader) Sender(_ context.Context, m *soap.Parsed) (peers.Sender, error) {
	d := m.HTTP.Header.Get(domainHeader)
	if d == "" {
		return peers.Sender{}, fail.Errorf("test", fail.Unauthenticated, "", "no certificate was shown")
	}
	if s := xmldoc.Child(m.Header, "urn:test", "Seal"); s != nil && s.Text() != sealed(m.Payload) {
		return peers.Sender{}, fail.Errorf("test", fail.Unauthenticated, "", "the message is not the one that was sealed")
	}
	return peers.Sender{Domain: d, Method: "tls"}, nil
}

// sealed is what stands in for a signature.
func sealed(payload *etree.Element) string {
	sum := sha256.Sum256(xmldoc.Marshal(payload))
	return hex.EncodeToString(sum[:])
}

// sealing has the kit's messages sealed.
func sealing(o Options) Options {
	o.Guest.Sign = func(_ context.Context, e *etree.Element) error {
		for _, local := range []string{"Header", "Body"} {
			if xmldoc.Child(e, soap.NS11, local) == nil {
				return errors.New("only SOAP 1.1 is sealed here")
			}
		}
		s := xmldoc.Child(e, soap.NS11, "Header").CreateElement("x:Seal")
		s.CreateAttr("xmlns:x", "urn:test")
		s.SetText(sealed(xmldoc.Child(e, soap.NS11, "Body").ChildElements()[0]))
		return nil
	}
	return o
}

func (byHeader) Answer(context.Context, string, *soap.Parsed, *tls.ConnectionState) error { return nil }

func (byHeader) Signer(string) peers.Signer { return nil }

func (byHeader) ClientTLS(string) (*tls.Config, error) { return nil, nil } //nolint:nilnil // as the contract has it

// as is a client that says it is of a domain.
func as(domain string) *http.Client {
	return &http.Client{Transport: tripper(func(r *http.Request) (*http.Response, error) {
		r = r.Clone(r.Context())
		if domain != "" {
			r.Header.Set(domainHeader, domain)
		}
		return plainTransport.RoundTrip(r)
	})}
}

// plainTransport adds nothing to what a check sends.
var plainTransport = &http.Transport{DisableCompression: true}

type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// host is a gateway with the table of sessions that ships, and jobs that are pretended: what
// sleeps runs until it is ended, what echoes has its arguments for its output, and
// everything else ends at once.
type host struct {
	table *peers.Table

	mu       sync.Mutex
	resend   time.Duration
	copies   map[[2]string]*heldCopy // by origin and id
	exporter *exchange.Exporter
	importer *exchange.Importer
	model    *resourcemodel.Snapshot
	features []string
	ledger   *favours.Favours
	store    *mem.Store
	session  store.Session
}

// seal signs by a domain's name: a stand-in for keys.
type seal string

func (s seal) Sign(data []byte) ([]byte, error) {
	h := hmac.New(sha256.New, []byte(s))
	h.Write(data)
	return h.Sum(nil), nil
}

func (seal) Verify(domain string, data, signature []byte) error {
	if want, _ := seal(domain).Sign(data); !hmac.Equal(want, signature) {
		return errors.New("it is not of " + domain)
	}
	return nil
}

// heldCopy is one job as the host has it.
type heldCopy struct {
	about   wire.About
	from    string // who gave it: nobody else is heard about it
	digest  string
	blocked bool // a Control came before its route
	report  wire.Report
	output  string
	timer   *time.Timer // of the final report's repetition
	settled bool

	recallBy time.Time
	lapse    *time.Timer
}

func (h *host) Opened(domain string, a session.Agreement) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.resend, h.features = a.Terms.Resend, a.Features
	h.importer = exchange.NewImporter(domain)
	_ = h.table.Put(domain, h.importer.Pull())
	h.exporter.Begin()
	_ = h.exporter.Show(h.model, resourcemodel.Full)
	h.ledger.Opened(guestDomain, a.Features)
	_ = h.table.Put(domain, h.quotas()...) // where the session ended, nobody waits for it
}

func (h *host) Turned(string, session.Turn)             {}
func (h *host) Draining(string, string)                 {}
func (h *host) Closed(string, wire.CloseReason, string) { h.ledger.Closed(guestDomain) }
func (h *host) Free(string)                             {}

func (h *host) Deliver(domain string, items []wire.Message, done func()) {
	h.mu.Lock()
	var out []wire.Message
	for _, m := range items {
		out = append(out, h.heed(domain, m)...)
	}
	h.mu.Unlock()
	for _, m := range out {
		_ = h.table.Put(domain, m) // where the session ended, nobody waits for it
	}
	h.ledger.Deliver(context.Background(), domain, items)
	done()
}

// quotas tells how many copies live.
func (h *host) quotas() []wire.Message {
	if !slices.Contains(h.features, wire.FeatureQuotas) {
		return nil
	}
	q := wire.Quota{Measured: time.Now().UTC()}
	for _, c := range h.copies {
		if !c.blocked && !final(&c.report) {
			q.Jobs++
		}
	}
	return []wire.Message{&wire.Quotas{List: []wire.Quota{q}}}
}

// heed gives what is said to one item.
func (h *host) heed(domain string, m wire.Message) []wire.Message {
	key := func(a wire.About) [2]string { return [2]string{a.Origin, a.ID} }
	copyOf := func(a wire.About) *heldCopy {
		if c := h.copies[key(a)]; c != nil && c.about == a && c.from == domain {
			return c
		}
		return nil
	}
	others := func(a wire.About) bool {
		c := h.copies[key(a)]
		return c != nil && c.from != domain
	}
	gone := func(a wire.About, why string) []wire.Message {
		return []wire.Message{&wire.Report{About: a, Status: wire.IsReturned, Reason: why}}
	}
	switch m := m.(type) {
	case *wire.Pull:
		if h.exporter.Wants(m) {
			_ = h.exporter.Show(h.model, resourcemodel.Full)
		}
		return slices.DeleteFunc(h.exporter.Pull(m), func(m wire.Message) bool { over, _ := wire.Beyond(h.features, []wire.Message{m}); return over != nil })
	case *wire.Resources, *wire.Digests:
		_, answers, _ := h.importer.Take(m) // what is wrong changes nothing
		return answers
	case *wire.Compare:
		return h.exporter.Compare(m)
	case *wire.Route:
		a, reports := h.route(domain, m, h.copies[key(m.About)])
		return append(append([]wire.Message{a}, reports...), h.quotas()...)
	case *wire.Query:
		c := h.copies[key(m.About)]
		switch {
		case c == nil || others(m.About) || number(m.Token) > number(c.about.Token):
			return nil // its route may be on its way
		case c.about != m.About || c.blocked:
			return gone(m.About, "a copy with a higher token came before")
		}
		return []wire.Message{c.now()}
	case *wire.Grant:
		if c := copyOf(m.About); c != nil && m.RecallBy.After(c.recallBy) {
			c.recallBy = m.RecallBy
		}
	case *wire.Control:
		if others(m.About) {
			return nil
		}
		c := copyOf(m.About)
		if k := h.copies[key(m.About)]; k != nil && number(m.Token) < number(k.about.Token) {
			return gone(m.About, "a copy with a higher token came before")
		}
		if c == nil {
			h.copies[key(m.About)] = &heldCopy{about: m.About, from: domain, blocked: true}
			return gone(m.About, "no such copy came here")
		}
		if c.blocked {
			return gone(m.About, "no such copy came here")
		}
		c.control(m)
		h.repeat(domain, c)
		return []wire.Message{c.now()}
	case *wire.Settle:
		if c := copyOf(m.About); c != nil {
			if c.timer != nil {
				c.timer.Stop()
			}
			if !m.Taken && !final(&c.report) {
				c.report.Revision++
				c.report.Status, c.report.Reason = wire.IsReturned, "its giver has no use for it"
				h.repeat(domain, c)
				return []wire.Message{c.now()}
			}
			if m.Taken && !c.settled && c.report.Used > 0 {
				h.charge(domain, c)
			}
			c.settled = true
		}
	case *wire.Read:
		return read(copyOf(m.About), m)
	}
	return nil
}

func (h *host) route(domain string, m *wire.Route, known *heldCopy) (*wire.Answer, []wire.Message) {
	no := func(kind wire.Refusal, why string) (*wire.Answer, []wire.Message) {
		return &wire.Answer{About: m.About, Kind: kind, Reason: why}, nil
	}
	if slices.Contains(m.Path, hostDomain) {
		return no(wire.Invalid, "the job came through here before")
	}
	if m.Path[len(m.Path)-1] != domain {
		return no(wire.Invalid, "the path must end with who sends the job")
	}
	if known != nil {
		theirs, ours := number(m.Token), number(known.about.Token)
		switch {
		case theirs < ours:
			return no(wire.Conflict, "a copy with a higher token came before")
		case theirs == ours && known.blocked:
			return no(wire.Conflict, "the copy was called back before it came")
		case theirs == ours && known.digest != m.Digest:
			return no(wire.Conflict, "another job came under this token")
		case theirs == ours && known.report.Status == wire.IsReturned:
			return no(wire.Conflict, "the copy was returned")
		case theirs == ours:
			return &wire.Answer{About: m.About, Accepted: true}, nil
		}
	}
	if m.RecallBy.Before(time.Now()) {
		return no(wire.Conflict, "the recall deadline is over")
	}
	if m.Digest != digestOf(m) {
		return no(wire.Invalid, "the digest is another")
	}
	def, problems := jsdl.Parse([]byte(m.Document), jsdl.Options{})
	if len(problems) > 0 {
		return no(wire.Invalid, "the document is no JSDL")
	}
	c := &heldCopy{about: m.About, from: domain, digest: m.Digest, report: wire.Report{About: m.About, Revision: 1, Status: wire.IsRunning, Site: "here"}}
	c.recallBy = m.RecallBy
	h.copies[[2]string{m.Origin, m.ID}] = c
	h.watch(domain, c)
	out := []wire.Message{c.now()}
	program := def.Program()
	if program.Executable.Value != "/bin/sleep" {
		if program.Executable.Value == "/bin/echo" {
			for _, a := range program.Arguments {
				c.output += a.Value
			}
			c.output += "\n"
		}
		c.report.Used = 7 * time.Millisecond
		c.end(&wire.Result{Outcome: wire.Finished, Token: m.Token + ".1"})
		h.repeat(domain, c)
		out = append(out, c.now())
	}
	return &wire.Answer{About: m.About, Accepted: true}, out
}

// charge claims what a copy used, in the ledger.
func (h *host) charge(domain string, c *heldCopy) {
	records, err := h.ledger.Charge(nil, []handover.Charge{{
		Provider: hostDomain, Consumer: domain, Key: handover.Key{Origin: c.about.Origin, ID: c.about.ID}, Token: handover.Token(c.about.Token),
		Outcome: handover.Finished, Used: handover.CPUTime(c.report.Used.Milliseconds()),
	}})
	if err == nil {
		_, err = h.store.PutRecords(context.Background(), h.session, records...)
	}
	if err != nil {
		panic(err) // of a host in memory
	}
}

// watch has a copy end with its recall deadline.
func (h *host) watch(domain string, c *heldCopy) {
	const early = time.Second // skew
	c.lapse = time.AfterFunc(time.Until(c.recallBy)-early, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		switch {
		case h.copies[[2]string{c.about.Origin, c.about.ID}] != c || final(&c.report):
			return
		case time.Until(c.recallBy) > early:
			c.lapse.Reset(time.Until(c.recallBy) - early)
			return
		}
		c.report.Revision++
		c.report.Status, c.report.Reason = wire.IsReturned, "its recall deadline came"
		_ = h.table.Put(domain, c.now()) // where the session ended, nobody waits for it
		h.repeat(domain, c)
	})
}

func number(token string) int {
	first, _, _ := strings.Cut(token, ".")
	n, _ := strconv.Atoi(first)
	return n
}

func (c *heldCopy) now() *wire.Report { r := c.report; return &r }

func (c *heldCopy) end(r *wire.Result) {
	c.report.Revision++
	c.report.Status, c.report.Result = wire.IsEnded, r
}

func (c *heldCopy) control(m *wire.Control) {
	if m.Number < c.report.Heeded {
		return
	}
	c.report.Heeded = m.Number
	c.report.Revision++
	switch {
	case c.report.Status == wire.IsEnded || c.report.Status == wire.IsReturned:
	case m.Want == wire.Cancel:
		c.end(&wire.Result{Outcome: wire.Cancelled})
	case m.Recall == wire.RecallRunning:
		c.report.Status, c.report.Reason = wire.IsReturned, "it was called back"
	case m.Want == wire.Suspend:
		c.report.Status = wire.IsSuspended
	default:
		c.report.Status = wire.IsRunning
	}
}

// repeat has a final report told again until it is settled.
func (h *host) repeat(domain string, c *heldCopy) {
	if c.timer != nil || c.report.Status != wire.IsEnded && c.report.Status != wire.IsReturned {
		return
	}
	c.timer = time.AfterFunc(h.resend, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.copies[[2]string{c.about.Origin, c.about.ID}] == c && !c.settled {
			_ = h.table.Put(domain, c.now()) // where the session ended, nobody waits for it
			c.timer.Reset(h.resend)
		}
	})
}

func read(c *heldCopy, m *wire.Read) []wire.Message {
	o := &wire.Output{About: m.About, Request: m.Request, Offset: m.Offset, Last: true}
	if c == nil || c.blocked {
		o.Kind, o.Reason = wire.NotFound, "no such copy is here"
		return []wire.Message{o}
	}
	text := c.output[min(int(m.Offset), len(c.output)):]
	text = text[:min(m.Most, len(text))]
	// In two pieces, so that there are some.
	half := len(text) / 2
	o.Offset, o.Data = m.Offset+uint64(half), []byte(text[half:])
	return []wire.Message{&wire.Output{About: m.About, Request: m.Request, Offset: m.Offset, Data: []byte(text[:half])}, o}
}

// stop ends what it started.
func (h *host) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for k, c := range h.copies {
		for _, t := range []*time.Timer{c.timer, c.lapse} {
			if t != nil {
				t.Stop()
			}
		}
		delete(h.copies, k)
	}
}

// sites gives a model with a few.
func sites(t testing.TB) *resourcemodel.Snapshot {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	d := resourcemodel.Delta{Revision: 1, At: at}
	for _, name := range []string{"east", "north", "south", "west"} {
		d.Changes = append(d.Changes, resourcemodel.Change{
			Key: resourcemodel.Key{Site: name},
			Static: &resourcemodel.Static{
				Stamp: resourcemodel.Stamp{Version: 1, Changed: at, Source: "test"}, Type: "slurm",
				Environments: []resourcemodel.Environment{{ID: "e", CPUArchitecture: "x86_64", CPUs: 8, Memory: 1 << 34}},
				Shares:       []resourcemodel.Share{{ID: "q", Environments: []string{"e"}}},
			},
			Dynamic: &resourcemodel.Dynamic{
				Stamp: resourcemodel.Stamp{Version: 2, Changed: at, Source: "test"}, Up: true,
				Shares:       map[string]resourcemodel.ShareState{"q": {Open: true}},
				Environments: map[string]resourcemodel.EnvironmentState{"e": {Nodes: 1, Available: 1, FreeCPUs: 8}},
			},
		})
	}
	s, err := resourcemodel.Empty().Apply(d)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// hosted puts a host on loopback, behind something, and gives how the kit judges it.
func hosted(t testing.TB, around func(http.Handler) http.Handler) Options {
	h := &host{copies: map[[2]string]*heldCopy{}, exporter: exchange.NewExporter("view-1"), model: sites(t), store: mem.New()}
	server := peers.NewServer(peers.ServerOptions{Trust: byHeader{}})
	var handler http.Handler = server
	if around != nil {
		handler = around(handler)
	}
	srv := httptest.NewServer(soap.NewRouter(map[string]http.Handler{"/peer": handler}))
	table, err := peers.New(peers.Options{Domain: hostDomain, Software: "test", Endpoint: srv.URL + "/peer", Trust: byHeader{}, Handler: h})
	if err != nil {
		t.Fatal(err)
	}
	h.table = table
	ctx, cancel := context.WithCancel(context.Background())
	if h.session, err = h.store.Join(ctx, "host"); err != nil {
		t.Fatal(err)
	}
	if h.ledger, err = favours.New(favours.Options{Domain: hostDomain, Store: h.store, Signer: seal(hostDomain), Link: table}); err != nil {
		t.Fatal(err)
	}
	h.ledger.Begin(h.session)
	told := make(chan struct{})
	go func() {
		defer close(told)
		_ = h.ledger.Run(ctx) // until ctx ends
	}()
	done := make(chan error, 1)
	go func() { done <- table.Run(ctx) }()
	t.Cleanup(func() {
		h.stop()
		cancel()
		<-told
		if err := <-done; err != nil {
			t.Error(err)
		}
		srv.Close()
		_ = h.store.Close()
		plainTransport.CloseIdleConnections()
	})
	for _, d := range []string{guestDomain, thirdDomain} {
		p := peers.Peer{
			Domain: d, Consumes: true, Provides: true, Shows: wire.Full, Beat: time.Second, Lost: 4 * time.Second, Window: 16, Queue: 4096,
			Terms: wire.Terms{Lease: 10 * time.Minute, Skew: time.Second, StopWithin: time.Second, Resend: 100 * time.Millisecond},
		}
		if err := table.Add(p); err != nil {
			t.Fatal(err)
		}
	}
	server.Serve(table)
	return Options{
		Profile: Peer, Endpoint: srv.URL + "/peer", HTTP: as(guestDomain), Settle: 15 * time.Second, Timeout: 20 * time.Second,
		Guest: Guest{Domain: guestDomain, Nobody: as(""), Other: as(thirdDomain), OtherDomain: thirdDomain, Signature: seal(guestDomain).Sign, Signed: seal("").Verify},
	}
}

// TestOurOwnPeer: the table of sessions that ships passes wholly. The chapters are judged at
// once, each with a host of its own, as a host lets nobody open sessions without end.
func TestOurOwnPeer(t *testing.T) {
	t.Parallel()
	chapters := map[string]bool{}
	for _, c := range List(Peer) {
		name := strings.Join(strings.Split(c.ID, "-")[:2], "-")
		chapters[name] = true
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	total := 0
	for name := range chapters { // most of the time they wait, so that they do so together
		o := hosted(t, nil)
		o.Filter = []string{name + "-"}
		if name == "PEER-TRU" {
			o = sealing(o)
		}
		wg.Go(func() {
			rep, err := Run(t.Context(), o)
			if err != nil {
				t.Error(err)
				return
			}
			for _, c := range rep.Checks {
				if c.Result != Pass {
					t.Errorf("%s %s: %s (%s)", c.Result, c.ID, c.Saw, c.Clause)
				} else {
					t.Logf("%s: %s", c.ID, c.Saw)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			total += rep.Summary.Total
		})
	}
	wg.Wait()
	if total < 60 || total != len(List(Peer)) {
		t.Errorf("%d checks of %d were made", total, len(List(Peer)))
	}
	t.Logf("%d checks", total)
}

// TestDocsOfPeer: the page tells how many checks there are.
func TestDocsOfPeer(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/peer-protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf(": %d checks, each with", len(List(Peer))); !strings.Contains(string(page), want) {
		t.Errorf("docs/peer-protocol.md does not say %q", want)
	}
}
