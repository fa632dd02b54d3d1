package purchase

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/beevik/etree"
	"github.com/google/uuid"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// Provider is what sells: an agreement.Client, or a service in this process.
type Provider interface {
	agreement.Preparer
	Templates(ctx context.Context) ([]agreement.Template, error)
	Agreement(ctx context.Context, key string) (*agreement.Properties, error)
	Terminate(ctx context.Context, key string, reason *etree.Element) error
	Initiate(ctx context.Context, req *agreement.InitiateRequest) (key string, err error)
	Negotiate(ctx context.Context, key string, offers []agreement.NegotiationOffer) ([]agreement.NegotiationOffer, error)
	TerminateNegotiation(ctx context.Context, key string, why []*etree.Element) error
}

var _ Provider = (*agreement.Client)(nil)

// Open is room at a domain that is ours now.
type Open struct {
	Domain    string
	Agreement string // at the domain
	CPUs      int
	VO        string // whose jobs alone may have it; "" is all
	From      time.Time
	Until     time.Time
}

// Options says how a Buyer works. Dial is required.
type Options struct {
	// Dial gives the provider of a domain, to act for our own domain there; it must not wait for the
	// network. An error that may pass (fail.Unavailable) has it tried again; of what the domain may
	// hold for us already any other error has, too, as it is not the domain's word.
	Dial    func(ctx context.Context, domain string) (Provider, error)
	Own     string // our domain, for the ledger and for people
	Replica string // our name; "" is "gateway"
	Log     *slog.Logger
	Now     func() time.Time // nil is time.Now
	// Tell is told which room is ours now, whenever that changes; nil tells nobody.
	Tell func([]Open)
	// Away says in a sentence why a domain can be given no jobs now; "" is that it can. Nil: all can.
	Away func(domain string) string
	// Hold is for how long an offer is to be held before it is confirmed; 0 is a minute.
	Hold time.Duration
	// Timeout bounds one request; 0 is 20 seconds.
	Timeout time.Duration
	// Watch is how often a domain is asked whether it keeps what was bought, while the window is
	// open; 0 is a minute. Look is how often it is looked whether it is away; 0 is 5 seconds.
	Watch, Look time.Duration
	// Again is after how long an order that was refused for want of room, or as the domain was no peer or
	// had no template for room, is asked for again, until its window begins; 0 is 5 minutes.
	Again time.Duration
	// Settle is for how long a domain is asked what it costs; 0 is a day.
	Settle time.Duration
	// Takeover is after how long another replica goes on with what one has left; 0 is 30 seconds.
	Takeover time.Duration
	// Retention is how long a purchase that is over is kept; 0 is 30 days.
	Retention time.Duration
	// Ahead is how long before its window an order is asked for; 0 is a day.
	Ahead time.Duration
	// MaxLive bounds the purchases that are not over; 0 is 1,000.
	MaxLive int
}

