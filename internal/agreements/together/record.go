package together

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/beevik/etree"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Bounds of a coordination.
const (
	MaxID     = 128 // bytes of its id
	MaxName   = 256 // bytes of a part's name
	MaxOwner  = 1024
	MaxParts  = 32
	MaxOffers = 512 << 10 // bytes of all its offers

	// With all that may have to be escaped, what is known of all parts is one record of the store.
	maxProvider = 512
	maxKey      = 1 << 10 // bytes of the key that a provider gives its agreement
	maxReason   = 2048
)

// Prefix is how the keys of all records of the package begin.
const Prefix = "together/"

const (
	statePrefix  = Prefix + "state/"
	offersPrefix = Prefix + "offers/"
)

func stateKey(id string) string  { return statePrefix + store.Segment(id) }
func offersKey(id string) string { return offersPrefix + store.Segment(id) }

// Plan is what is to be agreed on as one.
type Plan struct {
	// ID names the coordination, for its providers too: it is chosen by the caller and no other
	// of the owner's has it. The same plan again is the same coordination.
	ID    string
	Owner string // for whom; Options.Dial is told
	Parts []Part
	// Deadline is by when it must be decided; zero: Options.Patience from now.
	Deadline time.Time
}

// Part is an offer to one provider.
type Part struct {
	Name     string // unlike those of the others
	Provider string // where, as Options.Dial knows it
	VO       string // for which the owner acts there; "" is none. It is for Options.Dial
	Offer    agreement.Offer
}

// Outcome is what became of a Plan.
type Outcome struct {
	ID     string
	State  State
	Reason string // for a person; why it isn't Committed
	Parts  []PartOutcome
}

// Committed says that all parts are binding.
func (o Outcome) Committed() bool { return o.State == Committed }

// PartOutcome is what became of a part.
type PartOutcome struct {
	Name      string    `json:"name"`
	Provider  string    `json:"provider"`
	VO        string    `json:"vo,omitempty"`
	Agreement string    `json:"agreement,omitempty"` // its key at the provider; "": there was none, or it was never told
	State     PartState `json:"state"`
	Reason    string    `json:"reason,omitempty"`   // why it was refused or lost
	Earliest  time.Time `json:"earliest,omitzero"`  // when the provider could, if it said so
	Confirmed time.Time `json:"confirmed,omitzero"` // when it was

	// Code and Kind say what the refusal was, where there was one: Kind in the words of fail.Kind.
	Code agreement.Code `json:"code,omitempty"`
	Kind string         `json:"kind,omitempty"`
}

// Record is a coordination as it is kept. It is never changed in place.
type Record struct {
	ID       string        `json:"id"`
	Owner    string        `json:"owner"`
	Digest   string        `json:"digest"` // of the plan
	By       string        `json:"by"`     // the replica that did the last step
	State    State         `json:"state"`
	Reason   string        `json:"reason,omitempty"`
	Created  time.Time     `json:"created"`
	Changed  time.Time     `json:"changed"`
	Decided  time.Time     `json:"decided,omitzero"`
	Ended    time.Time     `json:"ended,omitzero"`
	Asked    time.Time     `json:"asked,omitzero"` // when its end was
	Deadline time.Time     `json:"deadline"`
	Until    time.Time     `json:"until"`         // when providers let go what is not confirmed
	Last     time.Time     `json:"last,omitzero"` // the last time that its offers name
	Parts    []PartOutcome `json:"parts"`

	Revision int64 `json:"-"`
}

// farthest bounds Record.Last, from its beginning: what is promised begins within a year, and takes one.
const farthest = 2 * 366 * 24 * time.Hour

// names takes in the times that an offer names, whatever for: what it asks for is hardly over before.
func (r *Record) names(e *etree.Element) {
	say := func(s string) {
		if len(s) > 40 {
			return
		}
		for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05"} {
			if t, err := time.Parse(layout, s); err == nil && t.After(r.Last) {
				r.Last = t.UTC()
				break
			}
		}
		if most := r.Created.Add(farthest); r.Last.After(most) {
			r.Last = most
		}
	}
	for i := range e.Attr {
		say(e.Attr[i].Value)
	}
	kids := e.ChildElements()
	if len(kids) == 0 {
		say(xmldoc.Collapse(xmldoc.Text(e)))
	}
	for _, k := range kids {
		r.names(k)
	}
}

// kept gives the time from which on it is kept, of one that has ended.
func (r *Record) kept() time.Time {
	if r.State == Committed && r.Last.After(r.Ended) {
		return r.Last
	}
	return r.Ended
}

func (r *Record) clone() *Record {
	c := *r
	c.Parts = slices.Clone(r.Parts)
	return &c
}

// Outcome gives what became of it so far.
func (r *Record) Outcome() Outcome {
	return Outcome{ID: r.ID, State: r.State, Reason: r.Reason, Parts: slices.Clone(r.Parts)}
}

// step moves it on by an event; "" only notes what is known of its parts.
func (r *Record) step(now time.Time, e Event, reason string) error {
	r.Changed = now
	if e == "" {
		return nil
	}
	to, err := next(r.ID, r.State, e)
	if err != nil {
		return err
	}
	if r.State == Preparing {
		r.Decided = now
	}
	r.State = to
	if e == Dissolve {
		r.Asked, r.Ended = now, time.Time{}
	}
	if reason != "" && r.Reason == "" { // the first reason is what the rest follows from
		r.Reason = cut(reason)
	}
	if to.Final() {
		r.Ended = now
	}
	return nil
}

