package purchase

import "github.com/portolan-project/portolan/internal/fail"

// State is the state of a purchase.
type State string

// The states.
const (
	Asking     State = "asking"     // it is asked what could be kept; nothing is held
	Preparing  State = "preparing"  // an offer is made to be held; it may be
	Confirming State = "confirming" // decided: it is confirmed until that is answered
	Bought     State = "bought"     // it is binding
	Releasing  State = "releasing"  // it is terminated until that is answered
	Settling   State = "settling"   // it is over, and is asked what it costs
	Refused    State = "refused"    // nothing was bought
	Ended      State = "ended"      // its window is over
	Released   State = "released"   // it was given back before its end
	Lost       State = "lost"       // the domain ended it, or could not be asked whether it was bought
)

// Event is what happens to a purchase.
type Event string

// The events.
const (
	Found     Event = "found"     // an offer that could be kept
	Held      Event = "held"      // the domain holds it
	LetGo     Event = "let go"    // what was held, or may have been, is not any more
	Declined  Event = "declined"  // it is not bought: it is refused, too dear or too late
	Dear      Event = "dear"      // what is held costs more than it may
	Confirmed Event = "confirmed" // it is binding
	Unheard   Event = "unheard"   // the domain never answered
	Over      Event = "over"      // the window is over
	Dropped   Event = "dropped"   // the domain ended it
	Release   Event = "release"   // a person wants it given back
	Gone      Event = "gone"      // it is terminated
	Withdrawn Event = "withdrawn" // there is nothing to terminate
	Settled   Event = "settled"   // what it costs is known, or will not be any more
)

// transitions is the life of a purchase; what it does not name is refused. The state after Settled is
// that which the record has as its Outcome.
var transitions = map[State]map[Event]State{
	Asking: {
		Found:    Preparing,
		Declined: Refused,
		Release:  Released,
	},
	Preparing: {
		Held:     Confirming,
		LetGo:    Asking,
		Declined: Refused,
		Dear:     Releasing,
		Release:  Releasing,
	},
	Confirming: {
		Confirmed: Bought,
		LetGo:     Asking,
		Unheard:   Settling,
		Release:   Releasing,
	},
	Bought: {
		Over:    Settling,
		Dropped: Settling,
		Release: Releasing,
	},
	Releasing: {
		Gone:      Settling,
		Withdrawn: Released,
		Declined:  Refused,
		Over:      Settling,
	},
	Settling: {
		Settled: Ended,
	},
	Refused:  {},
	Ended:    {},
	Released: {},
	Lost:     {},
}

// Final says that nothing happens to a purchase in this state any more.
func (s State) Final() bool { return len(transitions[s]) == 0 }

// next gives the state after an event.
func next(id string, s State, e Event, outcome State) (State, error) {
	to, ok := transitions[s][e]
	if !ok {
		return s, fail.Errorf("purchase", fail.Conflict, id, "the purchase is %s; %q does not happen to it then", s, string(e))
	}
	if e == Settled && (outcome == Released || outcome == Lost) {
		return outcome, nil
	}
	return to, nil
}
