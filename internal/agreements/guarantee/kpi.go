package guarantee

import (
	"maps"
	"time"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/decimal"
)

// The KPIs: what a job gateway can watch.
const (
	QueueWait      = "queueWait"      // from submission to the first start
	StartTime      = "startTime"      // when the job started first
	FinishTime     = "finishTime"     // when the job finished
	RunTime        = "runTime"        // how long it ran, all attempts together, without what it was suspended
	Availability   = "availability"   // the part of the reserved slots' time in the window that was usable
	Success        = "success"        // whether the job finished
	SlotsAvailable = "slotsAvailable" // of the window, at present
)

// KPIs are those that can be promised, and what a person calls them.
func KPIs() map[string]agreement.Declared { return maps.Clone(kpis) }

var kpis = map[string]agreement.Declared{
	QueueWait:      {Type: agreement.Duration, Words: "the wait in the queue"},
	StartTime:      {Type: agreement.DateTime, Words: "the start"},
	FinishTime:     {Type: agreement.DateTime, Words: "the end"},
	RunTime:        {Type: agreement.Duration, Words: "the run time"},
	Availability:   {Type: agreement.Number, Words: "the part of the reserved slots that is usable"},
	Success:        {Type: agreement.Boolean, Words: "the job finishes"},
	SlotsAvailable: {Type: agreement.Number, Words: "the number of usable slots"},
}

// Facts is what events told of one service.
type Facts struct {
	Submitted time.Time `json:"submitted,omitzero"`
	Started   time.Time `json:"started,omitzero"` // first
	Ended     time.Time `json:"ended,omitzero"`
	Outcome   Outcome   `json:"outcome,omitempty"`

	RunningSince time.Time     `json:"runningSince,omitzero"` // zero while it does not run
	Ran          time.Duration `json:"ran,omitempty"`         // before RunningSince

	Opened   time.Time       `json:"opened,omitzero"`
	Until    time.Time       `json:"until,omitzero"` // the window's end, as planned or earlier
	Reserved int64           `json:"reserved,omitempty"`
	Usable   int64           `json:"usable,omitempty"`
	Counted  time.Time       `json:"counted,omitzero"` // Used goes to here
	Used     decimal.Decimal `json:"used,omitzero"`    // usable slots times seconds

	Completed time.Time `json:"completed,omitzero"` // the agreement as a whole
}

// first sets a moment that is not known yet.
func first(at *time.Time, t time.Time) bool {
	if at.IsZero() {
		*at = t
		return true
	}
	return false
}

func (f *Facts) stop(t time.Time) {
	if !f.RunningSince.IsZero() {
		f.Ran += max(0, t.Sub(f.RunningSince))
		f.RunningSince = time.Time{}
	}
}

// usedAt gives Used at a moment.
func (f *Facts) usedAt(t time.Time) decimal.Decimal {
	if t.After(f.Until) {
		t = f.Until
	}
	if f.Opened.IsZero() || !t.After(f.Counted) {
		return f.Used
	}
	more, _ := decimal.New(f.Usable).Mul(decimal.Seconds(t.Sub(f.Counted))) // maxSlots for 292 years fit
	sum, _ := f.Used.Add(more)
	return sum
}

// take folds an event in. Those of one service come in the order of their times.
func (f *Facts) take(e Event) {
	switch e.Kind {
	case Submitted:
		first(&f.Submitted, e.Time)
	case Started, Restarted, Resumed:
		if e.Kind != Resumed {
			first(&f.Started, e.Time)
		}
		if f.Ended.IsZero() && !f.Started.IsZero() {
			first(&f.RunningSince, e.Time)
		}
	case Suspended, Lost:
		f.stop(e.Time)
	case Ended:
		if first(&f.Ended, e.Time) {
			f.stop(e.Time)
			f.Outcome = e.Outcome
		}
	case WindowOpened:
		if first(&f.Opened, e.Time) {
			f.Until, f.Reserved, f.Usable, f.Counted = e.Until, e.Slots, e.Slots, e.Time
		}
	case CapacityDown, CapacityUp:
		if !f.Opened.IsZero() {
			f.Used = f.usedAt(e.Time)
			f.Usable = min(e.Slots, f.Reserved)
			if e.Time.After(f.Counted) {
				f.Counted = e.Time
			}
		}
	case WindowClosed:
		if !f.Opened.IsZero() && e.Time.Before(f.Until) {
			f.Until = e.Time
		}
	case Completed:
		first(&f.Completed, e.Time)
	}
}

