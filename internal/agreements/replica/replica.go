package replica

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/agreements/service"
	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/broker/modelstore"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/resourcemodel"
)

// Options says what a Replica works with. Name, Store, Model and URL are required.
type Options struct {
	Name  string      // of its own among the replicas of the domain
	Store store.Store // of the domain
	Model *modelstore.Model
	URL   string // what the process serves is below that
	// Promises are ours; while the holder's are others, nothing is answered.
	Promises Promises
	// Authorise and Member are as broker.Config has them.
	Authorise func(soap.Principal, broker.Permission) error
	Member    func(who soap.Principal, vo string) error
	// Fresh is how old, at most, what the holder told of a site may be while it is there, Patience while it
	// is not: what was free when it went may be promised for so long. 0 is 2 minutes and an hour.
	Fresh, Patience time.Duration
	Log             *slog.Logger
	Now             func() time.Time // nil is time.Now
}

// EnsureDefaults fills in what was left out.
func (o *Options) EnsureDefaults() {
	c := broker.Config{Authorise: o.Authorise, Log: o.Log}
	c.EnsureDefaults()
	o.Authorise, o.Log = c.Authorise, c.Log
	if o.Member == nil {
		o.Member = func(soap.Principal, string) error { return nil }
	}
	if o.Fresh == 0 {
		o.Fresh = 2 * time.Minute
	}
	if o.Patience == 0 {
		o.Patience = time.Hour
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// Validate reports what can't be worked with.
func (o *Options) Validate() error {
	const op = "replica.New"
	switch why := BadName(o.Name); {
	case why != "":
		return fail.Errorf(op, fail.Invalid, o.Name, "%s", why)
	case o.Store == nil || o.Model == nil || o.URL == "":
		return fail.Errorf(op, fail.Invalid, "", "a replica needs a store, a resource model and its URL")
	case min(o.Fresh, o.Patience) < 0:
		return fail.Errorf(op, fail.Invalid, "", "how old what is told of sites may be can't be negative")
	}
	return nil
}

// Replica stands for the broker in a process that has none.
type Replica struct {
	o        Options
	instance string
	ready    chan struct{}
	http     *http.Transport
	intake   *soap.Intake // of what is passed on

	mu     sync.Mutex
	notes  notes
	holds  map[string][]schedule.Hold // by the agreement
	sorted []*schedule.Hold           // what is in holds; nil is to be made anew
}

var _ service.Broker = (*Replica)(nil)

// New makes a Replica. fail.Invalid is that the holder promises otherwise.
func New(ctx context.Context, o Options) (*Replica, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	r := &Replica{o: o, instance: instance(), ready: make(chan struct{}), http: newTransport(), intake: soap.NewIntake(0)}
	close(r.ready)
	records, _, err := o.Store.ListRecords(ctx, prefix, store.RecordOptions{})
	if err != nil {
		return nil, err
	}
	r.take(records, true)
	if err := r.alike("replica.New"); err != nil {
		return nil, fail.E("replica.New", fail.Invalid, "", err)
	}
	return r, nil
}

func (r *Replica) take(records []store.Record, all bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.notes.take(records, all); err != nil {
		r.o.Log.Warn("what another process of the domain says can't be read", "cause", err)
	}
}

// Run tells of the replica and hears of the holder until ctx ends, when it gives nil. fail.Conflict is that
// another process has its name now.
func (r *Replica) Run(ctx context.Context) error {
	defer r.http.CloseIdleConnections()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return attend(ctx, r.o.Store, "replica-"+r.o.Name, replicaKey(r.o.Name), encode(presence{Instance: r.instance, URL: r.o.URL}), r.o.Log, r.another)
	})
	g.Go(func() error {
		follow(ctx, r.o.Store, r.o.Log, r.take)
		return nil
	})
	return g.Wait()
}

