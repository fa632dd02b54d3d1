package simtest

import (
	"maps"

	"github.com/portolan-project/portolan/peers/handover"
)

// Options say what a World is like, beside its seed.
type Options struct {
	// Sessions has the gateways speak over sessions, as the protocol has it, and show each
	// other their sites. Else messages about jobs are thrown at each other, each for itself,
	// so that they are lost, doubled and overtake each other as no session lets them.
	Sessions bool
	Faults   Faults
	Trace    bool // keeps what happened, for Trace
}

// MaxHops is how far a job goes at most.
const MaxHops = 3

// Faults are deliberate breaches of the rules: each must be found.
type Faults struct {
	TakerIgnoresDeadline bool // it goes on past its deadline, and its site too
	GiverIgnoresDeadline bool // it places elsewhere before
	TokenNotCompared     bool // a route is taken whatever was held under a higher or the same token
	PathNotChecked       bool // on either side
	WrittenAfterSending  bool
	RefusalForgotten     bool
	RestartForgets       bool // what was promised before it
	SkewForgotten        bool // clocks are wrong by more than was agreed
	ResultTwice          bool // a result under an old token is heeded
	RecallForgotten      bool // of a copy that was never seen
	HopsNotCounted       bool
	LateEndHeeded        bool // though the job has another place

	// Of sessions only.
	ResourcesForgotten bool // some are done with and were not heeded, and digests are not compared
	ChangesNotPushed   bool // nothing is shown beyond what was pulled
	SessionsNotOpened  bool // after one that ended
	LedgerNotTold      bool
}

// Counters tell that the worlds are not dull.
type Counters struct {
	Jobs      int
	Hops      int // hand-overs that were made
	Deepest   int // the most of one job
	Crashes   int // of gateways
	Cuts      int // of links
	Messages  int // about jobs
	Steps     int // of jobs
	Refused   int
	Recalls   int
	Late      int // placed elsewhere at the deadline
	Reruns    int // run again after an end that came too late
	Cancelled int
	Charges   int
	Unclaimed int // accounts with something that is owed and was never claimed

	// Of sessions.
	Opened    int // by either side of each
	Closed    int
	Lost      int // phases
	Resumed   int
	Requests  int // of the protocol, answers not counted
	Bytes     int // of the requests and answers that were weighed
	Weighed   int // went through the XML
	Unsent    int // items for which a session had no room, or there was none
	Pulls     int
	Changes   int // of sites
	Resources int // items that brought some
	Compares  int // repairs

	Statements int // of ledgers that were told, repetitions too

	Moves map[Move]int // of phases of jobs
}

// Move is one of a job at a gateway.
type Move struct{ From, To handover.Phase }

// moved counts a move of a phase.
func (c *Counters) moved(m Move) {
	if c.Moves == nil {
		c.Moves = map[Move]int{}
	}
	c.Moves[m]++
}

// Add adds what another world counted.
func (c *Counters) Add(o Counters) {
	deepest, moves := max(c.Deepest, o.Deepest), c.Moves
	if moves == nil {
		moves = map[Move]int{}
	}
	for _, p := range []struct {
		to *int
		of int
	}{
		{&c.Jobs, o.Jobs},
		{&c.Hops, o.Hops},
		{&c.Crashes, o.Crashes},
		{&c.Cuts, o.Cuts},
		{&c.Messages, o.Messages},
		{&c.Steps, o.Steps},
		{&c.Refused, o.Refused},
		{&c.Recalls, o.Recalls},
		{&c.Late, o.Late},
		{&c.Reruns, o.Reruns},
		{&c.Cancelled, o.Cancelled},
		{&c.Charges, o.Charges},
		{&c.Unclaimed, o.Unclaimed},
		{&c.Opened, o.Opened},
		{&c.Closed, o.Closed},
		{&c.Lost, o.Lost},
		{&c.Resumed, o.Resumed},
		{&c.Requests, o.Requests},
		{&c.Bytes, o.Bytes},
		{&c.Weighed, o.Weighed},
		{&c.Unsent, o.Unsent},
		{&c.Pulls, o.Pulls},
		{&c.Changes, o.Changes},
		{&c.Resources, o.Resources},
		{&c.Compares, o.Compares},
		{&c.Statements, o.Statements},
	} {
		*p.to += p.of
	}
	for m, n := range maps.All(o.Moves) {
		moves[m] += n
	}
	c.Deepest, c.Moves = deepest, moves
}

// Trace gives what happened so far, a line each, if that was asked for.
func (w *World) Trace() []string { return w.trace }

// Counters gives what was counted so far.
func (w *World) Counters() Counters { return w.counters }
