package engine

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/calendar"
	"github.com/portolan-project/portolan/internal/fail"
)

// Bounds of what one agreement may have.
const (
	MaxID           = 128       // bytes of an agreement's id
	MaxName         = 256       // bytes of a name: of an owner's VO, a template, a pool
	MaxOwner        = 1024      // bytes of an owner's name
	MaxDocument     = 512 << 10 // bytes of an offer
	MaxRecord       = 256 << 10 // bytes of all else that is kept of an agreement
	MaxAlternatives = 32        // plans of an offer
	MaxPlanHolds    = 40        // holds of a plan
	MaxHistory      = 100       // lines; of more the oldest go, but the first
	MaxPrice        = 1 << 50   // of an agreement, and of a budget

	maxInside = 4 << 10 // bytes of a document that is written with the state
	maxReason = 2048    // bytes of a reason
	maxStamps = 8       // changes that are remembered, to know them again
)

// Plan is one way to keep an offer's promises.
type Plan struct {
	Name string `json:"name,omitempty"` // as its maker calls it
	// Holds are had together, as they are, or all put off by the same time, so that the earliest
	// begins by StartBy; zero: they are not put off.
	Holds   []calendar.Hold `json:"holds,omitempty"`
	StartBy time.Time       `json:"startBy,omitzero"`
	// Price is the most that it can cost, in the unit of the accounts: it is committed when the
	// plan is accepted, and what was due is settled at the end.
	Price int64 `json:"price,omitempty"`
	// Guarantees, Services and Detail are for those who act on it.
	Guarantees json.RawMessage `json:"guarantees,omitempty"`
	Services   json.RawMessage `json:"services,omitempty"`
	Detail     json.RawMessage `json:"detail,omitempty"`
}

// start gives when the first hold begins.
func (p *Plan) start() time.Time {
	var first time.Time
	for _, h := range p.Holds {
		if first.IsZero() || h.From.Before(first) {
			first = h.From
		}
	}
	return first
}

func (p *Plan) end() time.Time {
	var last time.Time
	for _, h := range p.Holds {
		if h.Until.After(last) {
			last = h.Until
		}
	}
	return last
}

// Line is what happened to an agreement.
type Line struct {
	Time   time.Time       `json:"time"`
	Event  string          `json:"event"`
	State  agreement.State `json:"state"`
	Reason string          `json:"reason,omitempty"`
}

// Record is an agreement. It is never changed in place.
type Record struct {
	ID           string          `json:"id"`
	Owner        string          `json:"owner"`
	VO           string          `json:"vo,omitempty"`
	Domain       string          `json:"domain,omitempty"` // of the peer that it was made with; "" is our own
	Name         string          `json:"name,omitempty"`
	TemplateID   string          `json:"templateId,omitempty"`
	TemplateName string          `json:"templateName,omitempty"`
	Digest       string          `json:"digest"` // of the offer
	State        agreement.State `json:"state"`
	Reason       string          `json:"reason,omitempty"` // of the last event
	// Plan is what was accepted, as it was put off; its holds are kept until the state is
	// final. Nil: nothing is held.
	Plan        *Plan     `json:"plan,omitempty"`
	Alternative int       `json:"alternative,omitempty"` // which of the plans it is, from 0
	Due         int64     `json:"due,omitempty"`         // what was settled at the end
	Created     time.Time `json:"created"`
	Changed     time.Time `json:"changed"`
	Ended       time.Time `json:"ended,omitzero"`
	// ExpirationTime ends the agreement; zero is never.
	ExpirationTime time.Time `json:"expirationTime,omitzero"`
	// Prepared is until when it must be, or was to be, confirmed; zero: it need not be.
	Prepared  time.Time `json:"prepared,omitzero"`
	Confirmed time.Time `json:"confirmed,omitzero"` // when it was
	// Replaces is the agreement that ended when this one began; "" is none.
	Replaces string `json:"replaces,omitempty"`
	History  []Line `json:"history,omitempty"`

	// What follows is for those who act on the agreement (Update).

	Jobs  []string                   `json:"jobs,omitempty"`
	Notes map[string]json.RawMessage `json:"notes,omitempty"` // by who keeps them: states of terms, ledger entries
	Owed  *int64                     `json:"owed,omitempty"`  // what would be due if it ended now; nil: not known

	// Stamps name the last changes, the newest first.
	Stamps []string `json:"stamps,omitempty"`

	Revision int64 `json:"-"`
	// Apart says that the document is under a key of its own.
	Apart    bool   `json:"apart,omitempty"`
	document []byte // when it is not
}

