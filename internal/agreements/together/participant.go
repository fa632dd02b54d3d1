package together

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"time"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/engine"
	"github.com/portolan-project/portolan/internal/fail"
)

// ParticipantOptions says how a Participant works.
type ParticipantOptions struct {
	Engine *engine.Engine
	// Propose makes a proposal of an offer, for whoever asks; its ID, Pending and Prepared are
	// set by the Participant. An error refuses the offer.
	Propose func(context.Context, *agreement.CreateRequest) (engine.Proposal, error)
	// Owner gives whose agreements the caller's are, as proposals have it.
	Owner func(context.Context) (string, error)
	// Held is told of what is held before the answer is given, to hold it at the site too; nil:
	// nothing else is to be held. It may be told again of the same. An error that is definite lets
	// it go, and refuses the offer; after another the same may be prepared again, until its time
	// has come.
	Held func(context.Context, engine.Record) error
	// Now is as the engine has it; nil is time.Now.
	Now func() time.Time
	// MaxHold is for how long anything is held that is not confirmed; 0 is 10 minutes.
	MaxHold time.Duration
	// MaxHeld bounds what one owner holds and has not confirmed; 0 is 100 agreements.
	MaxHeld int
}

// EnsureDefaults fills in what is not set.
func (o *ParticipantOptions) EnsureDefaults() {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.MaxHold == 0 {
		o.MaxHold = 10 * time.Minute
	}
	if o.MaxHeld == 0 {
		o.MaxHeld = 100
	}
}

// Validate reports what can't be worked with.
func (o *ParticipantOptions) Validate() error {
	const op = "together.NewParticipant"
	switch {
	case o.Engine == nil || o.Propose == nil || o.Owner == nil:
		return fail.Errorf(op, fail.Invalid, "", "a participant needs an engine, and to be told what to propose and whose it is: set Engine, Propose and Owner")
	case o.MaxHold < 0 || o.MaxHeld < 1:
		return fail.Errorf(op, fail.Invalid, "", "a participant must hold something for some time: MaxHold is %s and MaxHeld %d", o.MaxHold, o.MaxHeld)
	}
	return nil
}

// Participant holds what is offered until its initiator confirms it: an agreement.Preparer over
// an engine. What is held is in the engine's records, and let go by the engine in time.
type Participant struct{ opts ParticipantOptions }

var _ agreement.Preparer = (*Participant)(nil)

// NewParticipant makes a Participant.
func NewParticipant(o ParticipantOptions) (*Participant, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return &Participant{o}, nil
}

// AgreementID gives the id of the agreement that a preparation of an owner makes: a UUID of
// version 8 that begins with its time, so that ids are in the order of those of version 7.
func AgreementID(owner string, p agreement.Preparation) string {
	h := sha256.New()
	for _, s := range []string{owner, p.Key} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(p.Until.UnixNano()))
	h.Write(n[:])
	var id [16]byte
	binary.BigEndian.PutUint64(id[:8], uint64(max(0, p.Until.UnixMilli()))<<16)
	copy(id[6:], h.Sum(nil))
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	s := hex.EncodeToString(id[:])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// Prepare implements agreement.Preparer.
func (p *Participant) Prepare(ctx context.Context, req *agreement.CreateRequest, prep agreement.Preparation) (string, error) {
	const op = "together.Prepare"
	if err := prep.Check(); err != nil {
		return "", err
	}
	owner, err := p.opts.Owner(ctx)
	if err != nil {
		return "", err
	}
	id := AgreementID(owner, prep)
	there, err := p.opts.Engine.Get(ctx, id)
	switch {
	case err == nil && there.Final(): // before the offer is judged, which may have changed
		return "", letGo(there)
	case err != nil && !fail.Is(err, fail.NotFound):
		return "", err
	case err != nil:
		now := p.opts.Now()
		if !prep.Until.After(now) {
			return "", agreement.Refuse(agreement.Expired, "the offer was to be confirmed by "+stamp(prep.Until)+", which has passed; set a later time")
		}
		if prep.Until.After(now.Add(p.opts.MaxHold)) {
			return "", fail.Errorf(op, fail.Invalid, "", "the offer is to be held until %s; nothing is held for longer than %s without being confirmed: set an earlier time", stamp(prep.Until), p.opts.MaxHold)
		}
		if n := p.opts.Engine.Awaiting(owner); n >= p.opts.MaxHeld {
			return "", fail.Errorf(op, fail.Exhausted, "", "%d agreements wait for you to confirm them, and %d may; confirm or terminate some first", n, p.opts.MaxHeld)
		}
	}
	proposal, err := p.opts.Propose(ctx, req)
	if err != nil {
		return "", err
	}
	if proposal.Owner != owner {
		return "", fail.Errorf(op, fail.Internal, id, "the proposal belongs to another than who asks")
	}
	proposal.ID, proposal.Pending, proposal.Prepared = id, false, prep.Until
	r, err := p.opts.Engine.Propose(ctx, proposal)
	if err != nil {
		return "", err
	}
	if r.Final() {
		return "", letGo(r)
	}
	if err := p.Hold(ctx, r); err != nil {
		return "", err
	}
	return id, nil
}

