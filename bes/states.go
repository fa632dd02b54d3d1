package bes

import "slices"

// transitions is the base state model (GFD.108 §4): what may follow each state.
// Finished is reached through Running; nothing follows a final state. A state
// may also stay as it is while its sub-states change.
var transitions = map[State][]State{
	Pending:   {Running, Cancelled, Failed},
	Running:   {Finished, Cancelled, Failed},
	Finished:  {},
	Cancelled: {},
	Failed:    {},
}

// subStates are the elements of NSPortolan that split each base state (GFD.108
// §4.2: a sub-state adds neither states nor transitions to the base model).
var subStates = map[State][]string{
	Pending: {"Queued", "Held"},
	Running: {"Placing", "Submitted", "HeldAtSite", "Executing", "Suspended", "Requeued", "Cancelling"},
}

// Valid reports whether s is one of the base states.
func (s State) Valid() bool {
	_, ok := transitions[s]
	return ok
}

// CanBecome reports whether the base model lets s be followed by next. A state
// that is not final may be followed by itself.
func (s State) CanBecome(next State) bool {
	if s == next {
		return s.Valid() && !s.Final()
	}
	return slices.Contains(transitions[s], next)
}

// HasSubState reports whether the sub-state of NSPortolan with that local name
// can stand under s.
func (s State) HasSubState(local string) bool { return slices.Contains(subStates[s], local) }
