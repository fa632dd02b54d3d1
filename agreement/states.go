package agreement

import (
	"maps"
	"slices"

	"github.com/portolan-project/portolan/internal/fail"
)

// Event is what turns the state of an agreement.
type Event string

// The events of an agreement.
const (
	EventAccepted   Event = "accepted"           // the responder agrees
	EventRejected   Event = "rejected"           // the responder does not
	EventTerminate  Event = "asked to terminate" // and the responder lets it
	EventTerminated Event = "terminated"         // the asked end is there
	EventCompleted  Event = "completed"          // all services are, or the agreement expired
)

// transitions is the state machine of agreements (§7.1). An acceptance that
// overtakes a request to terminate is observed while it terminates; asking for the
// end a second time changes nothing. An offer that expires undecided is rejected.
var transitions = map[State]map[Event]State{
	Pending:                {EventAccepted: Observed, EventRejected: Rejected, EventTerminate: PendingAndTerminating},
	PendingAndTerminating:  {EventAccepted: ObservedAndTerminating, EventRejected: Rejected, EventTerminate: PendingAndTerminating, EventTerminated: Terminated},
	Observed:               {EventTerminate: ObservedAndTerminating, EventCompleted: Complete},
	ObservedAndTerminating: {EventTerminate: ObservedAndTerminating, EventTerminated: Terminated, EventCompleted: Complete},
	Rejected:               {},
	Complete:               {},
	Terminated:             {},
}

// names lists the states of a table, sorted.
func names[S ~string, V any](table map[S]V) []string {
	var list []string
	for _, s := range slices.Sorted(maps.Keys(table)) {
		list = append(list, string(s))
	}
	return list
}

// Valid reports whether s is a state of agreements.
func (s State) Valid() bool {
	_, ok := transitions[s]
	return ok
}

// Final reports whether nothing follows s.
func (s State) Final() bool { return s.Valid() && len(transitions[s]) == 0 }

// Watched reports whether guarantees are assessed and services have states in s.
func (s State) Watched() bool { return s == Observed || s == ObservedAndTerminating }

// After gives the state that follows s by an event; a fail.Conflict where the
// machine has none.
func (s State) After(e Event) (State, error) {
	next, ok := transitions[s][e]
	if !ok {
		return s, fail.Errorf("agreement.State", fail.Conflict, string(s), "an agreement that is %s can't be %s", s, e)
	}
	return next, nil
}

// ServiceEvent is what turns the state of a service term.
type ServiceEvent string

// The events of a service term.
const (
	EventReady ServiceEvent = "ready" // it can be used
	EventUsed  ServiceEvent = "used"  // it is being used
	EventIdle  ServiceEvent = "idle"  // it is not used just now
	EventDone  ServiceEvent = "done"  // it will not be used again
)

// ServicePoint is a state of a service term with its sub-state.
type ServicePoint struct {
	State    ServiceState
	Activity Activity
}

// serviceTransitions has the states of service terms (§7.2), and for each event
// where it leads from each of its sub-states.
var serviceTransitions = map[ServiceState]map[Activity]map[ServiceEvent]ServicePoint{
	NotReady: {
		"": {EventReady: {Ready, ""}, EventUsed: {Ready, Processing}, EventIdle: {Ready, Idle}, EventDone: {Completed, ""}},
	},
	Ready: {
		"":         {EventReady: {Ready, ""}, EventUsed: {Ready, Processing}, EventIdle: {Ready, Idle}, EventDone: {Completed, ""}},
		Processing: {EventUsed: {Ready, Processing}, EventIdle: {Ready, Idle}, EventDone: {Completed, ""}},
		Idle:       {EventUsed: {Ready, Processing}, EventIdle: {Ready, Idle}, EventDone: {Completed, ""}},
	},
	Completed: {"": {}},
}

// Valid reports whether p is a state of service terms with a sub-state that it has.
func (p ServicePoint) Valid() bool {
	_, ok := serviceTransitions[p.State][p.Activity]
	return ok
}

// After gives what follows p by an event; a fail.Conflict where the machine has
// nothing.
func (p ServicePoint) After(e ServiceEvent) (ServicePoint, error) {
	next, ok := serviceTransitions[p.State][p.Activity][e]
	if !ok {
		what := string(p.State)
		if p.Activity != "" {
			what += " (" + string(p.Activity) + ")"
		}
		return p, fail.Errorf("agreement.ServiceState", fail.Conflict, what, "a service term that is %s can't become %s", what, e)
	}
	return next, nil
}

// Assessment is the outcome of one assessment of a guarantee.
type Assessment string

// The assessments.
const (
	AssessedFulfilled Assessment = "fulfilled"
	AssessedViolated  Assessment = "violated"
	AssessedNothing   Assessment = "nothing to assess" // its condition did not hold, or nothing happened
)

// guaranteeTransitions is the state machine of guarantees (§7.3): the state is
// that of the latest assessment, to and fro.
var guaranteeTransitions = map[GuaranteeState]map[Assessment]GuaranteeState{
	NotDetermined: {AssessedFulfilled: Fulfilled, AssessedViolated: Violated, AssessedNothing: NotDetermined},
	Fulfilled:     {AssessedFulfilled: Fulfilled, AssessedViolated: Violated, AssessedNothing: NotDetermined},
	Violated:      {AssessedFulfilled: Fulfilled, AssessedViolated: Violated, AssessedNothing: NotDetermined},
}

// Valid reports whether s is a state of guarantees.
func (s GuaranteeState) Valid() bool {
	_, ok := guaranteeTransitions[s]
	return ok
}

// After gives the state of a guarantee once it was assessed; a fail.Conflict
// where s is no state or the assessment none.
func (s GuaranteeState) After(a Assessment) (GuaranteeState, error) {
	next, ok := guaranteeTransitions[s][a]
	if !ok {
		return s, fail.Errorf("agreement.GuaranteeState", fail.Conflict, string(s), "a guarantee that is %s can't be assessed as %s", quoted(string(s)), quoted(string(a)))
	}
	return next, nil
}
