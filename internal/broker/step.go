package broker

import (
	"slices"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/resourcemodel"
)

// lostClass is the queue's class of jobs whose place was lost by no fault of theirs:
// they go first, by the time when they were submitted.
const lostClass = 1

// promisedClass is that of jobs whose promise is in danger: they go before those, too.
const promisedClass = 2

// fact is an event with what it brings.
type fact struct {
	event      Event
	at         time.Time
	reason     string              // a sentence
	place      resourcemodel.Place // Chosen
	rerunnable bool                // Chosen: the job allows it
	recallable bool                // Chosen: once it is lost there, it may be run elsewhere
	unrun      bool                // Vanished and Stopped: it certainly never ran
	unreserved bool                // Deferred: the reservation that its promise names is of no use
	unfit      bool                // GaveUp: no site here can run it, ever
	path       string              // evidence of a peer: the job's way from there
	notAfter   time.Time           // Extended
	cpus       int                 // Chosen
	length     time.Duration       // Chosen
	gateway    string              // Chosen: the replica that did
	bought     string              // Chosen: the agreement in whose room it is to run
	tag        adapters.Tag
	handle     []byte
	exitStatus *int
	signal     string
	started    time.Time
	ended      time.Time
	notBefore  time.Time
	aside      *store.Aside   // Deferred, Unrun and Returned: the site is not to get it again for a while
	verdict    *store.Verdict // Outlived
	winner     *store.Status  // Won: how the replica ended
	had        *store.Status  // Swapped and Retired: what the job had until then
	told       *store.Told    // what the site tells beside; the committer keeps it
}

// step applies one fact to a status: the table decides the phase, this function
// keeps the fields that go with it. The line is nil when nothing was said that
// the history does not know. It reads no clock and changes nothing in place.
func step(st store.Status, f fact) (store.Status, *store.Event, Action, error) {
	from := Phase(st.Phase)
	t, ok := transitions[from][f.event]
	if !ok {
		return st, nil, 0, fail.Errorf("broker.step", fail.Conflict, "", "a job that is %s can't be changed by %q", from, string(f.event))
	}
	old, do := st, t.do
	line := store.Event{Time: f.at, Event: string(f.event), Phase: string(t.to), Reason: f.reason}
	st.Phase, st.Final = string(t.to), t.to.Final()
	if t.to != from || f.reason != "" && tellsWhy(f.event) {
		st.Reason = f.reason
	}
	if p := st.Placement; p != nil {
		line.Site, line.Attempt = p.Site, st.Attempt
	}
	tell := t.to != from

	switch f.event {
	case Chosen:
		st.Attempt++
		st.Placement = &store.Placement{
			Tag: string(f.tag), Site: f.place.Site, Share: f.place.Share, Environment: f.place.Environment, Rerunnable: f.rerunnable, CPUs: f.cpus, Gateway: f.gateway,
			Recallable: f.recallable, Length: f.length, Bought: f.bought,
		}
		st.NotBefore = time.Time{}
		line.Site, line.Attempt = f.place.Site, st.Attempt
	case Deferred, Absent, Refused, GaveUp, Unrun, Rerun, Returned:
		st.NotBefore = f.notBefore
		if f.event != Refused && f.event != GaveUp {
			st.Class = max(st.Class, lostClass)
		}
		no := f.event == Refused || f.event == GaveUp
		if no && st.Placement != nil && !slices.Contains(st.Refused, st.Placement.Site) {
			st.Refused = append(slices.Clip(st.Refused), st.Placement.Site)
		}
		if f.unreserved && st.Promise != nil {
			kept := *st.Promise
			kept.Reservation, st.Promise = nil, &kept
		}
		if f.aside != nil {
			st.Aside = withAside(st.Aside, f.aside)
		}
		if f.event == Unrun || f.event == Rerun {
			st.Lost++
		}
		if f.event == Rerun || f.event == Returned {
			st.Started = time.Time{} // the history has it
		}
	case Uncertain:
		tell = t.do != 0 // once the handle is known it no longer matters
	case Cancel:
		tell = tell || !st.Cancel
		st.Cancel = true
	case Suspend:
		tell = tell || !st.Suspend
		st.Suspend = true
	case Resume:
		tell = tell || st.Suspend
		st.Suspend = false
	case Started:
		if st.Started.IsZero() {
			st.Started = f.started
			line.Time = f.started
			tell = true
		}
	case Exited, Stopped, Vanished, Ended, Expired:
		st.ExitStatus, st.Signal = f.exitStatus, f.signal
		if st.Started.IsZero() {
			st.Started = f.started
		}
		if !f.ended.IsZero() {
			line.Time = f.ended
		}
	case Unable:
		tell = tell || st.Suspend
		st.Suspend = false
	case Moved:
		tell = true
	case Pressed, Loosened:
		tell = true
		if p := st.Promise; p != nil {
			kept := *p
			switch {
			case f.event == Loosened:
				kept.Loose = true
			case t.to.atSite():
				kept.Noted = true
			default:
				kept.Pressed = true
				st.Class = max(st.Class, promisedClass)
			}
			st.Promise = &kept
		}
	case Extended:
		if f.notAfter.After(st.NotAfter) {
			st.NotAfter = f.notAfter
		}
	case GiveBack:
		tell = tell || !st.Return
		st.Return = true
	case Copied, Lapsed:
		if from == "" { // it is the replica, which begins
			st.Attempt = 1
			st.Placement = &store.Placement{
				Tag: string(f.tag), Site: f.place.Site, Share: f.place.Share, Environment: f.place.Environment, Rerunnable: f.rerunnable, CPUs: f.cpus,
			}
		}
		tell = true
		line.Site, line.Attempt = f.place.Site, 0
	case Outlived:
		st.ExitStatus, st.Signal, st.Verdict, st.NotBefore = f.exitStatus, f.signal, f.verdict, time.Time{}
		if st.Started.IsZero() {
			st.Started = f.started
		}
		if !f.ended.IsZero() {
			line.Time = f.ended
		}
	case Won:
		if w := f.winner; w != nil {
			st.Placement, st.Told, st.ExitStatus, st.Signal, st.Started = w.Placement, w.Told, w.ExitStatus, w.Signal, w.Started
			line.Site = w.Placement.Site
			if !w.Ended.IsZero() {
				line.Time = w.Ended
			}
		}
		st.Verdict = nil
	case Swapped, Retired:
		// The end of what the job had is the replica's own from now on.
		if st.Cancel = true; f.had != nil {
			st.Placement, st.Told, st.ExitStatus, st.Signal, st.Started = f.had.Placement, f.had.Told, f.had.ExitStatus, f.had.Signal, f.had.Started
			if line.Site = ""; st.Placement != nil {
				line.Site = st.Placement.Site
			}
		}
	case Accepted, Placed, Waiting, Paused, HeldThere, HeldAgain, Abandon, Withdrawn:
	}
	if st.Suspend && t.to == Running && (from == Placing || from == AtSite) {
		do |= DoSuspend // the site could not keep it from starting
	}
	if f.path != "" && st.Placement != nil && st.Placement.Path != f.path {
		p := *st.Placement
		p.Path = f.path
		st.Placement = &p
	}
	if st.Final {
		st.Gone = st.Foreign != nil && resultless(st, f)
		st.Unfit = st.Gone && (f.unfit || f.event == Stopped)
		st.NotBefore, st.Verdict, st.Aside = time.Time{}, nil, nil
		if st.Ended = f.ended; st.Ended.IsZero() {
			st.Ended = f.at
		}
	}
	switch {
	case t.to == Requeued && st.Placement != nil:
		// The placement is over. What the user asked for meanwhile still holds.
		if st.Foreign != nil {
			st.Spent += max(cpuOf(st.Told), cpuOf(f.told))
		}
		st.Placement, st.Told = nil, nil
		if st.Suspend {
			held := string(transitions[Requeued][Suspend].to)
			st.Phase, line.Phase = held, held
		}
	case f.handle != nil && st.Placement != nil && st.Placement.Handle == nil:
		p := *st.Placement
		p.Handle = f.handle
		st.Placement = &p
		do |= steer(st)
	}
	if tell {
		return st, &line, do, nil
	}
	if same(old, st) {
		return old, nil, do, nil
	}
	return st, nil, do, nil
}

