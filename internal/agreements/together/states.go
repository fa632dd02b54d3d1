package together

import (
	"github.com/portolan-project/portolan/internal/fail"
)

// State is the state of a coordination.
type State string

// The states.
const (
	Preparing    State = "preparing"    // the parts are asked to hold what was offered
	Committing   State = "committing"   // decided: the parts are confirmed
	Aborting     State = "aborting"     // decided: the parts are let go
	Compensating State = "compensating" // a part could not be confirmed: the others are terminated
	Committed    State = "committed"    // all parts are binding
	Aborted      State = "aborted"      // no part was binding ever
	RolledBack   State = "rolled back"  // no part is binding any more
	Unsettled    State = "unsettled"    // a provider was out of reach for so long that it is not known what it keeps
	Dissolving   State = "dissolving"   // it was committed, and its end was asked for: the parts are terminated
	Dissolved    State = "dissolved"    // all parts were asked to end, after they had been binding
)

// Event is what happens to a coordination.
type Event string

// The events.
const (
	AllPrepared  Event = "all prepared"
	Refused      Event = "refused"     // a provider won't
	Late         Event = "late"        // too little time is left
	Interrupted  Event = "interrupted" // who prepared it is gone
	AllConfirmed Event = "all confirmed"
	Lost         Event = "lost" // a part was let go before it was confirmed
	AllGone      Event = "all gone"
	GaveUp       Event = "gave up"
	Dissolve     Event = "dissolve" // the owner asked for its end
)

// transitions is the life of a coordination; what it does not name is refused.
var transitions = map[State]map[Event]State{
	Preparing: {
		AllPrepared: Committing,
		Refused:     Aborting,
		Late:        Aborting,
		Interrupted: Aborting,
	},
	Committing: {
		AllConfirmed: Committed,
		Lost:         Compensating,
	},
	Aborting: {
		AllGone: Aborted,
	},
	Compensating: {
		AllGone: RolledBack,
		GaveUp:  Unsettled,
	},
	Committed: {
		Dissolve: Dissolving,
	},
	Dissolving: {
		AllGone: Dissolved,
		GaveUp:  Unsettled,
	},
	Dissolved:  {},
	Aborted:    {},
	RolledBack: {},
	Unsettled:  {},
}

// Final says that nothing happens to a coordination in this state any more, by itself.
func (s State) Final() bool { return s == Committed || len(transitions[s]) == 0 }

// next gives the state after an event.
func next(id string, s State, e Event) (State, error) {
	if to, ok := transitions[s][e]; ok {
		return to, nil
	}
	return s, fail.Errorf("together", fail.Internal, id, "the coordination is %s; %q does not happen to it then", s, string(e))
}

// PartState is what is known of a part.
type PartState string

// The states of a part.
const (
	PartAsked     PartState = "asked"     // it may be there
	PartPrepared  PartState = "prepared"  // it is held, until it is confirmed, terminated or over
	PartConfirmed PartState = "confirmed" // it is binding
	PartRefused   PartState = "refused"   // it was never there
	PartLost      PartState = "lost"      // it was let go before it was confirmed
	PartGone      PartState = "gone"      // it is not there any more
	PartUnknown   PartState = "unknown"   // its provider was out of reach to the end
)
