package engine

import (
	"maps"
	"time"
)

// Period is how long a budget is for: what is spent in one is not missing in the next. They begin at
// midnight in UTC, weeks on Mondays and months on their first days.
type Period string

// The periods.
const (
	Ever  Period = "" // the budget is for all time
	Day   Period = "day"
	Week  Period = "week"
	Month Period = "month"
)

// Valid reports whether it is one of them.
func (p Period) Valid() bool { return p == Ever || p == Day || p == Week || p == Month }

// Bounds gives the begin of the period that has a moment, and the begin of the next one; zero times are
// those of Ever.
func (p Period) Bounds(at time.Time) (from, next time.Time) {
	y, m, d := at.UTC().Date()
	switch p {
	case Day:
		return day(y, m, d), day(y, m, d+1)
	case Week:
		d -= (int(at.UTC().Weekday()) + 6) % 7
		return day(y, m, d), day(y, m, d+7)
	case Month:
		return day(y, m, 1), day(y, m+1, 1)
	case Ever:
	}
	return time.Time{}, time.Time{}
}

func day(y int, m time.Month, d int) time.Time { return time.Date(y, m, d, 0, 0, 0, 0, time.UTC) }

// Sum is what agreements cost whose windows begin on one day.
type Sum struct {
	Committed int64 `json:"committed,omitempty"`
	Spent     int64 `json:"spent,omitempty"`
}

const dayLayout = time.DateOnly

// within sums the days of an account in the period that has a moment.
func (a *Account) within(at time.Time) (used int64, from, next time.Time) {
	if from, next = a.Period.Bounds(at); next.IsZero() {
		return a.Committed + a.Spent, from, next
	}
	first, end := from.Format(dayLayout), next.Format(dayLayout)
	for d, s := range a.Days {
		if first <= d && d < end {
			used += s.Committed + s.Spent
		}
	}
	return used, from, next
}

// count adds to the day of a moment, and forgets days that no period counts any more. Days is
// replaced, as others may read it.
func (a *Account) count(at time.Time, committed, spent int64, now time.Time) {
	if a.Period == Ever {
		a.Days = nil
		return
	}
	oldest := day(now.UTC().Year(), now.UTC().Month(), 1)
	if week, _ := Week.Bounds(now); week.Before(oldest) {
		oldest = week
	}
	days := maps.Clone(a.Days)
	if days == nil {
		days = map[string]Sum{}
	}
	name := at.UTC().Format(dayLayout)
	s := days[name]
	if s.Committed, s.Spent = s.Committed+committed, s.Spent+spent; s == (Sum{}) {
		delete(days, name)
	} else {
		days[name] = s
	}
	limit := oldest.Format(dayLayout)
	maps.DeleteFunc(days, func(d string, s Sum) bool { return d < limit && s.Committed == 0 })
	a.Days = days
}

// counts gives the moment by whose period an agreement's price counts: when what is held for it
// begins, or else when it was made.
func (r *Record) counts() time.Time {
	if r.Plan != nil {
		if at := r.Plan.start(); !at.IsZero() {
			return at
		}
	}
	return r.Created
}
