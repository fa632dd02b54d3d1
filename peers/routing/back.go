package routing

import "time"

// Back decides whether a job that a peer has, and that has not begun there, is to be taken
// back (handover.TakeBack): the own sites have recovered, and would have it sooner than
// the peer by as much as it takes to send one out. left is how long it is still expected to wait at
// the peer; known says whether anything tells. The sentence is for the history.
func Back(s Situation, p Policy, left time.Duration, known bool) (string, bool) {
	own := surveyOf(s.Snapshot, "", s.Request, s.Derived, p)
	if !own.fits || !own.known || own.wait > p.Recover {
		return "", false
	}
	// What it costs to take it back is paid in any case.
	mine := own.wait + p.Hop
	switch {
	case known && float64(mine) >= float64(left)*p.Gain:
		return "", false
	case !known && !own.now:
		return "", false
	case own.now:
		return "the own sites have recovered and could start it now", true
	}
	return "the own sites have recovered and would have it sooner", true
}
