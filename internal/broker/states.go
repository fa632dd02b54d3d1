package broker

import (
	"maps"
	"slices"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/xmldoc"
)

// Phase is where a job stands in the broker; it refines the BES state model.
type Phase string

// The phases.
const (
	Queued     Phase = "Queued"     // waits for a place to run
	Held       Phase = "Held"       // the user wants it to wait; it never had a place
	Placing    Phase = "Placing"    // a site was chosen and written down; its answer is not yet here
	AtSite     Phase = "AtSite"     // the site has it and will start it
	SiteHeld   Phase = "SiteHeld"   // the site has it and will not start it until it is released
	Running    Phase = "Running"    // it was started
	Suspended  Phase = "Suspended"  // the site keeps it from running for now
	Resuming   Phase = "Resuming"   // the user wants it to go on; the site has yet to show it
	Requeued   Phase = "Requeued"   // lost its place before it ran and waits for another
	Withheld   Phase = "Withheld"   // as Requeued, and the user wants it to wait
	Outlasted  Phase = "Outlasted"  // it ended without a valid result, and replicas of it go on
	Cancelling Phase = "Cancelling" // its end was asked for; the site has yet to show it
	Finished   Phase = "Finished"
	Failed     Phase = "Failed"
	Cancelled  Phase = "Cancelled"
)

// Event is what happened to a job. Its name is the history's.
type Event string

// The events.
const (
	Accepted  Event = "submitted"  // the first of each job; it makes it Queued
	Chosen    Event = "placing"    // the dispatcher chose a site
	Placed    Event = "placed"     // the site gave a handle
	Uncertain Event = "uncertain"  // the site's answer was lost
	Deferred  Event = "deferred"   // the site can't take it now
	Refused   Event = "refused"    // this site can't run it, another might
	Absent    Event = "absent"     // the site certainly never got it
	GaveUp    Event = "gave-up"    // no site is left that could run it
	Waiting   Event = "waiting"    // evidence: queued at the site
	HeldThere Event = "held"       // evidence: the site keeps it from starting
	HeldAgain Event = "held-again" // evidence: the site holds it though it was released
	Paused    Event = "paused"     // evidence: started at the site and stopped for now
	Started   Event = "started"    // evidence: running
	Exited    Event = "exited"     // evidence: the program ended by itself
	Stopped   Event = "stopped"    // evidence: the site ended it for a limit or an error
	Vanished  Event = "lost"       // evidence: its end will never be known
	Unrun     Event = "unrun"      // evidence: gone, and certainly never ran
	Rerun     Event = "rerun"      // evidence: gone while it ran, and the job may be run again
	Ended     Event = "cancelled"  // evidence: ended because that was asked for
	Cancel    Event = "cancel"     // the user asks for its end
	Suspend   Event = "suspend"    // the user wants it to wait
	Resume    Event = "resume"     // the user wants it to go on
	Unable    Event = "unable"     // the site can't keep it from running, though that was asked for
	Abandon   Event = "abandon"    // whoever may gives up a job whose site can't be asked

	Returned Event = "returned"    // evidence: whoever had it gave it back, or lost the right to run it, and it may be run elsewhere
	Moved    Event = "moved"       // evidence: it is at another place of the peer's, or at another peer
	Expired  Event = "lease-ended" // its lease is over, and the site ended it, or it had no place
	Extended Event = "extended"    // its lease was extended; the history does not have it
	GiveBack Event = "return"      // an administrator wants it given back to the peer that handed it over

	Pressed  Event = "in-danger" // what is promised of it may not hold: the dispatcher acts
	Loosened Event = "unpinned"  // the site where its room is held can't have it, and another is tried

	Copied    Event = "replicated"    // a replica of it was given to another site
	Outlived  Event = "outlived"      // its own placement ended without a valid result, and replicas go on
	Lapsed    Event = "replica-ended" // a replica of it ended without being the first with a valid result
	Won       Event = "won"           // a replica gave the first valid result, and its placement is the job's now
	Swapped   Event = "swapped"       // of the replica that did: it takes over what the job had, to end it
	Retired   Event = "retired"       // the same, of a job that had nothing any more
	Withdrawn Event = "withdrawn"     // of a replica: it lost its place, and gets no other
)

// Action is what is to be done once a step is durable; several may be joined.
type Action uint8

// The actions.
const (
	DoSubmit  Action = 1 << iota // hand it to the site
	DoFind                       // ask the site whether it has the tag
	DoCancel                     // ask the site to end it
	DoSuspend                    // ask the site to stop it for now
	DoResume                     // ask the site to let it go on
	DoForget                     // let the site forget the placement that is given up
	DoRecall                     // ask the peer for a job that waits there
)

