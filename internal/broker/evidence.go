package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// outcome turns the answer to a Submit into what it means for the job; the
// caller holds the lock.
func (s *site) outcome(j *job, st *store.Status, r adapters.Placed) []fact {
	if r.Err == nil {
		fs := []fact{{event: Placed, handle: r.Handle, reason: "the site " + s.name + " took it"}}
		if e := j.early; e != nil && string(e.Tag) == st.Placement.Tag {
			fs = append(fs, s.facts(j, st, e, true, time.Time{})...)
		}
		j.early = nil
		return fs
	}
	return []fact{s.failure(j, st, r.Err)}
}

// failure turns the refusal of a Submit into what it means for the job.
func (s *site) failure(j *job, st *store.Status, err error) fact {
	b := s.b
	switch {
	case fail.Is(err, fail.Uncertain) || isContext(err):
		return fact{event: Uncertain, reason: "the site " + s.name + " gave no clear answer; it is asked whether it has the job"}
	case fail.Is(err, fail.Unavailable) || fail.Is(err, fail.Exhausted):
		if st.Foreign != nil && s.domain() == "" && st.Attempt >= b.cfg.Retry.Lost {
			// Its domain can look for another place, and so much the sooner.
			return fact{event: GaveUp, reason: fmt.Sprintf(
				"the site %s can't take it now (%s), and it is given back after %d attempts", s.name, fail.Sentence(err), st.Attempt,
			)}
		}
		f := fact{
			event: Deferred, notBefore: b.later(st.Attempt),
			reason: fmt.Sprintf("the site %s can't take it now (%s); it is tried again", s.name, fail.Sentence(err)),
		}
		s.setAside(&f, st, 0)
		return f
	default:
		if f := s.unreserved(j, st, err); f != nil {
			return *f
		}
		why := fmt.Sprintf("the site %s refused it: %s", s.name, fail.Sentence(err))
		if b.elsewhere(j, st, s.name) {
			return fact{event: Refused, reason: why + "; another site is tried"}
		}
		return fact{event: GaveUp, unfit: true, reason: why}
	}
}

