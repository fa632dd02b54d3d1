package negotiator

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Planner knows what offers mean: whoever makes agreements of them.
type Planner interface {
	// Templates gives those that the caller may offer by.
	Templates(context.Context) ([]agreement.Template, error)
	// Plan checks an offer as CreateAgreement does and gives what would be proposed for it,
	// all but the id. Its errors are those of CreateAgreement.
	Plan(context.Context, *agreement.Offer) (engine.Proposal, error)
}

// Siter is a Planner that knows the places that may be offered where an offer's own has no
// room and its constraints name no others.
type Siter interface {
	Sites(context.Context) ([]string, error)
}

// Options says how a Negotiator works.
type Options struct {
	Log *slog.Logger
	Now func() time.Time // nil is time.Now
	// NewID gives ids that grow with time, for negotiations and for agreements; nil is one of
	// the time and chance.
	NewID func() string

	// Life is how long a negotiation is open where nothing else is asked for, MaxLife the
	// longest; 0 is an hour and a day. Kept is how long it is known after that; 0 is an hour.
	Life, MaxLife, Kept time.Duration
	// Quote is how long a quote is good for; 0 is ten minutes.
	Quote time.Duration
	// Hold says whether capacity is held for the caller's quotes; nil is never. Nothing is
	// held for a renegotiation.
	Hold func(context.Context) bool
	Unit string // of prices; "" is not told

	// Bounds: open negotiations of one principal (0 is 20), ten times as many of all principals of a
	// peer's domain, and five times as many of each that are open or known as yet; offers of both sides in a
	// negotiation (200), each answering the one before (16 deep), in so many calls (50); quotes
	// of one negotiation for which capacity is held (4).
	MaxOpen, MaxOffers, MaxDepth, MaxRounds, MaxHeld int
	// MaxTries is how many changed offers are tried for one that can't be kept (64), MaxCounters
	// how many of them are offered (3), MaxTime how long is looked for them in one call (5 s).
	MaxTries, MaxCounters int
	MaxTime               time.Duration
}

// EnsureDefaults fills in what is not set.
func (o *Options) EnsureDefaults() {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.NewID == nil {
		o.NewID = func() string {
			var b [6]byte
			_, _ = rand.Read(b[:]) // never fails
			return fmt.Sprintf("%012x", o.Now().UnixMilli()) + "-" + hex.EncodeToString(b[:])
		}
	}
	if o.Hold == nil {
		o.Hold = func(context.Context) bool { return false }
	}
	for _, d := range []struct {
		of *time.Duration
		is time.Duration
	}{{&o.Life, time.Hour}, {&o.MaxLife, 24 * time.Hour}, {&o.Kept, time.Hour}, {&o.Quote, 10 * time.Minute}, {&o.MaxTime, 5 * time.Second}} {
		if *d.of == 0 {
			*d.of = d.is
		}
	}
	for _, n := range []struct {
		of *int
		is int
	}{{&o.MaxOpen, 20}, {&o.MaxOffers, 200}, {&o.MaxDepth, 16}, {&o.MaxRounds, 50}, {&o.MaxHeld, 4}, {&o.MaxTries, 64}, {&o.MaxCounters, 3}} {
		if *n.of == 0 {
			*n.of = n.is
		}
	}
}

// Validate reports what can't be worked with.
func (o *Options) Validate() error {
	const op = "negotiator.New"
	switch {
	case min(o.Life, o.MaxLife, o.Kept, o.Quote, o.MaxTime) <= 0:
		return fail.Errorf(op, fail.Invalid, "", "the times of negotiations, quotes and searches must be more than nothing")
	case o.Life > o.MaxLife:
		return fail.Errorf(op, fail.Invalid, "", "a negotiation is open for %s by itself and may be for %s; it can't be longer by itself than it may be", o.Life, o.MaxLife)
	case min(o.MaxOpen, o.MaxOffers, o.MaxDepth, o.MaxRounds, o.MaxTries, o.MaxCounters) < 1 || o.MaxHeld < 0 || o.MaxOpen > maxOwned:
		return fail.Errorf(op, fail.Invalid, "", "the bounds of negotiations must be 1 or more, and at most %d may be open at once", maxOwned)
	}
	return nil
}

