package purchase

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/beevik/etree"
	"go.uber.org/goleak"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/store/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var template = fmt.Sprintf(`<wsag:Template xmlns:wsag="%s" xmlns:p="%s" wsag:TemplateId="1"><wsag:Name>capacity</wsag:Name>
<wsag:Context><wsag:ServiceProvider>AgreementResponder</wsag:ServiceProvider><wsag:TemplateId>1</wsag:TemplateId><wsag:TemplateName>capacity</wsag:TemplateName></wsag:Context>
<wsag:Terms><wsag:All><wsag:ServiceDescriptionTerm wsag:Name="capacity" wsag:ServiceName="room">
<p:Capacity><p:CPUs>1</p:CPUs><p:StartTime>2026-01-01T00:00:00Z</p:StartTime><p:EndTime>2026-01-01T01:00:00Z</p:EndTime></p:Capacity>
</wsag:ServiceDescriptionTerm></wsag:All></wsag:Terms>
<wsag:CreationConstraints>
<wsag:Item wsag:Name="cpus"><wsag:Location>//p:Capacity/p:CPUs</wsag:Location><wsag:ItemConstraint/></wsag:Item>
<wsag:Item wsag:Name="start"><wsag:Location>//p:Capacity/p:StartTime</wsag:Location><wsag:ItemConstraint/></wsag:Item>
<wsag:Item wsag:Name="end"><wsag:Location>//p:Capacity/p:EndTime</wsag:Location><wsag:ItemConstraint/></wsag:Item>
</wsag:CreationConstraints></wsag:Template>`, agreement.NS, agreement.NSPortolan)

// deal is an agreement of the shop.
type deal struct {
	key    string
	state  agreement.State
	until  time.Time // while it is Pending
	cpus   int
	window terms.Window
	price  int64
	paid   bool
}

// shop sells capacity: what it holds never exceeds what it has.
type shop struct {
	mu     sync.Mutex
	has    int
	rate   int64                   // thousandths for a CPU
	raise  int64                   // by which what it asks for is more than what it quoted
	silent bool                    // it does not negotiate
	bare   bool                    // it has no templates now
	name   func(key string) string // of its agreements; nil: "agreement-" and the key
	down   bool
	deals  []*deal
	talks  int
	most   int // CPUs that were held at once
	opened time.Time
}

func (s *shop) up() error {
	if s.down {
		return fail.Errorf("shop", fail.Unavailable, "", "the shop is closed")
	}
	now := time.Now()
	for _, d := range s.deals {
		if d.state == agreement.Pending && !now.Before(d.until) {
			d.state = agreement.Rejected
		}
		if d.state == agreement.Observed && !now.Before(d.window.End) {
			d.state, d.paid = agreement.Complete, true
		}
	}
	return nil
}

// room gives what is free in a window; what is held at any time of it is taken to be held in all.
func (s *shop) room(w terms.Window) int {
	n := s.has
	for _, d := range s.deals {
		if !d.state.Final() && d.window.Start.Before(w.End) && w.Start.Before(d.window.End) {
			n -= d.cpus
		}
	}
	return n
}

func wantOf(a *agreement.Agreement) (int, terms.Window, error) {
	q, err := terms.Preferred(a)
	if err != nil {
		return 0, terms.Window{}, err
	}
	c := q.Services[0].Capacity
	return int(c.Amount.CPUs), c.Window, nil
}

func (s *shop) Templates(context.Context) ([]agreement.Template, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.up(); err != nil {
		return nil, err
	}
	if s.bare {
		return nil, nil
	}
	t, err := agreement.ParseTemplate([]byte(template))
	if err != nil {
		return nil, err
	}
	return []agreement.Template{*t}, nil
}

func (s *shop) Initiate(context.Context, *agreement.InitiateRequest) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.up(); err != nil {
		return "", err
	}
	if s.silent {
		return "", fail.Errorf("shop", fail.Unsupported, "", "we do not haggle")
	}
	s.talks++
	return "talk", nil
}

func (s *shop) TerminateNegotiation(context.Context, string, []*etree.Element) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.talks--
	return nil
}

