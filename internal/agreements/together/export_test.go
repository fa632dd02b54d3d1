package together

import "maps"

// Transitions gives the table.
func Transitions() map[State]map[Event]State { return maps.Clone(transitions) }

// Next gives what it says.
func Next(id string, s State, e Event) (State, error) { return next(id, s, e) }