// EnsureDefaults fills in what is not set.
func (o *Options) EnsureDefaults() {
	if o.Replica == "" {
		o.Replica = "gateway"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Tell == nil {
		o.Tell = func([]Open) {}
	}
	if o.Away == nil {
		o.Away = func(string) string { return "" }
	}
	for _, d := range []struct {
		of *time.Duration
		is time.Duration
	}{
		{&o.Hold, time.Minute},
		{&o.Timeout, 20 * time.Second},
		{&o.Watch, time.Minute},
		{&o.Look, 5 * time.Second},
		{&o.Again, 5 * time.Minute},
		{&o.Settle, 24 * time.Hour},
		{&o.Takeover, 30 * time.Second},
		{&o.Retention, 30 * 24 * time.Hour},
		{&o.Ahead, 24 * time.Hour},
	} {
		if *d.of == 0 {
			*d.of = d.is
		}
	}
	if o.MaxLive == 0 {
		o.MaxLive = 1000
	}
}

// Validate reports what can't be worked with.
func (o *Options) Validate() error {
	const op = "purchase.New"
	switch {
	case o.Dial == nil:
		return fail.Errorf(op, fail.Invalid, "", "a buyer must be told how to reach providers: set Dial")
	case min(o.Hold, o.Timeout, o.Watch, o.Look, o.Again, o.Settle, o.Takeover, o.Retention, o.Ahead) < 0 || o.MaxLive < 0:
		return fail.Errorf(op, fail.Invalid, "", "the times and bounds of a buyer can't be negative")
	}
	return nil
}

// Buyer buys capacity. Its methods may be called at once from many goroutines; nothing moves on but
// while Run runs.
type Buyer struct {
	st   store.Records
	o    Options
	news chan struct{} // orders changed

	mu      sync.Mutex
	entries map[string]*entry // purchases that are not over
	orders  []Order
	told    []Open
	toldAny bool
	telling sync.Mutex // so that no older list comes after a newer
	turn    chan struct{}
}

// entry is a purchase that is not over.
type entry struct {
	id     string
	record *Record // as it was read last
	news   chan struct{}
}

// New makes a Buyer. What was under way in the store goes on when Run runs.
func New(st store.Records, o Options) (*Buyer, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return &Buyer{st: st, o: o, entries: map[string]*entry{}, news: make(chan struct{}, 1), turn: make(chan struct{}, 1)}, nil
}

func (b *Buyer) now() time.Time { return b.o.Now().UTC().Round(0) }

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Buy begins a purchase, and gives it when it is written down. The error is fail.Invalid for a wish
// that can't be meant, fail.Exhausted when as many are under way as may be.
func (b *Buyer) Buy(ctx context.Context, w Wish, by string) (*Record, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fail.E("purchase.Buy", fail.Internal, "", err)
	}
	now := b.now()
	w.Start, w.End = w.Start.UTC().Truncate(time.Second), w.End.UTC().Truncate(time.Second)
	if err := w.Check(now); err != nil {
		return nil, err
	}
	return b.begin(ctx, &Record{ID: id.String(), By: cut(by), Wish: w})
}

// begin writes a purchase that is new. fail.Conflict says that there is one by its id.
func (b *Buyer) begin(ctx context.Context, r *Record) (*Record, error) {
	const op = "purchase.Buy"
	b.mu.Lock()
	full := len(b.entries) >= b.o.MaxLive
	b.mu.Unlock()
	if full {
		return nil, fail.Errorf(op, fail.Exhausted, r.ID, "%d purchases are under way, as many as may be; release some, or wait until some are over", b.o.MaxLive)
	}
	now := b.now()
	r.State, r.Gateway, r.Created, r.Changed, r.Next = Asking, b.o.Replica, now, now, now
	r.tell(now, "wished", wished(r))
	rev, err := b.st.PutRecords(ctx, nil, store.RecordChange{Key: keyOf(r.ID), Value: r.encode()})
	if err != nil {
		return nil, err
	}
	r.Revision = rev
	return r, nil
}

func wished(r *Record) string {
	who := r.By
	if r.Order != "" {
		who = "the order " + r.Order
	}
	if who == "" {
		who = "somebody"
	}
	return who + " wants " + cpus(r.CPUs) + " of " + r.From + " from " + stamp(r.Start) + " to " + stamp(r.End)
}

// Get gives a purchase; fail.NotFound when there is none.
func (b *Buyer) Get(ctx context.Context, id string) (*Record, error) {
	r, err := b.read(ctx, id)
	if err == nil && r == nil {
		err = fail.Errorf("purchase.Get", fail.NotFound, id, "there is no purchase %q", id)
	}
	return r, err
}

// read reads a purchase; nil: there is none.
func (b *Buyer) read(ctx context.Context, id string) (*Record, error) {
	if id == "" || len(id) > MaxName {
		return nil, nil
	}
	key := keyOf(id)
	list, _, err := b.st.ListRecords(ctx, key, store.RecordOptions{Limit: 1})
	if err != nil || len(list) == 0 || list[0].Key != key {
		return nil, err
	}
	r, err := decode(list[0])
	if err != nil {
		return nil, fail.E("purchase.read", fail.Internal, id, err)
	}
	return r, nil
}

// MaxList is the most that List gives.
const MaxList = 10_000

