package guarantee

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/decimal"
	"github.com/portolan-project/portolan/internal/fail"
)

// Kind is what happened.
type Kind string

// The kinds of event. Of a job: what came to it; Lost is that its site failed, which
// stops no promise's clock. Of a window of reserved slots: that it opened, what of it
// is usable, that it closed before its planned end. Completed is the agreement's end.
const (
	Submitted    Kind = "submitted"
	Started      Kind = "started"
	Suspended    Kind = "suspended"
	Resumed      Kind = "resumed"
	Ended        Kind = "ended"
	Lost         Kind = "lost"
	Restarted    Kind = "restarted"
	WindowOpened Kind = "window opened"
	CapacityDown Kind = "capacity down"
	CapacityUp   Kind = "capacity up"
	WindowClosed Kind = "window closed"
	Completed    Kind = "completed"
)

var kinds = []Kind{Submitted, Started, Suspended, Resumed, Ended, Lost, Restarted, WindowOpened, CapacityDown, CapacityUp, WindowClosed, Completed}

// Outcome is how a job ended.
type Outcome string

// The outcomes. Cancelled is by its owner; Failed is any other end that is no finish.
const (
	Finished  Outcome = "finished"
	Failed    Outcome = "failed"
	Cancelled Outcome = "cancelled"
)

const (
	maxSlots  = 1_000_000_000
	maxEvents = 512  // kept as they are, per state; older ones are folded together
	maxSpans  = 1024 // of sequences
	maxOwed   = 1024
	maxSteps  = 4096 // moments that one At judges
)

// Event is what happened to a service. Events of one agreement have sequences of
// their own from 1 on, by which one that comes twice is known.
type Event struct {
	Sequence uint64    `json:"sequence"`
	Time     time.Time `json:"time"`
	Service  string    `json:"service,omitempty"` // "" is every service
	Kind     Kind      `json:"kind"`
	Outcome  Outcome   `json:"outcome,omitempty"` // of Ended
	Slots    int64     `json:"slots,omitempty"`   // of WindowOpened what is reserved; of CapacityDown and CapacityUp what is usable from then on
	Until    time.Time `json:"until,omitzero"`    // of WindowOpened, when it is to end
}

// Check gives fail.Invalid for an event that Apply would not take.
func (e Event) Check() error {
	bad := ""
	switch {
	case e.Sequence == 0 || e.Time.IsZero() || !slices.Contains(kinds, e.Kind):
		bad = "needs a sequence from 1 on, a time and a kind that there is"
	case e.Kind == Ended && e.Outcome != Finished && e.Outcome != Failed && e.Outcome != Cancelled:
		bad = "needs the outcome finished, failed or cancelled"
	case e.Kind == Completed && e.Service != "":
		bad = "is of the agreement as a whole, and names a service"
	case e.Slots < 0 || e.Slots > maxSlots:
		bad = "has a number of slots that can't be"
	case e.Kind == WindowOpened && !e.Until.After(e.Time):
		bad = "needs an end after its begin"
	default:
		return nil
	}
	return fail.Errorf("guarantee.Apply", fail.Invalid, string(e.Kind), "an event %q %s", string(e.Kind), bad)
}

func (e Event) before(o Event) int {
	return cmp.Or(e.Time.Compare(o.Time), cmp.Compare(e.Sequence, o.Sequence))
}

// Verdict is what was found of one service.
type Verdict struct {
	State agreement.GuaranteeState `json:"state"`
	At    time.Time                `json:"at"`
	// Closed is that nothing more comes of it: a broken promise does not go on being broken.
	Closed bool `json:"closed,omitempty"`
}

// Tally is how far a compensation is.
type Tally struct {
	Count int64 `json:"count,omitempty"` // of assessments since one was due
	// The service and the moment at which it was broken first, of the assessments so far
	// or in the interval that ends at End.
	Broken   string    `json:"broken,omitempty"`
	BrokenAt time.Time `json:"brokenAt,omitzero"`
	End      time.Time `json:"end,omitzero"`
}

// Owed is a compensation whose amount is not known yet.
type Owed struct {
	Compensation int                      `json:"compensation"`
	Service      string                   `json:"service,omitempty"`
	State        agreement.GuaranteeState `json:"state"`
}