// another says whether another process has taken the name.
func (r *Replica) another(ctx context.Context) error {
	records, _, err := r.o.Store.ListRecords(ctx, replicaPrefix, store.RecordOptions{})
	if err != nil {
		return nil //nolint:nilerr // it is tried anew
	}
	var n notes
	if err := n.take(records, true); err != nil {
		return nil //nolint:nilerr // another has the name, or nobody
	}
	if p, ok := n.replicas[r.o.Name]; ok && p.Instance != r.instance {
		return fail.Errorf("replica.Run", fail.Conflict, r.o.Name, "another process, at %s, is the replica %s of the domain now: give each a name of its own", p.URL, r.o.Name)
	}
	return nil
}

// Told waits until it is known how the sites stand, where a holder is there that can tell; false is that ctx
// ended first.
func (r *Replica) Told(ctx context.Context) bool {
	for {
		r.mu.Lock()
		told := r.holding() == nil
		for _, s := range r.notes.sites {
			told = told || r.age(&s) <= r.o.Fresh
		}
		r.mu.Unlock()
		if told || !pause(ctx, 20*time.Millisecond) {
			return told
		}
	}
}

func (r *Replica) age(s *seen) time.Duration { return r.o.Now().Sub(s.At) }

// holder gives where the sites are; nil: nobody has them now.
func (r *Replica) holder() *presence {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.holding()
}

// holding is holder, where the caller holds the lock. One that was where this process is now has gone, though its
// lease has not yet.
func (r *Replica) holding() *presence {
	if h := r.notes.holder; h != nil && h.URL != r.o.URL {
		return h
	}
	return nil
}

// alike says how the holder promises otherwise.
func (r *Replica) alike(op string) error {
	h := r.holder()
	if h != nil && h.Off {
		return fail.Errorf(op, fail.Unavailable, "", "the gateway that has the sites (%s) makes no agreements, and keeps none that a replica makes: end this replica, or start that gateway without agreements.off", h.URL)
	}
	if h == nil || h.Promises == nil {
		return nil
	}
	if keys := r.o.Promises.differ(*h.Promises); len(keys) > 0 {
		verb := "is"
		if len(keys) > 1 {
			verb = "are"
		}
		return fail.Errorf(op, fail.Unavailable, "", "%s of this replica %s not as at the gateway that has the sites (%s): start both with the same configuration", strings.Join(keys, " and "), verb, h.URL)
	}
	return nil
}

// Ready is closed.
func (r *Replica) Ready() <-chan struct{} { return r.ready }

// Permit gives who asks, or why they may not.
func (r *Replica) Permit(ctx context.Context, op string, p broker.Permission) (soap.Principal, error) {
	who := soap.PrincipalFrom(ctx)
	if who.Name == "" {
		who.Name = "anonymous"
	}
	if err := r.o.Authorise(who, p); err != nil {
		return who, fail.Errorf(op, fail.Denied, who.Name, "%s may not %s here", who.Name, p).Because(err)
	}
	return who, r.alike(op)
}

// Belongs gives nil when the principal in ctx may act for a VO.
func (r *Replica) Belongs(ctx context.Context, vo string) error {
	if vo == "" {
		return nil
	}
	who := soap.PrincipalFrom(ctx)
	if err := r.o.Member(who, vo); err != nil {
		return fail.Errorf("replica.Belongs", fail.Denied, vo, "%s may not act for the VO %s here", who.Name, vo).Because(err)
	}
	return nil
}

// Admissible can't be said here: who has the sites is asked in place of this process, where the request
// came by HTTP.
func (r *Replica) Admissible(ctx context.Context, _ []byte, _ *broker.Promise) error {
	if p := passingOf(ctx); p != nil && r.holder() != nil {
		p.on()
	}
	return fail.Errorf("replica.Admissible", fail.Unavailable, "",
		"whether its job can run is said by the gateway that has the sites, which is not there now: try again later; capacity for a window, without a job, can be agreed on here meanwhile")
}

