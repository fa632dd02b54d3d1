package policy

import (
	"cmp"
	"math"
	"time"
)

// Compare orders jobs of a group by their keys, then by their IDs.
func (k Key) Compare(o Key) int {
	return cmp.Or(cmp.Compare(k[0], o[0]), cmp.Compare(k[1], o[1]), cmp.Compare(k[2], o[2]))
}

// class is the first element of every key: jobs whose place was lost go first, and
// among them the rest of the key orders them by their old age.
func class(j *Job) float64 { return -float64(j.Class) }

// moment gives a time in seconds, and never a later one for an earlier time. Times
// closer than about 240 ns may give the same: IDs are in the order of submission.
func moment(t time.Time) float64 { return float64(t.Unix()) + float64(t.Nanosecond())/1e9 }

// seconds makes a Duration of a parameter.
func seconds(s float64) time.Duration {
	return time.Duration(min(max(s*float64(time.Second), math.MinInt64), math.MaxInt64/2))
}

// together is an order whose jobs are all in one group.
type together struct{}

func (together) Group(*Job) string                       { return "" }
func (together) Weight(string, time.Time, Usage) float64 { return 0 }

// fifo orders by age.
type fifo struct{ together }

func (fifo) Key(j *Job) Key {
	return Key{class(j), float64(j.Submitted.Unix()), float64(j.Submitted.Nanosecond())}
}

// byPriority is the order of jobs of one group by priority + wait ÷ age. Since all waits grow alike, the order of
// two jobs never changes: submitted − priority × age is as good, and stays as it is.
type byPriority struct{ age float64 } // seconds

func (p byPriority) Key(j *Job) Key {
	if p.age == 0 {
		return Key{class(j), -float64(j.Priority), moment(j.Submitted)}
	}
	return Key{class(j), moment(j.Submitted) - float64(j.Priority)*p.age, -float64(j.Priority)}
}

// byDeadline orders by deadline, or by slack: deadline − length − now, where now is
// the same for all and left out.
type byDeadline struct {
	together
	slack    bool
	length   float64 // seconds, of a job that tells none
	patience float64 // seconds; 0: jobs without a deadline go last
}

func (p byDeadline) Key(j *Job) Key {
	submitted := moment(j.Submitted)
	due := math.MaxFloat64
	switch {
	case !j.Deadline.IsZero():
		due = moment(j.Deadline)
	case p.patience > 0:
		due = submitted + p.patience
	}
	if p.slack && due != math.MaxFloat64 {
		length := p.length
		if j.Length > 0 {
			length = j.Length.Seconds()
		}
		due -= length
	}
	return Key{class(j), due, submitted}
}
