package together_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/calendar"
	"github.com/portolan-project/portolan/internal/agreements/door"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/agreements/together"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/identity"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/peers"
	"github.com/portolan-project/portolan/peers/members"
	"github.com/portolan-project/portolan/peers/peertest"
)

const (
	pool  = "slurm/batch"
	owner = "anonymous"
)

// from is when the capacity is wanted in all tests.
var from = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)

const horizon = 200 * 365 * 24 * time.Hour

// offered gives an offer; its name says how many CPUs are wanted.
func offered(t testing.TB, cpus int) agreement.Offer {
	t.Helper()
	o, err := agreement.ParseOffer(fmt.Appendf(nil, `<wsag:AgreementOffer xmlns:wsag="%s"><wsag:Name>%d</wsag:Name><wsag:Context><wsag:ServiceProvider>AgreementResponder</wsag:ServiceProvider></wsag:Context><wsag:Terms><wsag:All><wsag:ServiceDescriptionTerm wsag:Name="job" wsag:ServiceName="run"><x:Job xmlns:x="urn:example"/></wsag:ServiceDescriptionTerm></wsag:All></wsag:Terms></wsag:AgreementOffer>`, agreement.NS, cpus))
	if err != nil {
		t.Fatal(err)
	}
	return *o
}

// kill is when a process dies: at a step, before or after what it does there, and for how long.
type kill struct {
	step  int
	after bool
	down  time.Duration
}

// life is one life of a process: it ends at a step. Nothing that it does afterwards is done.
type life struct {
	mu    sync.Mutex
	left  int // steps; below zero: it isn't killed
	after bool
	dead  chan struct{}
}

var errKilled = errors.New("the process was killed")

func newLife(k *kill) *life {
	l := &life{left: -1, dead: make(chan struct{})}
	if k != nil {
		l.left, l.after = k.step, k.after
	}
	return l
}

func (l *life) isDead() bool {
	select {
	case <-l.dead:
		return true
	default:
		return false
	}
}

// do does something that others see, unless the process is dead by then. It says whether the
// process lives to know.
func (l *life) do(what func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isDead() {
		return false
	}
	if l.left == 0 && !l.after {
		close(l.dead)
		return false
	}
	what()
	if l.left == 0 {
		close(l.dead)
		return false
	}
	l.left--
	return true
}

// cutStore is a store as a process sees it that may be killed.
type cutStore struct {
	inner store.Records
	life  *life
}

func (s *cutStore) PutRecords(ctx context.Context, sess store.Session, changes ...store.RecordChange) (revision int64, err error) {
	if !s.life.do(func() { revision, err = s.inner.PutRecords(ctx, sess, changes...) }) {
		return 0, fail.E("killed", fail.Uncertain, "", errKilled)
	}
	return revision, err
}

func (s *cutStore) ListRecords(ctx context.Context, prefix string, o store.RecordOptions) (list []store.Record, at int64, err error) {
	if !s.life.do(func() { list, at, err = s.inner.ListRecords(ctx, prefix, o) }) {
		return nil, 0, fail.E("killed", fail.Unavailable, "", errKilled)
	}
	return list, at, err
}

func (s *cutStore) WatchRecords(ctx context.Context, prefix string, after int64, emit func([]store.Record, int64)) error {
	if s.life.isDead() {
		return fail.E("killed", fail.Unavailable, "", errKilled)
	}
	return s.inner.WatchRecords(ctx, prefix, after, emit)
}

// service is an agreement provider over an engine that has nothing to run.
type service struct {
	*together.Participant
	engine *engine.Engine
}

var (
	_ agreement.Service  = (*service)(nil)
	_ agreement.Preparer = (*service)(nil)
)

func caller(ctx context.Context) (string, error) { return soap.PrincipalFrom(ctx).Name, nil }

func newService(e *engine.Engine, o together.ParticipantOptions) (*service, error) {
	o.Engine, o.Owner = e, caller
	o.Propose = func(ctx context.Context, req *agreement.CreateRequest) (engine.Proposal, error) {
		var cpus int64
		if _, err := fmt.Sscan(req.Offer.Name, &cpus); err != nil {
			return engine.Proposal{}, agreement.Refuse(agreement.NotCompliant, "the offer's name is the number of CPUs that it wants")
		}
		name, _ := caller(ctx)
		return engine.Proposal{Owner: name, Name: req.Offer.Name, Document: req.Received, Alternatives: []engine.Plan{{
			Holds: []calendar.Hold{{ID: "h", Pool: pool, Amount: calendar.Amount{CPUs: cpus}, From: from, Until: from.Add(time.Hour)}},
		}}}, nil
	}
	p, err := together.NewParticipant(o)
	return &service{p, e}, err
}

