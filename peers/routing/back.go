package routing

import "time"

// Back decides whether a job that a peer has, and that has not begun there, is to be taken
// back (handover.TakeBack): the own sites have recovered, and would have it sooner than
// the peer by as much as it takes to send one out. left is how long it is still expected to wait at
// the peer; known says whether anything tells. The sentence is for the history.
func Back(s Situation, p Policy, left time.Duration, known bool) (string, bool) {
	own := s.survey("", p)
	if !own.Fits || !own.Known || own.Wait > p.Recover {
		return "", false
	}
	// What it costs to take it back is paid in any case.
	mine := own.Wait + p.Hop
	switch {
	case known && float64(mine) >= float64(left)*p.Gain:
		return "", false
	case !known && !own.Now:
		return "", false
	case own.Now:
		return "the own sites have recovered and could start it now", true
	}
	return "the own sites have recovered and would have it sooner", true
}
