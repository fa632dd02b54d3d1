package service

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/agreements/terms"
	"github.com/portolan-project/portolan/internal/agreements/together"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/broker/modelstore"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/resourcemodel"
)

// Options says what a Service works with. Engine, Broker and Model are required; the zero value of
// everything else works.
type Options struct {
	Engine *engine.Engine // Service.Run runs it
	Broker Broker         // whoever makes it runs it, with Config.AwaitRoom
	Model  *modelstore.Model

	Settings terms.Settings
	Own      []agreement.Template // of administrators
	// Domain gives the domain whose gateway an owner of agreements is, "" for anybody else: what
	// capacity it bought is for the jobs that it routes. Nil: there are none.
	Domain func(owner string) string
	// Budgets bound what VOs may spend on agreements; those that are not named may spend what they like.
	Budgets map[string]Budget
	// Callbacks say where decisions on pending agreements may be told: host names, "*.example.org",
	// networks like 10.0.0.0/8, or "loopback". None is nowhere.
	Callbacks []string
	// Guests says what those of other domains may have; nil lets none of them in.
	Guests Guests
	// MaxGuests bounds the agreements with one peer's domain that have not ended, MaxHourly those that it
	// makes within an hour, however they end; 0 is 2,000 and 1,000.
	MaxGuests, MaxHourly int
	// Transport carries them; nil is one that connects to what Callbacks allow only.
	Transport http.RoundTripper
	// Join gives the session by which replicas know that this one lives; nil: there is no other.
	Join func(context.Context) (store.Session, error)
	// Decides has it decide about offers, and do nothing about agreements: another process of the
	// domain, which has the sites, keeps them by what is recorded.
	Decides bool

	Log *slog.Logger
	Now func() time.Time // nil is time.Now

	// Lag is how late evidence may be heard of without a promise being found broken meanwhile;
	// 0 is 10 seconds.
	Lag time.Duration
	// Patience is how long managers may take to make reservations for one offer; 0 is 2 minutes.
	Patience time.Duration
	// Workers is how many agreements are looked after at once; 0 is 16.
	Workers int
}

// Guests says what those of other domains (soap.Principal.Domain) may have of what is here.
type Guests interface {
	// View gives what of the model may be promised to one.
	View(who soap.Principal, m *resourcemodel.Snapshot) (*resourcemodel.Snapshot, error)
	// Admit says why one may not have a service for a VO: a job, or else capacity, of so many CPUs for so
	// long (0 is not said).
	Admit(who soap.Principal, vo string, job bool, cpus int64, wall time.Duration) error
}

// Budget is what a VO may spend.
type Budget struct {
	Amount int64 // in thousandths of the unit
	Period engine.Period
}

// EnsureDefaults fills in what was left out.
func (o *Options) EnsureDefaults() {
	o.Settings.EnsureDefaults()
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Lag == 0 {
		o.Lag = 10 * time.Second
	}
	if o.Patience == 0 {
		o.Patience = 2 * time.Minute
	}
	if o.MaxGuests == 0 {
		o.MaxGuests = 2000
	}
	if o.MaxHourly == 0 {
		o.MaxHourly = 1000
	}
	if o.Workers == 0 {
		o.Workers = 16
	}
}

// Validate reports what can't be worked with.
func (o *Options) Validate() error {
	const op = "service.New"
	switch {
	case o.Engine == nil || o.Broker == nil || o.Model == nil:
		return fail.Errorf(op, fail.Invalid, "", "agreements need an engine, a broker and a resource model")
	case o.MaxGuests < 0 || o.MaxHourly < 0:
		return fail.Errorf(op, fail.Invalid, "", "how many agreements a peer may make can't be negative")
	case o.Lag < 0 || o.Patience < 0 || o.Workers < 0:
		return fail.Errorf(op, fail.Invalid, "", "the lag, the patience and the number of workers can't be negative")
	}
	if _, err := parseAllowed(o.Callbacks); err != nil {
		return err
	}
	return o.Settings.Validate()
}

