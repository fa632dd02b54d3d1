package handover

import (
	"fmt"
	"time"
)

// CPUTime is time that CPUs were busy for a job, all together, in milliseconds; a
// time.Duration would hold no more than 292 years of it, which a large job uses in days.
type CPUTime int64

// Units and bounds of CPUTime.
const (
	CPUSecond CPUTime = 1000
	CPUHour           = 3600 * CPUSecond
	MaxUsed   CPUTime = 1 << 53 // of one copy of a job
)

// CPU gives the time that n CPUs were busy for d, cut to whole milliseconds.
func CPU(n int, d time.Duration) CPUTime {
	if ms := CPUTime(d / time.Millisecond); n > 0 && ms > 0 {
		if ms > MaxUsed/CPUTime(n) {
			return MaxUsed
		}
		return CPUTime(n) * ms
	}
	return 0
}

func (c CPUTime) String() string {
	switch {
	case c > -CPUHour && c < CPUHour:
		return fmt.Sprintf("%.3f CPU seconds", float64(c)/float64(CPUSecond))
	}
	return fmt.Sprintf("%.2f CPU hours", float64(c)/float64(CPUHour))
}

// plus adds what was used, and stays within the bound.
func (c CPUTime) plus(o CPUTime) CPUTime { return min(c+o, MaxUsed) }