type transition struct {
	to Phase
	do Action
}

// transitions is the life of a job. What it does not name is an error. There is
// nothing from a final phase: terminal is final.
var transitions = map[Phase]map[Event]transition{
	"": {
		Accepted: {to: Queued},
		Copied:   {Placing, DoSubmit}, // a replica never waits: it begins with its place
	},
	Queued: {
		Pressed:  {to: Queued},
		Loosened: {to: Queued},
		Chosen:   {Placing, DoSubmit},
		GaveUp:   {to: Failed},
		Cancel:   {to: Cancelled},
		Expired:  {to: Failed},
		Extended: {to: Queued},
		GiveBack: {to: Queued},
		Suspend:  {to: Held},
		Resume:   {to: Queued},
	},
	Held: {
		Pressed:  {to: Held},
		Loosened: {to: Held},
		Cancel:   {to: Cancelled},
		Expired:  {to: Failed},
		Extended: {to: Held},
		GiveBack: {to: Held},
		Suspend:  {to: Held},
		Resume:   {to: Queued},
	},
	Requeued: {
		Pressed:   {to: Requeued},
		Loosened:  {to: Requeued},
		Chosen:    {Placing, DoSubmit},
		GaveUp:    {to: Failed},
		Cancel:    {to: Cancelled},
		Expired:   {to: Failed},
		Extended:  {to: Requeued},
		GiveBack:  {to: Requeued},
		Suspend:   {to: Withheld},
		Resume:    {to: Requeued},
		Copied:    {to: Requeued},
		Lapsed:    {to: Requeued},
		Outlived:  {to: Outlasted},
		Won:       {to: Finished},
		Withdrawn: {to: Cancelled},
	},
	Withheld: {
		Pressed:   {to: Withheld},
		Loosened:  {to: Withheld},
		Cancel:    {to: Cancelled},
		Expired:   {to: Failed},
		Extended:  {to: Withheld},
		GiveBack:  {to: Withheld},
		Suspend:   {to: Withheld},
		Resume:    {to: Requeued},
		Copied:    {to: Withheld},
		Lapsed:    {to: Withheld},
		Outlived:  {to: Outlasted},
		Won:       {to: Finished},
		Withdrawn: {to: Cancelled},
	},
	// Evidence may overtake the site's answer, so it counts here already.
	Placing: {
		Pressed:   {to: Placing},
		Placed:    {to: AtSite},
		Uncertain: {Placing, DoFind},
		Deferred:  {to: Requeued},
		Refused:   {to: Requeued},
		Absent:    {to: Requeued},
		GaveUp:    {to: Failed},
		Waiting:   {to: AtSite},
		Paused:    {to: Suspended},
		HeldThere: {to: SiteHeld},
		Started:   {to: Running},
		Exited:    {to: Finished},
		Stopped:   {to: Failed},
		Vanished:  {to: Failed},
		Unrun:     {Requeued, DoForget},
		Rerun:     {Requeued, DoForget},
		Returned:  {Requeued, DoForget},
		Moved:     {to: Placing},
		Expired:   {to: Failed},
		Extended:  {to: Placing},
		GiveBack:  {to: Placing},
		Ended:     {to: Cancelled},
		Cancel:    {to: Cancelling},
		Abandon:   {to: Failed},
		Suspend:   {to: Placing},
		Resume:    {to: Placing},
		Copied:    {to: Placing},
		Lapsed:    {to: Placing},
		Outlived:  {to: Outlasted},
		Won:       {to: Finished},
		Swapped:   {Cancelling, DoCancel},
		Retired:   {to: Cancelled},
	},
	AtSite: {
		Pressed:   {to: AtSite},
		Placed:    {to: AtSite},
		Uncertain: {to: AtSite},
		Refused:   {Requeued, DoForget},
		GaveUp:    {to: Failed},
		Waiting:   {to: AtSite},
		Paused:    {to: Suspended},
		HeldThere: {to: SiteHeld},
		Started:   {to: Running},
		Exited:    {to: Finished},
		Stopped:   {to: Failed},
		Vanished:  {to: Failed},
		Unrun:     {Requeued, DoForget},
		Rerun:     {Requeued, DoForget},
		Returned:  {Requeued, DoForget},
		Moved:     {to: AtSite},
		Expired:   {to: Failed},
		Extended:  {to: AtSite},
		GiveBack:  {to: AtSite},
		Ended:     {to: Cancelled},
		Cancel:    {Cancelling, DoCancel},
		Abandon:   {to: Failed},
		Suspend:   {AtSite, DoSuspend},
		Resume:    {AtSite, DoResume},
		Unable:    {to: AtSite},
		Copied:    {to: AtSite},
		Lapsed:    {to: AtSite},
		Outlived:  {to: Outlasted},
		Won:       {to: Finished},
		Swapped:   {Cancelling, DoCancel},
		Retired:   {to: Cancelled},
	},
	Running: {
		Pressed:   {to: Running},
		Placed:    {to: Running},
		Uncertain: {to: Running},
		Waiting:   {to: AtSite}, // the site put it back into its own queue
		Paused:    {to: Suspended},
		HeldThere: {to: SiteHeld},
		Started:   {to: Running},
		Exited:    {to: Finished},
		Stopped:   {to: Failed},
		Vanished:  {to: Failed},
		Rerun:     {Requeued, DoForget},
		Returned:  {Requeued, DoForget},
		Moved:     {to: Running},
		Expired:   {to: Failed},
		Extended:  {to: Running},
		GiveBack:  {to: Running},
		Ended:     {to: Cancelled},
		Cancel:    {Cancelling, DoCancel},
		Abandon:   {to: Failed},
		Suspend:   {Running, DoSuspend},
		Resume:    {Running, DoResume},
		Unable:    {to: Running},
		Copied:    {to: Running},
		Lapsed:    {to: Running},
		Outlived:  {to: Outlasted},
		Won:       {to: Finished},
		Swapped:   {Cancelling, DoCancel},
		Retired:   {to: Cancelled},
	},
	Suspended: {
		Pressed:   {to: Suspended},
		Placed:    {to: Suspended},
		Uncertain: {to: Suspended},
		Refused:   {Requeued, DoForget},
		GaveUp:    {to: Failed},
		Waiting:   {to: AtSite},
		Paused:    {to: Suspended},
		HeldThere: {to: SiteHeld},
		Started:   {to: Running},
		Exited:    {to: Finished},
		Stopped:   {to: Failed},
		Vanished:  {to: Failed},
		Unrun:     {Requeued, DoForget},
		Rerun:     {Requeued, DoForget},
		Returned:  {Requeued, DoForget},
		Moved:     {to: Suspended},
		Expired:   {to: Failed},
		Extended:  {to: Suspended},
		GiveBack:  {to: Suspended},
		Ended:     {to: Cancelled},
		Cancel:    {Cancelling, DoCancel},
		Abandon:   {to: Failed},
		Suspend:   {Suspended, DoSuspend},
		Resume:    {Resuming, DoResume},
		Copied:    {to: Suspended},
		Lapsed:    {to: Suspended},
		Outlived:  {to: Outlasted},
		Won:       {to: Finished},
		Swapped:   {Cancelling, DoCancel},
		Retired:   {to: Cancelled},
	},
	SiteHeld: {
		Pressed:   {to: SiteHeld},
		Placed:    {to: SiteHeld},
		Uncertain: {to: SiteHeld},
		Refused:   {Requeued, DoForget},
		GaveUp:    {to: Failed},
		Waiting:   {to: AtSite},
		HeldThere: {to: SiteHeld},
		Paused:    {to: Suspended},
		Started:   {to: Running},
		Exited:    {to: Finished},
		Stopped:   {to: Failed},
		Vanished:  {to: Failed},
		Unrun:     {Requeued, DoForget},
		Rerun:     {Requeued, DoForget},
		Returned:  {Requeued, DoForget},
		Moved:     {to: SiteHeld},
		Expired:   {to: Failed},
		Extended:  {to: SiteHeld},
		GiveBack:  {to: SiteHeld},
		Ended:     {to: Cancelled},
		Cancel:    {Cancelling, DoCancel},
		Abandon:   {to: Failed},
		Suspend:   {SiteHeld, DoSuspend},
		Resume:    {Resuming, DoResume},
		Copied:    {to: SiteHeld},
		Lapsed:    {to: SiteHeld},
		Outlived:  {to: Outlasted},
		Won:       {to: Finished},
		Swapped:   {Cancelling, DoCancel},
		Retired:   {to: Cancelled},
	},
	Resuming: {
		Pressed:   {to: Resuming},
		Placed:    {to: Resuming},
		Uncertain: {to: Resuming},
		Refused:   {Requeued, DoForget},
		GaveUp:    {to: Failed},
		Waiting:   {to: AtSite},
		HeldAgain: {to: SiteHeld},
		Paused:    {to: Resuming}, // of before the site heard of it
		HeldThere: {to: Resuming}, // as above
		Started:   {to: Running},
		Exited:    {to: Finished},
		Stopped:   {to: Failed},
		Vanished:  {to: Failed},
		Unrun:     {Requeued, DoForget},
		Rerun:     {Requeued, DoForget},
		Returned:  {Requeued, DoForget},
		Moved:     {to: Resuming},
		Expired:   {to: Failed},
		Extended:  {to: Resuming},
		GiveBack:  {to: Resuming},
		Ended:     {to: Cancelled},
		Cancel:    {Cancelling, DoCancel},
		Abandon:   {to: Failed},
		Suspend:   {Suspended, DoSuspend},
		Resume:    {Resuming, DoResume},
		Copied:    {to: Resuming},
		Lapsed:    {to: Resuming},
		Outlived:  {to: Outlasted},
		Won:       {to: Finished},
		Swapped:   {Cancelling, DoCancel},
		Retired:   {to: Cancelled},
	},
	// A program that ends by itself before the request reaches it has finished:
	// evidence wins. One that was never placed is simply cancelled.
	Cancelling: {
		Placed:    {to: Cancelling},
		Uncertain: {Cancelling, DoFind},
		Deferred:  {to: Cancelled},
		Refused:   {to: Cancelled},
		Absent:    {to: Cancelled},
		GaveUp:    {to: Cancelled},
		Waiting:   {to: Cancelling},
		Paused:    {to: Cancelling},
		HeldThere: {to: Cancelling},
		Started:   {to: Cancelling},
		Exited:    {to: Finished},
		Stopped:   {to: Failed},
		Vanished:  {to: Cancelled},
		Unrun:     {to: Cancelled},
		Rerun:     {to: Cancelled},
		Returned:  {to: Cancelled},
		Moved:     {to: Cancelling},
		Expired:   {to: Cancelled},
		Extended:  {to: Cancelling},
		GiveBack:  {to: Cancelling},
		Ended:     {to: Cancelled},
		Cancel:    {to: Cancelling},
		Abandon:   {to: Failed},
		Copied:    {to: Cancelling},
		Lapsed:    {to: Cancelling},
	},
	// Its replicas may still give a result. When none is left, what ended its own
	// placement ends the job.
	Outlasted: {
		Copied:   {to: Outlasted},
		Lapsed:   {to: Outlasted},
		Won:      {to: Finished},
		Exited:   {to: Finished},
		Stopped:  {to: Failed},
		Vanished: {to: Failed},
		GaveUp:   {to: Failed},
		Ended:    {to: Cancelled},
		Cancel:   {to: Cancelled},
		Abandon:  {to: Failed},
		Suspend:  {to: Outlasted},
		Resume:   {to: Outlasted},
	},
}