// Service keeps agreements. Its methods may be called at once from many goroutines, while Run
// runs.
type Service struct {
	o       Options
	e       *engine.Engine
	b       Broker
	callers *callers
	held    *together.Participant
	guests  guests
	asking  turns // those who prepare the same
	work    *queue
	rooms   rooms

	bind func(context.Context, *agreement.NegotiationExtension, *agreement.CreateRequest) (string, bool, error)

	mu       sync.Mutex
	sets     map[string]*templateSet       // by who asks, with their VOs
	vos      []string                      // that sites are open to by name,
	vosOf    *resourcemodel.Snapshot       // as this shows them
	own      map[string]*agreement.Checker // of administrators' templates, by name and id
	readings map[string]*reading           // agreements as they were read, by id
	changed  map[string]engine.Record      // told by the engine, and not looked at yet
	failures map[string]int                // in a row, by agreement

	began time.Time // to look after agreements; it is set before any is looked at

	roomNews, poolNews chan struct{}
	ready              chan struct{} // is closed when offers can be decided
	ended              chan struct{} // is closed when Run has ended
}

var (
	_ agreement.Service  = (*Service)(nil)
	_ agreement.Lister   = (*Service)(nil)
	_ agreement.Preparer = (*Service)(nil)
	_ agreement.Extender = (*Service)(nil)
)

// New makes a Service. Templates of administrators that can't be checked by are refused.
func New(o Options) (*Service, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	s := &Service{
		o: o, e: o.Engine, b: o.Broker, work: newQueue(o.Now),
		guests: guests{of: map[string]*rate.Limiter{}}, asking: turns{of: map[string]*turn{}},
		sets: map[string]*templateSet{}, own: map[string]*agreement.Checker{}, readings: map[string]*reading{},
		rooms: rooms{of: map[string]room{}, capacity: map[string]bool{}}, changed: map[string]engine.Record{}, failures: map[string]int{},
		roomNews: make(chan struct{}, 1), poolNews: make(chan struct{}, 1), ready: make(chan struct{}), ended: make(chan struct{}),
	}
	for i := range o.Own {
		c, err := o.Own[i].Compile()
		if err != nil {
			return nil, err
		}
		s.own[templateKey(&o.Own[i])] = c
	}
	var err error
	if s.callers, err = newCallers(o.Callbacks, o.Transport); err != nil {
		return nil, err
	}
	s.callers.work = newQueue(o.Now)
	s.work.off, s.callers.work.off = o.Decides, o.Decides
	s.held, err = together.NewParticipant(together.ParticipantOptions{
		Engine: s.e, Now: o.Now,
		Propose: func(ctx context.Context, req *agreement.CreateRequest) (engine.Proposal, error) {
			quiet := *req
			quiet.AcceptanceEPR = nil // who confirms it decides
			p, err := s.prepare(ctx, "service.Prepare", &quiet)
			if err == nil {
				err = s.welcome(p.proposal.Domain, len(p.proposal.Document))
			}
			if err != nil {
				return engine.Proposal{}, err
			}
			return p.proposal, nil
		},
		Owner: func(ctx context.Context) (string, error) {
			who, err := s.b.Permit(ctx, "service.Prepare", broker.Submit)
			return who.Name, err
		},
		Held: s.holdElsewhere,
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Bind says who makes agreements of what was quoted in a negotiation; it is called before Run.
func (s *Service) Bind(bind func(context.Context, *agreement.NegotiationExtension, *agreement.CreateRequest) (key string, handled bool, err error)) {
	s.bind = bind
}

func (s *Service) now() time.Time { return s.o.Now().UTC().Round(0) }

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// pause waits for d, or gives false when ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// Ready is closed when offers can be decided: the broker knows what is held, and the calendar what the
// sites have that answer. What Run is given to work with must be ready for that.
func (s *Service) Ready() <-chan struct{} { return s.ready }

// Run keeps agreements until ctx ends, when it gives nil.
func (s *Service) Run(ctx context.Context) error {
	defer s.callers.close()
	defer close(s.ended)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := s.e.Run(ctx); ctx.Err() == nil {
			return err
		}
		return nil
	})
	stop := s.e.Watch(s.heard)
	defer stop()
	for _, r := range s.e.Live() { // what changes from now on is told
		s.hold(&r)
		s.work.add(r.ID, time.Time{})
	}
	g.Go(func() error { return s.roomLoop(ctx) })
	if s.o.Decides {
		close(s.ready) // how the sites stand is told by another process
		return g.Wait()
	}
	g.Go(func() error { return s.attend(ctx) })
	g.Go(func() error {
		select {
		case <-s.b.Ready():
		case <-ctx.Done():
			return nil
		}
		if err := s.setBudgets(ctx); err != nil {
			return err
		}
		s.began = s.now()
		heard, err := s.resume(ctx)
		if err != nil {
			return err
		}
		tell := s.b.Follow(ctx, heard) // before a job is made, as it may end before the next line
		g.Go(func() error { return s.poolLoop(ctx) })
		g.Go(func() error {
			if err := tell(func(list []broker.Evidence) error { return s.take(ctx, list) }); ctx.Err() == nil {
				return err
			}
			return nil
		})
		g.Go(func() error { return s.sweepLoop(ctx) })
		g.Go(func() error { return s.callers.work.run(ctx, callersAtOnce, s.tellDecision) })
		return s.work.run(ctx, s.o.Workers, s.look)
	})
	return g.Wait()
}

// setBudgets has what VOs may spend be what the options say.
func (s *Service) setBudgets(ctx context.Context) error {
	for vo, most := range s.o.Budgets {
		if err := s.insist(ctx, "the budget of a VO", func() error { return s.e.SetBudgetFor(ctx, vo, &most.Amount, most.Period) }); err != nil {
			return err
		}
	}
	for _, a := range s.e.Accounts() { // those that are not named any more
		if _, named := s.o.Budgets[a.VO]; named || a.Limit == nil {
			continue
		}
		if err := s.insist(ctx, "the budget of a VO", func() error { return s.e.SetBudget(ctx, a.VO, nil) }); err != nil {
			return err
		}
	}
	return nil
}

// insist does something until it succeeds or can't, and gives nil once ctx ends.
func (s *Service) insist(ctx context.Context, what string, do func() error) error {
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 10*time.Second) {
		err := do()
		if err == nil || ctx.Err() != nil {
			return nil //nolint:nilerr // what fails while stopping is no failure
		}
		if !passing(err) {
			return err
		}
		s.o.Log.Warn("the store of agreements does not answer; it is tried again", "for", what, "cause", err)
		if !pause(ctx, wait) {
			return nil
		}
	}
}