// Final says that nothing happens to it any more.
func (r *Record) Final() bool { return Final(r.State) }

// Awaiting says that it waits to be confirmed.
func (r *Record) Awaiting() bool { return !r.Prepared.IsZero() && r.State == agreement.Pending }

// fruitless says that it was prepared, and let go without ever having been confirmed.
func (r *Record) fruitless() bool {
	return r.State == agreement.Rejected && !r.Prepared.IsZero() && r.Confirmed.IsZero()
}

// kept gives until when it is kept, of one that has ended.
func (r *Record) kept(o *Options) time.Time {
	until := r.Ended.Add(o.Retention)
	if !r.fruitless() || o.Unfinished != nil && o.Unfinished(r) {
		return until
	}
	// Whoever prepared it may ask for it until then, and not much longer.
	last := r.Ended
	if r.Prepared.After(last) {
		last = r.Prepared
	}
	if soon := last.Add(fruitlessTime); soon.Before(until) {
		return soon
	}
	return until
}

// fruitlessTime is how long what was prepared and let go is kept.
const fruitlessTime = time.Hour

// holds gives what is held for it.
func (r *Record) holds() []calendar.Hold {
	if r.Plan == nil || r.Final() {
		return nil
	}
	return r.Plan.Holds
}

// price gives what is committed for it.
func (r *Record) price() int64 {
	if r.Plan == nil || r.Final() {
		return 0
	}
	return r.Plan.Price
}

// due gives when it expires; zero is never.
func (r *Record) due() time.Time {
	if r.Awaiting() && (r.ExpirationTime.IsZero() || r.Prepared.Before(r.ExpirationTime)) {
		return r.Prepared
	}
	return r.ExpirationTime
}

// clone gives a record that may be changed where Update may change it.
func (r *Record) clone() *Record {
	c := *r
	c.History, c.Jobs, c.Stamps = slices.Clip(c.History), slices.Clone(c.Jobs), slices.Clip(c.Stamps)
	c.Notes = maps.Clone(c.Notes)
	if r.Plan != nil {
		p := *r.Plan
		p.Holds = slices.Clone(p.Holds)
		c.Plan = &p
	}
	return &c
}

// Tell appends a line of history.
func (r *Record) Tell(now time.Time, event, reason string) {
	if len(reason) > maxReason {
		reason = string(bytes.ToValidUTF8([]byte(reason[:maxReason]), nil))
	}
	r.Changed = now
	line := Line{Time: now, Event: event, State: r.State, Reason: reason}
	if n := len(r.History); n >= MaxHistory {
		kept := append([]Line{r.History[0]}, r.History[n-MaxHistory+2:]...)
		r.History = append(kept, line)
		return
	}
	r.History = append(slices.Clip(r.History), line)
}

// Proposal asks for an agreement.
type Proposal struct {
	ID             string // chosen by the caller, ordered by time
	Owner          string
	VO             string
	Domain         string // of the peer that asks; "" is our own
	Name           string
	TemplateID     string
	TemplateName   string
	Document       []byte // the offer
	Alternatives   []Plan // tried in this order; none: nothing is to be held yet
	ExpirationTime time.Time
	// Pending leaves the decision for later (Decide). What is to be held is held at once.
	Pending bool
	// Prepared is until when the agreement waits for Confirm; what is held is let go then. Zero:
	// it need not be confirmed.
	Prepared time.Time
	// Replaces is an agreement of the same owner that ends in the same transaction; what it
	// held counts as free. "" is none.
	Replaces string
	Reason   string // of the first line of history
}