// State is all that is remembered of a guarantee. It is a value: Apply and At give
// another and leave the one that they got as it was.
type State struct {
	Start time.Time `json:"start"` // intervals are counted from here
	Now   time.Time `json:"now"`   // up to here all is judged
	// State is that of the latest assessment, except that a promise that can't be kept
	// again once it is broken stays Violated.
	State    agreement.GuaranteeState `json:"state"`
	Number   uint64                   `json:"number"` // of assessments so far
	Seen     [][2]uint64              `json:"seen,omitempty"`
	Base     map[string]Facts         `json:"base,omitempty"` // of events that are not kept any more
	Events   []Event                  `json:"events,omitempty"`
	Verdicts map[string]Verdict       `json:"verdicts,omitempty"`
	Tallies  []Tally                  `json:"tallies,omitempty"`
	Owed     []Owed                   `json:"owed,omitempty"`
	Over     bool                     `json:"over,omitempty"` // the agreement was completed
}

// Due is what an assessment makes one party owe.
type Due struct {
	Sort  Sort            `json:"sort"`
	Value decimal.Decimal `json:"value"` // above zero
	Unit  string          `json:"unit,omitempty"`
}

// Assessment is what was found at a moment.
type Assessment struct {
	Guarantee string                   `json:"guarantee"`
	Number    uint64                   `json:"number"` // in the guarantee, from 1 on, without gaps
	At        time.Time                `json:"at"`
	Service   string                   `json:"service,omitempty"`
	State     agreement.GuaranteeState `json:"state"`
	Evidence  string                   `json:"evidence"` // a sentence with times and values
	Due       []Due                    `json:"due,omitempty"`
}

// New is the state in which nothing has happened by start.
func (g *Guarantee) New(start time.Time) State {
	start = plain(start)
	return State{Start: start, Now: start, State: agreement.NotDetermined, Tallies: make([]Tally, len(g.compensations))}
}

// plain takes off what two equal moments may differ in.
func plain(t time.Time) time.Time { return t.Round(0).UTC() }

// clone gives a copy that may be changed.
func (s State) clone() State {
	s.Seen, s.Events, s.Tallies, s.Owed = slices.Clone(s.Seen), slices.Clone(s.Events), slices.Clone(s.Tallies), slices.Clone(s.Owed)
	s.Base, s.Verdicts = maps.Clone(s.Base), maps.Clone(s.Verdicts)
	if s.Verdicts == nil {
		s.Verdicts = map[string]Verdict{}
	}
	return s
}

// see notes a sequence; false if it was there.
func (s *State) see(n uint64) bool {
	i, _ := slices.BinarySearchFunc(s.Seen, n, func(span [2]uint64, n uint64) int { return cmp.Compare(span[1], n) })
	switch after := i < len(s.Seen); {
	case after && s.Seen[i][0] <= n:
		return false
	case after && s.Seen[i][0] == n+1:
		s.Seen[i][0] = n
		if i > 0 && s.Seen[i-1][1] == n-1 {
			s.Seen[i][0] = s.Seen[i-1][0]
			s.Seen = slices.Delete(s.Seen, i-1, i)
		}
	case i > 0 && s.Seen[i-1][1] == n-1:
		s.Seen[i-1][1] = n
	default:
		s.Seen = slices.Insert(s.Seen, i, [2]uint64{n, n})
	}
	if len(s.Seen) > maxSpans { // the oldest gap is given up: what was to fill it never came
		s.Seen[1][0] = s.Seen[0][0]
		s.Seen = slices.Delete(s.Seen, 0, 1)
	}
	return true
}

// note puts an event in its place.
func (g *Guarantee) note(s *State, e Event) {
	i, _ := slices.BinarySearchFunc(s.Events, e, Event.before)
	s.Events = slices.Insert(s.Events, i, e)
	if len(s.Events) <= maxEvents {
		return
	}
	if s.Base == nil {
		s.Base = map[string]Facts{}
	}
	for _, service := range g.subjects() {
		f := s.Base[service]
		for _, e := range s.Events[:maxEvents/2] {
			if concerns(e, service) {
				f.take(e)
			}
		}
		s.Base[service] = f
	}
	s.Events = slices.Delete(s.Events, 0, maxEvents/2)
}

// subjects are what verdicts are found of.
func (g *Guarantee) subjects() []string {
	if len(g.Services) == 0 {
		return []string{""}
	}
	return g.Services
}

func concerns(e Event, service string) bool {
	return service == "" || e.Service == "" || e.Service == service
}

// facts gives what is known of a service at a moment.
func (s *State) facts(service string, now time.Time) Facts {
	f := s.Base[service]
	for _, e := range s.Events {
		if e.Time.After(now) {
			break
		}
		if concerns(e, service) {
			f.take(e)
		}
	}
	return f
}