func (s *service) Templates(context.Context) ([]agreement.Template, error) { return nil, nil }

func (s *service) Create(context.Context, *agreement.CreateRequest) (string, error) {
	return "", agreement.Refuse(agreement.UnsupportedTerm, "what is offered here is prepared")
}

func (s *service) CreatePending(ctx context.Context, req *agreement.CreateRequest) (string, error) {
	return s.Create(ctx, req)
}

func (s *service) Agreement(ctx context.Context, key string) (*agreement.Properties, error) {
	r, err := s.engine.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	if name, _ := caller(ctx); name != r.Owner {
		return nil, fail.Errorf("test", fail.NotFound, key, "there is no agreement %q", key)
	}
	p := &agreement.Properties{Agreement: agreement.Agreement{ID: r.ID, Name: r.Name, Context: agreement.Context{ServiceProvider: agreement.Responder}}, State: r.State}
	return p, nil
}

func (s *service) Terminate(ctx context.Context, key string, _ *etree.Element) error {
	if _, err := s.Agreement(ctx, key); err != nil {
		return err
	}
	if done, err := s.Abort(ctx, key, "its initiator let it go"); done || err != nil {
		return err
	}
	if _, err := s.engine.Terminate(ctx, key, "its initiator ended it"); err != nil {
		return err
	}
	_, err := s.engine.Terminated(ctx, key, engine.Ending{})
	return err
}

// doorOf is the door of a domain that is a peer of all others.
func doorOf(keys *peertest.Keys, domain string, way func(string) (http.RoundTripper, error)) *door.Door {
	return door.New(door.Options{
		Domain: domain, Trust: keys.Trust(domain), Users: nameless{}, Transport: way,
		Member: func(d string) (members.Member, bool) {
			return members.Member{Peer: peers.Peer{Domain: d, URL: "http://" + d + ".example/peer", Provides: true, Consumes: true}, Agreements: true}, true
		},
	})
}

// nameless vouches for everybody, and takes them as who they are.
type nameless struct{}

func (nameless) VouchAsking(_, user, _ string) ([]byte, error) { return []byte(user), nil }

func (nameless) TakeAsking(_, vo string, assertion []byte) (identity.Local, error) {
	return identity.Local{Owner: string(assertion), Account: "nobody", VO: vo}, nil
}

// process is a gateway that is killed and comes back; what it stored is all that stays.
type process struct {
	name  string
	st    store.Records
	kills []kill
	keys  *peertest.Keys // of the doors by which it talks to others; nil: it has none
	// boot gives what lives while ctx does.
	boot func(ctx context.Context, p *process, st store.Records, l *life, wg *sync.WaitGroup) error

	mu      sync.Mutex
	life    *life
	handler http.Handler
	coord   *together.Coordinator
}