func isContext(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// later gives when the attempt after the n-th may be made.
func (b *Broker) later(n int) time.Time {
	return time.Now().Add(b.cfg.Retry.backoff(n, b.cfg.Jitter()))
}

// elsewhere reports whether a job may still try another site when this one is out; so
// it may where what it asks for is not in memory any more.
func (b *Broker) elsewhere(j *job, st *store.Status, out string) bool {
	refused := append(slices.Clip(st.Refused), out)
	if k := cmp.Or(j.kind, b.kinds[keyOf(j)]); k != nil {
		_, could := b.against(k, refused)
		return len(could) > 0
	}
	return slices.ContainsFunc(b.roster.Load().sites, func(s *site) bool { return !slices.Contains(refused, s.name) })
}

// staleTime is how old a site's picture of its jobs may be when it is asked.
const staleTime = 5 * time.Second

// facts turns evidence into what it means for the job; the caller holds the lock.
// Placed says that the handle is known by now; asked is when the site was asked,
// zero for evidence that it pushed.
func (s *site) facts(j *job, st *store.Status, e *adapters.Evidence, placed bool, asked time.Time) []fact {
	b := s.b
	if !placed && e.Handle == nil && st.Placement != nil && st.Placement.Handle == nil {
		// It overtook the answer to Submit; without the handle, the job's output
		// could not be found any more.
		j.early = e
		return nil
	}
	j.held = e.Phase == adapters.Held || e.Phase == adapters.Unknown && j.held
	f := fact{
		told: told(e), reason: e.Reason, handle: e.Handle, exitStatus: e.ExitStatus, signal: e.Signal,
		started: e.Started, ended: e.Ended, path: wayOf(st, e),
	}
	say := func(general string) {
		if f.reason == "" {
			f.reason = general
		}
	}
	phase := Phase(st.Phase)
	neverRan := e.NotRun && st.Started.IsZero()
	switch e.Phase {
	case adapters.Unknown:
		return nil
	case adapters.Queued:
		f.event = Waiting
		switch {
		case phase == AtSite: // nothing new
		case st.Started.IsZero():
			say("waits in the queue of the site " + s.name)
		default:
			say("the site " + s.name + " put it back into its queue")
		}
	case adapters.Held:
		f.event = HeldThere
		wanted := "held at the site " + s.name + ", as was asked"
		switch {
		case phase == Resuming && !asked.IsZero() && !j.released.IsZero() && asked.Sub(j.released) > staleTime:
			f.event = HeldAgain
			say("held again at the site " + s.name)
		case phase == SiteHeld && st.Suspend && st.Reason == wanted:
			f.reason = wanted // the manager tells it again, in its own words
		case phase == SiteHeld || phase == Resuming:
		case st.Suspend:
			f.reason = wanted
		default:
			say("held at the site " + s.name)
		}
	case adapters.Suspended:
		f.event = Paused
		if phase != Suspended && phase != Resuming {
			say("kept from running at the site " + s.name)
		}
	case adapters.Running:
		f.event = Started
		say("running at the site " + s.name)
	case adapters.Exited:
		f.event = Exited
		switch {
		case e.Signal != "":
			say("the program was ended by the signal " + e.Signal)
		case e.ExitStatus != nil:
			say(fmt.Sprintf("the program ended with exit status %d", *e.ExitStatus))
		default:
			say("the program ended")
		}
	case adapters.Cancelled:
		f.event = Ended
		if st.Cancel {
			say("terminated as asked")
		} else {
			say("cancelled at the site " + s.name)
		}
	case adapters.Stopped:
		f.event = Stopped
		say("ended by the site " + s.name)
		if e.LeaseEnded && st.Foreign != nil {
			f.event = Expired
			if neverRan {
				f.started = time.Time{}
			}
			break
		}
		if neverRan {
			f.started, f.unrun = time.Time{}, true
			switch {
			case st.Cancel:
				f.event = Unrun
			case b.elsewhere(j, st, s.name):
				f.event = Refused
				f.reason += "; another site is tried"
			}
		}
	case adapters.Lost:
		f.event, f.unrun = Vanished, neverRan
		switch {
		case st.Placement != nil && st.Placement.Recallable:
			// It runs there no more, and whether it did is no matter: its document allows that.
			f.event, f.started, f.notBefore = Returned, time.Time{}, b.later(st.Attempt)
			say("the site " + s.name + " gave it back")
			if !st.Cancel {
				f.reason += "; it is placed again"
			}
			s.setAside(&f, st, gaveBack)
		case neverRan && st.Lost < b.cfg.Retry.Lost || neverRan && st.Cancel:
			f.event, f.started, f.notBefore = Unrun, time.Time{}, b.later(st.Lost+1)
			say("lost by the site " + s.name + " before it ran" + again(st))
			s.setAside(&f, st, gaveBack)
		case neverRan:
			say(fmt.Sprintf("lost %d times before it could run, the last time by the site %s", st.Lost+1, s.name))
		case st.Placement != nil && st.Placement.Rerunnable && (st.Lost < b.cfg.Retry.Lost || st.Cancel):
			// It is gone there, so that it can't run twice at once; that it may have run is
			// what Rerunnable is for.
			f.event, f.started, f.notBefore = Rerun, time.Time{}, b.later(st.Lost+1)
			say("the site " + s.name + " lost it")
			f.reason += anew(st)
		case st.Placement != nil && st.Placement.Rerunnable:
			say(fmt.Sprintf("lost %d times, the last time by the site %s", st.Lost+1, s.name))
		default:
			say("the site " + s.name + " lost it while it ran: how far it came is not known, and it is not run a second time")
		}
	}
	// What was not seen to happen, but did, is told too.
	var fs []fact
	if phase == Placing && !placed {
		fs = append(fs, fact{event: Placed, handle: e.Handle, reason: "the site " + s.name + " took it"})
	}
	if f.path != "" && st.Placement.Path != f.path && !e.Phase.Final() {
		at := "at " + strings.ReplaceAll(f.path, "@", " since ")
		from := phase
		if from == Placing { // it is known to be there by now
			from = AtSite
		}
		if phaseTells(from, f.event) {
			f.reason += " (" + at + ")"
		} else {
			fs = append(fs, fact{event: Moved, path: f.path, reason: at})
		}
	}
	began := f.event == Exited || f.event == Stopped || f.event == Vanished || f.event == Expired || f.event == Paused || f.event == HeldThere
	if began && st.Started.IsZero() && !e.Started.IsZero() && !neverRan && phase != Cancelling {
		fs = append(fs, fact{event: Started, started: e.Started, reason: "running at the site " + s.name})
	}
	return append(fs, f)
}

// wayOf gives the way that evidence of a peer tells; "" where there is none.
func wayOf(st *store.Status, e *adapters.Evidence) string {
	way := e.Attributes[adapters.AttributePath]
	if st.Placement == nil || way == "" {
		return ""
	}
	return adapters.JoinHops(adapters.SplitHops(way))
}

// phaseTells reports whether the history gets a line for the event anyway.
func phaseTells(from Phase, e Event) bool {
	t, ok := transitions[from][e]
	return !ok || t.to != from
}

// hear posts evidence; asOf, when given, is the newest line of each job when the
// site was asked, which was at the time at, so that an answer that was overtaken does not count unless it
// is the end.
func (s *site) hear(es []adapters.Evidence, asked []ticket, asOf []int, at time.Time) {
	ins := make([]input, 0, len(es))
	for i := range es {
		e := &es[i]
		if e.Phase == adapters.Unknown {
			continue
		}
		s.heard.Store(time.Now().UnixNano())
		s.contact.Store(time.Now().UnixNano())
		s.answered.Store(time.Now().UnixNano())
		in := input{tag: string(e.Tag), facts: func(j *job, st store.Status) []fact { return s.facts(j, &st, e, false, at) }}
		if asked != nil {
			in.id, in.tag = asked[i].id, asked[i].tag
			if !e.Phase.Final() {
				in.asOf = asOf[i]
			}
		} else if k := strings.LastIndexByte(in.tag, '-'); k > 0 {
			in.id = in.tag[:k]
		}
		ins = append(ins, in)
	}
	s.b.post(ins...)
}

// watchLoop listens to a site that pushes evidence. Each time that it begins to
// listen, everything is asked once, as something may have been missed: when Watch
// is called, and again once it says that it is up (Watcher).
func (s *site) watchLoop(ctx context.Context, c *conn) {
	for failures := 0; ; {
		began := time.Now()
		nudge(s.wakeAudit)
		err := c.watcher.Watch(ctx, func(es []adapters.Evidence) {
			if len(es) == 0 {
				s.b.mu.Lock()
				s.listening = time.Now()
				s.b.mu.Unlock()
				nudge(s.wakeAudit)
				return
			}
			s.hear(es, nil, nil, time.Time{})
			nudge(s.b.wakeDispatch)
		})
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > time.Minute {
			failures = 0
		}
		failures++
		s.b.cfg.Log.Warn("a site's evidence does not flow; it is listened to again", "site", s.name, "cause", err)
		if !sleep(ctx, s.b.cfg.Retry.backoff(failures, s.b.cfg.Jitter())) {
			return
		}
	}
}
