package schedule

import "time"

// LatestStart gives when a job must have started at the latest for what is promised of it to hold: by
// startBy, and early enough to have ended by finishBy. Zero times promise nothing. A
// length of 0 is not known, and UnknownLength is reckoned with.
func LatestStart(startBy, finishBy time.Time, length time.Duration) time.Time {
	if finishBy.IsZero() {
		return startBy
	}
	if length <= 0 {
		length = UnknownLength
	}
	if latest := finishBy.Add(-length); startBy.IsZero() || latest.Before(startBy) {
		return latest
	}
	return startBy
}

// PromiseMargin is how long before a promised job must have started, at the latest, it is in
// danger though nobody expects it to wait: what is done about it takes time.
const PromiseMargin = 10 * time.Minute

// Margin is PromiseMargin, but at most half of the time that a job has to start in, from a moment on: of
// one that may not start before its window opens, and is to within minutes then, nobody expects that it
// runs earlier.
func Margin(from, latest time.Time) time.Duration {
	if from.IsZero() {
		return PromiseMargin
	}
	return min(PromiseMargin, max(0, latest.Sub(from)/2))
}

// leastLook is how seldom at least a promise is looked at again.
const leastLook = 15 * time.Second

// Endangered tells whether a job that has not started is in danger of starting after the latest
// moment, if it is to wait so long from now, with a Margin; and when to look again if it is not: each time half
// of what is left has passed, as the wait may become longer meanwhile.
func Endangered(latest time.Time, margin, wait time.Duration, now time.Time) (danger bool, look time.Time) {
	if latest.IsZero() {
		return false, time.Time{}
	}
	left := latest.Sub(now) - max(wait, 0) - margin
	if left <= 0 {
		return true, time.Time{}
	}
	return false, now.Add(min(left, max(left/2, leastLook)))
}