// run lets the process live, die and come back until ctx ends.
func (p *process) run(ctx context.Context) {
	for ctx.Err() == nil {
		var k *kill
		if len(p.kills) > 0 {
			k = &p.kills[0]
			p.kills = p.kills[1:]
		}
		l := newLife(k)
		in, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		if err := p.boot(in, p, &cutStore{p.st, l}, l, &wg); err == nil {
			select {
			case <-l.dead:
			case <-ctx.Done():
			}
		}
		p.mu.Lock()
		p.handler, p.coord = nil, nil
		p.mu.Unlock()
		cancel()
		wg.Wait()
		if k != nil {
			pause(ctx, k.down)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

func (p *process) set(l *life, h http.Handler, c *together.Coordinator) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.life, p.handler, p.coord = l, h, c
}

func (p *process) get() (*life, http.Handler, *together.Coordinator) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.life, p.handler, p.coord
}

// bootSite makes a process a site with CPUs, whose clock is off by skew.
func bootSite(cpus int64, skew time.Duration) func(context.Context, *process, store.Records, *life, *sync.WaitGroup) error {
	now := func() time.Time { return time.Now().Add(skew) }
	return func(ctx context.Context, p *process, st store.Records, l *life, wg *sync.WaitGroup) error {
		e, err := engine.New(ctx, st, engine.Options{Replica: p.name, Now: now, Horizon: horizon})
		if err != nil {
			return err
		}
		wg.Go(func() { _ = e.Run(ctx) })
		if _, err := e.SetPools(ctx, []calendar.Pool{{ID: pool, Capacity: calendar.Amount{CPUs: cpus}}}); err != nil {
			return err
		}
		svc, err := newService(e, together.ParticipantOptions{Now: now})
		if err != nil {
			return err
		}
		if p.keys != nil {
			p.set(l, doorOf(p.keys, p.name, nil).Handler(svc, nil, door.ServeOptions{}), nil)
			return nil
		}
		p.set(l, agreement.NewServer(svc, agreement.ServerOptions{Verifier: soap.DevVerifier{}, Now: now}), nil)
		return nil
	}
}

// bootCoordinator makes a process a coordinator that reaches sites over a net.
func bootCoordinator(n *network, o together.Options) func(context.Context, *process, store.Records, *life, *sync.WaitGroup) error {
	return func(ctx context.Context, p *process, st store.Records, l *life, wg *sync.WaitGroup) error {
		o := o
		var out *door.Door
		if p.keys != nil {
			out = doorOf(p.keys, p.name, func(domain string) (http.RoundTripper, error) { return &link{n, l, n.sites[domain]}, nil })
		}
		o.Dial = func(_ context.Context, who, provider, _ string) (together.Provider, error) {
			site := n.sites[provider]
			if site == nil {
				return nil, fail.Errorf("test", fail.NotFound, provider, "nobody knows a provider %q", provider)
			}
			if out != nil {
				return out.Dial(ctx, provider, &door.User{Name: who})
			}
			return agreement.NewClient(&soap.Client{URL: "http://" + provider + ".example/agreement", Transport: &link{n, l, site}, Retries: -1}), nil
		}
		c, err := together.New(st, o)
		if err != nil {
			return err
		}
		wg.Go(func() { _ = c.Run(ctx) })
		p.set(l, nil, c)
		return nil
	}
}

// network carries messages, as its weather lets it.
type network struct {
	sites   map[string]*process
	weather func(site string) weather // of each message
}

// weather is what happens to one message and its answer.
type weather struct {
	lost, answerLost bool
	late             time.Duration
}

// link carries the messages of one life of a process to a site.
type link struct {
	net  *network
	life *life
	to   *process
}

// RoundTrip implements http.RoundTripper.
func (w *link) RoundTrip(r *http.Request) (*http.Response, error) {
	var sent bytes.Buffer
	if r.Body != nil {
		if _, err := sent.ReadFrom(r.Body); err != nil {
			return nil, err
		}
		_ = r.Body.Close()
	}
	var sky weather
	if w.net.weather != nil {
		sky = w.net.weather(w.to.name)
	}
	pause(r.Context(), sky.late)
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	if !w.life.do(func() {}) || sky.lost {
		return nil, syscall.ECONNREFUSED
	}
	l, h, _ := w.to.get()
	if h == nil || l.isDead() {
		return nil, syscall.ECONNREFUSED
	}
	in := httptest.NewRequest(r.Method, r.URL.String(), bytes.NewReader(sent.Bytes()))
	in.Header = r.Header
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, in.WithContext(context.WithoutCancel(r.Context())))
	if l.isDead() || sky.answerLost || !w.life.do(func() {}) {
		return nil, syscall.ECONNRESET
	}
	return rec.Result(), nil
}

// kept is what a site has of agreements, read anew.
type kept struct {
	states map[agreement.State]int
	free   int64
}

func inspect(t testing.TB, st store.Records, skew time.Duration) kept {
	t.Helper()
	e, err := engine.New(t.Context(), st, engine.Options{Horizon: horizon, Now: func() time.Time { return time.Now().Add(skew) }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	k := kept{map[agreement.State]int{}, e.Free(pool, from, from.Add(time.Hour)).CPUs}
	list, err := e.List(t.Context(), owner, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range list {
		k.states[r.State]++
	}
	return k
}