// passing reports whether the same may succeed later.
func passing(err error) bool {
	switch fail.KindOf(err) {
	case fail.Unavailable, fail.Uncertain, fail.NotAccepting, fail.Exhausted:
		return true
	case fail.Internal, fail.Invalid, fail.Unsupported, fail.Unauthenticated, fail.Denied, fail.NotFound, fail.Conflict:
	}
	return false
}

// attend tells other replicas that this one lives.
func (s *Service) attend(ctx context.Context) error {
	for wait := time.Second; s.o.Join != nil; {
		sess, err := s.o.Join(ctx)
		if err == nil {
			if err = s.e.Attend(ctx, sess); err == nil {
				wait = time.Second
				select {
				case <-sess.Lost():
				case <-ctx.Done():
				}
			}
			_ = sess.Close() // a lease that can't be given back runs out
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // what fails while stopping is no failure
		}
		s.o.Log.Warn("the other gateways are told anew that this one keeps agreements", "cause", err)
		if !pause(ctx, wait) {
			return nil
		}
		wait = min(2*wait, 10*time.Second)
	}
	return nil
}

// heard takes what the engine tells of changes.
func (s *Service) heard(records []engine.Record) {
	s.mu.Lock()
	for _, r := range records {
		s.changed[r.ID] = r
	}
	s.mu.Unlock()
	for _, r := range records {
		s.work.add(r.ID, time.Time{})
	}
	nudge(s.roomNews)
}

