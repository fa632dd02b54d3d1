package purchase

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/agreements/ledger"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// Bounds of purchases.
const (
	MaxCPUs   = 1 << 24
	MaxName   = 255
	MaxLength = 31 * 24 * time.Hour // of a window
	MaxAhead  = 366 * 24 * time.Hour

	maxOffer   = 64 << 10
	maxReason  = 2048
	maxHistory = 200
	maxOutages = 100
	maxEntries = 100
	maxKey     = 8 << 10

	maxAgreement = 256 // bytes of an id that a Route has room for
)

// Prefix is how the keys of all records of the package begin.
const Prefix = "purchase/"

func keyOf(id string) string { return Prefix + store.Segment(id) }

// Wish is capacity that is wanted.
type Wish struct {
	From  string    `json:"from"` // the domain that is to provide it
	CPUs  int       `json:"cpus"`
	VO    string    `json:"vo,omitempty"` // whose jobs alone may have it; "" is all of ours
	Start time.Time `json:"start"`
	End   time.Time `json:"end"`
	// MaxPrice is the most that it may cost, in thousandths of the domain's unit; nil is no bound.
	MaxPrice *int64 `json:"maxPrice,omitempty"`
	// Least is the fewest CPUs that would do; 0 is CPUs.
	Least int `json:"least,omitempty"`
	// Later is by how much the window may be later, as a whole: it begins by Start and Later.
	Later time.Duration `json:"later,omitempty"`
}

// Check gives fail.Invalid for a wish that can't be meant.
func (w *Wish) Check(now time.Time) error {
	bad := func(format string, args ...any) error {
		return fail.Errorf("purchase.Buy", fail.Invalid, w.From, format, args...)
	}
	switch {
	case w.From == "" || len(w.From) > MaxName:
		return bad("name the domain that is to provide the capacity, in at most %d bytes", MaxName)
	case w.CPUs < 1 || w.CPUs > MaxCPUs:
		return bad("%d CPUs can't be bought; ask for 1 to %d", w.CPUs, MaxCPUs)
	case w.Least < 0 || w.Least > w.CPUs:
		return bad("at least %d CPUs can't be bought of %d: let fewer do, or ask for more", w.Least, w.CPUs)
	case len(w.VO) > MaxName:
		return bad("the name of the VO has %d bytes; it may have %d", len(w.VO), MaxName)
	case w.Start.IsZero() || !w.End.After(w.Start):
		return bad("the window must end after it begins")
	case !w.End.After(now):
		return bad("the window was over at %s; choose one that is to come", stamp(w.End))
	case w.End.Sub(w.Start) > MaxLength:
		return bad("the window is %s long; it may be %s: buy several", w.End.Sub(w.Start), MaxLength)
	case w.Start.After(now.Add(MaxAhead)):
		return bad("the window begins at %s, which is more than a year ahead", stamp(w.Start))
	case w.Later < 0 || w.Later > MaxLength:
		return bad("the window may be later by 0 to %s", MaxLength)
	case w.MaxPrice != nil && *w.MaxPrice < 0:
		return bad("the price may not be below zero")
	}
	return nil
}

// least gives the fewest CPUs that would do.
func (w *Wish) least() int {
	if w.Least > 0 {
		return w.Least
	}
	return w.CPUs
}

// last gives when nothing of it can be bought any more: the window is over, and one that is later begins too late.
func (w *Wish) last() time.Time {
	if at := w.Start.Add(w.Later); at.After(w.End) {
		return at
	}
	return w.End
}

// Outage is a time in which what was bought could not be used.
type Outage struct {
	From  time.Time `json:"from"`
	Until time.Time `json:"until,omitzero"` // zero: it goes on
	Why   string    `json:"why"`
}

// Line is one of a purchase's history.
type Line struct {
	Time   time.Time `json:"time"`
	Event  string    `json:"event"`
	State  State     `json:"state"`
	Reason string    `json:"reason,omitempty"`
}