// digest names what was offered by whom: the same proposal made again has the same.
func (p *Proposal) digest() string {
	h := sha256.New()
	for _, s := range [][]byte{[]byte(p.Owner), []byte(p.VO), []byte(p.Name), []byte(p.TemplateID), []byte(p.TemplateName), []byte(p.Replaces), p.Document} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write(s)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (p *Proposal) check() error {
	const op = "engine.Propose"
	switch {
	case p.ID == "" || len(p.ID) > MaxID:
		return fail.Errorf(op, fail.Invalid, "", "an agreement needs an id of 1 to %d bytes; this one has %d", MaxID, len(p.ID))
	case p.Owner == "" || len(p.Owner) > MaxOwner:
		return fail.Errorf(op, fail.Invalid, p.ID, "an agreement needs an owner whose name has 1 to %d bytes; this one has %d", MaxOwner, len(p.Owner))
	case max(len(p.VO), len(p.Domain), len(p.Name), len(p.TemplateID), len(p.TemplateName)) > MaxName || len(p.Replaces) > MaxID:
		return fail.Errorf(op, fail.Invalid, p.ID, "the names of a VO, a domain, an agreement and a template may have %d bytes each", MaxName)
	case len(p.Document) > MaxDocument:
		return fail.Errorf(op, fail.Exhausted, p.ID, "the offer has %d bytes; an agreement may have %d", len(p.Document), MaxDocument)
	}
	return nil
}

// plans reports what is wrong with plans, and gives them with holds in whole seconds.
func (o *Options) plans(op, id string, plans []Plan, now time.Time) ([]Plan, error) {
	if len(plans) > MaxAlternatives {
		return nil, fail.Errorf(op, fail.Exhausted, id, "the offer has %d alternatives; it may have %d", len(plans), MaxAlternatives)
	}
	out := slices.Clone(plans)
	for i := range out {
		p := &out[i]
		switch {
		case len(p.Holds) > MaxPlanHolds:
			return nil, fail.Errorf(op, fail.Exhausted, id, "the offer asks for %d reservations at once; it may ask for %d", len(p.Holds), MaxPlanHolds)
		case p.Price < 0 || p.Price > MaxPrice:
			return nil, fail.Errorf(op, fail.Invalid, id, "the price is %d; it must be from 0 to %d", p.Price, int64(MaxPrice))
		}
		p.Holds = slices.Clone(p.Holds)
		late := time.Duration(0) // what may be put off is not cut short
		if start := p.start(); !p.StartBy.IsZero() && start.Before(now) {
			late = now.Sub(start).Truncate(time.Second) + time.Second
		}
		for k, h := range p.Holds {
			if err := h.Check(); err != nil {
				return nil, err
			}
			h = h.Shift(late)
			if !h.Until.After(now) {
				return nil, fail.Errorf(op, fail.Invalid, id, "the offer asks for a time that is over: until %s", h.Until.UTC().Format(time.RFC3339))
			}
			if h.From.Before(now) {
				h.From = now // nobody can have what has passed
			}
			p.Holds[k] = h.Outward()
		}
		if end := p.end(); end.After(now.Add(o.Horizon)) {
			return nil, fail.Errorf(op, fail.Invalid, id, "the offer asks for a time until %s; nothing is promised beyond %s", end.Format(time.RFC3339), now.Add(o.Horizon).UTC().Format(time.RFC3339))
		}
	}
	return out, nil
}

// recordVersion begins the value of a state's record.
const recordVersion = 1

var errRecord = errors.New("an agreement's record is damaged")

// encode gives the value of the record of a state: the document follows the rest as it is.
func (r *Record) encode() ([]byte, error) {
	j, err := json.Marshal(r)
	if err != nil {
		return nil, fail.E("engine.encode", fail.Invalid, r.ID, err)
	}
	if len(j) > MaxRecord {
		return nil, fail.Errorf("engine.encode", fail.Exhausted, r.ID, "the agreement has %d bytes of states and notes; it may have %d", len(j), MaxRecord)
	}
	b := make([]byte, 0, len(j)+len(r.document)+8)
	b = append(b, recordVersion)
	b = binary.AppendUvarint(b, uint64(len(j)))
	b = append(b, j...)
	return append(b, r.document...), nil
}

func decode(b []byte, revision int64) (*Record, error) {
	if len(b) == 0 || b[0] != recordVersion {
		return nil, errRecord
	}
	n, k := binary.Uvarint(b[1:])
	if k <= 0 || n > uint64(len(b)-1-k) {
		return nil, errRecord
	}
	b = b[1+k:]
	r := &Record{Revision: revision}
	if err := json.Unmarshal(b[:n], r); err != nil {
		return nil, err
	}
	if rest := b[n:]; len(rest) > 0 {
		r.document = bytes.Clone(rest)
	}
	return r, nil
}
