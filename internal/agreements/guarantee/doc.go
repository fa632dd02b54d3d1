// Package guarantee tells from events whether what an agreement promises is kept, when
// it is broken by mere passing of time, and what is then due.
//
// guarantee.go makes a Guarantee of a wsag:GuaranteeTerm; kpi.go has what can be
// watched; state.go what is remembered; judge.go how it is judged; danger.go whether
// a promise that still stands will.
//
// A state is judged up to a moment, its Now. Apply notes an event; At moves Now on
// and judges each moment on the way: events, deadlines that pass, ends of intervals,
// in the order of their times whatever the order in which they were heard of. An
// event that is heard of after Now has passed its time counts with its own time, but
// what was found violated stays so.
//
// The package decides and does nothing else: the time is an argument.
package guarantee