func (s *shop) Negotiate(_ context.Context, _ string, offers []agreement.NegotiationOffer) ([]agreement.NegotiationOffer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.up(); err != nil {
		return nil, err
	}
	o := offers[0]
	n, w, err := wantOf(&o.Agreement)
	if err != nil {
		return nil, err
	}
	reject := func(why string) ([]agreement.NegotiationOffer, error) {
		c := o
		c.OfferContext = agreement.OfferContext{CounterOfferTo: o.OfferID, State: agreement.OfferRejected, Detail: agreement.Why(why)}
		return []agreement.NegotiationOffer{c}, nil
	}
	may := map[string]bool{}
	for _, i := range o.Constraints.Items {
		may[i.Name] = true
	}
	if free := s.room(w); n > free {
		switch {
		case may["start"] && s.room(terms.Window{Start: s.opened, End: s.opened.Add(w.Length())}) >= n:
			w = terms.Window{Start: s.opened, End: s.opened.Add(w.Length())}
		case may["cpus"] && free > 0:
			n = free
		default:
			return reject("there is no room for so many")
		}
	}
	c := o
	t, err := agreement.ParseTemplate([]byte(template))
	if err != nil {
		return nil, err
	}
	c.Agreement = *offerOf(t, n, w)
	q := agreement.Quote{Start: w.Start, End: w.End}
	if s.rate > 0 {
		q.Price, q.Unit = shown(s.rate*int64(n)), "credit"
	}
	c.OfferContext = agreement.OfferContext{CounterOfferTo: o.OfferID, State: agreement.Advisory, Detail: q.Element()}
	return []agreement.NegotiationOffer{c}, nil
}

// offerOf gives what is agreed on in an offer of the template.
func offerOf(t *agreement.Template, n int, w terms.Window) *agreement.Agreement {
	for _, x := range t.Terms.Terms {
		if d, ok := x.(*agreement.ServiceDescription); ok {
			for local, text := range map[string]string{"CPUs": strconv.Itoa(n), "StartTime": w.Start.UTC().Format(time.RFC3339), "EndTime": w.End.UTC().Format(time.RFC3339)} {
				d.Description.SelectElement("p:" + local).SetText(text)
			}
		}
	}
	a := t.Agreement
	return &a
}

func (s *shop) deal(key string) *deal {
	i := slices.IndexFunc(s.deals, func(d *deal) bool { return d.key == key })
	if i < 0 {
		return nil
	}
	return s.deals[i]
}

func (s *shop) Prepare(_ context.Context, req *agreement.CreateRequest, p agreement.Preparation) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.up(); err != nil {
		return "", err
	}
	key := p.Key + "@" + stamp(p.Until)
	if d := s.deal(key); d != nil {
		if d.state.Final() {
			return "", fail.Errorf("shop", fail.Conflict, key, "it was let go")
		}
		return key, nil
	}
	if !p.Until.After(time.Now()) {
		return "", agreement.Refuse(agreement.Expired, "that is over")
	}
	n, w, err := wantOf(&req.Offer.Agreement)
	if err != nil {
		return "", err
	}
	if free := s.room(w); n > free {
		return "", agreement.Refuse(agreement.NoCapacity, "somebody was faster")
	}
	price := int64(0)
	if s.rate > 0 {
		price = s.rate*int64(n) + s.raise
	}
	s.deals = append(s.deals, &deal{key: key, state: agreement.Pending, until: p.Until, cpus: n, window: w, price: price})
	s.most = max(s.most, s.has-s.room(w))
	return key, nil
}

func (s *shop) Confirm(_ context.Context, key string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.up(); err != nil {
		return err
	}
	switch d := s.deal(key); {
	case d == nil:
		return fail.Errorf("shop", fail.NotFound, key, "there is no such deal")
	case d.state == agreement.Pending:
		d.state = agreement.Observed
	case d.state.Final():
		return agreement.Refuse(agreement.WrongState, "it was let go")
	}
	return nil
}

func (s *shop) Terminate(_ context.Context, key string, _ *etree.Element) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.up(); err != nil {
		return err
	}
	switch d := s.deal(key); {
	case d == nil:
		return fail.Errorf("shop", fail.NotFound, key, "there is no such deal")
	case d.state == agreement.Pending:
		d.state = agreement.Rejected
	case d.state == agreement.Observed:
		d.state, d.paid = agreement.Terminated, !time.Now().Before(d.window.Start)
	default:
		return agreement.Refuse(agreement.WrongState, "it is over")
	}
	return nil
}

func (s *shop) Agreement(_ context.Context, key string) (*agreement.Properties, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.up(); err != nil {
		return nil, err
	}
	d := s.deal(key)
	if d == nil {
		return nil, fail.Errorf("shop", fail.NotFound, key, "there is no such deal")
	}
	e := etree.NewElement("p:Agreement")
	e.CreateAttr("xmlns:p", agreement.NSPortolan)
	if d.price > 0 {
		e.CreateElement("p:Price").SetText(shown(d.price))
	}
	if d.state.Final() && d.paid && d.price > 0 {
		x := e.CreateElement("p:Entry")
		for _, a := range [][2]string{{"id", key + "/price"}, {"kind", "price"}, {"at", d.window.End.UTC().Format(time.RFC3339Nano)}, {"unit", "credit"}, {"amount", shown(d.price)}} {
			x.CreateAttr(a[0], a[1])
		}
		x.SetText("for the room")
	}
	p := &agreement.Properties{State: d.state, SubState: e}
	p.ID = "agreement-" + key
	if s.name != nil {
		p.ID = s.name(key)
	}
	return p, nil
}