// Hold has what was prepared held elsewhere, too; again, it goes on with what was begun.
func (p *Participant) Hold(ctx context.Context, r engine.Record) error {
	const op = "together.Hold"
	if !r.Awaiting() || p.opts.Held == nil {
		return nil
	}
	err := p.opts.Held(ctx, r)
	ctx = context.WithoutCancel(ctx)
	switch {
	case err != nil && !Definite(err):
		return err
	case err != nil:
		if _, err2 := p.opts.Engine.Abort(ctx, r.ID, fail.Sentence(err)); err2 != nil {
			return fail.Errorf(op, fail.Uncertain, r.ID, "%s", fail.Sentence(err)).Because(err2)
		}
		return err
	}
	// It may have taken long.
	if r, err = p.opts.Engine.Get(ctx, r.ID); err == nil && r.Final() {
		err = letGo(r)
	}
	return err
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// letGo says that what was prepared is not held any more.
func letGo(r engine.Record) error {
	return agreement.Refuse(agreement.WrongState, "what was prepared by that Key is "+string(r.State)+": "+r.Reason+"; prepare it anew, by another Key")
}

// own gives an agreement of the caller's.
func (p *Participant) own(ctx context.Context, op, id string) (engine.Record, error) {
	owner, err := p.opts.Owner(ctx)
	if err != nil {
		return engine.Record{}, err
	}
	r, err := p.opts.Engine.Get(ctx, id)
	if err == nil && r.Owner != owner {
		err = fail.Errorf(op, fail.NotFound, id, "there is no agreement %q", id)
	}
	return r, err
}

// Confirm implements agreement.Preparer.
func (p *Participant) Confirm(ctx context.Context, id string) error {
	const op = "together.Confirm"
	if _, err := p.own(ctx, op, id); err != nil {
		return err
	}
	_, err := p.opts.Engine.Confirm(ctx, id)
	if fail.Is(err, fail.Conflict) {
		return agreement.Refuse(agreement.WrongState, fail.Sentence(err))
	}
	return err
}

// Abort lets go what waits to be confirmed; false: the agreement is none that does, and has to be
// terminated as others are. It is for a Service's Terminate, which knows that the caller may.
func (p *Participant) Abort(ctx context.Context, id, reason string) (bool, error) {
	r, err := p.opts.Engine.Get(ctx, id)
	if err != nil {
		return false, err
	}
	if !r.Awaiting() {
		return false, nil
	}
	if _, err = p.opts.Engine.Abort(ctx, id, reason); fail.Is(err, fail.Conflict) {
		if r, err2 := p.opts.Engine.Get(ctx, id); err2 == nil && !r.Confirmed.IsZero() {
			return false, nil // confirmed meanwhile
		}
	}
	return err == nil, err
}