// Record is a purchase as it is kept. It is never changed in place.
type Record struct {
	ID    string `json:"id"`
	Order string `json:"order,omitempty"` // the standing order that it is of
	By    string `json:"by,omitempty"`    // who asked for it
	Wish
	State   State     `json:"state"`
	Outcome State     `json:"outcome,omitempty"` // that a purchase is to have which is being settled
	Reason  string    `json:"reason,omitempty"`
	Gateway string    `json:"gateway"` // the replica that did the last step
	Created time.Time `json:"created"`
	Changed time.Time `json:"changed"`
	Next    time.Time `json:"next,omitzero"` // when something is to be done
	Closed  time.Time `json:"closed,omitzero"`
	Tries   int       `json:"tries,omitempty"` // offers that were made
	Fails   int       `json:"fails,omitempty"` // requests in a row that were not answered

	// Of the offer that is made, and what came of it:
	Offer     []byte    `json:"offer,omitempty"`
	Until     time.Time `json:"until,omitzero"` // when the domain lets go what is not confirmed
	Key       string    `json:"key,omitempty"`  // of the agreement there
	Agreement string    `json:"agreement,omitempty"`
	Room      int       `json:"room,omitempty"` // CPUs
	Opens     time.Time `json:"opens,omitzero"`
	Closes    time.Time `json:"closes,omitzero"`
	Price     int64     `json:"price,omitempty"` // the most that it costs, in thousandths
	Unit      string    `json:"unit,omitempty"`

	Outages []Outage       `json:"outages,omitempty"`
	Entries []ledger.Entry `json:"entries,omitempty"` // of our ledger: what we owe the domain, and what it owes us
	History []Line         `json:"history,omitempty"`

	Revision int64 `json:"-"`
}

func (r *Record) clone() *Record {
	c := *r
	c.Outages, c.Entries, c.History = slices.Clone(r.Outages), slices.Clone(r.Entries), slices.Clone(r.History)
	return &c
}

// preparation gives what names the offer at the domain.
func (r *Record) preparation() agreement.Preparation {
	return agreement.Preparation{Key: fmt.Sprintf("%s/%d", r.ID, r.Tries), Until: r.Until}
}

// open reports whether what was bought may be used at a moment.
func (r *Record) open(now time.Time) bool {
	return r.State == Bought && !now.Before(r.Opens) && now.Before(r.Closes)
}

// step moves it on by an event, with a reason for its history; to is what a settled one was.
func (r *Record) step(now time.Time, e Event, reason string) error {
	to, err := next(r.ID, r.State, e, r.Outcome)
	if err != nil {
		return err
	}
	r.State, r.Fails = to, 0
	r.tell(now, string(e), reason)
	if to.Final() {
		r.Closed, r.Next, r.Offer = now, time.Time{}, nil
		r.back(now)
	}
	return nil
}

// tell adds a line to the history.
func (r *Record) tell(now time.Time, event, reason string) {
	r.Reason = cut(reason)
	if len(r.History) >= maxHistory { // the first ones say how it came about
		r.History = slices.Delete(r.History, maxHistory/2, maxHistory/2+1)
	}
	r.History = append(r.History, Line{now, event, r.State, r.Reason})
}

// away notes that what was bought can't be used from now on.
func (r *Record) away(now time.Time, why string) {
	if n := len(r.Outages); n >= maxOutages {
		r.Outages = slices.Delete(r.Outages, 1, 2)
	}
	r.Outages = append(r.Outages, Outage{From: now, Why: cut(why)})
	r.tell(now, "away", "what was bought of "+r.From+" can't be used: "+why)
}

// isAway reports whether it can't be used, as was noted last.
func (r *Record) isAway() bool {
	n := len(r.Outages)
	return n > 0 && r.Outages[n-1].Until.IsZero()
}

// back notes that it can be used again, or is over.
func (r *Record) back(now time.Time) {
	if r.isAway() {
		r.Outages[len(r.Outages)-1].Until = now
	}
}

// Unusable gives for how long of its window it could not be used, up to a moment.
func (r *Record) Unusable(now time.Time) time.Duration {
	var sum time.Duration
	for _, o := range r.Outages {
		until := o.Until
		if until.IsZero() {
			until = now
		}
		if until.After(r.Closes) {
			until = r.Closes
		}
		sum += max(0, until.Sub(o.From))
	}
	return sum
}

func cut(s string) string {
	s = strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7F {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > maxReason {
		return strings.ToValidUTF8(s[:maxReason], "") + "…"
	}
	return s
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func (r *Record) encode() []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic("purchase: a record is no JSON: " + err.Error())
	}
	return b
}

func decode(v store.Record) (*Record, error) {
	r := &Record{Revision: v.Revision}
	if err := json.Unmarshal(v.Value, r); err != nil {
		return nil, err
	}
	if _, ok := transitions[r.State]; !ok || keyOf(r.ID) != v.Key {
		return nil, fail.Errorf("purchase", fail.Internal, r.ID, "the record of a purchase is damaged")
	}
	return r, nil
}
