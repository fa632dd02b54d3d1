package peering

import (
	"slices"
	"time"

	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/peers/handover"
)

const (
	// reasonInterval is how often it is looked what jobs of peers wait for, and how long one
	// waits before anybody is told.
	reasonInterval = 30 * time.Second
	// mostReasons bounds the jobs of one turn; those that were told longest ago come first.
	mostReasons = 64
	// mostNowhere is in how many turns in a row no site here may take jobs before those that
	// wait are given back.
	mostNowhere = 2
)

// explain has the giver of a job told what it waits for, now or, where it was told of the job
// a moment ago, with the next report or when it is explained again; the caller holds the lock.
func (e *Engine) explain(x *entry, why string) {
	x.why = handover.Short(why)
	if x.why == x.toldWhy {
		return
	}
	if !x.taken() || !live(x.job) || time.Since(x.told) < x.job.Taken.Terms.Resend {
		return
	}
	if err := e.step(x, handover.Tell{}); err != nil {
		e.o.Log.Debug("what a job of a peer waits for is not told", "job", x.key.String(), "cause", err)
	}
}

// waits heeds what a job here waits for; the caller holds the lock.
func (e *Engine) waits(x *entry, r broker.ForeignReason) {
	if r.Sentence == "" {
		x.worker.nowhere = 0
		return
	}
	e.explain(x, r.Sentence)
	if x.worker.nowhere++; !r.Nowhere {
		x.worker.nowhere = 0
	}
	if x.worker.nowhere < mostNowhere || x.job.Taken.Recall != handover.Keep {
		return
	}
	if err := e.step(x, handover.Return{Reason: r.Sentence, Kind: fail.Unavailable}); err != nil {
		e.o.Log.Debug("a job of a peer can't be given back", "job", x.key.String(), "cause", err)
	}
}

// reasonLoop tells the givers of jobs that wait here for long what they wait for: of most
// no record says so. Those that could start nowhere here though it were idle are given back:
// their domains may know of another place.
func (e *Engine) reasonLoop(t *term) error {
	timer := time.NewTimer(reasonInterval)
	defer timer.Stop()
	for {
		select {
		case <-t.ctx.Done():
			return nil
		case <-timer.C:
		}
		timer.Reset(reasonInterval)
		var wait []*entry
		e.mu.Lock()
		for _, x := range e.acts {
			if !x.asked.IsZero() && time.Since(x.asked) < reasonInterval {
				continue // the turns before were full, and it was among theirs
			}
			if x.taken() && x.job.Phase == handover.Here && !x.job.Started && x.worker.started && time.Since(x.Since) >= reasonInterval {
				wait = append(wait, x)
			}
		}
		slices.SortFunc(wait, func(a, b *entry) int { return a.asked.Compare(b.asked) })
		if len(wait) > mostReasons {
			wait = wait[:mostReasons]
			timer.Reset(reasonInterval / 15)
		}
		ids := make([]string, len(wait))
		for i, x := range wait {
			ids[i], x.asked = x.Activity, time.Now()
		}
		e.mu.Unlock()
		if len(ids) == 0 {
			continue
		}
		reasons := e.o.Jobs.Reasons(ids...)
		e.mu.Lock()
		for i, x := range wait {
			if e.term == t && x.Activity == ids[i] && x.taken() && x.job.Phase == handover.Here {
				e.waits(x, reasons[ids[i]])
			}
		}
		e.mu.Unlock()
	}
}
