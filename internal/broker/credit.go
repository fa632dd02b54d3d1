package broker

import "time"

// credit bounds how many jobs are on their way to a site without an answer: each
// window of jobs that was answered well makes it larger by creditStep, and a site that
// puts jobs off or is slow has it halved (additive increase, multiplicative decrease),
// so that a site that can't keep up gets fewer jobs while others take them. It is pure;
// its owner holds the lock. The zero value is full.
type credit struct {
	spent float64 // below the most
	usual float64 // seconds of an answer, on average; 0 before the first
}

const (
	mostCredit  = 4 * mostAlike // what a site that answers well has
	leastCredit = 1             // with which one that does not is tried
	creditStep  = 16
	// slowAnswer is how long an answer may take that is not slow at all, and
	// slowFactor how many times its usual a slow one takes beyond that. An answer
	// beyond hangAnswer is always slow, and none of what is usual.
	slowAnswer = 2 * time.Second
	slowFactor = 4
	hangAnswer = 20 * time.Second
)

// window gives how many jobs may be on their way.
func (c *credit) window() int { return max(leastCredit, int(mostCredit-c.spent)) }

// answered notes that n jobs were answered after a time, and how many of them the
// site put off.
func (c *credit) answered(n, refused int, took time.Duration) {
	if n <= 0 {
		return
	}
	w, s := mostCredit-c.spent, took.Seconds()
	slow := took > hangAnswer || took > slowAnswer && (c.usual == 0 || s > slowFactor*c.usual)
	switch {
	case took > hangAnswer:
	case c.usual == 0:
		c.usual = s
	default:
		c.usual += (s - c.usual) / 8
	}
	if refused > 0 || slow {
		w /= 2
	} else {
		w += float64(n) * min(1, creditStep/w)
	}
	c.spent = mostCredit - min(mostCredit, max(leastCredit, w))
}

// shut leaves the least, as after many bad answers.
func (c *credit) shut() { c.spent = mostCredit - leastCredit }