// shown is how each phase looks to BES (GFD.108 §4): the base state and our
// sub-state. A requeued job stays Running: the model has no way back to Pending.
var shown = map[Phase]struct {
	state bes.State
	sub   string
}{
	Queued:     {bes.Pending, "Queued"},
	Held:       {bes.Pending, "Held"},
	Placing:    {bes.Running, "Placing"},
	AtSite:     {bes.Running, "Submitted"},
	Running:    {bes.Running, "Executing"},
	SiteHeld:   {bes.Running, "HeldAtSite"},
	Suspended:  {bes.Running, "Suspended"},
	Resuming:   {bes.Running, "Suspended"},
	Requeued:   {bes.Running, "Requeued"},
	Withheld:   {bes.Running, "Suspended"},
	Outlasted:  {bes.Running, "Executing"},
	Cancelling: {bes.Running, "Cancelling"},
	Finished:   {bes.Finished, ""},
	Failed:     {bes.Failed, ""},
	Cancelled:  {bes.Cancelled, ""},
}

// State gives the base state.
func (p Phase) State() bes.State { return shown[p].state }

// SubStates gives the sub-states, in our namespace; none for a final phase.
func (p Phase) SubStates() []xmldoc.Name {
	if sub := shown[p].sub; sub != "" {
		return []xmldoc.Name{{Space: bes.NSPortolan, Local: sub}}
	}
	return nil
}

// Final reports whether nothing can follow.
func (p Phase) Final() bool { return shown[p].state.Final() }

// waits reports whether the dispatcher may choose a site for it.
func (p Phase) waits() bool { return p == Queued || p == Requeued }

// atSite reports whether a site knows of it, or may.
func (p Phase) atSite() bool {
	switch p {
	case Placing, AtSite, SiteHeld, Running, Suspended, Resuming, Cancelling:
		return true
	case Queued, Held, Requeued, Withheld, Outlasted, Finished, Failed, Cancelled:
	}
	return false
}

// Phases lists all phases, sorted.
func Phases() []Phase { return slices.Sorted(maps.Keys(shown)) }

// Events lists all events, sorted.
func Events() []Event {
	set := map[Event]bool{}
	for _, row := range transitions {
		for e := range row {
			set[e] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}