// Negotiator negotiates for one replica. Its methods may be called at once from many
// goroutines.
type Negotiator struct {
	st      store.Records
	engine  *engine.Engine
	planner Planner
	opts    Options
}

var _ agreement.Negotiator = (*Negotiator)(nil)

// New makes a Negotiator whose negotiations are in the store.
func New(st store.Records, e *engine.Engine, p Planner, o Options) (*Negotiator, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return &Negotiator{st: st, engine: e, planner: p, opts: o}, nil
}

func (n *Negotiator) now() time.Time { return n.opts.Now().UTC().Round(0) }

// tries is how often a change is made anew where others change the same.
const tries = 8

// again runs what reads, decides and writes until no other writes between.
func again(op string, do func() error) error {
	for range tries {
		err := do()
		if errors.Is(err, errMoved) {
			continue
		}
		return err
	}
	return fail.Errorf(op, fail.Unavailable, "", "others change the same negotiation at once; try again")
}

// errMoved says that a record changed since it was read.
var errMoved = fail.Errorf("negotiator", fail.Conflict, "", "the negotiation has changed since it was read")

// Initiate opens a negotiation, about a new agreement or in place of one of the caller's
// that is observed.
func (n *Negotiator) Initiate(ctx context.Context, req *agreement.InitiateRequest) (string, error) {
	const op = "negotiator.Initiate"
	x := req.Context
	now := n.now()
	switch {
	case x.AgreementResponder == agreement.NegotiationInitiator && x.FactoryEPR == nil:
		return "", agreement.Refuse(agreement.UnsupportedTerm, "the AgreementResponder is the NegotiationInitiator, and no AgreementFactoryEPR says where the agreement would be made; besides, this gateway provides services and takes none: let the NegotiationResponder be the AgreementResponder")
	case x.AgreementResponder != agreement.NegotiationResponder:
		return "", agreement.Refuse(agreement.UnsupportedTerm, "this gateway provides services and takes none: let the NegotiationResponder be the AgreementResponder")
	case !x.ExpirationTime.IsZero() && !x.ExpirationTime.After(now):
		return "", agreement.Refuse(agreement.Expired, fmt.Sprintf("the negotiation would have expired at %s, which has passed; set a later ExpirationTime", moment(x.ExpirationTime)))
	case x.ExpirationTime.IsZero():
		x.ExpirationTime = now.Add(n.opts.Life)
	}
	if latest := now.Add(n.opts.MaxLife); x.ExpirationTime.After(latest) {
		x.ExpirationTime = latest
	}
	x.ExpirationTime = x.ExpirationTime.Truncate(time.Second)
	if !x.ExpirationTime.After(now) {
		x.ExpirationTime = x.ExpirationTime.Add(time.Second)
	}
	i := &instance{ID: n.opts.NewID(), Owner: owner(ctx), Domain: soap.PrincipalFrom(ctx).Domain, Created: now, Expires: x.ExpirationTime}
	if x.Renegotiation != nil {
		key, ok := agreement.KeyOf(x.Renegotiation.ResponderEPR)
		if !ok {
			return "", fail.Errorf(op, fail.NotFound, "", "the ResponderAgreementEPR names no agreement of this gateway; send it as it was given")
		}
		if err := n.replaceable(ctx, i.Owner, key); err != nil {
			return "", err
		}
		i.Agreement = key
	}
	i.Context = xmldoc.Marshal(x.Encode())
	if len(i.Context) > maxContext {
		return "", agreement.Refuse(agreement.UnsupportedTerm, fmt.Sprintf("the NegotiationContext has %d bytes; it may have %d: leave extensions out", len(i.Context), maxContext))
	}
	if err := again(op, func() error { return n.create(ctx, i) }); err != nil {
		return "", err
	}
	return i.ID, nil
}