// binding gives the deals that are, or were, binding.
func (s *shop) binding() (out []deal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.up()
	for _, d := range s.deals {
		if d.state == agreement.Observed || d.state == agreement.Complete || d.state == agreement.Terminated {
			out = append(out, *d)
		}
	}
	return out
}

func (s *shop) set(f func(*shop)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

var errKilled = fail.Errorf("test", fail.Unavailable, "", "the process was killed")

// life is one life of a gateway: it ends at a step, before or after what it does there.
type life struct {
	mu     sync.Mutex
	left   int // steps; below zero: it isn't killed
	after  bool
	dead   bool
	cancel context.CancelFunc
}

// do does something that others see, unless the gateway is dead by then.
func (l *life) do(what func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return errKilled
	}
	l.left--
	if l.left == 0 && !l.after {
		l.dead = true
		l.cancel()
		return errKilled
	}
	err := what()
	if l.left == 0 {
		l.dead = true
		l.cancel()
		return errKilled
	}
	return err
}

// mortal is a store, and the way to a shop, of a life.
type mortal struct {
	store.Records
	l *life
}

func (m mortal) PutRecords(ctx context.Context, s store.Session, changes ...store.RecordChange) (rev int64, err error) {
	err = m.l.do(func() (err error) { rev, err = m.Records.PutRecords(ctx, s, changes...); return err })
	return rev, err
}

type way struct {
	*shop
	l *life
}

func (w way) Prepare(ctx context.Context, req *agreement.CreateRequest, p agreement.Preparation) (key string, err error) {
	err = w.l.do(func() (err error) { key, err = w.shop.Prepare(ctx, req, p); return err })
	return key, err
}

func (w way) Confirm(ctx context.Context, key string) error {
	return w.l.do(func() error { return w.shop.Confirm(ctx, key) })
}

func (w way) Terminate(ctx context.Context, key string, r *etree.Element) error {
	return w.l.do(func() error { return w.shop.Terminate(ctx, key, r) })
}

func (w way) Agreement(ctx context.Context, key string) (p *agreement.Properties, err error) {
	err = w.l.do(func() (err error) { p, err = w.shop.Agreement(ctx, key); return err })
	return p, err
}

func (w way) Negotiate(ctx context.Context, key string, offers []agreement.NegotiationOffer) (out []agreement.NegotiationOffer, err error) {
	err = w.l.do(func() (err error) { out, err = w.shop.Negotiate(ctx, key, offers); return err })
	return out, err
}

// world is a store, a shop, and gateways on them.
type world struct {
	t    *testing.T
	st   *mem.Store
	shop *shop

	mu   sync.Mutex
	open []Open
	away string
	gone bool // the shop is no peer now
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, st: mem.New(), shop: &shop{has: 100, opened: time.Now().Add(3 * time.Hour).Truncate(time.Second)}}
	t.Cleanup(func() { _ = w.st.Close() })
	return w
}

// start begins a life of a gateway; stop ends it.
func (w *world) start(o Options, l *life) (b *Buyer, stop func()) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	if l == nil {
		l = &life{left: -1}
	}
	l.cancel = cancel
	o.Own = "home.example"
	o.Dial = func(_ context.Context, domain string) (Provider, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if domain != "fiu.example" || w.gone {
			return nil, fail.Errorf("test", fail.NotFound, domain, "the domain %s is no peer", domain)
		}
		return way{w.shop, l}, nil
	}
	o.Tell = func(open []Open) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.open = open
	}
	o.Away = func(string) string {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.away
	}
	b, err := New(mortal{w.st, l}, o)
	if err != nil {
		w.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	return b, func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	}
}

// ours gives what was told to be ours.
func (w *world) ours() []Open {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.open
}

func (w *world) setAway(why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.away = why
}

func (w *world) setGone(gone bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gone = gone
}

func (w *world) get(b *Buyer, id string) *Record {
	w.t.Helper()
	r, err := b.Get(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// wish is 60 CPUs from in an hour on, for an hour.
func wish(change func(*Wish)) Wish {
	start := time.Now().UTC().Truncate(time.Second).Add(time.Hour)
	w := Wish{From: "fiu.example", CPUs: 60, Start: start, End: start.Add(time.Hour)}
	if change != nil {
		change(&w)
	}
	return w
}

func windowOf(w Wish) terms.Window { return terms.Window{Start: w.Start, End: w.End} }