// Outlook is broker.Broker.Outlook by what the holder told last, and by what was promised since.
func (r *Replica) Outlook(site, share string, cpus int, length time.Duration, vo string) (schedule.Outlook, error) {
	const op = "replica.Outlook"
	at := r.o.Model.Snapshot().Site(resourcemodel.Key{Site: site})
	r.mu.Lock()
	s, known := r.notes.sites[site]
	holds, held := r.held(), r.holding() != nil
	r.mu.Unlock()
	most := r.o.Fresh
	if !held {
		most = r.o.Patience
	}
	switch {
	case at == nil && !known:
		return schedule.Outlook{}, fail.Errorf(op, fail.NotFound, site, "there is no site %s here that takes jobs", site)
	case !known || at == nil || r.age(&s) > most:
		said := "the gateway that has it has told nothing of it yet"
		if known {
			said = fmt.Sprintf("the gateway that has it told of it last at %s", s.At.Format(time.RFC3339))
		}
		return schedule.Outlook{}, fail.Errorf(op, fail.Unavailable, site, "what is free at the site %s is not known here now, as %s: try again in a moment", site, said)
	}
	if share == "" {
		share = s.Usual
	}
	return s.SiteSight.Outlook(site, share, cpus, length, vo, schedule.HoldsOn(at, share, holds), r.o.Now())
}

// KeepRoom notes what is promised.
func (r *Replica) KeepRoom(holds []schedule.Hold) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.holds = map[string][]schedule.Hold{}
	for _, h := range holds {
		r.holds[h.Agreement] = append(r.holds[h.Agreement], h)
	}
	r.sorted = nil
}

// ChangeRoom notes what one agreement promises.
func (r *Replica) ChangeRoom(agreement string, holds []schedule.Hold) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.holds == nil {
		r.holds = map[string][]schedule.Hold{}
	}
	if r.holds[agreement] = slices.Clone(holds); len(holds) == 0 {
		delete(r.holds, agreement)
	}
	r.sorted = nil
}

// held gives what is promised in the order in which it is looked at. The caller holds the lock.
func (r *Replica) held() []*schedule.Hold {
	if r.sorted == nil {
		var all []schedule.Hold
		for _, list := range r.holds {
			all = append(all, list...)
		}
		r.sorted = schedule.SortHolds(all)
	}
	return r.sorted
}

// Reference gives the EPR of an activity, which this process passes on.
func (r *Replica) Reference(id string) soap.EPR { return bes.NewEPR(r.o.URL+"/bes", id) }

// What follows is done by the holder alone, and not asked for here.

func elsewhere(op string) error {
	return fail.Errorf("replica."+op, fail.Unavailable, "", "this process has no sites: the gateway that has them does it")
}

// Survey has no sites.
func (r *Replica) Survey() []broker.SiteStatus { return nil }

// Reserves says that no manager is asked from here.
func (r *Replica) Reserves(string) bool { return false }

// Reserving gives none.
func (r *Replica) Reserving() []string { return nil }

// Reserve is the holder's.
func (r *Replica) Reserve(context.Context, string, string, adapters.Reservation) (adapters.Handle, error) {
	return nil, elsewhere("Reserve")
}

// Reservations is the holder's.
func (r *Replica) Reservations(context.Context, string, []adapters.Tag) ([]adapters.ReservationState, error) {
	return nil, elsewhere("Reservations")
}

// Unreserve is the holder's.
func (r *Replica) Unreserve(context.Context, string, adapters.Handle) error {
	return elsewhere("Unreserve")
}

// SubmitPromised is the holder's.
func (r *Replica) SubmitPromised(context.Context, *bes.CreateActivityRequest, broker.Promise) (*broker.Promised, error) {
	return nil, elsewhere("SubmitPromised")
}

// GetActivityStatuses is the holder's; who shows an agreement tells what was heard of its jobs last.
func (r *Replica) GetActivityStatuses(context.Context, *bes.StatusRequest) ([]bes.StatusResult, error) {
	return nil, elsewhere("GetActivityStatuses")
}

// TerminateActivities is the holder's.
func (r *Replica) TerminateActivities(context.Context, []soap.EPR) ([]bes.Result, error) {
	return nil, elsewhere("TerminateActivities")
}

// Follow is the holder's.
func (r *Replica) Follow(context.Context, map[string]int) (tell func(emit func([]broker.Evidence) error) error) {
	return func(func([]broker.Evidence) error) error { return elsewhere("Follow") }
}
