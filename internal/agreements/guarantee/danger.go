package guarantee

import (
	"time"

	"github.com/portolan-project/portolan/agreement"
)

// Risk is how a promise stands by an estimate.
type Risk string

// The risks.
const (
	Safe     Risk = "safe"      // kept already, by the estimate it will be, or there is nothing to keep
	Unclear  Risk = "unclear"   // the estimate does not tell
	InDanger Risk = "in danger" // by the estimate it will be broken, and there is still time to act
	Broken   Risk = "lost"      // it is broken, or no start however early keeps it
)

// Estimate is what a scheduler believes of a job. A zero time is not known.
type Estimate struct {
	Start, Finish time.Time
	// Run is how long the job takes from a start; 0 is the time between Start and Finish,
	// if both are known.
	Run time.Duration
}

// Danger tells whether the promise to a service is in danger, and the latest moment at
// which the job must start, here or elsewhere, to keep it; zero is that no start is
// too late, or none soon enough. s is to be judged up to now.
func (g *Guarantee) Danger(s State, now time.Time, service string, e Estimate) (Risk, time.Time) {
	if len(g.Services) == 0 {
		service = ""
	}
	now = plain(now)
	f := s.facts(service, now)
	switch v := s.Verdicts[service]; {
	case v.State == agreement.Violated && !g.momentary:
		return Broken, time.Time{}
	case v.State == agreement.Fulfilled && !g.momentary, s.Over:
		return Safe, time.Time{}
	}
	if e.Run == 0 && !e.Start.IsZero() && !e.Finish.IsZero() {
		e.Run = max(0, e.Finish.Sub(e.Start))
	}
	breaks := func(start time.Time) bool {
		return g.expect(&f, now, start, start.Add(e.Run), e.Run) == agreement.Violated
	}
	hopeless := breaks(now)
	var by time.Time
	if !hopeless {
		if by = change(now, time.Time{}, breaks); !by.IsZero() {
			by = by.Add(-1) // the last at which it was kept
		}
	}
	run := e.Run
	if !f.RunningSince.IsZero() && !e.Finish.IsZero() { // what is left of the attempt that runs
		run = max(0, e.Finish.Sub(now))
	}
	switch g.expect(&f, now, e.Start, e.Finish, run) {
	case agreement.Fulfilled:
		return Safe, by
	case agreement.Violated:
		if hopeless {
			return Broken, time.Time{}
		}
		return InDanger, by
	case agreement.NotDetermined:
	}
	return Unclear, by
}

// expect gives what would hold if the job started and finished so; a zero time is not
// known.
func (g *Guarantee) expect(f *Facts, now, start, finish time.Time, run time.Duration) agreement.GuaranteeState {
	known := func(t time.Time) agreement.Value {
		if t.IsZero() {
			return agreement.OfTime(now).More()
		}
		return agreement.OfTime(t)
	}
	look := g.lookup(f, now)
	hoped := func(name string) agreement.Value {
		v := look(name)
		if v.Known() {
			return v
		}
		switch name {
		case StartTime:
			return known(start)
		case QueueWait:
			if !f.Submitted.IsZero() && !start.IsZero() {
				return agreement.OfDuration(max(0, start.Sub(f.Submitted)))
			}
		case FinishTime:
			return known(finish)
		case RunTime:
			if run > 0 {
				ran := f.Ran
				if !f.RunningSince.IsZero() {
					ran += now.Sub(f.RunningSince)
				}
				return agreement.OfDuration(ran + run)
			}
		case Success:
			return agreement.OfBoolean(true)
		}
		return v
	}
	if g.condition != nil {
		if is, ok := g.condition.Evaluate(hoped).Truth(); ok && !is {
			return agreement.Fulfilled // it promises nothing then
		} else if !ok {
			return ""
		}
	}
	switch is, ok := g.objective.Evaluate(hoped).Truth(); {
	case !ok:
		return ""
	case is:
		return agreement.Fulfilled
	}
	return agreement.Violated
}