// value gives what is known of a KPI at a moment up to which all events are told:
// what has not happened by then will happen later, if at all.
func (f *Facts) value(name string, now time.Time) agreement.Value {
	d := kpis[name]
	// A job that its owner took away, or that nobody submitted, tells nothing more. One
	// that failed did not finish: the clock of what was promised goes on.
	gone := f.Outcome == Cancelled
	none := f.Submitted.IsZero() && f.Started.IsZero()
	switch name {
	case StartTime, QueueWait:
		at := agreement.OfTime
		switch {
		case none || name == QueueWait && f.Submitted.IsZero():
			return agreement.Unknown(d.Type)
		case name == QueueWait:
			at = func(t time.Time) agreement.Value { return agreement.OfDuration(t.Sub(f.Submitted)) }
		}
		switch {
		case !f.Started.IsZero():
			return at(f.Started)
		case gone:
			return at(f.Ended).More()
		}
		return at(now).More()
	case FinishTime:
		switch {
		case none:
			return agreement.Unknown(d.Type)
		case f.Outcome == Finished:
			return agreement.OfTime(f.Ended)
		case gone:
			return agreement.OfTime(f.Ended).More()
		}
		return agreement.OfTime(now).More()
	case RunTime:
		switch {
		case f.Started.IsZero():
			return agreement.Unknown(d.Type)
		case f.Outcome == Finished:
			return agreement.OfDuration(f.Ran)
		case !f.RunningSince.IsZero():
			return agreement.OfDuration(f.Ran + now.Sub(f.RunningSince)).More()
		}
		return agreement.OfDuration(f.Ran).OrMore()
	case Success:
		if f.Ended.IsZero() || gone {
			return agreement.Unknown(d.Type)
		}
		return agreement.OfBoolean(f.Outcome == Finished)
	case Availability:
		return f.availability(now)
	case SlotsAvailable:
		if !f.Opened.IsZero() && now.Before(f.Until) {
			return agreement.OfNumber(decimal.New(f.Usable))
		}
	}
	return agreement.Unknown(d.Type)
}

func (f *Facts) availability(now time.Time) agreement.Value {
	if f.Opened.IsZero() || !f.Opened.Before(f.Until) || f.Reserved == 0 {
		return agreement.Unknown(agreement.Number)
	}
	share := func(slotSeconds decimal.Decimal) agreement.Value {
		all, _ := decimal.New(f.Reserved).Mul(decimal.Seconds(f.Until.Sub(f.Opened)))
		d, _ := slotSeconds.Div(all)
		return agreement.OfNumber(d)
	}
	used := f.usedAt(now)
	left, _ := decimal.New(f.Reserved).Mul(decimal.Seconds(max(0, f.Until.Sub(now))))
	best, _ := used.Add(left)
	return share(used).UpTo(share(best))
}

// over reports whether nothing more is to come of the service's KPIs.
func (f *Facts) over(now time.Time) bool {
	return f.Outcome == Finished || f.Outcome == Cancelled || !f.Completed.IsZero() || !f.Opened.IsZero() && !now.Before(f.Until)
}

// String tells the facts: "submitted 2026-11-29 13:50 UTC, started …".
func (f *Facts) String() string {
	s := ""
	tell := func(what string, t time.Time) {
		if t.IsZero() {
			return
		}
		if s != "" {
			s += ", "
		}
		s += what + " " + agreement.OfTime(t).String()
	}
	tell("submitted", f.Submitted)
	tell("started", f.Started)
	tell(string(f.Outcome), f.Ended)
	tell("window opened", f.Opened)
	tell("until", f.Until)
	return s
}
