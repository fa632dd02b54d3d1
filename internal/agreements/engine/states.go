package engine

import (
	"maps"
	"slices"
	"strings"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
)

// Event is what happens to an agreement.
type Event string

// The events.
const (
	Accepted   Event = "accepted"   // the offer was accepted
	Refused    Event = "rejected"   // the offer was rejected
	Asked      Event = "terminate"  // somebody asked for its end
	Terminated Event = "terminated" // what ran for it has ended
	Completed  Event = "completed"  // all services are completed
	Expired    Event = "expired"    // its ExpirationTime came, or the time to confirm it
)

// transitions is the life of an agreement; what it does not name is refused.
var transitions = map[agreement.State]map[Event]agreement.State{
	agreement.Pending: {
		Accepted: agreement.Observed,
		Refused:  agreement.Rejected,
		Asked:    agreement.PendingAndTerminating,
		Expired:  agreement.Rejected,
	},
	agreement.PendingAndTerminating: {
		Accepted:   agreement.ObservedAndTerminating,
		Refused:    agreement.Rejected,
		Terminated: agreement.Terminated,
		Expired:    agreement.Terminated,
	},
	agreement.Observed: {
		Asked:     agreement.ObservedAndTerminating,
		Completed: agreement.Complete,
		Expired:   agreement.Complete,
	},
	agreement.ObservedAndTerminating: {
		Terminated: agreement.Terminated,
		Completed:  agreement.Complete,
		Expired:    agreement.Complete,
	},
	agreement.Rejected:   {},
	agreement.Complete:   {},
	agreement.Terminated: {},
}

// Final says that nothing happens to an agreement in this state any more.
func Final(s agreement.State) bool { return len(transitions[s]) == 0 }

// next gives the state after an event.
func next(op, id string, s agreement.State, e Event) (agreement.State, error) {
	if to, ok := transitions[s][e]; ok {
		return to, nil
	}
	if Final(s) {
		return s, fail.Errorf(op, fail.Conflict, id, "the agreement is %s, and that is final", s)
	}
	var may []string
	for _, e := range slices.Sorted(maps.Keys(transitions[s])) {
		may = append(may, string(e))
	}
	return s, fail.Errorf(op, fail.Conflict, id, "the agreement is %s; it can't be %s then, only %s", s, e, list(may))
}

func list(words []string) string {
	n := len(words)
	if n < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:n-1], ", ") + " or " + words[n-1]
}