// resultless reports whether the fact that ends a job of a peer leaves no result: the copy
// is dead, and what becomes of the job is the peer's to say.
func resultless(st store.Status, f fact) bool {
	switch e := f.event; {
	case e == Exited || e == Won:
		return false
	case e == Stopped:
		return f.unrun // no site here can run it, and others may
	case e == Vanished:
		return f.unrun
	case e == Ended:
		return st.Cancel // else somebody at the site ended it, as its user might have
	case e == Abandon:
		return !f.at.Before(st.NotAfter) // before, it may live there
	}
	return true
}

func cpuOf(t *store.Told) time.Duration {
	if t == nil {
		return 0
	}
	return t.CPU
}

// tellsWhy reports whether the event's reason replaces the status's though the
// phase stays.
func tellsWhy(e Event) bool {
	return slices.Contains([]Event{Waiting, Paused, HeldThere, Uncertain, Suspend, Resume, Unable}, e)
}

// steer gives what a site must be asked for once it has the job, because the
// user asked for it before.
func steer(st store.Status) Action {
	switch p := Phase(st.Phase); {
	case st.Final:
		return 0
	case p == Cancelling:
		return DoCancel
	case st.Suspend && p != Suspended && p != SiteHeld:
		return DoSuspend
	case p == Resuming:
		return DoResume
	}
	return 0
}

// same reports whether writing b over a would change nothing, knowing how step
// changes a status.
func same(a, b store.Status) bool {
	return a.Phase == b.Phase && a.Final == b.Final && a.Reason == b.Reason && a.Attempt == b.Attempt &&
		a.Lost == b.Lost && a.Class == b.Class && len(a.Refused) == len(b.Refused) && a.Placement == b.Placement &&
		a.ExitStatus == b.ExitStatus && a.Signal == b.Signal && a.Started.Equal(b.Started) &&
		a.Ended.Equal(b.Ended) && a.NotBefore.Equal(b.NotBefore) && a.Cancel == b.Cancel && a.Suspend == b.Suspend && a.Told == b.Told && a.Verdict == b.Verdict &&
		a.NotAfter.Equal(b.NotAfter) && a.Return == b.Return && a.Promise == b.Promise && a.Gone == b.Gone && a.Unfit == b.Unfit && a.Spent == b.Spent
}