// replaceable reports why an agreement can't be replaced by the caller.
func (n *Negotiator) replaceable(ctx context.Context, owner, id string) error {
	const op = "negotiator.Initiate"
	r, err := n.engine.Get(ctx, id)
	switch {
	case err != nil:
		return err
	case r.Owner != owner:
		return fail.Errorf(op, fail.NotFound, id, "there is no agreement %q", id)
	case r.State != agreement.Observed:
		return agreement.Refuse(agreement.WrongState, fmt.Sprintf("the agreement %s is %s; only one that is %s can be renegotiated", id, r.State, agreement.Observed))
	}
	return n.engine.Replaceable(&r)
}

func owner(ctx context.Context) string { return soap.PrincipalFrom(ctx).Name }

// find gives a negotiation of the caller, open or over.
func (n *Negotiator) find(ctx context.Context, op, key string) (*instance, error) {
	i, err := n.load(ctx, key)
	if err != nil {
		return nil, err
	}
	if i == nil || i.Owner != owner(ctx) || !n.now().Before(i.Expires.Add(n.opts.Kept)) {
		return nil, fail.Errorf(op, fail.NotFound, key, "there is no negotiation with that key; it was ended, or has expired, or was never initiated: initiate one")
	}
	return i, nil
}

// open is find, and refuses one that has expired (N7).
func (n *Negotiator) open(ctx context.Context, op, key string) (*instance, error) {
	i, err := n.find(ctx, op, key)
	if err != nil {
		return nil, err
	}
	if !i.Expires.After(n.now()) {
		return nil, agreement.Refuse(agreement.Expired, fmt.Sprintf("the negotiation expired at %s; initiate another", moment(i.Expires)))
	}
	return i, nil
}

// Negotiation gives the properties of one of the caller's negotiations.
func (n *Negotiator) Negotiation(ctx context.Context, key string) (*agreement.NegotiationProperties, error) {
	const op = "negotiator.Negotiation"
	i, err := n.find(ctx, op, key)
	if err != nil {
		return nil, err
	}
	x, err := i.context()
	if err != nil {
		return nil, fail.E(op, fail.Internal, key, err)
	}
	p := &agreement.NegotiationProperties{Context: *x}
	if p.Templates, err = n.planner.Templates(ctx); err != nil {
		return nil, err
	}
	for _, o := range i.Offers {
		d, err := o.decode()
		if err != nil {
			return nil, fail.E(op, fail.Internal, key, err)
		}
		p.Offers = append(p.Offers, *d)
	}
	return p, nil
}

// TerminateNegotiation forgets a negotiation, and lets go what is held for its quotes.
func (n *Negotiator) TerminateNegotiation(ctx context.Context, key string, _ []*etree.Element) error {
	const op = "negotiator.Terminate"
	var ended *instance
	err := again(op, func() error {
		i, err := n.find(ctx, op, key)
		if err != nil {
			return err
		}
		ended = i
		return n.remove(ctx, i)
	})
	if err != nil {
		return err
	}
	for _, o := range ended.Offers {
		n.release(ctx, o, "the negotiation was ended")
	}
	return nil
}

// release lets go what is held for a quote, if it is not an agreement by now. Where that
// fails, it is let go when the quote expires.
func (n *Negotiator) release(ctx context.Context, o *offer, why string) {
	if !o.Held {
		return
	}
	if _, err := n.engine.Abort(ctx, o.Agreement, why); err != nil && !fail.Is(err, fail.Conflict) && !fail.Is(err, fail.NotFound) {
		n.opts.Log.Warn("what is held for a quote was not let go; it will be when the quote expires", "agreement", o.Agreement, "error", err)
	}
}

func moment(t time.Time) string { return t.UTC().Format(time.RFC3339) }