// preparation gives what names a part at its provider.
func (r *Record) preparation(part int) agreement.Preparation {
	return agreement.Preparation{Key: fmt.Sprintf("%s/%d", r.ID, part), Until: r.Until}
}

// any says whether a part is in one of the states.
func (r *Record) any(states ...PartState) bool {
	return slices.ContainsFunc(r.Parts, func(p PartOutcome) bool { return slices.Contains(states, p.State) })
}

// why says what the parts in a state have to tell.
func (r *Record) why(state PartState, what string) string {
	var all []string
	for _, p := range r.Parts {
		if p.State != state {
			continue
		}
		s := fmt.Sprintf("%s at %s %s", p.Name, p.Provider, what)
		if p.Reason != "" {
			s += ": " + p.Reason
		}
		all = append(all, s)
	}
	return strings.Join(all, "; ")
}

func cut(s string) string {
	if len(s) > maxReason {
		return strings.ToValidUTF8(s[:maxReason], "") + "…"
	}
	return s
}

func (r *Record) encode() []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic("together: a coordination is no JSON: " + err.Error())
	}
	return b
}

func decode(v store.Record) (*Record, error) {
	r := &Record{Revision: v.Revision}
	if err := json.Unmarshal(v.Value, r); err != nil {
		return nil, err
	}
	if _, ok := transitions[r.State]; !ok || len(r.Parts) == 0 {
		return nil, fail.Errorf("together", fail.Internal, r.ID, "the record of a coordination is damaged")
	}
	return r, nil
}

// until sets by when a coordination that begins is to be decided.
func (c *Coordinator) until(r *Record, deadline time.Time) error {
	const op = "together.Coordinate"
	now := r.Created
	if deadline.IsZero() {
		deadline = now.Add(c.opts.Patience)
	}
	switch {
	case !deadline.After(now):
		return fail.Errorf(op, fail.Invalid, r.ID, "it was to be decided by %s, which has passed; set a later deadline", deadline.UTC().Format(time.RFC3339))
	case deadline.After(now.Add(c.opts.MaxPatience)):
		return fail.Errorf(op, fail.Invalid, r.ID, "it is to be decided by %s; providers are not asked to hold anything for longer than %s: set an earlier deadline", deadline.UTC().Format(time.RFC3339), c.opts.MaxPatience)
	}
	r.Deadline = deadline.UTC().Truncate(time.Millisecond)
	r.Until = r.Deadline.Add(2 * c.opts.Margin)
	return nil
}

// record checks a plan, and makes its record, all but by when it is to be decided, and the documents
// of its offers.
func (c *Coordinator) record(p *Plan, now time.Time) (*Record, [][]byte, error) {
	const op = "together.Coordinate"
	refuse := func(kind fail.Kind, format string, args ...any) (*Record, [][]byte, error) {
		return nil, nil, fail.Errorf(op, kind, p.ID, format, args...)
	}
	switch {
	case p.ID == "" || len(p.ID) > MaxID || p.ID != xmldoc.Collapse(p.ID):
		return refuse(fail.Invalid, "a coordination needs an id of 1 to %d bytes, without spaces around it; this one is %q", MaxID, p.ID)
	case p.Owner == "" || len(p.Owner) > MaxOwner:
		return refuse(fail.Invalid, "a coordination needs an owner whose name has 1 to %d bytes; this one has %d", MaxOwner, len(p.Owner))
	case len(p.Parts) == 0:
		return refuse(fail.Invalid, "there is nothing to agree on; give the plan its parts")
	case len(p.Parts) > MaxParts:
		return refuse(fail.Exhausted, "the plan has %d parts; it may have %d", len(p.Parts), MaxParts)
	}
	r := &Record{ID: p.ID, Owner: p.Owner, By: c.opts.Replica, State: Preparing, Created: now, Changed: now}
	h := sha256.New()
	sum := func(b []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	sum([]byte(p.Owner))
	seen := map[string]bool{}
	size := 0
	var offers [][]byte
	for i := range p.Parts {
		part := &p.Parts[i]
		switch {
		case part.Name == "" || len(part.Name) > MaxName:
			return refuse(fail.Invalid, "a part needs a name of 1 to %d bytes; that of the %d. has %d", MaxName, i+1, len(part.Name))
		case seen[part.Name]:
			return refuse(fail.Invalid, "two parts are called %q; give each a name of its own", part.Name)
		case len(part.VO) > MaxName:
			return refuse(fail.Invalid, "the part %q is for a VO whose name has %d bytes; it may have %d", part.Name, len(part.VO), MaxName)
		case part.Provider == "" || len(part.Provider) > maxProvider:
			return refuse(fail.Invalid, "the part %q needs a provider whose name has 1 to %d bytes", part.Name, maxProvider)
		}
		seen[part.Name] = true
		offer := part.Offer.Encode()
		r.names(offer)
		doc := xmldoc.Marshal(offer)
		if size += len(doc); size > MaxOffers {
			return refuse(fail.Exhausted, "the offers of the plan have more than %d bytes together; make them shorter, or fewer", MaxOffers)
		}
		if _, err := agreement.ParseOffer(doc); err != nil {
			return nil, nil, err
		}
		offers = append(offers, doc)
		sum([]byte(part.Name))
		sum([]byte(part.Provider))
		if part.VO != "" {
			sum([]byte(part.VO))
		}
		sum(doc)
		r.Parts = append(r.Parts, PartOutcome{Name: part.Name, Provider: part.Provider, VO: part.VO, State: PartAsked})
	}
	r.Digest = hex.EncodeToString(h.Sum(nil))
	return r, offers, nil
}