// look does what is to be done about one agreement, and gives when to look again; the zero time is
// when something changes.
func (s *Service) look(ctx context.Context, id string) time.Time {
	again, err := s.keep(ctx, id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil || ctx.Err() != nil {
		delete(s.failures, id)
		return again
	}
	s.failures[id]++
	wait := min(time.Second<<min(s.failures[id]-1, 10), time.Minute)
	s.o.Log.Warn("an agreement can't be looked after at present; it is tried again", "agreement", id, "after", wait, "cause", err)
	return s.now().Add(wait)
}

// List gives the ids of the caller's agreements.
func (s *Service) List(ctx context.Context, before string, limit int) ([]string, error) {
	who, err := s.b.Permit(ctx, "service.List", broker.Submit)
	if err != nil {
		return nil, err
	}
	if limit < 1 {
		return nil, nil
	}
	records, err := s.e.List(ctx, who.Name, before, limit)
	if err != nil {
		return nil, err
	}
	ids := make([]string, len(records))
	for i := range records {
		ids[i] = records[i].ID
	}
	return ids, nil
}

// view gives the model as who asks may have it.
func (s *Service) view(who soap.Principal) (*resourcemodel.Snapshot, error) {
	m := s.o.Model.Snapshot()
	switch {
	case who.Domain == "":
		return m, nil
	case s.o.Guests == nil:
		return nil, fail.Errorf("service.view", fail.Denied, who.Domain, "this gateway makes no agreements with others")
	}
	return s.o.Guests.View(who, m)
}

// plans gives the ways to keep a request, the best first, of which who asks may have each.
func (s *Service) plans(q *terms.Request, m *resourcemodel.Snapshot, as resourcemodel.Subject, who soap.Principal, now time.Time) ([]terms.Plan, error) {
	all, err := terms.Plans(q, m, as, now, s.o.Settings)
	if err != nil {
		return nil, err
	}
	var refused error
	plans := slices.DeleteFunc(all, func(p terms.Plan) bool {
		err := s.admit(who, as.VO, q, p.Placed...)
		if refused == nil {
			refused = err
		}
		return err != nil
	})
	if len(plans) == 0 {
		return nil, refused
	}
	return plans, nil
}

// admit says why who asks may not have what one alternative of an offer is about, as a plan places it if there is one
// already.
func (s *Service) admit(who soap.Principal, vo string, q *terms.Request, placed ...terms.Placed) error {
	if who.Domain == "" {
		return nil
	}
	for i := range q.Services {
		v := &q.Services[i]
		job, cpus, wall := v.Job != nil, int64(v.Need.CPUs), v.Duration
		if v.Capacity != nil {
			cpus = max(v.Capacity.Amount.CPUs, v.Capacity.Amount.Slots)
		}
		if i < len(placed) { // of whole nodes it has all
			cpus = max(cpus, placed[i].CPUs)
		}
		if err := s.o.Guests.Admit(who, vo, job, cpus, wall); err != nil {
			return fail.Errorf("service.admit", fail.KindOf(err), v.Term, "the term %q: %s", v.Term, fail.Sentence(err)).Because(err)
		}
	}
	return nil
}

// find gives an agreement that is the caller's, or that the caller oversees; to others there is
// none.
func (s *Service) find(ctx context.Context, op, key string) (engine.Record, error) {
	who, err := s.b.Permit(ctx, op, broker.Submit)
	if err != nil {
		return engine.Record{}, err
	}
	r, err := s.e.Get(ctx, key)
	if err != nil {
		return engine.Record{}, err
	}
	if r.Owner != who.Name {
		if _, err := s.b.Permit(ctx, op, broker.Oversee); err != nil {
			return engine.Record{}, fail.Errorf(op, fail.NotFound, key, "there is no agreement %q", key)
		}
	}
	return r, nil
}

// reading is an agreement's document as it was read.
type reading struct {
	agreement agreement.Agreement // with the terms that were chosen
	request   *terms.Request
	detail    detail
}

// read gives an agreement's document, with the terms that were chosen.
func (s *Service) read(ctx context.Context, r *engine.Record) (*reading, error) {
	s.mu.Lock()
	known := s.readings[r.ID]
	s.mu.Unlock()
	if known != nil {
		return known, nil
	}
	b, err := s.e.Document(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	o, err := agreement.ParseOffer(b)
	if err != nil {
		return nil, err
	}
	x := &reading{agreement: o.Agreement}
	if r.Plan == nil {
		return x, nil
	}
	if x.detail, err = detailOf(r); err != nil {
		return nil, err
	}
	x.agreement.Terms = chosen(o.Terms, x.detail.Terms)
	// What was in time when it was accepted is so for ever.
	if x.request, err = terms.Read(&x.agreement, r.Created, s.o.Settings); err != nil {
		if x.request, err = terms.Read(&x.agreement, r.Created, terms.Settings{Horizon: 366 * 24 * time.Hour, MaxWindow: 366 * 24 * time.Hour}); err != nil {
			return nil, err // and not because the settings are others by now
		}
	}
	s.remember(r.ID, x)
	return x, nil
}

// mostReadings bounds the agreements that are in memory as they were read.
const mostReadings = 10_000

func (s *Service) remember(id string, x *reading) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for other := range s.readings {
		if len(s.readings) < mostReadings {
			break
		}
		delete(s.readings, other)
	}
	s.readings[id] = x
}

func (s *Service) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.readings, id)
	delete(s.failures, id)
}

// chosen gives the terms of those names, in the document's order, under one wsag:All.
func chosen(all *agreement.Compositor, names []string) *agreement.Compositor {
	out := &agreement.Compositor{Kind: agreement.All}
	all.Walk(func(t agreement.Term) bool {
		if _, ok := t.(*agreement.Compositor); !ok && slices.Contains(names, t.TermName()) {
			out.Terms = append(out.Terms, t)
		}
		return true
	})
	return out
}