// List gives the purchases that are kept, those whose window begins first first.
func (b *Buyer) List(ctx context.Context) ([]Record, error) {
	var out []Record
	for after := ""; len(out) < MaxList; {
		list, _, err := b.st.ListRecords(ctx, Prefix, store.RecordOptions{After: after, Limit: page})
		if err != nil {
			return nil, err
		}
		for _, v := range list {
			if r, err := decode(v); err == nil {
				out = append(out, *r)
			}
		}
		if len(list) < page {
			break
		}
		after = list[len(list)-1].Key
	}
	slices.SortStableFunc(out, func(x, y Record) int { return x.Start.Compare(y.Start) })
	return out, nil
}

// Release has a purchase given back. It is idempotent; fail.Conflict says that it is over.
func (b *Buyer) Release(ctx context.Context, id, by string) (*Record, error) {
	for {
		r, err := b.Get(ctx, id)
		if err != nil {
			return nil, err
		}
		switch {
		case r.State == Releasing, r.State == Released, r.State == Settling && r.Outcome == Released:
			return r, nil
		case r.State.Final() || r.State == Settling:
			return nil, fail.Errorf("purchase.Release", fail.Conflict, id, "the purchase %s is over: it is %s", id, r.State)
		}
		n := r.clone()
		n.Outcome = Released
		if err := n.step(b.now(), Release, by+" gives it back"); err != nil {
			return nil, err
		}
		n.Next = b.now()
		if n.State.Final() {
			n.Next = time.Time{}
		}
		switch err := b.save(ctx, n); {
		case err == nil:
			b.took(n)
			return n, nil
		case !fail.Is(err, fail.Conflict):
			return nil, err
		}
	}
}

// save writes a record on the revision that it was read at.
func (b *Buyer) save(ctx context.Context, r *Record) error {
	r.Gateway, r.Changed = b.o.Replica, b.now()
	rev, err := b.st.PutRecords(ctx, nil, store.RecordChange{Key: keyOf(r.ID), Value: r.encode(), If: r.Revision})
	if err != nil {
		return err
	}
	r.Revision = rev
	return nil
}

// took notes how a purchase is now, and tells what follows from it.
func (b *Buyer) took(r *Record) {
	b.mu.Lock()
	if e := b.entries[r.ID]; e != nil && (e.record == nil || e.record.Revision < r.Revision) {
		e.record = r
		nudge(e.news)
	}
	b.mu.Unlock()
	b.tell()
}

// tell tells which room is ours now, if that changed.
func (b *Buyer) tell() {
	b.telling.Lock()
	defer b.telling.Unlock()
	now := b.now()
	var open []Open
	b.mu.Lock()
	for _, e := range b.entries {
		if r := e.record; r != nil && r.open(now) {
			open = append(open, Open{Domain: r.From, Agreement: r.Agreement, CPUs: r.Room, VO: r.VO, From: r.Opens, Until: r.Closes})
		}
	}
	slices.SortFunc(open, func(x, y Open) int {
		if c := x.Until.Compare(y.Until); c != 0 {
			return c
		}
		if x.Agreement < y.Agreement {
			return -1
		}
		return 1
	})
	same := b.toldAny && slices.Equal(open, b.told)
	b.told, b.toldAny = open, true
	b.mu.Unlock()
	nudge(b.turn)
	if !same {
		b.o.Tell(slices.Clone(open))
	}
}

// turns tells what is ours at each moment at which that changes by itself, until ctx ends.
func (b *Buyer) turns(ctx context.Context) {
	t := time.NewTimer(0)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			b.tell()
		case <-b.turn:
		}
		now := b.now()
		var due time.Time
		b.mu.Lock()
		for _, e := range b.entries {
			if e.record == nil || e.record.State != Bought {
				continue
			}
			for _, at := range []time.Time{e.record.Opens, e.record.Closes} {
				if at.After(now) && (due.IsZero() || at.Before(due)) {
					due = at
				}
			}
		}
		b.mu.Unlock()
		if !due.IsZero() {
			t.Reset(max(time.Millisecond, due.Sub(now)))
		}
	}
}
